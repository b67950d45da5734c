//! The octets of a push (RFC 6407 §4): header, payloads, and what SIG covers.

use crate::error::{Error, PeerMisbehaved};
use crate::group::proof::FromKeyServer;
use crate::group::{Spi, TekProtocol};
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::kd::KeyDownload;
use crate::wire::registry::GROUPKEY_PUSH;
use ike::crypto::HashAlgorithm;
use ike::crypto::{RsaForm, hash};
use ike::wire::codec::Codec;
use ike::wire::delete::Delete;
use ike::wire::header;
use ike::wire::header::Header;
use ike::wire::registry::{Doi, Flags, PayloadKind, ProtocolId};
use ike::wire::vendor::VendorId;
use ike::wire::{EncodeError, Writer};

/// As errors name it.
pub(crate) const NAME: &str = "push";

/// Which Length stands in the header that SIG covers. RFC 6407 §4 says "the HDR" and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum SignedLength {
    /// The length on the wire, padding of the cipher included.
    #[default]
    Padded,
    /// The length without the padding, as an existing key server signs it.
    Unpadded,
}

/// How a key server makes its signatures, as far as its pushes have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SignatureEncoding {
    /// What RSA signatures cover; `None` before the first push and for ECDSA.
    pub form: Option<RsaForm>,
    /// Which length is signed; `None` until a push had padding, since both are the same without.
    pub length: Option<SignedLength>,
}

/// What a Delete payload of a push names (RFC 6407 §5.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deletion {
    /// One data SA, by its SPI.
    Tek(TekProtocol, Spi),
    /// All data SAs of a protocol.
    AllTeks(TekProtocol),
    /// One rekey SA, by its cookie pair.
    Kek([u8; 16]),
    /// Every rekey SA of the group.
    AllKeks,
}

impl Deletion {
    /// What `delete` names.
    ///
    /// # Errors
    /// Another DOI, or SPIs of a length that the protocol does not have.
    pub fn read(delete: &Delete) -> Result<Vec<Self>, Error> {
        let refused = PeerMisbehaved::Delete {
            doi: delete.doi.0,
            protocol: delete.protocol.0,
            spi_size: delete.spi_size,
        };
        if delete.doi != Doi::GDOI {
            return Err(refused.into());
        }
        let one = |spi: &Vec<u8>| {
            let zero = spi.iter().all(|octet| *octet == 0);
            match (delete.protocol.0, spi.len()) {
                // The length of a zero SPI that means every KEK is not stated.
                (KEK, 16 | 4) if zero => Some(Self::AllKeks),
                (KEK, 16) => <[u8; 16]>::try_from(spi.as_slice()).ok().map(Self::Kek),
                (KEK, _) => None,
                (protocol, 4) if zero => Some(Self::AllTeks(TekProtocol(protocol))),
                (protocol, 4) => {
                    let spi = <[u8; 4]>::try_from(spi.as_slice()).ok()?;
                    Some(Self::Tek(TekProtocol(protocol), Spi::from_be_bytes(spi)))
                }
                _ => None,
            }
        };
        delete.spis.iter().map(|spi| one(spi).ok_or(refused.clone().into())).collect()
    }

    /// Delete payloads that name `deletions`: one for each run of equal protocol and SPI length, in
    /// the order given.
    pub fn write(deletions: &[Self]) -> Vec<Delete> {
        let mut payloads: Vec<Delete> = Vec::new();
        for deletion in deletions {
            let (protocol, spi) = match deletion {
                Self::Tek(protocol, spi) => (protocol.0, spi.to_be_bytes().to_vec()),
                Self::AllTeks(protocol) => (protocol.0, vec![0; 4]),
                Self::Kek(spi) => (KEK, spi.to_vec()),
                Self::AllKeks => (KEK, vec![0; 16]),
            };
            match payloads.last_mut() {
                Some(last) if last.protocol.0 == protocol => last.spis.push(spi),
                _ => payloads.push(Delete {
                    doi: Doi::GDOI,
                    protocol: ProtocolId(protocol),
                    spi_size: if protocol == KEK { 16 } else { 4 },
                    spis: vec![spi],
                }),
            }
        }
        payloads
    }
}

/// The payload bodies of a push between SEQ and SIG.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct PushPayloads {
    pub(crate) deletes: Vec<Delete>,
    pub(crate) policy: Option<GroupSecurityAssociation>,
    pub(crate) keys: Option<FromKeyServer<KeyDownload>>,
    pub(crate) vendor_ids: Vec<VendorId>,
}

/// A header of a push under the KEK `spi`, its Length still to be filled in.
pub(crate) fn push_header(spi: &[u8; 16]) -> Header {
    let (initiator_cookie, responder_cookie) = cookies(spi);
    Header {
        initiator_cookie,
        responder_cookie,
        next_payload: PayloadKind::SEQUENCE_NUMBER,
        version: header::VERSION,
        exchange: GROUPKEY_PUSH,
        flags: Flags::ENCRYPTION,
        message_id: 0,
        length: 0,
    }
}

/// The cookie pair of a KEK's messages.
pub(crate) fn cookies(spi: &[u8; 16]) -> ([u8; 8], [u8; 8]) {
    let mut pair = ([0; 8], [0; 8]);
    let (initiator, responder) = spi.split_at(8);
    pair.0.copy_from_slice(initiator);
    pair.1.copy_from_slice(responder);
    pair
}

/// The SPI that a header's cookies name.
pub(crate) fn spi_of(header: &Header) -> [u8; 16] {
    let mut spi = [0; 16];
    let octets = header.initiator_cookie.iter().chain(&header.responder_cookie);
    spi.iter_mut().zip(octets).for_each(|(place, octet)| *place = *octet);
    spi
}

/// SPI of the KEK that a push names; `None` for every other message. Nothing is proved.
pub fn addressed_to(datagram: &[u8]) -> Option<[u8; 16]> {
    let (header, _) = header::split(datagram).ok()?;
    (header.exchange == GROUPKEY_PUSH).then(|| spi_of(&header))
}

/// H("rekey" | HDR | SEQ | D ... | SA | KD): what SIG signs. `payloads` are the octets in front of
/// SIG; `octets_behind_header` is what the Length in HDR counts behind it.
pub(crate) fn signed_digest(
    algorithm: HashAlgorithm,
    header: &Header,
    octets_behind_header: usize,
    payloads: &[u8],
) -> Result<Vec<u8>, EncodeError> {
    let header = signed_header(header, octets_behind_header)?;
    Ok(hash(algorithm, &[LABEL, &header, payloads]))
}

/// HDR as SIG covers it.
pub(crate) fn signed_header(
    header: &Header,
    octets_behind_header: usize,
) -> Result<Vec<u8>, EncodeError> {
    let length = header::LENGTH.saturating_add(octets_behind_header);
    let mut header = *header;
    header.length = u32::try_from(length).map_err(|_| EncodeError {
        what: "message length",
        have: length,
        maximum: u32::MAX as usize,
    })?;
    let mut writer = Writer::new();
    header.encode(&mut writer);
    writer.finish()
}

/// Five octets, no terminator (RFC 6407 §4).
pub(crate) const LABEL: &[u8] = b"rekey";

/// Protocol-ID of a KEK in a Delete payload. An ISAKMP SA's is 1, in Informational exchanges.
const KEK: u8 = 0;

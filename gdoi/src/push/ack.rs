//! The acknowledgement of a push (RFC 8263): `HDR, HASH, SEQ, ID`, in clear.
//!
//! ```text
//! ack_key = prf(base_key, "GROUPKEY-PUSH ACK" | 0x00 | SPI | L)
//! HASH    = prf(ack_key, SEQ | ID)
//! ```

use core::net::IpAddr;

use crate::error::Error;
use crate::push::message;
use crate::wire::registry::{GROUPKEY_PUSH_ACK, RekeyAcknowledgement};
use crate::wire::seq::SequenceNumber;
use ike::config::Identity;
use ike::crypto::HashAlgorithm;
use ike::crypto::{Secret, constant_time_eq, prf};
use ike::error::{PeerIncompatible, PeerMisbehaved};
use ike::wire::chain;
use ike::wire::chain::encode_one;
use ike::wire::hash::Hash;
use ike::wire::header;
use ike::wire::header::Header;
use ike::wire::id::Identification;
use ike::wire::registry::{Flags, PayloadKind};
use ike::wire::{Body, Writer};

/// As errors name it.
const NAME: &str = "acknowledgement";

/// KEK_ACK_REQUESTED (RFC 8263 §2): which key is the base, and which hash the prf has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AcknowledgementKind {
    /// REKEY_ACK_KEK_SHA256: from the KEK, with HMAC-SHA-256.
    KekSha256,
    /// REKEY_ACK_LKH_SHA256: from the member's leaf key, with HMAC-SHA-256.
    LkhSha256,
    /// REKEY_ACK_KEK_SHA512: from the KEK, with HMAC-SHA-512.
    KekSha512,
    /// REKEY_ACK_LKH_SHA512: from the member's leaf key, with HMAC-SHA-512.
    LkhSha512,
}

impl AcknowledgementKind {
    /// The kind with this number; `None` for numbers that nothing here knows.
    pub fn from_number(number: u16) -> Option<Self> {
        match RekeyAcknowledgement(number) {
            RekeyAcknowledgement::KEK_SHA256 => Some(Self::KekSha256),
            RekeyAcknowledgement::LKH_SHA256 => Some(Self::LkhSha256),
            RekeyAcknowledgement::KEK_SHA512 => Some(Self::KekSha512),
            RekeyAcknowledgement::LKH_SHA512 => Some(Self::LkhSha512),
            _ => None,
        }
    }

    /// The value of the KEK_ACK_REQUESTED attribute.
    pub fn number(self) -> u16 {
        match self {
            Self::KekSha256 => RekeyAcknowledgement::KEK_SHA256.0,
            Self::LkhSha256 => RekeyAcknowledgement::LKH_SHA256.0,
            Self::KekSha512 => RekeyAcknowledgement::KEK_SHA512.0,
            Self::LkhSha512 => RekeyAcknowledgement::LKH_SHA512.0,
        }
    }

    /// Whether the base key is the member's own leaf key of the hierarchy, and not the KEK that all
    /// members hold.
    pub fn uses_leaf_key(self) -> bool {
        matches!(self, Self::LkhSha256 | Self::LkhSha512)
    }

    fn hash(self) -> HashAlgorithm {
        match self {
            Self::KekSha256 | Self::LkhSha256 => HashAlgorithm::Sha2_256,
            Self::KekSha512 | Self::LkhSha512 => HashAlgorithm::Sha2_512,
        }
    }
}

/// The value of `L`, a number of bits. RFC 8263 §3.2 contradicts itself about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum AcknowledgementLength {
    /// The block of the hash, to which HMAC fills its key up: 512 or 1024. The only figure that the
    /// RFC prints.
    #[default]
    Block,
    /// The output of the prf: 256 or 512.
    Output,
    /// The base key itself, for example 128.
    Key,
}

impl AcknowledgementLength {
    fn bits(self, hash: HashAlgorithm, base_key: &Secret) -> u16 {
        let octets = match self {
            Self::Block if hash == HashAlgorithm::Sha2_512 => 128,
            Self::Block => 64,
            Self::Output => hash.output_length(),
            Self::Key => base_key.len(),
        };
        u16::try_from(octets.saturating_mul(8)).unwrap_or(u16::MAX)
    }
}

/// An acknowledgement as it came: whoever sent it claims to be `address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// SPI of the KEK that encrypted the push.
    pub spi: [u8; 16],
    /// Number of the push.
    pub sequence_number: u32,
    /// The member, by the address it pulled from, as it knows it.
    pub address: IpAddr,
    /// Where the datagram came from, if that is known.
    source: Option<IpAddr>,
    hash: Vec<u8>,
    /// SEQ and ID with their generic headers.
    covered: Vec<u8>,
}

/// A verified acknowledgement. Kinds with the KEK as base key prove only that some member of the
/// group made it (RFC 8263 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// SPI of the KEK that encrypted the push.
    pub spi: [u8; 16],
    /// Number of the push.
    pub sequence_number: u32,
    /// Address of the member that acknowledged.
    pub address: IpAddr,
    /// Which reading of `L` the member follows.
    pub length: AcknowledgementLength,
}

/// The acknowledgement of push `sequence_number` under the KEK `spi` by the member at `address`.
///
/// # Errors
/// A value does not fit its field; does not happen.
pub fn acknowledge(
    kind: AcknowledgementKind,
    length: AcknowledgementLength,
    base_key: &Secret,
    spi: &[u8; 16],
    sequence_number: u32,
    address: IpAddr,
) -> Result<Vec<u8>, Error> {
    let mut covered = Writer::new();
    encode_one(&mut covered, PayloadKind::IDENTIFICATION, &SequenceNumber(sequence_number));
    encode_one(&mut covered, PayloadKind::NONE, &Identification::of(&Identity::Address(address)));
    let covered = covered.finish()?;
    let hash = Hash(authenticator(kind, length, base_key, spi, &covered).expose().to_vec());
    let mut body = Writer::new();
    encode_one(&mut body, SequenceNumber::KIND, &hash);
    body.put(&covered);
    Ok(ack_header(spi).message(&body.finish()?)?)
}

impl Claim {
    /// Reads an acknowledgement; nothing is proved yet.
    ///
    /// # Errors
    /// The octets are no acknowledgement in clear, or the member is named by something else than an
    /// address.
    pub fn read(datagram: &[u8]) -> Result<Self, Error> {
        let (header, body) = header::split(datagram)?;
        if header.exchange != GROUPKEY_PUSH_ACK {
            return Err(PeerIncompatible::ExchangeType(header.exchange.0).into());
        }
        if header.flags.contains(Flags::ENCRYPTION) {
            return Err(PeerMisbehaved::Encryption { message: NAME, encrypted: true }.into());
        }
        if header.message_id != 0 {
            return Err(PeerMisbehaved::MessageId(header.message_id).into());
        }
        let chain = chain::walk_clear(header.next_payload, body, header::LENGTH)?;
        let [hash, number, id] = chain.payloads.as_slice() else {
            return Err(PeerMisbehaved::MissingPayload {
                message: NAME,
                payload: "HASH, SEQ or ID",
            }
            .into());
        };
        let (hash, number): (Hash, SequenceNumber) = (hash.read()?, number.read()?);
        let id: Identification = id.read()?;
        let Some(Identity::Address(address)) = id.as_identity() else {
            return Err(PeerIncompatible::IdentificationType(id.kind).into());
        };
        Ok(Self {
            spi: message::spi_of(&header),
            sequence_number: number.0,
            address,
            source: None,
            hash: hash.0,
            covered: chain.octets_behind(0).to_vec(),
        })
    }

    /// The claim came from `source`.
    #[must_use]
    pub fn from_source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Where the datagram came from, if that is known.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Verifies HASH under every reading of `L`.
    ///
    /// # Errors
    /// HASH fits under none of them: [`PeerMisbehaved::WrongHash`].
    pub fn verify(
        &self,
        kind: AcknowledgementKind,
        base_key: &Secret,
    ) -> Result<Acknowledged, Error> {
        for length in [
            AcknowledgementLength::Block,
            AcknowledgementLength::Output,
            AcknowledgementLength::Key,
        ] {
            let computed = authenticator(kind, length, base_key, &self.spi, &self.covered);
            if constant_time_eq(computed.expose(), &self.hash) {
                let Self { spi, sequence_number, address, .. } = *self;
                return Ok(Acknowledged { spi, sequence_number, address, length });
            }
        }
        Err(PeerMisbehaved::WrongHash { message: NAME }.into())
    }
}

fn authenticator(
    kind: AcknowledgementKind,
    length: AcknowledgementLength,
    base_key: &Secret,
    spi: &[u8; 16],
    covered: &[u8],
) -> Secret {
    let bits = length.bits(kind.hash(), base_key).to_be_bytes();
    let ack_key = prf(kind.hash(), base_key.expose(), &[LABEL, spi, &bits]);
    prf(kind.hash(), ack_key.expose(), &[covered])
}

fn ack_header(spi: &[u8; 16]) -> Header {
    Header {
        next_payload: PayloadKind::HASH,
        exchange: GROUPKEY_PUSH_ACK,
        flags: Flags::NONE,
        ..message::push_header(spi)
    }
}

/// With its terminator (RFC 8263 §3.2).
const LABEL: &[u8] = b"GROUPKEY-PUSH ACK\0";

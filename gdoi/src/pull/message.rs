//! The four messages of a pull (RFC 6407 §3.2), each a struct that is read whole before anything
//! changes.

use crate::error::Error;
use crate::wire::gap::Gap;
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::kd::KeyDownload;
use crate::wire::sender_id_request;
use crate::wire::seq::SequenceNumber;
use ike::crypto::Secret;
use ike::error::PeerMisbehaved;
use ike::phase1::{HashVerified, IsakmpSa, Opened, Verified};
use ike::wire::chain::{RawPayload, encode_one};
use ike::wire::id::Identification;
use ike::wire::nonce::Nonce;
use ike::wire::registry::PayloadKind;
use ike::wire::{Body, Chain, EncodeError, Writer};

/// `HDR*, HASH(1), Ni, ID`
#[derive(Debug, PartialEq, Eq)]
pub struct Message1 {
    /// Ni, the nonce of the member.
    pub nonce: Nonce,
    /// The group asked for, as an Identification payload.
    pub group: Identification,
}

/// `HDR*, HASH(2), Nr, SA`
#[derive(Debug, PartialEq, Eq)]
pub struct Message2 {
    /// Nr, the nonce of the key server.
    pub nonce: Nonce,
    /// The policy of the group.
    pub policy: GroupSecurityAssociation,
}

/// `HDR*, HASH(3) [, GAP ]`
#[derive(Debug, PartialEq, Eq)]
pub struct Message3 {
    /// Requests of the member, for example for more sender identifiers (RFC 6407 §5.4.2).
    pub requests: Option<Gap>,
}

/// `HDR*, HASH(4) [, SEQ ], KD`
#[derive(Debug, PartialEq, Eq)]
pub struct Message4 {
    /// Number of the last push; present if the policy has a rekey SA.
    pub sequence_number: Option<Verified<SequenceNumber>>,
    /// TEKs, the KEK, and what else comes with them.
    pub keys: Verified<KeyDownload>,
}

/// What an authentic message said: something usable, or why it is not. Noise and forgeries never
/// get this far; an error in here comes from the peer itself.
pub type Authentic<T> = Result<T, Error>;

/// A payload chain to send, without the HASH in front: type of its first payload, and its octets,
/// which may hold keys.
pub type Rest = (PayloadKind, Secret);

impl Message1 {
    /// As the RFC numbers it.
    pub const NAME: &'static str = "message 1 of the pull";

    /// Verifies HASH(1) and reads the payloads behind it.
    ///
    /// # Errors
    /// The message is noise, or HASH(1) does not fit.
    pub fn read(sa: &IsakmpSa, opened: &Opened) -> Result<(Authentic<Self>, HashVerified), Error> {
        let (chain, proof) = opened.authenticate(sa, Self::NAME, &[])?;
        Ok((Self::from_payloads(&chain), proof))
    }

    fn from_payloads(chain: &Chain<'_>) -> Result<Self, Error> {
        let [nonce, group] =
            pick(Self::NAME, chain, [PayloadKind::NONCE, PayloadKind::IDENTIFICATION])?;
        let nonce = read_nonce(&need(Self::NAME, "Nonce", nonce)?)?;
        Ok(Self { nonce, group: need(Self::NAME, "ID", group)?.read()? })
    }

    /// The payloads behind HASH(1).
    pub fn rest(&self) -> Result<Rest, EncodeError> {
        let mut writer = Writer::new();
        encode_one(&mut writer, PayloadKind::IDENTIFICATION, &self.nonce);
        encode_one(&mut writer, PayloadKind::NONE, &self.group);
        Ok((PayloadKind::NONCE, Secret::new(writer.finish()?)))
    }
}

impl Message2 {
    /// As the RFC numbers it.
    pub const NAME: &'static str = "message 2 of the pull";

    /// Verifies HASH(2) and reads the payloads behind it.
    ///
    /// # Errors
    /// The message is noise, or HASH(2) does not fit.
    pub fn read(sa: &IsakmpSa, opened: &Opened, ni: &Nonce) -> Result<Authentic<Self>, Error> {
        let (chain, _) = opened.authenticate(sa, Self::NAME, &[&ni.0])?;
        Ok(Self::from_payloads(&chain))
    }

    fn from_payloads(chain: &Chain<'_>) -> Result<Self, Error> {
        let [nonce, policy] = pick(Self::NAME, chain, [PayloadKind::NONCE, PayloadKind::SA])?;
        let nonce = read_nonce(&need(Self::NAME, "Nonce", nonce)?)?;
        Ok(Self { nonce, policy: need(Self::NAME, "SA", policy)?.read()? })
    }

    /// The payloads behind HASH(2).
    pub fn rest(&self) -> Result<Rest, EncodeError> {
        let mut writer = Writer::new();
        encode_one(&mut writer, PayloadKind::SA, &self.nonce);
        encode_one(&mut writer, PayloadKind::NONE, &self.policy);
        Ok((PayloadKind::NONCE, Secret::new(writer.finish()?)))
    }
}

impl Message3 {
    /// As the RFC numbers it.
    pub const NAME: &'static str = "message 3 of the pull";

    /// Verifies HASH(3) and reads the payloads behind it.
    ///
    /// # Errors
    /// The message is noise, or HASH(3) does not fit.
    pub fn read(
        sa: &IsakmpSa,
        opened: &Opened,
        ni: &Nonce,
        nr: &Nonce,
    ) -> Result<(Authentic<Self>, HashVerified), Error> {
        let (chain, proof) = opened.authenticate(sa, Self::NAME, &[&ni.0, &nr.0])?;
        Ok((Self::from_payloads(&chain), proof))
    }

    fn from_payloads(chain: &Chain<'_>) -> Result<Self, Error> {
        let [requests] = pick(Self::NAME, chain, [PayloadKind::GROUP_ASSOCIATED_POLICY])?;
        let requests: Option<Gap> = requests.map(|raw| raw.read()).transpose()?;
        if let Some(requests) = &requests {
            sender_id_request(requests)?;
        }
        Ok(Self { requests })
    }

    /// The payloads behind HASH(3).
    pub fn rest(&self) -> Result<Rest, EncodeError> {
        let mut writer = Writer::new();
        let first = match &self.requests {
            Some(requests) => {
                encode_one(&mut writer, PayloadKind::NONE, requests);
                PayloadKind::GROUP_ASSOCIATED_POLICY
            }
            None => PayloadKind::NONE,
        };
        Ok((first, Secret::new(writer.finish()?)))
    }
}

impl Message4 {
    /// As the RFC numbers it.
    pub const NAME: &'static str = "message 4 of the pull";

    /// Verifies HASH(4) and reads the payloads behind it.
    ///
    /// # Errors
    /// The message is noise, or HASH(4) does not fit.
    pub fn read(
        sa: &IsakmpSa,
        opened: &Opened,
        ni: &Nonce,
        nr: &Nonce,
    ) -> Result<Authentic<Self>, Error> {
        let (payloads, _) = opened.authenticate(sa, Self::NAME, &[&ni.0, &nr.0])?;
        Ok(Self::from_payloads(&payloads))
    }

    fn from_payloads(payloads: &ike::phase1::Authentic<'_>) -> Result<Self, Error> {
        let kinds = [PayloadKind::SEQUENCE_NUMBER, PayloadKind::KEY_DOWNLOAD];
        let [_, _] = pick(Self::NAME, payloads, kinds)?;
        let missing = PeerMisbehaved::MissingPayload { message: Self::NAME, payload: "KD" };
        let keys = payloads.read()?.ok_or(missing)?;
        Ok(Self { sequence_number: payloads.read()?, keys })
    }

    /// The payloads behind HASH(4).
    pub fn rest(
        sequence_number: Option<SequenceNumber>,
        keys: &KeyDownload,
    ) -> Result<Rest, EncodeError> {
        let mut writer = Writer::new();
        let first = match sequence_number {
            Some(number) => {
                encode_one(&mut writer, PayloadKind::KEY_DOWNLOAD, &number);
                SequenceNumber::KIND
            }
            None => PayloadKind::KEY_DOWNLOAD,
        };
        encode_one(&mut writer, PayloadKind::NONE, keys);
        Ok((first, Secret::new(writer.finish()?)))
    }
}

/// Sorts the payloads behind HASH by `kinds`, each at most once and in any order. Vendor IDs,
/// notifications and payloads of private use are passed over (RFC 2408 §3.1, §3.14, §3.16): peers
/// announce features with them, and HASH covers them. Anything else has no place in the message.
fn pick<'a, const N: usize>(
    message: &'static str,
    chain: &Chain<'a>,
    kinds: [PayloadKind; N],
) -> Result<[Option<RawPayload<'a>>; N], PeerMisbehaved> {
    let mut picked = [None; N];
    // The first payload is HASH: verified, and allowed once.
    for payload in chain.payloads.iter().skip(1).filter(|payload| !is_passed_over(payload.kind)) {
        let Some(place) = kinds
            .iter()
            .zip(&mut picked)
            .find_map(|(kind, place)| (*kind == payload.kind).then_some(place))
        else {
            return Err(PeerMisbehaved::ForeignPayload {
                message,
                kind: payload.kind,
                offset: payload.offset,
            });
        };
        if place.replace(*payload).is_some() {
            return Err(PeerMisbehaved::DuplicatePayload { message, kind: payload.kind });
        }
    }
    Ok(picked)
}

fn is_passed_over(kind: PayloadKind) -> bool {
    kind == PayloadKind::VENDOR_ID || kind == PayloadKind::NOTIFICATION || kind.0 >= FIRST_PRIVATE
}

/// Octets of a nonce in a pull (RFC 6407 §5.8).
const NONCE_OCTETS: core::ops::RangeInclusive<usize> = 8..=128;

/// Payload types of private use: 128 to 255 (RFC 2408 §3.1).
const FIRST_PRIVATE: u8 = 128;

fn need<'a>(
    message: &'static str,
    payload: &'static str,
    picked: Option<RawPayload<'a>>,
) -> Result<RawPayload<'a>, PeerMisbehaved> {
    picked.ok_or(PeerMisbehaved::MissingPayload { message, payload })
}

fn read_nonce(raw: &RawPayload<'_>) -> Result<Nonce, Error> {
    let nonce: Nonce = raw.read()?;
    match NONCE_OCTETS.contains(&nonce.0.len()) {
        true => Ok(nonce),
        false => Err(PeerMisbehaved::NonceLength { have: nonce.0.len() }.into()),
    }
}

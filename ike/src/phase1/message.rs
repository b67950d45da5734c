//! The messages of main mode (RFC 2409 §5.4), each parsed whole before anything changes.

use super::cookies::Cookies;
use super::exchange_cipher::{Opened, check_flags};
use super::isakmp_sa::does_not_fit;
use super::nat_traversal::{Detection, NatTraversal};
use crate::address::PeerAddress;
use crate::config::{IKE_PORT, Identity};
use crate::crypto::DhGroup;
use crate::error::{Error, NotAccepted, PeerIncompatible, PeerMisbehaved};
use crate::wire::header::{self, Header};
use crate::wire::id::Identification;
use crate::wire::ke::KeyExchange;
use crate::wire::nonce::Nonce;
use crate::wire::notify::Notification;
use crate::wire::payload::{Payload, encode_chain, first_kind};
use crate::wire::registry::{ExchangeType, Flags, PayloadKind};
use crate::wire::sa::SecurityAssociation;
use crate::wire::vendor::VendorId;
use crate::wire::{Chain, Codec, InvalidMessage, RawPayload, chain};

/// Longest SA payload body that an offer may have, in octets: room for the 255 transforms that a
/// proposal can number (RFC 2408 §3.5), of up to 63 octets each. A half-open exchange keeps it.
pub(super) const MAXIMUM_OFFER: usize = 16_384;

/// Octets of our nonces.
pub(super) const NONCE_LENGTH: usize = 32;

/// The first type of private use (RFC 2408 §3.1). NAT-D of the drafts before RFC 3947 is one of
/// them, and peers still send it beside the final one.
const FIRST_PRIVATE: u8 = 128;

/// `HDR, SA`: message 1 and message 2.
#[derive(Debug)]
pub(super) struct SaMessage {
    pub(super) cookies: Cookies,
    pub(super) sa: SecurityAssociation,
    /// Body of the SA payload as received: SAi_b in message 1.
    pub(super) sa_b: Vec<u8>,
    pub(super) vendor_ids: Vec<VendorId>,
}

/// `HDR, KE, Nonce`: message 3 and message 4.
#[derive(Clone, Debug)]
pub struct KeyExchangeMessage {
    pub(super) public: Vec<u8>,
    pub(super) nonce: Vec<u8>,
    pub(super) vendor_ids: Vec<VendorId>,
    pub(super) nat: Detection,
    /// Between which ends a responder looks for address translation, and how.
    pub(super) ends: Option<(NatTraversal, PeerAddress)>,
}

/// `HDR*, ID, HASH`: message 5 and message 6, decrypted.
pub(super) struct AuthMessage {
    pub(super) identity: Identity,
    /// Body of the ID payload as received.
    pub(super) id_b: Vec<u8>,
    pub(super) hash: Vec<u8>,
    /// Notifications beside the proof. HASH does not cover them.
    pub(super) notifications: Vec<Notification>,
}

impl SaMessage {
    /// Reads message 1 or 2. SA comes first (RFC 2409 §5); notifications behind it say nothing
    /// here.
    pub(super) fn read(message: &'static str, datagram: &[u8]) -> Result<Self, Error> {
        let (header, body) = split(message, datagram)?;
        let chain = chain::walk_clear(header.next_payload, body, header::LENGTH)?;
        check_kinds(message, &chain, &[PayloadKind::SA])?;
        Self::of(message, &header, &chain)
    }

    /// The same from a message that has more payloads.
    pub(super) fn of(
        message: &'static str,
        header: &Header,
        chain: &Chain<'_>,
    ) -> Result<Self, Error> {
        if header.initiator_cookie == [0; 8] {
            return Err(
                InvalidMessage::Value { what: "initiator cookie", offset: 0, value: 0 }.into()
            );
        }
        let sa = only(message, chain, PayloadKind::SA, "SA")?;
        if chain.kinds().next() != Some(PayloadKind::SA) {
            let kind = chain.kinds().next().unwrap_or(PayloadKind::NONE);
            return Err(
                PeerMisbehaved::ForeignPayload { message, kind, offset: header::LENGTH }.into()
            );
        }
        let have = sa.body().len();
        if have > MAXIMUM_OFFER {
            let offset = sa.offset;
            return Err(InvalidMessage::Length {
                what: "SA payload",
                offset,
                minimum: 0,
                maximum: MAXIMUM_OFFER,
                have,
            }
            .into());
        }
        Ok(Self {
            cookies: Cookies::of(header),
            sa: sa.read()?,
            sa_b: sa.body().to_vec(),
            vendor_ids: vendor_ids(chain),
        })
    }

    /// Writes message 1 or 2. Also returns the SA payload's body.
    pub(super) fn write(
        cookies: Cookies,
        sa: SecurityAssociation,
        vendor_ids: &[VendorId],
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let sa_b = sa.to_octets().map_err(does_not_fit)?;
        let mut payloads = vec![Payload::SecurityAssociation(sa)];
        payloads.extend(vendor_ids.iter().cloned().map(Payload::from));
        let datagram = clear(ExchangeType::IDENTITY_PROTECTION, cookies, &payloads)?;
        Ok((datagram, sa_b))
    }
}

impl KeyExchangeMessage {
    /// The same for a responder that looks for address translation between these two ends if the
    /// initiator looks for it too.
    #[must_use]
    pub fn looking_for_nat(self, traversal: NatTraversal, ends: PeerAddress) -> Self {
        Self { ends: Some((traversal, ends)), ..self }
    }

    /// Reads message 3 or 4 of the exchange `cookies`. The public value has its group's length; no
    /// arithmetic is done.
    pub(super) fn read(
        message: &'static str,
        cookies: Cookies,
        group: DhGroup,
        datagram: &[u8],
    ) -> Result<Self, Error> {
        let (header, body) = split(message, datagram)?;
        if Cookies::of(&header) != cookies {
            return Err(NotAccepted::UnknownCookies.into());
        }
        let chain = chain::walk_clear(header.next_payload, body, header::LENGTH)?;
        check_kinds(message, &chain, &[PayloadKind::KEY_EXCHANGE, PayloadKind::NONCE])?;
        let KeyExchange(public) = only(message, &chain, PayloadKind::KEY_EXCHANGE, "KE")?.read()?;
        let Nonce(nonce) = only(message, &chain, PayloadKind::NONCE, "nonce")?.read()?;
        if public.len() != group.public_length() {
            return Err(PeerMisbehaved::PublicValue { group }.into());
        }
        let nat = Detection::read(&chain);
        Ok(Self { public, nonce, vendor_ids: vendor_ids(&chain), nat, ends: None })
    }

    /// Writes message 3 or 4.
    pub(super) fn write(
        cookies: Cookies,
        public: &[u8],
        nonce: &[u8],
        others: Vec<Payload>,
    ) -> Result<Vec<u8>, Error> {
        let mut payloads: Vec<Payload> =
            vec![KeyExchange(public.to_vec()).into(), Nonce(nonce.to_vec()).into()];
        payloads.extend(others);
        clear(ExchangeType::IDENTITY_PROTECTION, cookies, &payloads)
    }
}

impl AuthMessage {
    /// Reads the plain text of message 5 or 6. Nothing is verified yet.
    pub(super) fn read(message: &'static str, opened: &Opened, port: u16) -> Result<Self, Error> {
        // Under keys from another pre-shared key the plain text is noise: no chain, or one of odd
        // payloads. That is what the operator wants to hear, not which octet of the noise is at
        // fault.
        let noise = || Error::from(PeerMisbehaved::WrongHash { message });
        let chain = opened.chain().map_err(|_| noise())?;
        let id = only(message, &chain, PayloadKind::IDENTIFICATION, "ID").map_err(|_| noise())?;
        let hash = only(message, &chain, PayloadKind::HASH, "HASH").map_err(|_| noise())?;
        check_kinds(message, &chain, &[PayloadKind::IDENTIFICATION, PayloadKind::HASH])?;
        let read: Identification = id.read()?;
        check_protocol_and_port(&read, port, id.offset)?;
        let identity = read.as_identity().ok_or(PeerIncompatible::IdentificationType(read.kind))?;
        // One that cannot be read says nothing, as always beside a proof that is good.
        let notifications =
            chain.payloads.iter().filter_map(|payload| payload.read().ok()).collect();
        let (id_b, hash) = (id.body().to_vec(), hash.body().to_vec());
        Ok(Self { identity, id_b, hash, notifications })
    }
}

/// The chain `ID, HASH` of message 5 or 6, perhaps with a notification, and the type of its first
/// payload.
pub(super) fn auth_payloads(
    id: Identification,
    hash: &[u8],
    notification: Option<Notification>,
) -> Result<(PayloadKind, Vec<u8>), Error> {
    let mut payloads: Vec<Payload> = vec![id.into(), crate::wire::hash::Hash(hash.to_vec()).into()];
    payloads.extend(notification.map(Payload::from));
    Ok((first_kind(&payloads), encode_chain(&payloads).map_err(does_not_fit)?))
}

/// The vendor IDs of a message of main mode, as far as they have an ordinary length and number: a
/// stranger's message must not take much room.
fn vendor_ids(chain: &Chain<'_>) -> Vec<VendorId> {
    const LONGEST: usize = 64;
    const MOST: usize = 16;
    let payloads = chain.payloads.iter().filter(|payload| {
        payload.kind == PayloadKind::VENDOR_ID && payload.body().len() <= LONGEST
    });
    payloads.take(MOST).filter_map(|payload| payload.read().ok()).collect()
}

/// Splits a clear message of main mode and checks its header, all but the cookies.
fn split<'a>(message: &'static str, datagram: &'a [u8]) -> Result<(Header, &'a [u8]), Error> {
    let (header, body) = header::split(datagram)?;
    check_exchange(&header, ExchangeType::IDENTITY_PROTECTION)?;
    check_flags(&header, message, false)?;
    Ok((header, body))
}

/// Checks that a header belongs to this exchange of phase 1.
pub(super) fn check_exchange(header: &Header, exchange: ExchangeType) -> Result<(), Error> {
    if header.exchange != exchange {
        return Err(NotAccepted::Unexpected.into());
    }
    if header.message_id != 0 {
        return Err(PeerMisbehaved::MessageId(header.message_id).into());
    }
    Ok(())
}

pub(super) fn clear(
    exchange: ExchangeType,
    cookies: Cookies,
    payloads: &[Payload],
) -> Result<Vec<u8>, Error> {
    let header = Header {
        initiator_cookie: cookies.initiator,
        responder_cookie: cookies.responder,
        next_payload: first_kind(payloads),
        version: header::VERSION,
        exchange,
        flags: Flags::NONE,
        message_id: 0,
        length: 0,
    };
    let body = encode_chain(payloads).map_err(does_not_fit)?;
    header.message(&body).map_err(does_not_fit)
}

/// Refuses payloads that are neither in `own` nor harmless in every message of main mode, as those
/// of private use are: whoever understands none of them loses nothing.
pub(super) fn check_kinds(
    message: &'static str,
    chain: &Chain<'_>,
    own: &[PayloadKind],
) -> Result<(), Error> {
    const HARMLESS: [PayloadKind; 4] = [
        PayloadKind::VENDOR_ID,
        PayloadKind::NOTIFICATION,
        PayloadKind::CERTIFICATE_REQUEST,
        PayloadKind::NAT_D,
    ];
    let has_place = |kind: PayloadKind| {
        own.contains(&kind) || HARMLESS.contains(&kind) || kind.0 >= FIRST_PRIVATE
    };
    match chain.payloads.iter().find(|payload| !has_place(payload.kind)) {
        None => Ok(()),
        Some(payload) => Err(PeerMisbehaved::ForeignPayload {
            message,
            kind: payload.kind,
            offset: payload.offset,
        }
        .into()),
    }
}

pub(super) fn only<'a>(
    message: &'static str,
    chain: &Chain<'a>,
    kind: PayloadKind,
    payload: &'static str,
) -> Result<RawPayload<'a>, Error> {
    let mut found = chain.payloads.iter().filter(|candidate| candidate.kind == kind);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(*only),
        (None, _) => Err(PeerMisbehaved::MissingPayload { message, payload }.into()),
        (Some(_), Some(_)) => Err(PeerMisbehaved::DuplicatePayload { message, kind }.into()),
    }
}

/// Protocol and port of a phase-1 identity are 0/0 or UDP with IKE's port (RFC 2407 §4.6.2), with
/// address translation UDP and 0 (RFC 3947 §4). Peers that speak on another port may put that one.
pub(super) fn check_protocol_and_port(
    id: &Identification,
    port: u16,
    payload_offset: usize,
) -> Result<(), Error> {
    match (id.protocol, id.port) {
        (0 | 17, 0) | (17, IKE_PORT) => Ok(()),
        (17, stated) if stated == port => Ok(()),
        _ => {
            let offset = payload_offset.saturating_add(chain::HEADER_LENGTH).saturating_add(1);
            Err(InvalidMessage::Value {
                what: "protocol and port of the identity",
                offset,
                value: id.port.into(),
            }
            .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::registry::IdType;

    /// RFC 2407 §4.6.2 wants 0/0 or UDP with IKE's port; another stands where peers speak on it.
    #[test]
    fn protocol_and_port_of_an_identity_are_those_of_ike_or_of_the_policy_or_none() {
        let allowed = |spoken, protocol, port| {
            let (kind, data) = (IdType::IPV4_ADDR, vec![192, 0, 2, 1]);
            let id = Identification { kind, protocol, port, data };
            check_protocol_and_port(&id, spoken, 28).is_ok()
        };
        assert!(!allowed(IKE_PORT, 17, 848) && allowed(IKE_PORT, 17, 500));
        let check = |protocol, port| allowed(848, protocol, port);
        for (protocol, port) in [(0, 0), (17, 0), (17, 500), (17, 848)] {
            assert!(check(protocol, port), "{protocol}/{port}");
        }
        for (protocol, port) in [(6, 0), (0, 500), (0, 848), (6, 500), (17, 4500), (17, 501)] {
            assert!(!check(protocol, port), "{protocol}/{port}");
        }
    }
}

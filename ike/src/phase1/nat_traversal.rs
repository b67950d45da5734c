//! Address translation between two peers: whether there is any, found in phase 1 (RFC 3947 §3), and
//! what is spoken on UDP port 4500 because of it (RFC 3948 §2).
//!
//! ```text
//! messages 1, 2   vendor IDs: which dialects a side speaks
//! messages 3, 4   NAT-D = HASH(CKY-I | CKY-R | address | port): the receiver's, then the sender's
//! from message 5  port 4500, four octets of zero in front of each message
//! ```
//!
//! The dialects of the drafts -02 and -03 differ from the RFC by their numbers alone; those before
//! stay on port 500 and are not spoken here.

use core::net::{IpAddr, SocketAddr};

use super::cookies::Cookies;
use crate::address::PeerAddress;
use crate::crypto::{HashAlgorithm, constant_time_eq, hash};
use crate::wire::Chain;
use crate::wire::esp_mode::Mode;
use crate::wire::payload::Payload;
use crate::wire::registry::{EncapsulationMode, PayloadKind};
use crate::wire::vendor::VendorId;

/// UDP port of IKE and ESP behind address translation (RFC 3948 §2).
pub const NAT_PORT: u16 = 4500;

/// What stands in front of an IKE message on port 4500, where ESP has its SPI (RFC 3948 §2.2).
pub const MARKER: [u8; 4] = [0; 4];

/// The datagram that keeps a translation alive; receivers ignore it (RFC 3948 §2.3).
pub const KEEP_ALIVE: [u8; 1] = [0xff];

/// MD5("RFC 3947").
const RFC_3947: [u8; 16] = [
    0x4a, 0x13, 0x1c, 0x81, 0x07, 0x03, 0x58, 0x45, 0x5c, 0x57, 0x28, 0xf2, 0x0e, 0x95, 0x45, 0x2f,
];
/// MD5("draft-ietf-ipsec-nat-t-ike-03").
const DRAFT_03: [u8; 16] = [
    0x7d, 0x94, 0x19, 0xa6, 0x53, 0x10, 0xca, 0x6f, 0x2c, 0x17, 0x9d, 0x92, 0x15, 0x52, 0x9d, 0x56,
];
/// MD5("draft-ietf-ipsec-nat-t-ike-02\n"), with the line feed that most peers hash.
const DRAFT_02: [u8; 16] = [
    0x90, 0xcb, 0x80, 0x91, 0x3e, 0xbb, 0x69, 0x6e, 0x08, 0x63, 0x81, 0xb5, 0xec, 0x42, 0x7b, 0x1f,
];
/// MD5("draft-ietf-ipsec-nat-t-ike-02").
const DRAFT_02_BARE: [u8; 16] = [
    0xcd, 0x60, 0x46, 0x43, 0x35, 0xdf, 0x21, 0xf8, 0x7c, 0xfd, 0xb2, 0xfc, 0x68, 0xb6, 0xa4, 0x48,
];

/// NAT-D of the drafts, a number of private use.
const DRAFT_NAT_D: PayloadKind = PayloadKind(130);

/// NAT-D payloads of one message that are looked at: a host has few addresses.
const MOST: usize = 8;

/// Which numbers are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Rfc3947,
    /// Of the drafts -02 and -03.
    Draft,
}

/// What is done about address translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum NatTraversal {
    /// Nothing is said about it, and nothing understood.
    Off,
    /// Looked for; what is found decides.
    #[default]
    Detect,
    /// Both sides are made to believe that there is some: ESP travels in UDP, where nothing else
    /// passes.
    Always,
}

/// The dialect in which two peers look for address translation, and what they found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    pub dialect: Dialect,
    /// Whether this side is behind a translation, and has to keep it alive.
    pub here: bool,
    /// Whether the peer is.
    pub peer: bool,
}

impl Nat {
    /// Whether there is any: then everything moves to port 4500, and ESP is in UDP.
    pub fn is_found(&self) -> bool {
        self.here || self.peer
    }

    /// The number of the Encapsulation Mode attribute for `mode` (RFC 3947 §5.1).
    pub fn mode(&self, mode: Mode) -> EncapsulationMode {
        match (self.is_found(), self.dialect, mode) {
            (false, _, mode) => mode.number(),
            (true, Dialect::Rfc3947, Mode::Tunnel) => EncapsulationMode::UDP_TUNNEL,
            (true, Dialect::Rfc3947, Mode::Transport) => EncapsulationMode::UDP_TRANSPORT,
            (true, Dialect::Draft, Mode::Tunnel) => EncapsulationMode::DRAFT_UDP_TUNNEL,
            (true, Dialect::Draft, Mode::Transport) => EncapsulationMode::DRAFT_UDP_TRANSPORT,
        }
    }
}

/// What is stated in messages 1 and 2, the best dialect first.
pub fn vendor_ids(traversal: NatTraversal) -> Vec<VendorId> {
    match traversal {
        NatTraversal::Off => Vec::new(),
        _ => [RFC_3947, DRAFT_03, DRAFT_02, DRAFT_02_BARE].map(|id| VendorId(id.to_vec())).into(),
    }
}

/// The best dialect that these vendor IDs state.
pub(super) fn dialect(stated: &[VendorId]) -> Option<Dialect> {
    let states = |id: &[u8; 16]| stated.iter().any(|stated| stated.0 == id);
    if states(&RFC_3947) {
        return Some(Dialect::Rfc3947);
    }
    [DRAFT_03, DRAFT_02, DRAFT_02_BARE].iter().any(states).then_some(Dialect::Draft)
}

/// NAT-D payloads of a message, by dialect.
#[derive(Clone, Debug, Default)]
pub(super) struct Detection {
    rfc: Vec<Vec<u8>>,
    draft: Vec<Vec<u8>>,
}

impl Detection {
    pub(super) fn read(chain: &Chain<'_>) -> Self {
        let of = |kind: PayloadKind| {
            let payloads = chain.payloads.iter().filter(|payload| payload.kind == kind);
            payloads.map(|payload| payload.body().to_vec()).take(MOST).collect()
        };
        Self { rfc: of(PayloadKind::NAT_D), draft: of(DRAFT_NAT_D) }
    }

    /// The dialect that the sender of the message has chosen: only who has read our vendor IDs sends
    /// any of them.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        match (self.rfc.is_empty(), self.draft.is_empty()) {
            (false, _) => Some(Dialect::Rfc3947),
            (true, false) => Some(Dialect::Draft),
            (true, true) => None,
        }
    }
}

/// What one side knows for the search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    pub(super) dialect: Dialect,
    pub(super) hash: HashAlgorithm,
    pub(super) cookies: Cookies,
    /// The two ends as this side sees them.
    pub(super) ends: PeerAddress,
    /// Whether translation is claimed where there is none.
    pub(super) claims: bool,
}

impl Search {
    fn digest(&self, address: SocketAddr) -> Vec<u8> {
        let Cookies { initiator, responder } = &self.cookies;
        let port = address.port().to_be_bytes();
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => hash(self.hash, &[initiator, responder, &ip.octets(), &port]),
            IpAddr::V6(ip) => hash(self.hash, &[initiator, responder, &ip.octets(), &port]),
        }
    }

    /// The payloads of message 3 or 4: the peer's end first (RFC 3947 §3.2).
    pub(super) fn payloads(&self) -> Vec<Payload> {
        let kind = match self.dialect {
            Dialect::Rfc3947 => PayloadKind::NAT_D,
            Dialect::Draft => DRAFT_NAT_D,
        };
        let PeerAddress { remote, local } = self.ends;
        // Port 0 is nobody's.
        let own = if self.claims { SocketAddr::new(local.ip(), 0) } else { local };
        [remote, own].map(|end| Payload::Unknown(kind, self.digest(end))).into()
    }

    /// What the peer's payloads say; `None` where it sent too few of them (RFC 3947 §3.2).
    pub(super) fn find(&self, received: &Detection) -> Option<Nat> {
        let received = match self.dialect {
            Dialect::Rfc3947 => &received.rfc,
            Dialect::Draft => &received.draft,
        };
        let (ours, theirs) = received.split_first().filter(|(_, theirs)| !theirs.is_empty())?;
        let PeerAddress { remote, local } = self.ends;
        let seen = |octets: &[u8], end| constant_time_eq(octets, &self.digest(end));
        let here = self.claims || !seen(ours, local);
        let peer = !theirs.iter().any(|one| seen(one, remote));
        Some(Nat { dialect: self.dialect, here, peer })
    }
}

/// What a datagram to port 4500 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside<'a> {
    /// An IKE message, without its marker.
    Message(&'a [u8]),
    KeepAlive,
    /// ESP, which the kernel takes out before anybody sees it, or noise.
    Other,
}

/// Reads what came to port 4500.
pub fn unwrap(datagram: &[u8]) -> Inside<'_> {
    match datagram.split_first_chunk() {
        Some((&MARKER, message)) => Inside::Message(message),
        _ if datagram == KEEP_ALIVE => Inside::KeepAlive,
        _ => Inside::Other,
    }
}

/// The message in a datagram that came to `local`.
pub fn message(local: SocketAddr, datagram: &[u8]) -> Option<&[u8]> {
    match (local.port(), unwrap(datagram)) {
        (NAT_PORT, Inside::Message(message)) => Some(message),
        (NAT_PORT, _) => None,
        _ => Some(datagram),
    }
}

/// Whether a datagram that came to `local` only keeps a translation alive.
pub fn is_keep_alive(local: SocketAddr, datagram: &[u8]) -> bool {
    local.port() == NAT_PORT && unwrap(datagram) == Inside::KeepAlive
}

/// An IKE message as it leaves from a port.
pub fn wrap(from: SocketAddr, message: Vec<u8>) -> Vec<u8> {
    match from.port() {
        NAT_PORT => [&MARKER, message.as_slice()].concat(),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    const COOKIES: Cookies = Cookies { initiator: [1; 8], responder: [2; 8] };

    fn at(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], port))
    }

    fn search(remote: SocketAddr, local: SocketAddr, claims: bool) -> Search {
        let ends = PeerAddress { remote, local };
        let (dialect, hash) = (Dialect::Rfc3947, HashAlgorithm::Sha1);
        Search { dialect, hash, cookies: COOKIES, ends, claims }
    }

    fn received(payloads: &[Payload]) -> Detection {
        let mut detection = Detection::default();
        for payload in payloads {
            match payload {
                Payload::Unknown(PayloadKind::NAT_D, octets) => detection.rfc.push(octets.clone()),
                Payload::Unknown(_, octets) => detection.draft.push(octets.clone()),
                other => panic!("{other:?}"),
            }
        }
        detection
    }

    #[test]
    fn the_names_of_the_dialects_are_digests() {
        for (id, name) in [
            (RFC_3947, "RFC 3947"),
            (DRAFT_03, "draft-ietf-ipsec-nat-t-ike-03"),
            (DRAFT_02, "draft-ietf-ipsec-nat-t-ike-02\n"),
            (DRAFT_02_BARE, "draft-ietf-ipsec-nat-t-ike-02"),
        ] {
            assert_eq!(hash(HashAlgorithm::Md5, &[name.as_bytes()]), id, "{name}");
        }
    }

    /// Computed with Python: hashlib.sha1(bytes([1]*8 + [2]*8 + [192, 0, 2, 2, 1, 244])).
    #[test]
    fn the_octets_of_a_digest() {
        let payloads = search(at(2, 500), at(1, 500), false).payloads();
        let [Payload::Unknown(kind, octets), _] = payloads.as_slice() else { panic!() };
        assert_eq!(*kind, PayloadKind::NAT_D);
        assert_eq!(*octets, hex("999ebd41e70d4ad2dfc02c773b30ae16fa05d151"));
    }

    #[test]
    fn each_side_finds_who_is_translated() {
        // Who is how: the initiator as it sees itself, and as the responder sees it.
        for (inside, outside, here, peer) in [
            (at(1, 500), at(1, 500), false, false),
            (at(1, 500), at(1, 1024), true, false),
            (at(1, 500), at(9, 500), true, false),
        ] {
            let initiator = search(at(2, 500), inside, false);
            let responder = search(outside, at(2, 500), false);
            let nat = initiator.find(&received(&responder.payloads())).unwrap();
            assert_eq!((nat.here, nat.peer), (here, peer));
            let nat = responder.find(&received(&initiator.payloads())).unwrap();
            assert_eq!((nat.here, nat.peer), (peer, here), "the other way round");
            assert_eq!(nat.is_found(), here || peer);
        }
    }

    #[test]
    fn a_claim_is_believed() {
        let initiator = search(at(2, 500), at(1, 500), true);
        let responder = search(at(1, 500), at(2, 500), false);
        let nat = initiator.find(&received(&responder.payloads())).unwrap();
        assert!(nat.here && !nat.peer);
        let nat = responder.find(&received(&initiator.payloads())).unwrap();
        assert!(!nat.here && nat.peer);
    }

    #[test]
    fn too_few_payloads_say_nothing() {
        let responder = search(at(1, 500), at(2, 500), false);
        let mut payloads = responder.payloads();
        assert_eq!(responder.find(&Detection::default()), None);
        payloads.truncate(1);
        assert_eq!(responder.find(&received(&payloads)), None);
        let draft = Search { dialect: Dialect::Draft, ..responder };
        assert_eq!(draft.find(&received(&responder.payloads())), None, "another dialect");
        assert_eq!(received(&draft.payloads()).dialect(), Some(Dialect::Draft));
    }

    #[test]
    fn the_best_dialect_is_chosen() {
        let all = vendor_ids(NatTraversal::Detect);
        assert_eq!(dialect(&all), Some(Dialect::Rfc3947));
        for number in 1..all.len() {
            assert_eq!(dialect(&all[number..]), Some(Dialect::Draft));
        }
        assert_eq!(dialect(&[]), None);
        assert!(vendor_ids(NatTraversal::Off).is_empty());
    }

    #[test]
    fn what_comes_to_port_4500() {
        assert_eq!(unwrap(&[0, 0, 0, 0, 7, 8]), Inside::Message(&[7, 8]));
        assert_eq!(unwrap(&[0xff]), Inside::KeepAlive);
        for other in [&[][..], &[0], &[0, 0, 0], &[0, 0, 1, 0, 1], &[0xff, 0xff]] {
            assert_eq!(unwrap(other), Inside::Other);
        }
        assert_eq!(wrap(at(1, NAT_PORT), vec![7]), [0, 0, 0, 0, 7]);
        assert_eq!(wrap(at(1, 500), vec![7]), [7]);
    }
}

//! An initiator of phase 1 against an endpoint: computations that are handed out, and who may speak
//! under a session.

mod certificates;
mod mobility;

use std::sync::Arc;

use core::time::Duration;

use super::*;
use crate::config::{Authentication, Credential, PeerCredential, Phase1Mode, Phase1Policy};
use crate::crypto::{DhGroup, HashAlgorithm, Phase1Encryption, Secret};
use crate::dead_peer_detection::{DeadPeerDetection, Mode, Settings};
use crate::phase1::responder::Offer;
use crate::phase1::{Initiator, InitiatorConfig, InitiatorStep, IsakmpSa, NatTraversal};
use crate::wire::chain;
use crate::wire::payload::{Payload, encode_chain};
use crate::wire::registry::PayloadKind;
use crate::wire::vendor::VendorId;

/// An exchange of a protocol above that is never begun.
#[derive(Debug)]
enum Never {}

impl Exchange for Never {
    type Id = u8;

    fn id(&self) -> u8 {
        match *self {}
    }

    fn is_running(&self) -> bool {
        match *self {}
    }

    fn deadline(&self) -> BootTime {
        match *self {}
    }
}

const NOW: BootTime = BootTime::new(Duration::from_secs(9));

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 500))
}

fn policy() -> Phase1Policy {
    let transform = Phase1Transform {
        encryption: Phase1Encryption::Aes128Cbc,
        hash: HashAlgorithm::Sha2_256,
        group: DhGroup::Ecp256,
        authentication: Authentication::PreSharedKey,
    };
    let lifetime = Duration::from_secs(3600);
    Phase1Policy { doi: Doi::IPSEC, port: 848, transforms: vec![transform], lifetime }
}

fn credential() -> Credential {
    Credential::PreSharedKey(Arc::new(Secret::copy_from(b"a key of two")))
}

struct Pair {
    endpoint: Endpoint<Never>,
    initiator: Initiator,
    rng: SeededRng,
}

impl Pair {
    /// Both sides, and message 1.
    fn new(arithmetic: Arithmetic) -> (Self, Vec<u8>) {
        Self::with(arithmetic, vec![policy()], policy())
    }

    /// The same where the endpoint accepts by `accepted` and the initiator offers by `offered`.
    fn with(
        arithmetic: Arithmetic,
        accepted: Vec<Phase1Policy>,
        offered: Phase1Policy,
    ) -> (Self, Vec<u8>) {
        Self::stating(arithmetic, accepted, offered, [Vec::new(), Vec::new()])
    }

    /// The same where the initiator and the endpoint state these vendor IDs.
    fn stating(
        arithmetic: Arithmetic,
        accepted: Vec<Phase1Policy>,
        offered: Phase1Policy,
        [ours, theirs]: [Vec<VendorId>; 2],
    ) -> (Self, Vec<u8>) {
        let peer = PeerCredential {
            addresses: address(1).ip().into(),
            identity: None,
            credential: credential(),
        };
        let limits = Limits::default();
        let (mobility, nat) = (PeerMobility::Fixed, NatTraversal::Off);
        let (identity, peers, phase1) = (None, vec![peer], accepted);
        let config = EndpointConfig {
            identity,
            peers,
            phase1,
            mobility,
            nat,
            aggressive: false,
            vendor_ids: theirs,
            limits,
        };
        let mut endpoint = Endpoint::new(config, [1; 32]);
        endpoint.set_arithmetic(arithmetic);
        let mut rng = SeededRng::from_seed([2; 32]);
        let config = InitiatorConfig {
            identity: Identity::Address(address(1).ip()),
            expected_identity: Identity::Address(address(9).ip()),
            credential: credential(),
            initial_contact: false,
            policy: offered,
            vendor_ids: ours,
            mode: Phase1Mode::Main,
            nat: None,
            unix_seconds: 0,
        };
        let (initiator, message) = Initiator::start(config, &mut rng).unwrap();
        (Self { endpoint, initiator, rng }, message)
    }

    fn say(&mut self, source: SocketAddr, datagram: &[u8]) -> Result<Option<Doi>, Error> {
        let inbound = self.endpoint.admit(source, address(9), datagram, NOW)?;
        self.endpoint.handle(inbound)
    }

    fn answer(&mut self) -> Option<Vec<u8>> {
        let transmit = self.endpoint.poll_transmit()?;
        assert_eq!((transmit.destination, transmit.source), (address(1), address(9)));
        Some(transmit.payload)
    }

    /// What the initiator says to `datagram`.
    fn next(&mut self, datagram: &[u8]) -> Vec<u8> {
        match self.initiator.handle(datagram, &mut self.rng).unwrap() {
            InitiatorStep::Continue { next, message } => {
                self.initiator = next;
                message
            }
            _ => panic!("established too early"),
        }
    }

    /// Messages 1 to 3; the last one is not said yet.
    fn up_to_message_3(arithmetic: Arithmetic) -> (Self, Vec<u8>) {
        let (mut pair, message_1) = Self::new(arithmetic);
        assert_eq!(pair.say(address(1), &message_1), Ok(None));
        let message_2 = pair.answer().unwrap();
        let message_3 = pair.next(&message_2);
        (pair, message_3)
    }

    /// From message 4 to the end.
    fn establish(&mut self, message_4: &[u8]) -> IsakmpSa {
        let message_5 = self.next(message_4);
        assert_eq!(self.say(address(1), &message_5), Ok(None));
        let message_6 = self.answer().unwrap();
        match self.initiator.handle(&message_6, &mut self.rng).unwrap() {
            InitiatorStep::Established(sa) => sa,
            _ => panic!("not established"),
        }
    }
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn a_computation_is_handed_out_and_its_result_taken_back_once() {
    let (mut pair, message_3) = Pair::up_to_message_3(Arithmetic::HandedOut);
    assert_eq!(pair.say(address(1), &message_3), Ok(None));
    assert_eq!(pair.answer(), None, "message 4 waits for the result");
    let computation = is_send(pair.endpoint.poll_computation().unwrap());
    assert!(pair.endpoint.poll_computation().is_none());

    // Meanwhile the endpoint hears, and a copy begins nothing.
    assert_eq!(pair.say(address(1), &message_3), Err(NotAccepted::Replayed.into()));
    assert_eq!(
        pair.say(address(2), &message_3),
        Err(NotAccepted::UnknownSource(address(2)).into())
    );
    assert!(pair.endpoint.poll_computation().is_none());
    assert_eq!(pair.endpoint.statistics().diffie_hellman, 2);

    let computed = is_send(computation.run());
    assert_eq!(computed.peer(), address(1));
    let stale = Computed {
        ticket: computed.ticket.clone(),
        request: computed.request.clone(),
        result: Err(NotAccepted::Unexpected.into()),
        ..computed
    };
    pair.endpoint.handle_computed(computed, NOW).unwrap();
    let message_4 = pair.answer().unwrap();
    assert_eq!(
        pair.endpoint.handle_computed(stale, NOW),
        Err(NotAccepted::Unexpected.into()),
        "nobody waits any more"
    );
    assert_eq!(pair.establish(&message_4).peer_identity(), &Identity::Address(address(9).ip()));
    assert_eq!(pair.endpoint.established(), 1);
}

#[test]
fn the_result_for_an_exchange_that_is_gone_changes_nothing() {
    let (mut pair, message_3) = Pair::up_to_message_3(Arithmetic::HandedOut);
    pair.say(address(1), &message_3).unwrap();
    let computation = pair.endpoint.poll_computation().unwrap();
    pair.endpoint.handle_timeout(NOW + Limits::default().half_open_timeout);
    assert_eq!(pair.endpoint.half_open(), 0);
    assert_eq!(
        pair.endpoint.handle_computed(computation.run(), NOW),
        Err(NotAccepted::Ended.into())
    );
    assert_eq!(pair.answer(), None);
}

/// A copy of message 3 makes an exchange once more whose message 1 was answered without memory. It
/// has the cookies of the one that the new configuration ended, and the computation of that one is
/// still under way, with the old key.
#[test]
fn a_result_with_a_replaced_credential_changes_nothing() {
    let (mut pair, message_1) = Pair::new(Arithmetic::HandedOut);
    let offer = Offer::read(&[policy()], &message_1).unwrap();
    pair.endpoint.remember_offer(address(1).ip(), offer.octets());
    pair.say(address(1), &message_1).unwrap();
    assert_eq!(pair.endpoint.half_open(), 0, "answered without memory");
    let message_2 = pair.answer().unwrap();
    let message_3 = pair.next(&message_2);
    pair.say(address(1), &message_3).unwrap();
    let old = pair.endpoint.poll_computation().unwrap();

    let mut config = pair.endpoint.config.clone();
    config.peers[0].credential =
        Credential::PreSharedKey(Arc::new(Secret::copy_from(b"the key that came after")));
    pair.endpoint.reconfigure(config);
    assert_eq!(pair.endpoint.half_open(), 0);
    pair.say(address(1), &message_3).unwrap();
    let new = pair.endpoint.poll_computation().unwrap();

    let refused = Err(NotAccepted::Unexpected.into());
    assert_eq!(pair.endpoint.handle_computed(old.run(), NOW), refused);
    assert_eq!(pair.answer(), None, "no message 4 with the old key");
    pair.endpoint.handle_computed(new.run(), NOW).unwrap();
    let message_4 = pair.answer().unwrap();
    let message_5 = pair.next(&message_4);
    assert!(pair.say(address(1), &message_5).is_err(), "the initiator has the old key");
    assert_eq!(pair.endpoint.established(), 0);
}

#[test]
fn an_unusable_public_value_is_tolerated_twice_wherever_the_arithmetic_is_done() {
    for arithmetic in [Arithmetic::InPlace, Arithmetic::HandedOut] {
        let (mut pair, message_3) = Pair::up_to_message_3(arithmetic);
        let unusable = crate::error::PeerMisbehaved::PublicValue { group: DhGroup::Ecp256 };
        for number in 0..3_u8 {
            let mut wrong = message_3.clone();
            // The public value begins behind two headers; no such point is on the curve.
            wrong[32..96].fill(number);
            let said = pair.say(address(1), &wrong);
            assert!(pair.endpoint.poll_computation().is_none(), "no arithmetic for it");
            assert_eq!(said, Err(unusable.clone().into()), "{arithmetic:?}");
        }
        assert_eq!(pair.endpoint.half_open(), 1, "its place stays taken");
        assert_eq!(pair.say(address(1), &message_3), Err(NotAccepted::Ended.into()));
        assert_eq!(pair.endpoint.statistics().diffie_hellman, 0);
    }
}

#[test]
fn phase_2_is_told_by_the_doi_of_the_sa_and_only_to_its_peer() {
    let (mut pair, message_3) = Pair::up_to_message_3(Arithmetic::InPlace);
    pair.say(address(1), &message_3).unwrap();
    let message_4 = pair.answer().unwrap();
    let sa = pair.establish(&message_4);
    let exchange = sa.exchange(ExchangeType(32), 7);
    let quick_mode =
        sa.seal_authenticated(&exchange, &[], PayloadKind::NONE, &[]).unwrap().into_datagram();
    assert_eq!(pair.say(address(1), &quick_mode), Ok(Some(Doi::IPSEC)));

    // The same address, another port: the peer is not there.
    let elsewhere = SocketAddr::new(address(1).ip(), 4500);
    assert_eq!(pair.say(elsewhere, &quick_mode), Err(NotAccepted::WrongSource(elsewhere).into()));
    let mut aggressive = quick_mode.clone();
    aggressive[18] = ExchangeType::AGGRESSIVE.0;
    assert_eq!(pair.say(address(1), &aggressive), Err(PeerIncompatible::ExchangeType(4).into()));
    let mut unknown = quick_mode;
    unknown[0] ^= 1;
    assert_eq!(pair.say(address(1), &unknown), Err(NotAccepted::UnknownCookies.into()));
}

/// Group traffic and tunnels on one socket: each domain of interpretation has its own policy.
#[test]
fn each_domain_of_interpretation_has_its_policy() {
    let weaker = Phase1Transform { hash: HashAlgorithm::Sha1, ..policy().transforms[0] };
    let group = Phase1Policy { doi: Doi(2), transforms: vec![weaker], ..policy() };
    let both = || vec![policy(), group.clone()];
    let establish = |offered: &Phase1Policy| {
        let (mut pair, message_1) = Pair::with(Arithmetic::InPlace, both(), offered.clone());
        pair.say(address(1), &message_1).unwrap();
        let message_2 = pair.answer().unwrap();
        let message_3 = pair.next(&message_2);
        pair.say(address(1), &message_3).unwrap();
        let message_4 = pair.answer().unwrap();
        let sa = pair.establish(&message_4);
        assert_eq!((sa.doi(), sa.transform()), (offered.doi, offered.transforms[0]));
        (pair, sa)
    };
    let (_, of_tunnels) = establish(&policy());
    let (mut pair, of_group) = establish(&group);
    assert_ne!(of_tunnels.doi(), of_group.doi());
    let exchange = of_group.exchange(ExchangeType(32), 7);
    let pull = of_group.seal_authenticated(&exchange, &[], PayloadKind::NONE, &[]).unwrap();
    assert_eq!(pair.say(address(1), pull.datagram()), Ok(Some(Doi(2))));

    // What one policy has is not for the other domain, and the refusal names the domain asked for.
    let crossed = Phase1Policy { doi: Doi(2), ..policy() };
    let (mut pair, message_1) = Pair::with(Arithmetic::InPlace, both(), crossed);
    assert_eq!(pair.say(address(1), &message_1).unwrap_err().reason(), "no-proposal-chosen");
    let answer = pair.answer().unwrap();
    assert_eq!(&answer[header::LENGTH + 4..][..4], [0, 0, 0, 2]);
    let (mut pair, message_1) = Pair::with(Arithmetic::InPlace, vec![policy()], group);
    assert_eq!(pair.say(address(1), &message_1), Err(PeerIncompatible::Doi(Doi(2)).into()));
    assert_eq!(pair.answer(), None);
}

#[test]
fn another_policy_ends_the_sas_of_its_domain_alone() {
    let group = Phase1Policy { doi: Doi(2), ..policy() };
    let (mut pair, message_1) = Pair::with(Arithmetic::InPlace, vec![policy(), group], policy());
    pair.say(address(1), &message_1).unwrap();
    let message_2 = pair.answer().unwrap();
    let mut config = pair.endpoint.config.clone();
    config.phase1[1].lifetime = Duration::from_secs(60);
    assert_eq!(pair.endpoint.reconfigure(config.clone()), []);
    assert_eq!(pair.endpoint.half_open(), 1);
    let message_3 = pair.next(&message_2);
    pair.say(address(1), &message_3).unwrap();
    let message_4 = pair.answer().unwrap();
    pair.establish(&message_4);
    config.phase1[1].transforms.clear();
    assert_eq!(pair.endpoint.reconfigure(config.clone()), []);
    config.phase1[0].lifetime = Duration::from_secs(60);
    assert_eq!(pair.endpoint.reconfigure(config), [address(1)]);
}

/// Who answers questions of dead peer detection says so in phase 1, and is heard even by an
/// endpoint that kept nothing of message 1 (RFC 3706 §5.1).
#[test]
fn vendor_ids_reach_the_other_side() {
    let detects = Mode::On.vendor_ids();
    for remembered in [false, true] {
        let both = [detects.clone(), detects.clone()];
        let (mut pair, message_1) =
            Pair::stating(Arithmetic::InPlace, vec![policy()], policy(), both);
        if remembered {
            let offer = Offer::read(&[policy()], &message_1).unwrap();
            pair.endpoint.remember_offer(address(1).ip(), offer.octets());
            // A flood has taken all places: nothing more is kept.
            for cookie in 1..=4 {
                let forged = [&[cookie; 8], &message_1[8..]].concat();
                pair.say(address(1), &forged).unwrap();
                pair.answer().unwrap();
            }
        }
        pair.say(address(1), &message_1).unwrap();
        assert_eq!(pair.endpoint.half_open(), if remembered { 4 } else { 1 });
        let message_2 = pair.answer().unwrap();
        let message_3 = pair.next(&message_2);
        pair.say(address(1), &message_3).unwrap();
        let message_4 = pair.answer().unwrap();
        let sa = pair.establish(&message_4);
        let session = pair.endpoint.session(&sa.cookies()).unwrap();
        assert!(session.sa().peer_vendor_ids().contains(&detects[0]), "{remembered}");
        assert_eq!(sa.peer_vendor_ids(), detects);
        let settings = Settings { mode: Mode::On, ..Settings::default() };
        for sa in [&sa, session.sa()] {
            let rng = &mut SeededRng::from_seed([4; 32]);
            assert!(DeadPeerDetection::new(settings, sa, rng, NOW).asks());
        }
    }
    // What means nothing takes no room.
    let strange = vec![VendorId(vec![7; 16]); 16];
    let (mut pair, message_1) =
        Pair::stating(Arithmetic::InPlace, vec![policy()], policy(), [strange, Vec::new()]);
    pair.say(address(1), &message_1).unwrap();
    let message_2 = pair.answer().unwrap();
    let message_3 = pair.next(&message_2);
    pair.say(address(1), &message_3).unwrap();
    let message_4 = pair.answer().unwrap();
    let sa = pair.establish(&message_4);
    assert_eq!(pair.endpoint.session(&sa.cookies()).unwrap().sa().peer_vendor_ids(), []);
    let settings = Settings { mode: Mode::On, ..Settings::default() };
    assert!(!DeadPeerDetection::new(settings, &sa, &mut pair.rng, NOW).asks());
}

/// Most peers say once, in message 1, that they answer dead peer detection.
#[test]
fn what_message_1_states_counts_in_every_phase_1() {
    let detection = Mode::AnswerOnly.vendor_ids();
    for proved in [false, true] {
        let (mut pair, message_1) = Pair::stating(
            Arithmetic::InPlace,
            vec![policy()],
            policy(),
            [detection.clone(), Vec::new()],
        );
        if proved {
            let (header, body) = header::split(&message_1).unwrap();
            let chain = chain::walk_clear(header.next_payload, body, header::LENGTH).unwrap();
            let offer = chain.payloads[0].body().to_vec();
            pair.endpoint.remember_offer(address(1).ip(), &offer);
        }
        pair.say(address(1), &message_1).unwrap();
        let message_2 = pair.answer().unwrap();
        let message_3 = without_vendor_ids(&pair.next(&message_2));
        pair.say(address(1), &message_3).unwrap();
        let message_4 = pair.answer().unwrap();
        let message_5 = pair.next(&message_4);
        pair.say(address(1), &message_5).unwrap();
        let Some(EndpointEvent::Established { cookies, .. }) = pair.endpoint.poll_event() else {
            panic!("not established");
        };
        let session = pair.endpoint.session(&cookies).unwrap();
        assert_eq!(session.sa().peer_vendor_ids(), detection, "{proved}");
    }
}

/// A clear message as a peer sends it that states nothing there.
fn without_vendor_ids(message: &[u8]) -> Vec<u8> {
    let (header, body) = header::split(message).unwrap();
    let chain = chain::walk_clear(header.next_payload, body, header::LENGTH).unwrap();
    let kept = chain.payloads.iter().filter(|raw| raw.kind != PayloadKind::VENDOR_ID);
    let kept: Vec<Payload> = kept.map(|raw| Payload::read(raw).unwrap()).collect();
    header.message(&encode_chain(&kept).unwrap()).unwrap()
}

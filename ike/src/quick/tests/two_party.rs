//! Both roles under one ISAKMP SA, without a network between them.

use super::{policy, reversed, selectors, with_pfs};
use crate::crypto::{DhGroup, SeededRng};
use crate::error::{Error, PeerMisbehaved};
use crate::phase1::IsakmpSa;
use crate::quick::initiator::{Established, ExpectChoice, Request};
use crate::quick::responder::{Answer, Requested};
use crate::quick::{Child, ChildPolicy, Mode};
use crate::testing::Recording;

const MESSAGE_ID: u32 = 77;

struct Pair {
    initiator: (ExpectChoice, IsakmpSa),
    responder: IsakmpSa,
    message1: Vec<u8>,
    rng: SeededRng,
}

fn begin(policy: ChildPolicy) -> Pair {
    let mut rng = SeededRng::from_seed([3; 32]);
    let (sa, responder) = Recording::load("ipsec_psk_aes128_sha256_modp2048").established();
    let request = Request { policy, selectors: selectors(), spi: 0x1111 };
    let (state, message1) = ExpectChoice::start(&sa, request, MESSAGE_ID, &mut rng).unwrap();
    Pair { initiator: (state, sa), responder, message1, rng }
}

impl Pair {
    /// `HDR*, HASH(1), SA, Ni [, KE], IDci, IDcr -->`
    fn answer(&mut self, policy: &ChildPolicy) -> Result<Answer, Error> {
        let requested = Requested::read(&self.responder, &self.message1)??;
        assert_eq!(requested.selectors(), Some(reversed(selectors())));
        let selectors = reversed(selectors());
        requested.answer(&self.responder, policy, selectors, 0x2222, &mut self.rng)
    }
}

/// The whole exchange; the pairs of both sides.
fn negotiate(offered: ChildPolicy, accepted: &ChildPolicy) -> (Child, Child) {
    let mut pair = begin(offered);
    let Answer { next, child: theirs, message } = pair.answer(accepted).unwrap();
    // <-- HDR*, HASH(2), SA, Nr [, KE], IDci, IDcr
    let (state, sa) = &pair.initiator;
    let Established { child: ours, message } = state.handle(sa, &message).unwrap().unwrap();
    // HDR*, HASH(3) -->
    next.handle(&pair.responder, &message).unwrap();
    (ours, theirs)
}

fn assert_same(ours: &Child, theirs: &Child) {
    assert_eq!(ours.inbound, theirs.outbound);
    assert_eq!(ours.outbound, theirs.inbound);
    assert_ne!(ours.inbound.encryption, ours.outbound.encryption);
    assert_eq!((ours.inbound.spi, ours.outbound.spi), (0x1111, 0x2222));
    assert_eq!((ours.algorithms, ours.pfs), (theirs.algorithms, theirs.pfs));
    assert_eq!(ours.selectors, reversed(theirs.selectors));
    assert_eq!((ours.lifetime, ours.kilobytes), (theirs.lifetime, theirs.kilobytes));
}

#[test]
fn both_sides_have_the_same_keys() {
    for algorithms in crate::quick::EspEncryption::ALL {
        let integrities: Vec<_> = match algorithms.is_combined() {
            true => vec![None],
            false => crate::quick::EspIntegrity::ALL.map(Some).to_vec(),
        };
        for integrity in integrities {
            let algorithms = crate::quick::EspAlgorithms { encryption: algorithms, integrity };
            let policy = ChildPolicy { algorithms: vec![algorithms], ..policy() };
            let (ours, theirs) = negotiate(policy.clone(), &policy);
            assert_same(&ours, &theirs);
            assert_eq!(ours.inbound.encryption.len(), algorithms.encryption.key_material());
            let integrity = integrity.map_or(0, crate::quick::EspIntegrity::key_material);
            assert_eq!(ours.inbound.integrity.len(), integrity);
        }
    }
}

#[test]
fn perfect_forward_secrecy_gives_other_keys() {
    let (without, _) = negotiate(policy(), &policy());
    for group in [DhGroup::Ecp256, DhGroup::Ecp384, DhGroup::Modp1024] {
        let (ours, theirs) = negotiate(with_pfs(group), &with_pfs(group));
        assert_same(&ours, &theirs);
        assert_eq!(ours.pfs, Some(group));
        assert_ne!(ours.inbound.encryption, without.inbound.encryption);
    }
}

#[test]
fn the_smaller_lifetime_counts() {
    let short = core::time::Duration::from_secs(900);
    let ours = ChildPolicy { kilobytes: Some(1000), ..policy() };
    let theirs = ChildPolicy { lifetime: short, kilobytes: Some(500), ..policy() };
    let (initiator, responder) = negotiate(ours, &theirs);
    assert_eq!((responder.lifetime, responder.kilobytes), (short, Some(500)));
    // Message 2 repeats the transform as it was offered.
    assert_eq!(initiator.lifetime, policy().lifetime);
    assert_eq!(initiator.kilobytes, Some(1000));
}

#[test]
fn the_initiators_preference_decides() {
    let mut reordered = policy();
    reordered.algorithms.reverse();
    let (ours, _) = negotiate(policy(), &reordered);
    assert_eq!(ours.algorithms, policy().algorithms[0]);
}

#[test]
fn extended_sequence_numbers_where_both_take_them() {
    let extended = ChildPolicy { extended_sequence_numbers: true, ..policy() };
    for (offered, accepted, both) in
        [(&extended, &extended, true), (&extended, &policy(), false), (&policy(), &extended, false)]
    {
        let (ours, theirs) = negotiate(offered.clone(), accepted);
        assert_eq!(ours.extended_sequence_numbers, both);
        assert_eq!(theirs.extended_sequence_numbers, both);
    }
}

#[test]
fn transport_mode() {
    let transport = ChildPolicy { mode: Mode::Transport, ..policy() };
    let (ours, theirs) = negotiate(transport.clone(), &transport);
    assert_eq!((ours.mode, theirs.mode), (Mode::Transport, Mode::Transport));
}

/// One octet of each message changed, one after the other: none is believed.
#[test]
fn every_changed_octet_is_noise() {
    let mut pair = begin(policy());
    let flips = |message: &[u8]| {
        (0..message.len()).map({
            let message = message.to_vec();
            move |place| {
                let mut changed = message.clone();
                changed[place] ^= 1;
                changed
            }
        })
    };
    for changed in flips(&pair.message1.clone()) {
        assert!(Requested::read(&pair.responder, &changed).is_err());
    }
    let Answer { next, message, .. } = pair.answer(&policy()).unwrap();
    let (state, sa) = &pair.initiator;
    for changed in flips(&message) {
        assert!(state.handle(sa, &changed).is_err());
    }
    let last = state.handle(sa, &message).unwrap().unwrap().message;
    for changed in flips(&last) {
        // Padding is not authenticated.
        let padded = next.handle(&pair.responder, &changed).is_ok();
        assert!(!padded || changed[..last.len() - 32] == last[..last.len() - 32]);
    }
    next.handle(&pair.responder, &last).unwrap();
}

#[test]
fn message_identifier_zero_begins_nothing() {
    let pair = begin(policy());
    let (state, message) = ExpectChoice::start(
        &pair.initiator.1,
        pair.initiator.0.request().clone(),
        0,
        &mut SeededRng::from_seed([1; 32]),
    )
    .unwrap();
    assert_eq!(state.message_id(), 0);
    let refused = Requested::read(&pair.responder, &message).unwrap_err();
    assert_eq!(refused, PeerMisbehaved::MessageId(0).into());
}

//! Pushes of another implementation, with its own keys: two of new TEKs, one with a new KEK, one of
//! deletes.
//!
//! Its subnet masks are host masks, so that policy with TEKs cannot be used here. What comes before
//! that must work all the same: cipher, payloads, numbers, signatures.

use super::super::open::{Opened, VerifiedPush};
use super::super::rekey_sa::RekeySa;
use super::super::replay::Replay;
use super::*;
use crate::error::{Error, NotAccepted, PeerIncompatible, PeerMisbehaved};
use crate::wire::group_sa::GroupSecurityAssociation;
use crate::wire::kd::{KeyDownload, KeyPacket};
use crate::wire::{PolicyError, group_keys, group_policy};
use ike::crypto::RsaForm;
use ike::testing::{GDOI, Recording};
use ike::wire::chain;
use ike::wire::registry::PayloadKind;

/// The rekey SA that the recorded pull delivered.
fn pulled(recording: &Recording) -> GroupSa {
    let (policy, keys) = (recording.plaintext(8), recording.plaintext(10));
    let policy = chain::walk(PayloadKind::HASH, &policy, 28).unwrap();
    let keys = chain::walk(PayloadKind::HASH, &keys, 28).unwrap();
    let mut policy: GroupSecurityAssociation = policy.payloads[2].read().unwrap();
    policy.teks.clear();
    let policy = group_policy(GROUP, &policy).unwrap();
    let mut download: KeyDownload = keys.payloads[2].read().unwrap();
    download.packets.retain(|packet| matches!(packet, KeyPacket::Kek { .. }));
    let keys = group_keys(&policy, download).unwrap();
    GroupSa::from_sealed(policy, keys.kek_keys.unwrap(), 0)
}

fn member(recording: &Recording, legacy: bool) -> RekeyMember {
    RekeyMember::new(&pulled(recording), settings(legacy), at(0)).unwrap().unwrap()
}

fn verified(
    recording: &Recording,
    datagram: &[u8],
    legacy: bool,
    last: u32,
) -> Result<VerifiedPush, Error> {
    let pulled = pulled(recording);
    let (policy, keys) = (pulled.policy().kek.as_ref().unwrap(), pulled.kek_keys().unwrap());
    let sa = RekeySa::new(GROUP, policy, keys, None, last, legacy).unwrap();
    let well_formed = Opened::decrypt(&sa.kek, &policy.spi, datagram)?.check()?;
    well_formed.fresh(&Replay::new(last))?.verify(&sa.verifier, SignatureEncoding::default())
}

const RAW: SignatureEncoding = SignatureEncoding { form: Some(RsaForm::RawDigest), length: None };
const UNPADDED: SignatureEncoding =
    SignatureEncoding { length: Some(SignedLength::Unpadded), ..RAW };

#[test]
fn signatures_and_keys() {
    for (name, legacy, encodings) in
        [(GDOI[0], false, [UNPADDED; 3]), (GDOI[1], true, [RAW, UNPADDED, RAW])]
    {
        let recording = Recording::load(name);
        for (number, (encoding, packets)) in encodings.into_iter().zip([5, 3, 1]).enumerate() {
            let push = verified(&recording, &recording.message(number + 11), legacy, 0).unwrap();
            assert_eq!(
                (push.sequence_number() as usize, push.signature_encoding()),
                (number + 1, encoding),
                "{name}"
            );
            let payloads = push.read().unwrap();
            assert!(payloads.deletes.is_empty());
            assert_eq!(payloads.policy.unwrap().teks.len() + 1, packets);
            let KeyPacket::Tek { attributes, .. } =
                &payloads.keys.as_ref().unwrap().packets[packets.min(2) - 1]
            else {
                assert_eq!(packets, 1);
                continue;
            };
            let plaintext = recording.plaintext(number + 11);
            let key = attributes[0].value.expose();
            assert!(plaintext.windows(key.len()).any(|window| window == key));
        }
    }
}

#[test]
fn other_signatures() {
    for (name, legacy) in [(GDOI[0], false), (GDOI[1], true)] {
        let recording = Recording::load(name);
        let datagram = recording.message(11);
        assert_eq!(
            verified(&recording, &datagram, legacy, 1).unwrap_err(),
            NotAccepted::StaleSequenceNumber { last: 1, received: 1 }.into()
        );
        // The signature is in the last blocks: they still decrypt, to another signature.
        let mut changed = datagram.clone();
        let place = datagram.len() - 100;
        changed[place] ^= 1;
        assert_eq!(
            verified(&recording, &changed, legacy, 0).unwrap_err(),
            PeerMisbehaved::WrongSignature.into()
        );
    }
}

#[test]
fn a_membership_with_a_new_kek() {
    for (name, legacy, encoding) in [(GDOI[0], false, UNPADDED), (GDOI[1], true, UNPADDED)] {
        let recording = Recording::load(name);
        let mut member = member(&recording, legacy);
        let old = member.policy().unwrap().spi;
        let (from, to) = (address("10.99.0.2:848"), address("239.10.1.1:848"));
        for number in 1..=2 {
            member.handle_datagram(from, to, &recording.message(number + 10), at(1)).unwrap();
            let Some(RekeyEvent::Unusable { sequence_number, error }) = member.poll_event() else {
                panic!("{name}")
            };
            assert_eq!(sequence_number as usize, number);
            let Error::PeerIncompatible(PeerIncompatible::Policy(PolicyError::Selector { .. })) =
                error
            else {
                panic!("{error}");
            };
        }
        assert_eq!(
            (member.sequence_number(), member.signature_encoding()),
            (Some(2), Some(encoding))
        );

        let push = accepted(&mut member, &recording.message(13));
        let new = member.policy().unwrap().spi;
        assert_eq!((push.sequence_number, push.kek), (3, KekChange::Replaced { old, new }));
        let sa = push.group_sa.unwrap();
        assert_eq!(sa.policy().gap.activation_time_delay, Some(Duration::from_secs(60)));
        assert!(sa.tek_keys().is_empty() && sa.kek_keys().is_some());
        assert_eq!(
            (member.sequence_number(), member.signature_encoding()),
            (Some(0), Some(encoding))
        );

        // The old KEK is of no more use, and a copy of its last push is a copy still.
        assert_eq!(
            refused(&mut member, &recording.message(13)),
            ike::error::NotAccepted::Replayed.into()
        );
        assert_eq!(refused(&mut member, &recording.message(12)), NotAccepted::RetiredKek.into());

        let push = accepted(&mut member, &recording.message(14));
        assert_eq!(
            (push.sequence_number, push.deletions.len(), push.kek),
            (4, 6, KekChange::Unchanged)
        );
        assert!(matches!(push.deletions[0], Deletion::Tek(TekProtocol::ESP, _)));
        assert_eq!(
            (push.group_sa, push.acknowledgement, member.signature_encoding()),
            (None, None, Some(encoding))
        );
    }
}

#[test]
fn weak_algorithms_need_the_legacy_switch() {
    let sa = pulled(&Recording::load(GDOI[1]));
    let error = RekeyMember::new(&sa, settings(false), at(0)).unwrap_err();
    assert_eq!(error, Error::PeerIncompatible(PeerIncompatible::Kek(KekUnusable::Legacy("3DES"))));
}

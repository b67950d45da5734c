//! Pulls of groups whose key server pushes: a member registers whatever signs the pushes, and
//! whether or not the pull brings keys for data (RFC 6407 §5.3, §5.6.1, §5.6.2).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::collections::BTreeMap;

use gdoi::group::{GroupId, GroupPolicy, IssuedSa, KekKeys, KekPolicy};
use ike::crypto::Secret;
use support::*;

fn kek() -> KekPolicy {
    KekPolicy {
        spi: [0xa5; 16],
        protocol: 17,
        source: std::net::SocketAddr::from(([10, 0, 9, 1], 848)).into(),
        destination: std::net::SocketAddr::from(([239, 192, 1, 1], 848)).into(),
        algorithm: 3,
        key_length: Some(128),
        lifetime: seconds(86_400),
        signature_hash: Some(3),
        signature_algorithm: 1,
        signature_key_length: Some(2048),
        acknowledgement: None,
    }
}

/// The start of a SubjectPublicKeyInfo of RSA with 2048 bits, then octets that no pull looks at.
fn public_key() -> Vec<u8> {
    let mut key = vec![
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01,
        0x01,
    ];
    key.resize(294, 0x5a);
    key
}

/// The keys of [`group_sa`] with a rekey SA, or that SA alone.
fn pushing(group: GroupId, kek: KekPolicy, octets: usize, data: bool) -> IssuedSa {
    let (policy, tek_keys) = match data {
        true => {
            let keys = gdoi::group::TekKeys {
                encryption: Secret::new(vec![0x30; 16]),
                integrity: Secret::new(vec![0x40; 32]),
            };
            (group_policy(group), BTreeMap::from([(SPI, keys)]))
        }
        false => (GroupPolicy { teks: vec![], ..group_policy(group) }, BTreeMap::new()),
    };
    let keys =
        KekKeys { algorithm_key: Secret::new(vec![7; octets]), signature_key: Some(public_key()) };
    IssuedSa::new(GroupPolicy { kek: Some(kek), ..policy }, tek_keys, Some(keys), Some(77), None)
}

fn registers(kek: KekPolicy, octets: usize, data: bool) {
    let mut pair = Pair::new(1);
    let given = kek.clone();
    pair.keys = Box::new(move |group| pushing(group, given.clone(), octets, data));
    pair.run(seconds(5));
    let expected = pushing(GROUP, kek, octets, data);
    assert_eq!(pair.registered(0).unwrap(), &expected, "{:?}", pair.failure(0));
    assert_eq!(pair.registered(0).unwrap().sequence_number(), Some(77));
    assert_eq!(pair.completed(), 1);
}

#[test]
fn every_cipher_of_pushes() {
    for (algorithm, key_length, octets) in [
        (1, None, 16),
        (2, None, 32),
        (2, Some(192), 32),
        (3, Some(128), 32),
        (3, Some(192), 40),
        (3, Some(256), 48),
    ] {
        registers(KekPolicy { algorithm, key_length, ..kek() }, octets, true);
    }
}

#[test]
fn every_signature_of_pushes() {
    for signature_algorithm in 1..=6 {
        for signature_hash in [None, Some(1), Some(2), Some(3), Some(4), Some(5)] {
            registers(KekPolicy { signature_algorithm, signature_hash, ..kek() }, 32, true);
        }
    }
}

#[test]
fn data_keys_may_be_left_to_a_push() {
    registers(kek(), 32, false);
}

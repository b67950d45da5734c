//! What tests of several modules, and of the crates above, share.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed, and reads its data"
)]

pub use crate::phase1::testing::{GDOI, Recording, worked_isakmp_sa};

use crate::crypto::{DhGroup, HashAlgorithm};
use crate::wire::codec::Writer;
use crate::wire::registry::PayloadKind;
use crate::wire::{Body, Chain, Codec, InvalidMessage, RawPayload, chain};

/// The octets of hexadecimal text; white space is skipped.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    assert_eq!(digits.len() % 2, 0, "an odd number of digits");
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A JSON document of this crate's `testdata/`.
pub fn json(path: &str) -> serde_json::Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(path);
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

/// The octets of a JSON string of hexadecimal digits.
pub fn octets(value: &serde_json::Value) -> Vec<u8> {
    hex(value.as_str().unwrap())
}

/// The hash algorithm with a name of `testdata/`.
pub fn hash_named(name: &serde_json::Value) -> HashAlgorithm {
    match name.as_str().unwrap() {
        "md5" => HashAlgorithm::Md5,
        "sha1" => HashAlgorithm::Sha1,
        "sha2-256" => HashAlgorithm::Sha2_256,
        "sha2-384" => HashAlgorithm::Sha2_384,
        "sha2-512" => HashAlgorithm::Sha2_512,
        other => panic!("hash {other}"),
    }
}

/// The Diffie-Hellman group with a name of `testdata/`.
pub fn group_named(name: &serde_json::Value) -> DhGroup {
    match name.as_str().unwrap() {
        "modp-768" => DhGroup::Modp768,
        "modp-1024" => DhGroup::Modp1024,
        "modp-1536" => DhGroup::Modp1536,
        "modp-2048" => DhGroup::Modp2048,
        "modp-3072" => DhGroup::Modp3072,
        "modp-4096" => DhGroup::Modp4096,
        "modp-2048-256" => DhGroup::Modp2048Subgroup256,
        "ecp-256" => DhGroup::Ecp256,
        "ecp-384" => DhGroup::Ecp384,
        other => panic!("group {other}"),
    }
}

pub const GROUPS: [DhGroup; 9] = [
    DhGroup::Modp768,
    DhGroup::Modp1024,
    DhGroup::Modp1536,
    DhGroup::Modp2048,
    DhGroup::Modp3072,
    DhGroup::Modp4096,
    DhGroup::Modp2048Subgroup256,
    DhGroup::Ecp256,
    DhGroup::Ecp384,
];

/// A chain that must be good, as it stands behind a header.
pub fn walk(first: PayloadKind, octets: &[u8]) -> Chain<'_> {
    chain::walk(first, octets, 28).expect("a good payload chain")
}

/// Reads a body and demands that writing it gives the same octets again.
pub fn both_ways<T: Body + PartialEq + core::fmt::Debug>(raw: &RawPayload<'_>) -> T {
    let body: T = raw.read().unwrap_or_else(|error| panic!("{error} in {:02x?}", raw.octets));
    assert_eq!(body.to_octets().as_deref(), Ok(raw.body()), "octets written are not those read");
    body
}

/// Demands that a body is written as the payload `text`, hexadecimal, and read from it again.
pub fn golden<T: Body + PartialEq + core::fmt::Debug>(text: &str, body: &T) {
    let octets = hex(text);
    assert_eq!(written(body), octets);
    assert_eq!(&both_ways::<T>(&walk(T::KIND, &octets).payloads[0]), body);
}

/// Written and read again it is the same, alone and behind a generic header.
pub fn survives<T: Body + PartialEq + core::fmt::Debug>(body: &T) {
    survives_bare(body);
    let octets = written(body);
    let chain = walk(T::KIND, &octets);
    assert_eq!(chain.payloads.len(), 1);
    assert_eq!(chain.payloads[0].read::<T>().as_ref(), Ok(body));
}

/// Written and read again it is the same.
pub fn survives_bare<T: Codec + PartialEq + core::fmt::Debug>(value: &T) {
    let octets = value.to_octets().expect("fits");
    assert_eq!(T::decode(&octets).as_ref(), Ok(value));
}

/// A body behind a generic header, the last of its chain.
fn written<T: Body>(body: &T) -> Vec<u8> {
    let mut writer = Writer::new();
    chain::encode_one(&mut writer, PayloadKind::NONE, body);
    writer.finish().expect("fits")
}

/// Every body cut short anywhere inside `octets` must be refused, except at the lengths of
/// `allowed`.
pub fn refused_when_cut<T: Codec + core::fmt::Debug>(octets: &[u8], allowed: &[usize]) {
    for length in 0..octets.len() {
        let result = T::decode(&octets[..length]);
        assert_eq!(
            result.is_ok(),
            allowed.contains(&length),
            "{length} of {} octets: {result:?}",
            octets.len()
        );
        if let Err(error) = result {
            assert!(error.offset() <= length, "{error}");
        }
    }
}

/// As [`Codec::decode`], for the error alone.
pub fn error<T: Codec + core::fmt::Debug>(octets: &[u8]) -> InvalidMessage {
    T::decode(octets).expect_err("octets that must be refused")
}

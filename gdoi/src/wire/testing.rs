//! Helpers of this crate's tests.

use ike::wire::chain;
use ike::wire::chain::Body;
use ike::wire::codec::{Codec, InvalidMessage};
use ike::wire::registry::PayloadKind;
use ike::wire::{Chain, RawPayload};

/// Octets from hexadecimal digits; white space is for the reader.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|character| !character.is_whitespace())
        .map(|character| {
            u8::try_from(character.to_digit(16).expect("a hexadecimal digit")).expect("one digit")
        })
        .collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of digits");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Octets of `testdata/wire/NAME.hex`; lines that start with `#` are comments.
#[allow(clippy::disallowed_methods, reason = "tests read their data")]
pub(crate) fn testdata(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/wire/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    hex(&text.lines().filter(|line| !line.starts_with('#')).collect::<String>())
}

/// A chain that must be good, as it stands behind a header.
pub(crate) fn walk(first: PayloadKind, octets: &[u8]) -> Chain<'_> {
    chain::walk(first, octets, 28).expect("a good payload chain")
}

/// Reads a body and demands that writing it gives the same octets again.
pub(crate) fn both_ways<T: Body + PartialEq + core::fmt::Debug>(raw: &RawPayload<'_>) -> T {
    let body: T = raw.read().unwrap_or_else(|error| panic!("{error} in {:02x?}", raw.octets));
    assert_eq!(body.to_octets().as_deref(), Ok(raw.body()), "octets written are not those read");
    body
}

/// Every body cut short anywhere inside `octets` must be refused, except at the lengths of
/// `allowed`.
pub(crate) fn refused_when_cut<T: Codec + core::fmt::Debug>(octets: &[u8], allowed: &[usize]) {
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
pub(crate) fn error<T: Codec + core::fmt::Debug>(octets: &[u8]) -> InvalidMessage {
    T::decode(octets).expect_err("octets that must be refused")
}

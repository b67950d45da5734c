//! Helpers of this crate's tests.

pub(crate) use ike::testing::{both_ways, error, hex, refused_when_cut, walk};

/// Octets of `testdata/wire/NAME.hex`; lines that start with `#` are comments.
#[allow(clippy::disallowed_methods, reason = "tests read their data")]
pub(crate) fn testdata(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/wire/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    hex(&text.lines().filter(|line| !line.starts_with('#')).collect::<String>())
}

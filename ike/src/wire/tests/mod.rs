//! Tests of the wire formats: recorded and computed octets both ways, properties, and what must be
//! refused.

mod computed;
mod properties;
mod recorded;
mod refused;

use crate::testing::hex;

/// Octets of `testdata/wire/NAME.hex`; lines that start with `#` are comments.
#[allow(clippy::disallowed_methods, reason = "tests read their data")]
fn testdata(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/wire/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    hex(&text.lines().filter(|line| !line.starts_with('#')).collect::<String>())
}

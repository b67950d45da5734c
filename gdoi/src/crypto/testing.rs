//! What tests of several modules share.

/// The octets of hexadecimal text; white space is skipped.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    assert_eq!(digits.len() % 2, 0, "an odd number of digits");
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

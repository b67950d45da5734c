//! What `ip xfrm state` prints: parsed for the verifier, masked for the reader.

use anyhow::{Context, Result, bail};
use std::fmt;

/// One ESP state of the kernel.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// Source address as printed.
    pub source: String,
    /// Destination address as printed.
    pub destination: String,
    pub spi: u32,
    /// Request id, which ties it to policies.
    pub request_id: u32,
    /// Integrity: the kernel's name, key, ICV length in bits.
    pub integrity: Option<(String, Vec<u8>, usize)>,
    /// Encryption: the kernel's name and key.
    pub encryption: Option<(String, Vec<u8>)>,
    /// Combined mode: the kernel's name, key with salt, ICV length in bits.
    pub combined: Option<(String, Vec<u8>, usize)>,
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "State({} -> {}, spi {:#x})", self.source, self.destination, self.spi)
    }
}

/// A key that a member holds, without the addresses that differ from member to member.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldKey {
    receives: bool,
    spi: u32,
    key: Option<Vec<u8>>,
}

impl State {
    /// Its key and what it is for.
    pub fn held(self) -> HeldKey {
        // Inbound states of a group name no source.
        let key = self.encryption.map(|part| part.1).or(self.combined.map(|part| part.1));
        HeldKey { receives: self.source == "0.0.0.0", spi: self.spi, key }
    }
}

/// Reads the output of `ip xfrm state`.
///
/// # Errors
/// Names the line that is not understood.
pub fn parse(text: &str) -> Result<Vec<State>> {
    let mut states: Vec<State> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), states.last_mut()) {
            (["src", source, "dst", destination, ..], _)
                if !line.starts_with(char::is_whitespace) =>
            {
                states.push(State {
                    source: (*source).to_owned(),
                    destination: (*destination).to_owned(),
                    spi: 0,
                    request_id: 0,
                    integrity: None,
                    encryption: None,
                    combined: None,
                });
            }
            (["proto", _, "spi", spi, "reqid", request_id, ..], Some(state)) => {
                // "0x00001300" or "0x00001300(4864)"
                let digits = spi.trim_start_matches("0x").split('(').next().unwrap_or_default();
                state.spi = u32::from_str_radix(digits, 16).with_context(|| line.to_owned())?;
                let digits = request_id.split('(').next().unwrap_or_default();
                state.request_id = digits.parse().with_context(|| line.to_owned())?;
            }
            (["auth-trunc", name, key, bits, ..], Some(state)) => {
                state.integrity = Some(((*name).to_owned(), octets(key)?, bits.parse()?));
            }
            (["enc", name, key], Some(state)) => {
                state.encryption = Some(((*name).to_owned(), octets(key)?))
            }
            // A NULL cipher has no key to print.
            (["enc", name], Some(state)) => {
                state.encryption = Some(((*name).to_owned(), Vec::new()))
            }
            (["aead", name, key, bits, ..], Some(state)) => {
                state.combined = Some(((*name).to_owned(), octets(key)?, bits.parse()?));
            }
            _ => {}
        }
    }
    Ok(states)
}

/// The same text with every key replaced by its length.
pub fn mask(text: &str) -> String {
    let mut masked = String::new();
    for line in text.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if matches!(word, "enc" | "auth" | "auth-trunc" | "aead") {
            let key = line.split_whitespace().find(|word| word.starts_with("0x"));
            if let Some(key) = key {
                let bits = key.len().saturating_sub(2) * 4;
                masked.push_str(&line.replace(key, &format!("0x...({bits} bits, masked)")));
                masked.push('\n');
                continue;
            }
        }
        masked.push_str(line);
        masked.push('\n');
    }
    masked
}

fn octets(hexadecimal: &str) -> Result<Vec<u8>> {
    let digits = hexadecimal.strip_prefix("0x").unwrap_or_default();
    if digits.is_empty() && hexadecimal != "0x" {
        bail!("a key that is not hexadecimal");
    }
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect::<Option<Vec<u8>>>()
        .context("a key that is not hexadecimal")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "src 10.0.1.1 dst 192.0.2.1
\tproto esp spi 0x00001300 reqid 1195638784 mode tunnel
\treplay-window 0 flag nopmtudisc extra-flag oseq-may-wrap
\tauth-trunc hmac(sha256) 0x0102030405060708090a0b0c0d0e0f100102030405060708090a0b0c0d0e0f10 128
\tenc cbc(aes) 0x0102030405060708090a0b0c0d0e0f10
\tanti-replay context: seq 0x0, oseq 0x7, bitmap 0x00000000
\tsel src 0.0.0.0/0 dst 0.0.0.0/0
src 0.0.0.0 dst 10.0.1.1
\tproto esp spi 0x00001301 reqid 7 mode tunnel
\taead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128
";

    #[test]
    fn reads_both_kinds_of_algorithm() {
        let states = parse(TEXT).unwrap();
        assert_eq!(states.len(), 2);
        assert_eq!((states[0].spi, states[0].request_id), (0x1300, 0x4744_0000));
        assert_eq!(states[0].destination, "192.0.2.1");
        assert_eq!(states[0].integrity.as_ref().unwrap().2, 128);
        assert_eq!(states[0].encryption.as_ref().unwrap().1.len(), 16);
        assert_eq!(states[1].combined.as_ref().unwrap().1.len(), 20);
    }

    #[test]
    fn no_key_survives_masking() {
        let masked = mask(TEXT);
        for key in ["0102030405060708", "000102030405"] {
            assert!(!masked.contains(key));
        }
        assert!(masked.contains("enc cbc(aes) 0x...(128 bits, masked)"));
        assert!(masked.contains("spi 0x00001300"));
        assert_eq!(masked.lines().count(), TEXT.lines().count());
    }

    #[test]
    fn a_state_does_not_print_its_key() {
        assert_eq!(
            format!("{:?}", parse(TEXT).unwrap()[1]),
            "State(0.0.0.0 -> 10.0.1.1, spi 0x1301)"
        );
    }
}

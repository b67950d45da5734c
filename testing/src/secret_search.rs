//! Searches logs, files and answers for octets of keys in every form in which they may be written.

use std::collections::{BTreeMap, HashMap};

/// So many octets of a key in a row count as a key.
const TELLING: usize = 6;

/// The ways in which octets are written.
fn written(octets: &[u8]) -> Vec<Vec<u8>> {
    let joined = |separator: &str, one: &dyn Fn(&u8) -> String| {
        octets.iter().map(one).collect::<Vec<_>>().join(separator).into_bytes()
    };
    let lower = |octet: &u8| format!("{octet:02x}");
    let upper = |octet: &u8| format!("{octet:02X}");
    let mut forms = vec![joined("", &lower), joined("", &upper)];
    for separator in [",", ":"] {
        forms.push(joined(separator, &lower));
        forms.push(joined(separator, &upper));
        forms.push(joined(separator, &|octet| format!("{octet:x}")));
        forms.push(joined(separator, &|octet| format!("0x{octet:02x}")));
    }
    forms.push(joined(",", &u8::to_string));
    forms
}

/// Base64 of `octets` wherever in a longer text they begin, less the characters that their
/// neighbours share.
fn base64(octets: &[u8]) -> Vec<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let forms = (0..3_usize).map(|before| {
        let mut bits: Vec<bool> = vec![false; before * 8];
        bits.extend(
            octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)),
        );
        let whole = bits.chunks_exact(6).skip((before * 8).div_ceil(6));
        whole
            .map(|six| DIGITS[six.iter().fold(0, |sum, bit| sum << 1 | usize::from(*bit))])
            .collect()
    });
    forms.collect()
}

/// The first key that is seen, if one is.
pub fn found(shown: &[u8], secrets: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    let (mut raw, mut text) = (Needles::default(), Needles::default());
    for (name, octets) in secrets {
        for window in octets.windows(TELLING) {
            raw.add(window.to_vec(), name);
            written(window).into_iter().for_each(|form| text.add(form, name));
        }
        // Fewer octets are a few letters of base64, which may be anything.
        for window in octets.windows(9) {
            base64(window).into_iter().for_each(|form| text.add(form, name));
        }
    }
    let dense: Vec<u8> =
        shown.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    raw.find(shown).or_else(|| text.find(&dense))
}

/// Octets to look for, by their first four.
#[derive(Default)]
struct Needles(HashMap<[u8; 4], Vec<(Vec<u8>, String)>>);

impl Needles {
    fn add(&mut self, octets: Vec<u8>, name: &str) {
        self.0.entry(*octets.first_chunk().unwrap()).or_default().push((octets, name.to_owned()));
    }

    fn find(&self, haystack: &[u8]) -> Option<String> {
        (0..haystack.len()).find_map(|at| {
            let rest = &haystack[at..];
            let candidates = self.0.get(rest.first_chunk()?)?;
            candidates
                .iter()
                .find(|(octets, _)| rest.starts_with(octets))
                .map(|(_, name)| name.clone())
        })
    }
}

#[test]
fn a_key_is_found_in_every_form() {
    let key: Vec<u8> = (0..16).map(|octet| octet * 13 + 7).collect();
    let secrets = BTreeMap::from([("key".to_owned(), key.clone())]);
    let hexadecimal: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
    let forms = [
        format!("before {key:?} after"),
        format!("{key:#?}"),
        format!("{key:x?} {key:X?}"),
        hexadecimal.clone(),
        hexadecimal.to_uppercase(),
        format!("..{}..", &hexadecimal[4..20]),
        "BxQhLjtIVWJvfImWo7C9yg==".to_owned(),
        "eHgHFCEuO0hVYm98iZajsL3K".to_owned(),
    ];
    for form in forms {
        assert_eq!(found(form.as_bytes(), &secrets), Some("key".to_owned()), "{form}");
    }
    assert_eq!(found(&[b"raw".as_slice(), &key[3..12]].concat(), &secrets), Some("key".to_owned()));
    assert_eq!(
        found(b"Secret(16 octets) 7, 20, 33, 46, 59", &secrets),
        None,
        "five octets are no key"
    );
}

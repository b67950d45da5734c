//! Names in certificates and in rules about them: distinguished names as people write them (RFC
//! 4514), compared as RFC 5280 §7.1 means it, and `*` for any characters.

use core::str::FromStr;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::{Decode, Encode};
use x509_cert::name::{Name, RelativeDistinguishedName};

/// A distinguished name as people write it (RFC 4514), from DER; its octets if it is none.
pub fn name_text(der: &[u8]) -> String {
    match Name::from_der(der) {
        Ok(name) => name.to_string(),
        Err(_) => der.iter().map(|octet| format!("{octet:02x}")).collect(),
    }
}

/// The distinguished name that `text` writes (RFC 4514, `CN=host,O=Example`), in DER. White space
/// behind commas is nothing. `None` if it writes none.
pub fn name_from_text(text: &str) -> Option<Vec<u8>> {
    let name = Name::from_str(&without_white_space(text)).ok()?;
    if name.is_empty() {
        return None;
    }
    name.to_der().ok()
}

/// Whether `rule`, a name in DER whose values may have `*` for any characters, means `name`. Case
/// and the kind of string do not count, the order does.
pub(crate) fn name_covers(rule: &[u8], name: &[u8]) -> bool {
    if rule == name {
        return true;
    }
    let (Ok(rule), Ok(name)) = (Name::from_der(rule), Name::from_der(name)) else { return false };
    let (rule, name): (Vec<_>, Vec<_>) = (rule.iter_rdn().collect(), name.iter_rdn().collect());
    rule.len() == name.len()
        && !rule.is_empty()
        && rule.iter().zip(&name).all(|(rule, name)| part_covers(rule, name))
}

fn part_covers(rule: &RelativeDistinguishedName, name: &RelativeDistinguishedName) -> bool {
    let texts = |part: &RelativeDistinguishedName| {
        let texts = part.iter().map(|one| (one.oid, folded(&value_text(one))));
        let mut texts: Vec<_> = texts.collect();
        texts.sort();
        texts
    };
    let (rule, name) = (texts(rule), texts(name));
    rule.len() == name.len()
        && rule
            .iter()
            .zip(&name)
            .all(|((kind, rule), (other, name))| kind == other && text_covers(rule, name))
}

/// Its characters, whatever kind of string it is; a rule may have a `*` where the kind has none.
fn value_text(one: &AttributeTypeAndValue) -> String {
    match core::str::from_utf8(one.value.value()) {
        Ok(text) => text.to_owned(),
        Err(_) => one.to_string(),
    }
}

/// Whether a value of the name has a `*`.
pub(crate) fn name_is_pattern(der: &[u8]) -> bool {
    let name = Name::from_der(der);
    name.is_ok_and(|name| name.iter().any(|one| value_text(one).contains('*')))
}

/// In lower case, with one blank where there are several.
fn folded(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

/// Whether `rule`, where `*` stands for any characters, means `text`.
pub(crate) fn text_covers(rule: &str, text: &str) -> bool {
    let mut parts = rule.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // The first place of each part leaves the most for those behind it.
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// People write a blank behind commas, which would become part of a name.
fn without_white_space(text: &str) -> String {
    let mut parts: Vec<String> = vec![String::new()];
    let mut is_escaped = false;
    for character in text.chars() {
        match parts.last_mut() {
            _ if character == ',' && !is_escaped => parts.push(String::new()),
            Some(part) => part.push(character),
            None => {}
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    let trimmed: Vec<&str> = parts.iter().map(|part| part.trim()).collect();
    trimmed.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(text: &str) -> Vec<u8> {
        name_from_text(text).unwrap()
    }

    #[test]
    fn a_name_is_read_as_people_write_it() {
        assert_eq!(
            name_text(&der("CN=m1, OU=Branches,O=Example,C=DE")),
            "CN=m1,OU=Branches,O=Example,C=DE"
        );
        assert_eq!(name_text(&der("CN=a\\, b,O=x")), "CN=a\\, b,O=x");
        for wrong in ["", " ", "m1", "CN", "nosuch=1", ",", "CN=a,,O=b"] {
            assert_eq!(name_from_text(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn case_and_blanks_do_not_count_and_the_order_does() {
        let covers = |rule: &str, name: &str| name_covers(&der(rule), &der(name));
        assert!(covers("cn=M1,o=EXAMPLE", "CN=m1,O=Example"));
        assert!(covers("CN=a b", "CN=a  b"));
        assert!(!covers("O=Example,CN=m1", "CN=m1,O=Example"));
        assert!(!covers("CN=m1", "CN=m1,O=Example"));
        assert!(!covers("OU=m1", "CN=m1"));
        // OpenSSL writes UTF8String, others PrintableString.
        let printable =
            [&[0x30, 13, 0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 3, 0x13, 2][..], b"m1"].concat();
        assert!(name_covers(&der("CN=m1"), &printable));
        assert!(!name_covers(&der("CN=m1"), b"no name"));
    }

    #[test]
    fn a_star_stands_for_any_characters_of_one_value() {
        let covers = |rule: &str, name: &str| name_covers(&der(rule), &der(name));
        assert!(covers("CN=*,OU=Branches,O=Example", "CN=m17,OU=branches,O=Example"));
        assert!(covers("CN=m*,C=*", "CN=m17,C=DE"));
        assert!(!covers("CN=m*,O=Example", "CN=x17,O=Example"));
        assert!(!covers("CN=*", "CN=m17,O=Example"));
        for (rule, text, expected) in [
            ("*.example.org", "m1.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "m1.example.org.evil", false),
            ("m*.b*.org", "m1.branch.org", true),
            ("a*a", "a", false),
            ("*", "", true),
            ("ab*ba", "aba", false),
            ("", "", true),
        ] {
            assert_eq!(text_covers(rule, text), expected, "{rule} {text}");
        }
    }
}

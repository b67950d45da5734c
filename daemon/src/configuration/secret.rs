//! Where keys are named in a configuration, and what is worth a warning about them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ike::crypto::Secret;

use super::report::Report;
use super::setting::optional;
use super::table::{Located, Place, Table};
use crate::secrets::{SHORT, SecretError, SecretSource};

/// Takes the state key out of `read`'s result; an error is noted.
pub fn state_key(
    report: &Report,
    origin: &Located<SecretSource>,
    read: impl FnOnce(&SecretSource) -> Result<Secret, SecretError>,
) -> Option<Secret> {
    read(&origin.value)
        .map_err(|error| {
            let text = error.to_string();
            let (message, remedy) = text.split_once("; ").unwrap_or((&text, "check the key"));
            report.error(Some(origin.place.clone()), format!("state key: {message}"), remedy);
        })
        .ok()
}

/// Reads one of two keys; naming both is an error. `None` when neither is there or what is there is
/// wrong (then it is noted).
pub(super) fn source(
    table: &mut Table<'_>,
    in_file: &'static str,
    as_credential: &'static str,
) -> Option<Located<SecretSource>> {
    let file = optional::<PathBuf>(in_file).read(table);
    let credential = optional::<String>(as_credential).read(table);
    match (file, credential) {
        (Some(_), Some(credential)) => {
            let message = format!("{in_file} and {as_credential} are both named");
            table.report().error(Some(credential.place), message, "keep one of them");
            None
        }
        (Some(file), None) => Some(file.map(SecretSource::File)),
        (None, Some(credential)) => Some(credential.map(SecretSource::Credential)),
        (None, None) => None,
    }
}

/// Warns about a key that can be found by trying.
pub fn check_length(report: &Report, place: Place, key: &Secret) {
    if key.len() < SHORT {
        report.warning(
            Some(place),
            format!(
                "the pre-shared key has {} octets only, so it can be found by trying",
                key.len()
            ),
            format!("use {SHORT} random octets or more, such as `openssl rand -base64 32` prints"),
        );
    }
}

/// Groups of names that have one and the same key, each group in the order given.
///
/// Runs on the daemon's own keys at start, where nobody can measure how long a comparison takes.
pub fn shared_keys<'n>(keys: impl IntoIterator<Item = (&'n str, &'n Secret)>) -> Vec<Vec<&'n str>> {
    let mut holders: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
    for (name, key) in keys {
        holders.entry(key.expose()).or_default().push(name);
    }
    let mut shared: Vec<Vec<&str>> =
        holders.into_values().filter(|names| names.len() > 1).collect();
    // Not in the order of the keys, which is nobody's business.
    shared.sort();
    shared
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::super::setting::key_source;
    use super::*;

    const FILE: &str = "pre-shared-key-file";
    const CREDENTIAL: &str = "pre-shared-key-credential";

    #[test]
    fn one_source_only() {
        let text = "pre-shared-key-file = \"/a\"\npre-shared-key-credential = \"b\"\n";
        let report = parse("f", text, |mut root| {
            assert!(key_source(FILE, CREDENTIAL).read(&mut root).is_none());
            root.finish();
            Some(())
        });
        let report = report.unwrap_err().to_string();
        assert!(
            report.starts_with(
                "f:2:29: error: pre-shared-key-file and pre-shared-key-credential are both named; keep one"
            ),
            "{report}"
        );
        let loaded = parse("f", "pre-shared-key-credential = \"b\"\n", |mut root| {
            key_source(FILE, CREDENTIAL).read(&mut root)
        })
        .unwrap();
        assert_eq!(loaded.value.value, SecretSource::Credential(String::from("b")));
    }

    #[test]
    fn shared_keys_are_found() {
        let (one, two) = (Secret::copy_from(b"zzz"), Secret::copy_from(b"aaa"));
        let (three, four) = (Secret::copy_from(b"zzz"), Secret::copy_from(b"aaa"));
        let lone = Secret::copy_from(b"mmm");
        let keys = [("a", &one), ("b", &two), ("c", &three), ("d", &lone), ("e", &four)];
        assert_eq!(shared_keys(keys), [["a", "c"], ["b", "e"]]);
        assert!(shared_keys([("a", &one), ("b", &two)]).is_empty());
    }

    #[test]
    fn short_keys_are_warned_about() {
        let report = Report::new("f", "x");
        check_length(&report, 0..1, &Secret::copy_from(&[b'a'; SHORT]));
        assert_eq!(report.to_string(), "");
        check_length(&report, 0..1, &Secret::copy_from(b"hunter2"));
        assert!(report.to_string().contains("7 octets only"));
        assert!(!report.has_errors());
    }
}

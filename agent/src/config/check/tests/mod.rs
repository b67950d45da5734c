//! Tests of the configuration by what it is about. All share one group, which each test changes.

use std::io;

use super::*;

mod defects;
mod example;
mod groups;
mod interfaces;
mod secrets;
mod tunnels;
mod values;

fn interfaces() -> Interfaces {
    let interface = |index: u32, address: &str| Interface {
        index,
        up: true,
        addresses: vec![address.parse().unwrap()],
        mtu: 1500,
        ..Interface::default()
    };
    [
        ("lan", interface(2, "172.16.1.1/24")),
        ("wan", interface(3, "10.0.1.1/24")),
        ("wan2", interface(4, "10.0.2.1/24")),
    ]
    .map(|(name, interface)| (name.to_owned(), interface))
    .into()
}

/// Good key files are called `*.psk`, one called `open` is readable by everybody, others are
/// missing.
fn secret(source: &SecretSource) -> Result<Secret, SecretError> {
    let SecretSource::File(path) = source else {
        return Ok(Secret::copy_from(b"from the service manager"));
    };
    if path.ends_with("open") {
        return Err(SecretError::Exposed {
            origin: source.clone(),
            who: "everybody",
            path: path.clone(),
        });
    }
    if path.extension().is_some_and(|extension| extension == "psk") {
        return Ok(Secret::copy_from(b"sixteen octets or more"));
    }
    let error = io::Error::from(io::ErrorKind::NotFound);
    Err(SecretError::Unreadable {
        origin: source.clone(),
        error,
        remedy: "create it, or correct the path",
    })
}

fn state_key(source: &SecretSource) -> Result<Secret, SecretError> {
    match source {
        SecretSource::File(path) if path.ends_with("short") => {
            Err(SecretError::KeyLength { origin: source.clone(), have: 5 })
        }
        _ => Ok(Secret::new(vec![7; 32])),
    }
}

/// The pre-shared key of a server.
fn key(server: &crate::config::Server) -> &Arc<Secret> {
    match &server.credential {
        Credential::PreSharedKey(key) => key,
        other => panic!("{other:?}"),
    }
}

fn load_text(text: &str) -> Result<Loaded<Config>, String> {
    let interfaces = interfaces();
    let interfaces = Some(&interfaces);
    let machine =
        Machine { interfaces, secret: &secret, state_key: &state_key, ..Machine::unseen() };
    parse("f", text, &machine).map_err(|report| report.to_string())
}

const GROUP: &str = r#"
[[group]]
name = "branches"
id = 1111
local-address = "10.0.1.1"
lan = ["lan"]
wan = ["wan"]
protected = ["172.16.0.0/12"]
pre-shared-key-file = "/k.psk"
[[group.server]]
address = "10.0.9.1"
"#;

/// The report about the group above after a replacement that must apply.
fn defect(from: &str, to: &str) -> String {
    assert!(GROUP.contains(from), "{from}");
    load_text(&GROUP.replace(from, to)).map(|_| ()).unwrap_err()
}

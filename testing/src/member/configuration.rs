//! The member's configuration and its machine.

use agent::config::Config;
use agent::config::check::{Machine, parse};
use agent::membership::local_interface::Interfaces;
use ike::crypto::Secret;
use xfrm::interface::Interface;

/// The cheapest group of phase 1.
pub const IKE: &str = "[group.ike]\ndh-group = [19]\n";
/// What the group protects.
pub const ALL: &str = "172.16.0.0/12";
/// What the member shares with its servers.
pub const PRE_SHARED_KEY: &[u8] = b"q7#Zk2!vR9wLx4$Tn8@Hd3%Bm6^Yc1&f";
/// What seals the state where a configuration names a state key.
pub const STATE_KEY: [u8; 32] = [0x5e; 32];
/// Lines before all groups that ask for a sealed state.
pub const SEALED: &str = "state-directory = \"/state\"\nstate-key-file = \"/state-key\"\n";

/// A configuration with `servers` servers (10.0.11.1, 10.0.12.1 ..) and further lines for the
/// group.
pub fn configuration(servers: usize, lines: &str) -> String {
    let mut text = format!(
        r#"
[[group]]
name = "branches"
id = 1111
local-address = "wan"
lan = ["lan"]
wan = ["wan"]
protected = ["172.16.0.0/12"]
pre-shared-key-file = "/psk"
{lines}
"#
    );
    for server in 1..=servers {
        text.push_str(&format!("[[group.server]]\naddress = \"10.0.1{server}.1\"\n"));
    }
    text
}

fn interface(index: u32, net: &str) -> Interface {
    let gateway = Some("10.0.1.254".parse().unwrap()).filter(|_| net.starts_with("10."));
    Interface {
        index,
        up: true,
        addresses: vec![net.parse().unwrap()],
        mtu: 1500,
        gateway,
        ..Interface::default()
    }
}

pub fn interfaces() -> Interfaces {
    let all = [("lan", interface(2, "172.16.1.1/24")), ("wan", interface(3, "10.0.1.1/24"))];
    all.map(|(name, interface)| (name.to_owned(), interface)).into()
}

pub(super) fn parsed(text: &str, interfaces: &Interfaces) -> Config {
    let secret = |_: &_| Ok(Secret::copy_from(PRE_SHARED_KEY));
    let state_key = |_: &_| Ok(Secret::copy_from(&STATE_KEY));
    let interfaces = Some(interfaces);
    let machine =
        Machine { interfaces, secret: &secret, state_key: &state_key, ..Machine::this(None) };
    parse("test", text, &machine).unwrap_or_else(|report| panic!("{report}")).value
}

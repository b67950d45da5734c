//! What `show member policy` says, for each state of a group.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

mod support;

use policies::{GroupInput, GroupState, explain};
use support::*;

const GROUP: &str = "172.16.0.0/12";

fn shows(name: &str, group: &GroupInput<'_>) {
    let line = |line: policies::explain::PolicyLine| {
        format!(
            "{:?} {} -> {} protocol {} ports {} {} SPI {}: {}\n",
            line.kind,
            line.source,
            line.destination,
            line.protocol,
            line.source_port,
            line.destination_port,
            line.spi.map_or_else(|| "-".to_owned(), |spi| format!("{spi:#010x}")),
            line.note
        )
    };
    golden(name, &explain(group).into_iter().map(line).collect::<String>());
}

#[test]
fn no_key() {
    let mut group = g1(GroupState::NoKey);
    group.exclude = vec![selector(GROUP, "224.0.0.5")];
    shows("explain_no_key", &group);
}

#[test]
fn rolling() {
    let (old, new, keys) =
        ([tek(0x1300, GROUP, "any")], [tek(0x1400, GROUP, "10.0.0.1-10.0.0.9")], cbc_keys());
    let mut teks = generation(&new, &keys, true, true);
    teks.extend(generation(&old, &keys, true, false));
    shows("explain_rolling", &g1(GroupState::Keyed(teks)));
}

#[test]
fn counter_mode_without_opt_in() {
    let (teks, keys) = ([gcm(tek(0x1300, GROUP, GROUP))], keys(20, 0));
    shows("explain_counter_mode", &g1(keyed(&teks, &keys)));
}

#[test]
fn expired_and_without_address() {
    let (teks, keys) = ([tek(0x1300, GROUP, GROUP)], cbc_keys());
    shows("explain_expired", &g1(GroupState::Expired(teks.iter().collect())));
    let mut group = g1(keyed(&teks, &keys));
    group.zones.local = None;
    shows("explain_no_address", &group);
}

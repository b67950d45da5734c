//! A group's configuration as text, option by option, so that two servers can compare theirs.

use std::collections::BTreeMap;
use std::time::Duration;

use ::cluster::message::{Difference, Setting};
use daemon::configuration::duration_text;

use crate::config::Group;
use crate::group::division::has_counter_mode;
use crate::text::selectors_text;

/// What all servers of a group have to have alike.
pub(super) fn of(group: &Group) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut add = |name: String, value: String| all.push(Setting { name, value });
    let duration = |one: Option<Duration>| one.map_or_else(|| "none".into(), duration_text);
    add("name".into(), group.name.clone());
    let threshold = group.member_threshold.map_or_else(|| "none".into(), |most| most.to_string());
    add("member-threshold".into(), threshold);
    let gap = &group.gap;
    add("gap.activation-time-delay".into(), duration(gap.activation_time_delay));
    add("gap.deactivation-time-delay".into(), duration(gap.deactivation_time_delay));
    for (number, tek) in (1..).zip(&group.teks) {
        let name = |option: &str| format!("tek {number} {option}");
        add(name("policy"), selectors_text(&tek.selectors));
        add(name("encryption"), tek.encryption.name.into());
        add(name("integrity"), tek.integrity.map_or("none", |one| one.name).into());
        add(name("lifetime"), duration_text(tek.lifetime));
    }
    if has_counter_mode(group) {
        add("sender-id-bits".into(), group.sender_id_bits.to_string());
    }
    if let Some(rekey) = &group.rekey {
        add("rekey.encryption".into(), rekey.encryption.name.into());
        add("rekey.signature-hash".into(), rekey.signature_hash.name().into());
        add("rekey.lifetime".into(), duration_text(rekey.lifetime));
        add("rekey.retransmission-period".into(), duration_text(rekey.delivery.period));
        add("rekey.retransmissions".into(), rekey.delivery.repetitions.to_string());
        add("rekey.acknowledgements".into(), rekey.acknowledgements.to_string());
    }
    all
}

/// Where the two differ, in the order of names.
pub(super) fn differences(root: &[Setting], sub_server: &[Setting]) -> Vec<Difference> {
    fn by_name(all: &[Setting]) -> BTreeMap<&str, &str> {
        all.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect()
    }
    let (root, sub_server) = (by_name(root), by_name(sub_server));
    let names = root.keys().chain(sub_server.keys().filter(|name| !root.contains_key(*name)));
    let value =
        |all: &BTreeMap<&str, &str>, name: &str| (*all.get(name).unwrap_or(&"not set")).to_owned();
    let both = names.map(|name| Difference {
        name: (*name).to_owned(),
        root: value(&root, name),
        sub_server: value(&sub_server, name),
    });
    both.filter(|one| one.root != one.sub_server).collect()
}

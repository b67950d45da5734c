//! A group's configuration as text, option by option, so that two servers can compare theirs.

use std::collections::BTreeMap;
use std::time::Duration;

use ::cluster::message::{Difference, Setting};
use daemon::configuration::{Name, duration_text};
use gdoi::push::DeliveryPolicy;

use crate::config::difference::integrity_text;
use crate::config::{Group, Rekey, TekTemplate, names};
use crate::group::division::has_counter_mode;
use crate::text::selectors_text;

/// What all servers of a group have to have alike.
pub(super) fn of(group: &Group) -> Vec<Setting> {
    // What is not listed is each server's own, or the root's alone.
    let Group {
        name,
        id: _,
        teks,
        gap,
        sender_id_bits,
        rekey,
        interoperability: _,
        member_threshold,
        cluster: _,
    } = group;
    let mut all = Vec::new();
    let mut add = |name: String, value: String| all.push(Setting { name, value });
    let duration = |one: Option<Duration>| one.map_or_else(|| "none".into(), duration_text);
    add(names::group_name().to_string(), name.clone());
    let threshold = member_threshold.map_or_else(|| "none".into(), |most| most.to_string());
    add(names::member_threshold().to_string(), threshold);
    add(names::gap_activation().to_string(), duration(gap.activation_time_delay));
    add(names::gap_deactivation().to_string(), duration(gap.deactivation_time_delay));
    for (number, tek) in (1..).zip(teks) {
        // How packets are encapsulated, and who sends, is the root's alone.
        let TekTemplate {
            selectors,
            encryption,
            integrity: _,
            direction: _,
            mode: _,
            address_preservation: _,
            lifetime,
        } = tek;
        let name = |option: Name| format!("tek {number} {}", option.key());
        add(name(names::tek_policy()), selectors_text(selectors));
        add(name(names::tek_encryption()), encryption.name.into());
        add(name(names::tek_integrity()), integrity_text(tek).into());
        add(name(names::tek_lifetime()), duration_text(*lifetime));
    }
    if has_counter_mode(group) {
        add(names::sender_id_bits().to_string(), sender_id_bits.to_string());
    }
    if let Some(rekey) = rekey {
        // The rest is the root's alone, like the signing key, each server's own, like the path of
        // datagrams, or fixed in a cluster, like the transport.
        let Rekey {
            transport: _,
            path: _,
            encryption,
            signing_key: _,
            signing_key_file: _,
            signature_hash,
            lifetime,
            delivery: DeliveryPolicy { period, repetitions, acknowledgement_wait: _ },
            acknowledgements,
            drop_unresponsive_members: _,
            lkh: _,
            legacy: _,
        } = rekey;
        add(names::rekey_encryption().to_string(), encryption.name.into());
        add(names::rekey_signature_hash().to_string(), signature_hash.name().into());
        add(names::rekey_lifetime().to_string(), duration_text(*lifetime));
        add(names::rekey_period().to_string(), duration_text(*period));
        add(names::rekey_repetitions().to_string(), repetitions.to_string());
        add(names::rekey_acknowledgements().to_string(), acknowledgements.to_string());
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

//! What the machine must have: a kernel with ESP and nf_tables, and settings that forward.

use std::collections::BTreeSet;
use std::fs;

use anyhow::bail;
use xfrm::prerequisites::{Problem, check_prerequisites, check_settings};

use crate::config::{Config, Group, on_side};

/// Has a folder for each interface.
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";

/// Looks at the machine. Returns what is missing, each with its remedy, but for settings: see
/// [`wrong_settings`].
///
/// # Errors
/// Starting makes no sense; all reasons, each with its remedy.
pub async fn check(config: &Config) -> anyhow::Result<Vec<Problem>> {
    let (fatal, missing): (Vec<Problem>, Vec<Problem>) =
        check_prerequisites(&interfaces(config), &lans(config))
            .await
            .into_iter()
            .partition(Problem::is_fatal);
    if !fatal.is_empty() {
        let lines: Vec<String> = fatal.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    }
    let settings = wrong_settings(config);
    Ok(missing.into_iter().filter(|problem| !settings.contains(problem)).collect())
}

/// Settings of the machine that are wrong at the moment; they can change at any time.
pub fn wrong_settings(config: &Config) -> Vec<Problem> {
    check_settings(&interfaces(config), &lans(config))
}

/// Interfaces that groups name, and that exist now where a pattern names them.
fn interfaces(config: &Config) -> Vec<String> {
    let existing = fs::read_dir(SETTINGS).into_iter().flatten().flatten();
    let existing: Vec<String> =
        existing.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    named(&config.groups, &existing).into_iter().map(str::to_owned).collect()
}

/// Those of them that are LANs, whose `disable_policy` is ours.
fn lans(config: &Config) -> Vec<String> {
    let interfaces = interfaces(config).into_iter();
    interfaces.filter(|name| config.groups.iter().any(|group| is_lan(group, name))).collect()
}

fn named<'n>(groups: &'n [Group], existing: &'n [String]) -> BTreeSet<&'n str> {
    let mut named = BTreeSet::new();
    for name in groups.iter().flat_map(Group::interfaces) {
        if name.ends_with('*') {
            let matches = |one: &&String| on_side(&[name.to_owned()], one);
            named.extend(existing.iter().filter(matches).map(String::as_str));
        } else {
            named.insert(name);
        }
    }
    // XFRM does nothing there, as the kernel sets it up.
    named.remove("lo");
    named
}

/// As [`Group::lan_interfaces`] takes it.
fn is_lan(group: &Group, name: &str) -> bool {
    group.lan.iter().any(|lan| lan == name)
        || (on_side(&group.lan, name) && !on_side(&group.wan, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::{Machine, parse};
    use ike::crypto::Secret;

    #[test]
    fn patterns_and_the_loopback_interface_count_as_they_do_elsewhere() {
        let text = "[[group]]\nname = \"branches\"\nid = 1111\nlocal-address = \"lo\"\n\
            lan = [\"lan\", \"br-*\", \"eth*\"]\nwan = [\"eth0\"]\n\
            protected = [\"172.16.0.0/12\"]\npre-shared-key-file = \"/key\"\n\
            [[group.server]]\naddress = \"10.0.9.1\"\n";
        let secret = |_: &_| Ok(Secret::new(vec![7; 32]));
        let machine = Machine { secret: &secret, state_key: &secret, ..Machine::unseen() };
        let groups = parse("f", text, &machine).unwrap().value.groups;
        let existing = ["all", "lo", "lan", "br-1", "eth0", "eth1", "other"].map(str::to_owned);
        let named = named(&groups, &existing);
        assert_eq!(named, BTreeSet::from(["lan", "br-1", "eth0", "eth1"]));
        let lans: Vec<&str> = named.into_iter().filter(|name| is_lan(&groups[0], name)).collect();
        assert_eq!(lans, ["br-1", "eth1", "lan"]);
    }
}

//! Which interfaces are LANs, and which WANs.

use std::collections::BTreeMap;

use daemon::configuration::Located;

use super::{Check, file};
use crate::config::Group;
use crate::config::placement::misplaced;

impl Check<'_> {
    /// An interface is on one side, in all groups: the guards know it by name alone.
    pub(super) fn zones(&self, file: &file::File) {
        let mut sides: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
        for group in &file.groups {
            for (side, names) in [("lan", &group.lan), ("wan", &group.wan)] {
                let mut own = Vec::new();
                for name in names {
                    let line = self.report.line(name.place.start);
                    if own.contains(&name.as_str()) {
                        self.error(
                            &name.place,
                            format!("group.{side}: {} is named twice", name.value),
                            "name it once",
                        );
                        continue;
                    }
                    own.push(name.as_str());
                    let (first, first_line) = *sides.entry(name.as_str()).or_insert((side, line));
                    if first != side {
                        let message = format!(
                            "group.{side}: {} is in {first} as well, line {first_line}",
                            name.value
                        );
                        self.error(
                            &name.place,
                            message,
                            "an interface is on one side: remove it from the other list",
                        );
                    }
                    self.interface(name, &format!("group.{side}"));
                }
            }
        }
        self.patterns_across_groups(file);
    }

    /// Groups share one set of guards: what a pattern makes a LAN in one of them is trusted in all.
    fn patterns_across_groups(&self, file: &file::File) {
        let has = |names: &[Located<String>], name: &str| names.iter().any(|one| one.value == name);
        for (number, group) in file.groups.iter().enumerate() {
            for (other_number, other) in file.groups.iter().enumerate() {
                if number == other_number {
                    continue;
                }
                for lan in &group.lan {
                    let both = other.wan.iter().find(|wan| {
                        overlap(&lan.value, &wan.value)
                            && !has(&group.wan, &wan.value)
                            && !has(&other.lan, &lan.value)
                    });
                    let Some(wan) = both else { continue };
                    let line = self.report.line(wan.place.start);
                    let message = format!(
                        "group.lan: {} covers interfaces that {} in line {line} makes a WAN of another group",
                        lan.value, wan.value
                    );
                    let remedy = format!(
                        "name {} in this group's wan as well, or narrow the pattern",
                        wan.value
                    );
                    self.error(&lan.place, message, remedy);
                }
            }
        }
    }

    pub(super) fn placement(&self, groups: &[Group]) {
        let interfaces = self.machine.interfaces.into_iter();
        for one in interfaces.flat_map(|interfaces| misplaced(groups, interfaces)) {
            let text = one.to_string();
            let (message, remedy) = text.rsplit_once([':', ';']).unwrap_or((&text, ""));
            self.report.warning(None, message.to_owned(), remedy.trim().to_owned());
        }
    }

    pub(super) fn closed_by_guards_alone(&self, groups: &[Group]) {
        let protected = groups.iter().map(|group| group.protected.as_slice());
        let alone = policies::closed_by_guards_alone(protected);
        for (group, _) in groups.iter().zip(alone).filter(|(_, alone)| *alone) {
            let message = format!(
                "group {}: the nf_tables guards alone close its {} protected prefixes where no line \
                 of the group covers them: more than {} pairs get no XFRM policies",
                group.name,
                group.protected.len(),
                policies::BLOCKED_PAIRS
            );
            let remedy = "write fewer and wider prefixes, or see SECURITY.md for what that changes";
            self.report.warning(None, message, remedy);
        }
    }

    pub(super) fn interface(&self, name: &Located<String>, key: &str) {
        let Some(interfaces) = self.machine.interfaces else { return };
        if interfaces.contains_key(name.as_str()) || name.ends_with('*') {
            return;
        }
        let known: Vec<&str> =
            interfaces.keys().map(String::as_str).filter(|name| *name != "lo").take(12).collect();
        let message = format!("{key}: there is no interface \"{}\"", name.value);
        let remedy = if known.is_empty() {
            "create it, or correct the name".to_owned()
        } else {
            format!("create it, or correct the name: there are {}", known.join(", "))
        };
        // It may come later, and what it is needed for waits; the group is blocked until then.
        self.report.warning(Some(name.place.clone()), message, remedy);
    }
}

/// Whether two different entries, of which one is a pattern at least, can mean one interface.
fn overlap(one: &str, other: &str) -> bool {
    match (one.strip_suffix('*'), other.strip_suffix('*')) {
        (Some(one), Some(other)) => one.starts_with(other) || other.starts_with(one),
        (Some(pattern), None) => other.starts_with(pattern),
        (None, Some(pattern)) => one.starts_with(pattern),
        (None, None) => false,
    }
}

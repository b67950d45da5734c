//! Which packets are the group's: two look-ups for all groups together, then a chain that tells the
//! groups apart.

use super::Content;
use crate::nft::guarded::{group_name, protected_name, selectors_name};
use crate::nft::rule::Rule;
use crate::nft::table::Chain;

/// The chain between a guard and `target`, where the groups are told apart.
fn of_group(target: &str) -> String {
    format!("{target}_of_group")
}

#[derive(Clone, Copy)]
pub(super) enum Of {
    Packet,
    /// The packet that an ICMP error quotes.
    Quote,
}

impl Content<'_> {
    /// Rules that send the group's packets on to `target`. Everybody else's packets go by.
    pub(super) fn group_packets(
        &self,
        table_family: u8,
        family: u8,
        of: Of,
        target: &str,
    ) -> Vec<Rule> {
        let Some(guarded) = self.guarded.get(&family) else { return Vec::new() };
        let rule = || Rule::new(table_family, family, "");
        let target_of_any =
            if guarded.groups.is_empty() { target.to_owned() } else { of_group(target) };
        let any = (!guarded.any.is_empty()).then(|| match (of, guarded.only) {
            (Of::Packet, Some(net)) => rule().between(&net, &net).jumps(target),
            _ => between_both(rule(), of, &protected_name(family)).jumps(&target_of_any),
        });
        let selectors = (0..guarded.selectors.len()).map(|number| {
            let set = selectors_name(family, number);
            let rule = match of {
                Of::Packet => rule().pair_in(&set),
                Of::Quote => rule().quoted_pair_in(&set),
            };
            rule.jumps(target)
        });
        any.into_iter().chain(selectors).collect()
    }

    /// Tells the groups apart for `target`, if there are several.
    pub(super) fn group_chain(
        &self,
        table_family: u8,
        families: &[u8],
        of: Of,
        target: &str,
    ) -> Option<Chain> {
        let rules: Vec<Rule> = families
            .iter()
            .flat_map(|family| {
                let groups = self.guarded.get(family).map_or(0, |guarded| guarded.groups.len());
                (0..groups).map(|number| {
                    let set = group_name(*family, number);
                    let rule = Rule::new(table_family, *family, "");
                    between_both(rule, of, &set).jumps(target)
                })
            })
            .collect();
        (!rules.is_empty()).then(|| Chain { name: of_group(target), hook: None, rules })
    }
}

/// Source and destination in the same set of prefixes.
fn between_both(rule: Rule, of: Of, set: &str) -> Rule {
    match of {
        Of::Packet => rule.source_in(set).destination_in(set),
        Of::Quote => rule.quoted_source_in(set).quoted_destination_in(set),
    }
}

//! What the guards let pass in clear.

use std::collections::BTreeSet;

use super::rule::{Rule, family};
use super::table::Chain;
use super::{IP, NETDEV};
use crate::model::Selector;

/// Comment of the rules, and the chain of what passes both ways.
pub(crate) const EXCLUDED: &str = "excluded";
/// The chain of what only arrives.
pub(crate) const EXCLUDED_ARRIVING: &str = "excluded_arriving";

/// A chain that accepts these packets, if there are any of those families.
pub(crate) fn excluded(
    name: &str,
    selectors: &BTreeSet<Selector>,
    table_family: u8,
    families: &[u8],
) -> Option<Chain> {
    let excluded = selectors.iter().filter(|selector| families.contains(&family(&selector.source)));
    let rules = excluded.flat_map(|selector| {
        let wanted = family(&selector.source);
        let rule = || Rule::new(table_family, wanted, EXCLUDED);
        // The network device sees fragments; behind it they are put together, and their ports
        // are looked at.
        let in_pieces = table_family == NETDEV && wanted == IP && selector.has_ports();
        let later =
            in_pieces.then(|| rule().selected_without_ports(selector).later_fragment().accepted());
        [rule().selected(selector).accepted()].into_iter().chain(later)
    });
    let rules: Vec<Rule> = rules.collect();
    (!rules.is_empty()).then(|| Chain { name: name.to_owned(), hook: None, rules })
}

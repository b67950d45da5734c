//! Guards of tunnels. What a tunnel carries is told by its networks alone: it never passes in clear,
//! whatever the interface.

use super::{Content, LOOPBACK};
use crate::model::Selector;
use crate::nft::guarded::{TUNNELS, TUNNELS_BACK, pairs_name};
use crate::nft::rule::{ESP, Rule, family};
use crate::nft::table::Chain;
use crate::nft::{DROP, IN_CLEAR, IP, NETDEV};

const LEAVING: &str = "tunnel_leaving";
const ARRIVING: &str = "tunnel_arriving";
const QUOTED: &str = "tunnel_quoted";

impl Content<'_> {
    fn tunnel_sets(&self, table_family: u8, family: u8, back: bool) -> Vec<(Rule, String)> {
        let Some(guarded) = self.guarded.get(&family) else { return Vec::new() };
        let (kind, sets) = match back {
            false => (TUNNELS, &guarded.tunnels),
            true => (TUNNELS_BACK, &guarded.tunnels_back),
        };
        let rule = || Rule::new(table_family, family, "");
        (0..sets.len()).map(|number| (rule(), pairs_name(kind, family, number))).collect()
    }

    /// What tunnels are to carry and does not go into an SA yet.
    pub(super) fn sent_by_tunnels(&self, table_family: u8, family: u8) -> Vec<Rule> {
        let sets = self.tunnel_sets(table_family, family, false).into_iter();
        sets.map(|(rule, set)| rule.pair_in(&set).jumps(LEAVING)).collect()
    }

    /// What tunnels are to bring.
    pub(super) fn brought_by_tunnels(&self, table_family: u8, family: u8) -> Vec<Rule> {
        let sets = self.tunnel_sets(table_family, family, true).into_iter();
        sets.map(|(rule, set)| rule.pair_in(&set).jumps(ARRIVING)).collect()
    }

    /// ICMP errors about what a tunnel has brought, which go back to its other end.
    pub(super) fn quoted_of_tunnels(&self) -> Vec<Rule> {
        let sets = self.tunnel_sets(IP, IP, true).into_iter();
        sets.map(|(rule, set)| rule.quoted_pair_in(&set).jumps(QUOTED)).collect()
    }

    /// The chains that those jump to.
    pub(super) fn tunnel_chains(&self, table_family: u8, families: &[u8]) -> Vec<Chain> {
        if self.preservation.tunnels.is_empty() {
            return Vec::new();
        }
        let rule = |comment: &str| Rule::new(table_family, table_family, comment);
        let ends = || {
            let ends = self.preservation.tunnel_ends.iter();
            let ends = ends.filter(|one| families.contains(&family(&one.source)));
            let own =
                |one: &Selector| Rule::new(table_family, family(&one.source), "").selected(one);
            ends.map(move |one| own(one).accepted())
        };
        let esp = || rule("").protocol(ESP).accepted();
        let dropped =
            |what: &str| rule(&format!("{DROP}{what} a tunnel{IN_CLEAR}")).counted().dropped();
        let (mut leaving, mut arriving) = (Vec::new(), Vec::new());
        if table_family == NETDEV {
            arriving.push(rule("").decapsulated(true).accepted());
        } else {
            leaving.push(rule("").leaves_by(LOOPBACK).accepted());
            leaving.push(rule("").goes_into_ours(self.ownership).accepted());
            arriving.push(rule("").arrives_by(LOOPBACK).accepted());
            arriving.extend(
                (0..2).map(|number| rule("").came_out_of_ours(number, self.ownership).accepted()),
            );
        }
        leaving.extend([esp()].into_iter().chain(ends()).chain([dropped("leaving outside of")]));
        arriving.extend([esp()].into_iter().chain(ends()).chain([dropped("arriving outside of")]));
        let plain = |name: &str, rules| Chain { name: name.to_owned(), hook: None, rules };
        let mut chains = vec![plain(LEAVING, leaving), plain(ARRIVING, arriving)];
        if table_family == IP {
            let ciphertext = rule("ciphertext").quoted_protocol(ESP).accepted();
            let into = rule("").goes_into_ours(self.ownership).accepted();
            chains.push(plain(QUOTED, vec![into, ciphertext, dropped("quoted outside of")]));
        }
        chains
    }
}

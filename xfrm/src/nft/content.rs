//! What the tables say.
//!
//! ```text
//! netdev guard_WAN ingress -500 clear packets between group prefixes: dropped before any flowtable
//!         egress_WAN  egress first            the same on their way out: raw sockets and flowtables pass no other hook
//! ip      defragment  prerouting              only with port selectors
//!         restore     prerouting raw          received ESP of the group: destination := LOCAL; clear packets: dropped
//!         delivered_  forward, input last-6   clear packets that address translation has made the group's: dropped
//!         before_nat  postrouting 99          clear packets between group prefixes: dropped; the others are marked
//!         behind_nat  postrouting 101         marked packets that translation has taken out of their SA: dropped
//!         stash       postrouting last-7      mark, priority := inner addresses
//!         preserve    output first, route     outer addresses := mark, priority
//!         undelivered output first+1          what still goes to the placeholder: dropped
//!         ask_again   output, route           ICMP errors of the router: asked again for their policy
//! ip6     arrivals, delivered_, before_nat, behind_nat    guards only
//! ```
//!
//! Every guard first asks two interval sets whether the addresses are the group's, so that other
//! traffic pays for one look-up a hook, however many prefixes and selectors there are.
//!
//! Source address translation may hide the group's addresses and takes a packet out of its SA: XFRM
//! looks for a policy again, under the new source. All its chains, of whatever priority, run inside
//! the one hook at 100. What is remembered is therefore written at 99 and read at 101: the priority
//! of a packet is everybody's, and a class set in between elsewhere would destroy it.
//!
//! The guard at 99 also stops ICMP errors that quote the group's packets, for the router sends
//! those from its own address, which no policy of the group covers.
//!
//! The guards are there twice. The tables called `gdoi-guard` belong to the process's socket, so
//! `nft flush ruleset` leaves them. When the process ends they stay where the kernel can keep them
//! (Linux 6.9), and the next process adopts them; elsewhere they go then. The tables called `gdoi`
//! stay in any case. A connection that was translated before the flush goes on being translated,
//! so the second ones, too, look behind the translation.
//!
//! After `ip xfrm policy flush` by somebody else, and until the repair, these guards alone keep the
//! group's packets from leaving and arriving in clear. A default block of XFRM is no way to help:
//! it would hit everybody's traffic.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Selector;
use crate::nft::addresses::{preserved, restored};
use crate::nft::excluded::{EXCLUDED, EXCLUDED_ARRIVING, excluded};
use crate::nft::guarded::{Guarded, group_name, protected_name, selectors_name};
use crate::nft::rule::{ESP, Rule, VLAN_TYPES, family};
use crate::nft::table::{Chain, Hook, OWNED, Set, Table};
use crate::nft::{
    DROP, FOREIGN_POLICY, IN_CLEAR, IP, IP6, NETDEV, UNKNOWN_ESP, chain_name, egress_name,
};
use crate::nft::{Preservation, SegmentSize};
use crate::ownership::Ownership;

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;

const INGRESS_FIRST: i32 = -500;
const RAW: i32 = -300;
/// After whatever a user's tables do at raw.
const AFTER_RAW: i32 = -290;
/// On both sides of source address translation.
const BEFORE_NAT: i32 = 99;
const BEHIND_NAT: i32 = 101;
/// Before every chain that a user may have: mark and priority are the inner addresses there.
const FIRST: i32 = i32::MIN + 8;
/// Behind everything a user may set marks with, before the last hooks of the kernel itself.
const LAST: i32 = i32::MAX - 7;

const LOOPBACK: &str = "lo";
const ARRIVING: &str = "arriving";
const LEAVING: &str = "leaving";
const QUOTED: &str = "quoted";
const UNKNOWN: &str = "unknown";
const SENT: &str = "sent";
const DESTINED: &str = "destined";
const TRANSLATED: &str = "translated";
const RECEIVED: &str = "received";
const ERRORS: &str = "errors";

/// The tables that stay when the process ends.
pub(crate) fn main_tables(
    preservation: &Preservation,
    interfaces: &BTreeMap<String, u32>,
    ownership: &Ownership,
) -> Vec<Table> {
    let content = Content::new(preservation, ownership, ownership.table.clone(), 0);
    let mut tables = vec![content.netdev(interfaces), content.ip()];
    tables.extend(content.has(IP6).then(|| content.guard(IP6)));
    tables
}

/// The guards that nobody else can flush while the process runs. `flags` are those of an owner.
pub(crate) fn guard_tables(
    preservation: &Preservation,
    ownership: &Ownership,
    flags: u32,
) -> Vec<Table> {
    let content = Content::new(preservation, ownership, ownership.guard_table(), flags);
    let mut tables = vec![content.guard(IP)];
    tables.extend(content.has(IP6).then(|| content.guard(IP6)));
    tables
}

/// The chain between a guard and `target`, where the groups are told apart.
fn of_group(target: &str) -> String {
    format!("{target}_of_group")
}

#[derive(Clone, Copy)]
enum Of {
    Packet,
    /// The packet that an ICMP error quotes.
    Quote,
}

struct Content<'a> {
    preservation: &'a Preservation,
    ownership: &'a Ownership,
    guarded: BTreeMap<u8, Guarded>,
    name: String,
    flags: u32,
}

impl<'a> Content<'a> {
    fn new(
        preservation: &'a Preservation,
        ownership: &'a Ownership,
        name: String,
        flags: u32,
    ) -> Self {
        let guarded = [IP, IP6].map(|family| (family, Guarded::of(preservation, family)));
        Self { preservation, ownership, guarded: guarded.into(), name, flags }
    }

    /// Whether anything of this family is guarded.
    fn has(&self, family: u8) -> bool {
        self.guarded.get(&family).is_some_and(|guarded| !guarded.is_empty())
            || self.guards_everything(family)
    }

    /// A selector from everything to everything is about IPv4, as all selectors are.
    fn guards_everything(&self, family: u8) -> bool {
        family == IP && self.preservation.guard_everything
    }

    fn table(&self, family: u8, sets: Vec<Set>, chains: Vec<Chain>) -> Table {
        let comment = if self.flags & OWNED == 0 {
            "made by gdoi-agent: changes are undone"
        } else {
            "made by gdoi-agent: guards that outlast a flush"
        };
        Table { family, name: self.name.clone(), flags: self.flags, comment, sets, chains }
    }

    fn sets(&self, family: u8) -> impl Iterator<Item = Set> {
        self.guarded.get(&family).into_iter().flat_map(move |guarded| guarded.sets(family))
    }

    /// Rules that send the group's packets on to `target`. Everybody else's packets go by.
    fn group_packets(&self, table_family: u8, family: u8, of: Of, target: &str) -> Vec<Rule> {
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
    fn group_chain(
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

    fn netdev(&self, interfaces: &BTreeMap<String, u32>) -> Table {
        let families: Vec<u8> = [IP, IP6].into_iter().filter(|family| self.has(*family)).collect();
        let present = self.preservation.wan.iter().filter(|name| interfaces.contains_key(*name));
        let guard = |name: String, number, priority, device: &String, target: &str| Chain {
            name,
            hook: Some(Hook { kind: "filter", number, priority, device: Some(device.clone()) }),
            rules: families
                .iter()
                .flat_map(|family| self.group_packets(NETDEV, *family, Of::Packet, target))
                .collect(),
        };
        let guards = present.flat_map(|name| {
            [
                guard(chain_name(name), INGRESS, INGRESS_FIRST, name, ARRIVING),
                guard(egress_name(name), EGRESS, FIRST, name, SENT),
            ]
        });
        let rule = || Rule::new(NETDEV, NETDEV, "");
        let own = |comment: String, arriving: bool| {
            let decapsulated = arriving.then(|| rule().decapsulated(true).accepted());
            let first = in_vlans().chain(decapsulated).chain([rule().protocol(ESP).accepted()]);
            let excluded = self.jumps_to_excluded(NETDEV, &families, arriving);
            let dropped = Rule::new(NETDEV, NETDEV, &comment).counted().dropped();
            first.chain(excluded).chain([dropped]).collect::<Vec<Rule>>()
        };
        let chain = |name: &str, rules| Chain { name: name.to_owned(), hook: None, rules };
        let mut chains = vec![
            chain(ARRIVING, own(format!("{DROP}{ARRIVING}{IN_CLEAR}"), true)),
            chain(SENT, own(format!("{DROP}sent past the router{IN_CLEAR}"), false)),
        ];
        chains.extend(self.excluded_chains(NETDEV, &families));
        for target in [ARRIVING, SENT] {
            chains.extend(self.group_chain(NETDEV, &families, Of::Packet, target));
        }
        chains.extend(guards);
        let sets = families.iter().flat_map(|family| self.sets(*family)).collect();
        self.table(NETDEV, sets, chains)
    }

    fn ip(&self) -> Table {
        let rule = |comment: &str| Rule::new(IP, IP, comment);
        let groups = &self.preservation.groups;
        let mut sets: Vec<Set> = self.sets(IP).collect();
        let mut received = self.trusted_arrivals(IP);
        let (mut destined, mut preserve, mut undelivered) = (Vec::new(), Vec::new(), Vec::new());
        for (placeholder, group) in groups {
            let (own, more) = restored(*placeholder, group);
            received.extend(own);
            sets.extend(more);
            for reqid in &group.outbound_reqids {
                let clamp = || rule("segment size of TCP").goes_into(*reqid).opens_connection();
                match group.segment_size {
                    SegmentSize::Unchanged => {}
                    SegmentSize::Path => destined.push(clamp().clamp_to_path()),
                    SegmentSize::AtMost(octets) => destined.push(clamp().clamp_to(octets)),
                }
            }
            preserve.extend(preserved(*placeholder, group));
            let stray = rule(&format!("{DROP}addressed to the placeholder"));
            undelivered.push(stray.goes_to(*placeholder).counted().dropped());
        }
        received.extend(self.group_packets(IP, IP, Of::Packet, UNKNOWN));
        received.push(rule("").accepted());
        let mut restore = vec![rule("").protocol(ESP).jumps(RECEIVED)];
        restore.extend(self.group_packets(IP, IP, Of::Packet, ARRIVING));
        let mut unknown = self.jumps_to_excluded(IP, &[IP], true);
        unknown.push(rule(UNKNOWN_ESP).counted().dropped());
        let plain = |name: &str, rules| Chain { name: name.to_owned(), hook: None, rules };
        let mut chains = self.shared(IP, destined);
        chains.push(plain(UNKNOWN, unknown));
        chains.extend(self.group_chain(IP, &[IP], Of::Packet, UNKNOWN));
        chains.push(plain(RECEIVED, received));
        if self.preservation.defragment {
            let reason = "fragments are put together before policies ask for their ports";
            let rules = vec![rule(reason).tracked_as_new()];
            chains.push(chain("defragment", "filter", PREROUTING, AFTER_RAW, rules));
        }
        let inner = rule("inner addresses").goes_into_ours(self.ownership).stash().counted();
        chains.extend([
            chain("restore", "filter", PREROUTING, RAW, restore),
            chain("stash", "filter", POSTROUTING, LAST, vec![inner]),
            chain("preserve", "route", OUTPUT, FIRST, preserve),
            chain("undelivered", "filter", OUTPUT, FIRST + 1, undelivered),
        ]);
        chains.extend(self.own_errors());
        chains.extend(self.delivered(IP));
        chains.extend(self.postrouting(IP));
        self.table(IP, sets, chains)
    }

    fn guard(&self, family: u8) -> Table {
        let arrivals = self.group_packets(family, family, Of::Packet, ARRIVING);
        let mut chains = self.shared(family, Vec::new());
        chains.push(chain("arrivals", "filter", PREROUTING, AFTER_RAW, arrivals));
        chains.extend(self.delivered(family));
        chains.extend(self.postrouting(family));
        self.table(family, self.sets(family).collect(), chains)
    }

    /// The chains that the hooked ones jump to.
    fn shared(&self, family: u8, mut destined: Vec<Rule>) -> Vec<Chain> {
        let plain = |name: &str, rules| Chain { name: name.to_owned(), hook: None, rules };
        let rule = |comment: &str| Rule::new(family, family, comment);
        let dropped = |name: &str| rule(&format!("{DROP}{name}{IN_CLEAR}")).counted().dropped();

        let mut arriving = self.trusted_arrivals(family);
        arriving.push(rule("").protocol(ESP).accepted());
        arriving.extend(self.jumps_to_excluded(family, &[family], true));
        arriving.push(rule(FOREIGN_POLICY).decapsulated(true).counted().dropped());
        arriving.push(dropped(ARRIVING));

        let mut leaving = self.trusted_exits(family);
        leaving.push(rule("").protocol(ESP).accepted());
        leaving.extend(self.jumps_to_excluded(family, &[family], false));
        leaving.push(rule(FOREIGN_POLICY).leaves_in_some_sa().counted().dropped());
        leaving.push(dropped(LEAVING));

        let mut chains = Vec::new();
        chains.extend(self.excluded_chains(family, &[family]));
        chains.extend([plain(ARRIVING, arriving), plain(LEAVING, leaving)]);
        for target in [ARRIVING, LEAVING] {
            chains.extend(self.group_chain(family, &[family], Of::Packet, target));
        }
        if family == IP {
            destined.push(rule("goes into an SA").mark_destined().accepted());
            let still = rule("").goes_into_ours(self.ownership).accepted();
            chains.push(plain(DESTINED, destined));
            chains.push(plain(TRANSLATED, vec![still, dropped(TRANSLATED)]));
            chains.extend(self.quoted());
        }
        chains
    }

    /// Packets that need not be looked at: of the LANs, of the router itself, and those that came
    /// out of an SA of ours, or out of one inside of somebody else's.
    ///
    /// All other interfaces count as WAN, by name: a re-created one is guarded before anybody has
    /// noticed.
    fn trusted_arrivals(&self, family: u8) -> Vec<Rule> {
        let rule = || Rule::new(family, family, "");
        let ours = |number| rule().came_out_of_ours(number, self.ownership).accepted();
        let mut rules = vec![ours(0), ours(1), rule().arrives_by(LOOPBACK).accepted()];
        rules.extend(self.preservation.lan.iter().map(|name| rule().arrives_by(name).accepted()));
        rules
    }

    /// Packets that go to a LAN or into an SA of ours.
    fn trusted_exits(&self, family: u8) -> Vec<Rule> {
        let rule = || Rule::new(family, family, "");
        let mut rules = vec![rule().leaves_by(LOOPBACK).accepted()];
        rules.extend(self.preservation.lan.iter().map(|name| rule().leaves_by(name).accepted()));
        rules.push(rule().goes_into_ours(self.ownership).accepted());
        rules
    }

    /// Behind destination translation. The kernel undoes it before it asks the FWD or IN policy,
    /// which then does not see that the packet is the group's.
    fn delivered(&self, family: u8) -> [Chain; 2] {
        let packets = || self.group_packets(family, family, Of::Packet, ARRIVING);
        let mut forwarded = packets();
        if self.guards_everything(family) {
            let lans = self.preservation.lan.iter();
            let towards =
                |name: &String| Rule::new(family, family, "").leaves_by(name).jumps(ARRIVING);
            forwarded.extend(lans.map(towards));
        }
        [
            chain("delivered_forward", "filter", FORWARD, LAST + 1, forwarded),
            chain("delivered_input", "filter", INPUT, LAST + 1, packets()),
        ]
    }

    /// On both sides of source address translation.
    fn postrouting(&self, family: u8) -> [Chain; 2] {
        let rule = || Rule::new(family, family, "");
        let mut leaving = self.group_packets(family, family, Of::Packet, LEAVING);
        if self.guards_everything(family) {
            let lans = self.preservation.lan.iter();
            leaving.extend(lans.map(|name| rule().arrives_by(name).jumps(LEAVING)));
        }
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        if family == IP {
            before.push(rule().goes_into_ours(self.ownership).jumps(DESTINED));
            before.push(rule().icmp().jumps(ERRORS));
            behind.push(rule().destined().jumps(TRANSLATED));
        }
        before.extend(leaving.iter().cloned());
        // A translation into the group's own addresses, which is not worth a second look.
        if self.flags & OWNED == 0 {
            behind.extend(leaving);
        }
        [
            chain("before_nat", "filter", POSTROUTING, BEFORE_NAT, before),
            chain("behind_nat", "filter", POSTROUTING, BEHIND_NAT, behind),
        ]
    }

    /// ICMP errors that the router itself sends. The kernel asks for their policy before it says
    /// where they leave, so one that goes to a LAN gets an SA. A mark that changes makes it route
    /// and ask again, with the interface; the second change does so without the mark.
    fn own_errors(&self) -> [Chain; 2] {
        let rule = |comment: &str| Rule::new(IP, IP, comment).icmp();
        let first = [
            rule("").not_quoting().returned(),
            rule("asked again").goes_into_ours(self.ownership).mark_empty().mark_asked(),
        ];
        let second = [rule("").marked_asked().empty_mark()];
        [
            chain("ask_again", "route", OUTPUT, FIRST + 2, first.into()),
            chain("ask_unmarked", "route", OUTPUT, FIRST + 3, second.into()),
        ]
    }

    /// ICMP errors, by the packet that they quote.
    fn quoted(&self) -> Vec<Chain> {
        let plain = |name: &str, rules| Chain { name: name.to_owned(), hook: None, rules };
        let rule = |comment: &str| Rule::new(IP, IP, comment);
        let packets = self.group_packets(IP, IP, Of::Quote, QUOTED);
        let mut errors = self.trusted_exits(IP);
        // Returns to the guard where it is none of the group's, which looks at its own addresses.
        errors.push(rule("").not_quoting().returned());
        errors.extend(packets);
        let mut quoted = vec![rule("ciphertext").quoted_protocol(ESP).accepted()];
        // Of what arrived in clear the quote is no secret.
        let arriving = &self.preservation.exclude_arriving;
        let excluded = self.preservation.exclude.iter().chain(arriving);
        let excluded = excluded.filter(|selector| family(&selector.source) == IP);
        quoted.extend(excluded.map(|one| rule(EXCLUDED).quoted_selected(one).accepted()));
        quoted.push(rule(&format!("{DROP}{QUOTED}{IN_CLEAR}")).counted().dropped());
        let mut chains = vec![plain(QUOTED, quoted), plain(ERRORS, errors)];
        chains.extend(self.group_chain(IP, &[IP], Of::Quote, QUOTED));
        chains
    }

    /// The chains of what passes in clear, and what they hold.
    fn excludes(&self) -> [(&'static str, &'a BTreeSet<Selector>); 2] {
        let Preservation { exclude, exclude_arriving, .. } = self.preservation;
        [(EXCLUDED, exclude), (EXCLUDED_ARRIVING, exclude_arriving)]
    }

    fn jumps_to_excluded(&self, table_family: u8, families: &[u8], arriving: bool) -> Vec<Rule> {
        let holds = |selectors: &BTreeSet<Selector>| {
            selectors.iter().any(|selector| families.contains(&family(&selector.source)))
        };
        let chains = self.excludes().into_iter().take(if arriving { 2 } else { 1 });
        let chains = chains.filter(|(_, selectors)| holds(selectors));
        chains.map(|(name, _)| Rule::new(table_family, table_family, "").jumps(name)).collect()
    }

    fn excluded_chains(&self, table_family: u8, families: &[u8]) -> impl Iterator<Item = Chain> {
        let chains = self.excludes().into_iter();
        chains
            .filter_map(move |(name, selectors)| excluded(name, selectors, table_family, families))
    }
}

/// Source and destination in the same set of prefixes.
fn between_both(rule: Rule, of: Of, set: &str) -> Rule {
    match of {
        Of::Packet => rule.source_in(set).destination_in(set),
        Of::Quote => rule.quoted_source_in(set).quoted_destination_in(set),
    }
}

/// Frames of VLANs pass the guard of the interface that carries the VLAN, and then that of the
/// VLAN's own interface, which may be a LAN. Only a tag without a VLAN, which gives a priority,
/// belongs to the carrying interface itself.
fn in_vlans() -> impl Iterator<Item = Rule> {
    VLAN_TYPES
        .into_iter()
        .map(|kind| Rule::new(NETDEV, NETDEV, "another interface's").in_vlan(kind).accepted())
}

fn chain(name: &str, kind: &'static str, number: u32, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.to_owned(),
        hook: Some(Hook { kind, number, priority, device: None }),
        rules,
    }
}

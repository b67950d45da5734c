//! What the tables say.
//!
//! ```text
//! netdev  guard_WAN   ingress -500            clear packets between group prefixes: dropped before any flowtable
//! ip      defragment  prerouting              only with port selectors
//!         restore     prerouting raw          received ESP of the group: destination := LOCAL; clear packets: dropped
//!         stash       postrouting last-7      mark, priority := inner addresses
//!         preserve    output raw, route       outer addresses := mark, priority
//!         undelivered output raw+1            what still goes to the placeholder: dropped
//!         destined    forward, output last-7  remembers what XFRM will put into an SA
//!         last_guard  forward, output, postrouting last-6
//!                                             clear packets between group prefixes: dropped
//! ip6     restore, leaving                    guards only
//! ```
//!
//! The last guard stands before and behind source address translation, which may hide the group's
//! addresses and takes a packet out of its SA: XFRM looks for a policy again, under the new source.
//! It also stops ICMP errors that quote the group's packets, for the router sends those from its
//! own address, which no policy of the group covers.
//!
//! The guards are there twice. The tables called `gdoi-guard` belong to the process's socket, so
//! `nft flush ruleset` leaves them, and they go when the process ends; the tables called `gdoi`
//! stay then.
//!
//! After `ip xfrm policy flush` by somebody else, and until the repair, these guards alone keep the
//! group's packets from leaving and arriving in clear. A default block of XFRM is no way to help:
//! it would hit everybody's traffic.

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::nft::rule::{ESP, Field, QUOTING_TYPES, Rule, VLAN_TYPES, family};
use crate::nft::table::{Chain, Hook, OWNED, Set, Table};
use crate::nft::{DROP, IN_CLEAR, IP, IP6, NETDEV, UNKNOWN_ESP, chain_name};
use crate::nft::{DontFragment, Preservation, SegmentSize};
use crate::ownership::Ownership;

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const INGRESS: u32 = 0;

const INGRESS_FIRST: i32 = -500;
const RAW: i32 = -300;
/// After whatever a user's tables do at raw.
const AFTER_RAW: i32 = -290;
/// Behind everything a user may set marks with, before the last hooks of the kernel itself.
const LAST: i32 = i32::MAX - 7;

const LOOPBACK: &str = "lo";
const ARRIVING: &str = "arriving";
const LEAVING: &str = "leaving";
const QUOTED: &str = "quoted";
const UNKNOWN: &str = "unknown";

/// The tables that stay when the process ends.
pub(crate) fn main_tables(
    preservation: &Preservation,
    interfaces: &BTreeMap<String, u32>,
    ownership: &Ownership,
) -> Vec<Table> {
    let content = Content { preservation, name: ownership.table.clone(), flags: 0 };
    let mut tables = vec![content.netdev(interfaces), content.ip()];
    tables.extend(content.has(IP6).then(|| content.guard(IP6)));
    tables
}

/// The guards that nobody else can flush while the process runs.
pub(crate) fn guard_tables(
    preservation: &Preservation,
    interfaces: &BTreeMap<String, u32>,
    ownership: &Ownership,
) -> Vec<Table> {
    let content = Content { preservation, name: ownership.guard_table(), flags: OWNED };
    let mut tables = vec![content.netdev(interfaces), content.guard(IP)];
    tables.extend(content.has(IP6).then(|| content.guard(IP6)));
    tables
}

/// Name of the set of a group's inbound SPIs.
pub(crate) fn set_name(placeholder: Ipv4Addr) -> String {
    format!("inbound_{placeholder}")
}

struct Content<'a> {
    preservation: &'a Preservation,
    name: String,
    flags: u32,
}

impl Content<'_> {
    /// Whether anything of this family is guarded.
    fn has(&self, wanted: u8) -> bool {
        self.preservation.guard.iter().any(|(source, _)| family(source) == wanted)
    }

    fn table(&self, family: u8, sets: Vec<Set>, chains: Vec<Chain>) -> Table {
        let comment = if self.flags & OWNED == 0 {
            "made by gdoi-agent: changes are undone"
        } else {
            "made by gdoi-agent: guards that outlast a flush"
        };
        Table { family, name: self.name.clone(), flags: self.flags, comment, sets, chains }
    }

    fn netdev(&self, interfaces: &BTreeMap<String, u32>) -> Table {
        let families: Vec<u8> = [IP, IP6].into_iter().filter(|family| self.has(*family)).collect();
        let present = self.preservation.wan.iter().filter(|name| interfaces.contains_key(*name));
        let guards = present.map(|name| Chain {
            name: chain_name(name),
            hook: Some(Hook {
                kind: "filter",
                number: INGRESS,
                priority: INGRESS_FIRST,
                device: Some(name.clone()),
            }),
            rules: in_vlans()
                .chain(families.iter().flat_map(|family| {
                    [
                        Rule::new(NETDEV, *family, "").decapsulated(true).accepted(),
                        Rule::new(NETDEV, *family, "").protocol(ESP).accepted(),
                        Rule::new(NETDEV, *family, "").jumps(ARRIVING),
                    ]
                }))
                .collect(),
        });
        let drops = families.iter().flat_map(|family| self.drops(NETDEV, *family, ARRIVING));
        let arriving = Chain { name: ARRIVING.to_owned(), hook: None, rules: drops.collect() };
        self.table(NETDEV, Vec::new(), [arriving].into_iter().chain(guards).collect())
    }

    fn ip(&self) -> Table {
        let rule = |comment: &str| Rule::new(IP, IP, comment);
        let groups = &self.preservation.groups;
        let sets = groups.iter().map(|(placeholder, group)| Set {
            name: set_name(*placeholder),
            elements: group.inbound_spis.clone(),
        });
        let mut restore = self.trusted_arrivals(IP);
        let (mut stash, mut preserve, mut undelivered) = (Vec::new(), Vec::new(), Vec::new());
        let mut destined = Vec::new();
        for (placeholder, group) in groups {
            let own = rule("to XFRM").protocol(ESP).spi_in(&set_name(*placeholder));
            restore.push(own.set_destination(group.local).untracked().counted().accepted());
            for (source, destination) in ipv4(&group.fragments) {
                let fragment = rule("later fragments to XFRM").protocol(ESP).later_fragment();
                let fragment = fragment.between(source, destination).set_destination(group.local);
                restore.push(fragment.untracked().counted().accepted());
            }
            for reqid in &group.outbound_reqids {
                let clamp = || rule("segment size of TCP").goes_into(*reqid).opens_connection();
                match group.segment_size {
                    SegmentSize::Unchanged => {}
                    SegmentSize::Path => destined.push(clamp().clamp_to_path()),
                    SegmentSize::AtMost(octets) => destined.push(clamp().clamp_to(octets)),
                }
                destined.push(rule("goes into an SA").goes_into(*reqid).mark_destined());
                stash.push(rule("inner addresses").goes_into(*reqid).stash().counted());
            }
            let ours = |comment: &str| {
                let rule = rule(comment).protocol(ESP).field_is(Field::SOURCE, group.local);
                rule.field_is(Field::DESTINATION, *placeholder)
            };
            let no_addresses = format!("{DROP}no inner addresses for ESP");
            preserve.push(ours(&no_addresses).mark_empty().counted().dropped());
            let outside = ours("inner addresses outside").restore_stashed();
            let outside = match group.dont_fragment {
                DontFragment::Set => outside.set_dont_fragment(),
                // `flag nopmtudisc` on the state clears it; without the flag XFRM copies it.
                DontFragment::Clear | DontFragment::Copy => outside,
            };
            preserve.push(outside.untracked().counted());
            let stray = rule(&format!("{DROP}addressed to the placeholder"));
            undelivered.push(stray.field_is(Field::DESTINATION, *placeholder).counted().dropped());
        }
        // What is left and not decapsulated is ESP that we have no SA for, or came in clear.
        restore.push(rule("").protocol(ESP).jumps(UNKNOWN));
        restore.push(rule("").jumps(ARRIVING));
        let mut chains = vec![
            self.drop_chain(IP, UNKNOWN),
            self.drop_chain(IP, ARRIVING),
            self.drop_chain(IP, LEAVING),
            self.quoted(),
        ];
        if self.preservation.defragment {
            let reason = "fragments are put together before policies ask for their ports";
            let rules = vec![rule(reason).tracked_as_new()];
            chains.push(chain("defragment", "filter", PREROUTING, AFTER_RAW, rules));
        }
        chains.extend([
            chain("restore", "filter", PREROUTING, RAW, restore),
            chain("stash", "filter", POSTROUTING, LAST, stash),
            chain("preserve", "route", OUTPUT, RAW, preserve),
            chain("undelivered", "filter", OUTPUT, RAW + 1, undelivered),
            chain("destined_forward", "filter", FORWARD, LAST, destined.clone()),
            chain("destined_output", "filter", OUTPUT, LAST, destined),
        ]);
        chains.extend(self.leaving(IP));
        self.table(IP, sets.collect(), chains)
    }

    /// Guards alone.
    fn guard(&self, family: u8) -> Table {
        let mut rules = self.trusted_arrivals(family);
        rules.push(Rule::new(family, family, "").protocol(ESP).accepted());
        rules.push(Rule::new(family, family, "").jumps(ARRIVING));
        let mut chains = vec![
            self.drop_chain(family, ARRIVING),
            self.drop_chain(family, LEAVING),
            chain("arrivals", "filter", PREROUTING, AFTER_RAW, rules),
        ];
        chains.extend((family == IP).then(|| self.quoted()));
        chains.extend(self.leaving(family));
        self.table(family, Vec::new(), chains)
    }

    /// Packets that need not be looked at: of the LANs, of the router itself, and those that came
    /// out of an SA.
    ///
    /// All other interfaces count as WAN, by name: a re-created one is guarded before anybody has
    /// noticed.
    fn trusted_arrivals(&self, family: u8) -> Vec<Rule> {
        let rule = || Rule::new(family, family, "");
        let mut rules =
            vec![rule().decapsulated(true).accepted(), rule().arrives_by(LOOPBACK).accepted()];
        rules.extend(self.preservation.lan.iter().map(|name| rule().arrives_by(name).accepted()));
        rules
    }

    /// Before source address translation may have hidden the addresses, and behind it.
    fn leaving(&self, family: u8) -> [Chain; 3] {
        let rule = |comment: &str| Rule::new(family, family, comment);
        let mut rules = vec![rule("").leaves_by(LOOPBACK).accepted()];
        rules.extend(self.preservation.lan.iter().map(|name| rule("").leaves_by(name).accepted()));
        rules.push(rule("").protocol(ESP).accepted());
        if family == IP {
            let quoting = |kind: u8| rule("").icmp_error(kind).leaves_in_clear().jumps(QUOTED);
            rules.extend(QUOTING_TYPES.map(quoting));
        }
        let comment = format!("{DROP}translated{IN_CLEAR}");
        let translated =
            (family == IP).then(|| rule(&comment).leaves_in_clear().destined().counted().dropped());
        let found = rule("").leaves_in_clear().jumps(LEAVING);
        let before = rules.iter().cloned().chain([found.clone()]).collect::<Vec<Rule>>();
        let behind = rules.into_iter().chain(translated).chain([found]).collect();
        [
            chain("guard_forward", "filter", FORWARD, LAST + 1, before.clone()),
            chain("guard_output", "filter", OUTPUT, LAST + 1, before),
            chain("last_guard", "filter", POSTROUTING, LAST + 1, behind),
        ]
    }

    /// ICMP errors, by the packet that they quote.
    fn quoted(&self) -> Chain {
        let rule = |comment: &str| Rule::new(IP, IP, comment);
        let mut rules = vec![rule("ciphertext").quoted_protocol(ESP).accepted()];
        let excluded =
            self.preservation.exclude.iter().filter(|selector| family(&selector.source) == IP);
        rules
            .extend(excluded.map(|selector| rule("excluded").quoted_selected(selector).accepted()));
        let comment = format!("{DROP}{QUOTED}{IN_CLEAR}");
        rules.extend(ipv4(&self.preservation.guard).map(|(source, destination)| {
            rule(&comment).quoted_between(source, destination).counted().dropped()
        }));
        Chain { name: QUOTED.to_owned(), hook: None, rules }
    }

    fn drop_chain(&self, family: u8, name: &'static str) -> Chain {
        Chain { name: name.to_owned(), hook: None, rules: self.drops(family, family, name) }
    }

    /// Exclude rules first, then every pair of guarded prefixes.
    fn drops(&self, table_family: u8, wanted: u8, name: &str) -> Vec<Rule> {
        let excluded =
            self.preservation.exclude.iter().filter(|selector| family(&selector.source) == wanted);
        let excluded = excluded.flat_map(|selector| {
            let rule = || Rule::new(table_family, wanted, "excluded");
            // The network device sees fragments; behind it they are put together, and their ports
            // are looked at.
            let in_pieces = table_family == NETDEV && wanted == IP && selector.has_ports();
            let later = in_pieces
                .then(|| rule().selected_without_ports(selector).later_fragment().accepted());
            [rule().selected(selector).accepted()].into_iter().chain(later)
        });
        let pairs = widest(&self.preservation.guard);
        let pairs = pairs.into_iter().filter(|(source, _)| family(source) == wanted);
        let comment = match name {
            UNKNOWN => UNKNOWN_ESP.to_owned(),
            _ => format!("{DROP}{name}{IN_CLEAR}"),
        };
        let dropped = pairs.map(|(source, destination)| {
            Rule::new(table_family, wanted, &comment)
                .between(source, destination)
                .counted()
                .dropped()
        });
        excluded.chain(dropped).collect()
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

fn ipv4(pairs: &BTreeSet<(IpNet, IpNet)>) -> impl Iterator<Item = &(IpNet, IpNet)> {
    widest(pairs).into_iter().filter(|(source, _)| family(source) == IP)
}

/// Pairs that are not inside of another one.
fn widest(pairs: &BTreeSet<(IpNet, IpNet)>) -> Vec<&(IpNet, IpNet)> {
    let inside = |one: &(IpNet, IpNet), other: &(IpNet, IpNet)| {
        one != other && other.0.contains(&one.0) && other.1.contains(&one.1)
    };
    pairs.iter().filter(|one| !pairs.iter().any(|other| inside(one, other))).collect()
}

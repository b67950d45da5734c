//! What the tables say.
//!
//! ```text
//! netdev guard_WAN ingress -500 clear packets between group prefixes: dropped before any flowtable
//!         egress_WAN  egress first            the same on their way out: raw sockets and flowtables pass no other hook
//! ip      bandwidth_  prerouting, output -301 the rate of a gateway's ESP: what is over it is dropped
//!         defragment  prerouting              only with port selectors
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

mod bandwidth;
mod errors;
mod groups;
mod trusted;
mod tunnels;

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Reqid, Selector};
use crate::nft::addresses::{preserved, restored};
use crate::nft::excluded::{EXCLUDED, EXCLUDED_ARRIVING, excluded};
use crate::nft::guarded::Guarded;
use crate::nft::rule::{ESP, Rule, VLAN_TYPES, family};
use crate::nft::table::{Chain, Hook, OWNED, Set, Table};
use crate::nft::{
    DROP, FOREIGN_POLICY, IN_CLEAR, IP, IP6, NETDEV, UNKNOWN_ESP, chain_name, egress_name,
};
use crate::nft::{Preservation, SegmentSize};
use crate::ownership::Ownership;
use groups::Of;

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
const SOURCE_ROUTED: &str = "source_routed";
const DELIVERED: &str = "delivered";
const LEAVING: &str = "leaving";
const QUOTED: &str = "quoted";
const UNKNOWN: &str = "unknown";
const SENT: &str = "sent";
const DESTINED: &str = "destined";
const TRANSLATED: &str = "translated";
const RECEIVED: &str = "received";
const ERRORS: &str = "errors";
const STRAY: &str = "stray";
const PUT_ASIDE: &str = "put_aside";

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

    fn netdev(&self, interfaces: &BTreeMap<String, u32>) -> Table {
        let families: Vec<u8> = [IP, IP6].into_iter().filter(|family| self.has(*family)).collect();
        let present = self.preservation.wan.iter().filter(|name| interfaces.contains_key(*name));
        let guard = |name: String, number, priority, device: &String, target: &str| {
            let of_tunnels = |family: &u8| match target {
                SENT => self.sent_by_tunnels(NETDEV, *family),
                _ => self.brought_by_tunnels(NETDEV, *family),
            };
            let of_groups = |family: &u8| self.group_packets(NETDEV, *family, Of::Packet, target);
            let of_tunnels = families.iter().flat_map(of_tunnels);
            Chain {
                name,
                hook: Some(Hook { kind: "filter", number, priority, device: Some(device.clone()) }),
                rules: of_tunnels.chain(families.iter().flat_map(of_groups)).collect(),
            }
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
        chains.extend(self.tunnel_chains(NETDEV, &families));
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
        restore.extend(self.brought_by_tunnels(IP, IP));
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
        let ours = rule("").goes_into_ours(self.ownership).jumps(PUT_ASIDE);
        chains.push(plain(PUT_ASIDE, self.put_aside()));
        chains.extend([
            chain("restore", "filter", PREROUTING, RAW, restore),
            chain("stash", "filter", POSTROUTING, LAST, vec![ours]),
            chain("preserve", "route", OUTPUT, FIRST, preserve),
            chain("undelivered", "filter", OUTPUT, FIRST + 1, undelivered),
        ]);
        let (bandwidth_sets, policers) = self.bandwidth();
        sets.extend(bandwidth_sets);
        chains.extend(policers);
        chains.extend(self.own_errors());
        chains.extend(self.stray());
        chains.extend(self.delivered(IP));
        chains.extend(self.postrouting(IP));
        self.table(IP, sets, chains)
    }

    fn guard(&self, family: u8) -> Table {
        let mut arrivals = self.brought_by_tunnels(family, family);
        arrivals.extend(self.group_packets(family, family, Of::Packet, ARRIVING));
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

        let not_trusted = |mut rules: Vec<Rule>| {
            rules.push(rule("").protocol(ESP).accepted());
            rules.extend(self.jumps_to_excluded(family, &[family], true));
            rules.push(rule(FOREIGN_POLICY).decapsulated(true).counted().dropped());
            rules.push(dropped(ARRIVING));
            rules
        };
        let arriving = not_trusted(self.trusted_arrivals(family));

        let mut leaving = self.trusted_exits(family);
        leaving.push(rule("").protocol(ESP).accepted());
        leaving.extend(self.jumps_to_excluded(family, &[family], false));
        leaving.push(rule(FOREIGN_POLICY).leaves_in_some_sa().counted().dropped());
        leaving.push(dropped(LEAVING));

        let mut chains = Vec::new();
        chains.extend(self.excluded_chains(family, &[family]));
        chains.extend(self.tunnel_chains(family, &[family]));
        chains.extend([plain(ARRIVING, arriving), plain(LEAVING, leaving)]);
        let mut targets = vec![ARRIVING, LEAVING];
        if !self.preservation.vrf.is_empty() {
            chains.push(plain(DELIVERED, not_trusted(self.trusted_deliveries(family))));
            targets.push(DELIVERED);
        }
        for target in targets {
            chains.extend(self.group_chain(family, &[family], Of::Packet, target));
        }
        if family == IP {
            destined.push(rule("goes into an SA").mark_destined().accepted());
            let still = rule("").goes_into_ours(self.ownership).accepted();
            chains.push(plain(DESTINED, destined));
            // The priority stays with a tunnel's packet while the other table is flushed.
            let encrypted = rule("").protocol(ESP).accepted();
            chains.push(plain(TRANSLATED, vec![still, encrypted, dropped(TRANSLATED)]));
            chains.extend(self.quoted());
            chains.push(plain(SOURCE_ROUTED, self.source_routed()));
        }
        chains
    }

    fn local_addresses(&self) -> BTreeSet<IpAddr> {
        self.preservation.groups.values().map(|group| group.local).collect()
    }

    /// The inner addresses of a group's packets, behind everything that may change mark and
    /// priority. Those of a tunnel are not needed: its ESP keeps the mark of its packet. A packet
    /// that meets tables while they are replaced may meet both: what the old ones have put aside
    /// stays.
    fn put_aside(&self) -> Vec<Rule> {
        let rule = |comment: &str| Rule::new(IP, IP, comment);
        let groups = self.preservation.groups.values();
        let reqids: BTreeSet<_> = groups.flat_map(|group| &group.outbound_reqids).collect();
        let inner = |reqid: &Reqid| rule("inner addresses").goes_into(*reqid).stash().counted();
        let inner = reqids.into_iter().map(|reqid| inner(reqid).accepted());
        inner.chain([rule("a tunnel's").destined().empty_priority()]).collect()
    }

    /// Received ESP that XFRM is not to get: its local address has left the router, and the route
    /// to it would send it back to where it came from, again and again.
    fn stray(&self) -> Option<Chain> {
        let dropped = format!("{DROP}ESP for a local address that is gone");
        let rule = |local| Rule::new(IP, IP, &dropped).goes_to(local).counted().dropped();
        let rules: Vec<Rule> = self.local_addresses().into_iter().map(rule).collect();
        (!rules.is_empty()).then(|| Chain { name: STRAY.to_owned(), hook: None, rules })
    }

    /// Behind destination translation. The kernel undoes it before it asks the FWD or IN policy,
    /// which then does not see that the packet is the group's.
    fn delivered(&self, family: u8) -> [Chain; 2] {
        let target = if self.preservation.vrf.is_empty() { ARRIVING } else { DELIVERED };
        let packets = || {
            let mut packets = self.brought_by_tunnels(family, family);
            packets.extend(self.group_packets(family, family, Of::Packet, target));
            packets
        };
        let rule = || Rule::new(family, family, "");
        let mut forwarded = packets();
        if self.guards_everything(family) {
            let lans = self.preservation.lan.iter();
            forwarded.extend(lans.map(|name| rule().leaves_by(name).jumps(target)));
        }
        if family == IP && self.guarded.get(&IP).is_some_and(|guarded| !guarded.any.is_empty()) {
            forwarded.push(rule().has_options().jumps(SOURCE_ROUTED));
        }
        if family == IP && !self.local_addresses().is_empty() && self.flags & OWNED == 0 {
            forwarded.push(rule().protocol(ESP).jumps(STRAY));
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
            // A packet that is forwarded within a VRF arrives by the device of the VRF here.
            let inside = self.preservation.lan.iter().chain(&self.preservation.vrf);
            leaving.extend(inside.map(|name| rule().arrives_by(name).jumps(LEAVING)));
        }
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        let tunnels = self.sent_by_tunnels(family, family);
        if family == IP {
            before.push(rule().goes_into_ours(self.ownership).jumps(DESTINED));
            before.extend(tunnels.iter().cloned());
            before.push(rule().icmp().jumps(ERRORS));
            behind.push(rule().destined().jumps(TRANSLATED));
        } else {
            before.extend(tunnels.iter().cloned());
        }
        before.extend(leaving.iter().cloned());
        // A translation into the group's own addresses, which is not worth a second look.
        if self.flags & OWNED == 0 {
            behind.extend(tunnels.into_iter().chain(leaving));
        }
        [
            chain("before_nat", "filter", POSTROUTING, BEFORE_NAT, before),
            chain("behind_nat", "filter", POSTROUTING, BEHIND_NAT, behind),
        ]
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

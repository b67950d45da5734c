//! Packets of the group that no guard stops: where they come from, and where they go.

use super::{Content, LOOPBACK};
use crate::nft::guarded::protected_name;
use crate::nft::rule::Rule;
use crate::nft::{DROP, IN_CLEAR, IP, Preservation};

impl Content<'_> {
    /// Packets that need not be looked at: of the LANs, of the router itself, and those that came
    /// out of an SA of ours, or out of one inside of somebody else's.
    ///
    /// All other interfaces count as WAN, by name: a re-created one is guarded before anybody has
    /// noticed.
    pub(super) fn trusted_arrivals(&self, family: u8) -> Vec<Rule> {
        let rule = || Rule::new(family, family, "");
        let mut rules = self.trusted_by_name(family);
        // What passes a VRF device was judged before, by the interface within the VRF; what came
        // out of an SA was not.
        let vrfs = self.preservation.vrf.iter();
        rules.extend(vrfs.map(|name| rule().arrives_by(name).decapsulated(false).accepted()));
        rules
    }

    fn trusted_by_name(&self, family: u8) -> Vec<Rule> {
        let rule = || Rule::new(family, family, "");
        let ours = |number| rule().came_out_of_ours(number, self.ownership).accepted();
        let mut rules = vec![ours(0), ours(1), rule().arrives_by(LOOPBACK).accepted()];
        rules.extend(self.preservation.lan.iter().map(|name| rule().arrives_by(name).accepted()));
        rules
    }

    /// As [`trusted_arrivals`](Self::trusted_arrivals), behind routing. Destination translation has
    /// hidden the packet from the first look, and the VRF device stands for all interfaces of the
    /// VRF: the kernel says here which one it was.
    pub(super) fn trusted_deliveries(&self, family: u8) -> Vec<Rule> {
        let rule = || Rule::new(family, family, "");
        let Preservation { lan, vrf, .. } = self.preservation;
        let mut rules = self.trusted_by_name(family);
        rules.extend(lan.iter().map(|name| rule().arrived_within_vrf_by(name).accepted()));
        let own = |name: &String| rule().arrived_within_vrf_by(name).decapsulated(false).accepted();
        rules.extend(vrf.iter().map(own));
        rules
    }

    /// The kernel writes the next hop of a source route (RFC 791) into the header behind all looks
    /// at arrivals. So what arrives in clear with IP options, and has a source of the group, goes to
    /// no LAN, whatever its destination is yet.
    pub(super) fn source_routed(&self) -> Vec<Rule> {
        let rule = |comment: &str| Rule::new(IP, IP, comment);
        let Preservation { lan, vrf, .. } = self.preservation;
        let trusted = match vrf.is_empty() {
            true => self.trusted_arrivals(IP),
            false => self.trusted_deliveries(IP),
        };
        let dropped = format!("{DROP}source route{IN_CLEAR}");
        let from_group = || rule(&dropped).source_in(&protected_name(IP));
        let guarded = self.guarded.get(&IP).filter(|guarded| !guarded.any.is_empty());
        let drops = lan.iter().map(|name| from_group().leaves_by(name).counted().dropped());
        trusted.into_iter().chain(drops.take_while(|_| guarded.is_some())).collect()
    }

    /// Packets that go to a LAN or into an SA of ours.
    pub(super) fn trusted_exits(&self, family: u8) -> Vec<Rule> {
        let rule = || Rule::new(family, family, "");
        let mut rules = vec![rule().leaves_by(LOOPBACK).accepted()];
        // What the router sends passes the VRF device first, and then the interface.
        let Preservation { lan, vrf, .. } = self.preservation;
        rules.extend(lan.iter().chain(vrf).map(|name| rule().leaves_by(name).accepted()));
        rules.push(rule().goes_into_ours(self.ownership).accepted());
        rules
    }
}

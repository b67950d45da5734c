//! What the nf_tables tables named `gdoi` do: put the inner addresses outside, and stand guard.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::error::{Error, Unsupported};
use crate::model::{Reqid, Selector};

/// What the tables have to do, from which their content follows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Preservation {
    /// Interfaces of the protected hosts, by name.
    pub lan: BTreeSet<String>,
    /// VRF devices that interfaces of the protected hosts are in, by name. The kernel shows them in
    /// the place of the interface behind the first look at a packet, and other interfaces may be in
    /// the same VRF.
    pub vrf: BTreeSet<String>,
    /// Interfaces of the wide area network, by name.
    pub wan: BTreeSet<String>,
    /// Sets of prefixes: between any two prefixes of one set nothing passes in clear on an
    /// interface that is not a LAN.
    pub protected: BTreeSet<BTreeSet<IpNet>>,
    /// Pairs of source and destination prefixes, beyond those, of which the same holds.
    pub guard: BTreeSet<(IpNet, IpNet)>,
    /// Source and destination of what leaves in an SA of ours by whatever interface: the tunnels'
    /// traffic. The other way round it arrives out of one.
    pub tunnels: BTreeSet<(IpNet, IpNet)>,
    /// What the ends of those tunnels say to each other in clear: IKE, when they lie within.
    pub tunnel_ends: BTreeSet<Selector>,
    /// Whether everything that comes from a LAN, or goes to one, is guarded.
    pub guard_everything: bool,
    /// Traffic that the guard lets pass in clear: exclude rules. The interface member is not used.
    pub exclude: BTreeSet<Selector>,
    /// What it lets in in clear besides, and not out: members that are being migrated send it so.
    pub exclude_arriving: BTreeSet<Selector>,
    /// Address preservation per placeholder address, of the family of the group's packets. The
    /// rules exist for IPv4 alone: a packet's mark and priority hold no two IPv6 addresses.
    pub groups: BTreeMap<IpAddr, GroupPreservation>,
    /// Packets between group prefixes are put together before policies see them, because fragments
    /// carry no ports.
    pub defragment: bool,
    /// What the tunnels of a gateway carry at most, by the gateway's name.
    pub bandwidth: BTreeMap<String, Bandwidth>,
}

/// The rate of ESP between some pairs of addresses, in each direction.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Bandwidth {
    /// Octets of IP packets in a second, their headers included.
    pub octets_per_second: u64,
    /// Local and remote ends.
    pub ends: BTreeSet<(IpAddr, IpAddr)>,
}

/// Comment of the rule that drops what is over the bandwidth of a gateway, as counters show it.
pub fn over_bandwidth(gateway: &str, received: bool) -> String {
    // The kernel keeps 256 octets of user data with a rule.
    let gateway: String = gateway.chars().take(MOST_NAME).collect();
    let direction = if received { "received" } else { "sent" };
    format!("over the bandwidth of gateway {gateway}, {direction}")
}

/// Characters of a name in a comment: four octets each at most.
const MOST_NAME: usize = 40;

impl Preservation {
    /// Whether rules for it exist.
    ///
    /// # Errors
    /// A group with IPv6 addresses.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let addresses =
            self.groups.iter().flat_map(|(placeholder, group)| [*placeholder, group.local]);
        match addresses.into_iter().find(IpAddr::is_ipv6) {
            None => Ok(()),
            Some(address) => Err(Error::Unsupported(Unsupported::Preservation(address))),
        }
    }

    /// Lets pass what `before` let pass, until the policies that protect it from now on are there:
    /// guards that came first would drop it meanwhile. Gives what was wanted, where that is not the
    /// same.
    pub(crate) fn tolerate(&mut self, before: &Self) -> Option<Self> {
        if before.exclude.is_subset(&self.exclude) {
            return None;
        }
        let wanted = self.clone();
        self.exclude.extend(before.exclude.iter().cloned());
        // What passes both ways arrives as well. Named once, it leaves the rules as they are.
        self.exclude_arriving.retain(|selector| !before.exclude.contains(selector));
        Some(wanted)
    }
}

/// Address preservation of one group (or one local address of it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPreservation {
    /// LOCAL: where received ESP is sent to the kernel's XFRM input.
    pub local: IpAddr,
    /// Outbound states' reqids, one per TEK in use at a time: `ipsec out reqid R` stashes the inner
    /// addresses.
    pub outbound_reqids: BTreeSet<Reqid>,
    /// SPIs of the inbound states.
    pub inbound_spis: BTreeSet<u32>,
    /// Prefix pairs between which later fragments of ESP belong to the group.
    pub fragments: BTreeSet<(IpNet, IpNet)>,
    /// The outer header's DF bit.
    pub dont_fragment: DontFragment,
    /// The segment size that TCP connections through the SA agree on.
    pub segment_size: SegmentSize,
}

/// The maximum segment size that a SYN announces on its way into an SA. It is only ever lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum SegmentSize {
    /// As the host says.
    #[default]
    Unchanged,
    /// What fits into the path with the SA's overhead.
    Path,
    /// At most so many octets.
    AtMost(u16),
}

/// The outer header's DF bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DontFragment {
    /// Always clear: the safe default, because an ICMP from the core goes to the inner source,
    /// which ignores it.
    #[default]
    Clear,
    /// As the inner header.
    Copy,
    /// DF is always set in the outer header.
    Set,
}

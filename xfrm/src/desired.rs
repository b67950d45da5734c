//! Everything that should be in the kernel, as a value.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Policy, PolicyId, Sa, SaId};
use crate::nft::Preservation;
use crate::op::Entry;

/// A host route to a placeholder address, with `mtu lock`: a forged "fragmentation needed" would
/// throttle the group otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceholderRoute {
    /// The address that no host has.
    pub placeholder: IpAddr,
    /// The WAN interface by name.
    pub interface: String,
    /// The next hop, if the WAN has one.
    pub gateway: Option<IpAddr>,
    /// MTU of the WAN interface in octets.
    pub mtu: u32,
    /// The routing table that it stands in: main, or that of the WAN's VRF.
    pub table: u32,
}

/// The routing table `main`.
pub const MAIN_TABLE: u32 = 254;

/// Everything that the kernel is to hold for us, and nothing else.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// ESP states by what identifies them.
    pub sas: BTreeMap<SaId, Sa>,
    /// Policies by what identifies them.
    pub policies: BTreeMap<PolicyId, Policy>,
    /// nf_tables; `None` removes the tables.
    pub preservation: Option<Preservation>,
    /// Routes that placeholder addresses need.
    pub routes: BTreeSet<PlaceholderRoute>,
    /// Interfaces by name whose arrivals no IN and FWD policy checks: `disable_policy`. They are
    /// those of the protected hosts.
    pub exempt: BTreeSet<String>,
}

impl Desired {
    /// Whether this entry is part of it.
    pub fn holds(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Route(placeholder) => {
                self.routes.iter().any(|route| route.placeholder == *placeholder)
            }
            Entry::Policy(id) => self.policies.contains_key(id),
            Entry::State(id) => self.sas.contains_key(id),
        }
    }
}

//! One change of the kernel, as data.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use crate::desired::PlaceholderRoute;
use crate::model::{Policy, PolicyId, SaId};
use crate::nft::SetChange;
use crate::parts::Parts;

/// One change of the kernel. Holds no keys: the executor takes those from the desired state by
/// identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Add a placeholder route, or replace the one to the same address.
    AddRoute(PlaceholderRoute),
    /// Delete a placeholder route.
    DeleteRoute(PlaceholderRoute),
    /// Exempt what arrives by an interface from IN and FWD policies, or no longer.
    Exempt {
        /// Name of the interface, as the kernel has it.
        interface: String,
        /// Whether from now on.
        exempt: bool,
    },
    /// Replace the tables that only this process can remove, in one transaction.
    ReplaceGuard,
    /// Replace the tables, in one transaction.
    ReplaceTables,
    /// Change the sets of SPIs in place, in one transaction. Counters stay.
    UpdateSets(Vec<SetChange>),
    /// Remove all tables named `gdoi`.
    RemoveTables,
    /// Add a policy under an index of ours.
    AddPolicy {
        /// An index from the range that is ours.
        index: u32,
        /// The policy that comes there.
        policy: Policy,
    },
    /// Replace a policy of ours that has the same selector and direction, at once.
    UpdatePolicy {
        /// Its index, which stays.
        index: u32,
        /// What the policy becomes, in one step.
        policy: Policy,
    },
    /// Delete a policy of ours by its index.
    DeletePolicy {
        /// The index that it has.
        index: u32,
        /// What it was, for reports.
        id: PolicyId,
    },
    /// Install a state of the desired state.
    InstallSa(SaId),
    /// Change the UDP ports of a state of the desired state. Keys and sequence numbers stay.
    UpdateSa {
        /// What the kernel knows it by.
        id: SaId,
        /// The limit that it was installed with: the kernel takes a new one, and counts from the
        /// installation.
        hard_lifetime: Option<Duration>,
    },
    /// Delete a state of ours.
    DeleteSa(SaId),
}

/// What an entry is told apart by among everybody's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// A route to this placeholder address.
    Route(IpAddr),
    /// A policy, by direction and selector.
    Policy(PolicyId),
    /// An ESP state, by destination and SPI.
    State(SaId),
}

impl Op {
    /// The entry that this adds to the kernel, where others may have one of the same identity.
    pub(crate) fn adds(&self) -> Option<Entry> {
        match self {
            Self::AddRoute(route) => Some(Entry::Route(route.placeholder)),
            Self::AddPolicy { policy, .. } => Some(Entry::Policy(policy.id.clone())),
            Self::InstallSa(id) => Some(Entry::State(*id)),
            _ => None,
        }
    }

    /// Whether this takes something away that stops packets, or lets something pass that may not
    /// pass now.
    ///
    /// After a failure nothing of this kind is done any more.
    pub fn opens(&self) -> bool {
        match self {
            Self::AddPolicy { policy, .. } | Self::UpdatePolicy { policy, .. } => {
                !policy.action.closes()
            }
            Self::DeleteRoute(_) | Self::RemoveTables | Self::DeletePolicy { .. } => true,
            // An SA that is to go has ended: a failure elsewhere must not prolong the lifetime of its
            // key, and what its policies cover is dropped without it.
            Self::DeleteSa(_) | Self::InstallSa(_) | Self::UpdateSa { .. } => false,
            // What arrives by a LAN is not what policies check: it has to find them on its way out.
            Self::Exempt { .. } => false,
            Self::AddRoute(_) | Self::ReplaceGuard | Self::ReplaceTables | Self::UpdateSets(_) => {
                false
            }
        }
    }

    /// What of the kernel is different afterwards.
    pub(crate) fn touches(&self) -> Parts {
        match self {
            Self::AddRoute(_) | Self::DeleteRoute(_) | Self::Exempt { .. } => Parts::INTERFACES,
            Self::ReplaceGuard | Self::ReplaceTables | Self::RemoveTables => Parts::TABLES,
            Self::UpdateSets(_) => Parts::SETS,
            Self::AddPolicy { .. } | Self::UpdatePolicy { .. } | Self::DeletePolicy { .. } => {
                Parts::POLICIES
            }
            Self::InstallSa(_) | Self::UpdateSa { .. } | Self::DeleteSa(_) => Parts::STATES,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddRoute(route) => {
                write!(f, "add route to {} by {}", route.placeholder, route.interface)
            }
            Self::DeleteRoute(route) => {
                write!(f, "delete route to {} by {}", route.placeholder, route.interface)
            }
            Self::Exempt { interface, exempt } => {
                write!(f, "set disable_policy of {interface} to {}", u8::from(*exempt))
            }
            Self::ReplaceGuard => write!(f, "replace the nf_tables guard"),
            Self::ReplaceTables => write!(f, "replace the nf_tables tables"),
            Self::UpdateSets(changes) => write!(f, "update {} nf_tables sets", changes.len()),
            Self::RemoveTables => write!(f, "remove the nf_tables tables"),
            Self::AddPolicy { policy, .. } => write!(f, "add policy {policy}"),
            Self::UpdatePolicy { policy, .. } => write!(f, "update policy {policy}"),
            Self::DeletePolicy { id, .. } => write!(f, "delete policy {id}"),
            Self::InstallSa(id) => write!(f, "install ESP state {id}"),
            Self::UpdateSa { id, .. } => write!(f, "change the UDP ports of ESP state {id}"),
            Self::DeleteSa(id) => write!(f, "delete ESP state {id}"),
        }
    }
}

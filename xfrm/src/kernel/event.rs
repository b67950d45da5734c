//! What the kernel tells about changes that others make.

use std::fmt::{self, Display, Formatter};

use crate::model::{Reqid, SaId};
use crate::parts::Parts;

/// What somebody else's change, or the kernel's own, touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum What {
    States,
    Policies,
    Tables,
}

/// Something that happened in the kernel. Our own changes are not reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// Entries of this kind were flushed or deleted, ours perhaps among them: repair.
    Flushed(What),
    /// Entries were added or changed by others: repair.
    Changed {
        /// The kind of the changed entries.
        what: What,
    },
    /// Events were lost: repair and read all facts again.
    Overrun,
    /// A state of ours came to the end of its lifetime.
    SaExpired {
        /// The state that has expired.
        id: SaId,
        /// `false` for the soft limit.
        hard: bool,
    },
    /// A packet found a policy of ours without an SA, and the kernel asks for one.
    Acquire {
        /// That of the policy.
        reqid: Reqid,
    },
    /// An interface appeared, disappeared or changed: repair, and look at the addresses.
    LinkChanged,
    /// An address was added or removed.
    AddressChanged,
    /// A default route, or a placeholder route of ours, was added or removed.
    RouteChanged,
}

impl Display for What {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::States => "states",
            Self::Policies => "policies",
            Self::Tables => "tables",
        })
    }
}

impl Display for KernelEvent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flushed(what) => write!(f, "{what} deleted"),
            Self::Changed { what } => write!(f, "{what} changed"),
            Self::Overrun => f.write_str("events lost"),
            Self::SaExpired { id, hard: true } => write!(f, "state {id} expired"),
            Self::SaExpired { id, hard: false } => write!(f, "state {id} expires soon"),
            Self::Acquire { reqid } => write!(f, "no state for reqid {:#x}", reqid.0),
            Self::LinkChanged => f.write_str("interface changed"),
            Self::AddressChanged => f.write_str("address changed"),
            Self::RouteChanged => f.write_str("route changed"),
        }
    }
}

impl KernelEvent {
    /// What may be different afterwards.
    pub fn invalidates(&self) -> Parts {
        match self {
            Self::Flushed(What::States)
            | Self::Changed { what: What::States }
            | Self::SaExpired { .. } => Parts::STATES,
            Self::Flushed(What::Policies) | Self::Changed { what: What::Policies } => {
                Parts::POLICIES
            }
            Self::Flushed(What::Tables) | Self::Changed { what: What::Tables } => Parts::TABLES,
            // The state that stands for the request is no state of ours.
            Self::Acquire { .. } => Parts::NONE,
            Self::Overrun => Parts::ALL,
            Self::LinkChanged | Self::AddressChanged | Self::RouteChanged => Parts::INTERFACES,
        }
    }
}

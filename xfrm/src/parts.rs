//! Parts of the kernel's entries that are read and compared by themselves.

use core::ops::BitOrAssign;

/// Parts of [`Current`](crate::kernel::Current) that can be read by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Interfaces and placeholder routes.
    pub interfaces: bool,
    /// ESP states with their counters.
    pub states: bool,
    /// Policies. Their selectors name interfaces: read both after an interface came or went.
    pub policies: bool,
    /// Chains, rules and counters of the tables, and which sets there are.
    pub tables: bool,
    /// The elements of the sets that are known.
    pub sets: bool,
}

impl Parts {
    /// No part at all.
    pub const NONE: Self =
        Self { interfaces: false, states: false, policies: false, tables: false, sets: false };
    /// Every part there is.
    pub const ALL: Self =
        Self { interfaces: true, states: true, policies: true, tables: true, sets: true };
    /// Interfaces and placeholder routes alone.
    pub const INTERFACES: Self = Self { interfaces: true, ..Self::NONE };
    /// ESP states and nothing else.
    pub const STATES: Self = Self { states: true, ..Self::NONE };
    /// Policies and nothing else.
    pub const POLICIES: Self = Self { policies: true, ..Self::NONE };
    /// Tables with their sets.
    pub const TABLES: Self = Self { tables: true, sets: true, ..Self::NONE };
    /// Elements of the sets.
    pub const SETS: Self = Self { sets: true, ..Self::NONE };
}

impl BitOrAssign for Parts {
    fn bitor_assign(&mut self, other: Self) {
        self.interfaces |= other.interfaces;
        self.states |= other.states;
        self.policies |= other.policies;
        self.tables |= other.tables;
        self.sets |= other.sets;
    }
}

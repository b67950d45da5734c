//! How entries of ours are recognised among everybody else's.
//!
//! A state carries a reqid of our range. A policy without a template (allow, block) has no reqid,
//! so the policy index is the mark: the kernel keeps the index that the creator asks for. Tables of
//! nf_tables are recognised by name.

use core::ops::RangeInclusive;

use crate::model::{Direction, Reqid};

/// The ranges and names of one owner. Everything outside of them is foreign and never touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Reqids of our states.
    pub reqids: RangeInclusive<u32>,
    /// Indexes of our policies. The kernel wants the direction in the lowest three bits.
    pub policy_indexes: RangeInclusive<u32>,
    /// Name of our tables in each nf_tables family. A second table, of this name with `-guard`
    /// added, is owned by the process's socket: it cannot be flushed by others and goes when the
    /// process does.
    pub table: String,
}

impl Default for Ownership {
    fn default() -> Self {
        Self {
            reqids: 0x4744_0000..=0x4744_ffff,
            policy_indexes: 0x4744_0000..=0x4744_ffff,
            table: String::from("gdoi"),
        }
    }
}

impl Ownership {
    /// Whether a state with this reqid is ours.
    pub fn owns_reqid(&self, reqid: Reqid) -> bool {
        self.reqids.contains(&reqid.0)
    }

    /// The range of reqids as a value and a mask: it is a power of two long and begins at a
    /// multiple of it.
    pub(crate) fn reqid_mask(&self) -> (u32, u32) {
        let (first, last) = (*self.reqids.start(), *self.reqids.end());
        (first, !(first ^ last))
    }

    /// Whether a policy with this index is ours.
    pub fn owns_policy(&self, index: u32) -> bool {
        self.policy_indexes.contains(&index)
    }

    /// All indexes from `from` on that a policy of this direction may take, in order.
    pub fn indexes(&self, direction: Direction, from: u32) -> impl Iterator<Item = u32> + use<> {
        let low = direction.number();
        let first = from.max(*self.policy_indexes.start());
        (first..=*self.policy_indexes.end()).filter(move |index| index & 7 == low)
    }

    /// Name of the tables that our socket owns.
    pub fn guard_table(&self) -> String {
        format!("{}-guard", self.table)
    }
}

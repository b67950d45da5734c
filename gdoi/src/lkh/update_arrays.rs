//! The keys of a removal or refresh on their way to those who stay.

use std::collections::BTreeSet;

use super::nodes::ancestors;
use crate::wire::lkh::LkhUpdate;

/// Update arrays of one removal or refresh: what takes the place of the KEK packet in a push (RFC
/// 6407 §5.6.3.2). There is at least one: a push without any would carry the new KEK where every
/// holder of the old one reads it, those who were removed included.
#[derive(Debug)]
pub struct UpdateArrays(Vec<LkhUpdate>);

impl UpdateArrays {
    pub(super) fn new(arrays: Vec<LkhUpdate>) -> Option<Self> {
        (!arrays.is_empty()).then_some(Self(arrays))
    }

    /// The arrays: every member that is left finds one that starts from a key it holds.
    pub fn as_slice(&self) -> &[LkhUpdate] {
        &self.0
    }

    /// The same in parts of at most `octets` octets of keys each, for a push each (RFC 6407 §4); an
    /// array is never cut.
    pub fn split(self, octets: usize) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        let mut room = 0_usize;
        for array in self.0 {
            let need = array.octets();
            match parts.last_mut().filter(|_| need <= room) {
                Some(part) => {
                    part.0.push(array);
                    room = room.saturating_sub(need);
                }
                None => {
                    parts.push(Self(vec![array]));
                    room = octets.saturating_sub(need);
                }
            }
        }
        parts
    }

    /// Whose members find one of the arrays.
    pub fn leaves(&self) -> UpdatedLeaves {
        UpdatedLeaves(self.0.iter().map(|array| array.node).collect())
    }

    pub(crate) fn into_vec(self) -> Vec<LkhUpdate> {
        self.0
    }
}

/// The leaves that update arrays lead on: an array starts from a node on their path.
#[derive(Clone, Debug)]
pub struct UpdatedLeaves(BTreeSet<u16>);

impl UpdatedLeaves {
    /// Whether the member of `leaf` finds its array.
    pub fn contains(&self, leaf: u16) -> bool {
        core::iter::once(leaf).chain(ancestors(leaf)).any(|node| self.0.contains(&node))
    }
}

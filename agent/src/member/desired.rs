//! What the kernel should hold for all memberships, and whose keys give way where two groups cannot
//! both have a policy.

use std::collections::BTreeSet;

use daemon::entropy;
use ike::BootTime;
use policies::{GroupUnusable, Unusable};
use xfrm::Desired;

use super::Member;
use crate::config::{Config, Group, OnExit};
use crate::membership::local_interface::Interfaces;
use crate::membership::{Seeds, kernel_policy};

/// What the kernel should hold, and what could not be had.
#[derive(Debug)]
pub struct Outcome {
    /// The desired state; `None` when not even the blocks could be compiled. Then what is in the
    /// kernel stays.
    pub desired: Option<Desired>,
    /// Groups whose keys had to be left out, and why.
    pub unusable: Vec<GroupUnusable>,
}

impl Member {
    /// What the kernel should hold from now on, if that may have changed.
    ///
    /// Groups whose keys cannot be used beside the others' lose them, fall back to their blocks and
    /// try their next server.
    pub fn poll_desired(&mut self, now: BootTime) -> Option<Outcome> {
        let mut changed = std::mem::take(&mut self.reshaped);
        for membership in &mut self.memberships {
            changed |= membership.take_changed();
        }
        if !changed {
            return None;
        }
        let outcome = self.desired(now);
        self.memberships.iter_mut().for_each(|membership| membership.update_sending(now));
        Some(outcome)
    }

    /// What the kernel should hold after an orderly end; `None` if it stays as it is.
    ///
    /// # Errors
    /// Not even the blocks can be compiled.
    pub fn desired_on_exit(&self, now: BootTime) -> Result<Option<Desired>, GroupUnusable> {
        if self.memberships.iter().all(|membership| membership.config().on_exit == OnExit::Keep) {
            return Ok(None);
        }
        let left =
            self.memberships.iter().filter_map(|membership| match membership.config().on_exit {
                OnExit::Keep => Some(membership.view()),
                OnExit::Block => Some(membership.view().without_keys()),
                OnExit::Remove => None,
            });
        kernel_policy::compile(left, now).map(Some)
    }

    fn desired(&mut self, now: BootTime) -> Outcome {
        let mut unusable = Vec::new();
        let (mut rejected, mut left_out) = (BTreeSet::new(), BTreeSet::new());
        // A group first loses what came last, then all its keys, so it ends.
        for _ in 0..=2 * self.memberships.len() {
            let groups = self.memberships.iter().enumerate().map(|(index, membership)| {
                let view = membership.view();
                if left_out.contains(&index) { view.without_keys() } else { view }
            });
            let error = match kernel_policy::compile(groups, now) {
                Ok(desired) => return Outcome { desired: Some(desired), unusable },
                Err(error) => error,
            };
            let error = self.blame_newest(error);
            let Some(culprit) = self.culprit(&error, &left_out) else {
                unusable.push(error);
                break;
            };
            let again = !rejected.insert(culprit);
            if let Some(membership) = self.memberships.get_mut(culprit) {
                membership.reject_latest(&error.reason, now);
                if again || membership.generations().is_empty(now) {
                    left_out.insert(culprit);
                }
            }
            unusable.push(error);
        }
        Outcome { desired: None, unusable }
    }

    /// Of two groups that cannot both have a policy the one with the newer keys gives way: a push to
    /// one must not take the other's keys.
    fn blame_newest(&self, error: GroupUnusable) -> GroupUnusable {
        let GroupUnusable { group, reason: Unusable::TwoGroups { id, other } } = error else {
            return error;
        };
        let received = |name: &str| {
            let found = self.memberships.iter().find(|one| one.config().name == name);
            found.and_then(|one| one.generations().received())
        };
        let (group, other) =
            if received(&other) > received(&group) { (other, group) } else { (group, other) };
        GroupUnusable { group, reason: Unusable::TwoGroups { id, other } }
    }

    /// Whose keys to leave out: those of the group that the error names, else those that came last.
    fn culprit(&self, error: &GroupUnusable, left_out: &BTreeSet<usize>) -> Option<usize> {
        let candidates =
            || self.memberships.iter().enumerate().filter(|(index, _)| !left_out.contains(index));
        let named = candidates().find(|(_, membership)| membership.config().name == error.group);
        let last =
            || candidates().max_by_key(|(_, membership)| membership.generations().received());
        named.or_else(last).map(|(index, _)| index)
    }
}

/// The fail-close policies and guards of a configuration for the interfaces as they are. Also tells
/// what cannot be done before anything is started.
///
/// # Errors
/// What cannot be done.
pub fn blocks(config: &Config, interfaces: &Interfaces) -> Result<Desired, GroupUnusable> {
    let seeds: fn(&Group) -> (Seeds, u64) = |_| (Box::new(entropy::seed), 0);
    let now = BootTime::default();
    let mut member = Member::new(config, seeds, now);
    member.handle_interfaces(interfaces, now);
    let blocks = member.memberships.iter().map(|membership| membership.view().without_keys());
    kernel_policy::compile(blocks, now)
}

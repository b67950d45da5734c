//! The root server's side of one group: who of its sub-servers holds what, and when all may
//! distribute it.
//!
//! ```text
//! make -> prepare everywhere -> all active have it, or are dead, or time is up -> commit at once
//! ```
//!
//! A new generation that is made meanwhile takes the place of the one that is being prepared: it
//! says all that that one said. Repetitions, and that there are none to a dead peer, are the
//! channel's: [`link`](crate::link).

use std::collections::{BTreeMap, VecDeque};

use ike::BootTime;

use crate::{Generation, Stage};

/// What is to be done for a group. `P` names a sub-server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootAction<P> {
    /// Send the present generation to be prepared, in the place of what is on its way there.
    Prepare { sub_server: P, version: u64 },
    /// Send that it is committed.
    Commit { sub_server: P, version: u64 },
    /// It is distributed from now on: our own members get its pushes too.
    Distribute {
        version: u64,
        /// Active sub-servers that do not hold it: time was up.
        late: Vec<P>,
    },
}

/// What is known about a sub-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Since our start nothing was heard of it; it is waited for until then.
    Unknown { until: BootTime },
    /// It has everything, and hears of what is new.
    Active { since: BootTime },
    /// It is dead, or never came.
    Inactive { since: BootTime },
}

/// One sub-server of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubServer {
    pub activity: Activity,
    /// The latest version that it has written down.
    pub prepared: u64,
    /// The latest version that it distributes.
    pub committed: u64,
}

impl SubServer {
    /// Whether it hears of what is new.
    pub fn is_active(&self) -> bool {
        matches!(self.activity, Activity::Active { .. })
    }

    /// Whether it holds the version that the others distribute, and does not know that it may.
    fn owes_commit(&self, committed: u64) -> bool {
        self.prepared == committed && self.committed < committed
    }
}

/// The root server's side of one group.
///
/// Drain [`poll_action`](Self::poll_action) after every call, then read
/// [`poll_timeout`](Self::poll_timeout). `now` must never go back.
#[derive(Debug)]
pub struct RootGroup<P> {
    epoch: u64,
    made: u64,
    /// The latest version that is distributed.
    committed: u64,
    /// When a generation that is being prepared is distributed in any case: the old keys would end.
    latest: Option<BootTime>,
    sub_servers: BTreeMap<P, SubServer>,
    actions: VecDeque<RootAction<P>>,
}

impl<P: Ord + Clone> RootGroup<P> {
    /// A group whose latest generation is `made`. After a restart nobody knows whether that was
    /// distributed: it is prepared and committed once more, when all sub-servers have come back
    /// or are not waited for any longer after `until`.
    pub fn new(
        made: Generation,
        sub_servers: impl IntoIterator<Item = P>,
        until: BootTime,
        now: BootTime,
    ) -> Self {
        let fresh = made.version == 0;
        let activity = match fresh {
            true => Activity::Inactive { since: now },
            false => Activity::Unknown { until },
        };
        let unheard = SubServer { activity, prepared: 0, committed: 0 };
        let mut group = Self {
            epoch: made.epoch,
            made: made.version,
            committed: 0,
            latest: None,
            sub_servers: sub_servers.into_iter().map(|name| (name, unheard)).collect(),
            actions: VecDeque::new(),
        };
        group.commit_when_ready(now);
        group
    }

    /// The generation that was made last, committed or not.
    pub fn generation(&self) -> Generation {
        Generation { epoch: self.epoch, version: self.made }
    }

    /// Whether the latest generation is distributed.
    pub fn stage(&self) -> Stage {
        match self.committed == self.made {
            true => Stage::Committed,
            false => Stage::Prepared,
        }
    }

    /// The sub-servers by name.
    pub fn sub_servers(&self) -> impl Iterator<Item = (&P, &SubServer)> {
        self.sub_servers.iter()
    }

    /// Since when a sub-server has been inactive, of several the latest.
    pub fn away_since(&self) -> Option<BootTime> {
        let since = self.sub_servers.values().filter_map(|one| match one.activity {
            Activity::Inactive { since } => Some(since),
            _ => None,
        });
        since.max()
    }

    /// There is a new generation, which is distributed by `latest` in any case: the keys that it
    /// replaces would end, or nobody who is late so long is waited for. Returns its version.
    pub fn make(&mut self, latest: BootTime, now: BootTime) -> u64 {
        self.made = self.made.saturating_add(1);
        self.latest = Some(latest);
        let version = self.made;
        for (name, sub_server) in &self.sub_servers {
            // The commit before goes first: it is late already where it was lost.
            if sub_server.is_active() && !sub_server.owes_commit(self.committed) {
                let sub_server = name.clone();
                self.actions.push_back(RootAction::Prepare { sub_server, version });
            }
        }
        self.commit_when_ready(now);
        version
    }

    /// A sub-server was told everything, at [`stage`](Self::stage).
    pub fn joined(&mut self, name: &P, now: BootTime) {
        let (made, stage) = (self.made, self.stage());
        let Some(sub_server) = self.sub_servers.get_mut(name) else { return };
        if !sub_server.is_active() {
            sub_server.activity = Activity::Active { since: now };
        }
        match stage {
            Stage::Committed => (sub_server.prepared, sub_server.committed) = (made, made),
            // What it was told it acknowledges by this.
            Stage::Prepared => {
                let (sub_server, version) = (name.clone(), made);
                self.actions.push_back(RootAction::Prepare { sub_server, version });
            }
        }
        self.commit_when_ready(now);
    }

    /// A sub-server has acknowledged a version. Others than the latest count for nothing, but for
    /// the commit that the next one waits for.
    pub fn acknowledged(&mut self, name: &P, stage: Stage, version: u64, now: BootTime) {
        let (made, committed) = (self.made, self.committed);
        let is_committed = self.stage() == Stage::Committed;
        let Some(sub_server) = self.sub_servers.get_mut(name) else { return };
        if stage == Stage::Committed && version == committed && version < made {
            sub_server.committed = version;
            let (sub_server, version) = (name.clone(), made);
            self.actions.push_back(RootAction::Prepare { sub_server, version });
            return;
        }
        if version != made {
            return;
        }
        sub_server.prepared = version;
        match stage {
            Stage::Committed => sub_server.committed = version,
            // It comes late.
            Stage::Prepared if is_committed => {
                self.actions.push_back(RootAction::Commit { sub_server: name.clone(), version });
            }
            Stage::Prepared => self.commit_when_ready(now),
        }
    }

    /// A message to an active sub-server was lost with its channel: it goes out again.
    pub fn again(&mut self, name: &P) {
        let (version, committed) = (self.made, self.committed);
        let Some(one) = self.sub_servers.get(name).filter(|one| one.is_active()) else { return };
        let sub_server = name.clone();
        if one.owes_commit(committed) {
            self.actions.push_back(RootAction::Commit { sub_server, version: committed });
        } else if one.prepared < version {
            self.actions.push_back(RootAction::Prepare { sub_server, version });
        }
    }

    /// A sub-server holds a version that we know nothing of: our state was lost, and what we have
    /// is made newer than that.
    pub fn overtake(&mut self, held: Generation, latest: BootTime, now: BootTime) {
        if held.epoch == self.epoch && held.version > self.made {
            self.made = held.version;
            self.make(latest, now);
        }
    }

    /// A sub-server is dead: nobody waits for it, and it asks for everything when it is back.
    pub fn lost(&mut self, name: &P, now: BootTime) {
        let Some(sub_server) = self.sub_servers.get_mut(name) else { return };
        if !matches!(sub_server.activity, Activity::Inactive { .. }) {
            sub_server.activity = Activity::Inactive { since: now };
        }
        self.commit_when_ready(now);
    }

    /// The configuration has other sub-servers. Those that stay are as they were; those that go are
    /// returned.
    pub fn reconfigure(&mut self, names: impl IntoIterator<Item = P>, now: BootTime) -> Vec<P> {
        let activity = Activity::Inactive { since: now };
        let new = SubServer { activity, prepared: 0, committed: 0 };
        let mut before = std::mem::take(&mut self.sub_servers);
        let kept = names.into_iter().map(|name| {
            let sub_server = before.remove(&name).unwrap_or(new);
            (name, sub_server)
        });
        self.sub_servers = kept.collect();
        self.commit_when_ready(now);
        before.into_keys().collect()
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        for sub_server in self.sub_servers.values_mut() {
            if matches!(sub_server.activity, Activity::Unknown { until } if until <= now) {
                sub_server.activity = Activity::Inactive { since: now };
            }
        }
        self.commit_when_ready(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        let unknown = self.sub_servers.values().filter_map(|one| match one.activity {
            Activity::Unknown { until } => Some(until),
            _ => None,
        });
        unknown.chain(self.latest).min()
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<RootAction<P>> {
        self.actions.pop_front()
    }

    fn commit_when_ready(&mut self, now: BootTime) {
        if self.stage() == Stage::Committed {
            self.latest = None;
            return;
        }
        let made = self.made;
        let waits = |one: &SubServer| match one.activity {
            Activity::Unknown { .. } => true,
            Activity::Active { .. } => one.prepared < made,
            Activity::Inactive { .. } => false,
        };
        let is_late = self.latest.is_some_and(|latest| latest <= now);
        if !is_late && self.sub_servers.values().any(waits) {
            return;
        }
        (self.committed, self.latest) = (made, None);
        let mut late = Vec::new();
        for (name, one) in &self.sub_servers {
            if one.is_active() && one.prepared == made {
                let sub_server = name.clone();
                self.actions.push_back(RootAction::Commit { sub_server, version: made });
            } else if one.is_active() {
                late.push(name.clone());
            }
        }
        self.actions.push_back(RootAction::Distribute { version: made, late });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn actions(group: &mut RootGroup<u8>) -> Vec<RootAction<u8>> {
        std::iter::from_fn(|| group.poll_action()).collect()
    }

    fn prepare(sub_server: u8, version: u64) -> RootAction<u8> {
        RootAction::Prepare { sub_server, version }
    }

    fn commit(sub_server: u8, version: u64) -> RootAction<u8> {
        RootAction::Commit { sub_server, version }
    }

    fn distribute(version: u64, late: &[u8]) -> RootAction<u8> {
        RootAction::Distribute { version, late: late.to_vec() }
    }

    /// Both sub-servers are active and hold version 1.
    fn settled() -> RootGroup<u8> {
        let mut group = RootGroup::new(Generation::default(), [1, 2], at(50), at(0));
        assert_eq!(group.make(at(1000), at(0)), 1);
        assert_eq!(actions(&mut group), [distribute(1, &[])]);
        group.joined(&1, at(1));
        group.joined(&2, at(1));
        assert_eq!(actions(&mut group), []);
        group
    }

    #[test]
    fn all_hold_a_generation_before_any_distributes_it() {
        let mut group = settled();
        assert_eq!(group.make(at(1000), at(2)), 2);
        assert_eq!(actions(&mut group), [prepare(1, 2), prepare(2, 2)]);
        group.acknowledged(&1, Stage::Prepared, 2, at(3));
        assert_eq!((actions(&mut group), group.stage()), (vec![], Stage::Prepared));
        group.acknowledged(&2, Stage::Prepared, 2, at(4));
        assert_eq!(actions(&mut group), [commit(1, 2), commit(2, 2), distribute(2, &[])]);
        group.acknowledged(&1, Stage::Committed, 2, at(5));
        assert_eq!((group.stage(), group.poll_timeout()), (Stage::Committed, None));
    }

    #[test]
    fn the_dead_are_not_waited_for() {
        let mut group = settled();
        group.make(at(1000), at(2));
        group.acknowledged(&1, Stage::Prepared, 2, at(3));
        actions(&mut group);
        group.lost(&2, at(52));
        assert_eq!(actions(&mut group), [commit(1, 2), distribute(2, &[])]);
        // Back again it is told everything at once.
        group.joined(&2, at(60));
        assert_eq!(actions(&mut group), []);
        assert!(group.sub_servers().all(|(_, one)| one.is_active() && one.prepared == 2));
    }

    #[test]
    fn the_late_are_named_and_follow() {
        let mut group = settled();
        group.make(at(100), at(2));
        group.acknowledged(&1, Stage::Prepared, 2, at(3));
        actions(&mut group);
        assert_eq!(group.poll_timeout(), Some(at(100)));
        group.handle_timeout(at(99));
        assert_eq!(actions(&mut group), []);
        group.handle_timeout(at(100));
        assert_eq!(actions(&mut group), [commit(1, 2), distribute(2, &[2])]);
        group.acknowledged(&2, Stage::Prepared, 2, at(101));
        assert_eq!(actions(&mut group), [commit(2, 2)]);
    }

    #[test]
    fn a_newer_generation_takes_the_place_of_the_one_being_prepared() {
        let mut group = settled();
        group.make(at(100), at(2));
        group.acknowledged(&1, Stage::Prepared, 2, at(3));
        assert_eq!(group.make(at(500), at(4)), 3);
        actions(&mut group);
        // Too late: the version is over.
        group.acknowledged(&2, Stage::Prepared, 2, at(5));
        assert_eq!(actions(&mut group), []);
        assert_eq!(group.poll_timeout(), Some(at(500)), "it has its own time");
        group.acknowledged(&1, Stage::Prepared, 3, at(6));
        group.acknowledged(&2, Stage::Prepared, 3, at(6));
        assert_eq!(actions(&mut group), [commit(1, 3), commit(2, 3), distribute(3, &[])]);
    }

    /// Otherwise a commit that is lost would wait for all of the next generation.
    #[test]
    fn the_next_generation_is_prepared_behind_the_commit_before() {
        let mut group = settled();
        group.make(at(100), at(2));
        group.acknowledged(&1, Stage::Prepared, 2, at(3));
        group.acknowledged(&2, Stage::Prepared, 2, at(3));
        group.acknowledged(&1, Stage::Committed, 2, at(4));
        actions(&mut group);
        group.make(at(200), at(5));
        assert_eq!(actions(&mut group), [prepare(1, 3)]);
        group.again(&2);
        assert_eq!(actions(&mut group), [commit(2, 2)]);
        group.acknowledged(&1, Stage::Prepared, 3, at(6));
        group.acknowledged(&2, Stage::Committed, 2, at(7));
        assert_eq!(actions(&mut group), [prepare(2, 3)]);
        group.acknowledged(&2, Stage::Prepared, 3, at(8));
        assert_eq!(actions(&mut group), [commit(1, 3), commit(2, 3), distribute(3, &[])]);
    }

    #[test]
    fn after_a_restart_the_latest_generation_is_committed_once_more() {
        let made = Generation { epoch: 1, version: 7 };
        let mut group = RootGroup::new(made, [1, 2], at(50), at(0));
        assert_eq!((actions(&mut group), group.generation()), (vec![], made));
        group.joined(&1, at(5));
        assert_eq!(actions(&mut group), [prepare(1, 7)]);
        group.acknowledged(&1, Stage::Prepared, 7, at(6));
        assert_eq!(actions(&mut group), []);
        group.handle_timeout(at(50));
        assert_eq!(actions(&mut group), [commit(1, 7), distribute(7, &[])]);
    }

    #[test]
    fn a_sub_server_that_goes_is_not_waited_for() {
        let mut group = settled();
        group.make(at(1000), at(2));
        group.acknowledged(&1, Stage::Prepared, 2, at(3));
        actions(&mut group);
        assert_eq!(group.reconfigure([1, 3], at(4)), [2]);
        assert_eq!(actions(&mut group), [commit(1, 2), distribute(2, &[])]);
    }
}

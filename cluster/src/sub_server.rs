//! A sub-server's side of one group: what it distributes, and when it asks the root for everything.
//!
//! | event | what follows |
//! |---|---|
//! | start, the root is dead | cluster-init, every 5 s until it is answered; no answer to new members |
//! | prepared | written down and acknowledged; nobody is told |
//! | committed | distributed, pushes relayed |
//! | a soft lifetime ends without news | cluster-init; nothing is pushed until there is news |
//! | a hard lifetime ends without news | the root counts as inactive, the members are forgotten |
//! | all SAs are deleted | cluster-init |
//! | the group's configuration changes | cluster-init |
//!
//! It never makes a push, and none of this tells members to delete anything.

use std::collections::VecDeque;
use std::time::Duration;

use ike::BootTime;

use crate::error::{Refusal, Stale};
use crate::{Generation, Stage};

/// How often cluster-init is tried.
pub const RETRY: Duration = Duration::from_secs(5);

/// What is to be done for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubServerAction {
    /// Ask the root for everything.
    Ask,
    /// The keys have ended: forget the members.
    Forget,
}

/// What a sub-server knows about its root server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootActivity {
    /// It has told everything, and tells what is new.
    Active { since: BootTime },
    /// It has not answered yet, is dead, or let the keys end.
    Inactive { since: BootTime },
}

/// What to do with a generation that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is new: write it down, then acknowledge it.
    New,
    /// It is there already: acknowledge it.
    Held,
}

/// A sub-server's side of one group.
///
/// Drain [`poll_action`](Self::poll_action) after every call, then read
/// [`poll_timeout`](Self::poll_timeout). `now` must never go back.
#[derive(Debug)]
pub struct SubServerGroup {
    root: RootActivity,
    /// The generation that members get.
    held: Generation,
    prepared: Option<Generation>,
    /// When cluster-init is due next.
    ask_at: Option<BootTime>,
    soft_end: Option<BootTime>,
    hard_end: Option<BootTime>,
    actions: VecDeque<SubServerAction>,
}

impl SubServerGroup {
    /// A sub-server that distributes `held`, from before a restart.
    pub fn new(held: Generation, now: BootTime) -> Self {
        Self {
            root: RootActivity::Inactive { since: now },
            held,
            prepared: None,
            ask_at: Some(now),
            soft_end: None,
            hard_end: None,
            actions: VecDeque::new(),
        }
    }

    /// As from before a restart, with what was prepared then.
    #[must_use]
    pub fn with_prepared(self, prepared: Option<Generation>) -> Self {
        Self { prepared: prepared.filter(|prepared| *prepared > self.held), ..self }
    }

    pub fn root(&self) -> RootActivity {
        self.root
    }

    /// The generation that members get.
    pub fn held(&self) -> Generation {
        self.held
    }

    /// What is written down and waits for its commit.
    pub fn prepared(&self) -> Option<Generation> {
        self.prepared
    }

    /// Whether new members are answered.
    pub fn answers_new_members(&self) -> bool {
        matches!(self.root, RootActivity::Active { .. }) && self.held.version > 0
    }

    /// When news should have come, and when the keys end. Of what is distributed.
    pub fn set_lifetimes(&mut self, soft_end: Option<BootTime>, hard_end: Option<BootTime>) {
        (self.soft_end, self.hard_end) = (soft_end, hard_end);
    }

    /// Asks for everything now: the configuration changed, or all SAs were deleted.
    pub fn ask(&mut self, now: BootTime) {
        self.ask_at = Some(self.ask_at.map_or(now, |at| at.min(now)));
    }

    /// The root is dead. Keys and members stay.
    pub fn lost(&mut self, now: BootTime) {
        if matches!(self.root, RootActivity::Active { .. }) {
            self.root = RootActivity::Inactive { since: now };
        }
        self.ask(now);
    }

    /// The root does not follow what was said: it is asked again after a while. Keys and members
    /// stay.
    pub fn refused(&mut self, now: BootTime) {
        if matches!(self.root, RootActivity::Active { .. }) {
            self.root = RootActivity::Inactive { since: now };
        }
        self.ask_at = Some(now + RETRY);
    }

    /// The root has told everything. Returns whether it is news, then [`Self::installed`] follows.
    ///
    /// # Errors
    /// It is older than what is here: nothing changes, and the root counts as inactive.
    pub fn told(
        &mut self,
        generation: Generation,
        stage: Stage,
        now: BootTime,
    ) -> Result<Arrival, Stale> {
        self.check(generation)?;
        if matches!(self.root, RootActivity::Inactive { .. }) {
            self.root = RootActivity::Active { since: now };
        }
        // Without keys there, and without a prepared generation's commit, it is asked again.
        self.ask_at = (generation.version == 0).then_some(now + RETRY);
        Ok(match stage {
            Stage::Committed if generation == self.held => Arrival::Held,
            Stage::Prepared if self.is_held(generation) => Arrival::Held,
            _ => Arrival::New,
        })
    }

    /// A generation is to be prepared. If it is new, [`Self::installed`] follows.
    ///
    /// # Errors
    /// It is refused, and nothing changes.
    pub fn prepare(&mut self, generation: Generation) -> Result<Arrival, Refusal> {
        self.check(generation).map_err(|stale| Refusal::LowerEpoch {
            ours: stale.held.epoch,
            theirs: generation.epoch,
        })?;
        Ok(if self.is_held(generation) { Arrival::Held } else { Arrival::New })
    }

    /// A generation is to be distributed. If it is [`Arrival::New`], the caller distributes what was
    /// prepared, and [`Self::installed`] follows.
    ///
    /// # Errors
    /// It was never prepared here: everything is asked for.
    pub fn commit(&mut self, generation: Generation, now: BootTime) -> Result<Arrival, Refusal> {
        if generation == self.held {
            return Ok(Arrival::Held);
        }
        if generation.epoch < self.held.epoch {
            let (ours, theirs) = (self.held.epoch, generation.epoch);
            return Err(Refusal::LowerEpoch { ours, theirs });
        }
        if self.prepared == Some(generation) {
            return Ok(Arrival::New);
        }
        self.ask(now);
        Err(Refusal::NotPrepared(generation))
    }

    /// A generation has been written down at this stage.
    pub fn installed(&mut self, generation: Generation, stage: Stage) {
        match stage {
            Stage::Prepared => self.prepared = Some(generation),
            Stage::Committed => {
                self.held = generation;
                self.prepared = self.prepared.filter(|prepared| *prepared > generation);
            }
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        if self.soft_end.is_some_and(|end| end <= now) {
            self.soft_end = Some(now + RETRY);
            self.ask(now);
        }
        if self.hard_end.is_some_and(|end| end <= now) {
            self.hard_end = None;
            self.root = RootActivity::Inactive { since: now };
            self.ask(now);
            self.actions.push_back(SubServerAction::Forget);
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            // Until it is answered.
            self.ask_at = Some(now + RETRY);
            self.actions.push_back(SubServerAction::Ask);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        [self.ask_at, self.soft_end, self.hard_end].into_iter().flatten().min()
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<SubServerAction> {
        self.actions.pop_front()
    }

    fn is_held(&self, generation: Generation) -> bool {
        // An older one that comes late changes nothing: the later one says all that it says.
        self.held == generation || self.prepared >= Some(generation)
    }

    /// Numbers never go back.
    fn check(&self, generation: Generation) -> Result<(), Stale> {
        match generation < self.held {
            true => Err(Stale { have: generation, held: self.held, stage: Stage::Committed }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn generation(version: u64) -> Generation {
        Generation { epoch: 1, version }
    }

    fn actions(group: &mut SubServerGroup, now: BootTime) -> Vec<SubServerAction> {
        group.handle_timeout(now);
        std::iter::from_fn(|| group.poll_action()).collect()
    }

    fn settled() -> SubServerGroup {
        let mut group = SubServerGroup::new(Generation::default(), at(0));
        assert_eq!(actions(&mut group, at(0)), [SubServerAction::Ask]);
        assert_eq!(group.told(generation(1), Stage::Committed, at(1)), Ok(Arrival::New));
        group.installed(generation(1), Stage::Committed);
        group
    }

    #[test]
    fn cluster_init_is_tried_every_five_seconds_until_it_is_answered() {
        let mut group = SubServerGroup::new(Generation::default(), at(0));
        assert!(!group.answers_new_members());
        for second in 0..12 {
            let due = second % 5 == 0;
            assert_eq!(actions(&mut group, at(second)).len(), usize::from(due), "{second}");
        }
        group.told(generation(1), Stage::Committed, at(12)).unwrap();
        group.installed(generation(1), Stage::Committed);
        assert!(group.answers_new_members());
        assert_eq!((group.poll_timeout(), actions(&mut group, at(100))), (None, vec![]));
    }

    #[test]
    fn what_is_prepared_waits_for_its_commit() {
        let mut group = settled();
        assert_eq!(group.prepare(generation(2)), Ok(Arrival::New));
        group.installed(generation(2), Stage::Prepared);
        assert_eq!((group.held(), group.prepared()), (generation(1), Some(generation(2))));
        assert_eq!(group.prepare(generation(2)), Ok(Arrival::Held), "a copy is acknowledged again");
        assert_eq!(group.commit(generation(2), at(2)), Ok(Arrival::New));
        group.installed(generation(2), Stage::Committed);
        assert_eq!(group.commit(generation(2), at(3)), Ok(Arrival::Held));
        assert_eq!((group.held(), group.prepared()), (generation(2), None));
    }

    /// The network may deliver the two in another order.
    #[test]
    fn an_older_generation_does_not_take_the_place_of_a_later_one() {
        let mut group = settled();
        assert_eq!(group.prepare(generation(3)), Ok(Arrival::New));
        group.installed(generation(3), Stage::Prepared);
        assert_eq!(group.prepare(generation(2)), Ok(Arrival::Held));
        assert_eq!(group.told(generation(2), Stage::Prepared, at(2)), Ok(Arrival::Held));
        assert_eq!(group.prepared(), Some(generation(3)));
        assert_eq!(group.commit(generation(3), at(2)), Ok(Arrival::New));
    }

    #[test]
    fn a_commit_of_what_never_came_asks_for_everything() {
        let mut group = settled();
        let refusal = group.commit(generation(3), at(2));
        assert_eq!(refusal, Err(Refusal::NotPrepared(generation(3))));
        assert_eq!(actions(&mut group, at(2)), [SubServerAction::Ask]);
    }

    #[test]
    fn numbers_never_go_back() {
        let mut group = settled();
        let next = Generation { epoch: 2, version: 1 };
        assert_eq!(group.prepare(next), Ok(Arrival::New));
        group.installed(next, Stage::Committed);
        let refusal = Err(Refusal::LowerEpoch { ours: 2, theirs: 1 });
        assert_eq!(group.prepare(generation(9)), refusal);
        assert_eq!(group.commit(generation(9), at(2)), refusal);
        let stale = group.told(generation(9), Stage::Committed, at(2)).unwrap_err();
        assert_eq!(
            stale.to_string(),
            "version 9 of epoch 1 arrived, version 1 of epoch 2 is committed here already"
        );
        assert_eq!(group.held(), next);
    }

    #[test]
    fn a_dead_root_changes_nothing_for_members_until_the_keys_end() {
        let mut group = settled();
        group.set_lifetimes(Some(at(500)), Some(at(600)));
        group.lost(at(100));
        assert!(!group.answers_new_members());
        let mut forgotten = Vec::new();
        for second in 100..700 {
            if actions(&mut group, at(second)).contains(&SubServerAction::Forget) {
                forgotten.push(second);
            }
        }
        assert_eq!(forgotten, [600]);
    }

    #[test]
    fn a_soft_lifetime_that_ends_without_news_asks_for_everything() {
        let mut group = settled();
        group.set_lifetimes(Some(at(500)), Some(at(600)));
        assert_eq!(actions(&mut group, at(499)), []);
        assert_eq!(actions(&mut group, at(500)), [SubServerAction::Ask]);
        // The root has nothing newer yet.
        assert_eq!(group.told(generation(1), Stage::Committed, at(501)), Ok(Arrival::Held));
        assert!(group.answers_new_members());
        assert_eq!(actions(&mut group, at(506)), [SubServerAction::Ask]);
    }
}

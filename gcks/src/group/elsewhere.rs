//! Members of a cluster's group at other servers: the root knows who is registered where, so that
//! a member counts once and can be taken out wherever it is.
//!
//! Sub-servers report what changes, and everything when they have been away. Of this the sealed
//! state has only that members may be forgotten everywhere: the rest is reported again after a
//! restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ike::BootTime;

use super::Group;
use super::kek::Kek;
use crate::members::registry::MemberId;

/// A member at another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Where it is registered; `None` if nowhere any more, and it holds the KEK.
    pub server: Option<Arc<str>>,
    /// Name in the configuration there.
    pub name: Arc<str>,
    /// When it last registered.
    pub last: BootTime,
    /// All leaves of the key hierarchy that it has got.
    pub leaves: BTreeSet<u16>,
    /// Whether it has a registration without a leaf of the hierarchy in use.
    pub is_unplaced: bool,
}

/// What a server says about a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Registered,
    /// It is no longer registered and holds the KEK.
    Holder,
    Gone,
    /// It has registered at another server.
    Moved,
}

/// A member in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedMember {
    pub id: MemberId,
    pub name: Arc<str>,
    pub last: BootTime,
    /// Its leaf, and what tells the leaf's present key from those before.
    pub leaf: Option<(u16, u32)>,
    pub standing: Standing,
}

/// Members that one server tells another one of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether these are all, and whoever is not among them is none.
    pub whole: bool,
    pub members: Vec<ReportedMember>,
}

/// Members that a server has to hear of because they have registered elsewhere since.
pub type Moves = Vec<(Arc<str>, ReportedMember)>;

impl Group {
    /// Members at other servers, as far as they have been reported.
    pub fn elsewhere(&self) -> &BTreeMap<MemberId, Elsewhere> {
        &self.cluster.elsewhere
    }

    /// Whether every sub-server has reported its members and is there.
    pub fn set_knows_everybody(&mut self, knows_everybody: bool) {
        self.cluster.knows_everybody = knows_everybody;
    }

    /// Whether a member that is not known has no keys.
    pub fn knows_everybody(&self) -> bool {
        !self.is_root() || (self.cluster.knows_everybody && !self.cluster.has_strangers)
    }

    /// Whether somebody may hold the KEK whom no server knows any more: a sub-server has lost its
    /// state. Only when that KEK is gone does a removal leave everybody else as they are.
    pub fn has_strangers(&self) -> bool {
        self.cluster.has_strangers
    }

    pub(crate) fn restore_strangers(&mut self) {
        self.cluster.has_strangers = true;
    }

    /// A sub-server has lost its state: nobody knows which members it has given which sender
    /// identifiers. [`divide`](Self::divide) gives it others.
    pub fn take_loss(&mut self, server: &str, now: BootTime) {
        let last_end = self.teks.last_end(now);
        if let Some(blocks) = &mut self.cluster.blocks {
            blocks.retire(server, last_end);
        }
        self.cluster.has_strangers = true;
        self.changed = true;
    }

    /// Who has come or gone here since it was asked last.
    pub fn take_touched(&mut self) -> BTreeSet<MemberId> {
        self.registry.take_touched()
    }

    /// What the root is told of these members, or of all.
    pub fn report(&self, touched: &BTreeSet<MemberId>, whole: bool) -> Report {
        let abandoned = self.rekey_sa.iter().flat_map(|rekey_sa| rekey_sa.abandoned.keys());
        let all = || self.registry.iter().map(|(id, _)| id).chain(abandoned);
        let ids: BTreeSet<&MemberId> =
            if whole { all().collect() } else { touched.iter().collect() };
        Report { whole, members: ids.into_iter().map(|id| self.reported(id)).collect() }
    }

    fn reported(&self, id: &MemberId) -> ReportedMember {
        let tree = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.kek()?.tree());
        let placed = |leaf: Option<u16>| leaf.and_then(|leaf| Some((leaf, tree?.handle(leaf)?)));
        let abandoned = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.abandoned.get(id));
        let (name, last, leaf, standing) = match (self.registry.find(id), abandoned) {
            (Some(one), _) => (&*one.name, one.last, placed(one.leaf), Standing::Registered),
            (None, Some(one)) => {
                (&*one.name, BootTime::default(), placed(one.leaf), Standing::Holder)
            }
            (None, None) => ("", BootTime::default(), None, Standing::Gone),
        };
        ReportedMember { id: id.clone(), name: name.into(), last, leaf, standing }
    }

    /// Takes over what a sub-server reports. Returns who has to leave which server.
    pub fn take_report(&mut self, server: &Arc<str>, report: Report, now: BootTime) -> Moves {
        let tree = self.rekey_sa.as_ref().and_then(|rekey_sa| rekey_sa.kek()?.tree());
        let has_tree = tree.is_some();
        // A leaf of a hierarchy before is none.
        let leaves: Vec<Option<u16>> = report
            .members
            .iter()
            .map(|one| {
                let (leaf, handle) = one.leaf?;
                (tree?.handle(leaf) == Some(handle)).then_some(leaf)
            })
            .collect();
        if report.whole {
            let reported: BTreeSet<&MemberId> = report.members.iter().map(|one| &one.id).collect();
            self.cluster
                .elsewhere
                .retain(|id, one| one.server.as_ref() != Some(server) || reported.contains(id));
        }
        let mut moves = Moves::new();
        for (one, leaf) in report.members.into_iter().zip(leaves) {
            let known = self.cluster.elsewhere.get_mut(&one.id);
            let is_here = known.as_ref().is_some_and(|known| known.server.as_ref() == Some(server));
            match one.standing {
                Standing::Moved => {}
                Standing::Gone if is_here => _ = self.cluster.elsewhere.remove(&one.id),
                Standing::Gone => {}
                Standing::Holder => match known {
                    Some(known) => {
                        known.leaves.extend(leaf);
                        known.server = known.server.take().filter(|_| !is_here);
                    }
                    None => self.enter(one, (None, leaf, None)),
                },
                Standing::Registered => {
                    let own = self.registry.find(&one.id).map(|own| own.last);
                    let before = known.as_ref().and_then(|known| known.server.clone());
                    let before = before.filter(|before| before != server);
                    let last = known.as_ref().map(|known| known.last).filter(|_| before.is_some());
                    let moved = |to: &Arc<str>, last| {
                        let standing = Standing::Moved;
                        (Arc::clone(to), ReportedMember { last, standing, ..one.clone() })
                    };
                    let newest = own.max(last).filter(|newest| *newest > one.last);
                    match newest {
                        Some(newest) => moves.push(moved(server, newest)),
                        None => moves.extend(before.as_ref().map(|old| moved(old, one.last))),
                    }
                    if own.is_some_and(|own| own <= one.last) {
                        self.abandon_member(&one.id, now);
                    }
                    // With a leaf of the hierarchy it holds nothing that a removal does not replace.
                    let is_unplaced = newest.is_none().then_some(has_tree && leaf.is_none());
                    let here = if own > last { None } else { before };
                    let server = if newest.is_some() { here } else { Some(Arc::clone(server)) };
                    self.enter(one, (server, leaf, is_unplaced));
                }
            }
        }
        moves
    }

    fn enter(
        &mut self,
        one: ReportedMember,
        (server, leaf, is_unplaced): (Option<Arc<str>>, Option<u16>, Option<bool>),
    ) {
        let ReportedMember { id, name, last, .. } = one;
        let entry = self.cluster.elsewhere.entry(id).or_insert_with(|| Elsewhere {
            server: None,
            name: Arc::clone(&name),
            last,
            leaves: BTreeSet::new(),
            is_unplaced: false,
        });
        (entry.server, entry.name, entry.last) = (server, name, entry.last.max(last));
        entry.leaves.extend(leaf);
        entry.is_unplaced = is_unplaced.unwrap_or(entry.is_unplaced);
    }

    /// Members that have registered with the root itself: where they were before hears of it.
    pub fn note_own(&mut self, touched: &BTreeSet<MemberId>) -> Moves {
        let mut moves = Moves::new();
        for id in touched {
            let Some(last) = self.registry.find(id).map(|own| own.last) else { continue };
            let Some(known) = self.cluster.elsewhere.get_mut(id) else { continue };
            if let Some(server) = known.server.take_if(|_| known.last <= last) {
                let (name, standing) = (Arc::clone(&known.name), Standing::Moved);
                let moved = ReportedMember { id: id.clone(), name, last, leaf: None, standing };
                moves.push((server, moved));
            }
        }
        moves
    }

    /// A member has registered at another server: it counts there. Returns whether it counted here.
    pub fn leave(&mut self, moved: &ReportedMember, now: BootTime) -> bool {
        let is_older = self.registry.find(&moved.id).is_some_and(|one| one.last < moved.last);
        if is_older {
            self.abandon_member(&moved.id, now);
        }
        is_older
    }

    /// Who of these members was removed and has registered all the same, before its server knew.
    pub fn removed_elsewhere(&self) -> BTreeSet<MemberId> {
        let removed =
            self.cluster.elsewhere.iter().filter(|(_, one)| {
                one.server.is_some() && self.removed.contains(one.name.as_ref())
            });
        removed.map(|(id, _)| id.clone()).collect()
    }

    /// Members at other servers with one of these names.
    pub fn named_elsewhere<'a>(
        &'a self,
        is_meant: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = &'a MemberId> {
        let all = self.cluster.elsewhere.iter();
        all.filter(move |(_, one)| is_meant(&one.name)).map(|(id, _)| id)
    }

    /// The leaves by which members at other servers are excluded; `None` if one of all members
    /// there has none. Also tells whether others are left.
    pub(super) fn leaves_elsewhere(&self, ids: &BTreeSet<MemberId>) -> Option<(Vec<u16>, bool)> {
        let (mut excluded, mut left) = (Vec::new(), false);
        for (id, one) in &self.cluster.elsewhere {
            if one.is_unplaced {
                return None;
            }
            match ids.contains(id) {
                true => excluded.extend(&one.leaves),
                false => left |= one.server.is_some(),
            }
        }
        let tree = self.rekey_sa.as_ref()?.kek().and_then(Kek::tree)?;
        excluded.retain(|leaf| tree.members().contains(leaf));
        Some((excluded, left))
    }
}

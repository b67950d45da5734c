//! What a reload changes and what follows, without doing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gdoi::group::GroupId;
use ike::config::Identity;
use ipnet::IpNet;

use super::reload::Renamed;
use super::{KeyServer, server_config};
use crate::config::change::{Change, Consequence, Departure, Difference, Subject};
use crate::config::difference::{limit_differences, member_differences};
use crate::config::{self, Config, Member, names};
use crate::group::Group;
use crate::group::eviction::Left;
use crate::group::key_generation::Entropy;
use crate::group::signing_key::SigningKeys;
use crate::members::authorization::Authorization;
use crate::members::registry::MemberId;

/// How many ISAKMP SAs of each member end, by the name that it had.
pub(super) type Ended = BTreeMap<Arc<str>, usize>;

/// Who of the members before is who.
pub(super) struct Succession<'a> {
    /// By the name before, with both entries.
    by_name: BTreeMap<&'a str, (&'a Member, &'a Member)>,
    came: Vec<&'a Member>,
    went: Vec<&'a Member>,
}

impl<'a> Succession<'a> {
    /// The same peer, whatever its name, is the same member; or else the one that has its name and
    /// is none of the peers before.
    pub(super) fn new(old: &'a [Member], new: &'a [Member]) -> Self {
        let mut by_address: BTreeMap<IpNet, Vec<&Member>> = BTreeMap::new();
        new.iter().for_each(|after| by_address.entry(after.addresses).or_default().push(after));
        let same = |before: &Member| {
            let there = by_address.get(&before.addresses)?.iter();
            there.copied().find(|after| is_same_peer(after, before))
        };
        let mut taken: BTreeSet<&str> =
            old.iter().filter_map(same).map(|after| after.name.as_str()).collect();
        let others = new.iter().filter(|after| !taken.contains(after.name.as_str()));
        let named: BTreeMap<&str, &Member> =
            others.map(|after| (after.name.as_str(), after)).collect();
        let (mut by_name, mut went) = (BTreeMap::new(), Vec::new());
        for before in old {
            match same(before).or_else(|| named.get(before.name.as_str()).copied()) {
                Some(after) => _ = by_name.insert(before.name.as_str(), (before, after)),
                None => went.push(before),
            }
        }
        taken.extend(by_name.values().map(|(_, after)| after.name.as_str()));
        let came = new.iter().filter(|after| !taken.contains(after.name.as_str()));
        Self { by_name, came: came.collect(), went }
    }

    /// Members that have another name now.
    pub(super) fn renamed(&self) -> Renamed<'a> {
        let renamed = self.by_name.iter().filter(|(name, (_, after))| **name != after.name);
        renamed.map(|(name, (_, after))| (*name, after.name.as_str().into())).collect()
    }

    /// Members that lose a group and stay.
    pub(super) fn leaving(&self) -> impl Iterator<Item = (&'a Member, &'a Member)> {
        let lose = |(before, after): &&(&Member, &Member)| !before.groups.is_subset(&after.groups);
        self.by_name.values().filter(lose).copied()
    }
}

/// Whether the same peer is meant, whatever its name: it proves the same from the same place with
/// the same key.
fn is_same_peer(one: &Member, other: &Member) -> bool {
    one.addresses == other.addresses
        && one.identity == other.identity
        && one.credential == other.credential
}

/// Whether a group is there under the same name and number.
pub(super) fn is_kept(state: &Group, groups: &[config::Group]) -> bool {
    groups.iter().any(|group| group.name == state.config().name && group.id == state.id())
}

/// Who is evicted from which group, by the name before.
type Evictions = BTreeMap<Arc<str>, Vec<(Arc<str>, Departure)>>;

impl<E: Entropy> KeyServer<E> {
    /// What [`KeyServer::reload`] with these changes, and what follows. Nothing is done.
    pub fn plan(&self, config: &Config, keys: &SigningKeys) -> Vec<Change> {
        let mut changes = Vec::new();
        let (new, old) = (server_config(config), self.server.config());
        let all = self.plan_server(&new, config.most_members, &mut changes);
        let mut ended = Ended::new();
        if !all && (old.limits != new.limits || self.members != config.members) {
            for (peer, identity) in self.server.ended_by(&new) {
                if let Some(name) = self.authorization.member_of(&identity, peer.ip()) {
                    *ended.entry(Arc::clone(name)).or_default() += 1;
                }
            }
        }
        let authorization = Authorization::new(&config.members);
        let succession = Succession::new(&self.members, &config.members);
        if !all {
            self.count_leaving(&succession, &authorization, &config.groups, &mut ended);
        }
        let after = (config.members.as_slice(), &authorization);
        changes.extend(self.plan_members_and_groups(
            &self.members,
            after,
            &config.groups,
            keys,
            &ended,
        ));
        changes
    }

    /// What changes for all. Returns whether all ISAKMP SAs end.
    fn plan_server(
        &self,
        new: &gdoi::config::ServerConfig,
        most_members: Option<usize>,
        changes: &mut Vec<Change>,
    ) -> bool {
        let old = self.server.config();
        let mut add = |difference, consequence| {
            changes.push(Change::new(Subject::Server, difference, vec![consequence]));
        };
        let sas = Consequence::IsakmpSasEnd(self.server.peers().count());
        if old.phase1 != new.phase1 {
            add(Difference::untold(names::ike()), sas.clone());
        }
        if old.identity != new.identity {
            let text = |identity: &Option<Identity>| match identity {
                Some(identity) => identity.to_string(),
                None => String::from("the address asked"),
            };
            let difference =
                Difference::of(names::server_identity(), text(&old.identity), text(&new.identity));
            add(difference, sas);
        }
        let before = (&old.limits, self.most_members);
        for difference in limit_differences(before, (&new.limits, most_members)) {
            add(difference, Consequence::AtOnce);
        }
        old.phase1 != new.phase1 || old.identity != new.identity
    }

    /// ISAKMP SAs of members that stay and lose a group that stays, besides those in `ended`
    /// already.
    fn count_leaving(
        &self,
        succession: &Succession<'_>,
        authorization: &Authorization,
        groups: &[config::Group],
        ended: &mut Ended,
    ) {
        let kept: BTreeSet<GroupId> = self.kept(groups).map(Group::id).collect();
        let lose = |(before, after): &(&Member, &Member)| {
            before.groups.difference(&after.groups).any(|id| kept.contains(id))
        };
        let leaving: BTreeMap<&str, &str> = succession
            .leaving()
            .filter(lose)
            .map(|(before, after)| (after.name.as_str(), before.name.as_str()))
            .collect();
        if leaving.is_empty() {
            return;
        }
        for (peer, identity) in self.server.peers() {
            let name = authorization.member_of(identity, peer.ip());
            let Some(before) = name.and_then(|name| leaving.get(name.as_ref())) else { continue };
            let counted = ended.entry((*before).into()).or_default();
            *counted = counted.saturating_add(1);
        }
    }

    fn kept(&self, groups: &[config::Group]) -> impl Iterator<Item = &Group> {
        self.groups.values().filter(|state| is_kept(state, groups))
    }

    pub(super) fn plan_members_and_groups(
        &self,
        old: &[Member],
        (new, authorization): (&[Member], &Authorization),
        groups: &[config::Group],
        keys: &SigningKeys,
        ended: &Ended,
    ) -> Vec<Change> {
        let succession = Succession::new(old, new);
        let mut evictions = Evictions::new();
        let mut left = BTreeMap::new();
        for group in self.kept(groups) {
            left.insert(
                group.id(),
                plan_evictions(group, &succession.renamed(), authorization, &mut evictions),
            );
        }
        let names = self.groups.values().map(|group| (group.id(), &**group.name())).collect();
        let mut changes = plan_members(&succession, (names, groups), evictions, ended.clone());
        for group in self.groups.values().filter(|state| !is_kept(state, groups)) {
            let (told, forgotten) = (group.left().told(), group.registry().len());
            let identities: BTreeSet<&Identity> =
                group.registry().iter().map(|(id, _)| &id.identity).collect();
            let sas = self.server.peers().filter(|(_, identity)| identities.contains(identity));
            let consequences = vec![
                Consequence::GroupEnds { told, forgotten },
                Consequence::IsakmpSasEnd(sas.count()),
            ];
            let difference = Difference {
                before: Some(group.id().to_string()),
                ..Difference::untold(names::group_id())
            };
            changes.push(Change::new(subject(group.name()), difference, consequences));
        }
        for config in groups {
            let state = self.groups.get(&config.id).filter(|state| is_kept(state, groups));
            let Some(group) = state else {
                let difference = Difference {
                    after: Some(config.id.to_string()),
                    ..Difference::untold(names::group_id())
                };
                let made = vec![Consequence::GroupMade];
                changes.push(Change::new(subject(&config.name), difference, made));
                continue;
            };
            let key = keys.get(&config.name).map(AsRef::as_ref);
            if *group.config() != *config || group.is_signing_key_changed(config, key) {
                let left = left.get(&config.id).copied().unwrap_or_else(|| group.left());
                changes.extend(group.plan(config, key, left));
            }
        }
        changes
    }
}

fn subject(group: &str) -> Subject {
    Subject::Group(group.into())
}

/// Who is evicted from a group, and what that leaves of it.
fn plan_evictions(
    group: &Group,
    renamed: &Renamed<'_>,
    authorization: &Authorization,
    evictions: &mut Evictions,
) -> Left {
    let unauthorized = group.unauthorized(renamed, |member| {
        let MemberId { identity, address } = member;
        authorization.check(identity, *address, group.id(), (Some(group.name()), None)).ok()
    });
    if unauthorized.is_empty() {
        return group.left();
    }
    let names: BTreeSet<Arc<str>> = unauthorized.values().cloned().collect();
    let ids: BTreeSet<MemberId> = unauthorized.into_keys().collect();
    let (how, left) = group.departure(&ids);
    for name in names {
        evictions.entry(name).or_default().push((Arc::clone(group.name()), how));
    }
    left
}

fn plan_members(
    succession: &Succession<'_>,
    (names_before, groups): (BTreeMap<GroupId, &str>, &[config::Group]),
    mut evictions: Evictions,
    mut ended: Ended,
) -> Vec<Change> {
    let names_after: BTreeMap<GroupId, &str> =
        groups.iter().map(|group| (group.id, group.name.as_str())).collect();
    let of = |names: &BTreeMap<GroupId, &str>, ids: &BTreeSet<GroupId>| -> BTreeSet<Arc<str>> {
        ids.iter().filter_map(|id| Some((*names.get(id)?).into())).collect()
    };
    let text = |names: &BTreeSet<Arc<str>>| {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        Some(names.join(", ")).filter(|text| !text.is_empty())
    };
    let mut changes = Vec::new();
    let mut leaves = |name: &str, ended: &mut Ended| {
        let count = ended.remove(name);
        let sas = count.map(Consequence::IsakmpSasEnd);
        let evicted = evictions.remove(name).unwrap_or_default().into_iter();
        let evicted = evicted.map(|(group, how)| Consequence::Evicted { group, how });
        sas.into_iter().chain(evicted).collect::<Vec<_>>()
    };
    for (before, after) in succession.by_name.values() {
        let subject = Subject::Member(before.name.as_str().into());
        let mut differences = member_differences(before, after);
        // A group with another number goes and comes; its members do not change by that.
        let old = of(&names_before, &before.groups);
        let new = of(&names_after, &after.groups);
        if old != new {
            let (before, after) = (text(&old), text(&new));
            differences.push(Difference { option: names::groups(), before, after });
        }
        let mut what_ends = leaves(&before.name, &mut ended);
        let is_peer = is_same_peer(before, after);
        for difference in differences {
            // What ends ends because of the last difference that can be the cause.
            let is_of_groups = difference.option == names::groups();
            let ends_nothing = [names::member_name(), names::member_byte_order()]
                .contains(&difference.option)
                || (is_of_groups && !is_peer);
            let mut consequences = match ends_nothing {
                true => Vec::new(),
                false => std::mem::take(&mut what_ends),
            };
            if is_of_groups {
                let gained: Vec<Arc<str>> = new.difference(&old).cloned().collect();
                consequences
                    .extend((!gained.is_empty()).then_some(Consequence::MayRegister(gained)));
            }
            if consequences.is_empty() {
                consequences.push(Consequence::AtOnce);
            }
            changes.push(Change::new(subject.clone(), difference, consequences));
        }
        if !what_ends.is_empty() {
            // Another entry is meant for its hosts now.
            changes.push(Change::new(subject, Difference::untold(names::address()), what_ends));
        }
    }
    for before in &succession.went {
        let address = Some(before.addresses.to_string());
        let difference = Difference { before: address, ..Difference::untold(names::address()) };
        let mut consequences = leaves(&before.name, &mut ended);
        if consequences.is_empty() {
            consequences.push(Consequence::AtOnce);
        }
        changes.push(Change::new(
            Subject::Member(before.name.as_str().into()),
            difference,
            consequences,
        ));
    }
    for after in &succession.came {
        let address = Some(after.addresses.to_string());
        let difference = Difference { after: address, ..Difference::untold(names::address()) };
        let groups = of(&names_after, &after.groups).into_iter().collect();
        let register = Consequence::MayRegister(groups);
        changes.push(Change::new(
            Subject::Member(after.name.as_str().into()),
            difference,
            vec![register],
        ));
    }
    // Who has keys under a name that the configuration before did not have.
    for (name, groups) in evictions {
        let evicted = groups.into_iter().map(|(group, how)| Consequence::Evicted { group, how });
        let consequences = evicted.collect();
        changes.push(Change::new(
            Subject::Member(name),
            Difference::untold(names::address()),
            consequences,
        ));
    }
    changes
}

//! What survives a restart: keys, SPIs, numbers of pushes, sender identifiers, registrations, the
//! key hierarchy. Written as records, so that a registration costs one of them: nothing here knows
//! the server, nor where records are kept, which is [`store`]'s.

mod codec;
mod export;
pub mod needs;
pub mod notice;
mod record;
mod restore;
mod settings;
pub mod shared;
pub mod store;
mod version5;

use std::net::IpAddr;

use gdoi::group::GroupId;
use gdoi::push::{Delivery, DeliveryPolicy, Recipients};
use ike::BootTime;
use ike::crypto::Secret;

use crate::config::{Member, MulticastPath};
use crate::group::Group;
use crate::group::delivery::Dispatch;
use daemon::sealed::codec::{Clock, Decoder, Encoder, StateError};
use record::ServerPart;
use settings::Members;

pub use export::put_group;
pub use record::{Change, Name, Records};

/// Changes when the octets do.
const VERSION: u8 = 8;

/// How some of the octets read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Present,
    /// Without what was added since.
    Version5,
}

/// Members of the configuration in one record.
const MEMBERS: usize = 500;

/// A push on its way that the group's own state does not bring back.
#[derive(Debug)]
pub struct PendingDelivery<'a> {
    pub group: GroupId,
    pub policy: DeliveryPolicy,
    /// How it leaves by multicast.
    pub path: &'a MulticastPath,
    /// The push and where it still goes.
    pub delivery: &'a Delivery,
}

/// A state as it was stored.
#[derive(Debug)]
pub enum Stored {
    /// Records of the present version.
    Records(Records),
    /// The one text of octets that version 5 wrote.
    Version5(Secret),
}

#[derive(Debug)]
pub struct Restored {
    /// The members of the configuration then.
    pub members: Vec<Member>,
    pub groups: Vec<Group>,
    /// Offers of main mode that peers have proved.
    pub offers: Vec<(IpAddr, Vec<u8>)>,
    /// Pushes to send again.
    pub pending: Vec<(GroupId, Dispatch)>,
}

/// The version, and the members of the configuration.
pub fn put_members(changes: &mut Vec<Change>, members: &[Member]) {
    let mut version = Encoder::default();
    version.u8(VERSION);
    changes.push(Change::Put(Name::of_server(ServerPart::Version), version.finish()));
    let name = Name::of_server(ServerPart::Members);
    changes.push(Change::Clear(name.clone()));
    for (number, members) in (0_u32..).zip(members.chunks(MEMBERS)) {
        let mut out = Encoder::default();
        out.count(members.len());
        members.iter().for_each(|member| settings::put_member(&mut out, member));
        changes.push(Change::Put(name.with(&number.to_be_bytes()), out.finish()));
    }
}

/// The offer that a peer has proved.
pub fn put_offer(changes: &mut Vec<Change>, source: IpAddr, offer: &[u8]) {
    let name = Name::of_server(ServerPart::Offer).with_address(source);
    changes.push(Change::Put(name, Secret::copy_from(offer)));
}

/// Pushes on their way that no other record brings back.
pub fn put_pending(changes: &mut Vec<Change>, pending: &[PendingDelivery<'_>]) {
    let name = Name::of_server(ServerPart::Pending);
    if pending.is_empty() {
        changes.push(Change::Remove(name));
        return;
    }
    let mut out = Encoder::default();
    out.count(pending.len());
    pending.iter().for_each(|pending| put_delivery(&mut out, pending));
    changes.push(Change::Put(name, out.finish()));
}

/// Reads a state. `members` are those of the configuration now: their keys are not in the state.
///
/// # Errors
/// This is no state of this version.
pub fn decode(
    stored: &Stored,
    clock: Clock,
    members: &[Member],
    now: BootTime,
) -> Result<Restored, StateError> {
    let members = Members::new(members);
    let records = match stored {
        Stored::Version5(octets) => return version5::decode(octets, clock, &members, now),
        Stored::Records(records) => records,
    };
    let version = records.get(&Name::of_server(ServerPart::Version));
    let is_known = version.is_some_and(|version| version.expose() == [VERSION]);
    if !is_known {
        return Err(StateError { offset: 0, what: "another version of gcks" });
    }
    let mut before = Vec::new();
    for (_, octets) in records.beginning(Name::of_server(ServerPart::Members)) {
        let mut from = Decoder::new(octets.expose(), clock);
        before.extend(from.list(|from| settings::member(from, &members, Form::Present))?);
        from.finish()?;
    }
    let mut offers = Vec::new();
    for (key, offer) in records.beginning(Name::of_server(ServerPart::Offer)) {
        offers.push((Decoder::new(key, clock).address()?, offer.expose().to_vec()));
    }
    let mut pending = Vec::new();
    if let Some(octets) = records.get(&Name::of_server(ServerPart::Pending)) {
        let mut from = Decoder::new(octets.expose(), clock);
        pending = from.list(self::pending)?;
        from.finish()?;
    }
    let groups = records.groups().map(|id| restore::group(records, id, clock, now));
    let groups = groups.collect::<Result<_, _>>()?;
    Ok(Restored { members: before, groups, offers, pending })
}

/// When something for another server was written, by the boot-time clock of the one that wrote it.
///
/// # Errors
/// It is nothing of this version.
pub fn written(octets: &[u8], received: BootTime) -> Result<BootTime, StateError> {
    let mut head = Decoder::new(octets, Clock::same(received));
    match head.u8()? {
        VERSION => head.time(),
        _ => Err(head.error("another version of gcks")),
    }
}

fn put_delivery(out: &mut Encoder, pending: &PendingDelivery<'_>) {
    out.u32(pending.group.0);
    settings::put_delivery_policy(out, pending.policy);
    settings::put_path(out, pending.path);
    codec::put_push(out, pending.delivery.push());
    let destinations: Vec<_> = pending.delivery.destinations().collect();
    out.count(destinations.len());
    for (source, destination, leaf_key) in destinations {
        out.socket(source);
        out.socket(destination);
        out.option(leaf_key, |out, key| out.octets(key.expose()));
    }
}

/// Who has the push may have acknowledged it before.
fn pending(from: &mut Decoder<'_>) -> Result<(GroupId, Dispatch), StateError> {
    let group = GroupId(from.u32()?);
    let (policy, path) = (settings::delivery_policy(from)?, settings::path(from)?);
    let push = codec::push(from)?;
    let mut recipients = Recipients { excused: true, ..Recipients::default() };
    for _ in 0..from.count()? {
        let (source, destination) = (from.socket()?, from.socket()?);
        recipients.destinations.push((source, destination));
        recipients.members.insert(destination.ip(), from.option(Decoder::secret)?);
    }
    Ok((group, Dispatch { push, recipients, policy, path, supersedes: false }))
}

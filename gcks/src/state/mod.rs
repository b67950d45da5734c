//! What survives a restart: keys, SPIs, numbers of pushes, sender identifiers, registrations, the
//! key hierarchy. Written group by group, from values: nothing here knows the server.

mod codec;
mod export;
mod restore;
mod settings;

use std::net::IpAddr;

use gdoi::group::GroupId;
use gdoi::push::{Delivery, DeliveryPolicy, Recipients};
use ike::BootTime;
use ike::crypto::Secret;

use crate::config::{Member, MulticastPath};
use crate::group::Group;
use crate::group::delivery::Dispatch;
use daemon::sealed::codec::{Clock, Decoder, Encoder, StateError};

/// Changes when the octets do.
const VERSION: u8 = 6;

/// What there is to write.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// The members of the configuration.
    pub members: &'a [Member],
    pub groups: Vec<&'a Group>,
    /// Offers of main mode that peers have proved.
    pub offers: Vec<(IpAddr, &'a [u8])>,
    /// Pushes whose recipients are no members any more.
    pub pending: Vec<PendingDelivery<'a>>,
}

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

pub fn encode(snapshot: Snapshot<'_>) -> Secret {
    let Snapshot { members, groups, offers, pending } = snapshot;
    let mut out = Encoder::default();
    out.u8(VERSION);
    out.count(members.len());
    members.iter().for_each(|member| settings::put_member(&mut out, member));
    out.count(groups.len());
    groups.into_iter().for_each(|group| export::put_group(&mut out, group));
    out.count(offers.len());
    for (source, offer) in offers {
        out.address(source);
        out.octets(offer);
    }
    out.count(pending.len());
    pending.iter().for_each(|pending| put_pending(&mut out, pending));
    out.finish()
}

/// Reads a state. `members` are those of the configuration now: their keys are not in the state.
///
/// # Errors
/// The octets are no state of this version.
pub fn decode(
    octets: &Secret,
    clock: Clock,
    members: &[Member],
    now: BootTime,
) -> Result<Restored, StateError> {
    let mut from = Decoder::new(octets.expose(), clock);
    if from.u8()? != VERSION {
        return Err(from.error("another version of gcks"));
    }
    let restored = Restored {
        members: from.list(|from| settings::member(from, members))?,
        groups: from.list(|from| restore::group(from, now))?,
        offers: from.list(|from| Ok((from.address()?, from.octets()?.to_vec())))?,
        pending: from.list(pending)?,
    };
    from.finish()?;
    Ok(restored)
}

fn put_pending(out: &mut Encoder, pending: &PendingDelivery<'_>) {
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

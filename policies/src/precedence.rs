//! Priorities of our policies, and the reqids of TEKs.
//!
//! A lower priority number wins. Policies of one band never disagree, so that ties do not matter;
//! traffic selectors have a number each, because there the order received decides.
//!
//! All of ours come after those of other IPsec daemons: an exclude rule means "not group traffic"
//! and must not override the policy of the tunnel that the packet belongs to. strongSwan computes
//! at most 800,000, libreswan less than 2^22.

use xfrm::model::Reqid;

/// Behind the policies of other IPsec daemons. The priorities here count from it; an operator may
/// choose another one.
pub const BASE: u32 = 10_000_000;
/// The largest that may be chosen: there is room for all bands behind it.
pub const HIGHEST_BASE: u32 = 4_000_000_000;
/// Policies of tunnels. An exclude rule says what is not the group's, and must not let a tunnel's
/// traffic pass in clear; neither must a route of it that leads to a LAN, nor that it goes to a key
/// server. What the ends of a tunnel say to each other comes one before.
pub const TUNNEL: u32 = BASE + 1;
/// LOCAL to and from the key servers: not the group's, and a tunnel's where one leads there.
pub const SERVER: u32 = BASE + 2;
/// Exclude rules, before everything else of the groups.
pub const EXCLUDE: u32 = BASE + 2;
/// Traffic towards the LANs.
pub const LOCAL: u32 = BASE + 3;
/// The first traffic selector of the first group.
pub const SELECTORS: u32 = BASE + 1000;
/// Traffic selectors that one group may have.
pub const SELECTORS_PER_GROUP: usize = 1023;
/// Distance between the first traffic selectors of two groups.
const GROUP_STEP: u32 = 1024;
/// The protected prefixes of a group that only receives: behind all traffic selectors.
pub const MIGRATING: u32 = BLOCK - 1;
/// ICMP errors of the router to its LANs: behind all that lets packets pass otherwise.
pub const ERRORS: u32 = BLOCK - 2;
/// Policies of one direction that the range of indexes can mark as ours.
pub const POLICIES_PER_DIRECTION: usize = 8192;
/// Fail-close: loses against every other policy of ours.
pub const BLOCK: u32 = BASE + 1_000_000;

/// The reqid of slot 0, lane 0, outbound.
pub const REQID_BASE: u32 = 0x4744_0000;
/// Distance between the reqids of two lanes of one group.
const LANE_STEP: u32 = 0x200;
/// Lanes that one group may have: what the range of reqids allows.
pub(crate) const LANES: usize = 128;

/// One of several TEKs that a group uses at the same time for different traffic. Generations of one
/// TEK share a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lane(pub(crate) u8);

impl Lane {
    /// The reqid that ties the policies to the outbound state of this lane.
    pub fn outbound(self, slot: u8) -> Reqid {
        Reqid(REQID_BASE + u32::from(self.0) * LANE_STEP + u32::from(slot) * 2)
    }

    /// The reqid that ties the policies to the inbound states of this lane.
    pub fn inbound(self, slot: u8) -> Reqid {
        Reqid(self.outbound(slot).0 + 1)
    }
}

/// The reqids of a pair of SAs that is no group's, outbound and inbound; `None` beyond the range.
/// They lie behind those of all slots that groups may have.
pub fn tunnel_reqids(number: u16) -> Option<(Reqid, Reqid)> {
    let lane = u32::from(number) / TUNNELS_PER_LANE;
    if lane >= LANES as u32 {
        return None;
    }
    let within = TUNNELS + u32::from(number) % TUNNELS_PER_LANE * 2;
    let outbound = REQID_BASE + lane * LANE_STEP + within;
    Some((Reqid(outbound), Reqid(outbound + 1)))
}

/// The first offset within a lane that no group's slot takes: there are at most 64 groups.
const TUNNELS: u32 = 0x80;
const TUNNELS_PER_LANE: u32 = (LANE_STEP - TUNNELS) / 2;

/// The slot that a reqid of ours belongs to.
pub fn slot_of(reqid: Reqid) -> Option<u8> {
    let within = reqid.0.checked_sub(REQID_BASE)? % LANE_STEP;
    u8::try_from(within / 2).ok()
}

/// Priority of a traffic selector; `place` counts from 0 and is below [`SELECTORS_PER_GROUP`].
pub(crate) fn selector(slot: u8, place: usize) -> u32 {
    let within = u32::try_from(place.min(SELECTORS_PER_GROUP - 1)).unwrap_or(0);
    SELECTORS + u32::from(slot) * GROUP_STEP + within
}

/// Priority of what a group lets pass in clear without a key: right before its traffic selectors.
pub(crate) fn fail_open(slot: u8) -> u32 {
    selector(slot, 0) - 1
}

//! The input for one group: configuration, interfaces and keys as of now.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use gdoi::group::{GroupId, TekKeys, TekPolicy, TrafficSelector};
use ipnet::IpNet;
use xfrm::nft::{DontFragment, SegmentSize};

use crate::zone::Zones;

/// One group on this machine.
#[derive(Debug)]
pub struct GroupInput<'a> {
    /// Name in the configuration, for errors.
    pub name: &'a str,
    /// Group identifier that the policy must be for.
    pub group: GroupId,
    /// Position among the groups: gives reqids and the order of traffic selectors between groups.
    pub slot: u8,
    /// The machine's interfaces and addresses.
    pub zones: Zones,
    /// Fail-close prefixes: nothing between any two of them ever passes in clear.
    pub protected: Vec<IpNet>,
    /// Traffic that always passes in clear.
    pub exclude: Vec<TrafficSelector>,
    /// May pass in clear while there is no valid key.
    pub fail_open: Vec<TrafficSelector>,
    /// Key servers with their UDP ports.
    pub servers: Vec<SocketAddr>,
    /// The multicast group and UDP port of the key server's pushes, if they come that way.
    pub pushes: Option<SocketAddr>,
    /// What the operator chose for it.
    pub options: GroupOptions,
    /// Which keys the group has now.
    pub state: GroupState<'a>,
}

/// An operator's choices for one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// Send with GCM and CCM although the kernel's initialisation vectors cannot carry a sender id
    /// (RFC 6054).
    pub counter_mode_send: bool,
    /// Accept algorithms that are weak today, such as 3DES.
    pub legacy: bool,
    /// The outer header's DF bit.
    pub dont_fragment: DontFragment,
    /// The segment size that TCP connections through the group agree on.
    pub segment_size: SegmentSize,
    /// What the group does while it is being migrated.
    pub mode: Mode,
    /// What becomes of the group's traffic without a valid key.
    pub failure: FailurePolicy,
    /// PLACEHOLDER: destination of the outbound states, an address no host has.
    pub placeholder: IpAddr,
    /// The lowest priority number of the machine's policies: that of the first group counts.
    pub priority: u32,
}

impl GroupOptions {
    /// The defaults for the group at `slot`: 192.0.2.(slot + 1) as placeholder, the last slot
    /// 192.0.2.0.
    pub fn at_slot(slot: u8) -> Self {
        Self {
            counter_mode_send: false,
            legacy: false,
            dont_fragment: DontFragment::Clear,
            segment_size: SegmentSize::Unchanged,
            mode: Mode::Normal,
            failure: FailurePolicy::Close,
            placeholder: IpAddr::V4(Ipv4Addr::new(192, 0, 2, slot.wrapping_add(1))),
            priority: crate::precedence::BASE,
        }
    }
}

/// The migration phases from clear to protected traffic. All members go through them in turn, and
/// no step loses a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// Sends ESP and accepts ESP only.
    #[default]
    Normal,
    /// Sends in clear; accepts ESP and clear packets.
    ReceiveOnly,
    /// Sends ESP, even on a TEK that the key server marked receive-only; accepts ESP and clear
    /// packets.
    Passive,
}

/// Whether a group's traffic is blocked or passes while there is no valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum FailurePolicy {
    /// Blocked, except what the fail-open rules name.
    #[default]
    Close,
    /// Everything passes in clear.
    Open,
}

/// What keys a group has.
#[derive(Debug)]
pub enum GroupState<'a> {
    /// No key since the start: only the protected prefixes are known, and they are blocked.
    NoKey,
    /// The keys of these traffic selectors have expired: they are blocked like the protected
    /// prefixes.
    Expired(Vec<&'a TekPolicy>),
    /// Keys are valid. Traffic selectors of the TEKs that send come first, in the order received;
    /// then older and newer generations.
    Keyed(Vec<InstalledTek<'a>>),
}

/// One SA TEK with the keys of its SPI.
///
/// Several generations may have the same traffic selector: one of them sends, the others only
/// receive. One without either flag stays blocked.
#[derive(Clone, Copy, Debug)]
pub struct InstalledTek<'a> {
    /// The SA TEK as the key server stated it.
    pub policy: &'a TekPolicy,
    /// Keys of its SPI.
    pub keys: &'a TekKeys,
    /// Whether its generation receives.
    pub receive: bool,
    /// Whether its generation sends.
    pub send: bool,
    /// An earlier run sent on it in counter mode: its outbound state stays as long as the kernel
    /// has it, and is never installed again, because its IVs would repeat.
    pub iv_reuse_hazard: bool,
    /// Remaining lifetime; `None` for unlimited.
    pub remaining_lifetime: Option<Duration>,
}

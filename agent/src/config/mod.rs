//! The configuration in two steps: [`mod@file`] reads what was typed, [`check`] raises it to values
//! that the daemon can act on. All defects are reported at once, each with its line and a remedy.

pub mod change;
pub mod check;
pub mod edit;
pub mod file;
pub mod placement;
pub mod tunnel;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemon::configuration::NamedCertificate;
use gdoi::config::ByteOrder;
use gdoi::group::{GroupId, TrafficSelector};
use gdoi::push::AcknowledgementLength;
use ike::config::{Credential, Identity, Phase1Policy, RetransmissionPolicy};
use ike::crypto::Secret;
use ipnet::IpNet;
use policies::{FailurePolicy, Mode};
use xfrm::nft::{DontFragment, SegmentSize};

use check::Interfaces;

/// Where gdoictl looks by default.
pub const CONTROL_SOCKET: &str = "/run/gdoi-agent/control.sock";
/// UDP port of GDOI (RFC 6407 §2.2).
pub const GDOI_PORT: u16 = gdoi::PORT;
/// The longest that an acknowledgement of a push may be held back (RFC 8263 §6).
pub const LONGEST_JITTER: Duration = Duration::from_secs(5);
/// How long acknowledgements are held back unless the configuration says otherwise.
pub const JITTER: Duration = Duration::from_secs(2);
/// Key servers of one group.
pub const MOST_SERVERS: usize = 4;
/// Groups of one member; each takes a slot, which gives its reqids and its placeholder address.
pub const MOST_GROUPS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// What must outlive the process is kept in this file.
    pub state_file: PathBuf,
    /// What seals the keys in a file beside it: 16 or 32 octets.
    pub state_key: Option<Arc<Secret>>,
    /// Where a key for that is made and kept if none is named. Without either no key survives a
    /// reboot.
    pub own_state_key: Option<PathBuf>,
    /// UDP port that registrations leave from.
    pub local_port: u16,
    /// Memberships; the position is the slot.
    pub groups: Vec<Group>,
    /// IKE policies that tunnels share, used or not.
    pub gateways: Vec<tunnel::GatewayConfig>,
    pub tunnels: Vec<tunnel::Tunnel>,
    /// What certificates there are, used or not.
    pub certificates: Vec<NamedCertificate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name in logs and show commands.
    pub name: String,
    pub id: GroupId,
    /// Where it speaks from.
    pub local: LocalAddress,
    /// Interfaces of the protected hosts.
    pub lan: Vec<String>,
    /// Interfaces of the wide area network.
    pub wan: Vec<String>,
    /// Prefixes between which nothing ever passes in clear.
    pub protected: Vec<IpNet>,
    /// Traffic that is never encrypted, in both directions.
    pub exclude: Vec<TrafficSelector>,
    /// Traffic that may pass in clear while there is no valid key, in both directions.
    pub fail_open: Vec<TrafficSelector>,
    /// What becomes of the rest of the group's traffic then.
    pub failure_policy: FailurePolicy,
    /// How far the group has come from clear to protected traffic.
    pub mode: Mode,
    /// What stays in the kernel after an orderly end.
    pub on_exit: OnExit,
    /// Our phase-1 identity; `None` is the local address.
    pub identity: Option<Identity>,
    /// Key servers in failover order, 1..=4.
    pub servers: Vec<Server>,
    /// What phase 1 may negotiate.
    pub phase1: Phase1Policy,
    /// When messages are repeated.
    pub retransmission: RetransmissionPolicy,
    /// Interoperability switch for the group id.
    pub group_id_byte_order: ByteOrder,
    /// Interoperability switch for IPv4 addresses and masks in traffic selectors.
    pub selector_byte_order: ByteOrder,
    /// Whether counter-mode TEKs may be sent on.
    pub counter_mode_send: bool,
    /// Whether weak algorithms are accepted.
    pub legacy: bool,
    /// The outer header's DF bit.
    pub dont_fragment: DontFragment,
    /// The segment size that TCP connections through the group agree on.
    pub segment_size: SegmentSize,
    /// Whether ESP with unknown SPIs makes the group pull.
    pub recovery_probe: bool,
    /// The lowest priority number of the policies of all groups.
    pub policy_priority: u32,
    /// The outbound states' destination, which no host has.
    pub placeholder: IpAddr,
    /// Reading of a field of RFC 8263.
    pub acknowledgement_length: AcknowledgementLength,
    /// Acknowledgements of pushes by multicast leave within this time.
    pub acknowledgement_jitter: Duration,
    /// Where to join the multicast group of pushes; `None` is the interface of the local address.
    pub multicast_interface: Option<String>,
}

/// A key server of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: SocketAddr,
    /// The identity that it must prove.
    pub identity: Identity,
    /// What proves our identity to it, and its to us.
    pub credential: Credential,
}

/// The address that a group speaks from and where its ESP ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// A fixed address; it may be on any interface.
    Address(IpAddr),
    /// The first address of this interface, whatever it is at the moment.
    Interface(String),
}

/// What an orderly end leaves in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnExit {
    /// No keys; blocks and guards stand.
    #[default]
    Block,
    Keep,
    Remove,
}

impl Group {
    /// The longest that one attempt may take: every message of main mode and of the pull with its
    /// whole retransmission budget, and a little for the server's arithmetic.
    pub fn attempt_limit(&self) -> Duration {
        const MESSAGES: u32 = 5;
        budget(&self.retransmission)
            .saturating_mul(MESSAGES)
            .saturating_add(Duration::from_secs(10))
    }

    /// Whether a membership with `other` has to register in another way than with this one.
    pub fn registers_like(&self, other: &Self) -> bool {
        self.id == other.id
            && self.local == other.local
            && self.identity == other.identity
            && self.servers == other.servers
            && self.phase1 == other.phase1
            && self.retransmission == other.retransmission
            && self.group_id_byte_order == other.group_id_byte_order
            && self.selector_byte_order == other.selector_byte_order
            // The rekey SA takes them from the registration that brings its KEK.
            && self.acknowledgement_length == other.acknowledgement_length
            && self.legacy == other.legacy
    }

    /// The servers' addresses in failover order.
    pub fn server_addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    /// Interfaces of the protected hosts: those that it names, those that exist now and match a
    /// pattern, and the VRF devices of both. What passes a VRF device passes it beside the
    /// interface itself, where it is judged: a WAN that shares the VRF stays one.
    pub fn lan_interfaces<'i>(&'i self, existing: &'i Interfaces) -> Vec<&'i str> {
        // What patterns of both sides match is a WAN: the guards stand there.
        let mut all = expanded(&self.lan, |name| on_side(&self.wan, name), existing);
        let vrf = |name: &&str| existing.get(*name)?.vrf.as_deref();
        let vrfs: BTreeSet<&str> = all.iter().filter_map(vrf).collect();
        all.extend(vrfs.into_iter().filter(|vrf| !on_side(&self.lan, vrf)));
        all
    }

    /// Interfaces of the wide area network, in the same way.
    pub fn wan_interfaces<'i>(&'i self, existing: &'i Interfaces) -> Vec<&'i str> {
        expanded(&self.wan, |name| self.lan.iter().any(|lan| lan == name), existing)
    }

    /// Addresses in its protected prefixes, to ask the routing table where the group's traffic
    /// leaves: the first and the last of each prefix, and not of hundreds.
    pub fn destinations(&self) -> BTreeSet<IpAddr> {
        const PREFIXES: usize = 8;
        let ipv4 = self.protected.iter().filter_map(|prefix| match prefix {
            IpNet::V4(net) => Some([net.hosts().next()?, net.hosts().next_back()?]),
            IpNet::V6(_) => None,
        });
        ipv4.take(PREFIXES).flatten().map(IpAddr::V4).collect()
    }

    /// All interfaces that it names, and patterns.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let local = match &self.local {
            LocalAddress::Interface(name) => Some(name.as_str()),
            LocalAddress::Address(_) => None,
        };
        let multicast = self.multicast_interface.as_deref();
        self.lan.iter().chain(&self.wan).map(String::as_str).chain(local).chain(multicast)
    }
}

/// Whether an interface is one of those; a `*` at the end of a name stands for anything.
pub fn on_side(names: &[String], interface: &str) -> bool {
    names.iter().any(|name| match name.strip_suffix('*') {
        Some(beginning) => interface.starts_with(beginning),
        None => name == interface,
    })
}

/// The names, and in the place of each pattern what matches it. What is on the other side is not
/// meant by a pattern on this one.
fn expanded<'i>(
    names: &'i [String],
    on_other_side: impl Fn(&str) -> bool,
    existing: &'i Interfaces,
) -> Vec<&'i str> {
    let mut all: Vec<&str> = Vec::new();
    for name in names {
        let matching: Vec<&str> = match name.ends_with('*') {
            false => vec![name],
            true => {
                let matches =
                    |one: &&String| on_side(std::slice::from_ref(name), one) && !on_other_side(one);
                existing.keys().filter(matches).map(String::as_str).collect()
            }
        };
        for one in matching {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all
}

impl Server {
    /// Its address without the port.
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }
}

/// How long one message is waited for, repetitions included.
pub fn budget(policy: &RetransmissionPolicy) -> Duration {
    let mut wait = policy.initial.min(policy.maximum);
    let mut total = Duration::ZERO;
    for _ in 0..=policy.repetitions {
        total = total.saturating_add(wait);
        wait = wait.saturating_mul(2).min(policy.maximum);
    }
    total
}

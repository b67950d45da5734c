//! ICMP errors about what registrations send.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use daemon::udp::error_text;

/// A datagram of ours did not arrive, as somebody says whom nobody has authenticated: a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Where the datagram went.
    pub destination: SocketAddr,
    /// The error number that the kernel makes of it.
    pub error: i32,
    /// Who says so; `None` is our own kernel.
    pub reporter: Option<IpAddr>,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = error_text(self.error);
        match self.reporter {
            Some(reporter) => write!(f, "{reporter} answered by ICMP: {error} (unauthenticated)"),
            None => write!(f, "the datagram could not be sent: {error}"),
        }
    }
}

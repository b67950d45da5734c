//! What goes wrong with a socket, and what the kernel says of a datagram.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use thiserror::Error;

/// A socket could not be opened.
#[derive(Debug, Error)]
#[error("UDP {local}: {source}; {}", remedy(.source))]
pub struct BindError {
    /// The address asked for.
    pub local: SocketAddr,
    /// What the kernel says.
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process holds this port: find it with `ss -ulnp` and stop it"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface has this address: add it or listen on another one"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: start the daemon by its systemd unit or as root"
        }
        _ => "check the address and the limits of this process",
    }
}

/// What the number of an error of a datagram means, as the C library describes it.
pub fn error_text(error: i32) -> &'static str {
    Errno::from_raw(error).desc()
}

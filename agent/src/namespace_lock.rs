//! One member a network namespace: policies, SAs and tables of a second one would be taken for
//! leftovers and removed.
//!
//! The lock is a listening socket with an abstract name (unix(7)). Such names belong to the network
//! namespace, as the kernel entries do, and vanish with the process however it ends.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt};
use thiserror::Error;

/// The name of the lock of gdoi-agent.
pub const NAME: &str = "gdoi-agent";

/// The network namespace has a member already, or the lock cannot be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "process {pid} of user {uid} is the member of this network namespace; stop it, or start this one in another \
         namespace: one gdoi-agent has all groups of a namespace"
    )]
    Taken { pid: i32, uid: u32 },
    #[error("lock of the network namespace (abstract socket @{name}): {error}")]
    System {
        /// Name of the socket.
        name: String,
        error: io::Error,
    },
}

/// Held as long as the value lives.
#[derive(Debug)]
pub struct NamespaceLock(#[allow(dead_code, reason = "held, never used")] UnixListener);

impl NamespaceLock {
    /// Takes the lock called `name`. To be done before any kernel entry is touched.
    ///
    /// # Errors
    /// Another process has it.
    pub fn take(name: &str) -> Result<Self, LockError> {
        let system = |error| LockError::System { name: name.to_owned(), error };
        let address = SocketAddr::from_abstract_name(name).map_err(system)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Self(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let peer = UnixStream::connect_addr(&address).map_err(|_| system(error))?;
                let holder = getsockopt(&peer, sockopt::PeerCredentials)
                    .map_err(|errno| system(errno.into()))?;
                Err(LockError::Taken { pid: holder.pid(), uid: holder.uid() })
            }
            Err(error) => Err(system(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_member_until_it_ends() {
        let name = format!("gdoi-agent-test-{}", std::process::id());
        let first = NamespaceLock::take(&name).unwrap();
        let refusal = NamespaceLock::take(&name).unwrap_err();
        assert!(
            matches!(refusal, LockError::Taken { pid, .. } if pid.unsigned_abs() == std::process::id()),
            "{refusal}"
        );
        drop(first);
        assert!(NamespaceLock::take(&name).is_ok());
    }
}

//! Where a peer is.

use core::net::SocketAddr;

use crate::error::NotAccepted;
use crate::event::Transmit;

/// Where a peer is, and which of our addresses it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// Address and port of the peer.
    pub remote: SocketAddr,
    pub local: SocketAddr,
}

impl PeerAddress {
    /// Whether a datagram from `source` comes from where the peer is.
    ///
    /// # Errors
    /// [`NotAccepted::WrongSource`].
    pub fn check(&self, source: SocketAddr) -> Result<(), NotAccepted> {
        if source == self.remote { Ok(()) } else { Err(NotAccepted::WrongSource(source)) }
    }

    /// A datagram to the peer.
    pub fn transmit(&self, payload: Vec<u8>) -> Transmit {
        Transmit { destination: self.remote, source: self.local, payload }
    }
}

//! IPsec implementations of others, as peers of the lab.

pub mod etcd;
pub mod libreswan;
pub mod strongswan;

use anyhow::Result;

/// An IKE daemon of somebody else at the other end of a tunnel.
pub trait IkePeer {
    /// Ends what is under way and takes over this configuration.
    ///
    /// # Errors
    /// When it is refused.
    fn load(&self, text: &str) -> Result<()>;

    /// Has it begin a child; whether that worked.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn initiate(&self, child: &str) -> Result<bool>;

    /// The last lines of its log.
    fn log_tail(&self, lines: usize) -> String;
}

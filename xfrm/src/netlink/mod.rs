//! The real kernel.

use crate::desired::Desired;
use crate::error::Error;
use crate::event::EventSource;
use crate::kernel::{Current, Kernel};
use crate::owner::Ownership;
use crate::plan::Op;

/// Sockets to XFRM, nf_tables and routing. Needs CAP_NET_ADMIN. Use inside a tokio runtime with I/O and time.
#[derive(Debug)]
pub struct Netlink {}

impl Netlink {
    /// Opens the sockets.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {})
    }

    /// A stream of what others change. Call before the first change, so that nothing falls in between.
    pub fn events(&self, ownership: &Ownership) -> Result<EventSource, Error> {
        let _ = ownership;
        Ok(EventSource {})
    }
}

impl Kernel for Netlink {
    async fn read(&mut self, _: &Ownership) -> Result<Current, Error> {
        Err(Error::Unsupported(String::from("netlink")))
    }

    async fn execute(&mut self, _: &Op, _: &Desired, _: &Ownership) -> Result<(), Error> {
        Err(Error::Unsupported(String::from("netlink")))
    }
}

//! The stream of what others change, from the notifications of three netlink families.

use std::collections::VecDeque;

use crate::error::Error;
use crate::kernel::event::KernelEvent;
use crate::kernel::netlink::channel::{Listener, messages};
use crate::kernel::netlink::event;
use crate::ownership::Ownership;

/// The stream of events, on sockets of its own. After an event it pays to wait some milliseconds
/// for the rest of the burst before repairing: a flush reports every entry.
pub struct EventSource {
    xfrm: Listener,
    netfilter: Listener,
    route: Listener,
    own: [u32; 3],
    ownership: Ownership,
    ready: VecDeque<KernelEvent>,
}

impl EventSource {
    pub(crate) fn open(own: [u32; 3], ownership: Ownership) -> Result<Self, Error> {
        let [xfrm, netfilter, route] = event::listeners()?;
        Ok(Self { xfrm, netfilter, route, own, ownership, ready: VecDeque::new() })
    }

    /// Waits for the next event. Cancelling loses nothing.
    pub async fn next(&mut self) -> Result<KernelEvent, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let (received, read): (_, event::Read) = tokio::select! {
                datagram = self.xfrm.receive() => (datagram, event::xfrm),
                datagram = self.netfilter.receive() => (datagram, event::netfilter),
                datagram = self.route.receive() => (datagram, event::routing),
            };
            let datagram = match received {
                Ok(datagram) => datagram,
                Err(Error::Overrun) => return Ok(KernelEvent::Overrun),
                Err(error) => return Err(error),
            };
            // Whoever asked for the change is named in the message: our own are no news.
            let others = messages(&datagram)
                .filter(|message| message.port == 0 || !self.own.contains(&message.port));
            for event in others.filter_map(|message| read(&message, &self.ownership)) {
                if self.ready.back() != Some(&event) {
                    self.ready.push_back(event);
                }
            }
        }
    }
}

impl core::fmt::Debug for EventSource {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EventSource").field("ready", &self.ready).finish_non_exhaustive()
    }
}

//! Datagrams that the kernel did not take at once.
//!
//! A send buffer fills for milliseconds in a burst to thousands of members, and for seconds when it
//! holds datagrams for neighbors that do not answer ARP. The first is worth waiting for, the second
//! is not, and neither may stop the event loop: the protocol retransmits.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use gdoi::event::Transmit;
use nix::errno::Errno;
use tokio::time::Instant;
use tracing::debug;

/// What waits longer is dropped. Shorter than any retransmission interval.
pub const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Payload octets that may wait.
const MOST_OCTETS: usize = 8 * 1024 * 1024;

/// One datagram and how it leaves.
#[derive(Clone, Debug)]
pub(super) struct Waiting<'t> {
    pub(super) transmit: Cow<'t, Transmit>,
    /// Outgoing interface of a multicast datagram; zero is the kernel's choice.
    pub(super) interface: u32,
    /// Hop limit of a multicast datagram.
    pub(super) ttl: Option<u8>,
    since: Instant,
}

/// First in, first out, bounded in octets and in time.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queue: VecDeque<Waiting<'static>>,
    octets: usize,
    dropped: u64,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Sends, or queues behind what waits already. `attempt` sends one datagram and never blocks.
    pub(super) fn send(
        &mut self,
        transmit: &Transmit,
        interface: u32,
        ttl: Option<u8>,
        now: Instant,
        mut attempt: impl FnMut(&Waiting<'_>) -> Result<(), Errno>,
    ) -> io::Result<()> {
        self.flush(now, &mut attempt);
        let datagram = Waiting { transmit: Cow::Borrowed(transmit), interface, ttl, since: now };
        if self.queue.is_empty() {
            match attempt(&datagram) {
                Err(errno) if is_full(errno) => {}
                done => return Ok(done?),
            }
        }
        let octets = self.octets.saturating_add(transmit.payload.len());
        if octets > MOST_OCTETS {
            self.dropped = self.dropped.saturating_add(1);
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "send queue full"));
        }
        self.octets = octets;
        let transmit = Cow::Owned(transmit.clone());
        self.queue.push_back(Waiting { transmit, interface, ttl, since: now });
        Ok(())
    }

    /// Sends what the kernel takes now and drops what has waited too long.
    pub(super) fn flush(
        &mut self,
        now: Instant,
        mut attempt: impl FnMut(&Waiting<'_>) -> Result<(), Errno>,
    ) {
        let mut expired = 0_u64;
        while let Some(first) = self.queue.front() {
            match attempt(first) {
                Err(errno) if is_full(errno) => {
                    if now.saturating_duration_since(first.since) < LONGEST_WAIT {
                        break;
                    }
                    expired = expired.saturating_add(1);
                }
                Err(errno) => {
                    let destination = first.transmit.destination;
                    debug!(event = "send-failed", %destination, %errno, "datagram not sent");
                }
                Ok(()) => {}
            }
            self.octets = self.octets.saturating_sub(first.transmit.payload.len());
            self.queue.pop_front();
        }
        if expired > 0 {
            self.dropped = self.dropped.saturating_add(expired);
            let (dropped, total) = (expired, self.dropped);
            debug!(event = "send-queue-expired", dropped, total, "datagrams dropped");
        }
    }
}

/// Whether the kernel has no room at the moment: the socket's buffer, or (with IP_RECVERR) the
/// queue of the interface.
fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(number: u8) -> Transmit {
        Transmit {
            destination: "192.0.2.1:848".parse().unwrap(),
            source: "192.0.2.2:848".parse().unwrap(),
            payload: vec![number; 100],
        }
    }

    /// Takes so many datagrams, then no more.
    fn room<'s>(
        room: usize,
        sent: &'s mut Vec<u8>,
    ) -> impl FnMut(&Waiting<'_>) -> Result<(), Errno> + 's {
        let mut left = room;
        move |waiting| {
            left = left.checked_sub(1).ok_or(Errno::EAGAIN)?;
            sent.push(waiting.transmit.payload[0]);
            Ok(())
        }
    }

    #[test]
    fn a_full_buffer_queues_in_order_and_reports_success() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let mut sent = Vec::new();
        for number in 0..3 {
            backlog.send(&datagram(number), 0, None, now, room(0, &mut sent)).unwrap();
        }
        assert_eq!((backlog.queue.len(), sent.len()), (3, 0));
        // The queue goes first, also before a datagram that would fit.
        backlog.send(&datagram(3), 0, None, now, room(2, &mut sent)).unwrap();
        assert_eq!((backlog.queue.len(), sent.as_slice()), (2, &[0, 1][..]));
        backlog.flush(now, room(9, &mut sent));
        assert_eq!((backlog.is_empty(), sent.as_slice()), (true, &[0, 1, 2, 3][..]));
        assert_eq!((backlog.octets, backlog.dropped()), (0, 0));
    }

    #[test]
    fn what_waits_too_long_is_dropped_and_counted() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let mut sent = Vec::new();
        backlog.send(&datagram(0), 0, None, now, room(0, &mut sent)).unwrap();
        let late = now + LONGEST_WAIT / 2;
        backlog.send(&datagram(1), 0, None, late, room(0, &mut sent)).unwrap();
        backlog.flush(now + LONGEST_WAIT, room(0, &mut sent));
        assert_eq!((backlog.queue.len(), backlog.dropped()), (1, 1));
        backlog.flush(late + LONGEST_WAIT, room(1, &mut sent));
        assert_eq!((sent.as_slice(), backlog.dropped()), (&[1][..], 1), "there was room at last");
    }

    #[test]
    fn the_queue_is_bounded_and_the_newest_datagram_is_refused() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let full = |_: &Waiting<'_>| Err(Errno::ENOBUFS);
        let long = Transmit { payload: vec![0; MOST_OCTETS / 2], ..datagram(0) };
        backlog.send(&long, 0, None, now, full).unwrap();
        backlog.send(&long, 0, None, now, full).unwrap();
        let refused = backlog.send(&datagram(1), 0, None, now, full).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert_eq!((backlog.queue.len(), backlog.dropped()), (2, 1));
    }

    #[test]
    fn other_errors_are_the_callers() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let no_route = |_: &Waiting<'_>| Err(Errno::ENETUNREACH);
        assert!(backlog.send(&datagram(0), 0, None, now, no_route).is_err());
        assert!(backlog.is_empty());
    }
}

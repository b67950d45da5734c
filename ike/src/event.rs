//! What the machines of this crate want done: plain, comparable data.

use core::net::SocketAddr;

use crate::time::BootTime;

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub destination: SocketAddr,
    /// Which of our addresses it leaves from; a server answers from the address it was asked at.
    pub source: SocketAddr,
    pub payload: Vec<u8>,
}

/// When a machine wants `handle_timeout`, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline<T = Timer> {
    pub at: BootTime,
    pub why: T,
}

impl<T> Deadline<T> {
    /// The same point in time, as a timer of a layer above.
    pub fn map<U>(self, why: impl FnOnce(T) -> U) -> Deadline<U> {
        Deadline { at: self.at, why: why(self.why) }
    }
}

/// The timers of phase 1 and of the exchanges under an ISAKMP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// When to repeat a message whose answer is missing.
    Retransmission,
    /// When a half-open exchange is forgotten.
    HalfOpen,
    /// When the answer kept for duplicates of a finished exchange is forgotten.
    FinishedExchange,
    /// When an ISAKMP SA ends.
    IsakmpLifetime,
}

//! An established peer: its ISAKMP SA, the pulls under it, and what was heard already.

use std::collections::{BTreeMap, BTreeSet};

use core::net::SocketAddr;

use crate::config::Identity;
use crate::error::Error;
use crate::event::PullId;
use crate::group::GroupId;
use crate::phase1::{Informational, IsakmpSa};
use crate::pull::server::{ExpectAcceptance, Requested};
use crate::time::BootTime;
use ike::error::NotAccepted;
use ike::retransmission::{Answered, Digest};

/// An authenticated peer at one address under one ISAKMP SA.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) sa: IsakmpSa,
    pub(super) source: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) expires: BootTime,
    /// Message 5 and our message 6, which may have been lost.
    pub(super) proof: Answered,
    /// Pulls by message identifier.
    pub(super) pulls: BTreeMap<u32, Pull>,
    /// Message identifiers of authentic messages that began something: each begins one thing (RFC
    /// 2408 §3.1).
    used: BTreeSet<u32>,
    /// Orders peers by age.
    pub(super) born: u64,
}

/// One pull.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) id: PullId,
    pub(super) group: GroupId,
    pub(super) state: PullState,
    pub(super) deadline: BootTime,
}

/// How far a pull has come.
#[derive(Debug)]
pub(super) enum PullState {
    /// Message 1 was authentic; the caller decides.
    Requested(Digest, Requested),
    /// Message 2 was sent.
    Answered(Answered, Box<ExpectAcceptance>),
    /// Nothing more will come; the last answer is kept for copies of its request.
    Closed(Answered),
}

impl Pull {
    /// Whether it has not come to its end.
    pub(super) fn is_running(&self) -> bool {
        !matches!(self.state, PullState::Closed(_))
    }
}

impl Peer {
    pub(super) fn new(
        sa: IsakmpSa,
        (source, local): (SocketAddr, SocketAddr),
        proof: Answered,
        born: u64,
        now: BootTime,
    ) -> Self {
        let expires = now + sa.lifetime();
        Self {
            sa,
            source,
            local,
            expires,
            proof,
            pulls: BTreeMap::new(),
            used: BTreeSet::new(),
            born,
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        self.sa.peer_identity()
    }

    /// Pulls that have not come to their end.
    pub(super) fn running(&self) -> usize {
        self.pulls.values().filter(|pull| pull.is_running()).count()
    }

    /// The oldest closed pull, if more than `allowed` are kept.
    pub(super) fn surplus(&self, allowed: usize) -> Option<u32> {
        let closed = self.pulls.iter().filter(|(_, pull)| !pull.is_running());
        let oldest = closed.clone().min_by_key(|(_, pull)| (pull.deadline, pull.id))?;
        (closed.count() > allowed.max(1)).then_some(*oldest.0)
    }

    /// Whether `message_id` may begin something new.
    pub(super) fn may_begin(&self, message_id: u32) -> Result<(), NotAccepted> {
        if self.used.contains(&message_id) {
            return Err(NotAccepted::Replayed);
        }
        // Forgetting any would let a recorded message begin again; phase 1 anew is cheap for an
        // honest peer.
        if self.used.len() >= MESSAGE_IDS { Err(NotAccepted::ExchangeLimit) } else { Ok(()) }
    }

    /// An authentic message has used `message_id`.
    pub(super) fn begin(&mut self, message_id: u32) {
        self.used.insert(message_id);
    }

    /// Reads a protected Informational message that was not heard before.
    pub(super) fn open_informational(
        &mut self,
        message_id: u32,
        datagram: &[u8],
    ) -> Result<Vec<Informational>, Error> {
        self.may_begin(message_id)?;
        let said = self.sa.open_informational(datagram)?;
        self.begin(message_id);
        Ok(said)
    }
}

/// Exchanges that a peer may begin under one ISAKMP SA.
const MESSAGE_IDS: usize = 4096;

//! Arithmetic that may leave the caller's thread.
//!
//! A Diffie-Hellman exchange takes as long as hundreds of other messages. The endpoint hands it out
//! as a value that any thread may run, goes on with other datagrams, and takes the result back.

use std::sync::Arc;

use core::net::SocketAddr;

use crate::config::Credential;
use crate::crypto::{PublicValue, SeededRng};
use crate::error::Error;
use crate::phase1::responder::{ExpectAuth, ExpectKe};
use crate::phase1::{Cookies, KeyExchangeMessage};
use crate::retransmission::Digest;

/// Where the arithmetic of an endpoint is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// Within the call that needs it.
    #[default]
    InPlace,
    /// Elsewhere: the endpoint hands out each computation and waits for its result.
    HandedOut,
}

/// The arithmetic of one exchange, to be done anywhere.
#[derive(Debug)]
pub struct Computation {
    pub(super) ticket: Ticket,
    pub(super) peer: SocketAddr,
    /// Names the exchange beside its cookies, which one that begins later may have again.
    pub(super) born: u64,
    pub(super) cookies: Cookies,
    pub(super) request: Digest,
    pub(super) state: ExpectKe,
    pub(super) received: KeyExchangeMessage,
    pub(super) value: PublicValue,
    pub(super) credential: Credential,
    pub(super) rng: SeededRng,
}

/// The result of a [`Computation`], for the endpoint that handed it out.
#[derive(Debug)]
pub struct Computed {
    pub(super) ticket: Ticket,
    pub(super) peer: SocketAddr,
    pub(super) born: u64,
    pub(super) cookies: Cookies,
    pub(super) request: Digest,
    pub(super) result: Result<(ExpectAuth, Vec<u8>), Error>,
}

impl Computation {
    /// Computes, which takes as long as two modular exponentiations.
    pub fn run(self) -> Computed {
        let Self {
            ticket,
            peer,
            born,
            cookies,
            request,
            state,
            received,
            value,
            credential,
            mut rng,
        } = self;
        let result = state.compute(&received, &value, &credential, &mut rng);
        Computed { ticket, peer, born, cookies, request, result }
    }
}

impl Computed {
    /// Whose exchange it is.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

/// Computations that were handed out and whose results have not come back. One that is dropped
/// counts no longer: nobody will answer it.
#[derive(Debug, Default)]
pub(super) struct Outstanding(Ticket);

/// Held by one computation, then by its result.
#[derive(Clone, Debug, Default)]
pub(super) struct Ticket(Arc<()>);

impl Outstanding {
    pub(super) fn ticket(&self) -> Ticket {
        self.0.clone()
    }

    pub(super) fn count(&self) -> usize {
        Arc::strong_count(&self.0.0).saturating_sub(1)
    }
}

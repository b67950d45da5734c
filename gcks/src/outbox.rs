//! What waits to be sent: nothing leaves before the state that it depends on is written.
//!
//! When a batch of the state is handed to the [`Writer`](crate::writer::Writer), the answers that
//! there are depend on it or on an earlier one; they are held until it is written. What comes
//! later depends on the next batch. So an answer waits for two writes at most, however many
//! members ask.

use std::collections::VecDeque;

use gdoi::event::Transmit;

use crate::config::MulticastPath;
use crate::group::key_generation::Entropy;
use crate::server::KeyServer;

/// Datagrams of pushes that are held for one batch. The others wait in their push, which is one
/// for thousands of members.
const PUSHES: usize = 64;

/// A datagram on its way out.
#[derive(Debug)]
pub struct Outgoing {
    pub transmit: Transmit,
    pub path: MulticastPath,
    /// Whether nobody asks for it again.
    pub is_push: bool,
}

/// Datagrams that wait until the state that they describe is written.
#[derive(Debug, Default)]
pub struct Outbox {
    /// For the batch on its way.
    held: Vec<Outgoing>,
    /// Released, in the order in which they leave.
    ready: VecDeque<Outgoing>,
}

impl Outbox {
    /// A batch is on its way that all that the server wants to send depends on.
    pub fn hold<E: Entropy>(&mut self, key_server: &mut KeyServer<E>) {
        while let Some(transmit) = key_server.poll_answer() {
            self.held.push(Outgoing { transmit, path: MulticastPath::default(), is_push: false });
        }
        let pushes = self.held.iter().filter(|outgoing| outgoing.is_push).count();
        for _ in pushes..PUSHES {
            let Some(transmit) = key_server.poll_push() else { break };
            let path = key_server.multicast_path(&transmit);
            self.held.push(Outgoing { transmit, path, is_push: true });
        }
    }

    /// The batch is written.
    pub fn release(&mut self) {
        self.ready.extend(self.held.drain(..));
    }

    /// It is not written in time: who asked repeats its request.
    pub fn discard_answers(&mut self) {
        self.held.retain(|outgoing| outgoing.is_push);
        self.ready.retain(|outgoing| outgoing.is_push);
    }

    /// The next datagram to send. `is_written` tells whether no batch is on its way, `may_push`
    /// whether it is a push's turn.
    pub fn next<E: Entropy>(
        &mut self,
        key_server: &mut KeyServer<E>,
        is_written: bool,
        may_push: bool,
    ) -> Option<Outgoing> {
        if let Some(outgoing) = self.ready.pop_front() {
            return Some(outgoing);
        }
        if !is_written {
            return None;
        }
        let (is_push, transmit) = match key_server.poll_answer() {
            Some(answer) => (false, answer),
            None if may_push => (true, key_server.poll_push()?),
            None => return None,
        };
        let path = key_server.multicast_path(&transmit);
        Some(Outgoing { transmit, path, is_push })
    }
}

//! What happened on a channel.

use ike::peer::{Phase1Failure, QuestionId};

use crate::error::MessageError;
use crate::message::Message;

/// A request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// A request of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(pub(super) QuestionId);

/// What happened on a channel.
#[derive(Debug)]
pub enum LinkEvent {
    /// There is an ISAKMP SA.
    Up,
    /// The server has been restarted and said so: it has forgotten what was on its way.
    Restarted,
    /// There is none any more. The server may be back before it is called dead.
    Down,
    /// The server answers no question, or there was no ISAKMP SA for as long as that takes.
    Dead,
    /// Phase 1 of ours failed; it is tried again.
    Phase1Failed(Phase1Failure),
    /// The peer proved its identity and does not speak this version of the protocol.
    NotAServer,
    /// The peer asks; told again with every repetition until it is answered.
    Asked { question: Question, message: Message },
    /// The peer has answered.
    Answered { ticket: Ticket, message: Message },
    /// A request will not be answered: its ISAKMP SA ended, or the answer cannot be read.
    Lost { ticket: Ticket },
    /// A message of the peer's cannot be followed. Nothing changed.
    Refused(MessageError),
}

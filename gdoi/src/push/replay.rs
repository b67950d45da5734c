//! Freshness of pushes: one number for each KEK, strictly rising (RFC 6407 §4.4, §7.3.5).
//!
//! RFC 3547 §5.6 asked for a sliding window. Key servers repeat a push with the same number and the
//! same octets, so that "strictly greater" loses nothing and leaves nothing to reorder.
//!
//! A copy is known by its number and the octets that are signed. Known by all its octets, a member
//! that changes what is not signed could send the push first, from an address of its own: the key
//! server's would be none, and every acknowledgement would go elsewhere.

use crate::error::NotAccepted;
use ike::retransmission::{Answered, Copy, Digest};
use ike::time::BootTime;

/// Number of the last push accepted under one KEK, and what knows its copies.
#[derive(Debug)]
pub(crate) struct Replay {
    last: u32,
    accepted: Option<Answered<Vec<u8>>>,
    digest: Option<Digest>,
}

/// What a copy of the last push accepted calls for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Duplicate<'a> {
    /// It is no copy.
    No,
    /// Silence: no acknowledgement was asked for, or one left a moment ago.
    Silent,
    /// The acknowledgement once more.
    Acknowledge(&'a [u8]),
}

impl Replay {
    /// `last` is the number in the SEQ payload of the pull, or the one of the sealed state.
    pub(crate) fn new(last: u32) -> Self {
        Self { last, accepted: None, digest: None }
    }

    /// Number of the last push accepted.
    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    /// Whether a push with this number may be looked at further.
    pub(crate) fn check(&self, received: u32) -> Result<(), NotAccepted> {
        match received > self.last {
            true => Ok(()),
            false => Err(NotAccepted::StaleSequenceNumber { last: self.last, received }),
        }
    }

    /// A push was verified: from here on its number and those below it are used up.
    pub(crate) fn accept(&mut self, number: u32, digest: Digest) {
        self.last = self.last.max(number);
        self.accepted = None;
        self.digest = Some(digest);
    }

    /// Numbers up to `number` are used up, whoever used them.
    pub(crate) fn note(&mut self, number: u32) {
        self.last = self.last.max(number);
    }

    /// Copies of the push accepted last get no answer any more.
    pub(crate) fn withhold(&mut self) {
        self.accepted = None;
    }

    /// The push accepted last was answered by `acknowledgement`.
    pub(super) fn acknowledged(&mut self, acknowledgement: Vec<u8>, now: BootTime) {
        self.accepted =
            self.digest.clone().map(|digest| Answered::new(digest, acknowledgement, now));
    }

    /// Whether this number and `digest`, of the octets that are signed, are those of the push
    /// accepted last.
    pub(super) fn duplicate(
        &mut self,
        number: u32,
        digest: &Digest,
        now: BootTime,
    ) -> Duplicate<'_> {
        if number != self.last || self.digest.as_ref() != Some(digest) {
            return Duplicate::No;
        }
        match self.accepted.as_mut().map(|accepted| accepted.handle(digest, now)) {
            Some(Copy::Answer(answer)) => Duplicate::Acknowledge(answer),
            _ => Duplicate::Silent,
        }
    }
}

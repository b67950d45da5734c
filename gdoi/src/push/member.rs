//! The rekey side of a member: the KEK in use, the one before it, and the pushes that come under
//! either.

use std::collections::VecDeque;

use core::net::SocketAddr;
use core::time::Duration;

use super::ack::AcknowledgementLength;
use super::apply::{Applied, KekChange, PushAccepted};
use super::message::{SignatureEncoding, spi_of};
use super::rekey_sa::{Outcome, RekeySa};
use crate::config::ByteOrder;
use crate::error::Error;
use crate::event::{Deadline, Timer, Transmit};
use crate::group::{GroupSa, KekPolicy};
use crate::kek_cipher::KekUnusable;
use crate::lkh::KeyPath;
use crate::wire::registry::GROUPKEY_PUSH;
use ike::error::PeerIncompatible;
use ike::time::BootTime;
use ike::wire::header;

/// How long another datagram may bring the update array that a push lacks for us: parts of a large
/// array leave together (RFC 6407 §4).
const REST_OF_ARRAYS: Duration = Duration::from_secs(2);

/// What the caller decides about pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RekeySettings {
    /// Our address and port of the most recent pull: an acknowledgement names the address and
    /// leaves from it.
    pub address: SocketAddr,
    /// Reading of a field that RFC 8263 leaves unclear.
    pub acknowledgement_length: AcknowledgementLength,
    /// Order of the octets of IPv4 addresses and masks in traffic selectors.
    pub selector_byte_order: ByteOrder,
    /// Whether weak algorithms (SHA-1, MD5, DES, 3DES, short RSA keys) are allowed.
    pub legacy: bool,
}

/// What happened to a group's rekey SA.
#[derive(Debug, PartialEq, Eq)]
pub enum RekeyEvent {
    /// A push of the key server, to be carried out.
    Accepted(Box<PushAccepted>),
    /// A push of the key server that cannot be used: pull again (RFC 6407 §4.4). The SAs in use
    /// stay.
    Unusable {
        /// Number of the push.
        sequence_number: u32,
        /// What is wrong with it.
        error: Error,
    },
    /// The KEK has reached the end of its lifetime.
    Expired,
}

/// A group's rekey SA, as long as one registration holds.
///
/// After every `handle_*`, drain `poll_transmit` and `poll_event`, then read `poll_timeout`.
/// Dropping the value ends it.
#[derive(Debug)]
pub struct RekeyMember {
    settings: RekeySettings,
    current: Option<RekeySa>,
    expires: BootTime,
    /// The KEK before: it answers copies of its last push and nothing else.
    retired: Option<RekeySa>,
    /// Number of a push with update arrays of which none is ours, and until when another datagram
    /// may bring it.
    excluded: Option<(BootTime, u32)>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<RekeyEvent>,
}

impl RekeyMember {
    /// The rekey side of `sa`, which a pull delivered; `None` if the key server does not push.
    ///
    /// # Errors
    /// The rekey SA cannot be used: its KEK, its public key, a weak algorithm.
    pub fn new(
        sa: &GroupSa,
        settings: RekeySettings,
        now: BootTime,
    ) -> Result<Option<Self>, Error> {
        let (Some(policy), Some(keys)) = (&sa.policy().kek, sa.kek_keys()) else { return Ok(None) };
        let path = match sa.key_path() {
            Some(download) => KeyPath::new(policy.algorithm, policy.key_length, download)?,
            None => None,
        };
        let number = sa.last_sequence_number();
        let current = RekeySa::new(sa.policy().group, policy, keys, path, number, settings.legacy)?
            .announcing_delay_detection(sa.announces_delay_detection());
        let expires = now + current.policy().lifetime;
        Ok(Some(Self {
            settings,
            current: Some(current),
            expires,
            retired: None,
            excluded: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }))
    }

    /// Takes the place of `earlier`, which an earlier pull of the same group brought. Under the
    /// same KEK numbers that are used up stay used up, and copies of the last push are still known.
    #[must_use]
    pub fn continuing(mut self, earlier: Self) -> Self {
        self.current = match (self.current.take(), earlier.current) {
            (Some(new), Some(old)) if new.policy().spi == old.policy().spi => {
                Some(new.continuing(old))
            }
            (new, _) => new,
        };
        self
    }

    /// The same, ending at `end` if that is earlier: what an earlier run had left of its lifetime.
    #[must_use]
    pub fn ending_by(self, end: BootTime) -> Self {
        Self { expires: self.expires.min(end), ..self }
    }

    /// A push of this number under the KEK `spi` is known to have been accepted before, for example
    /// by an earlier run.
    pub fn note_sequence_number(&mut self, spi: &[u8; 16], number: u32) {
        if let Some(current) = self.current.as_mut().filter(|sa| sa.policy().spi == *spi) {
            current.note_sequence_number(number);
        }
    }

    /// The push accepted last could not be carried out: copies of it are not acknowledged either.
    pub fn withhold_acknowledgement(&mut self) {
        self.current
            .iter_mut()
            .chain(&mut self.retired)
            .for_each(RekeySa::withhold_acknowledgement);
    }

    /// Policy of the KEK in use; where it says so, its pushes come by multicast.
    pub fn policy(&self) -> Option<&KekPolicy> {
        self.current.as_ref().map(RekeySa::policy)
    }

    /// Number of the last push accepted under the KEK in use: part of what must survive a restart.
    pub fn sequence_number(&self) -> Option<u32> {
        self.current.as_ref().map(RekeySa::sequence_number)
    }

    /// The rekey SA in use as a pull would deliver it, number of the last push included: for what a
    /// member keeps across a reboot. The lifetime is the one stated; [`expiry`](Self::expiry) says
    /// when it ends.
    pub fn export(&self) -> Option<GroupSa> {
        self.current.as_ref().map(RekeySa::export)
    }

    /// How the key server makes its signatures, as far as its pushes have shown.
    pub fn signature_encoding(&self) -> Option<SignatureEncoding> {
        self.current.as_ref().map(RekeySa::signature_encoding)
    }

    /// When the KEK ends.
    pub fn expiry(&self) -> Option<BootTime> {
        self.current.as_ref().map(|_| self.expires)
    }

    /// Whether pushes with this cookie pair are for this group.
    pub fn has_spi(&self, spi: &[u8; 16]) -> bool {
        self.current.iter().chain(&self.retired).any(|sa| sa.policy().spi == *spi)
    }

    /// A datagram arrived from `source` at our address or multicast group `local`.
    ///
    /// # Errors
    /// The datagram is discarded and nothing has changed; count it by [`Error::reason`]. A bad push
    /// is never answered.
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let (header, _) = header::split(datagram)?;
        if header.exchange != GROUPKEY_PUSH {
            return Err(PeerIncompatible::ExchangeType(header.exchange.0).into());
        }
        let spi = spi_of(&header);
        if let Some(retired) = self.retired.as_mut().filter(|sa| sa.policy().spi == spi) {
            let copy = retired.copy_of_last(datagram, now)?;
            return self.repeat(copy, source, local);
        }
        let Some(current) = self.current.as_mut().filter(|sa| sa.policy().spi == spi) else {
            return Err(ike::error::NotAccepted::UnknownCookies.into());
        };
        match current.handle(datagram, &self.settings, now)? {
            Outcome::Duplicate(copy) => self.repeat(copy, source, local),
            Outcome::Unusable { sequence_number, error } if error == excluded() => {
                self.excluded = Some((now + REST_OF_ARRAYS, sequence_number));
                Ok(())
            }
            Outcome::Unusable { sequence_number, error } => {
                self.events.push_back(RekeyEvent::Unusable { sequence_number, error });
                Ok(())
            }
            Outcome::Applied { sequence_number, applied, acknowledgement } => {
                let ours = self.leaving_from(local);
                let acknowledgement = acknowledgement.map(|payload| Transmit {
                    destination: source,
                    source: ours,
                    payload,
                });
                self.accept(sequence_number, *applied, acknowledgement, now);
                Ok(())
            }
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        if self.current.is_some() && self.expires <= now {
            self.current = None;
            self.retired = None;
            self.excluded = None;
            self.events.push_back(RekeyEvent::Expired);
        }
        if let Some((_, sequence_number)) = self.excluded.take_if(|(at, _)| *at <= now) {
            let error = excluded();
            self.events.push_back(RekeyEvent::Unusable { sequence_number, error });
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let expiry = self.expiry().map(|at| Deadline { at, why: Timer::KekLifetime });
        let rest = self.excluded.map(|(at, _)| Deadline { at, why: Timer::UpdateArrays });
        expiry.into_iter().chain(rest).min()
    }

    /// What happened next; poll it until there is nothing more.
    pub fn poll_event(&mut self) -> Option<RekeyEvent> {
        self.events.pop_front()
    }

    fn accept(
        &mut self,
        sequence_number: u32,
        applied: Applied,
        acknowledgement: Option<Transmit>,
        now: BootTime,
    ) {
        let Applied { deletions, group_sa, policy, successor, deleted, path, verifier } = applied;
        let mut kek = KekChange::Unchanged;
        if let Some(policy) = policy {
            self.expires = now + policy.lifetime;
            match (successor, self.current.as_mut()) {
                (Some(successor), _) => {
                    let new = successor.policy().spi;
                    self.retired = self.current.replace(successor);
                    let old = self.retired.as_ref().map_or(new, |sa| sa.policy().spi);
                    kek = KekChange::Replaced { old, new };
                }
                (None, Some(current)) => {
                    current.restate(policy, path, verifier);
                }
                (None, None) => {}
            }
        }
        if deleted && kek == KekChange::Unchanged {
            // It still answers copies of the push that deleted it.
            self.retired = self.current.take();
            kek = KekChange::Deleted;
        }
        if kek != KekChange::Unchanged {
            self.excluded = None;
        }
        let accepted = PushAccepted { sequence_number, deletions, group_sa, kek, acknowledgement };
        self.events.push_back(RekeyEvent::Accepted(Box::new(accepted)));
    }

    /// A copy of the last push: the acknowledgement may have been lost.
    fn repeat(
        &mut self,
        copy: Option<Vec<u8>>,
        source: SocketAddr,
        local: SocketAddr,
    ) -> Result<(), Error> {
        let payload = copy.ok_or(ike::error::NotAccepted::Replayed)?;
        self.transmits.push_back(Transmit {
            destination: source,
            source: self.leaving_from(local),
            payload,
        });
        Ok(())
    }

    /// To where the push came from, from our own address even if it came by multicast (RFC 8263
    /// §3).
    fn leaving_from(&self, local: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.settings.address.ip(), local.port())
    }
}

fn excluded() -> Error {
    KekUnusable::Excluded.into()
}

//! One push on its way to many members: sent, repeated with the same octets, acknowledged (RFC 6407
//! §4.3, RFC 8263 §5, §6).
//!
//! Octets are copied when they are asked for, one datagram at a time: a push to ten thousand
//! members is held once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::ack::{Acknowledged, Claim};
use super::seal::SealedPush;
use crate::error::{Error, NotAccepted};
use crate::event::{Deadline, Timer, Transmit};
use ike::crypto::Secret;
use ike::time::BootTime;

/// When a push is repeated, and how long its acknowledgements are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// From one transmission to the next; 2 to 60 seconds.
    pub period: Duration,
    /// How often the push is sent again; 0 to 60.
    pub repetitions: u32,
    /// From the last transmission until a missing acknowledgement is called missing; at least 10
    /// seconds (RFC 8263 §5).
    pub acknowledgement_wait: Duration,
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(10),
            repetitions: 2,
            acknowledgement_wait: Duration::from_secs(15),
        }
    }
}

impl DeliveryPolicy {
    fn bounded(self) -> Self {
        Self {
            period: self.period.clamp(Duration::from_secs(2), Duration::from_secs(60)),
            repetitions: self.repetitions.min(60),
            acknowledgement_wait: self.acknowledgement_wait.max(Duration::from_secs(10)),
        }
    }
}

/// Whom a push goes to.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Recipients {
    /// Our address, and the address and port of a member or of a multicast group.
    pub destinations: Vec<(SocketAddr, SocketAddr)>,
    /// The addresses that members pulled from: each is waited for, if the KEK asks for
    /// acknowledgements. With the key of its leaf where it asks for the LKH kinds.
    pub members: BTreeMap<IpAddr, Option<Secret>>,
    /// Members whose identity proved in phase 1 is another address than the one that they pulled
    /// from: identity, then that address. Address translation lies between.
    pub identities: BTreeSet<(IpAddr, IpAddr)>,
    /// Whether members may stay silent: who acknowledges is heard, and nobody is called missing.
    /// For copies of a push that some members may have carried out and acknowledged before.
    pub excused: bool,
}

/// What happened to a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryEvent {
    /// A member has carried out the push.
    Acknowledged(Acknowledged),
    /// Every member has, or the wait is over. Without acknowledgements: the last transmission has
    /// left.
    Finished {
        /// Who did not acknowledge, in order of address. Empty where nobody was asked.
        missing: Vec<IpAddr>,
    },
}

/// A member that is waited for.
#[derive(Debug)]
struct Awaited {
    leaf_key: Option<Secret>,
    acknowledged: bool,
}

/// A push with its repetitions and acknowledgements.
///
/// After every `handle_*`, drain `poll_transmit` and `poll_event`, then read `poll_timeout`. The
/// push must be kept until [`DeliveryEvent::Finished`], also when its KEK has been replaced: late
/// acknowledgements name the old one.
#[derive(Debug)]
pub struct Delivery {
    push: SealedPush,
    policy: DeliveryPolicy,
    destinations: Vec<(SocketAddr, SocketAddr)>,
    /// Members that are waited for.
    members: BTreeMap<IpAddr, Awaited>,
    identities: BTreeSet<(IpAddr, IpAddr)>,
    outstanding: usize,
    excused: bool,
    superseded: bool,
    /// The destination that the transmission in progress has reached.
    next: usize,
    repetitions_left: u32,
    begun: BootTime,
    /// Datagrams of repetitions.
    repeated: u64,
    deadline: Option<(BootTime, Timer)>,
    events: VecDeque<DeliveryEvent>,
}

impl Delivery {
    /// Begins: the first transmission is queued. Figures of `policy` that are out of bounds are
    /// brought back into them.
    pub fn new(
        push: SealedPush,
        recipients: Recipients,
        policy: DeliveryPolicy,
        now: BootTime,
    ) -> Self {
        let policy = policy.bounded();
        let waits = push.acknowledgement().is_some();
        let awaited = |(member, leaf_key)| (member, Awaited { leaf_key, acknowledged: false });
        let members: BTreeMap<IpAddr, Awaited> =
            recipients.members.into_iter().filter(|_| waits).map(awaited).collect();
        let mut delivery = Self {
            push,
            policy,
            destinations: recipients.destinations,
            outstanding: members.len(),
            members,
            identities: recipients.identities,
            excused: recipients.excused,
            superseded: false,
            next: 0,
            repetitions_left: policy.repetitions,
            begun: now,
            repeated: 0,
            deadline: None,
            events: VecDeque::new(),
        };
        delivery.schedule(now);
        delivery
    }

    /// The push that is delivered.
    pub fn push(&self) -> &SealedPush {
        &self.push
    }

    /// Where it still goes: our address and that of a member who has not acknowledged, or of a
    /// multicast group. With the key of the member's leaf, where acknowledgements need it. Nowhere
    /// once it is superseded.
    pub fn destinations(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr, Option<&Secret>)> {
        let waits = !self.superseded && (self.is_unsent() || !self.is_finished());
        let waiting = self.destinations.iter().filter(move |_| waits);
        waiting.filter_map(|(source, destination)| match self.members.get(&destination.ip()) {
            Some(awaited) if awaited.acknowledged => None,
            awaited => {
                Some((*source, *destination, awaited.and_then(|awaited| awaited.leaf_key.as_ref())))
            }
        })
    }

    /// Whether a transmission has datagrams left to send.
    pub fn is_unsent(&self) -> bool {
        self.next < self.destinations.len()
    }

    /// When it began.
    pub fn begun(&self) -> BootTime {
        self.begun
    }

    /// How many datagrams of repetitions have been sent.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// A later push says all that this one says: it is not sent any more and nobody has to
    /// acknowledge it. Acknowledgements on their way are heard for the time that they may take.
    pub fn supersede(&mut self, now: BootTime) {
        if self.superseded || self.is_finished() {
            return;
        }
        (self.superseded, self.excused) = (true, true);
        self.next = self.destinations.len();
        match self.outstanding {
            0 => self.finish(),
            _ => {
                self.deadline =
                    Some((now + self.policy.acknowledgement_wait, Timer::Acknowledgement))
            }
        }
    }

    /// Whether everything has been done.
    pub fn is_finished(&self) -> bool {
        self.deadline.is_none()
    }

    /// Who has not acknowledged yet.
    pub fn missing(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.members.iter().filter(|(_, awaited)| !awaited.acknowledged).map(|(member, _)| *member)
    }

    /// Notes that a member has acknowledged (RFC 8263 §3); it gets no further copy.
    ///
    /// # Errors
    /// The acknowledgement is not of this push, not of a member that is waited for, a copy, or not
    /// authentic. Nothing has changed; count it by [`Error::reason`].
    pub fn handle_acknowledgement(&mut self, claim: &Claim) -> Result<(), Error> {
        if !self.is_meant(claim) {
            return Err(NotAccepted::UnexpectedAcknowledgement.into());
        }
        let mut result = Err(NotAccepted::UnexpectedAcknowledgement.into());
        for member in self.claimants(claim) {
            result = self.verify(claim, member);
            if result.is_ok() {
                break;
            }
        }
        let verified = result?;
        if let Some(awaited) = self.members.get_mut(&verified.address) {
            awaited.acknowledged = true;
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        self.events.push_back(DeliveryEvent::Acknowledged(verified));
        if self.outstanding == 0 {
            self.finish();
        }
        Ok(())
    }

    fn verify(&self, claim: &Claim, member: IpAddr) -> Result<Acknowledged, Error> {
        let awaited = self.members.get(&member).ok_or(NotAccepted::UnexpectedAcknowledgement)?;
        if awaited.acknowledged {
            // Before any arithmetic (RFC 8263 §5).
            return Err(ike::error::NotAccepted::Replayed.into());
        }
        let verified = self.push.verify(claim, awaited.leaf_key.as_ref())?;
        Ok(Acknowledged { address: member, ..verified })
    }

    /// Which members may make the claim, by the addresses that they pulled from; the likeliest
    /// first, and none but that where HASH does not tell members apart (RFC 8263 §7.1).
    ///
    /// The ID payload decides (RFC 8263 §3.4). A member behind address translation writes the
    /// address there that it has itself, which is the identity that it proved, or at least comes
    /// from where it pulled. Several sites may use one private address.
    fn claimants(&self, claim: &Claim) -> Vec<IpAddr> {
        let is_identity = |address: IpAddr| self.identities.contains(&(claim.address, address));
        let lowest = IpAddr::from([0, 0, 0, 0]);
        let with_identity = self.identities.range((claim.address, lowest)..);
        let mut with_identity = with_identity
            .take_while(|(identity, _)| *identity == claim.address)
            .map(|(_, address)| *address);
        let only = with_identity.next().filter(|_| with_identity.next().is_none());
        let source = claim.source();
        let mut all: Vec<IpAddr> = Vec::new();
        for address in
            [source.filter(|source| is_identity(*source)), Some(claim.address), only, source]
        {
            let awaited = address.filter(|address| self.members.contains_key(address));
            all.extend(awaited.filter(|address| !all.contains(address)));
        }
        let told_apart = self.push.acknowledgement().is_some_and(|kind| kind.uses_leaf_key());
        all.truncate(if told_apart { all.len() } else { 1 });
        all
    }

    /// Whether `claim` names this push.
    pub fn is_meant(&self, claim: &Claim) -> bool {
        claim.spi == *self.push.spi() && claim.sequence_number == self.push.sequence_number()
    }

    /// Whether `claim` names this push and a member that is waited for.
    pub fn expects(&self, claim: &Claim) -> bool {
        self.is_meant(claim) && !self.claimants(claim).is_empty()
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not. A
    /// transmission whose datagrams have not all been polled counts as not made.
    pub fn handle_timeout(&mut self, now: BootTime) {
        match self.deadline {
            // The datagrams wait for something: for a state that cannot be written, or for their
            // turn. A repetition that nobody could hear does not count.
            Some((at, timer)) if at <= now && self.is_unsent() => {
                let wait = match timer {
                    Timer::PushRepetition => self.policy.period,
                    _ => self.policy.acknowledgement_wait,
                };
                self.deadline = Some((now + wait, timer));
            }
            Some((at, Timer::PushRepetition)) if at <= now => {
                self.repetitions_left = self.repetitions_left.saturating_sub(1);
                self.next = 0;
                self.schedule(now);
            }
            Some((at, _)) if at <= now => self.finish(),
            _ => {}
        }
    }

    /// The next datagram to send: to nobody who has acknowledged.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        loop {
            let (source, destination) = *self.destinations.get(self.next)?;
            self.next = self.next.saturating_add(1);
            if self.members.get(&destination.ip()).is_none_or(|awaited| !awaited.acknowledged) {
                let is_repetition = self.repetitions_left < self.policy.repetitions;
                self.repeated = self.repeated.saturating_add(is_repetition.into());
                return Some(Transmit {
                    destination,
                    source,
                    payload: self.push.datagram().to_vec(),
                });
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.deadline.map(|(at, why)| Deadline { at, why })
    }

    /// What happened next; poll it until there is nothing more.
    pub fn poll_event(&mut self) -> Option<DeliveryEvent> {
        self.events.pop_front()
    }

    /// After a transmission: the next one, the wait for acknowledgements, or the end.
    fn schedule(&mut self, now: BootTime) {
        let waits = self.outstanding > 0;
        self.deadline = match self.repetitions_left {
            0 if waits => Some((now + self.policy.acknowledgement_wait, Timer::Acknowledgement)),
            0 => None,
            _ => Some((now + self.policy.period, Timer::PushRepetition)),
        };
        if self.deadline.is_none() {
            self.events.push_back(DeliveryEvent::Finished { missing: Vec::new() });
        }
    }

    /// Ends, and sends nothing more.
    fn finish(&mut self) {
        let missing = if self.excused { Vec::new() } else { self.missing().collect() };
        self.deadline = None;
        self.next = self.destinations.len();
        self.events.push_back(DeliveryEvent::Finished { missing });
    }
}

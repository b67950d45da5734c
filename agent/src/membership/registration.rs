//! The pull side of a membership: attempts begun, followed and ended as the failover wants.

use gdoi::config::RegistrationConfig;
use gdoi::event::{RegistrationEvent, RegistrationFailure, Stage};
use gdoi::group::{GroupPolicy, GroupSa};
use gdoi::member::Registration;
use gdoi::push::check_kek;
use ike::BootTime;
use ike::config::{Credential, Identity, Phase1Transform};
use policies::Unusable;

use super::error::PullRejected;
use super::{Event, Membership};
use super::{kernel_policy, pull_again};
use crate::membership::failover::{Reason, ServerIndex, State};
use crate::membership::first_contact::FirstContact;
use crate::membership::key_generations::KeyGenerations;
use crate::membership::unreachable::Unreachable;

/// The ISAKMP SA in use, for show commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsakmpSa {
    /// Initiator and responder cookie.
    pub cookies: ([u8; 8], [u8; 8]),
    pub transform: Phase1Transform,
    /// Whom the key server proved to be.
    pub peer_identity: Identity,
    pub end: BootTime,
}

/// One registration with one key server, from the first message to the end of its ISAKMP SA.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) server: ServerIndex,
    pub(crate) registration: Registration,
    pub(crate) isakmp: Option<IsakmpSa>,
    /// Its right to say INITIAL-CONTACT, until there is an ISAKMP SA.
    first_contact: Option<FirstContact>,
    /// It asks under the ISAKMP SA of the registration before and has no answer yet.
    pub(super) reuses_isakmp_sa: bool,
    /// Why we refused the policy, for the failure that follows.
    pub(crate) unusable: Option<String>,
    /// The latest ICMP error about a datagram of this attempt.
    pub(crate) unreachable: Option<Unreachable>,
}

/// What becomes of an attempt after its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// It goes on, or keeps its ISAKMP SA.
    Kept,
    Failed,
    /// The key server does not answer under the ISAKMP SA of the registration before: main mode
    /// with the same server is next.
    NeedsPhase1,
}

impl Membership {
    /// Begins what the failover wants and follows the registration until neither wants anything
    /// more.
    pub(super) fn drive(&mut self, now: BootTime) {
        loop {
            if let Some(mut attempt) = self.attempt.take() {
                let followed = self.follow(&mut attempt, now);
                self.drain(&mut attempt);
                match followed {
                    Followed::Kept => self.attempt = Some(attempt),
                    Followed::Failed => {}
                    Followed::NeedsPhase1 => {
                        self.begin(attempt.server, now);
                        continue;
                    }
                }
            }
            let Some(server) = self.failover.poll_attempt() else { break };
            self.counters.attempts = self.counters.attempts.saturating_add(1);
            self.events.push_back(Event::Trying(server));
            if !self.pull_again(server, now) {
                self.end_attempt(now);
                self.begin(server, now);
            }
        }
        if !matches!(self.failover.state(), State::Trying { .. } | State::Served { .. }) {
            self.end_attempt(now);
        }
    }

    pub(super) fn begin(&mut self, server: ServerIndex, now: BootTime) {
        let (Some(local), Some(target)) = (self.local_socket(), self.config.servers.get(server))
        else {
            self.fail(Reason::NotStarted, "no local address".to_owned(), now);
            return;
        };
        let seed = match (self.seeds)() {
            Ok(seed) => seed,
            Err(error) => {
                self.fail(Reason::NotStarted, error.to_string(), now);
                return;
            }
        };
        let identity = self.config.identity.clone().unwrap_or_else(|| match &target.credential {
            Credential::Certificate(own) => own.identity(local.ip()),
            _ => Identity::Address(local.ip()),
        });
        let first_contact = self.contacts.first(local, target.address, &identity);
        let config = RegistrationConfig {
            server: target.address,
            local,
            group: self.config.id,
            group_id_byte_order: self.config.group_id_byte_order,
            selector_byte_order: self.config.selector_byte_order,
            // Linux has one sender in the kernel.
            sender_ids: None,
            identity,
            expected_identity: target.identity.clone(),
            credential: target.credential.clone(),
            initial_contact: first_contact.is_some(),
            phase1: self.config.phase1.clone(),
            retransmission: self.config.retransmission,
            unix_seconds: self.wall_clock.at(now),
        };
        let registration = Registration::new(config, seed, now);
        self.attempt = Some(Attempt {
            server,
            registration,
            isakmp: None,
            first_contact,
            reuses_isakmp_sa: false,
            unusable: None,
            unreachable: None,
        });
    }

    /// Follows the events of an attempt.
    fn follow(&mut self, attempt: &mut Attempt, now: BootTime) -> Followed {
        while let Some(event) = attempt.registration.poll_event() {
            match event {
                RegistrationEvent::Phase1Established {
                    peer_identity,
                    transform,
                    lifetime,
                    cookies,
                } => {
                    if let Some(first_contact) = attempt.first_contact.take() {
                        first_contact.established();
                    }
                    attempt.isakmp =
                        Some(IsakmpSa { cookies, transform, peer_identity, end: now + lifetime });
                    self.events
                        .push_back(Event::Phase1Established { server: attempt.server, transform });
                }
                RegistrationEvent::PolicyOffered(policy) => {
                    attempt.reuses_isakmp_sa = false;
                    match self.judge(&policy) {
                        Ok(()) => attempt.registration.accept_policy(now),
                        Err(why) => {
                            attempt.unusable = Some(why.to_string());
                            attempt.registration.refuse_policy(now);
                        }
                    }
                }
                RegistrationEvent::Registered(sa) => {
                    if let Err(why) = self.take_in(attempt.server, sa, now) {
                        attempt.registration.delete_isakmp_sa(now);
                        self.fail(Reason::PolicyUnusable, why.to_string(), now);
                        return Followed::Failed;
                    }
                }
                RegistrationEvent::PeerDeleted | RegistrationEvent::IsakmpSaExpired => {
                    attempt.isakmp = None;
                    self.events.push_back(Event::IsakmpSaEnded(attempt.server));
                }
                RegistrationEvent::Failed(failure)
                    if attempt.reuses_isakmp_sa && pull_again::phase1_may_help(&failure) =>
                {
                    let server = attempt.server;
                    self.events.push_back(Event::IsakmpSaUnusable { server, failure });
                    return Followed::NeedsPhase1;
                }
                RegistrationEvent::Failed(failure) => {
                    let unusable = attempt.unusable.take();
                    let (reason, detail) = explain(failure, unusable, attempt.unreachable.take());
                    self.fail(reason, detail, now);
                    return Followed::Failed;
                }
            }
        }
        Followed::Kept
    }

    /// Whether the kernel can do what the key server wants, before any key is asked for.
    pub(super) fn judge(&self, policy: &GroupPolicy) -> Result<(), PullRejected> {
        // A KEK alone is a policy, too (RFC 6407 §5.2.1): TEKs are to come by push.
        if !policy.teks.is_empty() || policy.kek.is_none() {
            kernel_policy::check(policy, &self.config)?;
        }
        if let Some(kek) = &policy.kek {
            check_kek(kek, self.config.legacy)?;
        }
        Ok(())
    }

    /// Takes new keys into use beside those in use, after a trial compilation that changes nothing.
    pub(super) fn take_in(
        &mut self,
        server: ServerIndex,
        sa: GroupSa,
        now: BootTime,
    ) -> Result<(), PullRejected> {
        if sa.policy().teks.is_empty() {
            return self.take_kek_in(server, &sa, now);
        }
        let mut candidate = KeyGenerations::default();
        let first_end = candidate.add(sa, now);
        self.try_candidate(&candidate, now)?;
        let sa = candidate.take_latest().ok_or(PullRejected::Expired)?;
        let first_end = first_end.filter(|end| *end > now).ok_or(PullRejected::Expired)?;
        let spis = sa.tek_keys().keys().copied().collect();
        self.start_rekey(&sa, now)?;
        self.iv_reuse_hazard.retain(|spi| sa.tek_keys().contains_key(spi));
        self.near_exhaustion.retain(|spi| sa.tek_keys().contains_key(spi));
        self.generations.add(sa, now);
        let end = self.generations.first_end(now).unwrap_or(first_end);
        let ends = std::iter::once(end).chain(self.rekey.expiry());
        self.failover.handle_served(ends, now);
        self.had_keys = true;
        self.changed = true;
        self.note_served(server);
        self.events.push_back(Event::Registered {
            server,
            spis,
            lifetime: first_end.saturating_since(now),
        });
        Ok(())
    }

    /// Whether this group's entries can be compiled with these keys.
    pub(super) fn try_candidate(
        &self,
        candidate: &KeyGenerations,
        now: BootTime,
    ) -> Result<(), Unusable> {
        let view = self.view().with_keys(candidate);
        kernel_policy::compile(std::iter::once(view), now)
            .map(drop)
            .map_err(|unusable| unusable.reason)
    }

    /// A pull without a TEK: keys in use stay in use, and a push is waited for.
    fn take_kek_in(
        &mut self,
        server: ServerIndex,
        sa: &GroupSa,
        now: BootTime,
    ) -> Result<(), PullRejected> {
        self.start_rekey(sa, now)?;
        self.failover.handle_served_without_tek(now);
        self.changed = true;
        self.note_served(server);
        self.events.push_back(Event::AwaitingTek { server });
        Ok(())
    }

    fn note_served(&mut self, server: ServerIndex) {
        self.counters.pulls_succeeded = self.counters.pulls_succeeded.saturating_add(1);
        if self.last_server.is_some_and(|last| last != server) {
            self.counters.failovers = self.counters.failovers.saturating_add(1);
        }
        self.last_server = Some(server);
    }

    pub(super) fn fail(&mut self, reason: Reason, detail: String, now: BootTime) {
        let counter = match reason {
            Reason::NoAnswer | Reason::TookTooLong => &mut self.counters.pulls_timed_out,
            _ => &mut self.counters.pulls_failed,
        };
        *counter = counter.saturating_add(1);
        self.failover.handle_failure(reason, detail, now);
        self.report_failure(now);
    }

    pub(super) fn report_failure(&mut self, now: BootTime) {
        if let Some(passed) = self.failover.history().last() {
            self.events.push_back(Event::PassedOver(passed.clone()));
        }
        if let State::Pausing { until } = self.failover.state() {
            self.events.push_back(Event::Pausing { pause: until.saturating_since(now) });
        }
    }

    /// Ends an attempt that another one replaces, with a protected Delete if there is an ISAKMP SA.
    pub(super) fn end_attempt(&mut self, now: BootTime) {
        if let Some(mut attempt) = self.attempt.take() {
            attempt.registration.delete_isakmp_sa(now);
            self.drain(&mut attempt);
        }
    }

    /// Drops an attempt that has lost its meaning. Nothing can be said to the server: the address
    /// is gone.
    pub(super) fn abort(&mut self) {
        if let Some(attempt) = self.attempt.take()
            && attempt.registration.stage() != Stage::Registered
            && attempt.registration.stage() != Stage::Ended
        {
            self.counters.pulls_aborted = self.counters.pulls_aborted.saturating_add(1);
        }
    }

    pub(super) fn drain(&mut self, attempt: &mut Attempt) {
        while let Some(transmit) = attempt.registration.poll_transmit() {
            self.transmits.push_back(transmit);
        }
    }
}

/// What a failure means for the failover, and the line that says it.
pub(crate) fn explain(
    failure: RegistrationFailure,
    unusable: Option<String>,
    unreachable: Option<Unreachable>,
) -> (Reason, String) {
    let reason = match &failure {
        RegistrationFailure::NoAnswer { .. } => Reason::NoAnswer,
        RegistrationFailure::Refused { .. } => Reason::Refused,
        RegistrationFailure::PeerIdentity { .. }
        | RegistrationFailure::AuthenticationFailed
        | RegistrationFailure::CertificateNotAccepted
        | RegistrationFailure::Untrusted(_) => Reason::AuthenticationFailed,
        RegistrationFailure::NoProposalChosen { .. } => Reason::NoProposalChosen,
        RegistrationFailure::PolicyNotUnderstood(_) | RegistrationFailure::PolicyRefused => {
            Reason::PolicyUnusable
        }
        RegistrationFailure::PeerMisbehaved(_)
        | RegistrationFailure::PeerDeleted
        | RegistrationFailure::IsakmpSaExpired => Reason::PeerMisbehaved,
        RegistrationFailure::Configuration(_) => Reason::NotStarted,
    };
    // Whoever has answered is there.
    let hint = unreachable.filter(|_| reason == Reason::NoAnswer);
    let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
    (reason, unusable.unwrap_or_else(|| detail(&failure) + &hint))
}

/// The line that says why, with the option that may mend it.
fn detail(failure: &RegistrationFailure) -> String {
    match failure {
        RegistrationFailure::NoAnswer { stage: Stage::Pull, .. } => format!(
            "{failure}: it may not know the group; a key server that reads the group number in the other byte order \
             needs another group-id-byte-order"
        ),
        RegistrationFailure::PeerIdentity { expected, proved } => {
            format!(
                "the key server proved the identity {proved}, and {expected} was expected: if it is the right server, \
                 set its identity to {proved}"
            )
        }
        _ => failure.to_string(),
    }
}

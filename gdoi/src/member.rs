//! A group member's attempt to register with one key server: main mode (RFC 2409 §5.4), then
//! GROUPKEY-PULL (RFC 6407 §3).

mod state;

use std::collections::VecDeque;

use core::net::SocketAddr;

use crate::config::RegistrationConfig;
use crate::crypto::SeededRng;
use crate::error::{ApiMisuse, Error};
use crate::event::{Deadline, RegistrationEvent, RegistrationFailure, Stage, Timer, Transmit};
use crate::phase1::{Cookies, Informational, Initiator, InitiatorConfig, InitiatorStep};
use crate::pull::member::ExpectPolicy;
use crate::time::BootTime;
use crate::wire::header::{self, Header};
use crate::wire::notify::Notification;
use crate::wire::registry::{ExchangeType, Flags, GROUPKEY_PULL, NotifyType};
use crate::wire::{RawPayload, chain};
use ike::error::{NotAccepted, PeerIncompatible, PeerMisbehaved};
use ike::retransmission::{Digest, Due, Retransmission};
use state::{Kept, State};

/// One attempt to register one group with one key server, and the ISAKMP SA that stays afterwards.
///
/// After every `handle_*` and every wish, drain `poll_transmit` and `poll_event`, then read
/// `poll_timeout`. `now` must never go back. The value is inert: dropping it ends everything in
/// silence; [`delete_isakmp_sa`](Self::delete_isakmp_sa) says goodbye first.
#[derive(Debug)]
pub struct Registration {
    config: RegistrationConfig,
    rng: SeededRng,
    state: State,
    /// The message of the key server that was accepted last: a copy of it is no news.
    accepted: Option<Digest>,
    /// Whether an unreachable key server has been reported already.
    unreachable: bool,
    /// Whether somebody without proof said that no transform is acceptable: it names the failure,
    /// should it come.
    no_proposal_chosen: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<RegistrationEvent>,
}

impl Registration {
    /// Begins: message 1 of main mode is queued. `seed` must come from the operating system's
    /// generator and be used once.
    ///
    /// A configuration that no exchange can be run with shows as
    /// [`RegistrationFailure::Configuration`].
    pub fn new(config: RegistrationConfig, seed: [u8; 32], now: BootTime) -> Self {
        let mut rng = SeededRng::from_seed(seed);
        let started = Initiator::start(InitiatorConfig::from(&config), &mut rng);
        let mut registration = Self {
            config,
            rng,
            state: State::Ended,
            accepted: None,
            unreachable: false,
            no_proposal_chosen: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        match started {
            Ok((initiator, message)) => {
                let retransmission = registration.request(message, now);
                registration.state = State::MainMode { initiator, retransmission };
            }
            Err(error) => registration.fail(RegistrationFailure::Configuration(error.into())),
        }
        registration
    }

    /// What the attempt was made with.
    pub fn config(&self) -> &RegistrationConfig {
        &self.config
    }

    /// Where the registration stands.
    pub fn stage(&self) -> Stage {
        self.state.stage()
    }

    /// The cookie pair of the ISAKMP SA while there is one.
    pub fn cookies(&self) -> Option<([u8; 8], [u8; 8])> {
        self.state.kept().map(|kept| pair(kept.sa.cookies()))
    }

    /// When the ISAKMP SA ends, while there is one.
    pub fn isakmp_expiry(&self) -> Option<BootTime> {
        self.state.kept().map(|kept| kept.expires)
    }

    /// A datagram arrived from `source`.
    ///
    /// # Errors
    /// The datagram is discarded and the state unchanged; count it by [`Error::reason`].
    pub fn handle_datagram(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        if source != self.config.server {
            return Err(NotAccepted::WrongSource(source).into());
        }
        let (header, body) = header::split(datagram)?;
        if matches!(self.state, State::Ended) {
            return Err(NotAccepted::Ended.into());
        }
        if !self.state.has_cookies(Cookies::of(&header)) {
            return Err(NotAccepted::UnknownCookies.into());
        }
        let digest = Digest::of(datagram);
        if self.accepted.as_ref() == Some(&digest) {
            return Err(NotAccepted::Replayed.into());
        }
        match header.exchange {
            ExchangeType::IDENTITY_PROTECTION => self.handle_main_mode(datagram, now)?,
            GROUPKEY_PULL => self.handle_pull(datagram)?,
            ExchangeType::INFORMATIONAL if header.flags.contains(Flags::ENCRYPTION) => {
                self.handle_informational(&header, datagram)?;
            }
            ExchangeType::INFORMATIONAL => return Err(self.hint(&header, body)),
            other => return Err(PeerIncompatible::ExchangeType(other.0).into()),
        }
        self.accepted = Some(digest);
        Ok(())
    }

    /// The network said that the key server cannot be reached. Anybody can say that: all such
    /// reports together take one repetition off the budget, and none counts once the key server has
    /// answered.
    pub fn handle_unreachable(&mut self, _now: BootTime) {
        if self.accepted.is_some() || self.unreachable {
            return;
        }
        self.unreachable = true;
        if let Some(retransmission) = self.state.retransmission_mut() {
            retransmission.shorten();
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when it has not.
    pub fn handle_timeout(&mut self, now: BootTime) {
        if self.state.kept().is_some_and(|kept| kept.expires <= now) {
            match self.state.stage() {
                Stage::Registered => self.end(RegistrationEvent::IsakmpSaExpired),
                _ => self.fail(RegistrationFailure::IsakmpSaExpired),
            }
            return;
        }
        let Some(retransmission) = self.state.retransmission_mut() else { return };
        match retransmission.handle_timeout(now) {
            Due::NotYet => {}
            Due::Repeat => {
                let message = retransmission.message().to_vec();
                self.transmit(message);
            }
            Due::GiveUp => {
                let transmissions = retransmission.transmissions();
                let failure = self.unanswered(transmissions);
                self.fail(failure);
            }
        }
    }

    /// The caller can use the policy offered: asks for the keys. Without an offer nothing happens.
    pub fn accept_policy(&mut self, now: BootTime) {
        let State::Offered { kept, offer } = &self.state else { return };
        match offer.accept(&kept.sa) {
            Ok((pull, message)) => {
                let retransmission = self.request(message, now);
                self.state = match core::mem::replace(&mut self.state, State::Ended) {
                    State::Offered { kept, .. } => State::ExpectKeys { kept, pull, retransmission },
                    other => other,
                };
            }
            Err(error) => self.fail(RegistrationFailure::Configuration(error)),
        }
    }

    /// The caller cannot use the policy offered: deletes the ISAKMP SA (RFC 6407 §3.3) and fails.
    /// Without an offer nothing happens.
    pub fn refuse_policy(&mut self, _now: BootTime) {
        if matches!(self.state, State::Offered { .. }) {
            self.fail(RegistrationFailure::PolicyRefused);
        }
    }

    /// Pulls once more under the ISAKMP SA that stayed after a registration (RFC 6407 §3: several
    /// pulls may share one).
    ///
    /// # Errors
    /// The registration is not in [`Stage::Registered`].
    pub fn pull_again(&mut self, now: BootTime) -> Result<(), Error> {
        match core::mem::replace(&mut self.state, State::Ended) {
            State::Registered { kept } => {
                self.start_pull(kept, now);
                Ok(())
            }
            other => {
                self.state = other;
                Err(ApiMisuse::NotRegistered.into())
            }
        }
    }

    /// Ends in order: tells the key server by a protected Delete if there is an ISAKMP SA. No event
    /// follows.
    pub fn delete_isakmp_sa(&mut self, _now: BootTime) {
        self.say_goodbye();
        self.state = State::Ended;
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let repeat = self.state.retransmission().map(|retransmission| retransmission.at());
        let repeat =
            repeat.map(|at| Deadline { at, why: Timer::Ike(ike::event::Timer::Retransmission) });
        let expiry = self.state.kept().map(|kept| Deadline {
            at: kept.expires,
            why: Timer::Ike(ike::event::Timer::IsakmpLifetime),
        });
        repeat.into_iter().chain(expiry).min()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<RegistrationEvent> {
        self.events.pop_front()
    }

    fn handle_main_mode(&mut self, datagram: &[u8], now: BootTime) -> Result<(), Error> {
        let State::MainMode { initiator, .. } = &self.state else {
            return Err(NotAccepted::Unexpected.into());
        };
        match initiator.handle(datagram, &mut self.rng) {
            Ok(InitiatorStep::Continue { next, message }) => {
                let retransmission = self.request(message, now);
                self.state = State::MainMode { initiator: next, retransmission };
            }
            Ok(InitiatorStep::Established(sa)) => {
                self.events.push_back(RegistrationEvent::Phase1Established {
                    peer_identity: sa.peer_identity().clone(),
                    transform: sa.transform(),
                    lifetime: sa.lifetime(),
                    cookies: pair(sa.cookies()),
                });
                self.start_pull(Kept::new(sa, now), now);
            }
            // HASH_R was right: whoever this is knows the pre-shared key.
            Err(ike::Error::PeerMisbehaved(PeerMisbehaved::WrongIdentity { expected, proved })) => {
                self.fail(RegistrationFailure::PeerIdentity { expected, proved });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn handle_pull(&mut self, datagram: &[u8]) -> Result<(), Error> {
        match core::mem::replace(&mut self.state, State::Ended) {
            State::ExpectPolicy { kept, pull, retransmission } => match pull
                .read(&kept.sa, datagram)
            {
                Err(error) => {
                    self.state = State::ExpectPolicy { kept, pull, retransmission };
                    return Err(error);
                }
                Ok(Ok(message)) => {
                    let offer = pull.receive(message);
                    self.events.push_back(RegistrationEvent::PolicyOffered(offer.policy().clone()));
                    self.state = State::Offered { kept, offer };
                }
                Ok(Err(error)) => self.refuse(kept, error),
            },
            State::ExpectKeys { kept, pull, retransmission } => match pull.read(&kept.sa, datagram)
            {
                Err(error) => {
                    self.state = State::ExpectKeys { kept, pull, retransmission };
                    return Err(error);
                }
                Ok(Ok(group_sa)) => {
                    self.events.push_back(RegistrationEvent::Registered(group_sa));
                    self.state = State::Registered { kept };
                }
                Ok(Err(error)) => self.refuse(kept, error),
            },
            other => {
                self.state = other;
                return Err(NotAccepted::Unexpected.into());
            }
        }
        Ok(())
    }

    fn handle_informational(&mut self, header: &Header, datagram: &[u8]) -> Result<(), Error> {
        let Some(kept) = self.state.kept_mut() else { return Err(NotAccepted::Unexpected.into()) };
        let said = kept.open_informational(header.message_id, datagram)?;
        let deleted = said.iter().any(
            |said| matches!(said, Informational::Delete(delete) if kept.sa.is_deleted_by(delete)),
        );
        let refused = said.iter().find_map(|said| match said {
            Informational::Notification(notification) if notification.kind.is_error() => {
                Some(notification.kind)
            }
            _ => None,
        });
        match (self.state.stage(), deleted, refused) {
            (Stage::Registered, true, _) => self.end(RegistrationEvent::PeerDeleted),
            (_, _, Some(notify)) if self.stage() == Stage::Pull => {
                self.fail(RegistrationFailure::Refused { notify })
            }
            // The peer has no SA left that a Delete of ours could name.
            (_, true, _) => self.end(RegistrationEvent::Failed(RegistrationFailure::PeerDeleted)),
            _ => {}
        }
        Ok(())
    }

    /// A message that nobody vouches for: a hint, whatever it says.
    fn hint(&mut self, header: &Header, body: &[u8]) -> Error {
        let payloads = match chain::walk_clear(header.next_payload, body, header::LENGTH) {
            Ok(chain) => chain.payloads,
            Err(error) => return error.into(),
        };
        let kind = payloads
            .iter()
            .find_map(|raw: &RawPayload<'_>| raw.read::<Notification>().ok())
            .map(|n| n.kind);
        let Some(kind) = kind else { return NotAccepted::Unexpected.into() };
        self.no_proposal_chosen |=
            kind == NotifyType::NO_PROPOSAL_CHOSEN && self.accepted.is_none();
        NotAccepted::UnprotectedNotify(kind).into()
    }

    fn start_pull(&mut self, kept: Kept, now: BootTime) {
        let message_id = self.rng.message_id();
        let (group, order) = (self.config.group, self.config.group_id_byte_order);
        match ExpectPolicy::start(&kept.sa, group, order, message_id, &mut self.rng) {
            Ok((pull, message)) => {
                let retransmission = self.request(message, now);
                self.state = State::ExpectPolicy { kept, pull, retransmission };
            }
            Err(error) => self.fail(RegistrationFailure::Configuration(error)),
        }
    }

    /// The authenticated key server said something that cannot be followed (RFC 6407 §3.3).
    fn refuse(&mut self, kept: Kept, error: Error) {
        self.state = State::Registered { kept };
        self.fail(match error.is_incompatibility() {
            true => RegistrationFailure::PolicyNotUnderstood(error),
            false => RegistrationFailure::PeerMisbehaved(error),
        });
    }

    fn unanswered(&self, transmissions: u32) -> RegistrationFailure {
        match &self.state {
            State::MainMode { initiator: Initiator::ExpectAuth(_), .. } => {
                RegistrationFailure::AuthenticationFailed
            }
            _ if self.no_proposal_chosen => RegistrationFailure::NoProposalChosen,
            state => RegistrationFailure::NoAnswer { stage: state.stage(), transmissions },
        }
    }

    fn fail(&mut self, failure: RegistrationFailure) {
        self.say_goodbye();
        self.end(RegistrationEvent::Failed(failure));
    }

    fn end(&mut self, event: RegistrationEvent) {
        self.state = State::Ended;
        self.events.push_back(event);
    }

    /// Tells the key server that its ISAKMP SA is of no more use, if there is one. Nobody answers
    /// that.
    fn say_goodbye(&mut self) {
        let Some(kept) = self.state.kept() else { return };
        if let Ok(message) = kept.sa.seal_delete(&mut self.rng) {
            self.transmit(message);
        }
    }

    fn request(&mut self, message: Vec<u8>, now: BootTime) -> Retransmission {
        self.transmit(message.clone());
        Retransmission::new(&self.config.retransmission, message, now)
    }

    fn transmit(&mut self, payload: Vec<u8>) {
        let (destination, source) = (self.config.server, self.config.local);
        self.transmits.push_back(Transmit { destination, source, payload });
    }
}

fn pair(cookies: Cookies) -> ([u8; 8], [u8; 8]) {
    (cookies.initiator, cookies.responder)
}

//! A group member's attempt to register with one key server: main mode (RFC 2409 §5.4), then
//! GROUPKEY-PULL (RFC 6407 §3).

mod state;

use std::collections::VecDeque;

use core::net::SocketAddr;

use ike::endpoint::unprotected;
use ike::error::{NotAccepted, PeerIncompatible, PeerMisbehaved};
use ike::phase1::{Cookies, Informational, Initiator, InitiatorConfig, InitiatorStep};
use ike::retransmission::{Digest, Due, Retransmission};
use ike::session::{PeerAddress, Session};

use crate::config::RegistrationConfig;
use crate::error::{ApiMisuse, Error};
use crate::event::{Deadline, RegistrationEvent, RegistrationFailure, Stage, Timer, Transmit};
use crate::pull::member::ExpectPolicy;
use crate::wire::registry::GROUPKEY_PULL;
use ike::config::{Credential, RetransmissionPolicy};
use ike::crypto::SeededRng;
use ike::time::BootTime;
use ike::wire::header;
use ike::wire::header::Header;
use ike::wire::registry::{Doi, ExchangeType, Flags, NotifyType};
use state::{Pull, State};

/// One attempt to register one group with one key server, and the ISAKMP SA that stays afterwards.
///
/// After every `handle_*` and every command, drain `poll_transmit` and `poll_event`, then read
/// `poll_timeout`. `now` must never go back. The value is inert: dropping it ends everything in
/// silence; [`delete_isakmp_sa`](Self::delete_isakmp_sa) ends it at the key server first.
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

    /// Initiator and responder cookie; the latter is zero in main mode (RFC 2408 §3.1), and there
    /// is none of them when the registration has ended.
    pub fn cookies(&self) -> Option<([u8; 8], [u8; 8])> {
        match &self.state {
            State::MainMode { initiator, .. } => Some((initiator.cookie(), [0; 8])),
            State::Established(session) => Some(pair(session.cookies())),
            State::Ended => None,
        }
    }

    /// When the ISAKMP SA ends, while there is one.
    pub fn isakmp_expiry(&self) -> Option<BootTime> {
        self.state.session().map(Session::expires)
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
        self.address().check(source)?;
        let (header, _) = header::split(datagram)?;
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
            ExchangeType::INFORMATIONAL if header.flags.contains(Flags::ENCRYPTION) => {
                self.handle_informational(&header, datagram)?;
            }
            ExchangeType::INFORMATIONAL => return Err(self.hint(datagram)),
            other => match (self.state.session().map(|session| session.sa().doi()), other) {
                (Some(Doi::GDOI), GROUPKEY_PULL) => {
                    self.handle_pull(header.message_id, datagram)?
                }
                (None, GROUPKEY_PULL) => return Err(NotAccepted::Unexpected.into()),
                _ => return Err(PeerIncompatible::ExchangeType(other.0).into()),
            },
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
        if self.state.session().is_some_and(|session| session.expires() <= now) {
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
        let Some(session) = self.state.session() else { return };
        let offered = session.exchanges().iter().find_map(|(message_id, pull)| match pull {
            Pull::Offered(offer) => {
                Some((*message_id, offer.accept(session.sa(), self.config.sender_ids)))
            }
            _ => None,
        });
        match offered {
            Some((message_id, Ok((pull, message)))) => {
                let retransmission = self.request(message, now);
                self.put(message_id, Pull::ExpectKeys(pull, retransmission));
            }
            Some((_, Err(error))) => self.fail(RegistrationFailure::Configuration(error)),
            None => {}
        }
    }

    /// The caller cannot use the policy offered: deletes the ISAKMP SA (RFC 6407 §3.3) and fails.
    /// Without an offer nothing happens.
    pub fn refuse_policy(&mut self, _now: BootTime) {
        let pulls = self.state.session().map(Session::exchanges);
        if pulls.is_some_and(|pulls| pulls.values().any(|pull| matches!(pull, Pull::Offered(_)))) {
            self.fail(RegistrationFailure::PolicyRefused);
        }
    }

    /// Pulls once more under the ISAKMP SA that stayed after a registration (RFC 6407 §3: several
    /// pulls may share one). Message 1 is repeated as `request` says: the key server may have lost
    /// the SA, and then it is silent. Message 3 is repeated as configured.
    ///
    /// # Errors
    /// The registration is not in [`Stage::Registered`].
    pub fn pull_again(
        &mut self,
        request: &RetransmissionPolicy,
        now: BootTime,
    ) -> Result<(), Error> {
        if self.stage() != Stage::Registered {
            return Err(ApiMisuse::NotRegistered.into());
        }
        self.start_pull(request, now);
        Ok(())
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
        let expiry = self.state.session().map(|session| Deadline {
            at: session.expires(),
            why: Timer::Ike(ike::event::Timer::IsakmpLifetime),
        });
        repeat.into_iter().chain(expiry).min()
    }

    /// What happened next; poll it until there is nothing more.
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
                self.state = State::Established(Session::new(sa, self.address(), now));
                let request = self.config.retransmission;
                self.start_pull(&request, now);
            }
            // Registrations begin main mode.
            Ok(InitiatorStep::Finished(_)) => return Err(NotAccepted::Unexpected.into()),
            // Only who did the Diffie-Hellman with us can have written that.
            Err(ike::Error::PeerMisbehaved(
                error @ (PeerMisbehaved::Certificate(_) | PeerMisbehaved::WrongSignature { .. }),
            )) => self.fail(RegistrationFailure::Untrusted(error)),
            // HASH_R was right: whoever this is knows the pre-shared key, or has a certificate of
            // an authority of ours.
            Err(ike::Error::PeerMisbehaved(PeerMisbehaved::WrongIdentity { expected, proved })) => {
                self.fail(RegistrationFailure::PeerIdentity { expected, proved });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn handle_pull(&mut self, message_id: u32, datagram: &[u8]) -> Result<(), Error> {
        let pull = self.state.session_mut().and_then(|session| session.exchange_mut(message_id));
        let Some((pull, sa)) = pull else { return Err(NotAccepted::Unexpected.into()) };
        match pull {
            Pull::ExpectPolicy(state, _) => match state.read(sa, datagram)? {
                Ok(message) => {
                    if let Some(Pull::ExpectPolicy(state, _)) = self.take(message_id) {
                        let offer = state.receive(message);
                        let policy = offer.policy().clone();
                        self.events.push_back(RegistrationEvent::PolicyOffered(policy));
                        self.put(message_id, Pull::Offered(offer));
                    }
                }
                Err(error) => self.refuse(error),
            },
            Pull::ExpectKeys(state, _) => match state.read(sa, datagram)? {
                Ok(group_sa) => {
                    self.take(message_id);
                    self.events.push_back(RegistrationEvent::Registered(group_sa));
                }
                Err(error) => self.refuse(error),
            },
            Pull::Offered(_) => return Err(NotAccepted::Unexpected.into()),
        }
        Ok(())
    }

    fn handle_informational(&mut self, header: &Header, datagram: &[u8]) -> Result<(), Error> {
        let Some(session) = self.state.session_mut() else {
            return Err(NotAccepted::Unexpected.into());
        };
        let (said, _) = session.open_informational(header.message_id, datagram)?;
        let deleted = session.is_deleted_by(&said);
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
    fn hint(&mut self, datagram: &[u8]) -> Error {
        let error = unprotected(datagram);
        let no_proposal_chosen = NotAccepted::UnprotectedNotify(NotifyType::NO_PROPOSAL_CHOSEN);
        self.no_proposal_chosen |= error == no_proposal_chosen.into() && self.accepted.is_none();
        error.into()
    }

    fn start_pull(&mut self, request: &RetransmissionPolicy, now: BootTime) {
        let Some(session) = self.state.session_mut() else { return };
        let message_id = session.begin_own(&mut self.rng);
        let group = self.config.group;
        let orders = (self.config.group_id_byte_order, self.config.selector_byte_order);
        match ExpectPolicy::start(session.sa(), group, orders, message_id, &mut self.rng) {
            Ok((pull, message)) => {
                self.transmit(message.clone());
                let retransmission = Retransmission::new(request, message, now);
                self.put(message_id, Pull::ExpectPolicy(pull, retransmission));
            }
            Err(error) => self.fail(RegistrationFailure::Configuration(error)),
        }
    }

    fn put(&mut self, message_id: u32, pull: Pull) {
        if let Some(session) = self.state.session_mut() {
            session.put(message_id, pull);
        }
    }

    fn take(&mut self, message_id: u32) -> Option<Pull> {
        self.state.session_mut()?.take(message_id)
    }

    /// The authenticated key server said something that cannot be followed (RFC 6407 §3.3).
    fn refuse(&mut self, error: Error) {
        self.fail(match error.is_incompatibility() {
            true => RegistrationFailure::PolicyNotUnderstood(error),
            false => RegistrationFailure::PeerMisbehaved(error),
        });
    }

    fn unanswered(&self, transmissions: u32) -> RegistrationFailure {
        match &self.state {
            State::MainMode { initiator: Initiator::ExpectAuth(_), .. } => {
                match self.config.credential {
                    Credential::PreSharedKey(_) => RegistrationFailure::AuthenticationFailed,
                    _ => RegistrationFailure::CertificateNotAccepted,
                }
            }
            _ if self.no_proposal_chosen => RegistrationFailure::NoProposalChosen {
                offered: self.config.phase1.transforms.clone(),
            },
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
        let Some(session) = self.state.session_mut() else { return };
        if let Ok(message) = session.seal_delete(&mut self.rng) {
            self.transmit(message);
        }
    }

    fn request(&mut self, message: Vec<u8>, now: BootTime) -> Retransmission {
        self.transmit(message.clone());
        Retransmission::new(&self.config.retransmission, message, now)
    }

    fn transmit(&mut self, payload: Vec<u8>) {
        self.transmits.push_back(self.address().transmit(payload));
    }

    /// Where the key server is: as configured, until a session knows better.
    fn address(&self) -> PeerAddress {
        let configured = PeerAddress { remote: self.config.server, local: self.config.local };
        self.state.session().map_or(configured, Session::address)
    }
}

fn pair(cookies: Cookies) -> ([u8; 8], [u8; 8]) {
    (cookies.initiator, cookies.responder)
}

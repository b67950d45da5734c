//! Main mode that we begin.

use super::{Peer, PeerEvent, Phase1Failure};
use crate::config::{Authentication, Phase1Mode};
use crate::endpoint::unprotected;
use crate::error::{Error, NotAccepted, PeerMisbehaved};
use crate::phase1::nat_traversal::{NAT_PORT, Nat};
use crate::phase1::{Cookies, Initiator, InitiatorConfig, InitiatorStep, IsakmpSa, Role};
use crate::retransmission::{Answered, Digest, Due, Retransmission};
use crate::session::{PeerAddress, Session};
use crate::time::BootTime;
use crate::wire::header::Header;
use crate::wire::registry::{ExchangeType, NotifyType};
use crate::wire::vendor::VendorId;

/// Main mode under way.
#[derive(Debug)]
pub(super) struct Attempt {
    initiator: Initiator,
    /// Where the peer is spoken to.
    address: PeerAddress,
    retransmission: Retransmission,
    /// The message that was accepted last: a copy of it is no news.
    accepted: Option<Digest>,
    /// Whether a HASH of the responder did not fit.
    foreign_key: bool,
    /// Whether an unreachable peer has been reported already.
    unreachable: bool,
    /// What somebody without proof said: it names the failure, should it come.
    hint: Option<NotifyType>,
}

impl Attempt {
    /// The responder's HASH did not fit: a hint, as anybody may have sent it.
    fn note(&mut self, error: &Error) {
        self.foreign_key |= matches!(
            error,
            Error::PeerMisbehaved(PeerMisbehaved::WrongHash { .. })
                if matches!(self.initiator, Initiator::ExpectReply(_))
        );
    }

    pub(super) fn is_meant(&self, cookies: Cookies) -> bool {
        self.initiator.cookie() == cookies.initiator
    }

    pub(super) fn address(&self) -> PeerAddress {
        self.address
    }

    pub(super) fn peer_vendor_ids(&self) -> &[VendorId] {
        self.initiator.peer_vendor_ids()
    }

    pub(super) fn at(&self) -> BootTime {
        self.retransmission.at()
    }

    /// All reports together take one repetition off the budget, and none counts once the peer has
    /// answered.
    pub(super) fn handle_unreachable(&mut self) {
        if self.accepted.is_none() && !core::mem::replace(&mut self.unreachable, true) {
            self.retransmission.shorten();
        }
    }

    /// Moves to port 4500 where that is what address translation demands (RFC 3947 §4).
    fn float(&mut self, nat: Option<Nat>) {
        if nat.is_some_and(|nat| nat.is_found()) && self.address.local.port() != NAT_PORT {
            self.address.local.set_port(NAT_PORT);
            self.address.remote.set_port(NAT_PORT);
        }
    }

    fn failure(&self, authentication: Authentication) -> Phase1Failure {
        let message = match self.initiator {
            Initiator::ExpectSa(_) | Initiator::ExpectReply(_) => 1,
            Initiator::ExpectKe(_) => 3,
            Initiator::ExpectAuth(_) => 5,
        };
        match self.hint {
            Some(NotifyType::NO_PROPOSAL_CHOSEN) if message == 1 => Phase1Failure::NoProposalChosen,
            Some(kind) => Phase1Failure::Rejected(kind),
            None if self.foreign_key => Phase1Failure::ForeignKey,
            None if message == 5 => Phase1Failure::ProofNotAccepted { authentication },
            None => {
                let transmissions = self.retransmission.transmissions();
                let mode = match self.initiator {
                    Initiator::ExpectReply(_) => Phase1Mode::Aggressive,
                    _ => Phase1Mode::Main,
                };
                Phase1Failure::NoAnswer { mode, message, transmissions }
            }
        }
    }
}

impl Peer {
    pub(super) fn begin_main_mode(&mut self, now: BootTime) {
        if self.attempt.is_some() {
            return;
        }
        let address = self.beginning();
        if address.remote.ip().is_unspecified() {
            self.fail_main_mode(Phase1Failure::AddressUnknown);
            return;
        }
        let config = InitiatorConfig {
            identity: self.config.identity.clone(),
            expected_identity: self.config.expected_identity.clone(),
            credential: self.config.credential.clone(),
            mode: self.config.mode,
            initial_contact: !self.contacted,
            policy: self.config.phase1.clone(),
            vendor_ids: self.config.all_vendor_ids(),
            nat: Some((self.config.nat, address)),
            unix_seconds: self.wall_clock.at(now),
        };
        match Initiator::start(config, &mut self.rng) {
            Ok((initiator, message)) => {
                self.transmits.push_back(address.transmit(message.clone()));
                self.attempt = Some(Attempt {
                    initiator,
                    address,
                    retransmission: Retransmission::new(&self.config.retransmission, message, now),
                    accepted: None,
                    foreign_key: false,
                    unreachable: false,
                    hint: None,
                });
            }
            Err(error) => self.fail_main_mode(Phase1Failure::Configuration(error)),
        }
    }

    /// Sends a request for the first time.
    pub(super) fn request(&mut self, message: Vec<u8>, now: BootTime) -> Retransmission {
        self.transmit(message.clone());
        Retransmission::new(&self.config.retransmission, message, now)
    }

    /// A message with the cookie of our attempt.
    pub(super) fn handle_answer(
        &mut self,
        header: &Header,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<(), Error> {
        let Some(attempt) = &mut self.attempt else { return Err(NotAccepted::Ended.into()) };
        let digest = Digest::of(datagram);
        if attempt.accepted.as_ref() == Some(&digest) {
            return Err(NotAccepted::Replayed.into());
        }
        if !matches!(header.exchange, ExchangeType::IDENTITY_PROTECTION | ExchangeType::AGGRESSIVE)
        {
            let error = unprotected(datagram);
            if let Error::NotAccepted(NotAccepted::UnprotectedNotify(kind)) = error
                && kind.is_error()
            {
                attempt.hint.get_or_insert(kind);
            }
            return Err(error);
        }
        match attempt.initiator.handle(datagram, &mut self.rng) {
            Ok(InitiatorStep::Continue { next, message }) => {
                attempt.float(next.nat());
                attempt.initiator = next;
                attempt.accepted = Some(digest);
                let retransmission = self.request(message, now);
                if let Some(attempt) = &mut self.attempt {
                    attempt.retransmission = retransmission;
                }
            }
            Ok(InitiatorStep::Established(sa)) => self.establish(sa, None, now),
            Ok(InitiatorStep::Finished(finished)) => {
                attempt.float(finished.sa.nat());
                let answered = Answered::new(digest, finished.message, now);
                self.establish(finished.sa, Some(answered), now);
            }
            // Only who did the Diffie-Hellman with us can have written that.
            Err(Error::PeerMisbehaved(
                error @ (PeerMisbehaved::Certificate(_) | PeerMisbehaved::WrongSignature { .. }),
            )) => self.fail_main_mode(Phase1Failure::Untrusted(error)),
            // HASH_R was right: whoever this is knows the pre-shared key, or has a
            // certificate of an authority of ours.
            Err(Error::PeerMisbehaved(PeerMisbehaved::WrongIdentity { expected, proved })) => {
                self.fail_main_mode(Phase1Failure::Identity { expected, proved });
            }
            Err(error) => {
                attempt.note(&error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// `answered` is message 3 of aggressive mode.
    fn establish(&mut self, sa: IsakmpSa, answered: Option<Answered>, now: BootTime) {
        let address = self.attempt.take().map_or(self.config.address, |attempt| attempt.address);
        self.contacted = true;
        let (cookies, transform) = (sa.cookies(), sa.transform());
        let identity = sa.peer_identity().clone();
        let session = Session::new(sa, address, now);
        self.endpoint.adopt(match answered {
            Some(answered) => {
                let message = answered.answer().to_vec();
                self.transmits.push_back(address.transmit(message.clone()));
                self.last_word = Some((cookies, message));
                session.with_answer(answered)
            }
            None => session,
        });
        self.sessions.push(cookies);
        self.detect(cookies, now);
        let (role, restarted) = (Role::Initiator, false);
        self.events.push_back(PeerEvent::Established {
            identity,
            transform,
            cookies,
            role,
            restarted,
        });
        self.settle(Some(now));
    }

    pub(super) fn repeat_main_mode(&mut self, now: BootTime) {
        let Some(attempt) = &mut self.attempt else { return };
        match attempt.retransmission.handle_timeout(now) {
            Due::NotYet => {}
            Due::Repeat => {
                let message = attempt.retransmission.message().to_vec();
                self.transmit(message);
            }
            Due::GiveUp => {
                let failure = attempt.failure(self.config.credential.authentication());
                self.fail_main_mode(failure);
            }
        }
    }

    fn fail_main_mode(&mut self, failure: Phase1Failure) {
        self.attempt = None;
        self.wanted.clear();
        self.events.push_back(PeerEvent::Phase1Failed(failure));
    }
}

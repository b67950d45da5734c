//! Main mode, initiator (RFC 2409 §5.1, §5.4).
//!
//! ```text
//! start       --> HDR, SA                 ExpectSa
//! ExpectSa    <-- HDR, SA
//!             --> HDR, KE, Ni             ExpectKe
//! ExpectKe    <-- HDR, KE, Nr
//!             --> HDR*, IDii, HASH_I      ExpectAuth
//! ExpectAuth  <-- HDR*, IDir, HASH_R      IsakmpSa
//! ```

use std::sync::Arc;

use super::aggressive::{ExpectReply, Finished};
use super::auth::{Exchanged, MainModeKeys, Negotiated};
use super::cookies::Cookies;
use super::exchange_cipher::ExchangeCipher;
use super::informational::initial_contact;
use super::isakmp_sa::{IsakmpSa, Role};
use super::message::{KeyExchangeMessage, NONCE_LENGTH, SaMessage};
use super::nat_traversal::{self, Nat, NatTraversal, Search};
use super::proposal;
use super::signatures::{Certified, requests};
use crate::address::PeerAddress;
use crate::config::{Credential, Identity, Phase1Mode, Phase1Policy};
use crate::crypto::{KeyPair, PublicValue, Secret, SeededRng};
use crate::error::{Error, NotAccepted, PeerMisbehaved};
use crate::wire::header::Cookie;
use crate::wire::registry::ExchangeType;
use crate::wire::vendor::VendorId;
use crate::wire::{InvalidMessage, Payload};

/// What an initiator brings along.
#[derive(Clone, Debug)]
pub struct InitiatorConfig {
    pub identity: Identity,
    /// The identity that the responder must prove.
    pub expected_identity: Identity,
    /// What proves our identity and the responder's.
    pub credential: Credential,
    /// Main mode or aggressive mode.
    pub mode: Phase1Mode,
    /// Whether we say INITIAL-CONTACT.
    pub initial_contact: bool,
    /// What may be negotiated.
    pub policy: Phase1Policy,
    /// What we state in messages 1 and 3: a responder that keeps nothing of message 1 hears it in
    /// message 3.
    pub vendor_ids: Vec<VendorId>,
    /// What is done about address translation between these two ends; `None` is nothing.
    pub nat: Option<(NatTraversal, PeerAddress)>,
    /// When phase 1 begins, in seconds since 1970: the responder's certificate must be valid then.
    /// Without certificates nobody asks.
    pub unix_seconds: u64,
}

impl InitiatorConfig {
    pub(super) fn all_vendor_ids(&self) -> Vec<VendorId> {
        let nat = self.nat.map(|(traversal, _)| nat_traversal::vendor_ids(traversal));
        self.vendor_ids.iter().cloned().chain(nat.into_iter().flatten()).collect()
    }
}

/// An initiator that waits for the responder.
#[derive(Debug)]
pub enum Initiator {
    /// Waits for message 2.
    ExpectSa(ExpectSa),
    /// Waits for message 4.
    ExpectKe(ExpectKe),
    /// Waits for message 6.
    ExpectAuth(ExpectAuth),
    /// Waits for message 2 of aggressive mode.
    ExpectReply(Box<ExpectReply>),
}

/// What an accepted message leads to.
#[derive(Debug)]
pub enum InitiatorStep {
    /// Send `message`; `next` takes the place of the state that accepted.
    Continue {
        next: Initiator,
        /// The datagram to send.
        message: Vec<u8>,
    },
    /// Phase 1 is over.
    Established(IsakmpSa),
    /// Aggressive mode is over when its message 3 arrives: send it.
    Finished(Box<Finished>),
}

impl Initiator {
    /// Begins, and returns message 1.
    ///
    /// # Errors
    /// A policy without transforms or with more than 255, or a message that does not fit.
    pub fn start(config: InitiatorConfig, rng: &mut SeededRng) -> Result<(Self, Vec<u8>), Error> {
        if config.mode == Phase1Mode::Aggressive {
            let (state, message) = ExpectReply::start(config, rng)?;
            return Ok((Self::ExpectReply(Box::new(state)), message));
        }
        let cookie = rng.nonzero_array();
        let offer = proposal::offer(&config.policy)?;
        let cookies = Cookies { initiator: cookie, responder: [0; 8] };
        let (message, sai_b) = SaMessage::write(cookies, offer, &config.all_vendor_ids())?;
        Ok((Self::ExpectSa(ExpectSa { config: Arc::new(config), cookie, sai_b }), message))
    }

    /// Our cookie, which the responder repeats in every message.
    pub fn cookie(&self) -> Cookie {
        match self {
            Self::ExpectSa(state) => state.cookie,
            Self::ExpectKe(state) => state.negotiated.cookies.initiator,
            Self::ExpectAuth(state) => state.cookies.initiator,
            Self::ExpectReply(state) => state.cookie(),
        }
    }

    /// What the responder has stated so far.
    pub fn peer_vendor_ids(&self) -> &[VendorId] {
        match self {
            Self::ExpectSa(_) | Self::ExpectReply(_) => &[],
            Self::ExpectKe(state) => &state.negotiated.peer_vendor_ids,
            Self::ExpectAuth(state) => state.keys.peer_vendor_ids(),
        }
    }

    /// What was found about address translation; known from message 4 on.
    pub fn nat(&self) -> Option<Nat> {
        match self {
            Self::ExpectSa(_) | Self::ExpectKe(_) | Self::ExpectReply(_) => None,
            Self::ExpectAuth(state) => state.keys.nat(),
        }
    }

    /// Takes the responder's next message.
    ///
    /// # Errors
    /// The message is discarded; this state stays good for the true one.
    pub fn handle(&self, datagram: &[u8], rng: &mut SeededRng) -> Result<InitiatorStep, Error> {
        match self {
            Self::ExpectSa(state) => {
                let (next, message) = state.handle(datagram, rng)?;
                Ok(InitiatorStep::Continue { next: Self::ExpectKe(next), message })
            }
            Self::ExpectKe(state) => {
                let (next, message) = state.handle(datagram, rng)?;
                Ok(InitiatorStep::Continue { next: Self::ExpectAuth(next), message })
            }
            Self::ExpectAuth(state) => state.handle(datagram).map(InitiatorStep::Established),
            Self::ExpectReply(state) => {
                state.handle(datagram, rng).map(Box::new).map(InitiatorStep::Finished)
            }
        }
    }
}

/// Message 1 is sent.
#[derive(Debug)]
pub struct ExpectSa {
    config: Arc<InitiatorConfig>,
    cookie: Cookie,
    sai_b: Vec<u8>,
}

impl ExpectSa {
    /// `HDR, SA <--`, then `HDR, KE, Ni -->`. Costs one exponentiation once the message is
    /// accepted.
    fn handle(&self, datagram: &[u8], rng: &mut SeededRng) -> Result<(ExpectKe, Vec<u8>), Error> {
        let SaMessage { cookies, sa, vendor_ids, .. } = SaMessage::read("message 2", datagram)?;
        if cookies.initiator != self.cookie {
            return Err(NotAccepted::UnknownCookies.into());
        }
        if cookies.responder == [0; 8] {
            return Err(
                InvalidMessage::Value { what: "responder cookie", offset: 8, value: 0 }.into()
            );
        }
        let agreement = proposal::check_choice(&self.config.policy, &sa)?;
        let negotiated = Negotiated {
            exchange: ExchangeType::IDENTITY_PROTECTION,
            cookies,
            doi: self.config.policy.doi,
            port: self.config.policy.port,
            transform: agreement.transform,
            lifetime: agreement.lifetime,
            sai_b: self.sai_b.clone(),
            peer_vendor_ids: vendor_ids,
            nat: None,
        };
        let search = search(&self.config, &negotiated);
        let key_pair = KeyPair::generate(negotiated.transform.group, rng);
        let nonce = rng.array();
        let mut others = requests(&self.config.credential);
        others.extend(search.iter().flat_map(Search::payloads));
        others.extend(self.config.vendor_ids.iter().cloned().map(Payload::from));
        let message = KeyExchangeMessage::write(cookies, key_pair.public(), &nonce, others)?;
        Ok((ExpectKe { config: Arc::clone(&self.config), negotiated, key_pair, nonce }, message))
    }
}

/// Message 3 is sent.
#[derive(Debug)]
pub struct ExpectKe {
    config: Arc<InitiatorConfig>,
    negotiated: Negotiated,
    key_pair: KeyPair,
    nonce: [u8; NONCE_LENGTH],
}

impl ExpectKe {
    /// `HDR, KE, Nr <--`, then `HDR*, IDii, HASH_I -->`. Costs one exponentiation.
    fn handle(&self, datagram: &[u8], rng: &mut SeededRng) -> Result<(ExpectAuth, Vec<u8>), Error> {
        let group = self.negotiated.transform.group;
        let KeyExchangeMessage { public, nonce, vendor_ids, nat, .. } =
            KeyExchangeMessage::read("message 4", self.negotiated.cookies, group, datagram)?;
        // Our own value thrown back at us would let our own HASH_I pass as HASH_R.
        if public == self.key_pair.public() {
            return Err(PeerMisbehaved::PublicValue { group }.into());
        }
        let g_xy = PublicValue::read(group, &public)
            .and_then(|value| self.key_pair.agree(&value))
            .map_err(|_| PeerMisbehaved::PublicValue { group })?;
        let exchanged = Exchanged {
            g_xi: self.key_pair.public(),
            g_xr: &public,
            ni_b: &self.nonce,
            nr_b: &nonce,
        };
        let mut negotiated = self.negotiated.clone();
        negotiated.nat = search(&self.config, &negotiated).and_then(|search| search.find(&nat));
        negotiated.peer_vendor_ids.extend(vendor_ids);
        ExpectAuth::begin(&self.config, negotiated, &g_xy, &exchanged, rng)
    }
}

/// Message 5 is sent.
#[derive(Debug)]
pub struct ExpectAuth {
    config: Arc<InitiatorConfig>,
    cookies: Cookies,
    keys: MainModeKeys,
    /// Decrypts message 6: its IV follows from message 5.
    exchange: ExchangeCipher,
}

impl ExpectAuth {
    fn begin(
        config: &Arc<InitiatorConfig>,
        negotiated: Negotiated,
        g_xy: &Secret,
        exchanged: &Exchanged<'_>,
        rng: &mut SeededRng,
    ) -> Result<(Self, Vec<u8>), Error> {
        let cookies = negotiated.cookies;
        let (keys, exchange) =
            MainModeKeys::derive(negotiated, &config.credential, g_xy, exchanged)?;
        let contact = config.initial_contact.then(|| initial_contact(cookies));
        let (role, identity) = (Role::Initiator, &config.identity);
        let sealed = match &config.credential {
            Credential::PreSharedKey(_) => keys.seal(&exchange, role, identity, contact)?,
            Credential::Certificate(credential) => {
                keys.seal_signed(&exchange, role, identity, credential, contact, rng)?
            }
        };
        let next = Self { config: Arc::clone(config), cookies, keys, exchange: sealed.next() };
        Ok((next, sealed.into_datagram()))
    }

    /// `HDR*, IDir, HASH_R <--`.
    fn handle(&self, datagram: &[u8]) -> Result<IsakmpSa, Error> {
        let expected = &self.config.expected_identity;
        let (message, role) = ("message 6", Role::Responder);
        let (proof, last) = match &self.config.credential {
            Credential::PreSharedKey(_) => {
                self.keys.open(message, &self.exchange, role, expected, datagram)?
            }
            Credential::Certificate(credential) => {
                let (expected, unix_seconds) = (Some(expected), self.config.unix_seconds);
                let certified = Certified { credential, unix_seconds, expected };
                self.keys.open_signed(message, &self.exchange, role, certified, datagram)?
            }
        };
        Ok(self.keys.establish(Role::Initiator, proof, &last))
    }
}

/// The search for address translation, if the responder speaks a dialect of it.
pub(super) fn search(config: &InitiatorConfig, negotiated: &Negotiated) -> Option<Search> {
    let (traversal, ends) = config.nat.filter(|(traversal, _)| *traversal != NatTraversal::Off)?;
    Some(Search {
        dialect: nat_traversal::dialect(&negotiated.peer_vendor_ids)?,
        hash: negotiated.transform.hash,
        cookies: negotiated.cookies,
        ends,
        claims: traversal == NatTraversal::Always,
    })
}

//! Aggressive mode in both roles (RFC 2409 §5.1, §5.4): phase 1 in three messages.
//!
//! ```text
//! initiator                             responder
//! HDR, SA, KE, Ni, IDii        -->
//!                              <--      HDR, SA, KE, Nr, IDir, HASH_R
//! HDR*, HASH_I                 -->
//! ```
//!
//! With certificates, CERT and SIG stand in place of HASH. The identities travel in clear, and HASH_R
//! goes to whoever asks: with a pre-shared key, anybody can have one and try keys against it at
//! leisure. What it is good for is that the key can be found by the identity, where the address of
//! the initiator is not known before.

use std::sync::Arc;

use super::auth::{Exchanged, MainModeKeys, Negotiated, PeerProof};
use super::cookies::Cookies;
use super::exchange_cipher::{ExchangeCipher, check_flags, open_with, seal_with};
use super::informational::{initial_contact, is_initial_contact};
use super::initiator::{InitiatorConfig, search};
use super::isakmp_sa::{IsakmpSa, PeerAuthenticated, Role, does_not_fit};
use super::message::{
    NONCE_LENGTH, SaMessage, check_exchange, check_kinds, check_protocol_and_port, clear, only,
};
use super::nat_traversal::{Detection, NatTraversal, Search};
use super::proposal::{self, Agreement};
use super::responder::known;
use super::signatures::{Certified, requests};
use crate::address::PeerAddress;
use crate::config::{Authentication, Credential, IKE_PORT, Identity, Phase1Policy};
use crate::crypto::{DhGroup, KeyPair, PublicValue, SeededRng};
use crate::error::{ApiMisuse, Error, NotAccepted, PeerIncompatible, PeerMisbehaved};
use crate::wire::hash::Hash;
use crate::wire::header::{self, Cookie, Header};
use crate::wire::id::Identification;
use crate::wire::ke::KeyExchange;
use crate::wire::nonce::Nonce;
use crate::wire::payload::{Payload, encode_chain, first_kind};
use crate::wire::registry::{Doi, ExchangeType, Flags, PayloadKind};
use crate::wire::sa::SecurityAssociation;
use crate::wire::vendor::VendorId;
use crate::wire::{Chain, Codec, InvalidMessage, chain};

const MESSAGES: [&str; 3] = [
    "message 1 of aggressive mode",
    "message 2 of aggressive mode",
    "message 3 of aggressive mode",
];

/// What messages 1 and 2 have in common: `HDR, SA, KE, N, ID`.
#[derive(Debug)]
struct Opening {
    sa: SaMessage,
    public: Vec<u8>,
    nonce: Vec<u8>,
    identity: Identity,
    /// Body of the ID payload as received.
    id_b: Vec<u8>,
    nat: Detection,
}

impl Opening {
    fn read(message: &'static str, datagram: &[u8], own: &[PayloadKind]) -> Result<Self, Error> {
        const BOTH: [PayloadKind; 4] = [
            PayloadKind::SA,
            PayloadKind::KEY_EXCHANGE,
            PayloadKind::NONCE,
            PayloadKind::IDENTIFICATION,
        ];
        let (header, body) = header::split(datagram)?;
        check_exchange(&header, ExchangeType::AGGRESSIVE)?;
        check_flags(&header, message, false)?;
        let chain = chain::walk_clear(header.next_payload, body, header::LENGTH)?;
        check_kinds(message, &chain, &[&BOTH, own].concat())?;
        let sa = SaMessage::of(message, &header, &chain)?;
        let KeyExchange(public) = only(message, &chain, PayloadKind::KEY_EXCHANGE, "KE")?.read()?;
        let Nonce(nonce) = only(message, &chain, PayloadKind::NONCE, "nonce")?.read()?;
        let id = only(message, &chain, PayloadKind::IDENTIFICATION, "ID")?;
        let read: Identification = id.read()?;
        check_protocol_and_port(&read, IKE_PORT, id.offset)?;
        let identity = read.as_identity().ok_or(PeerIncompatible::IdentificationType(read.kind))?;
        let (id_b, nat) = (id.body().to_vec(), Detection::read(&chain));
        Ok(Self { sa, public, nonce, identity, id_b, nat })
    }
}

/// The initiator behind message 1.
#[derive(Debug)]
pub struct ExpectReply {
    config: Arc<InitiatorConfig>,
    cookie: Cookie,
    sai_b: Vec<u8>,
    key_pair: KeyPair,
    nonce: [u8; NONCE_LENGTH],
    id_b: Vec<u8>,
}

/// The end of aggressive mode as initiator: the ISAKMP SA, and message 3 for the responder.
#[derive(Debug)]
pub struct Finished {
    pub sa: IsakmpSa,
    pub message: Vec<u8>,
}

impl ExpectReply {
    /// `HDR, SA, KE, Ni, IDii -->`. Costs one exponentiation.
    pub(super) fn start(
        config: InitiatorConfig,
        rng: &mut SeededRng,
    ) -> Result<(Self, Vec<u8>), Error> {
        let mut groups = config.policy.transforms.iter().map(|transform| transform.group);
        let group = groups.next().ok_or(ApiMisuse::Configuration("phase 1 has no transform"))?;
        if groups.any(|other| other != group) {
            // The public value is in the first message.
            let several = "aggressive mode offers one Diffie-Hellman group";
            return Err(ApiMisuse::Configuration(several).into());
        }
        let (cookie, nonce) = (rng.nonzero_array(), rng.array());
        let key_pair = KeyPair::generate(group, rng);
        let offer = proposal::offer(&config.policy)?;
        let sai_b = offer.to_octets().map_err(does_not_fit)?;
        let id = Identification::of(&config.identity);
        let id_b = id.to_octets().map_err(does_not_fit)?;
        let mut payloads: Vec<Payload> = vec![
            offer.into(),
            KeyExchange(key_pair.public().to_vec()).into(),
            Nonce(nonce.to_vec()).into(),
            id.into(),
        ];
        payloads.extend(requests(&config.credential));
        payloads.extend(config.all_vendor_ids().into_iter().map(Payload::from));
        let cookies = Cookies { initiator: cookie, responder: [0; 8] };
        let message = clear(ExchangeType::AGGRESSIVE, cookies, &payloads)?;
        let config = Arc::new(config);
        Ok((Self { config, cookie, sai_b, key_pair, nonce, id_b }, message))
    }

    pub(super) fn cookie(&self) -> Cookie {
        self.cookie
    }

    /// `HDR, SA, KE, Nr, IDir, HASH_R <--`, then `HDR*, HASH_I -->`. Costs one exponentiation.
    pub(super) fn handle(&self, datagram: &[u8], rng: &mut SeededRng) -> Result<Finished, Error> {
        const OWN: [PayloadKind; 3] =
            [PayloadKind::HASH, PayloadKind::CERTIFICATE, PayloadKind::SIGNATURE];
        let [_, message, _] = MESSAGES;
        let read = Opening::read(message, datagram, &OWN)?;
        let cookies = read.sa.cookies;
        if cookies.initiator != self.cookie {
            return Err(NotAccepted::UnknownCookies.into());
        }
        if cookies.responder == [0; 8] {
            return Err(no_cookie());
        }
        let agreement = proposal::check_choice(&self.config.policy, &read.sa.sa)?;
        let mut negotiated = Negotiated {
            exchange: ExchangeType::AGGRESSIVE,
            cookies,
            doi: self.config.policy.doi,
            port: self.config.policy.port,
            transform: agreement.transform,
            lifetime: agreement.lifetime,
            sai_b: self.sai_b.clone(),
            peer_vendor_ids: read.sa.vendor_ids,
            nat: None,
        };
        let search = search(&self.config, &negotiated);
        negotiated.nat = search.as_ref().and_then(|search| search.find(&read.nat));
        let group = agreement.transform.group;
        let unusable = || Error::from(PeerMisbehaved::PublicValue { group });
        // Our own value thrown back at us would let our own words pass as the responder's.
        if read.public == self.key_pair.public() || read.public.len() != group.public_length() {
            return Err(unusable());
        }
        let g_xy = PublicValue::read(group, &read.public)
            .and_then(|value| self.key_pair.agree(&value))
            .map_err(|_| unusable())?;
        let exchanged = Exchanged {
            g_xi: self.key_pair.public(),
            g_xr: &read.public,
            ni_b: &self.nonce,
            nr_b: &read.nonce,
        };
        let (keys, exchange) =
            MainModeKeys::derive(negotiated, &self.config.credential, &g_xy, &exchanged)?;
        let (header, body) = header::split(datagram)?;
        let chain = chain::walk_clear(header.next_payload, body, header::LENGTH)?;
        let prover = Prover { role: Role::Responder, identity: read.identity, id_b: &read.id_b };
        let certified = match &self.config.credential {
            Credential::PreSharedKey(_) => None,
            Credential::Certificate(credential) => Some(Certified {
                credential,
                unix_seconds: self.config.unix_seconds,
                expected: Some(&self.config.expected_identity),
            }),
        };
        let expected = &self.config.expected_identity;
        let proof = prover.verify(message, &keys, &chain, certified, expected)?;
        let mut payloads =
            proof_payloads(&keys, Role::Initiator, &self.id_b, &self.config.credential, rng)?;
        payloads.extend(search.iter().flat_map(Search::payloads));
        let contact = self.config.initial_contact.then(|| initial_contact(cookies));
        payloads.extend(contact.map(Payload::from));
        let octets = encode_chain(&payloads).map_err(does_not_fit)?;
        let sealed = seal_with(keys.cipher(), cookies, &exchange, first_kind(&payloads), &octets)?;
        let sa = keys.establish(Role::Initiator, proof, &sealed.next());
        Ok(Finished { sa, message: sealed.into_datagram() })
    }
}

/// Message 1, read: no arithmetic has been done.
#[derive(Debug)]
pub struct ReceivedOpening(Opening);

/// What the responder brings along.
#[derive(Clone, Copy, Debug)]
pub struct Answering<'a> {
    /// The identity that we prove.
    pub identity: &'a Identity,
    pub credential: &'a Credential,
    /// What is done about address translation between these two ends.
    pub nat: (NatTraversal, PeerAddress),
    /// What message 2 states.
    pub vendor_ids: &'a [VendorId],
}

impl ReceivedOpening {
    /// Parses message 1.
    ///
    /// # Errors
    /// It is no message 1.
    pub fn read(datagram: &[u8]) -> Result<Self, Error> {
        let [message, ..] = MESSAGES;
        let read = Opening::read(message, datagram, &[])?;
        if read.sa.cookies.responder != [0; 8] {
            return Err(no_cookie());
        }
        Ok(Self(read))
    }

    /// The identity that the initiator claims; message 3 proves it.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    pub fn doi(&self) -> Doi {
        self.0.sa.sa.doi
    }

    /// Chooses from the offer; no arithmetic is done.
    ///
    /// # Errors
    /// Nothing in the offer is acceptable.
    pub fn choose(self, policies: &[Phase1Policy]) -> Result<ChosenOpening, Error> {
        let Self(opening) = self;
        let doi = opening.sa.sa.doi;
        let policy = policies.iter().find(|policy| policy.doi == doi);
        let policy = policy.ok_or(PeerIncompatible::Doi(doi))?;
        let (agreement, choice) = proposal::choose(policy, &opening.sa.sa)?;
        Ok(ChosenOpening { opening, agreement, choice, port: policy.port })
    }
}

/// Message 1 with what was chosen from it. What follows costs arithmetic, also where it fails.
#[derive(Debug)]
pub struct ChosenOpening {
    opening: Opening,
    agreement: Agreement,
    choice: SecurityAssociation,
    port: u16,
}

impl ChosenOpening {
    pub fn group(&self) -> DhGroup {
        self.agreement.transform.group
    }

    /// Does the Diffie-Hellman, two exponentiations, and returns `HDR, SA, KE, Nr, IDir,
    /// HASH_R -->`.
    ///
    /// # Errors
    /// The public value is unusable.
    pub fn answer(
        self,
        answering: Answering<'_>,
        rng: &mut SeededRng,
    ) -> Result<(ExpectProof, Vec<u8>), Error> {
        let Self { opening, agreement, choice, port } = self;
        let Opening { sa, public, nonce, identity, id_b, nat } = opening;
        let Agreement { transform, lifetime, .. } = agreement;
        let group = transform.group;
        let unusable = || Error::from(PeerMisbehaved::PublicValue { group });
        if public.len() != group.public_length() {
            return Err(unusable());
        }
        let value = PublicValue::read(group, &public).map_err(|_| unusable())?;
        let key_pair = KeyPair::generate(group, rng);
        let g_xy = key_pair.agree(&value).map_err(|_| unusable())?;
        let own_nonce: [u8; NONCE_LENGTH] = rng.array();
        let cookies = Cookies { initiator: sa.cookies.initiator, responder: rng.nonzero_array() };
        // NAT-D comes with message 3: that the initiator looks for it shows in its vendor IDs.
        let (traversal, ends) = answering.nat;
        let dialect = super::nat_traversal::dialect(&sa.vendor_ids);
        let dialect = dialect.filter(|_| traversal != NatTraversal::Off);
        let claims = traversal == NatTraversal::Always;
        let hash = transform.hash;
        let search = dialect.map(|dialect| Search { dialect, hash, cookies, ends, claims });
        let negotiated = Negotiated {
            exchange: ExchangeType::AGGRESSIVE,
            cookies,
            doi: choice.doi,
            port,
            transform,
            lifetime,
            sai_b: sa.sa_b,
            peer_vendor_ids: known(sa.vendor_ids),
            nat: search.as_ref().and_then(|search| search.find(&nat)),
        };
        let exchanged =
            Exchanged { g_xi: &public, g_xr: key_pair.public(), ni_b: &nonce, nr_b: &own_nonce };
        let (keys, exchange) =
            MainModeKeys::derive(negotiated, answering.credential, &g_xy, &exchanged)?;
        let ours = Identification::of(answering.identity);
        let our_id_b = ours.to_octets().map_err(does_not_fit)?;
        let mut payloads: Vec<Payload> = vec![
            choice.into(),
            KeyExchange(key_pair.public().to_vec()).into(),
            Nonce(own_nonce.to_vec()).into(),
            ours.into(),
        ];
        let credential = answering.credential;
        payloads.extend(proof_payloads(&keys, Role::Responder, &our_id_b, credential, rng)?);
        payloads.extend(requests(credential));
        payloads.extend(search.iter().flat_map(Search::payloads));
        payloads.extend(answering.vendor_ids.iter().cloned().map(Payload::from));
        let message = clear(ExchangeType::AGGRESSIVE, cookies, &payloads)?;
        Ok((ExpectProof { keys, exchange, identity, id_b, search }, message))
    }
}

/// The responder behind message 2.
#[derive(Debug)]
pub struct ExpectProof {
    keys: MainModeKeys,
    exchange: ExchangeCipher,
    /// What the initiator claims to be.
    identity: Identity,
    id_b: Vec<u8>,
    search: Option<Search>,
}

impl ExpectProof {
    pub fn cookies(&self) -> Cookies {
        self.keys.cookies()
    }

    /// Whether address translation is looked for: message 3 may come from elsewhere then.
    pub fn looks_for_nat(&self) -> bool {
        self.search.is_some()
    }

    /// `HDR*, HASH_I <--`, encrypted or in clear. The initiator must prove `expected`.
    ///
    /// # Errors
    /// The message is discarded; this state stays good for the true one.
    pub fn handle(
        &self,
        datagram: &[u8],
        expected: Option<&Identity>,
        certified: Option<Certified<'_>>,
    ) -> Result<IsakmpSa, Error> {
        const OWN: [PayloadKind; 3] =
            [PayloadKind::HASH, PayloadKind::CERTIFICATE, PayloadKind::SIGNATURE];
        let [.., message] = MESSAGES;
        let (header, body) = header::split(datagram)?;
        check_exchange(&header, ExchangeType::AGGRESSIVE)?;
        if Cookies::of(&header) != self.cookies() {
            return Err(NotAccepted::UnknownCookies.into());
        }
        let expected = expected.unwrap_or(&self.identity);
        let prover =
            Prover { role: Role::Initiator, identity: self.identity.clone(), id_b: &self.id_b };
        let finish = |chain: &Chain<'_>, last: &ExchangeCipher| {
            check_kinds(message, chain, &OWN)?;
            let proof = prover.verify(message, &self.keys, chain, certified, expected)?;
            let nat = self.search.and_then(|search| search.find(&Detection::read(chain)));
            Ok(self.keys.establish_with(nat, Role::Responder, proof, last))
        };
        if header.flags.contains(Flags::ENCRYPTION) {
            let opened = open_with(self.keys.cipher(), &self.exchange, message, header, body)?;
            // Under keys from another pre-shared key the plain text is noise.
            let noise = |_| Error::from(PeerMisbehaved::WrongHash { message });
            return finish(&opened.chain().map_err(noise)?, &opened.next());
        }
        let chain = chain::walk_clear(header.next_payload, body, header::LENGTH)?;
        finish(&chain, &self.exchange)
    }
}

/// Who proves its identity.
#[derive(Debug)]
struct Prover<'a> {
    role: Role,
    identity: Identity,
    id_b: &'a [u8],
}

impl Prover<'_> {
    /// Verifies the HASH, or the CERT and SIG, of `chain`.
    fn verify(
        &self,
        message: &'static str,
        keys: &MainModeKeys,
        chain: &Chain<'_>,
        certified: Option<Certified<'_>>,
        expected: &Identity,
    ) -> Result<PeerProof, Error> {
        let identity = self.identity.clone();
        let authenticated = match (keys.authentication(), certified) {
            (Authentication::PreSharedKey, _) => {
                let hash = only(message, chain, PayloadKind::HASH, "HASH")?;
                let computed = keys.authenticator(self.role, self.id_b);
                PeerAuthenticated::verify(message, &computed, hash.body(), &identity, expected)?
            }
            (_, Some(certified)) => {
                keys.verify_signed(message, chain, self.role, certified, &identity, self.id_b)?
            }
            (_, None) => {
                return Err(
                    ApiMisuse::Configuration("no certificate for the negotiated method").into()
                );
            }
        };
        let initial_contact = chain
            .payloads
            .iter()
            .filter_map(|payload| payload.read().ok())
            .any(|notification| is_initial_contact(&notification, keys.cookies()));
        Ok(PeerProof { authenticated, initial_contact })
    }
}

/// HASH, or CERT and SIG, over our identity.
fn proof_payloads(
    keys: &MainModeKeys,
    prover: Role,
    id_b: &[u8],
    credential: &Credential,
    rng: &mut SeededRng,
) -> Result<Vec<Payload>, Error> {
    match credential {
        Credential::PreSharedKey(_) => {
            Ok(vec![Hash(keys.authenticator(prover, id_b).expose().to_vec()).into()])
        }
        Credential::Certificate(own) => keys.signed_payloads(prover, id_b, own, rng),
    }
}

/// What the initiator of a message 1 claims to be, for whoever has to choose a key by that.
pub fn claimed_identity(datagram: &[u8]) -> Option<Identity> {
    let (Header { exchange, responder_cookie, .. }, _) = header::split(datagram).ok()?;
    if exchange != ExchangeType::AGGRESSIVE || responder_cookie != [0; 8] {
        return None;
    }
    ReceivedOpening::read(datagram).ok().map(|opening| opening.0.identity)
}

fn no_cookie() -> Error {
    InvalidMessage::Value { what: "responder cookie", offset: 8, value: 0 }.into()
}

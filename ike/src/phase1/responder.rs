//! Main mode, responder (RFC 2409 §5.1, §5.4).
//!
//! ```text
//! answer_offer   <-- HDR, SA
//!                --> HDR, SA                 ExpectKe
//! ExpectKe       <-- HDR, KE, Ni             read: no arithmetic
//!                                            check: the public value, still without a key pair
//!                --> HDR, KE, Nr             compute: all of the Diffie-Hellman
//! ExpectAuth     <-- HDR*, IDii, HASH_I
//!                --> HDR*, IDir, HASH_R      IsakmpSa
//! ```
//!
//! Until message 3 comes from the address that message 2 went to, an exchange costs no arithmetic
//! and the memory of [`ExpectKe`] only: none at all where the offer is known from elsewhere and
//! [`ExpectKe::resume`] makes it once more.

use super::auth::{Exchanged, MainModeKeys, Negotiated};
use super::cookies::Cookies;
use super::exchange_cipher::ExchangeCipher;
use super::isakmp_sa::{IsakmpSa, Role};
use super::message::{KeyExchangeMessage, NONCE_LENGTH, SaMessage};
use super::nat_traversal::{Nat, NatTraversal, Search};
use super::proposal::{self, Agreement};
use super::signatures::{Certified, requests};
use crate::config::{Credential, Identity, Phase1Policy, Phase1Transform};
use crate::crypto::{KeyPair, PublicValue, SeededRng};
use crate::dead_peer_detection;
use crate::error::{Error, PeerIncompatible, PeerMisbehaved};
use crate::fragmentation;
use crate::wire::header::Cookie;
use crate::wire::registry::{Doi, ExchangeType};
use crate::wire::sa::SecurityAssociation;
use crate::wire::vendor::{CLUSTER, VendorId};
use crate::wire::{Codec, InvalidMessage};

/// Answers message 1 with message 2 under a responder cookie by chance.
///
/// # Errors
/// As for [`Offer::read`].
pub fn answer_offer(
    policies: &[Phase1Policy],
    datagram: &[u8],
    rng: &mut SeededRng,
) -> Result<(ExpectKe, Vec<u8>), Error> {
    Offer::read(policies, datagram)?.answer(rng.nonzero_array(), &[])
}

/// Message 1, read; whether it is acceptable is still open.
#[derive(Debug)]
pub struct ReceivedOffer {
    initiator: Cookie,
    sa: SecurityAssociation,
    sai_b: Vec<u8>,
    vendor_ids: Vec<VendorId>,
}

impl ReceivedOffer {
    /// Parses message 1 of main mode (RFC 2409 §5).
    ///
    /// # Errors
    /// It is no message 1.
    pub fn read(datagram: &[u8]) -> Result<Self, Error> {
        let SaMessage { cookies, sa, sa_b, vendor_ids } = SaMessage::read("message 1", datagram)?;
        if cookies.responder != [0; 8] {
            let value = u64::from_be_bytes(cookies.responder);
            return Err(InvalidMessage::Value { what: "responder cookie", offset: 8, value }.into());
        }
        Ok(Self { initiator: cookies.initiator, sa, sai_b: sa_b, vendor_ids: known(vendor_ids) })
    }

    /// The domain of interpretation that it is for.
    pub fn doi(&self) -> Doi {
        self.sa.doi
    }

    /// Chooses: the first transform of the offer, in the initiator's order of preference, that the
    /// policy for its domain of interpretation has. The lifetime is the smaller of both.
    ///
    /// # Errors
    /// No policy is for its domain, or nothing in it is acceptable.
    pub fn choose(self, policies: &[Phase1Policy]) -> Result<Offer, Error> {
        let Self { initiator, sa, sai_b, vendor_ids } = self;
        let (agreement, choice) = proposal::choose(policy_for(policies, sa.doi)?, &sa)?;
        Ok(Offer { initiator, agreement, choice, sai_b, vendor_ids })
    }
}

/// Those that mean something here: a stranger's message must not take room for the others.
pub(super) fn known(vendor_ids: Vec<VendorId>) -> Vec<VendorId> {
    let detects = |id: &&VendorId| id.0 == dead_peer_detection::VENDOR_ID;
    let clusters = |id: &&VendorId| id.0.starts_with(CLUSTER);
    let first = vendor_ids.iter().find(detects).into_iter();
    let fragments = |id: &&VendorId| fragmentation::is_understood(core::slice::from_ref(*id));
    let others = vendor_ids.iter().find(clusters).into_iter();
    first.chain(others).chain(vendor_ids.iter().find(fragments)).cloned().collect()
}

/// The policy for a domain of interpretation.
fn policy_for(policies: &[Phase1Policy], doi: Doi) -> Result<&Phase1Policy, PeerIncompatible> {
    policies.iter().find(|policy| policy.doi == doi).ok_or(PeerIncompatible::Doi(doi))
}

/// Message 1, read and found acceptable.
#[derive(Debug)]
pub struct Offer {
    initiator: Cookie,
    agreement: Agreement,
    choice: SecurityAssociation,
    sai_b: Vec<u8>,
    vendor_ids: Vec<VendorId>,
}

impl Offer {
    /// Reads message 1 and chooses.
    ///
    /// # Errors
    /// As for [`ReceivedOffer::read`] and [`ReceivedOffer::choose`].
    pub fn read(policies: &[Phase1Policy], datagram: &[u8]) -> Result<Self, Error> {
        ReceivedOffer::read(datagram)?.choose(policies)
    }

    /// The body of its SA payload, which HASH_I covers.
    pub fn octets(&self) -> &[u8] {
        &self.sai_b
    }

    /// Whether message 1 states something that means something here. Message 3 may not repeat it.
    pub fn states_vendor_ids(&self) -> bool {
        !self.vendor_ids.is_empty()
    }

    /// Answers it with message 2 under this responder cookie, which is not zero, and states
    /// `vendor_ids`.
    ///
    /// # Errors
    /// The answer does not fit; does not happen.
    pub fn answer(
        self,
        responder: Cookie,
        vendor_ids: &[VendorId],
    ) -> Result<(ExpectKe, Vec<u8>), Error> {
        let Self { initiator, agreement, choice, sai_b, vendor_ids: peer_vendor_ids } = self;
        let Agreement { transform, lifetime, port } = agreement;
        let (cookies, doi) = (Cookies { initiator, responder }, choice.doi);
        let (message, _) = SaMessage::write(cookies, choice, vendor_ids)?;
        Ok((
            ExpectKe {
                negotiated: Negotiated {
                    exchange: ExchangeType::IDENTITY_PROTECTION,
                    cookies,
                    doi,
                    port,
                    transform,
                    lifetime,
                    sai_b,
                    peer_vendor_ids,
                    nat: None,
                },
            },
            message,
        ))
    }
}

/// Message 2 is sent: cookies, the chosen transform and SAi_b, nothing else.
#[derive(Clone, Debug)]
pub struct ExpectKe {
    negotiated: Negotiated,
}

impl ExpectKe {
    pub fn cookies(&self) -> Cookies {
        self.negotiated.cookies
    }

    /// The state behind message 2 of `cookies` once more, made of the offer that it answered. The
    /// choice is the same as then if `policies` are.
    ///
    /// # Errors
    /// The octets are no offer, or nothing in it is acceptable.
    pub fn resume(
        policies: &[Phase1Policy],
        cookies: Cookies,
        sai_b: &[u8],
    ) -> Result<Self, Error> {
        let sa = SecurityAssociation::decode(sai_b)?;
        let policy = policy_for(policies, sa.doi)?;
        let (Agreement { transform, lifetime, port }, _) = proposal::choose(policy, &sa)?;
        let (doi, sai_b) = (sa.doi, sai_b.to_vec());
        let peer_vendor_ids = Vec::new();
        let negotiated = Negotiated {
            exchange: ExchangeType::IDENTITY_PROTECTION,
            cookies,
            doi,
            port,
            transform,
            lifetime,
            sai_b,
            peer_vendor_ids,
            nat: None,
        };
        Ok(Self { negotiated })
    }

    pub fn transform(&self) -> Phase1Transform {
        self.negotiated.transform
    }

    /// Domain of interpretation of the ISAKMP SA to be.
    pub fn doi(&self) -> Doi {
        self.negotiated.doi
    }

    /// Reads `HDR, KE, Ni <--` without any arithmetic.
    ///
    /// # Errors
    /// The message is discarded; this state stays good for the true one.
    pub fn read(&self, datagram: &[u8]) -> Result<KeyExchangeMessage, Error> {
        KeyExchangeMessage::read("message 3", self.cookies(), self.transform().group, datagram)
    }

    /// Checks the public value of message 3: nobody makes us compute a key pair for a value that
    /// cannot be used. Costs what [`PublicValue::read`] says.
    ///
    /// # Errors
    /// The value is unusable; this state stays good for another message 3.
    pub fn check(&self, received: &KeyExchangeMessage) -> Result<PublicValue, Error> {
        let group = self.transform().group;
        PublicValue::read(group, &received.public)
            .map_err(|_| PeerMisbehaved::PublicValue { group }.into())
    }

    /// Does the Diffie-Hellman of the exchange with the public value of `received`, two
    /// exponentiations, and returns `HDR, KE, Nr -->`.
    ///
    /// # Errors
    /// The keys that come out are weak ones of DES; this state stays good for another message 3.
    pub fn compute(
        &self,
        received: &KeyExchangeMessage,
        value: &PublicValue,
        credential: &Credential,
        rng: &mut SeededRng,
    ) -> Result<(ExpectAuth, Vec<u8>), Error> {
        let group = self.transform().group;
        let key_pair = KeyPair::generate(group, rng);
        let nonce: [u8; NONCE_LENGTH] = rng.array();
        let g_xy = key_pair.agree(value).map_err(|_| PeerMisbehaved::PublicValue { group })?;
        let exchanged = Exchanged {
            g_xi: value.octets(),
            g_xr: key_pair.public(),
            ni_b: &received.nonce,
            nr_b: &nonce,
        };
        let search = self.search(received);
        let mut others = requests(credential);
        others.extend(search.iter().flat_map(Search::payloads));
        let message = KeyExchangeMessage::write(self.cookies(), key_pair.public(), &nonce, others)?;
        let mut negotiated = self.negotiated.clone();
        negotiated.nat = search.and_then(|search| search.find(&received.nat));
        negotiated.peer_vendor_ids.extend(known(received.vendor_ids.clone()));
        let (keys, exchange) = MainModeKeys::derive(negotiated, credential, &g_xy, &exchanged)?;
        Ok((ExpectAuth { cookies: self.cookies(), keys, exchange }, message))
    }

    fn search(&self, received: &KeyExchangeMessage) -> Option<Search> {
        let wanted = received.ends.filter(|(traversal, _)| *traversal != NatTraversal::Off);
        let (traversal, ends) = wanted?;
        Some(Search {
            dialect: received.nat.dialect()?,
            hash: self.transform().hash,
            cookies: self.cookies(),
            ends,
            claims: traversal == NatTraversal::Always,
        })
    }
}

/// Message 4 is sent.
#[derive(Debug)]
pub struct ExpectAuth {
    cookies: Cookies,
    keys: MainModeKeys,
    /// In front of message 5.
    exchange: ExchangeCipher,
}

impl ExpectAuth {
    pub fn cookies(&self) -> Cookies {
        self.cookies
    }

    /// What was found about address translation.
    pub fn nat(&self) -> Option<Nat> {
        self.keys.nat()
    }

    /// The body of the SA payload of message 1, which HASH_I covers.
    pub fn offer(&self) -> &[u8] {
        self.keys.offer()
    }

    /// `HDR*, IDii, HASH_I <--`, then `HDR*, IDir, HASH_R -->`. The peer must prove the identity
    /// `expected`; `ours` is the one we prove.
    ///
    /// # Errors
    /// The message is discarded; this state stays good for the true one.
    pub fn handle(
        &self,
        datagram: &[u8],
        ours: &Identity,
        expected: &Identity,
    ) -> Result<(IsakmpSa, Vec<u8>), Error> {
        let (proof, behind) =
            self.keys.open("message 5", &self.exchange, Role::Initiator, expected, datagram)?;
        let sealed = self.keys.seal(&behind, Role::Responder, ours, None)?;
        let sa = self.keys.establish(Role::Responder, proof, &sealed.next());
        Ok((sa, sealed.into_datagram()))
    }

    /// `HDR*, IDii, CERT, SIG_I <--`, then `HDR*, IDir, CERT, SIG_R -->`.
    ///
    /// # Errors
    /// As for [`handle`](Self::handle): the peer's certificate, its signature or its identity is not
    /// to be believed.
    pub fn handle_signed(
        &self,
        datagram: &[u8],
        ours: &Identity,
        certified: Certified<'_>,
        rng: &mut SeededRng,
    ) -> Result<(IsakmpSa, Vec<u8>), Error> {
        let role = Role::Initiator;
        let (proof, behind) =
            self.keys.open_signed("message 5", &self.exchange, role, certified, datagram)?;
        let credential = certified.credential;
        let sealed =
            self.keys.seal_signed(&behind, Role::Responder, ours, credential, None, rng)?;
        let sa = self.keys.establish(Role::Responder, proof, &sealed.next());
        Ok((sa, sealed.into_datagram()))
    }
}

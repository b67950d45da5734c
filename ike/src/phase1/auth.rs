//! Keys of phase 1 and the authenticators HASH_I and HASH_R (RFC 2409 §5).
//!
//! ```text
//! HASH_I = prf(SKEYID, g^xi | g^xr | CKY-I | CKY-R | SAi_b | IDii_b)
//! HASH_R = prf(SKEYID, g^xr | g^xi | CKY-R | CKY-I | SAi_b | IDir_b)
//! ```

use core::time::Duration;

use super::cookies::Cookies;
use super::exchange_cipher::{ExchangeCipher, Opened, Sealed, open_with, seal_with};
use super::informational::is_initial_contact;
use super::isakmp_sa::{Established, IsakmpSa, PeerAuthenticated, Role};
use super::message::{AuthMessage, auth_payloads, check_exchange};
use super::nat_traversal::Nat;
use crate::config::{Authentication, Credential, Identity, Phase1Transform};
use crate::crypto::keymat::{self, PhaseOneKeys};
use crate::crypto::{Cipher, HashAlgorithm, Secret, prf};
use crate::error::{ApiMisuse, Error, NotAccepted, PeerMisbehaved};
use crate::wire::Codec;
use crate::wire::header;
use crate::wire::id::Identification;
use crate::wire::notify::Notification;
use crate::wire::registry::{Doi, ExchangeType};
use crate::wire::vendor::VendorId;

/// What messages 1 and 2 settle.
#[derive(Clone, Debug)]
pub(super) struct Negotiated {
    /// Main mode or aggressive mode.
    pub(super) exchange: ExchangeType,
    pub(super) cookies: Cookies,
    pub(super) doi: Doi,
    /// Where the exchanges under the DOI are spoken.
    pub(super) port: u16,
    pub(super) transform: Phase1Transform,
    pub(super) lifetime: Duration,
    /// Body of the initiator's SA payload, which both authenticators cover.
    pub(super) sai_b: Vec<u8>,
    /// Vendor IDs of the responder.
    pub(super) peer_vendor_ids: Vec<VendorId>,
    /// What was found about address translation, if both sides look for it.
    pub(super) nat: Option<Nat>,
}

/// What messages 3 and 4 carry, by role.
pub(super) struct Exchanged<'a> {
    pub(super) g_xi: &'a [u8],
    pub(super) g_xr: &'a [u8],
    pub(super) ni_b: &'a [u8],
    pub(super) nr_b: &'a [u8],
}

/// The keys of main mode from message 4 on.
#[derive(Debug)]
pub(super) struct MainModeKeys {
    negotiated: Negotiated,
    keys: PhaseOneKeys,
    cipher: Cipher,
    g_xi: Vec<u8>,
    g_xr: Vec<u8>,
}

impl MainModeKeys {
    pub(super) fn cookies(&self) -> Cookies {
        self.negotiated.cookies
    }

    pub(super) fn cipher(&self) -> &Cipher {
        &self.cipher
    }

    pub(super) fn hash(&self) -> HashAlgorithm {
        self.negotiated.transform.hash
    }

    pub(super) fn authentication(&self) -> Authentication {
        self.negotiated.transform.authentication
    }

    /// The port, beside IKE's, that the peer may state with its identity.
    pub(super) fn port(&self) -> u16 {
        self.negotiated.port
    }

    /// What the peer has stated.
    pub(super) fn peer_vendor_ids(&self) -> &[VendorId] {
        &self.negotiated.peer_vendor_ids
    }

    pub(super) fn nat(&self) -> Option<Nat> {
        self.negotiated.nat
    }

    /// SAi_b, the body of the initiator's SA payload.
    pub(super) fn offer(&self) -> &[u8] {
        &self.negotiated.sai_b
    }

    /// Derives the keys. Also returns the cipher state in front of message 5.
    pub(super) fn derive(
        negotiated: Negotiated,
        credential: &Credential,
        g_xy: &Secret,
        exchanged: &Exchanged<'_>,
    ) -> Result<(Self, ExchangeCipher), Error> {
        let Phase1Transform { hash, authentication, .. } = negotiated.transform;
        let Exchanged { ni_b, nr_b, .. } = *exchanged;
        if credential.authentication() != authentication {
            return Err(
                ApiMisuse::Configuration("credential of another authentication method").into()
            );
        }
        let skeyid = match credential {
            Credential::PreSharedKey(key) => keymat::skeyid_pre_shared(hash, key, ni_b, nr_b),
            Credential::Certificate(_) => keymat::skeyid_signatures(hash, g_xy, ni_b, nr_b),
        };
        Self::from_skeyid(negotiated, skeyid, g_xy, exchanged)
    }

    /// As [`derive`](Self::derive), from SKEYID on.
    pub(super) fn from_skeyid(
        negotiated: Negotiated,
        skeyid: Secret,
        g_xy: &Secret,
        exchanged: &Exchanged<'_>,
    ) -> Result<(Self, ExchangeCipher), Error> {
        let Phase1Transform { hash, encryption, group, .. } = negotiated.transform;
        let Exchanged { g_xi, g_xr, .. } = *exchanged;
        let Cookies { initiator, responder } = negotiated.cookies;
        let keys = PhaseOneKeys::derive(hash, skeyid, g_xy, &initiator, &responder);
        // Only DES has weak keys; another exchange with other public values gives another key.
        let key = keymat::cipher_key(hash, &keys.skeyid_e, encryption)
            .ok_or(PeerMisbehaved::PublicValue { group })?;
        let cipher = cipher(encryption, key)?;
        let iv = keymat::phase1_iv(hash, encryption, g_xi, g_xr);
        let exchange = ExchangeCipher::new(negotiated.exchange, 0, iv);
        Ok((Self { negotiated, keys, cipher, g_xi: g_xi.to_vec(), g_xr: g_xr.to_vec() }, exchange))
    }

    /// The derived keys, for comparison with recordings.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn keys(&self) -> (&PhaseOneKeys, &Cipher) {
        (&self.keys, &self.cipher)
    }

    /// HASH_I or HASH_R, by who proves its identity with it.
    pub(super) fn authenticator(&self, prover: Role, id_b: &[u8]) -> Secret {
        self.authenticator_with(self.hash(), prover, id_b)
    }

    /// The same by the prf of another hash.
    pub(super) fn authenticator_with(
        &self,
        algorithm: HashAlgorithm,
        prover: Role,
        id_b: &[u8],
    ) -> Secret {
        let Negotiated { cookies: Cookies { initiator, responder }, sai_b, .. } = &self.negotiated;
        let parts: [&[u8]; 6] = match prover {
            Role::Initiator => [&self.g_xi, &self.g_xr, initiator, responder, sai_b, id_b],
            Role::Responder => [&self.g_xr, &self.g_xi, responder, initiator, sai_b, id_b],
        };
        prf(algorithm, self.keys.skeyid.expose(), &parts)
    }

    /// Writes `HDR*, ID, HASH` for our identity, with a notification if there is one to send.
    pub(super) fn seal(
        &self,
        exchange: &ExchangeCipher,
        prover: Role,
        ours: &Identity,
        notification: Option<Notification>,
    ) -> Result<Sealed, Error> {
        let id = Identification::of(ours);
        let id_b = id.to_octets().map_err(super::isakmp_sa::does_not_fit)?;
        let hash = self.authenticator(prover, &id_b);
        let (first, payloads) = auth_payloads(id, hash.expose(), notification)?;
        seal_with(&self.cipher, self.negotiated.cookies, exchange, first, &payloads)
    }

    /// Reads the peer's `HDR*, ID, HASH`, verifies the proof and the identity, and yields them with
    /// the cipher state behind the message.
    pub(super) fn open(
        &self,
        message: &'static str,
        exchange: &ExchangeCipher,
        prover: Role,
        expected: &Identity,
        datagram: &[u8],
    ) -> Result<(PeerProof, ExchangeCipher), Error> {
        let (header, body) = header::split(datagram)?;
        check_exchange(&header, ExchangeType::IDENTITY_PROTECTION)?;
        if Cookies::of(&header) != self.negotiated.cookies {
            return Err(NotAccepted::UnknownCookies.into());
        }
        let opened: Opened = open_with(&self.cipher, exchange, message, header, body)?;
        let AuthMessage { identity, id_b, hash, notifications } =
            AuthMessage::read(message, &opened, self.port())?;
        let computed = self.authenticator(prover, &id_b);
        let authenticated =
            PeerAuthenticated::verify(message, &computed, &hash, &identity, expected)?;
        let initial_contact = notifications
            .iter()
            .any(|notification| is_initial_contact(notification, self.negotiated.cookies));
        Ok((PeerProof { authenticated, initial_contact }, opened.next()))
    }

    /// The ISAKMP SA of a finished main mode; `last` is the cipher state behind message 6.
    pub(super) fn establish(
        &self,
        role: Role,
        proof: PeerProof,
        last: &ExchangeCipher,
    ) -> IsakmpSa {
        self.establish_with(self.nat(), role, proof, last)
    }

    /// As [`establish`](Self::establish), with what the last message said of address translation.
    pub(super) fn establish_with(
        &self,
        nat: Option<Nat>,
        role: Role,
        proof: PeerProof,
        last: &ExchangeCipher,
    ) -> IsakmpSa {
        let Negotiated { cookies, doi, transform, lifetime, .. } = self.negotiated;
        let peer_vendor_ids = self.negotiated.peer_vendor_ids.clone();
        let established = Established {
            cookies,
            role,
            doi,
            transform,
            skeyid_d: self.keys.skeyid_d.duplicate(),
            skeyid_a: self.keys.skeyid_a.duplicate(),
            cipher: self.cipher.duplicate(),
            last_block: last.iv(),
            initial_contact: proof.initial_contact,
            peer_vendor_ids,
            lifetime,
            nat,
        };
        IsakmpSa::new(established, proof.authenticated)
    }
}

/// The proof of the peer's identity, and what came with it.
pub(super) struct PeerProof {
    pub(super) authenticated: PeerAuthenticated,
    pub(super) initial_contact: bool,
}

fn cipher(encryption: crate::crypto::Phase1Encryption, key: Secret) -> Result<Cipher, Error> {
    // The derivation cuts the key to the cipher's length.
    Cipher::new(encryption, key)
        .map_err(|_| ApiMisuse::Configuration("key of a wrong length for the cipher").into())
}

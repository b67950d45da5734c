//! Main mode with signatures (RFC 2409 §5.1, RFC 4754), messages 5 and 6.
//!
//! ```text
//! HDR*, IDii, [ CERT, ] SIG_I  -->
//!                              <--  HDR*, IDir, [ CERT, ] SIG_R
//! ```
//!
//! RSA signs the bare HASH_I or HASH_R, without the identifier of an algorithm. ECDSA takes it for
//! the digest, which therefore has the length of the curve: it is computed with the hash that RFC
//! 4754 §4 ties to the curve, whatever was negotiated for the keys.

use super::auth::{MainModeKeys, PeerProof};
use super::cookies::Cookies;
use super::exchange_cipher::{ExchangeCipher, Sealed, open_with, seal_with};
use super::informational::is_initial_contact;
use super::isakmp_sa::{PeerAuthenticated, Role, does_not_fit};
use super::message::{check_exchange, check_kinds, check_protocol_and_port, only};
use crate::certificate::{CertificateCredential, CertificateError};
use crate::config::{Authentication, Identity};
use crate::crypto::{HashAlgorithm, SeededRng, SignatureError};
use crate::error::{ApiMisuse, Error, NotAccepted, PeerIncompatible, PeerMisbehaved};
use crate::wire::cert::Certificate;
use crate::wire::cert_request::CertificateRequest;
use crate::wire::header;
use crate::wire::id::Identification;
use crate::wire::notify::Notification;
use crate::wire::payload::{Payload, encode_chain, first_kind};
use crate::wire::registry::{CertificateEncoding, ExchangeType, PayloadKind};
use crate::wire::signature::Signature;
use crate::wire::{Chain, Codec};

/// What a peer's certificate is verified with, and whom it has to name.
#[derive(Clone, Copy, Debug)]
pub struct Certified<'a> {
    pub credential: &'a CertificateCredential,
    /// Seconds since 1970-01-01 00:00 UTC, for validity periods.
    pub unix_seconds: u64,
    /// The identity that the peer must prove; `None` accepts any that its certificate names, for
    /// the layer above to authorise.
    pub expected: Option<&'a Identity>,
}

impl MainModeKeys {
    /// Writes `HDR*, ID, CERT..., SIG` for our identity, with a notification if there is one to
    /// send. The certificates are sent whether they were asked for or not.
    pub(super) fn seal_signed(
        &self,
        exchange: &ExchangeCipher,
        prover: Role,
        ours: &Identity,
        credential: &CertificateCredential,
        notification: Option<Notification>,
        rng: &mut SeededRng,
    ) -> Result<Sealed, Error> {
        let id = Identification::of(ours);
        let id_b = id.to_octets().map_err(does_not_fit)?;
        let mut payloads: Vec<Payload> = vec![id.into()];
        payloads.extend(self.signed_payloads(prover, &id_b, credential, rng)?);
        payloads.extend(notification.map(Payload::from));
        let octets = encode_chain(&payloads).map_err(does_not_fit)?;
        seal_with(self.cipher(), self.cookies(), exchange, first_kind(&payloads), &octets)
    }

    /// `CERT..., SIG` over this ID payload of ours.
    pub(super) fn signed_payloads(
        &self,
        prover: Role,
        id_b: &[u8],
        credential: &CertificateCredential,
        rng: &mut SeededRng,
    ) -> Result<Vec<Payload>, Error> {
        let algorithm = self.signed_hash();
        let hash = self.authenticator_with(algorithm, prover, id_b);
        let signature = credential
            .key()
            .sign(algorithm, crate::crypto::RsaForm::RawDigest, hash.expose(), rng)
            .map_err(|_: SignatureError| {
                ApiMisuse::Configuration("the private key cannot sign for the negotiated method")
            })?;
        let encoding = CertificateEncoding::X509_SIGNATURE;
        let mut payloads: Vec<Payload> = credential
            .chain()
            .iter()
            .map(|der| Certificate { encoding, data: der.clone() }.into())
            .collect();
        payloads.push(Signature(signature).into());
        Ok(payloads)
    }

    /// Reads the peer's `HDR*, ID, CERT..., SIG`, verifies certificate, signature and identity in
    /// this order, and yields them with the cipher state behind the message.
    pub(super) fn open_signed(
        &self,
        message: &'static str,
        exchange: &ExchangeCipher,
        prover: Role,
        certified: Certified<'_>,
        datagram: &[u8],
    ) -> Result<(PeerProof, ExchangeCipher), Error> {
        const OWN: [PayloadKind; 3] =
            [PayloadKind::IDENTIFICATION, PayloadKind::CERTIFICATE, PayloadKind::SIGNATURE];
        let (header, body) = header::split(datagram)?;
        check_exchange(&header, ExchangeType::IDENTITY_PROTECTION)?;
        if Cookies::of(&header) != self.cookies() {
            return Err(NotAccepted::UnknownCookies.into());
        }
        let opened = open_with(self.cipher(), exchange, message, header, body)?;
        let chain = opened.chain()?;
        check_kinds(message, &chain, &OWN)?;
        let id = only(message, &chain, PayloadKind::IDENTIFICATION, "ID")?;
        let read: Identification = id.read()?;
        check_protocol_and_port(&read, self.port(), id.offset)?;
        let identity = read.as_identity().ok_or(PeerIncompatible::IdentificationType(read.kind))?;
        let authenticated =
            self.verify_signed(message, &chain, prover, certified, &identity, id.body())?;
        let initial_contact = chain
            .payloads
            .iter()
            .filter_map(|payload| payload.read().ok())
            .any(|notification| is_initial_contact(&notification, self.cookies()));
        Ok((PeerProof { authenticated, initial_contact }, opened.next()))
    }

    /// Verifies the certificate, the signature over this ID payload of the peer, and the identity.
    pub(super) fn verify_signed(
        &self,
        message: &'static str,
        chain: &Chain<'_>,
        prover: Role,
        certified: Certified<'_>,
        identity: &Identity,
        id_b: &[u8],
    ) -> Result<PeerAuthenticated, Error> {
        let signature: Signature = only(message, chain, PayloadKind::SIGNATURE, "SIG")?.read()?;
        let mut certificates = Vec::new();
        for raw in chain.payloads.iter().filter(|raw| raw.kind == PayloadKind::CERTIFICATE) {
            let certificate: Certificate = raw.read()?;
            // CRLs and the like may stand beside it and say nothing: lists are configured.
            if certificate.encoding == CertificateEncoding::X509_SIGNATURE {
                certificates.push(certificate.data);
            }
        }
        let Certified { credential, unix_seconds, expected } = certified;
        let trusted = credential.trust().verify(&certificates, unix_seconds);
        let peer = trusted.map_err(PeerMisbehaved::Certificate)?;
        if peer.authentication() != Some(self.authentication()) {
            return Err(PeerMisbehaved::Certificate(CertificateError::Method).into());
        }
        let algorithm = self.signed_hash();
        let hash = self.authenticator_with(algorithm, prover, id_b);
        Ok(PeerAuthenticated::verify_signature(
            message,
            (algorithm, &hash),
            &signature.0,
            &peer,
            identity,
            expected,
        )?)
    }

    /// The hash that makes what is signed.
    fn signed_hash(&self) -> HashAlgorithm {
        match self.authentication() {
            Authentication::Ecdsa256 => HashAlgorithm::Sha2_256,
            Authentication::Ecdsa384 => HashAlgorithm::Sha2_384,
            Authentication::PreSharedKey | Authentication::RsaSignature => self.hash(),
        }
    }
}

/// Requests for a certificate of one of our authorities (RFC 2408 §3.10). Some peers send theirs
/// only if they are asked.
pub(super) fn requests(credential: &crate::config::Credential) -> Vec<Payload> {
    let crate::config::Credential::Certificate(credential) = credential else { return Vec::new() };
    let encoding = CertificateEncoding::X509_SIGNATURE;
    let names = credential.trust().authority_names().take(MOST_REQUESTS);
    names.map(|data| CertificateRequest { encoding, data }.into()).collect()
}

/// Names of authorities in one message.
const MOST_REQUESTS: usize = 8;

//! The signatures that certificates and revocation lists may have: RSA PKCS #1 v1.5 and ECDSA with
//! SHA-2, verified by the libraries that verify everything else.

use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};

use crate::crypto::{HashAlgorithm, KeyKind, PublicKey, RsaForm, hash};

pub(super) const ALL: &[&dyn SignatureVerificationAlgorithm] = &[
    &Algorithm { key: KeyKind::Rsa, hash: HashAlgorithm::Sha2_256 },
    &Algorithm { key: KeyKind::Rsa, hash: HashAlgorithm::Sha2_384 },
    &Algorithm { key: KeyKind::Rsa, hash: HashAlgorithm::Sha2_512 },
    &Algorithm { key: KeyKind::Ecdsa256, hash: HashAlgorithm::Sha2_256 },
    &Algorithm { key: KeyKind::Ecdsa384, hash: HashAlgorithm::Sha2_384 },
];

#[derive(Debug)]
struct Algorithm {
    key: KeyKind,
    hash: HashAlgorithm,
}

impl SignatureVerificationAlgorithm for Algorithm {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let digest = hash(self.hash, &[message]);
        let key = match self.key {
            KeyKind::Rsa => PublicKey::from_der(KeyKind::Rsa, public_key, false),
            kind => PublicKey::from_point(kind, public_key),
        };
        let key = key.map_err(|_| InvalidSignature)?;
        let valid = match self.key {
            KeyKind::Rsa => key.verify(self.hash, RsaForm::DigestInfo, &digest, signature),
            _ => key.verify_der(self.hash, &digest, signature),
        };
        valid.map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self.key {
            KeyKind::Rsa => alg_id::RSA_ENCRYPTION,
            KeyKind::Ecdsa256 => alg_id::ECDSA_P256,
            KeyKind::Ecdsa384 => alg_id::ECDSA_P384,
            KeyKind::Ecdsa521 => alg_id::ECDSA_P521,
        }
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match (self.key, self.hash) {
            (KeyKind::Rsa, HashAlgorithm::Sha2_384) => alg_id::RSA_PKCS1_SHA384,
            (KeyKind::Rsa, HashAlgorithm::Sha2_512) => alg_id::RSA_PKCS1_SHA512,
            (KeyKind::Rsa, _) => alg_id::RSA_PKCS1_SHA256,
            (KeyKind::Ecdsa384, _) => alg_id::ECDSA_SHA384,
            (KeyKind::Ecdsa521, _) => alg_id::ECDSA_SHA512,
            (KeyKind::Ecdsa256, _) => alg_id::ECDSA_SHA256,
        }
    }
}

//! ESP algorithms of tunnels: `"aes-256-gcm-16"`, `"aes-128-cbc-sha1"`.

use ike::quick::{EspAlgorithms, EspEncryption, EspIntegrity};
use toml::de::DeValue;

use super::setting::Names;
use super::value::{Problem, Read, choice, name_of, quoted};

const fn cbc(encryption: EspEncryption, integrity: EspIntegrity) -> EspAlgorithms {
    EspAlgorithms::separate(encryption, integrity)
}

const ALGORITHMS: Names<EspAlgorithms> = &[
    ("aes-256-gcm-16", EspAlgorithms::combined(EspEncryption::Aes256Gcm)),
    ("aes-192-gcm-16", EspAlgorithms::combined(EspEncryption::Aes192Gcm)),
    ("aes-128-gcm-16", EspAlgorithms::combined(EspEncryption::Aes128Gcm)),
    ("aes-256-cbc-sha2-512", cbc(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha2_512)),
    ("aes-256-cbc-sha2-384", cbc(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha2_384)),
    ("aes-256-cbc-sha2-256", cbc(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha2_256)),
    ("aes-256-cbc-sha1", cbc(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha1)),
    ("aes-192-cbc-sha2-512", cbc(EspEncryption::Aes192Cbc, EspIntegrity::HmacSha2_512)),
    ("aes-192-cbc-sha2-384", cbc(EspEncryption::Aes192Cbc, EspIntegrity::HmacSha2_384)),
    ("aes-192-cbc-sha2-256", cbc(EspEncryption::Aes192Cbc, EspIntegrity::HmacSha2_256)),
    ("aes-192-cbc-sha1", cbc(EspEncryption::Aes192Cbc, EspIntegrity::HmacSha1)),
    ("aes-128-cbc-sha2-512", cbc(EspEncryption::Aes128Cbc, EspIntegrity::HmacSha2_512)),
    ("aes-128-cbc-sha2-384", cbc(EspEncryption::Aes128Cbc, EspIntegrity::HmacSha2_384)),
    ("aes-128-cbc-sha2-256", cbc(EspEncryption::Aes128Cbc, EspIntegrity::HmacSha2_256)),
    ("aes-128-cbc-sha1", cbc(EspEncryption::Aes128Cbc, EspIntegrity::HmacSha1)),
    ("3des-cbc-sha2-256", cbc(EspEncryption::TripleDesCbc, EspIntegrity::HmacSha2_256)),
    ("3des-cbc-sha1", cbc(EspEncryption::TripleDesCbc, EspIntegrity::HmacSha1)),
];

impl Read for EspAlgorithms {
    const EXAMPLE: &'static str = "\"aes-256-gcm-16\"";
    const TYPE: &'static str = "text";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, ALGORITHMS)
    }

    fn toml(&self) -> String {
        name_of(self, ALGORITHMS)
    }

    fn names() -> Vec<String> {
        quoted(ALGORITHMS)
    }
}

/// The weak part of ESP algorithms, for people.
pub fn weak_esp(algorithms: EspAlgorithms) -> Option<&'static str> {
    algorithms.is_legacy().then_some("3DES")
}

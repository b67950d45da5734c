//! An authority of our own, and certificates of every fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on has failed"
)]

use core::str::FromStr;
use core::time::Duration;

use p256::pkcs8::EncodePrivateKey;
use rand_core::Rng;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder, CrlBuilder, Result};
use x509_cert::crl::RevokedCert;
use x509_cert::der::asn1::Ia5String;
use x509_cert::der::flagset::FlagSet;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::crl::CrlNumber;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{ObjectIdentifier, SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, TbsCertificate};

use super::{CertificateCredential, Trust};
use crate::crypto::{KeyKind, SeededRng, SigningKey};

/// 2026-01-01: the time of all tests.
pub const NOW: u64 = 1_767_225_600;

pub const DAY: u64 = 86_400;

/// What a key is for.
pub type Usage = FlagSet<KeyUsages>;

/// For nothing that phase 1 does.
pub fn key_encipherment() -> Usage {
    KeyUsages::KeyEncipherment.into()
}

/// What a certificate says.
#[derive(Clone)]
pub struct Contents {
    pub subject: String,
    pub names: Vec<GeneralName>,
    pub usage: Option<Usage>,
    pub extended_usage: Vec<&'static str>,
    pub authority: bool,
    pub valid: (u64, u64),
    pub serial: u32,
}

impl Contents {
    pub fn new(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            names: Vec::new(),
            usage: Some(KeyUsages::DigitalSignature.into()),
            extended_usage: Vec::new(),
            authority: false,
            valid: (NOW - DAY, NOW + DAY),
            serial: 7,
        }
    }

    pub fn dns(mut self, name: &str) -> Self {
        self.names.push(GeneralName::DnsName(Ia5String::new(name).unwrap()));
        self
    }

    pub fn mail(mut self, name: &str) -> Self {
        self.names.push(GeneralName::Rfc822Name(Ia5String::new(name).unwrap()));
        self
    }

    pub fn address(mut self, address: &str) -> Self {
        let address: core::net::IpAddr = address.parse().unwrap();
        self.names.push(address.into());
        self
    }

    pub fn authority(subject: &str) -> Self {
        let usage = Some(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
        Self { authority: true, usage, ..Self::new(subject) }
    }
}

struct Profile {
    issuer: Name,
    contents: Contents,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        match self.contents.subject.as_str() {
            "" => Name::default(),
            subject => Name::from_str(subject).unwrap(),
        }
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> Result<Vec<Extension>> {
        let (subject, mut extensions) = (tbs.subject(), Vec::new());
        let constraints =
            BasicConstraints { ca: self.contents.authority, path_len_constraint: None };
        extensions.push((&constraints).to_extension(subject, &extensions)?);
        if let Some(usage) = self.contents.usage {
            extensions.push((&KeyUsage(usage)).to_extension(subject, &extensions)?);
        }
        if !self.contents.extended_usage.is_empty() {
            let oid = |oid: &&str| ObjectIdentifier::new(oid).unwrap();
            let usages = ExtendedKeyUsage(self.contents.extended_usage.iter().map(oid).collect());
            extensions.push((&usages).to_extension(subject, &extensions)?);
        }
        if !self.contents.names.is_empty() {
            let names = SubjectAltName(self.contents.names.clone());
            extensions.push((&names).to_extension(subject, &extensions)?);
        }
        Ok(extensions)
    }
}

pub struct Authority {
    key: p256::ecdsa::SigningKey,
    pub certificate: Certificate,
}

fn time(seconds: u64) -> Time {
    Time::try_from(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap()
}

fn p256_key(rng: &mut SeededRng) -> p256::ecdsa::SigningKey {
    let mut octets = [0; 32];
    rng.fill_bytes(&mut octets);
    octets[0] = 1;
    p256::ecdsa::SigningKey::from_slice(&octets).unwrap()
}

fn issue(
    contents: Contents,
    issuer: Name,
    key: SubjectPublicKeyInfo<x509_cert::der::Any, x509_cert::der::asn1::BitString>,
    signer: &p256::ecdsa::SigningKey,
) -> Certificate {
    let validity = Validity::new(time(contents.valid.0), time(contents.valid.1));
    let serial = SerialNumber::from(contents.serial);
    let builder =
        CertificateBuilder::new(Profile { issuer, contents }, serial, validity, key).unwrap();
    builder.build::<_, p256::ecdsa::DerSignature>(signer).unwrap()
}

impl Authority {
    pub fn new(seed: u8) -> Self {
        Self::with(seed, Contents::authority("CN=Root of the tests,O=Example"))
    }

    pub fn with(seed: u8, contents: Contents) -> Self {
        let key = p256_key(&mut SeededRng::from_seed([seed; 32]));
        let spki = SubjectPublicKeyInfo::from_key(key.verifying_key()).unwrap();
        let subject = Name::from_str(&contents.subject).unwrap();
        let certificate = issue(contents, subject, spki, &key);
        Self { key, certificate }
    }

    /// Another authority that this one vouches for.
    pub fn intermediate(&self, seed: u8, contents: Contents) -> Self {
        let key = p256_key(&mut SeededRng::from_seed([seed; 32]));
        let spki = SubjectPublicKeyInfo::from_key(key.verifying_key()).unwrap();
        let issuer = self.certificate.tbs_certificate().subject().clone();
        Self { certificate: issue(contents, issuer, spki, &self.key), key }
    }

    pub fn der(&self) -> Vec<u8> {
        self.certificate.to_der().unwrap()
    }

    /// A certificate for the owner of `key`.
    pub fn certify(&self, contents: Contents, key: &SigningKey) -> Vec<u8> {
        let spki = SubjectPublicKeyInfo::from_der(&key.public_key_der().unwrap()).unwrap();
        let issuer = self.certificate.tbs_certificate().subject().clone();
        issue(contents, issuer, spki, &self.key).to_der().unwrap()
    }

    /// A list of revoked serial numbers, in date until `next_update`.
    pub fn revoke(&self, serials: &[u32], next_update: u64) -> Vec<u8> {
        let number = CrlNumber(x509_cert::der::asn1::Uint::new(&[1]).unwrap());
        let builder: CrlBuilder =
            CrlBuilder::new_with_this_update(&self.certificate, number, time(NOW - DAY)).unwrap();
        let revoked = serials.iter().map(|serial| RevokedCert {
            serial_number: SerialNumber::from(*serial),
            revocation_date: time(NOW - DAY),
            crl_entry_extensions: None,
        });
        let builder = builder.with_next_update(Some(time(next_update)));
        // An empty sequence must not be written (RFC 5280 §5.1.2.6).
        let builder = if serials.is_empty() { builder } else { builder.with_certificates(revoked) };
        builder.build::<_, p256::ecdsa::DerSignature>(&self.key).unwrap().to_der().unwrap()
    }

    pub fn trust(&self) -> Trust {
        Trust::new(vec![self.der()], Vec::new(), false).unwrap()
    }

    /// A credential of a host whose authority this is.
    pub fn credential(&self, contents: Contents, key: SigningKey) -> CertificateCredential {
        let chain = vec![self.certify(contents, &key)];
        CertificateCredential::new(chain, key, self.trust()).unwrap()
    }
}

/// A key of a host.
pub fn key(kind: KeyKind, seed: u8) -> SigningKey {
    match kind {
        // Making one takes seconds without optimisation.
        KeyKind::Rsa => {
            let data = crate::testing::json("crypto/signature.json");
            let key = crate::testing::octets(&data["rsa_2048_pkcs8"]);
            SigningKey::from_pkcs8_der(&key, false).unwrap()
        }
        KeyKind::Ecdsa256 => {
            let key = p256_key(&mut SeededRng::from_seed([seed; 32]));
            let key = p256::SecretKey::from(key).to_pkcs8_der().unwrap();
            SigningKey::from_pkcs8_der(key.as_bytes(), false).unwrap()
        }
        kind => SigningKey::generate_ecdsa(kind, &mut SeededRng::from_seed([seed; 32])).unwrap(),
    }
}

impl CertificateCredential {
    /// The same key with certificates that are not its own.
    pub fn showing(self, chain: Vec<Vec<u8>>) -> Self {
        Self { chain, ..self }
    }
}

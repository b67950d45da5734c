//! Pushes against recordings of another implementation, against the other side, and against
//! everybody else.

mod acknowledgement;
mod crafted;
mod delivery;
mod recorded;
mod refused;
mod two_party;

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::*;
use crate::group::*;
use crate::wire::Payload;
use crate::wire::seq::SequenceNumber;
use ike::crypto::{HashAlgorithm, KeyKind, Secret, SeededRng, SigningKey};
use ike::time::BootTime;
use ike::wire::Writer;
use ike::wire::chain::encode_with;
use ike::wire::payload::AnyPayload as _;
use ike::wire::registry::PayloadKind;
use ike::wire::signature::Signature;

pub(super) const GROUP: GroupId = GroupId(1111);

pub(super) fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn settings(legacy: bool) -> RekeySettings {
    RekeySettings {
        address: address("198.51.100.7:848"),
        acknowledgement_length: AcknowledgementLength::default(),
        selector_byte_order: Default::default(),
        legacy,
    }
}

/// A key server with one KEK, and what it takes to push.
pub(super) struct KeyServer {
    pub(super) policy: KekPolicy,
    pub(super) key: Secret,
    pub(super) signing: SigningKey,
    pub(super) sealer: Sealer,
    pub(super) options: SealOptions,
    pub(super) rng: SeededRng,
}

pub(super) fn kek_policy(
    spi: u8,
    kind: KeyKind,
    bits: u16,
    acknowledgement: Option<u16>,
) -> KekPolicy {
    KekPolicy {
        spi: [spi; 16],
        protocol: 17,
        source: std::net::SocketAddr::from(([192, 0, 2, 1], 848)).into(),
        destination: std::net::SocketAddr::from(([239, 192, 1, 1], 848)).into(),
        algorithm: 3,
        key_length: Some(bits),
        lifetime: Duration::from_secs(86_400),
        signature_hash: Some(match kind {
            KeyKind::Rsa | KeyKind::Ecdsa256 => 3,
            KeyKind::Ecdsa384 => 4,
            KeyKind::Ecdsa521 => 5,
        }),
        signature_algorithm: match kind {
            KeyKind::Rsa => 1,
            KeyKind::Ecdsa256 => 4,
            KeyKind::Ecdsa384 => 5,
            KeyKind::Ecdsa521 => 6,
        },
        signature_key_length: None,
        acknowledgement,
    }
}

impl KeyServer {
    pub(super) fn new(kind: KeyKind, bits: u16, acknowledgement: Option<u16>) -> Self {
        let mut rng = SeededRng::from_seed([kind as u8; 32]);
        let signing = match kind {
            // Making one takes seconds without optimisation.
            KeyKind::Rsa => SigningKey::from_pkcs8_der(
                &ike::testing::octets(
                    &ike::testing::json("crypto/signature.json")["rsa_2048_pkcs8"],
                ),
                false,
            )
            .unwrap(),
            kind => SigningKey::generate_ecdsa(kind, &mut rng).unwrap(),
        };
        let policy = kek_policy(0xa0, kind, bits, acknowledgement);
        let mut key = vec![0; 16 + usize::from(bits / 8)];
        rng.fill(&mut key);
        let key = Secret::new(key);
        let keys = KekKeys { algorithm_key: key.duplicate(), signature_key: None };
        let sealer = Sealer::new(&policy, &keys, 0, false).unwrap();
        Self { policy, key, signing, sealer, options: SealOptions::default(), rng }
    }

    pub(super) fn keys(&self) -> KekKeys {
        KekKeys {
            algorithm_key: self.key.duplicate(),
            signature_key: Some(self.signing.public_key_der().unwrap()),
        }
    }

    /// What a pull delivers.
    pub(super) fn group_sa(&self) -> GroupSa {
        let policy = GroupPolicy {
            group: GROUP,
            kek: Some(self.policy.clone()),
            gap: Default::default(),
            teks: vec![],
        };
        GroupSa::from_sealed(policy, self.keys(), self.sealer.sequence_number())
    }

    pub(super) fn member(&self) -> RekeyMember {
        RekeyMember::new(&self.group_sa(), settings(false), at(0)).unwrap().unwrap()
    }

    pub(super) fn seal(&mut self, content: PushContent<'_>) -> SealedPush {
        self.sealer.seal(content, &self.signing, self.options, &mut self.rng).unwrap()
    }

    /// Signs payloads that our own key server does not make; `payloads` in front of SIG.
    pub(super) fn sign(&mut self, number: u32, payloads: &[Payload]) -> Vec<u8> {
        let mut writer = Writer::new();
        let number = Payload::SequenceNumber(SequenceNumber(number));
        let all: Vec<&Payload> = core::iter::once(&number).chain(payloads).collect();
        for (place, payload) in all.iter().enumerate() {
            let next = all.get(place + 1).map_or(PayloadKind::SIGNATURE, |next| next.kind());
            encode_with(&mut writer, next, |writer| payload.encode(writer));
        }
        let mut plaintext = writer.finish().unwrap();
        let kek = crate::kek_cipher::Kek::new(&self.policy, &self.key, false).unwrap();
        let whole = (plaintext.len() + 4 + self.signing.signature_length()).next_multiple_of(16);
        let header = message::push_header(&self.policy.spi);
        let hash = HashAlgorithm::Sha2_256;
        let digest = message::signed_digest(hash, &header, whole, &plaintext).unwrap();
        let signature = self.signing.sign(hash, self.options.form, &digest, &mut self.rng).unwrap();
        let mut writer = Writer::new();
        encode_with(&mut writer, PayloadKind::NONE, |writer| {
            Payload::from(Signature(signature)).encode(writer);
        });
        plaintext.extend(writer.finish().unwrap());
        header.message(&kek.encrypt(&plaintext).unwrap()).unwrap()
    }

    pub(super) fn push_tek(&mut self, spi: Spi) -> SealedPush {
        self.seal(PushContent { group_sa: Some(&tek_sa(spi, None)), ..PushContent::default() })
    }
}

/// New TEKs, and a new KEK with its key if one is given.
pub(super) fn tek_sa(spi: Spi, kek: Option<(KekPolicy, KekKeys)>) -> IssuedSa {
    let (kek, keys) = kek.unzip();
    let policy = GroupPolicy {
        group: GROUP,
        kek,
        gap: GroupAssociatedPolicy {
            activation_time_delay: Some(Duration::from_secs(10)),
            deactivation_time_delay: Some(Duration::from_secs(30)),
        },
        teks: vec![tek(spi)],
    };
    IssuedSa::new(policy, BTreeMap::from([(spi, tek_keys())]), keys, None, None)
}

pub(super) fn tek(spi: Spi) -> TekPolicy {
    TekPolicy {
        spi,
        selector: TrafficSelector {
            protocol: 0,
            source: AddressRange::Subnet("172.16.0.0/12".parse().unwrap()),
            source_port: 0,
            destination: AddressRange::Subnet("172.16.0.0/12".parse().unwrap()),
            destination_port: 0,
        },
        protection: crate::group::testing::protection(SaDirection::SYMMETRIC),
    }
}

pub(super) fn tek_keys() -> TekKeys {
    TekKeys { encryption: Secret::new(vec![7; 16]), integrity: Secret::new(vec![8; 32]) }
}

/// The push must be accepted.
pub(super) fn accepted(member: &mut RekeyMember, datagram: &[u8]) -> PushAccepted {
    member
        .handle_datagram(address("192.0.2.1:848"), address("239.192.1.1:848"), datagram, at(1))
        .unwrap();
    match member.poll_event() {
        Some(RekeyEvent::Accepted(accepted)) => *accepted,
        other => panic!("{other:?}"),
    }
}

/// The push must be discarded.
pub(super) fn refused(member: &mut RekeyMember, datagram: &[u8]) -> crate::Error {
    let before = (member.sequence_number(), member.policy().cloned(), member.expiry());
    let error = member
        .handle_datagram(address("192.0.2.1:848"), address("239.192.1.1:848"), datagram, at(1))
        .expect_err("a push that must be refused");
    assert_eq!(
        before,
        (member.sequence_number(), member.policy().cloned(), member.expiry()),
        "{error}"
    );
    assert_eq!((member.poll_event(), member.poll_transmit()), (None, None), "{error}");
    error
}

//! KEKs of scripted key servers, and the pushes sealed under them.

use std::time::Duration;

use gdoi::group::{IssuedSa, KekKeys, KekPolicy, Spi};
use gdoi::push::{Deletion, KekDelivery, PushContent, SealOptions, SealedPush, Sealer};
use ike::crypto::{KeyKind, Secret, SeededRng, SigningKey};

use super::group_sa::{copy, teks_of};

/// One KEK of a scripted key server.
pub struct Kek {
    pub policy: KekPolicy,
    key: Secret,
    signing: SigningKey,
    pub sealer: Sealer,
    rng: SeededRng,
}

impl Kek {
    pub fn new(number: u8, lifetime: u64) -> Self {
        let policy = KekPolicy {
            spi: [number; 16],
            protocol: 17,
            source: std::net::SocketAddr::from(([10, 0, 11, 1], 848)).into(),
            destination: std::net::SocketAddr::from(([10, 0, 1, 1], 848)).into(),
            algorithm: 3,
            key_length: Some(256),
            lifetime: Duration::from_secs(lifetime),
            signature_hash: Some(3),
            signature_algorithm: 4,
            signature_key_length: None,
            acknowledgement: Some(1),
        };
        let mut rng = SeededRng::from_seed([number; 32]);
        // The same signing key for every KEK of the group.
        let mut first = SeededRng::from_seed([77; 32]);
        let signing = SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut first).unwrap();
        let key = Secret::new(rng.array::<48>().to_vec());
        let keys = KekKeys { algorithm_key: key.duplicate(), signature_key: None };
        let sealer = Sealer::new(&policy, &keys, 0, false).unwrap();
        Self { policy, key, signing, sealer, rng }
    }

    /// Signs with another key from now on.
    pub fn sign_as(&mut self, number: u8) {
        self.signing =
            SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut SeededRng::from_seed([number; 32]))
                .unwrap();
    }

    pub fn keys(&self) -> KekKeys {
        let signature_key = Some(self.signing.public_key_der().unwrap());
        KekKeys { algorithm_key: self.key.duplicate(), signature_key }
    }

    /// A push of deletes and new TEKs, under this KEK.
    pub fn push(&mut self, deletions: &[Deletion], group_sa: Option<&IssuedSa>) -> SealedPush {
        let content = PushContent { deletions, group_sa, kek_delivery: KekDelivery::Packet };
        self.sealer.seal(content, &self.signing, SealOptions::default(), &mut self.rng).unwrap()
    }

    /// A push that announces `next`.
    pub fn announce(&mut self, next: &Kek, teks: &[(Spi, &str, u64)]) -> SealedPush {
        let sa = copy(&teks_of(teks, (None, None)), Some(next));
        self.push(&[], Some(&sa))
    }
}

//! The KEK of a group: what encrypts and numbers its pushes (RFC 6407 §4.3, §5.3).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use daemon::entropy::EntropyError;
use gdoi::error::Error;
use gdoi::group::{KekKeys, KekPolicy};
use gdoi::lkh::{KeyTree, TreeError, UpdateArrays};
use gdoi::push::{KekUnusable, PushContent, SealOptions, SealedPush, Sealer};
use ike::BootTime;
use ike::crypto::HashAlgorithm;
use ike::crypto::{KeyKind, Secret, SeededRng, SignatureError, SigningKey};
use thiserror::Error as ThisError;

use crate::config::{Rekey, Transport};
use crate::group::key_generation::{self as keys, KeySource};

/// What SA KEK payloads name as the protocol: UDP.
const PROTOCOL: u8 = 17;

/// A KEK cannot be made or used.
#[derive(Debug, ThisError)]
pub enum KekError {
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    #[error(transparent)]
    Unusable(#[from] KekUnusable),
    /// The signing key has no public form.
    #[error(transparent)]
    SigningKey(#[from] SignatureError),
    /// No leaf of the key hierarchy is left, or it cannot be made.
    #[error("{0}; a KEK by a new registration of all (gdoictl remove-all) makes a larger one")]
    Tree(#[from] TreeError),
    /// The push cannot be made.
    #[error("{0}")]
    Push(#[from] Error),
}

/// A KEK in use.
#[derive(Debug)]
pub struct Kek {
    policy: KekPolicy,
    key: Secret,
    sealer: Sealer,
    ends: BootTime,
    tree: Option<KeyTree>,
    /// Most members that the tree was made for.
    capacity: usize,
    /// The last push under it: whoever registered while it was made gets it afterwards.
    last: Option<SealedPush>,
    /// When that was made.
    last_at: BootTime,
}

/// What a pull gets of a KEK.
#[derive(Debug)]
pub struct Distribution {
    /// With the remaining lifetime.
    pub policy: KekPolicy,
    /// Key and public signing key.
    pub keys: KekKeys,
}

impl Kek {
    /// A new KEK, with a new hierarchy for up to `capacity` members if the group has one.
    ///
    /// # Errors
    /// No randomness, or an algorithm that cannot be used.
    pub fn make(
        rekey: &Rekey,
        signing: &SigningKey,
        capacity: usize,
        source: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<Self, KekError> {
        let tree = match rekey.lkh {
            true => {
                // A generator of its own, from new randomness: keys of members come out of it.
                let mut rng = SeededRng::from_seed(keys::seed(source.entropy)?);
                Some(KeyTree::new(
                    rekey.encryption.algorithm,
                    rekey.encryption.key_length,
                    capacity,
                    &mut rng,
                )?)
            }
            false => None,
        };
        let key = match tree.as_ref().and_then(KeyTree::kek) {
            Some(root) => root.duplicate(),
            None => keys::secret(rekey.encryption.octets, source.entropy)?,
        };
        let policy = policy(rekey, signing, source.rng.nonzero_array());
        Self::with(policy, key, 0, tree, capacity, now + rekey.lifetime, rekey.legacy)
    }

    /// A KEK of these parts, as the sealed state has them.
    ///
    /// # Errors
    /// The KEK cannot be used.
    pub fn with(
        policy: KekPolicy,
        key: Secret,
        sequence_number: u32,
        tree: Option<KeyTree>,
        capacity: usize,
        ends: BootTime,
        legacy: bool,
    ) -> Result<Self, KekError> {
        let keys = KekKeys { algorithm_key: key.duplicate(), signature_key: None };
        let sealer = Sealer::new(&policy, &keys, sequence_number, legacy)?;
        Ok(Self {
            policy,
            key,
            sealer,
            ends,
            tree,
            capacity,
            last: None,
            last_at: BootTime::default(),
        })
    }

    /// The successor of this KEK by its hierarchy, which excludes the holders of `leaves`, and the
    /// update arrays that lead everybody else there. This KEK seals them and has no hierarchy any
    /// more.
    ///
    /// # Errors
    /// There is no hierarchy, nobody would be left in it, or no randomness.
    pub fn succeed_by_tree(
        &mut self,
        rekey: &Rekey,
        signing: &SigningKey,
        leaves: &[u16],
        source: &mut KeySource<'_>,
        now: BootTime,
    ) -> Result<(Self, UpdateArrays), KekError> {
        let mut rng = SeededRng::from_seed(keys::seed(source.entropy)?);
        let missing = KekError::Tree(TreeError::Damaged);
        let updates = self.tree.as_mut().ok_or(missing)?.remove(leaves, &mut rng)?;
        let tree = self.tree.take().ok_or(KekError::Tree(TreeError::Damaged))?;
        let key = tree.kek().map(Secret::duplicate).ok_or(KekError::Tree(TreeError::Damaged))?;
        let policy = policy(rekey, signing, rng.nonzero_array());
        let ends = now + rekey.lifetime;
        let next = Self::with(policy, key, 0, Some(tree), self.capacity, ends, rekey.legacy)?;
        Ok((next, updates))
    }

    /// The SPI: the cookie pair of its pushes.
    pub fn spi(&self) -> [u8; 16] {
        self.policy.spi
    }

    pub fn ends(&self) -> BootTime {
        self.ends
    }

    /// Number of the last push.
    pub fn sequence_number(&self) -> u32 {
        self.sealer.sequence_number()
    }

    pub fn last(&self) -> Option<&SealedPush> {
        self.last.as_ref()
    }

    /// When the last push was made.
    pub fn last_at(&self) -> BootTime {
        self.last_at
    }

    /// Takes the last push of the sealed state.
    pub(crate) fn restore_last(&mut self, last: SealedPush, at: BootTime) {
        (self.last, self.last_at) = (Some(last), at);
    }

    /// Policy with the whole lifetimetimetimetimetime, for the sealed state.
    pub(crate) fn stored_policy(&self) -> &KekPolicy {
        &self.policy
    }

    pub fn tree(&self) -> Option<&KeyTree> {
        self.tree.as_ref()
    }

    pub fn tree_mut(&mut self) -> Option<&mut KeyTree> {
        self.tree.as_mut()
    }

    /// Most members that the hierarchy was made for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Initialisation vector and key.
    pub fn key(&self) -> &Secret {
        &self.key
    }

    /// Policy, with the remaining lifetime in whole seconds, rounded down.
    pub fn policy(&self, now: BootTime) -> KekPolicy {
        let lifetime = Duration::from_secs(self.ends.saturating_since(now).as_secs());
        KekPolicy { lifetime, ..self.policy.clone() }
    }

    /// Policy and key as a push of the KEK before hands them out.
    pub fn pushed(&self, public_key: &[u8], now: BootTime) -> (KekPolicy, KekKeys) {
        (self.policy(now), self.keys(public_key))
    }

    /// What the member at `peer` gets that asked at `local`.
    pub fn distribute(
        &self,
        transport: Transport,
        (local, peer): (SocketAddr, SocketAddr),
        public_key: &[u8],
        now: BootTime,
    ) -> Distribution {
        let mut policy = self.policy(now);
        if transport == Transport::Unicast {
            (policy.source, policy.destination) = (local.into(), peer.into());
        }
        Distribution { policy, keys: self.keys(public_key) }
    }

    /// Makes the next push, which is kept, in the form that the members expect.
    ///
    /// # Errors
    /// It cannot be made; the number is not used.
    pub fn seal(
        &mut self,
        content: PushContent<'_>,
        signing: &SigningKey,
        options: SealOptions,
        rng: &mut SeededRng,
        now: BootTime,
    ) -> Result<SealedPush, KekError> {
        let push = self.sealer.seal(content, signing, options, rng)?;
        (self.last, self.last_at) = (Some(push.duplicate()), now);
        Ok(push)
    }

    fn keys(&self, public_key: &[u8]) -> KekKeys {
        KekKeys { algorithm_key: self.key.duplicate(), signature_key: Some(public_key.to_vec()) }
    }
}

/// Policy of a new KEK. Where it goes by unicast, a push names no member: all get the same octets.
pub fn policy(rekey: &Rekey, signing: &SigningKey, spi: [u8; 16]) -> KekPolicy {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), gdoi::PORT);
    let (source, destination) = match rekey.transport {
        Transport::Unicast => (any, any),
        Transport::Multicast { source, destination } => (source, destination),
    };
    KekPolicy {
        spi,
        protocol: PROTOCOL,
        source: source.into(),
        destination: destination.into(),
        algorithm: rekey.encryption.algorithm,
        key_length: rekey.encryption.key_length,
        lifetime: rekey.lifetime,
        signature_hash: Some(match rekey.signature_hash {
            HashAlgorithm::Md5 => 1,
            HashAlgorithm::Sha1 => 2,
            HashAlgorithm::Sha2_256 => 3,
            HashAlgorithm::Sha2_384 => 4,
            HashAlgorithm::Sha2_512 => 5,
        }),
        signature_algorithm: match signing.kind() {
            KeyKind::Rsa => 1,
            KeyKind::Ecdsa256 => 4,
            KeyKind::Ecdsa384 => 5,
            KeyKind::Ecdsa521 => 6,
        },
        signature_key_length: Some(signing.public_key().bits()),
        acknowledgement: rekey.acknowledgements.then_some(
            match (rekey.lkh, rekey.signature_hash) {
                (false, HashAlgorithm::Sha2_512) => 3,
                (true, HashAlgorithm::Sha2_512) => 4,
                (false, _) => 1,
                (true, _) => 2,
            },
        ),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use gdoi::push::DeliveryPolicy;

    use super::*;
    use crate::config::SigningKeyKind;
    use crate::config::rekey::KEK_ENCRYPTIONS;
    use crate::group::key_generation::OsEntropy;

    /// The table's defaults, with a signing key that is made quickly.
    pub(crate) fn rekey(transport: Transport) -> Rekey {
        Rekey {
            transport,
            path: Default::default(),
            encryption: KEK_ENCRYPTIONS[2],
            signing_key: SigningKeyKind::EcdsaP256,
            signing_key_file: "/var/lib/gcks/g.pem".into(),
            signature_hash: HashAlgorithm::Sha2_256,
            lifetime: Duration::from_secs(86_400),
            delivery: DeliveryPolicy::default(),
            acknowledgements: true,
            drop_unresponsive_members: false,
            lkh: false,
            legacy: false,
        }
    }

    #[test]
    fn the_policy_names_where_pushes_come_from_and_go_to() {
        let mut rng = SeededRng::from_seed([7; 32]);
        let signing = SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut rng).unwrap();
        let now = BootTime::new(Duration::from_secs(100));
        let (local, peer) = ("10.0.9.1:848".parse().unwrap(), "10.0.1.1:500".parse().unwrap());
        let rekey = rekey(Transport::Unicast);
        let mut source =
            KeySource { rng: &mut rng, entropy: &mut OsEntropy, foreign_spis: BTreeSet::new() };
        let kek = Kek::make(&rekey, &signing, 8, &mut source, now).unwrap();
        let later = now + Duration::from_millis(1500);
        let out = kek.distribute(rekey.transport, (local, peer), &[1], later);
        assert_eq!(out.policy.source, std::net::SocketAddr::from(([10, 0, 9, 1], 848)).into());
        assert_eq!(out.policy.destination, std::net::SocketAddr::from(([10, 0, 1, 1], 500)).into());
        assert_eq!(out.policy.lifetime, Duration::from_secs(86_398));
        assert_eq!((out.policy.signature_algorithm, out.policy.signature_hash), (4, Some(3)));
        assert_eq!(out.policy.acknowledgement, Some(1));
        assert_eq!(out.keys.algorithm_key.len(), 48);
        let rekey = Rekey { lkh: true, signature_hash: HashAlgorithm::Sha2_512, ..rekey };
        assert_eq!(policy(&rekey, &signing, [1; 16]).acknowledgement, Some(4));
    }
}

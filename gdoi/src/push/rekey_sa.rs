//! One rekey SA of a member: what opens the pushes under one KEK (RFC 6407 §4.4).

use super::ack::{AcknowledgementKind, acknowledge};
use super::apply::{self, Applied};
use super::member::RekeySettings;
use super::message::SignatureEncoding;
use super::open::{Opened, WellFormed};
use super::replay::{Duplicate, Replay};
use crate::error::{Error, NotAccepted};
use crate::group::{GroupAssociatedPolicy, GroupId, GroupPolicy, GroupSa, KekKeys, KekPolicy};
use crate::kek_cipher::{Kek, KekUnusable, Verifier};
use crate::lkh::KeyPath;
use ike::time::BootTime;

/// A KEK with everything that its pushes are checked against.
#[derive(Debug)]
pub struct RekeySa {
    pub(super) group: GroupId,
    pub(super) policy: KekPolicy,
    pub(super) kek: Kek,
    pub(super) verifier: Verifier,
    pub(super) path: Option<KeyPath>,
    /// Whether the key server said in phase 1 that it knows IP-D3P.
    pub(super) announces_delay_detection: bool,
    replay: Replay,
    encoding: SignatureEncoding,
}

/// What became of a push.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is a copy of the last one; the acknowledgement, if it should be sent again.
    Duplicate(Option<Vec<u8>>),
    /// It is the key server's and can be used.
    Applied { sequence_number: u32, applied: Box<Applied>, acknowledgement: Option<Vec<u8>> },
    /// It is the key server's and cannot be used: its number is used up all the same.
    Unusable { sequence_number: u32, error: Error },
}

impl RekeySa {
    /// The rekey SA of `policy` and `keys`. `sequence_number` is the one of the last push under
    /// this KEK.
    ///
    /// # Errors
    /// The KEK, its public key or the key hierarchy cannot be used.
    pub(super) fn new(
        group: GroupId,
        policy: &KekPolicy,
        keys: &KekKeys,
        path: Option<KeyPath>,
        sequence_number: u32,
        legacy: bool,
    ) -> Result<Self, KekUnusable> {
        Ok(Self {
            group,
            policy: policy.clone(),
            kek: Kek::new(policy, &keys.algorithm_key, legacy)?,
            verifier: Verifier::new(policy, keys.signature_key.as_deref(), legacy)?,
            path,
            announces_delay_detection: false,
            replay: Replay::new(sequence_number),
            encoding: SignatureEncoding::default(),
        })
    }

    /// Carries the signature encoding of the key server, and what it announced, over from the KEK before.
    pub(super) fn succeeding(self, before: &Self, encoding: SignatureEncoding) -> Self {
        self.announcing_delay_detection(before.announces_delay_detection)
            .with_signature_encoding(encoding)
    }

    fn with_signature_encoding(self, encoding: SignatureEncoding) -> Self {
        Self { encoding, ..self }
    }

    /// The key server said in phase 1 whether it knows IP-D3P.
    pub(super) fn announcing_delay_detection(self, announces_delay_detection: bool) -> Self {
        Self { announces_delay_detection, ..self }
    }

    /// Goes on where `earlier`, the same KEK, stood.
    pub(super) fn continuing(mut self, earlier: Self) -> Self {
        let number = self.replay.last();
        self.replay = earlier.replay;
        self.replay.note(number);
        self.encoding = earlier.encoding;
        self
    }

    /// A push under this KEK states its policy once more, perhaps with a new path through the
    /// hierarchy or a new public key.
    pub(super) fn restate(
        &mut self,
        policy: KekPolicy,
        path: Option<KeyPath>,
        verifier: Option<Verifier>,
    ) {
        self.policy = policy;
        self.path = path.or(self.path.take());
        if let Some(verifier) = verifier {
            self.verifier = verifier;
        }
    }

    /// Pushes up to `number` have been accepted before.
    pub(super) fn note_sequence_number(&mut self, number: u32) {
        self.replay.note(number);
    }

    /// Copies of the last push get no answer any more.
    pub(super) fn withhold_acknowledgement(&mut self) {
        self.replay.withhold();
    }

    /// The rekey SA as a pull would deliver it now.
    pub(super) fn export(&self) -> GroupSa {
        let kek = Some(self.policy.clone());
        let policy = GroupPolicy {
            group: self.group,
            kek,
            gap: GroupAssociatedPolicy::default(),
            teks: Vec::new(),
        };
        let signature_key = Some(self.verifier.der.clone());
        let keys = KekKeys { algorithm_key: self.kek.algorithm_key(), signature_key };
        let sa = GroupSa::from_sealed(policy, keys, self.sequence_number())
            .announcing_delay_detection(self.announces_delay_detection);
        match &self.path {
            Some(path) => sa.with_key_path(path.download()),
            None => sa,
        }
    }

    /// Policy of the KEK, as the most recent SAK states it.
    pub fn policy(&self) -> &KekPolicy {
        &self.policy
    }

    /// Number of the last push accepted.
    pub fn sequence_number(&self) -> u32 {
        self.replay.last()
    }

    /// How the key server makes its signatures.
    pub fn signature_encoding(&self) -> SignatureEncoding {
        self.encoding
    }

    /// A copy of the last push accepted, under a KEK that is no longer in use: its acknowledgement,
    /// if it should be sent again.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn copy_of_last(
        &mut self,
        datagram: &[u8],
        now: BootTime,
    ) -> Result<Option<Vec<u8>>, Error> {
        let push = Opened::decrypt(&self.kek, &self.policy.spi, datagram)?.check()?;
        Ok(self.duplicate(&push, now).ok_or(NotAccepted::RetiredKek)?)
    }

    /// A copy of the last push accepted?
    fn duplicate(&mut self, push: &WellFormed, now: BootTime) -> Option<Option<Vec<u8>>> {
        match self.replay.duplicate(push.sequence_number(), &push.signed_octets(), now) {
            Duplicate::No => None,
            Duplicate::Silent => Some(None),
            Duplicate::Acknowledge(answer) => Some(Some(answer.to_vec())),
        }
    }

    /// Takes a push through all its stages.
    ///
    /// # Errors
    /// The push is not the key server's, or not new. Nothing has changed.
    pub(super) fn handle(
        &mut self,
        datagram: &[u8],
        settings: &RekeySettings,
        now: BootTime,
    ) -> Result<Outcome, Error> {
        let push = Opened::decrypt(&self.kek, &self.policy.spi, datagram)?.check()?;
        if let Some(acknowledgement) = self.duplicate(&push, now) {
            return Ok(Outcome::Duplicate(acknowledgement));
        }
        let signed_octets = push.signed_octets();
        let fresh = push.fresh(&self.replay)?;
        let verified = fresh.verify(&self.verifier, self.encoding)?;
        let sequence_number = verified.sequence_number();
        self.encoding = verified.signature_encoding();
        self.replay.accept(sequence_number, signed_octets);
        match apply::apply(self, verified, settings) {
            Ok(applied) => {
                let policy = applied.policy.as_ref().unwrap_or(&self.policy);
                let acknowledgement = self.acknowledge(policy, sequence_number, settings);
                if let Some(acknowledgement) = &acknowledgement {
                    self.replay.acknowledged(acknowledgement.clone(), now);
                }
                Ok(Outcome::Applied {
                    sequence_number,
                    applied: Box::new(applied),
                    acknowledgement,
                })
            }
            Err(error) => Ok(Outcome::Unusable { sequence_number, error }),
        }
    }

    /// The acknowledgement that `policy`, the most recent SAK, asks for; made with the KEK that
    /// decrypted the push.
    fn acknowledge(
        &self,
        policy: &KekPolicy,
        sequence_number: u32,
        settings: &RekeySettings,
    ) -> Option<Vec<u8>> {
        let kind = policy.acknowledgement.and_then(AcknowledgementKind::from_number)?;
        let base_key = match kind.uses_leaf_key() {
            false => self.kek.base_key().duplicate(),
            // A member that cannot do what is asked goes on without (RFC 8263 §4).
            true => self.path.as_ref().and_then(KeyPath::leaf_key)?,
        };
        let (length, address) = (settings.acknowledgement_length, settings.address.ip());
        acknowledge(kind, length, &base_key, &self.policy.spi, sequence_number, address).ok()
    }
}

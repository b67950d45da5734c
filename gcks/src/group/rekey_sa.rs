//! The pushing side of one group: its KEK, the ones before it, and figures.

use std::sync::Arc;
use std::time::Duration;

use gdoi::push::SealedPush;
use ike::BootTime;
use ike::crypto::{Secret, SignatureError, SigningKey};

use crate::config::rekey_timing::{lead, push_margin};
use crate::config::{Rekey, Transport};
use crate::group::kek::Kek;
use crate::group::push::PushError;
use crate::members::registry::MemberId;
use crate::tracked::Tracked;

/// How long the last push of a replaced KEK is kept: a pull that began before it may take so long.
pub(crate) const KEPT: Duration = Duration::from_secs(600);

/// The pushing side of one group.
#[derive(Debug)]
pub struct RekeySa {
    /// What is in effect; a changed configuration takes effect with the next KEK.
    pub(crate) settings: Rekey,
    /// `None` at a sub-server, which only relays what its root signs.
    pub(crate) signing: Option<Arc<SigningKey>>,
    /// The public key as a DER SubjectPublicKeyInfo.
    pub(crate) public_key: Vec<u8>,
    /// PKCS #8, for the sealed state: a group that has gone from the configuration, and its key
    /// file with it, can still tell its members.
    /// Empty at a sub-server.
    pub(crate) private_key: Secret,
    pub(crate) kek: Option<Kek>,
    pub(crate) retired: Vec<RetiredKek>,
    /// Members that were dropped and still hold the KEK, until one comes that they cannot reach.
    pub(crate) abandoned: Tracked<MemberId, Abandoned>,
    /// After a push that could not be made.
    pub(crate) retry_at: Option<BootTime>,
    pub(crate) counters: RekeyCounters,
}

/// A KEK that members no longer hold, or will not when they have its last push.
#[derive(Debug)]
pub(crate) struct RetiredKek {
    /// Several where its hierarchy leads to the next KEK by more than fits into one datagram: the
    /// numbers follow one another.
    pub(crate) last: Vec<SealedPush>,
    /// Whether it has no successor.
    pub(crate) deleted: bool,
    /// When its last push was made.
    pub(crate) at: BootTime,
}

impl RetiredKek {
    fn has_spi(&self, spi: &[u8; 16]) -> bool {
        self.last.first().is_some_and(|push| push.spi() == spi)
    }
}

/// A member that was dropped: as unresponsive, or because its keys could not be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Abandoned {
    /// Name in the configuration.
    pub(crate) name: Arc<str>,
    /// Its leaf in the key hierarchy.
    pub(crate) leaf: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RekeyCounters {
    /// Pushes made, repetitions not counted.
    pub pushes: u64,
    pub acknowledgements: u64,
    /// Acknowledgements that did not come.
    pub missing: u64,
    /// Members dropped because they were unresponsive.
    pub dropped: u64,
    /// Datagrams of pushes that were sent again.
    pub retransmissions: u64,
    /// From the first datagram of the last push that has ended until its last acknowledgement, or
    /// the end of the wait for it.
    pub last_push: Option<Duration>,
}

/// What a member that was given a KEK in a pull has missed since.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// The pushes, in order.
    pub(crate) pushes: Vec<SealedPush>,
    /// Whether the keys it was given are deleted.
    pub(crate) dead: bool,
}

impl RekeySa {
    /// A group without a KEK yet.
    ///
    /// # Errors
    /// The key has no public form.
    pub fn new(settings: Rekey, signing: Arc<SigningKey>) -> Result<Self, SignatureError> {
        let (public_key, private_key) = (signing.public_key_der()?, signing.to_pkcs8_der()?);
        Ok(Self { signing: Some(signing), private_key, ..Self::relaying(settings, public_key) })
    }

    /// A group whose pushes another server signs.
    pub fn relaying(settings: Rekey, public_key: Vec<u8>) -> Self {
        Self {
            settings,
            signing: None,
            public_key,
            private_key: Secret::new(Vec::new()),
            kek: None,
            retired: Vec::new(),
            abandoned: Tracked::default(),
            retry_at: None,
            counters: RekeyCounters::default(),
        }
    }

    /// Whether another server signs the pushes.
    pub fn is_relaying(&self) -> bool {
        self.signing.is_none()
    }

    pub fn kek(&self) -> Option<&Kek> {
        self.kek.as_ref()
    }

    /// What is in effect.
    pub fn settings(&self) -> &Rekey {
        &self.settings
    }

    pub fn counters(&self) -> RekeyCounters {
        self.counters
    }

    /// What signs the pushes of the group `name`.
    ///
    /// # Errors
    /// Another server does.
    pub(super) fn signing_key(&self, name: &Arc<str>) -> Result<Arc<SigningKey>, PushError> {
        self.signing.clone().ok_or_else(|| PushError::NotMaker(Arc::clone(name)))
    }

    /// What signs, as text.
    pub fn signature(&self) -> String {
        let of_kek = || self.kek.as_ref().and_then(|kek| kek.stored_policy().signature_key_length);
        let bits = match &self.signing {
            Some(signing) => signing.public_key().bits(),
            None => of_kek().unwrap_or_default(),
        };
        let key = match bits {
            bits @ (256 | 384 | 521) => format!("ecdsa-p{bits}"),
            bits => format!("rsa-{bits}"),
        };
        format!("{key}, {}", self.settings.signature_hash.name())
    }

    /// Whether pushes go by multicast.
    pub fn is_multicast(&self) -> bool {
        matches!(self.settings.transport, Transport::Multicast { .. })
    }

    /// Where pushes go, as text.
    pub fn transport(&self) -> String {
        match self.settings.transport {
            Transport::Unicast => String::from("unicast"),
            Transport::Multicast { destination, .. } => format!("multicast to {destination}"),
        }
    }

    /// How long before the margin of the members a push begins.
    pub(crate) fn lead(&self, activation: Duration) -> Duration {
        lead(&self.settings, activation)
    }

    /// When the KEK is to be replaced by a push.
    pub(crate) fn next_roll(&self, activation: Duration) -> Option<BootTime> {
        let kek = self.kek.as_ref()?;
        Some(kek.ends() - push_margin(self.settings.lifetime, self.lead(activation)))
    }

    /// The KEK is replaced, or deleted without a successor: `last` is its last push, in parts if
    /// one was not enough.
    pub(crate) fn retire(&mut self, last: Vec<SealedPush>, successor: Option<Kek>, now: BootTime) {
        self.retired.retain(|retired| retired.at + KEPT > now);
        self.retired.push(RetiredKek { last, deleted: successor.is_none(), at: now });
        self.kek = successor;
    }

    /// What a member has missed that was told that push `number` was the last under the KEK `spi`.
    pub(crate) fn missed(&self, spi: &[u8; 16], number: u32) -> Missed {
        let mut missed = Missed::default();
        let last = self.kek.as_ref().and_then(Kek::last).map(SealedPush::duplicate);
        if let Some(kek) = self.kek.as_ref().filter(|kek| kek.spi() == *spi) {
            missed.pushes.extend(
                last.filter(|last| last.sequence_number() > number && kek.spi() == *last.spi()),
            );
            return missed;
        }
        let Some(first) = self.retired.iter().position(|retired| retired.has_spi(spi)) else {
            return Missed { pushes: Vec::new(), dead: true };
        };
        for retired in self.retired.iter().skip(first) {
            missed.pushes.extend(retired.last.iter().map(SealedPush::duplicate));
            if retired.deleted {
                missed.dead = true;
                return missed;
            }
        }
        missed.pushes.extend(last);
        missed
    }
}

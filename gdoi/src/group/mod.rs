//! The group security association: what a GROUPKEY-PULL or GROUPKEY-PUSH delivers (RFC 6407 §1.3).

mod gap;
mod kek;
mod keys;
pub mod proof;
mod selector;
mod sender;
mod tek;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;

pub use gap::GroupAssociatedPolicy;
pub use kek::{KekKeys, KekPolicy};
pub use keys::GroupKeys;
pub use selector::{AddressRange, TrafficSelector};
pub use sender::SenderIds;
pub use tek::{
    AddressPreservation, AuthenticationAlgorithm, EncapsulationMode, EspTransform, SaDirection,
    Spi, TekKeys, TekPolicy, TekProtection, TekProtocol, concurrent,
};

use crate::wire::lkh::LkhDownload;
use proof::HashVerified;

/// The number that names a group: an ID_KEY_ID payload of 4 octets (RFC 6407 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl core::fmt::Display for GroupId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// Policy of a group without any key: the SA payload with its SAK, GAP and SAT payloads (RFC 6407
/// §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPolicy {
    /// The group that the policy is for.
    pub group: GroupId,
    /// Policy of the rekey SA, if the key server pushes.
    pub kek: Option<KekPolicy>,
    /// Policy for the group as a whole.
    pub gap: GroupAssociatedPolicy,
    /// One entry per SAT payload, in the order received. Several may share one SPI.
    pub teks: Vec<TekPolicy>,
}

/// A group SA with its keys.
///
/// Where its keys come from shows in how it is built: [`originate`](Self::originate) is for the key
/// server, which is the authority; [`from_kernel`](Self::from_kernel) and
/// [`from_sealed`](Self::from_sealed) for what a restarted member has kept; what a member received
/// is built inside this crate only, behind a verified HASH or SIG.
#[derive(Debug, PartialEq, Eq)]
pub struct GroupSa {
    policy: GroupPolicy,
    tek_keys: BTreeMap<Spi, TekKeys>,
    kek_keys: Option<KekKeys>,
    sequence_number: Option<u32>,
    sender_ids: Option<SenderIds>,
    key_path: Option<LkhDownload>,
}

impl GroupSa {
    /// The key server's own group SA.
    pub fn originate(
        policy: GroupPolicy,
        tek_keys: BTreeMap<Spi, TekKeys>,
        kek_keys: Option<KekKeys>,
        sequence_number: Option<u32>,
        sender_ids: Option<SenderIds>,
    ) -> Self {
        Self { policy, tek_keys, kek_keys, sequence_number, sender_ids, key_path: None }
    }

    /// The data SAs that a restarted member finds in its own kernel, with their keys.
    pub fn from_kernel(policy: GroupPolicy, tek_keys: BTreeMap<Spi, TekKeys>) -> Self {
        Self::originate(policy, tek_keys, None, None, None)
    }

    /// The rekey SA of a member's own sealed state: `sequence_number` is that of the last push
    /// accepted under its KEK.
    pub fn from_sealed(policy: GroupPolicy, kek_keys: KekKeys, sequence_number: u32) -> Self {
        Self::originate(policy, BTreeMap::new(), Some(kek_keys), Some(sequence_number), None)
    }

    /// The same with one member's path through the key hierarchy, whose root must be the KEK.
    #[must_use]
    pub fn with_key_path(self, key_path: LkhDownload) -> Self {
        Self { key_path: Some(key_path), ..self }
    }

    /// A pushed group SA over the one in use, of which it need not repeat anything (RFC 6407 §4.3:
    /// a push carries what is new). A line takes the place of the earlier line with the same
    /// selector and direction; lines that take no place come first; earlier lines that nobody
    /// replaced stay, with their keys, unless `dropped` names their SPI.
    #[must_use]
    pub fn over(mut self, earlier: &Self, dropped: impl Fn(Spi) -> bool) -> Self {
        let same = |one: &TekPolicy, other: &TekPolicy| {
            one.selector == other.selector && one.protection.direction == other.protection.direction
        };
        let mut fresh: Vec<TekPolicy> = core::mem::take(&mut self.policy.teks);
        let mut kept = Vec::new();
        for line in &earlier.policy.teks {
            let successors = fresh.extract_if(.., |new| same(new, line));
            let before = kept.len();
            kept.extend(successors);
            let repeated = self.tek_keys.contains_key(&line.spi);
            if kept.len() == before
                && !repeated
                && !dropped(line.spi)
                && !kept.iter().any(|one| same(one, line))
            {
                kept.push(line.clone());
            }
        }
        fresh.append(&mut kept);
        for line in &fresh {
            if let (None, Some(keys)) =
                (self.tek_keys.get(&line.spi), earlier.tek_keys.get(&line.spi))
            {
                self.tek_keys.insert(line.spi, keys.duplicate());
            }
        }
        self.policy.teks = fresh;
        self
    }

    /// What a member received in a pull.
    pub(crate) fn received(
        policy: GroupPolicy,
        keys: GroupKeys,
        sequence_number: Option<u32>,
        _proof: HashVerified,
    ) -> Self {
        let GroupKeys { tek_keys, kek_keys, sender_ids, lkh: key_path } = keys;
        Self { policy, tek_keys, kek_keys, sequence_number, sender_ids, key_path }
    }

    /// What a member received in a push.
    pub(crate) fn pushed(
        policy: GroupPolicy,
        keys: GroupKeys,
        _proof: proof::SignatureVerified,
    ) -> Self {
        let GroupKeys { tek_keys, kek_keys, sender_ids, lkh: key_path } = keys;
        Self { policy, tek_keys, kek_keys, sequence_number: None, sender_ids, key_path }
    }

    /// What the key server stated before it sent keys.
    pub fn policy(&self) -> &GroupPolicy {
        &self.policy
    }

    /// Keys of the data SAs by SPI.
    pub fn tek_keys(&self) -> &BTreeMap<Spi, TekKeys> {
        &self.tek_keys
    }

    /// Keys of the rekey SA.
    pub fn kek_keys(&self) -> Option<&KekKeys> {
        self.kek_keys.as_ref()
    }

    /// Number of the last push under the KEK, 0 if none was sent yet (RFC 6407 §5.7).
    pub fn sequence_number(&self) -> Option<u32> {
        self.sequence_number
    }

    /// Sender identifiers for counter-mode TEKs (RFC 6407 §5.6.4).
    pub fn sender_ids(&self) -> Option<&SenderIds> {
        self.sender_ids.as_ref()
    }

    /// The member's path through the key hierarchy, leaf first (RFC 6407 §5.6.3.1).
    pub fn key_path(&self) -> Option<&LkhDownload> {
        self.key_path.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ike::crypto::Secret;

    fn sa(lines: &[(Spi, &str, SaDirection)]) -> GroupSa {
        let tek = |(spi, prefix, direction): &(Spi, &str, SaDirection)| TekPolicy {
            spi: *spi,
            selector: TrafficSelector {
                protocol: 0,
                source: AddressRange::Subnet(prefix.parse().unwrap()),
                source_port: 0,
                destination: AddressRange::Any,
                destination_port: 0,
            },
            protection: testing::protection(*direction),
        };
        let keys = |spi: Spi| TekKeys {
            encryption: Secret::copy_from(&spi.to_be_bytes().repeat(4)),
            integrity: Secret::copy_from(&spi.to_be_bytes().repeat(8)),
        };
        let policy = GroupPolicy {
            group: GroupId(1),
            kek: None,
            gap: GroupAssociatedPolicy::default(),
            teks: lines.iter().map(tek).collect(),
        };
        GroupSa::originate(
            policy,
            lines.iter().map(|line| (line.0, keys(line.0))).collect(),
            None,
            None,
            None,
        )
    }

    fn lines(sa: &GroupSa) -> Vec<(Spi, String)> {
        let prefix = |tek: &TekPolicy| match tek.selector.source {
            AddressRange::Subnet(net) => net.to_string(),
            other => format!("{other:?}"),
        };
        sa.policy().teks.iter().map(|tek| (tek.spi, prefix(tek))).collect()
    }

    const BOTH: SaDirection = SaDirection::SYMMETRIC;

    #[test]
    fn a_pushed_line_takes_the_place_of_its_predecessor_and_leaves_the_others() {
        let earlier =
            || sa(&[(1, "10.1.0.0/16", BOTH), (2, "10.2.0.0/16", BOTH), (2, "10.3.0.0/16", BOTH)]);
        let merged = sa(&[(4, "10.2.0.0/16", BOTH)]).over(&earlier(), |_| false);
        let expected = [(1, "10.1.0.0/16"), (4, "10.2.0.0/16"), (2, "10.3.0.0/16")];
        assert_eq!(lines(&merged), expected.map(|(spi, text)| (spi, text.to_owned())));
        assert_eq!(merged.tek_keys().keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(merged.tek_keys().get(&1), earlier().tek_keys().get(&1));
        let merged = sa(&[(4, "10.2.0.0/16", BOTH)]).over(&earlier(), |spi| spi == 2);
        assert_eq!(lines(&merged).iter().map(|line| line.0).collect::<Vec<_>>(), [1, 4]);
    }

    #[test]
    fn what_replaces_nothing_comes_first_and_what_is_stated_again_is_stated_wholly() {
        let earlier =
            sa(&[(1, "10.1.0.0/16", BOTH), (2, "10.2.0.0/16", BOTH), (2, "10.3.0.0/16", BOTH)]);
        let merged =
            sa(&[(5, "10.5.0.0/16", BOTH), (2, "10.2.0.0/16", BOTH)]).over(&earlier, |_| false);
        let expected = [(5, "10.5.0.0/16"), (1, "10.1.0.0/16"), (2, "10.2.0.0/16")];
        assert_eq!(lines(&merged), expected.map(|(spi, text)| (spi, text.to_owned())));
        // Another direction is another line.
        let merged =
            sa(&[(6, "10.1.0.0/16", SaDirection::RECEIVER_ONLY)]).over(&earlier, |_| false);
        assert_eq!(lines(&merged).iter().map(|line| line.0).collect::<Vec<_>>(), [6, 1, 2, 2]);
    }
}

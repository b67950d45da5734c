//! A group SA with its keys, as its key server issues it and as a member has it.
//!
//! Two types, because they are believed for different reasons: the key server is the authority for
//! its keys, a member needs a proof for each.

use std::collections::BTreeMap;

use core::ops::Deref;

use super::proof::FromKeyServer;
use super::{
    GroupKeys, GroupPolicy, KekKeys, KekPolicy, LkhDownload, SenderIds, Spi, TekKeys, TekPolicy,
};

/// Policy and keys of a group, whoever has them.
#[derive(Debug, PartialEq, Eq)]
pub struct PolicyAndKeys {
    policy: GroupPolicy,
    tek_keys: BTreeMap<Spi, TekKeys>,
    kek_keys: Option<KekKeys>,
    sequence_number: Option<u32>,
    sender_ids: Option<SenderIds>,
    key_path: Option<LkhDownload>,
    announces_delay_detection: bool,
}

/// A group SA of a key server: what it distributes.
#[derive(Debug, PartialEq, Eq)]
pub struct IssuedSa(PolicyAndKeys);

/// A group SA of a member.
///
/// It is built in this crate behind a verified HASH or SIG, which is bound to the very keys, or of
/// what a restarted member has kept: [`from_kernel`](Self::from_kernel) and
/// [`from_sealed`](Self::from_sealed).
#[derive(Debug, PartialEq, Eq)]
pub struct GroupSa(PolicyAndKeys);

impl IssuedSa {
    /// The key server's own group SA.
    pub fn new(
        policy: GroupPolicy,
        tek_keys: BTreeMap<Spi, TekKeys>,
        kek_keys: Option<KekKeys>,
        sequence_number: Option<u32>,
        sender_ids: Option<SenderIds>,
    ) -> Self {
        let keys = GroupKeys { tek_keys, kek_keys, sender_ids, lkh: None };
        Self(PolicyAndKeys::new(policy, keys, sequence_number))
    }

    /// The same with one member's path through the key hierarchy, whose root must be the KEK.
    #[must_use]
    pub fn with_key_path(self, key_path: LkhDownload) -> Self {
        Self(self.0.with_key_path(key_path))
    }
}

impl GroupSa {
    /// The data SAs that a restarted member finds in its own kernel, with their keys.
    pub fn from_kernel(policy: GroupPolicy, tek_keys: BTreeMap<Spi, TekKeys>) -> Self {
        let keys = GroupKeys { tek_keys, ..GroupKeys::default() };
        Self(PolicyAndKeys::new(policy, keys, None))
    }

    /// The rekey SA of a member's own sealed state: `sequence_number` is that of the last push
    /// accepted under its KEK.
    pub fn from_sealed(policy: GroupPolicy, kek_keys: KekKeys, sequence_number: u32) -> Self {
        let keys = GroupKeys { kek_keys: Some(kek_keys), ..GroupKeys::default() };
        Self(PolicyAndKeys::new(policy, keys, Some(sequence_number)))
    }

    /// The same with the member's path through the key hierarchy, whose root must be the KEK.
    #[must_use]
    pub fn with_key_path(self, key_path: LkhDownload) -> Self {
        Self(self.0.with_key_path(key_path))
    }

    /// The same from a key server that said in phase 1 whether it knows IP-D3P
    /// (draft-weis-delay-detection-03 §6): what its pushes then demand, no member can do.
    #[must_use]
    pub fn announcing_delay_detection(mut self, announces_delay_detection: bool) -> Self {
        self.0.announces_delay_detection = announces_delay_detection;
        self
    }

    /// Whether the key server said in phase 1 that it knows IP-D3P.
    pub fn announces_delay_detection(&self) -> bool {
        self.0.announces_delay_detection
    }

    /// What the key server stands for: the keys that it sent for this policy.
    pub(crate) fn from_key_server(
        policy: GroupPolicy,
        keys: FromKeyServer<GroupKeys>,
        sequence_number: Option<u32>,
    ) -> Self {
        Self(PolicyAndKeys::new(policy, keys.into_inner(), sequence_number))
    }

    /// The SAK of a push, which may have come without a key. `signature_key` verifies the pushes
    /// under it if it brought no key for that.
    pub(crate) fn state_kek(&mut self, policy: &KekPolicy, signature_key: Option<&[u8]>) {
        self.0.policy.kek = Some(policy.clone());
        if let (Some(keys), Some(signature_key)) = (&mut self.0.kek_keys, signature_key) {
            keys.signature_key.get_or_insert_with(|| signature_key.to_vec());
        }
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
        let mut fresh: Vec<TekPolicy> = core::mem::take(&mut self.0.policy.teks);
        let mut kept = Vec::new();
        for line in &earlier.0.policy.teks {
            let successors = fresh.extract_if(.., |new| same(new, line));
            let before = kept.len();
            kept.extend(successors);
            let repeated = self.0.tek_keys.contains_key(&line.spi);
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
                (self.0.tek_keys.get(&line.spi), earlier.0.tek_keys.get(&line.spi))
            {
                self.0.tek_keys.insert(line.spi, keys.duplicate());
            }
        }
        self.0.policy.teks = fresh;
        self
    }
}

impl Deref for IssuedSa {
    type Target = PolicyAndKeys;

    fn deref(&self) -> &PolicyAndKeys {
        &self.0
    }
}

impl Deref for GroupSa {
    type Target = PolicyAndKeys;

    fn deref(&self) -> &PolicyAndKeys {
        &self.0
    }
}

/// Whether a member has what was issued.
impl PartialEq<IssuedSa> for GroupSa {
    fn eq(&self, issued: &IssuedSa) -> bool {
        self.0 == issued.0
    }
}

impl PolicyAndKeys {
    fn new(policy: GroupPolicy, keys: GroupKeys, sequence_number: Option<u32>) -> Self {
        let GroupKeys { tek_keys, kek_keys, sender_ids, lkh: key_path } = keys;
        Self {
            policy,
            tek_keys,
            kek_keys,
            sequence_number,
            sender_ids,
            key_path,
            announces_delay_detection: false,
        }
    }

    fn with_key_path(self, key_path: LkhDownload) -> Self {
        Self { key_path: Some(key_path), ..self }
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

    /// The number that the key server stated for the last push under the KEK, 0 if none was sent
    /// yet (RFC 6407 §5.7).
    pub fn sequence_number(&self) -> Option<u32> {
        self.sequence_number
    }

    /// Number of the last push under the KEK. A push that brings a new KEK states none: numbers
    /// begin behind 0 with every KEK (RFC 6407 §5.7).
    pub fn last_sequence_number(&self) -> u32 {
        self.sequence_number.unwrap_or(0)
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
    use super::super::{
        AddressRange, GroupAssociatedPolicy, GroupId, SaDirection, TrafficSelector, testing,
    };
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
        GroupSa::from_kernel(policy, lines.iter().map(|line| (line.0, keys(line.0))).collect())
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

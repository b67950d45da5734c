//! The `[ike]` table of both daemons: what phase 1 may negotiate.

use std::time::Duration;

use ike::config::{Authentication, Phase1Policy, Phase1Transform};
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};
use ike::wire::registry::Doi;
use toml::de::DeValue;

use super::option::Applies;
use super::report::Report;
use super::setting::{Names, list_or, place, value};
use super::table::{Located, Place};
use super::value::{Problem, Read, choice, name_of, quoted};
use crate::options;

const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(86_400);
const DEFAULT: Duration = Duration::from_secs(3600);

/// More transforms make a first message that needs fragments on the way.
const MOST_TRANSFORMS: usize = 20;

options! {
    /// Phase 1 (IKEv1 main mode). A proposal is every combination of the three lists.
    pub struct Ike {
        pub place: Option<Place> = place();
        /// Encryption, in order of preference. With `legacy = true` also 3des-cbc and des-cbc.
        pub encryption: Vec<Located<Phase1Encryption>> =
            list_or("encryption", [Phase1Encryption::Aes256Cbc, Phase1Encryption::Aes128Cbc])
                .applies(Applies::NewRegistration);
        /// Hash and pseudorandom function, in order of preference. With `legacy = true` also md5.
        pub hash: Vec<Located<HashAlgorithm>> =
            list_or("hash", [HashAlgorithm::Sha2_256]).applies(Applies::NewRegistration);
        /// Diffie-Hellman group, in order of preference: 14, 15, 16 (MODP 2048, 3072, 4096), 19, 20
        /// (ECP 256, 384). With `legacy = true` also 1, 2, 5 and 24 (MODP 2048 with a subgroup of
        /// 256 bits).
        pub dh_group: Vec<Located<DhGroup>> =
            list_or("dh-group", [DhGroup::Modp2048]).applies(Applies::NewRegistration);
        /// Lifetime of an ISAKMP SA. The shorter of both sides' values applies.
        pub lifetime: Duration = value("lifetime", DEFAULT)
            .within(SHORTEST..=LONGEST)
            .applies(Applies::NewRegistration);
    }
}

const ENCRYPTIONS: Names<Phase1Encryption> = &[
    ("aes-128-cbc", Phase1Encryption::Aes128Cbc),
    ("aes-192-cbc", Phase1Encryption::Aes192Cbc),
    ("aes-256-cbc", Phase1Encryption::Aes256Cbc),
    ("3des-cbc", Phase1Encryption::TripleDesCbc),
    ("des-cbc", Phase1Encryption::DesCbc),
];

const HASHES: Names<HashAlgorithm> = &[
    ("sha2-256", HashAlgorithm::Sha2_256),
    ("sha2-384", HashAlgorithm::Sha2_384),
    ("sha2-512", HashAlgorithm::Sha2_512),
    ("sha1", HashAlgorithm::Sha1),
    ("md5", HashAlgorithm::Md5),
];

const GROUPS: &[(u16, DhGroup)] = &[
    (1, DhGroup::Modp768),
    (2, DhGroup::Modp1024),
    (5, DhGroup::Modp1536),
    (14, DhGroup::Modp2048),
    (15, DhGroup::Modp3072),
    (16, DhGroup::Modp4096),
    (19, DhGroup::Ecp256),
    (20, DhGroup::Ecp384),
    (24, DhGroup::Modp2048Subgroup256),
];

impl Read for Phase1Encryption {
    const EXAMPLE: &'static str = "\"aes-256-cbc\"";
    const TYPE: &'static str = "text";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, ENCRYPTIONS)
    }

    fn toml(&self) -> String {
        name_of(self, ENCRYPTIONS)
    }

    fn names() -> Vec<String> {
        quoted(ENCRYPTIONS)
    }
}

impl Read for HashAlgorithm {
    const EXAMPLE: &'static str = "\"sha2-256\"";
    const TYPE: &'static str = "text";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, HASHES)
    }

    fn toml(&self) -> String {
        name_of(self, HASHES)
    }

    fn names() -> Vec<String> {
        quoted(HASHES)
    }
}

impl Read for DhGroup {
    const EXAMPLE: &'static str = "14";
    const TYPE: &'static str = "number";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let number = u16::read(value)?;
        let group = GROUPS.iter().find(|(known, _)| *known == number);
        group.map(|(_, group)| *group).ok_or_else(|| {
            Problem::new(
                format!("group {number} is not known"),
                "write one of 14, 15, 16, 19, 20, or with legacy = true 1, 2, 5, 24",
            )
        })
    }

    fn toml(&self) -> String {
        let number = GROUPS.iter().find(|(_, group)| group == self);
        number.map(|(number, _)| number.to_string()).unwrap_or_default()
    }
}

/// Makes the policy of an `[ike]` table, which messages call `path`.
///
/// Weak algorithms are noted as errors unless `legacy` is set. The transforms are all combinations:
/// by group, then encryption, then hash, each in the order of the file.
pub fn phase1_policy(ike: &Ike, path: &str, legacy: bool, report: &Report) -> Phase1Policy {
    let strong = Strong { path, legacy, report };
    let encryptions = strong.list("encryption", &ike.encryption, weak_encryption);
    let hashes = strong.list("hash", &ike.hash, weak_hash);
    let groups = strong.list("dh-group", &ike.dh_group, weak_group);
    let count = encryptions.len() * hashes.len() * groups.len();
    if count > MOST_TRANSFORMS {
        report.error(
            ike.place.clone(),
            format!("{count} combinations of encryption, hash and dh-group"),
            format!("name fewer: at most {MOST_TRANSFORMS} combinations fit into one datagram"),
        );
    }
    let authentication = Authentication::PreSharedKey;
    let mut transforms = Vec::with_capacity(count);
    for &group in &groups {
        for &encryption in &encryptions {
            for &hash in &hashes {
                transforms.push(Phase1Transform { encryption, hash, group, authentication });
            }
        }
    }
    Phase1Policy { doi: Doi::GDOI, port: gdoi::PORT, transforms, lifetime: ike.lifetime }
}

struct Strong<'s> {
    path: &'s str,
    legacy: bool,
    report: &'s Report,
}

impl Strong<'_> {
    fn list<T: Copy + PartialEq>(
        &self,
        key: &str,
        list: &[Located<T>],
        weak: impl Fn(T) -> Option<&'static str>,
    ) -> Vec<T> {
        let mut chosen: Vec<T> = Vec::new();
        for Located { value, place } in list {
            if let Some(name) = weak(*value).filter(|_| !self.legacy) {
                self.report.error(
                    Some(place.clone()),
                    format!("{}.{key}: {name} is weak", self.path),
                    "choose a strong one, or set legacy = true and know why",
                );
            } else if chosen.contains(value) {
                let message = format!("{}.{key}: named twice", self.path);
                self.report.error(Some(place.clone()), message, "name it once");
            } else {
                chosen.push(*value);
            }
        }
        chosen
    }
}

/// The weak parts of a policy, for a warning at start.
pub fn weak_parts(policy: &Phase1Policy) -> Vec<&'static str> {
    let mut parts = Vec::new();
    for transform in &policy.transforms {
        let weak = [
            weak_encryption(transform.encryption),
            weak_hash(transform.hash),
            weak_group(transform.group),
        ];
        for name in weak.into_iter().flatten() {
            if !parts.contains(&name) {
                parts.push(name);
            }
        }
    }
    parts
}

fn weak_encryption(encryption: Phase1Encryption) -> Option<&'static str> {
    match encryption {
        Phase1Encryption::DesCbc => Some("DES"),
        Phase1Encryption::TripleDesCbc => Some("3DES"),
        _ => None,
    }
}

fn weak_hash(hash: HashAlgorithm) -> Option<&'static str> {
    (hash == HashAlgorithm::Md5).then_some("MD5")
}

fn weak_group(group: DhGroup) -> Option<&'static str> {
    match group {
        DhGroup::Modp768 => Some("MODP 768 (group 1)"),
        DhGroup::Modp1024 => Some("MODP 1024 (group 2)"),
        DhGroup::Modp1536 => Some("MODP 1536 (group 5)"),
        DhGroup::Modp2048Subgroup256 => Some("MODP 2048 with a 256-bit subgroup (group 24)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::super::setting::table;
    use super::*;

    fn read(text: &str, legacy: bool) -> Result<Phase1Policy, String> {
        parse("f", text, |mut root| {
            let ike: Ike = table("ike").read(&mut root);
            let policy = phase1_policy(&ike, "ike", legacy, root.report());
            root.finish();
            Some(policy)
        })
        .map(|loaded| loaded.value)
        .map_err(|report| report.to_string())
    }

    #[test]
    fn defaults_are_strong() {
        let policy = read("", false).unwrap();
        assert_eq!(policy.transforms.len(), 2);
        assert_eq!(policy.lifetime, Duration::from_secs(3600));
        assert!(weak_parts(&policy).is_empty());
        assert!(policy.transforms.iter().all(|transform| !transform.is_legacy()));
        assert_eq!(read("[ike]\n", false).unwrap(), policy);
    }

    #[test]
    fn the_order_of_the_file_is_the_preference() {
        let text = "[ike]\nencryption = [\"aes-128-cbc\", \"aes-256-cbc\"]\nhash = [\"sha1\"]\ndh-group = [19, 14]\nlifetime = \"8h\"\n";
        let policy = read(text, false).unwrap();
        let order: Vec<_> = policy
            .transforms
            .iter()
            .map(|transform| (transform.group, transform.encryption))
            .collect();
        assert_eq!(
            order,
            [
                (DhGroup::Ecp256, Phase1Encryption::Aes128Cbc),
                (DhGroup::Ecp256, Phase1Encryption::Aes256Cbc),
                (DhGroup::Modp2048, Phase1Encryption::Aes128Cbc),
                (DhGroup::Modp2048, Phase1Encryption::Aes256Cbc),
            ]
        );
        assert_eq!(policy.lifetime, Duration::from_secs(28_800));
    }

    #[test]
    fn weak_algorithms_need_legacy() {
        let text = "[ike]\nencryption = [\"3des-cbc\", \"des-cbc\"]\nhash = [\"md5\"]\ndh-group = [2, 1, 5, 24]\n";
        let report = read(text, false).unwrap_err();
        for name in [
            "3DES",
            "DES",
            "MD5",
            "MODP 768 (group 1)",
            "MODP 1024 (group 2)",
            "MODP 1536 (group 5)",
            "MODP 2048 with a 256-bit subgroup (group 24)",
        ] {
            assert!(report.contains(&format!("{name} is weak; ")), "{report}");
        }
        let policy = read(text, true).unwrap();
        assert_eq!(
            weak_parts(&policy),
            [
                "3DES",
                "MD5",
                "MODP 1024 (group 2)",
                "DES",
                "MODP 768 (group 1)",
                "MODP 1536 (group 5)",
                "MODP 2048 with a 256-bit subgroup (group 24)"
            ]
        );
    }

    #[test]
    fn defects() {
        let text = "[ike]\nencryption = [\"aes-265-cbc\"]\nhash = []\ndh-group = [14, 14, 17]\nlifetime = \"1s\"\nlife = 1\n";
        assert_eq!(
            read(text, false).unwrap_err(),
            "\
f:2:15: error: ike.encryption: \"aes-265-cbc\" is not known; did you mean \"aes-256-cbc\"?
f:3:8: error: ike.hash: the list is empty; write [\"sha2-256\"]
f:4:17: error: ike.dh-group: named twice; name it once
f:4:21: error: ike.dh-group: group 17 is not known; write one of 14, 15, 16, 19, 20, or with legacy = true 1, 2, 5, 24
f:5:12: error: ike.lifetime: 1s is out of range; write \"1m\" to \"1d\"
f:6:1: error: unknown key \"life\" in ike; known keys are dh-group, encryption, hash, lifetime
f: 6 errors; nothing was started
"
        );
    }
}

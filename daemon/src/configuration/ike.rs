//! The `[ike]` table of both daemons: what phase 1 may negotiate.

use std::time::Duration;

use gdoi::config::{
    Authentication, DhGroup, HashAlgorithm, Phase1Encryption, Phase1Policy, Phase1Transform,
};
use gdoi::wire::registry::Doi;
use toml::de::DeValue;

use super::table::{Located, Table};
use super::value::{Problem, Read, choice};

const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(86_400);
const DEFAULT: Duration = Duration::from_secs(3600);

/// More transforms make a first message that needs fragments on the way.
const MOST_TRANSFORMS: usize = 20;

impl Read for Phase1Encryption {
    const EXAMPLE: &'static str = "\"aes-256-cbc\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(
            value,
            &[
                ("aes-128-cbc", Self::Aes128Cbc),
                ("aes-192-cbc", Self::Aes192Cbc),
                ("aes-256-cbc", Self::Aes256Cbc),
                ("3des-cbc", Self::TripleDesCbc),
                ("des-cbc", Self::DesCbc),
            ],
        )
    }
}

impl Read for HashAlgorithm {
    const EXAMPLE: &'static str = "\"sha2-256\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(
            value,
            &[
                ("sha2-256", Self::Sha2_256),
                ("sha2-384", Self::Sha2_384),
                ("sha2-512", Self::Sha2_512),
                ("sha1", Self::Sha1),
                ("md5", Self::Md5),
            ],
        )
    }
}

impl Read for DhGroup {
    const EXAMPLE: &'static str = "14";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        Ok(match u16::read(value)? {
            1 => Self::Modp768,
            2 => Self::Modp1024,
            5 => Self::Modp1536,
            14 => Self::Modp2048,
            15 => Self::Modp3072,
            16 => Self::Modp4096,
            19 => Self::Ecp256,
            20 => Self::Ecp384,
            24 => Self::Modp2048Subgroup256,
            other => {
                let message = format!("group {other} is not known");
                return Err(Problem::new(
                    message,
                    "write one of 14, 15, 16, 19, 20, 24, or with legacy = true 1, 2, 5",
                ));
            }
        })
    }
}

/// Reads `[ike]`; without the table, or for a key that is missing, the defaults hold: AES-256 and
/// AES-128 in CBC mode, SHA2-256, group 14, one hour.
///
/// Weak algorithms are noted as errors unless `legacy` is set. The transforms are all combinations:
/// by group, then encryption, then hash, each in the order of the file.
pub fn phase1_policy(table: Option<Table<'_>>, legacy: bool) -> Phase1Policy {
    let mut encryptions = vec![Phase1Encryption::Aes256Cbc, Phase1Encryption::Aes128Cbc];
    let mut hashes = vec![HashAlgorithm::Sha2_256];
    let mut groups = vec![DhGroup::Modp2048];
    let mut lifetime = DEFAULT;
    if let Some(mut table) = table {
        strong_list(&mut table, "encryption", legacy, &mut encryptions, weak_encryption);
        strong_list(&mut table, "hash", legacy, &mut hashes, weak_hash);
        strong_list(&mut table, "dh-group", legacy, &mut groups, weak_group);
        lifetime = table.duration("lifetime", SHORTEST..=LONGEST, DEFAULT);
        let transforms = encryptions.len() * hashes.len() * groups.len();
        if transforms > MOST_TRANSFORMS {
            let message = format!("{transforms} combinations of encryption, hash and dh-group");
            table.error(
                message,
                format!("name fewer: at most {MOST_TRANSFORMS} combinations fit into one datagram"),
            );
        }
        table.finish();
    }
    let authentication = Authentication::PreSharedKey;
    let mut transforms = Vec::new();
    for &group in &groups {
        for &encryption in &encryptions {
            for &hash in &hashes {
                transforms.push(Phase1Transform { encryption, hash, group, authentication });
            }
        }
    }
    Phase1Policy { doi: Doi::GDOI, transforms, lifetime }
}

fn strong_list<T>(
    table: &mut Table<'_>,
    key: &'static str,
    legacy: bool,
    list: &mut Vec<T>,
    weak: impl Fn(T) -> Option<&'static str>,
) where
    T: Read + Copy + PartialEq,
{
    if !table.has(key) {
        let _ = table.list::<T>(key);
        return;
    }
    let mut chosen: Vec<T> = Vec::new();
    for Located { value, place } in table.required_list::<T>(key) {
        if let Some(name) = weak(value).filter(|_| !legacy) {
            let message = format!("{}: {name} is weak", table.key_path(key));
            table.report().error(
                Some(place),
                message,
                "choose a strong one, or set legacy = true and know why",
            );
        } else if chosen.contains(&value) {
            let message = format!("{}: named twice", table.key_path(key));
            table.report().error(Some(place), message, "name it once");
        } else {
            chosen.push(value);
        }
    }
    if !chosen.is_empty() {
        *list = chosen;
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
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn read(text: &str, legacy: bool) -> Result<Phase1Policy, String> {
        parse("f", text, |mut root| {
            let table = root.table("ike");
            let policy = phase1_policy(table, legacy);
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
        let text = "[ike]\nencryption = [\"3des-cbc\", \"des-cbc\"]\nhash = [\"md5\"]\ndh-group = [2, 1, 5]\n";
        let report = read(text, false).unwrap_err();
        for name in [
            "3DES",
            "DES",
            "MD5",
            "MODP 768 (group 1)",
            "MODP 1024 (group 2)",
            "MODP 1536 (group 5)",
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
                "MODP 1536 (group 5)"
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
f:4:21: error: ike.dh-group: group 17 is not known; write one of 14, 15, 16, 19, 20, 24, or with legacy = true 1, 2, 5
f:5:12: error: ike.lifetime: 1s is out of range; write \"1m\" to \"1d\"
f:6:1: error: unknown key \"life\" in ike; known keys are dh-group, encryption, hash, lifetime
f: 6 errors; nothing was started
"
        );
    }
}

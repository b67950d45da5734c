//! Members: their credentials, their groups, and what no two of them may share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use daemon::configuration::{Certificates, Located, Report, check_length, shared_keys};
use daemon::secrets::read_pre_shared_key;
use gdoi::group::GroupId;
use ike::config::{Authentication, Credential, Identity, Phase1Policy};
use ike::crypto::Secret;
use ipnet::IpNet;

use super::super::Member;
use super::super::file::{self, File};
use super::unique;

/// What members may refer to.
pub(super) struct Known<'k> {
    pub(super) ids: BTreeMap<&'k str, u32>,
    pub(super) names: BTreeSet<&'k str>,
    pub(super) certificates: Certificates,
}

pub(super) fn member(entry: &file::Member, known: &Known<'_>, report: &Report) -> Option<Member> {
    let Known { ids, names, certificates } = known;
    let mut groups = BTreeSet::new();
    for group in &entry.groups {
        let name = group.value.as_str();
        if !names.contains(name) {
            let message = format!("member.groups: there is no group \"{name}\"");
            let known: Vec<&str> = names.iter().copied().collect();
            let remedy = if known.is_empty() {
                "add it".to_owned()
            } else {
                format!("known are {}", known.join(", "))
            };
            report.error(Some(group.place.clone()), message, remedy);
        } else if let Some(id) = ids.get(name)
            && !groups.insert(GroupId(*id))
        {
            report.error(
                Some(group.place.clone()),
                format!("member.groups: \"{name}\" is named twice"),
                "name it once",
            );
        }
    }
    if let (Some(address), Some(identity)) = (&entry.address, &entry.identity)
        && let Identity::Address(identity_address) = &identity.value
        && identity_address.is_ipv4() != address.value.addr().is_ipv4()
    {
        let message = "member.identity: not of the address family of the member's address";
        report.error(
            Some(identity.place.clone()),
            message,
            "name the address that the member proves",
        );
    }
    let credential = credential(entry, certificates, report);
    if let (Some(Credential::PreSharedKey(_)), Some(identity)) = (&credential, &entry.identity) {
        let message = match &identity.value {
            Identity::DistinguishedName(_) => {
                Some("who has a pre-shared key proves no distinguished name".to_owned())
            }
            pattern if pattern.is_pattern() => {
                Some(format!("{pattern} means several, and the key is one"))
            }
            _ => None,
        };
        if let Some(message) = message {
            let remedy = "name a certificate, or another identity";
            report.error(
                Some(identity.place.clone()),
                format!("member.identity: {message}"),
                remedy,
            );
        }
    }
    Some(Member {
        name: entry.name.as_ref()?.value.clone(),
        addresses: entry.address.as_ref()?.value,
        identity: entry.identity.as_ref().map(|identity| identity.value.clone()),
        credential: credential?,
        groups,
        group_id_byte_order: entry.interoperability.group_id_byte_order,
    })
}

/// What a member proves its identity with.
fn credential(
    entry: &file::Member,
    certificates: &Certificates,
    report: &Report,
) -> Option<Credential> {
    match &entry.certificate {
        Some(named) if entry.names_key => {
            let message = "member.certificate: a pre-shared key is named as well";
            report.error(Some(named.place.clone()), message, "keep one of them");
            return None;
        }
        Some(named) => return certificates.find(named, "member.certificate", report),
        None if !entry.names_key => {
            report.error(
                entry.place.clone(),
                "member: no pre-shared key and no certificate",
                "add pre-shared-key-file = \"/path/to/file\", pre-shared-key-credential = \"name\" \
                 or certificate = \"name\"",
            );
        }
        None => {}
    }
    let key =
        entry.pre_shared_key.as_ref().and_then(|origin| match read_pre_shared_key(&origin.value) {
            Ok(key) => {
                check_length(report, origin.place.clone(), &key);
                Some(key)
            }
            Err(error) => {
                // The error's own text has its remedy behind the first semicolon, as the report's
                // lines have.
                let text = error.to_string();
                let (message, remedy) = text.split_once("; ").unwrap_or((&text, "check the key"));
                report.error(
                    Some(origin.place.clone()),
                    format!("pre-shared key: {message}"),
                    remedy,
                );
                None
            }
        });
    key.map(|key| Credential::PreSharedKey(Arc::new(key)))
}

/// The policy with the methods that members use: each has the one that its credential is for.
pub(super) fn with_methods<'m>(
    policy: Phase1Policy,
    members: impl Iterator<Item = &'m Member>,
) -> Phase1Policy {
    let methods: BTreeSet<Authentication> =
        members.map(|member| member.credential.authentication()).collect();
    if methods.is_empty() {
        return policy;
    }
    let transforms = methods
        .into_iter()
        .flat_map(|method| policy.clone().authenticated_by(method).transforms)
        .collect();
    Phase1Policy { transforms, ..policy }
}

/// What we call ourselves must stand in the certificates that we show.
pub(super) fn own_identity(file: &File, certificates: &Certificates, report: &Report) {
    let Some(identity) = &file.identity else { return };
    for (name, own) in certificates.of().filter(|(_, own)| !own.proves(&identity.value)) {
        let message = format!(
            "identity: certificate {name} of {} does not name {}",
            own.subject(),
            identity.value
        );
        let remedy = "remove the identity, or issue a certificate with it";
        report.error(Some(identity.place.clone()), message, remedy);
    }
}

/// In main mode the address alone tells which key is meant (RFC 2409 §5.4). A certificate is the
/// same for all who name it.
pub(super) fn unique_addresses(report: &Report, members: &[file::Member]) {
    let mut seen: BTreeMap<IpNet, (Option<&str>, usize)> = BTreeMap::new();
    for member in members {
        let Some(address) = &member.address else { continue };
        let certificate = member.certificate.as_ref().map(|named| named.as_str());
        match seen.get(&address.value) {
            Some((first, _)) if first.is_some() && *first == certificate => {}
            Some((_, first)) => {
                let message =
                    format!("member.address: the same as in {}", report.line_text(*first));
                let remedy = "every one is there once, unless all have the same certificate: \
                              change or remove it";
                report.error(Some(address.place.clone()), message, remedy);
            }
            None => _ = seen.insert(address.value, (certificate, address.place.start)),
        }
    }
}

/// An identity belongs to one member, or nobody could tell who is authorized.
pub(super) fn unique_identities(report: &Report, members: &[file::Member]) {
    let identities =
        members.iter().filter_map(|member| match (&member.identity, &member.address) {
            (Some(identity), _) => Some(identity.clone()),
            (None, Some(address)) if is_host(&address.value) => Some(Located {
                value: Identity::Address(address.value.addr()),
                place: address.place.clone(),
            }),
            _ => None,
        });
    unique(report, "member.identity", identities);
}

fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// The names, or the first five and how many more: one line must stay readable with thousands.
fn enumerate_members(names: &[&str]) -> String {
    const NAMED: usize = 5;
    let (named, others) = names.split_at(names.len().min(NAMED));
    let others = match others.len() {
        0 => String::new(),
        count => format!(" and {count} others"),
    };
    format!("{}{others}", named.join(", "))
}

pub(super) fn warn_of_shared_keys(
    report: &Report,
    entries: &[file::Member],
    members: &[Option<Member>],
) {
    const REASON: &str = "any of them can pose as this key server to the others";
    const REMEDY: &str = "give every member a key of its own";
    let keys = members.iter().flatten().filter_map(|member| match &member.credential {
        Credential::PreSharedKey(key) => Some((member.name.as_str(), key.as_ref())),
        _ => None,
    });
    let keys: Vec<(&str, &Secret)> = keys.collect();
    let named = entries.iter().filter_map(|entry| Some((entry.name.as_ref()?.as_str(), entry)));
    let by_name: BTreeMap<&str, &file::Member> = named.collect();
    for names in shared_keys(keys) {
        let entry = names.first().and_then(|first| by_name.get(first));
        let place = entry.and_then(|entry| Some(entry.pre_shared_key.as_ref()?.place.clone()));
        let message =
            format!("members {} have one pre-shared key: {REASON}", enumerate_members(&names));
        report.warning(place, message, REMEDY);
    }
    for entry in entries {
        if let (Some(name), Some(address)) = (&entry.name, &entry.address)
            && entry.certificate.is_none()
            && !is_host(&address.value)
        {
            let message = format!(
                "all hosts of {} have the pre-shared key of {}: {REASON}",
                address.value, name.value
            );
            report.warning(Some(address.place.clone()), message, REMEDY);
        }
    }
}

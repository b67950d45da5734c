//! Raises the file to values: names become references, pre-shared keys are read, and what
//! contradicts itself is noted.

mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use daemon::clock;
use daemon::configuration::{
    CertificateTable, Certificates, Located, Place, Report, phase1_policy, read_certificate,
    state_key, weak_parts,
};
use daemon::secrets::read_aes_key;
use gdoi::group::{
    AddressPreservation, EncapsulationMode, GroupAssociatedPolicy, GroupId, SaDirection,
    TrafficSelector,
};
use ike::config::Credential;
use ike::endpoint::Limits as ServerLimits;

use super::cluster::{self, Server};
use super::file::{self, File, TEK_LIFETIME, TekKeys};
use super::rekey::{self, Surroundings};
use super::{Config, Group, Interoperability, Member, MulticastPath, TekTemplate, Transport};
use crate::config::tek_algorithm::{Encryption, Integrity, Kind};
use crate::etcd;
use members::{
    Known, member, own_identity, unique_addresses, unique_identities, warn_of_shared_keys,
    with_methods,
};

/// More traffic selectors than this do not fit into one message of a pull.
const MOST_SELECTORS: usize = 256;

/// Makes the configuration; `None` when something is missing, which is then noted.
pub fn raise(file: File, report: &Report) -> Option<Config> {
    let listen = listen(&file, report);
    let addresses = file.members.iter().filter_map(|member| {
        Some((&member.address.as_ref()?.value, member.name.as_ref()?.value.as_str()))
    });
    let read = |table: &CertificateTable, report: &Report| {
        read_certificate(table, report, clock::wall().as_secs()).map(Credential::Certificate)
    };
    let certificates = Certificates::new(&file.certificates, report, read);
    let own = cluster::Own {
        listen: &listen,
        port: file.port,
        identity: file.identity.as_ref().map(|identity| &identity.value),
        certificates: &certificates,
    };
    let servers = cluster::raise_servers(&file.servers, own, addresses, report);
    unique(report, "cluster-server.name", file.servers.iter().filter_map(|one| one.name.clone()));
    unique(
        report,
        "cluster-server.address",
        file.servers.iter().flat_map(|one| one.all_addresses().cloned()),
    );
    let sound: Vec<Server> = servers.iter().flatten().cloned().collect();
    let groups: Vec<Option<Group>> =
        file.groups.iter().map(|entry| group(entry, &file, (&listen, &sound), report)).collect();
    let parts = groups.iter().zip(&file.groups).filter_map(|(group, entry)| {
        let group = group.as_ref()?;
        Some((group.name.as_str(), group.cluster.as_ref()?, entry.place.clone()))
    });
    cluster::one_role(parts, report);
    unique(report, "group.name", file.groups.iter().filter_map(|group| group.name.clone()));
    unique(report, "group.id", file.groups.iter().filter_map(|group| group.id.clone()));
    if file.groups.is_empty() {
        report.error(None, "there is no group", "add [[group]]");
    }
    let ids: BTreeMap<&str, u32> = file
        .groups
        .iter()
        .filter_map(|group| Some((group.name.as_ref()?.value.as_str(), group.id.as_ref()?.value)))
        .collect();
    let names: BTreeSet<&str> =
        file.groups.iter().filter_map(|group| Some(group.name.as_ref()?.as_str())).collect();
    let known = Known { ids, names, certificates };
    let members: Vec<Option<Member>> =
        file.members.iter().map(|entry| member(entry, &known, report)).collect();
    if file.members.is_empty() {
        report.error(None, "there is no member", "add [[member]], here or in one of member-files");
    }
    unique(report, "member.name", file.members.iter().filter_map(|member| member.name.clone()));
    unique_addresses(report, &file.members);
    own_identity(&file, &known.certificates, report);
    unique_identities(report, &file.members);
    warn_of_shared_keys(report, &file.members, &members);
    let phase1 = phase1_policy(&file.ike, "ike", file.legacy, report);
    let phase1 = with_methods(phase1, members.iter().flatten());
    let weak = weak_parts(&phase1);
    if !weak.is_empty() {
        let message = format!("ike: {} can be broken", weak.join(", "));
        report.warning(None, message, "remove them as soon as every member has something better");
    }
    one_path_each(&file, &groups, report);
    if let Some(origin) = file.state_key.as_ref().filter(|_| !file.keep_state) {
        let message = "a state key, and keep-state = false: there is no state to seal";
        report.error(Some(origin.place.clone()), message, "remove one of the two");
    }
    let etcd = (!file.etcd.endpoints.is_empty()).then(|| etcd(&file.etcd, &file, report));
    let state_key =
        file.state_key.as_ref().and_then(|origin| state_key(report, origin, read_aes_key));
    Some(Config {
        control_socket: file.control_socket,
        listen,
        state_directory: file.state_directory,
        keep_state: file.keep_state,
        state_key,
        etcd,
        identity: file.identity.map(|identity| identity.value),
        phase1,
        limits: limits(&file.limits),
        receive_buffer: file.limits.receive_buffer,
        members: members.into_iter().collect::<Option<_>>()?,
        servers: servers.into_iter().collect::<Option<_>>()?,
        most_members: file.limits.members.as_ref().map(|most| number(most.value)),
        groups: groups.into_iter().collect::<Option<_>>()?,
        certificates: (&known.certificates).into(),
    })
}

fn etcd(typed: &file::Etcd, file: &File, report: &Report) -> etcd::Settings {
    let place = || typed.endpoints.first().map(|first| first.place.clone());
    unique(report, "etcd.endpoints", typed.endpoints.iter().cloned());
    for endpoint in &typed.endpoints {
        let host = endpoint.strip_prefix("http://");
        if endpoint.starts_with("https://") {
            let message = format!("etcd.endpoints: \"{}\": gcks speaks no TLS", endpoint.value);
            let remedy = "write http:// and the address of a TLS proxy on this machine (stunnel), or keep etcd in a network of its own";
            report.error(Some(endpoint.place.clone()), message, remedy);
        } else if host
            .is_none_or(|host| host.is_empty() || host.contains(['/', '?', '#', '@', ' ']))
        {
            let message = format!("etcd.endpoints: \"{}\" is no endpoint", endpoint.value);
            let remedy = "write it like \"http://10.0.9.11:2379\"";
            report.error(Some(endpoint.place.clone()), message, remedy);
        }
    }
    if !file.keep_state {
        let remedy = "remove one of the two";
        report.error(place(), "[etcd], and keep-state = false: there is no state to keep", remedy);
    } else if file.state_key.is_none() {
        report.error(
            place(),
            "[etcd] without a state key",
            "add state-key-file or state-key-credential, with the same key on all key servers of this etcd",
        );
    }
    let prefix = typed.prefix.trim_end_matches('/').to_owned();
    if prefix.is_empty() {
        let message = "etcd.prefix: empty";
        report.error(Some(typed.prefix.place.clone()), message, "write it like \"/gcks\"");
    }
    let host = || {
        let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
        let name = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
        name.map_or_else(|| "gcks".to_owned(), |name| name.trim().to_owned())
    };
    etcd::Settings {
        endpoints: typed.endpoints.iter().map(|endpoint| endpoint.value.clone()).collect(),
        prefix,
        lease: Duration::from_secs(typed.lease.as_secs()),
        name: typed.name.as_ref().map_or_else(host, |name| name.value.clone()),
    }
}

/// A multicast group is reached on one path, whichever groups push to it.
fn one_path_each(file: &File, groups: &[Option<Group>], report: &Report) {
    let mut seen: BTreeMap<(SocketAddr, SocketAddr), (&str, &MulticastPath)> = BTreeMap::new();
    for (entry, group) in file.groups.iter().zip(groups) {
        let Some(Group { name, rekey: Some(rekey), .. }) = group else { continue };
        let Transport::Multicast { source, destination } = rekey.transport else { continue };
        let (first, path) = *seen.entry((source, destination)).or_insert((name, &rekey.path));
        if *path != rekey.path {
            let message = format!(
                "group.rekey: groups {first} and {name} push to {destination} on different paths"
            );
            let remedy = "give both the same multicast-interface and multicast-ttl, or another multicast-address";
            report.error(entry.place.clone(), message, remedy);
        }
    }
}

fn number(typed: u32) -> usize {
    usize::try_from(typed).unwrap_or(usize::MAX)
}

fn limits(typed: &file::Limits) -> ServerLimits {
    ServerLimits {
        half_open: number(typed.half_open),
        half_open_per_source: number(typed.half_open_per_source),
        half_open_timeout: typed.half_open_timeout,
        computations: number(typed.computations),
        established: number(typed.established),
        ..ServerLimits::default()
    }
}

fn gap(typed: &file::Gap, report: &Report) -> GroupAssociatedPolicy {
    let value = |delay: &Option<Located<Duration>>| delay.as_ref().map(|delay| delay.value);
    let gap = GroupAssociatedPolicy {
        activation_time_delay: value(&typed.activation),
        deactivation_time_delay: value(&typed.deactivation),
    };
    if let (Some(activation), Some(deactivation)) =
        (gap.activation_time_delay, gap.deactivation_time_delay)
        && deactivation < activation
    {
        report.error(
            typed.place.clone(),
            "group.gap: the old keys go before the new ones are used",
            "make deactivation-time-delay longer than activation-time-delay",
        );
    }
    gap
}

fn listen(file: &File, report: &Report) -> Vec<SocketAddr> {
    unique(report, "listen", file.listen.iter().cloned());
    for all in file.listen.iter().filter(|address| address.is_unspecified()) {
        let others = file.listen.iter().filter(|other| other.is_ipv4() == all.is_ipv4());
        if others.count() > 1 {
            let message = format!("listen: {} covers the other addresses of its family", all.value);
            report.error(Some(all.place.clone()), message, "remove it, or remove the others");
        }
    }
    file.listen.iter().map(|address| SocketAddr::new(address.value, file.port)).collect()
}

fn group(
    entry: &file::Group,
    file: &File,
    (listen, servers): (&[SocketAddr], &[Server]),
    report: &Report,
) -> Option<Group> {
    let legacy = file.legacy;
    let mut selectors: Vec<Vec<Located<TrafficSelector>>> = Vec::new();
    let mut teks: Vec<Option<TekTemplate>> = Vec::new();
    for typed in &entry.teks {
        let policies = typed.policies.iter();
        let own: Vec<Located<TrafficSelector>> =
            policies.filter_map(|policy| policy.raise("group.tek.policy", report)).collect();
        teks.push(tek(typed, &entry.tek_defaults, &own, legacy, report));
        selectors.push(own);
    }
    let gap = gap(&entry.gap, report);
    let mut seen: BTreeMap<TrafficSelector, usize> = BTreeMap::new();
    let mut count = 0;
    for selector in selectors.iter().flatten() {
        count += 1;
        let line = report.line(selector.place.start);
        if let Some(first) = seen.insert(selector.value, line) {
            let message = format!(
                "group.tek.policy: the same selector as in line {first}, which matches first"
            );
            report.error(Some(selector.place.clone()), message, "remove one of them");
        }
    }
    if count > MOST_SELECTORS {
        let message = format!("group: {count} policies");
        report.error(entry.place.clone(), message, format!("a group has at most {MOST_SELECTORS}"));
    }
    let name = entry.name.as_ref().map_or("", |name| name.value.as_str());
    let sound: Vec<TekTemplate> = teks.iter().flatten().cloned().collect();
    let surroundings = Surroundings {
        group: name,
        listen,
        state_directory: &file.state_directory,
        legacy,
        teks: &sound,
        activation: gap.activation_time_delay.unwrap_or_default(),
    };
    let rekey = entry.rekey.as_ref().map(|rekey| rekey::raise(rekey, &surroundings, report));
    let cluster = entry.cluster.as_ref().map(|typed| {
        let surroundings = cluster::Surroundings {
            servers,
            rekey: rekey.as_ref().and_then(Option::as_ref),
            teks: &sound,
            activation: gap.activation_time_delay,
            keeps_state: file.keep_state,
        };
        cluster::raise(typed, &surroundings, report)
    });
    Some(Group {
        name: entry.name.as_ref()?.value.clone(),
        id: GroupId(entry.id.as_ref()?.value),
        teks: teks.into_iter().collect::<Option<_>>()?,
        gap,
        sender_id_bits: entry.sender_id_bits,
        rekey: match rekey {
            None => None,
            Some(rekey) => Some(rekey?),
        },
        interoperability: interoperability(&entry.interoperability),
        member_threshold: entry.member_threshold.as_ref().map(|most| number(most.value)),
        cluster: match cluster {
            None => None,
            Some(cluster) => Some(cluster?),
        },
    })
}

fn interoperability(typed: &file::Interoperability) -> Interoperability {
    Interoperability {
        signature_form: typed.rsa_signature,
        signed_length: typed.signed_length,
        trailer: typed.sak_reserved_octets,
        kek_packet: typed.new_kek_spi,
        selector_byte_order: typed.selector_byte_order,
    }
}

fn tek(
    entry: &file::Tek,
    defaults: &TekKeys,
    selectors: &[Located<TrafficSelector>],
    legacy: bool,
    report: &Report,
) -> Option<TekTemplate> {
    let own = &entry.own;
    let encryption = own.encryption.as_ref().or(defaults.encryption.as_ref());
    if encryption.is_none() && !entry.names_encryption {
        let remedy = "add encryption = \"aes-256-cbc\" here or in [group.tek-defaults]";
        report.error(entry.place.clone(), "group.tek: no encryption", remedy);
    }
    let encryption = encryption?;
    if encryption.value.kind == Kind::Legacy && !legacy {
        let message = format!("group.tek.encryption: {} is weak", encryption.name);
        let remedy = "choose a strong one, or set legacy = true and know why";
        report.error(Some(encryption.place.clone()), message, remedy);
    } else if encryption.value.kind == Kind::Legacy {
        let message = format!("group.tek.encryption: {} can be broken", encryption.name);
        report.warning(
            Some(encryption.place.clone()),
            message,
            "change it as soon as every member has something better",
        );
    }
    let integrity = own.integrity.as_ref().or(defaults.integrity.as_ref());
    let integrity = self::integrity(encryption, integrity, entry.place.clone(), report);
    let mode = or_default(&own.mode, &defaults.mode, EncapsulationMode::TUNNEL);
    let (direction, preservation) = (&own.direction, &own.address_preservation);
    Some(TekTemplate {
        selectors: selectors.iter().map(|selector| selector.value).collect(),
        encryption: encryption.value,
        integrity,
        direction: or_default(direction, &defaults.direction, SaDirection::SYMMETRIC),
        mode,
        address_preservation: or_default(
            preservation,
            &defaults.address_preservation,
            AddressPreservation::SOURCE_AND_DESTINATION,
        ),
        lifetime: or_default(&own.lifetime, &defaults.lifetime, TEK_LIFETIME),
    })
}

fn or_default<T: Copy>(own: &Option<Located<T>>, group: &Option<Located<T>>, usual: T) -> T {
    own.as_ref().or(group.as_ref()).map_or(usual, |located| located.value)
}

fn integrity(
    encryption: &Located<Encryption>,
    integrity: Option<&Located<Integrity>>,
    tek: Option<Place>,
    report: &Report,
) -> Option<Integrity> {
    match (encryption.value.kind, integrity) {
        (Kind::Combined, Some(integrity)) => {
            let message = format!("group.tek.integrity: {} brings its own", encryption.name);
            report.error(Some(integrity.place.clone()), message, "remove integrity");
            None
        }
        (Kind::Plain | Kind::Legacy, None) => {
            let message = format!("group.tek: {} protects no integrity", encryption.name);
            report.error(
                tek,
                message,
                "add integrity = \"hmac-sha2-256-128\", or encrypt with aes-256-gcm-16",
            );
            None
        }
        (_, integrity) => integrity.map(|integrity| integrity.value),
    }
}

fn unique<T: Ord + Debug>(report: &Report, key: &str, values: impl Iterator<Item = Located<T>>) {
    let mut seen: BTreeMap<T, usize> = BTreeMap::new();
    for Located { value, place } in values {
        match seen.get(&value) {
            Some(first) => {
                let message = format!("{key}: the same as in {}", report.line_text(*first));
                let remedy = "every one is there once: change or remove it";
                report.error(Some(place), message, remedy);
            }
            None => _ = seen.insert(value, place.start),
        }
    }
}

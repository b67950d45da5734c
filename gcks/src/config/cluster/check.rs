//! Raises the tables of a cluster to values, and notes what contradicts itself or the rest.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::MOST_SUB_SERVERS;
use daemon::configuration::{Certificates, Located, Place, Report, check_length, duration_text};
use daemon::secrets::read_pre_shared_key;
use ike::config::{Credential, Identity};
use ipnet::IpNet;

use super::{Cluster, File, FileServer, Role, Server};
use crate::config::rekey_timing::{is_short, lead};
use crate::config::{Rekey, TekTemplate, Transport};

/// A redundant root server may be silent so long while another of its machines takes over.
const TAKE_OVER: Duration = Duration::from_secs(150);

/// What the table of a group is checked against.
pub struct Surroundings<'a> {
    /// Every `[[cluster-server]]` that is sound.
    pub servers: &'a [Server],
    /// How the group pushes, if it does.
    pub rekey: Option<&'a Rekey>,
    pub teks: &'a [TekTemplate],
    /// From the receipt of new keys until sending with them.
    pub activation: Option<Duration>,
    /// Whether the state is kept.
    pub keeps_state: bool,
}

/// Raises the servers; members are by their addresses and names.
pub fn raise_servers<'a>(
    entries: &[FileServer],
    own: Own<'_>,
    members: impl Iterator<Item = (&'a IpNet, &'a str)> + Clone,
    report: &Report,
) -> Vec<Option<Server>> {
    entries.iter().map(|entry| server(entry, own, members.clone(), report)).collect()
}

/// What this server is to the others.
#[derive(Clone, Copy)]
pub struct Own<'a> {
    pub listen: &'a [SocketAddr],
    pub port: u16,
    pub identity: Option<&'a Identity>,
    pub certificates: &'a Certificates,
}

fn server<'a>(
    entry: &FileServer,
    own: Own<'_>,
    members: impl Iterator<Item = (&'a IpNet, &'a str)> + Clone,
    report: &Report,
) -> Option<Server> {
    for address in entry.address.iter().chain(&entry.further_addresses) {
        let member = members.clone().find(|(prefix, _)| prefix.contains(&address.value));
        if let Some((_, member)) = member {
            let message = format!(
                "cluster-server.address: member {member} registers from {}, and no server is a member",
                address.value
            );
            report.error(Some(address.place.clone()), message, "give one of them another address");
        }
    }
    let address = entry.address.as_ref()?;
    for further in &entry.further_addresses {
        if further.value.is_ipv4() != address.value.is_ipv4() {
            let message = format!(
                "cluster-server.further-addresses: {} and {} are of two families",
                further.value, address.value
            );
            report.error(Some(further.place.clone()), message, "name addresses of one family");
        }
    }
    let silence = entry.liveness_interval.saturating_mul(entry.liveness_threshold);
    if !entry.further_addresses.is_empty() && silence <= TAKE_OVER {
        let message = format!(
            "cluster-server: it counts as dead after {}, and another of its machines may take as long to take over",
            duration_text(silence)
        );
        let remedy = "make liveness-interval times liveness-threshold longer than 150s";
        report.warning(entry.place.clone(), message, remedy);
    }
    let local = local_address(entry, address, own.listen, report);
    let credential = credential(entry, own, local, report);
    Some(Server {
        name: entry.name.as_ref()?.value.as_str().into(),
        remote: SocketAddr::new(address.value, own.port),
        further: entry
            .further_addresses
            .iter()
            .map(|further| SocketAddr::new(further.value, own.port))
            .collect(),
        local: SocketAddr::new(local?, own.port),
        identity: entry.identity.as_ref().map(|identity| identity.value.clone()),
        credential: credential?,
        liveness_interval: entry.liveness_interval,
        liveness_threshold: entry.liveness_threshold,
    })
}

/// What two servers prove their identities with.
fn credential(
    entry: &FileServer,
    own: Own<'_>,
    local: Option<std::net::IpAddr>,
    report: &Report,
) -> Option<Credential> {
    match &entry.certificate {
        Some(named) if entry.names_key => {
            let message = "cluster-server.certificate: a pre-shared key is named as well";
            report.error(Some(named.place.clone()), message, "keep one of them");
            return None;
        }
        Some(named) => {
            let found = own.certificates.find(named, "cluster-server.certificate", report);
            let identity = own.identity.cloned().or(local.map(Identity::Address));
            if let (Some(Credential::Certificate(certificate)), Some(identity)) =
                (&found, &identity)
                && !certificate.proves(identity)
            {
                let message = format!(
                    "cluster-server.certificate: certificate {} does not name {identity}",
                    named.value
                );
                let remedy = "set identity to a name in it, or issue a certificate with this one";
                report.error(Some(named.place.clone()), message, remedy);
            }
            return found;
        }
        None if !entry.names_key => {
            report.error(
                entry.place.clone(),
                "cluster-server: no pre-shared key and no certificate",
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
                let text = error.to_string();
                let (message, remedy) = text.split_once("; ").unwrap_or((&text, "check the key"));
                let message = format!("pre-shared key: {message}");
                report.error(Some(origin.place.clone()), message, remedy);
                None
            }
        });
    key.map(|key| Credential::PreSharedKey(Arc::new(key)))
}

fn local_address(
    entry: &FileServer,
    address: &Located<std::net::IpAddr>,
    listen: &[SocketAddr],
    report: &Report,
) -> Option<std::net::IpAddr> {
    let family = |one: &&SocketAddr| one.is_ipv4() == address.value.is_ipv4();
    if let Some(local) = &entry.local_address {
        let heard = |one: &SocketAddr| one.ip() == local.value || one.ip().is_unspecified();
        let is_right = local.value.is_ipv4() == address.value.is_ipv4()
            && listen.iter().filter(family).any(heard);
        if !is_right {
            let message = format!(
                "cluster-server.local-address: the server does not listen on {} for {}",
                local.value, address.value
            );
            let remedy = "name an address of listen, of the family of address";
            report.error(Some(local.place.clone()), message, remedy);
        }
        return is_right.then_some(local.value);
    }
    let mut own = listen.iter().filter(family).map(SocketAddr::ip);
    match (own.next().filter(|one| !one.is_unspecified()), own.next()) {
        (Some(only), None) => Some(only),
        _ => {
            let message = format!(
                "cluster-server: it is not clear which address of this server {} knows",
                address.value
            );
            report.error(entry.place.clone(), message, "add local-address");
            None
        }
    }
}

/// Raises the table to values; `None` when something is wrong, which is then noted.
pub fn raise(file: &File, surroundings: &Surroundings<'_>, report: &Report) -> Option<Cluster> {
    let Surroundings { servers, keeps_state, .. } = *surroundings;
    let Some(role) = &file.role else {
        let remedy = "add role = \"root-server\" on one server of the group and role = \"sub-server\" on the others";
        report.error(file.place.clone(), "group.cluster: no role", remedy);
        return None;
    };
    let mut named = Vec::new();
    for name in &file.servers {
        match servers.iter().find(|server| *server.name == *name.value) {
            Some(server) if named.contains(&server) => {
                let message = format!("group.cluster.servers: \"{}\" is named twice", name.value);
                report.error(Some(name.place.clone()), message, "name it once");
            }
            Some(server) => named.push(server),
            None => {
                let message =
                    format!("group.cluster.servers: there is no cluster-server \"{}\"", name.value);
                let remedy = match servers.is_empty() {
                    true => String::from("add [[cluster-server]]"),
                    false => {
                        let known: Vec<&str> = servers.iter().map(|one| &*one.name).collect();
                        format!("known are {}", known.join(", "))
                    }
                };
                report.error(Some(name.place.clone()), message, remedy);
            }
        }
    }
    match (role.value, file.servers.len()) {
        (Role::RootServer, 1..=MOST_SUB_SERVERS) | (Role::SubServer, 1) => {}
        (Role::RootServer, count) => {
            let message = format!("group.cluster.servers: {count} sub-servers");
            let remedy = format!("a root server has 1 to {MOST_SUB_SERVERS}");
            report.error(file.place.clone(), message, remedy);
        }
        (Role::SubServer, count) => {
            let message = format!("group.cluster.servers: {count} root servers");
            report.error(file.place.clone(), message, "a sub-server names its root and no other");
        }
    }
    if !keeps_state {
        let message = "group.cluster: a server of a cluster has to keep its state, so that no number is used twice";
        report.error(
            file.place.clone(),
            message,
            "set keep-state = true, or remove [group.cluster]",
        );
    }
    let longest = named.iter().map(|server| server.time_to_live()).max().unwrap_or_default();
    let cluster = Cluster {
        role: role.value,
        servers: named.iter().map(|server| Arc::clone(&server.name)).collect(),
        period: file.period,
        wait: longest + file.period,
    };
    check_group(file, &cluster, surroundings, report);
    Some(cluster)
}

/// What the group itself has to be like.
fn check_group(file: &File, cluster: &Cluster, surroundings: &Surroundings<'_>, report: &Report) {
    let &Surroundings { rekey, teks, activation, .. } = surroundings;
    let place = || file.place.clone();
    let error = |message: &str, remedy: &str| report.error(place(), message, remedy);
    let Some(rekey) = rekey else {
        error("group.cluster: without pushes there is nothing to relay", "add [group.rekey]");
        return;
    };
    if matches!(rekey.transport, Transport::Multicast { .. }) {
        error(
            "group.cluster: sub-servers relay pushes to their own members alone",
            "set transport = \"unicast\" in [group.rekey]",
        );
    }
    let Some(activation) = activation.filter(|delay| !delay.is_zero()) else {
        error(
            "group.cluster: members would send with new keys before those of other servers have them",
            "add activation-time-delay to [group.gap]",
        );
        return;
    };
    let transmissions = rekey.delivery.period.saturating_mul(rekey.delivery.repetitions);
    if activation < cluster.period + transmissions {
        let message = format!(
            "group.cluster: where a message between servers is lost, members get new keys up to {} late and cannot receive after {}",
            duration_text(cluster.period + transmissions),
            duration_text(activation)
        );
        report.warning(place(), message, "make activation-time-delay in [group.gap] longer");
    }
    let lead = lead(rekey, activation) + cluster.wait;
    let lifetimes = teks.iter().map(|tek| ("a TEK", tek.lifetime));
    for (what, lifetime) in lifetimes.chain([("the KEK", rekey.lifetime)]) {
        if is_short(lifetime, lead) {
            let message = format!(
                "group.cluster: the lifetime of {what}, {}, leaves no time for the retransmissions to servers and members and the activation delay, {}",
                duration_text(lifetime),
                duration_text(lead)
            );
            let remedy = "make it longer, or shorten retransmission-period, liveness-interval or activation-time-delay";
            report.error(place(), message, remedy);
        }
    }
}

/// A server has one role in all its groups.
pub fn one_role<'a>(
    groups: impl Iterator<Item = (&'a str, &'a Cluster, Option<Place>)>,
    report: &Report,
) {
    let mut first: Option<(&str, Role)> = None;
    for (name, cluster, place) in groups {
        let (before, role) = *first.get_or_insert((name, cluster.role));
        if role != cluster.role {
            let message = format!(
                "group.cluster.role: {} in group {name}, {} in group {before}",
                cluster.role.name(),
                role.name()
            );
            report.error(place, message, "a server has the same role in all its groups");
        }
    }
}

//! Raises `[group.rekey]` to values, and notes what contradicts itself or the rest of the file.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use daemon::configuration::{Report, duration_text};
use gdoi::push::DeliveryPolicy;
use ike::crypto::HashAlgorithm;

use super::file::{File, TransportKind};
use super::{MulticastPath, Rekey, Transport};
use crate::config::{TekTemplate, rekey_timing};

/// What a group's table is checked against.
pub struct Surroundings<'a> {
    /// Name of the group.
    pub group: &'a str,
    /// Where the server listens.
    pub listen: &'a [SocketAddr],
    /// Where signing keys are kept.
    pub state_directory: &'a Path,
    /// Whether weak algorithms are allowed.
    pub legacy: bool,
    pub teks: &'a [TekTemplate],
    /// From the receipt of new keys until sending with them.
    pub activation: Duration,
}

/// Octets of an interface's name (IFNAMSIZ without its end).
const LONGEST_INTERFACE: usize = 15;

/// Raises the table to values; `None` when something is wrong, which is then noted.
pub fn raise(file: &File, surroundings: &Surroundings<'_>, report: &Report) -> Option<Rekey> {
    let Surroundings { group, listen, state_directory, legacy, .. } = *surroundings;
    let transport = transport(file, listen, report);
    let encryption = file.encryption.value;
    let signing_key = file.signing_key;
    let usual = signing_key.hash().unwrap_or(HashAlgorithm::Sha2_256);
    let signature_hash = file.signature_hash.as_ref().map_or(usual, |hash| hash.value);
    if let (Some(fixed), Some(named)) = (signing_key.hash(), &file.signature_hash)
        && fixed != named.value
    {
        let message =
            format!("group.rekey.signature-hash: {} does not go with the key", named.value.name());
        let remedy =
            format!("write \"{}\", which belongs to the curve, or remove it", fixed.name());
        report.error(Some(named.place.clone()), message, remedy);
    }
    let weak_hash = file.signature_hash.as_ref().filter(|hash| hash.value == HashAlgorithm::Sha1);
    let weak_cipher = Some(&file.encryption).filter(|encryption| encryption.value.weak);
    let weak =
        weak_hash.map(|hash| ("signature-hash", "sha1", hash.place.clone())).into_iter().chain(
            weak_cipher
                .map(|encryption| ("encryption", encryption.value.name, encryption.place.clone())),
        );
    for (key, name, place) in weak {
        match legacy {
            false => {
                let remedy = "choose a strong one, or set legacy = true and know why";
                report.error(Some(place), format!("group.rekey.{key}: {name} is weak"), remedy);
            }
            true => {
                let remedy = "change it as soon as every member has something better";
                report.warning(
                    Some(place),
                    format!("group.rekey.{key}: {name} can be broken"),
                    remedy,
                );
            }
        }
    }
    if file.lkh && encryption.key_length == Some(192) {
        let place = Some(file.encryption.place.clone());
        let message = "group.rekey: a key hierarchy cannot have keys of 192 bits, which are no whole cipher blocks";
        report.error(place, message, "choose aes-128-cbc or aes-256-cbc, or lkh = false");
    }
    if file.drop_unresponsive_members && !file.acknowledgements {
        let message =
            "group.rekey: drop-unresponsive-members without acknowledgements would drop everybody";
        report.error(
            file.place.clone(),
            message,
            "set acknowledgements = true, or drop-unresponsive-members = false",
        );
    }
    let signing_key_file = match &file.signing_key_file {
        Some(path) => Some(path.value.clone()),
        None if group.contains('/') || group.starts_with('.') => {
            let message = "group.rekey: the group's name makes no file name for its signing key";
            report.error(
                file.place.clone(),
                message,
                "add signing-key-file = \"/path/to/key.pem\"",
            );
            None
        }
        None => Some(state_directory.join(format!("{group}.pem"))),
    };
    let rekey = Rekey {
        transport: transport?,
        path: multicast_path(file, report),
        encryption,
        signing_key,
        signing_key_file: signing_key_file?,
        signature_hash,
        lifetime: file.lifetime,
        delivery: DeliveryPolicy {
            period: file.period,
            repetitions: file.repetitions,
            ..DeliveryPolicy::default()
        },
        acknowledgements: file.acknowledgements,
        drop_unresponsive_members: file.drop_unresponsive_members,
        lkh: file.lkh,
        legacy,
    };
    warn_of_short_lifetimes(file, &rekey, surroundings, report);
    warn_of_late_copies(file, &rekey, surroundings, report);
    Some(rekey)
}

fn transport(file: &File, listen: &[SocketAddr], report: &Report) -> Option<Transport> {
    if file.transport == TransportKind::Unicast {
        let named = [
            ("address", file.multicast_address.as_ref().map(|named| &named.place)),
            ("source", file.multicast_source.as_ref().map(|named| &named.place)),
            ("interface", file.multicast_interface.as_ref().map(|named| &named.place)),
            ("ttl", file.multicast_ttl.as_ref().map(|named| &named.place)),
        ];
        for (key, place) in named.into_iter().filter_map(|(key, place)| Some((key, place?))) {
            let message = format!("group.rekey.multicast-{key}: the transport is unicast");
            report.error(
                Some(place.clone()),
                message,
                "remove it, or set transport = \"multicast\"",
            );
        }
        return Some(Transport::Unicast);
    }
    let Some(address) = &file.multicast_address else {
        let remedy = "add multicast-address = \"239.192.1.1\"";
        report.error(file.place.clone(), "group.rekey.multicast-address is missing", remedy);
        return None;
    };
    if !address.value.is_multicast() {
        let message =
            format!("group.rekey.multicast-address: {} is no multicast address", address.value);
        report.error(Some(address.place.clone()), message, "write one such as \"239.192.1.1\"");
        return None;
    }
    let port = listen.first().map_or(gdoi::PORT, SocketAddr::port);
    let family = |ip: &IpAddr| ip.is_ipv4() == address.value.is_ipv4() && !ip.is_unspecified();
    let source = match &file.multicast_source {
        Some(source) => {
            let heard = |listen: &SocketAddr| {
                listen.ip() == source.value
                    || listen.ip().is_unspecified() && listen.is_ipv4() == source.value.is_ipv4()
            };
            if !family(&source.value) || source.value.is_multicast() || !listen.iter().any(heard) {
                let message = format!(
                    "group.rekey.multicast-source: pushes cannot leave from {}",
                    source.value
                );
                report.error(
                    Some(source.place.clone()),
                    message,
                    "name one of the addresses of listen",
                );
                return None;
            }
            source.value
        }
        None => {
            let own: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).filter(family).collect();
            let [source] = own.as_slice() else {
                let message =
                    "group.rekey.multicast-source is missing: the server has several addresses";
                report.error(
                    file.place.clone(),
                    message,
                    "add multicast-source = the address that pushes come from",
                );
                return None;
            };
            *source
        }
    };
    let destination = SocketAddr::new(address.value, port);
    Some(Transport::Multicast { source: SocketAddr::new(source, port), destination })
}

fn multicast_path(file: &File, report: &Report) -> MulticastPath {
    let usual = MulticastPath::default();
    if let Some(interface) = &file.multicast_interface {
        let odd = |letter: char| {
            letter == '/' || letter == ':' || letter.is_whitespace() || letter.is_control()
        };
        let name = &interface.value;
        if name.is_empty()
            || name.len() > LONGEST_INTERFACE
            || name.contains(odd)
            || name == "."
            || name == ".."
        {
            let message =
                format!("group.rekey.multicast-interface: no interface can be called \"{name}\"");
            report.error(
                Some(interface.place.clone()),
                message,
                "write a name that `ip link` shows",
            );
        }
    }
    if let Some(ttl) = file.multicast_ttl.as_ref().filter(|ttl| ttl.value == 0) {
        let message = "group.rekey.multicast-ttl: pushes would not leave this host";
        report.error(Some(ttl.place.clone()), message, "write a number from 1 to 255");
    }
    MulticastPath {
        interface: file.multicast_interface.as_ref().map(|interface| interface.value.clone()),
        ttl: file.multicast_ttl.as_ref().map_or(usual.ttl, |ttl| ttl.value),
    }
}

/// Members that hear a push change over so long after they got it: who got the last copy must have
/// it before others send.
fn warn_of_late_copies(
    file: &File,
    rekey: &Rekey,
    surroundings: &Surroundings<'_>,
    report: &Report,
) {
    let repeated = rekey.delivery.period.saturating_mul(rekey.delivery.repetitions);
    if surroundings.activation < repeated {
        let message = format!(
            "group.gap.activation-time-delay: {} is less than the {} in which a push is repeated: who gets a late copy \
             cannot decrypt until then",
            duration_text(surroundings.activation),
            duration_text(repeated),
        );
        let remedy = "make it longer than that, or retransmissions and their period smaller";
        report.warning(file.place.clone(), message, remedy);
    }
}

/// A lifetime must leave time for a push, its repetitions and the pulls of those that it did not
/// reach.
fn warn_of_short_lifetimes(
    file: &File,
    rekey: &Rekey,
    surroundings: &Surroundings<'_>,
    report: &Report,
) {
    let lead = rekey_timing::lead(rekey, surroundings.activation);
    let lifetimes =
        surroundings.teks.iter().map(|tek| ("TEK", tek.lifetime)).chain([("KEK", rekey.lifetime)]);
    for (what, lifetime) in lifetimes {
        if rekey_timing::is_short(lifetime, lead) {
            let message = format!(
                "group.rekey: a {what} with a lifetime of {} has no time for a push, {} and the pulls of members it missed",
                duration_text(lifetime),
                duration_text(lead),
            );
            let remedy = "make the lifetime longer, or retransmissions and their period smaller";
            report.warning(file.place.clone(), message, remedy);
        }
    }
}

//! `[group.rekey]`: how a group's keys are pushed (RFC 6407 §4, RFC 8263).

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::configuration::{Located, Place, Problem, Read, Report, Table, choice, duration_text};
use gdoi::config::HashAlgorithm;
use gdoi::push::DeliveryPolicy;
use toml::de::DeValue;

use super::TekTemplate;
use super::rekey_timing;

/// How a group's keys are pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekey {
    /// Where pushes go.
    pub transport: Transport,
    /// How those leave that go by multicast.
    pub path: MulticastPath,
    /// Cipher of the KEK.
    pub encryption: KekEncryption,
    /// Kind of the signing key that is made when there is none.
    pub signing_key: SigningKeyKind,
    /// Where the signing key is kept: PKCS #8, PEM.
    pub signing_key_file: PathBuf,
    /// Hash of the signatures.
    pub signature_hash: HashAlgorithm,
    /// Life of a new KEK.
    pub lifetime: Duration,
    /// When a push is repeated, and how long its acknowledgements are waited for.
    pub delivery: DeliveryPolicy,
    /// Whether members are asked for acknowledgements (RFC 8263).
    pub acknowledgements: bool,
    /// Whether a member that has acknowledged before and is silent for three pushes is dropped (RFC
    /// 8263 §6).
    pub drop_silent_members: bool,
    /// Whether members get a path through a key hierarchy (RFC 6407 §5.6.3).
    pub lkh: bool,
    /// Whether weak algorithms are allowed.
    pub legacy: bool,
}

/// Where pushes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// To each member, at the address and port it pulled from.
    Unicast,
    /// To all at once.
    Multicast {
        /// Our address and port.
        source: SocketAddr,
        /// The multicast group, and the port.
        destination: SocketAddr,
    },
}

/// How datagrams to a multicast group leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MulticastPath {
    /// By this interface; `None` is the one that has the source address.
    pub interface: Option<String>,
    /// Routers that they may pass, and one.
    pub ttl: u8,
}

impl Default for MulticastPath {
    fn default() -> Self {
        Self { interface: None, ttl: 64 }
    }
}

/// Cipher of a KEK (RFC 6407 §5.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KekEncryption {
    /// Name in the configuration and in `gdoictl`.
    pub name: &'static str,
    /// KEK_ALGORITHM.
    pub algorithm: u16,
    /// KEK_KEY_LENGTH in bits where the cipher has several.
    pub key_length: Option<u16>,
    /// Octets of initialisation vector and key.
    pub octets: usize,
    weak: bool,
}

/// Kind of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKeyKind {
    /// RSA with so many bits.
    Rsa(u16),
    /// ECDSA on the 256-bit curve.
    EcdsaP256,
    /// ECDSA on the 384-bit curve.
    EcdsaP384,
}

const fn cbc(
    name: &'static str,
    algorithm: u16,
    bits: Option<u16>,
    octets: usize,
    weak: bool,
) -> KekEncryption {
    KekEncryption { name, algorithm, key_length: bits, octets, weak }
}

/// All ciphers of a KEK.
pub const KEK_ENCRYPTIONS: [KekEncryption; 5] = [
    cbc("aes-128-cbc", 3, Some(128), 32, false),
    cbc("aes-192-cbc", 3, Some(192), 40, false),
    cbc("aes-256-cbc", 3, Some(256), 48, false),
    cbc("3des-cbc", 2, None, 32, true),
    cbc("des-cbc", 1, None, 16, true),
];

impl Read for KekEncryption {
    const EXAMPLE: &'static str = "\"aes-256-cbc\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, &KEK_ENCRYPTIONS.map(|encryption| (encryption.name, encryption)))
    }
}

impl Read for SigningKeyKind {
    const EXAMPLE: &'static str = "\"rsa-2048\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let choices = [
            ("rsa-2048", Self::Rsa(2048)),
            ("rsa-3072", Self::Rsa(3072)),
            ("rsa-4096", Self::Rsa(4096)),
            ("ecdsa-p256", Self::EcdsaP256),
            ("ecdsa-p384", Self::EcdsaP384),
        ];
        choice(value, &choices)
    }
}

impl SigningKeyKind {
    /// The hash that the key demands (RFC 4754 §3); RSA goes with any.
    fn hash(self) -> Option<HashAlgorithm> {
        match self {
            Self::Rsa(_) => None,
            Self::EcdsaP256 => Some(HashAlgorithm::Sha2_256),
            Self::EcdsaP384 => Some(HashAlgorithm::Sha2_384),
        }
    }
}

/// Name of a signature hash in the configuration and in `gdoictl`.
pub fn hash_name(hash: HashAlgorithm) -> &'static str {
    match hash {
        HashAlgorithm::Md5 => "md5",
        HashAlgorithm::Sha1 => "sha1",
        HashAlgorithm::Sha2_256 => "sha2-256",
        HashAlgorithm::Sha2_384 => "sha2-384",
        HashAlgorithm::Sha2_512 => "sha2-512",
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct SignatureHash(HashAlgorithm);

impl Read for SignatureHash {
    const EXAMPLE: &'static str = "\"sha2-256\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        let hashes = [
            HashAlgorithm::Sha2_256,
            HashAlgorithm::Sha2_384,
            HashAlgorithm::Sha2_512,
            HashAlgorithm::Sha1,
        ];
        choice(value, &hashes.map(|hash| (hash_name(hash), Self(hash))))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TransportKind {
    Unicast,
    Multicast,
}

impl Read for TransportKind {
    const EXAMPLE: &'static str = "\"unicast\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        choice(value, &[("unicast", Self::Unicast), ("multicast", Self::Multicast)])
    }
}

/// `[group.rekey]` as typed.
pub struct File {
    place: Option<Place>,
    transport: TransportKind,
    multicast_address: Option<Located<IpAddr>>,
    multicast_source: Option<Located<IpAddr>>,
    multicast_interface: Option<Located<String>>,
    multicast_ttl: Option<Located<u8>>,
    encryption: Option<Located<KekEncryption>>,
    signing_key: Option<Located<SigningKeyKind>>,
    signing_key_file: Option<PathBuf>,
    signature_hash: Option<Located<SignatureHash>>,
    lifetime: Duration,
    delivery: DeliveryPolicy,
    acknowledgements: bool,
    drop_silent_members: bool,
    lkh: bool,
}

/// Reads the table.
pub fn read(mut table: Table<'_>) -> File {
    let usual = DeliveryPolicy::default();
    let seconds = Duration::from_secs;
    let file = File {
        place: table.place(),
        transport: table.or("transport", TransportKind::Unicast),
        multicast_address: table.optional("multicast-address"),
        multicast_source: table.optional("multicast-source"),
        multicast_interface: table.optional("multicast-interface"),
        multicast_ttl: table.optional("multicast-ttl"),
        encryption: table.optional("encryption"),
        signing_key: table.optional("signing-key"),
        signing_key_file: table.optional("signing-key-file").map(|file| file.value),
        signature_hash: table.optional("signature-hash"),
        lifetime: table.duration("lifetime", seconds(60)..=seconds(30 * 86_400), seconds(86_400)),
        delivery: DeliveryPolicy {
            period: table.duration("retransmission-period", seconds(2)..=seconds(60), usual.period),
            repetitions: table.bounded("retransmissions", 0..=60, usual.repetitions),
            ..usual
        },
        acknowledgements: table.or("acknowledgements", true),
        drop_silent_members: table.or("drop-silent-members", false),
        lkh: table.or("lkh", false),
    };
    table.finish();
    file
}

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
    /// The group's TEKs.
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
    let encryption =
        file.encryption.as_ref().map_or(KEK_ENCRYPTIONS[2], |encryption| encryption.value);
    let signing_key =
        file.signing_key.as_ref().map_or(SigningKeyKind::Rsa(2048), |kind| kind.value);
    let usual = signing_key.hash().unwrap_or(HashAlgorithm::Sha2_256);
    let signature_hash = file.signature_hash.as_ref().map_or(usual, |hash| hash.value.0);
    if let (Some(fixed), Some(named)) = (signing_key.hash(), &file.signature_hash)
        && fixed != named.value.0
    {
        let message = format!(
            "group.rekey.signature-hash: {} does not go with the key",
            hash_name(named.value.0)
        );
        let remedy =
            format!("write \"{}\", which belongs to the curve, or remove it", hash_name(fixed));
        report.error(Some(named.place.clone()), message, remedy);
    }
    let weak_hash = file.signature_hash.as_ref().filter(|hash| hash.value.0 == HashAlgorithm::Sha1);
    let weak_cipher = file.encryption.as_ref().filter(|encryption| encryption.value.weak);
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
        let place = file.encryption.as_ref().map(|encryption| encryption.place.clone());
        let message = "group.rekey: a key hierarchy cannot have keys of 192 bits, which are no whole cipher blocks";
        report.error(place, message, "choose aes-128-cbc or aes-256-cbc, or lkh = false");
    }
    if file.drop_silent_members && !file.acknowledgements {
        let message =
            "group.rekey: drop-silent-members without acknowledgements would drop everybody";
        report.error(
            file.place.clone(),
            message,
            "set acknowledgements = true, or drop-silent-members = false",
        );
    }
    let signing_key_file = match &file.signing_key_file {
        Some(path) => Some(path.clone()),
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
        path: path(file, report),
        encryption,
        signing_key,
        signing_key_file: signing_key_file?,
        signature_hash,
        lifetime: file.lifetime,
        delivery: file.delivery,
        acknowledgements: file.acknowledgements,
        drop_silent_members: file.drop_silent_members,
        lkh: file.lkh,
        legacy,
    };
    warn_of_short_lives(file, &rekey, surroundings, report);
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
    let port = listen.first().map_or(848, SocketAddr::port);
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

fn path(file: &File, report: &Report) -> MulticastPath {
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

/// A life must leave time for a push, its repetitions and the pulls of those that it did not reach.
fn warn_of_short_lives(
    file: &File,
    rekey: &Rekey,
    surroundings: &Surroundings<'_>,
    report: &Report,
) {
    let lead = rekey_timing::lead(rekey, surroundings.activation);
    let lives =
        surroundings.teks.iter().map(|tek| ("TEK", tek.lifetime)).chain([("KEK", rekey.lifetime)]);
    for (what, lifetime) in lives {
        if rekey_timing::is_short(lifetime, lead) {
            let message = format!(
                "group.rekey: a {what} that lives {} has no time for a push, {} and the pulls of members it missed",
                duration_text(lifetime),
                duration_text(lead),
            );
            let remedy = "make the life longer, or retransmissions and their period smaller";
            report.warning(file.place.clone(), message, remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use gdoi::wire::{kek_octets, registry::KekAlgorithm};

    use super::*;

    #[test]
    fn keys_are_as_long_as_the_wire_demands() {
        for encryption in KEK_ENCRYPTIONS {
            let octets = kek_octets(KekAlgorithm(encryption.algorithm), encryption.key_length);
            assert_eq!(octets, Some(encryption.octets), "{}", encryption.name);
        }
    }
}

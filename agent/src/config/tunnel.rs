//! Site-to-site tunnels: what is typed, and the values that the daemon acts on.

use std::net::IpAddr;
use std::time::Duration;

use daemon::configuration::{
    Located, Names, Place, Problem, Read, choice, is_named, key_source, list_or, one_of, optional,
    optional_list, optional_one_of, place, required, value,
};
use daemon::options;
use daemon::secrets::SecretSource;
use ike::config::{Credential, Identity, Phase1Mode, Phase1Policy};
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};
use ike::dead_peer_detection::{Mode as DetectionMode, Settings};
use ike::phase1::NatTraversal;
use ike::quick::{
    ChildPolicy, EspAlgorithms, EspEncryption, EspIntegrity, Mode, Selectors, TrafficSelector,
};
use ipnet::IpNet;
use toml::de::DeValue;

/// Tunnels of one machine.
pub const MOST_TUNNELS: usize = 256;
/// Pairs of networks of one tunnel; each has SAs of its own.
pub const MOST_PAIRS: usize = 64;

/// A gateway: the IKE policy that its tunnels share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    pub name: String,
    pub profile: Option<Profile>,
    pub phase1: Phase1Policy,
}

/// A gateway as it is configured: a change of what is beside the IKE policy touches no SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    pub gateway: Gateway,
    /// What its tunnels carry together at most, in each direction, in Mbit/s.
    pub bandwidth_mbit: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub name: String,
    pub gateway: Gateway,
    pub local: IpAddr,
    pub peer: IpAddr,
    /// `None` is the local address, or what the certificate names.
    pub identity: Option<Identity>,
    pub peer_identity: Identity,
    pub local_networks: Vec<IpNet>,
    pub remote_networks: Vec<IpNet>,
    /// Which of their traffic it carries.
    pub traffic: Traffic,
    pub credential: Credential,
    /// What Quick Mode may negotiate.
    pub policy: ChildPolicy,
    pub start: Start,
    /// Packets by which one may be late.
    pub replay_window: u32,
    pub nat: NatTraversal,
    pub mode: Phase1Mode,
    /// Whether other tunnels may have their peer at the same address.
    pub shares_address: bool,
    pub dead_peer_detection: Settings,
    /// Priority of its policies in the kernel.
    pub priority: u32,
}

/// The traffic of a tunnel, beside its networks. 0 stands for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Traffic {
    pub protocol: u8,
    pub local_port: u16,
    pub remote_port: u16,
}

/// When SAs are negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// At once, and again whenever they are gone.
    #[default]
    Now,
    /// When a packet wants to leave by it.
    Traffic,
    /// Only the peer begins.
    Answer,
}

/// What a cloud's gateway takes: it fills in what is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Aws,
    Google,
    Oracle,
    AzurePolicy,
    Alibaba,
    Naver,
}

/// Perfect forward secrecy as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pfs(pub Option<DhGroup>);

const PROFILE: Names<Profile> = &[
    ("aws", Profile::Aws),
    ("google", Profile::Google),
    ("oracle", Profile::Oracle),
    ("azure-policy", Profile::AzurePolicy),
    ("alibaba", Profile::Alibaba),
    ("naver", Profile::Naver),
];

const START: Names<Start> =
    &[("now", Start::Now), ("traffic", Start::Traffic), ("answer", Start::Answer)];

const NAT_TRAVERSAL: Names<NatTraversal> = &[
    ("detect", NatTraversal::Detect),
    ("always", NatTraversal::Always),
    ("off", NatTraversal::Off),
];

pub(super) const DEAD_PEER_DETECTION: Names<DetectionMode> = &[
    ("on", DetectionMode::On),
    ("answer", DetectionMode::AnswerOnly),
    ("off", DetectionMode::Off),
];

const MODE: Names<Mode> = &[("tunnel", Mode::Tunnel), ("transport", Mode::Transport)];

const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(86_400);

options! {
    /// A gateway: the IKE policy that its tunnels share.
    pub struct GatewayTable {
        pub place: Option<Place> = place();
        /// The name that tunnels refer to.
        pub name: Option<Located<String>> = required("name").set("\"cloud\"");
        /// Whose gateway is at the other end: fills in what that gateway takes, for phase 1 and for
        /// the tunnels, where nothing else is written. Google, Alibaba and policy-based gateways of
        /// Azure take Diffie-Hellman group 2 only: their tunnels need `legacy = true`.
        pub profile: Option<Located<Profile>> = optional_one_of("profile", PROFILE)
            .example("\"aws\"");
        /// Encryption of phase 1, in order of preference; with `legacy = true` in its tunnels also
        /// 3des-cbc and des-cbc.
        pub encryption: Vec<Located<Phase1Encryption>> =
            list_or("encryption", [Phase1Encryption::Aes256Cbc, Phase1Encryption::Aes128Cbc]);
        /// Hash and pseudo-random function of phase 1, in order of preference.
        pub hash: Vec<Located<HashAlgorithm>> = list_or("hash", [HashAlgorithm::Sha2_256]);
        /// Diffie-Hellman group of phase 1, in order of preference: 14, 15, 16, 19, 20; with
        /// `legacy = true` in its tunnels also 1, 2, 5 and 24.
        pub dh_group: Vec<Located<DhGroup>> = list_or("dh-group", [DhGroup::Modp2048]);
        /// Lifetime of an ISAKMP SA. The shorter one of both sides counts.
        pub lifetime: Option<Located<Duration>> = optional("lifetime")
            .within(SHORTEST..=LONGEST).usual(&Duration::from_secs(28_800));
        /// Megabits a second that all tunnels of this gateway carry together, in each direction: 10,
        /// 20, 30 or any other figure. IP packets with their ESP count. What is over it is dropped,
        /// with a burst of one second: nf_tables polices, and queueing disciplines of interfaces are
        /// left as they are. A change touches no SA. Without it there is no limit.
        pub bandwidth_mbit: Option<Located<u32>> = optional("bandwidth-mbit")
            .within(1..=400_000).example("10");
    }

    /// A tunnel: the networks of two sites, joined by ESP between two addresses.
    pub struct TunnelTable {
        pub place: Option<Place> = place();
        /// Name in logs and in `gdoictl show tunnel`.
        pub name: Option<Located<String>> = required("name").set("\"cloud-1\"");
        /// The [[gateway]] whose IKE policy it uses.
        pub gateway: Option<Located<String>> = required("gateway").set("\"cloud\"");
        /// The address of this machine that the tunnel ends at.
        pub local: Option<Located<IpAddr>> = required("local-address").set("\"198.51.100.1\"");
        /// The address of the other end; behind address translation, that of the translation. With
        /// certificates or aggressive mode several tunnels may have the same, told apart by
        /// `peer-identity`, and "0.0.0.0" is a peer that may be anywhere: it has to begin
        /// (`start = "answer"`).
        pub peer: Option<Located<IpAddr>> = required("peer").set("\"203.0.113.1\"");
        /// Networks on this side. Each pair of a local and a remote network has SAs of its own.
        pub local_networks: Vec<Located<IpNet>> = optional_list("local-networks").set("[\"172.16.1.0/24\"]");
        /// Networks on the other side. They overlap neither with those of this side nor with those
        /// of another tunnel.
        pub remote_networks: Vec<Located<IpNet>> =
            optional_list("remote-networks").set("[\"192.168.0.0/24\"]");
        /// What ESP carries: "tunnel", whole packets between the networks of both sides; or
        /// "transport", what follows the IP header, between the two ends alone: then the networks
        /// are left out.
        pub mode: Mode = one_of("mode", Mode::Tunnel, MODE);
        /// Only this IP protocol: 6 for TCP, 17 for UDP, 47 for GRE. Other traffic between the
        /// networks passes in clear. Without it, everything.
        pub protocol: Option<Located<u8>> = optional("protocol").within(1..=255).example("6");
        /// Only this port on our side, with a protocol that has ports. Fragments of packets show
        /// none: those of this protocol between the networks are dropped.
        pub local_port: Option<Located<u16>> = optional("local-port").within(1..=u16::MAX)
            .example("179");
        /// Only this port on the other side.
        pub remote_port: Option<Located<u16>> = optional("remote-port").within(1..=u16::MAX)
            .example("179");
        /// The identity that we prove. Without it, the local address, or the certificate's subject
        /// if that does not name the address.
        pub identity: Option<Located<Identity>> = optional("identity")
            .example("{ address = \"198.51.100.1\" }");
        /// The identity that the peer must prove. Without it, its address. With certificates "*"
        /// stands for any characters in a name, or in a value of a distinguished name.
        pub peer_identity: Option<Located<Identity>> = optional("peer-identity")
            .example("{ address = \"203.0.113.1\" }");
        /// The key shared with the peer: a file that only its owner may read, whose content up to a
        /// final newline is the key.
        pub pre_shared_key: Option<Located<SecretSource>> =
            key_source("pre-shared-key-file", "pre-shared-key-credential")
                .set("\"/etc/gdoi-agent/cloud-1.psk\"");
        /// Whether a key was named, right or wrong.
        pub names_key: bool = is_named(&["pre-shared-key-file", "pre-shared-key-credential"]);
        /// The [[certificate]] that takes the place of the key.
        pub certificate: Option<Located<String>> = optional("certificate").example("\"site\"");
        /// ESP proposals in order of preference.
        pub esp: Vec<Located<EspAlgorithms>> = list_or("esp", [
            EspAlgorithms::combined(EspEncryption::Aes256Gcm),
            EspAlgorithms::separate(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha2_256),
        ]);
        /// Perfect forward secrecy: the Diffie-Hellman group of the keys of each SA, or "off". With
        /// `legacy = true` also groups 1, 2, 5 and 24.
        pub pfs: Option<Located<Pfs>> = optional("pfs").usual(&Pfs(Some(DhGroup::Modp2048)));
        /// Lifetime of an SA. The shorter one of both sides counts; new SAs take over before it is
        /// over.
        pub lifetime: Option<Located<Duration>> = optional("lifetime")
            .within(SHORTEST..=LONGEST).usual(&DEFAULT_LIFETIME);
        /// Kilobytes that an SA carries at most; the smaller figure of both sides counts. Without
        /// it, any number.
        pub kilobytes: Option<Located<u32>> = optional("lifetime-kilobytes")
            .within(1024..=u32::MAX).example("4194304");
        /// When SAs are negotiated: "now", and again whenever there are none; "traffic", when a packet
        /// wants to leave, which is dropped; or "answer", only when the peer asks.
        pub start: Start = one_of("start", Start::Now, START);
        /// Aggressive mode (RFC 2409) in the place of main mode, for peers that take nothing else, and
        /// for pre-shared keys of peers without a fixed address. Identities travel in clear. With a
        /// pre-shared key anybody who asks gets a hash to try keys against: have a long random one.
        pub aggressive: bool = value("aggressive-mode", false);
        /// Address translation between the ends (RFC 3947): "detect" looks for it and puts ESP into
        /// UDP port 4500 if there is some; "always" does so without any, where ESP itself does not
        /// pass; "off" says nothing about it. Both ends need it, and transport mode does not pass.
        pub nat: NatTraversal = one_of("nat-traversal", NatTraversal::Detect, NAT_TRAVERSAL);
        /// Dead peer detection (RFC 3706): "on" asks the peer when nothing came for an interval, and
        /// gives its SAs up after five questions without an answer; "answer" answers alone (one-way);
        /// "off" does neither.
        pub dead_peer_detection: Option<Located<DetectionMode>> =
            optional_one_of("dead-peer-detection", DEAD_PEER_DETECTION).usual(&DetectionMode::On);
        /// How long nothing may come from the peer before it is asked, and how long each question
        /// waits for its answer.
        pub dead_peer_interval: Duration = value("dead-peer-interval", Duration::from_secs(10))
            .within(Duration::from_secs(1)..=Duration::from_secs(3600));
        /// Packets by which one may be late before it counts as a replay (RFC 4303 §3.4.3).
        pub replay_window: u32 = value("replay-window", 1024).within(32..=4096);
        /// Offer and take sequence numbers of 64 bits (RFC 4304): for lines on which an SA carries
        /// more than four thousand million packets.
        pub extended_sequence_numbers: bool = value("extended-sequence-numbers", false);
        /// Allow what is weak: 3DES, MD5 and Diffie-Hellman groups 1, 2, 5, 24, in ESP and in the
        /// gateway's policy.
        pub legacy: bool = value("legacy", false);
    }
}

impl Read for Pfs {
    const EXAMPLE: &'static str = "14";
    const TYPE: &'static str = "\"off\" or number";

    fn read(value: &DeValue<'_>) -> Result<Self, Problem> {
        match value {
            DeValue::String(_) => choice(value, &[("off", Self(None))]),
            _ => DhGroup::read(value).map(|group| Self(Some(group))),
        }
    }

    fn toml(&self) -> String {
        self.0.map_or_else(|| String::from("\"off\""), |group| group.toml())
    }
}

/// What a profile fills in.
pub struct Filled {
    pub encryption: &'static [Phase1Encryption],
    pub hash: &'static [HashAlgorithm],
    pub dh_group: &'static [DhGroup],
    pub lifetime: Duration,
    pub esp: &'static [EspAlgorithms],
    pub pfs: Option<DhGroup>,
    pub esp_lifetime: Duration,
    pub kilobytes: Option<u32>,
    pub dead_peer_detection: DetectionMode,
}

const HOUR: Duration = Duration::from_secs(3600);

/// What most gateways take.
const COMMON: Filled = Filled {
    encryption: &[Phase1Encryption::Aes256Cbc],
    hash: &[HashAlgorithm::Sha1],
    dh_group: &[DhGroup::Modp2048],
    lifetime: Duration::from_secs(8 * 3600),
    esp: &[AES_256_GCM, AES_256_SHA256],
    pfs: Some(DhGroup::Modp2048),
    esp_lifetime: HOUR,
    kilobytes: None,
    dead_peer_detection: DetectionMode::On,
};

const fn cbc(encryption: EspEncryption, integrity: EspIntegrity) -> EspAlgorithms {
    EspAlgorithms::separate(encryption, integrity)
}

const AES_128_SHA1: EspAlgorithms = cbc(EspEncryption::Aes128Cbc, EspIntegrity::HmacSha1);
const AES_256_SHA1: EspAlgorithms = cbc(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha1);
const AES_256_SHA256: EspAlgorithms = cbc(EspEncryption::Aes256Cbc, EspIntegrity::HmacSha2_256);
const AES_256_GCM: EspAlgorithms = EspAlgorithms::combined(EspEncryption::Aes256Gcm);

impl Profile {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        PROFILE.iter().find(|(_, profile)| *profile == self).map_or("", |(name, _)| name)
    }

    /// What the gateway takes, the strongest of it first.
    pub fn filled(self) -> Filled {
        match self {
            Self::Aws => Filled {
                encryption: &[Phase1Encryption::Aes256Cbc, Phase1Encryption::Aes128Cbc],
                hash: &[HashAlgorithm::Sha2_256],
                dh_group: &[DhGroup::Modp2048],
                esp: &[AES_256_GCM, AES_256_SHA256],
                pfs: Some(DhGroup::Modp2048),
                ..COMMON
            },
            Self::Google => Filled {
                encryption: &[Phase1Encryption::Aes128Cbc],
                hash: &[HashAlgorithm::Sha1],
                dh_group: &[DhGroup::Modp1024],
                lifetime: Duration::from_secs(36_600),
                esp: &[AES_128_SHA1],
                pfs: Some(DhGroup::Modp1024),
                esp_lifetime: HOUR * 3,
                ..COMMON
            },
            Self::Oracle => Filled {
                encryption: &[Phase1Encryption::Aes256Cbc],
                hash: &[HashAlgorithm::Sha2_384, HashAlgorithm::Sha2_256],
                dh_group: &[DhGroup::Ecp384, DhGroup::Modp2048],
                esp: &[AES_256_GCM, AES_256_SHA256],
                pfs: Some(DhGroup::Modp2048),
                ..COMMON
            },
            Self::AzurePolicy => Filled {
                encryption: &[Phase1Encryption::Aes256Cbc, Phase1Encryption::Aes128Cbc],
                hash: &[HashAlgorithm::Sha1],
                dh_group: &[DhGroup::Modp1024],
                esp: &[AES_256_SHA1, AES_128_SHA1],
                pfs: None,
                kilobytes: Some(102_400_000),
                // Its policy-based gateways do not support it.
                dead_peer_detection: DetectionMode::AnswerOnly,
                ..COMMON
            },
            Self::Alibaba => Filled {
                encryption: &[Phase1Encryption::Aes128Cbc],
                hash: &[HashAlgorithm::Sha1],
                dh_group: &[DhGroup::Modp1024],
                lifetime: HOUR * 24,
                esp: &[AES_128_SHA1],
                pfs: Some(DhGroup::Modp1024),
                esp_lifetime: HOUR * 24,
                ..COMMON
            },
            Self::Naver => Filled {
                encryption: &[Phase1Encryption::Aes256Cbc],
                hash: &[HashAlgorithm::Sha1],
                dh_group: &[DhGroup::Modp1536],
                lifetime: HOUR * 24,
                esp: &[AES_256_SHA1],
                pfs: Some(DhGroup::Modp1536),
                ..COMMON
            },
        }
    }
}

impl GatewayConfig {
    /// The bandwidth in octets.
    pub fn octets_per_second(&self) -> Option<u64> {
        self.bandwidth_mbit.map(|mbit| u64::from(mbit) * 125_000)
    }
}

impl Tunnel {
    /// Whether nothing but the credential is another one.
    pub fn differs_by_credential(&self, other: &Self) -> bool {
        let same = Self { credential: other.credential.clone(), ..self.clone() };
        same == *other
    }

    /// Whether main mode, which shows the identity of a peer only at its end, admits the peers of
    /// this tunnel in the same way as those of `other`: at the same ends, by the same certificate
    /// and authorities, and with the same IKE policy.
    pub fn admits_like(&self, other: &Self) -> bool {
        let ends = |one: &Self| (one.local, one.peer);
        let decides = |one: &Self| one.shares_address && one.mode == Phase1Mode::Main;
        decides(self)
            && decides(other)
            && ends(self) == ends(other)
            && self.credential == other.credential
            && self.gateway == other.gateway
    }

    /// What each pair of SAs carries, in the order of the file.
    pub fn selectors(&self) -> impl Iterator<Item = Selectors> + '_ {
        let Traffic { protocol, local_port, remote_port } = self.traffic;
        let selector =
            move |net, port| TrafficSelector { protocol, port, ..TrafficSelector::net(net) };
        self.pairs().map(move |(local, remote)| Selectors {
            local: selector(local, local_port),
            remote: selector(remote, remote_port),
        })
    }

    /// Pairs of a local and a remote network, in the order of the file.
    pub fn pairs(&self) -> impl Iterator<Item = (IpNet, IpNet)> + '_ {
        let remote = &self.remote_networks;
        self.local_networks
            .iter()
            .flat_map(move |ours| remote.iter().map(|theirs| (*ours, *theirs)))
    }
}

//! What `gdoi-agent` shows. Units are in the names; identities and algorithms are text in the
//! configuration's names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A member daemon as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSnapshot {
    /// Version of the program.
    pub program_version: String,
    /// How long the daemon runs.
    pub uptime_seconds: u64,
    /// The groups in the order of the configuration.
    pub groups: Vec<MemberGroup>,
    /// Datagrams discarded that belong to no group, by reason.
    pub discards: BTreeMap<String, u64>,
    /// What is wrong with the machine, each with its remedy.
    pub problems: Vec<String>,
    /// Clear packets between group prefixes that the guards dropped.
    pub guard_drops: Traffic,
    /// How often foreign changes of the kernel's tables were repaired.
    pub repairs: u64,
}

/// A group as its member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberGroup {
    /// Name in the configuration.
    pub name: String,
    /// Group identifier that is asked for.
    pub id: u32,
    /// Whether it registers, has keys or waits.
    pub state: MembershipState,
    /// Whether its traffic passes in clear, instead of being blocked, while there is no valid key.
    #[serde(default)]
    pub open_without_key: bool,
    /// LOCAL: our address at this moment.
    pub local: Option<IpAddr>,
    /// The key server whose keys are in use.
    pub server: Option<SocketAddr>,
    /// The key server that is being tried.
    pub trying: Option<SocketAddr>,
    /// The configured key servers in order.
    pub servers: Vec<SocketAddr>,
    /// Servers passed over on the way to the current state.
    pub passed_over: Vec<PassedOver>,
    /// The latest failures, oldest first.
    pub history: Vec<PassedOver>,
    /// Until the next registration or round of attempts.
    pub next_registration_seconds: Option<u64>,
    /// ISAKMP SAs, the newest first.
    pub isakmp_sas: Vec<IsakmpSa>,
    /// The rekey SA, if the key server pushes.
    pub kek: Option<KekSa>,
    /// TEKs, those that send first.
    pub teks: Vec<Tek>,
    /// Policies in the order in which they apply.
    pub policies: Vec<PolicyLine>,
    /// Registrations and rekeys since the daemon started.
    pub counters: MemberCounters,
    /// Datagrams discarded, by reason.
    pub discards: BTreeMap<String, u64>,
    /// Pushes discarded, by reason.
    pub push_discards: BTreeMap<String, u64>,
}

/// Where a group stands. Without a key its traffic is blocked, or passes in clear where the group
/// is open then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MembershipState {
    /// Nothing can be tried, for example without a local address. There is no key.
    #[default]
    Suspended,
    /// No key yet, a server is being tried.
    Registering,
    /// No key yet, and all servers were passed over; the next round comes later.
    Waiting,
    /// Keys are valid and traffic is sent.
    Registered,
    /// Keys are valid, and none may be sent on: the problems say why.
    CannotSend,
    /// Keys are valid and a registration for new ones is running.
    ReRegistering,
    /// The keys have ended.
    Expired,
}

/// A key server that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The key server's address and port.
    pub server: SocketAddr,
    /// When the attempt ended.
    pub seconds_ago: u64,
    /// Why, as a stable name.
    pub reason: String,
    /// Why, as one line.
    pub detail: String,
}

/// The ISAKMP SA with a key server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsakmpSa {
    /// Whether main mode has ended.
    pub state: IsakmpState,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// The cookie of its initiator, 16 hexadecimal digits.
    pub initiator_cookie: String,
    /// 16 hexadecimal digits; zeros until the peer has answered.
    pub responder_cookie: String,
    /// Exchange of phase 1; always `main` here.
    pub exchange_mode: String,
    /// Which role we have in it.
    pub role: Role,
    /// How the peers prove their identities, for example `pre-shared-key`.
    pub authentication: String,
    /// The identity that the peer proved.
    pub peer_identity: Option<String>,
    /// Algorithms agreed in phase 1; absent before message 2.
    pub transform: Option<Transform>,
    /// Seconds until the end of its lifetime.
    pub lifetime_left_seconds: Option<u64>,
}

/// Where an ISAKMP SA stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsakmpState {
    /// Main mode is under way.
    Negotiating,
    /// Phase 1 ended, and exchanges may begin.
    Up,
}

/// Role in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are the RFC's")]
pub enum Role {
    Initiator,
    Responder,
}

/// A phase-1 transform by the configuration's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transform {
    /// Encryption of ISAKMP messages, for example `aes-256-cbc`.
    pub encryption: String,
    /// Hash of phase 1, for example `sha2-256`.
    pub hash: String,
    /// Number of the Diffie-Hellman group, for example 19.
    pub dh_group: u16,
}

/// A rekey SA: what the key server's pushes come under.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KekSa {
    /// 32 hexadecimal digits: the cookie pair of the pushes.
    pub spi: String,
    /// Encryption of the pushes, for example `aes-256-cbc`.
    pub encryption: String,
    /// For example `rsa with sha2-256`.
    pub signature: String,
    /// Where pushes go to: an address, of a multicast group where it is one.
    pub destination: Option<IpAddr>,
    /// The acknowledgement requested, such as `kek-sha2-256`.
    pub acknowledgement: Option<String>,
    /// Seconds until the end of its lifetime.
    pub lifetime_left_seconds: u64,
    /// Number of the last push accepted under it.
    pub sequence_number: u32,
    /// What the key server's RSA signatures cover: `digest-info` or `raw-digest`, once a push has
    /// shown it.
    pub signature_form: Option<String>,
    /// Which length its signatures cover: `padded` or `unpadded`, once a push has shown it.
    pub signed_length: Option<String>,
}

/// A data SA of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tek {
    /// SPI in host order.
    pub spi: u32,
    /// ESP encryption, for example `aes-256-cbc`.
    pub encryption: String,
    /// For example `hmac-sha2-256-128`; absent for combined-mode algorithms.
    pub integrity: Option<String>,
    /// Encapsulation, for example `tunnel, addresses preserved`.
    pub mode: String,
    /// The SA direction attribute: `symmetric`, `sender-only` or `receiver-only`.
    pub direction: String,
    /// Whether packets are sent with it now.
    pub sends: bool,
    /// Whether packets are received with it now.
    pub receives: bool,
    /// Seconds until the end of its lifetime.
    pub hard_lifetime_left_seconds: u64,
    /// Lifetime in kilobytes, if limited. Shown only; the kernel does not enforce it.
    pub lifetime_kilobytes: Option<u64>,
    /// What was received and decrypted.
    pub inbound: Traffic,
    /// What was encrypted and sent.
    pub outbound: Traffic,
}

/// How much traffic an SA carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets since the SA was installed.
    pub packets: u64,
    /// Octets of these packets, as the kernel counts them.
    pub octets: u64,
}

/// What happens to some traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLine {
    /// Whether it is encrypted, passes or is dropped.
    pub kind: PolicyKind,
    /// Source: prefix, address, range or `any`.
    pub source: String,
    /// Destination: prefix, address, range or `any`.
    pub destination: String,
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// Source port, 0 for any.
    pub source_port: u16,
    /// Destination port, 0 for any.
    pub destination_port: u16,
    /// The TEK of a secure line.
    pub spi: Option<u32>,
    /// Where the line comes from, for people.
    pub note: String,
}

/// What happens to some traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// Encrypted with the group's key.
    Secure,
    /// Passes in clear because the configuration says so.
    Exclude,
    /// Passes in clear because it stays inside, or goes to a key server.
    Local,
    /// Passes in clear while there is no valid key.
    FailOpen,
    /// Dropped while there is no valid key.
    FailClose,
}

/// What has happened to a group since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCounters {
    /// Registrations that were begun, with any server.
    pub attempts: u64,
    /// Pulls that brought keys.
    pub pulls_succeeded: u64,
    /// Pulls that were refused or broken.
    pub pulls_failed: u64,
    /// Attempts without an answer.
    pub pulls_timed_out: u64,
    /// Attempts broken off by us, for example because the address changed.
    pub pulls_aborted: u64,
    /// How often another server than the one before served.
    pub failovers: u64,
    /// How often all keys ended before new ones came.
    pub expirations: u64,
    /// Pushes that were carried out.
    pub pushes_accepted: u64,
    /// Authentic pushes that could not be used.
    pub pushes_unusable: u64,
    /// From the receipt of the latest push until the kernel had acknowledged all that it said,
    /// microseconds; that it holds it is then read back. 0: there was none.
    #[serde(default)]
    pub push_to_kernel_microseconds: u64,
    /// The longest of these times.
    #[serde(default)]
    pub push_to_kernel_longest_microseconds: u64,
    /// Acknowledgements sent, repetitions included.
    pub acknowledgements_sent: u64,
}

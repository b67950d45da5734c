//! First step: every option, declared once, and the file as it was typed. Nothing is decided here.
//!
//! A declaration is the reader, the check, the text of the example file and of the manual page.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use daemon::configuration::{
    Applies, CertificateTable, Document, Ike, Located, Names, Outline, Place, Problem, Read,
    Section as _, Selector, choice, example, is_named, key_source, list, manual, name_of, one_of,
    optional, parsed, place, required, table, tables, value,
};
use daemon::options;
use daemon::secrets::SecretSource;
use gdoi::config::ByteOrder;
use gdoi::push::AcknowledgementLength;
use ike::config::{Identity, RetransmissionPolicy};
use ipnet::IpNet;
use policies::precedence::{BASE, HIGHEST_BASE};
use policies::{FailurePolicy, Mode};
use toml::de::DeValue;
use xfrm::nft::{DontFragment, SegmentSize};

use super::tunnel::{GatewayTable, TunnelTable};
use super::{CONTROL_SOCKET, GDOI_PORT, JITTER, LONGEST_JITTER, OnExit};

/// IFNAMSIZ less the terminating zero.
const LONGEST_INTERFACE_NAME: usize = 15;

const INTERFACE: &str = "\"eth0\"";

/// The example file and the manual page.
pub const DOCUMENT: Document = Document {
    file: "gdoi-agent.toml",
    program: "gdoi-agent",
    subject: "a GDOI group member (RFC 6407)",
    about: &[],
};

/// What people are told about every option.
pub fn outline() -> Outline {
    File::outline()
}

/// What `cargo xtask man` writes: path in the workspace and content.
pub fn documents() -> [(&'static str, String); 2] {
    let outline = outline();
    [
        ("agent/gdoi-agent.example.toml", example(&DOCUMENT, &outline)),
        ("man/gdoi-agent.toml.5", manual(&DOCUMENT, &outline, env!("CARGO_PKG_VERSION"))),
    ]
}

options! {
    pub struct File {
        /// The Unix socket on which gdoictl reaches the daemon.
        pub control_socket: PathBuf = value("control-socket", PathBuf::from(CONTROL_SOCKET))
            .applies(Applies::Restart);
        /// Directory of the state file: policy, expiry times and push sequence numbers, but no
        /// keys. After a crash it lets the next run continue with the keys that are still in the
        /// kernel. Without this option the file lies beside the control socket, under its name with
        /// the suffix ".state". A directory that survives a reboot also prevents sending on
        /// counter-mode TEKs again after one.
        pub state_directory: Option<Located<PathBuf>> = optional("state-directory")
            .example("\"/var/lib/gdoi-agent\"").applies(Applies::Restart);
        /// Whether keys are kept, sealed, in a second file in the state directory, so that a machine
        /// that boots while no key server answers continues with the keys that have not expired.
        /// How much lifetime is left is taken from the wall clock; while it shows a time before the
        /// file was written, the keys wait. Counter-mode TEKs are then received on and not sent on.
        /// Without state-directory no key survives a reboot.
        pub keep_keys: bool = value("keep-keys", true).applies(Applies::Restart);
        /// An AES key of 16 or 32 octets (`openssl rand -out FILE 32`) that seals the keys. Needs
        /// state-directory. Without it the agent makes one, state.key in the state directory, which
        /// protects copies of the sealed file alone: who can read both files can read the keys.
        pub state_key: Option<Located<SecretSource>> =
            key_source("state-key-file", "state-key-credential")
                .example("\"/etc/gdoi-agent/state.key\"").applies(Applies::Restart);
        /// Local UDP port of registrations. Some key servers accept 848 only.
        pub local_port: u16 = value("local-port", GDOI_PORT)
            .within(1..=u16::MAX).applies(Applies::Restart);
        /// The lowest priority number of the agent's XFRM policies, which use the million numbers
        /// from there. Policies with lower numbers take precedence. The default is above the
        /// numbers that strongSwan and libreswan compute, so that their tunnels keep their own
        /// traffic.
        pub policy_priority: u32 = value("policy-priority", BASE).within(1..=HIGHEST_BASE);
        /// Certificates for key servers and tunnels, in the place of pre-shared keys.
        pub certificates: Vec<CertificateTable> = tables("certificate");
        /// One table for each group, at most 64. Their order determines each group's reqids and
        /// placeholder address: append new groups at the end.
        pub groups: Vec<Group> = tables("group");
        /// One table for each IKE policy that tunnels share.
        pub gateways: Vec<GatewayTable> =
            tables("gateway").only_shown().showing(&[("name", "\"cloud\"")]);
        /// One table for each site-to-site tunnel (IKEv1 and ESP between two gateways). A machine
        /// may have groups, tunnels or both.
        pub tunnels: Vec<TunnelTable> = tables("tunnel").only_shown().showing(&[
            ("name", "\"cloud-1\""),
            ("gateway", "\"cloud\""),
            ("local-address", "\"198.51.100.1\""),
            ("peer", "\"203.0.113.1\""),
            ("local-networks", "[\"172.16.1.0/24\"]"),
            ("remote-networks", "[\"192.168.0.0/24\"]"),
            ("pre-shared-key-file", "\"/etc/gdoi-agent/cloud-1.psk\""),
        ]);
    }

    /// One group membership: its key servers and the traffic it protects.
    pub struct Group {
        pub place: Option<Place> = place();
        /// Name in logs and in `gdoictl show member`.
        pub name: Option<Located<String>> = required("name").set("\"branches\"");
        /// Group identifier, a 32-bit number, the same as on the key server.
        pub id: Option<Located<u32>> = required("id").set("1111").applies(Applies::NewRegistration);
        /// Local address of registrations and tunnel endpoint of received ESP: an IPv4 address of
        /// this machine, or the name of an interface, whose first IPv4 address is then tracked
        /// (DHCP, PPPoE). Without an address the group's traffic stays blocked.
        pub local: Option<Located<String>> = required("local-address").set("\"10.0.1.1\"")
            .applies(Applies::NewRegistration);
        /// Interfaces of the protected hosts. They may appear later. An interface
        /// is either LAN or WAN, in all groups alike. A name may be a pattern: "br-*" matches all
        /// existing interfaces with that prefix. The list is empty on a machine that protects only
        /// itself.
        ///
        /// Interfaces alone separate inside from outside, like a crypto map on the WAN interface: a
        /// packet routed to a LAN leaves in clear, even to networks behind it (an L3 switch, a
        /// backup router) that lie in the protected prefixes. The agent sets
        /// net.ipv4.conf.NAME.disable_policy of its LANs to 1, and back to what it was when the
        /// group or its policies are removed.
        pub lan: Vec<Located<String>> = list("lan")
            .parsed_by("interface", INTERFACE, interface)
            .may_be_empty()
            .set("[\"lan\"]");
        /// Interfaces of the wide area network.
        pub wan: Vec<Located<String>> =
            list("wan").parsed_by("interface", INTERFACE, interface).set("[\"wan\", \"wan2\"]");
        /// Prefixes between which nothing ever passes in clear: without a valid key their traffic
        /// is blocked, from the start of the daemon until after its exit. Traffic from these
        /// prefixes to other destinations is not affected.
        ///
        /// An interface inside them that is neither lan nor wan is cut off: docker0 with its
        /// default 172.17.0.1/16, for example. IPv6 prefixes are always blocked. Multicast from a
        /// protected host to the WAN leaves in clear unless 224.0.0.0/4 is listed, too.
        pub protected: Vec<Located<IpNet>> = list("protected").set("[\"172.16.0.0/12\"]");
        /// What remains in the kernel after a regular exit: "block" removes the keys and leaves the
        /// block policies, "keep" leaves everything as it is (the kernel removes each key soon
        /// after its lifetime), "remove" removes everything, so that the traffic passes in clear.
        pub on_exit: OnExit = one_of("on-exit", OnExit::Block, ON_EXIT);
        /// What happens to the group's traffic without a valid key (before the first registration,
        /// or after the last key has expired): "close" blocks it except for the [[group.fail-open]]
        /// rules, "open" lets all of it pass in clear. With "open", anyone who can block UDP port
        /// 848 can force clear traffic.
        pub failure_policy: FailurePolicy =
            one_of("failure-policy", FailurePolicy::Close, FAILURE_POLICY);
        /// Migration phase of the group from clear to protected traffic. "normal" sends ESP and
        /// accepts nothing else. Migrate all members first to "receive-only" (sends in clear,
        /// accepts ESP and clear packets), then to "passive" (sends ESP, accepts both), then to
        /// "normal": no step loses a packet. With the first two the guards let the group's clear
        /// packets in.
        pub mode: Mode = one_of("mode", Mode::Normal, MODE);
        /// Phase-1 identity of this member: { address = ".." }, { fqdn = ".." }, { user-fqdn =
        /// "name@host" }, { key-id = "text" } or { dn = "CN=name,O=organization" }. Without it, the
        /// local address, or the certificate's subject if that does not name the address.
        pub identity: Option<Located<Identity>> = optional("identity")
            .example("{ address = \"10.0.1.1\" }").applies(Applies::NewRegistration);
        /// Pre-shared key of the key servers: a file readable by its owner only, whose content
        /// without a final newline is the key. Required unless every server has a key of its own,
        /// or there is a certificate.
        pub pre_shared_key: Option<Located<SecretSource>> =
            key_source("pre-shared-key-file", "pre-shared-key-credential")
                .set("\"/etc/gdoi-agent/branches.psk\"").applies(Applies::NewRegistration);
        /// Whether a key was named, right or wrong.
        pub names_key: bool = is_named(&["pre-shared-key-file", "pre-shared-key-credential"]);
        /// The [[certificate]] that is shown to the key servers, and by whose authorities theirs are
        /// believed.
        pub certificate: Option<Located<String>> = optional("certificate").example("\"site\"")
            .applies(Applies::NewRegistration);
        /// Whether to send on TEKs of counter modes (AES-GCM, AES-CCM). Linux chooses their
        /// initialization vectors at random, so two members may use the same one: with s senders of
        /// n packets each the probability is about s*s/2 * n / 2^64, and one collision reveals the
        /// packets concerned and allows forgery. Receiving is always possible.
        pub counter_mode_send: bool = value("counter-mode-send", false);
        /// Allow DES, 3DES, MD5 and Diffie-Hellman groups 1, 2, 5, 24.
        pub legacy: bool = value("legacy", false).applies(Applies::NewRegistration);
        /// DF bit of the outer header: "clear" lets the core fragment, "copy" copies the inner one
        /// (clamp the TCP MSS then), "set" always sets it: packets without DF that exceed the WAN's
        /// MTU with the ESP overhead are then dropped without notice to their sender.
        pub dont_fragment: DontFragment = one_of("df-bit", DontFragment::Clear, DF_BIT);
        /// TCP MSS clamping for connections through the group: "off" leaves it to the hosts, "path"
        /// lowers it to what fits the WAN's MTU with the ESP overhead, a number lowers it to that
        /// many octets (536 to 8960). Each member clamps what its own hosts announce.
        pub segment_size: SegmentSize =
            parsed("mss-clamp", SegmentSize::Unchanged, "\"off\", \"path\" or number", clamp, show_clamp);
        /// Register again when ESP of the group arrives with an unknown SPI or fails its integrity
        /// check: a push may have been lost. At most once in five minutes, since anyone can forge
        /// such packets.
        pub recovery_probe: bool = value("recovery-probe", false);
        /// An IPv4 address that no host uses. Packets carry it between two steps inside the kernel,
        /// never on the wire. The default is 192.0.2.1 for the first group, 192.0.2.2 for the
        /// second and so on.
        pub placeholder: Option<Located<IpAddr>> = optional("placeholder").example("\"192.0.2.1\"");
        /// Key servers in order of preference, at most four. The next one is tried after no answer,
        /// an authenticated refusal or an unusable policy; after the last one the first is tried
        /// again after a pause.
        pub servers: Vec<Server> = tables("server")
            .or_report("the group has no key server", "add a [[group.server]] table with its address")
            .also("[[group.server]]\naddress = \"10.0.10.1\"");
        /// Traffic that always passes in clear, even between protected prefixes: routing protocols,
        /// for example, or the registrations of other members with a key server behind this one
        /// (protocol 17, destination-port 848). Rules apply in both directions and to all groups.
        pub exclude: Vec<Selector> = tables("exclude").only_shown()
            .showing(&[("destination", "\"224.0.0.5\""), ("protocol", "89")]);
        /// Traffic that may pass in clear while there is no valid key; with a key it is protected
        /// or blocked like all other traffic. Rules apply in both directions.
        pub fail_open: Vec<Selector> = tables("fail-open").only_shown().showing(&[
            ("destination", "\"172.16.255.1\""),
            ("protocol", "17"),
            ("destination-port", "123"),
        ]);
        /// Phase-1 proposal to the key servers.
        pub ike: Ike = table("ike");
        /// Retransmission of registration messages.
        pub retransmission: Retransmission = table("retransmission");
        /// Pushes of the key server (RFC 6407 §4). They arrive at the local address, or by
        /// multicast if the key server's policy says so.
        pub rekey: Rekey = table("rekey");
        /// Workarounds for key servers that interpret the standard differently.
        pub interoperability: Interoperability = table("interoperability");
    }

    /// One key server of a group; the order of the file is the order in which they are tried.
    pub struct Server {
        pub place: Option<Place> = place();
        /// Address on which the key server listens.
        pub address: Option<Located<IpAddr>> = required("address").set("\"10.0.9.1\"")
            .applies(Applies::NewRegistration);
        /// UDP port on which the key server listens.
        pub port: u16 = value("port", GDOI_PORT).within(1..=u16::MAX)
            .applies(Applies::NewRegistration);
        /// The identity that this server has to prove. The default is its address. With certificates
        /// "*" stands for any characters in a name, or in a value of a distinguished name.
        pub identity: Option<Located<Identity>> = optional("identity")
            .example("{ address = \"10.0.9.1\" }").applies(Applies::NewRegistration);
        /// A pre-shared key for this server only.
        pub pre_shared_key: Option<Located<SecretSource>> =
            key_source("pre-shared-key-file", "pre-shared-key-credential")
                .example("\"/etc/gdoi-agent/branches-server1.psk\"").applies(Applies::NewRegistration);
        /// A [[certificate]] for this server only.
        pub certificate: Option<Located<String>> = optional("certificate").example("\"site\"")
            .applies(Applies::NewRegistration);
        /// Whether a key of its own was named, right or wrong.
        pub names_key: bool = is_named(&["pre-shared-key-file", "pre-shared-key-credential"]);
    }

    /// A message without an answer is retransmitted after `initial`, then after doubled intervals
    /// up to `maximum`, `repetitions` times in all. With the defaults a server is given up after 23
    /// seconds.
    pub struct Retransmission {
        pub place: Option<Place> = place();
        /// How long to wait before the first retransmission.
        pub initial: Duration = value("initial", RetransmissionPolicy::default().initial)
            .within(seconds(1)..=seconds(60)).applies(Applies::NewRegistration);
        /// Longest wait; not shorter than the first.
        pub maximum: Duration = value("maximum", RetransmissionPolicy::default().maximum)
            .within(seconds(1)..=seconds(300)).applies(Applies::NewRegistration);
        /// Retransmissions of one message.
        pub repetitions: u32 = value("repetitions", RetransmissionPolicy::default().repetitions)
            .within(0..=20).applies(Applies::NewRegistration);
    }

    /// How pushes are received and acknowledged.
    pub struct Rekey {
        /// Value of the field L in acknowledgements, on which RFC 8263 §3.2 contradicts itself:
        /// "printed" is the number printed there (block size of the hash, 512 or 1024), "output"
        /// the length of the hash (256 or 512), "key" the length of the KEK.
        pub acknowledgement_length: AcknowledgementLength =
            one_of("acknowledgement-length", AcknowledgementLength::Block, ACKNOWLEDGEMENT_LENGTH)
                .applies(Applies::NewRegistration);
        /// A multicast push is acknowledged after a random delay within this time, so that the key
        /// server does not get all answers at once (RFC 8263 §6). Keep it shorter than the key
        /// server's retransmission period. A unicast push is acknowledged at once.
        pub acknowledgement_jitter: Duration =
            value("acknowledgement-jitter", JITTER).within(Duration::ZERO..=LONGEST_JITTER);
        /// The interface on which multicast pushes arrive. The default is the one with the local
        /// address.
        pub multicast_interface: Option<Located<String>> = optional("multicast-interface")
            .parsed_by("interface", INTERFACE, interface).example("\"wan\"");
    }

    /// None is needed with peers that follow RFC 6407.
    pub struct Interoperability {
        /// The order of the octets of the group's number in messages: "network" (RFC 6407 §5.1), or
        /// "host" for key servers that copy the number as it lies in their memory.
        pub group_id_byte_order: ByteOrder =
            one_of("group-id-byte-order", ByteOrder::Network, BYTE_ORDER)
                .applies(Applies::NewRegistration);
        /// The order of the octets of IPv4 addresses and masks in traffic selectors: "network", or
        /// "host" for key servers that copy them as they lie in their memory.
        pub selector_byte_order: ByteOrder =
            one_of("selector-byte-order", ByteOrder::Network, BYTE_ORDER)
                .applies(Applies::NewRegistration);
    }
}

pub(super) const ON_EXIT: Names<OnExit> =
    &[("block", OnExit::Block), ("keep", OnExit::Keep), ("remove", OnExit::Remove)];

pub(super) const FAILURE_POLICY: Names<FailurePolicy> =
    &[("close", FailurePolicy::Close), ("open", FailurePolicy::Open)];

pub(super) const MODE: Names<Mode> =
    &[("normal", Mode::Normal), ("receive-only", Mode::ReceiveOnly), ("passive", Mode::Passive)];

pub(super) const DF_BIT: Names<DontFragment> =
    &[("clear", DontFragment::Clear), ("copy", DontFragment::Copy), ("set", DontFragment::Set)];

pub(super) const ACKNOWLEDGEMENT_LENGTH: Names<AcknowledgementLength> = &[
    ("printed", AcknowledgementLength::Block),
    ("output", AcknowledgementLength::Output),
    ("key", AcknowledgementLength::Key),
];

pub(super) const BYTE_ORDER: Names<ByteOrder> =
    &[("network", ByteOrder::Network), ("host", ByteOrder::Host)];

pub(super) const CLAMP: Names<SegmentSize> =
    &[("off", SegmentSize::Unchanged), ("path", SegmentSize::Path)];

/// Smallest and largest segment size that makes sense (RFC 9293 §3.7.1).
const SEGMENT_SIZES: std::ops::RangeInclusive<u16> = 536..=8_960;

impl Group {
    /// The name for messages.
    pub fn label(&self) -> &str {
        self.name.as_ref().map_or("?", |name| name.as_str())
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn interface(value: &DeValue<'_>) -> Result<String, Problem> {
    let name = String::read(value)?;
    if name.len() > LONGEST_INTERFACE_NAME
        || name.contains(|c: char| c == '/' || c.is_whitespace())
        || name.strip_suffix('*').unwrap_or(&name).contains('*')
        || name == "*"
    {
        let remedy = format!(
            "write a name that `ip link` shows, of at most {LONGEST_INTERFACE_NAME} octets, or the \
             beginning of such names with a * behind it"
        );
        return Err(Problem::new(format!("\"{name}\" cannot be an interface"), remedy));
    }
    Ok(name)
}

fn clamp(value: &DeValue<'_>) -> Result<SegmentSize, Problem> {
    if !matches!(value, DeValue::Integer(_)) {
        return choice(value, CLAMP);
    }
    let octets = u16::read(value)?;
    if SEGMENT_SIZES.contains(&octets) {
        return Ok(SegmentSize::AtMost(octets));
    }
    let (least, most) = (SEGMENT_SIZES.start(), SEGMENT_SIZES.end());
    let remedy = format!("write a number from {least} to {most}, or \"path\"");
    Err(Problem::new(format!("{octets} octets are no segment size"), remedy))
}

fn show_clamp(size: &SegmentSize, _: &[(&'static str, SegmentSize)]) -> String {
    match size {
        SegmentSize::AtMost(octets) => octets.to_string(),
        named => name_of(named, CLAMP),
    }
}

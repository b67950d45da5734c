//! First step: every option, declared once, and the file as it was typed. Nothing is decided here.
//!
//! A declaration is the reader, the check, the text of the example file and of the manual page.

use core::net::IpAddr;
use core::time::Duration;
use std::path::PathBuf;

use daemon::configuration::{
    Applies, Document, Ike, Located, Outline, Place, Problem, Read, Section as _, Selector, Words,
    choice, example, is_named, key_source, list, manual, one_of, optional, parsed, place, required,
    table, tables, value, word_of,
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
use super::{CONTROL_SOCKET, GDOI_PORT, OnExit};
use crate::membership::pending_ack::{JITTER, LONGEST_JITTER};

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
    /// The whole file.
    pub struct File {
        /// Where gdoictl reaches the daemon.
        pub control_socket: PathBuf = value("control-socket", PathBuf::from(CONTROL_SOCKET))
            .applies(Applies::Restart);
        /// Where the agent keeps what it must know after a crash: policy, expiry times and sequence
        /// numbers of pushes, and no key. With it a new run continues with the keys that are still
        /// in the kernel. Without this option it is a file beside the control socket, named like it
        /// with the ending ".state". A directory that survives a reboot also keeps counter-mode
        /// TEKs from being sent on again after one.
        pub state_directory: Option<Located<PathBuf>> = optional("state-directory")
            .example("\"/var/lib/gdoi-agent\"").applies(Applies::Restart);
        /// An AES key of 16 or 32 octets (`openssl rand -out FILE 32`) that seals the keys in a
        /// second file in the state directory, so that a machine that boots while no key server
        /// answers continues with the keys that have not expired. How much lifetime is left is
        /// taken from the wall clock; one that shows a time before the file was written is refused.
        /// Counter-mode TEKs are then received on and not sent on. Needs state-directory. Without
        /// it no key survives a reboot.
        pub state_key: Option<Located<SecretSource>> =
            key_source("state-key-file", "state-key-credential")
                .example("\"/etc/gdoi-agent/state.key\"").applies(Applies::Restart);
        /// UDP port that registrations leave from. Key servers may insist on 848.
        pub local_port: u16 = value("local-port", GDOI_PORT)
            .within(1..=u16::MAX).applies(Applies::Restart);
        /// The lowest priority number of the agent's XFRM policies, which take the million numbers
        /// from it on. A policy with a lower number wins over them. The default stands behind what
        /// strongSwan and libreswan compute, so that their tunnels keep their own traffic.
        pub policy_priority: u32 = value("policy-priority", BASE).within(1..=HIGHEST_BASE);
        /// One table for each group, at most 64. Their order gives each group a slot, from which
        /// its reqids and its placeholder address follow: add new groups at the end.
        pub groups: Vec<Group> = tables("group");
        /// One table for each IKE policy that tunnels share.
        pub gateways: Vec<GatewayTable> = tables("gateway").showing(&[("name", "\"cloud\"")]);
        /// One table for each site-to-site tunnel (IKEv1 and ESP between two gateways). A machine
        /// may have groups, tunnels or both.
        pub tunnels: Vec<TunnelTable> = tables("tunnel").showing(&[
            ("name", "\"cloud-1\""),
            ("gateway", "\"cloud\""),
            ("local-address", "\"198.51.100.1\""),
            ("peer", "\"203.0.113.1\""),
            ("local-networks", "[\"172.16.1.0/24\"]"),
            ("remote-networks", "[\"192.168.0.0/24\"]"),
            ("pre-shared-key-file", "\"/etc/gdoi-agent/cloud-1.psk\""),
        ]);
    }

    /// A group is one membership: where it registers, what it protects.
    pub struct Group {
        /// Where it begins.
        pub place: Option<Place> = place();
        /// Name in logs and in `gdoictl show member`.
        pub name: Option<Located<String>> = required("name").set("\"branches\"");
        /// Number of the group, 32 bits, the same on the key server.
        pub id: Option<Located<u32>> = required("id").set("1111").applies(Applies::NewRegistration);
        /// The address that the group speaks from, and where received ESP ends: an IPv4 address of
        /// this machine, or the name of an interface, whose first IPv4 address is then followed
        /// wherever it goes (DHCP, PPPoE). While there is no address the group's traffic stays
        /// blocked.
        pub local: Option<Located<String>> = required("local-address").set("\"10.0.1.1\"")
            .applies(Applies::NewRegistration);
        /// Interfaces of the protected hosts. They must exist when the daemon starts. An interface
        /// is on one side only, in all groups. A name may be a pattern: "br-*" stands for what
        /// exists and begins so. An empty list is for a machine that is its own only host.
        ///
        /// Interfaces alone decide what is inside, like a crypto map on the WAN: the route says
        /// where a packet leaves, and by a LAN it leaves in clear, also when networks behind it (an
        /// L3 switch, a backup router) lie in the protected prefixes. The agent sets
        /// net.ipv4.conf.NAME.disable_policy of its LANs to 1, and back to 0 when the group or its
        /// policies go.
        pub lan: Vec<Located<String>> = list("lan")
            .parsed_by("interface", INTERFACE, interface)
            .may_be_empty()
            .set("[\"lan\"]");
        /// Interfaces of the wide area network.
        pub wan: Vec<Located<String>> =
            list("wan").parsed_by("interface", INTERFACE, interface).set("[\"wan\", \"wan2\"]");
        /// Prefixes between which nothing ever passes in clear: blocked from the start of the
        /// daemon until the first key, after a key has expired that was not renewed, and after the
        /// daemon has ended. Traffic that leaves them is none of the agent's business.
        ///
        /// An interface that lies in them and is neither lan nor wan is cut off from them: docker0,
        /// 172.17.0.1/16, is one by default. IPv6 prefixes are blocked for good. Multicast that a
        /// protected host sends to the WAN leaves in clear unless 224.0.0.0/4 is here, too.
        pub protected: Vec<Located<IpNet>> = list("protected").set("[\"172.16.0.0/12\"]");
        /// What an orderly end leaves in the kernel: "block" removes keys and leaves the blocks in
        /// place, "keep" leaves everything as it is (the kernel then removes each key soon after
        /// its lifetime), "remove" removes everything, after which the traffic passes in clear.
        pub on_exit: OnExit = one_of("on-exit", OnExit::Block, ON_EXIT);
        /// What becomes of the group's traffic while there is no valid key (none yet, or the last
        /// one has expired): "close" blocks it but for the [[group.fail-open]] rules, "open" lets
        /// all of it pass in clear. Whoever can block UDP port 848 can bring that about.
        pub failure_policy: FailurePolicy =
            one_of("failure-policy", FailurePolicy::Close, FAILURE_POLICY);
        /// How far the group has migrated from clear to protected traffic. "normal" sends ESP and
        /// accepts nothing else. Migrate all members first to "receive-only" (sends in clear,
        /// accepts ESP and clear packets), then to "passive" (sends ESP, accepts both), then to
        /// "normal": no step loses a packet. With the first two the guards let the group's clear
        /// packets in.
        pub mode: Mode = one_of("mode", Mode::Normal, MODE);
        /// The identity that we prove to key servers: { address = ".." }, { fqdn = ".." },
        /// { user-fqdn = "name@host" } or { key-id = "text" }. Without it, the local address.
        pub identity: Option<Located<Identity>> = optional("identity")
            .example("{ address = \"10.0.1.1\" }").applies(Applies::NewRegistration);
        /// The key shared with the key servers: a file that only its owner may read, whose content
        /// up to a final newline is the key. Needed unless every server has a key of its own.
        pub pre_shared_key: Option<Located<SecretSource>> =
            key_source("pre-shared-key-file", "pre-shared-key-credential")
                .set("\"/etc/gdoi-agent/branches.psk\"").applies(Applies::NewRegistration);
        /// Whether to send on TEKs of counter modes (AES-GCM, AES-CCM). Linux draws initialization
        /// vectors at random for them, so two members may use the same one: with s senders of n
        /// packets each the probability is about s*s/2 * n / 2^64, and one collision reveals the
        /// packets concerned and allows forgery. Receiving needs no permission.
        pub counter_mode_send: bool = value("counter-mode-send", false);
        /// Allow DES, 3DES, MD5 and Diffie-Hellman groups 1, 2, 5, 24.
        pub legacy: bool = value("legacy", false).applies(Applies::NewRegistration);
        /// The DF bit of outer headers: "clear" lets the core fragment, "copy" takes the inner one
        /// (clamp the MSS of TCP then), "set" always sets it: packets without DF that do not fit
        /// into the WAN with ESP around them are dropped then, and their sender is not told.
        pub dont_fragment: DontFragment = one_of("df-bit", DontFragment::Clear, DF_BIT);
        /// The segment size that TCP connections through the group agree on: "off" leaves it to the
        /// hosts, "path" lowers it to what fits into the WAN with the overhead of ESP, a number
        /// lowers it to so many octets (536 to 8960). Each member clamps what its own hosts
        /// announce.
        pub segment_size: SegmentSize =
            parsed("mss-clamp", SegmentSize::Unchanged, "\"off\", \"path\" or number", clamp, show_clamp);
        /// Pull and compare when ESP of the group arrives whose SPI is not known here, or that
        /// fails the integrity check of its SA: a push may have been lost. At most once in five
        /// minutes, since anybody can forge such packets.
        pub recovery_probe: bool = value("recovery-probe", false);
        /// An IPv4 address that no host has. Packets carry it between two steps inside the kernel,
        /// never on a wire. Without it, 192.0.2.1 for the first group, 192.0.2.2 for the second and
        /// so on.
        pub placeholder: Option<Located<IpAddr>> = optional("placeholder").example("\"192.0.2.1\"");
        /// Key servers in the order of trying, at most four. No answer, an authenticated refusal or
        /// a policy that cannot be used leads to the next one; after the last one the first is
        /// tried again after a pause.
        pub servers: Vec<Server> = tables("server")
            .or_report("the group has no key server", "add a [[group.server]] table with its address")
            .also("[[group.server]]\naddress = \"10.0.10.1\"");
        /// Traffic that is never encrypted and passes in clear, also between protected prefixes:
        /// routing protocols, for example. Rules count in both directions and for all groups.
        pub exclude: Vec<Selector> = tables("exclude")
            .showing(&[("destination", "\"224.0.0.5\""), ("protocol", "89")]);
        /// Traffic that may pass in clear while there is no valid key; with a key it is protected
        /// or blocked like all other. Rules count in both directions.
        pub fail_open: Vec<Selector> = tables("fail-open").showing(&[
            ("destination", "\"172.16.255.1\""),
            ("protocol", "17"),
            ("destination-port", "123"),
        ]);
        /// What is offered to key servers.
        pub ike: Ike = table("ike");
        /// When messages of the registration are retransmitted.
        pub retransmission: Retransmission = table("retransmission");
        /// Pushes of the key server (RFC 6407 §4). They come to the local address, or by multicast
        /// where the key server says so.
        pub rekey: Rekey = table("rekey");
        /// For key servers that read the standard in another way.
        pub interoperability: Interoperability = table("interoperability");
    }

    /// A key server.
    pub struct Server {
        /// Where it begins.
        pub place: Option<Place> = place();
        /// Where it listens.
        pub address: Option<Located<IpAddr>> = required("address").set("\"10.0.9.1\"")
            .applies(Applies::NewRegistration);
        /// UDP port.
        pub port: u16 = value("port", GDOI_PORT).within(1..=u16::MAX)
            .applies(Applies::NewRegistration);
        /// The identity that this server must prove. Without it, its address.
        pub identity: Option<Located<Identity>> = optional("identity")
            .example("{ address = \"10.0.9.1\" }").applies(Applies::NewRegistration);
        /// A key for this server alone.
        pub pre_shared_key: Option<Located<SecretSource>> =
            key_source("pre-shared-key-file", "pre-shared-key-credential")
                .example("\"/etc/gdoi-agent/branches-server1.psk\"").applies(Applies::NewRegistration);
        /// Whether a key of its own was named, right or wrong.
        pub names_key: bool = is_named(&["pre-shared-key-file", "pre-shared-key-credential"]);
    }

    /// A message without an answer is sent again after `initial`, then after twice as long and so
    /// on up to `maximum`, and `repetitions` times in all. The defaults give a server up after 23
    /// seconds.
    pub struct Retransmission {
        /// Where it begins.
        pub place: Option<Place> = place();
        /// First wait.
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
        /// How the field L of acknowledgements is read, about which RFC 8263 §3.2 contradicts
        /// itself: "printed" is the figure that it prints (the block of the hash, 512 or 1024),
        /// "output" the hash itself (256 or 512), "key" the length of the KEK.
        pub acknowledgement_length: AcknowledgementLength =
            one_of("acknowledgement-length", AcknowledgementLength::Block, ACKNOWLEDGEMENT_LENGTH);
        /// A push by multicast is acknowledged at a random moment within this time, so that the key
        /// server does not get all answers at once (RFC 8263 §6). Shorter than the key server's
        /// retransmission period. What comes by unicast is acknowledged at once.
        pub acknowledgement_jitter: Duration =
            value("acknowledgement-jitter", JITTER).within(Duration::ZERO..=LONGEST_JITTER);
        /// The interface that multicast pushes arrive by. Without it, the one that has the local
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

const ON_EXIT: Words<OnExit> =
    &[("block", OnExit::Block), ("keep", OnExit::Keep), ("remove", OnExit::Remove)];

const FAILURE_POLICY: Words<FailurePolicy> =
    &[("close", FailurePolicy::Close), ("open", FailurePolicy::Open)];

const MODE: Words<Mode> =
    &[("normal", Mode::Normal), ("receive-only", Mode::ReceiveOnly), ("passive", Mode::Passive)];

const DF_BIT: Words<DontFragment> =
    &[("clear", DontFragment::Clear), ("copy", DontFragment::Copy), ("set", DontFragment::Set)];

const ACKNOWLEDGEMENT_LENGTH: Words<AcknowledgementLength> = &[
    ("printed", AcknowledgementLength::Block),
    ("output", AcknowledgementLength::Output),
    ("key", AcknowledgementLength::Key),
];

const BYTE_ORDER: Words<ByteOrder> = &[("network", ByteOrder::Network), ("host", ByteOrder::Host)];

const CLAMP: Words<SegmentSize> = &[("off", SegmentSize::Unchanged), ("path", SegmentSize::Path)];

/// Smallest and largest segment size that makes sense (RFC 9293 §3.7.1).
const SEGMENT_SIZES: core::ops::RangeInclusive<u16> = 536..=8_960;

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
        named => word_of(named, CLAMP),
    }
}

//! Every option, declared once, and the file as it was typed, without any meaning yet.
//!
//! A declaration is the reader, the check, the text of the example file and of the manual page.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use daemon::configuration::{
    Applies, CertificateTable, Document, Ike, Located, Names, Outline, Place, Section as _,
    Selector, example, flattened, is_named, key_source, list, list_or, located, manual, one_of,
    optional, optional_one_of, optional_table, place, required, table, tables, value,
};
use daemon::options;
use daemon::secrets::SecretSource;
use gdoi::config::{ByteOrder, Trailer};
use gdoi::group::{AddressPreservation, EncapsulationMode, SaDirection};
use gdoi::push::{KekPacketSpi, SignedLength};
use ike::config::Identity;
use ike::crypto::RsaForm;
use ike::endpoint::Limits as ServerLimits;
use ipnet::IpNet;

use super::{cluster, rekey};
use crate::config::tek_algorithm::{Encryption, Integrity};

/// UDP port of GDOI (RFC 6407 §2.2).
const PORT: u16 = gdoi::PORT;

/// Default size of a receive buffer.
const RECEIVE_BUFFER: u32 = 4 * 1024 * 1024;

/// Default lifetime of a TEK.
pub(super) const TEK_LIFETIME: Duration = Duration::from_secs(3600);

/// The example file and the manual page.
pub const DOCUMENT: Document = Document {
    file: "gcks.toml",
    program: "gcks",
    subject: "a GDOI key server (RFC 6407)",
    about: &["Addresses are IPv4 or IPv6; a prefix has no host bits."],
};

/// What people are told about every option.
pub fn outline() -> Outline {
    File::outline()
}

/// What `cargo xtask man` writes: path in the workspace and content.
pub fn documents() -> [(&'static str, String); 2] {
    let outline = outline();
    [
        ("gcks/gcks.example.toml", example(&DOCUMENT, &outline)),
        ("man/gcks.toml.5", manual(&DOCUMENT, &outline, env!("CARGO_PKG_VERSION"))),
    ]
}

options! {
    /// The whole file. What is wrong in it has been noted.
    pub struct File {
        /// The Unix socket on which gdoictl reaches the daemon. Root and the daemon's user and
        /// group have access.
        pub(super) control_socket: PathBuf =
            value("control-socket", PathBuf::from(::control::SERVER_SOCKET))
                .applies(Applies::Restart);
        /// Addresses to listen on. "0.0.0.0" is every IPv4 address, "::" every IPv6 address;
        /// responses leave from the address that was asked.
        pub(super) listen: Vec<Located<IpAddr>> =
            list_or("listen", [IpAddr::V4(Ipv4Addr::UNSPECIFIED)]).applies(Applies::Restart);
        /// UDP port, the same on all addresses.
        pub(super) port: u16 =
            value("port", PORT).within(1..=u16::MAX).applies(Applies::Restart);
        /// Phase-1 identity of the key server, one of { address = ".." }, { fqdn = ".." }, {
        /// user-fqdn = ".." }, { key-id = ".." }. The default is the address that the member
        /// contacted.
        pub(super) identity: Option<Located<Identity>> = optional("identity")
            .example("{ fqdn = \"ks1.example.net\" }").applies(Applies::NewRegistration);
        /// Allow weak algorithms: DES, 3DES, MD5, Diffie-Hellman groups 1, 2, 5 and 24, SHA-1 for
        /// pushes. Each of them can be broken.
        pub(super) legacy: bool = value("legacy", false);
        /// Directory of the signing keys and the state; StateDirectory= of the systemd unit creates
        /// it.
        pub(super) state_directory: PathBuf =
            value("state-directory", PathBuf::from("/var/lib/gcks")).applies(Applies::Restart);
        /// Whether keys, sequence numbers and registrations are kept in the state directory, sealed:
        /// they survive a restart then, and members notice nothing. With false nothing is kept:
        /// after a restart all members register again, one after the other, and cannot talk to
        /// each other meanwhile.
        pub(super) keep_state: bool = value("keep-state", true).applies(Applies::Restart);
        /// An AES key of 16 or 32 octets (`openssl rand -out FILE 32`) that seals the state. Without
        /// it the server makes one, state.key in the state directory, which protects copies of the
        /// state alone: who can read both files can read the keys of all groups.
        pub(super) state_key: Option<Located<SecretSource>> =
            key_source("state-key-file", "state-key-credential")
                .example("\"/etc/gcks/state.key\"").applies(Applies::Restart);
        /// Keeps the state in etcd and not in the state directory: two or more key servers with the
        /// same groups, members and state key are one then, of which one is active and the others
        /// are standby. Without endpoints there is one server.
        pub(super) etcd: Etcd = table("etcd");
        /// What members may negotiate in phase 1. All combinations of the lists are accepted; the
        /// member's order of preference decides.
        pub(super) ike: Ike = table("ike");
        /// Limits on resources for unauthenticated peers. The defaults suffice for thousands of
        /// members.
        pub(super) limits: Limits = table("limits");
        /// Files with further members, or directories whose files *.toml are read in the order of
        /// their names: each holds [[member]] tables and nothing else, and at most 4 MiB, which is
        /// room for thirty thousand of them.
        pub(super) member_files: Vec<Located<PathBuf>> = list_or("member-files", [])
            .example("[\"/etc/gcks/members.d\"]");
        /// One table for each member.
        pub(super) members: Vec<Member> = tables("member").also(
            "[[member]]\nname = \"g2\"\naddress = \"10.0.2.1\"\n\
             identity = { fqdn = \"g2.example.net\" }\n\
             pre-shared-key-file = \"/etc/gcks/g2.psk\"\ngroups = [\"branches\"]"
        );
        /// One table for each other key server of a cluster.
        pub(super) servers: Vec<cluster::FileServer> = tables("cluster-server").only_shown();
        /// Certificates that this server shows to members, in the place of pre-shared keys.
        pub(super) certificates: Vec<CertificateTable> = tables("certificate");
        /// One table for each group.
        pub(super) groups: Vec<Group> = tables("group");
    }

    /// Needs state-key-file or state-key-credential: etcd gets sealed values alone. Who can write
    /// to etcd can end the service of the group, but reads and forges no key; the connection is
    /// plain HTTP. Old values in etcd are compacted, those of other programs as well: give the key
    /// servers an etcd of their own. The clocks of all machines are synchronised.
    pub struct Etcd {
        /// The servers of the etcd cluster (3.4 or later), each an URL like
        /// "http://10.0.9.11:2379".
        pub(super) endpoints: Vec<Located<String>> =
            list_or("endpoints", [])
                .example("[\"http://10.0.9.11:2379\", \"http://10.0.9.12:2379\"]")
                .applies(Applies::Restart);
        /// What the keys in etcd begin with. Key servers with the same prefix are one.
        pub(super) prefix: Located<String> =
            located("prefix", "/gcks".to_owned()).applies(Applies::Restart);
        /// The time after which another server takes over from one that is not heard of any more.
        /// The active one renews its lease three times as often, and sends nothing when it could
        /// not for nine tenths of the lease.
        pub(super) lease: Duration = value("lease", Duration::from_secs(5))
            .within(Duration::from_secs(2)..=Duration::from_secs(60)).applies(Applies::Restart);
        /// Name of this server in `gdoictl show server` of the others. The default is the name of
        /// the host.
        pub(super) name: Option<Located<String>> =
            optional("name").example("\"ks1\"").applies(Applies::Restart);
    }

    /// A file with members.
    pub struct MemberFile {
        /// One table for each member.
        pub(super) members: Vec<Member> = tables("member");
    }

    /// None is needed with members that follow RFC 6407.
    pub struct MemberInteroperability {
        /// Octet order of the group id. RFC 6407 specifies "network"; some implementations send it
        /// in "host" order.
        pub(super) group_id_byte_order: ByteOrder =
            one_of("group-id-byte-order", ByteOrder::Network, BYTE_ORDER);
    }

    /// None is needed with members that follow RFC 6407. All members of the group get them: pushes
    /// are the same for all.
    pub struct Interoperability {
        /// What an RSA signature of a push covers: "digest-info", the hash with its algorithm
        /// (RFC 8017), or "raw-digest", the hash alone.
        pub(super) rsa_signature: RsaForm =
            one_of("rsa-signature", RsaForm::DigestInfo, RSA_SIGNATURE);
        /// The length in the header that the signature of a push covers: "padded", as it is sent,
        /// or "unpadded", without the padding of the cipher.
        pub(super) signed_length: SignedLength =
            one_of("signed-length", SignedLength::Padded, SIGNED_LENGTH);
        /// Reserved octets in front of the KEK's attributes: "four" (RFC 6407), or "six".
        pub(super) sak_reserved_octets: Trailer =
            one_of("sak-reserved-octets", Trailer::Standard, SAK_RESERVED_OCTETS);
        /// The SPI under which a push sends the key of a new KEK: "new", its own, or "old", that of
        /// the KEK which it replaces.
        pub(super) new_kek_spi: KekPacketSpi =
            one_of("new-kek-spi", KekPacketSpi::New, NEW_KEK_SPI);
        /// Octet order of IPv4 addresses and masks in traffic selectors: "network", or "host".
        pub(super) selector_byte_order: ByteOrder =
            one_of("selector-byte-order", ByteOrder::Network, BYTE_ORDER);
    }

    /// They apply to the server as a whole.
    pub struct Limits {
        /// Half-open exchanges (no identity proved yet) in total.
        pub(super) half_open: u32 =
            value("half-open", usual(|limits| limits.half_open)).within(1..=1_000_000);
        /// Half-open exchanges from one address.
        pub(super) half_open_per_source: u32 =
            value("half-open-per-source", usual(|limits| limits.half_open_per_source))
                .within(1..=1000);
        /// How long a half-open exchange waits for its next message.
        pub(super) half_open_timeout: Duration =
            value("half-open-timeout", ServerLimits::default().half_open_timeout)
                .within(Duration::from_secs(5)..=Duration::from_secs(300));
        /// Diffie-Hellman computations that wait for a processor; further members have to
        /// retransmit.
        pub(super) computations: u32 =
            value("computations", usual(|limits| limits.computations)).within(1..=1_000_000);
        /// Octets of datagrams that the kernel is asked to keep for each listening address while
        /// the server computes. It grants what net.core.rmem_max allows.
        pub(super) receive_buffer: u32 = value("receive-buffer", RECEIVE_BUFFER)
            .within(65_536..=268_435_456).applies(Applies::Restart);
        /// Established ISAKMP SAs at a time.
        pub(super) established: u32 =
            value("established", usual(|limits| limits.established)).within(1..=1_000_000);
        /// Members that may be registered here, in all groups together. A further one gets no
        /// answer and tries its next server.
        pub(super) members: Option<Located<u32>> =
            optional("members").within(1..=1_000_000).example("10000");
    }

    /// In main mode only the address is known when the pre-shared key is needed, so keys are
    /// selected by address.
    pub struct Member {
        pub(super) place: Option<Place> = place();
        /// Name in logs and in gdoictl.
        pub(super) name: Option<Located<String>> = required("name").set("\"g1\"");
        /// Where it registers from: an address, or a prefix whose hosts all share the key. With a
        /// shared key any of them can impersonate this server to the others: gcks warns about it.
        /// With a certificate there is no such key, and several tables may have one prefix.
        pub(super) address: Option<Located<IpNet>> = required("address").set("\"10.0.1.1\"")
            .applies(Applies::NewRegistration);
        /// The identity that it has to prove; authorization is based on it. The default is its
        /// address. With a certificate "*" stands for any characters in a name, or in a value of a
        /// distinguished name, as in { dn = "CN=*,OU=Branches,O=Example" } or { fqdn =
        /// "*.branches.example" }: one table for all of them.
        pub(super) identity: Option<Located<Identity>> = optional("identity")
            .set("{ address = \"10.0.1.1\" }").applies(Applies::NewRegistration);
        /// The pre-shared key: a file of mode 600 that holds the key and at most one newline.
        /// `openssl rand -base64 32` makes a good one. Required, here or as a credential.
        pub(super) pre_shared_key: Option<Located<SecretSource>> =
            key_source("pre-shared-key-file", "pre-shared-key-credential")
                .set("\"/etc/gcks/g1.psk\"").applies(Applies::NewRegistration);
        /// The [[certificate]] that is shown to the member, and by whose authorities its own is
        /// believed, in the place of a pre-shared key.
        pub(super) certificate: Option<Located<String>> = optional("certificate")
            .example("\"site\"").applies(Applies::NewRegistration);
        /// Whether a key was named, right or wrong.
        pub(super) names_key: bool = is_named(&["pre-shared-key-file", "pre-shared-key-credential"]);
        /// The groups that it may join, by name.
        pub(super) groups: Vec<Located<String>> = list("groups").set("[\"branches\"]");
        /// For a member that reads the standard in another way.
        pub(super) interoperability: MemberInteroperability = table("interoperability");
    }

    /// A group: its policy, its keys, and how they are distributed.
    pub struct Group {
        pub(super) place: Option<Place> = place();
        /// Name for members' `groups`, logs and gdoictl.
        pub(super) name: Option<Located<String>> = required("name").set("\"branches\"");
        /// Group identifier that members ask for, 0 to 4294967295.
        pub(super) id: Option<Located<u32>> = required("id").set("1111");
        /// Width of the sender identifiers in bits that members get for TEKs in counter mode (GCM,
        /// CCM). Every pull takes one, which is released when the TEKs of its time have expired: 16
        /// bits suffice for 65536 pulls in the lifetime of a TEK.
        pub(super) sender_id_bits: u16 = value("sender-id-bits", 16).within(8..=32);
        /// Members of the group that may be registered at this server; the same at all servers of a
        /// cluster. A further one gets no answer and tries its next server.
        pub(super) member_threshold: Option<Located<u32>> =
            optional("member-threshold").within(1..=1_000_000).example("2000");
        /// Defaults for the group's TEKs: any key of [[group.tek]] but policy.
        pub(super) tek_defaults: TekKeys = table("tek-defaults").excerpt(&[
            ("encryption", "\"aes-256-cbc\""),
            ("integrity", "\"hmac-sha2-256-128\""),
        ]);
        /// One table for each data SA with a TEK of its own.
        pub(super) teks: Vec<Tek> = tables("tek")
            .or_report("group: no TEK", "add [[group.tek]] with [[group.tek.policy]]");
        /// Timing of the rollover from old to new TEKs.
        pub(super) gap: Gap = table("gap");
        /// How new keys are pushed to the members before the old ones expire. Without this table
        /// members only pull.
        pub(super) rekey: Option<rekey::File> = optional_table("rekey");
        /// The group's part in a cluster of key servers. Without this table the server is on its
        /// own.
        pub(super) cluster: Option<cluster::File> = optional_table("cluster").only_shown();
        /// Workarounds for members that interpret the standard differently.
        pub(super) interoperability: Interoperability = table("interoperability");
    }

    /// The keys that `[group.tek-defaults]` and `[[group.tek]]` share.
    pub struct TekKeys {
        /// Lifetime of a new TEK. The next one is pushed before it expires; without [group.rekey],
        /// a pull within 60 s or 5 % of the end, whichever is more (but at most half of the
        /// lifetime), makes it.
        pub(super) lifetime: Option<Located<Duration>> = optional("lifetime")
            .within(Duration::from_secs(30)..=Duration::from_secs(30 * 86_400))
            .usual(&TEK_LIFETIME).applies(Applies::NextTek);
        /// Encryption algorithm; "null" is integrity only, "3des-cbc" needs `legacy = true`.
        /// Required here or in [group.tek-defaults]. Linux members send in counter mode (gcm, ccm)
        /// only with counter-mode-send = true.
        pub(super) encryption: Option<Located<Encryption>> =
            optional("encryption").set("\"aes-256-cbc\"").applies(Applies::NextTek);
        /// Integrity algorithm. Omit it for gcm and ccm, which include it.
        pub(super) integrity: Option<Located<Integrity>> =
            optional("integrity").set("\"hmac-sha2-256-128\"").applies(Applies::NextTek);
        /// Which members may send: all, or only the key server's choice of senders.
        pub(super) direction: Option<Located<SaDirection>> = optional_one_of("direction", DIRECTION)
            .usual(&SaDirection::SYMMETRIC).applies(Applies::NextTek);
        /// Encapsulation mode of ESP. Linux members support "tunnel".
        pub(super) mode: Option<Located<EncapsulationMode>> = optional_one_of("mode", MODE)
            .usual(&EncapsulationMode::TUNNEL).applies(Applies::NextTek);
        /// Inner addresses that are preserved in the outer header. Linux members support "both".
        pub(super) address_preservation: Option<Located<AddressPreservation>> =
            optional_one_of("address-preservation", ADDRESS_PRESERVATION)
                .usual(&AddressPreservation::SOURCE_AND_DESTINATION).applies(Applies::NextTek);
    }

    /// Options that are missing here are taken from [group.tek-defaults].
    pub struct Tek {
        pub(super) place: Option<Place> = place();
        /// What the group's defaults may hold as well.
        pub(super) own: TekKeys = flattened();
        /// Whether there is an encryption, right or wrong.
        pub(super) names_encryption: bool = is_named(&["encryption"]);
        /// Traffic selectors; the first match applies. With direction "symmetric" they apply in
        /// both directions.
        pub(super) policies: Vec<Selector> = tables("policy").or_report(
            "group.tek: no policy",
            "add [[group.tek.policy]] with source and destination"
        );
    }

    /// Without these options members decide themselves.
    pub struct Gap {
        pub(super) place: Option<Place> = place();
        /// Delay from the receipt of new keys until members send with them. It has to exceed the
        /// time of all transmissions of a push (retransmission-period times retransmissions), since
        /// a member that gets a late one cannot decrypt before: gcks warns about it. Where members
        /// only pull, it is the time that the others have to pull the new TEK.
        pub(super) activation: Option<Located<Duration>> =
            optional("activation-time-delay").within(ATTRIBUTE).set("\"30s\"");
        /// Delay from the receipt of new keys until the old ones are removed; longer than
        /// activation-time-delay.
        pub(super) deactivation: Option<Located<Duration>> =
            optional("deactivation-time-delay").within(ATTRIBUTE).set("\"1m\"");
    }
}

/// The attributes are 16-bit numbers of seconds (RFC 6407 §5.4.1).
const ATTRIBUTE: std::ops::RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(u16::MAX as u64);

pub(super) const BYTE_ORDER: Names<ByteOrder> =
    &[("network", ByteOrder::Network), ("host", ByteOrder::Host)];

pub(super) const RSA_SIGNATURE: Names<RsaForm> =
    &[("digest-info", RsaForm::DigestInfo), ("raw-digest", RsaForm::RawDigest)];

pub(super) const SIGNED_LENGTH: Names<SignedLength> =
    &[("padded", SignedLength::Padded), ("unpadded", SignedLength::Unpadded)];

pub(super) const SAK_RESERVED_OCTETS: Names<Trailer> =
    &[("four", Trailer::Standard), ("six", Trailer::TwoMore)];

pub(super) const NEW_KEK_SPI: Names<KekPacketSpi> =
    &[("new", KekPacketSpi::New), ("old", KekPacketSpi::Old)];

pub(super) const DIRECTION: Names<SaDirection> = &[
    ("symmetric", SaDirection::SYMMETRIC),
    ("sender-only", SaDirection::SENDER_ONLY),
    ("receiver-only", SaDirection::RECEIVER_ONLY),
];

pub(super) const MODE: Names<EncapsulationMode> =
    &[("tunnel", EncapsulationMode::TUNNEL), ("transport", EncapsulationMode::TRANSPORT)];

pub(super) const ADDRESS_PRESERVATION: Names<AddressPreservation> = &[
    ("both", AddressPreservation::SOURCE_AND_DESTINATION),
    ("source", AddressPreservation::SOURCE_ONLY),
    ("destination", AddressPreservation::DESTINATION_ONLY),
    ("none", AddressPreservation::NONE),
];

fn usual(limit: impl Fn(&ServerLimits) -> usize) -> u32 {
    u32::try_from(limit(&ServerLimits::default())).unwrap_or(u32::MAX)
}

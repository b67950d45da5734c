//! The options of `[group.rekey]`, declared once.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use daemon::configuration::{
    Applies, Located, Names, Place, located, one_of, optional, optional_one_of, place, value,
};
use daemon::options;
use gdoi::push::DeliveryPolicy;
use ike::crypto::HashAlgorithm;

use super::{KEK_ENCRYPTIONS, KekEncryption, MulticastPath, SigningKeyKind};

/// The transport as it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum TransportKind {
    Unicast,
    Multicast,
}

options! {
    /// The KEK protects pushes; a new KEK is pushed under the old one.
    pub struct File {
        pub(super) place: Option<Place> = place();
        /// "unicast" to the address and port from which each member pulled, or "multicast" to all
        /// at once.
        pub(in crate::config) transport: TransportKind =
            one_of("transport", TransportKind::Unicast, TRANSPORT).applies(Applies::NextKek);
        /// The multicast group of pushes. Required for multicast, and only for it.
        pub(in crate::config) multicast_address: Option<Located<IpAddr>> = optional("multicast-address")
            .example("\"239.192.1.1\"").applies(Applies::NextKek);
        /// Source address of multicast pushes. The default is the only address of that family that
        /// the server listens on.
        pub(in crate::config) multicast_source: Option<Located<IpAddr>> = optional("multicast-source")
            .example("\"10.0.9.1\"").applies(Applies::NextKek);
        /// The interface by which multicast pushes leave. The default is the one with the source
        /// address.
        pub(in crate::config) multicast_interface: Option<Located<String>> = optional("multicast-interface")
            .example("\"eth1\"").applies(Applies::NextKek);
        /// TTL or hop limit of multicast pushes, at least 1.
        pub(in crate::config) multicast_ttl: Option<Located<u8>> = optional("multicast-ttl")
            .usual(&MulticastPath::default().ttl).applies(Applies::NextKek);
        /// KEK encryption algorithm. 3des-cbc and des-cbc need `legacy = true`.
        pub(in crate::config) encryption: Located<KekEncryption> =
            located("encryption", KEK_ENCRYPTIONS[2]).applies(Applies::NextKek);
        /// Type of the key that signs pushes. It is generated if its file is missing.
        pub(in crate::config) signing_key: SigningKeyKind =
            one_of("signing-key", SigningKeyKind::Rsa(2048), SIGNING_KEY);
        /// File of the signing key: PKCS #8, PEM, mode 600. The default is the group's name with
        /// the suffix .pem in the state directory.
        pub(in crate::config) signing_key_file: Option<Located<PathBuf>> = optional("signing-key-file")
            .example("\"/var/lib/gcks/branches.pem\"");
        /// Hash of signatures. sha1 needs `legacy = true`. ECDSA only allows the hash of its curve.
        /// The default is sha2-256 or the hash of the curve.
        pub(in crate::config) signature_hash: Option<Located<HashAlgorithm>> =
            optional_one_of("signature-hash", SIGNATURE_HASH)
                .example("\"sha2-256\"").applies(Applies::NextKek);
        /// Lifetime of a KEK.
        pub(in crate::config) lifetime: Duration = value("lifetime", Duration::from_secs(86_400))
            .within(Duration::from_secs(60)..=Duration::from_secs(30 * 86_400))
            .applies(Applies::NextKek);
        /// Interval between the transmissions of a push.
        pub(in crate::config) period: Duration =
            value("retransmission-period", DeliveryPolicy::default().period)
                .within(Duration::from_secs(2)..=Duration::from_secs(60)).applies(Applies::NextKek);
        /// Number of retransmissions of a push.
        pub(in crate::config) repetitions: u32 =
            value("retransmissions", DeliveryPolicy::default().repetitions)
                .within(0..=60).applies(Applies::NextKek);
        /// Whether members acknowledge pushes (RFC 8263).
        pub(in crate::config) acknowledgements: bool =
            value("acknowledgements", true).applies(Applies::NextKek);
        /// Drop a member that has acknowledged before and then fails to acknowledge three pushes in
        /// a row: it gets no more pushes, its keys expire, and it may pull again.
        pub(in crate::config) drop_unresponsive_members: bool =
            value("drop-unresponsive-members", false).applies(Applies::NextKek);
        /// Use a logical key hierarchy (LKH), so that a member can be evicted (`gdoictl remove`, or
        /// removal from this file) without interrupting the others. Without it, an eviction deletes
        /// all keys and everybody else registers again.
        pub(in crate::config) lkh: bool = value("lkh", false).applies(Applies::NextKek);
    }
}

const TRANSPORT: Names<TransportKind> =
    &[("unicast", TransportKind::Unicast), ("multicast", TransportKind::Multicast)];

const SIGNING_KEY: Names<SigningKeyKind> = &[
    ("rsa-2048", SigningKeyKind::Rsa(2048)),
    ("rsa-3072", SigningKeyKind::Rsa(3072)),
    ("rsa-4096", SigningKeyKind::Rsa(4096)),
    ("ecdsa-p256", SigningKeyKind::EcdsaP256),
    ("ecdsa-p384", SigningKeyKind::EcdsaP384),
];

const SIGNATURE_HASH: Names<HashAlgorithm> = &[
    ("sha2-256", HashAlgorithm::Sha2_256),
    ("sha2-384", HashAlgorithm::Sha2_384),
    ("sha2-512", HashAlgorithm::Sha2_512),
    ("sha1", HashAlgorithm::Sha1),
];

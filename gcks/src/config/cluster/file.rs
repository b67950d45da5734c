//! The options of `[[cluster-server]]` and `[group.cluster]`, declared once.

use std::net::IpAddr;
use std::time::Duration;

use daemon::configuration::{
    Applies, Located, Names, Place, is_named, key_source, list, optional, optional_list,
    optional_one_of, place, required, value,
};
use daemon::options;
use daemon::secrets::SecretSource;
use ike::config::Identity;

use super::Role;

options! {
    /// Another key server of the cluster, for the groups whose [group.cluster] names it. Servers
    /// ask each other all the time whether they are alive (RFC 3706); members are never asked.
    pub struct Server {
        pub(super) place: Option<Place> = place();
        /// Name for [group.cluster], logs and gdoictl.
        pub(in crate::config) name: Option<Located<String>> = required("name").set("\"ks2\"")
            .applies(Applies::Restart);
        /// Where it is: an address from which no member registers. The UDP port is the one of this
        /// server.
        pub(in crate::config) address: Option<Located<IpAddr>> = required("address").set("\"10.0.9.2\"")
            .applies(Applies::Restart);
        /// Where it is as well: several machines with one state in etcd are one server, of which one
        /// is active. They are tried in this order when the one before does not answer.
        pub(super) further_addresses: Vec<Located<IpAddr>> = optional_list("further-addresses")
            .example("[\"10.0.9.12\"]").applies(Applies::Restart);
        /// Our address towards it. The default is the only address of that family that the server
        /// listens on.
        pub(super) local_address: Option<Located<IpAddr>> = optional("local-address")
            .set("\"10.0.9.1\"").applies(Applies::Restart);
        /// The identity that it has to prove. The default is its address.
        pub(super) identity: Option<Located<Identity>> = optional("identity")
            .example("{ fqdn = \"ks2.example.net\" }").applies(Applies::Restart);
        /// The key that both servers share, and no member has: a file of mode 600 that holds the
        /// key and at most one newline. Required, here or as a credential, unless the servers have
        /// certificates.
        pub(super) pre_shared_key: Option<Located<SecretSource>> =
            key_source("pre-shared-key-file", "pre-shared-key-credential")
                .set("\"/etc/gcks/ks2.psk\"").applies(Applies::Restart);
        /// Whether a key was named, right or wrong.
        pub(super) names_key: bool = is_named(&["pre-shared-key-file", "pre-shared-key-credential"]);
        /// The [[certificate]] that is shown to it, and by whose authorities its own is verified, in
        /// the place of a pre-shared key. It has to name our identity, or our address towards it.
        pub(super) certificate: Option<Located<String>> = optional("certificate")
            .example("\"site\"").applies(Applies::Restart);
        /// Interval of the questions whether it is alive.
        pub(super) liveness_interval: Duration =
            value("liveness-interval", Duration::from_secs(10))
                .within(Duration::from_secs(10)..=Duration::from_secs(60))
                .applies(Applies::Restart);
        /// How many questions in a row a dead server leaves unanswered.
        pub(super) liveness_threshold: u32 =
            value("liveness-threshold", 5).within(1..=5).applies(Applies::Restart);
    }

    /// One server makes the keys of a group, the root; up to four sub-servers distribute them.
    /// Members register at any of them. Exactly one server of a group is its root, and a server has
    /// the same role in all its groups.
    pub struct File {
        pub(super) place: Option<Place> = place();
        /// "root-server" or "sub-server".
        pub(super) role: Option<Located<Role>> = optional_one_of("role", ROLE)
            .set("\"root-server\"").applies(Applies::Restart);
        /// Of the root: its sub-servers, one to four, by the name of their [[cluster-server]]. Of a
        /// sub-server: its root alone.
        pub(super) servers: Vec<Located<String>> = list("servers").set("[\"ks2\"]")
            .applies(Applies::Restart);
        /// Interval between the transmissions of new keys to a sub-server that has not acknowledged
        /// them.
        pub(super) period: Duration =
            value("retransmission-period", Duration::from_secs(10))
                .within(Duration::from_secs(2)..=Duration::from_secs(60))
                .applies(Applies::Restart);
    }
}

const ROLE: Names<Role> = &[("root-server", Role::RootServer), ("sub-server", Role::SubServer)];

impl Server {
    /// Wherever it may be.
    pub(in crate::config) fn all_addresses(&self) -> impl Iterator<Item = &Located<IpAddr>> {
        self.address.iter().chain(&self.further_addresses)
    }
}

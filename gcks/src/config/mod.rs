//! The configuration: [`mod@file`] is what was typed, [`check`] raises it to the values below.

pub mod change;
pub mod check;
pub mod cluster;
pub mod difference;
pub mod file;
pub mod fixed;
pub mod names;
pub mod rekey;
pub mod rekey_timing;
pub mod tek_algorithm;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use daemon::configuration::{self, Loaded, Located, NamedCertificate, Section as _, Table};
use gdoi::config::{ByteOrder, PolicyForm, Trailer};
use gdoi::group::{
    AddressPreservation, EncapsulationMode, GroupAssociatedPolicy, GroupId, SaDirection,
    TekProtection, TekProtocol, TrafficSelector,
};
use gdoi::push::{KekPacketSpi, SealOptions, SignedLength};
use ike::config::{Credential, Identity, Phase1Policy};
use ike::crypto::{RsaForm, Secret};
use ike::endpoint::Limits;
use ipnet::IpNet;

use crate::config::change::Change;
use crate::config::tek_algorithm::{Encryption, Integrity};
use crate::etcd;

pub use self::cluster::{Cluster, Server};
pub use daemon::configuration::Report;
pub use fixed::Fixed;
pub use rekey::{KekEncryption, MulticastPath, Rekey, SigningKeyKind, Transport};

/// Everything the daemon acts on.
#[derive(Debug)]
pub struct Config {
    pub control_socket: PathBuf,
    pub listen: Vec<SocketAddr>,
    /// Our phase-1 identity; `None` is the address the member wrote to.
    pub identity: Option<Identity>,
    /// What phase 1 may negotiate.
    pub phase1: Phase1Policy,
    /// Bounds on work for strangers.
    pub limits: Limits,
    /// Octets of datagrams that may wait at each address.
    pub receive_buffer: u32,
    /// Where state and signing keys are kept.
    pub state_directory: PathBuf,
    /// Whether the state is kept across a restart.
    pub keep_state: bool,
    /// What seals the state: 16 or 32 octets; `None` is a key of its own in the state directory.
    pub state_key: Option<Secret>,
    /// Where the state is kept instead, and several servers are one.
    pub etcd: Option<etcd::Settings>,
    pub members: Vec<Member>,
    /// The other servers of the cluster.
    pub servers: Vec<Server>,
    /// Members that may be registered here in all groups together.
    pub most_members: Option<usize>,
    pub groups: Vec<Group>,
    /// What certificates there are, used or not.
    pub certificates: Vec<NamedCertificate>,
}

/// Somebody who may register: one router, or all within a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name for logs and `gdoictl`.
    pub name: String,
    /// Where it registers from.
    pub addresses: IpNet,
    /// The identity it must prove; `None` is its address.
    pub identity: Option<Identity>,
    /// What proves its identity to us, and ours to it.
    pub credential: Credential,
    /// The groups it may have.
    pub groups: BTreeSet<GroupId>,
    /// Interoperability switch for the group id.
    pub group_id_byte_order: ByteOrder,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name for logs and `gdoictl`.
    pub name: String,
    /// The number by which members ask for it.
    pub id: GroupId,
    /// Its data SAs in the order of the file, which is the order of match.
    pub teks: Vec<TekTemplate>,
    /// Policy for the group as a whole.
    pub gap: GroupAssociatedPolicy,
    /// Width of sender identifiers in bits.
    pub sender_id_bits: u16,
    /// How its keys are pushed; `None` where members only pull.
    pub rekey: Option<Rekey>,
    /// What its members read in another way than RFC 6407 means it.
    pub interoperability: Interoperability,
    /// Members that may be registered here; more are not answered.
    pub member_threshold: Option<usize>,
    /// Its part in a cluster.
    pub cluster: Option<Cluster>,
}

/// Forms of a group's messages for members of an older kind. All members of a group get the same
/// pushes, so that they need the same forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Interoperability {
    /// What an RSA signature of a push covers.
    pub signature_form: RsaForm,
    /// Which Length of the header a push's signature covers.
    pub signed_length: SignedLength,
    /// Reserved octets of the SAK.
    pub trailer: Trailer,
    /// SPI of the key packet of a new KEK.
    pub kek_packet: KekPacketSpi,
    /// Order of the octets of addresses in traffic selectors.
    pub selector_byte_order: ByteOrder,
}

impl Interoperability {
    /// Forms of a push.
    pub fn seal_options(self) -> SealOptions {
        SealOptions {
            form: self.signature_form,
            length: self.signed_length,
            trailer: self.trailer,
            selectors: self.selector_byte_order,
            kek_packet: self.kek_packet,
        }
    }

    /// Form of a policy for a member that writes the group id in this order.
    pub fn policy_form(self, group_id: ByteOrder) -> PolicyForm {
        PolicyForm { group_id, trailer: self.trailer, selectors: self.selector_byte_order }
    }
}

/// What every TEK made for one data SA of a group has in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TekTemplate {
    /// Traffic selectors in order.
    pub selectors: Vec<TrafficSelector>,
    pub encryption: Encryption,
    /// Integrity; `None` for combined-mode encryption.
    pub integrity: Option<Integrity>,
    /// Who sends and who receives.
    pub direction: SaDirection,
    pub mode: EncapsulationMode,
    /// Which addresses the outer header keeps.
    pub address_preservation: AddressPreservation,
    /// Lifetime of a new TEK.
    pub lifetime: Duration,
}

impl TekTemplate {
    /// The protection with `lifetime` left.
    pub fn protection(&self, lifetime: Duration) -> TekProtection {
        TekProtection {
            protocol: TekProtocol::ESP,
            transform: self.encryption.transform,
            key_length: self.encryption.key_length,
            authentication: self.integrity.map(|integrity| integrity.algorithm),
            mode: self.mode,
            address_preservation: self.address_preservation,
            direction: self.direction,
            lifetime,
            lifetime_kilobytes: None,
        }
    }
}

/// What to do about a file that is longer than a configuration may be.
const TOO_LONG: &str = "put members into files of their own (member-files)";

/// Reads and checks the file at `path`, pre-shared keys included.
///
/// # Errors
/// A report of everything that is wrong.
pub fn load(path: &Path) -> Result<Loaded<Config>, Report> {
    configuration::load(path, TOO_LONG, |root| {
        let report = root.report();
        check::raise(typed(root), report)
    })
}

/// Reads the file at `path` for a daemon that runs with `fixed`; also tells what of it takes a
/// restart.
///
/// # Errors
/// As for [`load`].
pub fn load_again(path: &Path, fixed: &Fixed) -> Result<Loaded<(Config, Vec<Change>)>, Report> {
    configuration::load(path, TOO_LONG, |root| {
        let report = root.report();
        let mut file = typed(root);
        let mut held = fixed.hold(&mut file);
        let mut config = check::raise(file, report)?;
        held.extend(fixed.hold_state(&mut config));
        held.extend(fixed.hold_cluster(&mut config));
        Some((config, held))
    })
}

/// Checks `text`, which messages call `name`.
///
/// # Errors
/// A report of everything that is wrong.
pub fn parse(name: &str, text: &str) -> Result<Loaded<Config>, Report> {
    configuration::parse(name, text, |root| {
        let report = root.report();
        check::raise(typed(root), report)
    })
}

fn typed(mut root: Table<'_>) -> file::File {
    let mut file = file::File::read(&mut root);
    for named in &file.member_files {
        for path in files(named, root.report()) {
            let members =
                configuration::include(root.report(), named.place.clone(), &path, |mut root| {
                    let file = file::MemberFile::read(&mut root);
                    root.finish();
                    file.members
                });
            file.members.extend(members.into_iter().flatten());
        }
    }
    root.finish();
    file
}

/// A file, or the files of a directory.
fn files(named: &Located<PathBuf>, report: &Report) -> Vec<PathBuf> {
    if !named.value.is_dir() {
        return vec![named.value.clone()];
    }
    let listed = || -> io::Result<Vec<PathBuf>> {
        let paths = fs::read_dir(&named.value)?.map(|entry| Ok(entry?.path()));
        paths.collect()
    };
    let mut paths = listed().unwrap_or_else(|error| {
        let message = format!("member-files: {} cannot be read: {error}", named.display());
        report.error(Some(named.place.clone()), message, "let the daemon's user read it");
        Vec::new()
    });
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths
}

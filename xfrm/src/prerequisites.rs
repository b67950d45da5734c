//! What the machine must provide before anything else makes sense, each lack with its remedy.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use std::fs;
use std::io::ErrorKind;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_xfrm::constants::{XFRM_MSG_DELSA, XFRM_MSG_GETPOLICY, XFRM_MSG_NEWSA};

use crate::algorithm::{Aead, Encryption, Integrity, Protection};
use crate::error::{EEXIST, EINTR, ENOSYS, EPERM, EPROTONOSUPPORT, Error};
use crate::kernel::netlink::channel::{Channel, Netfilter, Xfrm};
use crate::kernel::netlink::sa as wire;
use crate::key::Key;
use crate::model::{Install, Reqid, Sa, SaId, SaRole};
use crate::nft::table::{BATCH, BATCH_BEGIN, BATCH_END, GET_TABLE, header};
use crate::ownership::Ownership;

/// Something missing or switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The process may not change the network configuration.
    Permission,
    /// The kernel has no XFRM.
    NoXfrm(String),
    /// The kernel has no ESP for IPv4.
    NoEsp,
    /// The kernel lacks an ESP algorithm.
    NoAlgorithm(&'static str),
    /// The kernel has no nf_tables, or not all that the tables need.
    NoNfTables(String),
    /// `disable_xfrm` or `disable_policy` is set on this interface: XFRM does nothing there, in
    /// silence.
    XfrmDisabled {
        /// The interface, or `all`.
        interface: String,
        /// The setting: `disable_xfrm` or `disable_policy`.
        setting: &'static str,
    },
    /// `ip_forward` is off: hosts behind this member reach nothing.
    ForwardingOff,
    /// A fact could not be read.
    Unreadable {
        /// The fact, such as a setting below /proc/sys.
        what: String,
        /// What the operating system said.
        reason: String,
    },
}

impl Problem {
    /// Whether starting makes no sense with this problem: nothing can be blocked, and that does
    /// not change while the process runs. The others come and go.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Permission)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission => {
                write!(f, "XFRM and nf_tables may not be changed: the process needs CAP_NET_ADMIN")
            }
            Self::NoXfrm(reason) => {
                write!(f, "the kernel has no XFRM ({reason}): modprobe xfrm_user")
            }
            Self::NoEsp => write!(f, "the kernel has no ESP: modprobe esp4"),
            Self::NoAlgorithm(name) => {
                write!(f, "the kernel has no {name} for ESP: load its module")
            }
            Self::NoNfTables(what) => {
                write!(f, "the kernel lacks nf_tables ({what}): modprobe nf_tables")
            }
            Self::XfrmDisabled { interface, setting } => write!(
                f,
                "{setting} is set on {interface} and turns protection off in silence: \
                 sysctl -w net/ipv4/conf/{interface}/{setting}=0"
            ),
            Self::ForwardingOff => {
                write!(f, "IPv4 forwarding is off: sysctl -w net.ipv4.ip_forward=1")
            }
            Self::Unreadable { what, reason } => write!(f, "{what} cannot be read: {reason}"),
        }
    }
}

/// Looks at the machine. `interfaces` are those of the zones, by name, and `lans` those of them
/// whose `disable_policy` is ours. Empty: all is well.
///
/// Trying algorithms installs and deletes an inbound state to 192.0.2.255, which no packet carries;
/// this also makes the kernel load the modules before a registration needs them.
pub async fn check_prerequisites(interfaces: &[String], lans: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    match check_xfrm().await {
        Ok(()) => problems.extend(check_esp().await),
        Err(problem) => problems.push(problem),
    }
    problems.extend(check_nf_tables().await.err().filter(|problem| !problems.contains(problem)));
    problems.extend(check_settings(interfaces, lans));
    problems
}

/// The settings of the kernel that can change at any time: worth another look now and then.
pub fn check_settings(interfaces: &[String], lans: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let all = ["all"].into_iter().chain(interfaces.iter().map(String::as_str));
    for interface in all {
        let exempt = lans.iter().any(|lan| lan == interface);
        let settings =
            if exempt { &["disable_xfrm"][..] } else { &["disable_xfrm", "disable_policy"] };
        for setting in settings {
            match read_setting(&format!("conf/{interface}/{setting}")) {
                Ok(Some(true)) => problems
                    .push(Problem::XfrmDisabled { interface: interface.to_owned(), setting }),
                // An interface that is not there has no settings; other checks name it.
                Ok(Some(false) | None) => {}
                Err(problem) => problems.push(problem),
            }
        }
    }
    match read_setting("ip_forward") {
        Ok(Some(true)) => {}
        Ok(_) => problems.push(Problem::ForwardingOff),
        Err(problem) => problems.push(problem),
    }
    problems
}

fn read_setting(name: &str) -> Result<Option<bool>, Problem> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim() != "0")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem::Unreadable { what: path, reason: error.to_string() }),
    }
}

async fn check_xfrm() -> Result<(), Problem> {
    let none = |error: Error| match error.errno() {
        Some(EPERM) => Problem::Permission,
        _ => Problem::NoXfrm(error.to_string()),
    };
    let mut channel = Channel::<Xfrm>::open().map_err(none)?;
    let listed = channel.dump("list policies", XFRM_MSG_GETPOLICY, &[], |_| Ok(())).await;
    unless_interrupted(listed).map_err(none)
}

async fn check_nf_tables() -> Result<(), Problem> {
    let none = |error: Error| match error.errno() {
        Some(EPERM) => Problem::Permission,
        _ => Problem::NoNfTables(error.to_string()),
    };
    let mut channel = Channel::<Netfilter>::open().map_err(none)?;
    let any = header(0);
    let listed = channel.dump("list nf_tables tables", GET_TABLE, &any, |_| Ok(())).await;
    unless_interrupted(listed).map_err(none)?;
    // Adding a table and taking it back in one transaction: asks for the permission and changes
    // nothing.
    let messages = crate::nft::table::remove("gdoi-probe", 0);
    let (begin, end) = ((BATCH_BEGIN, &BATCH[..]), (BATCH_END, &BATCH[..]));
    channel.transaction("try nf_tables", begin, &messages, end).await.map_err(none)
}

/// A list that somebody else's change interrupted was there all the same.
fn unless_interrupted(listed: Result<(), Error>) -> Result<(), Error> {
    listed.or_else(|error| if error.errno() == Some(EINTR) { Ok(()) } else { Err(error) })
}

/// Tries each algorithm by an inbound state that no packet finds.
async fn check_esp() -> Vec<Problem> {
    let mut channel = match Channel::<Xfrm>::open() {
        Ok(channel) => channel,
        Err(error) => return vec![Problem::NoXfrm(error.to_string())],
    };
    let mut problems = Vec::new();
    for (name, protection) in samples() {
        let sa = probe(protection);
        let Ok(body) = wire::encode(&sa) else { continue };
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let outcome =
            channel.change("try an ESP state", XFRM_MSG_NEWSA, flags, body.as_octets()).await;
        match outcome {
            Ok(()) => {
                // The state of a failed deletion is removed by the next reconciliation: it carries
                // a reqid of ours.
                let _ =
                    channel.change("delete it", XFRM_MSG_DELSA, 0, &wire::encode_id(&sa.id)).await;
            }
            Err(error) => match error.errno() {
                Some(EEXIST) => {}
                Some(EPROTONOSUPPORT) => return vec![Problem::NoEsp],
                Some(EPERM) => return vec![Problem::Permission],
                Some(ENOSYS) => problems.push(Problem::NoAlgorithm(name)),
                _ => problems
                    .push(Problem::Unreadable { what: name.to_owned(), reason: error.to_string() }),
            },
        }
    }
    problems
}

/// One of each algorithm. 3DES is left out: it is no lack where it is not asked for.
fn samples() -> Vec<(&'static str, Protection)> {
    let key = |lengths: &[usize]| Key::copy_from(&vec![0x5a; lengths.last().copied().unwrap_or(0)]);
    let separate = |encryption: Encryption, integrity: Integrity| Protection::Separate {
        encryption,
        encryption_key: key(encryption.key_lengths().0),
        integrity,
        integrity_key: key(integrity.key_lengths().0),
    };
    let mut samples = Vec::new();
    for integrity in Integrity::ALL {
        samples.push((integrity.kernel_name(), separate(Encryption::AesCbc, integrity)));
    }
    samples.push((
        Encryption::Null.kernel_name(),
        separate(Encryption::Null, Integrity::HmacSha2_256_128),
    ));
    for aead in Aead::ALL {
        samples.push((
            aead.kernel_name(),
            Protection::Combined { aead, key: key(aead.key_lengths().0), icv: 16 },
        ));
    }
    samples
}

fn probe(protection: Protection) -> Sa {
    Sa {
        id: SaId { destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 255)), spi: 0x7f00_0001 },
        source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        role: SaRole::Inbound,
        reqid: Reqid(*Ownership::default().reqids.end()),
        protection,
        no_path_mtu_discovery: false,
        sequence_may_wrap: false,
        install: Install::Freely,
        hard_lifetime: None,
        unicast: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_names_its_remedy() {
        let disabled =
            Problem::XfrmDisabled { interface: String::from("eth0.1"), setting: "disable_xfrm" };
        for (problem, remedy, fatal) in [
            (Problem::Permission, "CAP_NET_ADMIN", true),
            (Problem::NoXfrm(String::new()), "modprobe xfrm_user", false),
            (Problem::NoEsp, "modprobe esp4", false),
            (Problem::NoNfTables(String::new()), "modprobe nf_tables", false),
            (disabled, "sysctl -w net/ipv4/conf/eth0.1/disable_xfrm=0", false),
            (Problem::ForwardingOff, "sysctl -w net.ipv4.ip_forward=1", false),
        ] {
            assert!(problem.to_string().contains(remedy), "{problem}");
            assert_eq!(problem.is_fatal(), fatal);
        }
    }

    #[test]
    fn samples_are_well_formed() {
        for (name, protection) in samples() {
            assert_eq!(protection.check(), Ok(()), "{name}");
        }
    }
}

//! What the benchmarks of the key server share: one group, one member's key, and how the kernel
//! counts time.

#![allow(dead_code, unreachable_pub, reason = "every benchmark uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that fails has nothing to go on with"
)]

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gdoi::config::RegistrationConfig;
use gdoi::group::GroupId;
use ike::config::{Identity, Phase1Policy, Phase1Transform, RetransmissionPolicy};
use ike::crypto::Secret;
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption};

pub const KEY: &str = "the pre-shared key of the benchmark";

/// A configuration with one group and members of the prefix `members`, whose key is written beside
/// it.
pub fn configuration(directory: &Path, head: &str, members: &str, tail: &str) -> String {
    let key = directory.join("key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    format!(
        "{head}\n[[member]]\nname = \"member\"\naddress = \"{members}\"\npre-shared-key-file = \"{}\"\n\
         groups = [\"group\"]\n[[group]]\nname = \"group\"\nid = 1\n\
         [[group.tek]]\nencryption = \"aes-256-cbc\"\nintegrity = \"hmac-sha2-256-128\"\n\
         [[group.tek.policy]]\nsource = \"172.16.0.0/12\"\ndestination = \"172.16.0.0/12\"\n{tail}\n",
        key.display()
    )
}

/// What a member at `local` asks for.
pub fn registration(local: SocketAddr, server: SocketAddr, group: DhGroup) -> RegistrationConfig {
    let transform = Phase1Transform {
        encryption: Phase1Encryption::Aes256Cbc,
        hash: HashAlgorithm::Sha2_256,
        group,
        authentication: Default::default(),
    };
    RegistrationConfig {
        unix_seconds: 0,
        server,
        local,
        group: GroupId(1),
        group_id_byte_order: Default::default(),
        selector_byte_order: Default::default(),
        sender_ids: None,
        identity: Identity::Address(local.ip()),
        expected_identity: Identity::Address(server.ip()),
        credential: ike::config::Credential::PreSharedKey(Arc::new(Secret::copy_from(
            KEY.as_bytes(),
        ))),
        initial_contact: false,
        phase1: Phase1Policy {
            doi: ike::wire::registry::Doi::GDOI,
            port: gdoi::PORT,
            transforms: vec![transform],
            lifetime: Duration::from_secs(3600),
        },
        retransmission: RetransmissionPolicy::default(),
    }
}

/// The number behind `name` on the command line.
pub fn option(name: &str, default: u32) -> u32 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments
        .next()
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
}

/// Time on a processor, user and system together, of all threads that `process` has now; its
/// identifier, or `thread-self` for the calling thread alone.
pub fn processor_time(process: &str) -> Duration {
    let tasks = match process {
        "thread-self" => vec![PathBuf::from("/proc/thread-self")],
        process => {
            let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
            tasks.map(|task| task.unwrap().path()).collect()
        }
    };
    tasks.iter().map(|task| processor_time_of(task)).sum()
}

/// The same of one thread, by its folder in /proc.
pub fn processor_time_of(task: &Path) -> Duration {
    // The first figure of proc(5) schedstat, in nanoseconds. That of a process is its first
    // thread's.
    let text = fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

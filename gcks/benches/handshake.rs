//! Main mode as responder: `gcks` and strongSwan's charon side by side, under the same clients.
//!
//! Each handshake is six messages with a pre-shared key and a Delete. What counts is the processor
//! time that the kernel books for each daemon, so that clients and other work on the machine do not
//! matter; both daemons are asked in turn within every round, and the ratio is taken within the
//! round. What the busiest thread of a daemon has to do says how many cores it can use.
//!
//! Needs root (a network namespace, charon's ports), Debian's strongswan-charon and
//! strongswan-swanctl:
//! `cargo bench -p gcks --bench handshake -- [--rounds N] [--handshakes N] [--clients N]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that fails has nothing to go on with"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use daemon::{clock, entropy};
use ike::config::{Credential, Identity, Phase1Policy, Phase1Transform, RetransmissionPolicy};
use ike::crypto::{DhGroup, HashAlgorithm, Phase1Encryption, Secret};
use ike::dead_peer_detection::{Mode, Settings};
use ike::peer::{Peer, PeerConfig, PeerEvent};
use ike::phase1::NatTraversal;
use ike::session::PeerAddress;
use ike::wire::registry::Doi;
use support::option;

const GROUPS: [(DhGroup, &str); 2] =
    [(DhGroup::Modp2048, "MODP 2048 (14)"), (DhGroup::Ecp256, "ECP 256 (19)")];
const SERVER: [u8; 4] = [10, 98, 0, 1];
const CLIENT: [u8; 4] = [10, 98, 0, 2];
const INSIDE: &str = "HANDSHAKE_NAMESPACE";
const CHARON: &str = "/usr/lib/ipsec/charon";

/// A daemon that ends with the benchmark.
struct Responder {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    doi: Doi,
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For one handshake.
#[derive(Clone, Copy)]
struct Sample {
    /// Processor time of the daemon.
    processor: f64,
    /// That of its busiest thread.
    busiest: f64,
    elapsed: f64,
}

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount"]).arg(program).args(std::env::args_os().skip(1));
        panic!("unshare: {}", command.env(INSIDE, "1").exec());
    }
    let (rounds, handshakes, clients) =
        (option("--rounds", 5), option("--handshakes", 400), option("--clients", 2));
    let sh =
        |line: &str| assert!(Command::new("sh").args(["-ec", line]).status().unwrap().success());
    // charon's process file is nobody else's business.
    sh("ip link set lo up; ip addr add 10.98.0.1/32 dev lo; ip addr add 10.98.0.2/32 dev lo
        mount -t tmpfs none /run");
    let directory = tempfile::tempdir().unwrap();
    let daemons = [gcks(directory.path()), charon(directory.path())];
    println!(
        "{handshakes} handshakes a round of {clients} clients, {rounds} rounds, daemons alternating"
    );
    println!(
        "{:<16}{:<8}{:>16}{:>12}{:>18}{:>14}",
        "group", "daemon", "per core and s", "CPU each", "busiest thread", "elapsed each"
    );
    for (group, name) in GROUPS {
        for daemon in &daemons {
            // Tables and caches are warm before anything counts.
            let _ = measure(daemon, group, 50, 1);
        }
        let mut samples: [Vec<Sample>; 2] = Default::default();
        for _ in 0..rounds {
            for (daemon, samples) in daemons.iter().zip(&mut samples) {
                samples.push(measure(daemon, group, handshakes, clients));
            }
        }
        for (daemon, samples) in daemons.iter().zip(&samples) {
            let cpu = median(samples.iter().map(|sample| sample.processor));
            let busiest = median(samples.iter().map(|sample| sample.busiest));
            let elapsed = median(samples.iter().map(|sample| sample.elapsed));
            println!(
                "{name:<16}{:<8}{:>16.0}{:>9.0} us{:>15.0} us{:>11.0} us",
                daemon.name,
                1.0 / cpu,
                cpu * 1e6,
                busiest * 1e6,
                elapsed * 1e6
            );
            // Of two cores the one with the busiest thread is full first.
            let cores = median(
                samples.iter().map(|one| one.processor / one.busiest.max(one.processor / 2.0)),
            );
            println!("{:<24}with two cores at most {cores:.2} times what one carries", "");
        }
        let [ours, theirs] = &samples;
        let ratios =
            ours.iter().zip(theirs).map(|(ours, theirs)| theirs.processor / ours.processor);
        println!("{name:<16}gcks / charon, per core: {:.2} (bar 1.00)", median(ratios));
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn gcks(directory: &Path) -> Responder {
    let address = SocketAddr::from((SERVER, 848));
    let config = directory.join("gcks.toml");
    let head = format!(
        "control-socket = \"{}/control.sock\"\nlisten = [\"10.98.0.1\"]\n\
         keep-state = false\n[ike]\nencryption = [\"aes-256-cbc\"]\nhash = [\"sha2-256\"]\ndh-group = [14, 19]",
        directory.display()
    );
    fs::write(&config, support::configuration(directory, &head, "10.98.0.2", "")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gcks"));
    let child = command.arg("--config").arg(config).stderr(Stdio::null()).spawn().unwrap();
    let responder = Responder { name: "gcks", child, address, doi: Doi::GDOI };
    wait(|| directory.join("control.sock").exists());
    responder
}

fn charon(directory: &Path) -> Responder {
    let uri = format!("unix://{}/vici", directory.display());
    let settings = format!(
        "charon {{\n  block_threshold = 0\n  cookie_threshold = 0\n  ikesa_table_size = 1024\n  \
         ikesa_table_segments = 16\n  install_routes = no\n  syslog {{\n    daemon {{\n      default = \
         -1\n    }}\n    auth {{\n      default = -1\n    }}\n  }}\n  plugins {{\n    vici {{\n      \
         socket = {uri}\n    }}\n  }}\n}}\n"
    );
    fs::write(directory.join("strongswan.conf"), settings).unwrap();
    let connections = format!(
        "connections {{\n  bench {{\n    version = 1\n    unique = never\n    local_addrs = \
         10.98.0.1\n    proposals = aes256-sha256-modp2048, aes256-sha256-ecp256\n    local {{\n      \
         auth = psk\n    }}\n    remote {{\n      auth = psk\n    }}\n    children {{\n      net \
         {{\n      }}\n    }}\n  }}\n}}\nsecrets {{\n  ike-bench {{\n    secret = \"{}\"\n  }}\n}}\n",
        support::KEY
    );
    let file = directory.join("swanctl.conf");
    fs::write(&file, connections).unwrap();
    let mut command = Command::new(CHARON);
    command.env("STRONGSWAN_CONF", directory.join("strongswan.conf"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.expect("install strongswan-charon");
    let address = SocketAddr::from((SERVER, 500));
    let responder = Responder { name: "charon", child, address, doi: Doi::IPSEC };
    wait(|| {
        let mut swanctl = Command::new("swanctl");
        swanctl.args(["--load-all", "--noprompt", "--uri", &uri, "--file"]).arg(&file);
        let output = swanctl.output().expect("install strongswan-swanctl");
        String::from_utf8_lossy(&output.stdout).contains("loaded connection 'bench'")
    });
    responder
}

fn wait(is_ready: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_ready() {
        assert!(begin.elapsed() < Duration::from_secs(60), "a daemon does not start");
        thread::sleep(Duration::from_millis(50));
    }
}

fn measure(daemon: &Responder, group: DhGroup, handshakes: u32, clients: u32) -> Sample {
    let (before, begin) = (threads(daemon.child.id()), Instant::now());
    let each = handshakes / clients;
    let (address, doi) = (daemon.address, daemon.doi);
    let clients: Vec<_> = (0..clients)
        .map(|_| thread::spawn(move || (0..each).for_each(|_| handshake(address, doi, group))))
        .collect();
    let done = f64::from(each) * f64::from(u32::try_from(clients.len()).unwrap());
    clients.into_iter().for_each(|client| client.join().unwrap());
    let elapsed = begin.elapsed().as_secs_f64() / done;
    // What came last, the Delete, is still to be worked on.
    thread::sleep(Duration::from_millis(50));
    let used: Vec<f64> = threads(daemon.child.id())
        .into_iter()
        .map(|(thread, time)| time - before.get(&thread).copied().unwrap_or_default())
        .map(|time| time / done)
        .collect();
    let busiest = used.iter().copied().fold(0.0, f64::max);
    Sample { processor: used.iter().sum(), busiest, elapsed }
}

/// Seconds on a processor of each thread of a process.
fn threads(process: u32) -> BTreeMap<String, f64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let time = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
        let time = Duration::from_nanos(nanoseconds).as_secs_f64();
        Some((task.file_name().to_string_lossy().into_owned(), time))
    };
    tasks.filter_map(|task| time(task.unwrap())).collect()
}

/// One handshake to its end, from an address that nobody has spoken from before.
fn handshake(server: SocketAddr, doi: Doi, group: DhGroup) {
    let socket = UdpSocket::bind(SocketAddr::from((CLIENT, 0))).unwrap();
    let local = socket.local_addr().unwrap();
    let transform = Phase1Transform {
        encryption: Phase1Encryption::Aes256Cbc,
        hash: HashAlgorithm::Sha2_256,
        group,
        authentication: Default::default(),
    };
    let key = Secret::copy_from(support::KEY.as_bytes());
    let config = PeerConfig {
        mode: ike::config::Phase1Mode::Main,
        shares_address: false,
        address: PeerAddress { remote: server, local },
        identity: Identity::Address(local.ip()),
        expected_identity: Identity::Address(server.ip()),
        credential: Credential::PreSharedKey(Arc::new(key)),
        phase1: Phase1Policy {
            doi,
            port: server.port(),
            transforms: vec![transform],
            lifetime: Duration::from_secs(3600),
        },
        retransmission: RetransmissionPolicy::default(),
        dead_peer_detection: Settings { mode: Mode::Off, ..Settings::default() },
        nat: NatTraversal::Off,
        vendor_ids: Vec::new(),
        children: Vec::new(),
    };
    let mut peer = Peer::new(config, entropy::seed().unwrap());
    peer.connect(clock::now());
    let mut buffer = [0; 4096];
    let mut established = false;
    loop {
        while let Some(event) = peer.poll_event() {
            match event {
                PeerEvent::Established { .. } => {
                    established = true;
                    peer.disconnect();
                }
                PeerEvent::Phase1Failed(failure) => panic!("{failure}"),
                _ => {}
            }
        }
        while let Some(transmit) = peer.poll_transmit() {
            socket.send_to(&transmit.payload, transmit.destination).unwrap();
        }
        if established {
            return;
        }
        let due = peer.poll_timeout().expect("main mode is under way").at;
        let wait = due.saturating_since(clock::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).unwrap();
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let _ = peer.handle_datagram(source, local, &buffer[..length], clock::now());
            }
            Err(_) => peer.handle_timeout(clock::now()),
        }
    }
}

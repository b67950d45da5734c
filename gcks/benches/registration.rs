//! How many registrations one core of a key server carries, and how much of its time is modular
//! arithmetic.
//!
//! The built daemon serves members over the loopback interface, one after the other. What counts is
//! the processor time that the kernel books for the daemon, system calls included, so that other
//! work on the machine does not matter; the arithmetic is timed by the same clock in the same run,
//! with the daemon's own implementation.
//!
//! Then many members register at once, and the time of each thread counts: modular arithmetic is the
//! workers', one for each processor, and what the event loop does by itself bounds what a second
//! processor brings. Members need processors too, so that the rate itself says nothing on a machine
//! that they share with the server.
//!
//! `cargo bench -p gcks --bench registration -- [--rounds N] [--registrations N] [--members N]`

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
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use daemon::{clock, entropy};
use gdoi::event::RegistrationEvent;
use gdoi::member::Registration;
use ike::crypto::DhGroup;
use ike::crypto::dh::{KeyPair, PublicValue};
use ike::crypto::rng::SeededRng;
use support::{option, processor_time, processor_time_of};

const GROUPS: [(DhGroup, &str); 2] =
    [(DhGroup::Modp2048, "MODP 2048 (14)"), (DhGroup::Ecp256, "ECP 256 (19)")];

/// A daemon that ends with the benchmark.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
struct Sample {
    /// The daemon's processor time for one registration.
    server: f64,
    /// Processor time of the arithmetic in it.
    arithmetic: f64,
    /// Elapsed time of one registration, the member's own work included.
    elapsed: f64,
}

/// What a second processor has to bring.
const BAR: f64 = 1.7;

fn main() -> ExitCode {
    let rounds = option("--rounds", 5);
    let registrations = option("--registrations", 200);
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    println!(
        "gcks serves {registrations} registrations a round, {rounds} rounds, groups alternating"
    );
    let mut samples: [Vec<Sample>; GROUPS.len()] = Default::default();
    for (group, _) in GROUPS {
        // Tables and caches are warm before anything counts.
        measure(&server, group, registrations.min(20));
    }
    for _ in 0..rounds {
        for ((group, _), samples) in GROUPS.into_iter().zip(&mut samples) {
            samples.push(measure(&server, group, registrations));
        }
    }
    println!(
        "{:<16}{:>16}{:>16}{:>16}{:>12}{:>18}",
        "group", "per core and s", "CPU each", "arithmetic", "share", "elapsed, 1 member"
    );
    for ((_, name), samples) in GROUPS.into_iter().zip(&samples) {
        let cpu = median(samples, |sample| sample.server);
        let arithmetic = median(samples, |sample| sample.arithmetic);
        let share = median(samples, |sample| sample.arithmetic / sample.server);
        let elapsed = median(samples, |sample| sample.elapsed);
        println!(
            "{name:<16}{:>16.0}{:>13.0} us{:>13.0} us{:>11.0}%{:>15.0} us",
            1.0 / cpu,
            cpu * 1e6,
            arithmetic * 1e6,
            share * 100.0,
            elapsed * 1e6
        );
    }
    let members = option("--members", 16);
    println!(
        "{members} members at once, {} registrations: processor time of the threads for each",
        registrations * rounds
    );
    println!(
        "{:<16}{:>14}{:>14}{:>28}{:>22}",
        "group", "event loop", "workers", "busiest worker's share", "speed-up on 2 cores"
    );
    let mut speed_ups = Vec::new();
    for (group, name) in GROUPS {
        let Threads { event_loop, workers } =
            measure_threads(&server, group, registrations * rounds, members);
        let all: f64 = workers.iter().sum();
        let busiest = workers.iter().copied().fold(0.0, f64::max);
        // Neither more than two cores, nor faster than the loop alone.
        let speed_up = ((event_loop + all) / event_loop).min(2.0);
        speed_ups.push(speed_up);
        println!(
            "{name:<16}{:>11.0} us{:>11.0} us{:>27.0}%{:>22}",
            event_loop * 1e6,
            all * 1e6,
            busiest / all * 100.0,
            format!("{speed_up:.2} (bar {BAR})")
        );
    }
    let [modp, ecp] = samples.each_ref().map(|samples| median(samples, |sample| sample.server));
    println!("ECP 256 carries {:.1} times the registrations of MODP 2048", modp / ecp);
    match speed_ups.iter().all(|speed_up| *speed_up >= BAR) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Processor time for one registration.
struct Threads {
    event_loop: f64,
    /// Each that computes key exchanges.
    workers: Vec<f64>,
}

/// Members that register at the same time, each one behind the other.
fn measure_threads(server: &Server, group: DhGroup, registrations: u32, members: u32) -> Threads {
    let process = server.child.id();
    let before = thread_times(process);
    std::thread::scope(|scope| {
        for member in 0..members {
            scope.spawn(move || {
                (0..registrations / members).for_each(|_| register(server.address, group, member))
            });
        }
    });
    let made = f64::from(registrations / members * members);
    let mut threads = Threads { event_loop: 0.0, workers: Vec::new() };
    for (thread, (name, time)) in thread_times(process) {
        let before = before.get(&thread).map(|(_, time)| *time).unwrap_or_default();
        let each = time.saturating_sub(before).as_secs_f64() / made;
        match name.starts_with("key-exchange") {
            true => threads.workers.push(each),
            // The state is not kept, and no other thread has anything to do.
            false => threads.event_loop += each,
        }
    }
    threads
}

/// Name and processor time of each thread of a process.
fn thread_times(process: u32) -> BTreeMap<String, (String, Duration)> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let thread = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = fs::read_to_string(entry.path().join("comm")).unwrap();
        let number = entry.file_name().to_string_lossy().into_owned();
        let time = processor_time_of(&entry.path());
        (number, (name, time))
    };
    threads.map(thread).collect()
}

fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn start(directory: &Path) -> Server {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = directory.join("gcks.toml");
    let head = format!(
        "control-socket = \"{}/control.sock\"\nlisten = [\"127.0.0.1\"]\nport = {port}\n\
         keep-state = false\n[ike]\nencryption = [\"aes-256-cbc\"]\nhash = [\"sha2-256\"]\ndh-group = [14, 19]",
        directory.display()
    );
    let text = support::configuration(directory, &head, "127.1.0.0/16", "");
    fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_gcks"))
        .arg("--config")
        .arg(config)
        .stderr(Stdio::null())
        .spawn();
    let server =
        Server { child: child.unwrap(), address: SocketAddr::from(([127, 0, 0, 1], port)) };
    let begin = Instant::now();
    while !directory.join("control.sock").exists() {
        assert!(begin.elapsed() < Duration::from_secs(20), "gcks does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    server
}

fn measure(server: &Server, group: DhGroup, registrations: u32) -> Sample {
    let process = server.child.id().to_string();
    let (before, begin) = (processor_time(&process), Instant::now());
    for _ in 0..registrations {
        register(server.address, group, 0);
    }
    let each = |time: Duration| time.as_secs_f64() / f64::from(registrations);
    let (server, elapsed) = (each(processor_time(&process) - before), each(begin.elapsed()));
    // In the same minute on the same machine: both figures rise and fall together.
    let mut rng = SeededRng::from_seed(entropy::seed().unwrap());
    let peer = KeyPair::generate(group, &mut rng);
    let before = processor_time("thread-self");
    for _ in 0..registrations {
        let own = KeyPair::generate(group, &mut rng);
        std::hint::black_box(own.agree(&PublicValue::read(group, peer.public()).unwrap()).unwrap());
    }
    let arithmetic = each(processor_time("thread-self") - before);
    Sample { server, arithmetic, elapsed }
}

fn register(server: SocketAddr, group: DhGroup, member: u32) {
    let [.., high, low] = (member + 1).to_be_bytes();
    let socket = UdpSocket::bind(SocketAddr::from(([127, 1, high, low], 0))).unwrap();
    let local = socket.local_addr().unwrap();
    let config = support::registration(local, server, group);
    let mut member = Registration::new(config, entropy::seed().unwrap(), clock::now());
    let mut buffer = [0; 4096];
    loop {
        while let Some(event) = member.poll_event() {
            match event {
                RegistrationEvent::PolicyOffered(_) => member.accept_policy(clock::now()),
                RegistrationEvent::Registered(_) => return,
                RegistrationEvent::Failed(failure) => panic!("{failure}"),
                _ => {}
            }
        }
        while let Some(transmit) = member.poll_transmit() {
            socket.send_to(&transmit.payload, transmit.destination).unwrap();
        }
        let due = member.poll_timeout().expect("a registration in progress").at;
        let wait = due.saturating_since(clock::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).unwrap();
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let _ = member.handle_datagram(source, &buffer[..length], clock::now());
            }
            Err(_) => member.handle_timeout(clock::now()),
        }
    }
}

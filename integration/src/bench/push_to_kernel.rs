//! How soon a pushed key can be used: from the receipt of a push until the kernel has acknowledged
//! the last of its entries. The member itself measures it, and reads the entries back afterwards.
//!
//! What a few things cost by themselves on the same machine says how much of the time could be
//! ours.

use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, G2, SERVERS};
use crate::lab::{DIRECTORY, Lab};
use crate::observe::pushes::{GROUP, member_group};
use anyhow::{Context, Result, bail};
use ike::crypto::HashAlgorithm;
use ike::crypto::{KeyKind, RsaForm, SeededRng, SigningKey};
use std::path::Path;
use std::time::{Duration, Instant};
use xfrm::kernel::netlink::Netlink;
use xfrm::{Current, Kernel, Ownership, Parts};

/// The project's own bar for the median in the lab's machine.
const BAR: Duration = Duration::from_millis(5);
/// A push arrives and is carried out within this time, or the lab is broken.
const LIMIT: Duration = Duration::from_secs(60);
/// When the key of a push is sent on, and when the one before is let go: the next push finds one
/// key, as in a group that rekeys by the hour.
const DELAYS: (u32, u32) = (1, 2);
/// The members are left alone for this long after a push: whoever asks them takes processor time
/// from them.
const QUIET: Duration = Duration::from_secs(3);
/// The keys that sign.
const SIGNING_KEYS: [&str; 2] = ["rsa-2048", "ecdsa-p256"];
/// How often a single thing is done to know its cost.
const REPETITIONS: usize = 100;

/// Pushes so many keys for each kind of signature, to two members and to one, and prints the times;
/// true when every median meets the bar.
///
/// # Errors
/// When the lab cannot be built or a push does not arrive.
pub fn run(binaries: &Path, pushes: u32) -> Result<bool> {
    let mut met = true;
    for signing_key in SIGNING_KEYS {
        let (activation_seconds, deactivation_seconds) = DELAYS;
        let rekey = Rekey {
            signing_key,
            retransmissions: 0,
            activation_seconds,
            deactivation_seconds,
            ..Rekey::default()
        };
        let mut lab =
            Lab::build_unwatched(Plan { rekey: Some(rekey), ..Plan::default() }, binaries)?;
        lab.start_server(0)?;
        lab.start_member(0)?;
        lab.start_member(1)?;
        lab.wait_registered(Duration::from_secs(120))?;
        // An emulated processor translates a program when it runs for the first time.
        push(&lab, &[0, 1])?;
        met &= measure(&lab, pushes, signing_key, &[0, 1])?;
        lab.stop_member(1)?;
        met &= measure(&lab, pushes, signing_key, &[0])?;
        drop(lab);
        crate::lab::topology::tear_down();
    }
    println!(
        "from the receipt of a push until its SAs are usable in the kernel; the bar is for the medians"
    );
    single_costs()?;
    Ok(met)
}

/// Pushes to the members in these positions and prints one line; true when the median meets the
/// bar.
fn measure(lab: &Lab, pushes: u32, signing_key: &str, members: &[usize]) -> Result<bool> {
    let mut times = Vec::new();
    for _ in 0..pushes {
        times.extend(push(lab, members)?);
    }
    let [median, high] = percentiles(&mut times);
    let met = median < BAR;
    println!(
        "{signing_key:<10} {pushes} pushes to {} at once: median {:.1} ms, 99th percentile {:.1} ms; bar {:.0} ms: {}",
        if members.len() == 1 { "one member" } else { "two members" },
        milliseconds(median),
        milliseconds(high),
        milliseconds(BAR),
        if met { "met" } else { "missed" }
    );
    Ok(met)
}

/// Pushes one key; returns how long each of these members took.
fn push(lab: &Lab, members: &[usize]) -> Result<Vec<Duration>> {
    let before = members
        .iter()
        .map(|position| Ok(accepted(lab, *position)?.0))
        .collect::<Result<Vec<_>>>()?;
    lab.gdoictl(SERVERS[0], &["rekey", GROUP])?;
    std::thread::sleep(QUIET);
    members.iter().zip(before).map(|(position, before)| wait(lab, *position, before)).collect()
}

/// What the kernel and the signatures cost on this machine with nothing around them.
fn single_costs() -> Result<()> {
    let mut rng = SeededRng::from_seed([1; 32]);
    let (hash, digest) = (HashAlgorithm::Sha2_256, [7; 32]);
    let keys = [
        ("one RSA-2048 verification", SigningKey::generate_rsa(2048, &mut rng)?),
        ("one ECDSA P-256 verification", SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut rng)?),
    ];
    for (what, key) in keys {
        let signature = key.sign(hash, RsaForm::DigestInfo, &digest, &mut rng)?;
        let public = key.public_key();
        let verify = || public.verify(hash, RsaForm::DigestInfo, &digest, &signature);
        show(what, (0..REPETITIONS).map(|_| timed(verify).1).collect());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let times = runtime.block_on(async {
        let mut kernel = Netlink::open()?;
        let (ownership, mut current) = (Ownership::default(), Current::default());
        let mut times = Vec::new();
        for _ in 0..REPETITIONS {
            let started = Instant::now();
            kernel.read(&ownership, Parts::STATES, &mut current).await?;
            times.push(started.elapsed());
        }
        Ok::<_, xfrm::Error>(times)
    })?;
    show("one dump of XFRM's states", times);
    std::fs::create_dir_all(DIRECTORY)?;
    let file = Path::new(DIRECTORY).join("replaced");
    let beside = file.with_extension("new");
    let replace =
        || std::fs::write(&beside, [0; 1500]).and_then(|()| std::fs::rename(&beside, &file));
    show("one file of 1,500 octets replaced", (0..REPETITIONS).map(|_| timed(replace).1).collect());
    Ok(())
}

fn timed<T>(action: impl Fn() -> T) -> (T, Duration) {
    let started = Instant::now();
    let value = std::hint::black_box(action());
    (value, started.elapsed())
}

fn show(what: &str, mut times: Vec<Duration>) {
    let [median, high] = percentiles(&mut times);
    println!(
        "{what}: median {:.2} ms, 99th percentile {:.2} ms",
        milliseconds(median),
        milliseconds(high)
    );
}

fn percentiles(times: &mut [Duration]) -> [Duration; 2] {
    times.sort_unstable();
    let at = |share: usize| {
        times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied()
    };
    [50, 99].map(|share| at(share).unwrap_or_default())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Pushes carried out, and the time of the latest.
fn accepted(lab: &Lab, position: usize) -> Result<(u64, Duration)> {
    let group = member_group(lab, if position == 0 { G1 } else { G2 })?;
    let counter = |name: &str| {
        group.pointer(&format!("/counters/{name}")).and_then(serde_json::Value::as_u64)
    };
    let both = counter("pushes_accepted")
        .zip(counter("push_to_kernel_microseconds").map(Duration::from_micros));
    both.with_context(|| format!("no counters: {group}"))
}

fn wait(lab: &Lab, position: usize, before: u64) -> Result<Duration> {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        let (now, time) = accepted(lab, position)?;
        if now > before {
            return Ok(time);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("no push was carried out within {} s: {}", LIMIT.as_secs(), lab.log_tail(G1, 6))
}

//! What one push costs a member's processor: from the datagram to its keys in the kernel and the
//! acknowledgement.
//!
//! The kernel is a made-up one, so that only the member's own work is measured: decrypting,
//! verifying, compiling, planning and the state file. Each push brings a TEK, and pushes follow
//! each other as they do in months.
//!
//! `cargo bench -p agent --bench push -- [--pushes N]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that fails has nothing to go on with"
)]

use std::time::Duration;

use agent::saved::StateFile;
use nix::time::{ClockId, clock_gettime};
use testing::member::{IKE, Kek, World, address, configuration, teks_of};

/// A member of one group has little else in its way; the bar that the project sets itself.
const BAR: Duration = Duration::from_millis(1);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let pushes = option("--pushes", 1_000);
    let directory = tempfile::tempdir().unwrap();
    let mut file = StateFile::new(directory.path().join("state"));
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400 * 365));
    world.start().await;
    world.pass(Duration::from_secs(1)).await;
    let mut kek = Kek::new(1, 86_400 * 365);
    let (mut all, mut verified, mut saved) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..pushes {
        let spi = 0x2000 + number;
        let delays = (Some(10), Some(30));
        let push = kek.push(&[], Some(&teks_of(&[(spi, "172.16.0.0/12", 3_600)], delays)));
        let begin = processor();
        world.receive(address("10.0.11.1"), push.datagram()).unwrap();
        let received = processor();
        world.settle().await;
        let settled = processor();
        // Once more, to know its part.
        file.write(&world.daemon.save(world.boot, world.now)).unwrap();
        let written = processor();
        assert!(world.spis().0.contains(&spi), "push {number} has not reached the kernel");
        all.push(settled - begin);
        verified.push(received - begin);
        saved.push(written - settled);
        // Activation, deactivation and the end of the key before happen meanwhile.
        world.leap(Duration::from_secs(900)).await;
    }
    assert_eq!(world.acknowledged().len(), pushes as usize);
    println!("{pushes} pushes, microseconds of processor time");
    for (name, times) in [
        ("push to kernel", &mut all),
        ("  decrypt, verify, try out", &mut verified),
        ("  state file", &mut saved),
    ] {
        let (median, high) = percentiles(times);
        println!(
            "{name:<28} median {:>6} 99th percentile {:>6}",
            median.as_micros(),
            high.as_micros()
        );
    }
    let median = percentiles(&mut all).0;
    println!(
        "bar {} microseconds: {}",
        BAR.as_micros(),
        if median < BAR { "met" } else { "missed" }
    );
}

/// Processor time of this thread.
fn processor() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn percentiles(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn option(name: &str, default: u32) -> u32 {
    let arguments: Vec<String> = std::env::args().collect();
    let value =
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    value.map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {value}"))
    })
}

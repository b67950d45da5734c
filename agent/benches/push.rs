//! What one push costs a member's processor: from the datagram to its keys in the kernel and the
//! acknowledgement, step by step.
//!
//! The kernel is a fake one, so that only the member's own work is measured. Each push brings a
//! TEK, and pushes follow each other as they do in months.
//!
//! `cargo bench -p agent --bench push -- [--pushes N] [--lines N] [--varied 1]`
//!
//! `--varied 1` gives every push another lifetime, so that no push has the policy of the one
//! before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that fails has nothing to go on with"
)]

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use testing::member::{IKE, Kek, World, address, configuration, teks_of};

/// A member of one group has little else in its way; the bar that the project sets itself.
const BAR: Duration = Duration::from_millis(1);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let pushes = option("--pushes", 1_000);
    let lines = option("--lines", 1);
    let varied = option("--varied", 0);
    let mut world = World::new(&configuration(1, IKE));
    world.server(1).kek = Some(Kek::new(1, 86_400 * 365));
    world.start().await;
    world.pass(Duration::from_secs(1)).await;
    let mut kek = Kek::new(1, 86_400 * 365);
    let prefixes: Vec<String> = match lines {
        1 => vec!["172.16.0.0/12".to_owned()],
        lines => {
            (0..lines).map(|line| format!("172.{}.{}.0/24", 16 + line / 256, line % 256)).collect()
        }
    };
    let mut steps: Vec<(&str, Vec<Duration>)> = Vec::new();
    for number in 0..pushes {
        let spi = 0x2000 + number;
        let lifetime = 3_600 + u64::from(number * varied);
        let teks: Vec<_> = prefixes.iter().map(|prefix| (spi, prefix.as_str(), lifetime)).collect();
        let push = kek.push(&[], Some(&teks_of(&teks, (Some(10), Some(30)))));
        let mut clock = Steps { all: &mut steps, at: processor(), total: Duration::ZERO };
        world.receive(address("10.0.11.1"), push.datagram()).unwrap();
        clock.end("decrypt, verify, try out");
        let now = world.now;
        let desired = world.member.poll_desired(now).unwrap().desired.unwrap();
        clock.end("compile");
        world.checkpoint.before_change(&world.member, world.dataplane.exempt_before(), now);
        clock.end("state file");
        world.dataplane.apply(desired, now).await.unwrap();
        clock.end("change the kernel and read back");
        world.member.handle_applied(now);
        clock.end("acknowledge");
        clock.finish("push to acknowledgement");
        // Activation, deactivation and the end of the key before happen meanwhile.
        world.settle().await;
        assert!(world.spis().0.contains(&spi), "push {number} has not reached the kernel");
        world.leap(Duration::from_secs(900)).await;
    }
    assert_eq!(world.acknowledged().len(), pushes as usize);
    println!("{pushes} pushes of {lines} line(s), microseconds of processor time");
    for (name, times) in &mut steps {
        let (median, high) = percentiles(times);
        println!(
            "{name:<38} median {:>6} 99th percentile {:>6}",
            median.as_micros(),
            high.as_micros()
        );
        if *name == "push to acknowledgement" && lines == 1 {
            let met = if median < BAR { "met" } else { "missed" };
            println!("bar {} microseconds: {met}", BAR.as_micros());
        }
    }
}

/// The steps of one push, one after the other.
struct Steps<'s> {
    all: &'s mut Vec<(&'static str, Vec<Duration>)>,
    at: Duration,
    total: Duration,
}

impl Steps<'_> {
    fn end(&mut self, name: &'static str) {
        let now = processor();
        let took = now - self.at;
        self.total += took;
        self.note(name, took);
        self.at = processor();
    }

    fn finish(&mut self, name: &'static str) {
        let total = self.total;
        self.note(name, total);
    }

    fn note(&mut self, name: &'static str, took: Duration) {
        match self.all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => times.push(took),
            None => self.all.push((name, vec![took])),
        }
    }
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

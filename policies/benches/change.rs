//! What a rekey costs between the keys and the kernel: compiling, comparing, changing and reading
//! back, for groups with few and with many traffic selectors.
//!
//! `cargo bench -p policies --bench change -- [--rounds N]`: with the fake kernel, so that only our
//! own work is measured. With `--kernel`, in a network namespace of its own
//! (`unshare -rn cargo bench ...`), what reading the real one costs as well; states are left out
//! there, since not every kernel has ESP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    reason = "a measurement that fails has nothing to go on with, and one of them is of the real kernel"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use policies::{GroupState, compile};
use support::*;
use xfrm::kernel::fake::FakeKernel;
use xfrm::kernel::netlink::Netlink;
use xfrm::{Current, Kernel, Ownership, Parts, Reconciler};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds = option("--rounds", 50);
    let real = std::env::args().any(|argument| argument == "--kernel");
    println!("microseconds of processor time, median and 90th percentile of {rounds}");
    for sa_teks in [1, 10, 100, 1000] {
        let keys = cbc_keys();
        let tek_of = |spi| -> Vec<_> {
            (0..sa_teks)
                .map(|n| tek(spi, &format!("10.{}.{}.0/24", n / 250, n % 250), "10.128.0.0/16"))
                .collect()
        };
        let (mut compiled, mut kept, mut reread) = (vec![], vec![], vec![]);
        let kernel = FakeKernel::new(["lan", "wan"]);
        let mut reconciler = Reconciler::new(kernel, Ownership::default());
        for round in 0..rounds {
            let (old, new) = (tek_of(0x1300 + round), tek_of(0x1301 + round));
            let groups = || {
                let mut teks = generation(&new, &keys, true, true);
                teks.extend(generation(&old, &keys, true, false));
                [g1(GroupState::Keyed(teks))]
            };
            let begin = processor();
            let desired = compile(&groups()).unwrap();
            compiled.push(processor() - begin);
            // Half of the rounds with what was read before, half without.
            if round % 2 == 1 {
                reconciler.invalidate(Parts::ALL);
            }
            let begin = processor();
            reconciler.apply(desired).await.unwrap();
            let took = processor() - begin;
            if round % 2 == 1 {
                reread.push(took)
            } else {
                kept.push(took)
            }
            reconciler.release().await.unwrap();
        }
        println!("{sa_teks} traffic selectors");
        show("compile", &mut compiled);
        show("apply", &mut kept);
        show("apply, everything read again", &mut reread);
        if real {
            read_kernel(&tek_of(0x1300), rounds).await;
        }
    }
}

/// What reading each part of the real kernel costs.
async fn read_kernel(teks: &[gdoi::group::TekPolicy], rounds: u32) {
    let keys = cbc_keys();
    let mut desired = compile(&[g1(keyed(teks, &keys))]).unwrap();
    desired.sas.clear();
    let ownership = Ownership::default();
    let mut reconciler = Reconciler::new(Netlink::open().unwrap(), ownership.clone());
    let begin = processor();
    if let Err(error) = reconciler.apply(desired).await {
        println!("  not installed: {error}");
    }
    println!("  {:<34} {:>8}", "kernel: install once", (processor() - begin).as_micros());
    let mut kernel = Netlink::open().unwrap();
    let mut current = Current::default();
    for (name, parts) in [
        ("kernel: read interfaces, routes", Parts::INTERFACES),
        ("kernel: read states", Parts::STATES),
        ("kernel: read policies", Parts::POLICIES),
        ("kernel: read tables", Parts::TABLES),
    ] {
        let mut times = Vec::new();
        for _ in 0..rounds.min(20) {
            let begin = processor();
            kernel.read(&ownership, parts, &mut current).await.unwrap();
            times.push(processor() - begin);
        }
        show(name, &mut times);
    }
    reconciler.purge().await.unwrap();
}

fn show(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_micros();
    println!("  {name:<34} {:>8} {:>8}", at(50), at(90));
}

/// Processor time of this thread, the kernel's part included.
fn processor() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn option(name: &str, default: u32) -> u32 {
    let arguments: Vec<String> = std::env::args().collect();
    let value =
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    value.map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {value}"))
    })
}

//! How soon a pushed key can be used: from the receipt of a push until the member has read its entries back from the
//! kernel. The member itself measures it.

use crate::lab::Lab;
use crate::plan::{Plan, Rekey};
use crate::pushes::{GROUP, member_group};
use crate::topology::{G1, G2, SERVERS};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// The project's own bar for the median in the lab's machine.
const BAR: Duration = Duration::from_millis(5);
/// A push arrives and is carried out within this time, or the lab is broken.
const LIMIT: Duration = Duration::from_secs(60);

/// Pushes so many keys to two members and prints the times; true when the median meets the bar.
///
/// # Errors
/// When the lab cannot be built or a push does not arrive.
pub fn run(binaries: &Path, pushes: u32) -> Result<bool> {
    let rekey = Rekey { retransmissions: 0, ..Rekey::default() };
    let mut lab = Lab::build_unwatched(Plan { rekey: Some(rekey), ..Plan::default() }, binaries)?;
    lab.start_server(0)?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    lab.wait_registered(Duration::from_secs(120))?;
    let mut times: Vec<u64> = Vec::new();
    for _ in 0..pushes {
        let before = [accepted(&lab, 0)?.0, accepted(&lab, 1)?.0];
        lab.gdoictl(SERVERS[0], &["rekey", GROUP])?;
        for (position, before) in before.into_iter().enumerate() {
            times.push(wait(&lab, position, before)?);
        }
    }
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied();
    let [median, high] = [at(50), at(99)].map(|time| Duration::from_micros(time.unwrap_or(0)));
    println!("{pushes} pushes to two members, from the receipt to the entries read back from the kernel");
    println!("median {:.1} ms, 99th percentile {:.1} ms", milliseconds(median), milliseconds(high));
    let met = median < BAR;
    println!("bar {:.0} ms: {}", milliseconds(BAR), if met { "met" } else { "missed" });
    crate::topology::tear_down();
    Ok(met)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Pushes carried out, and the time of the latest in microseconds.
fn accepted(lab: &Lab, position: usize) -> Result<(u64, u64)> {
    let group = member_group(lab, if position == 0 { G1 } else { G2 })?;
    let counter = |name: &str| group.pointer(&format!("/counters/{name}")).and_then(serde_json::Value::as_u64);
    let both = counter("pushes_accepted").zip(counter("push_to_kernel_microseconds"));
    both.with_context(|| format!("no counters: {group}"))
}

fn wait(lab: &Lab, position: usize, before: u64) -> Result<u64> {
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

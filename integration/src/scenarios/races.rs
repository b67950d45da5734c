//! Somebody flushes a member's tables at the moment in which a push arrives: the repair and the new
//! key meet.

use super::security_table::flush;
use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::kernel::{difference, picture};
use crate::lab::nodes::Node;
use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, G2, HA, HB, SERVERS};
use crate::observe::pushes::{GROUP, sending_spi};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{nothing_clear, ping};
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

const ROUNDS: usize = 10;
const REPAIRED_WITHIN: Duration = Duration::from_secs(5);
/// From a push until the old generation is gone, and a little more.
const ROLLED_WITHIN: Duration = Duration::from_secs(20);

const FLUSHES: [(&str, &[&str]); 4] = [
    ("nf_tables flushed", &["nft flush ruleset"]),
    ("policies flushed", &["ip xfrm policy flush"]),
    ("states flushed", &["ip xfrm state flush"]),
    ("everything flushed", &["ip xfrm state flush", "ip xfrm policy flush", "nft flush ruleset"]),
];

/// A push and a flush, so many times.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let mut lab = context.build(Plan { rekey: Some(Rekey::default()), ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        // What is left after a roll is what there was before.
        let whole = picture(G1)?;
        for round in 0..ROUNDS {
            play_round(&lab, narrative, round, &whole)?;
        }
    }
    close(context, lab, narrative)
}

fn random(below: u16) -> Result<u16> {
    let mut octets = [0; 2];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(u16::from_be_bytes(octets) % below)
}

/// One request, and not much patience: a whole second would blur the time of the repair.
fn passes(from: Node, to: &str) -> Result<bool> {
    Ok(ping(from, &["-c", "1", "-W", "0.4"], to)?.1 == 1)
}

fn play_round(lab: &Lab, narrative: &mut Narrative, round: usize, whole: &str) -> Result<()> {
    let (what, commands) = FLUSHES.get(round % FLUSHES.len()).context("no flush")?;
    let delay = Duration::from_millis(u64::from(random(50)?));
    narrative.chapter(&format!(
        "Push {}: {what} {} ms after it was ordered",
        round + 1,
        delay.as_millis()
    ));
    let moment = lab.now()?;
    let before = sending_spi(lab, G2)?;
    let flushed = std::thread::scope(|scope| -> Result<Instant> {
        let flusher = scope.spawn(|| {
            std::thread::sleep(delay);
            flush(commands).map(|()| Instant::now())
        });
        let ordered = lab.gdoictl(SERVERS[0], &["rekey", GROUP]);
        let flushed = flusher.join().map_err(|_| anyhow::anyhow!("the flush panicked"))?;
        ordered.and(flushed)
    })?;
    narrative.state(
        "repaired",
        "within 5 s g1 has the keys that g2 has, and packets pass both ways",
        || {
            let mut same_after = None;
            loop {
                let (first, second) = (lab.held_keys(G1)?, lab.held_keys(G2)?);
                let elapsed = flushed.elapsed();
                let same = first == second && !first.is_empty();
                same_after = if same { same_after.or(Some(elapsed)) } else { None };
                let passes = same && passes(HA, "172.16.2.10")? && passes(HB, "172.16.1.10")?;
                if passes || elapsed > REPAIRED_WITHIN {
                    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f32());
                    let evidence = format!(
                        "{} and {} states, the same keys after {}, packets pass after {}\n{}",
                        first.len(),
                        second.len(),
                        same_after.map_or("-".to_owned(), seconds),
                        if passes { seconds(flushed.elapsed()) } else { "-".to_owned() },
                        lab.log_tail(G1, 14)
                    );
                    return Ok(Finding::new(passes && elapsed <= REPAIRED_WITHIN, evidence));
                }
            }
        },
    );
    narrative.state(
        "rolled",
        "the rekey completes, and g1's kernel then holds what it held before",
        || {
            loop {
                let sends = lab.outbound(G1)?.first().map(|state| state.spi);
                let left = difference(whole, &picture(G1)?);
                let rolled = left.is_empty() && sends.is_some_and(|spi| spi != before);
                if rolled || flushed.elapsed() > ROLLED_WITHIN {
                    let evidence = format!(
                        "SPI {:#010x} after {:.1} s\n{left}",
                        sends.unwrap_or(0),
                        flushed.elapsed().as_secs_f32()
                    );
                    return Ok(Finding::new(rolled, evidence));
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        },
    );
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

//! A load on the group: datagrams both ways at a rate, and a TCP transfer beside them.

use crate::lab::Lab;
use crate::lab::topology::{HA, HA_ADDRESS, HB, HB_ADDRESS};
use crate::observe::drops::Drops;
use crate::report::statements::FlowReport;
use crate::traffic::value;
use anyhow::{Context, Result};
use std::fmt;
use std::time::Duration;

/// Rates that are tried, the highest first: datagrams a second each way.
const RATES: [u64; 6] = [2000, 1000, 500, 250, 100, 50];
/// Octets of UDP payload.
const SIZE: usize = 200;

/// What a load found.
#[derive(Debug, Clone)]
pub struct Load {
    /// From the first host to the second.
    pub forward: FlowReport,
    /// From the second to the first.
    pub backward: FlowReport,
    /// Octets that arrived over TCP, whole and unchanged.
    pub octets: u64,
    /// How long it lasted.
    pub seconds: u64,
    /// What the kernels say that they have dropped meanwhile.
    pub dropped: Drops,
}

impl Load {
    /// Whether everything has arrived.
    pub fn is_whole(&self) -> bool {
        let whole = |flow: &FlowReport| flow.received == flow.sent && flow.sent > 0;
        whole(&self.forward) && whole(&self.backward) && self.octets > 0
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { forward, backward, octets, seconds, dropped } = self;
        let each_way = (forward.sent + backward.sent) / 2 / (*seconds).max(1);
        write!(
            formatter,
            "ha to hb: {forward}\nhb to ha: {backward}\n{octets} octets over TCP arrived unchanged\n{each_way} datagrams a second each way were sent"
        )?;
        if dropped.is_empty() {
            Ok(())
        } else {
            write!(formatter, "\ncounted by the kernels meanwhile: {dropped}")
        }
    }
}

/// Runs datagrams both ways and a TCP transfer for so many seconds, and something else meanwhile.
///
/// # Errors
/// When a generator, a sink or what happens meanwhile fails.
pub fn load(
    lab: &mut Lab,
    rate: u64,
    seconds: u64,
    meanwhile: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<Load> {
    let ends = Duration::from_secs(seconds + 60);
    let before = Drops::read()?;
    let far = lab.start_sink(HB, "sink --port 5000 --silence-seconds 10")?;
    let near = lab.start_sink(HA, "sink --port 5000 --silence-seconds 10")?;
    let stream_sink = lab.start_sink(HB, "tcp-sink --port 5002 --silence-seconds 30")?;
    let flow = |to| {
        format!(
            "flow --to {to}:5000 --from-port 6000 --seconds {seconds} --per-second {rate} --size {SIZE}"
        )
    };
    let forward = lab.start_traffic(HA, &flow(HB_ADDRESS))?;
    let backward = lab.start_traffic(HB, &flow(HA_ADDRESS))?;
    // Enough to be in the middle of something all the time, not so much that it takes the place of
    // the datagrams.
    let line =
        format!("tcp-flow --to {HB_ADDRESS}:5002 --seconds {seconds} --pause-milliseconds 500");
    let stream = lab.start_traffic(HA, &line)?;
    let happened = meanwhile(lab);
    let (forward, backward) = (forward.output(ends)?, backward.output(ends)?);
    let (far, near) = (far.output(ends)?, near.output(ends)?);
    let stream = stream.output(ends)?;
    let stream_sink = stream_sink.output(ends)?;
    happened?;
    let octets =
        value(&stream, "received").filter(|received| Some(*received) == value(&stream, "sent"));
    Ok(Load {
        forward: FlowReport::read(&forward, &far)?,
        backward: FlowReport::read(&backward, &near)?,
        octets: octets
            .with_context(|| format!("the TCP transfer failed: {stream} {stream_sink}"))?,
        seconds,
        dropped: Drops::read()?.since(&before),
    })
}

/// The highest rate at which nothing is lost while nothing happens; what each rate did is told.
///
/// # Errors
/// When even the lowest one loses datagrams, or a load cannot be run.
pub fn highest_rate(lab: &mut Lab, seconds: u64) -> Result<(u64, String)> {
    let mut told = String::new();
    for rate in RATES {
        let load = load(lab, rate, seconds, |_| Ok(()))?;
        let sent = load.forward.sent + load.backward.sent;
        let lost = sent.saturating_sub(load.forward.received + load.backward.received);
        told.push_str(&format!(
            "{rate} a second each way: {sent} sent in {seconds} s, {lost} lost {}\n",
            load.dropped
        ));
        // A generator that does not come along has not tried the rate.
        if lost == 0 && sent * 10 >= rate * seconds * 2 * 9 {
            return Ok((rate, told));
        }
    }
    anyhow::bail!("datagrams are lost at every rate:\n{told}")
}

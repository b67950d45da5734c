//! What guards cost: loads those of so many groups, prefixes and lines, and says how long the
//! process computed. Measure forwarding with and without them in one network namespace.
//!
//! ```text
//! guards GROUPS PREFIXES LINES      stays until its standard input ends
//! guards 0 0 0                      removes everything
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipnet::{IpNet, Ipv4Net};
use nix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncBufReadExt, BufReader};
use xfrm::kernel::netlink::Netlink;
use xfrm::model::{Action, Direction, Policy, PolicyId, Selector};
use xfrm::nft::Preservation;
use xfrm::{Desired, Ownership, Reconciler};

/// Prefix number `number` of 256 octets, no two of which are neighbours.
fn prefix(number: u32) -> anyhow::Result<IpNet> {
    Ok(IpNet::V4(Ipv4Net::new((0x0a40_0000 + number * 512).into(), 24)?))
}

fn desired(groups: u32, prefixes: u32, lines: u32) -> anyhow::Result<Desired> {
    let mut preservation = Preservation {
        lan: BTreeSet::from([String::from("lan")]),
        vrf: BTreeSet::new(),
        wan: BTreeSet::from([String::from("wan")]),
        protected: BTreeSet::new(),
        guard: BTreeSet::new(),
        tunnels: BTreeSet::new(),
        tunnel_ends: BTreeSet::new(),
        guard_everything: false,
        exclude: BTreeSet::new(),
        exclude_arriving: BTreeSet::new(),
        groups: BTreeMap::new(),
        defragment: false,
        bandwidth: BTreeMap::new(),
    };
    for group in 0..groups {
        let own = (0..prefixes).map(|number| prefix(group * prefixes + number));
        preservation.protected.insert(own.collect::<anyhow::Result<_>>()?);
    }
    for line in 0..lines {
        preservation.guard.insert((prefix(8_000 + line)?, prefix(12_000 + line)?));
    }
    let mut desired = Desired::default();
    let mut left = 4_096_usize;
    let pairs = preservation
        .protected
        .iter()
        // As `policies` does it: beyond 4,096 pairs the guards close them alone.
        .filter(|own| left.checked_sub(own.len() * own.len()).map(|rest| left = rest).is_some())
        .flat_map(|own| own.iter().flat_map(|from| own.iter().map(|to| (*from, *to))))
        .chain(preservation.guard.iter().copied());
    for (source, destination) in pairs {
        for direction in [Direction::Out, Direction::In, Direction::Forward] {
            let selector = Selector::between(source, destination);
            let id = PolicyId { direction, selector };
            let policy = Policy { id: id.clone(), priority: 11_000_000, action: Action::Block };
            desired.policies.insert(id, policy);
        }
    }
    desired.exempt.insert(String::from("lan"));
    desired.preservation = Some(preservation);
    Ok(desired)
}

/// What the process has computed so far, the kernel's work for it included.
fn computed() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let numbers: Vec<u32> =
        std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let &[groups, prefixes, lines] = numbers.as_slice() else { bail!("three numbers are needed") };
    let mut reconciler = Reconciler::new(Netlink::open()?, Ownership::default());
    if groups == 0 && lines == 0 {
        reconciler.purge().await?;
        return Ok(());
    }
    let (before, started) = (computed()?, Instant::now());
    let report = reconciler.apply(desired(groups, prefixes, lines)?).await.context("apply")?;
    println!(
        "{} operations: {} ms computed, {} ms passed",
        report.done.len(),
        (computed()? - before).as_millis(),
        started.elapsed().as_millis()
    );
    BufReader::new(tokio::io::stdin()).lines().next_line().await?;
    Ok(())
}

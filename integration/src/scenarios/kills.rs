//! Daemons die at random moments while keys roll: no packet in clear, and the keys go on rolling.

use super::{Context, bring_up, close, registered};
use crate::lab::Lab;
use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, G2, HA, SERVERS};
use crate::observe::pushes::{GROUP, rekey};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, flow, nothing_clear};
use anyhow::Result;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(90);
const ROUNDS: u32 = 10;

/// The key server first, then a member.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let rekey = Rekey { sealed: true, signing_key: "ecdsa-p256", ..Rekey::default() };
    let mut lab = context.build(Plan { rekey: Some(rekey), ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        narrative.chapter("The key server is killed");
        for _ in 0..ROUNDS {
            server(&mut lab, narrative)?;
        }
        narrative.chapter("A member is killed");
        for _ in 0..ROUNDS {
            member(&mut lab, narrative)?;
        }
    }
    close(context, lab, narrative)
}

/// Within the time that a rekey takes.
fn random_delay() -> Result<Duration> {
    let mut octets = [0; 2];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(Duration::from_millis(u64::from(u16::from_be_bytes(octets)) % 3000))
}

fn server(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    let delay = random_delay()?;
    let text = format!(
        "gcks is killed {} ms after it was told to rekey; what follows rolls the keys again",
        delay.as_millis()
    );
    let report = flow(lab, 500, "", |lab| {
        lab.gdoictl(SERVERS[0], &["rekey", GROUP])?;
        std::thread::sleep(delay);
        lab.kill_server(0)?;
        lab.start_server(0)
    });
    narrative.state("server-killed", &text, || {
        let report = report?;
        std::thread::sleep(Duration::from_secs(3));
        let spi = rekey(lab, SERVERS[0], &[G1, G2], WITHIN)?;
        Ok(Finding::new(report.received == 500, format!("SPI {spi:#010x}; {report}")))
    });
    Ok(())
}

fn member(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    let delay = random_delay()?;
    let moment = lab.now()?;
    lab.gdoictl(SERVERS[0], &["rekey", GROUP])?;
    std::thread::sleep(delay);
    lab.kill_member(0)?;
    lab.start_member(0)?;
    registered(
        lab,
        narrative,
        &format!(
            "g1's agent was killed {} ms after a rekey began, and is registered again",
            delay.as_millis()
        ),
    );
    narrative.state("rekeyed", "the next rekey reaches both members", || {
        let spi = rekey(lab, SERVERS[0], &[G1, G2], WITHIN)?;
        Ok(Finding::new(true, format!("SPI {spi:#010x}")))
    });
    answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

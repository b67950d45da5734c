//! Pushes and acknowledgements get lost on the way: copies of a push make up for it, and nobody's
//! packets are lost.

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, G2, R, SERVERS};
use crate::observe::pushes::{GROUP, rekey, sending_spi, server_rekey, wait_new_spi};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{flow, nothing_clear};
use anyhow::Result;
use std::time::Duration;

/// Copies of a push leave at 0, 2, 4 and 6 s: the activation delay covers them all.
const REKEY: fn() -> Rekey = || Rekey {
    retransmissions: 3,
    activation_seconds: 8,
    deactivation_seconds: 16,
    ..Rekey::default()
};
const WITHIN: Duration = Duration::from_secs(60);
/// Datagrams of a flow, a hundred a second at most: it outlasts the deactivation delay.
const DATAGRAMS: u64 = 2500;

/// One kind of loss after the other.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let mut lab = context.build(Plan { rekey: Some(REKEY()), ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        let losses = [
            ("the first copies for g2 are lost", "ip daddr 10.0.2.1 udp sport 848 drop", Some(3)),
            ("every acknowledgement is lost", "ip daddr 10.0.11.1 udp dport 848 drop", None),
            (
                "three of ten datagrams are lost, each way",
                "udp dport 848 numgen random mod 10 < 3 drop",
                None,
            ),
        ];
        for (what, rules, seconds) in losses {
            lossy(&mut lab, narrative, what, rules, seconds)?;
        }
    }
    close(context, lab, narrative)
}

fn lossy(
    lab: &mut Lab,
    narrative: &mut Narrative,
    what: &str,
    rules: &str,
    seconds: Option<u64>,
) -> Result<()> {
    narrative.chapter(what);
    let moment = lab.now()?;
    let table = format!(
        "table ip loss {{ chain forward {{ type filter hook forward priority 0; {rules}; }}; }}"
    );
    let mut spi = 0;
    let report = flow(lab, DATAGRAMS, "", |lab| {
        R.nft(&table)?;
        let before = sending_spi(lab, G1)?;
        lab.gdoictl(SERVERS[0], &["rekey", GROUP])?;
        if let Some(seconds) = seconds {
            std::thread::sleep(Duration::from_secs(seconds));
            R.run("nft", &["delete", "table", "ip", "loss"])?;
        }
        spi = wait_new_spi(lab, &[G1, G2], before, WITHIN)?;
        Ok(())
    });
    let _ = R.run("nft", &["delete", "table", "ip", "loss"]);
    narrative.state(
        "loss",
        &format!("{what}: both members send with the new key, {DATAGRAMS} datagrams, none lost"),
        || {
            let report = report?;
            let figures = server_rekey(lab, SERVERS[0])?;
            let whole = report.received == DATAGRAMS;
            Ok(Finding::new(whole, format!("SPI {spi:#010x}; {report}\n{figures}")))
        },
    );
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    narrative.state("rekeyed", "the next rekey, without losses, follows", || {
        let spi = rekey(lab, SERVERS[0], &[G1, G2], WITHIN)?;
        Ok(Finding::new(true, format!("SPI {spi:#010x}")))
    });
    Ok(())
}

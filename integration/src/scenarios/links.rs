//! Links and addresses of a member go and come back: nothing in clear, no key is lost, and traffic
//! comes back by itself.

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::plan::Plan;
use crate::lab::topology::{self, G1, HA, HB, R};
use crate::observe::leak::from_member;
use crate::observe::packet::{UDP, word};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{nothing_clear, ping};
use anyhow::Result;
use std::time::{Duration, Instant};

/// From the return of a link until packets pass.
const RETURNS_WITHIN: Duration = Duration::from_secs(10);
/// So long something is away.
const AWAY: Duration = Duration::from_secs(4);

/// Something that happens to g1 and is made good again.
struct Mishap {
    what: &'static str,
    happens: fn() -> Result<()>,
    ends: fn() -> Result<()>,
}

const MISHAPS: [Mishap; 6] = [
    Mishap {
        what: "the LAN link goes down",
        happens: || G1.ip("link set lan down").map(drop),
        ends: || G1.ip("link set lan up").map(drop),
    },
    Mishap {
        what: "the LAN interface is deleted, and made again under the same name",
        happens: || G1.ip("link del lan").map(drop),
        ends: || topology::branch(HA, G1, 1),
    },
    Mishap {
        what: "the WAN link goes down",
        happens: || G1.ip("link set wan down").map(drop),
        ends: || G1.batch("link set wan up\nroute replace default via 10.0.1.254\n"),
    },
    Mishap {
        what: "the WAN address is taken away, and given again",
        happens: || G1.ip("addr del 10.0.1.1/24 dev wan").map(drop),
        ends: || G1.batch("addr add 10.0.1.1/24 dev wan\nroute replace default via 10.0.1.254\n"),
    },
    Mishap {
        what: "the WAN address is replaced by another, under which no key server knows g1, and comes back",
        happens: || {
            G1.batch(
                "addr add 10.0.1.77/24 dev wan\naddr del 10.0.1.1/24 dev wan\n\
                 addr replace 10.0.1.77/24 dev wan\nroute replace default via 10.0.1.254\n",
            )?;
            R.ip("route replace 172.16.1.0/24 via 10.0.1.77").map(drop)
        },
        ends: || {
            G1.batch(
                "addr add 10.0.1.1/24 dev wan\naddr del 10.0.1.77/24 dev wan\n\
                 addr replace 10.0.1.1/24 dev wan\nroute replace default via 10.0.1.254\n",
            )?;
            R.ip("route replace 172.16.1.0/24 via 10.0.1.1").map(drop)
        },
    },
    Mishap {
        what: "the WAN interface is deleted, and made again under the same name",
        happens: || G1.ip("link del wan").map(drop),
        ends: || {
            topology::uplink(G1, "wan", "w1", 1)?;
            G1.ip("route replace default via 10.0.1.254")?;
            R.ip("route replace 172.16.1.0/24 via 10.0.1.1").map(drop)
        },
    },
];

/// One mishap after the other: the member's address configured, then the interface that has it.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    for (first_local, text) in
        [("10.0.1.1", "configured as such"), ("wan", "whatever its interface has")]
    {
        let mut lab = context.build(Plan { first_local, ..Plan::default() })?;
        narrative.chapter(&format!("The local address of g1 is {text}"));
        if bring_up(&mut lab, narrative)? {
            renewed(&lab, narrative)?;
            for mishap in &MISHAPS {
                play_one(&lab, narrative, mishap)?;
            }
        }
        close(context, lab, narrative)?;
    }
    Ok(())
}

/// A lease that is renewed is no change.
fn renewed(lab: &Lab, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("The lease of the WAN address is renewed");
    let moment = lab.now()?;
    let before = G1.ip("xfrm state")?;
    for seconds in [3600, 7200] {
        G1.ip(&format!(
            "addr change 10.0.1.1/24 dev wan valid_lft {seconds} preferred_lft {seconds}"
        ))?;
        std::thread::sleep(Duration::from_secs(2));
    }
    narrative.state("renewed", "no state changes, and g1 asks nobody", || {
        let asked = lab.core_since(moment)?;
        let asked = asked.iter().filter(|captured| {
            from_member(captured)
                && captured.packet.protocol == UDP
                && word(&captured.packet.payload, 2) == Some(848)
        });
        let (asked, same) = (asked.count(), G1.ip("xfrm state")? == before);
        Ok(Finding::new(same && asked == 0, format!("{asked} datagrams to key servers")))
    });
    G1.ip("addr change 10.0.1.1/24 dev wan valid_lft forever preferred_lft forever").map(drop)
}

fn play_one(lab: &Lab, narrative: &mut Narrative, mishap: &Mishap) -> Result<()> {
    narrative.chapter(&format!("On g1 {}", mishap.what));
    let moment = lab.now()?;
    let before = lab.held_keys(G1)?;
    (mishap.happens)()?;
    let started = Instant::now();
    let (mut sent, mut answers) = (0, 0);
    while started.elapsed() < AWAY {
        // Without a link a host has no way to send, and g1 no such address.
        let own: &[&str] = &["-c", "2", "-I", "172.16.1.1"];
        let host: &[&str] = &["-c", "2"];
        for (from, options, to) in
            [(HA, host, "172.16.2.10"), (HB, host, "172.16.1.10"), (G1, own, "172.16.2.10")]
        {
            let (more, answered, _) = ping(from, options, to)?;
            (sent, answers) = (sent + more, answers + answered);
        }
    }
    narrative.say(&format!("meanwhile {sent} requests, {answers} answers"));
    (mishap.ends)()?;
    let ended = Instant::now();
    narrative.state("returns", "it ends: ha reaches hb and hb reaches ha by themselves", || {
        loop {
            let there = ping(HA, &["-c", "2"], "172.16.2.10")?;
            let back = ping(HB, &["-c", "2"], "172.16.1.10")?;
            let passes = there.1 == 2 && back.1 == 2;
            if passes || ended.elapsed() > RETURNS_WITHIN {
                let evidence = format!(
                    "after {:.1} s\n{}",
                    ended.elapsed().as_secs_f32(),
                    lab.log_tail(G1, 3)
                );
                return Ok(Finding::new(passes, evidence));
            }
        }
    });
    narrative.state("keys-kept", "the keys are those of before", || {
        let now = lab.held_keys(G1)?;
        Ok(Finding::new(
            now == before && !now.is_empty(),
            format!("{} and {} keys", before.len(), now.len()),
        ))
    });
    nothing_clear(narrative, lab, moment, "meanwhile members sent no clear packet");
    Ok(())
}

//! Tunnels through address translation on either side, and aggressive mode, with strongSwan.

use super::Context;
use super::tunnels::{Play, play_with, socket};
use crate::lab::Lab;
use crate::lab::peers::IkePeer;
use crate::lab::topology::R;
use crate::observe::capture::Captured;
use crate::observe::packet::UDP;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::flow_during;
use anyhow::Result;
use std::time::Duration;

pub(super) const KEY: &str = "a key for the lab alone";
const NAT_PORT: u16 = 4500;

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    play_with(context, narrative, |play, narrative| {
        translated(play, narrative, &swan)?;
        aggressive(play, narrative);
        Ok(())
    })
}

/// How the other end is told what to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Other<'o> {
    /// Where it finds us, and whether it may be anywhere.
    pub(super) remote: &'o str,
    pub(super) aggressive: bool,
    /// Further lines of its connection.
    pub(super) lines: &'o str,
}

impl Default for Other<'_> {
    fn default() -> Self {
        Self { remote: "10.0.1.1", aggressive: false, lines: "" }
    }
}

fn swan(other: &Other<'_>) -> String {
    format!(
        "connections {{\n  lab {{\n    version = 1\n    local_addrs = 10.0.2.1\n    remote_addrs = \
         {}\n    aggressive = {}\n    proposals = aes256-sha256-modp2048\n    {}\n    local {{\n      \
         auth = psk\n      id = 10.0.2.1\n    }}\n    remote {{\n      auth = psk\n      id = \
         10.0.1.1\n    }}\n    children {{\n      net {{\n        local_ts = 172.16.2.0/24\n        \
         remote_ts = 172.16.1.0/24\n        esp_proposals = aes256gcm16-modp2048\n      }}\n    \
         }}\n  }}\n}}\nsecrets {{\n  ike-lab {{\n    secret = \"{KEY}\"\n  }}\n}}\n",
        other.remote,
        if other.aggressive { "yes" } else { "no" },
        other.lines,
    )
}

/// Our side; `peer` is the address at which it finds the other.
pub(super) fn ours(lab: &Lab, peer: &str, start: &str, lines: &str) -> String {
    format!(
        "control-socket = \"{}\"\n\n[[gateway]]\nname = \"lab\"\n\n[[tunnel]]\nname = \"site\"\n\
         gateway = \"lab\"\nlocal-address = \"10.0.1.1\"\npeer = \"{peer}\"\npeer-identity = {{ \
         address = \"10.0.2.1\" }}\nlocal-networks = [\"172.16.1.0/24\"]\nremote-networks = \
         [\"172.16.2.0/24\"]\npre-shared-key-file = \"{}\"\nstart = \"{start}\"\n{lines}\n",
        socket(lab),
        lab.file("tunnel.psk").display(),
    )
}

/// The router translates what one side sends; what comes back for it goes to its IKE ports as well,
/// so that the other side may begin.
fn translate(side: (&str, &str), other: (&str, &str), ports: &str) -> Result<()> {
    R.nft(&format!(
        "table ip lab-nat
        delete table ip lab-nat
        table ip lab-nat {{
            chain prerouting {{
                type nat hook prerouting priority dstnat; policy accept;
                iifname \"{}\" ip daddr {} udp dport {{ 500, 4500 }} dnat to {}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                iifname \"{}\" oifname \"{}\" udp sport {{ 500, 4500 }} masquerade to :{ports}
                iifname \"{}\" oifname \"{}\" masquerade
            }}
        }}",
        other.0, other.1, side.1, side.0, other.0, side.0, other.0
    ))
}

const OURS: (&str, &str) = ("w1", "10.0.1.1");
/// The translation as the other side sees it.
const OUTSIDE_OF_OURS: &str = "10.0.2.254";
const THEIRS: (&str, &str) = ("w2", "10.0.2.1");
const OUTSIDE_OF_THEIRS: &str = "10.0.1.254";

/// Address translation in front of either side, each begun by either.
pub(super) fn translated<P: IkePeer>(
    play: &mut Play<'_, P>,
    narrative: &mut Narrative,
    theirs: &dyn Fn(&Other<'_>) -> String,
) -> Result<()> {
    narrative.chapter("Address translation in front of the agent");
    translate(OURS, (THEIRS.0, OUTSIDE_OF_OURS), "20000-20999")?;
    let other = Other { remote: OUTSIDE_OF_OURS, ..Other::default() };
    narrative.state("nat", "begun by the agent", || {
        let text = ours(play.lab, "10.0.2.1", "now", "");
        play.change_to(&text, &theirs(&other))?;
        in_udp(play)
    });
    narrative.state("nat", "new keys under load: nothing is lost", || {
        let text = ours(play.lab, "10.0.2.1", "now", "lifetime = \"60s\"");
        play.change_to(&text, &theirs(&other))?;
        in_udp(play)?;
        let report = flow_during(play.lab, |_| {
            std::thread::sleep(Duration::from_secs(70));
            Ok(())
        })?;
        Ok(Finding::new(report.sent > 0 && report.sent == report.received, report.to_string()))
    });
    narrative.state("nat", "begun by the other side, through a port forward", || {
        let text = ours(play.lab, "10.0.2.1", "answer", "");
        play.change_to(&text, &theirs(&other))?;
        let began = play.charon.initiate("net")?;
        let finding = in_udp(play)?;
        Ok(Finding::new(finding.holds && began, finding.evidence))
    });
    narrative.chapter("Address translation in front of the other side");
    translate(THEIRS, (OURS.0, OUTSIDE_OF_THEIRS), "30000-30999")?;
    let other = Other::default();
    narrative.state("nat", "begun by the other side", || {
        let text = ours(play.lab, OUTSIDE_OF_THEIRS, "answer", "");
        play.change_to(&text, &theirs(&other))?;
        let began = play.charon.initiate("net")?;
        let finding = in_udp(play)?;
        Ok(Finding::new(finding.holds && began, finding.evidence))
    });
    narrative.state("nat", "begun by the agent, through a port forward", || {
        let text = ours(play.lab, OUTSIDE_OF_THEIRS, "now", "");
        play.change_to(&text, &theirs(&other))?;
        in_udp(play)
    });
    R.nft("table ip lab-nat\ndelete table ip lab-nat\n")?;
    narrative.chapter("ESP in UDP without any translation");
    narrative.state("nat", "nat-traversal = \"always\"", || {
        let text = ours(play.lab, "10.0.2.1", "now", "nat-traversal = \"always\"");
        play.change_to(&text, &theirs(&other))?;
        in_udp(play)
    });
    Ok(())
}

/// Aggressive mode, each begun by either.
fn aggressive(play: &mut Play<'_>, narrative: &mut Narrative) {
    narrative.chapter("Aggressive mode");
    let other = Other { aggressive: true, ..Other::default() };
    for start in ["now", "answer"] {
        narrative.state("aggressive", &format!("start = {start}"), || {
            let text = ours(play.lab, "10.0.2.1", start, "aggressive-mode = true");
            play.change_to(&text, &swan(&other))?;
            let began = start == "now" || play.charon.initiate("net")?;
            let finding = play.carries(true)?;
            Ok(Finding::new(finding.holds && began, finding.evidence))
        });
    }
    narrative.state("aggressive", "a peer without it gets no answer", || {
        let text = ours(play.lab, "10.0.2.1", "answer", "");
        play.change_to(&text, &swan(&other))?;
        let began = play.charon.initiate("net")?;
        Ok(Finding::new(!began, format!("established: {began}")))
    });
}

/// Both hosts answer each other, and what crosses is ESP in UDP.
pub(super) fn in_udp<P: IkePeer>(play: &Play<'_, P>) -> Result<Finding> {
    let moment = play.lab.now()?;
    let finding = play.carries(false)?;
    let crossed = play.lab.core_since(moment)?;
    let uses = |one: &&Captured| {
        let ports = one.packet.payload.get(..4).unwrap_or_default();
        let port = NAT_PORT.to_be_bytes();
        one.packet.protocol == UDP && (ports.starts_with(&port) || ports.ends_with(&port))
    };
    let packets = crossed.iter().filter(uses).count();
    let evidence = format!("{}, {packets} datagrams of port 4500", finding.evidence);
    Ok(Finding::new(finding.holds && packets >= 12, evidence))
}

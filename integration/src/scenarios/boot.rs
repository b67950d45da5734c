//! A member that comes up: the block unit before its network, then its daemon, with an uplink
//! missing or a configuration that has errors.

use crate::lab::Lab;
use crate::lab::nodes::{Node, Process};
use crate::lab::topology::{G1, HA, HB, R, uplink};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{nothing_clear, ping};
use anyhow::Result;
use nix::sys::signal::Signal;
use std::process::Stdio;

/// What is wrong at this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    /// The interface `wan` does not exist; packets could leave by `wan2`.
    WithoutUplink,
    /// The configuration has an error.
    Broken,
}

/// Power is lost, and no interface is there yet when the block unit runs.
pub(super) fn block_unit(lab: &mut Lab, narrative: &mut Narrative, boot: Boot) -> Result<()> {
    for line in ["link set lan down", "link set wan2 down", "link del wan"] {
        G1.ip(line)?;
    }
    lab.cut_power(0)?;
    let broken = boot == Boot::Broken;
    let (worked, said) = lab.run_member(0, &["--block"], broken)?;
    let text = match boot {
        Boot::WithoutUplink => {
            "the block unit installs policies and guards before any interface is up"
        }
        Boot::Broken => {
            "the block unit names the error and blocks as the configuration accepted last says"
        }
    };
    narrative.state("block-unit", text, || {
        let policies = G1.ip("xfrm policy")?.matches("action block").count();
        let guards = G1.run("nft", &["list", "tables"])?.contains("table ip gdoi");
        let named = said.contains("unknown key \"protectet\"");
        let held = policies > 0 && guards && worked != broken && named == broken;
        Ok(Finding::new(held, format!("{policies} policies block\n{}", said.trim())))
    });
    Ok(())
}

/// The network comes up. Without the uplink everything takes the other one, the address that the
/// member should have on it included.
pub(super) fn network(boot: Boot) -> Result<()> {
    match boot {
        Boot::WithoutUplink => {
            G1.batch(
                "addr add 10.0.1.1/32 dev lo\nlink set wan2 up\nlink set lan up\nroute replace default via 10.0.3.254\n",
            )?;
            R.batch("route replace 10.0.1.1/32 via 10.0.3.1\nroute replace 172.16.1.0/24 via 10.0.3.1\n")
        }
        Boot::Broken => {
            G1.batch("link set wan2 up\nlink set lan up\n")?;
            wan()
        }
    }
}

pub(super) fn uplink_comes(boot: Boot) -> Result<()> {
    if boot == Boot::Broken {
        return Ok(());
    }
    G1.ip("addr del 10.0.1.1/32 dev lo")?;
    R.ip("route delete 10.0.1.1/32")?;
    wan()
}

/// Of a member that is blocked nothing comes back; its peer goes on sending all the time.
fn unanswered(narrative: &mut Narrative, text: &str, from: Node, to: &str) {
    narrative.state("blocked", text, || {
        let (sent, answers, _) = ping(from, &["-c", "3"], to)?;
        Ok(Finding::new(sent > 0 && answers == 0, format!("{sent} requests, {answers} answers")))
    });
}

fn wan() -> Result<()> {
    uplink(G1, "wan", "w1", 1)?;
    G1.ip("route replace default via 10.0.1.254")?;
    R.ip("route replace 172.16.1.0/24 via 10.0.1.1").map(drop)
}

/// One boot under traffic: no clear packet at any moment, and the group comes back by itself or
/// with the configuration mended.
pub(super) fn play(lab: &mut Lab, narrative: &mut Narrative, boot: Boot) -> Result<()> {
    narrative.chapter(match boot {
        Boot::WithoutUplink => "g1 boots, and an uplink is missing",
        Boot::Broken => "g1 boots, and its configuration has an error",
    });
    // The address goes with the uplink: without it even a key that outlived the boot is not used.
    let local = std::mem::replace(&mut lab.plan.first_local, "wan");
    block_unit(lab, narrative, boot)?;
    let moment = lab.now()?;
    let traffic =
        [(HA, "172.16.2.10"), (HB, "172.16.1.10"), (HB, "172.16.1.1")].map(|(node, to)| {
            let mut command = node.command("ping", &["-n", "-q", "-i", "0.1", to]);
            Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
        });
    network(boot)?;
    unanswered(narrative, "with the network up ha cannot reach hb", HA, "172.16.2.10");
    match boot {
        Boot::WithoutUplink => {
            lab.start_member(0)?;
            narrative.state("problem", "the daemon runs and says what is missing", || {
                let shown = lab.gdoictl(G1, &["show", "member"])?;
                let named = shown.contains("interface wan does not exist");
                Ok(Finding::new(named && shown.contains("nothing can be sent"), shown))
            });
        }
        Boot::Broken => {
            let (worked, said) = lab.run_member(0, &[], true)?;
            narrative.state("refused", "the daemon names the error and does not run", || {
                Ok(Finding::new(!worked && said.contains("unknown key \"protectet\""), said.trim()))
            });
        }
    }
    unanswered(narrative, "ha cannot reach hb", HA, "172.16.2.10");
    unanswered(narrative, "hb cannot reach ha", HB, "172.16.1.10");
    uplink_comes(boot)?;
    if boot == Boot::Broken {
        lab.start_member(0)?;
    }
    lab.plan.first_local = local;
    super::registered(lab, narrative, "g1 registers");
    for process in traffic {
        let mut process = process?;
        process.signal(Signal::SIGINT)?;
        process.wait(std::time::Duration::from_secs(10))?;
    }
    nothing_clear(
        narrative,
        lab,
        moment,
        "from the boot on no member sent a clear packet of the group",
    );
    Ok(())
}

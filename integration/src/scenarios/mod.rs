//! The scenarios and how they are played.

use crate::lab::plan::Plan;
use crate::lab::{Errors, Lab};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::clear_count;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod algorithms;
mod boot;
mod cluster;
mod cluster_of_four;
mod crash_points;
mod expiry;
mod fail_open;
mod flushes;
mod headers;
mod kills;
mod leaks;
mod links;
mod main;
mod migration;
mod neighbours;
mod open;
mod probe;
mod races;
mod reboot;
mod redundant_server;
mod rekey;
mod rekey_lost;
mod removal;
mod sabotage;
mod secrets;
mod security_table;
mod selectors;
mod tunnel_beside_group;
mod tunnel_certificates;
mod tunnel_console;
mod tunnel_table;
mod tunnels;
mod tunnels_libreswan;
mod tunnels_nat;
mod uplinks;

/// What a scenario needs from outside.
#[derive(Debug, Clone)]
pub struct Context {
    /// Directory of the binaries.
    pub binaries: PathBuf,
    /// Leave the last lab up.
    pub keep: bool,
}

impl Context {
    fn build(&self, plan: Plan) -> Result<Lab> {
        Lab::build(plan, &self.binaries)
    }

    pub fn binaries(&self) -> &Path {
        &self.binaries
    }
}

pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    pub about: &'static str,
    /// Whether it is played when none is named.
    pub ordinary: bool,
    play: fn(&Context, &mut Narrative) -> Result<()>,
}

/// Every scenario, in the order in which they are played.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "main",
        about: "registration, traffic, attacks, mishaps, stop and restart",
        ordinary: true,
        play: main::plain,
    },
    Scenario {
        name: "firewall",
        about: "the same with a user firewall on the members: conntrack, masquerading, marks, a flowtable",
        ordinary: true,
        play: main::beside_a_firewall,
    },
    Scenario {
        name: "selectors",
        about: "asymmetric prefixes; ports with fragments",
        ordinary: true,
        play: selectors::play,
    },
    Scenario {
        name: "algorithms",
        about: "every cipher, decrypted in user space",
        ordinary: true,
        play: algorithms::play,
    },
    Scenario {
        name: "expiry",
        about: "keys that expire while no server answers",
        ordinary: true,
        play: expiry::play,
    },
    Scenario {
        name: "leaks",
        about: "ways for clear packets to escape: flowtables, masquerading, ICMP errors, VLANs",
        ordinary: true,
        play: leaks::play,
    },
    Scenario {
        name: "neighbours",
        about: "beside another tunnel, policy routing, a full routing table; within a VRF",
        ordinary: false,
        play: neighbours::play,
    },
    Scenario {
        name: "rekey",
        about: "20 rekeys by pushes under load, forged pushes, steps of the clock, a new KEK",
        ordinary: false,
        play: rekey::short,
    },
    Scenario {
        name: "rekey-multicast",
        about: "pushes to a multicast address, signed with ECDSA",
        ordinary: false,
        play: rekey::multicast,
    },
    Scenario {
        name: "migration",
        about: "from clear to protected traffic without packet loss",
        ordinary: false,
        play: migration::play,
    },
    Scenario {
        name: "fail-open",
        about: "a service that passes in clear while there is no key",
        ordinary: false,
        play: fail_open::play,
    },
    Scenario {
        name: "open",
        about: "a whole group that passes in clear while there is no key",
        ordinary: false,
        play: open::play,
    },
    Scenario {
        name: "probe",
        about: "ESP that cannot be decrypted makes a member pull once",
        ordinary: false,
        play: probe::play,
    },
    Scenario {
        name: "links",
        about: "links and addresses of a member removed and restored",
        ordinary: false,
        play: links::play,
    },
    Scenario {
        name: "races",
        about: "foreign flushes at the moment of a push",
        ordinary: false,
        play: races::play,
    },
    Scenario {
        name: "secrets",
        about: "no octet of a key in logs of every level, files and answers",
        ordinary: false,
        play: secrets::play,
    },
    Scenario {
        name: "rekey-lost",
        about: "lost pushes and acknowledgements",
        ordinary: false,
        play: rekey_lost::play,
    },
    Scenario {
        name: "removal",
        about: "one of three members is evicted and cannot follow",
        ordinary: false,
        play: removal::play,
    },
    Scenario {
        name: "kills",
        about: "daemons killed at random moments while keys roll",
        ordinary: false,
        play: kills::play,
    },
    Scenario {
        name: "cluster",
        about: "a root server and two sub-servers: any order of starts, kills during a rekey, losses",
        ordinary: false,
        play: cluster::play,
    },
    Scenario {
        name: "cluster-of-four",
        about: "a server on its own becomes the root of four: moves, spill-over, partition, policies, removal",
        ordinary: false,
        play: cluster_of_four::play,
    },
    Scenario {
        name: "redundant-server",
        about: "two key servers on three etcd servers: killed, stopped, without quorum",
        ordinary: false,
        play: redundant_server::play,
    },
    Scenario {
        name: "reboot",
        about: "a member that reboots while no key server answers",
        ordinary: false,
        play: reboot::play,
    },
    Scenario {
        name: "rekey-long",
        about: "200 rekeys under load",
        ordinary: false,
        play: rekey::long,
    },
    Scenario {
        name: "headers",
        about: "DF bit, DSCP and TCP's segment size on the wire, for each setting",
        ordinary: false,
        play: headers::play,
    },
    Scenario {
        name: "crash-points",
        about: "the member crashes after every single kernel operation",
        ordinary: false,
        play: crash_points::play,
    },
    Scenario {
        name: "security-table",
        about: "every cell of the table of SECURITY.md",
        ordinary: false,
        play: security_table::play,
    },
    Scenario {
        name: "tunnels",
        about: "site-to-site tunnels with strongSwan: both roles, rekeys under load, leaks, refusals",
        ordinary: false,
        play: tunnels::play,
    },
    Scenario {
        name: "tunnels-nat",
        about: "tunnels through address translation on either side, and aggressive mode, with strongSwan",
        ordinary: false,
        play: tunnels_nat::play,
    },
    Scenario {
        name: "tunnels-libreswan",
        about: "the same with libreswan, and what both agree on, with keys and certificates",
        ordinary: false,
        play: tunnels_libreswan::play,
    },
    Scenario {
        name: "tunnel-certificates",
        about: "tunnels with certificates and strongSwan: every kind of key, both roles, who is refused",
        ordinary: false,
        play: tunnel_certificates::play,
    },
    Scenario {
        name: "tunnel-console",
        about: "gateways and tunnels created, changed and deleted by gdoictl; bandwidth of a gateway",
        ordinary: false,
        play: tunnel_console::play,
    },
    Scenario {
        name: "tunnel-beside-group",
        about: "a group and a tunnel on one router; the key server is reached through the tunnel",
        ordinary: false,
        play: tunnel_beside_group::play,
    },
    Scenario {
        name: "tunnel-table",
        about: "a table of what tunnels negotiate with strongSwan, in both roles; ISAKMP SAs renewed under load",
        ordinary: false,
        play: tunnel_table::play,
    },
    Scenario {
        name: "uplinks",
        about: "a VLAN, GRE and tunnels of IPv6 as uplinks; a flowtable below; any to any in a VRF",
        ordinary: false,
        play: uplinks::play,
    },
    Scenario {
        name: "sabotage",
        about: "breaks the lab on purpose: the matching statement must fail",
        ordinary: false,
        play: sabotage::play,
    },
];

/// Plays the named scenarios, or the ordinary ones, and the sabotage where it is asked for; true
/// when every statement held.
///
/// # Errors
/// When a name is unknown.
pub fn play(names: &[String], sabotage: bool, context: &Context) -> Result<bool> {
    for name in names {
        if !ALL.iter().any(|scenario| scenario.name == name) {
            let known: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
            anyhow::bail!("there is no scenario {name}; there are {}", known.join(", "));
        }
    }
    let mut narrative = Narrative::new(std::io::stdout());
    for scenario in ALL {
        let wanted = if sabotage && scenario.name == "sabotage" {
            true
        } else if names.is_empty() && context.keep {
            scenario.name == "main"
        } else if names.is_empty() {
            scenario.ordinary
        } else {
            names.iter().any(|name| name == scenario.name)
        };
        if !wanted {
            continue;
        }
        narrative.chapter(&format!("Scenario {}: {}", scenario.name, scenario.about));
        let played = (scenario.play)(context, &mut narrative);
        if let Err(error) = played {
            // What cannot go on has failed, whatever was said before.
            narrative.state(
                "scenario",
                &format!("scenario {} can be played to its end", scenario.name),
                || Err(error),
            );
        }
    }
    Ok(narrative.conclude())
}

/// Long enough for a registration that first has to pass over a silent server.
const REGISTERED_WITHIN: Duration = Duration::from_secs(120);

/// Starts one server and both members and waits for the keys.
fn bring_up(lab: &mut Lab, narrative: &mut Narrative) -> Result<bool> {
    lab.start_server(0)?;
    lab.start_member(0)?;
    lab.start_member(1)?;
    Ok(registered(lab, narrative, "both members are registered"))
}

fn registered(lab: &Lab, narrative: &mut Narrative, text: &str) -> bool {
    narrative.state("registered", text, || {
        let took = lab.wait_registered(REGISTERED_WITHIN)?;
        Ok(Finding::new(true, format!("after {:.1} s", took.as_secs_f32())))
    })
}

/// Ends the lab with the statement about everything the core has seen.
fn close(context: &Context, lab: Lab, narrative: &mut Narrative) -> Result<()> {
    let excluded = lab.plan.excluded_port;
    let errors = lab.errors();
    let text = "from before the first daemon until now: no clear packet between protected prefixes";
    if context.keep {
        let all = lab.leave_running()?;
        narrative.state("nothing-clear", text, || Ok(clear_count(&all, excluded)));
        no_errors(narrative, &errors);
        narrative.say("the lab stays up: 'lab shell g1' opens a shell on a node, 'lab down' removes everything");
        return Ok(());
    }
    narrative.chapter("Everything stops");
    let (all, tally) = lab.finish()?;
    narrative.state("whole-capture", "the capture of all core links is complete", || {
        let evidence =
            format!("{} packets captured, {} dropped by tcpdump", tally.captured, tally.dropped);
        Ok(Finding::new(tally.captured > 0 && tally.dropped == 0, evidence))
    });
    let text = "from before the first daemon until after the last: no clear packet between protected prefixes";
    narrative.state("nothing-clear", text, || Ok(clear_count(&all, excluded)));
    no_errors(narrative, &errors);
    Ok(())
}

/// No daemon said that something is broken, but where the scenario breaks it.
fn no_errors(narrative: &mut Narrative, errors: &Errors) {
    narrative.state("no-errors", "no daemon logged an unexpected error", || {
        let (lines, errors) = errors.find()?;
        let mut evidence = format!("{} in {lines} lines", errors.len());
        for error in errors.iter().take(6) {
            evidence.push_str(&format!("\n{error}"));
        }
        Ok(Finding::new(lines > 0 && errors.is_empty(), evidence))
    });
}

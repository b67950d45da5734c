//! The lab's own test: something is broken on purpose, and the statement that is there to notice
//! must fail.

use super::{Context, bring_up, close, leaks, registered};
use crate::lab::Lab;
use crate::lab::daemons::{random_key, write_secret};
use crate::lab::plan::Plan;
use crate::lab::topology::{G1, G2, HA, SERVERS};
use crate::report::narrative::Narrative;
use crate::report::statements::{
    Forgery, answered, clear_count, decrypts, flow, forged, nothing_clear, preserved, same_keys,
};
use anyhow::{Context as _, Result};

/// Every sabotage on one lab, each one healed by a restart of the member.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let mut lab = context.build(Plan::default())?;
    if !bring_up(&mut lab, narrative)? {
        return close(context, lab, narrative);
    }
    wrong_verifier_key(&mut lab, narrative)?;
    table_removed(&mut lab, narrative)?;
    policies_removed(&mut lab, narrative)?;
    everything_removed(&mut lab, narrative)?;
    states_removed(&mut lab, narrative)?;
    guards_emptied(&mut lab, narrative)?;
    wrong_pre_shared_key(&mut lab, narrative)
}

fn wrong_verifier_key(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    let moment = lab.now()?;
    flow(lab, 20, "", |_| Ok(()))?;
    let keys = lab.states(G2)?;
    decrypts(narrative, lab, &keys, moment);
    let mut wrong = keys;
    for state in &mut wrong {
        if let Some((_, key)) = &mut state.encryption
            && let Some(first) = key.first_mut()
        {
            *first ^= 1;
        }
    }
    narrative.sabotage("one bit of the verifier's key is wrong", "decrypts", |narrative| {
        decrypts(narrative, lab, &wrong, moment);
    });
    Ok(())
}

/// A member that can do nothing about what happens to its kernel, until it is started again.
fn without_repair(
    lab: &mut Lab,
    narrative: &mut Narrative,
    position: usize,
    work: impl FnOnce(&mut Lab, &mut Narrative) -> Result<()>,
) -> Result<()> {
    lab.kill_member(position)?;
    let worked = work(lab, narrative);
    lab.start_member(position)?;
    registered(lab, narrative, "healed: the member is registered again");
    answered(narrative, "ping", "healed: ha reaches hb", HA, &[], "172.16.2.10");
    worked
}

/// Policies alone keep forged packets out, so the statement about them fails only without both.
fn table_removed(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    without_repair(lab, narrative, 1, |lab, narrative| {
        let forgery = Forgery {
            what: "with a forged source of the LAN itself",
            source: "172.16.2.99:6000",
            destination: "172.16.2.10:5000",
        };
        G2.run("nft", &["flush", "ruleset"])?;
        narrative.sabotage("the tables of the second member are gone", "preserved", |narrative| {
            preserved(narrative, lab)
        });
        forged(narrative, lab, &forgery);
        G2.ip("xfrm policy flush")?;
        let what = "the tables and policies of the second member are gone";
        narrative.sabotage(what, "forged", |narrative| forged(narrative, lab, &forgery));
        Ok(())
    })
}

fn policies_removed(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    without_repair(lab, narrative, 0, |lab, narrative| {
        G1.ip("xfrm policy flush")?;
        let what = "the policies of the first member are gone (its table still guards)";
        narrative.sabotage(what, "ping", |narrative| {
            answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10")
        });
        narrative.sabotage(what, "preserved", |narrative| preserved(narrative, lab));
        Ok(())
    })
}

fn everything_removed(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    let before = lab.now()?;
    without_repair(lab, narrative, 0, |lab, narrative| {
        G1.ip("xfrm policy flush")?;
        G1.run("nft", &["flush", "ruleset"])?;
        let what = "policies and tables of the first member are gone: packets leave in clear";
        narrative.sabotage(what, "nothing-clear", |narrative| {
            let moment = match lab.now() {
                Ok(moment) => moment,
                Err(_) => before,
            };
            answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
            nothing_clear(narrative, lab, moment, "members sent no clear packet");
        });
        narrative.sabotage(what, "preserved", |narrative| preserved(narrative, lab));
        Ok(())
    })?;
    let crossed = lab.core_since(before)?;
    narrative.sabotage(
        "the capture of that time is looked at once more",
        "nothing-clear",
        |narrative| {
            narrative.state("nothing-clear", "no clear packet", || Ok(clear_count(&crossed, None)));
        },
    );
    Ok(())
}

fn states_removed(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    without_repair(lab, narrative, 1, |lab, narrative| {
        G2.ip("xfrm state flush")?;
        narrative.sabotage("the keys of the second member are gone", "same-keys", |narrative| {
            same_keys(narrative, lab)
        });
        narrative.sabotage("the keys of the second member are gone", "ping", |narrative| {
            answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
        });
        Ok(())
    })
}

/// The guards that stand before source translation and before ICMP errors.
fn guards_emptied(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    let worked = without_repair(lab, narrative, 0, |lab, narrative| {
        let empty = |chain| G1.run("nft", &["flush", "chain", "ip", "gdoi", chain]);
        empty("quoted")?;
        narrative.sabotage("g1's guard looks at no quotes", "quoted", |narrative| {
            leaks::quotes(lab, narrative)
        });
        empty("before_nat")?;
        empty("behind_nat")?;
        G1.nft(leaks::MASQUERADE)?;
        narrative.sabotage(
            "g1's guards are empty beside a masquerade",
            "nothing-clear",
            |narrative| {
                if let Ok(moment) = lab.now() {
                    answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
                    nothing_clear(narrative, lab, moment, "members sent no clear packet");
                }
            },
        );
        leaks::unload(G1);
        Ok(())
    });
    leaks::unload(G1);
    worked
}

/// Last, because it leaves the member without keys.
fn wrong_pre_shared_key(lab: &mut Lab, narrative: &mut Narrative) -> Result<()> {
    lab.stop_member(0)?;
    write_secret(&lab.file("g1.psk"), &random_key()?)?;
    lab.start_member(0)?;
    let first = SERVERS.first().context("no server")?.0;
    narrative.sabotage(
        &format!("the pre-shared key of g1 is not the one {first} has"),
        "registered",
        |narrative| {
            registered(lab, narrative, "both members are registered");
        },
    );
    narrative.show("g1: the end of its log", &lab.log_tail(G1, 6));
    lab.stop_member(0)?;
    lab.stop_member(1)
}

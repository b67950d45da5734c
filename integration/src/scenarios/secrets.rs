//! Daemons that log all they can, through registrations and rekeys: the keys of the kernel, the
//! pre-shared keys and the state keys are looked for in whatever anybody may see.

use super::{Context, bring_up, close};
use crate::lab::nodes::Node;
use crate::lab::plan::{MEMBERS, Plan, Rekey};
use crate::lab::topology::{G1, G2, HA, SERVERS};
use crate::lab::{DIRECTORY, Lab};
use crate::observe::pushes::{GROUP, rekey};
use crate::report::listed;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::answered;
use agent::persistence::sealed_keys;
use anyhow::{Context as _, Result};
use daemon::clock;
use daemon::sealed::file::{Moment, SealedFile};
use ike::crypto::Secret;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use testing::secret_search::found;

const GROUP_ID: u32 = 1111;
const WITHIN: Duration = Duration::from_secs(90);

/// What the lab itself wrote, and the captures: a capture holds no more than the wire did.
const OWN: [&str; 5] = ["psk", "key", "pcap", "sock", "notify"];

type Secrets = BTreeMap<String, Vec<u8>>;

/// A registration, rekeys, a reload, a death and a stop.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    let rekey = Rekey { sealed: true, key_hierarchy: true, ..Rekey::default() };
    let plan =
        Plan { rekey: Some(rekey), sealed_members: true, log: Some("trace"), ..Plan::default() };
    let mut lab = context.build(plan)?;
    let mut secrets = written_by_the_lab(&lab)?;
    if bring_up(&mut lab, narrative)? {
        let mut answers = String::new();
        live(&mut lab, narrative, &mut secrets, &mut answers)?;
        let of = |kind: &str| secrets.keys().filter(|name| name.starts_with(kind)).count();
        let (teks, keks) = (of("TEK"), of("KEK"));
        narrative.state(
            "witness",
            "the search finds every key of the kernel in what 'ip xfrm state' prints",
            || {
                let text = [G1, G2]
                    .map(|node| node.ip("xfrm state"))
                    .into_iter()
                    .collect::<Result<String>>()?;
                let current: Secrets = keys_of_the_kernel(&lab)?;
                let missed: Vec<&String> = current
                    .iter()
                    .filter(|(name, octets)| {
                        found(text.as_bytes(), &Secrets::from([((*name).clone(), octets.to_vec())]))
                            .is_none()
                    })
                    .map(|(name, _)| name)
                    .collect();
                Ok(Finding::new(
                    !current.is_empty() && missed.is_empty(),
                    format!("{} keys, missed: {}", current.len(), listed(missed)),
                ))
            },
        );
        narrative.state("secrets", "no octets of a key in what 'gdoictl' answers", || {
            let seen = found(answers.as_bytes(), &secrets);
            let evidence = format!(
                "{} octets; {teks} keys of TEKs, {keks} KEKs, {} others; found: {}",
                answers.len(),
                secrets.len() - teks - keks,
                listed(&seen)
            );
            Ok(Finding::new(
                answers.len() > 1000 && teks > 0 && keks > 0 && seen.is_none(),
                evidence,
            ))
        });
    }
    // Ends of daemons are logged as well.
    let logs = files(Path::new(DIRECTORY))?;
    close(context, lab, narrative)?;
    for file in logs {
        look(narrative, &file, &secrets);
    }
    Ok(())
}

fn live(
    lab: &mut Lab,
    narrative: &mut Narrative,
    secrets: &mut Secrets,
    answers: &mut String,
) -> Result<()> {
    note(lab, secrets, answers)?;
    for _ in 0..2 {
        narrative.state("rekeyed", "a rekey reaches both members", || {
            let spi = rekey(lab, SERVERS[0], &[G1, G2], WITHIN)?;
            Ok(Finding::new(true, format!("SPI {spi:#010x}")))
        });
        note(lab, secrets, answers)?;
    }
    answered(narrative, "ping", "ha reaches hb", HA, &[], "172.16.2.10");
    lab.change(|plan| plan.df_bit = "copy")?;
    G1.ip("xfrm state flush")?;
    lab.gdoictl(G2, &["register", GROUP])?;
    lab.kill_member(0)?;
    lab.start_member(0)?;
    lab.kill_server(0)?;
    lab.start_server(0)?;
    narrative.state("rekeyed", "after deaths of both daemons a rekey reaches both members", || {
        let spi = rekey(lab, SERVERS[0], &[G1, G2], WITHIN)?;
        Ok(Finding::new(true, format!("SPI {spi:#010x}")))
    });
    note(lab, secrets, answers)
}

/// Remembers the keys of this moment and what the daemons say about it.
fn note(lab: &Lab, secrets: &mut Secrets, answers: &mut String) -> Result<()> {
    secrets.append(&mut keys_of_the_kernel(lab)?);
    for node in [G1, G2] {
        let key = key_of_the_rekey_sa(lab, node)?;
        if !secrets.values().any(|known| *known == key) {
            secrets.insert(format!("KEK of {}, {}", node.0, secrets.len()), key);
        }
    }
    for node in [G1, G2] {
        for part in
            [&["member"][..], &["member", "ipsec"], &["member", "ike"], &["member", "policy"]]
        {
            answers.push_str(&lab.gdoictl(node, &[&["--json", "show"], part].concat())?);
            answers.push_str(&lab.show_text(node, part)?);
        }
    }
    for part in [&["server"][..], &["server", "members"]] {
        answers.push_str(&lab.gdoictl(SERVERS[0], &[&["--json", "show"], part].concat())?);
        answers.push_str(&lab.show_text(SERVERS[0], part)?);
    }
    Ok(())
}

fn keys_of_the_kernel(lab: &Lab) -> Result<Secrets> {
    let mut keys = Secrets::new();
    for state in [lab.states(G1)?, lab.states(G2)?].concat() {
        let spi = state.spi;
        let parts = [
            ("encryption", state.encryption.map(|part| part.1)),
            ("integrity", state.integrity.map(|part| part.1)),
        ];
        keys.extend(
            parts
                .into_iter()
                .filter_map(|(name, key)| Some((format!("TEK {spi:#x}: {name}"), key?))),
        );
    }
    Ok(keys)
}

/// No kernel has the KEK: it is in the member's sealed state alone.
fn key_of_the_rekey_sa(lab: &Lab, node: Node) -> Result<Vec<u8>> {
    let key = Secret::new(fs::read(lab.file(&format!("{}-state.key", node.0)))?);
    let path = lab.file(&format!("{}-state/gdoi-agent.sealed", node.0));
    let file = SealedFile::new(path, sealed_keys::OWNER, &key)?;
    let moment = Moment { boot: clock::boot_identifier(), now: clock::now(), wall: clock::wall() };
    let (octets, elapsed) = file.load(&moment)?.context("no sealed state")?;
    let mut unsealed = sealed_keys::decode(&octets, moment.boot, elapsed)?;
    let (_, keys) = unsealed.take(GROUP_ID).context("the sealed state has no such group")?;
    let sa = keys.kek.context("the sealed state has no KEK")?.sa;
    Ok(sa.kek_keys().context("a rekey SA without a key")?.algorithm_key.expose().to_vec())
}

/// Pre-shared keys and state keys, as the octets that their digits are made of. Of the digits
/// themselves some are found in every hexadecimal number.
fn written_by_the_lab(lab: &Lab) -> Result<Secrets> {
    let mut names: Vec<String> = MEMBERS.iter().map(|member| format!("{}.psk", member.0)).collect();
    names.extend([G1, G2, SERVERS[0]].map(|node| format!("{}-state.key", node.0)));
    let secret = |name: String| {
        let text = fs::read_to_string(lab.file(&name))?;
        let digits: Vec<char> = text.trim().chars().collect();
        let octet = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
        let octets =
            digits.chunks(2).map(octet).collect::<Result<Vec<u8>, _>>().context("digits")?;
        Ok((name, octets))
    };
    names.into_iter().map(secret).collect()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if !OWN.iter().any(|own| path.extension().is_some_and(|extension| extension == *own))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn look(narrative: &mut Narrative, file: &Path, secrets: &Secrets) {
    let name = file.strip_prefix(DIRECTORY).unwrap_or(file).display().to_string();
    narrative.state("secrets", &format!("no octets of a key in {name}"), || {
        let octets = fs::read(file)?;
        let seen = found(&octets, secrets);
        let log = file.extension().is_some_and(|extension| extension == "log");
        // A log without its lowest level would prove little.
        let traced = !log
            || name.contains("tcpdump")
            || name == "traffic.log"
            || octets.windows(5).any(|part| part == b"TRACE" || part == b"DEBUG");
        Ok(Finding::new(
            seen.is_none() && traced,
            format!("{} octets; found: {}", octets.len(), listed(seen)),
        ))
    });
}

//! A group and a tunnel on one router: the key server lies behind the tunnel, and neither of the two
//! is touched by what happens to the other.

use super::{Context, bring_up, close, no_errors};
use crate::lab::Lab;
use crate::lab::daemons::write_secret;
use crate::lab::peers::strongswan::StrongSwan;
use crate::lab::plan::{Plan, Rekey};
use crate::lab::topology::{G1, HA, HB_ADDRESS, R};
use crate::observe::leak::from_member;
use crate::observe::packet::ESP;
use crate::report::listed;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{answered, clear_count, flow_during};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(60);
/// The core router's end; the key server is behind it.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 254);
const KEY: &str = "another key for the lab alone";

/// Counts registrations that leave in clear, behind XFRM.
const SEEN: &str = "table netdev seen {\n  chain out {\n    type filter hook egress device \"wan\" \
    priority 0;\n    ip daddr 10.0.11.1 udp dport 848 counter\n  }\n}\n";

const THEIRS: &str = "connections {\n  lab {\n    version = 1\n    local_addrs = 10.0.1.254\n    \
    remote_addrs = 10.0.1.1\n    proposals = aes256-sha256-modp2048\n    local {\n      auth = psk\n    \
    }\n    remote {\n      auth = psk\n    }\n    children {\n      net {\n        local_ts = \
    10.0.11.0/24\n        remote_ts = 10.0.1.1/32\n        esp_proposals = aes256-sha256-modp2048\n      \
    }\n    }\n  }\n}\nsecrets {\n  ike-lab {\n    secret = \"another key for the lab alone\"\n  }\n}\n";

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative
        .chapter("Two members, a key server, and a tunnel of g1 to the router before the server");
    let mut lab = context.build(Plan { rekey: Some(Rekey::default()), ..Plan::default() })?;
    let charon = StrongSwan::start(R, &lab.file(""))?;
    charon.load(THEIRS)?;
    write_secret(&lab.file("tunnel.psk"), KEY)?;
    if !bring_up(&mut lab, narrative)? {
        return close(context, lab, narrative);
    }
    answered(
        narrative,
        "group",
        "ha reaches hb through the group",
        HA,
        &[],
        &HB_ADDRESS.to_string(),
    );
    let file = std::fs::read_to_string(lab.file("g1.toml"))?;
    narrative.state(
        "created",
        "a gateway and a tunnel beside the group, and no key changes",
        || {
            let before = group_spis(&lab)?;
            lab.gdoictl(G1, &["gateway", "create", "core", "--yes"])?;
            create(&lab)?;
            let state = wait_active(&lab)?;
            let after = group_spis(&lab)?;
            let evidence = format!("{state}; SPIs of the group {}", listed(&after));
            Ok(Finding::new(state == "active" && before == after, evidence))
        },
    );
    narrative.state("through", "a registration goes to the key server through the tunnel", || {
        let moment = lab.now()?;
        let before = pulls(&lab)?;
        G1.nft(SEEN)?;
        lab.gdoictl(G1, &["register", "branches"])?;
        let started = Instant::now();
        while pulls(&lab)? == before && started.elapsed() < WITHIN {
            std::thread::sleep(Duration::from_millis(300));
        }
        let registered = pulls(&lab)? > before;
        // The router's capture shows what came out of the tunnel once more: g1's wire decides.
        let seen = G1.run("nft", &["list", "table", "netdev", "seen"])?;
        let clear = seen.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
        let clear: u64 = clear.context("no counter")?.parse()?;
        let crossed = lab.core_since(moment)?;
        let packets = crossed.iter().filter(|one| from_member(one)).map(|one| &one.packet);
        let protected =
            packets.filter(|one| one.protocol == ESP && one.destination == PEER).count();
        let evidence = format!(
            "g1 sent {clear} datagrams in clear, and {protected} ESP packets of the tunnel"
        );
        Ok(Finding::new(registered && clear == 0 && protected >= 2, evidence))
    });
    independent(&mut lab, narrative);
    narrative.state(
        "deleted",
        "tunnel and gateway go again: the group stays, and so does the file",
        || {
            let before = group_spis(&lab)?;
            let refused = lab.gdoictl(G1, &["gateway", "delete", "core", "--yes"]);
            lab.gdoictl(G1, &["tunnel", "delete", "core", "--yes"])?;
            lab.gdoictl(G1, &["gateway", "delete", "core", "--yes"])?;
            let same = std::fs::read_to_string(lab.file("g1.toml"))? == file;
            let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
            let theirs = charon.sas()?;
            // A replaced TEK may end meanwhile.
            let after = group_spis(&lab)?;
            let holds = !after.is_empty()
                && after.iter().all(|spi| before.contains(spi))
                && same
                && said.contains("is used by tunnel core")
                && !theirs.contains("INSTALLED");
            let evidence = format!("first: {said}\nthe file is as it was: {same}\n{theirs}");
            Ok(Finding::new(holds, evidence.trim_end()))
        },
    );
    answered(
        narrative,
        "group",
        "ha reaches hb through the group",
        HA,
        &[],
        &HB_ADDRESS.to_string(),
    );
    drop(charon);
    let errors = lab.errors();
    let (mut all, _) = lab.finish()?;
    // ESP of the tunnel has the addresses of its ends.
    all.retain(|one| one.packet.protocol != ESP || one.packet.destination != PEER);
    let text = "meanwhile no clear packet between protected prefixes";
    narrative.state("nothing-clear", text, || Ok(clear_count(&all, None)));
    no_errors(narrative, &errors);
    Ok(())
}

/// What happens to one of them leaves the other alone.
fn independent(lab: &mut Lab, narrative: &mut Narrative) {
    narrative.state(
        "tunnel-changes",
        "the tunnel is renegotiated under load: the group loses nothing",
        || {
            let before = (group_spis(lab)?, tunnel_spis(lab)?);
            let report = flow_during(lab, |lab| {
                lab.gdoictl(G1, &["tunnel", "set", "core", "lifetime=2h", "--yes"])?;
                wait_active(lab)?;
                Ok(())
            })?;
            let after = (group_spis(lab)?, tunnel_spis(lab)?);
            let holds = report.sent > 0 && report.sent == report.received;
            let evidence = format!("{report}; SPIs of the tunnel {}", listed(&after.1));
            Ok(Finding::new(holds && before.0 == after.0 && before.1 != after.1, evidence))
        },
    );
    narrative.state(
        "group-changes",
        "the group gets new keys by a push through the tunnel, which stays",
        || {
            let before = (group_spis(lab)?, tunnel_spis(lab)?);
            lab.gdoictl(crate::lab::topology::SERVERS[0], &["rekey", "branches"])?;
            let started = Instant::now();
            while group_spis(lab)? == before.0 && started.elapsed() < WITHIN {
                std::thread::sleep(Duration::from_millis(300));
            }
            let after = (group_spis(lab)?, tunnel_spis(lab)?);
            let evidence =
                format!("SPIs of the group {}, then {}", listed(&before.0), listed(&after.0));
            Ok(Finding::new(before.0 != after.0 && before.1 == after.1, evidence))
        },
    );
}

fn create(lab: &Lab) -> Result<()> {
    let key = format!("pre-shared-key-file={}", lab.file("tunnel.psk").display());
    let line = [
        "tunnel",
        "create",
        "core",
        "gateway=core",
        "local-address=10.0.1.1",
        "peer=10.0.1.254",
        "local-networks=10.0.1.1/32",
        "remote-networks=10.0.11.0/24",
        "esp=aes-256-cbc-sha2-256",
        &key,
        "--yes",
    ];
    lab.gdoictl(G1, &line).map(drop)
}

fn tunnel(lab: &Lab) -> Result<Value> {
    let text = lab.gdoictl(G1, &["--json", "tunnel", "show", "core"])?;
    serde_json::from_str(&text).context("gdoictl printed no JSON")
}

fn wait_active(lab: &Lab) -> Result<String> {
    let started = Instant::now();
    loop {
        let tunnel = tunnel(lab)?;
        let state = tunnel.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
        if state == "active" || started.elapsed() > WITHIN {
            return Ok(state);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn tunnel_spis(lab: &Lab) -> Result<Vec<String>> {
    let tunnel = tunnel(lab)?;
    let sas = tunnel.pointer("/networks/0/sas").and_then(Value::as_array);
    let spis = sas.into_iter().flatten().filter_map(|sa| sa.get("inbound_spi")?.as_str());
    Ok(spis.map(str::to_owned).collect())
}

/// SPIs of the TEKs that g1 holds.
fn group_spis(lab: &Lab) -> Result<Vec<u64>> {
    let teks = lab.show(G1, &["member"], "teks")?;
    let teks = teks.as_array().into_iter().flatten();
    let mut spis: Vec<u64> = teks.filter_map(|tek| tek.get("spi")?.as_u64()).collect();
    spis.sort_unstable();
    Ok(spis)
}

fn pulls(lab: &Lab) -> Result<u64> {
    let count = lab.show(G1, &["member"], "pulls_succeeded")?;
    count.as_u64().context("no number of pulls")
}

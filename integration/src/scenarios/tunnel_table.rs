//! What tunnels negotiate with strongSwan, each row begun by either side, as one table; and ISAKMP
//! SAs that are renewed under load.

use super::Context;
use super::tunnel_certificates::{self, Hosts};
use super::tunnels::ends::{Ends, STRONG};
use super::tunnels::{Play, play_with};
use crate::lab::certificates::{Certificates, Fault};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{FlowReport, flow_during};
use anyhow::{Context as _, Result};
use ike::crypto::KeyKind;
use std::time::Duration;

/// Rows with a pre-shared key. What both sides say is in the words of strongSwan.
const ROWS: &[Ends] = &[
    Ends {
        gateway: "hash = [\"sha1\"]\ndh-group = [2]\nencryption = [\"aes-128-cbc\"]",
        tunnel: "legacy = true\nesp = [\"aes-128-cbc-sha1\"]\npfs = 2",
        ike: "aes128-sha1-modp1024",
        esp: "aes128-sha1-modp1024",
        ..STRONG
    },
    Ends {
        gateway: "hash = [\"sha1\"]\ndh-group = [5]",
        tunnel: "legacy = true\nesp = [\"aes-256-cbc-sha1\"]\npfs = 5",
        ike: "aes256-sha1-modp1536",
        esp: "aes256-sha1-modp1536",
        ..STRONG
    },
    STRONG,
    Ends { tunnel: "pfs = \"off\"", esp: "aes256gcm16", ..STRONG },
    Ends {
        tunnel: "esp = [\"aes-128-cbc-sha2-256\"]\npfs = \"off\"",
        esp: "aes128-sha256",
        ..STRONG
    },
    Ends {
        gateway: "hash = [\"sha2-512\"]\ndh-group = [16]",
        tunnel: "esp = [\"aes-256-cbc-sha2-512\"]\npfs = 16",
        ike: "aes256-sha512-modp4096",
        esp: "aes256-sha512-modp4096",
        ..STRONG
    },
    Ends {
        gateway: "dh-group = [19]\nencryption = [\"aes-128-cbc\"]",
        tunnel: "esp = [\"aes-128-gcm-16\"]\npfs = 19",
        ike: "aes128-sha256-ecp256",
        esp: "aes128gcm16-ecp256",
        ..STRONG
    },
    Ends {
        gateway: "hash = [\"sha2-384\"]\ndh-group = [20]",
        tunnel: "esp = [\"aes-256-cbc-sha2-384\"]\npfs = 20",
        ike: "aes256-sha384-ecp384",
        esp: "aes256-sha384-ecp384",
        ..STRONG
    },
    Ends { what: "aws", gateway: "profile = \"aws\"", ..STRONG },
    Ends {
        what: "google",
        gateway: "profile = \"google\"",
        tunnel: "legacy = true",
        ike: "aes128-sha1-modp1024",
        esp: "aes128-sha1-modp1024",
        ..STRONG
    },
    Ends { what: "oracle", gateway: "profile = \"oracle\"", ike: "aes256-sha384-ecp384", ..STRONG },
    Ends {
        what: "azure-policy",
        gateway: "profile = \"azure-policy\"",
        tunnel: "legacy = true",
        ike: "aes256-sha1-modp1024",
        esp: "aes256-sha1",
        ..STRONG
    },
    Ends {
        what: "alibaba",
        gateway: "profile = \"alibaba\"",
        tunnel: "legacy = true",
        ike: "aes128-sha1-modp1024",
        esp: "aes128-sha1-modp1024",
        ..STRONG
    },
    Ends {
        what: "naver",
        gateway: "profile = \"naver\"",
        tunnel: "legacy = true",
        ike: "aes256-sha1-modp1536",
        esp: "aes256-sha1-modp1536",
        ..STRONG
    },
];

const CERTIFICATES: [(&str, KeyKind, &str, &str); 2] = [
    ("RSA 2048", KeyKind::Rsa, "sha2-256", "aes256-sha256-modp2048"),
    ("ECDSA P-384", KeyKind::Ecdsa384, "sha2-384", "aes256-sha384-modp2048"),
];

struct Row {
    mode: &'static str,
    authentication: String,
    profile: &'static str,
    ike: &'static str,
    esp: &'static str,
    /// Whether it carried, begun by the agent and by strongSwan.
    carried: [bool; 2],
}

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    play_with(context, narrative, |play, narrative| {
        let mut rows: Vec<Row> =
            ROWS.iter().map(|ends| shared_key(play, narrative, ends)).collect();
        rows.extend(certificates(play, narrative)?);
        narrative.show("what was negotiated and carried ESP both ways", &table(&rows));
        renewals(play, narrative);
        Ok(())
    })
}

const BEGUN: [(&str, &str); 2] = [("now", "the agent"), ("answer", "strongSwan")];

/// A row in both roles.
fn row(
    narrative: &mut Narrative,
    text: &str,
    mut carries: impl FnMut(&str) -> Result<Finding>,
) -> [bool; 2] {
    BEGUN.map(|(start, who)| {
        narrative.state("row", &format!("{text}: begun by {who}"), || carries(start))
    })
}

fn shared_key(play: &mut Play<'_>, narrative: &mut Narrative, ends: &Ends) -> Row {
    let profile = if ends.gateway.starts_with("profile") { ends.what } else { "-" };
    let text = format!("main mode, PSK, {}, ESP {}, profile {profile}", ends.ike, ends.esp);
    let carried = row(narrative, &text, |start| {
        play.change(ends, start)?;
        let began = start == "now" || play.charon.initiate("net")?;
        let finding = play.carries(true)?;
        Ok(Finding::new(finding.holds && began, finding.evidence))
    });
    let authentication = String::from("PSK");
    Row { mode: "main", authentication, profile, ike: ends.ike, esp: ends.esp, carried }
}

fn certificates(play: &mut Play<'_>, narrative: &mut Narrative) -> Result<Vec<Row>> {
    let certificates = Certificates::new(&play.lab.file("certificates"))?;
    let mut rows = Vec::new();
    for (what, kind, hash, proposal) in CERTIFICATES {
        certificates.host("g1", (kind, 1), "10.0.1.1", Fault::None, 0)?;
        certificates.host("g2", (kind, 2), "10.0.2.1", Fault::None, 0)?;
        let hosts = Hosts {
            ours: "g1",
            our_list: "empty.crl",
            theirs: "g2",
            their_list: "empty.crl",
            hash,
            proposal,
        };
        let text = format!("main mode, {what}, {proposal}, ESP {}", STRONG.esp);
        let carried = row(narrative, &text, |start| {
            tunnel_certificates::change(play, &certificates, &hosts, start)?;
            let began = start == "now" || play.charon.initiate("net")?;
            let finding = play.carries(true)?;
            Ok(Finding::new(finding.holds && began, finding.evidence))
        });
        let authentication = what.to_owned();
        let (mode, profile, ike, esp) = ("main", "-", proposal, STRONG.esp);
        rows.push(Row { mode, authentication, profile, ike, esp, carried });
    }
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
    let head = ["mode", "authentication", "profile", "IKE", "ESP and PFS", "agent", "strongSwan"];
    let mut lines = vec![head.map(str::to_owned)];
    for row in rows {
        let [agent, strongswan] = row.carried.map(|yes| if yes { "yes" } else { "NO" }.to_owned());
        lines.push([
            row.mode.to_owned(),
            row.authentication.clone(),
            row.profile.to_owned(),
            row.ike.to_owned(),
            row.esp.to_owned(),
            agent,
            strongswan,
        ]);
    }
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let render = |line: &[String; 7]| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(render).collect::<Vec<_>>().join("\n")
}

/// New ISAKMP SAs while packets flow.
fn renewals(play: &mut Play<'_>, narrative: &mut Narrative) {
    narrative.chapter("New ISAKMP SAs under load");
    narrative.state("isakmp-sa", "the agent renews one of two minutes: nothing is lost", || {
        play.change(&Ends { gateway: "lifetime = \"2m\"", ..STRONG }, "now")?;
        play.carries(true)?;
        let before = cookie(play)?;
        let report = flow_during(play.lab, |_| {
            // It is due when a quarter of its lifetime is left.
            std::thread::sleep(Duration::from_secs(100));
            Ok(())
        })?;
        Ok(renewed(&report, &before, &cookie(play)?))
    });
    narrative.state("isakmp-sa", "strongSwan renews it twice: nothing is lost", || {
        play.change(&STRONG, "answer")?;
        play.charon.initiate("net")?;
        play.carries(true)?;
        let before = cookie(play)?;
        let charon = &play.charon;
        let report = flow_during(play.lab, |_| {
            for _ in 0..2 {
                std::thread::sleep(Duration::from_secs(4));
                charon.rekey(&["--ike", "lab"])?;
            }
            std::thread::sleep(Duration::from_secs(4));
            Ok(())
        })?;
        Ok(renewed(&report, &before, &cookie(play)?))
    });
}

fn renewed(report: &FlowReport, before: &str, after: &str) -> Finding {
    let evidence = format!("{report}; initiator's cookie {before}, then {after}");
    Finding::new(report.sent > 0 && report.sent == report.received && before != after, evidence)
}

fn cookie(play: &Play<'_>) -> Result<String> {
    let tunnel = play.tunnel()?;
    let cookie = tunnel.pointer("/isakmp_sa/initiator_cookie").and_then(serde_json::Value::as_str);
    Ok(cookie.context("there is no ISAKMP SA")?.to_owned())
}

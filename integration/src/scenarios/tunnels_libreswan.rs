//! Tunnels with libreswan: both roles, pre-shared key and certificates, address translation on
//! either side, aggressive mode.

use super::Context;
use super::tunnels::{Play, play_beside};
use super::tunnels_nat::{KEY, Other, ours, translated};
use crate::lab::Lab;
use crate::lab::certificates::{Certificates, Fault};
use crate::lab::peers::IkePeer as _;
use crate::lab::peers::libreswan::Libreswan;
use crate::lab::topology::G2;
use crate::report::narrative::{Finding, Narrative};
use anyhow::{Context as _, Result};
use ike::crypto::KeyKind;
use std::process::Command;

/// What both sides agree on: lines of our tunnel, then of its connection.
const AGREED: &[(&str, &str, &str)] = &[
    ("AES-256-GCM, PFS group 14", "", "esp=aes_gcm256-null;modp2048\n    pfs=yes"),
    (
        "AES-256-CBC, SHA2-256, PFS group 14",
        "esp = [\"aes-256-cbc-sha2-256\"]",
        "esp=aes256-sha2_256;modp2048\n    pfs=yes",
    ),
    (
        "AES-128-CBC, SHA-1, no PFS",
        "esp = [\"aes-128-cbc-sha1\"]\npfs = \"off\"",
        "esp=aes128-sha1\n    pfs=no",
    ),
];

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("The agent on g1, libreswan's pluto on g2");
    let start = |lab: &Lab| Libreswan::start(G2, &lab.file(""));
    let first = swan(&Other::default());
    play_beside(context, narrative, start, &first, |play, narrative| {
        agreements(play, narrative);
        translated(play, narrative, &swan)?;
        aggressive(play, narrative);
        certificates(play, narrative)
    })
}

fn swan(other: &Other<'_>) -> String {
    connection(other, "authby=secret", AGREED.first().map_or("", |(.., lines)| lines))
}

/// The secret comes first, in a comment that [`Libreswan`] knows.
fn connection(other: &Other<'_>, authentication: &str, esp: &str) -> String {
    format!(
        "# : PSK \"{KEY}\"\nconn net\n    ikev2=no\n    {authentication}\n    left=10.0.2.1\n    \
         leftsubnet=172.16.2.0/24\n    right={}\n    rightsubnet=172.16.1.0/24\n    \
         leftid=10.0.2.1\n    rightid=10.0.1.1\n    aggressive={}\n    ike=aes256-sha2_256;modp2048\n    {esp}\n    \
         leftupdown=%disabled\n    auto=add\n    {}\n",
        other.remote,
        if other.aggressive { "yes" } else { "no" },
        other.lines,
    )
}

fn agreements(play: &mut Play<'_, Libreswan>, narrative: &mut Narrative) {
    narrative.chapter("What both sides agree on, each begun by either");
    for (what, tunnel, esp) in AGREED {
        for start in ["now", "answer"] {
            let by = if start == "now" { "the agent" } else { "libreswan" };
            narrative.state("tunnel", &format!("{what}: begun by {by}"), || {
                let text = ours(play.lab, "10.0.2.1", start, tunnel);
                play.change_to(&text, &connection(&Other::default(), "authby=secret", esp))?;
                let began = start == "now" || play.charon.initiate("net")?;
                let finding = play.carries(true)?;
                Ok(Finding::new(finding.holds && began, finding.evidence))
            });
        }
    }
}

fn aggressive(play: &mut Play<'_, Libreswan>, narrative: &mut Narrative) {
    narrative.chapter("Aggressive mode");
    for start in ["now", "answer"] {
        narrative.state("aggressive", &format!("start = {start}"), || {
            let text = ours(play.lab, "10.0.2.1", start, "aggressive-mode = true");
            play.change_to(&text, &swan(&Other { aggressive: true, ..Other::default() }))?;
            let began = start == "now" || play.charon.initiate("net")?;
            let finding = play.carries(true)?;
            Ok(Finding::new(finding.holds && began, finding.evidence))
        });
    }
}

fn certificates(play: &mut Play<'_, Libreswan>, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter("Certificates in the place of the key");
    let directory = play.lab.file("certificates");
    let certificates = Certificates::new(&directory)?;
    for (name, seed, address) in [("g1", 1, "10.0.1.1"), ("g2", 2, "10.0.2.1")] {
        certificates.host(name, (KeyKind::Rsa, seed), address, Fault::None, 0)?;
    }
    let packed = directory.join("g2.p12");
    let file = |name: &str| directory.join(name).display().to_string();
    let output = Command::new("openssl")
        .args(["pkcs12", "-export", "-name", "g2", "-passout", "pass:", "-in", &file("g2.crt")])
        .args(["-inkey", &file("g2.key"), "-certfile", &file("ca.crt"), "-out"])
        .arg(&packed)
        .output()
        .context("openssl")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    play.charon.import(&packed)?;
    for start in ["now", "answer"] {
        narrative.state("certificates", &format!("RSA 2048, start = {start}"), || {
            let text = ours(play.lab, "10.0.2.1", start, "certificate = \"lab\"");
            let psk =
                format!("pre-shared-key-file = \"{}\"\n", play.lab.file("tunnel.psk").display());
            let table = certificates.table("g1", "empty.crl");
            let text =
                text.replace(&psk, "").replace("[[gateway]]", &format!("{table}\n[[gateway]]"));
            let rsa = "authby=rsasig\n    leftcert=g2\n    leftsendcert=always";
            let esp = AGREED.first().map_or("", |(.., lines)| lines);
            play.change_to(&text, &connection(&Other::default(), rsa, esp))?;
            let began = start == "now" || play.charon.initiate("net")?;
            let finding = play.carries(true)?;
            Ok(Finding::new(finding.holds && began, finding.evidence))
        });
    }
    Ok(())
}

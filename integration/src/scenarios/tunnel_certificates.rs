//! Tunnels whose ends have certificates, with strongSwan: every kind of key in both roles, and who
//! is refused.

use super::Context;
use super::tunnels::{Play, play_with, socket};
use crate::lab::certificates::{Certificates, Fault};
use crate::lab::topology::{HA, HB_ADDRESS};
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::ping;
use anyhow::Result;
use ike::crypto::KeyKind;

/// A kind of key with the proposal that strongSwan accepts with it.
const KINDS: &[(&str, KeyKind, &str, &str); 3] = &[
    ("RSA 2048", KeyKind::Rsa, "sha2-256", "aes256-sha256-modp2048"),
    ("ECDSA P-256", KeyKind::Ecdsa256, "sha2-256", "aes256-sha256-modp2048"),
    ("ECDSA P-384", KeyKind::Ecdsa384, "sha2-384", "aes256-sha384-modp2048"),
];

/// Both ends of one tunnel.
#[derive(Clone, Copy)]
pub(super) struct Hosts<'h> {
    pub(super) ours: &'h str,
    pub(super) our_list: &'h str,
    pub(super) theirs: &'h str,
    pub(super) their_list: &'h str,
    pub(super) hash: &'h str,
    pub(super) proposal: &'h str,
}

const LISTS: (&str, &str) = ("empty.crl", "empty.crl");

pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    play_with(context, narrative, |play, narrative| {
        chapters(play, narrative);
        Ok(())
    })
}

fn chapters(play: &mut Play<'_>, narrative: &mut Narrative) {
    narrative.chapter("Certificates in the place of the key");
    let certificates = match Certificates::new(&play.lab.file("certificates")) {
        Ok(certificates) => certificates,
        Err(error) => {
            narrative.state("certificates", "an authority is made", || Err(error));
            return;
        }
    };
    for (what, kind, hash, proposal) in KINDS {
        let made = certificates
            .host("g1", (*kind, 1), "10.0.1.1", Fault::None, 0)
            .and_then(|()| certificates.host("g2", (*kind, 2), "10.0.2.1", Fault::None, 0));
        if let Err(error) = made {
            narrative.state("certificates", what, || Err(error));
            continue;
        }
        let hosts = Hosts {
            ours: "g1",
            our_list: LISTS.0,
            theirs: "g2",
            their_list: LISTS.1,
            hash,
            proposal,
        };
        narrative.state("certificates", &format!("{what}: begun by the agent"), || {
            change(play, &certificates, &hosts, "now")?;
            play.carries(true)
        });
        narrative.state("certificates", &format!("{what}: begun by strongSwan"), || {
            change(play, &certificates, &hosts, "answer")?;
            let began = play.charon.initiate("net")?;
            let finding = play.carries(true)?;
            Ok(Finding::new(finding.holds && began, finding.evidence))
        });
    }
    refusals(play, &certificates, narrative);
}

fn refusals(play: &mut Play<'_>, certificates: &Certificates, narrative: &mut Narrative) {
    let [_, (_, kind, hash, proposal), _] = KINDS;
    let kind = *kind;
    let good =
        Hosts { ours: "g1", our_list: LISTS.0, theirs: "g2", their_list: LISTS.1, hash, proposal };
    let hosts: [(&str, &str, Fault, &str, u8); 5] = [
        ("g1", "10.0.1.1", Fault::None, "", 1),
        ("g2", "10.0.2.1", Fault::None, "", 2),
        ("revoked", "10.0.2.1", Fault::Revoked, "", 3),
        ("expired", "10.0.2.1", Fault::Expired, "", 4),
        ("elsewhere", "10.0.99.1", Fault::None, "", 5),
    ];
    for (name, address, fault, _, seed) in hosts {
        if let Err(error) = certificates.host(name, (kind, seed), address, fault, 0) {
            narrative.state("refusal", name, || Err(error));
        }
    }
    let revoked = Hosts { theirs: "revoked", our_list: "ca.crl", ..good };
    let expired = Hosts { theirs: "expired", ..good };
    let elsewhere = Hosts { theirs: "elsewhere", ..good };
    for (what, hosts, start, words) in [
        ("a revoked certificate", revoked, "now", "revoked by its issuer"),
        ("a revoked certificate, begun by strongSwan", revoked, "answer", "revoked by its issuer"),
        ("an expired certificate", expired, "now", "certificate ended at"),
        ("an expired certificate, begun by strongSwan", expired, "answer", "certificate ended at"),
        ("a certificate for another address", elsewhere, "now", "address 10.0.2.1 was expected"),
    ] {
        narrative.state("refusal", what, || {
            change(play, certificates, &hosts, start)?;
            if start == "answer" {
                play.charon.initiate("net")?;
            }
            let state = play.wait_state(|state| state.contains(words))?;
            let (_, answers, _) = ping(HA, &["-c", "1"], &HB_ADDRESS.to_string())?;
            let holds = state.contains(words) && answers == 0;
            let log = if holds { String::new() } else { play.charon.log_tail(12) };
            Ok(Finding::new(holds, format!("{state}\n{log}").trim_end().to_owned()))
        });
    }
    narrative.state("refusal", "strongSwan refuses ours: the line says what to look at", || {
        certificates.host("g1", (kind, 1), "10.0.1.1", Fault::Revoked, 0)?;
        // It keeps the list that it has unless the number of another one is higher.
        play.charon.restart()?;
        change(play, certificates, &Hosts { their_list: "ca.crl", ..good }, "now")?;
        let is_named = |state: &str| {
            state.contains("authority of our certificate")
                || state.contains("AUTHENTICATION_FAILED")
        };
        let state = play.wait_state(is_named)?;
        Ok(Finding::new(is_named(&state), state))
    });
}

pub(super) fn change(
    play: &mut Play<'_>,
    certificates: &Certificates,
    hosts: &Hosts<'_>,
    start: &str,
) -> Result<()> {
    certificates.install(hosts.theirs, hosts.their_list, play.charon.credentials())?;
    let ours = format!(
        "control-socket = \"{}\"\n\n{}\n[[gateway]]\nname = \"lab\"\nhash = [\"{}\"]\n\n[[tunnel]]\n\
         name = \"site\"\ngateway = \"lab\"\nlocal-address = \"10.0.1.1\"\npeer = \"10.0.2.1\"\n\
         local-networks = [\"172.16.1.0/24\"]\nremote-networks = [\"172.16.2.0/24\"]\n\
         certificate = \"lab\"\nstart = \"{start}\"\n",
        socket(play.lab),
        certificates.table(hosts.ours, hosts.our_list),
        hosts.hash,
    );
    let theirs = format!(
        "connections {{\n  lab {{\n    version = 1\n    local_addrs = 10.0.2.1\n    remote_addrs = \
         10.0.1.1\n    proposals = {}\n    send_cert = always\n    local {{\n      auth = pubkey\n      \
         certs = host.crt\n{}    }}\n    remote {{\n      auth = pubkey\n      id = 10.0.1.1\n    }}\n    \
         children {{\n      net {{\n        local_ts = 172.16.2.0/24\n        remote_ts = \
         172.16.1.0/24\n        esp_proposals = aes256gcm16-modp2048\n      }}\n    }}\n  }}\n}}\n",
        hosts.proposal,
        // One that its certificate does not have would be replaced by the subject.
        if hosts.theirs == "elsewhere" { "" } else { "      id = 10.0.2.1\n" },
    );
    play.change_to(&ours, &theirs)
}

//! Ciphers and integrity: each one carries traffic through the kernel and is opened in user space.

use super::{Context, bring_up, close};
use crate::lab::Lab;
use crate::lab::plan::{Plan, PolicyLine, Tek};
use crate::lab::topology::G2;
use crate::observe::esp;
use crate::observe::leak;
use crate::observe::packet::reassemble;
use crate::observe::states::State;
use crate::report::narrative::{Finding, Narrative};
use crate::report::statements::{nothing_clear, to_port};
use crate::traffic::MARKER;
use anyhow::{Context as _, Result};

/// A cipher in the words of the configuration, and what the kernel must make of it.
struct Suite {
    encryption: &'static str,
    integrity: Option<&'static str>,
    kernel: &'static str,
    /// Octets of the cipher's key; combined modes have their salt behind it.
    key: usize,
    kernel_integrity: &'static str,
}

const fn suite(encryption: &'static str, kernel: &'static str, key: usize) -> Suite {
    Suite { encryption, integrity: None, kernel, key, kernel_integrity: "" }
}

impl Suite {
    const fn with(self, integrity: &'static str, kernel_integrity: &'static str) -> Self {
        Self { integrity: Some(integrity), kernel_integrity, ..self }
    }

    fn is(&self, state: &State) -> bool {
        let (name, key) = match (&state.combined, &state.encryption) {
            (Some((name, key, _)), _) => (name.as_str(), key.len()),
            (None, Some((name, key))) => (name.as_str(), key.len()),
            (None, None) => return false,
        };
        let integrity = state.integrity.as_ref().map_or("", |(name, _, _)| name.as_str());
        (name, key, integrity) == (self.kernel, self.key, self.kernel_integrity)
    }
}

const SUITES: &[Suite] = &[
    suite("aes-128-cbc", "cbc(aes)", 16).with("hmac-sha1-96", "hmac(sha1)"),
    suite("aes-192-cbc", "cbc(aes)", 24).with("hmac-sha2-384-192", "hmac(sha384)"),
    suite("aes-256-cbc", "cbc(aes)", 32).with("hmac-sha2-512-256", "hmac(sha512)"),
    suite("aes-128-gcm-16", "rfc4106(gcm(aes))", 20),
    suite("aes-256-ccm-16", "rfc4309(ccm(aes))", 35),
    suite("null", "ecb(cipher_null)", 0).with("hmac-sha2-256-128", "hmac(sha256)"),
];

/// The first suite is for this UDP port, the next one for the port behind it.
const FIRST_PORT: u16 = 5100;

/// One group with a TEK for each suite, told apart by port.
pub(super) fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    narrative.chapter(
        "One group, a TEK for each cipher, told apart by port; sending in counter mode is allowed",
    );
    let ports = || FIRST_PORT..;
    let tek = |(suite, port): (&Suite, u16)| Tek {
        encryption: suite.encryption,
        integrity: suite.integrity,
        lines: vec![PolicyLine::udp(port)],
        ..Tek::default()
    };
    let teks = SUITES.iter().zip(ports()).map(tek).collect();
    let mut lab = context.build(Plan { teks, counter_mode_send: true, ..Plan::default() })?;
    if bring_up(&mut lab, narrative)? {
        let moment = lab.now()?;
        for (suite, port) in SUITES.iter().zip(ports()) {
            let text =
                format!("{} {}", suite.encryption, suite.integrity.unwrap_or("(combined mode)"));
            let text = format!("{text}: 20 datagrams arrive, and the capture opens in user space");
            narrative.state("cipher", &text, || carries(&lab, suite, port));
        }
        nothing_clear(narrative, &lab, moment, "meanwhile members sent no clear packet");
    }
    close(context, lab, narrative)
}

fn carries(lab: &Lab, suite: &Suite, port: u16) -> Result<Finding> {
    let (received, crossed) = to_port(lab, port, 20, 200)?;
    let states = lab.states(G2)?;
    let state =
        states.iter().find(|state| suite.is(state)).context("the kernel has no such state")?;
    let whole = reassemble(
        crossed
            .iter()
            .filter(|captured| leak::from_member(captured))
            .map(|captured| &captured.packet),
    );
    let mut opened = 0;
    for packet in &whole {
        let inner = esp::open(packet, state).with_context(|| packet.to_string())?;
        opened += usize::from(
            (inner.source, inner.destination) == (packet.source, packet.destination)
                && inner.contains(MARKER),
        );
    }
    let evidence = format!(
        "{received} received; SPI {:#010x}: {opened} of {} packets opened",
        state.spi,
        whole.len()
    );
    Ok(Finding::new(received == 20 && opened >= 20 && opened == whole.len(), evidence))
}

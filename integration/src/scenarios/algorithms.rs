//! Ciphers and integrity: each one carries traffic through the kernel and is opened in user space.

use super::{Context, bring_up, close};
use crate::narrative::Narrative;
use crate::plan::Plan;
use crate::statements::{decrypts, flow, preserved};
use crate::topology::G2;
use anyhow::Result;

const SUITES: &[(&str, Option<&str>)] = &[
    ("aes-128-cbc", Some("hmac-sha1-96")),
    ("aes-192-cbc", Some("hmac-sha2-384-192")),
    ("aes-256-cbc", Some("hmac-sha2-512-256")),
    ("aes-128-gcm-16", None),
    ("aes-256-ccm-16", None),
    ("null", Some("hmac-sha2-256-128")),
];

/// One group after the other.
pub fn play(context: &Context, narrative: &mut Narrative) -> Result<()> {
    for (encryption, integrity) in SUITES.iter().copied() {
        narrative.chapter(&format!("{encryption} {}", integrity.unwrap_or("(combined mode, sending allowed)")));
        let plan = Plan { encryption, integrity, counter_mode_send: integrity.is_none(), ..Plan::default() };
        let mut lab = context.build(plan)?;
        if bring_up(&mut lab, narrative)? {
            let moment = lab.now()?;
            preserved(narrative, &lab);
            flow(&mut lab, 20, "", |_| Ok(()))?;
            let keys = lab.states(G2)?;
            decrypts(narrative, &lab, &keys, moment);
        }
        close(context, lab, narrative)?;
    }
    Ok(())
}

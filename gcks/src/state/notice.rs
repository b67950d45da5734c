//! What servers of a cluster tell each other of members.
//!
//! ```text
//! version (1) | boot-time clock of the sender (12) | whole (1) | members
//! ```

use daemon::sealed::codec::{Clock, Decoder, Encoder, StateError};
use ike::BootTime;
use ike::crypto::Secret;

use super::VERSION;
use crate::group::elsewhere::{Report, ReportedMember, Standing};
use crate::members::registry::MemberId;

const STANDINGS: [Standing; 4] =
    [Standing::Registered, Standing::Holder, Standing::Gone, Standing::Moved];

pub fn encode(report: &Report, now: BootTime) -> Secret {
    let mut out = Encoder::default();
    out.u8(VERSION);
    out.time(now);
    out.u8(report.whole.into());
    out.count(report.members.len());
    for one in &report.members {
        out.identity(&one.id.identity);
        out.address(one.id.address);
        out.octets(one.name.as_bytes());
        out.time(one.last);
        out.option(one.leaf, |out, (leaf, handle)| {
            out.u16(leaf);
            out.u32(handle);
        });
        let standing = STANDINGS.iter().zip(0..).find(|(standing, _)| **standing == one.standing);
        out.u8(standing.map_or(0, |(_, number)| number));
    }
    out.finish()
}

/// Reads what another server wrote that arrived at `received`, or would have without delay.
///
/// # Errors
/// It is nothing of this version.
pub fn decode(octets: &[u8], received: BootTime) -> Result<Report, StateError> {
    let mut head = Decoder::new(octets, Clock::same(received));
    if head.u8()? != VERSION {
        return Err(head.error("another version of gcks"));
    }
    let written = head.time()?;
    let mut from = Decoder::new(head.rest(), Clock { written, ..Clock::same(received) });
    let whole = from.u8()? != 0;
    let members = from.list(|from| {
        let id = MemberId { identity: from.identity()?, address: from.address()? };
        let (name, last) = (from.text()?.into(), from.time()?);
        let leaf = from.option(|from| Ok((from.u16()?, from.u32()?)))?;
        let standing = STANDINGS.get(usize::from(from.u8()?)).copied();
        let standing = standing.ok_or_else(|| from.error("where a member is"))?;
        Ok(ReportedMember { id, name, last, leaf, standing })
    })?;
    from.finish()?;
    Ok(Report { whole, members })
}

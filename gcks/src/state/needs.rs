//! What a sub-server tells its root with cluster-init, for what the root alone can give.
//!
//! ```text
//! version (1) | boot-time clock of the sub-server (12) | sender identifiers (1) | leaves (1) | restart
//! ```

use daemon::sealed::codec::{Clock, Decoder, Encoder, StateError};
use ike::BootTime;
use ike::crypto::Secret;

use super::VERSION;
use crate::group::division::{Need, Needs};

const NEEDS: [Need; 3] = [Need::Nothing, Need::More, Need::AtOnce];

pub fn encode(needs: Needs, now: BootTime) -> Secret {
    let mut out = Encoder::default();
    out.u8(VERSION);
    out.time(now);
    for need in [needs.senders, needs.leaves] {
        out.u8(NEEDS.iter().zip(0..).find(|(one, _)| **one == need).map_or(0, |(_, n)| n));
    }
    out.option(needs.restart, Encoder::time);
    out.finish()
}

/// Reads what a sub-server wrote that arrived at `received`.
///
/// # Errors
/// It is nothing of this version.
pub fn decode(octets: &[u8], received: BootTime) -> Result<Needs, StateError> {
    let mut head = Decoder::new(octets, Clock::same(received));
    if head.u8()? != VERSION {
        return Err(head.error("another version of gcks"));
    }
    let written = head.time()?;
    let mut from = Decoder::new(head.rest(), Clock { written, ..Clock::same(received) });
    let mut need = || {
        let need = NEEDS.get(usize::from(from.u8()?)).copied();
        need.ok_or_else(|| from.error("a need"))
    };
    let (senders, leaves) = (need()?, need()?);
    let restart = from.option(Decoder::time)?;
    from.finish()?;
    Ok(Needs { senders, leaves, restart })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn the_clock_of_the_sub_server_is_another_one() {
        for senders in NEEDS {
            let leaves = Need::More;
            let needs = Needs { senders, leaves, restart: Some(at(90)) };
            let octets = encode(needs, at(100));
            let read = decode(octets.expose(), at(7000)).unwrap();
            assert_eq!(read, Needs { senders, leaves, restart: Some(at(6990)) });
            for cut in 0..octets.len() {
                assert!(decode(&octets.expose()[..cut], at(0)).is_err(), "{cut}");
            }
        }
    }
}

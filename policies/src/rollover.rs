//! Generations of a TEK: which SPIs share a lane, and so the policies that stay while keys change.
//!
//! A policy names a reqid, not an SPI. A new generation of the same line gets the reqid of the old
//! one, so a rekey adds and deletes states and touches no policy. The TEKs that send are numbered
//! in the order received; every other TEK joins the first one with which it shares a selector. When
//! a key server changes lines between TEKs, numbers may change at the moment of activation: packets
//! in flight under the old ones are then dropped, never passed in clear.

use std::collections::BTreeMap;

use gdoi::group::Spi;

use crate::error::Unusable;
use crate::line::Line;
use crate::precedence::{LANES, Lane};

/// The lane of each SPI.
pub(crate) fn lanes(lines: &[Line<'_>]) -> Result<BTreeMap<Spi, Lane>, Unusable> {
    let mut lanes = BTreeMap::new();
    let mut used = 0_usize;
    let (sending, others): (Vec<&Line<'_>>, Vec<&Line<'_>>) =
        lines.iter().partition(|line| keeps_number(line));
    for line in sending.iter().chain(&others) {
        let spi = line.policy.spi;
        if lanes.contains_key(&spi) {
            continue;
        }
        // All lines of the SPI count, not just this one: the shared selector may be a later one.
        let joins = if keeps_number(line) { None } else { relative(spi, lines, &lanes) };
        let lane = match joins {
            Some(lane) => lane,
            None => {
                let next = u8::try_from(used).ok().filter(|_| used < LANES);
                used += 1;
                Lane(next.ok_or(Unusable::TooManyTeks { count: used, limit: LANES })?)
            }
        };
        lanes.insert(spi, lane);
    }
    Ok(lanes)
}

/// A line whose TEK ended before the others of its generation neither sends nor receives, but keeps
/// its number: otherwise the states of the others would have to be reinstalled, which is impossible
/// for a counter-mode sender.
fn keeps_number(line: &Line<'_>) -> bool {
    line.send || !line.receive
}

/// The lane of the first TEK that has a selector and a direction in common with `spi`.
fn relative(spi: Spi, lines: &[Line<'_>], lanes: &BTreeMap<Spi, Lane>) -> Option<Lane> {
    let own = || lines.iter().filter(|line| line.policy.spi == spi);
    let alike = |line: &&Line<'_>| {
        own().any(|own| {
            own.selectors == line.selectors
                && own.policy.protection.direction == line.policy.protection.direction
        })
    };
    lines.iter().filter(alike).find_map(|line| lanes.get(&line.policy.spi).copied())
}

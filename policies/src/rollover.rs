//! Generations of a TEK: which SPIs share a lane, and so the policies that stay while keys change.
//!
//! A policy names a reqid, not an SPI. A new generation of the same SA TEK gets the reqid of the
//! old one, so a rekey adds and deletes states and touches no policy. The TEKs that send are
//! numbered in the order received; every other TEK joins the first one with which it shares a
//! selector. When a key server changes SA TEKs between TEKs, numbers may change at the moment of
//! activation: packets in flight under the old ones are then dropped, never passed in clear.

use std::collections::BTreeMap;

use gdoi::group::Spi;

use crate::error::Unusable;
use crate::precedence::{LANES, Lane};
use crate::sa_tek::SaTek;

/// The lane of each SPI.
pub(crate) fn lanes(sa_teks: &[SaTek<'_>]) -> Result<BTreeMap<Spi, Lane>, Unusable> {
    let mut lanes = BTreeMap::new();
    let mut used = 0_usize;
    let (sending, others): (Vec<&SaTek<'_>>, Vec<&SaTek<'_>>) =
        sa_teks.iter().partition(|sa_tek| keeps_number(sa_tek));
    for sa_tek in sending.iter().chain(&others) {
        let spi = sa_tek.policy.spi;
        if lanes.contains_key(&spi) {
            continue;
        }
        // All SA TEKs of the SPI count, not just this one: the shared selector may be a later one.
        let joins = if keeps_number(sa_tek) { None } else { relative(spi, sa_teks, &lanes) };
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

/// An SA TEK whose TEK ended before the others of its generation neither sends nor receives, but
/// keeps its number: otherwise the states of the others would have to be reinstalled, which is
/// impossible for a counter-mode sender.
fn keeps_number(sa_tek: &SaTek<'_>) -> bool {
    sa_tek.send || !sa_tek.receive
}

/// The lane of the first TEK that has a selector and a direction in common with `spi`.
fn relative(spi: Spi, sa_teks: &[SaTek<'_>], lanes: &BTreeMap<Spi, Lane>) -> Option<Lane> {
    let own = || sa_teks.iter().filter(|sa_tek| sa_tek.policy.spi == spi);
    let alike = |sa_tek: &&SaTek<'_>| {
        own().any(|own| {
            own.selectors == sa_tek.selectors
                && own.policy.protection.direction == sa_tek.policy.protection.direction
        })
    };
    sa_teks.iter().filter(alike).find_map(|sa_tek| lanes.get(&sa_tek.policy.spi).copied())
}

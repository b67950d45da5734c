//! Group traffic that may pass in clear: by fail-open rules while there is no valid key, and in a
//! group under migration that does not encrypt yet.

use std::collections::BTreeSet;

use ipnet::IpNet;
use xfrm::model::Selector;

use crate::error::Unusable;
use crate::group::{FailurePolicy, GroupInput, Mode};
use crate::local::both_ways;
use crate::sa_tek::SaTek;

/// Whether the group has no valid key now.
pub(crate) fn keyless(sa_teks: &[SaTek<'_>]) -> bool {
    !sa_teks.iter().any(|sa_tek| sa_tek.keys.is_some())
}

/// What passes in clear because there is no valid key: the fail-open rules, or everything where the
/// configuration says so or nobody expects encryption yet. Empty while there is a key.
pub(crate) fn opened(
    group: &GroupInput<'_>,
    pairs: &BTreeSet<(IpNet, IpNet)>,
    sa_teks: &[SaTek<'_>],
) -> Result<Vec<Selector>, Unusable> {
    if !keyless(sa_teks) {
        return Ok(Vec::new());
    }
    if opens(group) {
        let pairs =
            pairs.iter().map(|(source, destination)| Selector::between(*source, *destination));
        return Ok(pairs.chain(sa_teks.iter().flat_map(SaTek::all_selectors)).collect());
    }
    both_ways(&group.fail_open, |rule, reason| Unusable::FailOpen {
        rule,
        reason: Box::new(reason),
    })
}

/// Pairs that no SA TEK covers and that a member which does not encrypt yet has no reason to stop.
pub(crate) fn unencrypted(
    group: &GroupInput<'_>,
    pairs: &BTreeSet<(IpNet, IpNet)>,
    sa_teks: &[SaTek<'_>],
) -> Vec<Selector> {
    if group.options.mode != Mode::ReceiveOnly || keyless(sa_teks) {
        return Vec::new();
    }
    pairs.iter().map(|(source, destination)| Selector::between(*source, *destination)).collect()
}

/// Whether everything between protected prefixes passes that no SA TEK covers.
pub(crate) fn opens_everything(group: &GroupInput<'_>, sa_teks: &[SaTek<'_>]) -> bool {
    group.options.mode == Mode::ReceiveOnly || (keyless(sa_teks) && opens(group))
}

/// Whether the group passes in clear while it has no valid key.
fn opens(group: &GroupInput<'_>) -> bool {
    group.options.failure == FailurePolicy::Open || group.options.mode == Mode::ReceiveOnly
}

/// Whether clear packets of the SA TEKs may arrive, so that the guard has to let them.
pub(crate) fn takes_clear(group: &GroupInput<'_>) -> bool {
    group.options.mode != Mode::Normal
}

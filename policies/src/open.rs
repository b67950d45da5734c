//! What may pass in clear although it is the group's: fail-open rules while there is no valid key,
//! and a group that is being migrated and does not encrypt yet.

use xfrm::model::Selector;

use crate::error::Unusable;
use crate::failclose::protected_pairs;
use crate::group::{FailurePolicy, GroupInput, Mode};
use crate::line::Line;
use crate::local::both_ways;
use crate::selector::between;

/// Whether the group has no valid key now.
pub(crate) fn keyless(lines: &[Line<'_>]) -> bool {
    !lines.iter().any(|line| line.keys.is_some())
}

/// What passes in clear because there is no valid key: the fail-open rules, or everything where the
/// configuration says so or nobody expects encryption yet. Empty while there is a key.
pub(crate) fn opened(
    group: &GroupInput<'_>,
    lines: &[Line<'_>],
) -> Result<Vec<Selector>, Unusable> {
    if !keyless(lines) {
        return Ok(Vec::new());
    }
    if group.options.failure == FailurePolicy::Open || group.options.mode == Mode::ReceiveOnly {
        let pairs = protected_pairs(group)
            .into_iter()
            .map(|(source, destination)| between(source, destination));
        return Ok(pairs.chain(lines.iter().flat_map(Line::all_selectors)).collect());
    }
    both_ways(&group.fail_open, |rule, reason| Unusable::FailOpen {
        rule,
        reason: Box::new(reason),
    })
}

/// Pairs that no line covers and that a member which does not encrypt yet has no reason to stop.
pub(crate) fn unencrypted(group: &GroupInput<'_>, lines: &[Line<'_>]) -> Vec<Selector> {
    if group.options.mode != Mode::ReceiveOnly || keyless(lines) {
        return Vec::new();
    }
    protected_pairs(group)
        .into_iter()
        .map(|(source, destination)| between(source, destination))
        .collect()
}

/// Whether clear packets of the lines may arrive, so that the guard has to let them.
pub(crate) fn takes_clear(group: &GroupInput<'_>) -> bool {
    group.options.mode != Mode::Normal
}

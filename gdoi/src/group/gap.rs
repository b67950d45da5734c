//! Group Associated Policy (RFC 6407 §5.4).

use core::time::Duration;

/// Policy for all SAs of a group.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GroupAssociatedPolicy {
    /// ACTIVATION_TIME_DELAY: from receipt of new SAs until sending on them. Whole seconds,
    /// 0..65535.
    pub activation_time_delay: Option<Duration>,
    /// DEACTIVATION_TIME_DELAY: from receipt of new SAs until the replaced ones are removed. Whole
    /// seconds, 0..65535.
    pub deactivation_time_delay: Option<Duration>,
}

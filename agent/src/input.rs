//! From memberships to what the kernel should hold: the only file that calls `policies`.

use core::fmt;

use gdoi::BootTime;
use gdoi::group::GroupPolicy;
use xfrm::Desired;

use crate::config;
use crate::generation::Generations;
use crate::group::Membership;

/// Why no kernel state can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The group whose policy it is, if that is known.
    pub group: Option<String>,
    /// One line.
    pub reason: String,
}

impl core::error::Error for Unusable {}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "group {group}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// Which keys of a membership count.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'k> {
    /// Its own.
    Own,
    /// These, for a trial.
    Candidate(&'k Generations),
    /// None: blocks and guards only.
    None,
}

/// Whether a policy can be used by this group.
///
/// # Errors
/// The reason in one line.
pub fn check(policy: &GroupPolicy, config: &config::Group) -> Result<(), String> {
    let _ = (policy, config);
    Err("group policies cannot be compiled yet".to_owned())
}

/// What the kernel should hold for these groups.
///
/// # Errors
/// The reason in one line.
pub fn compile<'m>(
    groups: impl Iterator<Item = (&'m Membership, Keys<'m>)>,
    now: BootTime,
) -> Result<Desired, Unusable> {
    let _ = (groups.count(), now);
    Err(Unusable { group: None, reason: "group policies cannot be compiled yet".to_owned() })
}

/// What happens to which traffic, for show commands.
pub fn explain(membership: &Membership, now: BootTime) -> Vec<control::member::PolicyLine> {
    let _ = (membership, now);
    Vec::new()
}

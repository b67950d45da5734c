//! Why what a key server sent cannot be used. The keys in use stay in every case.

use gdoi::push::KekUnusable;
use policies::Unusable;
use thiserror::Error;

use super::local_interface::Missing;

/// A group SA that a pull offered or brought.
#[derive(Debug, Error)]
pub enum PullRejected {
    /// This machine cannot enforce its policy.
    #[error(transparent)]
    Policy(#[from] Unusable),
    /// Its KEK is not one that a rekey SA can be made of.
    #[error(transparent)]
    Kek(#[from] KekUnusable),
    /// Its rekey SA cannot be used.
    #[error(transparent)]
    RekeySa(#[from] RekeySaUnusable),
    /// No TEK has any lifetime left.
    #[error("the key server sent no TEK with lifetime left")]
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PushRejected {
    /// Its payloads contradict each other or name what is not implemented.
    #[error(transparent)]
    Content(#[from] gdoi::Error),
    /// This machine cannot enforce the policy that it leads to.
    #[error(transparent)]
    Policy(#[from] Unusable),
    /// No TEK that it states has any lifetime left.
    #[error("the push has no TEK with lifetime left")]
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RekeySaUnusable {
    /// Acknowledgements need an address to leave from.
    #[error(transparent)]
    NoLocalAddress(#[from] Missing),
    /// Its policy and keys do not make a rekey SA.
    #[error(transparent)]
    Content(#[from] gdoi::Error),
}

/// A command to register that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// No group has this name.
    #[error("there is no group {group}: the groups are {}", groups.join(", "))]
    UnknownGroup {
        /// The name that was given.
        group: String,
        /// The names that there are.
        groups: Vec<String>,
    },
    /// The group has no address to register from.
    #[error("group {group}: {missing}")]
    NoLocalAddress { group: String, missing: Missing },
}

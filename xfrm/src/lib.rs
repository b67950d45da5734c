//! The entries that a group member keeps in the Linux kernel: XFRM states and policies, nf_tables
//! rules and a placeholder route, as one desired state that is compared, applied in order and read
//! back.
//!
//! The crate knows nothing of IKE or GDOI.
//!
//! ```text
//! Desired ──┐
//!           ├─ plan::plan (pure) ── Vec<Op> ── Kernel::execute ── Kernel::read ── plan again: must be empty
//! Current ──┘
//! ```

#![warn(missing_docs)]

pub mod algorithm;
mod attribute;
mod counters;
pub mod desired;
pub mod error;
pub mod interface;
pub mod kernel;
pub mod key;
pub mod model;
pub mod nft;
mod op;
mod ownership;
mod parts;
pub mod plan;
pub mod prerequisites;
pub mod reconcile;
pub mod statistics;

pub use counters::Counters;
pub use desired::Desired;
pub use error::{Error, Unsupported};
pub use kernel::{Current, Kernel};
pub use op::{Entry, Op};
pub use ownership::Ownership;
pub use parts::Parts;
pub use plan::plan;
pub use reconcile::{Reconciler, Report};

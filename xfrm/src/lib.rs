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

pub mod algorithm;
mod attribute;
pub mod desired;
pub mod environment;
pub mod error;
pub mod event;
pub mod fake;
pub mod interface;
pub mod kernel;
pub mod key;
pub mod model;
pub mod netlink;
pub mod nft;
pub mod owner;
pub mod plan;
pub mod preserve;
pub mod reconcile;
pub mod statistics;

pub use desired::Desired;
pub use error::Error;
pub use kernel::{Current, Kernel, Parts};
pub use owner::Ownership;
pub use plan::{Op, plan};
pub use reconcile::{Reconciler, Report};

//! The entries that a group member keeps in the Linux kernel: XFRM states and policies, nf_tables rules
//! and a placeholder route, as one desired state that is compared, applied in order and read back.
//!
//! The crate knows nothing of IKE or GDOI.

pub mod algorithm;
pub mod desired;
pub mod key;
pub mod model;
pub mod preserve;

pub use desired::Desired;

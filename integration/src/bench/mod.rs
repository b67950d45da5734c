//! Measurements in the lab's network.

pub mod datapath;
pub mod push_to_kernel;

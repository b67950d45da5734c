//! IPsec implementations of others, as peers of the lab.

pub mod etcd;
pub mod strongswan;

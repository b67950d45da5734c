//! IPsec implementations of others, as peers of the lab.

pub mod strongswan;

//! Tests of the wire formats: recorded and computed octets both ways, properties, and what must be
//! refused.

pub(crate) mod computed;
mod keys;
mod negative;
mod policy;
mod properties;
mod recorded;
mod selector;

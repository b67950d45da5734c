//! What both daemons share with the operating system: clock, entropy, secrets, sealed state,
//! configuration files, UDP with a chosen source address, logs and the service manager.
//!
//! The protocol crates know none of these; whatever they need of them comes in as an argument.

pub mod clock;
pub mod configuration;
mod count;
pub mod entropy;
pub mod limit;
pub mod log;
pub mod notify;
pub mod process;
pub mod replace;
pub mod sealed;
pub mod secrets;
pub mod udp;

pub use count::count;

//! The control-socket protocol of `gdoi-agent` and `gcks`: requests, responses, the
//! snapshots in them, and both ends of the socket. `PROTOCOL.md` beside this crate is the
//! specification.
//!
//! The crate depends on no other crate of the workspace: a snapshot is plain data that a daemon
//! fills in. No type here can hold a key, so no key can leave by the socket. Points in time travel
//! as durations ("seconds ago", "seconds left"), because the daemons run on the boot-time clock,
//! which means nothing to another process.

#![warn(missing_docs)]

pub mod client;
pub mod cluster;
pub mod edit;
mod error_text;
pub mod framing;
pub mod key_server;
pub mod member;
pub mod protocol;
pub mod server;
pub mod socket;
pub mod tunnel;

pub use error_text::with_causes;
pub use key_server::ServerSnapshot;
pub use member::MemberSnapshot;
pub use protocol::{
    ClearArgument, ClearMemberArgument, Completed, ConfigurationChange, ConfigurationChanges,
    ConfigurationConsequence, Daemon, ErrorCode, GroupArgument, MemberArgument, Refusal,
    ReloadArgument, Request, Response, VERSION,
};

/// Where `gdoi-agent` listens unless configured otherwise.
pub const MEMBER_SOCKET: &str = "/run/gdoi-agent/control.sock";
/// Where `gcks` listens unless configured otherwise.
pub const SERVER_SOCKET: &str = "/run/gcks/control.sock";

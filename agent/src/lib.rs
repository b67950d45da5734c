//! The member daemon `gdoi-agent`: configuration, failover among key servers, memberships, and the
//! loop that joins the protocol, the kernel and the control socket.

pub mod blocks;
pub mod checkpoint;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod event_loop;
pub mod exit;
mod kernel_drops;
pub mod member;
pub mod membership;
pub mod namespace_lock;
pub mod persistence;
pub mod privileges;
pub mod show;
pub mod sockets;
pub mod source;
pub mod start;
pub mod tunnel;

//! The member daemon `gdoi-agent`: configuration, failover among key servers, memberships, and the loop
//! that joins the protocol, the kernel and the control socket.

pub mod config;
pub mod failover;
pub mod generation;

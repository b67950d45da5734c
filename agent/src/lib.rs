//! The member daemon `gdoi-agent`: configuration, failover among key servers, memberships, and the
//! loop that joins the protocol, the kernel and the control socket.

pub mod adoption;
pub mod attempt;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod eventloop;
pub mod exit;
pub mod facts;
pub mod failover;
pub mod generation;
pub mod group;
pub mod input;
pub mod jitter;
pub mod net;
pub mod privileges;
pub mod records;
pub mod saved;
pub mod sealed;
pub mod start;
pub mod status;
pub mod words;

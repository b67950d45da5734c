//! gcks: a GDOI key server (RFC 6407) for groups of routers.
//!
//! [`config`] turns a file into checked values; [`server`] holds all state and does no I/O of its
//! own; [`event_loop`] feeds it datagrams and the time.

mod cluster_view;
pub mod config;
pub mod control;
pub mod etcd;
pub mod event_log;
pub mod event_loop;
pub mod group;
mod isakmp_view;
pub mod loader;
pub mod members;
pub mod outbox;
pub mod persistence;
pub mod server;
pub mod sockets;
pub mod state;
pub mod text;
pub mod tracked;
pub mod workers;
pub mod writer;

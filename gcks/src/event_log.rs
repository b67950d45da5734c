//! What happens, as log lines with a stable `event` name each.

use std::net::SocketAddr;

use cluster::message::Difference;
use daemon::limit::LogLimiter;
use gdoi::error::Error;
use gdoi::event::PullAbort;
use ike::BootTime;
use tracing::{debug, error, info, warn};

use crate::config::change::{Change, Consequence};
use crate::group;
use crate::server::cluster::{ClusterEvent, GroupEvent};
use crate::server::event::Event;
use crate::text::hexadecimal;

/// Writes events to the log.
pub fn log(event: Event, limiter: &mut LogLimiter, now: BootTime) {
    match event {
        Event::Group { group, event } => log_group(&group, event, now),
        Event::Authenticated { peer, identity } => {
            debug!(event = "phase1-established", %peer, %identity, "phase 1 established");
        }
        Event::Refused { peer, identity, group, reason } => {
            if let Some(pass) = limiter.admit(reason.reason(), now) {
                let suppressed = pass.suppressed;
                warn!(event = "pull-refused", %peer, %identity, %group, %reason, suppressed, "pull refused");
            }
        }
        Event::Aborted { peer, identity, group, reason } => {
            if let Some(pass) = limiter.admit("pull-aborted", now) {
                let suppressed = pass.suppressed;
                let reason = abort_text(&reason);
                info!(event = "pull-aborted", %peer, %identity, %group, reason, suppressed, "pull aborted");
            }
        }
        Event::Cluster { server, event } => log_cluster(&server, event, limiter, now),
        Event::ConfigurationChanged { change } => log_change(&change),
        Event::PeerRestarted { peer, identity } => {
            debug!(
                event = "initial-contact",
                %peer,
                %identity,
                "member restarted; an ISAKMP SA of its earlier run ended"
            );
        }
        Event::PeerDeleted { peer, identity } => {
            debug!(event = "isakmp-sa-deleted-by-peer", %peer, %identity, "member deleted its ISAKMP SA");
        }
    }
}

fn log_group(group: &str, event: group::event::Event, now: BootTime) {
    use group::event::Event;
    match event {
        Event::TekCreated { lifetime } => {
            let lifetime_seconds = lifetime.ends.saturating_since(now).as_secs();
            let spi = format_args!("{:#010x}", lifetime.spi);
            info!(event = "tek-created", group, spi, lifetime_seconds, "TEK created");
        }
        Event::KekCreated { spi } => {
            info!(event = "kek-created", group, spi = hexadecimal(&spi), "KEK created");
        }
        Event::Registered { member, peer, new: true } => {
            info!(event = "member-registered", group, %member, %peer, "member registered");
        }
        Event::Registered { member, peer, new: false } => {
            debug!(event = "member-reregistered", group, %member, %peer, "member registered again");
        }
        Event::Expired { member } => {
            info!(event = "registration-expired", group, %member, "keys of the member expired without a new pull");
        }
        Event::Pushed { purpose, sequence_number, members } => {
            info!(event = "push-sent", group, purpose, sequence_number, members, "push sent");
        }
        Event::PushFailed { error } => {
            error!(event = "push-failed", group, %error, "push failed, retrying");
        }
        Event::Unacknowledged { members, most_in_a_row } => {
            let (count, names) = (members.count, members.to_string());
            warn!(
                event = "push-unacknowledged",
                group,
                members = count,
                names,
                most_in_a_row,
                "push not acknowledged by all members"
            );
        }
        Event::Dropped { members } => {
            let (count, names) = (members.count, members.to_string());
            warn!(
                event = "member-dropped",
                group,
                members = count,
                names,
                "unresponsive members dropped; they may register again"
            );
        }
        Event::AgeUnknown => {
            warn!(
                event = "clock-ahead-of-state",
                group,
                "every key of the group has ended if the clock is right: keys are kept as if no time had passed; set the clock"
            );
        }
        Event::Reinitialized => {
            warn!(
                event = "group-reinitialized",
                group,
                "all sender identifiers were in use: group reinitialized, all members register again"
            );
        }
    }
}

fn log_cluster(server: &str, event: ClusterEvent, limiter: &mut LogLimiter, now: BootTime) {
    match event {
        ClusterEvent::Up => {
            info!(event = "cluster-peer-up", server, "ISAKMP SA with the server established");
        }
        ClusterEvent::Restarted => {
            info!(event = "cluster-peer-restarted", server, "server was restarted");
        }
        ClusterEvent::Down => {
            info!(event = "cluster-peer-down", server, "ISAKMP SA with the server ended");
        }
        ClusterEvent::Dead => {
            warn!(
                event = "cluster-peer-dead",
                server,
                "server does not answer; it is inactive in all groups, members keep their keys"
            );
        }
        ClusterEvent::Phase1Failed(failure) => {
            if let Some(pass) = limiter.admit("cluster-phase1-failed", now) {
                let (error, suppressed) = (failure.to_string(), pass.suppressed);
                warn!(
                    event = "cluster-phase1-failed",
                    server, error, suppressed, "phase 1 with the server failed, retrying"
                );
            }
        }
        ClusterEvent::NotAServer => {
            if let Some(pass) = limiter.admit("cluster-not-a-server", now) {
                let suppressed = pass.suppressed;
                warn!(
                    event = "cluster-not-a-server",
                    server,
                    suppressed,
                    "the peer does not speak this version of the cluster protocol; run the same version of gcks on both"
                );
            }
        }
        ClusterEvent::Refused(error) => {
            if let Some(pass) = limiter.admit("cluster-message-refused", now) {
                let suppressed = pass.suppressed;
                warn!(event = "cluster-message-refused", server, %error, suppressed, "message of the server not accepted");
            }
        }
        ClusterEvent::Group { group, event } => {
            log_group_of_cluster(server, &group, event, limiter, now)
        }
    }
}

fn log_group_of_cluster(
    server: &str,
    group: &str,
    event: GroupEvent,
    limiter: &mut LogLimiter,
    now: BootTime,
) {
    match event {
        GroupEvent::Joined { generation } => {
            info!(event = "cluster-init-answered", server, group, %generation, "full state sent to the sub-server");
        }
        GroupEvent::StateLost => {
            warn!(
                event = "cluster-state-lost",
                server,
                group,
                "sub-server has lost its state; it gives other sender identifiers, and the removal of a member deletes all keys once"
            );
        }
        GroupEvent::Prepared { generation } => {
            debug!(event = "cluster-update-prepared", server, group, %generation, "sub-server holds the new keys");
        }
        GroupEvent::Committed { generation } => {
            debug!(event = "cluster-update-committed", server, group, %generation, "sub-server distributes the new keys");
        }
        GroupEvent::Adopted { generation, relayed, forgotten } => {
            info!(event = "cluster-keys-taken-over", server, group, %generation, relayed, forgotten, "keys of the root server taken over");
        }
        GroupEvent::Late { generation } => {
            warn!(event = "cluster-update-late", server, group, %generation, "sub-server does not hold the new keys yet, and the others could not wait; its members get them when it asks");
        }
        GroupEvent::RefusedByPeer(reason) => {
            if let Some(pass) = limiter.admit("cluster-refused", now) {
                let suppressed = pass.suppressed;
                warn!(event = "cluster-refused", server, group, %reason, suppressed, "server refused a message");
            }
        }
        GroupEvent::NotFollowed(reason) => {
            if let Some(pass) = limiter.admit("cluster-not-followed", now) {
                let suppressed = pass.suppressed;
                warn!(event = "cluster-not-followed", server, group, %reason, suppressed, "message of the server not accepted");
            }
        }
        GroupEvent::Differs(Difference { name, root, sub_server }) => {
            error!(
                event = "cluster-configuration-differs",
                server,
                group,
                option = name,
                root,
                sub_server,
                "the root server and the sub-server have different values; the root's is served, make them equal"
            );
        }
        GroupEvent::Moved { members } => {
            info!(
                event = "cluster-members-moved",
                server, group, members, "members have registered at other servers and count there"
            );
        }
        GroupEvent::KeysEnded { members } => {
            warn!(
                event = "cluster-keys-ended",
                server,
                group,
                members,
                "keys ended without news of the root server; members forgotten"
            );
        }
        GroupEvent::NoKeys(error) => {
            if let Some(pass) = limiter.admit("cluster-no-keys", now) {
                let suppressed = pass.suppressed;
                error!(event = "cluster-no-keys", group, %error, suppressed, "keys cannot be made, retrying");
            }
        }
    }
}

/// The configuration was read again and taken over.
pub fn log_reload(changes: &[Change], warnings: &[String], groups: usize) {
    for warning in warnings {
        warn!(event = "configuration-warning", warning, "configuration warning");
    }
    changes.iter().for_each(log_change);
    let changed = !changes.is_empty();
    info!(event = "configuration-reloaded", changed, groups, "configuration reloaded");
}

/// The configuration was read again and not taken over.
pub fn log_defects(defects: &[&str]) {
    error!(event = "reload-failed", "configuration not reloaded; the previous one stays in use");
    for error in defects {
        error!(event = "configuration-error", error, "configuration error");
    }
}

/// The configuration changed, by a reload or while the server was down.
pub fn log_change(change: &Change) {
    let Change { subject, option, before, after, consequences } = change;
    let (subject, option) = (subject.to_string(), option.to_string());
    for consequence in consequences {
        if *consequence == Consequence::Restart {
            warn!(
                event = "restart-required",
                subject, option, before, after, "this option changes with a restart only"
            );
            continue;
        }
        info!(
            event = "configuration-changed",
            subject,
            option,
            before,
            after,
            consequence = consequence.name(),
            detail = consequence.to_string(),
            "configuration changed"
        );
    }
}

/// A datagram had no consequence.
pub fn log_discard(peer: SocketAddr, error: &Error, limiter: &mut LogLimiter, now: BootTime) {
    let reason = error.reason();
    let Some(pass) = limiter.admit(reason, now) else { return };
    let suppressed = pass.suppressed;
    if is_ordinary(error) {
        debug!(event = "datagram-discarded", %peer, reason, %error, suppressed, "datagram discarded");
    } else {
        warn!(event = "datagram-discarded", %peer, reason, %error, suppressed, "datagram discarded");
    }
}

/// Discards that a healthy network causes too.
fn is_ordinary(error: &Error) -> bool {
    matches!(error.reason(), "replayed" | "unknown-cookies" | "unexpected" | "ended")
}

fn abort_text(reason: &PullAbort) -> String {
    match reason {
        PullAbort::Misbehaved(error) => error.to_string(),
        PullAbort::TimedOut => String::from("no answer in time"),
        PullAbort::IsakmpSaEnded => String::from("its ISAKMP SA ended"),
    }
}

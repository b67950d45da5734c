//! What `gdoictl show server` sees. No key is reachable from here.

use std::net::SocketAddr;

use ::control::key_server::{
    RegisteredMember, ServerGroup, ServerKek, ServerRekey, ServerStatistics, ServerTek,
};
use ::control::{
    Completed, ConfigurationChange, ConfigurationChanges, ConfigurationConsequence, ErrorCode,
    Refusal, Request, Response, ServerSnapshot,
};
use ike::BootTime;
use ike::config::Identity;

use crate::cluster_view;
use crate::config::change::{Change, Consequence};
use crate::group::Group;
use crate::group::key_generation::Entropy;
use crate::group::rekey_sa::RekeySa;
use crate::isakmp_view;
use crate::members::registry::Registration;
use crate::server::KeyServer;
use crate::server::command::CommandError;
use crate::text::{hexadecimal, selector_text};

/// Carries out a command or shows the server.
pub fn answer<E: Entropy>(
    key_server: &mut KeyServer<E>,
    request: &Request,
    listen: &[SocketAddr],
    started: BootTime,
    now: BootTime,
) -> Response {
    let done = match request {
        Request::ShowServer => {
            return Response::Server(Box::new(snapshot(key_server, listen, started, now)));
        }
        Request::ShowServerIke => {
            return Response::IsakmpSas(isakmp_view::isakmp_sas(key_server, now));
        }
        // Reading the configuration takes its time: the event loop answers it.
        Request::ShowMember
        | Request::ShowTunnel
        | Request::Register(_)
        | Request::ClearMember(_)
        | Request::Reload(_)
        | Request::Edit(_) => {
            return Response::Refused(Refusal::not_served_here("gcks", request));
        }
        Request::Rekey(of) => key_server.rekey(&of.group, now),
        Request::Replace(of) => key_server.replace(&of.group, now),
        Request::Delete(of) => key_server.delete(&of.group, now),
        Request::Remove(of) => key_server.remove(&of.group, &of.member, now),
        Request::RemoveAll(of) => key_server.remove_all(&of.group, now),
        Request::ClearServer(of) => key_server.clear(of.group.as_deref(), of.now, now),
        Request::ClearServerStatistics => Ok(key_server.clear_statistics()),
        Request::ClearServerCluster => Ok(key_server.clear_cluster(now)),
        Request::Admit(of) => key_server.admit(&of.group, &of.member),
    };
    match done {
        Ok(message) => Response::Done(Completed { message }),
        Err(error) => {
            let code = match &error {
                CommandError::UnknownGroup { .. } | CommandError::Gone(_) => {
                    ErrorCode::UnknownGroup
                }
                CommandError::UnknownMember { .. } => ErrorCode::UnknownMember,
                CommandError::NotRemoved { .. } | CommandError::Push(_) => ErrorCode::NotPossible,
            };
            Response::Refused(Refusal::new(code, error.to_string()))
        }
    }
}

/// What a reload has done, or would do.
pub fn configuration(dry_run: bool, warnings: Vec<String>, changes: &[Change]) -> Response {
    let consequence = |one: &Consequence| ConfigurationConsequence {
        name: one.name().to_owned(),
        text: one.to_string(),
    };
    let change = |change: &Change| ConfigurationChange {
        subject: change.subject.to_string(),
        option: change.option.to_string(),
        before: change.before.clone(),
        after: change.after.clone(),
        consequences: change.consequences.iter().map(consequence).collect(),
    };
    let changes = changes.iter().map(change).collect();
    Response::Configuration(Box::new(ConfigurationChanges { dry_run, warnings, changes }))
}

/// A command took effect and the state that says so cannot be written.
pub fn not_written(error: &str) -> Response {
    let message = format!(
        "done, but the state cannot be written and nothing is sent until it can be: {error}; \
         do not repeat the command"
    );
    Response::Refused(Refusal::new(ErrorCode::Unavailable, message))
}

/// What is wrong with a configuration that was to be read again: the first defect, and how many
/// there are.
pub fn defects(defects: &[&str]) -> Response {
    let first = defects.first().copied().unwrap_or("the configuration cannot be read");
    // The last line of several counts them.
    let message = match defects.len() {
        0 | 1 => String::from(first),
        _ => format!("{first} (gcks --check tells of all defects)"),
    };
    Response::Refused(Refusal::new(ErrorCode::NotPossible, message))
}

/// The server as of `now`.
pub fn snapshot<E: Entropy>(
    key_server: &KeyServer<E>,
    listen: &[SocketAddr],
    started: BootTime,
    now: BootTime,
) -> ServerSnapshot {
    let members = key_server.groups().flat_map(|group| {
        let members = group.registry().iter();
        members.map(move |(id, registration)| member(group, &id.identity, registration, now))
    });
    ServerSnapshot {
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: now.saturating_since(started).as_secs(),
        listen: listen.to_vec(),
        groups: key_server.groups().map(|group| self::group(group, now)).collect(),
        members: members.collect(),
        statistics: statistics(key_server),
        redundancy: None,
        problems: key_server.problems(now),
        cluster: cluster_view::snapshot(key_server, now),
    }
}

fn member(
    group: &Group,
    identity: &Identity,
    registration: &Registration,
    now: BootTime,
) -> RegisteredMember {
    RegisteredMember {
        group: group.config().name.clone(),
        group_id: group.id().0,
        name: registration.name.to_string(),
        address: registration.address,
        identity: identity.to_string(),
        registered_seconds_ago: now.saturating_since(registration.first).as_secs(),
        last_pull_seconds_ago: now.saturating_since(registration.last).as_secs(),
        pulls: registration.pulls,
        keys_left_seconds: keys_end(group, registration, now).saturating_since(now).as_secs(),
        acknowledgements: registration.acknowledgements,
        last_acknowledgement_seconds_ago: registration
            .last_acknowledgement
            .map(|last| now.saturating_since(last).as_secs()),
        unacknowledged_pushes: registration.unacknowledged,
    }
}

fn group(group: &Group, now: BootTime) -> ServerGroup {
    let teks = group.teks().lifetimes().map(|(template, lifetime, current)| ServerTek {
        spi: lifetime.spi,
        encryption: template.encryption.name.to_owned(),
        integrity: template.integrity.map(|integrity| integrity.name.to_owned()),
        lifetime_left_seconds: lifetime.ends.saturating_since(now).as_secs(),
        current,
        selectors: template.selectors.iter().map(selector_text).collect(),
    });
    let pulls = group.pull_counters();
    ServerGroup {
        name: group.config().name.clone(),
        id: group.id().0,
        members: count(group.registry().len()),
        teks: teks.collect(),
        pulls_succeeded: pulls.succeeded,
        pulls_failed: pulls.failed,
        pulls_over_threshold: pulls.over_threshold,
        rekey: group.rekey_sa().map(|rekey_sa| rekey(group, rekey_sa, now)),
    }
}

/// When the keys of a member end. One that gets pushes has the keys of the latest.
fn keys_end(group: &Group, registration: &Registration, now: BootTime) -> BootTime {
    let current = group.teks().lifetimes().filter(|(_, _, current)| *current);
    let first_end = current.map(|(_, lifetime, _)| lifetime.ends).min();
    registration.keys_end.or(first_end).unwrap_or(now)
}

fn rekey(group: &Group, rekey_sa: &RekeySa, now: BootTime) -> ServerRekey {
    let counters = rekey_sa.counters();
    let unresponsive = group.registry().iter().filter(|(_, member)| member.unacknowledged > 0);
    ServerRekey {
        transport: rekey_sa.transport(),
        encryption: rekey_sa.settings().encryption.name.to_owned(),
        signature: rekey_sa.signature(),
        kek: rekey_sa.kek().map(|kek| ServerKek {
            spi: hexadecimal(&kek.spi()),
            lifetime_left_seconds: kek.ends().saturating_since(now).as_secs(),
            sequence_number: kek.sequence_number(),
        }),
        next_push_seconds: group.next_push().map(|at| at.saturating_since(now).as_secs()),
        pushes: counters.pushes,
        acknowledgements: counters.acknowledgements,
        acknowledgements_missing: counters.missing,
        retransmissions: counters.retransmissions,
        last_push_milliseconds: counters
            .last_push
            .map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        members_unresponsive: count(unresponsive.count()),
        members_dropped: counters.dropped,
        removed: group.removed().iter().cloned().collect(),
    }
}

fn statistics<E: Entropy>(key_server: &KeyServer<E>) -> ServerStatistics {
    let protocol = key_server.statistics();
    let decisions = key_server.counters();
    ServerStatistics {
        half_open: count(protocol.half_open),
        isakmp_sas: count(protocol.established),
        pulls: count(protocol.pulls),
        datagrams_received: protocol.datagrams_received,
        datagrams_sent: protocol.datagrams_sent,
        phase1_established: protocol.phase1_established,
        pulls_succeeded: protocol.pulls_completed,
        pulls_refused: decisions.refused,
        pulls_aborted: decisions.aborted,
        half_open_expired: protocol.half_open_expired,
        half_open_evicted: protocol.half_open_evicted,
        diffie_hellman: protocol.diffie_hellman,
        duplicates_answered: protocol.duplicates_answered,
        discards: protocol
            .discards
            .iter()
            .map(|(reason, count)| ((*reason).to_owned(), *count))
            .collect(),
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

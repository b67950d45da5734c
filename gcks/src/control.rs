//! What `gdoictl show server` sees. No key is reachable from here.

use std::net::SocketAddr;

use ::control::key_server::{
    RegisteredMember, ServerGroup, ServerKek, ServerRekey, ServerStatistics, ServerTek,
};
use ::control::{Completed, ErrorCode, Refusal, Request, Response, ServerSnapshot};
use gdoi::BootTime;
use gdoi::config::Identity;
use gdoi::group::{AddressRange, TrafficSelector};

use crate::group::key_generation::Entropy;
use crate::group::rekey_sa::RekeySa;
use crate::members::registry::Registration;
use crate::server::command::CommandError;
use crate::server::{GroupState, KeyServer};

/// Carries out a command or shows the server.
pub fn answer<E: Entropy>(
    service: &mut KeyServer<E>,
    request: &Request,
    listen: &[SocketAddr],
    started: BootTime,
    now: BootTime,
) -> Response {
    let done = match request {
        Request::ShowServer => {
            return Response::Server(Box::new(snapshot(service, listen, started, now)));
        }
        Request::ShowMember | Request::Register(_) => {
            return Response::Refused(Refusal::not_served_here("gcks", request));
        }
        Request::Rekey(of) => service.rekey(&of.group, now),
        Request::Replace(of) => service.replace(&of.group, now),
        Request::Delete(of) => service.delete(&of.group, now),
        Request::Remove(of) => service.remove(&of.group, &of.member, now),
        Request::RemoveAll(of) => service.remove_all(&of.group, now),
        Request::Admit(of) => service.admit(&of.group, &of.member),
    };
    match done {
        Ok(message) => Response::Done(Completed { message }),
        Err(error) => {
            let code = match &error {
                CommandError::UnknownGroup { .. } => ErrorCode::UnknownGroup,
                CommandError::UnknownMember { .. } => ErrorCode::UnknownMember,
                CommandError::NotRemoved { .. } | CommandError::Push(_) => ErrorCode::NotPossible,
            };
            Response::Refused(Refusal::new(code, error.to_string()))
        }
    }
}

/// The server as of `now`.
pub fn snapshot<E: Entropy>(
    service: &KeyServer<E>,
    listen: &[SocketAddr],
    started: BootTime,
    now: BootTime,
) -> ServerSnapshot {
    let members = service.registry().iter().filter_map(|(group, identity, registration)| {
        let state = service.groups().iter().find(|state| state.group().id == group)?;
        Some(RegisteredMember {
            group: state.group().name.clone(),
            group_id: group.0,
            name: registration.name.to_string(),
            address: registration.address,
            identity: identity_text(identity),
            registered_seconds_ago: now.saturating_since(registration.first).as_secs(),
            last_pull_seconds_ago: now.saturating_since(registration.last).as_secs(),
            pulls: registration.pulls,
            keys_left_seconds: keys_end(state, registration, now).saturating_since(now).as_secs(),
            acknowledgements: registration.acknowledgements,
            last_acknowledgement_seconds_ago: registration
                .last_acknowledgement
                .map(|last| now.saturating_since(last).as_secs()),
            silent_pushes: registration.silent,
        })
    });
    ServerSnapshot {
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: now.saturating_since(started).as_secs(),
        listen: listen.to_vec(),
        groups: service.groups().iter().map(|state| group(service, state, now)).collect(),
        members: members.collect(),
        statistics: statistics(service),
    }
}

fn group<E: Entropy>(service: &KeyServer<E>, state: &GroupState, now: BootTime) -> ServerGroup {
    let teks = state.schedule().lifetimes().map(|(template, life, current)| ServerTek {
        spi: life.spi,
        encryption: template.encryption.name.to_owned(),
        integrity: template.integrity.map(|integrity| integrity.name.to_owned()),
        lifetime_left_seconds: life.ends.saturating_since(now).as_secs(),
        current,
        selectors: template.selectors.iter().map(selector_text).collect(),
    });
    let (pulls_succeeded, pulls_failed) = state.pulls();
    ServerGroup {
        name: state.group().name.clone(),
        id: state.group().id.0,
        members: count(service.registry().count(state.group().id)),
        teks: teks.collect(),
        pulls_succeeded,
        pulls_failed,
        rekey: state.rekey().map(|of_group| rekey(service, state, of_group, now)),
    }
}

/// When the keys of a member end. One that gets pushes has the keys of the latest.
fn keys_end(state: &GroupState, registration: &Registration, now: BootTime) -> BootTime {
    let current = state
        .schedule()
        .lifetimes()
        .filter(|(_, _, current)| *current)
        .map(|(_, life, _)| life.ends);
    registration.keys_end.or(current.min()).unwrap_or(now)
}

fn rekey<E: Entropy>(
    service: &KeyServer<E>,
    state: &GroupState,
    rekey: &RekeySa,
    now: BootTime,
) -> ServerRekey {
    let group = state.group().id;
    let counters = rekey.counters();
    ServerRekey {
        transport: rekey.transport(),
        encryption: rekey.settings().encryption.name.to_owned(),
        signature: rekey.signature(),
        kek: rekey.kek().map(|kek| ServerKek {
            spi: hexadecimal(&kek.spi()),
            lifetime_left_seconds: kek.ends().saturating_since(now).as_secs(),
            sequence_number: kek.sequence_number(),
        }),
        next_push_seconds: service.next_push_of(group).map(|at| at.saturating_since(now).as_secs()),
        pushes: counters.pushes,
        acknowledgements: counters.acknowledgements,
        acknowledgements_missing: counters.missing,
        members_silent: count(
            service.registry().of_group(group).filter(|(_, member)| member.silent > 0).count(),
        ),
        members_dropped: counters.dropped,
        removed: service.removed(group).map(str::to_owned).collect(),
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn statistics<E: Entropy>(service: &KeyServer<E>) -> ServerStatistics {
    let protocol = service.statistics();
    let decisions = service.counters();
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

/// An identity as logs and `gdoictl` show it.
pub fn identity_text(identity: &Identity) -> String {
    match identity {
        Identity::Address(address) => address.to_string(),
        Identity::Fqdn(name) | Identity::UserFqdn(name) => name.clone(),
        Identity::KeyId(octets) => format!("key-id \"{}\"", octets.escape_ascii()),
    }
}

fn selector_text(selector: &TrafficSelector) -> String {
    let side = |range: &AddressRange, port: u16| {
        let addresses = match range {
            AddressRange::Any => String::from("any"),
            AddressRange::Address(address) => address.to_string(),
            AddressRange::Subnet(prefix) => prefix.to_string(),
            AddressRange::Range(first, last) => format!("{first}-{last}"),
        };
        if port == 0 { addresses } else { format!("{addresses} port {port}") }
    };
    let source = side(&selector.source, selector.source_port);
    let destination = side(&selector.destination, selector.destination_port);
    match selector.protocol {
        0 => format!("{source} -> {destination}"),
        protocol => format!("{source} -> {destination} protocol {protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_identities_as_text() {
        let selector = TrafficSelector {
            protocol: 17,
            source: AddressRange::Subnet("10.0.0.0/8".parse().unwrap()),
            source_port: 0,
            destination: AddressRange::Range(
                "10.0.0.1".parse().unwrap(),
                "10.0.0.9".parse().unwrap(),
            ),
            destination_port: 53,
        };
        assert_eq!(selector_text(&selector), "10.0.0.0/8 -> 10.0.0.1-10.0.0.9 port 53 protocol 17");
        assert_eq!(identity_text(&Identity::KeyId(vec![b'a', 0, b'\n'])), "key-id \"a\\x00\\n\"");
    }
}

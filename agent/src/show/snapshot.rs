//! What gdoictl sees: a snapshot of all groups without any secret.

use std::collections::BTreeMap;
use std::net::IpAddr;

use control::MemberSnapshot;
use control::member::{
    IsakmpSa, IsakmpState, KekSa, MemberGroup, MembershipState, PassedOver, Role, Tek, Traffic,
};
use gdoi::event::Stage;
use ike::BootTime;
use xfrm::Counters;
use xfrm::statistics::Statistics;

use crate::member::Member;
use crate::membership::failover::{self, State};
use crate::membership::{Membership, kernel_policy};
use crate::show::names;

/// What a snapshot needs beside the memberships.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Counters of the kernel; empty if they could not be read.
    pub statistics: Statistics,
    /// What is wrong with the machine, each with its remedy.
    pub problems: Vec<String>,
    /// How often foreign changes were repaired.
    pub repairs: u64,
}

/// Everything that can be shown.
pub fn snapshot(member: &Member, surroundings: &Surroundings, now: BootTime) -> MemberSnapshot {
    let memberships = member.memberships().iter().enumerate();
    MemberSnapshot {
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: now.saturating_since(member.started()).as_secs(),
        groups: memberships
            .map(|(index, membership)| MemberGroup {
                discards: member.discards(index).map(named).unwrap_or_default(),
                ..group(membership, &surroundings.statistics, now)
            })
            .collect(),
        discards: named(member.stray_datagrams()),
        problems: surroundings.problems.clone(),
        guard_drops: traffic(surroundings.statistics.guard_drops()),
        repairs: surroundings.repairs,
    }
}

fn group(membership: &Membership, statistics: &Statistics, now: BootTime) -> MemberGroup {
    let config = membership.config();
    let failover = membership.failover();
    let passed = |passed: &failover::PassedOver| {
        Some(PassedOver {
            server: membership.server(passed.server)?,
            seconds_ago: now.saturating_since(passed.at).as_secs(),
            reason: passed.reason.name().to_owned(),
            detail: passed.detail.clone(),
        })
    };
    let (trying, next) = match failover.state() {
        State::Suspended => (None, None),
        State::Trying { server, .. } => (membership.server(server), None),
        State::Pausing { until } => (None, Some(until)),
        State::Served { renewal, .. } => (None, Some(renewal)),
    };
    MemberGroup {
        name: config.name.clone(),
        id: config.id.0,
        state: state(membership, now),
        open_without_key: membership.is_open_without_key(),
        local: membership.local_address(),
        server: failover.served_by().and_then(|server| membership.server(server)),
        trying,
        servers: config.server_addresses(),
        passed_over: failover.passed_over().iter().filter_map(passed).collect(),
        history: failover.history().filter_map(passed).collect(),
        next_registration_seconds: next.map(|at| at.saturating_since(now).as_secs()),
        isakmp_sas: isakmp_sa(membership, now).into_iter().collect(),
        kek: kek(membership, now),
        teks: teks(membership, statistics, now),
        policies: kernel_policy::explain(membership.view(), now),
        counters: membership.counters(),
        discards: BTreeMap::new(),
        push_discards: named(membership.rekey().discards()),
    }
}

fn state(membership: &Membership, now: BootTime) -> MembershipState {
    let keyed = !membership.generations().is_empty(now);
    match membership.failover().state() {
        _ if keyed && membership.cannot_send() => MembershipState::CannotSend,
        State::Served { .. } if keyed => MembershipState::Registered,
        _ if keyed => MembershipState::ReRegistering,
        State::Suspended => MembershipState::Suspended,
        _ if membership.had_keys() => MembershipState::Expired,
        State::Pausing { .. } => MembershipState::Waiting,
        State::Trying { .. } | State::Served { .. } => MembershipState::Registering,
    }
}

fn isakmp_sa(membership: &Membership, now: BootTime) -> Option<IsakmpSa> {
    let (server, stage) = membership.stage()?;
    let target = membership.config().servers.get(server)?;
    let established = membership.isakmp_sa().map(|(_, isakmp)| isakmp);
    if established.is_none() && stage != Stage::Phase1 {
        return None;
    }
    let (initiator, responder) = membership.cookies()?;
    Some(IsakmpSa {
        state: if established.is_some() { IsakmpState::Up } else { IsakmpState::Negotiating },
        local: membership.local_socket()?,
        remote: membership.server(server)?,
        initiator_cookie: hexadecimal(&initiator),
        responder_cookie: hexadecimal(&responder),
        exchange_mode: "main".to_owned(),
        role: Role::Initiator,
        authentication: names::authentication(target.credential.authentication()).to_owned(),
        peer_identity: established.map(|isakmp| isakmp.peer_identity.to_string()),
        transform: established.map(|isakmp| names::transform(&isakmp.transform)),
        lifetime_left_seconds: established.map(|isakmp| isakmp.end.saturating_since(now).as_secs()),
    })
}

fn kek(membership: &Membership, now: BootTime) -> Option<KekSa> {
    let member = membership.rekey().member()?;
    let policy = member.policy()?;
    let encoding = member.signature_encoding()?;
    Some(KekSa {
        spi: hexadecimal(&policy.spi),
        encryption: names::kek_encryption(policy),
        signature: names::kek_signature(policy),
        destination: policy.destination.address(),
        acknowledgement: policy.acknowledgement.map(names::acknowledgement),
        lifetime_left_seconds: member.expiry()?.saturating_since(now).as_secs(),
        sequence_number: member.sequence_number()?,
        signature_form: encoding.form.map(|form| names::signature_form(form).to_owned()),
        signed_length: encoding.length.map(|length| names::signed_length(length).to_owned()),
    })
}

fn teks(membership: &Membership, statistics: &Statistics, now: BootTime) -> Vec<Tek> {
    let config = membership.config();
    let local = membership.local_address();
    let counters = |destination: Option<IpAddr>, spi: u32| {
        let id = destination.map(|destination| xfrm::model::SaId { destination, spi });
        traffic(id.and_then(|id| statistics.sas.get(&id).copied()).unwrap_or_default())
    };
    let teks = membership.generations().teks(now).into_iter().map(|tek| {
        let protection = &tek.policy.protection;
        let (encryption, integrity) = names::algorithms(protection);
        Tek {
            spi: tek.spi,
            encryption,
            integrity,
            mode: "tunnel, addresses preserved".to_owned(),
            direction: names::direction(protection).to_owned(),
            sends: names::sends(protection) && tek.send,
            receives: names::receives(protection),
            hard_lifetime_left_seconds: tek.expiry.saturating_since(now).as_secs(),
            lifetime_kilobytes: protection.lifetime_kilobytes,
            inbound: counters(local, tek.spi),
            outbound: counters(Some(config.placeholder), tek.spi),
        }
    });
    teks.collect()
}

fn named(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

fn traffic(counters: Counters) -> Traffic {
    Traffic { packets: counters.packets, octets: counters.octets }
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

//! The log of the memberships' events and the status line for the service manager.

use control::member::Transform;
use gdoi::push::KekChange;
use ike::BootTime;
use tracing::{debug, info, info_span, warn};

use crate::member::Member;
use crate::membership::failover::{PATIENCE, Reason, State};
use crate::membership::{Event, Membership, Suspicion};
use crate::show::names;

/// Writes one event to the log.
pub fn log(membership: &Membership, event: &Event) {
    let span = info_span!("group", name = %membership.config().name);
    let _entered = span.enter();
    match event {
        Event::LocalFound(_)
        | Event::LocalMissing(_)
        | Event::Trying(_)
        | Event::Phase1Established { .. }
        | Event::PassedOver(_)
        | Event::Pausing { .. }
        | Event::Registered { .. }
        | Event::AwaitingTek { .. }
        | Event::IsakmpSaEnded(_)
        | Event::IsakmpSaUnusable { .. } => log_registration(membership, event),
        Event::Pushed { .. }
        | Event::PushApplied { .. }
        | Event::PushUnusable { .. }
        | Event::KekUnusable { .. }
        | Event::KekExpired => log_rekey(event),
        Event::RolledOver { .. }
        | Event::Expired
        | Event::TeksDeleted
        | Event::Restored { .. }
        | Event::SealedKeysEnded
        | Event::Probing(_)
        | Event::SendingBlocked(_)
        | Event::SendingRecovered
        | Event::SequenceNearExhaustion { .. } => log_keys(membership, event),
    }
}

fn log_registration(membership: &Membership, event: &Event) {
    let server = |index: usize| {
        membership.server(index).map_or_else(|| "?".to_owned(), |server| server.to_string())
    };
    match event {
        Event::LocalFound(local) => {
            let interface = local.interface.as_str();
            info!(event = "local-address-found", interface, "local address found; registering");
            debug!(event = "local-address-found", interface, address = %local.address, "local address");
        }
        Event::LocalMissing(missing) => warn!(
            event = "local-address-missing",
            reason = %missing,
            "no local address; registration waits for one"
        ),
        Event::Trying(index) => {
            info!(event = "registering", key_server = server(*index), "registering");
        }
        Event::Phase1Established { server: index, transform } => {
            let Transform { encryption, hash, dh_group } = names::transform(transform);
            debug!(
                event = "phase1-established",
                key_server = server(*index),
                encryption,
                hash,
                dh_group,
                "ISAKMP SA established"
            );
        }
        Event::PassedOver(passed) => {
            let (key_server, reason) = (server(passed.server), passed.reason.name());
            let detail = passed.detail.as_str();
            match passed.reason {
                Reason::NoAnswer => info!(
                    event = "key-server-failed",
                    key_server, reason, detail, "key server did not answer"
                ),
                _ => warn!(
                    event = "key-server-failed",
                    key_server, reason, detail, "registration with the key server failed"
                ),
            }
        }
        Event::Pausing { pause } => warn!(
            event = "all-key-servers-failed",
            retry_seconds = pause.as_secs(),
            "no key server could be registered with; retrying"
        ),
        Event::Registered { server: index, spis, lifetime } => info!(
            event = "registered",
            key_server = server(*index),
            spis = %list(spis),
            lifetime_seconds = lifetime.as_secs(),
            "registered"
        ),
        Event::AwaitingTek { server: index } => info!(
            event = "registered-without-tek",
            key_server = server(*index),
            wait_seconds = PATIENCE.as_secs(),
            "registered without a TEK; waiting for a push before the next key server is tried"
        ),
        Event::IsakmpSaEnded(index) => debug!(
            event = "isakmp-sa-ended",
            key_server = server(*index),
            "ISAKMP SA ended; TEKs and KEK stay valid"
        ),
        Event::IsakmpSaUnusable { server: index, failure } => info!(
            event = "isakmp-sa-unusable",
            key_server = server(*index),
            reason = %failure,
            "pull under the present ISAKMP SA failed; beginning a new phase 1"
        ),
        _ => {}
    }
}

fn log_rekey(event: &Event) {
    match event {
        Event::Pushed { sequence_number, spis, deletions, kek } => {
            let kek = match kek {
                KekChange::Unchanged => "unchanged",
                KekChange::Replaced { .. } => "replaced",
                KekChange::Deleted => "deleted",
            };
            info!(
                event = "push-accepted",
                sequence_number,
                spis = %list(spis),
                deletions,
                kek,
                "push accepted"
            );
        }
        Event::PushApplied { sequence_number, after } => {
            let microseconds = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            info!(
                event = "push-installed",
                sequence_number, microseconds, "kernel holds the SAs of the push"
            );
        }
        Event::PushUnusable { sequence_number, reason } => warn!(
            event = "push-unusable",
            sequence_number,
            %reason,
            "push cannot be used; keys in use stay, registering again"
        ),
        Event::KekUnusable { reason } => warn!(
            event = "restored-kek-unusable",
            %reason,
            "KEK of the previous run cannot be used; no push is received before the next \
             registration"
        ),
        Event::KekExpired => {
            warn!(event = "kek-expired", "KEK expired; no push can be received, registering again");
        }
        _ => {}
    }
}

fn log_keys(membership: &Membership, event: &Event) {
    let group_traffic = traffic_without_key(membership);
    match event {
        Event::RolledOver { spis } => {
            info!(event = "teks-rolled-over", spis = %list(spis), "TEKs rolled over");
        }
        Event::Expired => warn!(event = "teks-expired", group_traffic, "all TEKs expired"),
        Event::TeksDeleted => {
            warn!(event = "teks-deleted", group_traffic, "key server deleted all TEKs");
        }
        Event::Restored { spis, sealed } => info!(
            event = "keys-restored",
            spis = %list(spis),
            source = if *sealed { "sealed state" } else { "kernel" },
            "keys of the previous run are in use until new ones come"
        ),
        Event::SealedKeysEnded => info!(
            event = "sealed-keys-expired",
            "keys in the sealed state have expired by the wall clock; starting without keys"
        ),
        Event::Probing(Suspicion::UnknownSpi) => info!(
            event = "recovery-probe",
            cause = "unknown-spi",
            "ESP with unknown SPIs received; registering again"
        ),
        Event::Probing(Suspicion::IntegrityFailure(spi)) => info!(
            event = "recovery-probe",
            cause = "integrity-failures",
            spi = format_args!("{spi:#010x}"),
            "ESP fails its integrity check; registering again"
        ),
        Event::SendingBlocked(problem) => {
            warn!(event = "sending-blocked", reason = %problem, "traffic is blocked although keys are valid");
        }
        Event::SendingRecovered => {
            info!(event = "sending-recovered", "all traffic of the group can be sent again");
        }
        Event::SequenceNearExhaustion { spi } => warn!(
            event = "sequence-number-near-exhaustion",
            spi = format_args!("{spi:#010x}"),
            "sequence number near exhaustion; registering again for a new TEK"
        ),
        _ => {}
    }
}

/// One line about all groups, for `systemctl status`.
pub fn line(member: &Member, failing: bool, now: BootTime) -> String {
    let groups: Vec<String> = member
        .memberships()
        .iter()
        .map(|membership| format!("{} {}", membership.config().name, state_text(membership, now)))
        .collect();
    let failing = if failing { "; kernel update failed, see the log" } else { "" };
    format!("{}{failing}", groups.join(", "))
}

fn state_text(membership: &Membership, now: BootTime) -> String {
    let why = match membership.failover().state() {
        _ if !membership.generations().is_empty(now) && membership.cannot_send() => {
            return String::from("blocked: registered, but nothing can be sent");
        }
        _ if !membership.generations().is_empty(now) => return String::from("protected"),
        State::Suspended => "no local address",
        State::Trying { .. } | State::Served { .. } => "registering",
        State::Pausing { .. } => "all key servers failed",
    };
    format!("{}: {why}", traffic_without_key(membership))
}

fn traffic_without_key(membership: &Membership) -> &'static str {
    if membership.is_open_without_key() { "in clear" } else { "blocked" }
}

fn list(spis: &[u32]) -> String {
    spis.iter().map(|spi| format!("{spi:#010x}")).collect::<Vec<_>>().join(" ")
}

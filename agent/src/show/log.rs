//! The log of the memberships' events and the status line for the service manager.

use gdoi::BootTime;
use gdoi::push::KekChange;
use tracing::{debug, info, info_span, warn};

use crate::member::Member;
use crate::membership::failover::{PATIENCE, Reason, State};
use crate::membership::{Event, Membership, Suspicion};

/// Writes one event to the log.
pub fn log(membership: &Membership, event: &Event) {
    let span = info_span!("group", name = %membership.config().name);
    let _entered = span.enter();
    let server = |index: usize| {
        membership.server(index).map_or_else(|| "?".to_owned(), |server| server.to_string())
    };
    let group_traffic = traffic_without_key(membership);
    match event {
        Event::LocalFound(local) => {
            info!(interface = %local.interface, "local address found; registering");
            debug!(address = %local.address, "local address");
        }
        Event::LocalMissing(missing) => {
            warn!(%missing, "no local address; no key server is asked until there is one");
        }
        Event::Trying(index) => info!(key_server = server(*index), "registering"),
        Event::Phase1Established { server: index, transform } => {
            debug!(key_server = server(*index), ?transform, "phase 1 established");
        }
        Event::PassedOver(passed) => match passed.reason {
            Reason::NoAnswer => {
                info!(key_server = server(passed.server), detail = %passed.detail, "key server passed over");
            }
            _ => warn!(
                key_server = server(passed.server),
                reason = passed.reason.word(),
                detail = %passed.detail,
                "key server passed over"
            ),
        },
        Event::Pausing { pause } => {
            warn!(
                pause_seconds = pause.as_secs(),
                "no key server served; the next round begins after a pause"
            );
        }
        Event::Registered { server: index, spis, lifetime } => {
            info!(
                key_server = server(*index),
                spis = %list(spis),
                lifetime_seconds = lifetime.as_secs(),
                "registered; keys are valid"
            );
        }
        Event::AwaitingTek { server: index } => info!(
            key_server = server(*index),
            patience_seconds = PATIENCE.as_secs(),
            "registered without a TEK; one is to come by push, or the next key server is tried"
        ),
        Event::RolledOver { spis } => info!(spis = %list(spis), "keys rolled over"),
        Event::Expired => warn!(group_traffic, "all keys have ended"),
        Event::Pushed { sequence_number, spis, deletions, kek } => {
            let kek = match kek {
                KekChange::Unchanged => "unchanged",
                KekChange::Replaced { .. } => "replaced",
                KekChange::Deleted => "deleted",
            };
            info!(sequence_number, spis = %list(spis), deletions, kek, "push accepted");
        }
        Event::PushApplied { sequence_number, after } => {
            let microseconds = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            info!(sequence_number, microseconds, "push is in the kernel");
        }
        Event::PushUnusable { sequence_number, reason } => {
            warn!(sequence_number, %reason, "push cannot be used; keys stay, registering again");
        }
        Event::Adopted { spis, sealed: false } => {
            info!(spis = %list(spis), "keys of an earlier run stay in use until new ones come");
        }
        Event::Adopted { spis, sealed: true } => {
            info!(spis = %list(spis), "keys of the sealed state are in use again until new ones come");
        }
        Event::SealedKeysEnded => {
            info!(
                "the keys of the sealed state have ended by the wall clock; starting without keys"
            )
        }
        Event::KekUnusable { reason } => {
            warn!(%reason, "the KEK of an earlier run is not used; pushes are heard again after the next registration");
        }
        Event::Probing(Suspicion::UnknownSpi) => {
            info!("ESP with unknown SPIs arrives; asking the key server for the keys");
        }
        Event::Probing(Suspicion::Unauthentic(spi)) => info!(
            spi = format_args!("{spi:#010x}"),
            "ESP arrives that fails the integrity check; asking the key server for the keys"
        ),
        Event::Worn { spi } => {
            warn!(
                spi = format_args!("{spi:#010x}"),
                "sequence numbers of a counter-mode sender run out; asking for a new TEK"
            );
        }
        Event::TeksDeleted => warn!(group_traffic, "the key server deleted all TEKs"),
        Event::KekExpired => warn!("the KEK has ended; no push can come, registering again"),
        Event::IsakmpSaEnded(index) => {
            debug!(key_server = server(*index), "ISAKMP SA ended; keys stay valid")
        }
    }
}

/// One line about all groups, for `systemctl status`.
pub fn line(member: &Member, failing: bool, now: BootTime) -> String {
    let groups: Vec<String> = member
        .memberships()
        .iter()
        .map(|membership| format!("{} {}", membership.config().name, word(membership, now)))
        .collect();
    let failing = if failing { "; kernel changes fail, see the log" } else { "" };
    format!("{}{failing}", groups.join(", "))
}

fn word(membership: &Membership, now: BootTime) -> String {
    let why = match membership.failover().state() {
        _ if !membership.generations().is_empty(now) => return String::from("protected"),
        State::Suspended => "no local address",
        State::Trying { .. } | State::Served { .. } => "registering",
        State::Pausing { .. } => "no key server serves",
    };
    format!("{}: {why}", traffic_without_key(membership))
}

fn traffic_without_key(membership: &Membership) -> &'static str {
    if membership.is_open_without_key() { "in clear" } else { "blocked" }
}

fn list(spis: &[u32]) -> String {
    spis.iter().map(|spi| format!("{spi:#010x}")).collect::<Vec<_>>().join(" ")
}

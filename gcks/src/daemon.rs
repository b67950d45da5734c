//! The loop: one task owns the key server and feeds it datagrams, the time and questions.

use std::net::SocketAddr;
use std::path::PathBuf;

use ::control::Response;
use ::control::server::Call;
use ::control::socket::{Access, Listener};
use anyhow::Context;
use daemon::clock::{self, Timer};
use daemon::limit::LogLimiter;
use daemon::{entropy, notify};
use gdoi::BootTime;
use gdoi::error::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::control::{self, identity_text};
use crate::keys::OsEntropy;
use crate::net::Network;
use crate::notice::Notice;
use crate::service::Service;
use crate::signing;

/// Questions that wait for the loop.
const CALLS: usize = 16;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// An address or the control socket cannot be bound, or the system gives no randomness, timer or
/// signals.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let started = clock::now();
    let control_socket = config.control_socket.clone();
    let (groups, members) = (config.groups.len(), config.members.len());
    let mut network = Network::bind(&config.listen)?;
    let listen = network.local();
    let mut calls = answer_calls(control_socket)?;
    let signing_keys = signing::load_all(&config.groups)?;
    let service = Service::new(config, &signing_keys, entropy::seed()?, OsEntropy);
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut reload = signal(SignalKind::hangup()).context("SIGHUP")?;
    let mut timer = Timer::new().context("timer")?;
    let mut state = State { service, listen, started, limiter: LogLimiter::default() };
    let watchdog = notify::watchdog_interval();
    let mut next_watchdog = watchdog.map(|interval| started + interval);

    tracing::info!(groups, members, listen = ?state.listen, "key server is ready");
    notify::ready(&format!("{groups} groups, {members} members"));
    loop {
        let deadline = [state.service.poll_timeout(), next_watchdog].into_iter().flatten().min();
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => tracing::warn!("SIGHUP: reloading is not supported; restart the key server"),
            Some(call) = calls.recv() => state.answer(call),
            slept = timer.sleep_until(deadline) => {
                slept.context("timer")?;
                state.service.handle_timeout(clock::now());
            }
            Some(received) = network.receive() => {
                state.handle_datagram(received.source, received.local, &received.octets);
            }
        }
        state.log_notices();
        state.send(&network).await;
        if let (Some(interval), Some(due)) = (watchdog, next_watchdog)
            && clock::now() >= due
        {
            notify::watchdog();
            next_watchdog = Some(clock::now() + interval);
        }
    }
    notify::stopping();
    network.close();
    // Members keep their keys and ISAKMP SAs end by themselves: a restart disturbs nobody.
    tracing::info!("key server ends");
    Ok(())
}

fn answer_calls(path: PathBuf) -> anyhow::Result<mpsc::Receiver<Call>> {
    let listener = Listener::bind(&path)?;
    let (sender, calls) = mpsc::channel(CALLS);
    tokio::spawn(::control::server::serve(listener, Access::own(), sender));
    Ok(calls)
}

struct State {
    service: Service<OsEntropy>,
    listen: Vec<SocketAddr>,
    started: BootTime,
    limiter: LogLimiter,
}

impl State {
    fn handle_datagram(&mut self, source: SocketAddr, local: SocketAddr, octets: &[u8]) {
        let now = clock::now();
        if let Err(error) = self.service.handle_datagram(source, local, octets, now) {
            self.log_discard(source, &error, now);
        }
    }

    async fn send(&mut self, network: &Network) {
        while let Some(transmit) = self.service.poll_transmit() {
            if let Err(error) = network.send(&transmit).await
                && let Some(pass) = self.limiter.admit("cannot-send", clock::now())
            {
                let (peer, withheld) = (transmit.destination, pass.withheld);
                tracing::warn!(%peer, %error, withheld, "cannot send");
            }
        }
    }

    fn answer(&mut self, call: Call) {
        let request = call.request();
        let response = control::answer(&mut self.service, request, &self.listen, self.started, clock::now());
        if request.is_command() {
            match &response {
                Response::Done(done) => tracing::info!(%request, message = done.message, "command"),
                Response::Refused(refusal) => tracing::warn!(%request, %refusal, "command refused"),
                _ => {}
            }
        }
        call.answer(response);
    }

    fn log_discard(&mut self, peer: SocketAddr, error: &Error, now: BootTime) {
        let reason = error.reason();
        let Some(pass) = self.limiter.admit(reason, now) else { return };
        let withheld = pass.withheld;
        if is_ordinary(error) {
            tracing::debug!(%peer, reason, withheld, %error, "datagram discarded");
        } else {
            tracing::warn!(%peer, reason, withheld, %error, "datagram discarded");
        }
    }

    fn log_notices(&mut self) {
        let now = clock::now();
        while let Some(notice) = self.service.poll_notice() {
            match notice {
                Notice::Authenticated { peer, identity } => {
                    tracing::debug!(%peer, identity = identity_text(&identity), "identity proved");
                }
                Notice::TekMade { group, life } => {
                    let seconds = life.ends.saturating_since(now).as_secs();
                    tracing::info!(%group, spi = format_args!("{:08x}", life.spi), seconds, "TEK made");
                }
                Notice::Registered { group, member, peer, new: true } => {
                    tracing::info!(%group, %member, %peer, "member registered");
                }
                Notice::Registered { group, member, peer, new: false } => {
                    tracing::debug!(%group, %member, %peer, "member registered again");
                }
                Notice::Refused { peer, identity, group, reason } => {
                    if let Some(pass) = self.limiter.admit(reason.reason(), now) {
                        let (identity, withheld) = (identity_text(&identity), pass.withheld);
                        tracing::warn!(%peer, identity, %group, withheld, %reason, "pull refused");
                    }
                }
                Notice::Aborted { peer, identity, group, reason } => {
                    if let Some(pass) = self.limiter.admit("pull-aborted", now) {
                        let (identity, withheld) = (identity_text(&identity), pass.withheld);
                        tracing::info!(%peer, identity, %group, withheld, ?reason, "pull broken off");
                    }
                }
                Notice::Expired { group, member } => {
                    tracing::info!(%group, %member, "keys of a member ended without a new pull");
                }
                Notice::KekMade { group, spi } => {
                    let spi: String = spi.iter().map(|octet| format!("{octet:02x}")).collect();
                    tracing::info!(%group, spi, "KEK made");
                }
                Notice::Pushed { group, purpose, sequence_number, members } => {
                    tracing::info!(%group, purpose, sequence_number, members, "push");
                }
                Notice::PushFailed { group, error } => {
                    tracing::error!(%group, error, "a push cannot be made");
                }
                Notice::Silent { group, member, pushes } => {
                    tracing::warn!(%group, %member, pushes, "no acknowledgement");
                }
                Notice::Dropped { group, member } => {
                    tracing::warn!(%group, %member, "silent member dropped; it may register again");
                }
                Notice::StartedOver { group } => {
                    tracing::warn!(%group, "all sender identifiers were in use: all members register again");
                }
                Notice::PeerDeleted { peer, identity } => {
                    tracing::debug!(%peer, identity = identity_text(&identity), "member deleted its ISAKMP SA");
                }
            }
        }
    }
}

/// Discards that a healthy network causes too.
fn is_ordinary(error: &Error) -> bool {
    matches!(error.reason(), "replayed" | "unknown-cookies" | "unexpected" | "ended")
}

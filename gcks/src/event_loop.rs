//! The loop: one task owns the key server and feeds it datagrams, the time and questions.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::control::Response;
use ::control::server::Call;
use ::control::socket::{Access, Listener};
use anyhow::Context;
use daemon::clock::{self, Timer};
use daemon::limit::LogLimiter;
use daemon::sealed::file::{Moment, Owner, SealedFile};
use daemon::{entropy, notify};
use gdoi::BootTime;
use gdoi::crypto::Secret;
use gdoi::error::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{self, Config};
use crate::control::{self, identity_text};
use crate::group::event::Event;
use crate::group::key_generation::OsEntropy;
use crate::group::signing_key::{self, SigningKeys};
use crate::server::KeyServer;
use crate::sockets::Network;

/// Datagrams that are handled before their answers leave.
const BATCH: usize = 64;

/// After a state that could not be written.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// Questions that wait for the loop.
const CALLS: usize = 16;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// An address or the control socket cannot be bound, or the system gives no randomness, timer or
/// signals.
pub async fn run(config: Config, path: PathBuf) -> anyhow::Result<()> {
    let started = clock::now();
    let control_socket = config.control_socket.clone();
    let fixed = Fixed::of(&config);
    let (groups, members) = (config.groups.len(), config.members.len());
    let mut network = Network::bind(&config.listen)?;
    let listen = network.local();
    let mut calls = answer_calls(control_socket)?;
    let signing_keys = signing_key::load_all(&config.groups)?;
    let (service, state_file) = restore(config, &signing_keys)?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut reload = signal(SignalKind::hangup()).context("SIGHUP")?;
    let mut timer = Timer::new().context("timer")?;
    let mut state = State {
        service,
        state_file,
        listen,
        started,
        limiter: LogLimiter::default(),
        save_again: None,
        answers: Vec::new(),
    };
    let watchdog = notify::watchdog_interval();
    let mut next_watchdog = watchdog.map(|interval| started + interval);

    tracing::info!(groups, members, listen = ?state.listen, "key server is ready");
    notify::ready(&format!("{groups} groups, {members} members"));
    loop {
        let deadline = [state.service.poll_timeout(), next_watchdog, state.save_again]
            .into_iter()
            .flatten()
            .min();
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => state.reload(&path, &fixed),
            Some(call) = calls.recv() => state.answer(call),
            slept = timer.sleep_until(deadline) => {
                slept.context("timer")?;
                state.service.handle_timeout(clock::now());
            }
            Some(received) = network.receive() => {
                state.handle_datagram(received.source, received.local, &received.octets);
                // What waits already shares one writing of the state.
                for _ in 0..BATCH {
                    let Some(received) = network.receive_now() else { break };
                    state.handle_datagram(received.source, received.local, &received.octets);
                }
            }
        }
        state.log_events();
        state.save();
        state.send_answers();
        state.send(&network);
        if let (Some(interval), Some(due)) = (watchdog, next_watchdog)
            && clock::now() >= due
        {
            notify::watchdog();
            next_watchdog = Some(clock::now() + interval);
        }
    }
    notify::stopping();
    network.close();
    state.save();
    state.send_answers();
    // Members keep their keys and ISAKMP SAs end by themselves: a restart disturbs nobody.
    tracing::info!("key server ends");
    Ok(())
}

/// A state is written before anything leaves that it describes, so that no number is ever used
/// twice.
const STATE: Owner = Owner {
    program: "gcks",
    magic: b"gcks state\x01",
    otherwise: "remove it and let all members register again",
};

/// What only a restart changes.
#[derive(PartialEq, Eq)]
struct Fixed {
    control_socket: PathBuf,
    listen: Vec<SocketAddr>,
    state_directory: PathBuf,
    state_key: Option<Secret>,
}

impl Fixed {
    fn of(config: &Config) -> Self {
        Self {
            control_socket: config.control_socket.clone(),
            listen: config.listen.clone(),
            state_directory: config.state_directory.clone(),
            state_key: config.state_key.as_ref().map(Secret::duplicate),
        }
    }
}

/// The service with its state, if one is kept.
fn restore(
    config: Config,
    keys: &SigningKeys,
) -> anyhow::Result<(KeyServer<OsEntropy>, Option<SealedFile>)> {
    let Some(key) = &config.state_key else {
        return Ok((KeyServer::new(config, keys, entropy::seed()?, OsEntropy), None));
    };
    let file = SealedFile::new(config.state_directory.join("gcks.state"), STATE, key)?;
    let now = clock::now();
    let service = match file.load(&Moment::at(now))? {
        None => KeyServer::new(config, keys, entropy::seed()?, OsEntropy),
        Some((state, clock)) => {
            let restored =
                KeyServer::restore(config, keys, entropy::seed()?, OsEntropy, (&state, clock), now);
            let service = restored.with_context(|| {
                let path = file.path().display();
                format!("{path}: another version wrote this state; remove it and let all members register again")
            })?;
            let members = service.registry().iter().count();
            tracing::info!(path = %file.path().display(), members, "state restored");
            service
        }
    };
    Ok((service, Some(file)))
}

fn answer_calls(path: PathBuf) -> anyhow::Result<mpsc::Receiver<Call>> {
    let listener = Listener::bind(&path)?;
    let (sender, calls) = mpsc::channel(CALLS);
    tokio::spawn(::control::server::serve(listener, Access::own(), sender));
    Ok(calls)
}

struct State {
    service: KeyServer<OsEntropy>,
    state_file: Option<SealedFile>,
    listen: Vec<SocketAddr>,
    started: BootTime,
    limiter: LogLimiter,
    save_again: Option<BootTime>,
    /// Answers to commands whose consequences are not written yet.
    answers: Vec<(Call, Response)>,
}

impl State {
    fn handle_datagram(&mut self, source: SocketAddr, local: SocketAddr, octets: &[u8]) {
        let now = clock::now();
        if let Err(error) = self.service.handle_datagram(source, local, octets, now) {
            self.log_discard(source, &error, now);
        }
    }

    /// Reads the configuration again. One with defects changes nothing.
    fn reload(&mut self, path: &Path, fixed: &Fixed) {
        let loaded = match config::load(path) {
            Ok(loaded) => loaded,
            Err(report) => {
                for line in report.to_string().lines() {
                    tracing::error!("{line}");
                }
                tracing::error!("the configuration is as it was");
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!(file = %path.display(), "{warning}");
        }
        if Fixed::of(&loaded.value) != *fixed {
            tracing::warn!(
                "control-socket, listen, port, state-directory and the state key change with a restart only"
            );
        }
        let keys = match signing_key::load_all(&loaded.value.groups) {
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(%error, "the configuration is as it was");
                return;
            }
        };
        let changes = self.service.reload(loaded.value, &keys, clock::now());
        if changes.is_empty() {
            tracing::info!("configuration read again: nothing has changed");
        }
        for change in changes {
            tracing::info!("configuration read again: {change}");
        }
    }

    /// Writes the state if there is something in it that must not be forgotten. Nothing leaves
    /// before.
    fn save(&mut self) {
        self.save_again = None;
        let Some(file) = self.state_file.as_ref().filter(|_| self.service.is_unsaved()) else {
            return;
        };
        let now = clock::now();
        match file.save(&self.service.export(), &Moment::at(now)) {
            Ok(()) => self.service.saved(),
            Err(error) => {
                self.service.discard_transmits();
                self.save_again = Some(now + SAVE_AGAIN);
                if let Some(pass) = self.limiter.admit("state-not-written", now) {
                    let withheld = pass.withheld;
                    tracing::error!(%error, withheld, "nothing is sent until the state can be written");
                }
            }
        }
    }

    fn send(&mut self, network: &Network) {
        while let Some(transmit) = self.service.poll_transmit() {
            let path = self.service.multicast_path(&transmit);
            if let Err(error) = network.send(&transmit, &path)
                && let Some(pass) = self.limiter.admit("cannot-send", clock::now())
            {
                let (peer, withheld) = (transmit.destination, pass.withheld);
                tracing::warn!(%peer, %error, withheld, "cannot send");
            }
        }
    }

    fn answer(&mut self, call: Call) {
        let request = call.request();
        let response =
            control::answer(&mut self.service, request, &self.listen, self.started, clock::now());
        if request.is_command() {
            match &response {
                Response::Done(done) => tracing::info!(%request, message = done.message, "command"),
                Response::Refused(refusal) => tracing::warn!(%request, %refusal, "command refused"),
                _ => {}
            }
        }
        match call.request().is_command() {
            // Nobody is told that something is done that a crash could still undo.
            true => self.answers.push((call, response)),
            false => call.answer(response),
        }
    }

    fn send_answers(&mut self) {
        if !self.service.is_unsaved() {
            self.answers.drain(..).for_each(|(call, response)| call.answer(response));
        }
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

    fn log_events(&mut self) {
        let now = clock::now();
        while let Some(notice) = self.service.poll_event() {
            match notice {
                Event::Authenticated { peer, identity } => {
                    tracing::debug!(%peer, identity = identity_text(&identity), "identity proved");
                }
                Event::TekMade { group, life } => {
                    let seconds = life.ends.saturating_since(now).as_secs();
                    tracing::info!(%group, spi = format_args!("{:08x}", life.spi), seconds, "TEK made");
                }
                Event::Registered { group, member, peer, new: true } => {
                    tracing::info!(%group, %member, %peer, "member registered");
                }
                Event::Registered { group, member, peer, new: false } => {
                    tracing::debug!(%group, %member, %peer, "member registered again");
                }
                Event::Refused { peer, identity, group, reason } => {
                    if let Some(pass) = self.limiter.admit(reason.reason(), now) {
                        let (identity, withheld) = (identity_text(&identity), pass.withheld);
                        tracing::warn!(%peer, identity, %group, withheld, %reason, "pull refused");
                    }
                }
                Event::Aborted { peer, identity, group, reason } => {
                    if let Some(pass) = self.limiter.admit("pull-aborted", now) {
                        let (identity, withheld) = (identity_text(&identity), pass.withheld);
                        tracing::info!(%peer, identity, %group, withheld, ?reason, "pull broken off");
                    }
                }
                Event::Expired { group, member } => {
                    tracing::info!(%group, %member, "keys of a member ended without a new pull");
                }
                Event::KekMade { group, spi } => {
                    let spi: String = spi.iter().map(|octet| format!("{octet:02x}")).collect();
                    tracing::info!(%group, spi, "KEK made");
                }
                Event::Pushed { group, purpose, sequence_number, members } => {
                    tracing::info!(%group, purpose, sequence_number, members, "push");
                }
                Event::PushFailed { group, error } => {
                    tracing::error!(%group, error, "a push cannot be made");
                }
                Event::Silent { group, member, pushes } => {
                    tracing::warn!(%group, %member, pushes, "no acknowledgement");
                }
                Event::Dropped { group, member } => {
                    tracing::warn!(%group, %member, "silent member dropped; it may register again");
                }
                Event::Changed { change } => {
                    tracing::info!("configuration changed since the last run: {change}");
                }
                Event::StartedOver { group } => {
                    tracing::warn!(%group, "all sender identifiers were in use: all members register again");
                }
                Event::PeerDeleted { peer, identity } => {
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

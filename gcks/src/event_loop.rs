//! The loop: one task owns the key server and feeds it datagrams, the time and questions.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ::control::server::Call;
use ::control::socket::{Access, Listener};
use ::control::{ReloadArgument, Request, Response};
use anyhow::Context;
use daemon::clock::{self, Timer};
use daemon::limit::LogLimiter;
use daemon::notify;
use gdoi::server::{Arithmetic, Computed};
use ike::BootTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{Config, Fixed};
use crate::control;
use crate::event_log;
use crate::group::key_generation::OsEntropy;
use crate::group::signing_key;
use crate::loader::{Asked, LoadError, Loaded, Loader, Ready};
use crate::persistence::{self, Persistence};
use crate::server::KeyServer;
use crate::sockets::Network;
use crate::workers::Workers;

/// Datagrams that are handled before their answers leave.
const BATCH: usize = 64;

/// Datagrams that are sent before those that have arrived are received: a push to thousands of
/// members must not overflow the receive buffer with their acknowledgements.
const PORTION: usize = 64;

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
    let loader = Loader::new(path, Fixed::of(&config));
    let (groups, members) = (config.groups.len(), config.members.len());
    let mut network = Network::bind(&config.listen)?;
    let listen = network.local();
    let mut calls = answer_calls(control_socket)?;
    let signing_keys = signing_key::load_all(&config.groups)?;
    let (mut key_server, persistence) = persistence::start(config, &signing_keys, started)?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut reload = signal(SignalKind::hangup()).context("SIGHUP")?;
    let mut timer = Timer::new().context("timer")?;
    key_server.set_arithmetic(Arithmetic::HandedOut);
    let mut running = Running {
        key_server,
        persistence,
        listen,
        started,
        limiter: LogLimiter::default(),
        save_again: None,
        answers: Vec::new(),
        workers: Workers::start()?,
        loader,
        has_more_to_send: false,
    };
    let watchdog = notify::watchdog_interval();
    let mut next_watchdog = watchdog.map(|interval| started + interval);

    // Said now, and not when the first member registers.
    running.save();

    tracing::info!(
        event = "ready",
        groups,
        members,
        listen = addresses(&running.listen),
        "key server is ready"
    );
    notify::ready(&format!("{groups} groups, {members} members"));
    loop {
        let deadline = [running.key_server.poll_timeout(), next_watchdog, running.save_again]
            .into_iter()
            .flatten()
            .min();
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => running.loader.ask(Asked::Signal),
            Some(loaded) = running.loader.next() => running.handle_loaded(loaded),
            Some(call) = calls.recv() => running.answer(call),
            slept = timer.sleep_until(deadline) => {
                slept.context("timer")?;
                running.key_server.handle_timeout(clock::now());
            }
            // A result costs little, and there are no more of them than the workers can compute.
            Some(computed) = running.workers.next() => running.handle_computed(computed),
            Some(received) = network.receive() => {
                running.handle_datagram(received.source, received.local, &received.octets);
                // Datagrams that wait already share one write of the state.
                for _ in 0..BATCH {
                    let Some(received) = network.receive_now() else { break };
                    running.handle_datagram(received.source, received.local, &received.octets);
                }
            }
            // The receivers have their turn between two portions.
            () = tokio::task::yield_now(), if running.has_more_to_send => {}
        }
        running.start_computations();
        running.log_events();
        running.save();
        running.send_answers();
        running.send(&network);
        if let (Some(interval), Some(due)) = (watchdog, next_watchdog)
            && clock::now() >= due
        {
            notify::watchdog();
            next_watchdog = Some(clock::now() + interval);
        }
    }
    notify::stopping();
    network.close();
    running.save();
    running.send_answers();
    // Members keep their keys and ISAKMP SAs end by themselves: a restart disturbs nobody.
    tracing::info!(event = "stopped", "key server stopped");
    Ok(())
}

fn answer_calls(path: PathBuf) -> anyhow::Result<mpsc::Receiver<Call>> {
    let listener = Listener::bind(&path)?;
    let (sender, calls) = mpsc::channel(CALLS);
    tokio::spawn(::control::server::serve(listener, Access::own(), sender));
    Ok(calls)
}

fn addresses(listen: &[SocketAddr]) -> String {
    let texts: Vec<String> = listen.iter().map(SocketAddr::to_string).collect();
    texts.join(", ")
}

/// What the event loop owns.
struct Running {
    key_server: KeyServer<OsEntropy>,
    persistence: Option<Persistence>,
    listen: Vec<SocketAddr>,
    started: BootTime,
    limiter: LogLimiter,
    save_again: Option<BootTime>,
    /// Answers to commands whose consequences are not written yet.
    answers: Vec<(Call, Response)>,
    workers: Workers,
    loader: Loader,
    /// Whether the last portion was not all.
    has_more_to_send: bool,
}

impl Running {
    fn handle_datagram(&mut self, source: SocketAddr, local: SocketAddr, octets: &[u8]) {
        let now = clock::now();
        if let Err(error) = self.key_server.handle_datagram(source, local, octets, now) {
            event_log::log_discard(source, &error, &mut self.limiter, now);
        }
    }

    fn start_computations(&mut self) {
        while let Some(computation) = self.key_server.poll_computation() {
            self.workers.run(computation);
        }
    }

    fn handle_computed(&mut self, computed: Computed) {
        let (now, peer) = (clock::now(), computed.peer());
        if let Err(error) = self.key_server.handle_computed(computed, now) {
            event_log::log_discard(peer, &error, &mut self.limiter, now);
        }
    }

    /// Takes over a configuration that was read, or tells what that would do. One with defects
    /// changes nothing.
    fn handle_loaded(&mut self, loaded: Loaded) {
        let Loaded { asked, result } = loaded;
        let dry_run = matches!(asked, Asked::Call { dry_run: true, .. });
        let ready = match result {
            Ok(ready) => ready,
            Err(error) => {
                self.refuse_configuration(asked, &error, dry_run);
                return;
            }
        };
        let Ready { config, keys, held, warnings } = ready;
        let mut changes = held;
        changes.extend(match dry_run {
            true => self.key_server.plan(&config, &keys),
            false => self.key_server.reload(config, &keys, clock::now()),
        });
        if !dry_run {
            event_log::log_reload(&changes, &warnings);
        }
        let Asked::Call { call, .. } = asked else { return };
        let response = control::configuration(dry_run, warnings, &changes);
        match dry_run {
            true => call.answer(response),
            // Nobody is told that something is done that a crash could still undo.
            false => self.answers.push((call, response)),
        }
    }

    fn refuse_configuration(&mut self, asked: Asked, error: &LoadError, dry_run: bool) {
        let text = error.to_string();
        let defects: Vec<&str> = text.lines().collect();
        if !dry_run {
            event_log::log_defects(&defects);
        }
        if let Asked::Call { call, .. } = asked {
            call.answer(control::defects(&defects));
        }
    }

    /// Writes the state if there is something in it that must not be forgotten. Nothing leaves
    /// before.
    fn save(&mut self) {
        self.save_again = None;
        let (now, key_server) = (clock::now(), &mut self.key_server);
        let Some(Err(error)) = self.persistence.as_mut().map(|kept| kept.save(key_server, now))
        else {
            return;
        };
        self.key_server.discard_answers();
        for (call, response) in self.answers.drain(..) {
            let is_refused = matches!(response, Response::Refused(_));
            let late = control::not_written(&error.to_string());
            call.answer(if is_refused { response } else { late });
        }
        self.save_again = Some(now + SAVE_AGAIN);
        if let Some(pass) = self.limiter.admit("state-not-written", now) {
            let suppressed = pass.suppressed;
            tracing::error!(event = "state-write-failed", %error, suppressed, "state not written; nothing is sent until it can be");
        }
    }

    /// Sends a portion of what waits.
    fn send(&mut self, network: &Network) {
        self.has_more_to_send = false;
        for sent in 0.. {
            if sent == PORTION {
                self.has_more_to_send = true;
                return;
            }
            let Some(transmit) = self.key_server.poll_transmit() else { return };
            let path = self.key_server.multicast_path(&transmit);
            if let Err(error) = network.send(&transmit, &path)
                && let Some(pass) = self.limiter.admit("cannot-send", clock::now())
            {
                let (peer, suppressed) = (transmit.destination, pass.suppressed);
                tracing::warn!(event = "send-failed", %peer, %error, suppressed, "datagram not sent");
            }
        }
    }

    fn answer(&mut self, call: Call) {
        if let Request::Reload(ReloadArgument { dry_run }) = *call.request() {
            self.loader.ask(Asked::Call { call, dry_run });
            return;
        }
        let request = call.request();
        let response = control::answer(
            &mut self.key_server,
            request,
            &self.listen,
            self.started,
            clock::now(),
        );
        if request.is_command() {
            match &response {
                Response::Done(done) => {
                    tracing::info!(event = "command", %request, result = done.message, "command carried out")
                }
                Response::Refused(refusal) => {
                    tracing::warn!(event = "command-refused", %request, %refusal, "command refused")
                }
                _ => {}
            }
        }
        match call.request().is_command() {
            // Nobody is told that something is done that a crash could still undo.
            true => self.answers.push((call, response)),
            false => call.answer(response),
        }
    }

    fn log_events(&mut self) {
        let now = clock::now();
        while let Some(event) = self.key_server.poll_event() {
            event_log::log(event, &mut self.limiter, now);
        }
    }

    fn send_answers(&mut self) {
        if !self.key_server.is_unsaved() {
            self.answers.drain(..).for_each(|(call, response)| call.answer(response));
        }
    }
}

//! The key server that members reach: datagrams, the time and commands go in; what leaves waits
//! for the state to be written, and where several servers are one, for the lease to live.

use std::net::SocketAddr;

use ::control::server::Call;
use ::control::{ReloadArgument, Request, Response};
use daemon::{clock, notify};
use gdoi::server::{Arithmetic, Computed};
use ike::{BootTime, WallClock};

use super::host::{Host, HostEvent};
use super::standby::{Turn, tell_ready};
use crate::control;
use crate::etcd::election;
use crate::event_log;
use crate::group::key_generation::OsEntropy;
use crate::loader::{Asked, LoadError, Loaded, Ready};
use crate::outbox::Outbox;
use crate::server::KeyServer;
use crate::sockets::Network;
use crate::state::store::StoreError;
use crate::workers::Workers;
use crate::writer::Writer;

/// Datagrams that are handled before their answers leave.
const BATCH: usize = 64;

/// Datagrams of pushes that are sent at a time, and the pause after them: acknowledgements of
/// thousands of members arrive as fast as the pushes left, and must not overflow the receive buffer
/// that Linux grants by default, which has room for some 500.
const PORTION: usize = 64;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(4);

/// How often certificates are looked at.
const CERTIFICATE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(3600);

/// A write that takes longer is told of.
const SLOW: std::time::Duration = std::time::Duration::from_secs(1);

/// How long the state may take to be written at the end.
const LAST_WRITE: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a server is no longer active.
pub(super) enum End {
    Stopped,
    /// Another one is, or may be.
    Superseded,
}

/// Runs until it is to stop, or has lost the election.
pub(super) async fn run(host: &mut Host, turn: Turn) -> anyhow::Result<End> {
    tell_ready(host, &turn);
    let Turn { mut key_server, writer, mut network, term } = turn;
    key_server.set_arithmetic(Arithmetic::HandedOut);
    let mut active = Active {
        host,
        key_server,
        writer,
        term,
        listen: network.local(),
        answers: Vec::new(),
        held_answers: Vec::new(),
        outbox: Outbox::default(),
        workers: Workers::start()?,
        resumes_at: None,
        end: None,
        problems: Vec::new(),
        next_look: clock::now(),
    };
    active.read_wall_clock(clock::now());
    active.look_at_certificates(clock::now());
    // Said now, and not when the first member registers.
    active.save();
    loop {
        let writer = active.writer.as_ref().and_then(Writer::poll_timeout);
        let deadlines = [active.key_server.poll_timeout(), writer, active.resumes_at];
        let deadlines = deadlines.into_iter().flatten();
        let deadline = deadlines.chain([active.next_look]).min();
        let written = async {
            match &mut active.writer {
                Some(writer) => writer.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = active.host.next(deadline) => active.handle_host_event(event?),
            written = written => active.handle_written(written),
            // A result costs little, and there are no more of them than the workers can compute.
            Some(computed) = active.workers.next() => active.handle_computed(computed),
            Some(received) = network.receive() => {
                active.handle_datagram(received.source, received.local, &received.octets);
                // Datagrams that wait already share one write of the state.
                for _ in 0..BATCH {
                    let Some(received) = network.receive_now() else { break };
                    active.handle_datagram(received.source, received.local, &received.octets);
                }
            }
        }
        if let Some(end) = active.end.take() {
            network.close();
            return Ok(active.finish(end).await);
        }
        active.start_computations();
        active.log_events();
        active.save();
        active.send(&network);
        active.host.feed_watchdog();
        // The receivers have their turn: what they do not take fills the kernel's buffer.
        tokio::task::yield_now().await;
    }
}

/// What the event loop owns.
struct Active<'h> {
    host: &'h mut Host,
    key_server: KeyServer<OsEntropy>,
    writer: Option<Writer>,
    /// Where several servers are one.
    term: Option<election::Term>,
    listen: Vec<SocketAddr>,
    /// Answers to commands whose consequences are not handed to the writer yet.
    answers: Vec<(Call, Response)>,
    /// Those that wait for the batch on its way.
    held_answers: Vec<(Call, Response)>,
    outbox: Outbox,
    workers: Workers,
    /// When the next portion of pushes is due, if the last one was not all.
    resumes_at: Option<BootTime>,
    end: Option<End>,
    /// What has been told to be wrong with certificates.
    problems: Vec<String>,
    /// When that is looked at again.
    next_look: BootTime,
}

impl Active<'_> {
    fn handle_host_event(&mut self, event: HostEvent) {
        match event {
            HostEvent::Stop => self.end = Some(End::Stopped),
            HostEvent::Reload => self.host.loader.ask(Asked::Signal),
            HostEvent::Loaded(loaded) => self.handle_loaded(*loaded),
            HostEvent::Call(call) => self.answer(call),
            HostEvent::Election(election::Event::Lost { reason }) => {
                self.supersede(&reason.to_string())
            }
            HostEvent::Election(election::Event::Problem(problem)) => {
                if let Some(redundant) = &mut self.host.redundant {
                    redundant.set_problem(problem);
                }
            }
            HostEvent::Election(_) => {}
            HostEvent::Timeout => {
                let now = clock::now();
                self.read_wall_clock(now);
                self.key_server.handle_timeout(now);
                self.look_at_certificates(now);
            }
        }
    }

    /// Whether it may send what is written: nobody else may have been elected.
    fn may_send(&self, now: BootTime) -> bool {
        self.term.as_ref().is_none_or(|term| term.validity.holds(now))
    }

    fn supersede(&mut self, reason: &str) {
        if self.end.is_none() {
            tracing::warn!(event = "superseded", reason, "key server is no longer active");
            self.end = Some(End::Superseded);
        }
    }

    /// Writes what there is to write, if the end allows it.
    async fn finish(mut self, end: End) -> End {
        if matches!(end, End::Superseded) {
            if let Some(redundant) = &self.host.redundant {
                redundant.election.resign();
            }
            self.refuse_answers("another key server was elected");
            return end;
        }
        let limit = tokio::time::Instant::now() + LAST_WRITE;
        loop {
            self.save();
            let Some(writer) = self.writer.as_mut().filter(|writer| !writer.is_idle()) else {
                return end;
            };
            match tokio::time::timeout_at(limit, writer.next()).await {
                Ok(Ok(())) => self.handle_written(Ok(())),
                Ok(failed) => {
                    self.handle_written(failed);
                    return end;
                }
                Err(_) => return end,
            }
        }
    }

    /// What time it is, for certificates.
    fn read_wall_clock(&mut self, now: BootTime) {
        self.key_server.set_wall_clock(WallClock::new(now, clock::wall().as_secs()));
    }

    /// Tells once of everything that ends soon or has ended.
    fn look_at_certificates(&mut self, now: BootTime) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + CERTIFICATE_INTERVAL;
        let problems = self.key_server.problems(now);
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!(event = "certificate-problem", reason = %problem, "certificate needs attention");
        }
        self.problems = problems;
    }

    fn handle_datagram(&mut self, source: SocketAddr, local: SocketAddr, octets: &[u8]) {
        let now = clock::now();
        self.read_wall_clock(now);
        if let Err(error) = self.key_server.handle_datagram(source, local, octets, now) {
            event_log::log_discard(source, &error, &mut self.host.limiter, now);
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
            event_log::log_discard(peer, &error, &mut self.host.limiter, now);
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
            self.host.not_reloaded = None;
            let groups = self.key_server.groups().len();
            event_log::log_reload(&changes, &warnings, groups);
            notify::status(&self.key_server.summary());
        }
        let (Asked::Call { call, .. } | Asked::Check { call: Some(call) }) = asked else { return };
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
            self.host.refuse_configuration(&defects);
        }
        if let Asked::Call { call, .. } = asked {
            call.answer(control::defects(&defects));
        }
    }

    /// Begins to write the state if there is something in it that must not be forgotten. Nothing
    /// leaves before it is written.
    fn save(&mut self) {
        let (now, Some(writer)) = (clock::now(), &mut self.writer) else {
            self.send_answers();
            return;
        };
        if writer.save(&mut self.key_server, now) {
            self.outbox.hold(&mut self.key_server);
            self.held_answers.append(&mut self.answers);
        } else if writer.is_idle() {
            self.send_answers();
        }
    }

    fn handle_written(&mut self, written: Result<(), StoreError>) {
        let now = clock::now();
        let error = match written {
            Ok(()) => {
                if self.host.not_written.take().is_some() {
                    tracing::info!(event = "state-written", "state is written again");
                }
                self.outbox.release();
                self.held_answers.drain(..).for_each(|(call, response)| call.answer(response));
                let took = self.writer.as_ref().and_then(Writer::took).unwrap_or_default();
                let slow = (took >= SLOW).then(|| {
                    format!(
                        "the last write of the state took {} ms; members wait for it",
                        took.as_millis()
                    )
                });
                if let Some(problem) = &slow
                    && let Some(pass) = self.host.limiter.admit("state-slow", now)
                {
                    let suppressed = pass.suppressed;
                    tracing::warn!(
                        event = "state-slow",
                        reason = problem,
                        suppressed,
                        "writing the state is slow; look at the disk, or at etcd and the network to it"
                    );
                }
                self.set_store_problem(slow);
                return;
            }
            Err(error) => error,
        };
        self.refuse_answers(&error.to_string());
        if matches!(error, StoreError::Superseded { .. }) {
            self.supersede(&error.to_string());
            return;
        }
        if let Some(pass) = self.host.limiter.admit("state-write-failed", now) {
            let suppressed = pass.suppressed;
            tracing::error!(event = "state-write-failed", %error, suppressed, "state not written; nothing is sent until it can be");
        }
        self.host.not_written = Some(error.to_string());
        self.set_store_problem(Some(error.to_string()));
    }

    fn set_store_problem(&mut self, problem: Option<String>) {
        if let Some(redundant) = &mut self.host.redundant {
            redundant.set_store_problem(problem);
        }
    }

    /// Commands took effect, and what says so cannot be written.
    fn refuse_answers(&mut self, reason: &str) {
        for (call, response) in self.held_answers.drain(..).chain(self.answers.drain(..)) {
            let is_refused = matches!(response, Response::Refused(_));
            let late = control::not_written(reason);
            call.answer(if is_refused { response } else { late });
        }
    }

    /// Sends what waits, of pushes a portion.
    fn send(&mut self, network: &Network) {
        let now = clock::now();
        let is_late = self.writer.as_ref().is_some_and(|writer| writer.is_late(now));
        if is_late || !self.may_send(now) {
            // Who asked repeats its request, and pushes wait.
            self.key_server.discard_answers();
            self.outbox.discard_answers();
        }
        if self.resumes_at.is_some_and(|at| at <= now) {
            self.resumes_at = None;
        }
        let mut left = if self.resumes_at.is_some() { 0 } else { PORTION };
        loop {
            // Asked for each: the process may have been stopped at any time.
            if !self.may_send(clock::now()) {
                return;
            }
            let is_written = self.writer.as_ref().is_none_or(Writer::is_idle);
            let may_push = is_written && left > 0;
            let next = self.outbox.next(&mut self.key_server, is_written, may_push);
            let Some(outgoing) = next else { return };
            if outgoing.is_push {
                left = left.saturating_sub(1);
                if left == 0 {
                    self.resumes_at = Some(now + PAUSE);
                }
            }
            if let Err(error) = network.send(&outgoing.transmit, &outgoing.path)
                && let Some(pass) = self.host.limiter.admit("cannot-send", clock::now())
            {
                let (peer, suppressed) = (outgoing.transmit.destination, pass.suppressed);
                tracing::warn!(event = "send-failed", %peer, %error, suppressed, "datagram not sent");
            }
        }
    }

    fn answer(&mut self, call: Call) {
        if let Request::Reload(ReloadArgument { dry_run }) = *call.request() {
            self.host.loader.ask(Asked::Call { call, dry_run });
            return;
        }
        let request = call.request();
        let now = clock::now();
        let mut response =
            control::answer(&mut self.key_server, request, &self.listen, self.host.started, now);
        if let Response::Server(snapshot) = &mut response {
            snapshot.redundancy = self.host.redundancy(self.writer.as_ref(), now);
            snapshot.problems.extend(self.host.problems());
        }
        if request.is_command() {
            match &response {
                Response::Done(done) => {
                    tracing::info!(event = "command", %request, result = done.message, "command carried out")
                }
                Response::Refused(refusal) => {
                    tracing::warn!(event = "command-refused", %request, reason = %refusal, "command refused")
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
            event_log::log(event, &mut self.host.limiter, now);
        }
    }

    fn send_answers(&mut self) {
        if !self.key_server.is_unsaved() {
            self.answers.drain(..).for_each(|(call, response)| call.answer(response));
        }
    }
}

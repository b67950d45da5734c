//! What there is of the daemon in either role: signals, the control socket, the time, the
//! configuration's file, and what is known of the other servers.

use std::net::SocketAddr;
use std::path::PathBuf;

use ::control::key_server::{Redundancy, ServerRole};
use ::control::server::Call;
use ::control::socket::{Access, Listener};
use anyhow::Context;
use daemon::clock::{self, Timer};
use daemon::limit::LogLimiter;
use daemon::notify;
use ike::BootTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{Config, Fixed};
use crate::etcd::Settings;
use crate::etcd::election::{self, Election, ElectionError};
use crate::event_log;
use crate::loader::{Loaded, Loader};
use crate::writer::Writer;

/// Questions that wait for the loop.
const CALLS: usize = 16;

/// What happened to the daemon, not to the key server.
pub(super) enum HostEvent {
    Stop,
    Reload,
    Loaded(Box<Loaded>),
    Call(Call),
    Election(election::Event),
    /// The deadline has come.
    Timeout,
}

pub(super) struct Host {
    calls: mpsc::Receiver<Call>,
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    timer: Timer,
    next_watchdog: Option<BootTime>,
    pub(super) loader: Loader,
    pub(super) started: BootTime,
    pub(super) limiter: LogLimiter,
    /// The addresses of the configuration.
    pub(super) listen: Vec<SocketAddr>,
    /// Where several servers are one.
    pub(super) redundant: Option<Redundant>,
    /// Why the state could not be written when that was tried last.
    pub(super) not_written: Option<String>,
    /// Why the configuration that was read last was not taken over.
    pub(super) not_reloaded: Option<String>,
}

/// What is known of the servers that are one with this one.
pub(super) struct Redundant {
    pub(super) settings: Settings,
    pub(super) election: Election,
    pub(super) role: ServerRole,
    since: BootTime,
    pub(super) active: Option<String>,
    /// What is wrong with the election.
    problem: Option<String>,
    /// What is wrong with the state.
    store_problem: Option<String>,
}

impl Redundant {
    pub(super) fn become_role(&mut self, role: ServerRole, active: Option<String>) {
        if self.role != role {
            self.since = clock::now();
        }
        (self.role, self.active) = (role, active);
    }

    /// What is wrong with the election now.
    pub(super) fn set_problem(&mut self, problem: Option<ElectionError>) {
        let problem = problem.map(|problem| problem.to_string());
        if let Some(problem) = &problem {
            tracing::warn!(
                event = "etcd-problem",
                reason = problem,
                "etcd does not serve this key server"
            );
        } else if self.problem.is_some() {
            tracing::info!(event = "etcd-problem-over", "etcd serves this key server again");
        }
        self.problem = problem;
    }

    /// What is wrong with the state now, which is logged elsewhere.
    pub(super) fn set_store_problem(&mut self, problem: Option<String>) {
        self.store_problem = problem;
    }
}

impl Host {
    pub(super) fn new(config: &Config, path: PathBuf) -> anyhow::Result<Self> {
        let started = clock::now();
        let loader = Loader::new(path, Fixed::of(config));
        let redundant = match (&config.etcd, &config.state_key) {
            (Some(settings), Some(key)) => {
                let election = Election::start(settings.clone(), key).context("a thread")?;
                Some(Redundant {
                    settings: settings.clone(),
                    election,
                    role: ServerRole::Standby,
                    since: started,
                    active: None,
                    problem: None,
                    store_problem: None,
                })
            }
            _ => None,
        };
        Ok(Self {
            calls: answer_calls(config.control_socket.clone())?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            reload: signal(SignalKind::hangup()).context("SIGHUP")?,
            timer: Timer::new().context("timer")?,
            next_watchdog: notify::watchdog_interval().map(|interval| started + interval),
            loader,
            started,
            limiter: LogLimiter::default(),
            listen: config.listen.clone(),
            redundant,
            not_written: None,
            not_reloaded: None,
        })
    }

    /// What happens next; [`HostEvent::Timeout`] at `deadline`. Cancel safe.
    ///
    /// # Errors
    /// The timer fails.
    pub(super) async fn next(&mut self, deadline: Option<BootTime>) -> anyhow::Result<HostEvent> {
        let deadline = deadline.into_iter().chain(self.next_watchdog).min();
        let election = async {
            match &mut self.redundant {
                Some(redundant) => redundant.election.next().await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            biased;
            _ = self.terminate.recv() => HostEvent::Stop,
            _ = self.interrupt.recv() => HostEvent::Stop,
            _ = self.reload.recv() => HostEvent::Reload,
            Some(loaded) = self.loader.next() => HostEvent::Loaded(Box::new(loaded)),
            Some(call) = self.calls.recv() => HostEvent::Call(call),
            Some(event) = election => HostEvent::Election(event),
            slept = self.timer.sleep_until(deadline) => {
                slept.context("timer")?;
                HostEvent::Timeout
            }
        })
    }

    /// Tells the service manager that the loop goes round.
    pub(super) fn feed_watchdog(&mut self) {
        if let (Some(interval), Some(due)) = (notify::watchdog_interval(), self.next_watchdog)
            && clock::now() >= due
        {
            notify::watchdog();
            self.next_watchdog = Some(clock::now() + interval);
        }
    }

    /// What an operator should mend, where it is not said of one of several servers.
    pub(super) fn problems(&self) -> Vec<String> {
        let of_state = self.not_written.iter().filter(|_| self.redundant.is_none());
        let problem = |error: &String| {
            format!("the state cannot be written, and nothing is sent until it can be: {error}")
        };
        let refused = self.not_reloaded.iter().map(|defect| {
            format!("configuration not reloaded, the previous one stays in use: {defect}")
        });
        of_state.map(problem).chain(refused).collect()
    }

    /// Tells of a configuration that is not taken over, in the log, to the service manager, and as
    /// a problem until one is.
    pub(super) fn refuse_configuration(&mut self, defects: &[&str]) {
        event_log::log_defects(defects);
        // `systemctl reload` itself only sends a signal: this is where its failure is seen.
        let first = defects.first().copied().unwrap_or_default();
        notify::status(&format!(
            "configuration not reloaded, the previous one stays in use: {first}"
        ));
        self.not_reloaded = Some(first.to_owned());
    }

    /// What `gdoictl show server` says of the other servers.
    pub(super) fn redundancy(&self, writer: Option<&Writer>, now: BootTime) -> Option<Redundancy> {
        let redundant = self.redundant.as_ref()?;
        let took = writer.and_then(Writer::took);
        Some(Redundancy {
            role: redundant.role,
            name: redundant.settings.name.clone(),
            active: redundant.active.clone(),
            store: redundant.settings.place(),
            since_seconds: now.saturating_since(redundant.since).as_secs(),
            last_write_milliseconds: took
                .map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            problem: redundant.problem.clone().or_else(|| redundant.store_problem.clone()),
        })
    }

    /// Lets another server be elected at once.
    pub(super) fn finish(self) {
        if let Some(redundant) = self.redundant {
            redundant.election.finish();
        }
    }
}

fn answer_calls(path: PathBuf) -> anyhow::Result<mpsc::Receiver<Call>> {
    let listener = Listener::bind(&path)?;
    let (sender, calls) = mpsc::channel(CALLS);
    tokio::spawn(::control::server::serve(listener, Access::own(), sender));
    Ok(calls)
}

/// Addresses as one text.
pub(super) fn addresses(listen: &[SocketAddr]) -> String {
    let texts: Vec<String> = listen.iter().map(SocketAddr::to_string).collect();
    texts.join(", ")
}

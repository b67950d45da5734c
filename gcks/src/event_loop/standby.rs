//! Until this server is active: at once where it is the only one, else when etcd elects it. A
//! standby server binds no port, so that who asks it hears that nobody is there.

use std::time::Duration;

use ::control::key_server::ServerRole;
use ::control::server::Call;
use ::control::{ErrorCode, Refusal, ReloadArgument, Request, Response, ServerSnapshot};
use daemon::clock;
use daemon::notify;
use ike::BootTime;
use tokio::task::JoinHandle;

use super::host::{Host, HostEvent, addresses};
use crate::config::Config;
use crate::control;
use crate::etcd::election::{self, Term};
use crate::group::key_generation::OsEntropy;
use crate::group::signing_key::SigningKeys;
use crate::loader::{Asked, Loaded, Ready};
use crate::persistence::{self, Opened};
use crate::server::KeyServer;
use crate::sockets::Network;
use crate::writer::Writer;

/// After a state that could not be taken over.
const AGAIN: Duration = Duration::from_secs(1);

/// What an active server begins with.
pub(super) struct Turn {
    pub(super) key_server: KeyServer<OsEntropy>,
    pub(super) writer: Option<Writer>,
    pub(super) network: Network,
    /// Where several servers are one.
    pub(super) term: Option<Term>,
}

/// `None` when the daemon is to stop. Without `config` the file is read.
pub(super) async fn run(host: &mut Host, config: Option<Config>) -> anyhow::Result<Option<Turn>> {
    match (&host.redundant, config) {
        (None, Some(config)) => alone(config, host.started).map(Some),
        // Nobody takes the only server's place.
        (None, None) => Ok(None),
        (Some(_), config) => Standby::new(host, config)?.run().await,
    }
}

fn alone(config: Config, now: BootTime) -> anyhow::Result<Turn> {
    let network = Network::bind(&config.listen, config.receive_buffer)?;
    let keys = crate::group::signing_key::load_all(&config.groups)?;
    let opened = config.keep_state.then(|| persistence::open(&config, None)).transpose()?;
    let (key_server, writer) = persistence::start(config, &keys, opened, now)?;
    Ok(Turn { key_server, writer, network, term: None })
}

/// A state that was read by another thread, for the configuration that comes back with it.
type Opening = JoinHandle<(Config, anyhow::Result<(SigningKeys, Opened)>)>;

struct Standby<'h> {
    host: &'h mut Host,
    /// `None` while it is read.
    config: Option<Config>,
    /// The term, and the state that is read for it.
    opening: Option<(Term, Opening)>,
    /// When it stands for election again.
    stands_at: Option<BootTime>,
}

impl<'h> Standby<'h> {
    fn new(host: &'h mut Host, config: Option<Config>) -> anyhow::Result<Self> {
        match &config {
            // An address that another program has is better known now.
            Some(config) => drop(Network::bind_ahead(&config.listen, config.receive_buffer)?),
            None => host.loader.ask(Asked::Check { call: None }),
        }
        let stands_at = Some(clock::now());
        Ok(Self { host, config, opening: None, stands_at })
    }

    async fn run(mut self) -> anyhow::Result<Option<Turn>> {
        self.tell_standby(None);
        loop {
            let now = clock::now();
            if self.config.is_some() && self.stands_at.is_some_and(|at| at <= now) {
                self.stands_at = None;
                self.with_election(|election| election.stand());
            }
            let deadline = self.stands_at.filter(|_| self.config.is_some());
            let opened = async {
                match &mut self.opening {
                    Some((_, opening)) => opening.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = self.host.next(deadline) => match event? {
                    HostEvent::Stop => return Ok(None),
                    HostEvent::Reload => self.host.loader.ask(Asked::Check { call: None }),
                    HostEvent::Loaded(loaded) => self.handle_loaded(*loaded),
                    HostEvent::Call(call) => self.answer(call),
                    HostEvent::Election(event) => self.handle_election(event),
                    HostEvent::Timeout => {}
                },
                opened = opened => {
                    let (config, opened) = opened?;
                    if let Some(turn) = self.take_over(config, opened) {
                        return Ok(Some(turn));
                    }
                }
            }
            self.host.feed_watchdog();
        }
    }

    fn with_election(&mut self, act: impl FnOnce(&election::Election)) {
        if let Some(redundant) = &self.host.redundant {
            act(&redundant.election);
        }
    }

    fn tell_standby(&mut self, active: Option<String>) {
        let Some(redundant) = &mut self.host.redundant else { return };
        let name = active.clone().unwrap_or_else(|| "not known".to_owned());
        redundant.become_role(ServerRole::Standby, active);
        tracing::info!(event = "standby", active = name, "key server is standby");
        notify::ready(&format!("standby; active is {name}"));
    }

    fn handle_election(&mut self, event: election::Event) {
        match event {
            election::Event::Standby { active } => self.tell_standby(Some(active)),
            election::Event::Elected(term) => match self.config.take() {
                Some(config) => {
                    let of_term = term.clone();
                    let open = move || {
                        let opened = open(&config, &of_term);
                        (config, opened)
                    };
                    self.opening = Some((term, tokio::task::spawn_blocking(open)));
                }
                // Stood for election with one; nothing else takes it away.
                None => self.with_election(election::Election::resign),
            },
            // What is being opened fails by its own.
            election::Event::Lost { .. } => {}
            election::Event::Problem(problem) => {
                if let Some(redundant) = &mut self.host.redundant {
                    redundant.set_problem(problem);
                }
            }
        }
    }

    fn take_over(
        &mut self,
        config: Config,
        opened: anyhow::Result<(SigningKeys, Opened)>,
    ) -> Option<Turn> {
        let (term, _) = self.opening.take()?;
        let (listen, buffer) = (config.listen.clone(), config.receive_buffer);
        let started = opened.and_then(|(keys, opened)| {
            let network = Network::bind_ahead(&listen, buffer)?;
            Ok((network, keys, opened))
        });
        let started = match started {
            Ok((network, keys, opened)) => {
                persistence::start(config, &keys, Some(opened), clock::now())
                    .map(|(key_server, writer)| (key_server, writer, network))
                    .map_err(|error| (None, error))
            }
            Err(error) => Err((Some(config), error)),
        };
        match started {
            Ok((key_server, writer, network)) => {
                if let Some(redundant) = &mut self.host.redundant {
                    redundant.set_store_problem(None);
                }
                Some(Turn { key_server, writer, network, term: Some(term) })
            }
            Err((config, error)) => {
                let problem = ::control::with_causes(error.as_ref());
                tracing::error!(
                    event = "take-over-failed",
                    error = problem,
                    "key server was elected and cannot be active; another one may be"
                );
                if let Some(redundant) = &mut self.host.redundant {
                    redundant.set_store_problem(Some(problem));
                }
                if config.is_none() {
                    self.host.loader.ask(Asked::Check { call: None });
                }
                self.config = config;
                self.with_election(election::Election::resign);
                self.stands_at = Some(clock::now() + AGAIN);
                None
            }
        }
    }

    fn handle_loaded(&mut self, loaded: Loaded) {
        let Loaded { asked, result } = loaded;
        let call = match asked {
            Asked::Call { call, .. } => Some(call),
            Asked::Check { call } => call,
            Asked::Signal => None,
        };
        let response = match result {
            Ok(Ready { config, held, warnings, .. }) => {
                // It takes effect with the election.
                if self.opening.is_none() {
                    self.config = Some(config);
                }
                self.host.not_reloaded = None;
                control::configuration(false, warnings, &held)
            }
            Err(error) => {
                let text = error.to_string();
                let defects: Vec<&str> = text.lines().collect();
                self.host.refuse_configuration(&defects);
                control::defects(&defects)
            }
        };
        if let Some(call) = call {
            call.answer(response);
        }
    }

    fn answer(&mut self, call: Call) {
        let now = clock::now();
        let response = match call.request() {
            Request::ShowServer => Response::Server(Box::new(ServerSnapshot {
                program_version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_seconds: now.saturating_since(self.host.started).as_secs(),
                listen: self.host.listen.clone(),
                redundancy: self.host.redundancy(None, now),
                problems: self.host.problems(),
                ..ServerSnapshot::default()
            })),
            Request::Reload(ReloadArgument { .. }) => {
                self.host.loader.ask(Asked::Check { call: Some(call) });
                return;
            }
            request if request.served_by() == ::control::Daemon::Server => {
                let active = self.host.redundant.as_ref().and_then(|known| known.active.clone());
                let active = active.unwrap_or_else(|| "the active key server".to_owned());
                let message = format!("this key server is standby; ask {active}");
                Response::Refused(Refusal::new(ErrorCode::NotPossible, message))
            }
            request => Response::Refused(Refusal::not_served_here("gcks", request)),
        };
        call.answer(response);
    }
}

fn open(config: &Config, term: &Term) -> anyhow::Result<(SigningKeys, Opened)> {
    let opened = persistence::open(config, Some(term))?;
    let keys = persistence::signing_keys(config, &opened, clock::now())?;
    Ok((keys, opened))
}

/// Tells that the server serves.
pub(super) fn tell_ready(host: &mut Host, turn: &Turn) {
    let groups = turn.key_server.groups().len();
    let members = turn.key_server.members().len();
    let listen = addresses(&turn.network.local());
    tracing::info!(event = "started", groups, members, listen, "key server is ready");
    if let Some(redundant) = &mut host.redundant {
        let name = redundant.settings.name.clone();
        tracing::info!(event = "active", "key server is active");
        redundant.become_role(ServerRole::Active, Some(name));
    }
    notify::ready(&turn.key_server.summary());
}

//! One task that owns everything: datagrams, kernel events, timers, requests and signals come in
//! one by one.

mod settle;

use core::time::Duration;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ::control::server::{Call, serve};
use ::control::socket::{Access, Listener};
use ::control::{GroupArgument, Request};
use anyhow::Context as _;
use daemon::limit::LogLimiter;
use daemon::{clock, notify};
use ike::BootTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};
use xfrm::kernel::event::KernelEvent;
use xfrm::kernel::netlink::EventSource;
use xfrm::{Error, Kernel, Parts};

use crate::checkpoint::{self, Checkpoint};
use crate::config::check::{Machine, load};
use crate::config::placement::{Misplaced, misplaced};
use crate::config::{Config, Group};
use crate::control;
use crate::dataplane::{Cause, Dataplane};
use crate::exit::Ending;
use crate::member::Member;
use crate::membership::Seeds;
use crate::membership::local_interface::{self, Interfaces};
use crate::show::snapshot::Surroundings;
use crate::sockets::{Received, Sockets};
use crate::tunnel::{self, IKE_PORT, Tunnels};
use crate::{exit, privileges, show};

/// The rest of a burst of kernel events is waited for: a flush reports every entry.
const BURST: Duration = Duration::from_millis(10);
/// Changes of routes are looked at this often at most.
const ROUTE_BURST: Duration = Duration::from_secs(1);
/// How often the machine's settings are checked.
const ENVIRONMENT_INTERVAL: Duration = Duration::from_secs(30);
/// Requests of gdoictl that may wait.
const CALLS: usize = 8;

/// Pause before kernel events or datagrams are read again after a failure, so that a lasting one
/// does not eat the processor.
const READ_PAUSE: Duration = Duration::from_millis(200);

/// What kernel events have left to do, once their burst is over.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    interfaces: bool,
    repair: bool,
    at: Option<BootTime>,
}

/// Which sockets a datagram came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Gdoi,
    Ike,
}

/// Makes a source of seeds for a group.
pub type SeedsOf = Box<dyn FnMut(&Group) -> (Seeds, u64)>;

pub struct EventLoop<K: Kernel> {
    path: PathBuf,
    seeds: SeedsOf,
    config: Config,
    member: Member,
    dataplane: Dataplane<K>,
    events: EventSource,
    sockets: Sockets,
    tunnels: Tunnels,
    /// Sockets of IKE's own port, for tunnels.
    ike: Sockets,
    checkpoint: Checkpoint,
    calls: mpsc::Receiver<Call>,
    limiter: LogLimiter,
    due: Due,
    /// The kernel is to be compared with the desired state, behind the change that may be due.
    repair: Option<Cause>,
    /// Reading failed: nothing is read before.
    events_paused_until: Option<BootTime>,
    sockets_paused_until: Option<BootTime>,
    /// What was wrong with the machine at the start, and what is wrong with its settings now.
    problems: Vec<String>,
    settings: Vec<String>,
    /// Interfaces that are not where the configuration takes them for.
    misplaced: BTreeSet<Misplaced>,
    next_environment: BootTime,
    status_line: String,
}

/// Listens on the control socket. Done before anything is touched.
///
/// # Errors
/// The socket cannot be had; the error names the remedy.
pub fn open_control(path: &Path) -> anyhow::Result<mpsc::Receiver<Call>> {
    let listener = Listener::bind(path).context("control socket")?;
    let (sender, calls) = mpsc::channel(CALLS);
    tokio::spawn(serve(listener, Access::own(), sender));
    Ok(calls)
}

impl<K: Kernel> EventLoop<K> {
    /// Installs fail-close policies and guards, then opens the sockets. Nothing has been sent when
    /// it returns.
    ///
    /// # Errors
    /// Policies and guards could not be installed, or UDP is not to be had. What is in the kernel
    /// stays there.
    pub async fn start(
        (path, config): (PathBuf, Config),
        mut seeds: SeedsOf,
        kernel: K,
        events: EventSource,
        interfaces: &Interfaces,
        calls: mpsc::Receiver<Call>,
        problems: Vec<String>,
    ) -> anyhow::Result<Self> {
        let now = clock::now();
        let mut member = Member::new(&config, &mut seeds, now);
        let mut dataplane = Dataplane::new(kernel, now);
        let mut tunnels = Tunnels::default();
        tunnels.configure(&config.tunnels, now);
        if checkpoint::remove_orphan(&config).context("a sealed state without a state key")? {
            info!(
                event = "sealed-state-removed",
                "no state key is configured; removed the sealed state of an earlier run"
            );
        }
        let mut checkpoint = Checkpoint::new(&config, clock::boot_identifier())?;
        checkpoint.restore(&mut member, &mut dataplane, clock::wall(), now).await;
        checkpoint.before_change(&member, now);
        member.handle_interfaces(interfaces, now);
        if let Some(outcome) = member.poll_desired(now) {
            for unusable in &outcome.unusable {
                error!(event = "policy-unusable", %unusable, "policy of the groups cannot be installed");
            }
            let mut desired =
                outcome.desired.context("the blocks cannot be made out of this configuration")?;
            tunnels.add_to(&mut desired, now);
            dataplane.apply(desired, now).await.context(
                "fail-close policies and guards cannot be installed; nothing was removed",
            )?;
        }
        let mut sockets = Sockets::new(config.local_port);
        sockets.set_vrfs(member.vrfs());
        if let Some(error) = sockets.set(&member.local_addresses(), now).into_iter().next() {
            return Err(error).context("registrations cannot leave; blocks stay in place");
        }
        // An address that comes later, or an IKE daemon that goes, is waited for.
        let ike = Sockets::new(IKE_PORT);
        let misplaced = misplaced(&config.groups, interfaces);
        Ok(Self {
            path,
            seeds,
            config,
            member,
            dataplane,
            events,
            sockets,
            tunnels,
            ike,
            checkpoint,
            calls,
            limiter: LogLimiter::default(),
            due: Due::default(),
            repair: None,
            events_paused_until: None,
            sockets_paused_until: None,
            problems,
            settings: Vec::new(),
            misplaced,
            next_environment: now + ENVIRONMENT_INTERVAL,
            status_line: String::new(),
        })
    }

    /// Runs until a signal ends it in order. Returns whether the end worked.
    ///
    /// # Errors
    /// The loop cannot go on: no timers, no signals.
    pub async fn run(mut self) -> anyhow::Result<bool> {
        let mut timer = clock::Timer::new().context("boot-time timer")?;
        let mut terminate = handler(SignalKind::terminate())?;
        let mut interrupt = handler(SignalKind::interrupt())?;
        let mut hangup = handler(SignalKind::hangup())?;
        let mut restart = handler(SignalKind::user_defined1())?;
        let watchdog = notify::watchdog_interval();
        let mut next_watchdog = watchdog.map(|interval| clock::now() + interval);

        // With where the groups' traffic leaves.
        self.read_interfaces(clock::now()).await;
        self.settle().await;
        self.status_line = show::log::line(&self.member, false, clock::now());
        notify::ready(&self.status_line);
        info!(event = "started", "fail-close policies and guards are installed; registering");

        let ending = loop {
            let deadline = [self.poll_timeout(), next_watchdog].into_iter().flatten().min();
            tokio::select! {
                received = self.sockets.receive(), if self.sockets_paused_until.is_none() => {
                    self.handle_received(received, Port::Gdoi);
                }
                received = self.ike.receive(), if self.sockets_paused_until.is_none() => {
                    self.handle_received(received, Port::Ike);
                }
                event = self.events.next(), if self.events_paused_until.is_none() => {
                    self.handle_kernel_event(event);
                }
                Some(call) = self.calls.recv() => self.handle_call(call).await,
                slept = timer.sleep_until(deadline) => slept.context("boot-time timer")?,
                _ = terminate.recv() => break Ending::Stop,
                _ = interrupt.recv() => break Ending::Stop,
                _ = restart.recv() => break Ending::Restart,
                _ = hangup.recv() => self.reload().await,
            }
            self.handle_timeout().await;
            self.settle().await;
            self.show_status();
            if let (Some(interval), Some(at)) = (watchdog, next_watchdog) {
                let now = clock::now();
                if at <= now {
                    notify::watchdog();
                    next_watchdog = Some(now + interval);
                }
            }
        };

        notify::stopping();
        info!(event = "stopping", restart = ending == Ending::Restart, "stopping in order");
        let now = clock::now();
        let sockets = (&self.sockets, &self.ike);
        let (member, tunnels) = (&mut self.member, &mut self.tunnels);
        Ok(exit::leave(member, tunnels, sockets, &mut self.dataplane, ending, now).await)
    }

    fn poll_timeout(&self) -> Option<BootTime> {
        let fixed = [Some(self.dataplane.poll_timeout()), Some(self.next_environment)];
        let now = clock::now();
        let others = [
            self.member.poll_timeout(),
            self.sockets.poll_timeout(),
            self.tunnels.poll_timeout(now),
            self.ike.poll_timeout(),
            self.due.at,
        ];
        let pauses = [self.events_paused_until, self.sockets_paused_until];
        fixed.into_iter().chain(others).chain(pauses).flatten().min()
    }

    fn handle_received(&mut self, received: Received, port: Port) {
        let now = clock::now();
        match received {
            Received::Datagram { source, local, octets } => {
                let handled = match port {
                    Port::Gdoi => self.member.handle_datagram(source, local, &octets, now),
                    Port::Ike => {
                        let handled = self.tunnels.handle_datagram(source, local, &octets, now);
                        handled.map_err(gdoi::error::Error::from)
                    }
                };
                let Err(error) = handled else { return };
                let reason = error.reason();
                if let Some(pass) = self.limiter.admit(reason, now) {
                    let suppressed = pass.suppressed;
                    info!(event = "datagram-discarded", reason, suppressed, "datagram discarded");
                    debug!(
                        event = "datagram-discarded",
                        reason,
                        %source,
                        %error,
                        length = octets.len(),
                        "datagram discarded"
                    );
                }
            }
            Received::Unreachable(unreachable) => match port {
                Port::Gdoi => self.member.handle_unreachable(unreachable, now),
                Port::Ike => self.tunnels.handle_unreachable(unreachable.destination),
            },
            Received::Failed(error) => {
                self.sockets_paused_until = Some(now + READ_PAUSE);
                if let Some(pass) = self.limiter.admit("receive-failed", now) {
                    let suppressed = pass.suppressed;
                    warn!(event = "receive-failed", %error, suppressed, "receiving failed");
                }
            }
        }
    }

    fn handle_kernel_event(&mut self, event: Result<KernelEvent, Error>) {
        let now = clock::now();
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.handle_events_failed(&error, now);
                return;
            }
        };
        self.dataplane.invalidate(event.invalidates());
        match event {
            KernelEvent::Flushed(_)
            | KernelEvent::Changed { .. }
            | KernelEvent::SaExpired { .. } => {
                if let KernelEvent::SaExpired { id, hard } = &event {
                    self.tunnels.handle_limit(id, *hard, now);
                }
                self.due.repair = true;
            }
            KernelEvent::LinkChanged | KernelEvent::AddressChanged => self.due.interfaces = true,
            KernelEvent::RouteChanged => {
                self.due.interfaces = true;
                // Routing protocols change routes all the time.
                self.due.at.get_or_insert(now + ROUTE_BURST);
                return;
            }
            KernelEvent::Overrun => {
                if let Some(pass) = self.limiter.admit("kernel-events-lost", now) {
                    warn!(
                        event = "kernel-events-lost",
                        suppressed = pass.suppressed,
                        "kernel events were lost; reading interfaces and entries again"
                    );
                }
                self.due.repair = true;
                self.due.interfaces = true;
            }
        }
        let soon = now + BURST;
        self.due.at = Some(self.due.at.map_or(soon, |at| at.min(soon)));
    }

    /// Nothing reports changes now: what was read before cannot be relied on.
    fn handle_events_failed(&mut self, error: &Error, now: BootTime) {
        self.dataplane.invalidate(Parts::ALL);
        self.events_paused_until = Some(now + READ_PAUSE);
        if let Some(pass) = self.limiter.admit("kernel-events-failed", now) {
            error!(
                event = "kernel-events-failed",
                %error,
                suppressed = pass.suppressed,
                "kernel events cannot be read; checking the kernel every 30 s instead"
            );
        }
    }

    async fn handle_call(&mut self, call: Call) {
        let now = clock::now();
        let statistics = match self.dataplane.statistics(now).await {
            Ok(statistics) => statistics,
            Err(error) => {
                warn!(event = "counters-unreadable", %error, "kernel counters cannot be read");
                Default::default()
            }
        };
        let surroundings = Surroundings {
            statistics,
            problems: self.problems(),
            repairs: self.dataplane.repairs(),
        };
        let response = match call.request() {
            Request::Register(GroupArgument { group }) => {
                control::register(&mut self.member, group, now)
            }
            Request::ShowTunnel => {
                let snapshot = tunnel::show::snapshot(&self.tunnels, &surroundings.statistics, now);
                ::control::Response::Tunnels(Box::new(snapshot))
            }
            request => control::answer(request, &self.member, &surroundings, now),
        };
        call.answer(response);
    }

    /// Everything that an operator should mend, each with its remedy.
    fn problems(&self) -> Vec<String> {
        let settings = self.settings.iter().filter(|problem| !self.problems.contains(problem));
        let missing = self.dataplane.missing_interfaces().iter();
        let missing = missing.map(|name| format!("interface {name} is missing: create it"));
        let misplaced = self.misplaced.iter().map(ToString::to_string);
        self.problems
            .iter()
            .chain(settings)
            .cloned()
            .chain(self.dataplane.last_error().map(str::to_owned))
            .chain(self.member.problems())
            .chain(self.dataplane.foreign().map(ToString::to_string))
            .chain(self.dataplane.foreign_policy(clock::now()).map(str::to_owned))
            .chain(missing)
            .chain(misplaced)
            .collect()
    }

    async fn handle_timeout(&mut self) {
        let now = clock::now();
        self.events_paused_until.take_if(|until| *until <= now);
        self.sockets_paused_until.take_if(|until| *until <= now);
        self.member.handle_timeout(now);
        self.tunnels.handle_timeout(now);
        if self.due.at.is_some_and(|at| at <= now) {
            let due = std::mem::take(&mut self.due);
            if due.interfaces {
                self.read_interfaces(now).await;
            }
            self.repair = Some(if due.repair { Cause::Foreign } else { Cause::Interfaces });
        }
        if self.next_environment <= now {
            self.next_environment = now + ENVIRONMENT_INTERVAL;
            self.check_settings();
            self.read_interfaces(now).await;
        }
    }

    /// Reads the configuration again and changes over to the difference. A file with a defect
    /// changes nothing.
    async fn reload(&mut self) {
        let now = clock::now();
        let interfaces = match local_interface::read(&self.config.groups).await {
            Ok(interfaces) => interfaces,
            Err(error) => {
                error!(
                    event = "reload-failed",
                    %error,
                    "interfaces cannot be read; the previous configuration stays in use"
                );
                return;
            }
        };
        let loaded = match load(&self.path, &Machine::this(Some(&interfaces))) {
            Ok(loaded) => loaded,
            Err(report) => {
                error!(
                    event = "reload-failed",
                    file = %self.path.display(),
                    "configuration has errors; the previous one stays in use"
                );
                for line in report.to_string().lines() {
                    error!(event = "configuration-error", error = %line, "configuration error");
                }
                return;
            }
        };
        for warning in &loaded.warnings {
            warn!(event = "configuration-warning", %warning, "configuration warning");
        }
        let config = loaded.value;
        if !config.is_one_process_with(&self.config) {
            warn!(
                event = "restart-needed",
                "control-socket, state-directory, state key and local-port change with a restart \
                 only"
            );
        }
        let changed = config.groups != self.config.groups;
        self.member.reload(&config, &mut self.seeds, &interfaces, now);
        let changed = changed || config.tunnels != self.config.tunnels;
        self.tunnels.configure(&config.tunnels, now);
        self.config.groups = config.groups;
        self.config.tunnels = config.tunnels;
        self.check_settings();
        self.check_placement(&interfaces);
        let groups = self.config.groups.len();
        info!(event = "configuration-reloaded", changed, groups, "configuration reloaded");
    }

    async fn read_interfaces(&mut self, now: BootTime) {
        match local_interface::read(&self.config.groups).await {
            Ok(interfaces) => {
                self.check_placement(&interfaces);
                self.member.handle_interfaces(&interfaces, now);
            }
            Err(error) => {
                if let Some(pass) = self.limiter.admit("interfaces-unreadable", now) {
                    error!(
                        event = "interfaces-unreadable",
                        %error,
                        suppressed = pass.suppressed,
                        "interfaces cannot be read; using the last known ones"
                    );
                }
            }
        }
    }

    fn check_placement(&mut self, interfaces: &Interfaces) {
        let misplaced = misplaced(&self.config.groups, interfaces);
        for one in misplaced.difference(&self.misplaced) {
            warn!(event = "interface-misplaced", problem = %one, "interface is on the wrong side");
        }
        self.misplaced = misplaced;
    }

    fn check_settings(&mut self) {
        let problems: Vec<String> =
            privileges::wrong_settings(&self.config).iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|problem| !self.settings.contains(problem)) {
            error!(event = "wrong-setting", %problem, "kernel setting stops group traffic");
        }
        self.settings = problems;
    }
}

fn handler(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("signals cannot be handled")
}

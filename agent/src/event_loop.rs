//! One task that owns everything: datagrams, kernel events, timers, requests and signals come in
//! one by one.

use core::time::Duration;
use std::path::{Path, PathBuf};

use ::control::server::{Call, serve};
use ::control::socket::{Access, Listener};
use ::control::{GroupArgument, Request};
use anyhow::Context as _;
use daemon::limit::LogLimiter;
use daemon::{clock, notify};
use gdoi::BootTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};
use xfrm::kernel::event::KernelEvent;
use xfrm::kernel::netlink::EventSource;
use xfrm::reconcile::Changed;
use xfrm::{Error, Kernel, Parts};

use crate::checkpoint::{self, Checkpoint};
use crate::config::check::{Machine, load};
use crate::config::{Config, Group};
use crate::control;
use crate::dataplane::{Cause, Dataplane};
use crate::member::Member;
use crate::membership::Seeds;
use crate::membership::local_interface::Interfaces;
use crate::show::snapshot::Surroundings;
use crate::sockets::{Received, Sockets};
use crate::{exit, privileges, show};

/// The rest of a burst of kernel events is waited for: a flush reports every entry.
const BURST: Duration = Duration::from_millis(10);
/// Changes of routes are looked at this often at most.
const ROUTE_BURST: Duration = Duration::from_secs(1);
/// How often the machine's settings are looked at again.
const ENVIRONMENT_INTERVAL: Duration = Duration::from_secs(30);
/// Requests of gdoictl that may wait.
const CALLS: usize = 8;

/// What kernel events have left to do.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    facts: bool,
    repair: bool,
    at: Option<BootTime>,
}

/// Makes a source of seeds for a group.
pub type SeedsOf = Box<dyn FnMut(&Group) -> (Seeds, u64)>;

/// The running daemon.
pub struct EventLoop<K: Kernel> {
    path: PathBuf,
    seeds: SeedsOf,
    config: Config,
    member: Member,
    dataplane: Dataplane<K>,
    events: EventSource,
    sockets: Sockets,
    checkpoint: Checkpoint,
    calls: mpsc::Receiver<Call>,
    limiter: LogLimiter,
    due: Due,
    /// What was wrong with the machine at the start, and what is wrong with its settings now.
    problems: Vec<String>,
    settings: Vec<String>,
    next_environment: BootTime,
    status_line: String,
}

/// Listens on the control socket. Done before anything is touched: another agent that runs already
/// holds it.
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
    /// Puts blocks and guards into the kernel, then opens the sockets. Nothing has been sent when
    /// it returns.
    ///
    /// # Errors
    /// Blocks and guards could not be installed, or UDP is not to be had. What is in the kernel
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
        if checkpoint::remove_orphan(&config).context("a sealed state without a state key")? {
            info!("a sealed state of an earlier run is removed: no state key is configured");
        }
        let mut checkpoint = Checkpoint::new(&config, clock::boot_identifier())?;
        checkpoint.adopt(&mut member, &mut dataplane, clock::wall(), now).await;
        checkpoint.before_change(&member, now);
        member.handle_interfaces(interfaces, now);
        if let Some(outcome) = member.poll_desired(now) {
            for unusable in &outcome.unusable {
                error!(%unusable, "the groups cannot be protected");
            }
            let desired =
                outcome.desired.context("the blocks cannot be made out of this configuration")?;
            dataplane
                .apply(desired, now)
                .await
                .context("blocks and guards cannot be installed; nothing was removed")?;
        }
        let mut sockets = Sockets::new(config.local_port);
        if let Some(error) = sockets.set(&member.local_addresses(), now).into_iter().next() {
            return Err(error).context("registrations cannot leave; blocks stay in place");
        }
        Ok(Self {
            path,
            seeds,
            config,
            member,
            dataplane,
            events,
            sockets,
            checkpoint,
            calls,
            limiter: LogLimiter::default(),
            due: Due::default(),
            problems,
            settings: Vec::new(),
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
        let watchdog = notify::watchdog_interval();
        let mut next_watchdog = watchdog.map(|interval| clock::now() + interval);

        self.settle().await;
        self.status_line = show::log::line(&self.member, false, clock::now());
        notify::ready(&self.status_line);
        info!("blocks and guards are in place; registering");

        loop {
            let deadline = [self.poll_timeout(), next_watchdog].into_iter().flatten().min();
            tokio::select! {
                received = self.sockets.receive() => self.handle_received(received),
                event = self.events.next() => self.handle_kernel_event(event).await,
                Some(call) = self.calls.recv() => self.handle_call(call).await,
                slept = timer.sleep_until(deadline) => slept.context("boot-time timer")?,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
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
        }

        notify::stopping();
        info!("ending in order");
        Ok(exit::leave(&mut self.member, &self.sockets, &mut self.dataplane, clock::now()).await)
    }

    fn poll_timeout(&self) -> Option<BootTime> {
        let fixed = [Some(self.dataplane.poll_timeout()), Some(self.next_environment)];
        let others = [self.member.poll_timeout(), self.sockets.poll_timeout(), self.due.at];
        fixed.into_iter().chain(others).flatten().min()
    }

    fn handle_received(&mut self, received: Received) {
        let now = clock::now();
        match received {
            Received::Datagram { source, local, octets } => {
                let Err(error) = self.member.handle_datagram(source, local, &octets, now) else {
                    return;
                };
                if let Some(pass) = self.limiter.admit(error.reason(), now) {
                    info!(reason = error.reason(), withheld = pass.withheld, "datagram discarded");
                    debug!(%source, %error, length = octets.len(), "discarded datagram");
                }
            }
            Received::Unreachable { destination } => {
                self.member.handle_unreachable(destination, now)
            }
            Received::Failed(error) => {
                if let Some(pass) = self.limiter.admit("receive-failed", now) {
                    warn!(%error, withheld = pass.withheld, "receiving failed");
                }
            }
        }
    }

    async fn handle_kernel_event(&mut self, event: Result<KernelEvent, Error>) {
        let now = clock::now();
        match event {
            Ok(event) => {
                self.dataplane.invalidate(event.invalidates());
                match event {
                    KernelEvent::Flushed(_)
                    | KernelEvent::Changed { .. }
                    | KernelEvent::SaExpired { .. } => {
                        self.due.repair = true;
                    }
                    KernelEvent::LinkChanged | KernelEvent::AddressChanged => self.due.facts = true,
                    KernelEvent::RouteChanged => {
                        self.due.facts = true;
                        // Routing protocols change routes all the time.
                        self.due.at.get_or_insert(now + ROUTE_BURST);
                        return;
                    }
                    KernelEvent::Overrun => {
                        if let Some(pass) = self.limiter.admit("overrun", now) {
                            warn!(
                                withheld = pass.withheld,
                                "kernel events were lost; everything is read anew"
                            );
                        }
                        self.due.repair = true;
                        self.due.facts = true;
                    }
                }
            }
            Err(error) => {
                // Nobody tells what changes now: what was read before cannot be relied on.
                self.dataplane.invalidate(Parts::ALL);
                if let Some(pass) = self.limiter.admit("kernel-events", now) {
                    error!(%error, withheld = pass.withheld, "kernel events cannot be read; looking every 30 s instead");
                }
                // A lasting failure must not eat the processor.
                tokio::time::sleep(Duration::from_millis(200)).await;
                return;
            }
        }
        let soon = now + BURST;
        self.due.at = Some(self.due.at.map_or(soon, |at| at.min(soon)));
    }

    async fn handle_call(&mut self, call: Call) {
        let now = clock::now();
        let statistics = match self.dataplane.statistics().await {
            Ok(statistics) => statistics,
            Err(error) => {
                warn!(%error, "counters cannot be read");
                Default::default()
            }
        };
        let mut problems = self.problems.clone();
        problems.extend(
            self.settings.iter().filter(|problem| !self.problems.contains(problem)).cloned(),
        );
        problems.extend(self.dataplane.last_error().map(str::to_owned));
        let withheld = self.dataplane.withheld().iter();
        problems.extend(withheld.map(|sa| {
            format!("SPI {:#010x} is not sent on, being a counter-mode key that was lost: it needs a new TEK", sa.spi)
        }));
        let missing = self.dataplane.missing_interfaces().iter();
        problems.extend(missing.map(|name| format!("interface {name} is missing: create it")));
        let surroundings = Surroundings { statistics, problems, repairs: self.dataplane.repairs() };
        let response = match call.request() {
            Request::Register(GroupArgument { group }) => {
                control::register(&mut self.member, group, now)
            }
            request => control::answer(request, &self.member, &surroundings, now),
        };
        call.answer(response);
    }

    async fn handle_timeout(&mut self) {
        let now = clock::now();
        self.member.handle_timeout(now);
        if self.due.at.is_some_and(|at| at <= now) {
            let due = std::mem::take(&mut self.due);
            if due.facts {
                self.read_facts(now).await;
            }
            // A repair by what was wanted before would put back what went with an address or a
            // link, and fail.
            self.settle().await;
            let cause = if due.repair { Cause::Foreign } else { Cause::Facts };
            // Logged there, and tried again from there.
            let _ = self.dataplane.repair(cause, now).await;
        }
        self.dataplane.handle_timeout(now).await;
        self.member.handle_worn(self.dataplane.worn(), now);
        self.member.handle_unknown_esp(self.dataplane.unknown_esp(), now);
        self.member.handle_unauthentic_esp(self.dataplane.unauthentic(), now);
        if self.next_environment <= now {
            self.next_environment = now + ENVIRONMENT_INTERVAL;
            self.look_at_settings();
            self.read_facts(now).await;
        }
    }

    /// Reads the configuration again and changes over to the difference. A file with a defect
    /// changes nothing.
    async fn reload(&mut self) {
        let now = clock::now();
        let interfaces = match xfrm::interface::interfaces().await {
            Ok(interfaces) => interfaces,
            Err(error) => {
                error!(%error, "interfaces cannot be read; the configuration before stays");
                return;
            }
        };
        let loaded = match load(&self.path, &Machine::this(Some(&interfaces))) {
            Ok(loaded) => loaded,
            Err(report) => {
                error!(file = %self.path.display(), "the configuration has defects; the one before stays");
                report.to_string().lines().for_each(|line| error!("{line}"));
                return;
            }
        };
        loaded.warnings.iter().for_each(|warning| warn!(%warning, "configuration"));
        let config = loaded.value;
        if !config.is_one_process_with(&self.config) {
            warn!(
                "control-socket, state-directory, state key and local-port stay as they were: restart the daemon to \
                 change them"
            );
        }
        let changed = config.groups != self.config.groups;
        self.member.reload(&config, &mut self.seeds, &interfaces, now);
        self.config.groups = config.groups;
        self.look_at_settings();
        info!(changed, groups = self.config.groups.len(), "configuration read again");
    }

    async fn read_facts(&mut self, now: BootTime) {
        match xfrm::interface::interfaces().await {
            Ok(interfaces) => self.member.handle_interfaces(&interfaces, now),
            Err(error) => {
                if let Some(pass) = self.limiter.admit("interfaces", now) {
                    error!(%error, withheld = pass.withheld, "interfaces cannot be read; the last known ones count");
                }
            }
        }
    }

    fn look_at_settings(&mut self) {
        let problems: Vec<String> =
            privileges::wrong_settings(&self.config).iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|problem| !self.settings.contains(problem)) {
            error!(%problem, "the machine no longer does what the groups need");
        }
        self.settings = problems;
    }

    /// Carries out what the member wants: the kernel first, datagrams afterwards.
    async fn settle(&mut self) {
        loop {
            let now = clock::now();
            let mut applied = now;
            let mut quiet = true;
            if let Some(outcome) = self.member.poll_desired(now) {
                quiet = false;
                for unusable in &outcome.unusable {
                    error!(%unusable, "keys left out");
                }
                self.checkpoint.before_change(&self.member, now);
                if let Some(desired) = outcome.desired {
                    let changed = self.dataplane.change(desired).await;
                    let in_kernel =
                        changed.as_ref().is_ok_and(Changed::is_complete).then(clock::now);
                    let result = self.dataplane.confirm(changed).await;
                    applied = in_kernel.unwrap_or_else(clock::now);
                    // What made it necessary comes first in the log.
                    self.log_events();
                    // Logged there, and tried again from there.
                    let _ = self.dataplane.conclude(result, Cause::Desired, now);
                }
            }
            self.log_events();
            if self.dataplane.last_error().is_none() {
                self.checkpoint.after_change(&self.member, clock::wall(), now);
                self.member.handle_applied(applied);
            }
            for error in self.sockets.join(&self.member.multicasts(), now) {
                if let Some(pass) = self.limiter.admit("join-failed", now) {
                    warn!(%error, withheld = pass.withheld, "pushes by multicast are not heard; trying again");
                }
            }
            for error in self.sockets.set(&self.member.local_addresses(), now) {
                if let Some(pass) = self.limiter.admit("bind-failed", now) {
                    warn!(%error, withheld = pass.withheld, "registrations cannot leave; trying again");
                }
            }
            while let Some(transmit) = self.member.poll_transmit() {
                quiet = false;
                let Err(error) = self.sockets.send(&transmit) else { continue };
                if let Some(pass) = self.limiter.admit("send-failed", now) {
                    warn!(%error, withheld = pass.withheld, "datagram not sent");
                    debug!(destination = %transmit.destination, source = %transmit.source, "datagram not sent");
                }
                self.member.handle_unreachable(transmit.destination, now);
            }
            if quiet {
                return;
            }
        }
    }

    fn log_events(&mut self) {
        while let Some((index, event)) = self.member.poll_event() {
            if let Some(membership) = self.member.memberships().get(index) {
                show::log::log(membership, &event);
            }
        }
    }

    fn show_status(&mut self) {
        let line =
            show::log::line(&self.member, self.dataplane.last_error().is_some(), clock::now());
        if line != self.status_line {
            notify::status(&line);
            self.status_line = line;
        }
    }
}

fn handler(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("signals cannot be handled")
}

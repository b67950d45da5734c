//! One task that owns everything: datagrams, kernel events, timers, requests and signals come in
//! one by one.

mod edit;
mod reload;
mod settle;
mod surroundings;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ::control::server::{Call, serve};
use ::control::socket::{Access, Listener};
use ::control::{ClearMemberArgument, GroupArgument, ReloadArgument, Request};
use anyhow::Context as _;
use daemon::limit::LogLimiter;
use daemon::{clock, notify};
use ike::{BootTime, WallClock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};
use xfrm::kernel::event::KernelEvent;
use xfrm::kernel::netlink::EventSource;
use xfrm::{Error, Kernel, Parts};

use crate::checkpoint::{self, Checkpoint};
use crate::config::placement::{Misplaced, misplaced};
use crate::config::{Config, Group};
use crate::control;
use crate::dataplane::{Cause, Dataplane};
use crate::exit::Ending;
use crate::member::Member;
use crate::membership::Seeds;
use crate::membership::local_interface::Interfaces;
use crate::show::snapshot::Surroundings;
use crate::sockets::{Received, Sockets};
use crate::source::Source;
use crate::tunnel::{self, IKE_PORT, Tunnels};
use crate::{exit, show};
use ike::phase1::nat_traversal::NAT_PORT;
use surroundings::keep;

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
    source: Source,
    seeds: SeedsOf,
    config: Config,
    member: Member,
    dataplane: Dataplane<K>,
    events: EventSource,
    sockets: Sockets,
    tunnels: Tunnels,
    /// Sockets of IKE's own port, for tunnels.
    ike: Sockets,
    /// Sockets of the port for tunnels through address translation.
    nat: Sockets,
    checkpoint: Checkpoint,
    /// Requests of gdoictl, and why there are none.
    calls: mpsc::Receiver<Call>,
    no_control: Option<String>,
    limiter: LogLimiter,
    due: Due,
    /// The kernel is to be compared with the desired state, behind the change that may be due.
    repair: Option<Cause>,
    /// Reading failed: nothing is read before.
    events_paused_until: Option<BootTime>,
    /// What the machine lacks, what is wrong with its settings and with certificates, and why the
    /// copy of the configuration is not this one.
    missing: Vec<String>,
    settings: Vec<String>,
    certificates: Vec<String>,
    not_kept: Option<String>,
    /// Why the configuration that was read last is not in use.
    refused: Option<String>,
    /// Interfaces that are not where the configuration takes them for.
    misplaced: BTreeSet<Misplaced>,
    next_environment: BootTime,
    status_line: String,
}

/// Listens on the control socket. Without one the daemon does its work all the same; why is
/// returned, with the remedy.
fn open_control(path: &Path) -> (mpsc::Receiver<Call>, Option<String>) {
    let (sender, calls) = mpsc::channel(CALLS);
    match Listener::bind(path) {
        Ok(listener) => {
            tokio::spawn(serve(listener, Access::own(), sender));
            (calls, None)
        }
        Err(error) => (calls, Some(format!("control socket: {error}"))),
    }
}

impl<K: Kernel> EventLoop<K> {
    /// Installs fail-close policies and guards, then opens the sockets. Nothing has been sent when
    /// it returns. What cannot be had now is tried again while the daemon runs, and shown as a
    /// problem until it is there: kernel entries, addresses, sockets, files.
    ///
    /// # Errors
    /// The configuration cannot be carried out. What is in the kernel stays there.
    pub async fn start(
        (source, config): (Source, Config),
        mut seeds: SeedsOf,
        kernel: K,
        events: EventSource,
        interfaces: &Interfaces,
        missing: Vec<String>,
    ) -> anyhow::Result<Self> {
        let now = clock::now();
        let (calls, no_control) = open_control(&config.control_socket);
        if let Some(error) = &no_control {
            error!(event = "control-socket-failed", %error, "gdoictl cannot be answered; retrying");
        }
        let mut member = Member::new(&config, &mut seeds, now);
        let mut dataplane = Dataplane::new(kernel, now);
        let mut tunnels = Tunnels::default();
        tunnels.set_wall_clock(WallClock::new(now, clock::wall().as_secs()));
        tunnels.configure(&config.tunnels, now);
        tunnels.set_bandwidth(&config.gateways);
        match checkpoint::remove_orphan(&config) {
            Ok(false) => {}
            Ok(true) => info!(
                event = "sealed-state-removed",
                "no state key is configured; removed the sealed state of an earlier run"
            ),
            Err(error) => error!(
                event = "sealed-state-not-removed",
                %error,
                "no state key is configured, and the sealed state of an earlier run cannot be \
                 removed: remove it"
            ),
        }
        let mut checkpoint = Checkpoint::new(&config, clock::boot_identifier())?;
        checkpoint.restore(&mut member, &mut dataplane, clock::wall(), now).await;
        checkpoint.before_change(&member, dataplane.exempt_before(), now);
        member.handle_interfaces(interfaces, now);
        if let Some(outcome) = member.poll_desired(now) {
            for unusable in &outcome.unusable {
                error!(event = "policy-unusable", reason = %unusable, "policy of the groups cannot be installed");
            }
            let mut desired =
                outcome.desired.context("the blocks cannot be made out of this configuration")?;
            tunnels.add_to(&mut desired, now);
            dataplane.foresee_exempt(&desired).await;
            checkpoint.before_change(&member, dataplane.exempt_before(), now);
            // Logged there, and tried again from there.
            let _ = dataplane.apply(desired, now).await;
        }
        let not_kept = keep(&source);
        let mut sockets = Sockets::new(config.local_port);
        sockets.set_vrfs(member.vrfs());
        // An address that comes later, or an IKE daemon that goes, is waited for.
        let ike = Sockets::new(IKE_PORT);
        let nat = Sockets::for_esp(NAT_PORT);
        let misplaced = misplaced(&config.groups, interfaces);
        let mut started = Self {
            source,
            seeds,
            config,
            member,
            dataplane,
            events,
            sockets,
            tunnels,
            ike,
            nat,
            checkpoint,
            calls,
            no_control,
            limiter: LogLimiter::default(),
            due: Due::default(),
            repair: None,
            events_paused_until: None,
            missing,
            settings: Vec::new(),
            certificates: Vec::new(),
            not_kept,
            refused: None,
            misplaced,
            next_environment: now + ENVIRONMENT_INTERVAL,
            status_line: String::new(),
        };
        started.check_settings();
        started.check_certificates();
        Ok(started)
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

        self.read_wall_clock(clock::now());
        // With where the groups' traffic leaves.
        self.read_interfaces(clock::now()).await;
        self.settle().await;
        self.status_line = show::log::line(&self.member, false, clock::now());
        notify::ready(&self.status_line);
        match self.dataplane.last_error() {
            None => {
                info!(
                    event = "started",
                    "fail-close policies and guards are installed; registering"
                );
            }
            Some(error) => error!(
                event = "started",
                error, "fail-close policies and guards are not installed yet; retrying"
            ),
        }

        let ending = loop {
            let deadline = [self.poll_timeout(), next_watchdog].into_iter().flatten().min();
            tokio::select! {
                received = self.sockets.receive() => {
                    self.handle_received(received, Port::Gdoi);
                }
                received = self.ike.receive() => {
                    self.handle_received(received, Port::Ike);
                }
                received = self.nat.receive() => {
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
        info!(event = "stopping", restart = ending == Ending::Restart, "stopping");
        let now = clock::now();
        let sockets = (&self.sockets, [&self.ike, &self.nat]);
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
            self.nat.poll_timeout(),
            self.due.at,
        ];
        fixed.into_iter().chain(others).chain([self.events_paused_until]).flatten().min()
    }

    /// What time it is, for certificates.
    fn read_wall_clock(&mut self, now: BootTime) {
        let wall_clock = WallClock::new(now, clock::wall().as_secs());
        self.member.set_wall_clock(wall_clock);
        self.tunnels.set_wall_clock(wall_clock);
    }

    fn handle_received(&mut self, received: Received, port: Port) {
        let now = clock::now();
        self.read_wall_clock(now);
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
            KernelEvent::Acquire { reqid } => {
                self.tunnels.handle_acquire(reqid, now);
                return;
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
        if let Request::Reload(ReloadArgument { dry_run }) = *call.request() {
            let response = self.reload_for(dry_run).await;
            call.answer(response);
            return;
        }
        if let Request::Edit(argument) = call.request() {
            let response = self.edit_for(argument).await;
            call.answer(response);
            return;
        }
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
            problems: self.problems(now),
            repairs: self.dataplane.repairs(),
        };
        let response = match call.request() {
            Request::Register(GroupArgument { group }) => {
                control::register(&mut self.member, group, now)
            }
            Request::ClearMember(ClearMemberArgument { group }) => {
                control::clear(&mut self.member, group.as_deref(), now)
            }
            Request::ShowTunnel => {
                let paths = tunnel::show::Paths::read(&self.tunnels).await;
                if let Err(error) = &paths {
                    warn!(event = "routes-unreadable", %error, "routes of tunnels cannot be read");
                }
                let (gateways, tunnels) = (&self.config.gateways, &self.tunnels);
                let (paths, statistics) = (paths.ok(), &surroundings.statistics);
                let snapshot =
                    tunnel::show::snapshot(gateways, tunnels, paths.as_ref(), statistics, now);
                ::control::Response::Tunnels(Box::new(snapshot))
            }
            request => control::answer(request, &self.member, &surroundings, now),
        };
        call.answer(response);
    }

    async fn handle_timeout(&mut self) {
        let now = clock::now();
        self.read_wall_clock(now);
        self.events_paused_until.take_if(|until| *until <= now);
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
            self.check_certificates();
            self.read_interfaces(now).await;
            self.try_again(now).await;
        }
    }
}

fn handler(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("signals cannot be handled")
}

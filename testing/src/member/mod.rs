//! A member with a fake kernel and scripted key servers in one process, on a virtual clock, without
//! sockets.

mod configuration;
mod group_sa;
mod kek;
mod key_server;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::checkpoint::Checkpoint;
use agent::config::Config;
use agent::dataplane::Dataplane;
use agent::exit::{self, Ending};
use agent::member::Member;
use agent::membership::local_interface::Interfaces;
use agent::membership::{Event, Membership};
use agent::persistence::sealed_keys::{self, Unsealed};
use agent::persistence::state_file::Boot;
use daemon::sealed::file::{Moment, SealedFile};
use gdoi::event::{ServerEvent, Transmit};
use gdoi::group::Spi;
use gdoi::push::SealedPush;
use gdoi::push::ack::Claim;
use ike::BootTime;
use ike::crypto::Secret;
use policies::GroupUnusable;
use tempfile::TempDir;
use xfrm::Ownership;
use xfrm::kernel::fake::{FakeKernel, Packet};
use xfrm::model::Direction;

use self::configuration::parsed;
pub use self::configuration::{
    ALL, IKE, PRE_SHARED_KEY, SEALED, STATE_KEY, configuration, interfaces,
};
pub use self::group_sa::{copy, teks_of};
pub use self::kek::Kek;
use self::key_server::key_server;
pub use self::key_server::{KeyServer, gdoi_server, phase1};

pub const PLACEHOLDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub struct World {
    pub now: BootTime,
    pub member: Member,
    pub dataplane: Dataplane<FakeKernel>,
    pub kernel: FakeKernel,
    pub interfaces: Interfaces,
    pub servers: BTreeMap<SocketAddr, KeyServer>,
    pub events: Vec<Event>,
    pub datagrams: Vec<Transmit>,
    pub unusable: Vec<GroupUnusable>,
    /// Which datagrams between the member and its servers are lost.
    pub loss: Box<dyn FnMut(&Transmit) -> bool + Send>,
    /// The kernel may stop at any operation.
    pub stopping: bool,
    pub checkpoint: Checkpoint,
    /// Where the files are.
    pub directory: Arc<TempDir>,
    pub boot: Boot,
    /// The wall clock when the boot-time clock was zero.
    pub booted: Duration,
    text: String,
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn address(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 848)
}

impl World {
    /// Everything at rest: nothing read, nothing sent.
    pub fn new(text: &str) -> Self {
        Self::with_kernel(text, FakeKernel::new(["lan", "wan"]))
    }

    /// A new run of the daemon on a kernel that is there already.
    pub fn with_kernel(text: &str, kernel: FakeKernel) -> Self {
        Self::with_files(text, kernel, Arc::new(tempfile::tempdir().unwrap()), [1; 16], 7)
    }

    /// One of several members, which differ in what they do at random.
    pub fn with_jitter(text: &str, jitter: u64) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self::with_files(text, FakeKernel::new(["lan", "wan"]), directory, [1; 16], jitter)
    }

    fn with_files(
        text: &str,
        kernel: FakeKernel,
        directory: Arc<TempDir>,
        boot: Boot,
        jitter: u64,
    ) -> Self {
        let interfaces = interfaces();
        let mut config = parsed(text, &interfaces);
        config.state_file = directory.path().join("gdoi-agent.state");
        let own = |_| directory.path().join("state.key");
        config.own_state_key = config.own_state_key.map(own);
        let now = BootTime::new(Duration::from_secs(1_000));
        let mut number = 0_u8;
        let servers = config.groups[0].server_addresses();
        let member = Member::new(
            &config,
            |_| {
                let seeds = move || {
                    number = number.wrapping_add(1);
                    Ok([number; 32])
                };
                (Box::new(seeds), jitter)
            },
            now,
        );
        let servers = servers
            .into_iter()
            .zip(1_u8..)
            .map(|(address, number)| (address, key_server(number)))
            .collect();
        Self {
            now,
            member,
            dataplane: Dataplane::new(kernel.clone(), now),
            kernel,
            interfaces,
            servers,
            events: Vec::new(),
            datagrams: Vec::new(),
            unusable: Vec::new(),
            loss: Box::new(|_| false),
            stopping: false,
            checkpoint: Checkpoint::new(&config, boot).unwrap(),
            directory,
            boot,
            booted: Duration::from_secs(1_800_000_000),
            text: text.to_owned(),
        }
    }

    /// The configuration of `text`, with the files of this world.
    pub fn configured(&self, text: &str) -> Config {
        Config {
            state_file: self.directory.path().join("gdoi-agent.state"),
            ..parsed(text, &self.interfaces)
        }
    }

    pub fn wall(&self) -> Duration {
        self.booted + self.now.since_boot()
    }

    /// Octets of the sealed state.
    pub fn sealed(&self) -> Vec<u8> {
        std::fs::read(self.sealed_path()).unwrap()
    }

    pub fn unsealed(&self) -> Unsealed {
        let key = Secret::copy_from(&STATE_KEY);
        let file = SealedFile::new(self.sealed_path(), sealed_keys::OWNER, &key).unwrap();
        let moment = Moment { boot: self.boot, now: self.now, wall: self.wall() };
        let (octets, clock) = file.load(&moment).unwrap().unwrap();
        sealed_keys::decode(&octets, self.boot, clock).unwrap()
    }

    pub fn sealed_path(&self) -> PathBuf {
        self.directory.path().join("gdoi-agent.sealed")
    }

    /// `kill -9` and a new start, with the servers as they are.
    pub async fn restart(self) -> Self {
        let ownership = Ownership::default();
        self.kernel.end_of_process(&ownership);
        let (kernel, boot, now, booted) = (self.kernel.clone(), self.boot, self.now, self.booted);
        self.again(kernel, boot, now, booted).await
    }

    /// Power is lost. `pause` later, as the wall clock has it, the machine has been up for half a
    /// minute, or all that time.
    pub async fn reboot(self, pause: Duration) -> Self {
        let up = Duration::from_secs(30).min(pause);
        let (boot, booted) = (self.boot.map(|octet| octet + 1), self.wall() + pause - up);
        self.again(FakeKernel::new(["lan", "wan"]), boot, BootTime::new(up), booted).await
    }

    async fn again(self, kernel: FakeKernel, boot: Boot, now: BootTime, booted: Duration) -> Self {
        let mut next = Self::with_files(&self.text, kernel.clone(), self.directory, boot, 7);
        (next.now, next.booted) = (now, booted);
        next.dataplane = Dataplane::new(kernel, now);
        next.servers = self.servers;
        next.interfaces = self.interfaces;
        let wall = next.wall();
        next.checkpoint.restore(&mut next.member, &mut next.dataplane, wall, now).await;
        next
    }

    /// SIGHUP, with this file.
    pub async fn reload(&mut self, text: &str) {
        let config = parsed(text, &self.interfaces);
        let interfaces = self.interfaces.clone();
        self.member.reload(&config, |_| (Box::new(|| Ok([200; 32])), 9), &interfaces, self.now);
        self.text = text.to_owned();
        self.settle().await;
    }

    /// Reads the interfaces, puts the blocks in place, and begins.
    pub async fn start(&mut self) {
        self.interfaces_changed().await;
    }

    /// The interfaces are read again.
    pub async fn interfaces_changed(&mut self) {
        let interfaces = self.interfaces.clone();
        self.member.handle_interfaces(&interfaces, self.now);
        self.settle().await;
    }

    /// The clock is looked at, as every 30 s.
    pub async fn clock_checked(&mut self) {
        let wall = self.wall();
        self.checkpoint.handle_clock(&mut self.member, wall, self.now);
        self.settle().await;
    }

    pub fn membership(&self) -> &Membership {
        &self.member.memberships()[0]
    }

    pub fn server(&mut self, number: u8) -> &mut KeyServer {
        self.servers.get_mut(&SocketAddr::from(([10, 0, 10 + number, 1], 848))).unwrap()
    }

    /// SPIs in the kernel: inbound, outbound; of these not what stays for packets under way alone.
    pub fn spis(&self) -> (Vec<Spi>, Vec<Spi>) {
        let mut sas = self.kernel.sas();
        sas.retain(|id| !self.dataplane.replaced().contains(id));
        let spis = |outbound: bool| {
            sas.iter()
                .filter(|id| (id.destination == PLACEHOLDER) == outbound)
                .map(|id| id.spi)
                .collect()
        };
        (spis(false), spis(true))
    }

    /// Whether the nf_tables guards stand.
    pub fn tables(&self) -> bool {
        self.kernel.has_tables()
    }

    /// Whether a group packet could pass in clear, out or in.
    pub fn group_in_clear(&self) -> bool {
        let packet = |source: &str, destination: &str, interface: &str| Packet {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 1,
            source_port: 0,
            destination_port: 0,
            interface: Some(interface.to_owned()),
        };
        let out = packet("172.16.1.10", "172.16.2.10", "wan");
        let back = packet("172.16.2.10", "172.16.1.10", "lan");
        self.kernel.in_clear(Direction::Out, &out)
            || self.kernel.in_clear(Direction::Forward, &back)
    }

    /// A datagram arrives at the member's own address.
    pub fn receive(&mut self, source: SocketAddr, datagram: &[u8]) -> Result<(), gdoi::Error> {
        self.member.handle_datagram(source, address("10.0.1.1"), datagram, self.now)
    }

    /// The key server's push arrives.
    pub async fn push(&mut self, push: &SealedPush) -> Result<(), gdoi::Error> {
        let result = self.receive(address("10.0.11.1"), push.datagram());
        self.settle().await;
        result
    }

    /// PendingAcks sent so far: numbers of the pushes.
    pub fn acknowledged(&self) -> Vec<u32> {
        let claims =
            self.datagrams.iter().filter_map(|transmit| Claim::read(&transmit.payload).ok());
        claims.map(|claim| claim.sequence_number).collect()
    }

    /// Carries out what everybody wants until nobody wants anything more, as the event loop does.
    pub async fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some((_, event)) = self.member.poll_event() {
                self.events.push(event);
            }
            if let Some(outcome) = self.member.poll_desired(self.now) {
                quiet = false;
                self.unusable.extend(outcome.unusable);
                let desired = outcome.desired.unwrap();
                self.dataplane.foresee_exempt(&desired).await;
                let exempt = self.dataplane.exempt_before();
                self.checkpoint.before_change(&self.member, exempt, self.now);
                let _ = self.dataplane.apply(desired, self.now).await;
            }
            if self.dataplane.last_error().is_none() {
                let wall = self.wall();
                self.checkpoint.after_change(&self.member, wall, self.now);
                self.member.handle_applied(self.now);
            }
            while let Some(transmit) = self.member.poll_transmit() {
                quiet = false;
                // Nothing is sent before the blocks stand; a test that stops the kernel looks for
                // itself.
                assert!(self.stopping || self.tables() && !self.group_in_clear());
                self.datagrams.push(transmit.clone());
                self.deliver(&transmit);
            }
            if quiet {
                return;
            }
        }
    }

    fn deliver(&mut self, transmit: &Transmit) {
        let now = self.now;
        if (self.loss)(transmit) {
            return;
        }
        let Some(key_server) =
            self.servers.get_mut(&transmit.destination).filter(|server| server.up)
        else {
            return;
        };
        // What the server discards, it discards; the test sees the outcome.
        let _ = key_server.server.handle_datagram(
            transmit.source,
            transmit.destination,
            &transmit.payload,
            now,
        );
        while let Some(event) = key_server.server.poll_event() {
            match event {
                ServerEvent::PullRequested { pull, group, .. } => match key_server.refusal {
                    Some(refusal) => key_server.server.refuse_pull(pull, refusal, now).unwrap(),
                    None => {
                        let sa = key_server.group_sa(group);
                        key_server.server.answer_pull(pull, sa, Default::default(), now).unwrap();
                    }
                },
                ServerEvent::PullCompleted { .. } => key_server.pulls += 1,
                ServerEvent::PeerDeleted { .. } => key_server.goodbyes += 1,
                _ => {}
            }
        }
        let answers: Vec<Transmit> =
            std::iter::from_fn(|| key_server.server.poll_transmit()).collect();
        for answer in answers {
            assert_eq!(answer.source, transmit.destination);
            if (self.loss)(&answer) {
                continue;
            }
            // As above.
            let _ = self.member.handle_datagram(
                answer.source,
                answer.destination,
                &answer.payload,
                now,
            );
        }
    }

    pub async fn pass(&mut self, duration: Duration) {
        self.live(duration, true).await;
    }

    /// Lives through `duration` without the regular looks at the kernel, which take time.
    pub async fn leap(&mut self, duration: Duration) {
        self.live(duration, false).await;
    }

    async fn live(&mut self, duration: Duration, looks: bool) {
        let end = self.now + duration;
        for _ in 0..100_000 {
            let look = if looks {
                Some(self.dataplane.poll_timeout())
            } else {
                self.dataplane.poll_release()
            };
            let due = [self.member.poll_timeout(), look].into_iter().flatten().min();
            let Some(next) = due.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            let now = self.now;
            self.member.handle_timeout(now);
            self.dataplane.handle_release(now).await;
            if looks {
                self.dataplane.handle_timeout(now).await;
                self.member.handle_near_exhaustion(self.dataplane.near_exhaustion(), now);
                self.member.handle_suppressed(self.dataplane.suppressed(), now);
                self.member.handle_unknown_esp(self.dataplane.unknown_esp(), now);
                self.member.handle_integrity_failures(self.dataplane.integrity_failures(), now);
            }
            for server in self.servers.values_mut() {
                server.server.handle_timeout(now);
            }
            self.settle().await;
        }
        panic!("the daemon asks for timers without end");
    }

    pub async fn leave(&mut self) -> bool {
        self.end(Ending::Stop).await
    }

    /// The orderly end, for good or for a restart.
    pub async fn end(&mut self, ending: Ending) -> bool {
        self.member.stop(self.now);
        while let Some(transmit) = self.member.poll_transmit() {
            self.deliver(&transmit);
        }
        let tunnels = agent::tunnel::Tunnels::default();
        exit::leave_kernel(&self.member, &tunnels, &mut self.dataplane, ending, self.now).await
    }
}

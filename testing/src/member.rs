//! A member with a fake kernel and scripted key servers in one process, on a virtual clock, without
//! sockets.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use agent::checkpoint::Checkpoint;
use agent::config::Config;
use agent::config::check::{Machine, parse};
use agent::dataplane::Dataplane;
use agent::exit::{self, Ending};
use agent::member::Member;
use agent::membership::local_interface::Interfaces;
use agent::membership::{Event, Membership};
use agent::persistence::sealed_keys::{self, Unsealed};
use agent::persistence::state_file::Boot;
use daemon::sealed::file::{Moment, SealedFile};
use gdoi::config::{
    ByteOrder, Credential, DhGroup, HashAlgorithm, PeerCredential, Phase1Encryption, Phase1Policy,
    Phase1Transform, ServerConfig, ServerLimits,
};
use gdoi::event::{PullRefusal, ServerEvent, Transmit};
use gdoi::group::{
    AddressPreservation, AddressRange, AuthenticationAlgorithm, EncapsulationMode, EspTransform,
    GroupAssociatedPolicy, GroupId, GroupPolicy, IssuedSa, KekKeys, KekPolicy, SaDirection, Spi,
    TekKeys, TekPolicy, TekProtection, TekProtocol, TrafficSelector,
};
use gdoi::push::ack::Claim;
use gdoi::push::{Deletion, KekDelivery, PushContent, SealOptions, SealedPush, Sealer};
use gdoi::server::Server;
use ike::BootTime;
use ike::crypto::{KeyKind, Secret, SeededRng, SigningKey};
use policies::GroupUnusable;
use tempfile::TempDir;
use xfrm::Ownership;
use xfrm::interface::Interface;
use xfrm::kernel::fake::{FakeKernel, Packet};
use xfrm::model::Direction;

pub const PLACEHOLDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The cheapest group of phase 1.
pub const IKE: &str = "[group.ike]\ndh-group = [19]\n";
/// What the group protects.
pub const ALL: &str = "172.16.0.0/12";
/// What the member shares with its servers.
pub const PRE_SHARED_KEY: &[u8] = b"q7#Zk2!vR9wLx4$Tn8@Hd3%Bm6^Yc1&f";
/// What seals the state where a configuration names a state key.
pub const STATE_KEY: [u8; 32] = [0x5e; 32];
/// Lines before all groups that ask for a sealed state.
pub const SEALED: &str = "state-directory = \"/state\"\nstate-key-file = \"/state-key\"\n";

/// A key server and how it behaves.
pub struct KeyServer {
    pub server: Server,
    pub up: bool,
    pub refusal: Option<PullRefusal>,
    pub mode: EncapsulationMode,
    pub lifetime: Duration,
    pub spi: Spi,
    /// All groups get the lines of the first one.
    pub same_lines: bool,
    pub transform: EspTransform,
    /// What pushes come under, if there are any.
    pub kek: Option<Kek>,
    /// All of the first group's lines and keys, if not the usual ones.
    pub custom: Option<IssuedSa>,
    pub pulls: usize,
    pub goodbyes: usize,
}

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

/// A configuration with `servers` servers (10.0.11.1, 10.0.12.1 ..) and further lines for the
/// group.
pub fn configuration(servers: usize, lines: &str) -> String {
    let mut text = format!(
        r#"
[[group]]
name = "branches"
id = 1111
local-address = "wan"
lan = ["lan"]
wan = ["wan"]
protected = ["172.16.0.0/12"]
pre-shared-key-file = "/psk"
{lines}
"#
    );
    for server in 1..=servers {
        text.push_str(&format!("[[group.server]]\naddress = \"10.0.1{server}.1\"\n"));
    }
    text
}

fn interface(index: u32, net: &str) -> Interface {
    let gateway = Some("10.0.1.254".parse().unwrap()).filter(|_| net.starts_with("10."));
    Interface {
        index,
        up: true,
        addresses: vec![net.parse().unwrap()],
        mtu: 1500,
        gateway,
        vrf: None,
    }
}

pub fn interfaces() -> Interfaces {
    let all = [("lan", interface(2, "172.16.1.1/24")), ("wan", interface(3, "10.0.1.1/24"))];
    all.map(|(name, interface)| (name.to_owned(), interface)).into()
}

fn parsed(text: &str, interfaces: &Interfaces) -> Config {
    let secret = |_: &_| Ok(Secret::copy_from(PRE_SHARED_KEY));
    let state_key = |_: &_| Ok(Secret::copy_from(&STATE_KEY));
    let machine = Machine { interfaces: Some(interfaces), secret: &secret, state_key: &state_key };
    parse("test", text, &machine).unwrap_or_else(|report| panic!("{report}")).value
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
    /// minute.
    pub async fn reboot(self, pause: Duration) -> Self {
        let up = Duration::from_secs(30);
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

    /// The interfaces are read anew.
    pub async fn interfaces_changed(&mut self) {
        let interfaces = self.interfaces.clone();
        self.member.handle_interfaces(&interfaces, self.now);
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
                self.checkpoint.before_change(&self.member, self.now);
                let _ = self.dataplane.apply(outcome.desired.unwrap(), self.now).await;
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
                        key_server.server.answer_pull(pull, sa, now).unwrap();
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
        exit::leave_kernel(&self.member, &mut self.dataplane, ending, self.now).await
    }
}

/// What the servers accept in phase 1.
pub fn phase1() -> Phase1Policy {
    let transform = |group| Phase1Transform {
        encryption: Phase1Encryption::Aes128Cbc,
        hash: HashAlgorithm::Sha2_256,
        group,
        authentication: Default::default(),
    };
    Phase1Policy {
        doi: gdoi::wire::registry::Doi::GDOI,
        transforms: vec![transform(DhGroup::Modp2048), transform(DhGroup::Ecp256)],
        lifetime: Duration::from_secs(3_600),
    }
}

/// The protocol machine of a server.
pub fn gdoi_server(number: u8) -> Server {
    let config = ServerConfig {
        identity: None,
        peers: vec![PeerCredential {
            addresses: "10.0.1.0/24".parse().unwrap(),
            identity: None,
            credential: Credential::PreSharedKey(Arc::new(Secret::copy_from(PRE_SHARED_KEY))),
        }],
        phase1: phase1(),
        group_id_byte_order: ByteOrder::Network,
        limits: ServerLimits::default(),
    };
    Server::new(config, [100 + number; 32])
}

fn key_server(number: u8) -> KeyServer {
    KeyServer {
        server: gdoi_server(number),
        up: true,
        refusal: None,
        mode: EncapsulationMode::TUNNEL,
        lifetime: Duration::from_secs(3_600),
        spi: 0x1000 * u32::from(number),
        same_lines: false,
        transform: EspTransform::AES_CBC,
        kek: None,
        custom: None,
        pulls: 0,
        goodbyes: 0,
    }
}

impl KeyServer {
    fn group_sa(&self, group: GroupId) -> IssuedSa {
        if let Some(custom) = &self.custom {
            return copy(custom, self.kek.as_ref());
        }
        let second = group == GroupId(2222);
        let prefix = if second && !self.same_lines { "192.168.0.0/16" } else { "172.16.0.0/12" };
        let side = AddressRange::Subnet(prefix.parse().unwrap());
        let spi = self.spi + u32::from(second);
        let plain = group_sa(group, side, spi, self.mode, self.lifetime);
        if self.transform != EspTransform::AES_CBC {
            let mut policy = plain.policy().clone();
            policy.teks[0].protection.transform = self.transform;
            policy.teks[0].protection.authentication = None;
            let keys = TekKeys {
                encryption: Secret::new(vec![spi.to_be_bytes()[2]; 20]),
                integrity: Secret::new(vec![]),
            };
            let combined = IssuedSa::new(policy, [(spi, keys)].into(), None, None, None);
            return copy(&combined, self.kek.as_ref());
        }
        copy(&plain, self.kek.as_ref())
    }
}

/// A group SA with the KEK of a key server, or without one.
pub fn copy(sa: &IssuedSa, kek: Option<&Kek>) -> IssuedSa {
    let policy = GroupPolicy { kek: kek.map(|kek| kek.policy.clone()), ..sa.policy().clone() };
    let teks = sa.tek_keys().iter().map(|(spi, keys)| (*spi, keys.duplicate())).collect();
    let number = kek.map(|kek| kek.sealer.sequence_number());
    IssuedSa::new(policy, teks, kek.map(Kek::keys), number, None)
}

/// One KEK of a scripted key server.
pub struct Kek {
    pub policy: KekPolicy,
    key: Secret,
    signing: SigningKey,
    pub sealer: Sealer,
    rng: SeededRng,
}

impl Kek {
    pub fn new(number: u8, lifetime: u64) -> Self {
        let policy = KekPolicy {
            spi: [number; 16],
            protocol: 17,
            source: (1, 848, vec![10, 0, 11, 1]),
            destination: (1, 848, vec![10, 0, 1, 1]),
            algorithm: 3,
            key_length: Some(256),
            lifetime: Duration::from_secs(lifetime),
            signature_hash: Some(3),
            signature_algorithm: 4,
            signature_key_length: None,
            acknowledgement: Some(1),
        };
        let mut rng = SeededRng::from_seed([number; 32]);
        // The same signing key for every KEK of the group.
        let mut first = SeededRng::from_seed([77; 32]);
        let signing = SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut first).unwrap();
        let key = Secret::new(rng.array::<48>().to_vec());
        let keys = KekKeys { algorithm_key: key.duplicate(), signature_key: None };
        let sealer = Sealer::new(&policy, &keys, 0, false).unwrap();
        Self { policy, key, signing, sealer, rng }
    }

    /// Signs with another key from now on.
    pub fn sign_as(&mut self, number: u8) {
        self.signing =
            SigningKey::generate_ecdsa(KeyKind::Ecdsa256, &mut SeededRng::from_seed([number; 32]))
                .unwrap();
    }

    pub fn keys(&self) -> KekKeys {
        let signature_key = Some(self.signing.public_key_der().unwrap());
        KekKeys { algorithm_key: self.key.duplicate(), signature_key }
    }

    /// A push of deletes and new TEKs, under this KEK.
    pub fn push(&mut self, deletions: &[Deletion], group_sa: Option<&IssuedSa>) -> SealedPush {
        let content = PushContent { deletions, group_sa, kek_delivery: KekDelivery::Packet };
        self.sealer.seal(content, &self.signing, SealOptions::default(), &mut self.rng).unwrap()
    }

    /// A push that announces `next`.
    pub fn announce(&mut self, next: &Kek, teks: &[(Spi, &str, u64)]) -> SealedPush {
        let sa = copy(&teks_of(teks, (None, None)), Some(next));
        self.push(&[], Some(&sa))
    }
}

/// Symmetric TEKs: SPI, prefix on both sides, lifetime in seconds; and the delays.
pub fn teks_of(teks: &[(Spi, &str, u64)], delays: (Option<u64>, Option<u64>)) -> IssuedSa {
    let mut policy = GroupPolicy {
        group: GroupId(1111),
        kek: None,
        gap: GroupAssociatedPolicy {
            activation_time_delay: delays.0.map(Duration::from_secs),
            deactivation_time_delay: delays.1.map(Duration::from_secs),
        },
        teks: Vec::new(),
    };
    let mut keys = BTreeMap::new();
    for (spi, prefix, lifetime) in teks {
        let side = AddressRange::Subnet(prefix.parse().unwrap());
        let lifetime = Duration::from_secs(*lifetime);
        let one = group_sa(policy.group, side, *spi, EncapsulationMode::TUNNEL, lifetime);
        policy.teks.extend(one.policy().teks.iter().cloned());
        keys.extend(one.tek_keys().iter().map(|(spi, keys)| (*spi, keys.duplicate())));
    }
    IssuedSa::new(policy, keys, None, None, None)
}

fn group_sa(
    group: GroupId,
    side: AddressRange,
    spi: Spi,
    mode: EncapsulationMode,
    lifetime: Duration,
) -> IssuedSa {
    let tek = TekPolicy {
        spi,
        selector: TrafficSelector {
            protocol: 0,
            source: side,
            source_port: 0,
            destination: side,
            destination_port: 0,
        },
        protection: TekProtection {
            protocol: TekProtocol::ESP,
            transform: EspTransform::AES_CBC,
            key_length: Some(128),
            authentication: Some(AuthenticationAlgorithm::HMAC_SHA2_256),
            mode,
            address_preservation: AddressPreservation::SOURCE_AND_DESTINATION,
            direction: SaDirection::SYMMETRIC,
            lifetime,
            lifetime_kilobytes: None,
        },
    };
    let octet = spi.to_be_bytes()[2];
    let last = spi.to_be_bytes()[3];
    let encryption = Secret::new([[octet; 15].as_slice(), &[octet ^ last]].concat());
    let keys = TekKeys { encryption, integrity: Secret::new(vec![octet ^ 0xff; 32]) };
    let policy =
        GroupPolicy { group, kek: None, gap: GroupAssociatedPolicy::default(), teks: vec![tek] };
    IssuedSa::new(policy, [(spi, keys)].into(), None, None, None)
}

//! What members of a real server see over UDP, and what none of them may ever see: a number, key or
//! identifier used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::clock;
use gdoi::error::{Error, NotAccepted};
use gdoi::event::{RegistrationEvent, RegistrationFailure};
use gdoi::group::{GroupSa, Spi};
use gdoi::member::Registration;
use gdoi::push::{AcknowledgementLength, KekChange, RekeyEvent, RekeyMember, RekeySettings};
use ike::BootTime;
use ike::config::RetransmissionPolicy;
use ike::crypto::DhGroup;

use super::registration;

/// SPI of a KEK.
pub type KekSpi = [u8; 16];

/// How long a member waits for a datagram before it looks at its clock and commands.
const TICK: Duration = Duration::from_millis(5);
/// After an attempt that failed.
const AGAIN: Duration = Duration::from_millis(100);

/// What all members together have seen.
#[derive(Default)]
pub struct Witness {
    /// Whoever holds a KEK can read the number of a push: a group SA for each KEK.
    keks: BTreeMap<KekSpi, Arc<GroupSa>>,
    numbers: BTreeMap<(KekSpi, u32), Vec<u8>>,
    /// Pushes under KEKs that no member has told of yet.
    unread: BTreeSet<Vec<u8>>,
    teks: BTreeMap<Spi, Vec<u8>>,
    senders: BTreeSet<(u32, u64)>,
    /// What should not have been.
    pub faults: Vec<String>,
}

impl Witness {
    /// Keys that a member was given.
    fn learn(&mut self, sa: &Arc<GroupSa>) {
        for (spi, keys) in sa.tek_keys() {
            let octets = [keys.encryption.expose(), keys.integrity.expose()].concat();
            if *self.teks.entry(*spi).or_insert_with(|| octets.clone()) != octets {
                self.faults.push(format!("SPI {spi:08x} has two keys"));
            }
        }
        let (Some(policy), Some(keys)) = (&sa.policy().kek, sa.kek_keys()) else { return };
        let before = self.keks.entry(policy.spi).or_insert_with(|| Arc::clone(sa));
        if before.kek_keys().map(|before| &before.algorithm_key) != Some(&keys.algorithm_key) {
            self.faults.push(format!("KEK {:02x?} has two keys", policy.spi));
        }
        for datagram in std::mem::take(&mut self.unread) {
            self.number_of(&datagram);
        }
    }

    fn take_senders(&mut self, group: u32, sa: &GroupSa) {
        for value in sa.sender_ids().iter().flat_map(|ids| &ids.values) {
            if !self.senders.insert((group, *value)) {
                self.faults
                    .push(format!("sender identifier {value} of group {group} was given twice"));
            }
        }
    }

    /// Number of a push, if any member has its KEK. Every number stands for one datagram for ever.
    fn number_of(&mut self, datagram: &[u8]) -> Option<u32> {
        let spi: KekSpi = datagram[..16].try_into().unwrap();
        let Some(sa) = self.keks.get(&spi) else {
            self.unread.insert(datagram.to_vec());
            return None;
        };
        let number = number_under(sa, datagram);
        if let Some(number) = number
            && self.numbers.entry((spi, number)).or_insert_with(|| datagram.to_vec()) != datagram
        {
            self.faults.push(format!("number {number} under KEK {spi:02x?} stands for two pushes"));
        }
        if number.is_none() {
            self.faults.push(format!("a push under KEK {spi:02x?} cannot be read"));
        }
        number
    }

    /// Numbers, TEKs and sender identifiers seen.
    pub fn figures(&self) -> (usize, usize, usize) {
        (self.numbers.len(), self.teks.len(), self.senders.len())
    }
}

fn settings(address: SocketAddr) -> RekeySettings {
    RekeySettings {
        address,
        acknowledgement_length: AcknowledgementLength::default(),
        selector_byte_order: Default::default(),
        legacy: false,
    }
}

fn number_under(sa: &GroupSa, datagram: &[u8]) -> Option<u32> {
    let (now, anywhere) = (BootTime::default(), SocketAddr::from(([127, 0, 0, 1], 848)));
    let mut reader = RekeyMember::new(sa, settings(anywhere), now).unwrap().unwrap();
    match reader.handle_datagram(anywhere, anywhere, datagram, now) {
        Err(Error::NotAccepted(NotAccepted::StaleSequenceNumber { received, .. })) => {
            Some(received)
        }
        Err(_) => None,
        Ok(()) => match reader.poll_event() {
            Some(RekeyEvent::Accepted(push)) => Some(push.sequence_number),
            Some(RekeyEvent::Unusable { sequence_number, .. }) => Some(sequence_number),
            Some(RekeyEvent::Expired) => None,
            // It waits for the update array that another datagram may bring.
            None => reader.sequence_number(),
        },
    }
}

/// A member as the test sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The KEK that it holds and the number of the last push under it.
    pub kek: Option<(KekSpi, u32)>,
    pub pulls: u64,
    pub pushes: u64,
    pub refused: u64,
    /// Whether it pulls, or is going to.
    pub pulling: bool,
    /// The TEKs that it was told last.
    pub teks: BTreeSet<Spi>,
}

/// The test's end of a member.
#[derive(Clone, Default)]
pub struct Handle {
    pub view: Arc<Mutex<View>>,
    /// The member is to pull.
    pub pull: Arc<AtomicBool>,
    pub stop: Arc<AtomicBool>,
}

impl Handle {
    pub fn view(&self) -> View {
        let asked = self.pull.load(Ordering::Relaxed);
        let view = self.view.lock().unwrap().clone();
        View { pulling: view.pulling || asked, ..view }
    }
}

/// A member that does what `gdoi-agent` does, without a kernel.
pub struct Member {
    number: u8,
    group: u32,
    server: SocketAddr,
    socket: UdpSocket,
    local: SocketAddr,
    handle: Handle,
    witness: Arc<Mutex<Witness>>,
    registration: Option<Registration>,
    rekey: Option<RekeyMember>,
    highest: BTreeMap<KekSpi, u32>,
    again_at: Option<BootTime>,
}

impl Member {
    /// Member `number` of `group` at 127.0.7.`number`; it begins to register at once.
    pub fn new(number: u8, group: u32, server: SocketAddr, witness: &Arc<Mutex<Witness>>) -> Self {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 7, number], 0))).unwrap();
        socket.set_read_timeout(Some(TICK)).unwrap();
        let local = socket.local_addr().unwrap();
        let (handle, witness) = (Handle::default(), Arc::clone(witness));
        let (registration, rekey, highest, again_at) =
            (None, None, BTreeMap::new(), Some(clock::now()));
        Self {
            number,
            group,
            server,
            socket,
            local,
            handle,
            witness,
            registration,
            rekey,
            highest,
            again_at,
        }
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Until the test says stop.
    pub fn run(mut self) {
        let mut buffer = vec![0; 65_535];
        while !self.handle.stop.load(Ordering::Relaxed) {
            let now = clock::now();
            if self.handle.pull.load(Ordering::Relaxed) {
                self.again_at.get_or_insert(now);
                self.handle.view.lock().unwrap().pulling = true;
                self.handle.pull.store(false, Ordering::Relaxed);
            }
            if self.again_at.is_some_and(|at| at <= now) && !self.is_registering() {
                self.again_at = None;
                self.register(now);
            }
            if let Some(registration) = &mut self.registration {
                registration.handle_timeout(now);
            }
            if let Some(rekey) = &mut self.rekey {
                rekey.handle_timeout(now);
            }
            self.settle(now);
            if let Ok((length, source)) = self.socket.recv_from(&mut buffer) {
                self.handle_datagram(source, &buffer[..length], clock::now());
                self.settle(clock::now());
            }
        }
    }

    fn is_registering(&self) -> bool {
        use gdoi::event::Stage;
        self.registration
            .as_ref()
            .is_some_and(|one| matches!(one.stage(), Stage::Phase1 | Stage::Pull))
    }

    fn register(&mut self, now: BootTime) {
        let mut config =
            registration(self.number, self.number, self.group, self.local, self.server);
        config.phase1.transforms[0].group = DhGroup::Ecp256;
        config.retransmission = RetransmissionPolicy {
            initial: Duration::from_millis(100),
            maximum: AGAIN * 2,
            repetitions: 3,
        };
        self.registration = Some(Registration::new(config, daemon::entropy::seed().unwrap(), now));
    }

    fn handle_datagram(&mut self, source: SocketAddr, datagram: &[u8], now: BootTime) {
        if datagram[18] != 33 {
            if let Some(registration) = &mut self.registration {
                let _ = registration.handle_datagram(source, datagram, now);
            }
            return;
        }
        let spi: KekSpi = datagram[..16].try_into().unwrap();
        let mut witness = self.witness.lock().unwrap();
        if let Some(number) = witness.number_of(datagram) {
            let highest = self.highest.entry(spi).or_default();
            if number < *highest {
                let fault = format!(
                    "member {}: number {number} after {highest} under {spi:02x?}",
                    self.number
                );
                witness.faults.push(fault);
            }
            *highest = number.max(*highest);
        }
        drop(witness);
        if let Some(rekey) = &mut self.rekey {
            let _ = rekey.handle_datagram(source, self.local, datagram, now);
        }
    }

    fn settle(&mut self, now: BootTime) {
        let mut registered = None;
        if let Some(registration) = &mut self.registration {
            while let Some(event) = registration.poll_event() {
                match event {
                    RegistrationEvent::PolicyOffered(_) => registration.accept_policy(now),
                    RegistrationEvent::Registered(sa) => registered = Some(Arc::new(sa)),
                    RegistrationEvent::Failed(failure) => {
                        let refused = matches!(failure, RegistrationFailure::Refused { .. });
                        self.handle.view.lock().unwrap().refused += u64::from(refused);
                        self.again_at = Some(now + AGAIN);
                    }
                    _ => {}
                }
            }
            while let Some(transmit) = registration.poll_transmit() {
                let _ = self.socket.send_to(&transmit.payload, transmit.destination);
            }
        }
        if let Some(sa) = registered {
            self.take(&sa, now);
        }
        let mut events = Vec::new();
        if let Some(rekey) = &mut self.rekey {
            events.extend(std::iter::from_fn(|| rekey.poll_event()));
            while let Some(transmit) = rekey.poll_transmit() {
                let _ = self.socket.send_to(&transmit.payload, transmit.destination);
            }
        }
        for event in events {
            self.carry_out(event, now);
        }
        let kek = self
            .rekey
            .as_ref()
            .and_then(|rekey| Some((rekey.policy()?.spi, rekey.sequence_number()?)));
        let pulling = self.is_registering() || self.again_at.is_some();
        let mut view = self.handle.view.lock().unwrap();
        (view.kek, view.pulling) = (kek, pulling);
    }

    fn take(&mut self, sa: &Arc<GroupSa>, now: BootTime) {
        let mut witness = self.witness.lock().unwrap();
        witness.learn(sa);
        witness.take_senders(self.group, sa);
        drop(witness);
        let new = RekeyMember::new(sa, settings(self.local), now).unwrap();
        self.rekey = match (new, self.rekey.take()) {
            (Some(new), Some(old)) => Some(new.continuing(old)),
            (new, _) => new,
        };
        let mut view = self.handle.view.lock().unwrap();
        view.pulls += 1;
        view.teks = sa.tek_keys().keys().copied().collect();
    }

    fn carry_out(&mut self, event: RekeyEvent, now: BootTime) {
        let RekeyEvent::Accepted(push) = event else {
            self.again_at = Some(now);
            return;
        };
        let mut view = self.handle.view.lock().unwrap();
        view.pushes += 1;
        if !push.deletions.is_empty() {
            view.teks.clear();
        }
        if let Some(sa) = push.group_sa {
            if !sa.tek_keys().is_empty() {
                view.teks = sa.tek_keys().keys().copied().collect();
            }
            self.witness.lock().unwrap().learn(&Arc::new(sa));
        }
        if let Some(transmit) = push.acknowledgement {
            let _ = self.socket.send_to(&transmit.payload, transmit.destination);
        }
        if push.kek == KekChange::Deleted {
            self.rekey = None;
            self.again_at = Some(now);
        }
    }
}

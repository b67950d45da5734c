//! UDP sockets: one for each address that registrations leave from, and one for each multicast
//! group of pushes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use daemon::udp::{BindError, Incoming, Receiver, Socket};
use futures_util::future::select_all;
use gdoi::event::Transmit;
use ike::BootTime;

use crate::membership::local_interface::Multicast;
use crate::membership::unreachable::Unreachable;

/// Pause before a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Room for what arrives while the kernel is updated, as the key server has it; in the default one
/// a flood of unicast noise displaces pushes.
const RECEIVE_BUFFER: usize = 4 << 20;

#[derive(Debug)]
struct Bound {
    socket: Socket,
    receiver: Receiver,
}

/// A socket that could not be opened: when to try again, and why.
#[derive(Debug)]
struct NotOpen {
    at: BootTime,
    problem: String,
}

#[derive(Debug)]
pub enum Received {
    Datagram {
        source: SocketAddr,
        /// Where it was sent to: an address of ours, or a multicast group.
        local: SocketAddr,
        octets: Vec<u8>,
    },
    /// An ICMP error about a datagram of ours, which anyone can forge.
    Unreachable(Unreachable),
    /// Receiving failed at one socket, which pauses for a moment.
    Failed(io::Error),
}

#[derive(Debug)]
pub struct Sockets {
    port: u16,
    /// Whether ESP arrives here in UDP.
    esp: bool,
    /// Addresses within a VRF, and its device.
    vrfs: BTreeMap<IpAddr, String>,
    bound: BTreeMap<IpAddr, Bound>,
    /// Addresses without a socket.
    missing: BTreeMap<IpAddr, NotOpen>,
    joined: BTreeMap<Multicast, Bound>,
    /// Multicast groups that could not be joined.
    not_joined: BTreeMap<Multicast, NotOpen>,
    /// Position of the socket that is asked first: the one behind that which had something last, so
    /// that none can keep the others waiting.
    first: usize,
}

impl Sockets {
    /// No socket yet; `port` is the local port of all.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            esp: false,
            vrfs: BTreeMap::new(),
            bound: BTreeMap::new(),
            missing: BTreeMap::new(),
            joined: BTreeMap::new(),
            not_joined: BTreeMap::new(),
            first: 0,
        }
    }

    /// No socket yet; ESP arrives in UDP at `port` as well, for the kernel to take out.
    pub fn for_esp(port: u16) -> Self {
        Self { esp: true, ..Self::new(port) }
    }

    /// Opens sockets for the addresses that are new and closes those of addresses that are gone.
    /// Returns what could not be opened; it is tried again when the pause is over.
    pub fn set(&mut self, addresses: &BTreeSet<IpAddr>, now: BootTime) -> Vec<BindError> {
        self.bound.retain(|address, _| addresses.contains(address));
        self.missing.retain(|address, _| addresses.contains(address));
        let mut errors = Vec::new();
        for address in addresses {
            if self.bound.contains_key(address)
                || self.missing.get(address).is_some_and(|one| one.at > now)
            {
                continue;
            }
            let local = SocketAddr::new(*address, self.port);
            let opened = match self.vrfs.get(address) {
                Some(device) => Socket::bind_in_vrf(local, device),
                None => Socket::bind(local),
            };
            match opened.and_then(|socket| self.prepare(socket, local)) {
                Ok(socket) => {
                    socket.reserve_receive_buffer(RECEIVE_BUFFER);
                    self.missing.remove(address);
                    self.bound.insert(*address, Bound { socket, receiver: Receiver::default() });
                }
                Err(error) => {
                    let problem = format!("a socket cannot be opened: {error}");
                    self.missing.insert(*address, NotOpen { at: now + RETRY, problem });
                    errors.push(error);
                }
            }
        }
        errors
    }

    fn prepare(&self, socket: Socket, local: SocketAddr) -> Result<Socket, BindError> {
        match self.esp.then(|| socket.decapsulate_esp()) {
            Some(Err(source)) => Err(BindError { local, source }),
            Some(Ok(())) | None => Ok(socket),
        }
    }

    /// Says which addresses are within a VRF, before [`Sockets::set`]. A socket belongs to its VRF
    /// for good: one whose VRF is another now is opened again.
    pub fn set_vrfs(&mut self, vrfs: BTreeMap<IpAddr, String>) {
        self.bound.retain(|address, _| self.vrfs.get(address) == vrfs.get(address));
        self.vrfs = vrfs;
    }

    /// Joins the multicast groups that are new and leaves those that are gone. Returns what could
    /// not be joined; it is tried again when the pause is over.
    pub fn join(&mut self, groups: &BTreeSet<Multicast>, now: BootTime) -> Vec<BindError> {
        self.joined.retain(|group, _| groups.contains(group));
        self.not_joined.retain(|group, _| groups.contains(group));
        let mut errors = Vec::new();
        for group in groups {
            if self.joined.contains_key(group)
                || self.not_joined.get(group).is_some_and(|one| one.at > now)
            {
                continue;
            }
            match Socket::join(group.group, group.port, group.interface, group.vrf.as_deref()) {
                Ok(socket) => {
                    socket.reserve_receive_buffer(RECEIVE_BUFFER);
                    self.not_joined.remove(group);
                    self.joined
                        .insert(group.clone(), Bound { socket, receiver: Receiver::default() });
                }
                Err(error) => {
                    let problem = format!("multicast pushes are not received: {error}");
                    self.not_joined.insert(group.clone(), NotOpen { at: now + RETRY, problem });
                    errors.push(error);
                }
            }
        }
        errors
    }

    /// When [`Sockets::set`] or [`Sockets::join`] has something to try again.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        self.not_open().map(|one| one.at).min()
    }

    /// What could not be opened, each with its remedy.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.not_open().map(|one| one.problem.clone())
    }

    fn not_open(&self) -> impl Iterator<Item = &NotOpen> {
        self.missing.values().chain(self.not_joined.values())
    }

    /// The local port of all sockets.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for what arrives next on any socket. Cancel safe.
    pub async fn receive(&mut self) -> Received {
        if self.bound.is_empty() && self.joined.is_empty() {
            return std::future::pending().await;
        }
        let sockets = self.bound.values_mut().chain(self.joined.values_mut());
        let mut receives: Vec<_> = sockets.map(|bound| Box::pin(receive_one(bound))).collect();
        let count = receives.len();
        let first = self.first % count;
        receives.rotate_left(first);
        let (received, position, _) = select_all(receives).await;
        self.first = (first + position + 1) % count;
        received
    }

    /// Sends a datagram from the address that it names as its source.
    ///
    /// # Errors
    /// There is no socket for that address, or what the kernel says.
    pub fn send(&self, transmit: &Transmit) -> io::Result<()> {
        match self.bound.get(&transmit.source.ip()) {
            Some(bound) => bound.socket.send(transmit),
            None => Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "no socket for the local address",
            )),
        }
    }
}

async fn receive_one(bound: &mut Bound) -> Received {
    match bound.receiver.receive(&bound.socket).await {
        Ok((Incoming::Datagram { source, local, .. }, octets)) => {
            Received::Datagram { source, local, octets: octets.to_vec() }
        }
        Ok((Incoming::Unreachable { destination, error, reporter }, _)) => {
            Received::Unreachable(Unreachable { destination, error, reporter })
        }
        Err(error) => Received::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn multicast(group: [u8; 4], port: u16) -> Multicast {
        Multicast { group: group.into(), port, interface: 1, vrf: None }
    }

    /// Pushes need no unicast socket: its address may be gone for a while.
    #[tokio::test]
    async fn pushes_arrive_while_no_unicast_socket_is_bound() {
        let mut member = Sockets::new(28_486);
        let group = multicast([239, 255, 84, 2], 28_486);
        if !member.join(&[group.clone()].into(), at(0)).is_empty() {
            eprintln!("not tested: loopback is no multicast interface here");
            return;
        }
        let sender = Socket::bind("127.0.84.6:0".parse().unwrap()).unwrap();
        let destination = SocketAddr::new(group.group, 28_486);
        let (source, payload) = (sender.local(), b"push".to_vec());
        sender.send_multicast(&Transmit { destination, source, payload }, Some(1), 1).unwrap();
        let received = tokio::time::timeout(Duration::from_secs(5), member.receive()).await;
        assert!(matches!(received, Ok(Received::Datagram { .. })), "{received:?}");
    }

    #[tokio::test]
    async fn a_socket_for_each_address_and_none_for_those_gone() {
        let (one, two) = (IpAddr::from([127, 0, 84, 1]), IpAddr::from([127, 0, 84, 2]));
        let mut member = Sockets::new(28_481);
        assert!(member.set(&[one, two].into(), at(0)).is_empty());
        let datagram = |source: IpAddr, destination: IpAddr| Transmit {
            destination: SocketAddr::new(destination, 28_481),
            source: SocketAddr::new(source, 28_481),
            payload: b"octets".to_vec(),
        };
        member.send(&datagram(one, two)).unwrap();
        match member.receive().await {
            Received::Datagram { source, octets, .. } => {
                assert_eq!((source.ip(), octets.as_slice()), (one, &b"octets"[..]));
            }
            other => panic!("{other:?}"),
        }
        assert!(member.set(&[two].into(), at(1)).is_empty());
        assert!(member.send(&datagram(one, two)).is_err());
    }

    /// A flood at one socket lets every datagram of the others through, one in turn.
    #[tokio::test]
    async fn noise_at_one_socket_does_not_keep_the_others_waiting() {
        let (noisy, quiet) = (IpAddr::from([127, 0, 84, 3]), IpAddr::from([127, 0, 84, 4]));
        let mut member = Sockets::new(28_485);
        assert!(member.set(&[noisy, quiet].into(), at(0)).is_empty());
        let group = multicast([239, 255, 84, 1], 28_485);
        // A machine without multicast on its loopback has two sockets only.
        let _ = member.join(&[group.clone()].into(), at(0));
        let sender = std::net::UdpSocket::bind("127.0.84.5:0").unwrap();
        let pushes = [quiet, group.group].map(|to| (to, !member.joined.is_empty()));
        for _ in 0..200 {
            sender.send_to(b"noise", (noisy, 28_485)).unwrap();
        }
        let mut expected = 0;
        for (to, _) in pushes.into_iter().filter(|(to, joined)| *joined || !to.is_multicast()) {
            for _ in 0..10 {
                expected += usize::from(sender.send_to(b"push", (to, 28_485)).is_ok());
            }
        }
        let mut pushed = 0;
        for _ in 0..3 * expected {
            match member.receive().await {
                Received::Datagram { octets, .. } => pushed += usize::from(octets == b"push"),
                other => panic!("{other:?}"),
            }
        }
        assert!(pushed >= 20.min(expected), "{pushed} of {expected}");
    }

    #[tokio::test]
    async fn an_address_that_is_not_there_is_tried_again_later() {
        let gone = IpAddr::from([192, 0, 2, 200]);
        let mut member = Sockets::new(28_482);
        assert_eq!(member.set(&[gone].into(), at(0)).len(), 1);
        assert_eq!(member.poll_timeout(), Some(at(5)));
        assert_eq!(member.set(&[gone].into(), at(1)).len(), 0);
        assert_eq!(member.set(&[gone].into(), at(5)).len(), 1);
        assert_eq!(member.set(&BTreeSet::new(), at(6)).len(), 0);
        assert_eq!(member.poll_timeout(), None);
    }
}

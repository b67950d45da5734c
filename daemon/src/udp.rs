//! A UDP socket that knows which of our addresses a datagram was sent to, sends from a chosen one,
//! and hears ICMP errors (IP_PKTINFO, IP_RECVERR; for IPv6 their counterparts).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use gdoi::event::Transmit;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Type};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Octets of a buffer that takes the longest datagram of IPv4 and IPv6.
pub const LONGEST_DATAGRAM: usize = 65_535;

/// A socket could not be opened.
#[derive(Debug, Error)]
#[error("UDP {local}: {source}; {}", remedy(.source))]
pub struct BindError {
    /// The address asked for.
    pub local: SocketAddr,
    /// What the kernel says.
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process holds this port: find it with `ss -ulnp` and stop it"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface has this address: add it or listen on another one"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: start the daemon by its systemd unit or as root"
        }
        _ => "check the address and the limits of this process",
    }
}

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A datagram; its octets are at the start of the buffer.
    Datagram {
        /// Who sent it.
        source: SocketAddr,
        /// Which of our addresses it was sent to.
        local: SocketAddr,
        /// Its length in octets.
        length: usize,
    },
    /// An ICMP error about a datagram of ours. Anyone on the path, and some off it, can forge one.
    Unreachable {
        /// Where our datagram went.
        destination: SocketAddr,
        /// The error number that the kernel makes of it.
        error: i32,
    },
}

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    descriptor: UdpSocket,
    local: SocketAddr,
}

impl Socket {
    /// Binds `local`, which may be the unspecified address. Needs a running tokio reactor.
    ///
    /// # Errors
    /// The address is missing, taken or needs a capability; the error says which and what to do.
    pub fn bind(local: SocketAddr) -> Result<Self, BindError> {
        Self::open(local).map_err(|source| BindError { local, source })
    }

    /// Joins the IPv4 multicast group `group` on the interface with this number and hears its
    /// datagrams to `port` alone. Needs a running tokio reactor.
    ///
    /// # Errors
    /// The interface is gone or knows no multicast, or the port is taken.
    pub fn join(group: Ipv4Addr, port: u16, interface: u32) -> Result<Self, BindError> {
        let local = SocketAddr::new(group.into(), port);
        let open = || {
            let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            // Several groups may push to one multicast group, on several interfaces.
            socket.set_reuse_address(true)?;
            socket.bind(&local.into())?;
            // Otherwise what other sockets of the machine joined would arrive here too.
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))?;
            Self::finish(socket)
        };
        open().map_err(|source| BindError { local, source })
    }

    fn open(local: SocketAddr) -> io::Result<Self> {
        let socket =
            socket2::Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        if local.is_ipv6() {
            // IPv4 has sockets of its own, so that an address never shows in two forms.
            socket.set_only_v6(true)?;
        }
        socket.bind(&local.into())?;
        Self::finish(socket)
    }

    fn finish(socket: socket2::Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = std::net::UdpSocket::from(socket);
        if socket.local_addr()?.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        let local = socket.local_addr()?;
        Ok(Self { descriptor: UdpSocket::from_std(socket)?, local })
    }

    /// The bound address and port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks the kernel for a receive buffer of so many octets. It grants what its limits allow, and
    /// less is no error: then a burst loses datagrams that the peers send again.
    pub fn reserve(&self, octets: usize) {
        if let Err(errno) = setsockopt(&self.descriptor, sockopt::RcvBuf, &octets) {
            tracing::debug!(%errno, "receive buffer not changed");
        }
    }

    /// Waits for the next datagram or ICMP error. Cancel safe.
    ///
    /// A datagram longer than `buffer` is cut; with [`LONGEST_DATAGRAM`] octets none is.
    ///
    /// # Errors
    /// The kernel reports something that is neither; the socket stays usable.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Incoming> {
        loop {
            let ready = self.descriptor.ready(Interest::READABLE | Interest::ERROR).await?;
            // One at a time: `try_io` knows no combinations.
            let interest = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
            match self.descriptor.try_io(interest, || self.receive_now(buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// One attempt; fails with `WouldBlock` only when neither queue holds anything.
    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Incoming> {
        loop {
            if let Some(unreachable) = self.receive_error()? {
                return Ok(unreachable);
            }
            match self.receive_datagram(buffer) {
                Ok(Some(datagram)) => return Ok(datagram),
                Ok(None) => {}
                // The error of an ICMP message whose queue entry was taken above, or is taken next.
                Err(errno) if is_icmp(errno) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn receive_datagram(&self, buffer: &mut [u8]) -> Result<Option<Incoming>, Errno> {
        let mut slices = [IoSliceMut::new(buffer)];
        let mut control =
            cmsg_space!(libc::in6_pktinfo, libc::sock_extended_err, libc::sockaddr_in6);
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(self.raw(), &mut slices, Some(&mut control), flags)?;
        let local = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
            }
            _ => None,
        });
        let local = SocketAddr::new(local.unwrap_or(self.local.ip()), self.local.port());
        let source = message.address.as_ref().and_then(socket_address);
        let length = message.bytes;
        Ok(source.map(|source| Incoming::Datagram { source, local, length }))
    }

    fn receive_error(&self) -> io::Result<Option<Incoming>> {
        // Nothing of our own datagram is wanted back.
        let mut nothing = [0; 1];
        let mut slices = [IoSliceMut::new(&mut nothing)];
        let mut control =
            cmsg_space!(libc::in6_pktinfo, libc::sock_extended_err, libc::sockaddr_in6);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_ERRQUEUE;
        let message =
            match recvmsg::<SockaddrStorage>(self.raw(), &mut slices, Some(&mut control), flags) {
                Ok(message) => message,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
        let error = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error.ee_errno),
            _ => None,
        });
        let destination = message.address.as_ref().and_then(socket_address);
        Ok(destination.zip(error).map(|(destination, error)| Incoming::Unreachable {
            destination,
            error: i32::try_from(error).unwrap_or(i32::MAX),
        }))
    }

    /// Sends one datagram from the address it names as its source; the port is the bound one.
    ///
    /// # Errors
    /// No route, the source address is gone, the datagram is too long: what the kernel says.
    pub async fn send(&self, transmit: &Transmit) -> io::Result<()> {
        self.send_on(transmit, 0, None).await
    }

    /// Sends one datagram to a multicast group, by the interface with this number or else by the
    /// one that has the source address. `ttl` is the number of routers that it may pass, and one;
    /// the kernel's default is one.
    ///
    /// # Errors
    /// As for [`Socket::send`], or the interface is gone.
    pub async fn send_multicast(
        &self,
        transmit: &Transmit,
        interface: Option<u32>,
        ttl: u8,
    ) -> io::Result<()> {
        self.send_on(transmit, interface.unwrap_or_default(), Some(ttl)).await
    }

    async fn send_on(
        &self,
        transmit: &Transmit,
        interface: u32,
        ttl: Option<u8>,
    ) -> io::Result<()> {
        // An ICMP error of an earlier datagram is reported by the next call, which then sends
        // nothing; that says nothing about this datagram.
        let mut stale_errors = 0;
        loop {
            self.descriptor.writable().await?;
            match self
                .descriptor
                .try_io(Interest::WRITABLE, || Ok(self.send_now(transmit, interface, ttl)?))
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error)
                    if stale_errors < 2
                        && error
                            .raw_os_error()
                            .is_some_and(|code| is_icmp(Errno::from_raw(code))) =>
                {
                    stale_errors += 1;
                }
                done => return done,
            }
        }
    }

    fn send_now(&self, transmit: &Transmit, interface: u32, ttl: Option<u8>) -> Result<(), Errno> {
        let hops = ttl.map(libc::c_int::from);
        let slices = [IoSlice::new(&transmit.payload)];
        let flags = MsgFlags::MSG_DONTWAIT;
        match (transmit.source.ip(), transmit.destination) {
            (IpAddr::V4(source), SocketAddr::V4(destination)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: libc::c_int::try_from(interface).map_err(|_| Errno::ENODEV)?,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let hops = hops.as_ref().map(ControlMessage::Ipv4Ttl);
                let control: Vec<_> =
                    hops.into_iter().chain([ControlMessage::Ipv4PacketInfo(&info)]).collect();
                sendmsg(
                    self.raw(),
                    &slices,
                    &control,
                    flags,
                    Some(&SockaddrIn::from(destination)),
                )?;
            }
            (IpAddr::V6(source), SocketAddr::V6(destination)) => {
                let address = libc::in6_addr { s6_addr: source.octets() };
                let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: interface };
                let hops = hops.as_ref().map(ControlMessage::Ipv6HopLimit);
                let control: Vec<_> =
                    hops.into_iter().chain([ControlMessage::Ipv6PacketInfo(&info)]).collect();
                sendmsg(
                    self.raw(),
                    &slices,
                    &control,
                    flags,
                    Some(&SockaddrIn6::from(destination)),
                )?;
            }
            _ => return Err(Errno::EAFNOSUPPORT),
        }
        Ok(())
    }

    fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

fn is_icmp(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::EACCES
    )
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4(SocketAddrV4::from(*address)));
    v4.or_else(|| {
        address.as_sockaddr_in6().map(|address| SocketAddr::V6(SocketAddrV6::from(*address)))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn any_port(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 0)
    }

    async fn exchange(server: Socket, server_address: &str, client: Socket, client_address: &str) {
        let source = SocketAddr::new(client_address.parse().unwrap(), client.local().port());
        let destination = SocketAddr::new(server_address.parse().unwrap(), server.local().port());
        client
            .send(&Transmit { destination, source, payload: b"question".to_vec() })
            .await
            .unwrap();
        let mut buffer = [0; 64];
        let incoming = server.receive(&mut buffer).await.unwrap();
        assert_eq!(incoming, Incoming::Datagram { source, local: destination, length: 8 });
        assert_eq!(&buffer[..8], b"question");
        server
            .send(&Transmit {
                destination: source,
                source: destination,
                payload: b"answer".to_vec(),
            })
            .await
            .unwrap();
        let incoming = client.receive(&mut buffer).await.unwrap();
        assert_eq!(incoming, Incoming::Datagram { source: destination, local: source, length: 6 });
    }

    #[tokio::test]
    async fn an_answer_leaves_from_the_address_that_was_asked() {
        let server = Socket::bind(any_port("0.0.0.0")).unwrap();
        let client = Socket::bind(any_port("0.0.0.0")).unwrap();
        exchange(server, "127.0.0.7", client, "127.0.0.9").await;
    }

    #[tokio::test]
    async fn ipv6_works_alike() {
        let Ok(server) = Socket::bind(any_port("::1")) else {
            eprintln!("this machine has no IPv6 loopback");
            return;
        };
        let client = Socket::bind(any_port("::1")).unwrap();
        exchange(server, "::1", client, "::1").await;
    }

    #[tokio::test]
    async fn an_icmp_error_names_where_our_datagram_went() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let destination = closed.local_addr().unwrap();
        drop(closed);
        let client = Socket::bind(any_port("127.0.0.1")).unwrap();
        let transmit = Transmit { destination, source: client.local(), payload: vec![0; 10] };
        client.send(&transmit).await.unwrap();
        let mut buffer = [0; 64];
        let incoming = tokio::time::timeout(Duration::from_secs(5), client.receive(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(incoming, Incoming::Unreachable { destination, error: libc::ECONNREFUSED });
        // The socket goes on: with the error still pending, the next datagram leaves all the same.
        client.send(&transmit).await.unwrap();
        let listening = Socket::bind(any_port("127.0.0.1")).unwrap();
        client
            .send(&Transmit {
                destination: listening.local(),
                source: client.local(),
                payload: vec![1; 3],
            })
            .await
            .unwrap();
        let incoming = listening.receive(&mut buffer).await.unwrap();
        assert_eq!(
            incoming,
            Incoming::Datagram { source: client.local(), local: listening.local(), length: 3 }
        );
    }

    #[tokio::test]
    async fn a_multicast_group_is_heard_on_the_interface_it_was_joined_on_alone() {
        let group = Ipv4Addr::new(239, 192, 84, 8);
        let Ok(loopback) = nix::net::if_::if_nametoindex("lo") else {
            eprintln!("this machine has no loopback interface");
            return;
        };
        let Ok(listening) = Socket::join(group, 28_483, loopback) else {
            eprintln!("this machine's loopback knows no multicast");
            return;
        };
        assert!(Socket::join(group, 28_483, u32::MAX >> 1).is_err());
        let sender = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        sender.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        let destination = SocketAddr::new(group.into(), 28_483);
        if sender.send_to(b"push", &destination.into()).is_err() {
            eprintln!("this machine's loopback has no route for multicast");
            return;
        }
        let mut buffer = [0; 64];
        let incoming = tokio::time::timeout(Duration::from_secs(5), listening.receive(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(
            matches!(incoming, Incoming::Datagram { local, length: 4, .. } if local == destination)
        );
    }

    #[tokio::test]
    async fn a_datagram_to_a_multicast_group_leaves_by_the_interface_and_with_the_hops_asked_for() {
        let group = Ipv4Addr::new(239, 192, 84, 9);
        let Ok(loopback) = nix::net::if_::if_nametoindex("lo") else {
            eprintln!("this machine has no loopback interface");
            return;
        };
        let Ok(listening) = Socket::join(group, 28_484, loopback) else {
            eprintln!("this machine's loopback knows no multicast");
            return;
        };
        setsockopt(&listening.descriptor, sockopt::Ipv4RecvTtl, &true).unwrap();
        let sender = Socket::bind(any_port("127.0.0.1")).unwrap();
        let destination = SocketAddr::new(group.into(), 28_484);
        let transmit = Transmit { destination, source: sender.local(), payload: b"push".to_vec() };
        assert!(
            sender.send_multicast(&transmit, Some(u32::MAX >> 1), 9).await.is_err(),
            "there is no such interface"
        );
        for (interface, ttl) in [(Some(loopback), 9), (None, 200)] {
            if sender.send_multicast(&transmit, interface, ttl).await.is_err() {
                eprintln!("this machine's loopback has no route for multicast");
                return;
            }
            listening.descriptor.readable().await.unwrap();
            let (mut buffer, mut control) = ([0; 64], cmsg_space!(libc::in_pktinfo, libc::c_int));
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let received = recvmsg::<SockaddrStorage>(
                listening.raw(),
                &mut slices,
                Some(&mut control),
                MsgFlags::empty(),
            );
            let hops = received.unwrap().cmsgs().unwrap().find_map(|control| match control {
                ControlMessageOwned::Ipv4Ttl(hops) => Some(hops),
                _ => None,
            });
            assert_eq!(hops, Some(i32::from(ttl)));
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_remedy() {
        let first = Socket::bind(any_port("127.0.0.1")).unwrap();
        let error = Socket::bind(first.local()).unwrap_err().to_string();
        assert!(error.contains("ss -ulnp"), "{error}");
        let error = Socket::bind(any_port("192.0.2.77")).unwrap_err().to_string();
        assert!(error.contains("no interface has this address"), "{error}");
    }

    #[tokio::test]
    async fn the_longest_datagram_arrives_whole() {
        let server = Socket::bind(any_port("127.0.0.1")).unwrap();
        let client = Socket::bind(any_port("127.0.0.1")).unwrap();
        let payload = vec![7; 65_507];
        client
            .send(&Transmit { destination: server.local(), source: client.local(), payload })
            .await
            .unwrap();
        let mut buffer = vec![0; LONGEST_DATAGRAM];
        let incoming = server.receive(&mut buffer).await.unwrap();
        assert_eq!(
            incoming,
            Incoming::Datagram { source: client.local(), local: server.local(), length: 65_507 }
        );
    }
}

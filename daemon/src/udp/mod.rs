//! A UDP socket that knows which of our addresses a datagram was sent to, sends from a chosen one,
//! and hears ICMP errors (IP_PKTINFO, IP_RECVERR; for IPv6 their counterparts).

mod backlog;
mod encapsulation;
mod error;
mod receiver;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gdoi::event::Transmit;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::Instant;

use tracing::debug;

pub use self::backlog::LONGEST_WAIT;
use self::backlog::{Backlog, Waiting};
pub use self::error::{BindError, error_text};
pub use self::receiver::Receiver;

/// Octets of a buffer that takes the longest datagram of IPv4 and IPv6.
pub const LONGEST_DATAGRAM: usize = 65_535;

/// Octets that the kernel is asked to keep of what we send.
const SEND_BUFFER: usize = 4 * 1024 * 1024;

/// Pause between two attempts to send what waits.
const RETRY: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A datagram; its octets are at the start of the buffer.
    Datagram {
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
        /// Who says so: a router, or the host itself. `None` for an error of our own kernel.
        reporter: Option<IpAddr>,
    },
}

#[derive(Debug)]
pub struct Socket {
    descriptor: UdpSocket,
    local: SocketAddr,
    backlog: Mutex<Backlog>,
    /// What may take a part of the send buffer only.
    bulk: Mutex<Backlog>,
    /// Octets of the send buffer as the kernel counts them.
    send_buffer: usize,
    /// Wakes the receiver when the backlog is no longer empty.
    queued: Notify,
}

impl Socket {
    /// Binds `local`, which may be the unspecified address. Needs a running tokio reactor.
    ///
    /// # Errors
    /// The address is missing, taken or needs a capability; the error says which and what to do.
    pub fn bind(local: SocketAddr) -> Result<Self, BindError> {
        Self::open(local, None, false).map_err(|source| BindError { local, source })
    }

    /// As [`Socket::bind`], also to an address that this machine may get later.
    ///
    /// # Errors
    /// As [`Socket::bind`], but for a missing address.
    pub fn bind_ahead(local: SocketAddr) -> Result<Self, BindError> {
        Self::open(local, None, true).map_err(|source| BindError { local, source })
    }

    /// As [`Socket::bind`], within a VRF: its addresses exist there alone, and so do its routes.
    /// `device` is the VRF device.
    ///
    /// # Errors
    /// As [`Socket::bind`]; also where there is no such device.
    pub fn bind_in_vrf(local: SocketAddr, device: &str) -> Result<Self, BindError> {
        Self::open(local, Some(device), false).map_err(|source| BindError { local, source })
    }

    /// Joins the multicast group `group` on the interface with this number and hears its
    /// datagrams to `port` alone. An interface within a VRF needs the device of the VRF: the kernel
    /// hides what arrives there from other sockets. Needs a running tokio reactor.
    ///
    /// # Errors
    /// The interface is gone or knows no multicast, or the port is taken.
    pub fn join(
        group: IpAddr,
        port: u16,
        interface: u32,
        vrf: Option<&str>,
    ) -> Result<Self, BindError> {
        let local = SocketAddr::new(group, port);
        let open = || {
            let socket =
                socket2::Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
            // Several groups may push to one multicast group, on several interfaces.
            socket.set_reuse_address(true)?;
            if let Some(device) = vrf {
                socket.bind_device(Some(device.as_bytes()))?;
            }
            socket.bind(&local.into())?;
            // Otherwise what other sockets of the machine joined would arrive here too.
            match group {
                IpAddr::V4(group) => {
                    socket.set_multicast_all_v4(false)?;
                    socket
                        .join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))?;
                }
                IpAddr::V6(group) => {
                    socket.set_multicast_all_v6(false)?;
                    socket.join_multicast_v6(&group, interface)?;
                }
            }
            Self::finish(socket)
        };
        open().map_err(|source| BindError { local, source })
    }

    fn open(local: SocketAddr, device: Option<&str>, is_ahead: bool) -> io::Result<Self> {
        let socket =
            socket2::Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        if local.is_ipv6() {
            // IPv4 has sockets of its own, so that an address never shows in two forms.
            socket.set_only_v6(true)?;
        }
        // Of IPv6, such a socket could also send from addresses that are none of ours.
        match local {
            _ if !is_ahead || local.ip().is_unspecified() => {}
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
        if let Some(device) = device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        socket.bind(&local.into())?;
        Self::finish(socket)
    }

    fn finish(socket: socket2::Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // More than the 212,992 octets that the kernel keeps for one neighbor without an ARP
        // answer, so that a host that is switched off cannot take the whole buffer. It grants what
        // net.core.wmem_max allows, twice, which is enough with the default.
        if let Err(error) = socket.set_send_buffer_size(SEND_BUFFER) {
            debug!(event = "send-buffer-unchanged", %error, "send buffer unchanged");
        }
        let send_buffer = socket.send_buffer_size()?;
        let socket = std::net::UdpSocket::from(socket);
        if socket.local_addr()?.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        let local = socket.local_addr()?;
        Ok(Self {
            descriptor: UdpSocket::from_std(socket)?,
            local,
            backlog: Mutex::default(),
            bulk: Mutex::default(),
            send_buffer,
            queued: Notify::new(),
        })
    }

    /// The bound address and port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks the kernel for a receive buffer of so many octets. It grants what its limits allow, and
    /// less is no error: then a burst loses datagrams that the peers send again.
    pub fn reserve_receive_buffer(&self, octets: usize) {
        if let Err(errno) = setsockopt(&self.descriptor, sockopt::RcvBuf, &octets) {
            debug!(event = "receive-buffer-unchanged", %errno, "receive buffer unchanged");
        }
    }

    /// Has the kernel take ESP out of the UDP that arrives here (RFC 3948 §3), and ignore what keeps
    /// translations alive. Messages with four octets of zero in front arrive as before.
    ///
    /// # Errors
    /// The kernel has no IPsec.
    pub fn decapsulate_esp(&self) -> io::Result<()> {
        setsockopt(&self.descriptor, encapsulation::UdpEncapsulation, &encapsulation::ESP_IN_UDP)?;
        Ok(())
    }

    /// Waits for the next datagram or ICMP error. Cancel safe.
    ///
    /// A datagram longer than `buffer` is cut; with [`LONGEST_DATAGRAM`] octets none is.
    ///
    /// # Errors
    /// The kernel reports something that is neither; the socket stays usable.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Incoming> {
        loop {
            self.backlog().flush(Instant::now(), |datagram| self.attempt(datagram));
            self.flush_bulk();
            let ready = tokio::select! {
                ready = self.descriptor.ready(Interest::READABLE | Interest::ERROR) => ready?,
                () = self.backlog_due() => continue,
            };
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
            ControlMessageOwned::Ipv4RecvErr(error, from) => {
                let from = from.map(|from| Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)));
                Some((error.ee_errno, from.map(IpAddr::V4)))
            }
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                let from = from.map(|from| Ipv6Addr::from(from.sin6_addr.s6_addr));
                Some((error.ee_errno, from.map(IpAddr::V6)))
            }
            _ => None,
        });
        let destination = message.address.as_ref().and_then(socket_address);
        Ok(destination.zip(error).map(|(destination, (error, from))| Incoming::Unreachable {
            destination,
            error: i32::try_from(error).unwrap_or(i32::MAX),
            reporter: from.filter(|from| !from.is_unspecified()),
        }))
    }

    /// Sends one datagram from the address it names as its source; the port is the bound one.
    ///
    /// Never waits. What the kernel does not take at once waits in a bounded queue for at most
    /// [`LONGEST_WAIT`], while [`Socket::receive`] is polled.
    ///
    /// # Errors
    /// No route, the source address is gone, the datagram is too long: what the kernel says.
    /// `WouldBlock`: the queue is full and the datagram is dropped; the protocol retransmits.
    pub fn send(&self, transmit: &Transmit) -> io::Result<()> {
        self.send_on(transmit, 0, None)
    }

    /// Sends one datagram of many that go to different hosts: as [`Socket::send`], but leaves half of
    /// the send buffer to others. The kernel keeps a datagram for seconds whose receiver answers no
    /// ARP, so hundreds of those fill what they may fill.
    ///
    /// # Errors
    /// As for [`Socket::send`].
    pub fn send_bulk(&self, transmit: &Transmit) -> io::Result<()> {
        let mut bulk = self.bulk();
        let sent = self.with_reserve(|| {
            bulk.send(transmit, 0, None, Instant::now(), |datagram| self.attempt(datagram))
        });
        if !bulk.is_empty() {
            self.queued.notify_one();
        }
        sent
    }

    fn flush_bulk(&self) {
        let mut bulk = self.bulk();
        if !bulk.is_empty() {
            self.with_reserve(|| bulk.flush(Instant::now(), |datagram| self.attempt(datagram)));
        }
    }

    /// Runs `send` while the send buffer counts as full when half of it is taken.
    fn with_reserve<T>(&self, send: impl FnOnce() -> T) -> T {
        let limit = |octets: usize| {
            // The kernel doubles what it is given.
            let socket = socket2::SockRef::from(&self.descriptor);
            if let Err(error) = socket.set_send_buffer_size(octets / 2) {
                tracing::debug!(event = "send-buffer-unchanged", %error, "send buffer unchanged");
            }
        };
        limit(self.send_buffer / 2);
        let sent = send();
        limit(self.send_buffer);
        sent
    }

    /// Sends one datagram to a multicast group, by the interface with this number or else by the
    /// one that has the source address. `ttl` is the number of routers that it may pass, and one;
    /// the kernel's default is one.
    ///
    /// # Errors
    /// As for [`Socket::send`], or the interface is gone.
    pub fn send_multicast(
        &self,
        transmit: &Transmit,
        interface: Option<u32>,
        ttl: u8,
    ) -> io::Result<()> {
        self.send_on(transmit, interface.unwrap_or_default(), Some(ttl))
    }

    /// Datagrams that were dropped because the kernel did not take them in time.
    pub fn dropped(&self) -> u64 {
        self.backlog().dropped().saturating_add(self.bulk().dropped())
    }

    fn send_on(&self, transmit: &Transmit, interface: u32, ttl: Option<u8>) -> io::Result<()> {
        let mut backlog = self.backlog();
        let sent = backlog
            .send(transmit, interface, ttl, Instant::now(), |datagram| self.attempt(datagram));
        if !backlog.is_empty() {
            self.queued.notify_one();
        }
        sent
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        // A queue of datagrams has no state that a panic elsewhere could have left half done.
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bulk(&self) -> MutexGuard<'_, Backlog> {
        self.bulk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the backlog may be worth another attempt. Cancel safe.
    async fn backlog_due(&self) {
        // Not for writability: once an ICMP error has arrived, tokio calls the socket writable
        // for ever, and the task would spin.
        if self.backlog().is_empty() && self.bulk().is_empty() {
            self.queued.notified().await;
        } else {
            tokio::time::sleep(RETRY).await;
        }
    }

    fn attempt(&self, datagram: &Waiting<'_>) -> Result<(), Errno> {
        // An ICMP error of an earlier datagram is reported by the next call, which then sends
        // nothing; that says nothing about this datagram.
        let mut stale_errors = 0;
        loop {
            match self.send_now(&datagram.transmit, datagram.interface, datagram.ttl) {
                Err(errno) if stale_errors < 2 && is_icmp(errno) => stale_errors += 1,
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
mod tests;

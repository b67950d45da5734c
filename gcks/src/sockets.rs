//! The sockets: one task each receives into a bounded queue; the loop sends.

use std::net::SocketAddr;
use std::sync::Arc;

use daemon::udp::{BindError, Incoming, Receiver, Socket};
use gdoi::event::Transmit;
use gdoi::wire::registry::GROUPKEY_PUSH;
use ike::wire::header;
use nix::net::if_::if_nametoindex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::config::MulticastPath;

/// Datagrams that wait for the loop. What does not fit stays in the kernel's buffer, and is dropped
/// there in a flood.
const QUEUE: usize = 1024;

/// A datagram as it came in.
#[derive(Debug)]
pub struct Received {
    pub source: SocketAddr,
    /// Which of our addresses it was sent to.
    pub local: SocketAddr,
    pub octets: Vec<u8>,
}

/// All sockets of the server.
#[derive(Debug)]
pub struct Network {
    sockets: Vec<Arc<Socket>>,
    receivers: JoinSet<()>,
    queue: mpsc::Receiver<Received>,
    /// Whether datagrams may name the address of another server as their source.
    continues: bool,
}

impl Network {
    /// Binds every address, and asks for a receive buffer of so many octets for each. Needs a running tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be bound; none is bound then.
    pub fn bind(listen: &[SocketAddr], buffer: u32) -> Result<Self, BindError> {
        Self::bind_by(listen, buffer, Socket::bind)
    }

    /// As [`Network::bind`], also addresses that this machine does not have yet: one that moves
    /// between servers comes when it comes. What another server has begun goes on from this one's
    /// address then.
    ///
    /// # Errors
    /// As for [`Network::bind`].
    pub fn bind_ahead(listen: &[SocketAddr], buffer: u32) -> Result<Self, BindError> {
        Ok(Self { continues: true, ..Self::bind_by(listen, buffer, Socket::bind_ahead)? })
    }

    fn bind_by(
        listen: &[SocketAddr],
        buffer: u32,
        bind: impl Fn(SocketAddr) -> Result<Socket, BindError>,
    ) -> Result<Self, BindError> {
        let sockets = listen
            .iter()
            .map(|address| bind(*address).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let mut receivers = JoinSet::new();
        for socket in &sockets {
            socket.reserve_receive_buffer(usize::try_from(buffer).unwrap_or(usize::MAX));
            receivers.spawn(receive(Arc::clone(socket), sender.clone()));
        }
        Ok(Self { sockets, receivers, queue, continues: false })
    }

    /// Where it listens; with port 0 in the configuration, the port that was found.
    pub fn local(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.local()).collect()
    }

    /// The next datagram. Cancel safe.
    pub async fn receive(&mut self) -> Option<Received> {
        self.queue.recv().await
    }

    /// A datagram that waits already.
    pub fn receive_now(&mut self) -> Option<Received> {
        self.queue.try_recv().ok()
    }

    /// Sends a datagram from the address it names; one to a multicast group on this path.
    ///
    /// # Errors
    /// What the kernel says, or there is no such interface; the member will ask again.
    pub fn send(&self, transmit: &Transmit, path: &MulticastPath) -> std::io::Result<()> {
        let source = transmit.source;
        let own = |socket: &&Arc<Socket>| {
            let local = socket.local();
            local.port() == source.port()
                && local.is_ipv4() == source.is_ipv4()
                && (local.ip() == source.ip() || local.ip().is_unspecified())
        };
        let sent = match self.sockets.iter().find(own) {
            Some(socket) if transmit.destination.ip().is_multicast() => {
                // By name every time: an interface that is made again has another number.
                let interface = path.interface.as_deref().map(interface_number).transpose()?;
                socket.send_multicast(transmit, interface, path.ttl)
            }
            Some(socket) if is_push(&transmit.payload) => socket.send_bulk(transmit),
            Some(socket) => socket.send(transmit),
            None => Err(std::io::ErrorKind::AddrNotAvailable.into()),
        };
        match sent {
            Err(error) if self.continues && is_foreign(&error) => {
                self.send_from_here(transmit).unwrap_or(Err(error))
            }
            sent => sent,
        }
    }

    /// Sends for the server that registered a member, from the address that the kernel prefers.
    fn send_from_here(&self, transmit: &Transmit) -> Option<std::io::Result<()>> {
        let is_like_it = |socket: &&Arc<Socket>| {
            let local = socket.local();
            local.port() == transmit.source.port() && local.is_ipv4() == transmit.source.is_ipv4()
        };
        let socket = self.sockets.iter().find(is_like_it)?;
        let source = socket.local();
        let Transmit { destination, payload, .. } = transmit;
        let transmit = Transmit { source, destination: *destination, payload: payload.clone() };
        (!destination.ip().is_multicast()).then(|| socket.send(&transmit))
    }

    pub fn close(&mut self) {
        self.receivers.abort_all();
        self.queue.close();
    }
}

/// Whether the kernel says that the source address is none of this machine.
fn is_foreign(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::AddrNotAvailable | ErrorKind::InvalidInput | ErrorKind::NetworkUnreachable
    )
}

/// Pushes go to all members at once, also to hundreds that are switched off; answers to others must
/// not wait behind them.
fn is_push(datagram: &[u8]) -> bool {
    header::split(datagram).is_ok_and(|(header, _)| header.exchange == GROUPKEY_PUSH)
}

fn interface_number(name: &str) -> std::io::Result<u32> {
    if_nametoindex(name).map_err(|errno| {
        let message =
            format!("multicast-interface {name}: {errno}; create it, or name another one");
        std::io::Error::new(std::io::Error::from(errno).kind(), message)
    })
}

async fn receive(socket: Arc<Socket>, queue: mpsc::Sender<Received>) {
    let mut receiver = Receiver::default();
    loop {
        match receiver.receive(&socket).await {
            Ok((Incoming::Datagram { source, local, .. }, octets)) => {
                if queue.send(Received { source, local, octets: octets.to_vec() }).await.is_err() {
                    return;
                }
            }
            // The initiator repeats, not we: an answer that did not arrive is asked for again.
            Ok((Incoming::Unreachable { destination, error, .. }, _)) => {
                debug!(event = "icmp-error", %destination, error, "ICMP error for an answer");
            }
            Err(error) => {
                warn!(event = "receive-failed", %error, listen = %socket.local(), "receiving failed, retrying");
            }
        }
    }
}

//! One netlink socket: a request, its answers, its acknowledgement, and a limit on the time.
//!
//! Written directly on the socket instead of on netlink-proto: requests and dumps hold keys, and
//! here every buffer is wiped and none is logged.

use core::fmt::Display;
use core::future::poll_fn;
use core::marker::PhantomData;
use core::ops::Deref;
use core::time::Duration;
use std::io::ErrorKind;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};
use zeroize::{Zeroize, Zeroizing};

use crate::attribute::{array, find, text};
use crate::error::{EINTR, ENOBUFS, Error};

/// How long the kernel may take for one answer. It answers at once, but for the first use of an
/// algorithm, when it loads modules meanwhile.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

const MESSAGE_HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Larger than any datagram of the kernel: dumps come in pieces of at most 32 KiB.
const RECEIVE: usize = 64 * 1024;
/// For tables with many prefixes: a transaction is one datagram, so that a table is replaced as a
/// whole or not at all. A limit; the kernel takes no memory for it.
const SEND: usize = 128 << 20;
/// `NLMSGERR_ATTR_MSG` of an extended acknowledgement: the kernel's own words.
const EXT_ACK_TEXT: u16 = 1;

pub(crate) trait Family {
    const PROTOCOL: isize;
}

/// XFRM: states and policies.
pub(crate) struct Xfrm;
pub(crate) struct Netfilter;
/// rtnetlink: links, addresses and routes.
pub(crate) struct Route;

impl Family for Xfrm {
    const PROTOCOL: isize = 6;
}

impl Family for Netfilter {
    const PROTOCOL: isize = 12;
}

impl Family for Route {
    const PROTOCOL: isize = 0;
}

/// A message as received.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Port of the socket whose request made the kernel send this; 0 for the kernel itself.
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

/// A socket for requests to one family.
pub(crate) struct Channel<F> {
    socket: TokioSocket,
    port: u32,
    sequence: u32,
    family: PhantomData<F>,
}

impl<F: Family> Channel<F> {
    pub(crate) fn open() -> Result<Self, Error> {
        let mut socket = TokioSocket::new(F::PROTOCOL).map_err(failed("open"))?;
        let inner = socket.socket_mut();
        let address = inner.bind_auto().map_err(failed("bind"))?;
        // Without it the kernel sends the whole request, keys included, back with every error.
        inner.set_cap_ack(true).map_err(failed("set NETLINK_CAP_ACK"))?;
        inner.set_ext_ack(true).map_err(failed("set NETLINK_EXT_ACK"))?;
        // Linux 4.20: rtnetlink leaves out what a dump did not ask for. Older ones send all, and it
        // is sorted out here.
        let _ = inner.set_netlink_get_strict_chk(true);
        // Best effort: a refusal shows as a clear error only if a transaction is that large.
        let _ = setsockopt(inner, sockopt::SndBufForce, &SEND);
        Ok(Self { socket, port: address.port_number(), sequence: 0, family: PhantomData })
    }

    /// The socket's address, which events name as their cause.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Makes one change and waits for its acknowledgement.
    pub(crate) async fn change(
        &mut self,
        operation: impl Display + Copy,
        kind: u16,
        flags: u16,
        body: &[u8],
    ) -> Result<(), Error> {
        self.request(operation, kind, flags | NLM_F_ACK, body, |_| Ok(())).await
    }

    pub(crate) async fn query(
        &mut self,
        operation: impl Display + Copy,
        kind: u16,
        body: &[u8],
        each: impl FnMut(Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.request(operation, kind, NLM_F_ACK, body, each).await
    }

    /// Reads everything of a kind.
    pub(crate) async fn dump(
        &mut self,
        operation: impl Display + Copy,
        kind: u16,
        body: &[u8],
        each: impl FnMut(Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.request(operation, kind, NLM_F_DUMP, body, each).await
    }

    async fn request(
        &mut self,
        operation: impl Display + Copy,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let sequence = self.next_sequence();
        let mut datagram = Zeroizing::new(Vec::with_capacity(MESSAGE_HEADER + body.len() + 4));
        push_message(&mut datagram, kind, flags | NLM_F_REQUEST, sequence, self.port, body);
        let mut interrupted = false;
        self.exchange(operation, &datagram, |message| {
            if message.sequence != sequence {
                return Ok(false);
            }
            interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                ERROR | DONE => outcome(operation, &message).map(|()| true),
                _ => each(message).map(|()| false),
            }
        })
        .await?;
        if interrupted {
            Err(Error::from_errno(operation.to_string(), EINTR, None))
        } else {
            Ok(())
        }
    }

    fn next_sequence(&mut self) -> u32 {
        // 0 is what events carry.
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// Sends and receives until `each` says that this was the last message.
    async fn exchange(
        &mut self,
        operation: impl Display + Copy,
        datagram: &[u8],
        mut each: impl FnMut(Message<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let socket = &mut self.socket;
        let whole = async {
            let kernel = SocketAddr::new(0, 0);
            poll_fn(|context| socket.poll_send_to(context, datagram, &kernel))
                .await
                .map_err(failed("send"))?;
            loop {
                let answer = match received(socket)? {
                    Some(answer) => answer,
                    None => receive(socket).await?,
                };
                let mut outcome = Ok(false);
                for message in messages(&answer) {
                    match each(message) {
                        Ok(false) => {}
                        last => {
                            outcome = last;
                            break;
                        }
                    }
                }
                if outcome? {
                    return Ok(());
                }
            }
        };
        let late = |_| Error::Timeout { operation: operation.to_string(), limit: LIMIT };
        tokio::time::timeout(LIMIT, whole).await.map_err(late)?
    }
}

impl Channel<Netfilter> {
    /// Sends a transaction: all of `messages` (kind, flags, body) happen, or none.
    pub(crate) async fn transaction(
        &mut self,
        operation: impl Display + Copy,
        begin: (u16, &[u8]),
        messages: &[(u16, u16, Vec<u8>)],
        end: (u16, &[u8]),
    ) -> Result<(), Error> {
        let first = self.next_sequence();
        let mut datagram = Zeroizing::new(Vec::new());
        push_message(&mut datagram, begin.0, NLM_F_REQUEST, first, self.port, begin.1);
        let mut last = first;
        for (position, (kind, flags, body)) in messages.iter().enumerate() {
            last = self.next_sequence();
            // One acknowledgement is enough: a message that fails is answered in any case.
            let ack = if position + 1 == messages.len() { NLM_F_ACK } else { 0 };
            push_message(&mut datagram, *kind, flags | ack | NLM_F_REQUEST, last, self.port, body);
        }
        let after = self.next_sequence();
        push_message(&mut datagram, end.0, NLM_F_REQUEST, after, self.port, end.1);
        let mut failure = None;
        self.exchange(operation, &datagram, |message| {
            if message.kind != ERROR
                || message.sequence.wrapping_sub(first) > after.wrapping_sub(first)
            {
                return Ok(false);
            }
            if let Err(error) = outcome(operation, &message) {
                failure.get_or_insert(error);
            }
            Ok(message.sequence == last || message.sequence == first || message.sequence == after)
        })
        .await?;
        failure.map_or(Ok(()), Err)
    }
}

/// A socket that only listens.
pub(crate) struct Listener {
    socket: TokioSocket,
}

impl Listener {
    /// Listens to these groups with a large buffer.
    pub(crate) fn open<F: Family>(_: F, groups: &[u32]) -> Result<Self, Error> {
        let mut socket = TokioSocket::new(F::PROTOCOL).map_err(failed("open"))?;
        let inner = socket.socket_mut();
        inner.bind_auto().map_err(failed("bind"))?;
        let _ = setsockopt(inner, sockopt::RcvBufForce, &(4 << 20));
        for group in groups {
            inner.add_membership(*group).map_err(failed("join a group"))?;
        }
        Ok(Self { socket })
    }

    /// Lets the kernel leave out what this program does not accept. Best effort: what comes all the
    /// same is looked at once more.
    pub(crate) fn filter(self, program: &[SockFilter]) -> Self {
        let _ = SockRef::from(self.socket.socket_ref()).attach_filter(program);
        self
    }

    /// The next datagram. `Err(Overrun)` when the kernel had to drop some; the socket goes on
    /// working.
    pub(crate) async fn receive(&mut self) -> Result<Received, Error> {
        receive(&mut self.socket).await
    }
}

/// A datagram of the kernel, wiped when dropped. Only what was received: the buffer is far larger.
pub(crate) struct Received(Vec<u8>);

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

/// Holds no buffer while there is nothing to receive: a few of that size make the allocator give
/// pages back to the kernel and ask for them again at every turn of the event loop.
async fn receive(socket: &mut TokioSocket) -> Result<Received, Error> {
    poll_fn(|context| {
        let mut buffer = Received(Vec::with_capacity(RECEIVE));
        socket.poll_recv(context, &mut buffer.0).map_ok(|()| buffer)
    })
    .await
    .map_err(not_received)
}

/// What is there already. The kernel answers most requests before it returns from their sending,
/// and what need not be waited for takes no turn of the event loop.
fn received(socket: &TokioSocket) -> Result<Option<Received>, Error> {
    let mut buffer = Received(Vec::with_capacity(RECEIVE));
    match socket.socket_ref().recv(&mut buffer.0, 0) {
        Ok(_) => Ok(Some(buffer)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(not_received(error)),
    }
}

fn not_received(error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(ENOBUFS) => Error::Overrun,
        _ => failed("receive")(error),
    }
}

/// The messages of one datagram. Stops at the first that does not fit.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    core::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(array(datagram, 0)?)).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes(array(datagram, 4)?),
            flags: u16::from_ne_bytes(array(datagram, 6)?),
            sequence: u32::from_ne_bytes(array(datagram, 8)?),
            port: u32::from_ne_bytes(array(datagram, 12)?),
            body: datagram.get(MESSAGE_HEADER..length)?,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn push_message(
    datagram: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    body: &[u8],
) {
    let length = u32::try_from(MESSAGE_HEADER + body.len()).unwrap_or(u32::MAX);
    datagram.extend_from_slice(&length.to_ne_bytes());
    datagram.extend_from_slice(&kind.to_ne_bytes());
    datagram.extend_from_slice(&flags.to_ne_bytes());
    datagram.extend_from_slice(&sequence.to_ne_bytes());
    // XFRM's events name as their cause what the request says here.
    datagram.extend_from_slice(&port.to_ne_bytes());
    datagram.extend_from_slice(body);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
}

/// What an acknowledgement, an error or the end of a dump says.
fn outcome(operation: impl Display + Copy, message: &Message<'_>) -> Result<(), Error> {
    let code = array(message.body, 0).map_or(0, i32::from_ne_bytes);
    if code == 0 {
        return Ok(());
    }
    let said = message.body.get(4..).and_then(words);
    Err(Error::from_errno(operation.to_string(), code, said.filter(|_| message.kind == ERROR)))
}

/// The kernel's own words, from what follows the code of an error.
pub(crate) fn words(after: &[u8]) -> Option<String> {
    // With NETLINK_CAP_ACK that is only the header of the request.
    find(after.get(MESSAGE_HEADER..)?, EXT_ACK_TEXT).map(text)
}

pub(crate) fn failed(operation: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::Socket { operation, errno: error.raw_os_error() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut datagram = Vec::new();
        push_message(&mut datagram, 0x10, 5, 7, 0, b"abc");
        push_message(&mut datagram, 2, 0, 8, 0, &(-17i32).to_ne_bytes());
        let read: Vec<_> = messages(&datagram).collect();
        assert_eq!(
            (read[0].kind, read[0].flags, read[0].sequence, read[0].body),
            (0x10, 5, 7, &b"abc"[..])
        );
        let error = outcome("add", &read[1]).unwrap_err();
        assert_eq!(error.errno(), Some(17));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn stops_at_a_message_that_does_not_fit() {
        let mut datagram = Vec::new();
        push_message(&mut datagram, 0x10, 5, 7, 0, b"abcd");
        for length in 0..datagram.len() {
            assert_eq!(messages(&datagram[..length]).count(), 0);
        }
        datagram[..4].copy_from_slice(&8u32.to_ne_bytes());
        assert_eq!(messages(&datagram).count(), 0);
    }

    #[test]
    fn shows_the_kernels_own_words() {
        let mut body = (-38i32).to_ne_bytes().to_vec();
        body.extend([0; 16]);
        body.extend(b"\x0a\0\x01\0no ESP\0\0\0");
        let message = Message { kind: ERROR, flags: 0, sequence: 1, port: 0, body: &body };
        assert!(outcome("install", &message).unwrap_err().to_string().contains("no ESP"));
    }
}

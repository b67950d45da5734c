//! The daemon's end of the control socket. Requests reach the task that owns the daemon's state as
//! [`Call`]s.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::framing::{FrameError, REQUEST_LIMIT, read_line};
use crate::protocol::{ErrorCode, Refusal, Request, Response};
use crate::socket::{Access, Listener, Peer, groups_of};

/// Connections at a time.
pub const CONNECTIONS: usize = 16;
/// Connections beyond those for peers that may command: whoever may only look, and holds all the
/// others, does not lock root out.
pub const RESERVED: usize = 4;
/// How long a connection may wait between requests, or leave an answer unread.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long the daemon's task may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Wait after a failed accept, which a lack of file descriptors causes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A request for the task that owns the daemon's state.
#[derive(Debug)]
pub struct Call {
    request: Request,
    reply: oneshot::Sender<Response>,
}

impl Call {
    /// The request that the client waits for.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Answers. A client that has gone does not matter.
    pub fn answer(self, response: Response) {
        let _ = self.reply.send(response);
    }
}

/// Serves `listener` until the receiver of `calls` is dropped. A small channel does: every
/// connection has at most one call under way.
pub async fn serve(listener: Listener, access: Access, calls: mpsc::Sender<Call>) {
    let places = Places::new();
    let mut next = Instant::now();
    loop {
        let accepted = async {
            sleep_until(next).await;
            listener.accept().await
        };
        let stream = tokio::select! {
            () = calls.closed() => return,
            accepted = accepted => match accepted {
                Ok(stream) => stream,
                Err(_) => {
                    next = Instant::now() + ACCEPT_PAUSE;
                    continue;
                }
            },
        };
        let Ok(credentials) = stream.peer_cred() else { continue };
        let peer = Peer { uid: credentials.uid(), gid: credentials.gid() };
        let Some(place) = places.take(access.commands(peer)) else {
            let message = format!("{CONNECTIONS} connections are open already: close one");
            // Not awaited: a stranger that does not read must not hold up the others.
            let line = Response::Refused(Refusal::new(ErrorCode::Busy, message)).to_line();
            let _ = stream.try_write(&line);
            continue;
        };
        let calls = calls.clone();
        tokio::spawn(async move {
            // A connection that fails concerns its client only, and the client sees it.
            let _ = connection(stream, peer, access, calls).await;
            drop(place);
        });
    }
}

/// Places for connections, given back when they are dropped.
#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
}

impl Places {
    fn new() -> Self {
        let [all, reserved] = [CONNECTIONS, RESERVED].map(|count| Arc::new(Semaphore::new(count)));
        Self { all, reserved }
    }

    fn take(&self, commands: bool) -> Option<OwnedSemaphorePermit> {
        let reserved = || self.reserved.clone().try_acquire_owned().ok().filter(|_| commands);
        self.all.clone().try_acquire_owned().ok().or_else(reserved)
    }
}

async fn connection(
    mut stream: UnixStream,
    peer: Peer,
    access: Access,
    calls: mpsc::Sender<Call>,
) -> io::Result<()> {
    let admitted = tokio::task::spawn_blocking(move || access.admits(peer, || groups_of(peer)))
        .await
        .unwrap_or(false);
    let (read, mut write) = stream.split();
    if !admitted {
        let message = "only root and the daemon's user and group may ask: use sudo, or join the daemon's group";
        return send(&mut write, &Response::Refused(Refusal::new(ErrorCode::NotAllowed, message)))
            .await;
    }
    let mut reader = BufReader::new(read);
    loop {
        let line = match timeout(PATIENCE, read_line(&mut reader, REQUEST_LIMIT)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Err(FrameError::TooLong { limit })) => {
                let message = format!("a request has at most {limit} octets");
                return send(
                    &mut write,
                    &Response::Refused(Refusal::new(ErrorCode::TooLong, message)),
                )
                .await;
            }
            Ok(Ok(None) | Err(_)) | Err(_) => return Ok(()),
        };
        let response = match Request::from_line(&line) {
            Ok(request) if request.is_command() && !access.commands(peer) => {
                let message = format!(
                    "{request}: only root and the daemon's own user may change something: use sudo"
                );
                Response::Refused(Refusal::new(ErrorCode::NotAllowed, message))
            }
            Ok(request) => ask(&calls, request).await,
            Err(refusal) => Response::Refused(refusal),
        };
        send(&mut write, &response).await?;
    }
}

async fn ask(calls: &mpsc::Sender<Call>, request: Request) -> Response {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        calls.send(Call { request, reply }).await.ok()?;
        answer.await.ok()
    };
    match timeout(ANSWER, asked).await {
        Ok(Some(response)) => response,
        Ok(None) => {
            Response::Refused(Refusal::new(ErrorCode::Unavailable, "the daemon is going down"))
        }
        Err(_) => Response::Refused(Refusal::new(
            ErrorCode::Unavailable,
            format!("the daemon did not answer within {} s: see its log", ANSWER.as_secs()),
        )),
    }
}

async fn send<W: AsyncWriteExt + Unpin>(write: &mut W, response: &Response) -> io::Result<()> {
    timeout(PATIENCE, write.write_all(&response.to_line()))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_only_look_leaves_places_to_those_who_command() {
        let places = Places::new();
        let held: Vec<_> = std::iter::from_fn(|| places.take(false)).collect();
        assert_eq!(held.len(), CONNECTIONS);
        let commanding: Vec<_> = std::iter::from_fn(|| places.take(true)).collect();
        assert_eq!(commanding.len(), RESERVED);
        assert!(places.take(false).is_none());
        drop(commanding);
        assert!(places.take(false).is_none() && places.take(true).is_some());
        drop(held);
        assert!(places.take(false).is_some());
    }
}

//! The daemon's end of the control socket. Requests reach the task that owns the daemon's state as
//! [`Call`]s.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::framing::{FrameError, REQUEST_LIMIT, read_line};
use crate::protocol::{ErrorCode, Refusal, Request, Response};
use crate::socket::{Access, Listener, Peer, groups_of};

/// Connections at a time.
pub const CONNECTIONS: usize = 16;
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
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = tokio::select! {
            () = calls.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok(stream) => stream,
                Err(_) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let message = format!("{CONNECTIONS} connections are open already: close one");
            // Not awaited: a stranger that does not read must not hold up the others.
            let line = Response::Refused(Refusal::new(ErrorCode::Busy, message)).to_line();
            let _ = stream.try_write(&line);
            continue;
        };
        let calls = calls.clone();
        tokio::spawn(async move {
            // A connection that fails concerns its client only, and the client sees it.
            let _ = connection(stream, access, calls).await;
            drop(place);
        });
    }
}

async fn connection(
    mut stream: UnixStream,
    access: Access,
    calls: mpsc::Sender<Call>,
) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    let peer = Peer { uid: credentials.uid(), gid: credentials.gid() };
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

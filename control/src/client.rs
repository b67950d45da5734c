//! The asking end of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::framing::{FrameError, RESPONSE_LIMIT, read_line};
use crate::protocol::{Daemon, Refusal, Request, Response};

/// How long an answer may take. Longer than the daemon's own limit, so that its explanation
/// arrives.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
pub enum ClientError {
    #[error(
        "{path}: the daemon is not running; start it (systemctl start {unit}), or name its socket with --socket"
    )]
    NotRunning {
        path: PathBuf,
        /// The unit that usually listens there.
        unit: &'static str,
    },
    /// The file system keeps us out.
    #[error("{path}: permission denied; use sudo, or join the group that owns the socket")]
    Denied { path: PathBuf },
    #[error("{path}: cannot talk to the daemon: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// What came is no response.
    #[error("{path}: {source}")]
    Frame { path: PathBuf, source: FrameError },
    /// The daemon closed the connection without an answer.
    #[error("{path}: the daemon closed the connection without an answer")]
    Closed { path: PathBuf },
    /// No answer came in time.
    #[error("{path}: no answer within {seconds} s; see the daemon's log", seconds = PATIENCE.as_secs())]
    TimedOut { path: PathBuf },
    /// The daemon refused, or its response is not understood.
    #[error("{path}: {source}")]
    Refused { path: PathBuf, source: Refusal },
}

/// Asks once. A [`Response::Refused`] comes back as [`ClientError::Refused`].
///
/// # Errors
/// [`ClientError`]: one line that names the socket and the remedy.
pub async fn ask(path: &Path, request: Request) -> Result<Response, ClientError> {
    match timeout(PATIENCE, exchange(path, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(ClientError::TimedOut { path: path.to_owned() }),
    }
}

async fn exchange(path: &Path, request: Request) -> Result<Response, ClientError> {
    let at = || path.to_owned();
    let mut stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            let unit = match request.served_by() {
                Daemon::Member => "gdoi-agent",
                Daemon::Server => "gcks",
            };
            ClientError::NotRunning { path: at(), unit }
        }
        io::ErrorKind::PermissionDenied => ClientError::Denied { path: at() },
        _ => ClientError::Io { path: at(), source },
    })?;
    // A daemon that refuses the connection answers before it reads; its explanation matters more
    // than our line.
    let written = stream.write_all(&request.to_line()).await;
    let mut reader = BufReader::new(stream);
    let line = match read_line(&mut reader, RESPONSE_LIMIT).await {
        Ok(Some(line)) => line,
        Ok(None) => {
            return Err(match written {
                Ok(()) => ClientError::Closed { path: at() },
                Err(source) => ClientError::Io { path: at(), source },
            });
        }
        Err(source) => return Err(ClientError::Frame { path: at(), source }),
    };
    match Response::from_line(&line) {
        Ok(Response::Refused(source)) | Err(source) => {
            Err(ClientError::Refused { path: at(), source })
        }
        Ok(response) => Ok(response),
    }
}

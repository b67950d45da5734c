//! The socket file: a stale one is replaced, a live one is not, and only root, the daemon's user
//! and the daemon's group get in.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist};
use tokio::net::{UnixListener, UnixStream};

/// Mode of the socket file.
const MODE: u32 = 0o660;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages explain the fields")]
pub enum BindError {
    /// Another process answers there.
    #[error(
        "{path}: another process listens on this control socket; stop it, or set another control-socket"
    )]
    InUse { path: PathBuf },
    /// Something else has the name.
    #[error("{path}: exists and is not a socket; remove it, or set another control-socket")]
    NotASocket { path: PathBuf },
    /// The folder is missing.
    #[error(
        "{path}: the folder does not exist; create it (the systemd unit's RuntimeDirectory= does)"
    )]
    NoFolder { path: PathBuf },
    #[error("{path}: cannot {what} the control socket: {source}")]
    Io { path: PathBuf, what: &'static str, source: io::Error },
}

/// A control socket that is listened on. Its file goes with it.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    listener: UnixListener,
}

impl Listener {
    /// Listens at `path`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`], which names the path and the remedy.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what| move |source| BindError::Io { path: path.to_owned(), what, source };
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(BindError::NotASocket { path: path.to_owned() });
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed("replace"))?;
                }
                // Somebody accepts, or accepts too slowly, or keeps us out: alive in any case.
                _ => return Err(BindError::InUse { path: path.to_owned() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path
                    .parent()
                    .is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.exists())
                {
                    return Err(BindError::NoFolder { path: path.to_owned() });
                }
            }
            Err(error) => return Err(failed("examine")(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed("create"))?;
        let listener = Self { path: path.to_owned(), listener };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))
            .map_err(failed("set the mode of"))?;
        Ok(listener)
    }

    /// Path of the socket in the file system.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // At worst a stale file stays, and the next start replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who a peer is, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id of the process that connected.
    pub uid: u32,
    /// Effective group id of the process that connected.
    pub gid: u32,
}

/// Who gets in: root, one user, one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    uid: u32,
    gid: u32,
}

impl Access {
    /// Root, and this process's own user and group.
    pub fn own() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    /// Root, and the user and group given.
    pub fn of(uid: u32, gid: u32) -> Self {
        Self { uid, gid }
    }

    /// Whether `peer` gets in. `groups` yields the peer's supplementary groups and is asked only if
    /// it matters.
    pub fn admits(&self, peer: Peer, groups: impl FnOnce() -> Vec<u32>) -> bool {
        self.commands(peer) || peer.gid == self.gid || groups().contains(&self.gid)
    }

    /// Whether `peer` may change something: the group may only look.
    pub fn commands(&self, peer: Peer) -> bool {
        peer.uid == 0 || peer.uid == self.uid
    }
}

/// The groups of a user by the system's user database; none if it has no such user. Blocks.
pub(crate) fn groups_of(peer: Peer) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(peer.uid)) else { return Vec::new() };
    let Ok(name) = std::ffi::CString::new(user.name) else { return Vec::new() };
    let groups = getgrouplist(&name, Gid::from_raw(peer.gid)).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

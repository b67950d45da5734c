//! Requests and responses, and the envelope that carries them (`PROTOCOL.md` §2).
//!
//! ```text
//! -> {"version":1,"request":"show-member"}
//! <- {"version":1,"response":{"member":{..}}}
//! <- {"version":1,"response":{"refused":{"code":"unknown-request","message":".."}}}
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::edit::{EditArgument, EditedConfiguration};
use crate::key_server::{ServerIsakmpSa, ServerSnapshot};
use crate::member::MemberSnapshot;
use crate::tunnel::TunnelsSnapshot;

/// Version of the protocol. It changes when a client of the old version could misread an answer; a
/// new field is no reason, because unknown fields are ignored.
pub const VERSION: u32 = 1;

/// What a client asks a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Everything a member can show. Only `gdoi-agent` answers it.
    ShowMember,
    /// Every site-to-site tunnel. Only `gdoi-agent` answers it.
    ShowTunnel,
    /// Everything a key server can show. Only `gcks` answers it.
    ShowServer,
    /// Pull the keys of a group now. `gdoi-agent`.
    Register(GroupArgument),
    /// Push new keys to the members of a group now. `gcks`, as all that follow.
    Rekey(GroupArgument),
    /// Delete the data keys of a group at its members and push new ones.
    Replace(GroupArgument),
    /// Delete all keys of a group at its members; they register again.
    Delete(GroupArgument),
    /// Evict a member from a group: it gets no new keys and cannot register.
    Remove(MemberArgument),
    /// Delete all keys of a group at its members and forget the members and their ISAKMP SAs.
    RemoveAll(GroupArgument),
    /// Let a member register again that was removed.
    Admit(MemberArgument),
    /// Every ISAKMP SA of a key server. `gcks`.
    ShowServerIke,
    /// Replace the keys of a group, or of all, or delete them and forget the members. `gcks`.
    ClearServer(ClearArgument),
    /// Let a key server count from 0 again. `gcks`.
    ClearServerStatistics,
    /// End the ISAKMP SAs with the other servers of the cluster, and begin again. `gcks`.
    ClearServerCluster,
    /// Pull the keys of a group, or of all, again. `gdoi-agent`.
    ClearMember(ClearMemberArgument),
    /// Read the configuration again, or show what that would change. Either daemon.
    Reload(ReloadArgument),
    /// The text of the configuration with a change, and what would follow. `gdoi-agent`.
    Edit(EditArgument),
}

/// How the configuration is to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadArgument {
    /// Whether nothing is to be changed.
    pub dry_run: bool,
}

/// What is to be cleared at a key server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearArgument {
    /// Name of the group in the daemon's configuration; absent for all groups.
    pub group: Option<String>,
    /// Whether the keys are deleted at once, and the members forgotten.
    pub now: bool,
}

/// What is to be cleared at a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearMemberArgument {
    /// Name of the group in the daemon's configuration; absent for all groups.
    pub group: Option<String>,
}

/// The group that a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupArgument {
    /// Its name in the daemon's configuration.
    pub group: String,
}

/// The member of a group that a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberArgument {
    /// Name of the group in the daemon's configuration.
    pub group: String,
    /// Name of the member in the daemon's configuration.
    pub member: String,
}

/// The daemon that answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// A group member, `gdoi-agent`.
    Member,
    /// A key server, `gcks`.
    Server,
}

/// What a daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Answers [`Request::ShowMember`] with everything there is.
    Member(Box<MemberSnapshot>),
    /// Answers [`Request::ShowTunnel`] with everything there is.
    Tunnels(Box<TunnelsSnapshot>),
    /// Answers [`Request::ShowServer`] with everything there is.
    Server(Box<ServerSnapshot>),
    /// Answers [`Request::ShowServerIke`].
    IsakmpSas(Vec<ServerIsakmpSa>),
    /// To a request that changes something: it was carried out.
    Done(Completed),
    /// Answers [`Request::Reload`]: what changed, or would.
    Configuration(Box<ConfigurationChanges>),
    /// To [`Request::Edit`]: nothing has been done.
    Edited(Box<EditedConfiguration>),
    /// The request was not carried out.
    Refused(Refusal),
}

/// What differs between the configuration in use and the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationChanges {
    /// Whether this is what a reload would do, and nothing was done.
    pub dry_run: bool,
    /// What the configuration's check warns about, one line each.
    pub warnings: Vec<String>,
    /// The differences, in the order in which they are carried out.
    pub changes: Vec<ConfigurationChange>,
}

/// One option with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationChange {
    /// Whose option it is: `server`, or a kind and a name, as in `group branches`.
    pub subject: String,
    /// Name of the option.
    pub option: String,
    /// Its value so far, where it had one that may be shown.
    pub before: Option<String>,
    /// Its new value, likewise.
    pub after: Option<String>,
    /// What follows from the change for members and keys.
    pub consequences: Vec<ConfigurationConsequence>,
}

/// What follows from a changed option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationConsequence {
    /// A name that stays, for programs.
    pub name: String,
    /// The same for people.
    pub text: String,
}

/// A command was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// One clear line, for people.
    pub message: String,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// The kind, for programs.
    pub code: ErrorCode,
    /// One clear line, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with a line for the operator.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// This daemon does not know the answer; the other kind of daemon does.
    pub fn not_served_here(daemon: &str, request: &Request) -> Self {
        Self::new(
            ErrorCode::NotServedHere,
            format!("{daemon} does not answer {request}: wrong --socket?"),
        )
    }
}

/// Why a request was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The line is no JSON object with a version and a request.
    Malformed,
    /// The line is longer than the limit. The connection is closed.
    TooLong,
    /// The version is not ours.
    Version,
    /// The request is unknown.
    UnknownRequest,
    /// The other kind of daemon answers this.
    NotServedHere,
    /// There is no such group.
    UnknownGroup,
    /// There is no such member.
    UnknownMember,
    /// The daemon's configuration or state does not allow it.
    NotPossible,
    /// The peer is neither root nor of the daemon's user or group. The connection is closed.
    NotAllowed,
    /// Too many connections. The connection is closed.
    Busy,
    /// The daemon is going down or is stuck.
    Unavailable,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::Version => "version",
            Self::UnknownRequest => "unknown-request",
            Self::NotServedHere => "not-served-here",
            Self::UnknownGroup => "unknown-group",
            Self::UnknownMember => "unknown-member",
            Self::NotPossible => "not-possible",
            Self::NotAllowed => "not-allowed",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
        })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShowMember => "show-member",
            Self::ShowTunnel => "show-tunnel",
            Self::ShowServer => "show-server",
            Self::Register(_) => "register",
            Self::Rekey(_) => "rekey",
            Self::Replace(_) => "replace",
            Self::Delete(_) => "delete",
            Self::Remove(_) => "remove",
            Self::RemoveAll(_) => "remove-all",
            Self::Admit(_) => "admit",
            Self::ShowServerIke => "show-server-ike",
            Self::ClearServer(_) => "clear-server",
            Self::ClearServerStatistics => "clear-server-statistics",
            Self::ClearServerCluster => "clear-server-cluster",
            Self::ClearMember(_) => "clear-member",
            Self::Reload(ReloadArgument { dry_run: false }) => "reload",
            Self::Reload(ReloadArgument { dry_run: true }) => "reload --dry-run",
            Self::Edit(argument) => return argument.fmt(f),
        })
    }
}

#[derive(Serialize)]
struct RequestEnvelope<'a> {
    version: u32,
    request: &'a Request,
}

#[derive(Serialize)]
struct ResponseEnvelope<'a> {
    version: u32,
    response: &'a Response,
}

impl Request {
    /// The daemon that answers it.
    pub fn served_by(&self) -> Daemon {
        match self {
            Self::ShowMember
            | Self::ShowTunnel
            | Self::Register(_)
            | Self::ClearMember(_)
            | Self::Edit(_) => Daemon::Member,
            _ => Daemon::Server,
        }
    }

    /// Whether it changes something. Only root and the daemon's own user may do that.
    pub fn is_command(&self) -> bool {
        !matches!(
            self,
            Self::ShowMember | Self::ShowTunnel | Self::ShowServer | Self::ShowServerIke
        )
    }

    /// The request as one line, its end included.
    pub fn to_line(&self) -> Vec<u8> {
        line(&RequestEnvelope { version: VERSION, request: self })
    }

    /// Parses one request line without its line feed.
    ///
    /// # Errors
    /// [`ErrorCode::Malformed`], [`ErrorCode::Version`] or [`ErrorCode::UnknownRequest`]: the
    /// answer to send.
    pub fn from_line(octets: &[u8]) -> Result<Self, Refusal> {
        let body = open(octets, "request")?;
        serde_json::from_value(body).map_err(|error| {
            Refusal::new(
                ErrorCode::UnknownRequest,
                format!("unknown request, this daemon may be older: {error}"),
            )
        })
    }
}

impl Response {
    /// The response as one line, its end included.
    pub fn to_line(&self) -> Vec<u8> {
        line(&ResponseEnvelope { version: VERSION, response: self })
    }

    /// Parses one response line without its line feed.
    ///
    /// # Errors
    /// [`ErrorCode::Malformed`] or [`ErrorCode::Version`]: what is wrong with the line.
    pub fn from_line(octets: &[u8]) -> Result<Self, Refusal> {
        let body = open(octets, "response")?;
        serde_json::from_value(body).map_err(|error| {
            Refusal::new(ErrorCode::Malformed, format!("the response is not understood: {error}"))
        })
    }
}

fn line(envelope: &impl Serialize) -> Vec<u8> {
    // Only a map with keys that are no strings could fail, and the types have none; an empty object
    // is refused as malformed at the other end.
    let mut octets = serde_json::to_vec(envelope).unwrap_or_else(|_| b"{}".to_vec());
    octets.push(b'\n');
    octets
}

/// Checks the envelope and takes out the member `name`. The version comes first: a line of another
/// version may look different in everything else.
fn open(octets: &[u8], name: &str) -> Result<Value, Refusal> {
    let malformed = |what: String| Refusal::new(ErrorCode::Malformed, what);
    let mut envelope: Value = serde_json::from_slice(octets)
        .map_err(|error| malformed(format!("the line is not JSON: {error}")))?;
    let version = envelope.get("version").and_then(Value::as_u64);
    match version {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => {
            let message = format!(
                "protocol version {version} is not spoken here, only {VERSION}: use the gdoictl of the daemon"
            );
            return Err(Refusal::new(ErrorCode::Version, message));
        }
        None => return Err(malformed("the line has no \"version\" number".to_owned())),
    }
    match envelope.get_mut(name).map(Value::take) {
        Some(body) => Ok(body),
        None => Err(malformed(format!("the line has no \"{name}\""))),
    }
}

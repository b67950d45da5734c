//! The commands: one file each.

pub(crate) mod edit;
mod gateway;
mod member;
mod member_ike;
mod member_ipsec;
mod member_kek;
mod member_policy;
mod reload;
mod server;
mod server_cluster;
mod server_ike;
mod server_ipsec;
mod server_kek;
mod server_members;
mod server_statistics;
mod tunnel;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use control::client::ClientError;
use control::edit::{EditArgument, EditedTable};
use control::{
    ClearArgument, ClearMemberArgument, Daemon, GroupArgument, MEMBER_SOCKET, MemberArgument,
    MemberSnapshot, ReloadArgument, Request, Response, SERVER_SOCKET, ServerSnapshot,
};
use serde::Serialize;

use crate::format::clean;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the state of a daemon
    #[command(subcommand)]
    Show(Show),
    /// gdoi-agent: gateways, the IKE policies that tunnels share
    #[command(subcommand)]
    Gateway(edit::Task),
    /// gdoi-agent: site-to-site tunnels
    #[command(subcommand)]
    Tunnel(edit::Task),
    /// gdoi-agent: pull the keys of a group now
    Register(Group),
    /// gcks: push new keys to the members of a group now
    Rekey(Group),
    /// gcks: delete a group's data keys at its members and push new ones, in one message
    Replace(Group),
    /// gcks: delete all keys of a group at its members, which then register again
    Delete(Group),
    /// gcks: evict a member from a group: it gets no new keys and cannot register
    Remove(Member),
    /// gcks: delete all keys of a group and forget its members and their ISAKMP SAs
    RemoveAll(Group),
    /// gcks: let a removed member register again
    Admit(Member),
    /// Clear keys, registrations or figures, and begin again
    #[command(subcommand)]
    Clear(Clear),
    /// Read a daemon's configuration again and tell what differs
    Reload(Reload),
}

/// What to clear.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Clear {
    /// gdoi-agent: pull the keys again; those in use stay until the new ones come
    Member {
        /// Name of the group in the daemon's configuration [default: all groups]
        group: Option<String>,
    },
    /// gcks: replace TEKs and KEK by a push, or delete them at once
    #[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
    Server {
        #[command(subcommand)]
        part: Option<ClearPart>,
        /// Name of the group in the daemon's configuration [default: all groups]
        group: Option<String>,
        /// Delete all keys at the members at once, and forget the members and their ISAKMP SAs
        #[arg(value_enum)]
        now: Option<Now>,
    },
}

/// The argument that makes it happen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Now {
    /// At once
    Now,
}

/// Part of a key server that can be cleared.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ClearPart {
    /// Count from 0 again
    Statistics,
    /// Begin again with the other key servers: phase 1, then cluster-init
    Cluster,
}

/// How to read the configuration again.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Reload {
    /// Tell what would follow, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Which daemon
    #[arg(value_enum, default_value_t = ReloadOf::Server)]
    of: ReloadOf,
}

/// A daemon, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReloadOf {
    /// The key server gcks
    Server,
    /// The group member gdoi-agent
    Member,
}

/// The group of a command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Group {
    /// Name of the group in the daemon's configuration
    group: String,
}

/// The member of a command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Member {
    /// Name of the group in the daemon's configuration
    group: String,
    /// Name of the member in the daemon's configuration
    member: String,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Show {
    /// The group member gdoi-agent
    Member {
        #[command(subcommand)]
        part: Option<MemberPart>,
    },
    /// Site-to-site tunnels of gdoi-agent
    Tunnel {
        #[command(subcommand)]
        part: Option<TunnelPart>,
    },
    /// The key server gcks
    Server {
        #[command(subcommand)]
        part: Option<ServerPart>,
    },
}

/// Part of a member.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum MemberPart {
    /// ISAKMP SAs with the key servers
    Ike,
    /// What pushes come under, and their counters
    Kek,
    /// Data SAs of the groups
    Ipsec,
    /// Which traffic is encrypted, passes in clear or is blocked
    Policy,
}

/// Part of the tunnels.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum TunnelPart {
    /// ISAKMP SAs, SAs and counters of each tunnel
    Detail,
}

/// Part of a key server.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ServerPart {
    /// ISAKMP SAs with members and other key servers
    Ike,
    /// What pushes come under, and their counters
    Kek,
    /// Keys of the data SAs
    Ipsec,
    /// Registered members
    Members,
    /// Counters
    Statistics,
    /// The other key servers of the cluster
    Cluster {
        #[command(subcommand)]
        part: Option<ClusterPart>,
    },
}

/// Part of the cluster.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ClusterPart {
    /// Counters of each server and group, and where configurations differ
    Detail,
}

/// An error of a request to the member, whichever daemon the request is for otherwise.
fn of_member(error: ClientError) -> ClientError {
    match error {
        ClientError::NotRunning { path, .. } => {
            ClientError::NotRunning { path, unit: "gdoi-agent" }
        }
        error => error,
    }
}

impl Command {
    /// Which daemon the command is for. Both of them reload.
    fn served_by(&self) -> Daemon {
        match self {
            Self::Reload(Reload { of: ReloadOf::Member, .. }) => Daemon::Member,
            _ => self.request().served_by(),
        }
    }

    /// Where the daemon listens unless told otherwise.
    pub(crate) fn default_socket(&self) -> &'static str {
        match self.served_by() {
            Daemon::Member => MEMBER_SOCKET,
            Daemon::Server => SERVER_SOCKET,
        }
    }

    /// An error whose remedy names the daemon that the command is for.
    pub(crate) fn explained(&self, error: ClientError) -> ClientError {
        match self.served_by() {
            Daemon::Member => of_member(error),
            Daemon::Server => error,
        }
    }

    /// The change of the configuration that the command makes, if it makes one.
    pub(crate) fn change(&self) -> Option<(EditArgument, edit::How)> {
        match self {
            Self::Gateway(task) => task.change(EditedTable::Gateway),
            Self::Tunnel(task) => task.change(EditedTable::Tunnel),
            _ => None,
        }
    }

    /// The request that the command sends to the daemon.
    pub(crate) fn request(&self) -> Request {
        let of_group = |Group { group }: &Group| GroupArgument { group: group.clone() };
        let of_member = |Member { group, member }: &Member| MemberArgument {
            group: group.clone(),
            member: member.clone(),
        };
        match self {
            Self::Show(Show::Member { .. }) => Request::ShowMember,
            Self::Show(Show::Tunnel { .. }) | Self::Gateway(_) | Self::Tunnel(_) => {
                Request::ShowTunnel
            }
            Self::Show(Show::Server { part: Some(ServerPart::Ike) }) => Request::ShowServerIke,
            Self::Show(Show::Server { .. }) => Request::ShowServer,
            Self::Clear(clear) => clear.request(),
            Self::Register(group) => Request::Register(of_group(group)),
            Self::Rekey(group) => Request::Rekey(of_group(group)),
            Self::Replace(group) => Request::Replace(of_group(group)),
            Self::Delete(group) => Request::Delete(of_group(group)),
            Self::Remove(member) => Request::Remove(of_member(member)),
            Self::RemoveAll(group) => Request::RemoveAll(of_group(group)),
            Self::Admit(member) => Request::Admit(of_member(member)),
            Self::Reload(Reload { dry_run, .. }) => {
                Request::Reload(ReloadArgument { dry_run: *dry_run })
            }
        }
    }

    /// The answer as text or JSON.
    pub(crate) fn render(&self, response: &Response, json: bool) -> anyhow::Result<String> {
        match (self, response) {
            (Self::Show(Show::Member { part }), Response::Member(snapshot)) => {
                member_part(*part, snapshot, json)
            }
            (Self::Show(Show::Tunnel { part }), Response::Tunnels(snapshot)) => {
                match (part, json) {
                    (_, true) => pretty(snapshot),
                    (None, false) => Ok(tunnel::text(snapshot)),
                    (Some(TunnelPart::Detail), false) => Ok(tunnel::detail(snapshot)),
                }
            }
            (Self::Gateway(task), Response::Tunnels(snapshot)) => {
                gateway::shown(snapshot, task.shown(), json)
            }
            (Self::Tunnel(task), Response::Tunnels(snapshot)) => {
                tunnel::shown(snapshot, task.shown(), json)
            }
            (Self::Show(Show::Server { part }), Response::Server(snapshot)) => {
                server_part(*part, snapshot, json)
            }
            (
                Self::Show(Show::Server { part: Some(ServerPart::Ike) }),
                Response::IsakmpSas(sas),
            ) => match json {
                true => pretty(&server_ike::json(sas)),
                false => Ok(server_ike::text(sas)),
            },
            (Self::Reload(_), Response::Configuration(changes)) => match json {
                true => pretty(changes),
                false => Ok(reload::text(changes)),
            },
            (command, Response::Done(done)) if command.request().is_command() => match json {
                true => pretty(done),
                false => Ok(format!("{}\n", clean(&done.message))),
            },
            _ => bail!("the daemon sent an answer to another request: its version differs"),
        }
    }
}

impl Clear {
    fn request(&self) -> Request {
        match self {
            Self::Member { group } => {
                Request::ClearMember(ClearMemberArgument { group: group.clone() })
            }
            Self::Server { part: Some(ClearPart::Statistics), .. } => {
                Request::ClearServerStatistics
            }
            Self::Server { part: Some(ClearPart::Cluster), .. } => Request::ClearServerCluster,
            Self::Server { part: None, group, now } => {
                // Alone, the argument is for all groups.
                let all = group.as_deref() == Some("now") && now.is_none();
                let group = group.clone().filter(|_| !all);
                Request::ClearServer(ClearArgument { group, now: all || now.is_some() })
            }
        }
    }
}

fn member_part(
    part: Option<MemberPart>,
    snapshot: &MemberSnapshot,
    json: bool,
) -> anyhow::Result<String> {
    match (part, json) {
        (None, false) => Ok(member::text(snapshot)),
        (None, true) => pretty(snapshot),
        (Some(MemberPart::Ike), false) => Ok(member_ike::text(snapshot)),
        (Some(MemberPart::Ike), true) => pretty(&member_ike::json(snapshot)),
        (Some(MemberPart::Kek), false) => Ok(member_kek::text(snapshot)),
        (Some(MemberPart::Kek), true) => pretty(&member_kek::json(snapshot)),
        (Some(MemberPart::Ipsec), false) => Ok(member_ipsec::text(snapshot)),
        (Some(MemberPart::Ipsec), true) => pretty(&member_ipsec::json(snapshot)),
        (Some(MemberPart::Policy), false) => Ok(member_policy::text(snapshot)),
        (Some(MemberPart::Policy), true) => pretty(&member_policy::json(snapshot)),
    }
}

fn server_part(
    part: Option<ServerPart>,
    snapshot: &ServerSnapshot,
    json: bool,
) -> anyhow::Result<String> {
    match (part, json) {
        (None, false) => Ok(server::text(snapshot)),
        (None, true) => pretty(snapshot),
        (Some(ServerPart::Ike), _) => bail!("the daemon sent an answer to another request"),
        (Some(ServerPart::Kek), false) => Ok(server_kek::text(snapshot)),
        (Some(ServerPart::Kek), true) => pretty(&server_kek::json(snapshot)),
        (Some(ServerPart::Ipsec), false) => Ok(server_ipsec::text(snapshot)),
        (Some(ServerPart::Ipsec), true) => pretty(&server_ipsec::json(snapshot)),
        (Some(ServerPart::Members), false) => Ok(server_members::text(snapshot)),
        (Some(ServerPart::Members), true) => pretty(&server_members::json(snapshot)),
        (Some(ServerPart::Statistics), false) => Ok(server_statistics::text(snapshot)),
        (Some(ServerPart::Statistics), true) => pretty(&server_statistics::json(snapshot)),
        (Some(ServerPart::Cluster { part: None }), false) => Ok(server_cluster::text(snapshot)),
        (Some(ServerPart::Cluster { part: Some(ClusterPart::Detail) }), false) => {
            Ok(server_cluster::detail(snapshot))
        }
        (Some(ServerPart::Cluster { .. }), true) => pretty(&server_cluster::json(snapshot)),
    }
}

fn pretty(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

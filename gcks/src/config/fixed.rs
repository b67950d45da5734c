//! What only a restart changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use daemon::configuration::{Declaration, Located};
use ike::config::Credential;
use ike::crypto::Secret;

use super::change::{Change, Consequence, Difference, Subject};
use super::file::{File, Limits};
use super::{Cluster, Config, Server, names};
use crate::etcd;

/// Values that hold until the daemon is restarted, whatever the file says.
#[derive(Debug)]
pub struct Fixed {
    control_socket: PathBuf,
    listen: Vec<SocketAddr>,
    state_directory: PathBuf,
    keep_state: bool,
    receive_buffer: u32,
    state_key: Option<Secret>,
    servers: Vec<Server>,
    /// By the name of the group.
    clusters: BTreeMap<String, Option<Cluster>>,
    etcd: Option<etcd::Settings>,
}

impl Fixed {
    /// Those of the configuration that the daemon was started with.
    pub fn of(config: &Config) -> Self {
        // The rest changes with a reload.
        let Config {
            control_socket,
            listen,
            identity: _,
            phase1: _,
            limits: _,
            receive_buffer,
            state_directory,
            keep_state,
            state_key,
            etcd,
            members: _,
            servers,
            most_members: _,
            groups: _,
            certificates: _,
        } = config;
        Self {
            control_socket: control_socket.clone(),
            listen: listen.clone(),
            state_directory: state_directory.clone(),
            keep_state: *keep_state,
            receive_buffer: *receive_buffer,
            state_key: state_key.as_ref().map(Secret::duplicate),
            servers: servers.clone(),
            clusters: clusters(config),
            etcd: etcd.clone(),
        }
    }

    /// Puts the running values in the place of others in the file, before anything is derived from
    /// them: the names of signing keys, where multicasts come from.
    pub(super) fn hold(&self, file: &mut File) -> Vec<Change> {
        let mut listen = self.listen.iter().map(|listen| listen.ip().to_string());
        let mut listed = file.listen.iter().map(|listen| listen.value.to_string());
        let texts =
            |addresses: &mut dyn Iterator<Item = String>| addresses.collect::<Vec<_>>().join(", ");
        let (listen, listed) = (texts(&mut listen), texts(&mut listed));
        let port = self.listen.first().map_or(file.port, SocketAddr::port);
        let differences = [
            differing(&File::control_socket(), &self.control_socket, &file.control_socket),
            differing(&File::state_directory(), &self.state_directory, &file.state_directory),
            differing(&File::keep_state(), &self.keep_state, &file.keep_state),
            differing(&Limits::receive_buffer(), &self.receive_buffer, &file.limits.receive_buffer)
                .map(|one| Difference { option: one.option.inside(File::limits().name()), ..one }),
            (listen != listed).then(|| Difference::of(File::listen().name(), listen, listed)),
            differing(&File::port(), &port, &file.port),
        ];
        let changes = differences.into_iter().flatten().map(change).collect();
        let place = file.listen.first().map_or(0..0, |listen| listen.place.clone());
        let listen = self.listen.iter().map(SocketAddr::ip);
        file.listen = listen.map(|value| Located { value, place: place.clone() }).collect();
        file.port = port;
        file.keep_state = self.keep_state;
        file.limits.receive_buffer = self.receive_buffer;
        file.control_socket.clone_from(&self.control_socket);
        file.state_directory.clone_from(&self.state_directory);
        changes
    }

    /// The same for the servers of the cluster, and the part of each group in it. A group that
    /// comes with a reload is on its own until a restart.
    pub(super) fn hold_cluster(&self, config: &mut Config) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut servers = self.servers.clone();
        for server in &mut servers {
            // Certificates and revocation lists are read again like those of members.
            let now = config.servers.iter().find(|now| now.name == server.name);
            if let (Credential::Certificate(_), Some(credential @ Credential::Certificate(_))) =
                (&server.credential, now.map(|now| &now.credential))
            {
                server.credential = credential.clone();
            }
        }
        if config.servers != servers {
            changes.push(change(Difference::untold(names::cluster_servers())));
        }
        for group in &mut config.groups {
            let cluster = self.clusters.get(&group.name).cloned().flatten();
            if group.cluster != cluster {
                let subject = Subject::Group(group.name.as_str().into());
                let difference = Difference::untold(names::cluster());
                changes.push(Change::new(subject, difference, vec![Consequence::Restart]));
            }
            group.cluster = cluster;
        }
        config.servers = servers;
        changes
    }

    /// The same for the key that seals the state, and for etcd.
    pub(super) fn hold_state(&self, config: &mut Config) -> Vec<Change> {
        let mut others = Vec::new();
        if config.state_key != self.state_key {
            config.state_key = self.state_key.as_ref().map(Secret::duplicate);
            others.push(change(Difference::untold(names::state_key())));
        }
        if config.etcd != self.etcd {
            config.etcd.clone_from(&self.etcd);
            others.push(change(Difference::untold(names::etcd())));
        }
        others
    }
}

fn clusters(config: &Config) -> BTreeMap<String, Option<Cluster>> {
    config.groups.iter().map(|group| (group.name.clone(), group.cluster.clone())).collect()
}

fn differing<V>(option: &impl Declaration<V>, before: &V, after: &V) -> Option<Difference> {
    let (before, after) = (option.text(before), option.text(after));
    (before != after).then(|| Difference::of(option.name(), before, after))
}

fn change(difference: Difference) -> Change {
    Change::new(Subject::Server, difference, vec![Consequence::Restart])
}

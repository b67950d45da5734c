//! What only a restart changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use daemon::configuration::Located;
use ike::crypto::Secret;

use super::change::{Change, Consequence, Difference, Subject};
use super::file::File;
use super::{Cluster, Config, Server};
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
        Self {
            control_socket: config.control_socket.clone(),
            listen: config.listen.clone(),
            state_directory: config.state_directory.clone(),
            keep_state: config.keep_state,
            receive_buffer: config.receive_buffer,
            state_key: config.state_key.as_ref().map(Secret::duplicate),
            servers: config.servers.clone(),
            clusters: clusters(config),
            etcd: config.etcd.clone(),
        }
    }

    /// Puts the running values in the place of others in the file, before anything is derived from
    /// them: the names of signing keys, where multicasts come from.
    pub(super) fn hold(&self, file: &mut File) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut add = |option, before: String, after: String| {
            if before != after {
                changes.push(change(Difference::of(option, before, after)));
            }
        };
        let path = |path: &PathBuf| path.display().to_string();
        add("control-socket", path(&self.control_socket), path(&file.control_socket));
        add("state-directory", path(&self.state_directory), path(&file.state_directory));
        let truth = |value: bool| value.to_string();
        add("keep-state", truth(self.keep_state), truth(file.keep_state));
        add(
            "limits.receive-buffer",
            self.receive_buffer.to_string(),
            file.limits.receive_buffer.to_string(),
        );
        let addresses =
            |listen: &mut dyn Iterator<Item = String>| listen.collect::<Vec<_>>().join(", ");
        add(
            "listen",
            addresses(&mut self.listen.iter().map(|listen| listen.ip().to_string())),
            addresses(&mut file.listen.iter().map(|listen| listen.value.to_string())),
        );
        let port = self.listen.first().map_or(file.port, SocketAddr::port);
        add("port", port.to_string(), file.port.to_string());
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
    pub(super) fn hold_cluster(&self, config: &mut Config) -> Option<Change> {
        let before = clusters(config);
        for group in &mut config.groups {
            group.cluster = self.clusters.get(&group.name).cloned().flatten();
        }
        let is_other = config.servers != self.servers || before != clusters(config);
        config.servers.clone_from(&self.servers);
        is_other.then(|| change(Difference::untold("cluster")))
    }

    /// The same for the key that seals the state, and for etcd.
    pub(super) fn hold_state(&self, config: &mut Config) -> Vec<Change> {
        let mut others = Vec::new();
        if config.state_key != self.state_key {
            config.state_key = self.state_key.as_ref().map(Secret::duplicate);
            others.push(change(Difference::untold("state key")));
        }
        if config.etcd != self.etcd {
            config.etcd.clone_from(&self.etcd);
            others.push(change(Difference::untold("etcd")));
        }
        others
    }
}

fn clusters(config: &Config) -> BTreeMap<String, Option<Cluster>> {
    config.groups.iter().map(|group| (group.name.clone(), group.cluster.clone())).collect()
}

fn change(difference: Difference) -> Change {
    Change::new(Subject::Server, difference, vec![Consequence::Restart])
}

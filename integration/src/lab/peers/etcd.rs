//! Three etcd servers beside the first three key servers.

use crate::lab::Lab;
use crate::lab::nodes::{Node, Process};
use crate::lab::topology::{SERVERS, server_address};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// etcd's usual ports.
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;
const NODES: usize = 3;
/// A leader is elected within this time, under emulation.
const ANSWERS_WITHIN: Duration = Duration::from_secs(90);

/// The URLs that key servers find etcd at.
pub fn endpoints() -> Vec<String> {
    (0..NODES).map(|position| url(position, CLIENTS)).collect()
}

fn url(position: usize, port: u16) -> String {
    format!("http://{}:{port}", server_address(position))
}

/// The cluster; each server ends when it is dropped.
pub struct Etcd {
    servers: [Option<Process>; NODES],
}

impl Etcd {
    /// Starts all and waits until each answers.
    ///
    /// # Errors
    /// etcd is not installed, or no leader is elected in time.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut etcd = Self { servers: [None, None, None] };
        for position in 0..NODES {
            etcd.start_one(lab, position)?;
        }
        etcd.wait()?;
        Ok(etcd)
    }

    /// Starts one server, with what it had before.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_one(&mut self, lab: &Lab, position: usize) -> Result<()> {
        let name = |position: usize| format!("e{}", position + 1);
        let cluster: Vec<String> =
            (0..NODES).map(|other| format!("{}={}", name(other), url(other, PEERS))).collect();
        let folder = lab.file(&name(position));
        let log = lab.file(&format!("{}.out", name(position)));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let (clients, peers) = (url(position, CLIENTS), url(position, PEERS));
        let arguments = [
            "--name",
            &name(position),
            "--data-dir",
            &folder.to_string_lossy(),
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
            "--initial-cluster",
            &cluster.join(","),
            // An emulated machine is no fast one.
            "--heartbeat-interval",
            "300",
            "--election-timeout",
            "3000",
        ];
        let mut command = node(position)?.command("etcd", &arguments);
        command.stdout(Stdio::from(output.try_clone()?)).stderr(output);
        let process = Process::start(&mut command)?;
        *self.servers.get_mut(position).context("no such etcd")? = Some(process);
        Ok(())
    }

    /// Ends one with SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, position: usize) -> Result<()> {
        let server = self.servers.get_mut(position).and_then(Option::take);
        let mut server = server.context("this etcd does not run")?;
        server.signal(Signal::SIGKILL)?;
        server.wait(Duration::from_secs(10)).map(drop)
    }

    /// Waits until every server knows a leader.
    ///
    /// # Errors
    /// One does not in time.
    pub fn wait(&self) -> Result<()> {
        let started = Instant::now();
        for position in 0..NODES {
            let endpoint = url(position, CLIENTS);
            let health = format!(
                "exec 3<>/dev/tcp/{}/{CLIENTS}; printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
                server_address(position)
            );
            loop {
                let said = node(position)?.output("timeout", &["5", "bash", "-c", &health])?;
                if String::from_utf8_lossy(&said.stdout).contains("\"true\"") {
                    break;
                }
                if started.elapsed() > ANSWERS_WITHIN {
                    bail!("etcd at {endpoint} has no leader after {} s", ANSWERS_WITHIN.as_secs());
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        Ok(())
    }
}

fn node(position: usize) -> Result<Node> {
    SERVERS.get(position).copied().context("no such node")
}

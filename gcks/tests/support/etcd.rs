//! etcd processes on the loopback interface, with ports and folders of their own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gcks::etcd::Settings;
use gcks::etcd::client::Client;
use serde_json::json;

/// Whether etcd is installed; says so if it is not.
pub fn is_installed() -> bool {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: there is no etcd; `apt-get install etcd-server` or ./test installs it");
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One process of a cluster.
#[derive(Debug)]
pub struct Node {
    command: Command,
    process: Option<Child>,
    pub endpoint: String,
}

impl Node {
    pub fn start(&mut self) {
        self.process = Some(self.command.spawn().unwrap());
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster that ends with its test.
#[derive(Debug)]
pub struct Etcd {
    pub nodes: Vec<Node>,
    _folder: tempfile::TempDir,
}

impl Etcd {
    /// Starts so many nodes and waits until they answer.
    pub fn start(count: usize) -> Self {
        Self::with(count, &[])
    }

    pub fn with(count: usize, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let peer = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(number, (_, port))| format!("n{number}={}", peer(*port)))
            .collect();
        let nodes = ports.iter().enumerate().map(|(number, (client, port))| {
            node(folder.path(), number, &peer(*client), &peer(*port), &cluster.join(","), options)
        });
        let mut etcd = Self { nodes: nodes.collect(), _folder: folder };
        etcd.nodes.iter_mut().for_each(Node::start);
        etcd.wait();
        etcd
    }

    /// Waits until the cluster has a leader.
    pub fn wait(&self) {
        let begin = Instant::now();
        let client = Client::new(&self.endpoints(), Duration::from_secs(2));
        let request = json!({ "key": "Zm9v" });
        while let Err(error) = client.call("/v3/kv/range", &request) {
            assert!(begin.elapsed() < Duration::from_secs(30), "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.endpoint.clone()).collect()
    }

    pub fn settings(&self, name: &str) -> Settings {
        Settings {
            endpoints: self.endpoints(),
            prefix: "/gcks".to_owned(),
            lease: Duration::from_secs(2),
            name: name.to_owned(),
        }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.endpoints(), Duration::from_secs(5))
    }
}

fn node(
    folder: &Path,
    number: usize,
    client: &str,
    peer: &str,
    cluster: &str,
    options: &[&str],
) -> Node {
    let mut command = Command::new("etcd");
    command
        .args(["--name", &format!("n{number}")])
        .arg("--data-dir")
        .arg(folder.join(format!("n{number}")))
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", cluster, "--initial-cluster-token", "test"])
        .args(["--heartbeat-interval", "100", "--election-timeout", "1000"])
        .args(["--logger", "zap", "--log-level", "fatal"])
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Node { command, process: None, endpoint: client.to_owned() }
}

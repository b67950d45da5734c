//! A lab that is up: topology, captures, daemons, and what a scenario does with them.

use crate::lab::daemons::{Daemon, random_key, write_secret};
use crate::lab::nodes::Node;
use crate::lab::plan::{MEMBERS, Plan};
use crate::lab::topology::{G1, G2, G3, G4, HA, HB, HC, R, SERVERS};
use crate::observe::capture::{Capture, Captured, Depth, Mark, Tally};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use watch::Captures;

pub mod certificates;
mod control;
pub mod daemons;
mod errors;
pub mod firewall;
pub mod kernel;
pub mod nodes;
pub mod peers;
pub mod plan;
mod start;
pub mod topology;
mod watch;

pub use errors::Errors;
pub use watch::Moment;

/// Where a lab keeps its files while it runs.
pub const DIRECTORY: &str = "/run/gdoi-lab";

/// Packets travel through a buffer before they are in a capture's file.
const SETTLES: Duration = Duration::from_millis(300);

pub const MEMBER_NODES: [Node; 4] = [G1, G2, G3, G4];

/// A lab that is up.
pub struct Lab {
    /// What varies from run to run.
    pub plan: Plan,
    directory: PathBuf,
    binaries: PathBuf,
    captures: Option<Captures>,
    /// When the first member was started: what crossed before was nobody's to protect.
    guarded_since: Option<Mark>,
    members: [Option<Daemon>; 4],
    servers: [Option<Daemon>; 5],
}

impl Lab {
    /// Builds the topology and starts the captures; no daemon runs yet.
    ///
    /// # Errors
    /// When a namespace, a link or a capture cannot be made.
    pub fn build(plan: Plan, binaries: &Path) -> Result<Self> {
        let mut lab = Self::build_unwatched(plan, binaries)?;
        if lab.plan.headers_only {
            let core = Capture::start(R, &lab.directory, Depth::Headers)?;
            lab.captures = Some(Captures { core, ha: None, hb: None, hc: None });
            return Ok(lab);
        }
        let start = |node| Capture::start(node, &lab.directory, Depth::Whole);
        let hc = lab.plan.third_branch.then(|| start(HC)).transpose()?;
        lab.captures =
            Some(Captures { core: start(R)?, ha: Some(start(HA)?), hb: Some(start(HB)?), hc });
        Ok(lab)
    }

    /// Builds the topology only: a capture would be part of what a benchmark measures.
    ///
    /// # Errors
    /// When a namespace or a link cannot be made.
    pub fn build_unwatched(plan: Plan, binaries: &Path) -> Result<Self> {
        let directory = PathBuf::from(DIRECTORY);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        topology::build()?;
        let lab = Self {
            plan,
            binaries: binaries.to_path_buf(),
            directory,
            captures: None,
            guarded_since: None,
            members: [None, None, None, None],
            servers: [None, None, None, None, None],
        };
        for (member, _, _) in MEMBERS {
            let key = random_key()?;
            write_secret(&lab.file(&format!("{member}.psk")), &key)?;
            for server in SERVERS {
                write_secret(&lab.file(&format!("{}-{member}.psk", server.0)), &key)?;
            }
        }
        for server in SERVERS {
            write_secret(&lab.file(&format!("cluster-{}.psk", server.0)), &random_key()?)?;
        }
        for node in SERVERS.iter().chain(&MEMBER_NODES) {
            fs::create_dir_all(lab.file(&format!("{}-state", node.0)))?;
            // 32 hexadecimal digits: as octets, a key of AES-256.
            write_secret(&lab.file(&format!("{}-state.key", node.0)), random_key()?.trim_end())?;
        }
        Ok(lab)
    }

    /// A file of this lab.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Ends daemons and captures; returns all that crossed the core and what tcpdump counted.
    ///
    /// # Errors
    /// When a daemon does not end in order or the capture cannot be read.
    pub fn finish(mut self) -> Result<(Vec<Captured>, Tally)> {
        for position in 0..self.members.len() {
            if self.member(position).is_some() {
                self.stop_member(position)?;
            }
        }
        for position in 0..self.servers.len() {
            self.stop_server(position)?;
        }
        std::thread::sleep(SETTLES);
        let captures = self.captures.take().context("this lab captures nothing")?;
        let all = captures.core.since(self.guarded_since.unwrap_or(Mark::START))?;
        let file = captures.core.file().to_path_buf();
        let tally = captures.core.stop()?;
        for host in [captures.ha, captures.hb, captures.hc].into_iter().flatten() {
            host.stop()?;
        }
        // The working directory outlives the lab: in the machine it is the one shared with the
        // host.
        let _ = fs::copy(file, "core.pcap");
        topology::tear_down();
        Ok((all, tally))
    }

    /// Leaves everything running when this program ends; `lab down` removes it.
    ///
    /// # Errors
    /// When the capture cannot be read.
    pub fn leave_running(self) -> Result<Vec<Captured>> {
        std::thread::sleep(SETTLES);
        let all = self.captures()?.core.since(self.guarded_since.unwrap_or(Mark::START))?;
        std::mem::forget(self);
        Ok(all)
    }
}

//! `lab`: plays the scenarios where the kernel has ESP and nf_tables. `cargo xtask lab` starts it
//! in such a place.

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use integration::bench::datapath;
use integration::bench::push_to_kernel;
use integration::lab::topology;
use integration::scenarios::{self, Context};
use integration::traffic;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

#[derive(Parser)]
#[command(
    name = "lab",
    about = "Network namespaces, the real daemons, real packets; every statement is checked"
)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Plays scenarios; exit status 0 only if every statement holds.
    Run {
        /// Scenario to play; the ordinary ones when none is named.
        #[arg(long)]
        scenario: Vec<String>,
        /// Plays the sabotage as well.
        #[arg(long)]
        sabotage: bool,
        /// Leaves the last lab up.
        #[arg(long)]
        keep: bool,
    },
    /// Print the name of each scenario and what it shows
    List,
    /// Opens a shell on a node: ha g1 r g2 hb g3 hc s1 s2 s3 s4.
    Shell {
        /// Name of the node
        node: String,
    },
    /// Removes what a lab left running.
    Down,
    /// Measures plain forwarding, a classic tunnel and the group path against each other.
    Bench {
        /// Rounds of the three paths.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Seconds of one measurement.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
    },
    /// Measures the time from a push to its key in the kernel.
    BenchPush {
        /// Keys that are pushed, one after the other.
        #[arg(long, default_value_t = 50)]
        pushes: u32,
    },
    /// Sends or counts packets; scenarios run it on their nodes.
    #[command(subcommand, hide = true)]
    Traffic(traffic::Traffic),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(action: Action) -> Result<bool> {
    match action {
        Action::Run { scenario, sabotage, keep } => {
            scenarios::play(&scenario, sabotage, &Context { binaries: binaries()?, keep })
        }
        Action::List => {
            for scenario in scenarios::ALL {
                println!("{:<12} {}", scenario.name, scenario.about);
            }
            Ok(true)
        }
        Action::Shell { node } => {
            let known =
                topology::ALL.into_iter().find(|known| known.0 == node).with_context(|| {
                    format!(
                        "there is no node {node}; there are {}",
                        topology::ALL.map(|node| node.0).join(" ")
                    )
                })?;
            if !known.is_up() {
                bail!("no lab is up: start one with 'cargo xtask lab --keep'");
            }
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &known.namespace(), "bash", "-i"]);
            command.env("PS1", format!("{}# ", known.0));
            Ok(command.status()?.success())
        }
        Action::Down => {
            topology::tear_down();
            Ok(true)
        }
        Action::Bench { rounds, seconds } => datapath::run(&binaries()?, rounds, seconds),
        Action::BenchPush { pushes } => push_to_kernel::run(&binaries()?, pushes),
        Action::Traffic(traffic) => traffic::run(&traffic).map(|()| true),
    }
}

/// The daemons are where this program is.
fn binaries() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    Ok(executable.parent().context("this program has no directory")?.to_path_buf())
}

//! `cargo xtask bench`: the datapath against a classic tunnel, and the key server's registrations
//! and pushes.

use crate::kernel::Series;
use crate::lab;
use crate::machine::{self, Job};
use crate::{command, packages};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// TCP and UDP through plain forwarding, a classic unicast ESP tunnel and the group path,
    /// alternating in one boot.
    Datapath {
        /// Rounds of the three paths.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Seconds of one measurement.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
    },
    /// The time from a push to its key in the member's kernel, in the lab.
    PushToKernel {
        /// Keys that are pushed.
        #[arg(long, default_value_t = 50)]
        pushes: u32,
        /// Measures what has been built already.
        #[arg(long)]
        no_build: bool,
    },
    /// What a push costs a member's processor.
    PushCost {
        /// Arguments for the benchmark itself.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// Registrations per second of `gcks` on one core, and where the time goes.
    Registration {
        /// Arguments for the benchmark itself.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// A rekey of a root server with four sub-servers and up to 20,000 members.
    Cluster {
        /// Arguments for the benchmark itself.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// Main mode handshakes as responder: `gcks` and strongSwan's charon side by side.
    Handshake {
        /// Arguments for the benchmark itself.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// One push of `gcks` to 10,000 members with all their acknowledgements.
    Push {
        /// Arguments for the benchmark itself.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
}

/// Builds with optimisation and measures.
///
/// # Errors
/// When something cannot be built, installed or booted.
pub(crate) fn run(bench: &Bench) -> Result<bool> {
    match &bench.what {
        What::Datapath { rounds, seconds } => {
            packages::ensure(&[packages::LAB])?;
            let binaries = lab::build(false)?;
            // No daemon is on a packet's path, but the generators must not be what is measured.
            command::run(&mut command::cargo(&[
                "build",
                "--quiet",
                "--release",
                "--package",
                "integration",
            ]))?;
            machine::play(&Job {
                arguments: [
                    "bench",
                    "--rounds",
                    &rounds.to_string(),
                    "--seconds",
                    &seconds.to_string(),
                ]
                .map(str::to_owned)
                .to_vec(),
                lab: Some(command::target_directory()?.join("release/lab")),
                binaries,
                keep: false,
                timeout: Duration::from_secs(3600),
                force_machine: false,
                kernel: Series::default(),
                system: None,
                minutes: None,
            })
        }
        What::PushToKernel { pushes, no_build } => {
            packages::ensure(&[packages::LAB])?;
            let binaries = if *no_build { lab::directory(true)? } else { lab::build(true)? };
            machine::play(&Job {
                arguments: ["bench-push", "--pushes", &pushes.to_string()]
                    .map(str::to_owned)
                    .to_vec(),
                lab: None,
                binaries,
                keep: false,
                timeout: Duration::from_secs(3600),
                force_machine: false,
                kernel: Series::default(),
                system: None,
                minutes: None,
            })
        }
        What::PushCost { more } => benchmark("agent", "push", more),
        What::Registration { more } => benchmark("gcks", "registration", more),
        What::Cluster { more } => benchmark("gcks", "cluster", more),
        What::Handshake { more } => {
            packages::ensure(&[packages::LAB])?;
            benchmark("gcks", "handshake", more)
        }
        What::Push { more } => benchmark("gcks", "push", more),
    }
}

/// A benchmark without a kernel of its own.
fn benchmark(package: &str, name: &str, more: &[String]) -> Result<bool> {
    let mut cargo = command::cargo(&["bench", "--package", package, "--bench", name, "--"]);
    command::succeeds(cargo.args(more))
}

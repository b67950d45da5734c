//! The member daemon as it is, but that it kills itself with SIGKILL right after the kernel
//! operation that a file counts down to. Only the lab builds and runs it; the product has no such
//! hook.
//!
//! `mortal-agent --config FILE`, with `LAB_COUNTDOWN` naming the file that holds how many
//! operations are left to do.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use agent::start::{configuration, serve};
use anyhow::Context as _;
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xfrm::kernel::netlink::Netlink;
use xfrm::model::SaId;
use xfrm::{Current, Desired, Error, Kernel, Op, Ownership, Parts};

#[derive(Debug, Parser)]
struct Arguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mortal-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    daemon::process::disable_core_dumps().context("core dumps cannot be turned off")?;
    daemon::log::init(None)?;
    let countdown =
        PathBuf::from(std::env::var_os("LAB_COUNTDOWN").context("LAB_COUNTDOWN names no file")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let interfaces = xfrm::interface::interfaces().await?;
        let Some(config) = configuration(&arguments.config, Some(&interfaces)) else {
            return Ok(false);
        };
        serve(arguments.config.clone(), config, &interfaces, |kernel| Mortal { kernel, countdown })
            .await
    })
}

/// The real kernel, whose user dies when its time has come.
struct Mortal {
    kernel: Netlink,
    countdown: PathBuf,
}

impl Mortal {
    /// Counts one operation. Without a file, or with nothing in it, the daemon lives on.
    fn count(&self, op: &Op) {
        let left = fs::read_to_string(&self.countdown)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        let Some(left) = left else { return };
        // A pipe or a file, and not to be lost in a buffer.
        let _ = writeln!(
            std::io::stdout(),
            "lab: {} operations to live after: {op}",
            left.saturating_sub(1)
        );
        let _ = fs::write(&self.countdown, left.saturating_sub(1).to_string());
        if left <= 1 {
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }
}

impl Kernel for Mortal {
    async fn read(
        &mut self,
        ownership: &Ownership,
        parts: Parts,
        current: &mut Current,
    ) -> Result<(), Error> {
        self.kernel.read(ownership, parts, current).await
    }

    async fn read_states(
        &mut self,
        ownership: &Ownership,
        states: &BTreeSet<SaId>,
        current: &mut Current,
    ) -> Result<(), Error> {
        self.kernel.read_states(ownership, states, current).await
    }

    async fn execute(
        &mut self,
        op: &Op,
        desired: &Desired,
        ownership: &Ownership,
    ) -> Result<(), Error> {
        let done = self.kernel.execute(op, desired, ownership).await;
        self.count(op);
        done
    }
}

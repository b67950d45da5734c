//! The member daemon, unchanged but that it kills itself with SIGKILL after a given kernel
//! operation. Only the lab builds and runs it; the product has no such hook.
//!
//! `crash-agent --config FILE`; the file that `LAB_COUNTDOWN` names holds the number of operations
//! left until the crash.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use agent::source::Source;
use agent::start::{configuration, serve};
use anyhow::Context as _;
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xfrm::kernel::netlink::Netlink;
use xfrm::{Current, Desired, Error, Kernel, Op, Ownership, Parts};

#[derive(Debug, Parser)]
struct Arguments {
    /// Configuration file of the agent
    #[arg(long)]
    config: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash-agent: {error:#}");
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
        serve(Source::new(arguments.config.clone(), None), config, &interfaces, |kernel| {
            CrashingKernel { kernel, countdown }
        })
        .await
    })
}

/// The real kernel; the process kills itself when the countdown reaches zero.
struct CrashingKernel {
    kernel: Netlink,
    countdown: PathBuf,
}

impl CrashingKernel {
    /// Counts one operation. Without a file, or with an empty one, there is no crash.
    fn count(&self, op: &Op) {
        let left = fs::read_to_string(&self.countdown)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok());
        let Some(left) = left else { return };
        // Standard output may be a file, whose buffer the crash would lose.
        let _ = writeln!(
            std::io::stdout(),
            "lab: {} operations left until the crash; last: {op}",
            left.saturating_sub(1)
        );
        let _ = fs::write(&self.countdown, left.saturating_sub(1).to_string());
        if left <= 1 {
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }
}

impl Kernel for CrashingKernel {
    async fn read(
        &mut self,
        ownership: &Ownership,
        parts: Parts,
        current: &mut Current,
    ) -> Result<(), Error> {
        self.kernel.read(ownership, parts, current).await
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

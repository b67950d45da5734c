//! `gdoi-agent`: a GDOI group member.

use std::path::PathBuf;
use std::process::ExitCode;

use agent::config::check::{Machine, load};
use agent::config::{Config, Group};
use agent::daemon::check_blocks;
use agent::eventloop::{EventLoop, open_control};
use agent::facts::Interfaces;
use agent::group::Seeds;
use agent::privileges;
use anyhow::Context as _;
use clap::Parser;
use xfrm::Ownership;
use xfrm::netlink::Netlink;

/// A GDOI group member (RFC 6407): registers with the first key server that answers, and the kernel encrypts the
/// group's traffic.
#[derive(Debug, Parser)]
#[command(name = "gdoi-agent", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/gdoi-agent/gdoi-agent.toml")]
    config: PathBuf,
    /// Check the configuration against this machine, start nothing.
    #[arg(long)]
    check: bool,
    /// What to log, such as "debug" or "info,agent=trace". The default is RUST_LOG, then "info".
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gdoi-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    privileges::no_core_dumps()?;
    daemon::log::init(arguments.log.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio runtime")?;
    runtime.block_on(async {
        let interfaces = match xfrm::interface::interfaces().await {
            Ok(interfaces) => Some(interfaces),
            Err(error) => {
                tracing::warn!(%error, "interfaces cannot be read; their names are not checked");
                None
            }
        };
        let Some(config) = configuration(arguments, interfaces.as_ref()) else { return Ok(ExitCode::FAILURE) };
        if arguments.check {
            check_blocks(&config, interfaces.as_ref().unwrap_or(&Interfaces::new()))?;
            println!("{}: {} group(s), no errors", arguments.config.display(), config.groups.len());
            return Ok(ExitCode::SUCCESS);
        }
        let interfaces =
            interfaces.context("interfaces cannot be read; allow netlink sockets in the service's filter")?;
        serve(arguments.config.clone(), config, &interfaces).await
    })
}

/// Reads the configuration; a report of what is wrong goes to standard error.
fn configuration(arguments: &Arguments, interfaces: Option<&Interfaces>) -> Option<Config> {
    match load(&arguments.config, &Machine::this(interfaces)) {
        Ok(loaded) => {
            for warning in loaded.warnings {
                eprintln!("{}: warning: {warning}", arguments.config.display());
            }
            Some(loaded.value)
        }
        Err(report) => {
            eprint!("{report}");
            None
        }
    }
}

async fn serve(path: PathBuf, config: Config, interfaces: &Interfaces) -> anyhow::Result<ExitCode> {
    // Another agent that runs holds the control socket: then nothing of its entries may be touched.
    let calls = open_control(&config.control_socket)?;
    let warnings: Vec<String> = privileges::check(&config).await?.iter().map(ToString::to_string).collect();
    for problem in &warnings {
        tracing::warn!(%problem, "the machine lacks something");
    }
    let kernel = Netlink::open().context("netlink")?;
    let events = kernel.events(&Ownership::default()).context("netlink events")?;
    let jitter = daemon::entropy::seed()?;
    let mut slot = 0_u64;
    let seeds_of = Box::new(move |_: &Group| {
        slot = slot.wrapping_add(1);
        let seeds: Seeds = Box::new(|| daemon::entropy::seed().map_err(|error| error.to_string()));
        (seeds, slot.wrapping_add(jitter_of(&jitter)))
    });
    let running = EventLoop::start((path, config), seeds_of, kernel, events, interfaces, calls, warnings).await?;
    let orderly = running.run().await?;
    Ok(if orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn jitter_of(seed: &[u8; 32]) -> u64 {
    seed.iter().take(8).fold(0, |sum, octet| (sum << 8) | u64::from(*octet))
}

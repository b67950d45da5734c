//! `gdoi-agent`: a GDOI group member.

use std::path::PathBuf;
use std::process::ExitCode;

use agent::member::check_blocks;
use agent::membership::local_interface::Interfaces;
use agent::start::{configuration, serve};
use anyhow::Context as _;
use clap::Parser;

/// A GDOI group member (RFC 6407): registers with the first key server that answers, and the kernel
/// encrypts the group's traffic.
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
    daemon::process::disable_core_dumps().context("core dumps cannot be turned off")?;
    daemon::log::init(arguments.log.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("tokio runtime")?;
    runtime.block_on(async {
        let interfaces = match xfrm::interface::interfaces().await {
            Ok(interfaces) => Some(interfaces),
            Err(error) => {
                tracing::warn!(
                    event = "interfaces-unreadable",
                    %error,
                    "interfaces cannot be read; their names are not checked"
                );
                None
            }
        };
        let Some(config) = configuration(&arguments.config, interfaces.as_ref()) else {
            return Ok(ExitCode::FAILURE);
        };
        if arguments.check {
            check_blocks(&config, interfaces.as_ref().unwrap_or(&Interfaces::new()))?;
            println!("{}: {} group(s), no errors", arguments.config.display(), config.groups.len());
            return Ok(ExitCode::SUCCESS);
        }
        let interfaces = interfaces
            .context("interfaces cannot be read; allow netlink sockets in the service's filter")?;
        let orderly = serve(arguments.config.clone(), config, &interfaces, |kernel| kernel).await?;
        Ok(if orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

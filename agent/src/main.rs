//! `gdoi-agent`: a GDOI group member.

use std::path::PathBuf;
use std::process::ExitCode;

use agent::blocks;
use agent::config::Config;
use agent::member;
use agent::membership::local_interface::Interfaces;
use agent::source::Source;
use agent::start::{configuration, serve};
use anyhow::Context as _;
use clap::Parser;
use daemon::count;
use tracing::warn;

/// A GDOI group member (RFC 6407): registers with the first key server that answers, and the kernel
/// encrypts the group's traffic.
#[derive(Debug, Parser)]
#[command(name = "gdoi-agent", version)]
struct Arguments {
    /// Configuration file (TOML); gdoi-agent.toml(5) describes it
    #[arg(long, value_name = "FILE", default_value = "/etc/gdoi-agent/gdoi-agent.toml")]
    config: PathBuf,
    /// Check the configuration against this machine, start nothing.
    #[arg(long)]
    check: bool,
    /// Install fail-close policies and guards alone, whatever is missing, and end: for the boot,
    /// before the network comes up.
    #[arg(long, conflicts_with = "check")]
    block: bool,
    /// Where a copy of the last configuration without errors is kept, whose blocks are installed
    /// when the present one has errors. The default is accepted.toml in $STATE_DIRECTORY.
    #[arg(long, value_name = "FILE")]
    accepted: Option<PathBuf>,
    /// What to log, such as "debug" or "info,agent=trace". The default is RUST_LOG, then "info".
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gdoi-agent: {}", control::with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    daemon::process::disable_core_dumps().context("core dumps cannot be turned off")?;
    daemon::secrets::credentials_of_unit("/etc/gdoi-agent/psk");
    daemon::log::init(arguments.log.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("tokio runtime")?;
    runtime.block_on(async {
        let interfaces = match xfrm::interface::interfaces().await {
            Ok(interfaces) => Some(interfaces),
            Err(error) => {
                warn!(
                    event = "interfaces-unreadable",
                    %error,
                    "interfaces cannot be read; allow netlink sockets in the service's filter"
                );
                None
            }
        };
        let source = Source::new(arguments.config.clone(), arguments.accepted.clone());
        if arguments.block {
            let interfaces = interfaces.unwrap_or_default();
            let report = match source.blocks(&interfaces) {
                Ok((config, report)) => {
                    blocks::install(&config, &interfaces).await?;
                    report
                }
                Err(report) => Some(report),
            };
            let Some(report) = report else { return Ok(ExitCode::SUCCESS) };
            eprint!("{report}");
            return Ok(ExitCode::FAILURE);
        }
        let config = configuration(&source.path, interfaces.as_ref());
        let interfaces = interfaces.unwrap_or_default();
        let config = config.filter(|config| can_be_blocked(config, &interfaces));
        if arguments.check {
            let Some(config) = config else { return Ok(ExitCode::FAILURE) };
            let groups = count(config.groups.len(), "group");
            let tunnels = count(config.tunnels.len(), "tunnel");
            println!("{}: no errors; {groups}, {tunnels}", source.path.display());
            return Ok(ExitCode::SUCCESS);
        }
        let Some(config) = config else {
            // Whatever is wrong with it, what is protected stays blocked.
            let Ok((config, _)) = source.blocks(&interfaces) else {
                anyhow::bail!("nothing is blocked: no configuration was accepted before");
            };
            blocks::install(&config, &interfaces).await.context("nothing is blocked")?;
            return Ok(ExitCode::FAILURE);
        };
        let orderly = serve(source, config, &interfaces, |kernel| kernel).await?;
        Ok(if orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn can_be_blocked(config: &Config, interfaces: &Interfaces) -> bool {
    member::blocks(config, interfaces).inspect_err(|error| eprintln!("gdoi-agent: {error}")).is_ok()
}

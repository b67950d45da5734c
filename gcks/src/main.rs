//! `gcks`, the GDOI key server: command line, logging and the runtime.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use daemon::count;
use tracing::{error, warn};

/// A GDOI (RFC 6407) key server.
#[derive(Debug, Parser)]
#[command(name = "gcks", version, about)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration, print every error with its line, and exit.
    #[arg(long)]
    check: bool,
    /// Log filter, for example "debug" or "info,gdoi=trace"; default is RUST_LOG, else "info".
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = prepare(arguments.log.as_deref()) {
        eprintln!("gcks: {}", control::with_causes(error.as_ref()));
        return ExitCode::FAILURE;
    }
    let loaded = match gcks::config::load(&arguments.config) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{report}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.check {
        for warning in &loaded.warnings {
            println!("{}: warning: {warning}", arguments.config.display());
        }
        let (groups, members) = (loaded.value.groups.len(), loaded.value.members.len());
        let (groups, members) = (count(groups, "group"), count(members, "member"));
        println!("{}: no errors; {groups}, {members}", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    for warning in &loaded.warnings {
        warn!(event = "configuration-warning", %warning, "configuration warning");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(gcks::event_loop::run(loaded.value, arguments.config));
        // A look-up of somebody's groups for the control socket may hang; it must not hold up the
        // end.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = control::with_causes(error.as_ref());
            error!(event = "failed", error, "key server failed");
            ExitCode::FAILURE
        }
    }
}

/// What comes before anything else, above all before a key is read.
fn prepare(log: Option<&str>) -> anyhow::Result<()> {
    daemon::process::disable_core_dumps().context("core dumps cannot be turned off")?;
    daemon::secrets::credentials_of_unit("/etc/gcks/psk");
    Ok(daemon::log::init(log)?)
}

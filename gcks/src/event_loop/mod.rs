//! The loop: one task owns the key server and feeds it datagrams, the time and questions. Where
//! several servers are one, it is `standby` until it is elected and `active` then.

mod active;
mod host;
mod standby;

use std::path::PathBuf;

use daemon::notify;

use crate::config::Config;
use crate::event_loop::active::End;
use crate::event_loop::host::Host;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// An address or the control socket cannot be bound, or the system gives no randomness, timer or
/// signals.
pub async fn run(config: Config, path: PathBuf) -> anyhow::Result<()> {
    let mut host = Host::new(&config, path)?;
    let mut config = Some(config);
    while let Some(turn) = standby::run(&mut host, config.take()).await? {
        match active::run(&mut host, turn).await? {
            End::Stopped => break,
            End::Superseded => {}
        }
    }
    notify::stopping();
    host.finish();
    // Members keep their keys and ISAKMP SAs end by themselves: a restart disturbs nobody.
    tracing::info!(event = "stopped", "key server stopped");
    Ok(())
}

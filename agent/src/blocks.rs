//! Fail-close without a running daemon: before the network comes up at boot, and when the daemon
//! cannot start.
//!
//! Policies and guards of the configuration are installed, and nothing else is done. Whatever an
//! earlier run left in the kernel is more than that, and stays.

use std::time::Duration;

use anyhow::Context as _;
use daemon::clock;
use ike::BootTime;
use policies::GroupUnusable;
use tracing::{info, warn};
use xfrm::kernel::netlink::Netlink;
use xfrm::{Desired, Kernel, Ownership, Reconciler};

use crate::checkpoint::keep_exempt;
use crate::config::Config;
use crate::member::blocks;
use crate::membership::local_interface::Interfaces;
use crate::namespace_lock::{self, LockError, NamespaceLock};
use crate::persistence::state_file::Boot;
use crate::tunnel::Tunnels;

/// Attempts at a kernel update, and the pause between two.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// What stands in the kernel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Policies and guards of the configuration.
    Installed,
    /// What an earlier run left, untouched.
    Left,
}

/// Installs the fail-close policies and guards of this configuration, unless an agent runs.
///
/// # Errors
/// The configuration cannot be compiled, or the kernel refuses.
pub async fn install(config: &Config, interfaces: &Interfaces) -> anyhow::Result<()> {
    let _lock = match NamespaceLock::take(namespace_lock::NAME) {
        Err(error @ LockError::Taken { .. }) => {
            info!(event = "blocks-left", %error, "an agent is running and fails closed; nothing to do");
            return Ok(());
        }
        taken => taken?,
    };
    let kernel = Netlink::open().context("netlink")?;
    match install_in(kernel, config, interfaces, clock::boot_identifier()).await? {
        Blocked::Installed => info!(
            event = "blocks-installed",
            groups = config.groups.len(),
            "fail-close policies and guards are installed"
        ),
        Blocked::Left => {
            info!(event = "blocks-left", "kernel entries of an earlier run stay as they are");
        }
    }
    Ok(())
}

/// What fails closed: groups without keys, and tunnels without SAs.
fn desired(config: &Config, interfaces: &Interfaces) -> Result<Desired, GroupUnusable> {
    let mut desired = blocks(config, interfaces)?;
    let mut tunnels = Tunnels::default();
    tunnels.configure(&config.tunnels, BootTime::default());
    tunnels.add_to(&mut desired, BootTime::default());
    Ok(desired)
}

/// Installs what fails closed of `config` in this kernel, if it holds no policy of ours.
///
/// # Errors
/// The configuration cannot be compiled, or the kernel refuses.
pub async fn install_in<K: Kernel>(
    kernel: K,
    config: &Config,
    interfaces: &Interfaces,
    boot: Boot,
) -> anyhow::Result<Blocked> {
    let mut reconciler = Reconciler::new(kernel, Ownership::default());
    let mut attempt = 1;
    loop {
        let outcome = match reconciler.read().await {
            // On a later attempt they are those of the attempt before.
            Ok(current) if attempt == 1 && !current.policies.is_empty() => {
                return Ok(Blocked::Left);
            }
            Ok(_) => {
                let desired = desired(config, interfaces)?;
                if reconciler.foresee_exempt(&desired).await.is_ok() {
                    let exempt = reconciler.exempt_before();
                    keep_exempt(&config.state_file, boot, exempt);
                }
                reconciler.apply(desired).await.map(drop)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => return Ok(Blocked::Installed),
            Err(error) if attempt < ATTEMPTS => {
                warn!(event = "kernel-update-failed", %error, attempt, "kernel update failed; fail-close policies and guards not installed, retrying");
            }
            Err(error) => return Err(error).context("fail-close policies and guards"),
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

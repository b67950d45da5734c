//! The start of the daemon: configuration, control socket, kernel, then the event loop.

use std::path::Path;

use anyhow::Context as _;
use tracing::warn;
use xfrm::kernel::netlink::Netlink;
use xfrm::{Kernel, Ownership};

use crate::config::check::{Machine, load};
use crate::config::{Config, Group};
use crate::event_loop::EventLoop;
use crate::membership::Seeds;
use crate::membership::local_interface::Interfaces;
use crate::namespace_lock::{self, NamespaceLock};
use crate::privileges;
use crate::source::Source;

/// Reads the configuration; a report of what is wrong goes to standard error.
pub fn configuration(path: &Path, interfaces: Option<&Interfaces>) -> Option<Config> {
    match load(path, &Machine::this(interfaces)) {
        Ok(loaded) => {
            for warning in loaded.warnings {
                eprintln!("{}: warning: {warning}", path.display());
            }
            Some(loaded.value)
        }
        Err(report) => {
            eprint!("{report}");
            None
        }
    }
}

/// Runs the daemon until a signal ends it; returns whether the end worked. `kernel_of` may put
/// something between the daemon and the kernel.
///
/// What is missing and may come is waited for: see [`EventLoop::start`].
///
/// # Errors
/// Another agent runs, this process may not change the kernel, or the configuration cannot be
/// carried out.
pub async fn serve<K: Kernel>(
    source: Source,
    config: Config,
    interfaces: &Interfaces,
    kernel_of: impl FnOnce(Netlink) -> K,
) -> anyhow::Result<bool> {
    let _lock = NamespaceLock::take(namespace_lock::NAME)?;
    let missing: Vec<String> =
        privileges::check(&config).await?.iter().map(ToString::to_string).collect();
    for problem in &missing {
        warn!(event = "machine-problem", reason = %problem, "machine is not ready for the groups");
    }
    let kernel = Netlink::open().context("netlink")?;
    let events = kernel.events(&Ownership::default()).context("netlink events")?;
    let jitter = daemon::entropy::seed()?;
    let mut slot = 0_u64;
    let seeds_of = Box::new(move |_: &Group| {
        slot = slot.wrapping_add(1);
        let seeds: Seeds = Box::new(daemon::entropy::seed);
        (seeds, slot.wrapping_add(jitter_of(&jitter)))
    });
    let kernel = kernel_of(kernel);
    let running =
        EventLoop::start((source, config), seeds_of, kernel, events, interfaces, missing).await?;
    running.run().await
}

fn jitter_of(seed: &[u8; 32]) -> u64 {
    seed.iter().take(8).fold(0, |sum, octet| (sum << 8) | u64::from(*octet))
}

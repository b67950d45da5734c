//! The orderly end: a Delete to the key servers, then what `on-exit` says about the kernel.

use std::time::Duration;

use ike::BootTime;
use tracing::{error, info, warn};
use xfrm::{Desired, Kernel};

use crate::dataplane::Dataplane;
use crate::member::Member;
use crate::sockets::Sockets;
use crate::tunnel::Tunnels;

/// The whole end takes no longer than this.
pub const BOUND: Duration = Duration::from_secs(5);

/// Why the process ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The member leaves its groups: kernel entries become what `on-exit` says.
    Stop,
    /// The next run follows at once and restores the groups: kernel entries stay. Without a next
    /// run, SAs expire with their lifetimes and policies go on blocking.
    Restart,
}

/// Ends in order. Returns whether all of it worked; what did not is logged.
pub async fn leave<K: Kernel>(
    member: &mut Member,
    tunnels: &mut Tunnels,
    (sockets, ike): (&Sockets, [&Sockets; 2]),
    dataplane: &mut Dataplane<K>,
    ending: Ending,
    now: BootTime,
) -> bool {
    let end = async {
        member.stop(now);
        while let Some(transmit) = member.poll_transmit() {
            if let Err(error) = sockets.send(&transmit) {
                warn!(event = "delete-not-sent", %error, "delete of the ISAKMP SA not sent");
            }
        }
        tunnels.stop(now);
        while let Some(transmit) = tunnels.poll_transmit() {
            let sent = ike.into_iter().find(|sockets| sockets.port() == transmit.source.port());
            if let Some(Err(error)) = sent.map(|sockets| sockets.send(&transmit)) {
                warn!(event = "delete-not-sent", %error, "delete of a tunnel's SAs not sent");
            }
        }
        leave_kernel(member, tunnels, dataplane, ending, now).await
    };
    match tokio::time::timeout(BOUND, end).await {
        Ok(worked) => worked,
        Err(_) => {
            error!(
                event = "stop-timed-out",
                bound_seconds = BOUND.as_secs(),
                "stopping took too long; kernel entries stay as they are"
            );
            false
        }
    }
}

/// Brings the kernel into the state that `on-exit` asks for, or leaves it for the next run.
pub async fn leave_kernel<K: Kernel>(
    member: &Member,
    tunnels: &Tunnels,
    dataplane: &mut Dataplane<K>,
    ending: Ending,
    now: BootTime,
) -> bool {
    if ending == Ending::Restart {
        info!(event = "stopped", "stopped; kernel entries stay for the next run");
        return true;
    }
    let left = match member.desired_on_exit(now) {
        // Without groups there is nothing to keep, and tunnels keep their policies alone.
        Ok(None) if member.memberships().is_empty() => Ok(Some(Desired::default())),
        other => other,
    };
    match left {
        Ok(None) => {
            info!(event = "stopped", "stopped; kernel entries stay, as on-exit says");
            true
        }
        Ok(Some(mut desired)) => {
            tunnels.add_to(&mut desired, now);
            match dataplane.apply(desired, now).await {
                Ok(()) => {
                    info!(event = "stopped", "stopped; kernel entries are as on-exit says");
                    true
                }
                // Logged by the dataplane with its remedy.
                Err(_) => false,
            }
        }
        Err(unusable) => {
            error!(event = "stop-failed", reason = %unusable, "policy for the exit cannot be installed; kernel entries stay as they are");
            false
        }
    }
}

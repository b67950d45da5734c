//! The orderly end: a Delete to the key servers, then what `on-exit` says about the kernel.

use core::time::Duration;

use gdoi::BootTime;
use tracing::{error, info, warn};
use xfrm::Kernel;

use crate::dataplane::Dataplane;
use crate::member::Member;
use crate::sockets::Sockets;

/// The whole end takes no longer than this.
pub const BOUND: Duration = Duration::from_secs(5);

/// Ends in order. Returns whether all of it worked; what did not is logged.
pub async fn leave<K: Kernel>(
    member: &mut Member,
    sockets: &Sockets,
    dataplane: &mut Dataplane<K>,
    now: BootTime,
) -> bool {
    let end = async {
        member.stop(now);
        while let Some(transmit) = member.poll_transmit() {
            if let Err(error) = sockets.send(&transmit) {
                warn!(event = "goodbye-not-sent", %error, "delete of the ISAKMP SA not sent");
            }
        }
        leave_kernel(member, dataplane, now).await
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

/// Brings the kernel into the state that `on-exit` asks for.
pub async fn leave_kernel<K: Kernel>(
    member: &Member,
    dataplane: &mut Dataplane<K>,
    now: BootTime,
) -> bool {
    match member.desired_on_exit(now) {
        Ok(None) => {
            info!(event = "stopped", "kernel entries stay, as on-exit says");
            true
        }
        Ok(Some(desired)) => match dataplane.apply(desired, now).await {
            Ok(()) => {
                info!(event = "stopped", "kernel entries are as on-exit says");
                true
            }
            // Logged by the dataplane with its remedy.
            Err(_) => false,
        },
        Err(unusable) => {
            error!(event = "stop-failed", %unusable, "kernel entries stay as they are");
            false
        }
    }
}

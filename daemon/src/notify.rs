//! Messages to the service manager (sd_notify(3)). Without one they go nowhere, and that is right.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// Start-up is finished; `status` is the line that `systemctl status` shows.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon ends in order.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Replaces the line that `systemctl status` shows.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// The event loop is alive.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`watchdog`] is to be called: half of what the service manager waits, if it waits at
/// all.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(event = "notify-failed", %error, "service manager not notified");
    }
}

//! The boot-time clock and a timer on it.
//!
//! CLOCK_BOOTTIME counts suspended time and no step of the wall clock moves it, so a lifetime
//! that was promised to a peer ends when the peer thinks it ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use ike::BootTime;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{
    ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags,
};
use nix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The time since boot.
///
/// Every Linux since 2.6.39 has this clock; where it is denied, no deadline of any key could be
/// kept, so the process ends with a line that says so.
pub fn now() -> BootTime {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => BootTime::new(Duration::from(time)),
        Err(errno) => {
            eprintln!(
                "CLOCK_BOOTTIME cannot be read ({errno}); allow clock_gettime in the service's system call filter"
            );
            std::process::exit(1)
        }
    }
}

/// The wall clock: the time since 1970. No deadline depends on it; it says how long a reboot took.
pub fn wall() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// The number that the kernel drew for this boot; zero where it cannot be read, which is then the
/// same as no other.
pub fn boot_identifier() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> =
        text.bytes().filter_map(|digit| char::from(digit).to_digit(16)?.try_into().ok()).collect();
    let mut boot = [0; 16];
    for (octet, pair) in boot.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = pair.iter().fold(0, |octet, digit| octet << 4 | digit);
    }
    boot
}

/// One timer on the boot-time clock, for one event loop.
#[derive(Debug)]
pub struct Timer {
    descriptor: AsyncFd<Descriptor>,
}

/// tokio wants both views of a descriptor, nix offers one.
#[derive(Debug)]
struct Descriptor(TimerFd);

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    /// Makes a timer that is not set. Needs a running tokio reactor.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(
            TimerClock::CLOCK_BOOTTIME,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that change their descriptor; this one does not"
        )]
        let descriptor = AsyncFd::with_interest(Descriptor(timer), Interest::READABLE)?;
        Ok(Self { descriptor })
    }

    /// Sleeps until `at`, also across a suspend of the machine; for ever when there is no deadline.
    ///
    /// Cancel safe: dropping the future and calling again with another deadline is the normal use.
    ///
    /// # Errors
    /// The kernel refuses the timer, which only a broken system call filter can cause.
    pub async fn sleep_until(&mut self, at: Option<BootTime>) -> io::Result<()> {
        let Some(at) = at else {
            return std::future::pending().await;
        };
        // An all-zero expiration would disarm the timer instead of firing at once.
        let since_boot = at.since_boot().max(Duration::from_nanos(1));
        let longest = Duration::from_secs(u64::from(u32::MAX) * 64);
        self.descriptor.get_ref().0.set(
            Expiration::OneShot(TimeSpec::from_duration(since_boot.min(longest))),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME,
        )?;
        loop {
            let mut guard = self.descriptor.readable().await?;
            // A readiness of an earlier deadline may still be recorded: only the clock decides.
            if now() >= at {
                return Ok(());
            }
            guard.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_forward() {
        let first = now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(now().saturating_since(first) >= Duration::from_millis(2));
    }

    #[tokio::test]
    async fn a_timer_fires_at_its_deadline_and_can_be_set_again() {
        let mut timer = Timer::new().unwrap();
        for delay in [20, 0, 10] {
            let at = now() + Duration::from_millis(delay);
            timer.sleep_until(Some(at)).await.unwrap();
            assert!(now() >= at);
            assert!(now().saturating_since(at) < Duration::from_secs(1));
        }
    }

    #[tokio::test]
    async fn a_deadline_can_be_replaced_by_a_later_one() {
        let mut timer = Timer::new().unwrap();
        let early = now() + Duration::from_millis(100);
        // Asked once and dropped.
        let cancelled = tokio::time::timeout(Duration::ZERO, timer.sleep_until(Some(early))).await;
        assert!(cancelled.is_err());
        std::thread::sleep(Duration::from_millis(110));
        let late = now() + Duration::from_millis(30);
        timer.sleep_until(Some(late)).await.unwrap();
        assert!(now() >= late);
    }

    #[tokio::test]
    async fn no_deadline_sleeps_for_ever() {
        let mut timer = Timer::new().unwrap();
        let slept = tokio::time::timeout(Duration::from_millis(20), timer.sleep_until(None)).await;
        assert!(slept.is_err());
    }
}

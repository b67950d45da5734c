//! PendingAcks that wait: for the kernel to hold what their pushes said, and for their turn.
//!
//! A push by multicast reaches all members at the same moment. Each lets a random time pass before
//! it answers, so that the key server is not met by all answers at once (RFC 8263 §6).

use std::collections::VecDeque;

use gdoi::event::Transmit;
use ike::BootTime;

/// PendingAcks that may wait.
const WAITING: usize = 8;

/// All that wait, oldest first.
#[derive(Debug, Default)]
pub struct PendingAcks(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    transmit: Transmit,
    due: BootTime,
    /// Whether the kernel holds what its push said.
    applied: bool,
}

impl PendingAcks {
    /// One more, of a push that the kernel does not know yet. Where there are too many the oldest
    /// goes: the key server repeats its push.
    pub fn push(&mut self, transmit: Transmit, due: BootTime) {
        self.0.push_back(Waiting { transmit, due, applied: false });
        if self.0.len() > WAITING {
            self.0.pop_front();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The kernel holds what all pushes so far said. Returns those whose turn has come.
    pub fn handle_applied(&mut self, now: BootTime) -> Vec<Transmit> {
        let (due, later): (VecDeque<_>, _) =
            std::mem::take(&mut self.0).into_iter().partition(|one| one.due <= now);
        self.0 = later;
        self.0.iter_mut().for_each(|one| one.applied = true);
        due.into_iter().map(|one| one.transmit).collect()
    }

    /// What the kernel does not hold will not be carried out, and not acknowledged.
    pub fn suppress(&mut self) {
        self.0.retain(|one| one.applied);
    }

    /// When the next one's turn comes after `now`.
    pub fn poll_timeout(&self, now: BootTime) -> Option<BootTime> {
        self.0.iter().map(|one| one.due).filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(milliseconds: u64) -> BootTime {
        BootTime::new(Duration::from_millis(milliseconds))
    }

    fn answer(number: u8) -> Transmit {
        let address = "10.0.1.1:848".parse().unwrap();
        Transmit { destination: address, source: address, payload: vec![number] }
    }

    fn numbers(due: &[Transmit]) -> Vec<u8> {
        due.iter().map(|transmit| transmit.payload[0]).collect()
    }

    #[test]
    fn each_leaves_at_its_turn_once_the_kernel_is_done() {
        let mut all = PendingAcks::default();
        all.push(answer(1), at(500));
        all.push(answer(2), at(0));
        assert_eq!((all.poll_timeout(at(0)), all.poll_timeout(at(500))), (Some(at(500)), None));
        assert_eq!(numbers(&all.handle_applied(at(10))), [2]);
        assert!(all.handle_applied(at(499)).is_empty());
        assert_eq!(numbers(&all.handle_applied(at(500))), [1]);
        assert!(all.is_empty());
    }

    #[test]
    fn what_the_kernel_does_not_hold_is_suppressed_and_the_rest_is_not() {
        let mut all = PendingAcks::default();
        all.push(answer(1), at(500));
        assert!(all.handle_applied(at(10)).is_empty());
        all.push(answer(2), at(20));
        all.suppress();
        assert_eq!(numbers(&all.handle_applied(at(500))), [1]);
    }

    #[test]
    fn the_oldest_goes_where_too_many_wait() {
        let mut all = PendingAcks::default();
        (0..10).for_each(|number| all.push(answer(number), at(0)));
        assert_eq!(numbers(&all.handle_applied(at(0))), [2, 3, 4, 5, 6, 7, 8, 9]);
    }
}

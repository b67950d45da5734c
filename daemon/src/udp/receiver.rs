//! Receiving from one socket, with a pause after a failure.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Incoming, LONGEST_DATAGRAM, Socket};

/// What a failure is followed by: without memory, for instance, another try at once would only make
/// it worse.
const PAUSE: Duration = Duration::from_millis(200);

/// Room for the datagrams of one socket, and the pause that it makes by itself: other sockets go on
/// meanwhile.
#[derive(Debug)]
pub struct Receiver {
    buffer: Vec<u8>,
    paused_until: Option<Instant>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { buffer: vec![0; LONGEST_DATAGRAM], paused_until: None }
    }
}

impl Receiver {
    /// Waits for what arrives next at `socket`, and for the datagram's octets. Cancel safe.
    ///
    /// # Errors
    /// What the kernel says. The next call waits for a moment.
    pub async fn receive(&mut self, socket: &Socket) -> io::Result<(Incoming, &[u8])> {
        if let Some(until) = self.paused_until {
            sleep_until(until).await;
            self.paused_until = None;
        }
        let received = socket.receive(&mut self.buffer).await;
        let incoming = received.inspect_err(|_| self.pause())?;
        let length = match &incoming {
            Incoming::Datagram { length, .. } => *length,
            Incoming::Unreachable { .. } => 0,
        };
        Ok((incoming, self.buffer.get(..length).unwrap_or_default()))
    }

    /// Receives nothing for a moment.
    fn pause(&mut self) {
        self.paused_until = Some(Instant::now() + PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ike::event::Transmit;

    #[tokio::test]
    async fn one_that_failed_pauses_alone() {
        let (one, two) = ("127.0.84.11:0", "127.0.84.12:0");
        let [one, two] = [one, two].map(|address| Socket::bind(address.parse().unwrap()).unwrap());
        let send = |from: &Socket, to: &Socket| {
            let (source, destination) = (from.local(), to.local());
            from.send(&Transmit { source, destination, payload: vec![7; 9] }).unwrap();
        };
        let (mut failed, mut other) = (Receiver::default(), Receiver::default());
        failed.pause();
        let begun = Instant::now();
        send(&one, &two);
        send(&two, &one);
        assert_eq!(other.receive(&two).await.unwrap().1, [7; 9]);
        assert!(begun.elapsed() < PAUSE, "{:?}", begun.elapsed());
        // Given up and asked again, as in a loop that waits for more, it goes on with its pause.
        let given_up = tokio::time::timeout(PAUSE / 2, failed.receive(&one)).await;
        assert!(given_up.is_err());
        assert_eq!(failed.receive(&one).await.unwrap().1, [7; 9]);
        assert!(begun.elapsed() >= PAUSE);
    }
}

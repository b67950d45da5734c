//! Threads that compute key exchanges, so that the loop hears while they do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use anyhow::Context;
use gdoi::server::{Computation, Computed};
use tokio::sync::mpsc as asynchronous;

/// One thread for each processor. Neither queue has a bound of its own: the key server hands out no
/// more computations than its limits allow.
///
/// Dropping it ends each thread after the computation at hand; the results are lost.
#[derive(Debug)]
pub struct Workers {
    computations: mpsc::Sender<Computation>,
    results: asynchronous::UnboundedReceiver<Computed>,
}

impl Workers {
    /// # Errors
    /// The system starts no thread.
    pub fn start() -> anyhow::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let (computations, queue) = mpsc::channel();
        let (sender, results) = asynchronous::unbounded_channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..processors {
            let (queue, sender) = (Arc::clone(&queue), sender.clone());
            thread::Builder::new()
                .name(format!("key-exchange-{number}"))
                .spawn(move || work(&queue, &sender))
                .context("thread for key exchanges")?;
        }
        Ok(Self { computations, results })
    }

    /// Computes when a thread is free.
    pub fn run(&self, computation: Computation) {
        // The threads live as long as both queues do: none of them is closed.
        let _ = self.computations.send(computation);
    }

    /// The next result, in the order in which they are ready.
    pub async fn next(&mut self) -> Option<Computed> {
        self.results.recv().await
    }
}

fn work(
    queue: &Mutex<mpsc::Receiver<Computation>>,
    results: &asynchronous::UnboundedSender<Computed>,
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(computation) = next else { return };
        // A defect that one peer can reach must not end the thread that all peers need. The
        // exchange runs out of time.
        let Ok(computed) = catch_unwind(AssertUnwindSafe(|| computation.run())) else { continue };
        if results.send(computed).is_err() {
            return;
        }
    }
}

//! Writes the state in a thread of its own, one batch at a time, so that the event loop waits for
//! no disk and no etcd. Nothing may leave before the batch that describes it is written: see
//! [`Outbox`](crate::outbox::Outbox).

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use daemon::clock;
use daemon::sealed::file::Moment;
use ike::BootTime;
use tokio::sync::mpsc as asynchronous;
use tracing::warn;

use crate::group::key_generation::Entropy;
use crate::server::KeyServer;
use crate::state::Change;
use crate::state::store::StoreError;
use crate::state::store::sealed::SealedStore;

/// After a state that could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to be written, and when it was so.
struct Job {
    changes: Vec<Change>,
    moment: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All that was told is written.
    Idle,
    Writing {
        since: BootTime,
    },
    /// The last attempt failed; what it was to write waits.
    Failed {
        again: BootTime,
    },
}

/// The store of a running server.
#[derive(Debug)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    results: asynchronous::UnboundedReceiver<Result<(), StoreError>>,
    phase: Phase,
    took: Option<Duration>,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    /// Starts the thread. `before` is a file that goes once the store has been written.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(store: SealedStore, before: Option<PathBuf>) -> anyhow::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let (sender, results) = asynchronous::unbounded_channel();
        let work = move || work(store, before, &queue, &sender);
        let thread = thread::Builder::new().name("state".to_owned()).spawn(work);
        let thread = thread.context("a thread that writes the state")?;
        Ok(Self { jobs, results, phase: Phase::Idle, took: None, thread })
    }

    /// Begins to write what has changed, unless a batch is on its way. True if it has begun: what
    /// the server wants to send from here on to the next change waits for
    /// [`Writer::next`].
    pub fn save<E: Entropy>(&mut self, key_server: &mut KeyServer<E>, now: BootTime) -> bool {
        let is_due = match self.phase {
            Phase::Idle => key_server.is_unsaved(),
            Phase::Writing { .. } => false,
            Phase::Failed { again } => again <= now,
        };
        if !is_due {
            return false;
        }
        let mut changes = Vec::new();
        if key_server.is_unsaved() {
            changes = key_server.changes();
            key_server.saved();
        }
        // The thread lives as long as the queue.
        let _ = self.jobs.send(Job { changes, moment: Moment::at(now) });
        self.phase = Phase::Writing { since: now };
        true
    }

    /// How the batch on its way ended. Cancel safe.
    ///
    /// # Errors
    /// It could not be written; it will be tried again.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        match self.results.recv().await {
            Some(result) => self.ended(result),
            None => std::future::pending().await,
        }
    }

    /// As [`Writer::next`] if a batch is on its way, for callers without an event loop.
    ///
    /// # Errors
    /// As for [`Writer::next`].
    pub fn wait(&mut self) -> Result<(), StoreError> {
        match self.phase {
            Phase::Writing { .. } => {
                self.results.blocking_recv().map_or(Ok(()), |result| self.ended(result))
            }
            _ => Ok(()),
        }
    }

    pub fn finish(self) {
        let Self { jobs, thread, .. } = self;
        drop(jobs);
        let _ = thread.join();
    }

    fn ended(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        let now = clock::now();
        if let Phase::Writing { since } = self.phase {
            self.took = Some(now.saturating_since(since));
        }
        self.phase = match &result {
            Ok(()) => Phase::Idle,
            Err(_) => Phase::Failed { again: now + AGAIN },
        };
        result
    }

    /// Whether all that was told is written.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether it is taking longer than anybody waits who asked.
    pub fn is_late(&self, now: BootTime) -> bool {
        match self.phase {
            Phase::Idle => false,
            Phase::Writing { since } => now.saturating_since(since) >= AGAIN,
            Phase::Failed { .. } => true,
        }
    }

    /// When [`Writer::save`] is due by itself.
    pub fn poll_timeout(&self) -> Option<BootTime> {
        match self.phase {
            Phase::Failed { again } => Some(again),
            _ => None,
        }
    }

    /// How long the last write took.
    pub fn took(&self) -> Option<Duration> {
        self.took
    }
}

fn work(
    mut store: SealedStore,
    mut before: Option<PathBuf>,
    queue: &mpsc::Receiver<Job>,
    results: &asynchronous::UnboundedSender<Result<(), StoreError>>,
) {
    let mut pending = Vec::new();
    while let Ok(Job { changes, moment }) = queue.recv() {
        pending.extend(changes);
        let result = store.write(&pending, &moment);
        if result.is_ok() {
            pending.clear();
            if let Some(before) = before.take() {
                remove(&before);
            }
        }
        if results.send(result).is_err() {
            return;
        }
    }
}

fn remove(before: &std::path::Path) {
    if let Err(error) = std::fs::remove_file(before) {
        let path = before.display();
        warn!(event = "old-state-not-removed", %path, %error, "state of an earlier version not removed; remove it, it holds keys");
    }
}

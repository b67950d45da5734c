//! Which of several servers is active: the one that holds a key of etcd, for as long as its lease
//! is valid. A thread of its own stands for election, keeps the lease alive and watches whoever else
//! is active; nothing of it reconnects by itself in etcd's protocol, so that all of it is here.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use daemon::clock;
use ike::BootTime;
use ike::crypto::{HashAlgorithm, Secret, prf};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::mpsc as asynchronous;

use super::Settings;
use super::client::{
    Client, EtcdError, decoded, equal, get, number, pairs, put, response, revision,
};

/// Revisions of etcd whose old values are kept before they are compacted.
const KEPT_REVISIONS: i64 = 1000;

/// After a call that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// A server was elected.
#[derive(Clone, Debug)]
pub struct Term {
    /// The revision of etcd at which it was.
    pub elected: i64,
    /// Until when it may send.
    pub validity: Validity,
}

/// Until when a server may send what its state does not change for: repetitions, and what is
/// answered from memory. It counts from the moment at which the lease was asked for, so that it
/// ends before etcd elects another server, also in a server that was stopped meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Validity(Arc<AtomicU64>);

impl Validity {
    /// Whether the lease is valid at `now`.
    pub fn holds(&self, now: BootTime) -> bool {
        milliseconds(now) < self.0.load(Ordering::Acquire)
    }

    fn extend(&self, until: BootTime) {
        self.0.store(milliseconds(until), Ordering::Release);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Release);
    }
}

fn milliseconds(time: BootTime) -> u64 {
    u64::try_from(time.since_boot().as_millis()).unwrap_or(u64::MAX)
}

/// What an election tells.
#[derive(Debug)]
pub enum Event {
    /// Another server is active.
    Standby {
        active: String,
    },
    Elected(Term),
    /// This server is no longer active.
    Lost {
        reason: Lost,
    },
    /// A new problem, or that the last one is over.
    Problem(Option<ElectionError>),
}

/// Why there is no election, or why the lease could not be renewed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ElectionError {
    #[error("{place}: {error}")]
    Etcd { place: String, error: EtcdError },
    #[error(
        "{place}: the state there is sealed with another state key; give all key servers of it the same state-key-file"
    )]
    OtherStateKey { place: String },
}

/// Why a server is no longer active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the message says it")]
pub enum Lost {
    #[error("its lease ended before it could be renewed")]
    LeaseEnded,
}

enum Command {
    Stand,
    Resign,
}

/// The thread that stands for election.
#[derive(Debug)]
pub struct Election {
    commands: mpsc::Sender<Command>,
    events: asynchronous::UnboundedReceiver<Event>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Election {
    /// Starts the thread, which waits for [`Election::stand`]. All servers have the same state
    /// key.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(settings: Settings, state_key: &Secret) -> std::io::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let (sender, events) = asynchronous::unbounded_channel();
        let patience = (settings.lease / 4).max(PAUSE);
        let fingerprint = prf(HashAlgorithm::Sha2_256, state_key.expose(), &[b"gcks state: etcd"]);
        let mut text = String::new();
        for octet in fingerprint.expose().iter().take(8) {
            let _ = write!(text, "{octet:02x}");
        }
        let candidate = Candidate {
            client: Client::new(&settings.endpoints, patience),
            settings,
            fingerprint: text,
            commands: receiver,
            events: sender,
            problem: None,
            active: None,
            compacted: 0,
        };
        let thread =
            thread::Builder::new().name("election".to_owned()).spawn(move || candidate.run())?;
        Ok(Self { commands, events, thread: Some(thread) })
    }

    /// Wants to be elected.
    pub fn stand(&self) {
        let _ = self.commands.send(Command::Stand);
    }

    /// Revokes the lease, so that another server is elected at once.
    pub fn resign(&self) {
        let _ = self.commands.send(Command::Resign);
    }

    /// The next event. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Resigns and waits for etcd to know, for not longer than one call takes.
    pub fn finish(mut self) {
        self.resign();
        drop(self.commands);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What came of standing for election.
enum Outcome {
    Elected { elected: i64, lease: i64, asked: BootTime },
    Other { active: String, seen: i64 },
}

struct Candidate {
    client: Client,
    settings: Settings,
    /// Tells state keys apart.
    fingerprint: String,
    commands: mpsc::Receiver<Command>,
    events: asynchronous::UnboundedSender<Event>,
    /// What is wrong, as it was told.
    problem: Option<ElectionError>,
    /// The other server, as it was told.
    active: Option<String>,
    /// The revision before which etcd has forgotten what was.
    compacted: i64,
}

impl Candidate {
    fn run(mut self) {
        while let Ok(command) = self.commands.recv() {
            if matches!(command, Command::Stand) && self.stand().is_none() {
                return;
            }
        }
    }

    /// Until this server was elected and has lost the election, or resigns. `None` when the
    /// daemon ends.
    fn stand(&mut self) -> Option<()> {
        self.active = None;
        loop {
            match self.commands.try_recv() {
                Ok(Command::Resign) => return Some(()),
                Err(TryRecvError::Disconnected) => return None,
                Ok(Command::Stand) | Err(TryRecvError::Empty) => {}
            }
            match self.campaign() {
                Ok(Outcome::Elected { elected, lease, asked }) => {
                    self.tell_problem(None);
                    return self.hold(elected, lease, asked);
                }
                Ok(Outcome::Other { active, seen }) => {
                    self.tell_problem(None);
                    if self.active.as_ref() != Some(&active) {
                        self.active = Some(active.clone());
                        self.tell(Event::Standby { active });
                    }
                    self.watch(seen);
                }
                Err(problem) => {
                    self.tell_problem(Some(problem));
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Waits until the active server goes, but looks again after the time of a lease: a watch may
    /// break unnoticed.
    fn watch(&self, seen: i64) {
        let is_gone = |event: &Value| {
            let events = event.get("events").and_then(Value::as_array);
            let is_delete = |event: &Value| event.get("type").is_some_and(|kind| kind == "DELETE");
            events.is_some_and(|events| events.iter().any(is_delete))
                || event.get("canceled").is_some()
        };
        let key = self.settings.key("active");
        let next = seen.saturating_add(1);
        if self.client.watch(&key, next, self.settings.lease, is_gone).is_err() {
            thread::sleep(PAUSE);
        }
    }

    fn campaign(&mut self) -> Result<Outcome, ElectionError> {
        let (active, key) = (self.settings.key("active"), self.settings.key("state-key"));
        let look = json!({ "success": [get(&key), get(&active)] });
        let seen = self.call("/v3/kv/txn", &look)?;
        let found = |answer: &Value, place| -> Option<(String, i64)> {
            let pair = pairs(response(answer, place, "response_range")).first()?;
            let text = String::from_utf8_lossy(&decoded(pair, "value")?).into_owned();
            Some((text, number(pair, "mod_revision")))
        };
        let known = found(&seen, 0);
        if known.as_ref().is_some_and(|(known, _)| *known != self.fingerprint) {
            return Err(ElectionError::OtherStateKey { place: self.settings.place() });
        }
        if let Some((active, _)) = found(&seen, 1) {
            return Ok(Outcome::Other { active, seen: revision(&seen) });
        }
        let asked = clock::now();
        let seconds = self.settings.lease.as_secs().to_string();
        let lease = number(&self.call("/v3/lease/grant", &json!({ "TTL": seconds }))?, "ID");
        let mut claim = put(&active, &self.settings.name);
        if let Some(fields) = claim.get_mut("request_put").and_then(Value::as_object_mut) {
            fields.insert("lease".to_owned(), lease.to_string().into());
        }
        let stand = json!({
            "compare": [
                equal(&active, "create_revision", 0),
                equal(&key, "mod_revision", known.as_ref().map_or(0, |(_, revision)| *revision)),
            ],
            "success": [claim, put(&key, &self.fingerprint)],
        });
        let answer = self.call("/v3/kv/txn", &stand)?;
        if answer.get("succeeded").and_then(Value::as_bool) == Some(true) {
            return Ok(Outcome::Elected { elected: revision(&answer), lease, asked });
        }
        // Somebody was faster. What is not revoked ends by itself.
        let _ = self.revoke(lease);
        Ok(Outcome::Other { active: "another server".to_owned(), seen: revision(&seen) })
    }

    /// Renews the lease. `None` when the daemon ends.
    fn hold(&mut self, elected: i64, lease: i64, asked: BootTime) -> Option<()> {
        let validity = Validity::default();
        // Clocks do not run alike to the last percent.
        let time = self.settings.lease.mul_f64(0.9);
        validity.extend(asked + time);
        self.tell(Event::Elected(Term { elected, validity: validity.clone() }));
        let usual = self.settings.lease / 3;
        let mut pause = usual;
        loop {
            match self.commands.recv_timeout(pause) {
                Ok(Command::Stand) | Err(RecvTimeoutError::Timeout) => {}
                ended @ (Ok(Command::Resign) | Err(RecvTimeoutError::Disconnected)) => {
                    validity.end();
                    let _ = self.revoke(lease);
                    return ended.is_ok().then_some(());
                }
            }
            let now = clock::now();
            let kept = self.client.call("/v3/lease/keepalive", &json!({ "ID": lease.to_string() }));
            match kept {
                Ok(answer) if number(&answer, "TTL") > 0 => {
                    validity.extend(now + time);
                    self.tell_problem(None);
                    self.compact(revision(&answer));
                    pause = usual;
                }
                Ok(_) | Err(EtcdError::NoLease) => {
                    validity.end();
                    self.tell(Event::Lost { reason: Lost::LeaseEnded });
                    return Some(());
                }
                Err(error) => {
                    self.tell_problem(Some(self.problem_of(error)));
                    pause = PAUSE.min(usual);
                }
            }
        }
    }

    /// Lets etcd forget the values of long ago: with each write the old one would stay for ever.
    fn compact(&mut self, revision: i64) {
        let until = revision.saturating_sub(KEPT_REVISIONS);
        if until.saturating_sub(self.compacted) < KEPT_REVISIONS {
            return;
        }
        self.compacted = until;
        // Another server may have done so.
        let request = json!({ "revision": until.to_string() });
        if let Err(error) = self.client.call("/v3/kv/compaction", &request) {
            tracing::debug!(event = "etcd-not-compacted", %error, "old values in etcd stay for now");
        }
    }

    fn revoke(&self, lease: i64) -> Result<Value, EtcdError> {
        self.client.call("/v3/lease/revoke", &json!({ "ID": lease.to_string() }))
    }

    fn call(&self, path: &str, request: &Value) -> Result<Value, ElectionError> {
        self.client.call(path, request).map_err(|error| self.problem_of(error))
    }

    fn problem_of(&self, error: EtcdError) -> ElectionError {
        ElectionError::Etcd { place: self.settings.place(), error }
    }

    fn tell_problem(&mut self, problem: Option<ElectionError>) {
        if self.problem != problem {
            self.problem.clone_from(&problem);
            self.tell(Event::Problem(problem));
        }
    }

    fn tell(&self, event: Event) {
        // The daemon ends if nobody listens.
        let _ = self.events.send(event);
    }
}

//! A client of etcd's JSON gateway (`/v3/`), which every etcd from 3.4 on serves beside gRPC.
//!
//! The gateway needs no more than HTTP: a gRPC client would bring an HTTP/2 stack, and protoc into
//! every build, for six calls. Each call is made at the endpoint that answered last, then at the
//! others.

use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use thiserror::Error;
use ureq::{Agent, Body};

/// Octets of an answer, more than a page of records has.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;

/// Octets of one event of a watch.
const LONGEST_EVENT: u64 = 64 * 1024;

/// Characters of an answer that a message quotes.
const QUOTED: usize = 60;

/// gRPC status codes.
const NOT_FOUND: i64 = 5;
const RESOURCE_EXHAUSTED: i64 = 8;
const UNIMPLEMENTED: i64 = 12;

/// etcd does not do what it was asked. One line, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum EtcdError {
    #[error("no etcd server answers ({reasons}); start etcd, or correct the endpoints")]
    Unreachable { reasons: String },
    #[error(
        "etcd at {endpoint} answers \"{quoted}\", which is no answer of its JSON gateway; see that the endpoint is an etcd of version 3.4 or later with enable-grpc-gateway"
    )]
    Garbage { endpoint: String, quoted: String },
    #[error(
        "etcd has no room: {message}; run `etcdctl compact`, `etcdctl defrag` and `etcdctl alarm disarm`, or raise its quota-backend-bytes"
    )]
    Full { message: String },
    #[error("etcd has no such lease")]
    NoLease,
    #[error("etcd refuses: {message}")]
    Refused { message: String },
}

/// One endpoint did not answer as it should.
enum Failure {
    /// Another one may.
    Elsewhere(String),
    /// Another one would say the same.
    Final(EtcdError),
    /// Not what etcd says. Another one may be sound.
    Garbage(EtcdError),
}

/// The endpoints of one etcd cluster.
#[derive(Clone, Debug)]
pub struct Client {
    endpoints: Arc<[String]>,
    agent: Agent,
    /// The endpoint that answered last, shared by all copies.
    current: Arc<AtomicUsize>,
    /// How long one endpoint may take.
    patience: Duration,
}

impl Client {
    /// For these endpoints, each like `http://10.0.0.1:2379`. Calls give up an endpoint after
    /// `patience`.
    pub fn new(endpoints: &[String], patience: Duration) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build()
            .into();
        let current = Arc::new(AtomicUsize::new(0));
        Self { endpoints: endpoints.into(), agent, current, patience }
    }

    /// Makes one call. An endpoint that fails may have carried it out.
    ///
    /// # Errors
    /// No endpoint answers, or etcd refuses.
    pub fn call(&self, path: &str, request: &Value) -> Result<Value, EtcdError> {
        self.anywhere(|endpoint| {
            let mut body = self.send(endpoint, path, request, self.patience)?;
            let text = read(&mut body, endpoint)?;
            answer(endpoint, &text)
        })
    }

    /// Watches one key from `revision` on; `is_last` sees each answer, and ends the watch by true.
    /// Ends by itself after `limit`.
    ///
    /// # Errors
    /// No endpoint answers.
    pub fn watch(
        &self,
        key: &str,
        revision: i64,
        limit: Duration,
        is_last: impl Fn(&Value) -> bool,
    ) -> Result<(), EtcdError> {
        let request = json!({
            "create_request": { "key": encoded(key), "start_revision": revision.to_string() }
        });
        self.anywhere(|endpoint| {
            let body = self.send(endpoint, "/v3/watch", &request, limit)?;
            let mut lines = BufReader::new(body.into_reader());
            loop {
                let mut line = Vec::new();
                let read = lines.by_ref().take(LONGEST_EVENT).read_until(b'\n', &mut line);
                match read {
                    // Its time is over, or the server went: who watches looks again.
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                    Ok(_) => {
                        let event = answer(endpoint, &String::from_utf8_lossy(&line))?;
                        if is_last(&event) {
                            return Ok(());
                        }
                    }
                }
            }
        })
    }

    fn anywhere<T>(&self, attempt: impl Fn(&str) -> Result<T, Failure>) -> Result<T, EtcdError> {
        let (mut reasons, mut garbage) = (Vec::new(), None);
        let first = self.current.load(Ordering::Relaxed);
        for offset in 0..self.endpoints.len() {
            let place = first.wrapping_add(offset).checked_rem(self.endpoints.len());
            let Some((place, endpoint)) =
                place.and_then(|place| Some((place, self.endpoints.get(place)?)))
            else {
                continue;
            };
            match attempt(endpoint) {
                Ok(done) => {
                    self.current.store(place, Ordering::Relaxed);
                    return Ok(done);
                }
                Err(Failure::Elsewhere(reason)) => reasons.push(format!("{endpoint}: {reason}")),
                Err(Failure::Garbage(error)) => garbage = Some(error),
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        let reasons = reasons.join(", ");
        Err(garbage.unwrap_or(EtcdError::Unreachable { reasons }))
    }

    fn send(
        &self,
        endpoint: &str,
        path: &str,
        request: &Value,
        limit: Duration,
    ) -> Result<Body, Failure> {
        let sent = self
            .agent
            .post(format!("{endpoint}{path}"))
            .config()
            .timeout_connect(Some(self.patience.min(limit)))
            .timeout_global(Some(limit))
            .build()
            .content_type("application/json")
            .send(request.to_string().as_bytes());
        sent.map(|response| response.into_body()).map_err(|error| elsewhere(endpoint, error))
    }
}

fn elsewhere(endpoint: &str, error: ureq::Error) -> Failure {
    match error {
        // What answers there speaks no HTTP.
        ureq::Error::Http(_) | ureq::Error::Protocol(_) => Failure::Garbage(EtcdError::Garbage {
            endpoint: endpoint.to_owned(),
            quoted: error.to_string(),
        }),
        ureq::Error::Timeout(_) => Failure::Elsewhere("no answer in time".to_owned()),
        error => Failure::Elsewhere(error.to_string()),
    }
}

fn read(body: &mut Body, endpoint: &str) -> Result<String, Failure> {
    let octets = body.with_config().limit(LONGEST_ANSWER).read_to_vec();
    let octets = octets.map_err(|error| elsewhere(endpoint, error))?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// Tells an answer from an error of etcd and from anything else.
fn answer(endpoint: &str, text: &str) -> Result<Value, Failure> {
    let garbage = || {
        let quoted: String = text.trim().chars().take(QUOTED).collect();
        let quoted = quoted.replace(|character: char| character.is_control(), " ");
        Failure::Garbage(EtcdError::Garbage { endpoint: endpoint.to_owned(), quoted })
    };
    let Ok(value @ Value::Object(_)) = serde_json::from_str::<Value>(text) else {
        return Err(garbage());
    };
    // A stream wraps each answer.
    let error = value.get("error").filter(|error| !error.is_null());
    if let Some(error) = error {
        let told = if error.is_object() { error } else { &value };
        let text = |key: &str| told.get(key).and_then(Value::as_str);
        let message = text("message").or(text("error")).unwrap_or("no reason given").to_owned();
        let code = ["code", "grpc_code"].into_iter().find_map(|key| told.get(key)?.as_i64());
        return Err(match code {
            Some(RESOURCE_EXHAUSTED) if message.contains("space exceeded") => {
                Failure::Final(EtcdError::Full { message })
            }
            Some(NOT_FOUND) if message.contains("lease") => Failure::Final(EtcdError::NoLease),
            Some(NOT_FOUND | UNIMPLEMENTED) if !message.contains("etcdserver") => garbage(),
            _ if is_passing(&message) => Failure::Elsewhere(message),
            _ => Failure::Final(EtcdError::Refused { message }),
        });
    }
    match value {
        Value::Object(mut fields) if fields.contains_key("result") => {
            Ok(fields.remove("result").unwrap_or_default())
        }
        value if value.get("header").is_some() => Ok(value),
        _ => Err(garbage()),
    }
}

/// Whether one member of the cluster says that it cannot answer now.
fn is_passing(message: &str) -> bool {
    ["no leader", "leader changed", "timed out", "stopped", "unavailable", "too many requests"]
        .iter()
        .any(|part| message.contains(part))
}

/// A key or a value as the gateway wants it.
pub fn encoded(octets: impl AsRef<[u8]>) -> String {
    STANDARD.encode(octets)
}

/// A value as the gateway gives it; what is empty is left out there.
pub fn decoded(value: &Value, field: &str) -> Option<Vec<u8>> {
    match value.get(field) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(text) => STANDARD.decode(text.as_str()?).ok(),
    }
}

/// A 64-bit number as the gateway gives it: as text, and not at all if it is 0.
pub fn number(value: &Value, field: &str) -> i64 {
    match value.get(field) {
        Some(Value::String(text)) => text.parse().unwrap_or_default(),
        Some(number) => number.as_i64().unwrap_or_default(),
        None => 0,
    }
}

/// The revision that an answer was given at.
pub fn revision(answer: &Value) -> i64 {
    answer.get("header").map_or(0, |header| number(header, "revision"))
}

/// The keys and values in an answer to a range.
pub fn pairs(answer: &Value) -> &[Value] {
    answer.get("kvs").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The answer to one request of a transaction.
pub fn response(answer: &Value, place: usize, kind: impl Display) -> &Value {
    let one = answer.get("responses").and_then(|all| all.get(place));
    one.and_then(|one| one.get(kind.to_string())).unwrap_or(&Value::Null)
}

/// Compares a key in a transaction: `target` is `create_revision` or `mod_revision`, which are 0
/// for a key that is not there.
pub fn equal(key: &str, target: &str, revision: i64) -> Value {
    let kind = if target == "create_revision" { "CREATE" } else { "MOD" };
    let mut compare = json!({ "key": encoded(key), "target": kind, "result": "EQUAL" });
    if let Some(fields) = compare.as_object_mut() {
        fields.insert(target.to_owned(), revision.to_string().into());
    }
    compare
}

/// Gets a key in a transaction.
pub fn get(key: &str) -> Value {
    json!({ "request_range": { "key": encoded(key) } })
}

/// Puts a key in a transaction.
pub fn put(key: &str, value: impl AsRef<[u8]>) -> Value {
    json!({ "request_put": { "key": encoded(key), "value": encoded(value) } })
}

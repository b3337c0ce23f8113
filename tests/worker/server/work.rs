//! What a request is about: who may ask, and what the answer is.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::check;
use super::{Mode, Route, Seen, Shared, State, Stored};

/// Bytes of a result.
const BODY_BYTES_MAX: usize = 10 * 1000 * 1000;

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Cow<'static, [u8]>,
}

impl Reply {
    pub(super) fn text(status: u16, text: &str) -> Self {
        Self { status, headers: Vec::new(), body: text.as_bytes().to_vec().into() }
    }

    fn json(value: &Value) -> Self {
        Self::text(200, &value.to_string())
    }

    /// Returns a head that promises `length` bytes.
    pub(super) fn head(&self, length: usize) -> Vec<u8> {
        self.head_with(&format!("Content-Length: {length}\r\n"))
    }

    /// Returns a head that promises chunks.
    pub(super) fn chunked_head(&self) -> Vec<u8> {
        self.head_with("Transfer-Encoding: chunked\r\n")
    }

    /// Returns a head that promises nothing.
    pub(super) fn unframed_head(&self) -> Vec<u8> {
        self.head_with("Connection: close\r\n")
    }

    fn head_with(&self, framing: &str) -> Vec<u8> {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("HTTP/1.1 {} Planned\r\n{headers}{framing}\r\n", self.status).into_bytes()
    }

    /// Returns the whole answer.
    pub(super) fn bytes(&self) -> Vec<u8> {
        // RFC 9110, 15.3.5: no body, and so no length.
        if self.status == 204 { self.head_with("") } else { [&self.head(self.body.len()), &self.body[..]].concat() }
    }
}

/// Returns which call this is; a base URL may have a path before the API's.
pub(super) fn route(seen: &Seen) -> Option<Route> {
    let path = path(seen);
    match seen.method.as_str() {
        "POST" if path.ends_with("/api/v1/worker/request") => Some(Route::Request),
        "POST" if path.ends_with("/api/v1/worker/heartbeat") => Some(Route::Heartbeat),
        "POST" if path.ends_with("/api/v1/worker/results") => Some(Route::Results),
        "GET" if path.starts_with("/files/") => Some(Route::Files),
        _ => None,
    }
}

fn path(seen: &Seen) -> &str {
    seen.path.split('?').next().unwrap_or_default()
}

/// Remembers a nonce as soon as it was seen, whatever comes of its request; the answer to one that was seen before.
pub(super) fn remember_nonce(state: &mut State, seen: &Seen) -> Option<Reply> {
    let nonce = seen.headers.get("x-worker-nonce")?;
    if state.nonces.insert(nonce.clone()) {
        return None;
    }
    state.violations.push(format!("{} {}: replay of the nonce {nonce}", seen.method, seen.path));
    Some(Reply::text(401, "replay"))
}

/// Returns the answer to a request that is against the rules for all of them.
pub(super) fn refuse(shared: &Shared, seen: &Seen, body: &[u8]) -> Option<Reply> {
    let secret = shared.secret.as_ref()?;
    let wrong = check::signature(secret, seen, path(seen), body)?;
    shared.update(|state| state.violations.push(format!("{} {}: {wrong}", seen.method, seen.path)));
    Some(Reply::text(401, &wrong))
}

/// Does what is asked.
pub(super) fn work(shared: &Shared, route: Option<Route>, seen: &Seen, body: &[u8]) -> Reply {
    match route {
        None => {
            shared.update(|state| state.violations.push(format!("{} {}: no such call", seen.method, seen.path)));
            Reply::text(404, "no such call")
        }
        Some(Route::Files) => {
            let file = shared.lock().files.get(path(seen)).cloned();
            file.map_or_else(
                || Reply::text(404, "no such file"),
                |bytes| Reply { status: 200, headers: Vec::new(), body: bytes.to_vec().into() },
            )
        }
        Some(_) if body.len() > BODY_BYTES_MAX => Reply::text(413, "more than 10 MB"),
        Some(route) => match serde_json::from_slice::<Value>(body) {
            Ok(value) => call(shared, route, value, body),
            Err(error) => refused(shared, 400, vec![format!("{route:?}: no JSON: {error}")]),
        },
    }
}

fn refused(shared: &Shared, status: u16, reasons: Vec<String>) -> Reply {
    let text = reasons.join("; ");
    shared.update(|state| state.violations.extend(reasons));
    Reply::text(status, &text)
}

/// A call with a body that is JSON.
fn call(shared: &Shared, route: Route, value: Value, body: &[u8]) -> Reply {
    let wrong = match (route, shared.mode) {
        (Route::Results, Mode::Today) => check::result(&value),
        (Route::Results, Mode::Minimal) => check::collection(&value),
        (_, Mode::Today) => check::activity(&value),
        (_, Mode::Minimal) => check::minimal_activity(&value),
    };
    if !wrong.is_empty() {
        return refused(shared, 422, wrong);
    }
    match route {
        Route::Results => shared.update(|state| store(state, value, body)),
        Route::Heartbeat => {
            shared.update(|state| state.heartbeats.push(value));
            Reply::json(&json!({}))
        }
        Route::Request | Route::Files => shared.update(|state| lease(state, &value)),
    }
}

/// Hands out a job.
fn lease(state: &mut State, activity: &Value) -> Reply {
    let text = |key: &str| activity[key].as_str().unwrap_or_default().to_owned();
    let host = state.hosts.entry(text("workerID")).or_insert_with(|| text("hostname"));
    if *host != text("hostname") {
        return Reply::text(409, "this worker id is in use from another host");
    }
    let Some(job) = state.queue.pop_front() else { return Reply::text(204, "") };
    let reply = Reply::json(&job);
    state.leased.insert(job["submissionID"].as_str().unwrap_or_default().to_owned(), job);
    reply
}

/// Puts the job of an answer that was lost back to where it was.
pub(super) fn take_back(shared: &Shared, lost: &Reply) {
    let Ok(job) = serde_json::from_slice::<Value>(&lost.body) else { return };
    shared.update(|state| {
        if let Some(job) = state.leased.remove(job["submissionID"].as_str().unwrap_or_default()) {
            state.queue.push_front(job);
        }
    });
}

/// Keeps a result.
fn store(state: &mut State, value: Value, body: &[u8]) -> Reply {
    let collection = value.get("collection").unwrap_or(&value);
    let submission = collection["submissionID"].as_str().unwrap_or_default().to_owned();
    let attempt = collection["attemptNumber"].as_u64().and_then(|attempt| attempt.try_into().ok()).unwrap_or(0);
    state.leased.remove(&submission);
    let results: &mut BTreeMap<_, Stored> = &mut state.results;
    let stored = results.entry((submission, attempt)).or_insert_with(|| Stored {
        first: value.clone(),
        first_body: body.to_vec(),
        arrivals: 0,
        differing: 0,
    });
    stored.arrivals += 1;
    stored.differing += usize::from(stored.first != value);
    Reply::json(&json!({ "received": true }))
}

//! An API server for tests: real HTTP/1.1 on a port of the system's choice, a thread for each connection, connections kept.
//!
//! It is as strict as docs/protocol.md: what it refuses, it also notes, and a test asserts that [`Server::violations`] is empty. A
//! request passes these stations; a [`Fault`] spoils one of them:
//!
//! ```text
//! head ─► nonce ─► fault before the body? ─► body ─► signature ─► fault instead of the work? ─► work ─► answer, or its ruin
//! ```
//!
//! A job whose answer is ruined goes back to the queue, as a lease that ends would bring it.

#![allow(dead_code, reason = "each of its users needs a part of it")]
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::needless_pass_by_value,
    reason = "most faults mean nothing to most stations"
)]

mod check;
mod connection;
mod fault;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) use fault::Fault;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which of Chickadee's two servers this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Today's server: signatures if it has a secret, reports or bare collections, exact keys.
    Today,
    /// Chickadee's first server: no authentication, bare collections, reads only `workerID` and `hostname` of an activity.
    Minimal,
}

/// The calls that faults are planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    Request,
    Heartbeat,
    Results,
    Files,
}

/// A request as it came, also one that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) at: Instant,
    /// The connection that it came over, from 0.
    pub(crate) connection: usize,
}

/// The results of one attempt of one submission.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// As it came first: a report, or a bare collection.
    pub(crate) first: Value,
    /// The same, byte by byte.
    pub(crate) first_body: Vec<u8>,
    /// How often one came.
    pub(crate) arrivals: usize,
    /// How many of these were not like the first.
    pub(crate) differing: usize,
}

impl Stored {
    /// Returns the collection, with or without a report around it.
    pub(crate) fn collection(&self) -> &Value {
        self.first.get("collection").unwrap_or(&self.first)
    }
}

/// A job and the files that it is about.
#[derive(Debug, Clone)]
pub(crate) struct Assigned {
    pub(crate) submission_id: String,
    /// Jobs of one set-up have one URL for it.
    pub(crate) test_setup_id: String,
    pub(crate) attempt_number: u32,
    pub(crate) manifest: Value,
    /// A zip.
    pub(crate) set_up: Vec<u8>,
    /// A zip, or the file itself if it has a name.
    pub(crate) submission: Vec<u8>,
    pub(crate) submission_filename: Option<String>,
    pub(crate) assignment_seed: Option<Value>,
}

/// What the threads of a server share.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) queue: VecDeque<Value>,
    /// By submission.
    pub(crate) leased: BTreeMap<String, Value>,
    /// By path.
    pub(crate) files: BTreeMap<String, Arc<Vec<u8>>>,
    pub(crate) requests: Vec<Seen>,
    pub(crate) results: BTreeMap<(String, u32), Stored>,
    /// The activities, in the order in which they came.
    pub(crate) heartbeats: Vec<Value>,
    pub(crate) violations: Vec<String>,
    /// Which host each worker id was first heard from.
    hosts: BTreeMap<String, String>,
    nonces: BTreeSet<String>,
    plan: fault::Plan,
    /// Connections that are open, by their numbers, to end them.
    open: BTreeMap<usize, TcpStream>,
    connections: usize,
    is_down: bool,
}

/// A state, who waits for it, and what does not change.
struct Shared {
    mode: Mode,
    secret: Option<String>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells those who wait for that.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.lock());
        self.changed.notify_all();
        outcome
    }
}

/// A running server; dropping it ends all of it.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl Server {
    /// Today's server; with a secret it refuses what is not signed with it.
    pub(crate) fn today(secret: Option<&str>) -> Self {
        Self::start(Mode::Today, secret)
    }

    /// Chickadee's first server.
    pub(crate) fn minimal() -> Self {
        Self::start(Mode::Minimal, None)
    }

    fn start(mode: Mode, secret: Option<&str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let secret = secret.map(str::to_owned);
        let shared = Arc::new(Shared { mode, secret, state: Mutex::default(), changed: Condvar::new() });
        let listening = Some(listen(listener, Arc::clone(&shared)));
        Self { address, shared, listening }
    }

    /// Returns the base URL, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves `bytes` at `path`, which begins with `/files/`; returns the URL.
    pub(crate) fn add_file(&self, path: &str, bytes: Vec<u8>) -> String {
        self.shared.update(|state| state.files.insert(path.to_owned(), Arc::new(bytes)));
        format!("{}{path}", self.url())
    }

    /// Queues a job and serves its files.
    pub(crate) fn add_job(&self, job: Assigned) {
        let set_up = self.add_file(&format!("/files/set-ups/{}.zip", job.test_setup_id), job.set_up);
        let submission = self.add_file(&format!("/files/submissions/{}", job.submission_id), job.submission);
        let mut text = json!({
            "submissionID": job.submission_id, "testSetupID": job.test_setup_id, "attemptNumber": job.attempt_number,
            "submissionURL": submission, "testSetupURL": set_up, "manifest": job.manifest,
        });
        if let Some(name) = job.submission_filename {
            text["submissionFilename"] = name.into();
        }
        if let Some(seed) = job.assignment_seed {
            text["assignmentSeed"] = seed;
        }
        self.add_raw_job(text);
    }

    /// Queues a job that is sent as it is.
    pub(crate) fn add_raw_job(&self, job: Value) {
        self.shared.update(|state| state.queue.push_back(job));
    }

    /// Puts the leased job of `submission_id` back into the queue, as if its lease had ended; whether there was one.
    pub(crate) fn requeue(&self, submission_id: &str) -> bool {
        self.shared.update(|state| state.leased.remove(submission_id).map(|job| state.queue.push_back(job)).is_some())
    }

    /// Pretends that `worker_id` works on `hostname`: from elsewhere it gets 409.
    pub(crate) fn occupy(&self, worker_id: &str, hostname: &str) {
        self.shared.update(|state| state.hosts.insert(worker_id.to_owned(), hostname.to_owned()));
    }

    /// Plans the next requests of `route`, one fault for each; [`Fault::None`] lets one pass.
    pub(crate) fn script(&self, route: Route, faults: impl IntoIterator<Item = Fault>) {
        self.shared.update(|state| state.plan.script(route, faults));
    }

    /// From now on a random fault in `percent` of all requests that are not planned; the same ones for the same seed and order.
    pub(crate) fn chaos(&self, seed: u64, percent: u64) {
        self.shared.update(|state| state.plan.chaos(seed, percent));
    }

    /// No faults any more, planned or random.
    pub(crate) fn calm(&self) {
        self.shared.update(|state| state.plan = fault::Plan::default());
    }

    /// Refuses connections and ends those that are open.
    pub(crate) fn down(&mut self) {
        let open = self.shared.update(|state| {
            state.is_down = true;
            std::mem::take(&mut state.open)
        });
        for stream in open.values() {
            // It may be closed.
            stream.shutdown(Shutdown::Both).unwrap_or_default();
        }
        if let Some(listening) = self.listening.take() {
            // Wakes the listener, which sees that it is down; another's connection would do as well.
            drop(TcpStream::connect(self.address));
            listening.join().unwrap();
        }
    }

    /// Whether it accepts connections.
    pub(crate) fn is_up(&self) -> bool {
        self.listening.is_some()
    }

    /// Is there again, at the same address, with all that it knew.
    pub(crate) fn up(&mut self) {
        let started = Instant::now();
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) if started.elapsed() > PATIENCE => panic!("{}: {error}", self.address),
                Err(_) => thread::yield_now(),
            }
        };
        self.shared.update(|state| state.is_down = false);
        self.listening = Some(listen(listener, Arc::clone(&self.shared)));
    }

    /// Waits until nobody is connected, so that nobody is being given a job.
    pub(crate) fn wait_until_alone(&self) {
        self.wait_until("nobody is connected", |state| state.open.is_empty());
    }

    /// Returns everything that a test may look at, while nothing changes: drop it soon.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// What was refused as against the protocol, in order.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// All requests, in order.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.state().requests.clone()
    }

    /// All results.
    pub(crate) fn results(&self) -> BTreeMap<(String, u32), Stored> {
        self.state().results.clone()
    }

    /// Waits until `is_so`; panics with `what` after a minute.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), PATIENCE, |state| !is_so(state));
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "not within {PATIENCE:?}: {what}\n{:#?}", state.violations);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

/// Accepts connections until the server is down.
fn listen(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let number = shared.update(|state| {
                if state.is_down {
                    return None;
                }
                let number = state.connections;
                state.connections += 1;
                state.open.extend(stream.try_clone().map(|stream| (number, stream)));
                Some(number)
            });
            let Some(number) = number else { return };
            let shared = Arc::clone(&shared);
            thread::spawn(move || connection::serve(stream, number, &shared));
        }
    })
}

//! Sends finished results, one after another, until the server has taken each. What it refuses is set aside, what it cannot take now
//! is sent again: soon at first, then now and then.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::api::{ApiError, Job, JobApi, JobKey};
use super::log::{EventName, Log};
use super::report::{BODY_BYTES_MAX, shrunk};
use super::retry::{Class, Jitter, Policy};
use super::spool::{Spool, Spooled};
use super::state::{JobsInHand, Ticket};
use super::status::{self, Status};
use crate::model::verdict::Fault;
use crate::os::journal::Level;

/// Between two attempts at a result that was not taken as often as a policy has attempts.
const LATER: Duration = Duration::from_secs(60);

/// A result on its way.
pub(super) struct Parcel {
    content: Content,
    job: JobKey,
    failed: u32,
    due: Instant,
}

/// Where a result is.
enum Content {
    Spooled(Spooled),
    /// The disk did not take it, so its job is still in hand, if it is on record at all.
    InMemory(Vec<u8>, Option<Ticket>),
}

/// Results that wait to be sent.
pub(super) struct Sender {
    state: Mutex<State>,
    changed: Condvar,
    policy: Policy,
}

struct State {
    parcels: Vec<Parcel>,
    /// One is being sent.
    is_sending: bool,
    is_ended: bool,
}

/// What came of an attempt.
enum Sent {
    Taken,
    Later(Duration),
    Never,
}

impl Sender {
    /// Has what an earlier worker has left to send.
    pub(super) fn new(policy: Policy, left: Vec<Spooled>) -> Self {
        let parcels = left.into_iter().map(Parcel::spooled).collect();
        let state = State { parcels, is_sending: false, is_ended: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), policy }
    }

    /// Takes a result to send.
    pub(super) fn send(&self, parcel: Parcel) {
        self.lock().parcels.push(parcel);
        self.changed.notify_all();
    }

    /// Returns how many results wait.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        state.parcels.len() + usize::from(state.is_sending)
    }

    /// Waits until nothing is left to send, `limit` at most; tells whether nothing is.
    pub(super) fn wait_until_empty(&self, limit: Duration) -> bool {
        let is_busy = |state: &mut State| state.is_sending || !state.parcels.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, is_busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !is_busy(&mut state)
    }

    /// Ends the thread. What is left stays in the spool.
    pub(super) fn finish(&self) {
        self.lock().is_ended = true;
        self.changed.notify_all();
    }

    /// Sends what is due, until the end.
    pub(super) fn run(&self, post: &Post<'_>) {
        let mut jitter = Jitter::fresh();
        while let Some(mut parcel) = self.next() {
            let sent = post.attempt(&mut parcel, &self.policy, &mut jitter);
            let mut state = self.lock();
            state.is_sending = false;
            if let Sent::Later(delay) = sent {
                parcel.due = Instant::now() + delay;
                state.parcels.push(parcel);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for a parcel that is due, the longest due first; `None` at the end.
    fn next(&self) -> Option<Parcel> {
        let mut state = self.lock();
        loop {
            if state.is_ended {
                return None;
            }
            let first = state.parcels.iter().enumerate().min_by_key(|(_, parcel)| parcel.due);
            let now = Instant::now();
            match first.map(|(at, parcel)| (at, parcel.due)) {
                Some((at, due)) if due <= now => {
                    state.is_sending = true;
                    return Some(state.parcels.swap_remove(at));
                }
                Some((_, due)) => {
                    let waited = self.changed.wait_timeout(state, due - now);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A list and two flags, each changed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parcel {
    /// A result in the spool.
    pub(super) fn spooled(spooled: Spooled) -> Self {
        let job = JobKey { submission_id: spooled.submission_id.clone(), attempt_number: spooled.attempt };
        Self { content: Content::Spooled(spooled), job, failed: 0, due: Instant::now() }
    }

    /// A result that only we have.
    pub(super) fn in_memory(body: Vec<u8>, job: &Job, ticket: Option<Ticket>) -> Self {
        Self { content: Content::InMemory(body, ticket), job: job.key(), failed: 0, due: Instant::now() }
    }
}

/// What results are sent with.
pub(super) struct Post<'a> {
    pub(super) api: &'a dyn JobApi,
    pub(super) spool: &'a Spool,
    pub(super) in_hand: &'a JobsInHand,
    pub(super) log: &'a Log,
    pub(super) status: &'a Status,
}

impl Post<'_> {
    fn attempt(&self, parcel: &mut Parcel, policy: &Policy, jitter: &mut Jitter) -> Sent {
        self.put_on_disk(parcel);
        let body = match &parcel.content {
            Content::InMemory(body, _) => Ok(body.clone()),
            Content::Spooled(spooled) => self.spool.body(spooled).map_err(|error| Fault::new(&error)),
        };
        let body = match body {
            Ok(body) => body,
            Err(fault) => return self.set_aside(parcel, &fault.to_string()),
        };
        match self.report(parcel, &body) {
            Ok(()) => self.taken(parcel),
            Err(error) => self.not_taken(parcel, &error, policy, jitter),
        }
    }

    /// The disk may have room by now.
    fn put_on_disk(&self, parcel: &mut Parcel) {
        let Content::InMemory(body, ticket) = &parcel.content else { return };
        if let Ok(spooled) = self.spool.add(&parcel.job.submission_id, parcel.job.attempt_number, body) {
            self.forget(parcel, ticket.as_ref());
            parcel.content = Content::Spooled(spooled);
        }
    }

    /// Takes the job of a result that is safe off the record, if it is there.
    fn forget(&self, parcel: &Parcel, ticket: Option<&Ticket>) {
        if let Some(ticket) = ticket {
            forget(self.in_hand, self.log, &parcel.job, ticket);
        }
    }

    /// Sends a body; one that is too large for the server is cut.
    fn report(&self, parcel: &Parcel, body: &[u8]) -> Result<(), ApiError> {
        let mut cut = None;
        loop {
            let sent: &[u8] = cut.as_deref().unwrap_or(body);
            match self.api.report(sent) {
                Err(error @ ApiError::Status { code: 413, .. }) => {
                    let smaller = shrunk(sent, BODY_BYTES_MAX.min(sent.len() / 2)).ok_or(error)?;
                    self.say(Level::Warn, EventName::ResultShrunk, parcel, &[("bytes", json!(smaller.len()))]);
                    cut = Some(smaller);
                }
                other => return other,
            }
        }
    }

    fn taken(&self, parcel: &Parcel) -> Sent {
        match &parcel.content {
            Content::InMemory(_, ticket) => self.forget(parcel, ticket.as_ref()),
            Content::Spooled(spooled) => {
                if let Err(error) = self.spool.remove(spooled) {
                    self.log.disk_failed(&parcel.job, &error);
                }
            }
        }
        self.say(Level::Info, EventName::ResultSent, parcel, &[]);
        self.status.note(status::Event::ResultSent);
        Sent::Taken
    }

    fn not_taken(&self, parcel: &mut Parcel, error: &ApiError, policy: &Policy, jitter: &mut Jitter) -> Sent {
        parcel.failed += 1;
        let text = self.log.without_secrets(&Fault::new(error).to_string());
        let delay = match error.class() {
            Class::Terminal => return self.set_aside(parcel, &text),
            Class::Retry { after } if policy.goes_on(parcel.failed) => policy.delay(parcel.failed, after, jitter),
            Class::Retry { after } => LATER.max(after.unwrap_or_default()) + jitter.up_to(LATER / 4),
            // We have cut it short, for we end: no failure.
            Class::Stopped => return Sent::Later(LATER),
            // A secret that is changed on the server, or here: nothing that a quick attempt could mend.
            Class::Auth => LATER + jitter.up_to(LATER / 4),
        };
        let fields =
            [("error", json!(text.clone())), ("failed", json!(parcel.failed)), ("next_s", json!(delay.as_secs()))];
        self.say(Level::Warn, EventName::ResultRetried, parcel, &fields);
        self.status.note(status::Event::Failed(text));
        Sent::Later(delay)
    }

    /// It will never be taken; nothing is lost all the same.
    fn set_aside(&self, parcel: &Parcel, why: &str) -> Sent {
        let set_aside = match &parcel.content {
            Content::Spooled(spooled) => self.spool.set_aside(spooled, why).map_err(|error| Fault::new(&error)),
            Content::InMemory(..) => Err(Fault::from_text("it was in memory only, the disk did not take it")),
        };
        self.say(Level::Error, EventName::ResultSetAside, parcel, &[("error", json!(why))]);
        match set_aside {
            Ok(dropped) => dropped.iter().for_each(|name| {
                let fields = [("file", json!(name.to_string_lossy()))];
                self.log.event(Level::Warn, EventName::RejectedDropped, &fields);
            }),
            Err(fault) => {
                self.say(Level::Error, EventName::SpoolFailed, parcel, &[("error", json!(fault.to_string()))]);
            }
        }
        Sent::Never
    }

    fn say(&self, level: Level, event: EventName, parcel: &Parcel, more: &[(&str, serde_json::Value)]) {
        self.log.of_job(level, event, &parcel.job, more);
    }
}

/// Takes a job whose result is safe off the record.
pub(super) fn forget(in_hand: &JobsInHand, log: &Log, job: &JobKey, ticket: &Ticket) {
    if let Err(error) = in_hand.done(ticket) {
        log.disk_failed(job, &error);
    }
}

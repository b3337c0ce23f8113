//! Sends finished results, one after another, until the server has taken each. What it refuses is set aside, what it does not take now
//! is sent again: soon at first, then now and then, without an end.

use std::borrow::Cow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::api::{ApiError, JobApi, JobKey};
use super::daemon::Troubles;
use super::log::{EventName, Log, seconds};
use super::report::{BODY_BYTES_MAX, shrunk};
use super::retry::{Class, Jitter, Policy};
use super::spool::{Spool, SpoolError, Spooled};
use super::state::{JobsInHand, Ticket};
use super::status::{self, Status};
use crate::model::verdict::Fault;
use crate::os::journal::Level;

/// A result on its way.
pub(super) struct Parcel {
    content: Content,
    failed: u32,
    due: Instant,
}

/// Where a result is.
enum Content {
    Spooled(Spooled),
    /// The disk did not take it, so its job is still in hand.
    InMemory(Vec<u8>, Ticket),
}

/// Results that wait to be sent.
pub(super) struct Sender {
    state: Mutex<State>,
    changed: Condvar,
    policy: Policy,
}

struct State {
    parcels: Vec<Parcel>,
    /// What the thread has taken from them: the one that is being sent, at the end all that are being put on the disk.
    under_way: Vec<(JobKey, Place)>,
    /// How many were set aside.
    set_aside: usize,
    is_ended: bool,
    is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Disk,
    Memory,
}

/// What is not sent at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// How many results the disk has.
    pub(super) spooled: usize,
    /// The jobs of those that it has not, as far as is known.
    pub(super) lost: Vec<JobKey>,
    /// How many were set aside, and will never be sent.
    pub(super) set_aside: usize,
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
        let state = State { parcels, under_way: Vec::new(), set_aside: 0, is_ended: false, is_over: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), policy }
    }

    /// Takes a result to send.
    pub(super) fn send(&self, parcel: Parcel) {
        self.change(|state| state.parcels.push(parcel));
    }

    /// Returns how many results wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().unsent().count()
    }

    /// Returns how many of them only the memory has.
    pub(super) fn in_memory(&self) -> usize {
        self.lock().unsent().filter(|(_, place)| *place == Place::Memory).count()
    }

    /// Returns what would be left if this were the end.
    pub(super) fn left(&self) -> Left {
        let state = self.lock();
        let (lost, spooled): (Vec<_>, Vec<_>) = state.unsent().partition(|(_, place)| *place == Place::Memory);
        let lost = lost.into_iter().map(|(job, _)| job.clone()).collect();
        Left { spooled: spooled.len(), lost, set_aside: state.set_aside }
    }

    /// Waits until nothing is left to send, `limit` at most; tells whether nothing is.
    pub(super) fn wait_until_empty(&self, limit: Duration) -> bool {
        let is_busy = |state: &mut State| state.unsent().next().is_some();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, is_busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !is_busy(&mut state)
    }

    /// Ends the thread. What is left stays in the spool, and what is not there yet is put there, if the disk takes it by now.
    pub(super) fn finish(&self) {
        self.change(|state| state.is_ended = true);
    }

    /// Waits until the thread has ended, and has put on the disk what that takes, `limit` at most; tells whether it has.
    pub(super) fn wait_until_over(&self, limit: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |state| !state.is_over);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_over
    }

    /// Sends what is due, until the end.
    pub(super) fn run(&self, post: &Post<'_>) {
        let mut jitter = Jitter::fresh();
        while let Some(mut parcel) = self.next() {
            let sent = post.attempt(&mut parcel, &self.policy, &mut jitter);
            self.change(|state| {
                state.under_way.clear();
                match sent {
                    Sent::Taken => {}
                    Sent::Later(delay) => {
                        parcel.due = Instant::now() + delay;
                        state.parcels.push(parcel);
                    }
                    Sent::Never => state.set_aside += 1,
                }
            });
        }
        let mut left = self.lock().take_all();
        // Without the lock: a disk that hangs must not keep those who ask what is lost.
        left.iter_mut().for_each(|parcel| post.put_on_disk(parcel));
        self.change(|state| {
            state.under_way.clear();
            state.parcels.extend(left);
            state.is_over = true;
        });
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
                    let parcel = state.parcels.swap_remove(at);
                    state.under_way.push((parcel.job().clone(), parcel.place()));
                    return Some(parcel);
                }
                Some((_, due)) => {
                    let waited = self.changed.wait_timeout(state, due - now);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Lists, a number and flags, each changed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The job of each result that is not sent yet, and where that is, or was when the thread took it.
    fn unsent(&self) -> impl Iterator<Item = (&JobKey, Place)> {
        let waiting = self.parcels.iter().map(|parcel| (parcel.job(), parcel.place()));
        waiting.chain(self.under_way.iter().map(|(job, place)| (job, *place)))
    }

    fn take_all(&mut self) -> Vec<Parcel> {
        self.under_way.extend(self.parcels.iter().map(|parcel| (parcel.job().clone(), parcel.place())));
        std::mem::take(&mut self.parcels)
    }
}

impl Parcel {
    /// A result in the spool.
    pub(super) fn spooled(spooled: Spooled) -> Self {
        Self::of(Content::Spooled(spooled))
    }

    /// A result that only we have.
    pub(super) fn in_memory(body: Vec<u8>, ticket: Ticket) -> Self {
        Self::of(Content::InMemory(body, ticket))
    }

    fn of(content: Content) -> Self {
        Self { content, failed: 0, due: Instant::now() }
    }

    fn job(&self) -> &JobKey {
        match &self.content {
            Content::Spooled(spooled) => &spooled.job,
            Content::InMemory(_, ticket) => &ticket.key,
        }
    }

    fn place(&self) -> Place {
        match self.content {
            Content::Spooled(_) => Place::Disk,
            Content::InMemory(..) => Place::Memory,
        }
    }
}

/// What results are sent with.
pub(super) struct Post<'a> {
    pub(super) api: &'a dyn JobApi,
    pub(super) spool: &'a Spool,
    pub(super) in_hand: &'a JobsInHand,
    pub(super) log: &'a Log,
    pub(super) status: &'a Status,
    pub(super) troubles: &'a Troubles,
}

impl Post<'_> {
    fn attempt(&self, parcel: &mut Parcel, policy: &Policy, jitter: &mut Jitter) -> Sent {
        self.put_on_disk(parcel);
        let body = match &parcel.content {
            Content::InMemory(body, _) => Cow::Borrowed(body.as_slice()),
            Content::Spooled(spooled) => match self.spool.body(spooled) {
                Ok(body) => Cow::Owned(body),
                Err(error @ SpoolError::Broken(_)) => return self.set_aside(parcel, &Fault::new(&error).to_string()),
                Err(error) => {
                    // The disk, or a lack of memory or descriptors: nothing is wrong with the result.
                    self.log.disk_failed(&spooled.job, &error);
                    return Sent::Later(policy.later(None, jitter));
                }
            },
        };
        match self.report(parcel.job(), &body) {
            Ok(()) => self.taken(parcel),
            Err(error) => self.not_taken(parcel, &error, policy, jitter),
        }
    }

    /// The disk may have room by now.
    fn put_on_disk(&self, parcel: &mut Parcel) {
        let Content::InMemory(body, ticket) = &parcel.content else { return };
        if let Ok(spooled) = self.spool.add(&ticket.key, body) {
            forget(self.in_hand, self.log, ticket);
            parcel.content = Content::Spooled(spooled);
        }
    }

    /// Sends a body; one that is too large for the server is cut.
    fn report(&self, job: &JobKey, body: &[u8]) -> Result<(), ApiError> {
        let mut cut = None;
        loop {
            let sent: &[u8] = cut.as_deref().unwrap_or(body);
            match self.api.report(sent) {
                Err(error @ ApiError::Status { code: 413, .. }) => {
                    let smaller = shrunk(sent, BODY_BYTES_MAX.min(sent.len() / 2)).ok_or(error)?;
                    self.log.of_job(Level::Warn, EventName::ResultShrunk, job, &[("bytes", json!(smaller.len()))]);
                    cut = Some(smaller);
                }
                other => return other,
            }
        }
    }

    fn taken(&self, parcel: &Parcel) -> Sent {
        match &parcel.content {
            Content::InMemory(_, ticket) => forget(self.in_hand, self.log, ticket),
            Content::Spooled(spooled) => {
                if let Err(error) = self.spool.remove(spooled) {
                    self.log.disk_failed(&spooled.job, &error);
                }
            }
        }
        self.say(Level::Info, EventName::ResultSent, parcel, &[]);
        self.status.note(status::Event::ResultSent);
        self.troubles.taken();
        Sent::Taken
    }

    fn not_taken(&self, parcel: &mut Parcel, error: &ApiError, policy: &Policy, jitter: &mut Jitter) -> Sent {
        let text = self.log.without_secrets(&Fault::new(error).to_string());
        if error.is_refusal() {
            self.troubles.refused(&format!("the server refuses its result: {text}"));
            return self.set_aside(parcel, &text);
        }
        let failed = parcel.failed + 1;
        let delay = match error.class() {
            Class::Retry { after } if policy.goes_on(failed) => policy.delay(failed, after, jitter),
            Class::Retry { after } => policy.later(after, jitter),
            // A secret, an address, a proxy that is mended on the server, or here: nothing that a quick attempt could do.
            Class::Auth | Class::Terminal => policy.later(None, jitter),
            // The end of the worker, which is no failure.
            Class::Stopped => return Sent::Later(policy.later(None, jitter)),
        };
        parcel.failed = failed;
        let fields = [("error", json!(text.clone())), ("failed", json!(failed)), ("next_s", seconds(delay))];
        self.say(Level::Warn, EventName::ResultRetried, parcel, &fields);
        self.status.note(status::Event::Failed(text));
        Sent::Later(delay)
    }

    /// It will never be taken. What the disk has is kept all the same.
    fn set_aside(&self, parcel: &Parcel, why: &str) -> Sent {
        self.say(Level::Error, EventName::ResultSetAside, parcel, &[("error", json!(why))]);
        self.status.note(status::Event::Failed(why.to_owned()));
        match &parcel.content {
            Content::Spooled(spooled) => match self.spool.set_aside(spooled, why) {
                Ok(dropped) => dropped.iter().for_each(|name| {
                    let fields = [("file", json!(name.to_string_lossy()))];
                    self.log.event(Level::Warn, EventName::RejectedDropped, &fields);
                }),
                Err(error) => self.log.disk_failed(&spooled.job, &error),
            },
            Content::InMemory(_, ticket) => {
                let error = json!("it was in memory only, the disk did not take it");
                self.say(Level::Error, EventName::SpoolFailed, parcel, &[("error", error)]);
                // Else the job would be run again, for an answer that is known.
                forget(self.in_hand, self.log, ticket);
            }
        }
        Sent::Never
    }

    fn say(&self, level: Level, event: EventName, parcel: &Parcel, more: &[(&str, serde_json::Value)]) {
        self.log.of_job(level, event, parcel.job(), more);
    }
}

/// Takes a job whose result is safe off the record.
pub(super) fn forget(in_hand: &JobsInHand, log: &Log, ticket: &Ticket) {
    if let Err(error) = in_hand.done(ticket) {
        log.disk_failed(&ticket.key, &error);
    }
}

#[cfg(test)]
mod tests;

//! Slots, polls and the end: what the worker does all day.
//!
//! # Theory of operation
//!
//! One thread polls, and only while a slot is free; a thread a slot does the jobs; one sends results; one sends heartbeats. A job is on
//! record before it is begun, and its result is in the spool before it is sent, so a worker that is killed at any moment finds at its
//! next start what it had. The first signal closes the slots: no more polls, and what runs goes on until the drain limit. The second
//! ends everything at once. Nothing is waited for without a limit, since all is on record: a thread that does not end ends with the
//! process.

mod crew;
mod ending;
mod pace;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::json;

use super::api::{ApiError, Job, Polled};
use super::log::{EventName, seconds};
use super::retry::Class;
use super::sender::forget;
use super::shared::Worker;
use super::state::{Begun, Ticket};
use super::status::{self, PollOutcome};
use super::work::{Claimed, carry_out};
use crate::flow::job::Started;
use crate::model::verdict::Fault;
use crate::os::journal::Level;
use crew::CarryOut;
pub(super) use ending::EndingLimits;
use ending::{drain, tick};
pub(super) use pace::Troubles;
use pace::{IDLE_MAX, Pace, Trouble};

/// With `--once`: polls that may fail one after another.
const FAILED_POLLS_MAX: u32 = 6;

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything that was taken is done; results that the server has not taken are in the spool.
    Drained,
    /// With `--once`: the server could not be reached.
    Unreachable,
    /// Results that neither the server nor the disk has taken are gone.
    ResultsLost,
    /// With `--once`: something kept the worker from taking jobs.
    Hindered,
    /// With `--once`: the server has not taken every result; they are in the spool, or were set aside.
    Unsent,
    /// With `--once`: a job stays in hand, for the next start.
    Unfinished,
    /// Something of the worker failed.
    Failed,
    /// By a second signal.
    Aborted,
}

impl Ended {
    /// Returns the word for it in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Unreachable => "unreachable",
            Self::ResultsLost => "results_lost",
            Self::Hindered => "hindered",
            Self::Unsent => "unsent",
            Self::Unfinished => "unfinished",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// Works until the slots are closed, or with `--once` until there is nothing to do; `left` are jobs that an earlier worker had in hand.
pub(super) fn work(worker: &Arc<Worker>, left: Vec<(Job, Ticket)>) -> Ended {
    work_with(carry_out, worker, left)
}

/// The same with what is done to a job.
fn work_with(carry_out: CarryOut, worker: &Arc<Worker>, left: Vec<(Job, Ticket)>) -> Ended {
    worker.status.note(status::Event::Ready);
    worker.status.note(status::Event::Spooled(worker.sender.waiting()));
    // Before anything is sent: what is taken from the spool cannot be told from what never was in it.
    let (done, left): (Vec<_>, Vec<_>) = left.into_iter().partition(|(job, _)| worker.spool.holds(&job.key()));
    // An earlier worker was killed before it could say so.
    done.iter().for_each(|(_, ticket)| forget(&worker.in_hand, &worker.log, ticket));
    let (ends, poll_ended) = channel();
    let started = crew::start(worker, carry_out, move |worker| {
        let ended = poll(worker, left);
        worker.slots.close();
        // Whoever started this waits for it.
        ends.send(ended).ok();
    });
    if let Err(error) = started {
        worker.fail(&format!(
            "it could not start a thread for each of its {} slots and three more ({error}); use fewer with `--max-jobs`, or allow more \
             (`ulimit -u`, `TasksMax=`)",
            worker.config.max_jobs
        ));
    }
    let ended = drain(worker, &poll_ended);
    // Else the file would tell for ever of the job that was the last.
    worker.status.note(status::Event::Spooled(worker.sender.waiting()));
    worker.status.note(status::Event::Ended);
    tick(worker);
    ended
}

/// Takes up what an earlier worker had in hand, then polls until the slots are closed or there is another reason to end.
fn poll(worker: &Worker, left: Vec<(Job, Ticket)>) -> Ended {
    if !left.into_iter().all(|(job, ticket)| resume(worker, job, ticket)) {
        return Ended::Drained;
    }
    // The last of them is alone as well.
    worker.slots.wait_until_idle();
    let mut pace = Pace::new(worker.polls);
    while worker.slots.wait_for_one() {
        // Before the poll: a job that ends while it is under way is a change.
        let ended = worker.slots.ended();
        match hindered(worker, &mut pace).unwrap_or_else(|| poll_once(worker, &mut pace)) {
            Next::Poll => {}
            Next::Change(time) => worker.slots.wait_for_change(ended, time),
            Next::Pause(_, given_up) if worker.config.once && is_given_up(worker, &pace) => return given_up,
            Next::Pause(time, _) => {
                worker.slots.wait_until_closed(time);
            }
            Next::End => return Ended::Drained,
        }
    }
    Ended::Drained
}

/// What follows a poll, or a look that found why there should be none.
enum Next {
    /// Another poll, as soon as there is a slot.
    Poll,
    /// A pause, or until a job ends.
    Change(Duration),
    /// A pause; and with `--once`, what to end as after too many of them.
    Pause(Duration, Ended),
    /// No more polls.
    End,
}

/// Tells whether enough was tried; jobs that run are waited for.
fn is_given_up(worker: &Worker, pace: &Pace) -> bool {
    pace.failed() >= FAILED_POLLS_MAX && worker.slots.busy() == 0
}

/// Tells those who watch what keeps the worker from polling, and returns what to do instead of it.
fn hindered(worker: &Worker, pace: &mut Pace) -> Option<Next> {
    if let Some((event, fields)) = obstacle(worker) {
        worker.status.note(status::Event::Obstacle(Some(event)));
        worker.log.event(Level::Warn, event, &fields);
        return Some(Next::Pause(pace.slowly(), Ended::Hindered));
    }
    if let Some(trouble) = worker.troubles.now() {
        return troubled(worker, pace, &trouble);
    }
    worker.status.note(status::Event::Obstacle(None));
    None
}

/// After job upon job that failed by no fault of its own, or whose result was refused: one at a time is tried, and ever more rarely,
/// until one is graded, or its result taken.
fn troubled(worker: &Worker, pace: &mut Pace, trouble: &Trouble) -> Option<Next> {
    worker.status.note(status::Event::Obstacle(Some(EventName::JobsFailing)));
    if worker.config.once {
        worker.fail(&format!("{} jobs failed one after another, the last because: {}", trouble.failed, trouble.last));
        return Some(Next::End);
    }
    if worker.slots.busy() > 0 {
        return Some(Next::Change(IDLE_MAX));
    }
    let pause = pace.trouble(trouble)?;
    let fields = [("failed", json!(trouble.failed)), ("error", json!(trouble.last)), ("next_s", seconds(pause))];
    worker.log.event(Level::Error, EventName::JobsFailing, &fields);
    Some(Next::Pause(pause, Ended::Failed))
}

fn poll_once(worker: &Worker, pace: &mut Pace) -> Next {
    let polled = worker.polls_api.request(&worker.activity());
    worker.status.note(status::Event::Polled(match &polled {
        Ok(Polled::Job(_)) => PollOutcome::Job,
        Ok(Polled::Nothing) => PollOutcome::Nothing,
        Err(_) => PollOutcome::Failed,
    }));
    match polled {
        Ok(Polled::Job(job)) => match claim(worker, *job) {
            Claim::New => {
                pace.job();
                Next::Poll
            }
            Claim::Known => Next::Pause(pace.again(None), Ended::Hindered),
        },
        Ok(Polled::Nothing) if worker.config.once && worker.slots.busy() == 0 => Next::End,
        Ok(Polled::Nothing) => Next::Change(pace.nothing()),
        Err(ApiError::Stopped) => Next::End,
        Err(error) => {
            let delay = pace.failure(&error);
            tell_failed_poll(worker, &error, delay);
            Next::Pause(delay, Ended::Unreachable)
        }
    }
}

/// What keeps the worker from taking more jobs now.
fn obstacle(worker: &Worker) -> Option<(EventName, Vec<(&'static str, serde_json::Value)>)> {
    if worker.spool.is_full() {
        return Some((EventName::SpoolFull, vec![("results", json!(worker.sender.waiting()))]));
    }
    let in_memory = worker.sender.in_memory();
    if in_memory > 0 {
        return Some((EventName::ResultsInMemory, vec![("results", json!(in_memory))]));
    }
    let min_mb = worker.config.free_disk_mb_min;
    let (folder, free_mb) = worker.fullest_folder().filter(|(_, free_mb)| *free_mb < min_mb)?;
    let fields = vec![("folder", json!(folder)), ("free_mb", json!(free_mb)), ("needed_mb", json!(min_mb))];
    Some((EventName::DiskLow, fields))
}

fn tell_failed_poll(worker: &Worker, error: &ApiError, delay: Duration) {
    let event = match (error, error.class()) {
        (ApiError::IdInUse { .. }, _) => EventName::WorkerIdConflict,
        (_, Class::Auth) => EventName::AuthenticationRefused,
        (_, Class::Retry { .. } | Class::Terminal | Class::Stopped) => EventName::PollFailed,
    };
    let mut text = Fault::new(error).to_string();
    if matches!(error, ApiError::Status { code: 404 | 405 | 501, .. } | ApiError::Garbage { .. }) {
        text.push_str("; see whether `--api-base-url` is where the API is");
    }
    if event == EventName::AuthenticationRefused {
        text.push_str(&cure(worker.config.secret_place.as_deref()));
    }
    let text = worker.log.without_secrets(&text);
    worker.status.note(status::Event::Failed(text.clone()));
    worker.log.event(Level::Warn, event, &[("error", json!(text)), ("next_s", seconds(delay))]);
}

/// What may help where a signature is refused. Source of the 60 s: docs/protocol.md, "Signing".
fn cure(secret_place: Option<&str>) -> String {
    match secret_place {
        Some(place) => format!(
            "; requests are signed with the secret in {place}: see whether it is the server's, and whether the clock of this machine is \
             right to 60 s"
        ),
        None => "; requests are not signed, since no secret was found: give the server's in `RUNNER_SHARED_SECRET`"
            .to_owned(),
    }
}

/// Whether an offered job is taken.
enum Claim {
    New,
    /// It is in hand, or its result is on its way.
    Known,
}

fn claim(worker: &Worker, job: Job) -> Claim {
    let key = job.key();
    if worker.in_hand.holds(&key) || worker.spool.holds(&key) {
        worker.say(Level::Warn, EventName::JobDuplicate, &job, &[]);
        return Claim::Known;
    }
    let ticket = worker.in_hand.take(&job);
    if let Err(error) = worker.in_hand.record(&ticket) {
        // It is done all the same: the server has given it to us.
        worker.log.disk_failed(&key, &error);
    }
    worker.say(Level::Info, EventName::JobClaimed, &job, &[]);
    worker.slots.put(Claimed { job, ticket, at: Started::now(), is_hopeless: false });
    Claim::New
}

/// Takes up a job of an earlier worker, which was killed over it or over another: alone, so that if this one is, too, it is known over
/// which. Tells whether it could; else the job stays in hand.
fn resume(worker: &Worker, job: Job, mut ticket: Ticket) -> bool {
    if !worker.slots.wait_until_idle() {
        return false;
    }
    let Some(begun) = begin(worker, &mut ticket) else { return false };
    worker.status.note(status::Event::Obstacle(None));
    worker.say(Level::Warn, EventName::JobResumed, &job, &[("tries", json!(ticket.tries))]);
    worker.slots.put(Claimed { job, ticket, at: Started::now(), is_hopeless: begun == Begun::TooOften });
    true
}

/// Counts that a job is begun again, as soon as the disk takes that: begun without being counted it could kill every worker from now on.
fn begin(worker: &Worker, ticket: &mut Ticket) -> Option<Begun> {
    let mut pace = Pace::new(worker.polls);
    loop {
        match worker.in_hand.begin(ticket) {
            Ok(begun) => return Some(begun),
            Err(error) => worker.log.disk_failed(&ticket.key, &error),
        }
        worker.status.note(status::Event::Obstacle(Some(EventName::SpoolFailed)));
        let pause = pace.slowly();
        if (worker.config.once && is_given_up(worker, &pace)) || worker.slots.wait_until_closed(pause) {
            return None;
        }
    }
}

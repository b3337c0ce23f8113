//! Slots, polls and the end: what the worker does all day.
//!
//! # Theory of operation
//!
//! One thread polls, and only while a slot is free; a thread a slot does the jobs; one sends results; one sends heartbeats. A job is on
//! record before it is begun, and its result is in the spool before it is sent, so a worker that is killed at any moment finds at its
//! next start what it had. The first signal closes the slots: no more polls, and what runs goes on until the drain limit. The second
//! ends everything at once.

use std::sync::mpsc::{Receiver, Sender as Telling, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::api::{ApiError, Job, Polled};
use super::log::EventName;
use super::retry::{Class, Jitter, Policy, with_retries};
use super::sender::{Post, forget};
use super::shared::Worker;
use super::state::{Begun, Ticket};
use super::status::{self, PollOutcome};
use super::work::{Claimed, carry_out};
use crate::flow::job::Started;
use crate::model::verdict::Fault;
use crate::os::journal::Level;

/// Between two polls when there is nothing to do: from this, doubling, to the maximum.
const IDLE_MIN: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A poll that is under way when the worker is told to end may bring a job, which is lost if nobody waits for it.
const POLL_PATIENCE: Duration = Duration::from_secs(5);
/// Between two signs of life for those who watch.
const TICK: Duration = Duration::from_secs(1);
/// With `--once`: polls that may fail one after another.
const FAILED_POLLS_MAX: u32 = 6;

/// Scripts that are told to end have limits of their own, far below this.
const ENDING_MAX: Duration = Duration::from_secs(600);

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything that was taken is done; results that the server has not taken are in the spool.
    Drained,
    /// With `--once`: the server could not be reached.
    Unreachable,
    /// Results that neither the server nor the disk has taken are gone.
    ResultsLost,
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
            Self::Aborted => "aborted",
        }
    }
}

/// Works until the slots are closed, or with `--once` until there is nothing to do; `left` are jobs that an earlier worker had in hand.
pub(super) fn work(worker: &Worker, left: Vec<(Job, Ticket)>) -> Ended {
    worker.status.note(status::Event::Ready);
    worker.status.note(status::Event::Spooled(worker.sender.waiting()));
    // Before anything is sent: what is taken from the spool cannot be told from what never was in it.
    let left = left.into_iter().filter(|(job, ticket)| !is_done(worker, job, ticket)).collect();
    let ended = thread::scope(|scope| {
        for _ in 0..worker.config.max_jobs.get() {
            scope.spawn(|| work_in_slot(worker));
        }
        scope.spawn(|| send_results(worker));
        scope.spawn(|| worker.heartbeat.run(&|| beat(worker)));
        let (poll_ends, poll_ended) = channel();
        scope.spawn(move || poll(worker, left, &poll_ends));
        drain(worker, &poll_ended)
    });
    // Else the file would tell for ever of the job that was the last.
    worker.status.note(status::Event::Spooled(worker.sender.waiting()));
    worker.status.note(status::Event::Ended);
    tick(worker);
    let lost = worker.sender.lost();
    for job in &lost {
        worker.log.of_job(Level::Error, EventName::ResultLost, job, &[]);
    }
    if lost.is_empty() || ended == Ended::Aborted { ended } else { Ended::ResultsLost }
}

fn work_in_slot(worker: &Worker) {
    while let Some(claimed) = worker.slots.take() {
        let key = claimed.key();
        worker.status.note(status::Event::JobTaken(key.clone()));
        // Those that nobody has begun stay in hand.
        if !worker.is_aborted() {
            carry_out(worker, claimed);
        }
        worker.status.note(status::Event::JobDone(key));
        worker.slots.done();
    }
}

fn send_results(worker: &Worker) {
    let (spool, in_hand) = (&worker.spool, &worker.in_hand);
    let (log, status) = (&worker.log, &worker.status);
    worker.sender.run(&Post { api: &*worker.results_api, spool, in_hand, log, status });
}

fn beat(worker: &Worker) {
    let sent = with_retries(&worker.heartbeats, &worker.stop_jobs, &mut |_, _, _| {}, || {
        worker.jobs_api.heartbeat(&worker.activity())
    });
    match sent {
        Ok(()) | Err(ApiError::Stopped) => {}
        Err(error) => {
            let error = Fault::new(&error).to_string();
            worker.log.event(Level::Warn, EventName::HeartbeatFailed, &[("error", json!(error))]);
        }
    }
}

/// Waits for the end of polls, then for that of jobs and results, as long as the drain limit allows.
fn drain(worker: &Worker, poll_ended: &Receiver<Ended>) -> Ended {
    let ended = wait_for_polls(worker, poll_ended);
    let until = Instant::now() + worker.config.drain_limit;
    let left = || until.saturating_duration_since(Instant::now());
    worker.status.note(status::Event::Draining);
    worker.log.event(Level::Info, EventName::DrainStarted, &[("jobs", json!(worker.slots.busy()))]);
    if !wait(worker, until, |time| worker.slots.wait_for_all(time)) {
        worker.log.event(Level::Warn, EventName::DrainLimitReached, &[("jobs", json!(worker.slots.busy()))]);
        worker.cancel.trigger();
        worker.stop_jobs.set();
        wait(worker, Instant::now() + ENDING_MAX, |time| worker.slots.wait_for_all(time));
    }
    worker.slots.end();
    worker.heartbeat.finish();
    let until = Instant::now() + left().max(POLL_PATIENCE);
    if !wait(worker, until, |time| worker.is_aborted() || worker.sender.wait_until_empty(time)) {
        worker.log.event(Level::Warn, EventName::ResultsLeft, &[("results", json!(worker.sender.waiting()))]);
    }
    worker.sender.finish();
    worker.stop_jobs.set();
    worker.stop_results.set();
    if worker.is_aborted() {
        worker.log.event(Level::Warn, EventName::Aborted, &[]);
        return Ended::Aborted;
    }
    ended
}

fn wait_for_polls(worker: &Worker, poll_ended: &Receiver<Ended>) -> Ended {
    while !worker.slots.wait_until_closed(TICK) {
        tick(worker);
    }
    let ended = poll_ended.recv_timeout(POLL_PATIENCE).or_else(|_| {
        worker.stop_polls.set();
        // Its waits end with that.
        poll_ended.recv()
    });
    ended.unwrap_or(Ended::Drained)
}

/// Waits with `waits_for`, which tells whether it has come, until a time; meanwhile those who watch see that the worker lives.
fn wait(worker: &Worker, until: Instant, waits_for: impl Fn(Duration) -> bool) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if waits_for(left.min(TICK)) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
        tick(worker);
    }
}

fn tick(worker: &Worker) {
    worker.status.note(status::Event::Spooled(worker.sender.waiting()));
    if let Err(error) = worker.status.tick() {
        let error = Fault::new(&error).to_string();
        worker.log.event(Level::Warn, EventName::StatusFailed, &[("error", json!(error))]);
    }
}

/// Takes up what an earlier worker had in hand, then polls until the slots are closed, and closes them if it ends for another reason.
fn poll(worker: &Worker, left: Vec<(Job, Ticket)>, ends: &Telling<Ended>) {
    left.into_iter().for_each(|(job, ticket)| resume(worker, job, ticket));
    let ended = poll_until_closed(worker);
    worker.slots.close();
    // Whoever started this waits for it.
    ends.send(ended).ok();
}

fn poll_until_closed(worker: &Worker) -> Ended {
    let mut pace = Pace::new(worker.polls);
    while worker.slots.wait_for_one() {
        if let Some((event, fields)) = obstacle(worker) {
            worker.log.event(Level::Warn, event, &fields);
            worker.slots.wait_until_closed(worker.polls.max);
            continue;
        }
        let polled = worker.polls_api.request(&worker.activity());
        worker.status.note(status::Event::Polled(match &polled {
            Ok(Polled::Job(_)) => PollOutcome::Job,
            Ok(Polled::Nothing) => PollOutcome::Nothing,
            Err(_) => PollOutcome::Failed,
        }));
        match polled {
            Ok(Polled::Job(job)) => match claim(worker, *job) {
                Claim::New => pace.job(),
                Claim::Known => {
                    worker.slots.wait_until_closed(pace.nothing());
                }
            },
            Ok(Polled::Nothing) if worker.config.once && worker.slots.busy() == 0 => return Ended::Drained,
            Ok(Polled::Nothing) => worker.slots.wait_for_change(pace.nothing()),
            Err(ApiError::Stopped) => return Ended::Drained,
            Err(error) => {
                let delay = pace.failure(&error);
                tell_failed_poll(worker, &error, delay);
                if worker.config.once && pace.failed >= FAILED_POLLS_MAX {
                    return Ended::Unreachable;
                }
                worker.slots.wait_until_closed(delay);
            }
        }
    }
    Ended::Drained
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
    let min_mb = worker.config.free_disk_bytes_min >> 20;
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
    let error = worker.log.without_secrets(&Fault::new(error).to_string());
    worker.status.note(status::Event::Failed(error.clone()));
    worker.log.event(Level::Warn, event, &[("error", json!(error)), ("next_s", json!(delay.as_secs_f32()))]);
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

/// Whether the result of an earlier worker's job is in the spool: then that one was killed before it could say so.
fn is_done(worker: &Worker, job: &Job, ticket: &Ticket) -> bool {
    let is_done = worker.spool.holds(&job.key());
    if is_done {
        forget(&worker.in_hand, &worker.log, ticket);
    }
    is_done
}

/// Takes up a job of an earlier worker, which was killed over it.
fn resume(worker: &Worker, job: Job, mut ticket: Ticket) {
    if !worker.slots.wait_for_one() {
        return;
    }
    let begun = worker.in_hand.begin(&mut ticket);
    worker.say(Level::Warn, EventName::JobResumed, &job, &[("tries", json!(ticket.tries))]);
    let is_hopeless = matches!(begun, Ok(Begun::TooOften));
    worker.slots.put(Claimed { job, ticket, at: Started::now(), is_hopeless });
}

/// How fast polls follow each other.
struct Pace {
    policy: Policy,
    jitter: Jitter,
    idle: Duration,
    failed: u32,
}

impl Pace {
    fn new(policy: Policy) -> Self {
        Self { policy, jitter: Jitter::fresh(), idle: IDLE_MIN, failed: 0 }
    }

    /// A job came.
    fn job(&mut self) {
        (self.idle, self.failed) = (IDLE_MIN, 0);
    }

    /// There is nothing to do: returns how long to wait.
    fn nothing(&mut self) -> Duration {
        self.failed = 0;
        let wait = self.idle;
        self.idle = (self.idle * 2).min(IDLE_MAX);
        wait + self.jitter.up_to(wait / 4)
    }

    /// A poll has failed: returns how long to wait.
    fn failure(&mut self, error: &ApiError) -> Duration {
        self.failed += 1;
        match error.class() {
            Class::Retry { after } => self.policy.delay(self.failed, after, &mut self.jitter),
            Class::Auth => self.policy.delay(self.failed, None, &mut self.jitter),
            // Half a deployment, a wrong address: as slowly as we may.
            Class::Terminal | Class::Stopped => self.policy.delay(u32::MAX, None, &mut self.jitter),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn pace() -> Pace {
        let policy = Policy {
            base: Duration::from_secs(1),
            max: Duration::from_secs(30),
            attempts_max: NonZeroU32::MAX,
            is_on: true,
        };
        Pace { jitter: Jitter::seeded(1), ..Pace::new(policy) }
    }

    #[test]
    fn idle_polls_become_rarer_and_a_job_makes_them_frequent_again() {
        let mut pace = pace();
        let waits: Vec<_> = (0..8).map(|_| pace.nothing().as_secs()).collect();
        assert!(waits[..5].is_sorted() && waits[0] == 1 && (30..38).contains(&waits[7]), "{waits:?}");
        pace.job();
        assert_eq!(pace.nothing().as_secs(), 1);
    }

    #[test]
    fn a_refused_poll_is_repeated_slowly_and_a_failed_one_ever_more_so() {
        let mut pace = pace();
        let status = |code| ApiError::Status { url: String::new(), code, retry_after: None, text: String::new() };
        assert!(pace.failure(&status(404)) >= pace.policy.max);
        let mut pace = self::pace();
        let waits: Vec<_> = (0..8).map(|_| pace.failure(&status(503)).as_secs()).collect();
        assert!(waits[..5].is_sorted() && waits[0] == 1 && (30..38).contains(&waits[7]), "{waits:?}");
    }
}

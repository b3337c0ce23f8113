//! The end of a worker: jobs end, or are ended; results are sent, or stay in the spool. Every wait has a limit.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Ended;
use crate::model::verdict::Fault;
use crate::os::journal::Level;
use crate::worker::log::EventName;
use crate::worker::sender::Left;
use crate::worker::shared::Worker;
use crate::worker::status;

/// For a call that is under way when the worker ends: a poll may bring a job, which is lost if nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two signs of life for those who watch.
const TICK: Duration = Duration::from_secs(1);

/// How long jobs may take that are told to end. Scripts have limits of their own, far below these: whatever goes on after them never ends.
/// It is on record, so the process ends all the same.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct EndingLimits {
    /// At the drain limit.
    pub(in crate::worker) cancelled: Duration,
    /// By a second signal.
    pub(in crate::worker) aborted: Duration,
}

impl Default for EndingLimits {
    fn default() -> Self {
        Self { cancelled: Duration::from_secs(600), aborted: Duration::from_secs(60) }
    }
}

/// Waits for the end of polls, then for that of jobs and results, as long as the drain limit allows.
pub(super) fn drain(worker: &Worker, poll_ended: &Receiver<Ended>) -> Ended {
    while !worker.slots.wait_until_closed(TICK) {
        tick(worker);
    }
    let ended = wait_for_polls(worker, poll_ended);
    let until = Instant::now() + worker.config.drain_limit;
    worker.status.note(status::Event::Draining);
    worker.log.event(Level::Info, EventName::DrainStarted, &[("jobs", json!(worker.slots.busy()))]);
    end_jobs(worker, until);
    worker.heartbeat.finish();
    let last_beat = soon();
    wait_for_results(worker, until);
    wait(worker, last_beat, |time| worker.is_aborted() || worker.heartbeat.wait_until_over(time));
    worker.stop_jobs.set();
    worker.stop_results.set();
    let left = end_results(worker);
    if worker.is_aborted() {
        worker.log.event(Level::Warn, EventName::Aborted, &[]);
        return Ended::Aborted;
    }
    if !left.lost.is_empty() {
        return Ended::ResultsLost;
    }
    if worker.has_failed() {
        return Ended::Failed;
    }
    if !worker.config.once || ended != Ended::Drained {
        return ended;
    }
    if left.spooled > 0 || left.set_aside > 0 {
        Ended::Unsent
    } else if worker.in_hand.is_empty() {
        Ended::Drained
    } else {
        Ended::Unfinished
    }
}

fn wait_for_polls(worker: &Worker, poll_ended: &Receiver<Ended>) -> Ended {
    let mut ended = Ended::Drained;
    let mut has_ended = |time| match poll_ended.recv_timeout(time) {
        Ok(how) => {
            ended = how;
            true
        }
        // It has panicked, or was never there.
        Err(RecvTimeoutError::Disconnected) => true,
        Err(RecvTimeoutError::Timeout) => false,
    };
    if !wait(worker, soon(), |time| worker.is_aborted() || has_ended(time)) || worker.is_aborted() {
        worker.stop_polls.set();
        // Its waits end with that.
        wait(worker, Instant::now() + worker.ending_limits.aborted, has_ended);
    }
    ended
}

/// Waits until every job is done; from `until` on, and after a second signal, it is ended.
fn end_jobs(worker: &Worker, until: Instant) {
    let limits = worker.ending_limits;
    let are_done_or_aborted = |time| worker.is_aborted() || worker.slots.wait_for_all(time);
    if !wait(worker, until, are_done_or_aborted) {
        worker.log.event(Level::Warn, EventName::DrainLimitReached, &[("jobs", json!(worker.slots.busy()))]);
        worker.cancel.trigger();
        worker.stop_jobs.set();
        wait(worker, Instant::now() + limits.cancelled, are_done_or_aborted);
    }
    if worker.is_aborted() {
        wait(worker, Instant::now() + limits.aborted, |time| worker.slots.wait_for_all(time));
    }
    worker.slots.end();
    if !worker.slots.wait_for_all(Duration::ZERO) {
        let jobs = worker.slots.busy();
        worker.fail(&format!("{jobs} jobs that were told to end did not; they stay in hand for the next start"));
    }
}

/// Waits until every result is sent; after that no more are.
fn wait_for_results(worker: &Worker, until: Instant) {
    // What has failed may be what sends.
    let until = if worker.has_failed() { soon() } else { until.max(soon()) };
    wait(worker, until, |time| worker.is_aborted() || worker.sender.wait_until_empty(time));
    worker.sender.finish();
}

/// Tells of the results that are left: they stay in the spool, or are lost. What sends them was told to stop.
fn end_results(worker: &Worker) -> Left {
    // Else what it has in its hands is neither here nor there. A disk may hang.
    wait(worker, soon(), |time| worker.sender.wait_until_over(time));
    let left = worker.sender.left();
    if left.spooled > 0 {
        worker.log.event(Level::Warn, EventName::ResultsLeft, &[("results", json!(left.spooled))]);
    }
    for job in &left.lost {
        worker.log.of_job(Level::Error, EventName::ResultLost, job, &[]);
    }
    left
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Waits with `waits_for`, which tells whether it has come, until a time; meanwhile those who watch see that the worker lives.
fn wait(worker: &Worker, until: Instant, mut waits_for: impl FnMut(Duration) -> bool) -> bool {
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

pub(super) fn tick(worker: &Worker) {
    worker.status.note(status::Event::Spooled(worker.sender.waiting()));
    if let Err(error) = worker.status.tick() {
        let error = Fault::new(&error).to_string();
        worker.log.event(Level::Warn, EventName::StatusFailed, &[("error", json!(error))]);
    }
}

//! Trials on their way from libtest-mimic to the report.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::explain;
use super::report::{Ended, Outcome, Report};
use crate::flow::plan::Planned;
use crate::flow::session::Session;
use crate::flow::trial::Judged;
use crate::rules::report::output_text;
use crate::rules::summary::{Record, Status};

/// What the trials of a run have in common. Where a script follows a script, one is recorded and reported while the next one is
/// already running: the time that this takes is nobody's.
pub(super) struct Line {
    session: Arc<Session>,
    pub(super) report: Report,
    /// `--fail-fast`.
    stops_early: bool,
    waiting: Mutex<Option<Waiting>>,
}

/// A trial that is judged, and neither recorded nor reported.
struct Waiting {
    planned: Planned,
    judged: Judged,
    time: Duration,
    next: Option<Record>,
}

impl Line {
    pub(super) fn new(session: Arc<Session>, report: Report, stops_early: bool) -> Self {
        Self { session, report, stops_early, waiting: Mutex::default() }
    }

    /// Runs a trial. `next` is the one after it, if they run one at a time.
    pub(super) fn run(&self, planned: Planned, next: Option<Record>) {
        if self.stops_early && self.has_failed() {
            return;
        }
        let started = Instant::now();
        let judged = planned.judge(&self.session, &mut || {
            self.finish_waiting();
            self.report.started(planned.name());
        });
        // One that ran before, because another depends on it, has the time that it took then.
        let time = started.elapsed().max(Duration::from_millis(judged.record.duration_ms));
        let may_wait = planned.may_be_kept_later() && next.is_some();
        let judged = Waiting { planned, judged, time, next };
        if may_wait {
            *self.waiting() = Some(judged);
        } else {
            self.finish(judged);
        }
    }

    /// Records and reports the trial that waits for it, if one does.
    pub(super) fn finish_waiting(&self) {
        let waiting = self.waiting().take();
        if let Some(waiting) = waiting {
            self.finish(waiting);
        }
    }

    fn finish(&self, Waiting { planned, judged, time, next }: Waiting) {
        let has_passed = judged.record.status == Status::Pass;
        // What is not going to run is not marked as running.
        let next = next.filter(|_| has_passed || !self.stops_early);
        let judged = planned.keep(&self.session, judged, next.as_ref());
        let has_passed = judged.record.status == Status::Pass;
        let output = if has_passed { output_text(&judged.last_lines) } else { explain(&self.session, &judged) };
        let outcome = if has_passed { Outcome::Ok } else { Outcome::Failed };
        self.report.ended(&Ended { name: planned.name(), outcome, output: &output, time });
    }

    fn has_failed(&self) -> bool {
        let waits = self.waiting().as_ref().is_some_and(|waiting| waiting.judged.record.status != Status::Pass);
        waits || self.report.has_failed()
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        // It is put and taken whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

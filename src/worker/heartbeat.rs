//! Says to the server that jobs are being worked on: when one begins, every now and then, and when one ends.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tells its thread when to speak.
pub(super) struct Heartbeat {
    /// Between two heartbeats, while there are jobs.
    interval: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    is_due: bool,
    /// When the last one began, however long it took.
    last: Instant,
    jobs: usize,
    is_ended: bool,
    is_over: bool,
}

impl Heartbeat {
    /// One that speaks at least every `interval` as long as there are jobs.
    pub(super) fn new(interval: Duration) -> Self {
        let state = State { is_due: false, last: Instant::now(), jobs: 0, is_ended: false, is_over: false };
        Self { interval, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Says that a job begins.
    pub(super) fn begin(&self) {
        self.change(|state| (state.jobs, state.is_due) = (state.jobs + 1, true));
    }

    /// Says that a job has ended.
    pub(super) fn end(&self) {
        self.change(|state| (state.jobs, state.is_due) = (state.jobs.saturating_sub(1), true));
    }

    /// Ends the thread, once every job has ended and that was said.
    pub(super) fn finish(&self) {
        self.change(|state| state.is_ended = true);
    }

    /// Calls `beat` whenever it is time, until the end. What comes while it is being called is said together.
    pub(super) fn run(&self, beat: &dyn Fn()) {
        while self.wait() {
            beat();
        }
        self.change(|state| state.is_over = true);
    }

    /// Waits until the thread has said everything, `limit` at most; tells whether it has.
    pub(super) fn wait_until_over(&self, limit: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |state| !state.is_over);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_over
    }

    /// Waits until it is time; `false` at the end.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            let left = self.interval.saturating_sub(state.last.elapsed());
            if std::mem::take(&mut state.is_due) || (state.jobs > 0 && left.is_zero()) {
                state.last = Instant::now();
                return true;
            }
            if state.jobs > 0 {
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            } else if state.is_ended {
                return false;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers and flags, each changed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Does `work` beside the thread of a heartbeat; returns how often that spoke.
    fn beats(interval: Duration, work: impl FnOnce(&Heartbeat, &dyn Fn(usize))) -> usize {
        let heartbeat = Heartbeat::new(interval);
        let beats = AtomicUsize::new(0);
        let wait_for = |count| {
            while beats.load(Ordering::SeqCst) < count {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                heartbeat.run(&|| {
                    beats.fetch_add(1, Ordering::SeqCst);
                });
            });
            work(&heartbeat, &wait_for);
            heartbeat.finish();
            assert!(heartbeat.wait_until_over(LONG));
        });
        beats.into_inner()
    }

    /// Longer than any test may take.
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_job_is_told_of_when_it_begins_and_when_it_ends() {
        let count = beats(LONG, |heartbeat, wait_for| {
            heartbeat.begin();
            wait_for(1);
            heartbeat.end();
        });
        assert_eq!(count, 2);
    }

    #[test]
    fn a_job_that_goes_on_is_told_of_again_and_again() {
        let count = beats(Duration::from_millis(1), |heartbeat, wait_for| {
            heartbeat.begin();
            wait_for(20);
            heartbeat.end();
        });
        assert!(count > 20, "{count}");
        assert_eq!(beats(Duration::ZERO, |_, _| {}), 0, "there was none");
    }

    #[test]
    fn the_end_of_a_job_is_told_although_all_is_to_end() {
        let count = beats(LONG, |heartbeat, wait_for| {
            heartbeat.begin();
            wait_for(1);
            heartbeat.finish();
            assert!(!heartbeat.wait_until_over(Duration::from_millis(1)), "there is a job");
            heartbeat.end();
        });
        assert_eq!(count, 2);
    }
}

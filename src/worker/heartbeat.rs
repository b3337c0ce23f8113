//! Says to the server that jobs are being worked on: when one begins, every 30 s, and when one ends.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two heartbeats, while there are jobs.
const INTERVAL: Duration = Duration::from_secs(30);

/// Tells its thread when to speak.
#[derive(Default)]
pub(super) struct Heartbeat {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_due: bool,
    jobs: usize,
    is_ended: bool,
}

impl Heartbeat {
    /// Says that a job begins.
    pub(super) fn begin(&self) {
        self.change(|state| (state.jobs, state.is_due) = (state.jobs + 1, true));
    }

    /// Says that a job has ended.
    pub(super) fn end(&self) {
        self.change(|state| (state.jobs, state.is_due) = (state.jobs.saturating_sub(1), true));
    }

    /// Ends the thread, once it has said what is due.
    pub(super) fn finish(&self) {
        self.change(|state| state.is_ended = true);
    }

    /// Calls `beat` whenever it is time, until the end. What comes while it is being called is said together.
    pub(super) fn run(&self, beat: &dyn Fn()) {
        while self.wait() {
            beat();
        }
    }

    /// Waits until it is time; `false` at the end.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.is_due) {
                return true;
            }
            if state.is_ended {
                return false;
            }
            if state.jobs == 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                let (woken, timeout) =
                    self.changed.wait_timeout(state, INTERVAL).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                state.is_due |= timeout.timed_out();
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A number and two flags, each changed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_job_is_told_of_when_it_begins_and_when_it_ends() {
        let heartbeat = Heartbeat::default();
        let beats = AtomicUsize::new(0);
        let count = || beats.load(Ordering::SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| {
                heartbeat.run(&|| {
                    beats.fetch_add(1, Ordering::SeqCst);
                });
            });
            heartbeat.begin();
            while count() < 1 {
                thread::yield_now();
            }
            heartbeat.end();
            heartbeat.finish();
        });
        assert_eq!(count(), 2);
    }
}

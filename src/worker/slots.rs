//! Places for jobs that run at once: a job waits for one, or one for a job.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Slots, and the jobs that were put into them.
pub(super) struct Slots<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// Slots that neither have a job nor are promised one.
    free: usize,
    all: usize,
    waiting: VecDeque<T>,
    /// No more jobs are to be looked for.
    is_closed: bool,
    /// No more jobs come.
    is_ended: bool,
    /// Counts what ends, so that whoever waits for that sees it.
    ended: u64,
}

impl<T> Slots<T> {
    /// `all` slots, each free.
    pub(super) fn new(all: usize) -> Self {
        let state = State { free: all, all, waiting: VecDeque::new(), is_closed: false, is_ended: false, ended: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until a slot is free; `false` if they are closed.
    pub(super) fn wait_for_one(&self) -> bool {
        let waited = self.changed.wait_while(self.lock(), |state| state.free == 0 && !state.is_closed);
        !waited.unwrap_or_else(PoisonError::into_inner).is_closed
    }

    /// Waits until all are free; `false` if they are closed.
    pub(super) fn wait_until_idle(&self) -> bool {
        let waited = self.changed.wait_while(self.lock(), |state| state.free < state.all && !state.is_closed);
        !waited.unwrap_or_else(PoisonError::into_inner).is_closed
    }

    /// Returns how many jobs have ended so far.
    pub(super) fn ended(&self) -> u64 {
        self.lock().ended
    }

    /// Sleeps for `time`, until more than `ended` jobs have ended, or until they are closed.
    pub(super) fn wait_for_change(&self, ended: u64, time: Duration) {
        let is_unchanged = |state: &mut State<T>| state.ended == ended && !state.is_closed;
        drop(self.changed.wait_timeout_while(self.lock(), time, is_unchanged));
    }

    /// Gives a job to a free slot.
    pub(super) fn put(&self, job: T) {
        let mut state = self.lock();
        state.free = state.free.saturating_sub(1);
        state.waiting.push_back(job);
        self.changed.notify_all();
    }

    /// Waits for a job; `None` once no more come.
    pub(super) fn take(&self) -> Option<T> {
        let waited = self.changed.wait_while(self.lock(), |state| state.waiting.is_empty() && !state.is_ended);
        waited.unwrap_or_else(PoisonError::into_inner).waiting.pop_front()
    }

    /// Says that a job is done, and its slot free.
    pub(super) fn done(&self) {
        let mut state = self.lock();
        state.free += 1;
        state.ended += 1;
        self.changed.notify_all();
    }

    /// Says that no more jobs are to be looked for. One that somebody has been given by then may still be put.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Says that no more jobs come. Those that were put are still taken.
    pub(super) fn end(&self) {
        self.lock().is_ended = true;
        self.changed.notify_all();
    }

    /// Waits until they are closed, `time` at most; tells whether they are.
    pub(super) fn wait_until_closed(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |state| !state.is_closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    /// Returns how many have a job.
    pub(super) fn busy(&self) -> usize {
        let state = self.lock();
        state.all - state.free
    }

    /// Waits until all are free, `limit` at most; tells whether they are.
    pub(super) fn wait_for_all(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        while state.free < state.all {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Numbers and a queue, each changed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Longer than any test may take: something else must end the wait.
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_slot_is_waited_for_until_a_job_is_done() {
        let slots = Slots::new(1);
        assert!(slots.wait_for_one());
        slots.put("job");
        assert_eq!((slots.busy(), slots.take()), (1, Some("job")));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| slots.wait_for_one());
            slots.done();
            assert!(waiting.join().unwrap());
        });
        assert!(slots.wait_for_all(Duration::ZERO));
    }

    #[test]
    fn closed_slots_finish_what_they_have_and_end_every_wait() {
        let slots = Slots::new(2);
        slots.put(1);
        thread::scope(|scope| {
            let pausing = scope.spawn(|| slots.wait_until_closed(LONG));
            let waiting = scope.spawn(|| slots.wait_for_change(0, LONG));
            let idling = scope.spawn(|| slots.wait_until_idle());
            slots.close();
            assert!(pausing.join().unwrap());
            waiting.join().unwrap();
            assert!(!idling.join().unwrap());
        });
        assert!(!slots.wait_for_one());
        slots.put(2);
        slots.end();
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some(1), Some(2), None));
        assert!(!slots.wait_for_all(Duration::from_millis(1)), "it is not done");
        slots.done();
        slots.done();
        assert!(slots.wait_for_all(LONG));
    }

    #[test]
    fn a_job_that_ends_is_a_change_also_before_anybody_waits_for_one() {
        let slots = Slots::new(2);
        slots.put(());
        let ended = slots.ended();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| slots.wait_for_change(ended, LONG));
            slots.done();
            waiting.join().unwrap();
        });
        slots.wait_for_change(ended, LONG);
        assert!(slots.wait_until_idle());
    }
}

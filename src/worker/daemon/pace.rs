//! How fast polls follow each other, and what our own failures have to do with that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::worker::api::ApiError;
use crate::worker::retry::{Class, Jitter, Policy};

/// Between two polls when there is nothing to do: from this, doubling, to the maximum.
pub(super) const IDLE_MIN: Duration = Duration::from_secs(1);
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);
/// Jobs that may fail by our fault one after another before that is taken for more than bad luck.
const FAILED_JOBS_MAX: u32 = 3;

/// How fast polls follow each other.
pub(super) struct Pace {
    policy: Policy,
    jitter: Jitter,
    idle: Duration,
    /// Polls, one after another.
    failed: u32,
    /// For how many failed jobs there was a pause already.
    paused_for: u32,
}

impl Pace {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, jitter: Jitter::fresh(), idle: IDLE_MIN, failed: 0, paused_for: 0 }
    }

    /// Returns how many polls have failed one after another, or could not be made.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// A job came.
    pub(super) fn job(&mut self) {
        (self.idle, self.failed) = (IDLE_MIN, 0);
    }

    /// There is nothing to do: returns how long to wait.
    pub(super) fn nothing(&mut self) -> Duration {
        self.failed = 0;
        let wait = self.idle;
        self.idle = (self.idle * 2).min(IDLE_MAX);
        wait + self.jitter.up_to(wait / 4)
    }

    /// A poll has failed: returns how long to wait.
    pub(super) fn failure(&mut self, error: &ApiError) -> Duration {
        match error.class() {
            Class::Retry { after } => self.again(after),
            Class::Auth => self.again(None),
            // Half a deployment, a wrong address: as slowly as we may.
            Class::Terminal | Class::Stopped => self.slowly(),
        }
    }

    /// What came is of no use: returns how long to wait.
    pub(super) fn again(&mut self, asked: Option<Duration>) -> Duration {
        self.failed += 1;
        self.policy.delay(self.failed, asked, &mut self.jitter)
    }

    /// No poll can be made, or none that helps: returns how long to wait.
    pub(super) fn slowly(&mut self) -> Duration {
        self.failed += 1;
        self.policy.delay(u32::MAX, None, &mut self.jitter)
    }

    /// Job upon job has failed: returns how long to wait, once for each that does.
    pub(super) fn trouble(&mut self, trouble: &Trouble) -> Option<Duration> {
        if self.paused_for == trouble.failed {
            return None;
        }
        self.paused_for = trouble.failed;
        let beyond = trouble.failed.saturating_sub(FAILED_JOBS_MAX) + 1;
        Some(self.policy.delay(beyond, None, &mut self.jitter))
    }
}

/// Jobs that failed by our fault one after another: each is lost for its student, so a machine on which all do must not take them all.
#[derive(Debug, Default)]
pub(in crate::worker) struct Troubles(Mutex<Trouble>);

/// How many there were, and what was said of the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) failed: u32,
    pub(super) last: String,
}

impl Troubles {
    /// A job has failed by our fault.
    pub(in crate::worker) fn failed(&self, why: &str) {
        let mut trouble = self.lock();
        *trouble = Trouble { failed: trouble.failed.saturating_add(1), last: why.to_owned() };
    }

    /// A job was graded.
    pub(in crate::worker) fn graded(&self) {
        *self.lock() = Trouble::default();
    }

    /// Returns what there is, if it is more than bad luck.
    pub(super) fn now(&self) -> Option<Trouble> {
        Some(self.lock().clone()).filter(|trouble| trouble.failed >= FAILED_JOBS_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        // Changed whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::shared::FOR_EVER;

    fn pace() -> Pace {
        let policy = Policy {
            base: Duration::from_secs(1),
            max: Duration::from_secs(30),
            asked_max: Duration::from_secs(3600),
            time_max: Duration::MAX,
            attempts_max: FOR_EVER,
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
        assert_eq!(pace.failed(), 8);
        pace.nothing();
        assert_eq!(pace.failed(), 0);
    }

    #[test]
    fn failed_jobs_make_polls_rarer_until_one_is_graded() {
        let (mut pace, troubles) = (pace(), Troubles::default());
        let mut waits = Vec::new();
        for job in 1..=10 {
            troubles.failed(&format!("job {job}"));
            waits.extend(troubles.now().map(|trouble| pace.trouble(&trouble).unwrap().as_secs()));
        }
        let trouble = troubles.now().unwrap();
        assert_eq!((trouble.failed, trouble.last.as_str()), (10, "job 10"));
        assert_eq!(pace.trouble(&trouble), None, "there was a pause for this one");
        assert!(waits[..5].is_sorted() && waits[0] == 1 && (30..38).contains(&waits[7]), "{waits:?}");
        troubles.graded();
        assert_eq!(troubles.now(), None);
    }
}

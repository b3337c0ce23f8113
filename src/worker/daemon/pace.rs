//! How fast polls follow each other, and what our own failures have to do with that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::worker::api::ApiError;
use crate::worker::retry::{Class, Jitter, Policy};

/// Between two polls when there is nothing to do: from this, doubling, to the maximum.
pub(super) const IDLE_MIN: Duration = Duration::from_secs(1);
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);
/// Jobs that may fail by no fault of their own, or results that may be refused, one after another before that is taken for more than
/// bad luck.
const FAILED_JOBS_MAX: u32 = 3;

/// How fast polls follow each other.
pub(super) struct Pace {
    policy: Policy,
    jitter: Jitter,
    idle: Duration,
    /// Polls, one after another.
    failed: u32,
    /// Whether there was a pause for failed jobs since the last job came.
    has_paused: bool,
}

impl Pace {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, jitter: Jitter::fresh(), idle: IDLE_MIN, failed: 0, has_paused: false }
    }

    /// Returns how many polls have failed one after another, or could not be made.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// A job came.
    pub(super) fn job(&mut self) {
        (self.idle, self.failed, self.has_paused) = (IDLE_MIN, 0, false);
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

    /// Job upon job has failed: returns how long to wait, once for each job that comes all the same.
    pub(super) fn trouble(&mut self, trouble: &Trouble) -> Option<Duration> {
        if std::mem::replace(&mut self.has_paused, true) {
            return None;
        }
        let beyond = trouble.failed.saturating_sub(FAILED_JOBS_MAX) + 1;
        Some(self.policy.delay(beyond, None, &mut self.jitter))
    }
}

/// Jobs that failed one after another by our fault, this machine's, or that of where files lie, and results that the server has
/// refused for good one after another: each is lost for its student, so a worker that loses all must not take them all.
#[derive(Debug, Default)]
pub(in crate::worker) struct Troubles(Mutex<Rows>);

/// Two rows, because a job that is graded says nothing of what the server makes of its result.
#[derive(Debug, Default)]
struct Rows {
    jobs: Trouble,
    results: Trouble,
}

/// How many there were, and what was said of the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) failed: u32,
    pub(super) last: String,
}

impl Trouble {
    fn add(&mut self, why: &str) {
        *self = Self { failed: self.failed.saturating_add(1), last: why.to_owned() };
    }
}

impl Troubles {
    /// A job has failed in a way in which others may.
    pub(in crate::worker) fn failed(&self, why: &str) {
        self.lock().jobs.add(why);
    }

    /// A job was graded.
    pub(in crate::worker) fn graded(&self) {
        self.lock().jobs = Trouble::default();
    }

    /// The server has refused a result for good.
    pub(in crate::worker) fn refused(&self, why: &str) {
        self.lock().results.add(why);
    }

    /// The server has taken a result.
    pub(in crate::worker) fn taken(&self) {
        self.lock().results = Trouble::default();
    }

    /// Returns the greater trouble that there is, if it is more than bad luck.
    pub(super) fn now(&self) -> Option<Trouble> {
        let rows = self.lock();
        let greater = if rows.jobs.failed >= rows.results.failed { &rows.jobs } else { &rows.results };
        Some(greater.clone()).filter(|trouble| trouble.failed >= FAILED_JOBS_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        // Each row is changed whole.
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
            pace.job();
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

    #[test]
    fn refused_results_are_a_trouble_until_one_is_taken_whatever_is_graded() {
        let troubles = Troubles::default();
        for _ in 0..3 {
            assert_eq!(troubles.now(), None);
            troubles.graded();
            troubles.refused("422");
        }
        troubles.graded();
        assert_eq!(troubles.now(), Some(Trouble { failed: 3, last: "422".to_owned() }));
        for _ in 0..4 {
            troubles.failed("no disk");
        }
        assert_eq!(troubles.now(), Some(Trouble { failed: 4, last: "no disk".to_owned() }));
        troubles.taken();
        assert_eq!(troubles.now().unwrap().failed, 4, "it tells that the machine is broken");
        troubles.graded();
        assert_eq!(troubles.now(), None);
    }
}

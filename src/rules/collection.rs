//! What a job came to, as Chickadee's server takes it: outcomes and their sums. The only place that knows these keys.
//!
//! Source: docs/protocol.md, "Job and result".

use serde::Serialize;

use crate::model::script::{Completion, EndedBy, Exit};
use crate::model::setup::ScriptEntry;
use crate::rules::chickadee::{TestOutcome, TestStatus};

/// Who made a collection.
pub(crate) const RUNNER_VERSION: &str = concat!("proving-ground/", env!("CARGO_PKG_VERSION"));
/// Begins a warning about a job of which we, or the machine, are to blame.
pub(crate) const INFRASTRUCTURE: &str = "infrastructure error";

/// What a job is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Ids {
    #[serde(rename = "submissionID")]
    pub(crate) submission_id: String,
    #[serde(rename = "testSetupID")]
    pub(crate) test_setup_id: String,
    /// From 1.
    #[serde(rename = "attemptNumber")]
    pub(crate) attempt_number: u32,
}

/// Whether what scripts need could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BuildStatus {
    /// make ended with 0.
    Passed,
    /// It did not, or we failed before.
    Failed,
    /// There was nothing to make.
    Skipped,
}

/// The outcomes of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Collection {
    #[serde(flatten)]
    pub(crate) ids: Ids,
    pub(crate) build_status: BuildStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compiler_output: Option<String>,
    /// In the order of the manifest.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) total_tests: usize,
    pub(crate) pass_count: usize,
    pub(crate) fail_count: usize,
    pub(crate) error_count: usize,
    pub(crate) timeout_count: usize,
    /// The sum over the outcomes.
    pub(crate) execution_time_ms: u64,
    pub(crate) total_points: u64,
    pub(crate) earned_points: u64,
    pub(crate) warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job_started_at: Option<String>,
    pub(crate) runner_version: &'static str,
    pub(crate) timestamp: String,
}

/// The outcome of one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) test_name: String,
    pub(crate) tier: &'static str,
    #[serde(serialize_with = "as_word")]
    pub(crate) status: TestStatus,
    pub(crate) short_result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) long_result: Option<String>,
    pub(crate) points: u32,
    pub(crate) execution_time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_usage_bytes: Option<u64>,
    pub(crate) attempt_number: u32,
    pub(crate) is_first_pass_success: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_word<S: serde::Serializer>(status: &TestStatus, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.as_str())
}

impl Outcome {
    /// What came of one entry of a manifest. `memory_usage_bytes` is of a script that ran.
    pub(crate) fn new(
        entry: &ScriptEntry,
        outcome: TestOutcome,
        memory_usage_bytes: Option<u64>,
        attempt_number: u32,
    ) -> Self {
        Self {
            test_name: entry.display_name().to_owned(),
            tier: entry.tier.as_str(),
            status: outcome.status,
            short_result: outcome.short_result,
            long_result: outcome.long_result,
            points: entry.points,
            execution_time_ms: outcome.execution_time_ms,
            memory_usage_bytes,
            attempt_number,
            is_first_pass_success: attempt_number == 1 && outcome.status == TestStatus::Pass,
        }
    }
}

/// When a job began and when it was done: ISO 8601, UTC, whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) started_at: String,
    pub(crate) finished_at: String,
}

impl Collection {
    /// Adds up outcomes.
    pub(crate) fn new(ids: Ids, build_status: BuildStatus, outcomes: Vec<Outcome>, times: Times) -> Self {
        let count = |status| outcomes.iter().filter(|outcome| outcome.status == status).count();
        let points = |counts: fn(&Outcome) -> bool| {
            outcomes.iter().filter(|outcome| counts(outcome)).map(|outcome| u64::from(outcome.points)).sum()
        };
        Self {
            ids,
            build_status,
            compiler_output: None,
            total_tests: outcomes.len(),
            pass_count: count(TestStatus::Pass),
            fail_count: count(TestStatus::Fail),
            error_count: count(TestStatus::Error),
            timeout_count: count(TestStatus::Timeout),
            execution_time_ms: outcomes.iter().map(|outcome| outcome.execution_time_ms).sum(),
            total_points: points(|_| true),
            earned_points: points(|outcome| outcome.status == TestStatus::Pass),
            outcomes,
            warnings: Vec::new(),
            job_started_at: Some(times.started_at),
            runner_version: RUNNER_VERSION,
            timestamp: times.finished_at,
        }
    }

    /// A job whose make step failed.
    pub(crate) fn not_made(ids: Ids, compiler_output: String, times: Times) -> Self {
        Self { compiler_output: Some(compiler_output), ..Self::new(ids, BuildStatus::Failed, Vec::new(), times) }
    }

    /// A job that we failed to run.
    pub(crate) fn of_fault(ids: Ids, fault: String, times: Times) -> Self {
        let warning = format!("{INFRASTRUCTURE}: the submission was not graded; this is no fault of its author");
        Self { error_count: 1, warnings: vec![warning], ..Self::not_made(ids, fault, times) }
    }

    /// Returns the word for how the whole of it ended: `timeout`, else `error`, else `failed`, else `passed`.
    pub(crate) fn final_status(&self) -> &'static str {
        match (self.timeout_count, self.error_count, self.fail_count, self.build_status) {
            (1.., ..) => "timeout",
            (0, 1.., ..) => "error",
            (0, 0, 1.., _) | (0, 0, 0, BuildStatus::Failed) => "failed",
            (0, 0, 0, BuildStatus::Passed | BuildStatus::Skipped) => "passed",
        }
    }

    /// Tells whether everything was run and has passed.
    pub(crate) fn has_full_marks(&self) -> bool {
        self.final_status() == "passed" && self.total_tests > 0
    }

    /// Tells whether something that has not passed said, in the words of shells and of the C library, that a program was not there.
    pub(crate) fn lacked_a_program(&self) -> bool {
        let failed = self.outcomes.iter().filter(|outcome| outcome.status != TestStatus::Pass);
        let mut said = failed.filter_map(|outcome| outcome.long_result.as_ref()).chain(&self.compiler_output);
        said.any(|text| ["not found", "No such file or directory"].iter().any(|words| text.contains(words)))
    }

    /// Returns the JSON text, without a line's end.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// What was measured of a whole job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Of the script that decided the final status: the first that timed out, else was an error, else failed, else the last.
    pub(crate) exit_code: Option<i32>,
    /// Why that one ended.
    pub(crate) termination_reason: Option<&'static str>,
    /// The largest of make and of any script.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// Processes that were started; known of sandboxed scripts.
    pub(crate) child_process_count: Option<u64>,
    /// Most bytes that lay in the work folder when make or a script had ended; known of sandboxed scripts.
    pub(crate) workdir_peak_bytes: Option<u64>,
    pub(crate) stdout_bytes: u64,
    pub(crate) stderr_bytes: u64,
    decided_by: Option<TestStatus>,
}

impl Measured {
    /// Adds what was seen of one script, or of a make step that failed.
    pub(crate) fn add(&mut self, done: &Completion, status: TestStatus) {
        if self
            .decided_by
            .is_none_or(|earlier| status > earlier || (status, earlier) == (TestStatus::Pass, TestStatus::Pass))
        {
            self.decided_by = Some(status);
            (self.exit_code, self.termination_reason) = ending(done);
        }
        self.add_usage(done);
    }

    /// Adds what was used by something that decides nothing: a make step that went well.
    pub(crate) fn add_usage(&mut self, done: &Completion) {
        self.peak_rss_bytes = self.peak_rss_bytes.max(Some(memory_usage_bytes(done)));
        self.child_process_count = match (self.child_process_count, done.usage.started) {
            (Some(count), Some(more)) => Some(count + more),
            (count, more) => count.or(more),
        };
        self.stdout_bytes += done.stdout.total_bytes;
        self.stderr_bytes += done.stderr.total_bytes;
    }
}

fn ending(done: &Completion) -> (Option<i32>, Option<&'static str>) {
    let (code, reason) = match done.exit {
        Exit::Code(code) => (Some(code), "exit"),
        Exit::Signal(_) => (None, "signal"),
    };
    let reason = match done.ended_by {
        EndedBy::Timeout => "timeout",
        EndedBy::OutOfMemory => "outOfMemory",
        EndedBy::Itself | EndedBy::Cancel | EndedBy::SupervisorKilled => reason,
    };
    (code, Some(reason))
}

/// Most memory that a script had at once: of all its processes where that is known, else of the largest one.
pub(crate) fn memory_usage_bytes(done: &Completion) -> u64 {
    done.usage.memory_peak_bytes.unwrap_or(done.usage.max_rss_bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;
    use crate::model::script::{Stream, Usage};
    use crate::model::setup::Tier;

    const STATUSES: [TestStatus; 4] = [TestStatus::Pass, TestStatus::Fail, TestStatus::Error, TestStatus::Timeout];

    fn ids() -> Ids {
        Ids { submission_id: "sub_1".into(), test_setup_id: "setup_1".into(), attempt_number: 2 }
    }

    fn times() -> Times {
        Times { started_at: "2026-02-20T14:04:10Z".into(), finished_at: "2026-02-20T14:05:00Z".into() }
    }

    fn outcome(status: TestStatus, points: u32) -> Outcome {
        outcome_of(status, points, 2)
    }

    fn outcome_of(status: TestStatus, points: u32, attempt_number: u32) -> Outcome {
        let entry = ScriptEntry {
            script: "dir/adds.test.sh".into(),
            tier: Tier::Release,
            name: None,
            depends_on: Vec::new(),
            points,
            hint: None,
        };
        let outcome = TestOutcome {
            status,
            short_result: status.word().to_owned(),
            long_result: None,
            execution_time_ms: u64::from(points) + 1,
        };
        Outcome::new(&entry, outcome, Some(4096), attempt_number)
    }

    fn collection(statuses: &[TestStatus]) -> Collection {
        let outcomes = (1..).zip(statuses).map(|(points, status)| outcome(*status, points)).collect();
        Collection::new(ids(), BuildStatus::Skipped, outcomes, times())
    }

    #[test]
    fn sums_are_of_all_outcomes_and_points_of_those_that_passed() {
        use TestStatus::{Error, Fail, Pass, Timeout};
        let table = [
            (vec![], [0, 0, 0, 0, 0], [0, 0]),
            (vec![Pass], [1, 1, 0, 0, 0], [1, 1]),
            (vec![Fail, Pass, Error, Pass, Timeout], [5, 2, 1, 1, 1], [15, 6]),
            (vec![Timeout, Timeout, Fail], [3, 0, 1, 0, 2], [6, 0]),
        ];
        for (statuses, counts, points) in table {
            let found = collection(&statuses);
            let sums = [found.total_tests, found.pass_count, found.fail_count, found.error_count, found.timeout_count];
            assert_eq!((sums, [found.total_points, found.earned_points]), (counts, points), "{statuses:?}");
            assert_eq!(found.execution_time_ms, points[0] + counts[0] as u64);
        }
    }

    #[test]
    fn points_do_not_overflow() {
        let outcomes = (0..3).map(|_| outcome(TestStatus::Pass, u32::MAX - 1)).collect();
        let found = Collection::new(ids(), BuildStatus::Skipped, outcomes, times());
        assert_eq!(found.earned_points, 3 * u64::from(u32::MAX - 1));
    }

    #[test]
    fn the_worst_status_is_the_final_one() {
        let words = ["passed", "failed", "error", "timeout"];
        for (worst, word) in words.into_iter().enumerate() {
            let mut statuses = STATUSES[..=worst].to_vec();
            for _ in 0..statuses.len() {
                statuses.rotate_left(1);
                let found = collection(&statuses);
                assert_eq!((found.final_status(), found.has_full_marks()), (word, worst == 0), "{statuses:?}");
            }
        }
    }

    #[test]
    fn nothing_that_was_not_run_has_full_marks() {
        assert!(!collection(&[]).has_full_marks());
        let not_made = Collection::not_made(ids(), "cc: no".into(), times());
        assert_eq!((not_made.final_status(), not_made.has_full_marks()), ("failed", false));
        let fault = Collection::of_fault(ids(), "the disk is full".into(), times());
        assert_eq!((fault.final_status(), fault.has_full_marks()), ("error", false));
    }

    /// Source: docs/protocol.md, "Job and result".
    #[test]
    fn the_text_has_the_keys_of_the_protocol() {
        let mut found = collection(&[TestStatus::Pass]);
        let text = found.to_json().unwrap();
        assert!(!text.contains('\n'));
        let expected = json!({
            "submissionID": "sub_1", "testSetupID": "setup_1", "attemptNumber": 2, "buildStatus": "skipped",
            "outcomes": [{
                "testName": "dir/adds.test", "tier": "release", "status": "pass", "shortResult": "passed", "points": 1,
                "executionTimeMs": 2, "memoryUsageBytes": 4096, "attemptNumber": 2, "isFirstPassSuccess": false,
            }],
            "totalTests": 1, "passCount": 1, "failCount": 0, "errorCount": 0, "timeoutCount": 0, "executionTimeMs": 2,
            "totalPoints": 1, "earnedPoints": 1, "warnings": [], "jobStartedAt": "2026-02-20T14:04:10Z",
            "runnerVersion": RUNNER_VERSION, "timestamp": "2026-02-20T14:05:00Z",
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
        found.outcomes[0].long_result = Some("why".into());
        found.outcomes[0].memory_usage_bytes = None;
        let found: serde_json::Value = serde_json::from_str(&found.to_json().unwrap()).unwrap();
        assert_eq!(found["outcomes"][0]["longResult"], "why");
        assert!(found["outcomes"][0].get("memoryUsageBytes").is_none() && found.get("compilerOutput").is_none());
    }

    #[test]
    fn a_job_that_we_failed_to_run_is_marked_as_such() {
        let fault = Collection::of_fault(ids(), "the disk is full".into(), times()).to_json().unwrap();
        let fault: serde_json::Value = serde_json::from_str(&fault).unwrap();
        let found =
            ["buildStatus", "outcomes", "errorCount", "totalTests", "compilerOutput"].map(|key| fault[key].clone());
        assert_eq!(found, [json!("failed"), json!([]), json!(1), json!(0), json!("the disk is full")]);
        assert!(fault["warnings"][0].as_str().unwrap().starts_with(INFRASTRUCTURE));
    }

    #[test]
    fn only_the_first_attempt_can_be_a_first_success() {
        for status in STATUSES {
            for attempt in [1, 2] {
                let found = outcome_of(status, 1, attempt);
                let expected = (attempt, status == TestStatus::Pass && attempt == 1);
                assert_eq!((found.attempt_number, found.is_first_pass_success), expected, "{status:?}");
            }
        }
    }

    fn done(exit: Exit, ended_by: EndedBy, max_rss_bytes: u64) -> Completion {
        let stream = |total_bytes| Stream { total_bytes, ..Stream::default() };
        Completion {
            exit,
            ended_by,
            stdout: stream(10),
            stderr: stream(1),
            wall: Duration::ZERO,
            usage: Usage { max_rss_bytes, started: Some(2), ..Usage::default() },
            leaked: Vec::new(),
            log_error: None,
            unkept: None,
        }
    }

    #[test]
    fn what_is_measured_is_of_all_scripts_and_of_the_one_that_decided() {
        let pass = |code| (done(Exit::Code(code), EndedBy::Itself, 5), TestStatus::Pass);
        let fail = |rss| (done(Exit::Code(1), EndedBy::Itself, rss), TestStatus::Fail);
        let error = |number| (done(Exit::Signal(number), EndedBy::Itself, 7), TestStatus::Error);
        let memory = (done(Exit::Signal(9), EndedBy::OutOfMemory, 8), TestStatus::Error);
        let timeout = (done(Exit::Code(0), EndedBy::Timeout, 6), TestStatus::Timeout);
        let table = [
            (vec![], (None, None)),
            (vec![pass(0)], (Some(0), Some("exit"))),
            (vec![pass(0), fail(9), pass(0)], (Some(1), Some("exit"))),
            (vec![fail(9), error(11), fail(9)], (None, Some("signal"))),
            (vec![memory.clone(), error(11)], (None, Some("outOfMemory"))),
            (vec![error(11), timeout.clone(), memory], (Some(0), Some("timeout"))),
        ];
        for (scripts, decided) in table {
            let mut measured = Measured::default();
            scripts.iter().for_each(|(done, status)| measured.add(done, *status));
            assert_eq!((measured.exit_code, measured.termination_reason), decided, "{scripts:?}");
            let number = scripts.len() as u64;
            assert_eq!((measured.stdout_bytes, measured.stderr_bytes), (10 * number, number));
            assert_eq!(measured.child_process_count, (number > 0).then_some(2 * number));
            assert_eq!(measured.peak_rss_bytes, scripts.iter().map(|(done, _)| done.usage.max_rss_bytes).max());
        }
    }

    #[test]
    fn the_memory_of_all_processes_is_told_where_it_is_known() {
        let mut done = done(Exit::Code(0), EndedBy::Itself, 5);
        assert_eq!(memory_usage_bytes(&done), 5);
        done.usage.memory_peak_bytes = Some(3);
        assert_eq!(memory_usage_bytes(&done), 3);
    }
}

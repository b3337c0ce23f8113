//! What a job came to, as Chickadee's server takes it: outcomes and their sums. The only place that knows these keys.
//!
//! Source: chickadee-runner contract, "Wire".

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
    /// The largest of any script.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// Processes that were started; known of sandboxed scripts.
    pub(crate) child_process_count: Option<u64>,
    pub(crate) stdout_bytes: u64,
    pub(crate) stderr_bytes: u64,
    decided_by: Option<TestStatus>,
}

impl Measured {
    /// Adds what was seen of one script, or of make.
    pub(crate) fn add(&mut self, done: &Completion, status: TestStatus) {
        if self
            .decided_by
            .is_none_or(|earlier| status > earlier || (status, earlier) == (TestStatus::Pass, TestStatus::Pass))
        {
            self.decided_by = Some(status);
            (self.exit_code, self.termination_reason) = ending(done);
        }
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

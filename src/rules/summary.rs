//! Records -> the text of result.json and summary.json. The only place that knows their keys.

mod text;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::script::{Completion, EndedBy, Exit, Leak};

pub(crate) use text::{Entry, SummaryText, TrialList};

/// Version of both formats; it changes when a key changes its meaning.
pub(crate) const SCHEMA: u32 = 1;
/// The file of a run's identity, in the proof folder.
pub(crate) const RUN: &str = "run.json";
/// The file of its summary.
pub(crate) const SUMMARY: &str = "summary.json";
/// Returns where a merged run keeps what a shard of it has once: a folder below the proof folder, with a slash at its end.
pub(crate) fn shard_folder(run_id: &str) -> String {
    format!("stages/{run_id}/")
}

/// What `harness_policy` says when it is true of a run.
const HARNESS_POLICY: &str = "No harness mutation of product-owned artifacts; fail-on-skip enforced";

/// How far a trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Everything that it claims is true.
    Pass,
    /// There are findings.
    Fail,
    /// Not judged yet.
    Running,
    /// Never judged: the run ended before it.
    Interrupted,
}

impl Status {
    /// Returns the word for it in a record.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One trial, as result.json and summary.json show it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) kind: TrialKind,
    pub(crate) status: Status,
    /// The first finding.
    pub(crate) reason: Option<String>,
    pub(crate) findings: Vec<String>,
    /// What is worth knowing but no reason to fail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
    pub(crate) summary: Option<String>,
    pub(crate) duration_ms: u64,
    /// From 1; more than 1 for a retry.
    pub(crate) attempt: u32,
    /// How it ended when it was tried before, first to last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) earlier: Vec<Earlier>,
    /// Paths below the proof folder, of files that exist.
    pub(crate) artifacts: Vec<String>,
    pub(crate) expect: &'static str,
    /// Exit code of `execute` or of the script; 128 + n for signal n; null if it never ran.
    pub(crate) rc: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<String>,
    pub(crate) timed_out: bool,
    /// Why it ended; absent if it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_by: Option<&'static str>,
    pub(crate) restore_rc: Option<i32>,
    pub(crate) presence_ok: Option<bool>,
    /// `declared` or `inferred`; null if nothing is claimed.
    pub(crate) presence: Option<&'static str>,
    /// `empty`, `complete` or `incomplete`; null without a product.
    pub(crate) product_log: Option<&'static str>,
    /// Paths that differ after `execute`; changes.json has them.
    pub(crate) changes: Option<usize>,
    /// Paths that differ after `restore`.
    pub(crate) drift: Vec<String>,
    pub(crate) leaked: Vec<Leaked>,
    pub(crate) usage: Option<Used>,
    /// What Chickadee is told of a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
}

/// An attempt at a trial that was tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Earlier {
    pub(crate) attempt: u32,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
}

/// What a trial is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TrialKind {
    /// A folder with a task.yaml.
    Suite,
    /// An entry of a Chickadee set-up.
    Script,
}

/// A process that had to be killed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Leaked {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

impl From<&Leak> for Leaked {
    fn from(leak: &Leak) -> Self {
        Self { pid: leak.pid, command: leak.command.clone() }
    }
}

/// What a block or script used.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Used {
    /// Processor time, user and system.
    pub(crate) cpu_ms: u64,
    /// Largest resident set of one process.
    pub(crate) max_rss_bytes: u64,
    /// Most memory of all of them at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_peak_bytes: Option<u64>,
    /// Processes and threads that were started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) processes: Option<u64>,
    /// What lay in its folders at its end, beside the set-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) written_bytes: Option<u64>,
    /// What was written to each stream, kept or not.
    pub(crate) stdout_bytes: u64,
    pub(crate) stderr_bytes: u64,
}

/// The outcome of a chickadee script, with Chickadee's names.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) tier: &'static str,
    pub(crate) status: &'static str,
    pub(crate) short_result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) long_result: Option<String>,
    pub(crate) points: u32,
    pub(crate) execution_time_ms: u64,
}

impl Record {
    /// Returns a record of which only the name is known.
    pub(crate) fn new(name: &str, kind: TrialKind, status: Status) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            status,
            reason: None,
            findings: Vec::new(),
            notes: Vec::new(),
            summary: None,
            duration_ms: 0,
            attempt: 1,
            earlier: Vec::new(),
            artifacts: Vec::new(),
            expect: "pass",
            rc: None,
            signal: None,
            timed_out: false,
            ended_by: None,
            restore_rc: None,
            presence_ok: None,
            presence: None,
            product_log: None,
            changes: None,
            drift: Vec::new(),
            leaked: Vec::new(),
            usage: None,
            outcome: None,
        }
    }

    /// Takes over how a block or script ended.
    pub(crate) fn set_ending(&mut self, done: &Completion) {
        self.rc = Some(rc(done.exit));
        self.signal = match done.exit {
            Exit::Code(_) => None,
            Exit::Signal(_) => Some(done.exit.to_string().replace("signal ", "")),
        };
        self.timed_out = done.ended_by == EndedBy::Timeout;
        self.ended_by = Some(match done.ended_by {
            EndedBy::Itself => "itself",
            EndedBy::Timeout => "time limit",
            EndedBy::OutOfMemory => "memory limit",
            EndedBy::Cancel => "interrupt",
            EndedBy::SupervisorKilled => "loss of its supervisor",
        });
        self.usage = Some(Used {
            cpu_ms: millis(done.usage.user + done.usage.system),
            max_rss_bytes: done.usage.max_rss_bytes,
            memory_peak_bytes: done.usage.memory_peak_bytes,
            processes: done.usage.started,
            written_bytes: done.usage.written_bytes,
            stdout_bytes: done.stdout.total_bytes,
            stderr_bytes: done.stderr.total_bytes,
        });
    }
}

/// Returns the code that a shell would show: 128 + n for signal n.
pub(crate) fn rc(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(number) => 128 + number,
    }
}

/// Returns whole milliseconds, rounded down.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One stage, as summary.json shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StageRecord {
    pub(crate) name: String,
    pub(crate) status: Status,
    pub(crate) duration_ms: u64,
    /// Exit code of the command that failed.
    pub(crate) rc: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// How many trials ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) pass: usize,
    pub(crate) fail: usize,
    pub(crate) running: usize,
    pub(crate) interrupted: usize,
}

impl Counts {
    /// Counts one more trial.
    pub(crate) fn add(&mut self, status: Status) {
        match status {
            Status::Pass => self.pass += 1,
            Status::Fail => self.fail += 1,
            Status::Running => self.running += 1,
            Status::Interrupted => self.interrupted += 1,
        }
    }
}

/// How a run stands, as far as its policy depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) counts: Counts,
    pub(crate) selected: usize,
    pub(crate) interrupted: bool,
    pub(crate) is_finished: bool,
}

impl Standing {
    /// Returns the policy, if it is true of the run.
    ///
    /// Fail-on-skip: every selected trial was judged. No mutation: the harness wrote below its own folders only, which is so by
    /// construction (`os` has no function that writes elsewhere) unless a suite's snapshot looks into them; then the run was
    /// refused.
    pub(crate) fn policy(self) -> Option<&'static str> {
        let judged = self.counts.pass + self.counts.fail;
        (self.is_finished && !self.interrupted && judged >= self.selected).then_some(HARNESS_POLICY)
    }
}

/// What an earlier run of the same proof folder left behind when it was killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Traces {
    pub(crate) run_id: String,
    /// Trials that were running.
    pub(crate) interrupted: Vec<String>,
    /// Processes that were still alive.
    pub(crate) processes: Vec<String>,
    /// Folders and cgroups that were removed.
    pub(crate) removed: Vec<String>,
}

/// What stands first in summary.json: it is known when the run begins.
#[derive(Debug, Serialize)]
pub(crate) struct Head<'a> {
    pub(crate) schema: u32,
    pub(crate) run_id: &'a str,
    pub(crate) distro: &'a str,
    pub(crate) container_id: Option<&'a str>,
    pub(crate) started_at: &'a str,
    pub(crate) isolation: &'a str,
    /// Whether scripts of set-ups ran in the sandbox.
    pub(crate) sandbox: bool,
    pub(crate) product: Option<&'a str>,
    pub(crate) runner_version: &'a str,
    pub(crate) revision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traces: Option<&'a Traces>,
}

/// What stands last in summary.json, behind `suites`: it may change with every trial.
#[derive(Debug, Serialize)]
pub(crate) struct Tail<'a> {
    pub(crate) selected: usize,
    pub(crate) not_selected: usize,
    pub(crate) counts: Counts,
    pub(crate) stages: &'a [StageRecord],
    pub(crate) interrupted: bool,
    pub(crate) finished_at: Option<&'a str>,
    pub(crate) harness_policy: Option<&'static str>,
    /// Of a merged run: the runs that it was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shards: Option<&'a RawValue>,
}

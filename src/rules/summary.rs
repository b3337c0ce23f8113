//! Records -> the text of result.json and summary.json. The only place that knows their keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::script::{Completion, EndedBy, Exit, Leak};

/// Version of both formats; it changes when a key changes its meaning.
pub(crate) const SCHEMA: u32 = 1;
/// What `harness_policy` says when it is true of a run.
pub(crate) const HARNESS_POLICY: &str = "No harness mutation of product-owned artifacts; fail-on-skip enforced";

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
    /// Paths below the proof folder, of files that exist.
    pub(crate) artifacts: Vec<String>,
    pub(crate) expect: &'static str,
    /// Exit code of `execute` or of the script; 128 + n for signal n; null if it never ran.
    pub(crate) rc: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<String>,
    pub(crate) timed_out: bool,
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

/// What a trial is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TrialKind {
    /// A folder with a task.yaml.
    Suite,
    /// An entry of a chickadee set-up.
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
            artifacts: Vec::new(),
            expect: "pass",
            rc: None,
            signal: None,
            timed_out: false,
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
        self.usage =
            Some(Used { cpu_ms: millis(done.usage.user + done.usage.system), max_rss_bytes: done.usage.max_rss_bytes });
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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

/// What an earlier run of the same proof folder left behind when it was killed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Traces {
    pub(crate) run_id: String,
    /// Trials that were running.
    pub(crate) interrupted: Vec<String>,
    /// Processes that were still alive.
    pub(crate) processes: Vec<String>,
    /// Folders and cgroups that were removed.
    pub(crate) removed: Vec<String>,
}

/// The value of summary.json. `suites` are records as text, by name: they are rendered once and kept.
#[derive(Debug, Serialize)]
pub(crate) struct Summary<'a> {
    pub(crate) schema: u32,
    pub(crate) run_id: &'a str,
    pub(crate) distro: &'a str,
    pub(crate) container_id: Option<&'a str>,
    pub(crate) started_at: &'a str,
    pub(crate) finished_at: Option<&'a str>,
    pub(crate) isolation: &'static str,
    pub(crate) harness_policy: Option<&'static str>,
    pub(crate) interrupted: bool,
    pub(crate) selected: usize,
    pub(crate) not_selected: usize,
    pub(crate) counts: Counts,
    pub(crate) stages: &'a [StageRecord],
    pub(crate) product: Option<&'a str>,
    pub(crate) runner_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traces: Option<&'a Traces>,
    #[serde(serialize_with = "in_order")]
    pub(crate) suites: &'a BTreeMap<String, Entry>,
}

/// One trial of a summary, rendered.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) status: Status,
    pub(crate) text: Box<RawValue>,
}

impl Entry {
    /// Says of a trial that is still marked as running that it will never be judged.
    pub(crate) fn interrupt(&mut self) {
        if self.status != Status::Running {
            return;
        }
        let changed = self.text.get().replacen("\"status\":\"running\"", "\"status\":\"interrupted\"", 1);
        if let Ok(text) = RawValue::from_string(changed) {
            *self = Self { status: Status::Interrupted, text };
        }
    }
}

fn in_order<S: serde::Serializer>(entries: &BTreeMap<String, Entry>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(entries.values().map(|entry| &entry.text))
}

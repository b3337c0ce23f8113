//! Records -> the text of result.json and summary.json. The only place that knows their keys.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::script::{Completion, EndedBy, Exit, Leak};

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
            earlier: Vec::new(),
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

/// One trial of a summary, rendered.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) status: Status,
    pub(crate) text: Box<RawValue>,
}

/// The trials of a summary: a line each, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct TrialList {
    /// As it stands between the brackets: of each trial a line end and its record, commas between them.
    text: Vec<u8>,
    trials: Vec<Placed>,
    /// What stood before it where it was taken from.
    before: Vec<u8>,
}

#[derive(Debug)]
struct Placed {
    name: String,
    status: Status,
    /// Where its record is.
    at: Range<usize>,
}

/// What stands before the list in the text of a summary, and behind it.
const LIST_BEGINS: &str = "\"suites\":[";
const LIST_ENDS: &str = "\n],\"selected\":";

impl TrialList {
    /// Takes the trials out of the text of a summary. Returns them, and the text of all else.
    ///
    /// Under nextest each process of a run does this to all trials before it. So a text that is as `SummaryText` writes it is only cut
    /// into lines; any other, such as one that was edited, is read as the JSON that it should be.
    ///
    /// # Errors
    /// If it is no summary.
    pub(crate) fn take(mut summary: Vec<u8>) -> serde_json::Result<(Self, Vec<u8>)> {
        let Some((trials, list)) = std::str::from_utf8(&summary).ok().and_then(Self::cut) else {
            return Self::parse(&summary);
        };
        let before = summary[..list.start].to_vec();
        let rest = [&before, &summary[list.end..]].concat();
        // In place: of many trials it is large, and each new page of memory costs time.
        summary.truncate(list.end);
        summary.drain(..list.start);
        Ok((Self { text: summary, trials, before }, rest))
    }

    /// Returns the trials, and where their list is.
    fn cut(summary: &str) -> Option<(Vec<Placed>, Range<usize>)> {
        let begin = summary.find(LIST_BEGINS)? + LIST_BEGINS.len();
        let end = summary.rfind(LIST_ENDS)?;
        let text = summary.get(begin..end)?;
        let mut trials: Vec<Placed> = Vec::new();
        let mut start = 0;
        for line in text.split('\n') {
            if start > 0 {
                let (name, status) = beginning(line)?;
                if trials.last().is_some_and(|last| *last.name >= *name) {
                    return None;
                }
                let len = line.strip_suffix(',').unwrap_or(line).len();
                trials.push(Placed { name: name.to_owned(), status, at: start..start + len });
            }
            start += line.len() + 1;
        }
        Some((trials, begin..end))
    }

    fn parse(summary: &[u8]) -> serde_json::Result<(Self, Vec<u8>)> {
        #[derive(Deserialize)]
        struct Beginning {
            name: String,
            status: Status,
        }
        let mut all: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(summary)?;
        let trials = all.insert("suites".to_owned(), serde_json::Value::Array(Vec::new())).unwrap_or_default();
        let mut list = Self::default();
        for trial in serde_json::from_value::<Vec<serde_json::Value>>(trials)? {
            let text = serde_json::value::to_raw_value(&trial)?;
            let Beginning { name, status } = serde_json::from_value(trial)?;
            list.insert(&name, &Entry { status, text });
        }
        Ok((list, serde_json::to_vec(&all)?))
    }

    /// Returns the names of those that stand so.
    pub(crate) fn names(&self, status: Status) -> Vec<String> {
        self.trials.iter().filter(|trial| trial.status == status).map(|trial| trial.name.clone()).collect()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.trials.binary_search_by(|trial| trial.name.as_str().cmp(name))
    }

    /// Adds a trial, or replaces it. Returns from which byte on the text is another.
    fn insert(&mut self, name: &str, entry: &Entry) -> usize {
        let record = entry.text.get().as_bytes();
        match self.find(name) {
            Ok(index) => self.replace(index, entry.status, record),
            Err(index) => {
                let is_last = index == self.trials.len();
                let at = self.trials.get(index).map_or(self.text.len(), |next| next.at.start - 1);
                let (before, behind) = match (is_last, at) {
                    (true, 0) => ("\n", ""),
                    (true, _) => (",\n", ""),
                    (false, _) => ("\n", ","),
                };
                let start = at + before.len();
                let placed = Placed { name: name.to_owned(), status: entry.status, at: start..start + record.len() };
                self.text.splice(at..at, [before.as_bytes(), record, behind.as_bytes()].concat());
                let longer = before.len() + record.len() + behind.len();
                self.shift(index, |at| at + longer);
                self.trials.insert(index, placed);
                at
            }
        }
    }

    fn replace(&mut self, index: usize, status: Status, record: &[u8]) -> usize {
        let Some(placed) = self.trials.get_mut(index) else { return self.text.len() };
        let old = placed.at.clone();
        placed.status = status;
        placed.at = old.start..old.start + record.len();
        self.text.splice(old.clone(), record.iter().copied());
        self.shift(index + 1, |at| at + record.len() - old.len());
        old.start
    }

    fn shift(&mut self, from: usize, shifted: impl Fn(usize) -> usize) {
        for placed in self.trials.iter_mut().skip(from) {
            placed.at = shifted(placed.at.start)..shifted(placed.at.end);
        }
    }

    /// Says of every trial that is still marked as running that it will never be judged. Returns from which byte on the text is
    /// another, if there is one.
    fn interrupt(&mut self) -> Option<usize> {
        let running: Vec<_> =
            (0..self.trials.len()).filter(|index| self.trials[*index].status == Status::Running).collect();
        let changes = running.into_iter().map(|index| {
            let record = String::from_utf8_lossy(&self.text[self.trials[index].at.clone()]);
            let record = record.replacen("\"status\":\"running\"", "\"status\":\"interrupted\"", 1);
            self.replace(index, Status::Interrupted, record.as_bytes())
        });
        changes.min()
    }
}

/// Returns the name and the status that a record begins with, if it is as we write it.
fn beginning(record: &str) -> Option<(&str, Status)> {
    let (name, rest) = record.strip_prefix("{\"name\":\"")?.split_once('"')?;
    let rest = rest.strip_prefix(",\"kind\":\"")?;
    let rest = rest.strip_prefix("suite").or_else(|| rest.strip_prefix("script"))?;
    let (status, _) = rest.strip_prefix("\",\"status\":\"")?.split_once('"')?;
    let all = [Status::Pass, Status::Fail, Status::Running, Status::Interrupted];
    let status = all.into_iter().find(|known| known.as_str() == status)?;
    (!name.contains('\\')).then_some((name, status))
}

/// The text of summary.json. A trial that is added in the order of names changes only its end, so that what is written for one does
/// not grow with their number.
#[derive(Debug)]
pub(crate) struct SummaryText {
    /// What stands before the list.
    head: Vec<u8>,
    list: TrialList,
    /// What was rendered last to stand behind it.
    tail: Vec<u8>,
    /// Leading bytes that are as they were in the last rendering.
    unchanged: usize,
}

impl SummaryText {
    /// Begins a summary, or goes on with the one that `list` was taken from. A trial of it that is still marked as running will never
    /// be judged.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn new(head: &Head<'_>, mut list: TrialList) -> serde_json::Result<Self> {
        let mut head = serde_json::to_vec(head)?;
        // The object goes on.
        head.pop();
        head.push(b',');
        head.extend_from_slice(LIST_BEGINS.as_bytes());
        let from = list.interrupt().unwrap_or(list.text.len());
        let unchanged = if list.before == head { head.len() + from } else { 0 };
        Ok(Self { head, list, tail: Vec::new(), unchanged })
    }

    /// Adds a trial, or replaces it.
    pub(crate) fn insert(&mut self, name: &str, entry: &Entry) {
        let at = self.head.len() + self.list.insert(name, entry);
        self.unchanged = self.unchanged.min(at);
    }

    /// Says of every trial that is still marked as running that it will never be judged.
    pub(crate) fn interrupt(&mut self) {
        if let Some(at) = self.list.interrupt() {
            self.unchanged = self.unchanged.min(self.head.len() + at);
        }
    }

    /// Returns a trial's record.
    pub(crate) fn record(&self, name: &str) -> Option<&[u8]> {
        let placed = self.list.find(name).ok().and_then(|index| self.list.trials.get(index))?;
        self.list.text.get(placed.at.clone())
    }

    /// Returns how a trial stands.
    pub(crate) fn status(&self, name: &str) -> Option<Status> {
        self.list.find(name).ok().and_then(|index| self.list.trials.get(index)).map(|placed| placed.status)
    }

    /// Returns how many trials ended how.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.list.trials.iter().for_each(|placed| counts.add(placed.status));
        counts
    }

    /// Returns how many trials there are.
    pub(crate) fn len(&self) -> usize {
        self.list.trials.len()
    }

    /// Returns the whole text, in parts, and how many leading bytes of it are as they were the last time, or where it was taken from.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn render(&mut self, tail: &Tail<'_>) -> serde_json::Result<([&[u8]; 3], usize)> {
        let rest = serde_json::to_vec(tail)?;
        self.tail = [b"\n],", rest.strip_prefix(b"{").unwrap_or(&rest)].concat();
        let list_end = self.head.len() + self.list.text.len();
        let unchanged = std::mem::replace(&mut self.unchanged, list_end);
        Ok(([&self.head, &self.list.text, &self.tail], unchanged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: Tail<'_> = Tail {
        selected: 3,
        not_selected: 0,
        counts: Counts { pass: 0, fail: 0, running: 0, interrupted: 0 },
        stages: &[],
        interrupted: false,
        finished_at: None,
        harness_policy: None,
        shards: None,
    };

    const HEAD: Head<'_> = Head {
        schema: SCHEMA,
        run_id: "r",
        distro: "debian",
        container_id: None,
        started_at: "",
        isolation: "none",
        product: None,
        runner_version: "0",
        revision: None,
        traces: None,
    };

    fn summary() -> SummaryText {
        SummaryText::new(&HEAD, TrialList::default()).unwrap()
    }

    fn entry(name: &str, status: Status) -> Entry {
        let text = serde_json::value::to_raw_value(&Record::new(name, TrialKind::Suite, status)).unwrap();
        Entry { status, text }
    }

    fn shown(summary: &mut SummaryText) -> Vec<(String, String)> {
        let value: serde_json::Value = serde_json::from_slice(&summary.render(&TAIL).unwrap().0.concat()).unwrap();
        assert_eq!((&value["run_id"], &value["selected"]), (&"r".into(), &3.into()));
        let trials = value["suites"].as_array().unwrap().iter();
        trials.map(|trial| ["name", "status"].map(|key| trial[key].as_str().unwrap().to_owned()).into()).collect()
    }

    #[test]
    fn trials_stand_in_the_order_of_names_however_they_came() {
        let mut summary = summary();
        assert_eq!(shown(&mut summary), []);
        for (name, status) in [
            ("b", Status::Running),
            ("a", Status::Running),
            ("c", Status::Pass),
            ("a", Status::Fail),
            ("c", Status::Fail),
        ] {
            summary.insert(name, &entry(name, status));
        }
        let expected = |b: &str| [("a", "fail"), ("b", b), ("c", "fail")].map(|(n, s)| (n.to_owned(), s.to_owned()));
        assert_eq!(shown(&mut summary), expected("running"));
        assert_eq!(summary.counts(), Counts { pass: 0, fail: 2, running: 1, interrupted: 0 });
        summary.interrupt();
        assert_eq!(shown(&mut summary), expected("interrupted"));
        assert_eq!(summary.counts(), Counts { pass: 0, fail: 2, running: 0, interrupted: 1 });
    }

    #[test]
    fn what_is_said_to_be_unchanged_is() {
        let mut summary = summary();
        let mut last = Vec::new();
        for (name, status) in [
            ("b", Status::Running),
            ("b", Status::Pass),
            ("c", Status::Running),
            ("a", Status::Pass),
            ("d", Status::Pass),
        ] {
            summary.insert(name, &entry(name, status));
            let (parts, unchanged) = summary.render(&TAIL).unwrap();
            let text = parts.concat();
            assert_eq!(text.get(..unchanged), last.get(..unchanged), "{name}");
            // In order, nothing before the trial itself is touched.
            assert_eq!(unchanged > 400, name == "c" || name == "d", "{name}: {unchanged}");
            last = text;
        }
    }

    #[test]
    fn what_was_written_is_taken_up_again_and_so_is_what_was_edited() {
        let mut first = summary();
        for (name, status) in [("a", Status::Pass), ("c", Status::Running), ("b", Status::Fail)] {
            first.insert(name, &entry(name, status));
        }
        let text = first.render(&TAIL).unwrap().0.concat();
        assert!(TrialList::cut(std::str::from_utf8(&text).unwrap()).is_some(), "it would be read as any JSON");
        let edited = serde_json::to_vec_pretty(&serde_json::from_slice::<serde_json::Value>(&text).unwrap()).unwrap();
        for text in [text, edited] {
            let (list, rest) = TrialList::take(text).unwrap();
            assert_eq!(list.names(Status::Running), ["c"]);
            let rest: serde_json::Value = serde_json::from_slice(&rest).unwrap();
            assert_eq!(
                (&rest["run_id"], &rest["suites"], &rest["selected"]),
                (&"r".into(), &serde_json::json!([]), &3.into())
            );
            let mut again = SummaryText::new(&HEAD, list).unwrap();
            again.insert("bb", &entry("bb", Status::Pass));
            let expected = [("a", "pass"), ("b", "fail"), ("bb", "pass"), ("c", "interrupted")];
            assert_eq!(shown(&mut again), expected.map(|(name, status)| (name.to_owned(), status.to_owned())));
        }
    }

    #[test]
    fn what_is_no_summary_is_none() {
        for text in ["", "{", "[]", "{\"suites\":[\n{\"name\":\"a\"\n],\"selected\":1}", "{\"suites\":[{\"name\":1}]}"]
        {
            assert!(TrialList::take(text.into()).is_err(), "{text}");
        }
    }
}

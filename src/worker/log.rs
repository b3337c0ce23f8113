//! The worker's log: one event, one line, one write, for which nobody waits. The only place that knows the names of events.

mod lines;

use std::error::Error;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use crate::model::verdict::Fault;
use crate::os::journal::{Level, now_text};
use crate::rules::report::one_line;
use crate::worker::api::JobKey;
use crate::worker::args::Secret;
use lines::Lines;

/// What stands where a secret stood.
const HIDDEN: &str = "[secret]";

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON object a line: `ts`, `level`, `event`, `worker`, then what belongs to the event.
    Json,
    /// For people: `12:04:01 info job_claimed submissionID=…`.
    Text,
    /// The same, the level in its colour.
    ColouredText,
}

/// How long the end of the worker waits for whoever reads its log.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(2);

/// Writes events to standard error. Copies write to the same place, whole lines each.
#[derive(Clone)]
pub(super) struct Log {
    form: Arc<Form>,
    lines: Lines,
}

/// What makes a line of an event.
struct Form {
    worker: String,
    format: Format,
    secrets: Mutex<Vec<Secret>>,
}

impl Log {
    /// Writes to standard error as worker `worker`.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub(super) fn new(worker: &str, format: Format) -> io::Result<Self> {
        Self::to(Box::new(io::stderr()), worker, format)
    }

    /// Writes to `out` as worker `worker`.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub(super) fn to(out: Box<dyn Write + Send>, worker: &str, format: Format) -> io::Result<Self> {
        let form = Arc::new(Form { worker: worker.to_owned(), format, secrets: Mutex::default() });
        let theirs = Arc::clone(&form);
        let lost = move |count| {
            let mut line = String::new();
            theirs.make(Level::Warn, EventName::LogLost, &[("lines", json!(count))], |made| line = made);
            line
        };
        Ok(Self { lines: Lines::to(out, lost)?, form })
    }

    /// Sees to it that no line has `secret` in it from now on.
    pub(super) fn hide(&self, secret: Secret) {
        self.form.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret);
    }

    /// Returns `text` as it may be shown elsewhere, too: what a server says may hold a secret.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        hidden(text, &self.form.secrets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until everything is written, a short time at most: to be called before the process ends, and the log with it.
    pub(super) fn finish(&self) {
        self.lines.wait_until_written(LAST_LINES_LIMIT);
    }

    /// Writes an event of a job.
    pub(super) fn of_job(&self, level: Level, event: EventName, job: &JobKey, more: &[(&str, Value)]) {
        let mut fields = vec![("submissionID", json!(job.submission_id)), ("attemptNumber", json!(job.attempt_number))];
        fields.extend(more.iter().cloned());
        self.event(level, event, &fields);
    }

    /// Says that the disk did not do with a job's record or result what it was to do.
    pub(super) fn disk_failed(&self, job: &JobKey, error: &dyn Error) {
        self.of_job(Level::Error, EventName::SpoolFailed, job, &[("error", json!(Fault::new(error).to_string()))]);
    }

    /// Writes one line, or will: nobody may be listening any more, or too slowly. That is no reason to stop working.
    pub(super) fn event(&self, level: Level, event: EventName, fields: &[(&str, Value)]) {
        self.form.make(level, event, fields, |line| self.lines.push(line));
    }
}

impl Form {
    /// Makes a line and hands it on. One at a time, so that an earlier time is never on a later line.
    fn make(&self, level: Level, event: EventName, fields: &[(&str, Value)], hand_on: impl FnOnce(String)) {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.clone())).collect();
        fields.iter_mut().for_each(|(_, value)| hide_in(value, &secrets));
        let worker = hidden(&self.worker, &secrets);
        let line = Line { ts: now_text(), level, event, worker: &worker, fields: &fields };
        hand_on(match self.format {
            Format::Json => line.json(),
            Format::Text => line.text(""),
            Format::ColouredText => line.text(colour(level)),
        });
    }
}

/// Replaces secrets in every text of `value`, its keys among them.
fn hide_in(value: &mut Value, secrets: &[Secret]) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => {
            let text = number.to_string();
            let shown = hidden(&text, secrets);
            if shown != text {
                *value = Value::String(shown);
            }
        }
        Value::String(text) => *text = hidden(text, secrets),
        Value::Array(values) => values.iter_mut().for_each(|value| hide_in(value, secrets)),
        Value::Object(map) => {
            let entries = std::mem::take(map).into_iter().map(|(key, mut value)| {
                hide_in(&mut value, secrets);
                (hidden(&key, secrets), value)
            });
            *map = entries.collect();
        }
    }
}

fn hidden(text: &str, secrets: &[Secret]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.text(), HIDDEN))
}

struct Line<'a> {
    ts: String,
    level: Level,
    event: EventName,
    worker: &'a str,
    fields: &'a [(&'a str, Value)],
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ts", &self.ts)?;
        map.serialize_entry("level", &self.level)?;
        map.serialize_entry("event", self.event.as_str())?;
        map.serialize_entry("worker", self.worker)?;
        for (name, value) in self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Line<'_> {
    fn json(&self) -> String {
        // Texts and values cannot fail to be written.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    fn text(&self, colour: &str) -> String {
        let time = self.ts.get(11..19).unwrap_or(&self.ts);
        let (colour, plain) = if colour.is_empty() { ("", "") } else { (colour, PLAIN) };
        let mut text = format!("{time} {colour}{}{plain} {}", word(self.level), self.event.as_str());
        for (name, value) in self.fields {
            text.push_str(&format!(" {name}={}", shown(value)));
        }
        text + "\n"
    }
}

/// A time in seconds, to the millisecond.
pub(super) fn seconds(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// A text stands without quotes where it is one word.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '=']) => one_line(text),
        // JSON, but for line ends, leaves most of what hides as it is.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            one_line(&value.to_string())
        }
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// Select Graphic Rendition (ECMA-48): green, yellow, red.
fn colour(level: Level) -> &'static str {
    match level {
        Level::Info => "\x1b[32m",
        Level::Warn => "\x1b[33m",
        Level::Error => "\x1b[31m",
    }
}

const PLAIN: &str = "\x1b[0m";

/// What happened. The words are for programs that read the log: they do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventName {
    /// The worker has read its configuration and has its state folder.
    WorkerStarted,
    /// The worker ends.
    WorkerStopped,
    /// The worker lacks something that it cannot do without, and ends.
    WorkerFailed,
    /// The configuration is usable, and something about it should be known.
    ConfigurationWarning,
    /// What a killed worker had left was ended and removed.
    TracesSwept,
    /// Results or jobs wait for a worker of another id, which does not run here.
    ResultsElsewhere,
    /// The sandbox was tried, and holds.
    SandboxReady,
    /// What this machine can run was found out.
    ProfileFound,
    /// A poll has failed; there will be others.
    PollFailed,
    /// The worker id is in use on another host.
    WorkerIdConflict,
    /// The server refuses our signature.
    AuthenticationRefused,
    /// No polls: too little space on the disk.
    DiskLow,
    /// No polls: a result is in memory only, since the disk did not take it.
    ResultsInMemory,
    /// A job was taken.
    JobClaimed,
    /// A job that a killed worker had in hand is taken up again.
    JobResumed,
    /// The server offers what is in hand or waits to be sent; it is not run again.
    JobDuplicate,
    /// A job file that nobody can read was set aside.
    JobFileBroken,
    /// A set-up is there: from the cache, or fetched.
    SetupReady,
    /// A cached set-up was changed by somebody, and thrown away.
    CacheEntryTampered,
    /// A cached set-up had to go, for space.
    CacheEntryEvicted,
    /// A download failed and is tried again.
    DownloadRetried,
    /// The scripts of a job begin.
    JobStarted,
    /// A job has its results.
    JobFinished,
    /// We failed a job; its report says that.
    JobFailed,
    /// Job after job fails by our fault or for want of its files, or has its result refused for good: polls become rare until one does not.
    JobsFailing,
    /// The disk does not take a result, which is kept in memory, or a job's record.
    SpoolFailed,
    /// No polls: too many results wait to be sent.
    SpoolFull,
    /// A result was not taken and is sent again.
    ResultRetried,
    /// The server has taken a result.
    ResultSent,
    /// A result was too large, and was cut.
    ResultShrunk,
    /// A result that the server refuses for good, or a file in the spool that is none, was set aside.
    ResultSetAside,
    /// The oldest of what was set aside had to go, for space.
    RejectedDropped,
    /// A heartbeat has failed.
    HeartbeatFailed,
    /// SIGTERM, SIGINT, SIGHUP or `--once`: no new jobs.
    DrainStarted,
    /// What still ran at the drain limit was cancelled.
    DrainLimitReached,
    /// A second signal: the worker ends at once.
    Aborted,
    /// Results that the server has not taken stay in the spool, for the next start.
    ResultsLeft,
    /// A result that neither the server nor the disk has taken is gone with the worker.
    ResultLost,
    /// What jobs worked in could not be removed; the next start tries again.
    ScratchLeft,
    /// Those who watch the worker cannot be told.
    StatusFailed,
    /// Nobody has read the log for so long that lines of it are lost.
    LogLost,
}

impl EventName {
    /// Every event, in the order of the table in docs/worker.md.
    #[cfg(test)]
    pub(super) const ALL: [Self; 41] = [
        Self::WorkerStarted,
        Self::WorkerStopped,
        Self::WorkerFailed,
        Self::ConfigurationWarning,
        Self::TracesSwept,
        Self::ResultsElsewhere,
        Self::SandboxReady,
        Self::ProfileFound,
        Self::PollFailed,
        Self::WorkerIdConflict,
        Self::AuthenticationRefused,
        Self::DiskLow,
        Self::ResultsInMemory,
        Self::JobClaimed,
        Self::JobResumed,
        Self::JobDuplicate,
        Self::JobFileBroken,
        Self::SetupReady,
        Self::CacheEntryTampered,
        Self::CacheEntryEvicted,
        Self::DownloadRetried,
        Self::JobStarted,
        Self::JobFinished,
        Self::JobFailed,
        Self::JobsFailing,
        Self::SpoolFailed,
        Self::SpoolFull,
        Self::ResultRetried,
        Self::ResultSent,
        Self::ResultShrunk,
        Self::ResultSetAside,
        Self::RejectedDropped,
        Self::HeartbeatFailed,
        Self::DrainStarted,
        Self::DrainLimitReached,
        Self::Aborted,
        Self::ResultsLeft,
        Self::ResultLost,
        Self::ScratchLeft,
        Self::StatusFailed,
        Self::LogLost,
    ];

    /// Returns the word for it in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::WorkerStarted => "worker_started",
            Self::WorkerStopped => "worker_stopped",
            Self::WorkerFailed => "worker_failed",
            Self::ConfigurationWarning => "configuration_warning",
            Self::TracesSwept => "traces_swept",
            Self::ResultsElsewhere => "results_elsewhere",
            Self::SandboxReady => "sandbox_ready",
            Self::ProfileFound => "profile_found",
            Self::PollFailed => "poll_failed",
            Self::WorkerIdConflict => "worker_id_conflict",
            Self::AuthenticationRefused => "authentication_refused",
            Self::DiskLow => "disk_low",
            Self::ResultsInMemory => "results_in_memory",
            Self::JobClaimed => "job_claimed",
            Self::JobResumed => "job_resumed",
            Self::JobDuplicate => "job_duplicate",
            Self::JobFileBroken => "job_file_broken",
            Self::SetupReady => "setup_ready",
            Self::CacheEntryTampered => "cache_entry_tampered",
            Self::CacheEntryEvicted => "cache_entry_evicted",
            Self::DownloadRetried => "download_retried",
            Self::JobStarted => "job_started",
            Self::JobFinished => "job_finished",
            Self::JobFailed => "job_failed",
            Self::JobsFailing => "jobs_failing",
            Self::SpoolFailed => "spool_failed",
            Self::SpoolFull => "spool_full",
            Self::ResultRetried => "result_retried",
            Self::ResultSent => "result_sent",
            Self::ResultShrunk => "result_shrunk",
            Self::ResultSetAside => "result_set_aside",
            Self::RejectedDropped => "rejected_dropped",
            Self::HeartbeatFailed => "heartbeat_failed",
            Self::DrainStarted => "drain_started",
            Self::DrainLimitReached => "drain_limit_reached",
            Self::Aborted => "aborted",
            Self::ResultsLeft => "results_left",
            Self::ResultLost => "result_lost",
            Self::ScratchLeft => "scratch_left",
            Self::StatusFailed => "status_failed",
            Self::LogLost => "log_lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    /// Every write that was made.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Writes {
        fn all(&self, log: &Log) -> Vec<String> {
            log.finish();
            self.0.lock().unwrap().clone()
        }
    }

    fn log(format: Format) -> (Log, Writes) {
        let writes = Writes::default();
        (Log::to(Box::new(writes.clone()), "worker-a", format).unwrap(), writes)
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    /// What follows the time.
    fn without_time(line: &str) -> &str {
        line.split_once("Z\",").unwrap().1
    }

    #[test]
    fn an_event_is_one_write_and_its_fields_keep_their_order() {
        let (log, writes) = log(Format::Json);
        let fields = [("submissionID", json!("s\n1")), ("attempt", json!(2)), ("a", json!(null))];
        log.event(Level::Warn, EventName::JobClaimed, &fields);
        let lines = writes.all(&log);
        assert_eq!(lines.len(), 1);
        let expected = "\"level\":\"warn\",\"event\":\"job_claimed\",\"worker\":\"worker-a\",\"submissionID\":\"s\\n1\",\"attempt\":2,\"a\":null}\n";
        assert_eq!(without_time(&lines[0]), expected);
        let ts = &lines[0][7..31];
        assert!(ts.parse::<jiff::Timestamp>().is_ok() && ts.as_bytes()[19] == b'.', "{ts}");
    }

    #[test]
    fn text_hides_nothing_from_the_reader_and_cannot_drive_the_terminal() {
        let (log, writes) = log(Format::Text);
        let fields = [
            ("word", json!("a\x1b[31m")),
            ("words", json!("a b\n\u{202e}")),
            ("empty", json!("")),
            ("forged", json!("x level=error")),
            ("list", json!(["a"])),
        ];
        log.event(Level::Info, EventName::JobStarted, &fields);
        let line = writes.all(&log).concat();
        let (time, rest) = line.split_at(8);
        assert_eq!(time.split(':').map(str::len).collect::<Vec<_>>(), [2, 2, 2]);
        let expected = " info job_started word=a\\u{1b}[31m words=\"a b\\n\\u{202e}\" empty=\"\" forged=\"x level=error\" list=[\"a\"]\n";
        assert_eq!(rest, expected);
    }

    #[test]
    fn only_coloured_text_has_colours() {
        for (format, has_colours) in [(Format::Json, false), (Format::Text, false), (Format::ColouredText, true)] {
            let (log, writes) = log(format);
            log.event(Level::Error, EventName::PollFailed, &[]);
            assert_eq!(writes.all(&log).concat().contains('\x1b'), has_colours, "{format:?}");
        }
    }

    #[test]
    fn a_secret_appears_nowhere_whatever_it_is_written_with() {
        for format in [Format::Json, Format::Text, Format::ColouredText] {
            for text in ["hunter2", "quote\"d\\", "tab\tbed", "12345", "[31m", "é=ü"] {
                let (log, writes) = log(format);
                log.hide(secret(text));
                let url = format!("https://x/?{text}{text}");
                let mut map = serde_json::Map::new();
                map.insert(text.to_owned(), json!([text]));
                let fields = [
                    ("url", json!(url)),
                    ("map", Value::Object(map)),
                    ("number", json!(912_345_u32)),
                    ("kept", json!("kept")),
                ];
                log.event(Level::Info, EventName::PollFailed, &fields);
                let written = writes.all(&log).concat();
                let plain = written.replace("\x1b[31m", "").replace("\x1b[32m", "");
                let as_json = serde_json::to_string(text).unwrap();
                assert!(!plain.contains(text) && !plain.contains(as_json.trim_matches('"')), "{text}: {plain}");
                assert!(plain.contains("kept") && plain.contains(HIDDEN), "{plain}");
            }
        }
        let (log, writes) = log(Format::Json);
        log.event(Level::Info, EventName::PollFailed, &[("x", json!("hunter2"))]);
        assert!(writes.all(&log).concat().contains("hunter2"), "nobody said that it is one");
    }

    #[test]
    fn lines_of_several_threads_are_whole() {
        let (log, writes) = log(Format::Json);
        thread::scope(|scope| {
            for thread in 0..4 {
                let log = log.clone();
                scope.spawn(move || {
                    for number in 0..50 {
                        log.event(Level::Info, EventName::JobFinished, &[("n", json!([thread, number]))]);
                    }
                });
            }
        });
        let lines = writes.all(&log);
        let seen: BTreeSet<String> =
            lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].to_string()).collect();
        assert_eq!((lines.len(), seen.len()), (200, 200));
    }

    #[test]
    fn a_log_that_nobody_reads_any_more_is_no_reason_to_stop() {
        let (reader, writer) = io::pipe().unwrap();
        let log = Log::to(Box::new(writer), "worker-a", Format::Json).unwrap();
        drop(reader);
        log.event(Level::Info, EventName::WorkerStarted, &[]);
        log.event(Level::Info, EventName::WorkerStopped, &[]);
        log.finish();
    }

    #[test]
    fn all_has_every_event_once_and_names_are_snake_case() {
        let words: BTreeSet<_> = EventName::ALL.iter().map(|event| event.as_str()).collect();
        let source = include_str!("log.rs");
        let arms = source.split("fn as_str").nth(1).unwrap().split("#[cfg(test)]").next().unwrap();
        assert_eq!(words.len(), arms.matches("=> \"").count(), "an event is not in ALL, or has another's word");
        let is_snake = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(words.iter().all(|word| is_snake(word)), "{words:?}");
    }
}

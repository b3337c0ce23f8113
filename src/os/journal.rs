//! `runner.jsonl`: one event, one line, one write.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;

use super::host::Jsonl;

/// Who a journal's lines belong to.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// This run; never empty.
    pub(crate) run_id: String,
    /// As in `Host`.
    pub(crate) container_id: Option<String>,
    /// As in `Host`.
    pub(crate) distro: String,
}

/// How serious an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As planned.
    Info,
    /// Something a user should know.
    Warn,
    /// Something failed.
    Error,
}

/// One event. What is `None` is written as null up to `duration_ms`, and left out after it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event<'a> {
    pub(crate) level: Level,
    pub(crate) stage: &'a str,
    pub(crate) suite: Option<&'a str>,
    pub(crate) event: &'a str,
    pub(crate) cmd: Option<&'a str>,
    pub(crate) rc: Option<i32>,
    pub(crate) duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(crate) artifacts: &'a [String],
}

impl<'a> Event<'a> {
    /// An event of stage `stage` with nothing else.
    pub(crate) fn new(stage: &'a str, event: &'a str) -> Self {
        Self {
            level: Level::Info,
            stage,
            suite: None,
            event,
            cmd: None,
            rc: None,
            duration_ms: None,
            message: None,
            artifacts: &[],
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    component: &'static str,
    run_id: &'a str,
    container_id: Option<&'a str>,
    distro: &'a str,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// Why a line could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write the log `{path}`; set RUNNER_JSONL to a file that can be written", path = path.display())]
pub(crate) struct JournalError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The JSONL log, and the copy of this run's lines in the proof folder, if that is another file.
pub(crate) struct Journal {
    identity: Identity,
    files: Vec<(PathBuf, File)>,
    /// Lines of two threads do not mix even where a write is not atomic.
    turn: Mutex<()>,
}

impl Journal {
    /// Opens the log and its copy in the proof folder for appending, and makes their folders.
    ///
    /// # Errors
    /// If one cannot be opened that must be.
    pub(crate) fn open(identity: Identity, log: &Jsonl, copy: &Path) -> Result<Self, JournalError> {
        let mut files = vec![(copy.to_path_buf(), open(copy)?)];
        match log {
            Jsonl::Named(path) if path != copy => files.push((path.clone(), open(path)?)),
            // An ordinary user in a container has the same lines in the proof folder.
            Jsonl::Usual(path) => files.extend(open(path).ok().map(|file| (path.clone(), file))),
            Jsonl::Named(_) | Jsonl::ProofOnly => {}
        }
        Ok(Self { identity, files, turn: Mutex::new(()) })
    }

    /// Appends one line to each file, each with one write.
    ///
    /// # Errors
    /// If a file does not take it, for example on a full disk.
    pub(crate) fn write(&self, event: &Event<'_>) -> Result<(), JournalError> {
        let line = Line {
            ts: now_text(),
            component: "proving-ground",
            run_id: &self.identity.run_id,
            container_id: self.identity.container_id.as_deref(),
            distro: &self.identity.distro,
            event,
        };
        let mut text = serde_json::to_vec(&line).map_err(|error| self.error(io::Error::other(error)))?;
        text.push(b'\n');
        let _turn = self.turn.lock();
        for (path, file) in &self.files {
            let mut file = file;
            file.write_all(&text).map_err(|source| JournalError { path: path.clone(), source })?;
        }
        Ok(())
    }

    fn error(&self, source: io::Error) -> JournalError {
        JournalError { path: self.files.first().map(|(path, _)| path.clone()).unwrap_or_default(), source }
    }
}

/// Returns the time as text: UTC, to the millisecond.
pub(crate) fn now_text() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Returns a time in whole seconds: ISO 8601, UTC.
pub(crate) fn seconds_text(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn open(path: &Path) -> Result<File, JournalError> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| File::options().create(true).append(true).open(path))
        .map_err(|source| JournalError { path: path.to_path_buf(), source })
}

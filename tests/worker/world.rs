//! A worker in a process of its own, with folders of its own.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use wait_timeout::ChildExt as _;

use crate::server::{Assigned, Server};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const SECRET: &str = "correct horse battery staple";

/// The folders of one worker; they stay for the next process of it.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// What scripts and jobs of this worker work in, below.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.path("tmp")
    }

    /// A worker with quick retries and no look at the machine's languages, to which more can be said. Its environment has nothing of ours.
    pub(crate) fn command(&self, server: &Server) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chickadee-runner"));
        command.args(["--api-base-url", &server.url(), "--worker-id", "worker-under-test", "--log-format", "json"]);
        command.arg("--state-dir").arg(self.path("state")).arg("--test-setup-cache-dir").arg(self.path("cache"));
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("TMPDIR", self.scratch());
        command.env("RUNNER_RETRY_BASE_DELAY_MS", "20").env("RUNNER_RETRY_MAX_DELAY_MS", "200");
        command.env("RUNNER_CAPABILITY_DISCOVERY_ENABLED", "no");
        command.current_dir(self.dir.path());
        command
    }

    /// Starts a worker that signs.
    pub(crate) fn start(&self, server: &Server, more: &[&str]) -> Worker {
        let mut command = self.command(server);
        command.args(more).env("RUNNER_SHARED_SECRET", SECRET);
        self.spawn(&mut command)
    }

    pub(crate) fn spawn(&self, command: &mut Command) -> Worker {
        let log = self.path("log");
        let err = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err).spawn().unwrap();
        Worker { child, log }
    }

    /// Runs a worker until there is nothing left to do, and expects that it ends well.
    pub(crate) fn run_once(&self, server: &Server, more: &[&str]) -> Vec<Value> {
        let mut worker = self.start(server, &[&["--once"], more].concat());
        let status = worker.wait();
        assert!(status.success(), "{status}\n{}", worker.text());
        worker.events()
    }

    /// What is left of jobs on the disk: nothing, after an end in order.
    pub(crate) fn left(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.scratch()];
        folders.extend(["spool", "in-hand"].map(|name| self.path("state/worker-under-test").join(name)));
        let names =
            |dir: &Path| fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        folders.iter().flat_map(|dir| names(dir)).collect()
    }
}

/// A worker's process; it is killed with this, if it still runs.
pub(crate) struct Worker {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Worker {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let ended = self.child.wait_timeout(PATIENCE).unwrap();
        ended.unwrap_or_else(|| panic!("the worker does not end\n{}", self.text()))
    }

    /// Everything that workers of this world have logged.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Its events, one JSON object a line.
    pub(crate) fn events(&self) -> Vec<Value> {
        let parsed = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.text().lines().map(parsed).collect()
    }

    /// Waits for an event of this name.
    pub(crate) fn wait_for(&self, event: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let text = self.text();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let found = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(found) = found.into_iter().find(|value| value["event"] == event) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no `{event}` came\n{}", self.text())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A zip of these files.
pub(crate) fn zip_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A job whose set-up has these scripts, each an entry, and whose submission has one file, `answer.txt`.
pub(crate) fn job(submission_id: &str, scripts: &[(&str, &str)]) -> Assigned {
    let entries: Vec<_> = scripts.iter().map(|(name, _)| json!({ "script": name })).collect();
    Assigned {
        submission_id: submission_id.to_owned(),
        test_setup_id: "setup".to_owned(),
        attempt_number: 1,
        manifest: json!({ "schemaVersion": 1, "testSuites": entries }),
        set_up: zip_of(scripts),
        submission: zip_of(&[("answer.txt", submission_id)]),
        submission_filename: None,
        assignment_seed: None,
    }
}

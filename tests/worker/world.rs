//! A worker in a process of its own, with folders of its own.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
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

/// A user and group to whom nothing belongs.
const NOBODY: u32 = 65532;

/// As whom a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Whoever runs the tests.
    Caller,
    /// Somebody without rights; that takes root.
    Ordinary,
}

/// The folders of one worker; they stay for the next process of it.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    user: User,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(User::Caller)
    }

    /// A world that belongs to `user`, with a program that it may run.
    pub(crate) fn of(user: User) -> Self {
        Self::within(&std::env::temp_dir(), user)
    }

    /// One in `folder`.
    pub(crate) fn within(folder: &Path, user: User) -> Self {
        let dir = tempfile::tempdir_in(folder).unwrap();
        let world = Self { dir, user };
        fs::create_dir(world.scratch()).unwrap();
        if user == User::Ordinary {
            let program = world.path("chickadee-runner");
            // By another process: a file that is open for writing here would be so in every child that a test forks meanwhile, and
            // nobody could execute it.
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_chickadee-runner")).arg(&program).status().unwrap();
            assert!(copied.success());
            for path in ["", "tmp", "chickadee-runner"] {
                fs::set_permissions(world.path(path), fs::Permissions::from_mode(0o755)).unwrap();
                world.give(path);
            }
        }
        world
    }

    /// Gives what lies there to whom the world belongs.
    pub(crate) fn give(&self, below: &str) {
        if self.user == User::Ordinary {
            chown(self.path(below), Some(NOBODY), Some(NOBODY)).unwrap();
        }
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
        self.command_named(server, "worker-under-test", "json")
    }

    pub(crate) fn command_named(&self, server: &Server, worker_id: &str, log_format: &str) -> Command {
        let worker = match self.user {
            User::Caller => PathBuf::from(env!("CARGO_BIN_EXE_chickadee-runner")),
            User::Ordinary => self.path("chickadee-runner"),
        };
        // These tests may have been started with nohup(1).
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal=HUP").arg(worker);
        if self.user == User::Ordinary {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.args(["--api-base-url", &server.url(), "--worker-id", worker_id, "--log-format", log_format]);
        command.arg("--state-dir").arg(self.path("state")).arg("--test-setup-cache-dir").arg(self.path("cache"));
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("TMPDIR", self.scratch());
        command.env("RUNNER_RETRY_BASE_DELAY_MS", "20").env("RUNNER_RETRY_MAX_DELAY_MS", "200");
        command.env("RUNNER_CAPABILITY_DISCOVERY_ENABLED", "no");
        command.current_dir(self.dir.path());
        command
    }

    /// A worker that signs, started by another program: the worker and its arguments follow `words`, and more may follow them.
    pub(crate) fn wrapped(&self, server: &Server, words: &[&str]) -> Command {
        let worker = self.command(server);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(worker.get_program()).args(worker.get_args());
        command.env_clear().envs(worker.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("RUNNER_SHARED_SECRET", SECRET).current_dir(self.dir.path());
        command
    }

    /// Starts a worker that signs.
    pub(crate) fn start(&self, server: &Server, more: &[&str]) -> Worker {
        let mut command = self.command(server);
        command.args(more).env("RUNNER_SHARED_SECRET", SECRET);
        self.spawn(&mut command)
    }

    pub(crate) fn spawn(&self, command: &mut Command) -> Worker {
        let err = File::options().create(true).append(true).open(self.log()).unwrap();
        self.spawn_logging_to(command, err)
    }

    /// Starts a worker whose log goes elsewhere.
    pub(crate) fn spawn_logging_to(&self, command: &mut Command, err: impl Into<Stdio>) -> Worker {
        let from = fs::metadata(self.log()).map_or(0, |meta| usize::try_from(meta.len()).unwrap());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err).spawn().unwrap();
        Worker { child, log: self.log(), from }
    }

    fn log(&self) -> PathBuf {
        self.path("log")
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
    /// Where its part of the log begins.
    from: usize,
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
        // None, if it goes elsewhere.
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its events, one JSON object a line.
    pub(crate) fn events(&self) -> Vec<Value> {
        let parsed = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.text().lines().map(parsed).collect()
    }

    /// Waits for an event of this name from this process.
    pub(crate) fn wait_for(&self, event: &str) -> Value {
        let mut found = None;
        until(&|| format!("no `{event}` came\n{}", self.text()), || {
            let text = self.text().split_off(self.from);
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let mut events = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            found = events.find(|value| value["event"] == event);
            found.is_some()
        });
        found.unwrap()
    }

    /// Tells it to end, and expects that it does so in order.
    pub(crate) fn finish(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.text());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until something is so; `what` tells what is not.
pub(crate) fn until(what: &dyn Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{}", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes with these words in their command line.
pub(crate) fn alive(words: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(words)).collect()
}

/// Names that events with this name have in `key`.
pub(crate) fn said<'a>(events: &'a [Value], event: &str, key: &str) -> Vec<&'a Value> {
    events.iter().filter(|value| value["event"] == event).map(|value| &value[key]).collect()
}

/// Tells whether this is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Tells whether this is CI, where everything has to be tried.
pub(crate) fn is_ci() -> bool {
    std::env::vars_os().any(|(name, value)| name == "CI" && !value.is_empty())
}

/// Tells whether this machine lets an ordinary user make namespaces.
pub(crate) fn can_be_sandboxed() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "true"]).stdin(Stdio::null()).stderr(Stdio::null());
    let can = unshare.status().is_ok_and(|status| status.success());
    assert!(can || !is_ci(), "CI must be able to make namespaces");
    can
}

/// Flags of every kind of surroundings that scripts can have here.
pub(crate) fn walls() -> &'static [&'static [&'static str]] {
    if can_be_sandboxed() { &[&[], &["--sandbox"]] } else { &[&[]] }
}

/// Every user that can be had here with each of them.
pub(crate) fn ways() -> Vec<(User, &'static [&'static str])> {
    assert!(is_root() || !is_ci(), "CI must try another user, which takes root");
    let users: &[User] = if is_root() { &[User::Caller, User::Ordinary] } else { &[User::Caller] };
    users.iter().flat_map(|user| walls().iter().map(|flags| (*user, *flags))).collect()
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

/// The same with a set-up of its own, and time enough for its scripts to wait for something.
pub(crate) fn own_job(submission_id: &str, scripts: &[(&str, &str)]) -> Assigned {
    let mut job = job(submission_id, scripts);
    job.test_setup_id = format!("setup-of-{submission_id}");
    job.manifest["timeLimitSeconds"] = PATIENCE.as_secs().into();
    job
}

impl World {
    /// Text of a script that waits, unless it is in the sandbox, until [`Self::open`] is called with the same name.
    pub(crate) fn waits_for(&self, gate: &str) -> String {
        format!("until [ -e '{}' ]; do sleep 0.05; done\n", self.path(gate).display())
    }

    pub(crate) fn open(&self, gate: &str) {
        fs::write(self.path(gate), "").unwrap();
    }

    /// Text of a script that adds a line to a file of this world, which [`Self::lines`] counts.
    pub(crate) fn counts_in(&self, file: &str) -> String {
        format!("echo run >>'{}'\n", self.path(file).display())
    }

    pub(crate) fn lines(&self, file: &str) -> usize {
        fs::read_to_string(self.path(file)).map_or(0, |text| text.lines().count())
    }

    /// Expects that jobs have left nothing.
    #[track_caller]
    pub(crate) fn is_clean(&self) {
        assert_eq!(self.left(), Vec::<PathBuf>::new());
    }
}

/// The collection that the server has of the first attempt of a submission.
#[track_caller]
pub(crate) fn collection(server: &Server, submission_id: &str) -> Value {
    let results = server.results();
    let stored = results.get(&(submission_id.to_owned(), 1));
    stored.unwrap_or_else(|| panic!("no result of {submission_id:?}: {:?}", results.keys())).collection().clone()
}

/// Expects what a worker reports of a job that it could not grade, with this in its text.
#[track_caller]
pub(crate) fn is_infrastructure(collection: &Value, part: &str) {
    let numbers = (&collection["buildStatus"], &collection["outcomes"], &collection["errorCount"]);
    assert_eq!(numbers, (&json!("failed"), &json!([]), &json!(1)), "{collection:#}");
    let (text, warning) = (collection["compilerOutput"].as_str().unwrap(), collection["warnings"][0].as_str().unwrap());
    assert!(text.contains(part), "`{part}` is not in: {text}");
    assert!(warning.starts_with("infrastructure error"), "{warning}");
}

/// Expects what a worker reports of a submission that could not be unpacked or made, with this in its text.
#[track_caller]
pub(crate) fn is_not_built(collection: &Value, part: &str) {
    let numbers = (&collection["buildStatus"], &collection["outcomes"], &collection["errorCount"]);
    assert_eq!(numbers, (&json!("failed"), &json!([]), &json!(0)), "{collection:#}");
    assert_eq!(collection["warnings"], json!([]));
    let text = collection["compilerOutput"].as_str().unwrap();
    assert!(text.contains(part), "`{part}` is not in: {text}");
}

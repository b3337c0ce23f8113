//! A project in a folder of its own, a harness that runs over it, and what came of it.
#![allow(dead_code, reason = "each test target uses a part")]

use std::cell::Cell;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, Uid};
use serde_json::Value;
use tempfile::TempDir;
use wait_timeout::ChildExt;

/// A harness that takes longer is hung. No claim is about speed.
const DEADLINE: Duration = Duration::from_secs(120);
/// The name under which this program is a harness; cargo would add such a hash.
const HARNESS_STEM: &str = "suites-";
const HARNESS_NAME: &str = "suites-0123456789abcdef";

/// Acts as a harness if this program is called by that name, else tries the claims.
pub(crate) fn main(claims: fn() -> Vec<Trial>) -> ExitCode {
    let program = std::env::current_exe().unwrap();
    if program.file_name().unwrap().to_string_lossy().starts_with(HARNESS_STEM) {
        return proving_ground::harness::main();
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), claims());
    if let Some(folder) = HARNESS.lock().unwrap().take() {
        folder.close().unwrap();
    }
    conclusion.exit_code()
}

/// A claim, named by its function.
pub(crate) fn claim<F: FnOnce() + Send + 'static>(run: F) -> Trial {
    claim_named::<F>(run)
}

/// A claim, named by a function that it calls.
pub(crate) fn claim_named<F>(run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name_of::<F>(), move || {
        run();
        Ok(())
    })
}

/// A claim that only root can try. CI has to: there, it is never passed over.
pub(crate) fn root_claim<F: FnOnce() + Send + 'static>(run: F) -> Trial {
    claim(run).with_ignored_flag(!is_root() && !is_ci())
}

/// A claim for whoever runs this, and for an ordinary user.
pub(crate) fn both<F: Fn(User) + Send + Copy + 'static>(run: F) -> [Trial; 2] {
    both_named(&name_of::<F>(), run)
}

fn both_named(name: &str, run: impl Fn(User) + Send + Copy + 'static) -> [Trial; 2] {
    let ordinary = Trial::test(format!("{name}_as_an_ordinary_user"), move || {
        run(User::Ordinary);
        Ok(())
    });
    let mine = Trial::test(name, move || {
        run(User::Caller);
        Ok(())
    });
    [mine, ordinary.with_ignored_flag(!is_root() && !is_ci())]
}

thread_local! {
    /// New projects have their scripts run in the sandbox.
    static IN_SANDBOX: Cell<bool> = const { Cell::new(false) };
}

/// A claim that also holds in the sandbox: tried once more, with all its projects there.
pub(crate) fn also_in_the_sandbox<F: FnOnce() + Send + Copy + 'static>(run: F) -> [Trial; 2] {
    let sandboxed = Trial::test(format!("{}_in_the_sandbox", name_of::<F>()), move || {
        IN_SANDBOX.set(true);
        run();
        IN_SANDBOX.set(false);
        Ok(())
    });
    [claim(run), sandboxed.with_ignored_flag(!can_be_sandboxed() && !is_ci())]
}

/// A claim about the sandbox, for whoever runs this, and for an ordinary user.
pub(crate) fn sandbox_claims<F: Fn(User) + Send + Copy + 'static>(run: F) -> [Trial; 2] {
    let sandboxed = move |user| {
        IN_SANDBOX.set(true);
        run(user);
        IN_SANDBOX.set(false);
    };
    both_named(&name_of::<F>(), sandboxed).map(|trial| {
        let is_ignored = trial.has_ignored_flag() || (!can_be_sandboxed() && !is_ci());
        trial.with_ignored_flag(is_ignored)
    })
}

/// Tells whether this machine lets an ordinary user make namespaces.
pub(crate) fn can_be_sandboxed() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let mut unshare = command("unshare");
        unshare.args(["--user", "--map-root-user", "true"]).stdin(Stdio::null()).stderr(Stdio::null());
        unshare.status().is_ok_and(|status| status.success())
    })
}

fn name_of<F>() -> String {
    let path = std::any::type_name::<F>();
    path.split_once("::").map_or(path, |(_, rest)| rest).to_owned()
}

pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

pub(crate) fn is_ci() -> bool {
    std::env::vars_os().any(|(name, value)| name == "CI" && !value.is_empty())
}

/// What a claim says to cargo in this package's folder, so that it builds with the features of the claim: else it would put programs
/// without them in the place of those that other tests start.
pub(crate) fn features() -> &'static [&'static str] {
    if cfg!(feature = "worker") { &["--all-features"] } else { &[] }
}

/// Tells whether the programs are there. In CI they have to be.
#[expect(clippy::print_stderr, reason = "what was not tried has to be said")]
pub(crate) fn has(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    assert!(missing.is_empty() || !is_ci(), "CI must have {missing:?}");
    if !missing.is_empty() {
        eprintln!("NOT TRIED: this machine has no {missing:?}");
    }
    missing.is_empty()
}

/// Finds a program on PATH, or where only root looks for programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let folders = search_path();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&folders).chain(usual).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// PATH, as these claims have it.
pub(crate) fn search_path() -> OsString {
    std::env::vars_os().find(|(name, _)| name == "PATH").unwrap().1
}

/// As whom a harness runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Whoever runs the claims.
    Caller,
    /// Somebody without rights; only root can become one.
    Ordinary,
}

/// A user that nobody else is: neither a limit nor a `kill -1` of one claim is felt by another.
fn ordinary_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    100_000 + std::process::id() % 10_000 * 1000 + NEXT.fetch_add(1, Ordering::Relaxed) % 1000
}

/// Where this program is linked under the name of a harness.
static HARNESS: Mutex<Option<TempDir>> = Mutex::new(None);

/// The path of the harness.
pub(crate) fn harness() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = TempDir::with_prefix("harness.").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join(HARNESS_NAME);
        let program = std::env::current_exe().unwrap();
        // A link needs one file system, and is at once.
        fs::hard_link(&program, &path).or_else(|_| fs::copy(&program, &path).map(drop)).unwrap();
        *HARNESS.lock().unwrap() = Some(folder);
        path
    })
    .clone()
}

/// A script: what it starts sees this machine without the marks of a container, the same folders below another root.
pub(crate) const NO_CONTAINER: &str = r#"
set -eu
root=$(mktemp -d)
mount --make-rprivate /
mount -t tmpfs none "$root"
for entry in /*; do
    if [ -L "$entry" ]; then cp -a "$entry" "$root/"; continue; fi
    if [ ! -d "$entry" ] || [ "$entry" = /run ]; then continue; fi
    mkdir "$root$entry"
    mount --rbind "$entry" "$root$entry"
done
exec chroot "$root" "$@"
"#;

/// A project with suites. Its folder goes with it.
pub(crate) struct Project {
    folder: TempDir,
    user: User,
    variables: Vec<(String, Option<OsString>)>,
    wrapper: Vec<OsString>,
    program: Option<PathBuf>,
    ordinary_id: u32,
}

impl Project {
    /// A project whose suites are declared to be harmless.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// A project whose `runner.yaml` has more lines.
    pub(crate) fn with(settings: &str) -> Self {
        let project = Self::bare();
        let sandbox = if IN_SANDBOX.get() { "sandbox: true\n" } else { "" };
        project.file("suites/runner.yaml", format!("isolation: none\n{sandbox}{settings}"));
        project
    }

    /// A project without a `runner.yaml`.
    pub(crate) fn bare() -> Self {
        let folder = TempDir::with_prefix("project.").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["suites", "tmp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            folder,
            user: User::Caller,
            variables: Vec::new(),
            wrapper: Vec::new(),
            program: None,
            ordinary_id: ordinary_id(),
        }
    }

    /// Lets the harness run as `user`, who then owns the project.
    pub(crate) fn of(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// Sets a variable of the harness.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), Some(value.into())));
        self
    }

    /// Removes a variable of the harness that these claims set otherwise.
    pub(crate) fn without_variable(mut self, name: &str) -> Self {
        self.variables.push((name.to_owned(), None));
        self
    }

    /// Starts the harness by another program: the harness and its arguments follow `words`.
    pub(crate) fn wrapped(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(OsString::from).collect();
        self
    }

    /// Runs another program of ours instead of a harness.
    pub(crate) fn by(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// A path in the project's folder.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file of the project.
    pub(crate) fn file(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self
    }

    /// Writes a program of the project.
    pub(crate) fn program(&self, path: &str, text: &str) -> &Self {
        self.file(path, text);
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Writes a suite's `task.yaml`: its text.
    pub(crate) fn task(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        self.file(format!("suites/{name}/task.yaml"), text)
    }

    /// Writes a suite: a key and its value each. Blocks may have many lines, other values are YAML.
    pub(crate) fn suite(&self, name: &str, keys: &[(&str, &str)]) -> &Self {
        let mut text = format!("summary: this is {name}\n");
        for (key, value) in keys {
            if matches!(*key, "prepare" | "execute" | "debug" | "restore") {
                writeln!(text, "{key}: |").unwrap();
                value.lines().for_each(|line| writeln!(text, "  {line}").unwrap());
            } else {
                writeln!(text, "{key}: {value}").unwrap();
            }
        }
        self.task(name, text)
    }

    /// Writes a set-up: `test.properties.json` and files.
    pub(crate) fn setup(&self, name: &str, manifest: &Value, files: &[(&str, &str)]) -> &Self {
        self.file(format!("suites/{name}/test.properties.json"), manifest.to_string());
        for (path, text) in files {
            self.file(format!("suites/{name}/{path}"), text);
        }
        self
    }

    /// Runs the harness to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// Starts the harness.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let streams = TempDir::with_prefix("streams.").unwrap();
        let mut command = self.command(arguments);
        let file = |name| Stdio::from(File::create(streams.path().join(name)).unwrap());
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        // Signals to it do not reach us, and it can be ended with all that is in its group.
        command.process_group(0);
        Running { child: command.spawn().unwrap(), streams }
    }

    /// The command that runs the harness.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let program = self.program.clone().unwrap_or_else(harness);
        let words = self.wrapper.iter().cloned().chain([program.into_os_string()]);
        let mut words = words.chain(arguments.iter().map(OsString::from));
        let mut command = command(words.next().unwrap());
        command.args(words).env_clear().current_dir(self.folder.path());
        command.env("PATH", search_path()).env("HOME", self.folder.path()).env("LANG", "C.UTF-8");
        command.env("PROJECT_DIR", self.folder.path());
        for (name, folder) in [("TMPDIR", "tmp"), ("SUITES_DIR", "suites"), ("PROOF_DIR", "proof")] {
            command.env(name, self.path(folder));
        }
        command.env("RUNNER_JSONL", self.path("runner.jsonl"));
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if self.user == User::Ordinary {
            give_away(self.folder.path(), self.ordinary_id);
            // The standard library also drops root's other groups.
            command.uid(self.ordinary_id).gid(self.ordinary_id);
        }
        command
    }

    /// The words that blocks have appended to `order`, with `echo WORD >>order`.
    pub(crate) fn order(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("order")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// The text of a file of the project.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> String {
        let path = self.path(path);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        String::from_utf8(bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The value of a JSON file of the proof folder.
    pub(crate) fn json(&self, path: &str) -> Value {
        let text = self.text(Path::new("proof").join(path));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}\n{text}"))
    }

    /// `summary.json`.
    pub(crate) fn summary(&self) -> Value {
        self.json("summary.json")
    }

    /// One suite of `summary.json`.
    pub(crate) fn record(&self, name: &str) -> Record {
        let summary = self.summary();
        let suites = summary["suites"].as_array().unwrap();
        let found = suites.iter().find(|suite| suite["name"] == name);
        Record(found.unwrap_or_else(|| panic!("no `{name}` in {summary:#}")).clone())
    }

    /// `result.json` of a trial.
    pub(crate) fn result(&self, name: &str) -> Record {
        Record(self.json(&format!("results/{name}/result.json")))
    }

    /// Every line of the log.
    pub(crate) fn journal(&self) -> Vec<Value> {
        self.text("runner.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Paths of all that is in a folder of the project, below it, sorted.
    pub(crate) fn tree(&self, folder: &str) -> Vec<String> {
        let mut found = Vec::new();
        let root = self.path(folder);
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let entry = entry.unwrap();
                found.push(entry.path().strip_prefix(&root).unwrap().to_string_lossy().into_owned());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    /// The process that has written its number into a file of the project.
    pub(crate) fn pid(&self, path: &str) -> i32 {
        self.text(path).trim().parse().unwrap()
    }

    /// Waits for a file that a block makes.
    pub(crate) fn wait_for(&self, path: &str) {
        until(&format!("`{path}` to be written"), || fs::metadata(self.path(path)).is_ok_and(|meta| meta.len() > 0));
    }
}

/// Where cargo and rustup have their files: a project has a home of its own.
pub(crate) fn with_cargo(project: Project) -> Project {
    let home = std::env::home_dir().unwrap();
    let place = |name: &str, folder: &str| {
        let named = std::env::vars_os().find(|(other, _)| other == name).map(|(_, value)| value);
        named.unwrap_or_else(|| home.join(folder).into_os_string())
    };
    let (cargo, rustup) = (place("CARGO_HOME", ".cargo"), place("RUSTUP_HOME", ".rustup"));
    project.variable("CARGO_HOME", cargo).variable("RUSTUP_HOME", rustup)
}

fn give_away(path: &Path, id: u32) {
    for entry in walkdir::WalkDir::new(path) {
        let entry = entry.unwrap();
        if !entry.file_type().is_symlink() {
            chown(entry.path(), Some(id), Some(id)).unwrap();
        }
    }
}

/// A command of a test: the product's own go through its engine.
#[expect(clippy::disallowed_methods, reason = "what is tested cannot be what starts the test")]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// One record of a trial.
#[derive(Debug, Clone)]
pub(crate) struct Record(pub(crate) Value);

impl Record {
    pub(crate) fn status(&self) -> &str {
        self.0["status"].as_str().unwrap()
    }

    /// Every finding, a line each.
    pub(crate) fn findings(&self) -> String {
        let findings = self.0["findings"].as_array().unwrap();
        findings.iter().map(|finding| format!("{}\n", finding.as_str().unwrap())).collect()
    }

    pub(crate) fn rc(&self) -> Option<i64> {
        self.0["rc"].as_i64()
    }

    pub(crate) fn texts(&self, key: &str) -> Vec<&str> {
        self.0[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
    }

    #[track_caller]
    pub(crate) fn assert_pass(&self) -> &Self {
        assert_eq!(self.status(), "pass", "{:#}", self.0);
        self
    }

    #[track_caller]
    pub(crate) fn assert_fail(&self, part: &str) -> &Self {
        assert_eq!(self.status(), "fail", "{:#}", self.0);
        assert!(self.findings().contains(part), "`{part}` is not in {:#}", self.0);
        self
    }
}

/// A harness that runs.
pub(crate) struct Running {
    child: Child,
    streams: TempDir,
}

impl Running {
    /// Sends it a signal: to it alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Sends a signal to all of its group, as a test runner does.
    pub(crate) fn signal_group(&self, signal: Signal) {
        killpg(self.pid(), signal).unwrap();
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// What it has said on standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stream("stdout")
    }

    /// What it has said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stream("stderr")
    }

    fn stream(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.streams.path().join(name)).unwrap()).into_owned()
    }

    /// Tells whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let status = self.child.wait_timeout(DEADLINE).unwrap();
        let Some(status) = status else {
            killpg(self.pid(), Signal::SIGKILL).unwrap();
            self.child.wait().unwrap();
            panic!("the harness hung; it said:\n{}{}", self.stream("stdout"), self.stream("stderr"));
        };
        Ended { status, stdout: self.stream("stdout"), stderr: self.stream("stderr") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A claim has failed while it ran.
        if matches!(self.child.try_wait(), Ok(None)) {
            killpg(self.pid(), Signal::SIGKILL).ok();
            self.child.wait().ok();
        }
    }
}

/// How a harness ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn code(&self, expected: i32) -> &Self {
        assert_eq!(self.status.code(), Some(expected), "signal {:?}\n{self}", self.status.signal());
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, part: &str) -> &Self {
        assert!(self.all().contains(part), "`{part}` was not said:\n{self}");
        self
    }

    #[track_caller]
    pub(crate) fn stderr_says(&self, part: &str) -> &Self {
        assert!(self.stderr.contains(part), "`{part}` was not said on standard error:\n{self}");
        self
    }

    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Names and endings, as libtest prints them: `test NAME ... ok`.
    pub(crate) fn trials(&self) -> Vec<(String, String)> {
        let trials = self.stdout.lines().filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
        trials.map(|(name, ending)| (name.trim().to_owned(), ending.to_owned())).collect()
    }

    /// Names of the trials that were run.
    pub(crate) fn names(&self) -> Vec<String> {
        self.trials().into_iter().map(|(name, _)| name).collect()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Waits for a fact; that it never comes is a failure.
#[track_caller]
pub(crate) fn until(fact: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < DEADLINE / 4, "waited in vain for {fact}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tells whether a process runs; a zombie does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(") ").next().unwrap().starts_with(['Z', 'X']),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        // It went while it was read.
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => false,
        Err(error) => panic!("/proc/{pid}/stat: {error}"),
    }
}

/// Bash: starts a daemon outside of the block's session and group, whose number is in the file.
pub(crate) fn daemon(pid_file: &str) -> String {
    format!(
        "setsid bash -c 'echo $$ >{pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000' </dev/null >/dev/null 2>&1 &\n\
         until [[ -s {pid_file} ]]; do sleep 0.01; done"
    )
}

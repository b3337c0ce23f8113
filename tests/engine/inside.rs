//! From inside: what a claim has at hand in its own process.

#![expect(clippy::disallowed_methods, reason = "the trial passes names in the environment")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proving_ground::internals::engine::{Cancel, EngineError, ScriptRunner, UnsandboxedScriptRunner};
use proving_ground::internals::script::{
    Changes, Completion, Echo, EndedBy, Environment, Exit, Limits, Script, SignalReach, Stream,
};

/// Variables for this binary, executed again.
pub(crate) const CLAIM: &str = "ENGINE_TEST_CLAIM";
pub(crate) const DIR: &str = "ENGINE_TEST_DIR";
pub(crate) const HELPER: &str = "ENGINE_TEST_HELPER";
/// Names the marker, for scripts only.
pub(crate) const RUN: &str = "ENGINE_TEST_RUN";

/// What a loaded machine may add to a limit.
const SLACK: Duration = Duration::from_secs(8);
const FACT_DEADLINE: Duration = Duration::from_secs(60);

/// Where a claim is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Here,
    /// In a PID namespace that is thrown away.
    OwnProcesses,
    /// As `OwnProcesses`, by root only, who may mount there.
    RootsOwnMounts,
}

#[derive(Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) check: &'static (dyn Fn(&Lab) + Sync),
}

/// Makes a claim of a function; its name is the function's.
pub(crate) fn claim<F: Fn(&Lab) + Sync + 'static>(place: Place, check: F) -> Claim {
    let path = std::any::type_name::<F>();
    Claim { name: path.rsplit("::").next().unwrap_or(path), place, check: Box::leak(Box::new(check)) }
}

/// A folder, a marker, a runner.
pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    pub(crate) marker: PathBuf,
    pub(crate) runner: UnsandboxedScriptRunner,
}

impl Lab {
    /// The folder and the claim that the trial passed, if this is a claim's process.
    pub(crate) fn of_this_process() -> Option<(Self, String)> {
        let (dir, claim) = (std::env::var_os(DIR)?, std::env::var(CLAIM).ok()?);
        Some((Self::in_dir(PathBuf::from(dir)), claim))
    }

    pub(crate) fn in_dir(dir: PathBuf) -> Self {
        Self { marker: dir.join("run"), dir, runner: UnsandboxedScriptRunner::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A script with a minute, and 10 s each of grace and drain.
    pub(crate) fn program(&self, program: impl Into<PathBuf>, args: &[&str]) -> Script {
        let mut environment = Environment::default();
        environment.set("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        environment.set(RUN, self.marker.as_os_str());
        environment.set(DIR, self.dir.as_os_str());
        Script {
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            work_dir: self.dir.clone(),
            changes: Changes::Kept,
            cwd: self.dir.clone(),
            environment,
            limits: Limits {
                wall: Duration::from_secs(60),
                grace: Duration::from_secs(10),
                drain: Duration::from_secs(10),
                kept_bytes_max: 64 << 10,
                log_bytes_max: 1 << 20,
                pids_max: None,
            },
            logs: None,
            signals: SignalReach::Machine,
            echo: Echo::Off,
            marker: Some(self.marker.clone()),
        }
    }

    pub(crate) fn sh(&self, text: &str) -> Script {
        self.program("/bin/sh", &["-c", text])
    }

    /// A script that is one of our own helpers.
    pub(crate) fn helper(&self, name: &str) -> Script {
        let mut script = self.program(std::env::current_exe().unwrap(), &[]);
        script.environment.set(HELPER, name);
        script
    }

    pub(crate) fn try_run(&self, script: &Script, cancel: &Cancel) -> Result<Completion, EngineError> {
        let started = Instant::now();
        let result = self.runner.run(script, cancel);
        let took = started.elapsed();
        let limits = script.limits;
        assert!(took < limits.wall + limits.grace + limits.drain + SLACK, "it returned after {took:?}");
        result
    }

    /// Runs a script, and sees that it kept to its limits and left nothing alive.
    pub(crate) fn run(&self, script: &Script) -> Completion {
        let completion = self.try_run(script, &Cancel::new().unwrap()).unwrap();
        assert_eq!(alive_with(&self.marker), Vec::<String>::new(), "alive after {completion:?}");
        completion
    }

    /// Runs a script that ends by itself, with nothing special.
    pub(crate) fn run_well(&self, script: &Script) -> String {
        let completion = self.run(script);
        let text = text(&completion.stdout);
        assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself), "{completion:?}");
        assert_eq!(completion.leaked, []);
        text
    }

    /// The runner can be used as if nothing had happened.
    pub(crate) fn assert_goes_on(&self) {
        for _ in 0..3 {
            assert_eq!(self.run_well(&self.sh("echo still here")), "still here\n");
        }
    }
}

/// Limits for a script that is to be ended: a second until SIGTERM, then one until SIGKILL.
pub(crate) fn hurried(mut script: Script) -> Script {
    script.limits.wall = Duration::from_secs(1);
    script.limits.grace = Duration::from_secs(1);
    script
}

/// All that was kept of a stream from which nothing was dropped.
pub(crate) fn text(stream: &Stream) -> String {
    assert_eq!(stream.dropped_bytes(), 0);
    String::from_utf8([stream.head.as_slice(), stream.tail.as_slice()].concat()).unwrap()
}

/// Waits for a fact.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + FACT_DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {FACT_DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Processes whose environment holds `marker`, zombies left out.
pub(crate) fn alive_with(marker: &Path) -> Vec<String> {
    let needle = marker.as_os_str().as_bytes();
    let mut alive = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        if environment.windows(needle.len()).any(|window| window == needle) {
            let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
            if !stat.is_empty() && !stat.contains(") Z ") && !stat.contains(") X ") {
                alive.push(stat.split(' ').take(4).collect::<Vec<_>>().join(" "));
            }
        }
    }
    alive
}

/// Names in /proc/self/fd.
pub(crate) fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Children of this process, zombies too.
pub(crate) fn children() -> Vec<String> {
    let mut children = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().map(str::to_owned));
    }
    children
}

/// Folders of cgroups that the engine in this process has made.
pub(crate) fn cgroups_of_this_process() -> Vec<PathBuf> {
    let own = format!(".{}.", std::process::id());
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut ours = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with("proving-ground.") && name.contains(&own) {
                    ours.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    ours.sort();
    ours
}

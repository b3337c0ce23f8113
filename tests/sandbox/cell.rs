//! A claim's own place: a runner behind walls or without, a base, work folders, and a look at what is left in the end.

#![expect(clippy::disallowed_methods, reason = "the test compiles, and starts itself again")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use proving_ground::internals::engine::{Cancel, EngineError, ScriptRunner, UnsandboxedScriptRunner};
use proving_ground::internals::sandbox::{SandboxLimits, SandboxedScriptRunner};
use proving_ground::internals::script::{Changes, Completion, EndedBy, Exit, Script, SignalReach};

use crate::inside::{Claim, Lab, Place, alive_with, cgroups_of_this_process, text};

/// What a loaded machine may add to a limit.
const SLACK: Duration = Duration::from_secs(8);
const PROBE: &str = "probe";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Unsandboxed,
    Sandboxed,
}

/// Makes claims of a function: one for each mode. Their names are the mode's, the module's and the function's.
pub(crate) fn claims_of<F: Fn(&Cell) + Copy + Sync + 'static>(modes: &[Mode], place: Place, check: F) -> Vec<Claim> {
    let path = std::any::type_name::<F>();
    claims_named(path.strip_prefix("sandbox::").unwrap_or(path), modes, place, check)
}

pub(crate) fn claims_named<F: Fn(&Cell) + Copy + Sync + 'static>(
    name: &str,
    modes: &[Mode],
    place: Place,
    check: F,
) -> Vec<Claim> {
    let claim = |mode: &Mode| {
        let mode = *mode;
        let word = if mode == Mode::Sandboxed { "sandboxed" } else { "unsandboxed" };
        let hold = move |lab: &Lab| {
            let before = Left::now(lab);
            let cell = Cell::new(lab, mode, SandboxLimits::default());
            check(&cell);
            drop(cell);
            assert_eq!(Left::now(lab), before, "what is there afterwards, and what was there before");
        };
        Claim { name: format!("{word}::{name}").leak(), place, check: Box::leak(Box::new(hold)) }
    };
    modes.iter().map(claim).collect()
}

/// A sandboxed claim.
pub(crate) fn sandboxed<F: Fn(&Cell) + Copy + Sync + 'static>(check: F) -> Vec<Claim> {
    claims_of(&[Mode::Sandboxed], Place::Here, check)
}

/// A claim in both modes.
pub(crate) fn both<F: Fn(&Cell) + Copy + Sync + 'static>(check: F) -> Vec<Claim> {
    claims_of(&[Mode::Unsandboxed, Mode::Sandboxed], Place::Here, check)
}

/// What a runner could leave in this process and on this machine.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    mounts: Vec<String>,
    cgroups: Vec<PathBuf>,
    children: Vec<String>,
    descriptors: usize,
}

impl Left {
    fn now(lab: &Lab) -> Self {
        // Others mount as well.
        let words = [lab.dir.to_str().unwrap(), "upperdir=/run/upper"];
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let is_ours = |line: &&str| words.iter().any(|word| line.contains(word));
        Self {
            mounts: mounts.lines().filter(is_ours).map(str::to_owned).collect(),
            cgroups: cgroups_of_this_process(),
            children: crate::inside::children(),
            descriptors: crate::inside::open_files(),
        }
    }
}

pub(crate) struct Cell<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) mode: Mode,
    pub(crate) runner: Box<dyn ScriptRunner>,
    /// Where work folders lie.
    pub(crate) base: PathBuf,
    pub(crate) work_dir: PathBuf,
}

impl<'a> Cell<'a> {
    pub(crate) fn new(lab: &'a Lab, mode: Mode, limits: SandboxLimits) -> Self {
        Self::in_base(lab, mode, limits, lab.path("base"))
    }

    pub(crate) fn in_base(lab: &'a Lab, mode: Mode, limits: SandboxLimits, base: PathBuf) -> Self {
        fs::create_dir_all(&base).unwrap();
        let runner: Box<dyn ScriptRunner> = match mode {
            Mode::Unsandboxed => Box::new(UnsandboxedScriptRunner::new()),
            Mode::Sandboxed => Box::new(SandboxedScriptRunner::new(&base, &[], limits).unwrap()),
        };
        let work_dir = base.join("work");
        let cell = Self { lab, mode, runner, base, work_dir };
        cell.furnish(&cell.work_dir);
        cell
    }

    /// The same claim with other limits: another runner, another base.
    pub(crate) fn limited(&self, limits: SandboxLimits) -> Cell<'a> {
        Cell::in_base(self.lab, self.mode, limits, self.lab.path("limited"))
    }

    /// Makes a work folder.
    pub(crate) fn furnish(&self, folder: &Path) {
        fs::create_dir(folder).unwrap();
        self.give(folder);
    }

    /// Gives a file or folder to whom scripts are.
    pub(crate) fn give(&self, path: &Path) {
        if let Some((uid, gid)) = self.runner.owner_of_work() {
            lchown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    /// Writes a file into the work folder, as a set-up has it.
    pub(crate) fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.work_dir.join(name);
        fs::write(&path, content).unwrap();
        self.give(&path);
        path
    }

    pub(crate) fn program(&self, program: &str, args: &[&str]) -> Script {
        self.program_in(&self.work_dir, program, args)
    }

    pub(crate) fn program_in(&self, work_dir: &Path, program: &str, args: &[&str]) -> Script {
        let mut script = self.lab.program(program, args);
        script.work_dir = work_dir.to_path_buf();
        script.cwd = work_dir.to_path_buf();
        script.changes = Changes::Dropped;
        script.signals = SignalReach::OwnProcesses;
        script.environment = Default::default();
        for (name, value) in [("PATH", OsString::from("/usr/sbin:/usr/bin:/sbin:/bin")), ("HOME", work_dir.into())] {
            script.environment.set(name, value);
        }
        script.environment.set(crate::inside::RUN, self.lab.marker.as_os_str());
        script
    }

    pub(crate) fn sh(&self, text: &str) -> Script {
        self.program("/bin/sh", &["-c", text])
    }

    pub(crate) fn python(&self, text: &str) -> Script {
        let python = "/usr/bin/python3";
        assert!(Path::new(python).exists(), "`{python}` is missing; install python3");
        self.program(python, &["-c", text])
    }

    /// Runs a script whose work folder takes as long to keep as it is odd.
    pub(crate) fn run_and_keep(&self, script: &Script) -> Result<Completion, EngineError> {
        self.runner.run(script, &Cancel::new().unwrap())
    }

    pub(crate) fn try_run(&self, script: &Script) -> Result<Completion, EngineError> {
        let started = Instant::now();
        let result = self.run_and_keep(script);
        let took = started.elapsed();
        let limits = script.limits;
        assert!(took < limits.wall + limits.grace + limits.drain + SLACK, "it returned after {took:?}");
        assert!(!result.as_ref().is_ok_and(|completion| completion.wall > took), "{result:?} within {took:?}");
        result
    }

    /// Runs a script, and sees that it kept to its limits and left nothing alive.
    pub(crate) fn run(&self, script: &Script) -> Completion {
        let completion = self.try_run(script).unwrap();
        assert_eq!(alive_with(&self.lab.marker), Vec::<String>::new(), "alive after {completion:?}");
        completion
    }

    /// Runs a script that ends by itself and well. Returns what it printed.
    pub(crate) fn run_well(&self, script: &Script) -> String {
        let completion = self.run(script);
        let both = format!("{}{}", text(&completion.stdout), text(&completion.stderr));
        assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself), "{both}");
        assert_eq!(completion.leaked, []);
        text(&completion.stdout)
    }

    /// Runs a shell text that ends by itself and well.
    pub(crate) fn says(&self, text: &str) -> String {
        self.run_well(&self.sh(text)).trim().to_owned()
    }

    /// The runner can be used as if nothing had happened.
    pub(crate) fn assert_goes_on(&self) {
        for _ in 0..3 {
            assert_eq!(self.says("echo still here; ls -A /tmp /dev/shm >ls && [ -d . ] && echo $?"), "still here\n0");
        }
    }

    /// Lets a script try what is named (`probe.c`). Returns the answers, a line each.
    pub(crate) fn probe(&self, attempts: &[&str]) -> Vec<String> {
        let to = self.work_dir.join(PROBE);
        if !to.exists() {
            let compiled = std::env::current_exe().unwrap().with_file_name(PROBE);
            assert!(
                compiled.exists(),
                "the probe was not compiled; install gcc and the C library's headers (libc6-dev)"
            );
            fs::copy(compiled, &to).unwrap();
            self.give(&to);
        }
        let script = self.program(to.to_str().unwrap(), attempts);
        self.run_well(&script).lines().map(str::to_owned).collect()
    }

    /// Sees that each attempt has its answer.
    pub(crate) fn assert_answers(&self, expected: &[(&str, &str)]) {
        let attempts: Vec<&str> = expected.iter().map(|(attempt, _)| *attempt).collect();
        let expected: Vec<String> = (expected.iter())
            .map(|(attempt, answer)| format!("{} {answer}", attempt.split('=').next().unwrap_or(attempt)))
            .collect();
        assert_eq!(self.probe(&attempts), expected);
    }

    /// A word that stands in no file of this machine but those of this claim.
    pub(crate) fn token(&self) -> String {
        let name = self.lab.dir.file_name().unwrap();
        format!("secret-{}", String::from_utf8_lossy(name.as_bytes()).replace('.', "-"))
    }
}

/// Compiles the probe into the folder of the test's program, where claims look for it.
pub(crate) fn compile_probe(home: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/probe.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-Wall", "-O1", "-o"]).arg(home.join(PROBE)).arg(source);
    // If it is not there, the claims that need it say so.
    if let Ok(status) = gcc.status() {
        assert!(status.success(), "gcc could not compile the probe: {status}");
    }
}

/// Limits for a script that is to be ended: a second until SIGTERM, then one until SIGKILL.
pub(crate) fn hurried(script: Script) -> Script {
    crate::inside::hurried(script)
}

//! The `deps` stage: what is required and missing is installed, with the distribution's package manager.

use std::time::{Duration, Instant};

use crate::flow::session::Session;
use crate::flow::stages::StageFailure;
use crate::model::script::{Completion, EndedBy, Exit, Limits, LogFiles, Script, SignalReach, Stream};
use crate::model::verdict::Fault;
use crate::os::journal::{Event, Level};
use crate::os::packages::{Call, PackageManager, PackageNames, environment};
use crate::rules::summary::{StageRecord, Status, millis, rc};

const DEPS: &str = "deps";
/// A package manager that takes longer is hung, or waits for somebody.
const CALL_LIMIT: Duration = Duration::from_secs(3600);
/// What dpkg-query says of everything that is installed must fit.
const KEPT_BYTES_MAX: usize = 512 << 10;

/// What the stage has found and done.
enum Outcome {
    /// `deps.packages` is empty.
    NothingRequired,
    /// All of these were there.
    NothingMissing(PackageNames),
    /// These were missing, and are there now.
    Installed(PackageNames),
}

/// Installs those of `deps.packages` that are missing, from what the package manager's databases know. Nothing is refreshed.
///
/// # Errors
/// If there is no package manager, if it fails, and if a package is missing afterwards. The summary has the stage either way.
pub(crate) fn install(session: &Session, say: &dyn Fn(&str)) -> Result<(), StageFailure> {
    session.log(&Event::new(DEPS, "stage_start"))?;
    let started = Instant::now();
    let result = provide(session, say);
    record(session, &result, started.elapsed())?;
    result.map(drop)
}

fn provide(session: &Session, say: &dyn Fn(&str)) -> Result<Outcome, StageFailure> {
    let packages = &session.project.packages;
    if packages.is_empty() {
        return Ok(Outcome::NothingRequired);
    }
    let manager = PackageManager::find(&session.settings.search_path).ok_or_else(|| {
        Fault::from_text(
            "no package manager on PATH for `deps.packages` of runner.yaml: neither `pacman` nor `dpkg-query` with `apt-get`; \
             install the packages yourself and remove the key, or run on a distribution that has one",
        )
    })?;
    let required = manager.names(packages).map_err(|error| Fault::new(&error))?;
    let mut calls = Calls { session, manager: &manager, so_far: 0 };
    let missing = calls.missing(&required)?;
    if missing.is_empty() {
        return Ok(Outcome::NothingMissing(required));
    }
    say(&format!("installing {missing}"));
    calls.install(&missing)?;
    Ok(Outcome::Installed(missing))
}

/// The calls of one stage, which are told apart in its logs.
struct Calls<'a> {
    session: &'a Session,
    manager: &'a PackageManager,
    so_far: usize,
}

impl Calls<'_> {
    /// Returns those of `names` that are missing.
    ///
    /// # Errors
    /// If the package manager does not tell.
    fn missing(&mut self, names: &PackageNames) -> Result<PackageNames, StageFailure> {
        let mut missing = names.clone();
        for query in self.manager.queries() {
            if missing.is_empty() {
                break;
            }
            let call = self.manager.ask(*query, &missing);
            let done = self.run(&call, "query")?;
            missing = query.missing(&missing, &done).ok_or_else(|| failure(&call, &done, ending(&done)))?;
        }
        Ok(missing)
    }

    /// Installs `missing`, and looks whether they are there.
    ///
    /// # Errors
    /// If the package manager says that it failed, with whatever code, or if one of them is still missing.
    fn install(&mut self, missing: &PackageNames) -> Result<(), StageFailure> {
        let call = self.manager.install(missing);
        let done = self.run(&call, "install")?;
        if (done.ended_by, done.exit) != (EndedBy::Itself, Exit::Code(0)) {
            return Err(failure(&call, &done, ending(&done)));
        }
        if let Some(complaint) = self.manager.complaint(&done) {
            return Err(failure(&call, &done, format!("ended with code 0, but {complaint}")));
        }
        let left = self.missing(missing)?;
        if !left.is_empty() {
            let text =
                format!("ended with code 0, but there is no package {left} now; a group must be named by its packages");
            return Err(failure(&call, &done, text));
        }
        Ok(())
    }

    fn run(&mut self, call: &Call, purpose: &str) -> Result<Completion, Fault> {
        self.so_far += 1;
        let Self { session, so_far, .. } = self;
        let log = |stream: &str| session.proof.dir().join(format!("stages/{DEPS}.{so_far}-{purpose}.{stream}.log"));
        let script = Script {
            program: call.program.clone(),
            args: call.os_args(),
            cwd: session.settings.project_dir.clone(),
            environment: environment(&session.settings.block_environment),
            limits: Limits { kept_bytes_max: KEPT_BYTES_MAX, ..session.limits(CALL_LIMIT) },
            logs: Some(LogFiles { stdout: log("stdout"), stderr: log("stderr") }),
            signals: SignalReach::Machine,
            echo: session.echo,
            marker: None,
        };
        let done = session.run(&script, session.interrupt.work())?;
        session.log(&Event {
            cmd: Some(&call.to_string()),
            rc: Some(rc(done.exit)),
            duration_ms: Some(millis(done.wall)),
            ..Event::new(DEPS, "cmd_exec")
        })?;
        Ok(done)
    }
}

fn ending(done: &Completion) -> String {
    match done.ended_by {
        EndedBy::Itself => format!("ended with {}", done.exit),
        EndedBy::Timeout => format!("was killed after {CALL_LIMIT:?}"),
        EndedBy::Cancel => "was interrupted".to_owned(),
        EndedBy::SupervisorKilled => "killed the process that watched over it".to_owned(),
    }
}

/// pacman says on standard output what scriptlets said, so both streams are carried.
fn failure(call: &Call, done: &Completion, ending: String) -> StageFailure {
    let text = |stream: &Stream| String::from_utf8_lossy(&stream.kept_bytes()).into_owned();
    StageFailure::Command {
        command: call.to_string(),
        rc: rc(done.exit).max(1),
        ending,
        output: text(&done.stdout) + &text(&done.stderr),
    }
}

fn record(session: &Session, result: &Result<Outcome, StageFailure>, elapsed: Duration) -> Result<(), Fault> {
    let (status, level, code, message) = match result {
        Ok(outcome) => (Status::Pass, Level::Info, None, outcome.to_string()),
        Err(failure) => {
            let code = match failure {
                StageFailure::Command { rc, .. } => Some(*rc),
                StageFailure::Fault(_) => None,
            };
            (Status::Fail, Level::Error, code, failure.to_string())
        }
    };
    let duration_ms = millis(elapsed);
    session.log(&Event {
        level,
        rc: code.or(result.is_ok().then_some(0)),
        duration_ms: Some(duration_ms),
        message: Some(message.clone()),
        ..Event::new(DEPS, "stage_end")
    })?;
    let stage = StageRecord { name: DEPS.to_owned(), status, duration_ms, rc: code, message: Some(message) };
    session.proof.keep_stage(stage).map_err(|error| Fault::new(&error))
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NothingRequired => f.write_str("no packages are required"),
            Self::NothingMissing(required) => write!(f, "nothing is missing of {required}"),
            Self::Installed(missing) => write!(f, "installed {missing}"),
        }
    }
}

//! What a run does before and after its trials: a stage has a beginning and an end in the log, and a record in the summary.

pub(crate) mod build;
pub(crate) mod deps;
pub(crate) mod preflight;
pub(crate) mod suites;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::flow::session::Session;
use crate::model::script::{
    Changes, Completion, EndedBy, Environment, Exit, Limits, LogFiles, Script, SignalReach, Stream,
};
use crate::model::verdict::Fault;
use crate::os::host::Settings;
use crate::os::journal::{Event, Level};
use crate::rules::summary::{StageRecord, Status, millis, rc};

/// A command of a stage that takes longer is hung.
const COMMAND_LIMIT: Duration = Duration::from_secs(3600);
/// Of each stream: cargo's JSON lines, of which the last ones name the binary; what a user needs to see of a failure.
const COMMAND_KEPT_BYTES_MAX: usize = 512 << 10;

/// The stages, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// What machine this is, and whether the product can be built on it.
    Preflight,
    /// Packages that are missing.
    Deps,
    /// The product.
    Build,
    /// The trials.
    RunSuites,
    /// The bundle.
    Collect,
}

impl Stage {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Preflight, Self::Deps, Self::Build, Self::RunSuites, Self::Collect];

    /// Returns the name in logs and summaries.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Deps => "deps",
            Self::Build => "build",
            Self::RunSuites => "run-suites",
            Self::Collect => "collect",
        }
    }
}

/// A command that ended otherwise than with 0. In `run.json` it tells the other processes of the run.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("`{command}` {ending}")]
pub(crate) struct CommandFailure {
    /// The command line.
    pub(crate) command: String,
    /// Its exit code; 128 + n for signal n.
    pub(crate) rc: i32,
    /// How it ended, in words.
    pub(crate) ending: String,
    /// What it said last.
    pub(crate) output: String,
}

/// Why a stage did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageFailure {
    /// A command of it failed.
    #[error("{0}")]
    Command(CommandFailure),
    /// We failed.
    #[error("{0}")]
    Fault(Fault),
}

impl From<Fault> for StageFailure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Does the `work` of a stage, between the lines of the log that say so, and puts its record into the summary. Beside its value the
/// work returns what is worth saying of it.
///
/// # Errors
/// If the work fails, or cannot be recorded.
pub(crate) fn staged<T>(
    session: &Session,
    stage: Stage,
    work: impl FnOnce() -> Result<(T, Option<String>), StageFailure>,
) -> Result<T, StageFailure> {
    session.log(&Event::new(stage.as_str(), "stage_start"))?;
    let started = Instant::now();
    let result = work();
    let duration_ms = millis(started.elapsed());
    let (status, code, message) = match &result {
        Ok((_, message)) => (Status::Pass, None, message.clone()),
        Err(StageFailure::Command(failure)) => (Status::Fail, Some(failure.rc), Some(failure.to_string())),
        Err(failure @ StageFailure::Fault(_)) => (Status::Fail, None, Some(failure.to_string())),
    };
    let logged = session.log(&Event {
        level: if status == Status::Pass { Level::Info } else { Level::Error },
        rc: code.or(result.is_ok().then_some(0)),
        duration_ms: Some(duration_ms),
        message: message.clone(),
        ..Event::new(stage.as_str(), "stage_end")
    });
    let record = StageRecord { name: stage.as_str().to_owned(), status, duration_ms, rc: code, message };
    let kept = session.proof.keep_stage(record).map_err(|error| Fault::new(&error));
    // Why the stage failed is worth more than that it could not be recorded.
    let (value, _) = result?;
    logged.and(kept)?;
    Ok(value)
}

/// A command that a stage runs.
pub(super) struct Command {
    /// Its logs are `stages/LOG.stdout.log` and `.stderr.log`.
    pub(super) log: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) environment: Environment,
}

impl Command {
    /// Returns the command line, for people.
    pub(super) fn line(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str());
        let words = std::iter::once(name).chain(self.args.iter().map(OsString::as_os_str));
        words.map(|word| word.to_string_lossy().escape_debug().to_string()).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// If it could not be started, or not be ended.
    pub(super) fn complete(&self, session: &Session, stage: Stage) -> Result<Completion, Fault> {
        let log = |from| session.proof.dir().join("stages").join(format!("{}.{from}.log", self.log));
        let script = Script {
            program: self.program.clone(),
            args: self.args.clone(),
            cwd: session.settings.project_dir.clone(),
            work_dir: session.settings.project_dir.clone(),
            changes: Changes::Kept,
            environment: self.environment.clone(),
            limits: Limits { kept_bytes_max: COMMAND_KEPT_BYTES_MAX, ..session.limits(COMMAND_LIMIT) },
            logs: Some(LogFiles { stdout: log("stdout"), stderr: log("stderr") }),
            signals: SignalReach::Machine,
            echo: session.echo,
            marker: None,
        };
        let done = session.run(&script, session.interrupt.work())?;
        let line = self.line();
        session.log(&Event {
            cmd: Some(&line),
            rc: Some(rc(done.exit)),
            duration_ms: Some(millis(done.wall)),
            ..Event::new(stage.as_str(), "cmd_exec")
        })?;
        Ok(done)
    }

    /// Runs it.
    ///
    /// # Errors
    /// If it ends otherwise than with 0.
    pub(super) fn succeed(&self, session: &Session, stage: Stage) -> Result<Completion, StageFailure> {
        let done = self.complete(session, stage)?;
        if has_succeeded(&done) { Ok(done) } else { Err(self.failure(&done, ending(&done), text(&done.stderr))) }
    }

    /// Returns the failure of a command that ended as it should not have. `output` is what the user needs to see of it.
    pub(super) fn failure(&self, done: &Completion, ending: String, output: String) -> StageFailure {
        StageFailure::Command(CommandFailure { command: self.line(), rc: rc(done.exit).max(1), ending, output })
    }
}

pub(super) fn has_succeeded(done: &Completion) -> bool {
    (done.ended_by, done.exit) == (EndedBy::Itself, Exit::Code(0))
}

/// Returns in words how a command has ended.
pub(super) fn ending(done: &Completion) -> String {
    match done.ended_by {
        EndedBy::Itself => format!("ended with {}", done.exit),
        EndedBy::Timeout => format!("was killed after {COMMAND_LIMIT:?}"),
        EndedBy::OutOfMemory => format!("was killed at its limit of memory ({})", done.exit),
        EndedBy::Cancel => "was interrupted".to_owned(),
        EndedBy::SupervisorKilled => "killed the process that watched over it".to_owned(),
    }
}

/// Returns the environment in which rustup's proxies choose the configured toolchain. One that is missing is an error, not
/// installed: that would change the user's machine.
fn toolchain(settings: &Settings) -> Environment {
    let mut environment = settings.tool_environment.clone();
    environment.set("RUSTUP_TOOLCHAIN", &settings.toolchain);
    environment.set("RUSTUP_AUTO_INSTALL", "0");
    environment
}

/// Returns what was kept of a stream.
pub(super) fn text(stream: &Stream) -> String {
    String::from_utf8_lossy(&stream.kept_bytes()).into_owned()
}

//! Where the scripts of one set-up run: a fresh copy of it for each, made once by make if the set-up says so.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::model::script::{
    Changes, Completion, Echo, EndedBy, Environment, Exit, Limits, LogFiles, Script, SignalReach,
};
use crate::model::setup::{MakeStep, ScriptEntry, TestSetup};
use crate::model::verdict::Fault;
use crate::os::engine::ScriptRunner;
use crate::os::workdir::{Copies, Place, Tree, Use, WorkdirError};

const SHELL: &str = "/bin/sh";
/// The program of a make step.
pub(crate) const MAKE: &str = "make";
/// The language of scripts, if nobody names one.
pub(crate) const LANG: &str = "C.UTF-8";

/// Runs a script to its end.
pub(crate) type Run<'a> = &'a mut dyn FnMut(&Script) -> Result<Completion, Fault>;

/// What the scripts of a set-up, and its make step, have in common.
pub(crate) struct Terms {
    pub(crate) search_path: OsString,
    pub(crate) lang: OsString,
    pub(crate) seed: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) echo: Echo,
    /// What every process of the run has in its environment.
    pub(crate) marker: PathBuf,
}

/// What a set-up's scripts work in.
pub(crate) struct Workplace {
    copies: Copies,
}

/// Why a script did not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRun {
    #[error("it is not in the set-up")]
    Missing,
    #[error("{0}")]
    Fault(Fault),
}

impl From<WorkdirError> for NotRun {
    fn from(error: WorkdirError) -> Self {
        Self::Fault(Fault::new(&error))
    }
}

impl From<Fault> for NotRun {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// How a make step ended.
pub(crate) enum Made {
    /// Scripts can run in what it left.
    Well(Completion),
    /// It failed.
    Badly(Completion),
}

impl Made {
    /// What the engine saw of it.
    pub(crate) fn completion(&self) -> &Completion {
        match self {
            Self::Well(done) | Self::Badly(done) => done,
        }
    }
}

impl Workplace {
    /// Copies the set-up into `folder`, which must be ours alone, for `uses` scripts of `runner`. If it has a make step, run that next.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn new(
        folder: PathBuf,
        (setup, tree): (&TestSetup, &Tree),
        uses: usize,
        runner: &dyn ScriptRunner,
    ) -> Result<Self, WorkdirError> {
        let usage = if runner.drops_changes() { Use::Reading { owner: runner.owner_of_work() } } else { Use::Changing };
        let copies = Copies::new(folder, uses, usage);
        match &setup.make {
            None => copies.fill(tree)?,
            Some(_) => copies.fill_original(tree)?,
        }
        Ok(Self { copies })
    }

    /// Runs make in the copy that all others are made of. Seal that next.
    ///
    /// # Errors
    /// If it could not be run.
    pub(crate) fn make(
        &self,
        (program, step): (PathBuf, &MakeStep),
        terms: &Terms,
        logs: Option<LogFiles>,
        run: Run<'_>,
    ) -> Result<Made, Fault> {
        let args = step.target.iter().map(Into::into).collect();
        let done = run(&terms.script((program, args), &self.copies.original(), Changes::Kept, logs))?;
        if (done.ended_by, done.exit) != (EndedBy::Itself, Exit::Code(0)) || done.unkept.is_some() {
            return Ok(Made::Badly(done));
        }
        Ok(Made::Well(done))
    }

    /// Puts back what make has changed of these files of the set-up in `tree`; returns them.
    ///
    /// # Errors
    /// If one cannot be read or written.
    pub(crate) fn put_back<'a>(&self, tree: &Tree, files: &[&'a Path]) -> Result<Vec<&'a Path>, Fault> {
        self.copies.put_back(tree, files).map_err(|error| Fault::new(&error))
    }

    /// Takes note of what make has left, if that is something: scripts run in copies of it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn seal(&self, made: Made) -> Result<Made, Fault> {
        let Made::Well(done) = made else { return Ok(made) };
        match self.copies.seal() {
            Ok(()) => Ok(Made::Well(done)),
            Err(error @ WorkdirError::Special(_)) => {
                Ok(Made::Badly(Completion { unkept: Some(error.to_string()), ..done }))
            }
            Err(
                error @ (WorkdirError::Io(_)
                | WorkdirError::Full { .. }
                | WorkdirError::Tampered(_)
                | WorkdirError::Unsealed),
            ) => Err(Fault::new(&error)),
        }
    }

    /// Runs one script, in a copy of its own.
    ///
    /// # Errors
    /// If it is not there, or could not be run.
    pub(crate) fn run(
        &self,
        entry: &ScriptEntry,
        terms: &Terms,
        logs: Option<LogFiles>,
        run: Run<'_>,
    ) -> Result<Completion, NotRun> {
        let copy = self.copies.take()?;
        if !copy.place().folder().join(&entry.script).is_file() {
            return Err(NotRun::Missing);
        }
        let done =
            run(&terms.script((SHELL.into(), vec![argument(&entry.script)]), copy.place(), Changes::Dropped, logs))?;
        self.copies.give_back(copy);
        Ok(done)
    }
}

/// There is no make, and a set-up needs it.
pub(crate) fn no_make(setup: &str) -> Fault {
    Fault::from_text(format!("no `{MAKE}` on PATH, and the set-up `{setup}` needs it: install make"))
}

/// A name that starts with a dash would be read as an option.
fn argument(script: &str) -> OsString {
    if script.starts_with('-') { format!("./{script}").into() } else { script.into() }
}

impl Terms {
    fn script(
        &self,
        (program, args): (PathBuf, Vec<OsString>),
        place: &Place,
        changes: Changes,
        logs: Option<LogFiles>,
    ) -> Script {
        let cwd = place.folder();
        Script {
            program,
            args,
            environment: self.environment(&cwd, &place.tmp()),
            cwd,
            work_dir: place.root().to_path_buf(),
            changes,
            limits: self.limits,
            logs,
            signals: SignalReach::OwnProcesses,
            echo: self.echo,
            marker: Some(self.marker.clone()),
        }
    }

    /// Source: docs/protocol.md, "Script".
    fn environment(&self, home: &Path, tmp: &Path) -> Environment {
        let mut environment = Environment::default();
        environment.set("PATH", &self.search_path);
        environment.set("HOME", home);
        environment.set("LANG", &self.lang);
        environment.set("TMPDIR", tmp);
        if let Some(seed) = &self.seed {
            environment.set("CHICKADEE_ASSIGNMENT_SEED", seed);
        }
        environment
    }
}

//! One run: what its trials share, from the first look at the project to the last summary.

mod refusals;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::flow::looks::Looks;
use crate::flow::proof::{self, BuildOutcome, DepsFailure, EarlierSummary, Header, Proof, RunFile};
use crate::flow::reports;
use crate::flow::scratch::{CopiesIn, Scratch, describe, sweep};
use crate::flow::stages::Stage;
use crate::flow::trial::Judged;
use crate::flow::turn::{self, Turn};
use crate::model::script::{Completion, Echo, Limits, SandboxLimits, Script, SignalReach};
use crate::model::suite::{Host, OnRestoreFailure, Project, SuiteName};
use crate::model::verdict::Fault;
use crate::os::disk::{Known, Replaced, read_config};
use crate::os::engine::tee::ProductTap;
use crate::os::engine::{Cancel, ScriptRunner, UnsandboxedScriptRunner};
use crate::os::host::Settings;
use crate::os::interrupt::{Arrived, Interrupt};
use crate::os::journal::{Event, Identity, Journal, Level, seconds_text};
use crate::os::revision::revision;
use crate::os::sandbox::{SandboxError, SandboxedScriptRunner};
use crate::rules::github::{Failure, annotation};
use crate::rules::summary::{Earlier, RUN, SCHEMA, StageRecord, Status, Traces, millis};

pub(crate) use refusals::{SessionError, refuse_own, refuse_what_cannot_be_had};

/// The stage of the trials.
pub(crate) const RUN_SUITES: &str = Stage::RunSuites.as_str();

/// What a user is told who has sent a signal.
pub(crate) const INTERRUPTED: &str =
    "interrupted: what runs is ended, then its restore runs; a second signal ends that, too";

/// From SIGTERM to SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// For what is left in the pipes, and for the kernel to end what was killed.
pub(super) const DRAIN: Duration = Duration::from_secs(5);
/// Bytes of each stream that are kept for the report.
pub(super) const KEPT_BYTES_MAX: usize = 256 << 10;

/// Everything that the trials of one run share.
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) host: Host,
    pub(crate) project: Project,
    /// Call `run_while` instead, which takes note of it.
    pub(super) runner: Box<dyn ScriptRunner>,
    /// Runs scripts of set-ups, if in a sandbox.
    sandbox: Option<SandboxedScriptRunner>,
    pub(crate) looks: Looks,
    pub(crate) proof: Proof,
    pub(crate) interrupt: Interrupt,
    pub(crate) echo: Echo,
    pub(crate) shown: Shown,
    /// There is one trial, so that nothing waits for another.
    has_one_trial: bool,
    /// Ours alone; every process that a trial starts has it in its environment.
    pub(crate) scratch: Scratch,
    /// The bash that runs blocks.
    pub(crate) bash: PathBuf,
    /// What presence is judged by; empty without rules.
    pub(crate) applets: Vec<String>,
    journal: Journal,
    run: Mutex<RunFile>,
    run_json: Replaced,
    product: OnceLock<PathBuf>,
    /// What failed, once the trials have begun.
    failures: Mutex<Option<Vec<Failure>>>,
    _turn: Turn,
}

/// How much of what was found is going to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    pub(crate) selected: usize,
    pub(crate) not_selected: usize,
}

/// Whose output a report shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// That of trials that failed.
    OfFailed,
    /// That of each trial.
    OfEach,
}

/// Which run a process belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// To that of nextest, else to one of its own.
    Nextest,
    /// To one of its own, which later stages may join.
    NewStages,
    /// To that of the stages before it, as long as no trial of it has begun; else to one of its own.
    Stages,
    /// To that of the stages before it, whatever has run.
    Finished,
}

impl Join {
    fn joins(self, run: &RunFile, own_id: &str) -> bool {
        match self {
            Self::Nextest => run.run_id == own_id,
            Self::NewStages => false,
            // One that was killed is not gone on with: what it was about is half done.
            Self::Stages => run.in_stages && !run.has_run_suites && run.pid.is_none(),
            Self::Finished => true,
        }
    }
}

/// How a process takes part in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) selection: Selection,
    pub(crate) echo: Echo,
    pub(crate) shown: Shown,
    pub(crate) join: Join,
    /// How far the scripts' signals reach that run first.
    pub(crate) reach: SignalReach,
    /// Tells the user that a signal has arrived: it may take a while until all is as it was.
    pub(crate) interrupted: fn(),
}

impl Session {
    /// Starts a run, or joins the one that another process has started. `say` tells the user what takes time or was found.
    ///
    /// # Errors
    /// If the project is wrong, or this machine cannot give what it asks for. Nothing has been run then.
    pub(crate) fn open(
        settings: Settings,
        host: Host,
        project: Project,
        part: Part,
        say: &dyn Fn(&str),
    ) -> Result<Self, SessionError> {
        if part.join != Join::Finished {
            refuse_what_cannot_be_had(&settings, &host, &project)?;
        }
        let bash = settings.find_program("bash").ok_or(SessionError::NoBash)?;
        let applets = read_applets(&settings, &project)?;
        let dir = settings.proof_dir.clone();
        let mut turn = turn::take(&settings, project.isolation, say)?;
        let last = turn.folder.last.take();
        let new_id = run_id(&settings);
        let joined = last.as_ref().filter(|run| part.join.joins(run, &new_id));
        let own_id = joined.as_ref().map_or(new_id, |run| run.run_id.clone());
        let traces = sweep(&dir, last.as_ref());
        let found = traces.as_ref().map(describe).or_else(|| unreadable(&dir, last.as_ref()));
        if let Some(found) = &found {
            say(found);
        }
        if joined.is_none() {
            if let Some(older) = last.as_ref().filter(|_| part.join != Join::Nextest) {
                say(&format!("a new run; the evidence of run {} is removed", older.run_id));
            }
            proof::clear(&dir)?;
        }
        let earlier = EarlierSummary::read(&dir).filter(|summary| summary.run_id == own_id);
        if part.join == Join::Finished && earlier.is_none() {
            return Err(SessionError::NoSummary(dir));
        }
        let is_tried = joined.is_some_and(|run| run.has_sandbox);
        let (scratch, sandbox) = make_workplace(&settings.temp_dir, &project, is_tried)?;
        let run = RunFile {
            pid: Some(std::process::id()),
            scratch: scratch.path().to_path_buf(),
            has_sandbox: sandbox.is_some(),
            ..joined.cloned().unwrap_or_else(|| new_run(&own_id, part.join, turn.folder.owner, &settings))
        };
        let run_json = RunFile::file(&dir);
        run.rewrite(&run_json)?;
        let journal = Journal::open(identity(own_id, &host), &settings.jsonl, &dir.join("logs/runner.jsonl"))?;
        if let Some(found) = found {
            let event = if traces.is_some() { "traces_swept" } else { "traces_unknown" };
            journal.write(&Event { level: Level::Warn, message: Some(found), ..Event::new("preflight", event) })?;
        }
        let traces = traces.or_else(|| earlier.as_ref().and_then(|earlier| earlier.traces.clone()));
        let mut header = header(&host, &project, &run, selection(&settings, part), traces);
        if let Some(earlier) = earlier.as_ref().filter(|_| part.join == Join::Finished) {
            // What was run is told as it was, not as this machine and its environment are now.
            header = earlier.header(header);
        }
        let interrupt = Interrupt::new()?;
        interrupt.listen(move |arrived| tell_first(arrived, part.interrupted))?;
        Ok(Self {
            proof: Proof::new(dir, header, earlier, run.summary.clone())?,
            runner: Box::new(runner(&settings, part.reach, sandbox.as_ref())),
            sandbox,
            looks: Looks::default(),
            run: Mutex::new(run),
            run_json,
            product: OnceLock::new(),
            failures: Mutex::default(),
            _turn: turn,
            settings,
            host,
            project,
            interrupt,
            echo: part.echo,
            shown: part.shown,
            has_one_trial: part.selection.selected == 1,
            scratch,
            bash,
            applets,
            journal,
        })
    }

    /// Writes an event; a line that is lost is a fault of the run.
    ///
    /// # Errors
    /// If the log does not take it.
    pub(crate) fn log(&self, event: &Event<'_>) -> Result<(), Fault> {
        self.journal.write(event).map_err(|error| Fault::new(&error))
    }

    /// Returns the bounds of a block or script that may run for `wall`.
    pub(crate) fn limits(&self, wall: Duration) -> Limits {
        Limits {
            wall,
            grace: GRACE,
            drain: DRAIN,
            kept_bytes_max: KEPT_BYTES_MAX,
            log_bytes_max: self.project.output_limit_bytes,
            pids_max: None,
        }
    }

    /// Runs a script.
    ///
    /// # Errors
    /// If it could not be started, or not be ended.
    pub(crate) fn run(&self, script: &Script, cancel: &Cancel) -> Result<Completion, Fault> {
        self.run_while(script, cancel, &mut || {})
    }

    /// Has the engine's helpers end, if there is nothing left to run.
    pub(crate) fn dismiss_after_one_trial(&self) {
        if self.has_one_trial {
            self.runner.dismiss();
            self.sandbox.iter().for_each(ScriptRunner::dismiss);
        }
    }

    /// Returns what runs the scripts of set-ups.
    pub(crate) fn script_runner(&self) -> &dyn ScriptRunner {
        match &self.sandbox {
            Some(sandbox) => sandbox,
            None => &*self.runner,
        }
    }

    /// Runs a script of a set-up, in the sandbox if there is one; calls `meanwhile` as soon as it runs.
    ///
    /// # Errors
    /// If it could not be started, or not be ended.
    pub(crate) fn run_script(
        &self,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Completion, Fault> {
        self.run_by(self.script_runner(), script, cancel, meanwhile)
    }

    /// Runs a script; calls `meanwhile` as soon as it runs.
    ///
    /// # Errors
    /// If it could not be started, or not be ended.
    pub(crate) fn run_while(
        &self,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Completion, Fault> {
        self.run_by(&*self.runner, script, cancel, meanwhile)
    }

    fn run_by(
        &self,
        runner: &dyn ScriptRunner,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Completion, Fault> {
        self.looks.note_run();
        runner.run_while(script, cancel, meanwhile).map_err(|error| Fault::new(&error))
    }

    /// Returns how a trial of this run has ended before: a retry of nextest's, or a round of a stress run.
    pub(crate) fn earlier(&self, name: &str) -> Vec<Earlier> {
        if self.settings.nextest.is_some() { self.proof.earlier(name) } else { Vec::new() }
    }

    /// Notes that a trial has failed, for whoever is told of all that did. `source` is where somebody would look.
    pub(crate) fn note_failure(&self, judged: &Judged, source: &Path) {
        let workspace = self.settings.github.as_ref().and_then(|github| github.workspace.as_deref());
        let below = workspace.and_then(|workspace| source.strip_prefix(workspace).ok());
        let failure = Failure {
            trial: judged.record.name.clone(),
            reason: judged.record.reason.clone().unwrap_or_default(),
            file: below.unwrap_or(source).to_string_lossy().into_owned(),
            line: judged.line,
        };
        self.failures().get_or_insert_default().push(failure);
    }

    fn failures(&self) -> MutexGuard<'_, Option<Vec<Failure>>> {
        // A push is whole or not at all.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the summary of the step, if this is one of GitHub Actions, and returns what it is to show beside the code, a line for
    /// each trial that failed. `say` tells what keeps it from the first: the evidence is whole without it.
    pub(crate) fn tell_github(&self, say: &dyn Fn(&str)) -> Vec<String> {
        let Some(github) = &self.settings.github else { return Vec::new() };
        let failures = self.failures();
        let failures = failures.as_deref().unwrap_or_default();
        // A process of nextest knows its own trial.
        let standing = self.settings.nextest.is_none().then(|| (self.proof.counts(), self.proof.unjudged()));
        if let Err(fault) = reports::write_step_summary(github, standing, failures) {
            say(&fault.to_string());
        }
        failures.iter().map(annotation).collect()
    }

    /// Tells whether a report shows the output of a trial that ended so.
    pub(crate) fn shows(&self, status: Status) -> bool {
        self.shown == Shown::OfEach || status != Status::Pass
    }

    /// Returns the suite whose restore failed, if the ones after it are not to run.
    pub(crate) fn dirtied_by(&self) -> Option<String> {
        self.run_file().dirtied_by.clone()
    }

    /// Notes that a suite could not be restored, for the ones after it.
    ///
    /// # Errors
    /// If other processes of the run cannot be told.
    pub(crate) fn mark_dirty(&self, suite: &SuiteName) -> Result<(), Fault> {
        match self.project.on_restore_failure {
            OnRestoreFailure::Continue => Ok(()),
            OnRestoreFailure::Stop => self.note(|run| {
                run.dirtied_by.get_or_insert_with(|| suite.to_string());
            }),
        }
    }

    /// Returns what the build stage of this run came to, in whatever process it ran.
    pub(crate) fn build_outcome(&self) -> Option<BuildOutcome> {
        self.run_file().build.clone()
    }

    /// Tells whether the required packages are there, because a process of this run has seen to it.
    pub(crate) fn has_packages(&self) -> bool {
        self.run_file().has_packages
    }

    /// Notes that the required packages are there.
    ///
    /// # Errors
    /// If other processes of the run cannot be told.
    pub(crate) fn note_packages(&self) -> Result<(), Fault> {
        self.note(|run| run.has_packages = true)
    }

    /// Returns why the required packages cannot be had, if a process of this run has found that out.
    pub(crate) fn deps_failure(&self) -> Option<DepsFailure> {
        self.run_file().deps_failure.clone()
    }

    /// Notes why the required packages cannot be had.
    ///
    /// # Errors
    /// If other processes of the run cannot be told.
    pub(crate) fn set_deps_failure(&self, failure: DepsFailure) -> Result<(), Fault> {
        self.note(|run| run.deps_failure = Some(failure))
    }

    /// Notes what the build stage came to, for the processes of the same run.
    ///
    /// # Errors
    /// If they cannot be told.
    pub(crate) fn set_build_outcome(&self, outcome: BuildOutcome) -> Result<(), Fault> {
        self.note(|run| run.build = Some(outcome))
    }

    fn run_file(&self) -> MutexGuard<'_, RunFile> {
        // Fields are set whole, so a panic elsewhere leaves a value that is true.
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut RunFile)) -> Result<(), Fault> {
        let mut run = self.run_file();
        change(&mut run);
        run.rewrite(&self.run_json).map_err(|error| Fault::new(&error))
    }

    /// Sets the binary that suites call.
    pub(crate) fn set_product(&self, binary: PathBuf) {
        self.product.get_or_init(|| binary);
    }

    /// Returns the folder of the binary that suites call, if it is known.
    pub(crate) fn product_dir(&self) -> Option<PathBuf> {
        self.product.get()?.parent().map(Path::to_path_buf)
    }

    /// Returns a tap for one suite, if a product is named.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub(crate) fn tap(&self, logs: &Path) -> Result<Option<ProductTap>, Fault> {
        let Some(name) = &self.project.product.name else { return Ok(None) };
        let product = self.product.get().cloned().or_else(|| self.settings.find_program(name));
        let made = self.scratch.folder();
        let dir = made.map_err(|error| Fault::from_text(format!("could not make a scratch folder: {error}")))?;
        let tap = ProductTap::install(dir.clone(), name, product, self.project.output_limit_bytes);
        let tap = tap.and_then(|tap| tap.direct_to(logs).map(|()| tap));
        tap.map(Some).map_err(|error| {
            Fault::from_text(format!("could not make the product's log in `{}`: {error}", dir.display()))
        })
    }

    /// Makes a new folder for copies of `bytes`: in memory if the user named no folder for temporary files and they fit there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn folder_for_copies(&self, bytes: u64) -> Result<PathBuf, Fault> {
        let place = CopiesIn::of(self.sandbox.is_some(), self.settings.temp_dir_is_named);
        self.scratch.folder_for_copies(bytes, place)
    }

    /// Says that the stage of the trials begins.
    ///
    /// # Errors
    /// If the log does not take it.
    pub(crate) fn begin_suites(&self) -> Result<(), Fault> {
        self.failures().get_or_insert_default();
        if !self.run_file().has_run_suites {
            self.note(|run| run.has_run_suites = true)?;
        }
        self.log(&Event::new(RUN_SUITES, "stage_start"))
    }

    /// Says how the stage of the trials has ended. `fault` is why it was not carried through, if so.
    ///
    /// # Errors
    /// If the log does not take it.
    pub(crate) fn end_suites(&self, elapsed: Duration, fault: Option<String>) -> Result<(), Fault> {
        let counts = self.proof.counts();
        let is_fine = counts.fail == 0 && self.interrupt.signal().is_none() && fault.is_none();
        let (status, level) = if is_fine { (Status::Pass, Level::Info) } else { (Status::Fail, Level::Error) };
        let message = fault.or_else(|| Some(format!("{} passed, {} failed", counts.pass, counts.fail)));
        let duration_ms = millis(elapsed);
        self.log(&Event {
            level,
            duration_ms: Some(duration_ms),
            message: message.clone(),
            ..Event::new(RUN_SUITES, "stage_end")
        })?;
        // Each trial is on record. What follows, a stage or the end, writes this too.
        self.proof.note_stage(StageRecord { name: RUN_SUITES.to_owned(), status, duration_ms, rc: None, message });
        Ok(())
    }

    /// Writes the last summary and the reports, and removes the scratch folder.
    ///
    /// # Errors
    /// If the evidence cannot be completed.
    pub(crate) fn close(&mut self) -> Result<(), Fault> {
        let interrupted = self.interrupt.signal().is_some();
        let finished = self.proof.finish(seconds_text(Timestamp::now()), interrupted);
        let reported = self.report();
        let left = self.proof.leave();
        let noted = self.note(|run| (run.pid, run.summary) = (None, left));
        if self.settings.nextest.is_none() {
            // No other process goes on with them.
            self.proof.tidy();
            self.run_json.finish();
        }
        // The engine's helpers end before what they worked in goes.
        self.runner = Box::new(UnsandboxedScriptRunner::new());
        self.sandbox = None;
        let removed = self.scratch.remove();
        finished.map_err(|error| Fault::new(&error)).and(reported).and(noted)?;
        removed
    }
}

impl Session {
    /// Under nextest each process has one trial of many, and to write of all of them each time would cost more than to run them: that
    /// report is nextest's, or `collect`'s.
    fn report(&self) -> Result<(), Fault> {
        if self.settings.nextest.is_none() { reports::write_junit(self.proof.dir()) } else { Ok(()) }
    }
}

fn tell_first(arrived: Arrived, told: fn()) {
    match arrived {
        Arrived::First => told(),
        Arrived::Again => {}
    }
}

/// # Errors
/// If one of them cannot be had; nothing is left then.
fn make_workplace(
    temp_dir: &Path,
    project: &Project,
    is_tried: bool,
) -> Result<(Scratch, Option<SandboxedScriptRunner>), SessionError> {
    let made = Scratch::make(temp_dir);
    let scratch = made.map_err(|source| SessionError::Scratch { path: temp_dir.to_owned(), source })?;
    match project
        .sandbox
        .then(|| sandbox_in(&scratch, &project.sandbox_shows, project.sandbox_limits, is_tried))
        .transpose()
    {
        Ok(sandbox) => Ok((scratch, sandbox)),
        Err(error) => {
            // That it stays would not be the worse of the two.
            scratch.remove().ok();
            Err(error.into())
        }
    }
}

/// Builds the sandbox for scripts that work in the scratch folder and may read `shows`, and tries it if nobody has in this run.
///
/// # Errors
/// If it cannot be had here.
pub(crate) fn sandbox_in(
    scratch: &Scratch,
    shows: &[PathBuf],
    limits: SandboxLimits,
    is_tried: bool,
) -> Result<SandboxedScriptRunner, SandboxError> {
    let sandbox = SandboxedScriptRunner::new(&scratch.sandboxed(), shows, limits)?;
    if !is_tried {
        sandbox.probe()?;
    }
    Ok(sandbox)
}

fn runner(settings: &Settings, reach: SignalReach, sandbox: Option<&SandboxedScriptRunner>) -> UnsandboxedScriptRunner {
    let runner = UnsandboxedScriptRunner::new();
    if settings.nextest.is_some() {
        // A process for one trial: what can be done at the same time is.
        let first: &dyn ScriptRunner = match (reach, sandbox) {
            (SignalReach::OwnProcesses, Some(sandbox)) => sandbox,
            (SignalReach::Machine, _) | (_, None) => &runner,
        };
        first.warm_up(reach);
    }
    runner
}

/// Tells of a file that nothing can be learnt from.
fn unreadable(dir: &Path, last: Option<&RunFile>) -> Option<String> {
    let file = dir.join(RUN);
    (last.is_none() && file.exists()).then(|| {
        format!("`{}` cannot be read; if that run was killed, what it has left is not removed", file.display())
    })
}

fn read_applets(settings: &Settings, project: &Project) -> Result<Vec<String>, SessionError> {
    let Some(rules) = &project.presence else { return Ok(Vec::new()) };
    let path = settings.project_dir.join(&rules.applets);
    let text = read_config(&path).map_err(|source| SessionError::Read { path: path.clone(), source })?;
    Ok(crate::rules::presence::parse_applets(&path, &text)?)
}

/// Under nextest all processes of a run have one identity. In containers the same process ids come again and again, and runs of many
/// machines may be merged.
fn run_id(settings: &Settings) -> String {
    settings.nextest.as_ref().map_or_else(
        || format!("{}-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ"), std::process::id()),
        |nextest| nextest.run_id.clone(),
    )
}

/// Of a run of nextest a process knows its own trial only; what nextest leaves out, nobody is told.
fn selection(settings: &Settings, part: Part) -> Selection {
    let is_nextests = part.join == Join::Nextest && settings.nextest.is_some();
    if is_nextests { Selection { not_selected: 0, ..part.selection } } else { part.selection }
}

fn identity(run_id: String, host: &Host) -> Identity {
    Identity { run_id, container_id: host.container_id.clone(), distro: host.distro.clone() }
}

fn header(host: &Host, project: &Project, run: &RunFile, selection: Selection, traces: Option<Traces>) -> Header {
    Header {
        run_id: run.run_id.clone(),
        distro: host.distro.clone(),
        container_id: host.container_id.clone(),
        started_at: run.started_at.clone(),
        isolation: project.isolation.as_str().to_owned(),
        sandbox: project.sandbox,
        selected: selection.selected,
        not_selected: selection.not_selected,
        product: project.product.name.clone(),
        revision: run.revision.clone(),
        traces,
        shards: None,
    }
}

fn new_run(run_id: &str, join: Join, owner: Option<(i32, u64)>, settings: &Settings) -> RunFile {
    RunFile {
        schema: SCHEMA,
        run_id: run_id.to_owned(),
        started_at: seconds_text(Timestamp::now()),
        pid: None,
        owner,
        scratch: PathBuf::new(),
        dirtied_by: None,
        build: None,
        summary: Known::default(),
        in_stages: join != Join::Nextest,
        // A run that no stage can join has nothing else to do.
        has_run_suites: join == Join::Nextest,
        has_sandbox: false,
        has_packages: false,
        revision: revision(&settings.suites_dir),
        deps_failure: None,
    }
}

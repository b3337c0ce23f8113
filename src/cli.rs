//! `container-runner`: the stages of a run behind a command line, each alone or all together.

mod args;
mod grade;
mod show;

use std::error::Error;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::flow::collect::collect;
use crate::flow::doctor::{State, examine};
use crate::flow::merge::{MergeError, merge};
use crate::flow::plan::{Plan, PlanError, Wanted, read_project};
use crate::flow::proof::RunFile;
use crate::flow::session::{INTERRUPTED, Join, Part, Selection, Session, SessionError, Shown};
use crate::flow::stages::suites::Progress;
use crate::flow::stages::{self, CommandFailure, Stage, StageFailure, staged};
use crate::flow::trial::Judged;
use crate::flow::verify::{VerifyError, verify};
use crate::model::script::{Echo, SignalReach};
use crate::model::verdict::Fault;
use crate::os::engine::{Leaf, tee};
use crate::os::host::{self, Overrides, Settings, SettingsError};
use crate::os::probe::Probe;
use crate::rules::report::{Failure, counted, escaped, failure_text, quoted};
use crate::rules::schema;
use args::{Cli, Order, SchemaOf};
use grade::GradeError;
use show::{Show, Volume};

/// A suite failed.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was run.
const CONFIGURATION: u8 = 2;
/// We failed.
const FAULT: u8 = 3;

/// Runs `container-runner`: the whole of its `main`.
///
/// Returns 0 if everything passed, 1 if something was found that has not, 2 if the command line or the configuration is wrong, 3 if the
/// runner itself failed, 129, 130 or 143 after SIGHUP, SIGINT or SIGTERM, and the code of the command by which a stage failed.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(code) = tee::run_if_called_as_product() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are such errors too. Nobody may be listening.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(CONFIGURATION));
        }
    };
    let _leaf = Leaf::enter();
    let volume = match (cli.quiet, cli.verbose) {
        (true, _) => Volume::Quiet,
        (false, true) => Volume::Verbose,
        (false, false) => Volume::Usual,
    };
    let show = Show::new(volume);
    let ended = carry_out(cli, volume, &show);
    show.finish();
    ended.unwrap_or_else(|error| {
        show.error(&chain(&error));
        if let CliError::Stage(StageFailure::Command(failure)) = &error {
            // The command's own words. Nobody may be listening.
            writeln!(io::stderr(), "{}", quoted(&escaped(&failure.output))).ok();
        }
        ExitCode::from(error.code())
    })
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("{0}")]
    Stage(StageFailure),
    #[error("{0}")]
    Fault(Fault),
    #[error("`{flag}` concerns suites and has no meaning for `{order}`; leave it out")]
    NeedlessPlace { order: &'static str, flag: &'static str },
    #[error("nothing has been run in `{path}`: there is no `run.json` that can be read; run the stages first", path = .0.display())]
    NothingRun(PathBuf),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error(transparent)]
    Grade(#[from] GradeError),
    #[error("could not write to standard output")]
    Output(#[source] io::Error),
}

impl From<StageFailure> for CliError {
    fn from(failure: StageFailure) -> Self {
        Self::Stage(failure)
    }
}

impl From<Fault> for CliError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::Plan(_) | Self::NeedlessPlace { .. } | Self::NothingRun(_) => CONFIGURATION,
            Self::Verify(VerifyError::Read { .. }) => CONFIGURATION,
            // It is what is looked at that is at fault.
            Self::Verify(VerifyError::Bundle(_)) => FAILED,
            Self::Session(error) if error.is_configuration() => CONFIGURATION,
            Self::Merge(error) if error.is_refusal() => CONFIGURATION,
            Self::Grade(error) if !error.is_ours() => CONFIGURATION,
            Self::Stage(StageFailure::Command(failure)) => u8::try_from(failure.rc).unwrap_or(FAULT),
            Self::Stage(StageFailure::Fault(_))
            | Self::Session(_)
            | Self::Merge(_)
            | Self::Grade(_)
            | Self::Fault(_)
            | Self::Output(_) => FAULT,
        }
    }
}

fn chain(error: &dyn Error) -> String {
    Fault::new(error).to_string()
}

fn carry_out(cli: Cli, volume: Volume, show: &Show) -> Result<ExitCode, CliError> {
    if let Some((order, flag)) = cli.order.needless_place() {
        return Err(CliError::NeedlessPlace { order, flag });
    }
    let overrides = Overrides { flags: cli.places.into_variables(), ..Overrides::default() };
    let run = |stages: &[Stage], join| Runner { overrides: &overrides, volume, show }.run(stages, join);
    match cli.order {
        Order::All => run(&Stage::ALL, Join::NewStages),
        Order::Preflight => run(&[Stage::Preflight], Join::NewStages),
        Order::Deps => run(&[Stage::Deps], Join::Stages),
        Order::Build => run(&[Stage::Build], Join::Stages),
        Order::RunSuites => run(&[Stage::RunSuites], Join::Stages),
        Order::Collect { merge } if merge.is_empty() => run(&[Stage::Collect], Join::Finished),
        Order::Collect { merge } => merge_runs(&merge, &overrides, show),
        Order::Verify { path } => verify_again(path, &overrides, show),
        Order::Grade(order) => grade::grade(&order, &Settings::read(&overrides, &host::host())?, volume, show),
        Order::Doctor => doctor(&overrides, show),
        Order::Probe { what } => Ok(probe(&what)),
        Order::Completions { shell, .. } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "container-runner", &mut script);
            print(&script)
        }
        Order::Schema { file, .. } => print(schema(file).as_bytes()),
        Order::Man { .. } => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(CliError::Output)?;
            print(&page)
        }
    }
}

/// Tells everything that is wrong with a proof folder or a bundle.
fn verify_again(path: Option<PathBuf>, overrides: &Overrides, show: &Show) -> Result<ExitCode, CliError> {
    let path = match path {
        Some(path) => path,
        None => Settings::read(overrides, &host::host())?.proof_dir,
    };
    let verified = verify(&path)?;
    verified.problems.iter().for_each(|problem| show.line(&problem.to_string()));
    let (files, trials) = (counted(verified.files, "file"), counted(verified.trials, "trial"));
    show.verdict(verified.problems.len(), &format!("{files}, {trials} in {}", path.display()));
    Ok(if verified.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Merges runs, and tells what keeps them from having passed together.
fn merge_runs(shards: &[PathBuf], overrides: &Overrides, show: &Show) -> Result<ExitCode, CliError> {
    let target = Settings::read(overrides, &host::host())?.proof_dir;
    let merged = merge(shards, &target, &|text| show.tell(text))?;
    merged.failures.iter().for_each(|failure| show.failure(failure));
    if merged.not_selected > 0 {
        show.tell(&format!("selected in none of these runs: {}", counted(merged.not_selected, "trial")));
    }
    let (trials, runs) = (counted(merged.trials, "trial"), counted(shards.len(), "run"));
    let (files, bundle) = (counted(merged.collected.files, "file"), merged.collected.bundle.display());
    show.tell(&format!("merged {trials} of {runs} into run {}: {files} in {bundle}", merged.run_id));
    show.counts(merged.counts);
    Ok(if merged.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Tells everything that is found, and by its code whether the configured run could start.
fn doctor(overrides: &Overrides, show: &Show) -> Result<ExitCode, CliError> {
    let host = host::host();
    let settings = Settings::read(overrides, &host)?;
    let program = std::env::current_exe().unwrap_or_default();
    let checks = examine(&settings, &host, &program);
    checks.iter().for_each(|check| show.check(check));
    let can_start = checks.iter().all(|check| check.state != State::Needed);
    Ok(if can_start { ExitCode::SUCCESS } else { ExitCode::from(CONFIGURATION) })
}

fn schema(file: SchemaOf) -> String {
    match file {
        SchemaOf::Task => schema::of_task(),
        SchemaOf::Runner => schema::of_runner(),
    }
}

fn probe(what: &str) -> ExitCode {
    let probe = Probe::ALL.into_iter().find(|probe| probe.as_str() == what);
    let refused = match probe.map(Probe::attempt) {
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(error)) => error.to_string(),
        None => format!("nothing is called `{what}`"),
    };
    // Whoever asked reads it.
    writeln!(io::stderr(), "{refused}").ok();
    ExitCode::from(FAILED)
}

/// One write: a reader that goes away early is no reason to panic.
fn print(text: &[u8]) -> Result<ExitCode, CliError> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

/// Runs stages of one run in this process.
struct Runner<'a> {
    overrides: &'a Overrides,
    volume: Volume,
    show: &'a Show,
}

impl Runner<'_> {
    fn run(&self, stages: &[Stage], join: Join) -> Result<ExitCode, CliError> {
        let (mut session, plan) = self.open(join)?;
        // After a signal no stage begins.
        let stages_left = stages.iter().take_while(|_| session.interrupt.signal().is_none());
        let ran = stages_left.copied().try_fold(true, |fine, stage| Ok(self.run_one(&session, &plan, stage)? && fine));
        let packs = ran.is_ok() && stages.contains(&Stage::Collect) && session.interrupt.signal().is_none();
        let closed = session.close();
        let packed = if packs && closed.is_ok() { self.pack(&mut session) } else { Ok(()) };
        self.conclude(session.interrupt.exit_code(), ran, closed, packed)
    }

    /// Every failure is told; the code is the signal's, else the first failure's, else that of the suites.
    fn conclude(
        &self,
        interrupted: Option<ExitCode>,
        ran: Result<bool, StageFailure>,
        closed: Result<(), Fault>,
        packed: Result<(), CliError>,
    ) -> Result<ExitCode, CliError> {
        let code = if matches!(ran, Ok(true)) { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
        let failures = [ran.err().map(CliError::Stage), closed.err().map(CliError::Fault), packed.err()];
        let mut failures = failures.into_iter().flatten();
        if let Some(code) = interrupted {
            self.show.error("interrupted");
            failures.for_each(|error| self.show.error(&chain(&error)));
            return Ok(code);
        }
        let first = failures.next();
        failures.for_each(|error| self.show.error(&chain(&error)));
        first.map_or(Ok(code), Err)
    }

    fn open(&self, join: Join) -> Result<(Session, Plan), CliError> {
        let host = host::host();
        let mut settings = Settings::read(self.overrides, &host)?;
        if join == Join::Finished {
            // It selects what is run, not what was.
            settings.filter = None;
        }
        if join == Join::Finished && RunFile::read(&settings.proof_dir).is_none() {
            return Err(CliError::NothingRun(settings.proof_dir));
        }
        let plan = Plan::read(&settings, &Wanted::default())?;
        let project = read_project(&settings)?;
        let selection = Selection { selected: plan.trials.len(), not_selected: plan.left_out };
        let echo = if self.volume == Volume::Verbose { Echo::Stderr } else { Echo::Off };
        let part = Part { selection, echo, shown: Shown::OfFailed, join, reach: SignalReach::Machine, interrupted };
        let session = Session::open(settings, host, project, part, &|text| self.show.tell(text))?;
        Ok((session, plan))
    }

    /// The bundle holds the last summary, which says that it was made: so it is made when that is written. Should it not be, the
    /// summary is mended.
    fn pack(&self, session: &mut Session) -> Result<(), CliError> {
        let goes_on = || session.interrupt.signal().is_none();
        match collect(session.proof.dir(), &goes_on) {
            Ok(collected) => {
                let (files, trials) = (counted(collected.files, "file"), counted(collected.trials, "trial"));
                let (run_id, bundle) = (session.proof.run_id(), collected.bundle.display());
                self.show.tell(&format!("packed {files} of {trials} of run {run_id} into {bundle}"));
                Ok(())
            }
            Err(error) => {
                let fault = Fault::new(&error);
                let failed = staged(session, Stage::Collect, || -> Result<((), _), _> { Err(fault.into()) });
                session.close()?;
                failed.map_err(CliError::Stage)
            }
        }
    }

    /// Returns whether nothing that it judged has failed.
    fn run_one(&self, session: &Session, plan: &Plan, stage: Stage) -> Result<bool, StageFailure> {
        self.show.stage(stage.as_str());
        let say = |text: &str| self.show.tell(text);
        match stage {
            Stage::Preflight => stages::preflight::run(session, &say).map(|()| true),
            Stage::Deps => stages::deps::run(session, &say).map(|()| true),
            Stage::Build => stages::build::run(session, &say).map(|()| true),
            Stage::RunSuites => self.run_suites(session, plan),
            Stage::Collect => staged(session, stage, || Ok(((), None))).map(|()| true),
        }
    }

    fn run_suites(&self, session: &Session, plan: &Plan) -> Result<bool, StageFailure> {
        let ready = refuse_after_failed_stage(session).and_then(|()| stages::build::find(session));
        if let Err(failure) = ready {
            return staged(session, Stage::RunSuites, || Err(failure));
        }
        let explain = |judged: &Judged| self.explain(session, judged);
        let counts = stages::suites::run(session, plan, &|progress| {
            // What was not run because of a signal needs no words of its own.
            let is_cut_off = matches!(&progress, Progress::Judged(judged) if judged.record.rc.is_none())
                && session.interrupt.signal().is_some();
            if !is_cut_off {
                self.show.trial(&progress, &explain);
            }
        })?;
        let annotations = session.tell_github(&|text| self.show.tell(text));
        annotations.iter().for_each(|annotation| self.show.annotation(annotation));
        self.show.counts(counts);
        Ok(counts.fail == 0)
    }

    fn explain(&self, session: &Session, judged: &Judged) -> String {
        let name = &judged.record.name;
        let mut reproduce = format!("TEST_FILTER={} container-runner run-suites", shell_word(name));
        for (variable, value) in &self.overrides.flags {
            let flag = args::flag_of(variable);
            reproduce.push_str(&format!(" {flag} {}", shell_word(&value.to_string_lossy())));
        }
        failure_text(&Failure {
            record: &judged.record,
            changes: &judged.changes,
            last_lines: &judged.last_lines,
            proof_dir: &session.proof.dir().to_string_lossy(),
            reproduce: &reproduce,
        })
    }
}

/// A stage that has failed ends its run, also when the next one is another process.
fn refuse_after_failed_stage(session: &Session) -> Result<(), StageFailure> {
    let Some(stage) = session.proof.failed_stage() else { return Ok(()) };
    let why = stage.message.unwrap_or_default();
    Err(StageFailure::Command(CommandFailure {
        command: format!("container-runner {}", stage.name),
        // A signal that ended that stage has not ended this one.
        rc: stage.rc.filter(|rc| *rc < 128).unwrap_or_else(|| FAULT.into()),
        ending: format!("has failed in this run ({why}); repeat it, or begin a new run with `preflight`"),
        output: String::new(),
    }))
}

fn interrupted() {
    // Beside whatever line of progress there is. Nobody may be listening.
    writeln!(io::stderr(), "\n{INTERRUPTED}").ok();
}

/// A word as a shell takes it.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=@%+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

//! The face that cargo test, nextest and IDEs see: each suite and each script is one libtest trial. The only file that names
//! `libtest_mimic`.

mod flags;
mod line;
mod report;

use std::collections::VecDeque;
use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, IsTerminal as _, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, FormatSetting, Trial};

use crate::flow::plan::{Keeping, Plan, PlanError, Planned, Wanted, read_project};
use crate::flow::reports;
use crate::flow::session::{INTERRUPTED, Join, Part, Selection, Session, SessionError, Shown};
use crate::flow::stages::{self, StageFailure};
use crate::flow::trial::Judged;
use crate::model::script::{Echo, SignalReach};
use crate::model::verdict::Fault;
use crate::os::engine::tee;
use crate::os::host::{self, Overrides, Settings, SettingsError};
use crate::rules::junit;
use crate::rules::report::{Failure, counted, escaped, failure_text, quoted};
use flags::{Color, FlagError, Flags, Format, Shuffle};
use line::Line;
use report::{Beginning, Ended, LogFile, Outcome, Report, ReportError, Style, json};

/// libtest's code for a failed trial and for a command line that it refuses.
const FAILED: u8 = 101;
/// The configuration is wrong; nothing was run.
const CONFIGURATION: u8 = 2;
/// We failed.
const FAULT: u8 = 3;

/// Runs the suites of this package: the whole of `tests/suites.rs`.
///
/// Returns 0 if every selected trial passed (also if a filter selects none), 101 if one failed or the command line is wrong, 2
/// if the configuration is wrong, 3 if the harness itself failed, 129, 130 or 143 after SIGHUP, SIGINT or SIGTERM, and the code
/// of the command that failed if a stage did.
#[must_use]
pub fn main() -> ExitCode {
    Harness::new().run()
}

/// A harness whose folders are fixed by its caller. Variables of the environment overrule them.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     proving_ground::Harness::new().suites_dir("system-tests").run()
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Harness {
    overrides: Overrides,
}

impl Harness {
    /// Returns a harness with the usual folders: those of the package whose tests run.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the project's folder, in which blocks run.
    #[must_use]
    pub fn project_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.overrides.project_dir = Some(dir.into());
        self
    }

    /// Sets the suites folder, relative to the project's; by default `suites`.
    #[must_use]
    pub fn suites_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.overrides.suites_dir = Some(dir.into());
        self
    }

    /// Sets the proof folder, relative to the project's; by default `.proof`.
    #[must_use]
    pub fn proof_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.overrides.proof_dir = Some(dir.into());
        self
    }

    /// Sets the product that suites call, for a project whose `runner.yaml` says neither `bin` nor `build: cargo`. It is for
    /// `env!("CARGO_BIN_EXE_name")`: cargo builds the binaries of a package before its tests.
    #[must_use]
    pub fn product(mut self, binary: impl Into<PathBuf>) -> Self {
        self.overrides.product = Some(binary.into());
        self
    }

    /// Does what the command line and the environment say, and returns how it ended (see [`main`]). Call it first in `main`,
    /// and return its value: it also serves calls that are not for the user.
    #[must_use]
    pub fn run(self) -> ExitCode {
        if let Some(code) = tee::run_if_called_as_product() {
            return code;
        }
        self.serve().unwrap_or_else(|error| {
            say(&format!("error: {}", chain(&error)));
            if let HarnessError::Stage(StageFailure::Command(failure)) = &error {
                // The command's own words. Nobody may be listening.
                writeln!(io::stderr(), "{}", quoted(&escaped(&failure.output))).ok();
            }
            error.exit_code()
        })
    }

    fn serve(self) -> Result<ExitCode, HarnessError> {
        let host = host::host();
        let settings = Settings::read(&self.overrides, &host)?;
        let args: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
        let flags = flags::parse(&args, &settings.libtest)?;
        if flags.help {
            return print(&flags::help("suites"));
        }
        let wanted = Wanted { filters: flags.filters.clone(), skip: flags.skip.clone(), exact: flags.exact };
        let asked = Asked { wanted: &wanted, flags: &flags, may_color: !settings.no_color };
        let plan = Plan::read(&settings, &wanted)?;
        if flags.list {
            return print(&listing(&plan, &asked));
        }
        let selected = plan.trials.iter().filter(|trial| asked.selects(trial)).count();
        if let (0, Some(_), true, Some(name)) = (selected, &settings.nextest, flags.exact, flags.filters.first()) {
            return Err(PlanError::NoSuchTrial(name.clone()).into());
        }
        // Before anything is run, or an older run's evidence is removed.
        let log = flags.logfile.as_deref().map(LogFile::create).transpose()?;
        if selected == 0 || flags.bench {
            return run_none(&plan, &asked, log);
        }
        let selection = Selection { selected, not_selected: plan.left_out + plan.trials.len() - selected };
        let echo = if flags.nocapture { Echo::Stderr } else { Echo::Off };
        let output = if flags.show_output { Shown::OfEach } else { Shown::OfFailed };
        let project = read_project(&settings)?;
        let reach = if plan.may_run_in_parallel() { SignalReach::OwnProcesses } else { SignalReach::Machine };
        let part = Part { selection, echo, shown: output, join: Join::Nextest, reach, interrupted };
        let session = Arc::new(Session::open(settings, host, project, part, &say)?);
        let built = stages::deps::once(&session, &say).and_then(|()| stages::build::once(&session, &say));
        let has_failed = built.map(|()| run_stage(&session, plan, &asked, log));
        for annotation in session.tell_github(&say) {
            // Nobody may be listening.
            writeln!(io::stderr(), "{annotation}").ok();
        }
        let interrupted = session.interrupt.exit_code();
        let closed = Arc::try_unwrap(session).map_or(Ok(()), |mut session| session.close());
        if let Some(code) = interrupted {
            say("interrupted");
            return Ok(code);
        }
        let has_failed = has_failed??;
        closed?;
        Ok(if has_failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
    }
}

/// Why no trial, or not every trial, could be run.
#[derive(Debug, thiserror::Error)]
enum HarnessError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Flags(#[from] FlagError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("{0}")]
    Stage(StageFailure),
    #[error("{0}")]
    Fault(Fault),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("could not write to standard output")]
    Output(#[source] io::Error),
}

impl From<StageFailure> for HarnessError {
    fn from(failure: StageFailure) -> Self {
        Self::Stage(failure)
    }
}

impl From<Fault> for HarnessError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl HarnessError {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Settings(_) | Self::Plan(_) => CONFIGURATION,
            Self::Session(error) if error.is_configuration() => CONFIGURATION,
            Self::Flags(_) | Self::Report(ReportError::Log(..)) => FAILED,
            Self::Stage(StageFailure::Command(failure)) => u8::try_from(failure.rc).unwrap_or(FAULT),
            Self::Stage(StageFailure::Fault(_))
            | Self::Session(_)
            | Self::Fault(_)
            | Self::Report(_)
            | Self::Output(_) => FAULT,
        })
    }
}

/// Tells the user something. Standard output belongs to libtest.
fn say(text: &str) {
    // Nobody may be listening.
    writeln!(io::stderr(), "proving-ground: {}", escaped(text)).ok();
}

fn interrupted() {
    say(INTERRUPTED);
}

fn chain(error: &dyn Error) -> String {
    Fault::new(error).to_string()
}

/// One write: a reader that goes away early is no reason to panic.
fn print(text: &str) -> Result<ExitCode, HarnessError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(HarnessError::Output(error)),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

/// What is asked for: which trials, and how.
struct Asked<'a> {
    wanted: &'a Wanted,
    flags: &'a Flags,
    /// Unless the environment says no.
    may_color: bool,
}

impl Asked<'_> {
    fn selects(&self, trial: &Planned) -> bool {
        // None is ignored.
        let is_asked_for = !self.flags.ignored || self.flags.include_ignored;
        is_asked_for && self.wanted.selects(trial.name())
    }

    fn has_color(&self) -> bool {
        match self.flags.color {
            Color::Auto => self.may_color && !self.flags.nocapture && io::stdout().is_terminal(),
            Color::Always => true,
            Color::Never => false,
        }
    }

    fn begin_report(&self, beginning: &Beginning, threads: usize, log: Option<LogFile>) -> Report {
        let style = Style {
            format: self.flags.format,
            show_output: self.flags.show_output,
            report_time: self.flags.report_time,
            is_serial: threads == 1,
            has_color: self.has_color(),
        };
        Report::begin(style, beginning, log)
    }
}

/// Names and nothing else: one line more makes nextest abort a whole run.
fn listing(plan: &Plan, asked: &Asked<'_>) -> String {
    let listed: Vec<_> = plan.trials.iter().filter(|trial| asked.selects(trial)).collect();
    match asked.flags.format {
        Format::Json => json::listing(listed.iter().map(|trial| (trial.name(), trial.source()))),
        Format::Pretty | Format::Terse | Format::Junit => {
            listed.iter().map(|trial| format!("{}: test\n", trial.name())).collect()
        }
    }
}

/// No trial is a benchmark, and nothing happens where none is selected.
fn run_none(plan: &Plan, asked: &Asked<'_>, log: Option<LogFile>) -> Result<ExitCode, HarnessError> {
    let ignored: Vec<_> = plan.trials.iter().filter(|trial| asked.selects(trial)).map(Planned::name).collect();
    let filtered_out = plan.left_out + plan.trials.len() - ignored.len();
    let beginning = Beginning { count: ignored.len(), filtered_out, shuffle_seed: None };
    let report = asked.begin_report(&beginning, 1, log);
    for name in ignored {
        report.started(name);
        report.ended(&Ended { name, outcome: Outcome::Ignored, output: "", time: Duration::ZERO });
    }
    if asked.flags.format == Format::Junit {
        report.document(&junit::document(&[], &[]).map_err(|error| Fault::new(&error))?);
    }
    report.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the trials, between the lines of the log that say so. Returns whether one failed.
fn run_stage(
    session: &Arc<Session>,
    plan: Plan,
    asked: &Asked<'_>,
    log: Option<LogFile>,
) -> Result<bool, HarnessError> {
    let started = Instant::now();
    session.begin_suites()?;
    let ran = run_trials(session, plan, asked, log);
    let ended = session.end_suites(started.elapsed(), ran.as_ref().err().map(|error| chain(error)));
    let has_failed = ran?;
    ended?;
    Ok(has_failed)
}

fn run_trials(
    session: &Arc<Session>,
    mut plan: Plan,
    asked: &Asked<'_>,
    log: Option<LogFile>,
) -> Result<bool, HarnessError> {
    let found = plan.left_out + plan.trials.len();
    plan.trials.retain(|trial| asked.selects(trial));
    let may_run_in_parallel = plan.may_run_in_parallel();
    let wanted = asked.flags.test_threads.unwrap_or(1).min(plan.trials.len());
    let threads = if may_run_in_parallel { wanted } else { 1 };
    let shuffle_seed = asked.flags.shuffle.filter(|_| may_run_in_parallel).map(seed);
    if let Some(seed) = shuffle_seed {
        plan.shuffle(seed);
    }
    let count = plan.trials.len();
    let beginning = Beginning { count, filtered_out: found - count, shuffle_seed };
    let report = asked.begin_report(&beginning, threads, log);
    let keeping = if threads == 1 { Keeping::Later } else { Keeping::AtOnce };
    let running = plan.announce(session, keeping);
    let mut next: VecDeque<_> = running.into_iter().skip(1).filter(|_| threads == 1).collect();
    let line = Arc::new(Line::new(Arc::clone(session), report, asked.flags.fail_fast));
    let trials = plan.trials.into_iter().map(|planned| {
        let (line, next) = (Arc::clone(&line), next.pop_front());
        Trial::test(planned.name().to_owned(), move || {
            line.run(planned, next);
            Ok(())
        })
    });
    // It says nothing: the report does.
    let arguments = Arguments {
        test_threads: Some(threads),
        format: Some(FormatSetting::Terse),
        logfile: Some("/dev/null".into()),
        ..Arguments::default()
    };
    let trials = trials.collect();
    // It panics if it cannot have its threads; the run is closed in order even then.
    let ran = catch_unwind(AssertUnwindSafe(|| libtest_mimic::run(&arguments, trials)));
    line.finish_waiting();
    if asked.flags.format == Format::Junit {
        line.report.document(&reports::junit(session.proof.dir())?);
    }
    line.report.finish()?;
    match ran.map(|conclusion| conclusion.num_failed) {
        Ok(0) => Ok(line.report.has_failed()),
        Ok(bugs) => {
            let trials = counted(usize::try_from(bugs).unwrap_or(usize::MAX), "trial");
            Err(Fault::from_text(format!("{trials} ended in a bug of proving-ground; please report it")).into())
        }
        Err(_) => {
            let text = format!("the trials could not be run with {threads} threads; choose fewer with --test-threads");
            Err(Fault::from_text(text).into())
        }
    }
}

fn seed(shuffle: Shuffle) -> u64 {
    match shuffle {
        Shuffle::Seed(seed) => seed,
        Shuffle::Random => RandomState::new().hash_one(()),
    }
}

fn explain(session: &Session, judged: &Judged) -> String {
    let name = &judged.record.name;
    failure_text(&Failure {
        record: &judged.record,
        changes: &judged.changes,
        last_lines: &judged.last_lines,
        proof_dir: &session.proof.dir().to_string_lossy(),
        reproduce: &format!("cargo test --test {} -- --exact {name}", target_name()),
    })
}

/// Cargo names a test binary `TARGET-HASH`.
fn target_name() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let stem = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match stem.rsplit_once('-') {
        Some((target, hash)) if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) => target.to_owned(),
        Some(_) | None => stem,
    }
}

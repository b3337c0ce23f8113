//! The face that cargo test, nextest and IDEs see: each suite and each script is one libtest trial. The only file that names
//! `libtest_mimic`.

mod flags;
mod junit;

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use libtest_mimic::{Arguments, ColorSetting, Conclusion, Failed, FormatSetting, Trial};

use crate::flow::plan::{Plan, PlanError, Planned, Wanted};
use crate::flow::session::{Join, Part, Selection, Session, SessionError};
use crate::flow::stages::{self, StageFailure};
use crate::flow::trial::Judged;
use crate::model::script::Echo;
use crate::model::verdict::Fault;
use crate::os::engine::tee;
use crate::os::host::{self, Overrides, Settings, SettingsError};
use crate::rules::report::{Failure, escaped, failure_text};
use crate::rules::summary::Status;
use flags::{Color, FlagError, Flags, Format};
use junit::Report;

/// libtest's code for a failed trial and for a command line that it refuses.
const FAILED: u8 = 101;
/// The configuration is wrong; nothing was run.
const CONFIGURATION: u8 = 2;
/// We failed.
const FAULT: u8 = 3;

/// Runs the suites of this package: the whole of `tests/suites.rs`.
///
/// Returns 0 if every selected trial passed (also if a filter selects none), 101 if one failed or the command line is wrong, 2
/// if the configuration is wrong, 3 if the harness itself failed, 130 or 143 after SIGINT or SIGTERM, and the code of the
/// command that failed if a stage did.
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
            if let HarnessError::Stage(StageFailure::Command { output, .. }) = &error {
                // The command's own words, as it said them.
                io::stderr().write_all(output.as_bytes()).ok();
            }
            error.exit_code()
        })
    }

    fn serve(self) -> Result<ExitCode, HarnessError> {
        let host = host::host();
        let settings = Settings::read(&self.overrides, &host)?;
        let args: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
        let flags = flags::parse(&args, settings.test_threads.as_deref())?;
        if flags.help {
            return print(&flags::help("suites"));
        }
        let wanted = wanted(&flags);
        if flags.list {
            return print(&listing(&Plan::names(&settings, &wanted)?, &flags));
        }
        let mut plan = Plan::read(&settings, &wanted)?;
        let selected = plan.trials.iter().filter(|trial| wanted.selects(trial.name())).count();
        let runs_any = selected > 0 && !flags.bench && (!flags.ignored || flags.include_ignored);
        if !runs_any {
            let trials = plan.trials.iter().map(|trial| Trial::test(trial.name(), || Ok(()))).collect();
            return Ok(conclude(&libtest_mimic::run(&arguments(&flags, &plan, &wanted), trials)));
        }
        let arguments = arguments(&flags, &plan, &wanted);
        let selection = Selection { selected, not_selected: plan.left_out + plan.trials.len() - selected };
        let echo = if flags.nocapture { Echo::Stderr } else { Echo::Off };
        let project = plan.take_project(&settings)?;
        let part = Part { selection, echo, join: Join::Nextest };
        let session = Arc::new(Session::open(settings, host, project, part, &say)?);
        let built = stages::deps::once(&session, &say).and_then(|()| stages::build::once(&session, &say));
        let conclusion = built.map(|()| {
            let asked = Asked { wanted: &wanted, flags: &flags, arguments: &arguments };
            run_stage(&session, plan, &asked)
        });
        let signal = session.interrupt.signal();
        let closed = Arc::try_unwrap(session).map_or(Ok(()), |mut session| session.close());
        if let Some(code) = signal.and_then(|signal| u8::try_from(128 + signal).ok()) {
            say("interrupted");
            return Ok(ExitCode::from(code));
        }
        let conclusion = conclusion?.map_err(HarnessError::Fault)?;
        closed.map_err(HarnessError::Fault)?;
        Ok(conclude(&conclusion))
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
    #[error("could not write to standard output")]
    Output(#[source] io::Error),
}

impl From<StageFailure> for HarnessError {
    fn from(failure: StageFailure) -> Self {
        Self::Stage(failure)
    }
}

impl HarnessError {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Settings(_) | Self::Plan(_) => CONFIGURATION,
            Self::Session(error) if error.is_configuration() => CONFIGURATION,
            Self::Flags(_) => FAILED,
            Self::Stage(StageFailure::Command { rc, .. }) => u8::try_from(*rc).unwrap_or(FAULT),
            Self::Stage(StageFailure::Fault(_)) | Self::Session(_) | Self::Fault(_) | Self::Output(_) => FAULT,
        })
    }
}

/// Tells the user something. Standard output belongs to libtest.
fn say(text: &str) {
    // Nobody may be listening.
    writeln!(io::stderr(), "proving-ground: {}", escaped(text)).ok();
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

/// Names and nothing else, whatever the format: one line more makes nextest abort a whole run.
fn listing(names: &[String], flags: &Flags) -> String {
    // No trial is ignored, and none is a benchmark.
    let wants_none = flags.bench || flags.ignored && !flags.include_ignored;
    let shown = if wants_none { &[] } else { names };
    shown.iter().map(|name| format!("{name}: test\n")).collect()
}

fn wanted(flags: &Flags) -> Wanted {
    Wanted { filters: flags.filters.clone(), skip: flags.skip.clone(), exact: flags.exact }
}

/// libtest-mimic knows one filter only. Where there are more, it is told whom to leave out, by whole names.
fn arguments(flags: &Flags, plan: &Plan, wanted: &Wanted) -> Arguments {
    let mut arguments = Arguments {
        include_ignored: flags.include_ignored,
        ignored: flags.ignored && !flags.include_ignored,
        bench: flags.bench,
        nocapture: flags.nocapture,
        exact: flags.exact,
        quiet: flags.quiet && flags.format.is_none(),
        test_threads: Some(if plan.may_run_in_parallel(wanted) { flags.test_threads.unwrap_or(1) } else { 1 }),
        logfile: if flags.format == Some(Format::Junit) { Some("/dev/null".into()) } else { flags.logfile.clone() },
        skip: flags.skip.clone(),
        color: flags.color.map(|color| match color {
            Color::Auto => ColorSetting::Auto,
            Color::Always => ColorSetting::Always,
            Color::Never => ColorSetting::Never,
        }),
        format: flags.format.map(|format| match format {
            Format::Pretty => FormatSetting::Pretty,
            Format::Terse => FormatSetting::Terse,
            Format::Json => FormatSetting::Json,
            // Ours: what libtest-mimic says goes nowhere.
            Format::Junit => FormatSetting::Terse,
        }),
        filter: flags.filters.first().cloned(),
        ..Arguments::default()
    };
    if flags.filters.len() > 1 {
        let left_out = plan.trials.iter().map(Planned::name).filter(|name| !wanted.selects(name));
        arguments.skip = left_out.map(str::to_owned).collect();
        arguments.filter = None;
        arguments.exact = true;
    }
    arguments
}

/// What the command line asks for: which trials, how, and the same in libtest-mimic's words.
struct Asked<'a> {
    wanted: &'a Wanted,
    flags: &'a Flags,
    arguments: &'a Arguments,
}

/// Runs the trials, between the lines of the log that say so.
fn run_stage(session: &Arc<Session>, plan: Plan, asked: &Asked<'_>) -> Result<Conclusion, Fault> {
    let started = Instant::now();
    session.begin_suites()?;
    let conclusion = run_trials(session, plan, asked);
    session.end_suites(started.elapsed())?;
    conclusion
}

/// The run must be closed in order even if libtest-mimic panics, which it does when nobody reads its output.
fn run_trials(session: &Arc<Session>, plan: Plan, asked: &Asked<'_>) -> Result<Conclusion, Fault> {
    let Asked { wanted, flags, arguments } = *asked;
    let has_failed = Arc::new(AtomicBool::new(false));
    let report = Arc::new(Report::default());
    let stops_early = flags.fail_fast;
    let is_serial = arguments.test_threads == Some(1);
    let running = plan.announce(session, wanted);
    let mut next: VecDeque<_> = running.into_iter().skip(1).filter(|_| is_serial).collect();
    let trials = plan.trials.into_iter().map(|planned| {
        let name = planned.name().to_owned();
        if !wanted.selects(&name) {
            return Trial::test(name, || Ok(()));
        }
        let (session, has_failed, next) = (Arc::clone(session), Arc::clone(&has_failed), next.pop_front());
        let report = Arc::clone(&report);
        Trial::test(name, move || {
            let judged = if stops_early && has_failed.load(Ordering::SeqCst) {
                planned.leave_out(&session)
            } else {
                planned.run(&session, next.as_ref())
            };
            let failure = (judged.record.status != Status::Pass).then(|| explain(&session, &judged));
            report.add(&judged.record, failure.as_deref());
            has_failed.fetch_or(failure.is_some(), Ordering::SeqCst);
            failure.map_or(Ok(()), |text| Err(Failed::from(text)))
        })
    });
    let trials = trials.collect();
    let ran = catch_unwind(AssertUnwindSafe(|| libtest_mimic::run(arguments, trials)));
    let unread = || Fault::from_text("the report could not be written to the end; does anyone read standard output?");
    let conclusion = ran.map_err(|_| unread())?;
    if flags.format == Some(Format::Junit) {
        report.print(&target_name(), flags.logfile.as_deref()).map_err(|error| Fault::new(&error))?;
    }
    Ok(conclusion)
}

fn conclude(conclusion: &Conclusion) -> ExitCode {
    if conclusion.has_failed() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
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

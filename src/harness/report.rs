//! What is said of the trials, as libtest says it: the same lines, the same fields, in the same order, so that whatever reads
//! libtest reads this. libtest-mimic aligns, heads and counts otherwise, so it runs the trials and is silent.

pub(super) mod json;
mod pretty;
mod terse;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::harness::flags::Format;
use json::Json;
use pretty::Pretty;
use terse::Terse;

/// How a trial ended, in libtest's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Failed,
    /// It is no benchmark, and only those were asked for.
    Ignored,
}

/// A trial that has ended.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) name: &'a str,
    pub(super) outcome: Outcome,
    /// Why it failed; of one that passed, what it said, if that was asked for.
    pub(super) output: &'a str,
    pub(super) time: Duration,
}

/// Why a trial was ignored.
const NO_BENCHMARK: &str = "it is no benchmark";

/// How the report is to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) format: Format,
    /// Whether trials that passed show their output.
    pub(super) show_output: bool,
    /// Whether each trial shows its time.
    pub(super) report_time: bool,
    /// Whether trials run one at a time: then a name stands there while its trial runs.
    pub(super) is_serial: bool,
    pub(super) has_color: bool,
}

/// What is going to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    pub(super) count: usize,
    pub(super) filtered_out: usize,
    pub(super) shuffle_seed: Option<u64>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Totals {
    passed: usize,
    ignored: usize,
    filtered_out: usize,
    /// Names and outputs, in the order in which they ended.
    failures: Vec<(String, String)>,
    /// The same of those that passed, if that was asked for.
    successes: Vec<(String, String)>,
    time: Duration,
}

/// One of libtest's formats: what it says when something happens.
trait Formatter: Send {
    fn began(&mut self, beginning: &Beginning) -> String;
    fn started(&mut self, name: &str) -> String;
    fn ended(&mut self, ended: &Ended<'_>) -> String;
    fn finished(&mut self, totals: &Totals) -> String;
}

/// Says nothing: the document is made of the evidence, when all is over.
struct Silent;

impl Formatter for Silent {
    fn began(&mut self, _: &Beginning) -> String {
        String::new()
    }

    fn started(&mut self, _: &str) -> String {
        String::new()
    }

    fn ended(&mut self, _: &Ended<'_>) -> String {
        String::new()
    }

    fn finished(&mut self, _: &Totals) -> String {
        String::new()
    }
}

/// Why the report could not be written to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("could not write the report to standard output; does anyone read it?")]
    Output(#[source] io::Error),
    #[error("could not write the file `{path}` that --logfile names", path = .0.display())]
    Log(PathBuf, #[source] io::Error),
}

/// What `--logfile` names.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Makes the file, empty.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn create(path: &str) -> Result<Self, ReportError> {
        let path = PathBuf::from(path);
        let file = File::create(&path).map_err(|error| ReportError::Log(path.clone(), error))?;
        Ok(Self { path, file })
    }
}

/// The report of one run, on standard output.
pub(super) struct Report {
    style: Style,
    state: Mutex<State>,
}

struct State {
    formatter: Box<dyn Formatter>,
    log: Option<LogFile>,
    totals: Totals,
    began: Instant,
    /// The first thing that could not be written. The trials go on: they have evidence to leave, and a machine to restore.
    error: Option<ReportError>,
}

impl Report {
    /// Begins a report; `log` gets a line for each trial.
    pub(super) fn begin(style: Style, beginning: &Beginning, log: Option<LogFile>) -> Self {
        let formatter: Box<dyn Formatter> = match style.format {
            Format::Pretty => Box::new(Pretty::new(style)),
            Format::Terse => Box::new(Terse::new(style)),
            Format::Json => Box::new(Json::new(style)),
            Format::Junit => Box::new(Silent),
        };
        let totals = Totals { filtered_out: beginning.filtered_out, ..Totals::default() };
        let mut state = State { formatter, log, totals, began: Instant::now(), error: None };
        let text = state.formatter.began(beginning);
        state.print(&text);
        Self { style, state: Mutex::new(state) }
    }

    /// Says that a trial starts.
    pub(super) fn started(&self, name: &str) {
        let mut state = self.state();
        let text = state.formatter.started(name);
        state.print(&text);
    }

    /// Says how a trial ended.
    pub(super) fn ended(&self, ended: &Ended<'_>) {
        let mut state = self.state();
        let told = || (ended.name.to_owned(), ended.output.to_owned());
        match ended.outcome {
            Outcome::Ok => state.totals.passed += 1,
            Outcome::Failed => state.totals.failures.push(told()),
            Outcome::Ignored => state.totals.ignored += 1,
        }
        if ended.outcome == Outcome::Ok && self.style.show_output {
            state.totals.successes.push(told());
        }
        let text = state.formatter.ended(ended);
        state.print(&text);
        state.log(&log_line(ended, self.style));
    }

    /// Writes what is the whole report, in a format that is made when all is over.
    pub(super) fn document(&self, text: &str) {
        self.state().print(text);
    }

    /// Says how all of it ended.
    ///
    /// # Errors
    /// If anything of the report could not be written.
    pub(super) fn finish(&self) -> Result<(), ReportError> {
        let mut state = self.state();
        let State { formatter, totals, began, .. } = &mut *state;
        totals.time = began.elapsed();
        let text = formatter.finished(totals);
        state.print(&text);
        state.error.take().map_or(Ok(()), Err)
    }

    /// Tells whether a trial has failed.
    pub(super) fn has_failed(&self) -> bool {
        !self.state().totals.failures.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of one trial leaves counts of the others that are true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Each text at once, and all of it: whoever waits for a hung trial must see its name.
    fn print(&mut self, text: &str) {
        let mut out = io::stdout();
        let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = printed {
            self.error.get_or_insert(ReportError::Output(error));
        }
    }

    fn log(&mut self, line: &str) {
        let Some(LogFile { path, file }) = &mut self.log else { return };
        if let Err(error) = file.write_all(line.as_bytes()) {
            self.error.get_or_insert(ReportError::Log(path.clone(), error));
        }
    }
}

/// A line of `--logfile`.
fn log_line(ended: &Ended<'_>, style: Style) -> String {
    let outcome = match ended.outcome {
        Outcome::Ok => "ok",
        Outcome::Failed => "failed",
        Outcome::Ignored => &format!("ignored: {NO_BENCHMARK}"),
    };
    format!("{outcome} {}{}\n", ended.name, time_of(ended, style))
}

/// The time of a trial, where it is shown. One that was ignored has none.
fn time_of(ended: &Ended<'_>, style: Style) -> String {
    let has_time = style.report_time && ended.outcome != Outcome::Ignored;
    if has_time { format!(" <{:.3}s>", ended.time.as_secs_f64()) } else { String::new() }
}

/// What pretty and terse begin with.
fn heading(beginning: &Beginning) -> String {
    let Beginning { count, shuffle_seed, .. } = beginning;
    let tests = if *count == 1 { "test" } else { "tests" };
    let seed = shuffle_seed.map_or_else(String::new, |seed| format!(" (shuffle seed: {seed})"));
    format!("\nrunning {count} {tests}{seed}\n")
}

/// What pretty and terse end with.
fn closing(totals: &Totals, style: Style) -> String {
    let mut text = String::new();
    if style.show_output {
        text += &told("successes", &totals.successes);
    }
    if !totals.failures.is_empty() {
        text += &told("failures", &totals.failures);
    }
    let result = if totals.failures.is_empty() { green("ok", style) } else { red("FAILED", style) };
    let Totals { passed, ignored, filtered_out, failures, time, .. } = totals;
    text + &format!(
        "\ntest result: {result}. {passed} passed; {} failed; {ignored} ignored; 0 measured; {filtered_out} filtered out; \
         finished in {:.2}s\n\n",
        failures.len(),
        time.as_secs_f64(),
    )
}

/// The outputs, in the order in which the trials ended, then their names, sorted.
fn told(heading: &str, trials: &[(String, String)]) -> String {
    let outputs = trials.iter().filter(|(_, output)| !output.is_empty());
    let outputs: String = outputs.map(|(name, output)| format!("---- {name} stdout ----\n{output}\n")).collect();
    let outputs = if outputs.is_empty() { outputs } else { format!("\n{outputs}") };
    let mut names: Vec<_> = trials.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let names: String = names.into_iter().map(|name| format!("    {name}\n")).collect();
    format!("\n{heading}:\n{outputs}\n{heading}:\n{names}")
}

fn green(text: &str, style: Style) -> String {
    colored(text, 32, style)
}

fn red(text: &str, style: Style) -> String {
    colored(text, 31, style)
}

fn yellow(text: &str, style: Style) -> String {
    colored(text, 33, style)
}

/// `code` is of ECMA-48, SGR.
fn colored(text: &str, code: u8, style: Style) -> String {
    if style.has_color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

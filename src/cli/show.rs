//! What the user sees: results on standard output; progress on standard error, a line that is drawn again on a terminal.

use std::cell::OnceCell;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::flow::doctor::{Check, State};
use crate::flow::stages::suites::Progress;
use crate::flow::trial::Judged;
use crate::os::host::columns;
use crate::rules::chickadee::TestStatus;
use crate::rules::collection::Collection;
use crate::rules::report::{counted, escaped, one_line, quoted_end};
use crate::rules::summary::{Counts, Record, Status};
use crate::rules::table::{Frame, Row, STATUS_WIDTH, Table, sums};

const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();
const TICK: Duration = Duration::from_millis(200);

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Volume {
    /// Failures, and the last line.
    Quiet,
    /// A line for each trial.
    Usual,
    /// And the output of what runs, which leaves no place for a line that is drawn again.
    Verbose,
}

/// Writes to the user's terminal or log. Colours only where they are wanted (NO_COLOR, and a terminal).
pub(super) struct Show {
    volume: Volume,
    bar: ProgressBar,
    /// Why a line of standard output was lost.
    lost: OnceCell<io::Error>,
}

impl Show {
    /// Begins with nothing on the screen.
    pub(super) fn new(volume: Volume) -> Self {
        let is_drawn = volume == Volume::Usual && io::stderr().is_terminal();
        let target = if is_drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        Self { volume, bar, lost: OnceCell::new() }
    }

    /// Says that a stage begins.
    pub(super) fn stage(&self, name: &str) {
        self.begin(name);
        if self.volume != Volume::Quiet && self.bar.is_hidden() {
            self.line(&format!("== {name}"));
        }
    }

    /// Begins a line of progress.
    pub(super) fn begin(&self, name: &str) {
        self.bar.set_prefix(name.to_owned());
        self.progress("");
        self.bar.enable_steady_tick(TICK);
    }

    /// Says in the line of progress what begins.
    pub(super) fn progress(&self, text: &str) {
        self.bar.set_message(one_line(text));
        self.bar.reset_elapsed();
    }

    /// Says something on the way.
    pub(super) fn tell(&self, text: &str) {
        if self.volume != Volume::Quiet {
            self.line(&escaped(text));
        }
    }

    /// Says how far the trials are; `explain` tells why one has failed.
    pub(super) fn trial(&self, progress: &Progress<'_>, explain: &dyn Fn(&Judged) -> String) {
        match progress {
            Progress::Begun { number, of, name } => self.progress(&format!("{number}/{of} {name}")),
            Progress::Judged(judged) => self.judged(judged, explain),
        }
    }

    fn judged(&self, judged: &Judged, explain: &dyn Fn(&Judged) -> String) {
        let record = &judged.record;
        let (name, millis) = (escaped(&record.name), record.duration_ms);
        if record.status == Status::Pass {
            if self.volume != Volume::Quiet {
                self.line(&format!("{GREEN}ok{GREEN:#}   {name} ({millis} ms){}", remarks(record)));
            }
        } else {
            self.line(&format!("{RED}FAIL{RED:#} {name} ({millis} ms)\n{}", explain(judged).trim_end()));
        }
    }

    /// Says what was found of one thing of the machine.
    pub(super) fn check(&self, check: &Check) {
        let (word, style) = match check.state {
            State::There => ("ok", GREEN),
            State::Lacking => ("lacks", YELLOW),
            State::Needed => ("NEEDS", RED),
        };
        self.line(&format!("{style}{word:5}{style:#} {}: {}", check.name, escaped(&check.text)));
    }

    /// Says what came of a job: a row an outcome, what is worth knowing of it, and the sums.
    pub(super) fn collection(&self, collection: &Collection, time_limit: Duration) {
        let table = Table::of(collection, Frame { width: columns(io::stdout()), time_limit });
        let is_shown = |row: &&Row| self.volume != Volume::Quiet || row.status != TestStatus::Pass;
        let rows: Vec<_> = table.rows.iter().filter(is_shown).collect();
        if !rows.is_empty() {
            self.line(&format!("{:STATUS_WIDTH$}  {}", "status", table.head));
        }
        rows.into_iter().for_each(|row| self.row(row));
        if let Some(output) = &collection.compiler_output {
            self.line(&format!("{RED}make{RED:#}\n{}", quoted_end(output).unwrap_or_default()));
        }
        collection
            .warnings
            .iter()
            .for_each(|text| self.line(&format!("{YELLOW}warning{YELLOW:#}: {}", one_line(text))));
        let style = if collection.has_full_marks() { GREEN } else { RED };
        self.line(&format!("{style}{}{style:#}", sums(collection)));
    }

    fn row(&self, row: &Row) {
        let style = match row.status {
            TestStatus::Pass => GREEN,
            TestStatus::Fail | TestStatus::Error | TestStatus::Timeout => RED,
        };
        self.line(&format!("{style}{:STATUS_WIDTH$}{style:#}  {}", row.status.as_str(), row.text));
        row.quote.iter().for_each(|quote| self.line(quote));
    }

    /// Says what keeps a merged run from having passed.
    pub(super) fn failure(&self, text: &str) {
        self.line(&format!("{RED}FAIL{RED:#} {}", escaped(text)));
    }

    /// Says how the trials have ended.
    pub(super) fn counts(&self, counts: Counts) {
        let style = if counts.fail == 0 { GREEN } else { RED };
        self.line(&format!("{style}{} passed, {} failed{style:#}", counts.pass, counts.fail));
    }

    /// Says how many problems there are in what was checked.
    pub(super) fn verdict(&self, problems: usize, what: &str) {
        let what = escaped(what);
        match problems {
            0 => self.line(&format!("{GREEN}sound{GREEN:#}: {what}")),
            1 => self.line(&format!("{RED}1 problem{RED:#}: {what}")),
            _ => self.line(&format!("{RED}{problems} problems{RED:#}: {what}")),
        }
    }

    /// Writes a line to standard output, beside the progress.
    pub(super) fn line(&self, text: &str) {
        self.bar.suspend(|| {
            if let Err(error) = writeln!(anstream::stdout().lock(), "{text}") {
                // The first reason is the one that counts.
                self.lost.set(error).ok();
            }
        });
    }

    /// Tells whether all lines could be written to standard output. A reader that goes away early has seen what it wanted.
    ///
    /// # Errors
    /// If a line was lost for another reason.
    pub(super) fn written(&self) -> Result<(), io::Error> {
        match self.lost.get() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(io::Error::new(error.kind(), error.to_string()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Writes a line to standard error, beside the progress. Of one for a CI service it must be the whole.
    pub(super) fn annotation(&self, line: &str) {
        self.bar.suspend(|| {
            writeln!(anstream::stderr().lock(), "{line}").ok();
        });
    }

    /// Says what went wrong, on standard error.
    pub(super) fn error(&self, text: &str) {
        self.annotation(&format!("{RED}error{RED:#}: {}", escaped(text)));
    }

    /// Says what most likely is not as it was meant, on standard error.
    pub(super) fn warning(&self, text: &str) {
        self.annotation(&format!("{YELLOW}warning{YELLOW:#}: {}", one_line(text)));
    }

    /// Says what is worth knowing beside the results, on standard error.
    pub(super) fn note(&self, text: &str) {
        if self.volume != Volume::Quiet {
            self.annotation(&format!("note: {}", one_line(text)));
        }
    }

    /// Leaves the screen as it is.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What is worth knowing of a trial that passed.
fn remarks(record: &Record) -> String {
    let mut text = String::new();
    if let Some(path) = record.drift.first() {
        text.push_str(&format!("; {} not as before, first {}", counted(record.drift.len(), "path"), escaped(path)));
    }
    if !record.leaked.is_empty() {
        text.push_str(&format!("; {} had to be ended", counted(record.leaked.len(), "process")));
    }
    text
}

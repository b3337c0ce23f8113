//! `--format terse`: a character for each trial.

use super::{Beginning, Ended, Formatter, Outcome, Style, Totals, closing, green, heading, red, yellow};

/// Characters of a line; then it says how far the run is.
const LINE_MAX: usize = 87;

pub(super) struct Terse {
    style: Style,
    count: usize,
    ended: usize,
    column: usize,
}

impl Terse {
    pub(super) fn new(style: Style) -> Self {
        Self { style, count: 0, ended: 0, column: 0 }
    }

    fn progress(&mut self) -> String {
        self.column = 0;
        format!(" {}/{}\n", self.ended, self.count)
    }
}

impl Formatter for Terse {
    fn began(&mut self, beginning: &Beginning) -> String {
        self.count = beginning.count;
        heading(beginning)
    }

    fn started(&mut self, _: &str) -> String {
        String::new()
    }

    fn ended(&mut self, ended: &Ended<'_>) -> String {
        let mark = match ended.outcome {
            Outcome::Ok => green(".", self.style),
            Outcome::Ignored => yellow("i", self.style),
            Outcome::Failed => {
                let progress = if self.column > 0 { self.progress() } else { String::new() };
                self.ended += 1;
                return format!("{progress}{} --- {}\n", ended.name, red("FAILED", self.style));
            }
        };
        self.ended += 1;
        self.column += 1;
        if self.column < LINE_MAX { mark } else { mark + &self.progress() }
    }

    fn finished(&mut self, totals: &Totals) -> String {
        closing(totals, self.style)
    }
}

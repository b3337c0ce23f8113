//! `--format pretty`: a line for each trial.

use super::{
    Beginning, Ended, Formatter, NO_BENCHMARK, Outcome, Style, Totals, closing, green, heading, red, time_of, yellow,
};

pub(super) struct Pretty {
    style: Style,
}

impl Pretty {
    pub(super) fn new(style: Style) -> Self {
        Self { style }
    }
}

impl Formatter for Pretty {
    fn began(&mut self, beginning: &Beginning) -> String {
        heading(beginning)
    }

    fn started(&mut self, name: &str) -> String {
        if self.style.is_serial { format!("test {name} ... ") } else { String::new() }
    }

    fn ended(&mut self, ended: &Ended<'_>) -> String {
        let style = self.style;
        let outcome = match ended.outcome {
            Outcome::Ok => green("ok", style),
            Outcome::Failed => red("FAILED", style),
            Outcome::Ignored => yellow(&format!("ignored, {NO_BENCHMARK}"), style),
        };
        // Lines of trials that run at the same time must not mix.
        let start = if style.is_serial { String::new() } else { format!("test {} ... ", ended.name) };
        format!("{start}{outcome}{}\n", time_of(ended, style))
    }

    fn finished(&mut self, totals: &Totals) -> String {
        closing(totals, self.style)
    }
}

//! `--format json`: an event a line, with libtest's fields in libtest's order, spaced as it does.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Beginning, Ended, Formatter, NO_BENCHMARK, Outcome, Style, Totals};

pub(super) struct Json {
    style: Style,
}

impl Json {
    pub(super) fn new(style: Style) -> Self {
        Self { style }
    }
}

impl Formatter for Json {
    fn began(&mut self, beginning: &Beginning) -> String {
        let seed = beginning.shuffle_seed.map(|seed| ("shuffle_seed", seed.to_string()));
        let fields = [("event", text("started")), ("test_count", beginning.count.to_string())];
        event("suite", fields.into_iter().chain(seed))
    }

    fn started(&mut self, name: &str) -> String {
        event("test", [("event", text("started")), ("name", text(name))])
    }

    fn ended(&mut self, ended: &Ended<'_>) -> String {
        let outcome = match ended.outcome {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::Ignored => "ignored",
        };
        let has_time = self.style.report_time && ended.outcome != Outcome::Ignored;
        let time = has_time.then(|| ("exec_time", seconds(ended.time)));
        let has_output = !ended.output.is_empty() && (ended.outcome == Outcome::Failed || self.style.show_output);
        let output = has_output.then(|| ("stdout", text(ended.output)));
        let message = (ended.outcome == Outcome::Ignored).then(|| ("message", text(NO_BENCHMARK)));
        let fields = [("name", text(ended.name)), ("event", text(outcome))];
        event("test", fields.into_iter().chain(time).chain(output).chain(message))
    }

    fn finished(&mut self, totals: &Totals) -> String {
        let outcome = if totals.failures.is_empty() { "ok" } else { "failed" };
        let fields = [
            ("event", text(outcome)),
            ("passed", totals.passed.to_string()),
            ("failed", totals.failures.len().to_string()),
            ("ignored", totals.ignored.to_string()),
            ("measured", "0".to_owned()),
            ("filtered_out", totals.filtered_out.to_string()),
            ("exec_time", seconds(totals.time)),
        ];
        event("suite", fields)
    }
}

/// Seconds as libtest writes them: never with an exponent, which a JSON library would choose for short ones.
fn seconds(time: Duration) -> String {
    format!("{}", time.as_secs_f64())
}

fn text(text: &str) -> String {
    Value::from(text).to_string()
}

fn event<'a>(kind: &str, fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let fields: String = fields.into_iter().map(|(key, value)| format!(", \"{key}\": {value}")).collect();
    format!("{{ \"type\": \"{kind}\"{fields} }}\n")
}

/// What `--list` says in this format.
pub(in crate::harness) fn listing<'a>(tests: impl ExactSizeIterator<Item = (&'a str, &'a Path)>) -> String {
    let count = tests.len().to_string();
    let mut shown = event("suite", [("event", text("discovery"))]);
    for (name, source) in tests {
        let source = text(&source.to_string_lossy());
        let number = || "1".to_owned();
        let fields = [
            ("event", text("discovered")),
            ("name", text(name)),
            ("ignore", "false".to_owned()),
            ("ignore_message", text("")),
            ("source_path", source),
            // All of it: nothing is read for a listing.
            ("start_line", number()),
            ("start_col", number()),
            ("end_line", number()),
            ("end_col", number()),
        ];
        shown += &event("test", fields);
    }
    let counts =
        [("tests", count.clone()), ("benchmarks", "0".to_owned()), ("total", count), ("ignored", "0".to_owned())];
    shown + &event("suite", [("event", text("completed"))].into_iter().chain(counts))
}

//! What there is to see of a run, without what differs from run to run.

use std::fmt;

use crate::line::Line;
use crate::world::Ended;

/// What a run says on standard error: the words are each side's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stderr {
    Silent,
    Words,
    Error,
}

/// What there is to see of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: Stderr,
    /// The file `log`, for `--logfile`.
    pub(crate) log: Option<String>,
}

impl Seen {
    pub(crate) fn of(line: &Line, ended: &Ended, log: Option<String>) -> Self {
        let stdout = if ended.stdout.starts_with("Usage: ") { "HELP\n".to_owned() } else { blurred(&ended.stdout) };
        // Libtest's own thread is `main`; that of a test is named as the test.
        let stderr = match ended.stderr.as_str() {
            "" => Stderr::Silent,
            text if text.contains("error: ") || text.contains("thread 'main'") => Stderr::Error,
            _ if is_uncaptured(line) => Stderr::Silent,
            _ => Stderr::Words,
        };
        Self { code: ended.status.code(), stdout, stderr, log: log.map(|text| blurred(&text)) }
    }

    /// A module's `::` as a folder's `/`.
    pub(crate) fn with_folders(mut self) -> Self {
        self.stdout = self.stdout.replace("m::x", "m/x");
        self.log = self.log.map(|text| text.replace("m::x", "m/x"));
        self
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr, log } = self;
        write!(f, "code {code:?}, stderr: {stderr:?}\n{stdout}")?;
        log.as_ref().map_or(Ok(()), |log| write!(f, "--- log\n{log}"))
    }
}

/// Then what tests say is on standard error, or nowhere, as they like.
fn is_uncaptured(line: &Line) -> bool {
    line.count("--nocapture") + line.count("--no-capture") > 0
        || line.variable("RUST_TEST_NOCAPTURE").is_some_and(|v| v != "0")
}

/// Times, the text of failures, places, numbers drawn at random, and the ways of terminals to end a colour.
pub(crate) fn blurred(text: &str) -> String {
    let mut text = text.replace("\u{1b}(B\u{1b}[m", "\u{1b}[0m");
    for before in ["finished in ", " <", "\"exec_time\": "] {
        text = after(&text, before, |rest| number(rest).map(|length| ("T", length)));
    }
    text = after(&text, "\"stdout\": \"", |rest| Some(("BODY", string(rest))));
    text = after(&text, "\"source_path\": ", |rest| rest.find(" }").map(|length| ("PLACE", length)));
    for before in ["shuffle seed: ", "\"shuffle_seed\": "] {
        text = after(&text, before, |rest| number(rest).filter(|length| *length > 5).map(|length| ("SEED", length)));
    }
    bodies(&text)
}

/// Replaces what stands after each `before`, where `what` says with what and how many bytes.
fn after(text: &str, before: &str, what: impl Fn(&str) -> Option<(&'static str, usize)>) -> String {
    let mut parts = text.split(before);
    let mut blurred = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        blurred += before;
        match what(part) {
            Some((word, length)) => blurred += &format!("{word}{}", &part[length..]),
            None => blurred += part,
        }
    }
    blurred
}

/// How long the number is with which `text` begins. One with an exponent is none: libtest writes no such.
fn number(text: &str) -> Option<usize> {
    let length = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (length > 0 && !text[length..].starts_with(['e', 'E'])).then_some(length)
}

/// How long the JSON string is within which `text` begins.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    end.unwrap_or(text.len())
}

/// `---- NAME stdout ----` and what follows: each side has its words. The empty lines at their end count.
fn bodies(text: &str) -> String {
    let is_head = |line: &str| line.starts_with("---- ") && line.ends_with(" stdout ----\n");
    let is_list = |line: &str| ["failures:\n", "successes:\n", "failures (time limit exceeded):\n"].contains(&line);
    let mut blurred = String::new();
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        blurred += line;
        if !is_head(line) {
            continue;
        }
        let mut body = String::new();
        while let Some(line) = lines.next_if(|line| !is_head(line) && !is_list(line)) {
            body += line;
        }
        blurred += &format!("BODY{}", &body[body.trim_end_matches('\n').len()..]);
    }
    blurred
}

/// A JUnit document as its tests and their outcomes.
pub(crate) fn cases(document: &str) -> String {
    let mut found = String::new();
    for case in document.split("<testcase ").skip(1) {
        // Not the end of another word.
        let name = format!(" {case}")
            .split_once(" name=\"")
            .map_or("?", |(_, rest)| rest.split('"').next().unwrap())
            .to_owned();
        let outcome = ["failure", "error", "skipped"].into_iter().find(|word| case.contains(&format!("<{word}")));
        found += &format!("case {name} {}\n", outcome.unwrap_or("ok"));
    }
    let is_whole = document.starts_with("<?xml") && document.trim_end().ends_with("</testsuites>");
    format!("{found}{}\n", if is_whole { "whole" } else { "BROKEN" })
}

//! What a failed trial says: enough to understand it, where the rest is, and how to see it again.

use std::fmt::Write;

use crate::model::script::{Stream, is_hidden};
use crate::rules::summary::Record;

/// Lines of each stream that a failure shows.
const LAST_LINES_MAX: usize = 20;
/// Bytes of them.
const LAST_BYTES_MAX: usize = 8 << 10;
/// Changes that a failure shows; changes.json has all.
const CHANGES_MAX: usize = 10;

/// The end of one stream of a block that failed.
#[derive(Debug, Clone)]
pub(crate) struct LastLines {
    /// `execute stderr`, for example.
    pub(crate) of: String,
    /// Text, control characters escaped.
    pub(crate) text: String,
}

impl LastLines {
    /// Takes the last lines of a stream, if it has any.
    pub(crate) fn of(name: &str, stream: &Stream) -> Option<Self> {
        let text = last_lines(&stream.kept_bytes());
        (!text.trim().is_empty()).then(|| Self { of: name.to_owned(), text })
    }
}

/// Returns the end of a text, each line behind `| `, and says if that is not all of it; `None` if there is nothing to see.
pub(crate) fn quoted_end(text: &str) -> Option<String> {
    let end = last_lines(text.as_bytes());
    if end.trim().is_empty() {
        return None;
    }
    let is_whole = text.len() <= LAST_BYTES_MAX && text.lines().count() == end.lines().count();
    let before = if is_whole { "" } else { "| [... what was before is left out here ...]\n" };
    Some(format!("{before}{}", quoted(&end)))
}

/// Returns the last lines of a text, escaped: at most 20, of at most 8 KiB.
fn last_lines(text: &[u8]) -> String {
    let start = text.len().saturating_sub(LAST_BYTES_MAX);
    let text = escaped(&String::from_utf8_lossy(&text[start..]));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES_MAX)..].join("\n")
}

/// Everything that a failure's text is made of.
pub(crate) struct Failure<'a> {
    pub(crate) record: &'a Record,
    /// One line for each change that `execute` made, the first ones.
    pub(crate) changes: &'a [String],
    pub(crate) last_lines: &'a [LastLines],
    /// The proof folder.
    pub(crate) proof_dir: &'a str,
    /// The command that runs this trial alone.
    pub(crate) reproduce: &'a str,
}

/// Returns the text of a failed trial: summary, findings, changes, last lines, paths, command. Lines of a script stand behind
/// `| `, because CI services take orders from lines that begin with `::` or `##`.
pub(crate) fn failure_text(failure: &Failure<'_>) -> String {
    let record = failure.record;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |shown: std::fmt::Arguments<'_>| text.write_fmt(format_args!("{shown}\n")).unwrap_or(());
    if let Some(summary) = &record.summary {
        line(format_args!("{}", one_line(summary)));
    }
    for finding in &record.findings {
        line(format_args!("{}", finding_text(finding)));
    }
    for note in &record.notes {
        line(format_args!("  note: {}", one_line(note)));
    }
    for leak in &record.leaked {
        line(format_args!("  killed, because it was left running: {} (pid {})", one_line(&leak.command), leak.pid));
    }
    if !record.drift.is_empty() {
        line(format_args!("not as before, after restore: {}", one_line(&record.drift.join(", "))));
    }
    for change in failure.changes.iter().take(CHANGES_MAX) {
        line(format_args!("changed: {}", one_line(change)));
    }
    if failure.changes.len() > CHANGES_MAX {
        line(format_args!("... and {} more", failure.changes.len() - CHANGES_MAX));
    }
    text.push_str(&output_text(failure.last_lines));
    let mut line = |shown: std::fmt::Arguments<'_>| text.write_fmt(format_args!("{shown}\n")).unwrap_or(());
    line(format_args!("---"));
    for artifact in &record.artifacts {
        line(format_args!("{}/{}", one_line(failure.proof_dir), one_line(artifact)));
    }
    line(format_args!("run it again: {}", one_line(failure.reproduce)));
    text
}

/// Returns a finding as an item of a list; what it quotes is a script's.
pub(crate) fn finding_text(finding: &str) -> String {
    let finding = escaped(finding);
    match finding.split_once('\n') {
        Some((first, quote)) => format!("- {first}\n{}", quoted(quote)),
        None => format!("- {finding}"),
    }
}

/// Returns the last lines of a trial's streams, each behind `| `.
pub(crate) fn output_text(last_lines: &[LastLines]) -> String {
    last_lines.iter().map(|last| format!("--- {}, last lines\n{}\n", last.of, quoted(&last.text))).collect()
}

/// Returns every line of `text` behind `| `: whose words they are is seen, and none begins with what a CI service takes for an order.
pub(crate) fn quoted(text: &str) -> String {
    text.lines().map(|line| format!("| {line}")).collect::<Vec<_>>().join("\n")
}

/// As `escaped`, of what is to stand in one line: names and paths of a script may hold line ends.
pub(crate) fn one_line(text: &str) -> String {
    escaped(text).replace('\n', "\\n")
}

/// Says how many there are of what a word names.
pub(crate) fn counted(number: usize, what: &str) -> String {
    match (number, what.ends_with('s')) {
        (1, _) => format!("1 {what}"),
        (_, true) => format!("{number} {what}es"),
        (_, false) => format!("{number} {what}s"),
    }
}

/// Returns `text` with hidden characters, but for line ends and tabs, made visible: a script must not drive a terminal or a
/// CI log through our report.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Wherever it stands, GitHub takes an order from what follows `##[`.
            '[' if shown.ends_with("##") => shown.push_str("\\["),
            '\n' | '\t' => shown.push(c),
            '\r' => {}
            c if is_hidden(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_made_visible() {
        assert_eq!(escaped("a\x1b[31mred\u{9b}\r\n\tb"), "a\\u{1b}[31mred\\u{9b}\n\tb");
        assert_eq!(escaped("\u{202e}\u{ffff}\u{fffd}é"), "\\u{202e}\\u{ffff}\u{fffd}é");
    }

    #[test]
    fn what_githubs_runner_takes_for_an_order_is_none() {
        assert_eq!(escaped("a ##[error]b ###[x] #[y]"), "a ##\\[error]b ###\\[x] #[y]");
    }

    #[test]
    fn last_lines_are_the_last() {
        let head = (0..100).map(|n| format!("{n}\n")).collect::<String>().into_bytes();
        let lines = LastLines::of("x", &Stream { total_bytes: head.len() as u64, head, tail: Vec::new() }).unwrap();
        assert_eq!(lines.text.lines().next(), Some("80"));
        assert_eq!(lines.text.lines().last(), Some("99"));
    }

    #[test]
    fn of_a_long_text_the_end_is_shown_and_that_there_was_more() {
        let text: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        let end = quoted_end(&text).unwrap();
        assert!(end.starts_with("| [... ") && end.ends_with("| line 999"), "{end}");
        assert_eq!(end.lines().count(), 21);
        let end = quoted_end(&"ä".repeat(100_000)).unwrap();
        assert!(end.starts_with("| [... ") && end.len() < 9 << 10);
        assert_eq!(quoted_end("::one\n\x1btwo\n").unwrap(), "| ::one\n| \\u{1b}two");
        assert_eq!(quoted_end(" \n\n"), None);
    }

    #[test]
    fn a_silent_stream_has_no_last_lines() {
        assert!(LastLines::of("x", &Stream::default()).is_none());
    }
}

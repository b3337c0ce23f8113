//! The script contract: what a completion means to Chickadee.

use std::borrow::Cow;
use std::time::Duration;

use crate::model::script::{Completion, EndedBy, Exit, Stream};

/// Bytes of a short result.
pub(crate) const SHORT_RESULT_BYTES_MAX: usize = 1024;
/// Bytes of a stream's end in which the last line is looked for; a longer line is cut anyhow.
const LAST_LINE_BYTES_MAX: usize = 64 << 10;
/// Nesting of a footer; what is deeper is plain text.
const FOOTER_DEPTH_MAX: usize = 100;

/// A script's status, in Chickadee's words; the later ones weigh more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TestStatus {
    /// Exit code 0.
    Pass,
    /// Exit code 1, or a prerequisite did not pass.
    Fail,
    /// Any other code, or a signal.
    Error,
    /// The limit passed, whatever the code.
    Timeout,
}

impl TestStatus {
    /// Returns Chickadee's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }

    /// Returns the short result of a script that gave none.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pass => "passed",
            Self::Fail => "failed",
            Self::Error => "error",
            Self::Timeout => "timed out",
        }
    }
}

/// The outcome of one script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestOutcome {
    pub(crate) status: TestStatus,
    pub(crate) short_result: String,
    pub(crate) long_result: Option<String>,
    /// Wall-clock milliseconds, rounded down.
    pub(crate) execution_time_ms: u64,
}

/// Returns the outcome of a script that was run. A deadline wins over any exit code.
///
/// `short_result` is the text of the footer: the `shortResult` of the last non-blank stdout line if that is a JSON object, else
/// that line, else a word for the status; at most 1 KiB. `long_result` is stderr, with a last line of ours that tells codes
/// and signals which a status does not tell apart.
///
/// Source: docs/protocol.md, "Script".
pub(crate) fn outcome_of(completion: &Completion) -> TestOutcome {
    let status = status(completion);
    let mut long_result = text(&completion.stderr);
    if let Some(ending) = ending(completion) {
        if !long_result.is_empty() && !long_result.ends_with('\n') {
            long_result.push('\n');
        }
        long_result.push_str(&ending);
    }
    TestOutcome {
        status,
        short_result: short_result(&completion.stdout, status),
        long_result: (!long_result.is_empty()).then_some(long_result),
        execution_time_ms: crate::rules::summary::millis(completion.wall),
    }
}

/// Returns the outcome of a script that was not run, because `prerequisite` has not passed.
pub(crate) fn skipped_outcome(prerequisite: &str) -> TestOutcome {
    TestOutcome {
        status: TestStatus::Fail,
        short_result: format!("Skipped: prerequisite '{prerequisite}' did not pass"),
        long_result: None,
        execution_time_ms: 0,
    }
}

/// Returns the outcome of a script that is not in the set-up: it must not silently shrink what is graded.
pub(crate) fn missing_outcome(script: &str) -> TestOutcome {
    let text = format!("script `{script}` is not in the set-up; its author must add it, or remove its entry");
    TestOutcome {
        status: TestStatus::Error,
        short_result: TestStatus::Error.word().to_owned(),
        long_result: Some(text),
        execution_time_ms: 0,
    }
}

/// U+FEFF in UTF-8, as some editors write it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What in a script's text its shell takes otherwise than its author may think.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Surprises {
    /// It begins with a byte order mark, which a shell takes for a part of the first word.
    pub(crate) has_byte_order_mark: bool,
    /// Lines end with CRLF, and a shell takes the CR for a part of each.
    pub(crate) has_crlf: bool,
    /// What the first line names as the interpreter, in vain, if it is not `sh`.
    pub(crate) interpreter: Option<String>,
}

/// Returns what is surprising in the text of a script: it is run as `/bin/sh SCRIPT`.
pub(crate) fn surprises(script: &[u8]) -> Surprises {
    let text = script.strip_prefix(BYTE_ORDER_MARK);
    let has_byte_order_mark = text.is_some();
    let text = text.unwrap_or(script);
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let named = first.strip_prefix("#!").map(str::trim).filter(|named| !named.is_empty() && !is_sh(named));
    let has_crlf = text.windows(2).any(|pair| pair == b"\r\n");
    Surprises { has_byte_order_mark, has_crlf, interpreter: named.map(str::to_owned) }
}

/// Tells whether the word `make` is in the text of a script, which then most likely calls it.
pub(crate) fn names_make(script: &[u8]) -> bool {
    let is_of_a_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    script.split(|byte| !is_of_a_word(byte)).any(|word| word == b"make")
}

/// Looks through `env`, with whatever options.
fn is_sh(named: &str) -> bool {
    let name = |word: &str| word.rsplit('/').next().unwrap_or_default() == "sh";
    let mut words = named.split_whitespace();
    let first = words.next().unwrap_or_default();
    name(first) || (first.ends_with("/env") && words.find(|word| !word.starts_with('-')).is_some_and(name))
}

/// Returns what a failed make step said, stdout then stderr, how it ended, and what it made that cannot be kept.
pub(crate) fn compiler_output(completion: &Completion, time_limit: Duration) -> String {
    let mut output = text(&completion.stdout);
    output.push_str(&text(&completion.stderr));
    if !output.is_empty() && !output.ends_with('\n') {
        output.push('\n');
    }
    output.push_str(&match completion.ended_by {
        EndedBy::Timeout => {
            format!("make: killed after the time limit of {} s (`timeLimitSeconds`)", time_limit.as_secs())
        }
        EndedBy::OutOfMemory => format!("make: killed at its limit of memory ({})", completion.exit),
        EndedBy::Itself | EndedBy::Cancel | EndedBy::SupervisorKilled => format!("make: {}", completion.exit),
    });
    if let Some(reason) = &completion.unkept {
        output.push_str("\nmake: what it made cannot be kept: ");
        output.push_str(reason);
    }
    output
}

fn status(completion: &Completion) -> TestStatus {
    match (completion.ended_by, completion.exit) {
        (EndedBy::Timeout, _) => TestStatus::Timeout,
        (EndedBy::Cancel | EndedBy::OutOfMemory | EndedBy::SupervisorKilled, _) => TestStatus::Error,
        (EndedBy::Itself, Exit::Code(0)) => TestStatus::Pass,
        (EndedBy::Itself, Exit::Code(1)) => TestStatus::Fail,
        (EndedBy::Itself, Exit::Code(_) | Exit::Signal(_)) => TestStatus::Error,
    }
}

/// Tells `kill -SEGV $$` from `exit 139`, and what a shell means by 126 and 127.
fn ending(completion: &Completion) -> Option<String> {
    match (completion.ended_by, completion.exit) {
        (EndedBy::Timeout, _) => None,
        (EndedBy::OutOfMemory, exit) => Some(format!("{exit}: killed at its limit of memory")),
        (EndedBy::Cancel, _) => Some("the run was interrupted".to_owned()),
        (EndedBy::SupervisorKilled, _) => {
            Some("the script killed the process that watched over it; everything it started was ended".to_owned())
        }
        (EndedBy::Itself, Exit::Code(0..=2)) => None,
        (EndedBy::Itself, Exit::Code(126)) => Some("exit code 126: a command is not executable".to_owned()),
        (EndedBy::Itself, Exit::Code(127)) => {
            Some("exit code 127: command not found, or the interpreter of a script does not exist".to_owned())
        }
        (EndedBy::Itself, Exit::Code(code)) => Some(format!("exit code {code}")),
        (EndedBy::Itself, exit @ Exit::Signal(_)) => Some(exit.to_string()),
    }
}

fn short_result(stdout: &Stream, status: TestStatus) -> String {
    let line = last_line(stdout);
    let line = line.trim();
    let shown = if line.is_empty() { status.word() } else { line };
    let text = match footer(line) {
        Some(footer) => {
            footer.get("shortResult").and_then(serde_json::Value::as_str).unwrap_or(status.word()).to_owned()
        }
        None => shown.to_owned(),
    };
    capped(&text.replace('\0', "\u{fffd}")).to_owned()
}

/// Only an object is a footer: an array, a number or a text is a line like any other.
fn footer(line: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    if !line.starts_with('{') || depth(line) > FOOTER_DEPTH_MAX {
        return None;
    }
    serde_json::from_str(line).ok()
}

/// An upper bound: brackets within texts count too, which at worst makes plain text of a strange footer.
fn depth(line: &str) -> usize {
    let mut deepest = 0_usize;
    let mut now = 0_usize;
    for byte in line.bytes() {
        match byte {
            b'{' | b'[' => now += 1,
            b'}' | b']' => now = now.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(now);
    }
    deepest
}

/// Returns the last line that is not blank; LF and CRLF end a line.
fn last_line(stdout: &Stream) -> String {
    let bytes = if stdout.tail.is_empty() || stdout.dropped_bytes() > 0 {
        // A gap before the tail ends nothing: a line that began in it is shown from where it is known.
        if stdout.tail.is_empty() { stdout.head.clone() } else { stdout.tail.clone() }
    } else {
        stdout.kept_bytes()
    };
    let lines = bytes.rsplit(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    // White space of all scripts is known only of text: a line of nothing but no-break spaces is blank too.
    let mut texts = lines.map(|line| String::from_utf8_lossy(&line[..line.len().min(LAST_LINE_BYTES_MAX)]));
    texts.find(|text| !text.trim().is_empty()).map(Cow::into_owned).unwrap_or_default()
}

/// Returns at most 1 KiB of a text, cut between characters.
fn capped(text: &str) -> &str {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= SHORT_RESULT_BYTES_MAX).last().unwrap_or(0);
    &text[..end]
}

/// Returns a stream as text: what is not UTF-8 and NUL are replaced, and a gap says how much is missing.
fn text(stream: &Stream) -> String {
    let dropped = stream.dropped_bytes();
    let text = if dropped == 0 {
        String::from_utf8_lossy(&stream.kept_bytes()).into_owned()
    } else {
        let (head, tail) = (whole_start(&stream.head), whole_end(&stream.tail));
        let cut = dropped + (stream.head.len() - head.len() + stream.tail.len() - tail.len()) as u64;
        let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
        format!("{head}\n[... {cut} bytes cut here ...]\n{tail}")
    };
    text.replace('\0', "\u{fffd}")
}

/// Drops the beginning of a character whose end is in the gap.
fn whole_start(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    }
}

/// Drops the end of a character whose beginning is in the gap.
fn whole_end(bytes: &[u8]) -> &[u8] {
    let inside = bytes.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
    &bytes[inside..]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use pretty_assertions::assert_eq;
    use serde::Deserialize;

    use super::*;
    use crate::model::script::Usage;

    /// A row of tests/fixtures/contract/*.json. Streams are texts, or hexadecimal where a text cannot say it.
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Row {
        name: String,
        /// What prints and ends like that; `flow::job` runs it with a real shell.
        #[expect(dead_code, reason = "read by the test in flow::job")]
        script: Option<String>,
        #[serde(default)]
        stdout: String,
        stdout_hex: Option<String>,
        #[serde(default)]
        stderr: String,
        stderr_hex: Option<String>,
        exit: Option<i32>,
        signal: Option<i32>,
        #[serde(default)]
        timeout: bool,
        expect: Expected,
    }

    #[derive(Debug, Deserialize, PartialEq, Eq)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Expected {
        status: String,
        short_result: String,
        long_result: Option<String>,
    }

    fn stream(text: &str, hex: Option<&str>) -> Stream {
        let bytes = hex.map_or_else(
            || text.as_bytes().to_vec(),
            |hex| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect(),
        );
        Stream { total_bytes: bytes.len() as u64, head: bytes, tail: Vec::new() }
    }

    fn completion(stdout: Stream, stderr: Stream, exit: Exit, ended_by: EndedBy) -> Completion {
        Completion {
            exit,
            ended_by,
            stdout,
            stderr,
            wall: Duration::from_micros(1999),
            usage: Usage::default(),
            leaked: Vec::new(),
            log_error: None,
            unkept: None,
        }
    }

    #[test]
    fn what_surprises_in_a_script_is_told() {
        let found = |text: &str| {
            let found = surprises(text.as_bytes());
            (found.has_crlf, found.interpreter)
        };
        for text in ["", "exit 0\n", "#!/bin/sh\nexit 0\n", "#! /usr/bin/env -S sh -e\n", "#!\n", "# no\n#!/bin/bash\n"]
        {
            assert_eq!(found(text), (false, None), "{text:?}");
        }
        assert_eq!(found("#!/bin/sh\r\nexit 0\r\n"), (true, None));
        assert!(!surprises(b"echo \xef\xbb\xbf").has_byte_order_mark);
        let marked = surprises("\u{feff}#!/bin/bash\r\n".as_bytes());
        let bash = Some("/bin/bash".to_owned());
        assert_eq!(marked, Surprises { has_byte_order_mark: true, has_crlf: true, interpreter: bash });
        for named in ["/bin/bash", "/usr/bin/env python3", "/usr/bin/env -S bash -e", "/opt/fish"] {
            assert_eq!(found(&format!("#! {named}\nexit 0")), (false, Some(named.to_owned())));
        }
    }

    #[test]
    fn a_script_that_may_call_make_is_known() {
        for text in ["make", "make -s all", "if ! /usr/bin/make; then", "x=$(make)", "\"make\"\n"] {
            assert!(names_make(text.as_bytes()), "{text}");
        }
        for text in ["", "cmake .", "automake", "make-it", "cat make.log Makefile", "remakes", "MAKE"] {
            assert!(!names_make(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_make_could_not_leave_is_its_last_word() {
        let mut done = completion(stream("built", None), Stream::default(), Exit::Code(0), EndedBy::Itself);
        let limit = Duration::from_secs(7);
        assert_eq!(compiler_output(&done, limit), "built\nmake: code 0");
        done.unkept = Some("`pipe` is no file".to_owned());
        let told = "built\nmake: code 0\nmake: what it made cannot be kept: `pipe` is no file";
        assert_eq!(compiler_output(&done, limit), told);
        let killed = completion(stream("begun", None), Stream::default(), Exit::Signal(15), EndedBy::Timeout);
        let told = "begun\nmake: killed after the time limit of 7 s (`timeLimitSeconds`)";
        assert_eq!(compiler_output(&killed, limit), told);
    }

    #[test]
    fn every_row_of_the_script_contract_holds() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/contract");
        let mut rows = 0;
        for file in fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            let table: Vec<Row> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            for row in table {
                let exit = row.signal.map_or(Exit::Code(row.exit.unwrap_or(0)), Exit::Signal);
                let ended_by = if row.timeout { EndedBy::Timeout } else { EndedBy::Itself };
                let stdout = stream(&row.stdout, row.stdout_hex.as_deref());
                let stderr = stream(&row.stderr, row.stderr_hex.as_deref());
                let outcome = outcome_of(&completion(stdout, stderr, exit, ended_by));
                let found = Expected {
                    status: outcome.status.as_str().to_owned(),
                    short_result: outcome.short_result,
                    long_result: outcome.long_result,
                };
                assert_eq!(found, row.expect, "{}: {}", path.display(), row.name);
                rows += 1;
            }
        }
        assert!(rows >= 40, "only {rows} rows were found");
    }

    #[test]
    fn the_time_is_rounded_down() {
        let done = completion(Stream::default(), Stream::default(), Exit::Code(0), EndedBy::Itself);
        assert_eq!(outcome_of(&done).execution_time_ms, 1);
    }

    #[test]
    fn a_script_that_killed_its_supervisor_is_an_error() {
        let done = completion(Stream::default(), Stream::default(), Exit::Signal(9), EndedBy::SupervisorKilled);
        let outcome = outcome_of(&done);
        assert_eq!(outcome.status, TestStatus::Error);
        assert!(outcome.long_result.unwrap().contains("killed the process that watched over it"));
    }

    #[test]
    fn a_gap_is_said_and_cut_characters_are_left_out() {
        let stream = Stream { head: b"abc\xc3".to_vec(), tail: b"\xa4xyz".to_vec(), total_bytes: 100 };
        assert_eq!(text(&stream), "abc\n[... 94 bytes cut here ...]\nxyz");
    }

    #[test]
    fn the_footer_is_looked_for_in_the_tail() {
        let tail = b"garbage\n{\"shortResult\":\"end\"}".to_vec();
        let stream = Stream { head: b"{\"shortResult\":\"start\"}\n".to_vec(), tail, total_bytes: 1 << 30 };
        assert_eq!(short_result(&stream, TestStatus::Pass), "end");
    }

    #[test]
    fn a_line_of_100_mb_gives_a_short_result_of_1_kib() {
        let stream = Stream { head: vec![b'a'; 1000], tail: vec![b'b'; 70_000], total_bytes: 100_000_000 };
        assert_eq!(short_result(&stream, TestStatus::Pass), "b".repeat(1024));
    }

    #[test]
    fn the_last_line_is_found_behind_much_white_space() {
        let found = |text: String| short_result(&stream(&text, None), TestStatus::Pass);
        assert_eq!(found(format!("first\n{}last\n", " ".repeat(100_000))), "last");
        assert_eq!(found("first\n\u{a0}\u{2003}\n".to_owned()), "first");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(capped(&"ä".repeat(600)).len(), 1024);
        assert_eq!(capped(&format!("a{}", "ä".repeat(600))).len(), 1023);
    }

    #[test]
    fn a_deep_footer_is_plain_text() {
        let line = format!("{{\"shortResult\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(footer(&line).is_none());
    }
}

//! Where the harness means to differ from libtest: all of it. A row that changes nothing any more is stale, and fails the test.

use crate::line::Line;
use crate::seen::{Seen, Stderr, cases};
use crate::twins::NAMES;

/// One intended difference.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) why: &'static str,
    pub(crate) how: How,
}

/// What a difference amounts to; `None` where a line has nothing to do with it.
pub(crate) enum How {
    /// We act as libtest does on another command line.
    AsIf(fn(&Line) -> Option<Line>),
    /// Of what libtest lets see, something is otherwise here.
    Seen(fn(&Line, &Seen) -> Option<Seen>),
}

use How::{AsIf, Seen as Otherwise};

/// The intended differences. Beside them, times, the text of failures and of refusals, and that of `--help`, are our own.
pub(crate) const TABLE: [Row; 15] = [
    Row {
        what: "no flag needs `-Z unstable-options`",
        why: "nothing here is unstable, and stable toolchains refuse -Z",
        how: AsIf(no_z),
    },
    Row {
        what: "an empty variable is one that is not set",
        why: "so it is for every variable that we read",
        how: AsIf(empty_variables),
    },
    Row {
        what: "`--ignored --include-ignored` is `--include-ignored`",
        why: "no trial is ignored; front ends combine what their users type",
        how: AsIf(both_ignored),
    },
    Row {
        what: "suites run one at a time, whatever --test-threads says",
        why: "they share a file system",
        how: AsIf(threads),
    },
    Row {
        what: "suites are not shuffled, and no seed is shown",
        why: "they share a file system, and run in the order of their names",
        how: AsIf(shuffle),
    },
    Row {
        what: "`--ensure-time` is `--report-time`, RUST_TEST_TIME_* are not looked at",
        why: "limits are kill-timeout and SUITE_TIMEOUT_SEC",
        how: AsIf(time_limits),
    },
    Row {
        what: "`--nocapture` changes nothing on standard output",
        why: "blocks are shown on standard error, in every format; the findings of a failure are no output of it",
        how: AsIf(nocapture),
    },
    Row { what: "`--list` writes no `--logfile`", why: "a listing writes no file", how: AsIf(log_of_a_listing) },
    Row {
        what: "`--logfile` is not called deprecated",
        why: "it is not: a warning would be one line too many for whoever reads standard error",
        how: Otherwise(no_warning),
    },
    Row {
        what: "`--list` is names and nothing else, in every format but json",
        why: "one line more makes nextest abort a run",
        how: Otherwise(names_only),
    },
    Row {
        what: "`--bench` says why a trial is ignored (pretty)",
        why: "libtest has no reason to give, we have one",
        how: Otherwise(reason),
    },
    Row { what: "the same in json", why: "IDEs show `message`", how: Otherwise(reason_in_json) },
    Row { what: "the same in the log file", why: "it is libtest's place for it", how: Otherwise(reason_in_log) },
    Row {
        what: "with one `--exact` filter, what else there is is not counted as filtered out",
        why: "nextest starts the binary once for every test: only that suite is looked for",
        how: Otherwise(not_looked_for),
    },
    Row {
        what: "`--format junit` is the document of the proof folder",
        why: "a well-kept writer, evidence and identity of the run; libtest's is one line, with control characters in it",
        how: Otherwise(junit),
    },
];

/// What libtest accepts with `-Z unstable-options` only.
const UNSTABLE: [&str; 7] = [
    "--report-time",
    "--ensure-time",
    "--shuffle",
    "--shuffle-seed",
    "--fail-fast",
    "--exclude-should-panic",
    "--force-run-in-process",
];

fn no_z(line: &Line) -> Option<Line> {
    let has_z = line.arguments.iter().any(|argument| argument.starts_with("-Z"));
    let flags: usize = UNSTABLE.iter().map(|flag| line.count(flag)).sum();
    let is_unstable = flags > 0 || matches!(line.value("--format"), Some("json" | "junit"));
    let has_variable = line.variables.iter().any(|(name, _)| name.starts_with("RUST_TEST_SHUFFLE"));
    (!has_z && (is_unstable || has_variable)).then(|| line.after("-Zunstable-options"))
}

fn empty_variables(line: &Line) -> Option<Line> {
    let mut without = line.clone();
    without.variables.retain(|(_, value)| !value.is_empty());
    (without != *line).then_some(without)
}

fn both_ignored(line: &Line) -> Option<Line> {
    (line.has("--ignored") && line.has("--include-ignored")).then(|| line.without("--ignored"))
}

fn threads(line: &Line) -> Option<Line> {
    let is_many =
        |value: Option<&str>| value.and_then(|value| value.parse::<usize>().ok()).is_some_and(|value| value > 1);
    let flag = is_many(line.value("--test-threads")).then(|| line.without("--test-threads").after("--test-threads 1"));
    let variable = is_many(line.variable("RUST_TEST_THREADS")).then(|| line.without_variables("RUST_TEST_THREADS"));
    flag.or(variable)
}

/// A seed that is none is refused on both sides, but for one that a flag overrules.
fn shuffle(line: &Line) -> Option<Line> {
    let is_seed = |value: Option<&str>| value.is_none_or(|value| value.parse::<u64>().is_ok());
    let flag = line.value("--shuffle-seed");
    if !is_seed(flag.or(line.variable("RUST_TEST_SHUFFLE_SEED"))) {
        return None;
    }
    let without = line.without("--shuffle").without("--shuffle-seed").without_variables("RUST_TEST_SHUFFLE");
    (without != *line).then_some(without)
}

fn time_limits(line: &Line) -> Option<Line> {
    let mut as_if = line.without("--ensure-time").without_variables("RUST_TEST_TIME_");
    if line.has("--ensure-time") && line.count("--report-time") == 0 {
        as_if = as_if.after("--report-time");
    }
    (as_if != *line).then_some(as_if)
}

fn nocapture(line: &Line) -> Option<Line> {
    let without = line.without("--nocapture").without("--no-capture");
    let without = without.without_variables("RUST_TEST_NOCAPTURE");
    (without != *line).then_some(without)
}

fn log_of_a_listing(line: &Line) -> Option<Line> {
    let without = line.without("--logfile");
    (line.has("--list") && without != *line).then_some(without)
}

fn no_warning(line: &Line, seen: &Seen) -> Option<Seen> {
    let is_only_that = line.has("--logfile") && seen.stderr == Stderr::Words;
    is_only_that.then(|| Seen { stderr: Stderr::Silent, ..seen.clone() })
}

fn names_only(line: &Line, seen: &Seen) -> Option<Seen> {
    let names: String = seen.stdout.split_inclusive('\n').filter(|line| line.ends_with(": test\n")).collect();
    let is_listing = line.has("--list") && seen.code == Some(0) && seen.stdout.ends_with(" benchmarks\n");
    is_listing.then(|| Seen { stdout: names, ..seen.clone() })
}

fn replaced(seen: &Seen, this: &str, by: &str) -> Option<Seen> {
    seen.stdout.contains(this).then(|| Seen { stdout: seen.stdout.replace(this, by), ..seen.clone() })
}

fn reason(_: &Line, seen: &Seen) -> Option<Seen> {
    replaced(seen, " ... ignored\n", " ... ignored, it is no benchmark\n")
        .or_else(|| replaced(seen, "\u{1b}[33mignored\u{1b}[0m\n", "\u{1b}[33mignored, it is no benchmark\u{1b}[0m\n"))
}

fn reason_in_json(_: &Line, seen: &Seen) -> Option<Seen> {
    replaced(seen, r#""event": "ignored" }"#, r#""event": "ignored", "message": "it is no benchmark" }"#)
}

fn reason_in_log(_: &Line, seen: &Seen) -> Option<Seen> {
    let log = seen.log.as_ref().filter(|log| log.contains("ignored "))?;
    Some(Seen { log: Some(log.replace("ignored ", "ignored: it is no benchmark ")), ..seen.clone() })
}

fn not_looked_for(line: &Line, seen: &Seen) -> Option<Seen> {
    let filters = line.filters();
    let others = NAMES.len() - 1;
    if !line.has("--exact") || filters.len() != 1 || !NAMES.contains(&filters[0]) {
        return None;
    }
    let counts = [(others, 0), (others + 1, 1)];
    counts.into_iter().find_map(|(all, looked_for)| {
        let text = |count: usize| [format!("; {count} filtered out"), format!("\"filtered_out\": {count}")];
        text(all).iter().zip(text(looked_for)).find_map(|(this, by)| replaced(seen, this, &by))
    })
}

fn junit(_: &Line, seen: &Seen) -> Option<Seen> {
    seen.stdout.starts_with("<?xml").then(|| Seen { stdout: cases(&seen.stdout), ..seen.clone() })
}

/// The command line on which libtest does what we do on `line`, and the rows by which it was found.
pub(crate) fn as_if(line: &Line) -> (Line, Vec<usize>) {
    let (mut real, mut used) = (line.clone(), Vec::new());
    for (number, row) in TABLE.iter().enumerate() {
        if let AsIf(change) = row.how
            && let Some(changed) = change(&real)
        {
            real = changed;
            used.push(number);
        }
    }
    (real, used)
}

/// What we have to let see where libtest shows `seen`, and the rows by which it was found.
pub(crate) fn otherwise(line: &Line, seen: &Seen) -> (Seen, Vec<usize>) {
    let (mut expected, mut used) = (seen.clone(), Vec::new());
    for (number, row) in TABLE.iter().enumerate() {
        if let Otherwise(change) = row.how
            && let Some(changed) = change(line, &expected)
        {
            expected = changed;
            used.push(number);
        }
    }
    (expected, used)
}

//! A collection as people read it: a row an outcome, what went wrong below it, the sums.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::rules::chickadee::TestStatus;
use crate::rules::collection::{BuildStatus, Collection, Outcome};
use crate::rules::report::{one_line, quoted_end};

/// Scripts that are named when not all have passed.
const NAMED_MAX: usize = 20;

/// One line of a table, and what stands below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// How the script ended; the row begins with the word for it.
    pub(crate) status: TestStatus,
    /// What follows the word.
    pub(crate) text: String,
    /// Of a script that has not passed, the end of what it said, behind `| `.
    pub(crate) quote: Option<String>,
}

/// What a table is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Columns of a line, where a terminal bounds it. Elsewhere names are whole, and of results the beginning is shown.
    pub(crate) width: Option<usize>,
    /// Of one script.
    pub(crate) time_limit: Duration,
}

/// Columns of a result where no terminal bounds it: wide characters take two (Unicode Standard Annex 11).
const RESULT_WIDTH_MAX: usize = 100;
/// Columns of a name, and of a result, that are shown on the narrowest terminal.
const CELL_WIDTH_MIN: usize = 12;
const GAP: &str = "  ";
/// Head of the last column.
const RESULT: &str = "result";

/// Width of a status, in characters.
pub(crate) const STATUS_WIDTH: usize = 7;

/// A table's head, without its first column, and its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) head: String,
    pub(crate) rows: Vec<Row>,
}

/// The columns between the status and the result: how each is called, and on which side of it there is room.
const COLUMNS: [(&str, Side); 4] =
    [("tier", Side::Right), ("points", Side::Left), ("time", Side::Left), ("test", Side::Right)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Table {
    /// Makes the table of a collection's outcomes, in their order. Columns are as wide as what is in them, or as there is room for.
    pub(crate) fn of(collection: &Collection, frame: Frame) -> Self {
        let cells: Vec<_> = collection.outcomes.iter().map(cells).collect();
        let results: Vec<_> = collection.outcomes.iter().map(|outcome| result(outcome, frame.time_limit)).collect();
        let heads = COLUMNS.map(|(head, _)| head.to_owned());
        let lines = || std::iter::once(&heads).chain(&cells);
        let mut widths = [0, 1, 2, 3].map(|at| lines().map(|line| line[at].width()).max().unwrap_or(0));
        let result_width = match frame.width {
            None => RESULT_WIDTH_MAX,
            Some(width) => {
                let before = STATUS_WIDTH + widths[..3].iter().sum::<usize>() + 5 * GAP.len();
                let longest = results.iter().map(|result| result.width()).fold(RESULT.len(), usize::max);
                let (name, result) = fitted(width.saturating_sub(before), widths[3], longest);
                widths[3] = name;
                result
            }
        };
        let rows = collection.outcomes.iter().zip(&cells).zip(&results).map(|((outcome, cells), result)| Row {
            status: outcome.status,
            text: format!("{}{GAP}{}", joined(cells, widths), cut(result, result_width)),
            quote: end_of(outcome),
        });
        Self { head: format!("{}{GAP}{RESULT}", joined(&heads, widths)), rows: rows.collect() }
    }
}

/// Returns how much of the names and of the results has room. Whichever needs less than half leaves the rest to the other.
fn fitted(room: usize, name: usize, result: usize) -> (usize, usize) {
    let name_max = (room / 2).max(room.saturating_sub(result)).max(CELL_WIDTH_MIN);
    let name = name.min(name_max);
    (name, room.saturating_sub(name).max(CELL_WIDTH_MIN))
}

/// Returns what has room in `max` columns; an ellipsis is last if there is more.
fn cut(text: &str, max: usize) -> String {
    if text.width() <= max {
        return text.to_owned();
    }
    let mut room = max.saturating_sub(1);
    let fits = |letter: &char| {
        let left = room.checked_sub(letter.width().unwrap_or(0));
        room = left.unwrap_or(room);
        left.is_some()
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// What a script said last; of one that was ended, also why: its short result does not tell.
fn result(outcome: &Outcome, time_limit: Duration) -> String {
    let said = visible(&outcome.short_result);
    if outcome.status != TestStatus::Timeout {
        return said;
    }
    let word = TestStatus::Timeout.word();
    let said = if said == word { String::new() } else { format!("; {said}") };
    format!("{word} after {} s (`timeLimitSeconds`){said}", time_limit.as_secs())
}

fn cells(outcome: &Outcome) -> [String; 4] {
    let earned = if outcome.status == TestStatus::Pass { outcome.points } else { 0 };
    [
        outcome.tier.to_owned(),
        format!("{earned}/{}", outcome.points),
        format!("{} ms", outcome.execution_time_ms),
        visible(&outcome.test_name),
    ]
}

fn joined(cells: &[String; 4], widths: [usize; 4]) -> String {
    let padded = cells.iter().zip(widths).zip(COLUMNS).map(|((cell, width), (_, side))| match side {
        Side::Left => format!("{cell:>width$}"),
        Side::Right => {
            let shown = cut(cell, width);
            let rest = width.saturating_sub(shown.width());
            format!("{shown}{:rest$}", "")
        }
    });
    padded.collect::<Vec<_>>().join(GAP)
}

/// As `one_line`, where a tab would shift what follows.
fn visible(text: &str) -> String {
    one_line(text).replace('\t', "\\t")
}

fn end_of(outcome: &Outcome) -> Option<String> {
    let text = outcome.long_result.as_deref().filter(|_| outcome.status != TestStatus::Pass)?;
    quoted_end(text)
}

/// Returns the last line: `3 of 4 passed, 8 of 11 points, 43 ms`.
pub(crate) fn sums(collection: &Collection) -> String {
    if collection.build_status == BuildStatus::Failed {
        return "nothing was graded: the make step failed".to_owned();
    }
    format!(
        "{} of {} passed, {} of {} points, {} ms",
        collection.pass_count,
        collection.total_tests,
        collection.earned_points,
        collection.total_points,
        collection.execution_time_ms
    )
}

/// Tells which scripts have not passed.
pub(crate) fn missing_marks(collection: &Collection) -> String {
    if collection.build_status == BuildStatus::Failed {
        return "the make step failed".to_owned();
    }
    let missing: Vec<_> =
        collection.outcomes.iter().filter(|outcome| outcome.status != TestStatus::Pass).map(missing_mark).collect();
    let more = missing.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", missing[..missing.len().min(NAMED_MAX)].join("; "))
}

fn missing_mark(outcome: &Outcome) -> String {
    let (name, status, points) = (visible(&outcome.test_name), outcome.status.as_str(), outcome.points);
    format!("`{name}` ({status}, {points} {})", if points == 1 { "point" } else { "points" })
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::rules::collection::{Ids, Times};

    fn outcome(name: &str, status: TestStatus, points: u32, text: &str) -> Outcome {
        Outcome {
            test_name: name.to_owned(),
            tier: if points > 9 { "release" } else { "public" },
            status,
            short_result: text.to_owned(),
            long_result: Some(format!("said of {name}\n")),
            points,
            execution_time_ms: u64::from(points) * 7,
            memory_usage_bytes: None,
            attempt_number: 1,
            is_first_pass_success: false,
        }
    }

    fn collection(outcomes: Vec<Outcome>) -> Collection {
        let ids = Ids { submission_id: "s".into(), test_setup_id: "t".into(), attempt_number: 1 };
        let times = Times { started_at: String::new(), finished_at: String::new() };
        Collection::new(ids, BuildStatus::Skipped, outcomes, times)
    }

    const LOG: Frame = Frame { width: None, time_limit: Duration::from_secs(2) };

    #[test]
    fn on_a_terminal_names_and_results_are_cut_to_its_width() {
        let (long, short, wide) = ("n".repeat(300), "ä".repeat(5), "算".repeat(150));
        for (name, text) in [(&long, &long), (&long, &short), (&short, &long), (&short, &short), (&wide, &wide)] {
            let one = outcome(name, TestStatus::Fail, 1, text);
            let lines = |width: usize| {
                let table = Table::of(&collection(vec![one.clone()]), Frame { width: Some(width), ..LOG });
                [table.head, table.rows[0].text.clone()].map(|line| STATUS_WIDTH + GAP.len() + line.width())
            };
            for width in [60, 80, 200] {
                let is_cut = name.len() + text.len() > 200;
                let found = lines(width);
                assert!(found[0] <= width && found[1] <= width, "{width}: {found:?}");
                // Half of a wide character is none.
                let all = if name == &wide { width - 2..=width } else { width..=width };
                assert!(
                    !is_cut || found.iter().any(|found| all.contains(found)),
                    "{width}: all of it is used: {found:?}"
                );
            }
            assert!(lines(0).iter().all(|chars| *chars < 70), "the narrowest");
        }
        let table = Table::of(
            &collection(vec![outcome(&long, TestStatus::Fail, 1, "expected 4")]),
            Frame { width: Some(80), ..LOG },
        );
        assert!(table.rows[0].text.ends_with("n…  expected 4"), "{}", table.rows[0].text);
    }

    #[test]
    fn in_a_log_names_are_whole_and_results_are_cut() {
        let long = "n".repeat(300);
        let table = Table::of(&collection(vec![outcome(&long, TestStatus::Fail, 1, &"ä".repeat(500))]), LOG);
        assert!(table.rows[0].text.ends_with(&format!("{long}  {}…", "ä".repeat(RESULT_WIDTH_MAX - 1))));
    }

    #[test]
    fn what_was_ended_by_its_limit_names_that() {
        let outcomes = ["timed out", "begun"].map(|said| outcome("a", TestStatus::Timeout, 1, said)).into();
        let rows = Table::of(&collection(outcomes), LOG).rows;
        assert!(rows[0].text.ends_with("  timed out after 2 s (`timeLimitSeconds`)"), "{}", rows[0].text);
        assert!(rows[1].text.ends_with("  timed out after 2 s (`timeLimitSeconds`); begun"), "{}", rows[1].text);
    }

    #[test]
    fn columns_are_aligned_and_names_are_whole() {
        let long = "a name that is so long that it would not fit into any column whose width somebody had thought of";
        let table = Table::of(
            &collection(vec![
                outcome("öäü", TestStatus::Pass, 1, "passed"),
                outcome("足し算", TestStatus::Pass, 1, "passed"),
                outcome(long, TestStatus::Error, 100, "error"),
            ]),
            LOG,
        );
        let width = long.len();
        let lines = [
            format!("tier     points    time  {:width$}  result", "test"),
            format!("public      1/1    7 ms  {:width$}  passed", "öäü"),
            // Each of the three takes two columns.
            format!("public      1/1    7 ms  {:rest$}  passed", "足し算", rest = width - 3),
            format!("release   0/100  700 ms  {long}  error"),
        ];
        let found: Vec<_> = std::iter::once(&table.head).chain(table.rows.iter().map(|row| &row.text)).collect();
        assert_eq!(found, lines.iter().collect::<Vec<_>>());
    }

    #[test]
    fn what_has_not_passed_is_quoted() {
        let table = Table::of(
            &collection(vec![outcome("a", TestStatus::Pass, 1, ""), outcome("b", TestStatus::Fail, 1, "")]),
            LOG,
        );
        let quotes: Vec<_> = table.rows.iter().map(|row| row.quote.as_deref()).collect();
        assert_eq!(quotes, [None, Some("| said of b")]);
    }

    #[test]
    fn hidden_characters_and_orders_for_ci_services_are_shown_as_what_they_are() {
        let mut evil =
            outcome("\u{1b}[2Jname\n::error::x\tcolumn", TestStatus::Error, 1, "\u{202e}short\n::set-output");
        evil.long_result = Some("::error::y\n##[group]\u{1b}[31m".to_owned());
        let table = Table::of(&collection(vec![evil.clone()]), LOG);
        let text = format!("{}\n{}", table.rows[0].text, table.rows[0].quote.clone().unwrap());
        let missing = missing_marks(&collection(vec![evil]));
        for text in [&text, &missing] {
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\t']), "{text:?}");
            assert!(!text.lines().any(|line| line.starts_with("::") || line.contains("##[")), "{text:?}");
        }
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("\\u{1b}[2Jname\\n::error::x\\tcolumn") && text.contains("| ::error::y"), "{text}");
    }

    #[test]
    fn sums_are_of_all_outcomes() {
        let outcomes = vec![
            outcome("a", TestStatus::Pass, 8, ""),
            outcome("b", TestStatus::Fail, 3, ""),
            outcome("c", TestStatus::Pass, 0, ""),
        ];
        let collection = collection(outcomes);
        assert_eq!(sums(&collection), "2 of 3 passed, 8 of 11 points, 77 ms");
        assert_eq!(missing_marks(&collection), "`b` (fail, 3 points)");
    }

    #[test]
    fn what_was_not_made_is_not_said_to_have_been_graded() {
        let failed = Collection { build_status: BuildStatus::Failed, ..collection(Vec::new()) };
        assert!(sums(&failed).contains("make step failed") && missing_marks(&failed).contains("make step failed"));
    }

    #[test]
    fn of_many_that_are_missing_some_are_named() {
        let outcomes = (0..23).map(|number| outcome(&format!("t{number}"), TestStatus::Fail, 1, "")).collect();
        let missing = missing_marks(&collection(outcomes));
        assert!(
            missing.starts_with("`t0` (fail, 1 point); ") && missing.ends_with("`t19` (fail, 1 point); and 3 more"),
            "{missing}"
        );
    }
}

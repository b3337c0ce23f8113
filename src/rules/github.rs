//! Failures as GitHub Actions shows them: annotations beside the code, and a summary of the step.

use std::fmt::Write;

use crate::rules::report::escaped;
use crate::rules::summary::Counts;

/// Failures that a summary names: it may have 1 MiB.
const FAILURES_MAX: usize = 200;
/// Characters of a reason in a summary.
const REASON_CHARS_MAX: usize = 500;

/// A trial that failed, and where somebody would look.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) trial: String,
    pub(crate) reason: String,
    /// Below the workspace, or absolute.
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: Option<usize>,
}

/// Returns the workflow command that shows a failure, one line: <https://docs.github.com/actions/reference/workflow-commands>.
pub(crate) fn annotation(failure: &Failure) -> String {
    let line = failure.line.map_or_else(String::new, |line| format!(",line={line}"));
    let (file, title) = (property(&failure.file), property(&failure.trial));
    format!("::error file={file}{line},title={title}::{}", data(&failure.reason))
}

fn data(text: &str) -> String {
    escaped(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Returns the Markdown of a step's summary. `standing` is how many trials ended how, and how many were not judged; without it, only
/// what failed is told: other processes tell of the rest.
pub(crate) fn step_summary(standing: Option<(Counts, usize)>, failures: &[Failure]) -> String {
    let mut text = String::new();
    if let Some((Counts { pass, fail, .. }, unjudged)) = standing {
        let unjudged = match unjudged {
            0 => String::new(),
            count => format!(", {count} not run to their end"),
        };
        text = format!("### Suites: {pass} passed, {fail} failed{unjudged}\n\n");
    }
    let shown = failures.iter().take(FAILURES_MAX);
    for Failure { trial, reason, file, line } in shown {
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        let place = line.map_or_else(|| file.clone(), |line| format!("{file}:{line}"));
        let (trial, reason, place) = (inert(trial), inert(&reason), inert(&place));
        // Writing to a String cannot fail.
        writeln!(text, "- **{trial}** ({place}): {reason}").unwrap_or(());
    }
    if failures.len() > FAILURES_MAX {
        writeln!(text, "- and {} more", failures.len() - FAILURES_MAX).unwrap_or(());
    }
    text
}

/// Text that neither Markdown nor HTML takes for anything else: all that could mean something is an entity.
fn inert(text: &str) -> String {
    let mut shown = String::new();
    for c in escaped(text).chars() {
        match c {
            '\n' | '\t' => shown.push(' '),
            c if c.is_ascii_punctuation() => shown.push_str(&format!("&#{};", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn failure(reason: &str) -> Failure {
        Failure { trial: "a,b".into(), reason: reason.into(), file: "suites/a:b/task.yaml".into(), line: Some(3) }
    }

    #[test]
    fn an_annotation_is_one_line_whatever_a_script_said() {
        assert_eq!(
            annotation(&failure("100%\n::add-mask::x\r\u{1b}[31m")),
            "::error file=suites/a%3Ab/task.yaml,line=3,title=a%2Cb::100%25%0A::add-mask::x\\u{1b}[31m"
        );
    }

    #[test]
    fn a_summary_has_no_markup_of_a_script() {
        let text = step_summary(None, &[failure("<b>*x*</b>\n# y [z](u) `c` | ~~d~~ @who #1")]);
        assert_eq!(text.lines().count(), 1);
        let reason = text.split_once(": ").unwrap().1.trim_end();
        assert!(!reason.contains(['<', '*', '[', '`', '|', '~', '@', '(']), "{reason}");
    }

    #[test]
    fn a_summary_counts() {
        let counts = Counts { pass: 3, fail: 1, running: 0, interrupted: 2 };
        let text = step_summary(Some((counts, 2)), &vec![failure("x"); 201]);
        assert!(text.starts_with("### Suites: 3 passed, 1 failed, 2 not run to their end\n"), "{text}");
        assert!(text.ends_with("- and 1 more\n"), "{text}");
    }
}

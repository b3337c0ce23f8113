//! Records of a summary -> JUnit XML, as CI services read it.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestRerun, TestSuite};
use serde::Deserialize;

use crate::rules::report::{escaped, finding_text, one_line, quoted};
use crate::rules::summary::{Earlier, Status};

/// The document's name in the proof folder.
pub(crate) const JUNIT: &str = "junit.xml";

/// The class of every test case: a name of ours, because trials have none.
const CLASS: &str = "suites";

/// A trial of a summary, as far as the document shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) status: Status,
    reason: Option<String>,
    findings: Vec<String>,
    #[serde(default)]
    notes: Vec<String>,
    drift: Vec<String>,
    duration_ms: u64,
    attempt: u32,
    #[serde(default)]
    earlier: Vec<Earlier>,
    pub(crate) artifacts: Vec<String>,
}

/// The end of what a trial's blocks said.
#[derive(Debug, Default)]
pub(crate) struct Output {
    stdout: String,
    stderr: String,
}

impl Output {
    /// Adds the end of a log. What a script says must not drive a terminal, and no line of it must begin with what a CI service takes
    /// for an order.
    pub(crate) fn add(&mut self, path: &str, text: &str) {
        let shown = format!("--- {}\n{}\n", one_line(path), quoted(&escaped(text)));
        if path.ends_with(".stdout.log") {
            self.stdout += &shown;
        } else {
            self.stderr += &shown;
        }
    }
}

/// Returns the document of a run: one test case a trial, in the order of the summary. `facts` are names and values that hold for
/// all of them.
///
/// # Errors
/// None that is known.
pub(crate) fn document(facts: &[(&str, String)], trials: &[(Told, Output)]) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new(CLASS);
    suite.add_properties(facts.iter().map(|(name, value)| Property::new(*name, value.as_str())));
    suite.add_test_cases(trials.iter().map(|(trial, output)| test_case(trial, output)));
    suite.set_time(Duration::from_millis(trials.iter().map(|(trial, _)| trial.duration_ms).sum()));
    let mut report = Report::new("proving-ground");
    report.add_test_suite(suite);
    report.to_string()
}

fn test_case(trial: &Told, output: &Output) -> TestCase {
    let mut case = TestCase::new(trial.name.as_str(), status(trial));
    case.set_classname(CLASS).set_time(Duration::from_millis(trial.duration_ms));
    let attempt = (trial.attempt > 1).then(|| Property::new("attempt", trial.attempt.to_string()));
    let evidence = trial.artifacts.iter().map(|path| Property::new("evidence", path.as_str()));
    case.add_properties(attempt.into_iter().chain(evidence));
    if !output.stdout.is_empty() {
        case.set_system_out(&output.stdout);
    }
    if !output.stderr.is_empty() {
        case.set_system_err(&output.stderr);
    }
    case
}

fn status(trial: &Told) -> TestCaseStatus {
    let mut status = match trial.status {
        Status::Pass => TestCaseStatus::success(),
        Status::Fail => failure(trial, trial.reason.as_deref().unwrap_or("failed")),
        Status::Running | Status::Interrupted => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_type("interrupted").set_message("never judged: the run ended before it");
            status
        }
    };
    status.add_reruns(trial.earlier.iter().filter(|earlier| earlier.status != Status::Pass).map(|earlier| {
        let mut rerun = TestRerun::new(NonSuccessKind::Failure);
        rerun.set_type("attempt").set_message(one_line(earlier.reason.as_deref().unwrap_or("never judged")));
        rerun
    }));
    status
}

fn failure(trial: &Told, reason: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    let findings = trial.findings.iter().map(|finding| finding_text(finding) + "\n");
    let notes = trial.notes.iter().map(|note| format!("  note: {}\n", one_line(note)));
    let drift = trial.drift.iter().map(|path| format!("not as before, after restore: {}\n", one_line(path)));
    let text: String = findings.chain(notes).chain(drift).collect();
    status.set_type("findings").set_message(one_line(reason)).set_description(text);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(name: &str, status: &str) -> Told {
        serde_json::from_value(json!({
            "name": name, "status": status, "reason": "a reason", "findings": ["a reason\u{1b}[31m <&> ]]>"], "drift": ["/x"],
            "duration_ms": 1500, "attempt": 1, "artifacts": ["results/a/result.json"],
        }))
        .unwrap()
    }

    fn written(trial: Told, output: Output) -> String {
        document(&[("run_id", "r".to_owned())], &[(trial, output)]).unwrap()
    }

    #[test]
    fn what_a_script_says_is_text() {
        let mut output = Output::default();
        output.add("logs/a/x.stdout.log", "]]></system-out><x/>\u{1b}[2J\u{0}\u{ffff}\n::error::x");
        let text = written(told("a", "fail"), output);
        assert!(!text.contains("<x/>") && !text.contains('\u{1b}') && !text.contains('\u{0}'), "{text}");
        assert!(text.lines().all(|line| !line.trim_start().starts_with("::")), "{text}");
        assert!(text.contains("&lt;&amp;&gt;") && text.contains("<property name=\"evidence\""), "{text}");
    }

    #[test]
    fn what_was_never_judged_is_an_error() {
        for status in ["running", "interrupted"] {
            let text = written(told("a", status), Output::default());
            assert!(text.contains("errors=\"1\"") && text.contains("never judged"), "{text}");
        }
    }

    #[test]
    fn a_trial_that_passed_when_tried_again_is_flaky() {
        let mut trial = told("a", "pass");
        trial.attempt = 2;
        trial.earlier = vec![Earlier { attempt: 1, status: Status::Fail, reason: Some("was wrong".into()) }];
        let text = written(trial, Output::default());
        assert!(text.contains("<flakyFailure message=\"was wrong\"") && text.contains("failures=\"0\""), "{text}");
    }
}

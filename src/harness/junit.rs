//! `--format junit`: the report as JUnit XML.

use std::fs;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use crate::rules::summary::Record;

/// What became of each trial, in the order in which they ended.
#[derive(Default)]
pub(super) struct Report {
    cases: Mutex<Vec<TestCase>>,
}

/// Why the report could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write the JUnit report")]
pub(super) struct ReportError(#[source] io::Error);

impl Report {
    /// Adds a trial; `failure` is the text that says why it failed, if it did.
    pub(super) fn add(&self, record: &Record, failure: Option<&str>) {
        let mut status = TestCaseStatus::success();
        if let Some(text) = failure {
            status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(record.reason.clone().unwrap_or_default()).set_description(text);
        }
        let mut case = TestCase::new(record.name.as_str(), status);
        case.set_time(Duration::from_millis(record.duration_ms));
        self.cases.lock().unwrap_or_else(PoisonError::into_inner).push(case);
    }

    /// Writes the report to standard output, or to `file`. `target` is the name of the test binary.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn print(&self, target: &str, file: Option<&str>) -> Result<(), ReportError> {
        let mut suite = TestSuite::new(target);
        suite.add_test_cases(self.cases.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
        let mut report = quick_junit::Report::new(target);
        report.add_test_suite(suite);
        let text = report.to_string().map_err(|error| ReportError(io::Error::other(error)))?;
        match file {
            Some(file) => fs::write(file, text),
            None => io::stdout().write_all(text.as_bytes()),
        }
        .map_err(ReportError)
    }
}

//! What the server is told of a job: the collection, and how the job went.
//!
//! Source: docs/protocol.md, "Job and result".

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::rules::collection::{Collection, Measured};
use crate::rules::summary::millis;

/// Bytes of a body that today's server takes, and a little less than that.
pub(super) const BODY_BYTES_MAX: usize = 10_000_000 - 64_000;
/// A text that is no longer is not cut.
const UNCUT_BYTES_MAX: usize = 512;

/// Which form the server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Today's server's: the collection, and diagnostics.
    Report,
    /// That of Chickadee's first server: the collection alone.
    Bare,
}

/// What the server is told.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) collection: Collection,
    pub(super) diagnostics: Diagnostics,
}

/// How a job went.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Diagnostics {
    #[serde(rename = "runnerID")]
    pub(super) runner_id: String,
    pub(super) final_status: &'static str,
    pub(super) timed_out: bool,
    /// ISO 8601, UTC, whole seconds.
    pub(super) started_at: String,
    pub(super) finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) termination_reason: Option<&'static str>,
    #[serde(rename = "peakRSSBytes", skip_serializing_if = "Option::is_none")]
    pub(super) peak_rss_bytes: Option<u64>,
    pub(super) wall_clock_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) child_process_count: Option<u64>,
    pub(super) stdout_bytes: u64,
    pub(super) stderr_bytes: u64,
    pub(super) stage_timings: StageTimings,
    #[serde(rename = "freeDiskMBAtStart", skip_serializing_if = "Option::is_none")]
    pub(super) free_disk_mb_at_start: Option<u64>,
    #[serde(rename = "freeDiskMBAtEnd", skip_serializing_if = "Option::is_none")]
    pub(super) free_disk_mb_at_end: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workdir_peak_bytes: Option<u64>,
}

/// How long the parts of a job took. What was not done is absent.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StageTimings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workdir_setup_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) submission_dir_setup_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) submission_download_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) test_setup_acquire_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) submission_unpack_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) starter_cleanup_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) submission_prepare_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) make_step_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) test_execution_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) test_setup_cache_hit: Option<bool>,
}

/// What was measured around the grading of a job.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) measured: Measured,
    pub(super) stages: StageTimings,
    pub(super) wall: Duration,
    pub(super) free_disk_mb_at_start: Option<u64>,
    pub(super) free_disk_mb_at_end: Option<u64>,
}

impl Report {
    /// Puts together what is known of a job.
    pub(super) fn new(runner_id: &str, collection: Collection, course: Course) -> Self {
        let diagnostics = Diagnostics {
            runner_id: runner_id.to_owned(),
            final_status: collection.final_status(),
            timed_out: collection.timeout_count > 0,
            started_at: collection.job_started_at.clone().unwrap_or_default(),
            finished_at: collection.timestamp.clone(),
            exit_code: course.measured.exit_code,
            termination_reason: course.measured.termination_reason,
            peak_rss_bytes: course.measured.peak_rss_bytes,
            wall_clock_ms: millis(course.wall),
            child_process_count: course.measured.child_process_count,
            stdout_bytes: course.measured.stdout_bytes,
            stderr_bytes: course.measured.stderr_bytes,
            stage_timings: course.stages,
            free_disk_mb_at_start: course.free_disk_mb_at_start,
            free_disk_mb_at_end: course.free_disk_mb_at_end,
            workdir_peak_bytes: course.measured.workdir_peak_bytes,
        };
        Self { collection, diagnostics }
    }

    /// Returns the body of a request, of at most [`BODY_BYTES_MAX`] bytes if cutting long texts can make it so.
    ///
    /// # Errors
    /// None that is known.
    pub(super) fn body(&self, form: Form) -> serde_json::Result<Vec<u8>> {
        let body = match form {
            Form::Report => serde_json::to_vec(self)?,
            Form::Bare => self.collection.to_json()?.into_bytes(),
        };
        Ok(if body.len() > BODY_BYTES_MAX { shrunk(&body, BODY_BYTES_MAX).unwrap_or(body) } else { body })
    }
}

/// Cuts the long texts of a report until it has at most `bytes_max`, or nothing is left to cut. `None` if nothing was, or if it is no
/// report.
pub(super) fn shrunk(body: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut report: Value = serde_json::from_slice(body).ok()?;
    let mut smaller: Option<Vec<u8>> = None;
    while smaller.as_ref().is_none_or(|body| body.len() > bytes_max) {
        let mut texts = long_texts(&mut report);
        let longest = texts.iter().map(|text| text.len()).max().filter(|longest| *longest > UNCUT_BYTES_MAX);
        let Some(longest) = longest else { break };
        texts.iter_mut().for_each(|text| cut(text, UNCUT_BYTES_MAX.max(longest / 2)));
        smaller = Some(serde_json::to_vec(&report).ok()?);
    }
    smaller
}

/// What scripts and make have written.
fn long_texts(report: &mut Value) -> Vec<&mut String> {
    let collection = if report.get("collection").is_some() { report.get_mut("collection") } else { Some(report) };
    let Some(Value::Object(collection)) = collection else { return Vec::new() };
    let mut texts = Vec::new();
    for (key, value) in collection {
        match (key.as_str(), value) {
            ("compilerOutput", Value::String(text)) => texts.push(text),
            ("outcomes", Value::Array(outcomes)) => {
                texts.extend(outcomes.iter_mut().filter_map(|outcome| match outcome.get_mut("longResult") {
                    Some(Value::String(text)) => Some(text),
                    Some(_) | None => None,
                }));
            }
            (_, _) => {}
        }
    }
    texts
}

/// Keeps the beginning and the end of a text that has more than `bytes_max`.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() <= bytes_max {
        return;
    }
    let half = bytes_max.saturating_sub(64) / 2;
    let is_end = |at: &usize| text.is_char_boundary(*at);
    let head = (0..=half).rev().find(is_end).unwrap_or(0);
    let tail = (text.len() - half..text.len()).find(is_end).unwrap_or(text.len());
    *text = format!("{}\n[... {} bytes cut here ...]\n{}", &text[..head], tail - head, &text[tail..]);
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    fn texts(report: &[u8]) -> Vec<String> {
        let mut report = serde_json::from_slice(report).unwrap();
        long_texts(&mut report).into_iter().map(|text| text.clone()).collect()
    }

    #[test]
    fn long_texts_are_cut_and_short_ones_left_alone() {
        let long = "ä".repeat(50_000);
        let outcomes = json!([{ "longResult": long, "shortResult": "kept" }, { "longResult": "short" }, {}]);
        for bare in [true, false] {
            let collection = json!({ "compilerOutput": long, "outcomes": outcomes });
            let report = if bare { collection } else { json!({ "collection": collection, "diagnostics": {} }) };
            let body = shrunk(&serde_json::to_vec(&report).unwrap(), 20_000).unwrap();
            assert!(body.len() <= 20_000, "{}", body.len());
            let texts = texts(&body);
            assert_eq!(texts.len(), 3);
            assert!(texts[0].contains("bytes cut here") && texts[1].contains("bytes cut here"), "{texts:?}");
            assert_eq!(texts[2], "short");
            assert!(String::from_utf8(body).unwrap().contains(r#""shortResult":"kept""#));
        }
    }

    #[test]
    fn what_cannot_become_as_small_as_asked_becomes_as_small_as_it_can() {
        let outcomes: Vec<_> = (0..100).map(|_| json!({ "longResult": "x".repeat(500) })).collect();
        let body = serde_json::to_vec(&json!({ "compilerOutput": "y".repeat(5000), "outcomes": outcomes })).unwrap();
        let smaller = shrunk(&body, 10_000).unwrap();
        assert!((50_000..52_500).contains(&smaller.len()), "{} of {}", smaller.len(), body.len());
        assert_eq!(shrunk(&smaller, 10_000), None);
    }

    #[test]
    fn what_has_nothing_to_cut_is_not_shrunk() {
        assert_eq!(shrunk(br#"{"outcomes":[{"longResult":"short"}]}"#, 3), None);
        for broken in ["[]", "42", "{", r#"{"collection":[]}"#, r#"{"collection":{"outcomes":[[]]}}"#] {
            assert_eq!(shrunk(broken.as_bytes(), 1), None, "{broken}");
        }
    }
}

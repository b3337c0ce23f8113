//! The wire: what the API server sends and takes.
//!
//! Source: docs/protocol.md, "Wire". What a job's manifest means is `rules::parse`'s business: here it is text.

use std::fs::File;
use std::io;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::profile::Profile;

/// A submission that is to be graded. Keys that are not known are ignored.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Job {
    #[serde(rename = "submissionID")]
    pub(super) submission_id: String,
    #[serde(rename = "testSetupID")]
    pub(super) test_setup_id: String,
    /// From 1.
    pub(super) attempt_number: u32,
    /// Absolute.
    #[serde(rename = "submissionURL")]
    pub(super) submission_url: String,
    /// Absolute.
    #[serde(rename = "testSetupURL")]
    pub(super) test_setup_url: String,
    /// As it was sent, byte for byte: a cache is keyed by it.
    pub(super) manifest: Box<RawValue>,
    /// The submission is this one file, not a zip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) submission_filename: Option<String>,
    #[serde(default, deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub(super) assignment_seed: Option<String>,
}

/// Which job: an attempt at a submission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobKey {
    #[serde(rename = "submissionID")]
    pub(super) submission_id: String,
    pub(super) attempt_number: u32,
}

impl Job {
    /// Returns which one it is.
    pub(super) fn key(&self) -> JobKey {
        JobKey { submission_id: self.submission_id.clone(), attempt_number: self.attempt_number }
    }
}

/// What a worker says of itself with each poll and heartbeat.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Activity {
    #[serde(rename = "workerID")]
    pub(super) worker_id: String,
    pub(super) hostname: String,
    pub(super) runner_version: String,
    pub(super) max_concurrent_jobs: u32,
    pub(super) active_jobs: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<Profile>,
}

/// The answer to a poll.
#[derive(Debug)]
pub(super) enum Polled {
    /// This is to be graded.
    Job(Box<Job>),
    /// There is nothing to do.
    Nothing,
}

/// An API server. Each call is one attempt: who tries again is `retry`.
pub(super) trait JobApi: Send + Sync {
    /// Asks for a job.
    ///
    /// # Errors
    ///
    /// See [`ApiError`]; [`ApiError::IdInUse`] only here.
    fn request(&self, activity: &Activity) -> Result<Polled, ApiError>;

    /// Says that this worker lives.
    ///
    /// # Errors
    ///
    /// See [`ApiError`].
    fn heartbeat(&self, activity: &Activity) -> Result<(), ApiError>;

    /// Hands in a result, a JSON text; `Ok` only when the server says that it has it.
    ///
    /// # Errors
    ///
    /// See [`ApiError`].
    fn report(&self, body: &[u8]) -> Result<(), ApiError>;

    /// Writes what lies at `url` to `to`, from its start and in place of what it held; returns the number of bytes.
    ///
    /// # Errors
    ///
    /// See [`ApiError`]; [`ApiError::TooLarge`] above `bytes_max`. The file may then hold a part.
    fn download(&self, url: &str, to: &mut File, bytes_max: u64) -> Result<u64, ApiError>;
}

/// Why an attempt failed. `url` is without its query, which may hold a key.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// No connection: the name, the network, the port, TLS.
    #[error("could not connect for `{url}`")]
    Connect {
        url: String,
        #[source]
        source: Cause,
    },
    /// A connection ended before an answer.
    #[error("lost the connection of `{url}`")]
    Dropped {
        url: String,
        #[source]
        source: Cause,
    },
    /// Nothing came, or nothing could be sent, for the idle limit.
    #[error("nothing moved for {} s in `{url}`", limit.as_secs_f32())]
    Stalled { url: String, limit: Duration },
    /// Too little came to be called progress.
    #[error("fewer than {bytes_min} bytes came in {} s of `{url}`", window.as_secs_f32())]
    TooSlow { url: String, bytes_min: u64, window: Duration },
    /// An answer ended before it was complete.
    #[error("the answer of `{url}` ended early")]
    Truncated {
        url: String,
        #[source]
        source: Cause,
    },
    /// The server refused, or is not able to.
    #[error("`{url}` answered {code}: {text}")]
    Status { url: String, code: u16, retry_after: Option<Duration>, text: String },
    /// 409 to a poll.
    #[error("the worker id is in use from another host, choose another with `--worker-id`: {text}")]
    IdInUse { text: String },
    /// What came is not what was asked for, or no HTTP at all.
    #[error("`{url}` answered with garbage: {reason}")]
    Garbage { url: String, reason: String },
    /// An answer was longer than allowed.
    #[error("the answer of `{url}` has more than {bytes_max} bytes")]
    TooLarge { url: String, bytes_max: u64 },
    /// We do not go there.
    #[error("refused to fetch `{url}`: {reason}")]
    Refused { url: String, reason: &'static str },
    /// A redirect leads where we do not go.
    #[error("refused to follow `{url}` to `{to}`: {reason}")]
    Misled { url: String, to: String, reason: &'static str },
    /// The file that was to hold a download cannot.
    #[error("could not write what came from `{url}`")]
    Disk {
        url: String,
        #[source]
        source: io::Error,
    },
    /// Our side could not even ask.
    #[error("could not make the request for `{url}`")]
    Unsent {
        url: String,
        #[source]
        source: Cause,
    },
    /// The stop flag was set.
    #[error("stopped while waiting")]
    Stopped,
}

/// What a library said; only its text is of use.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Seeds are sent as texts and as numbers; a script gets the digits that were sent.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let Some(sent) = Option::<Box<RawValue>>::deserialize(deserializer)? else { return Ok(None) };
    // A number that is read is rounded, and written in another way.
    let is_number = sent.get().starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let seed = if is_number { Ok(String::from(Box::<str>::from(sent))) } else { serde_json::from_str(sent.get()) };
    seed.map(Some).map_err(|_| D::Error::custom("a seed is a text or a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::profile::{Capability, LanguageVersion};

    /// A job as text, with `more` at its end.
    fn job(more: &str) -> String {
        format!(
            r#"{{"submissionID":"s","testSetupID":"t","attemptNumber":1,"submissionURL":"http://a/s","testSetupURL":"http://a/t",
            "manifest":{{"schemaVersion": 1}}{more}}}"#
        )
    }

    #[test]
    fn a_job_keeps_its_manifest_as_sent_and_ignores_what_is_new() {
        let job: Job = serde_json::from_str(&job(r#","somethingNew":[1]"#)).unwrap();
        assert_eq!(job.manifest.get(), r#"{"schemaVersion": 1}"#);
        assert_eq!((job.submission_filename, job.assignment_seed), (None, None));
    }

    #[test]
    fn a_seed_is_a_text_a_number_or_not_there() {
        let cases = [
            (r#","assignmentSeed":"a b""#, Some("a b")),
            (r#","assignmentSeed":42"#, Some("42")),
            (r#","assignmentSeed":18446744073709551616"#, Some("18446744073709551616")),
            (r#","assignmentSeed":-1.50"#, Some("-1.50")),
            (r#","assignmentSeed":null"#, None),
        ];
        for (more, seed) in cases {
            let job: Job = serde_json::from_str(&job(more)).unwrap();
            assert_eq!(job.assignment_seed.as_deref(), seed, "{more}");
        }
        for broken in ["[1]", "true", "{}"] {
            assert!(serde_json::from_str::<Job>(&job(&format!(r#","assignmentSeed":{broken}"#))).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_job_without_its_names_is_none() {
        for broken in ["{}", "[]", "null", "42", r#"{"submissionID":7}"#, &job(r#","attemptNumber":-1"#)] {
            assert!(serde_json::from_str::<Job>(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn an_activity_leaves_out_a_profile_that_is_not_known() {
        let mut activity = Activity {
            worker_id: "w".to_owned(),
            hostname: "h".to_owned(),
            runner_version: "1".to_owned(),
            max_concurrent_jobs: 4,
            active_jobs: 1,
            profile: None,
        };
        let bare = r#"{"workerID":"w","hostname":"h","runnerVersion":"1","maxConcurrentJobs":4,"activeJobs":1}"#;
        assert_eq!(serde_json::to_string(&activity).unwrap(), bare);
        activity.profile = Some(Profile {
            platform: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            language_versions: vec![LanguageVersion { language: "python".to_owned(), version: "3.13".to_owned() }],
            capabilities: vec![Capability { name: "numpy".to_owned() }],
        });
        let profile = r#""profile":{"platform":"linux","architecture":"x86_64","languageVersions":[{"language":"python","version":"3.13"}],"capabilities":[{"name":"numpy"}]}"#;
        assert!(serde_json::to_string(&activity).unwrap().contains(profile));
    }
}

//! What becomes of what stands in a job, before anything is done with it. For this package's own tests: no part of the worker.

use super::http::{artifact_shown, parse_job};
use super::work::plain_name;
use crate::model::verdict::Fault;

/// What was read of a job.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadJob {
    /// As it is kept while it is in hand.
    pub record: String,
    /// As it was sent.
    pub manifest: String,
    /// What the submission is called, if it is one file.
    pub submission_name: Option<String>,
    /// What its scripts are told.
    pub seed: Option<String>,
    /// Where its set-up and its submission are fetched, as people and logs are told.
    pub places: [Result<String, String>; 2],
}

/// Reads a job as a server sends it: tells what becomes of what is in it.
///
/// # Errors
/// What the log says of it.
pub fn read_job(text: &[u8]) -> Result<ReadJob, String> {
    let job = parse_job(text)?;
    let places = [&job.test_setup_url, &job.submission_url];
    Ok(ReadJob {
        record: serde_json::to_string(&job).map_err(|error| error.to_string())?,
        manifest: job.manifest.get().to_owned(),
        submission_name: job.submission_filename.as_deref().map(|name| plain_name(name).to_owned()),
        places: places.map(|url| artifact_shown(url).map_err(|error| Fault::new(&error).to_string())),
        seed: job.assignment_seed,
    })
}

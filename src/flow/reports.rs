//! What others read of a run, made of its evidence: `junit.xml`, and what GitHub Actions shows.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::model::verdict::Fault;
use crate::os::disk::{read_tail, write_atomically};
use crate::os::host::GitHub;
use crate::rules::github::{Failure, step_summary};
use crate::rules::junit::{self, JUNIT, Output, Told};
use crate::rules::summary::{Counts, SUMMARY, Status};

/// The end of a log that the document shows.
const SHOWN_BYTES_MAX: u64 = 16 << 10;

/// A summary, as far as the document shows it.
#[derive(Deserialize)]
struct Run {
    run_id: String,
    distro: Option<String>,
    container_id: Option<String>,
    isolation: Option<String>,
    product: Option<String>,
    suites: Vec<Told>,
}

/// Returns the JUnit document of the run in the proof folder `dir`.
///
/// # Errors
/// If its summary or a log cannot be read.
pub(crate) fn junit(dir: &Path) -> Result<String, Fault> {
    let path = dir.join(SUMMARY);
    let unread =
        |error: &dyn std::fmt::Display| Fault::from_text(format!("could not read `{}`: {error}", path.display()));
    let text = fs::read(&path).map_err(|error| unread(&error))?;
    let Run { run_id, distro, container_id, isolation, product, suites } =
        serde_json::from_slice(&text).map_err(|error| unread(&error))?;
    let facts = [
        ("run_id", Some(run_id)),
        ("distro", distro),
        ("container_id", container_id),
        ("isolation", isolation),
        ("product", product),
    ];
    let facts: Vec<_> = facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let trials = suites.into_iter().map(|trial| output(dir, &trial).map(|output| (trial, output)));
    let trials: Vec<_> = trials.collect::<Result<_, _>>()?;
    junit::document(&facts, &trials).map_err(|error| Fault::new(&error))
}

/// Writes the JUnit document beside the summary.
///
/// # Errors
/// If it cannot be made or written.
pub(crate) fn write_junit(dir: &Path) -> Result<(), Fault> {
    write_atomically(&dir.join(JUNIT), junit(dir)?.as_bytes()).map_err(|error| Fault::new(&error))
}

/// What a trial that passed said is in its logs: a document with all of it is one that no service takes.
fn output(dir: &Path, trial: &Told) -> Result<Output, Fault> {
    let mut output = Output::default();
    if trial.status == Status::Pass {
        return Ok(output);
    }
    for path in trial.artifacts.iter().filter(|path| path.starts_with("logs/")) {
        let file = dir.join(path);
        let tail = read_tail(&file, SHOWN_BYTES_MAX);
        let tail = tail.map_err(|error| Fault::from_text(format!("could not read `{}`: {error}", file.display())))?;
        output.add(path, &String::from_utf8_lossy(&tail));
    }
    Ok(output)
}

/// Adds to the summary of the step, if it has one. `standing` is how many trials ended how, and how many were not judged.
///
/// # Errors
/// If its file cannot be written.
pub(crate) fn write_step_summary(
    github: &GitHub,
    standing: Option<(Counts, usize)>,
    failures: &[Failure],
) -> Result<(), Fault> {
    let Some(path) = &github.step_summary else { return Ok(()) };
    append(path, &step_summary(standing, failures)).map_err(|error| {
        Fault::from_text(format!("could not write `{}`, which GITHUB_STEP_SUMMARY names: {error}", path.display()))
    })
}

fn append(path: &PathBuf, text: &str) -> io::Result<()> {
    File::options().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

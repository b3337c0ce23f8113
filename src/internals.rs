//! For this package's own tests and benchmarks. Not an API: no promise is made about it.

use std::error::Error;
use std::ffi::OsStr;
#[cfg(feature = "worker")]
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

pub use crate::model::script;
pub use crate::os::engine;
pub use crate::os::sandbox;
#[cfg(feature = "worker")]
pub use crate::worker::read::{ReadJob, read_job};

use crate::flow::collect;
use crate::flow::evidence_json::snapshot_json;
use crate::flow::verify;
use crate::model::snapshot::Snapshot;
use crate::model::suite::SuiteName;
use crate::model::verdict::Fault;
#[cfg(feature = "worker")]
use crate::os::archive::{self, ArchiveError, ArchiveLimits, Refusal};
use crate::os::disk::{SnapshotRoot, Snapshotter};
use crate::os::host;
use crate::rules::chickadee;
use crate::rules::parse::{parse_project, parse_setup, parse_suite, run_order};

/// Tells whether blocks do without the variable `name`, because cargo, rustup or nextest set it.
#[must_use]
pub fn is_cargos(name: &OsStr) -> bool {
    host::is_cargos(name)
}

/// Collects the evidence in a proof folder; returns how many files and trials it has.
///
/// # Errors
/// One line, with all causes.
pub fn collect(proof_dir: &Path) -> Result<(usize, usize), String> {
    let collected = collect::collect(proof_dir, &|| true).map_err(|error| Fault::new(&error).to_string())?;
    Ok((collected.files, collected.trials))
}

/// What was read from a file that people write.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// All of it, as `Debug` shows it.
    pub value: String,
    /// Limits of time in it.
    pub durations: Vec<Duration>,
    /// Sizes in it.
    pub sizes_bytes: Vec<u64>,
    /// Its scripts in the order in which they run, each with those that it depends on.
    pub scripts: Vec<(String, Vec<String>)>,
}

/// Reads a `task.yaml`.
///
/// # Errors
/// The first thing that is wrong with it, and where.
pub fn read_task(text: &[u8]) -> Result<Read, String> {
    let name = SuiteName::new("suite").map_err(|error| error.to_string())?;
    let suite = parse_suite(name, Path::new("task.yaml"), text).map_err(|error| error.to_string())?;
    Ok(Read {
        value: format!("{suite:?}"),
        durations: suite.kill_timeout.into_iter().collect(),
        sizes_bytes: Vec::new(),
        scripts: Vec::new(),
    })
}

/// Reads a `runner.yaml`.
///
/// # Errors
/// The first thing that is wrong with it, and where.
pub fn read_runner(text: &[u8]) -> Result<Read, String> {
    let project = parse_project(Path::new("runner.yaml"), text).map_err(|error| error.to_string())?;
    let limits = project.sandbox_limits;
    Ok(Read {
        value: format!("{project:?}"),
        durations: vec![project.timeout],
        sizes_bytes: vec![project.output_limit_bytes, limits.memory_bytes_max, limits.disk_bytes_max],
        scripts: Vec::new(),
    })
}

/// Reads a `test.properties.json`.
///
/// # Errors
/// The first thing that is wrong with it, and where.
pub fn read_properties(text: &[u8]) -> Result<Read, String> {
    let file = Path::new("test.properties.json");
    let setup = parse_setup("setup", Path::new("setup"), file, text).map_err(|error| error.to_string())?;
    let entries = run_order(&setup).into_iter().filter_map(|at| setup.entries.get(at));
    Ok(Read {
        value: format!("{setup:?}"),
        durations: vec![setup.time_limit],
        sizes_bytes: Vec::new(),
        scripts: entries.map(|entry| (entry.script.clone(), entry.depends_on.clone())).collect(),
    })
}

/// Reads a `task.yaml`, for its errors only.
///
/// # Errors
/// As [`read_task`].
pub fn check_task(text: &[u8]) -> Result<(), String> {
    read_task(text).map(drop)
}

/// Reads a `runner.yaml`, for its errors only.
///
/// # Errors
/// As [`read_runner`].
pub fn check_runner(text: &[u8]) -> Result<(), String> {
    read_runner(text).map(drop)
}

/// What Chickadee is told of a script.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Chickadee's word.
    pub status: &'static str,
    /// The text of the footer, or what stands for it.
    pub short_result: String,
    /// What the script said on stderr, and how it ended.
    pub long_result: Option<String>,
}

/// Judges a script that was run.
#[must_use]
pub fn outcome(completion: &script::Completion) -> Outcome {
    let outcome = chickadee::outcome_of(completion);
    Outcome { status: outcome.status.as_str(), short_result: outcome.short_result, long_result: outcome.long_result }
}

/// Limits for [`unpack`] in place of the usual ones.
#[cfg(feature = "worker")]
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// Of all files together.
    pub bytes_max: u64,
    /// Files and folders.
    pub entries_max: u32,
    /// Parts of a path.
    pub depth_max: u32,
}

/// Why an archive was not unpacked.
#[cfg(feature = "worker")]
#[derive(Debug, PartialEq, Eq)]
pub struct NotUnpacked {
    /// One line, with all causes.
    pub why: String,
    /// The disk is to blame.
    pub is_ours: bool,
    /// Nothing was written, because of what an entry is or is called.
    pub is_refusal: bool,
    /// There is too much in it.
    pub is_too_much: bool,
}

/// Unpacks a zip archive into an empty folder; returns how many files and bytes it has.
///
/// # Errors
/// If it is not unpacked, or only a part of it.
#[cfg(feature = "worker")]
pub fn unpack(archive: &[u8], into: &Path, limits: Option<UnpackLimits>) -> Result<(u64, u64), NotUnpacked> {
    let usual = ArchiveLimits::default();
    let limits = limits.map_or(usual, |UnpackLimits { bytes_max, entries_max, depth_max }| ArchiveLimits {
        bytes_max,
        entries_max,
        depth_max,
        ..usual
    });
    match archive::unpack(Cursor::new(archive), into, limits) {
        Ok(unpacked) => Ok((unpacked.files, unpacked.bytes)),
        Err(error) => Err(NotUnpacked {
            is_ours: matches!(error, ArchiveError::Read(_) | ArchiveError::Write { .. }),
            is_refusal: matches!(error, ArchiveError::Refused { .. }),
            is_too_much: matches!(
                error,
                ArchiveError::TooMuch { .. } | ArchiveError::Refused { why: Refusal::Deep { .. }, .. }
            ),
            why: Fault::new(&error).to_string(),
        }),
    }
}

/// What was verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// Files, the manifest included.
    pub files: usize,
    /// Trials of the summary.
    pub trials: usize,
    /// Everything that is wrong, a line each.
    pub problems: Vec<String>,
}

/// Verifies a proof folder or a bundle.
///
/// # Errors
/// One line, with all causes.
pub fn verify(path: &Path) -> Result<Verified, String> {
    let verify::Verified { files, trials, problems } =
        verify::verify(path).map_err(|error| Fault::new(&error).to_string())?;
    Ok(Verified { files, trials, problems: problems.iter().map(ToString::to_string).collect() })
}

/// Takes snapshots.
#[derive(Default)]
pub struct Snapshots(Snapshotter);

/// Where snapshots start.
pub struct Roots(Vec<SnapshotRoot>);

impl Roots {
    /// Takes absolute paths as they stand.
    #[must_use]
    pub fn new(paths: &[&Path]) -> Self {
        Self(paths.iter().map(|path| SnapshotRoot::path(path, Path::new("/"))).collect())
    }
}

/// A snapshot that was taken.
pub struct Taken(Snapshot);

impl Snapshots {
    /// Starts with what an earlier process saved.
    #[must_use]
    pub fn with_index(index: &Path) -> Self {
        Self(Snapshotter::with_index(index))
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// If we are out of descriptors or memory.
    pub fn take(&self, roots: &Roots) -> Result<Taken, Box<dyn Error>> {
        Ok(Taken(self.0.snapshot(&roots.0)?))
    }

    /// Saves what is known for later processes.
    ///
    /// # Errors
    /// If `index` cannot be written.
    pub fn save_index(&self, index: &Path) -> Result<(), Box<dyn Error>> {
        Ok(self.0.save_index(index)?)
    }

    /// Returns how many files were read so far.
    #[must_use]
    pub fn files_read(&self) -> u64 {
        self.0.files_read()
    }
}

impl Taken {
    /// Returns the number of entries.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.0.iter().len()
    }

    /// Returns the JSON text.
    ///
    /// # Errors
    /// None that is known.
    pub fn json(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        Ok(snapshot_json(&self.0)?)
    }
}

//! For this package's own tests and benchmarks. Not an API: no promise is made about it.

use std::error::Error;
use std::ffi::OsStr;
#[cfg(feature = "worker")]
use std::io::Cursor;
use std::path::Path;

pub use crate::model::script;
pub use crate::os::engine;
pub use crate::os::sandbox;

use crate::flow::collect;
use crate::flow::evidence_json::snapshot_json;
use crate::flow::verify;
use crate::model::snapshot::Snapshot;
use crate::model::suite::SuiteName;
use crate::model::verdict::Fault;
#[cfg(feature = "worker")]
use crate::os::archive;
use crate::os::disk::{SnapshotRoot, Snapshotter};
use crate::os::host;
use crate::rules::parse::{parse_project, parse_suite};

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

/// Reads a `task.yaml`.
///
/// # Errors
/// The first thing that is wrong with it, and where.
pub fn check_task(text: &[u8]) -> Result<(), String> {
    let name = SuiteName::new("suite").map_err(|error| error.to_string())?;
    parse_suite(name, Path::new("task.yaml"), text).map(drop).map_err(|error| error.to_string())
}

/// Reads a `runner.yaml`.
///
/// # Errors
/// The first thing that is wrong with it, and where.
pub fn check_runner(text: &[u8]) -> Result<(), String> {
    parse_project(Path::new("runner.yaml"), text).map(drop).map_err(|error| error.to_string())
}

/// Unpacks a zip archive into an empty folder, with the usual limits.
///
/// # Errors
/// One line, with all causes.
#[cfg(feature = "worker")]
pub fn unpack(archive: &[u8], into: &Path) -> Result<(), String> {
    let unpacked = archive::unpack(Cursor::new(archive), into, archive::ArchiveLimits::default());
    unpacked.map(drop).map_err(|error| Fault::new(&error).to_string())
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

//! For this package's own tests and benchmarks. Not an API: no promise is made about it.

use std::error::Error;
use std::ffi::OsStr;
use std::path::Path;

pub use crate::model::script;
pub use crate::os::engine;

use crate::flow::evidence_json::snapshot_json;
use crate::model::snapshot::Snapshot;
use crate::os::disk::{SnapshotRoot, Snapshotter};
use crate::os::host;

/// Tells whether blocks do without the variable `name`, because cargo, rustup or nextest set it.
#[must_use]
pub fn is_cargos(name: &OsStr) -> bool {
    host::is_cargos(name)
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

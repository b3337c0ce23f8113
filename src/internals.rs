//! For this package's own tests and benchmarks. Not an API: no promise is made about it.

use std::error::Error;
use std::ffi::OsStr;
use std::path::Path;

pub use crate::model::script;
pub use crate::os::engine;

use crate::flow::deps;
use crate::flow::evidence_json::snapshot_json;
use crate::flow::session::{Selection, Session};
use crate::flow::stages::StageFailure;
use crate::model::script::Echo;
use crate::model::snapshot::Snapshot;
use crate::model::suite::{Isolation, Project};
use crate::os::disk::{SnapshotRoot, Snapshotter};
use crate::os::host::{self, Jsonl, Overrides, Settings};

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

/// How the `deps` stage failed.
#[derive(Debug)]
pub struct StageEnd {
    /// The exit code of the command that failed; `None` if we failed.
    pub rc: Option<i32>,
    /// What is told of it.
    pub text: String,
    /// What the command said.
    pub output: String,
}

/// Runs the `deps` stage for the project in `dir`, whose proof folder is `proof`, with programs of `search_path`.
///
/// # Errors
/// If there can be no run in `dir`. How the stage failed is inside.
pub fn install_packages(
    dir: &Path,
    search_path: &OsStr,
    packages: &[&str],
) -> Result<Result<(), StageEnd>, Box<dyn Error>> {
    let host = host::host();
    let mut settings = Settings::read(&Overrides::default(), &host)?;
    settings.project_dir = dir.to_path_buf();
    settings.proof_dir = dir.join("proof");
    settings.jsonl = Jsonl::ProofOnly;
    settings.block_environment.set("PATH", search_path);
    search_path.clone_into(&mut settings.search_path);
    let packages = packages.iter().map(ToString::to_string).collect();
    let project = Project { packages, isolation: Isolation::None, ..Project::default() };
    let selection = Selection { selected: 0, not_selected: 0 };
    let session = Session::open(settings, host, project, selection, Echo::Off, &|_| {})?;
    let result = deps::install(&session, &|_| {});
    session.close().map_err(|fault| fault.to_string())?;
    Ok(result.map_err(|failure| {
        let text = failure.to_string();
        match failure {
            StageFailure::Command { rc, output, .. } => StageEnd { rc: Some(rc), text, output },
            StageFailure::Fault(_) => StageEnd { rc: None, text, output: String::new() },
        }
    }))
}

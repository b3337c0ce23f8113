//! One set-up in the cache, and how it was left.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{CacheFault, Held, Source};
use crate::os::disk::{read_ours, tried, write_atomically};
use crate::os::workdir::Tree;
use crate::worker::lock::Lock;

const SETUP: &str = "setup";
const META: &str = "meta.json";

/// A folder with a set-up and its `meta.json`.
#[derive(Debug)]
pub(super) struct Entry(PathBuf);

/// `meta.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    bytes: u64,
    digest: String,
}

/// Whether an entry can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    /// It is there, and nobody has changed it.
    AsLeft,
    /// There is none.
    Absent,
    /// There is one that is not as it was left.
    Tampered,
}

impl Entry {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    /// The set-up.
    pub(super) fn setup(&self) -> PathBuf {
        self.0.join(SETUP)
    }

    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.0).is_ok()
    }

    /// Tells whether it can be used.
    pub(super) fn fitness(&self) -> Fitness {
        if !self.is_there() {
            return Fitness::Absent;
        }
        let digest = Tree::list(&self.setup()).and_then(|tree| tree.digest()).ok();
        let is_as_left = digest.is_some() && self.meta().map(|meta| meta.digest) == digest;
        if is_as_left { Fitness::AsLeft } else { Fitness::Tampered }
    }

    /// Takes note of the set-up as it is. Returns its size in bytes.
    pub(super) fn seal(&self) -> Result<u64, CacheFault> {
        let tree = Tree::list(&self.setup())?;
        let meta = Meta { bytes: tree.space(), digest: tree.digest()? };
        let text = serde_json::to_vec(&meta).map_err(|error| tried("write", &self.0)(error.into()))?;
        write_atomically(&self.0.join(META), &text)?;
        Ok(meta.bytes)
    }

    /// Takes it into use; `lock` keeps others from removing it.
    pub(super) fn held(&self, lock: Lock) -> Result<Held, CacheFault> {
        let meta = self.0.join(META);
        let touched = File::options().write(true).open(&meta).and_then(|file| file.set_modified(SystemTime::now()));
        touched.map_err(tried("note the use of", &meta))?;
        Ok(Held { path: self.setup(), source: Source::Cache, evicted: Vec::new(), _lock: lock, once: None })
    }

    /// When it was last used, and how large it is. One that does not tell was never used, and what is in it is counted.
    pub(super) fn last_use_and_bytes(&self) -> (SystemTime, u64) {
        let used = fs::symlink_metadata(self.0.join(META)).and_then(|meta| meta.modified());
        let bytes = self.meta().map(|meta| meta.bytes);
        let counted = || Tree::list(&self.0).map_or(0, |tree| tree.space());
        (used.unwrap_or(SystemTime::UNIX_EPOCH), bytes.unwrap_or_else(counted))
    }

    fn meta(&self) -> Option<Meta> {
        serde_json::from_slice(&read_ours(&self.0.join(META)).ok()??).ok()
    }
}

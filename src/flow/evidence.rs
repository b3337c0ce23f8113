//! The evidence files of one suite. They are written while its blocks run, so that nothing waits for the disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::model::verdict::Fault;
use crate::os::disk::{DiskError, Prepared};

/// Which folder of the proof folder a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `snapshots/SUITE/`.
    Snapshot,
    /// `results/SUITE/`.
    Result,
}

/// Files that wait to be written, and files that were made to be written at the end.
pub(super) struct EvidenceFiles {
    snapshots: PathBuf,
    results: PathBuf,
    waiting: RefCell<Vec<(PathBuf, Vec<u8>)>>,
    prepared: RefCell<BTreeMap<PathBuf, Prepared>>,
}

impl EvidenceFiles {
    /// For the suite `name` in the proof folder.
    pub(super) fn new(proof_dir: &Path, name: &str) -> Self {
        Self {
            snapshots: proof_dir.join("snapshots").join(name),
            results: proof_dir.join("results").join(name),
            waiting: RefCell::default(),
            prepared: RefCell::default(),
        }
    }

    fn path(&self, kind: Kind, name: &str) -> PathBuf {
        match kind {
            Kind::Snapshot => self.snapshots.join(name),
            Kind::Result => self.results.join(name),
        }
    }

    /// Lets a text wait for the next `write`.
    pub(super) fn put(&self, kind: Kind, name: &str, text: Vec<u8>) {
        self.waiting.borrow_mut().push((self.path(kind, name), text));
    }

    /// Makes a file, because there will be a text for it soon.
    pub(super) fn prepare(&self, kind: Kind, name: &str) {
        let path = self.path(kind, name);
        // What is wrong now is still wrong when it is written, and told then.
        if let Ok(file) = Prepared::new(&path) {
            self.prepared.borrow_mut().insert(path, file);
        }
    }

    /// Writes every text that waits.
    ///
    /// # Errors
    /// The first one that cannot be written; the others are tried all the same.
    pub(super) fn write(&self) -> Result<(), Fault> {
        let waiting = self.waiting.take();
        let written = waiting.into_iter().map(|(path, text)| self.write_one(&path, &text));
        let errors: Vec<DiskError> = written.filter_map(Result::err).collect();
        errors.first().map_or(Ok(()), |error| Err(Fault::new(error)))
    }

    fn write_one(&self, path: &Path, text: &[u8]) -> Result<(), DiskError> {
        let prepared = self.prepared.borrow_mut().remove(path);
        prepared.map_or_else(|| Prepared::new(path), Ok)?.write(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_does_not_keep_the_rest_from_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("snapshots/a/before.json")).unwrap();
        let files = EvidenceFiles::new(dir.path(), "a");
        files.prepare(Kind::Result, "changes.json");
        files.put(Kind::Snapshot, "before.json", b"x".to_vec());
        files.put(Kind::Result, "changes.json", b"y".to_vec());
        let fault = files.write().unwrap_err().to_string();
        assert!(fault.contains("snapshots/a/before.json"), "{fault}");
        assert_eq!(std::fs::read(dir.path().join("results/a/changes.json")).unwrap(), b"y");
        assert_eq!(std::fs::read_dir(dir.path().join("results/a")).unwrap().count(), 1);
    }
}

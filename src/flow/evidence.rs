//! The evidence files of one suite. They are written while its blocks run, so that nothing waits for the disk.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::flow::looks::Looks;
use crate::model::snapshot::{Change, Snapshot};
use crate::model::verdict::Fault;
use crate::os::disk::write_atomically;

/// Something that waits to be written.
pub(super) enum Waiting {
    /// `snapshots/SUITE/WHEN.json`.
    Snapshot(&'static str, Arc<Snapshot>),
    /// `results/SUITE/changes.json`.
    Changes(Vec<Change>),
    /// `results/SUITE/presence.json`, as text.
    Presence(Vec<u8>),
}

/// Evidence that waits to be written, and the names of what was.
pub(super) struct EvidenceFiles<'a> {
    proof_dir: &'a Path,
    suite: &'a str,
    looks: &'a Looks,
    waiting: RefCell<Vec<Waiting>>,
    written: RefCell<BTreeSet<String>>,
}

impl<'a> EvidenceFiles<'a> {
    /// For one suite.
    pub(super) fn new(proof_dir: &'a Path, suite: &'a str, looks: &'a Looks) -> Self {
        Self { proof_dir, suite, looks, waiting: RefCell::default(), written: RefCell::default() }
    }

    /// Lets something wait for the next `write`.
    pub(super) fn put(&self, waiting: Waiting) {
        self.waiting.borrow_mut().push(waiting);
    }

    /// Writes all that waits.
    ///
    /// # Errors
    /// The first that cannot be written; the others are tried all the same.
    pub(super) fn write(&self) -> Result<(), Fault> {
        let written = self.waiting.take().iter().map(|waiting| self.write_one(waiting)).collect::<Vec<_>>();
        written.into_iter().collect()
    }

    fn write_one(&self, waiting: &Waiting) -> Result<(), Fault> {
        let name = match waiting {
            Waiting::Snapshot(when, _) => format!("snapshots/{}/{when}.json", self.suite),
            Waiting::Changes(_) => format!("results/{}/changes.json", self.suite),
            Waiting::Presence(_) => format!("results/{}/presence.json", self.suite),
        };
        let path = self.proof_dir.join(&name);
        match waiting {
            Waiting::Snapshot(_, snapshot) => self.looks.write_snapshot(&path, snapshot)?,
            Waiting::Changes(changes) => self.looks.write_changes(&path, changes)?,
            Waiting::Presence(text) => write_atomically(&path, text).map_err(|error| Fault::new(&error))?,
        }
        self.written.borrow_mut().insert(name);
        Ok(())
    }

    /// Returns the paths below the proof folder of what was written and of the blocks' logs.
    pub(super) fn names(&self) -> Vec<String> {
        let Self { suite, written, .. } = self;
        let logs = names_in(&self.proof_dir.join("logs").join(suite));
        let blocks = ["prepare", "execute", "debug", "restore", "product"];
        let log_names = blocks.iter().flat_map(|block| ["stdout", "stderr"].map(|from| format!("{block}.{from}.log")));
        let mut names: Vec<String> = log_names
            .filter(|name| logs.contains(&OsString::from(name)))
            .map(|name| format!("logs/{suite}/{name}"))
            .collect();
        let snapshots = ["before", "after", "restored"].map(|when| format!("snapshots/{suite}/{when}.json"));
        let results = ["changes", "presence"].map(|what| format!("results/{suite}/{what}.json"));
        names.extend(snapshots.into_iter().chain(results).filter(|name| written.borrow().contains(name)));
        names
    }
}

/// A folder that is not there has no names.
fn names_in(folder: &Path) -> BTreeSet<OsString> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::model::snapshot::Entry;

    #[test]
    fn what_cannot_be_written_does_not_keep_the_rest_from_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("snapshots/a/before.json")).unwrap();
        let looks = Looks::default();
        let files = EvidenceFiles::new(dir.path(), "a", &looks);
        files.put(Waiting::Snapshot("before", Arc::default()));
        files.put(Waiting::Presence(b"y".to_vec()));
        let fault = files.write().unwrap_err().to_string();
        assert!(fault.contains("snapshots/a/before.json"), "{fault}");
        assert_eq!(fs::read(dir.path().join("results/a/presence.json")).unwrap(), b"y");
        assert_eq!(fs::read_dir(dir.path().join("results/a")).unwrap().count(), 1);
        assert_eq!(files.names(), ["results/a/presence.json"]);
    }

    #[test]
    fn the_same_again_is_another_name_of_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let looks = Looks::default();
        let other: Arc<Snapshot> = Arc::new([("/a".into(), Entry::Absent)].into_iter().collect());
        for suite in ["a", "b"] {
            let files = EvidenceFiles::new(dir.path(), suite, &looks);
            files.put(Waiting::Snapshot("before", Arc::default()));
            files.put(Waiting::Snapshot("after", Arc::clone(&other)));
            files.put(Waiting::Snapshot("restored", Arc::default()));
            files.write().unwrap();
        }
        let inode = |name: &str| fs::metadata(dir.path().join("snapshots").join(name)).unwrap().ino();
        assert_eq!(inode("b/before.json"), inode("a/restored.json"));
        assert_ne!(inode("b/after.json"), inode("b/before.json"));
        // What somebody changed is not passed on as evidence.
        fs::write(dir.path().join("snapshots/b/restored.json"), "forged").unwrap();
        let files = EvidenceFiles::new(dir.path(), "c", &looks);
        files.put(Waiting::Snapshot("before", Arc::default()));
        files.write().unwrap();
        assert_ne!(inode("c/before.json"), inode("b/restored.json"));
        // What is there already, as from an earlier attempt, is replaced and not written over.
        let files = EvidenceFiles::new(dir.path(), "a", &looks);
        files.put(Waiting::Snapshot("restored", other));
        files.write().unwrap();
        let text = |name: &str| fs::read_to_string(dir.path().join("snapshots").join(name)).unwrap();
        assert!(text("a/restored.json").contains("\"/a\""));
        assert!(!text("b/before.json").contains("\"/a\""));
    }
}

//! Snapshots of the suites of one run. Most show what the one before showed: such a one is kept once, in memory and on the disk.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::flow::evidence_json::{changes_json, snapshot_json};
use crate::model::snapshot::{Change, Snapshot};
use crate::model::verdict::Fault;
use crate::os::disk::{DiskError, Kept, SnapshotRoot, Snapshotter};

/// A look that began at most so long ago is as good as a new one, if we ran nothing since: to look at a large tree takes longer.
const ONE_MOMENT: Duration = Duration::from_millis(10);

/// Takes snapshots and writes them down.
#[derive(Default)]
pub(crate) struct Looks {
    snapshotter: Snapshotter,
    latest: Mutex<Option<Latest>>,
    snapshots: Written<Arc<Snapshot>>,
    changes: Written<Vec<Change>>,
}

/// The last look.
struct Latest {
    roots: Vec<SnapshotRoot>,
    snapshot: Arc<Snapshot>,
    /// When it began; `None` once something has run since.
    began: Option<Instant>,
}

impl Looks {
    /// Looks at `roots` before a suite. What the suite before it was restored to counts, if it was looked at just now.
    ///
    /// # Errors
    /// As `look`.
    pub(crate) fn look_before(&self, roots: &[SnapshotRoot]) -> Result<Arc<Snapshot>, DiskError> {
        self.seen_within(ONE_MOMENT, roots).map_or_else(|| self.look(roots), Ok)
    }

    /// Returns what was seen at `roots`, if that was at most `age` ago and nothing has run since.
    fn seen_within(&self, age: Duration, roots: &[SnapshotRoot]) -> Option<Arc<Snapshot>> {
        let latest = self.latest();
        let latest = latest.as_ref().filter(|latest| latest.roots == roots)?;
        (latest.began?.elapsed() <= age).then(|| Arc::clone(&latest.snapshot))
    }

    /// Looks at `roots`.
    ///
    /// # Errors
    /// If we are out of descriptors or memory.
    pub(crate) fn look(&self, roots: &[SnapshotRoot]) -> Result<Arc<Snapshot>, DiskError> {
        let began = Some(Instant::now());
        let snapshot = self.snapshotter.snapshot(roots)?;
        let mut latest = self.latest();
        let same = latest.as_mut().filter(|latest| latest.roots == roots && *latest.snapshot == snapshot);
        if let Some(same) = same {
            same.began = began;
            return Ok(Arc::clone(&same.snapshot));
        }
        let snapshot = Arc::new(snapshot);
        *latest = Some(Latest { roots: roots.to_vec(), snapshot: Arc::clone(&snapshot), began });
        Ok(snapshot)
    }

    /// Takes note that something runs that may change what was seen.
    pub(crate) fn note_run(&self) {
        if let Some(latest) = &mut *self.latest() {
            latest.began = None;
        }
    }

    /// Writes a snapshot to `path`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write_snapshot(&self, path: &Path, snapshot: &Arc<Snapshot>) -> Result<(), Fault> {
        self.snapshots.write(path, snapshot, |snapshot| snapshot_json(snapshot))
    }

    /// Writes what changed between two snapshots to `path`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write_changes(&self, path: &Path, changes: &Vec<Change>) -> Result<(), Fault> {
        self.changes.write(path, changes, |changes| changes_json(changes))
    }

    fn latest(&self) -> MutexGuard<'_, Option<Latest>> {
        // It is set whole, so a panic elsewhere leaves a value that is true.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was written last, and where: the same once more is another name of that file (link(2)). That takes less time and room
/// than to write it again, and no inode.
struct Written<T>(Mutex<VecDeque<(T, Kept)>>);

/// What a suite found, and what it made of it.
const WRITTEN_MAX: usize = 2;

impl<T> Default for Written<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + PartialEq> Written<T> {
    fn write(&self, path: &Path, value: &T, text: fn(&T) -> serde_json::Result<Vec<u8>>) -> Result<(), Fault> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written.iter().any(|(other, file)| other == value && file.link(path)) {
            return Ok(());
        }
        let text = text(value).map_err(|error| Fault::new(&error))?;
        let kept = Kept::write(path, &text).map_err(|error| Fault::new(&error))?;
        written.truncate(WRITTEN_MAX - 1);
        written.push_front((value.clone(), kept));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a folder, adds a file to it, does `between`, and tells whether a look before the next suite sees the file.
    fn sees_what_was_added(one_moment: Duration, between: fn(&Looks)) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let roots = [SnapshotRoot::path(dir.path(), Path::new("/"))];
        let looks = Looks::default();
        looks.look(&roots).unwrap();
        std::fs::write(dir.path().join("added"), "").unwrap();
        between(&looks);
        let seen = looks.seen_within(one_moment, &roots).unwrap_or_else(|| looks.look(&roots).unwrap());
        seen.get(&dir.path().join("added")).is_some()
    }

    #[test]
    fn a_look_counts_for_the_next_suite_only_within_one_moment() {
        let (long, none) = (Duration::from_secs(3600), Duration::ZERO);
        assert!(!sees_what_was_added(long, |_| {}));
        assert!(sees_what_was_added(none, |_| {}));
    }

    #[test]
    fn a_look_counts_no_more_when_something_has_run() {
        let long = Duration::from_secs(3600);
        assert!(sees_what_was_added(long, Looks::note_run));
        assert!(sees_what_was_added(long, |looks| drop(looks.look(&[]).unwrap())));
    }
}

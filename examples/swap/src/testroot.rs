//! A small tree for unit tests: every applet of every experiment with its provider; removed at the end.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cli::RootChoice;
use crate::experiment::Experiment;
use crate::root::{Access, Root};

static NEXT: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct TestRoot {
    dir: PathBuf,
}

impl TestRoot {
    pub(crate) fn new(name: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("swap-unit-{}-{number}-{name}", std::process::id()));
        let test = Self { dir };
        for experiment in Experiment::ALL {
            for applet in experiment.applets() {
                test.program(&format!("usr/bin/{applet}"), "original");
                test.program(&format!("usr/lib/{}/{applet}", experiment.provider()), "provided");
            }
        }
        test
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }

    pub(crate) fn open(&self) -> Root {
        Root::open(&RootChoice::Flag(self.dir.clone()), Access::Change).unwrap()
    }

    /// Returns name, inode, mode and mtime of everything in `usr/bin`, sorted.
    pub(crate) fn listing(&self) -> Vec<(String, u64, u32, i64)> {
        let mut listing: Vec<_> = fs::read_dir(self.path("usr/bin"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                // A link that is made again is another inode; where it leads is what counts.
                let inode = if metadata.is_symlink() { 0 } else { metadata.ino() };
                let mtime = if metadata.is_symlink() { 0 } else { metadata.mtime_nsec() };
                (entry.file_name().to_string_lossy().into_owned(), inode, metadata.mode(), mtime)
            })
            .collect();
        listing.sort();
        listing
    }

    fn program(&self, part: &str, text: &str) {
        let path = self.path(part);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for TestRoot {
    fn drop(&mut self) {
        // A tree that is already gone is what we want.
        drop(fs::remove_dir_all(&self.dir));
    }
}

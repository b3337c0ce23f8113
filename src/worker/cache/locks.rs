//! Locks of the cache, between threads and between processes: each is a file, locked with flock(2) through a descriptor of its own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{CacheFault, Key};
use crate::os::disk::tried;
use crate::os::workdir::make_private;
use crate::worker::lock::Lock;
use crate::worker::state::names_in;

/// Folder of the locks of entries. They cannot lie in what they protect, which is removed.
const LOCKS: &str = "locks";
/// Who makes room or a folder aside has it.
const ALL: &str = "all";

#[derive(Debug)]
pub(super) struct Locks(PathBuf);

impl Locks {
    pub(super) fn open(dir: &Path) -> Result<Self, CacheFault> {
        let dir = dir.join(LOCKS);
        make_private(&dir)?;
        Ok(Self(dir))
    }

    /// Waits for the lock of all; it is held for moments only.
    pub(super) fn all(&self) -> Result<Lock, CacheFault> {
        self.locked(ALL, &Lock::exclusive)
    }

    /// Waits until nobody removes the entry.
    pub(super) fn shared(&self, key: &Key) -> Result<Lock, CacheFault> {
        self.locked(&key.0, &Lock::shared)
    }

    /// Waits until nobody fills the entry.
    pub(super) fn filling(&self, key: &Key) -> Result<Lock, CacheFault> {
        self.locked(&fill_name(key), &Lock::exclusive)
    }

    /// Gives back the lock that `filling` has returned, and its file, which is of no use between two.
    pub(super) fn forget(&self, filling: Lock, key: &Key) -> Result<(), CacheFault> {
        let path = self.0.join(fill_name(key));
        let removed = fs::remove_file(&path).map_err(tried("remove", &path));
        drop(filling);
        Ok(removed?)
    }

    /// `None` if another has it.
    pub(super) fn try_exclusive(&self, key: &Key) -> Result<Option<Lock>, CacheFault> {
        self.try_locked(&key.0)
    }

    fn try_locked(&self, name: &str) -> Result<Option<Lock>, CacheFault> {
        let path = self.0.join(name);
        loop {
            let file = open(&path)?;
            let id = id(file.metadata()).map_err(tried("look at", &path))?;
            let lock = Lock::try_exclusive(file).map_err(tried("lock", &path))?;
            if is_there(&path, id) {
                return Ok(lock.ok());
            }
        }
    }

    /// Removes the files of entries that are no more, and of fillers that were killed.
    pub(super) fn sweep(&self, is_there: &dyn Fn(&Key) -> bool) -> Result<(), CacheFault> {
        for name in names_in(&self.0).map_err(tried("read", &self.0))? {
            let Some(name) = name.to_str().filter(|name| *name != ALL) else { continue };
            if Key::parse(name).is_some_and(|key| is_there(&key)) {
                continue;
            }
            if let Some(_lock) = self.try_locked(name)? {
                let path = self.0.join(name);
                fs::remove_file(&path).map_err(tried("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Opens a lock's file and locks it with `lock`. One that was removed meanwhile is nobody's lock any more.
    fn locked(&self, name: &str, lock: &dyn Fn(File) -> io::Result<Lock>) -> Result<Lock, CacheFault> {
        let path = self.0.join(name);
        loop {
            let locked = lock(open(&path)?).map_err(tried("lock", &path))?;
            let id = id(locked.file().metadata()).map_err(tried("look at", &path))?;
            if is_there(&path, id) {
                return Ok(locked);
            }
        }
    }
}

fn open(path: &Path) -> Result<File, CacheFault> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    Ok(options.open(path).map_err(tried("open the lock", path))?)
}

/// Device and inode.
fn id(meta: io::Result<fs::Metadata>) -> io::Result<(u64, u64)> {
    meta.map(|meta| (meta.dev(), meta.ino()))
}

/// Tells whether the file is still the one that is found at `path`.
fn is_there(path: &Path, file: (u64, u64)) -> bool {
    id(fs::symlink_metadata(path)).is_ok_and(|found| found == file)
}

fn fill_name(key: &Key) -> String {
    format!("{}.fill", key.0)
}

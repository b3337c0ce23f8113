//! Locks of the cache, between threads and between processes: each is a file, locked with flock(2) through a descriptor of its own.
//!
//! Nobody waits in the kernel: whoever has a lock may be another process, which may be stopped for ever.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{CacheFault, Key};
use crate::os::disk::{remove_file, tried};
use crate::os::workdir::make_private;
use crate::worker::lock::Lock;
use crate::worker::state::names_in;
use crate::worker::stop::Stop;

/// Folder of the locks of entries. They cannot lie in what they protect, which is removed.
const LOCKS: &str = "locks";
/// Who makes room or a folder aside has it.
const ALL: &str = "all";

/// Between two looks at a lock that another has: from this, doubling, to the maximum.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Locks {
    dir: PathBuf,
    /// Ends every wait.
    stop: Stop,
    /// The longest wait.
    patience: Duration,
}

/// Takes a lock or gives the file back.
type Take = fn(File) -> io::Result<Result<Lock, File>>;

impl Locks {
    pub(super) fn open(dir: &Path, stop: Stop, patience: Duration) -> Result<Self, CacheFault> {
        let dir = dir.join(LOCKS);
        make_private(&dir)?;
        Ok(Self { dir, stop, patience })
    }

    /// Waits for the lock of all; it is held for moments only.
    pub(super) fn all(&self) -> Result<Lock, CacheFault> {
        self.locked(ALL, Lock::try_exclusive)
    }

    /// Waits until nobody removes the entry.
    pub(super) fn shared(&self, key: &Key) -> Result<Lock, CacheFault> {
        self.locked(&key.0, Lock::try_shared)
    }

    /// Waits until nobody fills the entry; `None` if somebody does for longer than anybody waits.
    pub(super) fn filling(&self, key: &Key) -> Result<Option<Lock>, CacheFault> {
        match self.locked(&fill_name(key), Lock::try_exclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(CacheFault::Held { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives back the lock that `filling` has returned, and its file, which is of no use between two.
    pub(super) fn forget(&self, filling: Lock, key: &Key) -> Result<(), CacheFault> {
        let path = self.dir.join(fill_name(key));
        let removed = remove_file(&path);
        drop(filling);
        Ok(removed?)
    }

    /// `None` if another has it.
    pub(super) fn try_exclusive(&self, key: &Key) -> Result<Option<Lock>, CacheFault> {
        self.try_locked(&key.0)
    }

    fn try_locked(&self, name: &str) -> Result<Option<Lock>, CacheFault> {
        Ok(self.taken(name, Lock::try_exclusive)?.ok())
    }

    /// Removes the files of entries that are no more, and of fillers that were killed.
    pub(super) fn sweep(&self, is_there: &dyn Fn(&Key) -> bool) -> Result<(), CacheFault> {
        for name in names_in(&self.dir).map_err(tried("read", &self.dir))? {
            let Some(name) = name.to_str().filter(|name| *name != ALL) else { continue };
            if Key::parse(name).is_some_and(|key| is_there(&key)) {
                continue;
            }
            if let Some(_lock) = self.try_locked(name)? {
                let path = self.dir.join(name);
                fs::remove_file(&path).map_err(tried("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Waits until a lock can be had.
    fn locked(&self, name: &str, take: Take) -> Result<Lock, CacheFault> {
        let (begun, mut pause) = (Instant::now(), LOOK_MIN);
        loop {
            let path = match self.taken(name, take)? {
                Ok(lock) => return Ok(lock),
                Err(path) => path,
            };
            if self.stop.wait(pause) {
                return Err(CacheFault::Stopped { path });
            }
            if begun.elapsed() >= self.patience {
                return Err(CacheFault::Held { path, waited: self.patience });
            }
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// Opens a lock's file and takes it; if another has it, returns its path. One that was removed meanwhile is nobody's lock any more.
    fn taken(&self, name: &str, take: Take) -> Result<Result<Lock, PathBuf>, CacheFault> {
        let path = self.dir.join(name);
        loop {
            let file = self.file(&path)?;
            let id = id(file.metadata()).map_err(tried("look at", &path))?;
            let taken = take(file).map_err(tried("lock", &path))?;
            if is_there(&path, id) {
                return Ok(taken.map_err(|_| path));
            }
        }
    }

    /// Opens a lock's file. Whoever clears caches away may have removed our folders, which is no reason to fail every job from then on.
    fn file(&self, path: &Path) -> Result<File, CacheFault> {
        let mut options = File::options();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let opened = match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_private(&self.dir)?;
                options.open(path)
            }
            opened => opened,
        };
        Ok(opened.map_err(tried("open the lock", path))?)
    }
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

//! Set-ups that were downloaded before, unpacked on the disk.
//!
//! `<cache>/<key>/setup` is a set-up, `<key>/meta.json` tells its size and how it was left; the time of the latter's last change is that
//! of the last use. Whoever uses an entry has a shared lock on `locks/<key>`, whoever removes one has it alone, and whoever fills
//! one has `locks/<key>.fill`; so several workers of a user may share the folder. An entry is made beside (`.new-…`, its folder locked
//! by its maker) and renamed, and renamed before it is removed: whoever is killed leaves an entry whole or what the next worker sweeps.
//!
//! Scripts without a sandbox run as the user that owns all this. What the kernel says of the files (`Tree::digest`) is compared before
//! each use: a script that writes to an entry, by accident or to cheat, does not change what the next job is graded with. One that writes
//! `meta.json` to match as well is not stopped by this, but by `--sandbox`.

mod entry;
mod locks;

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::os::disk::{DiskError, PathError, is_sha256_text, sha256_text, tried};
use crate::os::workdir::{PrivateFolderError, WorkdirError, make_private, remove};
use crate::worker::lock::Lock;
use crate::worker::state::names_in;
use crate::worker::stop::Stop;
use entry::{Entry, Fitness};
use locks::Locks;

/// What the folders are called that are being made or removed.
const ASIDE: &str = ".new-";
/// The longest wait for another's lock: a slow line may need that for a set-up, a worker that is stopped has a lock for ever.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a set-up could not be had. `E` is what filling fails with.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError<E: Error + 'static> {
    #[error(transparent)]
    Fill(E),
    #[error(transparent)]
    Cache(#[from] CacheFault),
}

/// Why the cache could not do its part.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheFault {
    #[error(transparent)]
    Folder(#[from] PrivateFolderError),
    #[error(transparent)]
    Io(#[from] PathError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Tree(#[from] WorkdirError),
    #[error("the worker was told to end while another had the lock `{path}` of the cache", path = path.display())]
    Stopped { path: PathBuf },
    #[error(
        "another process has had the lock `{path}` of the cache for {} s; end it, or give each worker a `--test-setup-cache-dir`",
        waited.as_secs(),
        path = path.display()
    )]
    Held { path: PathBuf, waited: Duration },
}

/// What a set-up is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(String);

impl Key {
    /// Of a set-up's id, where it is, and the bytes of its manifest: when one of them changes it is another set-up.
    pub(super) fn new(test_setup_id: &str, url: &str, manifest: &[u8]) -> Self {
        let text = format!("{test_setup_id}\0{url}\0{}", sha256_text(manifest));
        Self(sha256_text(text.as_bytes()))
    }

    /// What an entry is called.
    fn parse(name: &str) -> Option<Self> {
        is_sha256_text(name).then(|| Self(name.to_owned()))
    }
}

/// Unpacked set-ups, the least recently used of which make room for others.
#[derive(Debug)]
pub(super) struct SetupCache {
    dir: PathBuf,
    locks: Locks,
    bytes_max: u64,
    next: AtomicU64,
}

/// Where a set-up came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It was there.
    Cache,
    /// It was filled.
    Filled,
    /// It was there, and somebody had changed it: thrown away, and filled again.
    FilledForTampered,
}

/// A set-up that nobody removes as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    pub(super) source: Source,
    /// Keys of set-ups that had to go for it.
    pub(super) evicted: Vec<String>,
    _lock: Lock,
    /// To be removed after its one use.
    once: Option<PathBuf>,
}

impl Held {
    /// The unpacked set-up. Nobody may write there.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether nothing had to be downloaded.
    pub(super) fn was_there(&self) -> bool {
        self.source == Source::Cache
    }

    /// Tells whether it stays for others; it does not if it is larger than all that may stay.
    #[cfg(test)]
    fn is_kept(&self) -> bool {
        self.once.is_none()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What stays is swept by the next worker that starts.
        self.once.iter().for_each(|dir| remove(dir).unwrap_or(()));
    }
}

impl SetupCache {
    /// Opens the cache in the folder `dir`, which is made for our eyes only; at most `bytes_max` bytes stay in it. What killed workers
    /// have left half-made is removed, and what is over the bound. `stop` ends its waits for other workers.
    ///
    /// # Errors
    /// If others may enter the folder, or something in it cannot be read or removed.
    pub(super) fn open(dir: &Path, bytes_max: u64, stop: Stop) -> Result<Self, CacheFault> {
        Self::open_for(dir, bytes_max, stop, PATIENCE)
    }

    fn open_for(dir: &Path, bytes_max: u64, stop: Stop, patience: Duration) -> Result<Self, CacheFault> {
        make_private(dir)?;
        let locks = Locks::open(dir, stop, patience)?;
        let cache = Self { dir: dir.to_path_buf(), locks, bytes_max, next: AtomicU64::new(0) };
        let _all = cache.locks.all()?;
        cache.sweep()?;
        cache.make_room(0)?;
        cache.locks.sweep(&|key| cache.entry(key).is_there())?;
        Ok(cache)
    }

    /// Returns the set-up `key`; `fill` puts it into the empty folder it is given, if it is not there. Of several that want one that is
    /// not there, be they of other processes, one fills and the others wait; one that has waited for `PATIENCE` makes one for itself.
    ///
    /// # Errors
    /// What `fill` fails with, and if the cache cannot do its part, or a wait was stopped. Nothing of the entry stays then.
    pub(super) fn acquire<E: Error + 'static>(
        &self,
        key: &Key,
        fill: &mut dyn FnMut(&Path) -> Result<(), E>,
    ) -> Result<Held, CacheError<E>> {
        let entry = self.entry(key);
        let lock = self.locks.shared(key)?;
        if entry.fitness() == Fitness::AsLeft {
            return Ok(entry.held(lock)?);
        }
        drop(lock);
        let Some(filling) = self.locks.filling(key)? else {
            return Ok(self.make(fill)?.once(Source::Filled));
        };
        let acquired = self.acquire_or_fill(key, &entry, fill);
        // Whoever waits for it makes a new one.
        self.locks.forget(filling, key)?;
        acquired
    }

    /// As `acquire`, when nobody else fills the entry.
    fn acquire_or_fill<E: Error + 'static>(
        &self,
        key: &Key,
        entry: &Entry,
        fill: &mut dyn FnMut(&Path) -> Result<(), E>,
    ) -> Result<Held, CacheError<E>> {
        let lock = self.locks.shared(key)?;
        match entry.fitness() {
            Fitness::AsLeft => Ok(entry.held(lock)?),
            Fitness::Absent => Ok(self.settle(self.make(fill)?, entry, (lock, Source::Filled))?),
            Fitness::Tampered => {
                drop(lock);
                let source = Source::FilledForTampered;
                match self.locks.try_exclusive(key)? {
                    Some(_alone) => self.throw_away(entry)?,
                    // Others work with it; it cannot be taken from them.
                    None => return Ok(self.make(fill)?.once(source)),
                }
                let lock = self.locks.shared(key)?;
                Ok(self.settle(self.make(fill)?, entry, (lock, source))?)
            }
        }
    }

    /// Fills a folder beside the entries.
    fn make<E: Error + 'static>(&self, fill: &mut dyn FnMut(&Path) -> Result<(), E>) -> Result<Made, CacheError<E>> {
        let (dir, lock) = self.folder_aside()?;
        let entry = Entry::new(dir);
        let made = make_private(&entry.setup()).map_err(|error| CacheError::Cache(error.into()));
        let filled = made.and_then(|()| fill(&entry.setup()).map_err(CacheError::Fill));
        match filled.and_then(|()| Ok(entry.seal()?)) {
            Ok(bytes) => Ok(Made { entry, lock, bytes }),
            Err(error) => {
                // The error that is already there matters more.
                remove(entry.dir()).ok();
                Err(error)
            }
        }
    }

    /// Gives what was made its name, if there is room, and takes it into use with the shared lock of the entry.
    fn settle(&self, made: Made, entry: &Entry, (lock, source): (Lock, Source)) -> Result<Held, CacheFault> {
        let _all = self.locks.all()?;
        let evicted = if made.bytes > self.bytes_max { None } else { self.make_room(made.bytes)? };
        let Some(evicted) = evicted else { return Ok(made.once(source)) };
        fs::rename(made.entry.dir(), entry.dir()).map_err(tried("rename", made.entry.dir()))?;
        let mut held = entry.held(lock)?;
        (held.source, held.evicted) = (source, evicted);
        Ok(held)
    }

    /// Removes the least recently used entries that nobody uses, until `bytes` more have room. `None` if they have none. The lock of all
    /// must be ours.
    fn make_room(&self, bytes: u64) -> Result<Option<Vec<String>>, CacheFault> {
        let mut entries = self.entries()?;
        entries.sort();
        let mut used = entries.iter().fold(0_u64, |sum, (_, _, bytes)| sum.saturating_add(*bytes));
        let mut evicted = Vec::new();
        for (_, key, entry_bytes) in entries {
            if used.saturating_add(bytes) <= self.bytes_max {
                break;
            }
            if let Some(_lock) = self.locks.try_exclusive(&key)? {
                self.throw_away(&self.entry(&key))?;
                used = used.saturating_sub(entry_bytes);
                evicted.push(key.0);
            }
        }
        Ok((used.saturating_add(bytes) <= self.bytes_max).then_some(evicted))
    }

    /// Every entry: when it was last used, and its size.
    fn entries(&self) -> Result<Vec<(std::time::SystemTime, Key, u64)>, CacheFault> {
        let names = names_in(&self.dir).map_err(tried("read", &self.dir))?;
        let keys = names.iter().filter_map(|name| Key::parse(name.to_str()?));
        Ok(keys
            .map(|key| {
                let (used, bytes) = self.entry(&key).last_use_and_bytes();
                (used, key, bytes)
            })
            .collect())
    }

    /// Removes an entry. Its lock must be ours alone.
    fn throw_away(&self, entry: &Entry) -> Result<(), CacheFault> {
        if !entry.is_there() {
            return Ok(());
        }
        let aside = self.free_name();
        // As long as it is locked no other worker sweeps it. One that a script has closed to us may be swept by two.
        let _lock = File::open(entry.dir()).and_then(Lock::try_exclusive);
        fs::rename(entry.dir(), &aside).map_err(tried("rename", entry.dir()))?;
        Ok(remove(&aside).map_err(tried("remove", &aside))?)
    }

    /// Removes what was being made or removed when its worker was killed. The lock of all must be ours.
    fn sweep(&self) -> Result<(), CacheFault> {
        for name in names_in(&self.dir).map_err(tried("read", &self.dir))? {
            let path = self.dir.join(&name);
            if name.to_string_lossy().starts_with(ASIDE) && is_left(&path) {
                remove(&path).map_err(tried("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Makes a folder with a free name, which nobody sweeps as long as its lock lives.
    fn folder_aside(&self) -> Result<(PathBuf, Lock), CacheFault> {
        let _all = self.locks.all()?;
        let dir = self.free_name();
        make_private(&dir)?;
        // It is new: nobody else has it.
        let lock = File::open(&dir).and_then(Lock::exclusive).map_err(tried("lock", &dir))?;
        Ok((dir, lock))
    }

    fn free_name(&self) -> PathBuf {
        let numbers = std::iter::repeat_with(|| self.next.fetch_add(1, Ordering::Relaxed));
        let mut names = numbers.map(|number| self.dir.join(format!("{ASIDE}{}-{number}", std::process::id())));
        names.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_default()
    }

    fn entry(&self, key: &Key) -> Entry {
        Entry::new(self.dir.join(&key.0))
    }
}

/// A folder beside the entries that is filled.
struct Made {
    entry: Entry,
    lock: Lock,
    bytes: u64,
}

impl Made {
    /// To be used once, and not kept.
    fn once(self, source: Source) -> Held {
        let Self { entry, lock, .. } = self;
        Held { path: entry.setup(), source, evicted: Vec::new(), _lock: lock, once: Some(entry.dir().to_path_buf()) }
    }
}

/// Whether the maker of a folder is gone. One that cannot be opened was left by nobody who is still at work.
fn is_left(dir: &Path) -> bool {
    File::open(dir).and_then(Lock::try_exclusive).map_or(true, |lock| lock.is_ok())
}

#[cfg(test)]
mod tests;

//! Looking at paths.
//!
//! A folder is opened once by its path; what is in it is looked at relative to its descriptor, in the order of names, and
//! only then the folders in it are opened. So one descriptor is open at a time, however deep a script nested its folders,
//! nothing recurses, and an unchanged file costs one `statx`. walkdir is not used: it resolves the whole path of every
//! entry again, and gives no descriptor to open a file by.
//!
//! What is opened is compared with what was looked at (device and inode), and nothing but regular files and folders is
//! opened, without following links and without waiting: a pipe never holds a snapshot up.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io, vec};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::hash_cache::{Fact, FileId, HashCache, Known, Moment};
use super::names::{NameCache, Names};
use super::roots::{self, Folders, Name, SnapshotRoot};
use super::stat::{Stat, now, stat, stat_of};
use super::xattr::{self, Handle};
use super::{DiskError, write_atomically};
use crate::model::snapshot::{Content, Entry, Listing, Meta, Snapshot, SpecialKind, WalkOrder, XattrValue, Xattrs};

/// Longest path the kernel takes, its closing NUL included (`PATH_MAX`). What lies deeper no program can name.
const PATH_BYTES_MAX: usize = 4096;

/// Larger files are not read: a script makes one of 8 EiB in no time, and hashing it would take centuries.
const HASHED_BYTES_MAX: u64 = 16 << 30;

/// Stays in the processor's caches: with four times as much, to copy takes four times as long.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// How often something that changes its type while we look is looked at.
const LOOKS_MAX: usize = 3;

/// Takes snapshots, and remembers what it read for the next one. Threads may share it.
#[derive(Debug, Default)]
pub(crate) struct Snapshotter {
    cache: Mutex<HashCache>,
    names: Mutex<NameCache>,
    files_read: AtomicU64,
}

impl Snapshotter {
    /// Starts with what an earlier process saved to `index`. An index that is not whole, not ours, or that others may
    /// write counts as empty.
    #[must_use]
    pub(crate) fn with_index(index: &Path) -> Self {
        let cache = read_own_file(index).and_then(|bytes| HashCache::from_bytes(bytes, effective_user()));
        Self { cache: Mutex::new(cache.unwrap_or_default()), ..Self::default() }
    }

    /// Saves what is known to `index`, unless it is what the index says already.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub(crate) fn save_index(&self, index: &Path) -> Result<(), DiskError> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if !cache.has_news() {
            return Ok(());
        }
        write_atomically(index, &cache.to_bytes(effective_user()))
    }

    /// Returns how many regular files were opened to be hashed so far.
    #[must_use]
    pub(crate) fn files_read(&self) -> u64 {
        self.files_read.load(atomic::Ordering::Relaxed)
    }

    /// Records what is at every root now.
    ///
    /// A folder is recorded with everything below it on the same file system; where another one is mounted, the folder
    /// says so ([`Listing::OtherFileSystem`]) and has to be a root of its own. A link is recorded as it is. A plain path
    /// without a file is [`Entry::Absent`], also where the folder above it is missing or is no folder. A path longer than
    /// `PATH_MAX`, a file over 16 GiB, a file that would make the reader wait are unreadable.
    ///
    /// # Errors
    /// Only if we are out of descriptors or memory; nothing that a script does to the disk is an error.
    pub(crate) fn snapshot(&self, roots: &[SnapshotRoot]) -> Result<Snapshot, DiskError> {
        let mut look = Look {
            snapshotter: self,
            now: Moment(now()),
            list_buffer: Vec::new(),
            read_buffer: Vec::new(),
            above: FolderAbove::default(),
            entries: Vec::with_capacity(roots.len()),
        };
        let mut paths: Vec<Cow<'_, Path>> = Vec::with_capacity(roots.len());
        for root in roots {
            if root.is_pattern() {
                paths.extend(roots::expand(root, &mut look)?.into_iter().map(Cow::Owned));
            } else {
                paths.push(Cow::Borrowed(root.base()));
            }
        }
        paths.sort_unstable_by(|a, b| walk_order(a, b));
        paths.dedup_by(|a, b| a.as_os_str() == b.as_os_str());
        let mut order = WalkOrder::Sorted;
        let mut walked: Option<&Path> = None;
        for path in &paths {
            let is_inside = walked.is_some_and(|folder| path.starts_with(folder));
            if is_inside && look.has(path) {
                continue;
            }
            if is_inside {
                order = WalkOrder::Any;
            }
            if look.walk(path)? == Walked::Folder && !is_inside {
                walked = Some(path);
            }
        }
        Ok(Snapshot::from_walk(look.entries, order))
    }
}

fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Reads a file that nobody but us may write.
fn read_own_file(path: &Path) -> Option<Vec<u8>> {
    let stat = stat(CWD, &c_path(path)?, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let is_ours = stat.file_type() == FileType::RegularFile
        && stat.uid == effective_user()
        && stat.mode & 0o022 == 0
        && stat.fingerprint.size_bytes <= HASHED_BYTES_MAX;
    is_ours.then(|| fs::read(path).ok()).flatten()
}

/// One snapshot that is being taken.
struct Look<'a> {
    snapshotter: &'a Snapshotter,
    /// Before anything was looked at.
    now: Moment,
    /// Empty until the first folder has to be listed.
    list_buffer: Vec<u8>,
    /// Empty until the first file has to be read.
    read_buffer: Vec<u8>,
    above: FolderAbove,
    entries: Vec<(PathBuf, Entry)>,
}

/// The folder of the last root. Most roots stand in one folder, `/usr/bin`: from the second on it is held open, so that the
/// kernel need not find it again for each of them.
#[derive(Default)]
struct FolderAbove {
    /// The root, with its NUL.
    c_root: Vec<u8>,
    /// Where its name begins, behind the last slash.
    name_at: usize,
    opened: Option<OwnedFd>,
}

impl FolderAbove {
    /// Returns where `root` is to be looked at; `None` if no file can have that name.
    fn place(&mut self, root: &Path) -> Option<(BorrowedFd<'_>, &CStr)> {
        let root = root.as_os_str().as_bytes();
        let name_at = root.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let is_same = name_at > 1 && name_at == self.name_at && root.get(..name_at) == self.c_root.get(..name_at);
        self.c_root.clear();
        self.c_root.extend_from_slice(root);
        self.c_root.push(0);
        self.name_at = name_at;
        if !is_same {
            self.opened = None;
        } else if self.opened.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = OsStr::from_bytes(root.get(..name_at)?);
            self.opened = rustix::fs::openat(CWD, folder, flags, Mode::empty()).ok();
        }
        let (folder, name) = match &self.opened {
            Some(opened) => (opened.as_fd(), self.c_root.get(name_at..)?),
            None => (CWD, self.c_root.as_slice()),
        };
        Some((folder, CStr::from_bytes_with_nul(name).ok()?))
    }
}

/// What a root was.
#[derive(PartialEq, Eq)]
enum Walked {
    /// A folder, with what is in it.
    Folder,
    /// Anything else.
    One,
}

/// Compares as paths do, component by component, but in a fifth of the time: most roots lie in one folder, and none has
/// doubled or trailing slashes.
fn walk_order(a: &Path, b: &Path) -> Ordering {
    let (a, b) = (a.as_os_str().as_bytes(), b.as_os_str().as_bytes());
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let same = words.take_while(|(a, b)| a == b).count() * 8;
    match a.iter().zip(b).skip(same).find(|(a, b)| a != b) {
        Some((a, b)) => rank(*a).cmp(&rank(*b)),
        None => a.len().cmp(&b.len()),
    }
}

/// An entry on its way into the snapshot.
struct Found {
    path: PathBuf,
    entry: Entry,
    /// If it is a folder, which.
    folder: Option<FileId>,
}

/// Something to look at: a name in an open folder, and its whole path.
struct Place<'a> {
    folder: BorrowedFd<'a>,
    name: &'a CStr,
    path: &'a Path,
}

impl Look<'_> {
    /// Tells whether `path` was recorded with all that is in it.
    fn has(&self, path: &Path) -> bool {
        let at = self.entries.binary_search_by(|(other, _)| other.as_path().cmp(path));
        let entry = at.ok().and_then(|at| self.entries.get(at)).map(|(_, entry)| entry);
        entry.is_some_and(|entry| !matches!(entry, Entry::Dir { listing: Listing::OtherFileSystem, .. }))
    }

    /// Records `root` and everything below it, a folder before what is in it, names in the order of their bytes.
    fn walk(&mut self, root: &Path) -> Result<Walked, DiskError> {
        let mut above = std::mem::take(&mut self.above);
        let found = match above.place(root) {
            Some((folder, name)) => self.found(folder, name, root.to_owned())?,
            None => Found { path: root.to_owned(), entry: unreadable(Errno::INVAL), folder: None },
        };
        self.above = above;
        if found.folder.is_none() {
            self.entries.push((found.path, found.entry));
            return Ok(Walked::One);
        }
        let device = found.folder.map(|id| id.device);
        let mut levels: Vec<vec::IntoIter<Found>> = vec![vec![found].into_iter()];
        while let Some(level) = levels.last_mut() {
            let Some(mut found) = level.next() else {
                levels.pop();
                continue;
            };
            if let (Some(id), Entry::Dir { listing, .. }) = (found.folder, &mut found.entry) {
                if device != Some(id.device) {
                    *listing = Listing::OtherFileSystem;
                } else {
                    match self.list(&found.path, id)? {
                        Ok(below) => levels.push(below.into_iter()),
                        Err(errno) => *listing = Listing::Unreadable { errno: errno.raw_os_error() },
                    }
                }
            }
            self.entries.push((found.path, found.entry));
        }
        Ok(Walked::Folder)
    }

    /// Looks at everything in a folder.
    fn list(&mut self, path: &Path, id: FileId) -> Result<Result<Vec<Found>, Errno>, DiskError> {
        let listed = open_folder(path).and_then(|folder| Ok((self.names_in(&folder, id)?, folder)));
        let (names, folder) = match listed {
            Ok(listed) => listed,
            Err(errno) => return theirs(errno, path).map(Err),
        };
        let mut below = Vec::with_capacity(names.iter().len());
        for (name, _) in names.iter() {
            let found = self.found(folder.as_fd(), name, join(path, name))?;
            // What is gone since the folder was listed is not there.
            if found.entry != Entry::Absent {
                below.push(found);
            }
        }
        Ok(Ok(below))
    }

    /// Returns the names in a folder; refuses one that took the place of the one that was looked at, `id`.
    fn names_in(&mut self, folder: &OwnedFd, id: FileId) -> Result<Arc<Names>, Errno> {
        let stat = stat_of(folder)?;
        if stat.id != id {
            return Err(Errno::STALE);
        }
        let cache = || self.snapshotter.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = cache().get(&stat) {
            return Ok(names);
        }
        let names = Arc::new(Names::of(folder, &mut self.list_buffer)?);
        cache().insert(&stat, self.now, &names);
        Ok(names)
    }

    /// Looks at one place, again if it changes under our eyes.
    fn found(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: PathBuf) -> Result<Found, DiskError> {
        if path.as_os_str().len() >= PATH_BYTES_MAX {
            return Ok(Found { path, entry: unreadable(Errno::NAMETOOLONG), folder: None });
        }
        for _ in 0..LOOKS_MAX {
            let place = Place { folder, name, path: &path };
            let stat = match stat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    return Ok(Found { path, entry: Entry::Absent, folder: None });
                }
                Err(errno) => {
                    let entry = unreadable(theirs(errno, &path)?);
                    return Ok(Found { path, entry, folder: None });
                }
            };
            let entry = match stat.file_type() {
                FileType::RegularFile => self.file(&place, &stat)?,
                FileType::Symlink => self.symlink(&place, &stat)?,
                FileType::Directory => {
                    Some(Entry::Dir { meta: self.plain_meta(&place, &stat), listing: Listing::Complete })
                }
                FileType::Fifo => Some(self.special(&place, &stat, SpecialKind::Fifo)),
                FileType::Socket => Some(self.special(&place, &stat, SpecialKind::Socket)),
                FileType::CharacterDevice => Some(self.special(&place, &stat, SpecialKind::CharDevice(stat.number))),
                FileType::BlockDevice => Some(self.special(&place, &stat, SpecialKind::BlockDevice(stat.number))),
                FileType::Unknown => Some(unreadable(Errno::NOTSUP)),
            };
            if let Some(entry) = entry {
                let folder = matches!(entry, Entry::Dir { .. }).then(|| stat.id);
                return Ok(Found { path, entry, folder });
            }
        }
        Ok(Found { path, entry: unreadable(Errno::STALE), folder: None })
    }

    /// `None`: it is another file now.
    fn file(&mut self, place: &Place<'_>, stat: &Stat) -> Result<Option<Entry>, DiskError> {
        if let Some(Known { fact: Fact::Sha256(sha256), xattrs }) = self.recall(stat) {
            return Ok(Some(file(stat, Content::Sha256(sha256), xattrs)));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = match rustix::fs::openat(place.folder, place.name, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
            Err(errno) => {
                let content = Content::Unreadable { errno: theirs(errno, place.path)?.raw_os_error() };
                return Ok(Some(file(stat, content, xattr::read(Handle::Path(place.path)))));
            }
        };
        let now = match stat_of(&opened) {
            Ok(now) if now.id == stat.id && now.file_type() == FileType::RegularFile => now,
            Ok(_) | Err(_) => return Ok(None),
        };
        let (content, bytes_read) = self.read(&opened, now.fingerprint.size_bytes);
        let xattrs = xattr::read(Handle::Open(opened.as_fd()));
        if let Content::Sha256(sha256) = content
            && bytes_read == now.fingerprint.size_bytes
        {
            self.remember(&now, Fact::Sha256(sha256), &xattrs);
        }
        Ok(Some(file(&now, content, xattrs)))
    }

    /// Hashes a file to its end, and returns how many bytes that were.
    fn read(&mut self, opened: &OwnedFd, size_bytes: u64) -> (Content, u64) {
        self.snapshotter.files_read.fetch_add(1, atomic::Ordering::Relaxed);
        self.read_buffer.clear();
        self.read_buffer.reserve(READ_BUFFER_BYTES);
        let mut hash = Sha256::new();
        let mut total = 0;
        let mut limit = size_bytes;
        while limit <= HASHED_BYTES_MAX {
            self.read_buffer.clear();
            match rustix::io::read(opened, spare_capacity(&mut self.read_buffer)) {
                Ok(0) => return (Content::Sha256(hash.finalize().into()), total),
                Ok(count) => {
                    hash.update(&self.read_buffer);
                    total += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return (Content::Unreadable { errno: errno.raw_os_error() }, total),
            }
            // The end is known, so the last read, which would say so, is saved. Files of /proc have no size.
            if size_bytes > 0 && total >= size_bytes {
                return (Content::Sha256(hash.finalize().into()), total);
            }
            limit = total;
        }
        (Content::Unreadable { errno: Errno::FBIG.raw_os_error() }, total)
    }

    /// `None`: it is no link any more.
    fn symlink(&mut self, place: &Place<'_>, stat: &Stat) -> Result<Option<Entry>, DiskError> {
        if let Some(Known { fact: Fact::Target(target), xattrs }) = self.recall(stat) {
            return Ok(Some(Entry::Symlink { meta: stat.meta(xattrs), target }));
        }
        let target = match rustix::fs::readlinkat(place.folder, place.name, Vec::new()) {
            Ok(target) => PathBuf::from(OsString::from_vec(target.into_bytes())),
            Err(Errno::NOENT | Errno::INVAL | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Ok(Some(unreadable(theirs(errno, place.path)?))),
        };
        let xattrs = xattr::read(Handle::Path(place.path));
        self.remember(stat, Fact::Target(target.clone()), &xattrs);
        Ok(Some(Entry::Symlink { meta: stat.meta(xattrs), target }))
    }

    fn special(&mut self, place: &Place<'_>, stat: &Stat, kind: SpecialKind) -> Entry {
        Entry::Special { meta: self.plain_meta(place, stat), kind }
    }

    /// What is known of a file that has nothing to be read but extended attributes.
    fn plain_meta(&mut self, place: &Place<'_>, stat: &Stat) -> Meta {
        if let Some(Known { fact: Fact::Nothing, xattrs }) = self.recall(stat) {
            return stat.meta(xattrs);
        }
        let xattrs = xattr::read(Handle::Path(place.path));
        self.remember(stat, Fact::Nothing, &xattrs);
        stat.meta(xattrs)
    }

    fn recall(&self, stat: &Stat) -> Option<Known> {
        let mut cache = self.snapshotter.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(stat.id, &stat.fingerprint)
    }

    fn remember(&self, stat: &Stat, fact: Fact, xattrs: &Xattrs) {
        let is_whole = !xattrs.values().any(|value| matches!(value, XattrValue::Unreadable { .. }));
        if is_whole && self.now.may_remember(&stat.fingerprint) {
            let known = Known { fact, xattrs: xattrs.clone() };
            let mut cache = self.snapshotter.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.insert(stat.id, stat.fingerprint, known);
        }
    }
}

impl Folders for Look<'_> {
    type Error = DiskError;

    fn names(&mut self, folder: &Path) -> Result<Option<Vec<Name>>, DiskError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, folder, flags, Mode::empty());
        let listed =
            opened.and_then(|opened| Ok((stat_of(&opened)?, Names::of(&opened, &mut self.list_buffer)?, opened)));
        let (stat_above, names, opened) = match listed {
            Ok(listed) => listed,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Some(Vec::new())),
            Err(errno) => return theirs(errno, folder).map(|_| None),
        };
        let is_folder = |name: &CStr, is_other: bool| {
            !is_other
                && stat(opened.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| stat.file_type() == FileType::Directory && stat.id.device == stat_above.id.device)
        };
        let described = names.iter().map(|(name, file_type)| Name {
            path: join(folder, name),
            is_folder: is_folder(name, !matches!(file_type, FileType::Directory | FileType::Unknown)),
        });
        Ok(Some(described.collect()))
    }

    fn exists(&mut self, path: &Path) -> Result<bool, DiskError> {
        match c_path(path).map(|name| stat(CWD, &name, AtFlags::SYMLINK_NOFOLLOW)) {
            None | Some(Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)) => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(errno)) => theirs(errno, path).map(|_| true),
        }
    }
}

/// Tells their trouble, which is recorded, from ours.
fn theirs(errno: Errno, path: &Path) -> Result<Errno, DiskError> {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            Err(DiskError::Look { path: path.to_owned(), source: io::Error::from(errno) })
        }
        errno => Ok(errno),
    }
}

fn unreadable(errno: Errno) -> Entry {
    Entry::Unreadable { errno: errno.raw_os_error() }
}

fn file(stat: &Stat, content: Content, xattrs: Xattrs) -> Entry {
    Entry::File { meta: stat.meta(xattrs), size_bytes: stat.fingerprint.size_bytes, content }
}

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

fn join(folder: &Path, name: &CStr) -> PathBuf {
    let name = name.to_bytes();
    let mut path = Vec::with_capacity(folder.as_os_str().len() + 1 + name.len());
    path.extend_from_slice(folder.as_os_str().as_bytes());
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    OsString::from_vec(path).into()
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

//! Fresh copies of a folder, cheaply: a copy is used again for the next script once what the last one changed is repaired.
//!
//! Every file and folder of a copy is watched (inotify(7)). A script that changes nothing costs one look; one that changes k
//! files costs k repairs; so n scripts over n files do not cost n². Files are watched themselves, not only through their
//! folder: a change through a hard link elsewhere, or through a mapping, is seen too. What cannot be told from the events (a
//! moved folder, more events than the queue holds) is answered by a whole new copy. Needs no privilege.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, FileTimes};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::Uid;

/// Why a copy could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkdirError {
    #[error("could not {action} `{path}`", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is neither a file, a folder nor a symbolic link; a set-up cannot hold it", path = .0.display())]
    Special(PathBuf),
}

/// Attaches what was tried to an I/O error.
fn tried<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> WorkdirError + 'a {
    move |source| WorkdirError::Io { action, path: path.to_path_buf(), source }
}

/// A folder and the copies of it that are in use or wait to be used again.
pub(crate) struct Copies {
    original: PathBuf,
    root: PathBuf,
    idle: Mutex<Vec<Copy>>,
    next: AtomicUsize,
}

impl Copies {
    /// Copies of `original` will be folders of `root`, which must be ours alone. Nobody may change `original` meanwhile.
    pub(crate) fn new(original: PathBuf, root: PathBuf) -> Self {
        Self { original, root, idle: Mutex::new(Vec::new()), next: AtomicUsize::new(0) }
    }

    /// Returns a copy that equals the original in names, content, modes, link targets and files' modification times.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn take(&self) -> Result<Copy, WorkdirError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut copy) = idle
            && copy.repair(&self.original)?
        {
            return Ok(copy);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Copy::make(&self.original, self.root.join(number.to_string()))
    }

    /// Takes a copy back, to be repaired for the next script.
    pub(crate) fn give_back(&self, copy: Copy) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
    }
}

impl Drop for Copies {
    /// To close an inotify instance takes the kernel some 15 ms of waiting, for which nobody else should wait.
    fn drop(&mut self) {
        let idle = std::mem::take(self.idle.get_mut().unwrap_or_else(PoisonError::into_inner));
        // Without a thread to be had, it waits here.
        std::thread::Builder::new().spawn(move || drop(idle)).ok();
    }
}

/// One copy.
pub(crate) struct Copy {
    dir: PathBuf,
    watch: Option<Watch>,
}

impl Copy {
    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn make(original: &Path, dir: PathBuf) -> Result<Self, WorkdirError> {
        copy_tree(original, &dir)?;
        let watch = Watch::of(&dir);
        Ok(Self { dir, watch })
    }

    /// Makes good what was changed. `false`: that is too much to tell, and what is left of this copy was thrown away.
    fn repair(&mut self, original: &Path) -> Result<bool, WorkdirError> {
        let changes = self.watch.as_mut().map_or(Changes::Untold, Watch::changes);
        match changes {
            Changes::None => Ok(true),
            Changes::Paths(paths) => {
                for path in paths {
                    let (from, to) = (original.join(&path), self.dir.join(&path));
                    if remove(&to).is_err() {
                        return Ok(false);
                    }
                    if fs::symlink_metadata(&from).is_ok() {
                        copy_entry(&from, &to)?;
                        self.watch.as_mut().map(|watch| watch.add(&self.dir, &path));
                    }
                }
                Ok(self.watch.as_mut().is_some_and(Watch::forget))
            }
            Changes::Untold => {
                // What a script made unremovable goes with the scratch folder.
                remove(&self.dir).ok();
                Ok(false)
            }
        }
    }
}

/// What happened to a copy, as paths below it.
enum Changes {
    None,
    Paths(BTreeSet<PathBuf>),
    Untold,
}

struct Watch {
    inotify: Inotify,
    watched: HashMap<WatchDescriptor, Watched>,
}

struct Watched {
    path: PathBuf,
    is_dir: bool,
}

impl Watch {
    /// `None` where the user's watches or instances are used up.
    fn of(dir: &Path) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        let mut watch = Self { inotify, watched: HashMap::new() };
        watch.add(dir, Path::new("")).then_some(watch)
    }

    /// Watches `path`, and what is in it. Symbolic links need no watch of their own: their folder's tells.
    fn add(&mut self, dir: &Path, path: &Path) -> bool {
        walkdir::WalkDir::new(dir.join(path)).into_iter().all(|entry| {
            let Ok(entry) = entry else { return false };
            let Ok(relative) = entry.path().strip_prefix(dir) else { return false };
            if entry.file_type().is_symlink() {
                return true;
            }
            let is_dir = entry.file_type().is_dir();
            let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_CLOSE_WRITE;
            let moves = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
            let ends = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
            let flags = changes | ends | if is_dir { moves } else { AddWatchFlags::empty() };
            let added = self.inotify.add_watch(entry.path(), flags);
            added.map(|id| self.watched.insert(id, Watched { path: relative.to_path_buf(), is_dir })).is_ok()
        })
    }

    fn changes(&mut self) -> Changes {
        let mut paths = BTreeSet::new();
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        match self.changed_path(&event) {
                            Some(Some(path)) => drop(paths.insert(path)),
                            Some(None) => {}
                            None => return Changes::Untold,
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if paths.is_empty() => return Changes::None,
                Err(Errno::EAGAIN) => return Changes::Paths(paths),
                Err(_) => return Changes::Untold,
            }
        }
    }

    /// `Some(None)`: nothing that needs repair. `None`: it cannot be told.
    fn changed_path(&mut self, event: &InotifyEvent) -> Option<Option<PathBuf>> {
        let has = |flags| event.mask.intersects(flags);
        if has(AddWatchFlags::IN_Q_OVERFLOW | AddWatchFlags::IN_UNMOUNT) {
            return None;
        }
        if has(AddWatchFlags::IN_IGNORED) {
            self.watched.remove(&event.wd);
            return Some(None);
        }
        // Of a file that was replaced before; its successor has a watch of its own.
        let Some(watched) = self.watched.get(&event.wd) else { return Some(None) };
        let path = match &event.name {
            Some(name) => watched.path.join(name),
            None if watched.is_dir => return None,
            None => watched.path.clone(),
        };
        // A new folder is only removed. One of the original's is more than one path.
        let is_originals = has(AddWatchFlags::IN_ISDIR) && self.watched.values().any(|other| other.path == path);
        if is_originals { None } else { Some(Some(path)) }
    }

    /// Passes over the events of our own repairs. `false` if that cannot be told from more.
    fn forget(&mut self) -> bool {
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                            self.watched.remove(&event.wd);
                        } else if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                            return false;
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return errno == Errno::EAGAIN,
            }
        }
    }
}

/// Where files live in memory on most machines.
pub(crate) const MEMORY: &str = "/dev/shm";
/// A folder that is larger is copied on the disk.
const IN_MEMORY_BYTES_MAX: u64 = 32 << 20;

/// Returns a folder in memory where copies of `original` may be made: files appear there ten times faster than on a disk. `None`
/// if the original is large, there is little room, programs may not be executed there, or it is no tmpfs.
pub(crate) fn memory_for(original: &Path) -> Option<&'static Path> {
    let memory = Path::new(MEMORY);
    let is_tmpfs = statfs(memory).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC);
    let fs = statvfs(memory).ok().filter(|fs| is_tmpfs && !fs.flags().contains(FsFlags::ST_NOEXEC))?;
    let free_bytes = fs.blocks_available().saturating_mul(fs.fragment_size());
    let files = walkdir::WalkDir::new(original).into_iter().flatten();
    let bytes: u64 = files.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum();
    (bytes <= IN_MEMORY_BYTES_MAX && free_bytes / 16 > bytes).then_some(memory)
}

/// Copies a folder with all in it.
///
/// # Errors
/// If something cannot be read or written, and on devices, sockets and pipes.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<(), WorkdirError> {
    for entry in walkdir::WalkDir::new(from).sort_by_file_name() {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(from).to_path_buf();
            WorkdirError::Io { action: "read", path, source: error.into() }
        })?;
        let below = entry.path().strip_prefix(from).unwrap_or(Path::new(""));
        copy_entry(entry.path(), &to.join(below))?;
    }
    Ok(())
}

/// Copies a file, a symbolic link, or a folder without what is in it.
fn copy_entry(from: &Path, to: &Path) -> Result<(), WorkdirError> {
    let meta = fs::symlink_metadata(from).map_err(tried("read", from))?;
    if meta.is_dir() {
        // The owner must be able to fill and to remove it.
        let mode = meta.permissions().mode() & 0o7777 | 0o700;
        fs::DirBuilder::new().recursive(true).mode(mode).create(to).map_err(tried("make the folder", to))
    } else if meta.is_symlink() {
        let target = fs::read_link(from).map_err(tried("read", from))?;
        symlink(target, to).map_err(tried("make the link", to))
    } else if meta.is_file() {
        copy_file(from, to, &meta).map_err(tried("copy", from))
    } else {
        Err(WorkdirError::Special(from.to_path_buf()))
    }
}

/// Copies content, mode and time of a file to a new one. Most files of a set-up are small, and done in one read and one write.
fn copy_file(from: &Path, to: &Path, meta: &fs::Metadata) -> io::Result<()> {
    let mut buffer = [0; SMALL_FILE_BYTES];
    let mut source = File::open(from)?;
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    let len = source.read(&mut buffer)?;
    copy.write_all(&buffer[..len])?;
    if meta.len() != len as u64 {
        io::copy(&mut source, &mut copy)?;
    }
    // Last: to write takes setuid away.
    copy.set_permissions(meta.permissions())?;
    copy.set_times(FileTimes::new().set_modified(meta.modified()?))
}

const SMALL_FILE_BYTES: usize = 16 << 10;

/// Sees to it that `path` is an empty folder that only we may have changed, at the least cost if it is one.
///
/// # Errors
/// If what is there cannot be removed, or the folder not be made.
pub(crate) fn make_empty(path: &Path) -> io::Result<()> {
    let is_fit = |meta: fs::Metadata| meta.is_dir() && meta.permissions().mode() & 0o7777 == EMPTY_MODE;
    if fs::symlink_metadata(path).is_ok_and(is_fit) && fs::read_dir(path)?.next().is_none() {
        return Ok(());
    }
    remove(path)?;
    fs::DirBuilder::new().mode(EMPTY_MODE).create(path)?;
    // Whatever our umask is.
    fs::set_permissions(path, fs::Permissions::from_mode(EMPTY_MODE))
}

/// Mode of an empty folder.
const EMPTY_MODE: u32 = 0o755;

/// Tells whether `path` is a folder, not a link to one, and belongs to us.
pub(crate) fn is_own_folder(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path);
    meta.is_ok_and(|meta| meta.is_dir() && meta.uid() == Uid::effective().as_raw())
}

/// Removes whatever is at `path`, folders that forbid it included.
///
/// # Errors
/// If that is refused all the same.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.is_dir() {
        return fs::remove_file(path);
    }
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    for entry in walkdir::WalkDir::new(path).into_iter().flatten().filter(|entry| entry.file_type().is_dir()) {
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700)).ok();
    }
    fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set-up of three files and a folder, and a first copy of it.
    fn made() -> (tempfile::TempDir, Copies, Copy) {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("original");
        fs::create_dir_all(original.join("sub")).unwrap();
        for (name, text) in [("a.sh", "a"), ("b.sh", "b"), ("sub/c", "c")] {
            fs::write(original.join(name), text).unwrap();
        }
        symlink("a.sh", original.join("link")).unwrap();
        let copies = Copies::new(original, dir.path().join("work"));
        let copy = copies.take().unwrap();
        (dir, copies, copy)
    }

    fn listing(dir: &Path) -> Vec<(PathBuf, String)> {
        let walk = walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name();
        walk.into_iter()
            .map(|entry| {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().permissions().mode();
                let text =
                    if entry.file_type().is_file() { fs::read_to_string(entry.path()).unwrap() } else { String::new() };
                (entry.path().strip_prefix(dir).unwrap().to_path_buf(), format!("{mode:o} {text}"))
            })
            .collect()
    }

    /// Changes a copy, gives it back, and expects the next to be as the first was.
    fn changed_then_fresh(change: impl Fn(&Path)) {
        let (_dir, copies, copy) = made();
        let fresh = listing(copy.dir());
        for _ in 0..3 {
            let copy = copies.take().unwrap();
            assert_eq!(listing(copy.dir()), fresh);
            change(copy.dir());
            copies.give_back(copy);
        }
        assert_eq!(listing(copies.take().unwrap().dir()), fresh);
    }

    #[test]
    fn an_unchanged_copy_is_used_again() {
        let (_dir, copies, copy) = made();
        let first = copy.dir().to_path_buf();
        copies.give_back(copy);
        assert_eq!(copies.take().unwrap().dir(), first);
    }

    #[test]
    fn a_repaired_copy_is_used_again() {
        let (_dir, copies, copy) = made();
        let first = copy.dir().to_path_buf();
        fs::write(first.join("a.sh"), "changed").unwrap();
        fs::create_dir_all(first.join("new/deep")).unwrap();
        fs::create_dir(first.join("sub/temporary")).unwrap();
        fs::remove_dir(first.join("sub/temporary")).unwrap();
        copies.give_back(copy);
        assert_eq!(copies.take().unwrap().dir(), first);
    }

    #[test]
    fn an_edited_file_is_fresh_again() {
        changed_then_fresh(|dir| fs::write(dir.join("b.sh"), "exit 0").unwrap());
    }

    #[test]
    fn a_removed_file_is_there_again() {
        changed_then_fresh(|dir| fs::remove_file(dir.join("sub/c")).unwrap());
    }

    #[test]
    fn new_files_and_folders_are_gone() {
        changed_then_fresh(|dir| {
            fs::create_dir_all(dir.join("new/deep")).unwrap();
            fs::write(dir.join("new/deep/file"), "x").unwrap();
            fs::write(dir.join("sub/file"), "x").unwrap();
        });
    }

    #[test]
    fn a_changed_mode_is_as_before() {
        changed_then_fresh(|dir| fs::set_permissions(dir.join("a.sh"), fs::Permissions::from_mode(0o777)).unwrap());
        changed_then_fresh(|dir| fs::set_permissions(dir.join("sub"), fs::Permissions::from_mode(0o777)).unwrap());
    }

    #[test]
    fn a_moved_folder_is_there_again() {
        changed_then_fresh(|dir| fs::rename(dir.join("sub"), dir.join("elsewhere")).unwrap());
    }

    #[test]
    fn a_swapped_link_is_as_before() {
        changed_then_fresh(|dir| {
            fs::remove_file(dir.join("link")).unwrap();
            symlink("/etc", dir.join("link")).unwrap();
        });
    }

    #[test]
    fn a_change_through_a_hard_link_elsewhere_is_seen() {
        let elsewhere = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
        let number = AtomicUsize::new(0);
        changed_then_fresh(|dir| {
            let link = elsewhere.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
            fs::hard_link(dir.join("b.sh"), &link).unwrap();
            fs::write(&link, "exit 0").unwrap();
        });
    }

    #[test]
    fn a_removed_copy_is_made_anew() {
        changed_then_fresh(|dir| fs::remove_dir_all(dir).unwrap());
    }

    #[test]
    fn a_folder_that_forbids_its_removal_is_gone() {
        changed_then_fresh(|dir| {
            fs::create_dir_all(dir.join("locked/in")).unwrap();
            fs::set_permissions(dir.join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
        });
    }

    #[test]
    fn more_changes_than_the_queue_holds_are_answered_by_a_new_copy() {
        changed_then_fresh(|dir| {
            for number in 0..20_000 {
                fs::write(dir.join(format!("n{number}")), "").unwrap();
            }
        });
    }

    #[test]
    fn a_pipe_in_a_set_up_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = copy_tree(dir.path(), &dir.path().join("../copy-of-a-pipe")).unwrap_err();
        assert!(error.to_string().contains("/pipe` is neither a file"), "{error}");
    }
}

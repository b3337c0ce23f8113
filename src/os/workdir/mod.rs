//! Fresh copies of a folder, cheaply.
//!
//! For a few scripts of a small folder each has a copy of its own. For more, a copy is used again once what the last script changed
//! is repaired: every file and folder of it is watched (inotify(7)). A script that changes nothing costs one look; one that changes
//! k files costs k repairs; so n scripts over n files do not cost n². Files are watched themselves, not only through their folder: a
//! change through a hard link elsewhere is seen too. What cannot be told from the events (a moved folder, more events than the
//! queue holds, a file that somebody still has open) is answered by a whole new copy. Needs no privilege.

mod folder;
mod tree;
mod watch;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};

use crate::os::disk::{PathError, tried};

#[cfg(feature = "worker")]
pub(crate) use folder::{PrivateFolderError, make_private};
pub(crate) use folder::{give_to, is_own_folder, make_empty, make_readable, remove};
pub(crate) use tree::{Extent, Tree};
use watch::Watch;

/// Why a copy could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkdirError {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error("no space is left in `{folder}` to copy `{path}`: free some there, or set TMPDIR to a folder with more room", folder = folder.display(), path = path.display())]
    Full {
        folder: PathBuf,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is neither a file, a folder nor a symbolic link; a set-up cannot hold it", path = .0.display())]
    Special(PathBuf),
    #[error("`{path}` was changed while scripts ran, and others are made of it; a script did that, or somebody else", path = .0.display())]
    Tampered(PathBuf),
    #[error("the set-up was not sealed before it was copied: a bug in proving-ground, please report it")]
    Unsealed,
}

const FOLDER: &str = "setup";

/// A set-up's folder, and beside it one for temporary files.
#[derive(Debug, Clone)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// The set-up's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.0.join(FOLDER)
    }

    /// The folder that holds both.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// The folder for temporary files.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }
}

/// A set-up and the copies of it that are in use or wait to be used again.
pub(crate) struct Copies {
    root: PathBuf,
    usage: Use,
    /// The original, as it was before the first script.
    sealed: OnceLock<Tree>,
    uses_left: AtomicUsize,
    idle: Mutex<Vec<Copy>>,
    next: AtomicUsize,
}

/// How scripts use a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// They change it, so each has a fresh one.
    Changing,
    /// What they change does not reach it, so that all of them have the same one: it must belong to this user and group, if to somebody
    /// else than us.
    Reading { owner: Option<(u32, u32)> },
}

/// As many files and folders as are copied in about the time that it takes to begin and to end a watch: to close an inotify
/// instance the kernel waits for up to 20 ms.
const WATCHED_MIN: usize = 512;

impl Copies {
    /// Everything will be in the folder `root`, which must be ours alone. Fill it, then take at most `uses` copies.
    pub(crate) fn new(root: PathBuf, uses: usize, usage: Use) -> Self {
        Self {
            root,
            usage,
            sealed: OnceLock::new(),
            uses_left: AtomicUsize::new(uses),
            idle: Mutex::default(),
            next: AtomicUsize::new(0),
        }
    }

    /// What copies are made of. Nobody may change it once it is sealed.
    pub(crate) fn original(&self) -> Place {
        Place(self.root.join("original"))
    }

    /// Makes the original. Seal it when it is complete.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn fill_original(&self, setup: &Tree) -> Result<(), WorkdirError> {
        fill(&self.original(), setup)?;
        self.give_to_owner()
    }

    fn give_to_owner(&self) -> Result<(), WorkdirError> {
        match self.usage {
            Use::Reading { owner: Some(owner) } => {
                give_to(&self.root, owner).map_err(|error| tried("give away", &self.root)(error).into())
            }
            Use::Reading { owner: None } | Use::Changing => Ok(()),
        }
    }

    /// Puts files of the set-up back into the original: those that there is another of now, or none. Returns them. Nobody may be at work
    /// in it.
    ///
    /// # Errors
    /// If one cannot be read or written.
    pub(crate) fn put_back<'a>(&self, setup: &Tree, files: &[&'a Path]) -> Result<Vec<&'a Path>, WorkdirError> {
        let folder = self.original().folder();
        let mut put_back = Vec::new();
        for file in files {
            if setup.put_back(file, &folder)? {
                put_back.push(*file);
            }
        }
        if !put_back.is_empty() {
            self.give_to_owner()?;
        }
        Ok(put_back)
    }

    /// Takes note of the original as it is now: copies are made of that, or not at all.
    ///
    /// # Errors
    /// If something in it cannot be read, or not be copied: then it is named as in the set-up's folder.
    pub(crate) fn seal(&self) -> Result<(), WorkdirError> {
        let tree = Tree::list(&self.original().0)?;
        if let Some(path) = tree.special() {
            return Err(WorkdirError::Special(path.strip_prefix(FOLDER).unwrap_or(path).to_path_buf()));
        }
        self.sealed.get_or_init(|| tree);
        Ok(())
    }

    /// Makes a first copy and, if there will be others, the original beside it.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn fill(&self, setup: &Tree) -> Result<(), WorkdirError> {
        let is_shared = self.usage != Use::Changing;
        if is_shared || self.uses_left.load(Ordering::Relaxed) > 1 {
            self.fill_original(setup)?;
            self.seal()?;
        }
        if is_shared {
            return Ok(());
        }
        let first = self.new_place();
        fill(&first, setup)?;
        self.idle().push(Copy { place: first, entries: setup.len(), watch: None });
        Ok(())
    }

    /// Returns a copy that equals the original in names, content, modes, link targets and files' modification times.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn take(&self) -> Result<Copy, WorkdirError> {
        if self.usage != Use::Changing {
            return Ok(Copy { place: self.original(), entries: 0, watch: None });
        }
        let idle = self.idle().pop();
        let fresh = match idle {
            Some(copy) => copy.repaired(self.sealed.get())?,
            None => None,
        };
        let mut copy = match fresh {
            Some(copy) => copy,
            None => self.new_copy()?,
        };
        let uses = self.uses_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |uses| uses.checked_sub(1));
        let uses_to_come = uses.map_or(0, |uses| uses - 1);
        if uses_to_come == 0 {
            copy.stop_watching();
        } else if uses_to_come.saturating_mul(copy.entries) > WATCHED_MIN {
            copy.start_watching();
        }
        Ok(copy)
    }

    /// Takes a copy back: it is repaired for the next script, or removed.
    pub(crate) fn give_back(&self, copy: Copy) {
        if copy.watch.is_some() {
            self.idle().push(copy);
        } else if self.usage == Use::Changing {
            // What a script made unremovable goes with the scratch folder.
            remove(&copy.place.0).ok();
        }
    }

    fn new_copy(&self) -> Result<Copy, WorkdirError> {
        let place = self.new_place();
        let original = self.sealed.get().ok_or(WorkdirError::Unsealed)?;
        original.copy_unchanged_to(&place.0)?;
        Ok(Copy { place, entries: original.len(), watch: None })
    }

    fn new_place(&self) -> Place {
        Place(self.root.join(self.next.fetch_add(1, Ordering::Relaxed).to_string()))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Copy>> {
        // A panic elsewhere cannot leave a Vec of copies half-changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fill(place: &Place, setup: &Tree) -> Result<(), WorkdirError> {
    let tmp = place.tmp();
    fs::create_dir_all(&tmp).map_err(tried("make the folder", &tmp))?;
    setup.copy_to(&place.folder())
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.stop_watching();
    }
}

/// One copy. It is fresh, or watched since it was.
pub(crate) struct Copy {
    place: Place,
    /// Files and folders in it.
    entries: usize,
    watch: Option<Watch>,
}

impl Copy {
    /// Where it is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    fn start_watching(&mut self) {
        if self.watch.is_none() {
            self.watch = Watch::of(&self.place.0);
        }
    }

    fn stop_watching(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.let_go();
        }
    }

    /// Makes good what was changed. `None`: that is too much to tell, and what is left of this copy was thrown away.
    fn repaired(mut self, original: Option<&Tree>) -> Result<Option<Self>, WorkdirError> {
        let (Some(watch), Some(original)) = (&mut self.watch, original) else { return Ok(Some(self)) };
        let Some(paths) = watch.changes(&self.place.0) else {
            // What a script made unremovable goes with the scratch folder.
            remove(&self.place.0).ok();
            return Ok(None);
        };
        for path in &paths {
            let to = self.place.0.join(path);
            if remove(&to).is_err() {
                return Ok(None);
            }
            original.copy_unchanged(path, &to)?;
            watch.add(&self.place.0, path);
        }
        let is_whole = paths.is_empty() || watch.forget();
        Ok(is_whole.then_some(self))
    }
}

/// Returns the space that is left where `path` lies, if the kernel tells.
#[cfg(feature = "worker")]
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    statvfs(path).ok().map(|fs| free_of(&fs))
}

fn free_of(fs: &Statvfs) -> u64 {
    fs.blocks_available().saturating_mul(fs.fragment_size())
}

fn forbids_programs(fs: &Statvfs) -> bool {
    fs.flags().contains(FsFlags::ST_NOEXEC)
}

/// Tells whether programs that lie in the folder `path` cannot be executed: what it lies on is mounted `noexec`.
pub(crate) fn is_noexec(path: &Path) -> bool {
    statvfs(path).is_ok_and(|fs| forbids_programs(&fs))
}

/// Where files live in memory on most machines.
pub(crate) const MEMORY: &str = "/dev/shm";
/// A folder that is larger is copied on the disk.
const IN_MEMORY_BYTES_MAX: u64 = 32 << 20;

/// Returns a folder in memory where copies of `bytes` may be made: files appear there ten times faster than on a disk. `None` if
/// that is much, there is little room, programs may not be executed there, or it is no tmpfs.
pub(crate) fn memory_for(bytes: u64) -> Option<&'static Path> {
    let memory = Path::new(MEMORY);
    let is_tmpfs = statfs(memory).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC);
    let fs = statvfs(memory).ok().filter(|fs| is_tmpfs && !forbids_programs(fs))?;
    (bytes <= IN_MEMORY_BYTES_MAX && free_of(&fs) / 16 > bytes).then_some(memory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Worth a watch.
    const MANY: usize = 1000;

    /// A user has some hundred watches; one test uses all of them.
    pub(super) fn watches() -> MutexGuard<'static, ()> {
        static WATCHES: Mutex<()> = Mutex::new(());
        WATCHES.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A set-up of three files, a link and a folder, and a first copy of it.
    fn made(uses: usize) -> ((tempfile::TempDir, MutexGuard<'static, ()>), Copies, Copy) {
        let watches = watches();
        let dir = tempfile::tempdir().unwrap();
        let setup = dir.path().join("setup");
        fs::create_dir_all(setup.join("sub")).unwrap();
        for (name, text) in [("a.sh", "a"), ("b.sh", "b"), ("sub/c", "c")] {
            fs::write(setup.join(name), text).unwrap();
        }
        symlink("a.sh", setup.join("link")).unwrap();
        let copies = Copies::new(dir.path().join("work"), uses, Use::Changing);
        copies.fill(&Tree::list(&setup).unwrap()).unwrap();
        let copy = copies.take().unwrap();
        ((dir, watches), copies, copy)
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
        // Four copies of their own, or one that is watched.
        for uses in [4, MANY] {
            fresh_after_each(uses, &change);
        }
    }

    fn fresh_after_each(uses: usize, change: impl Fn(&Path)) {
        let (_dir, copies, copy) = made(uses);
        let fresh = listing(&copy.place().0);
        for _ in 0..3 {
            let copy = copies.take().unwrap();
            assert_eq!(listing(&copy.place().0), fresh);
            change(&copy.place().folder());
            copies.give_back(copy);
        }
        assert_eq!(listing(&copies.take().unwrap().place().0), fresh);
    }

    #[test]
    fn an_unchanged_copy_is_used_again() {
        let (_dir, copies, copy) = made(MANY);
        let first = copy.place().folder();
        copies.give_back(copy);
        assert_eq!(copies.take().unwrap().place().folder(), first);
    }

    #[test]
    fn what_will_be_used_often_is_watched_until_its_last_use() {
        let (_dir, copies, copy) = made(MANY);
        let first = copy.place().folder();
        assert!(copy.watch.is_some());
        copies.give_back(copy);
        copies.uses_left.store(1, Ordering::Relaxed);
        let last = copies.take().unwrap();
        assert_eq!(last.place().folder(), first);
        assert!(last.watch.is_none());
        copies.give_back(last);
        assert!(!first.exists());
    }

    #[test]
    fn what_will_be_used_now_and_then_is_not_watched() {
        let (_dir, copies, copy) = made(3);
        assert!(copy.watch.is_none());
        copies.give_back(copy);
        assert!(copies.take().unwrap().watch.is_none());
    }

    #[test]
    fn what_is_used_once_is_copied_once() {
        let (_dir, copies, copy) = made(1);
        assert!(!copies.original().folder().exists());
        assert_eq!(fs::read_to_string(copy.place().folder().join("sub/c")).unwrap(), "c");
    }

    #[test]
    fn a_repaired_copy_is_used_again() {
        let (_dir, copies, copy) = made(MANY);
        let first = copy.place().folder();
        fs::write(first.join("a.sh"), "changed").unwrap();
        fs::create_dir_all(first.join("new/deep")).unwrap();
        fs::create_dir(first.join("sub/temporary")).unwrap();
        fs::remove_dir(first.join("sub/temporary")).unwrap();
        copies.give_back(copy);
        assert_eq!(copies.take().unwrap().place().folder(), first);
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
    fn a_copy_of_which_a_file_is_still_open_is_not_used_again() {
        let (_dir, copies, copy) = made(MANY);
        let first = copy.place().folder();
        // As by a script that leaves a descriptor under way in a socket, having written through a mapping: no event tells of that.
        let held = fs::File::options().read(true).write(true).open(first.join("b.sh")).unwrap();
        copies.give_back(copy);
        let second = copies.take().unwrap();
        assert_ne!(second.place().folder(), first);
        drop(held);
    }

    #[test]
    fn a_copy_whose_files_were_read_is_used_again() {
        let (_dir, copies, copy) = made(MANY);
        let first = copy.place().folder();
        fs::read(first.join("b.sh")).unwrap();
        copies.give_back(copy);
        assert_eq!(copies.take().unwrap().place().folder(), first);
    }

    #[test]
    fn a_changed_original_is_told_and_not_passed_on() {
        for uses in [4, MANY] {
            let (_dir, copies, copy) = made(uses);
            let original = copies.original().folder();
            fs::write(original.join("b.sh"), "forged").unwrap();
            fs::write(copy.place().folder().join("b.sh"), "changed").unwrap();
            copies.give_back(copy);
            let error = copies.take().err().unwrap().to_string();
            assert!(error.contains("original/setup/b.sh` was changed while scripts ran"), "{error}");
        }
    }

    #[test]
    fn a_removed_copy_is_made_anew() {
        changed_then_fresh(|dir| fs::remove_dir_all(dir).unwrap());
        changed_then_fresh(|dir| fs::remove_dir_all(dir.parent().unwrap()).unwrap());
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
}

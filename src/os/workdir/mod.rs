//! Fresh copies of a folder, cheaply: a copy is used again for the next script once what the last one changed is repaired.
//!
//! Every file and folder of a copy is watched (inotify(7)). A script that changes nothing costs one look; one that changes k
//! files costs k repairs; so n scripts over n files do not cost n². Files are watched themselves, not only through their
//! folder: a change through a hard link elsewhere, or through a mapping, is seen too. What cannot be told from the events (a
//! moved folder, more events than the queue holds) is answered by a whole new copy. Needs no privilege.

mod folder;
mod tree;
mod watch;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};

pub(crate) use folder::{is_own_folder, make_empty, remove};
pub(crate) use tree::Tree;
use tree::copy_entry;
use watch::{Changes, Watch};

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

/// A set-up's folder, and beside it one for temporary files.
#[derive(Debug, Clone)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// The set-up's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.0.join("setup")
    }

    /// The folder for temporary files.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    fn make_tmp(&self) -> Result<(), WorkdirError> {
        fs::create_dir_all(self.tmp()).map_err(tried("make the folder", &self.tmp()))
    }
}

/// A set-up and the copies of it that are in use or wait to be used again.
pub(crate) struct Copies {
    root: PathBuf,
    idle: Mutex<Vec<Copy>>,
    next: AtomicUsize,
}

impl Copies {
    /// Everything will be in the folder `root`, which must be ours alone. Fill them, then take.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, idle: Mutex::new(Vec::new()), next: AtomicUsize::new(0) }
    }

    /// What copies are made of. Nobody may change it once one is taken.
    pub(crate) fn original(&self) -> Place {
        Place(self.root.join("original"))
    }

    /// Makes the original.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn fill_original(&self, setup: &Tree) -> Result<(), WorkdirError> {
        let original = self.original();
        original.make_tmp()?;
        setup.copy_to(&[original.folder()])
    }

    /// Makes the original and a first copy, which costs less than one after the other.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn fill(&self, setup: &Tree) -> Result<(), WorkdirError> {
        let (original, first) = (self.original(), self.new_place());
        original.make_tmp()?;
        first.make_tmp()?;
        setup.copy_to(&[original.folder(), first.folder()])?;
        self.give_back(Copy::watched(first));
        Ok(())
    }

    /// Returns a copy that equals the original in names, content, modes, link targets and files' modification times.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(crate) fn take(&self) -> Result<Copy, WorkdirError> {
        let original = self.original();
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut copy) = idle
            && copy.repair(&original)?
        {
            return Ok(copy);
        }
        let place = self.new_place();
        Tree::list(&original.0)?.copy_to(std::slice::from_ref(&place.0))?;
        Ok(Copy::watched(place))
    }

    /// Takes a copy back, to be repaired for the next script.
    pub(crate) fn give_back(&self, copy: Copy) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
    }

    fn new_place(&self) -> Place {
        Place(self.root.join(self.next.fetch_add(1, Ordering::Relaxed).to_string()))
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
    place: Place,
    watch: Option<Watch>,
}

impl Copy {
    /// Where it is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    fn watched(place: Place) -> Self {
        let watch = Watch::of(&place.0);
        Self { place, watch }
    }

    /// Makes good what was changed. `false`: that is too much to tell, and what is left of this copy was thrown away.
    fn repair(&mut self, original: &Place) -> Result<bool, WorkdirError> {
        let changes = self.watch.as_mut().map_or(Changes::Untold, Watch::changes);
        match changes {
            Changes::None => Ok(true),
            Changes::Paths(paths) => {
                for path in paths {
                    let (from, to) = (original.0.join(&path), self.place.0.join(&path));
                    if remove(&to).is_err() {
                        return Ok(false);
                    }
                    if let Ok(meta) = fs::symlink_metadata(&from) {
                        copy_entry(&from, &meta, &[to])?;
                        self.watch.as_mut().map(|watch| watch.add(&self.place.0, &path));
                    }
                }
                Ok(self.watch.as_mut().is_some_and(Watch::forget))
            }
            Changes::Untold => {
                // What a script made unremovable goes with the scratch folder.
                remove(&self.place.0).ok();
                Ok(false)
            }
        }
    }
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
    let fs = statvfs(memory).ok().filter(|fs| is_tmpfs && !fs.flags().contains(FsFlags::ST_NOEXEC))?;
    let free_bytes = fs.blocks_available().saturating_mul(fs.fragment_size());
    (bytes <= IN_MEMORY_BYTES_MAX && free_bytes / 16 > bytes).then_some(memory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A set-up of three files and a folder, and a first copy of it.
    fn made() -> (tempfile::TempDir, Copies, Copy) {
        let dir = tempfile::tempdir().unwrap();
        let setup = dir.path().join("setup");
        fs::create_dir_all(setup.join("sub")).unwrap();
        for (name, text) in [("a.sh", "a"), ("b.sh", "b"), ("sub/c", "c")] {
            fs::write(setup.join(name), text).unwrap();
        }
        symlink("a.sh", setup.join("link")).unwrap();
        let copies = Copies::new(dir.path().join("work"));
        copies.fill(&Tree::list(&setup).unwrap()).unwrap();
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
        let (_dir, copies, copy) = made();
        let first = copy.place().folder();
        copies.give_back(copy);
        assert_eq!(copies.take().unwrap().place().folder(), first);
    }

    #[test]
    fn a_repaired_copy_is_used_again() {
        let (_dir, copies, copy) = made();
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

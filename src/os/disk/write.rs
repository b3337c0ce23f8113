//! Files that appear complete or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::setpriority_process;
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempPath};

use super::DiskError;
use crate::os::engine::is_ours_alone;

/// Writes `bytes` to the file `path` with mode 0644, less the umask, and creates the folders above it that are missing.
///
/// Whoever opens `path` finds the old content or the new, never a part. Nothing is flushed: after a power failure the
/// file may be empty. A link at `path` is replaced, not followed.
///
/// # Errors
/// If there is no space, no permission, or a folder at `path`. No temporary file is left behind.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    Prepared::new(path)?.write(bytes)
}

/// A file that is going to be written: what makes it takes longer than what fills it, and can be done while a script runs.
pub(crate) struct Prepared {
    path: PathBuf,
    aside: NamedTempFile,
}

impl Prepared {
    /// Makes a temporary file, removed when it is dropped, and the folders above `path` that are missing.
    ///
    /// # Errors
    /// As `write_atomically`.
    pub(crate) fn new(path: &Path) -> Result<Self, DiskError> {
        let folder = match path.parent() {
            None => Path::new("/"),
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
        };
        fs::create_dir_all(folder).map_err(|source| folder_error(folder, source))?;
        let aside = make_aside(folder, Permissions::from_mode(0o644)).map_err(|source| write_error(path, source))?;
        Ok(Self { path: path.to_owned(), aside })
    }

    /// Writes the content and gives the file its name.
    ///
    /// # Errors
    /// As `write_atomically`.
    pub(crate) fn write(self, bytes: &[u8]) -> Result<(), DiskError> {
        let Self { path, mut aside } = self;
        let written = aside.write_all(bytes).and_then(|()| put_in_place(aside.into_temp_path(), &path));
        written.map_err(|source| write_error(&path, source))
    }
}

/// Gives the calling thread a processor only when nobody else wants it: for work on the disk that nobody waits for.
pub(crate) fn let_others_go_first() {
    const LOWEST: i32 = 19;
    // Refused or not, the work is done.
    setpriority_process(None, LOWEST).ok();
}

/// What the name of a file begins and ends with as long as it is written.
const ASIDE: (&str, &str) = (".proving-ground-", ".tmp");

/// Tells whether a file of that name is, or was when its writer was killed, being written by us.
pub(super) fn is_aside(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(ASIDE.0.as_bytes()) && name.ends_with(ASIDE.1.as_bytes())
}

/// Makes a file that is removed when it is dropped, with a name that tells it from finished ones.
pub(super) fn make_aside(folder: &Path, mode: Permissions) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(ASIDE.0).suffix(ASIDE.1).permissions(mode).tempfile_in(folder)
}

/// Gives the file `aside` the name `path`.
///
/// Over an existing file ext4 makes a rename wait until the new content is on the disk (`auto_da_alloc`), which costs four
/// times as much as to exchange the two names and remove the old content. Only a regular file is exchanged: a rename
/// refuses a folder at `path`, an exchange would move it away.
fn put_in_place(aside: TempPath, path: &Path) -> io::Result<()> {
    let aside = match aside.persist_noclobber(path) {
        Ok(()) => return Ok(()),
        Err(refused) => refused.path,
    };
    if path.symlink_metadata().is_ok_and(|there| there.is_file())
        && renameat_with(CWD, &*aside, CWD, path, RenameFlags::EXCHANGE).is_ok()
    {
        return aside.close();
    }
    aside.persist(path).map_err(|refused| refused.error)
}

/// A file that was written whole, and can be given more names.
pub(crate) struct Kept {
    path: PathBuf,
    left: Left,
}

impl Kept {
    /// As `write_atomically`.
    ///
    /// # Errors
    /// As `write_atomically`.
    pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<Self, DiskError> {
        write_atomically(path, bytes)?;
        let left =
            fs::symlink_metadata(path).map(|meta| Left::of(&meta)).map_err(|source| write_error(path, source))?;
        Ok(Self { path: path.to_owned(), left })
    }

    /// Gives the file the name `path` as well, and makes the folders above it that are missing. Returns whether it has the name
    /// now: not if somebody else wrote to it, if there is something of that name, or if the file system or the number of names
    /// does not allow it.
    pub(crate) fn link(&self, path: &Path) -> bool {
        if !fs::symlink_metadata(&self.path).is_ok_and(|meta| Left::of(&meta) == self.left) {
            return false;
        }
        match fs::hard_link(&self.path, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                path.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok())
                    && fs::hard_link(&self.path, path).is_ok()
            }
            linked => linked.is_ok(),
        }
    }
}

/// A file as we left it; if it is no more like that, somebody else wrote to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    inode: u64,
    len: u64,
    mtime: (i64, i64),
}

impl Left {
    fn of(meta: &Metadata) -> Self {
        Self { inode: meta.ino(), len: meta.len(), mtime: (meta.mtime(), meta.mtime_nsec()) }
    }
}

/// A file that is replaced after every trial.
///
/// Its old content is kept beside it and written over next time, from the first byte that differs: what a replacement costs is
/// what has changed. A new file each time would cost more, on ext4 without a journal much more: before it makes one it looks at
/// every file that was removed in the last minutes. The two change names atomically. A reader who still has the old content
/// open keeps it: then a new file is made.
pub(crate) struct Replaced {
    path: PathBuf,
    spare: PathBuf,
    known: Mutex<Known>,
}

/// What we left in both files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    at_path: Option<Left>,
    at_spare: Option<Left>,
    /// Leading bytes that both have in common.
    common: usize,
}

impl Replaced {
    /// The file at `path`; `spare` must be in the same folder, and ours. `known` is what another process has left them with.
    pub(crate) fn new(path: PathBuf, spare: PathBuf, known: Known) -> Self {
        let is_as_left = fs::symlink_metadata(&path).is_ok_and(|meta| known.at_path == Some(Left::of(&meta)));
        let known = if is_as_left { known } else { Known::default() };
        Self { path, spare, known: Mutex::new(known) }
    }

    /// Replaces the content by `parts`, one after another, as `write_atomically`. The first `unchanged` bytes are as they were in the
    /// last call, or, in the first, in the file.
    ///
    /// # Errors
    /// As `write_atomically`.
    pub(crate) fn write(&self, parts: &[&[u8]], unchanged: usize) -> Result<(), DiskError> {
        // Should we break down in here, nothing is known.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { at_path, at_spare, common } = std::mem::take(&mut *known);
        let common_with_path = unchanged.min(parts.iter().map(|part| part.len()).sum());
        if let Ok(Some(left)) = self.write_over_spare(parts, at_spare, common.min(common_with_path)) {
            *known = Known { at_path: Some(left), at_spare: at_path, common: common_with_path };
            return Ok(());
        }
        let Kept { left, .. } = Kept::write(&self.spare, &parts.concat())?;
        let exchanged = renameat_with(CWD, &self.spare, CWD, &self.path, RenameFlags::EXCHANGE);
        *known = Known { at_path: Some(left), at_spare: at_path, common: common_with_path };
        exchanged.or_else(|_| fs::rename(&self.spare, &self.path)).map_err(|source| write_error(&self.path, source))
    }

    /// Returns what the next process needs to know that goes on with both files.
    pub(crate) fn leave(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes what is kept beside the file.
    pub(crate) fn finish(&self) {
        // Most often it is there; if not, it is as it should be.
        fs::remove_file(&self.spare).ok();
    }

    /// `None`: somebody has the spare open.
    fn write_over_spare(&self, parts: &[&[u8]], left: Option<Left>, common: usize) -> io::Result<Option<Left>> {
        let file = File::options().write(true).open(&self.spare)?;
        if !is_ours_alone(&file) {
            return Ok(None);
        }
        let found = Left::of(&file.metadata()?);
        let start = if left == Some(found) { common } else { 0 };
        let mut at = 0;
        for part in parts {
            let skipped = start.saturating_sub(at).min(part.len());
            file.write_all_at(&part[skipped..], (at + skipped) as u64)?;
            at += part.len();
        }
        if found.len > at as u64 {
            file.set_len(at as u64)?;
        }
        let left = Left::of(&file.metadata()?);
        renameat_with(CWD, &self.spare, CWD, &self.path, RenameFlags::EXCHANGE)?;
        Ok(Some(left))
    }
}

fn folder_error(folder: &Path, source: io::Error) -> DiskError {
    let path = folder.to_owned();
    if is_full(&source) { DiskError::Full { path, source } } else { DiskError::CreateFolder { path, source } }
}

pub(super) fn write_error(path: &Path, source: io::Error) -> DiskError {
    let path = path.to_owned();
    if is_full(&source) { DiskError::Full { path, source } } else { DiskError::Write { path, source } }
}

/// Tells whether no space, or no quota, is left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_replaced_file_is_whole_for_a_reader_who_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let file = Replaced::new(dir.path().join("file"), dir.path().join(".spare"), Known::default());
        file.write(&[b"first"], 0).unwrap();
        let mut slow = File::open(dir.path().join("file")).unwrap();
        for text in ["second", "third, which is longer", "4"] {
            file.write(&[text.as_bytes()], 0).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), text);
        }
        let mut seen = String::new();
        slow.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "first");
        file.finish();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn replacing_makes_no_new_file_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = Replaced::new(path.clone(), dir.path().join(".spare"), Known::default());
        let inodes: std::collections::BTreeSet<u64> = (0..10)
            .map(|number| {
                file.write(&[format!("{number}").as_bytes()], 0).unwrap();
                fs::metadata(&path).unwrap().ino()
            })
            .collect();
        assert!(inodes.len() <= 2, "{inodes:?}");
    }

    #[test]
    fn only_what_differs_is_written_and_nobody_elses_bytes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = Replaced::new(path.clone(), dir.path().join(".spare"), Known::default());
        let mut last = Vec::new();
        let texts = ["", "one", "one two", "one two three", "one 2", "one 2 3", "on", "one 2 3 4", "1"];
        for (round, text) in texts.into_iter().cycle().take(50).enumerate() {
            let unchanged = last.iter().zip(text.as_bytes()).take_while(|(a, b)| a == b).count();
            let (one, other) = text.as_bytes().split_at(text.len() / 2);
            file.write(&[one, other], unchanged).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "round {round}");
            last = text.as_bytes().to_vec();
            if round % 5 == 4 {
                // As the next process does.
                file = Replaced::new(path.clone(), dir.path().join(".spare"), file.leave());
            }
            if round % 7 == 3 {
                // As a user does who edits the file.
                fs::write(&path, "not ours").unwrap();
            }
        }
    }
}

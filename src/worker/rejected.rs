//! What is kept for people and never sent: results that were refused for good, and files that are neither results nor jobs.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::os::disk::{DiskError, PathError, rename_durably, sweep_aside, tried, write_durably};
use crate::os::workdir::{self, PrivateFolderError, make_private};
use crate::worker::state::names_in;

/// How much may be in a folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

const REJECTED: Bounds = Bounds { files: 500, bytes: 1 << 30 };
/// What the text that tells why something was set aside has at the end of its name.
pub(super) const WHY: &str = ".why";

/// Why something could not be set aside.
#[derive(Debug, thiserror::Error)]
pub(super) enum RejectedError {
    #[error(transparent)]
    Folder(#[from] PrivateFolderError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Io(#[from] PathError),
}

/// The folder of all that was set aside. The worker's folder must be locked: nobody else writes here.
#[derive(Debug)]
pub(super) struct Rejected {
    dir: PathBuf,
    /// Beyond that the oldest goes; no reason counts.
    pub(super) max: Bounds,
}

impl Rejected {
    /// Opens the folder `dir`. Reasons of what somebody has taken from there are removed.
    ///
    /// # Errors
    /// If it cannot be had.
    pub(super) fn open(dir: PathBuf) -> Result<Self, RejectedError> {
        make_private(&dir)?;
        sweep_aside(&dir).map_err(tried("clear", &dir))?;
        remove_reasons_alone(&dir).map_err(tried("clear", &dir))?;
        Ok(Self { dir, max: REJECTED })
    }

    /// Moves what lies at `path` here, in place of what has its name, with a text beside it that tells why. Returns the names of older ones
    /// that had to go for it.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub(super) fn take(&self, path: &Path, name: &str, why: &str) -> Result<Vec<OsString>, RejectedError> {
        let to = self.dir.join(name);
        // A folder is not replaced by a rename, nor does one replace a file.
        workdir::remove(&to).map_err(tried("remove", &to))?;
        rename_durably(path, &to)?;
        // Without the text it is still there, which matters more.
        write_durably(&self.dir.join(format!("{name}{WHY}")), why.as_bytes()).ok();
        Ok(self.bound(name).map_err(tried("clear", &self.dir))?)
    }

    /// Removes the oldest until the rest is within the bounds; `kept` stays.
    fn bound(&self, kept: &str) -> io::Result<Vec<OsString>> {
        let mut rejected = Vec::new();
        for name in names_in(&self.dir)?.into_iter().filter(|name| of_reason(name).is_none()) {
            let meta = fs::symlink_metadata(self.dir.join(&name))?;
            rejected.push((changed(&meta), name, meta.len()));
        }
        rejected.sort();
        let (mut files, mut bytes) = (rejected.len(), rejected.iter().map(|(_, _, bytes)| bytes).sum::<u64>());
        let mut removed = Vec::new();
        for (_, name, len) in rejected.into_iter().filter(|(_, name, _)| name != kept) {
            if files <= self.max.files && bytes <= self.max.bytes {
                break;
            }
            let mut why = name.clone();
            why.push(WHY);
            workdir::remove(&self.dir.join(&name))?;
            workdir::remove(&self.dir.join(why))?;
            (files, bytes) = (files - 1, bytes.saturating_sub(len));
            removed.push(name);
        }
        Ok(removed)
    }
}

fn remove_reasons_alone(dir: &Path) -> io::Result<()> {
    let names: BTreeSet<_> = names_in(dir)?.into_iter().collect();
    for name in &names {
        if of_reason(name).is_some_and(|of| !names.contains(of)) {
            workdir::remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Returns what is called so that a text with this name tells its reason.
fn of_reason(name: &OsStr) -> Option<&OsStr> {
    name.as_bytes().strip_suffix(WHY.as_bytes()).map(OsStr::from_bytes)
}

/// When a file came to be where it is.
pub(super) fn changed(meta: &fs::Metadata) -> (i64, i64) {
    (meta.ctime(), meta.ctime_nsec())
}

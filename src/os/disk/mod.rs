//! The disk: snapshots of paths, and files that appear complete or not at all.
//!
//! A snapshot is evidence, so nothing that a script can do to the disk is an error here: what is missing, unreadable or
//! strange is recorded as that. A [`DiskError`] is our own failure.

#[cfg(feature = "worker")]
mod durable;
mod evidence;
mod hash_cache;
mod names;
mod read;
mod roots;
mod snapshot;
mod stat;
mod write;
mod xattr;

use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "worker")]
pub(crate) use durable::{read_ours, remove_file, rename_durably, sweep_aside, write_durably};
pub(crate) use evidence::{EvidenceReader, ListedKind, list, sha256};
#[cfg(feature = "worker")]
pub(crate) use evidence::{hex, is_sha256_text, sha256_text};
pub(crate) use read::{read_config, read_tail, sha256_of};
pub(crate) use roots::SnapshotRoot;
pub(crate) use snapshot::Snapshotter;
pub(crate) use write::{Kept, Known, Prepared, Replaced, is_full, let_others_go_first, write_atomically};

/// An I/O error, and what was tried.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} `{path}`", path = path.display())]
pub(crate) struct PathError {
    action: &'static str,
    path: PathBuf,
    pub(crate) source: io::Error,
}

/// Attaches what was tried to an I/O error.
pub(crate) fn tried<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PathError + 'a {
    move |source| PathError { action, path: path.to_path_buf(), source }
}

/// The disk, or what we may use of it, failed us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// Out of descriptors or memory.
    #[error("could not look at `{path}`")]
    Look {
        /// What was being looked at.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A missing folder above a file could not be made.
    #[error("could not create the folder `{path}`")]
    CreateFolder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file could not be written; what was there before still is.
    #[error("could not write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no space, or no quota, left; what was there before still is.
    #[error("no space is left to write `{path}`: free some there, or choose a folder on another disk")]
    Full {
        /// The file or folder.
        path: PathBuf,
        /// `ENOSPC` or `EDQUOT`.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;

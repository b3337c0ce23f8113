//! Our own folders: emptied, told from others', removed.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use nix::unistd::Uid;

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

/// Gives a folder and all in it to a user and a group; links are given, not followed.
///
/// # Errors
/// If that is refused.
pub(crate) fn give_to(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(path) {
        lchown(entry?.path(), Some(uid), Some(gid))?;
    }
    Ok(())
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
    // A folder must be opened before what is in it can be seen.
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).ok();
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    fs::remove_dir_all(path)
}

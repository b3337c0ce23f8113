//! Our own folders: emptied, told from others', removed.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

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

/// Removes whatever is at `path`, folders that forbid it included, and folders that are deeper than we may open files or than a path may
/// name.
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
    allow_ourselves(path)?;
    let mut names = (0_u64..).map(|number| path.join(format!("removed.{number}")));
    loop {
        let mut is_empty = true;
        for entry in fs::read_dir(path)? {
            is_empty = false;
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove_but_folders(&entry.path(), &mut names)?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        if is_empty {
            return fs::remove_dir(path);
        }
    }
}

/// Removes a folder, and moves those in it to `names` that are free.
///
/// # Errors
/// If that is refused.
fn remove_but_folders(folder: &Path, names: &mut impl Iterator<Item = PathBuf>) -> io::Result<()> {
    allow_ourselves(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            // What is moved to another folder is written to.
            allow_ourselves(&entry.path())?;
            let free = names.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_default();
            fs::rename(entry.path(), free)?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// A folder must be opened before what is in it can be seen.
///
/// # Errors
/// If it is not ours.
fn allow_ourselves(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Sees to it that we can read `path` and all in it, of which we are the owner.
///
/// # Errors
/// If that is refused.
pub(crate) fn make_readable(path: &Path) -> io::Result<()> {
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        add_mode(&folder, 0o700)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                add_mode(&entry.path(), 0o400)?;
            }
        }
    }
    Ok(())
}

/// # Errors
/// If it is not ours.
fn add_mode(path: &Path, bits: u32) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & bits == bits { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(mode | bits)) }
}

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

/// Why a folder is not one that only we can use.
#[cfg(feature = "worker")]
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivateFolderError {
    #[error("could not make the folder `{path}`", path = path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is a link or a file, or belongs to another user, who could change what is in it; name another folder", path = .0.display())]
    NotOurs(PathBuf),
    #[error(
        "others may enter or change `{path}` (its mode is {mode:04o}); take that from them with `chmod 700`, or name another folder",
        path = path.display()
    )]
    Open { path: PathBuf, mode: u32 },
}

/// Sees to it that `path` is a folder that nobody else can enter; makes it, and those above it that are missing.
///
/// # Errors
/// If it cannot be made, or is there and not so: it is never changed, somebody may rely on it.
#[cfg(feature = "worker")]
pub(crate) fn make_private(path: &Path) -> Result<(), PrivateFolderError> {
    let make = |source| PrivateFolderError::Make { path: path.to_path_buf(), source };
    if fs::symlink_metadata(path).is_err() {
        fs::DirBuilder::new().recursive(true).mode(PRIVATE_MODE).create(path).map_err(make)?;
    }
    if !is_own_folder(path) {
        return Err(PrivateFolderError::NotOurs(path.to_path_buf()));
    }
    let mode = fs::symlink_metadata(path).map_err(make)?.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(PrivateFolderError::Open { path: path.to_path_buf(), mode }) }
}

#[cfg(feature = "worker")]
const PRIVATE_MODE: u32 = 0o700;

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
pub(super) fn add_mode(path: &Path, bits: u32) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & bits == bits { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(mode | bits)) }
}

#[cfg(feature = "worker")]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_private_folder_is_made_with_those_above_it_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        make_private(&path).unwrap();
        for made in ["a", "a/b", "a/b/c"] {
            assert_eq!(fs::metadata(dir.path().join(made)).unwrap().permissions().mode() & 0o777, 0o700, "{made}");
        }
        make_private(&path).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_use_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o755, 0o770, 0o701, 0o1777] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = make_private(dir.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:04o}")) && error.contains("chmod 700"), "{error}");
            assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn links_files_and_folders_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink(dir.path(), dir.path().join("link")).unwrap();
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for name in ["link", "dangling", "file"] {
            let refused = make_private(&dir.path().join(name));
            assert!(matches!(refused, Err(PrivateFolderError::NotOurs(_))), "{name}: {refused:?}");
        }
        if Uid::effective().is_root() {
            fs::create_dir(dir.path().join("given")).unwrap();
            lchown(dir.path().join("given"), Some(12345), None).unwrap();
            assert!(matches!(make_private(&dir.path().join("given")), Err(PrivateFolderError::NotOurs(_))));
        }
        assert!(make_private(&dir.path().join("file/below")).is_err());
    }
}

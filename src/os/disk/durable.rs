//! Files that outlive a power failure: whoever was told that one is written finds it whole afterwards, or what was there before.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::DiskError;
use super::read::open_regular;
use super::write::{is_aside, make_aside, write_error};

/// For our eyes only: what is kept so is of students.
const MODE: u32 = 0o600;
/// Nothing that is kept so is larger.
const BYTES_MAX: u64 = 1 << 30;

/// Writes `bytes` to the file `path`, mode 0600, in a folder that is there; content and name are on the disk when it returns. A link
/// at `path` is replaced, not followed.
///
/// A power failure before it returns leaves what was there, or the new file. If nothing was there that may lack a part of its content:
/// its readers must see that. For this its content and its name go to the disk together, in half the time.
///
/// # Errors
/// If there is no space, no permission, or a folder at `path`; what was there before still is, and no temporary file is left.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let write = || -> io::Result<()> {
        let folder = folder_of(path)?;
        let mut aside = make_aside(folder, Permissions::from_mode(MODE))?;
        aside.write_all(bytes)?;
        let (file, aside) = aside.into_parts();
        match aside.persist_noclobber(path) {
            // The error that is already there matters more.
            Ok(()) => file.sync_all().inspect_err(|_| fs::remove_file(path).unwrap_or(()))?,
            Err(refused) => {
                file.sync_all()?;
                refused.path.persist(path).map_err(|refused| refused.error)?;
            }
        }
        sync_folder(folder)
    };
    write().map_err(|source| write_error(path, source))
}

/// Returns what is in the file `path`, which `write_durably` has written, unless somebody was there since. `None` if it is no file of ours:
/// not there, no regular file, or larger than 1 GiB.
///
/// # Errors
/// If it cannot be read now, which says nothing of what is in it.
pub(crate) fn read_ours(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = match open_regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => opened?,
    };
    let Some((file, meta)) = opened.filter(|(_, meta)| meta.len() <= BYTES_MAX) else { return Ok(None) };
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(meta.len()).unwrap_or(usize::MAX))?;
    file.take(meta.len()).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Removes the file `path`; a power failure may bring it back. One that is not there is removed already.
///
/// # Errors
/// If that is refused.
pub(crate) fn remove_file(path: &Path) -> Result<(), DiskError> {
    let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    fs::remove_file(path).or_else(gone).map_err(|source| write_error(path, source))
}

/// Gives what is at `from` the name `to`, for good when it returns: after a power failure it has one of both names.
///
/// # Errors
/// If that is refused.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<(), DiskError> {
    let rename = || {
        fs::rename(from, to)?;
        // First where it is now.
        sync_folder(folder_of(to)?)?;
        sync_folder(folder_of(from)?)
    };
    rename().map_err(|source| write_error(from, source))
}

/// Removes from `folder` what writers that were killed have left half-written. Nobody may be writing there.
///
/// # Errors
/// If the folder cannot be read, or something not be removed.
pub(crate) fn sweep_aside(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_aside(&entry.file_name()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Names are the folder's content (fsync(2)).
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_is_for_our_eyes_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for text in ["first", "second, longer", ""] {
            write_durably(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "old").unwrap();
        symlink("precious", dir.path().join("file")).unwrap();
        write_durably(&dir.path().join("file"), b"new").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("precious")).unwrap(), "old");
        assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "new");
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("file/below")).unwrap();
        write_durably(&dir.path().join("file"), b"new").unwrap_err();
        assert_eq!(names(dir.path()), ["file"]);
        write_durably(&dir.path().join("absent/file"), b"new").unwrap_err();
    }

    #[test]
    fn only_a_regular_file_is_ours_and_only_a_failure_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write_durably(&at("file"), b"content").unwrap();
        symlink("file", at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(read_ours(&at("file")).unwrap(), Some(b"content".to_vec()));
        for name in ["link", "folder", "pipe", "socket", "nothing"] {
            assert_eq!(read_ours(&at(name)).unwrap(), None, "{name}");
        }
        // A part of a path that is no folder stands for whatever keeps us from looking.
        read_ours(&at("file/below")).unwrap_err();
    }

    #[test]
    fn only_what_was_written_aside_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".proving-ground-Ab1.tmp", "kept", ".kept", "kept.tmp"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        sweep_aside(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [".kept", "kept", "kept.tmp"]);
    }

    #[test]
    fn removing_and_renaming_do_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        write_durably(&from, b"x").unwrap();
        rename_durably(&from, &to).unwrap();
        assert_eq!(names(dir.path()), ["to"]);
        rename_durably(&from, &to).unwrap_err();
        remove_file(&to).unwrap();
        remove_file(&to).unwrap();
        assert_eq!(names(dir.path()), [] as [&str; 0]);
    }
}

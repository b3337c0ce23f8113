//! Files that appear complete or not at all.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempPath;

use super::DiskError;

/// Writes `bytes` to the file `path` with mode 0644 and creates the folders above it that are missing.
///
/// Whoever opens `path` finds the old content or the new, never a part. Nothing is flushed: after a power failure the
/// file may be empty. A link at `path` is replaced, not followed.
///
/// # Errors
/// If there is no space, no permission, or a folder at `path`. No temporary file is left behind.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let folder = match path.parent() {
        None => Path::new("/"),
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
    };
    let written = match write_aside(folder, bytes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(|source| folder_error(folder, source))?;
            write_aside(folder, bytes)
        }
        written => written,
    };
    written.and_then(|aside| put_in_place(aside, path)).map_err(|source| write_error(path, source))
}

/// Writes a temporary file in `folder`; it is removed when it is dropped.
fn write_aside(folder: &Path, bytes: &[u8]) -> io::Result<TempPath> {
    let mut file = tempfile::Builder::new().prefix(".proving-ground-").suffix(".tmp").tempfile_in(folder)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(bytes)?;
    Ok(file.into_temp_path())
}

/// Gives the file `aside` the name `path`.
///
/// Over an existing file ext4 makes a rename wait until the new content is on the disk (`auto_da_alloc`), which costs four
/// times as much as to exchange the two names and remove the old content. Only a regular file is exchanged: a rename
/// refuses a folder at `path`, an exchange would move it away.
fn put_in_place(aside: TempPath, path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|there| there.is_file())
        && renameat_with(CWD, &*aside, CWD, path, RenameFlags::EXCHANGE).is_ok()
    {
        return aside.close();
    }
    aside.persist(path).map_err(|refused| refused.error)
}

fn folder_error(folder: &Path, source: io::Error) -> DiskError {
    let path = folder.to_owned();
    if is_full(&source) { DiskError::Full { path, source } } else { DiskError::CreateFolder { path, source } }
}

fn write_error(path: &Path, source: io::Error) -> DiskError {
    let path = path.to_owned();
    if is_full(&source) { DiskError::Full { path, source } } else { DiskError::Write { path, source } }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

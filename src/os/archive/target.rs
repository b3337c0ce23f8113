//! The folder that an archive is unpacked into. Nothing in it can lead outside, whoever put it there: each part of a path is opened from
//! the folder before it, and no link is followed.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fchmod, mkdirat, open, openat};
use rustix::io::Errno;

use super::entry::Kind;

const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const PROGRAM_MODE: Mode = Mode::from_raw_mode(0o755);
/// Until it has its own: whatever our umask is.
const FIRST_MODE: Mode = Mode::from_raw_mode(0o700);

/// The folder.
pub(super) struct Target(OwnedFd);

impl Target {
    /// Opens an empty folder.
    ///
    /// # Errors
    /// If there is none, or something is in it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if fs::read_dir(path)?.next().is_some() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        Ok(Self(open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Makes a folder, unless it is there, and those above it.
    ///
    /// # Errors
    /// If that is refused, or something else has one of the names.
    pub(super) fn make_folder(&self, path: &[u8]) -> io::Result<()> {
        self.folder(path).map(drop)
    }

    /// Makes a file that is not there, and the folders above it.
    ///
    /// # Errors
    /// If that is refused, or something has the name.
    pub(super) fn make_file(&self, path: &[u8], kind: Kind) -> io::Result<File> {
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(end) => (self.folder(&path[..end])?, &path[end + 1..]),
            None => (self.0.try_clone()?, path),
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&folder, name, flags, FIRST_MODE)?;
        fchmod(&file, if kind == Kind::Program { PROGRAM_MODE } else { FILE_MODE })?;
        Ok(file.into())
    }

    /// Opens a folder, and makes those on the way that are missing.
    fn folder(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut folder = self.0.try_clone()?;
        for name in path.split(|byte| *byte == b'/') {
            folder = subfolder(&folder, name)?;
        }
        Ok(folder)
    }
}

/// Opens a folder in another, and makes it if it is missing.
fn subfolder(folder: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            mkdirat(folder, name, FIRST_MODE)?;
            let made = openat(folder, name, flags, Mode::empty())?;
            fchmod(&made, FOLDER_MODE)?;
            Ok(made)
        }
        opened => Ok(opened?),
    }
}

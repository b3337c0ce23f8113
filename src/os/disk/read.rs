//! Files that people write for us.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::DiskError;
use super::evidence::hex;

/// More than any parser takes, so that a larger file is refused with a place, not cut.
const BYTES_MAX: u64 = 2 << 20;

/// Returns what is in a file, 2 MiB at most. A pipe or device of that name does not make it wait.
///
/// # Errors
/// If it cannot be read or is no regular file.
pub(crate) fn read_config(path: &Path) -> io::Result<Vec<u8>> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens the file `path` to read it. `None` if it is no regular file: a link is not followed, and a pipe that was put there a moment ago
/// does not make it wait.
///
/// # Errors
/// If it is not there or cannot be opened.
pub(super) fn open_regular(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        // open(2): a link; a socket.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::LOOP | Errno::NXIO)) => return Ok(None),
        opened => opened?,
    };
    let meta = file.metadata()?;
    Ok(meta.is_file().then_some((file, meta)))
}

/// Returns the last `bytes_max` bytes of a file.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read_tail(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the SHA-256 of a file's content, as 64 hexadecimal digits.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn sha256_of(path: &Path) -> Result<String, DiskError> {
    hash(path).map_err(|source| DiskError::Look { path: path.to_owned(), source })
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// Stays in the processor's caches.
const BUFFER_BYTES: usize = 64 << 10;

//! Files that people write for us.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

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

//! Extended attributes of a file.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::model::snapshot::{XattrValue, Xattrs};

/// Longer values are kept as their digest.
const KEPT_BYTES_MAX: usize = 256;

/// How often a list that grows under our eyes is read.
const READS_MAX: usize = 3;

/// Whose attributes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handle<'a> {
    /// An open file's.
    Open(BorrowedFd<'a>),
    /// Whatever is at a path; a link's own.
    Path(&'a Path),
}

/// Returns every attribute that can be seen. If the list itself cannot be read, an empty name says why; a file system
/// without attributes has none.
pub(super) fn read(handle: Handle<'_>) -> Xattrs {
    let list = match read_growing(|buffer| handle.list(buffer), || handle.list_bytes()) {
        Ok(list) => list,
        Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOENT) => return Xattrs::new(),
        Err(errno) => return Xattrs::from([(Vec::new(), unreadable(errno))]),
    };
    let names = list.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    let values =
        names.filter_map(|name| match read_growing(|buffer| handle.get(name, buffer), || handle.value_bytes(name)) {
            Ok(value) => Some((name.to_bytes().to_vec(), kept(value))),
            Err(Errno::NODATA | Errno::NOENT) => None,
            Err(errno) => Some((name.to_bytes().to_vec(), unreadable(errno))),
        });
    values.collect()
}

fn unreadable(errno: Errno) -> XattrValue {
    XattrValue::Unreadable { errno: errno.raw_os_error() }
}

fn kept(value: Vec<u8>) -> XattrValue {
    if value.len() <= KEPT_BYTES_MAX {
        return XattrValue::Bytes(value);
    }
    XattrValue::Digest { size_bytes: value.len() as u64, sha256: Sha256::digest(&value).into() }
}

/// Reads into a buffer that is nearly always large enough, else asks for the size first.
fn read_growing(
    read: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    size: impl Fn() -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut short = [0; KEPT_BYTES_MAX];
    match read(&mut short) {
        Ok(len) => return Ok(short.get(..len).unwrap_or_default().to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    for _ in 0..READS_MAX {
        let mut long = vec![0; size()?];
        match read(&mut long) {
            Ok(len) => {
                long.truncate(len);
                return Ok(long);
            }
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::RANGE)
}

impl Handle<'_> {
    fn list(self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(file) => rustix::fs::flistxattr(file, buffer),
            Self::Path(path) => rustix::fs::llistxattr(path, buffer),
        }
    }

    fn get(self, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(file) => rustix::fs::fgetxattr(file, name, buffer),
            Self::Path(path) => rustix::fs::lgetxattr(path, name, buffer),
        }
    }

    fn list_bytes(self) -> Result<usize, Errno> {
        match self {
            Self::Open(file) => rustix::fs::flistxattr_query(file),
            Self::Path(path) => rustix::fs::llistxattr_query(path),
        }
    }

    fn value_bytes(self, name: &CStr) -> Result<usize, Errno> {
        match self {
            Self::Open(file) => rustix::fs::fgetxattr_query(file, name),
            Self::Path(path) => rustix::fs::lgetxattr_query(path, name),
        }
    }
}

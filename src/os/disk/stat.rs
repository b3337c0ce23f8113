//! What the kernel says of one file, and what time it is by its clock.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::hash_cache::{FileId, Fingerprint};
use crate::model::snapshot::{DeviceNumber, Meta, Timestamp, Xattrs};

/// What matters of what `statx` says; to hand all its 256 bytes around would cost more than to pick these.
pub(super) struct Stat {
    pub(super) id: FileId,
    pub(super) fingerprint: Fingerprint,
    pub(super) number: DeviceNumber,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
}

pub(super) fn stat(folder: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Stat, Errno> {
    let statx = rustix::fs::statx(folder, name, flags | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)?;
    let time = |time: StatxTimestamp| Timestamp { secs: time.tv_sec, nanos: time.tv_nsec };
    let device = (u64::from(statx.stx_dev_major) << 32) | u64::from(statx.stx_dev_minor);
    Ok(Stat {
        id: FileId { device, inode: statx.stx_ino },
        fingerprint: Fingerprint {
            size_bytes: statx.stx_size,
            mtime: time(statx.stx_mtime),
            ctime: time(statx.stx_ctime),
        },
        number: DeviceNumber { major: statx.stx_rdev_major, minor: statx.stx_rdev_minor },
        mode: statx.stx_mode,
        uid: statx.stx_uid,
        gid: statx.stx_gid,
        nlink: statx.stx_nlink,
    })
}

pub(super) fn stat_of(opened: &OwnedFd) -> Result<Stat, Errno> {
    stat(opened.as_fd(), c"", AtFlags::EMPTY_PATH)
}

impl Stat {
    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode.into())
    }

    pub(super) fn meta(&self, xattrs: Xattrs) -> Meta {
        Meta {
            mode: self.mode & 0o7777,
            uid: self.uid,
            gid: self.gid,
            mtime: self.fingerprint.mtime,
            nlink: self.nlink,
            xattrs,
        }
    }
}

/// The clock by which the kernel stamps files.
pub(super) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::RealtimeCoarse);
    Timestamp { secs: time.tv_sec, nanos: u32::try_from(time.tv_nsec).unwrap_or(0) }
}

//! The names in a folder.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use super::hash_cache::{FileId, Fingerprint, Moment};
use super::stat::Stat;

const LIST_BUFFER_BYTES: usize = 32 << 10;

/// So many folders are remembered, then all are forgotten: scripts may make new ones all the time.
const FOLDERS_MAX: usize = 10_000;

/// The names in folders that have not changed since they were listed: every name that comes or goes changes a folder's times, so
/// what is said of files in `hash_cache` goes for them.
#[derive(Debug, Default)]
pub(super) struct NameCache(HashMap<FileId, (Fingerprint, Arc<Names>)>);

impl NameCache {
    /// Returns the names in a folder, if it is still the same.
    pub(super) fn get(&self, stat: &Stat) -> Option<Arc<Names>> {
        let (fingerprint, names) = self.0.get(&stat.id)?;
        (*fingerprint == stat.fingerprint).then(|| Arc::clone(names))
    }

    /// Remembers the names in a folder that looked like `stat` before it was listed, at `now` at the earliest. The folders of
    /// the kernel's own file systems (/proc, /sys) have no size, and their times mean nothing.
    pub(super) fn insert(&mut self, stat: &Stat, now: Moment, names: &Arc<Names>) {
        if stat.fingerprint.size_bytes > 0 && now.may_remember(&stat.fingerprint) {
            if self.0.len() >= FOLDERS_MAX {
                self.0.clear();
            }
            self.0.insert(stat.id, (stat.fingerprint, Arc::clone(names)));
        }
    }
}

/// The names in a folder, one after the other in one allocation.
#[derive(Debug)]
pub(super) struct Names {
    text: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Debug)]
struct Span {
    start: usize,
    end: usize,
    file_type: FileType,
}

impl Names {
    /// Reads all names but `.` and `..`, in the order of their bytes. `buffer` must be empty.
    pub(super) fn of(folder: &OwnedFd, buffer: &mut Vec<u8>) -> Result<Self, Errno> {
        let mut names = Self { text: Vec::new(), spans: Vec::new() };
        buffer.reserve(LIST_BUFFER_BYTES);
        let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name, entry.file_type());
            }
        }
        names.sort();
        Ok(names)
    }

    fn push(&mut self, name: &CStr, file_type: FileType) {
        let start = self.text.len();
        self.text.extend_from_slice(name.to_bytes_with_nul());
        self.spans.push(Span { start, end: self.text.len(), file_type });
    }

    fn sort(&mut self) {
        let text = &self.text;
        self.spans.sort_unstable_by_key(|span| text.get(span.start..span.end));
    }

    /// Every name with its type, [`FileType::Unknown`] where the file system does not tell. None is lost, since each was
    /// pushed with its NUL.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&CStr, FileType)> {
        self.spans.iter().map(|span| {
            let bytes = self.text.get(span.start..span.end).unwrap_or_default();
            (CStr::from_bytes_until_nul(bytes).unwrap_or_default(), span.file_type)
        })
    }
}

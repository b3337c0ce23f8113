//! The names in a folder.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

const LIST_BUFFER_BYTES: usize = 32 << 10;

/// The names in a folder, one after the other in one allocation.
pub(super) struct Names {
    text: Vec<u8>,
    spans: Vec<Span>,
}

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

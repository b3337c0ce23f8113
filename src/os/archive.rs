//! A zip archive, unpacked into an empty folder: what is in it may have been made to harm us. The only file that knows the library.
//!
//! The directory at the archive's end is walked twice, an entry at a time. First all of it is judged; then content is inflated, and
//! counted as it comes, since every size that an archive tells may be a lie. A refused archive leaves an empty folder, one that turns
//! out to be damaged or too large while it is inflated leaves a part of its files: either way the caller removes the folder.
//!
//! The library finds the directory, checks each entry's local header against it, and checks content against its size and CRC-32.
//! It would keep the last of two entries of one name (hence its iterator, which yields both), mend names (hence raw ones), and read
//! headers without a bound (hence `Metered`). What an entry may be called and be is ours: `entry`. Where it is written, too: `target`.
//!
//! Source: PKWARE's APPNOTE.TXT 6.3.10, "4.3 General Format of a .ZIP file".

mod entry;
mod target;

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use zip::read::{ArchiveOffset, Config, HasZipMetadata as _, ZipFileEntry};
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;
use zip::{System, ZipReadOptions};

use crate::model::setup::{CONTENT_BYTES_MAX, CONTENT_ENTRIES_MAX};

pub(crate) use entry::Refusal;
use entry::{Kind, Planned, Told, Tree, judged, shown};
use target::Target;

/// What an archive may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArchiveLimits {
    /// Of all files together, inflated.
    pub(crate) bytes_max: u64,
    /// Entries; and files and folders, those that only other paths name included.
    pub(crate) entries_max: u32,
    /// Inflated bytes to one of the archive's, once there are more than `RATIO_FREE_BYTES`.
    pub(crate) ratio_max: u32,
    /// Parts of a path.
    pub(crate) depth_max: u32,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        // Text that people write is deflated to a third, tables to a twentieth; deflate's limit, which bombs come near to, is 1032.
        Self { bytes_max: CONTENT_BYTES_MAX, entries_max: CONTENT_ENTRIES_MAX, ratio_max: 200, depth_max: 32 }
    }
}

/// Inflated bytes for which no ratio is asked: a small file of zeros is no bomb.
const RATIO_FREE_BYTES: u64 = 16 << 20;
/// Read to find the archive's end, which lies in its last 64 KiB: each thing there that looks like the end has to be tried.
const END_BYTES_MAX: u64 = 8 << 20;
/// Of the directory and of all local headers, each time they are read: names, comments and extra fields of up to 64 KiB each.
const HEADER_BYTES_MAX: u64 = 64 << 20;
const BUFFER_BYTES: usize = 64 << 10;
/// What an entry of the directory begins with.
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";

/// Why an archive was not unpacked. `Read` and `Write` are ours; the others are the archive's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("could not read the archive")]
    Read(#[source] io::Error),
    #[error("the file is no zip archive, or it is cut off or damaged")]
    NoArchive(#[source] io::Error),
    #[error("the archive is damaged at its entry {number} of {of}")]
    Header {
        number: usize,
        of: usize,
        #[source]
        source: io::Error,
    },
    #[error("the archive is damaged: it has more entries than the {told} that it tells of")]
    Untold { told: usize },
    #[error("the archive is refused: its entry `{entry}` {why}")]
    Refused { entry: String, why: Refusal },
    #[error(
        "the archive is refused: it holds more than {max} {of}, the limit; pack less, not what is built or downloaded"
    )]
    TooMuch { max: u64, of: &'static str },
    #[error("the archive is damaged: its entry `{entry}` cannot be read")]
    Content {
        entry: String,
        #[source]
        source: io::Error,
    },
    #[error("could not unpack into `{path}`", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ArchiveError {
    /// Tells whether the machine is to blame, not who made the archive.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Self::Read(_) | Self::Write { .. } => true,
            Self::NoArchive(_)
            | Self::Header { .. }
            | Self::Untold { .. }
            | Self::Refused { .. }
            | Self::TooMuch { .. }
            | Self::Content { .. } => false,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Without folders.
    pub(crate) files: u64,
    /// Of all files.
    pub(crate) bytes: u64,
}

/// Unpacks a zip archive into the empty folder `into`.
///
/// Files get mode 0644, or 0755 if their owner may run them, folders 0755, and all of them the present time. What macOS adds
/// (`__MACOSX`, `.DS_Store`) is left out. Names are kept byte by byte; only where the archive was made on Windows a backslash
/// separates folders, as it cannot be part of a name there.
///
/// # Errors
/// If the archive is damaged, beyond `limits`, or holds anything but plain files and folders below `into`; if it cannot be read, or
/// the folder not be written to. What is in the folder then is of no use.
pub(crate) fn unpack<R: Read + Seek>(
    mut archive: R,
    into: &Path,
    limits: ArchiveLimits,
) -> Result<Unpacked, ArchiveError> {
    let archive_bytes = archive.seek(SeekFrom::End(0)).map_err(ArchiveError::Read)?;
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let archive = Metered { inner: archive, left: END_BYTES_MAX };
    let zip = ZipIterable::try_new(archive, config).map_err(|error| faulty(error, ArchiveError::NoArchive))?;
    let mut zip = zip.enforce_header_consistency(true);
    let planned = list(&mut zip, limits)?;
    let target = Target::open(into).map_err(|source| ArchiveError::Write { path: into.to_owned(), source })?;
    let unpacked = Unpacked { files: 0, bytes: 0 };
    let bytes_max = limits.bytes_max.min(RATIO_FREE_BYTES.max(archive_bytes.saturating_mul(limits.ratio_max.into())));
    let mut writing = Writing { into, target, limits, bytes_max, unpacked, buffer: vec![0; BUFFER_BYTES] };
    writing.run(&mut zip, &planned, archive_bytes)?;
    Ok(writing.unpacked)
}

/// Returns what becomes of each entry, in the directory's order: `None` is left out.
fn list<R: Read + Seek>(
    zip: &mut ZipIterable<Metered<R>>,
    limits: ArchiveLimits,
) -> Result<Vec<Option<Planned>>, ArchiveError> {
    let of = zip.len();
    let max = u64::from(limits.entries_max);
    if of as u64 > max {
        return Err(ArchiveError::TooMuch { max, of: "entries" });
    }
    let entries = zip.files().map_err(|error| faulty(error, ArchiveError::NoArchive))?;
    entries.reader_mut().left = HEADER_BYTES_MAX;
    let mut listing = Listing { limits, tree: Tree::default(), planned: Vec::new(), spans: Vec::new(), bytes: 0 };
    let mut directory_start = None;
    while let Some(entry) = entries.next() {
        let number = listing.planned.len() + 1;
        let header = |source| ArchiveError::Header { number, of, source };
        let entry = entry.map_err(|error| faulty(error, header))?;
        directory_start.get_or_insert(entry.central_header_start());
        let data_start = entry.get_metadata().data_start(entries.reader_mut());
        let data_start = data_start.map_err(|error| faulty(error, header))?;
        listing.add(&entry, data_start)?;
    }
    let mut next = Vec::new();
    let more = entries.reader_mut().take(DIRECTORY_ENTRY.len() as u64).read_to_end(&mut next);
    more.map_err(ArchiveError::Read)?;
    if next == DIRECTORY_ENTRY {
        return Err(ArchiveError::Untold { told: of });
    }
    listing.finish(directory_start.unwrap_or_default())
}

/// Where an entry lies in the archive.
struct Span {
    start: u64,
    end: u64,
    name: String,
}

/// The directory, as far as it was judged.
struct Listing {
    limits: ArchiveLimits,
    tree: Tree,
    planned: Vec<Option<Planned>>,
    spans: Vec<Span>,
    /// That the archive tells of. No limit is kept by this alone; but who tells of too many need not be inflated.
    bytes: u64,
}

impl Listing {
    fn add(&mut self, entry: &ZipFileEntry<'_>, data_start: u64) -> Result<(), ArchiveError> {
        let refused = |why| ArchiveError::Refused { entry: shown(entry.name_raw()), why };
        let planned = judged(&told(entry), self.limits.depth_max).map_err(refused)?;
        if let Some(planned) = &planned {
            self.tree.add(planned).map_err(refused)?;
        }
        let max = u64::from(self.limits.entries_max);
        if self.tree.len() as u64 > max {
            return Err(ArchiveError::TooMuch { max, of: "files and folders" });
        }
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.bytes > self.limits.bytes_max {
            return Err(too_many_bytes(self.limits));
        }
        let end = data_start.saturating_add(entry.compressed_size());
        self.spans.push(Span { start: entry.header_start(), end, name: shown(entry.name_raw()) });
        self.planned.push(planned);
        Ok(())
    }

    /// Content that two entries share can be inflated without an end to it, out of a small archive.
    ///
    /// Source: D. Fifield, "A better zip bomb", WOOT 2019.
    fn finish(mut self, directory_start: u64) -> Result<Vec<Option<Planned>>, ArchiveError> {
        self.spans.sort_by_key(|span| span.start);
        let starts = self.spans.iter().skip(1).map(|span| span.start).chain([directory_start]);
        match self.spans.iter().zip(starts).find(|(span, next_start)| span.end > *next_start) {
            Some((span, _)) => Err(ArchiveError::Refused { entry: span.name.clone(), why: Refusal::Overlaps }),
            None => Ok(self.planned),
        }
    }
}

/// Returns what the archive says of an entry.
fn told<'a>(entry: &'a ZipFileEntry<'_>) -> Told<'a> {
    const DOS_FOLDER: u32 = 0x10;
    Told {
        name: entry.name_raw(),
        is_of_windows: matches!(entry.system(), System::Dos | System::WindowsNTFS | System::VFAT),
        mode: entry.external_attributes() >> 16,
        is_marked_folder: entry.external_attributes() & DOS_FOLDER != 0,
        method: entry.compression().into_compression().as_u16(),
        is_encrypted: entry.encrypted(),
        bytes: entry.size(),
    }
}

/// Files that are being written.
struct Writing<'a> {
    into: &'a Path,
    target: Target,
    limits: ArchiveLimits,
    /// By the limits of bytes and of the ratio.
    bytes_max: u64,
    unpacked: Unpacked,
    buffer: Vec<u8>,
}

impl Writing<'_> {
    fn run<R: Read + Seek>(
        &mut self,
        zip: &mut ZipIterable<Metered<R>>,
        planned: &[Option<Planned>],
        archive_bytes: u64,
    ) -> Result<(), ArchiveError> {
        let of = planned.len();
        let entries = zip.files().map_err(|error| faulty(error, ArchiveError::NoArchive))?;
        // No byte of content is in two entries.
        entries.reader_mut().left = HEADER_BYTES_MAX.saturating_add(archive_bytes);
        for (number, planned) in (1..).zip(planned) {
            let header = |source| ArchiveError::Header { number, of, source };
            let Some(entry) = entries.next() else { return Err(header(ErrorKind::UnexpectedEof.into())) };
            let entry = entry.map_err(|error| faulty(error, header))?;
            let Some(planned) = planned else { continue };
            let told_bytes = entry.size();
            let content = entry.with_reader(entries.reader_mut(), ZipReadOptions::new());
            let mut content = content.map_err(|error| faulty(error, header))?;
            match planned.kind {
                Kind::Folder => self.folder(planned)?,
                Kind::File | Kind::Program => self.write(planned, &mut content, told_bytes)?,
            }
        }
        Ok(())
    }

    fn folder(&self, planned: &Planned) -> Result<(), ArchiveError> {
        self.target.make_folder(&planned.path).map_err(|source| self.unwritten(planned, source))
    }

    fn write(&mut self, planned: &Planned, content: &mut dyn Read, told_bytes: u64) -> Result<(), ArchiveError> {
        let damaged = |source| ArchiveError::Content { entry: shown(&planned.path), source };
        let made = self.target.make_file(&planned.path, planned.kind);
        let mut file = made.map_err(|source| self.unwritten(planned, source))?;
        let before = self.unpacked.bytes;
        loop {
            let len = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(source) if source.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(faulty(source.into(), damaged)),
            };
            self.unpacked.bytes = self.unpacked.bytes.saturating_add(len as u64);
            if self.unpacked.bytes > self.bytes_max {
                return Err(self.too_many_bytes());
            }
            file.write_all(&self.buffer[..len]).map_err(|source| self.unwritten(planned, source))?;
        }
        if self.unpacked.bytes - before != told_bytes {
            return Err(damaged(io::Error::new(ErrorKind::UnexpectedEof, "it is shorter than the archive tells")));
        }
        self.unpacked.files += 1;
        Ok(())
    }

    fn too_many_bytes(&self) -> ArchiveError {
        if self.bytes_max == self.limits.bytes_max {
            return too_many_bytes(self.limits);
        }
        ArchiveError::TooMuch { max: self.limits.ratio_max.into(), of: "times its own size" }
    }

    fn unwritten(&self, planned: &Planned, source: io::Error) -> ArchiveError {
        ArchiveError::Write { path: self.into.join(planned.as_path()), source }
    }
}

fn too_many_bytes(limits: ArchiveLimits) -> ArchiveError {
    ArchiveError::TooMuch { max: limits.bytes_max, of: "bytes" }
}

/// Tells a disk that could not be read from an archive that is wrong.
fn faulty(error: ZipError, archives: impl FnOnce(io::Error) -> ArchiveError) -> ArchiveError {
    let source = if let ZipError::Io(source) = error { source } else { error.into() };
    if source.raw_os_error().is_some() {
        return ArchiveError::Read(source);
    }
    // The library calls entries by whatever name stands in the archive.
    archives(io::Error::new(source.kind(), shown(source.to_string().as_bytes())))
}

/// Gives no more bytes than are left.
struct Metered<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One more than are left, to see that there are more.
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX).saturating_add(1));
        let read = self.inner.read(&mut buffer[..len])?;
        let left = self.left.checked_sub(read as u64);
        // The library goes on after some errors.
        self.left = left.unwrap_or_default();
        left.ok_or_else(|| io::Error::other("it has too much beside the content of its files"))?;
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
mod tests;

//! `proofs.tar.gz`: files of a folder in one, with the same bytes for the same content, and read back without a disk.
//!
//! Content that is packed already becomes a hard link to where it stands: snapshots of a run mostly are the same.
//!
//! The archive is sealed. Gzip has many ways to say the same, so a bit that changes in a distance, in padding or in the header
//! would be found by none of its own checks. The extra field of the header, which gzip(1) and tar(1) pass over, holds the
//! SHA-256 of everything behind it; what stands before it is always the same.
//!
//! Source: RFC 1952, 2.3; tar(5), "GNU tar Archives".

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use tar::{Archive, Builder, Entry, EntryType, Header};

use crate::os::disk::{DiskError, EvidenceReader, sha256, write_atomically};

/// The bundle's name in the proof folder.
pub(crate) const BUNDLE: &str = "proofs.tar.gz";

/// What a bundle may hold. What is not packed beyond it is not read either.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    files: usize,
    /// Of one file.
    file_bytes: u64,
    /// Of all files, a link none.
    bytes: u64,
}

/// One file is as large as the reader of a folder's files allows.
const BOUNDS_MAX: Bounds = Bounds { files: 1_000_000, file_bytes: 1 << 30, bytes: 16 << 30 };
/// What stands before each file, or behind the last: tar keeps a long name in memory, whatever its length.
const BESIDE_BYTES_MAX: u64 = 1 << 20;
/// Names of one file, since file systems bound them: ext4 to 65,000.
const LINKS_MAX: usize = 1000;

/// As gzip's own.
const LEVEL: Compression = Compression::new(6);
const SEAL_LEN: usize = 32;
/// Magic, deflate, an extra field; no time, no hint, no system; the field's length, its name and its own length.
const HEADER: &[u8] = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x24\0PG\x20\0";
const SEALED_FROM: usize = HEADER.len() + SEAL_LEN;

/// Why a bundle could not be made, or not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("could not read `{path}`", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` changed while it was packed; collect when nothing runs any more", path = path.display())]
    Changed { path: PathBuf },
    #[error("interrupted while packing")]
    Interrupted,
    #[error("could not pack `{path}`", path = path.display())]
    Pack {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("`{path}` is cut off", path = path.display())]
    Cut {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is damaged, or no tar.gz", path = path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is refused: its entry {entry:?} {why}", path = path.display())]
    Refused { path: PathBuf, entry: OsString, why: &'static str },
    #[error("`{path}` is refused: it holds more than {max} {of}", path = path.display())]
    TooMuch { path: PathBuf, max: u64, of: &'static str },
}

/// What is going to be packed.
pub(crate) struct ToPack<'a> {
    /// The folder.
    pub(crate) dir: &'a Path,
    /// Paths below it, with the SHA-256 that each file had a moment ago.
    pub(crate) files: &'a BTreeMap<OsString, [u8; 32]>,
    /// Which of them never become a link, because a reader wants to meet their content.
    pub(crate) is_whole: fn(&OsStr) -> bool,
    /// Asked before each file; `false` ends it.
    pub(crate) goes_on: &'a dyn Fn() -> bool,
}

/// Writes files to the archive `to`, byte-wise by path.
///
/// # Errors
/// If a file is not what it was or cannot be read, if there are too many, or the archive cannot be written. What stood at
/// `to` before then still does.
pub(crate) fn pack(what: &ToPack<'_>, to: &Path) -> Result<(), BundleError> {
    pack_within(BOUNDS_MAX, what, to)
}

fn pack_within(bounds: Bounds, what: &ToPack<'_>, to: &Path) -> Result<(), BundleError> {
    let held = Held { bundle: to, bounds, files: 0, bytes: 0 };
    let encoder = GzBuilder::new().operating_system(255).extra(extra()).write(Vec::new(), LEVEL);
    let builder = Builder::new(encoder);
    let mut packer = Packer { builder, held, reader: EvidenceReader::default(), placed: HashMap::new() };
    for (path, sha256) in what.files {
        if !(what.goes_on)() {
            return Err(BundleError::Interrupted);
        }
        packer.add(what, path, sha256)?;
    }
    let packed = packer.builder.into_inner().and_then(GzEncoder::finish);
    let mut bytes = packed.map_err(|source| BundleError::Pack { path: to.to_owned(), source })?;
    seal(&mut bytes);
    Ok(write_atomically(to, &bytes)?)
}

fn extra() -> Vec<u8> {
    // What stands before it in the header is gzip's.
    let named = HEADER.get(12..).unwrap_or_default();
    [named, &[0; SEAL_LEN]].concat()
}

/// What a bundle holds so far.
struct Held<'a> {
    bundle: &'a Path,
    bounds: Bounds,
    files: usize,
    bytes: u64,
}

impl Held<'_> {
    fn add(&mut self, size_bytes: u64) -> Result<(), BundleError> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size_bytes);
        let too_much = |max, of| Err(BundleError::TooMuch { path: self.bundle.to_owned(), max, of });
        if self.files > self.bounds.files {
            return too_much(self.bounds.files as u64, "files");
        }
        if self.bytes > self.bounds.bytes {
            return too_much(self.bounds.bytes, "bytes");
        }
        if size_bytes > self.bounds.file_bytes {
            return too_much(self.bounds.file_bytes, "bytes in one file");
        }
        Ok(())
    }
}

struct Packer<'a> {
    builder: Builder<GzEncoder<Vec<u8>>>,
    held: Held<'a>,
    reader: EvidenceReader,
    /// Where content stands, and how many names it has there.
    placed: HashMap<[u8; 32], (OsString, usize)>,
}

impl Packer<'_> {
    fn add(&mut self, what: &ToPack<'_>, path: &OsStr, sha256: &[u8; 32]) -> Result<(), BundleError> {
        let dir = what.dir;
        let read_error = |source| BundleError::Read { path: dir.join(path), source };
        let pack_error = |source| BundleError::Pack { path: dir.join(path), source };
        let changed = || BundleError::Changed { path: dir.join(path) };
        let placed = self.placed.get_mut(sha256).filter(|(_, names)| *names < LINKS_MAX && !(what.is_whole)(path));
        if let Some((first, names)) = placed {
            if self.reader.hash(dir, path).map_err(read_error)? != *sha256 {
                return Err(changed());
            }
            *names += 1;
            self.held.add(0)?;
            let mut header = header(EntryType::Link, 0);
            return self.builder.append_link(&mut header, Path::new(path), Path::new(first)).map_err(pack_error);
        }
        let (bytes, found) = self.reader.read(dir, path).map_err(read_error)?;
        if found != *sha256 {
            return Err(changed());
        }
        self.held.add(bytes.len() as u64)?;
        let mut header = header(EntryType::Regular, bytes.len() as u64);
        self.builder.append_data(&mut header, Path::new(path), bytes).map_err(pack_error)?;
        if !bytes.is_empty() {
            self.placed.insert(*sha256, (path.to_owned(), 1));
        }
        Ok(())
    }
}

/// Everything else in it is zero or empty: owners, times, names of users.
fn header(entry_type: EntryType, size_bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(entry_type);
    header.set_size(size_bytes);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn seal(bytes: &mut [u8]) {
    let seal = bytes.get(SEALED_FROM..).map(sha256);
    if let Some((seal, place)) = seal.zip(bytes.get_mut(HEADER.len()..SEALED_FROM)) {
        place.copy_from_slice(&seal);
    }
}

/// Whether each byte of an archive is as we wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    Whole,
    Broken,
    /// Another program has written it.
    Missing,
}

fn seal_of(bytes: &[u8]) -> Seal {
    let Some((header, sealed)) = bytes.split_at_checked(SEALED_FROM) else { return Seal::Missing };
    let (start, seal) = header.split_at(HEADER.len());
    match (start == HEADER, seal == sha256(sealed)) {
        (true, true) => Seal::Whole,
        (true, false) | (false, true) => Seal::Broken,
        (false, false) => Seal::Missing,
    }
}

/// What an entry of an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Bytes(&'a [u8]),
    /// What the file of that name, which came before, holds.
    SameAs(&'a OsStr),
}

/// Reads an archive: calls `take` with each file's path and content, in order. Nothing is written anywhere.
///
/// # Errors
/// If it cannot be read, is damaged or cut off, too large, or holds what we never pack: anything but files and links to
/// files before them, a path that leads elsewhere, one path twice.
pub(crate) fn unpack(path: &Path, take: &mut dyn FnMut(&OsStr, Content<'_>)) -> Result<Seal, BundleError> {
    let mut reader = EvidenceReader::default();
    let read = reader.read(path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let (bytes, _) = read.map_err(|source| BundleError::Read { path: path.to_owned(), source })?;
    unpack_within(BOUNDS_MAX, path, bytes, take)?;
    Ok(seal_of(bytes))
}

fn unpack_within(
    bounds: Bounds,
    path: &Path,
    bytes: &[u8],
    take: &mut dyn FnMut(&OsStr, Content<'_>),
) -> Result<(), BundleError> {
    let held = Held { bundle: path, bounds, files: 0, bytes: 0 };
    Unpacker { archive: path, held, seen: HashMap::new(), bytes: Vec::new() }.run(bytes, take)
}

struct Unpacker<'a> {
    archive: &'a Path,
    held: Held<'a>,
    /// Files so far; whether one can be linked to.
    seen: HashMap<OsString, EntryType>,
    bytes: Vec<u8>,
}

impl Unpacker<'_> {
    fn run(mut self, bytes: &[u8], take: &mut dyn FnMut(&OsStr, Content<'_>)) -> Result<(), BundleError> {
        let left = Cell::new(BESIDE_BYTES_MAX);
        let mut archive = Archive::new(Metered { inner: GzDecoder::new(bytes), left: &left });
        let entries = archive.entries().map_err(|source| self.damage(source))?;
        for entry in entries {
            let entry = entry.map_err(|source| self.damage(source))?;
            left.set(entry.size());
            self.unpack(entry, take)?;
            left.set(BESIDE_BYTES_MAX);
        }
        // Gzip's own checksum stands at the end.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|source| self.damage(source))?;
        Ok(())
    }

    fn unpack<R: Read>(
        &mut self,
        mut entry: Entry<'_, R>,
        take: &mut dyn FnMut(&OsStr, Content<'_>),
    ) -> Result<(), BundleError> {
        let raw = entry.path_bytes().into_owned();
        let path = plain(&raw).ok_or_else(|| self.refused(&raw, "leads out of the folder, or is written strangely"))?;
        let kind = entry.header().entry_type();
        self.held.add(if kind == EntryType::Regular { entry.size() } else { 0 })?;
        if self.seen.insert(path.clone(), kind).is_some() {
            return Err(self.refused(&raw, "is there twice"));
        }
        if kind == EntryType::Link {
            let target = entry.link_name_bytes().and_then(|target| plain(&target));
            let target = target.filter(|target| *target != path && self.seen.get(target) == Some(&EntryType::Regular));
            take(&path, Content::SameAs(&target.ok_or_else(|| self.refused(&raw, "links to no file before it"))?));
            return Ok(());
        }
        if kind != EntryType::Regular {
            return Err(self.refused(&raw, "is no regular file"));
        }
        self.bytes.clear();
        let read = entry.read_to_end(&mut self.bytes).map_err(|source| self.damage(source))?;
        if read as u64 != entry.size() {
            return Err(self.damage(io::ErrorKind::UnexpectedEof.into()));
        }
        take(&path, Content::Bytes(&self.bytes));
        Ok(())
    }

    fn damage(&self, source: io::Error) -> BundleError {
        let path = self.archive.to_owned();
        if source.kind() == io::ErrorKind::UnexpectedEof {
            BundleError::Cut { path, source }
        } else {
            BundleError::Damaged { path, source }
        }
    }

    fn refused(&self, entry: &[u8], why: &'static str) -> BundleError {
        BundleError::Refused { path: self.archive.to_owned(), entry: OsString::from_vec(entry.to_vec()), why }
    }
}

/// Gives no more bytes than are left.
struct Metered<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("there is too much beside its files"))?);
        Ok(read)
    }
}

/// Returns a path that stays below where it starts, without the `./` that other programs begin it with.
fn plain(path: &[u8]) -> Option<OsString> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let is_plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    path.split(|byte| *byte == b'/').all(is_plain).then(|| OsStr::from_bytes(path).to_owned())
}

#[cfg(test)]
mod tests;

//! What is known of files that have not changed since they were last read, and the file that keeps it between processes.
//!
//! A file is known by device, inode, size, mtime and ctime. The rule of git for racily clean entries applies: something
//! that changed at most one tick of the file system's clock before it was looked at could change once more and keep its
//! times, so it is not remembered at all, and is read again until its times are old enough ([`Moment::may_remember`]).
//! Extended attributes and the text of a link change the ctime, too, so they are remembered with the hash.
//!
//! The index is a cache, nothing else: a file that is missing, cut, changed, of another version or of another user counts
//! as empty. Whoever can write it can lie to us; it belongs where only the user may write.
//!
//! ```text
//! index   = "PGINDEX1", u32 effective user id, u32 count, count * record, u64 checksum of all before
//! record  = u64 device, u64 inode, u64 size, time mtime, time ctime, u8 fact, xattrs
//! time    = i64 seconds, u32 nanoseconds
//! fact    = 0 | 1, 32 bytes SHA-256 of the content | 2, bytes: a link's text
//! xattrs  = u16 count, count * (bytes name, value)
//! value   = 0, bytes | 1, u64 size, 32 bytes SHA-256 | 2, i32 errno
//! bytes   = u32 length, that many bytes
//! ```
//! All numbers are little-endian; records stand in the order in which they were last used.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsString;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::model::snapshot::{Timestamp, XattrValue, Xattrs};

const MAGIC: &[u8; 8] = b"PGINDEX1";

/// Above this many records only those that were of use are written again: what was deleted must not stay for ever.
const RECORDS_MAX: usize = 100_000;

/// Times of the kernel advance once a tick, of 10 ms at most.
const TICK_NS: i128 = 20_000_000;

/// File systems without nanoseconds round to 1 or 2 s (FAT, ext3, old NFS); then the nanoseconds are 0.
const ROUNDED_NS: i128 = 2_000_000_000;

/// A file, as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId {
    /// Device of the file system.
    pub(super) device: u64,
    /// Inode on it.
    pub(super) inode: u64,
}

/// What changes whenever the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Length.
    pub(super) size_bytes: u64,
    /// Last change of the content, or what someone said it was.
    pub(super) mtime: Timestamp,
    /// Last change of anything, by the kernel.
    pub(super) ctime: Timestamp,
}

/// What one look at an unchanged file saves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// What its content is.
    pub(super) fact: Fact,
    /// Extended attributes.
    pub(super) xattrs: Xattrs,
}

/// What was read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// Nothing: a folder, a device.
    Nothing,
    /// SHA-256 of a regular file.
    Sha256([u8; 32]),
    /// Text of a link.
    Target(PathBuf),
}

/// The file system's clock at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(pub(super) Timestamp);

impl Moment {
    /// Tells whether what is read from now on of a file with these times may be remembered: every later change is sure to
    /// give it other times. The mtime is asked as well, since some file systems have no ctime worth the name.
    pub(super) fn may_remember(self, fingerprint: &Fingerprint) -> bool {
        let is_older = |time: Timestamp| {
            let margin_ns = if time.nanos == 0 { ROUNDED_NS } else { TICK_NS };
            time.as_nanos() + margin_ns < self.0.as_nanos()
        };
        is_older(fingerprint.mtime) && is_older(fingerprint.ctime)
    }
}

/// Everything known.
#[derive(Debug, Default)]
pub(super) struct HashCache {
    /// What an earlier process knew.
    index: Index,
    /// What was read since.
    fresh: HashMap<FileId, Fresh, BuildHasherDefault<IdHasher>>,
    /// Counts the uses, so that the next index has its records in the order in which they will be asked for.
    turn: u32,
}

#[derive(Debug)]
struct Fresh {
    fingerprint: Fingerprint,
    known: Known,
    last_use: u32,
}

impl HashCache {
    /// Returns what is known of a file, if it is still the same.
    pub(super) fn get(&mut self, id: FileId, fingerprint: &Fingerprint) -> Option<Known> {
        self.turn = self.turn.saturating_add(1);
        if let Some(fresh) = self.fresh.get_mut(&id) {
            fresh.last_use = self.turn;
            return (fresh.fingerprint == *fingerprint).then(|| fresh.known.clone());
        }
        self.index.get(id, fingerprint, self.turn)
    }

    /// Remembers what was read.
    pub(super) fn insert(&mut self, id: FileId, fingerprint: Fingerprint, known: Known) {
        self.fresh.insert(id, Fresh { fingerprint, known, last_use: self.turn });
    }

    /// Tells whether something was remembered that the index does not have.
    pub(super) fn has_news(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Returns the index as bytes, for `user`.
    pub(super) fn to_bytes(&self, user: u32) -> Vec<u8> {
        let old = self.index.records().filter(|record| !self.fresh.contains_key(&record.id));
        let mut records: Vec<(u32, FileId, Cow<'_, [u8]>)> =
            old.map(|record| (self.index.last_use(record.number), record.id, Cow::Borrowed(record.bytes))).collect();
        for (id, fresh) in &self.fresh {
            let mut bytes = Vec::new();
            put_record(&mut bytes, *id, fresh);
            records.push((fresh.last_use, *id, Cow::Owned(bytes)));
        }
        if records.len() > RECORDS_MAX {
            records.retain(|(last_use, _, _)| *last_use > 0);
        }
        records.sort_unstable_by_key(|(last_use, id, _)| (*last_use, *id));
        let mut bytes = Vec::with_capacity(64 + records.len() * 96);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&user.to_le_bytes());
        put_len(&mut bytes, records.len());
        for (_, _, record) in records {
            bytes.extend_from_slice(&record);
        }
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Takes an index; `None` if it is not one of `user`'s that was written whole.
    pub(super) fn from_bytes(mut bytes: Vec<u8>, user: u32) -> Option<Self> {
        let (body, expected) = bytes.split_last_chunk::<8>()?;
        let mut reader = Reader(body.strip_prefix(MAGIC)?);
        let (owner, count) = (reader.u32()?, reader.u32()?);
        if owner != user || checksum(body) != u64::from_le_bytes(*expected) {
            return None;
        }
        // A record has 67 bytes at least.
        if count as usize > body.len() / 67 {
            return None;
        }
        bytes.truncate(bytes.len() - 8);
        let index = Index { bytes, next: FIRST, by_id: None, last_uses: vec![0; count as usize] };
        Some(Self { index, fresh: HashMap::default(), turn: 0 })
    }
}

/// An index as it was read. It is not taken apart: whoever walks the same tree again asks for its records in their order,
/// so the next one nearly always is the right one, and the others are found by a table that is made when it is needed.
#[derive(Debug, Default)]
struct Index {
    bytes: Vec<u8>,
    next: Position,
    by_id: Option<HashMap<FileId, Position, BuildHasherDefault<IdHasher>>>,
    /// By number of the record; 0 for never.
    last_uses: Vec<u32>,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    offset: usize,
    number: usize,
}

/// Behind magic, user and count.
const FIRST: Position = Position { offset: 16, number: 0 };

/// A record of an index.
struct Stored<'a> {
    id: FileId,
    number: usize,
    bytes: &'a [u8],
}

impl Index {
    fn get(&mut self, id: FileId, fingerprint: &Fingerprint, turn: u32) -> Option<Known> {
        if self.last_uses.is_empty() {
            return None;
        }
        let position = if self.id_at(self.next) == Some(id) { self.next } else { self.find(id)? };
        let mut reader = self.reader(position);
        let (_, stored) = (reader.id()?, reader.fingerprint()?);
        let known = (stored == *fingerprint).then(|| reader.known()).flatten()?;
        let offset = self.bytes.len() - reader.0.len();
        let number = position.number + 1;
        self.next = if reader.0.is_empty() { FIRST } else { Position { offset, number } };
        if let Some(last_use) = self.last_uses.get_mut(position.number) {
            *last_use = turn;
        }
        Some(known)
    }

    fn find(&mut self, id: FileId) -> Option<Position> {
        if self.by_id.is_none() {
            let mut by_id = HashMap::with_capacity_and_hasher(self.last_uses.len(), BuildHasherDefault::default());
            let mut offset = FIRST.offset;
            for record in self.records() {
                by_id.insert(record.id, Position { offset, number: record.number });
                offset += record.bytes.len();
            }
            self.by_id = Some(by_id);
        }
        self.by_id.as_ref()?.get(&id).copied()
    }

    fn records(&self) -> impl Iterator<Item = Stored<'_>> {
        let mut rest = self.reader(FIRST).0;
        (0..self.last_uses.len()).map_while(move |number| {
            let mut reader = Reader(rest);
            let (id, _, _) = (reader.id()?, reader.fingerprint()?, reader.known()?);
            let (bytes, behind) = rest.split_at_checked(rest.len() - reader.0.len())?;
            rest = behind;
            Some(Stored { id, number, bytes })
        })
    }

    fn id_at(&self, position: Position) -> Option<FileId> {
        self.reader(position).id()
    }

    fn reader(&self, position: Position) -> Reader<'_> {
        Reader(self.bytes.get(position.offset..).unwrap_or_default())
    }

    fn last_use(&self, number: usize) -> u32 {
        self.last_uses.get(number).copied().unwrap_or(0)
    }
}

fn put_record(bytes: &mut Vec<u8>, id: FileId, record: &Fresh) {
    let Fingerprint { size_bytes, mtime, ctime } = record.fingerprint;
    for number in [id.device, id.inode, size_bytes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for time in [mtime, ctime] {
        bytes.extend_from_slice(&time.secs.to_le_bytes());
        bytes.extend_from_slice(&time.nanos.to_le_bytes());
    }
    match &record.known.fact {
        Fact::Nothing => bytes.push(0),
        Fact::Sha256(sha256) => {
            bytes.push(1);
            bytes.extend_from_slice(sha256);
        }
        Fact::Target(target) => {
            bytes.push(2);
            put_bytes(bytes, target.as_os_str().as_bytes());
        }
    }
    // The kernel bounds the names of a file's attributes to 64 KiB together.
    let count = u16::try_from(record.known.xattrs.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&count.to_le_bytes());
    for (name, value) in record.known.xattrs.iter().take(count.into()) {
        put_bytes(bytes, name);
        put_value(bytes, value);
    }
}

fn put_value(bytes: &mut Vec<u8>, value: &XattrValue) {
    match value {
        XattrValue::Bytes(value) => {
            bytes.push(0);
            put_bytes(bytes, value);
        }
        XattrValue::Digest { size_bytes, sha256 } => {
            bytes.push(1);
            bytes.extend_from_slice(&size_bytes.to_le_bytes());
            bytes.extend_from_slice(sha256);
        }
        XattrValue::Unreadable { errno } => {
            bytes.push(2);
            bytes.extend_from_slice(&errno.to_le_bytes());
        }
    }
}

fn put_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    put_len(bytes, value.len());
    bytes.extend_from_slice(value);
}

/// Finds a cut or damaged index. It is no defence against whoever may write the index, and a SHA-256 of it would take longer
/// than everything else that is done with it.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = IdHasher(bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hasher.write_u64(u64::from_le_bytes(*word));
    }
    hasher.write(rest);
    hasher.finish()
}

/// An index of 4 GiB would be cut here, and so be refused when it is read.
fn put_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

/// What is left to be read; every method is `None` past the end.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        Some(Timestamp { secs: self.take().map(i64::from_le_bytes)?, nanos: self.u32()? })
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = self.u32()? as usize;
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken.to_vec())
    }

    fn id(&mut self) -> Option<FileId> {
        Some(FileId { device: self.u64()?, inode: self.u64()? })
    }

    fn fingerprint(&mut self) -> Option<Fingerprint> {
        Some(Fingerprint { size_bytes: self.u64()?, mtime: self.time()?, ctime: self.time()? })
    }

    fn known(&mut self) -> Option<Known> {
        let fact = match self.take()? {
            [0] => Fact::Nothing,
            [1] => Fact::Sha256(self.take()?),
            [2] => Fact::Target(OsString::from_vec(self.bytes()?).into()),
            [_] => return None,
        };
        let mut xattrs = Xattrs::new();
        for _ in 0..u16::from_le_bytes(self.take()?) {
            xattrs.insert(self.bytes()?, self.value()?);
        }
        Some(Known { fact, xattrs })
    }

    fn value(&mut self) -> Option<XattrValue> {
        match self.take()? {
            [0] => self.bytes().map(XattrValue::Bytes),
            [1] => Some(XattrValue::Digest { size_bytes: self.u64()?, sha256: self.take()? }),
            [2] => self.take().map(|errno| XattrValue::Unreadable { errno: i32::from_le_bytes(errno) }),
            [_] => None,
        }
    }
}

/// Spreads device and inode, which the kernel chose: nobody else can make them collide, so this is all it takes.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

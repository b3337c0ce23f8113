//! Changes a zip archive and leaves it one. Bytes that are changed at random hardly get past the reader's first looks: sizes, offsets and
//! checksums stand in up to three places and have to agree. Here they do, but for one field that may be bent at the end.
//!
//! Source: PKWARE's APPNOTE.TXT 6.3.10, "4.3 General Format of a .ZIP file".

use std::io::{Read as _, Write as _};

use flate2::Crc;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Changes the first `len` bytes at random, to no more than there is room for; returns how many there are now. libFuzzer's own.
pub type ChangeBytes = fn(&mut [u8], usize) -> usize;

/// Bytes of content that is inflated to be changed.
const CONTENT_BYTES_MAX: u64 = 64 << 10;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// Sizes and checksum follow the content.
const STREAMED: u16 = 1 << 3;
const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: &[u8] = b"PK\x05\x06";

const NAMES: [&[u8]; 25] = [
    b"",
    b"/",
    b".",
    b"..",
    b"./",
    b"./a",
    b"a/./b",
    b"a//b",
    b"../a",
    b"a/../../b",
    b"/a",
    b"a/..",
    b"a\\b",
    b"..\\a",
    b"C:\\a",
    b"C:a",
    b"a\0b",
    b"a\nb",
    b"\xff\xfe",
    b"\xe2\x80\xae.py",
    b"__MACOSX/._a",
    b"a/.DS_Store",
    b"a",
    b"a/",
    b"a/b/c/d",
];
/// Kinds and rights of Unix.
const MODES: [u32; 12] = [
    0, 0o100_644, 0o100_755, 0o104_755, 0o100_000, 0o040_755, 0o041_777, 0o120_777, 0o010_644, 0o020_644, 0o060_644,
    0o140_644,
];
const METHODS: [u16; 6] = [1, 9, 12, 14, 93, 99];
/// What a field may say in place of the truth.
const NUMBERS: [u64; 12] = [0, 1, 2, 7, 0x7f, 0xff, 0xfffe, 0xffff, 0x7fff_ffff, 0xffff_fffe, 0xffff_ffff, u64::MAX];

/// Changes the archive in the first `len` bytes of `data`, or makes one; returns how many there are now.
pub fn mutate(data: &mut [u8], len: usize, seed: u32, change_bytes: ChangeBytes) -> usize {
    let mut random = Random(u64::from(seed));
    if random.one_in(4) {
        return change_bytes(data, len);
    }
    let mut archive = Archive::read(&data[..len]);
    for _ in 0..=random.below(3) {
        archive.change(&mut random, change_bytes);
    }
    let mut written = archive.written();
    if random.one_in(3) {
        written.bend(&mut random);
    }
    match data.get_mut(..written.bytes.len()) {
        Some(place) => {
            place.copy_from_slice(&written.bytes);
            written.bytes.len()
        }
        None => change_bytes(data, len),
    }
}

#[derive(Default)]
struct Archive {
    entries: Vec<Entry>,
    comment: Vec<u8>,
    /// The directory's end is told in the form for large archives, too.
    is_large: bool,
}

#[derive(Clone)]
struct Entry {
    name: Vec<u8>,
    extra: Vec<u8>,
    /// As it lies in the archive.
    content: Vec<u8>,
    /// Of what is inflated.
    bytes: u64,
    crc: u32,
    method: u16,
    flags: u16,
    /// The high byte is the system.
    made_by: u16,
    attributes: u32,
    /// Sizes stand in an extra field.
    is_large: bool,
}

impl Archive {
    /// Takes what it finds, in whatever order: what it cannot read is left out.
    fn read(bytes: &[u8]) -> Self {
        let starts = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&CENTRAL.to_le_bytes()));
        let entries = starts.filter_map(|at| Entry::read(bytes, at)).collect();
        let end = bytes.windows(END.len()).rposition(|window| window == END);
        let comment = end.and_then(|end| bytes.get(end + 22..)).unwrap_or_default().to_vec();
        Self { entries, comment, is_large: bytes.windows(4).any(|window| window == b"PK\x06\x06") }
    }

    fn change(&mut self, random: &mut Random, change_bytes: ChangeBytes) {
        let Some(at) = (!self.entries.is_empty()).then(|| random.below(self.entries.len())) else {
            return self.entries.push(Entry::new(b"a".to_vec(), random));
        };
        match random.below(12) {
            0 => self.entries.push(Entry::new(random.pick(&NAMES).to_vec(), random)),
            1 => drop(self.entries.remove(at)),
            2 => {
                let to = random.below(self.entries.len());
                self.entries.swap(at, to);
            }
            3 => self.entries.push(self.entries[at].clone()),
            4 => {
                let name = self.entries[random.below(self.entries.len())].name.clone();
                let below = [b"/".as_slice(), *random.pick(&NAMES)].concat();
                let name = if random.one_in(3) { name } else { [name, below].concat() };
                self.entries[at].name = name;
            }
            5 => self.is_large ^= true,
            6 => changed(&mut self.comment, 64, change_bytes),
            _ => self.entries[at].change(random, change_bytes),
        }
    }

    fn written(&self) -> Written {
        let mut to = Written::default();
        let mut offsets = Vec::new();
        for entry in &self.entries {
            offsets.push(to.bytes.len() as u64);
            entry.write_local(&mut to);
        }
        let start = to.bytes.len() as u64;
        for (entry, offset) in self.entries.iter().zip(offsets) {
            entry.write_central(&mut to, offset);
        }
        self.write_end(&mut to, start);
        to
    }

    fn write_end(&self, to: &mut Written, start: u64) {
        let (count, end) = (self.entries.len() as u64, to.bytes.len() as u64);
        if self.is_large {
            to.bytes.extend_from_slice(b"PK\x06\x06");
            to.fields(&[
                (8, 44),
                (2, 45),
                (2, 45),
                (4, 0),
                (4, 0),
                (8, count),
                (8, count),
                (8, end - start),
                (8, start),
            ]);
            to.bytes.extend_from_slice(b"PK\x06\x07");
            to.fields(&[(4, 0), (8, end), (4, 1)]);
        }
        to.bytes.extend_from_slice(END);
        let comment = &self.comment[..self.comment.len().min(0xffff)];
        to.fields(&[(2, 0), (2, 0), (2, count), (2, count), (4, end - start), (4, start), (2, comment.len() as u64)]);
        to.bytes.extend_from_slice(comment);
    }
}

impl Entry {
    fn new(name: Vec<u8>, random: &mut Random) -> Self {
        let (extra, content) = (Vec::new(), Vec::new());
        let attributes = random.pick(&MODES) << 16;
        let (bytes, crc, method, flags, made_by, is_large) = (0, 0, STORED, 0, 3 << 8, false);
        Self { name, extra, content, bytes, crc, method, flags, made_by, attributes, is_large }
    }

    /// Reads an entry of the directory, and its content.
    fn read(all: &[u8], at: usize) -> Option<Self> {
        let number = |at: usize, len: usize| {
            let bytes = all.get(at..at + len)?;
            Some(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
        };
        let small = |from: usize| number(at + from, 2).map(|number| number as u16);
        let (name_len, extra_len) = (usize::from(small(28)?), usize::from(small(30)?));
        let extra_start = at + 46 + name_len;
        let extra = all.get(extra_start..extra_start + extra_len)?;
        // Sizes of large entries stand at the start of a field of their own.
        let is_large = extra.starts_with(&[1, 0]);
        let mut large = (extra_start + 4..).step_by(8);
        let mut size = |from: usize| match number(at + from, 4)? {
            0xffff_ffff if is_large => number(large.next()?, 8),
            size => Some(size),
        };
        let (bytes, content_len, offset) =
            (size(24)?, usize::try_from(size(20)?).ok()?, usize::try_from(size(42)?).ok()?);
        let offset = Some(offset).filter(|offset| *offset < all.len())?;
        let skipped = number(offset + 26, 2)? + number(offset + 28, 2)?;
        let start = offset + 30 + skipped as usize;
        Some(Self {
            name: all.get(at + 46..extra_start)?.to_vec(),
            extra: if is_large { Vec::new() } else { extra.to_vec() },
            content: all.get(start..start.checked_add(content_len)?)?.to_vec(),
            bytes,
            crc: number(at + 16, 4)? as u32,
            method: small(10)?,
            flags: small(8)?,
            made_by: small(4)?,
            attributes: number(at + 38, 4)? as u32,
            is_large,
        })
    }

    fn change(&mut self, random: &mut Random, change_bytes: ChangeBytes) {
        match random.below(10) {
            0 => self.name = random.pick(&NAMES).to_vec(),
            1 => changed(&mut self.name, 300, change_bytes),
            2 if self.name.len() < 32 => self.name = [self.name.as_slice(), b"/"].concat().repeat(1 + random.below(40)),
            3 => self.attributes = random.pick(&MODES) << 16 | random.below(64) as u32,
            4 => self.made_by = (random.below(20) as u16) << 8 | self.made_by & 0xff,
            5 => self.flags ^= 1 << random.below(16),
            6 => self.is_large ^= true,
            7 => changed(&mut self.extra, 64, change_bytes),
            8 if random.one_in(4) => self.method = *random.pick(&METHODS),
            8 => self.bend_content(change_bytes),
            _ => self.change_content(random, change_bytes),
        }
    }

    /// Changes what is inflated.
    fn change_content(&mut self, random: &mut Random, change_bytes: ChangeBytes) {
        let mut plain = self.inflated();
        if random.one_in(8) {
            plain.resize(random.below(CONTENT_BYTES_MAX as usize), 0);
        } else {
            changed(&mut plain, 512, change_bytes);
        }
        self.method = if random.one_in(2) { STORED } else { DEFLATED };
        self.told(&plain);
        self.content = if self.method == STORED { plain } else { deflated(&plain) };
    }

    /// Changes what lies in the archive, and tells the truth about what can be inflated of it.
    fn bend_content(&mut self, change_bytes: ChangeBytes) {
        changed(&mut self.content, 512, change_bytes);
        let plain = self.inflated();
        self.told(&plain);
    }

    fn told(&mut self, plain: &[u8]) {
        let mut crc = Crc::new();
        crc.update(plain);
        (self.crc, self.bytes) = (crc.sum(), plain.len() as u64);
    }

    fn inflated(&self) -> Vec<u8> {
        if self.method != DEFLATED {
            return self.content.clone();
        }
        let mut plain = Vec::new();
        // What came before an error stays.
        DeflateDecoder::new(self.content.as_slice()).take(CONTENT_BYTES_MAX).read_to_end(&mut plain).ok();
        plain
    }

    /// Version, flags, method, a time and a date.
    fn write_begin(&self, to: &mut Written) {
        let version = if self.is_large { 45 } else { 20 };
        to.fields(&[(2, version), (2, self.flags.into()), (2, self.method.into()), (2, 0), (2, 0x21)]);
    }

    fn write_local(&self, to: &mut Written) {
        let is_streamed = self.flags & STREAMED != 0;
        let (crc, packed, bytes) =
            if is_streamed { (0, 0, 0) } else { (self.crc, self.content.len() as u64, self.bytes) };
        to.bytes.extend_from_slice(&LOCAL.to_le_bytes());
        self.write_begin(to);
        to.fields(&[(4, crc.into())]);
        self.write_sizes_and_names(to, [packed, bytes], None);
        to.bytes.extend_from_slice(&self.content);
        if is_streamed {
            to.bytes.extend_from_slice(b"PK\x07\x08");
            let width = if self.is_large { 8 } else { 4 };
            to.fields(&[(4, self.crc.into()), (width, self.content.len() as u64), (width, self.bytes)]);
        }
    }

    fn write_central(&self, to: &mut Written, offset: u64) {
        to.bytes.extend_from_slice(&CENTRAL.to_le_bytes());
        to.fields(&[(2, self.made_by.into())]);
        self.write_begin(to);
        to.fields(&[(4, self.crc.into())]);
        self.write_sizes_and_names(to, [self.content.len() as u64, self.bytes], Some(offset));
    }

    fn write_sizes_and_names(&self, to: &mut Written, [packed, bytes]: [u64; 2], offset: Option<u64>) {
        let name = &self.name[..self.name.len().min(0xffff)];
        let extra = &self.extra[..self.extra.len().min(0xff)];
        let extra_len = extra.len() as u64 + if self.is_large { 20 } else { 0 };
        let [packed_said, bytes_said] = if self.is_large { [0xffff_ffff; 2] } else { [packed, bytes] };
        to.fields(&[(4, packed_said), (4, bytes_said), (2, name.len() as u64), (2, extra_len)]);
        if let Some(offset) = offset {
            to.fields(&[(2, 0), (2, 0), (2, 0), (4, self.attributes.into()), (4, offset)]);
        }
        to.bytes.extend_from_slice(name);
        if self.is_large {
            to.fields(&[(2, 1), (2, 16), (8, bytes), (8, packed)]);
        }
        to.bytes.extend_from_slice(extra);
    }
}

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    /// Where each field lies, and how many bytes it has.
    fields: Vec<(usize, usize)>,
}

impl Written {
    /// Adds numbers, each with its width, the low byte first.
    fn fields(&mut self, fields: &[(usize, u64)]) {
        for (width, number) in fields {
            self.fields.push((self.bytes.len(), *width));
            self.bytes.extend_from_slice(&number.to_le_bytes()[..*width]);
        }
    }

    /// Lets one field say something else.
    fn bend(&mut self, random: &mut Random) {
        let (at, width) = *random.pick(&self.fields);
        let field = &mut self.bytes[at..at + width];
        if random.one_in(2) {
            field.copy_from_slice(&random.pick(&NUMBERS).to_le_bytes()[..width]);
        } else {
            let byte = random.below(width);
            field[byte] = field[byte].wrapping_add(random.below(256) as u8);
        }
    }
}

fn changed(bytes: &mut Vec<u8>, room: usize, change_bytes: ChangeBytes) {
    let len = bytes.len();
    bytes.resize(len + room, 0);
    let len = change_bytes(bytes, len);
    bytes.truncate(len);
}

fn deflated(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory takes what is written")
}

/// SplitMix64: the same seed makes the same changes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

//! What an entry of an archive may be called and be. No I/O; knows nothing of the library.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::model::script::is_hidden;

/// Of one name, since file systems take no more.
const PART_BYTES_MAX: usize = 255;
/// Of a path below the folder: Linux takes 4096 bytes with all that stands before it, and macOS 1024.
const PATH_BYTES_MAX: usize = 1024;
/// Of a name in an error.
const SHOWN_CHARS_MAX: usize = 200;

/// What the archive says of an entry.
pub(super) struct Told<'a> {
    /// Bytes, of whatever encoding.
    pub(super) name: &'a [u8],
    /// Whether the archive was made where a backslash separates folders.
    pub(super) is_of_windows: bool,
    /// As in stat(2), the kind of file included; 0 if nothing is told.
    pub(super) mode: u32,
    /// By the attributes of DOS.
    pub(super) is_marked_folder: bool,
    /// Of compression.
    pub(super) method: u16,
    pub(super) is_encrypted: bool,
    /// When inflated.
    pub(super) bytes: u64,
}

/// What an entry becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    /// A file that may be run.
    Program,
}

/// What is made of an entry, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// One or more names with a `/` between them.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
}

impl Planned {
    /// Returns the path, below the folder that is unpacked into.
    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }
}

/// Why an entry is refused, to be said after its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("has no name; make the archive anew, with another tool")]
    Nameless,
    #[error("has an absolute path; make the archive of a folder, from inside it")]
    Absolute,
    #[error("leads out of the folder with `..`; make the archive of a folder, from inside it")]
    Climbs,
    #[error("has a path with an empty part or a `.`; make the archive anew, with another tool")]
    Odd,
    #[error(
        "has a backslash in its name; make the archive with a tool that separates folders by `/`, or rename the file"
    )]
    Backslash,
    #[error("has a character in its name that cannot be seen; rename the file")]
    Hidden,
    #[error("has a name of more than {PART_BYTES_MAX} bytes; rename it")]
    LongName,
    #[error("has a path of more than {PATH_BYTES_MAX} bytes; put it in fewer folders, or rename them")]
    LongPath,
    #[error("is more than {max} folders deep; put it in fewer")]
    Deep { max: u32 },
    #[error("is {kind}; put a file in its place, only files and folders are unpacked")]
    Special { kind: &'static str },
    #[error("is a folder and has content; make the archive anew, with another tool")]
    FullFolder,
    #[error("is encrypted; make the archive without a password")]
    Encrypted,
    #[error("is compressed with method {method} ({name}); make the archive with deflate")]
    Method { method: u16, name: &'static str },
    #[error("is there twice; make the archive anew instead of adding to it")]
    Twice,
    #[error("is a file here and a folder elsewhere in the archive; make it anew instead of adding to it")]
    BothKinds,
    #[error(
        "shares bytes of the archive with another entry, or with the directory; make the archive anew, with another tool"
    )]
    Overlaps,
}

/// Returns what becomes of an entry; `None` if it is the folder itself, or of no use outside macOS.
///
/// # Errors
/// If it may not be unpacked.
pub(super) fn judged(told: &Told<'_>, depth_max: u32) -> Result<Option<Planned>, Refusal> {
    let path = path(told, depth_max)?;
    let kind = kind(told)?;
    if told.is_encrypted || told.method == METHOD_ENCRYPTED {
        return Err(Refusal::Encrypted);
    }
    if !matches!(told.method, METHOD_STORED | METHOD_DEFLATED) {
        return Err(Refusal::Method { method: told.method, name: method_name(told.method) });
    }
    Ok((!path.is_empty() && !is_of_macos(&path)).then_some(Planned { path, kind }))
}

/// A name that ends with a slash is a folder's, whatever else is told of it.
fn kind(told: &Told<'_>) -> Result<Kind, Refusal> {
    const KIND: u32 = 0o170_000;
    const OWNER_RUNS: u32 = 0o100;
    let is_folder = match told.mode & KIND {
        0o040_000 => true,
        0o100_000 => ends_as_folder(told),
        0 => ends_as_folder(told) || told.is_marked_folder,
        0o120_000 => return Err(Refusal::Special { kind: "a symbolic link" }),
        0o010_000 => return Err(Refusal::Special { kind: "a named pipe" }),
        0o020_000 | 0o060_000 => return Err(Refusal::Special { kind: "a device" }),
        0o140_000 => return Err(Refusal::Special { kind: "a socket" }),
        _ => return Err(Refusal::Special { kind: "of an unknown kind" }),
    };
    match (is_folder, told.mode & OWNER_RUNS != 0) {
        (true, _) if told.bytes > 0 => Err(Refusal::FullFolder),
        (true, _) => Ok(Kind::Folder),
        (false, true) => Ok(Kind::Program),
        (false, false) => Ok(Kind::File),
    }
}

fn ends_as_folder(told: &Told<'_>) -> bool {
    told.name.ends_with(b"/") || told.is_of_windows && told.name.ends_with(b"\\")
}

/// Returns the path without what other tools begin (`./`) and end (`/`) it with: empty for the folder itself.
fn path(told: &Told<'_>, depth_max: u32) -> Result<Vec<u8>, Refusal> {
    let mut name = told.name.to_vec();
    if told.is_of_windows {
        name.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    }
    if name.is_empty() {
        return Err(Refusal::Nameless);
    }
    if name.starts_with(b"/") || told.is_of_windows && has_drive(&name) {
        return Err(Refusal::Absolute);
    }
    if name.contains(&b'\\') {
        return Err(Refusal::Backslash);
    }
    if name.utf8_chunks().any(|chunk| chunk.valid().chars().any(is_hidden)) {
        return Err(Refusal::Hidden);
    }
    let path = name.strip_prefix(b"./").unwrap_or(&name);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    if path.len() > PATH_BYTES_MAX {
        return Err(Refusal::LongPath);
    }
    if !path.is_empty() {
        check_parts(path, depth_max)?;
    }
    Ok(path.to_vec())
}

/// `C:`
fn has_drive(name: &[u8]) -> bool {
    matches!(name, [letter, b':', ..] if letter.is_ascii_alphabetic())
}

fn check_parts(path: &[u8], depth_max: u32) -> Result<(), Refusal> {
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b".." => return Err(Refusal::Climbs),
            b"" | b"." => return Err(Refusal::Odd),
            part if part.len() > PART_BYTES_MAX => return Err(Refusal::LongName),
            _ => {}
        }
    }
    let depth = path.split(|byte| *byte == b'/').count();
    if depth as u64 > u64::from(depth_max) { Err(Refusal::Deep { max: depth_max }) } else { Ok(()) }
}

/// What the Finder adds: attributes of files, and how a folder's window looks.
fn is_of_macos(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/');
    parts.next() == Some(b"__MACOSX") || path.split(|byte| *byte == b'/').next_back() == Some(b".DS_Store")
}

const METHOD_STORED: u16 = 0;
const METHOD_DEFLATED: u16 = 8;
const METHOD_ENCRYPTED: u16 = 99;

/// Source: APPNOTE.TXT 6.3.10, 4.4.5.
fn method_name(method: u16) -> &'static str {
    match method {
        1 => "shrink",
        2..=5 => "reduce",
        6 => "implode",
        9 => "deflate64",
        12 => "bzip2",
        14 => "lzma",
        20 | 93 => "zstd",
        95 => "xz",
        98 => "ppmd",
        _ => "unknown",
    }
}

/// What is going to lie in the folder.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<Vec<u8>, Node>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File,
    Folder,
    /// A folder that has no entry of its own yet, and may never have.
    Implied,
}

impl Tree {
    /// Adds what is made of an entry, and the folders above it.
    ///
    /// # Errors
    /// If it is there, or lies in a file.
    pub(super) fn add(&mut self, planned: &Planned) -> Result<(), Refusal> {
        let path = &planned.path;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in ends {
            if *self.0.entry(path[..end].to_vec()).or_insert(Node::Implied) == Node::File {
                return Err(Refusal::BothKinds);
            }
        }
        let node = if planned.kind == Kind::Folder { Node::Folder } else { Node::File };
        match self.0.entry(path.clone()) {
            Place::Vacant(place) => {
                place.insert(node);
            }
            Place::Occupied(mut there) => match (*there.get(), node) {
                (Node::Implied, Node::Folder) => {
                    there.insert(node);
                }
                (Node::File, Node::File) | (Node::Folder, Node::Folder) => return Err(Refusal::Twice),
                (Node::File | Node::Folder | Node::Implied, _) => return Err(Refusal::BothKinds),
            },
        }
        Ok(())
    }

    /// Returns how many files and folders there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Returns a name as it can be shown: hidden characters and what is no UTF-8 are escaped, and no more is shown than is read.
pub(super) fn shown(name: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_hidden(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
        }
        chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
    }
    if let Some((end, _)) = shown.char_indices().nth(SHOWN_CHARS_MAX) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

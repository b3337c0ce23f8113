//! What a list of paths looked like at one moment, and how two such moments differ. Looking at them is `os::disk`'s work.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

/// Every path that was looked at, in the order of their components: a folder stands before what is in it.
///
/// A sorted list, not a map: a map would compare and move every entry once more, which is a tenth of what it costs to look
/// at an unchanged tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot(Vec<(PathBuf, Entry)>);

/// Whether a walk met its paths in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalkOrder {
    /// It did, and no path twice.
    Sorted,
    /// It may not have.
    Any,
}

/// What was found at one path. Links are recorded, never followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing is there.
    Absent,
    /// A regular file.
    File {
        /// What every file has.
        meta: Meta,
        /// Its length.
        size_bytes: u64,
        /// Its bytes.
        content: Content,
    },
    /// A symbolic link, wherever it leads.
    Symlink {
        /// What every file has.
        meta: Meta,
        /// Its text, as it stands.
        target: PathBuf,
    },
    /// A folder; what is in it has entries of its own.
    Dir {
        /// What every file has.
        meta: Meta,
        /// Whether they are all there.
        listing: Listing,
    },
    /// Anything else; never opened.
    Special {
        /// What every file has.
        meta: Meta,
        /// What it is.
        kind: SpecialKind,
    },
    /// Something may be there, but not even its type can be told.
    Unreadable {
        /// Why (errno(3)).
        errno: i32,
    },
}

/// What every file has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub(crate) mode: u16,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Last change of the content.
    pub(crate) mtime: Timestamp,
    /// Hard links to it.
    pub(crate) nlink: u32,
    /// Extended attributes by name: ACLs, file capabilities and labels are among them.
    pub(crate) xattrs: Xattrs,
}

/// Extended attributes by name.
pub(crate) type Xattrs = BTreeMap<Vec<u8>, XattrValue>;

/// A moment as the file system keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp {
    /// Seconds since 1970, rounded down.
    pub(crate) secs: i64,
    /// Nanoseconds on top of them, below 1,000,000,000.
    pub(crate) nanos: u32,
}

impl Timestamp {
    /// Returns the nanoseconds since 1970. They need more than 64 bits: ext4 keeps years up to 2446.
    #[must_use]
    pub(crate) fn as_nanos(self) -> i128 {
        i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos)
    }
}

/// The bytes of a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// SHA-256 of all of them.
    Sha256([u8; 32]),
    /// They could not be read.
    Unreadable {
        /// Why (errno(3)); `EFBIG` for a file that is too large to be hashed.
        errno: i32,
    },
}

/// The value of an extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum XattrValue {
    /// A short value as it is.
    Bytes(Vec<u8>),
    /// A long one.
    Digest {
        /// Its length.
        size_bytes: u64,
        /// SHA-256 of it.
        sha256: [u8; 32],
    },
    /// It is there, but we may not see it.
    Unreadable {
        /// Why (errno(3)).
        errno: i32,
    },
}

/// Whether the entries of a folder are all in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    /// They are.
    Complete,
    /// None is: another file system begins here.
    OtherFileSystem,
    /// None is: the folder could not be listed.
    Unreadable {
        /// Why (errno(3)).
        errno: i32,
    },
}

/// A file that is no regular file, link or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
}

/// Which device a device file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceNumber {
    /// Driver.
    pub(crate) major: u32,
    /// Device of that driver.
    pub(crate) minor: u32,
}

/// The type of an entry, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryType {
    /// [`Entry::Absent`].
    Absent,
    /// [`Entry::File`].
    File,
    /// [`Entry::Symlink`].
    Symlink,
    /// [`Entry::Dir`].
    Dir,
    /// [`SpecialKind::Fifo`].
    Fifo,
    /// [`SpecialKind::Socket`].
    Socket,
    /// [`SpecialKind::CharDevice`].
    CharDevice,
    /// [`SpecialKind::BlockDevice`].
    BlockDevice,
    /// [`Entry::Unreadable`].
    Unreadable,
}

impl EntryType {
    /// Returns the word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::File => "file",
            Self::Symlink => "symlink",
            Self::Dir => "dir",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharDevice => "char-device",
            Self::BlockDevice => "block-device",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Entry {
    /// Returns the type as one word.
    #[must_use]
    pub(crate) fn entry_type(&self) -> EntryType {
        match self {
            Self::Absent => EntryType::Absent,
            Self::File { .. } => EntryType::File,
            Self::Symlink { .. } => EntryType::Symlink,
            Self::Dir { .. } => EntryType::Dir,
            Self::Special { kind: SpecialKind::Fifo, .. } => EntryType::Fifo,
            Self::Special { kind: SpecialKind::Socket, .. } => EntryType::Socket,
            Self::Special { kind: SpecialKind::CharDevice(_), .. } => EntryType::CharDevice,
            Self::Special { kind: SpecialKind::BlockDevice(_), .. } => EntryType::BlockDevice,
            Self::Unreadable { .. } => EntryType::Unreadable,
        }
    }

    /// Returns what every file has; `None` where there is none to be seen.
    #[must_use]
    pub(crate) fn meta(&self) -> Option<&Meta> {
        match self {
            Self::Absent | Self::Unreadable { .. } => None,
            Self::File { meta, .. }
            | Self::Symlink { meta, .. }
            | Self::Dir { meta, .. }
            | Self::Special { meta, .. } => Some(meta),
        }
    }
}

/// One path that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which.
    pub(crate) path: PathBuf,
    /// How.
    pub(crate) kind: ChangeKind,
}

/// How a path differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// Nothing was there, now this is.
    Added(Entry),
    /// This was there, now nothing is.
    Removed(Entry),
    /// Something of another type is there; also: it can no longer, or only now, be looked at.
    Replaced {
        /// What was there.
        from: Entry,
        /// What is there.
        to: Entry,
    },
    /// The type is the same.
    Modified {
        /// The type.
        entry_type: EntryType,
        /// What differs; never empty.
        differences: Vec<Difference>,
    },
}

/// One thing that differs between two entries of the same type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Permission bits.
    Mode(FromTo<u16>),
    /// Owner.
    Uid(FromTo<u32>),
    /// Group.
    Gid(FromTo<u32>),
    /// Length in bytes.
    Size(FromTo<u64>),
    /// Bytes of a file.
    Content(FromTo<Content>),
    /// Text of a link.
    Target(FromTo<PathBuf>),
    /// Last change of the content.
    Mtime(FromTo<Timestamp>),
    /// Hard links.
    Nlink(FromTo<u32>),
    /// An extended attribute; `None` where it does not exist.
    Xattr(Vec<u8>, FromTo<Option<XattrValue>>),
    /// Whether a folder's entries were looked at.
    Listing(FromTo<Listing>),
}

/// A value before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FromTo<T> {
    /// Before.
    pub(crate) from: T,
    /// After.
    pub(crate) to: T,
}

/// Takes entries in any order; of two with the same path the later counts.
impl FromIterator<(PathBuf, Entry)> for Snapshot {
    fn from_iter<I: IntoIterator<Item = (PathBuf, Entry)>>(entries: I) -> Self {
        Self(entries.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

impl Snapshot {
    /// Takes entries as they are if each path stands behind the one before it, else sorts them.
    #[must_use]
    pub(crate) fn from_walk(entries: Vec<(PathBuf, Entry)>, order: WalkOrder) -> Self {
        match order {
            WalkOrder::Sorted => Self(entries),
            WalkOrder::Any => entries.into_iter().collect(),
        }
    }

    /// Iterates in the order of paths.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&PathBuf, &Entry)> {
        self.0.iter().map(|(path, entry)| (path, entry))
    }

    /// Returns what was found at `path`; `None` if the snapshot knows nothing of it.
    #[must_use]
    pub(crate) fn get(&self, path: &Path) -> Option<&Entry> {
        let at = self.0.binary_search_by(|(other, _)| other.as_path().cmp(path)).ok()?;
        self.0.get(at).map(|(_, entry)| entry)
    }

    /// Returns what differs in `later`, in the order of paths.
    ///
    /// A path without an entry counts as absent, unless it lies in a folder that could not be listed: of such a path
    /// nothing is known, so nothing is claimed.
    #[must_use]
    pub(crate) fn changes_to(&self, later: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if std::ptr::eq(self, later) {
            return changes;
        }
        let (mut left, mut right) = (self.iter().peekable(), later.iter().peekable());
        while let Some((path, from, to)) = next_pair(&mut left, &mut right) {
            let known = from.is_some() || self.knows_of(path);
            let known = known && (to.is_some() || later.knows_of(path));
            let (from, to) = (from.unwrap_or(&Entry::Absent), to.unwrap_or(&Entry::Absent));
            if !known || from == to {
                continue;
            }
            changes.push(Change { path: path.clone(), kind: change(from, to) });
        }
        changes
    }

    /// Tells whether a missing entry means that there is nothing: its nearest recorded folder was listed.
    fn knows_of(&self, path: &Path) -> bool {
        let mut above = path.ancestors().skip(1).filter_map(|folder| self.get(folder));
        match above.next() {
            Some(Entry::Unreadable { .. }) => false,
            Some(Entry::Dir { listing, .. }) => *listing == Listing::Complete,
            Some(Entry::Absent | Entry::File { .. } | Entry::Symlink { .. } | Entry::Special { .. }) | None => true,
        }
    }
}

/// A path, and what each of two snapshots has of it.
type Pair<'a> = (&'a PathBuf, Option<&'a Entry>, Option<&'a Entry>);

/// Merges two iterators in the order of paths.
fn next_pair<'a, I>(left: &mut Peekable<I>, right: &mut Peekable<I>) -> Option<Pair<'a>>
where
    I: Iterator<Item = (&'a PathBuf, &'a Entry)>,
{
    let order = match (left.peek(), right.peek()) {
        (None, None) => return None,
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (Some((a, _)), Some((b, _))) => a.cmp(b),
    };
    let from = if order.is_le() { left.next() } else { None };
    let to = if order.is_ge() { right.next() } else { None };
    let (path, _) = from.or(to)?;
    Some((path, from.map(|(_, entry)| entry), to.map(|(_, entry)| entry)))
}

/// Classifies the change between two entries that differ.
fn change(from: &Entry, to: &Entry) -> ChangeKind {
    let replaced = || ChangeKind::Replaced { from: from.clone(), to: to.clone() };
    let modified = |differences| ChangeKind::Modified { entry_type: from.entry_type(), differences };
    match (from, to) {
        (Entry::Absent, _) => ChangeKind::Added(to.clone()),
        (_, Entry::Absent) => ChangeKind::Removed(from.clone()),
        (
            Entry::File { meta, size_bytes, content },
            Entry::File { meta: meta_to, size_bytes: size_to, content: content_to },
        ) => {
            let mut list = meta_differences(meta, meta_to);
            list.extend(differing(size_bytes, size_to).map(Difference::Size));
            list.extend(differing(content, content_to).map(Difference::Content));
            modified(list)
        }
        (Entry::Symlink { meta, target }, Entry::Symlink { meta: meta_to, target: target_to }) => {
            let mut list = meta_differences(meta, meta_to);
            list.extend(differing(target, target_to).map(Difference::Target));
            modified(list)
        }
        (Entry::Dir { meta, listing }, Entry::Dir { meta: meta_to, listing: listing_to }) => {
            let mut list = meta_differences(meta, meta_to);
            list.extend(differing(listing, listing_to).map(Difference::Listing));
            modified(list)
        }
        (Entry::Special { meta, kind }, Entry::Special { meta: meta_to, kind: kind_to }) if kind == kind_to => {
            modified(meta_differences(meta, meta_to))
        }
        (
            Entry::File { .. }
            | Entry::Symlink { .. }
            | Entry::Dir { .. }
            | Entry::Special { .. }
            | Entry::Unreadable { .. },
            _,
        ) => replaced(),
    }
}

fn meta_differences(from: &Meta, to: &Meta) -> Vec<Difference> {
    let mut list = Vec::new();
    list.extend(differing(&from.mode, &to.mode).map(Difference::Mode));
    list.extend(differing(&from.uid, &to.uid).map(Difference::Uid));
    list.extend(differing(&from.gid, &to.gid).map(Difference::Gid));
    list.extend(differing(&from.mtime, &to.mtime).map(Difference::Mtime));
    list.extend(differing(&from.nlink, &to.nlink).map(Difference::Nlink));
    let only_now = to.xattrs.keys().filter(|name| !from.xattrs.contains_key(*name));
    for name in from.xattrs.keys().chain(only_now) {
        let values = differing(&from.xattrs.get(name).cloned(), &to.xattrs.get(name).cloned());
        list.extend(values.map(|values| Difference::Xattr(name.clone(), values)));
    }
    list
}

fn differing<T: Clone + PartialEq>(from: &T, to: &T) -> Option<FromTo<T>> {
    (from != to).then(|| FromTo { from: from.clone(), to: to.clone() })
}

impl Change {
    /// Tells whether the change matters between `before` and `restored`.
    ///
    /// Not drift, because a perfect restore leaves it too:
    /// - mtime and link count of a folder: they follow every entry that was made and removed in it;
    /// - mtime of a link: making it again is the only way to restore it, and no program reads it;
    /// - mtime of pipes, sockets and devices: it follows their use.
    ///
    /// The mtime of a regular file is drift: a restore that renames its backup keeps it, one that copies does not, and
    /// make and package managers read it.
    #[must_use]
    pub(crate) fn is_drift(&self) -> bool {
        match &self.kind {
            ChangeKind::Added(_) | ChangeKind::Removed(_) | ChangeKind::Replaced { .. } => true,
            ChangeKind::Modified { entry_type, differences } => differences.iter().any(|d| d.is_drift(*entry_type)),
        }
    }
}

impl Difference {
    fn is_drift(&self, of: EntryType) -> bool {
        match self {
            Self::Mtime(_) => of == EntryType::File,
            Self::Nlink(_) => of != EntryType::Dir,
            Self::Mode(_)
            | Self::Uid(_)
            | Self::Gid(_)
            | Self::Size(_)
            | Self::Content(_)
            | Self::Target(_)
            | Self::Xattr(..)
            | Self::Listing(_) => true,
        }
    }
}

/// One line, whatever the names hold: `replaced /usr/bin/ls: file -> symlink to ../lib/x`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = OneLine(self.path.as_os_str().as_encoded_bytes());
        match &self.kind {
            ChangeKind::Added(to) => write!(f, "added {path}: {to}"),
            ChangeKind::Removed(from) => write!(f, "removed {path}: {from}"),
            ChangeKind::Replaced { from, to } => write!(f, "replaced {path}: {from} -> {to}"),
            ChangeKind::Modified { entry_type: _, differences } => {
                write!(f, "modified {path}: ")?;
                for (i, difference) in differences.iter().enumerate() {
                    write!(f, "{}{difference}", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Symlink { target, .. } => {
                write!(f, "symlink to {}", OneLine(target.as_os_str().as_encoded_bytes()))
            }
            Self::Special { kind: SpecialKind::CharDevice(number) | SpecialKind::BlockDevice(number), .. } => {
                write!(f, "{} {}:{}", self.entry_type().as_str(), number.major, number.minor)
            }
            Self::Unreadable { errno } => write!(f, "unreadable (errno {errno})"),
            Self::Absent | Self::File { .. } | Self::Dir { .. } | Self::Special { .. } => {
                f.write_str(self.entry_type().as_str())
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode(FromTo { from, to }) => write!(f, "mode {from:04o} -> {to:04o}"),
            Self::Uid(FromTo { from, to }) => write!(f, "uid {from} -> {to}"),
            Self::Gid(FromTo { from, to }) => write!(f, "gid {from} -> {to}"),
            Self::Size(FromTo { from, to }) => write!(f, "size {from} -> {to}"),
            Self::Nlink(FromTo { from, to }) => write!(f, "links {from} -> {to}"),
            Self::Mtime(_) => f.write_str("mtime"),
            Self::Content(FromTo { to: Content::Unreadable { errno }, .. }) => {
                write!(f, "content unreadable (errno {errno})")
            }
            Self::Content(_) => f.write_str("content"),
            Self::Target(FromTo { from, to }) => write!(
                f,
                "target {} -> {}",
                OneLine(from.as_os_str().as_encoded_bytes()),
                OneLine(to.as_os_str().as_encoded_bytes())
            ),
            Self::Xattr(name, FromTo { from, to }) => {
                let what = match (from, to) {
                    (None, _) => "added",
                    (_, None) => "removed",
                    (Some(_), Some(_)) => "changed",
                };
                write!(f, "xattr {} {what}", OneLine(name))
            }
            Self::Listing(FromTo { from, to }) => write!(f, "listing {from} -> {to}"),
        }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::OtherFileSystem => f.write_str("other file system"),
            Self::Unreadable { errno } => write!(f, "unreadable (errno {errno})"),
        }
    }
}

/// A name for people: one line, what is not text as `\u{fffd}`.
struct OneLine<'a>(&'a [u8]);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in String::from_utf8_lossy(self.0).chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp { secs: 5, nanos: 0 }, nlink: 1, xattrs: Xattrs::new() }
    }

    fn file(meta: Meta) -> Entry {
        Entry::File { meta, size_bytes: 3, content: Content::Sha256([1; 32]) }
    }

    fn dir(meta: Meta, listing: Listing) -> Entry {
        Entry::Dir { meta, listing }
    }

    fn link(target: &str) -> Entry {
        Entry::Symlink { meta: meta(), target: target.into() }
    }

    fn changes(from: Entry, to: Entry) -> Vec<Change> {
        let snapshot = |entry| Snapshot::from_iter([(PathBuf::from("/p"), entry)]);
        snapshot(from).changes_to(&snapshot(to))
    }

    #[test]
    fn every_change_has_its_type_and_its_line() {
        let later = Timestamp { secs: 6, nanos: 0 };
        let x = |value: &[u8]| Xattrs::from([(b"user.x".to_vec(), XattrValue::Bytes(value.to_vec()))]);
        let fifo = |meta| Entry::Special { meta, kind: SpecialKind::Fifo };
        let device =
            |minor| Entry::Special { meta: meta(), kind: SpecialKind::CharDevice(DeviceNumber { major: 1, minor }) };
        let complete = Listing::Complete;
        let drift = true;
        let table = [
            (Entry::Absent, file(meta()), "added /p: file", drift),
            (link("x"), Entry::Absent, "removed /p: symlink to x", drift),
            (file(meta()), link("../lib/x"), "replaced /p: file -> symlink to ../lib/x", drift),
            (file(meta()), Entry::Unreadable { errno: 13 }, "replaced /p: file -> unreadable (errno 13)", drift),
            (device(3), device(5), "replaced /p: char-device 1:3 -> char-device 1:5", drift),
            (link("a"), link("b\n"), "modified /p: target a -> b\\n", drift),
            (file(meta()), file(Meta { mode: 0o4755, ..meta() }), "modified /p: mode 0755 -> 4755", drift),
            (file(meta()), file(Meta { uid: 1, gid: 2, ..meta() }), "modified /p: uid 0 -> 1, gid 0 -> 2", drift),
            (file(meta()), file(Meta { mtime: later, ..meta() }), "modified /p: mtime", drift),
            (file(meta()), file(Meta { nlink: 2, ..meta() }), "modified /p: links 1 -> 2", drift),
            (file(meta()), file(Meta { xattrs: x(b"1"), ..meta() }), "modified /p: xattr user.x added", drift),
            (
                file(Meta { xattrs: x(b"1"), ..meta() }),
                file(Meta { xattrs: x(b"2"), ..meta() }),
                "modified /p: xattr user.x changed",
                drift,
            ),
            (file(Meta { xattrs: x(b"1"), ..meta() }), file(meta()), "modified /p: xattr user.x removed", drift),
            (
                file(meta()),
                Entry::File { meta: meta(), size_bytes: 4, content: Content::Sha256([2; 32]) },
                "modified /p: size 3 -> 4, content",
                drift,
            ),
            (
                file(meta()),
                Entry::File { meta: meta(), size_bytes: 3, content: Content::Unreadable { errno: 13 } },
                "modified /p: content unreadable (errno 13)",
                drift,
            ),
            (
                dir(meta(), complete),
                dir(Meta { mtime: later, nlink: 3, ..meta() }, complete),
                "modified /p: mtime, links 1 -> 3",
                !drift,
            ),
            (
                dir(meta(), complete),
                dir(meta(), Listing::OtherFileSystem),
                "modified /p: listing complete -> other file system",
                drift,
            ),
            (
                link("x"),
                Entry::Symlink { meta: Meta { mtime: later, ..meta() }, target: "x".into() },
                "modified /p: mtime",
                !drift,
            ),
            (fifo(meta()), fifo(Meta { mtime: later, ..meta() }), "modified /p: mtime", !drift),
        ];
        for (from, to, text, is_drift) in table {
            let changes = changes(from, to);
            let seen: Vec<_> = changes.iter().map(|change| (change.to_string(), change.is_drift())).collect();
            assert_eq!(seen, [(text.to_owned(), is_drift)]);
        }
    }

    #[test]
    fn what_is_equal_does_not_change() {
        for entry in [Entry::Absent, file(meta()), link("x"), dir(meta(), Listing::Complete)] {
            assert_eq!(changes(entry.clone(), entry), []);
        }
    }

    #[test]
    fn a_path_without_an_entry_is_absent() {
        let absent = Snapshot::from_iter([(PathBuf::from("/p"), Entry::Absent)]);
        assert_eq!(absent.changes_to(&Snapshot::default()), []);
        let there = Snapshot::from_iter([(PathBuf::from("/p"), file(meta()))]);
        assert_eq!(there.changes_to(&Snapshot::default()).len(), 1);
        assert_eq!(Snapshot::default().changes_to(&there).len(), 1);
    }

    #[test]
    fn changes_are_in_the_order_of_paths() {
        let of = |paths: &[&str]| paths.iter().map(|path| (PathBuf::from(path), file(meta()))).collect::<Snapshot>();
        let changes = of(&["/a", "/b", "/d/e"]).changes_to(&of(&["/a", "/c", "/d-e"]));
        let paths: Vec<_> = changes.iter().map(|change| change.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/b", "/c", "/d/e", "/d-e"]);
    }

    #[test]
    fn nothing_is_claimed_of_a_folder_that_was_not_listed() {
        let unlisted = dir(meta(), Listing::Unreadable { errno: 13 });
        let before = Snapshot::from_iter([
            (PathBuf::from("/d"), dir(meta(), Listing::Complete)),
            (PathBuf::from("/d/f"), file(meta())),
        ]);
        let after = Snapshot::from_iter([(PathBuf::from("/d"), unlisted)]);
        for changes in [before.changes_to(&after), after.changes_to(&before)] {
            assert_eq!(changes.iter().map(|change| &change.path).collect::<Vec<_>>(), [Path::new("/d")]);
        }
    }
}

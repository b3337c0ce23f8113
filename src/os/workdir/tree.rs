//! A folder with all in it, to be copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
#[cfg(feature = "worker")]
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::WorkdirError;
use super::folder::{add_mode, remove};
#[cfg(feature = "worker")]
use crate::os::disk::sha256_text;
use crate::os::disk::{is_full, tried};

/// What lies in a folder, as it was when it was listed; and what of other folders was laid beside it.
pub(crate) struct Tree {
    /// By path below the root, so folders before what is in them.
    entries: BTreeMap<PathBuf, Listed>,
}

/// How much lies in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Of all files.
    pub(crate) bytes: u64,
    /// Files, folders and links; not itself.
    pub(crate) entries: u64,
}

impl Extent {
    /// Looks into the folder `root` as long as `goes_on`, and keeps nothing of what it sees, however much that is. What cannot be read
    /// is passed over: who lists the folder is told.
    pub(crate) fn of(root: &Path, goes_on: &dyn Fn() -> bool) -> Self {
        let mut extent = Self::default();
        for entry in walkdir::WalkDir::new(root).min_depth(1).into_iter().take_while(|_| goes_on()).flatten() {
            extent.entries += 1;
            let file = entry.metadata().ok().filter(Metadata::is_file);
            extent.bytes = extent.bytes.saturating_add(file.map_or(0, |meta| meta.len()));
        }
        extent
    }
}

/// Something in a folder.
struct Listed {
    from: PathBuf,
    meta: Metadata,
    /// When a copy of it was changed last, as it will say.
    modified: SystemTime,
}

impl Listed {
    fn new(from: PathBuf, meta: Metadata) -> Self {
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Self { from, meta, modified }
    }
}

impl Tree {
    /// Lists the folder `root`.
    ///
    /// # Errors
    /// If something in it cannot be read.
    pub(crate) fn list(root: &Path) -> Result<Self, WorkdirError> {
        let listed = walkdir::WalkDir::new(root).into_iter().map(|entry| {
            let entry = entry?;
            let below = entry.path().strip_prefix(root).unwrap_or(Path::new("")).to_path_buf();
            let meta = entry.metadata()?;
            Ok((below, Listed::new(entry.into_path(), meta)))
        });
        let entries = listed.collect::<Result<_, walkdir::Error>>().map_err(|error| {
            let path = error.path().unwrap_or(root).to_path_buf();
            // Its own text would say all of it again.
            tried("read", &path)(error.into_io_error().unwrap_or_else(|| io::Error::other("links lead in a circle")))
        })?;
        Ok(Self { entries })
    }

    /// A folder that holds one file.
    ///
    /// # Errors
    /// If the file cannot be read, or its path has no last part.
    pub(crate) fn of_file(path: &Path) -> Result<Self, WorkdirError> {
        let meta = path.metadata().map_err(tried("read", path))?;
        let name = path.file_name().ok_or_else(|| WorkdirError::Special(path.to_path_buf()))?;
        Ok(Self { entries: BTreeMap::from([(name.into(), Listed::new(path.to_path_buf(), meta))]) })
    }

    /// Returns everything that is no folder.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().filter(|(_, listed)| !listed.meta.is_dir()).map(|(below, _)| below.as_path())
    }

    /// Tells whether the file at `below` is what a compiler, an assembler or ar(1) makes: ELF, a Java class, an archive of objects.
    pub(crate) fn is_compiled(&self, below: &Path) -> bool {
        let mut start = Vec::new();
        let file =
            self.entries.get(below).filter(|listed| listed.meta.is_file()).map(|listed| File::open(&listed.from));
        let Some(Ok(file)) = file else { return false };
        file.take(8).read_to_end(&mut start).is_ok() && COMPILED.iter().any(|magic| start.starts_with(magic))
    }

    /// Tells whether there is something at `below`.
    pub(crate) fn has(&self, below: &Path) -> bool {
        self.entries.contains_key(below)
    }

    /// Tries to open each of its files.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(crate) fn check_readable(&self) -> Result<(), WorkdirError> {
        let mut files = self.entries.values().filter(|listed| listed.meta.is_file());
        files.try_for_each(|listed| Ok(File::open(&listed.from).map(drop).map_err(tried("read", &listed.from))?))
    }

    /// Returns the folder that all of its files lie in, if there is nothing beside that.
    pub(crate) fn lone_folder(&self) -> Option<&Path> {
        let mut top = self.entries.iter().filter(|(below, _)| below.components().count() == 1);
        let (folder, listed) = top.next().filter(|_| top.next().is_none())?;
        let has_files = self.entries.values().any(|listed| !listed.meta.is_dir());
        (listed.meta.is_dir() && has_files).then_some(folder)
    }

    /// Adds what another folder has and this one has not. Returns the files of the other whose place was taken: by something of the
    /// same name, or by something that is no folder where one would be needed. The places `reserved` are taken in any case, and a folder
    /// at one of them is left out with all in it.
    ///
    /// Files of the other become older than all of this one, in the order that they have. Else make would take them for newer than
    /// what is here, and replace that: `Makefile` by a `Makefile.sh`, any file by what its built-in rules make of another.
    pub(crate) fn lay_beside(&mut self, mut other: Self, reserved: &[&Path]) -> Vec<PathBuf> {
        other.become_older_than(self);
        // Through a link above it, something would be at a place as well.
        let above: BTreeSet<_> = reserved.iter().flat_map(|place| place.ancestors()).collect();
        let reserved: BTreeSet<_> = reserved.iter().copied().collect();
        let mut left_out: Vec<PathBuf> = Vec::new();
        for (below, listed) in other.entries {
            // What is in a folder comes next after it.
            if left_out.last().is_some_and(|folder| below.starts_with(folder)) {
                continue;
            }
            let is_reserved = reserved.contains(below.as_path());
            let is_taken = match self.entries.get(&below) {
                Some(own) if own.meta.is_dir() && listed.meta.is_dir() => continue,
                Some(_) => true,
                None if is_reserved || (!listed.meta.is_dir() && above.contains(below.as_path())) => true,
                // What it lies in came before it, so that is here by now, or was left out.
                None => {
                    !below.parent().and_then(|above| self.entries.get(above)).is_some_and(|above| above.meta.is_dir())
                }
            };
            if !is_taken {
                self.entries.insert(below, listed);
            } else if is_reserved || !listed.meta.is_dir() {
                left_out.push(below);
            }
        }
        left_out
    }

    fn become_older_than(&mut self, other: &Self) {
        let times = |tree: &Self| {
            let files = tree.entries.values().filter(|listed| !listed.meta.is_dir());
            files.map(|listed| listed.modified).collect::<Vec<_>>()
        };
        let (Some(newest), Some(oldest)) = (times(self).into_iter().max(), times(other).into_iter().min()) else {
            return;
        };
        let Ok(ahead) = newest.duration_since(oldest) else { return };
        for listed in self.entries.values_mut() {
            // As old as can be is old enough.
            listed.modified = listed.modified.checked_sub(ahead + STEP).unwrap_or(SystemTime::UNIX_EPOCH);
        }
    }

    /// Returns how many bytes a copy takes on a disk, or in memory: blocks are what is given away, and to each folder one, too.
    pub(crate) fn space(&self) -> u64 {
        self.entries.values().map(|listed| listed.meta.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES)).sum()
    }

    /// Returns the size of all content.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries.values().map(|listed| listed.meta.len()).sum()
    }

    /// Returns a digest of what the kernel says of everything in it: path, kind, mode, owner, size, times, inode, and where links lead.
    /// Whoever writes to a file changes it, and cannot set the time of the last change (ctime) back. No content is read.
    ///
    /// # Errors
    /// If a link cannot be read.
    #[cfg(feature = "worker")]
    pub(crate) fn digest(&self) -> Result<String, WorkdirError> {
        let mut text = Vec::new();
        for (below, Listed { from, meta, .. }) in &self.entries {
            let numbers = [
                u64::from(meta.mode()),
                u64::from(meta.uid()),
                u64::from(meta.gid()),
                meta.len(),
                meta.ino(),
                meta.mtime().cast_unsigned(),
                meta.mtime_nsec().cast_unsigned(),
                meta.ctime().cast_unsigned(),
                meta.ctime_nsec().cast_unsigned(),
            ];
            text.extend_from_slice(below.as_os_str().as_bytes());
            text.push(0);
            numbers.iter().for_each(|number| text.extend_from_slice(&number.to_le_bytes()));
            if meta.is_symlink() {
                text.extend_from_slice(fs::read_link(from).map_err(tried("read", from))?.as_os_str().as_bytes());
                text.push(0);
            }
        }
        Ok(sha256_text(&text))
    }

    /// Returns how many files and folders it has, itself among them.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the path below it of something that cannot be copied: a device, a socket, a pipe.
    pub(crate) fn special(&self) -> Option<&Path> {
        let mut entries = self.entries.iter();
        let found =
            entries.find(|(_, listed)| !(listed.meta.is_dir() || listed.meta.is_file() || listed.meta.is_symlink()));
        found.map(|(below, _)| below.as_path())
    }

    /// Copies it to `target`, which need not exist.
    ///
    /// # Errors
    /// If something cannot be read or written, and on devices, sockets and pipes.
    pub(crate) fn copy_to(&self, target: &Path) -> Result<(), WorkdirError> {
        let mut entries = self.entries.iter();
        entries.try_for_each(|(below, listed)| copy_entry(listed, &target.join(below)))
    }

    /// As `copy_to`, of a folder that nobody was to change since it was listed.
    ///
    /// # Errors
    /// As `copy_to`, and if somebody did.
    pub(super) fn copy_unchanged_to(&self, target: &Path) -> Result<(), WorkdirError> {
        self.entries.keys().try_for_each(|below| self.copy_unchanged(below, &target.join(below)))
    }

    /// Copies what was at `below` when the folder was listed, to `to`: a folder without what is in it, nothing if there was nothing.
    ///
    /// # Errors
    /// As `copy_unchanged_to`.
    pub(super) fn copy_unchanged(&self, below: &Path, to: &Path) -> Result<(), WorkdirError> {
        let Some(listed) = self.entries.get(below) else { return Ok(()) };
        let from = &listed.from;
        // Nobody can set the time of the last change (ctime) back.
        let identity = |meta: &Metadata| (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
        if !fs::symlink_metadata(from).is_ok_and(|found| identity(&found) == identity(&listed.meta)) {
            return Err(WorkdirError::Tampered(from.clone()));
        }
        copy_entry(listed, to)
    }

    /// Puts the file that was at `below` when the folder was listed back into a copy of it, if there is another now, or none. Tells
    /// whether it did. Nobody may change the copy meanwhile.
    ///
    /// # Errors
    /// As `copy_unchanged_to`, and if what is there cannot be read or removed.
    pub(super) fn put_back(&self, below: &Path, copy: &Path) -> Result<bool, WorkdirError> {
        let Some(listed) = self.entries.get(below) else { return Ok(false) };
        let above: Vec<_> = below.ancestors().skip(1).collect();
        let mut is_whole = true;
        // From the top: what is written must not go through a link.
        for folder in above.into_iter().rev() {
            let path = copy.join(folder);
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                add_mode(&path, 0o700).map_err(tried("enter", &path))?;
            } else {
                is_whole = false;
                remove(&path).map_err(tried("remove", &path))?;
                self.copy_unchanged(folder, &path)?;
            }
        }
        let path = copy.join(below);
        if is_whole && is_copy(listed, &path).map_err(tried("read", &path))? {
            return Ok(false);
        }
        remove(&path).map_err(tried("remove", &path))?;
        self.copy_unchanged(below, &path)?;
        Ok(true)
    }
}

/// Of most file systems, and of memory.
const BLOCK_BYTES: u64 = 4096;
/// Less than the finest clock of a file system could tell is no time.
const STEP: Duration = Duration::from_secs(1);
const COMPILED: [&[u8]; 3] = [b"\x7fELF", b"!<arch>\n", b"\xca\xfe\xba\xbe"];

/// Tells whether a file or link at `path` has the content and mode of another.
fn is_copy(listed: &Listed, path: &Path) -> io::Result<bool> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(false) };
    if meta.file_type() != listed.meta.file_type() {
        return Ok(false);
    }
    if meta.is_symlink() {
        return Ok(fs::read_link(path)? == fs::read_link(&listed.from)?);
    }
    let mode = |meta: &Metadata| meta.permissions().mode() & MODE;
    Ok(meta.len() == listed.meta.len()
        && mode(&meta) == mode(&listed.meta)
        && has_content_of(&File::open(&listed.from)?, &File::open(path)?)?)
}

/// Of files of one length.
fn has_content_of(one: &File, other: &File) -> io::Result<bool> {
    let [mut one, mut other] = [one, other].map(BufReader::new);
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let len = left.len().min(right.len());
        if left[..len] != right[..len] {
            return Ok(false);
        }
        if len == 0 {
            return Ok(left.len() == right.len());
        }
        one.consume(len);
        other.consume(len);
    }
}

/// Copies a file, a symbolic link, or a folder without what is in it.
fn copy_entry(listed: &Listed, to: &Path) -> Result<(), WorkdirError> {
    let Listed { from, meta, modified } = listed;
    let copied = if meta.is_dir() {
        // The owner must be able to fill and to remove it.
        let mode = meta.permissions().mode() & MODE | 0o700;
        fs::DirBuilder::new().recursive(true).mode(mode).create(to).map_err(tried("make the folder", to))
    } else if meta.is_symlink() {
        let target = fs::read_link(from).map_err(tried("read", from))?;
        symlink(target, to).map_err(tried("make the link", to))
    } else if meta.is_file() {
        copy_file(from, meta, *modified, to).map_err(tried("copy", from))
    } else {
        return Err(WorkdirError::Special(from.to_path_buf()));
    };
    copied.map_err(|error| {
        if !is_full(&error.source) {
            return error.into();
        }
        let folder = to.parent().unwrap_or(to).to_path_buf();
        WorkdirError::Full { folder, path: from.to_path_buf(), source: error.source }
    })
}

/// Of a mode, what is copied. Not setuid and setgid: to others on this machine a copy would be a program that runs as us, with whatever
/// its author wrote in it.
const MODE: u32 = 0o1777;
const SMALL_FILE_BYTES: usize = 16 << 10;

/// Copies content and mode of a file to a new one, which is as old as is said. Most files of a set-up are small, and done in one read
/// and one write.
fn copy_file(from: &Path, meta: &Metadata, modified: SystemTime, to: &Path) -> io::Result<()> {
    let mut buffer = [0; SMALL_FILE_BYTES];
    let mut source = File::open(from)?;
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    let len = source.read(&mut buffer)?;
    copy.write_all(&buffer[..len])?;
    if len == buffer.len() {
        io::copy(&mut source, &mut copy)?;
    }
    copy.set_permissions(Permissions::from_mode(meta.permissions().mode() & MODE))?;
    copy.set_times(FileTimes::new().set_modified(modified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_every_size_are_copied_whole() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        let sizes = [0, 1, SMALL_FILE_BYTES - 1, SMALL_FILE_BYTES, SMALL_FILE_BYTES + 1, 5 * SMALL_FILE_BYTES];
        let content = |size: usize| (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>();
        sizes.iter().for_each(|size| fs::write(from.join(size.to_string()), content(*size)).unwrap());
        let to = dir.path().join("to");
        let tree = Tree::list(&from).unwrap();
        tree.copy_to(&to).unwrap();
        sizes.iter().for_each(|size| assert_eq!(fs::read(to.join(size.to_string())).unwrap(), content(*size)));
        assert!(tree.bytes() >= sizes.iter().sum::<usize>() as u64);
        assert!(tree.space() >= tree.bytes() && tree.space().is_multiple_of(4096) && tree.space() >= 7 * 4096);
    }

    #[test]
    fn the_extent_of_a_folder_is_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/empty")).unwrap();
        fs::write(dir.path().join("sub/a"), "four").unwrap();
        File::create(dir.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        symlink("sparse", dir.path().join("link")).unwrap();
        let extent = Extent::of(dir.path(), &|| true);
        assert_eq!(extent, Extent { bytes: (1 << 40) + 4, entries: 5 });
        assert_eq!(Extent::of(dir.path(), &|| false), Extent::default(), "it was to stop");
    }

    fn written(dir: &Path, files: &[&str]) -> Tree {
        for file in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, dir.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        Tree::list(dir).unwrap()
    }

    #[test]
    fn what_is_laid_beside_never_takes_the_place_of_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        written(&own, &["test.sh", "lib/a", "data"]);
        symlink("lib", own.join("link")).unwrap();
        let mut tree = Tree::list(&own).unwrap();
        let files = ["test.sh", "new", "lib/a", "lib/b", "lib/a2/deep/c", "data/x/y/z", "link/a", "test.sh2/x"];
        let left_out = tree.lay_beside(written(&dir.path().join("other"), &files), &[]);
        let to = dir.path().join("to");
        tree.copy_to(&to).unwrap();
        let whose = |file: &str| fs::read_to_string(to.join(file)).unwrap();
        for file in ["test.sh", "lib/a", "data"] {
            assert_eq!(whose(file), "own", "{file}");
        }
        for file in ["new", "lib/b", "lib/a2/deep/c", "test.sh2/x"] {
            assert_eq!(whose(file), "other", "{file}");
        }
        assert_eq!(left_out, ["data/x/y/z", "lib/a", "link/a", "test.sh"].map(PathBuf::from));
    }

    #[test]
    fn what_is_laid_beside_is_older_in_the_order_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other, to) = (dir.path().join("own"), dir.path().join("other"), dir.path().join("to"));
        written(&own, &["a", "b"]);
        written(&other, &["first", "second"]);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let set = |path: &Path, time| File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        for (is_newer, [a, b, first, second]) in
            [(true, [50, 60, 70, 80]), (true, [0, 60, 70, 80]), (false, [50, 60, 30, 40])]
        {
            for (path, seconds) in
                [(own.join("a"), a), (own.join("b"), b), (other.join("first"), first), (other.join("second"), second)]
            {
                set(&path, at(seconds));
            }
            let mut tree = Tree::list(&own).unwrap();
            tree.lay_beside(Tree::list(&other).unwrap(), &[]);
            remove(&to).unwrap();
            tree.copy_to(&to).unwrap();
            let found =
                ["first", "second", "a", "b"].map(|file| fs::metadata(to.join(file)).unwrap().modified().unwrap());
            assert!(found.is_sorted() && found[2..] == [at(a), at(b)], "{found:?}");
            assert_eq!(found[1] == at(second), !is_newer, "{found:?}");
        }
    }

    #[test]
    fn what_is_reserved_is_taken_whether_it_is_there_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = written(&dir.path().join("own"), &["test.sh"]);
        let other = dir.path().join("other");
        written(
            &other,
            &["gone.sh", "real/gone.sh", "lib/gone.sh", "lib/x", "makefile/a/b", "makefile/c", "makefile.d/x"],
        );
        symlink("real", other.join("tests")).unwrap();
        let reserved = ["gone.sh", "tests/gone.sh", "lib/gone.sh", "makefile"].map(Path::new);
        let left_out = tree.lay_beside(Tree::list(&other).unwrap(), &reserved);
        assert_eq!(left_out, ["gone.sh", "lib/gone.sh", "makefile", "tests"].map(PathBuf::from));
        assert!(!tree.files().any(|file| file.starts_with("makefile")) && tree.has(Path::new("makefile.d/x")));
        assert!(tree.has(Path::new("lib/x")) && tree.has(Path::new("real/gone.sh")) && !tree.has(Path::new("tests")));
    }

    #[test]
    fn a_folder_is_alone_if_it_holds_all_files_and_nothing_is_beside_it() {
        for (files, lone) in [
            (["alice/x", "alice/sub/y"].as_slice(), Some("alice")),
            (&["alice/x", "y"], None),
            (&["alice/x", "bob/x"], None),
            (&["x"], None),
            (&[], None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(written(dir.path(), files).lone_folder(), lone.map(Path::new), "{files:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("alice/empty")).unwrap();
        assert_eq!(Tree::list(dir.path()).unwrap().lone_folder(), None);
    }

    #[test]
    fn a_file_is_laid_beside_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = written(&dir.path().join("own"), &["test.sh"]);
        fs::write(dir.path().join("warmup.py"), "x").unwrap();
        assert_eq!(tree.lay_beside(Tree::of_file(&dir.path().join("warmup.py")).unwrap(), &[]), Vec::<PathBuf>::new());
        tree.copy_to(&dir.path().join("to")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("to/warmup.py")).unwrap(), "x");
    }

    /// Each change with how it is made; a digest that lacks one of its parts misses one of them.
    #[cfg(feature = "worker")]
    #[test]
    fn every_change_in_a_folder_changes_its_digest() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 8] = [
            ("content of the same size, time set back", |dir| {
                let time = fs::metadata(dir.join("a")).unwrap().modified().unwrap();
                fs::write(dir.join("a"), "2").unwrap();
                File::options().write(true).open(dir.join("a")).unwrap().set_modified(time).unwrap();
            }),
            ("size", |dir| fs::write(dir.join("a"), "12").unwrap()),
            ("mode", |dir| fs::set_permissions(dir.join("a"), Permissions::from_mode(0o700)).unwrap()),
            ("a new file", |dir| fs::write(dir.join("b"), "").unwrap()),
            ("a file less", |dir| fs::remove_file(dir.join("a")).unwrap()),
            ("another file of the name", |dir| {
                fs::rename(dir.join("a"), dir.join("old")).unwrap();
                fs::copy(dir.join("old"), dir.join("a")).unwrap();
                fs::remove_file(dir.join("old")).unwrap();
            }),
            ("another link", |dir| {
                fs::remove_file(dir.join("link")).unwrap();
                symlink("b", dir.join("link")).unwrap();
            }),
            ("a folder for a file", |dir| {
                fs::remove_file(dir.join("a")).unwrap();
                fs::create_dir(dir.join("a")).unwrap();
            }),
        ];
        for (name, change) in changes {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a"), "1").unwrap();
            symlink("a", dir.path().join("link")).unwrap();
            let digest = || Tree::list(dir.path()).unwrap().digest().unwrap();
            let before = digest();
            assert_eq!(digest(), before, "{name}");
            change(dir.path());
            assert_ne!(digest(), before, "{name}");
        }
    }

    #[test]
    fn a_pipe_in_a_set_up_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        nix::unistd::mkfifo(&from.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Tree::list(&from).unwrap().copy_to(&dir.path().join("to")).unwrap_err();
        assert!(error.to_string().contains("/pipe` is neither a file"), "{error}");
    }
}

//! A folder with all in it, to be copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
#[cfg(feature = "worker")]
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::WorkdirError;
#[cfg(feature = "worker")]
use crate::os::disk::sha256_text;
use crate::os::disk::tried;

/// What lies in a folder, as it was when it was listed; and what of other folders was laid beside it.
pub(crate) struct Tree {
    /// By path below the root, so folders before what is in them.
    entries: BTreeMap<PathBuf, Listed>,
}

/// Something in a folder.
struct Listed {
    from: PathBuf,
    meta: Metadata,
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
            Ok((below, Listed { from: entry.into_path(), meta }))
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
        Ok(Self { entries: BTreeMap::from([(name.into(), Listed { from: path.to_path_buf(), meta })]) })
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
    /// same name, or by something that is no folder where one would be needed. The places `reserved` are taken in any case.
    pub(crate) fn lay_beside(&mut self, other: Self, reserved: &[&Path]) -> Vec<PathBuf> {
        // Through a link above it, something would be at a place as well.
        let reserved: BTreeSet<_> = reserved.iter().flat_map(|place| place.ancestors()).collect();
        let mut left_out = Vec::new();
        for (below, listed) in other.entries {
            let is_taken = match self.entries.get(&below) {
                Some(own) if own.meta.is_dir() && listed.meta.is_dir() => continue,
                Some(_) => true,
                None if !listed.meta.is_dir() && reserved.contains(below.as_path()) => true,
                // What it lies in came before it, so that is here by now, or was left out.
                None => {
                    !below.parent().and_then(|above| self.entries.get(above)).is_some_and(|above| above.meta.is_dir())
                }
            };
            if !is_taken {
                self.entries.insert(below, listed);
            } else if !listed.meta.is_dir() {
                left_out.push(below);
            }
        }
        left_out
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
        for (below, Listed { from, meta }) in &self.entries {
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
        entries.try_for_each(|(below, listed)| copy_entry(&listed.from, &listed.meta, &target.join(below)))
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
        copy_entry(from, &listed.meta, to)
    }
}

/// Copies a file, a symbolic link, or a folder without what is in it.
fn copy_entry(from: &Path, meta: &Metadata, to: &Path) -> Result<(), WorkdirError> {
    let copied = if meta.is_dir() {
        // The owner must be able to fill and to remove it.
        let mode = meta.permissions().mode() & MODE | 0o700;
        fs::DirBuilder::new().recursive(true).mode(mode).create(to).map_err(tried("make the folder", to))
    } else if meta.is_symlink() {
        let target = fs::read_link(from).map_err(tried("read", from))?;
        symlink(target, to).map_err(tried("make the link", to))
    } else if meta.is_file() {
        copy_file(from, meta, to).map_err(tried("copy", from))
    } else {
        return Err(WorkdirError::Special(from.to_path_buf()));
    };
    Ok(copied?)
}

/// Of a mode, what is copied. Not setuid and setgid: to others on this machine a copy would be a program that runs as us, with whatever
/// its author wrote in it.
const MODE: u32 = 0o1777;
const SMALL_FILE_BYTES: usize = 16 << 10;

/// Copies content, mode and time of a file to a new one. Most files of a set-up are small, and done in one read and one write.
fn copy_file(from: &Path, meta: &Metadata, to: &Path) -> io::Result<()> {
    let mut buffer = [0; SMALL_FILE_BYTES];
    let mut source = File::open(from)?;
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    let len = source.read(&mut buffer)?;
    copy.write_all(&buffer[..len])?;
    if len == buffer.len() {
        io::copy(&mut source, &mut copy)?;
    }
    copy.set_permissions(Permissions::from_mode(meta.permissions().mode() & MODE))?;
    copy.set_times(FileTimes::new().set_modified(meta.modified()?))
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
    fn what_is_reserved_is_taken_whether_it_is_there_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = written(&dir.path().join("own"), &["test.sh"]);
        let other = dir.path().join("other");
        written(&other, &["gone.sh", "real/gone.sh", "lib/gone.sh", "lib/x"]);
        symlink("real", other.join("tests")).unwrap();
        let reserved = ["gone.sh", "tests/gone.sh", "lib/gone.sh"].map(Path::new);
        let left_out = tree.lay_beside(Tree::list(&other).unwrap(), &reserved);
        assert_eq!(left_out, ["gone.sh", "lib/gone.sh", "tests"].map(PathBuf::from));
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

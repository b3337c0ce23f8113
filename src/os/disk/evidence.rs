//! Files of evidence: which there are, and what is in them. Nothing here follows a link.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::read::open_regular;
use super::write::is_aside;

/// Larger files are refused: each is read as a whole.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Something that is not a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Below the folder that was listed, `/` between its parts.
    pub(crate) path: OsString,
    pub(crate) kind: ListedKind,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListedKind {
    /// A regular file.
    File,
    /// A link, a pipe, a socket or a device.
    Strange,
}

/// Returns everything in `dir` that is called one of `names` or stands below a folder so called, byte-wise by path. Files that
/// are still being written aside, or were when their writer was killed, have no name yet.
///
/// # Errors
/// If something cannot be looked at, with its path.
pub(crate) fn list(dir: &Path, names: &[&str]) -> Result<Vec<Listed>, (PathBuf, io::Error)> {
    let mut listed = Vec::new();
    for name in names {
        let top = dir.join(name);
        let found = top.symlink_metadata();
        if found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            continue;
        }
        found.map_err(|error| (top.clone(), error))?;
        for entry in walkdir::WalkDir::new(&top).follow_root_links(false) {
            let entry = entry.map_err(|error| (error.path().unwrap_or(&top).to_path_buf(), error.into()))?;
            if !entry.file_type().is_dir() && !is_aside(entry.file_name()) {
                listed.push(Listed { path: below(dir, entry.path()), kind: kind(entry.file_type()) });
            }
        }
    }
    listed.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(listed)
}

fn below(dir: &Path, path: &Path) -> OsString {
    let path = path.as_os_str().as_bytes();
    let rest = path.strip_prefix(dir.as_os_str().as_bytes()).unwrap_or(path);
    OsString::from_vec(rest.strip_prefix(b"/").unwrap_or(rest).to_vec())
}

fn kind(file_type: std::fs::FileType) -> ListedKind {
    if file_type.is_file() { ListedKind::File } else { ListedKind::Strange }
}

/// Reads and hashes files of one folder. A file with several names is read once; what it was is remembered, not what it is, so
/// a reader is for one look at a folder.
#[derive(Debug, Default)]
pub(crate) struct EvidenceReader {
    bytes: Vec<u8>,
    /// By device and inode.
    hashed: HashMap<(u64, u64), [u8; 32]>,
}

impl EvidenceReader {
    /// Returns the SHA-256 of a file's content.
    ///
    /// # Errors
    /// As `read`.
    pub(crate) fn hash(&mut self, dir: &Path, path: &OsStr) -> io::Result<[u8; 32]> {
        let (file, meta) = open(&dir.join(path))?;
        let id = (meta.dev(), meta.ino());
        if let Some(sha256) = self.hashed.get(&id) {
            return Ok(*sha256);
        }
        self.fill(file, &meta)?;
        let sha256 = sha256(&self.bytes);
        if meta.nlink() > 1 {
            self.hashed.insert(id, sha256);
        }
        Ok(sha256)
    }

    /// Returns a file's content and its SHA-256.
    ///
    /// # Errors
    /// If it cannot be read, is no regular file or larger than 1 GiB.
    pub(crate) fn read(&mut self, dir: &Path, path: &OsStr) -> io::Result<(&[u8], [u8; 32])> {
        let (file, meta) = open(&dir.join(path))?;
        self.fill(file, &meta)?;
        let sha256 = sha256(&self.bytes);
        Ok((&self.bytes, sha256))
    }

    fn fill(&mut self, file: File, meta: &Metadata) -> io::Result<()> {
        self.bytes.clear();
        self.bytes.reserve(usize::try_from(meta.len().min(FILE_BYTES_MAX)).unwrap_or(0));
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut self.bytes)?;
        if read as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, Metadata)> {
    open_regular(path)?.ok_or_else(|| io::Error::other("it is not a regular file"))
}

/// Returns the SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Returns the SHA-256 of `bytes`, as 64 hexadecimal digits.
#[cfg(feature = "worker")]
pub(crate) fn sha256_text(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

/// Tells whether `sha256_text` could have returned this.
#[cfg(feature = "worker")]
pub(crate) fn is_sha256_text(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const NAMES: [&str; 4] = ["logs", "run.json", "results", "link"];

    fn shown(dir: &Path) -> Vec<(String, ListedKind)> {
        let listed = list(dir, &NAMES).unwrap();
        listed.into_iter().map(|listed| (listed.path.into_string().unwrap(), listed.kind)).collect()
    }

    #[test]
    fn files_come_byte_wise_and_links_are_strange() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("logs/a")).unwrap();
        fs::create_dir_all(dir.path().join("others")).unwrap();
        let files =
            ["logs/a/x", "logs/a.x", "logs/.hidden", "logs/.proving-ground-Ab1.tmp", "run.json", "mine", "others/x"];
        files.iter().for_each(|path| fs::write(dir.path().join(path), path).unwrap());
        symlink("logs", dir.path().join("link")).unwrap();
        symlink("/", dir.path().join("logs/a/root")).unwrap();
        let expected = [
            ("link", ListedKind::Strange),
            ("logs/.hidden", ListedKind::File),
            ("logs/a.x", ListedKind::File),
            ("logs/a/root", ListedKind::Strange),
            ("logs/a/x", ListedKind::File),
            ("run.json", ListedKind::File),
        ];
        assert_eq!(shown(dir.path()), expected.map(|(path, kind)| (path.to_owned(), kind)));
    }

    #[test]
    fn a_file_with_two_names_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        let mut reader = EvidenceReader::default();
        let one = reader.hash(dir.path(), OsStr::new("a")).unwrap();
        fs::write(dir.path().join("a"), "2").unwrap();
        assert_eq!(reader.hash(dir.path(), OsStr::new("b")).unwrap(), one);
        assert_ne!(EvidenceReader::default().hash(dir.path(), OsStr::new("b")).unwrap(), one);
        let (bytes, sha256) = reader.read(dir.path(), OsStr::new("b")).unwrap();
        assert_eq!((bytes, sha256 == one), (&b"2"[..], false));
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/dev/null", dir.path().join("a")).unwrap();
        EvidenceReader::default().read(dir.path(), OsStr::new("a")).unwrap_err();
        let error = EvidenceReader::default().read(Path::new("/dev"), OsStr::new("null")).unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }
}

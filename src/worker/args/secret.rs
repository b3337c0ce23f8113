//! The secret that requests are signed with: where it comes from, and that nobody sees it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::os::disk::read_config;
use crate::os::host;

/// What a file is called that holds a secret.
pub(super) const FILE: &str = ".worker-secret";

/// What requests are signed with: never empty. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::worker) struct Secret(String);

impl Secret {
    /// Takes a text without the blanks around it; `None` if nothing is left.
    pub(in crate::worker) fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The secret itself: to sign with, and to see to it that it stands nowhere.
    pub(in crate::worker) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why there is a secret that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum SecretError {
    #[error("the secret in {0} is not UTF-8 text; correct it")]
    NotText(String),
    #[error("could not read the secret in `{path}`; let this user read it, or remove it", path = path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A secret, where it is, and the file that it is in, if others may read it there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) secret: Secret,
    /// For people.
    pub(super) place: String,
    pub(super) open_file: Option<OpenFile>,
}

/// A file that others may read or change, and what takes that from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) remedy: String,
}

/// Returns the first secret that is not empty: of the flag, of the variables, of the files.
///
/// # Errors
/// If one that comes before is no text, or is there and cannot be read: it is not as if it were absent.
pub(super) fn find(
    flag: Option<&OsStr>,
    variables: &[(&str, Option<&OsString>)],
    files: &[PathBuf],
) -> Result<Option<Found>, SecretError> {
    let flag = flag.map(|value| ("--worker-secret", value));
    let variables = variables.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?.as_os_str())));
    for (name, value) in flag.into_iter().chain(variables) {
        let text = value.to_str().ok_or_else(|| SecretError::NotText(format!("`{name}`")))?;
        if let Some(secret) = Secret::new(text) {
            return Ok(Some(Found { secret, place: format!("`{name}`"), open_file: None }));
        }
    }
    for path in files {
        if let Some(found) = find_in(path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn find_in(path: &Path) -> Result<Option<Found>, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_path_buf(), source };
    let bytes = match read_config(path) {
        Ok(bytes) => bytes,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let place = format!("`{}`", path.display());
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText(place.clone()))?;
    let Some(secret) = Secret::new(&text) else { return Ok(None) };
    Ok(Some(Found { secret, place, open_file: open_file(path, &fs::metadata(path).map_err(unreadable)?) }))
}

/// A file of somebody else's, as engines lay secrets into containers, reaches us through our group.
fn open_file(path: &Path, metadata: &fs::Metadata) -> Option<OpenFile> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return None;
    }
    let remedy = if host::is_this_user(metadata.uid()) {
        "`chmod 600`".to_owned()
    } else {
        let (group, groups) = host::groups();
        if mode & 0o037 == 0 && (group == metadata.gid() || groups.contains(&metadata.gid())) {
            return None;
        }
        format!("`chgrp {group}` and `chmod 440`")
    };
    Some(OpenFile { path: path.to_path_buf(), mode, remedy })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn text(found: Option<Found>) -> Option<String> {
        found.map(|found| found.secret.text().to_owned())
    }

    fn write(path: &Path, content: &[u8], mode: u32) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_that_is_not_empty_wins() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["first", "second"].map(|name| dir.path().join(name));
        let [flag, runner, worker, blank] = [" flag\n", "runner", "worker", " \t\n"].map(OsString::from);
        let variables = [("R", Some(&runner)), ("W", Some(&worker))];
        assert_eq!(text(find(Some(&flag), &variables, &files).unwrap()).as_deref(), Some("flag"));
        assert_eq!(text(find(Some(&blank), &variables, &files).unwrap()).as_deref(), Some("runner"));
        assert_eq!(text(find(None, &[("R", None), variables[1]], &files).unwrap()).as_deref(), Some("worker"));
        assert!(find(None, &[("R", Some(&blank))], &files).unwrap().is_none());
        write(&files[1], b"\n second file \n", 0o600);
        assert_eq!(text(find(None, &[], &files).unwrap()).as_deref(), Some("second file"));
        write(&files[0], b" \n", 0o600);
        assert_eq!(text(find(None, &[], &files).unwrap()).as_deref(), Some("second file"));
        write(&files[0], b"first file", 0o600);
        assert_eq!(text(find(None, &[("R", None)], &files).unwrap()).as_deref(), Some("first file"));
    }

    #[test]
    fn a_file_that_others_may_read_is_told_and_one_that_is_ours_alone_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for (mode, is_told) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o602, true)] {
            write(&path, b"s", 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let found = find(None, &[], std::slice::from_ref(&path)).unwrap().unwrap();
            let remedy = "`chmod 600`".to_owned();
            let told = is_told.then(|| OpenFile { path: path.clone(), mode, remedy });
            assert_eq!(found.open_file, told, "{mode:o}");
            fs::remove_file(&path).unwrap();
        }
    }

    /// Secrets of Docker and Kubernetes are root's, and the worker's through its group.
    #[test]
    fn a_file_of_somebody_else_is_told_unless_only_our_group_may_read_it() {
        // Nobody else can give a file away.
        if !host::is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let (ours, another) = (host::groups().0, 54321);
        for (group, mode, is_told) in [
            (ours, 0o440, false),
            (ours, 0o460, true),
            (ours, 0o444, true),
            (another, 0o440, true),
            (another, 0o400, false),
        ] {
            write(&path, b"s", mode);
            std::os::unix::fs::chown(&path, Some(12345), Some(group)).unwrap();
            let found = find(None, &[], std::slice::from_ref(&path)).unwrap().unwrap();
            // That would take it from us.
            assert!(found.open_file.iter().all(|file| !file.remedy.contains("600")), "{:?}", found.open_file);
            assert_eq!(found.open_file.is_some(), is_told, "{group} {mode:o}");
        }
    }

    #[test]
    fn a_file_that_is_there_and_cannot_be_read_is_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let looped = dir.path().join("loop");
        symlink("loop", &looped).unwrap();
        for path in [folder, looped] {
            let error = find(None, &[], std::slice::from_ref(&path)).unwrap_err();
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        let locked = dir.path().join("locked");
        write(&locked, b"s", 0o000);
        let found = find(None, &[], std::slice::from_ref(&locked));
        // Root reads everything.
        assert!(nix::unistd::geteuid().is_root() || matches!(found, Err(SecretError::Unreadable { .. })));
        assert!(find(None, &[], &[dir.path().join("absent"), locked.join("below")]).unwrap().is_none());
    }

    #[test]
    fn what_is_no_text_is_an_error_that_does_not_show_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        write(&path, b"ab\xffcd", 0o600);
        let error = find(None, &[], &[path]).unwrap_err().to_string();
        assert!(error.contains(FILE) && !error.contains("ab"), "{error}");
        let value = OsStr::from_bytes(b"ab\xff").to_owned();
        let error = find(None, &[("RUNNER_SHARED_SECRET", Some(&value))], &[]).unwrap_err().to_string();
        assert!(error.contains("`RUNNER_SHARED_SECRET`") && !error.contains("ab"), "{error}");
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("hunter2").unwrap();
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret Some(\n    Secret,\n)");
    }
}

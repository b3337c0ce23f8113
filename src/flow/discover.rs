//! What lies in the suites folder: folders with a `task.yaml`, Chickadee set-ups. Nothing is parsed here but names.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::rules::nearest::nearest;

/// The file that makes a folder a suite.
pub(crate) const TASK: &str = "task.yaml";
/// The file that makes a folder a set-up.
pub(crate) const MANIFEST: &str = "test.properties.json";

/// A folder that holds trials. Folders below it are its own affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Path below the suites folder, `/` between its parts.
    pub(crate) name: String,
    /// The folder.
    pub(crate) dir: PathBuf,
    /// What it is.
    pub(crate) kind: FoundKind,
}

/// What a folder with trials is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundKind {
    /// It has a `task.yaml`. Whether it has a manifest too is asked when it runs: a listing has no time for it.
    Suite,
    /// It has a `test.properties.json`.
    Setup,
    /// It has neither, but these `*.sh`.
    Scripts(Vec<String>),
    /// It has none of these, but a file that was meant to be a `task.yaml`.
    Misspelt(String),
}

/// Why the suites folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoverError {
    #[error("the suites folder `{path}` cannot be read; make it, or name another with SUITES_DIR", path = path.display())]
    Root {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not read the folder `{path}`", path = path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Returns every folder with trials below `suites_dir`, byte-wise by name. Hidden folders, and links to folders, are not
/// looked into.
///
/// # Errors
/// If a folder cannot be read.
pub(crate) fn discover(suites_dir: &Path) -> Result<Vec<Found>, DiscoverError> {
    let mut found = Vec::new();
    let listed = list(suites_dir).map_err(|source| DiscoverError::Root { path: suites_dir.to_path_buf(), source })?;
    for folder in listed.folders {
        look(&suites_dir.join(&folder), folder.to_string_lossy().into_owned(), &mut found)?;
    }
    found.sort_by(|one, other| one.name.as_bytes().cmp(other.name.as_bytes()));
    Ok(found)
}

/// Returns what the folder called `name` holds, and nothing of any other; `None` if it holds no trials.
///
/// # Errors
/// If it is there but cannot be read.
pub(crate) fn discover_one(suites_dir: &Path, name: &str) -> Result<Option<Found>, DiscoverError> {
    let dir = suites_dir.join(name);
    match list(&dir) {
        Ok(listed) => Ok(listed.kind().map(|kind| Found { name: name.to_owned(), dir, kind })),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(DiscoverError::Folder { path: dir, source }),
    }
}

fn look(dir: &Path, name: String, found: &mut Vec<Found>) -> Result<(), DiscoverError> {
    // One look for the common case: it is not worth reading a folder to learn that it has a task.yaml.
    if dir.join(TASK).symlink_metadata().is_ok() {
        found.push(Found { name, dir: dir.to_path_buf(), kind: FoundKind::Suite });
        return Ok(());
    }
    let listed = list(dir).map_err(|source| DiscoverError::Folder { path: dir.to_path_buf(), source })?;
    if let Some(kind) = listed.kind() {
        found.push(Found { name, dir: dir.to_path_buf(), kind });
        return Ok(());
    }
    for folder in listed.folders {
        look(&dir.join(&folder), format!("{name}/{}", folder.to_string_lossy()), found)?;
    }
    Ok(())
}

/// What lies in one folder.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) folders: Vec<OsString>,
    /// In the directory's order.
    pub(super) scripts: Vec<String>,
    misspelt: Option<String>,
    is_suite: bool,
    is_setup: bool,
}

impl Listed {
    fn kind(&self) -> Option<FoundKind> {
        match (self.is_suite, self.is_setup) {
            (true, _) => Some(FoundKind::Suite),
            (false, true) => Some(FoundKind::Setup),
            (false, false) if self.scripts.is_empty() => self.misspelt.clone().map(FoundKind::Misspelt),
            (false, false) => {
                let mut scripts = self.scripts.clone();
                scripts.sort_unstable_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
                Some(FoundKind::Scripts(scripts))
            }
        }
    }
}

/// Tells whether somebody who wrote this name meant `task.yaml`.
fn is_meant_as_task(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"));
    stem.is_some_and(|stem| nearest(stem, ["task"]).is_some())
}

/// # Errors
/// If it cannot be read.
pub(super) fn list(dir: &Path) -> io::Result<Listed> {
    let mut listed = Listed::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_dir = entry.file_type()?.is_dir();
        match name.as_bytes() {
            b"task.yaml" => listed.is_suite = true,
            b"test.properties.json" => listed.is_setup = true,
            _ if is_meant_as_task(&name) => {
                listed.misspelt = Some(name.to_string_lossy().into_owned());
            }
            bytes if bytes.starts_with(b".") => {}
            bytes if !is_dir && bytes.ends_with(b".sh") => listed.scripts.push(name.to_string_lossy().into_owned()),
            _ if is_dir => listed.folders.push(name),
            _ => {}
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn names(dir: &Path) -> Vec<(String, FoundKind)> {
        discover(dir).unwrap().into_iter().map(|found| (found.name, found.kind)).collect()
    }

    #[test]
    fn folders_are_told_apart_and_sorted_by_bytes() {
        let dir = tree(&[
            "runner.yaml",
            "9-b/task.yaml",
            "10-a/task.yaml",
            "10-a/helper.sh",
            "sudo/10-basic/task.yaml",
            "s/test.properties.json",
            "s/x.sh",
            "plain/2.sh",
            "plain/10.sh",
            "lib/applets.txt",
            "oops/Task.yml",
            "slip/tsk.yaml",
            "lib/config.yaml",
            ".git/task.yaml",
            "two/task.yaml",
            "two/test.properties.json",
        ]);
        let expected = [
            ("10-a", FoundKind::Suite),
            ("9-b", FoundKind::Suite),
            ("oops", FoundKind::Misspelt("Task.yml".into())),
            ("plain", FoundKind::Scripts(vec!["10.sh".into(), "2.sh".into()])),
            ("s", FoundKind::Setup),
            ("slip", FoundKind::Misspelt("tsk.yaml".into())),
            ("sudo/10-basic", FoundKind::Suite),
            ("two", FoundKind::Suite),
        ];
        assert_eq!(names(dir.path()), expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn one_folder_is_found_without_a_look_at_others() {
        let dir = tree(&["sudo/10-basic/task.yaml"]);
        let found = discover_one(dir.path(), "sudo/10-basic").unwrap().unwrap();
        assert_eq!(found.kind, FoundKind::Suite);
        assert_eq!(discover_one(dir.path(), "sudo").unwrap(), None);
        assert_eq!(discover_one(dir.path(), "no").unwrap(), None);
    }

    #[test]
    fn a_missing_folder_names_the_way_out() {
        let error = discover(Path::new("/no/such")).unwrap_err().to_string();
        assert!(error.contains("`/no/such`") && error.contains("SUITES_DIR"), "{error}");
    }
}

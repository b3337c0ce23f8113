//! A folder read as a set-up: what its manifest says, else the scripts that lie in it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::flow::discover::{MANIFEST, list};
use crate::model::setup::TestSetup;
use crate::os::disk::read_config;
use crate::rules::nearest::is_within;
use crate::rules::parse::{ENTRIES, ParseError, Strangers, default_setup, parse_setup, strangers};

/// Why a folder is no set-up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("could not read `{path}`; see to it that it is a file or folder that you may read", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is not read, the manifest of a set-up is called {MANIFEST}; rename it, or take it out", path = .0.display())]
    Misnamed(PathBuf),
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("`{file}` lists no script in `{ENTRIES}`{way_out}", file = file.display())]
    NoScript { file: PathBuf, way_out: String },
    #[error("`{setup}` is no set-up: in it are neither a {MANIFEST} nor scripts (*.sh){way_out}", setup = setup.display())]
    NoSetup { setup: PathBuf, way_out: String },
}

/// Reads the set-up `name` in the folder `dir`. Errors tell of it as `shown`, the folder or the archive that somebody named.
///
/// # Errors
/// If the folder or its manifest cannot be read, the manifest is wrong or has another name, or there is no script.
pub(crate) fn read_setup(name: &str, dir: &Path, shown: &Path) -> Result<TestSetup, SetupError> {
    if is_there(&dir.join(MANIFEST)) {
        return read_manifest(name, dir, shown);
    }
    let unreadable = |source| SetupError::Read { path: shown.to_path_buf(), source };
    // Without it, everything would be graded otherwise, and nobody might notice.
    if let Some(name) = misnamed(dir).map_err(unreadable)? {
        return Err(SetupError::Misnamed(shown.join(name)));
    }
    let listed = list(dir).map_err(unreadable)?;
    if listed.scripts.is_empty() {
        let way_out = way_out(dir, &listed.folders);
        return Err(SetupError::NoSetup { setup: shown.to_path_buf(), way_out });
    }
    Ok(default_setup(name, dir, listed.scripts))
}

/// Reads the manifest of the set-up `name` in the folder `dir`. Errors tell of it as a file of `shown`.
///
/// # Errors
/// If it cannot be read, is wrong, or lists no script.
pub(crate) fn read_manifest(name: &str, dir: &Path, shown: &Path) -> Result<TestSetup, SetupError> {
    let path = shown.join(MANIFEST);
    let text = match read_config(&dir.join(MANIFEST)) {
        Ok(text) => text,
        Err(source) => return Err(SetupError::Read { path, source }),
    };
    let setup = parse_setup(name, dir, &path, &text)?;
    if setup.entries.is_empty() {
        let misspelt = strangers(&path, &text).misspelt.into_iter().find(|misspelt| misspelt.meant == ENTRIES);
        let way_out = misspelt.map_or_else(String::new, |misspelt| format!("; {}", misspelt.told.message));
        return Err(SetupError::NoScript { file: path, way_out });
    }
    Ok(setup)
}

/// Returns the keys of the manifest in the folder `dir` that nothing reads; none where there is no manifest. They are told as of `shown`.
pub(crate) fn strange_keys(dir: &Path, shown: &Path) -> Strangers {
    read_config(&dir.join(MANIFEST))
        .map_or_else(|_| Strangers::default(), |text| strangers(&shown.join(MANIFEST), &text))
}

/// Letters of a manifest's name that may be wrong.
const EDITS_MAX: usize = 2;

/// Returns the first file, byte-wise by name, that was most likely meant to be the manifest.
fn misnamed(dir: &Path) -> io::Result<Option<OsString>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let is_meant = text.to_lowercase().starts_with(MANIFEST) || is_within(EDITS_MAX, &text, MANIFEST);
        if is_meant && !entry.file_type()?.is_dir() {
            found.push(name);
        }
    }
    Ok(found.into_iter().min())
}

/// Whoever packs or names a folder too many has the set-up one folder below.
fn way_out(dir: &Path, folders: &[OsString]) -> String {
    let found = folders.iter().find(|folder| is_there(&dir.join(folder).join(MANIFEST)));
    found.map_or_else(String::new, |folder| {
        format!("; its folder `{}` is one: name that, or make the archive of what is in it", folder.to_string_lossy())
    })
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let setup = read_setup("week1", dir.path(), Path::new("week1.zip")).map_err(|error| error.to_string())?;
        assert_eq!((setup.name.as_str(), setup.dir.as_path()), ("week1", dir.path()));
        Ok(setup.entries.into_iter().map(|entry| entry.script).collect())
    }

    #[test]
    fn a_manifest_says_which_scripts_there_are_whatever_lies_beside_it() {
        let manifest = r#"{"schemaVersion": 1, "testSuites": [{"script": "b.sh"}]}"#;
        assert_eq!(read(&[(MANIFEST, manifest), ("a.sh", ""), ("task.yaml", "")]).unwrap(), ["b.sh"]);
    }

    #[test]
    fn without_a_manifest_the_scripts_are_taken_in_byte_order() {
        assert_eq!(
            read(&[("b.sh", ""), ("10.sh", ""), ("9.sh", ""), ("x/c.sh", "")]).unwrap(),
            ["10.sh", "9.sh", "b.sh"]
        );
    }

    #[test]
    fn a_manifest_of_another_name_is_not_passed_over() {
        for name in [
            "Test.properties.json",
            "TEST.PROPERTIES.JSON",
            "test.properties.json.txt",
            "Test.Properties.json~",
            "test_properties.json",
            "tests.properties.json",
            "test.propertise.json",
        ] {
            let error = read(&[(name, "{}"), ("a.sh", "")]).unwrap_err();
            let told =
                format!("`week1.zip/{name}` is not read, the manifest of a set-up is called test.properties.json; ");
            assert!(error.starts_with(&told), "{error}");
            let manifest = r#"{"schemaVersion": 1, "testSuites": [{"script": "b.sh"}]}"#;
            assert_eq!(read(&[(name, "{}"), (MANIFEST, manifest)]).unwrap(), ["b.sh"], "{name}: it is there, too");
        }
        for name in
            ["properties.json", "test.json", "my.properties.json", "test.properties", "test.properties.json.d/x"]
        {
            assert_eq!(read(&[(name, "{}"), ("a.sh", "")]).unwrap(), ["a.sh"], "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_of_what_was_named() {
        let table: [(&[(&str, &str)], &str); 5] = [
            (&[(MANIFEST, "{")], "week1.zip/test.properties.json:1:"),
            (
                &[(MANIFEST, r#"{"schemaVersion": 1}"#), ("a.sh", "")],
                "`week1.zip/test.properties.json` lists no script",
            ),
            (
                &[(MANIFEST, r#"{"schemaVersion": 1, "testsuites": [{"script": "a.sh"}]}"#), ("a.sh", "")],
                "lists no script in `testSuites`; unknown key `testsuites` is ignored, did you mean `testSuites`?",
            ),
            (
                &[("hello.c", "")],
                "`week1.zip` is no set-up: in it are neither a test.properties.json nor scripts (*.sh)",
            ),
            (&[("week1/test.properties.json", "{}")], "its folder `week1` is one"),
        ];
        for (files, part) in table {
            let error = read(files).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}

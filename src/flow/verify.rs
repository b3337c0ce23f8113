//! Checks again what was collected: a proof folder or a bundle.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use crate::flow::collect::read_file;
use crate::flow::proof::EVIDENCE;
use crate::model::verdict::Fault;
use crate::os::bundle::{self, BUNDLE, BundleError, Content, Seal};
use crate::os::disk::{EvidenceReader, ListedKind, list, sha256};
use crate::rules::audit::{self, File, Files, Problem};
use crate::rules::manifest::MANIFEST;

/// What was checked, and what came of it.
#[derive(Debug)]
pub(crate) struct Verified {
    /// Files, the manifest included.
    pub(crate) files: usize,
    /// Trials of the summary.
    pub(crate) trials: usize,
    /// None: it is sound.
    pub(crate) problems: Vec<Problem>,
}

/// Why a proof folder or a bundle could not be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("could not read `{path}`", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Checks a proof folder, with the bundle in it if there is one, or a bundle alone, and returns everything that is wrong:
/// what the manifest, the log, the summary and the results say, and whether they agree.
///
/// # Errors
/// If it cannot be read; of a bundle also if it is cut off, damaged, or holds what none can hold.
pub(crate) fn verify(path: &Path) -> Result<Verified, VerifyError> {
    let (files, problems) = examine(path)?;
    Ok(Verified { files: files.len(), trials: audit::trials(&files), problems })
}

/// As `verify`, with the files that were read.
///
/// # Errors
/// As `verify`.
pub(super) fn examine(path: &Path) -> Result<(Files, Vec<Problem>), VerifyError> {
    if path.metadata().map_err(|source| read_error(path, source))?.is_dir() {
        return verify_folder(path);
    }
    let (files, seal) = read_bundle(path)?;
    let mut problems: Vec<_> = seal_problem(&path.display().to_string(), seal).into_iter().collect();
    problems.extend(audit::problems(&files));
    Ok((files, problems))
}

fn verify_folder(dir: &Path) -> Result<(Files, Vec<Problem>), VerifyError> {
    let (files, mut problems) = read_folder(dir)?;
    problems.extend(audit::problems(&files));
    problems.extend(bundle_problems(dir, &files));
    Ok((files, problems))
}

fn read_folder(dir: &Path) -> Result<(Files, Vec<Problem>), VerifyError> {
    let names: Vec<_> = EVIDENCE.into_iter().chain([MANIFEST]).collect();
    let listed = list(dir, &names).map_err(|(path, source)| read_error(&path, source))?;
    let mut reader = EvidenceReader::default();
    let (mut files, mut problems) = (Files::new(), Vec::new());
    for listed in listed {
        match listed.kind {
            ListedKind::Strange => problems.push(Problem::Strange(listed.path)),
            ListedKind::File => {
                let file = read_file(&mut reader, dir, &listed.path);
                let file = file.map_err(|source| read_error(&dir.join(&listed.path), source))?;
                files.insert(listed.path, file);
            }
        }
    }
    Ok((files, problems))
}

/// A folder that was unpacked from a bundle has none. The one that is there must hold what the folder's manifest says.
fn bundle_problems(dir: &Path, folder: &Files) -> Vec<Problem> {
    let path = dir.join(BUNDLE);
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Vec::new();
    }
    let (files, seal) = match read_bundle(&path) {
        Ok(read) => read,
        Err(error) => return vec![Problem::NoBundle(Fault::new(&error).to_string())],
    };
    let manifest = |files: &Files| files.get(OsStr::new(MANIFEST)).map(|file| file.sha256);
    let mut problems: Vec<_> = seal_problem(BUNDLE, seal).into_iter().collect();
    if manifest(&files) != manifest(folder) {
        problems.push(Problem::OtherManifest { bundle: BUNDLE });
    }
    // Without a manifest, that is what is wrong.
    if manifest(folder).is_some() {
        let differing = audit::manifest_problems(&files, &files).into_iter();
        problems.extend(differing.map(|problem| Problem::In { bundle: BUNDLE, problem: Box::new(problem) }));
    }
    problems
}

fn read_bundle(path: &Path) -> Result<(Files, Seal), BundleError> {
    let mut files = Files::new();
    let seal = bundle::unpack(path, &mut |path, content| {
        let file = match content {
            Content::Bytes(bytes) => file(path, bytes),
            Content::SameAs(first) => match files.get(first).cloned() {
                // What is judged is never packed as a link.
                Some(first) if !audit::is_read(path) => File { content: None, ..first },
                Some(_) | None => return,
            },
        };
        files.insert(OsString::from(path), file);
    })?;
    Ok((files, seal))
}

fn file(path: &OsStr, bytes: &[u8]) -> File {
    File { sha256: sha256(bytes), content: audit::is_read(path).then(|| bytes.to_vec()) }
}

fn seal_problem(bundle: &str, seal: Seal) -> Option<Problem> {
    match seal {
        Seal::Whole => None,
        Seal::Broken => Some(Problem::SealBroken(bundle.to_owned())),
        Seal::Missing => Some(Problem::NoSeal(bundle.to_owned())),
    }
}

fn read_error(path: &Path, source: io::Error) -> VerifyError {
    VerifyError::Read { path: path.to_path_buf(), source }
}

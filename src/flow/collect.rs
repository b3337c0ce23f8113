//! The last stage: a run's evidence with a manifest of it, and all of it in one file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::flow::proof::EVIDENCE;
use crate::os::bundle::{self, BUNDLE, BundleError, ToPack};
use crate::os::disk::{DiskError, EvidenceReader, ListedKind, list, write_atomically};
use crate::rules::audit::{self, File, Files, Problem};
use crate::rules::manifest::{self, MANIFEST};
use crate::rules::summary::SUMMARY;

/// What was collected.
#[derive(Debug)]
pub(crate) struct Collected {
    /// Files of evidence.
    pub(crate) files: usize,
    /// Trials of the summary.
    pub(crate) trials: usize,
    pub(crate) manifest: PathBuf,
    pub(crate) bundle: PathBuf,
}

/// Why a run's evidence cannot be collected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    #[error("nothing has been run here: `{dir}` has no `{SUMMARY}`; run the suites first", dir = .0.display())]
    NothingRun(PathBuf),
    #[error("could not read `{path}`", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the evidence in `{dir}` cannot be collected: {problem}", dir = dir.display())]
    Guardrail { dir: PathBuf, problem: Problem },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Writes `manifest.sha256`, with the hash of every file of a run's evidence, and `proofs.tar.gz`, which holds all of them and
/// the manifest. The same evidence gives the same bytes. `goes_on` is asked before each file is packed.
///
/// # Errors
/// If nothing was run, the summary is of another schema or another run, an artifact that it names is missing, something is no
/// regular file or cannot be read, or a file changes meanwhile.
pub(crate) fn collect(proof_dir: &Path, goes_on: &dyn Fn() -> bool) -> Result<Collected, CollectError> {
    let files = read_evidence(proof_dir)?;
    if let Some(problem) = audit::guardrails(&files).into_iter().next() {
        return Err(guardrail(proof_dir, problem));
    }
    let mut hashes: BTreeMap<_, _> = files.iter().map(|(path, file)| (path.clone(), file.sha256)).collect();
    let collected = Collected {
        files: files.len(),
        trials: audit::trials(&files),
        manifest: proof_dir.join(MANIFEST),
        bundle: proof_dir.join(BUNDLE),
    };
    write_atomically(&collected.manifest, &manifest::text(&hashes))?;
    let mut reader = EvidenceReader::default();
    let path = OsString::from(MANIFEST);
    let (_, sha256) = reader.read(proof_dir, &path).map_err(|source| read_error(&collected.manifest, source))?;
    hashes.insert(path, sha256);
    bundle::pack(&ToPack { dir: proof_dir, files: &hashes, is_whole: audit::is_read, goes_on }, &collected.bundle)?;
    Ok(collected)
}

fn read_evidence(dir: &Path) -> Result<Files, CollectError> {
    let listed = list(dir, &EVIDENCE).map_err(|(path, source)| read_error(&path, source))?;
    if !listed.iter().any(|listed| listed.path == SUMMARY) {
        return Err(CollectError::NothingRun(dir.to_path_buf()));
    }
    let mut reader = EvidenceReader::default();
    let read = listed.into_iter().map(|listed| match listed.kind {
        ListedKind::Strange => Err(guardrail(dir, Problem::Strange(listed.path))),
        ListedKind::File => {
            let file = read_file(&mut reader, dir, &listed.path);
            file.map(|file| (listed.path.clone(), file)).map_err(|source| read_error(&dir.join(listed.path), source))
        }
    });
    read.collect()
}

/// Reads a file as far as it is judged.
pub(super) fn read_file(reader: &mut EvidenceReader, dir: &Path, path: &OsString) -> io::Result<File> {
    if !audit::is_read(path) {
        return Ok(File { sha256: reader.hash(dir, path)?, content: None });
    }
    let (content, sha256) = reader.read(dir, path)?;
    Ok(File { sha256, content: Some(content.to_vec()) })
}

fn guardrail(dir: &Path, problem: Problem) -> CollectError {
    CollectError::Guardrail { dir: dir.to_path_buf(), problem }
}

fn read_error(path: &Path, source: io::Error) -> CollectError {
    CollectError::Read { path: path.to_path_buf(), source }
}

//! The proof folders of several runs, made one: shards of one set of suites, each with trials of its own.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::flow::collect::{CollectError, Collected, collect};
use crate::flow::proof::{self, ASIDE, ProofError, RunFile};
use crate::flow::reports;
use crate::flow::turn;
use crate::flow::verify::{VerifyError, examine, verify};
use crate::model::verdict::Fault;
use crate::os::bundle::{self, BUNDLE, BundleError, Content};
use crate::os::disk::{DiskError, EvidenceReader, Kept, Known, sha256, write_atomically};
use crate::os::workdir::{make_empty, remove};
use crate::rules::audit::{Files, JOURNAL, Problem};
use crate::rules::manifest::{MANIFEST, Sha256, hex};
use crate::rules::merge::{self, Refusal, Shard};
use crate::rules::summary::{Counts, SCHEMA, SUMMARY};

/// What came of a merge.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) run_id: String,
    pub(crate) counts: Counts,
    pub(crate) trials: usize,
    /// Trials that a shard knew, and that none has selected.
    pub(crate) not_selected: usize,
    /// What keeps the merged run from having passed, a line each.
    pub(crate) failures: Vec<String>,
    pub(crate) collected: Collected,
}

/// Why runs are not merged. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error("`{path}` cannot be merged; name the proof folder, or the proofs.tar.gz, of a run", path = path.display())]
    NoShard {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{one}` and `{other}` are the same; name each shard once", one = one.display(), other = other.display())]
    Same { one: PathBuf, other: PathBuf },
    #[error(
        "the merged run cannot go into `{target}`: that is the shard `{shard}`, or one lies in the other; choose another folder with \
         --proof",
        target = target.display(), shard = shard.display()
    )]
    Inside { target: PathBuf, shard: PathBuf },
    #[error("the run in `{path}` still goes on; merge when it has ended", path = .0.display())]
    Busy(PathBuf),
    #[error("nothing has been run in `{path}`: it has no `{SUMMARY}`; name the proof folder of a run", path = .0.display())]
    NothingRun(PathBuf),
    #[error(
        "`{path}` is not sound: {problem}; `container-runner verify` tells all of it ({number} in all); fetch or run this shard again",
        path = path.display()
    )]
    Unsound { path: PathBuf, problem: Box<Problem>, number: usize },
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Ours(Box<WriteError>),
}

/// Why a merged run could not be written. What was in its place still is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error("could not read `{path}`", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` changed while it was merged; merge when nothing writes to it", path = .0.display())]
    Changed(PathBuf),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("could not make the folder `{path}`", path = path.display())]
    Aside {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Report(Fault),
    #[error("could not render the summary of the merged run")]
    Render(#[from] serde_json::Error),
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("the merged run would not be sound, which is a bug of this program: {0}")]
    Broken(Problem),
}

impl From<WriteError> for MergeError {
    fn from(error: WriteError) -> Self {
        Self::Ours(Box::new(error))
    }
}

impl MergeError {
    /// Tells whether what is to be merged is at fault, not our doing.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Ours(_) => false,
            Self::NoShard { .. }
            | Self::Same { .. }
            | Self::Inside { .. }
            | Self::Busy(_)
            | Self::NothingRun(_)
            | Self::Unsound { .. }
            | Self::Verify(_)
            | Self::Refused(_) => true,
        }
    }
}

/// A proof folder or a bundle, kept from change if it is a folder.
struct Source {
    path: PathBuf,
    name: String,
    files: Files,
    _lock: Option<File>,
}

/// Merges the runs in `shards`, proof folders or bundles, into the proof folder `target`, and collects them there. What was there
/// is replaced, as soon as all of the merged run is there and sound. `say` tells the user what takes time.
///
/// # Errors
/// If a shard is none, still runs or is unsound, if two of them do not go together, or if the result cannot be written.
pub(crate) fn merge(shards: &[PathBuf], target: &Path, say: &dyn Fn(&str)) -> Result<Merged, MergeError> {
    refuse_places(shards, target)?;
    let sources = shards.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let named: Vec<_> = sources.iter().map(|source| Shard { name: &source.name, files: &source.files }).collect();
    let merged = merge::merge(&named)?;
    let _lock = turn::take_folder(target, None, say).map_err(WriteError::from)?;
    Ok(replace(target, &sources, merged)?)
}

fn refuse_places(shards: &[PathBuf], target: &Path) -> Result<(), MergeError> {
    let target = resolved(target);
    let mut seen: BTreeMap<PathBuf, &PathBuf> = BTreeMap::new();
    for shard in shards {
        let real = shard.canonicalize().map_err(|source| MergeError::NoShard { path: shard.clone(), source })?;
        if real.starts_with(&target) || target.starts_with(&real) {
            return Err(MergeError::Inside { target, shard: shard.clone() });
        }
        if let Some(one) = seen.insert(real, shard) {
            return Err(MergeError::Same { one: one.clone(), other: shard.clone() });
        }
    }
    Ok(())
}

/// Returns where a path leads that need not be there yet.
fn resolved(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = there else { return path.to_path_buf() };
    let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
    rest.components().fold(real, |mut real, part| {
        match part {
            Component::ParentDir => drop(real.pop()),
            Component::Normal(name) => real.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
        real
    })
}

fn read(path: &Path) -> Result<Source, MergeError> {
    let lock = if path.is_dir() { hold(path)? } else { None };
    let (files, mut problems) = examine(path)?;
    if !files.contains_key(OsStr::new(SUMMARY)) {
        return Err(MergeError::NothingRun(path.to_path_buf()));
    }
    // It need not have been collected; if it was, that is checked.
    problems.retain(|problem| *problem != Problem::NotCollected);
    let number = problems.len();
    if let Some(problem) = problems.into_iter().next() {
        return Err(MergeError::Unsound { path: path.to_path_buf(), problem: Box::new(problem), number });
    }
    Ok(Source { path: path.to_path_buf(), name: path.display().to_string(), files, _lock: lock })
}

fn hold(dir: &Path) -> Result<Option<File>, MergeError> {
    let path = || dir.to_path_buf();
    let held = proof::hold(dir).map_err(|source| {
        if source.kind() == io::ErrorKind::WouldBlock {
            MergeError::Busy(path())
        } else {
            MergeError::NoShard { path: path(), source }
        }
    })?;
    // Between two processes of nextest nobody has the lock.
    if RunFile::read(dir).is_some_and(|run| turn::goes_on(&run)) { Err(MergeError::Busy(path())) } else { Ok(held) }
}

fn replace(target: &Path, sources: &[Source], merged: merge::Merged) -> Result<Merged, WriteError> {
    proof::refuse_others(target)?;
    let aside = target.join(ASIDE);
    make_empty(&aside).map_err(|source| WriteError::Aside { path: aside.clone(), source })?;
    let run_id = run_id(&merged);
    let written = write(&aside, sources, &merged, &run_id);
    if written.is_err() {
        // Why it could not be written is worth more than that something of it is left; a later run removes it.
        remove(&aside).ok();
    }
    let Collected { files, trials, .. } = written?;
    // Should this end half-way, the rest is still aside.
    proof::replace_by_aside(target)?;
    let (manifest, bundle) = (target.join(MANIFEST), target.join(BUNDLE));
    Ok(Merged {
        run_id,
        counts: merged.counts(),
        trials,
        not_selected: merged.selected().1,
        failures: merged.failures,
        collected: Collected { files, trials, manifest, bundle },
    })
}

/// The same runs with the same results have the same identity.
fn run_id(merged: &merge::Merged) -> String {
    const DIGITS: usize = 16;
    let digits = hex(&sha256(&merged.essence()));
    format!("merged-{}", digits.get(..DIGITS).unwrap_or_default())
}

fn write(dir: &Path, sources: &[Source], merged: &merge::Merged, run_id: &str) -> Result<Collected, WriteError> {
    for (at, source) in sources.iter().enumerate() {
        let of_it = merged.files.iter().filter(|(_, from)| from.shard == at);
        Copying {
            source,
            dir,
            wanted: of_it.map(|(to, from)| (&*from.path, &**to)).collect(),
            snapshots: HashMap::new(),
        }
        .run()?;
    }
    write_atomically(&dir.join(JOURNAL), &merged.journal)?;
    write_atomically(&dir.join(SUMMARY), &merged.summary(run_id)?)?;
    run_file(merged, run_id).write(dir)?;
    reports::write_junit(dir).map_err(WriteError::Report)?;
    let collected = collect(dir, &|| true)?;
    match verify(dir)?.problems.into_iter().next() {
        Some(problem) => Err(WriteError::Broken(problem)),
        None => Ok(collected),
    }
}

/// Nothing joins a merged run, and nothing of it is to be cleaned up.
fn run_file(merged: &merge::Merged, run_id: &str) -> RunFile {
    RunFile {
        schema: SCHEMA,
        run_id: run_id.to_owned(),
        started_at: merged.started_at().to_owned(),
        pid: None,
        owner: None,
        scratch: PathBuf::new(),
        dirtied_by: None,
        build: None,
        summary: Known::default(),
        in_stages: false,
        has_run_suites: true,
        has_sandbox: false,
        has_packages: false,
        deps_failure: None,
        revision: merged.revision().map(str::to_owned),
    }
}

/// What is copied of one shard.
struct Copying<'a> {
    source: &'a Source,
    /// The folder of the merged run.
    dir: &'a Path,
    /// Paths below the shard's folder, and below `dir`.
    wanted: BTreeMap<&'a OsStr, &'a OsStr>,
    /// Those that are the same are one file, as in a run.
    snapshots: HashMap<Sha256, Kept>,
}

impl Copying<'_> {
    fn run(mut self) -> Result<(), WriteError> {
        let wanted = std::mem::take(&mut self.wanted);
        let (judged, others): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(path, _)| self.judged(path).is_some());
        for (path, to) in judged {
            write_atomically(&self.dir.join(to), self.judged(path).unwrap_or_default())?;
        }
        self.wanted = others.into_iter().collect();
        if self.source.path.is_dir() { self.copy_folder() } else { self.copy_bundle() }
    }

    /// What was judged is in memory.
    fn judged(&self, path: &OsStr) -> Option<&[u8]> {
        self.source.files.get(path)?.content.as_deref()
    }

    fn copy_folder(mut self) -> Result<(), WriteError> {
        let mut reader = EvidenceReader::default();
        for (path, to) in std::mem::take(&mut self.wanted) {
            let from = self.source.path.join(path);
            let read = reader.read(&self.source.path, path);
            let (bytes, sha256) = read.map_err(|source| WriteError::Read { path: from, source })?;
            self.put(path, to, (bytes, sha256))?;
        }
        Ok(())
    }

    fn copy_bundle(mut self) -> Result<(), WriteError> {
        let mut wanted = std::mem::take(&mut self.wanted);
        let all = wanted.clone();
        let mut reader = EvidenceReader::default();
        let mut copied = Ok(());
        bundle::unpack(&self.source.path, &mut |path, content| {
            let Some(to) = wanted.remove(path).filter(|_| copied.is_ok()) else { return };
            copied = match content {
                Content::Bytes(bytes) => self.put(path, to, (bytes, sha256(bytes))),
                Content::SameAs(first) => self.put_again(&mut reader, (path, to), (first, all.get(first).copied())),
            };
        })?;
        copied?;
        if wanted.is_empty() { Ok(()) } else { Err(WriteError::Changed(self.source.path.clone())) }
    }

    /// The first of that content was written before.
    fn put_again(
        &mut self,
        reader: &mut EvidenceReader,
        (path, to): (&OsStr, &OsStr),
        (first, written): (&OsStr, Option<&OsStr>),
    ) -> Result<(), WriteError> {
        if let Some(bytes) = self.source.files.get(first).and_then(|file| file.content.as_deref()) {
            return self.put(path, to, (bytes, sha256(bytes)));
        }
        let written = written.ok_or_else(|| WriteError::Changed(self.source.path.clone()))?;
        let read = reader.read(self.dir, written);
        let (bytes, sha256) = read.map_err(|source| WriteError::Read { path: self.dir.join(written), source })?;
        self.put(path, to, (bytes, sha256))
    }

    fn put(&mut self, path: &OsStr, to: &OsStr, (bytes, sha256): (&[u8], Sha256)) -> Result<(), WriteError> {
        if self.source.files.get(path).is_none_or(|file| file.sha256 != sha256) {
            return Err(WriteError::Changed(self.source.path.join(path)));
        }
        let file = self.dir.join(to);
        if !Path::new(to).starts_with("snapshots") {
            return Ok(write_atomically(&file, bytes)?);
        }
        if !self.snapshots.get(&sha256).is_some_and(|kept| kept.link(&file)) {
            self.snapshots.insert(sha256, Kept::write(&file, bytes)?);
        }
        Ok(())
    }
}

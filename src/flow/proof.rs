//! The proof folder: result files as they come, and a summary that is whole after every trial.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::flow::ahead::{Ahead, Place};
use crate::flow::stages::{CommandFailure, Stage};
use crate::os::bundle::BUNDLE;
use crate::os::disk::{DiskError, Known, Prepared, Replaced, write_atomically};
use crate::rules::junit::JUNIT;
use crate::rules::manifest::MANIFEST;
use crate::rules::summary::{
    Counts, Earlier, Entry, Head, RUN, Record, SCHEMA, SUMMARY, StageRecord, Standing, Status, SummaryText, Tail,
    Traces, TrialKind, TrialList,
};

/// What is fixed for a run and stands in every summary of it.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) run_id: String,
    pub(crate) distro: String,
    pub(crate) container_id: Option<String>,
    pub(crate) started_at: String,
    pub(crate) isolation: String,
    pub(crate) sandbox: bool,
    pub(crate) selected: usize,
    pub(crate) not_selected: usize,
    pub(crate) product: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) traces: Option<Traces>,
    /// Of a merged run.
    pub(crate) shards: Option<Box<RawValue>>,
}

/// `run.json`: the identity of a run, and what to clean up should it be killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunFile {
    pub(crate) schema: u32,
    pub(crate) run_id: String,
    pub(crate) started_at: String,
    /// Null once the run has ended in order.
    pub(crate) pid: Option<u32>,
    /// The test runner whose run it is, if that starts a process for each trial: its pid, and when it started.
    #[serde(default)]
    pub(crate) owner: Option<(i32, u64)>,
    /// Scratch folder; every process of the run has it in its environment.
    pub(crate) scratch: PathBuf,
    /// The suite whose restore failed, if those after it are not to run.
    pub(crate) dirtied_by: Option<String>,
    /// What the build stage came to, once it has run.
    pub(crate) build: Option<BuildOutcome>,
    /// How the last process has left the summary, and what is beside it.
    #[serde(default)]
    pub(crate) summary: Known,
    /// Whether its stages may run in processes of their own, which join it.
    #[serde(default)]
    pub(crate) in_stages: bool,
    /// Whether its trials have begun.
    #[serde(default)]
    pub(crate) has_run_suites: bool,
    /// Whether the sandbox has been tried, and holds.
    #[serde(default)]
    pub(crate) has_sandbox: bool,
    /// Whether the required packages are known to be there.
    #[serde(default)]
    pub(crate) has_packages: bool,
    /// Of the repository that holds the suites, when the run began.
    #[serde(default)]
    pub(crate) revision: Option<String>,
    /// Why the required packages could not be had, if so.
    #[serde(default)]
    pub(crate) deps_failure: Option<DepsFailure>,
}

/// Why the stage of the packages has failed: the processes of one run share it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DepsFailure {
    /// A command of it failed.
    Command(CommandFailure),
    /// Anything else.
    Fault(String),
}

/// What the build stage came to: the processes of one run share it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BuildOutcome {
    /// The product's binary.
    Built(PathBuf),
    /// A command of it failed.
    Failed(CommandFailure),
}

/// The part of a summary that the next process of the same run, or the next run, needs.
#[derive(Debug, Deserialize)]
pub(crate) struct EarlierSummary {
    pub(crate) run_id: String,
    distro: String,
    container_id: Option<String>,
    isolation: String,
    #[serde(default)]
    sandbox: bool,
    product: Option<String>,
    selected: usize,
    not_selected: usize,
    interrupted: bool,
    #[serde(default)]
    pub(crate) traces: Option<Traces>,
    #[serde(default)]
    shards: Option<Box<RawValue>>,
    stages: Vec<StageRecord>,
    #[serde(skip)]
    trials: TrialList,
}

/// A trial that has been tried, and what came of it the times before.
#[derive(Deserialize)]
struct Tried {
    #[serde(default)]
    earlier: Vec<Earlier>,
    #[serde(flatten)]
    last: Earlier,
}

/// Why evidence could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProofError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the nextest that started this process has ended; its run is over, so this test is not run")]
    Abandoned,
    #[error(
        "`{path}` has `{name}` and no `{RUN}`, so it is no proof folder, and what is in it would be removed; name another with \
         PROOF_DIR, or remove `{name}`",
        path = path.display()
    )]
    Others { path: PathBuf, name: &'static str },
    #[error("could not render `{path}`", path = path.display())]
    Render {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the lock `{path}`, which keeps two runs from changing one machine, cannot be used", path = path.display())]
    Machine {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the proof folder `{path}` cannot be used; make it a folder you can write, or set PROOF_DIR", path = path.display())]
    Root {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The proof folder of one run.
pub(crate) struct Proof {
    dir: PathBuf,
    header: Header,
    summary: Replaced,
    ahead: OnceLock<Ahead>,
    state: Mutex<State>,
}

struct State {
    text: SummaryText,
    stages: Vec<StageRecord>,
    interrupted: bool,
    finished_at: Option<String>,
}

impl Proof {
    /// Opens the folder for a run. `earlier` are the trials that another process of the same run has recorded.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn new(
        dir: PathBuf,
        header: Header,
        earlier: Option<EarlierSummary>,
        known: Known,
    ) -> Result<Self, ProofError> {
        let path = dir.join(SUMMARY);
        // A process of this run that was killed has left something undone, whatever it was.
        let is_of_this_run = |traces: &Traces| traces.run_id == header.run_id;
        let interrupted = earlier.as_ref().is_some_and(|earlier| earlier.interrupted)
            || header.traces.as_ref().is_some_and(is_of_this_run);
        let (stages, trials) = earlier.map(|earlier| (earlier.stages, earlier.trials)).unwrap_or_default();
        // One that is still `running` was killed with its process.
        let text = SummaryText::new(&header.head(), trials).map_err(|source| render_error(&path, source))?;
        let state = State { text, stages, interrupted, finished_at: None };
        let summary = Replaced::new(path, dir.join(SUMMARY_SPARE), known);
        Ok(Self { dir, header, summary, ahead: OnceLock::new(), state: Mutex::new(state) })
    }

    /// The identity of the run.
    pub(crate) fn run_id(&self) -> &str {
        &self.header.run_id
    }

    /// Returns how a trial has ended before, if it has been tried.
    pub(crate) fn earlier(&self, name: &str) -> Vec<Earlier> {
        let state = self.state();
        let last = state.text.record(name).and_then(|record| serde_json::from_slice::<Tried>(record).ok());
        last.map_or_else(Vec::new, |Tried { mut earlier, last }| {
            earlier.push(last);
            earlier
        })
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Marks a trial as running, unless the one before it has said so.
    ///
    /// # Errors
    /// If the summary cannot be written.
    pub(crate) fn begin(&self, record: &Record) -> Result<(), ProofError> {
        let text = self.render(record)?;
        let mut state = self.state();
        if state.text.status(&record.name) == Some(Status::Running) {
            return Ok(());
        }
        state.text.insert(&record.name, &Entry { status: record.status, text });
        self.write_summary(&mut state)
    }

    /// Has the files and folders of trials made while those before them run. `trials` are their records, in the order in which
    /// they will be kept; suites `look` if they take snapshots.
    pub(crate) fn make_ahead(&self, trials: impl Iterator<Item = Record>, look: bool) {
        let places = trials.map(|trial| Place {
            file: self.result_path(&trial.name),
            folder: (look && trial.kind == TrialKind::Suite).then(|| self.dir.join("snapshots").join(&trial.name)),
        });
        self.ahead.get_or_init(|| Ahead::start(self.dir.clone(), places));
    }

    /// Makes what `make_ahead` was asked for, if nobody does it. To be called where there is time for it.
    pub(crate) fn help_to_make(&self) {
        self.ahead.get().into_iter().for_each(Ahead::help);
    }

    fn result_path(&self, name: &str) -> PathBuf {
        self.dir.join(RESULTS).join(name).join("result.json")
    }

    /// Keeps a judged trial: its result file, then the summary. `next` is the trial that runs after it, if trials run one at a
    /// time: marking it now saves it a summary of its own.
    ///
    /// # Errors
    /// If one of them cannot be written.
    pub(crate) fn keep(&self, record: &Record, next: Option<&Record>) -> Result<(), ProofError> {
        let text = self.render(record)?;
        let path = self.result_path(&record.name);
        let made = self.ahead.get().and_then(|ahead| ahead.take(&path));
        let file = made.map_or_else(|| Prepared::new(&path), Ok);
        let written = file.and_then(|file| file.write(text.get().as_bytes()));
        let next = next.map(|next| self.render(next).map(|text| (next, text))).transpose()?;
        let mut state = self.state();
        state.text.insert(&record.name, &Entry { status: record.status, text });
        if let Some((next, text)) = next {
            state.text.insert(&next.name, &Entry { status: next.status, text });
        }
        self.write_summary(&mut state)?;
        Ok(written?)
    }

    /// Puts a record into the summary again, because its result file could not be written.
    ///
    /// # Errors
    /// If the summary cannot be written.
    pub(crate) fn correct(&self, record: &Record) -> Result<(), ProofError> {
        let text = self.render(record)?;
        let mut state = self.state();
        state.text.insert(&record.name, &Entry { status: record.status, text });
        self.write_summary(&mut state)
    }

    /// Adds a stage.
    ///
    /// # Errors
    /// If the summary cannot be written.
    pub(crate) fn keep_stage(&self, stage: StageRecord) -> Result<(), ProofError> {
        self.note_stage(stage);
        self.write_summary(&mut self.state())
    }

    /// Adds a stage to what is written next.
    pub(crate) fn note_stage(&self, stage: StageRecord) {
        let mut state = self.state();
        // Under nextest each process has its share of the same stage.
        match state.stages.iter_mut().find(|other| other.name == stage.name) {
            Some(other) => *other = stage,
            None => state.stages.push(stage),
        }
    }

    /// Returns the stage before the trials that has failed, if one has.
    pub(crate) fn failed_stage(&self) -> Option<StageRecord> {
        let state = self.state();
        let before = [Stage::Preflight, Stage::Deps, Stage::Build].map(Stage::as_str);
        let failed = |stage: &&StageRecord| stage.status == Status::Fail && before.contains(&stage.name.as_str());
        state.stages.iter().find(failed).cloned()
    }

    /// Returns how many trials were selected and are not judged.
    pub(crate) fn unjudged(&self) -> usize {
        let counts = self.counts();
        self.header.selected.saturating_sub(counts.pass + counts.fail)
    }

    /// Returns how many trials ended how, so far.
    pub(crate) fn counts(&self) -> Counts {
        self.state().text.counts()
    }

    /// Writes the last summary of this process.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn finish(&self, finished_at: String, interrupted: bool) -> Result<(), ProofError> {
        let mut state = self.state();
        state.finished_at = Some(finished_at);
        state.interrupted |= interrupted;
        state.text.interrupt();
        self.write_summary(&mut state)
    }

    /// Removes what is kept beside the summary.
    pub(crate) fn tidy(&self) {
        self.summary.finish();
    }

    /// Returns what the next process of the run needs to know of the summary, and of what is kept beside it.
    pub(crate) fn leave(&self) -> Known {
        self.summary.leave()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Entries are inserted whole, so a panic elsewhere leaves a summary that is true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn render(&self, record: &Record) -> Result<Box<RawValue>, ProofError> {
        serde_json::value::to_raw_value(record).map_err(|source| render_error(&self.result_path(&record.name), source))
    }

    fn write_summary(&self, state: &mut State) -> Result<(), ProofError> {
        let State { text, stages, interrupted, finished_at, .. } = state;
        let counts = text.counts();
        // Under nextest each process knows of its own trial only.
        let selected = self.header.selected.max(text.len());
        let standing = Standing { counts, selected, interrupted: *interrupted, is_finished: finished_at.is_some() };
        let tail = Tail {
            selected,
            not_selected: self.header.not_selected,
            counts,
            stages,
            interrupted: *interrupted,
            finished_at: finished_at.as_deref(),
            harness_policy: standing.policy(),
            shards: self.header.shards.as_deref(),
        };
        let rendered = text.render(&tail).map_err(|source| render_error(&self.dir.join(SUMMARY), source));
        let (parts, unchanged) = rendered?;
        Ok(self.summary.write(&parts, unchanged)?)
    }
}

impl Header {
    fn head(&self) -> Head<'_> {
        Head {
            schema: SCHEMA,
            run_id: &self.run_id,
            distro: &self.distro,
            container_id: self.container_id.as_deref(),
            started_at: &self.started_at,
            isolation: &self.isolation,
            sandbox: self.sandbox,
            product: self.product.as_deref(),
            runner_version: env!("CARGO_PKG_VERSION"),
            revision: self.revision.as_deref(),
            traces: self.traces.as_ref(),
        }
    }
}

fn render_error(path: &Path, source: serde_json::Error) -> ProofError {
    ProofError::Render { path: path.to_path_buf(), source }
}

impl EarlierSummary {
    /// Reads the summary in `dir`, if there is one of this schema.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let (trials, rest) = TrialList::take(fs::read(dir.join(SUMMARY)).ok()?).ok()?;
        let summary = serde_json::from_slice::<Self>(&rest).ok()?;
        Some(Self { trials, ..summary })
    }

    /// Returns the header with all that this summary says.
    pub(crate) fn header(&self, header: Header) -> Header {
        Header {
            distro: self.distro.clone(),
            container_id: self.container_id.clone(),
            isolation: self.isolation.clone(),
            sandbox: self.sandbox,
            product: self.product.clone(),
            selected: self.selected,
            not_selected: self.not_selected,
            shards: self.shards.clone(),
            ..header
        }
    }

    /// Returns the names of trials that were running.
    pub(crate) fn running(&self) -> Vec<String> {
        self.trials.names(Status::Running)
    }
}

impl RunFile {
    /// Reads `run.json` in `dir`, if there is one of this schema.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let run: Self = serde_json::from_slice(&fs::read(dir.join(RUN)).ok()?).ok()?;
        (run.schema == SCHEMA).then_some(run)
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), ProofError> {
        Ok(write_atomically(&dir.join(RUN), &self.render()?)?)
    }

    /// Writes `run.json` again; `file` is what `file` returned for its folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn rewrite(&self, file: &Replaced) -> Result<(), ProofError> {
        Ok(file.write(&[&self.render()?], 0)?)
    }

    /// Returns `run.json` of the proof folder `dir` as a file that is written again and again: to make one each time costs a process of
    /// nextest more than all that it says.
    pub(crate) fn file(dir: &Path) -> Replaced {
        Replaced::new(dir.join(RUN), dir.join(RUN_SPARE), Known::default())
    }

    fn render(&self) -> Result<Vec<u8>, ProofError> {
        serde_json::to_vec(self).map_err(|source| render_error(Path::new(RUN), source))
    }
}

/// Holds the summary before the last while a run goes on.
const SUMMARY_SPARE: &str = ".summary.json.spare";

/// Holds `run.json` before the last.
const RUN_SPARE: &str = ".run.json.spare";

/// The folder of result files.
const RESULTS: &str = "results";

/// Names, in the proof folder, of what a run leaves as its evidence: files, and folders with all that is in them.
pub(crate) const EVIDENCE: [&str; 7] = [RUN, SUMMARY, JUNIT, "logs", "snapshots", RESULTS, "stages"];

/// The folder in which a merged run is made before it takes the place of what was there.
pub(super) const ASIDE: &str = ".merge";

/// Names of what a run makes in the proof folder besides its evidence; anything else in it is not ours and stays.
const BESIDES: [&str; 5] = [SUMMARY_SPARE, RUN_SPARE, BUNDLE, MANIFEST, ASIDE];

/// The file by which a process has a proof folder.
const LOCK: &str = ".lock";

/// Makes the proof folder, and takes it for this process as long as the file that is returned lives. `waiting` is called once
/// if another process has it.
///
/// # Errors
/// If it cannot be made or written.
pub(crate) fn lock(dir: &Path, waiting: impl FnOnce()) -> Result<File, ProofError> {
    let root = |source| ProofError::Root { path: dir.to_path_buf(), source };
    fs::create_dir_all(dir).map_err(root)?;
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK)).map_err(root)?;
    locked(file, waiting).map_err(root)
}

/// Keeps every run out of a proof folder, without a change to it, as long as the file that is returned lives. One that never was
/// locked, because it was unpacked or copied without hidden files, has nothing to hold.
///
/// # Errors
/// `WouldBlock` if a run has it; else if it cannot be told.
pub(super) fn hold(dir: &Path) -> io::Result<Option<File>> {
    let path = dir.join(LOCK);
    // Nothing else is a lock of ours, and to open a pipe would wait.
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    let file = File::open(path)?;
    file.try_lock_shared()?;
    Ok(Some(file))
}

fn locked(file: File, waiting: impl FnOnce()) -> io::Result<File> {
    if file.try_lock().is_err() {
        waiting();
        file.lock()?;
    }
    Ok(file)
}

/// One for every run on this machine whose suites change it, of whatever user and project.
const MACHINE_LOCK: &str = "/tmp/proving-ground.lock";

/// Takes the machine for this process as long as the file that is returned lives. `waiting` is called once if another has it.
///
/// # Errors
/// If the lock's file can be neither opened nor made.
pub(crate) fn lock_machine(waiting: impl FnOnce()) -> Result<File, ProofError> {
    let path = Path::new(MACHINE_LOCK);
    let root = |source| ProofError::Machine { path: path.to_path_buf(), source };
    // To read is enough, and all that another user's file allows.
    let file = File::open(path).or_else(|_| make_lock(path)).or_else(|_| File::open(path)).map_err(root)?;
    locked(file, waiting).map_err(root)
}

/// Every user must be able to open it, whatever our umask.
fn make_lock(path: &Path) -> io::Result<File> {
    let file = File::create_new(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o666))?;
    Ok(file)
}

/// Puts what was made in `ASIDE` in the place of the evidence that is there. The folder's lock must be ours.
///
/// # Errors
/// If something cannot be removed or renamed.
pub(super) fn replace_by_aside(dir: &Path) -> Result<(), ProofError> {
    let aside = dir.join(ASIDE);
    for name in EVIDENCE.into_iter().chain(BESIDES).filter(|name| *name != ASIDE) {
        let path = dir.join(name);
        let placed = crate::os::workdir::remove(&path).and_then(|()| match fs::rename(aside.join(name), &path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        });
        placed.map_err(|source| ProofError::Root { path, source })?;
    }
    crate::os::workdir::remove(&aside).map_err(|source| ProofError::Root { path: aside, source })
}

/// A folder called `logs` or `results` may be somebody's own.
///
/// # Errors
/// If the folder `dir` has something of the name of evidence, and is of no run.
pub(super) fn refuse_others(dir: &Path) -> Result<(), ProofError> {
    let is_there = |name: &str| dir.join(name).symlink_metadata().is_ok();
    match EVIDENCE.into_iter().find(|name| is_there(name)) {
        Some(name) if !is_there(RUN) => Err(ProofError::Others { path: dir.to_path_buf(), name }),
        Some(_) | None => Ok(()),
    }
}

/// Removes the evidence of an older run.
///
/// # Errors
/// If something of it cannot be removed, or if what would be removed is not of a run: each of ours begins with `run.json`.
pub(crate) fn clear(dir: &Path) -> Result<(), ProofError> {
    refuse_others(dir)?;
    for name in EVIDENCE.into_iter().chain(BESIDES) {
        let path = dir.join(name);
        crate::os::workdir::remove(&path).map_err(|source| ProofError::Root { path, source })?;
    }
    Ok(())
}

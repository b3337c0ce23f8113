//! One job: a set-up and a submission -> what Chickadee is told. A worker's job, and an instructor's on a machine of their own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::flow::scratch::{CopiesIn, Scratch};
use crate::flow::session::{DRAIN, GRACE, KEPT_BYTES_MAX};
use crate::flow::workplace::{LANG, MAKE, Made, NotRun, Terms, Workplace, no_make};
use crate::model::script::{Completion, Echo, EndedBy, Limits, Script};
use crate::model::setup::{MakeStep, ScriptEntry, TestSetup};
use crate::model::verdict::Fault;
use crate::os::engine::{Cancel, ScriptRunner};
use crate::os::host::find_in_path;
use crate::os::journal::seconds_text;
use crate::os::workdir::{Tree, WorkdirError, is_noexec, remove};
use crate::rules::chickadee::{self, TestOutcome, TestStatus};
use crate::rules::collection::{BuildStatus, Collection, Ids, Measured, Outcome, Times, memory_usage_bytes};
use crate::rules::parse::{ENTRIES, run_order};
use crate::rules::report::escaped;

/// What make looks for, the first one first (GNU make's manual, "What Name to Give Your Makefile").
pub(crate) const MAKEFILES: [&str; 3] = ["GNUmakefile", "makefile", "Makefile"];
/// Extensions of files that make's built-in rules compile or link (its manual, "Catalogue of Built-In Rules"), and Java's.
const SOURCES: [&str; 20] =
    ["c", "cc", "cpp", "C", "cxx", "p", "f", "F", "r", "m", "def", "mod", "s", "S", "o", "y", "l", "f90", "java", "sh"];
/// What they are compiled to, beside programs without an extension.
const OBJECTS: [&str; 2] = ["o", "class"];
/// Files of a submission that were left out and are named.
const NAMED_MAX: usize = 20;

/// What is graded.
pub(crate) struct Assignment<'a> {
    /// Its folder is read only.
    pub(crate) setup: &'a TestSetup,
    pub(crate) submission: Submission<'a>,
    pub(crate) ids: Ids,
    /// For scripts that make a variant of the assignment for each student.
    pub(crate) seed: Option<String>,
}

/// What somebody has handed in. It is laid beside the set-up, never over it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Submission<'a> {
    /// The set-up has all that its scripts look at.
    Nothing,
    Folder(&'a Path),
    File(&'a Path),
}

/// What it is graded with.
pub(crate) struct Means<'a> {
    pub(crate) runner: &'a dyn ScriptRunner,
    pub(crate) cancel: &'a Cancel,
    pub(crate) scratch: &'a Scratch,
    pub(crate) copies_in: CopiesIn,
    pub(crate) search_path: &'a OsStr,
    /// Whether what scripts say is shown while it comes.
    pub(crate) echo: Echo,
    /// Is told what begins.
    pub(crate) told: &'a dyn Fn(Step<'_>),
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Make,
    /// The script `number` of `all`, from 1, in the order in which they run.
    Script {
        number: usize,
        all: usize,
        name: &'a str,
    },
}

/// When a job began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started(Timestamp);

impl Started {
    /// It begins.
    pub(crate) fn now() -> Self {
        Self(Timestamp::now())
    }
}

/// What came of it.
pub(crate) struct Graded {
    pub(crate) collection: Collection,
    pub(crate) measured: Measured,
    pub(crate) timings: Timings,
    /// Outside of a sandbox, no program that was made could be executed: the folder of the copies is mounted `noexec`.
    pub(crate) is_noexec: bool,
}

/// How long its parts took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timings {
    /// Taking out of the submission what has the name of something in the set-up.
    pub(crate) starter_cleanup: Duration,
    /// Copying the set-up and the submission.
    pub(crate) submission_prepare: Duration,
    /// If there was something to make.
    pub(crate) make_step: Option<Duration>,
    /// All scripts together.
    pub(crate) test_execution: Duration,
}

/// Runs the make step and the scripts of a set-up over a submission.
///
/// # Errors
/// If we, or the machine, failed: then nothing is known of the submission. A script that fails, hangs or cannot be found is an outcome.
pub(crate) fn grade(assignment: &Assignment<'_>, means: &Means<'_>, started: Started) -> Result<Graded, Fault> {
    let begun = Instant::now();
    let laid = laid(assignment).map_err(|error| Fault::new(&error))?;
    let starter_cleanup = begun.elapsed();
    let folder = means.scratch.folder_for_copies(laid.tree.space(), means.copies_in)?;
    let mut grading = Grading::new(assignment, means, laid.tree.bytes());
    grading.timings.starter_cleanup = starter_cleanup;
    let is_noexec = is_noexec(&folder);
    let graded = grading.run(&laid, &folder);
    // What a script made unremovable goes with the scratch folder.
    remove(&folder).ok();
    let Laid { mut warnings, lone_folder, .. } = laid;
    warnings.append(&mut grading.warnings);
    let (ids, times) = (assignment.ids.clone(), times(started));
    let mut collection = match graded? {
        Ran::NotMade { output } => Collection::not_made(ids, output, times),
        Ran::Scripts(outcomes) => Collection::new(ids, grading.build_status(), outcomes, times),
    };
    if assignment.setup.entries.is_empty() {
        warnings.push(format!("nothing was tested: the manifest lists no script in `{ENTRIES}`"));
    }
    // Who has full marks has packed it as it was meant.
    warnings.extend(lone_folder.filter(|_| !collection.has_full_marks()).map(|folder| lone_folder_warning(&folder)));
    collection.warnings = warnings;
    Ok(Graded { collection, measured: grading.measured, timings: grading.timings, is_noexec })
}

/// Returns what the worker tells of a job that it could not grade.
pub(crate) fn not_graded(ids: Ids, fault: &Fault, started: Started) -> Collection {
    Collection::of_fault(ids, fault.to_string(), times(started))
}

/// Returns what the worker tells of a job whose submission could not even be looked into.
#[cfg(feature = "worker")]
pub(crate) fn not_made(ids: Ids, output: String, started: Started) -> Collection {
    Collection::not_made(ids, output, times(started))
}

fn times(Started(started): Started) -> Times {
    Times { started_at: seconds_text(started), finished_at: seconds_text(Timestamp::now()) }
}

/// A submission beside a set-up.
struct Laid {
    tree: Tree,
    /// One for each file of the submission that had to give way.
    warnings: Vec<String>,
    /// A folder that the whole submission lies in, and that the set-up knows nothing of.
    lone_folder: Option<PathBuf>,
    /// Files of the set-up that make is not to change.
    guarded: Vec<PathBuf>,
    /// Something compiled in the set-up, and what was handed in that it may have been compiled of.
    built: Option<(PathBuf, PathBuf)>,
}

fn laid(assignment: &Assignment<'_>) -> Result<Laid, WorkdirError> {
    let setup = assignment.setup;
    let mut tree = Tree::list(&setup.dir)?;
    let guarded = guarded(setup, &tree);
    let submission = match assignment.submission {
        Submission::Nothing => {
            return Ok(Laid { tree, warnings: Vec::new(), lone_folder: None, guarded, built: None });
        }
        Submission::Folder(dir) => Tree::list(dir)?,
        Submission::File(path) => Tree::of_file(path)?,
    };
    let lone_folder = submission.lone_folder().filter(|folder| !tree.has(folder)).map(Path::to_path_buf);
    let handed_in: Vec<_> = submission.files().map(Path::to_path_buf).collect();
    let built =
        handed_in.into_iter().filter(|file| !tree.has(file)).find_map(|file| Some((built_of(&file, &tree)?, file)));
    let left_out = tree.lay_beside(submission, &reserved(setup, &tree));
    let mut warnings = left_out_warnings(&left_out, &preferred_makefiles(&tree));
    // A script may call make, or a compiler, which has no doubts.
    warnings.extend(built.iter().filter(|_| setup.make.is_none()).map(|(built, of)| told_built(built, of)));
    Ok(Laid { tree, warnings, lone_folder, guarded, built })
}

/// Returns what of a set-up make must not change: the scripts. If what it reads may be handed in, everything.
fn guarded(setup: &TestSetup, tree: &Tree) -> Vec<PathBuf> {
    match &setup.make {
        None => Vec::new(),
        Some(_) if has_makefile(tree) => {
            let scripts = setup.entries.iter().map(|entry| PathBuf::from(&entry.script));
            scripts.filter(|script| tree.has(script)).collect()
        }
        Some(_) => tree.files().map(Path::to_path_buf).collect(),
    }
}

fn has_makefile(tree: &Tree) -> bool {
    MAKEFILES.iter().any(|file| tree.has(Path::new(file)))
}

/// Returns a compiled file of the set-up that make could build of a file that was handed in. Of the two, it takes the former for
/// finished, so that everybody would be graded for it; or, were it older, for one to be replaced, and it may be there to grade with.
fn built_of(file: &Path, tree: &Tree) -> Option<PathBuf> {
    file.extension().and_then(OsStr::to_str).filter(|extension| SOURCES.contains(extension))?;
    let objects = OBJECTS.map(|extension| file.with_extension(extension));
    objects.into_iter().chain([file.with_extension("")]).find(|built| tree.is_compiled(built))
}

fn told_built(built: &Path, of: &Path) -> String {
    let [built, of] = [built, of].map(|path| escaped(&path.to_string_lossy()));
    format!(
        "the set-up has `{built}` compiled already, and make takes that for what `{of}` of the submission becomes; take `{built}` out of the \
         set-up, or hand in `{of}` under another name"
    )
}

fn lone_folder_warning(folder: &Path) -> String {
    let folder = escaped(&folder.to_string_lossy());
    format!(
        "everything that was handed in lies in the folder `{folder}`, and the set-up has none of that name; if its scripts look outside of \
         it, hand in (or pack) what is in the folder"
    )
}

/// Returns what nobody hands in, whether the set-up has it or lacks it: a script, which would grade its own author; and a makefile that
/// make would take instead of the set-up's, and that could rewrite the scripts.
fn reserved<'a>(setup: &'a TestSetup, tree: &Tree) -> Vec<&'a Path> {
    let has_makefile = setup.make.is_some() && has_makefile(tree);
    let scripts = setup.entries.iter().map(|entry| Path::new(&entry.script));
    scripts.chain(MAKEFILES.map(Path::new).into_iter().filter(|_| has_makefile)).collect()
}

/// Returns those that make would look for before it finds the one that is there.
fn preferred_makefiles(tree: &Tree) -> Vec<&'static Path> {
    MAKEFILES.iter().map(Path::new).take_while(|file| !tree.has(file)).collect()
}

fn left_out_warnings(left_out: &[PathBuf], preferred_makefiles: &[&Path]) -> Vec<String> {
    let tell = |path: &Path| {
        let is_preferred = preferred_makefiles.contains(&path);
        let why = if is_preferred { "make would take it instead of the set-up's" } else { "its place is the set-up's" };
        format!("of the submission was left out: {why}")
    };
    warnings(left_out, tell, "files of the submission were left out")
}

fn put_back_warnings(put_back: &[&Path]) -> Vec<String> {
    let tell = |_: &Path| "of the set-up was changed by make, and put back".to_owned();
    warnings(put_back, tell, "files of the set-up were put back")
}

/// Returns one for each of the first files, with what `tell` says of it, and one that counts the rest.
fn warnings<P: AsRef<Path>>(files: &[P], tell: impl Fn(&Path) -> String, of_the_rest: &str) -> Vec<String> {
    let first = files.iter().take(NAMED_MAX).map(AsRef::as_ref);
    let named = first.map(|path| format!("`{}` {}", escaped(&path.to_string_lossy()), tell(path)));
    let more = files.len().saturating_sub(NAMED_MAX);
    named.chain((more > 0).then(|| format!("{more} more {of_the_rest}"))).collect()
}

enum Ran {
    NotMade { output: String },
    Scripts(Vec<Outcome>),
}

struct Grading<'a> {
    assignment: &'a Assignment<'a>,
    means: &'a Means<'a>,
    terms: Terms,
    measured: Measured,
    timings: Timings,
    /// What lies in the work folder before a script.
    laid_bytes: u64,
    warnings: Vec<String>,
}

impl<'a> Grading<'a> {
    fn new(assignment: &'a Assignment<'a>, means: &'a Means<'a>, laid_bytes: u64) -> Self {
        let limits = Limits {
            wall: assignment.setup.time_limit,
            grace: GRACE,
            drain: DRAIN,
            kept_bytes_max: KEPT_BYTES_MAX,
            log_bytes_max: 0,
            pids_max: None,
        };
        let terms = Terms {
            search_path: means.search_path.to_owned(),
            lang: LANG.into(),
            seed: assignment.seed.clone(),
            limits,
            echo: means.echo,
            marker: means.scratch.marker(),
        };
        let (measured, timings) = (Measured::default(), Timings::default());
        Self { assignment, means, terms, measured, timings, laid_bytes, warnings: Vec::new() }
    }

    fn build_status(&self) -> BuildStatus {
        if self.assignment.setup.make.is_some() { BuildStatus::Passed } else { BuildStatus::Skipped }
    }

    fn run(&mut self, laid: &Laid, folder: &Path) -> Result<Ran, Fault> {
        let begun = Instant::now();
        let setup = self.assignment.setup;
        let workplace =
            Workplace::new(folder.to_path_buf(), (setup, &laid.tree), setup.entries.len(), self.means.runner);
        let workplace = workplace.map_err(|error| Fault::new(&error))?;
        self.timings.submission_prepare = begun.elapsed();
        if let Some(step) = &setup.make
            && let Some(output) = self.make(&workplace, step, laid)?
        {
            return Ok(Ran::NotMade { output });
        }
        let begun = Instant::now();
        let outcomes = self.scripts(&workplace);
        self.timings.test_execution = begun.elapsed();
        outcomes.map(Ran::Scripts)
    }

    /// Returns what make said, if it failed.
    fn make(&mut self, workplace: &Workplace, step: &MakeStep, laid: &Laid) -> Result<Option<String>, Fault> {
        if let Some((built, of)) = &laid.built {
            return Ok(Some(format!("nothing was made: {}\n", told_built(built, of))));
        }
        (self.means.told)(Step::Make);
        let setup = &self.assignment.setup.name;
        let program = find_in_path(MAKE.as_ref(), self.means.search_path).ok_or_else(|| no_make(setup))?;
        let made = workplace.make((program, step), &self.terms, None, &mut |script| self.means.run(script))?;
        self.timings.make_step = Some(made.completion().wall);
        self.laid_bytes = self.note_size(made.completion());
        if let Made::Well(_) = made {
            let files: Vec<_> = laid.guarded.iter().map(PathBuf::as_path).collect();
            self.warnings.extend(put_back_warnings(&workplace.put_back(&laid.tree, &files)?));
        }
        match workplace.seal(made)? {
            Made::Well(done) => {
                self.measured.add_usage(&done);
                Ok(None)
            }
            Made::Badly(done) => {
                self.measured.add(&done, TestStatus::Fail);
                Ok(Some(chickadee::compiler_output(&done, self.assignment.setup.time_limit)))
            }
        }
    }

    /// Returns the outcomes in the order of the manifest.
    fn scripts(&mut self, workplace: &Workplace) -> Result<Vec<Outcome>, Fault> {
        let setup = self.assignment.setup;
        let mut outcomes = BTreeMap::new();
        for (earlier, index) in run_order(setup).into_iter().enumerate() {
            let entry = &setup.entries[index];
            let (number, all) = (earlier + 1, setup.entries.len());
            (self.means.told)(Step::Script { number, all, name: entry.display_name() });
            let outcome = match failed_prerequisite(setup, entry, &outcomes) {
                Some(script) => self.outcome(entry, (chickadee::skipped_outcome(script), None)),
                None => {
                    let ran = self.script(workplace, entry)?;
                    self.outcome(entry, ran)
                }
            };
            outcomes.insert(index, outcome);
        }
        Ok(outcomes.into_values().collect())
    }

    fn outcome(&self, entry: &ScriptEntry, (outcome, memory): (TestOutcome, Option<u64>)) -> Outcome {
        Outcome::new(entry, outcome, memory, self.assignment.ids.attempt_number)
    }

    /// Takes note of how much lay in the work folder at the end of make or a script, as far as that is known; returns it.
    fn note_size(&mut self, done: &Completion) -> u64 {
        let size = done.usage.written_bytes.map(|written| self.laid_bytes.saturating_add(written));
        self.measured.workdir_peak_bytes = self.measured.workdir_peak_bytes.max(size);
        size.unwrap_or(self.laid_bytes)
    }

    /// Runs one script; returns what came of it, and the memory that it used.
    fn script(&mut self, workplace: &Workplace, entry: &ScriptEntry) -> Result<(TestOutcome, Option<u64>), Fault> {
        match workplace.run(entry, &self.terms, None, &mut |script| self.means.run(script)) {
            Ok(done) => {
                let outcome = chickadee::outcome_of(&done);
                self.note_size(&done);
                self.measured.add(&done, outcome.status);
                Ok((outcome, Some(memory_usage_bytes(&done))))
            }
            Err(NotRun::Missing) => Ok((chickadee::missing_outcome(&entry.script), None)),
            Err(NotRun::Fault(fault)) => Err(fault),
        }
    }
}

impl Means<'_> {
    fn run(&self, script: &Script) -> Result<Completion, Fault> {
        let done = self.runner.run(script, self.cancel).map_err(|error| Fault::new(&error))?;
        if done.ended_by == EndedBy::Cancel {
            return Err(Fault::from_text("the run was stopped before the job was done"));
        }
        Ok(done)
    }
}

fn failed_prerequisite<'a>(
    setup: &TestSetup,
    entry: &'a ScriptEntry,
    outcomes: &BTreeMap<usize, Outcome>,
) -> Option<&'a str> {
    let has_passed = |script: &&String| {
        let index = setup.entries.iter().position(|other| other.script == **script);
        index.and_then(|index| outcomes.get(&index)).is_some_and(|outcome| outcome.status == TestStatus::Pass)
    };
    entry.depends_on.iter().find(|script| !has_passed(script)).map(String::as_str)
}

#[cfg(test)]
mod tests;

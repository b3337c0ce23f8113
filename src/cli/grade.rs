//! `container-runner grade`: a worker's job, done here for whoever writes the set-up.

mod hints;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::flow::discover::MANIFEST;
use crate::flow::job::{self, Assignment, Graded, Means, Started, Step, Submission};
use crate::flow::scratch::{CopiesIn, Scratch};
use crate::flow::session::sandbox_in;
use crate::flow::setup::{SetupError, read_setup};
use crate::model::script::Echo;
use crate::model::setup::{CONTENT_BYTES_MAX, CONTENT_ENTRIES_MAX};
use crate::model::verdict::Fault;
#[cfg(feature = "worker")]
use crate::os::archive::{self, ArchiveError, ArchiveLimits};
#[cfg(feature = "worker")]
use crate::os::disk::is_full;
use crate::os::engine::{ScriptRunner, UnsandboxedScriptRunner};
use crate::os::host::{SandboxSettings, Settings, ValueError};
use crate::os::interrupt::{Arrived, Interrupt, InterruptError};
use crate::os::sandbox::SandboxError;
use crate::os::workdir::{Extent, Tree, WorkdirError};
use crate::rules::collection::{Collection, Ids};
use crate::rules::table::missing_marks;

use super::args::Grade;
use super::show::{Show, Volume};
use super::{CliError, FAILED, print};

const SETUP: &str = "set-up";
const SUBMISSION: &str = "submission";

/// Why nothing was graded.
#[derive(Debug, thiserror::Error)]
pub(super) enum GradeError {
    #[error("could not read `{path}`; name the folder or file that is meant", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is neither a folder nor a file; name one that is", path = .0.display())]
    Special(PathBuf),
    #[error("the {what} cannot be copied; see to it that you may read all of it, or leave out what you may not")]
    Unreadable {
        what: &'static str,
        #[source]
        source: WorkdirError,
    },
    #[error("`{path}` is neither a file, a folder nor a symbolic link; a {what} cannot hold it, remove it", path = path.display())]
    Holds { what: &'static str, path: PathBuf },
    #[error("the {what} `{path}` has {found} {of}, and the limit is {max}, as of an archive; {way_out}", path = path.display())]
    TooMuch { what: &'static str, path: PathBuf, found: u64, of: &'static str, max: u64, way_out: &'static str },
    #[error("`{manifest}` is the manifest of a set-up; name the folder `{folder}`", manifest = manifest.display(), folder = folder.display())]
    Manifest { manifest: PathBuf, folder: PathBuf },
    #[cfg(not(feature = "worker"))]
    #[error(
        "`{path}` is no folder, and this container-runner was built without the feature `worker`, which reads zip archives; unpack it, \
         and name the folder",
        path = .0.display()
    )]
    NoArchives(PathBuf),
    #[cfg(feature = "worker")]
    #[error("could not unpack `{path}`", path = path.display())]
    Archive {
        path: PathBuf,
        #[source]
        source: ArchiveError,
    },
    #[cfg(feature = "worker")]
    #[error(
        "no space is left in `{folder}` to unpack `{path}`: free some there, or set TMPDIR to a folder with more room",
        folder = folder.display(),
        path = path.display()
    )]
    Full {
        folder: PathBuf,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error("`--sandbox` was asked for; nothing was run")]
    Sandbox(#[from] SandboxError),
    #[error("temporary files would go to `{temp_dir}`, which is in `{named}`, and that is not written to; set TMPDIR to another folder", temp_dir = temp_dir.display(), named = named.display())]
    TempDir { temp_dir: PathBuf, named: PathBuf },
    #[error("could not make a scratch folder in `{path}`; set TMPDIR to a folder that can be written", path = path.display())]
    Scratch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    #[error("{0}")]
    Fault(Fault),
}

impl From<Fault> for GradeError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl GradeError {
    /// Tells whether we or the machine failed: not the command line, the set-up, an archive, or a sandbox that cannot be had.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            #[cfg(feature = "worker")]
            Self::Archive { source, .. } => source.is_ours(),
            #[cfg(feature = "worker")]
            Self::Full { .. } => true,
            #[cfg(not(feature = "worker"))]
            Self::NoArchives(_) => false,
            Self::Read { .. }
            | Self::Special(_)
            | Self::Unreadable { .. }
            | Self::Holds { .. }
            | Self::TooMuch { .. }
            | Self::Manifest { .. }
            | Self::Setup(_)
            | Self::Value(_)
            | Self::Sandbox(_)
            | Self::TempDir { .. } => false,
            Self::Scratch { .. } | Self::Interrupt(_) | Self::Fault(_) => true,
        }
    }
}

/// Grades what `order` names, and shows what came of it. Leaves nothing behind.
///
/// # Errors
/// If nothing was graded. With `--json`, if we failed, what a worker would report of that is printed all the same.
pub(super) fn grade(order: &Grade, settings: &Settings, volume: Volume, show: &Show) -> Result<ExitCode, CliError> {
    let sandbox = order.sandbox.then(|| settings.workers_sandbox()).transpose().map_err(GradeError::from)?;
    let interrupt = Interrupt::new().map_err(GradeError::from)?;
    interrupt.listen(interrupted).map_err(GradeError::from)?;
    show.begin("grade");
    let (ids, started) = (ids(order), Started::now());
    let grading = Grading { order, settings, sandbox, volume, show, interrupt: &interrupt, ids, started };
    let graded = grading.in_scratch();
    show.finish();
    match graded {
        // A signal that came after the last script takes nothing away.
        Ok((graded, time_limit)) => grading.tell(&graded, time_limit),
        Err(error) => {
            if let Some(code) = interrupt.exit_code() {
                show.error("interrupted; nothing was graded");
                return Ok(code);
            }
            if order.json && error.is_ours() {
                let fault = Fault::new(&error);
                print_json(&job::not_graded(grading.ids, &fault, grading.started))?;
            }
            Err(error.into())
        }
    }
}

fn print_json(collection: &Collection) -> Result<ExitCode, CliError> {
    let text = collection.to_json().map_err(|error| Fault::new(&error))?;
    print(format!("{text}\n").as_bytes())
}

fn interrupted(arrived: Arrived) {
    if arrived == Arrived::Again {
        return;
    }
    // Beside whatever line of progress there is. Nobody may be listening.
    writeln!(io::stderr(), "\ninterrupted: what runs is ended").ok();
}

fn ids(order: &Grade) -> Ids {
    let test_setup_id = order.test_setup_id.clone().unwrap_or_else(|| stem(&order.setup));
    let submission_id = order.submission_id.clone().or_else(|| order.submission.as_deref().map(stem));
    Ids {
        submission_id: submission_id.unwrap_or_else(|| test_setup_id.clone()),
        test_setup_id,
        attempt_number: order.attempt,
    }
}

/// Returns what a folder is called, or a file without its extension. `.` is called as the folder that it is.
fn stem(path: &Path) -> String {
    let whole = if path.file_name().is_some() { path.to_path_buf() } else { path.canonicalize().unwrap_or_default() };
    let name = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
    name.unwrap_or(whole.as_os_str()).to_string_lossy().into_owned()
}

/// One call of `grade`.
struct Grading<'a> {
    order: &'a Grade,
    settings: &'a Settings,
    /// As a worker here would have it.
    sandbox: Option<SandboxSettings>,
    volume: Volume,
    show: &'a Show,
    interrupt: &'a Interrupt,
    ids: Ids,
    started: Started,
}

/// A submission that can be read as it is.
enum Found {
    Nothing,
    Folder(PathBuf),
    File(PathBuf),
}

impl Grading<'_> {
    /// Grades in a scratch folder, which is gone afterwards.
    fn in_scratch(&self) -> Result<(Graded, Duration), GradeError> {
        let temp_dir = &self.settings.temp_dir;
        let named = [Some(&self.order.setup), self.order.submission.as_ref()];
        named.into_iter().flatten().try_for_each(|named| refuse_to_write_into(named, temp_dir))?;
        let made = Scratch::make(temp_dir);
        let scratch = made.map_err(|source| GradeError::Scratch { path: temp_dir.clone(), source })?;
        let graded = self.grade(&scratch);
        let removed = scratch.remove();
        let graded = graded?;
        removed?;
        Ok(graded)
    }

    /// Returns what came of it, and the limit of each script.
    fn grade(&self, scratch: &Scratch) -> Result<(Graded, Duration), GradeError> {
        refuse_manifest(&self.order.setup)?;
        let dir = self.folder(&self.order.setup, scratch, SETUP)?;
        let setup = read_setup(&self.ids.test_setup_id, &dir, &self.order.setup)?;
        self.tell_strange_keys(&dir);
        self.tell_surprises(&setup);
        self.tell_equal_names(&setup);
        self.tell_unused_makefile(&setup);
        let found = self.find_submission(scratch)?;
        let submission = match &found {
            Found::Nothing => Submission::Nothing,
            Found::Folder(dir) => {
                self.tell_empty(dir);
                Submission::Folder(dir)
            }
            Found::File(path) => {
                self.tell_archive(path);
                Submission::File(path)
            }
        };
        let assignment = Assignment { setup: &setup, submission, ids: self.ids.clone(), seed: self.order.seed.clone() };
        // Its helpers end before what they work in goes.
        let runner = self.runner(scratch)?;
        let means = Means {
            runner: &*runner,
            cancel: self.interrupt.work(),
            scratch,
            copies_in: CopiesIn::of(self.sandbox.is_some(), self.settings.temp_dir_is_named),
            search_path: &self.settings.search_path,
            echo: if self.volume == Volume::Verbose { Echo::Stderr } else { Echo::Off },
            told: &|step| self.progress(step),
        };
        Ok((job::grade(&assignment, &means, self.started)?, setup.time_limit))
    }

    /// Returns the folder that is named, else one in the scratch folder with what is in the archive that is named.
    fn folder(&self, named: &Path, scratch: &Scratch, what: &'static str) -> Result<PathBuf, GradeError> {
        match kind(named)? {
            Kind::Folder => {
                // Whoever names a link means the folder.
                let dir =
                    named.canonicalize().map_err(|source| GradeError::Read { path: named.to_path_buf(), source })?;
                self.check(&dir, named, what)?;
                Ok(dir)
            }
            Kind::File => unpacked(named, scratch),
        }
    }

    /// What cannot be copied, or is more than an archive may hold, is found out before anything runs: it is for whoever named it to mend,
    /// and no fault of ours.
    fn check(&self, dir: &Path, named: &Path, what: &'static str) -> Result<(), GradeError> {
        let goes_on = || self.interrupt.signal().is_none();
        let Extent { bytes, entries } = Extent::of(dir, &goes_on);
        if !goes_on() {
            return Err(Fault::from_text("the run was stopped before anything was graded").into());
        }
        let limits = [("bytes", bytes, CONTENT_BYTES_MAX), ("files and folders", entries, CONTENT_ENTRIES_MAX.into())];
        if let Some((of, found, max)) = limits.into_iter().find(|(_, found, max)| found > max) {
            return Err(GradeError::TooMuch { what, path: named.to_path_buf(), found, of, max, way_out: LEAVE_OUT });
        }
        let unreadable = |source| GradeError::Unreadable { what, source };
        let tree = Tree::list(dir).map_err(unreadable)?;
        match tree.special() {
            Some(below) => Err(GradeError::Holds { what, path: dir.join(below) }),
            None => tree.check_readable().map_err(unreadable),
        }
    }

    fn find_submission(&self, scratch: &Scratch) -> Result<Found, GradeError> {
        let Some(path) = &self.order.submission else { return Ok(Found::Nothing) };
        let is_archive = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
        match kind(path)? {
            Kind::File if !is_archive => {
                refuse_too_large(path)?;
                let tree = Tree::of_file(path).and_then(|file| file.check_readable());
                tree.map_err(|source| GradeError::Unreadable { what: SUBMISSION, source })?;
                Ok(Found::File(path.clone()))
            }
            Kind::File | Kind::Folder => self.folder(path, scratch, SUBMISSION).map(Found::Folder),
        }
    }

    fn runner(&self, scratch: &Scratch) -> Result<Box<dyn ScriptRunner>, GradeError> {
        let Some(SandboxSettings { limits, shows }) = &self.sandbox else {
            return Ok(Box::new(UnsandboxedScriptRunner::new()));
        };
        Ok(Box::new(sandbox_in(scratch, shows, *limits, false)?))
    }

    fn progress(&self, step: Step<'_>) {
        match step {
            Step::Make => self.show.progress("make"),
            Step::Script { number, all, name } => self.show.progress(&format!("{number}/{all} {name}")),
        }
    }

    fn tell(&self, graded: &Graded, time_limit: Duration) -> Result<ExitCode, CliError> {
        let collection = &graded.collection;
        if graded.is_noexec && self.sandbox.is_none() {
            self.tell_noexec();
        }
        if collection.lacked_a_program() {
            self.tell_hidden_programs();
        }
        if self.order.json {
            print_json(collection)?;
        } else {
            if self.volume == Volume::Verbose {
                self.show.tell(&measures(graded));
            }
            self.show.collection(collection, time_limit);
            self.show.written().map_err(CliError::Output)?;
        }
        if self.order.check && !collection.has_full_marks() {
            self.show.error(&format!("`--check`: not every test has passed: {}", missing_marks(collection)));
            return Ok(ExitCode::from(FAILED));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What somebody may hand in.
enum Kind {
    Folder,
    File,
}

/// # Errors
/// If there is nothing, or neither of the two.
fn kind(path: &Path) -> Result<Kind, GradeError> {
    let meta = fs::metadata(path).map_err(|source| GradeError::Read { path: path.to_path_buf(), source })?;
    match (meta.is_dir(), meta.is_file()) {
        (true, _) => Ok(Kind::Folder),
        (false, true) => Ok(Kind::File),
        (false, false) => Err(GradeError::Special(path.to_path_buf())),
    }
}

/// What most of it is likely to be.
const LEAVE_OUT: &str = "take out what is built or downloaded";

/// # Errors
/// If a file has more bytes than a submission may have.
fn refuse_too_large(file: &Path) -> Result<(), GradeError> {
    let meta = fs::metadata(file).map_err(|source| GradeError::Read { path: file.to_path_buf(), source })?;
    let (found, max, path) = (meta.len(), CONTENT_BYTES_MAX, file.to_path_buf());
    let (of, way_out) = ("bytes", "hand in a smaller one");
    if found > max { Err(GradeError::TooMuch { what: SUBMISSION, path, found, of, max, way_out }) } else { Ok(()) }
}

/// # Errors
/// If it is a set-up's manifest that is named in place of the set-up.
fn refuse_manifest(named: &Path) -> Result<(), GradeError> {
    if named.file_name().is_none_or(|name| name != MANIFEST) || !named.is_file() {
        return Ok(());
    }
    let folder = named.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Err(GradeError::Manifest { manifest: named.to_path_buf(), folder: folder.to_path_buf() })
}

#[cfg(feature = "worker")]
fn unpacked(path: &Path, scratch: &Scratch) -> Result<PathBuf, GradeError> {
    let file = fs::File::open(path).map_err(|source| GradeError::Read { path: path.to_path_buf(), source })?;
    let made = scratch.folder();
    let into = made.map_err(|source| GradeError::Scratch { path: scratch.path().to_path_buf(), source })?;
    let path = path.to_path_buf();
    match archive::unpack(file, &into, ArchiveLimits::default()) {
        Ok(_) => Ok(into),
        Err(ArchiveError::Write { source, .. }) if is_full(&source) => {
            Err(GradeError::Full { folder: scratch.path().to_path_buf(), path, source })
        }
        Err(source) => Err(GradeError::Archive { path, source }),
    }
}

#[cfg(not(feature = "worker"))]
fn unpacked(path: &Path, _scratch: &Scratch) -> Result<PathBuf, GradeError> {
    Err(GradeError::NoArchives(path.to_path_buf()))
}

/// # Errors
/// If the folder for temporary files is in the folder that is named.
fn refuse_to_write_into(named: &Path, temp_dir: &Path) -> Result<(), GradeError> {
    // What is not there is told later, by who needs it.
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    if whole(temp_dir).starts_with(whole(named)) {
        return Err(GradeError::TempDir { temp_dir: temp_dir.to_path_buf(), named: named.to_path_buf() });
    }
    Ok(())
}

/// What a worker measures of a job, beside the collection.
fn measures(graded: &Graded) -> String {
    let (measured, timings) = (&graded.measured, &graded.timings);
    let ms = |duration: Duration| duration.as_millis();
    let mut text = format!("copied in {} ms", ms(timings.submission_prepare));
    let mut add = |more: String| text.push_str(&more);
    timings.make_step.iter().for_each(|time| add(format!(", made in {} ms", ms(*time))));
    add(format!(", scripts ran for {} ms", ms(timings.test_execution)));
    measured.peak_rss_bytes.iter().for_each(|bytes| add(format!("; at most {} KiB of memory", bytes >> 10)));
    measured.workdir_peak_bytes.iter().for_each(|bytes| add(format!("; at most {} KiB in its folders", bytes >> 10)));
    measured.child_process_count.iter().for_each(|count| add(format!("; {count} processes")));
    add(format!("; {} bytes of output, {} of errors", measured.stdout_bytes, measured.stderr_bytes));
    text
}

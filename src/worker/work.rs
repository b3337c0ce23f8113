//! One job, from its claim to its result in the spool.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::api::{ApiError, Job, JobKey};
use super::cache::{CacheError, Held, Key, Source};
use super::log::{EventName, seconds};
use super::report::{Course, Report};
use super::retry::with_retries;
use super::sender::{Parcel, forget};
use super::shared::Worker;
use super::state::Ticket;
use super::status::{Event, Step};
use crate::flow::job::{Assignment, Graded, Means, Started, Submission, grade, not_graded, not_made};
use crate::model::script::Echo;
use crate::model::verdict::Fault;
use crate::os::archive::{ArchiveError, unpack};
use crate::os::journal::Level;
use crate::os::workdir::remove;
use crate::rules::collection::{Collection, Ids};
use crate::rules::parse::parse_setup;
use crate::rules::summary::millis;

/// What a submission is called whose name says nothing.
const UNNAMED: &str = "submission.bin";
/// Bytes of a text that a program gets; the kernel's limit is 128 KiB (execve(2)).
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// A job that is ours, and on record as such.
pub(super) struct Claimed {
    pub(super) job: Job,
    pub(super) ticket: Ticket,
    pub(super) at: Started,
    /// Workers were killed over it.
    pub(super) is_hopeless: bool,
}

impl Claimed {
    /// What it is called.
    pub(super) fn key(&self) -> JobKey {
        self.job.key()
    }
}

/// Why something that a job needs could not be fetched or unpacked.
#[derive(Debug, thiserror::Error)]
enum NotHad {
    /// It did not come, or we could not keep it.
    #[error("{0}")]
    OfMany(Fault),
    /// It came, and is not what it should be.
    #[error("{0}")]
    OfJob(Fault),
}

/// Why a job has no outcomes.
enum Failure {
    /// We, this machine, or where files lie, so that other jobs may fail like this one: nothing is known of the submission.
    OfMany(Fault),
    /// What this job asks for: nothing is known of the submission.
    OfJob(Fault),
    /// What was handed in cannot be graded.
    Theirs(String),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::OfMany(fault)
    }
}

impl From<NotHad> for Failure {
    fn from(not_had: NotHad) -> Self {
        match not_had {
            NotHad::OfMany(fault) => Self::OfMany(fault),
            NotHad::OfJob(fault) => Self::OfJob(fault),
        }
    }
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CarriedOut {
    /// Its result is on the way.
    Done,
    /// It stays in hand, for the next start.
    Left,
}

/// Grades a job and sees to it that its result is sent. If the worker was told to end at once, the job is as if it had not been begun.
pub(super) fn carry_out(worker: &Worker, claimed: Claimed) -> CarriedOut {
    if !worker.is_aborted() {
        let (report, failure) = graded(worker, &claimed);
        if !worker.is_aborted() {
            tell(worker, &claimed.job, failure);
            hand_over(worker, claimed, &report);
            return CarriedOut::Done;
        }
    }
    give_back(worker, &claimed);
    CarriedOut::Left
}

/// Returns what is reported of a job, and why it has no outcomes, if that is so.
fn graded(worker: &Worker, claimed: &Claimed) -> (Report, Option<Failure>) {
    let begun = Instant::now();
    let mut course = Course { free_disk_mb_at_start: worker.free_disk_mb(), ..Course::default() };
    let ids = Ids {
        submission_id: claimed.job.submission_id.clone(),
        test_setup_id: claimed.job.test_setup_id.clone(),
        attempt_number: claimed.job.attempt_number,
    };
    let attempt = AssertUnwindSafe(|| Attempt { worker, claimed, ids: &ids, course: &mut course }.run());
    // A bug of ours is told, too.
    let done =
        catch_unwind(attempt).unwrap_or_else(|_| Err(Fault::from_text("the worker panicked over this job").into()));
    let (collection, failure) = match done {
        Ok(collection) => (collection, None),
        Err(failure) => {
            let failure = failure.without_secrets(worker);
            (failure.collection(ids, claimed.at), Some(failure))
        }
    };
    course.wall = begun.elapsed();
    course.free_disk_mb_at_end = worker.free_disk_mb();
    (Report::new(&worker.config.worker_id, collection, course), failure)
}

impl Failure {
    /// Students read it.
    fn without_secrets(self, worker: &Worker) -> Self {
        let hide = |fault: Fault| Fault::from_text(worker.log.without_secrets(&fault.to_string()));
        match self {
            Self::OfMany(fault) => Self::OfMany(hide(fault)),
            Self::OfJob(fault) => Self::OfJob(hide(fault)),
            Self::Theirs(text) => Self::Theirs(text),
        }
    }

    /// Returns what there is in place of outcomes.
    fn collection(&self, ids: Ids, at: Started) -> Collection {
        match self {
            Self::OfMany(fault) | Self::OfJob(fault) => not_graded(ids, fault, at),
            Self::Theirs(text) => not_made(ids, text.clone(), at),
        }
    }
}

/// Tells those who watch, and what decides on the next poll, what came of a job.
fn tell(worker: &Worker, job: &Job, failure: Option<Failure>) {
    let told = |fault: &Fault| {
        worker.say(Level::Error, EventName::JobFailed, job, &[("error", json!(fault.to_string()))]);
        worker.status.note(Event::Failed(fault.to_string()));
    };
    match failure {
        None => worker.troubles.graded(),
        Some(Failure::OfMany(fault)) => {
            told(&fault);
            worker.troubles.failed(&fault.to_string());
        }
        Some(Failure::OfJob(fault)) => told(&fault),
        Some(Failure::Theirs(_)) => {}
    }
}

/// Leaves a job in hand. Nobody was killed over it, so it does not count as tried.
fn give_back(worker: &Worker, claimed: &Claimed) {
    if claimed.is_hopeless {
        return;
    }
    if let Err(error) = worker.in_hand.give_back(&claimed.ticket) {
        worker.log.disk_failed(&claimed.key(), &error);
    }
}

/// Puts a result into the spool, or keeps it in memory if that is full, and has it sent.
fn hand_over(worker: &Worker, claimed: Claimed, report: &Report) {
    worker.status.note(Event::JobAt(claimed.key(), Step::Reporting));
    let Claimed { job, ticket, .. } = claimed;
    let fields =
        [("status", json!(report.diagnostics.final_status)), ("wall_ms", json!(report.diagnostics.wall_clock_ms))];
    worker.say(Level::Info, EventName::JobFinished, &job, &fields);
    // Its values can all be written as JSON.
    let body = report.body(worker.form).unwrap_or_default();
    match worker.spool.add(&ticket.key, &body) {
        Ok(spooled) => {
            // In this order: a job that is on record once its result was sent would be done again after a kill.
            forget(&worker.in_hand, &worker.log, &ticket);
            worker.sender.send(Parcel::spooled(spooled));
        }
        Err(error) => {
            worker.log.disk_failed(&ticket.key, &error);
            worker.sender.send(Parcel::in_memory(body, ticket));
        }
    }
}

/// One attempt at a job.
struct Attempt<'a> {
    worker: &'a Worker,
    claimed: &'a Claimed,
    ids: &'a Ids,
    course: &'a mut Course,
}

impl Attempt<'_> {
    fn run(&mut self) -> Result<Collection, Failure> {
        if self.claimed.is_hopeless {
            let why = "the worker was killed over this job more than once; it is not tried again";
            return Err(Failure::OfJob(Fault::from_text(why)));
        }
        refuse_unfit("assignmentSeed", self.claimed.job.assignment_seed.as_deref())?;
        let begun = Instant::now();
        let folder = JobFolder::make(self.worker)?;
        self.course.stages.workdir_setup_ms = Some(millis(begun.elapsed()));
        self.at(Step::Downloading);
        let held = self.setup(&folder)?;
        let handed_in = self.submission(&folder)?;
        let job = &self.claimed.job;
        let manifest = job.manifest.get().as_bytes();
        let setup = parse_setup(&job.test_setup_id, held.path(), Path::new("the job's manifest"), manifest);
        let setup = setup.map_err(|error| Failure::OfJob(Fault::new(&error)))?;
        refuse_unfit("makefile.target", setup.make.as_ref().and_then(|step| step.target.as_deref()))?;
        let submission = match &handed_in {
            HandedIn::File(path) => Submission::File(path),
            HandedIn::Folder(path) => Submission::Folder(path),
        };
        let assignment =
            Assignment { setup: &setup, submission, ids: self.ids.clone(), seed: job.assignment_seed.clone() };
        self.at(Step::Grading);
        self.worker.say(Level::Info, EventName::JobStarted, job, &[("scripts", json!(setup.entries.len()))]);
        let graded = self.grade(&assignment)?;
        Ok(self.note(graded))
    }

    fn grade(&self, assignment: &Assignment<'_>) -> Result<Graded, Fault> {
        let worker = self.worker;
        let means = Means {
            runner: &*worker.runner,
            cancel: &worker.cancel,
            scratch: &worker.scratch,
            copies_in: worker.copies_in,
            search_path: &worker.search_path,
            echo: Echo::Off,
            told: &|_| {},
        };
        grade(assignment, &means, self.claimed.at)
    }

    fn at(&self, step: Step) {
        self.worker.status.note(Event::JobAt(self.claimed.key(), step));
    }

    fn note(&mut self, graded: Graded) -> Collection {
        let ms = |time: Duration| Some(millis(time));
        let stages = &mut self.course.stages;
        stages.starter_cleanup_ms = ms(graded.timings.starter_cleanup);
        stages.submission_prepare_ms = ms(graded.timings.submission_prepare);
        stages.make_step_ms = graded.timings.make_step.and_then(ms);
        stages.test_execution_ms = ms(graded.timings.test_execution);
        self.course.measured = graded.measured;
        graded.collection
    }

    /// Returns the set-up, unpacked: of the cache, or fetched.
    fn setup(&mut self, folder: &JobFolder) -> Result<Held, Failure> {
        let begun = Instant::now();
        let job = &self.claimed.job;
        let key = Key::new(&job.test_setup_id, &job.test_setup_url, job.manifest.get().as_bytes());
        let held = self.worker.cache.acquire(&key, &mut |into: &Path| {
            let archive = self.fetch_archive("set-up", &job.test_setup_url, folder)?;
            unpack(&archive, into, self.worker.archive_limits).map(drop).map_err(|error| {
                let fault = Fault::from_text(format!("could not unpack the set-up: {}", Fault::new(&error)));
                if error.is_ours() { NotHad::OfMany(fault) } else { NotHad::OfJob(fault) }
            })
        });
        let held = held.map_err(|error| match error {
            CacheError::Fill(not_had) => Failure::from(not_had),
            CacheError::Cache(fault) => Failure::OfMany(Fault::new(&fault)),
        })?;
        self.course.stages.test_setup_acquire_ms = Some(millis(begun.elapsed()));
        self.course.stages.test_setup_cache_hit = Some(held.was_there());
        self.tell_setup(&held);
        Ok(held)
    }

    fn tell_setup(&self, held: &Held) {
        let (worker, job) = (self.worker, &self.claimed.job);
        if held.source == Source::FilledForTampered {
            worker.say(Level::Warn, EventName::CacheEntryTampered, job, &[("setup", json!(job.test_setup_id))]);
        }
        for key in &held.evicted {
            worker.log.event(Level::Info, EventName::CacheEntryEvicted, &[("key", json!(key))]);
        }
        let fields = [("setup", json!(job.test_setup_id)), ("cached", json!(held.was_there()))];
        worker.say(Level::Info, EventName::SetupReady, job, &fields);
    }

    /// Fetches what was handed in, and unpacks it unless it is one file.
    fn submission(&mut self, folder: &JobFolder) -> Result<HandedIn, Failure> {
        let job = &self.claimed.job;
        let begun = Instant::now();
        let dir = folder.0.join("submission");
        fs::create_dir(&dir)
            .map_err(|error| Fault::from_text(format!("could not make `{}`: {error}", dir.display())))?;
        self.course.stages.submission_dir_setup_ms = Some(millis(begun.elapsed()));
        let begun = Instant::now();
        if let Some(name) = job.submission_filename.as_deref().map(plain_name) {
            let path = dir.join(name);
            self.fetch("submission", &job.submission_url, &path)?;
            self.course.stages.submission_download_ms = Some(millis(begun.elapsed()));
            return Ok(HandedIn::File(path));
        }
        let archive = self.fetch_archive("submission", &job.submission_url, folder)?;
        self.course.stages.submission_download_ms = Some(millis(begun.elapsed()));
        self.at(Step::Unpacking);
        let begun = Instant::now();
        self.unpack_submission(&archive, &dir, folder)?;
        self.course.stages.submission_unpack_ms = Some(millis(begun.elapsed()));
        Ok(HandedIn::Folder(dir))
    }

    /// Unpacks what was handed in. If it is no archive, it may be a page of a proxy, or have been cut where nobody has seen it: only what
    /// comes a second time is its author's.
    fn unpack_submission(&self, archive: &File, into: &Path, folder: &JobFolder) -> Result<(), Failure> {
        let limits = self.worker.archive_limits;
        let error = match unpack(archive, into, limits) {
            Ok(_) => return Ok(()),
            Err(error @ ArchiveError::NoArchive(_)) => error,
            Err(error) => return Err(of_submission(&error)),
        };
        let job = &self.claimed.job;
        let fields = [("of", json!("submission")), ("error", json!(Fault::new(&error).to_string()))];
        self.worker.say(Level::Warn, EventName::DownloadRetried, job, &fields);
        let again = self.fetch_archive("submission", &job.submission_url, folder)?;
        let is_same = have_same_content(archive, &again);
        if is_same.map_err(|error| Fault::from_text(format!("could not read what was fetched: {error}")))? {
            return Err(of_submission(&error));
        }
        match unpack(&again, into, limits) {
            Ok(_) => Ok(()),
            Err(ArchiveError::NoArchive(_)) => {
                let why = "the submission was fetched twice, was no zip archive either time, and was not the same";
                Err(Fault::from_text(why).into())
            }
            Err(error) => Err(of_submission(&error)),
        }
    }

    /// Downloads an archive. Its file has no name any more and goes with its handle: what is unpacked does not need it.
    fn fetch_archive(&self, what: &str, url: &str, folder: &JobFolder) -> Result<File, NotHad> {
        let path = folder.0.join("archive.zip");
        let archive = self.fetch(what, url, &path)?;
        let removed = fs::remove_file(&path);
        removed.map_err(|error| {
            NotHad::OfMany(Fault::from_text(format!("could not remove the file `{}`: {error}", path.display())))
        })?;
        Ok(archive)
    }

    /// Downloads a file, as often as it takes.
    fn fetch(&self, what: &str, url: &str, to: &Path) -> Result<File, NotHad> {
        let (worker, job) = (self.worker, &self.claimed.job);
        let created = File::options().read(true).write(true).create_new(true).open(to);
        let mut file = created.map_err(|error| {
            NotHad::OfMany(Fault::from_text(format!("could not make the file `{}`: {error}", to.display())))
        })?;
        let mut told = |error: &ApiError, failed: u32, wait: Duration| {
            let error = json!(Fault::new(error).to_string());
            let fields = [("of", json!(what)), ("error", error), ("failed", json!(failed)), ("next_s", seconds(wait))];
            worker.say(Level::Warn, EventName::DownloadRetried, job, &fields);
        };
        let bytes_max = worker.config.download_bytes_max;
        let fetched = with_retries(&worker.downloads, &worker.stop_jobs, &mut told, || {
            worker.jobs_api.download(url, &mut file, bytes_max)
        });
        // Whatever the reason, that of the next job may not be had for the same.
        let not_had = |error| Fault::from_text(format!("could not fetch the {what}: {}", Fault::new(&error)));
        fetched.map(|_| file).map_err(|error| NotHad::OfMany(not_had(error)))
    }
}

/// # Errors
/// If a text of a job can be no variable and no argument of a program: that is no fault of this machine.
fn refuse_unfit(key: &str, text: Option<&str>) -> Result<(), Failure> {
    let why = match text.unwrap_or_default() {
        text if text.contains('\0') => "a NUL byte".to_owned(),
        text if text.len() > TEXT_BYTES_MAX => format!("more than {TEXT_BYTES_MAX} bytes"),
        _fit => return Ok(()),
    };
    Err(Failure::OfJob(Fault::from_text(format!("`{key}` of the job has {why}, so no program can be given it"))))
}

/// What was handed in, on the disk.
enum HandedIn {
    File(PathBuf),
    Folder(PathBuf),
}

/// An archive that cannot be unpacked is its author's fault, unless our disk is to blame.
fn of_submission(error: &ArchiveError) -> Failure {
    if error.is_ours() {
        return Failure::OfMany(Fault::new(error));
    }
    Failure::Theirs(format!("The submission could not be unpacked: {}\n", Fault::new(error)))
}

/// Tells whether two files hold the same bytes.
fn have_same_content(mut one: &File, mut other: &File) -> io::Result<bool> {
    one.rewind()?;
    other.rewind()?;
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let count = left.len().min(right.len());
        if count == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..count] != right[..count] {
            return Ok(false);
        }
        one.consume(count);
        other.consume(count);
    }
}

/// Returns the last part of a path, as a name that a file can have.
pub(super) fn plain_name(name: &str) -> &str {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let is_plain = !matches!(last, "" | "." | "..") && last.len() <= 255 && !last.contains('\0');
    if is_plain { last } else { UNNAMED }
}

/// What one job downloads and unpacks; removed with this.
struct JobFolder(PathBuf);

impl JobFolder {
    fn make(worker: &Worker) -> Result<Self, Fault> {
        let made = worker.scratch.folder();
        made.map(Self).map_err(|error| Fault::from_text(format!("could not make a folder for the job: {error}")))
    }
}

impl Drop for JobFolder {
    fn drop(&mut self) {
        // What stays goes with the scratch folder.
        remove(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn files_are_the_same_to_their_last_byte() {
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, bytes).unwrap();
            file
        };
        let long = vec![7; 100_000];
        for (one, other, is_same) in [
            (&[][..], &[][..], true),
            (b"a", b"", false),
            (&long, &long, true),
            (&long, &long[1..], false),
            (&[&long[1..], &[8]].concat(), &long, false),
        ] {
            assert_eq!(have_same_content(&file(one), &file(other)).unwrap(), is_same, "{} {}", one.len(), other.len());
        }
    }

    #[test]
    fn a_submissions_name_is_a_file_in_its_folder() {
        for (given, name) in [
            ("warmup.py", "warmup.py"),
            ("/etc/passwd", "passwd"),
            ("../../x", "x"),
            ("a\\b.py", "b.py"),
            ("..", UNNAMED),
            ("", UNNAMED),
            ("a/", UNNAMED),
            ("a\0b", UNNAMED),
            ("ü ö.py", "ü ö.py"),
        ] {
            assert_eq!(plain_name(given), name, "{given:?}");
        }
        assert_eq!(plain_name(&"a".repeat(256)), UNNAMED);
    }
}

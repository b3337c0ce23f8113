//! The worker's folder: one worker for each, jobs in hand, and what a killed one has left.

mod in_hand;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::flow::scratch::{Scratch, Swept, sweep_folder};
use crate::os::disk::{
    DiskError, PathError, is_sha256_text, read_ours, remove_file, sha256_text, sweep_aside, tried, write_durably,
};
use crate::os::workdir::{PrivateFolderError, make_private};
use crate::worker::api::JobKey;
use crate::worker::lock::Lock;
use crate::worker::rejected::{Rejected, RejectedError};

pub(super) use in_hand::{Begun, JobsInHand, Ticket};

/// Why a worker cannot have its folder, or not keep there what it must.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("the worker's state cannot be kept there; name another folder with `--state-dir` or RUNNER_STATE_DIR")]
    Folder(#[from] PrivateFolderError),
    #[error("the worker's state cannot be kept there; name another folder with `--state-dir` or RUNNER_STATE_DIR")]
    Lock(#[source] PathError),
    #[error(
        "worker `{worker_id}` runs on this machine already ({holder}, lock `{path}`); end it, or give this one another name with \
         `--worker-id`",
        worker_id = worker_id.escape_debug(),
        path = path.display()
    )]
    InUse { worker_id: String, holder: String, path: PathBuf },
    #[error(transparent)]
    Io(#[from] PathError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Rejected(#[from] RejectedError),
    #[error("the job is not JSON, so it cannot be kept")]
    NotJson(#[source] serde_json::Error),
    #[error(
        "{waiting} of the server `{noted}` wait in `{dir}`, and `--api-base-url` is another's, `{address}`: name another worker with \
         `--worker-id` or another folder with `--state-dir`, or let this one end its work for the old address first; if that server has \
         only moved, remove the file `{note}`",
        dir = note.parent().unwrap_or(note).display(),
        note = note.display()
    )]
    AnotherServer { waiting: Backlog, noted: String, address: String, note: PathBuf },
}

/// What waits for its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) results: usize,
    pub(super) jobs: usize,
}

impl Backlog {
    const NONE: Self = Self { results: 0, jobs: 0 };
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "results ({}) and jobs ({})", self.results, self.jobs)
    }
}

const LOCK: &str = "lock";
const SCRATCH: &str = "scratch";
/// Names the server that everything in the folder is for.
const SERVER: &str = "server";
const IN_HAND: &str = "in-hand";
const SPOOL: &str = "spool";
const REJECTED: &str = "rejected";
/// In the name of a folder: what stands before a digest of the worker's id.
const DIGEST_MARK: char = '+';
/// Between two paths, none of which has it.
const BETWEEN: u8 = 0;

/// The folder of one worker, which nobody else has as long as this lives.
#[derive(Debug)]
pub(super) struct StateFolder {
    dir: PathBuf,
    _lock: Lock,
}

impl StateFolder {
    /// Takes the folder of worker `worker_id` below `state_dir`; makes both if they are missing, the worker's for its eyes only.
    ///
    /// # Errors
    /// If another process has it, others may enter it, or it cannot be made.
    pub(super) fn open(state_dir: &Path, worker_id: &str) -> Result<Self, StateError> {
        let dir = state_dir.join(folder_name(worker_id));
        make_private(&dir)?;
        let lock = lock(&dir.join(LOCK), worker_id)?;
        sweep_aside(&dir).map_err(tried("clear", &dir))?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where results wait to be sent.
    pub(super) fn spool_dir(&self) -> PathBuf {
        self.dir.join(SPOOL)
    }

    /// Where results lie that were not taken, and files that are none.
    pub(super) fn rejected_dir(&self) -> PathBuf {
        self.dir.join(REJECTED)
    }

    /// Opens the record of jobs in hand. Files there that cannot be read go to the folder `rejected_dir`.
    ///
    /// # Errors
    /// If its folder cannot be had.
    pub(super) fn jobs_in_hand(&self) -> Result<JobsInHand, StateError> {
        JobsInHand::open(self.dir.join(IN_HAND), Rejected::open(self.rejected_dir())?)
    }

    /// Sees to it that what lies here goes to no other server than the one that it is for: the one that was here last, if something
    /// waits for it, else that at `address`.
    ///
    /// # Errors
    /// If that is another one, and if it cannot be read or noted which one it is.
    pub(super) fn belong_to(&self, address: &str, waiting: Backlog) -> Result<(), StateError> {
        let note = self.dir.join(SERVER);
        let bytes = read_ours(&note).map_err(tried("read", &note))?;
        let noted = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        // Without its end it was cut, when nothing could wait yet.
        let noted = noted.as_deref().and_then(|text| text.strip_suffix('\n'));
        match noted {
            Some(noted) if noted == address => Ok(()),
            Some(noted) if waiting != Backlog::NONE => {
                Err(StateError::AnotherServer { waiting, noted: noted.to_owned(), address: address.to_owned(), note })
            }
            Some(_) | None => Ok(write_durably(&note, format!("{address}\n").as_bytes())?),
        }
    }

    /// Ends and removes what killed workers of this id have left: the processes of their scratch folders, the folders, dead cgroups. What
    /// cannot be removed stays on the note, for the next start. `None` if the last worker ended in order.
    ///
    /// # Errors
    /// If the note cannot be read or changed.
    pub(super) fn sweep(&self) -> Result<Option<Swept>, StateError> {
        let (mut all, mut kept) = (None, Vec::new());
        let noted = self.noted()?;
        for folder in &noted {
            let Some(swept) = sweep_folder(folder) else { continue };
            if !swept.left.is_empty() {
                kept.push(folder.clone());
            }
            let all: &mut Swept = all.get_or_insert_default();
            all.processes.extend(swept.processes);
            all.removed.extend(swept.removed);
            all.left.extend(swept.left);
        }
        if kept != noted {
            self.note(&kept)?;
        }
        Ok(all)
    }

    /// Returns what waits in the folders of other workers of this machine that do not run, by the folders' names.
    pub(super) fn waiting_elsewhere(&self) -> Vec<Waiting> {
        let all = self.dir.parent().unwrap_or(&self.dir);
        // What others keep beside their folders is none of ours.
        let names = names_in(all).unwrap_or_default().into_iter();
        let others = names.map(|name| (all.join(&name), name)).filter(|(folder, _)| *folder != self.dir);
        let idle = others.filter(|(folder, _)| !is_locked(&folder.join(LOCK)));
        let waiting = idle.map(|(folder, name)| {
            let count = |below: &str| {
                let names = names_in(&folder.join(below)).unwrap_or_default();
                names.iter().filter(|name| name.to_str().is_some_and(is_job_file_name)).count()
            };
            let backlog = Backlog { results: count(SPOOL), jobs: count(IN_HAND) };
            Waiting { id: name.into_string().ok().filter(|name| !name.contains(DIGEST_MARK)), folder, backlog }
        });
        waiting.filter(|waiting| waiting.backlog != Backlog::NONE).collect()
    }

    /// Notes a scratch folder, before anything is started in it: should this process be killed, the next one removes it.
    ///
    /// # Errors
    /// If the note cannot be read or written.
    pub(super) fn note_scratch(&self, scratch: &Scratch) -> Result<(), StateError> {
        let mut noted = self.noted()?;
        noted.push(scratch.path().to_path_buf());
        self.note(&noted)
    }

    /// Forgets a scratch folder once it is removed.
    ///
    /// # Errors
    /// If the note cannot be read or changed.
    pub(super) fn forget_scratch(&self, scratch: &Scratch) -> Result<(), StateError> {
        let mut noted = self.noted()?;
        noted.retain(|folder| folder != scratch.path());
        self.note(&noted)
    }

    /// The scratch folders on the note.
    fn noted(&self) -> Result<Vec<PathBuf>, StateError> {
        let path = self.dir.join(SCRATCH);
        let bytes = read_ours(&path).map_err(tried("read", &path))?.unwrap_or_default();
        let names = bytes.split(|byte| *byte == BETWEEN).filter(|name| !name.is_empty());
        Ok(names.map(|name| PathBuf::from(OsString::from_vec(name.to_vec()))).collect())
    }

    fn note(&self, folders: &[PathBuf]) -> Result<(), StateError> {
        let path = self.dir.join(SCRATCH);
        if folders.is_empty() {
            return Ok(remove_file(&path)?);
        }
        let names: Vec<_> = folders.iter().map(|folder| folder.as_os_str().as_bytes()).collect();
        Ok(write_durably(&path, &names.join(&BETWEEN))?)
    }
}

/// Results and jobs of a worker that does not run.
pub(super) struct Waiting {
    pub(super) folder: PathBuf,
    /// The worker's, if the folder's name tells it.
    pub(super) id: Option<String>,
    pub(super) backlog: Backlog,
}

/// Tells whether a process that can be seen from here has a lock on this file. To try would take it from a worker that just starts.
fn is_locked(path: &Path) -> bool {
    let Ok(meta) = fs::metadata(path) else { return false };
    let end = format!(":{}", meta.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| line.contains("FLOCK") && line.split(' ').any(|word| word.ends_with(&end)))
}

/// The file stays: whoever removes a lock's file takes the lock from its
/// holder.
fn lock(path: &Path, worker_id: &str) -> Result<Lock, StateError> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let not_had = |what, source| StateError::Lock(tried(what, path)(source));
    let file = options.open(path).map_err(|source| not_had("open the lock", source))?;
    let lock = match Lock::try_exclusive(file).map_err(|source| not_had("lock", source))? {
        Ok(lock) => lock,
        Err(mut file) => return Err(in_use(&mut file, path, worker_id)),
    };
    let pid = format!("{}\n", std::process::id());
    let mut file = lock.file();
    file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).map_err(tried("write", path))?;
    Ok(lock)
}

/// Names the holder as far as the file tells: it may have been locked a moment ago.
fn in_use(file: &mut File, path: &Path, worker_id: &str) -> StateError {
    const PID_BYTES_MAX: u64 = 32;
    let mut text = String::new();
    let read = file.take(PID_BYTES_MAX).read_to_string(&mut text).ok();
    let pid = read.and_then(|_| text.trim().parse::<u32>().ok());
    let holder = pid.map_or_else(|| "it just starts".to_owned(), |pid| format!("pid {pid}"));
    StateError::InUse { worker_id: worker_id.to_owned(), holder, path: path.to_path_buf() }
}

/// Returns what the folder of a worker is called: its id, if that is a plain name; else what is plain of it and a digest of all, so that
/// no two ids have one folder.
fn folder_name(worker_id: &str) -> String {
    const PLAIN_CHARS_MAX: usize = 64;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // The second kind has the mark, so it is never the first.
    if !worker_id.starts_with('.') && !worker_id.is_empty() && worker_id.chars().all(is_plain) {
        return worker_id.to_owned();
    }
    let plain: String = worker_id.chars().filter(|c| is_plain(*c) && *c != '.').take(PLAIN_CHARS_MAX).collect();
    format!("{plain}{DIGEST_MARK}{}", sha256_text(worker_id.as_bytes()))
}

/// Returns what the file of a job is called, whatever ids the server gives.
pub(super) fn job_file_name(job: &JobKey) -> String {
    format!("{}.json", sha256_text(format!("{}\0{}", job.submission_id, job.attempt_number).as_bytes()))
}

/// Tells whether a file may be called so by `job_file_name`.
pub(super) fn is_job_file_name(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(is_sha256_text)
}

/// Returns what a file is called once it is set aside, whatever it was called before.
pub(super) fn name_aside(name: &OsStr) -> String {
    let own = name.to_str().filter(|name| is_job_file_name(name)).map(str::to_owned);
    own.unwrap_or_else(|| format!("foreign-{}", sha256_text(name.as_bytes())))
}

/// Returns what lies in a folder, by name.
///
/// # Errors
/// If it cannot be read.
pub(super) fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests;

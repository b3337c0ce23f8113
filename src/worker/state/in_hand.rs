//! Jobs that were taken and have no result in the spool yet: a killed worker finds them again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{StateError, is_job_file_name, job_file_name, name_aside, names_in};
use crate::os::disk::{EvidenceReader, remove_file, rename_durably, sweep_aside, tried, write_durably};
use crate::os::workdir::make_private;

/// How often a job is begun at most, over all lives of a worker: one that kills its worker must not do so for ever.
const TRIES_MAX: u32 = 2;

/// A file for each job.
#[derive(Debug)]
pub(in crate::worker) struct JobsInHand {
    dir: PathBuf,
    rejected: PathBuf,
}

/// A job that is in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct Ticket {
    path: PathBuf,
    /// The job as the server sent it.
    pub(in crate::worker) job: Box<str>,
    /// How often it was begun.
    pub(in crate::worker) tries: u32,
    taken_at_ms: u64,
}

/// Whether a job may be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Begun {
    /// It may, and is counted.
    Now,
    /// It was begun too often without coming to an end: it is to be reported as a fault of the infrastructure.
    TooOften,
}

/// What a killed worker has left.
#[derive(Debug)]
pub(in crate::worker) struct Left {
    /// Oldest first.
    pub(in crate::worker) jobs: Vec<Ticket>,
    /// Names of files that are no jobs, and were set aside.
    pub(in crate::worker) set_aside: Vec<OsString>,
}

#[derive(Serialize, Deserialize)]
struct Content<'a> {
    taken_at_ms: u64,
    tries: u32,
    #[serde(borrow)]
    job: &'a RawValue,
}

impl JobsInHand {
    /// Opens the folder `dir`; what is no job there goes to `rejected`.
    pub(super) fn open(dir: PathBuf, rejected: PathBuf) -> Result<Self, StateError> {
        make_private(&dir)?;
        sweep_aside(&dir).map_err(tried("clear", &dir))?;
        Ok(Self { dir, rejected })
    }

    /// Takes a job, which is begun with that: when this returns, no kill and no power failure loses it.
    ///
    /// # Errors
    /// If it is no JSON, or cannot be written; then it is not in hand.
    pub(in crate::worker) fn take(&self, job: &str, submission_id: &str, attempt: u32) -> Result<Ticket, StateError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ticket = Ticket {
            path: self.dir.join(job_file_name(submission_id, attempt)),
            job: job.into(),
            tries: 1,
            taken_at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        };
        write(&ticket)?;
        Ok(ticket)
    }

    /// Counts that a job is begun again, before it is.
    ///
    /// # Errors
    /// If that cannot be written; it must not be begun then.
    pub(in crate::worker) fn begin(&self, ticket: &mut Ticket) -> Result<Begun, StateError> {
        if ticket.tries >= TRIES_MAX {
            return Ok(Begun::TooOften);
        }
        let counted = Ticket { tries: ticket.tries + 1, ..ticket.clone() };
        write(&counted)?;
        *ticket = counted;
        Ok(Begun::Now)
    }

    /// Takes back that a job was begun: nobody was killed over it, it was stopped.
    ///
    /// # Errors
    /// If that cannot be written; then it counts.
    pub(in crate::worker) fn give_back(&self, ticket: &Ticket) -> Result<(), StateError> {
        write(&Ticket { tries: ticket.tries.saturating_sub(1), ..ticket.clone() })
    }

    /// Forgets a job, once its result is in the spool. A power failure may bring it back, as it does the result that goes after it.
    ///
    /// # Errors
    /// If its file cannot be removed; then it is found again after a restart, and the spool says that it is done.
    pub(in crate::worker) fn done(&self, ticket: &Ticket) -> Result<(), StateError> {
        Ok(remove_file(&ticket.path)?)
    }

    /// Tells whether a job is in hand.
    pub(in crate::worker) fn holds(&self, submission_id: &str, attempt: u32) -> bool {
        self.dir.join(job_file_name(submission_id, attempt)).is_file()
    }

    /// Returns the jobs that are there when a worker starts, and sets aside what is none.
    ///
    /// # Errors
    /// If the folder cannot be read, or something not be set aside.
    pub(in crate::worker) fn left(&self) -> Result<Left, StateError> {
        let mut left = Left { jobs: Vec::new(), set_aside: Vec::new() };
        for name in names_in(&self.dir).map_err(tried("read", &self.dir))? {
            let path = self.dir.join(&name);
            let is_named_so = name.to_str().is_some_and(is_job_file_name);
            match read(&path).filter(|_| is_named_so) {
                Some(ticket) => left.jobs.push(ticket),
                None => {
                    rename_durably(&path, &self.rejected.join(format!("job-{}", name_aside(&name))))?;
                    left.set_aside.push(name);
                }
            }
        }
        left.jobs.sort_by(|one, other| (one.taken_at_ms, &one.path).cmp(&(other.taken_at_ms, &other.path)));
        Ok(left)
    }
}

fn write(ticket: &Ticket) -> Result<(), StateError> {
    let job = serde_json::from_str::<&RawValue>(&ticket.job).map_err(StateError::NotJson)?;
    let content = Content { taken_at_ms: ticket.taken_at_ms, tries: ticket.tries, job };
    let bytes = serde_json::to_vec(&content).map_err(StateError::NotJson)?;
    Ok(write_durably(&ticket.path, &bytes)?)
}

fn read(path: &Path) -> Option<Ticket> {
    let mut reader = EvidenceReader::default();
    // A link is not ours, wherever it leads.
    let (bytes, _) = reader.read(path.parent()?, path.file_name()?).ok()?;
    let content: Content<'_> = serde_json::from_slice(bytes).ok()?;
    Some(Ticket {
        path: path.to_path_buf(),
        job: content.job.get().into(),
        tries: content.tries,
        taken_at_ms: content.taken_at_ms,
    })
}

//! Jobs that were taken and have no result in the spool yet: a killed worker finds them again.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{StateError, job_file_name, name_aside, names_in};
use crate::os::disk::{read_ours, remove_file, sweep_aside, tried, write_durably};
use crate::os::workdir::make_private;
use crate::worker::api::{Job, JobKey};
use crate::worker::rejected::Rejected;

/// How often a job is begun at most, over all lives of a worker: one that kills its worker must not do so for ever.
const TRIES_MAX: u32 = 2;

/// The jobs in hand, and a file for each.
#[derive(Debug)]
pub(in crate::worker) struct JobsInHand {
    dir: PathBuf,
    rejected: Rejected,
    /// Those without a file, too, which the disk did not take: they are not to be taken a second time either.
    held: Mutex<BTreeSet<JobKey>>,
}

/// A job that is in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct Ticket {
    pub(in crate::worker) key: JobKey,
    /// The job as JSON.
    job: Box<str>,
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
    pub(in crate::worker) jobs: Vec<(Job, Ticket)>,
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
    pub(super) fn open(dir: PathBuf, rejected: Rejected) -> Result<Self, StateError> {
        make_private(&dir)?;
        sweep_aside(&dir).map_err(tried("clear", &dir))?;
        Ok(Self { dir, rejected, held: Mutex::default() })
    }

    /// Takes a job, which is begun with that: this process does not take it again before it is done.
    pub(in crate::worker) fn take(&self, job: &Job) -> Ticket {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let key = job.key();
        self.held().insert(key.clone());
        Ticket {
            key,
            // What was read from JSON can be written as JSON.
            job: serde_json::to_string(job).unwrap_or_default().into(),
            tries: 1,
            taken_at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Puts a job that was taken on record: when this returns, no kill and no power failure loses it.
    ///
    /// # Errors
    /// If it cannot be written; it is in hand all the same, as long as this process lives.
    pub(in crate::worker) fn record(&self, ticket: &Ticket) -> Result<(), StateError> {
        let job = serde_json::from_str::<&RawValue>(&ticket.job).map_err(StateError::NotJson)?;
        let content = Content { taken_at_ms: ticket.taken_at_ms, tries: ticket.tries, job };
        let bytes = serde_json::to_vec(&content).map_err(StateError::NotJson)?;
        Ok(write_durably(&self.path(&ticket.key), &bytes)?)
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
        self.record(&counted)?;
        *ticket = counted;
        Ok(Begun::Now)
    }

    /// Takes back that a job was begun: nobody was killed over it, it was stopped.
    ///
    /// # Errors
    /// If that cannot be written; then it counts.
    pub(in crate::worker) fn give_back(&self, ticket: &Ticket) -> Result<(), StateError> {
        self.record(&Ticket { tries: ticket.tries.saturating_sub(1), ..ticket.clone() })
    }

    /// Forgets a job, once its result is in the spool. A power failure may bring it back, as it does the result that goes after it.
    ///
    /// # Errors
    /// If its file cannot be removed; then it is found again after a restart, and the spool says that it is done.
    pub(in crate::worker) fn done(&self, ticket: &Ticket) -> Result<(), StateError> {
        self.held().remove(&ticket.key);
        Ok(remove_file(&self.path(&ticket.key))?)
    }

    /// Tells whether a job is in hand.
    pub(in crate::worker) fn holds(&self, job: &JobKey) -> bool {
        self.held().contains(job)
    }

    /// Tells whether no job is.
    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.held().is_empty()
    }

    /// Takes the jobs that are there when a worker starts, and sets aside what is none.
    ///
    /// # Errors
    /// If something cannot be read, or not be set aside.
    pub(in crate::worker) fn left(&self) -> Result<Left, StateError> {
        let mut left = Left { jobs: Vec::new(), set_aside: Vec::new() };
        for name in names_in(&self.dir).map_err(tried("read", &self.dir))? {
            let path = self.dir.join(&name);
            match found(&path).map_err(tried("read", &path))? {
                Some((job, ticket)) => {
                    self.held().insert(job.key());
                    left.jobs.push((job, ticket));
                }
                None => {
                    // The result of a job has the same name.
                    let aside = format!("job-{}", name_aside(&name));
                    self.rejected.take(&path, &aside, "it is no job that a worker has put on record")?;
                    left.set_aside.push(name);
                }
            }
        }
        left.jobs.sort_by(|(_, one), (_, other)| (one.taken_at_ms, &one.key).cmp(&(other.taken_at_ms, &other.key)));
        Ok(left)
    }

    fn path(&self, job: &JobKey) -> PathBuf {
        self.dir.join(job_file_name(job))
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<JobKey>> {
        // Each change is one step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the job that is on record at `path`; `None` if none is, at least none that this version of the worker knows.
fn found(path: &Path) -> io::Result<Option<(Job, Ticket)>> {
    let found = read_ours(path)?.and_then(|bytes| parse(&bytes));
    Ok(found.filter(|(job, _)| path.file_name() == Some(job_file_name(&job.key()).as_ref())))
}

fn parse(bytes: &[u8]) -> Option<(Job, Ticket)> {
    let Content { taken_at_ms, tries, job } = serde_json::from_slice(bytes).ok()?;
    let text = job.get();
    let job: Job = serde_json::from_str(text).ok()?;
    let ticket = Ticket { key: job.key(), job: text.into(), tries, taken_at_ms };
    Some((job, ticket))
}

//! Finished results on the disk, until the server has taken them.
//!
//! A result is one file with the whole body that is sent, named after its submission and attempt. It is written beside, flushed, and
//! renamed: a worker that is killed at any moment leaves a whole result or none. What is no result is never sent, but set aside.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Deserialize;

use crate::os::disk::{DiskError, PathError, read_ours, remove_file, sweep_aside, tried, write_durably};
use crate::os::workdir::{PrivateFolderError, make_private};
use crate::worker::api::JobKey;
use crate::worker::rejected::{Bounds, Rejected, RejectedError};
use crate::worker::state::{job_file_name, name_aside, names_in};

/// From so many results or bytes on the worker is to take no more jobs; those that run still find room.
const WAITING: Bounds = Bounds { files: 1000, bytes: 1 << 30 };

/// Why a result could not be kept, read or put away.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error(transparent)]
    Folder(#[from] PrivateFolderError),
    /// If it is [`DiskError::Full`], the result is to be kept in memory, and written again later.
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Io(#[from] PathError),
    #[error(transparent)]
    Rejected(#[from] RejectedError),
    /// To be set aside.
    #[error("`{path}` is no longer the result that was written there", path = .0.display())]
    Broken(PathBuf),
}

/// The results that wait to be sent. The worker's folder must be locked: nobody else writes here.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    rejected: Rejected,
    waiting_max: Bounds,
    /// Oldest first.
    waiting: Mutex<Vec<Spooled>>,
}

/// A result in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spooled {
    pub(super) job: JobKey,
    path: PathBuf,
    /// Its size.
    pub(super) bytes: u64,
}

/// What the spool reads of a body: a report, or a bare collection.
#[derive(Deserialize)]
struct Body {
    collection: Option<JobKey>,
    #[serde(rename = "submissionID")]
    submission_id: Option<String>,
    #[serde(rename = "attemptNumber")]
    attempt_number: Option<u32>,
}

impl Spool {
    /// Opens the spool in the folder `dir`; what is no result there goes to the folder `rejected`. Returns the names of such files.
    ///
    /// # Errors
    /// If a folder cannot be had, something cannot be read, or not be set aside.
    pub(super) fn open(dir: PathBuf, rejected: PathBuf) -> Result<(Self, Vec<OsString>), SpoolError> {
        make_private(&dir)?;
        sweep_aside(&dir).map_err(tried("clear", &dir))?;
        let rejected = Rejected::open(rejected)?;
        let (mut waiting, mut foreign) = (Vec::new(), Vec::new());
        for name in names_in(&dir).map_err(tried("read", &dir))? {
            let path = dir.join(&name);
            match found(&path).map_err(tried("read", &path))? {
                Some((spooled, written)) => waiting.push((written, spooled)),
                None => foreign.push(name),
            }
        }
        waiting.sort_by(|(one, first), (other, second)| (one, &first.path).cmp(&(other, &second.path)));
        let waiting = Mutex::new(waiting.into_iter().map(|(_, spooled)| spooled).collect());
        for name in &foreign {
            rejected.take(&dir.join(name), &name_aside(name), "it is no result that a worker has written")?;
        }
        Ok((Self { dir, rejected, waiting_max: WAITING, waiting }, foreign))
    }

    /// Writes a result, `body` as it is sent: when this returns, no kill and no power failure loses it. One of the same attempt that
    /// is there is replaced.
    ///
    /// # Errors
    /// If it cannot be written; `DiskError::Full` if there is no space.
    pub(super) fn add(&self, job: &JobKey, body: &[u8]) -> Result<Spooled, SpoolError> {
        let path = self.dir.join(job_file_name(job));
        write_durably(&path, body)?;
        let spooled = Spooled { job: job.clone(), path, bytes: body.len() as u64 };
        let mut waiting = self.lock();
        waiting.retain(|other| other.path != spooled.path);
        waiting.push(spooled.clone());
        Ok(spooled)
    }

    /// Returns the results that wait, oldest first.
    pub(super) fn waiting(&self) -> Vec<Spooled> {
        self.lock().clone()
    }

    /// Returns what is to be sent.
    ///
    /// # Errors
    /// `Broken` if somebody else has changed or removed the file; then it is to be set aside. `Io` if it cannot be read now.
    pub(super) fn body(&self, spooled: &Spooled) -> Result<Vec<u8>, SpoolError> {
        let bytes = read_ours(&spooled.path).map_err(tried("read", &spooled.path))?;
        let body = bytes.filter(|body| job_named(&spooled.path, body).is_some());
        body.ok_or_else(|| SpoolError::Broken(spooled.path.clone()))
    }

    /// Removes a result that the server has taken. A power failure may bring it back: then it is sent once more, which does no harm.
    ///
    /// # Errors
    /// If its file cannot be removed; it is not sent again by this process all the same.
    pub(super) fn remove(&self, spooled: &Spooled) -> Result<(), SpoolError> {
        self.forget(spooled);
        Ok(remove_file(&spooled.path)?)
    }

    /// Puts a result where it is kept and not sent, with a text beside it that tells why. Returns the names of older ones that had to go
    /// for it.
    ///
    /// # Errors
    /// If it cannot be moved; it is not sent again by this process all the same.
    pub(super) fn set_aside(&self, spooled: &Spooled, why: &str) -> Result<Vec<OsString>, SpoolError> {
        self.forget(spooled);
        if fs::symlink_metadata(&spooled.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(Vec::new());
        }
        Ok(self.rejected.take(&spooled.path, &job_file_name(&spooled.job), why)?)
    }

    /// Tells whether a result of this attempt waits.
    pub(super) fn holds(&self, job: &JobKey) -> bool {
        self.lock().iter().any(|spooled| spooled.job == *job)
    }

    /// Tells whether so much waits that no more jobs are to be taken.
    pub(super) fn is_full(&self) -> bool {
        let waiting = self.lock();
        let bytes: u64 = waiting.iter().map(|spooled| spooled.bytes).sum();
        waiting.len() >= self.waiting_max.files || bytes >= self.waiting_max.bytes
    }

    fn forget(&self, spooled: &Spooled) {
        self.lock().retain(|other| other.path != spooled.path);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Spooled>> {
        // Each change is one step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the result at `path`, and when it was written. `None` if it is none.
fn found(path: &Path) -> io::Result<Option<(Spooled, SystemTime)>> {
    let Some(body) = read_ours(path)? else { return Ok(None) };
    let Some(job) = job_named(path, &body) else { return Ok(None) };
    let written = fs::symlink_metadata(path)?.modified()?;
    Ok(Some((Spooled { job, path: path.to_path_buf(), bytes: body.len() as u64 }, written)))
}

/// Returns the job that a body is of, if its file is named after it.
fn job_named(path: &Path, body: &[u8]) -> Option<JobKey> {
    job_of(body).filter(|job| path.file_name() == Some(job_file_name(job).as_ref()))
}

fn job_of(body: &[u8]) -> Option<JobKey> {
    let Body { collection, submission_id, attempt_number } = serde_json::from_slice(body).ok()?;
    collection.or_else(|| Some(JobKey { submission_id: submission_id?, attempt_number: attempt_number? }))
}

#[cfg(test)]
mod tests;

//! What the threads of a worker share.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::api::{Activity, Job, JobApi};
use super::args::Config;
use super::cache::SetupCache;
use super::daemon::{EndingLimits, Troubles};
use super::heartbeat::Heartbeat;
use super::log::{EventName, Log};
use super::profile::Profile;
use super::report::Form;
use super::retry::Policy;
use super::sender::Sender;
use super::slots::Slots;
use super::spool::Spool;
use super::state::JobsInHand;
use super::status::{self, Status};
use super::stop::Stop;
use super::work::Claimed;
use crate::flow::scratch::{CopiesIn, Scratch};
use crate::os::archive::ArchiveLimits;
use crate::os::engine::{Cancel, ScriptRunner};
use crate::os::journal::Level;
use crate::os::workdir::free_bytes;
use crate::rules::collection::RUNNER_VERSION;

/// One worker, from its start to its end.
pub(super) struct Worker {
    pub(super) config: Config,
    pub(super) form: Form,
    pub(super) log: Log,
    pub(super) status: Status,
    pub(super) profile: Option<Profile>,
    /// Three, because they are told to stop at different times.
    pub(super) polls_api: Box<dyn JobApi>,
    pub(super) jobs_api: Box<dyn JobApi>,
    /// Sends heartbeats, too: they go on as long as a job that was told to end does not.
    pub(super) results_api: Box<dyn JobApi>,
    pub(super) stop_polls: Stop,
    pub(super) stop_jobs: Stop,
    pub(super) stop_results: Stop,
    /// Everything is to end at once.
    pub(super) aborted: Stop,
    /// Ends scripts.
    pub(super) cancel: Cancel,
    pub(super) downloads: Policy,
    pub(super) heartbeats: Policy,
    pub(super) polls: Policy,
    /// Jobs that failed by no fault of their own, and results that were refused.
    pub(super) troubles: Troubles,
    /// Why the worker cannot go on.
    pub(super) failed: OnceLock<String>,
    pub(super) ending_limits: EndingLimits,
    pub(super) slots: Slots<Claimed>,
    pub(super) heartbeat: Heartbeat,
    pub(super) sender: Sender,
    pub(super) spool: Spool,
    pub(super) in_hand: JobsInHand,
    pub(super) cache: SetupCache,
    pub(super) archive_limits: ArchiveLimits,
    pub(super) scratch: Scratch,
    pub(super) copies_in: CopiesIn,
    pub(super) search_path: OsString,
    pub(super) runner: Box<dyn ScriptRunner>,
}

impl Worker {
    /// What the server is told with each poll and heartbeat.
    pub(super) fn activity(&self) -> Activity {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Activity {
            worker_id: self.config.worker_id.clone(),
            hostname: self.config.hostname.clone(),
            runner_version: RUNNER_VERSION.to_owned(),
            max_concurrent_jobs: count(self.config.max_jobs.get()),
            active_jobs: count(self.slots.busy()),
            profile: self.profile.clone(),
        }
    }

    /// Ends everything: scripts, requests, waits. Jobs stay in hand, results in the spool.
    pub(super) fn abort(&self) {
        self.aborted.set();
        self.slots.close();
        self.cancel.trigger();
        for stop in [&self.stop_polls, &self.stop_jobs, &self.stop_results] {
            stop.set();
        }
    }

    /// Ends the worker, since it lacks something that it cannot do without: no more jobs, what runs may end.
    pub(super) fn fail(&self, why: &str) {
        self.log.event(Level::Error, EventName::WorkerFailed, &[("error", json!(why))]);
        self.status.note(status::Event::Failed(why.to_owned()));
        // The first reason is the one that counts.
        self.failed.set(why.to_owned()).ok();
        self.slots.close();
    }

    /// Tells whether the worker cannot go on.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Tells whether everything is to end at once.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.is_set()
    }

    /// Writes an event of a job.
    pub(super) fn say(&self, level: Level, event: EventName, job: &Job, more: &[(&str, Value)]) {
        self.log.of_job(level, event, &job.key(), more);
    }

    /// Returns the space that is left for jobs, in MiB, if the kernel tells.
    pub(super) fn free_disk_mb(&self) -> Option<u64> {
        free_mb(self.scratch.path())
    }

    /// Returns which of our folders has the least space left, in MiB, as far as the kernel tells: each may have a disk of its own.
    pub(super) fn fullest_folder(&self) -> Option<(&Path, u64)> {
        let folders = [self.scratch.path(), &self.config.state_dir, &self.config.cache_dir];
        let spaces = folders.into_iter().filter_map(|folder| Some((folder, free_mb(folder)?)));
        spaces.min_by_key(|(_, free_mb)| *free_mb)
    }
}

fn free_mb(folder: &Path) -> Option<u64> {
    free_bytes(folder).map(|bytes| bytes >> 20)
}

/// Attempts without an end.
pub(super) const FOR_EVER: NonZeroU32 = NonZeroU32::MAX;

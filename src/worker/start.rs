//! From a configuration to a worker that can begin, and back to nothing.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::iter;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;

use super::api::Job;
use super::args::{Config, RetrySettings};
use super::cache::{CacheFault, SetupCache};
use super::daemon::{EndingLimits, Troubles};
use super::heartbeat::Heartbeat;
use super::http::{HttpApi, HttpConfig, HttpConfigError, HttpLimits};
use super::log::{EventName, Log};
use super::profile::{self, Profile};
use super::report::Form;
use super::retry::{Policy, RETRY_AFTER_MAX};
use super::sender::Sender;
use super::shared::{FOR_EVER, Worker};
use super::slots::Slots;
use super::spool::{Spool, SpoolError};
use super::state::{Backlog, StateError, StateFolder, Ticket, Waiting};
use super::status::{self, Status, StatusError};
use super::stop::Stop;
use crate::flow::scratch::{CopiesIn, Scratch};
use crate::flow::session::sandbox_in;
use crate::model::verdict::Fault;
use crate::os::archive::ArchiveLimits;
use crate::os::disk::is_full;
use crate::os::engine::{Cancel, EngineError, ScriptRunner, UnsandboxedScriptRunner, can_bound_memory_together};
use crate::os::host;
use crate::os::interrupt::InterruptError;
use crate::os::journal::Level;
use crate::os::process::allow_open_files;
use crate::os::sandbox::{SandboxError, SandboxedScriptRunner, shown_by, shown_in};
use crate::os::workdir::give_to;
use crate::rules::collection::RUNNER_VERSION;

/// Why a worker cannot start. No job was taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("the cache of set-ups cannot be had; name another folder with `--test-setup-cache-dir`")]
    Cache(#[from] CacheFault),
    #[error(transparent)]
    Http(#[from] HttpConfigError),
    #[error("`--sandbox` was asked for; mend what is missing, or do without it if the scripts are trusted")]
    Sandbox(#[from] SandboxError),
    #[error("scripts in the sandbox could read `{path}`, since they see `{by}`; {remedy}", path = path.display(), by = by.display())]
    Shown { path: PathBuf, by: PathBuf, remedy: String },
    #[error(
        "{slots} jobs at once may take {needed} open files, and this process may have {hard}; raise the hard limit (`ulimit -Hn`; \
         systemd: `LimitNOFILE=`; Docker: `--ulimit nofile=`), or take fewer with `--max-jobs`"
    )]
    OpenFiles { slots: usize, needed: u64, hard: u64 },
    #[error("could not make a folder for jobs in `{path}`; name another with TMPDIR", path = path.display())]
    Scratch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
}

impl StartError {
    /// Tells whether it stays so until the operator mends it, so that it is no fault of ours. A disk that is full may not stay so.
    pub(super) fn is_configuration(&self) -> bool {
        match self {
            Self::State(_) | Self::Spool(_) | Self::Cache(_) | Self::Scratch { .. } | Self::Status(_) => {
                !is_for_want_of_disk(self)
            }
            Self::Http(_) | Self::Sandbox(_) | Self::Shown { .. } | Self::OpenFiles { .. } => true,
            Self::Engine(_) | Self::Interrupt(_) => false,
        }
    }
}

/// Tells whether the cause is a disk that takes nothing more: a file system that has failed is read-only from then on.
fn is_for_want_of_disk(error: &(dyn Error + 'static)) -> bool {
    let causes = iter::successors(Some(error), |error| (*error).source());
    let mut errors = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.any(|error| is_full(error) || error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

/// A worker, and what an earlier one of its id had in hand.
pub(super) struct Started {
    pub(super) worker: Worker,
    pub(super) left: Vec<(Job, Ticket)>,
    pub(super) state: StateFolder,
}

/// Sees to everything that a worker needs before it takes a job. Once `cancel` is triggered it takes none, and its profile is not found out.
///
/// # Errors
/// If something cannot be had; nothing is left then.
pub(super) fn start(config: Config, log: &Log, cancel: &Cancel) -> Result<Started, StartError> {
    if config.sandbox {
        refuse_what_scripts_could_read(&config)?;
    }
    allow_files_of_slots(config.max_jobs)?;
    let state = StateFolder::open(&config.state_dir, &config.worker_id)?;
    tell_what_waits_elsewhere(&state, log);
    if let Some(swept) = state.sweep()? {
        log.event(
            Level::Warn,
            EventName::TracesSwept,
            &[("what", json!({ "processes": swept.processes, "removed": swept.removed }))],
        );
        for error in swept.left {
            log.event(Level::Warn, EventName::ScratchLeft, &[("error", json!(error))]);
        }
    }
    let made = Scratch::make(&config.temp_dir);
    let scratch = made.map_err(|source| StartError::Scratch { path: config.temp_dir.clone(), source })?;
    if let Err(error) = state.note_scratch(&scratch) {
        // Nobody else knows of it.
        scratch.remove().ok();
        return Err(error.into());
    }
    let built = build(config, log, &state, scratch).and_then(|(mut worker, left)| {
        if worker.config.discovers_capabilities {
            worker.profile = discover(&worker, cancel)?;
        }
        Ok((worker, left))
    });
    match built {
        Ok((worker, left)) => Ok(Started { worker, left, state }),
        Err(error) => {
            // What stays is swept by the next start.
            state.sweep().ok();
            Err(error)
        }
    }
}

/// Something that is not for scripts.
struct Ours<'a> {
    path: &'a Path,
    /// To root's scripts as well, which are nobody's; those of an ordinary user have that user's rights.
    is_open: bool,
    /// What lies in it could be named, and so be shown whatever the modes of the folders above.
    has_known_names: bool,
    elsewhere: &'static str,
}

fn ours(config: &Config) -> Vec<Ours<'_>> {
    let folder = |path, has_known_names, elsewhere| Ours { path, is_open: false, has_known_names, elsewhere };
    let file = |path, elsewhere| Ours { path, is_open: true, has_known_names: false, elsewhere };
    let is_for_everybody =
        |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
    let is_readable = |path: &&PathBuf| if host::is_root() { is_for_everybody(path) } else { File::open(path).is_ok() };
    let secrets = config.secret_files.iter().filter(is_readable).map(|path| file(path, "put the secret elsewhere"));
    // It tells of everybody's jobs, and everybody may read it.
    let status = config.status_file.iter().map(|path| file(path, "name another file with `--status-file`"));
    let folders = [
        folder(&config.state_dir, true, "name another folder with `--state-dir`"),
        folder(&config.cache_dir, true, "name another folder with `--test-setup-cache-dir`"),
        // Submissions are unpacked there.
        folder(&config.temp_dir, false, "name another folder with TMPDIR"),
    ];
    secrets.chain(status).chain(folders).collect()
}

/// # Errors
/// If sandboxed scripts could read something of ours.
fn refuse_what_scripts_could_read(config: &Config) -> Result<(), StartError> {
    let shown = &config.sandbox_settings.shows;
    for Ours { path, is_open, has_known_names, elsewhere } in ours(config) {
        let whole = shown_by(path, shown).filter(|_| is_open || !host::is_root());
        let part = || shown_in(path, shown).filter(|_| has_known_names);
        let Some(by) = whole.or_else(part) else { continue };
        let is_asked_for = shown.iter().any(|asked_for| asked_for == by);
        let or_else = if is_asked_for { ", or take that from RUNNER_SANDBOX_SHOWS" } else { "" };
        let remedy = format!("{elsewhere}{or_else}");
        return Err(StartError::Shown { path: path.to_owned(), by: by.to_owned(), remedy });
    }
    Ok(())
}

/// What a worker has open for each job, and beside: with jobs that do nothing but wait, 7 and 14 were counted. The rest is for
/// connections, for folders that are copied and removed, and for the languages that are asked for their versions at start-up.
const FILES_OF_SLOT: u64 = 24;
const FILES_BESIDE: u64 = 128;

/// # Errors
/// If so many files cannot be had.
fn allow_files_of_slots(slots: NonZeroUsize) -> Result<(), StartError> {
    let needed = FILES_BESIDE + FILES_OF_SLOT * slots.get() as u64;
    allow_open_files(needed).map_err(|hard| StartError::OpenFiles { slots: slots.get(), needed, hard })
}

/// Warns of results and jobs that wait for a worker that is not there: one whose id was another, as that of a container is that has
/// a new name each time.
fn tell_what_waits_elsewhere(state: &StateFolder, log: &Log) {
    for Waiting { folder, id, backlog: Backlog { results, jobs } } in state.waiting_elsewhere() {
        let id = id.map_or_else(|| "the id that its name was made of".to_owned(), |id| format!("`--worker-id {id}`"));
        let remedy = format!(
            "start a worker with this state folder, {id} and `--once`: it does the jobs and sends the results; give workers ids that stay"
        );
        let fields =
            [("folder", json!(folder)), ("results", json!(results)), ("jobs", json!(jobs)), ("remedy", json!(remedy))];
        log.event(Level::Warn, EventName::ResultsElsewhere, &fields);
    }
}

/// Ends the engine's helpers, and removes what jobs worked in.
pub(super) fn take_down(worker: Worker, state: &StateFolder) {
    let Worker { runner, scratch, log, .. } = worker;
    drop(runner);
    let removed = scratch.remove();
    // What stays is swept by the next start.
    match removed.and_then(|()| state.forget_scratch(&scratch).map_err(|error| Fault::new(&error))) {
        Ok(()) => {}
        Err(fault) => log.event(Level::Warn, EventName::ScratchLeft, &[("error", json!(fault.to_string()))]),
    }
}

fn build(
    config: Config,
    log: &Log,
    state: &StateFolder,
    scratch: Scratch,
) -> Result<(Worker, Vec<(Job, Ticket)>), StartError> {
    let runner = runner(&config, &scratch, log)?;
    let search_path = config.search_path.clone();
    let (spool, foreign) = Spool::open(state.spool_dir(), state.rejected_dir())?;
    tell_files(log, EventName::ResultSetAside, &foreign);
    let waiting = spool.waiting();
    let in_hand = state.jobs_in_hand()?;
    let left = in_hand.left()?;
    tell_files(log, EventName::JobFileBroken, &left.set_aside);
    let waits = Backlog { results: waiting.len(), jobs: left.jobs.len() };
    state.belong_to(&config.api.identity(), waits)?;
    let [stop_polls, stop_jobs, stop_results] = [(); 3].map(|()| Stop::default());
    let cache = SetupCache::open(&config.cache_dir, config.cache_bytes_max, stop_jobs.clone())?;
    let api = |stop: &Stop| HttpApi::new(&http_config(&config), stop.clone());
    let worker = Worker {
        form: if config.secret.is_some() { Form::Report } else { Form::Bare },
        log: log.clone(),
        status: Status::new(identity(&config), config.status_file.clone()),
        profile: None,
        polls_api: Box::new(api(&stop_polls)?),
        jobs_api: Box::new(api(&stop_jobs)?),
        results_api: Box::new(api(&stop_results)?),
        stop_polls,
        stop_jobs,
        stop_results,
        aborted: Stop::default(),
        cancel: Cancel::new()?,
        // One server of files must not hold every slot for as long as it likes.
        downloads: Policy { asked_max: config.retry.max, ..policy(config.retry, config.retry.download_attempts_max) },
        // The next one says the same, and more: only silence makes a server give jobs away.
        heartbeats: Policy {
            time_max: config.heartbeat_interval,
            ..policy(config.retry, config.retry.heartbeat_attempts_max)
        },
        polls: policy(config.retry, FOR_EVER),
        troubles: Troubles::default(),
        failed: OnceLock::new(),
        ending_limits: EndingLimits::default(),
        slots: Slots::new(config.max_jobs.get()),
        heartbeat: Heartbeat::new(config.heartbeat_interval),
        sender: Sender::new(policy(config.retry, config.retry.upload_attempts_max), waiting),
        spool,
        in_hand,
        cache,
        archive_limits: ArchiveLimits::default(),
        copies_in: if config.sandbox { CopiesIn::Sandbox } else { CopiesIn::Memory },
        scratch,
        search_path,
        runner,
        config,
    };
    worker.status.begin()?;
    Ok((worker, left.jobs))
}

fn identity(config: &Config) -> status::Identity {
    status::Identity {
        worker_id: config.worker_id.clone(),
        runner_version: RUNNER_VERSION.to_owned(),
        slots: u32::try_from(config.max_jobs.get()).unwrap_or(u32::MAX),
    }
}

fn tell_files(log: &Log, event: EventName, names: &[OsString]) {
    for name in names {
        log.event(Level::Warn, event, &[("file", json!(name.to_string_lossy()))]);
    }
}

/// Finds out what scripts can run, behind their walls and in a folder of its own. `None` if that was cut short.
fn discover(worker: &Worker, cancel: &Cancel) -> Result<Option<Profile>, StartError> {
    let Worker { config, scratch, log, .. } = worker;
    let base = if config.sandbox { scratch.sandboxed() } else { scratch.path().to_owned() };
    // It keeps a place for each program, which jobs may never need.
    let runner: Box<dyn ScriptRunner> = if config.sandbox {
        Box::new(sandbox(config, scratch, true)?)
    } else {
        Box::new(UnsandboxedScriptRunner::new())
    };
    let made = scratch.folder_in(&base).and_then(|folder| {
        runner.owner_of_work().map_or(Ok(()), |owner| give_to(&folder, owner))?;
        Ok(folder)
    });
    let folder = made.map_err(|source| StartError::Scratch { path: base, source })?;
    let profile = profile::discover(&*runner, cancel, &config.search_path, &folder);
    if cancel.is_triggered() {
        return Ok(None);
    }
    let languages: Vec<_> =
        profile.language_versions.iter().map(|one| format!("{} {}", one.language, one.version)).collect();
    log.event(Level::Info, EventName::ProfileFound, &[("languages", json!(languages))]);
    Ok(Some(profile))
}

fn runner(config: &Config, scratch: &Scratch, log: &Log) -> Result<Box<dyn ScriptRunner>, StartError> {
    if !config.sandbox {
        return Ok(Box::new(UnsandboxedScriptRunner::new()));
    }
    let sandbox = sandbox(config, scratch, false)?;
    let memory = if can_bound_memory_together() { "together" } else { "each process" };
    log.event(Level::Info, EventName::SandboxReady, &[("memory", json!(memory))]);
    Ok(Box::new(sandbox))
}

fn sandbox(config: &Config, scratch: &Scratch, is_tried: bool) -> Result<SandboxedScriptRunner, SandboxError> {
    sandbox_in(scratch, &config.sandbox_settings.shows, config.sandbox_settings.limits, is_tried)
}

fn policy(settings: RetrySettings, attempts_max: std::num::NonZeroU32) -> Policy {
    Policy {
        base: settings.base,
        max: settings.max,
        asked_max: RETRY_AFTER_MAX,
        time_max: Duration::MAX,
        attempts_max,
        is_on: settings.is_on,
    }
}

fn http_config(config: &Config) -> HttpConfig<'_> {
    HttpConfig {
        base_url: config.api.as_str(),
        worker_id: &config.worker_id,
        secret: config.secret.as_ref().map(super::args::Secret::text),
        ca_file: config.ca_file.as_deref(),
        limits: HttpLimits::default(),
    }
}

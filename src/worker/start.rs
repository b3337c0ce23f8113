//! From a configuration to a worker that can begin, and back to nothing.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::{Config, RetrySettings};
use super::cache::{CacheFault, SetupCache};
use super::heartbeat::Heartbeat;
use super::http::{HttpApi, HttpConfig, HttpConfigError, HttpLimits};
use super::log::{EventName, Log};
use super::profile::{self, Profile};
use super::report::Form;
use super::retry::Policy;
use super::sender::Sender;
use super::shared::{FOR_EVER, Worker};
use super::slots::Slots;
use super::spool::{Spool, SpoolError};
use super::state::{StateError, StateFolder, Ticket};
use super::status::{self, Status};
use super::stop::Stop;
use crate::flow::scratch::{CopiesIn, Scratch};
use crate::model::verdict::Fault;
use crate::os::archive::ArchiveLimits;
use crate::os::engine::{Cancel, EngineError, ScriptRunner, UnsandboxedScriptRunner, can_bound_memory_together};
use crate::os::host;
use crate::os::interrupt::InterruptError;
use crate::os::journal::Level;
use crate::os::sandbox::{SandboxError, SandboxedScriptRunner, shows};
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
    #[error("scripts in the sandbox could read `{path}`, since they see /usr, /etc and /opt; put it elsewhere", path = .0.display())]
    Shown(PathBuf),
    #[error("could not make a folder for jobs in `{path}`; name another with TMPDIR", path = path.display())]
    Scratch {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
}

impl StartError {
    /// Tells whether the operator can mend it, so that it is no fault of ours.
    pub(super) fn is_configuration(&self) -> bool {
        match self {
            Self::State(_)
            | Self::Cache(_)
            | Self::Http(_)
            | Self::Sandbox(_)
            | Self::Shown(_)
            | Self::Scratch { .. } => true,
            Self::Spool(_) | Self::Engine(_) | Self::Interrupt(_) => false,
        }
    }
}

/// A worker, and what an earlier one of its id had in hand.
pub(super) struct Started {
    pub(super) worker: Worker,
    pub(super) left: Vec<Ticket>,
    pub(super) state: StateFolder,
}

/// Sees to everything that a worker needs before it takes a job.
///
/// # Errors
/// If something cannot be had; nothing is left then.
pub(super) fn start(config: Config, log: &Log) -> Result<Started, StartError> {
    match readable_in_sandbox(&config) {
        Some(path) if config.sandbox => return Err(StartError::Shown(path.to_owned())),
        Some(_) | None => {}
    }
    let state = StateFolder::open(&config.state_dir, &config.worker_id)?;
    if let Some(swept) = state.sweep()? {
        log.event(
            Level::Warn,
            EventName::TracesSwept,
            &[("what", json!({ "processes": swept.processes, "removed": swept.removed }))],
        );
    }
    let made = Scratch::make(&config.temp_dir);
    let scratch = made.map_err(|source| StartError::Scratch { path: config.temp_dir.clone(), source })?;
    let noted = state.note_scratch(&scratch).map_err(StartError::from);
    match noted.and_then(|()| build(config, log, &state, scratch)) {
        Ok((worker, left)) => Ok(Started { worker, left, state }),
        Err(error) => {
            // What stays is swept by the next start.
            state.sweep().ok();
            Err(error)
        }
    }
}

/// Returns something of ours that sandboxed scripts could read. Those of an ordinary user have that user's rights, those of root nobody's.
fn readable_in_sandbox(config: &Config) -> Option<&Path> {
    let are_scripts_we = !host::is_root();
    let folders = [&config.state_dir, &config.cache_dir].into_iter().filter(|_| are_scripts_we);
    let is_readable = |path: &&PathBuf| {
        let metadata = fs::metadata(path);
        metadata.is_ok_and(|metadata| are_scripts_we || metadata.permissions().mode() & 0o004 != 0)
    };
    let mut ours = folders.chain(config.secret_files.iter().filter(is_readable));
    ours.find(|path| shows(path)).map(PathBuf::as_path)
}

/// Ends the engine's helpers, and removes what jobs worked in.
pub(super) fn take_down(worker: Worker, state: &StateFolder) {
    let Worker { runner, scratch, log, .. } = worker;
    drop(runner);
    let removed = scratch.remove().map_err(|error| Fault::new(&error));
    // What stays is swept by the next start.
    match removed.and_then(|()| state.forget_scratch().map_err(|error| Fault::new(&error))) {
        Ok(()) => {}
        Err(fault) => log.event(Level::Warn, EventName::ScratchLeft, &[("error", json!(fault.to_string()))]),
    }
}

fn build(
    config: Config,
    log: &Log,
    state: &StateFolder,
    scratch: Scratch,
) -> Result<(Worker, Vec<Ticket>), StartError> {
    let runner = runner(&config, &scratch, log)?;
    let search_path = config.search_path.clone();
    let profile = config.discovers_capabilities.then(|| discover(&search_path, &scratch, log)).transpose()?;
    let (spool, foreign) = Spool::open(state.spool_dir(), state.rejected_dir())?;
    tell_files(log, EventName::ResultSetAside, &foreign);
    let waiting = spool.waiting();
    let in_hand = state.jobs_in_hand()?;
    let left = in_hand.left()?;
    tell_files(log, EventName::JobFileBroken, &left.set_aside);
    let cache = SetupCache::open(&config.cache_dir, config.cache_bytes_max)?;
    let [stop_polls, stop_jobs, stop_results] = [(); 3].map(|()| Stop::default());
    let api = |stop: &Stop| HttpApi::new(&http_config(&config), stop.clone());
    let worker = Worker {
        form: if config.secret.is_some() { Form::Report } else { Form::Bare },
        log: log.clone(),
        status: Status::new(identity(&config), config.status_file.clone()),
        profile,
        polls_api: Box::new(api(&stop_polls)?),
        jobs_api: Box::new(api(&stop_jobs)?),
        results_api: Box::new(api(&stop_results)?),
        stop_polls,
        stop_jobs,
        stop_results,
        aborted: Stop::default(),
        cancel: Cancel::new()?,
        downloads: policy(config.retry, config.retry.download_attempts_max),
        heartbeats: policy(config.retry, config.retry.heartbeat_attempts_max),
        polls: policy(config.retry, FOR_EVER),
        slots: Slots::new(config.max_jobs.get()),
        heartbeat: Heartbeat::default(),
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

/// Finds out what this machine can run, in a folder of its own.
fn discover(search_path: &OsStr, scratch: &Scratch, log: &Log) -> Result<Profile, StartError> {
    let made = scratch.folder().map_err(|source| StartError::Scratch { path: scratch.path().to_owned(), source });
    let folder = made?;
    let profile = profile::discover(&UnsandboxedScriptRunner::new(), search_path, &folder, &folder);
    let languages: Vec<_> =
        profile.language_versions.iter().map(|one| format!("{} {}", one.language, one.version)).collect();
    log.event(Level::Info, EventName::ProfileFound, &[("languages", json!(languages))]);
    Ok(profile)
}

fn runner(config: &Config, scratch: &Scratch, log: &Log) -> Result<Box<dyn ScriptRunner>, StartError> {
    if !config.sandbox {
        return Ok(Box::new(UnsandboxedScriptRunner::new()));
    }
    let sandbox = SandboxedScriptRunner::new(&scratch.sandboxed(), &config.sandbox_shows, config.sandbox_limits)?;
    sandbox.probe()?;
    let memory = if can_bound_memory_together() { "together" } else { "each process" };
    log.event(Level::Info, EventName::SandboxReady, &[("memory", json!(memory))]);
    Ok(Box::new(sandbox))
}

fn policy(settings: RetrySettings, attempts_max: std::num::NonZeroU32) -> Policy {
    Policy { base: settings.base, max: settings.max, attempts_max, is_on: settings.is_on }
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

//! `chickadee-runner`: polls an API server for jobs, runs their scripts, reports what came of it.

mod api;
mod args;
mod cache;
mod daemon;
mod heartbeat;
mod http;
mod lock;
mod log;
mod profile;
pub(crate) mod read;
mod rejected;
mod report;
mod retry;
mod sender;
#[cfg(test)]
#[path = "../../tests/worker/server/mod.rs"]
mod server;
mod shared;
mod sign;
mod slots;
mod spool;
mod start;
mod state;
mod status;
mod stop;
mod work;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser as _;

use crate::model::verdict::Fault;
use crate::os::engine::Leaf;
use crate::os::interrupt::{Arrived, Interrupt};
use crate::os::journal::Level;
use crate::rules::collection::RUNNER_VERSION;
use args::{Config, Flags};
use daemon::{Ended, work};
use log::{EventName, Log};
use serde_json::json;
use shared::Worker;
use start::{Started, start};

/// The command line or the environment is wrong, or what was asked for cannot be had; no job was taken.
const CONFIGURATION: u8 = 2;
/// We failed, a result is lost, or with `--once` something that was there is not done.
const FAULT: u8 = 3;

/// Runs `chickadee-runner`: the whole of its `main`.
///
/// Returns 0 if it was told to end and has, or with `--once` when there was nothing left to do; 2 if the command line or the environment is
/// wrong, or this machine cannot give what it asks for; 3 if the worker itself failed, found a disk full at its start, or has lost a
/// result, or with `--once` something is left; 129, 130 or 143 after a second SIGHUP, SIGINT or SIGTERM.
#[must_use]
pub fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            // Help and version are such errors too. Nobody may be listening.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(CONFIGURATION));
        }
    };
    match Config::read(flags) {
        Ok(config) => run(config),
        Err(error) => {
            // There is no log yet. Nobody may be listening.
            writeln!(io::stderr(), "error: {}", Fault::new(&error)).ok();
            ExitCode::from(CONFIGURATION)
        }
    }
}

fn run(config: Config) -> ExitCode {
    let _leaf = Leaf::enter();
    let log = match Log::new(&config.worker_id, config.log_format) {
        Ok(log) => log,
        Err(error) => {
            writeln!(io::stderr(), "error: could not start a thread for the log ({error}); allow more (`ulimit -u`)")
                .ok();
            return ExitCode::from(FAULT);
        }
    };
    let code = logged(config, &log);
    log.finish();
    code
}

fn logged(config: Config, log: &Log) -> ExitCode {
    if let Some(secret) = &config.secret {
        log.hide(secret.clone());
    }
    for warning in &config.warnings {
        log.event(Level::Warn, EventName::ConfigurationWarning, &[("warning", json!(warning.to_string()))]);
    }
    let outcome = Interrupt::new().map_err(|error| Fault::new(&error)).map(|interrupt| live(config, log, &interrupt));
    let (code, why) = match outcome {
        Ok(Ok(code)) => return code,
        Ok(Err(error)) => (if error.is_configuration() { CONFIGURATION } else { FAULT }, Fault::new(&error)),
        Err(fault) => (FAULT, fault),
    };
    log.event(Level::Error, EventName::WorkerStopped, &[("error", json!(why.to_string()))]);
    ExitCode::from(code)
}

/// From the start to the end of a worker.
fn live(config: Config, log: &Log, interrupt: &Interrupt) -> Result<ExitCode, start::StartError> {
    let told = Arc::<Mutex<Told>>::default();
    let listener = Arc::clone(&told);
    // First of all: a signal that the first process of a container does not listen for is lost (pid_namespaces(7)).
    interrupt.listen(move |arrived| tell(&listener, |told| told.last = Some(arrived)))?;
    let Started { worker, left, state } = start(config, log, interrupt.work())?;
    let worker = Arc::new(worker);
    tell(&told, |told| told.worker = Arc::downgrade(&worker));
    tell_started(&worker);
    let ended = work(&worker, left);
    let why = worker.failed.get().cloned();
    match ours_alone(worker) {
        Some(worker) => start::take_down(worker, &state),
        None => {
            let why = "a thread of the worker does not end";
            log.event(Level::Warn, EventName::ScratchLeft, &[("error", json!(why))]);
        }
    }
    let (level, code) = match ended {
        Ended::Drained => (Level::Info, ExitCode::SUCCESS),
        Ended::Unreachable
        | Ended::ResultsLost
        | Ended::Hindered
        | Ended::Unsent
        | Ended::Unfinished
        | Ended::Failed => (Level::Error, ExitCode::from(FAULT)),
        Ended::Aborted => (Level::Info, interrupt.exit_code().unwrap_or(ExitCode::from(FAULT))),
    };
    // It may have failed before it was told to end at once.
    let level = if why.is_some() { Level::Error } else { level };
    let mut fields = vec![("how", json!(ended.as_str()))];
    fields.extend(why.map(|why| ("error", json!(why))));
    log.event(level, EventName::WorkerStopped, &fields);
    Ok(code)
}

/// Who is told of signals.
#[derive(Default)]
struct Told {
    /// Kept, since it may come before there is a worker.
    last: Option<Arrived>,
    /// Only as long as there is one: at the end it is taken apart.
    worker: Weak<Worker>,
}

/// Changes who is told of what, and tells it.
fn tell(told: &Mutex<Told>, change: impl FnOnce(&mut Told)) {
    // Each change is one step.
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut told);
    let Some(worker) = told.worker.upgrade() else { return };
    match told.last {
        Some(Arrived::First) => worker.slots.close(),
        Some(Arrived::Again) => worker.abort(),
        None => {}
    }
}

/// Waits until nobody else has it, be it a thread that ends or the listener, which tells it something; `None` if somebody keeps it.
fn ours_alone(mut worker: Arc<Worker>) -> Option<Worker> {
    const LIMIT: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    loop {
        worker = match Arc::try_unwrap(worker) {
            Ok(worker) => return Some(worker),
            Err(_) if begun.elapsed() >= LIMIT => return None,
            Err(shared) => shared,
        };
        thread::sleep(Duration::from_millis(1));
    }
}

fn tell_started(worker: &Worker) {
    let config = &worker.config;
    let fields = [
        ("version", json!(RUNNER_VERSION)),
        ("api", json!(config.api.as_str())),
        ("slots", json!(config.max_jobs)),
        ("sandbox", json!(config.sandbox)),
        ("signed", json!(config.secret.is_some())),
        ("state_dir", json!(config.state_dir)),
        ("cache_dir", json!(config.cache_dir)),
    ];
    worker.log.event(Level::Info, EventName::WorkerStarted, &fields);
}

//! The threads of a worker. Nobody joins them: one that cannot be ended must not keep the process.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use serde_json::json;

use crate::model::verdict::Fault;
use crate::os::journal::Level;
use crate::worker::api::ApiError;
use crate::worker::log::EventName;
use crate::worker::retry::with_retries;
use crate::worker::sender::Post;
use crate::worker::shared::Worker;
use crate::worker::status;
use crate::worker::work::{CarriedOut, Claimed};

/// What is done to a job.
pub(super) type CarryOut = fn(&Worker, Claimed) -> CarriedOut;

/// Starts every thread of a worker; `poll` is what the one that polls does, `carry_out` what those of the slots do.
///
/// # Errors
/// If the system has no more threads for us. Those that were started end with the worker.
pub(super) fn start(
    worker: &Arc<Worker>,
    carry_out: CarryOut,
    poll: impl FnOnce(&Worker) + Send + 'static,
) -> io::Result<()> {
    for slot in 1..=worker.config.max_jobs.get() {
        spawn(worker, &format!("slot {slot}"), move |worker| work_in_slot(worker, carry_out))?;
    }
    spawn(worker, "results", send_results)?;
    spawn(worker, "heartbeat", |worker| worker.heartbeat.run(&|| beat(worker)))?;
    spawn(worker, "polls", poll)
}

/// Starts a thread that the worker cannot do without: its panic is the worker's end, not a worker that does less.
fn spawn(worker: &Arc<Worker>, name: &str, work: impl FnOnce(&Worker) + Send + 'static) -> io::Result<()> {
    let (theirs, called) = (Arc::clone(worker), name.to_owned());
    let run = move || {
        if catch_unwind(AssertUnwindSafe(|| work(&theirs))).is_err() {
            theirs.fail(&format!("its thread `{called}` panicked"));
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

fn work_in_slot(worker: &Worker, carry_out: CarryOut) {
    while let Some(claimed) = worker.slots.take() {
        let key = claimed.key();
        worker.status.note(status::Event::JobTaken(key.clone()));
        worker.heartbeat.begin();
        // A bug of ours must not cost the slot. The job is on record, for the next start.
        let carried_out = catch_unwind(AssertUnwindSafe(|| carry_out(worker, claimed))).unwrap_or_else(|_| {
            let why = "the worker panicked over its result; the next start takes it up again";
            worker.log.of_job(Level::Error, EventName::JobFailed, &key, &[("error", json!(why))]);
            worker.status.note(status::Event::Failed(why.to_owned()));
            CarriedOut::Left
        });
        worker.status.note(match carried_out {
            CarriedOut::Done => status::Event::JobDone(key),
            CarriedOut::Left => status::Event::JobLeft(key),
        });
        worker.slots.done();
        // Last, since it tells how many slots have a job.
        worker.heartbeat.end();
    }
}

fn send_results(worker: &Worker) {
    let (spool, in_hand) = (&worker.spool, &worker.in_hand);
    let (log, status, troubles) = (&worker.log, &worker.status, &worker.troubles);
    worker.sender.run(&Post { api: &*worker.results_api, spool, in_hand, log, status, troubles });
}

fn beat(worker: &Worker) {
    let sent = with_retries(&worker.heartbeats, &worker.stop_results, &mut |_, _, _| {}, || {
        worker.results_api.heartbeat(&worker.activity())
    });
    match sent {
        Ok(()) | Err(ApiError::Stopped) => {}
        Err(error) => {
            let error = Fault::new(&error).to_string();
            worker.log.event(Level::Warn, EventName::HeartbeatFailed, &[("error", json!(error))]);
        }
    }
}

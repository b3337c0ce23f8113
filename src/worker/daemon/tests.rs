//! Workers whose parts fail as no server can make them.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;

use super::*;
use crate::os::engine::Cancel;
use crate::os::interrupt::Arrived;
use crate::worker::api::{Activity, JobApi};
use crate::worker::args::{Config, Flags};
use crate::worker::log::{Format, Log};
use crate::worker::start::{self, start};
use crate::worker::{Told, tell};

/// A server that has one job, and does in a call what a test wants.
#[derive(Clone, Copy)]
struct Api {
    polled: fn() -> Result<Polled, ApiError>,
    reported: fn() -> Result<(), ApiError>,
    fetched: fn() -> Result<u64, ApiError>,
}

const IDLE: Api = Api { polled: || Ok(Polled::Nothing), reported: || Ok(()), fetched: || Err(ApiError::Stopped) };

impl JobApi for Api {
    fn request(&self, _: &Activity) -> Result<Polled, ApiError> {
        (self.polled)()
    }

    fn heartbeat(&self, _: &Activity) -> Result<(), ApiError> {
        Ok(())
    }

    fn report(&self, _: &[u8]) -> Result<(), ApiError> {
        (self.reported)()
    }

    fn download(&self, _: &str, _: &mut File, _: u64) -> Result<u64, ApiError> {
        (self.fetched)()
    }
}

fn a_job() -> Result<Polled, ApiError> {
    let text = r#"{"submissionID":"s1","testSetupID":"t","attemptNumber":1,"submissionURL":"http://a/s","testSetupURL":"http://a/t",
        "manifest":{"schemaVersion":1}}"#;
    Ok(Polled::Job(Box::new(serde_json::from_str(text).unwrap())))
}

/// What became of a worker.
struct Outcome {
    ended: Ended,
    why: Option<String>,
    /// Files of jobs that are in hand, and of results that wait.
    left: [usize; 2],
}

/// A worker with `api`, from its start to its end; `meanwhile` gets it before.
fn run(api: Api, meanwhile: impl FnOnce(&Arc<Worker>)) -> Outcome {
    run_with(&[], carry_out, api, meanwhile)
}

/// The same with more on its command line, and what is done to a job.
fn run_with(more: &[&str], carry_out: CarryOut, api: Api, meanwhile: impl FnOnce(&Arc<Worker>)) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let args = ["chickadee-runner", "--worker-id", "w", "--max-jobs", "1", "--drain-limit", "1"];
    let (state, cache) = (path("state"), path("cache"));
    let folders = ["--state-dir", &state, "--test-setup-cache-dir", &cache];
    let args = args.into_iter().chain(folders).chain(more.iter().copied());
    let mut config = Config::read(Flags::try_parse_from(args).unwrap()).unwrap();
    config.discovers_capabilities = false;
    let started = start(config, &Log::new("w", Format::Json).unwrap(), &Cancel::new().unwrap()).unwrap();
    let mut worker = started.worker;
    for part in [&mut worker.polls_api, &mut worker.jobs_api, &mut worker.results_api] {
        *part = Box::new(api);
    }
    worker.ending_limits = EndingLimits { cancelled: SHORT, aborted: SHORT };
    let worker = Arc::new(worker);
    meanwhile(&worker);
    let ended = work_with(carry_out, &worker, started.left);
    let why = worker.failed.get().cloned();
    if let Ok(worker) = Arc::try_unwrap(worker) {
        start::take_down(worker, &started.state);
    }
    let files = |name: &str| std::fs::read_dir(Path::new(&state).join("w").join(name)).unwrap().count();
    Outcome { ended, why, left: ["in-hand", "spool"].map(files) }
}

const SHORT: Duration = Duration::from_millis(10);

#[test]
fn a_panic_of_the_thread_that_polls_is_the_workers_end() {
    let outcome = run(Api { polled: || panic!("a bug"), ..IDLE }, |_| {});
    assert_eq!(outcome.ended, Ended::Failed);
    assert!(outcome.why.unwrap().contains("`polls` panicked"));
}

#[test]
fn a_panic_of_the_thread_that_sends_is_the_workers_end_and_the_result_stays() {
    let outcome = run(Api { polled: a_job, reported: || panic!("a bug"), ..IDLE }, |_| {});
    assert_eq!((outcome.ended, outcome.left), (Ended::Failed, [0, 1]));
    assert!(outcome.why.unwrap().contains("`results` panicked"));
}

static HANGING: AtomicUsize = AtomicUsize::new(0);

/// A job that never ends, as in a file system that hangs.
fn hangs() -> Result<u64, ApiError> {
    HANGING.fetch_add(1, Ordering::SeqCst);
    loop {
        std::thread::park();
    }
}

#[test]
fn a_job_that_cannot_be_ended_does_not_keep_the_worker() {
    let once_it_hangs = |worker: &Arc<Worker>, number: usize, act: fn(&Worker)| {
        let worker = Arc::clone(worker);
        std::thread::spawn(move || {
            while HANGING.load(Ordering::SeqCst) < number {
                std::thread::yield_now();
            }
            act(&worker);
        });
    };
    let outcome = run(Api { polled: a_job, fetched: hangs, ..IDLE }, |worker| {
        once_it_hangs(worker, 1, |worker| worker.slots.close());
    });
    assert_eq!((outcome.ended, outcome.left), (Ended::Failed, [1, 0]), "the job stays in hand");
    assert!(outcome.why.unwrap().contains("1 jobs that were told to end did not"));
    let outcome = run(Api { polled: a_job, fetched: hangs, ..IDLE }, |worker| once_it_hangs(worker, 2, Worker::abort));
    assert_eq!((outcome.ended, outcome.left), (Ended::Aborted, [1, 0]));
}

#[test]
fn a_panic_over_a_job_costs_neither_the_slot_nor_the_job() {
    let outcome = run(Api { polled: a_job, fetched: || panic!("a bug"), ..IDLE }, |worker| {
        let worker = Arc::clone(worker);
        std::thread::spawn(move || {
            while worker.slots.ended() == 0 {
                std::thread::yield_now();
            }
            worker.slots.close();
        });
    });
    assert_eq!((outcome.ended, outcome.why, outcome.left), (Ended::Drained, None, [0, 0]), "it was reported");
}

#[test]
fn a_panic_over_a_result_leaves_the_job_in_hand_and_one_that_runs_once_tells_that() {
    static POLLS: AtomicUsize = AtomicUsize::new(0);
    let polled = || if POLLS.fetch_add(1, Ordering::SeqCst) == 0 { a_job() } else { Ok(Polled::Nothing) };
    let outcome = run_with(&["--once"], |_, _| panic!("a bug"), Api { polled, ..IDLE }, |_| {});
    assert_eq!((outcome.ended, outcome.left), (Ended::Unfinished, [1, 0]));
}

#[test]
fn a_signal_that_came_before_there_was_a_worker_counts() {
    for (signals, ended) in
        [(&[Arrived::First][..], Ended::Drained), (&[Arrived::First, Arrived::Again], Ended::Aborted)]
    {
        let outcome = run(Api { polled: || panic!("no polls"), ..IDLE }, |worker| {
            let told = Mutex::<Told>::default();
            for signal in signals {
                tell(&told, |told| told.last = Some(*signal));
            }
            tell(&told, |told| told.worker = Arc::downgrade(worker));
        });
        assert_eq!((outcome.ended, outcome.left), (ended, [0, 0]));
    }
}

#[test]
fn nothing_is_waited_for_where_there_is_nothing_to_wait_for() {
    let outcome = run(IDLE, |worker| worker.slots.close());
    assert_eq!((outcome.ended, outcome.left), (Ended::Drained, [0, 0]));
    let outcome = run(IDLE, |worker| worker.abort());
    assert_eq!(outcome.ended, Ended::Aborted);
}

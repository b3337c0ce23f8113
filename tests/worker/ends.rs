//! SIGTERM and SIGINT: the first drains, the second aborts.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::server::{Server, State};
use crate::world::{SECRET, Worker, World, alive, collection, is_infrastructure, own_job, said, until};

fn sleeper(number: u32) -> String {
    format!("sleep {}.{number}", 300_000 + std::process::id() % 100_000)
}

fn polls(state: &State) -> usize {
    state.requests.iter().filter(|seen| seen.path.ends_with("/request")).count()
}

#[test]
fn a_signal_lets_running_jobs_finish_and_takes_no_more() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let server = Server::today(Some(SECRET));
        let world = World::new();
        server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
        server.add_job(own_job("s2", &[("a.sh", "exit 0")]));
        let mut worker = world.start(&server, &["--max-jobs", "1"]);
        until(&|| worker.text(), || world.lines("runs") == 1);
        let before = polls(&server.state());
        worker.signal(signal);
        worker.signal(signal);
        worker.wait_for("drain_started");
        world.open("gate");
        assert!(worker.wait().success(), "{}", worker.text());
        assert_eq!(collection(&server, "s1")["passCount"], 1);
        let state = server.state();
        assert_eq!((polls(&state), state.queue.len(), state.results.len()), (before, 1, 1));
        drop(state);
        world.is_clean();
    }
}

/// Often, since once it sometimes ended before whoever had told it so was done.
#[test]
fn a_worker_with_nothing_to_do_ends_at_once_and_in_order() {
    for signal in [[Signal::SIGTERM; 8], [Signal::SIGINT; 8]].concat() {
        let server = Server::today(Some(SECRET));
        let world = World::new();
        let mut worker = world.start(&server, &[]);
        server.wait_until("a poll", |state| polls(state) > 0);
        worker.signal(signal);
        assert!(worker.wait().success(), "{}", worker.text());
        assert_eq!(said(&worker.events(), "worker_stopped", "how"), ["drained"]);
        assert!(std::fs::read_dir(world.scratch()).unwrap().next().is_none());
    }
}

#[test]
fn what_runs_at_the_drain_limit_is_ended_and_reported_as_no_fault_of_the_student() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let sleeper = sleeper(1);
    for id in ["s1", "s2"] {
        server.add_job(own_job(id, &[("a.sh", &format!("trap '' TERM; {sleeper} & {sleeper}"))]));
    }
    let mut command = world.command(&server);
    command.env("RUNNER_SHARED_SECRET", SECRET).env("RUNNER_DRAIN_LIMIT_SEC", "1");
    let mut worker = world.spawn(&mut command);
    until(&|| worker.text(), || alive(&sleeper).len() == 4);
    worker.finish();
    assert_eq!(alive(&sleeper), Vec::<String>::new());
    for id in ["s1", "s2"] {
        is_infrastructure(&collection(&server, id), "stopped before the job was done");
    }
    assert_eq!(said(&worker.events(), "drain_limit_reached", "jobs"), [2]);
    world.is_clean();
}

/// Signals one worker twice in the middle of a job.
fn abort(worker: &mut Worker, [first, second]: [Signal; 2]) -> Option<i32> {
    worker.signal(first);
    worker.wait_for("drain_started");
    // What comes together is one signal.
    std::thread::sleep(std::time::Duration::from_millis(60));
    worker.signal(second);
    worker.wait().code()
}

#[test]
fn a_second_signal_ends_everything_at_once_and_the_job_is_done_at_the_next_start() {
    const INT: Signal = Signal::SIGINT;
    const TERM: Signal = Signal::SIGTERM;
    for (signals, code) in [([INT, INT], 130), ([TERM, TERM], 143), ([TERM, INT], 130)] {
        let server = Server::today(Some(SECRET));
        let world = World::new();
        let sleeper = sleeper(2);
        let counts = world.counts_in("runs");
        let script = format!("{counts}[ $(wc -l <'{}') -gt 1 ] || {sleeper}", world.path("runs").display());
        server.add_job(own_job("s1", &[("a.sh", &script)]));
        let mut worker = world.start(&server, &[]);
        until(&|| worker.text(), || !alive(&sleeper).is_empty());
        assert_eq!(abort(&mut worker, signals), Some(code), "{}", worker.text());
        assert_eq!(alive(&sleeper), Vec::<String>::new());
        assert_eq!(server.results().len(), 0, "nothing is said of a job that is to be done");
        assert_eq!(said(&worker.events(), "worker_stopped", "how"), ["aborted"]);
        assert!(std::fs::read_dir(world.scratch()).unwrap().next().is_none());
        world.run_once(&server, &[]);
        assert_eq!(collection(&server, "s1")["outcomes"][0]["status"], json!("pass"));
        assert_eq!((server.results()[&("s1".to_owned(), 1)].arrivals, world.lines("runs")), (1, 2));
        world.is_clean();
    }
}

#[test]
fn a_second_signal_ends_a_wait_for_a_server_that_is_down() {
    let mut server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
    let mut worker = world.start(&server, &[]);
    until(&|| worker.text(), || world.lines("runs") == 1);
    server.down();
    world.open("gate");
    worker.wait_for("result_retried");
    assert_eq!(abort(&mut worker, [Signal::SIGTERM; 2]), Some(143), "{}", worker.text());
    server.up();
    world.run_once(&server, &[]);
    assert_eq!((server.results()[&("s1".to_owned(), 1)].arrivals, world.lines("runs")), (1, 1));
    world.is_clean();
}

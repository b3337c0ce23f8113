//! A worker that has nothing to do.

use std::fs;

use nix::sys::signal::Signal;

use crate::server::{Server, State};
use crate::world::{SECRET, Worker, World};

/// For the time of a few polls, in an unoptimised build; a loop that does not sleep uses a hundred in each second.
const TICKS_MAX: u64 = 20;
const POLLS: usize = 4;

/// Source: proc_pid_stat(5): utime and stime are fields 14 and 15.
fn ticks(worker: &Worker) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", worker.pid())).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn an_idle_worker_uses_no_processor_and_ends_without_another_poll() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let mut worker = world.start(&server, &[]);
    let polls = |state: &State| state.requests.iter().filter(|seen| seen.path.ends_with("/request")).count();
    server.wait_until("the first poll", |state| polls(state) >= 1);
    let begun = ticks(&worker);
    server.wait_until("polls, ever more rarely", |state| polls(state) > POLLS);
    let used = ticks(&worker) - begun;
    assert!(used <= TICKS_MAX, "{used} ticks");
    // The next poll is due when more time has gone by than all of them together.
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait().success(), "{}", worker.text());
    assert_eq!(polls(&server.state()), POLLS + 1);
    assert_eq!(world.left(), Vec::<std::path::PathBuf>::new());
    assert!(server.state().heartbeats.is_empty() && server.violations().is_empty());
}

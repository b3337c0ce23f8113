//! SIGTERM and SIGINT: the first drains, the second aborts.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::server::{Fault, Route, Server, State};
use crate::world::{
    SECRET, Worker, World, alive, collection, is_ci, is_infrastructure, is_root, job, own_job, said, until,
};

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
        assert_eq!(said(&worker.events(), "worker_stopped", "level"), ["info"]);
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

#[test]
fn the_server_hears_of_the_end_of_a_job_that_was_ended_at_the_drain_limit() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
    let mut worker = world.start(&server, &["--drain-limit", "0"]);
    until(&|| worker.text(), || world.lines("runs") == 1);
    worker.finish();
    assert_eq!(said(&worker.events(), "drain_limit_reached", "jobs"), [1]);
    let last = server.state().heartbeats.last().cloned().unwrap();
    assert_eq!(last["activeJobs"], 0, "{last}");
}

/// The processes that this one has started.
fn children(pid: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let is_child =
        |stat: &String| stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&pid.to_string());
    stats.filter(is_child).map(|stat| Pid::from_raw(stat.split(' ').next().unwrap().parse().unwrap())).collect()
}

/// From the first process of a container the kernel keeps every signal that it does not listen for: pid_namespaces(7).
#[test]
#[expect(clippy::print_stderr, reason = "what was not tried has to be said")]
fn one_signal_during_its_start_ends_a_worker_that_is_the_first_process_of_its_container() {
    if !is_root() {
        assert!(!is_ci(), "CI must make a PID namespace, which takes root");
        return eprintln!("NOT TRIED: a worker that is the first process of its container; that takes root");
    }
    let server = Server::today(Some(SECRET));
    let world = World::new();
    // The start waits for programs that are asked for their versions.
    let program = world.path("node");
    std::fs::write(&program, format!("#!/bin/sh\ntouch '{}'\nexec sleep 600\n", world.path("asked").display()))
        .unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = world.wrapped(&server, &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", world.dir.path().display()));
    let mut worker = world.spawn(command.env("RUNNER_CAPABILITY_DISCOVERY_ENABLED", "yes"));
    until(&|| worker.text(), || world.path("asked").exists());
    let first_processes = children(worker.pid());
    assert_eq!(first_processes.len(), 1, "{first_processes:?}");
    kill(first_processes[0], Signal::SIGTERM).unwrap();
    let told = || "it neither ends nor polls".to_owned();
    until(&told, || worker.child.try_wait().unwrap().is_some() || !server.requests().is_empty());
    assert!(server.requests().is_empty(), "it works on: {}", worker.text());
    assert_eq!(worker.wait().code(), Some(0), "{}", worker.text());
    assert_eq!(said(&worker.events(), "worker_stopped", "how"), ["drained"]);
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
        assert_eq!(said(&worker.events(), "worker_stopped", "level"), ["info"]);
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

/// 99: a worker whose job waits for a set-up that another worker of the user fetches, who is stopped in the middle of it.
fn waits_for_another(act: impl FnOnce(&Server, &World, &mut Worker)) {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.script(Route::Files, [Fault::Stall]);
    server.add_job(job("s1", &[("a.sh", "exit 0")]));
    let mut other = world.command_named(&server, "other", "json");
    // With a second slot it might have a poll under way that takes the next job.
    let other = world.spawn(other.args(["--max-jobs", "1"]).env("RUNNER_SHARED_SECRET", SECRET));
    server.wait_until("its download", |state| state.requests.iter().any(|seen| seen.path.contains("/set-ups/")));
    other.signal(Signal::SIGSTOP);
    server.add_job(job("s2", &[("a.sh", "exit 0")]));
    let mut worker = world.start(&server, &["--drain-limit", "1"]);
    worker.wait_for("job_claimed");
    act(&server, &world, &mut worker);
}

#[test]
fn a_worker_that_waits_for_a_stopped_one_ends_at_its_drain_limit() {
    waits_for_another(|server, world, worker| {
        worker.finish();
        is_infrastructure(&collection(server, "s2"), "while another had the lock");
        let in_hand = std::fs::read_dir(world.path("state/worker-under-test/in-hand")).unwrap();
        assert_eq!(in_hand.count(), 0, "it was reported");
    });
}

#[test]
fn a_worker_that_waits_for_a_stopped_one_ends_at_once_by_a_second_signal() {
    waits_for_another(|server, world, worker| {
        assert_eq!(abort(worker, [Signal::SIGTERM; 2]), Some(143), "{}", worker.text());
        assert!(server.results().is_empty());
        let in_hand = std::fs::read_dir(world.path("state/worker-under-test/in-hand")).unwrap();
        assert_eq!(in_hand.count(), 1, "for the next start");
    });
}

#[test]
fn a_result_that_the_end_cuts_short_is_no_failure() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.script(Route::Results, [Fault::Silence]);
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let status = world.path("status.json");
    let mut worker = world.start(&server, &["--drain-limit", "0", "--status-file", &status.display().to_string()]);
    server.wait_until("the result", |state| state.requests.iter().any(|seen| seen.path.ends_with("/results")));
    worker.finish();
    let events = worker.events();
    assert_eq!(said(&events, "results_left", "results"), [1]);
    assert_eq!(said(&events, "result_retried", "error").len(), 0, "{}", worker.text());
    let status: serde_json::Value = serde_json::from_slice(&std::fs::read(status).unwrap()).unwrap();
    assert_eq!(status["failures"], 0, "{status:#}");
    world.run_once(&server, &[]);
    world.is_clean();
}

#[test]
fn a_job_that_is_stopped_again_and_again_is_not_given_up() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let script = world.counts_in("runs") + &world.waits_for("gate");
    server.add_job(own_job("s1", &[("a.sh", &script)]));
    for run in 1..=3 {
        let mut worker = world.start(&server, &[]);
        until(&|| worker.text(), || world.lines("runs") == run);
        assert_eq!(abort(&mut worker, [Signal::SIGTERM; 2]), Some(143), "{}", worker.text());
    }
    world.open("gate");
    world.run_once(&server, &[]);
    assert_eq!((collection(&server, "s1")["passCount"].clone(), world.lines("runs")), (json!(1), 4));
    world.is_clean();
}

/// What is on the way to a log is no reason to wait for it, and least of all at the end.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let status = world.path("status.json");
    let mut command = world.command(&server);
    command.args(["--max-jobs", "1", "--status-file"]).arg(&status).env("RUNNER_SHARED_SECRET", SECRET);
    let mut worker = world.spawn_logging_to(&mut command, writer);
    // Each event of a job names it: a pipe (64 KiB) does not hold those of 40 jobs.
    let id = |number: usize| format!("{number}{}", "s".repeat(500));
    (0..40).for_each(|number| server.add_job(job(&id(number), &[("a.sh", "exit 0")])));
    server.wait_until("all results", |state| state.results.len() == 40);
    let beats = |state: &State| state.requests.iter().filter(|seen| seen.path.ends_with("/heartbeat")).count();
    assert!(beats(&server.state()) >= 40, "it still says that it lives");
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait().success());
    let last: serde_json::Value = serde_json::from_slice(&std::fs::read(&status).unwrap()).unwrap();
    assert_eq!((&last["state"], &last["jobsDone"]), (&json!("ended"), &json!(40)));
    drop(command);
    let text = std::io::read_to_string(reader).unwrap();
    assert!(text.starts_with('{') && text.len() >= 60_000, "{}", text.len());
    world.is_clean();
}

/// It is as if it had not been begun, and there is no report that could say anything.
#[test]
fn a_job_that_a_second_signal_ends_is_neither_failed_nor_done() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
    let status = world.path("status.json");
    let mut worker = world.start(&server, &["--status-file", &status.display().to_string()]);
    until(&|| worker.text(), || world.lines("runs") == 1);
    assert_eq!(abort(&mut worker, [Signal::SIGTERM; 2]), Some(143), "{}", worker.text());
    assert!(!worker.text().contains("job_failed"), "{}", worker.text());
    let last: serde_json::Value = serde_json::from_slice(&std::fs::read(status).unwrap()).unwrap();
    assert_eq!((&last["state"], &last["jobs"]), (&json!("ended"), &json!([])), "{last:#}");
    assert_eq!((&last["jobsDone"], &last["failures"]), (&json!(0), &json!(0)), "{last:#}");
}

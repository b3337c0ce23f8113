//! Workers that are killed at any moment, and jobs that are offered again.

use std::os::unix::process::ExitStatusExt as _;

use nix::sys::signal::Signal;

use crate::server::{Fault, Route, Server};
use crate::world::{
    SECRET, World, alive, can_be_sandboxed, collection, is_infrastructure, own_job, said, until, walls,
};

/// A command that nobody else runs, and that does not end. In the words of two numbers, so that two tests have two.
fn sleeper(number: u32) -> String {
    format!("sleep {}.{number}", 100_000 + std::process::id() % 100_000)
}

/// Text of a script that kills every process whose command line names the state folder of this world: its worker.
fn killer(world: &World) -> String {
    let text = r#"
for process in /proc/[0-9]*; do
    case $(tr '\0' ' ' <"$process/cmdline") in *"$STATE"*) kill -9 "${process#/proc/}"; found=1 ;; esac
done 2>/dev/null
"#;
    text.replace("$STATE", &world.path("state").display().to_string())
}

fn kill(worker: &mut crate::world::Worker) {
    worker.signal(Signal::SIGKILL);
    assert_eq!(worker.wait().signal(), Some(9));
}

#[test]
fn a_job_of_a_killed_worker_is_done_by_the_next_one() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let sleeper = sleeper(1);
    let counts = world.counts_in("runs");
    let script = format!("{counts}[ $(wc -l <'{}') -gt 1 ] || {sleeper}", world.path("runs").display());
    server.add_job(own_job("s1", &[("a.sh", &script)]));
    let mut first = world.start(&server, &[]);
    until(&|| first.text(), || !alive(&sleeper).is_empty());
    kill(&mut first);
    let events = world.run_once(&server, &[]);
    assert_eq!(alive(&sleeper), Vec::<String>::new());
    assert_eq!(said(&events, "job_resumed", "submissionID"), ["s1"]);
    assert_eq!(said(&events, "traces_swept", "what").len(), 1);
    assert_eq!(collection(&server, "s1")["passCount"], 1);
    assert_eq!((server.results()[&("s1".to_owned(), 1)].arrivals, world.lines("runs")), (1, 2));
    world.is_clean();
}

#[test]
fn a_job_over_which_workers_are_killed_is_given_up() {
    for flags in walls() {
        let server = Server::today(Some(SECRET));
        let world = World::new();
        let sleeper = sleeper(2);
        server.add_job(own_job("s1", &[("a.sh", &format!("{sleeper} & {sleeper}"))]));
        for _ in 0..2 {
            let mut worker = world.start(&server, flags);
            worker.wait_for("job_started");
            until(&|| worker.text(), || alive(&sleeper).len() > 1);
            kill(&mut worker);
        }
        let mut worker = world.start(&server, flags);
        worker.wait_for("worker_started");
        assert_eq!(alive(&sleeper), Vec::<String>::new(), "swept before anything else");
        server.wait_until("the result", |state| !state.results.is_empty());
        worker.finish();
        is_infrastructure(&collection(&server, "s1"), "killed over this job more than once");
        world.is_clean();
    }
}

/// Where the kernel lets scripts signal their own processes only (Landlock since Linux 6.12), it does not even do so once.
#[test]
fn a_script_that_kills_its_worker_does_so_twice_at_most() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &killer(&world)))]));
    server.add_job(own_job("s2", &[("a.sh", "exit 0")]));
    let mut killed = 0;
    while killed < 3 {
        let mut worker = world.start(&server, &["--max-jobs", "1", "--once"]);
        let status = worker.wait();
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(9), "{}", worker.text());
        killed += 1;
    }
    assert!(killed == 0 || killed == 2, "{killed}");
    assert_eq!(world.lines("runs"), if killed == 0 { 1 } else { 2 });
    if killed > 0 {
        is_infrastructure(&collection(&server, "s1"), "killed over this job");
    }
    assert_eq!(collection(&server, "s2")["passCount"], 1, "the worker goes on");
    world.is_clean();
}

#[test]
fn a_script_that_tries_that_in_the_sandbox_finds_no_worker() {
    if !can_be_sandboxed() {
        return;
    }
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &(killer(&world) + "[ -z \"$found\" ]\n"))]));
    world.run_once(&server, &["--sandbox"]);
    assert_eq!(collection(&server, "s1")["passCount"], 1);
}

#[test]
fn a_job_that_is_in_hand_is_not_run_a_second_time() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
    let mut worker = world.start(&server, &["--max-jobs", "2"]);
    until(&|| worker.text(), || world.lines("runs") == 1);
    assert!(server.requeue("s1"));
    worker.wait_for("job_duplicate");
    world.open("gate");
    server.wait_until("the result", |state| !state.results.is_empty());
    worker.finish();
    assert_eq!((server.results()[&("s1".to_owned(), 1)].arrivals, world.lines("runs")), (1, 1));
    world.is_clean();
}

#[test]
fn a_job_whose_result_waits_to_be_sent_is_not_run_a_second_time() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.script(Route::Results, vec![Fault::Status(503, None); 10_000]);
    server.add_job(own_job("s1", &[("a.sh", &world.counts_in("runs"))]));
    let start = || {
        let mut command = world.command(&server);
        command.env("RUNNER_SHARED_SECRET", SECRET).env("RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS", "1000");
        world.spawn(&mut command)
    };
    let mut worker = start();
    worker.wait_for("result_retried");
    assert!(server.requeue("s1"));
    worker.wait_for("job_duplicate");
    kill(&mut worker);
    assert!(server.requeue("s1"));
    let mut worker = start();
    worker.wait_for("job_duplicate");
    server.calm();
    server.wait_until("the result", |state| !state.results.is_empty());
    worker.finish();
    assert_eq!((server.results()[&("s1".to_owned(), 1)].arrivals, world.lines("runs")), (1, 1));
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

#[test]
fn a_result_outlives_the_server_and_the_worker() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut server = Server::today(Some(SECRET));
        let world = World::new();
        server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
        let mut worker = world.start(&server, &["--drain-limit", "1"]);
        until(&|| worker.text(), || world.lines("runs") == 1);
        server.down();
        world.open("gate");
        worker.wait_for("result_retried");
        worker.signal(signal);
        let status = worker.wait();
        assert_eq!(
            (status.code(), status.signal()),
            if signal == Signal::SIGTERM { (Some(0), None) } else { (None, Some(9)) }
        );
        let waiting = std::fs::read_dir(world.path("state/worker-under-test/spool")).unwrap().count();
        assert_eq!(waiting, 1, "{signal}");
        server.up();
        let events = world.run_once(&server, &[]);
        assert_eq!(said(&events, "result_sent", "submissionID"), ["s1"]);
        assert_eq!((server.results()[&("s1".to_owned(), 1)].arrivals, world.lines("runs")), (1, 1), "{signal}");
        world.is_clean();
    }
}

/// A container that is not named has another name after each start, and with it another id.
#[test]
fn results_of_a_worker_that_had_another_id_are_told_with_what_sends_them() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.script(Route::Results, vec![Fault::Status(503, None); 10_000]);
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let start = |id: &str, more: &[&str]| {
        let mut command = world.command_named(&server, id, "json");
        command.env("RUNNER_SHARED_SECRET", SECRET).env("RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS", "1000");
        world.spawn(command.args(more))
    };
    let mut first = start("old-name", &[]);
    first.wait_for("result_retried");
    // As long as it runs its results are its own business.
    let mut second = start("new-name", &[]);
    second.wait_for("worker_started");
    assert!(!second.text().contains("results_elsewhere"), "{}", second.text());
    second.finish();
    kill(&mut first);
    let mut second = start("new-name", &[]);
    let told = second.wait_for("results_elsewhere");
    let folder = world.path("state/old-name").display().to_string();
    assert_eq!((&told["folder"], &told["results"]), (&folder.into(), &1.into()), "{told}");
    assert!(told["remedy"].as_str().unwrap().contains("`--worker-id old-name` and `--once`"), "{told}");
    second.wait_for("worker_started");
    second.finish();
    server.calm();
    assert!(start("old-name", &["--once"]).wait().success());
    assert_eq!(server.results()[&("s1".to_owned(), 1)].arrivals, 1);
    let mut third = start("new-name", &["--once"]);
    assert!(third.wait().success());
    assert_eq!(third.text().matches("results_elsewhere").count(), 1, "{}", third.text());
}

#[test]
fn the_server_hears_of_a_job_when_it_begins_and_when_it_ends() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &world.waits_for("gate"))]));
    let mut worker = world.start(&server, &["--max-jobs", "3"]);
    server.wait_until("the first heartbeat", |state| !state.heartbeats.is_empty());
    world.open("gate");
    server.wait_until("the second heartbeat", |state| state.heartbeats.len() == 2);
    worker.finish();
    let first = server.state().heartbeats[0].clone();
    assert_eq!((&first["activeJobs"], &first["maxConcurrentJobs"]), (&1.into(), &3.into()), "{first}");
    assert_eq!(first["workerID"], "worker-under-test");
}

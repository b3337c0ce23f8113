//! Workers that are killed at any moment, and jobs that are offered again.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::server::{Fault, Route, Server};
use crate::world::{
    SECRET, User, World, alive, can_be_sandboxed, collection, is_infrastructure, is_root, own_job, said, until, walls,
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

#[test]
fn jobs_that_ran_beside_one_over_which_workers_are_killed_are_done() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let ids = ["poison", "s1", "s2", "s3"];
    for id in ids {
        server.add_job(own_job(id, &[("a.sh", &(world.counts_in(id) + &world.waits_for("gate")))]));
    }
    let mut worker = world.start(&server, &["--max-jobs", "4"]);
    until(&|| worker.text(), || ids.iter().all(|id| world.lines(id) == 1));
    kill(&mut worker);
    let mut worker = world.start(&server, &["--max-jobs", "4"]);
    until(&|| worker.text(), || world.lines("poison") == 2);
    kill(&mut worker);
    world.open("gate");
    world.run_once(&server, &["--max-jobs", "4"]);
    is_infrastructure(&collection(&server, "poison"), "killed over this job");
    for id in &ids[1..] {
        assert_eq!((collection(&server, id)["passCount"].clone(), world.lines(id)), (1.into(), 2), "{id}");
    }
    world.is_clean();
}

/// A worker was killed over its one job, whose next try cannot be counted until [`can_be_counted`] says so.
fn cannot_be_counted() -> (Server, World) {
    let server = Server::today(Some(SECRET));
    let world = World::of(if is_root() { User::Ordinary } else { User::Caller });
    server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
    let mut worker = world.start(&server, &[]);
    until(&|| worker.text(), || world.lines("runs") == 1);
    kill(&mut worker);
    world.open("gate");
    std::fs::set_permissions(in_hand(&world), Permissions::from_mode(0o500)).unwrap();
    (server, world)
}

fn can_be_counted(world: &World) {
    std::fs::set_permissions(in_hand(world), Permissions::from_mode(0o700)).unwrap();
}

fn in_hand(world: &World) -> PathBuf {
    world.path("state/worker-under-test/in-hand")
}

#[test]
fn a_job_whose_next_try_cannot_be_counted_is_not_begun() {
    let (server, world) = cannot_be_counted();
    let mut worker = world.start(&server, &[]);
    worker.wait_for("spool_failed");
    worker.finish();
    assert_eq!((world.lines("runs"), server.results().len()), (1, 0));
    can_be_counted(&world);
    world.run_once(&server, &[]);
    assert_eq!((collection(&server, "s1")["passCount"].clone(), world.lines("runs")), (1.into(), 2));
    world.is_clean();
}

#[test]
fn a_job_whose_next_try_could_not_be_counted_is_begun_as_soon_as_it_can_be() {
    let (server, world) = cannot_be_counted();
    let status = world.path("status.json");
    let mut worker = world.start(&server, &["--status-file", &status.display().to_string()]);
    worker.wait_for("spool_failed");
    let obstacle = || {
        let text = std::fs::read(&status).unwrap_or_default();
        serde_json::from_slice::<Value>(&text).map_or(Value::Null, |status| status["obstacle"]["event"].clone())
    };
    until(&|| worker.text(), || obstacle() == "spool_failed");
    can_be_counted(&world);
    server.wait_until("the result", |state| !state.results.is_empty());
    until(&|| worker.text(), || obstacle().is_null());
    worker.finish();
    assert_eq!((collection(&server, "s1")["passCount"].clone(), world.lines("runs")), (1.into(), 2));
    world.is_clean();
}

#[test]
fn a_job_that_stays_in_hand_is_told_by_the_exit_code_of_a_worker_that_runs_once() {
    let (server, world) = cannot_be_counted();
    let mut worker = world.start(&server, &["--once"]);
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    assert_eq!(said(&worker.events(), "worker_stopped", "how"), ["unfinished"]);
    assert_eq!((world.lines("runs"), server.results().len()), (1, 0));
    can_be_counted(&world);
    world.run_once(&server, &[]);
    assert_eq!((collection(&server, "s1")["passCount"].clone(), world.lines("runs")), (1.into(), 2));
    world.is_clean();
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
fn a_sandboxed_script_cannot_find_its_worker_to_kill_it() {
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
    assert_eq!((&told["folder"], &told["results"], &told["jobs"]), (&folder.into(), &1.into(), &0.into()), "{told}");
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
fn jobs_in_hand_of_a_worker_that_had_another_id_are_told_with_what_does_them() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
    let start = |id: &str, more: &[&str]| {
        let mut command = world.command_named(&server, id, "json");
        world.spawn(command.env("RUNNER_SHARED_SECRET", SECRET).args(more))
    };
    let mut first = start("old-name", &[]);
    until(&|| first.text(), || world.lines("runs") == 1);
    kill(&mut first);
    let mut second = start("new-name", &["--once"]);
    assert!(second.wait().success(), "{}", second.text());
    let told = second.wait_for("results_elsewhere");
    assert_eq!((&told["results"], &told["jobs"]), (&0.into(), &1.into()), "{told}");
    world.open("gate");
    assert!(start("old-name", &["--once"]).wait().success());
    assert_eq!(collection(&server, "s1")["passCount"], 1);
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
    let told = server.state().heartbeats.clone();
    assert_eq!((&told[0]["activeJobs"], &told[0]["maxConcurrentJobs"]), (&1.into(), &3.into()), "{told:?}");
    assert_eq!((&told[0]["workerID"], &told[1]["activeJobs"]), (&"worker-under-test".into(), &0.into()), "{told:?}");
}

#[test]
fn the_last_heartbeat_of_a_worker_that_ends_tells_that_no_job_is_left() {
    let server = Server::today(Some(SECRET));
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    World::new().run_once(&server, &[]);
    let last = server.state().heartbeats.last().cloned().unwrap();
    assert_eq!(last["activeJobs"], 0, "{last}");
}

/// 97: also where the server asks for so much time that it would think us dead.
#[test]
fn the_server_hears_of_a_long_job_all_the_while() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.script(Route::Heartbeat, [Fault::None, Fault::Status(503, Some("3600".to_owned())), Fault::DropAnswer]);
    server.script(Route::Heartbeat, vec![Fault::Status(429, Some("3600".to_owned())); 3]);
    server.add_job(own_job("s1", &[("a.sh", &world.waits_for("gate"))]));
    let mut command = world.command(&server);
    command.env("RUNNER_SHARED_SECRET", SECRET).env("RUNNER_HEARTBEAT_INTERVAL_MS", "100");
    let mut worker = world.spawn(&mut command);
    server.wait_until("many heartbeats", |state| state.heartbeats.len() >= 10);
    assert!(server.requeue("s1"));
    worker.wait_for("job_duplicate");
    world.open("gate");
    server.wait_until("the last one", |state| state.heartbeats.last().is_some_and(|last| last["activeJobs"] == 0));
    worker.finish();
    let told = server.state().heartbeats.clone();
    assert!(told[..10].iter().all(|beat| beat["activeJobs"] == 1), "{told:?}");
    assert_eq!(server.results()[&("s1".to_owned(), 1)].arrivals, 1);
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

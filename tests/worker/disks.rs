//! Disks that are full.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::server::{Fault, Route, Server};
use crate::world::{SECRET, Worker, World, collection, is_root, own_job, said, until};

/// Starts a worker one of whose folders is a file system of 512 KiB, which only it and its scripts see.
fn start_with(world: &World, server: &Server, folder: &str, configure: impl FnOnce(&mut Command)) -> Worker {
    let folder = world.path(folder);
    fs::create_dir(&folder).unwrap();
    let mount = format!("mount -t tmpfs -o size=512k,mode=700 tmpfs '{}' && exec \"$@\"", folder.display());
    let mut command = world.wrapped(server, &["unshare", "--mount", "sh", "-c", &mount, "sh"]);
    configure(&mut command);
    world.spawn(&mut command)
}

/// Starts a worker with such a state folder that takes jobs all the same.
fn start(world: &World, server: &Server, more: &[&str]) -> Worker {
    start_with(world, server, "state", |command| {
        command.args(more).env("RUNNER_MIN_FREE_DISK_MB", "0");
    })
}

/// Text of a script that fills the disk of the state folder.
fn fills(world: &World) -> String {
    format!("dd if=/dev/zero of='{}' bs=4k 2>/dev/null\n", world.path("state/full").display())
}

/// A job whose script fills the disk of the state folder, a server that meets results with `faults` first, and a worker that has begun.
fn filled(faults: impl IntoIterator<Item = Fault>, more: &[&str]) -> (Server, World, Worker) {
    let (server, world) = (Server::today(Some(SECRET)), World::new());
    server.script(Route::Results, faults);
    server.add_job(own_job("s1", &[("a.sh", &fills(&world))]));
    let worker = start(&world, &server, more);
    (server, world, worker)
}

/// A path in the state folder as the worker sees it.
fn seen(world: &World, worker: &Worker, below: &str) -> PathBuf {
    format!("/proc/{}/root{}", worker.pid(), world.path("state").join(below).display()).into()
}

/// How much lies in the worker's own folder `below`.
fn count(world: &World, worker: &Worker, below: &str) -> usize {
    fs::read_dir(seen(world, worker, &format!("worker-under-test/{below}"))).unwrap().count()
}

#[test]
fn a_disk_without_space_takes_no_jobs_whichever_folder_is_on_it() {
    if !is_root() {
        return;
    }
    for folder in ["state", "cache"] {
        let server = Server::today(Some(SECRET));
        server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
        let world = World::new();
        let mut worker = start_with(&world, &server, folder, |_| {});
        let told = worker.wait_for("disk_low");
        assert_eq!((&told["folder"], &told["needed_mb"]), (&json!(world.path(folder)), &json!(128)), "{told}");
        worker.finish();
        assert!(server.requests().is_empty());
    }
}

/// What a service manager is to try again: the disk may have room then.
#[test]
fn a_disk_that_takes_nothing_at_the_start_is_no_wrong_flag_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    // Full; full, with the lock of an earlier worker, whose space is enough for that of this one; read-only.
    let full = "dd if=/dev/zero of=\"$DISK/full\" bs=4k 2>/dev/null; true";
    let earlier =
        format!("mkdir -m 700 \"$DISK/worker-under-test\" && echo 1 >\"$DISK/worker-under-test/lock\" && {full}");
    let read_only = "mount -o remount,ro \"$DISK\"";
    for (folder, made) in
        [("state", full), ("state", &earlier), ("state", read_only), ("cache", read_only), ("tmp", read_only)]
    {
        let (server, world) = (Server::today(Some(SECRET)), World::new());
        fs::create_dir_all(world.path(folder)).unwrap();
        let mount = format!("mount -t tmpfs -o size=512k,mode=700 tmpfs \"$DISK\" && {{ {made}; }} && exec \"$@\"");
        let mut command = world.wrapped(&server, &["unshare", "--mount", "sh", "-c", &mount, "sh"]);
        let mut worker = world.spawn(command.arg("--once").env("DISK", world.path(folder)));
        assert_eq!(worker.wait().code(), Some(3), "{folder}, {made}: {}", worker.text());
        let why = worker.events().pop().unwrap()["error"].to_string();
        assert!(why.contains(&world.path(folder).display().to_string()), "{folder}, {made}: {why}");
        assert_eq!(world.left(), Vec::<PathBuf>::new(), "{folder}, {made}: {why}");
    }
}

#[test]
fn no_job_is_taken_while_a_result_is_in_memory_only() {
    if !is_root() {
        return;
    }
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, vec![Fault::Status(503, None); 1000]);
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &fills(&world))]));
    server.add_job(own_job("s2", &[("a.sh", "exit 0")]));
    let mut worker = start(&world, &server, &["--max-jobs", "1"]);
    let told = worker.wait_for("results_in_memory");
    assert_eq!(told["results"], 1, "{told}");
    assert_eq!(server.state().queue.len(), 1);
    server.calm();
    server.wait_until("both results", |state| state.results.len() == 2);
    worker.finish();
}

#[test]
fn a_result_that_was_never_on_the_disk_and_not_taken_is_told_by_the_exit_code() {
    if !is_root() {
        return;
    }
    let (_server, _world, mut worker) = filled(vec![Fault::Status(503, None); 10_000], &["--drain-limit", "1"]);
    worker.wait_for("result_retried");
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    let events = worker.events();
    assert_eq!(said(&events, "result_lost", "submissionID"), ["s1"]);
    assert_eq!(said(&events, "worker_stopped", "how"), ["results_lost"]);
}

/// Neither is it sent, nor does it stay in the spool.
#[test]
fn a_result_that_was_never_on_the_disk_and_is_being_sent_at_the_end_is_told_as_lost() {
    if !is_root() {
        return;
    }
    let (server, _world, mut worker) = filled([Fault::Silence], &["--drain-limit", "0"]);
    server.wait_until("the result", |state| state.requests.iter().any(|seen| seen.path.ends_with("/results")));
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    let events = worker.events();
    assert_eq!(said(&events, "result_lost", "submissionID"), ["s1"]);
    assert_eq!(said(&events, "results_left", "results").len(), 0, "{}", worker.text());
    assert_eq!(said(&events, "worker_stopped", "how"), ["results_lost"]);
}

#[test]
fn a_result_in_memory_reaches_the_disk_before_the_end_if_there_is_room_by_then() {
    if !is_root() {
        return;
    }
    let (_server, world, mut worker) = filled(vec![Fault::Status(503, None); 10_000], &["--drain-limit", "1"]);
    worker.wait_for("results_in_memory");
    fs::remove_file(seen(&world, &worker, "full")).unwrap();
    until(&|| worker.text(), || count(&world, &worker, "spool") == 1 && count(&world, &worker, "in-hand") == 0);
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait().code(), Some(0), "{}", worker.text());
    assert_eq!(said(&worker.events(), "results_left", "results"), [1]);
}

#[test]
fn a_job_without_a_record_is_not_run_a_second_time() {
    if !is_root() {
        return;
    }
    let (server, world, mut worker) = filled([], &["--max-jobs", "2"]);
    worker.wait_for("result_sent");
    // Where the record of that job was.
    fs::write(seen(&world, &worker, "fuller"), vec![0; 1 << 20]).unwrap_err();
    server.add_job(own_job("s2", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
    until(&|| worker.text(), || world.lines("runs") == 1);
    assert_eq!(count(&world, &worker, "in-hand"), 0, "the disk is full");
    assert!(server.requeue("s2"));
    worker.wait_for("job_duplicate");
    world.open("gate");
    server.wait_until("both results", |state| state.results.len() == 2);
    worker.finish();
    assert_eq!((server.results()[&("s2".to_owned(), 1)].arrivals, world.lines("runs")), (1, 1));
}

#[test]
fn a_result_in_memory_that_is_refused_for_good_leaves_no_job_in_hand() {
    if !is_root() {
        return;
    }
    let (_server, world, mut worker) = filled([Fault::Status(422, None)], &[]);
    worker.wait_for("result_set_aside");
    until(&|| worker.text(), || count(&world, &worker, "in-hand") == 0);
    worker.finish();
}

#[test]
fn a_result_that_the_disk_does_not_take_is_sent_from_memory() {
    if !is_root() {
        return;
    }
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, [Fault::Status(503, None), Fault::DropUnread]);
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &(fills(&world) + "exit 0"))]));
    let mut worker = start(&world, &server, &["--once"]);
    assert!(worker.wait().success(), "{}", worker.text());
    assert!(!said(&worker.events(), "spool_failed", "error").is_empty(), "{}", worker.text());
    assert_eq!(collection(&server, "s1")["passCount"], 1);
    assert_eq!(server.results()[&("s1".to_owned(), 1)].arrivals, 1);
}

#[test]
fn jobs_that_come_while_the_disk_is_full_are_done_all_the_same() {
    if !is_root() {
        return;
    }
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &fills(&world))]));
    server.add_job(own_job("s2", &[("a.sh", "exit 0")]));
    let mut worker = start(&world, &server, &["--once", "--max-jobs", "1"]);
    assert!(worker.wait().success(), "{}", worker.text());
    assert_eq!(collection(&server, "s2")["passCount"], 1);
    assert_eq!(server.results().values().map(|stored| stored.arrivals).collect::<Vec<_>>(), [1, 1]);
}

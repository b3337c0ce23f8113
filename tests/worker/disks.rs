//! Disks that are full.

use std::process::Command;

use crate::server::{Fault, Route, Server};
use crate::world::{SECRET, Worker, World, collection, is_root, own_job, said};

/// Starts a worker whose state folder is a file system of 512 KiB, which only it and its scripts see.
fn start(world: &World, server: &Server, more: &[&str]) -> Worker {
    let state = world.path("state");
    std::fs::create_dir(&state).unwrap();
    let mount = format!("mount -t tmpfs -o size=512k,mode=700 tmpfs '{}' && exec \"$@\"", state.display());
    let worker = world.command(server);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(worker.get_program()).args(worker.get_args()).args(more);
    command.env_clear().envs(worker.get_envs().filter_map(|(name, value)| Some((name, value?))));
    world.spawn(command.env("RUNNER_SHARED_SECRET", SECRET).current_dir(world.dir.path()))
}

/// Text of a script that fills the disk of the state folder.
fn fills(world: &World) -> String {
    format!("dd if=/dev/zero of='{}' bs=4k 2>/dev/null\n", world.path("state/full").display())
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

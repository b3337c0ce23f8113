//! Machines on which every job fails.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::server::{Fault, Route, Server};
use crate::world::{SECRET, Worker, World, collection, is_infrastructure, job, own_job, said, until};

const PASSES: &[(&str, &str)] = &[("a.sh", "exit 0")];

/// Puts a file in the place of the folder that the worker works in, so that it can do no job; returns where that was.
fn break_down(world: &World) -> PathBuf {
    let scratch = fs::read_dir(world.scratch()).unwrap().next().unwrap().unwrap().path();
    fs::rename(&scratch, world.path("away")).unwrap();
    fs::write(&scratch, "").unwrap();
    scratch
}

fn mend(world: &World, scratch: &Path) {
    fs::remove_file(scratch).unwrap();
    fs::rename(world.path("away"), scratch).unwrap();
}

fn status(world: &World) -> Value {
    fs::read(world.path("status.json")).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
}

#[test]
fn a_machine_that_fails_job_upon_job_does_not_take_them_all() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let mut command = world.command(&server);
    command.args(["--max-jobs", "1", "--status-file"]).arg(world.path("status.json"));
    // A pause that no test waits for.
    command.env("RUNNER_RETRY_BASE_DELAY_MS", "3600000").env("RUNNER_RETRY_MAX_DELAY_MS", "3600000");
    let mut worker = world.spawn(command.env("RUNNER_SHARED_SECRET", SECRET));
    worker.wait_for("worker_started");
    let scratch = break_down(&world);
    for number in 1..=6 {
        server.add_job(job(&format!("s{number}"), PASSES));
    }
    let told = worker.wait_for("jobs_failing");
    assert_eq!((&told["failed"], &told["level"]), (&3.into(), &"error".into()), "{told}");
    server.wait_until("what was taken is reported", |state| state.results.len() == 3);
    is_infrastructure(&collection(&server, "s3"), "could not make a folder for the job");
    until(&|| status(&world).to_string(), || status(&world)["obstacle"]["event"] == "jobs_failing");
    let status = status(&world);
    assert_eq!(status["failures"], 3, "{status:#}");
    assert!(status["lastError"]["text"].to_string().contains("could not make a folder"), "{status:#}");
    mend(&world, &scratch);
    worker.finish();
    assert_eq!(server.state().queue.len(), 3, "the others are for another worker");
}

#[test]
fn a_machine_that_is_mended_works_on() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let mut worker = world.start(&server, &["--status-file", &world.path("status.json").display().to_string()]);
    worker.wait_for("worker_started");
    let scratch = break_down(&world);
    for number in 1..=4 {
        server.add_job(job(&format!("s{number}"), PASSES));
    }
    worker.wait_for("jobs_failing");
    mend(&world, &scratch);
    for id in ["last", "very-last"] {
        server.add_job(job(id, PASSES));
        server.wait_until(id, |state| state.results.contains_key(&(id.to_owned(), 1)));
    }
    assert_eq!(collection(&server, "very-last")["passCount"], 1);
    until(&|| status(&world).to_string(), || status(&world)["obstacle"].is_null());
    worker.finish();
    world.is_clean();
}

#[test]
fn a_worker_that_runs_once_ends_after_three_failures_of_ours() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let [scratch, away] = [world.scratch(), world.path("away")].map(|path| path.display().to_string());
    let breaks = format!("set -- '{scratch}'/*; mv \"$1\" '{away}' && : >\"$1\"");
    server.add_job(own_job("s0", &[("a.sh", &breaks)]));
    for number in 1..=6 {
        server.add_job(job(&format!("s{number}"), PASSES));
    }
    let mut worker = world.start(&server, &["--once", "--max-jobs", "1"]);
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    assert_eq!(said(&worker.events(), "worker_stopped", "how"), ["failed"]);
    assert!(server.state().queue.len() >= 3, "{}", worker.text());
}

/// Each row of failures is one of its own.
#[test]
fn a_machine_that_fails_again_after_it_was_mended_is_told_of_and_paused_for_again() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let mut worker = world.start(&server, &["--max-jobs", "1"]);
    worker.wait_for("worker_started");
    let told = |worker: &Worker| {
        let events = worker.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>();
        said(&events, "jobs_failing", "failed").into_iter().cloned().collect::<Vec<_>>()
    };
    for (row, jobs) in [3, 4].into_iter().enumerate() {
        let before = told(&worker).len();
        let scratch = break_down(&world);
        for number in 1..=jobs {
            server.add_job(job(&format!("bad-{row}-{number}"), PASSES));
        }
        until(&|| worker.text(), || told(&worker).len() > before);
        assert_eq!(told(&worker)[before], 3, "{}", worker.text());
        server.wait_until("all are reported", |state| state.queue.is_empty() && state.results.len() >= jobs);
        mend(&world, &scratch);
        let good = format!("good-{row}");
        server.add_job(job(&good, PASSES));
        server.wait_until(&good, |state| state.results.contains_key(&(good.clone(), 1)));
    }
    worker.finish();
    world.is_clean();
}

/// Jobs whose results the server refuses are as lost for their students as those that fail.
#[test]
fn a_server_that_refuses_result_upon_result_is_not_asked_for_all_its_jobs() {
    for more in [&[][..], &["--once"]] {
        let server = Server::today(Some(SECRET));
        server.script(Route::Results, vec![Fault::Status(422, None); 100]);
        for number in 1..=20 {
            server.add_job(job(&format!("s{number}"), PASSES));
        }
        let world = World::new();
        let mut command = world.command(&server);
        command.args(["--max-jobs", "1"]).args(more);
        // A pause that no test waits for.
        command.env("RUNNER_RETRY_BASE_DELAY_MS", "3600000").env("RUNNER_RETRY_MAX_DELAY_MS", "3600000");
        let mut worker = world.spawn(command.env("RUNNER_SHARED_SECRET", SECRET));
        let told = worker.wait_for(if more.is_empty() { "jobs_failing" } else { "worker_failed" });
        assert!(told["error"].to_string().contains("answered 422"), "{told}");
        if more.is_empty() {
            worker.finish();
        } else {
            assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
        }
        assert!(server.state().queue.len() >= 10, "{}", worker.text());
    }
}

/// Although a job is done before its result is refused.
#[test]
fn each_pause_is_followed_by_one_job() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, vec![Fault::Status(422, None); 100]);
    for number in 1..=20 {
        server.add_job(job(&format!("s{number}"), PASSES));
    }
    let world = World::new();
    let mut worker = world.start(&server, &["--max-jobs", "1"]);
    until(&|| worker.text(), || worker.text().matches("jobs_failing").count() >= 4);
    worker.finish();
    let events = worker.events();
    let rows: Vec<_> = events.split(|event| event["event"] == "jobs_failing").collect();
    for between in &rows[1..rows.len() - 1] {
        assert_eq!(said(between, "job_claimed", "submissionID").len(), 1, "{}", worker.text());
    }
}

#[test]
fn a_server_that_takes_results_again_is_worked_for_again() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, vec![Fault::Status(422, None); 100]);
    let world = World::new();
    let mut worker = world.start(&server, &["--status-file", &world.path("status.json").display().to_string()]);
    for number in 1..=20 {
        server.add_job(job(&format!("s{number}"), PASSES));
    }
    worker.wait_for("jobs_failing");
    server.calm();
    server.add_job(job("last", PASSES));
    server.wait_until("the last result", |state| state.results.contains_key(&("last".to_owned(), 1)));
    until(&|| status(&world).to_string(), || status(&world)["obstacle"].is_null());
    worker.finish();
    world.is_clean();
}

/// A job that names what is of no use says nothing about the machine.
#[test]
fn jobs_that_fail_by_what_they_name_make_no_trouble() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    for number in 1..=6 {
        let mut bad = own_job(&format!("s{number}"), PASSES);
        bad.set_up = b"no archive".to_vec();
        server.add_job(bad);
    }
    server.add_job(own_job("good", PASSES));
    let events = world.run_once(&server, &["--max-jobs", "1"]);
    assert_eq!((said(&events, "jobs_failing", "failed").len(), server.results().len()), (0, 7));
    assert_eq!(collection(&server, "good")["passCount"], 1);
}

/// Two texts of a job reach its programs: the seed, and what make is to make.
#[test]
fn jobs_with_texts_that_no_program_can_receive_make_no_trouble() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let bytes = |count| "a".repeat(count);
    let texts = [("a\0b".to_owned(), "a NUL"), (bytes(65_537), "65536 bytes"), (bytes(200_000), "65536 bytes")];
    for (number, (text, _)) in texts.iter().enumerate() {
        let [mut seed, mut make] = ["seed", "make"].map(|what| own_job(&format!("{what}-{number}"), PASSES));
        seed.assignment_seed = Some(text.as_str().into());
        make.manifest["makefile"] = serde_json::json!({ "target": text });
        server.add_job(seed);
        server.add_job(make);
    }
    let mut good = own_job("good", &[("a.sh", "[ ${#CHICKADEE_ASSIGNMENT_SEED} = 65536 ]")]);
    good.assignment_seed = Some(bytes(65_536).into());
    server.add_job(good);
    let events = world.run_once(&server, &["--max-jobs", "1"]);
    assert_eq!((said(&events, "jobs_failing", "failed").len(), server.results().len()), (0, 7));
    for (number, (_, why)) in texts.iter().enumerate() {
        for what in ["seed", "make"] {
            is_infrastructure(&collection(&server, &format!("{what}-{number}")), why);
        }
    }
    assert_eq!(collection(&server, "good")["passCount"], 1);
}

/// What one job names others may name, too.
#[test]
fn files_that_cannot_be_had_do_not_cost_all_jobs() {
    for fault in [Fault::Status(404, None), Fault::Status(401, None), Fault::Status(503, None), Fault::DropUnread] {
        // Set-ups; then submissions, each after its set-up.
        for (fine, more) in [(None, &[][..]), (Some(Fault::None), &["--once"])] {
            let server = Server::today(Some(SECRET));
            server.script(Route::Files, (0..100).flat_map(|_| fine.clone().into_iter().chain([fault.clone()])));
            for number in 1..=6 {
                server.add_job(own_job(&format!("s{number}"), PASSES));
            }
            let world = World::new();
            let mut command = world.command(&server);
            command.args(["--max-jobs", "1"]).args(more).env("RUNNER_SHARED_SECRET", SECRET);
            // A pause that no test waits for.
            command.env("RUNNER_RETRY_BASE_DELAY_MS", "3600000").env("RUNNER_RETRY_MAX_DELAY_MS", "3600000");
            let mut worker = world.spawn(command.env("RUNNER_DOWNLOAD_RETRY_MAX_ATTEMPTS", "1"));
            let told = worker.wait_for(if more.is_empty() { "jobs_failing" } else { "worker_failed" });
            assert!(told["error"].to_string().contains("could not fetch"), "{told}");
            if more.is_empty() {
                worker.finish();
            } else {
                assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
            }
            let left = server.state().queue.len();
            assert_eq!((left, server.results().len()), (3, 3), "{}", worker.text());
        }
    }
}

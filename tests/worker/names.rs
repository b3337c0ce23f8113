//! Names that a server sends and that mean something to a file system, a terminal or a log: for the worker they are texts.

use std::fs;

use serde_json::{Value, json};

use crate::server::Server;
use crate::world::{SECRET, World, walls, zip_of};

fn hostile() -> Vec<String> {
    // As long as an id may be.
    let long = "a".repeat(1024);
    let names = [
        "",
        ".",
        "..",
        "../../x",
        "/etc/passwd",
        "a/b",
        "a\0b",
        "a\nb",
        "\u{1b}[31mred",
        "ü ö 学生 🎓",
        "-rf",
        "$(id)",
        "`id`",
        "'\";|&",
        "%2e%2e%2f",
        "CON",
        "\u{202e}gnp",
        "{\"a\":1}",
        "s1 status=pass",
    ];
    names.into_iter().chain([long.as_str()]).map(str::to_owned).collect()
}

fn job(server: &Server, ids: [&str; 2]) -> Value {
    let set_up = server
        .add_file("/files/set-up", zip_of(&[("a.sh", "ls -A >&2; cat \"$(ls | grep -v '^a.sh$' | head -n 1)\"")]));
    let submission = server.add_file("/files/submission", zip_of(&[("answer.txt", "mine")]));
    json!({
        "submissionID": ids[0], "testSetupID": ids[1], "attemptNumber": 1, "submissionURL": submission, "testSetupURL": set_up,
        "manifest": {"schemaVersion": 1, "testSuites": [{"script": "a.sh"}], "timeLimitSeconds": 100},
    })
}

/// Names of files in the world's own folders.
fn names(world: &World) -> Vec<String> {
    let folders = ["", "state", "cache", "tmp"].map(|name| world.path(name));
    let entries = folders.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn ids_are_reported_as_they_came_and_are_no_paths() {
    for flags in walls() {
        let server = Server::today(Some(SECRET));
        for name in hostile() {
            server.add_raw_job(job(&server, [&name, &name]));
        }
        let world = World::new();
        let events = world.run_once(&server, flags);
        for name in hostile() {
            let collection = server.results()[&(name.clone(), 1)].collection().clone();
            assert_eq!((&collection["passCount"], &collection["testSetupID"]), (&json!(1), &json!(name)), "{name:?}");
        }
        assert_eq!(server.violations(), Vec::<String>::new());
        assert!(events.len() > hostile().len(), "each line of the log is JSON");
        let is_ours = |name: &String| {
            name.len() == 64 || ["state", "cache", "tmp", "log", "worker-under-test", "locks"].contains(&name.as_str())
        };
        let foreign: Vec<_> = names(&world).into_iter().filter(|name| !is_ours(name)).collect();
        assert_eq!(foreign, Vec::<String>::new());
        world.is_clean();
    }
}

#[test]
fn a_submissions_name_is_a_name_in_the_work_folder() {
    let server = Server::today(Some(SECRET));
    for (number, name) in hostile().iter().enumerate() {
        let mut job = job(&server, [&number.to_string(), "set-up"]);
        job["submissionFilename"] = json!(name);
        server.add_raw_job(job);
    }
    let world = World::new();
    world.run_once(&server, &[]);
    for (number, name) in hostile().iter().enumerate() {
        let collection = server.results()[&(number.to_string(), 1)].collection().clone();
        let listed = collection["outcomes"][0]["longResult"].as_str().unwrap_or_default();
        let last = name.rsplit('/').next().unwrap();
        let is_kept = !matches!(last, "" | "." | "..") && last.len() < 256 && !last.contains('\0');
        let expected = if is_kept { last } else { "submission.bin" };
        assert!(listed.contains(expected), "{name:?}: {collection:#}");
    }
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

#[test]
fn a_log_for_people_has_a_line_for_each_event_whatever_an_id_is() {
    let server = Server::today(Some(SECRET));
    for name in hostile() {
        server.add_raw_job(job(&server, [&name, "set-up"]));
    }
    let world = World::new();
    let mut command = world.command_named(&server, "worker-under-test", "text");
    let mut worker = world.spawn(command.arg("--once").env("RUNNER_SHARED_SECRET", SECRET));
    assert!(worker.wait().success(), "{}", worker.text());
    let text = worker.text();
    assert_eq!(text.lines().filter(|line| line.contains(" job_claimed ")).count(), hostile().len());
    for line in text.lines() {
        let is_event = line.as_bytes()[2] == b':'
            && [" info ", " warn ", " error "].iter().any(|level| line[8..].starts_with(level));
        assert!(is_event && !line.contains(char::is_control), "{line:?}");
    }
}

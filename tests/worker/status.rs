//! What the worker tells those who watch it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::server::Server;
use crate::world::{SECRET, World, own_job, until, ways};

/// Waits until the file says this.
fn wait_until(world: &World, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let read =
        || fs::read(world.path("status.json")).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
    until(&|| format!("{what}: {:#}", read()), || is_so(&read()));
    read()
}

#[test]
fn a_status_file_always_tells_what_the_worker_is_doing() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let path = world.path("status.json").display().to_string();
    let mut worker = world.start(&server, &["--max-jobs", "2", "--status-file", &path]);
    let idle = wait_until(&world, "idle", |status| status["lastPoll"]["outcome"] == "nothing");
    assert_eq!(
        (&idle["state"], &idle["workerID"], &idle["slots"]),
        (&json!("idle"), &json!("worker-under-test"), &json!(2))
    );
    server.add_job(own_job("s1", &[("a.sh", &world.waits_for("gate"))]));
    let working = wait_until(&world, "working", |status| status["jobs"][0]["step"] == "grading");
    assert_eq!((&working["state"], &working["jobs"][0]["submissionID"]), (&json!("working"), &json!("s1")));
    worker.signal(Signal::SIGTERM);
    let draining = wait_until(&world, "draining", |status| status["state"] == "draining");
    assert_eq!(draining["jobs"][0]["submissionID"], "s1", "it still runs");
    world.open("gate");
    assert!(worker.wait().success());
    let ended = wait_until(&world, "the end", |_| true);
    assert_eq!(ended["state"], "ended");
    assert_eq!((&ended["jobs"], &ended["spooledResults"]), (&json!([]), &json!(0)), "{ended:#}");
    assert_eq!(
        (&ended["jobsDone"], &ended["resultsSent"], &ended["failures"]),
        (&json!(1), &json!(1), &json!(0)),
        "{ended:#}"
    );
}

#[test]
fn what_keeps_a_worker_from_polling_is_told() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let mut command = world.command(&server);
    command.arg("--status-file").arg(world.path("status.json")).env("RUNNER_SHARED_SECRET", SECRET);
    let mut worker = world.spawn(command.env("RUNNER_MIN_FREE_DISK_MB", (1_u64 << 40).to_string()));
    let status = wait_until(&world, "hindered", |status| !status["obstacle"].is_null());
    assert_eq!((&status["obstacle"]["event"], &status["lastPoll"]), (&json!("disk_low"), &Value::Null), "{status:#}");
    worker.finish();
    let mut worker = world.start(&server, &["--status-file", &world.path("status.json").display().to_string()]);
    wait_until(&world, "not any more", |status| status["obstacle"].is_null() && !status["lastPoll"].is_null());
    worker.finish();
}

#[test]
fn a_status_file_that_can_no_longer_be_written_is_said_once_and_nothing_else_suffers() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    fs::create_dir(world.path("run")).unwrap();
    let mut worker = world.start(&server, &["--status-file", &world.path("run/status.json").display().to_string()]);
    worker.wait_for("worker_started");
    fs::rename(world.path("run"), world.path("away")).unwrap();
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    worker.wait_for("status_failed");
    server.wait_until("the result", |state| !state.results.is_empty());
    worker.finish();
    assert_eq!(worker.events().iter().filter(|event| event["event"] == "status_failed").count(), 1);
    assert!(!world.path("run").exists(), "no folder is made");
}

#[test]
fn a_status_file_that_cannot_be_written_is_a_wrong_flag() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    fs::create_dir(world.path("folder")).unwrap();
    fs::write(world.path("file"), "").unwrap();
    for place in ["missing/status.json", "file/status.json", "folder"] {
        let mut worker = world.start(&server, &["--once", "--status-file", &world.path(place).display().to_string()]);
        assert_eq!(worker.wait().code(), Some(2), "{place}: {}", worker.text());
        let why = worker.events().pop().unwrap()["error"].to_string();
        assert!(why.contains("`--status-file`") && why.contains(place.split('/').next().unwrap()), "{place}: {why}");
        world.is_clean();
    }
    assert!(!world.path("missing").exists() && server.requests().is_empty());
}

#[test]
fn each_event_of_a_job_names_it_and_each_line_its_worker() {
    let server = Server::today(Some(SECRET));
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let events = World::new().run_once(&server, &[]);
    let of_job = ["job_claimed", "setup_ready", "job_started", "job_finished", "result_sent"];
    let named: Vec<_> =
        events.iter().filter(|event| event["submissionID"] == "s1" && event["attemptNumber"] == 1).collect();
    assert_eq!(named.iter().map(|event| event["event"].as_str().unwrap()).collect::<Vec<_>>(), of_job);
    for event in &events {
        assert_eq!(event["worker"], "worker-under-test");
        assert!(
            event["ts"].as_str().unwrap().ends_with('Z')
                && ["info", "warn", "error"].contains(&event["level"].as_str().unwrap())
        );
    }
}

#[test]
fn the_server_is_told_what_this_machine_can_run() {
    let server = Server::today(Some(SECRET));
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    let mut command = world.command(&server);
    command.env_remove("RUNNER_CAPABILITY_DISCOVERY_ENABLED").env("RUNNER_SHARED_SECRET", SECRET);
    let mut worker = world.spawn(command.arg("--once"));
    assert!(worker.wait().success(), "{}", worker.text());
    let profile = server.state().heartbeats[0]["profile"].clone();
    assert_eq!((&profile["platform"], &profile["architecture"]), (&json!("linux"), &json!(std::env::consts::ARCH)));
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

/// One in a folder that the sandbox does not show, such as a home.
#[test]
fn the_profile_has_what_scripts_can_run_and_nothing_else() {
    for (user, flags) in ways() {
        let server = Server::today(Some(SECRET));
        server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
        let world = World::of(user);
        let bin = world.path("bin");
        fs::create_dir(&bin).unwrap();
        // Scripts find the other bash, in the next folder.
        for (program, says) in [("zsh", "zsh 9.9"), ("bash", "GNU bash, version 9.9")] {
            fs::write(bin.join(program), format!("#!/bin/sh\necho '{says}'\n")).unwrap();
            fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = world.command(&server);
        command.env_remove("RUNNER_CAPABILITY_DISCOVERY_ENABLED").env("RUNNER_SHARED_SECRET", SECRET);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).arg("--once").args(flags);
        let mut worker = world.spawn(&mut command);
        assert!(worker.wait().success(), "{}", worker.text());
        let profile = server.state().heartbeats[0]["profile"].clone();
        let languages = profile["languageVersions"].as_array().unwrap().iter();
        let version =
            |name: &str| languages.clone().find(|one| one["language"] == name).map(|one| one["version"] == "9.9");
        let is_sandboxed = flags.contains(&"--sandbox");
        assert_eq!(version("bash"), Some(!is_sandboxed), "{user:?} {flags:?}: {profile}");
        // It may be installed as well.
        let expected = if is_sandboxed { Path::new("/usr/bin/zsh").exists().then_some(false) } else { Some(true) };
        assert_eq!(version("zsh"), expected, "{user:?} {flags:?}: {profile}");
        world.is_clean();
    }
}

//! Starts that are refused: said with a remedy, before any job is taken.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use crate::server::Server;
use crate::world::{SECRET, World, can_be_sandboxed, job, own_job, said};

/// Runs a command to its end.
fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

#[test]
fn a_second_worker_of_one_id_names_the_first_and_ends() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let mut first = world.start(&server, &[]);
    first.wait_for("worker_started");
    let (code, text) = run(world.command(&server).env("RUNNER_SHARED_SECRET", SECRET));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(&format!("pid {}", first.child.id())) && text.contains("--worker-id"), "{text}");
    let mut another = world.command_named(&server, "another", "json");
    let (code, text) = run(another.arg("--once").env("RUNNER_SHARED_SECRET", SECRET));
    assert_eq!(code, Some(0), "{text}");
    first.finish();
}

#[test]
fn folders_that_others_may_enter_are_refused_and_left_as_they_are() {
    for folder in ["state/worker-under-test", "cache"] {
        for mode in [0o777, 0o770, 0o755] {
            let server = Server::today(Some(SECRET));
            server.add_job(job("s1", &[("a.sh", "exit 0")]));
            let world = World::new();
            fs::create_dir_all(world.path(folder)).unwrap();
            fs::set_permissions(world.path(folder), fs::Permissions::from_mode(mode)).unwrap();
            let (code, text) = run(world.command(&server).arg("--once").env("RUNNER_SHARED_SECRET", SECRET));
            let mode_now = fs::metadata(world.path(folder)).unwrap().permissions().mode() & 0o777;
            assert_eq!((code, mode_now), (Some(2), mode), "{folder} {mode:o}: {text}");
            assert!(text.contains(folder), "{text}");
            assert!(server.requests().is_empty(), "{folder} {mode:o}: {text}");
        }
    }
}

#[test]
fn folders_in_the_state_that_others_may_enter_are_for_the_operator_to_mend() {
    for folder in ["spool", "in-hand", "rejected"] {
        let server = Server::today(Some(SECRET));
        let world = World::new();
        world.run_once(&server, &[]);
        let path = world.path("state/worker-under-test").join(folder);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let (code, text) = run(world.command(&server).arg("--once").env("RUNNER_SHARED_SECRET", SECRET));
        assert_eq!(code, Some(2), "{folder}: {text}");
        assert!(text.contains(&path.display().to_string()) && text.contains("chmod 700"), "{text}");
    }
}

#[test]
fn folders_of_somebody_else_in_the_state_are_set_aside_however_often_they_come() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    world.run_once(&server, &[]);
    for (folder, event) in [("in-hand", "job_file_broken"), ("spool", "result_set_aside")] {
        for times in 1..=3 {
            fs::create_dir_all(world.path("state/worker-under-test").join(folder).join("foo/x")).unwrap();
            let events = world.run_once(&server, &[]);
            assert_eq!(said(&events, event, "file"), vec!["foo"; times]);
        }
    }
    world.is_clean();
}

#[test]
fn folders_that_cannot_be_had_are_named() {
    for (flag, part) in [("--state-dir", "state"), ("--test-setup-cache-dir", "cache")] {
        let server = Server::today(Some(SECRET));
        let world = World::new();
        fs::write(world.path("file"), "").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chickadee-runner"));
        command
            .args(["--once", "--api-base-url", &server.url(), "--worker-id", "w", "--log-format", "json"])
            .env_clear();
        command.args([flag, &world.path("file/below").display().to_string()]).env("HOME", world.path("home"));
        let (code, text) = run(command.env("TMPDIR", world.scratch()).env("PATH", "/usr/bin:/bin"));
        assert_eq!(code, Some(2), "{part}: {text}");
        assert!(text.contains("file/below") && text.contains(&format!("`{flag}`")), "{text}");
        assert!(server.requests().is_empty());
    }
}

#[test]
fn a_sandbox_that_cannot_be_had_is_said_before_any_poll() {
    if !can_be_sandboxed() {
        return;
    }
    let server = Server::today(Some(SECRET));
    server.add_job(job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    let no_namespaces =
        "echo 0 >/proc/sys/user/max_user_namespaces && echo 0 >/proc/sys/user/max_mnt_namespaces && exec \"$@\"";
    let words = ["unshare", "--user", "--map-root-user", "bash", "-c", no_namespaces, "-"];
    let behind = |flags: &[&str]| run(world.wrapped(&server, &words).args(flags));
    let (code, text) = behind(&["--once", "--sandbox"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("`--sandbox` was asked for; mend what is missing"), "{text}");
    assert!(server.requests().is_empty(), "no job was taken");
    assert!(fs::read_dir(world.scratch()).unwrap().next().is_none(), "nothing is left");
    let (code, text) = behind(&["--once"]);
    assert_eq!((code, server.results().len()), (Some(0), 1), "{text}");
}

#[test]
fn flags_and_variables_that_are_wrong_are_named() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let flags: &[(&[&str], &str)] = &[
        (&["--max-jobs", "0"], "--max-jobs"),
        (&["--max-jobs=-1"], "--max-jobs"),
        (&["--max-jobs", "257"], "--max-jobs"),
        (&["--max-jobs", "two"], "--max-jobs"),
        (&["--api-base-url", "localhost:8080"], "--api-base-url"),
        (&["--api-base-url", "ftp://localhost"], "--api-base-url"),
        (&["--worker-id", ""], "--worker-id"),
        (&["--worker-id", "a\nb"], "--worker-id"),
        (&["--drain-limit", "soon"], "--drain-limit"),
        (&["--log-format", "xml"], "--log-format"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["surplus"], "surplus"),
        (&["--ca-file", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
    ];
    for (flags, part) in flags {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chickadee-runner"));
        command.args(["--once", "--state-dir"]).arg(world.path("state")).args(*flags);
        if !flags.contains(&"--api-base-url") {
            command.args(["--api-base-url", &server.url()]);
        }
        let (code, text) = run(command.env("TMPDIR", world.scratch()).env("HOME", world.path("home")));
        assert!(code == Some(2) && text.contains(part), "{flags:?}: {code:?}\n{text}");
    }
    for (name, value) in [
        ("RUNNER_RETRY_BASE_DELAY_MS", "0"),
        ("RUNNER_RETRY_MAX_DELAY_MS", "soon"),
        ("RUNNER_NETWORK_RETRY_ENABLED", "maybe"),
        ("RUNNER_CAPABILITY_DISCOVERY_ENABLED", "2"),
        ("RUNNER_HEARTBEAT_RETRY_MAX_ATTEMPTS", "0"),
        ("RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS", "-1"),
        ("RUNNER_DOWNLOAD_RETRY_MAX_ATTEMPTS", "1.5"),
        ("RUNNER_MIN_FREE_DISK_MB", "lots"),
        ("RUNNER_DRAIN_LIMIT_SEC", "99999999"),
        ("RUNNER_CA_FILE", "/nowhere/ca.pem"),
    ] {
        let (code, text) = run(world.command(&server).arg("--once").env(name, value));
        assert!(code == Some(2) && (text.contains(name) || text.contains(value)), "{name}={value}: {code:?}\n{text}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn an_address_with_a_password_or_a_key_is_refused_and_neither_is_shown() {
    let world = World::new();
    for address in [
        "http://bot:hunter2@h",
        "http://bot:hunter2@h/a@b",
        "http://bot:x/hunter2@h",
        "http://bot:x?hunter2@h",
        "http://bot:x#hunter2@h/",
        "http:/bot:hunter2@h",
        "bot:hunter2@h",
        "http://h/api?token=hunter2",
        "http://h/api?token=a@hunter2",
        "http://h/#hunter2",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chickadee-runner"));
        let (code, text) = run(command.args(["--once", "--api-base-url", address]).env("HOME", world.path("home")));
        assert_eq!(code, Some(2), "{address}: {text}");
        assert!(text.contains("--api-base-url") && !text.contains("hunter2"), "{address}: {text}");
    }
}

#[test]
fn a_server_that_cannot_be_reached_ends_only_a_worker_that_runs_once() {
    let mut server = Server::today(Some(SECRET));
    server.down();
    let world = World::new();
    let (code, text) = run(world.command(&server).arg("--once").env("RUNNER_SHARED_SECRET", SECRET));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("poll_failed") && text.contains("could not connect"), "{text}");
    let mut worker = world.start(&server, &[]);
    worker.wait_for("poll_failed");
    server.up();
    server.add_job(job("s1", &[("a.sh", "exit 0")]));
    server.wait_until("the result", |state| !state.results.is_empty());
    worker.finish();
}

/// A worker with limits on open files that does jobs in eight slots at once, and what it said.
fn with_open_files(soft: u32, hard: u32) -> (Option<i32>, String) {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let all_run =
        format!("[ $(wc -l <'{}') -ge 8 ] && touch '{}'\n", world.path("runs").display(), world.path("gate").display());
    for number in 0..8 {
        let script = world.counts_in("runs") + &all_run + &world.waits_for("gate");
        server.add_job(own_job(&format!("s{number}"), &[("a.sh", &script)]));
    }
    let limited = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\"");
    let mut command = world.wrapped(&server, &["bash", "-c", &limited, "-"]);
    let (code, text) = run(command.args(["--once", "--max-jobs", "8"]));
    let passed = server.results().values().filter(|stored| stored.collection()["passCount"] == 1).count();
    assert_eq!(passed, if code == Some(0) { 8 } else { 0 }, "{text}");
    (code, text)
}

#[test]
fn slots_have_the_open_files_that_they_need_or_the_worker_does_not_start() {
    let (code, text) = with_open_files(48, 1024);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = with_open_files(48, 96);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        ["--max-jobs", "ulimit -Hn", "LimitNOFILE=", "may have 96"].iter().all(|part| text.contains(part)),
        "{text}"
    );
}

#[test]
fn a_full_disk_takes_no_jobs() {
    let server = Server::today(Some(SECRET));
    server.add_job(job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    let mut command = world.command(&server);
    command.env("RUNNER_SHARED_SECRET", SECRET).env("RUNNER_MIN_FREE_DISK_MB", (1_u64 << 40).to_string());
    let mut worker = world.spawn(&mut command);
    worker.wait_for("disk_low");
    worker.finish();
    let mut worker = world.spawn(command.arg("--once"));
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    assert_eq!(worker.wait_for("worker_stopped")["how"], "hindered");
    assert!(server.requests().is_empty());
}

#[test]
fn threads_that_cannot_be_had_end_the_worker_with_the_remedy() {
    let server = Server::today(Some(SECRET));
    server.add_job(job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    // Each thread wants 2 MiB for its stack.
    let mut command = world.wrapped(&server, &["sh", "-c", "ulimit -v 400000 && exec \"$@\"", "-"]);
    let mut worker = world.spawn(command.args(["--max-jobs", "256"]));
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    let why = worker.wait_for("worker_stopped")["error"].to_string();
    assert!(why.contains("could not start a thread") && why.contains("--max-jobs"), "{why}");
    assert_eq!(server.results().len(), 0);
    world.is_clean();
}

#[test]
fn help_and_version_are_told_and_end_well() {
    for (flag, part) in [("--help", "RUNNER_SHARED_SECRET"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let (code, text) = run(Command::new(env!("CARGO_BIN_EXE_chickadee-runner")).arg(flag));
        assert!(code == Some(0) && text.contains(part), "{code:?}: {text}");
    }
}

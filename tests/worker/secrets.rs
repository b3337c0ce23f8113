//! The worker's secret: no script has it, no log, no other server.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::server::{Fault, Route, Server};
use crate::world::{
    SECRET, User, World, can_be_sandboxed, collection, is_ci, is_infrastructure, is_root, own_job, until, ways, zip_of,
};

/// Where a secret may come from.
const SOURCES: [&str; 4] = ["flag", "RUNNER_SHARED_SECRET", "WORKER_SHARED_SECRET", "file"];

fn give(world: &World, command: &mut Command, source: &str) {
    match source {
        "flag" => command.args(["--worker-secret", SECRET]),
        "file" => {
            let path = world.path(".worker-secret");
            fs::write(&path, format!("  {SECRET}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            command
        }
        variable => command.env(variable, SECRET),
    };
}

/// Prints its own environment.
const OWN: &str = "env >&2; tr '\\0' '\\n' </proc/$$/environ >&2; exit 0";

/// Prints what it can find of the worker: environments and command lines of all processes, and its files, whose folder is `$DIR`.
const SEARCH: &str = r#"
for process in /proc/[0-9]*; do tr '\0' '\n' <"$process/environ"; tr '\0' ' ' <"$process/cmdline"; done >&2 2>/dev/null
cat "$DIR/.worker-secret" /data/.worker-secret ./.worker-secret >&2
ls -R "$DIR/state" "$DIR/cache" >&2
grep -r . "$DIR/state" "$DIR/cache" >&2
exit 0
"#;

#[test]
fn a_secret_of_every_source_signs_and_is_not_in_the_environment_of_scripts() {
    for source in SOURCES {
        let server = Server::today(Some(SECRET));
        server.add_job(own_job("s1", &[("a.sh", OWN)]));
        let world = World::new();
        let mut command = world.command(&server);
        give(&world, &mut command, source);
        let mut worker = world.spawn(command.arg("--once"));
        assert!(worker.wait().success(), "{source}: {}", worker.text());
        let text = collection(&server, "s1")["outcomes"][0]["longResult"].to_string();
        assert!(text.contains("PATH=") && !text.contains(SECRET), "{source}: {text}");
        for name in ["RUNNER_", "WORKER_", "TMPDIR_", "XDG_"] {
            assert!(!text.contains(name), "{source}: {text}");
        }
        assert_eq!(server.violations(), Vec::<String>::new(), "{source}");
        assert!(!worker.text().contains(SECRET), "{source}: {}", worker.text());
        let is_warned = worker.text().contains(if source == "file" { "chmod 600" } else { "--worker-secret" });
        assert_eq!(is_warned, matches!(source, "file" | "flag"), "{source}: {}", worker.text());
    }
}

/// What a script finds that looks for it, as `user`, with these flags.
fn search(user: User, flags: &[&str], source: &str) -> String {
    let server = Server::today(Some(SECRET));
    let world = World::of(user);
    let script = SEARCH.replace("$DIR", &world.dir.path().display().to_string());
    server.add_job(own_job("other-student", &[("a.sh", "exit 0")]));
    server.add_job(own_job("s1", &[("a.sh", &script)]));
    let mut command = world.command(&server);
    give(&world, &mut command, source);
    let mut worker = world.spawn(command.arg("--once").args(flags));
    assert!(worker.wait().success(), "{}", worker.text());
    collection(&server, "s1")["outcomes"][0]["longResult"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_script_in_the_sandbox_finds_nothing_of_the_worker() {
    if !can_be_sandboxed() {
        return;
    }
    for (user, flags) in ways().into_iter().filter(|(_, flags)| !flags.is_empty()) {
        for source in SOURCES {
            let found = search(user, flags, source);
            for word in [SECRET, "in-hand", "worker-under-test", "other-student", "chickadee-runner"] {
                assert!(!found.contains(word), "{user:?}, {source}: `{word}` is in\n{found}");
            }
        }
    }
}

/// `/opt` is such a folder: programs are there.
#[test]
fn what_is_the_workers_does_not_lie_where_the_sandbox_shows_it() {
    if !can_be_sandboxed() || !is_root() || !Path::new("/opt").is_dir() {
        return;
    }
    for (file, flags, temp, is_refused) in [
        (".worker-secret", &["--sandbox"][..], None, true),
        ("state/x", &["--sandbox", "--state-dir", "/opt/state"], None, true),
        ("cache/x", &["--sandbox", "--test-setup-cache-dir", "/opt/cache"], None, true),
        ("other", &["--sandbox"], Some("/opt/tmp"), true),
        ("other", &["--sandbox", "--status-file", "/opt/tmp/status"], None, true),
        (".worker-secret", &[], Some("/opt/tmp"), false),
        ("other", &["--sandbox"], None, false),
    ] {
        let server = Server::today(Some(SECRET));
        let world = World::of(User::Ordinary);
        fs::create_dir_all(world.path(file).parent().unwrap()).unwrap();
        fs::write(world.path(file), SECRET).unwrap();
        let script = format!(
            "mount --bind '{}' /opt && cd /opt && exec setpriv --reuid 65532 --regid 65532 --clear-groups \"$@\"",
            world.dir.path().display()
        );
        let worker = world.command_named(&server, "w", "json");
        let kept = worker.get_args().take(8).chain(["--once".as_ref()]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(worker.get_program()).args(kept).args(flags);
        for (variable, folder) in [("RUNNER_STATE_DIR", "state2"), ("RUNNER_TEST_SETUP_CACHE_DIR", "cache2")] {
            command.env(variable, world.path(folder));
        }
        command.envs(worker.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.envs(temp.map(|folder| ("TMPDIR", folder)));
        let output = command.env("RUNNER_SHARED_SECRET", SECRET).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if is_refused { 2 } else { 0 }), "{file} {flags:?}: {text}");
        assert_eq!(text.contains("scripts in the sandbox could read `/opt/"), is_refused, "{text}");
        assert_eq!(server.requests().is_empty(), is_refused, "{file}");
    }
}

/// Somewhere to make a folder that scripts can be shown, unlike those in `/tmp`, of which each has its own.
fn showable() -> Option<&'static Path> {
    let folder = Path::new(if is_root() { "/var/lib" } else { env!("CARGO_TARGET_TMPDIR") });
    let is_hidden = ["/tmp", "/var/tmp", "/dev"].iter().any(|own| folder.starts_with(own));
    (can_be_sandboxed() && !is_hidden).then_some(folder)
}

/// What a worker in `folder` says, and whether it ran, of which the sandbox shows `shown` of its world.
fn showing(folder: &Path, user: User, shown: &str) -> (Option<i32>, String) {
    let server = Server::today(Some(SECRET));
    let world = World::within(folder, user);
    for folder in ["tmp", "state", "state/another/spool", "cache", "run", "data"] {
        fs::create_dir_all(world.path(folder)).unwrap();
        world.give(folder);
    }
    let secret = world.path(".worker-secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    world.give(".worker-secret");
    fs::set_permissions(world.path("cache"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("state", world.path("link")).unwrap();
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let mut command = world.command(&server);
    let shown: Vec<_> = shown.split(':').map(|path| world.path(path)).collect();
    command.args(["--once", "--sandbox", "--status-file"]).arg(world.path("run/status.json"));
    command.env("RUNNER_SHARED_SECRET", SECRET).env("RUNNER_SANDBOX_SHOWS", std::env::join_paths(&shown).unwrap());
    let mut worker = world.spawn(&mut command);
    let code = worker.wait().code();
    assert_eq!(server.results().len(), usize::from(code == Some(0)), "{shown:?}: {}", worker.text());
    (code, worker.text())
}

#[test]
#[expect(clippy::print_stderr, reason = "what was not tried has to be said")]
fn what_the_sandbox_shows_by_order_is_nothing_of_the_workers() {
    let Some(folder) = showable() else {
        assert!(!is_ci(), "CI must be able to show a folder in a sandbox");
        eprintln!(
            "NOT TRIED: what RUNNER_SANDBOX_SHOWS may name; that takes a sandbox, and a build folder outside /tmp"
        );
        return;
    };
    for (shown, remedy) in [
        ("state", "--state-dir"),
        ("link", "--state-dir"),
        ("state/another/spool", "--state-dir"),
        ("data:cache", "--test-setup-cache-dir"),
        (".worker-secret", "secret elsewhere"),
        ("tmp", "TMPDIR"),
        ("run", "--status-file"),
        (".", "RUNNER_SANDBOX_SHOWS"),
    ] {
        // Those of root have root's files closed to them.
        let user = if is_root() { User::Ordinary } else { User::Caller };
        let (code, text) = showing(folder, user, shown);
        assert_eq!(code, Some(2), "{shown}: {text}");
        let by = shown.rsplit(':').next().unwrap();
        let is_named = text.contains("could read `") && text.contains(&format!("/{by}`")) && text.contains(remedy);
        assert!(is_named && text.contains("from RUNNER_SANDBOX_SHOWS"), "{shown}: {text}");
    }
    for (user, flags) in ways() {
        if !flags.is_empty() {
            let (code, text) = showing(folder, user, "data");
            assert_eq!(code, Some(0), "{user:?}: {text}");
        }
    }
    if is_root() {
        for (shown, code) in [("cache", Some(2)), ("run", Some(2)), ("tmp", Some(0)), (".", Some(2))] {
            let (ended, text) = showing(folder, User::Caller, shown);
            assert_eq!(ended, code, "{shown}: {text}");
        }
    }
}

/// Else the claim about the sandbox could not fail.
#[test]
fn a_script_without_a_sandbox_can_read_the_secret() {
    for source in ["flag", "file"] {
        let found = search(User::Caller, &[], source);
        assert!(found.contains(SECRET) && found.contains("in-hand"), "{source}: {found}");
    }
}

/// An answer that has the secret in it.
fn echo(status: u32) -> Fault {
    let text = format!("wrong secret {SECRET}, {}", json!(SECRET));
    let head = format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    Fault::NotHttp((head + &text).into_bytes())
}

#[test]
fn a_report_does_not_tell_students_the_secret_even_if_the_server_does() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Files, [echo(404)]);
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    World::new().run_once(&server, &[]);
    is_infrastructure(&collection(&server, "s1"), "answered 404: wrong secret [secret]");
    let result = server.results()[&("s1".to_owned(), 1)].first.to_string();
    assert!(!result.contains(SECRET), "{result}");
}

#[test]
fn no_log_and_no_status_tells_the_secret_even_if_the_server_does() {
    for format in ["json", "text"] {
        let server = Server::today(Some(SECRET));
        for route in [Route::Request, Route::Heartbeat, Route::Files, Route::Results] {
            server.script(route, [echo(503), echo(500)]);
        }
        server.script(Route::Request, [echo(401), echo(404), Fault::Body(format!("{{\"{SECRET}\": 1}}").into_bytes())]);
        server.script(Route::Results, [echo(422)]);
        let mut named = json!({"submissionID": SECRET, "testSetupID": SECRET, "attemptNumber": 1, "manifest": {"schemaVersion": 1}});
        for (key, files) in [("submissionURL", &[("answer.txt", "")]), ("testSetupURL", &[("a.sh", "")])] {
            named[key] = json!(server.add_file(&format!("/files/{key}"), zip_of(files)));
        }
        server.add_raw_job(named);
        let mut job = own_job("s2", &[("a.sh", "exit 0")]);
        job.manifest = json!({SECRET: SECRET, "testSuites": SECRET});
        server.add_job(job);
        let world = World::new();
        let status = world.path("status.json");
        let mut command = world.command_named(&server, "worker-under-test", format);
        command.args(["--max-jobs", "1", "--status-file"]).arg(&status);
        let mut worker = world.spawn(command.env("RUNNER_SHARED_SECRET", SECRET));
        // Whichever the third attempt was for.
        until(&|| worker.text(), || worker.text().contains("result_set_aside") && server.results().len() == 1);
        worker.finish();
        assert!(!worker.text().contains(SECRET), "{}", worker.text());
        assert!(worker.text().contains("wrong secret [secret]"), "{}", worker.text());
        let told = fs::read_to_string(&status).unwrap();
        assert!(told.contains("\"lastError\":{") && !told.contains(SECRET), "{told}");
    }
}

#[test]
fn a_refused_signature_is_told_with_where_the_secret_came_from_and_never_with_it() {
    let wrong = "not what the server has";
    for (variable, file, expected) in [
        (Some("RUNNER_SHARED_SECRET"), None, "signed with the secret in `RUNNER_SHARED_SECRET`"),
        (Some("WORKER_SHARED_SECRET"), None, "signed with the secret in `WORKER_SHARED_SECRET`"),
        (None, Some(".worker-secret"), ".worker-secret`"),
        (None, None, "not signed, since no secret was found"),
    ] {
        let server = Server::today(Some(SECRET));
        let world = World::new();
        file.into_iter().for_each(|file| fs::write(world.path(file), wrong).unwrap());
        let mut command = world.command(&server);
        command.envs(variable.map(|variable| (variable, wrong)));
        let mut worker = world.spawn(&mut command);
        let told = worker.wait_for("authentication_refused")["error"].to_string();
        assert!(told.contains(expected), "{expected}: {told}");
        assert_eq!(told.contains("60 s"), variable.or(file).is_some(), "{told}");
        assert!(!worker.text().contains(wrong), "{}", worker.text());
        worker.finish();
    }
}

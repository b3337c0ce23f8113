//! The same work as root and as somebody without rights, behind walls and without; and what `container-runner grade` says of it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::server::{Assigned, Server};
use crate::world::{
    SECRET, World, alive, collection, is_infrastructure, is_not_built, own_job, until, walls, ways, zip_of,
};

/// A job with every kind of outcome.
fn rich(id: &str) -> Assigned {
    let scripts = [
        ("pass.sh", "echo fine; grep -q mine answer.txt"),
        ("fail.sh", "echo '{\"shortResult\": \"2/3\"}'; echo why >&2; exit 1"),
        ("error.sh", "exit 7"),
        ("signal.sh", "kill -SEGV $$"),
        ("slow.sh", "sleep 100"),
        ("bytes.sh", "printf 'a\\000b\\377\\r\\n'; printf '\\376' >&2"),
        ("made.sh", "[ -e made ]"),
        ("after.sh", "exit 0"),
    ];
    let suites: Vec<_> =
        scripts.iter().map(|(script, _)| json!({"script": script, "tier": "release", "points": 2})).collect();
    let mut manifest =
        json!({"schemaVersion": 1, "testSuites": suites, "timeLimitSeconds": 2, "makefile": {"target": "made"}});
    manifest["testSuites"][7]["dependsOn"] = json!(["fail.sh"]);
    manifest["testSuites"]
        .as_array_mut()
        .unwrap()
        .push(json!({"script": "gone.sh", "name": "a script that is not there"}));
    Assigned {
        manifest,
        set_up: zip_of(&[&scripts[..], &[("Makefile", "made:\n\ttouch made\n"), ("data/ours", "ours")]].concat()),
        submission: zip_of(&[
            ("answer.txt", "mine"),
            ("pass.sh", "exit 0"),
            ("data/ours", "theirs"),
            ("data/theirs", ""),
        ]),
        ..own_job(id, &[])
    }
}

#[test]
fn every_user_and_every_kind_of_walls_comes_to_the_same() {
    for (user, flags) in ways() {
        let server = Server::today(Some(SECRET));
        server.add_job(rich("rich"));
        server.add_job(Assigned { submission: b"garbage".to_vec(), ..own_job("garbage", &[("a.sh", "exit 0")]) });
        server.add_job(Assigned { set_up: b"garbage".to_vec(), ..own_job("broken", &[("a.sh", "exit 0")]) });
        let world = World::of(user);
        world.run_once(&server, flags);
        let collection = collection(&server, "rich");
        let statuses: Vec<_> =
            collection["outcomes"].as_array().unwrap().iter().map(|outcome| outcome["status"].clone()).collect();
        assert_eq!(
            statuses[..7],
            ["pass", "fail", "error", "error", "timeout", "pass", "pass"],
            "{user:?} {flags:?}: {collection:#}"
        );
        assert_eq!(statuses[7], "fail", "skipped");
        is_not_built(&crate::world::collection(&server, "garbage"), "no zip archive");
        is_infrastructure(&crate::world::collection(&server, "broken"), "could not unpack the set-up");
        assert_eq!(server.violations(), Vec::<String>::new());
        world.is_clean();
    }
}

#[test]
fn every_user_and_every_kind_of_walls_outlives_a_kill_and_drains() {
    let sleeper = format!("sleep {}.9", 500_000 + std::process::id() % 100_000);
    for (user, flags) in ways() {
        let server = Server::today(Some(SECRET));
        let world = World::of(user);
        server.add_job(own_job("s1", &[("a.sh", &format!("{sleeper} & {sleeper}"))]));
        let mut worker = world.start(&server, flags);
        until(&|| worker.text(), || alive(&sleeper).len() > 1);
        worker.signal(Signal::SIGKILL);
        assert_eq!(worker.wait().signal(), Some(9));
        let mut worker = world.start(&server, &[flags, &["--drain-limit", "1"]].concat());
        worker.wait_for("job_started");
        until(&|| worker.text(), || alive(&sleeper).len() > 1);
        worker.finish();
        assert_eq!(alive(&sleeper), Vec::<String>::new(), "{user:?} {flags:?}");
        is_infrastructure(&collection(&server, "s1"), "stopped before the job was done");
        world.is_clean();
    }
}

/// A collection's text without what differs between two runs of the same: times and memory.
fn timeless(mut text: String) -> String {
    for key in ["executionTimeMs", "jobStartedAt", "timestamp", "memoryUsageBytes"] {
        let key = format!("\"{key}\":");
        let mut parts = text.split(&key);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let value = part.find([',', '}']).unwrap_or(part.len());
            kept.extend([&key, "_", &part[value..]]);
        }
        text = kept;
    }
    text
}

/// The collection that the server was sent, byte by byte.
fn sent(server: &Server, id: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Report<'a> {
        #[serde(borrow)]
        collection: &'a serde_json::value::RawValue,
    }
    let body = server.results()[&(id.to_owned(), 1)].first_body.clone();
    serde_json::from_slice::<Report<'_>>(&body).unwrap().collection.get().to_owned()
}

/// What an instructor has: a zip, or a folder of the same files.
fn at_home(world: &World, name: &str, zipped: &[u8], is_zip: bool) -> PathBuf {
    let path = world.path(name).with_extension(if is_zip { "zip" } else { "" });
    if is_zip {
        fs::write(&path, zipped).unwrap();
    } else {
        zip::ZipArchive::new(std::io::Cursor::new(zipped)).unwrap().extract(&path).unwrap();
    }
    path
}

#[test]
fn an_instructor_who_grades_at_home_sees_what_the_worker_reports() {
    for flags in walls() {
        let server = Server::today(Some(SECRET));
        let mut failing = rich("failing");
        failing.set_up = zip_of(&[("Makefile", "made:\n\techo no; exit 1\n")]);
        failing.submission = zip_of(&[("GNUmakefile", "made:\n\ttouch made\n")]);
        let packed = Assigned { submission: zip_of(&[("alice/answer.txt", "mine")]), ..rich("packed") };
        let jobs = [rich("rich"), failing, packed];
        for job in &jobs {
            server.add_job(job.clone());
        }
        let world = World::new();
        world.run_once(&server, flags);
        for (job, is_zip) in jobs.iter().flat_map(|job| [(job, true), (job, false)]) {
            let id = &job.submission_id;
            // The set-up that an instructor has also has its manifest.
            let set_up = at_home(&world, &format!("set-up-{id}"), &with_manifest(job), is_zip);
            let submission = at_home(&world, &format!("submission-{id}"), &job.submission, is_zip);
            let mut command = Command::new(env!("CARGO_BIN_EXE_container-runner"));
            command.arg("grade").args([&set_up, &submission]).args(["--json", "--submission-id", id]);
            command.args(["--test-setup-id", &job.test_setup_id]).args(*flags);
            command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("TMPDIR", world.scratch());
            let output = command.output().unwrap();
            let graded = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(timeless(sent(&server, id)) + "\n", timeless(graded), "{flags:?}, zip: {is_zip}");
        }
        let warnings = |id: &str| collection(&server, id)["warnings"].to_string();
        assert!(warnings("failing").contains("make would take it instead of the set-up's"), "{}", warnings("failing"));
        assert!(warnings("packed").contains("lies in the folder `alice`"), "{}", warnings("packed"));
        assert_eq!(server.violations(), Vec::<String>::new());
    }
}

fn with_manifest(job: &Assigned) -> Vec<u8> {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new_append(std::io::Cursor::new(job.set_up.clone())).unwrap();
    zip.start_file("test.properties.json", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(job.manifest.to_string().as_bytes()).unwrap();
    zip.finish().unwrap().into_inner()
}

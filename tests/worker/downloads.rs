//! What jobs are fetched from: refused where it would be unsafe, fetched again where it may help, told where nothing does.

use serde_json::{Value, json};

use crate::server::{Assigned, Fault, Route, Server};
use crate::world::{SECRET, World, collection, is_infrastructure, is_not_built, own_job, said, until, zip_of};

fn passing(id: &str) -> Assigned {
    own_job(id, &[("a.sh", "exit 0")])
}

/// A job as it is sent, whose files lie at these addresses.
fn raw(id: &str, set_up: &str, submission: &str) -> Value {
    json!({
        "submissionID": id, "testSetupID": id, "attemptNumber": 1, "submissionURL": submission, "testSetupURL": set_up,
        "manifest": {"schemaVersion": 1, "testSuites": [{"script": "a.sh"}]},
    })
}

fn set_up() -> Vec<u8> {
    zip_of(&[("a.sh", "exit 0")])
}

/// Nobody who knows the secret has been here.
#[track_caller]
fn has_seen_no_signature(server: &Server) {
    for seen in server.requests() {
        let names: Vec<_> = seen.headers.keys().filter(|name| name.starts_with("x-worker")).collect();
        assert!(names.is_empty(), "{} {}: {names:?}", seen.method, seen.path);
    }
}

#[test]
fn a_download_that_fails_on_the_way_is_tried_again() {
    let faults = [
        Fault::Truncated,
        Fault::TruncatedChunks,
        Fault::DropUnread,
        Fault::DropAnswer,
        Fault::Status(503, Some("0".to_owned())),
    ];
    let server = Server::today(Some(SECRET));
    server.script(Route::Files, [&faults[..], &[Fault::None], &faults].concat());
    server.add_job(passing("s1"));
    let world = World::new();
    let events = world.run_once(&server, &[]);
    assert_eq!(collection(&server, "s1")["passCount"], 1);
    let of = said(&events, "download_retried", "of");
    assert_eq!(of, [["set-up"; 5], ["submission"; 5]].concat());
    assert_eq!(server.violations(), Vec::<String>::new(), "each attempt has a signature of its own");
    world.is_clean();
}

#[test]
fn what_is_not_there_is_asked_for_once_and_told_as_no_fault_of_the_student() {
    for (what, before) in [("set-up", 0), ("submission", 1)] {
        for (fault, part, asked) in [
            (Fault::Status(404, None), "404", 1),
            (Fault::Status(410, None), "410", 1),
            (Fault::Status(401, None), "401", 1),
            (Fault::Huge(2 << 20), "more than 1048576 bytes", 1),
            (Fault::Status(503, None), "503", 6),
            (Fault::DropUnread, "connection", 6),
        ] {
            let server = Server::today(Some(SECRET));
            server.script(Route::Files, vec![Fault::None; before]);
            server.script(Route::Files, vec![fault.clone(); asked]);
            server.add_job(passing("s1"));
            server.add_job(passing("s2"));
            let world = World::new();
            let mut command = world.command(&server);
            command.args(["--once", "--max-jobs", "1"]).env("RUNNER_SHARED_SECRET", SECRET);
            let mut worker = world.spawn(command.env("RUNNER_MAX_DOWNLOAD_MB", "1"));
            assert!(worker.wait().success(), "{}", worker.text());
            is_infrastructure(&collection(&server, "s1"), part);
            is_infrastructure(&collection(&server, "s1"), what);
            assert_eq!(collection(&server, "s2")["passCount"], 1, "the next job is done");
            let files = server.requests().iter().filter(|seen| seen.path.starts_with("/files/")).count();
            assert_eq!(files, before + asked + 2, "{what}: {fault:?}");
            world.is_clean();
        }
    }
}

#[test]
fn a_server_of_files_that_asks_for_an_hour_does_not_hold_a_slot_that_long() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Files, vec![Fault::Status(503, Some("3600".to_owned())); 2]);
    server.add_job(passing("s1"));
    let events = World::new().run_once(&server, &[]);
    assert_eq!(collection(&server, "s1")["passCount"], 1);
    assert_eq!(said(&events, "download_retried", "of").len(), 2);
}

#[test]
fn a_download_whose_end_nobody_could_tell_is_fetched_again() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Files, [Fault::Unframed, Fault::None, Fault::Unframed]);
    server.add_job(passing("s1"));
    let mut file = passing("s2");
    (file.submission, file.submission_filename) = (b"to be whole".to_vec(), Some("answer.txt".to_owned()));
    let world = World::new();
    let events = world.run_once(&server, &[]);
    assert_eq!(said(&events, "download_retried", "of"), ["set-up", "submission"]);
    server.script(Route::Files, [Fault::None, Fault::Unframed]);
    file.set_up = zip_of(&[("a.sh", "[ \"$(cat answer.txt)\" = 'to be whole' ]")]);
    server.add_job(file);
    world.run_once(&server, &[]);
    for id in ["s1", "s2"] {
        assert_eq!(collection(&server, id)["passCount"], 1, "{id}");
    }
    world.is_clean();
}

#[test]
fn a_download_that_comes_encoded_is_fetched_again() {
    let server = Server::today(Some(SECRET));
    let mut file = passing("s1");
    file.set_up = zip_of(&[("a.sh", "[ \"$(cat answer.txt)\" = 'to be whole' ]")]);
    (file.submission, file.submission_filename) = (b"to be whole".to_vec(), Some("answer.txt".to_owned()));
    let packed = |coding| Fault::Encoded(coding, b"\x1f\x8b\x08".to_vec());
    let plain = Fault::Encoded(" Identity ", file.submission.clone());
    server.script(Route::Files, [packed("gzip"), Fault::None, packed("GZIP"), packed("identity, br"), plain]);
    server.add_job(file);
    let world = World::new();
    let events = world.run_once(&server, &[]);
    assert_eq!(collection(&server, "s1")["passCount"], 1);
    assert_eq!(said(&events, "download_retried", "of"), ["set-up", "submission", "submission"]);
    server.script(Route::Files, [&[Fault::None][..], &vec![packed("gzip"); 6]].concat());
    server.add_job(passing("s2"));
    world.run_once(&server, &[]);
    is_infrastructure(&collection(&server, "s2"), "could not fetch the submission");
    is_infrastructure(&collection(&server, "s2"), "encoded as `gzip`");
    world.is_clean();
}

#[test]
fn a_page_in_place_of_a_submission_is_not_blamed_on_its_author() {
    let page = |text: &str| Fault::Body(format!("<html>{text}</html>").into_bytes());
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.script(Route::Files, [Fault::None, page("please log in")]);
    server.add_job(passing("once"));
    let events = world.run_once(&server, &[]);
    assert_eq!(collection(&server, "once")["passCount"], 1);
    assert_eq!(said(&events, "download_retried", "of"), ["submission"]);
    server.script(Route::Files, [Fault::None, page("at 14:04"), page("at 14:05")]);
    server.add_job(passing("twice"));
    world.run_once(&server, &[]);
    is_infrastructure(&collection(&server, "twice"), "was not the same");
    let mut theirs = passing("theirs");
    theirs.submission = b"<html>what I have done</html>".to_vec();
    server.add_job(theirs);
    world.run_once(&server, &[]);
    is_not_built(&collection(&server, "theirs"), "no zip archive");
    world.is_clean();
}

#[test]
fn nothing_is_tried_again_where_that_is_turned_off() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Files, [Fault::Status(503, None)]);
    server.add_job(passing("s1"));
    let world = World::new();
    let mut command = world.command(&server);
    command.env("RUNNER_SHARED_SECRET", SECRET).env("RUNNER_NETWORK_RETRY_ENABLED", "no");
    let mut worker = world.spawn(command.arg("--once"));
    assert!(worker.wait().success(), "{}", worker.text());
    is_infrastructure(&collection(&server, "s1"), "503");
    assert_eq!(said(&worker.events(), "download_retried", "of").len(), 0);
}

#[test]
fn files_of_another_origin_are_fetched_without_a_signature() {
    let (server, other) = (Server::today(Some(SECRET)), Server::today(None));
    let files = [other.add_file("/files/set-up", set_up()), other.add_file("/files/submission", zip_of(&[("x", "")]))];
    server.add_raw_job(raw("s1", &files[0], &files[1]));
    World::new().run_once(&server, &[]);
    let told = collection(&server, "s1");
    if told["passCount"] != 1 {
        is_infrastructure(&told, "refused");
    }
    has_seen_no_signature(&other);
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn a_redirect_to_another_origin_is_not_followed() {
    let other = Server::today(None);
    let there = other.add_file("/files/set-up", set_up());
    for location in [there.as_str(), "file:///etc/passwd", "ftp://127.0.0.1/x", "//127.0.0.1:1/x"] {
        for status in [301, 302, 307, 308] {
            let server = Server::today(Some(SECRET));
            server.script(Route::Files, [Fault::Redirect(status, location.to_owned())]);
            server.add_job(passing("s1"));
            World::new().run_once(&server, &[]);
            is_infrastructure(&collection(&server, "s1"), "refused to follow");
        }
    }
    assert_eq!(other.requests().len(), 0, "nothing was asked for there");
}

#[test]
fn polls_and_results_do_not_follow_a_redirect_to_another_origin() {
    let other = Server::today(None);
    for route in [Route::Request, Route::Results, Route::Heartbeat] {
        for status in [301, 302, 303, 307, 308] {
            let server = Server::today(Some(SECRET));
            server.script(route, [Fault::Redirect(status, format!("{}/api/v1/worker/request", other.url()))]);
            server.add_job(passing("s1"));
            World::new().run_once(&server, &[]);
            assert_eq!(server.results().len(), 1, "{route:?} {status}");
        }
    }
    assert_eq!(other.requests().len(), 0, "nothing was said there");
}

#[test]
fn a_redirect_within_the_origin_is_followed_and_signed_for_its_own_path() {
    let server = Server::today(Some(SECRET));
    let there = server.add_file("/files/elsewhere", set_up());
    server.script(
        Route::Files,
        [Fault::Redirect(302, there), Fault::None, Fault::Redirect(307, "/files/elsewhere".into())],
    );
    server.add_job(passing("s1"));
    World::new().run_once(&server, &[]);
    assert_eq!(collection(&server, "s1")["passCount"], 1);
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn addresses_that_are_none_are_told() {
    let server = Server::today(Some(SECRET));
    let good = server.add_file("/files/good", set_up());
    let long = format!("{}/{}", server.url(), "a".repeat(20_000));
    let bad = [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "not an address",
        "",
        "/files/good",
        "http://",
        "http://[::1",
        &long,
    ];
    for (number, address) in bad.iter().enumerate() {
        server.add_raw_job(raw(&format!("set-up {number}"), address, &good));
        server.add_raw_job(raw(&format!("submission {number}"), &good, address));
        // Three that fail one after another would be a trouble.
        server.add_raw_job(raw(&format!("good {number}"), &good, &good));
    }
    World::new().run_once(&server, &["--max-jobs", "1"]);
    let results = server.results();
    assert_eq!(results.len(), 3 * bad.len());
    for (_, stored) in results.iter().filter(|((id, _), _)| !id.starts_with("good")) {
        is_infrastructure(stored.collection(), "could not fetch the");
    }
}

/// One test, since the time that passes is the worker's idle limit.
#[test]
fn a_server_that_goes_silent_is_left_and_asked_again() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Files, [Fault::Stall, Fault::Silence]);
    server.script(Route::Heartbeat, [Fault::None, Fault::Silence]);
    server.script(Route::Results, [Fault::Silence]);
    for id in ["s1", "s2"] {
        server.add_job(passing(id));
    }
    // Both jobs are taken before this one.
    server.script(Route::Request, [Fault::None, Fault::None, Fault::Silence]);
    let world = World::new();
    let mut worker = world.start(&server, &["--max-jobs", "3"]);
    until(&|| worker.text(), || server.results().len() == 2);
    worker.wait_for("poll_failed");
    worker.wait_for("result_retried");
    worker.finish();
    let arrivals: usize = server.results().values().map(|stored| stored.arrivals - stored.differing).sum();
    assert_eq!(arrivals, 3, "the one whose answer never came is sent again, and is the same");
    for id in ["s1", "s2"] {
        assert_eq!(collection(&server, id)["passCount"], 1, "{id}");
    }
    let told = said(&worker.events(), "download_retried", "error").iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(told.len() == 2 && told.iter().all(|error| error.contains("nothing moved for 30 s")), "{told:?}");
    let heartbeats = server.state().heartbeats.len();
    assert!(heartbeats >= 3, "{heartbeats} heartbeats: one at the start, one after 30 s, one at the end");
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

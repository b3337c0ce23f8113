//! Results on their way: they arrive, once, and nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::server::{Fault, Route, Server, Stored};
use crate::world::{SECRET, User, World, is_root, own_job, said};

fn stored(server: &Server, submission_id: &str) -> Stored {
    server.results()[&(submission_id.to_owned(), 1)].clone()
}

/// Nonces of all results that were sent.
fn nonces(server: &Server) -> Vec<String> {
    let requests = server.requests();
    let results = requests.iter().filter(|seen| seen.path.ends_with("/results"));
    results.map(|seen| seen.headers["x-worker-nonce"].clone()).collect()
}

#[test]
fn a_result_is_sent_until_it_is_taken_and_signed_anew_each_time() {
    let faults = [
        Fault::Status(503, None),
        Fault::Status(500, None),
        Fault::Status(429, Some("0".to_owned())),
        Fault::DropUnread,
        Fault::RefuseUnread(502),
        Fault::Body(b"<html>please log in</html>".to_vec()),
        Fault::Body(b"{\"received\":false}".to_vec()),
    ];
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, faults.clone());
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    let events = world.run_once(&server, &[]);
    let (result, mut nonces) = (stored(&server, "s1"), nonces(&server));
    assert_eq!((result.arrivals, result.differing, nonces.len()), (1, 0, faults.len() + 1));
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), faults.len() + 1);
    assert_eq!(said(&events, "result_retried", "failed").len(), faults.len());
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

#[test]
fn a_result_whose_answer_was_lost_is_sent_again_and_is_the_same() {
    for fault in [Fault::DropAnswer, Fault::Truncated, Fault::TruncatedChunks] {
        let server = Server::today(Some(SECRET));
        server.script(Route::Results, [fault.clone()]);
        server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
        let world = World::new();
        world.run_once(&server, &[]);
        let result = stored(&server, "s1");
        assert_eq!((result.arrivals, result.differing), (2, 0), "{fault:?}");
        assert_eq!(server.violations(), Vec::<String>::new());
        world.is_clean();
    }
}

#[test]
fn a_result_that_is_too_large_for_the_server_is_cut_and_that_is_said() {
    let script = "yes 'a long story' | head -n 15000 >&2; echo short; exit 1";
    for fault in [Fault::Status(413, None), Fault::RefuseUnread(413)] {
        let server = Server::today(Some(SECRET));
        server.script(Route::Results, [fault.clone()]);
        server.add_job(own_job("s1", &[("a.sh", script), ("b.sh", "exit 0")]));
        let world = World::new();
        let events = world.run_once(&server, &[]);
        let result = stored(&server, "s1");
        let outcome = &result.collection()["outcomes"][0];
        let text = outcome["longResult"].as_str().unwrap();
        assert!(text.len() < 150_000 && text.contains("bytes cut here"), "{fault:?}: {} bytes", text.len());
        assert!(text.starts_with("a long story\n") && text.ends_with("a long story\n"), "both ends are kept");
        assert_eq!((&outcome["status"], &outcome["shortResult"]), (&json!("fail"), &json!("short")));
        assert_eq!(result.collection()["passCount"], 1);
        assert_eq!((result.arrivals, said(&events, "result_shrunk", "bytes").len()), (1, 1));
        world.is_clean();
    }
}

#[test]
fn a_result_of_more_than_10_mb_is_cut_before_it_is_sent() {
    let script = "yes 'a long story' | head -c 300000 >&2; exit 1";
    let names: Vec<_> = (0..50).map(|number| format!("{number}.sh")).collect();
    let scripts: Vec<_> = names.iter().map(|name| (name.as_str(), script)).collect();
    let server = Server::today(Some(SECRET));
    server.add_job(own_job("s1", &scripts));
    let world = World::new();
    world.run_once(&server, &[]);
    let result = stored(&server, "s1");
    let bytes: usize =
        server.requests().iter().rfind(|seen| seen.path.ends_with("/results")).unwrap().headers["content-length"]
            .parse()
            .unwrap();
    assert!((5_000_000..10_000_000).contains(&bytes), "{bytes}");
    assert_eq!((result.arrivals, nonces(&server).len()), (1, 1), "never sent as it was");
    assert_eq!(result.collection()["failCount"], 50);
}

/// Runs a worker until there is nothing left to do, and expects that it tells of a result that the server does not have.
fn run_once_in_vain(world: &World, server: &Server) -> Vec<Value> {
    let mut worker = world.start(server, &["--once", "--max-jobs", "1"]);
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    assert_eq!(worker.wait_for("worker_stopped")["how"], "unsent");
    worker.events()
}

#[test]
fn a_result_that_will_never_be_taken_is_set_aside_and_the_next_one_sent() {
    for status in [400, 422] {
        let server = Server::today(Some(SECRET));
        server.script(Route::Results, [Fault::Status(status, None)]);
        server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
        server.add_job(own_job("s2", &[("a.sh", "exit 0")]));
        let world = World::new();
        let events = run_once_in_vain(&world, &server);
        assert_eq!(server.results().into_keys().collect::<Vec<_>>(), [("s2".to_owned(), 1)]);
        assert_eq!(said(&events, "result_set_aside", "submissionID"), ["s1"]);
        assert_eq!(rejected(&world, "s1").len(), 1, "{status}");
        world.is_clean();
    }
}

/// Answers of what stands between a worker and its server, or of a server that is being deployed: none of them is about the result.
fn answers_of_others() -> Vec<Fault> {
    let statuses = [404, 405, 409, 410, 415, 501, 507, 521, 202, 204].map(|status| Fault::Status(status, None));
    let redirects = [301, 302, 303, 307].map(|status| Fault::Redirect(status, "https://127.0.0.1:1/login".to_owned()));
    let others = [
        Fault::Redirect(303, "/login".to_owned()),
        Fault::Body(Vec::new()),
        Fault::Body(b"<html>please log in</html>".to_vec()),
        Fault::NotHttp(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        Fault::Huge(2 << 20),
    ];
    statuses.into_iter().chain(redirects).chain(others).collect()
}

#[test]
fn a_result_outlives_whatever_answers_in_the_place_of_its_server() {
    let server = Server::today(Some(SECRET));
    let faults = answers_of_others();
    server.script(Route::Results, faults.clone());
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    let events = world.run_once(&server, &[]);
    assert_eq!(stored(&server, "s1").arrivals, 1);
    assert_eq!(said(&events, "result_retried", "failed").len(), faults.len());
    assert_eq!(said(&events, "result_set_aside", "error").len(), 0);
    world.is_clean();
}

/// 89, within one life of a worker.
#[test]
fn a_result_whose_attempts_are_used_up_is_sent_by_the_same_worker_once_the_server_takes_it() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, vec![Fault::Status(503, None); 6]);
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    let mut command = world.command(&server);
    command.env("RUNNER_SHARED_SECRET", SECRET).env("RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS", "2");
    let mut worker = world.spawn(&mut command);
    worker.wait_for("result_sent");
    worker.finish();
    assert_eq!(said(&worker.events(), "result_retried", "failed"), [1, 2, 3, 4, 5, 6]);
    assert_eq!(stored(&server, "s1").arrivals, 1);
    world.is_clean();
}

#[test]
fn a_server_that_asks_for_time_before_it_takes_a_result_gets_it() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, [Fault::Status(503, Some("2".to_owned()))]);
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    World::new().run_once(&server, &[]);
    let requests = server.requests();
    let at: Vec<_> = requests.iter().filter(|seen| seen.path.ends_with("/results")).map(|seen| seen.at).collect();
    assert!(at.len() == 2 && at[1] - at[0] >= Duration::from_secs(2), "{:?}", at[1] - at[0]);
}

/// 87.
#[test]
fn a_result_that_is_too_large_however_much_is_cut_is_kept_whole_and_the_next_one_sent() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, vec![Fault::Status(413, None); 1000]);
    server.add_job(own_job("s1", &[("a.sh", "yes 'a long story' | head -n 15000 >&2; exit 1")]));
    let world = World::new();
    let mut worker = world.start(&server, &[]);
    worker.wait_for("result_set_aside");
    server.calm();
    server.add_job(own_job("s2", &[("a.sh", "exit 0")]));
    server.wait_until("the next result", |state| !state.results.is_empty());
    worker.finish();
    assert_eq!(server.results().into_keys().collect::<Vec<_>>(), [("s2".to_owned(), 1)]);
    let bytes: Vec<_> =
        said(&worker.events(), "result_shrunk", "bytes").into_iter().map(|bytes| bytes.as_u64().unwrap()).collect();
    assert!(bytes.len() > 3 && bytes.is_sorted_by(|one, next| one > next), "{bytes:?}");
    let kept = rejected(&world, "s1");
    assert_eq!(kept.len(), 1);
    assert!(fs::metadata(&kept[0]).unwrap().len() > 150_000, "whole");
    world.is_clean();
}

/// Results of a submission that were set aside.
fn rejected(world: &World, submission_id: &str) -> Vec<PathBuf> {
    let dir = fs::read_dir(world.path("state/worker-under-test/rejected")).unwrap();
    let results =
        dir.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
    results.filter(|path| fs::read_to_string(path).unwrap().contains(&format!("{submission_id:?}"))).collect()
}

/// As the manual says.
#[test]
fn what_was_set_aside_is_sent_once_it_lies_in_the_spool_again() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, [Fault::Status(422, None)]);
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    run_once_in_vain(&world, &server);
    let kept = rejected(&world, "s1");
    let why = fs::read_to_string(format!("{}.why", kept[0].display())).unwrap();
    assert!(kept.len() == 1 && why.contains("answered 422"), "{kept:?}: {why}");
    let spool = world.path("state/worker-under-test/spool");
    fs::rename(&kept[0], spool.join(kept[0].file_name().unwrap())).unwrap();
    world.run_once(&server, &[]);
    assert_eq!(stored(&server, "s1").arrivals, 1);
    let left = fs::read_dir(world.path("state/worker-under-test/rejected")).unwrap().count();
    assert_eq!(left, 0, "the reason goes with it");
    world.is_clean();
}

#[test]
fn a_worker_that_is_pointed_to_another_server_does_not_send_it_what_it_has_for_the_first() {
    let (first, second) = (Server::today(Some(SECRET)), Server::today(Some(SECRET)));
    first.script(Route::Results, vec![Fault::Status(503, None); 1000]);
    first.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    second.add_job(own_job("s2", &[("a.sh", "exit 0")]));
    let world = World::new();
    let mut worker = world.start(&first, &[]);
    worker.wait_for("result_retried");
    worker.signal(Signal::SIGKILL);
    worker.wait();
    let mut refused = world.start(&second, &["--once"]);
    assert_eq!(refused.wait().code(), Some(2), "{}", refused.text());
    let told = refused.wait_for("worker_stopped")["error"].to_string();
    for part in [first.url(), second.url(), "--worker-id".to_owned(), "--state-dir".to_owned()] {
        assert!(told.contains(&part), "{part}: {told}");
    }
    assert!(second.requests().is_empty());
    first.calm();
    world.run_once(&first, &[]);
    world.run_once(&second, &[]);
    assert_eq!((stored(&first, "s1").arrivals, stored(&second, "s2").arrivals), (1, 1));
    assert_eq!((first.results().len(), second.results().len()), (1, 1));
    world.is_clean();
}

/// Its mode stands for everything that keeps a worker from reading for a while; root would read it all the same.
#[test]
fn a_file_that_cannot_be_read_now_ends_the_start_and_is_sent_or_done_by_the_next_one() {
    for (folder, waits_for) in [("spool", "result_retried"), ("in-hand", "job_started")] {
        let server = Server::today(Some(SECRET));
        server.script(Route::Results, vec![Fault::Status(503, None); 1000]);
        let world = World::of(if is_root() { User::Ordinary } else { User::Caller });
        server.add_job(own_job("s1", &[("a.sh", &world.waits_for("gate"))]));
        if folder == "spool" {
            world.open("gate");
        }
        let mut worker = world.start(&server, &[]);
        worker.wait_for(waits_for);
        worker.signal(Signal::SIGKILL);
        worker.wait();
        world.open("gate");
        server.calm();
        let mut names = fs::read_dir(world.path("state/worker-under-test").join(folder)).unwrap();
        let file = names.next().unwrap().unwrap().path();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        let mut refused = world.start(&server, &["--once"]);
        assert!(!refused.wait().success(), "{}", refused.text());
        let told = refused.wait_for("worker_stopped")["error"].to_string();
        assert!(told.contains(&file.display().to_string()) && told.contains("ermission denied"), "{told}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        world.run_once(&server, &[]);
        assert_eq!(stored(&server, "s1").arrivals, 1);
        world.is_clean();
    }
}

#[test]
fn a_result_that_cannot_be_signed_rightly_waits_for_the_next_start() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, vec![Fault::Status(401, None); 1000]);
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    let mut worker = world.start(&server, &["--once", "--drain-limit", "1"]);
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    assert_eq!(said(&worker.events(), "results_left", "results"), [1]);
    assert!(server.results().is_empty());
    server.calm();
    world.run_once(&server, &[]);
    assert_eq!(stored(&server, "s1").arrivals, 1);
    world.is_clean();
}

//! Results on their way: they arrive, once, and nothing is lost.

use std::fs;

use serde_json::json;

use crate::server::{Fault, Route, Server, Stored};
use crate::world::{SECRET, World, own_job, said};

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
fn a_result_of_more_than_the_contracts_10_mb_is_cut_before_it_is_sent() {
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

#[test]
fn a_result_that_will_never_be_taken_is_set_aside_and_the_next_one_sent() {
    for status in [400, 404, 422] {
        let server = Server::today(Some(SECRET));
        server.script(Route::Results, [Fault::Status(status, None)]);
        server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
        server.add_job(own_job("s2", &[("a.sh", "exit 0")]));
        let world = World::new();
        let events = world.run_once(&server, &["--max-jobs", "1"]);
        assert_eq!(server.results().into_keys().collect::<Vec<_>>(), [("s2".to_owned(), 1)]);
        assert_eq!(said(&events, "result_set_aside", "submissionID"), ["s1"]);
        let rejected = world.path("state/worker-under-test/rejected");
        let files = fs::read_dir(rejected).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        assert_eq!(files.filter(|text| text.contains("\"s1\"") && text.contains("outcomes")).count(), 1, "{status}");
        world.is_clean();
    }
}

#[test]
fn a_result_that_cannot_be_signed_rightly_waits_for_the_next_start() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, [Fault::Status(401, None)]);
    server.add_job(own_job("s1", &[("a.sh", "exit 0")]));
    let world = World::new();
    let mut worker = world.start(&server, &["--once", "--drain-limit", "1"]);
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    assert_eq!(said(&worker.events(), "results_left", "results"), [1]);
    assert!(server.results().is_empty());
    world.run_once(&server, &[]);
    assert_eq!(stored(&server, "s1").arrivals, 1);
    world.is_clean();
}

//! Polls that fail in every way, after which the worker works.

use std::time::Duration;

use crate::server::{Fault, Route, Server};
use crate::world::{SECRET, World, job, said, until};

const PASSES: &[(&str, &str)] = &[("a.sh", "exit 0")];

/// A worker whose first polls come to `faults` does the job that is there after them; returns what it said of its polls.
fn recovers_from(faults: &[Fault], event: &str) -> Vec<String> {
    let server = Server::today(Some(SECRET));
    server.script(Route::Request, faults.to_vec());
    server.add_job(job("s1", PASSES));
    let world = World::new();
    let mut worker = world.start(&server, &[]);
    server.wait_until("the result", |state| !state.results.is_empty());
    worker.finish();
    assert_eq!(server.results()[&("s1".to_owned(), 1)].arrivals, 1, "{}", worker.text());
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
    said(&worker.events(), event, "error").into_iter().map(|error| error.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_server_in_trouble_is_polled_again_until_it_answers() {
    let statuses = [500, 502, 503, 504, 429, 408, 425];
    let faults: Vec<_> = statuses.iter().map(|status| Fault::Status(*status, None)).collect();
    let told = recovers_from(&faults, "poll_failed");
    assert_eq!(told.len(), statuses.len(), "{told:#?}");
    for (text, status) in told.iter().zip(statuses) {
        assert!(text.contains(&format!("answered {status}")), "{status}: {text}");
    }
}

#[test]
fn a_server_that_is_being_deployed_is_polled_again() {
    let statuses = [(400, false), (404, true), (405, true), (413, false), (422, false), (501, true)];
    let faults: Vec<_> = statuses.iter().map(|(status, _)| Fault::Status(*status, None)).collect();
    let told = recovers_from(&faults, "poll_failed");
    assert_eq!(told.len(), statuses.len(), "{told:#?}");
    for (text, (status, may_be_elsewhere)) in told.iter().zip(statuses) {
        assert_eq!(
            text.ends_with("; see whether `--api-base-url` is where the API is"),
            may_be_elsewhere,
            "{status}: {text}"
        );
    }
}

#[test]
fn a_server_that_does_not_know_the_secret_yet_is_polled_again() {
    let told = recovers_from(&[401, 403, 401].map(|status| Fault::Status(status, None)), "authentication_refused");
    assert_eq!(told.len(), 3, "{told:#?}");
}

#[test]
fn answers_that_are_none_are_survived() {
    let texts =
        ["", "<html>please log in</html>", "[]", "42", "{}", "null", "{\"submissionID\":5}", "{\"submissionID\":"];
    let wrong_types = r#"{"submissionID":"a","testSetupID":"b","attemptNumber":"1","submissionURL":[],"testSetupURL":{},"manifest":{}}"#;
    let deep = "[".repeat(100_000);
    let bodies = texts.into_iter().chain([wrong_types, &deep]).map(|text| Fault::Body(text.as_bytes().to_vec()));
    let broken = [
        Fault::Huge(64 << 20),
        Fault::NotHttp(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        Fault::NotHttp(b"HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\n".to_vec()),
        Fault::DropUnread,
        Fault::DropAnswer,
        Fault::Truncated,
        Fault::TruncatedChunks,
        Fault::RefuseUnread(503),
    ];
    let faults: Vec<_> = bodies.chain(broken).collect();
    let told = recovers_from(&faults, "poll_failed");
    assert_eq!(told.len(), faults.len(), "{told:#?}");
    let longest = told.iter().map(String::len).max().unwrap();
    assert!(longest < 1000, "{longest} bytes of a server's answer are in the log");
}

#[test]
fn a_job_whose_ids_are_longer_than_any_is_not_taken() {
    let id = "x".repeat(1025);
    let faults = [[id.as_str(), "setup"], ["s0", &id]].map(|[submission_id, setup_id]| {
        let job = serde_json::json!({
            "submissionID": submission_id, "testSetupID": setup_id, "attemptNumber": 1, "submissionURL": "http://h/s",
            "testSetupURL": "http://h/t", "manifest": {"schemaVersion": 1},
        });
        Fault::Body(job.to_string().into_bytes())
    });
    let told = recovers_from(&faults, "poll_failed");
    assert_eq!(told.len(), 2, "{told:#?}");
    for (text, key) in told.iter().zip(["submissionID", "testSetupID"]) {
        assert!(text.contains(&format!("its `{key}` has more than 1024 bytes")) && !text.contains(&id), "{text}");
    }
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Request, [Fault::Status(503, Some("2".to_owned()))]);
    let world = World::new();
    world.run_once(&server, &[]);
    let at: Vec<_> = server.requests().iter().map(|seen| seen.at).collect();
    assert!(at[1] - at[0] >= Duration::from_secs(2), "{:?}", at[1] - at[0]);
}

#[test]
fn a_worker_id_in_use_elsewhere_is_said_and_polled_again() {
    let server = Server::today(Some(SECRET));
    server.occupy("worker-under-test", "another-host");
    let world = World::new();
    let mut worker = world.start(&server, &[]);
    until(&|| worker.text(), || said(&worker.events(), "worker_id_conflict", "error").len() > 2);
    worker.finish();
    let told = worker.wait_for("worker_id_conflict")["error"].to_string();
    assert!(told.contains("--worker-id"), "{told}");
}

#[test]
fn polls_sign_each_attempt_anew() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Request, [Fault::Status(503, None), Fault::DropAnswer, Fault::Status(429, None)]);
    World::new().run_once(&server, &[]);
    let requests = server.requests();
    let mut nonces: Vec<_> = requests.iter().map(|seen| &seen.headers["x-worker-nonce"]).collect();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!((nonces.len(), requests.len()), (4, 4));
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn a_worker_that_runs_once_does_not_wait_for_a_job_that_it_has_for_ever() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, vec![Fault::Status(503, None); 10_000]);
    server.add_job(job("s1", PASSES));
    let world = World::new();
    let mut command = world.command(&server);
    command.args(["--once", "--drain-limit", "0"]).env("RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS", "1000");
    let mut worker = world.spawn(command.env("RUNNER_SHARED_SECRET", SECRET));
    // The server offers it again and again.
    until(&|| worker.text(), || {
        server.requeue("s1");
        worker.text().contains("worker_stopped")
    });
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    assert_eq!(said(&worker.events(), "worker_stopped", "how"), ["hindered"]);
    assert_eq!(said(&worker.events(), "worker_stopped", "level"), ["error"]);
    assert_eq!(said(&worker.events(), "results_left", "results"), [1]);
}

#[test]
fn a_worker_that_runs_once_tells_of_results_that_are_left() {
    let server = Server::today(Some(SECRET));
    server.script(Route::Results, vec![Fault::Status(503, None); 10_000]);
    server.add_job(job("s1", PASSES));
    let world = World::new();
    let mut worker = world.start(&server, &["--once", "--drain-limit", "0"]);
    assert_eq!(worker.wait().code(), Some(3), "{}", worker.text());
    assert_eq!(said(&worker.events(), "worker_stopped", "how"), ["unsent"]);
    assert_eq!(said(&worker.events(), "worker_stopped", "level"), ["error"]);
    server.calm();
    world.run_once(&server, &[]);
    world.is_clean();
}

#[test]
fn a_page_in_place_of_a_job_is_called_one() {
    let pages = ["<!DOCTYPE html><title>Log in</title>", "\r\n <html>"].map(|page| Fault::Body(page.into()));
    for told in recovers_from(&pages, "poll_failed") {
        assert!(told.contains("it is an HTML page") && told.contains("`--api-base-url`"), "{told}");
    }
}

#[test]
fn a_redirect_that_is_not_followed_tells_where_it_led() {
    let fault = Fault::Redirect(307, "https://user:hunter2@login.example.org/sso?back=key".to_owned());
    let told = recovers_from(&[fault], "poll_failed").concat();
    assert!(told.contains("login.example.org/sso") || told.contains("`https://***`"), "{told}");
    assert!(!told.contains("hunter2") && !told.contains("back="), "{told}");
}

//! Calls to a real server that misbehaves. The numbers are those of the table of faults that this was written from.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::super::retry::{Class, Policy, with_retries};
use super::super::server::{Fault, Route, Server};
use super::*;

const SECRET: &str = "a secret of tests";

/// Limits that a healthy call on a busy machine keeps; tests shorten the one that they are about.
fn limits() -> HttpLimits {
    let long = Duration::from_secs(20);
    HttpLimits { connect: long, idle: long, window: long, window_bytes_min: 1 }
}

fn api_with(base_url: &str, limits: HttpLimits, stop: &Stop) -> HttpApi {
    let config = HttpConfig { base_url, worker_id: "worker-1", secret: Some(SECRET), ca_file: None, limits };
    HttpApi::new(&config, stop.clone()).unwrap()
}

fn api(server: &Server) -> HttpApi {
    api_with(&server.url(), limits(), &Stop::default())
}

fn server() -> Server {
    Server::today(Some(SECRET))
}

fn activity() -> Activity {
    Activity {
        worker_id: "worker-1".to_owned(),
        hostname: "here".to_owned(),
        runner_version: "1".to_owned(),
        max_concurrent_jobs: 1,
        active_jobs: 0,
        profile: None,
    }
}

fn job() -> Value {
    json!({
        "submissionID": "s", "testSetupID": "t", "attemptNumber": 1, "submissionURL": "http://h/s",
        "testSetupURL": "http://h/t", "manifest": { "schemaVersion": 1 },
    })
}

/// A result that the server takes, with `output` as what a compiler has said.
fn result(output: &str) -> Vec<u8> {
    let value = json!({
        "submissionID": "s", "testSetupID": "t", "attemptNumber": 1, "buildStatus": "failed", "compilerOutput": output,
        "outcomes": [], "totalTests": 0, "passCount": 0, "failCount": 0, "errorCount": 0, "timeoutCount": 0,
        "executionTimeMs": 0, "totalPoints": 0, "earnedPoints": 0, "warnings": [], "runnerVersion": "1",
        "timestamp": "2026-02-20T14:04:10Z",
    });
    value.to_string().into_bytes()
}

/// Makes up to eight attempts without a pause.
fn patiently<T>(attempt: impl FnMut() -> Result<T, ApiError>) -> Result<T, ApiError> {
    let attempts_max = NonZeroU32::new(8).unwrap();
    let (none, ever) = (Duration::ZERO, Duration::MAX);
    let policy = Policy { base: none, max: none, asked_max: none, time_max: ever, attempts_max, is_on: true };
    with_retries(&policy, &Stop::default(), &mut |_, _, _| (), attempt)
}

/// Downloads `url` into a file that held something else; returns what it holds afterwards.
fn download(api: &HttpApi, url: &str, bytes_max: u64) -> Result<Vec<u8>, ApiError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[b'x'; 5000]).unwrap();
    let bytes = api.download(url, &mut file, bytes_max)?;
    let mut held = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut held).unwrap();
    assert_eq!(bytes, held.len() as u64);
    Ok(held)
}

fn retry_now() -> Class {
    Class::Retry { after: None }
}

#[test]
fn calls_work_signed_and_over_one_connection() {
    let server = server();
    server.add_raw_job(job());
    let api = api(&server);
    assert!(matches!(api.request(&activity()).unwrap(), Polled::Job(job) if job.submission_id == "s"));
    assert!(matches!(api.request(&activity()).unwrap(), Polled::Nothing));
    api.heartbeat(&activity()).unwrap();
    api.report(&result("")).unwrap();
    let url = server.add_file("/files/a", b"content".to_vec());
    assert_eq!(download(&api, &format!("{url}?key=1"), 7).unwrap(), b"content");
    assert_eq!(server.violations(), Vec::<String>::new());
    let requests = server.requests();
    assert_eq!(requests.len(), 5);
    assert!(requests.iter().all(|seen| seen.connection == requests[0].connection), "connections are kept");
    let agent = concat!("chickadee-runner/", env!("CARGO_PKG_VERSION"));
    assert!(requests.iter().all(|seen| seen.headers["user-agent"] == agent));
    assert!(!format!("{requests:?} {api:?}").contains(SECRET));
}

#[test]
fn without_a_secret_nothing_is_signed() {
    let server = Server::minimal();
    let url = server.url();
    let config = HttpConfig { base_url: &url, worker_id: "w", secret: None, ca_file: None, limits: limits() };
    let api = HttpApi::new(&config, Stop::default()).unwrap();
    assert!(matches!(api.request(&activity()).unwrap(), Polled::Nothing));
    api.report(&result("")).unwrap();
    assert!(server.requests().iter().all(|seen| seen.headers.keys().all(|name| !name.starts_with("x-worker"))));
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn a_wrong_secret_is_refused_by_the_server_of_these_tests() {
    let server = Server::today(Some("another secret"));
    let error = api(&server).request(&activity()).unwrap_err();
    assert_eq!(error.class(), Class::Auth);
    assert_eq!(server.violations(), ["POST /api/v1/worker/request: the signature is wrong"]);
}

#[test]
fn a_base_may_have_a_path_and_a_slash() {
    for suffix in ["/", "/some/prefix", "/some/prefix/"] {
        let server = server();
        let api = api_with(&format!("{}{suffix}", server.url()), limits(), &Stop::default());
        api.heartbeat(&activity()).unwrap();
        let expected = format!("{}/api/v1/worker/heartbeat", suffix.trim_end_matches('/'));
        assert_eq!(server.requests()[0].path, expected);
        assert_eq!(server.violations(), Vec::<String>::new());
    }
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    let good =
        HttpConfig { base_url: "http://h", worker_id: "w", secret: Some(SECRET), ca_file: None, limits: limits() };
    let refusal = |config: HttpConfig<'_>| HttpApi::new(&config, Stop::default()).unwrap_err().to_string();
    assert!(HttpApi::new(&good, Stop::default()).is_ok());
    assert!(refusal(HttpConfig { base_url: "file:///etc", ..good }).contains("no base URL"));
    assert!(refusal(HttpConfig { base_url: "http://user:word@h", ..good }).contains("a name or a password"));
    assert!(refusal(HttpConfig { worker_id: "a\nb", ..good }).contains(r"`a\nb` cannot be sent"));
    assert!(refusal(HttpConfig { ca_file: Some(&empty), ..good }).contains("holds no PEM certificate"));
    assert!(refusal(HttpConfig { ca_file: Some(&dir.path().join("none")), ..good }).contains("could not read"));
}

/// 82.
#[test]
fn a_busy_server_is_asked_again_when_it_wants() {
    let server = server();
    let api = api(&server);
    for code in [408, 425, 429, 500, 502, 503, 504] {
        server.script(Route::Request, [Fault::Status(code, Some("7".to_owned())), Fault::Status(code, None)]);
        let after = Some(Duration::from_secs(7));
        assert_eq!(api.request(&activity()).unwrap_err().class(), Class::Retry { after }, "{code}");
        assert_eq!(api.request(&activity()).unwrap_err().class(), retry_now(), "{code}");
    }
    assert!(matches!(api.request(&activity()).unwrap(), Polled::Nothing));
    let (busy, after) = (Fault::Status(503, Some("7".to_owned())), Some(Duration::from_secs(7)));
    let url = server.add_file("/files/a", b"content".to_vec());
    for route in [Route::Results, Route::Files, Route::Heartbeat] {
        server.script(route, [busy.clone()]);
    }
    assert_eq!(api.report(&result("")).unwrap_err().class(), Class::Retry { after });
    assert_eq!(download(&api, &url, 7).unwrap_err().class(), Class::Retry { after });
    assert_eq!(api.heartbeat(&activity()).unwrap_err().class(), Class::Retry { after });
}

/// 83.
#[test]
fn a_refusal_is_told_with_its_text() {
    let server = server();
    let api = api(&server);
    for code in [400, 404, 413, 422] {
        server.script(Route::Request, [Fault::Status(code, None)]);
        let error = api.request(&activity()).unwrap_err();
        assert_eq!(error.class(), Class::Terminal, "{code}");
        assert_eq!(error.to_string(), format!("`{}/api/v1/worker/request` answered {code}: planned", server.url()));
    }
    server.occupy("worker-1", "elsewhere");
    assert!(
        matches!(api.request(&activity()).unwrap_err(), ApiError::IdInUse { text } if text.contains("another host"))
    );
}

/// 84.
#[test]
fn an_answer_that_is_no_job_is_garbage_and_harmless() {
    let server = server();
    let api = api(&server);
    let bodies = ["", "<html>", "[]", "{}", r#"{"submissionID":7}"#, "\u{1b}[2J", &"[".repeat(100_000), "\0"];
    for body in bodies {
        server.script(Route::Request, [Fault::Body(body.as_bytes().to_vec())]);
        let error = api.request(&activity()).unwrap_err();
        assert!(matches!(&error, ApiError::Garbage { .. }), "{body:.20}: {error:?}");
        assert!(!error.to_string().contains(char::is_control));
    }
    server.script(Route::Request, [Fault::NotHttp(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()), Fault::Huge(1 << 40)]);
    assert!(matches!(api.request(&activity()).unwrap_err(), ApiError::Garbage { .. }));
    assert!(matches!(api.request(&activity()).unwrap_err(), ApiError::TooLarge { bytes_max: JOB_BYTES_MAX, .. }));
    server.add_raw_job(job());
    assert!(matches!(api.request(&activity()).unwrap(), Polled::Job(_)));
}

/// Answers without content, and whether they tell that there is none.
fn empty_answers() -> [(Fault, bool); 5] {
    let not_told = |head: &str| (Fault::NotHttp(format!("HTTP/1.1 {head}\r\n\r\n").into_bytes()), false);
    [
        (Fault::Body(Vec::new()), true),
        (Fault::Status(204, None), true),
        // As of a connection that was cut, and of one who has only accepted it.
        not_told("200 OK"),
        not_told("202 Accepted\r\nContent-Length: 0"),
        not_told("200 OK\r\nContent-Type: application/json"),
    ]
}

#[test]
fn a_result_counts_as_received_only_when_the_server_says_so() {
    let server = server();
    let api = api(&server);
    let texts = ["<html>please log in</html>", r#"{"received":false}"#, "{}", "true", r#"{"received":true"#];
    let bodies = texts.map(|text| Fault::Body(text.into()));
    for fault in bodies.into_iter().chain(empty_answers().map(|(fault, _)| fault)) {
        server.script(Route::Results, [fault.clone()]);
        let error = api.report(&result("")).unwrap_err();
        assert!(matches!(error, ApiError::Garbage { .. }), "{fault:?}: {error:?}");
        assert_eq!(error.class(), retry_now());
    }
    assert!(server.results().is_empty(), "those were not the server's own answers");
    api.report(&result("")).unwrap();
    assert_eq!(server.results().len(), 1);
}

#[test]
fn a_small_server_may_say_so_with_an_answer_that_is_told_to_be_empty() {
    let server = Server::minimal();
    let url = server.url();
    let config = HttpConfig { base_url: &url, worker_id: "w", secret: None, ca_file: None, limits: limits() };
    let api = HttpApi::new(&config, Stop::default()).unwrap();
    for (fault, is_told) in empty_answers() {
        server.script(Route::Results, [fault.clone()]);
        assert_eq!(api.report(&result("")).is_ok(), is_told, "{fault:?}");
    }
    for code in [200, 201, 202] {
        server.script(Route::Results, [Fault::Status(code, None)]);
        assert!(matches!(api.report(&result("")).unwrap_err(), ApiError::Garbage { .. }), "a text of its own: {code}");
    }
}

/// 86, 88.
#[test]
fn every_attempt_is_signed_anew_and_a_result_that_comes_twice_is_stored_once() {
    let server = server();
    let faults = [
        Fault::Status(503, None),
        Fault::DropUnread,
        Fault::DropAnswer,
        Fault::Truncated,
        Fault::TruncatedChunks,
        Fault::Body(b"garbage".to_vec()),
    ];
    server.script(Route::Results, faults);
    let api = api(&server);
    patiently(|| api.report(&result(""))).unwrap();
    assert_eq!(server.violations(), Vec::<String>::new());
    let requests = server.requests();
    let nonces: BTreeSet<_> = requests.iter().map(|seen| &seen.headers["x-worker-nonce"]).collect();
    assert_eq!((requests.len(), nonces.len()), (7, 7));
    let stored = &server.results()[&("s".to_owned(), 1)];
    assert_eq!((stored.arrivals, stored.differing), (4, 0), "dropped, twice cut off, and the good one");
}

/// 87.
#[test]
fn a_result_that_is_too_large_is_refused_also_by_a_server_that_does_not_read_it() {
    let server = server();
    let api = api(&server);
    let large = result(&"x".repeat(10_000_001));
    assert!(matches!(api.report(&large).unwrap_err(), ApiError::Status { code: 413, .. }));
    server.script(Route::Results, [Fault::RefuseUnread(413)]);
    assert!(matches!(api.report(&large).unwrap_err(), ApiError::Status { code: 413, .. }));
    api.report(&result(&"x".repeat(9_000_000))).unwrap();
    assert_eq!(server.violations(), Vec::<String>::new());
}

/// 90.
#[test]
fn redirects_are_followed_within_their_origin_and_signed_for_their_path() {
    let server = server();
    let api = api(&server);
    let url = server.add_file("/files/new", b"content".to_vec());
    for code in [301, 302, 303, 307, 308] {
        server.script(Route::Files, [Fault::Redirect(code, "/files/new".to_owned())]);
        assert_eq!(download(&api, &format!("{}/files/old", server.url()), 100).unwrap(), b"content", "{code}");
    }
    server.script(Route::Files, [Fault::Redirect(302, url)]);
    assert_eq!(download(&api, &format!("{}/files/old", server.url()), 100).unwrap(), b"content");
    server.script(Route::Heartbeat, [Fault::Redirect(308, "/other/api/v1/worker/heartbeat".to_owned())]);
    api.heartbeat(&activity()).unwrap();
    assert_eq!(server.violations(), Vec::<String>::new());
    server.script(Route::Heartbeat, [Fault::Redirect(303, "/files/new".to_owned())]);
    assert!(matches!(api.heartbeat(&activity()).unwrap_err(), ApiError::Refused { .. }));
}

/// 90.
#[test]
fn redirects_to_elsewhere_are_refused_and_nobody_is_asked_there() {
    let (server, other) = (server(), Server::today(None));
    let api = api(&server);
    let elsewhere = other.add_file("/files/a", b"content".to_vec());
    let local = "file:///etc/passwd".to_owned();
    let url = format!("{}/files/a", server.url());
    for location in [elsewhere.clone(), local, elsewhere.replace("http:", ""), elsewhere.replace("http", "https")] {
        server.script(Route::Files, [Fault::Redirect(302, location.clone())]);
        server.script(Route::Results, [Fault::Redirect(307, location.clone())]);
        let error = download(&api, &url, 100).unwrap_err();
        assert!(matches!(error, ApiError::Misled { .. }) && error.to_string().contains(&location), "{error}");
        let error = api.report(&result("")).unwrap_err();
        assert!(matches!(error, ApiError::Misled { .. }) && !error.is_refusal(), "{location}: {error:?}");
    }
    let round = Fault::Redirect(302, "/files/a".to_owned());
    server.script(Route::Files, std::iter::repeat_n(round, 9));
    assert!(matches!(download(&api, &url, 100).unwrap_err(), ApiError::Refused { reason: "too many redirects", .. }));
    assert_eq!(other.requests().len(), 0);
}

/// 91.
#[test]
fn a_file_of_another_origin_is_fetched_like_a_stranger() {
    let (server, other) = (server(), Server::today(None));
    let api = api(&server);
    let url = other.add_file("/files/a", b"content".to_vec());
    let third = server.add_file("/files/a", b"secret".to_vec());
    assert_eq!(download(&api, &url, 100).unwrap(), b"content");
    let seen = &other.requests()[0];
    let known = ["accept", "accept-encoding", "host", "user-agent"];
    assert_eq!(seen.headers.keys().collect::<Vec<_>>(), known, "nothing says who we are");
    for location in [third.clone() + "?key=k", third.replace("http://", "http://user:hunter2@")] {
        other.script(Route::Files, [Fault::Redirect(302, location)]);
        let error = download(&api, &url, 100).unwrap_err();
        assert!(matches!(error, ApiError::Misled { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("key"), "{error}");
    }
    assert_eq!(server.requests().len(), 0, "also not back to the API, with a signature");
    for url in ["file:///etc/passwd", "ftp://h/a", "/files/a", "http://user:word@127.0.0.1/"] {
        assert!(matches!(download(&api, url, 100).unwrap_err(), ApiError::Refused { .. }), "{url}");
    }
}

/// 92.
#[test]
fn a_large_file_on_a_slow_line_arrives_whatever_the_limit_of_a_wait() {
    let server = server();
    let url = server.add_file("/files/a", vec![7; 150_000]);
    server.script(Route::Files, [Fault::Slow(50_000)]);
    let two = Duration::from_secs(2);
    let short = HttpLimits { connect: two, idle: two, window: two, window_bytes_min: 1024 };
    let started = Instant::now();
    assert_eq!(download(&api_with(&server.url(), short, &Stop::default()), &url, 1 << 20).unwrap().len(), 150_000);
    assert!(started.elapsed() > two, "it was no slow line");
}

/// 92.
#[test]
fn a_body_that_stalls_or_an_answer_that_never_comes_ends_at_the_idle_limit() {
    let server = server();
    let url = server.add_file("/files/a", vec![7; 100_000]);
    server.script(Route::Files, [Fault::Stall, Fault::Silence]);
    server.script(Route::Request, [Fault::Silence]);
    server.script(Route::Results, [Fault::Silence]);
    let api = api_with(&server.url(), HttpLimits { idle: Duration::from_millis(300), ..limits() }, &Stop::default());
    let errors = [
        // 88.
        api.report(&result("")).unwrap_err(),
        download(&api, &url, 1 << 20).unwrap_err(),
        download(&api, &url, 1 << 20).unwrap_err(),
        api.request(&activity()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, ApiError::Stalled { .. }), "{error:?}");
        assert_eq!(error.class(), retry_now());
    }
    api.report(&result("")).unwrap();
    let stored = &server.results()[&("s".to_owned(), 1)];
    assert_eq!((stored.arrivals, stored.differing), (2, 0), "the first has arrived, too");
}

/// 92.
#[test]
fn a_byte_now_and_then_is_no_progress() {
    let server = server();
    let url = server.add_file("/files/a", vec![7; 1_000_000]);
    server.script(Route::Files, [Fault::Slow(1000)]);
    let impatient = HttpLimits { window: Duration::from_millis(600), window_bytes_min: 64 * 1024, ..limits() };
    let error = download(&api_with(&server.url(), impatient, &Stop::default()), &url, 1 << 20).unwrap_err();
    assert!(matches!(error, ApiError::TooSlow { .. }), "{error:?}");
    assert_eq!(error.class(), retry_now());
}

#[test]
fn the_stop_flag_ends_a_wait_at_once() {
    let server = server();
    server.script(Route::Request, [Fault::Silence]);
    let (stop, hour) = (Stop::default(), Duration::from_secs(3600));
    let endless = HttpLimits { connect: hour, idle: hour, window: hour, window_bytes_min: 1 };
    let api = api_with(&server.url(), endless, &stop);
    thread::scope(|scope| {
        let call = scope.spawn(|| api.request(&activity()).unwrap_err());
        server.wait_until("the request is there", |state| !state.requests.is_empty());
        stop.set();
        let error = call.join().unwrap();
        assert!(matches!(error, ApiError::Stopped), "{error:?}");
        assert_eq!(error.class(), Class::Stopped);
    });
}

/// 93.
#[test]
fn a_file_that_ends_early_is_told_and_comes_with_the_next_attempt() {
    let server = server();
    let api = api(&server);
    let url = server.add_file("/files/a", vec![7; 300_000]);
    for fault in [Fault::Truncated, Fault::TruncatedChunks] {
        server.script(Route::Files, [fault.clone(), Fault::None]);
        let error = download(&api, &url, 1 << 20).unwrap_err();
        assert!(matches!(error, ApiError::Truncated { .. }), "{fault:?}: {error:?}");
        assert_eq!(error.class(), retry_now());
        assert_eq!(download(&api, &url, 1 << 20).unwrap(), vec![7; 300_000]);
    }
}

/// 94.
#[test]
fn a_file_that_is_not_there_is_not_asked_for_again() {
    let server = server();
    let api = api(&server);
    let error = patiently(|| download(&api, &format!("{}/files/none", server.url()), 100)).unwrap_err();
    assert!(matches!(error, ApiError::Status { code: 404, .. }));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_file_may_be_as_large_as_allowed_and_no_byte_more() {
    let server = server();
    let api = api(&server);
    let url = server.add_file("/files/a", vec![7; 1000]);
    assert_eq!(download(&api, &url, 1000).unwrap().len(), 1000);
    let error = download(&api, &url, 999).unwrap_err();
    assert!(matches!(error, ApiError::TooLarge { bytes_max: 999, .. }));
    assert_eq!(error.class(), Class::Terminal);
    server.script(Route::Files, [Fault::Huge(1 << 40)]);
    assert!(matches!(download(&api, &url, 1 << 20).unwrap_err(), ApiError::TooLarge { .. }), "without a length, too");
}

/// 89, the part of one request.
#[test]
fn a_server_that_is_down_or_was_started_again_is_an_ordinary_retry() {
    let mut server = server();
    let api = api(&server);
    api.heartbeat(&activity()).unwrap();
    server.down();
    let error = api.heartbeat(&activity()).unwrap_err();
    assert!(matches!(error, ApiError::Connect { .. } | ApiError::Dropped { .. }), "{error:?}");
    assert_eq!(error.class(), retry_now());
    let error = api.heartbeat(&activity()).unwrap_err();
    assert!(matches!(error, ApiError::Connect { .. }), "{error:?}");
    server.up();
    patiently(|| api.heartbeat(&activity())).unwrap();
    assert_eq!(server.state().heartbeats.len(), 2);
}

#[test]
fn a_server_that_speaks_no_tls_or_a_name_that_is_none_is_no_connection() {
    let server = server();
    for base in [server.url().replace("http:", "https:"), "http://name.invalid".to_owned()] {
        let error = api_with(&base, limits(), &Stop::default()).heartbeat(&activity()).unwrap_err();
        assert!(matches!(error, ApiError::Connect { .. }), "{base}: {error:?}");
    }
}

#[test]
fn a_peer_that_accepts_and_says_nothing_to_tls_is_left_at_the_idle_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://{}", silent.local_addr().unwrap());
    let short = HttpLimits { idle: Duration::from_millis(300), ..limits() };
    let error = api_with(&base, short, &Stop::default()).heartbeat(&activity()).unwrap_err();
    assert!(matches!(error, ApiError::Stalled { .. }), "{error:?}");
}

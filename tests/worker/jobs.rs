//! Jobs that go well.

use serde_json::json;

use crate::server::Server;
use crate::world::{SECRET, World, job, walls, zip_of};

#[test]
fn a_job_is_graded_and_reported_as_todays_server_wants_it() {
    let server = Server::today(Some(SECRET));
    let scripts =
        [("a.sh", "grep -q s1 answer.txt"), ("b.sh", "echo '{\"shortResult\":\"2/3\"}'; echo why >&2; exit 1")];
    server.add_job(job("s1", &scripts));
    let world = World::new();
    let events = world.run_once(&server, &[]);
    let results = server.results();
    let stored = &results[&("s1".to_owned(), 1)];
    let outcomes = &stored.collection()["outcomes"];
    assert_eq!((&outcomes[0]["status"], &outcomes[1]["status"]), (&json!("pass"), &json!("fail")));
    assert_eq!((&outcomes[1]["shortResult"], &outcomes[1]["longResult"]), (&json!("2/3"), &json!("why\n")));
    assert_eq!(stored.first["diagnostics"]["finalStatus"], "failed");
    assert_eq!((stored.arrivals, server.violations()), (1, Vec::new()));
    assert_eq!(world.left(), Vec::<std::path::PathBuf>::new());
    assert!(events.iter().any(|event| event["event"] == "result_sent"), "{events:?}");
}

/// What was measured is plausible, and what only walls make known is absent without them.
#[test]
fn what_a_job_took_is_measured_and_reported() {
    for flags in walls() {
        let server = Server::today(Some(SECRET));
        let mut job = job("s1", &[("a.sh", "head -c 3000000 /dev/zero >big"), ("b.sh", "sleep 0.1; exit 7")]);
        job.set_up = zip_of(&[
            ("a.sh", "head -c 3000000 /dev/zero >big"),
            ("b.sh", "sleep 0.1; exit 7"),
            ("Makefile", "all:\n\thead -c 2000000 /dev/zero >made\n"),
        ]);
        job.manifest["makefile"] = json!({});
        server.add_job(job);
        World::new().run_once(&server, flags);
        let diagnostics = server.results()[&("s1".to_owned(), 1)].first["diagnostics"].clone();
        let stages = diagnostics["stageTimings"].as_object().unwrap();
        let of_stage = |name: &str| stages.get(name).and_then(serde_json::Value::as_u64);
        let measured = ["workdirSetupMs", "submissionDirSetupMs", "submissionDownloadMs", "testSetupAcquireMs"];
        let more = ["submissionUnpackMs", "starterCleanupMs", "submissionPrepareMs", "makeStepMs", "testExecutionMs"];
        for name in measured.into_iter().chain(more) {
            assert!(of_stage(name).is_some(), "{name}: {diagnostics}");
        }
        let spent: u64 = stages.values().filter_map(serde_json::Value::as_u64).sum();
        assert!(of_stage("testExecutionMs") >= Some(100) && Some(spent) <= diagnostics["wallClockMs"].as_u64());
        assert_eq!((&diagnostics["exitCode"], &diagnostics["terminationReason"]), (&json!(7), &json!("exit")));
        assert!(diagnostics["freeDiskMBAtStart"].is_u64() && diagnostics["peakRSSBytes"].as_u64() > Some(1 << 20));
        let peak = diagnostics["workdirPeakBytes"].as_u64();
        if flags.contains(&"--sandbox") {
            assert!(peak.is_some_and(|peak| (5_000_000..6_000_000).contains(&peak)), "{diagnostics}");
            assert!(diagnostics["childProcessCount"].as_u64() >= Some(4), "{diagnostics}");
        } else {
            assert_eq!((peak, diagnostics.get("childProcessCount")), (None, None));
        }
    }
}

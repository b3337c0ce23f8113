//! What is reported: to people as a table, to programs as JSON.

use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::{Lab, PLAIN, Way, lines, ways};

/// One script of each kind. All need the file `answer`, which is a submission's.
fn all_kinds(way: Way) -> Lab {
    let lab = Lab::with(
        way,
        &[
            ("adds.sh", "[ \"$(cat answer)\" = 42 ]", json!({"points": 8, "name": "adds numbers"})),
            (
                "subtracts.sh",
                "echo why >&2; echo noise; echo '{\"shortResult\": \"3/4 cases\"}'; exit 1",
                json!({"points": 2, "tier": "release"}),
            ),
            ("crashes.sh", "echo last words; kill -SEGV $$", json!({"tier": "secret"})),
            ("hangs.sh", "sleep 600", json!({"points": 0, "tier": "student"})),
            ("after.sh", "exit 0", json!({"dependsOn": ["crashes.sh"]})),
        ],
    );
    let mut manifest: Value = serde_json::from_str(&lab.project.text("week1/test.properties.json")).unwrap();
    manifest["timeLimitSeconds"] = json!(2);
    lab.manifest(&manifest);
    lab.file("alice/answer", "42").file("alice/adds.sh", "exit 0");
    lab
}

#[test]
fn the_table_has_a_row_for_each_outcome_and_the_sums() {
    for way in ways() {
        let ended = all_kinds(way).grade(&["week1", "alice"]);
        ended.code(0);
        let expected = [
            "status tier points time test result",
            "pass public 8/8 N ms adds numbers passed",
            "fail release 0/2 N ms subtracts 3/4 cases",
            "| why",
            "error secret 0/1 N ms crashes last words",
            "| signal SIGSEGV",
            "timeout student 0/0 N ms hangs timed out after 2 s (`timeLimitSeconds`)",
            "fail public 0/1 N ms after Skipped: prerequisite 'crashes.sh' did not pass",
            "warning: `adds.sh` of the submission was left out: its place is the set-up's",
            "1 of 5 passed, 8 of 12 points, N ms",
        ];
        assert_eq!(lines(&ended), expected, "{way:?}\n{ended}");
        assert_eq!(ended.stderr, "", "{way:?}");
        let column = ended.stdout.find("result").unwrap();
        let rows = ended.stdout.lines().filter(|line| line.contains(" ms  "));
        rows.for_each(|row| assert_eq!(row.as_bytes()[column - 1], b' ', "{ended}"));
    }
}

/// Source: docs/protocol.md, "Job and result".
#[test]
fn the_json_is_the_collection_of_the_protocol_whoever_runs_it_and_where() {
    for way in ways() {
        let mut found = all_kinds(way).json(0, &["week1", "alice"]);
        let sum: u64 = found["outcomes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|outcome| outcome["executionTimeMs"].as_u64().unwrap())
            .sum();
        assert_eq!(found["executionTimeMs"], sum);
        for key in ["jobStartedAt", "timestamp"] {
            let text = found[key].take();
            let text = text.as_str().unwrap();
            let is_time = text.len() == 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T';
            assert!(is_time, "{key}: {text}");
        }
        let run = |outcome: &mut Value| {
            assert!(outcome["memoryUsageBytes"].take().as_u64().unwrap() > 0, "{outcome:#}");
            outcome["executionTimeMs"].take();
        };
        found["outcomes"].as_array_mut().unwrap()[..4].iter_mut().for_each(run);
        found["executionTimeMs"].take();
        assert_eq!(found, expected(), "{way:?}");
    }
}

fn expected() -> Value {
    json!({
        "submissionID": "alice", "testSetupID": "week1", "attemptNumber": 1, "buildStatus": "skipped",
        "outcomes": [
            {"testName": "adds numbers", "tier": "public", "status": "pass", "shortResult": "passed", "points": 8,
             "attemptNumber": 1, "isFirstPassSuccess": true, "memoryUsageBytes": null, "executionTimeMs": null},
            {"testName": "subtracts", "tier": "release", "status": "fail", "shortResult": "3/4 cases", "longResult": "why\n",
             "points": 2, "attemptNumber": 1, "isFirstPassSuccess": false, "memoryUsageBytes": null, "executionTimeMs": null},
            {"testName": "crashes", "tier": "secret", "status": "error", "shortResult": "last words",
             "longResult": "signal SIGSEGV", "points": 1, "attemptNumber": 1, "isFirstPassSuccess": false,
             "memoryUsageBytes": null, "executionTimeMs": null},
            {"testName": "hangs", "tier": "student", "status": "timeout", "shortResult": "timed out", "points": 0,
             "attemptNumber": 1, "isFirstPassSuccess": false, "memoryUsageBytes": null, "executionTimeMs": null},
            {"testName": "after", "tier": "public", "status": "fail",
             "shortResult": "Skipped: prerequisite 'crashes.sh' did not pass", "points": 1, "attemptNumber": 1,
             "isFirstPassSuccess": false, "executionTimeMs": 0},
        ],
        "totalTests": 5, "passCount": 1, "failCount": 2, "errorCount": 1, "timeoutCount": 1, "executionTimeMs": null,
        "totalPoints": 12, "earnedPoints": 8,
        "warnings": ["`adds.sh` of the submission was left out: its place is the set-up's"],
        "jobStartedAt": null, "timestamp": null, "runnerVersion": format!("proving-ground/{}", env!("CARGO_PKG_VERSION")),
    })
}

#[test]
fn ids_and_the_attempt_are_as_they_are_named_else_as_the_files_are() {
    let lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    lab.file("bob.tar.gz", "x").file("bob.v2/x", "x");
    let ids = |arguments: &[&str]| {
        let found = lab.json(0, arguments);
        let text = |key: &str| found[key].as_str().unwrap().to_owned();
        (text("submissionID"), text("testSetupID"), found["attemptNumber"].as_u64().unwrap())
    };
    let owned = |one: &str, other: &str, attempt| (one.to_owned(), other.to_owned(), attempt);
    assert_eq!(ids(&["week1"]), owned("week1", "week1", 1));
    assert_eq!(ids(&["./week1/", "bob.tar.gz"]), owned("bob.tar", "week1", 1));
    assert_eq!(ids(&["week1/../week1/.", "bob.v2"]), owned("bob.v2", "week1", 1));
    let named = ["week1", "bob.v2", "--submission-id", "sub_1", "--test-setup-id", "set/1 ", "--attempt", "3"];
    assert_eq!(ids(&named), owned("sub_1", "set/1 ", 3));
    let second = lab.json(0, &named);
    assert_eq!(second["outcomes"][0]["attemptNumber"], 3);
    assert_eq!(second["outcomes"][0]["isFirstPassSuccess"], false);
}

#[test]
fn a_set_up_without_a_manifest_has_its_scripts_in_byte_order() {
    let lab = Lab::new(PLAIN);
    lab.file("week1/b.sh", "exit 0")
        .file("week1/10.sh", "exit 0")
        .file("week1/9.sh", "exit 1")
        .file("week1/sub/x.sh", "");
    let names: Vec<_> =
        lab.json(0, &["week1"])["outcomes"].as_array().unwrap().iter().map(|o| o["testName"].clone()).collect();
    assert_eq!(names, ["10", "9", "b"]);
}

#[test]
fn a_seed_is_what_scripts_find_in_their_environment() {
    for way in ways() {
        let lab = Lab::with(way, &[("a.sh", "echo \"[${CHICKADEE_ASSIGNMENT_SEED-none}]\"", json!({}))]);
        let said = |arguments: &[&str]| lab.json(0, arguments)["outcomes"][0]["shortResult"].clone();
        assert_eq!(said(&["week1"]), "[none]", "{way:?}");
        assert_eq!(said(&["week1", "--seed", "a b $x"]), "[a b $x]", "{way:?}");
        assert_eq!(said(&["week1", "--seed", ""]), "[]", "{way:?}");
    }
}

#[test]
fn nothing_else_of_our_environment_is_there() {
    for way in ways() {
        let mut lab = Lab::with(way, &[("a.sh", "env | grep -c hush; exit 0", json!({}))]);
        lab.project =
            lab.project.variable("RUNNER_SHARED_SECRET", "hush").variable("CHICKADEE_ASSIGNMENT_SEED", "hush");
        assert_eq!(lab.json(0, &["week1"])["outcomes"][0]["shortResult"], "0", "{way:?}");
    }
}

#[test]
fn a_submission_may_be_one_file() {
    for way in ways() {
        let lab = Lab::with(way, &[("a.sh", "cat answer.txt", json!({}))]);
        lab.file("answer.txt", "42");
        std::os::unix::fs::symlink("answer.txt", lab.project.path("link.txt")).unwrap();
        let said = |file: &str| lab.json(0, &["week1", file])["outcomes"][0]["shortResult"].clone();
        assert_eq!(said("answer.txt"), "42", "{way:?}");
        assert_eq!(said("./answer.txt"), "42", "{way:?}");
        assert_eq!(said("link.txt"), "failed", "it is called otherwise: {way:?}");
    }
}

#[test]
fn folders_may_be_named_by_links_and_from_within() {
    let lab = Lab::with(PLAIN, &[("a.sh", "cat answer", json!({}))]);
    lab.file("alice/answer", "42");
    for (link, folder) in [("setup", "week1"), ("submission", "alice")] {
        std::os::unix::fs::symlink(folder, lab.project.path(link)).unwrap();
    }
    let found = lab.json(0, &["setup", "submission"]);
    assert_eq!((&found["outcomes"][0]["shortResult"], &found["warnings"]), (&json!("42"), &json!([])));
    assert_eq!(found["submissionID"], "submission");
}

#[test]
fn what_make_says_is_shown_if_it_fails() {
    for way in ways() {
        let lab = Lab::new(way);
        lab.manifest(&json!({"schemaVersion": 1, "testSuites": [{"script": "a.sh"}], "makefile": {"target": "it"}}));
        lab.file("week1/a.sh", "cat built").file("week1/Makefile", "it:\n\tcp answer built\n");
        let ended = lab.grade(&["week1"]);
        ended.code(0).says("make\n| ").says("| make: code 2\n").says("nothing was graded: the make step failed");
        let found = lab.json(0, &["week1"]);
        let keys = ["buildStatus", "outcomes", "totalTests", "errorCount"].map(|key| found[key].clone());
        assert_eq!(keys, [json!("failed"), json!([]), json!(0), json!(0)], "{way:?}");
        assert!(found["compilerOutput"].as_str().unwrap().ends_with("make: code 2"), "{found:#}");
        lab.file("alice/answer", "42");
        let found = lab.json(0, &["week1", "alice"]);
        assert_eq!((&found["buildStatus"], &found["passCount"]), (&json!("passed"), &json!(1)), "{way:?} {found:#}");
    }
}

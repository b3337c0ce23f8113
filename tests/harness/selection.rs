//! Which trials run: `TEST_FILTER`, and the filters and flags of libtest.

use libtest_mimic::Trial;
use serde_json::json;

use crate::world::{Project, claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(test_filter_takes_one_whole_name),
        claim(test_filter_that_matches_nothing_names_close_ones),
        claim(test_filter_takes_a_set_up),
        claim(filters_select_by_parts_of_names),
        claim(a_filter_that_matches_nothing_has_no_effect),
        claim(what_is_not_selected_is_counted),
        claim(a_variable_that_does_not_parse_is_named),
        claim(whatever_test_runners_send_is_accepted),
        claim(junit_is_a_format),
        claim(an_unknown_flag_is_named),
        claim(fail_fast_stops_after_the_first_failure),
        claim(shuffling_keeps_the_order_of_suites),
        claim(json_has_libtests_events_and_nothing_else),
        claim(ignored_selects_nothing),
        claim(nocapture_shows_blocks_on_stderr),
    ]
}

fn project() -> Project {
    let project = Project::new();
    for name in ["20-enable", "40-enable-partial", "50-disable"] {
        project.suite(name, &[("execute", "echo $SUITE_NAME >>order")]);
    }
    let entries = json!([{"script": "1.sh", "name": "one"}, {"script": "2.sh"}]);
    project.setup(
        "set",
        &json!({"schemaVersion": 1, "testSuites": entries}),
        &[("1.sh", "exit 0"), ("2.sh", "exit 0")],
    );
    project
}

fn test_filter_takes_one_whole_name() {
    let project = project().variable("TEST_FILTER", "20-enable");
    let ended = project.run(&[]);
    ended.code(0);
    assert_eq!(ended.names(), ["20-enable"]);
    assert_eq!(project.order(), ["20-enable"]);
}

fn test_filter_that_matches_nothing_names_close_ones() {
    for (filter, close) in [("enable", "20-enable"), ("40-enable-partail", "40-enable-partial"), ("zzz", "TEST_FILTER")]
    {
        let project = project().variable("TEST_FILTER", filter);
        let ended = project.run(&[]);
        ended.code(2).stderr_says("`TEST_FILTER`").stderr_says(filter).stderr_says(close);
        assert!(project.order().is_empty() && !project.path("proof").exists());
    }
}

fn test_filter_takes_a_set_up() {
    let project = project().variable("TEST_FILTER", "set");
    let ended = project.run(&[]);
    ended.code(0);
    assert_eq!(ended.names(), ["set/one", "set/2"]);
}

fn filters_select_by_parts_of_names() {
    let all = ["20-enable", "40-enable-partial", "50-disable", "set/one", "set/2"];
    let table: [(&[&str], &[&str]); 9] = [
        (&[], &all),
        (&["enable"], &all[..2]),
        (&["50", "partial"], &["40-enable-partial", "50-disable"]),
        (&["--exact", "20-enable"], &["20-enable"]),
        (&["--exact", "20-enable", "set/2"], &["20-enable", "set/2"]),
        (&["able", "--skip", "partial"], &["20-enable", "50-disable"]),
        (&["--skip", "able", "--skip", "one"], &["set/2"]),
        (&["--exact", "20-enable", "--skip", "20"], &["20-enable"]),
        (&["able", "50", "--skip", "50"], &["20-enable", "40-enable-partial"]),
    ];
    let project = project();
    for (arguments, expected) in table {
        let ended = project.run(arguments);
        ended.code(0);
        assert_eq!(ended.names(), expected, "{arguments:?}");
        let listed = project.run(&[arguments, &["--list", "--format", "terse"]].concat());
        let lines: Vec<_> = expected.iter().map(|name| format!("{name}: test")).collect();
        assert_eq!(listed.stdout.lines().collect::<Vec<_>>(), lines, "{arguments:?}");
    }
}

fn a_filter_that_matches_nothing_has_no_effect() {
    let project = project();
    project.file("suites/runner.yaml", "isolation: none\nproduct: {name: x, build: cargo}\n");
    for arguments in [&["zzz"][..], &["--exact", "zzz"], &["--exact", "enable"], &["--skip", ""]] {
        project.run(arguments).code(0);
        assert!(!project.path("proof").exists() && !project.path("runner.jsonl").exists(), "{arguments:?}");
    }
    assert!(project.order().is_empty());
}

fn what_is_not_selected_is_counted() {
    let project = project();
    project.run(&["enable"]).code(0);
    let summary = project.summary();
    assert_eq!((&summary["selected"], &summary["not_selected"]), (&json!(2), &json!(3)));
}

fn a_variable_that_does_not_parse_is_named() {
    for value in ["abc", "0", "-1", "1.5", "99999999999999999999", "1s"] {
        let project = project().variable("SUITE_TIMEOUT_SEC", value);
        project.run(&[]).code(2).stderr_says("SUITE_TIMEOUT_SEC").stderr_says(value);
        assert!(project.order().is_empty() && !project.path("proof").exists());
    }
    let project = project().variable("PROJECT_DIR", "/no/such");
    project.run(&[]).code(2).stderr_says("PROJECT_DIR");
}

fn whatever_test_runners_send_is_accepted() {
    let lines = [
        "--no-capture",
        "-q --format pretty",
        "--report-time -Z unstable-options",
        "--ensure-time",
        "--shuffle-seed 7",
        "--exclude-should-panic",
        "--force-run-in-process",
        "--ignored --include-ignored",
        "--include-ignored",
        "--show-output",
        "--test",
        "--color never",
        "--logfile log",
        "--test-threads=3",
    ];
    let project = project();
    for line in lines {
        let arguments: Vec<_> = line.split(' ').chain(["--exact", "20-enable"]).collect();
        let ended = project.run(&arguments);
        assert_eq!(ended.status.code(), Some(0), "{line}: {ended}");
    }
    assert_eq!(project.order().len(), lines.len());
}

fn junit_is_a_format() {
    let project = project();
    let ended = project.run(&["-Z", "unstable-options", "--format", "junit", "20-enable"]);
    ended.code(0);
    assert!(ended.stdout.starts_with("<?xml") && ended.stdout.contains("name=\"20-enable\""), "{ended}");
    project.suite("60-fails", &[("execute", "printf 'a<b\\033[31m\\n'; exit 7")]);
    let ended = project.run(&["--format=junit", "60-fails"]);
    ended.code(101);
    assert!(ended.stdout.contains("<failure") && ended.stdout.contains("exited with code 7"), "{ended}");
    assert!(ended.stdout.contains("a&lt;b") && !ended.stdout.contains('\u{1b}'), "{ended}");
}

fn an_unknown_flag_is_named() {
    let project = project();
    project.run(&["--no-such-flag"]).code(101).stderr_says("no-such-flag");
    assert!(project.order().is_empty());
}

fn fail_fast_stops_after_the_first_failure() {
    let project = Project::new();
    for name in ["10-a", "20-b", "30-c"] {
        project.suite(name, &[("execute", "echo $SUITE_NAME >>order; [[ $SUITE_NAME != 20-b ]]")]);
    }
    project.run(&["--fail-fast"]).code(101);
    assert_eq!(project.order(), ["10-a", "20-b"]);
}

fn shuffling_keeps_the_order_of_suites() {
    let project = project();
    project.run(&["--shuffle", "-Z", "unstable-options"]).code(0);
    assert_eq!(project.order(), ["20-enable", "40-enable-partial", "50-disable"]);
}

fn json_has_libtests_events_and_nothing_else() {
    let project = project();
    project.suite("60-fails", &[("execute", "echo words of the block; exit 1")]);
    let ended = project.run(&["-Z", "unstable-options", "--format=json", "--show-output", "--nocapture", "0-"]);
    ended.code(101);
    let events: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{ended}"))).collect();
    let word = |event: &serde_json::Value| {
        let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", text("type"), text("event"), text("name"))
    };
    let expected = [
        "suite started -",
        "test started 20-enable",
        "test ok 20-enable",
        "test started 40-enable-partial",
        "test ok 40-enable-partial",
        "test started 50-disable",
        "test ok 50-disable",
        "test started 60-fails",
        "test failed 60-fails",
        "suite failed -",
    ];
    assert_eq!(events.iter().map(word).collect::<Vec<_>>(), expected);
    let failed = &events[8];
    assert!(failed["stdout"].as_str().unwrap().contains("words of the block"), "{failed}");
}

fn ignored_selects_nothing() {
    let project = project();
    let ended = project.run(&["--ignored"]);
    ended.code(0);
    assert!(project.order().is_empty() && !project.path("proof").exists());
}

fn nocapture_shows_blocks_on_stderr() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "echo on-stdout; echo on-stderr >&2")]);
    let shown = project.run(&["--nocapture"]);
    shown.code(0).stderr_says("on-stdout").stderr_says("on-stderr");
    assert!(!shown.stdout.contains("on-stdout"), "{shown}");
    let captured = project.run(&[]);
    assert!(!captured.all().contains("on-std"), "{captured}");
}

//! Suites share a machine, scripts do not.

use libtest_mimic::Trial;
use serde_json::json;

use crate::world::{Project, claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(a_number_of_threads_that_is_none_is_named),
        claim(suites_run_one_at_a_time_whatever_is_asked_for),
        claim(scripts_of_different_set_ups_run_at_the_same_time),
        claim(beside_a_suite_scripts_run_one_at_a_time),
        claim(no_more_threads_are_started_than_there_are_trials),
    ]
}

fn a_number_of_threads_that_is_none_is_named() {
    for value in ["abc", "0", "-1", "1.5"] {
        let project = Project::new().variable("RUST_TEST_THREADS", value);
        project.suite("10-a", &[("execute", "echo ran >>order")]);
        let ended = project.run(&[]);
        ended.code(101).stderr_says("RUST_TEST_THREADS");
        let ended = project.run(&["--test-threads", value]);
        ended.code(101).stderr_says("--test-threads");
        assert!(project.order().is_empty() && !project.path("proof").exists());
    }
}

fn suites_run_one_at_a_time_whatever_is_asked_for() {
    // Somebody else's folder is there if two run at once.
    let alone = "mkdir alone; for n in {1..30}; do /bin/true; done; echo $SUITE_NAME >>order; rmdir alone";
    let names: Vec<_> = (10..18).map(|number| format!("{number}-a")).collect();
    for variable in [None, Some("4")] {
        let mut project = Project::new();
        if let Some(threads) = variable {
            project = project.variable("RUST_TEST_THREADS", threads);
        }
        for name in &names {
            project.suite(name, &[("execute", alone)]);
        }
        project.run(&["--test-threads", "4"][usize::from(variable.is_some()) * 2..]).code(0);
        assert_eq!(project.order(), names);
    }
}

/// Each script waits for the other: it ends by itself only if both run at once.
fn meeting(project: &Project, limit_s: u64) {
    let dir = project.path("");
    let dir = dir.display();
    for (mine, other) in [("a", "b"), ("b", "a")] {
        let manifest = json!({"schemaVersion": 1, "testSuites": [{"script": "1.sh"}], "timeLimitSeconds": limit_s});
        let script = format!("echo x >{dir}/{mine}; until [ -s {dir}/{other} ]; do sleep 0.01; done");
        project.setup(&format!("set-{mine}"), &manifest, &[("1.sh", &script)]);
    }
}

/// More than a slow machine takes to start two scripts, less than the claims' own deadline.
const LONG_S: u64 = 100;

fn scripts_of_different_set_ups_run_at_the_same_time() {
    let project = Project::new();
    meeting(&project, LONG_S);
    project.run(&["--test-threads", "2"]).code(0);
}

fn no_more_threads_are_started_than_there_are_trials() {
    let project = Project::new();
    meeting(&project, LONG_S);
    project.run(&["--test-threads", "18446744073709551615"]).code(0);
}

fn beside_a_suite_scripts_run_one_at_a_time() {
    let project = Project::new();
    meeting(&project, 5);
    project.suite("10-a", &[("execute", "true")]);
    let ended = project.run(&["--test-threads", "4"]);
    ended.code(101);
    assert_eq!(project.record("set-a/1").0["timed_out"], true, "{ended}");
    project.record("set-b/1").assert_pass();
}

//! With which code it ends, and what is said.

use nix::sys::signal::Signal;
use serde_json::json;

use super::world::{is_alive, until};
use super::{Lab, PLAIN, can_be_sandboxed, is_ci, ways, with_temp_dir_on};

#[test]
fn marks_are_no_failure_of_grade() {
    for way in ways() {
        for script in ["exit 0", "exit 1", "exit 2", "kill -KILL $$"] {
            Lab::with(way, &[("a.sh", script, json!({}))]).grade(&["week1"]).code(0);
        }
    }
}

#[test]
fn check_passes_with_full_marks_only() {
    for way in ways() {
        let lab = Lab::with(
            way,
            &[
                ("a.sh", "[ \"$(cat answer)\" = 42 ]", json!({"points": 3, "name": "the answer"})),
                ("b.sh", "[ -e answer ]", json!({"points": 0})),
            ],
        );
        lab.file("right/answer", "42").file("wrong/answer", "41");
        let ended = lab.grade(&["--check", "week1", "right"]);
        ended.code(0).says("2 of 2 passed, 3 of 3 points");
        assert_eq!(ended.stderr, "");
        let ended = lab.grade(&["--check", "week1", "wrong"]);
        ended.code(1).says("1 of 2 passed, 0 of 3 points");
        ended.stderr_says("error: `--check`: not every test has passed: `the answer` (fail, 3 points)\n");
        // A script that is worth nothing counts: it says that something is wrong.
        lab.grade(&["--check", "week1"]).code(1).stderr_says("(fail, 3 points); `b` (fail, 0 points)");
    }
}

#[test]
fn check_without_a_submission_is_of_the_set_up_as_it_is() {
    let lab = Lab::with(PLAIN, &[("a.sh", "cat answer", json!({}))]);
    lab.grade(&["week1", "--check"]).code(1);
    lab.file("week1/answer", "42").grade(&["week1", "--check"]).code(0);
}

#[test]
fn check_fails_on_what_did_not_run() {
    let lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    let manifest = json!({"schemaVersion": 1, "testSuites": [{"script": "a.sh"}, {"script": "gone.sh"}]});
    lab.manifest(&manifest);
    lab.grade(&["week1", "--check"]).code(1).stderr_says("`gone` (error, 1 point)");
    lab.manifest(&json!({"schemaVersion": 1, "testSuites": [{"script": "a.sh"}], "makefile": {}}));
    lab.file("week1/Makefile", "all:\n\tfalse\n");
    lab.grade(&["week1", "--check"]).code(1).stderr_says("the make step failed");
}

#[test]
fn check_leaves_standard_output_to_the_json() {
    let lab = Lab::with(PLAIN, &[("a.sh", "exit 1", json!({}))]);
    assert_eq!(lab.json(1, &["week1", "--check"])["failCount"], 1);
}

#[test]
fn what_we_could_not_grade_is_reported_as_a_worker_would() {
    let mut lab = Lab::new(PLAIN);
    lab.manifest(&json!({"schemaVersion": 1, "testSuites": [{"script": "a.sh"}], "makefile": {}}));
    lab.project = lab.project.variable("PATH", "/nowhere");
    let ended = lab.grade(&["week1"]);
    ended.code(3).stderr_says("no `make` on PATH, and the set-up `week1` needs it: install make");
    assert_eq!(ended.stdout, "");
    let found = lab.json(3, &["week1", "--submission-id", "sub_1", "--attempt", "2"]);
    let keys = ["submissionID", "testSetupID", "attemptNumber", "buildStatus", "outcomes", "errorCount"];
    let expected = [json!("sub_1"), json!("week1"), json!(2), json!("failed"), json!([]), json!(1)];
    assert_eq!(keys.map(|key| found[key].clone()), expected);
    assert!(found["compilerOutput"].as_str().unwrap().starts_with("no `make` on PATH"), "{found:#}");
    assert!(found["warnings"][0].as_str().unwrap().starts_with("infrastructure error"), "{found:#}");
}

#[test]
fn a_folder_for_temporary_files_that_cannot_be_had_is_our_fault_and_named() {
    let mut lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    lab.project = lab.project.variable("TMPDIR", "/nowhere/at/all");
    lab.grade(&["week1"]).code(3).stderr_says("`/nowhere/at/all`; set TMPDIR to a folder that can be written");
    assert_eq!(lab.json(3, &["week1"])["errorCount"], 1);
}

#[test]
fn a_full_folder_for_temporary_files_is_named_with_the_way_out() {
    if !can_be_sandboxed() {
        assert!(!is_ci(), "CI must be able to make namespaces");
        return;
    }
    let mut lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    lab.file("alice/blob", &"x".repeat(2 << 20));
    lab.project = lab.project.wrapped(&with_temp_dir_on("size=1m"));
    let ended = lab.grade(&["week1", "alice"]);
    let (folder, blob) = (lab.project.path("tmp"), lab.project.path("alice/blob"));
    ended.code(3).stderr_says(&format!("no space is left in `{}/", folder.display()));
    let way_out =
        format!("to copy `{}`: free some there, or set TMPDIR to a folder with more room: No space", blob.display());
    ended.stderr_says(&way_out);
    assert!(lab.json(3, &["week1", "alice"])["compilerOutput"].as_str().unwrap().contains("set TMPDIR"));
}

#[test]
fn a_full_disk_below_standard_output_is_an_error() {
    let mut lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    lab.project = lab.project.wrapped(&["sh", "-c", "exec \"$@\" >/dev/full", "-"]);
    for flags in [[].as_slice(), &["--check"], &["--quiet"], &["--json"], &["--json", "--check"]] {
        let ended = lab.grade(&[&["week1"], flags].concat());
        ended.code(3).stderr_says("could not write to standard output: No space left on device");
    }
}

#[test]
fn a_reader_that_goes_away_early_is_no_error() {
    let mut lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    lab.project = lab.project.wrapped(&["bash", "-c", "set -o pipefail; \"$@\" | true", "-"]);
    for flags in [[].as_slice(), &["--check"], &["--json"]] {
        let ended = lab.grade(&[&["week1"], flags].concat());
        ended.code(0);
        assert_eq!(ended.stderr, "");
    }
}

#[test]
fn a_signal_ends_the_scripts_and_leaves_nothing() {
    // One that ends when it is told to, and one that does not.
    let obedient = "echo begun; (sleep 600 & wait); sleep 600".to_owned();
    let stubborn = format!("trap '' INT TERM; {obedient}");
    let json: &[&str] = &["week1", "--verbose", "--json", "--check"];
    let signals = [(Signal::SIGINT, 130, &json[..2], obedient), (Signal::SIGTERM, 143, json, stubborn)];
    for way in ways() {
        for (signal, code, arguments, script) in &signals {
            let lab = Lab::with(way, &[("a.sh", script, json!({})), ("b.sh", "echo never", json!({}))]);
            let running = lab.project.start(&lab.arguments(arguments));
            until("the script's first word", || running.stderr().contains("| begun"));
            let scratch = lab.project.path("tmp").display().to_string();
            let mut started = Vec::new();
            until("the script's processes", || {
                started = processes_in(&scratch);
                started.len() >= 2
            });
            running.signal(*signal);
            let ended = running.wait();
            ended.code(*code).stderr_says("interrupted: what runs is ended");
            ended.stderr_says("error: interrupted; nothing was graded");
            assert_eq!(ended.stdout, "", "{way:?}");
            assert!(!ended.stderr.contains("never"), "{ended}");
            assert!(!started.iter().any(|pid| is_alive(*pid)), "{way:?}: {started:?}");
            assert!(lab.project.tree("tmp").is_empty(), "{way:?}: {:?}", lab.project.tree("tmp"));
        }
    }
}

/// Processes whose temporary files would go below `scratch`; ours, not what we run.
fn processes_in(scratch: &str) -> Vec<i32> {
    let wanted = format!("\0TMPDIR={scratch}/");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let environment = |pid: i32| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    pids.filter(|pid| String::from_utf8_lossy(&[b"\0".as_slice(), &environment(*pid)].concat()).contains(&wanted))
        .collect()
}

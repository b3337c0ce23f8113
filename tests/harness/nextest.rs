//! nextest starts a process for each trial; all of them are one run.

use libtest_mimic::Trial;
use serde_json::json;

use crate::world::{Ended, Project, claim, until};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(all_processes_of_a_run_write_one_summary),
        claim(another_run_starts_afresh),
        claim(the_build_runs_once_for_all_processes),
        claim(a_failed_build_fails_every_process_without_another_try),
        claim(after_a_failed_restore_other_processes_run_nothing),
        claim(a_second_attempt_is_told_from_a_first),
        claim(a_retry_tells_of_the_attempts_before_it),
        claim(between_two_of_its_processes_the_folder_is_still_of_the_run),
        claim(a_round_of_a_stress_run_tells_of_those_before_it),
        claim(behind_a_target_runner_it_is_nextests_run_all_the_same),
        claim(a_name_that_is_not_there_is_an_error),
        claim(a_trial_that_test_filter_leaves_out_is_an_error),
    ]
}

fn under_nextest(project: Project) -> Project {
    project.variable("NEXTEST", "1").variable("NEXTEST_RUN_ID", "some-run").variable("NEXTEST_ATTEMPT", "1")
}

fn run(project: &Project, name: &str) -> Ended {
    project.run(&["--exact", name, "--nocapture"])
}

fn all_processes_of_a_run_write_one_summary() {
    let project = under_nextest(Project::new());
    project.suite("10-a", &[("execute", "true")]).suite("20-b", &[("execute", "false")]);
    project.file("suites/set/1.sh", "exit 0");
    run(&project, "10-a").code(0);
    run(&project, "20-b").code(101);
    run(&project, "set/1").code(0);
    let summary = project.summary();
    assert_eq!(summary["run_id"], "some-run");
    assert_eq!((&summary["counts"]["pass"], &summary["counts"]["fail"]), (&json!(2), &json!(1)));
    assert_eq!(project.text("proof/logs/runner.jsonl").matches("suite_end").count(), 3);
}

fn another_run_starts_afresh() {
    let project = under_nextest(Project::new());
    project.suite("10-a", &[("execute", "true")]).suite("20-b", &[("execute", "true")]);
    run(&project, "10-a").code(0);
    let project = project.variable("NEXTEST_RUN_ID", "another-run");
    run(&project, "20-b").code(0);
    assert_eq!(project.summary()["suites"].as_array().unwrap().len(), 1);
    assert_eq!(project.summary()["run_id"], "another-run");
}

/// A project whose cargo is a script that tells of its calls.
fn built(cargo: &str) -> Project {
    let project = Project::with("product: {name: tool, build: cargo, bin: bin/tool}\n");
    project.program("bin/tool", "#!/bin/sh\necho tool\n");
    project.program("bin/cargo", &format!("#!/bin/sh\necho cargo >>{}\n{cargo}\n", project.path("order").display()));
    for name in ["10-a", "20-b"] {
        project.suite(name, &[("execute", "tool; echo ran >>order")]);
    }
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    under_nextest(project.variable("PATH", path))
}

fn the_build_runs_once_for_all_processes() {
    let project = built("exit 0");
    run(&project, "10-a").code(0);
    run(&project, "20-b").code(0);
    assert_eq!(project.order(), ["cargo", "ran", "ran"]);
}

fn a_failed_build_fails_every_process_without_another_try() {
    let project = built("echo words of cargo >&2; exit 42");
    for name in ["10-a", "20-b"] {
        run(&project, name).code(42).stderr_says("words of cargo");
    }
    assert_eq!(project.order(), ["cargo"]);
}

fn after_a_failed_restore_other_processes_run_nothing() {
    let project = under_nextest(Project::new());
    for name in ["10-a", "20-b"] {
        project.suite(name, &[("execute", "echo $SUITE_NAME >>order"), ("restore", "false")]);
    }
    run(&project, "10-a").code(101);
    run(&project, "20-b").code(101);
    assert_eq!(project.order(), ["10-a"]);
    project.record("20-b").assert_fail("not run: host left dirty by 10-a");
}

fn a_second_attempt_is_told_from_a_first() {
    let project = under_nextest(Project::new());
    project.suite("10-a", &[("execute", "[[ -e again ]] || { touch again; exit 1; }")]);
    run(&project, "10-a").code(101);
    let project = project.variable("NEXTEST_ATTEMPT", "2");
    run(&project, "10-a").code(0);
    assert_eq!(project.result("10-a").0["attempt"], 2);
    assert_eq!(project.record("10-a").0["attempt"], 2);
}

fn a_retry_tells_of_the_attempts_before_it() {
    let mut project = under_nextest(Project::new());
    project.suite("10-a", &[("execute", "echo x >>tries; exit $(( $(wc -l <tries) < 3 ))")]);
    for (attempt, code) in [("1", 101), ("2", 101), ("3", 0)] {
        project = project.variable("NEXTEST_ATTEMPT", attempt);
        run(&project, "10-a").code(code);
    }
    let failed = |attempt| json!({"attempt": attempt, "status": "fail", "reason": "execute exited with code 1"});
    assert_eq!(project.record("10-a").0["earlier"], json!([failed(1), failed(2)]));
    assert_eq!(project.result("10-a").0, project.record("10-a").0);
}

/// The wrapper is called as nextest is, and starts two processes of one run; or, with other arguments, one of another run.
fn between_two_of_its_processes_the_folder_is_still_of_the_run() {
    let project = under_nextest(Project::new());
    project.suite("10-a", &[("execute", "true")]).suite("20-b", &[("execute", "true")]);
    let run = "case $2 in two) \"$1\" --exact 10-a || exit 1; mkfifo go; echo x >between; read -r line <go; \"$1\" --exact 20-b;; \
               *) exec env NEXTEST_RUN_ID=other \"$@\";; esac";
    project.program("cargo-nextest", &format!("#!/bin/sh\ncd {}\n{run}\n", project.path("").display()));
    let nextest = project.path("cargo-nextest").display().to_string();
    let project = project.wrapped(&[&nextest]);
    let one = project.start(&["two"]);
    project.wait_for("between");
    let mut other = project.start(&["--exact", "20-b"]);
    until("the other run to say that it waits", || other.stderr().contains("waiting") || other.has_ended());
    assert!(!other.has_ended() && other.stderr().contains("nextest run some-run"), "{}", other.stderr());
    std::fs::write(project.path("go"), "on\n").unwrap();
    one.wait().code(0);
    other.wait().code(0);
    assert_eq!(project.summary()["run_id"], "other");
    assert_eq!(project.summary()["suites"].as_array().unwrap().len(), 1);
}

/// All its rounds are one run, and each is a first attempt.
fn a_round_of_a_stress_run_tells_of_those_before_it() {
    let project = under_nextest(Project::new());
    project.suite("10-a", &[("execute", "[[ -e again ]] || { touch again; exit 1; }")]);
    run(&project, "10-a").code(101);
    run(&project, "10-a").code(0);
    assert_eq!(project.record("10-a").0["earlier"][0]["status"], "fail");
}

fn behind_a_target_runner_it_is_nextests_run_all_the_same() {
    let project = under_nextest(Project::new());
    project.suite("10-a", &[("execute", "true")]);
    let folder = project.path("");
    project.program("runner", "#!/bin/sh\n\"$@\"\n");
    project.program("cargo-nextest", &format!("#!/bin/sh\n{}/runner \"$@\"\nexit\n", folder.display()));
    let nextest = project.path("cargo-nextest").display().to_string();
    let project = project.wrapped(&[&nextest]);
    run(&project, "10-a").code(0);
    assert!(project.json("run.json")["owner"].is_array(), "{}", project.json("run.json"));
}

/// nextest would report it as passed.
fn a_trial_that_test_filter_leaves_out_is_an_error() {
    let project = under_nextest(Project::new()).variable("TEST_FILTER", "10-a");
    project.suite("10-a", &[("execute", "true")]).suite("20-b", &[("execute", "true")]);
    run(&project, "20-b").code(2).stderr_says("20-b");
    run(&project, "10-a").code(0);
}

/// nextest would take a run without tests for a pass.
fn a_name_that_is_not_there_is_an_error() {
    let project = under_nextest(Project::new());
    project.suite("20-enable", &[("execute", "true")]);
    run(&project, "20-enabel").code(2).stderr_says("20-enabel");
    run(&project, "20-enable").code(0);
}

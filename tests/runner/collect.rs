//! `collect` and `verify` as a user calls them. What they look at in detail is claimed in `tests/bundle.rs`.

use std::fs;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::project;
use crate::world::{Project, claim, is_root, root_claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(what_all_packs_is_sound),
        claim(what_cargo_test_has_run_can_be_collected),
        claim(a_changed_byte_is_named_and_exits_with_1),
        claim(a_truncated_bundle_is_named_and_exits_with_1),
        claim(a_folder_that_is_not_there_is_named),
        claim(what_was_selected_is_what_was_run_not_what_is_selected_now),
        claim(a_run_that_was_interrupted_stays_so_when_it_is_collected),
        claim(a_run_that_was_killed_stays_so_however_often_it_is_collected),
        claim(without_a_summary_that_can_be_read_nothing_is_collected),
        claim(a_summary_of_another_schema_is_refused),
        claim(a_bundle_that_cannot_be_made_fails_the_stage),
        root_claim(a_full_disk_fails_the_run),
        root_claim(a_read_only_proof_root_is_our_fault_before_anything_runs),
    ]
}

fn with_suites(project: Project) -> Project {
    project.suite("10-a", &[("execute", "echo said")]).suite("20-b", &[("execute", "true")]);
    project
}

fn ran() -> Project {
    let project = with_suites(project(""));
    project.run(&["all"]).code(0).says("packed ");
    project
}

fn what_all_packs_is_sound() {
    let project = ran();
    project.run(&["verify"]).code(0).says("sound: ").says("2 trials in ");
    let bundle = project.path("proof/proofs.tar.gz").display().to_string();
    project.run(&["verify", &bundle]).code(0).says("sound: ");
}

fn what_cargo_test_has_run_can_be_collected() {
    let harness = with_suites(Project::new());
    harness.run(&[]).code(0);
    let project = harness.by(crate::RUNNER);
    project.run(&["collect"]).code(0);
    project.run(&["verify"]).code(0).says("sound: ");
    let summary = project.summary();
    assert_eq!(summary["counts"]["pass"], 2);
    assert!(summary["harness_policy"].is_string(), "{summary:#}");
}

fn a_changed_byte_is_named_and_exits_with_1() {
    let project = ran();
    project.file("proof/logs/10-a/execute.stdout.log", "sand\n");
    project.run(&["verify"]).code(1).says("`logs/10-a/execute.stdout.log` was changed").says("1 problem");
}

fn a_truncated_bundle_is_named_and_exits_with_1() {
    let project = ran();
    let bundle = fs::read(project.path("proof/proofs.tar.gz")).unwrap();
    project.file("cut.tar.gz", &bundle[..bundle.len() / 2]);
    project.run(&["verify", "cut.tar.gz"]).code(1).stderr_says("`cut.tar.gz` is cut off");
}

fn a_folder_that_is_not_there_is_named() {
    with_suites(project("")).run(&["verify", "/no/such/folder"]).code(2).stderr_says("`/no/such/folder`");
}

fn what_was_selected_is_what_was_run_not_what_is_selected_now() {
    let project = with_suites(project("")).variable("TEST_FILTER", "10-a");
    project.run(&["run-suites"]).code(0);
    let project = project.variable("TEST_FILTER", "nothing-is-called-so");
    project.run(&["collect"]).code(0);
    let summary = project.summary();
    assert_eq!((&summary["selected"], &summary["not_selected"]), (&json!(1), &json!(1)));
    assert!(summary["harness_policy"].is_string(), "{summary:#}");
    project.run(&["verify"]).code(0);
}

fn a_run_that_was_interrupted_stays_so_when_it_is_collected() {
    let project = project("");
    project.suite("10-a", &[("execute", "echo begun >begun\nsleep 600")]);
    let running = project.start(&["run-suites"]);
    project.wait_for("begun");
    running.signal(Signal::SIGINT);
    running.wait().code(130);
    project.run(&["collect"]).code(0);
    assert_eq!(project.summary()["interrupted"], true);
    project.run(&["verify"]).code(0);
}

fn a_run_that_was_killed_stays_so_however_often_it_is_collected() {
    let project = project("");
    project.suite("10-a", &[("execute", "echo begun >begun\nsleep 600")]);
    let running = project.start(&["run-suites"]);
    project.wait_for("begun");
    running.signal(Signal::SIGKILL);
    running.wait();
    for _ in 0..2 {
        project.run(&["collect"]).code(0);
        let summary = project.summary();
        assert_eq!((&summary["interrupted"], &summary["counts"]["interrupted"]), (&json!(true), &json!(1)));
        assert_eq!(summary["traces"]["interrupted"], json!(["10-a"]));
        assert!(summary.get("harness_policy").is_none_or(serde_json::Value::is_null), "{summary:#}");
    }
}

fn without_a_summary_that_can_be_read_nothing_is_collected() {
    let project = ran();
    for text in [None, Some("{\"schema\":1,"), Some("")] {
        fs::remove_file(project.path("proof/summary.json")).ok();
        text.map(|text| project.file("proof/summary.json", text));
        project.run(&["collect"]).code(3).stderr_says("has no summary.json that can be read");
        let found = fs::read_to_string(project.path("proof/summary.json")).ok();
        assert_eq!(found.as_deref(), text, "it was made up");
    }
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
    let ended = project.run(&["run-suites"]);
    assert!(!ended.all().contains("was killed"), "{ended}");
}

fn a_summary_of_another_schema_is_refused() {
    let project = ran();
    let text = project.text("proof/summary.json").replacen("\"schema\":1", "\"schema\":2", 1);
    project.file("proof/summary.json", text);
    project.run(&["verify"]).code(1).says("schema");
}

fn a_bundle_that_cannot_be_made_fails_the_stage() {
    let project = with_suites(project(""));
    project.run(&["run-suites"]).code(0);
    project.file("proof/proofs.tar.gz/in-the-way", "");
    project.run(&["collect"]).code(3).stderr_says("proofs.tar.gz");
    let summary = project.summary();
    let stage = summary["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == "collect").unwrap().clone();
    assert_eq!(stage["status"], "fail", "{stage:#}");
}

fn a_read_only_proof_root_is_our_fault_before_anything_runs() {
    assert!(is_root());
    let mount = "mkdir -p proof; mount -t tmpfs -o ro none proof; exec \"$@\"";
    let project = project("").wrapped(&["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"]);
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    project.run(&["all"]).code(3).stderr_says("Read-only file system").stderr_says("PROOF_DIR");
    assert!(project.order().is_empty());
}

fn a_full_disk_fails_the_run() {
    assert!(is_root());
    let mount = "mkdir -p proof; mount -t tmpfs -o size=256k none proof; exec \"$@\"";
    let project = project("").wrapped(&["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"]);
    project.suite("10-a", &[("execute", "head -c 1000000 /dev/zero"), ("restore", "echo restored >>order")]);
    let ended = project.run(&["all"]);
    assert!(matches!(ended.status.code(), Some(1 | 3)), "{ended}");
    ended.says("No space left on device");
    assert_eq!(project.order(), ["restored"]);
}

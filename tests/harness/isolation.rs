//! Suites change the machine they run on: which machines they may run on.

use std::fs;

use libtest_mimic::Trial;

use crate::world::{NO_CONTAINER, Project, User, both, claim, root_claim, until};

pub(crate) fn claims() -> Vec<Trial> {
    let mut claims = vec![
        root_claim(a_host_that_is_no_container_is_refused),
        root_claim(a_refused_host_can_still_list),
        claim(what_cannot_be_had_is_refused),
        claim(a_snapshot_of_our_own_files_is_refused),
    ];
    claims.extend(both(a_container_is_accepted));
    claims.push(claim(two_runs_do_not_change_one_machine_at_once));
    claims
}

fn on_a_host(settings: &str) -> Project {
    let project = Project::bare().wrapped(&["unshare", "--mount", "sh", "-c", NO_CONTAINER, "sh"]);
    if !settings.is_empty() {
        project.file("suites/runner.yaml", settings);
    }
    project.suite("10-a", &[("execute", "echo ran >>order"), ("restore", "echo ran >>order")]);
    project
}

fn a_host_that_is_no_container_is_refused() {
    for settings in ["", "isolation: container\n"] {
        let project = on_a_host(settings);
        let ended = project.run(&[]);
        ended.code(2).stderr_says("no container").stderr_says("isolation: none");
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended}");
        assert!(project.order().is_empty());
    }
    // That it can run there at all.
    let project = on_a_host("isolation: none\n");
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["ran", "ran"]);
    assert!(project.summary()["container_id"].is_null());
}

fn a_refused_host_can_still_list() {
    let project = on_a_host("");
    assert_eq!(project.run(&["--list", "--format", "terse"]).code(0).stdout, "10-a: test\n");
}

fn a_container_is_accepted(user: User) {
    let project = Project::bare().of(user).variable("container", "some-engine");
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["ran"]);
    let summary = project.summary();
    assert_eq!(summary["isolation"], "container");
    assert!(summary["container_id"].is_string());
}

/// Whatever their proof folders are.
fn two_runs_do_not_change_one_machine_at_once() {
    let project = |execute: &str| {
        let project = Project::bare().variable("container", "some-engine");
        project.suite("10-a", &[("execute", execute)]);
        project
    };
    let first = project("mkfifo go; echo x >started; read -r line <go; echo first >>order");
    let one = first.start(&[]);
    first.wait_for("started");
    let second = project(&format!("cat {}/order", first.path("").display()));
    let mut two = second.start(&[]);
    until("the second run to wait or to end", || two.stderr().contains("wait") || two.has_ended());
    assert!(!two.has_ended(), "the second run did not wait for the first");
    fs::write(first.path("go"), "on\n").unwrap();
    one.wait().code(0);
    two.wait().code(0);
}

fn what_cannot_be_had_is_refused() {
    let shows = "isolation: none\nsandbox: true\nsandbox-shows: [/nowhere]\n";
    for (settings, part) in [("isolation: overlay\n", "overlay"), (shows, "`/nowhere`, which is not there")] {
        let project = Project::bare();
        project.file("suites/runner.yaml", settings);
        project.suite("10-a", &[("execute", "echo ran >>order")]);
        project.file("suites/set/1.sh", format!("echo ran >>{}", project.path("order").display()));
        project.run(&[]).code(2).stderr_says(part).stderr_says("runner.yaml");
        assert!(project.order().is_empty());
    }
}

/// It would see what we write as changes of the suite.
fn a_snapshot_of_our_own_files_is_refused() {
    let project = Project::with("snapshot: {paths: [.]}\n");
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    project.run(&[]).code(2).stderr_says("PROOF_DIR");
    assert!(project.order().is_empty());
}

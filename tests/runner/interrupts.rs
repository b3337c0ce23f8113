//! SIGINT and SIGTERM in every stage.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::world::{claim, find, is_alive, until};
use crate::{project, with_cargo, with_product};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(an_interrupt_of_a_suite_runs_its_restore_and_leaves_a_summary),
        claim(an_interrupt_of_a_build_ends_cargo_and_leaves_a_summary),
        claim(an_interrupt_of_preflight_ends_what_it_asks),
        claim(an_interrupt_of_deps_ends_the_package_manager),
        claim(a_second_runner_waits_and_says_so),
    ]
}

fn an_interrupt_of_a_suite_runs_its_restore_and_leaves_a_summary() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let project = project("");
        project.suite("10-a", &[("execute", "echo begun >begun\nsleep 600"), ("restore", "echo restored >>order")]);
        project.suite("20-b", &[("execute", "echo never >>order")]);
        let running = project.start(&["all"]);
        project.wait_for("begun");
        running.signal(signal);
        running.wait().code(code).stderr_says("interrupted");
        assert_eq!(project.order(), ["restored"]);
        let summary = project.summary();
        assert_eq!(summary["interrupted"], true);
        assert!(summary.get("harness_policy").is_none_or(serde_json::Value::is_null), "{summary:#}");
        assert!(!project.path("proof/proofs.tar.gz").exists(), "an interrupted run is not packed");
    }
}

fn an_interrupt_of_a_build_ends_cargo_and_leaves_a_summary() {
    let project = with_cargo(project("product: {name: tool, build: cargo}\n"));
    let script = "fn main() { std::fs::write(\"pid\", std::process::id().to_string()).unwrap(); loop { std::thread::park() } }\n";
    with_product(&project, script);
    project.suite("10-a", &[("execute", "echo never >>order")]);
    let running = project.start(&["all"]);
    project.wait_for("pid");
    let pid = project.pid("pid");
    running.signal(Signal::SIGINT);
    running.wait().code(130);
    until("the build script's death", || !is_alive(pid));
    assert_eq!(project.summary()["interrupted"], true);
    assert!(project.order().is_empty());
}

fn an_interrupt_of_preflight_ends_what_it_asks() {
    let project = project("product: {name: tool, build: cargo}\n");
    project.suite("10-a", &[("execute", "echo never >>order")]);
    // A cargo that hangs cannot be had otherwise.
    project.program("bin/cargo", "#!/bin/sh\necho $$ >pid.new; mv pid.new pid; exec sleep 600\n");
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    let project = project.variable("PATH", path);
    let running = project.start(&["preflight"]);
    project.wait_for("pid");
    let pid = project.pid("pid");
    running.signal(Signal::SIGTERM);
    running.wait().code(143);
    assert!(!is_alive(pid));
}

fn an_interrupt_of_deps_ends_the_package_manager() {
    let project = project("deps: {packages: [git]}\n");
    project.suite("10-a", &[("execute", "echo never >>order")]);
    // One that asks somebody who never answers.
    project.program("bin/pacman", "#!/bin/sh\necho $$ >pid.new; mv pid.new pid; exec sleep 600\n");
    ["bash", "sh", "mv", "sleep"]
        .iter()
        .for_each(|name| symlink(find(name).unwrap(), project.path("bin").join(name)).unwrap());
    let path = project.path("bin");
    let project = project.variable("PATH", path);
    let running = project.start(&["all"]);
    project.wait_for("pid");
    let pid = project.pid("pid");
    running.signal(Signal::SIGINT);
    running.wait().code(130);
    assert!(!is_alive(pid));
    assert_eq!(project.summary()["interrupted"], true);
    assert!(project.order().is_empty());
}

fn a_second_runner_waits_and_says_so() {
    let project = project("");
    project
        .suite("10-a", &[("execute", "echo begun >begun\nuntil [[ -e go ]]; do sleep 0.02; done\necho ran >>order")]);
    let first = project.start(&["run-suites"]);
    project.wait_for("begun");
    let second = project.start(&["run-suites"]);
    let is_said = || {
        let said = second.stdout() + &second.stderr();
        said.contains("another run uses this proof folder; waiting for it to end")
    };
    until("the second runner's sentence", is_said);
    project.file("go", "");
    fs::set_permissions(project.path("go"), fs::Permissions::from_mode(0o644)).unwrap();
    first.wait().code(0);
    second.wait().code(0);
    assert_eq!(project.order(), ["ran", "ran"]);
}

//! `doctor`: what is there, what is not, and whether the configured run could start.

use libtest_mimic::Trial;

use crate::project;
use crate::world::{Project, claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(a_run_that_could_start_is_told_by_the_code),
        claim(what_the_run_needs_and_lacks_is_told_with_the_remedy),
        claim(what_the_kernel_refuses_is_told_with_the_reason),
        claim(each_thing_is_told_once),
        claim(it_leaves_nothing_behind),
    ]
}

fn with_a_suite(project: Project) -> Project {
    project.suite("10-a", &[("execute", "true")]);
    project
}

fn a_run_that_could_start_is_told_by_the_code() {
    let ended = with_a_suite(project("")).run(&["doctor"]);
    ended.code(0).says("ok    bash: /").says("ok    isolation: none").says("ok    suites: 1 trial in");
    ended.says("sandbox: ").says("isolation overlay: it is not built yet").says("cgroups: ").says("signals: ");
}

fn what_the_run_needs_and_lacks_is_told_with_the_remedy() {
    let needs = [
        (
            "product: {name: x, build: cargo}\n",
            "NEEDS cargo: a product with `build: cargo` cannot be built: install Rust",
        ),
        ("deps: {packages: [git]}\n", "NEEDS packages: neither pacman nor apt-get"),
        (
            "sandbox: true\nsandbox-shows: [/nowhere]\n",
            "NEEDS sandbox: scripts are to see `/nowhere`, which is not there",
        ),
        ("restroe: x\n", "NEEDS suites: "),
    ];
    for (settings, text) in needs {
        let project = with_a_suite(project(settings));
        project.program("bin/bash", "#!/bin/sh\n");
        let path = project.path("bin").display().to_string();
        project.variable("PATH", path).run(&["doctor"]).code(2).says(text);
    }
    with_a_suite(project("").variable("PATH", "/nowhere")).run(&["doctor"]).code(2).says("NEEDS bash: ");
    let project = with_a_suite(project("")).variable("PROOF_DIR", "/dev/null/proof");
    project.run(&["doctor"]).code(2).says("NEEDS proof folder: `/dev/null/proof` cannot be written; set PROOF_DIR");
}

fn what_the_kernel_refuses_is_told_with_the_reason() {
    // The limit is of namespaces that this one may hold: none.
    let no_namespaces =
        "echo 0 >/proc/sys/user/max_user_namespaces && echo 0 >/proc/sys/user/max_mnt_namespaces && exec \"$@\"";
    let words = ["unshare", "--user", "--map-root-user", "bash", "-c", no_namespaces, "-"];
    let ended = with_a_suite(project("").wrapped(&words)).run(&["doctor"]);
    ended
        .code(0)
        .says("lacks sandbox: the sandbox cannot be had: ")
        .says("lacks isolation overlay: it is not built yet; refused: a mount namespace (No space left on device); raise user.max_user");
}

/// One thing in two lines may be told in two ways.
fn each_thing_is_told_once() {
    let ended = with_a_suite(project("")).run(&["doctor"]);
    let names: Vec<_> = ended.stdout.lines().filter_map(|line| line.get(6..)?.split(':').next()).collect();
    let once: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(names.len(), once.len(), "{ended}");
    assert!(names.contains(&"sandbox") && !names.contains(&"namespaces"), "{ended}");
}

fn it_leaves_nothing_behind() {
    let project = with_a_suite(project(""));
    let before = project.tree("");
    project.run(&["doctor"]).code(0);
    assert_eq!(project.tree(""), before);
}

//! A listing is names, costs nothing and leaves no trace.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use libtest_mimic::Trial;
use serde_json::json;

use crate::world::{Project, claim, root_claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(a_terse_listing_is_names),
        claim(a_listing_is_names),
        claim(a_listing_of_ignored_trials_is_empty),
        claim(a_listing_writes_nothing),
        claim(a_listing_starts_nothing),
        root_claim(a_listing_needs_no_right_to_write),
        claim(a_broken_suite_is_listed),
        claim(a_reader_that_goes_away_is_no_failure),
    ]
}

fn project() -> Project {
    let project = Project::with("product: {name: x, build: cargo}\nsnapshot: {paths: [suites]}\n");
    project.suite("20-b", &[("execute", "echo ran >>order")]);
    project.suite("10-a", &[("execute", "echo ran >>order"), ("distro-check", "nowhere")]);
    project.task("30-broken", "summry: [\n");
    let entries = json!([{"script": "2.sh", "name": "has a display name"}, {"script": "gone.sh"}]);
    project.setup("set", &json!({"schemaVersion": 1, "testSuites": entries, "makefile": {}}), &[("2.sh", "exit 0")]);
    project.file("suites/plain/b.sh", "exit 0").file("suites/plain/a.sh", "exit 0");
    project
}

const NAMES: [&str; 7] = [
    "10-a: test",
    "20-b: test",
    "30-broken: test",
    "plain/a: test",
    "plain/b: test",
    "set/has-a-display-name: test",
    "set/gone: test",
];

fn a_terse_listing_is_names() {
    let project = project();
    let ended = project.run(&["--list", "--format", "terse"]);
    ended.code(0);
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), NAMES);
}

fn a_listing_is_names() {
    let project = project();
    let ended = project.run(&["--list"]);
    ended.code(0);
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), NAMES);
}

fn a_listing_of_ignored_trials_is_empty() {
    let project = project();
    for arguments in [&["--list", "--format", "terse", "--ignored"][..], &["--list", "--ignored"]] {
        let ended = project.run(arguments);
        ended.code(0);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
}

fn a_listing_writes_nothing() {
    let project = project();
    let look = || {
        let stamp = |path: &String| {
            fs::symlink_metadata(project.path(path)).map(|meta| (meta.mtime(), meta.mtime_nsec())).unwrap()
        };
        project.tree("").into_iter().map(|path| (stamp(&path), path)).collect::<Vec<_>>()
    };
    let before = look();
    for arguments in [&["--list"][..], &["--list", "--format", "terse"], &["--list", "--ignored"], &["--list", "20"]] {
        project.run(arguments).code(0);
    }
    assert_eq!(look(), before);
}

fn a_listing_starts_nothing() {
    let project = project();
    project.program("bin/cargo", &format!("#!/bin/sh\necho ran >>{}\n", project.path("order").display()));
    for name in ["bash", "sh", "make", "git"] {
        fs::copy(project.path("bin/cargo"), project.path("bin").join(name)).unwrap();
    }
    let bin = project.path("bin");
    let project = project.variable("PATH", bin);
    project.run(&["--list"]).code(0);
    assert!(project.order().is_empty());
}

fn a_listing_needs_no_right_to_write() {
    // The project stays root's.
    let project = project().wrapped(&["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]);
    fs::set_permissions(project.path("tmp"), fs::Permissions::from_mode(0o555)).unwrap();
    let ended = project.run(&["--list", "--format", "terse"]);
    ended.code(0);
    assert_eq!(ended.stdout.lines().count(), NAMES.len());
    assert_eq!(project.run(&["--list", "--format", "terse", "--ignored"]).code(0).stdout, "");
}

fn a_broken_suite_is_listed() {
    let project = Project::new();
    project.task("10-a", b"\xff\xfe");
    assert_eq!(project.run(&["--list", "--format", "terse"]).code(0).stdout, "10-a: test\n");
}

fn a_reader_that_goes_away_is_no_failure() {
    let project = project().wrapped(&["bash", "-c", "set -o pipefail; \"$@\" | true", "bash"]);
    let ended = project.run(&["--list"]);
    assert_eq!(ended.stderr, "", "{ended}");
}

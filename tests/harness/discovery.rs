//! Which folders hold trials, and what they are called.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use libtest_mimic::Trial;
use serde_json::json;

use crate::world::{Project, User, claim, root_claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(a_missing_suites_folder_is_an_error),
        claim(an_empty_suites_folder_is_an_error),
        claim(a_suites_folder_that_is_a_file_is_an_error),
        claim(tests_is_the_suites_folder_if_only_it_has_suites),
        root_claim(a_task_that_cannot_be_read_fails_alone),
        claim(a_name_with_a_blank_becomes_one_word),
        claim(a_name_that_is_no_text_does_no_harm),
        claim(a_name_that_begins_with_a_dash_can_be_run),
        claim(nested_suites_are_named_by_their_path),
        claim(names_that_collide_are_an_error),
        claim(names_of_scripts_that_collide_are_an_error),
        claim(a_suite_and_a_script_of_one_name_are_an_error),
        claim(a_loop_of_links_does_no_harm),
        claim(hidden_folders_are_not_looked_into),
        claim(a_folder_that_is_suite_and_set_up_fails),
    ]
}

fn a_missing_suites_folder_is_an_error() {
    let project = Project::new().variable("SUITES_DIR", "/no/such/folder");
    for arguments in [&[][..], &["--list"]] {
        let ended = project.run(arguments);
        ended.code(2).stderr_says("/no/such/folder").stderr_says("SUITES_DIR");
        assert!(!project.path("proof").exists());
    }
}

fn an_empty_suites_folder_is_an_error() {
    let project = Project::new();
    let ended = project.run(&[]);
    let folder = project.path("suites");
    ended.code(2).stderr_says(folder.to_str().unwrap()).stderr_says("task.yaml");
    assert!(!project.path("proof").exists());
}

fn a_suites_folder_that_is_a_file_is_an_error() {
    let project = Project::new().variable("SUITES_DIR", "/etc/passwd");
    project.run(&[]).code(2).stderr_says("/etc/passwd").stderr_says("SUITES_DIR");
}

fn tests_is_the_suites_folder_if_only_it_has_suites() {
    let project = Project::bare().without_variable("SUITES_DIR");
    fs::remove_dir(project.path("suites")).unwrap();
    project.file("tests/runner.yaml", "isolation: none\n");
    project.file("tests/10-a/task.yaml", "summary: a\nexecute: echo ran >>order\n");
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["ran"]);
}

fn a_task_that_cannot_be_read_fails_alone() {
    let project = Project::new().of(User::Ordinary);
    for name in ["10-a", "20-b", "30-c"] {
        project.suite(name, &[("execute", "echo $SUITE_NAME >>order")]);
    }
    let file = project.path("suites/20-b/task.yaml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["10-a", "30-c"]);
    project.record("20-b").assert_fail(file.to_str().unwrap()).assert_fail("ermission denied");
}

/// The only name of a listing.
fn listed(project: &Project) -> String {
    let ended = project.run(&["--list", "--format", "terse"]);
    ended.code(0);
    let names: Vec<_> = ended.stdout.lines().map(|line| line.strip_suffix(": test").unwrap()).collect();
    assert_eq!(names.len(), 1, "{ended}");
    let fits = |c: char| !c.is_whitespace() && !c.is_control();
    assert!(!names[0].is_empty() && names[0].chars().all(fits) && !names[0].starts_with('-'), "{ended}");
    names[0].to_owned()
}

/// Runs the only trial by the name that a listing gives it: it is found, whatever it comes to.
fn assert_found_by_its_name(project: &Project, folder: &str) {
    let name = listed(project);
    let ended = project.run(&["--exact", &name]);
    assert_eq!(ended.names(), [name.as_str()], "{ended}");
    match ended.status.code() {
        Some(0) => {}
        _ => assert!(ended.code(101).stdout.contains(folder), "{ended}"),
    }
}

fn a_name_with_a_blank_becomes_one_word() {
    let project = Project::new();
    project.suite("my first\tsuite", &[("execute", "true")]);
    assert_found_by_its_name(&project, "my first");
}

fn a_name_that_is_no_text_does_no_harm() {
    let project = Project::new();
    let folder = OsStr::from_bytes(b"suites/10-\xff\x1b[31m");
    project.file(std::path::Path::new(folder).join("task.yaml"), "summary: a\nexecute: 'true'\n");
    let name = listed(&project);
    assert!(name.starts_with("10-"), "{name}");
    let ended = project.run(&[]);
    assert_eq!(ended.names().len(), 1, "{ended}");
    assert!(!ended.all().contains('\u{1b}'), "{ended}");
}

fn a_name_that_begins_with_a_dash_can_be_run() {
    let project = Project::new();
    project.suite("--help", &[("execute", "true")]);
    assert_found_by_its_name(&project, "--help");
}

fn nested_suites_are_named_by_their_path() {
    let project = Project::new();
    project.suite("sudo/10-basic", &[("execute", "true")]).suite("a/b/c/d", &[("execute", "echo said")]);
    let ended = project.run(&[]);
    ended.code(0);
    assert_eq!(ended.names(), ["a/b/c/d", "sudo/10-basic"]);
    project.result("sudo/10-basic").assert_pass();
    assert_eq!(project.text("proof/logs/a/b/c/d/execute.stdout.log"), "said\n");
}

fn names_that_collide_are_an_error() {
    let project = Project::new();
    project.suite("a b", &[("execute", "echo ran >>order")]).suite("a-b", &[("execute", "echo ran >>order")]);
    for arguments in [&[][..], &["--list", "--format", "terse"]] {
        let ended = project.run(arguments);
        ended.code(2).stderr_says("a b").stderr_says("a-b");
        assert_eq!(ended.stdout, "");
    }
    assert!(project.order().is_empty());
}

fn names_of_scripts_that_collide_are_an_error() {
    let project = Project::new();
    let entries = json!([{"script": "1.sh", "name": "same"}, {"script": "2.sh", "name": "same"}]);
    let manifest = json!({"schemaVersion": 1, "testSuites": entries});
    project.setup("set", &manifest, &[("1.sh", "exit 0"), ("2.sh", "exit 0")]);
    project.run(&[]).code(2).stderr_says("set/same").stderr_says("1.sh").stderr_says("2.sh");
}

fn a_suite_and_a_script_of_one_name_are_an_error() {
    let project = Project::new();
    let entries = json!([{"script": "1.sh", "name": "10-a"}]);
    project.setup("set", &json!({"schemaVersion": 1, "testSuites": entries}), &[("1.sh", "exit 0")]);
    project.suite("set /10-a", &[("execute", "true")]);
    project.run(&[]).code(2).stderr_says("set/10-a");
}

fn a_loop_of_links_does_no_harm() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "true")]);
    symlink("..", project.path("suites/10-a/up")).unwrap();
    symlink(".", project.path("suites/loop")).unwrap();
    symlink("nowhere", project.path("suites/dangling")).unwrap();
    assert_eq!(listed(&project), "10-a");
    project.run(&[]).code(0);
}

fn hidden_folders_are_not_looked_into() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "true")]).suite(".git/x", &[("execute", "false")]);
    assert_eq!(listed(&project), "10-a");
}

fn a_folder_that_is_suite_and_set_up_fails() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    project.setup("10-a", &json!({"schemaVersion": 1}), &[]);
    project.suite("20-b", &[("execute", "true")]);
    project.run(&[]).code(101);
    project.record("10-a").assert_fail("task.yaml").assert_fail("test.properties.json");
    project.record("20-b").assert_pass();
    assert!(project.order().is_empty());
}

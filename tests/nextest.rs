//! What the harness promises under cargo-nextest: every claim runs the real one. Its test binary is this very program, named to it
//! as one that was built elsewhere: nothing is compiled. Only an archive is made the long way, with cargo.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a claim fails by a panic")]

#[path = "nextest/archive.rs"]
mod archive;
#[path = "nextest/ends.rs"]
mod ends;
#[path = "nextest/names.rs"]
mod names;
#[path = "nextest/reports.rs"]
mod reports;
#[path = "nextest/sessions.rs"]
mod sessions;
#[path = "nextest/soak.rs"]
mod soak;
#[path = "harness/world.rs"]
mod world;

use std::fs;

use serde_json::{Value, json};
use world::{Ended, Project, Running, find, has};

fn main() -> std::process::ExitCode {
    world::main(|| {
        let claims =
            [archive::claims(), ends::claims(), names::claims(), reports::claims(), sessions::claims(), soak::claims()];
        claims.into_iter().flatten().collect()
    })
}

/// A claim that runs nextest, where there is one.
fn claim<F: FnOnce() + Send + 'static>(run: F) -> libtest_mimic::Trial {
    world::claim_named::<F>(move || {
        if has(&["cargo-nextest"]) {
            run();
        }
    })
}

/// Harmless suites that nextest runs.
fn project() -> Project {
    packaged(Project::new())
}

/// As `project`, with more lines in its `runner.yaml`.
fn project_with(settings: &str) -> Project {
    packaged(Project::with(settings))
}

/// Makes the project a package, as cargo would describe it, whose test target `suites` is built already.
fn packaged(project: Project) -> Project {
    let folder = project.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    // Only whether it is there matters to nextest.
    project.file("Cargo.toml", "[package]\nname = \"tool\"\nversion = \"1.0.0\"\nedition = \"2024\"\n");
    project.file("cargo.json", cargo_metadata(&folder).to_string());
    project.file("binaries.json", binaries_metadata(&folder).to_string());
    project.by(find("cargo-nextest").unwrap_or_default())
}

fn package_id(folder: &str) -> String {
    format!("path+file://{folder}#tool@1.0.0")
}

/// What `cargo metadata` says of such a package.
fn cargo_metadata(folder: &str) -> Value {
    let id = package_id(folder);
    let target = json!({
        "kind": ["test"], "crate_types": ["bin"], "name": "suites", "src_path": format!("{folder}/tests/suites.rs"),
        "edition": "2024", "doc": false, "doctest": false, "test": true,
    });
    let package = json!({
        "name": "tool", "version": "1.0.0", "id": id, "source": null, "dependencies": [], "targets": [target], "features": {},
        "manifest_path": format!("{folder}/Cargo.toml"), "edition": "2024",
    });
    let node = json!({ "id": id, "dependencies": [], "deps": [], "features": [] });
    json!({
        "packages": [package], "workspace_members": [id], "workspace_default_members": [id], "version": 1,
        "resolve": { "nodes": [node], "root": id }, "target_directory": format!("{folder}/target"), "workspace_root": folder,
    })
}

/// What `cargo nextest list --list-type binaries-only --message-format json` says.
fn binaries_metadata(folder: &str) -> Value {
    let host =
        json!({ "triple": format!("{}-unknown-linux-gnu", std::env::consts::ARCH), "target-features": "unknown" });
    let libdir = json!({ "status": "unavailable", "reason": "not-asked" });
    let build = json!({
        "target-directory": format!("{folder}/target"), "base-output-directories": ["debug"], "non-test-binaries": {},
        "build-script-out-dirs": {}, "linked-paths": [], "target-platforms": [host], "target-platform": null,
        "platforms": { "host": { "platform": host, "libdir": libdir }, "targets": [] },
    });
    let binary = json!({
        "binary-id": "tool::suites", "binary-name": "suites", "package-id": package_id(folder), "kind": "test",
        "binary-path": world::harness(), "build-platform": "target",
    });
    json!({ "rust-build-meta": build, "rust-binaries": { "tool::suites": binary } })
}

/// Starts `cargo nextest COMMAND ARGUMENTS`. Nobody's own settings matter.
fn start(project: &Project, command: &str, arguments: &[&str]) -> Running {
    let built = ["--cargo-metadata", "cargo.json", "--binaries-metadata", "binaries.json"];
    let settings = ["--user-config-file", "none", "--color", "never"];
    let command: Vec<_> = command.split(' ').collect();
    let words = [&["nextest"], command.as_slice(), built.as_slice(), settings.as_slice(), arguments].concat();
    project.start(&words)
}

/// Runs `cargo nextest run ARGUMENTS`; one failure does not keep the other tests from running.
fn run(project: &Project, arguments: &[&str]) -> Ended {
    start(project, "run", &[&["--no-fail-fast"], arguments].concat()).wait()
}

/// nextest's code for a failed test.
const FAILED: i32 = 100;

/// Its own identity of a run, as it prints it.
fn run_id(ended: &Ended) -> String {
    let (_, rest) = ended.stderr.split_once("Nextest run ID ").unwrap_or_else(|| panic!("no run ID:\n{ended}"));
    rest.split_whitespace().next().unwrap().to_owned()
}

/// How often the log of the proof folder has an event of a stage.
fn count(project: &Project, stage: &str, event: &str) -> usize {
    let text = project.text("proof/logs/runner.jsonl");
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|found| found["stage"] == stage && found["event"] == event).count()
}

/// A suite that tells in `order` when it starts and ends, a line each.
fn telling(project: &Project, name: &str) {
    let [execute, restore] =
        ["echo start $SUITE_NAME >>order; echo end $SUITE_NAME >>order", "echo restore $SUITE_NAME >>order"];
    project.suite(name, &[("execute", execute), ("restore", restore)]);
}

/// What the suites have told: what, and which suite. No suite's lines may stand among those of another.
fn told(project: &Project) -> Vec<(String, String)> {
    let text = fs::read_to_string(project.path("order")).unwrap_or_default();
    let line = |line: &str| line.split_once(' ').map(|(what, name)| (what.to_owned(), name.to_owned())).unwrap();
    let told: Vec<_> = text.lines().map(line).collect();
    let mut names: Vec<_> = told.iter().map(|(_, name)| name).collect();
    names.dedup();
    let groups = names.len();
    names.sort();
    names.dedup();
    assert_eq!(groups, names.len(), "two suites ran at once:\n{text}");
    told
}

/// Every process that has the project's folder in its environment.
fn processes(project: &Project) -> Vec<i32> {
    let folder = project.path("").into_os_string().into_encoded_bytes();
    let folder = folder.strip_suffix(b"/").unwrap_or(&folder).to_vec();
    let found =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_its = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(folder.len()).any(|window| window == folder)
    };
    found.filter(is_its).filter(|pid| world::is_alive(*pid)).collect()
}

/// Waits until nothing of the project runs.
#[track_caller]
fn nothing_is_left(project: &Project) {
    world::until("every process of the run to end", || processes(project).is_empty());
}

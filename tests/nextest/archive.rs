//! Tests that are built in one place and run in another.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::world::{self, Project, find};
use crate::{claim, run_id};

pub(crate) fn claims() -> Vec<Trial> {
    vec![claim(an_archive_runs_in_another_place)]
}

/// What cargo sets for the tests that it runs; to another cargo it would say that everything has to be built again.
fn is_for_tests(name: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_", "NEXTEST"];
    let names = ["CARGO", "CARGO_TARGET_TMPDIR", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "LD_LIBRARY_PATH"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name)
}

/// The environment in which somebody has called cargo to run these claims.
fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !is_for_tests(&name.to_string_lossy()))
}

/// Archives the suites of this package, which cargo has built for these claims, too.
fn archive(file: &Path) {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    let is_release = program.components().any(|part| part.as_os_str() == "release");
    let mut cargo = world::command(find("cargo-nextest").unwrap());
    cargo.args(["nextest", "archive", "--locked", "--offline", "--test", "suites", "--archive-file"]).arg(file);
    cargo.arg("--target-dir").arg(target).args(is_release.then_some("--release")).args(world::features());
    cargo.env_clear().envs(environment()).current_dir(env!("CARGO_MANIFEST_DIR"));
    let done = cargo.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn an_archive_runs_in_another_place() {
    if !world::has(&["cargo", "rustc"]) {
        return;
    }
    // `.` is where nextest starts tests: the package's folder, in its new place.
    let project = Project::new().by(find("cargo-nextest").unwrap()).variable("PROJECT_DIR", ".");
    let project = ["SUITES_DIR", "PROOF_DIR"].iter().fold(project, |project, name| project.without_variable(name));
    archive(&project.path("suites.tar.zst"));
    project.file("Cargo.toml", "").suite("10-a", &[("execute", "echo ran in $PWD >order")]);
    let (archive, elsewhere) = (project.path("suites.tar.zst"), project.path("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    let workspace = project.path("");
    let [archive, to, workspace] = [&archive, &elsewhere, &workspace].map(|path| path.to_str().unwrap());
    let words = ["nextest", "run", "--archive-file", archive, "--extract-to", to, "--workspace-remap", workspace];
    let ended = project.run(&[words.as_slice(), &["--user-config-file", "none", "--color", "never"]].concat());
    ended.code(0).says("1 test run: 1 passed");
    assert_eq!(project.text("order").trim(), format!("ran in {}", workspace.trim_end_matches('/')));
    let summary: serde_json::Value = serde_json::from_str(&project.text(".proof/summary.json")).unwrap();
    assert_eq!((&summary["run_id"], &summary["counts"]["pass"]), (&run_id(&ended).into(), &1.into()));
}

//! Suites about real software: dpkg, update-alternatives, git. They install, change and remove things for real, below a
//! root of their own, and the harness has to see it all and find everything as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a claim fails by a panic")]

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use world::{Project, User, has};

#[path = "harness/world.rs"]
mod world;

fn main() -> std::process::ExitCode {
    world::main(|| {
        [
            world::both(dpkg_installs_upgrades_and_purges_a_package),
            world::both(update_alternatives_chooses_and_forgets),
            world::both(git_commits_refuses_and_packs),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<Trial>>()
    })
}

/// Runs a suite of tests/fixtures/real as `user`; `seen` are paths among the changes that it must have made.
fn run(name: &str, user: User, seen: &[&str]) {
    let project = Project::bare().of(user);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/real");
    for file in ["runner.yaml".to_owned(), format!("{name}/task.yaml")] {
        project.file(format!("suites/{file}"), fs::read(fixtures.join(&file)).unwrap());
    }
    fs::create_dir(project.path("machine")).unwrap();
    let ended = project.run(&[]);
    ended.code(0);
    let record = project.record(name);
    assert!(record.texts("drift").is_empty(), "{:#}", record.0);
    assert!(project.tree("machine").is_empty(), "{:?}", project.tree("machine"));
    let changes = project.json(&format!("results/{name}/changes.json")).to_string();
    for path in seen {
        assert!(changes.contains(path), "no change of {path} in {changes}");
    }
}

fn dpkg_installs_upgrades_and_purges_a_package(user: User) {
    if has(&["dpkg", "dpkg-deb", "dpkg-query"]) {
        run("10-packages", user, &["machine/var/lib/dpkg/status", "machine/var/log/dpkg.log"]);
    }
}

fn update_alternatives_chooses_and_forgets(user: User) {
    if has(&["update-alternatives"]) {
        run("20-alternatives", user, &["machine/bin/small", "machine/var/alternatives.log"]);
    }
}

fn git_commits_refuses_and_packs(user: User) {
    if has(&["git"]) {
        run("30-repository", user, &["machine/repository/.git/packed-refs", "machine/repository/file"]);
    }
}

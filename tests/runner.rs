//! What `container-runner` promises, seen from outside: every claim runs the real program over suites that it has written into a
//! folder of its own, and looks at exit code, text and evidence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a claim fails by a panic")]

#[path = "runner/collect.rs"]
mod collect;
#[path = "runner/doctor.rs"]
mod doctor;
#[path = "runner/interrupts.rs"]
mod interrupts;
#[path = "runner/merge.rs"]
mod merge;
#[path = "runner/screen.rs"]
mod screen;
#[path = "runner/stages.rs"]
mod stages;
#[path = "harness/world.rs"]
mod world;

use world::{Project, with_cargo};

fn main() -> std::process::ExitCode {
    world::main(|| {
        let stages = [stages::claims(), interrupts::claims(), collect::claims(), merge::claims()];
        let claims = stages.into_iter().chain([doctor::claims(), screen::claims()]);
        claims.flatten().collect()
    })
}

/// The program.
const RUNNER: &str = env!("CARGO_BIN_EXE_container-runner");

/// A project whose suites are declared to be harmless, with more lines in its `runner.yaml`.
fn project(settings: &str) -> Project {
    Project::with(settings).by(RUNNER)
}

/// A product that cargo builds in a moment; `build_script` is its build.rs.
fn with_product(project: &Project, build_script: &str) {
    project.file("Cargo.toml", "[package]\nname = \"tool\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[workspace]\n");
    project.file("src/main.rs", "fn main() { println!(\"it works\"); }\n");
    project.file("build.rs", build_script);
}

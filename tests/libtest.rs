//! The harness beside a real libtest: a crate of `#[test]` functions is compiled once, suites of the same names and outcomes
//! are written, both get the same command lines. What is meant to differ stands in one table, and nothing else may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a claim fails by a panic")]

#[path = "libtest/bad_input.rs"]
mod bad_input;
#[path = "libtest/events.rs"]
mod events;
#[path = "libtest/ides.rs"]
mod ides;
#[path = "libtest/line.rs"]
mod line;
#[path = "libtest/matrix.rs"]
mod matrix;
#[path = "libtest/seen.rs"]
mod seen;
#[path = "libtest/table.rs"]
mod table;
#[path = "libtest/twins.rs"]
mod twins;
#[path = "harness/world.rs"]
mod world;

fn main() -> std::process::ExitCode {
    world::main(|| {
        [matrix::claims(), events::claims(), ides::claims(), bad_input::claims()].into_iter().flatten().collect()
    })
}

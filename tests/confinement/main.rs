//! The sandbox where something is in its way: it holds, or nothing runs, and the wall that could not be built is named with what helps.
//! What is in the way is made for each claim: limits, masks over /proc, filters, lacking rights. Docker itself: `tests/docker`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a claim fails by a panic")]

mod filters;
mod surroundings;
#[path = "../harness/world.rs"]
mod world;

fn main() -> std::process::ExitCode {
    filters::run_if_asked();
    world::main(surroundings::claims)
}

//! The sandbox against everything that a script can try, and everything that it must be able to do: as root, as an ordinary user, and,
//! where the outcome is to be the same, without a sandbox as well.

#![expect(clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "a test: what fails is the claim")]

mod attacks;
mod bounds;
mod cell;
mod faults;
#[expect(dead_code, reason = "shared with the engine's tests, which need more of it")]
#[path = "../engine/inside.rs"]
mod inside;
mod kept;
#[path = "../engine/trials.rs"]
mod trials;
mod walls;
mod works;

use std::process::ExitCode;

use inside::Lab;
use proving_ground::internals::engine::Cancel;

fn main() -> ExitCode {
    if attacks::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let claims =
        [faults::claims(), works::claims(), walls::claims(), bounds::claims(), kept::claims(), attacks::claims()]
            .concat();
    match Lab::of_this_process() {
        Some((lab, name)) => {
            let claim = claims.iter().find(|claim| claim.name == name);
            (claim.unwrap_or_else(|| panic!("no claim `{name}`")).check)(&lab);
            ExitCode::SUCCESS
        }
        None => trials::run(&claims, cell::compile_probe),
    }
}

/// One that nobody triggers.
fn cancel() -> Cancel {
    Cancel::new().unwrap()
}

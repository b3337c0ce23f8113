//! The sandbox against everything that a script can try, and everything that it must be able to do: as root, as an ordinary user, and,
//! where the outcome is to be the same, without a sandbox as well. `SOAK_ROUNDS=20` does it all twenty times.
//!
//! Where the faults of a script are looked at (the numbers are those of the table of faults that this was written from):
//!
//! | rows | what | where |
//! |---|---|---|
//! | 1-7, 16, 17, 20-23 | how scripts end | `faults` |
//! | 8 | fork bombs | `bounds`; without a sandbox `tests/engine/limits.rs` |
//! | 9-12 | killing whoever watches | `faults`, `attacks`; without a sandbox `tests/engine/kills.rs` |
//! | 13, 99 | signals to the runner | `tests/runner/interrupts.rs`, `tests/harness/interrupts.rs` |
//! | 14 | limits that make no sense | `faults` |
//! | 24-26, 28, 30, 31, 39-42 | output, byte for byte | `faults`; `tests/engine/output.rs` |
//! | 27, 32, 34, 37, 38 | what output means | `tests/fixtures/contract`, `rules/chickadee.rs` |
//! | 44, 60, 61 | what scripts leave to others | `walls` |
//! | 45 | a work folder without anything | `faults` |
//! | 47 | links where the runner writes | `kept` |
//! | 48-55 | archives | not a script's |
//! | 57, 58 | disk bombs | `bounds` |
//! | 62 | a full disk | `tests/engine/output.rs` |
//! | 63-74 | rights, secrets, the kernel | `faults`, `walls`, `attacks`; 72: flock(2) on files that all can read stays a side channel |
//! | 75 | memory bombs | `bounds` |
//! | 76 | a sandbox that cannot be had | `attacks` |
//! | 77-81 | the network | `walls`, `works` |

#![expect(clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "a test: what fails is the claim")]

mod attacks;
mod bounds;
mod cell;
mod faults;
#[expect(dead_code, reason = "shared with the engine's tests, which need more of it")]
#[path = "../engine/inside.rs"]
mod inside;
mod kept;
mod soak;
#[path = "../engine/trials.rs"]
mod trials;
mod walls;
mod works;

use std::process::ExitCode;

use inside::{Claim, Lab};
use proving_ground::internals::engine::{Cancel, Leaf};

fn main() -> ExitCode {
    if attacks::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let claims = [
        faults::claims(),
        works::claims(),
        walls::claims(),
        bounds::claims(),
        kept::claims(),
        attacks::claims(),
        soak::claims(),
    ];
    let claims = claims.concat();
    match Lab::of_this_process() {
        Some((lab, name)) => {
            let _leaf = Leaf::enter();
            let claim = claims.iter().find(|claim| claim.name == name);
            (claim.unwrap_or_else(|| panic!("no claim `{name}`")).check)(&lab);
            ExitCode::SUCCESS
        }
        None => run(&claims),
    }
}

/// Everything, as often as it is asked for, and a look at what is left of it.
fn run(claims: &[Claim]) -> ExitCode {
    let machine = soak::Machine::now();
    let rounds = soak::rounds();
    let mut failed = 0;
    for round in 1..=rounds {
        let code = trials::run(claims, cell::compile_probe);
        let left = machine.left_since();
        if code != ExitCode::SUCCESS || !left.is_empty() {
            failed += 1;
        }
        if rounds > 1 || !left.is_empty() {
            eprintln!("round {round} of {rounds}; failed so far: {failed}; left behind: {left:#?}");
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One that nobody triggers.
fn cancel() -> Cancel {
    Cancel::new().unwrap()
}

//! The engine's promises, each with real programs, as root and as an ordinary user.
//!
//! Every claim is a trial for each user, and runs in a process of its own: this binary, executed again. So a claim has a
//! deadline, cannot take others with it, and can be asked what it left behind: nothing that it started may be alive, in it
//! or after it. What kills or stops everything in sight runs in a PID namespace of its own.

#![expect(clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "a test: what fails is the claim")]

mod helpers;
mod inside;
mod kills;
mod lifetime;
mod limits;
mod output;
mod start;
mod trials;

use std::process::ExitCode;

use inside::Lab;

fn main() -> ExitCode {
    if helpers::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let claims = [lifetime::claims(), kills::claims(), limits::claims(), output::claims(), start::claims()].concat();
    match Lab::of_this_process() {
        Some((lab, name)) => {
            let claim = claims.iter().find(|claim| claim.name == name);
            (claim.unwrap_or_else(|| panic!("no claim `{name}`")).check)(&lab);
            ExitCode::SUCCESS
        }
        None => trials::run(&claims, |_| ()),
    }
}

//! The worker daemon of a grading machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    proving_ground::worker::main()
}

//! The container's entry point, and what `sh/*.sh` call.

use std::process::ExitCode;

fn main() -> ExitCode {
    proving_ground::cli::main()
}

//! What `cargo test --test suites` runs: the suites in `suites/`.
fn main() -> std::process::ExitCode {
    proving_ground::harness::main()
}

fn main() -> std::process::ExitCode {
    proving_ground::harness::main()
}

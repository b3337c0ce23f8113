//! What it takes to collect and to verify the evidence of many suites: ratios to `sha256sum -c` of the same folder.
//!
//! `cargo bench --bench verify [-- SUITES ROUNDS]`
//!
//! This binary is also the harness whose evidence is verified: called by the name of a `suites` test binary it acts as one.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark, not the product"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use contest::{Contestant, compare};
use proving_ground::internals::{collect, verify};

mod contest;

const AS_HARNESS: &str = "suites-0000000000000000";
const SNAPSHOT_FILES: usize = 100;

fn main() -> ExitCode {
    let exe = std::env::current_exe().unwrap();
    if exe.file_name().is_some_and(|name| name == AS_HARNESS) {
        return proving_ground::harness::main();
    }
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    let suites = numbers.next().unwrap_or(1000);
    let rounds = numbers.next().unwrap_or(9);
    let dir = tempfile::tempdir().unwrap();
    let harness = dir.path().join(AS_HARNESS);
    if fs::hard_link(&exe, &harness).is_err() {
        fs::copy(&exe, &harness).unwrap();
    }
    // In the one, most snapshots are the same; in the other, none is.
    let quiet = run(dir.path(), &harness, "quiet", &vec!["[ 1 = 1 ]".to_owned(); suites]);
    let busy: Vec<_> = (0..suites).map(|n| format!("echo {n} >files/busy")).collect();
    let busy = run(dir.path(), &harness, "busy", &busy);
    let contestants: Vec<_> = [("quiet", &quiet), ("busy", &busy)].into_iter().flat_map(contestants).collect();
    println!("{suites} suites, three snapshots of {SNAPSHOT_FILES} files each");
    compare(&contestants, rounds);
    ExitCode::SUCCESS
}

fn contestants<'a>((name, proof): (&'a str, &'a PathBuf)) -> [Contestant<'a>; 4] {
    let bundle = proof.join("proofs.tar.gz");
    println!("{name}: {} files, a bundle of {} KiB", collect(proof).unwrap().0, size(&bundle) >> 10);
    let contestant = |name, is_floor, run| Contestant { name, per: 1, is_floor, run };
    [
        contestant("sha256sum -c", true, Box::new(|| sha256sum(proof)) as Box<dyn Fn()>),
        contestant("verify the folder and its bundle", false, Box::new(|| sound(proof))),
        contestant("verify the bundle", false, Box::new(move || sound(&bundle))),
        contestant("collect", false, Box::new(|| assert!(collect(proof).is_ok()))),
    ]
}

/// Runs suites whose blocks are `executes`, and returns the proof folder.
fn run(dir: &Path, harness: &Path, name: &str, executes: &[String]) -> PathBuf {
    let project = dir.join(name);
    fs::create_dir_all(project.join("files")).unwrap();
    for n in 0..SNAPSHOT_FILES {
        fs::write(project.join(format!("files/{n:03}")), format!("{n}\n")).unwrap();
    }
    for (n, execute) in executes.iter().enumerate() {
        let suite = project.join(format!("suites/{n:04}"));
        fs::create_dir_all(&suite).unwrap();
        fs::write(suite.join("task.yaml"), format!("summary: trivial\nexecute: '{execute}'\n")).unwrap();
    }
    fs::write(project.join("suites/runner.yaml"), "isolation: none\nsnapshot: {paths: [files]}\n").unwrap();
    let proof = project.join("proof");
    let mut command = Command::new(harness);
    command.env("PROJECT_DIR", &project).env("SUITES_DIR", project.join("suites")).env("PROOF_DIR", &proof);
    command.env_remove("TEST_FILTER").arg("-q").stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
    proof
}

fn sha256sum(proof: &Path) {
    let mut command = Command::new("sha256sum");
    command.args(["--quiet", "-c", "manifest.sha256"]).current_dir(proof);
    assert!(command.status().unwrap().success());
}

fn sound(path: &Path) {
    assert_eq!(verify(path).unwrap().problems, Vec::<String>::new());
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

//! What the harness adds to trivial suites and scripts, and what a listing costs: ratios to the bare processes, in one run.
//!
//! `cargo bench --bench harness [-- TRIALS ROUNDS]`
//!
//! This binary is also the harness that it measures: called by the name of a `suites` test binary it acts as one.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark, not the product"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const AS_HARNESS: &str = "suites-0000000000000000";
const SNAPSHOT_FILES: usize = 100;
const LISTED: usize = 1000;
/// Each has a proof folder of its own.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// What is measured, and what it is compared with: the contestant before it, if that is `None`.
struct Contestant<'a> {
    name: &'a str,
    per: usize,
    is_floor: bool,
    run: Box<dyn Fn() + 'a>,
}

fn main() -> ExitCode {
    let exe = std::env::current_exe().unwrap();
    if exe.file_name().is_some_and(|name| name == AS_HARNESS) {
        return proving_ground::harness::main();
    }
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    let trials = numbers.next().unwrap_or(300);
    let rounds = numbers.next().unwrap_or(7);
    let dir = tempfile::tempdir().unwrap();
    let harness = dir.path().join(AS_HARNESS);
    if fs::hard_link(&exe, &harness).is_err() {
        fs::copy(&exe, &harness).unwrap();
    }
    generate(dir.path(), trials);
    compare(&contestants(dir.path(), &harness, trials), rounds);
    ExitCode::SUCCESS
}

fn contestants<'a>(dir: &'a Path, harness: &'a Path, trials: usize) -> Vec<Contestant<'a>> {
    let ours = move |suites: &str, args: &[&str]| {
        let proof = new_proof(dir);
        let mut command = Command::new(harness);
        command.args(args).env("PROJECT_DIR", dir).env("SUITES_DIR", dir.join(suites)).env("PROOF_DIR", proof);
        command.env_remove("TEST_FILTER").stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    // Without what cargo adds to the environment, as blocks and scripts run: its LD_LIBRARY_PATH alone costs a program's start a
    // tenth.
    let cargos = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO") || name.starts_with("RUST") || name == "LD_LIBRARY_PATH"
    });
    let cargos: Vec<_> = cargos.collect();
    let bare = move |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        for name in &cargos {
            command.env_remove(name);
        }
        assert!(command.args(args).stdin(Stdio::null()).status().unwrap().success());
    };
    let (bare_again, bare_too, bare_to_copy) = (bare.clone(), bare.clone(), bare.clone());
    let scripts: Vec<PathBuf> = (0..trials).map(|n| dir.join(format!("scripts/unit/{n:04}.sh"))).collect();
    let scripts_again = scripts.clone();
    let contestant = |name, per, is_floor, run| Contestant { name, per, is_floor, run };
    vec![
        contestant(
            "bare bash, twice a suite",
            trials,
            true,
            Box::new(move || {
                (0..2 * trials).for_each(|_| bare("/bin/bash", &["-c", "[ 1 = 1 ]"]));
            }),
        ),
        contestant("suites, three snapshots of 100 files", trials, false, Box::new(move || ours("suites", &["-q"]))),
        contestant(
            "bare bash, looks and files by hand",
            trials,
            false,
            Box::new(move || {
                let proof = new_proof(dir);
                for n in 0..trials {
                    suite_by_hand(dir, proof.join(n.to_string()), &|| bare_again("/bin/bash", &["-c", "[ 1 = 1 ]"]));
                }
            }),
        ),
        contestant(
            "bare sh",
            trials,
            true,
            Box::new(move || {
                scripts.iter().for_each(|script| bare_too("/bin/sh", &[script.to_str().unwrap()]));
            }),
        ),
        contestant("scripts, each in its fresh copy", trials, false, Box::new(move || ours("scripts", &["-q"]))),
        contestant(
            "bare sh, copies and files by hand",
            trials,
            false,
            Box::new(move || {
                let run = |script: &Path| bare_to_copy("/bin/sh", &[script.to_str().unwrap()]);
                scripts_by_hand(&new_proof(dir), &scripts_again, &run);
            }),
        ),
        contestant("walk and read 1,000 task.yaml", LISTED, true, Box::new(move || walk_and_read(&dir.join("many")))),
        contestant("--list of 1,000 suites", LISTED, false, Box::new(move || ours("many", &["--list"]))),
        contestant("--exact NAME, of one suite", 1, true, Box::new(move || ours("one", &["--exact", "0000"]))),
        contestant("--exact NAME, of 1,000 suites", 1, false, Box::new(move || ours("many", &["--exact", "0000"]))),
    ]
}

/// To empty a folder is nobody's work here, and makes a file system slower for whoever comes next.
fn new_proof(dir: &Path) -> PathBuf {
    dir.join("proof").join(RUNS.fetch_add(1, Ordering::Relaxed).to_string())
}

/// Evidence by the plainest means: files that appear whole, and a line of a log for each.
struct ByHand {
    folder: PathBuf,
    log: fs::File,
}

impl ByHand {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let log = fs::File::options().append(true).create(true).open(folder.with_file_name("log")).unwrap();
        Self { folder, log }
    }

    fn put(&mut self, name: &str, text: &str) {
        self.log.write_all(&[b'.'; 256]).unwrap();
        let aside = self.folder.join("aside");
        fs::write(&aside, text).unwrap();
        fs::rename(aside, self.folder.join(name)).unwrap();
    }
}

/// What is promised of each suite: two processes, three looks at every file, six files of evidence. Nothing is read, hashed,
/// compared, judged or guarded.
fn suite_by_hand(dir: &Path, evidence: PathBuf, bare: &dyn Fn()) {
    let mut evidence = ByHand::new(evidence);
    for (when, runs) in [("before", true), ("after", true), ("restored", false)] {
        let mut text = String::new();
        for entry in fs::read_dir(dir.join("files")).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            writeln!(text, "{} {} {:?}", entry.path().display(), meta.len(), meta.modified().unwrap()).unwrap();
        }
        evidence.put(when, &text);
        if runs {
            bare();
        }
    }
    ["changes", "result", "summary"].into_iter().for_each(|name| evidence.put(name, "{}"));
}

/// What is promised of each script: a process, two files of evidence; and before the first of them two copies of them all, one to
/// run in and one to repair it from. Nothing is watched, repaired, judged or guarded.
fn scripts_by_hand(proof: &Path, scripts: &[PathBuf], bare: &dyn Fn(&Path)) {
    for copy in ["original", "copy"].map(|name| proof.join(name)) {
        fs::create_dir_all(&copy).unwrap();
        for script in scripts {
            fs::copy(script, copy.join(script.file_name().unwrap())).unwrap();
        }
    }
    for script in scripts {
        let name = script.file_name().unwrap();
        bare(&proof.join("copy").join(name));
        let mut evidence = ByHand::new(proof.join("results").join(name));
        ["result", "summary"].into_iter().for_each(|name| evidence.put(name, "{}"));
    }
}

fn generate(dir: &Path, trials: usize) {
    let suite = |folder: &str, n: usize| {
        let dir = dir.join(format!("{folder}/{n:04}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("task.yaml"), "summary: trivial\nexecute: '[ 1 = 1 ]'\nrestore: 'true'\n").unwrap();
    };
    (0..trials).for_each(|n| suite("suites", n));
    (0..LISTED).for_each(|n| suite("many", n));
    suite("one", 0);
    fs::create_dir_all(dir.join("scripts/unit")).unwrap();
    (0..trials).for_each(|n| fs::write(dir.join(format!("scripts/unit/{n:04}.sh")), "[ 1 = 1 ]\n").unwrap());
    fs::create_dir_all(dir.join("files")).unwrap();
    (0..SNAPSHOT_FILES).for_each(|n| fs::write(dir.join(format!("files/{n:03}")), format!("{n}\n")).unwrap());
    fs::write(dir.join("suites/runner.yaml"), "isolation: none\nsnapshot: {paths: [files]}\n").unwrap();
    for folder in ["scripts", "many", "one"] {
        fs::write(dir.join(folder).join("runner.yaml"), "isolation: none\n").unwrap();
    }
}

fn walk_and_read(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path().join("task.yaml");
        // runner.yaml is no folder.
        drop(fs::read(path));
    }
}

/// Interleaved rounds, each starting with another contestant, so that a change of the machine's load meets all of them.
fn compare(contestants: &[Contestant<'_>], rounds: usize) {
    let mut samples = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let at = (round + turn) % contestants.len();
            let start = Instant::now();
            (contestants[at].run)();
            if round > 0 {
                samples[at].push(start.elapsed());
            }
        }
    }
    println!("{rounds} rounds, medians");
    let mut floor_us = 0.0;
    for (contestant, times) in contestants.iter().zip(&mut samples) {
        let median_us = median(times).as_secs_f64() * 1e6 / contestant.per as f64;
        if contestant.is_floor {
            floor_us = median_us;
        }
        println!("{:40} {median_us:9.1} µs each   ratio {:.2}", contestant.name, median_us / floor_us);
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

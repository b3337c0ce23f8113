//! What the harness adds to trivial suites and scripts, and what a listing costs: ratios to the bare processes and to a plain
//! libtest-mimic harness, in one run.
//!
//! `cargo bench --bench harness [-- TRIALS ROUNDS]`
//!
//! This binary is also the harnesses that it measures: called by the name of one it acts as that.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark, not the product"
)]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use contest::{Contestant, compare};
use libtest_mimic::{Arguments, Trial};
use proving_ground::internals::is_cargos;

mod contest;

const AS_HARNESS: &str = "suites-0000000000000000";
/// A plain libtest-mimic harness.
const AS_MIMIC: &str = "mimic-0000000000000000";
const SNAPSHOT_FILES: usize = 100;
const LISTED: usize = 1000;
/// What one process costs is told by several, one after another.
const PROCESSES: usize = 20;
/// Each has a proof folder of its own.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// A run of nextest, of which each process runs another suite.
struct RunOfNextest {
    others: usize,
    started: AtomicUsize,
}

/// What the contestants work with.
struct Field {
    dir: PathBuf,
    harness: PathBuf,
    mimic: PathBuf,
    trials: usize,
    scripts: Vec<PathBuf>,
    first: RunOfNextest,
    late: RunOfNextest,
}

fn main() -> ExitCode {
    let exe = std::env::current_exe().unwrap();
    if exe.file_name().is_some_and(|name| name == AS_HARNESS) {
        return proving_ground::harness::main();
    }
    if exe.file_name().is_some_and(|name| name == AS_MIMIC) {
        return plain_harness();
    }
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    let trials = numbers.next().unwrap_or(300);
    let rounds = numbers.next().unwrap_or(7);
    let dir = tempfile::tempdir().unwrap();
    let [harness, mimic] = [AS_HARNESS, AS_MIMIC].map(|name| {
        let path = dir.path().join(name);
        if fs::hard_link(&exe, &path).is_err() {
            fs::copy(&exe, &path).unwrap();
        }
        path
    });
    generate(dir.path(), trials, rounds);
    let scripts = (0..trials).map(|n| dir.path().join(format!("scripts/unit/{n:04}.sh"))).collect();
    let [first, late] = [0, LISTED].map(|others| RunOfNextest { others, started: AtomicUsize::new(0) });
    let field = Field { dir: dir.path().to_owned(), harness, mimic, trials, scripts, first, late };
    compare(&contestants(&field), rounds);
    ExitCode::SUCCESS
}

/// What somebody would write who has libtest-mimic and an hour: a trial a script, its output captured.
fn plain_harness() -> ExitCode {
    let scripts = PathBuf::from(std::env::var_os("SCRIPTS").unwrap());
    let mut paths: Vec<_> = fs::read_dir(scripts).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let trials = paths.into_iter().map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Trial::test(name, move || {
            for block in std::env::var("BLOCKS").unwrap().split(',') {
                let output = Command::new(block).arg(&path).stdin(Stdio::null()).output()?;
                if !output.status.success() {
                    return Err(output.status.to_string().into());
                }
            }
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn contestants(field: &Field) -> Vec<Contestant<'_>> {
    fn contestant<'a>(name: &'a str, per: usize, is_floor: bool, run: impl Fn() + 'a) -> Contestant<'a> {
        Contestant { name, per, is_floor, run: Box::new(run) }
    }
    let ours = |suites, args| move || field.ours(suites, args);
    fn again(run: impl Fn()) -> impl Fn() {
        move || (0..PROCESSES).for_each(|_| run())
    }
    let (trials, many) = (field.trials, field.dir.join("many"));
    vec![
        contestant("bare bash, twice a suite", trials, true, move || (0..2 * trials).for_each(|_| bare_bash())),
        contestant("suites, three snapshots of 100 files", trials, false, ours("suites", &["-q"])),
        contestant("bare bash, looks and files by hand", trials, false, || field.suites_by_hand()),
        contestant("bare sh", trials, true, || field.scripts.iter().for_each(|script| bare_sh(script))),
        contestant("scripts, each in its fresh copy", trials, false, ours("scripts", &["-q"])),
        contestant("bare sh, copies and files by hand", trials, false, || field.scripts_by_hand()),
        contestant("libtest-mimic, the same scripts", trials, true, || field.mimic("/bin/sh", &["--test-threads=1"])),
        contestant("scripts, each in its fresh copy", trials, false, ours("scripts", &["-q"])),
        contestant("libtest-mimic, two at a time", trials, true, || field.mimic("/bin/sh", &["--test-threads=2"])),
        contestant("scripts, two at a time", trials, false, ours("scripts", &["-q", "--test-threads=2"])),
        contestant("walk and read 1,000 task.yaml", LISTED, true, move || walk_and_read(&many)),
        contestant("--list of 1,000 suites", LISTED, false, ours("many", &["--list"])),
        contestant("--exact NAME, of one suite", PROCESSES, true, again(ours("one", &["--exact", "0000"]))),
        contestant("--exact NAME, of 1,000 suites", PROCESSES, false, again(ours("many", &["--exact", "0000"]))),
        contestant(
            "libtest-mimic as nextest starts it",
            PROCESSES,
            true,
            again(|| field.mimic("/bin/bash,/bin/bash", &["--exact", "0000"])),
        ),
        contestant(
            "a suite as nextest starts it, the first",
            PROCESSES,
            false,
            again(|| field.of_nextest(&field.first)),
        ),
        contestant("the same after 1,000 others", PROCESSES, false, again(|| field.of_nextest(&field.late))),
    ]
}

impl Field {
    fn ours(&self, suites: &str, args: &[&str]) {
        let mut command = Command::new(&self.harness);
        command
            .env("PROJECT_DIR", &self.dir)
            .env("SUITES_DIR", self.dir.join(suites))
            .env("PROOF_DIR", self.new_proof());
        command.env_remove("TEST_FILTER").args(args).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    }

    /// As cargo starts it: its scripts inherit all that cargo adds to the environment. `blocks` are the shells that run a script
    /// one after another: a suite has two, `execute` and `restore`.
    fn mimic(&self, blocks: &str, args: &[&str]) {
        let mut command = Command::new(&self.mimic);
        command.env("BLOCKS", blocks).env("SCRIPTS", self.dir.join("scripts/unit")).args(args).arg("-q");
        assert!(command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
    }

    /// The next process of a run of nextest, which has run `others` suites before the first of these.
    fn of_nextest(&self, run: &RunOfNextest) {
        let start = |names: &[String]| {
            let mut command = Command::new(&self.harness);
            let proof = self.dir.join("nextest").join(run.others.to_string());
            command.env("PROJECT_DIR", &self.dir).env("SUITES_DIR", self.dir.join("nextests")).env("PROOF_DIR", &proof);
            command.env("NEXTEST", "1").env("NEXTEST_RUN_ID", "some-run").env_remove("TEST_FILTER");
            command.args(["--exact", "--nocapture"]).args(names).stdin(Stdio::null()).stdout(Stdio::null());
            assert!(command.status().unwrap().success());
        };
        let at = run.started.fetch_add(1, Ordering::Relaxed);
        if at == 0 && run.others > 0 {
            // In the round that is not counted.
            start(&(0..run.others).map(|n| format!("{n:04}")).collect::<Vec<_>>());
        }
        start(&[format!("{:04}", run.others + at)]);
    }

    /// To empty a folder is nobody's work here, and makes a file system slower for whoever comes next.
    fn new_proof(&self) -> PathBuf {
        self.dir.join("proof").join(RUNS.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// What is promised of each suite: two processes, three looks at every file, six files of evidence. Nothing is read, hashed,
    /// compared, judged or guarded.
    fn suites_by_hand(&self) {
        let proof = self.new_proof();
        for n in 0..self.trials {
            let mut evidence = ByHand::new(proof.join(n.to_string()));
            evidence.put("before", &look(&self.dir.join("files")));
            bare_bash();
            evidence.put("after", &look(&self.dir.join("files")));
            bare_bash();
            evidence.put("restored", &look(&self.dir.join("files")));
            ["changes", "result", "summary"].into_iter().for_each(|name| evidence.put(name, "{}"));
        }
    }

    /// What is promised of each script: a process, two files of evidence; and before the first of them two copies of them all, one
    /// to run in and one to repair it from. Nothing is watched, repaired, judged or guarded.
    fn scripts_by_hand(&self) {
        let proof = self.new_proof();
        for copy in ["original", "copy"].map(|name| proof.join(name)) {
            fs::create_dir_all(&copy).unwrap();
            for script in &self.scripts {
                fs::copy(script, copy.join(script.file_name().unwrap())).unwrap();
            }
        }
        for script in &self.scripts {
            let name = script.file_name().unwrap();
            bare_sh(&proof.join("copy").join(name));
            let mut evidence = ByHand::new(proof.join("results").join(name));
            ["result", "summary"].into_iter().for_each(|name| evidence.put(name, "{}"));
        }
    }
}

fn bare_bash() {
    bare("/bin/bash", &["-c", "[ 1 = 1 ]"]);
}

fn bare_sh(script: &Path) {
    bare("/bin/sh", &[script.to_str().unwrap()]);
}

/// What cargo adds to the environment. Blocks and scripts run without it: its `LD_LIBRARY_PATH` alone costs a program's start a
/// tenth.
static CARGOS: LazyLock<Vec<OsString>> =
    LazyLock::new(|| std::env::vars_os().map(|(name, _)| name).filter(|name| is_cargos(name)).collect());

fn bare(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    for name in &*CARGOS {
        command.env_remove(name);
    }
    assert!(command.args(args).stdin(Stdio::null()).status().unwrap().success());
}

fn look(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        writeln!(text, "{} {} {:?}", entry.path().display(), meta.len(), meta.modified().unwrap()).unwrap();
    }
    text
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

fn generate(dir: &Path, trials: usize, rounds: usize) {
    let suite = |folder: &str, n: usize| {
        let dir = dir.join(format!("{folder}/{n:04}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("task.yaml"), "summary: trivial\nexecute: '[ 1 = 1 ]'\nrestore: 'true'\n").unwrap();
    };
    (0..trials).for_each(|n| suite("suites", n));
    (0..LISTED).for_each(|n| suite("many", n));
    suite("one", 0);
    (0..LISTED + (rounds + 1) * PROCESSES).for_each(|n| suite("nextests", n));
    fs::create_dir_all(dir.join("scripts/unit")).unwrap();
    (0..trials).for_each(|n| fs::write(dir.join(format!("scripts/unit/{n:04}.sh")), "[ 1 = 1 ]\n").unwrap());
    fs::create_dir_all(dir.join("files")).unwrap();
    (0..SNAPSHOT_FILES).for_each(|n| fs::write(dir.join(format!("files/{n:03}")), format!("{n}\n")).unwrap());
    fs::write(dir.join("suites/runner.yaml"), "isolation: none\nsnapshot: {paths: [files]}\n").unwrap();
    for folder in ["scripts", "many", "one", "nextests"] {
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

//! Many scripts, two at a time, and what is left of them: nothing.

#![expect(clippy::disallowed_methods, reason = "the number of rounds is told in the environment")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use proving_ground::internals::sandbox::SandboxLimits;
use proving_ground::internals::script::{Changes, EndedBy, Exit, Script};

use crate::cell::{Cell, hurried, sandboxed};
use crate::inside::{Claim, alive_with, until};

const ROUNDS: &str = "SOAK_ROUNDS";
/// How often one runner has each kind of script.
const TURNS: usize = 2;

/// How often all claims are checked.
pub(crate) fn rounds() -> usize {
    std::env::var(ROUNDS)
        .map_or(1, |text| text.parse().unwrap_or_else(|_| panic!("{ROUNDS} is not a number: `{text}`")))
}

pub(crate) fn claims() -> Vec<Claim> {
    sandboxed(one_runner_serves_all_kinds_of_scripts)
}

/// Of each slot: a keeper, a supervisor, and the init of the next script.
const HELPERS: usize = 3;

/// What came of a script, as far as it must be the same each time.
type Fate = (Option<Exit>, EndedBy, usize);

fn fates(cell: &Cell, work_dir: &Path) -> Vec<(Script, Fate)> {
    let sh = |text| cell.program_in(work_dir, "/bin/sh", &["-c", text]);
    let fine = (Some(Exit::Code(0)), EndedBy::Itself, 0);
    let mut kept = sh("echo $$ >>kept; rm -rf folder; mkdir folder; ln -s /etc folder/link");
    kept.changes = Changes::Kept;
    let bomb = "bomb() { bomb | bomb & }; bomb 2>/dev/null; while :; do :; done";
    let mut short = sh("trap '' TERM; sleep 1000 & setsid sleep 1000 & while :; do :; done");
    short.limits.grace = std::time::Duration::from_millis(50);
    short.limits.wall = std::time::Duration::from_millis(200);
    vec![
        (sh("exit 0"), fine),
        (sh("exit 3"), (Some(Exit::Code(3)), EndedBy::Itself, 0)),
        (sh("sleep 1000 & setsid sleep 1000 & sleep 0.05; exit 0"), (Some(Exit::Code(0)), EndedBy::Itself, 2)),
        (sh("kill -9 -1; kill -9 1; kill -9 $$"), (Some(Exit::Signal(libc::SIGKILL)), EndedBy::Itself, 0)),
        (short, (None, EndedBy::Timeout, 0)),
        (sh("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2"), fine),
        (
            sh(
                "head -c 60000000 /dev/zero >/tmp/x; for i in $(seq 500); do : >/dev/shm/$i; done; rm -rf *; ipcmk -M 100000 >/dev/null",
            ),
            fine,
        ),
        (sh("i=0; while [ $i -lt 200 ]; do (exit 0); i=$((i + 1)); done"), fine),
        (kept, fine),
        (hurried(sh(bomb)), (None, EndedBy::Timeout, 0)),
    ]
}

fn one_runner_serves_all_kinds_of_scripts(cell: &Cell) {
    let limits = SandboxLimits { processes_max: 100, ..SandboxLimits::default() };
    let cell = &cell.limited(limits);
    let work_dirs = [cell.work_dir.clone(), cell.base.join("work2")];
    cell.furnish(&work_dirs[1]);
    for work_dir in &work_dirs {
        serve(cell, work_dir, 1);
    }
    let before = Held::by(cell);
    thread::scope(|scope| {
        for work_dir in &work_dirs {
            scope.spawn(|| serve(cell, work_dir, TURNS));
        }
    });
    until("nothing is alive", || alive_with(&cell.lab.marker).is_empty());
    // Two at once may take a second slot.
    let after = Held::by(cell);
    assert!(after.descriptors <= before.descriptors + 4, "{before:?}, {after:?}");
    // The init of the last script may still take its namespaces down.
    until("a keeper, a supervisor and an init of each slot", || Held::by(cell).processes <= 2 * HELPERS);
    assert!(after.cgroups <= before.cgroups * 2, "{before:?}, {after:?}");
    for work_dir in &work_dirs {
        assert!(fs::read_to_string(work_dir.join("kept")).unwrap().lines().count() > TURNS);
    }
}

fn serve(cell: &Cell, work_dir: &Path, rounds: usize) {
    for round in 0..rounds {
        for (number, (script, (exit, ended_by, leaks))) in fates(cell, work_dir).into_iter().enumerate() {
            let completion = cell.try_run(&script).unwrap();
            let what = format!(
                "round {round}, script {number}: {:?} {:?} {:?}",
                completion.exit, completion.ended_by, completion.leaked
            );
            assert_eq!(completion.ended_by, ended_by, "{what}");
            assert!(exit.is_none_or(|exit| exit == completion.exit), "{what}");
            assert!(completion.leaked.len() >= leaks, "{what}");
        }
    }
}

/// What a runner holds between two scripts.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    /// Its helpers, and whatever they have not reaped.
    processes: usize,
    cgroups: usize,
}

impl Held {
    fn by(cell: &Cell) -> Self {
        // It reaps the last init once it waits for the next script.
        cell.assert_goes_on();
        Self {
            descriptors: crate::inside::open_files(),
            processes: descendants(std::process::id()),
            cgroups: crate::inside::cgroups_of_this_process().len(),
        }
    }
}

fn descendants(pid: u32) -> usize {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| 1 + descendants(child.parse().unwrap())).sum()
}

/// What all claims together could leave on this machine.
pub(crate) struct Machine {
    cgroups: BTreeSet<PathBuf>,
}

impl Machine {
    pub(crate) fn now() -> Self {
        Self { cgroups: dead_cgroups() }
    }

    /// Returns what was not there before.
    pub(crate) fn left_since(&self) -> Vec<String> {
        let left = || {
            let cgroups =
                dead_cgroups().difference(&self.cgroups).map(|path| path.display().to_string()).collect::<Vec<_>>();
            let folders = ["/", "/etc", "/root", "/tmp", "/var/tmp", "/dev/shm", "/run", "/var/lib"];
            let names = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
            let files =
                names.map(|entry| entry.path().display().to_string()).filter(|path| path.contains("secret-pg-engine"));
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let mounts = mounts.lines().filter(|line| line.contains("upperdir=/run/upper")).map(str::to_owned);
            cgroups.into_iter().chain(files).chain(mounts).collect::<Vec<_>>()
        };
        // Others use this machine, and sweep.
        for _ in 0..100 {
            if left().is_empty() {
                break;
            }
            thread::sleep(std::time::Duration::from_millis(100));
        }
        left()
    }
}

/// Cgroups of runners that are no more.
fn dead_cgroups() -> BTreeSet<PathBuf> {
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut dead = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix("proving-ground.").and_then(|rest| rest.split('.').nth(1)?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                dead.insert(entry.path());
            }
            folders.push(entry.path());
        }
    }
    dead
}

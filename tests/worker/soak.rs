//! Many jobs, a server that fails at random, and a worker that is killed again and again: nothing is lost, nothing is wrong, nothing is
//! done twice, nothing is left.
//!
//! `SOAK_JOBS` jobs, by default so few that it is soon over; the worker is killed for each 50 of them, ten times at most.
//!
//! A lease ends as a server would end it whose worker came back without the job: while the worker is dead, whatever is leased and neither
//! in its hand nor in its spool goes back to the queue. So nobody but the worker decides what is run again, and each result is computed
//! once to its end: a result that arrives again must be the same to the byte's value, times and measures included. What is run a second
//! time, because its first run was killed, has no first result.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::server::{Assigned, Fault, Route, Server, Stored};
use crate::world::{PATIENCE, SECRET, Worker, World, job, zip_of};

/// Which random faults there are, how many of a hundred requests meet one, and where jobs are being done when their worker is killed.
const SEED: u64 = 20_260_220;
const FAULTS_PERCENT: u64 = 12;
/// Processes of one worker that were killed; in the last life, which has almost half of the jobs, memory is watched.
const KILLS_MAX: usize = 10;
const JOBS_OF_A_LIFE: usize = 50;
/// By so much the last quarter of the samples may be above the second: an allocator's whims, not a leak of some kB for each job.
const GROWTH_KIB_MAX: u64 = 4096;

#[test]
fn no_job_is_lost_by_kills_and_a_server_that_fails() {
    Soak::new(&[]).run();
}

#[test]
fn no_sandboxed_job_is_lost_by_kills_and_a_server_that_fails() {
    Soak::new(&["--sandbox"]).run();
}

/// No kill hits the moment between the two on purpose, so it is made.
#[test]
fn a_job_that_is_in_hand_and_in_the_spool_is_not_done_again() {
    let (server, world) = (Server::today(Some(SECRET)), World::new());
    server.script(Route::Results, vec![Fault::Status(503, None); 1000]);
    server.add_job(job("s1", &[("a.sh", "sleep 1")]));
    let mut worker = world.start(&server, &[]);
    let in_hand = world.path("state/worker-under-test/in-hand");
    let whole = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let file = || fs::read_dir(&in_hand).into_iter().flatten().flatten().map(|entry| entry.path()).find(whole);
    poll_until("the job is in hand", || file().is_some());
    let file = file().unwrap();
    let text = fs::read(&file).unwrap();
    worker.wait_for("result_retried");
    worker.signal(Signal::SIGKILL);
    worker.wait();
    assert!(!file.exists(), "it is in the spool alone");
    fs::write(&file, text).unwrap();
    server.calm();
    let events = world.run_once(&server, &[]);
    assert!(events.iter().all(|event| event["event"] != "job_resumed"), "{events:#?}");
    assert_eq!(server.results()[&("s1".to_owned(), 1)].arrivals, 1);
    assert_eq!(world.left(), Vec::<PathBuf>::new());
}

/// A kind of job: its set-up, and what comes of a submission.
struct Kind {
    name: &'static str,
    manifest: fn() -> Value,
    files: &'static [(&'static str, &'static str)],
    /// Build status, and for each script its status, short result and points.
    expected: fn(usize) -> (&'static str, Vec<Expected>),
}

type Expected = (&'static str, String, u64);

/// The number of the submission decides what comes of it; each script says it, so that no result passes for another's.
const KINDS: [Kind; 5] = [
    Kind {
        name: "verdicts",
        manifest: || {
            json!({ "schemaVersion": 1, "timeLimitSeconds": 120, "testSuites": [
                { "script": "a.sh" }, { "script": "b.sh", "points": 2 }, { "script": "c.sh", "points": 4, "dependsOn": ["b.sh"] },
            ] })
        },
        files: &[
            ("a.sh", "read n <answer.txt; echo \"{\\\"shortResult\\\": \\\"a $n\\\"}\"; echo spoilt >answer.txt"),
            ("b.sh", "read n <answer.txt; echo \"b $n\"; exit $((n % 3))"),
            ("c.sh", "read n <answer.txt; echo \"c $n\"; [ ! -e a.out ]"),
        ],
        expected: |n| {
            let c = match n % 3 {
                0 => ("pass", format!("c {n}"), 4),
                _ => ("fail", "Skipped: prerequisite 'b.sh' did not pass".to_owned(), 4),
            };
            ("skipped", vec![("pass", format!("a {n}"), 1), (["pass", "fail", "error"][n % 3], format!("b {n}"), 2), c])
        },
    },
    Kind {
        name: "made",
        manifest: || {
            let scripts = json!([{ "script": "a.sh", "points": 3 }]);
            json!({ "schemaVersion": 1, "timeLimitSeconds": 120, "makefile": {}, "testSuites": scripts })
        },
        files: &[
            ("Makefile", "all:\n\tread n <answer.txt; [ $$((n % 4)) != 3 ] && echo made $$n >made\n"),
            ("a.sh", "cat made"),
        ],
        expected: |n| match n % 4 {
            3 => ("failed", Vec::new()),
            _ => ("passed", vec![("pass", format!("made {n}"), 3)]),
        },
    },
    Kind {
        name: "leaves",
        manifest: || json!({ "schemaVersion": 1, "timeLimitSeconds": 120, "testSuites": [{ "script": "a.sh" }] }),
        files: &[("a.sh", "setsid sleep 600 & read n <answer.txt; echo \"left $n\"; echo \"$n\" >&2; exit $((n % 2))")],
        expected: |n| ("skipped", vec![(["pass", "fail"][n % 2], format!("left {n}"), 1)]),
    },
    Kind {
        name: "large",
        manifest: || json!({ "schemaVersion": 1, "timeLimitSeconds": 120, "testSuites": [{ "script": "a.sh" }] }),
        files: &[("a.sh", "read n <answer.txt; head -c 200000 /dev/zero | tr '\\0' x >&2; echo; echo \"large $n\"")],
        expected: |n| ("skipped", vec![("pass", format!("large {n}"), 1)]),
    },
    Kind {
        name: "late",
        manifest: || json!({ "schemaVersion": 1, "timeLimitSeconds": 1, "testSuites": [{ "script": "a.sh" }] }),
        // The limit may be over before the shell has begun.
        files: &[("a.sh", "sleep 600")],
        expected: |_| ("skipped", vec![("timeout", "timed out".to_owned(), 1)]),
    },
];

/// One in 25 waits for its limit of time.
fn kind(number: usize) -> &'static Kind {
    if number % 25 == 7 { &KINDS[4] } else { &KINDS[number % 4] }
}

fn attempt(number: usize) -> u32 {
    u32::try_from(number % 3 + 1).unwrap()
}

fn id(number: usize) -> String {
    format!("submission-{number}")
}

fn assigned(number: usize) -> Assigned {
    let kind = kind(number);
    // Some are one file, the others an archive.
    let is_file = number % 7 == 3;
    let text = format!("{number}\n");
    Assigned {
        submission_id: id(number),
        test_setup_id: kind.name.to_owned(),
        attempt_number: attempt(number),
        manifest: (kind.manifest)(),
        set_up: zip_of(kind.files),
        submission: if is_file { text.into_bytes() } else { zip_of(&[("answer.txt", &text)]) },
        submission_filename: is_file.then(|| "answer.txt".to_owned()),
        assignment_seed: None,
    }
}

struct Soak {
    world: World,
    server: Server,
    more: &'static [&'static str],
    jobs: usize,
    kills: usize,
    /// The names of the folders of all lives, which their processes have in their environment.
    markers: Vec<String>,
    pids: Vec<String>,
    random: u64,
    /// In KiB, of the last life.
    memory: Vec<u64>,
}

impl Soak {
    fn new(more: &'static [&'static str]) -> Self {
        let jobs = std::env::var("SOAK_JOBS").map_or(100, |text| text.parse().unwrap());
        let kills = (jobs / JOBS_OF_A_LIFE).clamp(1, KILLS_MAX);
        let (server, world) = (Server::today(Some(SECRET)), World::new());
        (0..jobs).for_each(|number| server.add_job(assigned(number)));
        server.chaos(SEED, FAULTS_PERCENT);
        let (markers, pids) = (Vec::new(), Vec::new());
        Self { world, server, more, jobs, kills, markers, pids, random: SEED, memory: Vec::new() }
    }

    fn run(mut self) {
        for life in 1..=self.kills {
            self.live_and_be_killed(life * self.jobs * 6 / 10 / self.kills);
            if life % 3 == 1 {
                // It is still away when the worker comes back.
                self.server.down();
            }
        }
        let worker = self.last_life();
        self.end(worker);
        self.check_results();
        self.check_leftovers();
        self.check_memory();
    }

    /// With more patience than a real one, which waits longer between its attempts.
    fn start(&mut self) -> Worker {
        let mut command: Command = self.world.command(&self.server);
        command.args(["--max-jobs", "2"]).args(self.more).env("RUNNER_SHARED_SECRET", SECRET);
        command
            .env("RUNNER_DOWNLOAD_RETRY_MAX_ATTEMPTS", "1000")
            .env("RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS", "1000");
        let worker = self.world.spawn(&mut command);
        self.pids.push(worker.pid().to_string());
        worker
    }

    /// Kills a worker at some moment after `target` results have come. The server is away for a while before that, in the midst of work.
    fn live_and_be_killed(&mut self, target: usize) {
        let resumed = self.in_hand();
        let mut worker = self.start();
        self.bring_server_back(&worker);
        self.server.wait_until("results", |state| state.results.len() + 5 >= target);
        self.server.down();
        self.bring_server_back(&worker);
        self.server.wait_until("more results", |state| state.results.len() >= target);
        // What was killed once is not killed again: a job that kills its worker twice is given up.
        poll_until("the jobs of the last life are done", || self.in_hand().is_disjoint(&resumed));
        let more = self.draw(15);
        let later = self.server.state().requests.len() + more;
        self.server.wait_until("a few more requests", |state| state.requests.len() >= later);
        worker.signal(Signal::SIGKILL);
        worker.wait();
        self.bury();
    }

    /// If the server is away: waits until the worker has met that.
    fn bring_server_back(&mut self, worker: &Worker) {
        if !self.server.is_up() {
            let failures = || worker.text().matches("could not connect").count();
            let earlier = failures();
            poll_until("the worker misses its server", || failures() > earlier);
            self.server.up();
        }
    }

    /// Remembers what a dead worker must not have left, and ends the leases of jobs that it did not get to know.
    fn bury(&mut self) {
        self.server.wait_until_alone();
        self.remember_marker();
        let known: BTreeSet<_> = self.in_hand().union(&self.names("spool")).cloned().collect();
        let is_unknown = |id: &&String| !known.contains(&file_name(id));
        let leased: Vec<_> = self.server.state().leased.keys().cloned().collect();
        leased.iter().filter(is_unknown).for_each(|id| assert!(self.server.requeue(id)));
    }

    fn remember_marker(&mut self) {
        let scratch = fs::read_to_string(self.state("scratch")).unwrap();
        let marker = Path::new(&scratch).file_name().unwrap().to_str().unwrap().to_owned();
        self.markers.push(marker);
    }

    /// Works until all results are there; memory is looked at all the time.
    fn last_life(&mut self) -> Worker {
        let worker = self.start();
        self.bring_server_back(&worker);
        let step = (self.jobs / 100).max(1);
        loop {
            let earlier = self.server.state().results.len();
            if earlier == self.jobs {
                return worker;
            }
            self.server.wait_until("all results", |state| state.results.len() >= (earlier + step).min(self.jobs));
            self.memory.push(resident_kib(&worker));
        }
    }

    /// Ends a worker in order.
    fn end(&mut self, mut worker: Worker) {
        self.remember_marker();
        worker.signal(Signal::SIGTERM);
        let status = worker.wait();
        assert!(status.success(), "{status}\n{}", worker.text());
    }

    fn check_results(&self) {
        let results = self.server.results();
        for number in 0..self.jobs {
            let stored = results.get(&(id(number), attempt(number))).unwrap_or_else(|| panic!("{number} is lost"));
            check_result(number, stored);
        }
        assert_eq!(results.len(), self.jobs);
        assert!(results.values().any(|stored| stored.arrivals > 1), "no answer to a result was lost");
        let log = fs::read_to_string(self.world.path("log")).unwrap();
        for event in ["poll_failed", "download_retried", "result_retried", "job_resumed"] {
            assert!(log.contains(event), "nothing was hard: no {event}");
        }
        assert_eq!(self.server.violations(), Vec::<String>::new());
        assert!(self.server.state().leased.is_empty());
    }

    fn check_leftovers(&self) {
        assert_eq!(self.world.left(), Vec::<PathBuf>::new(), "of the lives {:?}", self.markers);
        assert_eq!(self.names("rejected"), BTreeSet::new());
        let dir = self.world.dir.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir), "{mounts}");
        assert_eq!(self.markers.len(), self.kills + 1);
        for marker in self.markers.iter().map(String::as_str) {
            assert!(!Path::new("/dev/shm").join(marker).exists(), "{marker}");
            assert!(!mounts.contains(marker), "{mounts}");
        }
        let words: Vec<_> = self.markers.iter().map(String::as_str).chain([dir]).collect();
        assert_eq!(processes_with(&words), Vec::<String>::new());
        let cgroups = folders_below(Path::new("/sys/fs/cgroup"));
        let is_ours = |path: &&PathBuf| self.pids.iter().any(|pid| is_cgroup_of(path, pid));
        assert_eq!(cgroups.iter().filter(is_ours).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
    }

    #[expect(clippy::print_stdout, reason = "a number for whoever wants to see it")]
    fn check_memory(&self) {
        let quarter = self.memory.len() / 4;
        assert!(quarter >= 2, "{:?}", self.memory);
        let largest = |samples: &[u64]| samples.iter().copied().max().unwrap();
        let (second, last) = (largest(&self.memory[quarter..2 * quarter]), largest(&self.memory[3 * quarter..]));
        println!(
            "{} samples of resident memory: {second} KiB in the second quarter, {last} KiB in the last",
            self.memory.len()
        );
        assert!(last <= second + GROWTH_KIB_MAX, "{:?}", self.memory);
    }

    fn state(&self, name: &str) -> PathBuf {
        self.world.path("state/worker-under-test").join(name)
    }

    fn in_hand(&self) -> BTreeSet<String> {
        self.names("in-hand")
    }

    /// Names of finished files; those that are being written begin with a dot.
    fn names(&self, folder: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.state(folder)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    /// The next number of a linear congruential generator (Knuth's MMIX), below `end`.
    fn draw(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % end
    }
}

/// What the worker calls the files of a job.
fn file_name(id: &str) -> String {
    let number: usize = id.rsplit_once('-').unwrap().1.parse().unwrap();
    let digest = Sha256::digest(format!("{id}\0{}", attempt(number)));
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + ".json"
}

fn check_result(number: usize, stored: &Stored) {
    let collection = stored.collection();
    let (build, expected) = (kind(number).expected)(number);
    let text = || format!("{number}: {:#}", stored.first);
    assert_eq!(collection["buildStatus"], build, "{}", text());
    assert_eq!(collection["testSetupID"], kind(number).name, "{}", text());
    let outcomes = collection["outcomes"].as_array().unwrap();
    let found: Vec<_> = outcomes
        .iter()
        .map(|one| (one["status"].as_str(), one["shortResult"].as_str(), one["points"].as_u64()))
        .collect();
    let wanted: Vec<_> =
        expected.iter().map(|(status, short, points)| (Some(*status), Some(short.as_str()), Some(*points))).collect();
    assert_eq!(found, wanted, "{}", text());
    let earned: u64 = expected.iter().filter(|(status, ..)| *status == "pass").map(|(_, _, points)| points).sum();
    assert_eq!(collection["earnedPoints"], earned, "{}", text());
    assert_eq!(collection["warnings"], json!([]), "{}", text());
    assert_eq!(stored.differing, 0, "it was done twice: {}", text());
}

fn poll_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn resident_kib(worker: &Worker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Those that have one of the words in their environment.
fn processes_with(words: &[&str]) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let environments = entries.filter_map(|entry| {
        let environment = fs::read(entry.path().join("environ")).ok()?;
        Some((entry.path(), String::from_utf8_lossy(&environment).into_owned()))
    });
    let has_word = |(_, text): &(PathBuf, String)| words.iter().any(|word| text.contains(word));
    environments.filter(has_word).map(|(path, text)| format!("{}: {text:?}", path.display())).collect()
}

/// `….<process id>.<number>`.
fn is_cgroup_of(path: &Path, pid: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut parts = name.rsplit('.');
    name.starts_with("proving-ground.") && parts.nth(1) == Some(pid)
}

fn folders_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let folders: Vec<_> =
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect();
    let deeper: Vec<_> = folders.iter().flat_map(|folder| folders_below(folder)).collect();
    folders.into_iter().chain(deeper).collect()
}

//! What the worker adds to trivial jobs, beside their scripts started bare, two at a time, and beside the engine alone: differences and
//! ratios, in one run. Then what a worker costs that has nothing to do.
//!
//! `cargo bench --bench worker --features worker [-- JOBS ROUNDS IDLE_SECONDS]`
//!
//! The server is in this process and on the same machine; what it uses of the processors is told, and not taken off.

#![expect(
    clippy::print_stdout,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark, not the product"
)]

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use contest::{Contestant, compare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;
use proving_ground::internals::engine::{Cancel, ScriptRunner, UnsandboxedScriptRunner};
use proving_ground::internals::sandbox::{SandboxLimits, SandboxedScriptRunner};
use proving_ground::internals::script::{Changes, Echo, Environment, Exit, Limits, Script, SignalReach};
use serde_json::json;
use server::{Assigned, Server};

mod contest;
#[path = "../tests/worker/server/mod.rs"]
mod server;

const SECRET: &str = "correct horse battery staple";
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const AT_ONCE: usize = 2;
const SCRIPT: &str = "echo '{\"shortResult\":\"1/1\"}'\n";

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    let jobs = numbers.next().unwrap_or(300);
    let rounds = numbers.next().unwrap_or(5);
    let idle = numbers.next().unwrap_or(60);
    let dir = tempfile::tempdir().unwrap();
    let field = Field {
        dir: dir.path(),
        server: Server::today(Some(SECRET)),
        jobs,
        runs: Cell::new(0),
        costs: [(); 2].map(|()| Cell::default()),
    };
    trivial_jobs(&field, rounds);
    nothing_to_do(&field, Duration::from_secs(u64::try_from(idle).unwrap()));
}

/// What the contestants work with.
struct Field<'a> {
    dir: &'a Path,
    server: Server,
    jobs: usize,
    runs: Cell<usize>,
    /// Of the worker without and with a sandbox.
    costs: [Cell<Cost>; 2],
}

/// Processor time of some runs.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    runs: u32,
    /// The worker and all that it started.
    worker: Duration,
    /// This process, in which the server is.
    server: Duration,
}

fn trivial_jobs(field: &Field<'_>, rounds: usize) {
    let (plain, walled) = (UnsandboxedScriptRunner::new(), field.sandbox());
    let contestant = |name, is_floor, run| Contestant { name, per: field.jobs, is_floor, run };
    let [plain_dir, walled_dir] = ["work", "sandboxed/work"].map(|name| field.work_dir(name));
    let contestants = [
        contestant(
            "bare sh, two at a time",
            true,
            Box::new(|| two_at_a_time(field.jobs, &|| bare(&plain_dir))) as Box<dyn Fn()>,
        ),
        contestant("engine", false, Box::new(|| field.launch(&plain, &plain_dir))),
        contestant("engine, sandbox", false, Box::new(|| field.launch(&walled, &walled_dir))),
        contestant("worker, two slots", false, Box::new(|| field.work(&[], &field.costs[0]))),
        contestant("worker, two slots, sandbox", false, Box::new(|| field.work(&["--sandbox"], &field.costs[1]))),
    ];
    compare(&contestants, rounds);
    for (name, cost) in ["worker", "worker, sandbox"].iter().zip(&field.costs) {
        let Cost { runs, worker, server } = cost.get();
        let ms = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(runs) / field.jobs as f64;
        println!(
            "{name:40} {:6.2} ms of processor time a job, its script's with it; the server {:.2} ms",
            ms(worker),
            ms(server)
        );
    }
}

/// A minute without jobs.
fn nothing_to_do(field: &Field<'_>, time: Duration) {
    let mut worker = field.worker(&[]).spawn().unwrap();
    let polls = |server: &Server| server.state().requests.iter().filter(|seen| seen.path.ends_with("/request")).count();
    let earlier = polls(&field.server);
    while polls(&field.server) == earlier {
        thread::sleep(Duration::from_millis(10));
    }
    // The first poll's answer is on its way.
    thread::sleep(Duration::from_millis(500));
    let (begun, first) = (ticks(&worker), polls(&field.server));
    thread::sleep(time);
    let used = ticks(&worker) - begun;
    println!("idle for {} s: {} polls, {used} ticks of processor time", time.as_secs(), polls(&field.server) - first);
    let told = std::time::Instant::now();
    kill(Pid::from_raw(i32::try_from(worker.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(worker.wait().unwrap().success());
    println!("idle, and told to end: {:.0} ms to the end of its process", told.elapsed().as_secs_f64() * 1e3);
}

/// Source: proc_pid_stat(5): utime and stime are fields 14 and 15.
fn ticks(process: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

impl Field<'_> {
    fn work_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("a.sh"), SCRIPT).unwrap();
        dir
    }

    fn sandbox(&self) -> SandboxedScriptRunner {
        SandboxedScriptRunner::new(&self.dir.join("sandboxed"), &[], SandboxLimits::default()).unwrap()
    }

    fn launch(&self, runner: &(dyn ScriptRunner + Sync), work_dir: &Path) {
        let script = script(work_dir);
        two_at_a_time(self.jobs, &|| {
            assert_eq!(runner.run(&script, &Cancel::new().unwrap()).unwrap().exit, Exit::Code(0));
        });
    }

    fn worker(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chickadee-runner"));
        command.args(["--api-base-url", &self.server.url(), "--worker-id", "bench", "--max-jobs"]);
        command.arg(AT_ONCE.to_string()).args(more);
        command
            .arg("--state-dir")
            .arg(self.dir.join("state"))
            .arg("--test-setup-cache-dir")
            .arg(self.dir.join("cache"));
        command.env_clear().env("PATH", PATH).env("TMPDIR", self.dir).env("RUNNER_SHARED_SECRET", SECRET);
        // What it costs to look for languages is paid once, at the start.
        command.env("RUNNER_CAPABILITY_DISCOVERY_ENABLED", "no");
        command.current_dir(self.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// From the worker's start to its end. The first round fills its cache, and is not counted.
    fn work(&self, more: &[&str], cost: &Cell<Cost>) {
        let run = self.runs.replace(self.runs.get() + 1);
        let earlier = self.server.state().results.len();
        for number in 0..self.jobs {
            self.server.add_job(job(&format!("s-{run}-{number}")));
        }
        let (server, worker) = (processor(UsageWho::RUSAGE_SELF), processor(UsageWho::RUSAGE_CHILDREN));
        let status = self.worker(more).arg("--once").status().unwrap();
        let Cost { runs, worker: worker_before, server: server_before } = cost.get();
        cost.set(Cost {
            runs: runs + 1,
            worker: worker_before + processor(UsageWho::RUSAGE_CHILDREN) - worker,
            server: server_before + processor(UsageWho::RUSAGE_SELF) - server,
        });
        assert!(status.success(), "{status}");
        let state = self.server.state();
        assert_eq!((state.results.len() - earlier, &state.violations), (self.jobs, &Vec::new()));
        let has_passed = |stored: &server::Stored| stored.collection()["outcomes"][0]["shortResult"] == "1/1";
        assert!(state.results.values().all(has_passed));
    }
}

fn two_at_a_time(jobs: usize, once: &(dyn Fn() + Sync)) {
    let begun = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < jobs {
                    once();
                }
            });
        }
    });
}

fn processor(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let time = |value: TimeVal| Duration::from_micros(u64::try_from(value.num_microseconds()).unwrap());
    time(usage.user_time()) + time(usage.system_time())
}

fn bare(dir: &Path) {
    let mut process = Command::new("/bin/sh");
    process.arg("a.sh").current_dir(dir).env_clear().env("PATH", PATH).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(process.status().unwrap().success());
}

fn script(work_dir: &Path) -> Script {
    let limit = Duration::from_secs(60);
    let mut environment = Environment::default();
    environment.set("PATH", PATH);
    Script {
        program: "/bin/sh".into(),
        args: vec!["a.sh".into()],
        cwd: work_dir.to_path_buf(),
        work_dir: work_dir.to_path_buf(),
        changes: Changes::Dropped,
        environment,
        limits: Limits {
            wall: limit,
            grace: limit,
            drain: limit,
            kept_bytes_max: 1 << 20,
            log_bytes_max: 0,
            pids_max: None,
        },
        logs: None,
        signals: SignalReach::OwnProcesses,
        echo: Echo::Off,
        marker: None,
    }
}

fn job(submission_id: &str) -> Assigned {
    Assigned {
        submission_id: submission_id.to_owned(),
        test_setup_id: "setup".to_owned(),
        attempt_number: 1,
        manifest: json!({ "schemaVersion": 1, "testSuites": [{ "script": "a.sh" }] }),
        set_up: zip_of("a.sh", SCRIPT),
        submission: zip_of("answer.txt", submission_id),
        submission_filename: None,
        assignment_seed: None,
    }
}

fn zip_of(name: &str, text: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(text.as_bytes()).unwrap();
    zip.finish().unwrap().into_inner()
}

//! What the engine adds to one trivial script, beside `posix_spawn` + `wait` of the same script; and to a flood of output,
//! beside reading and dropping it: ratios, in one run.
//!
//! `cargo bench --bench engine [-- SCRIPTS ROUNDS]`

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark, not the product"
)]

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use proving_ground::internals::engine::{Cancel, ScriptRunner, UnsandboxedScriptRunner};
use proving_ground::internals::script::{Changes, Echo, Environment, Limits, LogFiles, Script, SignalReach};

const FLOOD_BYTES: u64 = 2_000_000_000;
const FLOOD_ROUNDS: usize = 3;
const LOG_BYTES_MAX: u64 = 64 << 20;

fn main() {
    // First, while the largest resident set is still small.
    flood();
    trivial_scripts();
}

/// Two gigabytes in lines of a kilobyte. Processor time of all processes: ours, the script's, and what reads it.
fn flood() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("yes $(printf %0999d 0) | head -c {FLOOD_BYTES}");
    let runner = UnsandboxedScriptRunner::new();
    let cancel = Cancel::new().unwrap();
    let mut script = script(SignalReach::Machine, dir.path(), vec!["-c".into(), text.clone().into()]);
    script.logs = Some(LogFiles { stdout: dir.path().join("stdout"), stderr: dir.path().join("stderr") });
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..FLOOD_ROUNDS {
        let (own, waited) = (usage(UsageWho::RUSAGE_SELF), usage(UsageWho::RUSAGE_CHILDREN));
        let mut child = Command::new("/bin/sh").args(["-c", &text]).stdout(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        while let Ok(len @ 1..) = pipe.read(&mut buffer) {
            total += len as u64;
        }
        assert!(child.wait().unwrap().success() && total == FLOOD_BYTES);
        times[0].push(usage(UsageWho::RUSAGE_SELF) - own + usage(UsageWho::RUSAGE_CHILDREN) - waited);

        let own = usage(UsageWho::RUSAGE_SELF);
        let completion = runner.run(&script, &cancel).unwrap();
        assert_eq!((completion.stdout.total_bytes, completion.log_error), (FLOOD_BYTES, None));
        times[1].push(usage(UsageWho::RUSAGE_SELF) - own + completion.usage.user + completion.usage.system);
    }
    let [dropped, ours] = times.map(|mut times| median(&mut times).as_secs_f64());
    let disk_mib = std::fs::metadata(dir.path().join("stdout")).unwrap().len() >> 20;
    // Not getrusage's: that also counts what ran in this process before exec.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    println!("{} MB of output, {FLOOD_ROUNDS} rounds, medians of processor time", FLOOD_BYTES / 1_000_000);
    println!("read and dropped                 {dropped:8.3} s           ratio 1.000");
    println!(
        "ours, log of {} MiB at most      {ours:8.3} s           ratio {:.3}",
        LOG_BYTES_MAX >> 20,
        ours / dropped
    );
    println!("log {disk_mib} MiB, our largest resident set {peak}\n");
}

fn usage(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let time = |value: TimeVal| Duration::from_micros(u64::try_from(value.num_microseconds()).unwrap());
    time(usage.user_time()) + time(usage.system_time())
}

fn script(signals: SignalReach, cwd: &Path, args: Vec<OsString>) -> Script {
    Script {
        program: "/bin/sh".into(),
        args,
        work_dir: cwd.into(),
        changes: Changes::Kept,
        cwd: cwd.into(),
        environment: std::env::vars_os().collect::<Environment>(),
        limits: Limits {
            wall: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            kept_bytes_max: 128 << 10,
            log_bytes_max: LOG_BYTES_MAX,
            pids_max: None,
        },
        logs: None,
        signals,
        echo: Echo::Off,
        marker: None,
    }
}

fn trivial_scripts() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    let scripts: u32 = numbers.next().unwrap_or(300);
    let rounds = numbers.next().unwrap_or(15) as usize;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trivial.sh");
    std::fs::write(&path, "#!/bin/sh\n[ 1 = 1 ]\n").unwrap();

    let runner = UnsandboxedScriptRunner::new();
    let cancel = Cancel::new().unwrap();
    let script = |signals| script(signals, dir.path(), vec![path.clone().into()]);
    let (free, confined) = (script(SignalReach::Machine), script(SignalReach::OwnProcesses));
    let bare = |inherit: bool| {
        let mut command = Command::new("/bin/sh");
        command.arg(&path).current_dir(dir.path()).stdin(Stdio::null());
        let ok = if inherit { command.status().unwrap().success() } else { command.output().unwrap().status.success() };
        assert!(ok);
    };
    let ours = |script: &Script| drop(runner.run(script, &cancel).unwrap());
    let contestants: [(&str, &dyn Fn()); 4] = [
        ("posix_spawn + wait", &|| bare(true)),
        ("std::process::Command::output", &|| bare(false)),
        ("ours", &|| ours(&free)),
        ("ours, signals confined", &|| ours(&confined)),
    ];

    let mut samples = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let at = (round + turn) % contestants.len();
            let start = Instant::now();
            for _ in 0..scripts {
                contestants[at].1();
            }
            if round > 0 {
                samples[at].push(start.elapsed() / scripts);
            }
        }
    }
    println!("{scripts} scripts a round, {rounds} rounds, medians");
    let medians: Vec<f64> = samples.iter_mut().map(|times| median(times).as_secs_f64() * 1e6).collect();
    for ((name, _), median_us) in contestants.iter().zip(&medians) {
        println!("{name:32} {median_us:8.1} µs/script   ratio {:.3}", median_us / medians[0]);
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

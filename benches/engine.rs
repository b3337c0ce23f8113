//! What the engine adds to one trivial script, beside `posix_spawn` + `wait` of the same script: ratios, in one run.
//!
//! `cargo bench --bench engine [-- SCRIPTS ROUNDS]`

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark, not the product"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proving_ground::internals::engine::{Cancel, ScriptRunner, UnsandboxedScriptRunner};
use proving_ground::internals::script::{Echo, Environment, Limits, Script, SignalReach};

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    let scripts: u32 = numbers.next().unwrap_or(300);
    let rounds = numbers.next().unwrap_or(15) as usize;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trivial.sh");
    std::fs::write(&path, "#!/bin/sh\n[ 1 = 1 ]\n").unwrap();

    let runner = UnsandboxedScriptRunner::new();
    let cancel = Cancel::new().unwrap();
    let script = |signals| Script {
        program: "/bin/sh".into(),
        args: vec![path.clone().into()],
        cwd: dir.path().into(),
        environment: std::env::vars_os().collect::<Environment>(),
        limits: Limits {
            wall: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            kept_bytes_max: 128 << 10,
            log_bytes_max: 64 << 20,
            pids_max: None,
        },
        logs: None,
        signals,
        echo: Echo::Off,
        marker: None,
    };
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

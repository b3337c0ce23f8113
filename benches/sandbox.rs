//! What the sandbox costs a trivial script, beside the namespaces alone, beside bubblewrap with the same walls, and beside
//! `unshare --user --net --map-root-user`: ratios, in one run.
//!
//! `cargo bench --bench sandbox [-- ROUNDS]`
//!
//! Needs `bwrap` (bubblewrap) and `unshare` (util-linux); whoever is not there is left out, and it is said.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark, not the product"
)]

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use contest::{Contestant, compare};
use proving_ground::internals::engine::{Cancel, ScriptRunner, UnsandboxedScriptRunner};
use proving_ground::internals::sandbox::{SandboxLimits, SandboxedScriptRunner};
use proving_ground::internals::script::{Changes, Echo, Environment, Exit, Limits, Script, SignalReach};

mod contest;

const LAUNCHES: usize = 20;
const PATH: &str = "/usr/bin:/bin";
/// The walls that bubblewrap can build as we do; it has no Landlock and no limits, and no filter unless it is given one.
const BWRAP: &str = "--unshare-all --die-with-parent --new-session --cap-drop ALL --hostname sandbox --ro-bind /usr /usr \
                     --ro-bind /etc /etc --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc \
                     --dev /dev --tmpfs /tmp --tmpfs /var/tmp --tmpfs /dev/shm --chdir /tmp";
const UNSHARE: &str = "--user --net --map-root-user";

fn main() -> ExitCode {
    let rounds = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(15);
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("sandboxed");
    let sandbox = SandboxedScriptRunner::new(&base, &[], SandboxLimits::default()).unwrap();
    let work_dir = base.join("work");
    fs::create_dir(&work_dir).unwrap();
    let script = script(work_dir);
    let engine = UnsandboxedScriptRunner::new();
    let mut contestants = vec![
        contestant("posix_spawn and wait", true, || run(&["/bin/sh"])),
        contestant("engine, no sandbox", false, || launch(&engine, &script)),
        contestant("clone3, the same namespaces", false, bare::namespaces),
        contestant("clone3, the same namespaces", true, bare::namespaces),
        contestant("sandbox, all walls", false, || launch(&sandbox, &script)),
    ];
    for (name, options) in [("bwrap", BWRAP), ("unshare", UNSHARE)] {
        if Command::new(name).arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("{name} is not installed: left out");
            continue;
        }
        let command: Vec<_> = [name].into_iter().chain(options.split_whitespace()).chain(["/bin/sh"]).collect();
        contestants.push(contestant(name, true, move || run(&command)));
        contestants.push(contestant("sandbox, all walls", false, || launch(&sandbox, &script)));
    }
    compare(&contestants, rounds);
    ExitCode::SUCCESS
}

fn contestant<'a>(name: &'a str, is_floor: bool, once: impl Fn() + 'a) -> Contestant<'a> {
    Contestant { name, per: LAUNCHES, is_floor, run: Box::new(move || (0..LAUNCHES).for_each(|_| once())) }
}

fn script(work_dir: PathBuf) -> Script {
    let limit = Duration::from_secs(60);
    let mut environment = Environment::default();
    environment.set("PATH", PATH);
    Script {
        program: "/bin/sh".into(),
        args: ["-c", ":"].map(Into::into).into(),
        cwd: work_dir.clone(),
        work_dir,
        changes: Changes::Dropped,
        environment,
        limits: Limits {
            wall: limit,
            grace: limit,
            drain: limit,
            kept_bytes_max: 1 << 10,
            log_bytes_max: 1 << 10,
            pids_max: None,
        },
        logs: None,
        signals: SignalReach::OwnProcesses,
        echo: Echo::Off,
        marker: None,
    }
}

fn launch(runner: &dyn ScriptRunner, script: &Script) {
    assert_eq!(runner.run(script, &Cancel::new().unwrap()).unwrap().exit, Exit::Code(0));
}

fn run(command: &[&str]) {
    let mut process = Command::new(command[0]);
    process.args(&command[1..]).args(["-c", ":"]).env_clear().env("PATH", PATH).stdin(Stdio::null());
    assert!(process.status().unwrap().success());
}

/// The floor: one system call makes a process in new namespaces, and it executes the shell. Nothing is mounted, dropped or limited.
#[expect(unsafe_code, reason = "no safe wrapper makes a process in namespaces")]
mod bare {
    use super::io;

    pub(super) fn namespaces() {
        let flags = libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        let argv = [c"sh".as_ptr(), c"-c".as_ptr(), c":".as_ptr(), std::ptr::null()];
        let environment = [c"PATH=/usr/bin:/bin".as_ptr(), std::ptr::null()];
        // SAFETY: a fork whose child only executes; the arguments are those of clone3(2) and execve(2).
        unsafe {
            let mut args: libc::clone_args = std::mem::zeroed();
            args.flags = u64::from(flags.cast_unsigned());
            args.exit_signal = 17;
            let pid = libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>());
            if pid == 0 {
                libc::execve(c"/bin/sh".as_ptr(), argv.as_ptr(), environment.as_ptr());
                libc::_exit(127);
            }
            let pid = libc::pid_t::try_from(pid).unwrap();
            assert!(pid > 0, "{}", io::Error::last_os_error());
            let mut status = 0;
            libc::waitpid(pid, &raw mut status, 0);
            assert_eq!(status, 0);
        }
    }
}

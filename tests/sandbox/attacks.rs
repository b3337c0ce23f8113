//! Attacks on the runner itself, and sandboxes that cannot be had.

#![expect(unsafe_code, reason = "a helper takes system calls away from itself")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "helpers are told what to do in the environment, and say what came of it"
)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use proving_ground::internals::engine::{EngineError, ScriptRunner};
use proving_ground::internals::sandbox::{SandboxLimits, SandboxedScriptRunner};
use proving_ground::internals::script::{Changes, EndedBy, Exit, Script};

use crate::cell::{Cell, hurried, sandboxed};
use crate::inside::{Claim, DIR, HELPER, Lab, alive_with, until};

pub(crate) fn claims() -> Vec<Claim> {
    let claims = [
        sandboxed(limits_of_the_first_process_stay),
        sandboxed(the_first_process_keeps_its_turn),
        sandboxed(signals_to_the_first_process_do_nothing),
        sandboxed(a_script_that_fills_its_own_pipe_is_ended),
        sandboxed(the_output_is_read_by_nobody_else),
        sandboxed(the_end_of_a_script_waits_for_nobody),
        sandboxed(long_names_and_many_arguments_do_no_harm),
        sandboxed(a_work_folder_elsewhere_is_refused),
        sandboxed(a_killed_supervisor_harms_only_its_script),
        sandboxed(a12_what_a_killed_runner_had_started_dies_with_it),
        sandboxed(d76_a_wall_that_cannot_be_had_is_an_error),
    ];
    claims.into_iter().flatten().collect()
}

/// The same user's processes may lower each other's limits (prlimit(2)): without descriptors the first process would be deaf.
fn limits_of_the_first_process_stay(cell: &Cell) {
    let text = "import os, resource\n\
        for limit in range(16):\n \
         try: resource.prlimit(1, limit, (0, 0)); print('lowered', limit)\n \
         except PermissionError: pass\n\
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\nprint(resource.prlimit(0, resource.RLIMIT_NOFILE))";
    assert_eq!(cell.run_well(&cell.python(text)), "(100, 100)\n");
}

fn the_first_process_keeps_its_turn(cell: &Cell) {
    let text = "import os, signal\n\
        cpu = min(os.sched_getaffinity(0))\n\
        for attempt in (lambda: os.setpriority(os.PRIO_PROCESS, 1, 19), lambda: os.sched_setaffinity(1, {cpu}), lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))):\n \
         try: attempt(); print('done', flush=True)\n \
         except PermissionError: pass\n\
        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        for _ in range(40):\n if os.fork() == 0:\n  os.setsid()\n  break\nwhile True: pass";
    let completion = cell.run(&hurried(cell.python(text)));
    assert_eq!((completion.ended_by, crate::inside::text(&completion.stdout).as_str()), (EndedBy::Timeout, ""));
    cell.assert_goes_on();
}

fn signals_to_the_first_process_do_nothing(cell: &Cell) {
    let text = "for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done; kill -CONT 1; sleep 0.1; echo there";
    assert_eq!(cell.says(text), "there");
}

fn a_script_that_fills_its_own_pipe_is_ended(cell: &Cell) {
    let text = "import fcntl, os\nfor fd in (1, 2):\n fcntl.fcntl(fd, 1031, 1 << 20)\n fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)\n\
        while True:\n for fd in (1, 2):\n  try: os.write(fd, b'x' * 65536)\n  except BlockingIOError: pass";
    let completion = cell.run(&hurried(cell.python(text)));
    assert_eq!(completion.ended_by, EndedBy::Timeout);
    assert!(completion.stdout.kept_bytes().len() <= 64 << 10);
}

/// It takes from the pipe what we were told is there.
fn the_output_is_read_by_nobody_else(cell: &Cell) {
    let text = "cat /proc/self/fd/1 >/dev/null & yes A | head -c 2000000; sleep 1000";
    assert_eq!(cell.run(&hurried(cell.sh(text))).ended_by, EndedBy::Timeout);
    cell.assert_goes_on();
}

fn the_end_of_a_script_waits_for_nobody(cell: &Cell) {
    // Stopped, traced, in sessions, holding the output: all of it is there at the moment of the end.
    let text = "import os, signal, time\nfor number in range(60):\n if os.fork() == 0:\n  if number % 2: os.setsid()\n  \
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\n  if number % 3 == 0: os.kill(os.getpid(), signal.SIGSTOP)\n  \
        while True: time.sleep(1000)\nprint('over', flush=True)\nos._exit(0)";
    let mut script = cell.python(text);
    script.limits.wall = std::time::Duration::from_secs(1000);
    let completion = cell.run(&script);
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself));
    assert_eq!(completion.leaked.len(), 60);
    assert_eq!(crate::inside::text(&completion.stdout), "over\n");
}

fn long_names_and_many_arguments_do_no_harm(cell: &Cell) {
    let mut folder = cell.work_dir.clone();
    for _ in 0..14 {
        folder.push("x".repeat(250));
        cell.furnish(&folder);
    }
    let mut script = cell.sh("pwd | wc -c; touch here && ls");
    script.cwd.clone_from(&folder);
    let said = cell.run_well(&script);
    assert_eq!(said, format!("{}\nhere\n", folder.as_os_str().len() + 1));
    script.args = ["-c", "echo $#", "x"].map(Into::into).into_iter().chain((0..10_000).map(|_| "y".into())).collect();
    assert_eq!(cell.run_well(&script), "10000\n");
    script.work_dir = cell.base.join("x".repeat(5000));
    script.cwd.clone_from(&script.work_dir);
    assert!(cell.try_run(&script).is_err());
    cell.assert_goes_on();
}

fn a_work_folder_elsewhere_is_refused(cell: &Cell) {
    let outside = cell.lab.path("outside");
    fs::create_dir(&outside).unwrap();
    let linked = cell.base.join("linked");
    std::os::unix::fs::symlink(&outside, &linked).unwrap();
    let folders = [
        outside.clone(),
        cell.base.join("../outside"),
        cell.base.join("missing"),
        PathBuf::from("/"),
        linked,
        cell.base.join("work/../../outside"),
    ];
    for folder in folders {
        let mut script = cell.program_in(&folder, "/bin/sh", &["-c", "touch ran"]);
        for changes in [Changes::Dropped, Changes::Kept] {
            script.changes = changes;
            let result = cell.runner.run(&script, &super::cancel());
            assert!(result.is_err(), "{}: {result:?}", folder.display());
        }
        assert!(!outside.join("ran").exists());
    }
    cell.assert_goes_on();
}

/// Ids of the processes called `name` that execute this program, us not among them.
fn helpers_of_this_process(name: &str) -> Vec<i32> {
    let own = std::env::current_exe().unwrap();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let is_ours = fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == own);
        let is_called_so = fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        (is_ours && is_called_so && pid.cast_unsigned() != std::process::id()).then_some(pid)
    });
    pids.collect()
}

fn a_killed_supervisor_harms_only_its_script(cell: &Cell) {
    if !nix::unistd::geteuid().is_root() {
        // What an ordinary user's helpers execute is not shown to him: they are not dumpable. Root stands in for the operator.
        return;
    }
    let all = ["pg-keeper", "pg-supervisor", "pg-init"];
    // Whoever goes first takes others along, or not.
    let orders: [&[&str]; 5] =
        [&all, &["pg-init", "pg-supervisor", "pg-keeper"], &["pg-init"], &["pg-supervisor"], &all];
    for order in orders {
        let mut killed = Vec::new();
        let completion = std::thread::scope(|scope| {
            let run =
                scope.spawn(|| cell.runner.run(&cell.sh("sleep 1000 & setsid sleep 1000"), &super::cancel()).unwrap());
            until("the script runs", || alive_with(&cell.lab.marker).len() >= 2);
            for name in order {
                let pids = helpers_of_this_process(name);
                assert!(!pids.is_empty() || *name != order[0], "no {name}");
                for pid in pids {
                    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
                    killed.push(pid);
                }
            }
            run.join().unwrap()
        });
        // Else it may be the next script that loses them.
        until("they are dead", || !all.into_iter().flat_map(helpers_of_this_process).any(|pid| killed.contains(&pid)));
        let fate = (completion.exit, completion.ended_by);
        assert_eq!(fate, (Exit::Signal(libc::SIGKILL), EndedBy::SupervisorKilled), "{order:?}");
        assert_eq!(alive_with(&cell.lab.marker), Vec::<String>::new());
        cell.assert_goes_on();
    }
}

/// Runs the helper that the environment names, if it names one.
pub(crate) fn run_if_asked() -> bool {
    let Ok(name) = std::env::var(HELPER) else { return false };
    let lab = Lab::in_dir(PathBuf::from(std::env::var_os(DIR).unwrap()));
    match name.split_once('=') {
        Some(("refused", call)) => refused(&lab, call.parse().unwrap()),
        Some(("kills", word)) => victim(&lab, word),
        other => panic!("no helper `{other:?}`"),
    }
    true
}

fn start_again(cell: &Cell, helper: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(HELPER, helper).env(DIR, &cell.lab.dir).stdin(Stdio::null());
    command
}

/// A sandbox of its own, and a script that says that it runs.
fn of_its_own(lab: &Lab, base: &str) -> (SandboxedScriptRunner, Script) {
    let base = lab.path(base);
    let runner = SandboxedScriptRunner::new(&base, &[], SandboxLimits::default()).unwrap();
    let work_dir = base.join("work");
    fs::create_dir_all(&work_dir).unwrap();
    if let Some((uid, gid)) = runner.owner_of_work() {
        std::os::unix::fs::chown(&work_dir, Some(uid), Some(gid)).unwrap();
    }
    let mut script = lab.sh("echo it runs");
    script.cwd.clone_from(&work_dir);
    script.work_dir = work_dir;
    script.changes = Changes::Dropped;
    (runner, script)
}

/// A runner that is going to be killed while its script runs.
fn victim(lab: &Lab, word: &str) {
    let (runner, mut script) = of_its_own(lab, word);
    let bomb =
        "exec python3 -c 'import os\nwhile True:\n try:\n  if os.fork() == 0: os.setsid()\n except OSError: pass'";
    let sleepers = "setsid sleep 1000 & sleep 1000 & (setsid sh -c 'sleep 1000' &); sleep 1000";
    script.args[1] = if word.ends_with("bomb") { bomb.into() } else { sleepers.into() };
    runner.run(&script, &super::cancel()).unwrap();
}

fn a12_what_a_killed_runner_had_started_dies_with_it(cell: &Cell) {
    let before = crate::inside::children();
    for name in ["first", "second", "bomb"] {
        let mut victim = start_again(cell, &format!("kills={name}")).spawn().unwrap();
        until("the victim's script runs", || alive_with(&cell.lab.marker).len() >= 4);
        victim.kill().unwrap();
        assert_eq!(victim.wait().unwrap().signal(), Some(libc::SIGKILL));
        until("its processes are dead", || alive_with(&cell.lab.marker).is_empty());
    }
    assert_eq!(crate::inside::children(), before);
    let swept = proving_ground::internals::engine::sweep_traces(&cell.lab.marker);
    assert!(swept.processes.is_empty(), "{swept:?}");
}

/// Lets the kernel refuse one system call from now on, and says what comes of a sandboxed script.
fn refused(lab: &Lab, call: u32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let (runner, script) = of_its_own(lab, &format!("refused.{call}"));
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives until the calls return.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
    for _ in 0..2 {
        match runner.run(&script, &super::cancel()) {
            Err(error @ EngineError::Wall { .. }) => println!("wall: {error}"),
            other => println!("{other:?}"),
        }
    }
}

/// What a container engine's filter may refuse: each is an error that names the wall, and the script did not run.
fn d76_a_wall_that_cannot_be_had_is_an_error(cell: &Cell) {
    let calls = [
        libc::SYS_unshare,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_mount_setattr,
        libc::SYS_sethostname,
        libc::SYS_capset,
        libc::SYS_seccomp,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_landlock_restrict_self,
        libc::SYS_landlock_add_rule,
    ];
    for call in calls {
        let output = start_again(cell, &format!("refused={call}")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = said.lines().collect();
        assert!(output.status.success() && lines.len() == 2, "{call}: {output:?}");
        for line in lines {
            assert!(line.starts_with("wall: the sandbox cannot be had: ") && line.contains("; "), "{call}: {line}");
        }
    }
}

//! Programs for scripts to be, where a shell cannot do it: this binary, executed again.

#![expect(unsafe_code, reason = "forks and clones that no safe wrapper offers")]
#![expect(clippy::disallowed_methods, reason = "the script passes a name in the environment")]
#![expect(clippy::print_stdout, reason = "scripts print")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::ptr;
use std::time::Duration;

use proving_ground::internals::engine::{Cancel, ScriptRunner};

use crate::inside::{DIR, HELPER, Lab};

/// Runs the helper that the environment names, if it names one.
pub(crate) fn run_if_asked() -> bool {
    let Ok(name) = std::env::var(HELPER) else {
        return false;
    };
    match name.as_str() {
        "daemon" => daemon(),
        "child_of_parent" => child_with(libc::CLONE_PARENT | libc::SIGCHLD),
        "silent_child" => child_with(0),
        "subreaper" => subreaper(),
        "setsid_bomb" => setsid_bomb(),
        "thousand_orphans" => thousand_orphans(),
        "burn_in_child" => burn_in_child(),
        "kill_own_child" => kill_own_child(),
        "pattern" => pattern(),
        "split_utf8" => split_utf8(),
        "victim" => victim(),
        "trace" => trace(),
        other => panic!("no helper `{other}`"),
    }
    true
}

fn fork() -> i32 {
    // SAFETY: helpers have one thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    pid
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn exit_now(code: i32) -> ! {
    // SAFETY: ends this process.
    unsafe { libc::_exit(code) }
}

/// Double fork, setsid, closed descriptors.
fn daemon() {
    if fork() > 0 {
        return;
    }
    // SAFETY: our own session and descriptors.
    unsafe { libc::setsid() };
    if fork() > 0 {
        exit_now(0);
    }
    for fd in 0..3 {
        // SAFETY: as above; nothing uses them after that.
        unsafe { libc::close(fd) };
    }
    sleep_for_ever();
}

/// A child that is not ours (CLONE_PARENT), or whose end is not signalled (only `__WALL` waits for it).
fn child_with(flags: i32) {
    // SAFETY: a fork with other flags; every architecture takes the flags first and nulls after it.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: our own session.
        unsafe { libc::setsid() };
        sleep_for_ever();
    }
}

/// Gathers orphans of its own, and stays.
fn subreaper() {
    if fork() > 0 {
        return;
    }
    // SAFETY: our own session and attribute.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    }
    if fork() == 0 {
        daemon();
        exit_now(0);
    }
    sleep_for_ever();
}

/// Forks as fast as it can, each in a session of its own; without end.
fn setsid_bomb() {
    println!("armed");
    if fork() > 0 {
        if std::env::var_os("STAYS").is_some() {
            sleep_for_ever();
        }
        return;
    }
    loop {
        // SAFETY: one thread; a failure is what the limit is for.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: our own session.
            unsafe { libc::setsid() };
        }
    }
}

/// A thousand orphans that end at once; waits until their new parent has reaped them.
fn thousand_orphans() {
    for _ in 0..1000 {
        let child = fork();
        if child == 0 {
            if fork() == 0 {
                exit_now(0);
            }
            exit_now(0);
        }
        // SAFETY: our own child.
        unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
    }
    let parent = std::os::unix::process::parent_id();
    let list = format!("/proc/{parent}/task/{parent}/children");
    crate::inside::until("orphans are reaped", || {
        fs::read_to_string(&list).unwrap().trim() == std::process::id().to_string()
    });
    println!("reaped");
}

/// Lets a child use 300 ms of processor time, and waits for it.
fn burn_in_child() {
    let child = fork();
    if child == 0 {
        while used_ms() < 300 {}
        exit_now(0);
    }
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
}

/// Processor time of this process in milliseconds.
fn used_ms() -> i64 {
    // SAFETY: fills a structure of ours.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time);
        time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }
}

/// Kills a child, sees that it is dead, and leaves the body to whoever comes.
fn kill_own_child() {
    let child = fork();
    if child == 0 {
        sleep_for_ever();
    }
    // SAFETY: our own child; `info` is only written to.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, child.cast_unsigned(), &raw mut info, libc::WEXITED | libc::WNOWAIT);
    }
}

/// Writes `SIZE` bytes of a pattern to both streams.
fn pattern() {
    let size: usize = std::env::var("SIZE").unwrap().parse().unwrap();
    let bytes = pattern_bytes(size);
    std::io::stdout().write_all(&bytes).unwrap();
    std::io::stdout().flush().unwrap();
    std::io::stderr().write_all(&bytes).unwrap();
}

pub(crate) fn pattern_bytes(size: usize) -> Vec<u8> {
    // A prime number of different bytes: no two pages are alike.
    (0..size).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect()
}

/// Writes one character in two writes, and waits in between until the first is read.
fn split_utf8() {
    let mut stdout = std::io::stdout();
    for byte in "€".bytes() {
        stdout.write_all(&[byte]).unwrap();
        stdout.flush().unwrap();
        crate::inside::until("the byte is read", || {
            let mut unread = 0;
            // SAFETY: writes one integer.
            unsafe { libc::ioctl(1, libc::FIONREAD, &raw mut unread) };
            unread == 0
        });
    }
}

/// A runner that is going to be killed while its script runs.
fn victim() {
    let lab = Lab::in_dir(PathBuf::from(std::env::var_os(DIR).unwrap()));
    let script = lab.sh("setsid sleep 1000 & sleep 1000 & (setsid sh -c 'touch running; sleep 1000' &); sleep 1000");
    lab.runner.run(&script, &Cancel::new().unwrap()).unwrap();
}

/// What a run can leave behind that has lost all who watched over it.
fn trace() {
    if fork() == 0 {
        // SAFETY: our own session.
        unsafe { libc::setsid() };
        fs::write(PathBuf::from(std::env::var_os(DIR).unwrap()).join("running"), "").unwrap();
        sleep_for_ever();
    }
    sleep_for_ever();
}

/// Starts this binary again, as a helper that no engine watches over.
pub(crate) fn start_again(helper: &str) -> std::process::Child {
    let lab = Lab::of_this_process().unwrap().0;
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.env(HELPER, helper);
    if helper == "trace" {
        command.env(crate::inside::RUN, &lab.marker);
    }
    command.spawn().unwrap()
}

/// Leaves this process with a blocked and an ignored signal, and with a descriptor that children inherit.
pub(crate) fn spoil_this_process() {
    // SAFETY: changes of our own process; the set is on our stack.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGUSR2);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        libc::signal(libc::SIGUSR1, libc::SIG_IGN);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        assert!(libc::dup2(2, 77) == 77);
    }
}

/// A pipe whose ends children inherit: what a harness gets from cargo.
pub(crate) fn inheritable_pipe() -> [i32; 2] {
    let mut ends = [0; 2];
    // SAFETY: writes two integers.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    ends
}

/// Tells whether the other side of this pipe is closed, within a minute.
pub(crate) fn is_closed(read_end: i32) -> bool {
    let mut event = libc::pollfd { fd: read_end, events: 0, revents: 0 };
    // SAFETY: one event on our stack.
    unsafe { libc::poll(&raw mut event, 1, 60_000) == 1 }
}

pub(crate) fn close(fd: i32) {
    // SAFETY: the caller's own descriptor.
    unsafe { libc::close(fd) };
}

/// Sends a signal to another process, as an operator does.
pub(crate) fn signal(pid: i32, number: i32) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

/// Lets the kernel refuse clone3, close_range and pidfd_open from now on, as old container engines do.
pub(crate) fn refuse_new_system_calls(errno: i32) {
    // The numbers are the same on every architecture. BPF: load the number; three comparisons; allow; refuse.
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 3, 0, 434),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 2, 0, 435),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, 436),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
    ];
    let program = libc::sock_fprog { len: 6, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives until the call returns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

pub(crate) fn unmount(path: &std::ffi::CStr) {
    // SAFETY: the path lives until the call returns.
    assert_eq!(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }, 0);
}

pub(crate) fn mount_tmpfs(path: &std::path::Path, options: &str) {
    use std::os::unix::ffi::OsStrExt;
    let text = |bytes: &[u8]| std::ffi::CString::new(bytes).unwrap();
    let (path, options) = (text(path.as_os_str().as_bytes()), text(options.as_bytes()));
    // SAFETY: all texts live until the call returns.
    let mounted =
        unsafe { libc::mount(c"none".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
}

/// The largest resident set that this process has had.
pub(crate) fn peak_memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

//! The crate's only unsafe code: the supervisor, and the system calls that no safe wrapper offers.
//!
//! A supervisor is two small processes, forked once and used for many scripts, one after another (see the engine's theory of
//! operation in `mod.rs`). Both are forks of a process that may have threads, so between fork and exit they call
//! async-signal-safe functions only: no allocation, no locks, no panics, no standard library I/O (signal-safety(7)).

pub(in crate::os) mod walls;

use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_long, c_void};
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::model::script::SignalReach;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;

/// Most processes that are reported as leaked.
pub(super) const LEAKS_MAX: usize = 64;
/// Bytes for one request's strings and pointers; execve(2) itself takes 2 MiB at most with the usual stack limit.
const ARENA_BYTES: usize = 8 << 20;
const CHILD_STACK_BYTES: usize = 64 << 10;
/// linux/sched.h; the `libc` crate's own constant overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Rounds of killing after which the harness is told that this takes longer.
const PATIENT_ROUNDS: u32 = 4;
/// Looks, a millisecond apart, for a supervisor that was just started.
const PID_LOOKS_MAX: usize = 5_000;
/// How long the keeper and the supervisor of an idle slot are waited for.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for the keeper's death, which follows the supervisor's by a tenth of a millisecond.
const STOP_LOOK: Duration = Duration::from_micros(100);

/// Words of the protocol, one byte each.
pub(super) mod word {
    /// To the supervisor, with two descriptors: start what the exchange describes.
    pub(crate) const RUN: u8 = b'R';
    /// To the supervisor of a sandbox: what bounds it does so now, begin to fork.
    pub(crate) const BEGIN: u8 = b'B';
    /// To the supervisor: SIGTERM to the script's process group.
    pub(crate) const TERMINATE: u8 = b'T';
    /// To the supervisor: SIGKILL to the script's process group.
    pub(crate) const KILL: u8 = b'K';
    /// From the supervisor: the script's first process has ended, but what it left behind takes its time to die.
    pub(crate) const SWEEPING: u8 = b'S';
    /// From the supervisor: the run is over, nothing of it is alive.
    pub(crate) const ENDED: u8 = b'E';
    /// From the supervisor: the script could not be started.
    pub(crate) const NOT_STARTED: u8 = b'F';
    /// From the init of a sandbox, with one descriptor: the work folder, as the script has it.
    pub(crate) const WORK_DIR: u8 = b'W';
}

/// A step between clone and exec that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Step {
    Clone = 1,
    Session,
    Streams,
    Chdir,
    Limit,
    Exec,
    // What follows are walls of the sandbox.
    UserNamespace,
    IdMap,
    User,
    Stage,
    Show,
    WorkDir,
    Private,
    Proc,
    Namespaces,
    Root,
    Network,
    Landlock,
    Rights,
    Seccomp,
}

/// Each with what a user is told that failed.
const STEPS: [(Step, &str); 20] = [
    (Step::Clone, "clone"),
    (Step::Session, "setsid"),
    (Step::Streams, "dup2"),
    (Step::Chdir, "chdir"),
    (Step::Limit, "setrlimit"),
    (Step::Exec, "exec"),
    (Step::UserNamespace, "a user namespace"),
    (Step::IdMap, "its user's number"),
    (Step::User, "becoming its user"),
    (Step::Stage, "a root of its own"),
    (Step::Show, "showing the machine's folders, read-only"),
    (Step::WorkDir, "the work folder"),
    (Step::Private, "private folders"),
    (Step::Proc, "a /proc of its own"),
    (Step::Namespaces, "namespaces"),
    (Step::Root, "changing the root"),
    (Step::Network, "a network of its own"),
    (Step::Landlock, "Landlock"),
    (Step::Rights, "giving up rights"),
    (Step::Seccomp, "seccomp"),
];

impl Step {
    /// What a user is told that failed.
    pub(super) fn as_str(self) -> &'static str {
        STEPS.into_iter().find(|(step, _)| *step == self).map_or("?", |(_, text)| text)
    }

    /// Tells whether it is a wall of the sandbox.
    pub(super) fn is_wall(self) -> bool {
        self as i32 >= Self::UserNamespace as i32
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawLeak {
    pid: c_int,
    comm: [u8; 16],
}

/// What both sides read and write, in memory that they share. Never at the same time: the socket hands it over.
#[repr(C)]
struct Exchange {
    program: *const c_char,
    cwd: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    processes_max: u64,
    room: walls::Room,
    lingers: bool,
    supervisor_pid: c_int,
    /// Why there is no supervisor; the keeper, or what was to be one, writes this once.
    stillborn_errno: c_int,
    taken: bool,
    failed_step: c_int,
    failed_errno: c_int,
    ended: bool,
    /// How many scripts of a sandbox their own init has answered for; only it writes this.
    answers: u64,
    /// How many they have taken; likewise.
    takes: u64,
    started: u64,
    written: u64,
    status: c_int,
    usage: libc::rusage,
    leak_count: usize,
    leaks: [RawLeak; LEAKS_MAX],
}

/// One script, ready for execve(2).
pub(super) struct Request<'a> {
    pub(super) program: &'a CStr,
    pub(super) cwd: &'a CStr,
    /// The program's name first.
    pub(super) argv: &'a [&'a CStr],
    /// `NAME=value`.
    pub(super) envp: &'a [&'a CStr],
    /// RLIMIT_NPROC, `u64::MAX` to leave it.
    pub(super) processes_max: u64,
    /// In the sandbox.
    pub(super) room: Option<RoomRequest>,
    /// Whether the supervisor looks out for the next script for a moment after this one, instead of sleeping at once.
    pub(super) lingers: bool,
}

/// What a script has in the sandbox: as in `walls::Room`.
pub(super) struct RoomRequest {
    pub(super) lower: CString,
    pub(super) target: CString,
    pub(super) folders: Vec<CString>,
    pub(super) is_kept: bool,
    pub(super) open_files_max: u64,
    pub(super) file_bytes_max: u64,
    pub(super) address_bytes_max: u64,
}

/// What the supervisor found when the script's first process had ended.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// As wait(2) gives it.
    pub(super) status: c_int,
    pub(super) user_us: i64,
    pub(super) system_us: i64,
    pub(super) max_rss_kib: i64,
    /// Processes and threads that were started, where they are counted: in the sandbox.
    pub(super) started: u64,
    /// Bytes that lay in its folders when all had ended, where they are counted: in the sandbox.
    pub(super) written: u64,
    /// Process ids and the kernel's names for them.
    pub(super) leaks: Vec<(i32, String)>,
}

/// Why a script was not started.
#[derive(Debug, Clone, Copy)]
pub(super) struct StartFailure {
    pub(super) step: Step,
    pub(super) errno: i32,
}

/// The two processes, the socket to the second, the memory shared with it.
pub(super) struct Supervisor {
    exchange: NonNull<Exchange>,
    socket: OwnedFd,
    keeper_pid: c_int,
    /// Until when the end of both is waited for; `None` for an idle supervisor's `STOP_PATIENCE`.
    stop_until: Option<Instant>,
}

// SAFETY: the pointer leads to memory that this value alone owns on our side; the other side is another process.
unsafe impl Send for Supervisor {}

impl Supervisor {
    /// Forks the keeper and the supervisor; the supervisor and all it will start are members of `cgroup`, if there is one, and
    /// of one signal domain, if `signals` asks for it and the kernel knows it, or behind `walls`.
    ///
    /// # Errors
    /// If no process, descriptor or memory is left.
    pub(super) fn start(
        cgroup: Option<BorrowedFd<'_>>,
        signals: SignalReach,
        walls: Option<&walls::Plan>,
    ) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let exchange = map_exchange()?;
        let parts = Parts {
            exchange: exchange.as_ptr(),
            socket: theirs.as_raw_fd(),
            cgroup: cgroup.map_or(-1, |fd| fd.as_raw_fd()),
            signals,
            walls,
            own_strings: own_strings(),
        };
        // SAFETY: a fork; the child runs `keeper`, which keeps to the rules of this file and never returns.
        let keeper_pid = unsafe {
            let pid = fork_into(-1);
            if pid == 0 {
                keeper(&parts);
            }
            pid
        };
        if keeper_pid < 0 {
            let error = io::Error::last_os_error();
            unmap_exchange(exchange);
            return Err(error);
        }
        Ok(Self { exchange, socket: ours, keeper_pid, stop_until: None })
    }

    /// The socket to the supervisor: one byte is one word; its end means that the supervisor is dead.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Process id of the supervisor, if it is alive. Waits for it to be there, some milliseconds after its start at most.
    pub(super) fn pid(&self) -> Option<i32> {
        for _ in 0..PID_LOOKS_MAX {
            // SAFETY: the exchange is mapped as long as `self` lives; the supervisor writes this field once.
            let pid = unsafe { (&raw const (*self.exchange.as_ptr()).supervisor_pid).read_volatile() };
            let is_alive = !self.is_gone_within(Duration::ZERO);
            if pid != 0 || !is_alive {
                return is_alive.then_some(pid);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// Tells whether the keeper is still there: without it, a script that kills the supervisor would leave orphans.
    pub(super) fn has_keeper(&self) -> bool {
        // SAFETY: `info` is filled before it is read; WNOWAIT leaves the keeper to be reaped by `drop`.
        unsafe {
            let mut info: libc::siginfo_t = zeroed();
            let peek = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
            libc::waitid(libc::P_PID, self.keeper_pid.cast_unsigned(), &raw mut info, peek) == 0 && info.si_pid() == 0
        }
    }

    /// Lets the supervisor of a sandbox begin: in the cgroups that it is in by now.
    pub(super) fn begin(&self) {
        // SAFETY: our own socket; should nobody be there, the first script learns it.
        unsafe { tell(self.socket.as_raw_fd(), word::BEGIN) };
    }

    /// Tells both processes to end.
    pub(super) fn dismiss(&self) {
        // SAFETY: our own socket. Only our direction of it: the end of the other is the supervisor's death.
        unsafe { libc::shutdown(self.socket.as_raw_fd(), libc::SHUT_WR) };
        self.wake_keeper();
    }

    /// Continues the keeper, should a script have stopped it; the keeper continues the supervisor.
    pub(super) fn wake_keeper(&self) {
        // SAFETY: our own child, which only `drop` reaps.
        unsafe { libc::kill(self.keeper_pid, libc::SIGCONT) };
    }

    /// Stops the keeper, and then the supervisor: while they kill one by one, what they kill forks.
    pub(super) fn freeze(&self) {
        // SAFETY: our own child, which only `drop` reaps.
        unsafe { libc::kill(self.keeper_pid, libc::SIGSTOP) };
        self.signal(libc::SIGSTOP);
    }

    /// Continues both, whoever has stopped them.
    pub(super) fn thaw(&self) {
        self.signal(libc::SIGCONT);
        self.wake_keeper();
    }

    fn signal(&self, number: c_int) {
        if let Some(pid) = self.pid() {
            // SAFETY: no memory is involved; it was alive a moment ago.
            unsafe { libc::kill(pid, number) };
        }
    }

    /// Bounds the time that `drop` takes.
    pub(super) fn stop_until(&mut self, until: Instant) {
        self.stop_until = Some(until);
    }

    /// Waits for the supervisor's death.
    fn is_gone_within(&self, patience: Duration) -> bool {
        // Without events, poll(2) tells of the other side's end only.
        poll_one(&self.socket, 0, patience)
    }

    /// Returns why a supervisor that is dead never was one.
    pub(super) fn stillborn_errno(&self) -> Option<i32> {
        // SAFETY: the supervisor is dead, and its keeper wrote before it closed the socket.
        let errno = unsafe { (&raw const (*self.exchange.as_ptr()).stillborn_errno).read_volatile() };
        (errno != 0).then_some(errno)
    }

    /// Tells whether a supervisor that is dead had taken the request.
    pub(super) fn has_taken_request(&self) -> bool {
        // SAFETY: the supervisor is dead.
        unsafe { (*self.exchange.as_ptr()).taken }
    }

    /// Writes a request into the exchange. Call it only while no script runs.
    ///
    /// Returns `None` if the request is larger than the exchange.
    pub(super) fn prepare(&mut self, request: &Request<'_>) -> Option<()> {
        let mut arena = Arena::after(self.exchange);
        let program = arena.text(request.program)?;
        let cwd = arena.text(request.cwd)?;
        let argv = arena.texts(request.argv)?;
        let envp = arena.texts(request.envp)?;
        let room = request.room.as_ref().map(|room| arena.room(room));
        // SAFETY: the exchange is mapped, and the supervisor waits for a word before it looks at it.
        unsafe {
            let exchange = &mut *self.exchange.as_ptr();
            exchange.program = program;
            exchange.cwd = cwd;
            exchange.argv = argv;
            exchange.envp = envp;
            exchange.processes_max = request.processes_max;
            if let Some(room) = room {
                exchange.room = room?;
            }
            exchange.lingers = request.lingers;
            exchange.taken = false;
            exchange.failed_step = 0;
            exchange.ended = false;
            exchange.started = 0;
            exchange.written = 0;
            exchange.leak_count = 0;
        }
        Some(())
    }

    /// Returns what the supervisor found, if the script's first process has ended. Call it after `ENDED` or after its death.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        // SAFETY: the supervisor has handed the exchange over, or is dead.
        let exchange = unsafe { &*self.exchange.as_ptr() };
        let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
        exchange.ended.then(|| Outcome {
            status: exchange.status,
            user_us: micros(exchange.usage.ru_utime),
            system_us: micros(exchange.usage.ru_stime),
            max_rss_kib: exchange.usage.ru_maxrss,
            started: exchange.started,
            written: exchange.written,
            leaks: exchange.leaks[..exchange.leak_count.min(LEAKS_MAX)].iter().map(RawLeak::decode).collect(),
        })
    }

    /// Returns which step failed. Call it after `NOT_STARTED`.
    pub(super) fn start_failure(&self) -> StartFailure {
        // SAFETY: the supervisor has handed the exchange over.
        let exchange = unsafe { &*self.exchange.as_ptr() };
        let step = STEPS.into_iter().find(|(step, _)| *step as c_int == exchange.failed_step);
        let step = step.map_or(Step::Exec, |(step, _)| step);
        StartFailure { step, errno: exchange.failed_errno }
    }
}

impl Drop for Supervisor {
    /// Ends both processes, and with them whatever is left of a script. Waits until they are gone, but not for ever: a
    /// process in an uninterruptible sleep outlives everyone's patience.
    fn drop(&mut self) {
        let until = self.stop_until.unwrap_or_else(|| Instant::now() + STOP_PATIENCE);
        self.dismiss();
        let is_gone = self.is_gone_within(until.saturating_duration_since(Instant::now()));
        let keeper = open_pidfd(self.keeper_pid);
        // SAFETY: our own child, which only we reap.
        while unsafe { libc::waitpid(self.keeper_pid, ptr::null_mut(), libc::__WALL | libc::WNOHANG) } == 0
            && is_gone
            && Instant::now() < until
        {
            match &keeper {
                Some(keeper) => poll_one(keeper, libc::POLLIN, until.saturating_duration_since(Instant::now())),
                None => {
                    std::thread::sleep(STOP_LOOK);
                    true
                }
            };
        }
        unmap_exchange(self.exchange);
    }
}

/// Tells whether one of `events` has come within `patience`.
fn poll_one(fd: &OwnedFd, events: i16, patience: Duration) -> bool {
    // Rounded up: a wait that is too short by a part of a millisecond would be a loop that burns it.
    let patience_ms = c_int::try_from(patience.as_millis() + 1).unwrap_or(c_int::MAX);
    let mut event = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one event on our own stack.
    unsafe { libc::poll(&raw mut event, 1, patience_ms) > 0 }
}

/// Returns what can be waited for until our child `pid` has ended; nothing on kernels before 5.3.
fn open_pidfd(pid: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: plain numbers; the descriptor is a new one, and nobody else's.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: as above.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl RawLeak {
    fn decode(&self) -> (i32, String) {
        let end = self.comm.iter().position(|byte| matches!(byte, 0 | b'\n')).unwrap_or(self.comm.len());
        (self.pid, String::from_utf8_lossy(&self.comm[..end]).into_owned())
    }
}

/// Tells whether this kernel can keep a script's signals to its own processes (Landlock ABI 6, Linux 6.12).
pub(super) fn can_confine_signals() -> bool {
    let fd = signal_scope();
    if fd >= 0 {
        // SAFETY: a descriptor that was just opened and is not used again.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    fd >= 0
}

/// Addresses of our arguments and our environment, as the kernel shows them in /proc (proc(5), /proc/PID/stat, fields 48-51).
fn own_strings() -> [usize; 4] {
    static ADDRESSES: OnceLock<[usize; 4]> = OnceLock::new();
    *ADDRESSES.get_or_init(|| {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name, field 2, may itself hold spaces; field 3 follows its last parenthesis.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(48 - 3);
        let mut addresses = [0; 4];
        for (address, field) in addresses.iter_mut().zip(fields) {
            *address = field.parse().unwrap_or(0);
        }
        addresses
    })
}

/// # Errors
/// If no memory is left.
fn map_exchange() -> io::Result<NonNull<Exchange>> {
    // SAFETY: an anonymous mapping with no demands; MAP_NORESERVE because most of it is never touched.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            ARENA_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave a null pointer"))
}

fn unmap_exchange(exchange: NonNull<Exchange>) {
    // SAFETY: the mapping was made by `map_exchange` with this length, and its owner is going away.
    unsafe {
        libc::munmap(exchange.as_ptr().cast(), ARENA_BYTES);
    }
}

/// Fills the memory behind the exchange from its start to its end.
struct Arena {
    next: *mut u8,
    left: usize,
}

impl Arena {
    fn after(exchange: NonNull<Exchange>) -> Self {
        let used = size_of::<Exchange>();
        // SAFETY: `used` is less than the mapping's length.
        Self { next: unsafe { exchange.as_ptr().cast::<u8>().add(used) }, left: ARENA_BYTES - used }
    }

    fn take(&mut self, bytes: usize) -> Option<*mut u8> {
        let rounded = bytes.checked_next_multiple_of(align_of::<*const c_char>())?;
        self.left = self.left.checked_sub(rounded)?;
        let at = self.next;
        // SAFETY: `left` was large enough, so the result is inside the mapping or one past its end.
        self.next = unsafe { self.next.add(rounded) };
        Some(at)
    }

    fn text(&mut self, text: &CStr) -> Option<*const c_char> {
        let bytes = text.to_bytes_with_nul();
        let at = self.take(bytes.len())?;
        // SAFETY: `take` gave room for exactly these bytes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        Some(at.cast_const().cast())
    }

    /// Writes the texts and a null-terminated array of pointers to them.
    fn texts(&mut self, texts: &[&CStr]) -> Option<*const *const c_char> {
        let pointers: *mut *const c_char = self.take((texts.len() + 1) * size_of::<*const c_char>())?.cast();
        for (index, text) in texts.iter().enumerate() {
            let at = self.text(text)?;
            // SAFETY: the array has room for every text and a null; `take` keeps pointers aligned.
            unsafe { pointers.add(index).write(at) };
        }
        // SAFETY: as above.
        unsafe { pointers.add(texts.len()).write(ptr::null()) };
        Some(pointers.cast_const())
    }

    fn room(&mut self, room: &RoomRequest) -> Option<walls::Room> {
        let folders: Vec<_> = room.folders.iter().map(CString::as_c_str).collect();
        Some(walls::Room {
            lower: self.text(&room.lower)?,
            target: self.text(&room.target)?,
            folders: self.texts(&folders)?,
            is_kept: room.is_kept,
            open_files_max: room.open_files_max,
            file_bytes_max: room.file_bytes_max,
            address_bytes_max: room.address_bytes_max,
        })
    }
}

// What follows runs in the keeper and in the supervisor.

struct Parts<'a> {
    exchange: *mut Exchange,
    socket: RawFd,
    cgroup: RawFd,
    signals: SignalReach,
    walls: Option<&'a walls::Plan>,
    own_strings: [usize; 4],
}

fn errno() -> c_int {
    // SAFETY: the C library's errno of this thread.
    unsafe { *libc::__errno_location() }
}

/// clone3(2) with fork's semantics, into a cgroup if `cgroup` is not -1. Without the C library's fork handlers: the child
/// uses none of what they protect.
unsafe fn fork_into(cgroup: RawFd) -> c_int {
    // SAFETY: the arguments are valid for clone3 and clone; the child gets a copy of this stack.
    unsafe {
        if cgroup >= 0 {
            let mut args: libc::clone_args = zeroed();
            args.flags = CLONE_INTO_CGROUP;
            args.exit_signal = libc::SIGCHLD as u64;
            args.cgroup = cgroup as u64;
            let pid = libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>());
            if pid >= 0 {
                return pid as c_int;
            }
            // Refused by a container's seccomp rules, or by an old kernel: the child moves itself.
            let pid = fork_into(-1);
            if pid == 0 {
                let members = libc::openat(cgroup, c"cgroup.procs".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                libc::write(members, c"0".as_ptr().cast(), 1);
                libc::close(members);
            }
            return pid;
        }
        libc::syscall(libc::SYS_clone, libc::SIGCHLD as c_long, 0 as c_long, 0 as c_long, 0 as c_long, 0 as c_long)
            as c_int
    }
}

/// Outlives the supervisor: should a script kill that, the orphans come to the keeper, which kills them.
unsafe fn keeper(parts: &Parts<'_>) -> ! {
    // SAFETY: system calls on our own descriptors and children, in the order that each needs.
    unsafe {
        set_signal_mask(u64::MAX);
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"pg-keeper".as_ptr());
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        // What the environment of the harness holds is not to be read in a helper's /proc/PID/environ, nor in its memory.
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        forget_own_strings(parts.own_strings);
        // A working directory keeps its file system from being unmounted.
        libc::chdir(c"/".as_ptr());
        reset_signal_handlers();
        if !keep_only(parts) {
            // With too low a limit the numbers from 10 on are not even valid (fcntl(2)).
            (*parts.exchange).stillborn_errno = libc::EMFILE;
            libc::_exit(1);
        }
        let pid = fork_into(if parts.cgroup >= 0 { CGROUP_FD } else { -1 });
        if pid == 0 {
            // Behind walls there is nobody else to signal; and who is confined may not mount.
            if parts.signals == SignalReach::OwnProcesses && parts.walls.is_none() {
                confine_signals();
            }
            supervisor(parts.exchange, parts.walls);
        }
        if pid < 0 {
            (*parts.exchange).stillborn_errno = errno();
        }
        libc::close(SOCKET_FD);
        libc::close(CGROUP_FD);
        if pid > 0 {
            // Only the supervisor is a child of ours as long as it lives.
            outlive(pid);
            sweep(ptr::null_mut(), &Senses { deaths: -1, children: open_children() });
        }
        libc::_exit(0);
    }
}

/// Overwrites the copies of the harness's arguments and environment that `/proc` shows to root even so.
unsafe fn forget_own_strings([args_start, args_end, env_start, env_end]: [usize; 4]) {
    for (start, end) in [(args_start, args_end), (env_start, env_end)] {
        if start != 0 && end > start {
            // SAFETY: the kernel put these bytes at the top of our first stack; nothing in this process looks at them again.
            unsafe { ptr::write_bytes(ptr::with_exposed_provenance_mut::<u8>(start), 0, end - start) };
        }
    }
}

/// Waits for the supervisor's death, and continues it whenever something stops it.
unsafe fn outlive(supervisor: c_int) {
    // SAFETY: `info` is filled before it is read; the number is our child's until we reap it.
    unsafe {
        loop {
            let mut info: libc::siginfo_t = zeroed();
            let options = libc::WEXITED | libc::WSTOPPED | libc::__WALL;
            let waited = libc::waitid(libc::P_PID, supervisor as libc::id_t, &raw mut info, options);
            if waited == 0 && info.si_code == libc::CLD_STOPPED {
                libc::kill(supervisor, libc::SIGCONT);
            } else if waited == 0 || errno() != libc::EINTR {
                return;
            }
        }
    }
}

/// How a process of ours learns of its children: a signalfd for their deaths, and the list of them.
struct Senses {
    deaths: RawFd,
    children: RawFd,
}

/// The list of our children (CONFIG_PROC_CHILDREN; proc(5)), opened before a script can mount something over /proc.
unsafe fn open_children() -> RawFd {
    // SAFETY: a constant path.
    unsafe { libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }
}

const SOCKET_FD: RawFd = 3;
const CGROUP_FD: RawFd = 4;

/// Leaves /dev/null as 0, 1 and 2, the socket as 3, the cgroup (or nothing) as 4, and closes everything else. Returns whether it could.
unsafe fn keep_only(parts: &Parts<'_>) -> bool {
    // SAFETY: descriptors are moved high first, so that no dup2 overwrites one that is still needed.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        let socket = libc::fcntl(parts.socket, libc::F_DUPFD_CLOEXEC, 10);
        let cgroup = if parts.cgroup >= 0 { libc::fcntl(parts.cgroup, libc::F_DUPFD_CLOEXEC, 10) } else { -1 };
        if null < 0 || socket < 0 || (parts.cgroup >= 0 && cgroup < 0) {
            return false;
        }
        for fd in 0..3 {
            libc::dup2(null, fd);
        }
        libc::dup3(socket, SOCKET_FD, libc::O_CLOEXEC);
        if cgroup >= 0 {
            libc::dup3(cgroup, CGROUP_FD, libc::O_CLOEXEC);
        } else {
            libc::close(CGROUP_FD);
        }
        close_from(CGROUP_FD + 1);
        true
    }
}

/// Closes `first` and all descriptors behind it.
unsafe fn close_from(first: RawFd) {
    // SAFETY: nobody needs them any more.
    unsafe {
        if libc::syscall(libc::SYS_close_range, c_long::from(first), c_long::from(u32::MAX), 0 as c_long) < 0 {
            for fd in first..65_536 {
                libc::close(fd);
            }
        }
    }
}

/// Sets the signal mask, one bit for each signal: the C library's own function leaves out those that it uses itself.
unsafe fn set_signal_mask(mask: u64) {
    // SAFETY: the kernel's set has 64 bits.
    unsafe {
        let how = libc::c_long::from(libc::SIG_SETMASK);
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, ptr::null_mut::<u64>(), size_of::<u64>());
    }
}

/// An ignored signal stays ignored over exec, so scripts would inherit Rust's ignored SIGPIPE, and whatever the harness was
/// started with. The C library refuses to touch the signals that it uses itself.
unsafe fn reset_signal_handlers() {
    // The kernel's structure differs between architectures; all of it zero is the default action everywhere.
    let default = [0_u64; 8];
    for signal in 1..=64 as c_long {
        // SAFETY: larger than the structure. SIGKILL and SIGSTOP are refused, which is fine.
        unsafe {
            let old = ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, size_of::<u64>());
        }
    }
}

/// Starts scripts, one after another, and sees each to its end.
unsafe fn supervisor(exchange: *mut Exchange, walls: Option<&walls::Plan>) -> ! {
    // SAFETY: the exchange is mapped in this process at the same address; it is ours between RUN and our answer.
    unsafe {
        libc::close(CGROUP_FD);
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"pg-supervisor".as_ptr());
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        (*exchange).supervisor_pid = libc::getpid();
        let senses = Senses { deaths: watch_deaths(), children: open_children() };
        let stack_top = map_stack();
        if stack_top.is_null() || senses.deaths < 0 {
            (*exchange).stillborn_errno = errno();
            libc::_exit(1);
        }
        if let Some(plan) = walls {
            match walls::enter(plan) {
                Ok(()) => supervise_enclosed(exchange, plan, stack_top, &senses),
                Err(broken) => refuse_all(exchange, &broken),
            }
        }
        let mut lingers = false;
        while let Some(streams) = take_script(exchange, lingers) {
            lingers = (*exchange).lingers;
            let start = Start { exchange, streams, wall: None };
            answer(run(&start, stack_top, &senses));
        }
        libc::_exit(0)
    }
}

/// Waits for a script. Returns its streams; `None`: the harness is gone.
unsafe fn take_script(exchange: *mut Exchange, lingers: bool) -> Option<[RawFd; 2]> {
    // SAFETY: the exchange is ours from RUN to our answer.
    unsafe {
        let mut streams = [-1; 2];
        // Any other word is an order that came after its script had ended.
        while receive(&mut streams, lingers)? != word::RUN {}
        (*exchange).taken = true;
        Some(streams)
    }
}

/// Returns the top of a stack for a child that has our memory; null if none is left.
unsafe fn map_stack() -> *mut c_void {
    // SAFETY: an anonymous mapping with no demands; its end is one past what is mapped.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let stack = libc::mmap(ptr::null_mut(), CHILD_STACK_BYTES, access, flags, -1, 0);
        if stack == libc::MAP_FAILED { ptr::null_mut() } else { stack.cast::<u8>().add(CHILD_STACK_BYTES).cast() }
    }
}

/// A descriptor that tells of the deaths of our children; SIGCHLD is blocked.
unsafe fn watch_deaths() -> RawFd {
    // SAFETY: a set on our own stack.
    unsafe {
        let mut child_signal: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut child_signal);
        libc::sigaddset(&raw mut child_signal, libc::SIGCHLD);
        libc::signalfd(-1, &raw const child_signal, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    }
}

unsafe fn say(word: u8) {
    // SAFETY: our own descriptor.
    unsafe { tell(SOCKET_FD, word) };
}

unsafe fn tell(line: RawFd, word: u8) {
    // SAFETY: one byte; if nobody listens any more, the next `receive` tells.
    unsafe { libc::send(line, (&raw const word).cast(), 1, libc::MSG_NOSIGNAL) };
}

/// A message of one part, with room for descriptors in `control`; both must outlive its use.
unsafe fn message(part: *mut libc::iovec, control: &mut [u64]) -> libc::msghdr {
    // SAFETY: all of it zero is an empty message.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(control) as _;
    message
}

/// How often somebody who lingers looks before he sleeps: some 100 µs.
pub(super) const LINGERING_LOOKS: u32 = 400;

/// Waits for a word and takes the descriptors that came with it. `None`: the other side is gone.
unsafe fn receive(streams: &mut [RawFd; 2], lingers: bool) -> Option<u8> {
    let mut byte = 0_u8;
    let mut control = [0_u64; 8];
    // SAFETY: every pointer leads to a local that outlives the call; the control buffer is aligned for cmsghdr.
    unsafe {
        let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut message = message(&raw mut part, &mut control);
        let mut looks_left = if lingers { LINGERING_LOOKS } else { 0 };
        loop {
            let flags = if looks_left > 0 { libc::MSG_DONTWAIT } else { 0 };
            let got = libc::recvmsg(SOCKET_FD, &raw mut message, libc::MSG_CMSG_CLOEXEC | flags);
            if got > 0 {
                break;
            }
            if got == 0 || !matches!(errno(), libc::EINTR | libc::EAGAIN) {
                return None;
            }
            if looks_left > 0 {
                looks_left -= 1;
                libc::sched_yield();
            }
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        // Fewer arrive if we may not open more; then they stay -1 and the script is not started.
        let both = libc::CMSG_LEN(size_of::<[RawFd; 2]>() as u32) as usize;
        if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS && (*header).cmsg_len as usize == both {
            ptr::copy_nonoverlapping(libc::CMSG_DATA(header).cast::<RawFd>(), streams.as_mut_ptr(), 2);
        }
    }
    Some(byte)
}

struct Start<'a> {
    exchange: *mut Exchange,
    streams: [RawFd; 2],
    /// In the sandbox: the plan, and Landlock's ruleset.
    wall: Option<(&'a walls::Plan, RawFd)>,
}

unsafe fn close_streams(streams: &[RawFd; 2]) {
    // SAFETY: our own descriptors.
    unsafe {
        libc::close(streams[0]);
        libc::close(streams[1]);
    }
}

/// Tells the harness how a run went. From now on the exchange is the harness's.
unsafe fn answer(is_started: bool) {
    // SAFETY: one byte.
    unsafe { say(if is_started { word::ENDED } else { word::NOT_STARTED }) };
}

// In the sandbox each script has an *init*: the first process of its namespaces, ours. It stands in for the supervisor until everything
// in them is dead: it takes the script from the harness, carries out orders, reaps, and answers. When it ends the kernel ends whatever
// there may be. To make namespaces takes longer than to run a small script, so while one runs the next init gets ready.

/// Words between the supervisor and an init.
mod init_word {
    /// The next script is yours.
    pub(super) const GO: u8 = b'G';
    /// I have it.
    pub(super) const TAKEN: u8 = b'T';
    /// It has ended, and I look for no other.
    pub(super) const DONE: u8 = b'D';
    /// The harness is gone.
    pub(super) const ALONE: u8 = b'A';
}

/// Has one init after another take a script.
unsafe fn supervise_enclosed(
    exchange: *mut Exchange,
    plan: &walls::Plan,
    stack_top: *mut c_void,
    senses: &Senses,
) -> ! {
    // SAFETY: system calls on our own descriptors and children; the exchange is looked at where it is not the harness's.
    unsafe {
        let mut streams = [-1; 2];
        if receive(&mut streams, false) != Some(word::BEGIN) {
            libc::_exit(0);
        }
        let mut next = start_init(exchange, plan, stack_top, senses);
        loop {
            // What has ended since then may have made room.
            let current = match next.or_else(|_| start_init(exchange, plan, stack_top, senses)) {
                Ok(line) => line,
                Err(broken) => refuse_all(exchange, &broken),
            };
            // The rest of the exchange may be the harness's.
            let counts =
                || ((&raw const (*exchange).takes).read_volatile(), (&raw const (*exchange).answers).read_volatile());
            let (takes, answers) = counts();
            tell(current, init_word::GO);
            let first = hear_init(current, senses);
            if first == Some(init_word::ALONE) {
                libc::_exit(0);
            }
            next = start_init(exchange, plan, stack_top, senses);
            if first.is_some() {
                hear_init(current, senses);
            }
            // One that was killed before it had anything to do leaves it to the next one.
            let (takes_now, answers_now) = counts();
            if takes_now > takes && answers_now == answers {
                // It was killed, and with it all that it watched over: for want of memory, or by the operator.
                answer(true);
            }
            libc::close(current);
        }
    }
}

/// Waits for a word of an init, and reaps the inits before it. `None`: it has ended.
unsafe fn hear_init(line: RawFd, senses: &Senses) -> Option<u8> {
    // SAFETY: our own descriptors and children.
    unsafe {
        loop {
            let event = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut events = [event(line), event(senses.deaths)];
            libc::poll(events.as_mut_ptr(), 2, -1);
            if events[1].revents != 0 {
                first_death(senses.deaths);
                while libc::waitpid(-1, ptr::null_mut(), libc::__WALL | libc::WNOHANG) > 0 {}
            }
            if events[0].revents != 0 {
                let mut word = 0_u8;
                return (libc::recv(line, (&raw mut word).cast(), 1, 0) == 1).then_some(word);
            }
        }
    }
}

/// Forks an init, which makes its namespaces ready while others run. Returns the line to it: its end is the init's.
unsafe fn start_init(
    exchange: *mut Exchange,
    plan: &walls::Plan,
    stack_top: *mut c_void,
    senses: &Senses,
) -> Result<RawFd, StartFailure> {
    // SAFETY: a fork; the child keeps to the rules of this file and never returns.
    unsafe {
        let mut line = [-1; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        let broken = || StartFailure { step: Step::Namespaces, errno: errno() };
        if libc::socketpair(libc::AF_UNIX, kind, 0, line.as_mut_ptr()) < 0 {
            return Err(broken());
        }
        let flags = c_long::from(walls::NAMESPACES | libc::SIGCHLD);
        let pid = libc::syscall(libc::SYS_clone, flags, 0 as c_long, 0 as c_long, 0 as c_long, 0 as c_long) as c_int;
        if pid == 0 {
            libc::close(line[0]);
            be_init(exchange, plan, line[1], stack_top, senses.deaths);
        }
        let started = if pid < 0 { Err(broken()) } else { Ok(line[0]) };
        if started.is_err() {
            libc::close(line[0]);
        }
        libc::close(line[1]);
        started
    }
}

/// Answers every script that it cannot be started.
unsafe fn refuse_all(exchange: *mut Exchange, broken: &StartFailure) -> ! {
    // SAFETY: as `supervisor`.
    unsafe {
        while let Some(streams) = take_script(exchange, false) {
            note_failure(exchange, broken);
            close_streams(&streams);
            answer(false);
        }
        libc::_exit(0)
    }
}

unsafe fn be_init(
    exchange: *mut Exchange,
    plan: &walls::Plan,
    line: RawFd,
    stack_top: *mut c_void,
    deaths: RawFd,
) -> ! {
    // SAFETY: as `supervisor`.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"pg-init".as_ptr());
        let prepared = walls::prepare(plan);
        let mut word = 0_u8;
        if libc::recv(line, (&raw mut word).cast(), 1, 0) != 1 {
            libc::_exit(1);
        }
        let Some(streams) = take_script(exchange, (*exchange).lingers) else {
            tell(line, init_word::ALONE);
            libc::_exit(0);
        };
        (*exchange).takes += 1;
        let enclosed = prepared.and_then(|()| walls::enclose(plan, &(*exchange).room));
        // Not before: what the supervisor does now may want our processor.
        tell(line, init_word::TAKEN);
        let is_started = match enclosed {
            Ok((ruleset, kept)) => {
                if kept >= 0 {
                    hand_over(kept);
                    libc::close(kept);
                }
                let senses = Senses { deaths, children: open_children() };
                let start = Start { exchange, streams, wall: Some((plan, ruleset)) };
                let is_started = run(&start, stack_top, &senses);
                (*exchange).started = walls::count_started();
                (*exchange).written = walls::count_written();
                is_started
            }
            Err(broken) => {
                note_failure(exchange, &broken);
                close_streams(&streams);
                false
            }
        };
        (*exchange).answers += 1;
        // Before: the harness may have another script at once.
        tell(line, init_word::DONE);
        answer(is_started);
        libc::_exit(0);
    }
}

/// Gives the harness a descriptor.
unsafe fn hand_over(fd: RawFd) {
    let mut byte = word::WORK_DIR;
    let mut control = [0_u64; 4];
    // SAFETY: every pointer leads to a local that outlives the call; the control buffer is aligned for cmsghdr.
    unsafe {
        let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut message = message(&raw mut part, &mut control);
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() {
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            ptr::copy_nonoverlapping((&raw const fd).cast::<u8>(), libc::CMSG_DATA(header), size_of::<RawFd>());
        }
        libc::sendmsg(SOCKET_FD, &raw const message, libc::MSG_NOSIGNAL);
    }
}

/// One script from clone to the last of its processes. Returns whether it was started.
unsafe fn run(start: &Start<'_>, stack_top: *mut c_void, senses: &Senses) -> bool {
    // SAFETY: CLONE_VFORK suspends us until the child has executed or ended, so it may use our memory; it has a stack of
    // its own. `start` outlives the call.
    unsafe {
        // What is pending is of an earlier run, whose numbers may be in use again.
        first_death(senses.deaths);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let leader = libc::clone(child, stack_top, flags, ptr::from_ref(start).cast_mut().cast());
        if leader < 0 {
            fail(start.exchange, Step::Clone);
        }
        close_streams(&start.streams);
        if leader < 0 {
            return false;
        }
        if (*start.exchange).failed_step != 0 {
            libc::waitpid(leader, ptr::null_mut(), libc::__WALL);
            return false;
        }
        attend(leader, senses);
        // The leader is not reaped yet, so its number cannot have been given to another group.
        libc::kill(-leader, libc::SIGKILL);
        let exchange = &mut *start.exchange;
        libc::wait4(leader, &raw mut exchange.status, libc::__WALL, &raw mut exchange.usage);
        exchange.ended = true;
        sweep(start.exchange, senses);
        true
    }
}

/// Carries out orders and reaps orphans until the leader has ended.
unsafe fn attend(leader: c_int, senses: &Senses) {
    // SAFETY: system calls on our own descriptors and on a leader that is not reaped.
    unsafe {
        loop {
            let event = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut events = [event(senses.deaths), event(SOCKET_FD)];
            if libc::poll(events.as_mut_ptr(), 2, -1) < 0 {
                continue;
            }
            if events[0].revents != 0 && has_ended(leader, senses) {
                return;
            }
            if events[1].revents != 0 {
                obey(leader, senses);
            }
        }
    }
}

/// Carries out one order for the leader's group.
unsafe fn obey(leader: c_int, senses: &Senses) {
    let mut order = 0_u8;
    // SAFETY: the leader is not reaped.
    unsafe {
        let got = libc::recv(SOCKET_FD, (&raw mut order).cast(), 1, libc::MSG_DONTWAIT);
        if got > 0 && order == word::TERMINATE {
            libc::kill(-leader, libc::SIGTERM);
            libc::kill(-leader, libc::SIGCONT);
        } else if got > 0 && order == word::KILL {
            libc::kill(-leader, libc::SIGKILL);
        } else if got == 0 || (got < 0 && errno() == libc::ECONNRESET) {
            // The harness is gone: nothing that it started stays.
            libc::kill(-leader, libc::SIGKILL);
            sweep(ptr::null_mut(), senses);
            libc::_exit(0);
        }
    }
}

/// Tells whether the leader is among the dead, and reaps all others: daemons that end while the script runs would else stay
/// as zombies and use up process numbers; and what is dead when the leader ends was not killed by us.
unsafe fn has_ended(leader: c_int, senses: &Senses) -> bool {
    // SAFETY: `info` is filled before it is read; WNOWAIT leaves the leader to be reaped later.
    unsafe {
        // SIGCHLD is not queued: the first since the last look is what we get. If that is the leader's, all others lived on.
        if first_death(senses.deaths) == leader {
            return true;
        }
        loop {
            let mut info: libc::siginfo_t = zeroed();
            let peek = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
            if libc::waitid(libc::P_ALL, 0, &raw mut info, peek) < 0 {
                return false;
            }
            match info.si_pid() {
                0 => return false,
                pid if pid == leader => break,
                pid => libc::waitpid(pid, ptr::null_mut(), libc::__WALL),
            };
        }
        for_each_child(senses.children, |pid| {
            if pid != leader {
                libc::waitpid(pid, ptr::null_mut(), libc::__WALL | libc::WNOHANG);
            }
        });
        true
    }
}

/// Takes the pending SIGCHLD. Returns who died; 0 if nobody did, as when a child was stopped.
unsafe fn first_death(deaths: RawFd) -> c_int {
    let mut record = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let len = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has the size of one record, and is read only if it was filled; the descriptor does not block.
    unsafe {
        if libc::read(deaths, record.as_mut_ptr().cast(), len) != len as isize {
            return 0;
        }
        let record = record.assume_init();
        match record.ssi_code {
            libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED => record.ssi_pid as c_int,
            _ => 0,
        }
    }
}

/// Kills and reaps until there is no child left. Orphans of what is killed become our children, so none is missed. What had
/// to be killed is noted in `exchange`, if it is not null; then the harness is told if it does not die at once.
unsafe fn sweep(exchange: *mut Exchange, senses: &Senses) {
    let mut rounds: u32 = 0;
    // SAFETY: `info` is filled before it is read.
    unsafe {
        loop {
            let mut info: libc::siginfo_t = zeroed();
            let peek = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
            if libc::waitid(libc::P_ALL, 0, &raw mut info, peek) < 0 {
                if errno() == libc::EINTR {
                    continue;
                }
                return;
            }
            let pid = info.si_pid();
            if pid != 0 {
                if info.si_code == libc::CLD_KILLED && info.si_status() == libc::SIGKILL && !exchange.is_null() {
                    note_leak(&mut *exchange, pid);
                }
                libc::waitpid(pid, ptr::null_mut(), libc::__WALL);
                continue;
            }
            rounds = rounds.saturating_add(1);
            if rounds == PATIENT_ROUNDS && !exchange.is_null() {
                say(word::SWEEPING);
            }
            if libc::getpid() == 1 {
                // All that is in our PID namespace, at once: none of it forks on while others are killed (kill(2)).
                libc::kill(-1, libc::SIGKILL);
            } else {
                // Such a number cannot be reused before we reap it.
                for_each_child(senses.children, |pid| {
                    libc::kill(pid, libc::SIGKILL);
                });
            }
            // A death wakes us; the limit is for a child that was adopted between the listing and now.
            let mut event = libc::pollfd { fd: senses.deaths, events: libc::POLLIN, revents: 0 };
            libc::poll(&raw mut event, 1, 10);
            first_death(senses.deaths);
        }
    }
}

/// Calls `act` with each child that the list names.
unsafe fn for_each_child(children: RawFd, act: impl Fn(c_int)) {
    let mut buffer = [0_u8; 4096];
    let mut pid: c_int = 0;
    // SAFETY: the buffer is ours.
    unsafe {
        if libc::lseek(children, 0, libc::SEEK_SET) < 0 {
            return;
        }
        loop {
            let got = libc::read(children, buffer.as_mut_ptr().cast(), buffer.len());
            if got <= 0 {
                return;
            }
            // Each number is followed by a space, the last one too.
            for byte in buffer.iter().take(got as usize) {
                if byte.is_ascii_digit() {
                    pid = pid.wrapping_mul(10).wrapping_add(c_int::from(byte - b'0'));
                } else {
                    if pid > 1 {
                        act(pid);
                    }
                    pid = 0;
                }
            }
        }
    }
}

unsafe fn note_leak(exchange: &mut Exchange, pid: c_int) {
    if exchange.leak_count >= LEAKS_MAX {
        return;
    }
    let mut leak = RawLeak { pid, comm: [0; 16] };
    // SAFETY: the buffer has 16 bytes; a zombie keeps its name until it is reaped.
    unsafe {
        let mut path = PathText::new();
        path.push(b"/proc/");
        path.push_number(pid);
        path.push(b"/comm");
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::read(fd, leak.comm.as_mut_ptr().cast(), leak.comm.len());
            libc::close(fd);
        }
    }
    exchange.leaks[exchange.leak_count] = leak;
    exchange.leak_count += 1;
}

/// A path on the stack, always null-terminated; what does not fit is cut.
struct PathText {
    bytes: [u8; 64],
    len: usize,
}

impl PathText {
    fn new() -> Self {
        Self { bytes: [0; 64], len: 0 }
    }

    fn push(&mut self, text: &[u8]) {
        for byte in text {
            if self.len + 1 < self.bytes.len() {
                self.bytes[self.len] = *byte;
                self.len += 1;
            }
        }
    }

    fn push_number(&mut self, number: c_int) {
        let mut digits = [0_u8; 10];
        let mut at = digits.len();
        let mut rest = number.unsigned_abs();
        while at > 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn as_c_str(&self) -> &CStr {
        // SAFETY: a zero follows the text.
        unsafe { CStr::from_ptr(self.as_ptr()) }
    }
}

fn fail(exchange: *mut Exchange, step: Step) {
    note_failure(exchange, &StartFailure { step, errno: errno() });
}

fn note_failure(exchange: *mut Exchange, failure: &StartFailure) {
    // SAFETY: called by whoever has taken the script, or by its child while the former is suspended.
    unsafe {
        (*exchange).failed_step = failure.step as c_int;
        (*exchange).failed_errno = failure.errno;
    }
}

/// What a Landlock ruleset handles (landlock_create_ruleset(2)).
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Returns a ruleset, or -1. `size` are the bytes of `attributes` that this kernel knows.
unsafe fn create_ruleset(attributes: &RulesetAttr, size: usize) -> c_long {
    // SAFETY: the structure is what the ABI asks for; an older kernel refuses its size.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::from_ref(attributes), size, 0 as c_long) }
}

/// Landlock ruleset that keeps signals inside its domain, or -1 (landlock(7), ABI 6).
fn signal_scope() -> RawFd {
    const SCOPE_SIGNAL: u64 = 1 << 1;
    let attr = RulesetAttr { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_SIGNAL };
    // SAFETY: on our own stack.
    unsafe { create_ruleset(&attr, size_of::<RulesetAttr>()) as RawFd }
}

/// Takes a descriptor that has just been received.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has made it for the one who calls this, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Returns Landlock's version; 0 if this kernel has none, or has it switched off.
pub(super) fn landlock_abi() -> i32 {
    const VERSION: c_long = 1;
    // SAFETY: asks for a number.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0 as c_long, VERSION) };
    i32::try_from(abi).unwrap_or(0).max(0)
}

/// Between clone and exec, on its own stack in the supervisor's memory.
extern "C" fn child(argument: *mut c_void) -> c_int {
    // SAFETY: the argument is the `Start` of `run`, which waits for us; the exchange's pointers were written by `prepare`.
    unsafe {
        let start = &*argument.cast::<Start<'_>>();
        let exchange = &*start.exchange;
        let failed = if libc::setsid() < 0 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            Some(Step::Session)
        } else if start.streams[1] < 0 {
            // What could not be opened was not received.
            note_failure(start.exchange, &StartFailure { step: Step::Streams, errno: libc::EMFILE });
            libc::_exit(127);
        } else if libc::dup2(start.streams[0], 1) < 0 || libc::dup2(start.streams[1], 2) < 0 {
            Some(Step::Streams)
        } else if libc::chdir(exchange.cwd) < 0 {
            Some(Step::Chdir)
        } else if exchange.processes_max != u64::MAX
            && lower_limit(libc::RLIMIT_NPROC as c_int, exchange.processes_max) < 0
        {
            Some(Step::Limit)
        } else {
            if let Some((plan, ruleset)) = start.wall
                && let Err(broken) = walls::give_up_rights(plan, &exchange.room, ruleset)
            {
                note_failure(start.exchange, &broken);
                libc::_exit(127);
            }
            set_signal_mask(0);
            libc::execve(exchange.program, exchange.argv, exchange.envp);
            Some(Step::Exec)
        };
        if let Some(step) = failed {
            fail(start.exchange, step);
        }
        libc::_exit(127);
    }
}

/// Lowers a limit of ours. One that is lower already stays: nobody without rights can raise it. Returns -1 and sets errno if it cannot be
/// done.
unsafe fn lower_limit(resource: c_int, max: u64) -> c_int {
    // SAFETY: structures on our own stack.
    unsafe {
        let mut limit: libc::rlimit = zeroed();
        if libc::getrlimit(resource as _, &raw mut limit) < 0 {
            return -1;
        }
        let max = max.min(limit.rlim_max);
        let limit = libc::rlimit { rlim_cur: max, rlim_max: max };
        libc::setrlimit(resource as _, &raw const limit)
    }
}

/// Puts the supervisor, and so all that it starts, into a signal domain: they reach each other and nobody else. The supervisor
/// is inside so that this costs nothing for each script; a script that kills it harms only itself. Root may enter as it is;
/// others must first give up setuid programs (landlock_restrict_self(2)).
unsafe fn confine_signals() {
    let scope = signal_scope();
    // SAFETY: system calls on our own process.
    unsafe {
        let restrict = || libc::syscall(libc::SYS_landlock_restrict_self, c_long::from(scope), 0 as c_long) == 0;
        if scope >= 0 && !restrict() && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 {
            restrict();
        }
        libc::close(scope);
    }
}

// What follows serves the product's tap (`tee.rs`). It runs in a process of its own, which has one thread.

/// The product, started.
pub(super) struct Product {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
}

/// Returns the path by which this process was executed: unlike `argv[0]` nobody can choose it (getauxval(3)).
pub(super) fn exec_path() -> Option<PathBuf> {
    // SAFETY: the kernel gives a null-terminated text that lives as long as the process.
    unsafe {
        let at = libc::getauxval(libc::AT_EXECFN) as *const c_char;
        (!at.is_null()).then(|| PathBuf::from(OsStr::from_bytes(CStr::from_ptr(at).to_bytes())))
    }
}

/// Tells whether two descriptors are one open file, as after `2>&1` (kcmp(2)).
pub(super) fn is_same_open_file(one: RawFd, other: RawFd) -> bool {
    const KCMP_FILE: c_long = 0;
    // SAFETY: a comparison; both processes are ourselves.
    unsafe {
        let own = c_long::from(libc::getpid());
        libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, c_long::from(one), c_long::from(other)) == 0
    }
}

/// Starts `program` with our environment and descriptors, but for standard output and error, and with `mask`. It dies with us.
///
/// # Errors
/// If it cannot be started.
pub(super) fn spawn_product(
    program: &CStr,
    argv: &[CString],
    streams: [&OwnedFd; 2],
    mask: &SigSet,
) -> io::Result<Product> {
    let mut pointers: Vec<*const c_char> = argv.iter().map(|arg| arg.as_ptr()).collect();
    pointers.push(ptr::null());
    let failed = Cell::new(0);
    let mut pidfd: c_int = -1;
    // SAFETY: vfork's semantics: the child has this memory and a stack of its own until it has executed or ended, and we
    // are suspended; it calls async-signal-safe functions only. The pointers are to texts that outlive the call.
    unsafe {
        let start = ProductStart { program, pointers: &pointers, streams, mask, failed: &failed };
        let mut stack = vec![0_u128; CHILD_STACK_BYTES / size_of::<u128>()];
        let top = stack.as_mut_ptr().add(stack.len()).cast();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        let pid = libc::clone(product_child, top, flags, (&raw const start).cast_mut().cast(), &raw mut pidfd);
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        let pidfd = OwnedFd::from_raw_fd(pidfd);
        if failed.get() != 0 {
            libc::waitpid(pid, ptr::null_mut(), 0);
            return Err(io::Error::from_raw_os_error(failed.get()));
        }
        Ok(Product { pid: Pid::from_raw(pid), pidfd })
    }
}

struct ProductStart<'a> {
    program: &'a CStr,
    pointers: &'a [*const c_char],
    streams: [&'a OwnedFd; 2],
    mask: &'a SigSet,
    failed: &'a Cell<c_int>,
}

extern "C" fn product_child(argument: *mut c_void) -> c_int {
    // SAFETY: the argument is the `ProductStart` of `spawn_product`, which waits for us.
    unsafe {
        let start = &*argument.cast::<ProductStart<'_>>();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::dup2(start.streams[0].as_raw_fd(), 1);
        libc::dup2(start.streams[1].as_raw_fd(), 2);
        // Rust ignores it in us.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, ptr::from_ref(start.mask.as_ref()), ptr::null_mut());
        libc::execv(start.program.as_ptr(), start.pointers.as_ptr());
        start.failed.set(errno());
        libc::_exit(127);
    }
}

/// Forks. Returns true in the child, which has no one to wait for it.
pub(super) fn fork_to_background() -> bool {
    // SAFETY: this process has one thread, so the child may go on as it is.
    unsafe { libc::fork() == 0 }
}

/// Ends this process by `signal`, so that the one who waits for it sees just that; without a core of ours.
pub(super) fn die_by(signal: Signal) -> ! {
    // SAFETY: changes to our own process, which ends here.
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal as c_int, libc::SIG_DFL);
        let mut only: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, signal as c_int);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const only, ptr::null_mut());
        libc::kill(libc::getpid(), signal as c_int);
        libc::_exit(128 + signal as c_int)
    }
}

/// The kernel grants a write lease only on a file that nobody else has open.
pub(super) fn is_ours_alone(file: BorrowedFd<'_>) -> bool {
    // SAFETY: takes and gives back a lease on a descriptor that is open.
    unsafe {
        libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0
            && libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) == 0
    }
}

//! Runs scripts, and sees everything they started to its end. The only place that starts processes.
//!
//! # Theory of operation
//!
//! ```text
//! harness ──fork──► keeper ──fork──► supervisor ──clone+exec──► script's first process (session and group leader)
//!    │                                   ▲  ▲                        │ children, daemons, ...
//!    └────────── socket, shared memory ──┘  └────── orphans ─────────┘
//! ```
//!
//! A *supervisor* is a subreaper: whatever the script starts and orphans, however often it forks or calls setsid, becomes its
//! child. When the first process has ended, the supervisor kills the group **before** it reaps the leader, so that the
//! group's number cannot have been reused; then it kills and reaps until it has no child left. Only then does it answer; if
//! that takes more than some milliseconds it says so, and the drain limit begins. So nothing that a script started is alive
//! when `run` returns, and that costs one look when nothing was left.
//!
//! The supervisor is not the harness, so `kill -9 $PPID` cannot end the harness. If it is killed, the *keeper*, a subreaper as
//! well, inherits the orphans and ends them; if it is stopped, the keeper continues it. A script that kills its grandparent
//! too kills the keeper, not the harness. If the harness is killed, the supervisor sees the end of its socket and ends
//! everything. Both live in sessions of their own, with all signals blocked: a signal to the harness's group does not reach
//! them. They keep nothing of the harness: no descriptor, no working directory, no readable arguments and environment.
//!
//! Both are forked once and used for many scripts (a *slot*; parallel runs take one each): a fork of a process with 30 MB
//! costs 1.5 ms, the supervisor's vfork-like clone 0.05 ms. A request lies in memory that both sides map; the socket hands it
//! over and carries the write ends of the script's two pipes. The harness reads the pipes itself, and waits with a monotonic
//! deadline for whatever comes first: output, the end, a cancel, the limit.
//!
//! Where a private cgroup can be had the supervisor and everything below it lives in one; it is what ends a fork bomb that
//! calls setsid faster than anyone can look. Where it cannot, the last resort freezes keeper and supervisor, stops the
//! descendants that /proc shows until a look finds no new one, and kills them: what is stopped still counts against a limit
//! of processes, so a bounded bomb runs dry. An unbounded one needs the cgroup.

mod cgroup;
mod pump;
#[expect(unsafe_code, reason = "the one file for what no safe wrapper offers")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "system calls answer in wider types than they take; a conversion that can panic must not stand after a fork"
)]
mod raw;
mod slot;
pub(crate) mod tee;
mod traces;
mod watch;

use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use crate::model::script::{Completion, Leak, Script, SignalReach};
use slot::Slot;

/// Longest wall, grace or drain limit: 115 days.
pub const LIMIT_MAX: Duration = Duration::from_secs(10_000_000);

/// How long the sweep of an earlier run's traces looks for more.
const SWEEP_PATIENCE: Duration = Duration::from_secs(10);

/// Runs scripts. The contract names two implementations: unsandboxed and sandboxed.
pub trait ScriptRunner: Send + Sync {
    /// Runs one script to the end of everything it started, within `wall + grace + drain`.
    ///
    /// # Errors
    /// Only when we failed. A script that fails, hangs, floods or is killed is an `Ok(Completion)`.
    fn run(&self, script: &Script, cancel: &Cancel) -> Result<Completion, EngineError> {
        self.run_while(script, cancel, &mut || {})
    }

    /// As `run`; calls `meanwhile` as soon as the script runs, so that what need not wait for its end costs no time. It must be
    /// short, and bear to be called again: a script that nobody took is started once more.
    ///
    /// # Errors
    /// As `run`.
    fn run_while(
        &self,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Completion, EngineError>;

    /// Says that no more scripts are expected: what waits for them may end while the caller does something else.
    fn dismiss(&self) {}
}

/// Why the engine could not run a script, or not see it to its end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The program could not be executed.
    #[error("could not start `{program}` in `{cwd}` ({step})", program = program.display(), cwd = cwd.display())]
    Start {
        /// Absolute path.
        program: PathBuf,
        /// Working directory.
        cwd: PathBuf,
        /// What failed between clone and exec.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An argument or variable has a NUL byte, which no program can receive.
    #[error("`{0}` has a NUL byte")]
    Nul(String),
    /// More than one request can hold.
    #[error("the arguments and the environment of `{program}` are larger than 8 MiB; pass them in a file", program = .program.display())]
    TooLarge {
        /// Absolute path.
        program: PathBuf,
    },
    /// A limit that makes no sense.
    #[error("the {name} limit must be more than 0 and at most {max} s, not {given:?}", max = LIMIT_MAX.as_secs())]
    Limit {
        /// Which.
        name: &'static str,
        /// What was asked for.
        given: Duration,
    },
    /// A process limit was asked for and cannot be had.
    #[error(
        "no limit of {0} processes can be had for root here; delegate a cgroup with the pids controller, or run as an ordinary user"
    )]
    PidsLimit(NonZeroU32),
    /// The supervisor or its pipes could not be made.
    #[error("could not {0}")]
    System(&'static str, #[source] io::Error),
    /// Killed processes that do not end, as in an uninterruptible sleep.
    #[error("processes of `{program}` could not be ended within {drain:?} of SIGKILL: they hang in the kernel", program = .program.display())]
    Unkillable {
        /// Absolute path.
        program: PathBuf,
        /// The limit.
        drain: Duration,
    },
}

/// Ends runs from another thread or a signal handler's thread; once triggered it stays so.
#[derive(Debug)]
pub struct Cancel(EventFd);

impl Cancel {
    /// Returns one that nobody has triggered.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new() -> Result<Self, EngineError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        EventFd::from_flags(flags).map(Self).map_err(|errno| EngineError::System("make an eventfd", errno.into()))
    }

    /// Ends every run that was given this cancel, now and later.
    pub fn trigger(&self) {
        // A counter that is full is as readable as one that is not.
        self.0.write(1).ok();
    }

    /// Tells whether `trigger` was called.
    pub fn is_triggered(&self) -> bool {
        let mut events = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut events, Some(TimeSpec::from_duration(Duration::ZERO)), None).is_ok_and(|ready| ready > 0)
    }
}

/// Runs scripts as direct processes with no restriction but the limits, [`SignalReach`] and their death at the end.
#[derive(Default)]
pub struct UnsandboxedScriptRunner {
    slots: Mutex<Vec<Slot>>,
    /// Those that are told to end.
    dismissed: Mutex<Vec<Slot>>,
    /// Scripts that run now.
    running: AtomicUsize,
}

impl UnsandboxedScriptRunner {
    /// Returns a runner without any slot; the first runs make them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts what the first script will be handed to, which goes on while the caller does something else. Without, and if it cannot
    /// be had, the first run does it.
    pub fn warm_up(&self, signals: SignalReach) {
        if let Ok(slot) = Slot::new(signals) {
            lock(&self.slots).push(slot);
        }
    }

    /// Returns a slot that can be used, if there is one; those whose helpers were killed while they were idle are dropped.
    fn idle(&self, signals: SignalReach) -> Option<Slot> {
        loop {
            let slot = {
                let mut slots = lock(&self.slots);
                let at = slots.iter().position(|slot| slot.signals == signals)?;
                slots.swap_remove(at)
            };
            if slot.is_whole() {
                return Some(slot);
            }
        }
    }

    /// `None`: the supervisor was killed before it took the script.
    ///
    /// # Errors
    /// As `ScriptRunner::run`.
    fn run_in(
        &self,
        mut slot: Slot,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Option<Completion>, EngineError> {
        let others = self.running.fetch_add(1, Ordering::Relaxed);
        let _one_less = OneLess(&self.running);
        slot.lingers = others == 0 && has_several_processors();
        let result = slot.run(script, cancel, meanwhile);
        if slot.is_usable {
            lock(&self.slots).push(slot);
        }
        result
    }
}

fn lock(slots: &Mutex<Vec<Slot>>) -> MutexGuard<'_, Vec<Slot>> {
    // A panic elsewhere cannot leave a Vec of slots half-changed.
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts down when it goes, after a panic too.
struct OneLess<'a>(&'a AtomicUsize);

impl Drop for OneLess<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// With one, whoever stays awake keeps him from working for whom he waits.
fn has_several_processors() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let ours = sched_getaffinity(Pid::from_raw(0));
        ours.is_ok_and(|set| (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).nth(1).is_some())
    })
}

impl ScriptRunner for UnsandboxedScriptRunner {
    fn run_while(
        &self,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Completion, EngineError> {
        check_limits(script)?;
        // A script with the right to do so may have killed the supervisors that wait for work.
        while let Some(slot) = self.idle(script.signals) {
            if let Some(completion) = self.run_in(slot, script, cancel, meanwhile)? {
                return Ok(completion);
            }
        }
        let completion = self.run_in(Slot::new(script.signals)?, script, cancel, meanwhile)?;
        completion.ok_or_else(|| EngineError::System("reach a new supervisor", io::ErrorKind::BrokenPipe.into()))
    }

    fn dismiss(&self) {
        let idle = std::mem::take(&mut *lock(&self.slots));
        idle.iter().for_each(Slot::dismiss);
        lock(&self.dismissed).extend(idle);
    }
}

/// What an earlier run of a harness that was killed has left behind, and that is now gone.
#[derive(Debug, Default)]
pub struct Traces {
    /// Processes that were still alive.
    pub processes: Vec<Leak>,
    /// Cgroups by name.
    pub cgroups: Vec<String>,
}

/// Ends the processes whose environment names `marker`, the scratch folder of a dead run, and removes dead cgroups.
#[must_use]
pub fn sweep_traces(marker: &Path) -> Traces {
    let until = Instant::now() + SWEEP_PATIENCE;
    Traces { processes: traces::kill_marked(marker, until), cgroups: cgroup::sweep_dead() }
}

/// Tells whether nobody but us has `file` open, so that it may be written over (fcntl(2), `F_SETLEASE`). Where the file system
/// knows no leases: no.
pub(crate) fn is_ours_alone(file: &std::fs::File) -> bool {
    raw::is_ours_alone(file.as_fd())
}

/// Tells whether [`SignalReach::OwnProcesses`] is kept by this kernel.
#[must_use]
pub fn can_confine_signals() -> bool {
    raw::can_confine_signals()
}

/// Tells whether a private cgroup can be had for what scripts start.
#[must_use]
pub fn can_make_cgroups() -> bool {
    cgroup::Cgroup::create().is_some()
}

/// # Errors
/// If a limit is zero or longer than `LIMIT_MAX`.
fn check_limits(script: &Script) -> Result<(), EngineError> {
    let limits = script.limits;
    for (name, given) in [("wall", limits.wall), ("grace", limits.grace), ("drain", limits.drain)] {
        if given.is_zero() || given > LIMIT_MAX {
            return Err(EngineError::Limit { name, given });
        }
    }
    Ok(())
}

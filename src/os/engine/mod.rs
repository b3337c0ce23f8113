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
pub(super) mod enclosure;
mod filter;
pub(super) mod pool;
mod pump;
#[expect(unsafe_code, reason = "the one module for what no safe wrapper offers")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "system calls answer in wider types than they take; a conversion that can panic must not stand after a fork"
)]
mod raw;
pub(super) mod remedy;
mod slot;
pub(crate) mod tee;
mod traces;
mod watch;

use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

pub use crate::model::script::LIMIT_MAX;
use crate::model::script::{Completion, Leak, Script, SignalReach};
pub use cgroup::leaf::Leaf;
use pool::Pool;

/// How long the sweep of an earlier run's traces looks for more.
const SWEEP_PATIENCE: Duration = Duration::from_secs(10);

/// Runs scripts: without a sandbox, or in one (`os::sandbox`).
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

    /// Starts what the first script will be handed to, which goes on while the caller does something else. Without, and if it cannot
    /// be had, the first run does it.
    fn warm_up(&self, _signals: SignalReach) {}

    /// Says that no more scripts are expected: what waits for them may end while the caller does something else.
    fn dismiss(&self) {}

    /// Returns whom a work folder must belong to: user and group; `None` if whoever makes it may use it.
    fn owner_of_work(&self) -> Option<(u32, u32)> {
        None
    }

    /// Tells whether changes that are to be dropped really are, so that the next script can have the same work folder.
    fn drops_changes(&self) -> bool {
        false
    }
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
    /// The sandbox cannot be had here. Nothing was run.
    #[error("the sandbox cannot be had: {wall} ({reason}); {remedy}")]
    Wall {
        /// What could not be built.
        wall: &'static str,
        /// What to do about it.
        remedy: &'static str,
        /// What the kernel said; told in the text, so that the remedy is the last word.
        reason: io::Error,
    },
    /// A sandboxed script whose work folder is not where they lie.
    #[error("the work folder `{work_dir}` is not in `{base}`, or the working directory not in it", work_dir = .work_dir.display(), base = .base.display())]
    WorkDir {
        /// Of the script.
        work_dir: PathBuf,
        /// Of the sandbox.
        base: PathBuf,
    },
    /// What a sandboxed script has made of its work folder could not be kept, which is no fault of its: that would be a completion.
    #[error("could not keep what `{program}` has made of `{work_dir}`: {reason}", program = .program.display(), work_dir = .work_dir.display())]
    Keep {
        /// Absolute path.
        program: PathBuf,
        /// Of the script.
        work_dir: PathBuf,
        /// Why.
        reason: String,
    },
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
    /// Whoever started us, or this machine, allows too little of something.
    #[error("could not {action} ({reason}); {remedy}")]
    Scarce {
        /// What was tried.
        action: &'static str,
        /// What to do about it.
        remedy: &'static str,
        /// What the kernel said; told in the text, so that the remedy is the last word.
        reason: io::Error,
    },
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

impl EngineError {
    /// Of a system call: with a remedy if it lacked what a limit keeps from us.
    fn system(action: &'static str, reason: io::Error) -> Self {
        match reason.raw_os_error().and_then(remedy::of_scarcity) {
            Some(remedy) => Self::Scarce { action, remedy, reason },
            None => Self::System(action, reason),
        }
    }
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
        EventFd::from_flags(flags).map(Self).map_err(|errno| EngineError::system("make an eventfd", errno.into()))
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
pub struct UnsandboxedScriptRunner(Pool);

impl UnsandboxedScriptRunner {
    /// Returns a runner without any slot; the first runs make them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl ScriptRunner for UnsandboxedScriptRunner {
    fn run_while(
        &self,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Completion, EngineError> {
        Ok(self.0.run(script, cancel, meanwhile)?.completion)
    }

    fn warm_up(&self, signals: SignalReach) {
        self.0.warm_up(signals);
    }

    fn dismiss(&self) {
        self.0.dismiss();
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

/// Tells whether the memory of all that a sandboxed script starts can be bounded together.
#[must_use]
pub fn can_bound_memory_together() -> bool {
    cgroup::can_limit_memory()
}

/// Tells whether a private cgroup can be had for what scripts start.
#[must_use]
pub fn can_make_cgroups() -> bool {
    cgroup::Cgroup::create().is_some()
}

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
//! child. When the first process has ended (a pidfd tells), the supervisor kills the group **before** it reaps the leader, so
//! that the group's number cannot have been reused; then it kills and reaps until it has no child left. Only then does it
//! answer. So nothing that a script started is alive when `run` returns, and that costs one look when nothing was left.
//!
//! The supervisor is not the harness, so `kill -9 $PPID` cannot end the harness. If it is killed, the *keeper*, a subreaper as
//! well, inherits the orphans and ends them; a script that kills its grandparent too kills the keeper, not the harness. If
//! the harness is killed, the supervisor sees the end of its socket and ends everything. Both live in sessions of their
//! own, with all signals blocked: a signal to the harness's group does not reach them.
//!
//! Both are forked once and used for many scripts (a *slot*; parallel runs take one each): a fork of a process with 30 MB
//! costs 1.5 ms, the supervisor's vfork-like clone 0.05 ms. A request lies in memory that both sides map; the socket hands it
//! over and carries the write ends of the script's two pipes. The harness reads the pipes itself, and waits with a monotonic
//! deadline for whatever comes first: output, the end, a cancel, the limit.
//!
//! Where a private cgroup can be had the supervisor and everything below it lives in one; it is what ends a fork bomb that
//! calls setsid faster than anyone can look. Where it cannot, the last resort stops and kills descendants found in /proc.

mod cgroup;
mod pump;
#[expect(unsafe_code, reason = "the one file for what no safe wrapper offers")]
mod raw;
pub(crate) mod tee;
mod traces;

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, send, sendmsg};
use nix::sys::time::TimeSpec;
use nix::unistd::{Uid, pipe2};

use crate::model::script::{Completion, EndedBy, Exit, Leak, LogFiles, Script, SignalReach, Usage};
use cgroup::{Cgroup, PidsCgroup};
use pump::{Flow, Log, Pump, Ring};
use raw::{Request, Step, Supervisor, word};

/// Longest wall, grace or drain limit: 115 days.
pub const LIMIT_MAX: Duration = Duration::from_secs(10_000_000);

/// Runs scripts. The contract names two implementations: unsandboxed and sandboxed.
pub trait ScriptRunner: Send + Sync {
    /// Runs one script to the end of everything it started, within `wall + grace + drain`.
    ///
    /// # Errors
    /// Only when we failed. A script that fails, hangs, floods or is killed is an `Ok(Completion)`.
    fn run(&self, script: &Script, cancel: &Cancel) -> Result<Completion, EngineError>;
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
}

impl UnsandboxedScriptRunner {
    /// Returns a runner without any slot; the first runs make them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn idle(&self, signals: SignalReach) -> Option<Slot> {
        let mut slots = self.slots();
        let at = slots.iter().position(|slot| slot.signals == signals)?;
        Some(slots.swap_remove(at))
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        // A panic elsewhere cannot leave a Vec of slots half-changed.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ScriptRunner for UnsandboxedScriptRunner {
    fn run(&self, script: &Script, cancel: &Cancel) -> Result<Completion, EngineError> {
        check_limits(script)?;
        let mut slot = match self.idle(script.signals) {
            Some(slot) => slot,
            None => Slot::new(script.signals)?,
        };
        let result = slot.run(script, cancel);
        if slot.is_usable {
            self.slots().push(slot);
        }
        result
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
    Traces { processes: traces::kill_marked(marker), cgroups: cgroup::sweep_dead() }
}

/// Tells whether [`SignalReach::OwnProcesses`] is kept by this kernel.
#[must_use]
pub fn can_confine_signals() -> bool {
    raw::can_confine_signals()
}

fn check_limits(script: &Script) -> Result<(), EngineError> {
    let limits = script.limits;
    for (name, given) in [("wall", limits.wall), ("grace", limits.grace), ("drain", limits.drain)] {
        if given.is_zero() || given > LIMIT_MAX {
            return Err(EngineError::Limit { name, given });
        }
    }
    Ok(())
}

/// A supervisor and what belongs to it. One script at a time.
struct Slot {
    signals: SignalReach,
    supervisor: Supervisor,
    cgroup: Option<Cgroup>,
    pids_cgroup: Option<PidsCgroup>,
    has_pids_limit: bool,
    rings: [Ring; 2],
    is_usable: bool,
}

impl Slot {
    fn new(signals: SignalReach) -> Result<Self, EngineError> {
        let cgroup = Cgroup::create();
        let supervisor = Supervisor::start(cgroup.as_ref().map(Cgroup::fd), signals)
            .map_err(|source| EngineError::System("start a supervisor", source))?;
        Ok(Self {
            signals,
            supervisor,
            cgroup,
            pids_cgroup: None,
            has_pids_limit: false,
            rings: [Ring::new(), Ring::new()],
            is_usable: true,
        })
    }

    fn run(&mut self, script: &Script, cancel: &Cancel) -> Result<Completion, EngineError> {
        self.prepare(script)?;
        let [stdout, stderr] = [output_pipe()?, output_pipe()?];
        let started = Instant::now();
        self.start(&stdout.1, &stderr.1)?;
        drop((stdout.1, stderr.1));
        let Self { supervisor, cgroup, rings: [out_ring, err_ring], is_usable, .. } = self;
        let limits = script.limits;
        let pump = |pipe: OwnedFd, ring, log: fn(&LogFiles) -> &PathBuf| {
            let log = Log::new(script.logs.as_ref().map(|files| log(files).as_path()), limits.log_bytes_max);
            Pump::new(File::from(pipe), ring, limits.kept_bytes_max, log, script.echo)
        };
        let watch = Watch {
            script,
            cancel,
            supervisor,
            cgroup: cgroup.as_ref(),
            stdout: pump(stdout.0, out_ring, |files| &files.stdout),
            stderr: pump(stderr.0, err_ring, |files| &files.stderr),
            started,
            stage: Stage::Running,
            until: started + limits.wall,
            ended_by: EndedBy::Itself,
            ended_at: None,
        };
        watch.run(is_usable)
    }

    fn prepare(&mut self, script: &Script) -> Result<(), EngineError> {
        let program = c_string(script.program.as_os_str())?;
        let cwd = c_string(script.cwd.as_os_str())?;
        let mut argv = vec![program.clone()];
        for arg in &script.args {
            argv.push(c_string(arg)?);
        }
        let mut envp = Vec::new();
        for (name, value) in script.environment.iter() {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            envp.push(c_string(&variable)?);
        }
        let processes_max = self.limit_pids(script.limits.pids_max)?;
        let request = Request {
            program: &program,
            cwd: &cwd,
            argv: &argv.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            envp: &envp.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            processes_max,
        };
        self.supervisor.prepare(&request).ok_or_else(|| EngineError::TooLarge { program: script.program.clone() })
    }

    /// Bounds processes by whatever can be had. Returns the RLIMIT_NPROC to set, which counts all processes of the user, so
    /// that those which exist now are added to it.
    fn limit_pids(&mut self, max: Option<NonZeroU32>) -> Result<u64, EngineError> {
        if max.is_none() && !self.has_pids_limit {
            return Ok(u64::MAX);
        }
        self.has_pids_limit = max.is_some();
        let in_cgroup = self.cgroup.as_ref().is_some_and(|cgroup| cgroup.limit_pids(max).is_ok())
            || self.pids_cgroup.as_ref().is_some_and(|cgroup| cgroup.limit_pids(max).is_ok());
        let Some(max) = max.filter(|_| !in_cgroup) else {
            return Ok(u64::MAX);
        };
        self.pids_cgroup = self.supervisor.pid().and_then(|pid| PidsCgroup::create(pid, max));
        if self.pids_cgroup.is_some() {
            Ok(u64::MAX)
        } else if Uid::effective().is_root() {
            Err(EngineError::PidsLimit(max))
        } else {
            Ok(traces::count_threads_of_user() + u64::from(max.get()))
        }
    }

    /// Hands the request and the write ends of the pipes over.
    fn start(&mut self, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<(), EngineError> {
        let fds = [stdout.as_raw_fd(), stderr.as_raw_fd()];
        let parts = [io::IoSlice::new(&[word::RUN])];
        let rights = [ControlMessage::ScmRights(&fds)];
        let socket = self.supervisor.socket().as_raw_fd();
        sendmsg::<()>(socket, &parts, &rights, MsgFlags::MSG_NOSIGNAL, None).map(drop).map_err(|errno| {
            // Killed while it was idle: the next run gets another.
            self.is_usable = false;
            EngineError::System("reach the supervisor; something killed it", errno.into())
        })
    }
}

fn c_string(text: &OsStr) -> Result<CString, EngineError> {
    CString::new(text.as_bytes()).map_err(|_| EngineError::Nul(text.to_string_lossy().into_owned()))
}

/// Returns the end to read, which does not block, and the end to write.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), EngineError> {
    let made = pipe2(OFlag::O_CLOEXEC).and_then(|(read, write)| {
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((read, write))
    });
    made.map_err(|errno| EngineError::System("make a pipe", errno.into()))
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Until the wall limit.
    Running,
    /// SIGTERM was sent; until the grace limit.
    Terminating,
    /// SIGKILL was sent; until the drain limit.
    Killing,
    /// As `Killing`, by the cgroup or by /proc.
    LastResort,
    /// Everything is dead; what is left in the pipes is read until the drain limit.
    Over,
}

/// One run, from its start to its completion.
struct Watch<'a> {
    script: &'a Script,
    cancel: &'a Cancel,
    supervisor: &'a Supervisor,
    cgroup: Option<&'a Cgroup>,
    stdout: Pump<'a>,
    stderr: Pump<'a>,
    started: Instant,
    stage: Stage,
    until: Instant,
    ended_by: EndedBy,
    ended_at: Option<Instant>,
}

/// What became ready.
struct Ready {
    socket: bool,
    stdout: bool,
    stderr: bool,
    cancel: bool,
}

impl Watch<'_> {
    fn run(mut self, is_usable: &mut bool) -> Result<Completion, EngineError> {
        while !(self.stage == Stage::Over && self.stdout.fd().is_none() && self.stderr.fd().is_none()) {
            let ready = self.wait()?;
            if ready.stdout && self.stdout.take() == Flow::Ended {
                self.stdout.close();
            }
            if ready.stderr && self.stderr.take() == Flow::Ended {
                self.stderr.close();
            }
            if ready.socket {
                *is_usable = self.hear()?;
            }
            if ready.cancel && self.stage == Stage::Running {
                self.ended_by = EndedBy::Cancel;
                self.enter(Stage::Terminating);
            }
            if Instant::now() >= self.until {
                self.escalate().inspect_err(|_| *is_usable = false)?;
            }
        }
        Ok(self.complete())
    }

    /// Waits for output, for the supervisor, for a cancel, or until the stage's limit.
    fn wait(&self) -> Result<Ready, EngineError> {
        let is_over = self.stage == Stage::Over;
        let watched = [
            (!is_over).then(|| self.supervisor.socket()),
            self.stdout.fd(),
            self.stderr.fd(),
            (self.stage == Stage::Running).then(|| self.cancel.0.as_fd()),
        ];
        let mut events: Vec<PollFd<'_>> =
            watched.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let left = TimeSpec::from_duration(self.until.saturating_duration_since(Instant::now()));
        match ppoll(&mut events, Some(left), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(EngineError::System("wait for the script", errno.into())),
        }
        let mut answers = events.iter().map(|event| event.any().unwrap_or(false));
        let [socket, stdout, stderr, cancel] = watched.map(|fd| fd.is_some() && answers.next().unwrap_or(false));
        Ok(Ready { socket, stdout, stderr, cancel })
    }

    /// Takes a word of the supervisor. Returns whether it can be used again.
    fn hear(&mut self) -> Result<bool, EngineError> {
        let mut byte = [0];
        let got = recv(self.supervisor.socket().as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT);
        let is_usable = match got {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(true),
            Ok(1) if byte[0] == word::ENDED => true,
            Ok(1) => return Err(self.start_error()),
            Ok(_) | Err(_) => {
                self.bury();
                false
            }
        };
        self.ended_at = Some(Instant::now());
        self.enter(Stage::Over);
        Ok(is_usable)
    }

    /// The supervisor was killed, by us as a last resort or by somebody. Its keeper ends the rest; if that was killed as
    /// well, the cgroup or the environment tells what is left.
    fn bury(&mut self) {
        if self.stage != Stage::LastResort {
            self.ended_by = EndedBy::SupervisorKilled;
        }
        if let Some(cgroup) = self.cgroup {
            cgroup.kill().ok();
        }
        if let Some(marker) = &self.script.marker {
            traces::kill_marked(marker);
        }
    }

    fn start_error(&self) -> EngineError {
        let failure = self.supervisor.start_failure();
        EngineError::Start {
            program: self.script.program.clone(),
            cwd: self.script.cwd.clone(),
            step: match failure.step {
                Step::Clone => "clone",
                Step::Session => "setsid",
                Step::Streams => "dup2",
                Step::Chdir => "chdir",
                Step::Limit => "setrlimit",
                Step::Exec => "exec",
            },
            source: io::Error::from_raw_os_error(failure.errno),
        }
    }

    /// The limit of a stage has passed.
    fn escalate(&mut self) -> Result<(), EngineError> {
        match self.stage {
            Stage::Running => {
                self.ended_by = EndedBy::Timeout;
                self.enter(Stage::Terminating);
            }
            Stage::Terminating => self.enter(Stage::Killing),
            Stage::Killing => self.enter(Stage::LastResort),
            Stage::LastResort => {
                let program = self.script.program.clone();
                return Err(EngineError::Unkillable { program, drain: self.script.limits.drain });
            }
            Stage::Over => {
                self.stdout.close();
                self.stderr.close();
            }
        }
        Ok(())
    }

    fn enter(&mut self, stage: Stage) {
        let limits = self.script.limits;
        // Half of the drain limit each, so that both together keep the promise.
        let (order, time) = match stage {
            Stage::Running => (None, limits.wall),
            Stage::Terminating => (Some(word::TERMINATE), limits.grace),
            Stage::Killing => (Some(word::KILL), limits.drain / 2),
            Stage::LastResort => (None, limits.drain / 2),
            Stage::Over => (None, limits.drain),
        };
        if let Some(order) = order {
            // If it is dead, the socket's end says so at the next look.
            send(self.supervisor.socket().as_raw_fd(), &[order], MsgFlags::MSG_NOSIGNAL).ok();
        }
        if stage == Stage::LastResort {
            match self.cgroup {
                Some(cgroup) if cgroup.kill().is_ok() => {}
                Some(_) | None => drop(self.supervisor.pid().map(traces::kill_descendants)),
            }
        }
        self.stage = stage;
        self.until = Instant::now() + time;
    }

    fn complete(self) -> Completion {
        let outcome = self.supervisor.outcome();
        let (stdout, stdout_error) = self.stdout.finish();
        let (stderr, stderr_error) = self.stderr.finish();
        let usage = outcome.as_ref().map_or_else(Usage::default, |outcome| Usage {
            user: micros(outcome.user_us),
            system: micros(outcome.system_us),
            max_rss_bytes: u64::try_from(outcome.max_rss_kib).unwrap_or(0) * 1024,
        });
        Completion {
            // Without its supervisor nobody saw how it ended; it was killed with it.
            exit: outcome.as_ref().map_or(Exit::Signal(libc::SIGKILL), |outcome| decode(outcome.status)),
            ended_by: self.ended_by,
            stdout,
            stderr,
            wall: self.ended_at.unwrap_or(self.until).duration_since(self.started),
            usage,
            leaked: outcome.map_or_else(Vec::new, |outcome| {
                outcome.leaks.into_iter().map(|(pid, command)| Leak { pid, command }).collect()
            }),
            log_error: stdout_error.or(stderr_error),
        }
    }
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// wait(2): the low seven bits are a signal, or 0 and the next byte is the exit code.
fn decode(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) { Exit::Signal(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) }
}

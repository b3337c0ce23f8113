//! One run, from the moment the supervisor has it to its completion: the loop that waits for whatever comes first.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::sched_yield;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, send};
use nix::sys::time::TimeSpec;

use super::cgroup::Cgroup;
use super::pool::Ran;
use super::pump::{Flow, Pump};
use super::raw::{self, LINGERING_LOOKS, Supervisor, word};
use super::remedy::{of_scarcity, remedy};
use super::{Cancel, EngineError, traces};
use crate::model::script::{Changes, Completion, EndedBy, Exit, Leak, Script, Usage};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
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
pub(super) struct Watch<'a> {
    pub(super) script: &'a Script,
    pub(super) cancel: &'a Cancel,
    pub(super) supervisor: &'a Supervisor,
    pub(super) cgroup: Option<&'a Cgroup>,
    pub(super) stdout: Pump<'a>,
    pub(super) stderr: Pump<'a>,
    /// Whether it is worth to be awake when the script ends.
    pub(super) lingers: bool,
    pub(super) started: Instant,
    pub(super) stage: Stage,
    pub(super) until: Instant,
    /// The end of all limits together.
    pub(super) give_up_at: Instant,
    pub(super) ended_by: EndedBy,
    pub(super) ended_at: Option<Instant>,
    /// The work folder, as a sandboxed script has it.
    pub(super) work_dir: Option<OwnedFd>,
}

/// How a run was seen to its end.
pub(super) enum Ended {
    /// The supervisor said so.
    Answered(Ran),
    /// The supervisor died.
    Buried(Ran),
    /// The supervisor had died before it took the script.
    NotTaken,
}

/// What the socket to the supervisor brought.
enum Heard {
    Nothing,
    Ended,
    Death,
}

/// What became ready.
struct Ready {
    socket: bool,
    stdout: bool,
    stderr: bool,
    cancel: bool,
}

impl Watch<'_> {
    /// Waits for the end of everything that the script started, or of all patience.
    ///
    /// # Errors
    /// If the script was not started, or cannot be ended.
    pub(super) fn run(mut self) -> Result<Ended, EngineError> {
        let mut is_answered = true;
        while !(self.stage == Stage::Over && self.stdout.fd().is_none() && self.stderr.fd().is_none()) {
            let ready = self.wait()?;
            if ready.stdout && self.stdout.take() == Flow::Ended {
                self.stdout.close();
            }
            if ready.stderr && self.stderr.take() == Flow::Ended {
                self.stderr.close();
            }
            if ready.socket {
                match self.hear()? {
                    Heard::Nothing => {}
                    Heard::Ended => self.enter(Stage::Over),
                    Heard::Death if !self.supervisor.has_taken_request() => return Ok(Ended::NotTaken),
                    Heard::Death => {
                        is_answered = false;
                        self.bury();
                        self.enter(Stage::Over);
                    }
                }
            }
            if ready.cancel && self.stage == Stage::Running {
                self.ended_by = EndedBy::Cancel;
                self.enter(Stage::Terminating);
            }
            if Instant::now() >= self.until {
                self.escalate()?;
            }
        }
        let ran = self.complete();
        Ok(if is_answered { Ended::Answered(ran) } else { Ended::Buried(ran) })
    }

    /// Waits for output, for the supervisor, for a cancel, or until the stage's limit.
    ///
    /// # Errors
    /// If ppoll(2) fails.
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
        if self.lingers && self.stage == Stage::Running && self.stdout.fd().is_none() && self.stderr.fd().is_none() {
            // Its end follows at once, most often.
            linger(&mut events);
        }
        match ppoll(&mut events, Some(left), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(EngineError::System("wait for the script", errno.into())),
        }
        let mut answers = events.iter().map(|event| event.any().unwrap_or(false));
        let [socket, stdout, stderr, cancel] = watched.map(|fd| fd.is_some() && answers.next().unwrap_or(false));
        Ok(Ready { socket, stdout, stderr, cancel })
    }

    /// Takes a word of the supervisor.
    ///
    /// # Errors
    /// If the word is that the script was not started.
    fn hear(&mut self) -> Result<Heard, EngineError> {
        let mut byte = [0];
        match self.receive(&mut byte) {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Heard::Nothing),
            Ok(1) if byte[0] == word::WORK_DIR => Ok(Heard::Nothing),
            Ok(1) if byte[0] == word::ENDED => Ok(Heard::Ended),
            Ok(1) if byte[0] == word::SWEEPING => {
                self.ended_at = Some(Instant::now());
                // The supervisor kills without an order; what does not die of it has until the drain limit.
                if matches!(self.stage, Stage::Running | Stage::Terminating) {
                    self.enter(Stage::Killing);
                }
                Ok(Heard::Nothing)
            }
            Ok(1) => Err(self.start_error()),
            Ok(_) | Err(_) => Ok(Heard::Death),
        }
    }

    /// Receives a word, and the work folder if that comes with it.
    ///
    /// # Errors
    /// If there is none now, or never again.
    fn receive(&mut self, byte: &mut [u8; 1]) -> Result<usize, Errno> {
        let socket = self.supervisor.socket().as_raw_fd();
        if self.script.changes == Changes::Dropped {
            return recv(socket, byte, MsgFlags::MSG_DONTWAIT);
        }
        let mut parts = [io::IoSliceMut::new(byte)];
        let mut room = nix::cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket, &mut parts, Some(&mut room), flags)?;
        for received in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = received {
                self.work_dir = fds.into_iter().map(raw::own).next();
            }
        }
        Ok(message.bytes)
    }

    /// The supervisor was killed, by us as a last resort or by somebody. Its keeper ends the rest; if that was killed as
    /// well, the cgroup or the environment tells what is left.
    fn bury(&mut self) {
        if self.stage != Stage::LastResort {
            self.lose_supervisor();
        }
        if let Some(cgroup) = self.cgroup {
            cgroup.kill().ok();
        }
        if let Some(marker) = &self.script.marker {
            self.supervisor.freeze();
            traces::kill_marked(marker, self.give_up_at);
            self.supervisor.thaw();
        }
    }

    fn lose_supervisor(&mut self) {
        if self.ended_by == EndedBy::Itself {
            self.ended_by = EndedBy::SupervisorKilled;
        }
    }

    fn start_error(&self) -> EngineError {
        let failure = self.supervisor.start_failure();
        let source = io::Error::from_raw_os_error(failure.errno);
        if failure.step.is_wall() {
            let remedy = remedy(failure.step, failure.errno);
            return EngineError::Wall { wall: failure.step.as_str(), remedy, reason: source };
        }
        if let Some(remedy) = of_scarcity(failure.errno) {
            return EngineError::Scarce { action: "start a script", remedy, reason: source };
        }
        EngineError::Start {
            program: self.script.program.clone(),
            cwd: self.script.cwd.clone(),
            step: failure.step.as_str(),
            source,
        }
    }

    /// The limit of a stage has passed.
    ///
    /// # Errors
    /// If it was the last one, and something is still alive.
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
        let time = match stage {
            Stage::Running => limits.wall,
            Stage::Terminating => {
                self.order(word::TERMINATE);
                limits.grace
            }
            Stage::Killing => {
                self.order(word::KILL);
                limits.drain / 2
            }
            Stage::LastResort => {
                self.kill_from_outside();
                limits.drain / 2
            }
            Stage::Over => {
                self.ended_at.get_or_insert_with(Instant::now);
                limits.drain
            }
        };
        self.stage = stage;
        self.until = (Instant::now() + time).min(self.give_up_at);
    }

    fn order(&self, order: u8) {
        // If it is dead, the socket's end says so at the next look; a supervisor that is sweeping needs no order.
        send(self.supervisor.socket().as_raw_fd(), &[order], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT).ok();
        self.supervisor.wake_keeper();
    }

    /// The supervisor does not answer, because it was stopped, or cannot kill faster than what it kills forks.
    fn kill_from_outside(&self) {
        if let Some(cgroup) = self.cgroup {
            cgroup.kill().ok();
        }
        self.supervisor.freeze();
        if let Some(pid) = self.supervisor.pid() {
            traces::kill_descendants(pid, self.give_up_at);
        }
        self.supervisor.thaw();
    }

    fn complete(mut self) -> Ran {
        let outcome = self.supervisor.outcome();
        if outcome.is_none() {
            // Whoever stood in for the supervisor was killed: nobody saw the end of the script.
            self.lose_supervisor();
        }
        let (stdout, stdout_error) = self.stdout.finish();
        let (stderr, stderr_error) = self.stderr.finish();
        let usage = outcome.as_ref().map_or_else(Usage::default, |outcome| Usage {
            user: micros(outcome.user_us),
            system: micros(outcome.system_us),
            max_rss_bytes: u64::try_from(outcome.max_rss_kib).unwrap_or(0) * 1024,
            memory_peak_bytes: None,
            started: (outcome.started > 0).then_some(outcome.started),
            written_bytes: (outcome.started > 0).then_some(outcome.written),
        });
        let completion = Completion {
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
            unkept: None,
        };
        Ran { completion, work_dir: self.work_dir }
    }
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// wait(2): the low seven bits are a signal, or 0 and the next byte is the exit code.
fn decode(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) { Exit::Signal(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) }
}

/// Looks for one of `events` for a moment, without sleeping: to be woken takes longer.
fn linger(events: &mut [PollFd<'_>]) {
    let now = Some(TimeSpec::from_duration(Duration::ZERO));
    for _ in 0..LINGERING_LOOKS {
        if ppoll(events, now, None) != Ok(0) {
            return;
        }
        // Refused or not, it was a look.
        sched_yield().ok();
    }
}

//! A supervisor and what belongs to it: its cgroup, its buffers; how a script is handed to it.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Uid, fchown, pipe2};

use super::cgroup::{Cgroup, Memory, PidsCgroup};
use super::enclosure::Enclosure;
use super::pool::Ran;
use super::pump::{Log, Pump, Ring};
use super::raw::{Request, Supervisor, word};
use super::watch::{Ended, Stage, Watch};
use super::{Cancel, EngineError, traces};
use crate::model::script::{EndedBy, Exit, LogFiles, Script, SignalReach};

const START_SUPERVISOR: &str = "start a supervisor";

/// A supervisor and what belongs to it. One script at a time.
pub(super) struct Slot {
    pub(super) signals: SignalReach,
    enclosure: Option<Arc<Enclosure>>,
    supervisor: Supervisor,
    cgroup: Option<Cgroup>,
    pids_cgroup: Option<PidsCgroup>,
    /// In the sandbox, where it can be had.
    memory: Option<Memory>,
    has_pids_limit: bool,
    rings: [Ring; 2],
    /// Whether both sides stay awake for a moment where the other's word follows at once, most often. To be woken costs a virtual
    /// machine more than the word takes; but where others run, the time is theirs.
    pub(super) lingers: bool,
    /// Whether another script can be run in it.
    pub(super) is_usable: bool,
}

impl Slot {
    /// Starts a supervisor, in a cgroup of its own if there is one to be had, and behind walls if they are wanted.
    ///
    /// # Errors
    /// If no process, descriptor or memory is left.
    pub(super) fn new(signals: SignalReach, enclosure: Option<Arc<Enclosure>>) -> Result<Self, EngineError> {
        let cgroup = Cgroup::create();
        let plan = enclosure.as_ref().map(|enclosure| &enclosure.plan);
        let supervisor = Supervisor::start(cgroup.as_ref().map(Cgroup::fd), signals, plan)
            .map_err(|source| EngineError::system(START_SUPERVISOR, source))?;
        let memory = enclosure
            .as_ref()
            .and_then(|enclosure| Memory::limit(cgroup.as_ref(), supervisor.pid()?, enclosure.limits.memory_bytes_max));
        if enclosure.is_some() {
            supervisor.begin();
        }
        Ok(Self {
            signals,
            enclosure,
            supervisor,
            cgroup,
            pids_cgroup: None,
            memory,
            has_pids_limit: false,
            rings: [Ring::new(), Ring::new()],
            lingers: false,
            is_usable: true,
        })
    }

    /// Tells whether keeper and supervisor are there.
    pub(super) fn is_whole(&self) -> bool {
        self.supervisor.has_keeper()
    }

    /// Has both end while the caller does something else; dropping the slot waits for it.
    pub(super) fn dismiss(&self) {
        self.supervisor.dismiss();
    }

    /// Runs one script. `None`: the supervisor was killed before it took the script, which has not been started.
    ///
    /// # Errors
    /// As `ScriptRunner::run`.
    pub(super) fn run(
        &mut self,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Option<Ran>, EngineError> {
        self.prepare(script)?;
        self.memory.as_ref().inspect(|memory| memory.begin());
        let [stdout, stderr] = [self.output_pipe()?, self.output_pipe()?];
        let started = Instant::now();
        let give_up_at = started + script.limits.wall + script.limits.grace + script.limits.drain;
        if !self.start(&stdout.1, &stderr.1)? {
            self.supervisor.stop_until(give_up_at);
            return self.not_taken();
        }
        drop((stdout.1, stderr.1));
        let before = Instant::now();
        meanwhile();
        // A limit that ran out while nobody listened would be told of a script that could not be heard.
        let deaf = before.elapsed();
        let give_up_at = give_up_at + deaf;
        let Self { supervisor, cgroup, rings: [out_ring, err_ring], lingers, is_usable, .. } = self;
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
            lingers: *lingers,
            started,
            stage: Stage::Running,
            until: started + limits.wall + deaf,
            give_up_at,
            ended_by: EndedBy::Itself,
            ended_at: None,
            work_dir: None,
        };
        let ended = watch.run();
        // Only a supervisor that has answered can be used again.
        *is_usable = matches!(ended, Ok(Ended::Answered(_)) | Err(EngineError::Start { .. }));
        if !*is_usable {
            supervisor.stop_until(give_up_at);
        }
        match ended? {
            Ended::Answered(ran) | Ended::Buried(ran) => Ok(Some(self.with_memory(ran))),
            Ended::NotTaken => self.not_taken(),
        }
    }

    /// Nobody took the script, because the supervisor is dead.
    ///
    /// # Errors
    /// If it never lived, or not for want of memory: another would not, either.
    fn not_taken(&mut self) -> Result<Option<Ran>, EngineError> {
        if let Some(errno) = self.supervisor.stillborn_errno() {
            return Err(EngineError::system(START_SUPERVISOR, io::Error::from_raw_os_error(errno)));
        }
        if self.memory.as_mut().is_some_and(Memory::has_killed) {
            let reason = io::ErrorKind::OutOfMemory.into();
            return Err(EngineError::Scarce {
                action: START_SUPERVISOR,
                remedy: "raise `sandbox-limits.memory` (of a worker RUNNER_SANDBOX_MEMORY_MB)",
                reason,
            });
        }
        Ok(None)
    }

    /// Adds what the memory cgroup tells.
    fn with_memory(&mut self, mut ran: Ran) -> Ran {
        let Some(memory) = &mut self.memory else { return ran };
        let completion = &mut ran.completion;
        completion.usage.memory_peak_bytes = memory.peak();
        // A sandboxed script cannot kill its supervisor, but the kernel may choose it, the largest among small ones.
        let ended_itself = matches!(completion.ended_by, EndedBy::Itself | EndedBy::SupervisorKilled);
        let was_killed = ended_itself && completion.exit != Exit::Code(0);
        if was_killed && memory.has_killed() {
            completion.ended_by = EndedBy::OutOfMemory;
        }
        ran
    }

    /// Writes the request into the memory shared with the supervisor.
    ///
    /// # Errors
    /// If the script cannot be expressed: a NUL byte, too large, a limit that cannot be had.
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
        let enclosure = self.enclosure.clone();
        let room = enclosure.as_ref().map(|enclosure| enclosure.room(script, self.memory.is_some())).transpose()?;
        let processes_max = match &enclosure {
            // Of its user namespace nobody else has processes; the three of ours are added.
            Some(enclosure) => {
                u64::from(script.limits.pids_max.map_or(u32::MAX, NonZeroU32::get).min(enclosure.limits.processes_max))
                    + 3
            }
            None => self.limit_pids(script.limits.pids_max)?,
        };
        let request = Request {
            program: &program,
            cwd: &cwd,
            argv: &argv.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            envp: &envp.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            processes_max,
            room,
            lingers: self.lingers,
        };
        self.supervisor.prepare(&request).ok_or_else(|| EngineError::TooLarge { program: script.program.clone() })
    }

    /// Bounds processes by whatever can be had. Returns the RLIMIT_NPROC to set, which counts all processes of the user, so
    /// that those which exist now are added to it.
    ///
    /// # Errors
    /// If there is no cgroup and we are root, whom that limit does not bind.
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

    /// Returns the end to read, which does not block, and the end to write, which its script may open anew (`/dev/stderr`).
    ///
    /// # Errors
    /// If no descriptor is left.
    fn output_pipe(&self) -> Result<(OwnedFd, OwnedFd), EngineError> {
        let user = self.enclosure.as_ref().map(|enclosure| enclosure.plan.user).filter(|user| user.is_another);
        let made = pipe2(OFlag::O_CLOEXEC).and_then(|(read, write)| {
            fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            if let Some(user) = user {
                fchown(&write, Some(user.outer_uid.into()), Some(user.outer_gid.into()))?;
            }
            Ok((read, write))
        });
        made.map_err(|errno| EngineError::system("make a pipe", errno.into()))
    }

    /// Hands the request and the write ends of the pipes over. Returns whether the supervisor was there to take them.
    ///
    /// # Errors
    /// If the socket fails otherwise.
    fn start(&mut self, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<bool, EngineError> {
        let fds = [stdout.as_raw_fd(), stderr.as_raw_fd()];
        let parts = [io::IoSlice::new(&[word::RUN])];
        let rights = [ControlMessage::ScmRights(&fds)];
        let socket = self.supervisor.socket().as_raw_fd();
        match sendmsg::<()>(socket, &parts, &rights, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => Ok(true),
            Err(Errno::EPIPE | Errno::ECONNRESET) => {
                self.is_usable = false;
                Ok(false)
            }
            Err(errno) => Err(EngineError::system("hand a script to the supervisor", errno.into())),
        }
    }
}

/// # Errors
/// If there is a NUL byte.
pub(super) fn c_string(text: &OsStr) -> Result<CString, EngineError> {
    CString::new(text.as_bytes()).map_err(|_| EngineError::Nul(text.to_string_lossy().into_owned()))
}

//! What the engine runs and what it saw: a script, its limits, its completion.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

/// One program with its arguments, as the engine starts it: stdin is `/dev/null`, the environment is exactly `environment`.
#[derive(Debug, Clone)]
pub struct Script {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<OsString>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The folder that it may change, `cwd` or one above it. Nothing but a sandbox keeps it from changing others.
    pub work_dir: PathBuf,
    /// What becomes of its changes there.
    pub changes: Changes,
    /// The whole environment; nothing is inherited.
    pub environment: Environment,
    /// When the script is ended, and how much of it is kept.
    pub limits: Limits,
    /// Files that receive the output while the script runs; created with the first byte.
    pub logs: Option<LogFiles>,
    /// Whom the script's processes may signal.
    pub signals: SignalReach,
    /// Whether the output is shown while it comes.
    pub echo: Echo,
    /// A path that a variable of `environment` names and that no process outside this run knows: the last resort finds by it
    /// what is left of a script that has killed all who watched over it.
    pub marker: Option<PathBuf>,
}

/// What becomes of what a script changes in its work folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// It is there afterwards.
    Kept,
    /// Nobody needs it. In a sandbox it goes with the script; without one it is there.
    Dropped,
}

/// Variables in the order in which they were declared; names are unique.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// Sets `name`, in place if it is there, else at the end.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some(slot) => slot.1 = value,
            None => self.0.push((name, value)),
        }
    }

    /// Returns the value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// Iterates in the order of declaration.
    pub fn iter(&self) -> impl Iterator<Item = &(OsString, OsString)> {
        self.0.iter()
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            environment.set(name, value);
        }
        environment
    }
}

/// The bounds of one run. It returns within `wall + grace + drain`, whatever the script does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time until SIGTERM.
    pub wall: Duration,
    /// Time from SIGTERM to SIGKILL.
    pub grace: Duration,
    /// Time for what is left in the pipes and for the kernel to end what was killed.
    pub drain: Duration,
    /// Bytes of each stream kept in memory, half of them head and half of them tail; at most 512 KiB.
    pub kept_bytes_max: usize,
    /// Bytes of each stream written to its log file before it is cut.
    pub log_bytes_max: u64,
    /// Processes and threads that may exist at once.
    pub pids_max: Option<NonZeroU32>,
}

/// Longest wall, grace or drain limit: some 116 days.
pub const LIMIT_MAX: Duration = Duration::from_secs(10_000_000);

/// How much one sandboxed script may use, with all that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxLimits {
    /// Processes and threads at once.
    pub processes_max: u32,
    /// Open files of each process.
    pub open_files_max: u32,
    /// Bytes of memory: of all together where a memory cgroup can be had, else of each process's address space.
    pub memory_bytes_max: u64,
    /// Bytes of everything it writes to files together, which are kept in memory, and of each file.
    pub disk_bytes_max: u64,
    /// Files and folders that it makes or changes.
    pub disk_files_max: u32,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        Self {
            processes_max: 512,
            open_files_max: 1024,
            memory_bytes_max: 2 << 30,
            disk_bytes_max: 512 << 20,
            disk_files_max: 50_000,
        }
    }
}

/// Folders of which sandboxed scripts have one of their own.
const OWN: [&str; 4] = ["/dev", "/proc", "/tmp", "/var/tmp"];

/// Tells why sandboxed scripts cannot be shown a path of this machine, if they cannot.
pub(crate) fn why_not_shown(path: &Path) -> Option<&'static str> {
    if !path.has_root() {
        return Some("it must start with `/`");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Some("write it without `..`");
    }
    if path.parent().is_none() {
        return Some("name what is in it that scripts need");
    }
    OWN.iter().any(|own| path.starts_with(own)).then_some("scripts have one of their own there")
}

/// Tells whether a character does not show what it is: it would drive a terminal, turn what stands beside it around, or make XML
/// that nobody can read (XML 1.0, "Characters").
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a script's output is shown while it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// It is only captured.
    Off,
    /// Both streams are copied to our standard error, hidden characters escaped.
    Stderr,
}

/// Where the two streams are written while the script runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFiles {
    /// Receives standard output.
    pub stdout: PathBuf,
    /// Receives standard error.
    pub stderr: PathBuf,
}

/// Whom the script's processes may signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalReach {
    /// Any process the user may signal: a suite restarts services.
    Machine,
    /// Only processes of this run (Landlock, Linux 6.12), else as `Machine`. Without root this also sets `no_new_privs`.
    OwnProcesses,
}

/// How the first process of a script ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// `exit(code)`, 0 to 255.
    Code(i32),
    /// Killed by this signal number.
    Signal(i32),
}

impl fmt::Display for Exit {
    /// `code 3`, `signal SIGSEGV`, `signal 40`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {signal}"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// Why a run ended. A separate fact from [`Exit`]: a script may trap SIGTERM and exit 0 after its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// The script ended before anyone asked it to.
    Itself,
    /// The wall limit passed.
    Timeout,
    /// The run was cancelled.
    Cancel,
    /// The kernel ended some of it, because its memory limit was reached.
    OutOfMemory,
    /// Its supervisor was killed, by the script or by the operator, and everything it started with it.
    SupervisorKilled,
}

/// What was read from one stream: the first bytes, the last bytes, and how many there were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// The first bytes.
    pub head: Vec<u8>,
    /// The last bytes that are not in `head`.
    pub tail: Vec<u8>,
    /// All bytes that the script wrote.
    pub total_bytes: u64,
}

impl Stream {
    /// Returns what was kept, head and tail together; a gap between them is not marked.
    #[must_use]
    pub fn kept_bytes(&self) -> Vec<u8> {
        [self.head.as_slice(), self.tail.as_slice()].concat()
    }

    /// Tells whether what was kept is UTF-8, but for a character that is cut at the gap.
    #[must_use]
    pub fn is_text(&self) -> bool {
        let is_whole = self.dropped_bytes() == 0;
        let ends_well = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) => !is_whole && error.error_len().is_none(),
        };
        if is_whole {
            return ends_well(&self.kept_bytes());
        }
        let is_inside = |byte: &&u8| **byte & 0xC0 == 0x80;
        let cut = self.tail.iter().take(3).take_while(is_inside).count();
        ends_well(&self.head) && ends_well(&self.tail[cut..])
    }

    /// Returns how many bytes between `head` and `tail` were not kept.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.head.len() as u64 + self.tail.len() as u64)
    }
}

/// What the first process and the children it waited for used (`wait4`, getrusage(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Largest resident set of any one of them, in bytes. Never less than what the supervisor, a fork of ours, had when it
    /// executed the first process: the kernel counts that too.
    pub max_rss_bytes: u64,
    /// Most memory that everything it started had at once, files in memory included, in bytes; known where a memory cgroup can be
    /// had, for sandboxed scripts.
    pub memory_peak_bytes: Option<u64>,
    /// Processes and threads that were started; known of sandboxed scripts.
    pub started: Option<u64>,
    /// What lay in the folders that it may write to when all of them had ended, the set-up's files not counted, in bytes; known of
    /// sandboxed scripts.
    pub written_bytes: Option<u64>,
}

/// A process that was alive after the script's first process had ended, and was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// Process id, as the machine sees it.
    pub pid: i32,
    /// The kernel's name for it (`/proc/PID/comm`, 15 bytes at most).
    pub command: String,
}

/// What the engine saw of one script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// How the first process ended.
    pub exit: Exit,
    /// Who ended it.
    pub ended_by: EndedBy,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// From start to the end of the first process.
    pub wall: Duration,
    /// What it used.
    pub usage: Usage,
    /// What had to be killed, at most 64 of them.
    pub leaked: Vec<Leak>,
    /// Why output is missing from a log file, for example a full disk; the script was not disturbed by it.
    pub log_error: Option<String>,
    /// Why its work folder is as it was before, although its changes were to be kept: they are such as nobody could keep. That is its own
    /// doing.
    pub unkept: Option<String>,
}

//! Scripts behind walls.
//!
//! # Theory of operation
//!
//! The engine of `os::engine` runs them, and sees them to their end; here is what stands around them. The supervisor enters a user
//! namespace, in which it has every right, and loses those outside of it: as root it becomes a user that owns nothing. For each script
//! it makes a process in namespaces of every other kind, ahead of time. That is the first process of its PID namespace, ours, and ends
//! everything in it when the script has ended. What the script sees is a root of its own: the machine's programs and settings, read-only; its work
//! folder; empty folders for temporary files; a network that consists of the loopback. What it writes lies in one tmpfs of a bounded
//! size that goes with it, the work folder's changes included: they are the upper layer of an overlay. So a script cannot
//! change what the next one gets, and a set-up need not be copied for each.
//!
//! Before it is executed it gives up all rights inside as well, and the right to get any (`no_new_privs`). Two more walls stand behind
//! the first: Landlock forbids once more to write elsewhere, and a seccomp filter what would build new namespaces, and what namespaces
//! do not separate. What a wall needs and cannot have is an error that names it, never a run without it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::model::script::{Changes, Completion, Script, SignalReach};
use crate::model::verdict::Fault;
use crate::os::engine::enclosure::{self, Enclosure};
use crate::os::engine::pool::{Pool, Ran};
use crate::os::engine::{Cancel, EngineError, ScriptRunner};
use crate::os::workdir::{Tree, WorkdirError, give_to, make_readable, remove};

mod probe;
#[cfg(any(target_os = "macos", test))]
mod seatbelt;

pub use crate::model::script::SandboxLimits;
pub use probe::SandboxError;

/// What running one script after another takes, rounded up; measured.
const OPEN_FILES_MIN: u64 = 32;

/// Runs scripts in a sandbox: no network, no rights, nothing of the machine to write to, bounded in everything.
pub struct SandboxedScriptRunner {
    pool: Pool,
    base: PathBuf,
    disk_bytes_max: u64,
}

pub(crate) use crate::os::engine::enclosure::shown_by;
#[cfg(feature = "worker")]
pub(crate) use crate::os::engine::enclosure::shown_in;

impl SandboxedScriptRunner {
    /// Plans a sandbox for scripts whose work folders lie in `base`, which is made if it is not there, and must be ours alone. Scripts also see
    /// the paths `readable` of this machine. What cannot be had is told when the first script runs; try it before with
    /// [`Self::probe`].
    ///
    /// # Errors
    /// If the folder cannot be made or given to the user that scripts run as; if there is no user to whom nothing belongs; on architectures
    /// without a filter for system calls.
    pub fn new(base: &Path, readable: &[PathBuf], limits: SandboxLimits) -> Result<Self, SandboxError> {
        if let Some(missing) = readable.iter().find(|path| path.metadata().is_err()) {
            return Err(SandboxError::NotThere(missing.clone()));
        }
        let open_files_max = enclosure::open_files_max();
        if open_files_max < OPEN_FILES_MIN {
            return Err(SandboxError::OpenFiles(open_files_max));
        }
        let missing = enclosure::missing_rights();
        if !missing.is_empty() {
            return Err(SandboxError::Rights(missing.join(", ")));
        }
        if enclosure::owns_the_machine() {
            return Err(SandboxError::Owner);
        }
        let made = fs::create_dir_all(base).and_then(|()| give_to_owner(base));
        let enclosure = made.and_then(|()| Enclosure::plan(base, readable, limits)).map_err(SandboxError::Folder)?;
        Ok(Self { pool: Pool::enclosed(enclosure), base: base.to_owned(), disk_bytes_max: limits.disk_bytes_max })
    }

    /// Has a script try what the walls forbid.
    ///
    /// # Errors
    /// If a wall cannot be built here, with the remedy; if one does not hold.
    pub fn probe(&self) -> Result<(), SandboxError> {
        probe::probe(self, &self.base.join("probe"), &self.base)
    }

    /// Puts what a script has made of its work folder in its place.
    ///
    /// # Errors
    /// If it cannot be read or written, or is such as nobody could keep.
    fn keep(&self, script: &Script, made: &OwnedFd) -> Result<(), NotKept> {
        let from = PathBuf::from(format!("/proc/self/fd/{}", made.as_raw_fd()));
        make_readable(&from).map_err(NotKept::unreadable)?;
        let tree = Tree::list(&from.join("."))?;
        self.refuse_what_nobody_could_keep(script, &tree)?;
        let mut aside = script.work_dir.clone().into_os_string();
        aside.push(".made");
        let aside = PathBuf::from(aside);
        remove(&aside)?;
        if let Err(error) = tree.copy_to(&aside) {
            remove(&aside)?;
            return Err(error.into());
        }
        give_to_owner(&aside)?;
        remove(&script.work_dir)?;
        Ok(fs::rename(&aside, &script.work_dir)?)
    }

    /// # Errors
    /// If there is something that cannot be copied, or more than the script could write in memory: holes, and files of several names, take
    /// no room there, but on a disk.
    fn refuse_what_nobody_could_keep(&self, script: &Script, tree: &Tree) -> Result<(), NotKept> {
        if let Some(below) = tree.special() {
            let path = script.work_dir.join(below);
            let path = path.strip_prefix(&script.cwd).unwrap_or(below).to_path_buf();
            return Err(NotKept::Theirs(WorkdirError::Special(path).to_string()));
        }
        let (bytes, before) = (tree.bytes(), Tree::list(&script.work_dir)?.bytes());
        if bytes > before.saturating_add(self.disk_bytes_max) {
            return Err(NotKept::Theirs(format!(
                "it is {bytes} bytes, holes counted, more than the {before} before and the {} of `sandbox-limits.disk` (of a worker \
                 RUNNER_SANDBOX_DISK_MB); make less, or raise that",
                self.disk_bytes_max
            )));
        }
        Ok(())
    }
}

/// Why what a script has made of its work folder is not in its place.
enum NotKept {
    /// It is such as nobody could keep.
    Theirs(String),
    /// We could not.
    Ours(String),
}

impl NotKept {
    /// Of an error in what the script has made, not yet of a copy of it.
    fn unreadable(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull {
            // To let ourselves in takes room, of the script's own.
            let reason = "it has used all that `sandbox-limits.disk` and `sandbox-limits.files` (of a worker RUNNER_SANDBOX_DISK_MB and \
                          RUNNER_SANDBOX_FILES) allow; make less, or raise them";
            return Self::Theirs(reason.to_owned());
        }
        error.into()
    }
}

impl From<io::Error> for NotKept {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidFilename {
            // Made step by step, a folder can be deeper than a path can name.
            return Self::Theirs(
                "its folders are so deep that no path can name what is in them; make fewer".to_owned(),
            );
        }
        Self::Ours(with_causes(&error))
    }
}

impl From<WorkdirError> for NotKept {
    fn from(error: WorkdirError) -> Self {
        match error {
            WorkdirError::Io(error) if error.source.kind() == io::ErrorKind::InvalidFilename => error.source.into(),
            WorkdirError::Io(_)
            | WorkdirError::Full { .. }
            | WorkdirError::Special(_)
            | WorkdirError::Tampered(_)
            | WorkdirError::Unsealed => Self::Ours(with_causes(&error)),
        }
    }
}

impl ScriptRunner for SandboxedScriptRunner {
    fn run_while(
        &self,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Completion, EngineError> {
        #[cfg(target_os = "macos")]
        let script = &seatbelt::wrapped(script);
        let Ran { mut completion, work_dir } = self.pool.run(script, cancel, meanwhile)?;
        if let (Changes::Kept, Some(made)) = (script.changes, work_dir) {
            match self.keep(script, &made) {
                Ok(()) => {}
                Err(NotKept::Theirs(reason)) => completion.unkept = Some(reason),
                Err(NotKept::Ours(reason)) => {
                    let (program, work_dir) = (script.program.clone(), script.work_dir.clone());
                    return Err(EngineError::Keep { program, work_dir, reason });
                }
            }
        }
        Ok(completion)
    }

    fn warm_up(&self, signals: SignalReach) {
        self.pool.warm_up(signals);
    }

    fn dismiss(&self) {
        self.pool.dismiss();
    }

    fn owner_of_work(&self) -> Option<(u32, u32)> {
        enclosure::owner()
    }

    fn drops_changes(&self) -> bool {
        true
    }
}

/// An error with its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    Fault::new(error).to_string()
}

/// Gives a folder with all in it to the user that scripts run as.
///
/// # Errors
/// If that is refused.
fn give_to_owner(path: &Path) -> io::Result<()> {
    enclosure::owner().map_or(Ok(()), |owner| give_to(path, owner))
}

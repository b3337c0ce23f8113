//! What the kernel lets this user do: it is really tried, in a process that ends with it. The sandbox's walls are tried by the sandbox.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::model::script::{Changes, Echo, EndedBy, Environment, Exit, Limits, Script, SignalReach};
use crate::os::engine::remedy::of_mounts;
use crate::os::engine::{Cancel, EngineError, ScriptRunner};

/// Something to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A copy-on-write view of `/`, its changes in memory.
    Overlay,
}

/// The word by which this program is called to try something.
pub(crate) const ORDER: &str = "__probe";
const LIMIT: Duration = Duration::from_secs(10);
const KEPT_BYTES_MAX: usize = 4 << 10;

/// Returns a script of ours that tries something in the folder `cwd`, without an environment, for `limit` at most.
pub(crate) fn script(
    program: PathBuf,
    args: Vec<OsString>,
    cwd: &Path,
    limit: Duration,
    kept_bytes_max: usize,
) -> Script {
    Script {
        program,
        args,
        cwd: cwd.to_path_buf(),
        work_dir: cwd.to_path_buf(),
        changes: Changes::Dropped,
        environment: Environment::default(),
        limits: Limits { wall: limit, grace: limit, drain: limit, kept_bytes_max, log_bytes_max: 0, pids_max: None },
        logs: None,
        signals: SignalReach::OwnProcesses,
        echo: Echo::Off,
        marker: None,
    }
}

impl Probe {
    /// All of them.
    pub(crate) const ALL: [Self; 1] = [Self::Overlay];

    /// Returns the word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
        }
    }

    /// Tries it in this process, which changes it for good.
    ///
    /// # Errors
    /// If the kernel refuses a step; the text names it and the remedy.
    pub(crate) fn attempt(self) -> io::Result<()> {
        match self {
            Self::Overlay => mount_overlay(),
        }
    }

    /// Has it tried by `program`, which is this program. `Err` in the result: the reason why it cannot be had.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub(crate) fn run(self, runner: &dyn ScriptRunner, program: PathBuf) -> Result<Result<(), String>, EngineError> {
        let args = [ORDER, self.as_str()].map(OsString::from).into();
        let script =
            Script { signals: SignalReach::Machine, ..script(program, args, Path::new("/"), LIMIT, KEPT_BYTES_MAX) };
        let done = runner.run(&script, &Cancel::new()?)?;
        if (done.ended_by, done.exit) == (EndedBy::Itself, Exit::Code(0)) {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&done.stderr.kept_bytes()).trim().to_owned();
        Ok(Err(if said.is_empty() { done.exit.to_string() } else { said }))
    }
}

/// Names the step, what the kernel said, and the remedy.
fn tried(step: &str) -> impl FnOnce(nix::errno::Errno) -> io::Error + '_ {
    move |errno| io::Error::other(format!("{step} ({}); {}", errno.desc(), of_mounts(errno as i32)))
}

/// The upper layer lies on a tmpfs: on an overlay, as in a container, it must not.
fn mount_overlay() -> io::Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).map_err(tried("a mount namespace"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).map_err(tried("private mounts"))?;
    let place = Path::new("/tmp");
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), NONE).map_err(tried("a tmpfs"))?;
    let [upper, work, view] = ["upper", "work", "view"].map(|name| place.join(name));
    [&upper, &work, &view].into_iter().try_for_each(std::fs::create_dir)?;
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), &view, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(tried("an overlay of `/`"))
}

//! A process of this machine, as proc(5) tells of it; how many files this one may open.

use std::fs;

/// A process, told from later ones with its number.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// The program's name, cut after 15 bytes.
    pub(crate) command: String,
    pub(crate) is_dead: bool,
    pub(crate) parent: i32,
    /// In clock ticks since boot: with the pid, an identity.
    pub(crate) started: u64,
}

impl Process {
    /// Reads /proc/PID/stat (proc(5)); the command may itself hold parentheses.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let (start, end) = (text.find('(')?, text.rfind(')')?);
        let fields: Vec<&str> = text.get(end + 2..)?.split(' ').collect();
        Some(Self {
            pid,
            command: text.get(start + 1..end)?.to_owned(),
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(22 - 3)?.parse().ok()?,
        })
    }

    /// Returns the process that started this one.
    pub(crate) fn parent_of_this() -> Option<Self> {
        Self::read(nix::unistd::getppid().as_raw())
    }

    /// Number and start, which no other process ever has.
    pub(crate) fn id(&self) -> (i32, u64) {
        (self.pid, self.started)
    }

    /// Tells whether it has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        is_alive(self.id())
    }
}

/// Tells whether the process of this identity has not ended. One that nobody has waited for yet has.
pub(crate) fn is_alive(id: (i32, u64)) -> bool {
    Process::read(id.0).is_some_and(|now| now.id() == id && !now.is_dead)
}

/// Lets this process, and those that it starts, have `count` files open at once. No more than that: some programs close every number up to
/// their limit before they do anything.
///
/// # Errors
/// If the hard limit is lower, which is returned.
#[cfg(feature = "worker")]
pub(crate) fn allow_open_files(count: u64) -> Result<(), u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // A limit that cannot be read is none of ours.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    if count <= soft {
        return Ok(());
    }
    if count > hard {
        return Err(hard);
    }
    setrlimit(Resource::RLIMIT_NOFILE, count, hard).map_err(|_| soft)
}

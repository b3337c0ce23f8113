//! A private cgroup for a supervisor and all it starts (cgroups(7)): one write ends everything in it at once.

pub(super) mod leaf;

use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "proving-ground.";
const NAMES_MAX: usize = 64;

/// A cgroup of ours; removed when dropped, if it is empty by then.
pub(super) struct Cgroup {
    dir: PathBuf,
    handle: File,
    kill: File,
}

impl Cgroup {
    /// Makes one below the cgroup that is ours to divide (version 2). `None` where that cannot be had: no cgroup2 file system, read-only as in
    /// most containers, not delegated to this user, or Linux before 5.14.
    pub(super) fn create() -> Option<Self> {
        let dir = create_dir(&home()?)?;
        let opened = File::open(&dir)
            .and_then(|handle| Ok((handle, File::options().write(true).open(dir.join("cgroup.kill"))?)));
        let Ok((handle, kill)) = opened else {
            remove(&dir);
            return None;
        };
        Some(Self { dir, handle, kill })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// SIGKILL to every member, forks in flight included.
    ///
    /// # Errors
    /// If the cgroup is gone.
    pub(super) fn kill(&self) -> io::Result<()> {
        (&self.kill).write_all(b"1")
    }

    /// Bounds the number of members, the supervisor not counted.
    ///
    /// # Errors
    /// If the controller is not there.
    pub(super) fn limit_pids(&self, max: Option<NonZeroU32>) -> io::Result<()> {
        write_pids_max(&self.dir, max)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// A cgroup of the version 1 pids controller: what version 2 lacks where the machine still gives the controller to version 1.
pub(super) struct PidsCgroup {
    dir: PathBuf,
}

impl PidsCgroup {
    /// Moves process `pid` into a cgroup of its own that holds at most `max` others.
    pub(super) fn create(pid: i32, max: NonZeroU32) -> Option<Self> {
        let dir = create_dir(&own_dir("pids", "cgroup", "pids")?)?;
        let this = Self { dir };
        write_pids_max(&this.dir, Some(max)).ok()?;
        fs::write(this.dir.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(this)
    }

    /// As `Cgroup::limit_pids`.
    ///
    /// # Errors
    /// If the cgroup is gone.
    pub(super) fn limit_pids(&self, max: Option<NonZeroU32>) -> io::Result<()> {
        write_pids_max(&self.dir, max)
    }
}

impl Drop for PidsCgroup {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// A bound on the memory of a supervisor and all it starts, and what it was used for.
pub(super) struct Memory {
    dir: PathBuf,
    /// Of version 1, which has files of other names, and is ours to remove.
    is_v1: bool,
    peak: File,
    /// As `has_killed` found it last.
    kills: u64,
}

impl Memory {
    /// Bounds the members of `cgroup` where it has the controller, else process `pid` in one of version 1. `None`: there is neither.
    pub(super) fn limit(cgroup: Option<&Cgroup>, pid: i32, bytes: u64) -> Option<Self> {
        let text = bytes.to_string();
        if let Some(dir) = cgroup.map(|cgroup| cgroup.dir.clone())
            && fs::write(dir.join("memory.max"), &text).is_ok()
        {
            // What is swapped out is memory too; without swap there is no such file.
            fs::write(dir.join("memory.swap.max"), "0").ok();
            return Self::open(dir, false);
        }
        let this = Self::open(create_dir_of_v1_memory()?, true)?;
        fs::write(this.dir.join("memory.limit_in_bytes"), &text).ok()?;
        // Only where swap is accounted for.
        fs::write(this.dir.join("memory.memsw.limit_in_bytes"), &text).ok();
        fs::write(this.dir.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(this)
    }

    fn open(dir: PathBuf, is_v1: bool) -> Option<Self> {
        let path = dir.join(if is_v1 { "memory.max_usage_in_bytes" } else { "memory.peak" });
        let opened = File::options().read(true).write(true).open(&path).or_else(|_| File::open(&path));
        match opened {
            Ok(peak) => Some(Self { dir, is_v1, peak, kills: 0 }),
            Err(_) => {
                if is_v1 {
                    remove(&dir);
                }
                None
            }
        }
    }

    /// Begins to measure.
    pub(super) fn begin(&self) {
        // Where it cannot be reset (before Linux 6.12) it tells the most of all scripts so far.
        self.peak.write_all_at(b"0", 0).ok();
    }

    /// Returns the most bytes that were in use at once.
    pub(super) fn peak(&self) -> Option<u64> {
        let mut text = [0; 32];
        let len = self.peak.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..len]).ok()?.trim().parse().ok()
    }

    /// Tells whether a process was killed for want of memory since the last time.
    pub(super) fn has_killed(&mut self) -> bool {
        let file = if self.is_v1 { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0);
        count > std::mem::replace(&mut self.kills, count)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.is_v1 {
            remove(&self.dir);
        }
    }
}

fn create_dir_of_v1_memory() -> Option<PathBuf> {
    create_dir(&own_dir("memory", "cgroup", "memory")?)
}

/// Tells whether `Memory::limit` could be had for what is started in a cgroup of its own.
pub(super) fn can_limit_memory() -> bool {
    Cgroup::create().is_some_and(|cgroup| cgroup.dir.join("memory.max").exists())
        || create_dir_of_v1_memory().inspect(|dir| remove(dir)).is_some()
}

/// Makes a folder that names its owner: a process id, and the PID namespace in which it means something.
fn create_dir(parent: &Path) -> Option<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let owner = own_prefix_and_pid()?;
    // A dead harness may have had our process id, and may have left some behind.
    for _ in 0..NAMES_MAX {
        let dir = parent.join(format!("{owner}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        match fs::create_dir(&dir) {
            Ok(()) => return Some(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => return None,
        }
    }
    None
}

/// Other containers may see our cgroups, and we theirs, without seeing each other's processes.
fn own_prefix() -> Option<String> {
    Some(format!("{PREFIX}{}.", fs::metadata("/proc/self/ns/pid").ok()?.ino()))
}

fn own_prefix_and_pid() -> Option<String> {
    Some(format!("{}{}.", own_prefix()?, std::process::id()))
}

/// Kills and removes the cgroups of harnesses that are no longer alive. Returns their names.
pub(super) fn sweep_dead() -> Vec<String> {
    let Some(prefix) = own_prefix() else {
        return Vec::new();
    };
    let parents = [home(), own_dir("pids", "cgroup", "pids"), own_dir("memory", "cgroup", "memory")];
    let mut swept = Vec::new();
    for entry in parents.into_iter().flatten().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(&prefix).and_then(|rest| rest.split('.').next()).map(str::to_owned);
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Version 1 has no such file; its members are found by their environment.
            fs::write(entry.path().join("cgroup.kill"), "1").ok();
            remove(&entry.path());
            swept.push(name);
        }
    }
    swept.sort_unstable();
    swept
}

/// # Errors
/// If the file is not there or not ours.
fn write_pids_max(dir: &Path, max: Option<NonZeroU32>) -> io::Result<()> {
    let text = max.map_or_else(|| "max".to_owned(), |max| (u64::from(max.get()) + 1).to_string());
    fs::write(dir.join("pids.max"), text)
}

/// The kernel empties a cgroup a moment after its last member has been reaped.
fn remove(dir: &Path) {
    for _ in 0..100 {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            // Whatever else is wrong, the next run's sweep tries again.
            Ok(()) | Err(_) => return,
        }
    }
}

/// The cgroup of version 2 in which ours are made: this process's, or the one above if it is in a `Leaf`. By the leaf's name, which no
/// script's cgroup has for what runs in it: that one is named after us.
fn home() -> Option<PathBuf> {
    let own = own_dir("0::", "cgroup2", "")?;
    let is_leaf = own.file_name()?.to_string_lossy().starts_with(&own_prefix_and_pid()?);
    if is_leaf { own.parent().map(Path::to_path_buf) } else { Some(own) }
}

/// Folder of our own cgroup: the line of /proc/self/cgroup with `key`, below the mount of type `fs_type` with `option`.
fn own_dir(key: &str, fs_type: &str, option: &str) -> Option<PathBuf> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = membership.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let is_ours = if key == "0::" { controllers.is_empty() } else { controllers.split(',').any(|c| c == key) };
        is_ours.then_some(path)
    })?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut words = file_system.split(' ');
        let (found, options) = (words.next()?, words.nth(1)?);
        let fits = found == fs_type && (option.is_empty() || options.split(',').any(|o| o == option));
        let (root, point) = (mount.split(' ').nth(3)?, mount.split(' ').nth(4)?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        fits.then(|| Path::new(point).join(below))
    })
}

//! A cgroup of version 2 that is somebody's to divide, as a service with `Delegate=yes` has one.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The last member leaves a moment after its death.
const EMPTY_DEADLINE: Duration = Duration::from_secs(30);

/// Removed when dropped.
pub(crate) struct Delegated(PathBuf);

impl Delegated {
    /// Makes one for the user `owner`, or for root. `None`: there is no cgroup2 file system in which we may.
    pub(crate) fn new(name: &str, owner: Option<u32>) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let point = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            words.next().filter(|_| words.next() == Some("cgroup2"))
        })?;
        let this = Self(Path::new(point).join(name));
        fs::create_dir(this.path()).ok()?;
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(this.path().join(file), owner, owner).unwrap();
        }
        // systemd's mark: root can write to every cgroup.
        rustix::fs::setxattr(this.path(), "user.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        Some(this)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Words before a program that is to be started in it.
    pub(crate) fn words(&self) -> [&str; 4] {
        ["sh", "-c", "echo 0 >\"$0/cgroup.procs\" && exec \"$@\"", self.0.to_str().unwrap()]
    }

    /// The controllers that it has.
    pub(crate) fn has(&self, controller: &str) -> bool {
        let text = fs::read_to_string(self.0.join("cgroup.controllers")).unwrap();
        text.split_whitespace().any(|there| there == controller)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let until = Instant::now() + EMPTY_DEADLINE;
        while self.0.exists() && fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

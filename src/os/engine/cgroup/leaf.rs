//! A leaf for this process. A cgroup of version 2 passes controllers on only while no process is in it (cgroups(7), "no internal
//! processes"): who wants memory counted in the cgroups that he makes below his own has to step aside first.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::{create_dir, home, remove};

/// What is used of the controllers that there may be.
const WANTED: [&str; 2] = ["memory", "pids"];
/// systemd's mark on what it has delegated. Only its own root may read the first, and it has the second since version 251.
const MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// This process in a leaf below the cgroup in which it was started; it goes back when this is dropped.
pub struct Leaf {
    home: PathBuf,
    dir: PathBuf,
    controllers: Vec<&'static str>,
}

impl Leaf {
    /// Moves this process into a leaf, and has the cgroup in which it was pass memory and pids on to those that are made beside. `None`,
    /// and all is as it was, if that cgroup is not delegated to us, holds another process, or has neither controller.
    ///
    /// It changes where this process is: a program may do that to itself, at its start, and no library behind its back.
    #[must_use]
    pub fn enter() -> Option<Self> {
        let home = home()?;
        if members(&home)? != std::process::id().to_string() {
            return None;
        }
        if !is_delegated(&home) {
            // systemd can make a leaf of its own (`DelegateSubgroup=`): what is delegated is above, and nobody has told it to pass anything on.
            let above = home
                .parent()
                .filter(|above| is_delegated(above) && members(above).is_some_and(|all| all.is_empty()))?;
            pass_on(above, '+', &offered(above)).ok()?;
        }
        Self::below(&home)
    }

    fn below(home: &Path) -> Option<Self> {
        let controllers = offered(home);
        if controllers.is_empty() {
            return None;
        }
        let leaf = Self { dir: create_dir(home)?, home: home.to_owned(), controllers };
        join(&leaf.dir).ok()?;
        // Refused if another process has come in the meantime.
        pass_on(home, '+', &leaf.controllers).ok()?;
        Some(leaf)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // Whoever starts us in this cgroup again could not, as long as it passes anything on.
        pass_on(&self.home, '-', &self.controllers).ok();
        join(&self.home).ok();
        remove(&self.dir);
    }
}

/// Tells whether `dir` is ours to divide. That it can be written to says nothing to root; and what systemd has not delegated it
/// manages itself, so that controllers which we turn on there may be turned off again.
fn is_delegated(dir: &Path) -> bool {
    is_marked(dir) || is_top(dir) || is_given_away(dir)
}

fn is_marked(dir: &Path) -> bool {
    let mut value = [0; 1];
    MARKS.iter().any(|mark| rustix::fs::getxattr(dir, *mark, &mut value) == Ok(1) && &value == b"1")
}

/// Tells whether `dir` is the uppermost that can be seen, but not the machine's: a container's.
fn is_top(dir: &Path) -> bool {
    let is_cgroup = |dir: &Path| dir.join("cgroup.procs").exists();
    dir.join("cgroup.type").exists() && !dir.parent().is_some_and(is_cgroup)
}

/// Tells whether somebody else has given `dir` to this user, who is not root.
fn is_given_away(dir: &Path) -> bool {
    let us = Uid::effective();
    let is_ours = |dir: &Path| fs::metadata(dir).is_ok_and(|metadata| metadata.uid() == us.as_raw());
    !us.is_root() && is_ours(dir) && !dir.parent().is_some_and(is_ours)
}

/// Process ids, one a line.
fn members(dir: &Path) -> Option<String> {
    Some(fs::read_to_string(dir.join("cgroup.procs")).ok()?.trim_end().to_owned())
}

/// The wanted controllers that `dir` has and could pass on.
fn offered(dir: &Path) -> Vec<&'static str> {
    let text = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    WANTED.into_iter().filter(|wanted| text.split_whitespace().any(|there| there == *wanted)).collect()
}

fn pass_on(dir: &Path, sign: char, controllers: &[&str]) -> io::Result<()> {
    let words: Vec<_> = controllers.iter().map(|controller| format!("{sign}{controller}")).collect();
    fs::write(dir.join("cgroup.subtree_control"), words.join(" "))
}

/// Moves this process, all its threads.
fn join(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("cgroup.procs"), "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks like a cgroup as long as nobody asks the kernel.
    fn folder(controllers: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(dir.path().join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        dir
    }

    fn text(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap()
    }

    fn leaves(dir: &Path) -> Vec<PathBuf> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    #[test]
    fn what_is_there_and_used_is_passed_on_and_taken_back() {
        for (controllers, words) in [
            ("cpuset cpu io memory hugetlb pids rdma misc\n", "+memory +pids"),
            ("pids\n", "+pids"),
            ("memory\n", "+memory"),
        ] {
            let dir = folder(controllers);
            let home = dir.path();
            let leaf = Leaf::below(home).unwrap();
            assert_eq!(leaves(home), std::slice::from_ref(&leaf.dir));
            assert_eq!(text(&leaf.dir, "cgroup.procs"), "0");
            assert_eq!(text(home, "cgroup.subtree_control"), words);
            // The kernel's files do not keep a cgroup from being removed.
            fs::remove_file(leaf.dir.join("cgroup.procs")).unwrap();
            drop(leaf);
            assert_eq!(text(home, "cgroup.subtree_control"), words.replace('+', "-"));
            assert_eq!(text(home, "cgroup.procs"), "0");
            assert!(leaves(home).is_empty());
        }
    }

    #[test]
    fn without_controllers_nothing_is_changed() {
        for controllers in ["", "\n", "hugetlb\n", "memory_recursiveprot pidsx\n"] {
            let dir = folder(controllers);
            assert!(Leaf::below(dir.path()).is_none(), "{controllers:?}");
            assert!(!dir.path().join("cgroup.subtree_control").exists());
            assert_eq!(text(dir.path(), "cgroup.procs"), format!("{}\n", std::process::id()));
        }
    }

    #[test]
    fn who_may_not_pass_on_goes_back() {
        let dir = folder("memory pids");
        fs::create_dir(dir.path().join("cgroup.subtree_control")).unwrap();
        assert!(Leaf::below(dir.path()).is_none());
        assert_eq!(text(dir.path(), "cgroup.procs"), "0");
    }

    #[test]
    fn a_folder_that_is_just_there_is_not_delegated() {
        let above = folder("memory");
        let dir = above.path().join("below");
        fs::create_dir(&dir).unwrap();
        for name in ["cgroup.procs", "cgroup.type"] {
            fs::write(dir.join(name), "").unwrap();
        }
        assert!(!is_delegated(&dir));
        // Where nothing above is a cgroup any more.
        fs::remove_file(above.path().join("cgroup.procs")).unwrap();
        assert!(is_delegated(&dir));
        // The machine's uppermost cgroup has no type.
        fs::remove_file(dir.join("cgroup.type")).unwrap();
        assert!(!is_delegated(&dir));
    }
}

//! The last resort: finding processes in /proc, when neither a cgroup nor a supervisor is left to end them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::model::script::Leak;

/// Rounds of looking for processes that were forked while we looked.
const ROUNDS_MAX: usize = 100;

/// Ends every process whose initial environment names `marker`, a path that is unique to a run. Returns whom.
pub(super) fn kill_marked(marker: &Path) -> Vec<Leak> {
    kill_rounds(|| {
        let needle = marker.as_os_str().as_bytes();
        processes()
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment.windows(needle.len()).any(|window| window == needle)
            })
            .collect()
    })
}

/// Ends every descendant of `ancestor`, which is spared. Returns whom.
pub(super) fn kill_descendants(ancestor: i32) -> Vec<Leak> {
    kill_rounds(|| {
        let parents: BTreeMap<i32, i32> = processes().filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
        let descends = |pid: &i32| {
            let line = std::iter::successors(Some(*pid), |pid| parents.get(pid).copied());
            line.skip(1).take(parents.len()).any(|pid| pid == ancestor)
        };
        parents.keys().copied().filter(descends).collect()
    })
}

/// Counts the threads of all processes of this user, which is what RLIMIT_NPROC counts (setrlimit(2)).
pub(super) fn count_threads_of_user() -> u64 {
    let own = Uid::effective().as_raw();
    let is_own = |pid: &i32| fs::metadata(format!("/proc/{pid}/task")).is_ok_and(|meta| meta.uid() == own);
    let threads = |pid: i32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count() as u64);
    all_processes().filter(is_own).map(threads).sum()
}

/// What is stopped cannot fork: stop all that are found until a round finds nothing new, then kill.
fn kill_rounds(find: impl Fn() -> Vec<i32>) -> Vec<Leak> {
    let mut found = BTreeMap::new();
    for _ in 0..ROUNDS_MAX {
        let new: Vec<i32> = find().into_iter().filter(|pid| !found.contains_key(pid)).collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            send(pid, Signal::SIGSTOP);
            found.insert(pid, stat(pid).map_or_else(String::new, |stat| stat.command));
        }
    }
    for pid in found.keys() {
        send(*pid, Signal::SIGKILL);
    }
    found.into_iter().map(|(pid, command)| Leak { pid, command }).collect()
}

/// A process that is gone, or that we may not signal, is nobody we can end.
fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).ok();
}

/// Processes that are alive, zombies left out, ourselves too.
fn processes() -> impl Iterator<Item = i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    all_processes().filter(move |pid| *pid != own && stat(*pid).is_some_and(|stat| stat.state != 'Z'))
}

fn all_processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

struct Stat {
    command: String,
    state: char,
    parent: i32,
}

/// Reads /proc/PID/stat (proc(5)); the command may itself hold parentheses.
fn stat(pid: i32) -> Option<Stat> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    let mut rest = text.get(end + 2..)?.split(' ');
    Some(Stat {
        command: text.get(start + 1..end)?.to_owned(),
        state: rest.next()?.chars().next()?,
        parent: rest.next()?.parse().ok()?,
    })
}

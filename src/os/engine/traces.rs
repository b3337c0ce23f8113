//! The last resort: finding processes in /proc, when neither a cgroup nor a supervisor is left to end them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::model::script::Leak;
use crate::os::process::Process;

/// Between two looks for the end of what was killed.
const LOOK: Duration = Duration::from_millis(1);

/// Ends every process whose initial environment names `marker`, a path that is unique to a run. Returns whom.
///
/// Looks for more until `until` at most; when it returns earlier, all of them are dead.
pub(super) fn kill_marked(marker: &Path, until: Instant) -> Vec<Leak> {
    let needle = marker.as_os_str().as_bytes();
    let is_marked = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        environment.windows(needle.len()).any(|window| window == needle)
    };
    kill_rounds(|| processes().filter(is_marked).collect(), until)
}

/// Ends every descendant of `ancestor`, which is spared. Returns whom, as `kill_marked` does.
pub(super) fn kill_descendants(ancestor: i32, until: Instant) -> Vec<Leak> {
    let find = || {
        // The dead are links between the living.
        let all: BTreeMap<i32, Process> = every_process().map(|process| (process.pid, process)).collect();
        let descends = |process: &&Process| {
            let line = std::iter::successors(Some(process.parent), |pid| all.get(pid).map(|process| process.parent));
            line.take(all.len()).any(|pid| pid == ancestor)
        };
        all.values().filter(|process| !process.is_dead).filter(descends).cloned().collect()
    };
    kill_rounds(find, until)
}

/// Counts the threads of all processes of this user, which is what RLIMIT_NPROC counts (setrlimit(2)).
pub(super) fn count_threads_of_user() -> u64 {
    let own = Uid::effective().as_raw();
    let is_own = |pid: &i32| fs::metadata(format!("/proc/{pid}/task")).is_ok_and(|meta| meta.uid() == own);
    let threads = |pid: i32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count() as u64);
    pids().filter(is_own).map(threads).sum()
}

/// What is stopped cannot fork: stop all that are found until a round finds nothing new, then kill; until none is found.
fn kill_rounds(find: impl Fn() -> Vec<Process>, until: Instant) -> Vec<Leak> {
    let mut killed = BTreeMap::new();
    loop {
        let found = stop_all(&find, until);
        if found.is_empty() {
            break;
        }
        for process in found.values() {
            send(process, Signal::SIGKILL);
        }
        while found.values().any(Process::is_alive) && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        killed.extend(found);
        if Instant::now() >= until {
            break;
        }
    }
    killed.into_values().map(|process| Leak { pid: process.pid, command: process.command }).collect()
}

/// Returns what was found, by identity.
fn stop_all(find: &impl Fn() -> Vec<Process>, until: Instant) -> BTreeMap<(i32, u64), Process> {
    // Should some fork faster than we look, killing those that were found is still better than nothing.
    let stop_until = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
    let mut found = BTreeMap::new();
    loop {
        let new: Vec<Process> = find().into_iter().filter(|process| !found.contains_key(&process.id())).collect();
        for process in &new {
            send(process, Signal::SIGSTOP);
        }
        let is_last = new.is_empty() || Instant::now() >= stop_until;
        found.extend(new.into_iter().map(|process| (process.id(), process)));
        if is_last {
            return found;
        }
    }
}

/// A process that is gone, whose number has another one now, or that we may not signal, is nobody we can end.
fn send(process: &Process, signal: Signal) {
    if process.is_alive() {
        kill(Pid::from_raw(process.pid), signal).ok();
    }
}

/// Processes that are alive, ourselves left out.
fn processes() -> impl Iterator<Item = Process> {
    every_process().filter(|process| !process.is_dead)
}

/// Processes and zombies, ourselves left out.
fn every_process() -> impl Iterator<Item = Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    pids().filter(move |pid| *pid != own).filter_map(Process::read)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

//! The folder of a worker on a real disk, with real other processes.

#![expect(clippy::disallowed_methods, reason = "another process must hold the lock")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Child, Command, Stdio};

use pretty_assertions::assert_eq;

use super::in_hand::Left;
use super::*;
use crate::model::verdict::Fault;
use crate::worker::api::Job;
use crate::worker::rejected::WHY;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_folder_is_made_for_our_eyes_only() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateFolder::open(&dir.path().join("above/state"), "worker-a").unwrap();
    state.jobs_in_hand().unwrap();
    for below in ["above", "above/state", "above/state/worker-a", "above/state/worker-a/in-hand"] {
        assert_eq!(mode(&dir.path().join(below)), 0o700, "{below}");
    }
    assert_eq!(mode(&dir.path().join("above/state/worker-a/lock")), 0o600);
}

#[test]
fn a_folder_that_others_may_enter_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(StateFolder::open(dir.path(), "worker-a").unwrap());
    fs::set_permissions(dir.path().join("worker-a"), fs::Permissions::from_mode(0o770)).unwrap();
    let error = Fault::new(&StateFolder::open(dir.path(), "worker-a").unwrap_err()).to_string();
    assert!(error.contains("0770") && error.contains("chmod 700") && error.contains("--state-dir"), "{error}");
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    symlink("elsewhere", dir.path().join("worker-b")).unwrap();
    StateFolder::open(dir.path(), "worker-b").unwrap_err();
}

#[test]
fn a_second_worker_of_the_id_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = StateFolder::open(dir.path(), "worker-a").unwrap();
    let error = StateFolder::open(dir.path(), "worker-a").unwrap_err().to_string();
    let pid = format!("pid {}", std::process::id());
    assert!(error.contains(&pid) && error.contains("`--worker-id`"), "{error}");
    StateFolder::open(dir.path(), "worker-b").unwrap();
    drop(first);
    StateFolder::open(dir.path(), "worker-a").unwrap();
}

/// Another process that has the lock until it is ended.
fn holder(lock: &Path) -> Child {
    let mut command = Command::new("flock");
    let script = "echo $$ >\"$0\"; echo locked; read -r _";
    command.arg(lock).args(["sh", "-c", script]).arg(lock).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    child
}

#[test]
fn the_lock_of_another_process_holds_as_long_as_it_lives_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    drop(StateFolder::open(dir.path(), "worker-a").unwrap());
    let lock = dir.path().join("worker-a/lock");
    let mut other = holder(&lock);
    let pid = fs::read_to_string(&lock).unwrap();
    let error = StateFolder::open(dir.path(), "worker-a").unwrap_err().to_string();
    assert!(error.contains(&format!("pid {}", pid.trim())), "{error}");
    drop(other.stdin.take());
    other.wait().unwrap();
    StateFolder::open(dir.path(), "worker-a").unwrap();
    assert_eq!(fs::read_to_string(&lock).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn ids_are_no_paths_and_no_two_have_one_folder() {
    let long = "x".repeat(128);
    let ids = ["a", "A", "a.b", "../a", "..", ".", "", "/etc", "a/b", "a b", "é", "a\n", long.as_str(), "+a", "a+"];
    let names: std::collections::BTreeSet<String> = ids.iter().map(|id| folder_name(id)).collect();
    assert_eq!(names.len(), ids.len());
    for name in names {
        assert!(!name.contains('/') && !name.starts_with('.') && (1..=200).contains(&name.len()), "{name}");
    }
}

#[test]
fn job_files_have_plain_names_whatever_the_ids_are() {
    let names = [("../../etc/passwd", 1), ("a", 1), ("a", 2), ("a\0", 1), ("a\x001", 1), ("", 0)];
    let names: std::collections::BTreeSet<_> =
        names.iter().map(|(id, attempt)| job_file_name(&key(id, *attempt))).collect();
    assert!(names.len() == 6 && names.iter().all(|name| is_job_file_name(name)), "{names:?}");
    for name in ["", "a.json", ".json", "passwd", &format!("{}.json", "A".repeat(64)), &"a".repeat(69)] {
        assert!(!is_job_file_name(name), "{name}");
    }
}

#[test]
fn what_a_killed_worker_had_for_scratch_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = Scratch::make(dir.path()).unwrap();
    let state = StateFolder::open(dir.path(), "worker-a").unwrap();
    assert!(state.sweep().unwrap().is_none(), "nobody was killed");
    state.note_scratch(&scratch).unwrap();
    scratch.folder().unwrap();
    let mut left = Command::new("sleep").arg("600").env("HELD_BY", scratch.marker()).spawn().unwrap();
    drop(state);
    let state = StateFolder::open(dir.path(), "worker-a").unwrap();
    let swept = state.sweep().unwrap().unwrap();
    left.wait().unwrap();
    let pid = left.id().to_string();
    assert!(swept.processes.iter().any(|process| process.split(' ').next() == Some(&pid)), "{swept:?}");
    assert!(swept.removed.contains(&scratch.path().display().to_string()) && !scratch.path().exists());
    assert!(state.sweep().unwrap().is_none(), "swept once");
}

#[test]
fn a_note_that_names_what_no_worker_has_made_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    let state = StateFolder::open(dir.path(), "worker-a").unwrap();
    for note in [precious.as_os_str().as_bytes(), b"", b"/", b"\0", b"\xff"] {
        fs::write(dir.path().join("worker-a/scratch"), note).unwrap();
        assert!(state.sweep().unwrap().is_none());
    }
    assert!(precious.is_dir());
}

/// What keeps a folder from being removed is a file system in it, which needs root.
#[test]
fn a_scratch_folder_that_cannot_be_removed_is_tried_again_at_each_start_beside_newer_ones() {
    let dir = tempfile::tempdir().unwrap();
    let [held, free, own] = [(); 3].map(|()| Scratch::make(dir.path()).unwrap());
    let mount_point = held.folder().unwrap();
    let options = nix::mount::MsFlags::empty();
    let size = Some("size=64k");
    if nix::mount::mount(Some("none"), &mount_point, Some("tmpfs"), options, size).is_err() {
        return;
    }
    let state = StateFolder::open(dir.path(), "worker-a").unwrap();
    for scratch in [&held, &free] {
        state.note_scratch(scratch).unwrap();
    }
    let first = state.sweep().unwrap().unwrap();
    state.note_scratch(&own).unwrap();
    state.forget_scratch(&own).unwrap();
    let second = state.sweep().unwrap().unwrap();
    nix::mount::umount(&mount_point).unwrap();
    let third = state.sweep().unwrap().unwrap();
    let shown = |scratch: &Scratch| scratch.path().display().to_string();
    for swept in [&first, &second] {
        assert!(swept.left.len() == 1 && swept.left[0].contains(&shown(&held)), "{swept:?}");
    }
    assert!(first.removed.contains(&shown(&free)) && !free.path().exists(), "{first:?}");
    assert!(third.removed.contains(&shown(&held)) && third.left.is_empty() && !held.path().exists(), "{third:?}");
    assert!(state.sweep().unwrap().is_none());
}

#[test]
fn what_waits_for_a_server_goes_to_no_other_one() {
    let dir = tempfile::tempdir().unwrap();
    let open = || StateFolder::open(dir.path(), "worker-a").unwrap();
    let [nothing, a_result, a_job] = [(0, 0), (1, 0), (0, 1)].map(|(results, jobs)| Backlog { results, jobs });
    // What a worker has left that did not note it.
    open().belong_to("http://staging:80", a_result).unwrap();
    for waiting in [a_result, a_job] {
        open().belong_to("http://staging:80", waiting).unwrap();
        let error = open().belong_to("https://production:443", waiting).unwrap_err().to_string();
        for part in ["http://staging:80", "https://production:443", "--worker-id", "--state-dir", "worker-a/server"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    open().belong_to("https://production:443", nothing).unwrap();
    open().belong_to("https://production:443", a_job).unwrap();
    open().belong_to("http://staging:80", a_job).unwrap_err();
    // A power failure while it was noted for the first time.
    fs::write(dir.path().join("worker-a/server"), "http://stag").unwrap();
    open().belong_to("http://staging:80", a_job).unwrap();
}

fn key(id: &str, attempt: u32) -> JobKey {
    JobKey { submission_id: id.to_owned(), attempt_number: attempt }
}

fn job(id: &str, attempt: u32) -> Job {
    let text = r#"{"submissionID":"","testSetupID":"t","attemptNumber":0,"submissionURL":"u","testSetupURL":"v","manifest":{"a":  1.50}}"#;
    let job: Job = serde_json::from_str(text).unwrap();
    Job { submission_id: id.to_owned(), attempt_number: attempt, ..job }
}

/// As a worker does that takes a job.
fn take(in_hand: &JobsInHand, id: &str, attempt: u32) -> Ticket {
    let ticket = in_hand.take(&job(id, attempt));
    in_hand.record(&ticket).unwrap();
    ticket
}

fn jobs(left: &Left) -> Vec<(&str, u32)> {
    left.jobs.iter().map(|(job, ticket)| (job.submission_id.as_str(), ticket.tries)).collect()
}

/// As after a kill: everything is opened anew.
fn reopened(dir: &Path) -> JobsInHand {
    StateFolder::open(dir, "worker-a").unwrap().jobs_in_hand().unwrap()
}

#[test]
fn after_each_step_a_killed_worker_finds_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(jobs(&reopened(dir.path()).left().unwrap()), []);
    let in_hand = reopened(dir.path());
    let mut ticket = take(&in_hand, "s", 3);
    assert!(in_hand.holds(&key("s", 3)) && !in_hand.holds(&key("s", 2)));
    // To take it is to begin it.
    for tries in 1..TRIES {
        assert_eq!(jobs(&reopened(dir.path()).left().unwrap()), [("s", tries)]);
        assert_eq!(reopened(dir.path()).begin(&mut ticket).unwrap(), Begun::Now);
    }
    let in_hand = reopened(dir.path());
    let (found, mut again) = in_hand.left().unwrap().jobs.remove(0);
    assert_eq!((found.manifest.get(), &again), (job("s", 3).manifest.get(), &ticket));
    assert!(in_hand.holds(&key("s", 3)));
    assert_eq!(in_hand.begin(&mut again).unwrap(), Begun::TooOften);
    in_hand.done(&again).unwrap();
    in_hand.done(&again).unwrap();
    assert!(!in_hand.holds(&key("s", 3)));
    assert_eq!(jobs(&reopened(dir.path()).left().unwrap()), []);
}

const TRIES: u32 = 2;

#[test]
fn half_written_files_count_for_nothing_and_foreign_ones_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    take(&reopened(dir.path()), "whole", 1);
    let folder = dir.path().join("worker-a/in-hand");
    let named = |id: &str| folder.join(job_file_name(&key(id, 1)));
    let whole = fs::read(named("whole")).unwrap();
    for len in 0..whole.len() {
        // A writer that was killed after `len` bytes.
        fs::write(folder.join(format!(".proving-ground-{len}.tmp")), &whole[..len]).unwrap();
    }
    fs::write(named("cut"), &whole[..whole.len() - 1]).unwrap();
    fs::write(named("renamed"), &whole).unwrap();
    fs::write(named("of another version"), r#"{"taken_at_ms":1,"tries":1,"job":{"submission":"s"}}"#).unwrap();
    fs::write(folder.join("notes.txt"), "x").unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    symlink(named("whole"), named("link")).unwrap();
    let in_hand = reopened(dir.path());
    let left = in_hand.left().unwrap();
    assert_eq!((jobs(&left), left.set_aside.len()), (vec![("whole", 1)], 6));
    assert!(!in_hand.holds(&key("of another version", 1)));
    assert_eq!(names_in(&folder).unwrap().len(), 1);
    let rejected = names_in(&dir.path().join("worker-a/rejected")).unwrap();
    let reasons = rejected.iter().filter(|name| name.to_string_lossy().ends_with(WHY));
    assert_eq!((reasons.count(), rejected.len()), (6, 12));
}

#[test]
fn what_is_set_aside_has_its_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let in_hand = reopened(dir.path());
    let [folder, rejected] = ["in-hand", "rejected"].map(|name| dir.path().join("worker-a").join(name));
    for number in 0..500 {
        fs::write(rejected.join(format!("old-{number}")), "").unwrap();
    }
    for name in ["one", "two"] {
        fs::write(folder.join(name), "x").unwrap();
    }
    assert_eq!(in_hand.left().unwrap().set_aside, ["one", "two"]);
    let names = names_in(&rejected).unwrap();
    let kept = |part: &str| names.iter().filter(|name| name.to_string_lossy().contains(part)).count();
    assert_eq!((kept("job-foreign-"), kept(WHY), kept("old-")), (4, 2, 498));
}

#[test]
fn the_oldest_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let in_hand = reopened(dir.path());
    for (id, taken_at_ms) in [("new", 3), ("old", 1), ("middle", 2)] {
        let job = serde_json::to_string(&job(id, 1)).unwrap();
        let content = format!(r#"{{"taken_at_ms":{taken_at_ms},"tries":1,"job":{job}}}"#);
        fs::write(dir.path().join("worker-a/in-hand").join(job_file_name(&key(id, 1))), content).unwrap();
    }
    assert_eq!(jobs(&in_hand.left().unwrap()), [("old", 1), ("middle", 1), ("new", 1)]);
}

#[test]
fn a_job_that_the_disk_does_not_take_is_in_hand_all_the_same_until_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let in_hand = reopened(dir.path());
    let folder = dir.path().join("worker-a/in-hand");
    fs::remove_dir(&folder).unwrap();
    let ticket = in_hand.take(&job("s", 1));
    in_hand.record(&ticket).unwrap_err();
    assert!(in_hand.holds(&key("s", 1)));
    in_hand.done(&ticket).unwrap();
    assert!(!in_hand.holds(&key("s", 1)));
}

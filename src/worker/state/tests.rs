//! The folder of a worker on a real disk, with real other processes.

#![expect(clippy::disallowed_methods, reason = "another process must hold the lock")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Child, Command, Stdio};

use pretty_assertions::assert_eq;

use super::in_hand::Left;
use super::*;

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
    let error = StateFolder::open(dir.path(), "worker-a").unwrap_err().to_string();
    assert!(error.contains("0770") && error.contains("chmod 700"), "{error}");
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
    let names: std::collections::BTreeSet<_> = names.iter().map(|(id, attempt)| job_file_name(id, *attempt)).collect();
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
    state.forget_scratch().unwrap();
    state.forget_scratch().unwrap();
}

fn jobs(left: &Left) -> Vec<(&str, u32)> {
    left.jobs.iter().map(|ticket| (&*ticket.job, ticket.tries)).collect()
}

/// As after a kill: everything is opened anew.
fn reopened(dir: &Path) -> JobsInHand {
    StateFolder::open(dir, "worker-a").unwrap().jobs_in_hand().unwrap()
}

#[test]
fn after_each_step_a_killed_worker_finds_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let job = r#"{"submissionID":"s","attemptNumber":3,  "seed": 1.50}"#;
    assert_eq!(jobs(&reopened(dir.path()).left().unwrap()), []);
    let mut ticket = reopened(dir.path()).take(job, "s", 3).unwrap();
    assert!(reopened(dir.path()).holds("s", 3) && !reopened(dir.path()).holds("s", 2));
    // To take it is to begin it.
    for tries in 1..TRIES {
        assert_eq!(jobs(&reopened(dir.path()).left().unwrap()), [(job, tries)]);
        assert_eq!(reopened(dir.path()).begin(&mut ticket).unwrap(), Begun::Now);
    }
    let mut found = reopened(dir.path()).left().unwrap().jobs.remove(0);
    assert_eq!(found, ticket);
    assert_eq!(reopened(dir.path()).begin(&mut found).unwrap(), Begun::TooOften);
    reopened(dir.path()).done(&found).unwrap();
    reopened(dir.path()).done(&found).unwrap();
    assert!(!reopened(dir.path()).holds("s", 3));
    assert_eq!(jobs(&reopened(dir.path()).left().unwrap()), []);
}

const TRIES: u32 = 2;

#[test]
fn half_written_files_count_for_nothing_and_foreign_ones_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let in_hand = reopened(dir.path());
    in_hand.take("{}", "whole", 1).unwrap();
    let folder = dir.path().join("worker-a/in-hand");
    let whole = fs::read(folder.join(job_file_name("whole", 1))).unwrap();
    for len in 0..whole.len() {
        // A writer that was killed after `len` bytes.
        fs::write(folder.join(format!(".proving-ground-{len}.tmp")), &whole[..len]).unwrap();
    }
    fs::write(folder.join(job_file_name("cut", 1)), &whole[..whole.len() - 1]).unwrap();
    fs::write(folder.join("notes.txt"), "x").unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    symlink(folder.join(job_file_name("whole", 1)), folder.join(job_file_name("link", 1))).unwrap();
    let left = reopened(dir.path()).left().unwrap();
    assert_eq!((jobs(&left), left.set_aside.len()), (vec![("{}", 1)], 4));
    assert_eq!(names_in(&folder).unwrap().len(), 1);
    assert_eq!(names_in(&dir.path().join("worker-a/rejected")).unwrap().len(), 4);
}

#[test]
fn the_oldest_comes_first_and_what_is_no_json_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let in_hand = reopened(dir.path());
    for (id, taken_at_ms) in [("new", 3), ("old", 1), ("middle", 2)] {
        let content = format!(r#"{{"taken_at_ms":{taken_at_ms},"tries":1,"job":"{id}"}}"#);
        fs::write(dir.path().join("worker-a/in-hand").join(job_file_name(id, 1)), content).unwrap();
    }
    assert_eq!(jobs(&in_hand.left().unwrap()), [("\"old\"", 1), ("\"middle\"", 1), ("\"new\"", 1)]);
    assert!(matches!(in_hand.take("{", "s", 1), Err(StateError::NotJson(_))));
    assert!(!in_hand.holds("s", 1));
}

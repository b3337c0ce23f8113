//! Set-ups on a real disk, with workers that are killed at every step, and real other processes.

#![expect(clippy::disallowed_methods, reason = "another process must hold a lock")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::thread;

use pretty_assertions::assert_eq;

use super::*;

const ROOMY: u64 = 1 << 30;

fn open(dir: &Path, bytes_max: u64) -> Result<SetupCache, CacheFault> {
    SetupCache::open(dir, bytes_max, Stop::default())
}

fn key(name: &str) -> Key {
    Key::new(name, "http://x/setup", b"{}")
}

/// A set-up with a script of `bytes`.
fn fill_with(bytes: usize) -> impl FnMut(&Path) -> Result<(), io::Error> {
    move |dir| {
        fs::create_dir(dir.join("tests"))?;
        fs::write(dir.join("tests/one.sh"), vec![b'#'; bytes])
    }
}

fn must_not_fill(_: &Path) -> Result<(), Infallible> {
    panic!("it was there");
}

fn kept(cache: &SetupCache, name: &str) -> Held {
    cache.acquire(&key(name), &mut fill_with(1000)).unwrap()
}

/// Keys of what is there.
fn there(dir: &Path, names: &[&'static str]) -> Vec<&'static str> {
    names.iter().copied().filter(|name| dir.join(&key(name).0).exists()).collect()
}

/// What is neither an entry nor the locks' folder.
fn leftovers(dir: &Path) -> Vec<String> {
    let names = names_in(dir).unwrap().into_iter().map(|name| name.into_string().unwrap());
    names.filter(|name| Key::parse(name).is_none() && name != "locks").collect()
}

/// What one set-up of `kept` counts for.
fn entry_bytes(dir: &Path) -> u64 {
    let cache = open(&dir.join("measured"), ROOMY).unwrap();
    drop(kept(&cache, "a"));
    cache.entries().unwrap()[0].2
}

fn world() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    (dir, cache)
}

#[test]
fn a_set_up_is_filled_once_and_found_again_also_after_a_restart() {
    let (_dir, path) = world();
    let cache = open(&path, ROOMY).unwrap();
    let held = kept(&cache, "a");
    assert!(!held.was_there() && held.is_kept());
    let script = held.path().join("tests/one.sh");
    assert_eq!(fs::metadata(script).unwrap().len(), 1000);
    for cache in [cache, open(&path, ROOMY).unwrap()] {
        let again = cache.acquire(&key("a"), &mut must_not_fill).unwrap();
        assert!(again.was_there() && again.path() == held.path());
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn id_url_and_manifest_all_make_the_key() {
    let keys = [
        Key::new("a", "u", b"{}"),
        Key::new("b", "u", b"{}"),
        Key::new("a", "v", b"{}"),
        Key::new("a", "u", b"{ }"),
        Key::new("a\0u", "", b"{}"),
        Key::new("../..", "u", b"{}"),
    ];
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    assert!(keys.iter().all(|key| Key::parse(&key.0).is_some()));
    assert_eq!(Key::new("a", "u", b"{}"), keys[0]);
}

#[test]
fn a_folder_that_others_may_enter_is_refused() {
    let (_dir, path) = world();
    open(&path, ROOMY).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let error = open(&path, ROOMY).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn what_fails_to_fill_leaves_nothing_and_is_tried_again() {
    let (_dir, path) = world();
    let cache = open(&path, ROOMY).unwrap();
    let mut fails = |dir: &Path| {
        fs::write(dir.join("half"), "x").unwrap();
        Err(io::Error::other("the line dropped"))
    };
    let error = cache.acquire(&key("a"), &mut fails).unwrap_err();
    assert!(matches!(&error, CacheError::Fill(cause) if cause.to_string() == "the line dropped"), "{error}");
    assert_eq!((there(&path, &["a"]), leftovers(&path)), (vec![], vec![]));
    let held = kept(&cache, "a");
    assert!(!held.path().join("half").exists());
}

/// Every state that a killed worker can leave: made by hand, step by step.
#[test]
fn whatever_a_killed_worker_leaves_is_whole_or_swept() {
    let steps: [fn(&Path); 6] = [
        |aside| fs::create_dir(aside).unwrap(),
        |aside| fs::create_dir(aside.join("setup")).unwrap(),
        |aside| fs::write(aside.join("setup/half"), "x").unwrap(),
        |aside| fs::write(aside.join(".proving-ground-Ab.tmp"), "{").unwrap(),
        |aside| fs::write(aside.join("meta.json"), "{}").unwrap(),
        // Half-way through its removal, closed by a script.
        |aside| fs::set_permissions(aside.join("setup"), fs::Permissions::from_mode(0o000)).unwrap(),
    ];
    for killed_after in 1..=steps.len() {
        let (_dir, path) = world();
        drop(kept(&open(&path, ROOMY).unwrap(), "whole"));
        let aside = path.join(format!("{ASIDE}1-0"));
        steps[..killed_after].iter().for_each(|step| step(&aside));
        fs::write(path.join("locks").join(fill_lock("whole")), "").unwrap();
        fs::write(path.join("locks").join(&key("gone").0), "").unwrap();
        let cache = open(&path, ROOMY).unwrap();
        assert_eq!(leftovers(&path), [] as [&str; 0], "killed after step {killed_after}");
        assert_eq!(names_in(&path.join("locks")).unwrap().len(), 2, "the lock of all, that of `whole`");
        cache.acquire(&key("whole"), &mut must_not_fill).unwrap();
    }
}

fn fill_lock(name: &str) -> String {
    format!("{}.fill", key(name).0)
}

#[test]
fn what_another_worker_makes_just_now_is_not_swept() {
    let (_dir, path) = world();
    let cache = open(&path, ROOMY).unwrap();
    let mut fill = |dir: &Path| {
        open(&path, ROOMY).unwrap();
        fill_with(10)(dir)
    };
    assert!(cache.acquire(&key("a"), &mut fill).unwrap().path().join("tests/one.sh").exists());
}

#[test]
fn the_least_recently_used_makes_room_also_after_a_restart() {
    let (dir, path) = world();
    let bytes = entry_bytes(dir.path());
    let names = ["a", "b", "c", "d"];
    let cache = open(&path, 3 * bytes).unwrap();
    ["a", "b", "c"].iter().for_each(|name| drop(kept(&cache, name)));
    drop(cache.acquire(&key("a"), &mut must_not_fill).unwrap());
    let cache = open(&path, 3 * bytes).unwrap();
    assert_eq!(kept(&cache, "d").evicted, [key("b").0]);
    assert_eq!(there(&path, &names), ["a", "c", "d"]);
    open(&path, 2 * bytes).unwrap();
    assert_eq!(there(&path, &names), ["a", "d"], "the bound was lowered");
    open(&path, 0).unwrap();
    assert_eq!((there(&path, &names), leftovers(&path)), (vec![], vec![]));
}

#[test]
fn what_is_in_use_is_not_removed_and_what_has_no_room_is_used_once() {
    let (dir, path) = world();
    let bytes = entry_bytes(dir.path());
    let cache = open(&path, bytes).unwrap();
    let used = kept(&cache, "a");
    let other = kept(&cache, "b");
    assert!(used.path().exists() && !other.is_kept() && other.path().join("tests/one.sh").exists());
    // Nobody else sweeps it meanwhile.
    open(&path, 0).unwrap();
    assert!(used.path().exists() && other.path().join("tests/one.sh").exists());
    drop((used, other));
    assert_eq!((there(&path, &["a", "b"]), leftovers(&path)), (vec!["a"], vec![]));
    assert!(kept(&cache, "b").is_kept());
    let large = cache.acquire(&key("large"), &mut fill_with(1 << 20)).unwrap();
    assert!(!large.is_kept());
    drop(large);
    assert_eq!((there(&path, &["a", "b", "large"]), leftovers(&path)), (vec!["b"], vec![]));
}

#[test]
fn an_entry_that_somebody_has_changed_is_thrown_away_and_filled_again() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("content", |entry| fs::write(entry.join("setup/tests/one.sh"), "exit 0").unwrap()),
        ("a new file", |entry| fs::write(entry.join("setup/conftest.py"), "").unwrap()),
        ("a link for the set-up", |entry| {
            fs::rename(entry.join("setup"), entry.join("old")).unwrap();
            symlink("old", entry.join("setup")).unwrap();
        }),
        ("no meta.json", |entry| fs::remove_file(entry.join("meta.json")).unwrap()),
        ("a meta.json that lies of its size", |entry| {
            fs::write(entry.join("meta.json"), format!(r#"{{"bytes":{},"digest":""}}"#, u64::MAX)).unwrap();
        }),
        ("closed folders", |entry| {
            fs::set_permissions(entry.join("setup/tests"), fs::Permissions::from_mode(0o000)).unwrap();
            fs::set_permissions(entry, fs::Permissions::from_mode(0o500)).unwrap();
        }),
    ];
    for (name, change) in changes {
        let (_dir, path) = world();
        let cache = open(&path, ROOMY).unwrap();
        ["a", "b"].iter().for_each(|name| drop(kept(&cache, name)));
        change(&path.join(&key("a").0));
        let held = kept(&cache, "a");
        assert_eq!((held.source, held.is_kept()), (Source::FilledForTampered, true), "{name}");
        assert_eq!(fs::metadata(held.path().join("tests/one.sh")).unwrap().len(), 1000, "{name}");
        drop(held);
        assert_eq!(kept(&cache, "a").source, Source::Cache, "{name}");
        assert_eq!((kept(&cache, "b").source, leftovers(&path)), (Source::Cache, vec![]), "{name}");
    }
}

#[test]
fn a_changed_entry_that_is_in_use_stays_with_its_users_and_is_not_used_again() {
    let (_dir, path) = world();
    let cache = open(&path, ROOMY).unwrap();
    let first = kept(&cache, "a");
    fs::write(first.path().join("tests/one.sh"), "exit 0").unwrap();
    let second = kept(&cache, "a");
    assert!(!second.is_kept() && second.source == Source::FilledForTampered);
    assert_eq!(fs::metadata(second.path().join("tests/one.sh")).unwrap().len(), 1000);
    assert!(first.path().exists());
    drop((first, second));
    assert!(kept(&cache, "a").is_kept());
    assert_eq!(leftovers(&path), [] as [&str; 0]);
}

#[test]
fn of_many_that_want_one_set_up_one_fills_it() {
    const WORKERS: usize = 8;
    let (_dir, path) = world();
    let filled = AtomicUsize::new(0);
    let barrier = Barrier::new(WORKERS);
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (filled, barrier, path) = (&filled, &barrier, &path);
            scope.spawn(move || {
                // A cache of one's own for each second: what is shared is the folder.
                let cache = open(path, ROOMY).unwrap();
                barrier.wait();
                let mut fill = |dir: &Path| {
                    filled.fetch_add(1, Ordering::SeqCst);
                    fill_with(1000 + worker)(dir)
                };
                let held = cache.acquire(&key("a"), &mut fill).unwrap();
                // All hold it at the same time: nobody waits for another to let go.
                barrier.wait();
                assert!(held.is_kept() && held.path().join("tests/one.sh").exists());
            });
        }
    });
    assert_eq!((filled.load(Ordering::SeqCst), leftovers(&path)), (1, vec![]));
    assert_eq!(names_in(&path.join("locks")).unwrap().len(), 2);
}

/// Another process that has a lock until it is ended.
fn holder(lock: &Path, how: &str) -> Child {
    let mut command = Command::new("flock");
    command.arg(how).arg(lock).args(["sh", "-c", "echo locked; read -r _"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    child
}

#[test]
fn what_another_process_uses_is_not_removed() {
    let (_dir, path) = world();
    let cache = open(&path, ROOMY).unwrap();
    ["a", "b"].iter().for_each(|name| drop(kept(&cache, name)));
    let mut other = holder(&path.join("locks").join(&key("a").0), "--shared");
    open(&path, 0).unwrap();
    assert_eq!(there(&path, &["a", "b"]), ["a"]);
    assert!(kept(&cache, "a").was_there(), "both use it");
    drop(other.stdin.take());
    other.wait().unwrap();
    open(&path, 0).unwrap();
    assert_eq!(there(&path, &["a", "b"]), [] as [&str; 0]);
}

#[test]
fn what_another_process_fills_is_waited_for() {
    let (_dir, path) = world();
    let cache = open(&path, ROOMY).unwrap();
    let mut other = holder(&path.join("locks").join(fill_lock("a")), "--exclusive");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| kept(&cache, "a").is_kept());
        // For as long as the other lives no folder is made.
        assert_eq!(kept(&cache, "b").source, Source::Filled);
        assert_eq!((there(&path, &["a", "b"]), waiting.is_finished()), (vec!["b"], false));
        drop(other.stdin.take());
        other.wait().unwrap();
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn a_stop_ends_the_wait_for_another_process() {
    let (_dir, path) = world();
    let stop = Stop::default();
    let cache = SetupCache::open(&path, ROOMY, stop.clone()).unwrap();
    let locks = [fill_lock("a"), key("a").0, "all".to_owned()];
    let others = locks.map(|name| holder(&path.join("locks").join(name), "--exclusive"));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cache.acquire(&key("a"), &mut must_not_fill).unwrap_err());
        stop.set();
        let error = waiting.join().unwrap();
        assert!(matches!(error, CacheError::Cache(CacheFault::Stopped { .. })), "{error}");
    });
    for mut other in others {
        drop(other.stdin.take());
        other.wait().unwrap();
    }
}

#[test]
fn whoever_has_waited_long_enough_makes_a_set_up_for_one_use() {
    let (_dir, path) = world();
    let cache = SetupCache::open_for(&path, ROOMY, Stop::default(), Duration::from_millis(20)).unwrap();
    let mut other = holder(&path.join("locks").join(fill_lock("a")), "--exclusive");
    let held = kept(&cache, "a");
    assert!(!held.is_kept() && held.path().join("tests/one.sh").exists());
    drop(held);
    assert_eq!((there(&path, &["a"]), leftovers(&path)), (vec![], vec![]));
    let mut all = holder(&path.join("locks/all"), "--exclusive");
    let error = cache.acquire(&key("b"), &mut fill_with(1)).unwrap_err().to_string();
    assert!(error.contains("locks/all") && error.contains("--test-setup-cache-dir"), "{error}");
    for other in [&mut other, &mut all] {
        drop(other.stdin.take());
        other.wait().unwrap();
    }
}

#[test]
fn folders_that_somebody_has_removed_are_made_again() {
    let (_dir, path) = world();
    let cache = open(&path, ROOMY).unwrap();
    for gone in [path.clone(), path.join("locks")] {
        drop(kept(&cache, "a"));
        fs::remove_dir_all(gone).unwrap();
        drop(kept(&cache, "a"));
        assert!(kept(&cache, "a").was_there());
        for dir in [path.clone(), path.join("locks")] {
            assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700, "{}", dir.display());
        }
    }
    let mut fill = |dir: &Path| {
        fs::remove_dir_all(path.join("locks")).unwrap();
        fill_with(1)(dir)
    };
    assert!(cache.acquire(&key("b"), &mut fill).unwrap().is_kept(), "somebody clears while it is filled");
}

//! Results on a real disk, and workers that are killed at every step.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use pretty_assertions::assert_eq;

use super::*;
use crate::worker::rejected::{WHY, changed};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn spool(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn rejected(&self) -> PathBuf {
        self.dir.path().join("rejected")
    }

    /// As a worker that starts.
    fn open(&self) -> (Spool, Vec<OsString>) {
        Spool::open(self.spool(), self.rejected()).unwrap()
    }

    fn rejected_names(&self) -> Vec<String> {
        names_in(&self.rejected()).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect()
    }
}

fn bare(id: &str, attempt: u32) -> Vec<u8> {
    format!(r#"{{"submissionID":"{id}","attemptNumber":{attempt},"outcomes":[]}}"#).into_bytes()
}

fn report(id: &str, attempt: u32) -> Vec<u8> {
    format!(r#"{{"collection":{},"diagnostics":{{}}}}"#, String::from_utf8(bare(id, attempt)).unwrap()).into_bytes()
}

fn key(id: &str, attempt: u32) -> JobKey {
    JobKey { submission_id: id.to_owned(), attempt_number: attempt }
}

fn ids_of(spool: &Spool) -> Vec<(String, u32)> {
    let jobs = spool.waiting().into_iter().map(|spooled| spooled.job);
    jobs.map(|job| (job.submission_id, job.attempt_number)).collect()
}

#[test]
fn a_result_is_found_again_after_a_restart_byte_by_byte() {
    let world = World::new();
    for body in [bare("s", 2), report("s", 2)] {
        let (spool, _) = world.open();
        let added = spool.add(&key("s", 2), &body).unwrap();
        assert!(spool.holds(&key("s", 2)) && !spool.holds(&key("s", 1)) && !spool.holds(&key("t", 2)));
        drop(spool);
        let (spool, foreign) = world.open();
        assert_eq!((spool.waiting(), foreign), (vec![added.clone()], vec![]));
        assert_eq!(spool.body(&added).unwrap(), body);
        assert_eq!(fs::metadata(&added.path).unwrap().permissions().mode() & 0o777, 0o600);
        spool.remove(&added).unwrap();
        assert!(!spool.holds(&key("s", 2)));
        assert_eq!(ids_of(&world.open().0), []);
    }
}

#[test]
fn a_writer_that_is_killed_at_any_byte_leaves_no_part_of_a_result() {
    let world = World::new();
    let body = report("s", 1);
    let path = world.open().0.add(&key("s", 1), &body).unwrap().path;
    for len in 0..=body.len() {
        // Written beside, killed before the rename.
        fs::write(world.spool().join(".proving-ground-Ab12cd.tmp"), &body[..len]).unwrap();
        let (spool, foreign) = world.open();
        assert_eq!((ids_of(&spool), foreign.len()), (vec![("s".to_owned(), 1)], 0), "{len} bytes");
        assert_eq!(names_in(&world.spool()).unwrap().len(), 1, "swept");
    }
    for len in 0..body.len() {
        // What a disk leaves that lies about its flushes.
        fs::write(&path, &body[..len]).unwrap();
        let (spool, foreign) = world.open();
        assert_eq!((ids_of(&spool), foreign.len()), (vec![], 1), "{len} bytes");
        assert!(!path.exists());
    }
}

#[test]
fn what_is_no_result_is_set_aside_and_never_sent() {
    let world = World::new();
    world.open().0.add(&key("good", 1), &bare("good", 1)).unwrap();
    let named = |id: &str| world.spool().join(job_file_name(&key(id, 1)));
    fs::write(named("other"), bare("somebody-else", 1)).unwrap();
    fs::write(named("attempt"), bare("attempt", 2)).unwrap();
    fs::write(named("binary"), b"\xff\0").unwrap();
    fs::write(named("deep"), "[".repeat(100_000)).unwrap();
    fs::write(world.spool().join("notes.txt"), bare("good", 1)).unwrap();
    fs::create_dir_all(named("folder").join("in/it")).unwrap();
    symlink(named("good"), named("link")).unwrap();
    nix::unistd::mkfifo(&named("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (spool, foreign) = world.open();
    assert_eq!((ids_of(&spool), foreign.len()), (vec![("good".to_owned(), 1)], 8));
    assert_eq!(world.rejected_names().iter().filter(|name| !name.ends_with(WHY)).count(), 8);
    assert_eq!(names_in(&world.spool()).unwrap().len(), 1);
    let (spool, foreign) = world.open();
    assert_eq!((ids_of(&spool).len(), foreign), (1, vec![]));
}

#[test]
fn a_result_that_somebody_changes_is_not_sent() {
    let world = World::new();
    let (spool, _) = world.open();
    let spooled = spool.add(&key("s", 1), &bare("s", 1)).unwrap();
    fs::write(&spooled.path, bare("t", 1)).unwrap();
    assert!(matches!(spool.body(&spooled), Err(SpoolError::Broken(_))));
    fs::remove_file(&spooled.path).unwrap();
    assert!(matches!(spool.body(&spooled), Err(SpoolError::Broken(_))));
    spool.set_aside(&spooled, "gone").unwrap();
    assert_eq!(ids_of(&spool), []);
}

#[test]
fn the_oldest_is_first_whatever_it_is_called() {
    let world = World::new();
    let (spool, _) = world.open();
    let ids: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    for (id, second) in ids.iter().zip(1..) {
        let spooled = spool.add(&key(id, 1), &bare(id, 1)).unwrap();
        let written = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
        File::options().write(true).open(spooled.path).unwrap().set_modified(written).unwrap();
    }
    let in_order =
        |spool: &Spool| spool.waiting().into_iter().map(|spooled| spooled.job.submission_id).collect::<Vec<_>>();
    assert_eq!(in_order(&spool), ids);
    assert_eq!(in_order(&world.open().0), ids);
}

#[test]
fn a_second_result_of_an_attempt_takes_the_place_of_the_first() {
    let world = World::new();
    let (spool, _) = world.open();
    spool.add(&key("s", 1), &bare("s", 1)).unwrap();
    let second = spool.add(&key("s", 1), &report("s", 1)).unwrap();
    assert_eq!(spool.waiting(), [second]);
    assert_eq!(spool.body(&spool.waiting()[0]).unwrap(), report("s", 1));
}

#[test]
fn a_spool_that_is_full_says_so_and_loses_nothing() {
    let world = World::new();
    let (mut spool, _) = world.open();
    spool.waiting_max = Bounds { files: 2, bytes: 1 << 20 };
    let first = spool.add(&key("a", 1), &bare("a", 1)).unwrap();
    assert!(!spool.is_full());
    spool.add(&key("b", 1), &bare("b", 1)).unwrap();
    assert!(spool.is_full());
    spool.add(&key("c", 1), &bare("c", 1)).unwrap();
    assert_eq!(world.open().0.waiting().len(), 3);
    spool.waiting_max = Bounds { files: 9, bytes: 3 * first.bytes };
    assert!(spool.is_full());
    spool.remove(&first).unwrap();
    assert!(!spool.is_full());
}

#[test]
fn what_was_not_taken_is_kept_with_its_reason_until_newer_ones_need_the_room() {
    let world = World::new();
    let (mut spool, _) = world.open();
    spool.rejected.max = Bounds { files: 2, bytes: 1 << 20 };
    let names = ["a", "b", "c"].map(|id| job_file_name(&key(id, 1)));
    let mut dropped = Vec::new();
    for id in ["a", "b", "c"] {
        let spooled = spool.add(&key(id, 1), &bare(id, 1)).unwrap();
        dropped.extend(spool.set_aside(&spooled, &format!("422 for {id}")).unwrap());
        // The clock that orders them is coarse.
        let at = File::open(world.rejected().join(job_file_name(&key(id, 1)))).unwrap().metadata().unwrap();
        while changed(&probe(world.dir.path())) <= changed(&at) {}
    }
    assert_eq!(dropped, [OsString::from(&names[0])]);
    let why = |name: &str| fs::read_to_string(world.rejected().join(format!("{name}{WHY}"))).unwrap();
    assert_eq!((why(&names[1]), why(&names[2])), ("422 for b".to_owned(), "422 for c".to_owned()));
    assert_eq!(world.rejected_names().len(), 4);
    assert_eq!(ids_of(&world.open().0), []);
}

/// What the clock of the disk says now.
fn probe(dir: &Path) -> fs::Metadata {
    let path = dir.join("probe");
    fs::write(&path, "").unwrap();
    fs::metadata(&path).unwrap()
}

/// A disk with hardly any space: a file system of its own, which needs root.
#[test]
fn a_full_disk_is_an_error_that_can_be_told_and_what_was_there_stays() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = World::new();
    let options = nix::mount::MsFlags::empty();
    let mounted = nix::mount::mount(Some("none"), world.dir.path(), Some("tmpfs"), options, Some("size=256k,mode=700"));
    if mounted.is_err() {
        return;
    }
    let (spool, _) = world.open();
    let small = spool.add(&key("small", 1), &bare("small", 1)).unwrap();
    let mut large = bare("large", 1);
    large.extend(vec![b' '; 1 << 20]);
    let full = spool.add(&key("large", 1), &large);
    let replaced = spool.add(&key("small", 1), &[bare("small", 1), vec![b' '; 1 << 20]].concat());
    let kept = world.open().0.body(&small);
    let names = names_in(&world.spool()).unwrap().len();
    nix::mount::umount(world.dir.path()).unwrap();
    assert!(matches!(full, Err(SpoolError::Disk(DiskError::Full { .. }))), "{full:?}");
    assert!(matches!(replaced, Err(SpoolError::Disk(DiskError::Full { .. }))), "{replaced:?}");
    assert_eq!((kept.unwrap(), names), (bare("small", 1), 1));
    assert!(!spool.holds(&key("large", 1)) && spool.holds(&key("small", 1)));
}

//! Archives that are no archives, or do harm: as a submission its author's, as a set-up no student's fault.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;

use zip::write::SimpleFileOptions;

use crate::server::Server;
use crate::world::{SECRET, World, collection, is_infrastructure, is_not_built, own_job, until, zip_of};

/// A zip with a good file, and something else.
fn with(add: impl FnOnce(&mut zip::ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("a.sh", SimpleFileOptions::default()).unwrap();
    zip.write_all(b"exit 0").unwrap();
    add(&mut zip);
    zip.finish().unwrap().into_inner()
}

fn file(name: &str) -> Vec<u8> {
    with(|zip| {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(b"harm").unwrap();
    })
}

/// More than sixteen MiB of zeros, which is a few KiB.
fn bomb() -> Vec<u8> {
    with(|zip| {
        zip.start_file("zeros", SimpleFileOptions::default()).unwrap();
        zip.write_all(&vec![0; 20 << 20]).unwrap();
    })
}

/// Name, archive, and a part of what is said of it.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = zip_of(&[("a.sh", "exit 0"), ("b", "some more bytes")]);
    vec![
        ("climbing", file("../harm"), "harm"),
        ("absolute", file("/tmp/harm"), "harm"),
        ("link", with(|zip| zip.add_symlink("harm", "/etc/passwd", SimpleFileOptions::default()).unwrap()), "harm"),
        ("bomb", bomb(), "times its own size"),
        ("garbage", b"<html>please log in</html>".to_vec(), "no zip archive"),
        ("empty", Vec::new(), "no zip archive"),
        ("truncated", good[..good.len() / 2].to_vec(), "no zip archive"),
        ("damaged", [&good[..30], &[0xff; 20], &good[50..]].concat(), "damaged"),
        ("deep", file(&"a/".repeat(100)), "a/"),
        ("newline", file("harm\nless\u{1b}[31m"), "harm"),
    ]
}

/// Files below `dir` with this name.
fn found(dir: &Path, name: &str) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| usize::from(path.ends_with(name)) + if path.is_dir() { found(&path, name) } else { 0 }).sum()
}

#[test]
fn a_hostile_submission_is_told_to_its_author_and_the_next_job_is_done() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let rows = hostile();
    for (name, archive, _) in &rows {
        let mut job = own_job(name, &[("a.sh", &world.counts_in("runs"))]);
        job.submission.clone_from(archive);
        server.add_job(job);
    }
    server.add_job(own_job("good", &[("a.sh", "exit 0")]));
    world.run_once(&server, &["--max-jobs", "2"]);
    for (name, _, part) in &rows {
        let collection = collection(&server, name);
        is_not_built(&collection, part);
        is_not_built(&collection, "The submission could not be unpacked: ");
    }
    assert_eq!(collection(&server, "good")["passCount"], 1);
    assert_eq!((world.lines("runs"), found(world.dir.path(), "harm")), (0, 0), "no script ran, nothing got out");
    assert!(!Path::new("/tmp/harm").exists());
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

#[test]
fn a_hostile_set_up_is_no_fault_of_the_student_and_the_next_job_is_done() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let rows = hostile();
    for (name, archive, _) in &rows {
        let mut job = own_job(name, &[("a.sh", &world.counts_in("runs"))]);
        job.set_up.clone_from(archive);
        server.add_job(job);
    }
    server.add_job(own_job("good", &[("a.sh", "exit 0")]));
    world.run_once(&server, &["--max-jobs", "2"]);
    for (name, _, part) in &rows {
        is_infrastructure(&collection(&server, name), part);
        is_infrastructure(&collection(&server, name), "could not unpack the set-up: ");
    }
    assert_eq!(collection(&server, "good")["passCount"], 1);
    assert_eq!(
        (world.lines("runs"), found(world.dir.path(), "harm")),
        (0, 0),
        "no script ran, nothing got out or was kept"
    );
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

#[test]
fn modes_of_an_archive_give_nobody_rights() {
    let server = Server::today(Some(SECRET));
    let mut job = own_job("s1", &[("a.sh", "[ \"$(stat -c %a theirs)\" = 755 ] || { stat -c %a theirs; exit 1; }")]);
    job.submission = with(|zip| {
        zip.start_file("theirs", SimpleFileOptions::default().unix_permissions(0o6777)).unwrap();
    });
    server.add_job(job);
    World::new().run_once(&server, &[]);
    assert_eq!(collection(&server, "s1")["passCount"], 1, "{:#}", collection(&server, "s1"));
}

#[test]
fn an_archive_of_nothing_is_a_submission_of_nothing() {
    let server = Server::today(Some(SECRET));
    let mut job = own_job("s1", &[("a.sh", "[ $(ls -A | wc -l) = 1 ]")]);
    job.submission = zip_of(&[]);
    server.add_job(job);
    World::new().run_once(&server, &[]);
    assert_eq!(collection(&server, "s1")["passCount"], 1);
}

#[test]
fn an_archive_that_is_unpacked_takes_no_space_while_scripts_run() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(own_job("s1", &[("a.sh", &(world.counts_in("runs") + &world.waits_for("gate")))]));
    let mut worker = world.start(&server, &[]);
    until(&|| worker.text(), || world.lines("runs") == 1);
    for name in ["setup.zip", "submission.zip", "archive.zip"] {
        assert_eq!(found(&world.scratch(), name), 0, "{name}");
    }
    let descriptors = fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap();
    let files = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let held: Vec<_> = files.filter(|file| file.to_string_lossy().contains(".zip")).collect();
    assert!(held.is_empty(), "{held:?}");
    world.open("gate");
    worker.finish();
    assert_eq!(collection(&server, "s1")["passCount"], 1);
}

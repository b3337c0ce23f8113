//! Jobs beside and after each other, and what they share.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::server::{Server, State};
use crate::world::{SECRET, World, collection, job, own_job, said, zip_of};

#[test]
fn two_jobs_run_at_the_same_time_if_they_may() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    for (mine, other) in [("s1", "s2"), ("s2", "s1")] {
        let script = format!("touch '{}'\n{}", world.path(mine).display(), world.waits_for(other));
        server.add_job(own_job(mine, &[("a.sh", &script)]));
    }
    world.run_once(&server, &["--max-jobs", "2"]);
    for id in ["s1", "s2"] {
        assert_eq!(collection(&server, id)["passCount"], 1, "{id} has met the other");
    }
}

#[test]
fn jobs_run_one_after_another_if_that_is_asked_for() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let place = world.path("occupied").display().to_string();
    for id in ["s1", "s2", "s3"] {
        server.add_job(own_job(id, &[("a.sh", &format!("mkdir '{place}' && sleep 0.2 && rmdir '{place}'"))]));
    }
    world.run_once(&server, &["--max-jobs", "1"]);
    for id in ["s1", "s2", "s3"] {
        assert_eq!(collection(&server, id)["passCount"], 1, "{id} was alone");
    }
}

#[test]
fn the_scripts_of_two_jobs_see_nothing_of_each_other() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let script = "[ ! -e left ] && [ \"$(cat answer.txt)\" = $ID ] && echo x >left && echo x >\"$TMPDIR/left\"";
    for id in ["s1", "s2", "s3"] {
        server.add_job(own_job(
            id,
            &[("a.sh", &script.replace("$ID", id)), ("b.sh", "[ ! -e left ] && [ ! -e \"$TMPDIR/left\" ]")],
        ));
    }
    world.run_once(&server, &["--max-jobs", "1"]);
    for id in ["s1", "s2", "s3"] {
        assert_eq!(collection(&server, id)["passCount"], 2, "{:#}", collection(&server, id));
    }
}

#[test]
fn a_cache_that_somebody_clears_while_the_worker_runs_is_made_again() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let mut worker = world.start(&server, &[]);
    for (id, gone) in [("s1", "cache"), ("s2", "cache/locks"), ("s3", "cache")] {
        server.add_job(job(id, &[("a.sh", "exit 0")]));
        server.wait_until(id, |state| state.results.contains_key(&(id.to_owned(), 1)));
        assert_eq!(collection(&server, id)["passCount"], 1, "{:#}", collection(&server, id));
        fs::remove_dir_all(world.path(gone)).unwrap();
    }
    worker.finish();
    world.is_clean();
}

fn fetched(state: &State) -> usize {
    state.requests.iter().filter(|seen| seen.path.starts_with("/files/set-ups/")).count()
}

/// The unpacked file of the one set-up in the cache.
fn cached(cache: &Path, file: &str) -> PathBuf {
    let entries = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path().join("setup").join(file));
    entries.into_iter().find(|path| path.is_file()).unwrap()
}

#[test]
fn a_set_up_is_fetched_once_and_again_when_somebody_has_changed_it() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    let scripts = [("a.sh", "exit 1")];
    for id in ["s1", "s2", "s3"] {
        server.add_job(job(id, &scripts));
    }
    let events = world.run_once(&server, &["--max-jobs", "3"]);
    assert_eq!((fetched(&server.state()), said(&events, "setup_ready", "cached").len()), (1, 3));
    server.add_job(job("s4", &scripts));
    world.run_once(&server, &[]);
    assert_eq!(fetched(&server.state()), 1, "it is there after a restart");
    let hits = |id: &str| {
        server.results()[&(id.to_owned(), 1)].first["diagnostics"]["stageTimings"]["testSetupCacheHit"].clone()
    };
    assert_eq!(hits("s4"), true);
    fs::write(cached(&world.path("cache"), "a.sh"), "exit 0").unwrap();
    server.add_job(job("s5", &scripts));
    let events = world.run_once(&server, &[]);
    assert_eq!(said(&events, "cache_entry_tampered", "submissionID"), ["s5"]);
    assert_eq!((collection(&server, "s5")["failCount"].clone(), hits("s5")), (json!(1), json!(false)));
    assert_eq!(fetched(&server.state()), 2);
}

#[test]
fn a_manifest_or_an_address_that_changes_makes_another_set_up() {
    let server = Server::today(Some(SECRET));
    let world = World::new();
    server.add_job(job("s1", &[("a.sh", "exit 0")]));
    let mut other = job("s2", &[("a.sh", "exit 0")]);
    other.manifest["testSuites"][0]["points"] = json!(5);
    server.add_job(other);
    world.run_once(&server, &["--max-jobs", "1"]);
    assert_eq!(fetched(&server.state()), 2);
    assert_eq!(collection(&server, "s2")["earnedPoints"], 5);
}

#[test]
fn a_submission_of_one_file_lies_there_under_its_name() {
    let server = Server::today(Some(SECRET));
    let mut job = own_job("s1", &[("a.sh", "[ \"$(cat 'my answer.py')\" = 'print(1)' ] && [ $(ls | wc -l) = 2 ]")]);
    (job.submission, job.submission_filename) = (b"print(1)\n".to_vec(), Some("my answer.py".to_owned()));
    server.add_job(job);
    World::new().run_once(&server, &[]);
    assert_eq!(collection(&server, "s1")["passCount"], 1, "{:#}", collection(&server, "s1"));
}

#[test]
fn a_seed_is_in_the_environment_of_the_job_that_has_one() {
    let server = Server::today(Some(SECRET));
    for (id, seed) in
        [("text", Some(json!("a b"))), ("number", Some(json!(18_446_744_073_709_551_615_u64))), ("none", None)]
    {
        let mut job = own_job(id, &[("a.sh", "echo \"[${CHICKADEE_ASSIGNMENT_SEED-absent}]\" | tr -d '[]'")]);
        job.assignment_seed = seed;
        server.add_job(job);
    }
    World::new().run_once(&server, &[]);
    for (id, seen) in [("text", "a b"), ("number", "18446744073709551615"), ("none", "absent")] {
        assert_eq!(collection(&server, id)["outcomes"][0]["shortResult"], seen, "{id}");
    }
}

#[test]
fn files_of_the_set_up_stay_and_that_is_said() {
    let server = Server::today(Some(SECRET));
    let mut zipped = own_job("zip", &[("a.sh", "[ \"$(cat data)\" = ours ] && [ -e more ]")]);
    zipped.set_up = zip_of(&[("a.sh", "[ \"$(cat data)\" = ours ] && [ -e more ]"), ("data", "ours")]);
    zipped.submission = zip_of(&[("a.sh", "exit 0"), ("data", "theirs"), ("more", "")]);
    let mut file = own_job("file", &[("a.sh", "exit 1")]);
    (file.submission, file.submission_filename) = (b"exit 0".to_vec(), Some("a.sh".to_owned()));
    server.add_job(zipped);
    server.add_job(file);
    World::new().run_once(&server, &[]);
    assert_eq!(
        (collection(&server, "zip")["passCount"].clone(), collection(&server, "file")["failCount"].clone()),
        (json!(1), json!(1))
    );
    let warnings = |id| {
        collection(&server, id)["warnings"].as_array().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (id, names) in [("zip", &["a.sh", "data"][..]), ("file", &["a.sh"])] {
        assert_eq!(warnings(id).len(), names.len(), "{:?}", warnings(id));
        for name in names {
            assert!(warnings(id).iter().any(|warning| warning.contains(&format!("`{name}`"))), "{:?}", warnings(id));
        }
    }
}

#[test]
fn the_seeds_server_gets_bare_collections_without_signatures() {
    let server = Server::minimal();
    server.add_job(job("s1", &[("a.sh", "exit 0"), ("b.sh", "exit 1")]));
    let world = World::new();
    let mut worker = world.spawn(world.command(&server).arg("--once"));
    assert!(worker.wait().success(), "{}", worker.text());
    let stored = server.results()[&("s1".to_owned(), 1)].clone();
    assert_eq!((stored.first["passCount"].clone(), stored.first.get("collection")), (json!(1), None));
    assert!(server.requests().iter().all(|seen| !seen.headers.contains_key("x-worker-signature")));
    assert_eq!(server.violations(), Vec::<String>::new());
    assert!(worker.text().contains("requests go unsigned"));
    world.is_clean();
}

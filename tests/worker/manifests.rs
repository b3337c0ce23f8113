//! Manifests that are wrong, large or strange, and make.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::server::{Assigned, Server};
use crate::world::{SECRET, World, collection, is_infrastructure, is_not_built, own_job, zip_of};

const PASSES: &[(&str, &str)] = &[("a.sh", "exit 0")];

#[test]
fn a_manifest_that_is_wrong_is_no_fault_of_the_student() {
    let entry = |entry: Value| json!({"schemaVersion": 1, "testSuites": [entry]});
    let cycle = json!([{"script": "a.sh", "dependsOn": ["b.sh"]}, {"script": "b.sh", "dependsOn": ["a.sh"]}]);
    let rows = [
        (json!({}), "schemaVersion"),
        (json!({"schemaVersion": "one"}), "schemaVersion"),
        (json!([]), "manifest"),
        (json!(null), "manifest"),
        (json!("text"), "manifest"),
        (json!({"schemaVersion": 1, "testSuites": {}}), "testSuites"),
        (json!({"schemaVersion": 1, "testSuites": [7]}), "testSuites"),
        (json!({"schemaVersion": 1, "timeLimitSeconds": 0}), "cannot be 0"),
        (json!({"schemaVersion": 1, "timeLimitSeconds": -1}), "cannot be -1"),
        (json!({"schemaVersion": 1, "timeLimitSeconds": "10"}), "timeLimitSeconds"),
        (json!({"schemaVersion": 1, "makefile": {"target": "-f/etc/passwd"}}), "option"),
        (json!({"schemaVersion": 1, "testSuites": cycle}), "a.sh"),
        (entry(json!({})), "script"),
        (entry(json!({"script": "../x"})), "../x"),
        (entry(json!({"script": "/bin/true"})), "/bin/true"),
        (entry(json!({"script": "a.sh", "tier": "gold"})), "gold"),
        (entry(json!({"script": "a.sh", "points": -5})), "-5"),
        (entry(json!({"script": "a.sh", "dependsOn": ["nowhere.sh"]})), "nowhere.sh"),
        (entry(json!({"script": "a.sh", "dependsOn": ["a.sh"]})), "a.sh"),
    ];
    let server = Server::today(Some(SECRET));
    for (number, (manifest, _)) in rows.iter().enumerate() {
        server.add_job(Assigned { manifest: manifest.clone(), ..own_job(&number.to_string(), PASSES) });
    }
    server.add_job(own_job("good", PASSES));
    let world = World::new();
    world.run_once(&server, &[]);
    for (number, (_, part)) in rows.iter().enumerate() {
        is_infrastructure(&collection(&server, &number.to_string()), part);
    }
    assert_eq!(collection(&server, "good")["passCount"], 1);
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

#[test]
fn a_script_that_is_missing_is_counted() {
    let server = Server::today(Some(SECRET));
    let mut job = own_job("s1", PASSES);
    job.manifest["testSuites"] =
        json!([{"script": "a.sh"}, {"script": "gone.sh"}, {"script": "b.sh", "dependsOn": ["gone.sh"]}]);
    server.add_job(job);
    World::new().run_once(&server, &[]);
    let collection = collection(&server, "s1");
    assert_eq!((&collection["totalTests"], &collection["passCount"]), (&json!(3), &json!(1)), "{collection:#}");
    assert_eq!(collection["outcomes"][2]["shortResult"], "Skipped: prerequisite 'gone.sh' did not pass");
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn a_set_up_without_scripts_has_no_outcomes_and_says_so() {
    let server = Server::today(Some(SECRET));
    for (id, manifest) in
        [("none", json!({"schemaVersion": 1})), ("empty", json!({"schemaVersion": 1, "testSuites": []}))]
    {
        server.add_job(Assigned { manifest, ..own_job(id, PASSES) });
    }
    World::new().run_once(&server, &[]);
    for id in ["none", "empty"] {
        let collection = collection(&server, id);
        assert_eq!(
            (&collection["outcomes"], &collection["totalTests"], &collection["errorCount"]),
            (&json!([]), &json!(0), &json!(0))
        );
        let warnings = collection["warnings"].to_string();
        assert!(warnings.contains("nothing was tested"), "{id}: {warnings}");
    }
    assert_eq!(server.violations(), Vec::<String>::new());
}

/// They need one that fails, so that the test takes the time of the worker and not of five thousand shells.
#[test]
fn five_thousand_scripts_are_reported_in_their_order() {
    let server = Server::today(Some(SECRET));
    let mut job = own_job("s1", &[("0.sh", "exit 1")]);
    let entry = |number: u32| json!({"script": format!("{number}.sh"), "dependsOn": if number > 0 { json!(["0.sh"]) } else { json!([]) }});
    job.manifest["testSuites"] = (0..5000).map(entry).collect();
    server.add_job(job);
    let world = World::new();
    world.run_once(&server, &[]);
    let collection = collection(&server, "s1");
    let names: Vec<_> =
        collection["outcomes"].as_array().unwrap().iter().map(|outcome| outcome["testName"].clone()).collect();
    assert_eq!(names, (0..5000).map(|number| json!(number.to_string())).collect::<Vec<_>>());
    assert_eq!(collection["failCount"], 5000);
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

/// A job whose Makefile has these lines, and whose one script looks for what they make.
fn made(id: &str, lines: &[&str], limit_secs: u32) -> Assigned {
    let mut makefile = "all:\n".to_owned();
    for line in lines {
        writeln!(makefile, "\t{line}").unwrap();
    }
    let mut job = own_job(id, &[("a.sh", "[ -e made ]")]);
    job.set_up = zip_of(&[("a.sh", "[ -e made ]"), ("Makefile", &makefile)]);
    job.manifest["makefile"] = json!({});
    job.manifest["timeLimitSeconds"] = json!(limit_secs);
    job
}

#[test]
fn make_that_fails_in_any_way_is_a_failed_build_with_its_output() {
    let server = Server::today(Some(SECRET));
    server.add_job(made("fails", &["@echo an error in answer.c >&2; exit 3"], 100));
    server.add_job(made("hangs", &["@echo it begins", "@sleep 1000"], 1));
    server.add_job(made("is-killed", &["@echo it begins", "@kill -9 $$PPID"], 100));
    server.add_job(made("floods", &["@echo first", "@yes | head -c 3000000", "@echo last; exit 1"], 100));
    server.add_job(made("has-no-target", &[], 100));
    server.state().queue.back_mut().unwrap()["manifest"]["makefile"] = json!({"target": "nowhere"});
    let world = World::new();
    world.run_once(&server, &[]);
    for (id, part) in [
        ("fails", "an error in answer.c"),
        ("hangs", "it begins"),
        ("is-killed", "it begins"),
        ("floods", "first"),
        ("floods", "last"),
        ("has-no-target", "nowhere"),
    ] {
        is_not_built(&collection(&server, id), part);
    }
    let bytes = collection(&server, "floods")["compilerOutput"].as_str().unwrap().len();
    assert!(bytes < 1_000_000, "{bytes} bytes");
    assert_eq!(server.violations(), Vec::<String>::new());
    world.is_clean();
}

#[test]
fn make_that_says_a_lot_and_ends_well_is_a_build() {
    let server = Server::today(Some(SECRET));
    server.add_job(made("s1", &["@yes | head -c 200000", "@yes | head -c 200000 >&2", "@touch made"], 100));
    World::new().run_once(&server, &[]);
    let collection = collection(&server, "s1");
    assert_eq!((&collection["buildStatus"], &collection["passCount"]), (&json!("passed"), &json!(1)), "{collection:#}");
    assert_eq!(collection.get("compilerOutput"), None);
}

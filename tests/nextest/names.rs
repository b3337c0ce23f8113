//! Which tests there are, and which of them run.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::world::{Project, command};
use crate::{FAILED, claim, project, run, start, telling, told};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(every_trial_is_listed_by_its_name),
        claim(a_filter_may_hold_any_name),
        claim(names_that_differ_only_in_case_are_two_tests),
        claim(partitions_hold_each_test_once),
        claim(partitions_are_merged_into_one_run),
        claim(a_test_that_went_away_since_the_listing_fails),
    ]
}

const STRANGE: [&str; 9] =
    ["'$(id)'", "10-a&b<c>;", "a\"b", "a,b|c", "héllo-wörld", "it's", "sudo/10-ünï", "x[1]*", "日本語"];

fn strange() -> Project {
    let project = project();
    STRANGE.iter().for_each(|name| telling(&project, name));
    project.file("suites/set/Adds two \"numbers\".sh", "exit 0");
    project
}

fn every_trial_is_listed_by_its_name() {
    let project = strange();
    let ended = start(&project, "list", &["--message-format", "json"]).wait();
    ended.code(0);
    let listed: Value = serde_json::from_str(&ended.stdout).unwrap();
    let tests = listed["rust-suites"]["tool::suites"]["testcases"].as_object().unwrap();
    let names: Vec<_> = tests.keys().map(String::as_str).collect();
    let mut expected = [STRANGE.as_slice(), &["set/Adds-two-\"numbers\""]].concat();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert!(tests.values().all(|test| test["ignored"] == false), "{listed:#}");
    assert!(!project.path("proof").exists() && project.order().is_empty());
}

fn a_filter_may_hold_any_name() {
    let project = strange();
    for name in ["héllo-wörld", "it's", "a\"b", "日本語", "'$(id)'", "x[1]*"] {
        // nextest's way to write what would end a filter.
        let filter = format!("  test( ={})  &  kind(test) ", name.replace(')', "\\)"));
        run(&project, &["-E", &filter]).code(0).says("1 test run: 1 passed");
        assert_eq!(told(&project), ["start", "end", "restore"].map(|what| (what.to_owned(), name.to_owned())));
        std::fs::remove_file(project.path("order")).unwrap();
    }
    run(&project, &["-E", "test(=set/Adds-two-\"numbers\")"]).code(0).says("1 test run: 1 passed");
    // libtest's own way, with spaces around what is looked for.
    run(&project, &["--", "--exact", "it's", "日本語"]).code(0).says("2 tests run: 2 passed");
    run(&project, &["--", "--exact", "it"]).code(4);
}

fn names_that_differ_only_in_case_are_two_tests() {
    let project = project();
    for name in ["Foo", "foo"] {
        project.suite(name, &[("execute", &format!("echo I am {name}"))]);
    }
    run(&project, &["--test-threads", "4"]).code(0).says("2 tests run: 2 passed");
    for name in ["Foo", "foo"] {
        assert_eq!(project.text(format!("proof/logs/{name}/execute.stdout.log")), format!("I am {name}\n"));
        project.result(name).assert_pass();
        project.record(name).assert_pass();
    }
}

fn partitions_hold_each_test_once() {
    for kind in ["hash", "count", "slice"] {
        let project = project();
        let names: Vec<String> = (10..30).map(|number| format!("{number}-a")).collect();
        names.iter().for_each(|name| telling(&project, name));
        let mut ran = Vec::new();
        for part in ["1/2", "2/2"] {
            run(&project, &["--partition", &format!("{kind}:{part}")]).code(0);
            let summary = project.summary();
            let suites = summary["suites"].as_array().unwrap().iter();
            ran.extend(suites.map(|suite| suite["name"].as_str().unwrap().to_owned()));
            assert!(ran.len() < names.len() || part == "2/2", "{kind}:{part} had all of them");
        }
        ran.sort();
        assert_eq!(ran, names, "{kind}");
        assert_eq!(told(&project).len(), 3 * names.len(), "{kind}");
    }
}

fn partitions_are_merged_into_one_run() {
    let project = project();
    let names: Vec<String> = (10..20).map(|number| format!("{number}-a")).collect();
    names.iter().for_each(|name| telling(&project, name));
    let shards = ["1", "2"].map(|part| {
        run(&project, &["--partition", &format!("count:{part}/2")]).code(0);
        let shard = project.path(format!("shard-{part}"));
        std::fs::rename(project.path("proof"), &shard).unwrap();
        shard.display().to_string()
    });
    let runner = |args: &[&str]| {
        let mut command = command(env!("CARGO_BIN_EXE_container-runner"));
        command.current_dir(project.path("")).args(args).args(["--proof", "merged"]);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{text}");
        text
    };
    runner(&["collect", "--merge", &shards[0], &shards[1]]);
    assert!(runner(&["verify"]).contains("sound"));
    let text = std::fs::read_to_string(project.path("merged/summary.json")).unwrap();
    let merged: serde_json::Value = serde_json::from_str(&text).unwrap();
    let suites = merged["suites"].as_array().unwrap().iter();
    assert_eq!(suites.map(|suite| suite["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    assert_eq!(merged["shards"].as_array().unwrap().len(), 2);
}

/// The harness is started with a name that is not there; to libtest that would be a pass.
fn a_test_that_went_away_since_the_listing_fails() {
    let project = project();
    project.suite(
        "10-a",
        &[("execute", "rm -r suites/20-enable; mkdir suites/20-enabel; echo x >suites/20-enabel/task.yaml")],
    );
    project.suite("20-enable", &[("execute", "true")]);
    let ended = run(&project, &["--test-threads", "1"]);
    ended.code(FAILED).says("1 passed, 1 failed").says("no test is called `20-enable`");
}

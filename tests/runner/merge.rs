//! `collect --merge`: the proof folders of several machines, made one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::RUNNER;
use crate::world::{Ended, Project, claim, command, has};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(two_machines_become_one_sound_run),
        claim(nextest_shards_become_one_sound_run),
        claim(neither_order_nor_packing_of_the_shards_matters),
        claim(nothing_of_a_shard_is_lost),
        claim(what_failed_or_was_not_judged_is_named_and_exits_with_1),
        claim(a_stage_that_failed_is_named),
        claim(a_merged_run_can_be_collected_and_merged_again),
        claim(runs_of_different_revisions_are_refused),
        claim(builds_that_cannot_be_the_same_are_refused),
        claim(the_same_build_in_another_folder_is_not_refused),
        claim(a_trial_that_is_in_two_shards_is_refused),
        claim(the_same_shard_twice_is_refused),
        claim(a_folder_that_is_no_shard_is_refused),
        claim(a_target_that_is_or_holds_a_shard_is_refused),
        claim(a_forged_or_truncated_shard_is_refused),
        claim(a_run_id_that_leads_elsewhere_is_refused),
        claim(names_of_a_forger_do_not_drive_the_terminal),
        claim(a_shard_that_still_runs_is_refused),
        claim(a_shard_that_was_killed_is_refused_until_it_is_collected),
        claim(an_older_run_is_replaced_and_what_is_not_ours_stays),
        claim(an_older_run_stays_if_the_new_one_cannot_be_written),
        claim(a_merge_that_was_killed_changes_nothing_and_can_be_repeated),
        claim(a_forged_merge_is_found),
    ]
}

/// A machine with the suites of the project; every one has its own.
fn machine() -> Project {
    let settings = "product: {name: tool, build: none, bin: bin/tool}\nsnapshot: {paths: [data]}\n";
    let project = Project::with(settings);
    project.program("bin/tool", "#!/bin/sh\necho tool-out\n").file("data/conf", "old\n");
    project.suite("10-a", &[("execute", "echo new >data/conf; tool"), ("restore", "echo old >data/conf")]);
    project.suite("20-b", &[("execute", "tool")]).suite("sudo/30-é", &[("execute", "echo said")]);
    project.file("suites/set/1.sh", "echo script");
    project
}

/// A machine on which cargo test has run what the filters choose.
fn tested(filters: &[&str]) -> Project {
    let project = machine();
    project.run(filters).code(0);
    project.by(RUNNER)
}

/// A machine on which all stages have run, with one suite.
fn staged(filter: &str) -> Project {
    let project = machine().by(RUNNER).variable("TEST_FILTER", filter);
    project.run(&["all"]).code(0);
    project
}

/// Two machines, of which one was not collected.
fn two() -> (Project, Project) {
    (tested(&["10-a", "20-b"]), staged("sudo/30-é"))
}

/// Merges into `merged` of the first machine.
fn merge(machine: &Project, shards: &[PathBuf]) -> Ended {
    let shards: Vec<_> = shards.iter().map(|shard| shard.to_str().unwrap()).collect();
    machine.run(&[&["collect", "--proof", "merged", "--merge"], &shards[..]].concat())
}

fn proofs(machines: &[&Project]) -> Vec<PathBuf> {
    machines.iter().map(|machine| machine.path("proof")).collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

fn summary(machine: &Project) -> Value {
    read(&machine.path("merged/summary.json"))
}

fn names(summary: &Value) -> Vec<&str> {
    summary["suites"].as_array().unwrap().iter().map(|trial| trial["name"].as_str().unwrap()).collect()
}

fn edit(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = read(path);
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Every file of a folder with its content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files =
        walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| (entry.path().strip_prefix(folder).unwrap().to_owned(), fs::read(entry.path()).unwrap()))
        .collect()
}

#[track_caller]
fn assert_sound(machine: &Project) {
    machine.run(&["verify", "merged"]).code(0).says("sound: ");
    machine.run(&["verify", "merged/proofs.tar.gz"]).code(0).says("sound: ");
    if has(&["sha256sum"]) {
        let check = ["--strict", "--quiet", "-c", "manifest.sha256"];
        assert!(command("sha256sum").args(check).current_dir(machine.path("merged")).status().unwrap().success());
    }
}

/// Expects that a merge is refused with all of `words`, and that it changes nothing anywhere.
#[track_caller]
fn assert_refused(machine: &Project, shards: &[PathBuf], words: &[&str]) {
    fs::remove_dir_all(machine.path("merged")).ok();
    for old in [false, true] {
        if old {
            machine.file("merged/summary.json", "an older run").file("merged/run.json", "of an older run");
            machine.file("merged/logs/old.log", "old");
        }
        let before = content(&machine.path("."));
        let ended = merge(machine, shards);
        ended.code(2);
        for word in words {
            ended.stderr_says(word);
        }
        assert!(content(&machine.path(".")) == before, "it has changed something: {ended}");
        assert_eq!(machine.path("merged").exists(), old, "{ended}");
    }
}

fn two_machines_become_one_sound_run() {
    let (one, two) = two();
    merge(&one, &proofs(&[&one, &two])).code(0).says("merged 3 trials of 2 runs").says("3 passed, 0 failed");
    assert_sound(&one);
    let merged = summary(&one);
    assert_eq!(names(&merged), ["10-a", "20-b", "sudo/30-é"]);
    assert_eq!(merged["counts"], json!({"pass": 3, "fail": 0, "running": 0, "interrupted": 0}));
    assert_eq!((&merged["selected"], &merged["not_selected"]), (&json!(3), &json!(1)));
    assert_eq!((&merged["interrupted"], &merged["stages"]), (&json!(false), &json!([])));
    assert!(merged["harness_policy"].is_string(), "{merged:#}");
    let shards = [one.summary(), two.summary()];
    let texts = |key: &str| shards.each_ref().map(|shard| shard[key].as_str().unwrap().to_owned());
    assert_eq!(merged["started_at"], texts("started_at").into_iter().min().unwrap());
    assert_eq!(merged["finished_at"], texts("finished_at").into_iter().max().unwrap());
    for key in ["isolation", "product", "runner_version", "distro", "container_id", "revision"] {
        assert_eq!(merged[key], shards[0][key], "{key}");
    }
    assert!(merged["run_id"].as_str().unwrap().starts_with("merged-"), "{merged:#}");
}

fn nextest_shards_become_one_sound_run() {
    let shard = |run_id: &str, names: &[&str]| {
        let project =
            machine().variable("NEXTEST", "1").variable("NEXTEST_RUN_ID", run_id).variable("NEXTEST_ATTEMPT", "1");
        for name in names {
            project.run(&["--exact", name, "--nocapture"]).code(0);
        }
        project.by(RUNNER)
    };
    let (one, two) = (shard("run-1", &["10-a", "set/1"]), shard("run-2", &["20-b", "sudo/30-é"]));
    merge(&one, &proofs(&[&one, &two])).code(0);
    assert_sound(&one);
    assert_eq!(names(&summary(&one)), ["10-a", "20-b", "set/1", "sudo/30-é"]);
    let log = fs::read_to_string(one.path("merged/logs/runner.jsonl")).unwrap();
    assert_eq!(log.matches("suite_end").count(), 4);
}

fn neither_order_nor_packing_of_the_shards_matters() {
    let (one, two) = two();
    one.run(&["collect"]).code(0);
    let [of_one, of_two] = [&one, &two].map(|machine| machine.path("proof"));
    let packed = |folder: &Path| folder.join("proofs.tar.gz");
    let orders = [
        [of_one.clone(), of_two.clone()],
        [of_two.clone(), of_one.clone()],
        [packed(&of_one), of_two.clone()],
        [packed(&of_two), packed(&of_one)],
    ];
    let bundles = orders.map(|shards| {
        merge(&one, &shards).code(0);
        assert_sound(&one);
        fs::read(one.path("merged/proofs.tar.gz")).unwrap()
    });
    let bundles = BTreeSet::from(bundles);
    assert_eq!(bundles.len(), 1);
}

fn nothing_of_a_shard_is_lost() {
    let (one, two) = two();
    two.file("proof/stages/build.stderr.log", "built\n").file("proof/results/build_meta.json", BUILD);
    one.file("proof/results/build_meta.json", BUILD);
    two.run(&["collect"]).code(0);
    merge(&one, &proofs(&[&one, &two])).code(0);
    let merged = content(&one.path("merged"));
    let summary = summary(&one);
    for shard in [&one, &two] {
        let own = shard.summary();
        let run_id = own["run_id"].as_str().unwrap();
        for (path, bytes) in content(&shard.path("proof")) {
            let to = match path.to_str().unwrap() {
                ".lock" | "summary.json" | "junit.xml" | "manifest.sha256" | "proofs.tar.gz" | "logs/runner.jsonl" => {
                    continue;
                }
                "run.json" => format!("stages/{run_id}/run.json"),
                "results/build_meta.json" => format!("stages/{run_id}/build_meta.json"),
                other => match other.strip_prefix("stages/") {
                    Some(rest) => format!("stages/{run_id}/{rest}"),
                    None => other.to_owned(),
                },
            };
            assert!(merged.get(Path::new(&to)) == Some(&bytes), "{} is not {to}", path.display());
        }
        let log = String::from_utf8(merged[Path::new("logs/runner.jsonl")].clone()).unwrap();
        assert!(log.contains(&shard.text("proof/logs/runner.jsonl")), "{log}");
        let mut record =
            summary["shards"].as_array().unwrap().iter().find(|shard| shard["run_id"] == run_id).unwrap().clone();
        assert_eq!(record["trials"], json!(names(&own)));
        record.as_object_mut().unwrap().remove("trials");
        let mut expected = own.clone();
        expected.as_object_mut().unwrap().remove("suites");
        assert_eq!(record, expected);
        let junit = String::from_utf8(merged[Path::new("junit.xml")].clone()).unwrap();
        for trial in own["suites"].as_array().unwrap() {
            assert!(junit.contains(&format!("<testcase name={}", trial["name"])), "{junit}");
            assert!(summary["suites"].as_array().unwrap().contains(trial), "{trial:#}");
        }
    }
}

fn what_failed_or_was_not_judged_is_named_and_exits_with_1() {
    let one = tested(&["10-a"]);
    let two = machine().by(RUNNER).variable("TEST_FILTER", "90-z");
    two.suite("90-z", &[("execute", "exit 7")]).run(&["run-suites"]).code(1);
    let failed = merge(&one, &proofs(&[&one, &two]));
    failed.code(1).says("FAIL 90-z in `").says("execute exited with code 7").says("1 passed, 1 failed");
    assert_sound(&one);
    let three = machine().by(RUNNER).variable("TEST_FILTER", "95-z");
    three.suite("95-z", &[("execute", "echo x >begun; sleep 600")]);
    let running = three.start(&["run-suites"]);
    three.wait_for("begun");
    running.signal(Signal::SIGINT);
    running.wait().code(130);
    merge(&one, &proofs(&[&one, &three])).code(1).says("the run was interrupted");
    assert_sound(&one);
    let merged = summary(&one);
    assert_eq!((&merged["interrupted"], &merged["harness_policy"]), (&json!(true), &Value::Null));
    assert_eq!(merged["shards"].as_array().unwrap().iter().filter(|shard| shard["interrupted"] == true).count(), 1);
}

fn a_stage_that_failed_is_named() {
    let (one, two) = two();
    let failed = json!({"name": "collect", "status": "fail", "duration_ms": 1, "rc": null, "message": "no\nspace"});
    edit(&one.path("proof/summary.json"), |summary| summary["stages"].as_array_mut().unwrap().push(failed));
    merge(&one, &proofs(&[&one, &two])).code(1).says("the stage `collect` has failed: no\\nspace");
    assert_sound(&one);
}

fn a_merged_run_can_be_collected_and_merged_again() {
    let (one, two) = two();
    merge(&one, &proofs(&[&one, &two])).code(0);
    one.run(&["collect", "--proof", "merged"]).code(0);
    assert_sound(&one);
    let first = summary(&one);
    assert_eq!(first["shards"].as_array().unwrap().len(), 2);
    let three = staged("set/1");
    merge(&three, &[one.path("merged"), three.path("proof")]).code(0).says("merged 4 trials of 2 runs");
    assert_sound(&three);
    let again = summary(&three);
    let nested = again["shards"].as_array().unwrap().iter().find(|shard| shard["run_id"] == first["run_id"]).unwrap();
    assert_eq!(nested["shards"], first["shards"]);
    // What is in it already is not merged with it again.
    assert_refused(&two, &[one.path("merged"), two.path("proof")], &["both have the run `"]);
}

const BUILD: &str = r#"{"profile":"release","toolchain":"stable","duration_ms":1,"binary":"/b","sha256":"00","revision":"abc","dirty":false}"#;

fn runs_of_different_revisions_are_refused() {
    for (key, value) in
        [("runner_version", json!("9.9.9")), ("isolation", json!("container")), ("product", json!("other"))]
    {
        let (one, two) = two();
        edit(&one.path("proof/summary.json"), |summary| summary[key] = value);
        let shards = proofs(&[&one, &two]);
        let folders = [shards[0].to_str().unwrap(), shards[1].to_str().unwrap()];
        assert_refused(&one, &shards, &[folders[0], folders[1], "differs", "merge runs of one revision"]);
    }
    let at = |commit: &str, filter: &str| {
        let project = machine().by(RUNNER).variable("TEST_FILTER", filter);
        project.file(".git/HEAD", format!("{commit}\n")).run(&["run-suites"]).code(0);
        assert_eq!(project.summary()["revision"], commit);
        project
    };
    let commits = ["1", "2"].map(|digit| digit.repeat(40));
    let (one, two) = (at(&commits[0], "10-a"), at(&commits[1], "20-b"));
    assert_refused(&one, &proofs(&[&one, &two]), &["the revision of the suites differs", &commits[0], &commits[1]]);
    let without = tested(&["sudo"]);
    assert_refused(&one, &proofs(&[&one, &without]), &["the revision of the suites differs", &commits[0], "none"]);
    let same = at(&commits[0], "20-b");
    merge(&one, &proofs(&[&one, &same])).code(0);
    assert_eq!(summary(&one)["revision"], commits[0]);
}

fn builds_that_cannot_be_the_same_are_refused() {
    let dirty = BUILD.replace("\"dirty\":false", "\"dirty\":true");
    let unknown = BUILD.replace("\"abc\"", "null").replace("\"dirty\":false", "\"dirty\":null");
    let cases = [
        (BUILD.to_owned(), None, "whether the product was built differs"),
        (BUILD.to_owned(), Some(BUILD.replace("abc", "def")), "the revision of the product differs"),
        (BUILD.to_owned(), Some(BUILD.replace("release", "dev")), "the profile of the product's build differs"),
        (BUILD.to_owned(), Some(BUILD.replace("stable", "nightly")), "the toolchain of the product's build differs"),
        (BUILD.to_owned(), Some(dirty.replace("00", "11")), "the sha256 of the product differs"),
        (dirty.clone(), Some(dirty.replace("00", "11")), "the sha256 of the product differs"),
        (unknown.clone(), Some(unknown.replace("00", "11")), "the sha256 of the product differs"),
    ];
    let (one, two) = two();
    two.run(&["collect"]).code(0);
    for (here, there, words) in cases {
        one.file("proof/results/build_meta.json", here);
        for bundle in ["proof/manifest.sha256", "proof/proofs.tar.gz"] {
            fs::remove_file(two.path(bundle)).ok();
        }
        fs::remove_file(two.path("proof/results/build_meta.json")).ok();
        there.map(|there| two.file("proof/results/build_meta.json", there));
        assert_refused(&one, &proofs(&[&one, &two]), &[words]);
    }
}

fn the_same_build_in_another_folder_is_not_refused() {
    let (one, two) = (tested(&["10-a"]), tested(&["20-b"]));
    one.file("proof/results/build_meta.json", BUILD);
    two.file("proof/results/build_meta.json", BUILD.replace("00", "11"));
    merge(&one, &proofs(&[&one, &two])).code(0);
    assert_sound(&one);
}

fn a_trial_that_is_in_two_shards_is_refused() {
    let (one, two) = (tested(&["10-a", "20-b"]), tested(&["20-b"]));
    let shards = proofs(&[&one, &two]);
    let folders = [shards[0].to_str().unwrap(), shards[1].to_str().unwrap()];
    assert_refused(&one, &shards, &["`20-b` is in `", folders[0], folders[1], "in one shard only"]);
    // And so is a file that is of no trial.
    let (one, two) = (tested(&["10-a"]), tested(&["20-b"]));
    for machine in [&one, &two] {
        machine.file("proof/logs/notes", "mine");
    }
    assert_refused(&one, &proofs(&[&one, &two]), &["both have the file `logs/notes`"]);
}

fn the_same_shard_twice_is_refused() {
    let (one, two) = two();
    let link = one.path("link");
    std::os::unix::fs::symlink(two.path("proof"), &link).unwrap();
    assert_refused(&one, &[two.path("proof"), link], &["are the same; name each shard once"]);
    fs::remove_file(one.path("link")).unwrap();
    assert_refused(&one, &[two.path("proof"), two.path("proof/proofs.tar.gz")], &["both have the run `"]);
}

fn a_folder_that_is_no_shard_is_refused() {
    let (one, two) = two();
    fs::create_dir(one.path("empty")).unwrap();
    fs::remove_dir_all(one.path("tmp")).unwrap();
    fs::create_dir(one.path("tmp")).unwrap();
    for (other, words) in
        [("absent", "No such file"), ("empty", "it has no `summary.json`"), ("suites/set/1.sh", "tar.gz")]
    {
        let path = one.path(other);
        assert_refused(&one, &[two.path("proof"), path.clone()], &[words, path.to_str().unwrap()]);
    }
}

fn a_target_that_is_or_holds_a_shard_is_refused() {
    let (one, two) = two();
    let before = content(&one.path("."));
    for target in ["proof", ".", "proof/logs/deeper/still", "proof/../proof", "absent/../proof"] {
        let shards = proofs(&[&one, &two]);
        let [first, second] = [0, 1].map(|at: usize| shards[at].to_str().unwrap());
        let ended = one.run(&["collect", "--proof", target, "--merge", second, first]);
        ended.code(2).stderr_says("the merged run cannot go into `").stderr_says("--proof");
        assert!(content(&one.path(".")) == before, "{target}");
    }
    // By default it would go to where the machine has run.
    one.run(&["collect", "--merge", one.path("proof").to_str().unwrap()]).code(2).stderr_says("cannot go into");
}

/// What somebody does to a file.
type Forge<T> = fn(&mut T);

fn a_forged_or_truncated_shard_is_refused() {
    let forged: [(&str, Forge<Vec<u8>>, &str); 7] = [
        ("summary.json", |bytes| bytes.truncate(bytes.len() / 2), "summary.json`, line "),
        ("run.json", |bytes| bytes.truncate(bytes.len() / 2), "run.json`, line 1"),
        ("run.json", Vec::clear, "run.json`, line 1"),
        ("results/10-a/result.json", |bytes| replace(bytes, "\"pass\"", "\"fail\""), "differs from `summary.json`"),
        ("summary.json", |bytes| replace(bytes, "\"pass\":2", "\"pass\":3"), "`counts` are wrong"),
        ("logs/runner.jsonl", |bytes| bytes.truncate(bytes.len() - 5), "it is cut off"),
        ("logs/runner.jsonl", |bytes| replace(bytes, "\"run_id\":\"", "\"run_id\":\"x"), "it is of the run `x"),
    ];
    for (file, forge, words) in forged {
        let (one, two) = two();
        change(&one.path("proof").join(file), forge);
        assert_refused(&one, &proofs(&[&one, &two]), &[words, "is not sound", one.path("proof").to_str().unwrap()]);
    }
    // What was collected is compared with its manifest, and with its bundle.
    let (one, two) = two();
    let log = two.path("proof/logs/sudo/30-é/execute.stdout.log");
    change(&log, |bytes| replace(bytes, "said", "sand"));
    assert_refused(&one, &proofs(&[&one, &two]), &["execute.stdout.log` was changed", "fetch or run this shard again"]);
    change(&log, |bytes| replace(bytes, "sand", "said"));
    let bundle = two.path("proof/proofs.tar.gz");
    change(&bundle, |bytes| bytes.truncate(bytes.len() / 2));
    assert_refused(&one, &proofs(&[&one, &two]), &["proofs.tar.gz` is cut off"]);
    assert_refused(&one, &[one.path("proof"), bundle], &["proofs.tar.gz` is cut off"]);
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains(from), "no `{from}` in {text}");
    *bytes = text.replacen(from, to, 1).into_bytes();
}

/// Gives a run another identity, everywhere.
fn rename_run(machine: &Project, to: &str) {
    let own = machine.summary()["run_id"].as_str().unwrap().to_owned();
    let to = to.replace('\\', "\\\\").replace('\u{1b}', "\\u001b");
    for file in ["proof/summary.json", "proof/run.json", "proof/logs/runner.jsonl"] {
        machine.file(file, machine.text(file).replace(&own, &to));
    }
}

fn a_run_id_that_leads_elsewhere_is_refused() {
    for run_id in ["../../evil", "", ".", "..", "a/b", "/tmp/evil", ".hidden"] {
        let (one, two) = (tested(&["10-a"]), tested(&["20-b"]));
        rename_run(&one, run_id);
        assert_refused(&one, &proofs(&[&one, &two]), &["cannot be the name of a folder"]);
    }
}

fn names_of_a_forger_do_not_drive_the_terminal() {
    let (one, two) = (tested(&["10-a"]), tested(&["20-b"]));
    for machine in [&one, &two] {
        edit(&machine.path("proof/summary.json"), |summary| summary["product"] = json!("p\u{1b}[2J"));
    }
    edit(&two.path("proof/summary.json"), |summary| summary["product"] = json!("q\u{1b}[2J\nerror: all is well"));
    let ended = merge(&one, &proofs(&[&one, &two]));
    ended.code(2).stderr_says("`q\\u{1b}[2J\\nerror");
    assert!(!ended.all().contains('\u{1b}'), "{ended}");
}

fn a_shard_that_still_runs_is_refused() {
    let (one, two) = (tested(&["20-b"]), machine().by(RUNNER).variable("TEST_FILTER", "90-z"));
    two.suite("90-z", &[("execute", "echo x >begun; until [[ -e go ]]; do sleep 0.01; done")]);
    let running = two.start(&["run-suites"]);
    two.wait_for("begun");
    assert_refused(&one, &proofs(&[&one, &two]), &["still goes on", two.path("proof").to_str().unwrap()]);
    two.file("go", "");
    running.wait().code(0);
    merge(&one, &proofs(&[&one, &two])).code(0);
    assert_sound(&one);
}

fn a_shard_that_was_killed_is_refused_until_it_is_collected() {
    let (one, two) = (tested(&["20-b"]), machine().by(RUNNER).variable("TEST_FILTER", "90-z"));
    two.suite("90-z", &[("execute", "echo x >begun; sleep 600")]);
    let running = two.start(&["run-suites"]);
    two.wait_for("begun");
    running.signal(Signal::SIGKILL);
    running.wait();
    let way_out = format!("container-runner collect --proof {}", two.path("proof").display());
    assert_refused(&one, &proofs(&[&one, &two]), &["was killed", &way_out]);
    two.run(&["collect"]).code(0);
    // A run that says it has ended, and has a trial that has not.
    let collected = content(&two.path("proof"));
    ["manifest.sha256", "proofs.tar.gz"].iter().for_each(|file| fs::remove_file(two.path("proof").join(file)).unwrap());
    let running =
        |text: String| text.replace("\"interrupted\":1", "\"interrupted\":0").replace("\"running\":0", "\"running\":1");
    let text = two.text("proof/summary.json").replace("\"status\":\"interrupted\"", "\"status\":\"running\"");
    two.file("proof/summary.json", running(text));
    assert_refused(&one, &proofs(&[&one, &two]), &["`90-z` in `", "is still marked as running", &way_out]);
    for (path, bytes) in &collected {
        two.file(Path::new("proof").join(path), bytes);
    }
    merge(&one, &proofs(&[&one, &two])).code(1).says("1 of 1 selected trials were not judged");
    assert_sound(&one);
    assert_eq!(summary(&one)["counts"]["interrupted"], 1);
}

fn an_older_run_is_replaced_and_what_is_not_ours_stays() {
    let (one, two) = two();
    let older = one.path("merged");
    let older = older.to_str().unwrap();
    one.run(&["run-suites", "--proof", older]).code(0);
    one.file("merged/notes.txt", "mine").file("merged/logs/set/1/old.log", "old");
    merge(&one, &proofs(&[&one, &two])).code(0);
    assert_sound(&one);
    assert_eq!(one.text("merged/notes.txt"), "mine");
    assert!(!one.path("merged/logs/set").exists() && !one.path("merged/.merge").exists());
    assert_eq!(summary(&one)["shards"].as_array().unwrap().len(), 2);
}

/// A shard whose log is larger than a file may be.
fn large() -> Project {
    let project = machine();
    project.suite("90-large", &[("execute", "head -c 100000 /dev/zero")]).run(&["90-large"]).code(0);
    project.by(RUNNER)
}

fn an_older_run_stays_if_the_new_one_cannot_be_written() {
    let limit = "trap '' XFSZ; ulimit -f 64; exec \"$@\"";
    let (one, two) = (tested(&["10-a"]).wrapped(&["bash", "-c", limit, "bash"]), large());
    let three = tested(&["20-b"]);
    merge(&one, &proofs(&[&one, &three])).code(0);
    let before = content(&one.path("merged"));
    merge(&one, &proofs(&[&one, &two])).code(3).stderr_says("execute.stdout.log");
    assert!(content(&one.path("merged")) == before);
    assert_sound(&one);
}

fn a_merge_that_was_killed_changes_nothing_and_can_be_repeated() {
    let killed = "[[ -e fine ]] || ulimit -f 64; exec \"$@\"";
    let (one, two) = (tested(&["10-a"]).wrapped(&["bash", "-c", killed, "bash"]), large());
    let three = tested(&["20-b"]);
    merge(&one, &proofs(&[&one, &three])).code(0);
    let before = content(&one.path("merged"));
    let ended = merge(&one, &proofs(&[&one, &two]));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(Signal::SIGXFSZ as i32), "{ended}");
    let is_ours = |path: &PathBuf| !path.starts_with(".merge");
    assert!(content(&one.path("merged")).into_iter().filter(|(path, _)| is_ours(path)).eq(before));
    one.file("fine", "");
    assert_sound(&one);
    merge(&one, &proofs(&[&one, &two])).code(0);
    assert_sound(&one);
    assert!(!one.path("merged/.merge").exists());
}

fn a_forged_merge_is_found() {
    let forged: [(Forge<Value>, &str); 4] = [
        (|summary| drop(summary["shards"].as_array_mut().unwrap().pop()), "its trials are not those of its `shards`"),
        (|summary| summary["shards"][0]["selected"] = json!(7), "trials were selected, and in its `shards`"),
        (|summary| summary["shards"][0]["interrupted"] = json!(true), "`interrupted` is false, although"),
        (|summary| summary["shards"][0]["run_id"] = json!("other"), "`stages/other/run.json` is missing"),
    ];
    let (one, two) = two();
    for (forge, words) in forged {
        merge(&one, &proofs(&[&one, &two])).code(0);
        edit(&one.path("merged/summary.json"), forge);
        one.run(&["verify", "merged"]).code(1).says(words);
    }
}

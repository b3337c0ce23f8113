//! The evidence: which files there are, what stands in them, and that it is complete or an error.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{Project, Record, User, both, claim, is_root, root_claim, until};

pub(crate) fn claims() -> Vec<Trial> {
    let mut claims = vec![
        claim(the_summary_has_every_key),
        claim(a_record_has_every_key),
        claim(the_policy_is_affirmed),
        claim(artifacts_are_files_that_exist),
        claim(counts_add_up),
        claim(a_signal_is_128_and_its_number),
        claim(what_a_suite_used_is_recorded),
        claim(why_a_suite_ended_is_recorded),
        claim(snapshots_and_changes_are_kept),
        claim(every_line_of_the_log_has_its_keys_in_order),
        claim(events_come_in_order),
        claim(the_stage_that_runs_suites_is_logged_and_recorded),
        claim(the_proof_folder_has_this_runs_lines),
        claim(block_output_is_written_while_it_runs),
        claim(a_running_trial_stands_in_the_summary),
        claim(too_much_output_is_cut_and_says_so),
        claim(a_log_that_cannot_be_written_is_our_failure),
        claim(a_log_that_does_not_take_a_line_fails_the_run),
        claim(a_proof_folder_that_cannot_be_made_is_an_error),
        root_claim(a_full_disk_fails_the_run_and_still_restores),
        claim(evidence_of_an_older_run_is_gone),
        claim(a_command_line_that_is_wrong_removes_no_evidence),
        claim(a_folder_that_is_no_proof_folder_is_refused_before_anything_is_removed),
        claim(files_of_others_stay),
        claim(two_runs_do_not_share_a_proof_folder),
        claim(two_runs_have_two_identities),
        claim(a_failed_build_ends_the_run_with_its_code),
        claim(a_product_that_is_not_there_is_an_error),
        claim(a_suite_may_be_called_like_a_file_of_ours),
        claim(a_suite_called_like_a_file_beside_it_must_be_renamed),
        claim(a_temporary_folder_that_cannot_be_used_is_an_error),
    ];
    claims.extend(both(every_file_appears));
    claims
}

/// Four suites with every block, and every ending.
fn project(user: User) -> Project {
    let settings = "product: {name: tool, build: none, bin: bin/tool}\nsnapshot: {paths: [data]}\n";
    let project = Project::with(settings).of(user);
    project.program("bin/tool", "#!/bin/sh\necho tool-out\necho tool-err >&2\n");
    project.file("data/conf", "old\n");
    let blocks = |execute| {
        [("prepare", "echo p"), ("execute", execute), ("debug", "echo d >&2"), ("restore", "echo old >data/conf")]
    };
    project.suite("10-pass", &blocks("echo new >data/conf; tool"));
    project.suite("20-fail", &blocks("tool; echo e >&2; exit 7"));
    project.suite("sudo/30-signal", &blocks("kill -TERM $$"));
    project.suite("40-never", &[&blocks("true")[..], &[("distro-check", "nowhere")]].concat());
    project
}

fn ran() -> Project {
    let project = project(User::Caller);
    project.run(&[]).code(101);
    project
}

fn every_file_appears(user: User) {
    let project = project(user);
    project.run(&[]).code(101);
    let mut expected = vec!["run.json", "summary.json", "logs/runner.jsonl"];
    expected.extend([
        "logs/10-pass/prepare.stdout.log",
        "logs/10-pass/execute.stdout.log",
        "logs/10-pass/product.stdout.log",
        "logs/10-pass/product.stderr.log",
        "logs/20-fail/debug.stderr.log",
        "logs/20-fail/execute.stderr.log",
        "logs/sudo/30-signal/prepare.stdout.log",
        "results/10-pass/result.json",
        "results/10-pass/changes.json",
        "results/20-fail/result.json",
        "results/40-never/result.json",
        "results/sudo/30-signal/result.json",
    ]);
    let tree = project.tree("proof");
    for file in expected {
        assert!(tree.contains(&file.to_owned()), "no {file} in {tree:#?}");
    }
    for suite in ["10-pass", "20-fail", "sudo/30-signal"] {
        for when in ["before", "after", "restored"] {
            project.json(&format!("snapshots/{suite}/{when}.json"));
        }
    }
    for file in tree.iter().filter(|file| file.ends_with(".json")) {
        project.json(file);
    }
}

fn the_summary_has_every_key() {
    let summary = ran().summary();
    let keys = [
        "schema",
        "run_id",
        "distro",
        "suites",
        "started_at",
        "finished_at",
        "container_id",
        "harness_policy",
        "isolation",
        "stages",
        "selected",
        "not_selected",
        "counts",
        "product",
        "runner_version",
        "revision",
        "interrupted",
    ];
    for key in keys {
        assert!(summary.get(key).is_some(), "no `{key}` in {summary:#}");
    }
    assert_eq!((&summary["isolation"], &summary["interrupted"]), (&json!("none"), &json!(false)));
    for key in ["run_id", "distro", "started_at", "finished_at", "runner_version"] {
        assert!(summary[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {summary:#}");
    }
    assert_eq!(summary["suites"].as_array().unwrap().len(), 4);
}

fn a_record_has_every_key() {
    let project = ran();
    let keys = [
        "name",
        "status",
        "reason",
        "findings",
        "duration_ms",
        "artifacts",
        "expect",
        "rc",
        "timed_out",
        "restore_rc",
        "presence_ok",
        "changes",
        "drift",
        "leaked",
        "usage",
    ];
    for name in ["10-pass", "20-fail", "sudo/30-signal", "40-never"] {
        let Record(record) = project.record(name);
        for key in keys {
            assert!(record.get(key).is_some(), "no `{key}` in {record:#}");
        }
        assert_eq!(project.result(name).0, record, "result.json and summary.json differ");
    }
    let record = project.record("10-pass");
    assert_eq!((record.rc(), record.0["restore_rc"].as_i64(), &record.0["changes"]), (Some(0), Some(0), &json!(1)));
    assert!(record.0["reason"].is_null());
    let record = project.record("40-never");
    assert_eq!((record.rc(), record.0["restore_rc"].as_i64(), record.status()), (None, None, "fail"));
}

fn the_policy_is_affirmed() {
    let policy = "No harness mutation of product-owned artifacts; fail-on-skip enforced";
    assert_eq!(ran().summary()["harness_policy"], policy);
}

fn artifacts_are_files_that_exist() {
    let project = ran();
    for name in ["10-pass", "20-fail", "sudo/30-signal", "40-never"] {
        let record = project.record(name);
        let artifacts = record.texts("artifacts");
        let result = format!("results/{name}/result.json");
        assert!(name == "40-never" || artifacts.contains(&result.as_str()), "{artifacts:?}");
        for artifact in artifacts {
            assert!(project.path("proof").join(artifact).is_file(), "{artifact}");
        }
    }
    let record = project.record("20-fail");
    let artifacts = record.texts("artifacts");
    for file in ["logs/20-fail/execute.stderr.log", "logs/20-fail/product.stdout.log", "snapshots/20-fail/before.json"]
    {
        assert!(artifacts.contains(&file), "no {file} in {artifacts:?}");
    }
}

fn counts_add_up() {
    let summary = ran().summary();
    assert_eq!((&summary["counts"]["pass"], &summary["counts"]["fail"]), (&json!(1), &json!(3)));
    assert_eq!((&summary["selected"], &summary["not_selected"]), (&json!(4), &json!(0)));
}

fn a_signal_is_128_and_its_number() {
    let project = ran();
    let record = project.record("sudo/30-signal");
    assert_eq!((record.rc(), &record.0["signal"]), (Some(143), &json!("SIGTERM")));
    let project = Project::new();
    project.suite("10-a", &[("execute", "exit 143")]);
    project.run(&[]).code(101);
    let record = project.record("10-a");
    assert_eq!((record.rc(), record.0.get("signal").and_then(Value::as_str)), (Some(143), None));
}

fn what_a_suite_used_is_recorded() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "x=0; for n in {1..100000}; do x=$((x + n)); done; echo four; echo 1234 >&2")]);
    project.run(&[]).code(0);
    let record = project.record("10-a");
    let usage = &record.0["usage"];
    for key in ["cpu_ms", "max_rss_bytes"] {
        assert!(usage[key].as_u64().is_some_and(|number| number > 0), "{key}: {usage}");
    }
    assert_eq!((&usage["stdout_bytes"], &usage["stderr_bytes"]), (&json!(5), &json!(5)));
    assert_eq!(record.0["ended_by"], "itself");
}

fn why_a_suite_ended_is_recorded() {
    let project = Project::new();
    project.file("suites/10-a/task.yaml", "summary: slow\nkill-timeout: 200ms\nexecute: sleep 600\n");
    project.run(&[]).code(101);
    assert_eq!(project.record("10-a").0["ended_by"], "time limit");
}

fn snapshots_and_changes_are_kept() {
    let project = ran();
    let conf = project.path("data/conf").to_string_lossy().into_owned();
    let hash = |when: &str| {
        let snapshot = project.json(&format!("snapshots/10-pass/{when}.json"));
        let entries = snapshot["entries"].as_array().unwrap();
        entries.iter().find(|entry| entry["path"] == conf).unwrap()["sha256"].as_str().unwrap().to_owned()
    };
    assert_ne!(hash("before"), hash("after"));
    assert_eq!(hash("before"), hash("restored"));
    let changes = project.json("results/10-pass/changes.json");
    assert_eq!(changes["changes"][0]["path"], conf);
}

const LOG_KEYS: [&str; 12] = [
    "ts",
    "component",
    "run_id",
    "container_id",
    "distro",
    "level",
    "stage",
    "suite",
    "event",
    "cmd",
    "rc",
    "duration_ms",
];

fn every_line_of_the_log_has_its_keys_in_order() {
    let project = ran();
    for line in project.text("runner.jsonl").lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let places: Vec<_> = LOG_KEYS.iter().map(|key| line.find(&format!("\"{key}\":"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{line}");
        assert!(line.starts_with("{\"ts\":\""), "{line}");
        assert!(value["run_id"].as_str().is_some_and(|id| !id.is_empty()), "{line}");
        assert_eq!(value["run_id"], project.summary()["run_id"]);
    }
}

fn events_come_in_order() {
    let project = ran();
    let events = |suite: &str| -> Vec<String> {
        let lines = project.journal();
        let of_suite = lines.iter().filter(|line| line["suite"] == suite);
        of_suite
            .map(|line| format!("{} {}", line["event"].as_str().unwrap(), line["cmd"].as_str().unwrap_or("-")))
            .collect()
    };
    let passed = [
        "suite_start -",
        "exec_start prepare",
        "exec_done prepare",
        "exec_start execute",
        "exec_done execute",
        "restore_start restore",
        "restore_done restore",
        "suite_end -",
    ];
    let without_asserts =
        |suite| events(suite).into_iter().filter(|event| !event.starts_with("assert")).collect::<Vec<_>>();
    assert_eq!(without_asserts("10-pass"), passed);
    let failed = [&passed[..5], &["exec_start debug", "exec_done debug"], &passed[5..]].concat();
    assert_eq!(without_asserts("20-fail"), failed);
    let lines = project.journal();
    let end = lines
        .iter()
        .find(|line| line["suite"] == "20-fail" && line["cmd"] == "execute" && line["event"] == "exec_done");
    assert_eq!(end.unwrap()["rc"], 7);
}

fn the_stage_that_runs_suites_is_logged_and_recorded() {
    let project = ran();
    let lines = project.journal();
    let stage = lines.iter().filter(|line| line["suite"].is_null() && line["stage"] == "run-suites");
    let events: Vec<_> = stage.map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["stage_start", "stage_end"]);
    assert!(project.summary()["stages"].as_array().unwrap().iter().any(|stage| stage["name"] == "run-suites"));
}

fn the_proof_folder_has_this_runs_lines() {
    let project = ran();
    let first = project.text("runner.jsonl");
    project.run(&[]).code(101);
    let both = project.text("runner.jsonl");
    let second = both.strip_prefix(&first).expect("the log is not appended to");
    assert_eq!(project.text("proof/logs/runner.jsonl"), second);
}

fn block_output_is_written_while_it_runs() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "mkfifo go; echo first; echo to-stderr >&2; read -r line <go; echo $line")]);
    let running = project.start(&[]);
    let log = |stream: &str| {
        fs::read_to_string(project.path(format!("proof/logs/10-a/execute.{stream}.log"))).unwrap_or_default()
    };
    until("the block's output", || log("stdout") == "first\n" && log("stderr") == "to-stderr\n");
    fs::write(project.path("go"), "second\n").unwrap();
    running.wait().code(0);
    assert_eq!(log("stdout"), "first\nsecond\n");
}

fn a_running_trial_stands_in_the_summary() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "mkfifo go; echo x >started; read -r line <go")]);
    project.suite("05-a", &[("execute", "true")]);
    let running = project.start(&[]);
    project.wait_for("started");
    assert_eq!((project.record("05-a").status(), project.record("10-a").status()), ("pass", "running"));
    fs::write(project.path("go"), "on\n").unwrap();
    running.wait().code(0);
    assert_eq!(project.record("10-a").status(), "pass");
}

fn too_much_output_is_cut_and_says_so() {
    let project = Project::with("output-limit: 64KiB\n");
    project.suite("10-a", &[("execute", "echo the start; head -c 5000000 /dev/zero | tr '\\0' x; echo; echo the end")]);
    project.suite("20-b", &[("execute", "yes"), ("kill-timeout", "1s")]);
    project.run(&[]).code(101);
    let log = project.text("proof/logs/10-a/execute.stdout.log");
    assert!(log.len() < 200_000, "{}", log.len());
    assert!(log.starts_with("the start\n") && log.ends_with("the end\n"), "{}", &log[log.len() - 200..]);
    let around: String = log.chars().filter(|c| *c != 'x').collect();
    assert!(around.len() > "the start\n\nthe end\n".len(), "it does not say where it was cut: {around}");
    project.record("10-a").assert_pass();
    assert!(fs::metadata(project.path("proof/logs/20-b/execute.stdout.log")).unwrap().len() < 200_000);
}

fn a_log_that_cannot_be_written_is_our_failure() {
    let project = Project::new().variable("RUNNER_JSONL", "/proc/no-such/runner.jsonl");
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    project.run(&[]).code(3).stderr_says("RUNNER_JSONL").stderr_says("/proc/no-such/runner.jsonl");
    assert!(project.order().is_empty());
}

fn a_log_that_does_not_take_a_line_fails_the_run() {
    let project = Project::new().variable("RUNNER_JSONL", "/dev/full");
    project.suite("10-a", &[("execute", "true"), ("restore", "echo restored >>order")]);
    project.run(&[]).code(3).says("/dev/full");
}

fn a_proof_folder_that_cannot_be_made_is_an_error() {
    let project = Project::new().variable("PROOF_DIR", "/proc/no-such/proof");
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    project.run(&[]).code(3).stderr_says("/proc/no-such/proof").stderr_says("PROOF_DIR");
    assert!(project.order().is_empty());
}

fn a_full_disk_fails_the_run_and_still_restores() {
    assert!(is_root());
    let mount = "mkdir -p proof; mount -t tmpfs -o size=256k none proof; \"$@\"; code=$?; df proof; exit $code";
    let project = Project::new().wrapped(&["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"]);
    project.suite("10-a", &[("execute", "head -c 1000000 /dev/zero"), ("restore", "echo restored >>order")]);
    project.suite("20-b", &[("execute", "true"), ("restore", "echo restored >>order")]);
    let ended = project.run(&[]);
    ended.code(3).says("No space left on device").says("could not");
    assert!(project.order().contains(&"restored".to_owned()), "{ended}");
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
}

fn evidence_of_an_older_run_is_gone() {
    let project = ran();
    let before = project.summary()["run_id"].clone();
    fs::remove_dir_all(project.path("suites/20-fail")).unwrap();
    project.run(&["10-pass"]).code(0);
    let tree = project.tree("proof");
    assert!(!tree.iter().any(|path| path.contains("20-fail") || path.contains("30-signal")), "{tree:#?}");
    assert_ne!(project.summary()["run_id"], before);
    assert_eq!(project.summary()["suites"].as_array().unwrap().len(), 1);
}

fn a_command_line_that_is_wrong_removes_no_evidence() {
    let project = project(User::Caller);
    project.run(&["10-pass"]).code(0);
    let before = project.summary();
    project.run(&["--logfile", "/no/such/folder/log"]).code(101).stderr_says("/no/such/folder/log");
    assert_eq!(project.summary(), before);
}

fn a_folder_that_is_no_proof_folder_is_refused_before_anything_is_removed() {
    for name in ["logs/app.log", "results/data.csv", "summary.json", "junit.xml"] {
        let project = project(User::Caller);
        let file = format!("proof/{name}");
        project.file(&file, "mine");
        project.run(&["10-pass"]).code(2).stderr_says("PROOF_DIR").stderr_says("no `run.json`");
        assert_eq!((project.text(&file).as_str(), project.order().len()), ("mine", 0));
    }
}

fn files_of_others_stay() {
    let project = project(User::Caller);
    project.file("proof/notes.txt", "mine").file("proof/mine/notes.txt", "mine");
    for _ in 0..2 {
        project.run(&["10-pass"]).code(0);
        assert_eq!(project.text("proof/notes.txt") + &project.text("proof/mine/notes.txt"), "minemine");
    }
}

fn two_runs_do_not_share_a_proof_folder() {
    let project = Project::new();
    let first = "echo first-starts >>order; mkfifo go; echo x >started; read -r line <go; echo first-ends >>order";
    project.suite("10-a", &[("execute", first)]).suite("20-b", &[("execute", "echo second >>order")]);
    let one = project.start(&["10-a"]);
    project.wait_for("started");
    let mut two = project.start(&["20-b"]);
    until("the second run to say that it waits", || two.stderr().contains("wait") || two.has_ended());
    assert!(!two.has_ended(), "{}", two.stderr());
    assert_eq!(project.order(), ["first-starts"]);
    fs::write(project.path("go"), "on\n").unwrap();
    one.wait().code(0);
    two.wait().code(0);
    assert_eq!(project.order(), ["first-starts", "first-ends", "second"]);
    project.record("20-b").assert_pass();
}

fn two_runs_have_two_identities() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "true")]);
    let ids = [(); 3].map(|()| {
        project.run(&[]).code(0);
        let id = project.summary()["run_id"].clone();
        assert_eq!(project.json("run.json")["run_id"], id);
        id
    });
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

/// cargo is a script here: that cargo can build is for others to show.
fn a_failed_build_ends_the_run_with_its_code() {
    let project = Project::with("product: {name: tool, build: cargo}\n");
    project.program("bin/cargo", "#!/bin/sh\necho 'error: no such thing' >&2\nexit 42\n");
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    let project = project.variable("PATH", path);
    project.run(&[]).code(42).stderr_says("error: no such thing");
    assert!(project.order().is_empty());
    let stages = project.summary()["stages"].clone();
    let stage = stages.as_array().unwrap().iter().find(|stage| stage["name"] == "build").unwrap().clone();
    assert_eq!((&stage["status"], &stage["rc"]), (&json!("fail"), &json!(42)));
    let ends = project.journal().into_iter().filter(|line| line["event"] == "stage_end" && line["stage"] == "build");
    assert_eq!(ends.map(|line| line["rc"].clone()).collect::<Vec<_>>(), [42]);
}

fn a_suite_may_be_called_like_a_file_of_ours() {
    let project = Project::new();
    for name in ["summary.json", "result.json"] {
        project.suite(name, &[("execute", "echo said")]);
    }
    project.run(&[]).code(0);
    for name in ["summary.json", "result.json"] {
        assert_eq!(project.text(format!("proof/logs/{name}/execute.stdout.log")), "said\n");
    }
}

fn a_suite_called_like_a_file_beside_it_must_be_renamed() {
    let project = Project::new();
    for name in ["runner.jsonl", "build_meta.json"] {
        project.suite(name, &[("execute", "echo ran >>order")]);
    }
    project.run(&[]).code(101);
    assert!(project.order().is_empty());
    project.record("runner.jsonl").assert_fail("rename the folder");
    project.record("build_meta.json").assert_fail("rename the folder");
}

fn a_temporary_folder_that_cannot_be_used_is_an_error() {
    let project = Project::new().variable("TMPDIR", "/no/such/folder");
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    project.run(&[]).code(3).stderr_says("/no/such/folder").stderr_says("TMPDIR");
    assert!(project.order().is_empty());
}

fn a_product_that_is_not_there_is_an_error() {
    let project = Project::with("product: {name: tool, build: none, bin: bin/tool}\n");
    project.suite("10-a", &[("execute", "echo ran >>order"), ("expect", "fail")]);
    project.run(&[]).code(3).stderr_says("bin/tool").stderr_says("product.bin");
    assert!(project.order().is_empty());
}

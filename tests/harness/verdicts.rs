//! What a suite's blocks, its expectation and its drift come to.

use libtest_mimic::Trial;

use crate::world::{Project, User, both, claim, daemon, is_alive};

pub(crate) fn claims() -> Vec<Trial> {
    let mut claims = vec![
        claim(expectations_are_judged_by_how_execute_ends),
        claim(a_failed_restore_or_prepare_never_counts_as_the_failure_that_is_expected),
        claim(a_suite_for_another_distribution_fails_and_nothing_of_it_runs),
        claim(a_suite_for_this_distribution_runs),
        claim(a_project_for_other_distributions_fails_every_suite),
        claim(after_a_failed_restore_nothing_else_runs),
        claim(after_a_restore_that_timed_out_nothing_else_runs),
        claim(after_a_failed_restore_others_run_if_asked_to),
        claim(drift_is_reported),
        claim(drift_fails_a_strict_project),
        claim(drift_within_a_folder_is_found),
        claim(what_is_put_back_is_no_drift),
        claim(every_finding_is_told),
        claim(output_that_is_no_text_is_kept_byte_for_byte),
        claim(without_bash_nothing_runs_and_that_is_said),
    ];
    claims.extend(both(a_failed_restore_fails_the_suite));
    claims.extend(both(a_leaked_daemon_is_dead_before_restore_and_listed));
    claims.extend(both(a_background_job_does_not_delay_the_verdict));
    claims
}

fn expectations_are_judged_by_how_execute_ends() {
    const ENDINGS: [(&str, &str); 7] = [
        ("0", "true"),
        ("1", "exit 1"),
        ("77", "exit 77"),
        ("139", "exit 139"),
        ("timeout", "sleep 1000"),
        ("trapped-timeout", "trap 'exit 1' TERM; while :; do sleep 0.1; done"),
        ("signal", "kill -KILL $$"),
    ];
    let expected = |expect: &str, ending: &str| match expect {
        "pass" => ending == "0",
        _ => matches!(ending, "1" | "77" | "139"),
    };
    let project = Project::new();
    for expect in ["pass", "fail", "xfail"] {
        for (ending, execute) in ENDINGS {
            let limit = if ending.contains("timeout") { "1s" } else { "60s" };
            let keys = [("expect", expect), ("execute", execute), ("kill-timeout", limit)];
            project.suite(&format!("{expect}/{ending}"), &keys);
        }
    }
    project.run(&[]).code(101);
    for expect in ["pass", "fail", "xfail"] {
        for (ending, _) in ENDINGS {
            let record = project.record(&format!("{expect}/{ending}"));
            let wanted = if expected(expect, ending) { "pass" } else { "fail" };
            assert_eq!(record.status(), wanted, "{:#}", record.0);
            assert_eq!(record.0["expect"], expect);
        }
    }
}

fn a_failed_restore_or_prepare_never_counts_as_the_failure_that_is_expected() {
    for (expect, execute) in [("pass", "true"), ("fail", "exit 1"), ("xfail", "exit 1"), ("fail", "true")] {
        for block in ["restore", "prepare"] {
            let project = Project::new();
            project.suite("10-a", &[("expect", expect), ("execute", execute), (block, "exit 1")]);
            project.run(&[]).code(101);
            project.record("10-a").assert_fail(&format!("{block} exited with code 1"));
        }
    }
}

const TELLING: [(&str, &str); 4] = [
    ("prepare", "echo prepare >>order"),
    ("execute", "echo execute >>order"),
    ("debug", "echo debug >>order"),
    ("restore", "echo restore >>order"),
];

fn a_suite_for_another_distribution_fails_and_nothing_of_it_runs() {
    let project = Project::new();
    let gate = [("distro-check", "[no-such-distribution]"), ("expect", "fail")];
    project.suite("10-a", &[TELLING.as_slice(), &gate].concat());
    project.suite("20-b", &[TELLING.as_slice(), &gate[..1]].concat());
    project.run(&[]).code(101);
    for name in ["10-a", "20-b"] {
        let record = project.record(name);
        record.assert_fail("no-such-distribution");
        assert_eq!((record.rc(), record.0["restore_rc"].as_i64()), (None, None));
    }
    assert!(project.order().is_empty());
}

fn a_suite_for_this_distribution_runs() {
    let project = Project::new();
    let release = std::fs::read_to_string("/etc/os-release").unwrap();
    let id = release.lines().find_map(|line| line.strip_prefix("ID=")).unwrap().trim_matches('"');
    project.suite("10-a", &[("execute", "true"), ("distro-check", id)]);
    project.suite("20-b", &[("execute", "true"), ("distro-check", &format!("[no-such, {id}]"))]);
    project.run(&[]).code(0);
    assert_eq!(project.summary()["distro"], id);
}

fn a_project_for_other_distributions_fails_every_suite() {
    let project = Project::with("scope: {distros: [no-such-distribution]}\n");
    project.suite("10-a", &TELLING);
    project.run(&[]).code(101);
    project.record("10-a").assert_fail("no-such-distribution");
    assert!(project.order().is_empty());
}

fn a_failed_restore_fails_the_suite(user: User) {
    let project = Project::new().of(user);
    project.suite("10-a", &[("execute", "true"), ("restore", "exit 5")]);
    project.run(&[]).code(101);
    let record = project.record("10-a");
    record.assert_fail("restore exited with code 5");
    assert_eq!((record.rc(), record.0["restore_rc"].as_i64()), (Some(0), Some(5)));
}

fn three(project: &Project, restore: &str, limit: &str) {
    for (name, restore) in [("10-a", "true"), ("20-b", restore), ("30-c", "true"), ("40-d", "true")] {
        let keys = [("execute", "echo $SUITE_NAME >>order"), ("restore", restore), ("kill-timeout", limit)];
        project.suite(name, &keys);
    }
}

fn after_a_failed_restore_nothing_else_runs() {
    let project = Project::new();
    three(&project, "false", "60s");
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["10-a", "20-b"]);
    for name in ["30-c", "40-d"] {
        let record = project.record(name);
        record.assert_fail("not run: host left dirty by 20-b");
        assert_eq!((record.rc(), record.0["restore_rc"].as_i64()), (None, None));
    }
}

fn after_a_restore_that_timed_out_nothing_else_runs() {
    let project = Project::new();
    three(&project, "sleep 1000", "1s");
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["10-a", "20-b"]);
    project.record("20-b").assert_fail("restore was killed after its limit");
    project.record("30-c").assert_fail("not run: host left dirty by 20-b");
}

fn after_a_failed_restore_others_run_if_asked_to() {
    let project = Project::with("on-restore-failure: continue\n");
    three(&project, "false", "60s");
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["10-a", "20-b", "30-c", "40-d"]);
    project.record("20-b").assert_fail("restore");
    project.record("30-c").assert_pass();
}

/// A suite that changes a file and does not put it back.
fn drifting(settings: &str) -> Project {
    let project = Project::with(settings);
    project.file("data/conf", "old\n").file("data/kept", "kept\n");
    let snapshot = format!("[{0}/data/conf, {0}/data/kept, {0}/data/new]", project.path("").display());
    project.suite("10-a", &[("execute", "echo newer >data/conf; echo x >data/new"), ("snapshot", &snapshot)]);
    project
}

fn assert_drift(project: &Project, names: &[&str]) {
    let expected: Vec<_> = names.iter().map(|name| project.path(name).to_string_lossy().into_owned()).collect();
    assert_eq!(project.record("10-a").texts("drift"), expected);
}

fn drift_is_reported() {
    let project = drifting("restore-check: report\n");
    project.run(&[]).code(0);
    assert_drift(&project, &["data/conf", "data/new"]);
    project.record("10-a").assert_pass();
}

fn drift_fails_a_strict_project() {
    let project = drifting("restore-check: strict\n");
    project.run(&[]).code(101).says("data/conf");
    assert_drift(&project, &["data/conf", "data/new"]);
    project.record("10-a").assert_fail("data/conf");
}

fn drift_within_a_folder_is_found() {
    let project = Project::with("restore-check: strict\nsnapshot: {paths: [data]}\n");
    project.file("data/a/mode", "x").file("data/a/gone", "x").file("data/a/same", "x");
    project.suite("10-a", &[("execute", "chmod 4711 data/a/mode; rm data/a/gone; ln -s nowhere data/a/link")]);
    project.run(&[]).code(101);
    let record = project.record("10-a");
    let drift = record.texts("drift").join("\n");
    for name in ["data/a/mode", "data/a/gone", "data/a/link"] {
        assert!(drift.contains(name), "{drift}");
    }
    assert!(!drift.contains("data/a/same"), "{drift}");
}

fn what_is_put_back_is_no_drift() {
    let project = Project::with("restore-check: strict\nsnapshot: {paths: [data/conf]}\n");
    project.file("data/conf", "old\n");
    let blocks = [
        ("prepare", "cp -a data/conf $SCRATCH_DIR/conf"),
        ("execute", "echo new >data/conf"),
        ("restore", "cp -a $SCRATCH_DIR/conf data/conf"),
    ];
    project.suite("10-a", &blocks);
    project.run(&[]).code(0);
    let record = project.record("10-a");
    assert!(record.texts("drift").is_empty(), "{:#}", record.0);
    assert_eq!(record.0["changes"], 1);
}

fn every_finding_is_told() {
    let project = Project::with("restore-check: strict\nsnapshot: {paths: [data]}\n");
    project.file("data/conf", "old\n");
    project.suite("10-a", &[("execute", "echo new >data/conf; exit 7"), ("restore", "exit 8")]);
    let ended = project.run(&[]);
    ended.code(101);
    let record = project.record("10-a");
    for part in ["execute exited with code 7", "restore exited with code 8", "data/conf"] {
        record.assert_fail(part);
        ended.says(part);
    }
    assert_eq!(record.0["reason"], record.0["findings"][0]);
}

fn output_that_is_no_text_is_kept_byte_for_byte() {
    let project = Project::new();
    let execute = r"printf 'a\377\376\0b\n\303'; printf '\200' >&2";
    project.suite("10-a", &[("execute", execute)]);
    project.suite("20-b", &[("execute", &format!("{execute}; exit 1"))]);
    project.run(&[]).code(101);
    for name in ["10-a", "20-b"] {
        let log = |stream| std::fs::read(project.path(format!("proof/logs/{name}/execute.{stream}.log"))).unwrap();
        assert_eq!((log("stdout"), log("stderr")), (b"a\xff\xfe\0b\n\xc3".to_vec(), b"\x80".to_vec()));
    }
    project.record("10-a").assert_pass();
}

fn a_leaked_daemon_is_dead_before_restore_and_listed(user: User) {
    let project = Project::new().of(user);
    let restore = "if readlink /proc/$(<daemon)/exe >/dev/null; then echo alive >>order; else echo dead >>order; fi";
    project.suite("10-a", &[("execute", &daemon("daemon")), ("restore", restore)]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["dead"]);
    let record = project.record("10-a");
    let pid = project.pid("daemon");
    let leaked = record.0["leaked"].as_array().unwrap();
    assert!(leaked.iter().any(|leak| leak["pid"] == pid), "{pid}: {:#}", record.0);
    assert!(!is_alive(pid));
}

/// The pipe stays open, yet the block has ended.
fn a_background_job_does_not_delay_the_verdict(user: User) {
    let project = Project::new().of(user);
    project.suite("10-a", &[("execute", "sleep 1000 & echo $! >pid"), ("kill-timeout", "60s")]);
    project.run(&[]).code(0);
    assert!(!is_alive(project.pid("pid")));
    assert_eq!(project.record("10-a").0["timed_out"], false);
    assert_eq!(project.record("10-a").0["leaked"].as_array().unwrap().len(), 1);
}

fn without_bash_nothing_runs_and_that_is_said() {
    let project = Project::new().variable("PATH", "/no/such/folder");
    project.suite("10-a", &[("expect", "fail"), ("execute", "true")]);
    project.run(&[]).code(2).stderr_says("bash");
}

//! A suite file that is wrong says where, and stops nobody else.

use libtest_mimic::Trial;

use crate::world::{Project, claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(a_broken_suite_says_where_and_what_was_meant),
        claim(a_broken_suite_does_not_stop_the_others),
        claim(a_broken_suite_fails_whatever_it_expects),
        claim(a_broken_suite_runs_nothing),
        claim(a_task_that_is_no_text_is_refused),
        claim(a_broken_project_file_says_where),
        claim(a_broken_manifest_says_where),
    ]
}

/// What follows a good summary and `execute`; place, and what else is said.
const BROKEN: [(&str, &str, &[&str]); 17] = [
    ("restroe: a\n", "3:1", &["`restroe`", "did you mean `restore`?"]),
    ("Execute: a\n", "3:1", &["`Execute`", "did you mean `execute`?"]),
    ("kill_timeout: 3s\n", "3:1", &["`kill_timeout`", "did you mean `kill-timeout`?"]),
    ("colour: green\n", "3:1", &["`colour`"]),
    ("execute: c\n", "3:1", &["duplicate", "`execute`"]),
    ("environment:\n  A: b\n  A: c\n", "5:3", &["duplicate", "`A`"]),
    ("environment: [A, b]\n", "3:14", &["`environment`"]),
    ("environment: {A: {b: c}}\n", "3:18", &["`A`"]),
    ("restore: [a]\n", "3:10", &["`restore`"]),
    ("expect: no\n", "3:9", &["`expect`", "`no`"]),
    ("expect: passs\n", "3:9", &["`expect`", "`pass`"]),
    ("kill-timeout: soon\n", "3:15", &["`kill-timeout`", "`soon`"]),
    ("kill-timeout: 0s\n", "3:15", &["`kill-timeout`", "`0s`"]),
    ("kill-timeout: -1s\n", "3:15", &["`kill-timeout`", "`-1s`"]),
    ("presence: linkd\n", "3:11", &["`presence`", "`linked`"]),
    ("snapshot: /etc\n", "3:11", &["`snapshot`"]),
    ("debug: \"\n", "", &[]),
];

fn name(row: usize) -> String {
    format!("broken-{row:02}")
}

fn broken() -> Project {
    let project = Project::new();
    for (row, (text, _, _)) in BROKEN.iter().enumerate() {
        project.task(&name(row), format!("summary: a\nexecute: echo ran >>order\n{text}"));
    }
    project.suite("a-good", &[("execute", "true")]).suite("z-good", &[("execute", "true")]);
    project
}

fn a_broken_suite_says_where_and_what_was_meant() {
    let project = broken();
    let ended = project.run(&[]);
    ended.code(101);
    for (row, (text, place, parts)) in BROKEN.iter().enumerate() {
        let file = project.path(format!("suites/{}/task.yaml", name(row)));
        let findings = project.record(&name(row)).findings();
        let start = format!("{}:{place}", file.display());
        assert!(findings.contains(&start), "{text:?} is not said to be at {place}: {findings}");
        for part in *parts {
            assert!(findings.contains(part), "{text:?}: `{part}` is not in {findings}");
        }
        ended.says(&start);
    }
}

fn a_broken_suite_does_not_stop_the_others() {
    let project = broken();
    project.run(&[]).code(101);
    project.record("a-good").assert_pass();
    project.record("z-good").assert_pass();
    assert_eq!(project.summary()["counts"]["fail"], BROKEN.len());
}

fn a_broken_suite_runs_nothing() {
    let project = broken();
    project.run(&["broken"]).code(101);
    assert!(project.order().is_empty());
    assert_eq!(project.record(&name(0)).rc(), None);
}

fn a_broken_suite_fails_whatever_it_expects() {
    let project = Project::new();
    project.task("10-a", "summary: a\nexecute: ''\nexpect: fail\n");
    project.task("20-b", "summary: a\nexpect: xfail\n");
    project.run(&[]).code(101);
    project.record("10-a").assert_fail("`execute` is empty");
    project.record("20-b").assert_fail("`execute`");
}

fn a_task_that_is_no_text_is_refused() {
    let project = Project::new();
    for (name, bytes) in
        [("10-a", b"summary: a\xff\nexecute: b\n".as_slice()), ("20-b", b""), ("30-c", b"\0\0"), ("40-d", b"- a\n")]
    {
        project.task(name, bytes);
    }
    project.file("suites/50-e/task.yaml/file", "a folder\n");
    project.run(&[]).code(101);
    for name in ["10-a", "20-b", "30-c", "40-d", "50-e"] {
        project.record(name).assert_fail(&format!("suites/{name}/task.yaml"));
    }
}

fn a_broken_project_file_says_where() {
    let table = [
        ("restore_check: strict\n", "2:1", "restore-check"),
        ("isolation: none\n", "2:1", "isolation"),
        ("product: {nmae: x}\n", "2:11", "name"),
        ("timeout: never\n", "2:10", "never"),
    ];
    for (settings, place, part) in table {
        let project = Project::with(settings);
        project.suite("10-a", &[("execute", "echo ran >>order")]);
        let ended = project.run(&[]);
        ended.code(2).stderr_says(&format!("runner.yaml:{place}")).stderr_says(part);
        assert!(project.order().is_empty());
    }
}

fn a_broken_manifest_says_where() {
    let table = [
        ("no-schema", "{}", "schemaVersion"),
        ("limit", "{\"schemaVersion\": 1,\n \"timeLimitSeconds\": 0}", ":2:22"),
        ("no-json", "{\"schemaVersion\": 1,}", "test.properties.json:1"),
        ("empty", "", "test.properties.json"),
        ("no-scripts", "{\"schemaVersion\": 1}", "test.properties.json"),
    ];
    let project = Project::new();
    for (name, text, _) in table {
        project.file(format!("suites/{name}/test.properties.json"), text);
    }
    project.suite("z-good", &[("execute", "true")]);
    project.run(&[]).code(101);
    for (name, _, part) in table {
        project.record(name).assert_fail(part);
    }
    project.record("z-good").assert_pass();
}

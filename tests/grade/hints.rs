//! What is said beside the results: what is allowed, and most likely not what somebody meant. Results and codes are as without it.

use std::fs;

use serde_json::json;

use super::{Lab, PLAIN, can_be_sandboxed, is_ci, ways, with_temp_dir_on};

#[test]
fn a_misspelt_key_of_the_manifest_is_told_and_changes_nothing() {
    let lab = Lab::new(PLAIN);
    let manifest = "{\"schemaVersion\": 1, \"timeLimitSecond\": 3,\n \"testSuites\": [{\"script\": \"a.sh\", \"pionts\": 5, \"colour\": 1}]}";
    lab.file("week1/test.properties.json", manifest).file("week1/a.sh", "exit 0");
    let told = [
        "warning: week1/test.properties.json:1:22: unknown key `timeLimitSecond` is ignored, did you mean `timeLimitSeconds`?",
        "warning: week1/test.properties.json:2:36: unknown key `pionts` is ignored, did you mean `points`?",
    ];
    let ended = lab.grade(&["week1", "--check"]);
    ended.code(0).says("1 of 1 passed, 1 of 1 points");
    assert_eq!(ended.stderr.lines().collect::<Vec<_>>(), told);
    let named = "note: `week1/test.properties.json` has keys that are not read here: `testSuites[0].colour`";
    lab.grade(&["week1", "--verbose"]).stderr_says(told[1]).stderr_says(named);
    assert_eq!(lab.json(0, &["week1"])["warnings"], json!([]));
}

#[test]
fn a_misspelt_list_of_scripts_is_why_there_are_none() {
    let lab = Lab::new(PLAIN);
    lab.file("week1/a.sh", "exit 0");
    lab.manifest(&json!({"schemaVersion": 1, "testsuites": [{"script": "a.sh"}]}));
    let text = "`week1/test.properties.json` lists no script in `testSuites`; unknown key `testsuites` is ignored, did you mean `testSuites`?";
    lab.grade(&["week1"]).code(2).stderr_says(text);
}

#[test]
fn a_submission_in_a_folder_too_many_is_told_to_worker_and_instructor_alike() {
    for way in ways() {
        let lab = Lab::with(way, &[("a.sh", "cat answer", json!({}))]);
        lab.file("packed/alice/answer", "42").file("packed/alice/sub/x", "");
        let ended = lab.grade(&["week1", "packed"]);
        ended
            .code(0)
            .says("warning: everything that was handed in lies in the folder `alice`, and the set-up has none");
        assert_eq!(lab.json(0, &["week1", "packed"])["warnings"].as_array().unwrap().len(), 1, "{way:?}");
        assert_eq!(lab.json(0, &["week1", "packed/alice"])["warnings"], json!([]), "{way:?}");
        lab.file("week1/alice/readme", "");
        assert_eq!(lab.json(0, &["week1", "packed"])["warnings"], json!([]), "{way:?}");
    }
}

#[test]
fn an_archive_that_is_handed_in_as_one_file_is_told() {
    let lab = Lab::with(PLAIN, &[("a.sh", "ls alice* >&2", json!({}))]);
    let table = [
        ("alice.tar.gz", "", true),
        ("alice.JAR", "", true),
        ("alice.py", "", false),
        ("alice.txt", "PK", false),
        ("alice", "PK\u{3}\u{4}...", true),
        ("alice.zip.1", "PK\u{3}\u{4}", true),
    ];
    for (name, content, is_told) in table {
        lab.file(name, content);
        let ended = lab.grade(&["week1", name]);
        ended.code(0).says("1 of 1 passed");
        let text =
            format!("note: `{name}` is handed in as one file; for what is in it, unpack it and name the folder\n");
        assert_eq!(ended.stderr, if is_told { text.as_str() } else { "" });
        assert_eq!(lab.grade(&["week1", name, "--quiet"]).stderr, "");
    }
}

#[test]
fn a_script_that_sh_does_not_read_as_its_author_did_is_told() {
    let text = "if true\r\nthen exit 0\r\nfi\r\n";
    let scripts = [
        ("a.sh", text, json!({})),
        ("b.sh", "#!/bin/bash\nexit 0", json!({})),
        ("c.sh", "#!/bin/sh\nexit 0", json!({})),
        ("d.sh", "\u{feff}exit 0", json!({})),
    ];
    let lab = Lab::with(PLAIN, &scripts);
    let ended = lab.grade(&["week1"]);
    ended.code(0).says("2 of 4 passed");
    let told = [
        "note: a byte order mark, which sh takes for a part of the first word, begins `d.sh`; save without it",
        "note: line ends are those of Windows (CRLF), which sh does not understand, in `a.sh`; convert them to LF",
        "note: scripts run with /bin/sh, whatever their first line names (`#!/bin/bash`): `b.sh`",
    ];
    assert_eq!(ended.stderr.lines().collect::<Vec<_>>(), told);
}

#[test]
fn tests_of_one_name_are_told() {
    let lab = Lab::with(
        PLAIN,
        &[("a.sh", "exit 0", json!({"name": "b"})), ("b.sh", "exit 0", json!({})), ("c.sh", "exit 0", json!({}))],
    );
    let ended = lab.grade(&["week1"]);
    ended.code(0).says("3 of 3 passed");
    assert_eq!(
        ended.stderr,
        "warning: `a.sh` and `b.sh` have the same name, `b`; nobody can tell their results apart\n"
    );
}

#[test]
fn a_folder_for_copies_where_programs_cannot_be_executed_is_told() {
    if !can_be_sandboxed() {
        assert!(!is_ci(), "CI must be able to make namespaces");
        return;
    }
    let mut lab = Lab::with(PLAIN, &[("a.sh", "cp /bin/true prog; ./prog", json!({}))]);
    assert_eq!(lab.grade(&["week1"]).code(0).says("1 of 1 passed").stderr, "");
    lab.project = lab.project.wrapped(&with_temp_dir_on("noexec"));
    let told = format!("`{}` is mounted noexec: ", lab.project.path("tmp").display());
    lab.grade(&["week1"]).code(0).says("0 of 1 passed").stderr_says(&format!("note: {told}programs that are built"));
    lab.project.run(&["doctor"]).says(&format!("lacks temporary files: {told}"));
}

#[test]
fn a_makefile_that_nobody_runs_is_told() {
    let lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({})), ("b.sh", "exit 0", json!({}))]);
    assert_eq!(lab.grade(&["week1"]).code(0).stderr, "");
    lab.file("week1/makefile", "all:\n");
    let told = "note: make is not run, though the set-up has a `makefile`: ";
    let ended = lab.grade(&["week1"]);
    assert_eq!(ended.code(0).stderr, format!("{told}the manifest has no `makefile`\n"));
    lab.file("week1/b.sh", "make -s");
    assert_eq!(lab.grade(&["week1"]).code(0).stderr, "", "a script runs it");
    lab.file("week1/b.sh", "exit 0")
        .manifest(&json!({"schemaVersion": 1, "testSuites": [{"script": "a.sh"}], "makefile": {}}));
    assert_eq!(lab.grade(&["week1"]).code(0).stderr, "", "it is run");
    lab.file("scripts/a.sh", "exit 0").file("scripts/Makefile", "all:\n");
    lab.grade(&["scripts"]).code(0).stderr_says("has a `Makefile`: there is no test.properties.json with the key");
}

#[test]
fn an_empty_submission_is_told() {
    let lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    fs::create_dir_all(lab.project.path("alice/sub")).unwrap();
    let told = "note: the submission `alice` is empty: there is no file in it\n";
    assert_eq!(lab.grade(&["week1", "alice"]).code(0).says("1 of 1 passed").stderr, told);
    lab.file("alice/sub/x", "");
    assert_eq!(lab.grade(&["week1", "alice"]).code(0).stderr, "");
}

//! What others read of a run: junit.xml, and what GitHub Actions shows.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::world::{Project, claim, command, has};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(junit_has_a_case_for_each_trial),
        claim(junit_passes_its_schema),
        claim(what_a_script_says_stays_text),
        claim(the_junit_format_is_the_junit_file),
        claim(github_sees_failures_beside_the_code),
        claim(the_step_summary_is_added_to),
        claim(the_step_summary_tells_of_what_was_not_run),
        claim(outside_github_nothing_is_annotated),
        claim(a_step_summary_that_cannot_be_written_is_named),
    ]
}

/// Everything that XML, Markdown, GitHub and a terminal would take for more than text.
const EVIL: &str = r"printf ']]></system-out></testcase><x/>&amp;\e[31m\a\b\0\x7f\n::error::x\n##[error]x\n<b>*x*</b> `y` | z\n'; printf '\xff\xfe\n' >&2; exit 1";

fn project() -> Project {
    let project = Project::with("product: {name: greeter}\n");
    project.suite("10-pass", &[("execute", "echo fine")]);
    project.suite("20-fail", &[("execute", "echo words of the block; echo more >&2; exit 7"), ("restore", "true")]);
    project.suite("30-restore", &[("execute", "true"), ("restore", "\nfalse")]);
    project.task("sub/40-wrong", "summary: x\nexekute: true\n");
    project.file("suites/set/a,b.sh", "exit 0");
    project.file("suites/set/c:d%.sh", "echo no; exit 1");
    project
}

fn evil() -> Project {
    let project = Project::new();
    project.suite("10-evil", &[("execute", EVIL)]);
    project.file(
        "suites/set/1.sh",
        "printf '\\033[2J<x>\\n'; printf '{\"shortResult\":\"<y>\\u001b[1m\\n::error::z\"}'; exit 1",
    );
    project
}

/// Checks a document with a program that knows XML and its schemas.
fn check(project: &Project) {
    if !has(&["xmllint"]) {
        return;
    }
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/junit.xsd");
    let mut xmllint = command("xmllint");
    let output =
        xmllint.args(["--noout", "--schema"]).arg(schema).arg(project.path("proof/junit.xml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn junit_has_a_case_for_each_trial() {
    let project = project();
    project.run(&[]).code(101);
    let text = project.text("proof/junit.xml");
    for name in ["10-pass", "20-fail", "30-restore", "sub/40-wrong", "set/a,b", "set/c:d%"] {
        assert_eq!(text.matches(&format!("<testcase name=\"{name}\"")).count(), 1, "{name}: {text}");
    }
    for part in [
        "tests=\"6\"",
        "failures=\"4\"",
        "<failure message=\"execute exited with code 7\"",
        "words of the block",
        "value=\"logs/20-fail/execute.stderr.log\"",
        "value=\"results/10-pass/result.json\"",
        "unknown key `exekute`",
        &format!("<property name=\"run_id\" value=\"{}\"", project.summary()["run_id"].as_str().unwrap()),
    ] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
    assert!(!text.contains("fine"), "what passed is in its log: {text}");
}

fn junit_passes_its_schema() {
    for project in [project(), evil()] {
        project.run(&[]).code(101);
        check(&project);
    }
    let project = Project::new();
    project.suite("10-a", &[("execute", "true")]);
    project.run(&[]).code(0);
    check(&project);
}

fn what_a_script_says_stays_text() {
    let project = evil();
    project.run(&[]).code(101);
    let text = project.text("proof/junit.xml");
    assert!(text.chars().all(|c| !c.is_control() || c == '\n'), "{text:?}");
    assert!(text.contains("&lt;x/&gt;&amp;amp;") && !text.contains("<x"), "{text}");
}

fn the_junit_format_is_the_junit_file() {
    let project = project();
    let ended = project.run(&["--format=junit"]);
    ended.code(101);
    assert_eq!(ended.stdout, project.text("proof/junit.xml"));
    let none = project.run(&["--format=junit", "no-such"]);
    none.code(0);
    assert!(none.stdout.contains("tests=\"0\""), "{none}");
}

fn on_github(project: Project) -> Project {
    let workspace = project.path("").parent().unwrap().to_path_buf();
    let summary = project.path("step.md");
    project
        .variable("GITHUB_ACTIONS", "true")
        .variable("GITHUB_WORKSPACE", workspace)
        .variable("GITHUB_STEP_SUMMARY", summary)
}

fn annotations(stderr: &str) -> Vec<String> {
    stderr.lines().filter(|line| line.starts_with("::")).map(str::to_owned).collect()
}

fn github_sees_failures_beside_the_code() {
    let project = on_github(project());
    let ended = project.run(&[]);
    ended.code(101);
    let folder = project.path("").file_name().unwrap().to_string_lossy().into_owned();
    let expected = [
        "20-fail/task.yaml,line=2,title=20-fail::execute exited with code 7",
        "30-restore/task.yaml,line=4,title=30-restore::restore exited with code 1",
        "set/c%3Ad%25.sh,title=set/c%3Ad%25::fail: no",
        "sub/40-wrong/task.yaml,line=2,title=sub/40-wrong::",
    ];
    let found = annotations(&ended.stderr);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(&format!("::error file={folder}/suites/{expected}")), "{found}\n{expected}");
    }
    let evil = on_github(evil());
    let ended = evil.run(&["--nocapture"]);
    let found = annotations(&ended.stderr);
    assert!(found.len() == 2 && found.iter().all(|line| line.starts_with("::error file=")), "{ended}");
    assert!(ended.stderr.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{:?}", ended.stderr);
}

fn the_step_summary_is_added_to() {
    let project = on_github(project());
    project.file("step.md", "before\n");
    project.run(&[]).code(101);
    let text = project.text("step.md");
    assert!(text.starts_with("before\n### Suites: 2 passed, 4 failed\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("- **")).count(), 4, "{text}");
    let evil = on_github(evil());
    evil.run(&[]).code(101);
    let text = evil.text("step.md");
    assert!(!text.contains("<y>") && text.chars().all(|c| !c.is_control() || c == '\n'), "{text:?}");
}

fn the_step_summary_tells_of_what_was_not_run() {
    let project = on_github(project());
    project.run(&["--fail-fast"]).code(101);
    let text = project.text("step.md");
    assert!(text.starts_with("### Suites: 1 passed, 1 failed, 4 not run to their end\n"), "{text}");
}

fn outside_github_nothing_is_annotated() {
    for value in ["", "false", "1"] {
        let project = on_github(project()).variable("GITHUB_ACTIONS", value);
        let ended = project.run(&[]);
        ended.code(101);
        assert!(annotations(&ended.stderr).is_empty() && !project.path("step.md").exists(), "{value}: {ended}");
    }
}

fn a_step_summary_that_cannot_be_written_is_named() {
    let project = on_github(project()).variable("GITHUB_STEP_SUMMARY", "/proc/no-such/step.md");
    project.run(&["10-pass"]).code(0).stderr_says("GITHUB_STEP_SUMMARY").stderr_says("/proc/no-such/step.md");
    assert_eq!(project.summary()["counts"]["pass"], 1);
    fs::metadata(project.path("proof/junit.xml")).unwrap();
}

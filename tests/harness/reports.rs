//! Reports for continuous integration.

use std::fs;

use libtest_mimic::Trial;

use crate::world::{Project, claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(junit_xml_stands_beside_the_summary),
        claim(on_github_a_failure_is_an_annotation),
        claim(on_github_there_is_a_step_summary),
    ]
}

fn project() -> Project {
    let project = Project::new();
    project.suite("10-a", &[("execute", "true")]);
    project.suite("20-b", &[("execute", "echo '<words> & \"more\"'; printf 'x\\033[31m%%\\n'; exit 7")]);
    project
}

fn junit_xml_stands_beside_the_summary() {
    let project = project();
    project.run(&[]).code(101);
    let tree = project.tree("proof");
    let file = tree.iter().find(|file| file.ends_with(".xml") && !file.contains('/'));
    let text = project.text(format!("proof/{}", file.unwrap_or_else(|| panic!("no report in {tree:#?}"))));
    assert_eq!(text.matches("<testcase").count(), 2, "{text}");
    for part in ["name=\"10-a\"", "name=\"20-b\"", "code 7", "&lt;words&gt; &amp;"] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
}

fn on_github_a_failure_is_an_annotation() {
    let project = project().variable("GITHUB_ACTIONS", "true");
    let ended = project.run(&[]);
    ended.code(101);
    let all = ended.all();
    let annotations: Vec<_> = all.lines().filter(|line| line.starts_with("::error file=")).collect();
    assert_eq!(annotations.len(), 1, "{ended}");
    assert!(annotations[0].contains("20-b") && annotations[0].contains("code 7"), "{}", annotations[0]);
}

fn on_github_there_is_a_step_summary() {
    let project = project();
    project.file("step.md", "of an earlier step\n");
    let file = project.path("step.md");
    let project = project.variable("GITHUB_ACTIONS", "true").variable("GITHUB_STEP_SUMMARY", &file);
    project.run(&[]).code(101);
    let text = fs::read_to_string(file).unwrap();
    assert!(text.starts_with("of an earlier step\n") && text.contains("20-b"), "{text}");
}

//! nextest's JUnit file, and the settings that this repository has and recommends.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::world::{Project, command, has};
use crate::{FAILED, claim, project, run, start};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(junit_has_each_test_once_and_no_script_can_break_it),
        claim(the_repositorys_settings_put_suites_into_one_group),
        claim(the_readmes_settings_put_suites_into_one_group),
    ]
}

/// A name and a text each: what a reader of the file sees of a test.
fn test_cases(project: &Project, path: &str) -> Vec<(String, String)> {
    let script = "import json, sys, xml.etree.ElementTree as tree\n\
                  cases = tree.parse(sys.argv[1]).getroot().iter('testcase')\n\
                  texts = lambda case: ''.join(case.itertext()) + ''.join(part.get('type', '') for part in case.iter())\n\
                  print(json.dumps([[case.get('name'), texts(case)] for case in cases]))";
    let ran = command("python3").args(["-c", script]).arg(project.path(path)).output().unwrap();
    assert!(ran.status.success(), "{}\n{}", String::from_utf8_lossy(&ran.stderr), project.text(path));
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// What XML may not hold, what means something in it, and what a terminal or a reader would take for an order.
const NOISE: &str = r"printf '\033[31mred\a\b\000\001\013\014\177\237\302\233\377\376\357\277\276\357\277\277\342\200\256\355\240\200\303'; \
                      printf '%s\n' ' ]]> &amp; </failure> <!--'";

fn junit_has_each_test_once_and_no_script_can_break_it() {
    if !has(&["python3"]) {
        return;
    }
    let project = project();
    project.file("nextest.toml", "[profile.default.junit]\npath = \"junit.xml\"\n");
    let noise = format!("{NOISE}; {NOISE} >&2; echo some words; exit 3");
    for name in ["10-a", "a\"&<b>']]>"] {
        project.task(name, format!("summary: \"<&\\u0001\\u001b]]>\"\nexecute: |\n  {noise}\n"));
    }
    project.suite("20-quiet", &[("execute", "true")]);
    project.file("suites/set/1.sh", format!("{noise}\n")).file("suites/set/2.sh", "exit 0");
    run(&project, &["--config-file", "nextest.toml"]).code(FAILED);
    let mut cases = test_cases(&project, "target/nextest/default/junit.xml");
    // They stand in the order in which they ended.
    cases.sort();
    let names: Vec<_> = cases.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["10-a", "20-quiet", "a\"&<b>']]>", "set/1", "set/2"]);
    let hidden = ['\u{9b}', '\u{202e}', '\u{ffff}', '\u{fffe}', '\u{7f}'];
    for (name, text) in cases {
        assert!(!text.contains(hidden), "{name}: {text:?}");
        let fails = !["20-quiet", "set/2"].contains(&name.as_str());
        assert_eq!(
            text.contains("some words") && text.contains("test failure with exit code 101"),
            fails,
            "{name}: {text}"
        );
    }
}

fn the_repositorys_settings_put_suites_into_one_group() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(".config/nextest.toml");
    are_right(&fs::read_to_string(file).unwrap());
}

fn the_readmes_settings_put_suites_into_one_group() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, rest) = readme.split_once("# .config/nextest.toml\n").expect("README shows the settings");
    are_right(rest.split_once("```").unwrap().0);
}

/// Tries them on suites which would show that they run at once, had they not a lock of ours.
fn are_right(settings: &str) {
    let project = project();
    for name in ["10-a", "20-b"] {
        project.suite(name, &[("execute", "true")]);
    }
    project.file(".config/nextest.toml", settings);
    let groups = start(&project, "show-config test-groups", &["--profile", "ci"]).wait();
    groups.code(0);
    assert!(groups.stdout.contains("group: suites (max threads = 1)"), "{groups}");
    for name in ["10-a", "20-b"] {
        assert!(groups.stdout.lines().any(|line| line.trim() == name), "{groups}");
    }
    run(&project, &["--profile", "ci", "--test-threads", "4"]).code(0);
    assert!(project.path("target/nextest/ci/junit.xml").exists());
}

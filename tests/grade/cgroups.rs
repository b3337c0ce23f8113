//! What becomes of a cgroup that was delegated to it. Memory and pids are counted there where the machine gives them to version 2; this
//! asserts what must be seen on either machine.

#[path = "../engine/delegated.rs"]
mod delegated;

use std::fs;
use std::path::Path;

use serde_json::json;

use super::world::{is_ci, is_root};
use super::{Lab, PLAIN, RUNNER};
use delegated::Delegated;

/// Grades behind words of a shell that is in `delegated`; returns the cgroup of a script, and what the one above passes on.
fn grade_in(delegated: &Delegated, words: &str) -> [String; 2] {
    let folder = delegated.path().display();
    let texts = ["sed -n 's/^0:://p' /proc/self/cgroup".to_owned(), format!("cat {folder}/cgroup.subtree_control")];
    let mut lab = Lab::with(PLAIN, &[("a.sh", &texts[0], json!({})), ("b.sh", &texts[1], json!({}))]);
    lab.project = lab.project.wrapped(&[&delegated.words()[..], &["sh", "-c", words, "-"]].concat()).by(RUNNER);
    let graded = lab.json(0, &["week1"]);
    [0, 1].map(|at| {
        assert_eq!(graded["outcomes"][at]["status"], "pass", "{graded}");
        graded["outcomes"][at]["shortResult"].as_str().unwrap().to_owned()
    })
}

#[test]
#[expect(clippy::print_stderr, reason = "what was not tried has to be said")]
fn a_delegated_cgroup_passes_on_what_it_has_and_is_left_as_it_was() {
    for (name, words, is_alone) in [("alone", "exec \"$@\"", true), ("shared", "\"$@\"; exit $?", false)] {
        let name = format!("grade.{}.{name}", std::process::id());
        let Some(delegated) = is_root().then(|| Delegated::new(&name, None)).flatten() else {
            assert!(!is_ci(), "CI must be able to make a cgroup");
            eprintln!("NOT TRIED: a delegated cgroup; that takes root, and cgroup2 that can be written to");
            return;
        };
        let [of_script, passed_on] = grade_in(&delegated, words);
        // Beside a leaf, not in it.
        let above = Path::new(&of_script).parent().unwrap();
        assert_eq!(above.file_name(), delegated.path().file_name(), "{of_script}");
        let expected: Vec<_> = ["memory", "pids"].into_iter().filter(|word| is_alone && delegated.has(word)).collect();
        // A script that prints nothing has a text of its own.
        let expected = if expected.is_empty() { "passed".to_owned() } else { expected.join(" ") };
        assert_eq!(passed_on, expected, "{name}");
        for file in ["cgroup.procs", "cgroup.subtree_control"] {
            assert_eq!(fs::read_to_string(delegated.path().join(file)).unwrap().trim(), "", "{name}: {file}");
        }
        fs::remove_dir(delegated.path()).unwrap();
    }
}

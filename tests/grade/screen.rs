//! What somebody sees who looks: colours and progress on a terminal only, nothing that drives it.

use serde_json::json;

use super::world::{Project, has};
use super::{Lab, PLAIN, RUNNER, ways};

fn two_scripts() -> Lab {
    Lab::with(PLAIN, &[("a.sh", "sleep 1; exit 0", json!({})), ("b.sh", "echo said; exit 1", json!({}))])
}

/// Runs it on a terminal (script(1)), and returns what that showed.
fn on_a_terminal(project: Project, arguments: &str) -> String {
    let line = format!("{RUNNER} grade {arguments}");
    let project = project.by("/usr/bin/script").variable("TERM", "xterm");
    let ended = project.run(&["-qec", &line, "/dev/null"]);
    ended.code(0);
    ended.stdout
}

#[test]
fn on_a_terminal_there_are_colours_and_progress() {
    if has(&["script"]) {
        let shown = on_a_terminal(two_scripts().project, "week1");
        for part in ["\u{1b}[32mpass", "\u{1b}[1m\u{1b}[31mfail", "grade 1/2 a"] {
            assert!(shown.contains(part), "{part:?} {shown:?}");
        }
    }
}

#[test]
fn on_a_terminal_no_line_of_the_table_is_wider_than_it() {
    if has(&["script", "stty"]) {
        let name = "a\u{1b}very long name ".repeat(20);
        let lab = Lab::with(PLAIN, &[("a.sh", "printf 'r%.0s' $(seq 900); exit 1", json!({"name": name}))]);
        let project = lab.project.by("/usr/bin/script").variable("TERM", "xterm").variable("NO_COLOR", "1");
        let line = format!("stty cols 90; {RUNNER} grade week1 2>/dev/null");
        let ended = project.run(&["-qec", &line, "/dev/null"]);
        ended.code(0).says("r…").says("a\\u{1b}very");
        let lines: Vec<_> = ended.stdout.lines().map(|line| line.trim_end().chars().count()).collect();
        assert!(lines.iter().all(|chars| *chars <= 90) && lines.contains(&90), "{lines:?}\n{ended}");
    }
}

#[test]
fn the_line_of_progress_is_not_wider_than_a_terminal_either() {
    if has(&["script", "stty"]) {
        let lab = Lab::with(PLAIN, &[("a.sh", "sleep 1", json!({"name": "long name ".repeat(20)}))]);
        let project = lab.project.by("/usr/bin/script").variable("TERM", "xterm");
        let line = format!("stty rows 24 cols 60; {RUNNER} grade week1");
        let ended = project.run(&["-qec", &line, "/dev/null"]);
        ended.code(0);
        assert!(ended.stdout.contains("1/1 long name") && !ended.stdout.contains(&"long name ".repeat(6)), "{ended}");
    }
}

#[test]
fn no_color_takes_the_colours_away() {
    if has(&["script"]) {
        let shown = on_a_terminal(two_scripts().project.variable("NO_COLOR", "1"), "week1");
        assert!(shown.contains("pass     public") && !shown.contains("\u{1b}[32m"), "{shown:?}");
    }
}

#[test]
fn the_json_is_the_same_on_a_terminal() {
    if has(&["script"]) {
        let shown = on_a_terminal(two_scripts().project, "week1 --json 2>/dev/null");
        let value: serde_json::Value = serde_json::from_str(shown.trim()).unwrap();
        assert_eq!(value["totalTests"], 2);
    }
}

#[test]
fn quiet_says_what_has_not_passed_and_the_sums() {
    let ended = two_scripts().grade(&["week1", "--quiet"]);
    ended.code(0).says("fail     public     0/1").says("1 of 2 passed, 1 of 2 points");
    assert!(!ended.stdout.contains("pass     "), "{ended}");
    let ended = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]).grade(&["week1", "--quiet"]);
    assert_eq!(ended.code(0).stdout.lines().count(), 1, "{ended}");
}

#[test]
fn verbose_shows_output_while_it_comes_and_what_was_measured() {
    let lab = two_scripts();
    let ended = lab.grade(&["week1", "--verbose"]);
    ended.code(0).stderr_says("| said").says("copied in ").says("KiB of memory; 5 bytes of output, 0 of errors");
    assert_eq!(lab.json(0, &["week1", "--verbose"])["passCount"], 1);
}

#[test]
fn nothing_that_a_student_writes_drives_a_terminal_or_a_ci_service() {
    let evil =
        "printf '\\033[2J::error::x\\n\\033]0;title\\007##[group]y\\n' >&2; printf '\\033[31m##[error]z\\n'; exit 1";
    for way in ways() {
        let lab = Lab::with(way, &[("a.sh", evil, json!({"name": "na\u{1b}me\n::error::n"}))]);
        lab.file("week1/\u{1b}[2J", "").file("alice/\u{1b}[2J", "");
        let ended = lab.grade(&["week1", "alice", "--verbose", "--check"]);
        ended
            .code(1)
            .says("na\\u{1b}me\\n::error::n")
            .says("| \\u{1b}[2J::error::x")
            .says("`\\u{1b}[2J` of the submission");
        let all = ended.all();
        assert!(!all.contains(['\u{1b}', '\u{7}']) && !all.contains("##["), "{way:?}\n{ended}");
        assert!(!all.lines().any(|line| line.starts_with("::")), "{way:?}\n{ended}");
    }
}

#[test]
fn an_error_that_quotes_a_student_drives_no_terminal() {
    let lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    lab.file("alice/x", "");
    nix::unistd::mkfifo(&lab.project.path("alice/\u{1b}[2J"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ended = lab.grade(&["week1", "alice"]);
    ended.code(2).stderr_says("alice/\\u{1b}[2J` is neither a file, a folder nor a symbolic link");
    assert!(!ended.all().contains('\u{1b}'), "{ended}");
}

#[test]
fn of_an_endless_text_the_end_is_shown() {
    let script = "i=0; while [ $i -lt 5000 ]; do echo line $i >&2; i=$((i + 1)); done; exit 1";
    let ended = Lab::with(PLAIN, &[("a.sh", script, json!({}))]).grade(&["week1"]);
    ended.code(0).says("| [... what was before is left out here ...]\n| line 4980\n").says("| line 4999\n");
    assert!(!ended.stdout.contains("line 4979"), "{ended}");
}

#[test]
fn help_names_the_variables_of_the_sandbox_and_their_defaults() {
    let lab = Lab::new(PLAIN);
    let help = lab.project.run(&["--help"]).stdout;
    let environment = help.split_once("\nEnvironment:\n").and_then(|(_, rest)| rest.split_once("\n\n")).unwrap().0;
    let (_, of_grade) = environment.split_once("of grade --sandbox, as for chickadee-runner:\n").unwrap();
    for name in ["MEMORY_MB", "DISK_MB", "FILES", "PROCESSES", "OPEN_FILES", "SHOWS"] {
        assert!(of_grade.contains(&format!("RUNNER_SANDBOX_{name}")), "{name}: {help}");
    }
    for default in ["2048, 512, 50000", "512, 1024"] {
        assert!(of_grade.contains(&format!("[default: {default}]")), "{default}: {help}");
    }
    assert!(environment.contains("  TMPDIR ") && environment.lines().all(|line| line.chars().count() < 80), "{help}");
}

#[test]
fn help_names_every_flag_and_code() {
    let lab = Lab::new(PLAIN);
    let ended = lab.grade(&["--help"]);
    ended.code(0);
    for word in [
        "SETUP",
        "SUBMISSION",
        "--sandbox",
        "--json",
        "--check",
        "--seed",
        "--submission-id",
        "--test-setup-id",
        "--attempt",
    ] {
        assert!(ended.stdout.contains(word), "{word}\n{ended}");
    }
    for flag in ["--project-dir", "--suites", "--proof"] {
        assert!(!ended.stdout.contains(flag), "{flag}\n{ended}");
        let told = |order: &str| format!("`{flag}` concerns suites and has no meaning for `{order}`; leave it out");
        lab.grade(&["week1", flag, "x"]).code(2).stderr_says(&told("grade"));
        for order in ["grade week1", "schema task", "completions bash", "man"] {
            let words: Vec<_> = [flag, "x"].into_iter().chain(order.split(' ')).collect();
            lab.project.run(&words).code(2).stderr_says(&told(words[2]));
        }
        assert!(lab.project.run(&["all", "--help"]).stdout.contains(flag));
    }
    assert!(lab.project.run(&["--help"]).stdout.contains("of grade: --check found a test that has not passed"));
    assert!(lab.project.run(&["--help"]).stdout.contains("grade"));
    assert!(lab.project.run(&["completions", "bash"]).stdout.contains("--submission-id"));
    assert!(lab.project.run(&["man"]).stdout.contains("grade"));
}

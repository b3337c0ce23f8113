//! What the user sees: help, colours and progress on a terminal only.

use libtest_mimic::Trial;

use crate::world::{Project, claim, command};
use crate::{RUNNER, project};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(help_names_every_order_variable_and_exit_code),
        claim(completions_and_the_man_page_come_from_the_same_definition),
        claim(in_a_log_there_is_no_escape_code),
        claim(on_a_terminal_there_are_colours_and_progress),
        claim(no_color_takes_the_colours_away),
        claim(what_a_passing_suite_left_behind_is_shown),
        claim(quiet_says_failures_and_the_last_line),
        claim(verbose_shows_output_on_standard_error),
    ]
}

const ORDERS: [&str; 12] = [
    "all",
    "preflight",
    "deps",
    "build",
    "run-suites",
    "collect",
    "verify",
    "grade",
    "doctor",
    "completions",
    "schema",
    "man",
];

fn two_suites() -> Project {
    let project = project("");
    project.suite("10-a", &[("execute", "echo from a")]).suite("20-b", &[("execute", "echo from b; exit 1")]);
    project
}

fn help_names_every_order_variable_and_exit_code() {
    let ended = project("").run(&["--help"]);
    ended.code(0);
    let variables =
        ["TEST_FILTER", "SUITE_TIMEOUT_SEC", "CARGO_PROFILE", "RUSTUP_TOOLCHAIN", "RUNNER_JSONL", "NO_COLOR"];
    let flags = ["--project-dir", "--suites", "--proof", "--quiet", "--verbose"];
    for word in variables.iter().chain(&flags) {
        assert!(ended.stdout.contains(word), "{word}\n{ended}");
    }
    for word in ORDERS.iter().chain(&["0", "1", "2", "3", "129 130 143", "other"]) {
        assert!(lists(&ended.stdout, word), "{word}\n{ended}");
    }
    assert!(!ended.stdout.contains("__probe"), "{ended}");
}

/// Tells whether a list in a help text has a line for this word.
fn lists(help: &str, word: &str) -> bool {
    let mut rests = help.lines().filter_map(|line| line.strip_prefix("  ")?.strip_prefix(word));
    rests.any(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn completions_and_the_man_page_come_from_the_same_definition() {
    let project = project("");
    for shell in ["bash", "zsh", "fish"] {
        let ended = project.run(&["completions", shell]);
        ended.code(0);
        ORDERS.iter().for_each(|order| assert!(ended.stdout.contains(order), "{shell}: {order}"));
    }
    let script = project.run(&["completions", "bash"]).stdout;
    project.file("completions.bash", script);
    assert!(command("bash").arg("-n").arg(project.path("completions.bash")).status().unwrap().success());
    let page = project.run(&["man"]);
    page.code(0).says(".TH container");
    ORDERS.iter().for_each(|order| assert!(page.stdout.replace('\\', "").contains(order), "{order}"));
}

fn in_a_log_there_is_no_escape_code() {
    let ended = two_suites().run(&["all"]);
    ended.code(1).says("== run-suites").says("ok   10-a").says("FAIL 20-b");
    assert!(!ended.all().contains('\u{1b}'), "{ended}");
}

/// Runs it on a terminal (script(1)), and returns what that showed.
fn on_a_terminal(project: Project) -> String {
    let line = format!("{RUNNER} run-suites");
    let project = project.by("/usr/bin/script").variable("TERM", "xterm");
    let ended = project.run(&["-qec", &line, "/dev/null"]);
    ended.code(1);
    ended.stdout
}

fn on_a_terminal_there_are_colours_and_progress() {
    let project = two_suites();
    project.suite("15-slow", &[("execute", "sleep 1")]);
    let shown = on_a_terminal(project);
    assert!(shown.contains("\u{1b}[32mok"), "{shown}");
    assert!(shown.contains("run-suites 2/3 15-slow"), "{shown}");
}

fn no_color_takes_the_colours_away() {
    let shown = on_a_terminal(two_suites().variable("NO_COLOR", "1"));
    assert!(shown.contains("ok   10-a"), "{shown}");
    assert!(!shown.contains("\u{1b}[32m") && !shown.contains("\u{1b}[1m"), "{shown}");
}

fn what_a_passing_suite_left_behind_is_shown() {
    let project = project("snapshot: {paths: [watched]}\n");
    project.file("watched/a", "");
    project.suite("10-a", &[("execute", "echo x >watched/b\nsleep 600 >/dev/null 2>&1 &")]);
    let ended = project.run(&["run-suites"]);
    ended.code(0).says("; 1 path not as before, first ").says("watched/b; 1 process had to be ended");
}

fn quiet_says_failures_and_the_last_line() {
    let ended = two_suites().run(&["all", "--quiet"]);
    ended.code(1).says("FAIL 20-b").says("1 passed, 1 failed");
    assert!(!ended.all().contains("10-a") && !ended.all().contains("preflight"), "{ended}");
}

fn verbose_shows_output_on_standard_error() {
    two_suites().run(&["run-suites", "--verbose"]).code(1).stderr_says("| from a");
}

//! What a failed trial says.

use std::path::Path;

use libtest_mimic::Trial;

use crate::world::{Project, claim, command, features};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(a_failure_says_all_that_is_needed),
        claim(control_characters_are_escaped),
        claim(live_output_is_escaped_too),
        claim(a_script_cannot_command_a_ci_service),
        claim(a_name_cannot_command_a_ci_service),
        claim(only_the_last_lines_are_shown),
        claim(the_command_of_a_failure_reproduces_it),
    ]
}

fn failing() -> Project {
    let project = Project::with("snapshot: {paths: [data]}\n");
    project.file("data/conf", "old\n");
    let execute = "echo new >data/conf; echo said on stdout; echo said on stderr >&2; exit 7";
    project.suite("10-a", &[("execute", execute), ("restore", "echo said by restore; exit 8")]);
    project
}

fn a_failure_says_all_that_is_needed() {
    let project = failing();
    let ended = project.run(&[]);
    ended.code(101);
    for part in ["this is 10-a", "code 7", "code 8", "data/conf", "said on stdout", "said on stderr", "said by restore"]
    {
        assert!(ended.stdout.contains(part), "`{part}` is missing: {ended}");
    }
    let proof = project.path("proof");
    let paths: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with(proof.to_str().unwrap())).collect();
    assert!(paths.iter().any(|path| path.ends_with("results/10-a/result.json")), "{ended}");
    assert!(paths.iter().any(|path| path.ends_with("logs/10-a/execute.stderr.log")), "{ended}");
    for path in paths {
        assert!(Path::new(path).is_file(), "{path} does not exist");
    }
    assert!(ended.stdout.contains("--exact 10-a"), "{ended}");
}

fn control_characters_are_escaped() {
    let project = Project::new();
    let execute = r"printf '\e[31mred\e]0;title\a\b\r\n::error::x\x7f\u009b1m\n'; printf '\e[2J' >&2; exit 1";
    project.suite("10-a", &[("execute", execute)]);
    project.task("20-b", "summary: \"a \\e[31m summary\"\nexecute: exit 1\n");
    project.file("suites/set/1.sh", "printf '\\033[31mred\\n'; printf '\\033[2J' >&2; exit 1");
    for arguments in [&[][..], &["--format", "json"], &["--format", "terse"]] {
        let ended = project.run(arguments);
        ended.code(101);
        let is_harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
        assert!(ended.stdout.chars().all(is_harmless), "{:?}", ended.stdout);
        assert!(ended.stdout.contains("red"), "{ended}");
    }
}

/// nextest always asks for live output, and shows it in the log of a build.
fn live_output_is_escaped_too() {
    let project = Project::new();
    project.suite("10-a", &[("execute", r"printf 'a\e[31mred\a\u009b1m\n'; printf 'b\e[2J' >&2")]);
    let ended = project.run(&["--nocapture"]);
    ended.code(0).stderr_says("red");
    assert!(ended.stderr.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{:?}", ended.stderr);
    assert!(ended.stderr.ends_with('\n'), "what is said next would not begin a line: {:?}", ended.stderr);
}

/// To GitHub, a line that begins with two colons is an order, also behind blanks.
fn a_script_cannot_command_a_ci_service() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "echo '::error::x ##[error]y'; echo '  ::set-output name=a::b' >&2; exit 1")]);
    project.file("suites/set/1.sh", "echo '::add-mask::e'; exit 1");
    for arguments in [&[][..], &["--nocapture"]] {
        let ended = project.run(arguments);
        ended.code(101).says("error::x");
        let orders: Vec<_> =
            ended.all().lines().filter(|line| line.trim_start().starts_with("::")).map(str::to_owned).collect();
        assert!(orders.is_empty() && !ended.all().contains("##["), "{arguments:?}: {orders:#?} {ended}");
    }
}

/// Paths, processes and links may have line ends in their names.
fn a_name_cannot_command_a_ci_service() {
    let project = Project::new();
    let execute =
        "cd $SCRATCH_DIR; touch $'x\\n::error::name'; ln -s $'y\\n::error::link' link; echo '::error::x'; exit 1";
    project.suite("10-a", &[("snapshot", "['{scratch}']"), ("execute", execute), ("restore", "true")]);
    for arguments in [&[][..], &["--format", "junit"], &["--format", "terse"], &["--nocapture"]] {
        let ended = project.run(arguments);
        ended.code(101).says("error::name").says("error::x");
        let orders: Vec<_> =
            ended.all().lines().filter(|line| line.trim_start().starts_with("::")).map(str::to_owned).collect();
        assert!(orders.is_empty(), "{arguments:?}: {orders:#?}");
    }
}

fn only_the_last_lines_are_shown() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "for n in {1..5000}; do echo line-$n; done; exit 1")]);
    let ended = project.run(&[]);
    ended.code(101);
    assert!(ended.stdout.contains("line-5000\n") && !ended.stdout.contains("line-1\n"), "{ended}");
    assert!(ended.stdout.lines().count() < 200, "{}", ended.stdout.lines().count());
    assert_eq!(project.text("proof/logs/10-a/execute.stdout.log").lines().count(), 5000);
}

/// In the package's folder, with the variables that were set.
fn the_command_of_a_failure_reproduces_it() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "false")]);
    project.suite("20-b", &[("execute", "echo ran >>order")]);
    let ended = project.run(&[]);
    let line = ended.stdout.lines().find(|line| line.contains("cargo test"));
    let words = line.unwrap_or_else(|| panic!("{ended}"));
    let words = &words[words.find("cargo test").unwrap()..];
    let words = &words.replacen("cargo test", &[&["cargo test"], features()].concat().join(" "), 1);
    assert_eq!(project.order(), ["ran"]);
    let mut shell = command("sh");
    shell.args(["-c", words]).current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, folder) in [("SUITES_DIR", "suites"), ("PROOF_DIR", "proof"), ("RUNNER_JSONL", "runner.jsonl")] {
        shell.env(name, project.path(folder));
    }
    shell.env("PROJECT_DIR", project.path("."));
    // Whoever tries this claim may be of a run of nextest.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NEXTEST")) {
        shell.env_remove(name);
    }
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(101), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test 10-a ... FAILED") && !text.contains("test 20-b"), "{text}");
    assert_eq!(project.order(), ["ran"]);
}

//! What signals to the harness do.

use std::fs;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::world::{Project, User, both, claim, daemon, is_alive, until};

pub(crate) fn claims() -> Vec<Trial> {
    let mut claims = vec![
        claim(a_second_signal_gives_up_on_restore),
        claim(a_signal_during_restore_lets_it_finish),
        claim(that_a_signal_has_arrived_is_said_before_restore_has_run),
        claim(a_signal_ends_a_script_of_a_set_up),
        claim(a_signal_ends_a_build),
        claim(a_reader_that_goes_away_does_not_keep_restore_from_running),
        claim(without_standard_streams_suites_run),
        claim(ignored_signals_of_the_caller_do_no_harm),
        claim(sigterm_to_the_whole_group_still_restores),
        claim(two_signals_at_once_are_one_and_still_restore),
        claim(a_hangup_that_whoever_started_us_ignores_is_ignored),
    ];
    claims.extend(both(sigint_ends_the_block_and_restores));
    claims.extend(both(sigterm_ends_the_block_and_restores));
    claims.extend(both(a_closed_terminal_ends_the_block_and_restores));
    claims.extend(both(nothing_outlives_a_killed_harness));
    claims.extend(both(a_killed_harness_leaves_a_whole_summary));
    claims.extend(both(the_next_run_reports_and_removes_what_a_killed_one_left));
    claims
}

fn that_a_signal_has_arrived_is_said_before_restore_has_run() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "echo x >block; sleep 1000"), ("restore", "mkfifo go; read -r line <go")]);
    let running = project.start(&[]);
    project.wait_for("block");
    running.signal(Signal::SIGINT);
    until("the signal to be told of", || running.stderr().contains("interrupted: ") && project.path("go").exists());
    fs::write(project.path("go"), "on\n").unwrap();
    running.wait().code(130);
    assert_eq!(project.record("10-a").0["restore_rc"], 0);
}

/// A suite that runs until it is ended, with a daemon, and one after it.
fn endless(user: User) -> Project {
    let project = Project::new().of(user);
    let execute = format!("{}\necho $$ >block.new; mv block.new block\nsleep 1000", daemon("daemon"));
    let restore =
        "if readlink /proc/$(<daemon)/exe >/dev/null; then echo daemon-alive >>order; fi\necho restore >>order";
    project.suite("10-a", &[("execute", &execute), ("restore", restore)]);
    project.suite("20-b", &[("execute", "echo never >>order"), ("restore", "echo never >>order")]);
    project
}

fn interrupted_by(signal: Signal, code: i32, user: User) {
    // These tests may have been started with nohup(1).
    let project = endless(user).wrapped(&["/usr/bin/env", "--default-signal=HUP"]);
    let running = project.start(&[]);
    project.wait_for("block");
    running.signal(signal);
    let ended = running.wait();
    ended.code(code);
    assert_eq!(project.order(), ["restore"], "{ended}");
    for pid in ["block", "daemon"] {
        assert!(!is_alive(project.pid(pid)), "{pid} is alive");
    }
    let summary = project.summary();
    assert_eq!(summary["interrupted"], true);
    assert!(summary["finished_at"].is_string());
    project.record("10-a").assert_fail("interrupted");
    project.record("20-b").assert_fail("not run");
    assert_eq!(project.record("20-b").rc(), None);
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
}

fn sigint_ends_the_block_and_restores(user: User) {
    interrupted_by(Signal::SIGINT, 130, user);
}

fn sigterm_ends_the_block_and_restores(user: User) {
    interrupted_by(Signal::SIGTERM, 143, user);
}

fn a_closed_terminal_ends_the_block_and_restores(user: User) {
    interrupted_by(Signal::SIGHUP, 129, user);
}

fn two_signals_at_once_are_one_and_still_restore() {
    let project = endless(User::Caller);
    let running = project.start(&[]);
    project.wait_for("block");
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGTERM);
    running.wait().code(143);
    assert_eq!(project.order(), ["restore"]);
}

fn a_hangup_that_whoever_started_us_ignores_is_ignored() {
    let wrapper = ["bash", "-c", "trap '' HUP; exec \"$@\"", "bash"];
    let project = Project::new().wrapped(&wrapper);
    project.suite("10-a", &[("execute", "mkfifo go; echo x >started; read -r word <go; echo $word >>order")]);
    let running = project.start(&[]);
    project.wait_for("started");
    running.signal(Signal::SIGHUP);
    fs::write(project.path("go"), "went-on\n").unwrap();
    running.wait().code(0);
    assert_eq!(project.order(), ["went-on"]);
}

fn sigterm_to_the_whole_group_still_restores() {
    let project = endless(User::Caller);
    let running = project.start(&[]);
    project.wait_for("block");
    running.signal_group(Signal::SIGTERM);
    running.wait().code(143);
    assert_eq!(project.order(), ["restore"]);
}

fn a_second_signal_gives_up_on_restore() {
    let project = Project::new();
    let restore = "echo $$ >restoring.new; mv restoring.new restoring; sleep 1000; echo restored >>order";
    project.suite("10-a", &[("execute", "echo x >started; sleep 1000"), ("restore", restore)]);
    let running = project.start(&[]);
    project.wait_for("started");
    running.signal(Signal::SIGINT);
    project.wait_for("restoring");
    // What comes together is one signal.
    std::thread::sleep(std::time::Duration::from_millis(60));
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    ended.code(130).says("restore was stopped");
    assert!(project.order().is_empty());
    assert!(!is_alive(project.pid("restoring")));
    project.record("10-a").assert_fail("restore was stopped");
}

fn a_signal_during_restore_lets_it_finish() {
    let project = Project::new();
    let restore = "mkfifo go; echo x >restoring; read -r word <go; echo $word >>order";
    project.suite("10-a", &[("execute", "true"), ("restore", restore)]);
    let running = project.start(&[]);
    project.wait_for("restoring");
    running.signal(Signal::SIGINT);
    fs::write(project.path("go"), "restored\n").unwrap();
    running.wait().code(130);
    assert_eq!(project.order(), ["restored"]);
}

fn a_signal_ends_a_script_of_a_set_up() {
    let project = Project::new();
    let hang = format!("echo $$ >{0}.new; mv {0}.new {0}; sleep 1000", project.path("pid").display());
    project.file("suites/set/1.sh", hang).file("suites/set/2.sh", "exit 0");
    let running = project.start(&[]);
    project.wait_for("pid");
    running.signal(Signal::SIGTERM);
    running.wait().code(143);
    assert!(!is_alive(project.pid("pid")));
    assert_eq!(project.summary()["interrupted"], true);
    project.record("set/2").assert_fail("not run");
}

fn a_signal_ends_a_build() {
    let project = Project::with("product: {name: tool, build: cargo}\n");
    let hang = format!("#!/bin/bash\necho $$ >{0}.new; mv {0}.new {0}; sleep 1000\n", project.path("pid").display());
    project.program("bin/cargo", &hang);
    project.suite("10-a", &[("execute", "echo never >>order")]);
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    let project = project.variable("PATH", path);
    let running = project.start(&[]);
    project.wait_for("pid");
    running.signal(Signal::SIGINT);
    running.wait().code(130);
    assert!(!is_alive(project.pid("pid")));
    assert!(project.order().is_empty() && project.tree("tmp").is_empty());
    assert_eq!(project.summary()["interrupted"], true);
}

/// As in `cargo test | head`.
fn a_reader_that_goes_away_does_not_keep_restore_from_running() {
    let wrapper = ["bash", "-c", "\"$@\" > >(head -n 3 >/dev/null); echo $? >code", "bash"];
    let project = Project::new().wrapped(&wrapper);
    for name in ["10-a", "20-b", "30-c"] {
        project.suite(
            name,
            &[("prepare", "echo prepare >>order"), ("execute", "false"), ("restore", "echo restore >>order")],
        );
    }
    project.run(&[]);
    let count = |word: &str| project.order().iter().filter(|other| *other == word).count();
    assert_eq!(count("prepare"), count("restore"));
    assert_eq!(project.text("code").trim(), "3");
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
    assert!(project.summary()["finished_at"].is_string());
}

fn without_standard_streams_suites_run() {
    let project = Project::new().wrapped(&["bash", "-c", "exec \"$@\" <&- >&- 2>&-", "bash"]);
    project.suite("10-a", &[("execute", "echo said; echo ran >>order")]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["ran"]);
    assert_eq!(project.text("proof/logs/10-a/execute.stdout.log"), "said\n");
}

/// As services start programs, and `nohup`.
fn ignored_signals_of_the_caller_do_no_harm() {
    let perl = "$SIG{$_} = 'IGNORE' for qw(CHLD HUP PIPE TERM INT QUIT); exec @ARGV";
    let project = Project::new().wrapped(&["perl", "-e", perl]);
    project.suite(
        "10-a",
        &[
            ("execute", "rc=0; (exit 7) || rc=$?; [[ $rc == 7 ]]; yes | head -n 1; kill -TERM $$"),
            ("restore", "echo restore >>order"),
        ],
    );
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["restore"]);
    project.record("10-a").assert_fail("execute");
    let rc = project.record("10-a").rc();
    // yes ends by SIGPIPE, and pipefail tells.
    assert_eq!(rc, Some(141), "{:#}", project.record("10-a").0);
}

/// Kills the harness while its first suite runs.
fn killed(user: User) -> Project {
    let project = endless(user);
    let running = project.start(&[]);
    project.wait_for("block");
    running.signal(Signal::SIGKILL);
    assert!(running.wait().status.code().is_none());
    project
}

fn nothing_outlives_a_killed_harness(user: User) {
    let project = killed(user);
    for name in ["block", "daemon"] {
        let pid = project.pid(name);
        until(&format!("{name} to end"), || !is_alive(pid));
    }
}

fn a_killed_harness_leaves_a_whole_summary(user: User) {
    let project = killed(user);
    assert_eq!(project.record("10-a").status(), "running");
    assert!(project.summary()["finished_at"].is_null());
}

fn the_next_run_reports_and_removes_what_a_killed_one_left(user: User) {
    let project = killed(user);
    assert!(!project.tree("tmp").is_empty(), "the killed run had no scratch folder");
    project.suite("10-a", &[("execute", "true")]);
    let ended = project.run(&["10-a"]);
    ended.code(0).stderr_says("10-a");
    let summary = project.summary().to_string();
    assert!(summary.contains("interrupted"), "{summary}");
    assert_eq!(project.summary()["traces"]["interrupted"][0], "10-a");
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
    for name in ["block", "daemon"] {
        assert!(!is_alive(project.pid(name)), "{name} is alive");
    }
}

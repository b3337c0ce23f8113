//! Which block runs after which: every block appends a word to a file.

use libtest_mimic::Trial;

use crate::world::{Project, User, both, claim};

pub(crate) fn claims() -> Vec<Trial> {
    let mut claims = vec![
        claim(suites_run_byte_wise_by_name),
        claim(a_failing_debug_block_is_only_logged),
        claim(debug_does_not_run_after_success),
        claim(debug_runs_after_an_unexpected_pass),
        claim(restore_runs_when_execute_cannot_be_understood),
    ];
    claims.extend(both(blocks_run_in_their_order));
    claims.extend(both(restore_runs_after_a_failing_prepare));
    claims.extend(both(restore_runs_after_a_failing_execute));
    claims.extend(both(restore_runs_after_a_timeout));
    claims.extend(both(restore_runs_after_a_timeout_of_prepare));
    claims.extend(both(restore_runs_after_death_by_a_signal));
    claims.extend(both(restore_runs_when_the_block_kills_what_watches_it));
    claims
}

/// A suite each of whose blocks says its name first.
fn telling(project: &Project, name: &str, prepare: &str, execute: &str, more: &[(&str, &str)]) {
    let blocks = [("prepare", prepare), ("execute", execute), ("debug", "true"), ("restore", "true")];
    let blocks = blocks.map(|(block, text)| (block, format!("echo {block} >>order\n{text}")));
    let keys: Vec<_> = blocks.iter().map(|(block, text)| (*block, text.as_str())).chain(more.iter().copied()).collect();
    project.suite(name, &keys);
}

fn suites_run_byte_wise_by_name() {
    let project = Project::new();
    for name in ["9-z", "10-a", "B", "a", "sudo/10-basic", "sudo-x"] {
        project.suite(name, &[("execute", "echo $SUITE_NAME >>order")]);
    }
    let ended = project.run(&[]);
    ended.code(0);
    let expected = ["10-a", "9-z", "B", "a", "sudo-x", "sudo/10-basic"];
    assert_eq!(project.order(), expected);
    assert_eq!(ended.names(), expected);
}

fn blocks_run_in_their_order(user: User) {
    let project = Project::new().of(user);
    telling(&project, "10-a", "true", "true", &[]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["prepare", "execute", "restore"]);
}

fn restore_runs_after_a_failing_prepare(user: User) {
    let project = Project::new().of(user);
    telling(&project, "10-a", "exit 3", "true", &[]);
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["prepare", "debug", "restore"]);
    let record = project.record("10-a");
    record.assert_fail("prepare exited with code 3");
    assert_eq!(record.rc(), None);
}

fn restore_runs_after_a_failing_execute(user: User) {
    let project = Project::new().of(user);
    telling(&project, "10-a", "true", "exit 4", &[]);
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["prepare", "execute", "debug", "restore"]);
    assert_eq!(project.record("10-a").assert_fail("4").rc(), Some(4));
}

fn restore_runs_after_a_timeout(user: User) {
    let project = Project::new().of(user);
    telling(&project, "10-a", "true", "exec sleep 1000", &[("kill-timeout", "1s")]);
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["prepare", "execute", "debug", "restore"]);
    let record = project.record("10-a");
    record.assert_fail("limit of 1s");
    assert_eq!(record.0["timed_out"], true);
}

fn restore_runs_after_a_timeout_of_prepare(user: User) {
    let project = Project::new().of(user);
    telling(&project, "10-a", "trap '' TERM; sleep 1000", "true", &[("kill-timeout", "1s")]);
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["prepare", "debug", "restore"]);
    project.record("10-a").assert_fail("prepare");
}

fn restore_runs_after_death_by_a_signal(user: User) {
    let project = Project::new().of(user);
    telling(&project, "10-a", "true", "kill -SEGV $$", &[]);
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["prepare", "execute", "debug", "restore"]);
    let record = project.record("10-a");
    record.assert_fail("SIGSEGV");
    assert_eq!((record.rc(), record.0["signal"].as_str()), (Some(139), Some("SIGSEGV")));
}

fn restore_runs_when_the_block_kills_what_watches_it(user: User) {
    let project = Project::new().of(user);
    telling(&project, "10-a", "true", "kill -9 $PPID\nexec sleep 1000", &[("kill-timeout", "5s")]);
    telling(&project, "20-b", "true", "true", &[]);
    project.run(&[]).code(101);
    let expected = ["prepare", "execute", "debug", "restore", "prepare", "execute", "restore"];
    assert_eq!(project.order(), expected);
    project.record("10-a").assert_fail("");
    project.record("20-b").assert_pass();
}

fn a_failing_debug_block_is_only_logged() {
    let project = Project::new();
    let debug = "echo seen; exit 9";
    project.suite("10-a", &[("execute", "false"), ("debug", debug), ("restore", "echo restore >>order")]);
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["restore"]);
    assert_eq!(project.text("proof/logs/10-a/debug.stdout.log"), "seen\n");
    let record = project.record("10-a");
    assert!(!record.findings().contains("debug"), "{}", record.findings());
}

fn debug_does_not_run_after_success() {
    let project = Project::new();
    for (name, expect, execute) in [("10-a", "pass", "true"), ("20-b", "fail", "false"), ("30-c", "xfail", "false")] {
        project.suite(name, &[("expect", expect), ("execute", execute), ("debug", "echo debug >>order")]);
    }
    project.run(&[]).code(0);
    assert!(project.order().is_empty());
}

fn debug_runs_after_an_unexpected_pass() {
    let project = Project::new();
    project.suite("10-a", &[("expect", "fail"), ("execute", "true"), ("debug", "echo debug >>order")]);
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["debug"]);
}

fn restore_runs_when_execute_cannot_be_understood() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "if then fi ("), ("restore", "echo restore >>order")]);
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["restore"]);
    project.record("10-a").assert_fail("execute exited with code 2");
}

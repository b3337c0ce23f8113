//! Tests that nextest starts again, ends, or has to leave to themselves.

use std::fs;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::world::{Project, daemon, is_alive, until};
use crate::{FAILED, claim, nothing_is_left, project, run, start, telling, told};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(a_retry_is_told_from_a_pass_at_once),
        claim(after_nextests_timeout_restore_runs_to_its_end_before_the_next_test),
        claim(after_ctrl_c_restore_runs_to_its_end_and_nothing_is_left),
    ]
}

fn a_retry_is_told_from_a_pass_at_once() {
    let project = project();
    project.suite("10-flaky", &[("execute", "[[ -e again ]] || { touch again; exit 1; }")]);
    project.suite("20-steady", &[("execute", "true")]);
    project.suite("30-broken", &[("execute", "false")]);
    run(&project, &["--retries", "2"]).code(FAILED).says("1 flaky").says("1 failed");
    for (name, attempt, status) in [("10-flaky", 2, "pass"), ("20-steady", 1, "pass"), ("30-broken", 3, "fail")] {
        let record = project.record(name);
        assert_eq!((record.0["attempt"].as_u64(), record.status()), (Some(attempt), status), "{:#}", record.0);
        assert_eq!(project.result(name).0["attempt"], attempt);
    }
}

/// A suite that runs until it is ended, with a daemon, and whose restore takes as long as the claim wants; and others.
fn endless(period: &str) -> Project {
    let project = project();
    let execute = format!(
        "echo start $SUITE_NAME >>order\n{}\necho $$ >block.new; mv block.new block\nsleep 1000",
        daemon("daemon")
    );
    let restore = "mkfifo go; echo x >restoring; read -r word <go; echo $word $SUITE_NAME >>order";
    project.suite("10-hang", &[("execute", &execute), ("restore", restore)]);
    OTHERS.iter().for_each(|name| telling(&project, name));
    let settings = format!(
        "[[profile.default.overrides]]\nfilter = 'test(=10-hang)'\n\
         slow-timeout = {{ period = \"{period}\", terminate-after = 1, grace-period = \"100s\" }}\n"
    );
    project.file("nextest.toml", settings);
    project
}

const OTHERS: [&str; 9] = ["20-b", "21-c", "22-d", "23-e", "24-f", "25-g", "26-h", "27-i", "28-j"];
/// The others wait for the lock of the one that hangs, or have run before it.
const ARGUMENTS: [&str; 5] = ["--no-fail-fast", "--config-file", "nextest.toml", "--test-threads", "4"];

/// Waits until all that the block has started has ended; its restore still runs then.
fn the_block_has_ended(project: &Project) {
    project.wait_for("restoring");
    for pid in ["block", "daemon"] {
        let pid = project.pid(pid);
        until("what a block started to end", || !is_alive(pid));
    }
    let told = told(project);
    assert_eq!(told.last().unwrap().1, "10-hang", "{told:?}");
}

/// The suite has been restored, and nothing of it or of the run is left.
fn is_restored(project: &Project) {
    let told = told(project);
    let hung: Vec<_> = told.iter().filter(|(_, name)| name == "10-hang").map(|(what, _)| what.as_str()).collect();
    assert_eq!(hung, ["start", "restored"]);
    project.record("10-hang").assert_fail("interrupted");
    assert_eq!(project.record("10-hang").0["restore_rc"], 0);
    assert_eq!(project.summary()["interrupted"], true);
    nothing_is_left(project);
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
}

fn after_nextests_timeout_restore_runs_to_its_end_before_the_next_test() {
    let project = endless("1s");
    let running = start(&project, "run", &ARGUMENTS);
    the_block_has_ended(&project);
    fs::write(project.path("go"), "restored\n").unwrap();
    let ended = running.wait();
    ended.code(FAILED).says("9 passed").says("1 timed out");
    is_restored(&project);
    for name in OTHERS {
        project.record(name).assert_pass();
    }
}

fn after_ctrl_c_restore_runs_to_its_end_and_nothing_is_left() {
    let project = endless("1000s");
    let running = start(&project, "run", &ARGUMENTS);
    project.wait_for("block");
    running.signal(Signal::SIGINT);
    the_block_has_ended(&project);
    let before = told(&project).len();
    fs::write(project.path("go"), "restored\n").unwrap();
    running.wait().code(FAILED).says("Cancelling due to interrupt");
    is_restored(&project);
    assert_eq!(told(&project).len(), before + 1, "a suite was started after the signal");
}

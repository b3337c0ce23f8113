//! The sandbox of a worker with the same environment: its limits, and what its scripts see.

use serde_json::json;

use super::world::Project;
use super::{Lab, PLAIN, RUNNER, can_be_sandboxed, is_ci};

const SANDBOXED: super::Way = super::Way { flags: &["--sandbox"], ..PLAIN };

fn with(lab: Lab, name: &str, value: &str) -> Lab {
    Lab { project: lab.project.variable(name, value), ..lab }
}

fn is_tried() -> bool {
    assert!(!is_ci() || can_be_sandboxed(), "CI must be able to make a sandbox");
    can_be_sandboxed()
}

#[test]
fn scripts_may_use_what_a_workers_may() {
    // Each fails beyond the limit that is set, and passes within the usual one.
    let table = [
        ("RUNNER_SANDBOX_DISK_MB", "2", "head -c 4000000 /dev/zero >zeros"),
        ("RUNNER_SANDBOX_FILES", "20", "i=0; while [ $i -lt 100 ]; do : >f$i || exit 1; i=$((i + 1)); done"),
        ("RUNNER_SANDBOX_OPEN_FILES", "16", "[ \"$(ulimit -n)\" -gt 16 ]"),
        ("RUNNER_SANDBOX_PROCESSES", "4", "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 & done; wait"),
        ("RUNNER_SANDBOX_MEMORY_MB", "40", "x=$(head -c 60000000 /dev/zero | tr '\\0' x) && [ ${#x} = 60000000 ]"),
    ];
    if !is_tried() {
        return;
    }
    for (name, value, script) in table {
        let lab = Lab::with(SANDBOXED, &[("a.sh", script, json!({}))]);
        assert_eq!(lab.json(0, &["week1"])["passCount"], 1, "{name}: usual");
        let lab = with(lab, name, value);
        assert_eq!(lab.json(0, &["week1"])["passCount"], 0, "{name}={value}");
    }
}

#[test]
fn scripts_see_what_a_workers_do() {
    if !is_tried() {
        return;
    }
    let lab = Lab::with(SANDBOXED, &[("a.sh", "ls -A /var/lib | grep -q . && ! touch /var/lib/x", json!({}))]);
    assert_eq!(lab.json(0, &["week1"])["passCount"], 0);
    let lab = with(lab, "RUNNER_SANDBOX_SHOWS", ":/var/lib:");
    assert_eq!(lab.json(0, &["week1"])["passCount"], 1);
}

#[test]
fn what_a_worker_would_not_start_with_is_refused_before_anything_runs() {
    let project = Project::bare().by(RUNNER).variable("RUNNER_SANDBOX_MEMORY_MB", "2G");
    let ran = project.path("ran").display().to_string();
    project.file("week1/a.sh", format!("echo x >{ran}"));
    let ended = project.run(&["grade", "--sandbox", "--json", "week1"]);
    ended.code(2).stderr_says("error: `RUNNER_SANDBOX_MEMORY_MB` is `2G`, but it must be a whole number from 4 to ");
    assert!(ended.stdout.is_empty() && !project.path("ran").exists(), "{ended}");
    project.run(&["grade", "week1"]).code(0).says("1 of 1 passed");
    if !is_tried() {
        return;
    }
    for (shows, text) in
        [("/no/such/folder", "`/no/such/folder`, which is not there"), ("/usr:/tmp/x", "without `/tmp/x`: ")]
    {
        let project = Project::bare().by(RUNNER).variable("RUNNER_SANDBOX_SHOWS", shows);
        project.file("week1/a.sh", "exit 0");
        project.run(&["grade", "--sandbox", "week1"]).code(2).stderr_says(text);
    }
}

#[test]
fn where_the_sandbox_may_hide_a_program_is_told_when_one_was_not_found() {
    if !is_tried() {
        return;
    }
    let lab = Lab::with(SANDBOXED, &[("a.sh", "no-such-tool", json!({})), ("b.sh", "exit 0", json!({}))]);
    let lab = with(lab, "PATH", "/usr/bin:/var/lib:/bin:/var/lib:/no/such/folder");
    let note = "note: scripts in the sandbox do not see these folders of PATH: `/var/lib`; if they need what is there, name it in \
                RUNNER_SANDBOX_SHOWS\n";
    assert_eq!(lab.grade(&["week1"]).code(0).says("1 of 2 passed").stderr, note);
    let plain = Lab { way: PLAIN, project: lab.project };
    assert_eq!(plain.grade(&["week1"]).code(0).says("1 of 2 passed").stderr, "");
    let lab = with(Lab { way: SANDBOXED, ..plain }, "RUNNER_SANDBOX_SHOWS", "/var/lib");
    assert_eq!(lab.grade(&["week1"]).code(0).says("1 of 2 passed").stderr, "");
    lab.file("week1/a.sh", "exit 1");
    let lab = with(lab, "RUNNER_SANDBOX_SHOWS", "");
    assert_eq!(lab.grade(&["week1"]).code(0).says("1 of 2 passed").stderr, "", "it lacked none");
}

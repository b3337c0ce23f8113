//! Scripts of set-ups in the sandbox. What the walls hold back: `tests/sandbox`; here, that a run has them.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::{Project, User, is_alive, sandbox_claims, until};

pub(crate) fn claims() -> Vec<Trial> {
    [
        sandbox_claims(a_script_cannot_change_anything_but_its_copy),
        sandbox_claims(what_make_has_made_is_there_for_each_script_and_stays_as_it_was),
        sandbox_claims(make_is_in_the_sandbox_too),
        sandbox_claims(files_with_holes_do_not_fill_the_disk),
        sandbox_claims(suites_beside_are_not_in_the_sandbox),
        sandbox_claims(the_summary_says_that_scripts_were_in_the_sandbox),
        sandbox_claims(limits_of_the_project_hold),
        sandbox_claims(what_the_project_shows_can_be_read),
        sandbox_claims(scripts_under_nextest_are_in_the_sandbox),
        sandbox_claims(an_interrupt_ends_a_sandboxed_script),
        sandbox_claims(nothing_outlives_a_killed_harness),
        sandbox_claims(what_cannot_be_had_is_said_before_anything_runs),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn manifest(scripts: &[&str], make: &Value) -> Value {
    let entries: Vec<_> = scripts.iter().map(|script| json!({"script": script})).collect();
    json!({"schemaVersion": 1, "testSuites": entries, "timeLimitSeconds": 20, "makefile": make})
}

fn a_script_cannot_change_anything_but_its_copy(user: User) {
    let project = Project::new().of(user);
    let outside = project.path("").display().to_string();
    project.file("secret", "hush");
    let text = format!("echo x >{outside}/order; cat {outside}/secret; echo x >/usr/x; echo own >file && cat file");
    project.setup("set", &manifest(&["1.sh", "2.sh"], &Value::Null), &[("1.sh", &text), ("2.sh", "[ ! -e file ]")]);
    project.run(&[]).code(0);
    assert_eq!(project.text("proof/logs/set/1/execute.stdout.log"), "own\n");
    assert!(project.order().is_empty());
}

fn what_make_has_made_is_there_for_each_script_and_stays_as_it_was(user: User) {
    let project = Project::new().of(user);
    let makefile = "all:\n\techo made >built\n\tchmod 755 built\n\trm gone\n\tmkdir -p a/b\n\tln -s ../built a/link\n";
    let look =
        "[ ! -e gone ] && [ -x built ] && [ \"$(cat a/link)\" = made ] && [ -d a/b ] && rm -rf a built && echo x >gone";
    let files = [("Makefile", makefile), ("gone", "x"), ("1.sh", look), ("2.sh", look)];
    project.setup("set", &manifest(&["1.sh", "2.sh"], &json!({})), &files);
    project.run(&[]).code(0);
}

fn make_is_in_the_sandbox_too(user: User) {
    let project = Project::new().of(user);
    let makefile = format!("all:\n\techo made >built\n\t-echo x >{}\n", project.path("order").display());
    project.setup("set", &manifest(&["1.sh"], &json!({})), &[("Makefile", &makefile), ("1.sh", "cat built")]);
    project.run(&[]).code(0);
    assert!(project.order().is_empty());
}

fn files_with_holes_do_not_fill_the_disk(user: User) {
    let project = Project::with("sandbox-limits: {disk: 1MiB}\n").of(user);
    let makefile = "all:\n\tfor n in 1 2 3 4 5 6 7 8 9; do truncate -s 1048576 hole$$n; done\n";
    project.setup("set", &manifest(&["1.sh"], &json!({})), &[("Makefile", makefile), ("1.sh", "exit 0")]);
    project.run(&[]).code(101);
    let result = project.result("set/1");
    result
        .assert_fail("make step failed")
        .assert_fail("of `sandbox-limits.disk` (of a worker RUNNER_SANDBOX_DISK_MB); make less");
}

fn suites_beside_are_not_in_the_sandbox(user: User) {
    let project = Project::new().of(user);
    project.suite("10-a", &[("execute", "echo ran >>order")]).file("suites/set/1.sh", "exit 0");
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["ran"]);
}

fn the_summary_says_that_scripts_were_in_the_sandbox(user: User) {
    let project = Project::new().of(user);
    project.file("suites/set/1.sh", "true & wait; exit 0");
    project.run(&[]).code(0);
    assert_eq!(project.summary()["sandbox"], true);
    let record = project.result("set/1");
    assert_eq!(record.0["ended_by"], "itself");
    assert_eq!(record.0["usage"]["processes"], 2, "{:#}", record.0);
}

fn limits_of_the_project_hold(user: User) {
    let limits = "sandbox-limits: {disk: 1MiB, files: 50, open-files: 33, processes: 20, memory: 200MB}\n";
    let project = Project::with(limits).of(user);
    let table = [
        ("disk", "head -c 2000000 /dev/zero >big && exit 1; [ $(wc -c <big) -le 1048576 ]"),
        ("disks", "for n in 1 2 3 4 5 6; do head -c 250000 /dev/zero >$TMPDIR/$n || exit 0; done; exit 1"),
        ("files", "for n in $(seq 100); do touch f$n || exit 0; done; exit 1"),
        ("open", "[ $(ulimit -n) = 33 ]"),
        ("many", "for n in $(seq 40); do sleep 100 & done; exit 1"),
        ("memory", "python3 -c 'x = bytearray(400 << 20)'; [ $? != 0 ]"),
        ("fits", "python3 -c 'x = bytearray(20 << 20)'"),
    ];
    let names = table.map(|(name, _)| format!("{name}.sh"));
    project.setup("set", &manifest(&names.each_ref().map(String::as_str), &Value::Null), &[]);
    for (name, text) in table {
        project.file(format!("suites/set/{name}.sh"), text);
    }
    project.run(&[]).code(101);
    for (name, _) in table {
        let record = project.result(&format!("set/{name}"));
        // The shell itself ends with an error when it cannot fork.
        assert_eq!(record.status() == "pass", name != "many", "{name}: {:#}", record.0);
    }
    assert_ne!(project.result("set/many").rc(), Some(1));
}

fn what_the_project_shows_can_be_read(user: User) {
    let project = Project::new().of(user);
    project.file("suites/set/1.sh", "[ ! -e /var/lib ]");
    project.run(&[]).code(0);
    let project = Project::with("sandbox-shows: [/var/lib]\n").of(user);
    project.file("suites/set/1.sh", "ls -A /var/lib | grep -q . && ! touch /var/lib/x && [ ! -e /var/log ]");
    project.run(&[]).code(0);
    // Links of every Linux: to a folder, to one above it, and to one that is shown anyway.
    let project = Project::with("sandbox-shows: [/var/lock, /var/run/lock, /bin/sh]\n").of(user);
    project.file(
        "suites/set/1.sh",
        "[ -d /var/lock/. ] && [ -d /var/run/lock/. ] && [ -x /bin/sh ] && ! touch /var/lock/x",
    );
    project.run(&[]).code(0);
}

fn scripts_under_nextest_are_in_the_sandbox(user: User) {
    let project = Project::new().of(user).variable("NEXTEST", "1").variable("NEXTEST_RUN_ID", "some-run");
    let text = "while read -r name value; do [ $name = NoNewPrivs: ] && exit $((1 - value)); done </proc/self/status";
    project.file("suites/set/1.sh", text).file("suites/set/2.sh", text);
    for name in ["set/1", "set/2"] {
        project.run(&["--exact", name, "--nocapture"]).code(0);
    }
    assert_eq!(project.summary()["counts"]["pass"], 2);
}

/// A script that runs until it is ended, and its processes, as the machine numbers them.
fn endless(user: User) -> (Project, &'static str) {
    let project = Project::new().of(user);
    project.file("suites/set/1.sh", "sleep 987654 & echo started; sleep 987654");
    (project, "sleep\0987654\0")
}

fn processes_with(command_line: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text == command_line))
        .collect()
}

fn an_interrupt_ends_a_sandboxed_script(user: User) {
    let (project, _) = endless(user);
    let running = project.start(&[]);
    project.wait_for("proof/logs/set/1/execute.stdout.log");
    running.signal(Signal::SIGINT);
    running.wait().code(130);
    project.result("set/1").assert_fail("interrupted");
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
}

fn nothing_outlives_a_killed_harness(user: User) {
    let (project, command_line) = endless(user);
    let before = processes_with(command_line);
    let running = project.start(&[]);
    project.wait_for("proof/logs/set/1/execute.stdout.log");
    let mut started = Vec::new();
    until("both processes of the script", || {
        started = processes_with(command_line).into_iter().filter(|pid| !before.contains(pid)).collect();
        started.len() >= 2
    });
    running.signal(Signal::SIGKILL);
    running.wait();
    until("the end of the script", || !started.iter().any(|pid| is_alive(*pid)));
}

fn what_cannot_be_had_is_said_before_anything_runs(user: User) {
    let project = Project::with("sandbox-shows: [/nowhere]\n").of(user);
    project.suite("10-a", &[("execute", "echo ran >>order")]).file("suites/set/1.sh", "exit 0");
    project.run(&[]).code(2).stderr_says("`/nowhere`, which is not there");
    assert!(project.order().is_empty());
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
}

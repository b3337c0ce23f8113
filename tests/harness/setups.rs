//! Scripts of Chickadee set-ups as trials.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{Project, User, also_in_the_sandbox, both, claim, daemon, is_alive, root_claim, until};

pub(crate) fn claims() -> Vec<Trial> {
    let mut claims = vec![
        claim(a_prerequisite_that_did_not_pass_skips),
        claim(a_prerequisite_that_was_not_selected_runs_first),
        claim(make_runs_once_before_the_first_script),
        claim(a_make_step_that_hangs_fails_every_script),
        claim(a_pipe_in_a_set_up_is_the_set_ups_failure),
        claim(scripts_run_in_the_order_of_the_manifest),
        claim(a_folder_of_scripts_is_a_set_up_in_byte_order),
        claim(a_nested_set_up_is_named_by_its_path),
        claim(unknown_keys_are_ignored),
        claim(a_script_outside_of_its_set_up_is_refused),
        claim(a_pipe_in_a_set_up_does_not_hang),
        claim(a_cycle_of_prerequisites_fails),
        claim(a_prerequisite_that_is_no_script_is_told),
        claim(a_script_that_hangs_is_named_and_those_before_it_are_on_record),
        claim(a_failure_that_is_recorded_late_still_stops_a_run_that_fails_fast),
    ];
    claims.extend(also_in_the_sandbox(the_short_result_is_the_last_line));
    claims.extend(also_in_the_sandbox(the_long_result_is_stderr));
    claims.extend(also_in_the_sandbox(bytes_that_are_no_text_are_replaced));
    claims.extend(also_in_the_sandbox(a_make_step_that_fails_fails_every_script));
    claims.extend(also_in_the_sandbox(a_make_target_is_passed_on));
    claims.extend(also_in_the_sandbox(a_pipe_that_make_leaves_is_its_failure));
    claims.extend(also_in_the_sandbox(a_script_sees_nothing_of_another));
    claims.extend(also_in_the_sandbox(a_set_up_is_not_changed));
    claims.extend(also_in_the_sandbox(a_missing_script_is_a_failed_trial));
    claims.extend(also_in_the_sandbox(a_script_is_given_four_variables));
    claims.extend(also_in_the_sandbox(a_script_has_no_input_and_two_outputs));
    claims.extend(also_in_the_sandbox(a_script_runs_in_its_copy));
    claims.extend(also_in_the_sandbox(without_a_limit_a_script_has_one));
    claims.extend(also_in_the_sandbox(three_hundred_scripts_are_three_hundred_trials));
    claims.extend(also_in_the_sandbox(what_a_set_up_holds_arrives_as_it_is));
    claims.extend(also_in_the_sandbox(a_script_that_removes_its_folder_is_judged_as_usual));
    claims.extend(also_in_the_sandbox(a_skipped_script_skips_those_that_need_it));
    claims.extend(both(the_exit_code_is_the_status));
    claims.extend(both(nothing_outlives_a_script));
    claims.push(root_claim(a_script_that_kills_whatever_it_may_is_judged_as_usual));
    claims
}

fn manifest(entries: &Value) -> Value {
    json!({"schemaVersion": 1, "testSuites": entries, "timeLimitSeconds": 20})
}

/// A set-up of scripts without anything else.
fn scripts(scripts: &[(&str, &str)]) -> Project {
    let project = Project::new();
    let entries: Vec<_> =
        scripts.iter().map(|(name, _)| json!({"script": format!("{name}.sh"), "tier": "public"})).collect();
    project.setup("set", &manifest(&json!(entries)), &[]);
    for (name, text) in scripts {
        project.file(format!("suites/set/{name}.sh"), text);
    }
    project
}

fn outcome(project: &Project, name: &str) -> Value {
    let record = project.result(name);
    assert!(record.0["outcome"].is_object(), "{:#}", record.0);
    record.0["outcome"].clone()
}

fn the_exit_code_is_the_status(user: User) {
    let table = [
        ("zero", "exit 0", "pass", ""),
        ("one", "exit 1", "fail", ""),
        ("two", "exit 2", "error", "2"),
        ("three", "exit 3", "error", "3"),
        ("over", "exit 139", "error", "139"),
        ("wraps", "exit 256", "pass", ""),
        ("signal", "kill -SEGV $$", "error", "SIGSEGV"),
        ("killed", "kill -KILL $$", "error", "SIGKILL"),
        ("missing", "no-such-command", "error", "127"),
        ("syntax", "if (", "error", "2"),
    ];
    let slow =
        [("limit", "sleep 1000", "timeout"), ("trapped", "trap 'exit 0' TERM; while :; do sleep 0.1; done", "timeout")];
    let project = scripts(&table.map(|(name, text, _, _)| (name, text))).of(user);
    let entries = json!(slow.map(|(name, _, _)| json!({"script": format!("{name}.sh")})));
    let manifest = json!({"schemaVersion": 1, "testSuites": entries, "timeLimitSeconds": 1});
    let files = slow.map(|(name, text, _)| (format!("{name}.sh"), text));
    project.setup("slow", &manifest, &files.each_ref().map(|(name, text)| (name.as_str(), *text)));
    project.run(&[]).code(101);
    for (name, text, status, said) in table {
        let record = project.result(&format!("set/{name}"));
        assert_eq!(record.0["outcome"]["status"], status, "{text}: {:#}", record.0);
        assert_eq!(record.status() == "pass", status == "pass", "{text}");
        assert!(record.0.to_string().contains(said), "`{said}` is not in {:#}", record.0);
    }
    for (name, text, status) in slow {
        assert_eq!(outcome(&project, &format!("slow/{name}"))["status"], status, "{text}");
        assert_eq!(project.result(&format!("slow/{name}")).0["timed_out"], true);
    }
}

fn the_short_result_is_the_last_line() {
    let long = format!("printf '%s\\n' '{}'", "x".repeat(5000));
    let deep = format!("printf '%s\\n' '{}1{}'", "{\"a\":".repeat(400), "}".repeat(400));
    let deep_line = format!("{}1{}", "{\"a\":".repeat(400), "}".repeat(400));
    let table: [(&str, &str, &str); 17] = [
        ("silent", "exit 0", "passed"),
        ("silent-fail", "exit 1", "failed"),
        ("silent-error", "exit 3", "error"),
        ("blank", "printf '\\n  \\n\\t\\n'; exit 1", "failed"),
        ("line", "echo first; echo last; echo; echo '  '", "last"),
        ("fail-line", "echo 'expected 3'; exit 1", "expected 3"),
        ("footer", "echo x; echo '{\"shortResult\": \"two of three\"}'", "two of three"),
        ("no-line-end", "printf '{\"shortResult\":\"x\"}'", "x"),
        ("footer-of-a-failure", "echo '{\"shortResult\": \"1/2\", \"score\": 0.5}'; exit 1", "1/2"),
        ("no-text", "echo '{\"shortResult\": 42}'", "passed"),
        ("no-key", "echo '{\"score\": 1}'; exit 1", "failed"),
        ("list", "echo '[1]'", "[1]"),
        ("number", "echo 42", "42"),
        ("broken", "echo '{\"shortResult\": \"x\"'", "{\"shortResult\": \"x\""),
        ("crlf", "printf 'a line\\r\\n'", "a line"),
        ("raw-tab", "printf '{\"shortResult\": \"a\\tb\"}\\n'", "{\"shortResult\": \"a\tb\"}"),
        ("footer-is-not-last", "echo '{\"shortResult\": \"x\"}'; echo later", "later"),
    ];
    let mut all: Vec<_> = table.iter().map(|(name, text, _)| (*name, *text)).collect();
    all.extend([("long", long.as_str()), ("deep", deep.as_str())]);
    let project = scripts(&all);
    project.run(&[]).code(101);
    for (name, text, expected) in table {
        assert_eq!(outcome(&project, &format!("set/{name}"))["shortResult"], expected, "{text}");
    }
    let short = |name: &str| outcome(&project, name)["shortResult"].as_str().unwrap().to_owned();
    let long = short("set/long");
    assert!(long.starts_with("xxx") && long.len() <= 1024, "{}", long.len());
    let deep = short("set/deep");
    assert!(deep.len() <= 1024 && deep_line.starts_with(&deep[..500]), "{deep}");
}

fn the_long_result_is_stderr() {
    let project = scripts(&[("some", "echo one >&2; printf two >&2; exit 1"), ("none", "echo out")]);
    project.run(&[]).code(101);
    assert_eq!(outcome(&project, "set/some")["longResult"], "one\ntwo");
    assert!(outcome(&project, "set/none").get("longResult").is_none());
}

fn bytes_that_are_no_text_are_replaced() {
    let project = scripts(&[("1", "printf 'a\\377b\\000c\\n'; printf '\\376x\\000' >&2; exit 1")]);
    project.run(&[]).code(101);
    let outcome = outcome(&project, "set/1");
    let short = outcome["shortResult"].as_str().unwrap();
    assert!(short.starts_with("a\u{fffd}b") && short.ends_with('c') && !short.contains('\0'), "{outcome}");
    let long = outcome["longResult"].as_str().unwrap();
    assert!(long.contains("\u{fffd}x") && !long.contains('\0'), "{outcome}");
    assert_eq!(fs::read(project.path("proof/logs/set/1/execute.stdout.log")).unwrap(), b"a\xffb\0c\n");
}

/// Scripts that write their names into `order`, and depend on each other.
fn depending(first: &str) -> Project {
    let project = Project::new();
    let order = project.path("order").display().to_string();
    let entries = json!([
        {"script": "build.sh", "name": "It builds"},
        {"script": "run.sh", "dependsOn": ["build.sh"]},
        {"script": "speed.sh", "dependsOn": ["run.sh"]},
        {"script": "free.sh"},
    ]);
    project.setup("set", &manifest(&entries), &[]);
    for name in ["build", "run", "speed", "free"] {
        let end = if name == "build" { first } else { "exit 0" };
        project.file(format!("suites/set/{name}.sh"), format!("echo {name} >>{order}\n{end}\n"));
    }
    project
}

fn a_prerequisite_that_did_not_pass_skips() {
    for first in ["exit 1", "exit 2", "kill -TERM $$"] {
        let project = depending(first);
        project.run(&[]).code(101);
        assert_eq!(project.order(), ["build", "free"]);
        let outcome = outcome(&project, "set/run");
        assert_eq!(outcome["status"], "fail");
        assert_eq!(outcome["shortResult"], "Skipped: prerequisite 'build.sh' did not pass");
        assert_eq!(outcome["executionTimeMs"], 0);
        assert!(project.result("set/run").rc().is_none());
    }
}

fn a_skipped_script_skips_those_that_need_it() {
    let project = depending("exit 1");
    project.run(&[]).code(101);
    assert_eq!(outcome(&project, "set/speed")["shortResult"], "Skipped: prerequisite 'run.sh' did not pass");
}

fn a_prerequisite_that_was_not_selected_runs_first() {
    let project = depending("exit 0");
    let ended = project.run(&["--exact", "set/speed"]);
    ended.code(0);
    assert_eq!(project.order(), ["build", "run", "speed"]);
    assert_eq!(ended.names(), ["set/speed"]);
    let project = depending("exit 1");
    project.run(&["--exact", "set/speed"]).code(101);
    assert_eq!(project.order(), ["build"]);
}

fn made(makefile: &str, make: &Value, limit_s: u32) -> Project {
    let project = Project::new();
    let manifest = json!({
        "schemaVersion": 1,
        "makefile": make,
        "timeLimitSeconds": limit_s,
        "testSuites": [{"script": "1.sh"}, {"script": "2.sh"}],
    });
    let makefile = makefile.replace("ORDER", project.path("order").to_str().unwrap());
    let script = format!("echo ran >>{}; cat built", project.path("order").display());
    project.setup("set", &manifest, &[("Makefile", &makefile), ("1.sh", &script), ("2.sh", &script)]);
    project
}

fn make_runs_once_before_the_first_script() {
    let project = made("all:\n\techo made >>ORDER\n\techo fresh >built\n", &json!({}), 20);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["made", "ran", "ran"]);
    assert_eq!(outcome(&project, "set/2")["shortResult"], "fresh");
}

fn a_make_step_that_fails_fails_every_script() {
    let project = made("all:\n\t@echo words of the compiler >&2; exit 1\n", &json!({}), 20);
    let ended = project.run(&[]);
    ended.code(101);
    for name in ["set/1", "set/2"] {
        project.result(name).assert_fail("words of the compiler");
    }
    assert_eq!(ended.stdout.matches("words of the compiler").count(), 2, "{ended}");
    assert!(project.order().is_empty());
}

fn a_make_step_that_hangs_fails_every_script() {
    let project = made("all:\n\t@echo started; echo $$$$ >ORDER.pid; sleep 1000\n", &json!({}), 1);
    project.run(&[]).code(101);
    for name in ["set/1", "set/2"] {
        project.result(name).assert_fail("make");
    }
    assert!(project.order().is_empty());
    assert!(!is_alive(project.pid("order.pid")));
}

fn a_pipe_that_make_leaves_is_its_failure() {
    let project = made("all:\n\t@echo words of make; mkdir -p sub; mkfifo sub/pipe\n", &json!({}), 20);
    project.run(&[]).code(101);
    for name in ["set/1", "set/2"] {
        let result = project.result(name);
        result.assert_fail("the set-up's make step failed: words of make");
        result.assert_fail("`sub/pipe` is neither a file, a folder nor a symbolic link; a set-up cannot hold it");
    }
    assert!(project.order().is_empty());
}

fn a_pipe_in_a_set_up_is_the_set_ups_failure() {
    let project = scripts(&[("1", "exit 0")]);
    let pipe = project.path("suites/set/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    project.run(&[]).code(101);
    let finding = format!("`{}` is neither a file, a folder nor a symbolic link", pipe.display());
    let result = project.result("set/1");
    result.assert_fail(&finding);
    assert!(!result.findings().contains("could not test"), "{}", result.findings());
}

fn a_make_target_is_passed_on() {
    let project = made("all:\n\texit 1\nother:\n\techo fresh >built\n", &json!({"target": "other"}), 20);
    project.run(&[]).code(0);
}

fn a_script_sees_nothing_of_another() {
    let change = "echo 'exit 1' >2.sh; rm data/kept; echo x >new; echo changed >data/changed; chmod 700 data; ln -s / link; \
                  echo x >$TMPDIR/file; mkdir -p a/b; chmod 0 a";
    let look = "[ ! -e new ] && [ ! -e link ] && [ -f data/kept ] && [ \"$(cat data/changed)\" = old ] && \
                [ -z \"$(ls -A \"$TMPDIR\")\" ] && [ ! -e a ]";
    let project = scripts(&[("1", change), ("2", look), ("3", change), ("4", look)]);
    project.file("suites/set/data/kept", "x").file("suites/set/data/changed", "old\n");
    project.run(&[]).code(0);
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
}

fn a_set_up_is_not_changed() {
    let project = scripts(&[("1", "echo x >1.sh; echo x >new; rm -rf data; chmod 777 .")]);
    project.file("suites/set/data/kept", "x");
    let before = (project.tree("suites"), project.text("suites/set/1.sh"));
    project.run(&[]).code(0);
    assert_eq!((project.tree("suites"), project.text("suites/set/1.sh")), before);
}

fn a_missing_script_is_a_failed_trial() {
    let project = scripts(&[("1", "exit 0"), ("2", "exit 0"), ("3", "exit 0")]);
    fs::remove_file(project.path("suites/set/2.sh")).unwrap();
    let ended = project.run(&[]);
    ended.code(101);
    assert_eq!(ended.names().len(), 3);
    project.result("set/2").assert_fail("2.sh");
    project.result("set/3").assert_pass();
}

fn scripts_run_in_the_order_of_the_manifest() {
    let project = Project::new();
    let text = format!("echo $0 >>{}", project.path("order").display());
    let names = ["b.sh", "a.sh", "c.sh", "10.sh", "9.sh"];
    let entries = json!(names.map(|name| json!({"script": name})));
    project.setup("set", &manifest(&entries), &names.map(|name| (name, text.as_str())));
    project.run(&[]).code(0);
    assert_eq!(project.order(), names);
}

fn a_script_is_given_four_variables() {
    let project =
        scripts(&[("1", "tr '\\0' '\\n' </proc/$$/environ; [ \"$HOME\" = \"$(pwd)\" ] && [ -d \"$TMPDIR\" ]")]);
    let project = project.variable("RUNNER_SHARED_SECRET", "hush").variable("CI", "true").variable("USER", "me");
    project.run(&[]).code(0);
    let log = project.text("proof/logs/set/1/execute.stdout.log");
    let mut names: Vec<_> = log.lines().map(|line| line.split_once('=').unwrap().0).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "PATH", "TMPDIR"], "{log}");
}

fn a_script_has_no_input_and_two_outputs() {
    let project = scripts(&[("1", "readlink /proc/$$/fd/0; cat; ls /proc/$$/fd")]);
    project.run(&[]).code(0);
    let log = project.text("proof/logs/set/1/execute.stdout.log");
    // The shell keeps the script open itself.
    let own: Vec<_> = log.lines().filter(|line| *line != "10" && *line != "255").collect();
    assert_eq!(own, ["/dev/null", "0", "1", "2"]);
}

fn a_script_runs_in_its_copy() {
    let project = scripts(&[("1", "[ \"$(pwd)\" = \"$PWD\" ] && [ -f ./1.sh ] && pwd")]);
    project.run(&[]).code(0);
    let folder = outcome(&project, "set/1")["shortResult"].as_str().unwrap().to_owned();
    assert_ne!(folder, project.path("suites/set").to_str().unwrap());
    assert!(!std::path::Path::new(&folder).exists(), "{folder}");
}

/// Ten seconds, whatever a suite's block may have.
fn without_a_limit_a_script_has_one() {
    let project = Project::new();
    project.file("suites/set/1.sh", "exec sleep 1000");
    project.run(&[]).code(101);
    let outcome = outcome(&project, "set/1");
    assert_eq!((&outcome["status"], &outcome["shortResult"]), (&json!("timeout"), &json!("timed out")));
}

fn a_folder_of_scripts_is_a_set_up_in_byte_order() {
    let project = Project::new();
    for name in ["b.sh", "10.sh", "9.sh", "B.sh", "a.b.sh"] {
        project.file(format!("suites/set/{name}"), format!("echo $0 >>{}", project.path("order").display()));
    }
    project.file("suites/set/notes.txt", "x");
    let ended = project.run(&[]);
    ended.code(0);
    assert_eq!(ended.names(), ["set/10", "set/9", "set/B", "set/a.b", "set/b"]);
    assert_eq!(project.order(), ["10.sh", "9.sh", "B.sh", "a.b.sh", "b.sh"]);
}

fn a_nested_set_up_is_named_by_its_path() {
    let project = Project::new();
    let entries = json!([{"script": "tests/one.sh", "name": "First / of all"}, {"script": "tests/two.x.sh"}]);
    project.setup("course/week 1", &manifest(&entries), &[("tests/one.sh", "exit 0"), ("tests/two.x.sh", "exit 0")]);
    let entries = json!([{"script": "1.sh"}]);
    project.setup("course/week-2", &manifest(&entries), &[("1.sh", "exit 0")]);
    let ended = project.run(&["week-2"]);
    ended.code(0);
    assert_eq!(ended.names(), ["course/week-2/1"]);
}

fn three_hundred_scripts_are_three_hundred_trials() {
    let project = Project::new();
    for number in 0..300 {
        project.file(format!("suites/set/{number:03}.sh"), format!("test -f {number:03}.sh && echo {number}"));
    }
    project.run(&[]).code(0);
    let summary = project.summary();
    assert_eq!((&summary["counts"]["pass"], &summary["selected"]), (&json!(300), &json!(300)));
    assert_eq!(outcome(&project, "set/299")["shortResult"], "299");
    assert!(project.tree("tmp").is_empty());
}

fn what_a_set_up_holds_arrives_as_it_is() {
    let look = "[ -x tool ] && [ ! -x data ] && [ -L link ] && [ \"$(readlink link)\" = nowhere ] && [ -d empty ] && \
                [ \"$(cat 'a name with blanks')\" = text ]";
    let project = scripts(&[("1", look)]);
    project.program("suites/set/tool", "x").file("suites/set/data", "x").file("suites/set/a name with blanks", "text");
    std::os::unix::fs::symlink("nowhere", project.path("suites/set/link")).unwrap();
    fs::create_dir(project.path("suites/set/empty")).unwrap();
    project.run(&[]).code(0);
}

fn unknown_keys_are_ignored() {
    let project = Project::new();
    let manifest = json!({
        "schemaVersion": 7,
        "gradingMode": "worker",
        "requiredFiles": ["warmup.py"],
        "starterNotebook": "x.ipynb",
        "sections": [1, {"a": null}],
        "somethingNew": {"deep": [{}]},
        "makefile": null,
        "testSuites": [{"script": "1.sh", "tier": "secret", "points": 3, "hint": "think", "somethingNew": 1, "name": null}],
    });
    project.setup("set", &manifest, &[("1.sh", "exit 0")]);
    project.run(&[]).code(0);
    let outcome = outcome(&project, "set/1");
    assert_eq!((&outcome["tier"], &outcome["points"]), (&json!("secret"), &json!(3)));
}

fn a_script_outside_of_its_set_up_is_refused() {
    for script in ["../other/1.sh", "/bin/true", "a/../../other/1.sh"] {
        let project = Project::new();
        let ran = format!("echo ran >>{}", project.path("order").display());
        project.setup("set", &manifest(&json!([{"script": script}])), &[("a/x", "x")]);
        project.file("suites/other/1.sh", ran);
        project.run(&["set"]).code(101).says(script);
        assert!(project.order().is_empty(), "{script}");
    }
}

fn a_pipe_in_a_set_up_does_not_hang() {
    let project = scripts(&[("1", "exit 0")]);
    nix::unistd::mkfifo(&project.path("suites/set/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ended = project.run(&[]);
    assert_eq!(ended.names(), ["set/1"], "{ended}");
}

fn a_cycle_of_prerequisites_fails() {
    let entries = json!([
        {"script": "1.sh", "dependsOn": ["2.sh"]},
        {"script": "2.sh", "dependsOn": ["1.sh"]},
        {"script": "3.sh", "dependsOn": ["3.sh"]},
    ]);
    let project = Project::new();
    project.setup("set", &manifest(&entries), &[("1.sh", "exit 0"), ("2.sh", "exit 0"), ("3.sh", "exit 0")]);
    project.suite("z-good", &[("execute", "true")]);
    project.run(&[]).code(101);
    project.record("z-good").assert_pass();
}

fn a_prerequisite_that_is_no_script_is_told() {
    let project = Project::new();
    project.setup("set", &manifest(&json!([{"script": "1.sh", "dependsOn": ["gone.sh"]}])), &[("1.sh", "exit 0")]);
    project.run(&[]).code(101).says("gone.sh");
}

fn a_script_that_removes_its_folder_is_judged_as_usual() {
    let project =
        scripts(&[("1", "rm -rf \"$PWD\"; cd /; rmdir \"$OLDPWD\" 2>/dev/null; echo gone; exit 1"), ("2", "exit 0")]);
    project.run(&[]).code(101);
    let outcome = outcome(&project, "set/1");
    assert_eq!((&outcome["status"], &outcome["shortResult"]), (&json!("fail"), &json!("gone")));
    project.result("set/2").assert_pass();
}

/// Only as an ordinary user: nobody else's processes are at stake if it goes wrong.
fn a_script_that_kills_whatever_it_may_is_judged_as_usual() {
    let project = scripts(&[("1", "kill -9 -1; exit 0"), ("2", "exit 0")]).of(User::Ordinary);
    let ended = project.run(&[]);
    assert_eq!(ended.names(), ["set/1", "set/2"], "{ended}");
    project.result("set/2").assert_pass();
    let project = scripts(&[("1", "kill -9 $PPID; exec sleep 1000"), ("2", "exit 0")]).of(User::Ordinary);
    project.run(&[]).code(101);
    assert_eq!(outcome(&project, "set/1")["status"], "error");
    project.result("set/2").assert_pass();
}

fn nothing_outlives_a_script(user: User) {
    let project = Project::new().of(user);
    let start = daemon(project.path("daemon").to_str().unwrap());
    project.file("suites/set/1.sh", format!("exec bash -c \"$(cat <<'END'\n{start}\nexit 0\nEND\n)\"\n"));
    project.run(&[]).code(0);
    assert!(!is_alive(project.pid("daemon")));
    assert_eq!(project.result("set/1").0["leaked"].as_array().unwrap().len(), 1);
}

/// Each script is recorded while the next one runs.
fn a_script_that_hangs_is_named_and_those_before_it_are_on_record() {
    let project = Project::new();
    let go = project.path("go").display().to_string();
    project.file("suites/set/1.sh", "exit 0").file("suites/set/2.sh", "exit 1");
    project.file("suites/set/3.sh", format!("mkfifo {go}; echo x >{go}.made; read -r line <{go}"));
    project.file("suites/set/4.sh", "exit 0");
    let running = project.start(&[]);
    project.wait_for("go.made");
    until("the script that hangs to be named", || running.stdout().ends_with("test set/3 ... "));
    assert_eq!(running.stdout(), "\nrunning 4 tests\ntest set/1 ... ok\ntest set/2 ... FAILED\ntest set/3 ... ");
    let status = |name| project.record(name).status().to_owned();
    assert_eq!(["set/1", "set/2", "set/3"].map(status), ["pass", "fail", "running"]);
    assert_eq!(project.result("set/2").0["status"], "fail");
    fs::write(project.path("go"), "on\n").unwrap();
    let ended = running.wait();
    ended.code(101);
    assert_eq!(ended.names(), ["set/1", "set/2", "set/3", "set/4"]);
}

fn a_failure_that_is_recorded_late_still_stops_a_run_that_fails_fast() {
    let project = Project::new();
    let order = project.path("order").display().to_string();
    for (number, code) in [(1, 0), (2, 1), (3, 0)] {
        project.file(format!("suites/set/{number}.sh"), format!("echo {number} >>{order}; exit {code}"));
    }
    let ended = project.run(&["--fail-fast"]);
    ended.code(101);
    assert_eq!(ended.names(), ["set/1", "set/2"]);
    assert_eq!(project.order(), ["1", "2"]);
    let (summary, counts) = (project.summary(), json!({"pass": 1, "fail": 1, "running": 0, "interrupted": 0}));
    assert_eq!((&summary["selected"], &summary["counts"]), (&json!(3), &counts));
    assert!(summary["harness_policy"].is_null(), "not every selected trial was judged");
}

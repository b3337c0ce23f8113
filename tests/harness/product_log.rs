//! The product is watched, and nobody can tell: not the suite, not the product.

use std::fs;
use std::process::Stdio;

use libtest_mimic::Trial;

use crate::world::{Project, User, both, claim, command};

pub(crate) fn claims() -> Vec<Trial> {
    let mut claims = vec![
        claim(a_call_by_an_absolute_path_is_told),
        claim(without_a_call_the_log_is_empty),
        claim(a_call_by_name_is_logged),
        claim(what_a_suite_discards_is_logged_all_the_same),
        claim(a_product_that_is_found_on_path_is_logged),
        claim(without_a_product_nothing_is_said_of_its_log),
    ];
    claims.extend(both(a_shell_product_behaves_as_without_us));
    claims.extend(both(a_compiled_product_behaves_as_without_us));
    claims
}

const SHELL_TOOL: &str = r#"#!/bin/sh
case $1 in
    mix) echo o1; echo e1 >&2; echo o2; echo e2 >&2 ;;
    exit) exit "$2" ;;
    kill) kill -"$2" $$ ;;
    cat) cat ;;
    big) head -c 1048576 /dev/zero | tr '\0' x ;;
    yes) exec yes ;;
    fd3) echo to-three >&3 ;;
    hang) exec sleep 1000 ;;
    args) shift; for arg; do printf '[%s]' "$arg"; done ;;
    env) printf '%s' "$COLOUR" ;;
    pwd) pwd ;;
esac
"#;

const C_TOOL: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void say(int fd, const char *text) { if (write(fd, text, strlen(text)) < 0) _exit(99); }
int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "mix")) { say(1, "o1\n"); say(2, "e1\n"); say(1, "o2\n"); say(2, "e2\n"); }
    if (!strcmp(what, "exit")) return atoi(argv[2]);
    if (!strcmp(what, "kill")) {
        const char *name = argv[2];
        kill(getpid(), !strcmp(name, "KILL") ? SIGKILL : !strcmp(name, "SEGV") ? SIGSEGV : SIGTERM);
        pause();
    }
    if (!strcmp(what, "cat")) { char byte; while (read(0, &byte, 1) == 1) if (write(1, &byte, 1) != 1) return 98; }
    if (!strcmp(what, "big")) { static char text[1048576]; memset(text, 'x', sizeof text); fwrite(text, 1, sizeof text, stdout); }
    if (!strcmp(what, "yes")) for (;;) say(1, "y\n");
    if (!strcmp(what, "fd3")) say(3, "to-three\n");
    if (!strcmp(what, "hang")) for (;;) pause();
    if (!strcmp(what, "args")) for (int at = 2; at < argc; at++) printf("[%s]", argv[at]);
    if (!strcmp(what, "env")) printf("%s", getenv("COLOUR"));
    if (!strcmp(what, "pwd")) { char dir[4096]; puts(getcwd(dir, sizeof dir)); }
    return 0;
}
"#;

/// What a suite may do with a product; each line is true without a harness.
const USES: [(&str, &str); 24] = [
    ("order-of-both-streams", "tool mix >log 2>&1; [[ $(<log) == $'o1\\ne1\\no2\\ne2' ]]"),
    (
        "order-when-appending",
        "tool mix >>log2 2>&1; tool mix >>log2 2>&1; [[ $(<log2) == $'o1\\ne1\\no2\\ne2\\no1\\ne1\\no2\\ne2' ]]",
    ),
    ("streams-apart", "tool mix >o 2>e; [[ $(<o) == $'o1\\no2' && $(<e) == $'e1\\ne2' ]]"),
    ("by-env", "[[ $(env tool mix 2>/dev/null) == $'o1\\no2' ]]"),
    ("by-env-with-a-variable", "[[ $(env COLOUR=green tool env) == green ]]"),
    ("substitution", "x=$(tool mix 2>/dev/null); [[ $x == $'o1\\no2' ]]"),
    ("both-in-a-substitution", "x=$(tool mix 2>&1); [[ $x == $'o1\\ne1\\no2\\ne2' ]]"),
    ("stderr-in-a-substitution", "x=$(tool mix 2>&1 >/dev/null); [[ $x == $'e1\\ne2' ]]"),
    ("exit-code", "for n in 0 1 2 77 126 127 255; do rc=0; tool exit $n || rc=$?; [[ $rc == \"$n\" ]]; done"),
    ("exit-code-in-a-condition", "if tool exit 3; then false; else [[ $? == 3 ]]; fi"),
    (
        "death-by-a-signal",
        "for s in 'TERM 143' 'KILL 137' 'SEGV 139'; do set -- $s; rc=0; tool kill $1 || rc=$?; [[ $rc == \"$2\" ]]; done",
    ),
    ("stdin-passes", "[[ $(printf 'a\\nb' | tool cat) == $'a\\nb' ]]"),
    ("stdin-from-a-file", "printf 'from a file' >in; [[ $(tool cat <in) == 'from a file' ]]"),
    ("stdin-of-the-block", "[[ -z $(tool cat) ]]"),
    (
        "stdin-is-not-eaten",
        "printf '1\\n2\\n3\\n' | while read -r line; do tool exit 0 </dev/null; echo $line; done >lines; [[ $(<lines) == $'1\\n2\\n3' ]]",
    ),
    ("a-megabyte", "[[ $(tool big | wc -c) == 1048576 ]]; tool big >file; [[ $(wc -c <file) == 1048576 ]]"),
    ("closed-reader", "set +o pipefail; [[ $(tool yes | head -n 1) == y ]]"),
    ("closed-reader-is-sigpipe", "set +e; tool yes | head -n 1 >/dev/null; [[ ${PIPESTATUS[0]} == 141 ]]"),
    ("in-the-background", "tool hang & pid=$!; kill $pid; rc=0; wait $pid || rc=$?; [[ $rc == 143 ]]"),
    ("killed-in-the-background", "tool hang & pid=$!; kill -KILL $pid; rc=0; wait $pid || rc=$?; [[ $rc == 137 ]]"),
    ("a-third-descriptor", "tool fd3 3>three; [[ $(<three) == to-three ]]"),
    ("arguments", "[[ $(tool args 'a b' '' '*' $'new\\nline' -x) == $'[a b][][*][new\\nline][-x]' ]]"),
    ("folder", "cd $SCRATCH_DIR; [[ $(tool pwd) == \"$PWD\" ]]"),
    ("closed-stdout", "tool exit 0 >&-; rc=0; tool exit 5 >&- 2>&- || rc=$?; [[ $rc == 5 ]]"),
];

const SETTINGS: &str = "product: {name: tool, build: none, bin: bin/tool}\n";

fn shell_project() -> Project {
    let project = Project::with(SETTINGS);
    project.program("bin/tool", SHELL_TOOL);
    project
}

fn compiled_project() -> Project {
    let project = Project::with(SETTINGS);
    project.file("tool.c", C_TOOL);
    fs::create_dir(project.path("bin")).unwrap();
    let mut compiler = command("cc");
    compiler.args(["-o", "bin/tool", "tool.c"]).current_dir(project.path("")).stdin(Stdio::null());
    let output = compiler.output().expect("no C compiler; cargo needs one, too");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    project
}

fn behaves(project: &Project) {
    // That the lines are right: without a harness each of them holds.
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    for (name, line) in USES {
        let mut bash = command("bash");
        bash.args(["-euo", "pipefail", "-c", line]).current_dir(project.path("tmp")).stdin(Stdio::null());
        let output = bash.env("PATH", &path).env("SCRATCH_DIR", "/").output().unwrap();
        assert!(output.status.success(), "{name} is a wrong expectation: {}", String::from_utf8_lossy(&output.stderr));
        let execute = format!("cd $SCRATCH_DIR\n{line}");
        project.suite(name, &[("execute", &execute), ("kill-timeout", "30s"), ("environment", "{COLOUR: blue}")]);
    }
    let left = project.tree("tmp");
    left.iter().for_each(|file| fs::remove_file(project.path("tmp").join(file)).unwrap());
    project.run(&[]);
    let failed: Vec<_> = USES
        .iter()
        .map(|(name, line)| (project.record(name), line))
        .filter(|(record, _)| record.status() != "pass")
        .map(|(record, line)| format!("{}: {} {line}", record.0["name"], record.findings().trim()))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

fn a_shell_product_behaves_as_without_us(user: User) {
    behaves(&shell_project().of(user));
}

fn a_compiled_product_behaves_as_without_us(user: User) {
    behaves(&compiled_project().of(user));
}

fn product_log(project: &Project, name: &str) -> (String, String) {
    let log = |stream| project.text(format!("proof/logs/{name}/product.{stream}.log"));
    (log("stdout"), log("stderr"))
}

fn a_call_by_name_is_logged() {
    for project in [shell_project(), compiled_project()] {
        project.suite("10-a", &[("execute", "echo of the suite; tool mix; tool mix >file 2>other")]);
        project.run(&[]).code(0);
        assert_eq!(product_log(&project, "10-a"), ("o1\no2\no1\no2\n".to_owned(), "e1\ne2\ne1\ne2\n".to_owned()));
        assert_eq!(project.text("proof/logs/10-a/execute.stdout.log"), "of the suite\no1\no2\n");
        assert_eq!(project.record("10-a").0["product_log"], "complete");
    }
}

fn what_a_suite_discards_is_logged_all_the_same() {
    let project = shell_project();
    project.suite("10-a", &[("prepare", "tool mix >/dev/null 2>&1"), ("execute", "x=$(tool mix 2>/dev/null)")]);
    project.run(&[]).code(0);
    let (stdout, stderr) = product_log(&project, "10-a");
    let all = format!("{stdout}{stderr}");
    for word in ["o1", "o2", "e1", "e2"] {
        assert_eq!(all.matches(word).count(), 2, "{word}: {all}");
    }
}

fn a_call_by_an_absolute_path_is_told() {
    for project in [shell_project(), compiled_project()] {
        project.suite("10-a", &[("execute", "$PROJECT_DIR/bin/tool mix")]);
        project.suite("20-b", &[("execute", "tool mix; $PROJECT_DIR/bin/tool mix")]);
        project.suite("30-c", &[("execute", "tool mix")]);
        project.run(&[]).code(0);
        let words = ["10-a", "20-b", "30-c"].map(|name| project.record(name).0["product_log"].clone());
        assert_eq!(words, ["incomplete", "incomplete", "complete"]);
    }
}

fn without_a_call_the_log_is_empty() {
    for project in [shell_project(), compiled_project()] {
        project.suite("10-a", &[("execute", "true")]);
        project.run(&[]).code(0);
        assert_eq!(project.record("10-a").0["product_log"], "empty");
    }
}

fn a_product_that_is_found_on_path_is_logged() {
    let project = Project::with("product: {name: tool, build: none}\n");
    project.program("elsewhere/tool", SHELL_TOOL);
    project.suite("10-a", &[("execute", "tool mix")]);
    let path = format!("{}:/usr/bin:/bin", project.path("elsewhere").display());
    let project = project.variable("PATH", path);
    project.run(&[]).code(0);
    assert_eq!(product_log(&project, "10-a").0, "o1\no2\n");
}

fn without_a_product_nothing_is_said_of_its_log() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "true")]);
    project.run(&[]).code(0);
    assert!(project.record("10-a").0["product_log"].is_null());
}

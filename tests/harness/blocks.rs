//! What a block is given: its text as it stands, bash's strict mode, a folder, an environment, nothing else.

use libtest_mimic::Trial;

use crate::world::{Project, User, both, claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(what_goes_wrong_ends_a_block),
        claim(what_is_handled_does_not_end_a_block),
        claim(every_block_is_strict),
        claim(a_block_is_run_verbatim),
        claim(a_block_may_begin_with_a_dash),
        claim(a_long_block_is_run_verbatim),
        claim(stdin_is_empty),
        claim(blocks_run_in_the_projects_folder),
        claim(the_environment_is_exported_to_every_block),
        claim(the_environment_keeps_its_order),
        claim(values_of_the_environment_are_text),
        claim(a_block_knows_its_folders),
        claim(scratch_is_empty_at_the_start_and_gone_afterwards),
        claim(a_block_sees_nothing_of_cargo),
        claim(a_block_has_three_descriptors),
        claim(a_block_starts_with_default_signals),
        claim(the_limit_may_come_from_three_places),
    ]
    .into_iter()
    .chain(both(scratch_that_cannot_be_entered_is_removed))
    .collect()
}

fn what_goes_wrong_ends_a_block() {
    let table = [
        ("undefined-variable", "echo $no_such_variable", 1),
        ("failing-pipe", "false | true", 1),
        ("failing-command", "(exit 6)", 6),
        ("missing-command", "no-such-command", 127),
        ("failing-substitution", "x=$(exit 5)", 5),
        ("not-executable", "/etc/passwd", 126),
    ];
    let project = Project::new();
    for (name, line, _) in table {
        project.suite(name, &[("execute", &format!("{line}\necho $SUITE_NAME >>order"))]);
    }
    project.run(&[]).code(101);
    assert!(project.order().is_empty(), "{:?}", project.order());
    for (name, _, rc) in table {
        let record = project.record(name);
        let found = record.assert_fail("execute exited").rc();
        // bash itself says 127 for an unset variable in some versions.
        assert!(found == Some(rc) || name == "undefined-variable" && found == Some(127), "{:#}", record.0);
    }
}

fn what_is_handled_does_not_end_a_block() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "if false; then :; fi\nfalse || true\n! false\necho ${x-default} >>order")]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["default"]);
}

fn every_block_is_strict() {
    let project = Project::with("on-restore-failure: continue\n");
    for block in ["prepare", "debug", "restore"] {
        let execute = if block == "debug" { "false" } else { "true" };
        let text = "set +o | grep -q 'set -o pipefail'\n[[ $- == *e* && $- == *u* ]]\necho $SUITE_NAME >>order";
        project.suite(block, &[("execute", execute), (block, text)]);
    }
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["debug", "prepare", "restore"]);
}

fn a_block_is_run_verbatim() {
    let project = Project::new();
    let execute = concat!(
        "cat <<'END'\n",
        "  two spaces, a \\ backslash, \"quotes\" and 'more', $HOME, `x`, {{ braces }}, %s, ü € 🦀\n",
        "\ttab\n",
        "\n",
        "END\n",
        "printf '%s|' a\\ b $'c\\td' \"$((1 + 2))\" # a comment\n",
    );
    project.suite("10-a", &[("execute", execute)]);
    project.task("20-b", "summary: one line\nexecute: printf 'no line end'");
    project.run(&[]).code(0);
    let expected = concat!(
        "  two spaces, a \\ backslash, \"quotes\" and 'more', $HOME, `x`, {{ braces }}, %s, ü € 🦀\n",
        "\ttab\n",
        "\n",
        "a b|c\td|3|",
    );
    assert_eq!(project.text("proof/logs/10-a/execute.stdout.log"), expected);
    assert_eq!(project.text("proof/logs/20-b/execute.stdout.log"), "no line end");
}

/// To bash, the first argument after `-c` that is no option is the script.
fn a_block_may_begin_with_a_dash() {
    let project = Project::new();
    project.task("10-a", "summary: a\nexecute: \"-no-such-command || echo ran >>order\"\n");
    project.task("20-b", "summary: a\nexecute: \"--help || echo ran >>order\"\n");
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["ran"; 2]);
}

/// One argument of a program may have 128 KiB; a block may have more.
fn a_long_block_is_run_verbatim() {
    let project = Project::new();
    let line = format!("x='{}'", "y".repeat(1000));
    let execute = format!(
        "{}\necho ${{#x}} >>order\n[[ $(readlink /proc/self/fd/0) == /dev/null ]]",
        [line.as_str(); 300].join("\n")
    );
    project.suite("10-a", &[("execute", &execute)]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["1000"]);
}

fn stdin_is_empty() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "readlink /proc/self/fd/0 >>order; cat >>order")]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["/dev/null"]);
}

fn blocks_run_in_the_projects_folder() {
    let project = Project::new();
    let pwd = "pwd -P >>order";
    project.suite("10-a", &[("prepare", pwd), ("execute", "pwd -P >>order; false"), ("debug", pwd), ("restore", pwd)]);
    project.run(&[]).code(101);
    let folder = project.path("").canonicalize().unwrap();
    assert_eq!(project.order(), [folder.to_str().unwrap(); 4]);
}

fn the_environment_is_exported_to_every_block() {
    let project = Project::new();
    let text = "bash -c 'echo $COLOUR >>order'";
    let keys =
        [("prepare", text), ("execute", "bash -c 'echo $COLOUR >>order'; false"), ("debug", text), ("restore", text)];
    project.suite("10-a", &[&keys[..], &[("environment", "{COLOUR: green}")]].concat());
    project.suite("20-b", &[("execute", "[[ ! -v COLOUR ]]")]);
    project.run(&[]).code(101);
    assert_eq!(project.order(), ["green"; 4]);
    project.record("20-b").assert_pass();
}

fn the_environment_keeps_its_order() {
    let project = Project::new();
    let execute = "tr '\\0' '\\n' </proc/$$/environ | grep ^MY_ >>order";
    project.suite("10-a", &[("execute", execute), ("environment", "{MY_Z: 1, MY_A: 2, MY_M: 3}")]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["MY_Z=1", "MY_A=2", "MY_M=3"]);
}

/// As they are written: neither booleans nor numbers of YAML 1.1.
fn values_of_the_environment_are_text() {
    let project = Project::new();
    let environment = "{A: no, B: 010, C: 1.10, D: '', E: '$HOME `x`', F: \"two\\nlines\", G: 1e3, H: true, I: on}";
    let execute = "printf '%s|' \"$A\" \"$B\" \"$C\" \"$D\" \"$E\" \"$F\" \"$G\" \"$H\" \"$I\"";
    project.suite("10-a", &[("execute", execute), ("environment", environment)]);
    project.run(&[]).code(0);
    assert_eq!(project.text("proof/logs/10-a/execute.stdout.log"), "no|010|1.10||$HOME `x`|two\nlines|1e3|true|on|");
}

fn a_block_knows_its_folders() {
    let project = Project::new();
    let execute = "printf '%s\\n' \"$PROJECT_DIR\" \"$SUITE_DIR\" \"$SUITE_NAME\" >>order; [[ -d $SCRATCH_DIR ]]";
    project.suite("sudo/10-a", &[("execute", execute)]);
    project.run(&[]).code(0);
    let folder = |path: &str| project.path(path).to_string_lossy().trim_end_matches('/').to_owned();
    assert_eq!(project.order(), [folder(""), folder("suites/sudo/10-a"), "sudo/10-a".to_owned()]);
}

fn scratch_is_empty_at_the_start_and_gone_afterwards() {
    let project = Project::new();
    let prepare = "[[ -z $(ls -A $SCRATCH_DIR) ]]; echo x >$SCRATCH_DIR/file; mkdir $SCRATCH_DIR/folder";
    for name in ["10-a", "20-b"] {
        let execute = "[[ -f $SCRATCH_DIR/file ]]; echo $SCRATCH_DIR >>order";
        project.suite(name, &[("prepare", prepare), ("execute", execute)]);
    }
    project.run(&[]).code(0);
    for path in project.order() {
        assert!(!std::path::Path::new(&path).exists(), "{path}");
    }
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
}

fn scratch_that_cannot_be_entered_is_removed(user: User) {
    let project = Project::new().of(user);
    let locked =
        "mkdir -p $SCRATCH_DIR/a/b/c\nchmod 000 $SCRATCH_DIR/a/b/c $SCRATCH_DIR/a/b $SCRATCH_DIR/a $SCRATCH_DIR";
    project.suite("10-a", &[("execute", locked)]).suite("20-b", &[("execute", "[[ -z $(ls -A $SCRATCH_DIR) ]]")]);
    project.suite("30-c", &[("execute", locked)]);
    project.run(&[]).code(0);
    assert!(project.tree("tmp").is_empty(), "{:?}", project.tree("tmp"));
}

fn a_block_sees_nothing_of_cargo() {
    let mut project = Project::new();
    let set = [
        "CARGO",
        "CARGO_PKG_NAME",
        "CARGO_MANIFEST_DIR",
        "CARGO_TARGET_TMPDIR",
        "RUST_BACKTRACE",
        "RUST_RECURSION_COUNT",
    ];
    for name in
        set.into_iter().chain(["RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "LD_LIBRARY_PATH", "NEXTEST", "NEXTEST_RUN_ID"])
    {
        project = project.variable(name, "/tmp");
    }
    project.suite("10-a", &[("execute", "env | grep -E '^(CARGO|RUST|NEXTEST|LD_LIBRARY_PATH)' >>order || true")]);
    project.file(
        "suites/set/1.sh",
        format!("env | grep -E '^(CARGO|RUST|NEXTEST|LD_)' >>{}; true", project.path("order").display()),
    );
    project.run(&[]).code(0);
    assert!(project.order().is_empty(), "{:?}", project.order());
}

fn a_block_has_three_descriptors() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "ls /proc/$$/fd >>order")]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["0", "1", "2"]);
}

fn a_block_starts_with_default_signals() {
    let project = Project::new();
    let execute = "grep -E '^Sig(Ign|Blk)' /proc/self/status | tr '\\t' '=' >>order";
    project.suite("10-a", &[("execute", execute)]);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["SigBlk:=0000000000000000", "SigIgn:=0000000000000000"]);
}

/// The suite's, else the variable's, else the project's.
fn the_limit_may_come_from_three_places() {
    let table = [
        ("timeout: 1s\n", None, None),
        ("timeout: 1h\n", Some("1"), None),
        ("timeout: 1h\n", Some("1000"), Some("1s")),
    ];
    for (settings, variable, key) in table {
        let mut project = Project::with(settings);
        if let Some(seconds) = variable {
            project = project.variable("SUITE_TIMEOUT_SEC", seconds);
        }
        let keys = [("execute", "sleep 1000")].into_iter().chain(key.map(|limit| ("kill-timeout", limit)));
        project.suite("10-a", &keys.collect::<Vec<_>>());
        project.run(&[]).code(101);
        assert_eq!(project.record("10-a").0["timed_out"], true, "{settings} {variable:?} {key:?}");
    }
}

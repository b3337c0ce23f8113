//! Names, variables, files and readers that nobody should have sent.

use libtest_mimic::Trial;
use pretty_assertions::assert_eq;

use crate::world::{Ended, Project, claim, harness};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(names_may_differ_in_case_only),
        claim(filters_may_be_any_text),
        claim(a_filter_that_is_no_text_selects_nothing),
        claim(a_log_file_that_cannot_be_made_stops_the_run_before_it_begins),
        claim(a_log_file_has_libtests_lines),
        claim(bad_variables_are_named),
        claim(a_listing_does_not_read_what_it_does_not_need),
        claim(a_closed_standard_output_changes_nothing),
        claim(a_report_that_nobody_reads_is_a_failure_after_all_has_run),
        claim(a_listing_that_cannot_be_written_is_an_error),
    ]
}

/// `$PROGRAM` is the harness, its arguments follow.
fn shell(script: &str) -> Project {
    let project = Project::new().by("/bin/bash").variable("PROGRAM", harness());
    for name in ["10-a", "20-b"] {
        let keys = [("execute", "echo $SUITE_NAME >>order"), ("restore", "echo restored-$SUITE_NAME >>order")];
        project.suite(name, &keys);
    }
    project.file("script", script);
    project
}

fn project() -> Project {
    shell(r#""$PROGRAM" "$@""#)
}

fn run(project: &Project, arguments: &[&str]) -> Ended {
    project.run(&[&["script"], arguments].concat())
}

/// Nobody is killed by a signal, and no panic is shown.
fn assert_orderly(ended: &Ended) {
    assert!(ended.status.code().is_some() && !ended.all().contains("panicked"), "{ended}");
}

const ALL: [&str; 4] = ["10-a", "restored-10-a", "20-b", "restored-20-b"];

fn names_may_differ_in_case_only() {
    let project = Project::new();
    for name in ["foo", "Foo", "FOO"] {
        project.suite(name, &[("execute", &format!("echo {name} >>order; echo this is {name}"))]);
    }
    project.run(&["--list"]).code(0).says("FOO: test\nFoo: test\nfoo: test\n");
    assert_eq!(project.run(&[]).code(0).names(), ["FOO", "Foo", "foo"]);
    assert_eq!(project.order(), ["FOO", "Foo", "foo"]);
    for name in ["foo", "Foo", "FOO"] {
        assert_eq!(project.text(format!("proof/logs/{name}/execute.stdout.log")), format!("this is {name}\n"));
    }
    for name in ["foo", "Foo", "FOO"] {
        assert_eq!(project.run(&["--exact", name]).code(0).names(), [name]);
    }
    assert_eq!(project.run(&["oo"]).code(0).names(), ["Foo", "foo"]);
}

fn filters_may_be_any_text() {
    let project = project();
    let odd = [
        "a b",
        "'",
        "\"",
        "ä",
        "\u{202e}",
        "*",
        "\\",
        "\n",
        "\u{1b}[31m",
        "10-a ",
        "$(touch made)",
        "..",
        "/",
        "%s",
        "\u{1f980}",
    ];
    for filter in odd {
        let filter: &str = filter;
        for words in
            [&[filter][..], &["--exact", filter], &["--", filter], &["--list", filter], &["--exact", "--list", filter]]
        {
            let ended = run(&project, words);
            ended.code(0);
            assert_eq!((ended.names().len(), ended.stderr.as_str()), (0, ""), "{words:?}");
        }
        assert_eq!(
            run(&project, &["--list", "--skip", filter]).code(0).stdout,
            "10-a: test\n20-b: test\n",
            "{filter:?}"
        );
    }
    assert!(project.order().is_empty() && !project.path("made").exists() && !project.path("proof").exists());
}

fn a_filter_that_is_no_text_selects_nothing() {
    let project = shell(r#""$PROGRAM" --exact $'\xff\xfe'"#);
    let ended = run(&project, &[]);
    assert_orderly(&ended);
    assert!(project.order().is_empty(), "{ended}");
}

fn a_log_file_that_cannot_be_made_stops_the_run_before_it_begins() {
    for path in ["no/such/folder/log", "suites", ""] {
        let project = project();
        let ended = run(&project, &["--logfile", path]);
        ended.code(101).stderr_says("--logfile");
        assert_orderly(&ended);
        assert_eq!((ended.stdout.as_str(), project.order().len()), ("", 0), "{path:?}: {ended}");
    }
}

fn a_log_file_has_libtests_lines() {
    let project = project();
    project.suite("30-c", &[("execute", "exit 1")]).file("log", "of an older run\n");
    let ended = run(&project, &["--logfile", "log"]);
    ended.code(101);
    assert_eq!((project.text("log").as_str(), ended.stderr.as_str()), ("ok 10-a\nok 20-b\nfailed 30-c\n", ""));
}

fn bad_variables_are_named() {
    for (name, value) in [("RUST_TEST_THREADS", "abc"), ("RUST_TEST_THREADS", "0"), ("RUST_TEST_SHUFFLE_SEED", "x")] {
        for arguments in [&[][..], &["--format=json"], &["zzz"], &["--bench"]] {
            let project = project().variable(name, value);
            let ended = run(&project, arguments);
            ended.code(101).stderr_says(name);
            assert_eq!((ended.stdout.as_str(), project.order().len()), ("", 0), "{name}={value} {arguments:?}");
        }
    }
}

/// As libtest: one bad variable must not make nextest abort a run, or hide the help.
fn a_listing_does_not_read_what_it_does_not_need() {
    let project = project().variable("RUST_TEST_THREADS", "0");
    run(&project, &["--list", "--format", "terse"]).code(0).says("10-a: test\n20-b: test\n");
    run(&project, &["--help"]).code(0).says("Usage: ");
}

fn a_closed_standard_output_changes_nothing() {
    for format in ["pretty", "terse", "json", "junit"] {
        let project = shell(r#"exec "$PROGRAM" "$@" >&-"#);
        let ended = run(&project, &["--format", format]);
        ended.code(0);
        assert_orderly(&ended);
        assert_eq!(project.order(), ALL, "{format}");
        // Neither did a file of ours take its number.
        assert_eq!(project.summary()["suites"].as_array().unwrap().len(), 2);
    }
    run(&shell(r#"exec "$PROGRAM" "$@" >&-"#), &["--list"]).code(0);
}

fn a_report_that_nobody_reads_is_a_failure_after_all_has_run() {
    // The reader is gone before the first word: it waits for nothing, and what it was is waited for.
    let no_reader = r#"mkfifo pipe; exec 3<>pipe 4>pipe 3>&-; exec "$PROGRAM" "$@" >&4 4>&-"#;
    for (script, word) in [(no_reader, "Broken pipe"), (r#"exec "$PROGRAM" "$@" >/dev/full"#, "No space left")] {
        for format in ["pretty", "terse", "json", "junit"] {
            let project = shell(script);
            let ended = run(&project, &["--format", format]);
            assert_orderly(&ended);
            ended.code(3).stderr_says("standard output").stderr_says(word);
            assert_eq!(project.order(), ALL, "{format}");
            project.record("20-b").assert_pass();
        }
    }
}

/// A reader that has seen enough is no error; a full disk is.
fn a_listing_that_cannot_be_written_is_an_error() {
    let ended = run(&shell(r#"exec "$PROGRAM" "$@" >/dev/full"#), &["--list"]);
    ended.code(3).stderr_says("standard output");
    for arguments in [&["--list"][..], &["--help"], &["--bench"], &["zzz"]] {
        assert_orderly(&run(
            &shell(r#"mkfifo pipe; exec 3<>pipe 4>pipe 3>&-; exec "$PROGRAM" "$@" >&4 4>&-"#),
            arguments,
        ));
    }
}

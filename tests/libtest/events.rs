//! `--format json`, event by event.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use pretty_assertions::assert_eq;
use serde_json::Value;

use crate::line::Line;
use crate::matrix::has_colors;
use crate::seen::blurred;
use crate::twins::{NAMES, Twins, reference};
use crate::world::{Ended, Project, claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(every_line_is_an_event_in_libtests_words),
        claim(an_ignored_trial_is_libtests_with_a_reason),
        claim(a_trial_has_a_time_only_if_it_is_asked_for),
        claim(output_stands_where_libtest_has_it),
        claim(fail_fast_ends_the_run_where_libtest_ends_it),
        claim(nothing_selected_is_two_events),
        claim(times_are_numbers_without_an_exponent),
        claim(control_characters_are_escaped),
        claim(what_runs_at_the_same_time_is_told_apart),
        claim(shuffled_scripts_show_their_seed),
        claim(a_listing_has_every_field),
        claim(terse_lines_break_where_libtests_do),
    ]
}

/// Every event, in order. Anything else on standard output fails the claim.
pub(crate) fn events(ended: &Ended) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}\n{ended}"));
    assert!(ended.stdout.ends_with('\n'), "{ended}");
    ended.stdout.lines().map(read).collect()
}

/// The names of the fields of an event, in the order in which they stand there.
fn fields(line: &str) -> Vec<String> {
    let blurred = blurred(line);
    let words: Vec<_> = blurred.split('"').skip(1).step_by(2).collect();
    let at = |word: &str| blurred.contains(&format!("\"{word}\": "));
    words.into_iter().filter(|word| at(word)).map(str::to_owned).collect()
}

fn trial(event: &Value) -> bool {
    event["type"] == "test" && event["event"] != "started"
}

fn both(words: &str) -> (Ended, Ended) {
    let twins = Twins::new();
    let line = Line::of(words);
    (twins.libtests(&line.after("-Zunstable-options")), twins.ours(&line))
}

fn every_line_is_an_event_in_libtests_words() {
    for words in
        ["", "--report-time", "--show-output", "--report-time --show-output", "a_says zzz", "--exact a_says c_errs"]
    {
        let (libtests, ours) = both(&format!("--format=json {words}"));
        events(&ours);
        let order = |ended: &Ended| ended.stdout.lines().map(fields).collect::<Vec<_>>();
        assert_eq!(order(&libtests), order(&ours), "{words}");
        assert_eq!(blurred(&libtests.stdout).replace("m::x", "m/x"), blurred(&ours.stdout), "{words}");
    }
}

/// The tests of that crate are ignored for our reason.
fn an_ignored_trial_is_libtests_with_a_reason() {
    let twins = Twins::new();
    for words in ["--format=json", "", "-q", "--color always", "--format=json --report-time --show-output", "a_"] {
        if words.contains("always") && !has_colors() {
            continue;
        }
        let ours = twins.ours(&Line::of("--bench --logfile log").after(words));
        ours.code(0);
        let log = twins.project.text("log");
        let line = Line::of("--logfile log -Zunstable-options").after(words);
        let libtests = twins.libtests_of(&reference().ignored, &line);
        let folders = |text: &str| blurred(text).replace("m::x", "m/x");
        assert_eq!(folders(&libtests.stdout), folders(&ours.stdout), "{words}");
        assert_eq!(folders(&twins.project.text("log")), folders(&log), "{words}");
    }
    let ended = twins.ours(&Line::of("--bench --format=json"));
    let ignored: Vec<_> = events(&ended).into_iter().filter(|event| event["event"] == "ignored").collect();
    assert_eq!(ignored.len(), NAMES.len());
    assert!(
        ignored.iter().all(|event| event["message"].as_str().is_some_and(|message| !message.is_empty())),
        "{ended}"
    );
    assert!(!twins.project.path("proof").exists(), "a run of no benchmarks has left a proof");
}

fn a_trial_has_a_time_only_if_it_is_asked_for() {
    for (words, has_time) in [("", false), ("--report-time", true), ("--ensure-time", true)] {
        let ended = Twins::new().ours(&Line::of("--format=json").after(words));
        for event in events(&ended) {
            let is_expected = event["type"] == "suite" && event["event"] != "started" || trial(&event) && has_time;
            assert_eq!(event["exec_time"].is_number(), is_expected, "{words}: {event}");
        }
    }
}

fn output_stands_where_libtest_has_it() {
    let twins = Twins::new();
    for (words, expected) in [("", vec!["b_fails", "c_errs"]), ("--show-output", vec!["a_says", "b_fails", "c_errs"])] {
        let ended = twins.ours(&Line::of("--format=json").after(words));
        let with: Vec<_> = events(&ended).into_iter().filter(|event| event["stdout"].is_string()).collect();
        assert_eq!(with.iter().map(|event| event["name"].clone()).collect::<Vec<_>>(), expected, "{ended}");
        let said = |name: &str| with.iter().find(|event| event["name"] == name).unwrap()["stdout"].as_str().unwrap();
        assert!(said("b_fails").contains("words") && said("c_errs").contains("exited with code 3"), "{ended}");
        assert!(words.is_empty() || said("a_says").contains("words of a pass"), "{ended}");
    }
    // Live output has its own stream: these events stay events.
    for words in ["--nocapture", "--no-capture", "RUST_TEST_NOCAPTURE=1"] {
        let ended = twins.ours(&Line::of(&format!("--format=json {words}")));
        assert_eq!(events(&ended).len(), 2 + 2 * NAMES.len());
        ended.stderr_says("words of a pass");
    }
}

fn fail_fast_ends_the_run_where_libtest_ends_it() {
    let (libtests, ours) = both("--format=json --fail-fast");
    assert_eq!(blurred(&libtests.stdout), blurred(&ours.stdout));
    let last = events(&ours).pop().unwrap();
    let counts = ["passed", "failed", "ignored", "filtered_out"].map(|key| last[key].as_u64().unwrap());
    assert_eq!((last["event"].as_str().unwrap(), counts), ("failed", [2, 1, 0, 0]));
    ours.code(101);
    // What was not run is in no report at all.
    let (libtests, ours) = both("--format=junit --fail-fast");
    assert_eq!(crate::seen::cases(&libtests.stdout), crate::seen::cases(&ours.stdout));
}

fn nothing_selected_is_two_events() {
    let ended = Twins::new().ours(&Line::of("--format=json zzz"));
    ended.code(0);
    let events = events(&ended);
    assert_eq!(
        (events.len(), &events[0]["test_count"], &events[1]["filtered_out"]),
        (2, &0.into(), &6.into()),
        "{ended}"
    );
}

fn times_are_numbers_without_an_exponent() {
    let ended = Twins::new().ours(&Line::of("--format=json --report-time"));
    let times: Vec<_> = ended.stdout.split("\"exec_time\": ").skip(1).collect();
    assert_eq!(times.len(), NAMES.len() + 1);
    for time in times {
        let number = time.split([' ', ',', '}']).next().unwrap();
        assert!(number.parse::<f64>().is_ok() && number.chars().all(|c| c.is_ascii_digit() || c == '.'), "{number}");
    }
}

fn control_characters_are_escaped() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "printf 'a\\033[31m\\x07\\x7f\"\\\\b\\tc\\r\\xff\\n'; exit 1")]);
    let ended = project.run(&["--format=json"]);
    assert!(ended.stdout.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", ended.stdout);
    let events = events(&ended);
    let said = events[2]["stdout"].as_str().unwrap();
    assert!(said.chars().all(|c| matches!(c, '\n' | '\t') || !c.is_control()), "{said:?}");
    assert!(said.contains("\"\\b\tc"), "{said:?}");
}

/// Set-ups whose scripts wait for each other.
fn meeting() -> Project {
    let project = Project::new();
    for (mine, other) in [("a", "b"), ("b", "a")] {
        let folder = project.path("");
        let folder = folder.display();
        let wait = "n=0; while [ ! -s $other ]; do n=$((n + 1)); [ $n -lt 3000 ] || exit 1; sleep 0.01; done";
        project
            .file(format!("suites/{mine}/1.sh"), format!("echo x >{folder}/{mine}; other={folder}/{other}; {wait}\n"));
    }
    project
}

fn what_runs_at_the_same_time_is_told_apart() {
    let ended = meeting().run(&["--format=json", "--test-threads=2", "--report-time"]);
    ended.code(0);
    let events = events(&ended);
    let words: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(words, ["started", "started", "started", "ok", "ok", "ok"], "{ended}");
    for range in [1..3, 3..5] {
        let names: BTreeSet<_> = events[range].iter().map(|event| event["name"].as_str().unwrap()).collect();
        assert_eq!(names, BTreeSet::from(["a/1", "b/1"]), "{ended}");
    }
    // The same for people: whole lines, as libtest has them with more than one thread.
    let ended = meeting().run(&["--test-threads=2"]);
    let lines: BTreeSet<_> = ended.stdout.lines().filter(|line| line.starts_with("test ")).collect();
    assert!(lines.contains("test a/1 ... ok") && lines.contains("test b/1 ... ok"), "{ended}");
}

fn shuffled_scripts_show_their_seed() {
    let project = Project::new();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        project.file(format!("suites/{name}/1.sh"), "exit 0\n");
    }
    let order = |words: &[&str]| {
        let ended = project.run(&[&["--format=json"], words].concat());
        let events = events(&ended);
        let seed = events[0]["shuffle_seed"].as_u64().unwrap_or_else(|| panic!("{words:?}: {ended}"));
        assert_eq!(fields(ended.stdout.lines().next().unwrap()), ["type", "event", "test_count", "shuffle_seed"]);
        (seed, events.iter().filter(|event| trial(event)).map(|event| event["name"].to_string()).collect::<Vec<_>>())
    };
    let (seed, seventh) = order(&["--shuffle-seed", "7"]);
    assert_eq!((seed, &seventh), (7, &order(&["--shuffle", "--shuffle-seed=7"]).1));
    let orders: BTreeSet<_> = (0..8).map(|seed| order(&["--shuffle-seed", &seed.to_string()]).1).collect();
    assert!(orders.len() > 1, "no seed changes the order: {orders:?}");
    let (seed, drawn) = order(&["--shuffle"]);
    assert_eq!(drawn, order(&["--shuffle-seed", &seed.to_string()]).1);
    let ended = project.run(&["--shuffle-seed", "7"]);
    ended.says("\nrunning 8 tests (shuffle seed: 7)\n");
}

fn a_listing_has_every_field() {
    let (twins, line) = (Twins::new(), Line::of("--list --format=json"));
    let (libtests, ours) = (twins.libtests(&line.after("-Zunstable-options")), twins.ours(&line));
    let order = |ended: &Ended| ended.stdout.lines().map(fields).collect::<Vec<_>>();
    assert_eq!(order(&libtests), order(&ours));
    for (event, name) in events(&ours).iter().skip(1).zip(NAMES) {
        assert_eq!(event["name"], name);
        let source = event["source_path"].as_str().unwrap();
        assert!(std::path::Path::new(source).is_file(), "{source}");
        assert!(event["start_line"].as_u64().is_some_and(|line| line > 0), "{event}");
    }
}

/// 200 trials that do not run cost nothing.
fn terse_lines_break_where_libtests_do() {
    let project = Project::new();
    for number in 0..200 {
        project.suite(&format!("t{number:03}"), &[("execute", "true")]);
    }
    let ended = project.run(&["-q", "--bench"]);
    let lines: Vec<_> = ended.stdout.lines().collect();
    let (row, rest) = ("i".repeat(87), "i".repeat(26));
    assert_eq!(
        lines[..5],
        ["", "running 200 tests", &format!("{row} 87/200"), &format!("{row} 174/200"), &rest],
        "{ended}"
    );
    assert!(lines[5].starts_with("test result: ok. 0 passed; 0 failed; 200 ignored;"), "{ended}");
}

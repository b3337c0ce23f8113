//! What IDEs send, read as they read it. Their command lines: rust-analyzer's `test_runner.rs` and `target_spec.rs`, the
//! Rust plugin of IntelliJ's `CargoTestRunState.kt`, their readers: `CargoTestOutput` and `CargoTestEventsConverter`.

use std::collections::{BTreeMap, BTreeSet};

use libtest_mimic::Trial;
use pretty_assertions::assert_eq;
use serde::Deserialize;

use crate::line::Line;
use crate::twins::{NAMES, Twins};
use crate::world::{Ended, NO_CONTAINER, Project, claim, root_claim};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(rust_analyzers_explorer_sees_every_trial_end),
        claim(rust_analyzers_explorer_finds_a_folder),
        claim(rust_analyzers_lens_runs_one_trial),
        claim(intellij_sees_every_trial_end),
        claim(intellij_adds_its_flags_to_those_of_its_user),
        claim(intellij_shows_why_a_trial_failed),
        root_claim(running_all_cannot_change_a_laptop),
    ]
}

/// A line, as rust-analyzer's test explorer understands it. Everything else is shown as text that nobody asked for.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Message {
    Test {
        name: String,
        #[serde(flatten)]
        state: State,
    },
    Suite,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum State {
    Started,
    Ok,
    Ignored,
    Failed {
        #[serde(default)]
        stdout: String,
    },
}

/// The last state of each trial. One that ended was started before.
fn states(ended: &Ended) -> BTreeMap<String, State> {
    let mut states = BTreeMap::new();
    for line in ended.stdout.lines() {
        let message = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{ended}"));
        if let Message::Test { name, state } = message {
            let before = states.insert(name, state);
            let is_start = line.contains(r#""event": "started""#);
            assert_eq!(before, (!is_start).then_some(State::Started), "{line}");
        }
    }
    states
}

fn bootstrap(words: &str) -> Line {
    Line::of(&format!("RUSTC_BOOTSTRAP=1 {words}"))
}

fn rust_analyzers_explorer_sees_every_trial_end() {
    let twins = Twins::new();
    for extra in ["", "--show-output", "--nocapture", "--show-output --nocapture"] {
        let ended = twins.ours(&bootstrap(&format!("-Z unstable-options --format=json {extra}")));
        let states = states(&ended);
        assert_eq!(states.keys().collect::<Vec<_>>(), NAMES);
        for (name, state) in &states {
            match state {
                State::Failed { stdout } => {
                    assert!(["b_fails", "c_errs"].contains(&name.as_str()) && !stdout.is_empty());
                }
                State::Ok => assert!(!["b_fails", "c_errs"].contains(&name.as_str())),
                State::Started | State::Ignored => panic!("{name} did not end: {ended}"),
            }
        }
    }
    let states = states(&twins.ours(&bootstrap("-Z unstable-options --format=json --bench")));
    assert!(states.len() == NAMES.len() && states.values().all(|state| *state == State::Ignored), "{states:?}");
}

/// It sends the path of a module as a filter.
fn rust_analyzers_explorer_finds_a_folder() {
    let ended = Twins::new().ours(&bootstrap("m -Z unstable-options --format=json --show-output"));
    assert_eq!(states(&ended), BTreeMap::from([("m/x".to_owned(), State::Ok)]));
}

fn rust_analyzers_lens_runs_one_trial() {
    let twins = Twins::new();
    for extra in ["--show-output", "--nocapture", "--exact", ""] {
        let words = format!("m/x {extra}");
        let words = if extra == "--exact" { words } else { format!("{words} --exact") };
        let ended = twins.ours(&Line::of(&words));
        ended.code(0).says("\nrunning 1 test\ntest m/x ... ok\n");
    }
    // For a test with `#[ignore]`; there is none.
    twins.ours(&Line::of("m/x --exact --show-output --ignored")).code(0).says("running 0 tests");
}

/// What the plugin reads of a line. Numbers may be strings there, nothing else may be missing.
#[derive(Debug, Deserialize)]
struct Event {
    r#type: String,
    event: String,
    name: Option<String>,
    stdout: Option<String>,
    test_count: Option<u64>,
}

/// The plugin builds its tree of starts and ends: each trial once, within one suite.
fn tree(ended: &Ended) -> BTreeMap<String, Event> {
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{ended}"));
    let mut events: Vec<Event> = ended.stdout.lines().map(read).collect();
    let (first, last) = (events.remove(0), events.pop().unwrap());
    assert!(first.r#type == "suite" && first.event == "started" && last.r#type == "suite", "{ended}");
    assert!(["ok", "failed"].contains(&last.event.as_str()), "{ended}");
    let (mut started, mut ends) = (BTreeSet::new(), BTreeMap::new());
    for event in events {
        let name = event.name.clone().unwrap();
        assert_eq!(event.r#type, "test");
        // It takes what precedes " - " for the file of a doctest.
        assert!(!name.contains(" - ") && !name.contains('\\'), "{name}");
        if event.event == "started" {
            assert!(started.insert(name), "{event:?}");
        } else {
            assert!(started.contains(&name) && ends.insert(name, event).is_none(), "{ended}");
        }
    }
    assert_eq!((first.test_count, started.len()), (Some(ends.len() as u64), ends.len()), "{ended}");
    ends
}

fn intellij_sees_every_trial_end() {
    let ended = Twins::new().ours(&bootstrap("-Z unstable-options --format=json --show-output"));
    let ends = tree(&ended);
    assert_eq!(ends.keys().collect::<Vec<_>>(), NAMES);
    assert!(ends["a_says"].stdout.as_deref().is_some_and(|text| text.contains("words of a pass")), "{ended}");
}

fn intellij_adds_its_flags_to_those_of_its_user() {
    let twins = Twins::new();
    for theirs in
        ["a_says --exact", "--exact a_says --nocapture", "a_says -q", "--test-threads=1 a_", "--include-ignored a_says"]
    {
        let ended = twins.ours(&bootstrap(&format!("{theirs} -Z unstable-options --format=json --show-output")));
        assert_eq!(tree(&ended).keys().collect::<Vec<_>>(), ["a_says"], "{theirs}");
    }
    assert!(tree(&twins.ours(&bootstrap("zzz -Z unstable-options --format=json --show-output"))).is_empty());
}

/// It splits the text at the first line that begins with `thread`: what precedes is output, what follows the failure.
fn intellij_shows_why_a_trial_failed() {
    let ended = Twins::new().ours(&bootstrap("-Z unstable-options --format=json --show-output"));
    let ends = tree(&ended);
    let text = ends["c_errs"].stdout.clone().unwrap();
    assert!(!text.lines().any(|line| line.trim_start().to_lowercase().starts_with("thread")), "{text}");
    assert!(text.contains("exited with code 3"), "{text}");
}

/// IDEs run every target of a workspace, with what is ignored.
fn running_all_cannot_change_a_laptop() {
    for words in [
        "--include-ignored",
        "--include-ignored --nocapture",
        "--ignored --include-ignored",
        "-Z unstable-options --format=json --show-output --include-ignored",
        "-Z unstable-options --format=json",
        "--exact 10-a --show-output",
        "",
    ] {
        let project = Project::bare().wrapped(&["unshare", "--mount", "sh", "-c", NO_CONTAINER, "sh"]);
        project.suite(
            "10-a",
            &[("prepare", "echo ran >>order"), ("execute", "echo ran >>order"), ("restore", "echo ran >>order")],
        );
        let ended = project.run(&words.split_whitespace().collect::<Vec<_>>());
        ended.code(2).stderr_says("no container").stderr_says("isolation: none");
        // Not even the beginning of a report: an IDE would show trials that hang.
        assert_eq!((ended.stdout.as_str(), project.order().len()), ("", 0), "{words}");
        assert!(!project.path("proof/results").exists(), "{words}");
    }
}

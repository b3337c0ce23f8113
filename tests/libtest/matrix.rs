//! Every flag of libtest alone, wrong, twice, and with every other.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Trial;
use pretty_assertions::StrComparison;

use crate::line::{Line, pairs};
use crate::seen::{Seen, blurred, cases};
use crate::table::{TABLE, as_if, otherwise};
use crate::twins::Twins;
use crate::world::{claim, is_ci};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(every_command_line_does_what_libtest_does),
        claim(every_flag_of_libtest_is_known_here),
        claim(a_refusal_names_what_libtest_names),
        claim(what_is_compared_is_not_blurred_away),
    ]
}

/// Flags of libtest 1.95, each with a value if it takes one.
const FLAGS: [(&str, &str); 23] = [
    ("--include-ignored", ""),
    ("--ignored", ""),
    ("--force-run-in-process", ""),
    ("--exclude-should-panic", ""),
    ("--test", ""),
    ("--bench", ""),
    ("--list", ""),
    ("--fail-fast", ""),
    ("--help", ""),
    ("--logfile", "log"),
    ("--no-capture", ""),
    ("--test-threads", "1"),
    ("--skip", "a_"),
    ("--quiet", ""),
    ("--exact", ""),
    ("--color", "always"),
    ("--format", "terse"),
    ("--show-output", ""),
    ("-Z", "unstable-options"),
    ("--report-time", ""),
    ("--ensure-time", ""),
    ("--shuffle", ""),
    ("--shuffle-seed", "7"),
];

/// What may stand together: a level of each. Filters come last, behind `--` or not.
const FACTORS: [&[&str]; 17] = [
    &["", "-Z unstable-options", "-Zunstable-options"],
    &["", "--exact"],
    &["", "--skip a_", "--skip=B_pass --skip m", "--skip zzz"],
    &["", "-q", "--quiet --format pretty", "--format terse", "--format=json", "--format=junit", "-q --format json"],
    &["", "--nocapture", "--no-capture", "RUST_TEST_NOCAPTURE=1", "RUST_TEST_NOCAPTURE=0", "--nocapture --no-capture"],
    &["", "--show-output"],
    &["", "--test-threads 1", "--test-threads=2", "RUST_TEST_THREADS=2", "RUST_TEST_THREADS=0 --test-threads 1"],
    &["", "--include-ignored", "", "--ignored", "--ignored --include-ignored"],
    &["", "--test", "--bench", "--bench --test"],
    &["", "--logfile log"],
    &["", "--color always", "--color=never", "--color auto"],
    &[
        "",
        "--report-time",
        "--ensure-time",
        "--report-time --ensure-time",
        "RUST_TEST_TIME_INTEGRATION=0,0 --ensure-time",
    ],
    &[
        "",
        "--shuffle",
        "--shuffle-seed 7",
        "--shuffle --shuffle-seed=8",
        "RUST_TEST_SHUFFLE=1",
        "RUST_TEST_SHUFFLE_SEED=7",
    ],
    &["", "--fail-fast"],
    &["", "--exclude-should-panic", "--force-run-in-process"],
    &["", "--"],
    &["", "a_says", "b_ m/x", "zzz", "''", "B_pass d_pass zzz", "ä·\"b\"", "_", "a·b 'c"],
];

/// What is wrong, or looks so.
const ODD: [&str; 66] = [
    "--test-threads 0",
    "--test-threads abc",
    "--test-threads -1",
    "--test-threads=",
    "--test-threads=99999999999999999999",
    "--test-threads",
    "RUST_TEST_THREADS=abc",
    "RUST_TEST_THREADS=0",
    "RUST_TEST_THREADS=",
    "RUST_TEST_THREADS=-1",
    "RUST_TEST_THREADS=1.5",
    "RUST_TEST_THREADS=0 zzz",
    "RUST_TEST_THREADS=abc --test-threads 1",
    "RUST_TEST_THREADS=1 --test-threads 0",
    "--format xml",
    "--format",
    "--format=",
    "--format JSON",
    "--color red",
    "--color",
    "--shuffle-seed",
    "--shuffle-seed abc",
    "--shuffle-seed -1",
    "--shuffle-seed 18446744073709551616",
    "--shuffle-seed 18446744073709551615",
    "RUST_TEST_SHUFFLE_SEED=x",
    "RUST_TEST_SHUFFLE_SEED=x --shuffle-seed 3",
    "RUST_TEST_SHUFFLE=0",
    "RUST_TEST_SHUFFLE=",
    "RUST_TEST_NOCAPTURE=",
    "RUST_TEST_TIME_INTEGRATION=abc",
    "RUST_TEST_TIME_INTEGRATION=abc --report-time",
    "--report-time=plain",
    "-Z",
    "-Z foo",
    "-Zfoo",
    "--Z unstable-options",
    "--unstable-options",
    "--logfile no/such/folder/log",
    "--logfile",
    "--no-such-flag",
    "--nocapture=1",
    "--list=1",
    "--lis",
    "-x",
    "-l",
    "-qq",
    "-qh",
    "-hq",
    "-h zzz",
    "--help --no-such-flag",
    "--help --format xml",
    "--help --test-threads 0",
    "--skip",
    "--skip=",
    "--skip '' --exact",
    "--exact ''",
    "--exact m/x a_says",
    "--exact M/X",
    "-",
    "-- -",
    "-- --list",
    "-- --no-such-flag",
    "a_says -- --skip a_",
    "a_says --exact --skip a_says",
    "--nocapture --nocapture",
];

fn lines() -> Vec<Line> {
    let has_colors = has_colors();
    let alone = FLAGS.iter().map(|(flag, value)| Line::of(&format!("{flag} {value}")));
    let twice = FLAGS.iter().map(|(flag, value)| Line::of(&format!("{flag} {value} {flag} {value}")));
    let odd = ODD
        .iter()
        .flat_map(|text| [Line::of(text), Line::of(text).after("--list"), Line::of(text).after("--bench -q")]);
    let runs = pairs(&FACTORS);
    let lists: Vec<_> = runs.iter().map(|line| line.after("--list")).collect();
    alone
        .chain(twice)
        .chain(odd)
        .chain(runs)
        .chain(lists)
        .chain([Line::default()])
        .filter(|line| has_colors || line.value("--color") != Some("always"))
        .collect()
}

/// Tells whether libtest finds the terminal that it is told of, in terminfo.
pub(crate) fn has_colors() -> bool {
    let has_colors = Twins::new().libtests(&Line::of("--color always d_pass")).stdout.contains('\u{1b}');
    assert!(has_colors || !is_ci(), "CI must have the terminfo of xterm");
    has_colors
}

/// What came of all lines.
#[derive(Default)]
struct Found {
    differences: Vec<String>,
    used: BTreeSet<usize>,
}

fn every_command_line_does_what_libtest_does() {
    let (lines, next, found) = (lines(), AtomicUsize::new(0), Mutex::new(Found::default()));
    let worker = || {
        let twins = Twins::new();
        while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
            compare(&twins, line, &found);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(worker);
        }
    });
    let Found { differences, used } = found.into_inner().unwrap();
    let all = differences.len();
    assert!(
        all == 0,
        "{all} of {} command lines differ from libtest, and no row of tests/libtest/table.rs says why:\n\n{}",
        lines.len(),
        differences.join("\n")
    );
    let stale = TABLE.iter().enumerate().filter(|(number, _)| !used.contains(number));
    let stale: Vec<_> = stale.map(|(_, row)| format!("{} ({})", row.what, row.why)).collect();
    assert!(stale.is_empty(), "these intended differences are none any more; remove them from the table: {stale:#?}");
}

fn compare(twins: &Twins, line: &Line, found: &Mutex<Found>) {
    let (real, rows) = as_if(line);
    let (libtests, ours) = twins.both(&real, line);
    let (expected, more) = otherwise(line, &libtests);
    let is_document = ours.stdout.starts_with("<?xml");
    let ours = if is_document { Seen { stdout: cases(&ours.stdout), ..ours } } else { ours };
    let mut found = found.lock().unwrap();
    if ours == expected {
        found.used.extend(rows.into_iter().chain(more));
        return;
    }
    let (expected, ours) = (expected.to_string(), ours.to_string());
    found.differences.push(format!(
        "== {line}\n   left, libtest as: {real}\n   right, ours\n{}",
        StrComparison::new(&expected, &ours)
    ));
}

/// What libtest's `--help` names.
fn flags_of(help: &str) -> BTreeSet<String> {
    let words = help.lines().filter(|line| line.trim_start().starts_with('-')).flat_map(|line| {
        let words = line.split_whitespace().take_while(|word| word.starts_with('-'));
        words.map(|word| word.trim_end_matches(',').to_owned()).collect::<Vec<_>>()
    });
    words.collect()
}

fn every_flag_of_libtest_is_known_here() {
    let twins = Twins::new();
    let libtests = flags_of(&twins.libtests(&Line::of("--help")).code(0).stdout);
    let ours = flags_of(&twins.ours(&Line::of("--help")).code(0).stdout);
    assert!(libtests.contains("--list") && libtests.contains("-q"), "libtest's --help is read wrongly: {libtests:?}");
    let ours: BTreeSet<_> = ours.difference(&libtests).chain(libtests.difference(&ours)).cloned().collect();
    // It is hidden there.
    let ours: Vec<_> = ours.into_iter().filter(|flag| flag != "--nocapture").collect();
    assert!(
        ours.is_empty(),
        "{ours:?}: libtest's --help and ours differ; teach src/harness/flags.rs the flag of the new Rust, or forget it"
    );
    let known: BTreeSet<_> = FLAGS.iter().map(|(flag, _)| (*flag).to_owned()).collect();
    let new: Vec<_> = libtests.iter().filter(|flag| flag.starts_with("--") && !known.contains(*flag)).collect();
    assert!(new.is_empty(), "{new:?}: libtest has new flags; add them to FLAGS and FACTORS in tests/libtest/matrix.rs");
}

fn a_refusal_names_what_libtest_names() {
    let twins = Twins::new();
    let mut tried = 0;
    for text in ODD {
        let line = Line::of(text);
        let libtests = twins.libtests(&as_if(&line).0);
        let Some((_, words)) = libtests.stderr.split_once("error: ").filter(|_| libtests.stdout.is_empty()) else {
            continue;
        };
        let ours = twins.ours(&line);
        // Option 'list', Unrecognized option: 'x', (was red), --test-threads, --shuffle-seed.
        let names =
            words.split([' ', '(', ')', '\n']).filter(|word| word.starts_with(['\'', '-', '`'])).chain(quoted(words));
        for name in names.map(|name| name.trim_matches(['\'', '`', ':'])) {
            assert!(
                ours.stderr.contains(name),
                "`{name}` is not named:\n{line}\nlibtest: {words}\nours: {}",
                ours.stderr
            );
            tried += 1;
        }
    }
    assert!(tried > 20, "only {tried} refusals were compared");
}

/// The word after `was`.
fn quoted(words: &str) -> Option<&str> {
    words.split_once("(was ").and_then(|(_, rest)| rest.split(')').next())
}

fn what_is_compared_is_not_blurred_away() {
    let alike = [
        ("test a ... ok <0.012s>\n", "test a ... ok <1.0s>\n"),
        ("; finished in 0.01s\n", "; finished in 12.50s\n"),
        ("---- a stdout ----\nx\ny\n\n\nfailures:\n    a\n", "---- a stdout ----\nz\n\n\nfailures:\n    a\n"),
        (r#""exec_time": 0.5, "stdout": "a\"b\\" }"#, r#""exec_time": 1, "stdout": "c" }"#),
        ("(shuffle seed: 1234567)", "(shuffle seed: 98765432)"),
    ];
    for (one, other) in alike {
        assert_eq!(blurred(one), blurred(other));
    }
    let different = [
        ("test a ... ok <0.012s>\n", "test a ... ok\n"),
        ("test a ... ok\n", "test a  ... ok\n"),
        ("\ntest result: ok", "test result: ok"),
        ("---- a stdout ----\nx\n\n\nfailures:\n", "---- a stdout ----\nx\n\nfailures:\n"),
        ("---- a stdout ----\nx\n\n---- b stdout ----\n", "---- b stdout ----\nx\n\n---- a stdout ----\n"),
        (r#""exec_time": 0.5 }"#, r#""exec_time": 5e-1 }"#),
        (r#""exec_time": 0.5 }"#, r#""exec_time": "0.5" }"#),
        (r#"{ "name": "a", "event": "ok" }"#, r#"{ "event": "ok", "name": "a" }"#),
        (r#""stdout": "a", "message": "b""#, r#""message": "b", "stdout": "a""#),
        ("(shuffle seed: 7)", "(shuffle seed: 8)"),
        ("\u{1b}[31mFAILED\u{1b}(B\u{1b}[m", "FAILED"),
    ];
    for (one, other) in different {
        assert_ne!(blurred(one), blurred(other));
    }
}

//! The command line of libtest, all of it: what test runners and IDEs send is accepted, whatever is done with it.

use getopts::{HasArg, Occur, Options};

use crate::os::host::LibtestVariables;

/// What the command line asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) help: bool,
    pub(super) list: bool,
    pub(super) exact: bool,
    pub(super) nocapture: bool,
    pub(super) show_output: bool,
    pub(super) report_time: bool,
    pub(super) shuffle: Option<Shuffle>,
    pub(super) ignored: bool,
    pub(super) include_ignored: bool,
    pub(super) bench: bool,
    pub(super) fail_fast: bool,
    pub(super) test_threads: Option<usize>,
    pub(super) format: Format,
    pub(super) color: Color,
    pub(super) logfile: Option<String>,
    pub(super) skip: Vec<String>,
    pub(super) filters: Vec<String>,
}

/// `--shuffle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shuffle {
    Random,
    Seed(u64),
}

/// `--format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Pretty,
    Terse,
    Json,
    Junit,
}

/// `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// Why a command line is refused, in libtest's words where it has some.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct FlagError(String);

/// Flags of libtest, as `rustc --test` of Rust 1.95 prints them: long name, short name, whether a value follows, help.
const FLAGS: [(&str, &str, HasArg, &str); 24] = [
    ("include-ignored", "", HasArg::No, "run ignored and not ignored tests (none is ignored here)"),
    ("ignored", "", HasArg::No, "run only ignored tests (none is ignored here)"),
    ("force-run-in-process", "", HasArg::No, "accepted; scripts always run in processes of their own"),
    ("exclude-should-panic", "", HasArg::No, "accepted; no test is expected to panic"),
    ("test", "", HasArg::No, "run tests and not benchmarks"),
    ("bench", "", HasArg::No, "run benchmarks instead of tests (there are none)"),
    ("list", "", HasArg::No, "list all tests"),
    ("help", "h", HasArg::No, "display this message"),
    ("logfile", "", HasArg::Yes, "also write a line for each test to the file given"),
    ("nocapture", "", HasArg::No, "show the output of scripts on stderr while they run"),
    ("no-capture", "", HasArg::No, "the same"),
    (
        "test-threads",
        "",
        HasArg::Yes,
        "how many tests may run at once; suites that share a file system run one at a time",
    ),
    ("skip", "", HasArg::Yes, "skip tests whose names contain this (may be repeated)"),
    ("quiet", "q", HasArg::No, "one character for each test; the same as --format terse"),
    ("exact", "", HasArg::No, "filters are whole names"),
    ("color", "", HasArg::Yes, "auto, always or never"),
    ("format", "", HasArg::Yes, "pretty, terse, json or junit"),
    ("show-output", "", HasArg::No, "show the last lines of the output of tests that pass, too"),
    ("unstable-options", "Z", HasArg::Yes, "accepted; nothing here is unstable"),
    ("report-time", "", HasArg::No, "show the time of each test"),
    ("ensure-time", "", HasArg::No, "as --report-time; limits are set by kill-timeout and SUITE_TIMEOUT_SEC"),
    ("shuffle", "", HasArg::No, "run tests in random order, but for suites, which share a file system"),
    ("shuffle-seed", "", HasArg::Yes, "as --shuffle, in the order that belongs to this number"),
    ("fail-fast", "", HasArg::No, "do not run the tests after the first that fails"),
];

/// Parses the arguments after the program's name.
///
/// # Errors
/// On a flag that libtest does not know, or a value that it refuses.
pub(super) fn parse(args: &[String], variables: &LibtestVariables) -> Result<Flags, FlagError> {
    let matches = options().parse(args).map_err(|error| FlagError(format!("{error}; see --help")))?;
    let has = |name| matches.opt_present(name);
    if has("help") {
        // Who asks for help is not told what else is wrong.
        return Ok(Flags { help: true, ..Flags::default() });
    }
    let value = |name| matches.opt_str(name);
    if let Some(other) = value("Z").filter(|value| value != "unstable-options") {
        return Err(FlagError(format!("unknown argument `{other}` of -Z; unstable-options is the only one")));
    }
    let format = word("format", value("format"), &FORMATS, "pretty, terse, json or junit")?;
    Ok(Flags {
        help: false,
        list: has("list"),
        exact: has("exact"),
        nocapture: has("nocapture") || has("no-capture") || variables.nocapture,
        show_output: has("show-output"),
        report_time: has("report-time") || has("ensure-time"),
        shuffle: shuffle(has("shuffle"), value("shuffle-seed").as_deref(), variables)?,
        ignored: has("ignored"),
        include_ignored: has("include-ignored"),
        bench: has("bench") && !has("test"),
        fail_fast: has("fail-fast"),
        // As libtest, a listing does not look at the variable: it starts no thread.
        test_threads: test_threads(
            value("test-threads").as_deref(),
            variables.threads.as_deref().filter(|_| !has("list")),
        )?,
        format: format.unwrap_or(if has("quiet") { Format::Terse } else { Format::Pretty }),
        color: word("color", value("color"), &COLORS, "auto, always, or never")?.unwrap_or_default(),
        logfile: value("logfile"),
        skip: matches.opt_strs("skip"),
        filters: matches.free,
    })
}

const FORMATS: [(&str, Format); 4] =
    [("pretty", Format::Pretty), ("terse", Format::Terse), ("json", Format::Json), ("junit", Format::Junit)];

const COLORS: [(&str, Color); 3] = [("auto", Color::Auto), ("always", Color::Always), ("never", Color::Never)];

fn word<T: Copy>(flag: &str, value: Option<String>, words: &[(&str, T)], wanted: &str) -> Result<Option<T>, FlagError> {
    let Some(value) = value else { return Ok(None) };
    let found = words.iter().find(|(word, _)| *word == value);
    found
        .map(|(_, meaning)| Some(*meaning))
        .ok_or_else(|| FlagError(format!("argument for --{flag} must be {wanted} (was {value})")))
}

/// Returns the text of `--help`.
pub(super) fn help(program: &str) -> String {
    let usage = options().usage(&format!("Usage: {program} [OPTIONS] [FILTERS...]"));
    format!(
        "{usage}\n\
         Each FILTER is looked for in the names of suites and scripts; one that contains any of them runs.\n\
         By default suites run one at a time, in the order of their names. Settings come from the environment\n\
         (TEST_FILTER, SUITE_TIMEOUT_SEC, CARGO_PROFILE, RUSTUP_TOOLCHAIN, PROJECT_DIR, SUITES_DIR, PROOF_DIR,\n\
         RUNNER_JSONL) and from runner.yaml in the suites folder. Evidence is in the proof folder, .proof by default.\n"
    )
}

fn options() -> Options {
    let mut options = Options::new();
    for (long, short, has_arg, help) in FLAGS {
        let hint = if has_arg == HasArg::No { "" } else { "VALUE" };
        let occur = if long == "skip" { Occur::Multi } else { Occur::Optional };
        options.opt(short, if short == "Z" { "" } else { long }, help, hint, has_arg, occur);
    }
    options
}

fn shuffle(flag: bool, seed: Option<&str>, variables: &LibtestVariables) -> Result<Option<Shuffle>, FlagError> {
    let (text, of) = match (seed, variables.shuffle_seed.as_deref()) {
        (Some(text), _) => (text, "argument for --shuffle-seed"),
        (None, Some(text)) => (text, "RUST_TEST_SHUFFLE_SEED"),
        (None, None) => return Ok((flag || variables.shuffle).then_some(Shuffle::Random)),
    };
    let seed = text.parse().map_err(|error| FlagError(format!("{of} must be a number (`{text}`: {error})")))?;
    Ok(Some(Shuffle::Seed(seed)))
}

fn test_threads(flag: Option<&str>, variable: Option<&str>) -> Result<Option<usize>, FlagError> {
    let (text, of) = match (flag, variable) {
        (Some(text), _) => (text, "argument for --test-threads"),
        (None, Some(text)) => (text, "RUST_TEST_THREADS"),
        (None, None) => return Ok(None),
    };
    match text.parse() {
        Ok(0) => Err(FlagError(format!("{of} must not be 0"))),
        Ok(threads) => Ok(Some(threads)),
        Err(error) => Err(FlagError(format!("{of} must be a number > 0 (`{text}`: {error})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn parsed(line: &str) -> Result<Flags, String> {
        let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        parse(&args, &LibtestVariables::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_runners_and_ides_send_is_accepted() {
        for line in [
            "--list --format terse --ignored",
            "--exact a/b --nocapture",
            "-Z unstable-options --format=json --show-output",
            "--no-capture a b c",
            "-q --format pretty",
            "--report-time --ensure-time --shuffle --shuffle-seed 7 --fail-fast",
            "--exclude-should-panic --force-run-in-process",
            "--ignored --include-ignored",
            "--test-threads=4 --color always --logfile x --skip a --skip b",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
        }
    }

    #[test]
    fn filters_and_skips_may_be_many() {
        let flags = parsed("a --skip x b --skip y").unwrap();
        assert_eq!((flags.filters, flags.skip), (vec!["a".into(), "b".into()], vec!["x".into(), "y".into()]));
    }

    #[test]
    fn threads_must_be_a_number_above_zero() {
        assert_eq!(parsed("--test-threads 0").unwrap_err(), "argument for --test-threads must not be 0");
        assert!(parsed("--test-threads abc").unwrap_err().contains("`abc`"));
        let variables = LibtestVariables { threads: Some("abc".to_owned()), ..LibtestVariables::default() };
        let error = parse(&[], &variables).unwrap_err().to_string();
        assert!(error.starts_with("RUST_TEST_THREADS must be a number > 0"), "{error}");
        assert_eq!(parse(&["--test-threads=3".into()], &variables).unwrap().test_threads, Some(3));
    }

    #[test]
    fn only_skip_may_be_given_twice() {
        assert!(parsed("--skip a --skip b").is_ok());
        for line in ["-q -q", "--format json --format json", "--test-threads 1 --test-threads 2"] {
            assert!(parsed(line).unwrap_err().contains("more than once"), "{line}");
        }
    }

    #[test]
    fn a_seed_is_a_number() {
        assert_eq!(parsed("--shuffle --shuffle-seed 7").unwrap().shuffle, Some(Shuffle::Seed(7)));
        assert_eq!(parsed("--shuffle").unwrap().shuffle, Some(Shuffle::Random));
        assert!(parsed("--shuffle-seed x").unwrap_err().starts_with("argument for --shuffle-seed must be a number"));
    }

    #[test]
    fn quiet_is_terse_unless_a_format_is_named() {
        assert_eq!(parsed("-q").unwrap().format, Format::Terse);
        assert_eq!(parsed("-q --format pretty").unwrap().format, Format::Pretty);
    }

    #[test]
    fn an_unknown_flag_is_named() {
        assert!(parsed("--no-such-flag").unwrap_err().contains("no-such-flag"));
    }
}

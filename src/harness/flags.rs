//! The command line of libtest, all of it: what test runners and IDEs send is accepted, whatever is done with it.

use getopts::{HasArg, Occur, Options};

/// What the command line asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) help: bool,
    pub(super) list: bool,
    pub(super) exact: bool,
    pub(super) quiet: bool,
    pub(super) nocapture: bool,
    pub(super) ignored: bool,
    pub(super) include_ignored: bool,
    pub(super) bench: bool,
    pub(super) fail_fast: bool,
    pub(super) test_threads: Option<usize>,
    pub(super) format: Option<Format>,
    pub(super) color: Option<Color>,
    pub(super) logfile: Option<String>,
    pub(super) skip: Vec<String>,
    pub(super) filters: Vec<String>,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Pretty,
    Terse,
    Json,
    Junit,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Color {
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
    ("logfile", "", HasArg::Yes, "write the report to the file given"),
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
    ("show-output", "", HasArg::No, "accepted; the output is in the proof folder"),
    ("unstable-options", "Z", HasArg::Yes, "accepted; nothing here is unstable"),
    ("report-time", "", HasArg::Maybe, "accepted; result.json has the time of each test"),
    ("ensure-time", "", HasArg::No, "accepted; limits are set by kill-timeout and SUITE_TIMEOUT_SEC"),
    ("shuffle", "", HasArg::No, "accepted; tests that share a file system keep their order"),
    ("shuffle-seed", "", HasArg::Yes, "accepted, as --shuffle"),
    ("fail-fast", "", HasArg::No, "do not run the tests after the first that fails"),
];

/// Parses the arguments after the program's name. `threads` is `RUST_TEST_THREADS`.
///
/// # Errors
/// On a flag that libtest does not know, or a value that it refuses.
pub(super) fn parse(args: &[String], threads: Option<&str>) -> Result<Flags, FlagError> {
    let matches = options().parse(args).map_err(|error| FlagError(format!("{error}; see --help")))?;
    let has = |name| matches.opt_present(name);
    let format = match matches.opt_str("format").as_deref() {
        None => None,
        Some("pretty") => Some(Format::Pretty),
        Some("terse") => Some(Format::Terse),
        Some("json") => Some(Format::Json),
        Some("junit") => Some(Format::Junit),
        Some(other) => {
            return Err(FlagError(format!("argument for --format must be pretty, terse, json or junit (was {other})")));
        }
    };
    let color = match matches.opt_str("color").as_deref() {
        None => None,
        Some("auto") => Some(Color::Auto),
        Some("always") => Some(Color::Always),
        Some("never") => Some(Color::Never),
        Some(other) => {
            return Err(FlagError(format!("argument for --color must be auto, always, or never (was {other})")));
        }
    };
    Ok(Flags {
        help: has("help"),
        list: has("list"),
        exact: has("exact"),
        quiet: has("quiet"),
        nocapture: has("nocapture") || has("no-capture"),
        ignored: has("ignored"),
        include_ignored: has("include-ignored"),
        bench: has("bench") && !has("test"),
        fail_fast: has("fail-fast"),
        test_threads: test_threads(matches.opt_str("test-threads").as_deref(), threads)?,
        format,
        color,
        logfile: matches.opt_str("logfile"),
        skip: matches.opt_strs("skip"),
        filters: matches.free,
    })
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
        let occur = if has_arg == HasArg::Yes { Occur::Multi } else { Occur::Optional };
        options.opt(short, if short == "Z" { "" } else { long }, help, hint, has_arg, occur);
    }
    options
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
        parse(&args, None).map_err(|error| error.to_string())
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
            "--test-threads=4 --test-threads 2 --color always --logfile x --skip a --skip b",
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
        let error = parse(&[], Some("abc")).unwrap_err().to_string();
        assert!(error.starts_with("RUST_TEST_THREADS must be a number > 0"), "{error}");
        assert_eq!(parse(&["--test-threads=3".into()], Some("abc")).unwrap().test_threads, Some(3));
    }

    #[test]
    fn an_unknown_flag_is_named() {
        assert!(parsed("--no-such-flag").unwrap_err().contains("no-such-flag"));
    }
}

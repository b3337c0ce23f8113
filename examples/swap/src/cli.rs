//! The command line, as data.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::error::Error;
use crate::experiment::Experiment;

pub(crate) const USAGE: &str = "\
swap - replace the applets of a folder by links to another provider, and put them back

usage:
  swap [--root DIR] enable  [--experiments LIST] [--dry-run]
  swap [--root DIR] disable [--experiments LIST | --all]
  swap [--root DIR] status  [--json]
  swap --help | --version

options:
  --root DIR          the tree to work on, an absolute path (else SWAP_ROOT);
                      the running system itself must be named: --root /
  --experiments LIST  coreutils, checksums, findutils, separated by commas
                      (default: coreutils,checksums)
  --dry-run           say what would be done, change nothing
  --all               whatever was ever enabled
  --json              for programs

below DIR:
  usr/bin/APPLET              what is replaced
  usr/lib/PROVIDER/APPLET     what it is replaced by
  usr/bin/.swap-backup.APPLET the original, while its experiment is enabled
  var/lib/swap/state          what was done; written before it is done

exit codes: 0 done, 1 failed or refused (and nothing changed), 2 wrong usage
";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) root: RootChoice,
    pub(crate) command: Command,
}

/// Who chose the root. Only a flag may choose the running system for a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RootChoice {
    Flag(PathBuf),
    Environment(PathBuf),
    Default,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Version,
    Enable { experiments: Vec<Experiment>, mode: Mode },
    Disable { experiments: Vec<Experiment> },
    Status { format: Format },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Act,
    DryRun,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Default)]
struct Words {
    command: Option<String>,
    root: Option<PathBuf>,
    experiments: Option<Vec<Experiment>>,
    flags: Vec<&'static str>,
}

/// Reads the words after the program's name. An empty `SWAP_ROOT` counts as absent.
///
/// # Errors
/// `Usage`, with the word that is wrong.
pub(crate) fn parse(words: impl Iterator<Item = OsString>, swap_root: Option<OsString>) -> Result<Order, Error> {
    let mut words = collect(words)?;
    let root = match (words.root.take(), swap_root.filter(|root| !root.is_empty())) {
        (Some(root), _) => RootChoice::Flag(root),
        (None, Some(root)) => RootChoice::Environment(PathBuf::from(root)),
        (None, None) => RootChoice::Default,
    };
    let command = if words.flags.contains(&"--help") {
        Command::Help
    } else if words.flags.contains(&"--version") {
        Command::Version
    } else {
        command(&words)?
    };
    Ok(Order { root, command })
}

fn collect(mut words: impl Iterator<Item = OsString>) -> Result<Words, Error> {
    let mut found = Words::default();
    while let Some(word) = words.next() {
        let (name, value) = split(&word);
        match name {
            "--root" => {
                let root = PathBuf::from(value_of("--root", value, &mut words)?);
                once("--root", found.root.replace(root).is_some())?;
            }
            "--experiments" => {
                let list = value_of("--experiments", value, &mut words)?;
                let list = Experiment::parse_list(&list.to_string_lossy())?;
                once("--experiments", found.experiments.replace(list).is_some())?;
            }
            _ => match (flag(name), value) {
                (Some(flag), None) => found.flags.push(flag),
                (Some(flag), Some(_)) => {
                    return Err(Error::Usage(format!("`{flag}` takes no value")));
                }
                (None, _) if word.as_encoded_bytes().starts_with(b"-") => {
                    return Err(Error::Usage(format!("unknown option `{}`", word.display())));
                }
                (None, _) => {
                    let word = word.to_string_lossy().into_owned();
                    once(&word.clone(), found.command.replace(word).is_some())?;
                }
            },
        }
    }
    Ok(found)
}

/// Splits `--root=DIR`; the value keeps bytes that are not text.
fn split(word: &OsStr) -> (&str, Option<OsString>) {
    if let Some(text) = word.to_str() {
        return match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text, None),
        };
    }
    match word.as_bytes().strip_prefix(b"--root=") {
        Some(value) => ("--root", Some(OsString::from_vec(value.to_vec()))),
        None => ("", None),
    }
}

fn flag(name: &str) -> Option<&'static str> {
    match name {
        "--help" | "-h" => Some("--help"),
        "--version" | "-V" => Some("--version"),
        "--dry-run" => Some("--dry-run"),
        "--all" => Some("--all"),
        "--json" => Some("--json"),
        _ => None,
    }
}

fn value_of(
    option: &str,
    value: Option<OsString>,
    words: &mut impl Iterator<Item = OsString>,
) -> Result<OsString, Error> {
    let Some(value) = value.or_else(|| words.next()).filter(|value| !value.is_empty()) else {
        return Err(Error::Usage(format!("`{option}` needs a value")));
    };
    Ok(value)
}

fn once(word: &str, seen: bool) -> Result<(), Error> {
    if seen { Err(Error::Usage(format!("`{word}` is one word too many"))) } else { Ok(()) }
}

fn command(words: &Words) -> Result<Command, Error> {
    let has = |flag| words.flags.contains(&flag);
    let Some(name) = words.command.as_deref() else {
        return Err(Error::Usage("no command given".to_owned()));
    };
    let (command, flags, takes_experiments) = match name {
        "enable" => {
            let experiments = words.experiments.clone().unwrap_or_else(|| Experiment::DEFAULT.to_vec());
            let mode = if has("--dry-run") { Mode::DryRun } else { Mode::Act };
            (Command::Enable { experiments, mode }, ["--dry-run"], true)
        }
        "disable" => (Command::Disable { experiments: disabled(words)? }, ["--all"], true),
        "status" => {
            let format = if has("--json") { Format::Json } else { Format::Text };
            (Command::Status { format }, ["--json"], false)
        }
        _ => return Err(Error::Usage(format!("unknown command `{name}`"))),
    };
    if let Some(flag) = words.flags.iter().find(|flag| !flags.contains(flag)) {
        return Err(Error::Usage(format!("`{name}` takes no `{flag}`")));
    }
    if words.experiments.is_some() && !takes_experiments {
        return Err(Error::Usage(format!("`{name}` takes no `--experiments`")));
    }
    Ok(command)
}

fn disabled(words: &Words) -> Result<Vec<Experiment>, Error> {
    match (&words.experiments, words.flags.contains(&"--all")) {
        (Some(_), true) => Err(Error::Usage("`--experiments` and `--all` exclude each other".to_owned())),
        (Some(experiments), false) => Ok(experiments.clone()),
        (None, true) => Ok(Experiment::ALL.to_vec()),
        (None, false) => Ok(Experiment::DEFAULT.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Order, Error> {
        parse(line.split_whitespace().map(OsString::from), None)
    }

    #[test]
    fn options_may_stand_before_and_after_the_command() {
        let expected = Order {
            root: RootChoice::Flag(PathBuf::from("/r")),
            command: Command::Enable { experiments: vec![Experiment::Findutils], mode: Mode::DryRun },
        };
        for line in
            ["--root /r enable --experiments findutils --dry-run", "enable --dry-run --experiments=findutils --root=/r"]
        {
            assert_eq!(read(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn the_flag_wins_over_the_environment_and_an_empty_variable_is_none() {
        let root = |words: &[&str], variable: &str| {
            parse(words.iter().map(OsString::from), Some(OsString::from(variable))).unwrap().root
        };
        assert_eq!(root(&["status", "--root", "/a"], "/b"), RootChoice::Flag(PathBuf::from("/a")));
        assert_eq!(root(&["status"], "/b"), RootChoice::Environment(PathBuf::from("/b")));
        assert_eq!(root(&["status"], ""), RootChoice::Default);
    }

    #[test]
    fn a_root_may_be_any_bytes() {
        let word = OsString::from_vec(b"--root=/\xff".to_vec());
        let order = parse([word, OsString::from("status")].into_iter(), None).unwrap();
        assert_eq!(order.root, RootChoice::Flag(PathBuf::from(OsString::from_vec(b"/\xff".to_vec()))));
    }

    #[test]
    fn wrong_words_are_usage_errors() {
        for line in [
            "",
            "frobnicate",
            "enable disable",
            "enable --json",
            "status --dry-run",
            "status --experiments coreutils",
            "disable --all --experiments coreutils",
            "disable --all=yes",
            "enable --experiments",
            "enable --experiments sudo-rs",
            "enable --root",
            "enable --root /a --root /b",
            "enable --forse",
        ] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "`{line}`");
        }
    }

    #[test]
    fn every_experiment_is_in_the_usage_text() {
        for experiment in Experiment::ALL {
            assert!(USAGE.contains(experiment.name()));
        }
    }
}

//! The distribution's package manager: what to call, and what its answers mean. The caller runs the calls. There is none here
//! that refreshes a database, edits a mirror or knows another source.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use super::host::{Family, find_in_path};
use crate::model::script::{Completion, EndedBy, Environment, Exit};

/// The package manager of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PackageManager {
    /// Arch Linux and its kin.
    Pacman { pacman: PathBuf },
    /// Debian and its kin.
    Apt { dpkg_query: PathBuf, apt_get: PathBuf },
}

/// Names that the package manager cannot take for anything else; none stands there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackageNames(Vec<String>);

/// Why a text is not the name of a package.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` cannot be the name of a package: {why}; correct `deps.packages` in runner.yaml")]
pub(crate) struct PackageNameError {
    name: String,
    why: &'static str,
}

/// One call of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Absolute path.
    pub(crate) program: PathBuf,
    /// Arguments after the program's name.
    pub(crate) args: Vec<String>,
}

/// A question about packages. It is put for those names only that the ones before it have left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    /// Which names does no installed package satisfy, by its name or by what it provides?
    Unsatisfied,
    /// How far is each of these packages?
    Status,
    /// What does each package provide? In whole, for dpkg-query cannot be asked who provides a name.
    Provided,
}

impl PackageManager {
    /// Returns the one whose programs are on `search_path`. Where both are, the family of the distribution tells which owns the
    /// files: the other is but a tool there.
    pub(crate) fn find(search_path: &OsStr, family: Family) -> Option<Self> {
        let find = |name: &str| find_in_path(OsStr::new(name), search_path);
        let pacman = || Some(Self::Pacman { pacman: find("pacman")? });
        let apt = || Some(Self::Apt { dpkg_query: find("dpkg-query")?, apt_get: find("apt-get")? });
        match family {
            Family::Debian => apt().or_else(pacman),
            Family::Other => pacman().or_else(apt),
        }
    }

    /// Returns `packages` as names that can be passed on, in their order.
    ///
    /// # Errors
    /// On the first one that this package manager could take for an option, a pattern, a path or a removal.
    pub(crate) fn names(&self, packages: &[String]) -> Result<PackageNames, PackageNameError> {
        let mut names = Vec::new();
        for name in packages {
            let why = wrong_with(name).or_else(|| match self {
                Self::Pacman { .. } => None,
                Self::Apt { .. } => wrong_for_apt(name),
            });
            if let Some(why) = why {
                return Err(PackageNameError { name: name.clone(), why });
            }
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Ok(PackageNames(names))
    }

    /// Returns the questions that tell which packages are missing, in order.
    pub(crate) fn queries(&self) -> &'static [Query] {
        match self {
            Self::Pacman { .. } => &[Query::Unsatisfied],
            Self::Apt { .. } => &[Query::Status, Query::Provided],
        }
    }

    /// Returns the call that puts `query` about `names`.
    pub(crate) fn ask(&self, query: Query, names: &PackageNames) -> Call {
        let (Self::Pacman { pacman: program } | Self::Apt { dpkg_query: program, .. }) = self;
        let (options, names): (&[&str], _) = match query {
            Query::Unsatisfied => (&["-T", "--"], names.iter()),
            Query::Status => (&["-W", "-f", "${Package}\t${Architecture}\t${db:Status-Status}\n", "--"], names.iter()),
            Query::Provided => (&["-W", "-f", "${db:Status-Status}\t${Provides}\n"], [].iter()),
        };
        Call::new(program, options, names)
    }

    /// Returns the call that installs `names` from what the databases know, and upgrades nothing that is there.
    pub(crate) fn install(&self, names: &PackageNames) -> Call {
        match self {
            Self::Pacman { pacman } => {
                Call::new(pacman, &["-S", "--needed", "--noconfirm", "--noprogressbar", "--"], names.iter())
            }
            // Else apt-get takes a name that it does not know for an expression: `python3.x` would install what looks like it.
            Self::Apt { apt_get, .. } => {
                let exact = "APT::Cmd::Pattern-Only=true";
                let options = ["install", "-y", "--no-install-recommends", "-o", exact, "--"];
                Call::new(apt_get, &options, names.iter())
            }
        }
    }

    /// Returns what went wrong in an installation that has ended with 0 nevertheless.
    ///
    /// pacman only mentions a failing `post_install`, and a failing hook that runs after the transaction (seen with 6.0.2).
    pub(crate) fn complaint(&self, done: &Completion) -> Option<&'static str> {
        let failed = "error: command failed to execute correctly";
        let stderr = done.stderr.kept_bytes();
        match self {
            Self::Pacman { .. } if lines(&stderr).any(|line| line == failed) => {
                Some("a scriptlet or hook of a package failed")
            }
            Self::Pacman { .. } | Self::Apt { .. } => None,
        }
    }
}

/// What package managers get: nobody to answer questions, and English, because their answers are read.
pub(crate) fn environment(inherited: &Environment) -> Environment {
    let mut environment = inherited.clone();
    environment.set("DEBIAN_FRONTEND", "noninteractive");
    // Not plain `C`, in which pacman cannot unpack names beyond ASCII.
    environment.set("LC_ALL", "C.UTF-8");
    environment.set("LANGUAGE", "C");
    environment
}

fn wrong_with(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.starts_with('-') {
        Some("it begins with `-`, as an option does")
    } else if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Some("it has white space or control characters")
    } else if name.contains('/') {
        Some("it has a slash, as a path or another source has")
    } else {
        None
    }
}

/// apt-get(8): a name may be a pattern, a task (`^`), a version (`=`), and `-` at its end removes the package.
fn wrong_for_apt(name: &str) -> Option<&'static str> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | ':');
    if name.ends_with('-') {
        Some("it ends with `-`, which asks apt-get to remove it")
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(is_of_a_name) {
        Some("apt-get knows letters, digits, `+`, `-`, `.`, `:`")
    } else {
        None
    }
}

impl PackageNames {
    /// Iterates in the order in which they are required.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, String> {
        self.0.iter()
    }

    /// Tells whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn without(&self, mut is_there: impl FnMut(&str) -> bool) -> Self {
        Self(self.iter().filter(|name| !is_there(name)).cloned().collect())
    }
}

impl fmt::Display for PackageNames {
    /// `` `a`, `b` ``.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<_> = self.iter().map(|name| format!("`{name}`")).collect();
        f.write_str(&quoted.join(", "))
    }
}

impl Call {
    fn new<'a>(program: &Path, options: &[&str], names: impl Iterator<Item = &'a String>) -> Self {
        let options = options.iter().map(|option| (*option).to_owned());
        Self { program: program.to_path_buf(), args: options.chain(names.cloned()).collect() }
    }

    /// Returns the arguments as the engine takes them.
    pub(crate) fn os_args(&self) -> Vec<OsString> {
        self.args.iter().map(OsString::from).collect()
    }
}

impl Query {
    /// Returns those of `asked` that are missing as far as this question can tell. `None`: what came is no answer.
    ///
    /// Source: pacman(8), `--deptest`; dpkg-query(1), "EXIT STATUS".
    pub(crate) fn missing(self, asked: &PackageNames, done: &Completion) -> Option<PackageNames> {
        let (EndedBy::Itself, Exit::Code(code)) = (done.ended_by, done.exit) else { return None };
        let stdout = done.stdout.kept_bytes();
        match (self, code) {
            (Self::Unsatisfied, 0) => Some(asked.without(|_| true)),
            (Self::Unsatisfied, 127) => {
                let missing = asked.without(|name| lines(&stdout).all(|line| line != name));
                // 127 is also a shell's word for a program that is not there.
                Some(missing).filter(|missing| !missing.is_empty())
            }
            // 1: at least one of them is unknown.
            (Self::Status, 0 | 1) => Some(asked.without(|name| lines(&stdout).any(|line| is_installed(line, name)))),
            (Self::Provided, 0) => Some(asked.without(|name| lines(&stdout).any(|line| provides(line, name)))),
            (Self::Unsatisfied | Self::Status | Self::Provided, _) => None,
        }
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

/// `line`: package, architecture, status. One that is unpacked but not configured does not count.
fn is_installed(line: &str, name: &str) -> bool {
    let Some((package, rest)) = line.split_once('\t') else { return false };
    let Some((architecture, status)) = rest.split_once('\t') else { return false };
    let is_meant = name.split_once(':').map_or(name == package, |named| named == (package, architecture));
    is_meant && status == "installed"
}

/// `line`: status, and what the package provides: `awk, mail-reader (= 2)`.
fn provides(line: &str, name: &str) -> bool {
    let provided = line.strip_prefix("installed\t").unwrap_or_default();
    provided.split(',').any(|one| one.split_whitespace().next() == Some(name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::script::{Stream, Usage};

    fn pacman() -> PackageManager {
        PackageManager::Pacman { pacman: "/usr/bin/pacman".into() }
    }

    fn apt() -> PackageManager {
        PackageManager::Apt { dpkg_query: "/usr/bin/dpkg-query".into(), apt_get: "/usr/bin/apt-get".into() }
    }

    fn names(words: &str) -> PackageNames {
        PackageNames(words.split_whitespace().map(str::to_owned).collect())
    }

    fn done(exit: Exit, stdout: &str, stderr: &str) -> Completion {
        let stream = |text: &str| Stream {
            head: text.as_bytes().to_vec(),
            tail: Vec::new(),
            total_bytes: u64::try_from(text.len()).unwrap(),
        };
        Completion {
            exit,
            ended_by: EndedBy::Itself,
            stdout: stream(stdout),
            stderr: stream(stderr),
            wall: Duration::ZERO,
            usage: Usage::default(),
            leaked: Vec::new(),
            log_error: None,
            unkept: None,
        }
    }

    #[test]
    fn the_calls_are_these_and_none_refreshes_or_upgrades() {
        let two = names("git g++");
        let line = |call: &Call| {
            let program = call.program.file_name().unwrap().to_string_lossy();
            format!("{program} {}", call.args.join(" ").escape_debug())
        };
        let lines: Vec<String> = [pacman(), apt()]
            .iter()
            .flat_map(|manager| {
                let asked = manager.queries().iter().map(|query| manager.ask(*query, &two));
                asked.chain([manager.install(&two)]).map(|call| line(&call)).collect::<Vec<_>>()
            })
            .collect();
        let expected = [
            "pacman -T -- git g++",
            "pacman -S --needed --noconfirm --noprogressbar -- git g++",
            "dpkg-query -W -f ${Package}\\t${Architecture}\\t${db:Status-Status}\\n -- git g++",
            "dpkg-query -W -f ${db:Status-Status}\\t${Provides}\\n",
            "apt-get install -y --no-install-recommends -o APT::Cmd::Pattern-Only=true -- git g++",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_name_that_could_be_something_else_is_refused() {
        let refused = |manager: PackageManager, name: &str| manager.names(&[name.to_owned()]).is_err();
        for name in ["", "-", "-y", "--root=x", "a b", "a\tb", "a\u{1b}b", "core/git", "./x.pkg.tar", "/x.deb"] {
            assert!(refused(pacman(), name) && refused(apt(), name), "{name:?}");
        }
        for name in ["git-", "git=1", "tools^", "git*", "~nx", "?all", "^git", "git$", "gi[t]", ".git", "gît"] {
            assert!(refused(apt(), name), "{name:?}");
        }
        for name in ["base-devel", "g++", "libstdc++6", "python3.11", "libc6:amd64", "0ad"] {
            assert!(!refused(pacman(), name) && !refused(apt(), name), "{name:?}");
        }
        for name in ["rust>=1.80", "libx.so=1-64", "@scope", "_x"] {
            assert!(!refused(pacman(), name), "{name:?}");
        }
        let error = apt().names(&["git".to_owned(), "-y".to_owned()]).unwrap_err().to_string();
        let expected = "`-y` cannot be the name of a package: it begins with `-`, as an option does; \
                        correct `deps.packages` in runner.yaml";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_name_that_is_required_twice_is_passed_on_once() {
        let twice = ["git", "sudo", "git"].map(str::to_owned);
        assert_eq!(pacman().names(&twice), Ok(names("git sudo")));
    }

    #[test]
    fn what_is_missing_is_read_from_each_answer() {
        let status = "a\tall\tinstalled\nb\tamd64\tconfig-files\nc\ti386\tinstalled\nd\tall\tunpacked\n";
        let provided = "installed\tawk, reader (= 2)\nconfig-files\tgone\ninstalled\t\n";
        for (query, asked, code, stdout, expected) in [
            (Query::Unsatisfied, "a b", 0, "", Some("")),
            (Query::Unsatisfied, "a b", 127, "b\n", Some("b")),
            (Query::Unsatisfied, "a b", 127, "", None),
            (Query::Unsatisfied, "a b", 127, "something else\n", None),
            (Query::Unsatisfied, "a b", 1, "b\n", None),
            (Query::Status, "a b c d e", 1, status, Some("b d e")),
            (Query::Status, "c:i386 c:amd64 a:all", 0, status, Some("c:amd64")),
            (Query::Status, "a", 2, "", None),
            (Query::Status, "a", 127, "", None),
            (Query::Provided, "awk reader gone other", 0, provided, Some("gone other")),
            (Query::Provided, "awk", 1, provided, None),
        ] {
            let missing = query.missing(&names(asked), &done(Exit::Code(code), stdout, ""));
            assert_eq!(missing, expected.map(names), "{query:?} {asked} {code} {stdout:?}");
        }
    }

    #[test]
    fn a_question_that_was_cut_short_has_no_answer() {
        for ended_by in [EndedBy::Timeout, EndedBy::Cancel, EndedBy::SupervisorKilled] {
            let done = Completion { ended_by, ..done(Exit::Code(0), "", "") };
            assert_eq!(Query::Unsatisfied.missing(&names("a"), &done), None);
        }
        assert_eq!(Query::Status.missing(&names("a"), &done(Exit::Signal(9), "a\tall\tinstalled\n", "")), None);
    }

    #[test]
    fn pacman_mentions_a_failing_scriptlet_and_nothing_else_counts() {
        let says = |stderr: &str| done(Exit::Code(0), "", stderr);
        let failed = "warning: x\nerror: command failed to execute correctly\n";
        assert!(pacman().complaint(&says(failed)).is_some());
        assert!(pacman().complaint(&says("warning: directory permissions differ\n")).is_none());
        assert!(apt().complaint(&says(failed)).is_none());
    }

    #[test]
    fn tools_speak_english_and_ask_nobody() {
        let inherited = [("LC_ALL", "de_DE.UTF-8"), ("LANGUAGE", "de"), ("HOME", "/x")];
        let inherited = inherited.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let environment = environment(&inherited);
        let value = |name: &str| environment.get(name).unwrap().to_str().unwrap();
        assert_eq!(["LC_ALL", "LANGUAGE", "HOME"].map(value), ["C.UTF-8", "C", "/x"]);
        assert_eq!(value("DEBIAN_FRONTEND"), "noninteractive");
    }
}

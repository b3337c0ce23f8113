//! Presence of applets: what each one's target must be after a suite, given what provides it on this machine.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::model::snapshot::{Entry, EntryType, Snapshot};
use crate::model::suite::{PresenceClaim, PresenceRules, Project, Suite};
use crate::model::verdict::{Finding, ProductLog};

/// Stands for an applet's name in paths.
const APPLET: &str = "{applet}";

/// Returns what a suite without the key `presence` claims, from the words of its `execute`: `enable` links, `disable` unlinks,
/// the last of them wins, and neither claims nothing. Words of comments do not count; `--enable-x` is another word.
///
/// Source: the original runner, which told it from the same words.
pub(crate) fn infer(execute: &str) -> PresenceClaim {
    let is_break = |c: char| c.is_whitespace() || "\"'`;|&(){}<>$=".contains(c);
    let words = execute.lines().flat_map(|line| without_comment(line).split(is_break));
    words.fold(PresenceClaim::None, |claim, word| match word {
        "enable" => PresenceClaim::Linked,
        "disable" => PresenceClaim::Unlinked,
        _ => claim,
    })
}

/// Returns a line up to its comment: a `#` that begins a word and is not quoted, so neither `$#` nor `"# 1"`. Quotes are
/// taken to end with their line; an apostrophe in a here-document must not hide the comments after it.
///
/// Source: POSIX Shell Command Language, 2.3 Token Recognition.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut begins_word = true;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, '#') if begins_word => return &line[..at],
            (None | Some('"'), '\\') => {
                chars.next();
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), close) if open == close => quote = None,
            (None | Some(_), _) => {}
        }
        begins_word = c.is_whitespace() || ";|&()<>".contains(c);
    }
    line
}

/// Why a list of applets cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppletListError {
    #[error("`{file}` lists no applet, one a line: presence would be judged by nothing", file = .0.display())]
    Empty(PathBuf),
    #[error("{file}:{line}: {message}", file = file.display())]
    Line { file: PathBuf, line: usize, message: String },
}

/// Reads a list of applets, one a line; blank lines and lines that start with `#` do not count.
///
/// # Errors
/// If it is empty, or a line is no applet's name or stands twice.
pub(crate) fn parse_applets(file: &Path, text: &[u8]) -> Result<Vec<String>, AppletListError> {
    let mut applets: Vec<String> = Vec::new();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |message: String| AppletListError::Line { file: file.to_path_buf(), line: index + 1, message };
        let name = std::str::from_utf8(line).map_err(|_| wrong("is not UTF-8 text".to_owned()))?.trim();
        if name.is_empty() || name.starts_with('#') {
            continue;
        }
        if name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') || matches!(name, "." | "..") {
            return Err(wrong(format!("`{}` is no applet's name", name.escape_debug())));
        }
        if let Some(first) = applets.iter().position(|other| other == name) {
            return Err(wrong(format!("`{name}` stands twice, first as applet {}", first + 1)));
        }
        applets.push(name.to_owned());
    }
    if applets.is_empty() { Err(AppletListError::Empty(file.to_path_buf())) } else { Ok(applets) }
}

/// Returns the paths and patterns of a suite's snapshots, each once: the project's, the suite's, and what presence is judged by.
pub(crate) fn snapshot_paths(project: &Project, suite: &Suite, applets: &[String]) -> Vec<String> {
    let rules = project.presence.iter();
    let judged = rules.flat_map(|rules| std::iter::once(&rules.target).chain(&rules.providers).chain(&rules.unified));
    let mut paths: Vec<String> = Vec::new();
    for text in project.snapshot.iter().chain(&suite.snapshot).chain(judged) {
        if text.contains(APPLET) {
            paths.extend(applets.iter().map(|applet| text.replace(APPLET, applet)));
        } else {
            paths.push(text.clone());
        }
    }
    let mut seen = std::collections::HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    paths
}

/// What was found of each applet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PresenceReport {
    pub(crate) claim: PresenceClaim,
    pub(crate) log: ProductLog,
    /// In the order of the list.
    pub(crate) applets: Vec<AppletPresence>,
}

/// What was found of one applet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppletPresence {
    pub(crate) applet: String,
    pub(crate) target: PathBuf,
    pub(crate) found: Option<EntryType>,
    /// The first file that provides it.
    pub(crate) provider: Option<PathBuf>,
    pub(crate) is_preserved: bool,
    /// Whether the product warned about it; asked only where nothing provides it.
    pub(crate) warned: Option<bool>,
    pub(crate) is_ok: bool,
}

/// Judges every applet by the snapshot after `execute`. `rules` have absolute paths.
///
/// An applet that is provided and not preserved must be as claimed. An applet that nothing provides cannot be linked; where
/// links are claimed the product must have said so, in a line with the word WARN that names it. Where their absence is
/// claimed there is nothing to warn about. A preserved applet must be no link that was not one before: its paths are
/// compared by the restore check, so nothing is asked of it here.
pub(crate) fn judge_presence(
    rules: &PresenceRules,
    applets: &[String],
    claim: PresenceClaim,
    after: &Snapshot,
    product_output: &str,
    log: ProductLog,
) -> PresenceReport {
    let judge = |applet: &String| {
        let target = PathBuf::from(rules.target.replace(APPLET, applet));
        let found = after.get(&target).map(Entry::entry_type);
        let candidates = rules.providers.iter().chain(&rules.unified);
        let mut paths = candidates.map(|provider| PathBuf::from(provider.replace(APPLET, applet)));
        let provider = paths.find(|path| after.get(path).is_some_and(|entry| entry.entry_type() != EntryType::Absent));
        let is_preserved = rules.preserve.contains(applet);
        let warned = provider.is_none().then(|| warns(product_output, applet));
        let is_link = found == Some(EntryType::Symlink);
        let is_seen = found.is_some_and(|found| found != EntryType::Unreadable);
        let is_ok = match claim {
            _ if is_preserved => true,
            PresenceClaim::None => true,
            PresenceClaim::Linked => warned.unwrap_or(is_link),
            PresenceClaim::Unlinked => provider.is_none() || (is_seen && !is_link),
        };
        AppletPresence { applet: applet.clone(), target, found, provider, is_preserved, warned, is_ok }
    };
    PresenceReport { claim, log, applets: applets.iter().map(judge).collect() }
}

impl PresenceReport {
    /// Returns a finding for each applet that is not as it must be.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let wrong = self.applets.iter().filter(|applet| !applet.is_ok);
        wrong
            .map(|applet| match applet.warned {
                Some(_) => Finding::MissingWarning { applet: applet.applet.clone(), log: self.log },
                None => Finding::Presence {
                    applet: applet.applet.clone(),
                    target: applet.target.clone(),
                    claim: self.claim,
                    found: applet.found.map_or("not in the snapshot", EntryType::as_str).to_owned(),
                },
            })
            .collect()
    }
}

/// Tells whether a line has the word WARN (or WARNING) and the applet as whole words.
fn warns(output: &str, applet: &str) -> bool {
    output.lines().map(without_escapes).any(|line| {
        let mut words = line.split(|c: char| !c.is_alphanumeric());
        let is_warning = words.any(|word| ["WARN", "WARNING"].iter().any(|warn| word.eq_ignore_ascii_case(warn)));
        is_warning && names(&line, applet)
    })
}

/// Removes colours and the like (ECMA-48, control sequences): their last letter would stick to the word after it.
fn without_escapes(line: &str) -> Cow<'_, str> {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default();
    if first.len() == line.len() {
        return Cow::Borrowed(line);
    }
    let is_inside = |c: char| matches!(c, ' '..='?');
    let rest = parts.map(|part| {
        let after = part.trim_start_matches(is_inside);
        after.strip_prefix(|c: char| matches!(c, '@'..='~')).unwrap_or(after)
    });
    Cow::Owned(std::iter::once(first).chain(rest).collect())
}

/// `-`, `_`, `+` and a dot within belong to words, so that `b2sum` is not named by `mb2sum`, `b2sum-x` or `b2sum.old`.
fn names(line: &str, applet: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || "-_+".contains(c);
    line.match_indices(applet).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let mut after = line[at + applet.len()..].chars();
        let ends = match after.next() {
            Some('.') => !after.next().is_some_and(is_word),
            Some(next) => !is_word(next),
            None => true,
        };
        ends && !before.is_some_and(|c| is_word(c) || c == '.')
    })
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::model::snapshot::{Content, Meta};

    #[test]
    fn the_claim_is_inferred_from_words_of_execute() {
        for (execute, claim) in [
            ("swap enable", PresenceClaim::Linked),
            ("swap disable --all", PresenceClaim::Unlinked),
            ("swap enable\nswap disable", PresenceClaim::Unlinked),
            ("swap disable; swap enable", PresenceClaim::Linked),
            ("x=$(swap enable)", PresenceClaim::Linked),
            ("swap status # enable it later", PresenceClaim::None),
            ("# enable\nswap status", PresenceClaim::None),
            ("swap status;# enable", PresenceClaim::None),
            ("cat <<X\ndon't\nX\n# enable", PresenceClaim::None),
            ("echo '# 1'; swap enable", PresenceClaim::Linked),
            ("echo \"a \\\" # 1\"; swap enable", PresenceClaim::Linked),
            ("[ $# = 0 ] && swap enable", PresenceClaim::Linked),
            ("echo ${#list} \\# && swap enable", PresenceClaim::Linked),
            ("swap a#b enable", PresenceClaim::Linked),
            ("./configure --enable-foo", PresenceClaim::None),
            ("enabled disabled", PresenceClaim::None),
            ("", PresenceClaim::None),
        ] {
            assert_eq!(infer(execute), claim, "{execute}");
        }
    }

    #[test]
    fn a_list_is_one_applet_a_line() {
        let list = parse_applets(Path::new("a.txt"), b"# those\nls\n\n  cat \r\n[\n").unwrap();
        assert_eq!(list, ["ls", "cat", "["]);
        assert_eq!(parse_applets(Path::new("a.txt"), b"\xef\xbb\xbfls\n").unwrap(), ["ls"]);
    }

    #[test]
    fn a_list_that_is_wrong_says_where() {
        for (text, message) in [
            (&b""[..], "`a.txt` lists no applet, one a line: presence would be judged by nothing"),
            (b"# ls\n\n", "`a.txt` lists no applet, one a line: presence would be judged by nothing"),
            (b"ls\ncat\nls\n", "a.txt:3: `ls` stands twice, first as applet 1"),
            (b"ls\nbin/cat\n", "a.txt:2: `bin/cat` is no applet's name"),
            (b"ls cat\n", "a.txt:1: `ls cat` is no applet's name"),
            (b"..\n", "a.txt:1: `..` is no applet's name"),
            (b"l\xffs\n", "a.txt:1: is not UTF-8 text"),
        ] {
            assert_eq!(parse_applets(Path::new("a.txt"), text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn only_whole_words_warn() {
        for (line, is_warning) in [
            ("WARN b2sum: nothing provides it", true),
            ("[WARN] applet `b2sum` is missing", true),
            ("warning: b2sum.", true),
            ("2026-01-01 WARN swap: no b2sum", true),
            ("\u{1b}[33mWARN\u{1b}[0m \u{1b}[1;4mb2sum\u{1b}[m: not provided", true),
            ("\u{1b}[33mWARN\u{1b}[0m m\u{1b}[1mb2sum\u{1b}[0m", false),
            ("WARN mb2sum", false),
            ("WARN b2sum-x", false),
            ("WARNED b2sum", false),
            ("WARN b2sum.old", false),
            ("INFO b2sum", false),
            ("WARN\nb2sum", false),
        ] {
            assert_eq!(warns(line, "b2sum"), is_warning, "{line}");
        }
        assert!(warns("WARN [: nothing provides it", "["));
    }

    fn file() -> Entry {
        Entry::File { meta: Meta::default(), size_bytes: 0, content: Content::Sha256([0; 32]) }
    }

    fn link() -> Entry {
        Entry::Symlink { meta: Meta::default(), target: "x".into() }
    }

    /// One applet `ls`: what is at its target and at its provider, and what then must be found.
    fn found(target: Entry, provider: Entry, claim: PresenceClaim, output: &str, preserve: &[&str]) -> Vec<String> {
        let rules = PresenceRules {
            applets: "a.txt".into(),
            target: "/bin/{applet}".into(),
            providers: vec!["/lib/none-{applet}".into(), "/lib/{applet}".into()],
            unified: vec![],
            preserve: preserve.iter().map(ToString::to_string).collect(),
        };
        let after: Snapshot =
            [(PathBuf::from("/bin/ls"), target), ("/lib/ls".into(), provider), ("/lib/none-ls".into(), Entry::Absent)]
                .into_iter()
                .collect();
        let report = judge_presence(&rules, &["ls".into()], claim, &after, output, ProductLog::Complete);
        report.findings().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_provided_applet_must_be_as_claimed() {
        use PresenceClaim::{Linked, None, Unlinked};
        let ok: [String; 0] = [];
        assert_eq!(found(link(), file(), Linked, "", &[]), ok);
        assert_eq!(
            found(file(), file(), Linked, "", &[]),
            ["presence of ls: /bin/ls must be a symbolic link, but is file"]
        );
        assert_eq!(
            found(Entry::Absent, file(), Linked, "", &[]),
            ["presence of ls: /bin/ls must be a symbolic link, but is absent"]
        );
        assert_eq!(
            found(link(), file(), Unlinked, "", &[]),
            ["presence of ls: /bin/ls must be no symbolic link, but is symlink"]
        );
        assert_eq!(found(file(), file(), Unlinked, "", &[]), ok);
        assert_eq!(found(Entry::Absent, file(), Unlinked, "", &[]), ok);
        assert_eq!(
            found(Entry::Unreadable { errno: 13 }, file(), Unlinked, "", &[]),
            ["presence of ls: /bin/ls must be no symbolic link, but is unreadable"]
        );
        assert_eq!(found(link(), file(), None, "", &[]), ok);
        assert_eq!(found(file(), file(), Linked, "", &["ls"]), ok);
    }

    #[test]
    fn an_applet_without_a_provider_must_be_warned_about() {
        use PresenceClaim::{Linked, None, Unlinked};
        let absent = || Entry::Absent;
        assert_eq!(
            found(file(), absent(), Linked, "INFO ls", &[]),
            ["presence of ls: nothing provides it, and the product printed no WARN line that names it"]
        );
        assert!(found(file(), absent(), Linked, "WARN ls", &[]).is_empty());
        assert!(found(file(), absent(), Unlinked, "", &[]).is_empty());
        assert!(found(file(), absent(), None, "", &[]).is_empty());
        assert!(found(file(), absent(), Linked, "", &["ls"]).is_empty());
    }
}

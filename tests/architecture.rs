//! What a machine can check of ARCHITECTURE.md and README.md. Every guard is a function of texts, and has a test that plants
//! what it forbids.

#![expect(clippy::disallowed_methods, reason = "asks git which files are tracked")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot read its files must fail"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Which floors a floor may import.
const FLOORS: [(&str, &[&str]); 8] = [
    ("model", &["model"]),
    ("rules", &["model", "rules"]),
    ("os", &["model", "os"]),
    ("flow", &["model", "rules", "os", "flow"]),
    ("harness", &["model", "rules", "os", "flow", "harness"]),
    ("cli", &["model", "rules", "os", "flow", "cli"]),
    ("worker", &["model", "rules", "os", "flow", "worker"]),
    ("bin", &["harness", "cli", "worker"]),
];
/// They stand above the floors: one declares them, one opens a door to tests and benchmarks.
const NO_FLOOR: [&str; 2] = ["src/lib.rs", "src/internals.rs"];
const UNSAFE_FILE: &str = "src/os/engine/raw.rs";
/// Its submodules.
const UNSAFE_FOLDER: &str = "src/os/engine/raw/";
const ENGINE: &str = "src/os/engine";

// ---------------------------------------------------------------------------------------------------------------------------
// The tree
// ---------------------------------------------------------------------------------------------------------------------------

/// A tracked text file; `path` is relative to the package's folder.
struct Source {
    path: String,
    text: String,
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the tracked files, or without git all that .gitignore does not leave out.
fn tracked() -> Vec<String> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let listed = listed.ok().filter(|done| done.status.success() && !done.stdout.is_empty());
    let mut paths: Vec<String> = match listed {
        Some(done) => String::from_utf8(done.stdout).unwrap().split_terminator('\0').map(str::to_owned).collect(),
        None => walked(),
    };
    paths.retain(|path| root().join(path).is_file());
    paths.sort();
    paths
}

fn walked() -> Vec<String> {
    let ignored = std::fs::read_to_string(root().join(".gitignore")).unwrap_or_default();
    let is_ours = |entry: &walkdir::DirEntry| {
        let path = format!("/{}", relative(entry.path()));
        path != "/.git" && !ignored.lines().any(|line| line.trim_end_matches('/') == path)
    };
    let entries = walkdir::WalkDir::new(root()).into_iter().filter_entry(is_ours).map(Result::unwrap);
    entries.filter(|entry| entry.file_type().is_file()).map(|entry| relative(entry.path())).collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn sources() -> Vec<Source> {
    let read = |path: String| Some(Source { text: std::fs::read_to_string(root().join(&path)).ok()?, path });
    tracked().into_iter().filter_map(read).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn expect_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// Expects one violation for each planted file, and that it names the file.
fn expect_each_caught(guard: impl Fn(&[Source]) -> Vec<String>, planted: &[(&str, &str)]) {
    for (path, text) in planted {
        let caught = guard(&[source(path, text)]);
        assert!(caught.iter().any(|line| line.contains(path)), "not caught in {path}: {text}\n{caught:?}");
    }
}

fn expect_none_caught(guard: impl Fn(&[Source]) -> Vec<String>, allowed: &[(&str, &str)]) {
    for (path, text) in allowed {
        assert_eq!(guard(&[source(path, text)]), Vec::<String>::new(), "{path}: {text}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------------
// Rust as tokens: comments are gone, strings are one token, so that neither is taken for code
// ---------------------------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    /// `::`, or one character.
    Mark(&'static str),
    Other(char),
}

fn word(token: Option<&Token>) -> Option<&str> {
    match token {
        Some(Token::Word(word)) => Some(word),
        Some(Token::Text(_) | Token::Mark(_) | Token::Other(_)) | None => None,
    }
}

fn is(token: Option<&Token>, mark: &str) -> bool {
    matches!(token, Some(Token::Mark(found)) if *found == mark)
}

const MARKS: [&str; 14] = ["::", "{", "}", "(", ")", "[", "]", ",", ";", "#", "!", "*", "&", "="];

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_length(rest)
        } else if let Some((content, length)) = string(rest) {
            tokens.push(Token::Text(content));
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..length].to_owned()));
            length
        } else if let Some(length) = char_length(rest) {
            length
        } else if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            tokens.push(Token::Mark(mark));
            mark.len()
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Other(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Returns the content and the length of the string literal at the start of `text`, if there is one.
fn string(text: &str) -> Option<(String, usize)> {
    let prefix = ["br", "cr", "b", "c", "r", ""].iter().find(|prefix| {
        text.strip_prefix(**prefix).is_some_and(|rest| {
            let hashed = rest.trim_start_matches('#');
            hashed.starts_with('"') && (hashed.len() == rest.len() || prefix.ends_with('r'))
        })
    })?;
    let rest = &text[prefix.len()..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = &rest[hashes + 1..];
    let start = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end)?;
        return Some((body[..length].to_owned(), start + length + end.len()));
    }
    let mut is_escaped = false;
    let length = body.find(|c| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    })?;
    Some((body[..length].to_owned(), start + length + 1))
}

/// Returns the length of the character literal at the start of `text`; a lifetime is none.
fn char_length(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if let Some(escaped) = body.strip_prefix('\\') {
        let skipped = escaped.chars().next()?.len_utf8();
        return Some(2 + skipped + escaped[skipped..].find('\'')? + 1);
    }
    let length = body.chars().next()?.len_utf8();
    body[length..].starts_with('\'').then_some(length + 2)
}

/// Returns the tokens without `#[cfg(test)] mod … { … }`.
fn tokens_without_tests(source: &Source) -> Vec<Token> {
    let all = tokens(&source.text);
    if source.path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let gate = tokens("#[cfg(test)] mod");
    let mut kept = Vec::new();
    let mut at = 0;
    while at < all.len() {
        if all[at..].starts_with(&gate) && is(all.get(at + gate.len() + 1), "{") {
            at = block_end(&all, at + gate.len() + 1);
        } else {
            kept.push(all[at].clone());
            at += 1;
        }
    }
    kept
}

/// Returns where the block that opens at `open` is over.
fn block_end(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark("{") => depth += 1,
            Token::Mark("}") => depth -= 1,
            Token::Word(_) | Token::Text(_) | Token::Mark(_) | Token::Other(_) => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn in_src(source: &&Source) -> bool {
    source.path.starts_with("src/") && is_rust(&source.path)
}

// ---------------------------------------------------------------------------------------------------------------------------
// Guards
// ---------------------------------------------------------------------------------------------------------------------------

/// The path of modules that a file of `src/` is.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    inner.split('/').filter(|part| *part != "mod" && *part != "lib").map(str::to_owned).collect()
}

/// Imports point down only.
fn upward_imports(sources: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(in_src).filter(|source| !NO_FLOOR.contains(&source.path.as_str())) {
        let module = module_of(&source.path);
        let Some((_, allowed)) = FLOORS.iter().find(|(floor, _)| *floor == module[0]) else {
            violations.push(format!("{}: is on no floor", source.path));
            continue;
        };
        for named in named_modules(&tokens(&source.text), &module) {
            if !allowed.contains(&named.as_str()) {
                violations.push(format!("{}: `{}` must not import `{named}`", source.path, module[0]));
            }
        }
    }
    violations
}

/// Returns the first part, below the crate's root, of every path that is made with `crate`, `super`, `self` or our own name.
fn named_modules(tokens: &[Token], module: &[String]) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    // The nested modules we are in, each with the depth of braces that it ends at.
    let (mut inner, mut depth): (Vec<usize>, usize) = (Vec::new(), 0);
    for at in 0..tokens.len() {
        match &tokens[at] {
            Token::Mark("{") => depth += 1,
            Token::Mark("}") => {
                depth = depth.saturating_sub(1);
                inner.retain(|ends_at| *ends_at < depth + 1);
            }
            Token::Word(start) if start == "mod" && is(tokens.get(at + 2), "{") => inner.push(depth + 1),
            Token::Word(start) if !(at > 0 && is(tokens.get(at - 1), "::")) => {
                let nested = module.len() + inner.len();
                named.extend(roots(tokens, at, start, nested).into_iter().map(|root| match root {
                    Root::Own => module[0].clone(),
                    Root::Named(name) => name,
                }));
            }
            Token::Word(_) | Token::Text(_) | Token::Mark(_) | Token::Other(_) => {}
        }
    }
    named
}

enum Root {
    /// Somewhere in the same floor.
    Own,
    /// What follows the crate's root.
    Named(String),
}

fn roots(tokens: &[Token], at: usize, start: &str, nested: usize) -> Vec<Root> {
    let mut left = match start {
        "crate" | "proving_ground" => 0,
        "super" => nested - 1,
        "self" => nested,
        _elsewhere => return Vec::new(),
    };
    let mut next = at + 1;
    while is(tokens.get(next), "::") && word(tokens.get(next + 1)) == Some("super") {
        left = left.saturating_sub(1);
        next += 2;
    }
    if left > 0 {
        return vec![Root::Own];
    }
    if start == "crate" && word(tokens.get(next)) == Some("as") {
        return vec![Root::Named("the whole crate".to_owned())];
    }
    if !is(tokens.get(next), "::") {
        return Vec::new();
    }
    heads(tokens, next + 1).into_iter().map(Root::Named).collect()
}

/// Returns the word at `at`, or the first word of each path of the group at `at`.
fn heads(tokens: &[Token], at: usize) -> Vec<String> {
    if !is(tokens.get(at), "{") {
        return vec![word(tokens.get(at)).unwrap_or("*").to_owned()];
    }
    let end = block_end(tokens, at);
    let mut heads = Vec::new();
    let mut depth = 0;
    for at in at..end {
        match &tokens[at] {
            Token::Mark("{") => depth += 1,
            Token::Mark("}") => depth -= 1,
            Token::Word(head) if depth == 1 && (is(tokens.get(at - 1), "{") || is(tokens.get(at - 1), ",")) => {
                heads.push(head.clone());
            }
            Token::Mark("*") if depth == 1 => heads.push("*".to_owned()),
            Token::Word(_) | Token::Text(_) | Token::Mark(_) | Token::Other(_) => {}
        }
    }
    heads
}

/// The word `unsafe` stands in one module of `src/`. (Programs that tests run against the engine may need it.)
fn strange_unsafe(sources: &[Source]) -> Vec<String> {
    let in_module = |source: &&Source| source.path == UNSAFE_FILE || source.path.starts_with(UNSAFE_FOLDER);
    let rust = sources.iter().filter(in_src).filter(|source| !in_module(source));
    let has = |source: &&Source| tokens(&source.text).iter().any(|token| word(Some(token)) == Some("unsafe"));
    rust.filter(has).map(|source| format!("{}: `unsafe` belongs to {UNSAFE_FILE}", source.path)).collect()
}

/// Processes are started by the engine only. (Tests are free.)
fn strange_processes(sources: &[Source]) -> Vec<String> {
    const STARTERS: [&str; 10] =
        ["fork", "vfork", "clone3", "execv", "execve", "execvp", "execvpe", "execveat", "posix_spawn", "posix_spawnp"];
    let mut violations = Vec::new();
    for source in sources.iter().filter(in_src).filter(|source| !source.path.starts_with(ENGINE)) {
        let tokens = tokens_without_tests(source);
        let after_path = |at: usize| at > 0 && is(tokens.get(at - 1), "::");
        for at in 0..tokens.len() {
            let Some(name) = word(tokens.get(at)) else { continue };
            let is_new = name == "Command" && is(tokens.get(at + 1), "::") && word(tokens.get(at + 2)) == Some("new");
            let is_import = name == "process"
                && is(tokens.get(at + 1), "::")
                && heads(&tokens, at + 2).iter().any(|n| n == "Command");
            let is_call = STARTERS.contains(&name) && (after_path(at) || is(tokens.get(at + 1), "("));
            if is_new || is_import || is_call {
                violations.push(format!("{}: `{name}` starts a process outside {ENGINE}", source.path));
            }
        }
    }
    violations
}

/// Standard output is libtest's, and standard error is written to by name.
fn strange_prints(sources: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(in_src) {
        for pair in tokens(&source.text).windows(2) {
            if let Some(name @ ("print" | "println" | "eprint" | "eprintln" | "dbg")) = word(pair.first())
                && is(pair.get(1), "!")
            {
                violations.push(format!("{}: `{name}!` in src", source.path));
            }
        }
    }
    violations
}

/// A wrapper calls the program and decides nothing: no functions, no traps, no branches.
fn strange_wrappers(sources: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    for Source { path, text } in sources.iter().filter(|source| source.path.starts_with("sh/")) {
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        let mut expect = |is_so: bool, what: &str| {
            if !is_so {
                violations.push(format!("{path}: {what}"));
            }
        };
        expect(path.ends_with(".sh"), "is no shell script");
        expect(text.starts_with("#!/usr/bin/env bash\n"), "does not begin with `#!/usr/bin/env bash`");
        expect(text.lines().count() < 40, "has 40 lines or more");
        expect(lines.first() == Some(&"set -euo pipefail"), "does not begin with `set -euo pipefail`");
        expect(
            lines.last().is_some_and(|line| line.starts_with("exec container-runner ")),
            "does not end in the program",
        );
        let banned =
            ["function", "trap", "if", "case", "for", "while", "until", "select", "||", "&&", "()", "$(", "`", "eval"];
        for line in lines {
            let words: Vec<_> = line.split([' ', ';', '\t']).collect();
            let found = banned.iter().find(|word| {
                if word.starts_with(char::is_alphabetic) { words.contains(word) } else { line.contains(**word) }
            });
            expect(found.is_none(), &format!("decides something: {line}"));
        }
    }
    violations
}

/// Returns the names of a Cargo.toml's dependencies; `true` for those of tests.
fn dependencies(manifest: &str) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    let mut section = "";
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            continue;
        }
        let is_for_tests = section.ends_with("dev-dependencies");
        let lists = section == "dependencies" || section.ends_with(".dependencies") || is_for_tests;
        if let Some((name, _)) = line.split_once('=')
            && lists
            && !line.starts_with('#')
        {
            let first = found.entry(name.trim().replace('-', "_")).or_insert(is_for_tests);
            *first &= is_for_tests;
        }
    }
    found
}

/// Returns the rows of the table whose first heading is `heading`: their cells.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|').replace("\\|", "\u{0}");
        inner.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
    };
    let mut lines = text.lines().skip_while(|line| !(line.starts_with('|') && cells(line)[0] == heading)).skip(2);
    let mut rows = Vec::new();
    while let Some(line) = lines.next().filter(|line| line.starts_with('|')) {
        rows.push(cells(line));
    }
    rows
}

/// Returns what stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every dependency stands in ARCHITECTURE.md with its owners, they use it, and nobody else does. Test code is free.
fn strange_uses(sources: &[Source], manifest: &str, architecture: &str) -> Vec<String> {
    let rows = table(architecture, "crate");
    let owners: BTreeMap<String, Vec<String>> =
        rows.iter().map(|row| (quoted(&row[0]).concat().replace('-', "_"), quoted(&row[1]))).collect();
    let dependencies = dependencies(manifest);
    let mut violations = Vec::new();
    for name in owners.keys().filter(|name| !dependencies.contains_key(*name)) {
        violations.push(format!("ARCHITECTURE.md: `{name}` is no dependency"));
    }
    let code: Vec<_> = sources.iter().filter(in_src).map(|s| (&s.path, tokens_without_tests(s))).collect();
    for (name, is_for_tests) in &dependencies {
        let Some(owners) = owners.get(name) else {
            violations.push(format!("ARCHITECTURE.md: the dependency `{name}` has no owner"));
            continue;
        };
        let users: Vec<_> =
            code.iter().filter(|(_, tokens)| uses(tokens, name)).map(|(path, _)| path.as_str()).collect();
        let owns = |owner: &str, user: &str| user == owner || owner.ends_with('/') && user.starts_with(owner);
        for user in users.iter().filter(|user| *is_for_tests || !owners.iter().any(|owner| owns(owner, user))) {
            violations.push(format!("{user}: uses `{name}`, which belongs to {owners:?}"));
        }
        for owner in owners.iter().filter(|owner| !is_for_tests && !users.iter().any(|user| owns(owner, user))) {
            violations.push(format!("ARCHITECTURE.md: `{owner}` does not use `{name}`"));
        }
    }
    violations
}

fn uses(tokens: &[Token], name: &str) -> bool {
    let starts = |at: usize| at == 0 || !is(tokens.get(at - 1), "::");
    let goes_on =
        |at: usize| is(tokens.get(at + 1), "::") || at > 0 && matches!(word(tokens.get(at - 1)), Some("use" | "crate"));
    (0..tokens.len()).any(|at| word(tokens.get(at)) == Some(name) && starts(at) && goes_on(at))
}

/// ARCHITECTURE.md names each top-level entry (anywhere in backticks, a folder with a slash) and, at the start of a line, each file
/// of `src/` by its path below it, others of the same folder behind a comma; and no file of `src/` that is not there.
fn unnamed_files(paths: &[String], architecture: &str) -> Vec<String> {
    let quoted: BTreeSet<String> = quoted(&architecture.replace("```", "")).into_iter().collect();
    let firsts: BTreeSet<String> = architecture.lines().flat_map(files_of_line).collect();
    let mut violations = BTreeSet::new();
    for path in paths {
        let top = path.split_once('/').map_or_else(|| path.clone(), |(folder, _)| format!("{folder}/"));
        if !quoted.contains(&top) {
            violations.insert(format!("{top}: ARCHITECTURE.md does not name it"));
        }
        if let Some(below) = path.strip_prefix("src/")
            && !firsts.contains(below)
        {
            violations.insert(format!("{path}: ARCHITECTURE.md has no line for `{below}`"));
        }
    }
    for named in firsts.iter().filter(|first| is_rust(first)) {
        if !paths.iter().any(|path| path.strip_prefix("src/") == Some(named.as_str())) {
            violations.insert(format!("src/{named}: named in ARCHITECTURE.md, but not there"));
        }
    }
    violations.into_iter().collect()
}

/// `a/b.rs, c.rs  what they are` is `a/b.rs` and `a/c.rs`.
fn files_of_line(line: &str) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let (file, goes_on) = word.strip_suffix(',').map_or((word, false), |file| (file, true));
        let folder = files.first().and_then(|first| first.rsplit_once('/')).map(|(folder, _)| format!("{folder}/"));
        files.push(folder.unwrap_or_default() + file);
        if !goes_on {
            break;
        }
    }
    files
}

/// No file names a folder of the machine it was written on. (A part of a longer path, as in `$DIR/root/`, is none.)
fn paths_of_a_machine(sources: &[Source]) -> Vec<String> {
    let folders = [["/wo", "rk/"], ["/ro", "ot/"], ["/tmp", "/wt-"], ["/ho", "me/"]].map(|parts| parts.concat());
    let mut violations = Vec::new();
    for source in sources {
        for folder in &folders {
            let stands_alone = |at: usize| {
                let before = source.text[..at].chars().next_back();
                before.is_none_or(|c| c.is_whitespace() || "\"'`(=:,[<".contains(c))
            };
            if source.text.match_indices(folder.as_str()).any(|(at, _)| stands_alone(at)) {
                violations.push(format!("{}: names {folder}", source.path));
            }
        }
    }
    violations
}

fn text(token: &Token) -> Option<String> {
    match token {
        Token::Text(text) => Some(text.clone()),
        Token::Word(_) | Token::Mark(_) | Token::Other(_) => None,
    }
}

/// Returns the first text of every call of one of the functions `names`, test code left out.
fn arguments(source: &str, names: &[&str]) -> BTreeSet<String> {
    let tokens = tokens_without_tests(&self::source("", source));
    let called = tokens
        .windows(3)
        .filter(|three| word(three.first()).is_some_and(|name| names.contains(&name)) && is(three.get(1), "("));
    called.filter_map(|three| text(&three[2])).collect()
}

/// Compares the first column of a README table, what stands in backticks there or else the whole cell, with what the code knows.
fn differences(readme: &str, heading: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    for row in table(readme, heading) {
        let names = Some(quoted(&row[0])).filter(|names| !names.is_empty()).unwrap_or_else(|| vec![row[0].clone()]);
        names.into_iter().for_each(|name| *said.entry(name).or_default() += 1);
    }
    let missing = known.iter().filter(|name| !said.contains_key(*name));
    let missing = missing.map(|name| format!("README.md: table `{heading}` lacks `{name}`"));
    let extra = said.keys().filter(|name| !known.contains(*name));
    let extra = extra.map(|name| format!("README.md: table `{heading}` has `{name}`, the code does not"));
    let repeated = said.iter().filter(|(_, times)| **times > 1);
    let repeated = repeated.map(|(name, times)| format!("README.md: table `{heading}` has `{name}` {times} times"));
    missing.chain(extra).chain(repeated).collect()
}

fn set<T: Into<String>>(values: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    values.into_iter().map(Into::into).collect()
}

/// Returns every key of a schema with its own, with a dot where one is below another; and those that must be there.
fn keys(schema: &Value, above: &str) -> (BTreeMap<String, Value>, BTreeSet<String>) {
    let (mut keys, mut required) = (BTreeMap::new(), BTreeSet::new());
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{above}{name}");
        if property["properties"].is_object() {
            let below = self::keys(property, &format!("{path}."));
            keys.extend(below.0);
            required.extend(below.1);
        } else {
            keys.insert(path, property.clone());
        }
    }
    let names = schema["required"].as_array().into_iter().flatten();
    required.extend(names.map(|name| format!("{above}{}", name.as_str().unwrap())));
    (keys, required)
}

/// The table of a file's keys names each of them, the words that it takes, its default, and whether it must be there.
fn differing_keys(readme: &str, heading: &str, schema: &str) -> Vec<String> {
    let (keys, required) = keys(&serde_json::from_str(schema).unwrap(), "");
    let mut violations = differences(readme, heading, &set(keys.keys().map(String::as_str)));
    for row in table(readme, heading) {
        let told = row[1..].join(" ");
        for (key, property) in quoted(&row[0]).iter().filter_map(|key| Some((key, keys.get(key)?))) {
            let words = property["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let default = property["default"].as_str().map_or_else(|| property["default"].to_string(), str::to_owned);
            let mut wanted: Vec<_> = words.map(str::to_owned).collect();
            wanted.extend(Some(default).filter(|default| default != "null"));
            let said = quoted(&told);
            let missing = wanted.iter().filter(|word| !said.contains(word));
            violations.extend(missing.map(|word| format!("README.md: the row of `{key}` lacks `{word}`")));
            if required.contains(key) != told.starts_with("required") {
                violations.push(format!("README.md: the row of `{key}` begins with `required` if and only if it is"));
            }
        }
    }
    violations
}

/// Returns the numbers of the constants of type `u8`, which are exit codes in a face, and those of every program.
fn exit_codes(face: &str) -> BTreeSet<String> {
    let tokens = tokens(face);
    let mut codes = set(["0", "129", "130", "143"]);
    for at in 0..tokens.len() {
        if word(tokens.get(at)) == Some("u8") && is(tokens.get(at + 1), "=") {
            codes.extend(word(tokens.get(at + 2)).map(str::to_owned));
        }
    }
    codes
}

/// Returns what stands between the braces of `struct NAME` or `impl NAME`, these included.
fn body<'a>(tokens: &'a [Token], what: &str, name: &str) -> &'a [Token] {
    let start = tokens.windows(3).position(|three| {
        word(three.first()) == Some(what) && word(three.get(1)) == Some(name) && is(three.get(2), "{")
    });
    let open = start.unwrap_or_else(|| panic!("there is no {what} {name}")) + 2;
    &tokens[open..block_end(tokens, open)]
}

/// Returns the long flags of a struct that clap reads.
fn long_flags(source: &str, of: &str) -> BTreeSet<String> {
    let (mut flags, mut is_long) = (BTreeSet::new(), false);
    for pair in body(&tokens(source), "struct", of).windows(2) {
        let Some(name) = word(pair.first()) else { continue };
        is_long |= name == "long";
        if pair[1] == Token::Other(':') && std::mem::take(&mut is_long) {
            flags.insert(format!("--{}", name.replace('_', "-")));
        }
    }
    flags
}

/// Returns the words of a type's `as_str`.
fn as_str_words(source: &str, of: &str) -> BTreeSet<String> {
    let tokens = tokens(source);
    let body = body(&tokens, "impl", of);
    let function = body.iter().position(|token| word(Some(token)) == Some("as_str")).expect("no as_str");
    let open = (function..body.len()).find(|at| is(body.get(*at), "{")).unwrap();
    body[open..block_end(body, open)].iter().filter_map(text).collect()
}

// ---------------------------------------------------------------------------------------------------------------------------
// This tree
// ---------------------------------------------------------------------------------------------------------------------------

#[test]
fn imports_point_down() {
    expect_none(&upward_imports(&sources()));
}

#[test]
fn unsafe_code_is_in_one_module() {
    expect_none(&strange_unsafe(&sources()));
}

#[test]
fn one_place_starts_processes() {
    expect_none(&strange_processes(&sources()));
}

#[test]
fn nothing_prints() {
    expect_none(&strange_prints(&sources()));
}

#[test]
fn wrappers_decide_nothing() {
    expect_none(&strange_wrappers(&sources()));
    let wrappers = tracked().into_iter().filter(|path| path.starts_with("sh/"));
    let names = ["build_product", "collect_artifacts", "install_deps", "preflight", "run_suites"];
    assert_eq!(wrappers.collect::<Vec<_>>(), names.map(|name| format!("sh/{name}.sh")));
}

#[test]
fn a_wrapper_that_decides_is_caught() {
    let with = |line: &str| format!("#!/usr/bin/env bash\nset -euo pipefail\n{line}\nexec container-runner all\n");
    let planted = [
        "trap 'rm x' EXIT",
        "f() { true; }",
        "if true; then true; fi",
        "[[ -e x ]] || true",
        "x=$(date)",
        "for x in a; do :; done",
    ];
    let planted: Vec<_> = planted.iter().map(|line| ("sh/a.sh", with(line))).collect();
    let other = [
        "set -euo pipefail\nexec container-runner all\n".to_owned(),
        "#!/usr/bin/env bash\nexec container-runner all\n".to_owned(),
        "#!/usr/bin/env bash\nset -euo pipefail\npython3 x\n".to_owned(),
        with(&"true\n".repeat(40)),
    ];
    let all = planted.iter().map(|(_, text)| text.as_str()).chain(other.iter().map(String::as_str));
    expect_each_caught(strange_wrappers, &all.map(|text| ("sh/a.sh", text)).collect::<Vec<_>>());
    expect_none_caught(strange_wrappers, &[("sh/a.sh", &with("export A=b")), ("tests/a.sh", "trap x")]);
}

#[test]
fn every_dependency_has_its_owner() {
    expect_none(&strange_uses(&sources(), &read("Cargo.toml"), &read("ARCHITECTURE.md")));
}

/// The crates that are built with these options, tests' aside.
fn tree(options: &[&str]) -> BTreeSet<String> {
    let shown = ["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let done = Command::new(env!("CARGO")).args(shown).args(options).current_dir(root()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn without_the_worker_there_is_no_http_no_zip_no_tls_and_with_it_no_openssl() {
    let of_worker = ["hmac", "ring", "rustls", "ureq", "webpki-roots", "zip"];
    let (default, all) = (tree(&[]), tree(&["--all-features"]));
    for name in of_worker {
        assert!(all.contains(name) && !default.contains(name), "{name}");
    }
    let is_http = |name: &&String| ["http", "tls", "ssl", "zip"].iter().any(|part| name.contains(part));
    assert_eq!(default.iter().filter(is_http).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(all.iter().filter(|name| name.contains("openssl") || *name == "native-tls").count(), 0);
}

#[test]
fn every_file_is_named() {
    expect_none(&unnamed_files(&tracked(), &read("ARCHITECTURE.md")));
}

#[test]
fn no_file_names_a_folder_of_somebodys_machine() {
    expect_none(&paths_of_a_machine(&sources()));
}

#[test]
fn the_guards_have_looked_at_the_tree() {
    let sources = sources();
    let on = |floor: &str| {
        let file = format!("src/{floor}.rs");
        let folder = format!("src/{floor}/");
        sources.iter().filter(|source| source.path == file || source.path.starts_with(&folder)).count()
    };
    for (floor, at_least) in
        [("model", 5), ("rules", 10), ("os", 15), ("flow", 8), ("harness", 2), ("cli", 2), ("worker", 15)]
    {
        assert!(on(floor) >= at_least, "only {} files on `{floor}`", on(floor));
    }
    let raw = sources.iter().find(|source| source.path == UNSAFE_FILE).expect("no file for unsafe code");
    assert!(!strange_unsafe(&[source("src/os/other.rs", &raw.text)]).is_empty(), "{UNSAFE_FILE} needs no unsafe code");
    assert!(table(&read("ARCHITECTURE.md"), "crate").len() >= 15);
    assert!(read("ARCHITECTURE.md").lines().count() < 200, "ARCHITECTURE.md is for reading in one go");
}

#[test]
fn the_readme_names_every_key() {
    let readme = read("README.md");
    for (file, at_least) in [("task", 12), ("runner", 17)] {
        let schema = read(&format!("schemas/{file}.schema.json"));
        assert!(keys(&serde_json::from_str(&schema).unwrap(), "").0.len() >= at_least, "{file}");
        expect_none(&differing_keys(&readme, &format!("key of `{file}.yaml`"), &schema));
    }
}

#[test]
fn the_readme_names_every_variable() {
    let readme = read("README.md");
    let settings = arguments(&read("src/os/host.rs"), &["text", "path", "folder", "value", "named"]);
    assert!(settings.contains("TEST_FILTER") && settings.contains("SUITES_DIR"), "{settings:?}");
    expect_none(&differences(&readme, "setting", &settings));
    expect_none(&differences(&readme, "variable of a block", &arguments(&read("src/flow/blocks.rs"), &["set"])));
    expect_none(&differences(&readme, "variable of a script", &arguments(&read("src/flow/workplace.rs"), &["set"])));
}

/// Tables of README, by their first heading, and what the code has for each.
fn words_for_the_readme() -> [(&'static str, BTreeSet<String>); 5] {
    let codes_of_cli = exit_codes(&read("src/cli.rs"));
    let with_others: BTreeSet<_> = codes_of_cli.iter().cloned().chain(["other".to_owned()]).collect();
    [
        ("exit code", exit_codes(&read("src/harness.rs"))),
        ("code of container-runner", with_others),
        ("exit code of grade", codes_of_cli),
        ("stage", as_str_words(&read("src/flow/stages/mod.rs"), "Stage")),
        ("status of a script", as_str_words(&read("src/rules/chickadee.rs"), "TestStatus")),
    ]
}

/// As [`words_for_the_readme`], of the worker's manual.
fn words_for_the_workers_manual() -> [(&'static str, BTreeSet<String>); 4] {
    [
        ("variable", workers_variables()),
        ("flag", long_flags(&read("src/worker/args.rs"), "Flags")),
        ("event of the log", as_str_words(&read("src/worker/log.rs"), "EventName")),
        ("code of chickadee-runner", exit_codes(&read("src/worker/mod.rs"))),
    ]
}

fn workers_variables() -> BTreeSet<String> {
    let files = ["src/worker/args.rs", "src/worker/args/secret.rs", "src/os/host/variables.rs"];
    let all = files.map(|file| tokens_without_tests(&source(file, &read(file)))).concat();
    let is_variable = |text: &String| {
        let is_ours = text.starts_with("RUNNER_") || text.starts_with("WORKER_");
        is_ours && text.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    };
    all.iter().filter_map(text).filter(is_variable).collect()
}

#[test]
fn the_readme_names_every_exit_code_stage_and_status() {
    let readme = read("README.md");
    for (heading, known) in words_for_the_readme() {
        expect_none(&differences(&readme, heading, &known));
    }
}

#[test]
fn the_workers_manual_names_every_variable_flag_event_and_exit_code() {
    let manual = read("docs/worker.md");
    for (heading, known) in words_for_the_workers_manual() {
        let differences = differences(&manual, heading, &known);
        expect_none(&differences.iter().map(|text| text.replace("README.md", "docs/worker.md")).collect::<Vec<_>>());
    }
}

// ---------------------------------------------------------------------------------------------------------------------------
// The guards themselves
// ---------------------------------------------------------------------------------------------------------------------------

#[test]
fn an_upward_import_is_caught() {
    let planted = [
        ("src/model/a.rs", "use crate::rules::judge;"),
        ("src/rules/a.rs", "use crate::os::host;"),
        ("src/rules/a.rs", "use crate::{model::script, flow::trial};"),
        ("src/rules/parse/a.rs", "fn f() -> crate::flow::trial::Judged { todo!() }"),
        ("src/rules/a.rs", "mod inner { mod deeper { use crate::os::host; } }"),
        ("src/rules/a.rs", "use super::super::os::host;"),
        ("src/rules/a.rs", "mod inner { use super::super::super::os::host; }"),
        ("src/os/a.rs", "use crate::rules;"),
        ("src/os/disk/mod.rs", "use super::super::flow;"),
        ("src/flow/a.rs", "use crate::harness::main;"),
        ("src/flow/a.rs", "use crate::{self as all, *};"),
        ("src/flow/a.rs", "use crate as all;"),
        ("src/cli.rs", "use crate::harness::main;"),
        ("src/worker/api.rs", "use crate::cli;"),
        ("src/bin/x.rs", "fn main() { proving_ground::os::engine::run() }"),
        ("src/model/a.rs", "#[cfg(test)] mod tests { use crate::flow::trial; }"),
        ("src/model/a.rs", "const LIFETIME: &'static str = \"'\"; use crate::flow::trial;"),
        ("src/stray.rs", ""),
    ];
    expect_each_caught(upward_imports, &planted);
}

#[test]
fn a_downward_import_is_allowed() {
    let allowed = [
        ("src/rules/parse/a.rs", "use super::node; use crate::{model::{script, suite}, rules::nearest};"),
        ("src/rules/a.rs", "// use crate::os::host;\n/* use /* crate::flow::x */ crate::flow; */"),
        ("src/rules/a.rs", "const A: &str = \"use crate::os::host\"; const B: &str = r#\"\"crate::flow::x\"#;"),
        ("src/rules/a.rs", "const QUOTE: char = '\"'; const OTHER: char = '\\''; pub(crate) fn f<'a>(a: &'a str) {}"),
        ("src/rules/a.rs", "mod tests { use super::*; fn f() { self::g(); } }"),
        ("src/os/disk/mod.rs", "pub(in crate::os) use self::write::write; use super::host;"),
        ("src/harness.rs", "mod flags; use flags::Flags; use crate::flow::plan; use crate::os::host;"),
        ("src/bin/x.rs", "fn main() { proving_ground::harness::main() }"),
        ("src/internals.rs", "use crate::flow::evidence_json;"),
        ("tests/a.rs", "use proving_ground::internals;"),
    ];
    expect_none_caught(upward_imports, &allowed);
}

#[test]
fn unsafe_code_elsewhere_is_caught() {
    let planted = [
        ("src/os/disk/a.rs", "fn f() { unsafe { g() } }"),
        ("src/os/engine/mod.rs", "unsafe extern \"C\" { fn f(); }"),
        ("src/harness.rs", "#[unsafe(no_mangle)] fn f() {}"),
    ];
    expect_each_caught(strange_unsafe, &planted);
    let allowed = [
        ("src/os/engine/raw.rs", "unsafe { g() }"),
        ("src/os/engine/mod.rs", "#[expect(unsafe_code)] mod raw; // unsafe\nconst A: &str = \"unsafe\";"),
        ("tests/a.rs", "unsafe fn f() {}"),
        ("README.md", "unsafe"),
    ];
    expect_none_caught(strange_unsafe, &allowed);
}

#[test]
fn a_process_started_elsewhere_is_caught() {
    let planted = [
        ("src/flow/a.rs", "fn f() { std::process::Command::new(\"x\"); }"),
        ("src/flow/a.rs", "use std::process::{Command, Stdio};"),
        ("src/os/host.rs", "use std::{process::Command as C};"),
        ("src/os/host.rs", "fn f() { Command :: new(\"x\") }"),
        ("src/os/host.rs", "use nix::unistd::fork;"),
        ("src/os/host.rs", "fn f() { libc::execve(a, b, c) }"),
    ];
    expect_each_caught(strange_processes, &planted);
    let allowed = [
        ("src/os/engine/raw.rs", "libc::fork()"),
        ("src/flow/a.rs", "StageFailure::Command { rc } // Command::new"),
        ("src/flow/a.rs", "use std::process::ExitCode;"),
        ("tests/a.rs", "Command::new(\"git\")"),
    ];
    expect_none_caught(strange_processes, &allowed);
}

#[test]
fn a_print_is_caught() {
    expect_each_caught(strange_prints, &[("src/a.rs", "println!(\"x\")"), ("src/flow/b.rs", "mod m { dbg ! (x) }")]);
    let allowed = [("src/a.rs", "fn print(text: &str) {} // println!(\"x\")"), ("benches/a.rs", "println!(\"x\")")];
    expect_none_caught(strange_prints, &allowed);
}

#[test]
fn a_dependency_used_by_a_stranger_is_caught() {
    let manifest = "[dependencies]\nserde-yaml = { package = \"other\" }\n[dev-dependencies]\nassertions = \"1\"\n";
    let owners = "| crate | owner | why |\n|---|---|---|\n| `serde-yaml` | `src/a.rs`, `src/b/` | x |\n| `assertions` | tests | x |\n";
    let uses = |extra: (&str, &str), manifest: &str, owners: &str| {
        let files = [("src/a.rs", "use serde_yaml::Error;"), ("src/b/c.rs", "fn f() -> serde_yaml::Value {}"), extra];
        strange_uses(&files.map(|(path, text)| source(path, text)), manifest, owners)
    };
    let free = "mod x {} #[cfg(test)] mod tests { use serde_yaml::Error; use assertions::*; }";
    assert_eq!(uses(("src/d.rs", free), manifest, owners), Vec::<String>::new());
    assert_eq!(
        uses(("src/d.rs", "// serde_yaml::x\nuse other::serde_yaml::x;"), manifest, owners),
        Vec::<String>::new()
    );
    for planted in ["use serde_yaml::Error;", "use serde_yaml as y;", "extern crate serde_yaml;", "use assertions::a;"]
    {
        assert_eq!(uses(("src/d.rs", planted), manifest, owners).len(), 1, "{planted}");
    }
    let more = format!("{manifest}[target.'cfg(unix)'.dependencies]\nnew = \"1\"\n");
    assert_eq!(uses(("src/d.rs", ""), &more, owners), ["ARCHITECTURE.md: the dependency `new` has no owner"]);
    let gone = "[dependencies]\nassertions = \"1\"\n";
    assert!(
        uses(("src/d.rs", ""), gone, owners).contains(&"ARCHITECTURE.md: `serde_yaml` is no dependency".to_owned())
    );
    let idle = owners.replace("`src/b/`", "`src/b/`, `src/d.rs`");
    assert_eq!(uses(("src/d.rs", ""), manifest, &idle), ["ARCHITECTURE.md: `src/d.rs` does not use `serde_yaml`"]);
}

#[test]
fn a_file_that_is_not_named_is_caught() {
    let architecture = "`Cargo.toml`, `src/`\n```text\nmodel/script.rs   nouns\n```\n";
    let unnamed = |paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
        unnamed_files(&paths, architecture)
    };
    assert_eq!(unnamed(&["Cargo.toml", "src/model/script.rs"]), Vec::<String>::new());
    assert_eq!(unnamed(&["src/model/script.rs", "sh/x.sh"]), ["sh/: ARCHITECTURE.md does not name it"]);
    assert_eq!(unnamed(&["src/model/script.rs", "src/os/new.rs"]).len(), 1);
    assert_eq!(unnamed(&["Cargo.toml"]), ["src/model/script.rs: named in ARCHITECTURE.md, but not there"]);
}

#[test]
fn a_path_of_a_machine_is_caught() {
    let path = ["see /ro", "ot/notes.txt"].concat();
    let fine = ["\"$SCRATCH_DIR/ro", "ot/usr\", /workspace"].concat();
    expect_each_caught(paths_of_a_machine, &[("docs/a.md", &path)]);
    expect_none_caught(paths_of_a_machine, &[("suites/a/task.yaml", &fine)]);
}

#[test]
fn a_readme_that_differs_is_caught() {
    let readme =
        "| key | x |\n|---|---|\n| `a` | `one` \\| `two` |\n| `b`, `c` | y |\n\n| other | z |\n|---|---|\n| `q` | |\n";
    assert_eq!(differences(readme, "key", &set(["a", "b", "c"])), Vec::<String>::new());
    assert_eq!(differences(readme, "key", &set(["a", "b", "c", "d"])), ["README.md: table `key` lacks `d`"]);
    assert_eq!(differences(readme, "key", &set(["a", "b"])).len(), 1);
    assert_eq!(differences(readme, "no such table", &set(["a"])).len(), 1);
    let repeated = readme.replace("| `b`, `c` | y |", "| `b`, `c` | y |\n| `a` | y |");
    assert_eq!(differences(&repeated, "key", &set(["a", "b", "c"])), ["README.md: table `key` has `a` 2 times"]);
    let plain = readme.replace("| `q` |", "| q |");
    assert_eq!(differences(&plain, "other", &set(["q"])), Vec::<String>::new());
}

/// In the very tables that are read, of which none is empty: code that has a word more, or one less.
#[test]
fn a_table_that_differs_from_the_code_is_caught() {
    let (readme, manual) = (read("README.md"), read("docs/worker.md"));
    let of_readme = words_for_the_readme().map(|(heading, known)| (&readme, heading, known));
    let of_manual = words_for_the_workers_manual().map(|(heading, known)| (&manual, heading, known));
    for (document, heading, known) in of_readme.into_iter().chain(of_manual) {
        assert!(known.len() >= 4, "{heading}: {known:?}");
        let more: BTreeSet<_> = known.iter().cloned().chain(["new".to_owned()]).collect();
        assert_eq!(differences(document, heading, &more), [format!("README.md: table `{heading}` lacks `new`")]);
        for gone in &known {
            let less: BTreeSet<_> = known.iter().filter(|name| *name != gone).cloned().collect();
            let caught = format!("README.md: table `{heading}` has `{gone}`, the code does not");
            assert_eq!(differences(document, heading, &less), [caught]);
        }
    }
}

#[test]
fn a_key_that_the_readme_tells_otherwise_is_caught() {
    let schema = r#"{"properties": {
        "a": {"enum": ["one", "two"], "default": "two"},
        "b": {"required": ["c"], "properties": {"c": {}, "d": {"default": false}}}
    }}"#;
    let heading = "| key | default |\n|---|---|\n";
    let readme = format!("{heading}| `a` | `two`, or `one` |\n| `b.c` | required |\n| `b.d` | `false` |\n");
    assert_eq!(differing_keys(&readme, "key", schema), Vec::<String>::new());
    for (said, planted) in
        [("`one`", "one"), ("`two`", "`three`"), ("required", "none"), ("`false`", ""), ("`b.d`", "`d`")]
    {
        let violations = differing_keys(&readme.replace(said, planted), "key", schema);
        assert!(!violations.is_empty(), "not caught: {planted} instead of {said}");
    }
}

#[test]
fn variables_codes_flags_and_words_are_read_from_code() {
    let host = "fn f() { text(\"A\"); path(\"B\")?; other(\"C\"); } #[cfg(test)] mod tests { fn t() { text(\"D\"); } }";
    assert_eq!(arguments(host, &["text", "path"]), set(["A", "B"]));
    assert_eq!(exit_codes("const FAILED: u8 = 101; const N: u32 = 7;"), set(["0", "101", "129", "130", "143"]));
    let flags = "struct Other { #[arg(long)] a: u8 } struct Flags {\n/// Not long: x\n#[arg(short)] b: u8, \
         #[arg(long, value_name = \"X\")] c_d: Option<std::path::PathBuf>, #[command(flatten)] e: E, #[arg(long)] f: bool }";
    assert_eq!(long_flags(flags, "Flags"), set(["--c-d", "--f"]));
    let words =
        "impl Other { } impl Status { fn as_str(self) -> &'static str { match self { A => \"a\", B => \"b\" } } }";
    assert_eq!(as_str_words(words, "Status"), set(["a", "b"]));
}

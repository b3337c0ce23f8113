//! What `container-runner grade` promises, seen from outside: every test runs the real program over a set-up and a submission that it has
//! written into a folder of its own, and looks at exit code, text and what is left.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: what fails is the claim")]

#[path = "grade/archives.rs"]
mod archives;
#[path = "grade/cgroups.rs"]
mod cgroups;
#[path = "grade/ends.rs"]
mod ends;
#[path = "grade/hints.rs"]
mod hints;
#[path = "grade/kept.rs"]
mod kept;
#[path = "grade/refused.rs"]
mod refused;
#[path = "grade/report.rs"]
mod report;
#[path = "grade/screen.rs"]
mod screen;
#[path = "grade/settings.rs"]
mod settings;
#[path = "harness/world.rs"]
mod world;

use serde_json::{Value, json};

use world::{Ended, Project, User, can_be_sandboxed, is_ci, is_root};

/// The program.
const RUNNER: &str = env!("CARGO_BIN_EXE_container-runner");

/// As whom it runs, and where the scripts do.
#[derive(Debug, Clone, Copy)]
struct Way {
    user: User,
    flags: &'static [&'static str],
}

/// Whoever runs this, without a sandbox.
const PLAIN: Way = Way { user: User::Caller, flags: &[] };

/// Every way there is on this machine. In CI all of them have to be.
#[expect(clippy::print_stderr, reason = "what was not tried has to be said")]
fn ways() -> Vec<Way> {
    assert!(!is_ci() || can_be_sandboxed(), "CI must be able to make a sandbox");
    let users = if is_root() { vec![User::Caller, User::Ordinary] } else { vec![User::Caller] };
    if !is_root() {
        eprintln!("NOT TRIED: another user than this one; that takes root");
    }
    let all_flags: &[&'static [&'static str]] = if can_be_sandboxed() { &[&[], &["--sandbox"]] } else { &[&[]] };
    if !can_be_sandboxed() {
        eprintln!("NOT TRIED: the sandbox; this machine lets nobody make namespaces");
    }
    users.into_iter().flat_map(|user| all_flags.iter().map(move |flags| Way { user, flags })).collect()
}

/// A folder with a set-up in `week1` and a submission in `alice`.
struct Lab {
    project: Project,
    way: Way,
}

impl Lab {
    fn new(way: Way) -> Self {
        Self { project: Project::bare().by(RUNNER).of(way.user), way }
    }

    /// One whose set-up has these entries, and a file for each of them: its script, its text, more keys.
    fn with(way: Way, entries: &[(&str, &str, Value)]) -> Self {
        let lab = Self::new(way);
        let suites = entries.iter().map(|(script, text, keys)| {
            lab.project.file(format!("week1/{script}"), text);
            let mut entry = keys.as_object().cloned().unwrap_or_default();
            entry.insert("script".to_owned(), json!(script));
            Value::Object(entry)
        });
        let suites: Vec<_> = suites.collect();
        lab.manifest(&json!({"schemaVersion": 1, "testSuites": suites, "timeLimitSeconds": 60}));
        lab
    }

    fn manifest(&self, manifest: &Value) {
        self.project.file("week1/test.properties.json", manifest.to_string());
    }

    fn file(&self, path: &str, text: &str) -> &Self {
        self.project.file(path, text);
        self
    }

    fn arguments<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        ["grade"].iter().chain(self.way.flags).chain(arguments).copied().collect()
    }

    fn grade(&self, arguments: &[&str]) -> Ended {
        let ended = self.project.run(&self.arguments(arguments));
        assert!(self.project.tree("tmp").is_empty(), "left behind: {:?}\n{ended}", self.project.tree("tmp"));
        ended
    }

    /// Grades, and returns the one line that is on standard output.
    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let ended = self.grade(&[arguments, &["--json"]].concat());
        ended.code(code);
        let line = ended.stdout.strip_suffix('\n').unwrap_or_else(|| panic!("no line\n{ended}"));
        assert!(!line.contains('\n'), "{ended}");
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}\n{ended}"))
    }
}

/// Words before a command that give it a file system of its own in place of TMPDIR, mounted with these options.
fn with_temp_dir_on(options: &'static str) -> [&'static str; 8] {
    let mount = "mount -t tmpfs -o \"$0\" tmpfs \"$TMPDIR\" && exec \"$@\"";
    ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", mount, options]
}

/// Every line of the table, with one space where there are several, and `N` for a time.
fn lines(ended: &Ended) -> Vec<String> {
    let line = |line: &str| {
        let mut words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        for at in 1..words.len() {
            if words[at] == "ms" {
                "N".clone_into(&mut words[at - 1]);
            }
        }
        words.join(" ")
    };
    ended.stdout.lines().map(line).collect()
}

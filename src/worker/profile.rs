//! What this machine can run: languages and modules, found out at start-up by running them.
//!
//! A name on `PATH` proves little: it may be a broken link, a stub that asks to install the real program, a version manager without
//! a version. So each program is asked for its version, all of them at once, each with a deadline of its own. One that hangs, floods,
//! crashes or is none costs that deadline and is not in the profile; nothing of it can fail the start-up.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::model::script::{
    Changes, Completion, Echo, EndedBy, Environment, Exit, Limits, Script, SignalReach, Stream,
};
use crate::os::engine::{Cancel, ScriptRunner};
use crate::os::host::find_in_path;

/// What a worker tells the server of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    /// `linux`, `macos`.
    pub(super) platform: String,
    /// `x86_64`, `arm64`.
    pub(super) architecture: String,
    /// Of the languages that are here, in the order of `PROGRAMS`.
    pub(super) language_versions: Vec<LanguageVersion>,
    /// Programs in the order of `PROGRAMS`, then modules in the order of `MODULES`.
    pub(super) capabilities: Vec<Capability>,
}

/// A language that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LanguageVersion {
    /// Name of its program.
    pub(super) language: String,
    /// As the program tells it, at most `VERSION_BYTES_MAX` letters, digits, `.`, `+`, `-`, `_`, `~`.
    pub(super) version: String,
}

/// Something that scripts may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Capability {
    /// `make`, `python:numpy`.
    pub(super) name: String,
}

/// How long one program may take, until SIGTERM, from there to SIGKILL, and for what is left in its pipes.
const LIMITS: Limits = Limits {
    wall: Duration::from_secs(5),
    grace: Duration::from_millis(500),
    drain: Duration::from_secs(2),
    kept_bytes_max: 16 << 10,
    log_bytes_max: 0,
    pids_max: None,
};
const VERSION_BYTES_MAX: usize = 64;
/// Some tell first what else they are.
const LINES_MAX: usize = 16;

/// A program that scripts may need.
struct Program {
    name: &'static str,
    /// Makes it tell its version and do nothing else.
    argument: &'static str,
    /// What stands before the version of a language; none: no language of its own.
    marks: &'static [&'static str],
}

const fn tool(name: &'static str) -> Program {
    Program { name, argument: "--version", marks: &[] }
}

const fn language(name: &'static str, marks: &'static [&'static str]) -> Program {
    Program { name, argument: "--version", marks }
}

const PYTHON: &str = "python3";
const PROGRAMS: [Program; 14] = [
    language("bash", &["bash, version "]),
    language("zsh", &["zsh "]),
    language(PYTHON, &["Python "]),
    language("R", &["R version "]),
    tool("Rscript"),
    language("swift", &["Swift version "]),
    tool("make"),
    tool("cmake"),
    tool("gcc"),
    tool("g++"),
    tool("clang"),
    // Before version 9 it knows no option of two dashes.
    Program { name: "java", argument: "-version", marks: &["java version \"", "openjdk version \""] },
    Program { name: "javac", argument: "-version", marks: &[] },
    language("node", &["v"]),
];

/// Modules that courses use, by the names that programs import.
const MODULES: [&str; 28] = [
    "IPython",
    "PIL",
    "bs4",
    "cv2",
    "flake8",
    "hypothesis",
    "ipykernel",
    "jupyter",
    "keras",
    "lxml",
    "matplotlib",
    "mypy",
    "nbconvert",
    "nbformat",
    "networkx",
    "numpy",
    "pandas",
    "pylint",
    "pytest",
    "requests",
    "scipy",
    "seaborn",
    "sklearn",
    "statsmodels",
    "sympy",
    "tensorflow",
    "torch",
    "yaml",
];
/// Looks for its arguments as modules, and says those that it finds. Nothing is imported: that would take seconds, and run their code. A
/// folder that happens to have the name of a module has no origin.
const FIND_MODULES: &str = "\
import importlib.util, sys
for name in sys.argv[1:]:
    try:
        spec = importlib.util.find_spec(name)
    except Exception:
        continue
    if spec is not None and spec.origin is not None:
        print(name)
";

/// Asks every program and module of the tables, and returns what is there. Takes as long as the slowest of them, at most the sum of
/// `LIMITS`; once `cancel` is triggered, no longer, and what has not answered is missing. Only absolute folders of `search_path` count. The
/// programs run in `folder`, their `HOME`, and get `PATH` and `LANG`, too.
///
/// `runner` is of the kind that scripts have: what they do not see is not here. It keeps a slot for each program that ran at the same
/// time: one that was made for this should be dropped afterwards.
pub(super) fn discover(runner: &dyn ScriptRunner, cancel: &Cancel, search_path: &OsStr, folder: &Path) -> Profile {
    let mut profile = Profile {
        platform: std::env::consts::OS.to_owned(),
        architecture: architecture(std::env::consts::ARCH).to_owned(),
        language_versions: Vec::new(),
        capabilities: Vec::new(),
    };
    let asker = Asker { runner, cancel, search_path, folder };
    let (programs, modules) = thread::scope(|scope| {
        let modules = Pending::start(scope, || asker.modules());
        let programs = PROGRAMS.each_ref().map(|program| Pending::start(scope, || asker.ask(program)));
        (programs.map(Pending::end), modules.end())
    });
    for (program, found) in PROGRAMS.iter().zip(programs) {
        let Some(Found { version }) = found else { continue };
        profile.capabilities.push(Capability { name: program.name.to_owned() });
        profile
            .language_versions
            .extend(version.map(|version| LanguageVersion { language: program.name.to_owned(), version }));
    }
    let modules = modules.unwrap_or_default().into_iter();
    profile.capabilities.extend(modules.map(|module| Capability { name: format!("python:{module}") }));
    profile
}

/// The kernel says `aarch64`, macOS and the field `arm64`.
fn architecture(name: &str) -> &str {
    if name == "aarch64" { "arm64" } else { name }
}

/// A question that a thread of its own puts, or, where none can be had, nobody until somebody wants the answer.
enum Pending<'scope, Ask, T> {
    Asked(thread::ScopedJoinHandle<'scope, T>),
    NotAsked(Ask),
}

impl<'scope, Ask, T> Pending<'scope, Ask, Option<T>>
where
    Ask: Fn() -> Option<T> + Copy + Send + 'scope,
    T: Send + 'scope,
{
    fn start(scope: &'scope thread::Scope<'scope, '_>, ask: Ask) -> Self {
        match thread::Builder::new().name("profile".to_owned()).spawn_scoped(scope, ask) {
            Ok(asked) => Self::Asked(asked),
            Err(_) => Self::NotAsked(ask),
        }
    }

    /// Returns the answer. A question that broke down has none.
    fn end(self) -> Option<T> {
        match self {
            Self::Asked(asked) => asked.join().unwrap_or_default(),
            Self::NotAsked(ask) => ask(),
        }
    }
}

/// A program that is here and works.
struct Found {
    /// None: not a language, or the program does not tell.
    version: Option<String>,
}

/// How programs are asked.
#[derive(Clone, Copy)]
struct Asker<'a> {
    runner: &'a dyn ScriptRunner,
    cancel: &'a Cancel,
    search_path: &'a OsStr,
    folder: &'a Path,
}

impl Asker<'_> {
    fn ask(&self, program: &Program) -> Option<Found> {
        let done = self.run(program.name, &[program.argument.into()])?;
        // Old ones tell it on standard error: Python 2, Java.
        let version = [&done.stdout, &done.stderr].into_iter().find_map(|stream| version(&text(stream), program.marks));
        Some(Found { version })
    }

    /// Returns those of `MODULES` that Python finds; `-I`: without the variables and folders of whoever started the worker.
    fn modules(&self) -> Option<Vec<&'static str>> {
        let args: Vec<_> = ["-I", "-c", FIND_MODULES].iter().chain(&MODULES).map(OsString::from).collect();
        Some(known_modules(&text(&self.run(PYTHON, &args)?.stdout)))
    }

    /// Returns how the program ended, if it is there and succeeded.
    fn run(&self, name: &str, args: &[OsString]) -> Option<Completion> {
        let folders = std::env::split_paths(self.search_path).filter(|folder| folder.is_absolute());
        let mut programs = folders.filter_map(|folder| find_in_path(OsStr::new(name), folder.as_os_str()));
        // As a shell does: what cannot be executed, whatever the reason, such as one that the sandbox does not show, may be found in
        // another folder.
        let done = programs.find_map(|program| self.run_program(program, args.to_vec()))?;
        ((done.ended_by, done.exit) == (EndedBy::Itself, Exit::Code(0))).then_some(done)
    }

    fn run_program(&self, program: PathBuf, args: Vec<OsString>) -> Option<Completion> {
        let script = Script {
            program,
            args,
            cwd: self.folder.to_owned(),
            work_dir: self.folder.to_owned(),
            changes: Changes::Dropped,
            environment: self.environment(),
            limits: LIMITS,
            logs: None,
            signals: SignalReach::OwnProcesses,
            echo: Echo::Off,
            marker: None,
        };
        self.runner.run(&script, self.cancel).ok()
    }

    /// English, because it is read.
    fn environment(&self) -> Environment {
        let mut environment = Environment::default();
        environment.set("PATH", self.search_path);
        environment.set("HOME", self.folder);
        environment.set("LANG", "C.UTF-8");
        environment
    }
}

fn text(stream: &Stream) -> String {
    String::from_utf8_lossy(&stream.head).into_owned()
}

/// Returns the version that stands behind one of `marks` in the first lines of `text`. It begins with a digit, and what is too long to be one
/// is none.
fn version(text: &str, marks: &[&str]) -> Option<String> {
    let behind = |line: &'_ str| marks.iter().find_map(|mark| Some(line.split_once(mark)?.1.to_owned()));
    text.lines().take(LINES_MAX).filter_map(behind).find_map(|rest| leading_version(&rest).map(str::to_owned))
}

fn leading_version(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_' | '~');
    let version = text.split(|c: char| !is_part(c)).next()?;
    (version.starts_with(|c: char| c.is_ascii_digit()) && version.len() <= VERSION_BYTES_MAX).then_some(version)
}

/// Returns the modules of ours that stand on a line of their own: whatever else a Python says is no name of a module.
fn known_modules(text: &str) -> Vec<&'static str> {
    MODULES.into_iter().filter(|module| text.lines().any(|line| line == *module)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::os::engine::UnsandboxedScriptRunner;

    fn marks(name: &str) -> &'static [&'static str] {
        PROGRAMS.iter().find(|program| program.name == name).unwrap().marks
    }

    #[test]
    fn versions_are_read_from_what_programs_say() {
        for (language, said, expected) in [
            ("python3", "Python 3.11.2\n", "3.11.2"),
            ("python3", "Python 3.14.0rc2\n", "3.14.0rc2"),
            ("python3", "Python 3.13.0+\n", "3.13.0+"),
            ("python3", "Python 3.9.18 :: Anaconda, Inc.\n", "3.9.18"),
            (
                "python3",
                "Python 3.10.14 (39dc8d3c85a7, Aug 27 2024, 14:33:33)\n[PyPy 7.3.17 with GCC 10.2.1]\n",
                "3.10.14",
            ),
            (
                "R",
                "R version 4.2.2 Patched (2022-11-10 r83330) -- \"Innocent and Trusting\"\nCopyright (C) 2022\nR is free\n",
                "4.2.2",
            ),
            ("R", "R version 4.4.1 (2024-06-14) -- \"Race for Your Life\"\r\n", "4.4.1"),
            ("R", "WARNING: ignoring environment value of R_HOME\nR version 3.6.3 (2020-02-29) -- \"x\"\n", "3.6.3"),
            ("swift", "Swift version 5.9.2 (swift-5.9.2-RELEASE)\nTarget: x86_64-unknown-linux-gnu\n", "5.9.2"),
            (
                "swift",
                "swift-driver version: 1.87.1 Apple Swift version 5.9 (swiftlang-5.9.0.128.108 clang-1500.0.40.1)\n\
                 Target: arm64-apple-macosx14.0\n",
                "5.9",
            ),
            ("swift", "Apple Swift version 6.0-dev (LLVM 3f1, Swift 2e)\n", "6.0-dev"),
            ("bash", "GNU bash, version 5.2.15(1)-release (x86_64-pc-linux-gnu)\nCopyright\n", "5.2.15"),
            ("bash", "GNU bash, version 3.2.57(1)-release (arm64-apple-darwin23)\n", "3.2.57"),
            ("zsh", "zsh 5.9 (x86_64-debian-linux-gnu)\n", "5.9"),
            ("zsh", "zsh 5.8.1 (x86_64-ubuntu-linux-gnu)", "5.8.1"),
            ("zsh", "zsh 5.9.0.1-dev (x86_64-pc-linux-gnu)", "5.9.0.1-dev"),
            ("java", "openjdk version \"17.0.13\" 2024-10-15\nOpenJDK Runtime Environment\n", "17.0.13"),
            ("java", "java version \"1.8.0_202\"\n", "1.8.0_202"),
            ("java", "openjdk version \"21-ea\" 2023-09-19\n", "21-ea"),
            ("node", "v20.11.1\n", "20.11.1"),
        ] {
            assert_eq!(version(said, marks(language)).as_deref(), Some(expected), "{language}: {said}");
        }
    }

    #[test]
    fn what_is_no_version_is_none() {
        let flood = "Python 3".repeat(200_000);
        let long = format!("Python 3.{}", "1".repeat(VERSION_BYTES_MAX));
        let late = format!("{}Python 3.1\n", "noise\n".repeat(LINES_MAX));
        for said in [
            "",
            "\n\n\n",
            "Python",
            "Python ",
            "Python \u{1b}[31m3.1",
            "Python -3.1",
            "Python \u{663}.1",
            "Pyth\0on 3.1",
            "python 3.1",
            "error: no such option: --version",
            &long,
            &late,
        ] {
            assert_eq!(version(said, marks("python3")), None, "{said:?}");
        }
        // Bounded, whatever comes: this one ends at the next letter that is none of a version.
        assert_eq!(version(&flood, marks("python3")).as_deref(), Some("3Python"));
        assert_eq!(version("Python 3.1\u{1b}[2J\u{202e}", marks("python3")).as_deref(), Some("3.1"));
        assert_eq!(version("Python 3.1\"}],\"x\":[{\"", marks("python3")).as_deref(), Some("3.1"));
        assert_eq!(version("zsh 5.9", &[]), None);
    }

    #[test]
    fn only_modules_that_were_asked_for_are_told() {
        assert_eq!(
            known_modules("pandas\nos\nnumpy \n numpy\npytest\r\nnumpy\n\u{1b}[1myaml"),
            ["numpy", "pandas", "pytest"]
        );
        assert_eq!(known_modules(""), [""; 0]);
    }

    #[test]
    fn the_tables_have_no_name_twice() {
        let names: std::collections::BTreeSet<_> = PROGRAMS.iter().map(|program| program.name).chain(MODULES).collect();
        assert_eq!(names.len(), PROGRAMS.len() + MODULES.len());
        assert!(MODULES.is_sorted());
    }

    #[test]
    fn the_wire_has_the_keys_of_the_protocol() {
        let profile = Profile {
            platform: "linux".to_owned(),
            architecture: architecture("aarch64").to_owned(),
            language_versions: vec![LanguageVersion { language: "R".to_owned(), version: "4.2.2".to_owned() }],
            capabilities: vec![Capability { name: "python:numpy".to_owned() }],
        };
        let expected = "{\"platform\":\"linux\",\"architecture\":\"arm64\",\
                        \"languageVersions\":[{\"language\":\"R\",\"version\":\"4.2.2\"}],\
                        \"capabilities\":[{\"name\":\"python:numpy\"}]}";
        assert_eq!(serde_json::to_string(&profile).unwrap(), expected);
        assert_eq!(architecture("x86_64"), "x86_64");
    }

    /// A machine whose programs are scripts of ours.
    struct Machine {
        dir: tempfile::TempDir,
        bin: PathBuf,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let bin = dir.path().join("bin");
            fs::create_dir(&bin).unwrap();
            Self { dir, bin }
        }

        fn has(&self, name: &str, body: &str) {
            let path = self.bin.join(name);
            fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn discover(&self) -> Profile {
            let path = std::env::join_paths([&self.bin, Path::new("/usr/bin/env-that-is-none")]).unwrap();
            self.discover_in(&path)
        }

        fn discover_in(&self, search_path: &OsStr) -> Profile {
            discover(&UnsandboxedScriptRunner::new(), &Cancel::new().unwrap(), search_path, self.dir.path())
        }
    }

    fn versions(profile: &Profile) -> Vec<String> {
        profile.language_versions.iter().map(|one| format!("{} {}", one.language, one.version)).collect()
    }

    fn names(profile: &Profile) -> Vec<&str> {
        profile.capabilities.iter().map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn a_machine_without_any_program_has_a_profile_too() {
        let profile = Machine::new().discover();
        assert_eq!((names(&profile), versions(&profile)), (Vec::new(), Vec::new()));
        assert_eq!(profile.platform, std::env::consts::OS);
    }

    #[test]
    fn programs_that_work_are_told_in_the_order_of_the_table() {
        let machine = Machine::new();
        machine.has("make", "echo GNU Make 4.3");
        machine.has("zsh", "echo 'zsh 5.9 (x86_64-debian-linux-gnu)'");
        machine.has("java", "echo 'openjdk version \"17.0.9\" 2023-10-17' >&2");
        machine.has("bash", "echo 'GNU bash, version 5.2.15(1)-release (x86_64-pc-linux-gnu)'");
        machine.has("swift", "echo something else");
        let profile = machine.discover();
        assert_eq!(names(&profile), ["bash", "zsh", "swift", "make", "java"]);
        assert_eq!(versions(&profile), ["bash 5.2.15", "zsh 5.9", "java 17.0.9"]);
    }

    #[test]
    fn programs_that_misbehave_are_left_out_and_disturb_no_other() {
        let machine = Machine::new();
        machine.has("python3", "trap '' TERM; while :; do /bin/sleep 1; done");
        machine.has("R", "while :; do echo 'R version 4.2.2 floods'; done");
        machine.has("swift", "echo 'Swift version 5.9'; kill -SEGV $$");
        machine.has("make", "exit 3");
        machine.has("bash", "/bin/sleep 1000 & echo 'GNU bash, version 5.2.15(1)-release'");
        machine.has("zsh", "echo 'zsh 5.9'");
        symlink("nowhere", machine.bin.join("gcc")).unwrap();
        fs::create_dir(machine.bin.join("g++")).unwrap();
        let garbage = machine.bin.join("clang");
        fs::write(&garbage, [0x7f, b'E', b'L', b'F', 0, 1, 2]).unwrap();
        fs::set_permissions(&garbage, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(machine.bin.join("java"), "#!/bin/sh\n").unwrap();
        let profile = machine.discover();
        assert_eq!(names(&profile), ["bash", "zsh"]);
        assert_eq!(versions(&profile), ["bash 5.2.15", "zsh 5.9"]);
    }

    #[test]
    fn programs_get_the_named_variables_only() {
        let machine = Machine::new();
        machine.has("zsh", "/usr/bin/env >\"$HOME/seen\"; pwd >>\"$HOME/seen\"; echo zsh 5.9");
        assert_eq!(names(&machine.discover()), ["zsh"]);
        let seen = fs::read_to_string(machine.dir.path().join("seen")).unwrap();
        let added_by_sh = ["PWD", "OLDPWD", "SHLVL", "_"];
        let variables = seen.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        let mut variables: Vec<_> = variables.filter(|name| !added_by_sh.contains(name)).collect();
        variables.sort_unstable();
        assert_eq!(variables, ["HOME", "LANG", "PATH"]);
        let work_dir = machine.dir.path().canonicalize().unwrap();
        assert_eq!(seen.lines().last(), work_dir.to_str());
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_looked_for_in_the_next_folder() {
        let machine = Machine::new();
        machine.has("zsh", "echo zsh 5.9");
        let first = machine.dir.path().join("first");
        fs::create_dir(&first).unwrap();
        fs::rename(machine.bin.join("zsh"), first.join("zsh")).unwrap();
        fs::write(first.join("zsh"), "#!/no/such/shell\n").unwrap();
        machine.has("zsh", "echo zsh 5.8");
        let path = std::env::join_paths([&first, &machine.bin]).unwrap();
        assert_eq!(versions(&machine.discover_in(&path)), ["zsh 5.8"]);
    }

    #[test]
    fn a_program_in_a_relative_folder_is_not_run() {
        let machine = Machine::new();
        machine.has("zsh", "echo zsh 5.9");
        assert_eq!(names(&machine.discover_in(OsStr::new("bin:."))), [""; 0]);
        assert_eq!(names(&machine.discover_in(machine.bin.as_os_str())), ["zsh"]);
    }

    #[test]
    fn modules_are_found_with_the_real_python_and_not_imported() {
        let machine = Machine::new();
        let modules = machine.dir.path().join("modules");
        let python = find_in_path(OsStr::new(PYTHON), OsStr::new("/usr/local/bin:/usr/bin:/bin"));
        let python = python.expect("python3 is needed for this test");
        // -I forgets PYTHONPATH, so that the folder is put in front by hand.
        let body = format!(
            "[ \"$1\" = --version ] && exec {python} --version\n[ \"$1,$2\" = -I,-c ] || exit 9\ncode=$3; shift 3\n\
             exec {python} -I -c \"import sys; sys.path.insert(0, '{modules}')\n$code\" \"$@\"",
            python = python.display(),
            modules = modules.display(),
        );
        machine.has(PYTHON, &body);
        fs::create_dir_all(modules.join("torch")).unwrap();
        fs::create_dir_all(modules.join("keras")).unwrap();
        fs::write(modules.join("torch/__init__.py"), "raise SystemExit('imported')").unwrap();
        let profile = machine.discover();
        assert!(names(&profile).contains(&"python:torch"), "{profile:?}");
        assert!(!names(&profile).contains(&"python:keras"), "a folder without a module: {profile:?}");
        assert!(versions(&profile)[0].starts_with("python3 3."), "{profile:?}");
    }

    #[test]
    fn a_python_that_lies_about_modules_is_not_believed_beyond_the_table() {
        let machine = Machine::new();
        machine.has(PYTHON, "echo numpy; echo 'os; rm'; echo Python 3.11.2; exit 0");
        let profile = machine.discover();
        assert_eq!(names(&profile), ["python3", "python:numpy"]);
        assert_eq!(versions(&profile), ["python3 3.11.2"]);
    }
}

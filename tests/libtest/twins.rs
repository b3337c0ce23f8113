//! The same tests twice: as functions of a crate, and as suites.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::line::Line;
use crate::seen::Seen;
use crate::world::{Ended, Project, command, harness};

/// Written as `tests/suites.rs`: libtest tells unit tests from others by the folder. Both know `m::x`, ours as `m/x`.
const CRATE: &str = r#"#![allow(non_snake_case)]
#[test] #[cfg_attr(ignored, ignore = "it is no benchmark")] fn B_pass() {}
#[test] #[cfg_attr(ignored, ignore = "it is no benchmark")] fn a_says() { println!("words of a pass"); }
#[test] #[cfg_attr(ignored, ignore = "it is no benchmark")] fn b_fails() { println!("words"); panic!("boom"); }
#[test] #[cfg_attr(ignored, ignore = "it is no benchmark")] fn c_errs() -> Result<(), String> { Err("no".into()) }
#[test] #[cfg_attr(ignored, ignore = "it is no benchmark")] fn d_pass() {}
mod m { #[test] #[cfg_attr(ignored, ignore = "it is no benchmark")] fn x() {} }
"#;

/// Both sides of every test, by name.
pub(crate) const SUITES: [(&str, &str); 5] = [
    ("B_pass", "true"),
    ("a_says", "echo words of a pass"),
    ("b_fails", "echo words; exit 1"),
    ("c_errs", "exit 3"),
    ("d_pass", "true"),
];

/// Every name, in the order of its bytes.
pub(crate) const NAMES: [&str; 6] = ["B_pass", "a_says", "b_fails", "c_errs", "d_pass", "m/x"];

/// A project whose suites are the tests of the crate, and where any command line can be tried on both.
pub(crate) struct Twins {
    pub(crate) project: Project,
}

impl Twins {
    pub(crate) fn new() -> Self {
        let project = Project::new().by("/usr/bin/env");
        for (name, block) in SUITES {
            project.suite(name, &[("execute", block)]);
        }
        project.file("suites/m/x.sh", "exit 0\n");
        Self { project }
    }

    /// Runs the harness.
    pub(crate) fn ours(&self, line: &Line) -> Ended {
        self.run(line, &harness())
    }

    /// Runs the crate, one test at a time, as an owner of nightly features.
    pub(crate) fn libtests(&self, line: &Line) -> Ended {
        self.libtests_of(&reference().plain, line)
    }

    /// The same with either crate.
    pub(crate) fn libtests_of(&self, program: &Path, line: &Line) -> Ended {
        let mut line = line.clone();
        for (name, value) in [("RUST_TEST_THREADS", "1"), ("RUSTC_BOOTSTRAP", "1")] {
            if line.variable(name).is_none() {
                line.variables.push((name.to_owned(), value.to_owned()));
            }
        }
        // What is a folder here is a module there.
        for argument in &mut line.arguments {
            *argument = argument.replace("m/", "m::");
        }
        self.run(&line, program)
    }

    /// What there is to see of each: libtest's, ours.
    pub(crate) fn both(&self, real: &Line, line: &Line) -> (Seen, Seen) {
        let libtests = self.seen(real, |line| self.libtests(line));
        (libtests.with_folders(), self.seen(line, |line| self.ours(line)))
    }

    fn seen(&self, line: &Line, run: impl Fn(&Line) -> Ended) -> Seen {
        let log = self.project.path("log");
        std::fs::remove_file(&log).ok();
        let ended = run(line);
        Seen::of(line, &ended, std::fs::read_to_string(&log).ok())
    }

    fn run(&self, line: &Line, program: &Path) -> Ended {
        let variables = line.variables.iter().map(|(name, value)| format!("{name}={value}"));
        // A terminal whose colours libtest can look up; only `--color always` uses them.
        let mut words: Vec<_> = [String::from("TERM=xterm")].into_iter().chain(variables).collect();
        words.push(program.to_str().unwrap().to_owned());
        words.extend(line.arguments.iter().cloned());
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.project.run(&words)
    }
}

/// Real libtest binaries.
pub(crate) struct Reference {
    pub(crate) plain: PathBuf,
    /// Each of its tests is `#[ignore]`d, with a reason.
    pub(crate) ignored: PathBuf,
    _folder: TempDir,
}

/// Compiles them, once.
pub(crate) fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let folder = TempDir::with_prefix("libtest.").unwrap();
        std::fs::create_dir(folder.path().join("tests")).unwrap();
        std::fs::write(folder.path().join("tests/suites.rs"), CRATE).unwrap();
        compile(folder.path(), &["-o", "plain"]);
        compile(folder.path(), &["-o", "ignored", "--cfg", "ignored"]);
        Reference { plain: folder.path().join("plain"), ignored: folder.path().join("ignored"), _folder: folder }
    })
}

/// The compiler that cargo uses.
fn compile(folder: &Path, arguments: &[&str]) {
    let compiler = std::env::vars_os().find(|(name, _)| name == "RUSTC").map_or("rustc".into(), |(_, value)| value);
    let mut compile = command(compiler);
    compile.args(["--test", "--edition", "2024", "-C", "opt-level=0", "tests/suites.rs"]).args(arguments);
    // An IDE's variable must not change what is compiled.
    let output = compile.current_dir(folder).env_remove("RUSTC_BOOTSTRAP").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

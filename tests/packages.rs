//! The `deps` stage with the real package managers, each on a root of its own with a repository that the claim itself makes.
//! The stage has no option for another root: a program of the same name on PATH leads there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a claim fails by a panic")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::Value;
use world::{Project, claim};

#[path = "packages/apt.rs"]
mod apt;
#[path = "packages/pacman.rs"]
mod pacman;
#[path = "harness/world.rs"]
mod world;

fn main() -> std::process::ExitCode {
    world::main(|| {
        let any = [
            claim(nothing_required_passes_without_a_package_manager_and_says_so),
            claim(without_a_package_manager_the_stage_fails_with_the_remedy),
            claim(a_package_manager_that_cannot_be_reached_is_not_one_that_misses_packages),
            claim(outside_a_container_the_harness_installs_nothing),
        ];
        any.into_iter().chain(pacman::claims()).chain(apt::claims()).collect::<Vec<Trial>>()
    })
}

/// How the stage has failed.
#[derive(Debug)]
struct StageEnd {
    /// The exit code of the command that failed; `None` if we failed.
    rc: Option<i64>,
    /// What is told of it.
    text: String,
    /// What the command said.
    output: String,
}

/// A project whose package manager is what its folder `programs` holds.
struct Machine {
    project: Project,
}

impl Machine {
    /// One without a package manager.
    fn new() -> Self {
        let project = Project::new().by(env!("CARGO_BIN_EXE_container-runner"));
        project.suite("10-a", &[("execute", "true")]);
        fs::create_dir(project.path("programs")).unwrap();
        symlink(found("bash"), project.path("programs/bash")).unwrap();
        let programs = project.path("programs");
        Self { project: project.variable("PATH", programs) }
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.project.path(path)
    }

    /// A path as text, for configuration files.
    fn text_of(&self, path: &str) -> String {
        self.path(path).to_str().unwrap().to_owned()
    }

    /// Puts a program on the stage's PATH: the real one, in its own world.
    fn wrap(&self, name: &str, words: &str) {
        let path = world::search_path().into_string().unwrap();
        let real = found(name).display().to_string();
        let text = format!("#!/bin/sh\nPATH='{path}' exec {} \"$@\"\n", words.replace("{real}", &real));
        self.project.program(&format!("programs/{name}"), &text);
    }

    /// Runs a program of the stage's PATH, for what comes before the stage.
    fn call(&self, program: &str, args: &[&str]) {
        call(&self.path("programs").join(program), args);
    }

    /// Runs the stage, in a run of its own.
    fn deps(&self, packages: &[&str]) -> Result<(), StageEnd> {
        fs::remove_dir_all(self.path("proof")).ok();
        let settings = serde_json::json!({ "isolation": "none", "deps": { "packages": packages } });
        self.project.file("suites/runner.yaml", settings.to_string());
        let ended = self.project.run(&["deps"]);
        if ended.status.success() {
            return Ok(());
        }
        if !self.path("proof").exists() {
            // What is wrong in runner.yaml is told before anything is done.
            assert_eq!(ended.status.code(), Some(2), "{ended}");
            return Err(StageEnd { rc: None, text: ended.stderr, output: String::new() });
        }
        let stage = self.stage();
        let rc = stage["rc"].as_i64();
        assert_eq!(ended.status.code().map(i64::from), Some(rc.unwrap_or(3)), "{ended}");
        Err(StageEnd { rc, text: stage["message"].as_str().unwrap().to_owned(), output: ended.stderr })
    }

    /// Runs the stage, which has to fail with `rc`, and whose command has to say each of `said`.
    #[track_caller]
    fn deps_fail(&self, packages: &[&str], rc: i64, said: &[&str]) -> StageEnd {
        let end = self.deps(packages).unwrap_err();
        assert_eq!(end.rc, Some(rc), "{end:?}");
        for part in said {
            assert!(end.output.contains(part), "`{part}` is not in {end:?}");
        }
        let stage = self.stage();
        assert_eq!((&stage["status"], &stage["rc"]), (&"fail".into(), &rc.into()), "{stage:#}");
        assert_eq!(stage["message"], *end.text);
        end
    }

    /// What summary.json says of the stage.
    fn stage(&self) -> Value {
        let stages = self.project.summary()["stages"].clone();
        stages.as_array().unwrap().iter().find(|stage| stage["name"] == "deps").unwrap().clone()
    }

    /// The stage's events.
    fn events(&self) -> Vec<Value> {
        let lines = fs::read_to_string(self.path("proof/logs/runner.jsonl")).unwrap_or_default();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The commands that the stage has run, each with its exit code.
    fn commands(&self) -> Vec<(String, i64)> {
        let events = self.events();
        let executed = events.iter().filter(|event| event["event"] == "cmd_exec");
        executed.map(|event| (event["cmd"].as_str().unwrap().to_owned(), event["rc"].as_i64().unwrap())).collect()
    }

    #[track_caller]
    fn assert_commands(&self, expected: &[(&str, i64)]) {
        let commands = self.commands();
        let commands: Vec<_> = commands.iter().map(|(command, rc)| (command.as_str(), *rc)).collect();
        assert_eq!(commands, expected);
    }

    #[track_caller]
    fn assert_message(&self, expected: &str) {
        assert_eq!((&self.stage()["status"], &self.stage()["message"]), (&"pass".into(), &expected.into()));
    }
}

fn found(program: &str) -> PathBuf {
    world::find(program).unwrap_or_else(|| panic!("there is no `{program}`"))
}

#[track_caller]
fn call(program: &Path, args: &[&str]) {
    let done = world::command(program).args(args).output().unwrap();
    assert!(done.status.success(), "{}: {done:?}", program.display());
}

fn nothing_required_passes_without_a_package_manager_and_says_so() {
    let machine = Machine::new();
    machine.deps(&[]).unwrap();
    machine.assert_message("no packages are required");
    let events = machine.events();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["stage_start", "stage_end"]);
    assert!(events.iter().all(|event| event["stage"] == "deps"), "{events:?}");
}

fn without_a_package_manager_the_stage_fails_with_the_remedy() {
    let machine = Machine::new();
    let end = machine.deps(&["small"]).unwrap_err();
    assert_eq!(end.rc, None);
    for part in ["`pacman`", "`dpkg-query`", "`apt-get`", "install the packages yourself"] {
        assert!(end.text.contains(part), "{end:?}");
    }
    let stage = machine.stage();
    assert_eq!((&stage["status"], &stage["rc"]), (&"fail".into(), &Value::Null), "{stage:#}");
}

fn a_package_manager_that_cannot_be_reached_is_not_one_that_misses_packages() {
    let machine = Machine::new();
    // 127, as `pacman -T` with something missing.
    machine.project.program("programs/pacman", "#!/bin/sh\nexec no-such-program \"$@\"\n");
    let end = machine.deps_fail(&["small"], 127, &["no-such-program"]);
    assert_eq!(end.text, "`pacman -T -- small` ended with code 127");
    machine.assert_commands(&[("pacman -T -- small", 127)]);
}

/// As `cargo test` does it on somebody's laptop.
fn outside_a_container_the_harness_installs_nothing() {
    let project = Project::with("deps: {packages: [no-such-package-anywhere]}\n");
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    let ended = project.run(&[]);
    ended.code(3).stderr_says("no-such-package-anywhere").stderr_says("nothing was installed");
    assert!(project.order().is_empty());
    let lines = project.text("proof/logs/runner.jsonl");
    assert!(!lines.contains("install -y") && !lines.contains("-S --needed"), "{lines}");
}

//! What this machine can do, what follows, and the remedy. Nothing is changed, no run is begun.

use std::path::PathBuf;

use crate::flow::plan::{Plan, Wanted, read_project};
use crate::flow::scratch::Scratch;
use crate::flow::session::{refuse_what_cannot_be_had, sandbox_in};
use crate::model::suite::{Build, Host, Project};
use crate::model::verdict::Fault;
use crate::os::engine::{
    EngineError, UnsandboxedScriptRunner, can_bound_memory_together, can_confine_signals, can_make_cgroups,
};
use crate::os::host::{self, Settings};
use crate::os::machine;
use crate::os::packages::PackageManager;
use crate::os::probe::Probe;
use crate::os::workdir::is_noexec;
use crate::rules::report::counted;

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    /// What it is, or what follows from its lack and what helps.
    pub(crate) text: String,
}

/// Whether a thing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It is.
    There,
    /// It is not, and the configured run does without it.
    Lacking,
    /// It is not, and the configured run cannot start.
    Needed,
}

/// Looks at everything. `program` is this program, which tries what the kernel may refuse.
pub(crate) fn examine(settings: &Settings, host: &Host, program: &std::path::Path) -> Vec<Check> {
    let mut checks = vec![there("system", format!("{}; {}", machine::system(), container(host)))];
    let plan = Plan::read(settings, &Wanted::default());
    let project = plan.map_err(|error| chain(&error)).and_then(|plan| {
        let project = read_project(settings).map_err(|error| chain(&error))?;
        Ok((plan.trials.len(), project))
    });
    let sandbox = match &project {
        Ok((_, project)) => of_sandbox(settings, project),
        Err(_) => of_sandbox(settings, &Project::default()),
    };
    match project {
        Err(error) => {
            checks.push(needed("suites", error));
            checks.extend(of_machine(settings, None));
        }
        Ok((trials, project)) => {
            checks
                .push(there("suites", format!("{} in `{}`", counted(trials, "trial"), settings.suites_dir.display())));
            checks.push(match refuse_what_cannot_be_had(settings, host, &project) {
                Ok(()) => there("isolation", project.isolation.as_str().to_owned()),
                Err(error) => needed("isolation", chain(&error)),
            });
            checks.extend(of_machine(settings, Some(&project)));
        }
    }
    checks.push(sandbox);
    checks.extend(of_kernel(program));
    checks
}

fn there(name: &'static str, text: String) -> Check {
    Check { name, state: State::There, text }
}

fn needed(name: &'static str, text: String) -> Check {
    Check { name, state: State::Needed, text }
}

fn container(host: &Host) -> String {
    host.container_id.as_ref().map_or_else(|| "no container".to_owned(), |id| format!("container {id}"))
}

/// With every cause.
fn chain(error: &dyn std::error::Error) -> String {
    Fault::new(error).to_string()
}

/// What the configured run needs of programs and folders; without a project that can be read, what any needs.
fn of_machine(settings: &Settings, project: Option<&Project>) -> Vec<Check> {
    let builds = project.is_some_and(|project| project.product.build == Build::Cargo);
    let installs = project.is_some_and(|project| !project.packages.is_empty());
    let programs = [
        ("bash", true, "blocks of suites need it: install bash"),
        ("make", false, "set-ups with a make step fail: install make"),
        ("cargo", builds, "a product with `build: cargo` cannot be built: install Rust"),
        ("rustup", false, "RUSTUP_TOOLCHAIN chooses nothing, cargo is whatever it is: install rustup"),
        ("git", false, "build_meta.json says no revision: install git"),
    ];
    let found = programs.map(|(name, is_needed, lack)| program(settings, name, is_needed, lack));
    let manager = match PackageManager::find(&settings.search_path, host::family()) {
        Some(PackageManager::Pacman { pacman: path } | PackageManager::Apt { apt_get: path, .. }) => {
            there("packages", path.display().to_string())
        }
        None => lack("packages", installs, "neither pacman nor apt-get is on PATH: the stage deps can install nothing"),
    };
    let proof = match writable_above(&settings.proof_dir) {
        true => there("proof folder", settings.proof_dir.display().to_string()),
        false => needed(
            "proof folder",
            format!("`{}` cannot be written; set PROOF_DIR to a folder that can", settings.proof_dir.display()),
        ),
    };
    [proof, of_temp_dir(settings)].into_iter().chain(found).chain([manager]).collect()
}

/// Copies of set-ups are made there.
fn of_temp_dir(settings: &Settings) -> Check {
    let (name, dir) = ("temporary files", settings.temp_dir.display());
    if !host::can_write(&settings.temp_dir) {
        return needed(name, format!("`{dir}` cannot be written; set TMPDIR to a folder that can"));
    }
    if is_noexec(&settings.temp_dir) {
        let text = format!(
            "`{dir}` is mounted noexec: without the sandbox, programs that set-ups build there cannot be executed: set TMPDIR to another folder"
        );
        return lack(name, false, &text);
    }
    there(name, dir.to_string())
}

fn program(settings: &Settings, name: &'static str, is_needed: bool, text: &str) -> Check {
    match settings.find_program(name) {
        Some(path) => there(name, path.display().to_string()),
        None => lack(name, is_needed, text),
    }
}

fn lack(name: &'static str, is_needed: bool, text: &str) -> Check {
    let state = if is_needed { State::Needed } else { State::Lacking };
    Check { name, state, text: text.to_owned() }
}

/// The nearest folder that exists tells.
fn writable_above(dir: &std::path::Path) -> bool {
    let existing = dir.ancestors().find(|dir| dir.exists());
    existing.is_some_and(host::can_write)
}

/// Whether scripts can run in the sandbox: a script tries what they must not.
fn of_sandbox(settings: &Settings, project: &Project) -> Check {
    let tried = Scratch::make(&settings.temp_dir).map_err(|error| chain(&error)).and_then(|scratch| {
        let held = sandbox_in(&scratch, &project.sandbox_shows, project.sandbox_limits, false)
            .map(drop)
            .map_err(|error| chain(&error));
        held.and(scratch.remove().map_err(|fault| fault.to_string()))
    });
    match tried {
        Ok(()) => there("sandbox", "holds: what scripts must not do was tried and refused".to_owned()),
        Err(error) if project.sandbox => needed("sandbox", error),
        Err(error) => lack("sandbox", false, &error),
    }
}

/// What the engine does better where it can, and what isolation will need.
fn of_kernel(program: &std::path::Path) -> Vec<Check> {
    let cgroup = if can_make_cgroups() {
        there("cgroups", "each script's processes are in a private one".to_owned())
    } else {
        let text = "without the sandbox an unbounded fork bomb may outrun the runner: delegate a cgroup v2 subtree";
        lack("cgroups", false, text)
    };
    let memory = if can_bound_memory_together() {
        there("memory", "in the sandbox `sandbox-limits.memory` bounds all processes of a script together".to_owned())
    } else {
        let text = "in the sandbox `sandbox-limits.memory` bounds each process of a script, not all together: run this alone in a delegated \
                    cgroup (`systemd-run --pipe --property=Delegate=yes`)";
        lack("memory", false, text)
    };
    let signals = if can_confine_signals() {
        there("signals", "scripts of set-ups reach their own processes only (Landlock)".to_owned())
    } else {
        let text =
            "without the sandbox a script of a set-up can signal every process of this user: Linux 6.12 confines it";
        lack("signals", false, text)
    };
    let runner = UnsandboxedScriptRunner::new();
    let probes = Probe::ALL.map(|probe| of_isolation(probe, probe.run(&runner, PathBuf::from(program))));
    [cgroup, memory, signals].into_iter().chain(probes).collect()
}

/// What isolation will need is something else than the sandbox's walls: a view of the machine itself, for suites.
fn of_isolation(probe: Probe, tried: Result<Result<(), String>, EngineError>) -> Check {
    let name = match probe {
        Probe::Overlay => "isolation overlay",
    };
    match tried {
        Ok(Ok(())) => there(name, "it is not built yet; this machine could have it".to_owned()),
        Ok(Err(reason)) => lack(name, false, &format!("it is not built yet; refused: {reason}")),
        Err(error) => lack(name, false, &format!("it is not built yet, and could not be tried: {}", chain(&error))),
    }
}

//! The `deps` stage: what is required and missing is installed, with the distribution's package manager.

use super::{Command, Stage, StageFailure, ending, has_succeeded, staged, text};
use crate::flow::proof::DepsFailure;
use crate::flow::session::Session;
use crate::model::script::Completion;
use crate::model::suite::Isolation;
use crate::model::verdict::Fault;
use crate::os::host;
use crate::os::packages::{Call, PackageManager, PackageNames, environment};

/// What the stage has found and done.
enum Outcome {
    /// `deps.packages` is empty.
    NothingRequired,
    /// All of these were there.
    NothingMissing(PackageNames),
    /// These were missing, and are there now.
    Installed(PackageNames),
}

/// As `run`, for the first process of a run that has trials; the others find it done, or failed. On a machine that is no container nothing is
/// installed: `cargo test` is not to change somebody's laptop.
///
/// # Errors
/// As `run`; outside a container also if a package is missing.
pub(crate) fn once(session: &Session, say: &dyn Fn(&str)) -> Result<(), StageFailure> {
    if session.project.packages.is_empty() || session.has_packages() {
        return Ok(());
    }
    let policy = match session.project.isolation {
        Isolation::Container => Policy::Install,
        Isolation::Overlay | Isolation::None => Policy::Check,
    };
    if let Some(failure) = session.deps_failure() {
        return Err(failure.into());
    }
    match perform(session, policy, say) {
        Ok(()) => Ok(session.note_packages()?),
        // It has not failed: it was not allowed to end.
        Err(failure) if session.interrupt.signal().is_some() => Err(failure),
        Err(failure) => {
            // Why it failed is worth more than that the others cannot be told.
            session.set_deps_failure(DepsFailure::from(&failure)).ok();
            Err(failure)
        }
    }
}

impl From<&StageFailure> for DepsFailure {
    fn from(failure: &StageFailure) -> Self {
        match failure {
            StageFailure::Command(failure) => Self::Command(failure.clone()),
            StageFailure::Fault(fault) => Self::Fault(fault.to_string()),
        }
    }
}

impl From<DepsFailure> for StageFailure {
    fn from(failure: DepsFailure) -> Self {
        match failure {
            DepsFailure::Command(failure) => Self::Command(failure),
            DepsFailure::Fault(text) => Self::Fault(Fault::from_text(text)),
        }
    }
}

/// What is done about a missing package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Install,
    Check,
}

/// Installs those of `deps.packages` that are missing, from what the package manager's databases know. Nothing is refreshed.
///
/// # Errors
/// If there is no package manager, if it fails, and if a package is missing afterwards. The summary has the stage either way.
pub(crate) fn run(session: &Session, say: &dyn Fn(&str)) -> Result<(), StageFailure> {
    perform(session, Policy::Install, say)
}

fn perform(session: &Session, policy: Policy, say: &dyn Fn(&str)) -> Result<(), StageFailure> {
    staged(session, Stage::Deps, || {
        let outcome = provide(session, policy, say)?;
        say(&outcome.to_string());
        Ok(((), Some(outcome.to_string())))
    })
}

fn provide(session: &Session, policy: Policy, say: &dyn Fn(&str)) -> Result<Outcome, StageFailure> {
    let packages = &session.project.packages;
    if packages.is_empty() {
        return Ok(Outcome::NothingRequired);
    }
    let manager = PackageManager::find(&session.settings.search_path, host::family()).ok_or_else(|| {
        Fault::from_text(
            "no package manager on PATH for `deps.packages` of runner.yaml: neither `pacman` nor `dpkg-query` with `apt-get`; \
             install the packages yourself and remove the key, or run on a distribution that has one",
        )
    })?;
    let required = manager.names(packages).map_err(|error| Fault::new(&error))?;
    let mut calls = Calls { session, manager: &manager, so_far: 0 };
    let missing = calls.missing(&required)?;
    if missing.is_empty() {
        return Ok(Outcome::NothingMissing(required));
    }
    if policy == Policy::Check {
        let text = format!(
            "`deps.packages` of runner.yaml names what is not installed here: {missing}. Install it, or run the suites in a \
             container, where the stage deps does; this machine is none, so nothing was installed"
        );
        return Err(Fault::from_text(text).into());
    }
    say(&format!("installing {missing}"));
    calls.install(&missing)?;
    Ok(Outcome::Installed(missing))
}

/// The calls of one stage, which are told apart in its logs.
struct Calls<'a> {
    session: &'a Session,
    manager: &'a PackageManager,
    so_far: usize,
}

impl Calls<'_> {
    /// Returns those of `names` that are missing.
    ///
    /// # Errors
    /// If the package manager does not tell.
    fn missing(&mut self, names: &PackageNames) -> Result<PackageNames, StageFailure> {
        let mut missing = names.clone();
        for query in self.manager.queries() {
            if missing.is_empty() {
                break;
            }
            let command = self.command(&self.manager.ask(*query, &missing), "query");
            let done = command.complete(self.session, Stage::Deps)?;
            missing = query.missing(&missing, &done).ok_or_else(|| failure(&command, &done, ending(&done)))?;
        }
        Ok(missing)
    }

    /// Installs `missing`, and looks whether they are there.
    ///
    /// # Errors
    /// If the package manager says that it failed, with whatever code, or if one of them is still missing.
    fn install(&mut self, missing: &PackageNames) -> Result<(), StageFailure> {
        let command = self.command(&self.manager.install(missing), "install");
        let done = command.complete(self.session, Stage::Deps)?;
        if !has_succeeded(&done) {
            return Err(failure(&command, &done, ending(&done)));
        }
        if let Some(complaint) = self.manager.complaint(&done) {
            return Err(failure(&command, &done, format!("ended with code 0, but {complaint}")));
        }
        let left = self.missing(missing)?;
        if !left.is_empty() {
            let text =
                format!("ended with code 0, but there is no package {left} now; a group must be named by its packages");
            return Err(failure(&command, &done, text));
        }
        Ok(())
    }

    fn command(&mut self, call: &Call, purpose: &str) -> Command {
        self.so_far += 1;
        Command {
            log: format!("{}.{}-{purpose}", Stage::Deps.as_str(), self.so_far),
            program: call.program.clone(),
            args: call.os_args(),
            environment: environment(&self.session.settings.block_environment),
        }
    }
}

/// pacman says on standard output what scriptlets said, so both streams are carried.
fn failure(command: &Command, done: &Completion, ending: String) -> StageFailure {
    command.failure(done, ending, text(&done.stdout) + &text(&done.stderr))
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NothingRequired => f.write_str("no packages are required"),
            Self::NothingMissing(required) => write!(f, "nothing is missing of {required}"),
            Self::Installed(missing) => write!(f, "installed {missing}"),
        }
    }
}

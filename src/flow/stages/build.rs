//! The build of the product, once for all processes of a run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Command, Stage, StageFailure, staged, text, toolchain};
use crate::flow::proof::BuildOutcome;
use crate::flow::session::Session;
use crate::model::script::Exit;
use crate::model::suite::Build;
use crate::model::verdict::Fault;
use crate::os::disk::{sha256_of, write_atomically};
use crate::os::host::Settings;
use crate::rules::summary::millis;

/// `results/build_meta.json`.
#[derive(Debug, Serialize)]
struct BuildMeta {
    profile: String,
    toolchain: String,
    duration_ms: u64,
    binary: PathBuf,
    /// Of the binary's content, in hexadecimal digits.
    sha256: String,
    /// Of the folder that holds the package; null outside a git repository, or without git.
    revision: Option<String>,
    /// Whether the repository had changes that were not committed.
    dirty: Option<bool>,
}

/// As `run`, unless a process of the same run has done it.
///
/// # Errors
/// As `run`, or as the build of that process.
pub(crate) fn once(session: &Session, say: &dyn Fn(&str)) -> Result<(), StageFailure> {
    match (session.build_outcome(), session.project.product.build) {
        (Some(outcome), _) => reuse(session, outcome),
        (None, Build::None) => find(session),
        (None, Build::Cargo) => run(session, say),
    }
}

/// Builds the product, if cargo is to do that. Its folder goes on the suites' PATH.
///
/// # Errors
/// If cargo fails, or the binary is not there afterwards. The summary has the stage either way.
pub(crate) fn run(session: &Session, say: &dyn Fn(&str)) -> Result<(), StageFailure> {
    let product = &session.project.product;
    if product.build == Build::None {
        return staged(session, Stage::Build, || {
            find(session).map(|()| ((), Some("nothing is to be built".to_owned())))
        });
    }
    let name = product.name.as_deref().unwrap_or("the product");
    say(&format!("building {name} ({})", session.settings.cargo_profile));
    let meta = staged(session, Stage::Build, || {
        let result = cargo_build(session);
        note_outcome(session, &result)?;
        result.map(|meta| (meta, None))
    })?;
    session.set_product(meta.binary);
    Ok(())
}

/// Makes the product known that is there, be it of this run or of an earlier one.
///
/// # Errors
/// If it is not there, or this run could not build it.
pub(crate) fn find(session: &Session) -> Result<(), StageFailure> {
    let (settings, product) = (&session.settings, &session.project.product);
    if let Some(outcome) = session.build_outcome() {
        return reuse(session, outcome);
    }
    let (binary, remedy) = match (&product.bin, &product.name, product.build) {
        (Some(bin), _, _) => (settings.project_dir.join(bin), BUILD_IT.to_owned()),
        (None, Some(name), Build::Cargo) => {
            (target_dir(session).join(profile_dir(&settings.cargo_profile)).join(name), BUILD_IT.to_owned())
        }
        (None, name, Build::None) => match settings.given_product(name.as_deref()) {
            Some((who, binary)) => (binary, format!("{who} names it: build the package again, or correct that")),
            // It is looked for on PATH.
            None => return Ok(()),
        },
        (None, None, Build::Cargo) => return Ok(()),
    };
    session.set_product(existing(binary, &remedy)?);
    Ok(())
}

/// What to do where a product does not exist that is built or configured.
const BUILD_IT: &str = "build it (stage `build`), or correct `product.bin` in runner.yaml";

/// A folder of its own: an outer cargo may hold the lock of another.
fn target_dir(session: &Session) -> PathBuf {
    manifest(session).with_file_name("target")
}

pub(super) fn cargo(settings: &Settings) -> Result<PathBuf, Fault> {
    settings.find_program("cargo").ok_or_else(|| {
        Fault::from_text("no `cargo` on PATH, and runner.yaml says `build: cargo`: install Rust, or say `build: none`")
    })
}

pub(super) fn manifest(session: &Session) -> PathBuf {
    session.settings.project_dir.join(&session.project.product.manifest_path)
}

/// Cargo's own profiles share two folders (the Cargo book, "Build cache").
fn profile_dir(profile: &str) -> &str {
    match profile {
        "dev" | "test" => "debug",
        "bench" => "release",
        other => other,
    }
}

/// Another process of the same run has built, or tried to.
fn reuse(session: &Session, outcome: BuildOutcome) -> Result<(), StageFailure> {
    match outcome {
        BuildOutcome::Built(binary) => {
            session.set_product(existing(binary, BUILD_IT)?);
            Ok(())
        }
        BuildOutcome::Failed(failure) => Err(StageFailure::Command(failure)),
    }
}

fn existing(binary: PathBuf, remedy: &str) -> Result<PathBuf, StageFailure> {
    if binary.is_file() {
        return Ok(binary);
    }
    let text = format!("the product `{}` does not exist; {remedy}", binary.display());
    Err(StageFailure::Fault(Fault::from_text(text)))
}

fn meta_path(session: &Session) -> PathBuf {
    session.proof.dir().join("results/build_meta.json")
}

fn cargo_build(session: &Session) -> Result<BuildMeta, StageFailure> {
    let settings = &session.settings;
    let product = &session.project.product;
    let cargo = cargo(settings)?;
    let (manifest, target) = (manifest(session), target_dir(session));
    let manifest_dir = manifest.parent().unwrap_or(&settings.project_dir);
    let mut args = vec!["build".into(), "--profile".into(), settings.cargo_profile.clone().into()];
    args.extend(["--message-format".into(), "json-render-diagnostics".into()]);
    args.extend([
        "--manifest-path".into(),
        manifest.clone().into_os_string(),
        "--target-dir".into(),
        target.into_os_string(),
    ]);
    let command = Command { log: "build".to_owned(), program: cargo, args, environment: toolchain(settings) };
    let done = command.succeed(session, Stage::Build)?;
    let wanted = product.bin.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let binary = executable(&text(&done.stdout), wanted.or_else(|| product.name.clone()).as_deref());
    let configured = product.bin.as_ref().map(|bin| settings.project_dir.join(bin));
    let binary = binary.or(configured).ok_or_else(|| {
        Fault::from_text(format!("`{}` built no binary; set `product.bin` in runner.yaml", command.line()))
    })?;
    let binary = existing(binary, BUILD_IT)?;
    let revision = git(session, manifest_dir, &["rev-parse", "HEAD"])?;
    let changes = git(session, manifest_dir, &["status", "--porcelain"])?;
    let meta = BuildMeta {
        profile: settings.cargo_profile.clone(),
        toolchain: settings.toolchain.clone(),
        duration_ms: millis(done.wall),
        sha256: sha256_of(&binary).map_err(|error| Fault::new(&error))?,
        binary,
        dirty: revision.as_ref().and(changes).map(|changes| !changes.is_empty()),
        revision,
    };
    let text = serde_json::to_vec_pretty(&meta).map_err(|error| Fault::new(&error))?;
    write_atomically(&meta_path(session), &text).map_err(|error| Fault::new(&error))?;
    Ok(meta)
}

/// Returns what git says of the folder `dir`; `None` where there is no git, or no repository.
fn git(session: &Session, dir: &Path, order: &[&str]) -> Result<Option<String>, Fault> {
    let Some(program) = session.settings.find_program("git") else { return Ok(None) };
    // In a container the repository belongs to somebody else, which git refuses unless it is told.
    let mut args: Vec<_> = ["-c", "safe.directory=*", "-C"].map(OsString::from).into();
    args.push(dir.as_os_str().to_owned());
    args.extend(order.iter().map(OsString::from));
    let log = format!("build-git-{}", order.first().copied().unwrap_or_default());
    let command = Command { log, program, args, environment: session.settings.tool_environment.clone() };
    let done = command.complete(session, Stage::Build)?;
    Ok((done.exit == Exit::Code(0)).then(|| text(&done.stdout).trim_end().to_owned()))
}

/// Returns the path of the binary called `wanted`, or of the only one, from cargo's JSON lines.
fn executable(stdout: &str, wanted: Option<&str>) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Artifact {
        executable: Option<PathBuf>,
    }
    let artifacts = stdout.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let mut binaries: Vec<_> = artifacts.filter_map(|artifact| artifact.executable).collect();
    let is_wanted =
        |path: &PathBuf| path.file_stem().is_some_and(|stem| Some(stem.to_string_lossy().as_ref()) == wanted);
    binaries
        .iter()
        .position(is_wanted)
        .map(|at| binaries.swap_remove(at))
        .or_else(|| binaries.pop().filter(|_| wanted.is_none()))
}

/// Other processes of the run shall not build again.
fn note_outcome(session: &Session, result: &Result<BuildMeta, StageFailure>) -> Result<(), Fault> {
    match result {
        Ok(meta) => session.set_build_outcome(BuildOutcome::Built(meta.binary.clone())),
        // It has not failed: it was not allowed to end.
        Err(StageFailure::Command(_)) if session.interrupt.signal().is_some() => Ok(()),
        Err(StageFailure::Command(failure)) => session.set_build_outcome(BuildOutcome::Failed(failure.clone())),
        // The next process may have more luck with what was wrong with us.
        Err(StageFailure::Fault(_)) => Ok(()),
    }
}

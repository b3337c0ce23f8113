//! What runs once before the trials: the build of the product.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flow::proof::BuildOutcome;
use crate::flow::session::Session;
use crate::model::script::{Completion, EndedBy, Environment, Exit, Limits, LogFiles, Script, SignalReach, Stream};
use crate::model::suite::Build;
use crate::model::verdict::Fault;
use crate::os::disk::write_atomically;
use crate::os::journal::{Event, Level};
use crate::rules::summary::{StageRecord, Status, millis, rc};

/// A build that takes longer is hung.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);
/// cargo's JSON lines, of which the last ones name the binary.
const BUILD_KEPT_BYTES_MAX: usize = 512 << 10;

/// Why a stage did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageFailure {
    /// A command of it ended otherwise than with 0.
    #[error("`{command}` {ending}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit code; 128 + n for signal n.
        rc: i32,
        /// How it ended, in words.
        ending: String,
        /// What it said last.
        output: String,
    },
    /// We failed.
    #[error("{0}")]
    Fault(Fault),
}

impl From<Fault> for StageFailure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// `results/build_meta.json`.
#[derive(Debug, Serialize)]
struct BuildMeta {
    profile: String,
    toolchain: String,
    duration_ms: u64,
    binary: PathBuf,
}

/// Builds the product, unless there is none or a process of the same run has done it. Its folder goes on the suites' PATH.
///
/// # Errors
/// If cargo fails, or the binary is not there afterwards. The summary has the stage either way.
pub(crate) fn build(session: &Session, say: &dyn Fn(&str)) -> Result<(), StageFailure> {
    let product = &session.project.product;
    match product.build {
        Build::None => match &product.bin {
            Some(bin) => {
                session.set_product(existing(session.settings.project_dir.join(bin))?);
                Ok(())
            }
            None => Ok(()),
        },
        Build::Cargo => {
            if let Some(outcome) = session.build_outcome() {
                return reuse(session, outcome);
            }
            session.log(&Event::new("build", "stage_start"))?;
            let name = product.name.as_deref().unwrap_or("the product");
            say(&format!("building {name} ({})", session.settings.cargo_profile));
            let result = cargo_build(session);
            record(session, &result)?;
            result.map(|meta| session.set_product(meta.binary))
        }
    }
}

/// Another process of the same run has built, or tried to.
fn reuse(session: &Session, outcome: BuildOutcome) -> Result<(), StageFailure> {
    match outcome {
        BuildOutcome::Built(binary) => {
            session.set_product(existing(binary)?);
            Ok(())
        }
        BuildOutcome::Failed { command, rc, ending, output } => {
            Err(StageFailure::Command { command, rc, ending, output })
        }
    }
}

fn existing(binary: PathBuf) -> Result<PathBuf, StageFailure> {
    if binary.is_file() {
        return Ok(binary);
    }
    let text =
        format!("the product `{}` does not exist; build it, or correct `product.bin` in runner.yaml", binary.display());
    Err(StageFailure::Fault(Fault::from_text(text)))
}

fn meta_path(session: &Session) -> PathBuf {
    session.proof.dir().join("results/build_meta.json")
}

fn cargo_build(session: &Session) -> Result<BuildMeta, StageFailure> {
    let settings = &session.settings;
    let product = &session.project.product;
    let cargo = settings.find_program("cargo").ok_or_else(|| {
        Fault::from_text("no `cargo` on PATH, and runner.yaml says `build: cargo`: install Rust, or say `build: none`")
    })?;
    let manifest = settings.project_dir.join(&product.manifest_path);
    // A folder of its own: an outer cargo may hold the lock of another.
    let target = manifest.parent().unwrap_or(&settings.project_dir).join("target");
    let mut args = vec!["build".into(), "--profile".into(), settings.cargo_profile.clone().into()];
    args.extend(["--message-format".into(), "json-render-diagnostics".into()]);
    args.extend(["--manifest-path".into(), manifest.into_os_string(), "--target-dir".into(), target.into_os_string()]);
    let command = format!(
        "cargo {}",
        args.iter().map(|arg: &std::ffi::OsString| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    );
    let done = run(session, cargo, args)?;
    let event = Event {
        cmd: Some(&command),
        rc: Some(rc(done.exit)),
        duration_ms: Some(millis(done.wall)),
        ..Event::new("build", "cmd_exec")
    };
    session.log(&event)?;
    if (done.ended_by, done.exit) != (EndedBy::Itself, Exit::Code(0)) {
        let ending = match done.ended_by {
            EndedBy::Itself => format!("ended with {}", done.exit),
            EndedBy::Timeout => format!("was killed after {BUILD_LIMIT:?}"),
            EndedBy::Cancel => "was interrupted".to_owned(),
            EndedBy::SupervisorKilled => "killed the process that watched over it".to_owned(),
        };
        return Err(StageFailure::Command { command, rc: rc(done.exit).max(1), ending, output: text(&done.stderr) });
    }
    let wanted = product.bin.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let binary = executable(&text(&done.stdout), wanted.or_else(|| product.name.clone()).as_deref());
    let configured = product.bin.as_ref().map(|bin| settings.project_dir.join(bin));
    let binary = binary
        .or(configured)
        .ok_or_else(|| Fault::from_text(format!("`{command}` built no binary; set `product.bin` in runner.yaml")))?;
    let meta = BuildMeta {
        profile: settings.cargo_profile.clone(),
        toolchain: settings.toolchain.clone(),
        duration_ms: millis(done.wall),
        binary: existing(binary)?,
    };
    let text = serde_json::to_vec_pretty(&meta).map_err(|error| Fault::new(&error))?;
    write_atomically(&meta_path(session), &text).map_err(|error| Fault::new(&error))?;
    Ok(meta)
}

fn run(session: &Session, cargo: PathBuf, args: Vec<std::ffi::OsString>) -> Result<Completion, Fault> {
    let settings = &session.settings;
    let mut environment: Environment = settings.tool_environment.clone();
    environment.set("RUSTUP_TOOLCHAIN", &settings.toolchain);
    let logs = session.proof.dir().join("stages");
    let script = Script {
        program: cargo,
        args,
        cwd: settings.project_dir.clone(),
        environment,
        limits: Limits { kept_bytes_max: BUILD_KEPT_BYTES_MAX, ..session.limits(BUILD_LIMIT) },
        logs: Some(LogFiles { stdout: logs.join("build.stdout.log"), stderr: logs.join("build.stderr.log") }),
        signals: SignalReach::Machine,
        echo: session.echo,
        marker: None,
    };
    session.run(&script, session.interrupt.work())
}

fn text(stream: &Stream) -> String {
    String::from_utf8_lossy(&stream.kept_bytes()).into_owned()
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

fn record(session: &Session, result: &Result<BuildMeta, StageFailure>) -> Result<(), Fault> {
    let (status, code, message) = match result {
        Ok(_) => (Status::Pass, None, None),
        Err(StageFailure::Command { command, rc, ending, .. }) => {
            (Status::Fail, Some(*rc), Some(format!("`{command}` {ending}")))
        }
        Err(StageFailure::Fault(fault)) => (Status::Fail, None, Some(fault.to_string())),
    };
    let duration_ms = result.as_ref().map_or(0, |meta| meta.duration_ms);
    let event = Event {
        level: if status == Status::Pass { Level::Info } else { Level::Error },
        rc: code.or(result.is_ok().then_some(0)),
        duration_ms: Some(duration_ms),
        message: message.clone(),
        ..Event::new("build", "stage_end")
    };
    session.log(&event)?;
    match result {
        Ok(meta) => session.set_build_outcome(BuildOutcome::Built(meta.binary.clone()))?,
        Err(StageFailure::Command { command, rc, ending, output }) => {
            let (command, ending, output) = (command.clone(), ending.clone(), output.clone());
            session.set_build_outcome(BuildOutcome::Failed { command, rc: *rc, ending, output })?;
        }
        // The next process may have more luck with what was wrong with us.
        Err(StageFailure::Fault(_)) => {}
    }
    let stage = StageRecord { name: "build".to_owned(), status, duration_ms, rc: code, message };
    session.proof.keep_stage(stage).map_err(|error| Fault::new(&error))
}

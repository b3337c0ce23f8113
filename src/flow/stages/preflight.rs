//! What machine this is, and whether the product can be built on it. Nothing is repaired.

use std::ffi::OsString;
use std::path::PathBuf;

use super::build::{cargo, manifest};
use super::{Command, Stage, StageFailure, staged, text, toolchain};
use crate::flow::session::Session;
use crate::model::suite::Build;
use crate::os::machine;

/// Tells what is found, a line each, and checks what the build needs.
///
/// # Errors
/// If the product cannot be built here.
pub(crate) fn run(session: &Session, report: &dyn Fn(&str)) -> Result<(), StageFailure> {
    staged(session, Stage::Preflight, || {
        let host = &session.host;
        let container = host.container_id.as_deref().unwrap_or("none");
        let mut facts = vec![
            format!("system: {}", machine::system()),
            format!("distribution: {}; container: {container}", host.distro),
            format!("bash: {}", session.bash.display()),
        ];
        let databases = machine::package_databases().into_iter();
        facts.extend(databases.map(|(path, time)| format!("package database: {} of {time}", path.display())));
        facts.iter().for_each(|fact| report(fact));
        let tools = tools(session, report)?;
        Ok(((), Some(facts.into_iter().chain(tools).collect::<Vec<_>>().join("; "))))
    })
}

/// What cargo is asked, without the network: its version, and whether it understands the package.
fn tools(session: &Session, report: &dyn Fn(&str)) -> Result<Vec<String>, StageFailure> {
    let settings = &session.settings;
    let mut found = Vec::new();
    let mut tell = |fact: String| {
        report(&fact);
        found.push(fact);
    };
    if let Some(rustup) = settings.find_program("rustup") {
        tell(format!("rustup: {}", version(session, rustup)?));
    } else {
        tell("rustup: none; the toolchain is whatever cargo is".to_owned());
    }
    if session.project.product.build == Build::None {
        return Ok(found);
    }
    let cargo = cargo(settings)?;
    tell(format!("cargo ({}): {}", settings.toolchain, version(session, cargo.clone())?));
    let manifest = manifest(session);
    let questions = ["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"];
    let mut args: Vec<OsString> = questions.map(OsString::from).into();
    args.push(manifest.clone().into_os_string());
    Command { log: "preflight-metadata".to_owned(), program: cargo, args, environment: toolchain(settings) }
        .succeed(session, Stage::Preflight)?;
    tell(format!("product: {}", manifest.display()));
    Ok(found)
}

fn version(session: &Session, program: PathBuf) -> Result<String, StageFailure> {
    let environment = toolchain(&session.settings);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let log = format!("preflight-{name}");
    let command = Command { log, program, args: vec!["--version".into()], environment };
    let done = command.succeed(session, Stage::Preflight)?;
    Ok(text(&done.stdout).lines().next().unwrap_or_default().to_owned())
}

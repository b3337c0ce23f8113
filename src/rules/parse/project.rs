//! `runner.yaml` -> Project.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::node::{Field, Fields, ParseError, Problem, UnknownKeys, Value, shown};
use super::{quantity, task, yaml};
use crate::model::suite::{Build, Isolation, OnRestoreFailure, PresenceRules, Product, Project, RestoreCheck};

/// Every key of a `runner.yaml`.
pub(crate) const KEYS: &[&str] = &[
    "product",
    "scope",
    "deps",
    "snapshot",
    "presence",
    "isolation",
    "sandbox",
    "timeout",
    "on-restore-failure",
    "restore-check",
    "output-limit",
];

/// Every key of `product` in a `runner.yaml`.
pub(crate) const PRODUCT_KEYS: &[&str] = &["name", "build", "bin", "manifest-path"];

/// Every key of `presence` in a `runner.yaml`.
pub(crate) const PRESENCE_KEYS: &[&str] = &["applets", "target", "providers", "unified", "preserve"];

impl Default for Project {
    fn default() -> Self {
        Self {
            product: Product { name: None, build: Build::None, manifest_path: PathBuf::from("Cargo.toml"), bin: None },
            distros: None,
            packages: Vec::new(),
            snapshot: Vec::new(),
            presence: None,
            isolation: Isolation::Container,
            sandbox: false,
            timeout: Duration::from_secs(900),
            on_restore_failure: OnRestoreFailure::Stop,
            restore_check: RestoreCheck::Report,
            output_limit_bytes: 64 << 20,
        }
    }
}

/// Reads a project from the text of its `runner.yaml`. A file without any key is the defaults: every key has one.
///
/// # Errors
/// The first thing that is wrong with it, with its file, line and column.
pub(crate) fn parse_project(file: &Path, text: &[u8]) -> Result<Project, ParseError> {
    let document = yaml::read(file, text)?;
    if matches!(document.root.value, Value::Null) {
        return Ok(Project::default());
    }
    let project = document.root.fields(KEYS, UnknownKeys::Refuse).and_then(|fields| project(&fields));
    project.map_err(|problem| document.error(problem))
}

fn project(fields: &Fields<'_>) -> Result<Project, Problem> {
    let default = Project::default();
    Ok(Project {
        product: fields.read("product", product)?.unwrap_or(default.product),
        distros: fields
            .read("scope", |field| field.fields(&["distros"], UnknownKeys::Refuse)?.read("distros", task::distros))?
            .flatten(),
        packages: fields
            .read("deps", |field| field.fields(&["packages"], UnknownKeys::Refuse)?.read("packages", packages))?
            .flatten()
            .unwrap_or(default.packages),
        snapshot: fields
            .read("snapshot", |field| field.fields(&["paths"], UnknownKeys::Refuse)?.read("paths", task::paths))?
            .flatten()
            .unwrap_or(default.snapshot),
        presence: fields.read("presence", presence)?,
        isolation: fields.read("isolation", |field| field.word(ISOLATIONS))?.unwrap_or(default.isolation),
        sandbox: fields.read("sandbox", Field::boolean)?.unwrap_or(default.sandbox),
        timeout: fields.read("timeout", task::duration)?.unwrap_or(default.timeout),
        on_restore_failure: fields
            .read("on-restore-failure", |field| field.word(ON_RESTORE_FAILURE))?
            .unwrap_or(default.on_restore_failure),
        restore_check: fields
            .read("restore-check", |field| field.word(RESTORE_CHECKS))?
            .unwrap_or(default.restore_check),
        output_limit_bytes: fields.read("output-limit", size)?.unwrap_or(default.output_limit_bytes),
    })
}

const ISOLATIONS: &[(&str, Isolation)] =
    &[("container", Isolation::Container), ("overlay", Isolation::Overlay), ("none", Isolation::None)];

const ON_RESTORE_FAILURE: &[(&str, OnRestoreFailure)] =
    &[("stop", OnRestoreFailure::Stop), ("continue", OnRestoreFailure::Continue)];

const RESTORE_CHECKS: &[(&str, RestoreCheck)] = &[("report", RestoreCheck::Report), ("strict", RestoreCheck::Strict)];

const BUILDS: &[(&str, Build)] = &[("cargo", Build::Cargo), ("none", Build::None)];

fn product(field: Field<'_>) -> Result<Product, Problem> {
    let fields = field.fields(PRODUCT_KEYS, UnknownKeys::Refuse)?;
    let default = Project::default().product;
    Ok(Product {
        name: fields.read("name", command)?,
        build: fields.read("build", |field| field.word(BUILDS))?.unwrap_or(default.build),
        manifest_path: fields.read("manifest-path", file)?.unwrap_or(default.manifest_path),
        bin: fields.read("bin", file)?,
    })
}

/// A command that is looked up in PATH: a file name.
fn command(field: Field<'_>) -> Result<String, Problem> {
    let name = field.some_text()?;
    let forbidden = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if name.contains(forbidden) || name.starts_with('-') || matches!(name, "." | "..") {
        return Err(field.wrong(format!("must be the name of a command, found `{}`", shown(name))));
    }
    Ok(name.to_owned())
}

fn file(field: Field<'_>) -> Result<PathBuf, Problem> {
    field.some_text().map(PathBuf::from)
}

/// Names of packages; one that begins with `-` would be an option of the package manager, one with a slash another source.
fn packages(field: Field<'_>) -> Result<Vec<String>, Problem> {
    let mut packages = Vec::new();
    for one in field.list()? {
        let name = one.some_text()?;
        if name.starts_with('-') || name.chars().any(|c| c == '/' || c.is_whitespace() || c.is_control()) {
            return Err(one.wrong(format!("holds `{}`, which is not the name of a package", shown(name))));
        }
        packages.push(name.to_owned());
    }
    Ok(packages)
}

fn size(field: Field<'_>) -> Result<u64, Problem> {
    quantity::size_bytes(field.text()?).map_err(|error| field.wrong(error))
}

fn presence(field: Field<'_>) -> Result<PresenceRules, Problem> {
    let fields = field.fields(PRESENCE_KEYS, UnknownKeys::Refuse)?;
    Ok(PresenceRules {
        applets: file(fields.require("applets")?)?,
        target: task::path(fields.require("target")?)?,
        providers: fields.read("providers", task::paths)?.unwrap_or_default(),
        unified: fields.read("unified", task::paths)?.unwrap_or_default(),
        preserve: fields.read("preserve", Field::texts)?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::suite::DistroGate;
    use pretty_assertions::assert_eq;

    fn parse(text: &str) -> Result<Project, ParseError> {
        parse_project(Path::new("runner.yaml"), text.as_bytes())
    }

    #[test]
    fn every_key_is_read() {
        let text = "\
product: { name: oxidizr-arch, build: cargo, bin: target/release/oxidizr-arch, manifest-path: a/Cargo.toml }
scope: { distros: [arch, manjaro] }
deps: { packages: [base-devel, sudo] }
snapshot:
  paths: [\"/usr/bin/{applet}\", /usr/bin/sudo]
presence:
  applets: lib/bins.txt
  target: \"/usr/bin/{applet}\"
  providers: [\"/usr/bin/uu-{applet}\"]
  unified: [/usr/bin/coreutils]
  preserve: [b2sum]
isolation: overlay
sandbox: true
timeout: 30s
on-restore-failure: continue
restore-check: strict
output-limit: 1MiB
";
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let expected = Project {
            product: Product {
                name: Some("oxidizr-arch".to_owned()),
                build: Build::Cargo,
                manifest_path: "a/Cargo.toml".into(),
                bin: Some("target/release/oxidizr-arch".into()),
            },
            distros: Some(DistroGate(texts(&["arch", "manjaro"]))),
            packages: texts(&["base-devel", "sudo"]),
            snapshot: texts(&["/usr/bin/{applet}", "/usr/bin/sudo"]),
            presence: Some(PresenceRules {
                applets: "lib/bins.txt".into(),
                target: "/usr/bin/{applet}".to_owned(),
                providers: texts(&["/usr/bin/uu-{applet}"]),
                unified: texts(&["/usr/bin/coreutils"]),
                preserve: texts(&["b2sum"]),
            }),
            isolation: Isolation::Overlay,
            sandbox: true,
            timeout: Duration::from_secs(30),
            on_restore_failure: OnRestoreFailure::Continue,
            restore_check: RestoreCheck::Strict,
            output_limit_bytes: 1 << 20,
        };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn every_key_has_a_default() {
        for text in ["", "# nothing yet\n", "{}", "product: {}\nscope: {}\ndeps: {}\nsnapshot: {}\n"] {
            assert_eq!(parse(text), Ok(Project::default()), "{text:?}");
        }
        assert_eq!(parse("isolation: none\nproduct: { build: none }\n").unwrap().isolation, Isolation::None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("- a", "1:1: the file must hold a map of keys, found a list"),
            ("timeouts: 3s\n", "1:1: unknown key `timeouts`, did you mean `timeout`?"),
            ("product:\n  nam: x\n", "2:3: unknown key `nam`, did you mean `name`?"),
            ("product:\n  name: x\n  name: y\n", "3:3: duplicate key `name`, the first is at line 2, column 3"),
            ("product: x\n", "1:10: `product` must be a map, found the text `x`"),
            ("product:\n", "1:9: `product` has no value; give it a map, or remove the key"),
            ("product: {name: /bin/x}\n", "1:17: `name` must be the name of a command, found `/bin/x`"),
            ("product: {build: make}\n", "1:18: `build` cannot be `make`, known are `cargo`, `none`"),
            ("scope: {distros: []}\n", "1:18: `distros` names no distribution"),
            ("deps: {packages: [a, -y]}\n", "1:22: `packages` holds `-y`, which is not the name of a package"),
            ("deps: {packages: [./a]}\n", "1:19: `packages` holds `./a`, which is not the name of a package"),
            ("presence: {applets: a}\n", "1:12: the key `target` is missing"),
            ("presence: {applets: a, target: '/x/{name}'}\n", "1:32: `target` holds the unknown placeholder `{name}`"),
            ("presence: {applets: a, target: b, preserve: c}\n", "1:45: `preserve` must be a list"),
            ("isolation: overlya\n", "1:12: `isolation` cannot be `overlya`, did you mean `overlay`?"),
            ("sandbox: yes\n", "1:10: `sandbox` must be `true` or `false`, found the text `yes`"),
            ("timeout: -5s\n", "1:10: `timeout` cannot be `-5s`, it must be more than zero"),
            ("output-limit: 64M\n", "1:15: `output-limit` cannot be `64M`, write a number and a unit"),
            ("on-restore-failure: halt\n", "1:21: `on-restore-failure` cannot be `halt`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("runner.yaml:{expected}")), "{text:?}: {error}");
        }
    }
}

//! `runner.yaml` -> Project.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::form::{Boolean, Form, Key, Keys, List, MapOf, Measure, Required, SOME_TEXT, Scalar, Words, names, object};
use super::node::{Field, Fields, ParseError, Problem, UnknownKeys, Value, shown};
use super::quantity::{self, Quantity};
use super::task::{DURATION, Distros, PATH, PATHS};
use super::yaml;
use crate::model::script::{SandboxLimits, why_not_shown};
use crate::model::suite::{
    Build, DistroGate, Isolation, OnRestoreFailure, PresenceRules, Product, Project, RestoreCheck,
};

/// Every key of a `runner.yaml`.
pub(crate) const KEYS: Keys = &[
    &PRODUCT,
    &SCOPE,
    &DEPS,
    &SNAPSHOT,
    &PRESENCE,
    &ISOLATION,
    &SANDBOX,
    &SANDBOX_LIMITS,
    &SANDBOX_SHOWS,
    &TIMEOUT,
    &ON_RESTORE_FAILURE,
    &RESTORE_CHECK,
    &OUTPUT_LIMIT,
];

const PRODUCT: Key<MapOf<Product>> = Key {
    name: "product",
    about: "What is tested.",
    default: None,
    form: MapOf { keys: &[&NAME, &BUILD, &MANIFEST_PATH, &BIN], read: product },
};

const NAME: Key<Scalar<String>> =
    Key { name: "name", about: "The command that suites call.", default: None, form: COMMAND };

const BUILD: Key<Words<Build>> = Key {
    name: "build",
    about: "`cargo`: built once before the trials, with `CARGO_PROFILE`; `none`: not built.",
    default: Some("none"),
    form: Words(BUILDS),
};

const MANIFEST_PATH: Key<Scalar<PathBuf>> = Key {
    name: "manifest-path",
    about: "The product's package. It is built into the folder `target` beside this file.",
    default: Some("Cargo.toml"),
    form: FILE,
};

const BIN: Key<Scalar<PathBuf>> = Key {
    name: "bin",
    about: "The binary; its folder goes in front of `PATH`. Absent: what cargo reports, or the package's own binary of that name.",
    default: None,
    form: FILE,
};

const SCOPE: Key<MapOf<Option<DistroGate>>> = Key {
    name: "scope",
    about: "Where the suites may run.",
    default: None,
    form: MapOf { keys: &[&DISTROS], read: |fields| DISTROS.read(fields) },
};

const DISTROS: Key<Distros> = Key {
    name: "distros",
    about: "os-release IDs (a list, or one) that the project supports; elsewhere every suite fails.",
    default: None,
    form: Distros,
};

const DEPS: Key<MapOf<Option<Vec<String>>>> = Key {
    name: "deps",
    about: "What has to be installed.",
    default: None,
    form: MapOf { keys: &[&PACKAGES], read: |fields| PACKAGES.read(fields) },
};

const PACKAGES: Key<List<Scalar<String>>> =
    Key { name: "packages", about: "Strictly required packages.", default: None, form: List(PACKAGE) };

const SNAPSHOT: Key<MapOf<Option<Vec<String>>>> = Key {
    name: "snapshot",
    about: "What is looked at before and after each suite.",
    default: None,
    form: MapOf { keys: &[&SNAPSHOT_PATHS], read: |fields| SNAPSHOT_PATHS.read(fields) },
};

const SNAPSHOT_PATHS: Key<List<Scalar<String>>> = Key {
    name: "paths",
    about: "Paths of every suite's snapshots: files, folders, patterns. `{scratch}` is the suite's scratch folder, `{applet}` \
            each applet.",
    default: None,
    form: PATHS,
};

const PRESENCE: Key<MapOf<PresenceRules>> = Key {
    name: "presence",
    about: "What the presence of applets is judged by.",
    default: None,
    form: MapOf { keys: &[&APPLETS, &TARGET, &PROVIDERS, &UNIFIED, &PRESERVE], read: presence },
};

const APPLETS: Required<Scalar<PathBuf>> = Required(Key {
    name: "applets",
    about: "File with one applet a line; an empty one is an error.",
    default: None,
    form: FILE,
});

const TARGET: Required<Scalar<String>> = Required(Key {
    name: "target",
    about: "What the product replaces: `/usr/bin/{applet}`.",
    default: None,
    form: PATH,
});

const PROVIDERS: Key<List<Scalar<String>>> = Key {
    name: "providers",
    about: "Where an applet may come from; the first that exists provides it.",
    default: None,
    form: PATHS,
};

const UNIFIED: Key<List<Scalar<String>>> =
    Key { name: "unified", about: "Binaries that provide every applet.", default: None, form: PATHS };

const PRESERVE: Key<List<Scalar<String>>> =
    Key { name: "preserve", about: "Applets of which nothing is claimed.", default: None, form: List(SOME_TEXT) };

const ISOLATION: Key<Words<Isolation>> = Key {
    name: "isolation",
    about: "How suites are kept from the machine. `overlay` is refused until it is built.",
    default: Some("container"),
    form: Words(ISOLATIONS),
};

const SANDBOX: Key<Boolean> = Key {
    name: "sandbox",
    about: "Chickadee scripts and their make steps run in a sandbox. Where it cannot be had, nothing runs.",
    default: Some("false"),
    form: Boolean,
};

const SANDBOX_LIMITS: Key<MapOf<SandboxLimits>> = Key {
    name: "sandbox-limits",
    about: "How much each sandboxed script may use, with all that it starts.",
    default: None,
    form: MapOf { keys: &[&MEMORY, &DISK, &FILES, &PROCESSES, &OPEN_FILES], read: sandbox_limits },
};

const MEMORY: Key<Measure<u64>> = Key {
    name: "memory",
    about: "All together where a memory cgroup can be had, files that they write included; else the address space of each process.",
    default: Some("2GiB"),
    form: SIZE,
};

const DISK: Key<Measure<u64>> = Key {
    name: "disk",
    about: "What they write to files, which are kept in memory.",
    default: Some("512MiB"),
    form: SIZE,
};

const FILES: Key<Measure<u32>> =
    Key { name: "files", about: "Files and folders that they make or change.", default: Some("50000"), form: COUNT };

const PROCESSES: Key<Measure<u32>> = Key {
    name: "processes",
    about: "Processes and threads at once, 2 or more.",
    default: Some("512"),
    form: COUNT_OF_PROCESSES,
};

const OPEN_FILES: Key<Measure<u32>> = Key {
    name: "open-files",
    about: "Open files of one process, 16 or more.",
    default: Some("1024"),
    form: COUNT_OF_FILES,
};

const SANDBOX_SHOWS: Key<List<MachinesPath>> = Key {
    name: "sandbox-shows",
    about: "Further files and folders of the machine that sandboxed scripts can read, absolute. They see /usr, /etc, /opt and what \
            programs need; not /home, /root, /var, /run.",
    default: None,
    form: List(MachinesPath),
};

const TIMEOUT: Key<Measure<Duration>> = Key {
    name: "timeout",
    about: "Limit of one block: `90s`, `15m`, `1.5h`, `500ms`.",
    default: Some("900s"),
    form: DURATION,
};

const ON_RESTORE_FAILURE: Key<Words<OnRestoreFailure>> = Key {
    name: "on-restore-failure",
    about: "`stop`: after a failed restore every remaining suite fails without being run; `continue`: they run.",
    default: Some("stop"),
    form: Words(ON_RESTORE_FAILURES),
};

const RESTORE_CHECK: Key<Words<RestoreCheck>> = Key {
    name: "restore-check",
    about: "Paths that are not as before: `report` lists them, `strict` also fails.",
    default: Some("report"),
    form: Words(RESTORE_CHECKS),
};

const OUTPUT_LIMIT: Key<Measure<u64>> = Key {
    name: "output-limit",
    about: "Bytes of each stream of a block that go to its log: `64MiB`, `500kB`.",
    default: Some("64MiB"),
    form: SIZE,
};

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
            sandbox_limits: SandboxLimits::default(),
            sandbox_shows: Vec::new(),
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
    let project = document.root.fields(&names(KEYS), UnknownKeys::Refuse).and_then(|fields| project(&fields));
    project.map_err(|problem| document.error(problem))
}

fn project(fields: &Fields<'_>) -> Result<Project, Problem> {
    let default = Project::default();
    Ok(Project {
        product: PRODUCT.read(fields)?.unwrap_or(default.product),
        distros: SCOPE.read(fields)?.flatten(),
        packages: DEPS.read(fields)?.flatten().unwrap_or(default.packages),
        snapshot: SNAPSHOT.read(fields)?.flatten().unwrap_or(default.snapshot),
        presence: PRESENCE.read(fields)?,
        isolation: ISOLATION.read(fields)?.unwrap_or(default.isolation),
        sandbox: SANDBOX.read(fields)?.unwrap_or(default.sandbox),
        sandbox_limits: SANDBOX_LIMITS.read(fields)?.unwrap_or(default.sandbox_limits),
        sandbox_shows: SANDBOX_SHOWS.read(fields)?.unwrap_or(default.sandbox_shows),
        timeout: TIMEOUT.read(fields)?.unwrap_or(default.timeout),
        on_restore_failure: ON_RESTORE_FAILURE.read(fields)?.unwrap_or(default.on_restore_failure),
        restore_check: RESTORE_CHECK.read(fields)?.unwrap_or(default.restore_check),
        output_limit_bytes: OUTPUT_LIMIT.read(fields)?.unwrap_or(default.output_limit_bytes),
    })
}

const ISOLATIONS: &[(&str, Isolation)] =
    &[("container", Isolation::Container), ("overlay", Isolation::Overlay), ("none", Isolation::None)];

const ON_RESTORE_FAILURES: &[(&str, OnRestoreFailure)] =
    &[("stop", OnRestoreFailure::Stop), ("continue", OnRestoreFailure::Continue)];

const RESTORE_CHECKS: &[(&str, RestoreCheck)] = &[("report", RestoreCheck::Report), ("strict", RestoreCheck::Strict)];

const BUILDS: &[(&str, Build)] = &[("cargo", Build::Cargo), ("none", Build::None)];

fn product(fields: &Fields<'_>) -> Result<Product, Problem> {
    let default = Project::default().product;
    Ok(Product {
        name: NAME.read(fields)?,
        build: BUILD.read(fields)?.unwrap_or(default.build),
        manifest_path: MANIFEST_PATH.read(fields)?.unwrap_or(default.manifest_path),
        bin: BIN.read(fields)?,
    })
}

fn presence(fields: &Fields<'_>) -> Result<PresenceRules, Problem> {
    Ok(PresenceRules {
        applets: APPLETS.read(fields)?,
        target: TARGET.read(fields)?,
        providers: PROVIDERS.read(fields)?.unwrap_or_default(),
        unified: UNIFIED.read(fields)?.unwrap_or_default(),
        preserve: PRESERVE.read(fields)?.unwrap_or_default(),
    })
}

/// A command that is looked up in PATH: a file name.
const COMMAND: Scalar<String> =
    Scalar { read: command, pattern: Some(r"^(?!-|\.{1,2}$)[^/\s\x00-\x1f\x7f-\x9f]+$"), minimum: Some(0) };

fn command(field: Field<'_>) -> Result<String, Problem> {
    let name = field.some_text()?;
    let forbidden = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if name.contains(forbidden) || name.starts_with('-') || matches!(name, "." | "..") {
        return Err(field.wrong(format!("must be the name of a command, found `{}`", shown(name))));
    }
    Ok(name.to_owned())
}

const FILE: Scalar<PathBuf> =
    Scalar { read: |field| field.some_text().map(PathBuf::from), pattern: Some(r"\S"), minimum: None };

/// The name of a package; one that begins with `-` would be an option of the package manager, one with a slash another source.
const PACKAGE: Scalar<String> =
    Scalar { read: package, pattern: Some(r"^(?!-)[^/\s\x00-\x1f\x7f-\x9f]+$"), minimum: Some(0) };

fn package(field: Field<'_>) -> Result<String, Problem> {
    let name = field.some_text()?;
    if name.starts_with('-') || name.chars().any(|c| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err(field.wrong(format!("holds `{}`, which is not the name of a package", shown(name))));
    }
    Ok(name.to_owned())
}

const SIZE: Measure<u64> = Measure { quantity: &quantity::SIZE, read: quantity::size_bytes };

const COUNT: Measure<u32> = Measure { quantity: &ONE_OR_MORE, read: |text| quantity::count(&ONE_OR_MORE, text) };
const ONE_OR_MORE: Quantity = quantity::count_from(1);

const COUNT_OF_PROCESSES: Measure<u32> =
    Measure { quantity: &PROCESSES_OF_A_SHELL, read: |text| quantity::count(&PROCESSES_OF_A_SHELL, text) };
/// Itself, and a command.
const PROCESSES_OF_A_SHELL: Quantity = quantity::count_from(2);

const COUNT_OF_FILES: Measure<u32> =
    Measure { quantity: &FILES_OF_A_SHELL, read: |text| quantity::count(&FILES_OF_A_SHELL, text) };
/// Its script is 10, and the three streams are put by behind that while they are redirected.
const FILES_OF_A_SHELL: Quantity = quantity::count_from(16);

fn sandbox_limits(fields: &Fields<'_>) -> Result<SandboxLimits, Problem> {
    let default = SandboxLimits::default();
    Ok(SandboxLimits {
        memory_bytes_max: MEMORY.read(fields)?.unwrap_or(default.memory_bytes_max),
        disk_bytes_max: DISK.read(fields)?.unwrap_or(default.disk_bytes_max),
        disk_files_max: FILES.read(fields)?.unwrap_or(default.disk_files_max),
        processes_max: PROCESSES.read(fields)?.unwrap_or(default.processes_max),
        open_files_max: OPEN_FILES.read(fields)?.unwrap_or(default.open_files_max),
    })
}

/// A path of the machine that can be shown.
struct MachinesPath;

impl Form for MachinesPath {
    type Value = PathBuf;

    fn read(&self, field: Field<'_>) -> Result<PathBuf, Problem> {
        machines_path(field)
    }

    fn schema(&self) -> Map<String, Json> {
        let pattern = r"^\s*/(?!\s*$)(?!(dev|proc|tmp|var/tmp)(/|\s*$))";
        object(json!({"type": "string", "pattern": pattern}))
    }
}

fn machines_path(field: Field<'_>) -> Result<PathBuf, Problem> {
    let path = Path::new(field.some_text()?.trim());
    let wrong = |what: &str| Err(field.wrong(format!("cannot be `{}`, {what}", shown(&path.to_string_lossy()))));
    match why_not_shown(path) {
        Some(reason) => wrong(reason),
        // Without what does not count.
        None => Ok(path.components().collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::form::Declared;
    use super::*;
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
sandbox-limits: { memory: 1GiB, disk: 64MiB, files: 100, processes: 20, open-files: 30 }
sandbox-shows: [/srv/data]
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
            sandbox_limits: SandboxLimits {
                memory_bytes_max: 1 << 30,
                disk_bytes_max: 64 << 20,
                disk_files_max: 100,
                processes_max: 20,
                open_files_max: 30,
            },
            sandbox_shows: vec!["/srv/data".into()],
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
    fn every_default_that_is_told_is_the_one_that_is_meant() {
        let told = |keys: Keys| {
            let default = |key: &&dyn Declared| Some((key.name(), key.schema().get("default")?.clone()));
            keys.iter().filter_map(default).collect::<BTreeMap<_, _>>()
        };
        let mut all: BTreeMap<_, Json> = told(KEYS).into_iter().collect();
        all.insert("product", serde_json::to_value(told(PRODUCT.form.keys)).unwrap());
        all.insert("sandbox-limits", serde_json::to_value(told(SANDBOX_LIMITS.form.keys)).unwrap());
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(all.len(), 8, "{text}");
        assert_eq!(parse(&text), Ok(Project::default()), "{text}");
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
            ("sandbox-limits: {memory: 0}\n", "1:26: `memory` cannot be `0`, it must be more than zero"),
            ("sandbox-limits: {files: 1.5}\n", "1:25: `files` cannot be `1.5`, write a whole number"),
            ("sandbox-limits: {processes: 1000001}\n", "1:29: `processes` cannot be `1000001`, the limit is 1000000"),
            ("sandbox-limits: {processes: 1}\n", "1:29: `processes` cannot be `1`, the least is 2"),
            ("sandbox-limits: {open-files: 15}\n", "1:30: `open-files` cannot be `15`, the least is 16"),
            ("sandbox-limits: {time: 5s}\n", "1:18: unknown key `time`"),
            ("sandbox-shows: [data]\n", "1:17: `sandbox-shows` cannot be `data`, it must start with `/`"),
            ("sandbox-shows: [/]\n", "1:17: `sandbox-shows` cannot be `/`, name what is in it"),
            ("sandbox-shows: [/srv/../etc]\n", "1:17: `sandbox-shows` cannot be `/srv/../etc`, write it without `..`"),
            (
                "sandbox-shows: [/tmp/x]\n",
                "1:17: `sandbox-shows` cannot be `/tmp/x`, scripts have one of their own there",
            ),
            ("timeout: -5s\n", "1:10: `timeout` cannot be `-5s`, it must be more than zero"),
            ("output-limit: 64M\n", "1:15: `output-limit` cannot be `64M`, write a number and a unit"),
            ("on-restore-failure: halt\n", "1:21: `on-restore-failure` cannot be `halt`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("runner.yaml:{expected}")), "{text:?}: {error}");
        }
    }
}

//! The machine and the environment, read once: the only place that looks at variables.

mod variables;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::script::{Environment, LIMIT_MAX};
use crate::model::suite::Host;

pub(crate) use variables::{SandboxSettings, ValueError, Variables, number};

/// What the environment says about a run. A value that does not parse is an error, never a default.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The project's folder, absolute.
    pub(crate) project_dir: PathBuf,
    /// The suites folder, absolute.
    pub(crate) suites_dir: PathBuf,
    /// Where evidence goes, absolute.
    pub(crate) proof_dir: PathBuf,
    /// The JSONL log.
    pub(crate) jsonl: Jsonl,
    /// `TEST_FILTER`.
    pub(crate) filter: Option<String>,
    /// `SUITE_TIMEOUT_SEC`.
    pub(crate) suite_timeout: Option<Duration>,
    /// `CARGO_PROFILE`.
    pub(crate) cargo_profile: String,
    /// `RUSTUP_TOOLCHAIN`.
    pub(crate) toolchain: String,
    /// Where nextest's run and attempt come from.
    pub(crate) nextest: Option<Nextest>,
    /// `NO_COLOR` is set (<https://no-color.org>), or `TERM` is of no terminal that has colours.
    pub(crate) no_color: bool,
    /// We run in a workflow of GitHub Actions.
    pub(crate) github: Option<GitHub>,
    /// What libtest takes from the environment.
    pub(crate) libtest: LibtestVariables,
    /// Binaries of the package whose tests run, each by the variable that names it.
    package_binaries: BTreeMap<OsString, PathBuf>,
    /// The product, as the caller of the harness fixes it.
    product: Option<PathBuf>,
    /// What blocks inherit: ours without what cargo adds for tests.
    pub(crate) block_environment: Environment,
    /// What cargo and rustup get: as blocks, with where their own files are.
    pub(crate) tool_environment: Environment,
    /// Where programs are looked for.
    pub(crate) search_path: OsString,
    /// Folder for temporary files.
    pub(crate) temp_dir: PathBuf,
    /// Whether `TMPDIR` names it.
    pub(crate) temp_dir_is_named: bool,
    /// For what not every order reads.
    variables: Variables,
}

/// Variables of libtest: the command line may overrule them, so numbers are not parsed here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LibtestVariables {
    /// `RUST_TEST_THREADS`.
    pub(crate) threads: Option<String>,
    /// `RUST_TEST_NOCAPTURE`.
    pub(crate) nocapture: bool,
    /// `RUST_TEST_SHUFFLE`.
    pub(crate) shuffle: bool,
    /// `RUST_TEST_SHUFFLE_SEED`.
    pub(crate) shuffle_seed: Option<String>,
}

/// Where the JSONL log goes, beside the proof folder's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Jsonl {
    /// `RUNNER_JSONL` names it, absolute: it must be written.
    Named(PathBuf),
    /// In a container it goes here too, if this user may write there.
    Usual(PathBuf),
    /// The proof folder's is the only one.
    ProofOnly,
}

/// We run under cargo-nextest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nextest {
    /// The same for all processes of one run.
    pub(crate) run_id: String,
    /// From 1; more than 1 for a retry.
    pub(crate) attempt: u32,
}

/// We run in a workflow of GitHub Actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitHub {
    /// `GITHUB_WORKSPACE`: the repository.
    pub(crate) workspace: Option<PathBuf>,
    /// `GITHUB_STEP_SUMMARY`: a file to append Markdown to.
    pub(crate) step_summary: Option<PathBuf>,
}

/// Why the environment cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error("`{name}` names `{path}`, which is not a folder; correct it or leave it out", path = path.display())]
    NotAFolder { name: &'static str, path: PathBuf },
    #[error("could not find out the working directory")]
    WorkingDirectory(#[source] io::Error),
}

/// What the caller of the harness fixes; the environment overrules it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    /// The project's folder.
    pub(crate) project_dir: Option<PathBuf>,
    /// The suites folder, relative to the project's.
    pub(crate) suites_dir: Option<PathBuf>,
    /// Where evidence goes, relative to the project's folder.
    pub(crate) proof_dir: Option<PathBuf>,
    /// The product, for a project that does not build it.
    pub(crate) product: Option<PathBuf>,
    /// Variables that the command line sets.
    pub(crate) flags: Vec<(&'static str, OsString)>,
}

pub(crate) const DEFAULT_SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CONTAINER_PROJECT_DIR: &str = "/workspace";
const CONTAINER_JSONL: &str = "/var/log/runner.jsonl";

impl Settings {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// On a value that does not parse, and on a folder that is none.
    pub(crate) fn read(overrides: &Overrides, host: &Host) -> Result<Self, SettingsError> {
        let mut environment: Environment = std::env::vars_os().collect();
        let cwd = std::env::current_dir().map_err(SettingsError::WorkingDirectory)?;
        // Absolute, because blocks see them too, and run elsewhere.
        overrides.flags.iter().for_each(|(name, value)| environment.set(name, cwd.join(value)));
        Self::from_variables(Variables::new(environment, cwd), overrides, host)
    }

    fn from_variables(variables: Variables, overrides: &Overrides, host: &Host) -> Result<Self, SettingsError> {
        let text = |name| variables.text(name);
        let path = |name| variables.path(name);
        let folder = |name| folder(&variables, name);
        let named = |start| named(&variables, start);
        let cwd = variables.cwd();
        let in_container = host.container_id.is_some();
        let project_dir = match (folder("PROJECT_DIR")?, &overrides.project_dir) {
            (Some(dir), _) => dir,
            (None, Some(dir)) => cwd.join(dir),
            (None, None) if in_container && is_project(Path::new(CONTAINER_PROJECT_DIR)) => {
                CONTAINER_PROJECT_DIR.into()
            }
            (None, None) => folder("CARGO_MANIFEST_DIR")?.unwrap_or_else(|| cwd.to_path_buf()),
        };
        let below = |dir: &Option<PathBuf>| dir.as_ref().map(|dir| project_dir.join(dir));
        let proof_dir =
            path("PROOF_DIR").or_else(|| below(&overrides.proof_dir)).unwrap_or_else(|| project_dir.join(".proof"));
        let jsonl = match path("RUNNER_JSONL") {
            Some(path) => Jsonl::Named(path),
            None if in_container => Jsonl::Usual(CONTAINER_JSONL.into()),
            None => Jsonl::ProofOnly,
        };
        Ok(Self {
            suites_dir: path("SUITES_DIR")
                .or_else(|| below(&overrides.suites_dir))
                .unwrap_or_else(|| default_suites(&project_dir)),
            proof_dir,
            jsonl,
            filter: text("TEST_FILTER")?,
            suite_timeout: suite_timeout(text("SUITE_TIMEOUT_SEC")?)?,
            cargo_profile: text("CARGO_PROFILE")?.unwrap_or_else(|| "release".to_owned()),
            toolchain: text("RUSTUP_TOOLCHAIN")?.unwrap_or_else(|| "stable".to_owned()),
            nextest: nextest(text("NEXTEST_RUN_ID")?, text("NEXTEST_ATTEMPT")?)?,
            github: github(text("GITHUB_ACTIONS")?, path("GITHUB_WORKSPACE"), path("GITHUB_STEP_SUMMARY")),
            no_color: text("NO_COLOR")?.is_some() || text("TERM")?.is_none_or(|term| term == "dumb"),
            libtest: LibtestVariables {
                threads: text("RUST_TEST_THREADS")?,
                nocapture: is_on(text("RUST_TEST_NOCAPTURE")?),
                shuffle: is_on(text("RUST_TEST_SHUFFLE")?),
                shuffle_seed: text("RUST_TEST_SHUFFLE_SEED")?,
            },
            package_binaries: named("NEXTEST_BIN_EXE_").chain(named("CARGO_BIN_EXE_")).collect(),
            product: overrides.product.as_ref().map(|path| cwd.join(path)),
            block_environment: variables.all().filter(|(name, _)| !is_cargos(name)).cloned().collect(),
            tool_environment: variables.all().filter(|(name, _)| !is_cargos(name) || is_home(name)).cloned().collect(),
            search_path: variables.value("PATH").map_or_else(|| DEFAULT_SEARCH_PATH.into(), Clone::clone),
            temp_dir_is_named: path("TMPDIR").is_some(),
            temp_dir: path("TMPDIR").unwrap_or_else(|| "/tmp".into()),
            project_dir,
            variables,
        })
    }

    /// Returns the product of a project that does not build it, and who says so: nextest and cargo, else our caller.
    pub(crate) fn given_product(&self, name: Option<&str>) -> Option<(String, PathBuf)> {
        let variables = name.map(|name| {
            // nextest knows where it has moved them. Shells drop variables whose names have dashes, so it sets two.
            let of_nextest = [name, &name.replace('-', "_")].map(|name| format!("NEXTEST_BIN_EXE_{name}"));
            of_nextest.into_iter().chain([format!("CARGO_BIN_EXE_{name}")])
        });
        let path = |variable: &String| self.package_binaries.get(OsStr::new(variable)).cloned();
        let named = variables.into_iter().flatten().find_map(|name| Some((format!("`{name}`"), path(&name)?)));
        named.or_else(|| Some(("`Harness::product`".to_owned(), self.product.clone()?)))
    }

    /// Returns what a worker with this environment is told of its sandbox.
    ///
    /// # Errors
    /// On a value that cannot be used.
    pub(crate) fn workers_sandbox(&self) -> Result<SandboxSettings, ValueError> {
        self.variables.sandbox()
    }

    /// Finds a program as a shell would.
    pub(crate) fn find_program(&self, name: &str) -> Option<PathBuf> {
        find_in_path(OsStr::new(name), &self.search_path)
    }
}

/// Returns the first executable file called `name` in the folders of `search_path`.
pub(crate) fn find_in_path(name: &OsStr, search_path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search_path).map(|dir| dir.join(name)).find(|path| is_executable(path))
}

/// Tells whether `path` leads to a file that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Tells whether this user may make files in the folder `dir` (access(2), with the effective user).
pub(crate) fn can_write(dir: &Path) -> bool {
    dir.is_dir() && nix::unistd::eaccess(dir, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK).is_ok()
}

/// Reads who this machine is: os-release(5), and the marks that container engines leave.
pub(crate) fn host() -> Host {
    let distro = os_release_value(&os_release(), "ID").unwrap_or("linux").to_owned();
    Host { distro, container_id: container_id() }
}

/// Returns this machine's name, as gethostname(2) has it; bytes that are no text are replaced.
///
/// # Errors
/// None that is known.
#[cfg(feature = "worker")]
pub(crate) fn hostname() -> io::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

/// Tells whether this process has root's rights over files.
#[cfg(feature = "worker")]
pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Tells whether `uid` is this process's user.
#[cfg(feature = "worker")]
pub(crate) fn is_this_user(uid: u32) -> bool {
    nix::unistd::Uid::effective().as_raw() == uid
}

/// Returns this process's group, and the others that it is in.
#[cfg(feature = "worker")]
pub(crate) fn groups() -> (u32, Vec<u32>) {
    let others = nix::unistd::getgroups().unwrap_or_default();
    (nix::unistd::Gid::effective().as_raw(), others.into_iter().map(nix::unistd::Gid::as_raw).collect())
}

/// Whose package manager owns the files of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Debian's.
    Debian,
    /// Another one's.
    Other,
}

/// Reads what family this machine's distribution is of.
pub(crate) fn family() -> Family {
    let release = os_release();
    let mut words = ["ID", "ID_LIKE"].into_iter().filter_map(|key| os_release_value(&release, key));
    let is_debian = words.any(|value| value.split_whitespace().any(|word| word == "debian"));
    if is_debian { Family::Debian } else { Family::Other }
}

/// Returns the text of os-release(5), empty if there is none.
pub(crate) fn os_release() -> String {
    let paths = ["/etc/os-release", "/usr/lib/os-release"];
    paths.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default()
}

/// Returns a value of os-release(5), without its quotes.
pub(crate) fn os_release_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']))
}

/// An engine's id is 64 hexadecimal digits in the paths of the files that it mounts for each container; podman also writes it into
/// `.containerenv`.
fn container_id() -> Option<String> {
    let variable = std::env::vars_os().find(|(name, _)| name == "container").map(|(_, value)| value);
    let podman = fs::read_to_string("/run/.containerenv").ok();
    let docker = Path::new("/.dockerenv").exists();
    let kind = match (&podman, docker, variable) {
        (Some(_), _, _) => "podman".to_owned(),
        (None, true, _) => "docker".to_owned(),
        (None, false, Some(value)) if !value.is_empty() => value.to_string_lossy().into_owned(),
        (None, false, Some(_) | None) => return None,
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let texts = [podman.unwrap_or_default(), own_files(&mounts)];
    Some(texts.iter().find_map(|text| find_id(text)).map_or(kind, str::to_owned))
}

/// Returns the lines of mountinfo (proc(5)) for files that an engine mounts; others may be of containers within this one.
fn own_files(mountinfo: &str) -> String {
    let files = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
    let lines = mountinfo.lines().filter(|line| line.split(' ').nth(4).is_some_and(|point| files.contains(&point)));
    lines.collect::<Vec<_>>().join("\n")
}

fn find_id(text: &str) -> Option<&str> {
    text.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() == 64)
}

fn is_project(dir: &Path) -> bool {
    ["suites", "tests"].iter().any(|name| dir.join(name).is_dir())
}

/// `suites`, or `tests` if only that has a `task.yaml`.
fn default_suites(project_dir: &Path) -> PathBuf {
    let (suites, tests) = (project_dir.join("suites"), project_dir.join("tests"));
    let has_suite =
        |dir: &Path| walkdir::WalkDir::new(dir).into_iter().flatten().any(|entry| entry.file_name() == "task.yaml");
    if !suites.exists() && has_suite(&tests) { tests } else { suites }
}

/// What cargo sets for the tests it runs, or what rustup's proxies set for cargo: it would change what a product sees.
pub(crate) fn is_cargos(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO") || name.starts_with("RUST") || name.starts_with("NEXTEST") || name == "LD_LIBRARY_PATH"
}

/// Where the registry and the toolchains are: without these cargo would start with empty ones.
fn is_home(name: &OsStr) -> bool {
    name == "CARGO_HOME" || name == "RUSTUP_HOME"
}

/// Returns how many columns a terminal has; of what is no terminal, or does not tell, nothing.
pub(crate) fn columns(stream: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// As libtest reads a switch.
fn is_on(value: Option<String>) -> bool {
    value.is_some_and(|value| value != "0")
}

/// Returns the paths in the variables whose names begin with `start`.
fn named<'a>(variables: &'a Variables, start: &'a str) -> impl Iterator<Item = (OsString, PathBuf)> + 'a {
    let is_one = move |name: &OsStr| name.as_bytes().starts_with(start.as_bytes());
    let named = variables.all().filter(move |(name, value)| is_one(name) && !value.is_empty());
    named.map(|(name, value)| (name.clone(), variables.cwd().join(value)))
}

fn folder(variables: &Variables, name: &'static str) -> Result<Option<PathBuf>, SettingsError> {
    match variables.path(name) {
        Some(path) if !path.is_dir() => Err(SettingsError::NotAFolder { name, path }),
        other => Ok(other),
    }
}

fn nextest(run_id: Option<String>, attempt: Option<String>) -> Result<Option<Nextest>, SettingsError> {
    let Some(run_id) = run_id else { return Ok(None) };
    let attempt = match attempt {
        None => 1,
        Some(value) => value.parse().map_err(|_| ValueError {
            name: "NEXTEST_ATTEMPT",
            value,
            wanted: "a whole number".to_owned(),
        })?,
    };
    Ok(Some(Nextest { run_id, attempt }))
}

fn github(is_on: Option<String>, workspace: Option<PathBuf>, step_summary: Option<PathBuf>) -> Option<GitHub> {
    is_on.filter(|value| value == "true").map(|_| GitHub { workspace, step_summary })
}

fn suite_timeout(text: Option<String>) -> Result<Option<Duration>, ValueError> {
    let Some(value) = text else { return Ok(None) };
    number("SUITE_TIMEOUT_SEC", value, 1, LIMIT_MAX.as_secs()).map(|seconds| Some(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let environment = variables.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))).collect();
        let host = Host { distro: "arch".into(), container_id: None };
        Settings::from_variables(Variables::new(environment, "/".into()), &Overrides::default(), &host)
    }

    #[test]
    fn a_timeout_that_does_not_parse_names_the_variable() {
        for bad in ["0", "-1", "abc", "10000001", "1.5", "9999999999999999999999"] {
            let error = read(&[("SUITE_TIMEOUT_SEC", bad)]).unwrap_err().to_string();
            assert!(error.contains("`SUITE_TIMEOUT_SEC`") && error.contains(bad), "{error}");
        }
        let settings = read(&[("SUITE_TIMEOUT_SEC", "7")]).unwrap();
        assert_eq!(settings.suite_timeout, Some(Duration::from_secs(7)));
    }

    #[test]
    fn blocks_do_not_get_what_cargo_sets() {
        let names = ["CARGO_PKG_NAME", "CARGO", "RUSTUP_TOOLCHAIN", "RUST_BACKTRACE", "LD_LIBRARY_PATH", "NEXTEST"];
        let mut variables: Vec<_> = names.iter().map(|name| (*name, "x")).collect();
        variables.push(("HOME", "/root"));
        let settings = read(&variables).unwrap();
        let left: Vec<_> = settings.block_environment.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(left, ["HOME"]);
    }

    #[test]
    fn an_empty_variable_counts_as_absent() {
        let settings = read(&[("TEST_FILTER", ""), ("PROOF_DIR", ""), ("CARGO_PROFILE", "")]).unwrap();
        assert_eq!((settings.filter, settings.cargo_profile.as_str()), (None, "release"));
        assert_eq!(settings.proof_dir, Path::new("/.proof"));
    }

    #[test]
    fn a_project_dir_that_is_none_is_an_error() {
        let error = read(&[("PROJECT_DIR", "/no/such/folder")]).unwrap_err().to_string();
        assert_eq!(error, "`PROJECT_DIR` names `/no/such/folder`, which is not a folder; correct it or leave it out");
    }

    #[test]
    fn nextest_names_binaries_before_cargo_and_both_before_our_caller() {
        let overrides = Overrides { product: Some("called".into()), ..Overrides::default() };
        let host = Host { distro: "arch".into(), container_id: None };
        let given = |variables: &[&str], name: Option<&str>| {
            let environment = variables.iter().map(|name| (OsString::from(name), OsString::from(name))).collect();
            let settings =
                Settings::from_variables(Variables::new(environment, "/".into()), &overrides, &host).unwrap();
            settings.given_product(name).unwrap().1
        };
        let (cargo, both) = ("CARGO_BIN_EXE_a-b", ["CARGO_BIN_EXE_a-b", "NEXTEST_BIN_EXE_a-b"]);
        assert_eq!(given(&both, Some("a-b")), Path::new("/NEXTEST_BIN_EXE_a-b"));
        assert_eq!(given(&["NEXTEST_BIN_EXE_a_b"], Some("a-b")), Path::new("/NEXTEST_BIN_EXE_a_b"));
        assert_eq!(given(&[cargo], Some("a-b")), Path::new("/CARGO_BIN_EXE_a-b"));
        assert_eq!(given(&[cargo], Some("a")), Path::new("/called"));
        assert_eq!(given(&[cargo], None), Path::new("/called"));
        assert_eq!(read(&[]).unwrap().given_product(Some("a-b")), None);
    }

    #[test]
    fn an_id_is_taken_from_an_engines_own_files_only() {
        let [own, other] = ["a", "b"].map(|digit| digit.repeat(64));
        let mounts = format!(
            "97 9 0:1 / /var/lib/docker/overlay2/{other}/merged rw - overlay overlay rw\n\
             98 9 8:1 /var/lib/docker/containers/{own}/hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw\n"
        );
        assert_eq!(find_id(&own_files(&mounts)), Some(own.as_str()));
        assert_eq!(find_id(&own_files(&mounts.replace("/etc/hosts", "/elsewhere"))), None);
    }

    #[test]
    fn the_id_of_os_release_may_be_quoted() {
        assert_eq!(os_release_value("NAME=x\nID=\"opensuse-leap\"\n", "ID"), Some("opensuse-leap"));
        assert_eq!(os_release_value("NAME=x\nID_LIKE=y\nID=arch\n", "ID"), Some("arch"));
    }
}

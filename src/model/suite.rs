//! A suite (a folder with a `task.yaml`), the project it belongs to (`runner.yaml`), and the host it runs on.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::script::{SandboxLimits, is_hidden};

/// The trial's name: the folder's path below the suites folder, `/` between its parts, printable, no white space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SuiteName(String);

/// Why a text cannot be a trial's name.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` cannot be a trial's name: {why}")]
pub(crate) struct SuiteNameError {
    name: String,
    why: &'static str,
}

impl SuiteName {
    /// Accepts a name that every test runner can list and select.
    ///
    /// # Errors
    /// If it is empty, starts with `-`, has white space, hidden characters, or a part that is empty, `.` or `..`.
    pub(crate) fn new(name: impl Into<String>) -> Result<Self, SuiteNameError> {
        let name = name.into();
        let why = if name.is_empty() {
            "it is empty"
        } else if name.starts_with('-') {
            "it starts with `-`, which test runners read as a flag"
        } else if name.chars().any(|c| c.is_whitespace() || is_hidden(c)) {
            "it has white space or characters that do not show"
        } else if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            "a part between slashes is empty, `.` or `..`"
        } else {
            return Ok(Self(name));
        };
        Err(SuiteNameError { name, why })
    }

    /// Returns the name as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SuiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One parsed `task.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suite {
    /// The trial's name.
    pub(crate) name: SuiteName,
    /// The `task.yaml` it was read from.
    pub(crate) file: PathBuf,
    /// One line for listings and reports.
    pub(crate) summary: String,
    /// More than one line, for people.
    pub(crate) details: Option<String>,
    /// Runs before `execute`.
    pub(crate) prepare: Option<Block>,
    /// The block under test.
    pub(crate) execute: Block,
    /// Runs always.
    pub(crate) restore: Option<Block>,
    /// Runs after a failure, before `restore`.
    pub(crate) debug: Option<Block>,
    /// Exported to every block, in the order of the file.
    pub(crate) environment: Vec<(String, String)>,
    /// Where the suite may run; elsewhere it fails.
    pub(crate) distro_check: Option<DistroGate>,
    /// What counts as success.
    pub(crate) expect: Expect,
    /// Limit of each block, instead of the project's.
    pub(crate) kill_timeout: Option<Duration>,
    /// What the applets must look like after `execute`.
    pub(crate) presence: Presence,
    /// Further paths to snapshot: files, folders, globs, `{applet}`.
    pub(crate) snapshot: Vec<String>,
}

/// A bash text of a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Verbatim.
    pub(crate) text: String,
    /// Line of the `task.yaml` that holds its key, from 1.
    pub(crate) line: usize,
}

/// What counts as success of a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// `execute` exits 0.
    Pass,
    /// `execute` exits non-zero by itself.
    Fail,
    /// As `Fail`; says that the failure is a known defect.
    Xfail,
}

impl Expect {
    /// Returns the word of task.yaml.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Xfail => "xfail",
        }
    }
}

/// os-release IDs on which something may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DistroGate(pub(crate) Vec<String>);

impl DistroGate {
    /// Tells whether `distro` (an os-release ID) is among them.
    #[must_use]
    pub(crate) fn admits(&self, distro: &str) -> bool {
        self.0.iter().any(|id| id == distro)
    }
}

/// What the applets must look like after `execute`, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Presence {
    /// The claim.
    pub(crate) claim: PresenceClaim,
    /// Where it comes from.
    pub(crate) origin: PresenceOrigin,
}

/// What every applet's target must be after `execute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PresenceClaim {
    /// A symbolic link.
    Linked,
    /// Not a symbolic link.
    Unlinked,
    /// Nothing is claimed.
    None,
}

impl PresenceClaim {
    /// Returns the word of task.yaml.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Linked => "linked",
            Self::Unlinked => "unlinked",
            Self::None => "none",
        }
    }
}

/// Whether the suite said it, or it was read from the words of `execute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PresenceOrigin {
    /// The key `presence` says so.
    Declared,
    /// Inferred from words in `execute`.
    Inferred,
}

impl PresenceOrigin {
    /// Returns the word of result.json.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Inferred => "inferred",
        }
    }
}

/// One parsed `runner.yaml`, or its defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// What is tested.
    pub(crate) product: Product,
    /// Distributions that the project supports; `None` is any.
    pub(crate) distros: Option<DistroGate>,
    /// Strictly required packages.
    pub(crate) packages: Vec<String>,
    /// Paths of every suite's snapshots: files, folders, globs, `{applet}`.
    pub(crate) snapshot: Vec<String>,
    /// What the presence of applets is judged by.
    pub(crate) presence: Option<PresenceRules>,
    /// How suites are kept from the machine.
    pub(crate) isolation: Isolation,
    /// Whether chickadee scripts run in the sandbox.
    pub(crate) sandbox: bool,
    /// How much each of them may use there.
    pub(crate) sandbox_limits: SandboxLimits,
    /// Further paths of the machine that they can read there, absolute.
    pub(crate) sandbox_shows: Vec<PathBuf>,
    /// Limit of one block.
    pub(crate) timeout: Duration,
    /// What a failed restore means for the suites after it.
    pub(crate) on_restore_failure: OnRestoreFailure,
    /// What a difference between `before` and `restored` means.
    pub(crate) restore_check: RestoreCheck,
    /// Bytes of each stream of a block that are written to its log.
    pub(crate) output_limit_bytes: u64,
}

/// What is tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Product {
    /// The command that suites call.
    pub(crate) name: Option<String>,
    /// How it is built.
    pub(crate) build: Build,
    /// The package's Cargo.toml, relative to the project dir.
    pub(crate) manifest_path: PathBuf,
    /// The binary, relative to the project dir.
    pub(crate) bin: Option<PathBuf>,
}

/// How the product is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// `cargo build`.
    Cargo,
    /// Not at all.
    None,
}

/// What the presence of applets is judged by. In every text `{applet}` stands for the applet's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PresenceRules {
    /// File with one applet a line, relative to the project dir.
    pub(crate) applets: PathBuf,
    /// What the product replaces.
    pub(crate) target: String,
    /// Where an applet may come from; the first that exists provides it.
    pub(crate) providers: Vec<String>,
    /// Binaries that provide every applet.
    pub(crate) unified: Vec<String>,
    /// Applets that the product must leave alone.
    pub(crate) preserve: Vec<String>,
}

/// How suites are kept from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// They change the container they run in, one after another.
    Container,
    /// Each gets a copy-on-write view of `/`.
    Overlay,
    /// They are declared to touch their own scratch folder only.
    None,
}

impl Isolation {
    /// Returns the word of runner.yaml.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Overlay => "overlay",
            Self::None => "none",
        }
    }
}

/// What a failed restore means for the suites after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnRestoreFailure {
    /// They fail without being run.
    Stop,
    /// They run.
    Continue,
}

/// What a difference between `before` and `restored` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestoreCheck {
    /// It is listed.
    Report,
    /// It fails the suite.
    Strict,
}

/// Facts about the machine that decisions need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// os-release `ID`, `linux` if there is none.
    pub(crate) distro: String,
    /// The container's id, its kind where the id cannot be told, `None` outside a container.
    pub(crate) container_id: Option<String>,
}

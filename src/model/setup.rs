//! A chickadee test set-up: a folder of scripts graded by exit code, and its manifest.

use std::path::PathBuf;
use std::time::Duration;

/// Bytes of all files of a set-up, or of a submission, as a folder or inflated: as much as sandboxed scripts may write.
pub(crate) const CONTENT_BYTES_MAX: u64 = 512 << 20;
/// Files and folders of one: less than half of what sandboxed scripts may make, since they need some of their own.
pub(crate) const CONTENT_ENTRIES_MAX: u32 = 20_000;

/// One set-up, from `test.properties.json` or from the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestSetup {
    /// The set-up's folder below the suites folder, `/` between its parts.
    pub(crate) name: String,
    /// The folder.
    pub(crate) dir: PathBuf,
    /// Scripts in the order of the manifest, else byte-wise by name.
    pub(crate) entries: Vec<ScriptEntry>,
    /// Wall-clock limit of one script, and of the make step.
    pub(crate) time_limit: Duration,
    /// Runs once, before the scripts.
    pub(crate) make: Option<MakeStep>,
}

/// `make [target]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MakeStep {
    /// The default goal if absent.
    pub(crate) target: Option<String>,
}

/// One script of a set-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScriptEntry {
    /// Path in the set-up.
    pub(crate) script: String,
    /// Who sees its outcome.
    pub(crate) tier: Tier,
    /// Display name.
    pub(crate) name: Option<String>,
    /// Scripts that must have passed.
    pub(crate) depends_on: Vec<String>,
    /// What it is worth.
    pub(crate) points: u32,
    /// A hint for the student.
    pub(crate) hint: Option<String>,
}

impl ScriptEntry {
    /// Returns the display name if it is not blank, else the script without its last extension.
    #[must_use]
    pub(crate) fn display_name(&self) -> &str {
        match self.name.as_deref().map(str::trim) {
            Some(name) if !name.is_empty() => name,
            Some(_) | None => strip_last_extension(&self.script),
        }
    }
}

fn strip_last_extension(script: &str) -> &str {
    let file_start = script.rfind('/').map_or(0, |at| at + 1);
    match script[file_start..].rfind('.') {
        Some(dot) if dot > 0 => &script[..file_start + dot],
        Some(_) | None => script,
    }
}

/// Who sees a script's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// At once.
    Public,
    /// After the deadline.
    Release,
    /// Never.
    Secret,
    /// The older word for `Public`.
    Student,
}

impl Tier {
    /// Returns Chickadee's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Release => "release",
            Self::Secret => "secret",
            Self::Student => "student",
        }
    }
}

//! What a trial saw, what is concluded from it, and what is recorded.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::script::{Completion, Exit};
use super::snapshot::Snapshot;
use super::suite::{PresenceClaim, SuiteName};

/// Our own failure: what we tried, and every cause below it. Never a script's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(String);

impl Fault {
    /// Keeps an error and its causes as one line.
    pub(crate) fn new(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self(text)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A step of a trial: what it saw, or why we could not take it.
pub(crate) type Phase<T> = Result<T, Fault>;

/// The four blocks of a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BlockName {
    /// Before `execute`.
    Prepare,
    /// Under test.
    Execute,
    /// After a failure.
    Debug,
    /// Always.
    Restore,
}

impl BlockName {
    /// Returns the key of `task.yaml`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Execute => "execute",
            Self::Debug => "debug",
            Self::Restore => "restore",
        }
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the product's own output was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProductLog {
    /// No product is named, or no call of it was seen.
    Empty,
    /// Every call went through the log.
    Complete,
    /// The product was also used in a way that cannot be seen, for example by its absolute path.
    Incomplete,
}

/// Everything a trial of a suite saw.
#[derive(Debug)]
pub(crate) struct Evidence {
    /// Before anything ran.
    pub(crate) before: Phase<Snapshot>,
    /// `prepare`, if the suite has one.
    pub(crate) prepare: Option<Phase<Completion>>,
    /// `execute`, unless `prepare` failed.
    pub(crate) execute: Option<Phase<Completion>>,
    /// After `execute`.
    pub(crate) after: Phase<Snapshot>,
    /// `debug`, if something failed and the suite has one.
    pub(crate) debug: Option<Phase<Completion>>,
    /// `restore`, if the suite has one.
    pub(crate) restore: Option<Phase<Completion>>,
    /// After `restore`.
    pub(crate) restored: Phase<Snapshot>,
    /// What the product printed, stdout then stderr, as text.
    pub(crate) product_output: String,
    /// Whether that is all it printed.
    pub(crate) product_log: ProductLog,
    /// The applets to judge presence by.
    pub(crate) applets: Vec<String>,
}

/// One reason to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The suite's file is wrong; the text names file, line and column.
    Invalid(String),
    /// The suite may not run on this distribution.
    Distro {
        /// os-release ID of this host.
        distro: String,
        /// Where it may run.
        allowed: Vec<String>,
    },
    /// Nothing of it ran.
    NotRun {
        /// The suite whose restore failed.
        dirtied_by: SuiteName,
    },
    /// A block ended by itself with a code other than 0, or by a signal.
    Ended {
        /// Which.
        block: BlockName,
        /// How.
        exit: Exit,
    },
    /// A block ran into its limit.
    TimedOut {
        /// Which.
        block: BlockName,
        /// The limit.
        limit: Duration,
    },
    /// A block was stopped because the run was interrupted.
    Interrupted {
        /// Which.
        block: BlockName,
    },
    /// A block killed the process that watches over it.
    SupervisorKilled {
        /// Which.
        block: BlockName,
    },
    /// `expect: fail` or `xfail`, and `execute` exited 0.
    UnexpectedPass,
    /// A block's output is not text; it is kept byte for byte in its log.
    NotText {
        /// Which block.
        block: BlockName,
    },
    /// An applet's target is not what the suite claims.
    Presence {
        /// The applet.
        applet: String,
        /// What was looked at.
        target: PathBuf,
        /// What was claimed.
        claim: PresenceClaim,
        /// What is there, in words.
        found: String,
    },
    /// An applet has no provider, and the product did not warn about it.
    MissingWarning {
        /// The applet.
        applet: String,
        /// Whether all of the product's output was seen.
        log: ProductLog,
    },
    /// `restore-check: strict`, and these paths are not as before.
    Drift(Vec<PathBuf>),
    /// A chickadee script did not pass: its status word and short result.
    Script {
        /// `fail`, `error` or `timeout`.
        status: &'static str,
        /// One line.
        short_result: String,
    },
    /// The make step of a set-up failed.
    BuildFailed {
        /// make's output, bounded.
        output: String,
    },
    /// We failed.
    Fault(Fault),
}

/// What is concluded from the evidence. There is no third word: a suite that may not run here fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything that was claimed is true.
    Pass,
    /// Every reason why not; never empty.
    Fail(Vec<Finding>),
}

impl From<Vec<Finding>> for Verdict {
    fn from(findings: Vec<Finding>) -> Self {
        if findings.is_empty() { Self::Pass } else { Self::Fail(findings) }
    }
}

//! What a trial saw, what is concluded from it, and what is recorded.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::script::{Completion, Exit};
use super::snapshot::Snapshot;
use super::suite::PresenceClaim;

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

impl Fault {
    /// Keeps a text that is already one line.
    pub(crate) fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
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

impl ProductLog {
    /// Returns the word of result.json.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Everything a trial of a suite saw.
#[derive(Debug)]
pub(crate) struct Evidence {
    /// Before anything ran.
    pub(crate) before: Phase<Arc<Snapshot>>,
    /// `prepare`, if the suite has one.
    pub(crate) prepare: Option<Phase<Completion>>,
    /// `execute`, unless `prepare` failed.
    pub(crate) execute: Option<Phase<Completion>>,
    /// After `execute`.
    pub(crate) after: Phase<Arc<Snapshot>>,
    /// `debug`, if something failed and the suite has one.
    pub(crate) debug: Option<Phase<Completion>>,
    /// `restore`, if the suite has one.
    pub(crate) restore: Option<Phase<Completion>>,
    /// After `restore`.
    pub(crate) restored: Phase<Arc<Snapshot>>,
    /// What the product printed, stdout then stderr, as text.
    pub(crate) product_output: String,
    /// Whether that is all it printed.
    pub(crate) product_log: ProductLog,
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
        dirtied_by: String,
    },
    /// Nothing of it ran: the user, or a test runner, ended the run.
    RunInterrupted,
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

impl fmt::Display for Finding {
    /// One line, but for `Invalid` and `BuildFailed`, which quote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => f.write_str(text),
            Self::Distro { distro, allowed } => {
                write!(f, "not run: this is `{distro}`, and the suite runs only on {}", allowed.join(", "))
            }
            Self::NotRun { dirtied_by } => {
                write!(f, "not run: host left dirty by {dirtied_by}, whose restore failed")
            }
            Self::RunInterrupted => f.write_str("not run: the run was interrupted"),
            Self::Ended { block, exit: Exit::Code(code) } => write!(f, "{block} exited with code {code}"),
            Self::Ended { block, exit: exit @ Exit::Signal(_) } => write!(f, "{block} was killed by {exit}"),
            Self::TimedOut { block, limit } => write!(f, "{block} was killed after its limit of {limit:?}"),
            Self::Interrupted { block } => write!(f, "{block} was stopped: the run was interrupted"),
            Self::SupervisorKilled { block } => {
                write!(f, "{block} killed the process that watched over it; everything it started was ended")
            }
            Self::UnexpectedPass => f.write_str("execute exited with code 0, but the suite expects it to fail"),
            Self::Presence { applet, target, claim, found } => {
                let target = target.display();
                let wanted = match claim {
                    PresenceClaim::Linked => "a symbolic link",
                    PresenceClaim::Unlinked => "no symbolic link",
                    PresenceClaim::None => "anything",
                };
                write!(f, "presence of {applet}: {target} must be {wanted}, but is {found}")
            }
            Self::MissingWarning { applet, log } => {
                write!(
                    f,
                    "presence of {applet}: nothing provides it, and the product printed no WARN line that names it"
                )?;
                match log {
                    ProductLog::Empty => f.write_str(" (no call of the product was seen)"),
                    ProductLog::Incomplete => f.write_str(" (not all of its output was seen)"),
                    ProductLog::Complete => Ok(()),
                }
            }
            Self::Drift(paths) => {
                let shown: Vec<_> = paths.iter().take(DRIFT_SHOWN_MAX).map(|path| path.display().to_string()).collect();
                write!(f, "{} paths are not as before: {}", paths.len(), shown.join(", "))?;
                if paths.len() > shown.len() { f.write_str(", ...") } else { Ok(()) }
            }
            Self::Script { status, short_result } => write!(f, "{status}: {short_result}"),
            Self::BuildFailed { output } => write!(f, "the set-up's make step failed: {}", output.trim_end()),
            Self::Fault(fault) => write!(f, "could not test: {fault}"),
        }
    }
}

/// Paths that the one line about drift names; result.json has them all.
const DRIFT_SHOWN_MAX: usize = 5;

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

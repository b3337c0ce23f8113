//! What can go wrong, and which exit code says so.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One reason to leave an applet, an experiment or a folder alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) object: String,
    pub(crate) reason: String,
}

#[derive(Debug)]
pub(crate) enum Error {
    /// The command line or the environment asks for something that does not exist.
    Usage(String),
    /// The order is understood and unsafe; nothing was changed.
    Refused(Vec<Refusal>),
    /// Another `swap` works on this root.
    Locked(PathBuf),
    /// The state file is not one of ours.
    State {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A change failed half-way; everything done before it was undone.
    RolledBack(Box<Error>),
    /// A change failed half-way, and so did undoing it; the state file still knows what is left to undo.
    RollbackFailed {
        cause: Box<Error>,
        undo: Box<Error>,
    },
}

impl Error {
    /// Wraps an `io::Error` with the operation and the object, for `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn refused(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused(vec![Refusal { object: object.into(), reason: reason.into() }])
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(_)
            | Self::Locked(_)
            | Self::State { .. }
            | Self::Io { .. }
            | Self::RolledBack(_)
            | Self::RollbackFailed { .. } => 1,
        }
    }

    /// Returns one line for each thing to say, without the leading word.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Refused(refusals) => {
                refusals.iter().map(|refusal| format!("{}: {}", refusal.object, refusal.reason)).collect()
            }
            Self::RolledBack(cause) => {
                let mut lines = cause.lines();
                lines.push("everything done so far was undone".to_owned());
                lines
            }
            Self::RollbackFailed { cause, undo } => {
                let mut lines = cause.lines();
                lines.push("undoing the change failed too, the next order will try again:".to_owned());
                lines.extend(undo.lines());
                lines
            }
            Self::Usage(_) | Self::Locked(_) | Self::State { .. } | Self::Io { .. } => {
                vec![self.chain()]
            }
        }
    }

    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => write!(f, "{text}; see `swap --help`"),
            Self::Refused(_) => write!(f, "the order was refused"),
            Self::Locked(path) => {
                write!(f, "another swap is at work and holds `{}`", path.display())
            }
            Self::State { path, line, reason } => {
                write!(f, "could not read `{}`, line {line}: {reason}", path.display())
            }
            Self::Io { doing, path, source: _ } => write!(f, "could not {doing} `{}`", path.display()),
            Self::RolledBack(_) => write!(f, "the change failed and was undone"),
            Self::RollbackFailed { .. } => write!(f, "the change failed and could not be undone"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::RolledBack(cause) | Self::RollbackFailed { cause, .. } => Some(cause),
            Self::Usage(_) | Self::Refused(_) | Self::Locked(_) | Self::State { .. } => None,
        }
    }
}

//! Why a run cannot start, and what is refused because it cannot be had.

use std::io;
use std::path::PathBuf;

use crate::flow::proof::ProofError;
use crate::model::suite::{Host, Isolation, Project};
use crate::os::host::Settings;
use crate::os::interrupt::InterruptError;
use crate::os::journal::JournalError;
use crate::os::sandbox::SandboxError;
use crate::rules::parse::ParseError;
use crate::rules::presence::AppletListError;

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("could not read `{path}`", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "isolation is `container`, and this machine is no container: the suites would change it. Run them in a container, or \
         write `isolation: none` into `{path}` if they touch only their scratch folders",
        path = .0.display()
    )]
    NoContainer(PathBuf),
    #[error("isolation `overlay` is not built yet; `{path}` can say `container` or `none`", path = .0.display())]
    NoOverlay(PathBuf),
    #[error("runner.yaml asks for `sandbox: true`; nothing was run")]
    Sandbox(#[from] SandboxError),
    #[error("no `bash` on PATH; blocks of suites need it: install bash")]
    NoBash,
    #[error("a snapshot of `{looked_at}` would look into `{ours}`, where the harness writes; move one of them (PROOF_DIR)", looked_at = looked_at.display(), ours = ours.display())]
    LooksAtOurs { looked_at: PathBuf, ours: PathBuf },
    #[error("the run in `{path}` has no summary.json that can be read, so nothing can be said of it; run the stages again", path = .0.display())]
    NoSummary(PathBuf),
    #[error(transparent)]
    Applets(#[from] AppletListError),
    #[error("could not make a scratch folder in `{path}`; set TMPDIR to a folder that can be written", path = path.display())]
    Scratch {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
}

impl SessionError {
    /// Tells whether the user's configuration is at fault, not our doing.
    pub(crate) fn is_configuration(&self) -> bool {
        match self {
            Self::Parse(_)
            | Self::Read { .. }
            | Self::NoContainer(_)
            | Self::NoOverlay(_)
            | Self::Sandbox(_)
            | Self::NoBash
            | Self::LooksAtOurs { .. }
            | Self::Proof(ProofError::Others { .. })
            | Self::Applets(_) => true,
            Self::Scratch { .. } | Self::NoSummary(_) | Self::Proof(_) | Self::Journal(_) | Self::Interrupt(_) => false,
        }
    }
}

/// Never weaker than asked, never silently.
///
/// # Errors
/// If the project asks for it.
pub(crate) fn refuse_what_cannot_be_had(
    settings: &Settings,
    host: &Host,
    project: &Project,
) -> Result<(), SessionError> {
    let file = settings.suites_dir.join("runner.yaml");
    match project.isolation {
        Isolation::Container if host.container_id.is_none() => return Err(SessionError::NoContainer(file)),
        Isolation::Overlay => return Err(SessionError::NoOverlay(file)),
        Isolation::Container | Isolation::None => {}
    }
    project.snapshot.iter().try_for_each(|text| refuse_own(settings, text))
}

/// A snapshot that holds our own files would show what we write as the suite's doing.
///
/// # Errors
/// If `text`, a plain path, is the proof folder, or one is in the other.
pub(crate) fn refuse_own(settings: &Settings, text: &str) -> Result<(), SessionError> {
    let looked_at: PathBuf = settings.project_dir.join(text).components().collect();
    if settings.proof_dir.starts_with(&looked_at) || looked_at.starts_with(&settings.proof_dir) {
        return Err(SessionError::LooksAtOurs { looked_at, ours: settings.proof_dir.clone() });
    }
    Ok(())
}

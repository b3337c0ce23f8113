//! The folders that a run works in, and what is left of a run that was killed.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::flow::proof::{EarlierSummary, RunFile};
use crate::model::verdict::Fault;
use crate::os::engine;
use crate::os::workdir;
use crate::rules::summary::Traces;

const PREFIX: &str = "proving-ground.";
const RANDOM_CHARS: usize = 6;

/// Where copies of a set-up are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopiesIn {
    /// Where sandboxed scripts may look. Nobody changes them there, so nothing is won where files are made faster.
    Sandbox,
    /// In memory if they fit there, else on the disk.
    Memory,
    /// In the scratch folder.
    Disk,
}

impl CopiesIn {
    /// Chooses for somebody who may have named a folder for temporary files, and so wants them there.
    pub(crate) fn of(is_sandboxed: bool, temp_dir_is_named: bool) -> Self {
        match (is_sandboxed, temp_dir_is_named) {
            (true, _) => Self::Sandbox,
            (false, false) => Self::Memory,
            (false, true) => Self::Disk,
        }
    }
}

/// A folder of this run alone, and its twin in memory once that is needed. Every process of the run has its name in the
/// environment.
pub(crate) struct Scratch {
    dir: PathBuf,
    next: AtomicUsize,
}

impl Scratch {
    /// Makes a scratch folder in `temp_dir`. It stays until `remove`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn make(temp_dir: &Path) -> io::Result<Self> {
        let made = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM_CHARS).tempdir_in(temp_dir)?;
        Ok(Self { dir: made.keep(), next: AtomicUsize::new(0) })
    }

    /// Takes over the scratch folder that a file names, or what is left of it: only what `make` could have made, and what is ours. The
    /// file may come from anywhere, and what is taken over is going to be removed.
    fn of_killed(dir: &Path) -> Option<Self> {
        let random = dir.file_name()?.to_str()?.strip_prefix(PREFIX)?;
        let is_named_so = random.len() == RANDOM_CHARS && random.chars().all(|c| c.is_ascii_alphanumeric());
        let scratch = Self { dir: dir.to_path_buf(), next: AtomicUsize::new(0) };
        let is_there = scratch.folders().iter().any(|folder| workdir::is_own_folder(folder));
        (is_named_so && dir.is_absolute() && is_there).then_some(scratch)
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// What every process of the run has in its environment: the name that the folder and its twin share.
    pub(crate) fn marker(&self) -> PathBuf {
        self.dir.file_name().map(PathBuf::from).unwrap_or_default()
    }

    /// Makes a new folder in the scratch folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn folder(&self) -> io::Result<PathBuf> {
        self.folder_in(&self.dir)
    }

    /// In the scratch folder: what sandboxed scripts work in.
    pub(crate) fn sandboxed(&self) -> PathBuf {
        self.dir.join("sandboxed")
    }

    /// Makes a new folder for copies of `bytes`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn folder_for_copies(&self, bytes: u64, place: CopiesIn) -> Result<PathBuf, Fault> {
        let made = match (place, workdir::memory_for(bytes)) {
            (CopiesIn::Memory, Some(memory)) => self.folder_in_memory(memory),
            (CopiesIn::Sandbox, _) => self.folder_in(&self.sandboxed()),
            (CopiesIn::Memory, None) | (CopiesIn::Disk, _) => self.folder(),
        };
        made.map_err(|error| Fault::from_text(format!("could not make a folder for copies: {error}")))
    }

    /// Makes a new folder in the twin in `memory`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn folder_in_memory(&self, memory: &Path) -> io::Result<PathBuf> {
        self.folder_in(&memory.join(self.marker()))
    }

    /// Makes a new folder in `parent`, which is in the scratch folder or its twin.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn folder_in(&self, parent: &Path) -> io::Result<PathBuf> {
        let dir = parent.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(dir)
    }

    /// Removes the folder and its twin.
    ///
    /// # Errors
    /// If one of them cannot be removed.
    pub(crate) fn remove(&self) -> Result<(), Fault> {
        // Both, whatever becomes of one.
        let [twin, own] = self.folders().map(|folder| workdir::remove(&folder));
        let path = self.dir.display();
        twin.and(own)
            .map_err(|error| Fault::from_text(format!("could not remove the scratch folder `{path}`: {error}")))
    }

    /// The twin, which may not be there, and the folder.
    fn folders(&self) -> [PathBuf; 2] {
        [Path::new(workdir::MEMORY).join(self.marker()), self.dir.clone()]
    }
}

/// Cleans up after `last`, the run that had the proof folder `dir` last, if it was killed. The folder's lock must be ours, so that no such
/// run is alive.
pub(crate) fn sweep(dir: &Path, last: Option<&RunFile>) -> Option<Traces> {
    let killed = last.filter(|run| run.pid.is_some())?;
    let mut traces = Traces {
        interrupted: EarlierSummary::read(dir).map(|summary| summary.running()).unwrap_or_default(),
        processes: Vec::new(),
        removed: Vec::new(),
        run_id: killed.run_id.clone(),
    };
    if let Some(swept) = sweep_folder(&killed.scratch) {
        traces.processes = swept.processes;
        traces.removed = swept.removed;
    }
    Some(traces)
}

/// What was left of a killed process, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Processes that were still alive, and are no more: pid and command.
    pub(crate) processes: Vec<String>,
    /// Folders and cgroups that are no more.
    pub(crate) removed: Vec<String>,
    /// Folders that could not be removed, and why.
    pub(crate) left: Vec<String>,
}

/// Ends the processes of the scratch folder `dir` whose maker was killed, and removes it. `None` if it is none, or not ours.
pub(crate) fn sweep_folder(dir: &Path) -> Option<Swept> {
    let scratch = Scratch::of_killed(dir)?;
    let found = engine::sweep_traces(&scratch.marker());
    let processes = found.processes.iter().map(|leak| format!("{} {}", leak.pid, leak.command)).collect();
    let mut swept = Swept { processes, removed: found.cgroups, left: Vec::new() };
    for folder in scratch.folders().iter().filter(|folder| workdir::is_own_folder(folder)) {
        match workdir::remove(folder) {
            Ok(()) => swept.removed.push(folder.display().to_string()),
            Err(error) => swept.left.push(format!("could not remove `{}`: {error}", folder.display())),
        }
    }
    Some(swept)
}

/// Returns in one line what `sweep` found.
pub(crate) fn describe(traces: &Traces) -> String {
    format!(
        "run {} was killed while running [{}]; restore has not run to its end, so what that changed may still be there: undo it, or take \
         another machine. Ended {} processes of it, removed [{}]",
        traces.run_id,
        traces.interrupted.join(", "),
        traces.processes.len(),
        traces.removed.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_run_has_made_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let made = Scratch::make(dir.path()).unwrap();
        assert!(Scratch::of_killed(made.path()).is_some());
        std::os::unix::fs::symlink("/etc", dir.path().join("proving-ground.abcdef")).unwrap();
        for name in
            ["precious", "proving-ground.", "proving-ground.abc", "proving-ground.abcde-", "proving-ground.abcdefg"]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
            assert!(Scratch::of_killed(&dir.path().join(name)).is_none(), "{name}");
        }
        assert!(Scratch::of_killed(&dir.path().join("proving-ground.abcdef")).is_none(), "a link");
        assert!(Scratch::of_killed(&dir.path().join("proving-ground.ghijkl")).is_none(), "nothing");
    }

    #[test]
    fn what_is_left_of_a_folder_and_its_twin_is_swept() {
        let memory = Path::new(workdir::MEMORY);
        for is_gone in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let scratch = Scratch::make(dir.path()).unwrap();
            let twin = memory.is_dir().then(|| scratch.folder_in_memory(memory).unwrap());
            if is_gone {
                fs::remove_dir(scratch.path()).unwrap();
            }
            let swept = sweep_folder(scratch.path()).unwrap_or_default();
            let twin = twin.as_ref().map(|twin| twin.parent().unwrap());
            for folder in twin.into_iter().chain((!is_gone).then_some(scratch.path())) {
                assert!(!folder.exists() && swept.removed.contains(&folder.display().to_string()), "{swept:?}");
            }
            assert!(sweep_folder(scratch.path()).is_none(), "nothing is left");
        }
    }

    #[test]
    fn a_folder_and_its_twin_are_removed_together() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::make(dir.path()).unwrap();
        let memory = Path::new(workdir::MEMORY);
        let twin = memory.is_dir().then(|| scratch.folder_in_memory(memory).unwrap());
        let folder = scratch.folder().unwrap();
        scratch.remove().unwrap();
        assert!(!folder.exists() && !scratch.path().exists());
        assert!(twin.is_none_or(|twin| !twin.exists()));
    }
}

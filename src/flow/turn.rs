//! Waiting for one's turn: a proof folder is of one run at a time, and so is a machine that suites change.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::flow::proof::{self, ProofError, RunFile};
use crate::model::suite::Isolation;
use crate::os::host::{Nextest, Settings};
use crate::os::process::{Process, is_alive};

/// How often it is looked whether nextest has ended.
const LOOK: Duration = Duration::from_millis(100);

/// What keeps others out as long as it lives.
pub(super) struct Turn {
    pub(super) folder: Folder,
    _machine: Option<File>,
}

/// A proof folder that nobody else has as long as this lives.
pub(super) struct Folder {
    _lock: File,
    /// The run that had it last, if its `run.json` can be read.
    pub(super) last: Option<RunFile>,
    /// The nextest of whose run this process is a part: the run lives on between two of its processes.
    pub(super) owner: Option<(i32, u64)>,
}

/// Takes the proof folder, and the machine if suites change it, when no other run has them. `say` tells the user of waiting. Of the
/// processes of a nextest run each has the folder for itself, and between two of them it still belongs to their run.
///
/// # Errors
/// If the locks cannot be made.
pub(super) fn take(settings: &Settings, isolation: Isolation, say: &dyn Fn(&str)) -> Result<Turn, ProofError> {
    let folder = take_folder(&settings.proof_dir, settings.nextest.as_ref(), say)?;
    let machine = match isolation {
        Isolation::Container | Isolation::Overlay => {
            Some(proof::lock_machine(|| say("another run changes this machine; waiting for it to end"))?)
        }
        Isolation::None => None,
    };
    Ok(Turn { folder, _machine: machine })
}

/// Takes the proof folder `dir` when no other run has it; `nextest` is that of which this process is a part, if it is.
///
/// # Errors
/// If the lock cannot be made, or if the nextest that started this process has ended meanwhile.
pub(super) fn take_folder(dir: &Path, nextest: Option<&Nextest>, say: &dyn Fn(&str)) -> Result<Folder, ProofError> {
    let own_id = nextest.map(|nextest| &nextest.run_id);
    let owner = nextest.and_then(|_| nextest_above());
    let (mut has_said, mut waits_for) = (false, None);
    loop {
        let waiting = || {
            if !std::mem::replace(&mut has_said, true) {
                say(in_use(dir, own_id));
            }
        };
        let lock = proof::lock(dir, waiting)?;
        if owner.is_some_and(|owner| !is_alive(owner)) {
            // To go on would be to take the folder from whoever has it now.
            return Err(ProofError::Abandoned);
        }
        let last = RunFile::read(dir);
        let Some(run) = last.as_ref().filter(|run| own_id != Some(&run.run_id) && goes_on(run)) else {
            return Ok(Folder { _lock: lock, last, owner });
        };
        drop(lock);
        if waits_for.as_ref() != Some(&run.run_id) {
            say(&format!("nextest run {} uses this proof folder; waiting for it to end", run.run_id));
            waits_for = Some(run.run_id.clone());
        }
        thread::sleep(LOOK);
    }
}

/// Tells whether more processes of a run may come, although none is there.
pub(super) fn goes_on(run: &RunFile) -> bool {
    run.owner.is_some_and(is_alive)
}

fn in_use(dir: &Path, own_id: Option<&String>) -> &'static str {
    match RunFile::read(dir) {
        Some(run) if own_id == Some(&run.run_id) => "another trial of this run is running; waiting for it to end",
        Some(_) | None => "another run uses this proof folder; waiting for it to end",
    }
}

/// Returns the nextest that has started this process. A target runner, such as `sudo`, may stand between.
fn nextest_above() -> Option<(i32, u64)> {
    const GENERATIONS: usize = 16;
    let above = std::iter::successors(Process::parent_of_this(), |process| Process::read(process.parent));
    let mut above = above.take(GENERATIONS);
    above.find(|process| process.command.contains("nextest")).map(|process| process.id())
}

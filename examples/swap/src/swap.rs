//! Carries an order out: all of it, or nothing.
//!
//! At no moment an applet is missing: the backup is a second name of the original (a hard link, so mode, owner, times and
//! content are the original's own), and a finished link is renamed over the target. Going back renames the backup over
//! the link. A crash between any two steps leaves something that `undo` understands.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::cli::{Mode, RootChoice};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::plan::{self, Plan};
use crate::report::Report;
use crate::root::{Access, Root, Seen, metadata};
use crate::state::{Entry, Kind, Lock, Phase, State, sync_folder};

/// Links the applets of `experiments` to their provider.
///
/// # Errors
/// `Usage`, `Refused`, `Locked` and `State` before anything is touched; `RolledBack` after a failure half-way.
pub(crate) fn enable(
    choice: &RootChoice,
    experiments: &[Experiment],
    mode: Mode,
    report: &mut Report,
) -> Result<(), Error> {
    if mode == Mode::DryRun {
        return rehearse(choice, experiments, report);
    }
    let root = Root::open(choice, Access::Change)?;
    root.make_state_dir()?;
    let _lock = Lock::take(&root)?;
    let mut state = recovered(&root, report)?;
    let plan = plan::enable(&root, &state, experiments)?;
    warn(&plan, report);
    link_all(&root, &mut state, &plan.entries)?;
    for entry in &plan.entries {
        report.info(entry.applet, &linked(*entry, "linked"));
    }
    report.info("enable", &format!("{} linked, {} linked before", plan.entries.len(), plan.already));
    Ok(())
}

/// Puts the originals of `experiments` back.
///
/// # Errors
/// As `enable`.
pub(crate) fn disable(choice: &RootChoice, experiments: &[Experiment], report: &mut Report) -> Result<(), Error> {
    let root = Root::open(choice, Access::Change)?;
    if !root.has_state_dir()? {
        report.info("disable", "nothing to do");
        return Ok(());
    }
    let _lock = Lock::take(&root)?;
    let mut state = recovered(&root, report)?;
    let entries = plan::disable(&root, &state, experiments)?;
    if entries.is_empty() {
        report.info("disable", "nothing to do");
        return Ok(());
    }
    restore_all(&root, &mut state, &entries)?;
    for entry in &entries {
        let text = match entry.kind {
            Kind::Replaced => "restored",
            Kind::Added => "removed, there was none before",
        };
        report.info(entry.applet, text);
    }
    report.info("disable", &format!("{} put back", entries.len()));
    Ok(())
}

/// A dry run: looks, takes no lock, leaves no trace.
fn rehearse(choice: &RootChoice, experiments: &[Experiment], report: &mut Report) -> Result<(), Error> {
    let root = Root::open(choice, Access::Read)?;
    let state = State::load(&root)?;
    let unfinished = state.in_phase(Phase::Unfinished).len();
    if unfinished > 0 {
        let text =
            format!("an interrupted change of {unfinished} applets would be undone first, nothing else is known");
        report.info("dry-run", &text);
        return Ok(());
    }
    let plan = plan::enable(&root, &state, experiments)?;
    warn(&plan, report);
    for entry in &plan.entries {
        report.info(entry.applet, &linked(*entry, "would be linked"));
    }
    report.info("dry-run", &format!("{} would be linked, {} linked before", plan.entries.len(), plan.already));
    Ok(())
}

fn warn(plan: &Plan, report: &mut Report) {
    for (applet, experiment) in &plan.lacking {
        report.warn(applet, &format!("`usr/lib/{}` does not provide it, left alone", experiment.provider()));
    }
}

fn linked(entry: Entry, verb: &str) -> String {
    format!("{verb} to {}", Root::link_text(entry.experiment, entry.applet).display())
}

/// Loads the state and undoes what a crash left unfinished.
fn recovered(root: &Root, report: &mut Report) -> Result<State, Error> {
    let mut state = State::load(root)?;
    let unfinished = state.in_phase(Phase::Unfinished);
    if unfinished.is_empty() {
        return Ok(state);
    }
    for entry in unfinished {
        undo(root, entry)?;
        state.remove(entry.applet);
        report.info(entry.applet, "an interrupted change was undone");
    }
    sync_folder(&root.bin())?;
    state.save(root)?;
    Ok(state)
}

fn link_all(root: &Root, state: &mut State, entries: &[Entry]) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(());
    }
    mark(root, state, entries, Phase::Unfinished)?;
    let linked = entries.iter().try_for_each(|entry| install(root, *entry));
    let Err(cause) = linked.and_then(|()| mark(root, state, entries, Phase::Linked)) else {
        return Ok(());
    };
    let undone = entries.iter().rev().try_for_each(|entry| undo(root, *entry));
    Err(rolled_back(cause, undone.and_then(|()| forget(root, state, entries))))
}

fn restore_all(root: &Root, state: &mut State, entries: &[Entry]) -> Result<(), Error> {
    mark(root, state, entries, Phase::Unfinished)?;
    for (done, entry) in entries.iter().enumerate() {
        if let Err(cause) = undo(root, *entry) {
            let redone = entries[..done].iter().rev().try_for_each(|entry| install(root, *entry));
            return Err(rolled_back(cause, redone.and_then(|()| mark(root, state, entries, Phase::Linked))));
        }
    }
    forget(root, state, entries)
}

fn rolled_back(cause: Error, undone: Result<(), Error>) -> Error {
    let cause = Box::new(cause);
    match undone {
        Ok(()) => Error::RolledBack(cause),
        Err(undo) => Error::RollbackFailed { cause, undo: Box::new(undo) },
    }
}

/// Writes `entries` down as being in `phase`; what was done to them before is on the disk first.
fn mark(root: &Root, state: &mut State, entries: &[Entry], phase: Phase) -> Result<(), Error> {
    sync_folder(&root.bin())?;
    for entry in entries {
        state.put(*entry, phase);
    }
    state.save(root)
}

fn forget(root: &Root, state: &mut State, entries: &[Entry]) -> Result<(), Error> {
    sync_folder(&root.bin())?;
    for entry in entries {
        state.remove(entry.applet);
    }
    state.save(root)
}

fn install(root: &Root, entry: Entry) -> Result<(), Error> {
    let target = root.target(entry.applet);
    let text = Root::link_text(entry.experiment, entry.applet);
    if entry.kind == Kind::Added {
        return symlink(&text, &target).map_err(Error::io("make the link", &target));
    }
    let backup = root.backup(entry.applet);
    fs::hard_link(&target, &backup).map_err(Error::io("make the backup", &backup))?;
    let fresh = root.fresh_link(entry.applet);
    symlink(&text, &fresh).map_err(Error::io("make the link", &fresh))?;
    fs::rename(&fresh, &target).map_err(Error::io("replace", &target))
}

/// Goes back to the original from wherever `install` or an earlier `undo` came to; doing it twice is harmless.
fn undo(root: &Root, entry: Entry) -> Result<(), Error> {
    remove_if_link(root, entry.applet)?;
    let target = root.target(entry.applet);
    let seen = root.look(entry.experiment, entry.applet)?;
    if entry.kind == Kind::Added {
        return match seen {
            Seen::Ours => fs::remove_file(&target).map_err(Error::io("remove", &target)),
            Seen::Missing | Seen::ForeignLink(_) | Seen::File(_) | Seen::Other => Ok(()),
        };
    }
    let backup = root.backup(entry.applet);
    let Some(original) = metadata(&backup)? else {
        return match seen {
            Seen::Ours | Seen::Missing => {
                Err(Error::refused(entry.applet, format!("its backup `{}` is lost", backup.display())))
            }
            Seen::ForeignLink(_) | Seen::File(_) | Seen::Other => Ok(()),
        };
    };
    match seen {
        Seen::Ours | Seen::Missing => fs::rename(&backup, &target).map_err(Error::io("restore", &target)),
        // Two names of one file: rename would do nothing and succeed.
        Seen::File(now) if (now.dev(), now.ino()) == (original.dev(), original.ino()) => {
            fs::remove_file(&backup).map_err(Error::io("remove", &backup))
        }
        Seen::ForeignLink(_) | Seen::File(_) | Seen::Other => {
            let reason = format!("was replaced by somebody else; its original is `{}`", backup.display());
            Err(Error::refused(entry.applet, reason))
        }
    }
}

fn remove_if_link(root: &Root, applet: &str) -> Result<(), Error> {
    let fresh = root.fresh_link(applet);
    match metadata(&fresh)? {
        Some(metadata) if metadata.is_symlink() => fs::remove_file(&fresh).map_err(Error::io("remove", &fresh)),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testroot::TestRoot;

    fn plan(root: &Root, state: &State) -> Vec<Entry> {
        plan::enable(root, state, &[Experiment::Coreutils]).unwrap().entries
    }

    #[test]
    fn a_failure_half_way_through_enable_undoes_everything() {
        let test = TestRoot::new("rollback-enable");
        let before = test.listing();
        let root = test.open();
        root.make_state_dir().unwrap();
        let mut state = State::default();
        let entries = plan(&root, &state);
        fs::create_dir(root.fresh_link("wc")).unwrap();
        let error = link_all(&root, &mut state, &entries).unwrap_err();
        assert!(matches!(error, Error::RolledBack(_)), "{error:?}");
        fs::remove_dir(root.fresh_link("wc")).unwrap();
        assert_eq!(test.listing(), before);
        assert_eq!(State::load(&root).unwrap(), State::default());
    }

    #[test]
    fn a_failure_half_way_through_disable_links_everything_again() {
        let test = TestRoot::new("rollback-disable");
        let root = test.open();
        root.make_state_dir().unwrap();
        let mut state = State::default();
        let entries = plan(&root, &state);
        link_all(&root, &mut state, &entries).unwrap();
        let enabled = test.listing();
        let hidden = test.path("hidden");
        fs::rename(root.backup("wc"), &hidden).unwrap();
        let error = restore_all(&root, &mut state, &entries).unwrap_err();
        assert!(matches!(error, Error::RolledBack(_)), "{error:?}");
        fs::rename(&hidden, root.backup("wc")).unwrap();
        assert_eq!(test.listing(), enabled);
        assert_eq!(State::load(&root).unwrap().in_phase(Phase::Linked).len(), entries.len());
    }

    /// Stops `install` after each of its steps, as a crash would.
    #[test]
    fn undo_understands_every_place_where_a_crash_can_stop() {
        for steps in 0..=3 {
            let test = TestRoot::new("crash");
            let before = test.listing();
            let root = test.open();
            let entry = plan(&root, &State::default()).into_iter().find(|entry| entry.applet == "ls").unwrap();
            if steps >= 1 {
                fs::hard_link(root.target("ls"), root.backup("ls")).unwrap();
            }
            if steps >= 2 {
                symlink(Root::link_text(entry.experiment, "ls"), root.fresh_link("ls")).unwrap();
            }
            if steps >= 3 {
                fs::rename(root.fresh_link("ls"), root.target("ls")).unwrap();
            }
            undo(&root, entry).unwrap();
            assert_eq!(test.listing(), before, "after {steps} steps");
            undo(&root, entry).unwrap();
            assert_eq!(test.listing(), before, "undone twice after {steps} steps");
        }
    }

    #[test]
    fn undo_never_overwrites_what_somebody_else_put_there() {
        let test = TestRoot::new("foreign");
        let root = test.open();
        let entry = plan(&root, &State::default()).into_iter().find(|entry| entry.applet == "ls").unwrap();
        install(&root, entry).unwrap();
        fs::remove_file(root.target("ls")).unwrap();
        fs::write(root.target("ls"), "an upgrade").unwrap();
        assert!(undo(&root, entry).is_err());
        assert_eq!(fs::read_to_string(root.target("ls")).unwrap(), "an upgrade");
    }
}

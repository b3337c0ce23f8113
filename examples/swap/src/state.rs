//! What was done: one line for each swapped applet, and the lock that keeps two orders apart.
//!
//! The file is the journal. Before anything is touched, every applet of an order is written down as `unfinished`;
//! only when all of them are in place they become `linked`. An order that finds `unfinished` lines was preceded by a
//! crash and undoes them first. Enabling and disabling need no second word: both are repaired by going back.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::experiment::Experiment;
use crate::root::Root;

const HEADER: &str = "swap-state 1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) phase: Phase,
    pub(crate) kind: Kind,
    pub(crate) experiment: Experiment,
    pub(crate) applet: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Unfinished,
    Linked,
}

/// What stood at the target's place before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file, which is the backup now.
    Replaced,
    /// Nothing.
    Added,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    entries: BTreeMap<&'static str, Entry>,
}

impl State {
    pub(crate) fn get(&self, applet: &str) -> Option<Entry> {
        self.entries.get(applet).copied()
    }

    pub(crate) fn put(&mut self, entry: Entry, phase: Phase) {
        self.entries.insert(entry.applet, Entry { phase, ..entry });
    }

    pub(crate) fn remove(&mut self, applet: &str) {
        self.entries.remove(applet);
    }

    /// Returns the entries of one phase, in byte order of their applets.
    pub(crate) fn in_phase(&self, phase: Phase) -> Vec<Entry> {
        self.entries.values().copied().filter(|entry| entry.phase == phase).collect()
    }

    /// Reads the state; a file that is not there is an empty state.
    ///
    /// # Errors
    /// `State` with the line that is not ours, `Io`.
    pub(crate) fn load(root: &Root) -> Result<Self, Error> {
        if !root.has_state_dir()? {
            return Ok(Self::default());
        }
        let path = file(root);
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text).map_err(|(line, reason)| Error::State { path, line, reason }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Writes the state so that a crash leaves the old or the new one, and returns when it is on the disk.
    ///
    /// # Errors
    /// `Io`; the old state is still there.
    pub(crate) fn save(&self, root: &Root) -> Result<(), Error> {
        let path = file(root);
        let fresh = root.state_dir().join("state.new");
        let mut stream = File::create(&fresh).map_err(Error::io("create", &fresh))?;
        stream.write_all(self.text().as_bytes()).map_err(Error::io("write", &fresh))?;
        stream.sync_all().map_err(Error::io("sync", &fresh))?;
        fs::rename(&fresh, &path).map_err(Error::io("replace", &path))?;
        sync_folder(&root.state_dir())
    }

    fn text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for entry in self.entries.values() {
            let phase = match entry.phase {
                Phase::Unfinished => "unfinished",
                Phase::Linked => "linked",
            };
            let kind = match entry.kind {
                Kind::Replaced => "replaced",
                Kind::Added => "added",
            };
            text.push_str(&format!("{phase} {kind} {} {}\n", entry.experiment.name(), entry.applet));
        }
        text
    }
}

/// Held while an order changes anything; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    /// `Locked` at once, without waiting, if another order holds it.
    pub(crate) fn take(root: &Root) -> Result<Self, Error> {
        let path = root.state_dir().join("lock");
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(path)),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }
}

/// Makes renames in `folder` survive a power cut.
///
/// # Errors
/// `Io`.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    let opened = File::open(folder).map_err(Error::io("open", folder))?;
    opened.sync_all().map_err(Error::io("sync", folder))
}

fn file(root: &Root) -> PathBuf {
    root.state_dir().join("state")
}

fn parse(text: &str) -> Result<State, (usize, String)> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err((1, format!("it does not begin with `{HEADER}`")));
    }
    let mut state = State::default();
    for (index, line) in lines.enumerate() {
        let entry = parse_entry(line).ok_or_else(|| (index + 2, format!("`{line}` is not an entry")))?;
        state.put(entry, entry.phase);
    }
    Ok(state)
}

/// Takes only names that an experiment really has, so that no state file can point anywhere else.
fn parse_entry(line: &str) -> Option<Entry> {
    let words: Vec<&str> = line.split(' ').collect();
    let [phase, kind, experiment, applet] = words[..] else {
        return None;
    };
    let phase = match phase {
        "unfinished" => Phase::Unfinished,
        "linked" => Phase::Linked,
        _ => return None,
    };
    let kind = match kind {
        "replaced" => Kind::Replaced,
        "added" => Kind::Added,
        _ => return None,
    };
    let experiment = Experiment::named(experiment)?;
    let applet = experiment.applets().iter().copied().find(|known| *known == applet)?;
    Some(Entry { phase, kind, experiment, applet })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testroot::TestRoot;

    const LS: Entry =
        Entry { phase: Phase::Linked, kind: Kind::Replaced, experiment: Experiment::Coreutils, applet: "ls" };

    #[test]
    fn what_is_saved_is_loaded() {
        let test = TestRoot::new("state-round");
        let root = test.open();
        root.make_state_dir().unwrap();
        let mut state = State::default();
        state.put(LS, Phase::Unfinished);
        state.put(Entry { kind: Kind::Added, applet: "wc", ..LS }, Phase::Linked);
        state.save(&root).unwrap();
        assert_eq!(State::load(&root).unwrap(), state);
    }

    #[test]
    fn a_state_that_is_not_ours_is_an_error_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("something else\n", 1),
            ("swap-state 1\nlinked replaced coreutils ls\nlinked replaced coreutils ../../etc/passwd\n", 3),
            ("swap-state 1\nlinked replaced coreutils find\n", 2),
            ("swap-state 1\nlinked replaced coreutils\n", 2),
            ("swap-state 1\nlinked  replaced coreutils ls\n", 2),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text:?}");
        }
    }

    #[test]
    fn the_second_lock_is_refused_at_once() {
        let test = TestRoot::new("lock");
        let root = test.open();
        root.make_state_dir().unwrap();
        let first = Lock::take(&root).unwrap();
        assert!(matches!(Lock::take(&root), Err(Error::Locked(_))));
        drop(first);
        assert!(Lock::take(&root).is_ok());
    }
}

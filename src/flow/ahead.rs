//! Result files and folders that are made before their trials run. To make a file takes a disk longer than to fill it, so a thread
//! makes those of the next trials while earlier ones run. Nothing depends on it: what is not there yet when it is wanted is made
//! by whoever wants it, who also meets the error if it cannot be made. For a single trial a thread costs more than it saves; the one
//! who waits for the trial's script makes its place meanwhile.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::os::disk::{Prepared, let_others_go_first};

/// Files that are made and not taken; each holds a descriptor.
const AHEAD_MAX: usize = 32;
/// The thread is woken when so few are left, not for each: to wake it costs about as much as it saves.
const AHEAD_MIN: usize = AHEAD_MAX / 2;

/// What is made ahead of one trial.
#[derive(Clone)]
pub(super) struct Place {
    /// To be taken, and filled.
    pub(super) file: PathBuf,
    /// To hold files that are made later.
    pub(super) folder: Option<PathBuf>,
}

/// Makes places ahead, in order.
pub(super) struct Ahead {
    root: PathBuf,
    shared: Arc<Shared>,
    maker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    has_room: Condvar,
}

#[derive(Default)]
struct State {
    to_make: VecDeque<Place>,
    in_the_making: Option<PathBuf>,
    made: VecDeque<(PathBuf, Prepared)>,
    folders: Vec<PathBuf>,
}

impl Ahead {
    /// Starts to make `places`, all of them somewhere in the folder `root`.
    pub(super) fn start(root: PathBuf, places: impl Iterator<Item = Place>) -> Self {
        let state = State { to_make: places.collect(), ..State::default() };
        let deserve_a_thread = state.to_make.len() > 1;
        let shared = Arc::new(Shared { state: Mutex::new(state), has_room: Condvar::new() });
        let makers = Arc::clone(&shared);
        let make_all = move || {
            let_others_go_first();
            makers.make_all();
        };
        // Without a thread to be had, nothing is made ahead.
        let maker = deserve_a_thread.then(|| Builder::new().name("ahead".into()).spawn(make_all).ok()).flatten();
        Self { root, shared, maker }
    }

    /// Makes what no thread makes.
    pub(super) fn help(&self) {
        if self.maker.is_none() {
            self.shared.make_all();
        }
    }

    /// Returns the file at `path`, if it is made. It is not made after this.
    pub(super) fn take(&self, path: &Path) -> Option<Prepared> {
        let mut state = self.shared.state();
        let Some(at) = state.made.iter().position(|(made, _)| made == path) else {
            state.to_make.retain(|place| place.file != path);
            state.in_the_making.take_if(|file| file == path);
            return None;
        };
        let (_, file) = state.made.remove(at)?;
        if state.made.len() <= AHEAD_MIN {
            self.shared.has_room.notify_one();
        }
        Some(file)
    }
}

impl Drop for Ahead {
    /// Removes what was not used, with the folders above it.
    fn drop(&mut self) {
        self.shared.state().to_make.clear();
        self.shared.has_room.notify_one();
        // A maker that broke down has made less; that is all.
        self.maker.take().map(JoinHandle::join);
        let State { made, folders, .. } = std::mem::take(&mut *self.shared.state());
        let of_files = made.into_iter().filter_map(|(path, file)| {
            drop(file);
            path.parent().map(Path::to_path_buf)
        });
        for folder in of_files.chain(folders) {
            // One that holds something stays, and so do those above it.
            let with_parents = folder.ancestors().take_while(|folder| *folder != self.root);
            with_parents.map(fs::remove_dir).take_while(Result::is_ok).for_each(drop);
        }
    }
}

impl Shared {
    fn make_all(&self) {
        while let Some(Place { file: path, folder }) = self.next() {
            let file = Prepared::new(&path);
            let folder = folder.filter(|folder| fs::create_dir_all(folder).is_ok());
            let mut state = self.state();
            state.folders.extend(folder);
            // Whoever came for it meanwhile has made it himself.
            if state.in_the_making.take().is_some()
                && let Ok(file) = file
            {
                state.made.push_back((path, file));
            }
        }
    }

    /// Waits until there is room for one more. `None`: all are made.
    fn next(&self) -> Option<Place> {
        let is_full = |state: &mut State| state.made.len() >= AHEAD_MAX && !state.to_make.is_empty();
        let mut state = self.has_room.wait_while(self.state(), is_full).unwrap_or_else(PoisonError::into_inner);
        let place = state.to_make.pop_front()?;
        state.in_the_making = Some(place.file.clone());
        Some(place)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so a panic elsewhere leaves lists that are true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn place(root: &Path, name: &str) -> Place {
        let folder = Some(root.join("snapshots").join(name));
        Place { file: root.join("results").join(name).join("result.json"), folder }
    }

    fn started(root: &Path, names: &[&str]) -> Ahead {
        Ahead::start(root.to_owned(), names.iter().map(|name| place(root, name)))
    }

    /// Waits until the file is there to be taken.
    fn wait_for(ahead: &Ahead, path: &Path) {
        let until = Instant::now() + Duration::from_secs(60);
        while !ahead.shared.state().made.iter().any(|(made, _)| made == path) {
            assert!(Instant::now() < until, "{} is not made", path.display());
            std::thread::yield_now();
        }
    }

    fn entries(root: &Path) -> Vec<PathBuf> {
        let walk = walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name();
        walk.into_iter().map(|entry| entry.unwrap().path().strip_prefix(root).unwrap().to_owned()).collect()
    }

    #[test]
    fn a_file_that_is_made_can_be_taken_and_filled() {
        let dir = tempfile::tempdir().unwrap();
        let ahead = started(dir.path(), &["set/a", "set/b"]);
        let path = place(dir.path(), "set/a").file;
        wait_for(&ahead, &path);
        ahead.take(&path).unwrap().write(b"a").unwrap();
        assert!(ahead.take(&path).is_none());
        assert_eq!(fs::read(&path).unwrap(), b"a");
    }

    #[test]
    fn what_was_not_used_is_removed_with_its_folders_and_what_was_used_stays() {
        let dir = tempfile::tempdir().unwrap();
        let ahead = started(dir.path(), &["set/a", "set/b"]);
        let [a, b] = ["set/a", "set/b"].map(|name| place(dir.path(), name).file);
        wait_for(&ahead, &b);
        ahead.take(&a).unwrap().write(b"a").unwrap();
        drop(ahead);
        let left = ["results", "results/set", "results/set/a", "results/set/a/result.json"];
        assert_eq!(entries(dir.path()), left.map(PathBuf::from));
    }

    #[test]
    fn only_so_many_are_made_ahead_and_the_rest_as_they_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..4 * AHEAD_MAX).map(|number| format!("{number:03}")).collect();
        let ahead = started(dir.path(), &names.iter().map(String::as_str).collect::<Vec<_>>());
        for name in &names {
            let path = place(dir.path(), name).file;
            wait_for(&ahead, &path);
            assert!(ahead.shared.state().made.len() <= AHEAD_MAX);
            assert!(ahead.take(&path).is_some(), "{name}");
        }
    }

    #[test]
    fn what_is_wanted_before_it_is_made_is_left_to_who_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..=AHEAD_MAX).map(|number| format!("{number:03}")).collect();
        let ahead = started(dir.path(), &names.iter().map(String::as_str).collect::<Vec<_>>());
        wait_for(&ahead, &place(dir.path(), &names[AHEAD_MAX - 1]).file);
        let last = place(dir.path(), &names[AHEAD_MAX]).file;
        assert!(ahead.take(&last).is_none());
        Prepared::new(&last).unwrap().write(b"last").unwrap();
        for name in &names[..AHEAD_MAX] {
            assert!(ahead.take(&place(dir.path(), name).file).is_some());
        }
        drop(ahead);
        assert_eq!(entries(&dir.path().join("results").join(&names[AHEAD_MAX])), ["result.json"].map(PathBuf::from));
    }

    #[test]
    fn a_single_place_is_made_by_whoever_has_time() {
        let dir = tempfile::tempdir().unwrap();
        let ahead = started(dir.path(), &["a"]);
        let Place { file, folder } = place(dir.path(), "a");
        assert!(!file.exists());
        ahead.help();
        assert!(folder.unwrap().is_dir());
        ahead.take(&file).unwrap().write(b"a").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"a");
    }

    #[test]
    fn where_nothing_can_be_made_nothing_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("results"), "a file").unwrap();
        let ahead = started(dir.path(), &["a", "b"]);
        drop(ahead);
        assert_eq!(fs::read(dir.path().join("results")).unwrap(), b"a file");
    }
}

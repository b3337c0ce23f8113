//! What happened to a copy (inotify(7)).

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use crate::os::engine::is_ours_alone;

/// Watches every file and folder of a copy.
pub(super) struct Watch {
    inotify: Inotify,
    watched: HashMap<WatchDescriptor, Watched>,
}

struct Watched {
    path: PathBuf,
    is_dir: bool,
}

impl Watch {
    /// `None` where the user's watches or instances are used up.
    pub(super) fn of(dir: &Path) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        let mut watch = Self { inotify, watched: HashMap::new() };
        watch.add(dir, Path::new("")).then_some(watch)
    }

    /// Watches `path`, and what is in it. Symbolic links need no watch of their own: their folder's tells.
    pub(super) fn add(&mut self, dir: &Path, path: &Path) -> bool {
        walkdir::WalkDir::new(dir.join(path)).into_iter().all(|entry| {
            let Ok(entry) = entry else { return false };
            let Ok(relative) = entry.path().strip_prefix(dir) else { return false };
            if entry.file_type().is_symlink() {
                return true;
            }
            let is_dir = entry.file_type().is_dir();
            let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_CLOSE_WRITE;
            let moves = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
            let ends = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
            let flags = changes | ends | if is_dir { moves } else { AddWatchFlags::IN_OPEN };
            let added = self.inotify.add_watch(entry.path(), flags);
            added.map(|id| self.watched.insert(id, Watched { path: relative.to_path_buf(), is_dir })).is_ok()
        })
    }

    /// Ends it without waiting.
    pub(super) fn let_go(self) {
        // If it is not sent, it is closed here and now.
        send_to_nobody(&self.inotify).ok();
    }

    /// Returns the paths below the copy, which is at `dir`, to which something happened; `None` if that cannot be told.
    pub(super) fn changes(&mut self, dir: &Path) -> Option<BTreeSet<PathBuf>> {
        let (mut changed, mut opened) = (BTreeSet::new(), BTreeSet::new());
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        let path = self.changed_path(&event)?;
                        let paths = if event.mask == AddWatchFlags::IN_OPEN { &mut opened } else { &mut changed };
                        paths.extend(path);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => return None,
            }
        }
        // What was written through a mapping is told when the file is closed: one that somebody still has open, as a descriptor
        // that is under way in a socket, may have been changed without a word.
        let mut unchanged = opened.difference(&changed);
        let is_told = unchanged.all(|path| File::open(dir.join(path)).is_ok_and(|file| is_ours_alone(&file)));
        // Of our own looks.
        (is_told && (opened.is_empty() || self.forget())).then_some(changed)
    }

    /// `Some(None)`: nothing that needs repair. `None`: it cannot be told.
    fn changed_path(&mut self, event: &InotifyEvent) -> Option<Option<PathBuf>> {
        let has = |flags| event.mask.intersects(flags);
        if has(AddWatchFlags::IN_Q_OVERFLOW | AddWatchFlags::IN_UNMOUNT) {
            return None;
        }
        if has(AddWatchFlags::IN_IGNORED) {
            self.watched.remove(&event.wd);
            return Some(None);
        }
        // Of a file that was replaced before; its successor has a watch of its own.
        let Some(watched) = self.watched.get(&event.wd) else { return Some(None) };
        let path = match &event.name {
            Some(name) => watched.path.join(name),
            None if watched.is_dir => return None,
            None => watched.path.clone(),
        };
        // A new folder is only removed. One of the original's is more than one path.
        let is_originals = has(AddWatchFlags::IN_ISDIR) && self.watched.values().any(|other| other.path == path);
        if is_originals { None } else { Some(Some(path)) }
    }

    /// Passes over the events of our own repairs. `false` if that cannot be told from more.
    pub(super) fn forget(&mut self) -> bool {
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                            self.watched.remove(&event.wd);
                        } else if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                            return false;
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return errno == Errno::EAGAIN,
            }
        }
    }
}

/// Has the kernel close a descriptor of ours in its own time, once we have closed it: to close an inotify instance takes up to 20
/// ms, for which the process, too, would wait when it exits. What is on its way through a socket that only itself could be
/// received from belongs to nobody, and is closed by a worker of the kernel (unix(7); since Linux 6.10, before that at once).
fn send_to_nobody(file: impl AsFd) -> nix::Result<()> {
    let (from, to) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
    let fds = [file.as_fd().as_raw_fd(), to.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(from.as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn watches_that_were_let_go_can_be_had_again() {
        let _all = crate::os::workdir::tests::watches();
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let until = Instant::now() + Duration::from_secs(120);
        let mut let_go = 0;
        while let_go < (2 * limit).min(1000) {
            assert!(Instant::now() < until, "only {let_go} watches were to be had");
            match Watch::of(dir.path()) {
                Some(watch) => {
                    watch.let_go();
                    let_go += 1;
                }
                None => std::thread::yield_now(),
            }
        }
    }
}

//! Locks between threads and between processes: flock(2) on a descriptor of their own.

use std::fs::{File, TryLockError};
use std::io;

/// A locked file or folder. The kernel ends the lock with the process, however that ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Waits until nobody else has it.
    ///
    /// # Errors
    /// If the file system has no locks.
    pub(super) fn exclusive(file: File) -> io::Result<Self> {
        file.lock().map(|()| Self(file))
    }

    /// Takes it if nobody has it; else returns the file.
    ///
    /// # Errors
    /// As `exclusive`.
    pub(super) fn try_exclusive(file: File) -> io::Result<Result<Self, File>> {
        let locked = file.try_lock();
        Self::taken(file, locked)
    }

    /// Takes it with others, if nobody has it alone; else returns the file.
    ///
    /// # Errors
    /// As `exclusive`.
    pub(super) fn try_shared(file: File) -> io::Result<Result<Self, File>> {
        let locked = file.try_lock_shared();
        Self::taken(file, locked)
    }

    fn taken(file: File, locked: Result<(), TryLockError>) -> io::Result<Result<Self, File>> {
        match locked {
            Ok(()) => Ok(Ok(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(Err(file)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The locked file.
    pub(super) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that is just being started has copies of our descriptors for a moment: closing ours alone would not unlock it.
        self.0.unlock().ok();
    }
}

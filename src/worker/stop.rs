//! A flag that ends waits.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Says to everyone who waits that it is time to end. Clones share one flag, and nothing takes it back.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<Flag>);

/// The flag, and those who sleep until it is set.
#[derive(Debug, Default)]
struct Flag {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Sets the flag and wakes everyone who waits for it.
    pub(super) fn set(&self) {
        *self.lock() = true;
        self.0.changed.notify_all();
    }

    /// Whether the flag was set.
    pub(super) fn is_set(&self) -> bool {
        *self.lock()
    }

    /// Sleeps for `time` or until the flag is set; returns whether it is set.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let waited = self.0.changed.wait_timeout_while(self.lock(), time, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// A flag is whole whatever became of the thread that held it.
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.0.is_set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_wait_ends_by_itself_or_by_the_flag() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::from_millis(1)), "nobody has set it");
        let sleeper = thread::spawn({
            let stop = stop.clone();
            // Longer than any test may take: only the flag can end this.
            move || stop.wait(Duration::from_secs(3600))
        });
        stop.set();
        assert!(sleeper.join().unwrap());
        assert!(stop.is_set() && stop.wait(Duration::from_secs(3600)), "a set flag stays set");
    }
}

//! Slots that wait for scripts: as many as scripts run at once.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::enclosure::Enclosure;
use super::slot::Slot;
use super::{Cancel, EngineError, LIMIT_MAX};
use crate::model::script::{Completion, Script, SignalReach};

/// Slots of one kind: behind walls, or without.
#[derive(Default)]
pub(in crate::os) struct Pool {
    enclosure: Option<Arc<Enclosure>>,
    slots: Mutex<Vec<Slot>>,
    /// Those that are told to end.
    dismissed: Mutex<Vec<Slot>>,
    /// Scripts that run now.
    running: AtomicUsize,
}

/// A script that has run.
pub(in crate::os) struct Ran {
    pub(in crate::os) completion: Completion,
    /// Its work folder as it left it, if it is kept and lies elsewhere.
    pub(in crate::os) work_dir: Option<OwnedFd>,
}

impl Pool {
    /// A pool whose scripts run behind walls.
    pub(in crate::os) fn enclosed(enclosure: Enclosure) -> Self {
        Self { enclosure: Some(Arc::new(enclosure)), ..Self::default() }
    }

    /// Starts a slot that waits for the first script.
    pub(in crate::os) fn warm_up(&self, signals: SignalReach) {
        if let Ok(slot) = self.new_slot(signals) {
            lock(&self.slots).push(slot);
        }
    }

    /// Has those that wait end, while the caller does something else.
    pub(in crate::os) fn dismiss(&self) {
        let idle = std::mem::take(&mut *lock(&self.slots));
        idle.iter().for_each(Slot::dismiss);
        lock(&self.dismissed).extend(idle);
    }

    /// As `ScriptRunner::run_while`.
    ///
    /// # Errors
    /// As `ScriptRunner::run`.
    pub(in crate::os) fn run(
        &self,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Ran, EngineError> {
        check_limits(script)?;
        // A script with the right to do so may have killed the supervisors that wait for work.
        while let Some(slot) = self.idle(script.signals) {
            if let Some(ran) = self.run_in(slot, script, cancel, meanwhile)? {
                return Ok(ran);
            }
        }
        let ran = self.run_in(self.new_slot(script.signals)?, script, cancel, meanwhile)?;
        ran.ok_or_else(|| EngineError::System("reach a new supervisor", std::io::ErrorKind::BrokenPipe.into()))
    }

    fn new_slot(&self, signals: SignalReach) -> Result<Slot, EngineError> {
        Slot::new(signals, self.enclosure.clone())
    }

    /// Returns a slot that can be used, if there is one; those whose helpers were killed while they were idle are dropped.
    fn idle(&self, signals: SignalReach) -> Option<Slot> {
        loop {
            let slot = {
                let mut slots = lock(&self.slots);
                let at = slots.iter().position(|slot| slot.signals == signals)?;
                slots.swap_remove(at)
            };
            if slot.is_whole() {
                return Some(slot);
            }
        }
    }

    /// `None`: the supervisor was killed before it took the script.
    ///
    /// # Errors
    /// As `ScriptRunner::run`.
    fn run_in(
        &self,
        mut slot: Slot,
        script: &Script,
        cancel: &Cancel,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Option<Ran>, EngineError> {
        let others = self.running.fetch_add(1, Ordering::Relaxed);
        let _one_less = OneLess(&self.running);
        slot.lingers = others == 0 && has_several_processors();
        let result = slot.run(script, cancel, meanwhile);
        if slot.is_usable {
            lock(&self.slots).push(slot);
        }
        result
    }
}

fn lock(slots: &Mutex<Vec<Slot>>) -> MutexGuard<'_, Vec<Slot>> {
    // A panic elsewhere cannot leave a Vec of slots half-changed.
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts down when it goes, after a panic too.
struct OneLess<'a>(&'a AtomicUsize);

impl Drop for OneLess<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// With one, whoever stays awake keeps him from working for whom he waits.
fn has_several_processors() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let ours = sched_getaffinity(Pid::from_raw(0));
        ours.is_ok_and(|set| (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).nth(1).is_some())
    })
}

/// # Errors
/// If a limit is zero or longer than `LIMIT_MAX`.
fn check_limits(script: &Script) -> Result<(), EngineError> {
    let limits = script.limits;
    for (name, given) in [("wall", limits.wall), ("grace", limits.grace), ("drain", limits.drain)] {
        if given.is_zero() || given > LIMIT_MAX {
            return Err(EngineError::Limit { name, given });
        }
    }
    Ok(())
}

//! The trials, one after another, without a test library.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::flow::plan::{Keeping, Plan};
use crate::flow::session::Session;
use crate::flow::trial::{Judged, panic_fault};
use crate::model::verdict::Fault;
use crate::rules::summary::Counts;

/// How far the trials are.
pub(crate) enum Progress<'a> {
    /// One begins.
    Begun {
        /// From 1.
        number: usize,
        of: usize,
        name: &'a str,
    },
    /// It is judged.
    Judged(&'a Judged),
}

/// Runs every trial of the plan, and returns how many ended how.
///
/// # Errors
/// If that cannot be recorded, and on a bug of ours between two trials.
pub(crate) fn run(session: &Session, plan: &Plan, progress: &dyn Fn(Progress<'_>)) -> Result<Counts, Fault> {
    let started = Instant::now();
    session.begin_suites()?;
    let ran = catch_unwind(AssertUnwindSafe(|| run_each(session, plan, progress)));
    let ran = ran.map_err(|panic| panic_fault(panic.as_ref()));
    let ended = session.end_suites(started.elapsed(), ran.as_ref().err().map(ToString::to_string));
    ran.and(ended)?;
    Ok(session.proof.counts())
}

fn run_each(session: &Session, plan: &Plan, progress: &dyn Fn(Progress<'_>)) {
    let running = plan.announce(session, Keeping::AtOnce);
    for (at, trial) in plan.trials.iter().enumerate() {
        progress(Progress::Begun { number: at + 1, of: plan.trials.len(), name: trial.name() });
        let judged = trial.run(session, running.get(at + 1));
        progress(Progress::Judged(&judged));
    }
}

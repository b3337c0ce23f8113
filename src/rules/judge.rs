//! Evidence -> verdict: every reason to fail, not only the first.

use std::time::Duration;

use crate::model::script::{Completion, EndedBy, Exit};
use crate::model::snapshot::Change;
use crate::model::suite::{Expect, Host, Presence, PresenceClaim, PresenceOrigin, Project, RestoreCheck, Suite};
use crate::model::verdict::{BlockName, Evidence, Fault, Finding, Phase};

/// Returns why a suite may not run on this host, if it may not. It then fails: nothing is skipped.
pub(crate) fn refuse(suite: &Suite, project: &Project, host: &Host) -> Option<Finding> {
    let Presence { claim, origin } = suite.presence;
    if origin == PresenceOrigin::Declared && claim != PresenceClaim::None && project.presence.is_none() {
        let text = "`presence` is claimed, and runner.yaml has no `presence` to judge it by; write it, or claim `none`";
        return Some(Finding::Invalid(text.to_owned()));
    }
    let gates = [&project.distros, &suite.distro_check];
    let closed = gates.into_iter().flatten().find(|gate| !gate.admits(&host.distro))?;
    Some(Finding::Distro { distro: host.distro.clone(), allowed: closed.0.clone() })
}

/// Tells whether a block did what is asked of `prepare`, `debug` and `restore`: it ended by itself with 0.
pub(crate) fn succeeded(block: &Phase<Completion>) -> bool {
    block.as_ref().is_ok_and(|done| done.ended_by == EndedBy::Itself && done.exit == Exit::Code(0))
}

/// Tells whether `execute` ended as the suite expects. `fail` and `xfail` want a code other than 0 from `execute` itself: a
/// timeout, a signal, a block that could not be started never satisfy them.
pub(crate) fn ended_as_expected(expect: Expect, execute: &Phase<Completion>) -> bool {
    match expect {
        Expect::Pass => succeeded(execute),
        Expect::Fail | Expect::Xfail => execute
            .as_ref()
            .is_ok_and(|done| done.ended_by == EndedBy::Itself && matches!(done.exit, Exit::Code(code) if code != 0)),
    }
}

/// Returns the paths that are not as they were before the suite.
pub(crate) fn drift(evidence: &Evidence) -> Vec<Change> {
    match (&evidence.before, &evidence.restored) {
        (Ok(before), Ok(restored)) => before.changes_to(restored).into_iter().filter(Change::is_drift).collect(),
        (Err(_), _) | (_, Err(_)) => Vec::new(),
    }
}

/// Returns every reason to fail that the blocks and snapshots give, in the order in which things happened. `presence` are
/// the findings of the presence rules, `limit` is what each block had.
pub(crate) fn judge(
    suite: &Suite,
    project: &Project,
    evidence: &Evidence,
    presence: Vec<Finding>,
    limit: Duration,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let fault = |fault: &Fault| Finding::Fault(fault.clone());
    findings.extend(evidence.before.as_ref().err().map(fault));
    if let Some(prepare) = &evidence.prepare {
        findings.extend(block_findings(BlockName::Prepare, prepare, limit));
    }
    if let Some(execute) = &evidence.execute
        && !ended_as_expected(suite.expect, execute)
    {
        findings.extend(execute_findings(suite.expect, execute, limit));
    }
    findings.extend(evidence.after.as_ref().err().map(fault));
    findings.extend(presence);
    if let Some(restore) = &evidence.restore {
        findings.extend(block_findings(BlockName::Restore, restore, limit));
    }
    findings.extend(evidence.restored.as_ref().err().map(fault));
    let drift = drift(evidence);
    if project.restore_check == RestoreCheck::Strict && !drift.is_empty() {
        findings.push(Finding::Drift(drift.into_iter().map(|change| change.path).collect()));
    }
    let logs = [&evidence.prepare, &evidence.execute, &evidence.debug, &evidence.restore];
    let log_errors = logs.into_iter().flatten().flatten().filter_map(|done| done.log_error.clone());
    findings.extend(log_errors.map(|text| Finding::Fault(Fault::from_text(text))));
    findings
}

fn execute_findings(expect: Expect, execute: &Phase<Completion>, limit: Duration) -> Vec<Finding> {
    match expect {
        Expect::Fail | Expect::Xfail if succeeded(execute) => vec![Finding::UnexpectedPass],
        Expect::Pass | Expect::Fail | Expect::Xfail => block_findings(BlockName::Execute, execute, limit),
    }
}

/// Returns why a block did not end by itself with 0.
fn block_findings(block: BlockName, phase: &Phase<Completion>, limit: Duration) -> Vec<Finding> {
    let done = match phase {
        Ok(done) => done,
        Err(fault) => return vec![Finding::Fault(fault.clone())],
    };
    match done.ended_by {
        EndedBy::Itself if done.exit == Exit::Code(0) => Vec::new(),
        EndedBy::Itself | EndedBy::OutOfMemory => vec![Finding::Ended { block, exit: done.exit }],
        EndedBy::Timeout => vec![Finding::TimedOut { block, limit }],
        EndedBy::Cancel => vec![Finding::Interrupted { block }],
        EndedBy::SupervisorKilled => vec![Finding::SupervisorKilled { block }],
    }
}

//! The scripts of a set-up as trials of a run: each at most once, after those that it depends on.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::flow::session::{RUN_SUITES, Session};
use crate::flow::trial::{Judged, end_event};
use crate::flow::workplace::{LANG, MAKE, Made, NotRun, Terms, Workplace, no_make};
use crate::model::script::{Completion, EndedBy, Exit, LogFiles};
use crate::model::setup::{MakeStep, ScriptEntry, TestSetup};
use crate::model::suite::SuiteName;
use crate::model::verdict::{Fault, Finding};
use crate::os::journal::Event;
use crate::os::workdir::{Tree, WorkdirError};
use crate::rules::chickadee::{self, TestOutcome, TestStatus};
use crate::rules::report::LastLines;
use crate::rules::summary::{Outcome, Record, Status, TrialKind, millis, rc};

/// A set-up whose trials run, each at most once.
pub(crate) struct SetupRun {
    setup: TestSetup,
    names: Vec<SuiteName>,
    outcomes: Vec<OnceLock<Attempt>>,
    workplace: OnceLock<Result<Workplace, Finding>>,
    /// Indexes of the scripts that are going to run.
    expected: Mutex<BTreeSet<usize>>,
}

/// What one script came to; kept, because others may depend on it.
struct Attempt {
    judged: Judged,
    status: TestStatus,
}

impl SetupRun {
    /// `names` are the trials' names, one for each entry.
    pub(crate) fn new(setup: TestSetup, names: Vec<SuiteName>) -> Self {
        let outcomes = setup.entries.iter().map(|_| OnceLock::new()).collect();
        Self { setup, names, outcomes, workplace: OnceLock::new(), expected: Mutex::default() }
    }

    /// Says that the script at `index` is going to run, and so are those that it depends on: what all of them need is made by their
    /// number.
    pub(crate) fn expect(&self, index: usize) {
        if self.expected().insert(index) {
            let dependencies = self.setup.entries[index].depends_on.iter();
            dependencies.filter_map(|script| self.index_of(script)).for_each(|other| self.expect(other));
        }
    }

    fn expected(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        // A panic elsewhere cannot leave a set of numbers half-changed.
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_of(&self, script: &str) -> Option<usize> {
        self.setup.entries.iter().position(|entry| entry.script == script)
    }

    /// Runs the script at `index`, after those that it depends on. Say before the first one runs which are going to. `begun` is
    /// called as soon as the script runs, or before, if something else has to run first.
    pub(crate) fn run(&self, session: &Session, index: usize, begun: &mut dyn FnMut()) -> Judged {
        if self.workplace.get().is_none() || !self.setup.entries[index].depends_on.is_empty() {
            begun();
        }
        self.attempt(session, index, begun).judged.clone()
    }

    /// Scripts that were not selected run too, if a selected one depends on them; they are not reported.
    fn attempt(&self, session: &Session, index: usize, begun: &mut dyn FnMut()) -> &Attempt {
        self.outcomes[index].get_or_init(|| self.first_attempt(session, index, begun))
    }

    /// Runs the script at `index`, between the lines of the log that say so.
    fn first_attempt(&self, session: &Session, index: usize, begun: &mut dyn FnMut()) -> Attempt {
        let start =
            session.log(&Event { suite: Some(self.names[index].as_str()), ..Event::new(RUN_SUITES, "suite_start") });
        let mut attempt = self.judged_attempt(session, index, begun);
        let ended = session.log(&end_event(&attempt.judged.record));
        [start, ended].into_iter().filter_map(Result::err).for_each(|fault| attempt.judged.add_fault(fault));
        attempt
    }

    fn judged_attempt(&self, session: &Session, index: usize, begun: &mut dyn FnMut()) -> Attempt {
        let entry = &self.setup.entries[index];
        let name = self.names[index].as_str();
        let mut record = Record::new(name, TrialKind::Script, Status::Running);
        record.summary = entry.name.clone();
        let not_run =
            |finding| Attempt { judged: Judged::not_run(record.clone(), &finding), status: TestStatus::Error };
        if session.interrupt.signal().is_some() {
            return not_run(Finding::RunInterrupted);
        }
        if let Some(prerequisite) = self.failed_prerequisite(session, entry) {
            let outcome = chickadee::skipped_outcome(prerequisite);
            return conclude(record, entry, &outcome, None);
        }
        match self.execute(session, entry, name, begun) {
            Ok(done) => {
                let outcome = chickadee::outcome_of(&done);
                record.artifacts = artifacts(session, name, &done);
                let mut attempt = conclude(record, entry, &outcome, Some(&done));
                if session.shows(attempt.judged.record.status) {
                    let streams = [("stdout", &done.stdout), ("stderr", &done.stderr)];
                    attempt.judged.last_lines = streams.iter().filter_map(|(of, s)| LastLines::of(of, s)).collect();
                }
                if let Some(text) = &done.log_error {
                    attempt.judged.add_fault(Fault::from_text(text.clone()));
                }
                attempt
            }
            Err(finding) => not_run(finding),
        }
    }

    fn failed_prerequisite<'a>(&self, session: &Session, entry: &'a ScriptEntry) -> Option<&'a str> {
        let has_passed = |script: &&String| {
            self.index_of(script)
                .is_some_and(|index| self.attempt(session, index, &mut || {}).status == TestStatus::Pass)
        };
        entry.depends_on.iter().find(|script| !has_passed(script)).map(String::as_str)
    }

    fn execute(
        &self,
        session: &Session,
        entry: &ScriptEntry,
        name: &str,
        begun: &mut dyn FnMut(),
    ) -> Result<Completion, Finding> {
        let workplace = self.workplace.get_or_init(|| self.prepare(session)).as_ref().map_err(Clone::clone)?;
        let logs = session.proof.dir().join("logs").join(name);
        let logs = LogFiles { stdout: logs.join("execute.stdout.log"), stderr: logs.join("execute.stderr.log") };
        let ran = workplace.run(entry, &self.terms(session), Some(logs), &mut |script| {
            session.run_script(script, session.interrupt.work(), begun)
        });
        match ran {
            Ok(done) if done.ended_by == EndedBy::Cancel => Err(Finding::RunInterrupted),
            Ok(done) => Ok(done),
            Err(NotRun::Missing) => Err(Finding::Invalid(format!(
                "script `{}` is not in the set-up `{}`; add it, or remove its entry",
                entry.script,
                self.setup.dir.display()
            ))),
            Err(NotRun::Fault(fault)) => Err(Finding::Fault(fault)),
        }
    }

    /// Copies the set-up, so that nobody's edits matter while it runs, and runs make in the copy.
    fn prepare(&self, session: &Session) -> Result<Workplace, Finding> {
        let fault = |error: WorkdirError| Finding::Fault(Fault::new(&error));
        let tree = Tree::list(&self.setup.dir).map_err(fault)?;
        if let Some(path) = tree.special() {
            return Err(Finding::Invalid(WorkdirError::Special(self.setup.dir.join(path)).to_string()));
        }
        let folder = session.folder_for_copies(tree.space()).map_err(Finding::Fault)?;
        let uses = self.expected().len();
        let workplace = Workplace::new(folder, (&self.setup, &tree), uses, session.script_runner()).map_err(fault)?;
        if let Some(step) = &self.setup.make {
            self.make(session, step, &workplace)?;
        }
        Ok(workplace)
    }

    fn make(&self, session: &Session, step: &MakeStep, workplace: &Workplace) -> Result<(), Finding> {
        let found = session.settings.find_program(MAKE);
        let program = found.ok_or_else(|| Finding::Fault(no_make(&self.setup.name)))?;
        let logs = session.proof.dir().join("logs").join(&self.setup.name);
        let logs = LogFiles { stdout: logs.join("make.stdout.log"), stderr: logs.join("make.stderr.log") };
        let made = workplace.make((program, step), &self.terms(session), Some(logs), &mut |script| {
            session.run_script(script, session.interrupt.work(), &mut || {})
        });
        let made = made.and_then(|made| workplace.seal(made)).map_err(Finding::Fault)?;
        let done = made.completion();
        let message = (done.exit != Exit::Code(0)).then(|| done.exit.to_string());
        let event = Event {
            suite: Some(&self.setup.name),
            cmd: Some(MAKE),
            rc: Some(rc(done.exit)),
            duration_ms: Some(millis(done.wall)),
            message,
            ..Event::new(RUN_SUITES, "cmd_exec")
        };
        session.log(&event).map_err(Finding::Fault)?;
        match &made {
            Made::Well(_) => Ok(()),
            Made::Badly(done) if done.ended_by == EndedBy::Cancel => Err(Finding::RunInterrupted),
            Made::Badly(done) => {
                Err(Finding::BuildFailed { output: chickadee::compiler_output(done, self.setup.time_limit) })
            }
        }
    }

    fn terms(&self, session: &Session) -> Terms {
        let settings = &session.settings;
        Terms {
            search_path: settings.search_path.clone(),
            lang: settings.block_environment.get("LANG").map_or_else(|| LANG.into(), Clone::clone),
            seed: None,
            limits: session.limits(self.setup.time_limit),
            echo: session.echo,
            marker: session.scratch.marker(),
        }
    }
}

fn conclude(mut record: Record, entry: &ScriptEntry, outcome: &TestOutcome, done: Option<&Completion>) -> Attempt {
    record.status = if outcome.status == TestStatus::Pass { Status::Pass } else { Status::Fail };
    if outcome.status != TestStatus::Pass {
        let says_nothing = outcome.short_result == outcome.status.word();
        let ending =
            done.filter(|_| says_nothing && outcome.status == TestStatus::Error).map(|done| done.exit.to_string());
        let short_result = ending.unwrap_or_else(|| outcome.short_result.clone());
        let finding = Finding::Script { status: outcome.status.as_str(), short_result };
        record.findings = vec![finding.to_string()];
        record.reason = record.findings.first().cloned();
    }
    record.duration_ms = outcome.execution_time_ms;
    record.outcome = Some(Outcome {
        tier: entry.tier.as_str(),
        status: outcome.status.as_str(),
        short_result: outcome.short_result.clone(),
        long_result: outcome.long_result.clone(),
        points: entry.points,
        execution_time_ms: outcome.execution_time_ms,
    });
    if let Some(done) = done {
        record.set_ending(done);
        record.leaked = done.leaked.iter().map(Into::into).collect();
    }
    let judged = Judged { record, line: None, changes: Vec::new(), last_lines: Vec::new() };
    Attempt { judged, status: outcome.status }
}

/// A stream without output has no log.
fn artifacts(session: &Session, name: &str, done: &Completion) -> Vec<String> {
    let streams = [("stdout", &done.stdout), ("stderr", &done.stderr)].into_iter();
    let logs = streams.filter(|(_, stream)| stream.total_bytes > 0);
    let logs = logs.map(|(from, _)| format!("logs/{name}/execute.{from}.log"));
    logs.filter(|path| session.proof.dir().join(path).exists()).collect()
}

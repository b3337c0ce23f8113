//! One chickadee set-up: its make step once, then each script in a fresh copy.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::flow::session::{RUN_SUITES, Session};
use crate::flow::trial::{Judged, end_event};
use crate::model::script::{Changes, Completion, EndedBy, Environment, Exit, LogFiles, Script, SignalReach};
use crate::model::setup::{MakeStep, ScriptEntry, TestSetup};
use crate::model::suite::SuiteName;
use crate::model::verdict::{Fault, Finding};
use crate::os::journal::Event;
use crate::os::workdir::{Copies, Place, Tree, Use, WorkdirError};
use crate::rules::chickadee::{self, TestOutcome, TestStatus};
use crate::rules::report::LastLines;
use crate::rules::summary::{Outcome, Record, Status, TrialKind, millis, rc};

const SHELL: &str = "/bin/sh";

/// A set-up whose trials run, each at most once.
pub(crate) struct SetupRun {
    setup: TestSetup,
    names: Vec<SuiteName>,
    outcomes: Vec<OnceLock<Attempt>>,
    copies: OnceLock<Result<Copies, Finding>>,
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
        Self { setup, names, outcomes, copies: OnceLock::new(), expected: Mutex::default() }
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
        if self.copies.get().is_none() || !self.setup.entries[index].depends_on.is_empty() {
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
        let fault = |error: &dyn std::error::Error| Finding::Fault(Fault::new(error));
        let copies = self.copies.get_or_init(|| self.prepare(session)).as_ref().map_err(Clone::clone)?;
        let copy = copies.take().map_err(|error| fault(&error))?;
        if !copy.place().folder().join(&entry.script).is_file() {
            return Err(Finding::Invalid(format!(
                "script `{}` is not in the set-up `{}`; add it, or remove its entry",
                entry.script,
                self.setup.dir.display()
            )));
        }
        let logs = session.proof.dir().join("logs").join(name);
        // A name that starts with a dash would be read as an option.
        let argument = if entry.script.starts_with('-') { format!("./{}", entry.script) } else { entry.script.clone() };
        let script = self.script(
            session,
            SHELL.into(),
            vec![argument.into()],
            copy.place(),
            Changes::Dropped,
            LogFiles { stdout: logs.join("execute.stdout.log"), stderr: logs.join("execute.stderr.log") },
        );
        let done = session.run_script(&script, session.interrupt.work(), begun).map_err(Finding::Fault)?;
        copies.give_back(copy);
        if done.ended_by == EndedBy::Cancel { Err(Finding::RunInterrupted) } else { Ok(done) }
    }

    /// Copies the set-up, so that nobody's edits matter while it runs, and runs make in the copy.
    fn prepare(&self, session: &Session) -> Result<Copies, Finding> {
        let fault = |error: &dyn std::error::Error| Finding::Fault(Fault::new(error));
        let tree = Tree::list(&self.setup.dir).map_err(|error| fault(&error))?;
        if let Some(path) = tree.special() {
            return Err(Finding::Invalid(WorkdirError::Special(self.setup.dir.join(path)).to_string()));
        }
        let folder = session.folder_for_copies(tree.bytes()).map_err(Finding::Fault)?;
        let runner = session.script_runner();
        let usage = if runner.drops_changes() { Use::Reading { owner: runner.owner_of_work() } } else { Use::Changing };
        let copies = Copies::new(folder, self.expected().len(), usage);
        match &self.setup.make {
            None => copies.fill(&tree).map_err(|error| fault(&error))?,
            Some(make) => {
                copies.fill_original(&tree).map_err(|error| fault(&error))?;
                let done = self.make(session, make, &copies.original())?;
                copies.seal().map_err(|error| match error {
                    WorkdirError::Special(_) => build_failed(&Completion { unkept: Some(error.to_string()), ..done }),
                    WorkdirError::Io { .. } | WorkdirError::Tampered(_) | WorkdirError::Unsealed => fault(&error),
                })?;
            }
        }
        Ok(copies)
    }

    /// Runs make. Returns how it ended, if that is well.
    fn make(&self, session: &Session, make: &MakeStep, place: &Place) -> Result<Completion, Finding> {
        let program = session.settings.find_program("make").ok_or_else(|| {
            let text = format!("no `make` on PATH, and the set-up `{}` needs it: install make", self.setup.name);
            Finding::Fault(Fault::from_text(text))
        })?;
        let logs = session.proof.dir().join("logs").join(&self.setup.name);
        let args = make.target.iter().map(Into::into).collect();
        let script = self.script(
            session,
            program,
            args,
            place,
            Changes::Kept,
            LogFiles { stdout: logs.join("make.stdout.log"), stderr: logs.join("make.stderr.log") },
        );
        let done = session.run_script(&script, session.interrupt.work(), &mut || {}).map_err(Finding::Fault)?;
        let message = (done.exit != Exit::Code(0)).then(|| done.exit.to_string());
        let event = Event {
            suite: Some(&self.setup.name),
            cmd: Some("make"),
            rc: Some(rc(done.exit)),
            duration_ms: Some(millis(done.wall)),
            message,
            ..Event::new(RUN_SUITES, "cmd_exec")
        };
        session.log(&event).map_err(Finding::Fault)?;
        match (done.ended_by, done.exit) {
            (EndedBy::Itself, Exit::Code(0)) if done.unkept.is_none() => Ok(done),
            (EndedBy::Cancel, _) => Err(Finding::RunInterrupted),
            (EndedBy::Itself | EndedBy::Timeout | EndedBy::OutOfMemory | EndedBy::SupervisorKilled, _) => {
                Err(build_failed(&done))
            }
        }
    }

    fn script(
        &self,
        session: &Session,
        program: PathBuf,
        args: Vec<std::ffi::OsString>,
        place: &Place,
        changes: Changes,
        logs: LogFiles,
    ) -> Script {
        let cwd = place.folder();
        let mut environment = Environment::default();
        let settings = &session.settings;
        let lang = settings.block_environment.get("LANG").map_or_else(|| "C.UTF-8".into(), Clone::clone);
        environment.set("PATH", &settings.search_path);
        environment.set("HOME", &cwd);
        environment.set("LANG", lang);
        environment.set("TMPDIR", place.tmp());
        Script {
            program,
            args,
            cwd,
            work_dir: place.root().to_path_buf(),
            changes,
            environment,
            limits: session.limits(self.setup.time_limit),
            logs: Some(logs),
            signals: SignalReach::OwnProcesses,
            echo: session.echo,
            marker: Some(session.scratch.marker()),
        }
    }
}

fn build_failed(done: &Completion) -> Finding {
    Finding::BuildFailed { output: chickadee::compiler_output(done) }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use pretty_assertions::assert_eq;

    use super::*;
    use crate::flow::session::{DRAIN, GRACE, KEPT_BYTES_MAX};
    use crate::model::script::{Echo, Limits};
    use crate::os::engine::{Cancel, ScriptRunner, UnsandboxedScriptRunner};

    /// Runs the script of a row with a real shell, in a folder of its own, and returns its outcome.
    fn run(script: &str, limit: Duration) -> TestOutcome {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("row.sh"), script).unwrap();
        let mut environment = Environment::default();
        environment.set("PATH", "/usr/local/bin:/usr/bin:/bin");
        let limits = Limits {
            wall: limit,
            grace: GRACE,
            drain: DRAIN,
            kept_bytes_max: KEPT_BYTES_MAX,
            log_bytes_max: 1 << 20,
            pids_max: None,
        };
        let script = Script {
            program: SHELL.into(),
            args: vec!["row.sh".into()],
            cwd: dir.path().to_path_buf(),
            work_dir: dir.path().to_path_buf(),
            changes: Changes::Dropped,
            environment,
            limits,
            logs: None,
            signals: SignalReach::OwnProcesses,
            echo: Echo::Off,
            marker: None,
        };
        chickadee::outcome_of(&UnsandboxedScriptRunner::new().run(&script, &Cancel::new().unwrap()).unwrap())
    }

    #[test]
    fn every_row_of_the_contract_holds_for_a_real_shell() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/contract");
        let mut rows = 0;
        for file in fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            let table: Vec<serde_json::Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            for row in table {
                let Some(script) = row["script"].as_str() else { continue };
                // A row that wants a timeout gets one soon; the others have all the time that a busy machine needs.
                let limit = if row["timeout"] == true { Duration::from_secs(3) } else { Duration::from_secs(120) };
                let outcome = run(script, limit);
                let mut found = serde_json::json!({
                    "status": outcome.status.as_str(),
                    "shortResult": outcome.short_result,
                });
                if let Some(text) = outcome.long_result {
                    found["longResult"] = text.into();
                }
                assert_eq!(found, row["expect"], "{}: {}", path.display(), row["name"]);
                rows += 1;
            }
        }
        assert!(rows >= 40, "only {rows} rows were run");
    }
}

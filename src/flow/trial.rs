//! One suite: snapshot, prepare, execute, snapshot, debug, restore, snapshot, judge, record.
//!
//! A failing phase is evidence. After the first snapshot nothing returns early: restore and the last snapshot run whatever
//! came before, a panic of ours and a signal to us included.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::flow::blocks::Blocks;
use crate::flow::discover::{MANIFEST, TASK};
use crate::flow::evidence::{EvidenceFiles, Waiting};
use crate::flow::evidence_json::presence_json;
use crate::flow::looks::Looks;
use crate::flow::session::{RUN_SUITES, Session};
use crate::model::script::Completion;
use crate::model::snapshot::{Change, Snapshot};
use crate::model::suite::{PresenceClaim, Suite, SuiteName};
use crate::model::verdict::{BlockName, Evidence, Fault, Finding, Phase, ProductLog, Verdict};
use crate::os::disk::{DiskError, SnapshotRoot, read_config};
use crate::os::journal::{Event, Level};
use crate::rules::judge;
use crate::rules::parse::parse_suite;
use crate::rules::presence::{PresenceReport, judge_presence};
use crate::rules::report::LastLines;
use crate::rules::summary::{Record, Status, TrialKind, millis};

/// A judged trial, with what a failure says beside its record.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) record: Record,
    /// Where in its file somebody would look for why it failed, if that is known. From 1.
    pub(crate) line: Option<usize>,
    /// One line for each change that `execute` made.
    pub(crate) changes: Vec<String>,
    pub(crate) last_lines: Vec<LastLines>,
}

impl Judged {
    /// A trial of which nothing ran.
    pub(crate) fn not_run(mut record: Record, finding: &Finding) -> Self {
        record.status = Status::Fail;
        record.findings = vec![finding.to_string()];
        record.reason = record.findings.first().cloned();
        Self { record, line: None, changes: Vec::new(), last_lines: Vec::new() }
    }

    /// Adds a reason to fail that was met while the trial was being recorded.
    pub(crate) fn add_fault(&mut self, fault: Fault) {
        let text = Finding::Fault(fault).to_string();
        self.record.status = Status::Fail;
        self.record.reason.get_or_insert_with(|| text.clone());
        self.record.findings.push(text);
    }
}

/// Runs one suite.
pub(crate) fn run(session: &Session, name: &SuiteName, file: &Path) -> Judged {
    let record = Record::new(name.as_str(), TrialKind::Suite, Status::Running);
    let journal = TrialJournal { session, suite: name.as_str(), fault: RefCell::default() };
    journal.log(Event::new(RUN_SUITES, "suite_start"));
    let started = Instant::now();
    let mut judged = match admit(session, name, file) {
        Err((finding, line)) => Judged { line, ..Judged::not_run(record, &finding) },
        Ok(suite) => run_admitted(session, &suite, record, &journal),
    };
    judged.record.duration_ms = millis(started.elapsed());
    journal.log(end_event(&judged.record));
    if let Some(fault) = journal.fault.take() {
        judged.add_fault(fault);
    }
    judged
}

/// The last event of a trial.
pub(super) fn end_event(record: &Record) -> Event<'_> {
    Event {
        level: if record.status == Status::Pass { Level::Info } else { Level::Error },
        suite: Some(&record.name),
        rc: record.rc,
        duration_ms: Some(record.duration_ms),
        message: record.reason.clone(),
        artifacts: &record.artifacts,
        ..Event::new(RUN_SUITES, "suite_end")
    }
}

/// Writes a judged trial down, and which is `next`; that this fails is one more reason to fail.
pub(crate) fn keep(session: &Session, mut judged: Judged, next: Option<&Record>) -> Judged {
    let result = format!("results/{}/result.json", judged.record.name);
    if !judged.record.artifacts.contains(&result) {
        judged.record.artifacts.push(result);
    }
    judged.record.attempt = session.settings.nextest.as_ref().map_or(1, |nextest| nextest.attempt);
    if let Err(error) = session.proof.keep(&judged.record, next) {
        judged.add_fault(Fault::new(&error));
        // The summary is not to say that it passed. If that cannot be written either, it has been said.
        session.proof.correct(&judged.record).ok();
    }
    judged
}

/// Reads the suite, and tells why it is not to run now, if so, and in which line that is.
fn admit(session: &Session, name: &SuiteName, file: &Path) -> Result<Suite, (Finding, Option<usize>)> {
    let text = read_task(file).map_err(|finding| (finding, None))?;
    let suite = parse_suite(name.clone(), file, &text)
        .map_err(|error| (Finding::Invalid(error.to_string()), Some(error.line)))?;
    may_run(session, &suite).map_or(Ok(suite), |finding| Err((finding, None)))
}

fn read_task(file: &Path) -> Result<Vec<u8>, Finding> {
    if file.with_file_name(MANIFEST).exists() {
        let dir = file.parent().unwrap_or(file).display();
        let text = format!("`{dir}` has both a {TASK} and a {MANIFEST}; it is one or the other: remove one");
        return Err(Finding::Invalid(text));
    }
    read_config(file)
        .map_err(|error| Finding::Invalid(format!("could not read `{}`: {error}; make it readable", file.display())))
}

/// Tells why a suite is not to run now, if so.
fn may_run(session: &Session, suite: &Suite) -> Option<Finding> {
    if session.interrupt.signal().is_some() {
        return Some(Finding::RunInterrupted);
    }
    if let Some(dirtied_by) = session.dirtied_by() {
        return Some(Finding::NotRun { dirtied_by });
    }
    judge::refuse(suite, &session.project, &session.host)
}

fn run_admitted(session: &Session, suite: &Suite, mut record: Record, journal: &TrialJournal<'_>) -> Judged {
    record.summary = Some(suite.summary.clone());
    record.expect = suite.expect.as_str();
    let blocks = match Blocks::new(session, suite) {
        Ok(blocks) => blocks,
        Err(fault) => return Judged::not_run(record, &Finding::Fault(fault)),
    };
    let files = EvidenceFiles::new(session.proof.dir(), suite.name.as_str(), &session.looks);
    let (presence, opens) = (RefCell::default(), Cell::new(0));
    let trial = Trial { session, suite, blocks: &blocks, journal, files, presence, opens };
    let evidence = trial.gather();
    trial.judge(record, &evidence)
}

/// Logs for one suite; keeps the first fault, so that a lost line fails the suite.
pub(super) struct TrialJournal<'a> {
    session: &'a Session,
    suite: &'a str,
    fault: RefCell<Option<Fault>>,
}

impl TrialJournal<'_> {
    fn log(&self, event: Event<'_>) {
        self.keep(self.session.log(&Event { suite: Some(self.suite), ..event }));
    }

    fn keep(&self, result: Result<(), Fault>) {
        if let Err(fault) = result {
            self.fault.borrow_mut().get_or_insert(fault);
        }
    }
}

/// A way to look: anew, or if need be.
type Look = fn(&Looks, &[SnapshotRoot]) -> Result<Arc<Snapshot>, DiskError>;

/// A suite while it runs.
struct Trial<'a> {
    session: &'a Session,
    suite: &'a Suite,
    blocks: &'a Blocks<'a>,
    journal: &'a TrialJournal<'a>,
    files: EvidenceFiles<'a>,
    presence: RefCell<Option<PresenceReport>>,
    opens: Cell<usize>,
}

impl Trial<'_> {
    fn gather(&self) -> Evidence {
        // What is in the scratch folder has been removed since the last look.
        let look_before = if self.blocks.look_at_scratch() { Looks::look } else { Looks::look_before };
        let before = self.guarded(|| self.snapshot("before", look_before));
        let mut evidence = Evidence {
            before,
            prepare: None,
            execute: None,
            after: Ok(Arc::default()),
            debug: None,
            restore: None,
            restored: Ok(Arc::default()),
            product_output: String::new(),
            product_log: ProductLog::Empty,
        };
        if evidence.before.is_err() {
            // Without it nothing could be proved, so nothing is changed.
            return evidence;
        }
        evidence.prepare = self.block(BlockName::Prepare);
        if evidence.prepare.as_ref().is_none_or(judge::succeeded) {
            evidence.execute = self.block(BlockName::Execute);
        }
        evidence.after = self.guarded(|| self.snapshot("after", Looks::look));
        (evidence.product_output, evidence.product_log) = self.blocks.product_output(self.opens.get());
        let judged_presence = self.guarded(|| {
            self.judge_presence(&evidence);
            self.put_results(&evidence)
        });
        if let Err(fault) = judged_presence {
            evidence.after = Err(fault);
        }
        if self.has_failed(&evidence) {
            evidence.debug = self.block(BlockName::Debug);
        }
        evidence.restore = self.block(BlockName::Restore);
        evidence.restored = self.guarded(|| self.snapshot("restored", Looks::look));
        evidence
    }

    fn has_failed(&self, evidence: &Evidence) -> bool {
        let as_expected =
            evidence.execute.as_ref().is_some_and(|execute| judge::ended_as_expected(self.suite.expect, execute));
        let presence = self.presence.borrow();
        !as_expected || presence.as_ref().is_some_and(|report| !report.findings().is_empty())
    }

    /// A bug of ours in one phase must not keep the next ones from running.
    fn guarded<T>(&self, phase: impl FnOnce() -> Phase<T>) -> Phase<T> {
        catch_unwind(AssertUnwindSafe(phase)).unwrap_or_else(|panic| Err(panic_fault(panic.as_ref())))
    }

    fn block(&self, name: BlockName) -> Option<Phase<Completion>> {
        let block = self.blocks.text(name)?;
        let (start, end) = match name {
            BlockName::Restore => ("restore_start", "restore_done"),
            BlockName::Prepare | BlockName::Execute | BlockName::Debug => ("exec_start", "exec_done"),
        };
        self.journal.log(Event { cmd: Some(name.as_str()), ..Event::new(RUN_SUITES, start) });
        self.blocks.forget_opens();
        let result = self.guarded(|| {
            self.blocks.run(name, block, &mut || {
                self.session.proof.help_to_make();
                self.journal.keep(self.files.write());
            })
        });
        self.opens.set(self.opens.get() + self.blocks.count_opens());
        let done = result.as_ref().ok();
        let event = Event {
            level: if judge::succeeded(&result) { Level::Info } else { Level::Warn },
            cmd: Some(name.as_str()),
            rc: done.map(|done| crate::rules::summary::rc(done.exit)),
            duration_ms: done.map(|done| millis(done.wall)),
            message: result.as_ref().err().map(ToString::to_string),
            ..Event::new(RUN_SUITES, end)
        };
        self.journal.log(event);
        Some(result)
    }

    /// Looks at the suite's paths, and notes what it sees.
    fn snapshot(&self, when: &'static str, look: Look) -> Phase<Arc<Snapshot>> {
        let Blocks { roots, .. } = self.blocks;
        if roots.is_empty() {
            return Ok(Arc::default());
        }
        let snapshot = look(&self.session.looks, roots).map_err(|error| Fault::new(&error))?;
        self.files.put(Waiting::Snapshot(when, Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    fn judge_presence(&self, evidence: &Evidence) {
        let (Some(rules), Ok(after), Some(_)) = (&self.blocks.presence_rules, &evidence.after, &evidence.execute)
        else {
            return;
        };
        let applets = &self.session.applets;
        let claim = self.suite.presence.claim;
        let report = judge_presence(rules, applets, claim, after, &evidence.product_output, evidence.product_log);
        let is_fine = report.findings().is_empty();
        if claim != PresenceClaim::None {
            let event = if is_fine { "assert_pass" } else { "assert_fail" };
            let level = if is_fine { Level::Info } else { Level::Error };
            self.journal.log(Event { level, cmd: Some("presence"), ..Event::new(RUN_SUITES, event) });
        }
        *self.presence.borrow_mut() = Some(report);
    }

    fn judge(&self, mut record: Record, evidence: &Evidence) -> Judged {
        let presence = self.presence.borrow();
        let presence_findings = presence.as_ref().map(PresenceReport::findings).unwrap_or_default();
        let presence_ok = presence_findings.is_empty();
        let limit = self.blocks.limit;
        let findings = judge::judge(self.suite, &self.session.project, evidence, presence_findings, limit);
        let changes = changes_of(&evidence.before, &evidence.after);
        let verdict = Verdict::from(findings);
        record.status = if verdict == Verdict::Pass { Status::Pass } else { Status::Fail };
        if let Verdict::Fail(findings) = &verdict {
            record.findings = findings.iter().map(ToString::to_string).collect();
            record.reason = record.findings.first().cloned();
        }
        if let Some(Ok(execute)) = &evidence.execute {
            record.set_ending(execute);
        }
        record.restore_rc = match &evidence.restore {
            Some(Ok(restore)) => Some(crate::rules::summary::rc(restore.exit)),
            Some(Err(_)) | None => None,
        };
        if self.suite.presence.claim != PresenceClaim::None && self.blocks.presence_rules.is_some() {
            record.presence_ok = Some(presence_ok && presence.is_some());
            record.presence = Some(self.suite.presence.origin.as_str());
        }
        record.product_log = self.blocks.has_product().then_some(evidence.product_log.as_str());
        record.changes = changes.as_ref().map(Vec::len);
        record.drift = judge::drift(evidence).iter().map(|change| change.path.display().to_string()).collect();
        self.note_blocks(&mut record, evidence);
        if evidence.restore.as_ref().is_some_and(|restore| !judge::succeeded(restore)) {
            self.journal.keep(self.session.mark_dirty(&self.suite.name));
        }
        let last_lines = if self.session.shows(record.status) { last_lines(evidence) } else { Vec::new() };
        self.journal.keep(self.files.write());
        record.artifacts = self.files.names();
        let changes = changes.unwrap_or_default().iter().map(ToString::to_string).collect();
        Judged { record, line: Some(line_of(self.suite, evidence)), changes, last_lines }
    }

    /// Leaks, and output that is no text: worth knowing, no reason to fail.
    fn note_blocks(&self, record: &mut Record, evidence: &Evidence) {
        let blocks = [
            (BlockName::Prepare, &evidence.prepare),
            (BlockName::Execute, &evidence.execute),
            (BlockName::Debug, &evidence.debug),
            (BlockName::Restore, &evidence.restore),
        ];
        for (name, block) in blocks {
            let Some(Ok(done)) = block else { continue };
            record.leaked.extend(done.leaked.iter().map(Into::into));
            for (which, stream) in [("stdout", &done.stdout), ("stderr", &done.stderr)] {
                if !stream.is_text() {
                    record.notes.push(format!("{which} of {name} is not UTF-8 text; its log has every byte"));
                }
            }
        }
    }

    fn put_results(&self, evidence: &Evidence) -> Result<(), Fault> {
        if !self.blocks.roots.is_empty()
            && let Some(changes) = changes_of(&evidence.before, &evidence.after)
        {
            self.files.put(Waiting::Changes(changes));
        }
        if let Some(report) = &*self.presence.borrow() {
            let text = presence_json(report, self.suite.presence.origin).map_err(|error| Fault::new(&error))?;
            self.files.put(Waiting::Presence(text));
        }
        Ok(())
    }
}

/// Returns the line of the block that ended otherwise than it should have, else that of `execute`.
fn line_of(suite: &Suite, evidence: &Evidence) -> usize {
    let has_failed = |block: &Option<Phase<Completion>>| block.as_ref().is_some_and(|done| !judge::succeeded(done));
    let execute = evidence.execute.as_ref().is_some_and(|done| judge::ended_as_expected(suite.expect, done));
    let block = match (has_failed(&evidence.prepare), execute, has_failed(&evidence.restore)) {
        (true, _, _) => suite.prepare.as_ref(),
        (false, true, true) => suite.restore.as_ref(),
        (false, _, _) => None,
    };
    block.unwrap_or(&suite.execute).line
}

fn changes_of(from: &Phase<Arc<Snapshot>>, to: &Phase<Arc<Snapshot>>) -> Option<Vec<Change>> {
    Some(from.as_ref().ok()?.changes_to(to.as_ref().ok()?))
}

fn last_lines(evidence: &Evidence) -> Vec<LastLines> {
    let blocks = [
        ("prepare", &evidence.prepare),
        ("execute", &evidence.execute),
        ("debug", &evidence.debug),
        ("restore", &evidence.restore),
    ];
    let mut lines = Vec::new();
    for (name, block) in blocks {
        let Some(Ok(done)) = block else { continue };
        lines.extend(LastLines::of(&format!("{name} stdout"), &done.stdout));
        lines.extend(LastLines::of(&format!("{name} stderr"), &done.stderr));
    }
    lines
}

/// Returns a panic of ours as the fault that it is.
pub(crate) fn panic_fault(panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Fault::from_text(format!("a bug in proving-ground, please report it: {}", text.unwrap_or("panic without a text")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::flow::session::{Join, Part, Selection, Shown};
    use crate::model::script::{Completion, Echo, Script, SignalReach};
    use crate::model::suite::{Host, Isolation, Project};
    use crate::os::engine::{Cancel, EngineError, ScriptRunner, UnsandboxedScriptRunner};
    use crate::os::host::{Overrides, Settings};

    /// Runs scripts for real, but breaks down in the middle of each `execute`.
    struct Buggy(UnsandboxedScriptRunner);

    impl ScriptRunner for Buggy {
        fn run_while(&self, script: &Script, cancel: &Cancel, _: &mut dyn FnMut()) -> Result<Completion, EngineError> {
            let is_execute = script.args.iter().any(|arg| arg.to_string_lossy().ends_with("/execute"));
            self.0.run_while(script, cancel, &mut || assert!(!is_execute, "planted"))
        }
    }

    fn session(dir: &Path) -> Session {
        let host = Host { distro: "linux".into(), container_id: None };
        let overrides = Overrides {
            project_dir: Some(dir.to_path_buf()),
            suites_dir: Some(PathBuf::from("suites")),
            proof_dir: Some(PathBuf::from("proof")),
            product: None,
            flags: Vec::new(),
        };
        let mut settings = Settings::read(&overrides, &host).unwrap();
        // The one who runs this test may have a run of his own.
        (settings.proof_dir, settings.nextest) = (dir.join("proof"), None);
        let project = Project { isolation: Isolation::None, ..Project::default() };
        let selection = Selection { selected: 1, not_selected: 0 };
        let part = Part {
            selection,
            echo: Echo::Off,
            shown: Shown::OfFailed,
            join: Join::Nextest,
            reach: SignalReach::Machine,
            interrupted: || {},
        };
        let mut session = Session::open(settings, host, project, part, &|_| {}).unwrap();
        session.runner = Box::new(Buggy(UnsandboxedScriptRunner::new()));
        session
    }

    #[test]
    fn restore_runs_after_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("suites/10-a/task.yaml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let order = dir.path().join("order").display().to_string();
        let text =
            format!("summary: a\nexecute: sleep 600\ndebug: echo debug >>{order}\nrestore: echo restore >>{order}\n");
        std::fs::write(&file, text).unwrap();
        let mut session = session(dir.path());
        let judged = run(&session, &SuiteName::new("10-a").unwrap(), &file);
        session.close().unwrap();
        assert_eq!(std::fs::read_to_string(order).unwrap(), "debug\nrestore\n");
        assert_eq!(judged.record.status, Status::Fail);
        assert_eq!(judged.record.findings, ["could not test: a bug in proving-ground, please report it: planted"]);
    }
}

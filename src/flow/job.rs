//! One job: a set-up and a submission -> what Chickadee is told. A worker's job, and an instructor's on a machine of their own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::flow::scratch::{CopiesIn, Scratch};
use crate::flow::session::{DRAIN, GRACE, KEPT_BYTES_MAX};
use crate::flow::workplace::{LANG, MAKE, Made, NotRun, Terms, Workplace, no_make};
use crate::model::script::{Completion, Echo, EndedBy, Limits, Script};
use crate::model::setup::{MakeStep, ScriptEntry, TestSetup};
use crate::model::verdict::Fault;
use crate::os::engine::{Cancel, ScriptRunner};
use crate::os::host::find_in_path;
use crate::os::workdir::{Tree, WorkdirError, remove};
use crate::rules::chickadee::{self, TestOutcome, TestStatus};
use crate::rules::collection::{BuildStatus, Collection, Ids, Measured, Outcome, Times, memory_usage_bytes};
use crate::rules::parse::run_order;
use crate::rules::report::escaped;

/// What make looks for, the first one first (GNU make's manual, "What Name to Give Your Makefile").
const MAKEFILES: [&str; 3] = ["GNUmakefile", "makefile", "Makefile"];
/// Files of a submission that were left out and are named.
const NAMED_MAX: usize = 20;

/// What is graded.
pub(crate) struct Assignment<'a> {
    /// Its folder is read only.
    pub(crate) setup: &'a TestSetup,
    pub(crate) submission: Submission<'a>,
    pub(crate) ids: Ids,
    /// For scripts that make a variant of the assignment for each student.
    pub(crate) seed: Option<String>,
}

/// What somebody has handed in. It is laid beside the set-up, never over it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Submission<'a> {
    /// The set-up has all that its scripts look at.
    Nothing,
    Folder(&'a Path),
    File(&'a Path),
}

/// What it is graded with.
pub(crate) struct Means<'a> {
    pub(crate) runner: &'a dyn ScriptRunner,
    pub(crate) cancel: &'a Cancel,
    pub(crate) scratch: &'a Scratch,
    pub(crate) copies_in: CopiesIn,
    pub(crate) search_path: &'a OsStr,
    /// Whether what scripts say is shown while it comes.
    pub(crate) echo: Echo,
    /// Is told what begins.
    pub(crate) told: &'a dyn Fn(Step<'_>),
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Make,
    /// The script `number` of `all`, from 1, in the order in which they run.
    Script {
        number: usize,
        all: usize,
        name: &'a str,
    },
}

/// When a job began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started(Timestamp);

impl Started {
    /// It begins.
    pub(crate) fn now() -> Self {
        Self(Timestamp::now())
    }
}

/// What came of it.
pub(crate) struct Graded {
    pub(crate) collection: Collection,
    pub(crate) measured: Measured,
    pub(crate) timings: Timings,
}

/// How long its parts took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timings {
    /// Copying the set-up and the submission.
    pub(crate) submission_prepare: Duration,
    /// If there was something to make.
    pub(crate) make_step: Option<Duration>,
    /// All scripts together.
    pub(crate) test_execution: Duration,
}

/// Runs the make step and the scripts of a set-up over a submission.
///
/// # Errors
/// If we, or the machine, failed: then nothing is known of the submission. A script that fails, hangs or cannot be found is an outcome.
pub(crate) fn grade(assignment: &Assignment<'_>, means: &Means<'_>, started: Started) -> Result<Graded, Fault> {
    let begun = Instant::now();
    let (tree, warnings) = laid(assignment).map_err(|error| Fault::new(&error))?;
    let folder = means.scratch.folder_for_copies(tree.bytes(), means.copies_in)?;
    let mut grading = Grading::new(assignment, means);
    let graded = grading.run(&tree, &folder, begun);
    // What a script made unremovable goes with the scratch folder.
    remove(&folder).ok();
    let (ids, times) = (assignment.ids.clone(), times(started));
    let mut collection = match graded? {
        Ran::NotMade { output } => Collection::not_made(ids, output, times),
        Ran::Scripts(outcomes) => Collection::new(ids, grading.build_status(), outcomes, times),
    };
    collection.warnings = warnings;
    Ok(Graded { collection, measured: grading.measured, timings: grading.timings })
}

/// Returns what the worker tells of a job that it could not grade.
pub(crate) fn not_graded(ids: Ids, fault: &Fault, started: Started) -> Collection {
    Collection::of_fault(ids, fault.to_string(), times(started))
}

/// Returns what the worker tells of a job whose submission could not even be looked into.
pub(crate) fn not_made(ids: Ids, output: String, started: Started) -> Collection {
    Collection::not_made(ids, output, times(started))
}

fn times(Started(started): Started) -> Times {
    let text = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Times { started_at: text(started), finished_at: text(Timestamp::now()) }
}

/// The submission beside the set-up, and a warning for each of its files that had to give way.
fn laid(assignment: &Assignment<'_>) -> Result<(Tree, Vec<String>), WorkdirError> {
    let mut tree = Tree::list(&assignment.setup.dir)?;
    let submission = match assignment.submission {
        Submission::Nothing => return Ok((tree, Vec::new())),
        Submission::Folder(dir) => Tree::list(dir)?,
        Submission::File(path) => Tree::of_file(path)?,
    };
    let left_out = tree.lay_beside(submission, &reserved(assignment.setup, &tree));
    Ok((tree, left_out_warnings(&left_out)))
}

/// Returns what nobody hands in, whether the set-up has it or lacks it: a script, which would grade its own author; and a makefile that
/// make would take instead of the set-up's, and that could rewrite the scripts.
fn reserved<'a>(setup: &'a TestSetup, tree: &Tree) -> Vec<&'a Path> {
    let makefiles = MAKEFILES.map(Path::new);
    let has_makefile = setup.make.is_some() && makefiles.iter().any(|file| tree.has(file));
    let scripts = setup.entries.iter().map(|entry| Path::new(&entry.script));
    scripts.chain(makefiles.into_iter().filter(|_| has_makefile)).collect()
}

fn left_out_warnings(left_out: &[PathBuf]) -> Vec<String> {
    let named = left_out.iter().take(NAMED_MAX).map(|path| {
        let path = escaped(&path.to_string_lossy());
        format!("`{path}` of the submission was left out: its place is the set-up's")
    });
    let more = left_out.len().saturating_sub(NAMED_MAX);
    named.chain((more > 0).then(|| format!("{more} more files of the submission were left out"))).collect()
}

enum Ran {
    NotMade { output: String },
    Scripts(Vec<Outcome>),
}

struct Grading<'a> {
    assignment: &'a Assignment<'a>,
    means: &'a Means<'a>,
    terms: Terms,
    measured: Measured,
    timings: Timings,
}

impl<'a> Grading<'a> {
    fn new(assignment: &'a Assignment<'a>, means: &'a Means<'a>) -> Self {
        let limits = Limits {
            wall: assignment.setup.time_limit,
            grace: GRACE,
            drain: DRAIN,
            kept_bytes_max: KEPT_BYTES_MAX,
            log_bytes_max: 0,
            pids_max: None,
        };
        let terms = Terms {
            search_path: means.search_path.to_owned(),
            lang: LANG.into(),
            seed: assignment.seed.clone(),
            limits,
            echo: means.echo,
            marker: means.scratch.marker(),
        };
        Self { assignment, means, terms, measured: Measured::default(), timings: Timings::default() }
    }

    fn build_status(&self) -> BuildStatus {
        if self.assignment.setup.make.is_some() { BuildStatus::Passed } else { BuildStatus::Skipped }
    }

    fn run(&mut self, tree: &Tree, folder: &Path, begun: Instant) -> Result<Ran, Fault> {
        let setup = self.assignment.setup;
        let workplace = Workplace::new(folder.to_path_buf(), (setup, tree), setup.entries.len(), self.means.runner);
        let workplace = workplace.map_err(|error| Fault::new(&error))?;
        self.timings.submission_prepare = begun.elapsed();
        if let Some(step) = &setup.make
            && let Some(output) = self.make(&workplace, step)?
        {
            return Ok(Ran::NotMade { output });
        }
        let begun = Instant::now();
        let outcomes = self.scripts(&workplace);
        self.timings.test_execution = begun.elapsed();
        outcomes.map(Ran::Scripts)
    }

    /// Returns what make said, if it failed.
    fn make(&mut self, workplace: &Workplace, step: &MakeStep) -> Result<Option<String>, Fault> {
        (self.means.told)(Step::Make);
        let setup = &self.assignment.setup.name;
        let program = find_in_path(MAKE.as_ref(), self.means.search_path).ok_or_else(|| no_make(setup))?;
        let made = workplace.make((program, step), &self.terms, None, &mut |script| self.means.run(script))?;
        self.timings.make_step = Some(made.completion().wall);
        match made {
            Made::Well(_) => Ok(None),
            Made::Badly(done) => {
                self.measured.add(&done, TestStatus::Fail);
                Ok(Some(chickadee::compiler_output(&done)))
            }
        }
    }

    /// Returns the outcomes in the order of the manifest.
    fn scripts(&mut self, workplace: &Workplace) -> Result<Vec<Outcome>, Fault> {
        let setup = self.assignment.setup;
        let mut outcomes = BTreeMap::new();
        for (earlier, index) in run_order(setup).into_iter().enumerate() {
            let entry = &setup.entries[index];
            let (number, all) = (earlier + 1, setup.entries.len());
            (self.means.told)(Step::Script { number, all, name: entry.display_name() });
            let outcome = match failed_prerequisite(setup, entry, &outcomes) {
                Some(script) => self.outcome(entry, (chickadee::skipped_outcome(script), None)),
                None => {
                    let ran = self.script(workplace, entry)?;
                    self.outcome(entry, ran)
                }
            };
            outcomes.insert(index, outcome);
        }
        Ok(outcomes.into_values().collect())
    }

    fn outcome(&self, entry: &ScriptEntry, (outcome, memory): (TestOutcome, Option<u64>)) -> Outcome {
        Outcome::new(entry, outcome, memory, self.assignment.ids.attempt_number)
    }

    /// Runs one script; returns what came of it, and the memory that it used.
    fn script(&mut self, workplace: &Workplace, entry: &ScriptEntry) -> Result<(TestOutcome, Option<u64>), Fault> {
        match workplace.run(entry, &self.terms, None, &mut |script| self.means.run(script)) {
            Ok(done) => {
                let outcome = chickadee::outcome_of(&done);
                self.measured.add(&done, outcome.status);
                Ok((outcome, Some(memory_usage_bytes(&done))))
            }
            Err(NotRun::Missing) => Ok((chickadee::missing_outcome(&entry.script), None)),
            Err(NotRun::Fault(fault)) => Err(fault),
        }
    }
}

impl Means<'_> {
    fn run(&self, script: &Script) -> Result<Completion, Fault> {
        let done = self.runner.run(script, self.cancel).map_err(|error| Fault::new(&error))?;
        if done.ended_by == EndedBy::Cancel {
            return Err(Fault::from_text("the run was stopped before the job was done"));
        }
        Ok(done)
    }
}

fn failed_prerequisite<'a>(
    setup: &TestSetup,
    entry: &'a ScriptEntry,
    outcomes: &BTreeMap<usize, Outcome>,
) -> Option<&'a str> {
    let has_passed = |script: &&String| {
        let index = setup.entries.iter().position(|other| other.script == **script);
        index.and_then(|index| outcomes.get(&index)).is_some_and(|outcome| outcome.status == TestStatus::Pass)
    };
    entry.depends_on.iter().find(|script| !has_passed(script)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;

    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;
    use crate::model::script::{Changes, Environment, SignalReach};
    use crate::os::engine::UnsandboxedScriptRunner;
    use crate::rules::parse::parse_setup;

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
            program: "/bin/sh".into(),
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

    /// A set-up in a folder of its own, what is laid beside it, and how it is graded.
    struct Lab {
        dir: tempfile::TempDir,
        manifest: serde_json::Value,
        seed: Option<String>,
        cancel: Cancel,
        steps: RefCell<Vec<String>>,
    }

    impl Lab {
        fn new(scripts: &serde_json::Value, files: &[(&str, &str)]) -> Self {
            let manifest = json!({"schemaVersion": 1, "testSuites": scripts, "timeLimitSeconds": 60});
            let dir = tempfile::tempdir().unwrap();
            for name in ["setup", "submission", "tmp"] {
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            let lab = Self { dir, manifest, seed: None, cancel: Cancel::new().unwrap(), steps: RefCell::default() };
            files.iter().for_each(|(file, text)| lab.write(&format!("setup/{file}"), text));
            lab
        }

        fn with(mut self, key: &str, value: serde_json::Value) -> Self {
            self.manifest[key] = value;
            self
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn graded(&self, submission: Submission<'_>) -> Result<Graded, Fault> {
            let (dir, tmp) = (self.dir.path().join("setup"), self.dir.path().join("tmp"));
            let text = self.manifest.to_string();
            let setup = parse_setup("set", &dir, Path::new("manifest"), text.as_bytes()).unwrap();
            let ids = Ids { submission_id: "sub".into(), test_setup_id: "set".into(), attempt_number: 1 };
            let assignment = Assignment { setup: &setup, submission, ids, seed: self.seed.clone() };
            let scratch = Scratch::make(&tmp).unwrap();
            let means = Means {
                runner: &UnsandboxedScriptRunner::new(),
                cancel: &self.cancel,
                scratch: &scratch,
                copies_in: CopiesIn::Disk,
                search_path: "/usr/local/bin:/usr/bin:/bin".as_ref(),
                echo: Echo::Off,
                told: &|step| self.steps.borrow_mut().push(format!("{step:?}")),
            };
            let graded = grade(&assignment, &means, Started::now());
            assert!(fs::read_dir(scratch.path()).unwrap().next().is_none(), "copies are left");
            scratch.remove().unwrap();
            graded
        }

        fn collection(&self, submission: Submission<'_>) -> Collection {
            self.graded(submission).unwrap_or_else(|fault| panic!("{fault}")).collection
        }

        /// Names and statuses, in the order in which they are reported.
        fn statuses(&self) -> Vec<String> {
            let outcomes = self.collection(Submission::Nothing).outcomes;
            outcomes.iter().map(|outcome| format!("{} {}", outcome.test_name, outcome.status.as_str())).collect()
        }
    }

    #[test]
    fn outcomes_are_in_the_order_of_the_manifest_whatever_runs_first() {
        let scripts = json!([
            {"script": "c.sh", "dependsOn": ["a.sh"], "points": 3, "tier": "secret", "name": " The third "},
            {"script": "b.sh"},
            {"script": "a.sh", "points": 0},
        ]);
        let lab = Lab::new(&scripts, &[("a.sh", "exit 0"), ("b.sh", "exit 1"), ("c.sh", "exit 0")]);
        let collection = lab.collection(Submission::Nothing);
        let found: Vec<_> = collection
            .outcomes
            .iter()
            .map(|outcome| (outcome.test_name.as_str(), outcome.tier, outcome.points))
            .collect();
        assert_eq!(found, [("The third", "secret", 3), ("b", "public", 1), ("a", "public", 0)]);
        assert_eq!((collection.total_points, collection.earned_points), (4, 3));
        assert_eq!(collection.build_status, BuildStatus::Skipped);
        let steps = lab.steps.take();
        let told = |number, name| format!("Script {{ number: {number}, all: 3, name: {name:?} }}");
        let order = [told(1, "b"), told(2, "a"), told(3, "The third")];
        assert!(steps == order || steps == [told(1, "a"), told(2, "The third"), told(3, "b")], "{steps:?}");
    }

    #[test]
    fn what_depends_on_a_script_that_did_not_pass_does_not_run() {
        let table = [
            ("exit 0", ["pass", "pass", "pass"]),
            ("exit 1", ["fail", "fail", "fail"]),
            ("exit 3", ["error", "fail", "fail"]),
        ];
        for (first, expected) in table {
            let scripts = json!([
                {"script": "a.sh"}, {"script": "b.sh", "dependsOn": ["a.sh"]}, {"script": "c.sh", "dependsOn": ["a.sh", "b.sh"]},
            ]);
            let lab = Lab::new(&scripts, &[("a.sh", first), ("b.sh", "exit 0"), ("c.sh", "exit 0")]);
            let collection = lab.collection(Submission::Nothing);
            assert_eq!(collection.outcomes.iter().map(|outcome| outcome.status.as_str()).collect::<Vec<_>>(), expected);
            let skipped = collection.outcomes.iter().find(|outcome| outcome.short_result.starts_with("Skipped"));
            assert_eq!(skipped.is_some(), first != "exit 0");
            if let Some(skipped) = skipped {
                assert_eq!(skipped.short_result, "Skipped: prerequisite 'a.sh' did not pass");
                assert_eq!((skipped.execution_time_ms, skipped.memory_usage_bytes), (0, None));
            }
        }
    }

    #[test]
    fn a_script_that_is_missing_is_an_outcome_and_so_is_what_depends_on_it() {
        let scripts = json!([{"script": "gone.sh", "points": 5}, {"script": "b.sh", "dependsOn": ["gone.sh"]}, {"script": "c.sh"}]);
        let lab = Lab::new(&scripts, &[("b.sh", "exit 0"), ("c.sh", "exit 0")]);
        assert_eq!(lab.statuses(), ["gone error", "b fail", "c pass"]);
        assert_eq!(lab.collection(Submission::Nothing).total_points, 7);
    }

    #[test]
    fn a_submission_is_laid_beside_the_set_up_and_never_over_it() {
        let test = "cat answer; cat lib/data; [ \"$(cat lib/data)\" = ours ] && [ \"$(cat answer)\" = 42 ]";
        let lab = Lab::new(&json!([{"script": "a.sh"}]), &[("a.sh", test), ("lib/data", "ours")]);
        for (file, text) in [("answer", "42"), ("a.sh", "exit 0 # mine"), ("lib/data", "theirs"), ("a\u{1b}b", "")] {
            lab.write(&format!("submission/{file}"), text);
        }
        let dir = lab.dir.path().join("submission");
        let collection = lab.collection(Submission::Folder(&dir));
        assert_eq!(collection.outcomes[0].status, TestStatus::Pass, "{collection:?}");
        let left_out = |path: &str| format!("`{path}` of the submission was left out: its place is the set-up's");
        assert_eq!(collection.warnings, [left_out("a.sh"), left_out("lib/data")]);
        let collection = lab.collection(Submission::File(&dir.join("answer")));
        assert_eq!((collection.pass_count, collection.warnings.len()), (1, 0));
        let collection = lab.collection(Submission::File(&dir.join("a.sh")));
        assert_eq!((collection.pass_count, collection.warnings), (0, vec![left_out("a.sh")]));
        for (path, text) in [("setup/a.sh", test), ("submission/a.sh", "exit 0 # mine")] {
            assert_eq!(fs::read_to_string(lab.dir.path().join(path)).unwrap(), text);
        }
    }

    #[test]
    fn a_submission_cannot_bring_the_script_that_grades_it() {
        let lab = Lab::new(&json!([{"script": "a.sh"}, {"script": "tests/b.sh"}]), &[]);
        lab.write("submission/a.sh", "exit 0");
        lab.write("submission/real/b.sh", "exit 0");
        std::os::unix::fs::symlink("real", lab.dir.path().join("submission/tests")).unwrap();
        let dir = lab.dir.path().join("submission");
        let collection = lab.collection(Submission::Folder(&dir));
        assert_eq!((collection.error_count, collection.warnings.len()), (2, 2), "{collection:?}");
    }

    #[test]
    fn a_submission_cannot_bring_a_makefile_that_make_would_prefer() {
        let evil = "all:\n\techo exit 0 >a.sh\n";
        for name in ["GNUmakefile", "makefile", "Makefile"] {
            let files = [("Makefile", "all:\n\ttouch built\n"), ("a.sh", "[ -e built ] && exit 1")];
            let lab = Lab::new(&json!([{"script": "a.sh"}]), &files).with("makefile", json!({}));
            lab.write(&format!("submission/{name}"), evil);
            let collection = lab.collection(Submission::Folder(&lab.dir.path().join("submission")));
            assert_eq!((collection.fail_count, collection.warnings.len()), (1, 1), "{name}: {collection:?}");
        }
    }

    #[test]
    fn a_submission_may_bring_the_makefile_that_a_set_up_lacks() {
        let lab = Lab::new(&json!([{"script": "a.sh"}]), &[("a.sh", "[ -e built ]")]).with("makefile", json!({}));
        lab.write("submission/makefile", "all:\n\ttouch built\n");
        assert_eq!(lab.collection(Submission::Folder(&lab.dir.path().join("submission"))).pass_count, 1);
    }

    #[test]
    fn of_many_files_that_gave_way_some_are_named() {
        let paths: Vec<_> = (0..25).map(|number| PathBuf::from(format!("{number}\u{1b}"))).collect();
        let warnings = left_out_warnings(&paths);
        assert_eq!((warnings.len(), warnings[20].as_str()), (21, "5 more files of the submission were left out"));
        assert!(!warnings.concat().contains('\u{1b}'));
    }

    #[test]
    fn what_make_has_made_is_there_for_each_script() {
        let scripts = json!([{"script": "a.sh"}, {"script": "b.sh"}]);
        let look = "[ \"$(cat built)\" = 42 ] && echo x >built";
        let files =
            [("Makefile", "all:\n\tfalse\nproduct: answer\n\tcp answer built\n"), ("a.sh", look), ("b.sh", look)];
        let lab = Lab::new(&scripts, &files).with("makefile", json!({"target": "product"}));
        lab.write("submission/answer", "42");
        let graded = lab.graded(Submission::Folder(&lab.dir.path().join("submission"))).ok().unwrap();
        let collection = graded.collection;
        assert_eq!(
            (collection.build_status, collection.pass_count),
            (BuildStatus::Passed, 2),
            "{:?}",
            collection.outcomes
        );
        assert!(graded.timings.make_step.is_some() && graded.timings.submission_prepare > Duration::ZERO);
        assert_eq!(lab.steps.take()[0], "Make");
    }

    #[test]
    fn what_cannot_be_made_has_no_outcomes_but_makes_words() {
        let scripts = json!([{"script": "a.sh"}]);
        let lab =
            Lab::new(&scripts, &[("Makefile", "all:\n\t@echo said; echo wrong >&2; exit 3\n"), ("a.sh", "exit 0")]);
        let graded = lab.with("makefile", json!({})).graded(Submission::Nothing).ok().unwrap();
        let (collection, measured) = (graded.collection, graded.measured);
        assert_eq!((collection.build_status, collection.outcomes.len()), (BuildStatus::Failed, 0));
        assert_eq!((collection.final_status(), measured.exit_code), ("failed", Some(2)));
        let output = collection.compiler_output.unwrap();
        assert!(output.starts_with("said\nwrong\n") && output.ends_with("make: code 2"), "{output}");
        assert!(measured.stdout_bytes >= 5);
    }

    #[test]
    fn a_make_step_that_does_not_end_has_failed() {
        let scripts = json!([{"script": "a.sh"}]);
        let lab = Lab::new(&scripts, &[("Makefile", "all:\n\tsleep 600\n"), ("a.sh", "exit 0")]);
        let lab = lab.with("makefile", json!({})).with("timeLimitSeconds", json!(1));
        let graded = lab.graded(Submission::Nothing).ok().unwrap();
        assert_eq!(graded.collection.build_status, BuildStatus::Failed);
        assert!(graded.collection.compiler_output.unwrap().ends_with("make: killed after the time limit"));
        assert_eq!(graded.measured.termination_reason, Some("timeout"));
    }

    #[test]
    fn a_script_that_does_not_end_has_timed_out_and_the_next_one_runs() {
        let scripts = json!([{"script": "a.sh"}, {"script": "b.sh"}]);
        let lab = Lab::new(&scripts, &[("a.sh", "echo begun; sleep 600"), ("b.sh", "exit 0")]);
        let lab = lab.with("timeLimitSeconds", json!(2));
        let collection = lab.collection(Submission::Nothing);
        assert_eq!((collection.timeout_count, collection.pass_count), (1, 1));
        assert_eq!(collection.final_status(), "timeout");
    }

    #[test]
    fn a_script_finds_its_seed_and_no_variable_of_ours() {
        let scripts = json!([{"script": "a.sh"}]);
        let script = "echo \"${CHICKADEE_ASSIGNMENT_SEED-none}\"; [ \"$(env | cut -d= -f1 | grep -vE '^(PWD|OLDPWD|SHLVL|_)$' | sort | tr '\\n' ' ')\" = \"$NAMES\" ]";
        let names = |seed: &str| format!("NAMES='{seed}HOME LANG PATH TMPDIR '\n{script}");
        for (seed, names) in [(None, names("")), (Some("v 1 '$x"), names("CHICKADEE_ASSIGNMENT_SEED "))] {
            let mut lab = Lab::new(&scripts, &[("a.sh", &names)]);
            lab.seed = seed.map(str::to_owned);
            let outcome = &lab.collection(Submission::Nothing).outcomes[0];
            assert_eq!(outcome.short_result, if seed.is_none() { "none" } else { "v 1 '$x" });
            assert_eq!(outcome.status, TestStatus::Pass, "{outcome:?}");
        }
    }

    #[test]
    fn a_job_that_is_stopped_is_no_result() {
        let lab = Lab::new(&json!([{"script": "a.sh"}]), &[("a.sh", "exit 0")]);
        lab.cancel.trigger();
        assert!(lab.graded(Submission::Nothing).is_err());
        let lab = lab.with("makefile", json!({}));
        lab.write("setup/Makefile", "all:\n");
        assert!(lab.graded(Submission::Nothing).is_err());
    }

    #[test]
    fn what_cannot_be_copied_is_our_fault_and_named() {
        let lab = Lab::new(&json!([{"script": "a.sh"}]), &[("a.sh", "exit 0")]);
        let pipe = lab.dir.path().join("submission/pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fault = lab.graded(Submission::Folder(&lab.dir.path().join("submission"))).err().unwrap();
        assert!(fault.to_string().contains("/pipe` is neither a file"), "{fault}");
    }

    #[test]
    fn times_are_whole_seconds_of_utc() {
        let collection = not_graded(
            Ids { submission_id: "s".into(), test_setup_id: "t".into(), attempt_number: 1 },
            &Fault::from_text("the disk is full"),
            Started(Timestamp::constant(1_771_596_250, 999_999_999)),
        );
        assert_eq!(collection.job_started_at.as_deref(), Some("2026-02-20T14:04:10Z"));
        assert!(collection.timestamp.len() == 20 && collection.timestamp.ends_with('Z'), "{}", collection.timestamp);
        assert_eq!(collection.compiler_output.as_deref(), Some("the disk is full"));
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

//! Jobs over set-ups and submissions on a real disk, with a real shell and make.

use std::cell::RefCell;
use std::fs;
use std::time::SystemTime;

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
    let found: Vec<_> =
        collection.outcomes.iter().map(|outcome| (outcome.test_name.as_str(), outcome.tier, outcome.points)).collect();
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
    let scripts =
        json!([{"script": "gone.sh", "points": 5}, {"script": "b.sh", "dependsOn": ["gone.sh"]}, {"script": "c.sh"}]);
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
    for (name, below, why) in [
        ("GNUmakefile", "", "make would take it instead of the set-up's"),
        ("makefile", "", "make would take it instead of the set-up's"),
        ("Makefile", "", "its place is the set-up's"),
        // make takes a folder of the name, too, and fails.
        ("GNUmakefile", "/x", "make would take it instead of the set-up's"),
        ("makefile", "/x", "make would take it instead of the set-up's"),
    ] {
        let files = [("Makefile", "all:\n\ttouch built\n"), ("a.sh", "[ -e built ] && exit 1")];
        let lab = Lab::new(&json!([{"script": "a.sh"}]), &files).with("makefile", json!({}));
        lab.write("submission/answer", "");
        lab.write(&format!("submission/{name}{below}"), evil);
        let collection = lab.collection(Submission::Folder(&lab.dir.path().join("submission")));
        let warnings = [format!("`{name}` of the submission was left out: {why}")];
        assert_eq!((collection.fail_count, collection.warnings.as_slice()), (1, warnings.as_slice()), "{collection:?}");
    }
}

/// Make compares times, and what is handed in comes after the set-up was written.
#[test]
fn make_takes_nothing_that_was_handed_in_for_newer_than_the_set_up() {
    let (pass, evil) = ("exit 0\n", "all:\n\ttouch evil\n");
    type Files = &'static [(&'static str, &'static str)];
    let table: [(Files, &str, &str); 5] = [
        // The built-in rule `%: %.sh`, which make tries for its makefile too.
        (&[("Makefile", "all:\n\t:\n"), ("a.sh", "[ -e evil ]")], "Makefile.sh", evil),
        (&[("Makefile", "include x.mk\n"), ("x.mk", "all:\n\t:\n"), ("a.sh", "[ -e evil ]")], "x.mk.sh", evil),
        (&[("Makefile", "all: check\n"), ("check", "exit 1"), ("a.sh", ". ./check")], "check.sh", pass),
        (&[("Makefile", "all: lib/check\n"), ("lib/check", "exit 1"), ("a.sh", ". lib/check")], "lib/check.sh", pass),
        // A target that was handed in is not finished.
        (&[("Makefile", "check: rule\n\tcp rule check\n"), ("rule", "exit 1"), ("a.sh", ". ./check")], "check", pass),
    ];
    for (files, handed_in, text) in table {
        let lab = Lab::new(&json!([{"script": "a.sh"}]), files).with("makefile", json!({}));
        lab.write(&format!("submission/{handed_in}"), text);
        let dir = lab.dir.path().join("submission");
        let file = fs::File::options().write(true).open(dir.join(handed_in)).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
        let collection = lab.collection(Submission::Folder(&dir));
        assert_eq!(collection.fail_count, 1, "{handed_in}: {collection:?}");
    }
}

#[test]
fn what_make_did_to_the_scripts_is_undone_and_told() {
    let evil = "echo exit 0 >a.sh\nmv tests other\nln -s other tests\necho exit 0 >other/b.sh\nchmod 500 .\n";
    let makefile = ("Makefile", "all:\n\tsh ./build\n");
    let files = [makefile, ("a.sh", "exit 1"), ("tests/b.sh", ". tests/lib"), ("tests/lib", "exit 1")];
    let scripts = json!([{"script": "a.sh"}, {"script": "tests/b.sh"}]);
    let lab = Lab::new(&scripts, &files).with("makefile", json!({}));
    lab.write("submission/build", evil);
    let collection = lab.collection(Submission::Folder(&lab.dir.path().join("submission")));
    let told = ["a.sh", "tests/b.sh"].map(|file| format!("`{file}` of the set-up was changed by make, and put back"));
    assert_eq!((collection.pass_count, collection.warnings.as_slice()), (0, told.as_slice()), "{collection:?}");
}

#[test]
fn a_makefile_that_was_handed_in_changes_nothing_of_the_set_up() {
    let files = [("a.sh", ". ./lib"), ("lib", "[ -e built ] && exit 1"), ("gone", ""), ("same", "")];
    let lab = Lab::new(&json!([{"script": "a.sh"}]), &files).with("makefile", json!({}));
    lab.write("submission/Makefile", "all:\n\ttouch built same\n\techo exit 0 >lib\n\trm gone\n");
    let collection = lab.collection(Submission::Folder(&lab.dir.path().join("submission")));
    let told = ["gone", "lib"].map(|file| format!("`{file}` of the set-up was changed by make, and put back"));
    assert_eq!((collection.fail_count, collection.warnings.as_slice()), (1, told.as_slice()), "{collection:?}");
}

#[test]
fn what_a_set_up_has_compiled_is_not_graded_in_place_of_a_submission() {
    let files = [("Makefile", "prog:\n"), ("prog", "\u{7f}ELF..."), ("a.sh", "[ -e prog ]")];
    let lab = Lab::new(&json!([{"script": "a.sh"}]), &files);
    lab.write("submission/prog.c", "int main(void) { return 0; }");
    let dir = lab.dir.path().join("submission");
    let told =
        "the set-up has `prog` compiled already, and make takes that for what `prog.c` of the submission becomes; ";
    let collection = lab.collection(Submission::Folder(&dir));
    assert_eq!((collection.pass_count, collection.warnings.len()), (1, 1), "a script may not use make: {collection:?}");
    assert!(collection.warnings[0].starts_with(told), "{collection:?}");
    let lab = lab.with("makefile", json!({}));
    let collection = lab.collection(Submission::Folder(&dir));
    assert_eq!(collection.build_status, BuildStatus::Failed);
    assert!(collection.compiler_output.unwrap().starts_with(&format!("nothing was made: {told}")));
    for (set_up, submission) in [("prog", "prog.txt"), ("prog.o", "prog.h"), ("other", "prog.c")] {
        let lab =
            Lab::new(&json!([{"script": "a.sh"}]), &[("Makefile", "all:\n"), ("a.sh", ""), (set_up, "\u{7f}ELF")]);
        lab.write(&format!("submission/{submission}"), "");
        let dir = lab.dir.path().join("submission");
        let collection = lab.with("makefile", json!({})).collection(Submission::Folder(&dir));
        assert_eq!(collection.pass_count, 1, "{set_up} {submission}: {collection:?}");
    }
}

#[test]
fn who_packs_a_folder_too_many_is_told_unless_that_was_right() {
    for (test, in_set_up, is_told) in [
        ("[ -e answer ]", "a.sh", true),
        ("[ -e alice/answer ]", "a.sh", false),
        ("[ -e answer ]", "alice/other", false),
    ] {
        let lab = Lab::new(&json!([{"script": "a.sh"}]), &[("a.sh", test)]);
        if in_set_up != "a.sh" {
            lab.write(&format!("setup/{in_set_up}"), "");
        }
        lab.write("submission/alice/answer", "42");
        let collection = lab.collection(Submission::Folder(&lab.dir.path().join("submission")));
        let expected = "everything that was handed in lies in the folder `alice`";
        let found = collection.warnings.iter().any(|warning| warning.starts_with(expected));
        assert_eq!(found, is_told, "{test} {in_set_up}: {collection:?}");
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
    let warnings = left_out_warnings(&paths, &[]);
    assert_eq!((warnings.len(), warnings[20].as_str()), (21, "5 more files of the submission were left out"));
    assert!(!warnings.concat().contains('\u{1b}'));
}

#[test]
fn what_make_has_made_is_there_for_each_script() {
    let scripts = json!([{"script": "a.sh"}, {"script": "b.sh"}]);
    let look = "[ \"$(cat built)\" = 42 ] && echo x >built";
    let files = [("Makefile", "all:\n\tfalse\nproduct: answer\n\tcp answer built\n"), ("a.sh", look), ("b.sh", look)];
    let lab = Lab::new(&scripts, &files).with("makefile", json!({"target": "product"}));
    lab.write("submission/answer", "42");
    let graded = lab.graded(Submission::Folder(&lab.dir.path().join("submission"))).ok().unwrap();
    let collection = graded.collection;
    assert_eq!((collection.build_status, collection.pass_count), (BuildStatus::Passed, 2), "{:?}", collection.outcomes);
    assert!(graded.measured.stdout_bytes > 0 && graded.measured.exit_code == Some(0), "{:?}", graded.measured);
    assert!(graded.timings.make_step.is_some() && graded.timings.submission_prepare > Duration::ZERO);
    assert_eq!(lab.steps.take()[0], "Make");
}

#[test]
fn what_cannot_be_made_has_no_outcomes_but_makes_words() {
    let scripts = json!([{"script": "a.sh"}]);
    let lab = Lab::new(&scripts, &[("Makefile", "all:\n\t@echo said; echo wrong >&2; exit 3\n"), ("a.sh", "exit 0")]);
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
    assert!(
        graded
            .collection
            .compiler_output
            .unwrap()
            .ends_with("make: killed after the time limit of 1 s (`timeLimitSeconds`)")
    );
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
fn every_row_of_the_script_contract_holds_for_a_real_shell() {
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

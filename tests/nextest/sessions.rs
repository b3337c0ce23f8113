//! All processes of one run are one session.

use std::fs;
use std::thread;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::world::Project;
use crate::{FAILED, claim, count, nothing_is_left, project, project_with, run, run_id, start, telling, told};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(all_processes_write_one_summary),
        claim(stages_run_once_whatever_the_number_of_threads),
        claim(a_failed_build_fails_every_test_without_another_try),
        claim(missing_packages_fail_every_test_without_another_look),
        claim(suites_take_turns_without_a_test_group),
        claim(two_runs_with_two_proof_folders_go_on_at_once),
        claim(two_runs_with_one_proof_folder_run_one_after_the_other),
        claim(what_a_killed_run_left_is_told_and_removed),
        claim(files_of_a_run_that_cannot_be_read_stop_nobody),
    ]
}

fn all_processes_write_one_summary() {
    let project = project();
    project.suite("10-a", &[("execute", "true")]).suite("20-b", &[("execute", "false")]);
    project.file("suites/set/1.sh", "exit 0").file("suites/set/2.sh", "exit 1");
    let ended = run(&project, &["--test-threads", "4"]);
    ended.code(FAILED);
    let (summary, id) = (project.summary(), run_id(&ended));
    assert_eq!((&summary["run_id"], &project.json("run.json")["run_id"]), (&json!(id), &json!(id)));
    let names: Vec<_> = summary["suites"].as_array().unwrap().iter().map(|suite| &suite["name"]).collect();
    assert_eq!(names, ["10-a", "20-b", "set/1", "set/2"]);
    assert_eq!((&summary["counts"]["pass"], &summary["counts"]["fail"]), (&json!(2), &json!(2)));
    assert_eq!((&summary["selected"], &summary["not_selected"]), (&json!(4), &json!(0)));
    assert!(summary["finished_at"].is_string() && summary["harness_policy"].is_string(), "{summary:#}");
    assert!(project.journal().iter().all(|event| event["run_id"] == id));
    assert_eq!(count(&project, "run-suites", "suite_end"), 4);
    // nextest would tell of a process of ours that outlives its test.
    assert!(!ended.all().contains("LEAK"), "{ended}");
    nothing_is_left(&project);
}

/// A project that needs a package and a build, done by programs that tell of their calls.
fn staged(cargo: &str, dpkg: &str) -> Project {
    let project = project_with("product: {name: tool, build: cargo, bin: bin/tool}\ndeps: {packages: [small]}\n");
    let calls = project.path("calls").display().to_string();
    project.program("bin/tool", "#!/bin/sh\necho tool\n");
    project.program("bin/cargo", &format!("#!/bin/sh\necho cargo >>{calls}\n{cargo}\n"));
    // Whichever of them this distribution has.
    for name in ["dpkg-query", "pacman"] {
        project.program(&format!("bin/{name}"), &format!("#!/bin/sh\necho packages >>{calls}\n{dpkg}\n"));
    }
    project.program("bin/apt-get", &format!("#!/bin/sh\necho apt-get >>{calls}\n"));
    for name in ["10-a", "20-b", "30-c", "40-d"] {
        project.suite(name, &[("execute", "tool; echo ran >>order")]);
    }
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    project.variable("PATH", path)
}

const INSTALLED: &str = "printf 'small\\tall\\tinstalled\\n'";

fn calls(project: &Project) -> Vec<String> {
    project.text("calls").lines().map(str::to_owned).collect()
}

fn stages_run_once_whatever_the_number_of_threads() {
    for threads in ["1", "2", "4", "8"] {
        let project = staged("exit 0", INSTALLED);
        run(&project, &["--test-threads", threads]).code(0);
        assert_eq!(calls(&project), ["packages", "cargo"], "{threads} threads");
        for stage in ["deps", "build"] {
            assert_eq!(count(&project, stage, "stage_start"), 1, "{stage} with {threads} threads");
            assert_eq!(count(&project, stage, "stage_end"), 1, "{stage} with {threads} threads");
        }
        let summary = project.summary();
        let stages: Vec<_> = summary["stages"].as_array().unwrap().iter().map(|stage| &stage["name"]).collect();
        assert_eq!(stages, ["deps", "build", "run-suites"]);
        assert_eq!(project.order(), ["ran"; 4]);
    }
}

fn a_failed_build_fails_every_test_without_another_try() {
    for threads in ["1", "4"] {
        let project = staged("echo words of cargo >&2; exit 42", INSTALLED);
        let ended = run(&project, &["--test-threads", threads]);
        ended.code(FAILED).says("4 failed");
        assert_eq!(calls(&project), ["packages", "cargo"], "{threads} threads");
        assert_eq!(count(&project, "build", "stage_start"), 1);
        assert!(project.order().is_empty());
        assert_eq!(ended.all().matches("ended with code 42\n    | words of cargo").count(), 4, "{ended}");
        assert_eq!(project.summary()["stages"][1]["rc"], 42);
    }
}

fn missing_packages_fail_every_test_without_another_look() {
    // dpkg-query knows neither the name nor anything that provides it; pacman tells what is missing.
    let project = staged("exit 0", "case $0,$* in *pacman,*) echo small; exit 127;; *Provides*) ;; *) exit 1;; esac");
    let ended = run(&project, &["--test-threads", "4"]);
    ended.code(FAILED).says("4 failed");
    let calls = calls(&project);
    assert!(!calls.contains(&"cargo".to_owned()) && project.order().is_empty(), "{calls:?}");
    assert_eq!(count(&project, "deps", "stage_start"), 1, "{calls:?}");
    let words = "names what is not installed here: `small`";
    assert_eq!(ended.all().matches(words).count(), 4, "{ended}");
}

fn suites_take_turns_without_a_test_group() {
    let project = project();
    let names: Vec<String> = (10..30).map(|number| format!("{number}-a")).collect();
    names.iter().for_each(|name| telling(&project, name));
    run(&project, &["--test-threads", "4"]).code(0);
    assert_eq!(told(&project).len(), 3 * names.len());
}

/// Each waits for the other: one after the other would wait for ever.
fn two_runs_with_two_proof_folders_go_on_at_once() {
    let meet = "echo x >\"met-$ME\"; until [[ -e met-$OTHER ]]; do sleep 0.01; done";
    let one = project().variable("ME", "one").variable("OTHER", "other");
    one.suite("10-meet", &[("execute", meet)]);
    let other = project().variable("ME", "other").variable("OTHER", "one");
    let other = ["PROJECT_DIR", "SUITES_DIR"]
        .iter()
        .fold(other, |other, name| other.variable(name, one.path(if *name == "PROJECT_DIR" { "" } else { "suites" })));
    let runs = thread::scope(|scope| {
        let runs = [&one, &other].map(|project| scope.spawn(|| run(project, &[])));
        runs.map(|run| run.join().unwrap())
    });
    for (ended, project) in runs.iter().zip([&one, &other]) {
        ended.code(0);
        assert_eq!(project.summary()["run_id"], run_id(ended));
        project.record("10-meet").assert_pass();
    }
}

/// The one that comes second waits until the first has run all its tests: their processes do not take turns.
fn two_runs_with_one_proof_folder_run_one_after_the_other() {
    let project = project();
    let names: Vec<String> = (10..16).map(|number| format!("{number}-a")).collect();
    names.iter().for_each(|name| telling(&project, name));
    let runs = thread::scope(|scope| {
        let runs = [(); 2].map(|()| scope.spawn(|| run(&project, &[])));
        runs.map(|run| run.join().unwrap())
    });
    for ended in &runs {
        ended.code(0);
    }
    let journal = project.journal();
    let mut ids: Vec<_> = journal.iter().map(|line| line["run_id"].as_str().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let summary = project.summary();
    assert_eq!((&summary["run_id"], &summary["counts"]["pass"]), (&json!(ids[1]), &json!(names.len())));
}

/// nextest and its test are killed while a suite runs.
fn killed() -> Project {
    let project = project();
    project.suite("10-a", &[("execute", "echo $$ >block.new; mv block.new block; sleep 1000")]);
    project.suite("20-b", &[("execute", "true")]);
    let running = start(&project, "run", &["--test-threads", "1"]);
    project.wait_for("block");
    let tests = crate::soak::tests(&running);
    running.signal(Signal::SIGKILL);
    tests.iter().for_each(|(pid, _)| nix::sys::signal::kill(*pid, Signal::SIGKILL).unwrap());
    running.wait();
    nothing_is_left(&project);
    project.suite("10-a", &[("execute", "true")]);
    project
}

fn events(project: &Project, event: &str) -> Vec<String> {
    let found = project.journal().into_iter().filter(|line| line["event"] == event);
    found.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

fn what_a_killed_run_left_is_told_and_removed() {
    let project = killed();
    let scratch = project.json("run.json")["scratch"].as_str().unwrap().to_owned();
    assert!(fs::exists(&scratch).unwrap());
    let ended = run(&project, &["--success-output", "final"]);
    ended.code(0).says("while running [10-a]");
    assert!(!fs::exists(&scratch).unwrap());
    let summary = project.summary();
    assert_eq!((&summary["traces"]["interrupted"], &summary["interrupted"]), (&json!(["10-a"]), &json!(false)));
    assert_eq!((&summary["run_id"], &summary["counts"]["pass"]), (&json!(run_id(&ended)), &json!(2)));
    // Told once, by the process that found it.
    assert_eq!(events(&project, "traces_swept").len(), 1);
}

fn files_of_a_run_that_cannot_be_read_stop_nobody() {
    let project = killed();
    let [run_file, summary] = ["run.json", "summary.json"].map(|name| project.text(format!("proof/{name}")));
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let damaged = [
        (half(&run_file), summary.clone(), "run.json` cannot be read"),
        ("[]\n".to_owned(), summary.clone(), "run.json` cannot be read"),
        (run_file.replace("\"schema\":1", "\"schema\":99"), summary.clone(), "run.json` cannot be read"),
        (run_file, half(&summary), "was killed while running []"),
    ];
    for (run_file, summary, told) in damaged {
        project.file("proof/run.json", run_file).file("proof/summary.json", summary);
        let ended = run(&project, &["--success-output", "final"]);
        ended.code(0);
        assert_eq!(project.summary()["counts"]["pass"], 2);
        assert_eq!(ended.all().matches(told).count(), 1, "{told}: {ended}");
        let log = project.text("proof/logs/runner.jsonl");
        assert_eq!(log.matches(told).count(), 1, "{told}: {log}");
    }
}

//! Stages: each alone or all together, one run, its exit codes.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{Project, claim, command};
use crate::{RUNNER, project, with_cargo, with_product};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(all_runs_the_stages_in_order),
        claim(all_with_a_failing_suite_exits_with_1),
        claim(stages_in_processes_of_their_own_are_one_run),
        claim(the_wrappers_one_after_another_say_the_same_as_all),
        claim(preflight_begins_a_new_run),
        claim(run_suites_alone_begins_a_run_and_finds_the_product),
        claim(run_suites_without_a_product_says_which_stage_makes_it),
        claim(a_second_run_of_the_suites_is_a_run_of_its_own),
        claim(a_failed_build_ends_all_with_its_code_and_words),
        claim(after_a_failed_build_of_its_run_no_suite_runs),
        claim(after_failed_deps_of_its_run_no_suite_runs),
        claim(an_interrupted_build_is_no_failed_build),
        claim(a_trial_whose_result_cannot_be_kept_has_failed),
        claim(a_profile_that_is_not_there_ends_the_build_with_cargos_words),
        claim(a_toolchain_that_is_not_there_ends_preflight_with_rustups_words),
        claim(a_manifest_that_is_wrong_ends_preflight_with_cargos_words),
        claim(without_cargo_preflight_says_what_to_install),
        claim(the_build_says_what_it_has_built),
        claim(outside_a_repository_the_build_says_no_revision),
        claim(collect_before_anything_ran_says_so),
        claim(wrong_numbers_and_filters_are_configuration_errors),
        claim(a_proof_root_that_cannot_be_written_is_our_fault),
        claim(flags_win_over_the_environment),
    ]
}

fn stages_of(project: &Project) -> Vec<(String, String)> {
    let summary = project.summary();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    summary["stages"].as_array().unwrap().iter().map(|stage| (text(&stage["name"]), text(&stage["status"]))).collect()
}

fn names_of(stages: &[(String, String)]) -> Vec<&str> {
    stages.iter().map(|(name, _)| name.as_str()).collect()
}

/// A product and a suite that calls it.
fn complete() -> Project {
    let project = with_cargo(project("product: {name: tool, build: cargo}\n"));
    with_product(&project, "fn main() {}\n");
    project.suite("10-a", &[("execute", "[[ $(tool) == 'it works' ]]\necho ran >>order"), ("restore", "true")]);
    project
}

fn all_runs_the_stages_in_order() {
    let project = complete();
    project.run(&["all"]).code(0).says("1 passed, 0 failed");
    let stages = stages_of(&project);
    assert_eq!(names_of(&stages), ["preflight", "deps", "build", "run-suites", "collect"]);
    assert!(stages.iter().all(|(_, status)| status == "pass"), "{stages:?}");
    assert_eq!(project.order(), ["ran"]);
    let summary = project.summary();
    assert_eq!(summary["harness_policy"], "No harness mutation of product-owned artifacts; fail-on-skip enforced");
    for name in ["proofs.tar.gz", "manifest.sha256"] {
        assert!(project.path("proof").join(name).is_file(), "{name}");
    }
}

fn all_with_a_failing_suite_exits_with_1() {
    let project = project("");
    project.suite("10-a", &[("execute", "exit 3")]).suite("20-b", &[("execute", "true")]);
    project.run(&["all"]).code(1).says("1 passed, 1 failed").says("execute exited with code 3");
    assert!(project.path("proof/proofs.tar.gz").is_file());
}

fn stages_in_processes_of_their_own_are_one_run() {
    let project = complete();
    let mut runs = Vec::new();
    for stage in ["preflight", "deps", "build", "run-suites", "collect"] {
        project.run(&[stage]).code(0);
        let summary = project.summary();
        runs.push((summary["run_id"].clone(), summary["started_at"].clone()));
    }
    assert!(runs.iter().all(|run| *run == runs[0]), "{runs:?}");
    assert_eq!(names_of(&stages_of(&project)), ["preflight", "deps", "build", "run-suites", "collect"]);
    assert_eq!(project.order(), ["ran"]);
}

/// Takes away what may differ: times, and which run it was.
fn without_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let times = ["duration_ms", "started_at", "finished_at", "run_id", "usage", "executionTimeMs"];
            times.iter().for_each(|key| drop(map.remove(*key)));
            map.values_mut().for_each(without_times);
        }
        Value::Array(values) => values.iter_mut().for_each(without_times),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn the_wrappers_one_after_another_say_the_same_as_all() {
    let project = complete();
    project.run(&["all"]).code(0);
    let mut by_all = project.summary();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sh");
    let path = format!("{}:{}", Path::new(RUNNER).parent().unwrap().display(), env!("PATH"));
    let mut project = project.variable("PATH", path);
    for name in ["preflight.sh", "install_deps.sh", "build_product.sh", "run_suites.sh", "collect_artifacts.sh"] {
        project = project.by(folder.join(name));
        project.run(&[]).code(0);
    }
    let mut by_wrappers = project.summary();
    assert_ne!(by_all["run_id"], by_wrappers["run_id"]);
    without_times(&mut by_all);
    without_times(&mut by_wrappers);
    assert_eq!(by_all, by_wrappers);
}

fn preflight_begins_a_new_run() {
    let project = complete();
    project.run(&["preflight"]).code(0).says("cargo (stable): cargo ").says("system: ").says("bash: ");
    let first = project.summary()["run_id"].clone();
    project.run(&["build"]).code(0);
    project.run(&["preflight"]).code(0);
    assert_ne!(project.summary()["run_id"], first);
    assert_eq!(names_of(&stages_of(&project)), ["preflight"]);
}

fn run_suites_alone_begins_a_run_and_finds_the_product() {
    let project = complete();
    project.run(&["build"]).code(0);
    project.run(&["run-suites"]).code(0);
    project.run(&["run-suites"]).code(0);
    assert_eq!(names_of(&stages_of(&project)), ["run-suites"]);
    assert_eq!(project.order(), ["ran", "ran"]);
}

fn run_suites_without_a_product_says_which_stage_makes_it() {
    let project = complete();
    project.run(&["run-suites"]).code(3).stderr_says("target/release/tool` does not exist; build it (stage `build`)");
    assert!(project.order().is_empty());
}

fn a_second_run_of_the_suites_is_a_run_of_its_own() {
    let project = project("");
    project.suite("10-a", &[("execute", "true")]);
    project.run(&["run-suites"]).code(0);
    let first = project.summary()["run_id"].clone();
    project.run(&["run-suites"]).code(0);
    assert_ne!(project.summary()["run_id"], first);
}

fn a_failed_build_ends_all_with_its_code_and_words() {
    let project = complete();
    project.file("src/main.rs", "fn main() { nonsense }\n");
    project.run(&["all"]).code(101).stderr_says("cannot find value `nonsense`").stderr_says("ended with code 101");
    assert!(project.order().is_empty());
    assert_eq!(stages_of(&project).last().unwrap(), &("build".to_owned(), "fail".to_owned()));
    let ends = project.journal().into_iter().filter(|line| line["event"] == "stage_end" && line["stage"] == "build");
    assert_eq!(ends.map(|line| line["rc"].clone()).collect::<Vec<_>>(), [json!(101)]);
}

fn after_a_failed_build_of_its_run_no_suite_runs() {
    let project = complete();
    project.file("src/main.rs", "fn main() { nonsense }\n");
    project.run(&["build"]).code(101);
    project.run(&["run-suites"]).code(101).stderr_says("cargo build");
    assert!(project.order().is_empty());
    project.file("src/main.rs", "fn main() { println!(\"it works\"); }\n");
    project.run(&["build"]).code(0);
    project.run(&["run-suites"]).code(0);
    assert_eq!(project.order(), ["ran"]);
}

fn after_failed_deps_of_its_run_no_suite_runs() {
    let project = project("deps: {packages: [no-such-package-anywhere]}\n").variable("PATH", "/nowhere:/usr/bin:/bin");
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    let code = project.run(&["deps"]).status.code().unwrap();
    assert_ne!(code, 0);
    let ended = project.run(&["run-suites"]);
    ended.code(code).stderr_says("`container-runner deps` has failed in this run").stderr_says("preflight");
    assert!(project.order().is_empty());
    let stages = stages_of(&project);
    assert_eq!(stages.last().unwrap(), &("run-suites".to_owned(), "fail".to_owned()));
}

fn an_interrupted_build_is_no_failed_build() {
    let project = with_cargo(project("product: {name: tool, build: cargo}\n"));
    let script = "fn main() { std::fs::write(\"pid\", std::process::id().to_string()).unwrap(); loop { std::thread::park() } }\n";
    with_product(&project, script);
    project.suite("10-a", &[("execute", "echo ran >>order")]);
    let running = project.start(&["build"]);
    project.wait_for("pid");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().code(143);
    project.run(&["run-suites"]).code(3);
    assert!(project.order().is_empty());
}

fn a_trial_whose_result_cannot_be_kept_has_failed() {
    let project = project("");
    // The folder comes back as a file, so that nothing can be made in it. Meanwhile one is being made there, ahead of its trial.
    let in_the_way = "until rm -rf proof/results && (echo in-the-way >proof/results) 2>/dev/null; do sleep 0.01; done";
    project.suite("10-a", &[("execute", in_the_way)]);
    project.suite("20-b", &[("execute", "true")]);
    project.run(&["run-suites"]).code(1).says("FAIL 10-a").says("0 passed, 2 failed");
    let summary = project.summary();
    assert_eq!(summary["counts"]["fail"], 2);
    project.record("10-a").assert_fail("proof/results");
}

fn a_profile_that_is_not_there_ends_the_build_with_cargos_words() {
    let project = complete().variable("CARGO_PROFILE", "no-such-profile");
    project.run(&["all"]).code(101).stderr_says("profile `no-such-profile` is not defined");
    assert!(project.order().is_empty());
    assert_eq!(stages_of(&project).last().unwrap(), &("build".to_owned(), "fail".to_owned()));
}

fn a_toolchain_that_is_not_there_ends_preflight_with_rustups_words() {
    let project = complete().variable("RUSTUP_TOOLCHAIN", "no-such-toolchain");
    project.run(&["preflight"]).code(1).stderr_says("no-such-toolchain");
    assert_eq!(stages_of(&project), [("preflight".to_owned(), "fail".to_owned())]);
}

fn a_manifest_that_is_wrong_ends_preflight_with_cargos_words() {
    let project = complete();
    project.file("Cargo.toml", "[package\n");
    project.run(&["preflight"]).code(101).stderr_says("Cargo.toml");
}

fn without_cargo_preflight_says_what_to_install() {
    let project = complete().variable("PATH", "/usr/bin:/bin");
    project.run(&["preflight"]).code(3).stderr_says("no `cargo` on PATH").stderr_says("install Rust");
}

fn the_build_says_what_it_has_built() {
    let project = complete();
    let git = |words: &[&str]| {
        let identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"];
        let done = command("git").arg("-C").arg(project.path("")).args(identity).args(words).output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "-q"]);
    project.file(".gitignore", "/target\n/proof\n/tmp\n/order\n/runner.jsonl\n/Cargo.lock\n");
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "first"]);
    project.run(&["build"]).code(0);
    let meta = project.json("results/build_meta.json");
    assert_eq!((&meta["profile"], &meta["toolchain"]), (&json!("release"), &json!("stable")));
    assert_eq!((&meta["revision"], &meta["dirty"]), (&json!(git(&["rev-parse", "HEAD"])), &json!(false)));
    let binary = project.path("target/release/tool");
    assert_eq!(meta["binary"], json!(binary));
    let sum = String::from_utf8(command("sha256sum").arg(&binary).output().unwrap().stdout).unwrap();
    assert_eq!(meta["sha256"].as_str(), sum.split(' ').next());
    project.file("src/main.rs", "fn main() { println!(\"otherwise\"); }\n");
    project.run(&["build"]).code(0);
    assert_eq!(project.json("results/build_meta.json")["dirty"], json!(true));
}

fn outside_a_repository_the_build_says_no_revision() {
    let project = complete().variable("GIT_CEILING_DIRECTORIES", "/");
    project.run(&["build"]).code(0);
    let meta = project.json("results/build_meta.json");
    assert_eq!((&meta["revision"], &meta["dirty"]), (&Value::Null, &Value::Null));
}

fn collect_before_anything_ran_says_so() {
    let project = project("");
    project.suite("10-a", &[("execute", "true")]);
    project.run(&["collect"]).code(2).stderr_says("nothing has been run in").stderr_says("run the stages first");
    assert!(!project.path("proof").exists());
}

fn wrong_numbers_and_filters_are_configuration_errors() {
    let wrong = [
        ("SUITE_TIMEOUT_SEC", "soon", "`SUITE_TIMEOUT_SEC` is `soon`"),
        ("TEST_FILTER", "10-b", "did you mean `10-a`?"),
        ("PROJECT_DIR", "/no/such/folder", "which is not a folder"),
    ];
    for (name, value, text) in wrong {
        let project = project("").variable(name, value);
        project.suite("10-a", &[("execute", "echo ran >>order")]);
        project.run(&["all"]).code(2).stderr_says(text);
        assert!(project.order().is_empty());
    }
    project("").run(&["al"]).code(2).stderr_says("all");
    project("").run(&[]).code(2).stderr_says("Usage");
}

fn a_proof_root_that_cannot_be_written_is_our_fault() {
    let project = project("");
    project.suite("10-a", &[("execute", "echo ran >>order")]).file("a-file", "");
    let project = project.variable("PROOF_DIR", "/proc/no-such-folder");
    project.run(&["all"]).code(3).stderr_says("/proc/no-such-folder").stderr_says("PROOF_DIR");
    assert!(project.order().is_empty());
}

fn flags_win_over_the_environment() {
    let project = project("");
    project.suite("10-a", &[("execute", "false")]);
    project.file("others/20-b/task.yaml", "summary: b\nexecute: echo other >>order\n");
    project.file("others/runner.yaml", "isolation: none\n");
    let [suites, proof] = ["others", "other-proof"].map(|name| project.path(name).display().to_string());
    project.run(&["run-suites", "--suites", &suites, "--proof", &proof]).code(0);
    assert_eq!(project.order(), ["other"]);
    assert!(fs::metadata(project.path("other-proof/summary.json")).is_ok());
    assert!(!project.path("proof").exists());
}

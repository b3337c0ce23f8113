//! A crate of somebody else, set up as README says: built by a cargo of its own with this package as a dependency, its suites run
//! by `cargo test` and nextest. And how a project that builds nothing gets its product.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a claim fails by a panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;
use wait_timeout::ChildExt;
use world::{Ended, NO_CONTAINER, Project, claim, has, root_claim, search_path, with_cargo};

#[path = "harness/world.rs"]
mod world;

fn main() -> std::process::ExitCode {
    world::main(|| {
        vec![
            claim(the_readme_is_what_the_crate_does),
            claim(suites_of_a_crate_run_the_product_that_cargo_has_built),
            claim(a_harness_started_without_cargo_knows_its_product),
            claim(a_listing_is_names),
            claim(a_wrong_suite_fails_cargo_test),
            claim(nextest_runs_its_suites),
            root_claim(on_a_laptop_nothing_is_run_unless_it_is_said_to_be_harmless),
            claim(a_crate_with_suites_compiles_no_http_no_tls_no_async),
            claim(a_product_that_a_variable_names_is_called_and_logged),
            claim(a_product_that_is_named_and_missing_is_an_error),
            claim(what_runner_yaml_says_of_the_product_wins),
        ]
    })
}

// ---------------------------------------------------------------------------------------------------------------------------
// The crate
// ---------------------------------------------------------------------------------------------------------------------------

/// Compiling this package and its dependencies on a slow and busy machine.
const BUILD_DEADLINE: Duration = Duration::from_secs(1200);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixture() -> PathBuf {
    root().join("tests/fixtures/downstream")
}

/// The folder of the crate. It is the same each time, so that cargo builds again only what has changed.
fn crate_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("downstream");
        copy(&fixture(), &dir);
        build(&dir);
        dir
    })
}

/// Copies what differs, and removes suites that are gone. Other processes may do the same at the same time.
fn copy(from: &Path, to: &Path) {
    let outside = root().to_str().unwrap();
    for path in files(from) {
        let text = fs::read_to_string(from.join(&path)).unwrap();
        write(&to.join(&path), &text.replace("\"../../..\"", &format!("\"{outside}\"")));
    }
    for path in files(&to.join("suites")).iter().filter(|path| !from.join("suites").join(path).exists()) {
        fs::remove_file(to.join("suites").join(path)).ok();
    }
    // The same versions of everything, which are there without a network. Cargo adds the crate itself.
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    if write(&to.join("origin.lock"), &lock) || !to.join("Cargo.lock").exists() {
        write(&to.join("Cargo.lock"), &lock);
    }
}

/// Paths below `dir` of its files; those that cargo or a harness makes are not of it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let made = ["target", ".proof", "Cargo.lock"];
    let entries = walkdir::WalkDir::new(dir).into_iter();
    let entries = entries.filter_entry(|entry| !made.iter().any(|name| entry.file_name() == *name)).flatten();
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.map(|entry| entry.path().strip_prefix(dir).unwrap().to_owned()).collect()
}

/// Returns whether the file had another content.
fn write(path: &Path, text: &str) -> bool {
    let differs = fs::read(path).ok().is_none_or(|old| old != text.as_bytes());
    if differs {
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        file.persist(path).unwrap();
    }
    differs
}

/// The target folder of these claims themselves: their cargo waits for no test, and most of it is compiled already.
fn target_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

fn build(dir: &Path) {
    let project = cargo(Project::bare());
    let words = ["test", "--no-run", "--offline", "--manifest-path"].map(str::to_owned);
    let mut cargo = project.command(&words.each_ref().map(String::as_str));
    let log = project.path("build.log");
    let file = || Stdio::from(fs::File::options().create(true).append(true).open(&log).unwrap());
    let mut child = cargo.arg(dir.join("Cargo.toml")).stdout(file()).stderr(file()).spawn().unwrap();
    let status = child.wait_timeout(BUILD_DEADLINE).unwrap();
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(status.is_some_and(|status| status.success()), "{}", project.text("build.log"));
}

/// A cargo that knows nothing of the one that runs these claims, but for where its files are.
fn cargo(project: Project) -> Project {
    with_cargo(project).by(world::find("cargo").unwrap()).variable("CARGO_TARGET_DIR", target_dir())
}

/// Runs cargo on the crate; `project` says which suites and where evidence goes.
fn in_crate(project: &Project, words: &[&str], rest: &[&str]) -> Ended {
    let manifest = crate_dir().join("Cargo.toml");
    let place = ["--offline", "--manifest-path", manifest.to_str().unwrap()];
    project.run(&[words, &place, rest].concat())
}

/// The crate as it is, with the harness's own places.
fn as_it_is() -> Project {
    let places = ["PROJECT_DIR", "SUITES_DIR", "PROOF_DIR", "RUNNER_JSONL", "TMPDIR"];
    places.iter().fold(cargo(Project::bare()), |project, name| project.without_variable(name))
}

// ---------------------------------------------------------------------------------------------------------------------------
// Claims about it
// ---------------------------------------------------------------------------------------------------------------------------

/// Lines that say something.
fn essence(text: &str) -> Vec<String> {
    let without_comment = |line: &str| line.split(" #").next().unwrap().trim_end().to_owned();
    let lines = text.lines().map(without_comment).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with(['#', '/'])).collect()
}

fn the_readme_is_what_the_crate_does() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let recipe = readme.split("\n## Your own crate\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks: Vec<_> =
        recipe.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap().1).collect();
    let shown: Vec<_> = blocks
        .iter()
        .map(|block| {
            let path = block.lines().next().unwrap().trim_start_matches(['#', '/', ' ']);
            let real = essence(&fs::read_to_string(fixture().join(path)).unwrap_or_else(|e| panic!("{path}: {e}")));
            let said = essence(block);
            if path == "Cargo.toml" {
                // Where this package is, is somebody else's business.
                let told = said.iter().filter(|line| !line.starts_with("proving-ground ="));
                told.for_each(|line| assert!(real.contains(line), "{path} has no `{line}`"));
            } else {
                assert_eq!(said, real, "{path}");
            }
            path
        })
        .collect();
    assert_eq!(shown, ["Cargo.toml", "tests/suites.rs", "suites/runner.yaml", "suites/10-greets/task.yaml"]);
}

fn suites_of_a_crate_run_the_product_that_cargo_has_built() {
    let ended = in_crate(&as_it_is(), &["test", "--test", "suites"], &[]);
    ended.code(0).says("test result: ok. 2 passed; 0 failed");
    assert_eq!(ended.names(), ["10-greets", "20-refuses-two-names"]);
    let proof = crate_dir().join(".proof");
    let text = |path: &str| fs::read_to_string(proof.join(path)).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&text("summary.json")).unwrap();
    assert_eq!((&summary["counts"]["pass"], &summary["counts"]["fail"]), (&json!(2), &json!(0)));
    assert!(summary["harness_policy"].is_string(), "{summary:#}");
    assert_eq!(text("logs/10-greets/product.stdout.log"), "hello\nhello, 10-greets\n");
    assert_eq!(text("logs/20-refuses-two-names/product.stderr.log"), "greeter: one name, please\n");
}

/// As by a debugger, or by a cargo older than 1.94: no variable says where the product is.
fn a_harness_started_without_cargo_knows_its_product() {
    let said = in_crate(&as_it_is(), &["test", "--no-run", "--test", "suites"], &[]).code(0).stderr.clone();
    let binary = said.rsplit_once("tests/suites.rs (").unwrap().1.split_once(')').unwrap().0;
    let project = Project::bare().by(binary).variable("PROJECT_DIR", crate_dir()).without_variable("SUITES_DIR");
    project.run(&[]).code(0);
    assert_eq!(project.text("proof/logs/10-greets/product.stdout.log"), "hello\nhello, 10-greets\n");
}

fn a_listing_is_names() {
    let ended = in_crate(&as_it_is(), &["test", "--test", "suites"], &["--", "--list"]);
    assert_eq!(ended.code(0).stdout, "10-greets: test\n20-refuses-two-names: test\n");
}

/// Suites for the crate that are not its own.
fn with_suite(settings: &str, execute: &str) -> Project {
    let project = cargo(Project::bare()).without_variable("PROJECT_DIR");
    if !settings.is_empty() {
        project.file("suites/runner.yaml", settings);
    }
    project.suite("10-a", &[("execute", execute), ("restore", &format!("echo ran >>{}", order(&project)))]);
    project
}

fn order(project: &Project) -> String {
    project.path("order").display().to_string()
}

fn a_wrong_suite_fails_cargo_test() {
    let project = with_suite("isolation: none\nproduct: {name: greeter}\n", "[[ $(greeter) == goodbye ]]");
    let ended = in_crate(&project, &["test", "--test", "suites"], &[]);
    ended.code(101).says("test result: FAILED. 0 passed; 1 failed").says("execute exited with code 1");
    project.record("10-a").assert_fail("execute");
    assert_eq!(project.text("proof/logs/10-a/product.stdout.log"), "hello\n");
    assert_eq!(project.order(), ["ran"]);
}

fn nextest_runs_its_suites() {
    if !has(&["cargo-nextest"]) {
        return;
    }
    let project = cargo(Project::bare()).without_variable("PROJECT_DIR").without_variable("SUITES_DIR");
    let ended = in_crate(&project, &["nextest", "run", "--test", "suites"], &[]);
    ended.code(0).says("2 tests run: 2 passed");
    assert_eq!(project.summary()["counts"]["pass"], 2);
    project.record("10-greets").assert_pass();
    assert_eq!(project.text("proof/logs/10-greets/product.stdout.log"), "hello\nhello, 10-greets\n");
}

fn on_a_laptop_nothing_is_run_unless_it_is_said_to_be_harmless() {
    let laptop = ["unshare", "--mount", "sh", "-c", NO_CONTAINER, "sh"];
    for (settings, code, ran) in [("", 2, vec![]), ("isolation: none\n", 0, vec!["ran"])] {
        let project = with_suite(settings, "true").wrapped(&laptop);
        let ended = in_crate(&project, &["test", "--test", "suites"], &[]);
        assert_eq!(project.order(), ran, "{ended}");
        ended.code(code);
        if code != 0 {
            ended.says("no container").says("isolation: none");
        }
    }
}

fn a_crate_with_suites_compiles_no_http_no_tls_no_async() {
    let words = ["tree", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"];
    let tree = in_crate(&as_it_is(), &words, &[]).code(0).stdout.clone();
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    for known in ["greeter", "proving-ground", "libtest-mimic", "nix"] {
        assert!(names.contains(&known), "no {known} in {tree}");
    }
    for banned in [
        "http",
        "hyper",
        "reqwest",
        "ureq",
        "curl",
        "curl-sys",
        "isahc",
        "attohttpc",
        "rustls",
        "native-tls",
        "openssl",
        "openssl-sys",
        "ring",
        "aws-lc-rs",
        "tokio",
        "async-std",
        "smol",
        "futures",
        "mio",
        "jsonschema",
    ] {
        assert!(!names.contains(&banned), "{banned} is compiled: {tree}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------------
// Where a product comes from
// ---------------------------------------------------------------------------------------------------------------------------

/// A project with three programs that say where they are, and a suite that calls `my-tool`.
fn with_tools(settings: &str) -> Project {
    let project = Project::with(settings);
    for folder in ["cargos", "nextests", "own"] {
        project.program(&format!("{folder}/my-tool"), &format!("#!/bin/sh\necho {folder}\n"));
    }
    project.suite("10-a", &[("execute", "my-tool >>order")]);
    let cargos = project.path("cargos/my-tool");
    project.variable("CARGO_BIN_EXE_my-tool", cargos)
}

fn a_product_that_a_variable_names_is_called_and_logged() {
    let project = with_tools("product: {name: my-tool}\n");
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["cargos"]);
    assert_eq!(project.text("proof/logs/10-a/product.stdout.log"), "cargos\n");
    for variable in ["NEXTEST_BIN_EXE_my-tool", "NEXTEST_BIN_EXE_my_tool"] {
        let project = with_tools("product: {name: my-tool, build: none}\n");
        let nextests = project.path("nextests/my-tool");
        let project = project.variable(variable, nextests);
        project.run(&[]).code(0);
        assert_eq!(project.order(), ["nextests"], "{variable}");
    }
}

fn a_product_that_is_named_and_missing_is_an_error() {
    let project = with_tools("product: {name: my-tool}\n").variable("CARGO_BIN_EXE_my-tool", "/no/such/my-tool");
    let ended = project.run(&[]);
    ended.code(3).stderr_says("`/no/such/my-tool` does not exist").stderr_says("`CARGO_BIN_EXE_my-tool`");
    assert!(project.order().is_empty());
    // It is not what this project is about.
    let project = with_tools("product: {name: my-tool}\n").variable("CARGO_BIN_EXE_other", "/no/such/other");
    project.run(&[]).code(0);
}

fn what_runner_yaml_says_of_the_product_wins() {
    let project = with_tools("product: {name: my-tool, bin: own/my-tool}\n");
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["own"]);
    let project = with_tools("product: {name: my-tool, build: cargo}\n");
    let artifact = json!({"executable": project.path("own/my-tool")});
    project.program("bin/cargo", &format!("#!/bin/sh\necho '{artifact}'\n"));
    let path = format!("{}:{}", project.path("bin").display(), search_path().to_str().unwrap());
    let project = project.variable("PATH", path);
    project.run(&[]).code(0);
    assert_eq!(project.order(), ["own"]);
}

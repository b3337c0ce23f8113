//! What is collected of a run and how it is verified: real runs of the harness, real sha256sum(1) and tar(1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a claim fails by a panic")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proving_ground::internals::{Verified, collect, verify};
use serde_json::{Value, json};
use tempfile::TempDir;
use world::{Project, claim, command, with_cargo};

#[path = "harness/world.rs"]
mod world;

fn main() -> std::process::ExitCode {
    world::main(|| {
        vec![
            claim(what_is_collected_is_sound),
            claim(sha256sum_accepts_the_manifest),
            claim(the_bundle_holds_the_evidence_and_nothing_else),
            claim(the_same_evidence_gives_the_same_bytes),
            claim(evidence_of_an_older_run_is_not_packed),
            claim(a_failed_build_is_collected_too),
            claim(an_interrupted_run_is_collected_without_the_policy),
            claim(an_unpacked_bundle_is_sound),
            claim(strange_names_are_listed_as_sha256sum_lists_them),
            claim(a_folder_that_was_never_collected_says_so),
            claim(a_flipped_byte_in_any_file_is_found_and_named),
            claim(a_flipped_byte_in_the_bundle_is_found_and_named),
            claim(a_file_that_is_gone_or_new_is_found),
            claim(a_truncated_bundle_is_an_error_that_names_it),
            claim(a_bundle_of_another_run_is_found),
            claim(a_forged_policy_is_found),
            claim(a_result_that_was_edited_is_found),
            claim(a_log_that_was_edited_is_found),
            claim(a_summary_of_another_schema_is_refused),
            claim(a_summary_of_another_run_is_refused),
            claim(where_nothing_was_run_nothing_is_collected),
            claim(a_missing_artifact_is_refused),
            claim(a_link_in_the_evidence_is_refused_and_found),
            claim(what_cannot_be_read_is_an_error),
        ]
    })
}

/// A run with every kind of evidence, not collected.
fn ran() -> Project {
    let settings = "product: {name: tool, build: none, bin: bin/tool}\nsnapshot: {paths: [data]}\n";
    let project = Project::with(settings);
    project.program("bin/tool", "#!/bin/sh\necho tool-out\necho tool-err >&2\n");
    project.file("data/conf", "old\n");
    project.suite("10-pass", &[("execute", "echo new >data/conf; tool"), ("restore", "echo old >data/conf")]);
    project.suite("20-fail", &[("execute", "echo e >&2; exit 7"), ("debug", "echo d")]);
    project.suite("sudo/30-é", &[("execute", "tool")]);
    project.run(&[]).code(101);
    project
}

fn collected() -> Project {
    let project = ran();
    collect(&proof(&project)).unwrap();
    project
}

fn proof(project: &Project) -> PathBuf {
    project.path("proof")
}

#[track_caller]
fn problems(path: &Path) -> Vec<String> {
    verify(path).unwrap().problems
}

#[track_caller]
fn assert_sound(path: &Path) {
    assert_eq!(problems(path), Vec::<String>::new(), "{}", path.display());
}

/// Expects that a problem, or the error, says all of `words`.
#[track_caller]
fn assert_found(path: &Path, words: &[&str]) {
    let found = verify(path).map_or_else(|error| vec![error], |verified| verified.problems);
    let is_said = found.iter().any(|problem| words.iter().all(|word| problem.contains(word)));
    assert!(is_said, "{words:?} is not said: {found:#?}");
}

/// Changes a file in its place, with all of its names.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn edit(path: &Path, edit: impl FnOnce(&mut Value)) {
    change(path, |bytes| {
        let mut value = serde_json::from_slice(bytes).unwrap();
        edit(&mut value);
        *bytes = value.to_string().into_bytes();
    });
}

/// Lists everything anew, as whoever forges evidence would, and removes the bundle.
fn forge_the_manifest(dir: &Path) {
    let script = "rm -f proofs.tar.gz manifest.sha256; export LC_ALL=C
        find . -type f ! -name '.*' | sort | xargs -d '\\n' sha256sum >.manifest; mv .manifest manifest.sha256";
    said(command("sh").args(["-ec", script]).current_dir(dir));
}

/// The standard output of a program that succeeds.
#[track_caller]
fn said(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && stderr.is_empty(), "{}: {stderr}", done.status);
    String::from_utf8(done.stdout).unwrap()
}

fn unpacked(bundle: &Path) -> TempDir {
    let dir = TempDir::with_prefix("unpacked.").unwrap();
    said(command("tar").arg("xzf").arg(bundle).arg("-C").arg(dir.path()));
    dir
}

/// Files of evidence, as somebody else would find them.
fn evidence(project: &Project) -> Vec<String> {
    let tree = project.tree("proof").into_iter();
    let files = tree.filter(|path| proof(project).join(path).is_file() && !path.starts_with('.'));
    files.filter(|path| path != "proofs.tar.gz").collect()
}

fn what_is_collected_is_sound() {
    let project = ran();
    let (files, trials) = collect(&proof(&project)).unwrap();
    assert_eq!((files, trials), (evidence(&project).len() - 1, 3));
    let expected = Verified { files: files + 1, trials, problems: Vec::new() };
    assert_eq!(verify(&proof(&project)).unwrap(), expected);
    assert_eq!(verify(&proof(&project).join("proofs.tar.gz")).unwrap(), expected);
    assert!(!project.tree("proof").iter().any(|path| path.ends_with(".tmp")));
}

fn sha256sum_accepts_the_manifest() {
    let project = collected();
    let checked = said(command("sha256sum").args(["--strict", "-c", "manifest.sha256"]).current_dir(proof(&project)));
    assert_eq!(checked.lines().filter(|line| line.ends_with(": OK")).count(), evidence(&project).len() - 1);
}

fn the_bundle_holds_the_evidence_and_nothing_else() {
    let project = collected();
    project.file("proof/notes.txt", "somebody's").file("proof/.hidden", "somebody's");
    collect(&proof(&project)).unwrap();
    let listed =
        said(command("tar").args(["--quoting-style=literal", "-tzf", "proofs.tar.gz"]).current_dir(proof(&project)));
    let expected: Vec<_> = evidence(&project).into_iter().filter(|path| path != "notes.txt").collect();
    let mut sorted: Vec<_> = listed.lines().collect();
    sorted.sort_unstable();
    assert_eq!(listed.lines().collect::<Vec<_>>(), sorted);
    assert_eq!(sorted, expected);
    assert_sound(&proof(&project));
}

fn the_same_evidence_gives_the_same_bytes() {
    let project = collected();
    let bundle = proof(&project).join("proofs.tar.gz");
    let first = fs::read(&bundle).unwrap();
    collect(&proof(&project)).unwrap();
    assert!(fs::read(&bundle).unwrap() == first, "collected twice, it differs");
    // Another folder, other inodes, modes and times.
    let copy = unpacked(&bundle);
    for path in evidence(&project) {
        let path = copy.path().join(path);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    collect(copy.path()).unwrap();
    assert!(fs::read(copy.path().join("proofs.tar.gz")).unwrap() == first, "collected elsewhere, it differs");
}

fn evidence_of_an_older_run_is_not_packed() {
    let project = collected();
    fs::remove_dir_all(project.path("suites/20-fail")).unwrap();
    project.run(&[]).code(0);
    assert!(!proof(&project).join("proofs.tar.gz").exists());
    collect(&proof(&project)).unwrap();
    assert_sound(&proof(&project));
    let copy = unpacked(&proof(&project).join("proofs.tar.gz"));
    assert!(copy.path().join("logs/10-pass").is_dir() && !copy.path().join("logs/20-fail").exists());
}

fn a_failed_build_is_collected_too() {
    let project = with_cargo(Project::with("product: {name: tool, build: cargo}\n"));
    project.file("Cargo.toml", "no manifest").suite("10-a", &[("execute", "true")]);
    project.run(&[]).code(101).says("cargo build");
    collect(&proof(&project)).unwrap();
    assert_sound(&proof(&project));
    assert!(evidence(&project).contains(&"stages/build.stderr.log".to_owned()), "{:?}", evidence(&project));
}

fn an_interrupted_run_is_collected_without_the_policy() {
    let project = Project::new();
    project.suite("10-a", &[("execute", "true")]).suite("20-b", &[("execute", "echo x >started; sleep 1000")]);
    project.suite("30-c", &[("execute", "true")]);
    let running = project.start(&[]);
    project.wait_for("started");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().code(143);
    collect(&proof(&project)).unwrap();
    assert_eq!(project.summary()["harness_policy"], Value::Null);
    assert_sound(&proof(&project));
}

fn an_unpacked_bundle_is_sound() {
    let project = collected();
    let copy = unpacked(&proof(&project).join("proofs.tar.gz"));
    assert_sound(copy.path());
    said(command("sha256sum").args(["--strict", "--quiet", "-c", "manifest.sha256"]).current_dir(copy.path()));
}

fn strange_names_are_listed_as_sha256sum_lists_them() {
    let project = ran();
    let names = ["a blank", "ünïcode", "new\nline", "back\\slash", "return\r", "*star", " lead", "-x", "trail "];
    for name in names {
        project.file(format!("proof/logs/10-pass/{name}"), name);
    }
    collect(&proof(&project)).unwrap();
    assert_sound(&proof(&project));
    assert_sound(&proof(&project).join("proofs.tar.gz"));
    for name in names {
        let line = said(command("sha256sum").arg(format!("./logs/10-pass/{name}")).current_dir(proof(&project)));
        assert!(project.text("proof/manifest.sha256").contains(&line), "{line}");
    }
    said(command("sha256sum").args(["--strict", "--quiet", "-c", "manifest.sha256"]).current_dir(proof(&project)));
    change(&proof(&project).join("logs/10-pass/new\nline"), |bytes| bytes[0] ^= 1);
    assert_found(&proof(&project), &["`logs/10-pass/new\\nline` was changed"]);
}

fn a_folder_that_was_never_collected_says_so() {
    let project = ran();
    assert_eq!(
        problems(&proof(&project)),
        ["`manifest.sha256` is missing: this was never collected; `container-runner collect` does it"]
    );
}

fn a_flipped_byte_in_any_file_is_found_and_named() {
    let project = collected();
    for path in evidence(&project) {
        let file = proof(&project).join(&path);
        let length = fs::read(&file).unwrap().len();
        for at in [0, length / 2, length.saturating_sub(1)].into_iter().filter(|at| *at < length) {
            change(&file, |bytes| bytes[at] ^= 0x20);
            assert_found(&proof(&project), &[&format!("`{path}`")]);
            change(&file, |bytes| bytes[at] ^= 0x20);
        }
        assert!(length > 0 || path.ends_with(".log"), "{path} is empty");
    }
    assert_sound(&proof(&project));
}

fn a_flipped_byte_in_the_bundle_is_found_and_named() {
    let project = collected();
    let bundle = proof(&project).join("proofs.tar.gz");
    let length = fs::read(&bundle).unwrap().len();
    let offsets = (0..64).chain((64..length).step_by(97)).chain(length - 16..length);
    for at in offsets {
        change(&bundle, |bytes| bytes[at] ^= 1);
        assert_found(&bundle, &["proofs.tar.gz"]);
        assert_found(&proof(&project), &["proofs.tar.gz"]);
        change(&bundle, |bytes| bytes[at] ^= 1);
    }
    assert_sound(&bundle);
}

fn a_file_that_is_gone_or_new_is_found() {
    let project = collected();
    for path in evidence(&project) {
        let (file, aside) = (proof(&project).join(&path), project.path("aside"));
        fs::rename(&file, &aside).unwrap();
        assert_found(&proof(&project), &[&format!("`{path}` is missing")]);
        fs::rename(&aside, &file).unwrap();
    }
    for path in ["logs/new.log", "results/40-new/result.json", "logs/10-pass/.hidden", "stages/x"] {
        project.file(Path::new("proof").join(path), "{}");
        assert_found(&proof(&project), &[&format!("`{path}` is not listed")]);
        fs::remove_file(proof(&project).join(path)).unwrap();
    }
    assert_sound(&proof(&project));
}

fn a_truncated_bundle_is_an_error_that_names_it() {
    let project = collected();
    let bundle = proof(&project).join("proofs.tar.gz");
    let whole = fs::read(&bundle).unwrap();
    for length in [0, 1, 9, 47, 48, 100, whole.len() / 2, whole.len() - 9, whole.len() - 8, whole.len() - 1] {
        fs::write(&bundle, &whole[..length]).unwrap();
        let error = verify(&bundle).unwrap_err();
        assert!(error.contains(&format!("`{}` is cut off", bundle.display())), "{length} bytes: {error}");
        assert_found(&proof(&project), &["proofs.tar.gz` is cut off"]);
    }
    // Cut before it was compressed, and written anew.
    let script = "gzip -dc proofs.tar.gz | head -c 3000 | gzip >cut.tar.gz";
    fs::write(&bundle, &whole).unwrap();
    said(command("sh").args(["-c", script]).current_dir(proof(&project)));
    assert_found(&proof(&project).join("cut.tar.gz"), &["cut.tar.gz"]);
}

fn a_bundle_of_another_run_is_found() {
    let (project, other) = (collected(), collected());
    fs::copy(proof(&other).join("proofs.tar.gz"), proof(&project).join("proofs.tar.gz")).unwrap();
    assert_eq!(problems(&proof(&project)), ["`proofs.tar.gz` has another `manifest.sha256` than the folder"]);
}

fn a_forged_policy_is_found() {
    let project = collected();
    edit(&proof(&project).join("summary.json"), |summary| summary["harness_policy"] = json!("all is well"));
    forge_the_manifest(&proof(&project));
    assert_found(&proof(&project), &["`summary.json`", "`harness_policy` is not `No harness mutation"]);
    // Affirmed, although a trial was not judged.
    edit(&proof(&project).join("summary.json"), |summary| {
        summary["harness_policy"] = json!("No harness mutation of product-owned artifacts; fail-on-skip enforced");
        summary["selected"] = json!(4);
    });
    assert_found(&proof(&project), &["`summary.json`", "`harness_policy` is affirmed, although"]);
}

fn a_result_that_was_edited_is_found() {
    let project = collected();
    edit(&proof(&project).join("results/20-fail/result.json"), |result| result["status"] = json!("pass"));
    forge_the_manifest(&proof(&project));
    assert_eq!(
        problems(&proof(&project)),
        ["`results/20-fail/result.json` differs from `summary.json`: `status` is not the same"]
    );
    edit(&proof(&project).join("summary.json"), |summary| summary["suites"][1]["status"] = json!("pass"));
    forge_the_manifest(&proof(&project));
    assert_eq!(
        problems(&proof(&project)),
        ["`summary.json`: its `counts` are wrong: 3 passed, 0 failed, 0 running, 0 interrupted"]
    );
}

fn a_log_that_was_edited_is_found() {
    let project = collected();
    let log = proof(&project).join("logs/runner.jsonl");
    let whole = fs::read_to_string(&log).unwrap();
    let run_id = project.summary()["run_id"].to_string();
    let edits = [
        (whole.replacen(&run_id, "null", 1), "line 1: its `run_id` is null"),
        (whole.replacen(&run_id, "\"other\"", 1), "line 1: it is of the run `other`"),
        (whole.replacen("\n", "\n[]\n", 1), "line 2: it is no event"),
        (whole.replacen("\"level\"", "\"lever\"", 1), "line 1: the key `level` is missing"),
        (whole.trim_end().to_owned(), "it is cut off"),
        (String::new(), "line 1: the log has no line"),
    ];
    for (text, why) in edits {
        fs::write(&log, text).unwrap();
        forge_the_manifest(&proof(&project));
        assert_found(&proof(&project), &["`logs/runner.jsonl`, line ", why]);
    }
}

#[track_caller]
fn assert_refused(project: &Project, words: &[&str]) {
    let before = fs::read(proof(project).join("proofs.tar.gz")).ok();
    let error = collect(&proof(project)).unwrap_err();
    assert!(words.iter().all(|word| error.contains(word)), "{words:?} is not said: {error}");
    assert!(fs::read(proof(project).join("proofs.tar.gz")).ok() == before, "the bundle was written all the same");
}

fn a_summary_of_another_schema_is_refused() {
    let project = collected();
    edit(&proof(&project).join("summary.json"), |summary| summary["schema"] = json!(2));
    assert_refused(&project, &["`summary.json`, line 1: its schema is 2, and this program knows 1"]);
    assert_found(&proof(&project), &["`summary.json`, line 1: its schema is 2"]);
    // Of which nothing else is known.
    fs::write(proof(&project).join("summary.json"), "{\"schema\": 7}").unwrap();
    assert_refused(&project, &["its schema is 7"]);
}

fn a_summary_of_another_run_is_refused() {
    let project = collected();
    edit(&proof(&project).join("summary.json"), |summary| summary["run_id"] = json!("other"));
    assert_refused(&project, &["`summary.json`: it is of the run `other`, and `run.json` of"]);
}

fn where_nothing_was_run_nothing_is_collected() {
    let project = Project::new();
    assert_refused(&project, &["nothing has been run here", "summary.json"]);
    fs::create_dir(proof(&project)).unwrap();
    assert_refused(&project, &["nothing has been run here"]);
    assert_eq!(project.tree("proof"), Vec::<String>::new());
}

fn a_missing_artifact_is_refused() {
    let project = ran();
    fs::remove_file(proof(&project).join("logs/20-fail/execute.stderr.log")).unwrap();
    assert_refused(&project, &["names the artifact `logs/20-fail/execute.stderr.log` of `20-fail`, which is missing"]);
}

fn a_link_in_the_evidence_is_refused_and_found() {
    for path in ["logs/10-pass/planted", "results/build_meta.json", "stages"] {
        let project = collected();
        symlink("/etc/passwd", proof(&project).join(path)).unwrap();
        assert_refused(&project, &[&format!("`{path}` is a link or a special file")]);
        assert_found(&proof(&project), &[&format!("`{path}` is a link or a special file")]);
    }
    let project = collected();
    let log = proof(&project).join("logs/20-fail/execute.stderr.log");
    fs::rename(&log, project.path("elsewhere")).unwrap();
    symlink(project.path("elsewhere"), &log).unwrap();
    assert_refused(&project, &["`logs/20-fail/execute.stderr.log` is a link"]);
    assert_found(&proof(&project), &["`logs/20-fail/execute.stderr.log` is missing"]);
    fs::remove_file(&log).unwrap();
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    assert_refused(&project, &["`logs/20-fail/execute.stderr.log` is a link or a special file"]);
}

fn what_cannot_be_read_is_an_error() {
    let project = collected();
    let error = verify(&project.path("nowhere")).unwrap_err();
    assert!(error.contains("could not read `") && error.contains("nowhere"), "{error}");
    // Root reads everything but what is too large.
    let huge = proof(&project).join("logs/10-pass/huge.log");
    fs::File::create(&huge).unwrap().set_len((1 << 30) + 1).unwrap();
    assert_refused(&project, &["could not read `", "huge.log", "it is larger than"]);
}

//! Files of a proof folder -> everything that is wrong with them.

mod journal;
mod summary;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::rules::manifest::{self, LineError, MANIFEST, Sha256};
use crate::rules::report::{escaped, one_line};
use crate::rules::summary::{RUN, SUMMARY};

pub(crate) use journal::JOURNAL;

/// What the build stage says of itself.
pub(crate) const BUILD_META: &str = "results/build_meta.json";

/// One file, as far as it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) sha256: Sha256,
    /// Its content, if `is_read` says that it matters.
    pub(crate) content: Option<Vec<u8>>,
}

/// Files by their paths below the proof folder.
pub(crate) type Files = BTreeMap<OsString, File>;

/// Tells whether the content of the file at `path` is judged.
pub(crate) fn is_read(path: &OsStr) -> bool {
    let Some(path) = path.to_str() else { return false };
    matches!(path, MANIFEST | RUN | SUMMARY | JOURNAL | BUILD_META)
        || path.starts_with("results/") && path.ends_with("/result.json")
        // Of the shards of a merged run.
        || path.starts_with("stages/") && (path.ends_with("/run.json") || is_build_meta(path))
}

fn is_build_meta(path: &str) -> bool {
    path == BUILD_META || path.starts_with("stages/") && path.ends_with("/build_meta.json")
}

/// Something that is wrong with a proof folder or a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("`{file}` is missing", file = shown(.0))]
    Missing(OsString),
    #[error("`{MANIFEST}` is missing: this was never collected; `container-runner collect` does it")]
    NotCollected,
    #[error("`{MANIFEST}`: {0}")]
    ManifestLine(LineError),
    #[error("`{file}` is missing, which line {line} of `{MANIFEST}` lists", file = shown(file))]
    Gone { file: OsString, line: usize },
    #[error("`{file}` was changed: it is not what line {line} of `{MANIFEST}` says", file = shown(file))]
    Changed { file: OsString, line: usize },
    #[error("`{file}` is not listed in `{MANIFEST}`", file = shown(.0))]
    NotListed(OsString),
    #[error("`{file}` is a link or a special file; evidence is regular files", file = shown(.0))]
    Strange(OsString),
    #[error("`{file}`, line {line}: {why}", file = shown(file), why = escaped(why))]
    Text { file: OsString, line: usize, why: String },
    #[error("`{SUMMARY}`: {why}", why = escaped(.0))]
    Summary(String),
    #[error("`{SUMMARY}` names the artifact `{artifact}` of `{trial}`, which is missing", artifact = shown(artifact), trial = escaped(trial))]
    NoArtifact { trial: String, artifact: OsString },
    #[error("`{file}` differs from `{SUMMARY}`: {why}", file = shown(file), why = escaped(why))]
    Differs { file: OsString, why: String },
    #[error("`{0}` is not as it was written: its seal is broken")]
    SealBroken(String),
    #[error("`{0}` has no seal: it was not written by `collect`, or again by another program")]
    NoSeal(String),
    #[error("`{bundle}`: {problem}")]
    In { bundle: &'static str, problem: Box<Problem> },
    #[error("`{bundle}` has another `{MANIFEST}` than the folder")]
    OtherManifest { bundle: &'static str },
    #[error("{0}")]
    NoBundle(String),
}

/// No name drives a terminal, or takes more than its line.
fn shown(path: &OsStr) -> String {
    one_line(&path.to_string_lossy())
}

/// Returns everything that is wrong, files in the order of their names within each kind of check.
pub(crate) fn problems(files: &Files) -> Vec<Problem> {
    let mut problems = manifest_problems(files, files);
    problems.extend(guardrails(files));
    let mut run_ids: Vec<_> = summary::run_id(files).ok().into_iter().collect();
    // If it cannot be read, the guardrails have said so.
    if let Ok(summary) = summary::Summary::read(files) {
        problems.extend(summary.problems(files));
        let is_known = !run_ids.is_empty();
        run_ids.extend(summary.shard_ids().filter(|_| is_known));
    }
    problems.extend(journal::problems(files, &run_ids));
    problems.extend(build_problems(files));
    problems
}

/// Returns what keeps evidence from being packed: no summary or none of this schema, one of another run, an artifact that it
/// names and that is missing.
pub(crate) fn guardrails(files: &Files) -> Vec<Problem> {
    let run_id = summary::run_id(files);
    let summary = match summary::Summary::read(files) {
        Ok(summary) => summary,
        Err(problem) => return run_id.err().into_iter().chain([problem]).collect(),
    };
    let identity = match run_id {
        Ok(run_id) => summary.other_run(&run_id),
        Err(problem) => Some(problem),
    };
    identity.into_iter().chain(summary.missing_artifacts(files)).collect()
}

/// Returns how many trials the summary has; none if it cannot be read.
pub(crate) fn trials(files: &Files) -> usize {
    summary::Summary::read(files).map_or(0, |summary| summary.trials())
}

/// Compares `files` with the manifest that `listing` has.
pub(crate) fn manifest_problems(listing: &Files, files: &Files) -> Vec<Problem> {
    let Some(text) = content(listing, MANIFEST) else { return vec![Problem::NotCollected] };
    let mut problems = Vec::new();
    let mut listed = BTreeMap::new();
    for line in manifest::lines(text) {
        match line {
            Ok(line) => drop(listed.insert(line.path.clone(), line)),
            Err(error) => problems.push(Problem::ManifestLine(error)),
        }
    }
    for line in listed.values() {
        match files.get(&line.path) {
            None => problems.push(Problem::Gone { file: line.path.clone(), line: line.number }),
            Some(file) if file.sha256 != line.sha256 => {
                problems.push(Problem::Changed { file: line.path.clone(), line: line.number });
            }
            Some(_) => {}
        }
    }
    let others = files.keys().filter(|path| *path != MANIFEST && !listed.contains_key(*path));
    problems.extend(others.cloned().map(Problem::NotListed));
    problems
}

/// Returns the content of a file, if it is there and judged.
pub(crate) fn content<'a>(files: &'a Files, path: &str) -> Option<&'a [u8]> {
    files.get(OsStr::new(path))?.content.as_deref()
}

fn required<'a>(files: &'a Files, path: &str) -> Result<&'a [u8], Problem> {
    content(files, path).ok_or_else(|| Problem::Missing(path.into()))
}

fn not_json(path: &str, error: &serde_json::Error) -> Problem {
    Problem::Text { file: path.into(), line: error.line(), why: error.to_string() }
}

fn build_problems(files: &Files) -> Vec<Problem> {
    let builds = files.keys().filter_map(|path| path.to_str().filter(|path| is_build_meta(path)));
    let wrong = builds.filter_map(|path| {
        let parsed = serde_json::from_slice::<serde_json::Map<_, _>>(content(files, path)?);
        parsed.err().map(|error| not_json(path, &error))
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::summary::SCHEMA;

    const LINE: &str = r#"{"ts":"t","component":"c","run_id":"r","container_id":null,"distro":"d","level":"info","stage":"s","suite":null,"event":"e","cmd":null,"rc":null,"duration_ms":1}"#;

    fn trial(name: &str, status: &str) -> Value {
        json!({"name": name, "status": status, "artifacts": [format!("logs/{name}/x.log")], "rc": 0})
    }

    /// A sound run with a trial that passed and one that failed.
    fn summary() -> Value {
        json!({
            "schema": SCHEMA,
            "run_id": "r",
            "suites": [trial("a", "pass"), trial("b", "fail")],
            "selected": 2,
            "counts": {"pass": 1, "fail": 1, "running": 0, "interrupted": 0},
            "interrupted": false,
            "finished_at": "t",
            "harness_policy": "No harness mutation of product-owned artifacts; fail-on-skip enforced",
        })
    }

    fn put(files: &mut Files, path: &str, text: &str) {
        let mut sha256 = [0; 32];
        // Enough of a hash for these texts.
        text.bytes().enumerate().for_each(|(at, byte)| sha256[at % 32] = byte.wrapping_add(sha256[at % 32]) ^ 0x5a);
        let content = is_read(OsStr::new(path)).then(|| text.as_bytes().to_vec());
        files.insert(path.into(), File { sha256, content });
    }

    fn list_anew(files: &mut Files) {
        files.remove(OsStr::new(MANIFEST));
        let hashes = files.iter().map(|(path, file)| (path.clone(), file.sha256)).collect();
        let text = String::from_utf8(manifest::text(&hashes)).unwrap();
        put(files, MANIFEST, &text);
    }

    fn of(summary: &Value, change: impl FnOnce(&mut Files)) -> Vec<String> {
        let mut files = Files::new();
        put(&mut files, RUN, &json!({"schema": SCHEMA, "run_id": "r"}).to_string());
        put(&mut files, JOURNAL, &format!("{LINE}\n"));
        for trial in summary["suites"].as_array().unwrap() {
            let name = trial["name"].as_str().unwrap();
            put(&mut files, &format!("logs/{name}/x.log"), name);
            put(&mut files, &format!("results/{name}/result.json"), &trial.to_string());
        }
        put(&mut files, SUMMARY, &summary.to_string());
        list_anew(&mut files);
        change(&mut files);
        problems(&files).iter().map(ToString::to_string).collect()
    }

    fn with(key: &str, value: Value) -> Value {
        let mut summary = summary();
        summary[key] = value;
        summary
    }

    #[test]
    fn a_sound_folder_has_no_problem() {
        assert_eq!(of(&summary(), |_| {}), Vec::<String>::new());
    }

    #[test]
    fn all_problems_are_told_not_only_the_first() {
        let found = of(&summary(), |files| {
            files.remove(OsStr::new("logs/a/x.log"));
            put(files, "logs/b/x.log", "changed");
            put(files, "logs/new\nline", "");
        });
        let expected = [
            "`logs/a/x.log` is missing, which line 1 of `manifest.sha256` lists",
            "`logs/b/x.log` was changed: it is not what line 2 of `manifest.sha256` says",
            "`logs/new\\nline` is not listed in `manifest.sha256`",
            "`summary.json` names the artifact `logs/a/x.log` of `a`, which is missing",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_folder_without_a_manifest_was_never_collected() {
        let found = of(&summary(), |files| drop(files.remove(OsStr::new(MANIFEST))));
        assert_eq!(
            found,
            ["`manifest.sha256` is missing: this was never collected; `container-runner collect` does it"]
        );
    }

    #[test]
    fn a_forged_file_is_found_although_it_is_listed() {
        let cases = [
            (
                JOURNAL,
                LINE.replace("\"r\"", "\"q\"") + "\n",
                "`logs/runner.jsonl`, line 1: it is of the run `q`, not `r`",
            ),
            (JOURNAL, String::new(), "`logs/runner.jsonl`, line 1: the log has no line"),
            (BUILD_META, "[]".to_owned(), "`results/build_meta.json`, line 1: "),
            (
                "results/a/result.json",
                trial("a", "fail").to_string(),
                "differs from `summary.json`: `status` is not the same",
            ),
            ("results/a/result.json", "{".to_owned(), "`results/a/result.json`, line 1: "),
            ("results/c/result.json", trial("c", "pass").to_string(), "it has no trial of that name"),
            (RUN, json!({"schema": SCHEMA, "run_id": "q"}).to_string(), "it is of the run `r`, and `run.json` of `q`"),
            (RUN, json!({"schema": 2, "run_id": "r"}).to_string(), "`run.json`, line 1: its schema is 2"),
            (SUMMARY, with("schema", json!(7)).to_string(), "`summary.json`, line 1: its schema is 7"),
            (SUMMARY, "{\n\"schema\": 1,\n".to_owned(), "`summary.json`, line 3: "),
        ];
        for (path, text, why) in cases {
            let found = of(&summary(), |files| {
                put(files, path, &text);
                list_anew(files);
            });
            assert!(found.iter().any(|problem| problem.contains(why)), "{path}: {why}\n{found:#?}");
        }
    }

    #[test]
    fn a_missing_file_is_found_although_it_is_not_listed() {
        for path in [RUN, SUMMARY, JOURNAL, "results/a/result.json"] {
            let found = of(&summary(), |files| {
                files.remove(OsStr::new(path));
                list_anew(files);
            });
            assert_eq!(found, [format!("`{path}` is missing")]);
        }
    }

    #[test]
    fn a_result_may_be_written_otherwise() {
        let found = of(&summary(), |files| {
            let pretty = serde_json::to_string_pretty(&trial("a", "pass")).unwrap();
            put(files, "results/a/result.json", &pretty);
            list_anew(files);
        });
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_summary_that_contradicts_itself_is_found() {
        let counts = |pass, fail| json!({"pass": pass, "fail": fail, "running": 0, "interrupted": 0});
        let cases = [
            (with("counts", counts(2, 0)), "its `counts` are wrong: 1 passed, 1 failed"),
            (with("suites", json!([trial("a", "pass"), trial("a", "pass")])), "a trial stands twice in it"),
            (with("selected", json!(1)), "it has 2 of 1 selected trial"),
            (with("selected", json!(3)), "is affirmed, although not every selected trial was judged"),
            (with("interrupted", json!(true)), "is affirmed, although"),
            (with("finished_at", Value::Null), "is affirmed, although"),
            (with("harness_policy", Value::Null), "`harness_policy` is null, although it is true of this run"),
            (with("harness_policy", json!("Trust us")), "`harness_policy` is not `No harness mutation of"),
        ];
        for (summary, why) in cases {
            let found = of(&summary, |_| {});
            assert!(matches!(&found[..], [one] if one.contains(why)), "{why}\n{found:#?}");
        }
    }

    #[test]
    fn a_run_that_was_ended_is_sound_without_the_policy() {
        let mut summary = with("harness_policy", Value::Null);
        summary["interrupted"] = json!(true);
        summary["suites"][1] = trial("b", "interrupted");
        summary["counts"] = json!({"pass": 1, "fail": 0, "running": 0, "interrupted": 1});
        assert_eq!(of(&summary, |_| {}), Vec::<String>::new());
    }

    /// A sound merged run.
    fn merged() -> Value {
        with(
            "shards",
            json!([
                {"run_id": "r1", "trials": ["b"], "selected": 1, "interrupted": false},
                {"run_id": "r2", "trials": ["a"], "selected": 1, "interrupted": false, "shards": [
                    {"run_id": "r3", "trials": ["a"], "selected": 1, "interrupted": false},
                ]},
            ]),
        )
    }

    fn put_shards(files: &mut Files) {
        for run_id in ["r1", "r2"] {
            put(files, &format!("stages/{run_id}/run.json"), &json!({"run_id": run_id}).to_string());
        }
        let lines = ["r1", "r2", "r3", "r"].map(|run_id| LINE.replace("\"r\"", &format!("\"{run_id}\"")) + "\n");
        put(files, JOURNAL, &lines.concat());
        list_anew(files);
    }

    #[test]
    fn a_merged_run_is_sound_with_lines_of_all_its_shards() {
        assert_eq!(of(&merged(), put_shards), Vec::<String>::new());
        let found = of(&summary(), put_shards);
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found[0].ends_with("line 1: it is of the run `r1`, not `r`"), "{found:#?}");
    }

    #[test]
    fn a_merged_run_that_contradicts_its_shards_is_found() {
        type Change = fn(&mut Value);
        let with = |change: Change| {
            let mut merged = merged();
            change(&mut merged["shards"]);
            of(&merged, put_shards)
        };
        let cases: [(Change, &str); 4] = [
            (|shards| shards[0]["trials"] = json!(["c"]), "`summary.json`: its trials are not those of its `shards`"),
            (
                |shards| shards[0]["trials"] = json!(["a", "b"]),
                "`summary.json`: its trials are not those of its `shards`",
            ),
            (
                |shards| shards[0]["selected"] = json!(2),
                "`summary.json`: 2 trials were selected, and in its `shards` 3",
            ),
            (|shards| shards[1]["interrupted"] = json!(true), "`summary.json`: `interrupted` is false, although"),
        ];
        for (change, why) in cases {
            let found = with(change);
            assert!(matches!(&found[..], [one] if one.starts_with(why)), "{why}\n{found:#?}");
        }
    }

    #[test]
    fn what_a_merged_run_keeps_of_a_shard_is_checked() {
        let cases = [
            ("stages/r1/run.json", Some("{\"run_id\":\"r2\"}"), "differs from `summary.json`: it is of the run `r2`"),
            ("stages/r1/run.json", Some("{"), "`stages/r1/run.json`, line 1: "),
            ("stages/r1/run.json", None, "`stages/r1/run.json` is missing"),
            ("stages/r1/build_meta.json", Some("[]"), "`stages/r1/build_meta.json`, line 1: "),
        ];
        for (path, text, why) in cases {
            let found = of(&merged(), |files| {
                put_shards(files);
                files.remove(OsStr::new(path));
                if let Some(text) = text {
                    put(files, path, text);
                }
                list_anew(files);
            });
            assert!(matches!(&found[..], [one] if one.contains(why)), "{why}\n{found:#?}");
        }
    }

    #[test]
    fn names_do_not_drive_a_terminal() {
        let found = of(&summary(), |files| put(files, "logs/\u{1b}[31m", ""));
        assert_eq!(found, ["`logs/\\u{1b}[31m` is not listed in `manifest.sha256`"]);
    }
}

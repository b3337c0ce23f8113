//! `summary.json`: itself, and against `run.json` and the results.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Files, Problem, content, not_json, required};
use crate::rules::report::counted;
use crate::rules::summary::{Counts, RUN, SCHEMA, SUMMARY, Standing, Status, shard_folder};

/// What both files begin with, whatever their schema.
#[derive(Deserialize)]
struct Head {
    schema: u32,
}

#[derive(Deserialize)]
struct Run {
    run_id: String,
}

/// A summary, as far as something depends on it.
#[derive(Deserialize)]
pub(super) struct Summary<'a> {
    run_id: String,
    #[serde(borrow)]
    suites: Vec<&'a RawValue>,
    selected: usize,
    counts: Counts,
    interrupted: bool,
    finished_at: Option<String>,
    harness_policy: Option<String>,
    /// Of a merged run.
    shards: Option<Vec<Shard>>,
    /// `suites`, read.
    #[serde(skip)]
    read: Vec<Trial>,
}

/// A run that was merged with others; maybe one that was merged itself.
#[derive(Deserialize)]
struct Shard {
    run_id: String,
    trials: Vec<String>,
    selected: usize,
    interrupted: bool,
    #[serde(default)]
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Trial {
    name: String,
    status: Status,
    artifacts: Vec<String>,
}

/// Returns the identity of the run.
///
/// # Errors
/// If `run.json` is missing, no JSON or of another schema.
pub(super) fn run_id(files: &Files) -> Result<String, Problem> {
    let text = required(files, RUN)?;
    check_schema(RUN, text)?;
    let run: Run = serde_json::from_slice(text).map_err(|error| not_json(RUN, &error))?;
    Ok(run.run_id)
}

fn check_schema(path: &str, text: &[u8]) -> Result<(), Problem> {
    let Head { schema } = serde_json::from_slice(text).map_err(|error| not_json(path, &error))?;
    if schema == SCHEMA {
        return Ok(());
    }
    let why = format!("its schema is {schema}, and this program knows {SCHEMA}; use the one that wrote it");
    Err(Problem::Text { file: path.into(), line: 1, why })
}

impl<'a> Summary<'a> {
    /// Reads the summary.
    ///
    /// # Errors
    /// If it is missing, no JSON or of another schema.
    pub(super) fn read(files: &'a Files) -> Result<Self, Problem> {
        let text = required(files, SUMMARY)?;
        check_schema(SUMMARY, text)?;
        let error = |error| not_json(SUMMARY, &error);
        let mut summary: Self = serde_json::from_slice(text).map_err(error)?;
        let trials = summary.suites.iter().map(|trial| serde_json::from_str(trial.get()));
        summary.read = trials.collect::<Result<_, _>>().map_err(error)?;
        Ok(summary)
    }

    /// How many trials it has.
    pub(super) fn trials(&self) -> usize {
        self.read.len()
    }

    /// Returns what is wrong if it is not of the run `run_id`.
    pub(super) fn other_run(&self, run_id: &str) -> Option<Problem> {
        let why = || format!("it is of the run `{}`, and `{RUN}` of `{run_id}`", self.run_id);
        (self.run_id != run_id).then(|| Problem::Summary(why()))
    }

    /// Returns the identities of the runs of which it was merged.
    pub(super) fn shard_ids(&self) -> impl Iterator<Item = String> {
        let mut left: Vec<_> = self.shards.iter().flatten().collect();
        std::iter::from_fn(move || {
            let shard = left.pop()?;
            left.extend(&shard.shards);
            Some(shard.run_id.clone())
        })
    }

    /// Returns the artifacts that it names and that are not there.
    pub(super) fn missing_artifacts(&self, files: &Files) -> Vec<Problem> {
        let named = self.read.iter().flat_map(|trial| trial.artifacts.iter().map(|artifact| (&trial.name, artifact)));
        let missing = named.filter(|(_, artifact)| !files.contains_key(OsStr::new(artifact)));
        missing
            .map(|(trial, artifact)| Problem::NoArtifact { trial: trial.clone(), artifact: artifact.into() })
            .collect()
    }

    /// Returns everything else that is wrong with it.
    pub(super) fn problems(&self, files: &Files) -> Vec<Problem> {
        let mut problems = self.differing_results(files);
        problems.extend(self.stray_results(files));
        let wrong = [self.wrong_counts(), self.wrong_policy(), self.wrong_shards()];
        problems.extend(wrong.into_iter().flatten().map(Problem::Summary));
        problems.extend(self.shards.iter().flatten().filter_map(|shard| shard.other_run(files)));
        problems
    }

    fn differing_results(&self, files: &Files) -> Vec<Problem> {
        let trials = self.read.iter().zip(&self.suites);
        trials.filter_map(|(trial, text)| trial.differing_result(files, text.get())).collect()
    }

    fn stray_results(&self, files: &Files) -> Vec<Problem> {
        let known: BTreeSet<_> = self.read.iter().map(|trial| trial.result()).collect();
        let results = files.keys().filter_map(|path| path.to_str().filter(|path| path.ends_with("/result.json")));
        let stray = results.filter(|path| path.starts_with("results/") && !known.contains(*path));
        let why = "it has no trial of that name".to_owned();
        stray.map(|path| Problem::Differs { file: path.into(), why: why.clone() }).collect()
    }

    fn wrong_counts(&self) -> Option<String> {
        let mut counts = Counts::default();
        self.read.iter().for_each(|trial| counts.add(trial.status));
        let names: BTreeSet<_> = self.read.iter().map(|trial| &trial.name).collect();
        if names.len() < self.read.len() {
            return Some("a trial stands twice in it".to_owned());
        }
        if counts != self.counts {
            let Counts { pass, fail, running, interrupted } = counts;
            return Some(format!(
                "its `counts` are wrong: {pass} passed, {fail} failed, {running} running, {interrupted} interrupted"
            ));
        }
        (self.selected < self.read.len())
            .then(|| format!("it has {} of {}", self.read.len(), counted(self.selected, "selected trial")))
    }

    /// What is said of a merged run follows from what is said of its shards.
    fn wrong_shards(&self) -> Option<String> {
        let shards = self.shards.as_ref()?;
        let mut of_shards: Vec<_> = shards.iter().flat_map(|shard| &shard.trials).collect();
        let mut trials: Vec<_> = self.read.iter().map(|trial| &trial.name).collect();
        of_shards.sort_unstable();
        trials.sort_unstable();
        if of_shards != trials {
            return Some("its trials are not those of its `shards`".to_owned());
        }
        let selected: usize = shards.iter().map(|shard| shard.selected).sum();
        if selected != self.selected {
            return Some(format!("{} trials were selected, and in its `shards` {selected}", self.selected));
        }
        let is_wrong = !self.interrupted && shards.iter().any(|shard| shard.interrupted);
        is_wrong.then(|| "`interrupted` is false, although one of its `shards` was".to_owned())
    }

    fn wrong_policy(&self) -> Option<String> {
        let standing = Standing {
            counts: self.counts,
            selected: self.selected,
            interrupted: self.interrupted,
            is_finished: self.finished_at.is_some(),
        };
        match (self.harness_policy.as_deref(), standing.policy()) {
            (said, due) if said == due => None,
            (None, _) => Some("`harness_policy` is null, although it is true of this run".to_owned()),
            (Some(_), None) => {
                Some("`harness_policy` is affirmed, although not every selected trial was judged".to_owned())
            }
            (Some(_), Some(due)) => Some(format!("`harness_policy` is not `{due}`")),
        }
    }
}

impl Shard {
    fn other_run(&self, files: &Files) -> Option<Problem> {
        let path = format!("{}{RUN}", shard_folder(&self.run_id));
        let Some(text) = content(files, &path) else { return Some(Problem::Missing(path.into())) };
        match serde_json::from_slice::<Run>(text) {
            Err(error) => Some(not_json(&path, &error)),
            Ok(run) if run.run_id == self.run_id => None,
            Ok(run) => Some(Problem::Differs { file: path.into(), why: format!("it is of the run `{}`", run.run_id) }),
        }
    }
}

impl Trial {
    fn result(&self) -> String {
        format!("results/{}/result.json", self.name)
    }

    /// A trial that was never judged may have the result of an earlier attempt, or none.
    fn differing_result(&self, files: &Files, text: &str) -> Option<Problem> {
        match self.status {
            Status::Pass | Status::Fail => {}
            Status::Running | Status::Interrupted => return None,
        }
        let path = self.result();
        let Some(result) = content(files, &path) else { return Some(Problem::Missing(path.into())) };
        if result == text.as_bytes() {
            return None;
        }
        let result: Map<String, Value> = match serde_json::from_slice(result) {
            Ok(result) => result,
            Err(error) => return Some(not_json(&path, &error)),
        };
        let summary: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        let mut keys = summary.keys().chain(result.keys());
        let key = keys.find(|key| summary.get(*key) != result.get(*key))?;
        Some(Problem::Differs { file: path.into(), why: format!("`{key}` is not the same") })
    }
}

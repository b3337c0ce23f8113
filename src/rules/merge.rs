//! Proof folders of several runs -> one: what may be merged, what is said of all of them, and where each file goes.
//!
//! Every trial keeps the place that it had. What there is once for each run goes below `stages/RUN_ID/`.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::rules::audit::{BUILD_META, Files, JOURNAL, content};
use crate::rules::junit::JUNIT;
use crate::rules::manifest::MANIFEST;
use crate::rules::report::one_line;
use crate::rules::summary::{
    Counts, Entry, Head, RUN, SCHEMA, SUMMARY, StageRecord, Standing, Status, SummaryText, Tail, TrialList,
    shard_folder,
};

/// A run that is to be merged. Its files have passed the audit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shard<'a> {
    /// What the user calls it.
    pub(crate) name: &'a str,
    pub(crate) files: &'a Files,
}

/// Why runs are not merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("`{file}` of `{shard}` cannot be used: {why}", shard = one_line(shard), why = one_line(why))]
    Unreadable { shard: String, file: &'static str, why: String },
    #[error(
        "the run in `{shard}` was killed, and nobody has taken note of it; `container-runner collect --proof {shard}` does",
        shard = one_line(.0)
    )]
    Killed(String),
    #[error(
        "`{trial}` in `{shard}` is still marked as running; `container-runner collect --proof {shard}` says what became of it",
        shard = one_line(shard), trial = one_line(trial)
    )]
    Running { shard: String, trial: String },
    #[error(
        "`{one}` and `{other}` both have the run `{run_id}`: the same one twice, or two that began in the same moment with the same \
         process id; leave one out, or run it again",
        one = one_line(one), other = one_line(other), run_id = one_line(run_id)
    )]
    SameRun { one: String, other: String, run_id: String },
    #[error(
        "`{trial}` is in `{one}` and in `{other}`; run each trial in one shard only",
        trial = one_line(trial), one = one_line(one), other = one_line(other)
    )]
    Overlap { one: String, other: String, trial: String },
    #[error(
        "{what} differs: `{one}` has {here}, `{other}` has {there}; merge runs of one revision, made in the same way{hint}",
        one = one_line(one), here = one_line(&values[0]), other = one_line(other), there = one_line(&values[1])
    )]
    Mixture { what: &'static str, one: String, other: String, values: Box<[String; 2]>, hint: &'static str },
    #[error(
        "`{one}` and `{other}` both have the file `{file}`, which is of no trial; remove it from one",
        one = one_line(one), other = one_line(other), file = one_line(file)
    )]
    Clash { one: String, other: String, file: String },
    #[error("`{file}` in `{shard}` is not the evidence of a run; remove it", shard = one_line(shard), file = one_line(file))]
    Foreign { shard: String, file: String },
}

/// Where a file comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct From {
    /// Which of the shards, as they were given.
    pub(crate) shard: usize,
    /// Below its folder.
    pub(crate) path: OsString,
}

/// One run made of several. The same runs in another order make the same.
#[derive(Debug)]
pub(crate) struct Merged {
    /// In the order of their identities.
    shards: Vec<Run>,
    records: Box<RawValue>,
    /// Where each file of theirs goes.
    pub(crate) files: BTreeMap<OsString, From>,
    /// The log: the lines of each shard as they were.
    pub(crate) journal: Vec<u8>,
    /// What keeps it from having passed, a line each; none if every selected trial has passed.
    pub(crate) failures: Vec<String>,
}

#[derive(Debug)]
struct Run {
    /// Which of the shards, as they were given.
    at: usize,
    name: String,
    summary: Summary,
    trials: Vec<Trial>,
    build: Option<Build>,
}

/// A summary, as far as one of several is made of it.
#[derive(Debug, Deserialize)]
struct Summary {
    run_id: String,
    distro: String,
    container_id: Option<String>,
    started_at: String,
    isolation: String,
    #[serde(default)]
    sandbox: bool,
    product: Option<String>,
    runner_version: String,
    #[serde(default)]
    revision: Option<String>,
    suites: Vec<Box<RawValue>>,
    selected: usize,
    not_selected: usize,
    interrupted: bool,
    finished_at: Option<String>,
    stages: Vec<StageRecord>,
    #[serde(default)]
    shards: Vec<Nested>,
}

/// A shard of what was merged before.
#[derive(Debug, Deserialize)]
struct Nested {
    run_id: String,
    stages: Vec<StageRecord>,
    #[serde(default)]
    shards: Vec<Nested>,
}

#[derive(Debug, Deserialize)]
struct Trial {
    name: String,
    status: Status,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct RunFile {
    pid: Option<u32>,
}

/// What tells one build of the product from another.
#[derive(Debug, Deserialize)]
struct Build {
    profile: String,
    toolchain: String,
    sha256: String,
    revision: Option<String>,
    dirty: Option<bool>,
}

/// Merges runs.
///
/// # Errors
/// If one has not ended, if they are not of one revision, or if a trial or a file is in two of them.
pub(crate) fn merge(shards: &[Shard<'_>]) -> Result<Merged, Refusal> {
    let runs = shards.iter().enumerate().map(|(at, shard)| Run::read(at, shard));
    let mut runs = runs.collect::<Result<Vec<_>, _>>()?;
    runs.sort_by(|one, other| one.summary.run_id.cmp(&other.summary.run_id));
    refuse_same_runs(&runs)?;
    refuse_overlap(&runs)?;
    runs.iter().skip(1).try_for_each(|run| refuse_mixture(&runs[0], run))?;
    let files = placed(&runs, shards)?;
    let logs = runs.iter().filter_map(|run| content(shards[run.at].files, JOURNAL));
    let journal = logs.flatten().copied().collect();
    let records = runs.iter().map(|run| record(run, shards[run.at])).collect::<Result<Vec<_>, _>>()?;
    let records =
        serde_json::value::to_raw_value(&records).map_err(|error| unreadable(&shards[runs[0].at], SUMMARY, &error))?;
    let failures = runs.iter().flat_map(Run::failures).collect();
    Ok(Merged { shards: runs, records, files, journal, failures })
}

fn unreadable(shard: &Shard<'_>, file: &'static str, why: &dyn ToString) -> Refusal {
    Refusal::Unreadable { shard: shard.name.to_owned(), file, why: why.to_string() }
}

/// Reads a file that the audit has found to be there.
fn parsed<'a, T: Deserialize<'a>>(shard: &Shard<'a>, file: &'static str) -> Result<T, Refusal> {
    let text = content(shard.files, file).unwrap_or_default();
    serde_json::from_slice(text).map_err(|error| unreadable(shard, file, &error))
}

impl Run {
    fn read(at: usize, shard: &Shard<'_>) -> Result<Self, Refusal> {
        let summary: Summary = parsed(shard, SUMMARY)?;
        if !is_folder_name(&summary.run_id) {
            return Err(unreadable(shard, SUMMARY, &"its `run_id` cannot be the name of a folder"));
        }
        if parsed::<RunFile>(shard, RUN)?.pid.is_some() {
            return Err(Refusal::Killed(shard.name.to_owned()));
        }
        let trials = summary.suites.iter().map(|text| serde_json::from_str(text.get()));
        let trials: Vec<Trial> =
            trials.collect::<Result<_, _>>().map_err(|error| unreadable(shard, SUMMARY, &error))?;
        if let Some(trial) = trials.iter().find(|trial| trial.status == Status::Running) {
            return Err(Refusal::Running { shard: shard.name.to_owned(), trial: trial.name.clone() });
        }
        let build = build_of(shard)?;
        Ok(Self { at, name: shard.name.to_owned(), summary, trials, build })
    }

    /// Its own identity, and those that it was merged of.
    fn run_ids(&self) -> Vec<&str> {
        let mut found = vec![self.summary.run_id.as_str()];
        let mut nested: Vec<_> = self.summary.shards.iter().collect();
        while let Some(shard) = nested.pop() {
            found.push(&shard.run_id);
            nested.extend(&shard.shards);
        }
        found
    }

    fn stages(&self) -> Vec<&StageRecord> {
        let mut found: Vec<_> = self.summary.stages.iter().collect();
        let mut nested: Vec<_> = self.summary.shards.iter().collect();
        while let Some(shard) = nested.pop() {
            found.extend(&shard.stages);
            nested.extend(&shard.shards);
        }
        found
    }

    fn failures(&self) -> Vec<String> {
        let shard = one_line(&self.name);
        let failed = self.trials.iter().filter(|trial| trial.status == Status::Fail);
        let mut failures: Vec<_> =
            failed.map(|trial| format!("{} in `{shard}`: {}", one_line(&trial.name), trial.why())).collect();
        let judged = self.trials.iter().filter(|trial| matches!(trial.status, Status::Pass | Status::Fail)).count();
        let selected = self.summary.selected;
        if judged < selected {
            failures.push(format!("`{shard}`: {} of {selected} selected trials were not judged", selected - judged));
        }
        if self.summary.interrupted {
            failures.push(format!("`{shard}`: the run was interrupted"));
        }
        // What the stage of the trials says, their own lines have said.
        let stages =
            self.stages().into_iter().filter(|stage| stage.status != Status::Pass && stage.name != "run-suites");
        failures.extend(stages.map(|stage| {
            let why = stage.message.as_deref().map(|why| format!(": {}", one_line(why))).unwrap_or_default();
            format!("`{shard}`: the stage `{}` has failed{why}", one_line(&stage.name))
        }));
        failures
    }
}

impl Trial {
    fn why(&self) -> String {
        one_line(self.reason.as_deref().unwrap_or("no reason was given"))
    }
}

fn is_folder_name(text: &str) -> bool {
    const BYTES_MAX: usize = 200;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    !text.is_empty() && text.len() <= BYTES_MAX && !text.starts_with('.') && text.chars().all(is_plain)
}

/// Those of one merged run are of one revision, so any of them tells.
fn build_of(shard: &Shard<'_>) -> Result<Option<Build>, Refusal> {
    let is_build = |path: &&OsString| path.to_str().is_some_and(|path| path == BUILD_META || is_kept_build(path));
    let Some(path) = shard.files.keys().find(is_build) else { return Ok(None) };
    let text = shard.files.get(path).and_then(|file| file.content.as_deref()).unwrap_or_default();
    serde_json::from_slice(text).map(Some).map_err(|error| unreadable(shard, BUILD_META, &error))
}

fn is_kept_build(path: &str) -> bool {
    path.starts_with("stages/") && path.ends_with("/build_meta.json")
}

fn refuse_same_runs(runs: &[Run]) -> Result<(), Refusal> {
    let mut seen: BTreeMap<&str, &Run> = BTreeMap::new();
    for run in runs {
        for run_id in run.run_ids() {
            if let Some(first) = seen.insert(run_id, run) {
                let (one, other) = (first.name.clone(), run.name.clone());
                return Err(Refusal::SameRun { one, other, run_id: run_id.to_owned() });
            }
        }
    }
    Ok(())
}

fn refuse_overlap(runs: &[Run]) -> Result<(), Refusal> {
    let mut seen: BTreeMap<&str, &Run> = BTreeMap::new();
    for run in runs {
        for trial in &run.trials {
            if let Some(first) = seen.insert(&trial.name, run) {
                let (one, other) = (first.name.clone(), run.name.clone());
                return Err(Refusal::Overlap { one, other, trial: trial.name.clone() });
            }
        }
    }
    Ok(())
}

fn refuse_mixture(one: &Run, other: &Run) -> Result<(), Refusal> {
    let facts = [one, other].map(facts);
    let differing = facts[0].iter().zip(&facts[1]).find(|((_, here), (_, there))| here != there);
    if let Some(((what, here), (_, there))) = differing {
        return Err(mixture(what, [one, other], [here, there], ""));
    }
    let (Some(here), Some(there)) = (&one.build, &other.build) else { return Ok(()) };
    // The same source in another folder may make other bytes; so they count only where nothing else tells the source.
    let is_told = |build: &Build| build.revision.is_some() && build.dirty == Some(false);
    if (is_told(here) && is_told(there)) || here.sha256 == there.sha256 {
        return Ok(());
    }
    const HINT: &str = ", and commit what the product is built of, so that its revision tells what that is";
    Err(mixture(
        "the sha256 of the product",
        [one, other],
        [&here.sha256, &there.sha256].map(|hash| Some(hash.clone())).each_ref(),
        HINT,
    ))
}

/// What must be the same of all runs, each by its name.
fn facts(run: &Run) -> Vec<(&'static str, Option<String>)> {
    let Run { summary, build, .. } = run;
    let of_build = |fact: fn(&Build) -> Option<String>| build.as_ref().and_then(fact);
    vec![
        ("the version of the runner", Some(summary.runner_version.clone())),
        ("the isolation", Some(summary.isolation.clone())),
        ("whether scripts run in the sandbox", Some(summary.sandbox.to_string())),
        ("the product", summary.product.clone()),
        ("the revision of the suites", summary.revision.clone()),
        ("whether the product was built", Some(if build.is_some() { "a build" } else { "no build" }.to_owned())),
        ("the profile of the product's build", of_build(|build| Some(build.profile.clone()))),
        ("the toolchain of the product's build", of_build(|build| Some(build.toolchain.clone()))),
        ("the revision of the product", of_build(|build| build.revision.clone())),
    ]
}

fn mixture(what: &'static str, runs: [&Run; 2], values: [&Option<String>; 2], hint: &'static str) -> Refusal {
    let [one, other] = runs.map(|run| run.name.clone());
    let values = values.map(|value| value.as_ref().map_or_else(|| "none".to_owned(), |text| format!("`{text}`")));
    Refusal::Mixture { what, one, other, values: Box::new(values), hint }
}

/// Returns where every file goes that is not made anew.
fn placed(runs: &[Run], shards: &[Shard<'_>]) -> Result<BTreeMap<OsString, From>, Refusal> {
    let mut placed: BTreeMap<OsString, (From, &Run)> = BTreeMap::new();
    for run in runs {
        for path in shards[run.at].files.keys() {
            let Some(to) = place(run, path)? else { continue };
            let from = From { shard: run.at, path: path.clone() };
            match placed.entry(to) {
                Place::Vacant(vacant) => drop(vacant.insert((from, run))),
                Place::Occupied(occupied) => {
                    let file = path.to_string_lossy().into_owned();
                    let (one, other) = (occupied.get().1.name.clone(), run.name.clone());
                    return Err(Refusal::Clash { one, other, file });
                }
            }
        }
    }
    Ok(placed.into_iter().map(|(to, (from, _))| (to, from)).collect())
}

/// `None`: it is made anew, of all of them.
fn place(run: &Run, path: &OsStr) -> Result<Option<OsString>, Refusal> {
    if [MANIFEST, SUMMARY, JUNIT, JOURNAL].iter().any(|made| path == *made) {
        return Ok(None);
    }
    let own = |rest: &[u8]| {
        let folder = shard_folder(&run.summary.run_id);
        Ok(Some(OsString::from_vec([folder.as_bytes(), rest].concat())))
    };
    let bytes = path.as_bytes();
    match bytes.split(|byte| *byte == b'/').next().unwrap_or_default() {
        _ if path == RUN => own(RUN.as_bytes()),
        _ if path == BUILD_META => own(b"build_meta.json"),
        b"stages" => own(bytes.strip_prefix(b"stages/").unwrap_or(bytes)),
        b"logs" | b"snapshots" | b"results" => Ok(Some(path.to_owned())),
        _ => Err(Refusal::Foreign { shard: run.name.clone(), file: path.to_string_lossy().into_owned() }),
    }
}

/// The summary of a shard with all that it says; of its trials the names.
fn record(run: &Run, shard: Shard<'_>) -> Result<Map<String, Value>, Refusal> {
    let mut record: Map<String, Value> = parsed(&shard, SUMMARY)?;
    record.remove("suites");
    let names: BTreeSet<_> = run.trials.iter().map(|trial| trial.name.as_str()).collect();
    record.insert("trials".to_owned(), names.into_iter().collect());
    Ok(record)
}

impl Merged {
    /// Returns a text that is different for other runs and other results of them: its identity is made of it.
    pub(crate) fn essence(&self) -> Vec<u8> {
        let trials = self.shards.iter().flat_map(|run| &run.summary.suites).map(|text| text.get());
        let lines = std::iter::once(self.records.get()).chain(trials);
        lines.flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
    }

    /// When the first of them began.
    pub(crate) fn started_at(&self) -> &str {
        self.shards.iter().map(|run| run.summary.started_at.as_str()).min().unwrap_or_default()
    }

    /// The commit of the suites.
    pub(crate) fn revision(&self) -> Option<&str> {
        self.shards.first()?.summary.revision.as_deref()
    }

    /// How many trials ended how.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.shards.iter().flat_map(|run| &run.trials).for_each(|trial| counts.add(trial.status));
        counts
    }

    /// How many trials were selected, and how many more a run knew that no one has selected. Under nextest a run knows none.
    pub(crate) fn selected(&self) -> (usize, usize) {
        let selected = self.shards.iter().map(|run| run.summary.selected).sum();
        let known = self.shards.iter().map(|run| run.summary.selected + run.summary.not_selected).max();
        (selected, known.unwrap_or_default().saturating_sub(selected))
    }

    /// Returns the summary of the run `run_id`, made of all of them.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn summary(&self, run_id: &str) -> serde_json::Result<Vec<u8>> {
        let distro = self.all_values(|summary| &summary.distro).join(", ");
        let of_first = self.shards.first().map(|run| &run.summary);
        let container_id = of_first.and_then(|first| first.container_id.as_deref());
        let is_one = self.shards.iter().all(|run| run.summary.container_id.as_deref() == container_id);
        let mut text = SummaryText::new(
            &Head {
                schema: SCHEMA,
                run_id,
                distro: &distro,
                container_id: container_id.filter(|_| is_one),
                started_at: self.started_at(),
                isolation: of_first.map_or("", |first| &first.isolation),
                sandbox: of_first.is_some_and(|first| first.sandbox),
                product: of_first.and_then(|first| first.product.as_deref()),
                runner_version: of_first.map_or("", |first| &first.runner_version),
                revision: self.revision(),
                traces: None,
            },
            TrialList::default(),
        )?;
        for run in &self.shards {
            for (trial, record) in run.trials.iter().zip(&run.summary.suites) {
                text.insert(&trial.name, &Entry { status: trial.status, text: record.clone() });
            }
        }
        Ok(text.render(&self.tail())?.0.concat())
    }

    fn tail(&self) -> Tail<'_> {
        let (selected, not_selected) = self.selected();
        let ends: Option<Vec<_>> = self.shards.iter().map(|run| run.summary.finished_at.as_deref()).collect();
        let finished_at = ends.and_then(|ends| ends.into_iter().max());
        let interrupted = self.shards.iter().any(|run| run.summary.interrupted);
        let counts = self.counts();
        let standing = Standing { counts, selected, interrupted, is_finished: finished_at.is_some() };
        Tail {
            selected,
            not_selected,
            counts,
            // Each shard has its own.
            stages: &[],
            interrupted,
            finished_at,
            harness_policy: standing.policy(),
            shards: Some(&self.records),
        }
    }

    fn all_values<'a>(&'a self, value: impl Fn(&'a Summary) -> &'a String) -> Vec<&'a str> {
        let values: BTreeSet<_> = self.shards.iter().map(|run| value(&run.summary).as_str()).collect();
        values.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;
    use crate::rules::audit::{File, is_read};

    fn put(files: &mut Files, path: &str, text: &str) {
        let content = is_read(OsStr::new(path)).then(|| text.as_bytes().to_vec());
        files.insert(path.into(), File { sha256: [0; 32], content });
    }

    /// A run that has passed a trial for each of `names`; `change` has its summary.
    fn run(run_id: &str, names: &[&str], change: impl FnOnce(&mut Value)) -> Files {
        let mut files = Files::new();
        let trials =
            names.iter().map(|name| json!({"name": name, "status": "pass", "reason": null})).collect::<Vec<_>>();
        let mut summary = json!({
            "schema": SCHEMA, "run_id": run_id, "distro": "debian", "container_id": null, "started_at": "2026-01-02T00:00:00Z",
            "isolation": "none", "product": null, "runner_version": "1", "revision": null, "suites": trials,
            "selected": names.len(), "not_selected": 0, "interrupted": false, "finished_at": "2026-01-02T00:00:09Z", "stages": [],
        });
        change(&mut summary);
        put(&mut files, SUMMARY, &summary.to_string());
        put(&mut files, RUN, &json!({"run_id": run_id, "pid": null}).to_string());
        put(&mut files, JOURNAL, &format!("{run_id}\n"));
        names.iter().for_each(|name| put(&mut files, &format!("results/{name}/result.json"), "{}"));
        files
    }

    fn of(files: &[&Files]) -> Result<Merged, Refusal> {
        let names = ["A", "B", "C"];
        let shards: Vec<_> = names.iter().zip(files).map(|(name, files)| Shard { name, files }).collect();
        merge(&shards)
    }

    fn summary(merged: &Merged) -> Value {
        serde_json::from_slice(&merged.summary("m").unwrap()).unwrap()
    }

    /// Of a run with one trial, `change`d, and one that is as it should be.
    fn with(change: impl FnOnce(&mut Value)) -> Value {
        summary(&of(&[&run("r1", &["a"], change), &run("r2", &["b"], |_| {})]).unwrap())
    }

    #[test]
    fn the_order_of_the_shards_does_not_matter() {
        let (one, two) = (run("r1", &["a", "c"], |_| {}), run("r2", &["b"], |_| {}));
        let [forth, back] = [of(&[&one, &two]).unwrap(), of(&[&two, &one]).unwrap()];
        assert_eq!(summary(&forth), summary(&back));
        assert_eq!((forth.essence(), &forth.journal), (back.essence(), &back.journal));
        assert_eq!(forth.journal, b"r1\nr2\n");
        assert_eq!(forth.files.keys().collect::<Vec<_>>(), back.files.keys().collect::<Vec<_>>());
        assert_eq!(
            (
                forth.files[OsStr::new("results/b/result.json")].shard,
                back.files[OsStr::new("results/b/result.json")].shard
            ),
            (1, 0)
        );
        let names =
            |value: &Value| value.as_array().unwrap().iter().map(|trial| trial["name"].clone()).collect::<Vec<_>>();
        assert_eq!(names(&summary(&forth)["suites"]), ["a", "b", "c"]);
    }

    #[test]
    fn another_result_is_another_run() {
        let two = run("r2", &["b"], |_| {});
        let essence = |one: &Files| of(&[one, &two]).unwrap().essence();
        let one = essence(&run("r1", &["a"], |_| {}));
        assert_ne!(one, essence(&run("r1", &["a"], |summary| summary["suites"][0]["rc"] = json!(7))));
        assert_ne!(one, essence(&run("r3", &["a"], |_| {})));
    }

    #[test]
    fn a_run_lasts_from_the_first_beginning_to_the_last_end() {
        let times = |change: fn(&mut Value)| {
            let merged = with(change);
            [merged["started_at"].clone(), merged["finished_at"].clone()]
        };
        let earlier = |summary: &mut Value| {
            summary["started_at"] = json!("2026-01-01T23:59:59Z");
            summary["finished_at"] = json!("2026-01-02T00:00:01Z");
        };
        assert_eq!(times(earlier), ["2026-01-01T23:59:59Z", "2026-01-02T00:00:09Z"]);
        let endless = times(|summary| summary["finished_at"] = Value::Null);
        assert_eq!(endless, [json!("2026-01-02T00:00:00Z"), Value::Null]);
    }

    #[test]
    fn what_is_true_of_one_shard_only_is_not_said_of_all() {
        let policy = |change: fn(&mut Value)| with(change)["harness_policy"].clone();
        assert!(policy(|_| {}).is_string());
        assert!(policy(|summary| summary["selected"] = json!(2)).is_null());
        assert!(policy(|summary| summary["interrupted"] = json!(true)).is_null());
        assert!(policy(|summary| summary["finished_at"] = Value::Null).is_null());
        let merged = with(|summary| {
            summary["container_id"] = json!("docker");
            summary["distro"] = json!("arch");
        });
        assert_eq!((&merged["container_id"], &merged["distro"]), (&Value::Null, &json!("arch, debian")));
    }

    #[test]
    fn trials_that_no_shard_selected_are_counted_once() {
        let found = |first: (usize, usize), second: (usize, usize)| {
            let set = |(selected, not_selected): (usize, usize)| {
                move |summary: &mut Value| {
                    summary["selected"] = json!(selected);
                    summary["not_selected"] = json!(not_selected);
                }
            };
            of(&[&run("r1", &["a"], set(first)), &run("r2", &["b"], set(second))]).unwrap().selected()
        };
        assert_eq!(found((2, 8), (3, 7)), (5, 5));
        assert_eq!(found((2, 3), (3, 2)), (5, 0));
        // Under nextest each process looks for its own trial only.
        assert_eq!(found((2, 0), (3, 0)), (5, 0));
        assert_eq!(found((2, 0), (3, 7)), (5, 5));
    }

    #[test]
    fn what_a_run_has_once_goes_below_its_own_folder() {
        let mut one = run("r1", &["a"], |_| {});
        let build =
            json!({"profile": "p", "toolchain": "t", "sha256": "0", "revision": "1", "dirty": false}).to_string();
        put(&mut one, BUILD_META, &build);
        put(&mut one, "stages/build.stdout.log", "");
        put(&mut one, MANIFEST, "");
        let merged = of(&[&one]).unwrap();
        let places: Vec<_> =
            merged.files.iter().map(|(to, from)| (to.to_str().unwrap(), from.path.to_str().unwrap())).collect();
        let expected = [
            ("results/a/result.json", "results/a/result.json"),
            ("stages/r1/build.stdout.log", "stages/build.stdout.log"),
            ("stages/r1/build_meta.json", BUILD_META),
            ("stages/r1/run.json", RUN),
        ];
        assert_eq!(places, expected);
        put(&mut one, "elsewhere/file", "");
        assert!(matches!(of(&[&one]), Err(Refusal::Foreign { .. })));
    }

    #[test]
    fn a_stage_that_is_called_as_what_we_add_is_refused() {
        let mut one = run("r1", &["a"], |_| {});
        put(&mut one, "stages/run.json", "{}");
        assert!(matches!(of(&[&one]), Err(Refusal::Clash { .. })), "{:?}", of(&[&one]));
    }

    #[test]
    fn failures_of_stages_within_a_shard_are_told() {
        let stage = json!({"name": "build", "status": "fail", "duration_ms": 1, "rc": 101, "message": "no"});
        let nested = json!([{"run_id": "r0", "stages": [stage]}]);
        let one = run("r1", &["a"], |summary| summary["shards"] = nested);
        assert_eq!(of(&[&one]).unwrap().failures, ["`A`: the stage `build` has failed: no"]);
        let two = run("r0", &["b"], |_| {});
        assert!(matches!(of(&[&one, &two]), Err(Refusal::SameRun { .. })));
    }
}

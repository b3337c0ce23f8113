//! From the suites folder to trials: which there are, in which order, which of them are wanted.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::flow::discover::{DiscoverError, Found, FoundKind, TASK, discover, discover_one};
use crate::flow::scripts::SetupRun;
use crate::flow::session::{Session, SessionError};
use crate::flow::setup::read_manifest;
use crate::flow::trial::{self, Judged};
use crate::model::suite::{Project, SuiteName};
use crate::model::verdict::{Fault, Finding};
use crate::os::disk::read_config;
use crate::os::host::Settings;
use crate::rules::parse::{default_setup, parse_project, run_order};
use crate::rules::plan::{NameError, close_names, first_duplicate, script_names, trial_name};
use crate::rules::summary::{Record, Status, TrialKind};

pub(crate) use crate::rules::plan::Wanted;

/// Every trial, in the order in which they run.
pub(crate) struct Plan {
    pub(crate) trials: Vec<Planned>,
    /// How many more there are, of which `TEST_FILTER` wants nothing.
    pub(crate) left_out: usize,
}

/// When the record of a script is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// As soon as it has run.
    AtOnce,
    /// While the next one runs.
    Later,
}

/// Names of files beside which the folders of suites stand.
const RESERVED: [&str; 2] = ["runner.jsonl", "build_meta.json"];

/// One trial that can be run.
pub(crate) struct Planned {
    name: SuiteName,
    /// The file that somebody opens to see what it does; of a folder that is wrong, the folder.
    source: PathBuf,
    work: Work,
}

enum Work {
    /// Its source is the `task.yaml`.
    Suite,
    Script {
        setup: Arc<SetupRun>,
        index: usize,
    },
    /// Something about its folder is wrong; it fails with this text.
    Broken {
        text: String,
    },
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("no suite in `{path}`: a suite is a folder with a task.yaml, or a Chickadee set-up", path = .0.display())]
    Empty(PathBuf),
    #[error("`TEST_FILTER` is `{filter}`, and no suite has that name{close}")]
    NoMatch { filter: String, close: String },
    #[error("no test is called `{0}`; nextest would take that for a pass")]
    NoSuchTrial(String),
    #[error("two tests would be called `{name}`: one of `{one}`, one of `{other}`; rename one", one = one.display(), other = other.display())]
    Duplicate { name: SuiteName, one: PathBuf, other: PathBuf },
}

impl Plan {
    /// Finds the trials. Starts nothing, writes nothing.
    ///
    /// Suites are not read before they run; the manifests of set-ups are, for their scripts' names. A whole
    /// name that is wanted alone is looked for alone: nextest starts a process for each.
    ///
    /// # Errors
    /// If the suites folder cannot be read or holds nothing, if two trials would have one name, or if `TEST_FILTER` matches nothing.
    pub(crate) fn read(settings: &Settings, wanted: &Wanted) -> Result<Self, PlanError> {
        let alone = wanted.alone().filter(|_| settings.filter.is_none());
        let found = match alone.map(|name| discover_alone(settings, name)).transpose()?.flatten() {
            Some(found) => vec![found],
            None => discover(&settings.suites_dir)?,
        };
        if found.is_empty() && alone.is_none() {
            return Err(PlanError::Empty(settings.suites_dir.clone()));
        }
        let mut trials = Vec::new();
        for folder in &found {
            trials.extend(plan_folder(folder)?.into_iter().map(|trial| (trial, folder.dir.clone())));
        }
        if let Some((one, other)) = first_duplicate(trials.iter().map(|(trial, _)| &trial.name)) {
            let name = trials[one].0.name.clone();
            return Err(PlanError::Duplicate { name, one: trials[one].1.clone(), other: trials[other].1.clone() });
        }
        let mut plan = Self { trials: trials.into_iter().map(|(trial, _)| trial).collect(), left_out: 0 };
        if let Some(filter) = &settings.filter {
            plan.keep_filtered(filter, &found)?;
        }
        Ok(plan)
    }

    /// `TEST_FILTER` is a folder's name, or a trial's.
    fn keep_filtered(&mut self, filter: &str, found: &[Found]) -> Result<(), PlanError> {
        let folder = found.iter().find(|folder| folder.name == filter);
        let is_match = |name: &str| {
            name == filter
                || folder
                    .is_some_and(|folder| name.strip_prefix(&folder.name).is_some_and(|rest| rest.starts_with('/')))
        };
        if !self.trials.iter().any(|trial| is_match(trial.name())) {
            let names = self.trials.iter().map(Planned::name).chain(found.iter().map(|folder| folder.name.as_str()));
            return Err(PlanError::NoMatch { filter: filter.to_owned(), close: close_names(filter, names) });
        }
        let all = self.trials.len();
        self.trials.retain(|trial| is_match(trial.name()));
        self.left_out = all - self.trials.len();
        Ok(())
    }

    /// Says that all trials of this plan are going to run, so that what they need can be made. Returns their records while they
    /// run, in order.
    pub(crate) fn announce(&self, session: &Session, keeping: Keeping) -> Vec<Record> {
        let running = self.trials.iter().map(Planned::running).collect::<Vec<_>>();
        self.trials.iter().for_each(Planned::expect);
        // Where there is time for it, making the file beside its content is better than a thread more.
        let waited_for = |record: &&Record| keeping == Keeping::AtOnce || record.kind == TrialKind::Suite;
        let waited_for = running.iter().filter(waited_for).cloned();
        session.proof.make_ahead(waited_for, !session.project.snapshot.is_empty());
        running
    }

    /// Suites share a file system; scripts have copies of their own.
    pub(crate) fn may_run_in_parallel(&self) -> bool {
        self.trials.iter().all(|trial| matches!(trial.work, Work::Script { .. }))
    }

    /// Puts the trials into an order that depends on `seed` alone. Scripts still run after those that they depend on.
    pub(crate) fn shuffle(&mut self, seed: u64) {
        self.trials.sort_by_cached_key(|trial| {
            let mut hasher = DefaultHasher::new();
            (seed, trial.name()).hash(&mut hasher);
            hasher.finish()
        });
    }
}

impl Planned {
    /// The trial's name.
    pub(crate) fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The file that somebody opens to see what it does; of a folder that is wrong, the folder.
    pub(crate) fn source(&self) -> &Path {
        &self.source
    }

    /// Returns the record of the trial while it runs.
    fn running(&self) -> Record {
        let kind = match self.work {
            Work::Suite | Work::Broken { .. } => TrialKind::Suite,
            Work::Script { .. } => TrialKind::Script,
        };
        Record::new(self.name(), kind, Status::Running)
    }

    fn expect(&self) {
        if let Work::Script { setup, index } = &self.work {
            setup.expect(*index);
        }
    }

    /// Runs the trial and keeps its record. `next` is the one after it, if they run one at a time.
    pub(crate) fn run(&self, session: &Session, next: Option<&Record>) -> Judged {
        self.keep(session, self.judge(session, &mut || {}), next)
    }

    /// Tells whether the next trial need not wait until this one is kept: it leaves nothing behind that the next could meet.
    pub(crate) fn may_be_kept_later(&self) -> bool {
        matches!(self.work, Work::Script { .. })
    }

    /// Runs the trial. Calls `begun` once: before anything of a suite runs, and as soon as a script runs.
    pub(crate) fn judge(&self, session: &Session, begun: &mut dyn FnMut()) -> Judged {
        let earlier = session.earlier(self.name());
        let mut marked = None;
        let mut begin = || {
            if marked.is_none() {
                begun();
                marked = Some(session.proof.begin(&self.running()));
            }
        };
        let mut judged = match &self.work {
            Work::Suite => {
                begin();
                trial::run(session, &self.name, &self.source)
            }
            Work::Script { setup, index } => setup.run(session, *index, &mut begin),
            Work::Broken { text } => Judged::not_run(self.running(), &Finding::Invalid(text.clone())),
        };
        begin();
        session.dismiss_after_one_trial();
        if let Some(Err(error)) = marked {
            judged.add_fault(Fault::new(&error));
        }
        judged.record.earlier = earlier;
        judged
    }

    /// Keeps the record of the trial. `next` is the one after it, if they run one at a time.
    pub(crate) fn keep(&self, session: &Session, judged: Judged, next: Option<&Record>) -> Judged {
        let judged = trial::keep(session, judged, next);
        if judged.record.status != Status::Pass {
            session.note_failure(&judged, &self.source);
        }
        judged
    }
}

/// Reads runner.yaml, if there is one.
///
/// # Errors
/// If it is wrong.
pub(crate) fn read_project(settings: &Settings) -> Result<Project, SessionError> {
    let file = settings.suites_dir.join("runner.yaml");
    match read_config(&file) {
        Ok(text) => Ok(parse_project(&file, &text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Project::default()),
        Err(source) => Err(SessionError::Read { path: file, source }),
    }
}

/// `NAME` is a suite's folder, or a script's name in a set-up's folder.
/// `None`: it is neither, but it may have been made from a folder's name that no test runner could take.
fn discover_alone(settings: &Settings, name: &str) -> Result<Option<Found>, PlanError> {
    if SuiteName::new(name).is_err() {
        return Ok(None);
    }
    let parents = name.match_indices('/').map(|(at, _)| &name[..at]);
    for folder in std::iter::once(name).chain(parents) {
        if let Some(found) = discover_one(&settings.suites_dir, folder)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn plan_folder(folder: &Found) -> Result<Vec<Planned>, PlanError> {
    let broken = |text| -> Result<Vec<Planned>, PlanError> {
        let name = trial_name(&folder.name).map_err(NameError::from)?;
        Ok(vec![Planned { name, source: folder.dir.clone(), work: Work::Broken { text } }])
    };
    if let Err(error) = SuiteName::new(folder.name.as_str()) {
        return broken(format!("{error}; rename the folder `{}`", folder.dir.display()));
    }
    if RESERVED.contains(&folder.name.as_str()) {
        return broken(format!(
            "a file of the proof folder is called so; rename the folder `{}`",
            folder.dir.display()
        ));
    }
    let setup = match &folder.kind {
        FoundKind::Suite => {
            let name = SuiteName::new(folder.name.as_str()).map_err(NameError::from)?;
            return Ok(vec![Planned { name, source: folder.dir.join(TASK), work: Work::Suite }]);
        }
        FoundKind::Misspelt(file) => {
            return broken(format!("`{}` is no {TASK}; rename it", folder.dir.join(file).display()));
        }
        FoundKind::Scripts(scripts) => default_setup(&folder.name, &folder.dir, scripts.clone()),
        FoundKind::Setup => match read_manifest(&folder.name, &folder.dir, &folder.dir) {
            Ok(setup) => setup,
            Err(error) => return broken(Fault::new(&error).to_string()),
        },
    };
    let names = script_names(&setup)?;
    let order = run_order(&setup);
    let sources: Vec<_> = setup.entries.iter().map(|entry| folder.dir.join(&entry.script)).collect();
    let setup = Arc::new(SetupRun::new(setup, names.clone()));
    let planned = |index: usize| Planned {
        name: names[index].clone(),
        source: sources[index].clone(),
        work: Work::Script { setup: Arc::clone(&setup), index },
    };
    Ok(order.into_iter().map(planned).collect())
}

//! The command line of `container-runner`. Help, completions and the man page are made of it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::os::probe::ORDER;

const SETTINGS: &str = "\
Environment:
  TEST_FILTER        run the one suite, set-up or script of this name
  SUITE_TIMEOUT_SEC  limit of one block, in seconds [default: 900]
  CARGO_PROFILE      profile of the product's build [default: release]
  RUSTUP_TOOLCHAIN   toolchain of the product's build [default: stable]
  RUNNER_JSONL       one more place for the JSONL log
  TMPDIR             where scratch folders are made [default: /tmp]
  NO_COLOR           no colours
 of grade --sandbox, as for chickadee-runner:
  RUNNER_SANDBOX_MEMORY_MB, RUNNER_SANDBOX_DISK_MB, RUNNER_SANDBOX_FILES
                     what one sandboxed script may use and write: MiB, MiB,
                     files and folders [default: 2048, 512, 50000]
  RUNNER_SANDBOX_PROCESSES, RUNNER_SANDBOX_OPEN_FILES
                     at once, of a script, of each process [default: 512, 1024]
  RUNNER_SANDBOX_SHOWS
                     folders and files that sandboxed scripts may read, too,
                     separated by colons

Exit codes:
  0        everything passed; of grade: it was graded, whatever the marks
  1        a suite failed; verify found a problem; not all that was merged has
           passed; of grade: --check found a test that has not passed
  2        the command line or the configuration is wrong, what is to be merged,
           or what is to be graded; doctor: the run could not start
  3        the runner itself failed
  129 130 143
           interrupted by SIGHUP, SIGINT, SIGTERM
  other    the code of the command by which a stage failed";

/// Runs system tests for software that changes the machine it runs on, stage by stage.
///
/// Suites are folders with a task.yaml: bash blocks, and claims about what they change. Evidence goes to the proof folder.
#[derive(Debug, Parser)]
#[command(name = "container-runner", version, after_help = SETTINGS, arg_required_else_help = true)]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) order: Order,
    #[command(flatten)]
    pub(super) places: Places,
    /// Say less: failures and the last line only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Show the output of blocks and commands while it comes, on standard error.
    #[arg(short, long, global = true, action = ArgAction::SetTrue)]
    pub(super) verbose: bool,
}

/// Where things are.
#[derive(Debug, Args)]
pub(super) struct Places {
    /// The project's folder [default: $PROJECT_DIR, /workspace in a container, else the working directory].
    #[arg(long, global = true, value_name = "DIR")]
    project_dir: Option<PathBuf>,
    /// The suites [default: $SUITES_DIR, else `suites` in the project's folder].
    #[arg(long, global = true, value_name = "DIR")]
    suites: Option<PathBuf>,
    /// The proof folder [default: $PROOF_DIR, else `.proof` in the project's folder].
    #[arg(long, global = true, value_name = "DIR")]
    proof: Option<PathBuf>,
}

/// Variables, and the flags that say the same.
const PLACES: [(&str, &str); 3] =
    [("PROJECT_DIR", "--project-dir"), ("SUITES_DIR", "--suites"), ("PROOF_DIR", "--proof")];

/// Returns the flag that says the same as a variable.
pub(super) fn flag_of(variable: &str) -> &'static str {
    PLACES.iter().find(|(name, _)| *name == variable).map_or("", |(_, flag)| flag)
}

impl Places {
    /// Returns the variables that say the same.
    pub(super) fn into_variables(self) -> Vec<(&'static str, OsString)> {
        let places = [self.project_dir, self.suites, self.proof];
        PLACES
            .iter()
            .map(|(name, _)| *name)
            .zip(places)
            .filter_map(|(name, path)| Some((name, path?.into_os_string())))
            .collect()
    }
}

/// A run's `Places`, by the same names, for an order that has no use for them: it does not offer them, and refuses them.
#[derive(Debug, Args)]
pub(super) struct NoPlaces {
    #[arg(long, hide = true)]
    project_dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    suites: Option<PathBuf>,
    #[arg(long, hide = true)]
    proof: Option<PathBuf>,
}

impl NoPlaces {
    /// Returns the first flag of them that was given.
    fn given(&self) -> Option<&'static str> {
        let places = [&self.project_dir, &self.suites, &self.proof];
        PLACES.iter().zip(places).find(|(_, place)| place.is_some()).map(|((_, flag), _)| *flag)
    }
}

/// What is graded, and how.
#[derive(Debug, Args)]
pub(super) struct Grade {
    /// The set-up: a folder, or a zip archive of what is in one. Its test.properties.json names the scripts; without one, all *.sh.
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pub(super) setup: PathBuf,
    /// What a student has handed in: a folder, a *.zip archive of what is in one, or one file of any other name [default: nothing is
    /// laid beside the set-up].
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pub(super) submission: Option<PathBuf>,
    /// Run make and the scripts in the sandbox, with the limits and the files that RUNNER_SANDBOX_* (see container-runner --help) gives
    /// those of a worker.
    #[arg(long)]
    pub(super) sandbox: bool,
    /// Print what the grading machine would report, a line of JSON, and nothing else.
    #[arg(long)]
    pub(super) json: bool,
    /// Fail if not every test has passed, those without points included: for the reference solution.
    #[arg(long)]
    pub(super) check: bool,
    /// The variant of the assignment: what scripts find in CHICKADEE_ASSIGNMENT_SEED.
    #[arg(long)]
    pub(super) seed: Option<String>,
    /// How the report calls the submission [default: its name without an extension].
    #[arg(long, value_name = "ID")]
    pub(super) submission_id: Option<String>,
    /// How the report calls the set-up [default: its name without an extension].
    #[arg(long, value_name = "ID")]
    pub(super) test_setup_id: Option<String>,
    /// Which attempt of the student this is.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) attempt: u32,
    #[command(flatten)]
    no_places: NoPlaces,
}

/// A file that has a schema.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum SchemaOf {
    /// `task.yaml`, a suite.
    Task,
    /// `runner.yaml`, a project.
    Runner,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Order {
    /// Run all stages, in order: preflight, deps, build, run-suites, collect.
    All,
    /// Tell what machine this is, and check that the product can be built on it. Repairs nothing. Begins a new run.
    Preflight,
    /// Install the required packages that are missing, and nothing else.
    Deps,
    /// Build the product.
    Build,
    /// Run the suites, or the one that TEST_FILTER names.
    RunSuites,
    /// Pack the evidence of the last run: manifest.sha256 and proofs.tar.gz.
    Collect {
        /// Fold the runs in these proof folders or bundles into one, in the proof folder.
        ///
        /// They must be of one revision, and no trial in two of them. Fails if a trial of them has failed or was not judged.
        #[arg(long, num_args = 1.., value_name = "DIR", value_hint = clap::ValueHint::AnyPath)]
        merge: Vec<PathBuf>,
    },
    /// Check a proof folder or a proofs.tar.gz again: every file, the log, the summary.
    Verify {
        /// The folder or archive [default: the proof folder].
        path: Option<PathBuf>,
    },
    /// Run a Chickadee set-up over a submission, as a grading machine would, and show what came of it.
    ///
    /// Neither of them is written to. Files of the submission do not replace those of the set-up. Codes: 0 it was graded,
    /// whatever the marks; 1 `--check` found a test that has not passed; 2 the command line, the set-up or an archive is wrong, or there is no
    /// sandbox; 3 grading itself failed.
    Grade(Grade),
    /// Tell what this machine can do, and what follows. Fails if the configured run could not start.
    Doctor,
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
        #[command(flatten)]
        no_places: NoPlaces,
    },
    /// Print the JSON Schema of a file that people write, for editors.
    Schema {
        /// Which file.
        file: SchemaOf,
        #[command(flatten)]
        no_places: NoPlaces,
    },
    /// Print the man page, in roff.
    Man {
        #[command(flatten)]
        no_places: NoPlaces,
    },
    /// Try something in this process, for `doctor`.
    #[command(name = ORDER, hide = true)]
    Probe {
        /// What.
        what: String,
    },
}

impl Order {
    /// Returns what this order is called, if it has no use for a run's places, and the first of their flags that was given all the same.
    pub(super) fn needless_place(&self) -> Option<(&'static str, &'static str)> {
        let (order, no_places) = match self {
            Self::Grade(grade) => ("grade", &grade.no_places),
            Self::Completions { no_places, .. } => ("completions", no_places),
            Self::Schema { no_places, .. } => ("schema", no_places),
            Self::Man { no_places } => ("man", no_places),
            Self::All
            | Self::Preflight
            | Self::Deps
            | Self::Build
            | Self::RunSuites
            | Self::Collect { .. }
            | Self::Verify { .. }
            | Self::Doctor
            | Self::Probe { .. } => return None,
        };
        Some((order, no_places.given()?))
    }
}

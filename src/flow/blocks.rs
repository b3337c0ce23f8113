//! The blocks of one suite: where they run, with which environment, with which limits.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::flow::session::{Session, refuse_own};
use crate::model::script::{Changes, Completion, Environment, LogFiles, Script, SignalReach};
use crate::model::suite::{Block, PresenceRules, Suite};
use crate::model::verdict::{BlockName, Fault, Phase, ProductLog};
use crate::os::disk::SnapshotRoot;
use crate::os::engine::tee::ProductTap;
use crate::os::workdir;
use crate::rules::presence::snapshot_paths;

/// One argument of execve(2) may have 128 KiB; a longer block is passed as a file.
const INLINE_BYTES_MAX: usize = 120 << 10;
/// Product output that is searched for warnings.
const PRODUCT_OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// What the blocks of one suite share. What they leave in the scratch folder goes when the next suite starts, or with the run.
pub(super) struct Blocks<'a> {
    session: &'a Session,
    suite: &'a Suite,
    environment: Environment,
    logs: PathBuf,
    tap: Option<ProductTap>,
    /// Where each snapshot starts.
    pub(super) roots: Vec<SnapshotRoot>,
    /// The project's rules, with this suite's scratch folder.
    pub(super) presence_rules: Option<PresenceRules>,
    /// What each block has.
    pub(super) limit: Duration,
}

impl<'a> Blocks<'a> {
    /// Makes the suite's scratch folder and its environment.
    ///
    /// # Errors
    /// If the scratch folder cannot be made.
    pub(super) fn new(session: &'a Session, suite: &'a Suite) -> Result<Self, Fault> {
        let scratch = session.scratch.path().join("suite");
        let made = workdir::make_empty(&scratch);
        made.map_err(|error| Fault::from_text(format!("could not make `{}`: {error}", scratch.display())))?;
        let logs = session.proof.dir().join("logs").join(suite.name.as_str());
        let tap = session.tap(&logs)?;
        let scratch_text = scratch.to_string_lossy();
        let placed = |text: &String| text.replace("{scratch}", &scratch_text);
        let absolute = |text: &String| session.settings.project_dir.join(placed(text)).to_string_lossy().into_owned();
        let paths = snapshot_paths(&session.project, suite, &session.applets);
        for text in suite.snapshot.iter().map(placed) {
            refuse_own(&session.settings, &text).map_err(|error| Fault::new(&error))?;
        }
        let limit = suite.kill_timeout.or(session.settings.suite_timeout).unwrap_or(session.project.timeout);
        Ok(Self {
            environment: environment(session, suite, &scratch, tap.as_ref()),
            roots: paths.iter().map(|path| SnapshotRoot::parse(&placed(path), &session.settings.project_dir)).collect(),
            presence_rules: session.project.presence.as_ref().map(|rules| PresenceRules {
                applets: rules.applets.clone(),
                target: absolute(&rules.target),
                providers: rules.providers.iter().map(absolute).collect(),
                unified: rules.unified.iter().map(absolute).collect(),
                preserve: rules.preserve.clone(),
            }),
            session,
            suite,
            logs,
            tap,
            limit,
        })
    }

    /// Tells whether a snapshot may see the scratch folder, which was just emptied.
    pub(super) fn look_at_scratch(&self) -> bool {
        self.roots.iter().any(|root| root.may_meet(self.session.scratch.path()))
    }

    /// Returns the bash text of a block, if the suite has it.
    pub(super) fn text(&self, name: BlockName) -> Option<&'a Block> {
        match name {
            BlockName::Prepare => self.suite.prepare.as_ref(),
            BlockName::Execute => Some(&self.suite.execute),
            BlockName::Debug => self.suite.debug.as_ref(),
            BlockName::Restore => self.suite.restore.as_ref(),
        }
    }

    /// Runs one block to its end; calls `meanwhile` as soon as it runs.
    ///
    /// # Errors
    /// If it could not be started, or not be ended.
    pub(super) fn run(&self, name: BlockName, block: &Block, meanwhile: &mut dyn FnMut()) -> Phase<Completion> {
        let settings = &self.session.settings;
        let script = Script {
            program: self.session.bash.clone(),
            args: self.bash_args(name, block)?,
            cwd: settings.project_dir.clone(),
            work_dir: settings.project_dir.clone(),
            changes: Changes::Kept,
            environment: self.environment.clone(),
            limits: self.session.limits(self.limit),
            logs: Some(LogFiles {
                stdout: self.logs.join(format!("{name}.stdout.log")),
                stderr: self.logs.join(format!("{name}.stderr.log")),
            }),
            // A suite may stop and start services of the machine.
            signals: SignalReach::Machine,
            echo: self.session.echo,
            marker: Some(self.session.scratch.marker()),
        };
        let cancel = match name {
            BlockName::Prepare | BlockName::Execute | BlockName::Debug => self.session.interrupt.work(),
            BlockName::Restore => self.session.interrupt.restore(),
        };
        self.session.run_while(&script, cancel, meanwhile)
    }

    /// The text is bash's `-c`, so that no file of ours lies about; its messages begin with `SUITE/BLOCK: line N:`.
    fn bash_args(&self, name: BlockName, block: &Block) -> Result<Vec<OsString>, Fault> {
        let mut args: Vec<OsString> = vec!["-euo".into(), "pipefail".into()];
        if block.text.len() <= INLINE_BYTES_MAX {
            // Without the dashes a text that begins with one would be an option.
            args.extend(["-c".into(), "--".into()]);
            args.push(block.text.clone().into());
            args.push(format!("{}/{name}", self.suite.name).into());
        } else {
            let file = self.session.scratch.path().join(format!("{name}.bash"));
            fs::write(&file, &block.text)
                .map_err(|error| Fault::from_text(format!("could not write `{}`: {error}", file.display())))?;
            args.push(file.into());
        }
        Ok(args)
    }

    /// Tells whether a product is named, so that its log means something.
    pub(super) fn has_product(&self) -> bool {
        self.tap.is_some()
    }

    /// Forgets uses of the product's file that were ours.
    pub(super) fn forget_opens(&self) {
        self.tap.as_ref().map(ProductTap::forget_opens);
    }

    /// Returns how often the product's file was opened since then.
    pub(super) fn count_opens(&self) -> usize {
        self.tap.as_ref().map_or(0, ProductTap::count_opens)
    }

    /// Returns what the product printed so far, and whether that is all. `opens` were counted while blocks ran.
    pub(super) fn product_output(&self, opens: usize) -> (String, ProductLog) {
        let Some(tap) = &self.tap else { return (String::new(), ProductLog::Empty) };
        let seen = tap.seen(opens);
        let log = match (seen.calls, seen.is_incomplete) {
            (_, true) => ProductLog::Incomplete,
            (0, false) => ProductLog::Empty,
            (_, false) => ProductLog::Complete,
        };
        let files = ["product.stdout.log", "product.stderr.log"].map(|name| self.logs.join(name));
        (files.iter().map(|file| read_bounded(file)).collect(), log)
    }
}

fn environment(session: &Session, suite: &Suite, scratch: &Path, tap: Option<&ProductTap>) -> Environment {
    let settings = &session.settings;
    let mut environment = settings.block_environment.clone();
    let ours = tap.map(|tap| tap.dir().to_path_buf());
    let folders = ours.into_iter().chain(session.product_dir()).chain(std::env::split_paths(&settings.search_path));
    // A folder with a colon in its name cannot stand in PATH; then the rest is as it was.
    let path = std::env::join_paths(folders).unwrap_or_else(|_| settings.search_path.clone());
    let suite_dir = suite.file.parent().unwrap_or(Path::new("/"));
    environment.set("PATH", path);
    environment.set("PROJECT_DIR", &settings.project_dir);
    environment.set("SUITE_DIR", suite_dir);
    environment.set("SUITE_NAME", suite.name.as_str());
    environment.set("SCRATCH_DIR", scratch);
    for (name, value) in &suite.environment {
        environment.set(name, value);
    }
    environment
}

fn read_bounded(file: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    // A stream without output has no file.
    if let Ok(file) = fs::File::open(file) {
        file.take(PRODUCT_OUTPUT_BYTES_MAX).read_to_end(&mut bytes).ok();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

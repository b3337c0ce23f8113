//! The command line and the environment of the worker, and its secret.

mod address;
mod secret;

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::os::host::{self, SandboxSettings, ValueError, Variables, number};
use crate::rules::nearest::nearest;
use crate::worker::http::shown_text;
use crate::worker::log::Format;

pub(super) use address::{ApiAddress, BadAddress};
use secret::OpenFile;
pub(super) use secret::{Secret, SecretError};

const SETTINGS: &str = "\
Environment (a flag that says the same comes first; an empty variable counts
as absent; MB are MiB, 1,048,576 bytes):
  RUNNER_SHARED_SECRET, WORKER_SHARED_SECRET
                     the secret; else the files ./.worker-secret and
                     /data/.worker-secret. Without any, requests go unsigned
  RUNNER_STATE_DIR   as --state-dir
  RUNNER_TEST_SETUP_CACHE_DIR
                     as --test-setup-cache-dir
  RUNNER_TEST_SETUP_CACHE_MAX_MB
                     size of the cache [default: 2048]
  RUNNER_MAX_DOWNLOAD_MB
                     largest download [default: 512]
  RUNNER_MIN_FREE_DISK_MB
                     no new jobs with less free space than this in TMPDIR, the
                     state folder or the cache; 0: no check [default: 128]
  RUNNER_DRAIN_LIMIT_SEC, RUNNER_CA_FILE
                     as --drain-limit, --ca-file
  RUNNER_NETWORK_RETRY_ENABLED
                     try failed requests again [default: true]
  RUNNER_RETRY_BASE_DELAY_MS, RUNNER_RETRY_MAX_DELAY_MS
                     first and longest pause before that
                     [default: 1000, 30000]
  RUNNER_HEARTBEAT_RETRY_MAX_ATTEMPTS, RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS,
  RUNNER_DOWNLOAD_RETRY_MAX_ATTEMPTS
                     attempts in all; after that, results are retried less
                     often [default: 4, 8, 6]
  RUNNER_HEARTBEAT_INTERVAL_MS
                     between two heartbeats while there are jobs
                     [default: 30000]
  RUNNER_SANDBOX_MEMORY_MB, RUNNER_SANDBOX_DISK_MB, RUNNER_SANDBOX_FILES
                     what one sandboxed script may use and write
                     [default: 2048, 512, 50000]
  RUNNER_SANDBOX_PROCESSES, RUNNER_SANDBOX_OPEN_FILES
                     processes of one script at once; open files of each
                     process [default: 512, 1024]
  RUNNER_SANDBOX_SHOWS
                     folders and files that sandboxed scripts may read as
                     well, separated by colons
  RUNNER_CAPABILITY_DISCOVERY_ENABLED
                     find out what this machine can run [default: true]
  NO_COLOR           no colours

Exit codes:
  0        drained, or with --once: everything that was there is done
  2        the command line or the configuration is wrong, there is no sandbox,
           the id is in use on this machine, or its folder has something for
           another server
  3        the worker itself failed, a disk was full at its start, a result
           is lost, or with --once: something that was there is not done
  129 130 143
           aborted by a second SIGHUP, SIGINT, SIGTERM";

/// Polls an API server for grading jobs, runs their scripts, and reports what came of it.
///
/// SIGTERM, SIGINT or SIGHUP: no new jobs, those that run come to their end; a second one ends the worker at once.
#[derive(Debug, Parser)]
#[command(name = "chickadee-runner", version, after_help = SETTINGS)]
pub(super) struct Flags {
    /// Where the server's API is.
    #[arg(long, value_name = "URL", default_value = "http://localhost:8080")]
    api_base_url: String,
    /// What this worker is called [default: worker-<hostname>].
    #[arg(long, value_name = "ID")]
    worker_id: Option<String>,
    /// How many jobs run at the same time, 1 to 256.
    #[arg(long, value_name = "N", default_value = "4")]
    max_jobs: String,
    /// Run scripts in the sandbox, or not at all.
    #[arg(long)]
    sandbox: bool,
    /// The shared secret. Every user of this machine can see arguments: prefer the environment or a file.
    #[arg(long, value_name = "SECRET")]
    worker_secret: Option<OsString>,
    /// Where unpacked set-ups are kept [default: chickadee-runner/setups in the user's cache folder].
    #[arg(long, value_name = "DIR")]
    test_setup_cache_dir: Option<PathBuf>,
    /// Where unsent results and jobs in hand are kept [default: chickadee-runner in the user's state folder].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How long jobs may go on after SIGTERM, in seconds [default: 300].
    #[arg(long, value_name = "SEC")]
    drain_limit: Option<String>,
    /// How events are written on standard error; auto: as text on a terminal, else as JSON.
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
    /// A file that always tells what the worker is doing; its folder must be there.
    #[arg(long, value_name = "FILE")]
    status_file: Option<PathBuf>,
    /// Certificates, in PEM, trusted in addition to the built-in ones.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Take the jobs that are there, then end.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Auto,
    Json,
    Text,
}

/// What the worker is told to do.
#[derive(Debug)]
pub(super) struct Config {
    /// Where the server's API is.
    pub(super) api: ApiAddress,
    /// What this worker is called: fit for a header.
    pub(super) worker_id: String,
    /// This machine.
    pub(super) hostname: String,
    /// How many jobs run at the same time.
    pub(super) max_jobs: NonZeroUsize,
    /// Whether scripts run in the sandbox.
    pub(super) sandbox: bool,
    /// What of it.
    pub(super) sandbox_settings: SandboxSettings,
    /// What requests are signed with.
    pub(super) secret: Option<Secret>,
    /// Where it is, for people.
    pub(super) secret_place: Option<String>,
    /// Where a secret may lie, whether it is this one or not.
    pub(super) secret_files: [PathBuf; 2],
    /// Where unpacked set-ups are kept.
    pub(super) cache_dir: PathBuf,
    /// How many bytes of them.
    pub(super) cache_bytes_max: u64,
    /// The largest download.
    pub(super) download_bytes_max: u64,
    /// With less free space than that no job is taken; 0: no check.
    pub(super) free_disk_mb_min: u64,
    /// The folder of all workers' state.
    pub(super) state_dir: PathBuf,
    /// How long jobs may go on after SIGTERM.
    pub(super) drain_limit: Duration,
    /// How events are written.
    pub(super) log_format: Format,
    /// What is to tell what the worker is doing.
    pub(super) status_file: Option<PathBuf>,
    /// Certificates to trust in addition to the built-in ones.
    pub(super) ca_file: Option<PathBuf>,
    /// Take the jobs that are there, then end.
    pub(super) once: bool,
    /// When something is tried again.
    pub(super) retry: RetrySettings,
    /// Between two heartbeats, while there are jobs.
    pub(super) heartbeat_interval: Duration,
    /// Whether it is found out what this machine can run.
    pub(super) discovers_capabilities: bool,
    /// Folder for temporary files.
    pub(super) temp_dir: PathBuf,
    /// Where programs are, for scripts too.
    pub(super) search_path: OsString,
    /// What the log is to say of all this.
    pub(super) warnings: Vec<Warning>,
}

/// When something is tried again. Attempts include the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetrySettings {
    /// Whether anything is.
    pub(super) is_on: bool,
    /// The first pause.
    pub(super) base: Duration,
    /// The longest.
    pub(super) max: Duration,
    /// Of heartbeats.
    pub(super) heartbeat_attempts_max: NonZeroU32,
    /// Of results, before they are sent less often.
    pub(super) upload_attempts_max: NonZeroU32,
    /// Of downloads.
    pub(super) download_attempts_max: NonZeroU32,
}

/// Something that works, but should be known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Warning {
    #[error(
        "`--worker-secret`: every user of this machine can see the arguments of a process; use `RUNNER_SHARED_SECRET` or a file"
    )]
    SecretInArguments,
    #[error("others may read the secret in `{path}` (its mode is {mode:04o}); take that from them with {remedy}", path = path.display())]
    SecretFileOpen { path: PathBuf, mode: u32, remedy: String },
    #[error(
        "the secret in {place} has less than {SECRET_BYTES_SAFE} bytes: it is guessed easily, and wherever these stand in the log they \
         are hidden; use a longer one"
    )]
    SecretShort { place: String },
    #[error("the environment has `{name}`, which means nothing here; did you mean `{meant}`?")]
    Misspelt { name: String, meant: &'static str },
    #[error("there is no secret, so requests go unsigned; a server that checks signatures refuses them")]
    Unsigned,
    #[error("`--api-base-url` is `{0}`: whoever is on the way can read and change what is sent; use https")]
    PlainHttp(String),
}

/// Why the worker cannot start as it was told to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error("`--api-base-url` is `{shown}`, but {why}; write it as in `https://chickadee.example.org`")]
    Address { shown: String, why: BadAddress },
    #[error("no folder is known for {what}: neither `{variable}` nor `HOME` is set; name one with `{flag}`")]
    NoFolder { what: &'static str, variable: &'static str, flag: &'static str },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("could not find out the working directory; start the worker in one that exists")]
    WorkingDirectory(#[source] io::Error),
    #[error("could not find out this machine's name; name the worker with `--worker-id`")]
    Hostname(#[source] io::Error),
}

/// What a worker finds itself in.
struct Surroundings {
    variables: Variables,
    hostname: String,
    /// Where a secret may lie, first to last.
    secret_files: [PathBuf; 2],
    is_stderr_terminal: bool,
}

impl Config {
    /// Reads the environment of this process, and the secret's file if there is one.
    ///
    /// # Errors
    /// On a value that cannot be used, and on a secret that is there and cannot be read.
    pub(super) fn read(flags: Flags) -> Result<Self, ConfigError> {
        let cwd = std::env::current_dir().map_err(ConfigError::WorkingDirectory)?;
        let surroundings = Surroundings {
            hostname: host::hostname().map_err(ConfigError::Hostname)?,
            secret_files: [cwd.join(secret::FILE), Path::new("/data").join(secret::FILE)],
            is_stderr_terminal: io::stderr().is_terminal(),
            variables: Variables::new(std::env::vars_os().collect(), cwd),
        };
        surroundings.config(flags)
    }
}

const DELAY_MS_MAX: u64 = 24 * 60 * 60 * 1000;
const ATTEMPTS_MAX: u64 = 1000;
/// A server gives jobs away of which it hears nothing for longer.
const HEARTBEAT_MS_MAX: u64 = 30_000;
const HEARTBEAT_MS_MIN: u64 = 100;
const DRAIN_SEC_MAX: u64 = 24 * 60 * 60;
const JOBS_MAX: u64 = 256;
const WORKER_ID_BYTES_MAX: usize = 128;
const SECRET_BYTES_SAFE: usize = 8;
/// What the names of our variables begin with, before a `_`.
const PREFIXES: [&str; 2] = ["RUNNER", "WORKER"];

impl Surroundings {
    fn config(&self, flags: Flags) -> Result<Config, ConfigError> {
        let api = ApiAddress::parse(&flags.api_base_url)
            .map_err(|why| ConfigError::Address { shown: shown_text(&flags.api_base_url), why })?;
        let mut warnings = self.misspelt();
        let found = self.secret(flags.worker_secret.as_deref(), &mut warnings)?;
        let (secret, secret_place) = found.unzip();
        if secret.is_some() && !api.is_private() {
            warnings.push(Warning::PlainHttp(api.as_str().to_owned()));
        }
        Ok(Config {
            api,
            worker_id: self.worker_id(flags.worker_id)?,
            hostname: self.hostname.clone(),
            max_jobs: max_jobs(flags.max_jobs)?,
            sandbox: flags.sandbox,
            sandbox_settings: self.variables.sandbox()?,
            secret,
            secret_place,
            secret_files: self.secret_files.clone(),
            cache_dir: self.folder(&CACHE, flags.test_setup_cache_dir)?,
            cache_bytes_max: self.variables.mebibytes("RUNNER_TEST_SETUP_CACHE_MAX_MB", 2048, 0)?,
            download_bytes_max: self.variables.mebibytes("RUNNER_MAX_DOWNLOAD_MB", 512, 1)?,
            free_disk_mb_min: self.variables.number("RUNNER_MIN_FREE_DISK_MB", 128, 0, u64::MAX)?,
            state_dir: self.folder(&STATE, flags.state_dir)?,
            drain_limit: self.drain_limit(flags.drain_limit)?,
            log_format: self.log_format(flags.log_format),
            status_file: flags.status_file.map(|path| self.variables.cwd().join(path)),
            ca_file: flags
                .ca_file
                .map(|path| self.variables.cwd().join(path))
                .or_else(|| self.variables.path("RUNNER_CA_FILE")),
            once: flags.once,
            retry: self.retry()?,
            heartbeat_interval: self.heartbeat_interval()?,
            discovers_capabilities: self.switch("RUNNER_CAPABILITY_DISCOVERY_ENABLED")?,
            temp_dir: self.variables.path("TMPDIR").unwrap_or_else(|| "/tmp".into()),
            search_path: self.variables.value("PATH").map_or_else(|| host::DEFAULT_SEARCH_PATH.into(), Clone::clone),
            warnings,
        })
    }

    /// Returns the secret, and where it is.
    fn secret(
        &self,
        flag: Option<&OsStr>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<(Secret, String)>, ConfigError> {
        let variables = ["RUNNER_SHARED_SECRET", "WORKER_SHARED_SECRET"].map(|name| (name, self.variables.value(name)));
        let found = secret::find(flag, &variables, &self.secret_files)?;
        if flag.is_some() {
            warnings.push(Warning::SecretInArguments);
        }
        let Some(found) = found else {
            warnings.push(Warning::Unsigned);
            return Ok(None);
        };
        warnings.extend(found.open_file.map(|OpenFile { path, mode, remedy }| Warning::SecretFileOpen {
            path,
            mode,
            remedy,
        }));
        if found.secret.text().len() < SECRET_BYTES_SAFE {
            warnings.push(Warning::SecretShort { place: found.place.clone() });
        }
        Ok(Some((found.secret, found.place)))
    }

    /// Returns a warning of each variable whose name is nearly that of one of ours. Others, as services for CI have, are not for us.
    fn misspelt(&self) -> Vec<Warning> {
        let names = self.variables.all().filter_map(|(name, value)| name.to_str().filter(|_| !value.is_empty()));
        // In capitals each letter would be a word.
        let known: Vec<_> = own_variables().filter_map(own_part).map(str::to_ascii_lowercase).collect();
        let misspelt = names.filter(|name| own_variables().all(|own| own != *name)).filter_map(|name| {
            let part = own_part(name)?.to_ascii_lowercase();
            let meant = nearest(&part, known.iter().map(String::as_str))?;
            let meant = own_variables().find(|own| own_part(own).is_some_and(|own| own.eq_ignore_ascii_case(meant)))?;
            Some(Warning::Misspelt { name: name.to_owned(), meant })
        });
        misspelt.collect()
    }

    fn worker_id(&self, flag: Option<String>) -> Result<String, ValueError> {
        let id = flag.unwrap_or_else(|| format!("worker-{}", self.hostname));
        // It is the value of a header, where blanks at the ends are nobody's (RFC 9110, 5.5).
        let is_fit =
            (1..=WORKER_ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control) && id == id.trim();
        let wanted = || format!("1 to {WORKER_ID_BYTES_MAX} bytes without control characters and blanks at its ends");
        if is_fit { Ok(id) } else { Err(ValueError { name: "--worker-id", value: id, wanted: wanted() }) }
    }

    fn drain_limit(&self, flag: Option<String>) -> Result<Duration, ValueError> {
        let seconds = match flag {
            Some(value) => number("--drain-limit", value, 0, DRAIN_SEC_MAX),
            None => self.variables.number("RUNNER_DRAIN_LIMIT_SEC", 300, 0, DRAIN_SEC_MAX),
        };
        seconds.map(Duration::from_secs)
    }

    fn retry(&self) -> Result<RetrySettings, ValueError> {
        let delay =
            |name, default_ms| self.variables.number(name, default_ms, 1, DELAY_MS_MAX).map(Duration::from_millis);
        Ok(RetrySettings {
            is_on: self.switch("RUNNER_NETWORK_RETRY_ENABLED")?,
            base: delay("RUNNER_RETRY_BASE_DELAY_MS", 1000)?,
            max: delay("RUNNER_RETRY_MAX_DELAY_MS", 30_000)?,
            heartbeat_attempts_max: self.attempts("RUNNER_HEARTBEAT_RETRY_MAX_ATTEMPTS", 4)?,
            upload_attempts_max: self.attempts("RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS", 8)?,
            download_attempts_max: self.attempts("RUNNER_DOWNLOAD_RETRY_MAX_ATTEMPTS", 6)?,
        })
    }

    fn heartbeat_interval(&self) -> Result<Duration, ValueError> {
        let name = "RUNNER_HEARTBEAT_INTERVAL_MS";
        self.variables.number(name, HEARTBEAT_MS_MAX, HEARTBEAT_MS_MIN, HEARTBEAT_MS_MAX).map(Duration::from_millis)
    }

    fn attempts(&self, name: &'static str, default: u64) -> Result<NonZeroU32, ValueError> {
        let attempts = self.variables.number(name, default, 1, ATTEMPTS_MAX)?;
        Ok(u32::try_from(attempts).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
    }

    /// On if it is not set.
    fn switch(&self, name: &'static str) -> Result<bool, ValueError> {
        let Some(value) = self.variables.text(name)? else { return Ok(true) };
        match value.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _other => Err(ValueError { name, value, wanted: "1, true, yes or on, or 0, false, no or off".to_owned() }),
        }
    }

    fn log_format(&self, flag: LogFormat) -> Format {
        let is_text = match flag {
            LogFormat::Auto => self.is_stderr_terminal,
            LogFormat::Json => false,
            LogFormat::Text => true,
        };
        let has_colours = self.is_stderr_terminal
            && self.variables.value("NO_COLOR").is_none()
            && self.variables.value("TERM").is_some_and(|term| term != "dumb");
        match (is_text, has_colours) {
            (false, _) => Format::Json,
            (true, false) => Format::Text,
            (true, true) => Format::ColouredText,
        }
    }

    /// The first that is named, in the order of `Folder`'s fields.
    fn folder(&self, folder: &Folder, flag: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        let named = flag.map(|path| self.variables.cwd().join(path)).or_else(|| self.variables.path(folder.variable));
        let below = Path::new("chickadee-runner").join(folder.below);
        // Of systemd, which may name several, and of the XDG Base Directory Specification, where a relative path is none.
        let systemd = || std::env::split_paths(self.variables.value(folder.systemd)?).next();
        let xdg = || {
            self.variables
                .value(folder.xdg)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .map(|path| path.join(&below))
        };
        let home = || self.variables.path("HOME").map(|home| home.join(folder.home).join(&below));
        let found = named.or_else(systemd).or_else(xdg).or_else(home);
        let Folder { what, variable, flag, .. } = *folder;
        found.ok_or(ConfigError::NoFolder { what, variable, flag })
    }
}

/// Returns our variables that have one of the prefixes: the help names all.
fn own_variables() -> impl Iterator<Item = &'static str> {
    let words = SETTINGS.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    words.filter(|word| own_part(word).is_some())
}

/// Returns what follows the prefix, if there is one.
fn own_part(name: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)?.strip_prefix('_'))
}

/// A folder, and what may name it: its flag, variable, then systemd.exec(5), XDG and `HOME`.
struct Folder {
    what: &'static str,
    flag: &'static str,
    variable: &'static str,
    systemd: &'static str,
    xdg: &'static str,
    home: &'static str,
    /// In a folder that is not ours alone.
    below: &'static str,
}

const STATE: Folder = Folder {
    what: "the worker's state",
    flag: "--state-dir",
    variable: "RUNNER_STATE_DIR",
    systemd: "STATE_DIRECTORY",
    xdg: "XDG_STATE_HOME",
    home: ".local/state",
    below: "",
};

const CACHE: Folder = Folder {
    what: "the cache of set-ups",
    flag: "--test-setup-cache-dir",
    variable: "RUNNER_TEST_SETUP_CACHE_DIR",
    systemd: "CACHE_DIRECTORY",
    xdg: "XDG_CACHE_HOME",
    home: ".cache",
    below: "setups",
};

fn max_jobs(value: String) -> Result<NonZeroUsize, ValueError> {
    let jobs = number("--max-jobs", value, 1, JOBS_MAX)?;
    Ok(usize::try_from(jobs).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN))
}

#[cfg(test)]
mod tests;

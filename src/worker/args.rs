//! The command line and the environment of the worker, and its secret.

mod address;
mod secret;

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::model::script::{Environment, SandboxLimits};
use crate::os::host;
use crate::worker::log::Format;

pub(super) use address::{ApiAddress, BadAddress};
use secret::OpenFile;
pub(super) use secret::{Secret, SecretError};

const SETTINGS: &str = "\
Environment (a flag that says the same comes first; an empty variable counts as absent):
  RUNNER_SHARED_SECRET, WORKER_SHARED_SECRET
                     the secret; else the files ./.worker-secret and /data/.worker-secret.
                     Without any, requests go unsigned
  RUNNER_STATE_DIR   as --state-dir
  RUNNER_TEST_SETUP_CACHE_DIR
                     as --test-setup-cache-dir
  RUNNER_TEST_SETUP_CACHE_MAX_MB
                     size of the cache, in MiB [default: 2048]
  RUNNER_MAX_DOWNLOAD_MB
                     largest download, in MiB [default: 512]
  RUNNER_MIN_FREE_DISK_MB
                     no new jobs with less free space than that on a disk of ours, in MiB; 0: never mind [default: 128]
  RUNNER_DRAIN_LIMIT_SEC, RUNNER_CA_FILE
                     as --drain-limit, --ca-file
  RUNNER_NETWORK_RETRY_ENABLED
                     try again what failed on the way [default: true]
  RUNNER_RETRY_BASE_DELAY_MS, RUNNER_RETRY_MAX_DELAY_MS
                     first and longest pause before that [default: 1000, 30000]
  RUNNER_HEARTBEAT_RETRY_MAX_ATTEMPTS, RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS,
  RUNNER_DOWNLOAD_RETRY_MAX_ATTEMPTS
                     how often, the first time included; results are sent on after that, less often [default: 4, 8, 6]
  RUNNER_HEARTBEAT_INTERVAL_MS
                     between two heartbeats while there are jobs [default: 30000]
  RUNNER_SANDBOX_MEMORY_MB, RUNNER_SANDBOX_DISK_MB, RUNNER_SANDBOX_FILES
                     what one sandboxed script may use and write [default: 2048, 512, 50000]
  RUNNER_SANDBOX_PROCESSES, RUNNER_SANDBOX_OPEN_FILES
                     at once, of a script, of each process [default: 512, 1024]
  RUNNER_SANDBOX_SHOWS
                     folders and files that sandboxed scripts may read, too, separated by colons
  RUNNER_CAPABILITY_DISCOVERY_ENABLED
                     find out what this machine can run [default: true]
  NO_COLOR           no colours

Exit codes:
  0        drained, or with --once: everything that was there is done
  2        the command line or the configuration is wrong, there is no sandbox, the id is in use on this machine,
           or its folder has something for another server
  3        the worker itself failed, a result is lost, or with --once: something that was there is not done
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
    /// The secret. Every user of this machine can see it: better use the environment or a file.
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
    /// A file that always tells what the worker is doing.
    #[arg(long, value_name = "FILE")]
    status_file: Option<PathBuf>,
    /// Certificates, in PEM, that are trusted beside the built-in ones.
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
    /// What one sandboxed script may use.
    pub(super) sandbox_limits: SandboxLimits,
    /// What sandboxed scripts may read, beside the machine's programs and settings.
    pub(super) sandbox_shows: Vec<PathBuf>,
    /// What requests are signed with.
    pub(super) secret: Option<Secret>,
    /// Where a secret may lie, whether it is this one or not.
    pub(super) secret_files: [PathBuf; 2],
    /// Where unpacked set-ups are kept.
    pub(super) cache_dir: PathBuf,
    /// How many bytes of them.
    pub(super) cache_bytes_max: u64,
    /// The largest download.
    pub(super) download_bytes_max: u64,
    /// With less free space than that no job is taken; 0: never mind.
    pub(super) free_disk_bytes_min: u64,
    /// The folder of all workers' state.
    pub(super) state_dir: PathBuf,
    /// How long jobs may go on after SIGTERM.
    pub(super) drain_limit: Duration,
    /// How events are written.
    pub(super) log_format: Format,
    /// What is to tell what the worker is doing.
    pub(super) status_file: Option<PathBuf>,
    /// Certificates to trust beside the built-in ones.
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
    #[error("there is no secret, so requests go unsigned; a server that checks signatures refuses them")]
    Unsigned,
    #[error("`--api-base-url` is `{0}`: whoever is on the way can read and change what is sent; use https")]
    PlainHttp(String),
}

/// Why the worker cannot start as it was told to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("{name} is `{value}`, but it must be {wanted}; correct it or leave it out", value = value.escape_debug())]
    Value { name: &'static str, value: String, wanted: String },
    #[error("`--api-base-url` is `{value}`, but {why}; write it as in `https://chickadee.example.org`", value = value.escape_debug())]
    Address { value: String, why: BadAddress },
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
    environment: Environment,
    cwd: PathBuf,
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
            environment: std::env::vars_os().collect(),
            hostname: host::hostname().map_err(ConfigError::Hostname)?,
            secret_files: [cwd.join(secret::FILE), Path::new("/data").join(secret::FILE)],
            is_stderr_terminal: io::stderr().is_terminal(),
            cwd,
        };
        surroundings.config(flags)
    }
}

const MIB: u64 = 1 << 20;
/// No disk is larger, and bytes still fit a number.
const MB_MAX: u64 = 1 << 40;
const DELAY_MS_MAX: u64 = 24 * 60 * 60 * 1000;
const ATTEMPTS_MAX: u64 = 1000;
/// A server gives jobs away of which it hears nothing for longer.
const HEARTBEAT_MS_MAX: u64 = 30_000;
const HEARTBEAT_MS_MIN: u64 = 100;
const DRAIN_SEC_MAX: u64 = 24 * 60 * 60;
const JOBS_MAX: usize = 256;
const WORKER_ID_BYTES_MAX: usize = 128;

impl Surroundings {
    fn config(&self, flags: Flags) -> Result<Config, ConfigError> {
        let api = ApiAddress::parse(&flags.api_base_url)
            .map_err(|why| ConfigError::Address { value: flags.api_base_url.clone(), why })?;
        let mut warnings = Vec::new();
        let secret = self.secret(flags.worker_secret.as_deref(), &mut warnings)?;
        if secret.is_some() && !api.is_private() {
            warnings.push(Warning::PlainHttp(api.as_str().to_owned()));
        }
        Ok(Config {
            api,
            worker_id: self.worker_id(flags.worker_id)?,
            hostname: self.hostname.clone(),
            max_jobs: max_jobs(flags.max_jobs)?,
            sandbox: flags.sandbox,
            sandbox_limits: self.sandbox_limits()?,
            sandbox_shows: self.sandbox_shows(),
            secret,
            secret_files: self.secret_files.clone(),
            cache_dir: self.folder(&CACHE, flags.test_setup_cache_dir)?,
            cache_bytes_max: self.mebibytes("RUNNER_TEST_SETUP_CACHE_MAX_MB", 2048, 0)?,
            download_bytes_max: self.mebibytes("RUNNER_MAX_DOWNLOAD_MB", 512, 1)?,
            free_disk_bytes_min: self.mebibytes("RUNNER_MIN_FREE_DISK_MB", 128, 0)?,
            state_dir: self.folder(&STATE, flags.state_dir)?,
            drain_limit: self.drain_limit(flags.drain_limit)?,
            log_format: self.log_format(flags.log_format),
            status_file: flags.status_file.map(|path| self.cwd.join(path)),
            ca_file: flags.ca_file.map(|path| self.cwd.join(path)).or_else(|| self.path("RUNNER_CA_FILE")),
            once: flags.once,
            retry: self.retry()?,
            heartbeat_interval: self.heartbeat_interval()?,
            discovers_capabilities: self.switch("RUNNER_CAPABILITY_DISCOVERY_ENABLED")?,
            temp_dir: self.path("TMPDIR").unwrap_or_else(|| "/tmp".into()),
            search_path: self.environment.get("PATH").map_or_else(|| host::DEFAULT_SEARCH_PATH.into(), Clone::clone),
            warnings,
        })
    }

    fn secret(&self, flag: Option<&OsStr>, warnings: &mut Vec<Warning>) -> Result<Option<Secret>, ConfigError> {
        let variables = ["RUNNER_SHARED_SECRET", "WORKER_SHARED_SECRET"].map(|name| (name, self.environment.get(name)));
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
        Ok(Some(found.secret))
    }

    fn worker_id(&self, flag: Option<String>) -> Result<String, ConfigError> {
        let id = flag.unwrap_or_else(|| format!("worker-{}", self.hostname));
        // It is the value of a header, where blanks at the ends are nobody's (RFC 9110, 5.5).
        let is_fit =
            (1..=WORKER_ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control) && id == id.trim();
        let wanted = || format!("1 to {WORKER_ID_BYTES_MAX} bytes without control characters and blanks at its ends");
        if is_fit { Ok(id) } else { Err(ConfigError::Value { name: "`--worker-id`", value: id, wanted: wanted() }) }
    }

    fn drain_limit(&self, flag: Option<String>) -> Result<Duration, ConfigError> {
        let seconds = match flag {
            Some(value) => number("`--drain-limit`", value, 0, DRAIN_SEC_MAX),
            None => self.number("RUNNER_DRAIN_LIMIT_SEC", 300, 0, DRAIN_SEC_MAX),
        };
        seconds.map(Duration::from_secs)
    }

    /// The least values are those of `sandbox-limits` in runner.yaml.
    fn sandbox_limits(&self) -> Result<SandboxLimits, ConfigError> {
        let usual = SandboxLimits::default();
        let count = |name, default: u32, min| {
            let number = self.number(name, default.into(), min, u32::MAX.into());
            number.map(|number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        Ok(SandboxLimits {
            processes_max: count("RUNNER_SANDBOX_PROCESSES", usual.processes_max, 2)?,
            open_files_max: count("RUNNER_SANDBOX_OPEN_FILES", usual.open_files_max, 16)?,
            memory_bytes_max: self.mebibytes("RUNNER_SANDBOX_MEMORY_MB", usual.memory_bytes_max / MIB, 4)?,
            disk_bytes_max: self.mebibytes("RUNNER_SANDBOX_DISK_MB", usual.disk_bytes_max / MIB, 1)?,
            disk_files_max: count("RUNNER_SANDBOX_FILES", usual.disk_files_max, 1)?,
        })
    }

    fn sandbox_shows(&self) -> Vec<PathBuf> {
        let paths = self.value("RUNNER_SANDBOX_SHOWS").into_iter().flat_map(std::env::split_paths);
        paths.filter(|path| !path.as_os_str().is_empty()).map(|path| self.cwd.join(path)).collect()
    }

    fn retry(&self) -> Result<RetrySettings, ConfigError> {
        let delay = |name, default_ms| self.number(name, default_ms, 1, DELAY_MS_MAX).map(Duration::from_millis);
        Ok(RetrySettings {
            is_on: self.switch("RUNNER_NETWORK_RETRY_ENABLED")?,
            base: delay("RUNNER_RETRY_BASE_DELAY_MS", 1000)?,
            max: delay("RUNNER_RETRY_MAX_DELAY_MS", 30_000)?,
            heartbeat_attempts_max: self.attempts("RUNNER_HEARTBEAT_RETRY_MAX_ATTEMPTS", 4)?,
            upload_attempts_max: self.attempts("RUNNER_RESULT_UPLOAD_RETRY_MAX_ATTEMPTS", 8)?,
            download_attempts_max: self.attempts("RUNNER_DOWNLOAD_RETRY_MAX_ATTEMPTS", 6)?,
        })
    }

    fn heartbeat_interval(&self) -> Result<Duration, ConfigError> {
        let name = "RUNNER_HEARTBEAT_INTERVAL_MS";
        self.number(name, HEARTBEAT_MS_MAX, HEARTBEAT_MS_MIN, HEARTBEAT_MS_MAX).map(Duration::from_millis)
    }

    fn attempts(&self, name: &'static str, default: u64) -> Result<NonZeroU32, ConfigError> {
        let attempts = self.number(name, default, 1, ATTEMPTS_MAX)?;
        Ok(u32::try_from(attempts).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
    }

    fn mebibytes(&self, name: &'static str, default: u64, min: u64) -> Result<u64, ConfigError> {
        self.number(name, default, min, MB_MAX).map(|mebibytes| mebibytes * MIB)
    }

    fn number(&self, name: &'static str, default: u64, min: u64, max: u64) -> Result<u64, ConfigError> {
        self.text(name)?.map_or(Ok(default), |value| number(name, value, min, max))
    }

    /// On if it is not set.
    fn switch(&self, name: &'static str) -> Result<bool, ConfigError> {
        let Some(value) = self.text(name)? else { return Ok(true) };
        match value.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _other => {
                Err(ConfigError::Value { name, value, wanted: "1, true, yes or on, or 0, false, no or off".to_owned() })
            }
        }
    }

    fn log_format(&self, flag: LogFormat) -> Format {
        let is_text = match flag {
            LogFormat::Auto => self.is_stderr_terminal,
            LogFormat::Json => false,
            LogFormat::Text => true,
        };
        let has_colours = self.is_stderr_terminal
            && self.value("NO_COLOR").is_none()
            && self.value("TERM").is_some_and(|term| term != "dumb");
        match (is_text, has_colours) {
            (false, _) => Format::Json,
            (true, false) => Format::Text,
            (true, true) => Format::ColouredText,
        }
    }

    /// The first that is named, in the order of `Folder`'s fields.
    fn folder(&self, folder: &Folder, flag: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        let named = flag.map(|path| self.cwd.join(path)).or_else(|| self.path(folder.variable));
        let below = Path::new("chickadee-runner").join(folder.below);
        // Of systemd, which may name several, and of the XDG Base Directory Specification, where a relative path is none.
        let systemd = || std::env::split_paths(self.value(folder.systemd)?).next();
        let xdg = || {
            self.value(folder.xdg).map(PathBuf::from).filter(|path| path.is_absolute()).map(|path| path.join(&below))
        };
        let home = || self.path("HOME").map(|home| home.join(folder.home).join(&below));
        let found = named.or_else(systemd).or_else(xdg).or_else(home);
        let Folder { what, variable, flag, .. } = *folder;
        found.ok_or(ConfigError::NoFolder { what, variable, flag })
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(|value| self.cwd.join(value))
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let text = value.to_str().map(|text| text.trim().to_owned());
        let error =
            || ConfigError::Value { name, value: value.to_string_lossy().into(), wanted: "UTF-8 text".to_owned() };
        text.ok_or_else(error).map(Some)
    }

    /// An empty variable counts as absent.
    fn value(&self, name: &str) -> Option<&OsString> {
        self.environment.get(name).filter(|value| !value.is_empty())
    }
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

fn max_jobs(value: String) -> Result<NonZeroUsize, ConfigError> {
    let jobs = NonZeroUsize::from_str(&value).ok().filter(|jobs| jobs.get() <= JOBS_MAX);
    jobs.ok_or_else(|| ConfigError::Value {
        name: "`--max-jobs`",
        value,
        wanted: format!("a whole number from 1 to {JOBS_MAX}"),
    })
}

fn number(name: &'static str, value: String, min: u64, max: u64) -> Result<u64, ConfigError> {
    let number = value.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| ConfigError::Value { name, value, wanted: format!("a whole number from {min} to {max}") })
}

#[cfg(test)]
mod tests;

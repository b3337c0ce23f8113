//! Variables of an environment as text, paths and numbers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::model::script::{Environment, SandboxLimits, why_not_shown};

/// No disk is larger, and bytes still fit a number.
const MB_MAX: u64 = 1 << 40;
const MIB: u64 = 1 << 20;

/// An environment, and the folder that its relative paths start from. An empty variable counts as absent.
#[derive(Debug, Clone)]
pub(crate) struct Variables {
    environment: Environment,
    cwd: PathBuf,
}

/// A value that cannot be used, of a variable or of a flag that says the same.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is `{value}`, but it must be {wanted}; correct it or leave it out", value = value.escape_debug())]
pub(crate) struct ValueError {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) wanted: String,
}

/// What a worker is told of its sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SandboxSettings {
    /// What one script may use.
    pub(crate) limits: SandboxLimits,
    /// What scripts may read, beside the machine's programs and settings.
    pub(crate) shows: Vec<PathBuf>,
}

impl Variables {
    /// `cwd` is absolute.
    pub(crate) fn new(environment: Environment, cwd: PathBuf) -> Self {
        Self { environment, cwd }
    }

    /// All of them, the empty ones too.
    pub(crate) fn all(&self) -> impl Iterator<Item = &(OsString, OsString)> {
        self.environment.iter()
    }

    /// Where relative paths start from.
    pub(crate) fn cwd(&self) -> &Path {
        &self.cwd
    }

    pub(crate) fn value(&self, name: &str) -> Option<&OsString> {
        self.environment.get(name).filter(|value| !value.is_empty())
    }

    /// # Errors
    /// If it is not UTF-8.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>, ValueError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let error = || ValueError { name, value: value.to_string_lossy().into(), wanted: "UTF-8 text".to_owned() };
        value.to_str().ok_or_else(error).map(|text| Some(text.to_owned()))
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(|value| self.cwd.join(value))
    }

    /// Paths separated by colons, as they are written, without the empty ones.
    pub(crate) fn paths(&self, name: &str) -> Vec<PathBuf> {
        let paths = self.value(name).into_iter().flat_map(std::env::split_paths);
        paths.filter(|path| !path.as_os_str().is_empty()).collect()
    }

    /// # Errors
    /// If it is no whole number from `min` to `max`.
    pub(crate) fn number(&self, name: &'static str, default: u64, min: u64, max: u64) -> Result<u64, ValueError> {
        self.text(name)?.map_or(Ok(default), |value| number(name, value, min, max))
    }

    /// Returns bytes, of a variable and a default in MiB.
    ///
    /// # Errors
    /// If it is no whole number, or less than `min`.
    pub(crate) fn mebibytes(&self, name: &'static str, default: u64, min: u64) -> Result<u64, ValueError> {
        self.number(name, default, min, MB_MAX).map(|mebibytes| mebibytes * MIB)
    }

    /// Reads what a worker is told of its sandbox. The least values are those of `sandbox-limits` in runner.yaml.
    ///
    /// # Errors
    /// On a value that cannot be used.
    pub(crate) fn sandbox(&self) -> Result<SandboxSettings, ValueError> {
        let usual = SandboxLimits::default();
        let count = |name, default: u32, min| {
            let number = self.number(name, default.into(), min, u32::MAX.into());
            number.map(|number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        let limits = SandboxLimits {
            processes_max: count("RUNNER_SANDBOX_PROCESSES", usual.processes_max, 2)?,
            open_files_max: count("RUNNER_SANDBOX_OPEN_FILES", usual.open_files_max, 16)?,
            memory_bytes_max: self.mebibytes("RUNNER_SANDBOX_MEMORY_MB", usual.memory_bytes_max / MIB, 4)?,
            disk_bytes_max: self.mebibytes("RUNNER_SANDBOX_DISK_MB", usual.disk_bytes_max / MIB, 1)?,
            disk_files_max: count("RUNNER_SANDBOX_FILES", usual.disk_files_max, 1)?,
        };
        Ok(SandboxSettings { limits, shows: self.sandbox_shows()? })
    }

    fn sandbox_shows(&self) -> Result<Vec<PathBuf>, ValueError> {
        let name = "RUNNER_SANDBOX_SHOWS";
        let paths = self.paths(name);
        let Some((path, reason)) = paths.iter().find_map(|path| Some((path, why_not_shown(path)?))) else {
            return Ok(paths);
        };
        let value = self.value(name).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        let wanted = format!("paths separated by colons, without `{}`: {reason}", path.display());
        Err(ValueError { name, value, wanted })
    }
}

/// Reads the value of a variable or flag. Blanks around it are nobody's.
///
/// # Errors
/// If it is no whole number from `min` to `max`.
pub(crate) fn number(name: &'static str, value: String, min: u64, max: u64) -> Result<u64, ValueError> {
    let number = value.trim().parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| ValueError { name, value, wanted: format!("a whole number from {min} to {max}") })
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn variables(variables: &[(&str, &str)]) -> Variables {
        let environment = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        Variables::new(environment, "/no/such/folder".into())
    }

    #[test]
    fn the_sandbox_has_the_usual_limits_unless_they_are_named() {
        assert_eq!(variables(&[]).sandbox().unwrap(), SandboxSettings::default());
        let named = variables(&[
            ("RUNNER_SANDBOX_MEMORY_MB", "4096"),
            ("RUNNER_SANDBOX_DISK_MB", " 7 "),
            ("RUNNER_SANDBOX_FILES", "1"),
            ("RUNNER_SANDBOX_PROCESSES", "2"),
            ("RUNNER_SANDBOX_OPEN_FILES", ""),
            ("RUNNER_SANDBOX_SHOWS", "/srv/data::/here"),
        ]);
        let limits = SandboxLimits {
            memory_bytes_max: 4 << 30,
            disk_bytes_max: 7 << 20,
            disk_files_max: 1,
            processes_max: 2,
            ..SandboxLimits::default()
        };
        let shows = ["/srv/data", "/here"].map(PathBuf::from).to_vec();
        assert_eq!(named.sandbox().unwrap(), SandboxSettings { limits, shows });
    }

    #[test]
    fn what_no_script_could_see_is_refused() {
        for (value, path, reason) in [
            ("/srv:/tmp/x", "/tmp/x", "scripts have one of their own there"),
            ("/", "/", "name what is in it that scripts need"),
            ("data", "data", "it must start with `/`"),
            ("/srv/../root", "/srv/../root", "write it without `..`"),
        ] {
            let error = variables(&[("RUNNER_SANDBOX_SHOWS", value)]).sandbox().unwrap_err().to_string();
            let whole = format!(
                "`RUNNER_SANDBOX_SHOWS` is `{value}`, but it must be paths separated by colons, without `{path}`: {reason}; correct it or leave it out"
            );
            assert_eq!(error, whole);
        }
    }

    #[test]
    fn a_sandbox_nobody_could_use_is_refused_by_the_variables_name() {
        for (name, values) in [
            ("RUNNER_SANDBOX_MEMORY_MB", ["3", "2G"]),
            ("RUNNER_SANDBOX_DISK_MB", ["0", "all"]),
            ("RUNNER_SANDBOX_FILES", ["0", "4294967296"]),
            ("RUNNER_SANDBOX_PROCESSES", ["1", "-1"]),
            ("RUNNER_SANDBOX_OPEN_FILES", ["15", "1.5"]),
        ] {
            for value in values {
                let error = variables(&[(name, value)]).sandbox().unwrap_err().to_string();
                let whole = format!("`{name}` is `{value}`, but it must be a whole number from ");
                assert!(error.starts_with(&whole) && error.contains("leave it out"), "{error}");
            }
        }
    }
}

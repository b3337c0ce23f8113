//! What a reader of a log wants to know of the machine. Nothing is decided by it.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::host::{os_release, os_release_value};
use super::journal::seconds_text;

/// Returns the name of the operating system (os-release(5)) and the kernel's release.
pub(crate) fn system() -> String {
    let release = os_release();
    let name = os_release_value(&release, "PRETTY_NAME").unwrap_or("Linux");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{name}, Linux {}", kernel.trim())
}

/// Where package managers keep what their repositories offer, and what is installed.
const PACKAGE_DATABASES: [&str; 4] =
    ["/var/lib/pacman/sync", "/var/lib/pacman/local", "/var/lib/apt/lists", "/var/lib/dpkg/status"];

/// Returns the package databases of this machine with the time of their last change, UTC. A folder stands for each `*.db` in it,
/// if there are any.
pub(crate) fn package_databases() -> Vec<(PathBuf, String)> {
    let databases = PACKAGE_DATABASES.iter().flat_map(|path| {
        let databases = databases_in(Path::new(path));
        if databases.is_empty() { vec![PathBuf::from(path)] } else { databases }
    });
    databases.filter_map(|path| changed_at(&path).map(|time| (path, time))).collect()
}

fn databases_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "db")).collect();
    paths.sort();
    paths
}

fn changed_at(path: &Path) -> Option<String> {
    let time = Timestamp::try_from(fs::metadata(path).ok()?.modified().ok()?).ok()?;
    Some(seconds_text(time))
}

//! From outside: each claim as a trial for each user, with its deadline, and a look at what it left behind.

#![expect(clippy::disallowed_methods, reason = "tests start the processes that start the engine")]

#[path = "delegated.rs"]
mod delegated;

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;
use wait_timeout::ChildExt;

use crate::inside::{CLAIM, Claim, DIR, Place, alive_with};
use delegated::Delegated;

const DEADLINE: Duration = Duration::from_secs(180);
/// For the helpers of an engine whose process is gone.
const HELPERS_DEADLINE: Duration = Duration::from_secs(30);
/// Each claim has a user of its own: the kernel counts processes by user, and one bomb must not be in another's way.
const ORDINARY: u32 = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    Root,
    Ordinary(u32),
}

/// Runs all claims, and tells whether they hold. `furnish` is told the folder of the claims' program, once there is something to run.
pub(crate) fn run(claims: &[Claim], furnish: impl FnOnce(&Path)) -> ExitCode {
    let arguments = Arguments::from_args();
    // The build folder may be out of an ordinary user's reach.
    let home = Arc::new(public_dir(None));
    if !arguments.list {
        furnish(home.path());
    }
    let program = home.path().join("engine");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut trials = Vec::new();
    for (claim, uid) in claims.iter().zip(ORDINARY..) {
        for (user, word) in [(User::Root, "as_root"), (User::Ordinary(uid), "as_an_ordinary_user")] {
            let (claim, home) = (*claim, Arc::clone(&home));
            if claim.place == Place::RootsOwnMounts && user != User::Root {
                continue;
            }
            let check = move || hold(claim, user, home.path());
            trials.push(Trial::test(format!("{word}::{}", claim.name), check));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn public_dir(owner: Option<u32>) -> TempDir {
    let dir = tempfile::Builder::new().prefix("pg-engine.").tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    chown(dir.path(), owner, owner).unwrap();
    dir
}

fn hold(claim: Claim, user: User, home: &Path) -> Result<(), Failed> {
    let is_root = nix::unistd::geteuid().is_root();
    if user == User::Root && !is_root {
        let message = format!("{}: not checked, because it needs root", claim.name);
        return if std::env::var_os("CI").is_some() { Err(message.into()) } else { say(&message) };
    }
    let owner = match user {
        User::Ordinary(uid) if is_root => Some(uid),
        User::Ordinary(_) | User::Root => None,
    };
    let dir = public_dir(owner);
    // A program of its own tells whose helpers are alive: they clear their environment.
    let program = home.join(dir.path().file_name().unwrap());
    fs::hard_link(home.join("engine"), &program).unwrap();

    let output = dir.path().join("output");
    // Where memory is counted by cgroups of version 2, as on a grading machine; elsewhere a claim has what there is.
    let name = dir.path().file_name().unwrap().to_string_lossy();
    let delegated = Delegated::new(&name, owner).filter(|delegated| delegated.has("memory"));
    let mut words: Vec<_> = delegated.iter().flat_map(Delegated::words).map(OsString::from).collect();
    words.extend(wrappers(claim.place, owner, is_root));
    words.push(program.clone().into());
    let file = File::create(&output).unwrap();
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("RUST_BACKTRACE", "1")
        .env(CLAIM, claim.name)
        .env(DIR, dir.path())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .map_err(|error| format!("could not start `{}`: {error}", words[0].display()))?;
    let status = child.wait_timeout(DEADLINE).unwrap();
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let left = left_alive(dir.path(), &program);
    fs::remove_file(&program).unwrap();
    let text = String::from_utf8_lossy(&fs::read(&output).unwrap()).into_owned();
    match status {
        None => Err(format!("no answer within {DEADLINE:?}; alive: {left:?}\n{text}").into()),
        Some(status) if !status.success() => Err(format!("{}\n{text}", describe(status)).into()),
        Some(_) if !left.is_empty() => Err(format!("left alive: {left:?}\n{text}").into()),
        Some(_) => Ok(()),
    }
}

/// The programs before ours: who it is, and which processes and mounts it sees.
fn wrappers(place: Place, becomes: Option<u32>, is_root: bool) -> Vec<OsString> {
    let namespaces: &[&str] = match place {
        Place::Here => &[],
        Place::OwnProcesses | Place::RootsOwnMounts if is_root => &["unshare"],
        Place::OwnProcesses | Place::RootsOwnMounts => &["unshare", "--user", "--map-current-user"],
    };
    let uid = becomes.map(|uid| uid.to_string());
    let mut words = namespaces.to_vec();
    if place != Place::Here {
        words.extend(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    }
    if let Some(uid) = &uid {
        words.extend(["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"]);
    }
    if place != Place::Here {
        // The first process of a PID namespace is immune to its signals, so ours must not be the first.
        words.extend(["sh", "-c", "\"$0\"; exit $?"]);
    }
    words.into_iter().map(OsString::from).collect()
}

/// Waits until nothing is alive, for a while. Returns what is.
fn left_alive(marker: &Path, program: &Path) -> Vec<String> {
    let until = Instant::now() + HELPERS_DEADLINE;
    loop {
        let mut left = alive_with(marker);
        left.extend(executing(program));
        if left.is_empty() || Instant::now() >= until {
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn executing(program: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_ours = |path: &PathBuf| fs::read_link(path.join("exe")).is_ok_and(|exe| exe == program);
    entries.filter(is_ours).map(|path| format!("{} executing the test", path.display())).collect()
}

fn describe(status: ExitStatus) -> String {
    format!("the claim does not hold: {status}")
}

#[expect(clippy::unnecessary_wraps, reason = "the result of a trial")]
fn say(message: &str) -> Result<(), Failed> {
    eprintln!("{message}");
    Ok(())
}

//! Whether the walls hold: a script tries what they forbid.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::give_to_owner;
use crate::model::script::{EndedBy, Environment, Exit, Script};
use crate::os::engine::enclosure::owner;
use crate::os::engine::{Cancel, EngineError, ScriptRunner};
use crate::os::probe;

/// Why scripts cannot be run in a sandbox here.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The folder that work folders lie in.
    #[error("could not make its folder")]
    Folder(#[source] io::Error),
    /// A path that scripts are to see.
    #[error("scripts are to see `{path}`, which is not there or cannot be read", path = .0.display())]
    NotThere(PathBuf),
    /// Too little to work with.
    #[error("the sandbox cannot be had: we may open {0} files, and need {min}; raise the limit of open files (ulimit -n)", min = super::OPEN_FILES_MIN)]
    OpenFiles(u64),
    /// Root without what it takes to hand scripts to somebody else.
    #[error("the sandbox cannot be had: root lacks {0}; keep them (in Docker: --cap-add), or be an ordinary user")]
    Rights(String),
    /// Nobody to hand scripts to.
    #[error(
        "the sandbox cannot be had: scripts would own the machine's settings, and read what is secret in them; in this user namespace \
         map user and group 65533, too, or be an ordinary user"
    )]
    Owner,
    /// Scripts keep the groups of who runs them.
    #[error(
        "the sandbox cannot be had: scripts could read {SECRET}, because this user can; be one who cannot (id shows the groups)"
    )]
    Reader,
    /// A wall could not be built.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Walls stand, and let through what they must not.
    #[error("the sandbox does not hold on this machine: a script could {0}; this must not happen, please report it")]
    Open(String),
    /// The script that tries the walls did not come to its end.
    #[error(
        "the sandbox could not be tried: {0}; what a shell needs must be allowed: raise `sandbox-limits` (of a worker \
         RUNNER_SANDBOX_*), or the limits of who runs this (ulimit -u, ulimit -n, ulimit -v)"
    )]
    Untried(String),
}

/// What nobody may read but the machine.
const SECRET: &str = "/etc/shadow";
const READ_SECRET: &str = "read /etc/shadow";

/// What is forbidden, and what succeeds if it is not; in the words of a POSIX shell, because that is what is there. `$1` is a port that
/// somebody listens on outside, `$2` a file outside, `$3` a process outside.
const FORBIDDEN: [(&str, &str); 13] = [
    ("write to /usr", ": >/usr/.proving-ground"),
    ("write to /etc", ": >/etc/.proving-ground"),
    ("make folders in /", "mkdir /.proving-ground"),
    ("write to the kernel's settings", "echo 0 >/proc/sys/kernel/core_uses_pid"),
    (READ_SECRET, "read -r line </etc/shadow"),
    ("see the machine's files", "[ -e \"$2\" ]"),
    ("signal the machine's processes", "kill -0 \"$3\" && [ \"$3\" -gt 20 ]"),
    ("see the machine's processes", "set -- /proc/[0-9]*; [ $# -gt 10 ]"),
    (
        "see the machine's network",
        "while read -r name rest; do case $name in Inter-*|face*|lo:*) ;; *) exit 0;; esac; done </proc/net/dev; exit 1",
    ),
    ("reach the machine's network", "bash -c 'exec 3<>\"/dev/tcp/127.0.0.1/$1\"' - \"$1\""),
    (
        "have rights",
        "while read -r name rest; do case $name,$rest in Cap*,*[1-9a-f]*) exit 0;; esac; done </proc/self/status; exit 1",
    ),
    ("mount", "mount -t tmpfs none /tmp"),
    ("make namespaces", "unshare --user --map-root-user true"),
];
/// What a process is known by that can get no rights, and whose calls are filtered.
const STATUS: [(&str, &str); 2] = [("get new rights", "NoNewPrivs: 1"), ("make any system call", "Seccomp: 2")];
const LIMIT: Duration = Duration::from_secs(30);
const KEPT_BYTES_MAX: usize = 16 << 10;

/// Tries all of it with `runner`, in the new folder `work_dir`, which is removed; `outside` is a folder that scripts must not see into.
///
/// # Errors
/// If a wall cannot be built, or does not hold.
pub(super) fn probe(runner: &dyn ScriptRunner, work_dir: &Path, outside: &Path) -> Result<(), SandboxError> {
    let listener = TcpListener::bind("127.0.0.1:0").ok();
    let port = listener.and_then(|listener| Some((listener.local_addr().ok()?.port(), listener)));
    let port_text = port.as_ref().map_or(0, |(port, _)| *port).to_string();
    fs::create_dir(work_dir).map_err(SandboxError::Folder)?;
    give_to_owner(work_dir).map_err(SandboxError::Folder)?;
    let canary = outside.join("outside");
    fs::write(&canary, "").map_err(SandboxError::Folder)?;
    let args = [
        OsString::from("-c"),
        text().into(),
        "probe".into(),
        port_text.into(),
        canary.clone().into(),
        std::process::id().to_string().into(),
    ];
    let done = runner.run(&script(work_dir, args.into()), &Cancel::new()?);
    fs::remove_dir_all(work_dir).and_then(|()| fs::remove_file(&canary)).map_err(SandboxError::Folder)?;
    let done = done?;
    let said = String::from_utf8_lossy(&done.stdout.kept_bytes()).into_owned();
    if (done.ended_by, done.exit) != (EndedBy::Itself, Exit::Code(0)) || !said.ends_with("tried\n") {
        let errors = String::from_utf8_lossy(&done.stderr.kept_bytes()).trim().to_owned();
        let errors = errors.lines().next().map_or_else(String::new, |line| format!(", {line}"));
        return Err(SandboxError::Untried(format!("{}{errors}", done.exit)));
    }
    let open: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("open: ")).collect();
    if open == [READ_SECRET] && owner().is_none() && fs::File::open(SECRET).is_ok() {
        return Err(SandboxError::Reader);
    }
    if !open.is_empty() {
        return Err(SandboxError::Open(open.join("; ")));
    }
    // What was not tried has not held.
    let names = FORBIDDEN.iter().chain(&STATUS).map(|(what, _)| format!("shut: {what}"));
    match names.into_iter().find(|name| !said.lines().any(|line| line == name)) {
        Some(name) => Err(SandboxError::Untried(format!("no word of `{name}`"))),
        None => Ok(()),
    }
}

/// One attempt after another, each in a shell of its own, with a word of what came of it; then what must work. The names stand in double
/// quotes, because some have an apostrophe.
fn text() -> String {
    let mut text = String::new();
    for (what, attempt) in FORBIDDEN {
        text.push_str(&format!(
            "if ( {attempt} ) >/dev/null 2>&1 </dev/null; then echo \"open: {what}\"; else echo \"shut: {what}\"; fi\n"
        ));
    }
    for (what, line) in STATUS {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        text.push_str(&format!(
            "if ( while read -r name value; do [ \"$name\" = {name} ] && [ \"$value\" = {value} ] && exit 0; done \
             </proc/self/status; exit 1 ); then echo \"shut: {what}\"; else echo \"open: {what}\"; fi\n"
        ));
    }
    text.push_str("set -e\n: >written\n: >/tmp/written\n: >/dev/null\necho tried\n");
    text
}

fn script(work_dir: &Path, args: Vec<OsString>) -> Script {
    let mut environment = Environment::default();
    environment.set("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    Script { environment, ..probe::script("/bin/sh".into(), args, work_dir, LIMIT, KEPT_BYTES_MAX) }
}

//! Each claim: in these surroundings it holds, or it is refused with these words.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::json;
use tempfile::TempDir;

use crate::filters::{refusing, writing_only_in};
use crate::world::{Project, User, both, claim, has, is_root, root_claim, until};

pub(crate) fn claims() -> Vec<Trial> {
    let for_both = [
        both(the_sandbox_holds_in_an_ordinary_session),
        both(the_sandbox_holds_without_new_privileges),
        both(the_sandbox_holds_without_cgroups),
        both(the_sandbox_holds_where_cgroups_are_read_only),
        both(the_sandbox_holds_with_few_open_files),
        both(too_few_open_files_are_told),
        both(the_sandbox_holds_on_an_overlay),
        both(an_overlay_on_an_overlay_is_told),
        both(a_masked_part_of_proc_is_told),
        both(a_read_only_part_of_proc_is_told),
        both(a_filter_of_namespaces_is_told),
        both(a_filter_of_changing_the_root_is_told),
        both(a_filter_that_does_not_know_a_call_is_told),
        both(a_security_module_that_forbids_to_mount_is_told),
        both(a_security_module_that_forbids_to_map_is_told),
    ];
    let mut claims: Vec<Trial> = for_both.into_iter().flatten().collect();
    claims.extend([
        claim(the_sandbox_holds_for_root_of_an_ordinary_users_namespace),
        claim(the_sandbox_holds_in_namespaces_in_namespaces),
        claim(a_user_without_a_number_is_told),
        claim(no_user_namespaces_left_is_told),
        claim(no_namespaces_of_another_kind_left_is_told),
        root_claim(the_sandbox_holds_with_few_processes),
        root_claim(too_few_processes_are_told),
        root_claim(the_sandbox_holds_for_root_of_a_namespace_with_many_users),
        root_claim(the_sandbox_holds_for_root_with_four_rights),
        root_claim(root_of_a_namespace_with_no_other_user_is_told),
        root_claim(rights_that_root_lacks_are_told),
        root_claim(a_group_that_reads_what_is_secret_is_told),
    ]);
    claims
}

/// A project with two scripts in a sandbox, and a program of its own to run them, by which what it leaves behind is known.
struct World {
    project: Project,
    programs: TempDir,
    user: User,
    /// What starts the runner, if not these claims.
    starter: Option<String>,
}

/// Links or copies to where everybody may execute.
fn program(from: &Path, programs: &TempDir, name: &str) -> PathBuf {
    let path = programs.path().join(name);
    fs::hard_link(from, &path).or_else(|_| fs::copy(from, &path).map(drop)).unwrap();
    path
}

fn world(user: User) -> World {
    let programs = TempDir::with_prefix("confinement.").unwrap();
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let runner = program(Path::new(env!("CARGO_BIN_EXE_container-runner")), &programs, "container-runner");
    program(&std::env::current_exe().unwrap(), &programs, "filter");
    let project = Project::with("sandbox: true\n").of(user).by(runner);
    let scripts = json!([{"script": "a.sh", "tier": "public"}, {"script": "b.sh", "tier": "public"}]);
    let manifest = json!({"schemaVersion": 1, "testSuites": scripts, "timeLimitSeconds": 60});
    project.setup("set", &manifest, &[("a.sh", "echo a >made"), ("b.sh", "[ ! -e made ]")]);
    World { project, programs, user, starter: None }
}

/// Somebody without rights, whoever runs these claims.
fn ordinary() -> User {
    if is_root() { User::Ordinary } else { User::Caller }
}

impl World {
    fn behind(self, words: &[&str]) -> Self {
        Self { project: self.project.wrapped(words), starter: Some(words[0].to_owned()), ..self }
    }

    fn behind_filter(self, words: fn(&str, &str) -> Vec<String>, text: &str) -> Self {
        let words = words(&self.programs.path().join("filter").display().to_string(), text);
        self.behind(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// With mounts of its own, of which `preparation` makes some.
    fn with_mounts(self, preparation: &str) -> Self {
        let text = format!("set -e; {preparation}; exec \"$@\"");
        let rights: &[&str] =
            if self.user == User::Caller && is_root() { &[] } else { &["--user", "--map-current-user", "--keep-caps"] };
        let words = [&["unshare", "--mount"], rights, &["sh", "-c", &text, "-"]].concat();
        self.behind(&words)
    }

    /// Tells whether the machine has what starts the runner.
    fn can_be_tried(&self) -> bool {
        self.starter.as_ref().is_none_or(|starter| Path::new(starter).is_absolute() || has(&[starter]))
    }

    #[track_caller]
    fn holds(&self) {
        if !self.can_be_tried() {
            return;
        }
        self.project.run(&["doctor"]).code(0).says("ok    sandbox: holds");
        self.project.run(&["run-suites"]).code(0);
        let summary = self.project.summary();
        assert_eq!(summary["sandbox"], true, "{summary:#}");
        assert_eq!(summary["counts"]["pass"], 2, "{summary:#}");
        self.leaves_nothing();
    }

    /// Told by doctor, and when a run would start, which then does not.
    #[track_caller]
    fn lacks(&self, wall: &str, remedy: &str) {
        if !self.can_be_tried() {
            return;
        }
        let doctor = self.project.run(&["doctor"]);
        let text = doctor.code(2).all();
        let line = text.lines().find(|line| line.starts_with("NEEDS sandbox: "));
        let line = line.unwrap_or_else(|| panic!("the sandbox is not needed:\n{text}"));
        assert!(line.contains(wall) && line.contains(remedy), "`{wall}` and `{remedy}` are not in:\n{line}");
        self.project.run(&["run-suites"]).code(2).says(wall).says(remedy);
        assert!(!self.project.path("proof/results").exists(), "something was run");
        self.leaves_nothing();
    }

    #[track_caller]
    fn leaves_nothing(&self) {
        assert_eq!(self.project.tree("tmp"), Vec::<String>::new());
        until("the end of all processes", || self.executing().is_empty());
    }

    /// Those that execute the runner of this world.
    fn executing(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let is_ours =
            |path: &PathBuf| fs::read_link(path.join("exe")).is_ok_and(|exe| exe.starts_with(self.programs.path()));
        entries.filter(is_ours).collect()
    }
}

const SECCOMP: &str = "--security-opt seccomp=unconfined";
const SECURITY_MODULE: &str = "sysctl kernel.apparmor_restrict_unprivileged_userns=0";
const SYSTEM_PATHS: &str = "--security-opt systempaths=unconfined";
const NAMESPACES: &str = "raise user.max_user_namespaces";

fn the_sandbox_holds_in_an_ordinary_session(user: User) {
    world(user).holds();
}

fn the_sandbox_holds_without_new_privileges(user: User) {
    world(user).behind(&["setpriv", "--no-new-privs"]).holds();
}

fn the_sandbox_holds_without_cgroups(user: User) {
    world(user).with_mounts("mount -t tmpfs none /sys/fs/cgroup").holds();
}

fn the_sandbox_holds_where_cgroups_are_read_only(user: User) {
    let each = "while read -r _ _ _ _ path _; do case $path in /sys/fs/cgroup*) \
                mount -o remount,bind,ro,nosuid,nodev,noexec \"$path\";; esac; done </proc/self/mountinfo";
    world(user).with_mounts(each).holds();
}

fn the_sandbox_holds_with_few_open_files(user: User) {
    world(user).behind(&["prlimit", "--nofile=32:32"]).holds();
}

/// As the files of a container are. The scratch folder lies on `depth` overlays.
fn on_overlays(user: User, depth: usize) -> World {
    let layers = "mkdir -p \"$PROJECT_DIR/layers\"; mount -t tmpfs none \"$PROJECT_DIR/layers\"; \
                  cd \"$PROJECT_DIR/layers\"; mkdir 0 1";
    let overlay = |lower: usize, target: &str| {
        format!(
            "mkdir u{lower} w{lower}; \
             mount -t overlay -o lowerdir={lower},upperdir=u{lower},workdir=w{lower},userxattr none {target}"
        )
    };
    let overlays = match depth {
        1 => overlay(0, "\"$TMPDIR\""),
        _ => format!("{}; {}", overlay(0, "1"), overlay(1, "\"$TMPDIR\"")),
    };
    world(user).with_mounts(&format!("{layers}; {overlays}; cd \"$PROJECT_DIR\""))
}

fn the_sandbox_holds_on_an_overlay(user: User) {
    on_overlays(user, 1).holds();
}

fn an_overlay_on_an_overlay_is_told(user: User) {
    on_overlays(user, 2).lacks("the work folder (Invalid argument", "set TMPDIR to a folder that overlays can lie on");
}

fn a_masked_part_of_proc_is_told(user: User) {
    let masked = "mount -t tmpfs none /proc/irq";
    world(user).with_mounts(masked).lacks("a /proc of its own", SYSTEM_PATHS);
}

fn a_read_only_part_of_proc_is_told(user: User) {
    let read_only = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro,nosuid,nodev,noexec /proc/sys";
    world(user).with_mounts(read_only).lacks("a /proc of its own", SYSTEM_PATHS);
}

/// What Docker does to a process without `CAP_SYS_ADMIN`.
fn a_filter_of_namespaces_is_told(user: User) {
    world(user).behind_filter(refusing, "namespaces=1,mount=1,pivot_root=1").lacks("a user namespace", SECCOMP);
}

/// What it does even to one with it.
fn a_filter_of_changing_the_root_is_told(user: User) {
    world(user).behind_filter(refusing, "pivot_root=1").lacks("a root of its own", SECCOMP);
}

fn a_filter_that_does_not_know_a_call_is_told(user: User) {
    let unknown = "open_tree=38,move_mount=38,mount_setattr=38";
    world(user).behind_filter(refusing, unknown).lacks("the work folder (Function not implemented", SECCOMP);
}

/// Docker's profile for `AppArmor`, and Ubuntu's for user namespaces: they can be made, the rights in them are useless.
fn a_security_module_that_forbids_to_mount_is_told(user: User) {
    world(user).behind_filter(refusing, "mount=13").lacks("a root of its own", SECURITY_MODULE);
}

fn a_security_module_that_forbids_to_map_is_told(user: User) {
    let world = world(user);
    let folders = format!("{}:/dev", world.project.path("").display());
    world.behind_filter(writing_only_in, &folders).lacks("its user's number", SECURITY_MODULE);
}

fn the_sandbox_holds_for_root_of_an_ordinary_users_namespace() {
    world(ordinary()).behind(&["unshare", "--user", "--map-root-user"]).holds();
}

fn the_sandbox_holds_in_namespaces_in_namespaces() {
    let one = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"];
    world(ordinary()).behind(&[one, one, one].concat()).holds();
}

fn a_user_without_a_number_is_told() {
    world(ordinary()).behind(&["unshare", "--user"]).lacks("a user namespace", "unshare --map-current-user");
}

/// A limit is of the namespaces that this one may hold: in one of our own it is nobody else's.
fn with_limit(kind: &str) -> World {
    let text = format!("echo 0 >/proc/sys/user/max_{kind}_namespaces && exec \"$@\"");
    world(ordinary()).behind(&["unshare", "--user", "--map-root-user", "sh", "-c", &text, "-"])
}

fn no_user_namespaces_left_is_told() {
    with_limit("user").lacks("a user namespace (No space left", NAMESPACES);
}

fn no_namespaces_of_another_kind_left_is_told() {
    for kind in ["mnt", "cgroup"] {
        with_limit(kind).lacks("a user namespace (No space left", NAMESPACES);
    }
    for kind in ["pid", "net", "ipc", "uts"] {
        with_limit(kind).lacks(": namespaces (No space left", NAMESPACES);
    }
}

/// The kernel counts by user, and this one has no other processes.
fn the_sandbox_holds_with_few_processes() {
    world(User::Ordinary).behind(&["prlimit", "--nproc=20:20"]).holds();
}

/// For each step of the way to a script that runs, until there are enough. Which one is the last depends on who is faster.
fn too_few_processes_are_told() {
    let walls = [
        (1, "could not start a supervisor ("),
        (2, "could not start a supervisor ("),
        (3, ": namespaces ("),
        (4, "could not "),
        (5, "could not "),
    ];
    for (processes, wall) in walls {
        world(User::Ordinary)
            .behind(&["prlimit", &format!("--nproc={processes}:{processes}")])
            .lacks(wall, "ulimit -u");
    }
}

fn too_few_open_files_are_told(user: User) {
    for files in [6, 10, 31] {
        let words = ["prlimit", &format!("--nofile={files}:{files}")];
        let wall = format!("we may open {files} files, and need 32");
        world(user).behind(&words).lacks(&wall, "raise the limit of open files (ulimit -n)");
    }
}

/// As in a rootless container, or in one of an engine that maps users.
fn the_sandbox_holds_for_root_of_a_namespace_with_many_users() {
    let text = r#"set -e
        unshare --user sleep 1000 &
        trap "kill $!" EXIT
        until [ "$(readlink /proc/$!/ns/user)" != "$(readlink /proc/$$/ns/user)" ]; do sleep 0.01; done
        for map in uid_map gid_map; do echo "0 300000 65536" >/proc/$!/$map; done
        chown -R 300000:300000 "$PROJECT_DIR"
        nsenter --user --target $! --setuid 0 --setgid 0 "$@""#;
    world(User::Caller).behind(&["bash", "-c", text, "-"]).holds();
}

fn the_sandbox_holds_for_root_with_four_rights() {
    let rights = "-all,+chown,+dac_override,+setgid,+setuid";
    world(User::Caller).behind(&["setpriv", "--bounding-set", rights, "--inh-caps", "-all"]).holds();
}

/// Scripts would be the machine's root, without rights, but the owner of its files.
fn root_of_a_namespace_with_no_other_user_is_told() {
    let namespace = ["unshare", "--user", "--map-root-user"];
    world(User::Caller).behind(&namespace).lacks("own the machine's settings", "map user and group 65533");
}

fn rights_that_root_lacks_are_told() {
    let rights = ["setpriv", "--bounding-set", "-chown,-setuid", "--inh-caps", "-all"];
    world(User::Caller).behind(&rights).lacks("root lacks CAP_CHOWN, CAP_SETUID", "keep them (in Docker: --cap-add)");
}

/// Nobody can give up groups in a user namespace; the probe finds what they open.
#[expect(clippy::print_stderr, reason = "what was not tried has to be said")]
fn a_group_that_reads_what_is_secret_is_told() {
    let shadow = fs::metadata("/etc/shadow").unwrap();
    if shadow.mode() & 0o040 == 0 {
        // As Arch has it.
        return eprintln!("NOT TRIED: no group of this machine can read /etc/shadow");
    }
    let (user, group) = (300_000, shadow.gid());
    let text = format!(
        "chown -R {user}:{user} \"$PROJECT_DIR\"; exec setpriv --reuid {user} --regid {user} --groups {group} \"$@\""
    );
    world(User::Caller).behind(&["sh", "-c", &text, "-"]).lacks("scripts could read /etc/shadow", "be one who cannot");
}

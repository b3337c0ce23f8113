//! pacman. It wants to be root, whichever root it works on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libtest_mimic::Trial;

use crate::world::{has, root_claim};
use crate::{Machine, call, found};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        root_claim(where_nothing_is_missing_nothing_is_installed),
        root_claim(only_what_is_missing_is_installed),
        root_claim(what_an_installed_package_provides_is_there),
        root_claim(an_unknown_package_is_told_in_pacmans_words),
        root_claim(a_repository_that_was_never_fetched_is_not_fetched),
        root_claim(a_repository_that_is_gone_is_told_in_pacmans_words),
        root_claim(a_locked_database_stays_locked),
        root_claim(a_failing_scriptlet_fails_the_stage_though_pacman_ends_with_0),
        root_claim(a_failing_hook_fails_the_stage_though_pacman_ends_with_0),
        root_claim(a_package_that_is_cut_short_is_not_installed),
        root_claim(a_group_fails_the_stage_as_no_package_has_its_name),
        root_claim(a_name_like_an_option_never_reaches_pacman),
        root_claim(a_configuration_that_pacman_refuses_is_no_missing_package),
    ]
}

const INSTALL: &str = "pacman -S --needed --noconfirm --noprogressbar --";

/// A package of the repository.
#[derive(Default)]
struct Package {
    name: &'static str,
    /// Further lines of its `.PKGINFO`.
    info: &'static str,
    /// Its `.INSTALL`.
    scriptlet: Option<&'static str>,
}

const SMALL: Package = Package { name: "small", info: "", scriptlet: None };
const OTHER: Package = Package { name: "other", info: "provides = virtual\n", scriptlet: None };

/// A machine with pacman, and a repository of `packages` that it has fetched. `None`: nobody could try.
fn arch(packages: &[Package]) -> Option<Machine> {
    if !has(&["pacman", "repo-add", "bsdtar", "tar", "ldd"]) {
        return None;
    }
    let machine = Machine::new();
    for folder in ["root/var/lib/pacman", "root/tmp", "cache", "hooks", "gpg", "repository"] {
        fs::create_dir_all(machine.path(folder)).unwrap();
    }
    let folder = machine.text_of("");
    let folder = folder.trim_end_matches('/');
    let configuration = format!(
        "[options]\nRootDir = {folder}/root\nDBPath = {folder}/root/var/lib/pacman\nCacheDir = {folder}/cache\n\
         LogFile = {folder}/pacman.log\nHookDir = {folder}/hooks\nGPGDir = {folder}/gpg\nArchitecture = auto\n\
         SigLevel = Never\n[tests]\nServer = file://{folder}/repository\n"
    );
    machine.project.file("pacman.conf", configuration);
    machine.wrap("pacman", &format!("{{real}} --config {folder}/pacman.conf"));
    give_shell(&machine);
    packages.iter().for_each(|package| add(&machine, package));
    machine.call("pacman", &["-Sy"]);
    Some(machine)
}

fn add(machine: &Machine, package: &Package) {
    let Package { name, info, scriptlet } = package;
    let text = format!(
        "pkgname = {name}\npkgbase = {name}\npkgver = 1-1\npkgdesc = {name}\nurl = none\nbuilddate = 1\n\
         packager = nobody\nsize = 3\narch = any\n{info}"
    );
    let folder = format!("build/{name}");
    machine.project.file(format!("{folder}/.PKGINFO"), text).file(format!("{folder}/usr/share/{name}"), "new");
    let mut parts = vec![".PKGINFO", "usr"];
    if let Some(scriptlet) = scriptlet {
        machine.project.file(format!("{folder}/.INSTALL"), scriptlet);
        parts.push(".INSTALL");
    }
    let archive = machine.text_of(&format!("repository/{name}-1-1-any.pkg.tar"));
    let folder = machine.text_of(&folder);
    let pack = ["--owner=0", "--group=0", "-cf", archive.as_str(), "-C", folder.as_str()];
    call(&found("tar"), &[&pack, parts.as_slice()].concat());
    call(&found("repo-add"), &["-q", &machine.text_of("repository/tests.db.tar"), &archive]);
}

/// Scriptlets run in pacman's root.
fn give_shell(machine: &Machine) {
    let root = machine.path("root");
    let copy = |path: &str| {
        let target = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, &target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
    };
    copy("/bin/sh");
    let listed = crate::world::command(found("ldd")).arg("/bin/sh").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.split_whitespace().filter(|word| word.starts_with('/')).for_each(copy);
}

/// What the package's file in the root holds; `None` if it is not installed.
fn installed(machine: &Machine, name: &str) -> Option<String> {
    fs::read_to_string(machine.path(format!("root/usr/share/{name}"))).ok()
}

/// Installs a package ahead of the stage, and leaves a mark in it that an installation would overwrite.
fn installed_before(machine: &Machine, name: &str) {
    machine.call("pacman", &["-S", "--noconfirm", name]);
    machine.project.file(format!("root/usr/share/{name}"), "old");
}

fn where_nothing_is_missing_nothing_is_installed() {
    let Some(machine) = arch(&[SMALL, OTHER]) else { return };
    installed_before(&machine, "small");
    machine.deps(&["small"]).unwrap();
    machine.assert_commands(&[("pacman -T -- small", 0)]);
    machine.assert_message("nothing is missing of `small`");
    assert_eq!(installed(&machine, "small").as_deref(), Some("old"));
}

fn only_what_is_missing_is_installed() {
    let Some(machine) = arch(&[SMALL, OTHER]) else { return };
    installed_before(&machine, "small");
    machine.deps(&["small", "other"]).unwrap();
    machine.assert_message("installed `other`");
    let install = format!("{INSTALL} other");
    let expected = [("pacman -T -- small other", 127), (install.as_str(), 0), ("pacman -T -- other", 0)];
    machine.assert_commands(&expected);
    assert_eq!(installed(&machine, "small").as_deref(), Some("old"));
    assert_eq!(installed(&machine, "other").as_deref(), Some("new"));
    let log = machine.project.text("proof/stages/deps.2-install.stdout.log");
    assert!(log.contains("installing other..."), "{log}");
}

fn what_an_installed_package_provides_is_there() {
    let Some(machine) = arch(&[OTHER]) else { return };
    installed_before(&machine, "other");
    machine.deps(&["virtual"]).unwrap();
    machine.assert_commands(&[("pacman -T -- virtual", 0)]);
}

fn an_unknown_package_is_told_in_pacmans_words() {
    let Some(machine) = arch(&[SMALL]) else { return };
    let end = machine.deps_fail(&["small", "no-such-package"], 1, &["error: target not found: no-such-package"]);
    assert_eq!(end.text, format!("`{INSTALL} small no-such-package` ended with code 1"));
    assert_eq!(installed(&machine, "small"), None);
}

fn a_repository_that_was_never_fetched_is_not_fetched() {
    let Some(machine) = arch(&[SMALL]) else { return };
    fs::remove_dir_all(machine.path("root/var/lib/pacman/sync")).unwrap();
    machine.deps_fail(&["small"], 1, &["database file for 'tests' does not exist", "target not found: small"]);
    let fetched = machine.project.tree("root/var/lib/pacman/sync");
    assert!(fetched.is_empty(), "{fetched:?}");
}

fn a_repository_that_is_gone_is_told_in_pacmans_words() {
    let Some(machine) = arch(&[SMALL]) else { return };
    fs::remove_dir_all(machine.path("repository")).unwrap();
    machine.deps_fail(&["small"], 1, &["error: failed retrieving file 'small-1-1-any.pkg.tar'"]);
    assert_eq!(installed(&machine, "small"), None);
}

fn a_locked_database_stays_locked() {
    let Some(machine) = arch(&[SMALL]) else { return };
    machine.project.file("root/var/lib/pacman/db.lck", "");
    machine.deps_fail(&["small"], 1, &["unable to lock database", "db.lck"]);
    assert!(machine.path("root/var/lib/pacman/db.lck").exists());
    assert_eq!(installed(&machine, "small"), None);
}

fn a_failing_scriptlet_fails_the_stage_though_pacman_ends_with_0() {
    let scriptlet = Some("post_install() {\n    echo 'the scriptlet said this'\n    return 3\n}\n");
    let Some(machine) = arch(&[Package { name: "broken", scriptlet, ..Package::default() }]) else { return };
    let said = ["the scriptlet said this", "error: command failed to execute correctly"];
    let end = machine.deps_fail(&["broken"], 1, &said);
    let expected = format!("`{INSTALL} broken` ended with code 0, but a scriptlet or hook of a package failed");
    assert_eq!(end.text, expected);
    let install = format!("{INSTALL} broken");
    machine.assert_commands(&[("pacman -T -- broken", 127), (install.as_str(), 0)]);
}

fn a_failing_hook_fails_the_stage_though_pacman_ends_with_0() {
    let Some(machine) = arch(&[SMALL]) else { return };
    let hook = "[Trigger]\nOperation = Install\nType = Package\nTarget = *\n\
                [Action]\nWhen = PostTransaction\nExec = /bin/sh -c 'exit 4'\n";
    machine.project.file("hooks/broken.hook", hook);
    machine.deps_fail(&["small"], 1, &["error: command failed to execute correctly"]);
}

fn a_package_that_is_cut_short_is_not_installed() {
    let Some(machine) = arch(&[SMALL]) else { return };
    machine.project.file("repository/small-1-1-any.pkg.tar", "not a package");
    machine.deps_fail(&["small"], 1, &["error: failed to commit transaction"]);
    assert_eq!(installed(&machine, "small"), None);
}

fn a_group_fails_the_stage_as_no_package_has_its_name() {
    let Some(machine) = arch(&[Package { info: "group = several\n", ..SMALL }]) else { return };
    let end = machine.deps_fail(&["several"], 1, &["installing small..."]);
    assert!(end.text.ends_with("there is no package `several` now; a group must be named by its packages"), "{end:?}");
}

fn a_name_like_an_option_never_reaches_pacman() {
    let Some(machine) = arch(&[SMALL]) else { return };
    for name in ["-y", "--root=/", "a b", "tests/small", "./small.pkg.tar"] {
        let end = machine.deps(&["small", name]).unwrap_err();
        assert!(end.text.contains(&format!("`{name}`")) && end.text.contains("the name of a package"), "{end:?}");
        assert_eq!((end.rc, machine.commands()), (None, Vec::new()));
    }
    assert_eq!(installed(&machine, "small"), None);
}

fn a_configuration_that_pacman_refuses_is_no_missing_package() {
    let Some(machine) = arch(&[SMALL]) else { return };
    fs::remove_file(machine.path("pacman.conf")).unwrap();
    let end = machine.deps_fail(&["small"], 1, &["could not be read"]);
    assert_eq!(end.text, "`pacman -T -- small` ended with code 1");
    assert!(Path::new(&machine.path("proof/stages/deps.1-query.stderr.log")).is_file());
}

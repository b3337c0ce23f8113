//! dpkg and apt-get.

use std::fs;

use libtest_mimic::Trial;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::world::{claim, has};
use crate::{Machine, call, found};

pub(crate) fn claims() -> Vec<Trial> {
    vec![
        claim(where_nothing_is_missing_nothing_is_installed),
        claim(only_what_is_missing_is_installed),
        claim(what_an_installed_package_provides_is_there),
        claim(what_a_removed_package_provided_is_missing),
        claim(an_unknown_package_is_told_in_apts_words),
        claim(a_name_is_no_expression),
        claim(a_repository_that_was_never_fetched_is_not_fetched),
        claim(a_repository_that_is_gone_is_told_in_apts_words),
        claim(a_locked_database_is_told_in_apts_words),
        claim(a_failing_script_of_a_package_fails_the_stage),
        claim(a_name_that_asks_for_a_removal_never_reaches_apt),
    ]
}

const INSTALL: &str = "apt-get install -y --no-install-recommends -o APT::Cmd::Pattern-Only=true --";
const STATUS: &str = "dpkg-query -W -f ${Package}\\t${Architecture}\\t${db:Status-Status}\\n --";
const PROVIDED: &str = "dpkg-query -W -f ${db:Status-Status}\\t${Provides}\\n";

/// A machine with apt, and a repository that it has fetched: `small`, `other`, `broken`. `None`: nobody could try.
fn debian() -> Option<Machine> {
    if !has(&["apt-get", "dpkg", "dpkg-query", "dpkg-deb", "dpkg-scanpackages"]) {
        return None;
    }
    let machine = Machine::new();
    for folder in ["info", "updates", "triggers"] {
        fs::create_dir_all(machine.path(format!("root/var/lib/dpkg/{folder}"))).unwrap();
    }
    let empty = ["etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d", "etc/apt/sources.list.d"];
    let partial = ["var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt"];
    for folder in [empty.as_slice(), partial.as_slice()].concat() {
        fs::create_dir_all(machine.path(format!("root/{folder}"))).unwrap();
    }
    let folder = machine.text_of("");
    let folder = folder.trim_end_matches('/');
    machine.project.file("root/var/lib/dpkg/status", "").file("root/var/lib/dpkg/available", "");
    machine.project.file("root/etc/apt/sources.list", format!("deb [trusted=yes] file:{folder}/repository ./\n"));
    let configuration = format!(
        "Dir \"{folder}/root\";\nDir::State::status \"{folder}/root/var/lib/dpkg/status\";\n\
         Dir::Bin::dpkg \"{folder}/programs/dpkg\";\nDir::Log \"{folder}/root/var/log/apt\";\nAPT::Sandbox::User \"root\";\n"
    );
    machine.project.file("apt.conf", configuration);
    let root = format!("--root={folder}/root");
    machine
        .wrap("dpkg", &format!("{{real}} {root} --force-not-root --force-script-chrootless --log={folder}/dpkg.log"));
    machine.wrap("dpkg-query", &format!("{{real}} --admindir={folder}/root/var/lib/dpkg"));
    machine.wrap("apt-get", &format!("env APT_CONFIG={folder}/apt.conf {{real}}"));
    fs::create_dir(machine.path("repository")).unwrap();
    add(&machine, "small", "", None);
    add(&machine, "other", "Provides: virtual (= 2), more\n", None);
    add(&machine, "broken", "", Some("#!/bin/sh\necho 'the script said this'\nexit 3\n"));
    list(&machine);
    Some(machine)
}

fn add(machine: &Machine, name: &str, control: &str, postinst: Option<&str>) {
    let folder = format!("build/{name}");
    let text = format!(
        "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: {name}\n{control}"
    );
    let project = &machine.project;
    project.file(format!("{folder}/DEBIAN/control"), text).file(format!("{folder}/usr/share/{name}"), "new");
    if let Some(postinst) = postinst {
        project.program(&format!("{folder}/DEBIAN/postinst"), postinst);
    }
    let target = machine.text_of("repository");
    call(&found("dpkg-deb"), &["--root-owner-group", "-b", &machine.text_of(&folder), &target]);
}

/// Makes the repository's index, and fetches it.
fn list(machine: &Machine) {
    let mut scan = crate::world::command(found("dpkg-scanpackages"));
    let listed = scan.arg(".").current_dir(machine.path("repository")).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    machine.project.file("repository/Packages", listed.stdout);
    machine.call("apt-get", &["update"]);
}

/// What the package's file in the root holds; `None` if it is not installed.
fn installed(machine: &Machine, name: &str) -> Option<String> {
    fs::read_to_string(machine.path(format!("root/usr/share/{name}"))).ok()
}

/// Installs a package ahead of the stage, and leaves a mark in it that an installation would overwrite.
fn installed_before(machine: &Machine, name: &str) {
    machine.call("apt-get", &["install", "-y", name]);
    machine.project.file(format!("root/usr/share/{name}"), "old");
}

fn where_nothing_is_missing_nothing_is_installed() {
    let Some(machine) = debian() else { return };
    installed_before(&machine, "small");
    machine.deps(&["small"]).unwrap();
    machine.assert_commands(&[(format!("{STATUS} small").as_str(), 0)]);
    machine.assert_message("nothing is missing of `small`");
    assert_eq!(installed(&machine, "small").as_deref(), Some("old"));
}

fn only_what_is_missing_is_installed() {
    let Some(machine) = debian() else { return };
    installed_before(&machine, "small");
    machine.deps(&["small", "other"]).unwrap();
    machine.assert_message("installed `other`");
    machine.assert_commands(&[
        (format!("{STATUS} small other").as_str(), 1),
        (PROVIDED, 0),
        (format!("{INSTALL} other").as_str(), 0),
        (format!("{STATUS} other").as_str(), 0),
    ]);
    assert_eq!(installed(&machine, "small").as_deref(), Some("old"));
    assert_eq!(installed(&machine, "other").as_deref(), Some("new"));
}

fn what_an_installed_package_provides_is_there() {
    let Some(machine) = debian() else { return };
    installed_before(&machine, "other");
    machine.deps(&["virtual", "more"]).unwrap();
    machine.assert_commands(&[(format!("{STATUS} virtual more").as_str(), 0), (PROVIDED, 0)]);
}

fn what_a_removed_package_provided_is_missing() {
    let Some(machine) = debian() else { return };
    installed_before(&machine, "other");
    machine.call("apt-get", &["remove", "-y", "other"]);
    machine.deps(&["virtual"]).unwrap();
    machine.assert_message("installed `virtual`");
    assert_eq!(installed(&machine, "other").as_deref(), Some("new"));
}

fn an_unknown_package_is_told_in_apts_words() {
    let Some(machine) = debian() else { return };
    let said = ["E: Unable to locate package no-such-package"];
    let end = machine.deps_fail(&["small", "no-such-package"], 100, &said);
    assert_eq!(end.text, format!("`{INSTALL} small no-such-package` ended with code 100"));
    assert_eq!(installed(&machine, "small"), None);
}

fn a_name_is_no_expression() {
    let Some(machine) = debian() else { return };
    machine.deps_fail(&["oth.r"], 100, &["E: Unable to locate package oth.r"]);
    assert_eq!(installed(&machine, "other"), None);
}

fn a_repository_that_was_never_fetched_is_not_fetched() {
    let Some(machine) = debian() else { return };
    fs::remove_dir_all(machine.path("root/var/lib/apt/lists")).unwrap();
    machine.deps_fail(&["small"], 100, &["E: Unable to locate package small"]);
    let fetched = machine.project.tree("root/var/lib/apt/lists");
    assert!(fetched.iter().all(|path| !path.contains("Packages")), "{fetched:?}");
}

fn a_repository_that_is_gone_is_told_in_apts_words() {
    let Some(machine) = debian() else { return };
    fs::remove_file(machine.path("repository/small_1_all.deb")).unwrap();
    machine.deps_fail(&["small"], 100, &["E: Failed to fetch file:", "File not found"]);
    assert_eq!(installed(&machine, "small"), None);
}

fn a_locked_database_is_told_in_apts_words() {
    let Some(machine) = debian() else { return };
    let file = fs::File::create(machine.path("root/var/lib/dpkg/lock-frontend")).unwrap();
    let whole = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLK(&whole)).unwrap();
    machine.deps_fail(&["small"], 100, &["E: Could not get lock"]);
    assert_eq!(installed(&machine, "small"), None);
}

fn a_failing_script_of_a_package_fails_the_stage() {
    let Some(machine) = debian() else { return };
    let said = ["the script said this", "post-installation script subprocess returned error exit status 3"];
    machine.deps_fail(&["broken"], 100, &said);
    // It is half-installed now, which is not there: the stage fails again.
    machine.deps_fail(&["broken"], 100, &said);
}

fn a_name_that_asks_for_a_removal_never_reaches_apt() {
    let Some(machine) = debian() else { return };
    installed_before(&machine, "small");
    for name in ["small-", "-y", "small/stable", "small=1", "sm*", "~nsmall", "tools^"] {
        let end = machine.deps(&[name]).unwrap_err();
        assert!(end.text.contains(&format!("`{name}`")) && end.text.contains("the name of a package"), "{end:?}");
        assert_eq!((end.rc, machine.commands()), (None, Vec::new()));
    }
    assert_eq!(installed(&machine, "small").as_deref(), Some("old"));
}

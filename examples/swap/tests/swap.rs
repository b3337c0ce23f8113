//! The program as a user meets it: words in, exit code, text and a changed tree out. Every tree is private to its test.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its tree up has failed")]

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        for (folder, applets) in [
            ("rust-coreutils", "cat cp date echo head ls mkdir mv rm sort tail wc b2sum md5sum sha256sum"),
            ("rust-findutils", "find xargs"),
        ] {
            for applet in applets.split(' ') {
                program(&dir.join("usr/bin").join(applet), "original");
                program(&dir.join("usr/lib").join(folder).join(applet), "provided");
            }
        }
        Self(dir)
    }

    fn path(&self, part: &str) -> PathBuf {
        self.0.join(part)
    }

    fn swap(&self, words: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_swap"))
            .args(words.split_whitespace())
            .env("SWAP_ROOT", &self.0)
            .current_dir("/")
            .output()
            .unwrap()
    }

    fn is_linked(&self, applet: &str) -> bool {
        fs::symlink_metadata(self.path("usr/bin").join(applet)).unwrap().is_symlink()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("usr/bin")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn enable_links_and_disable_restores_the_very_same_files() {
    let tree = Tree::new("round");
    let names = tree.names();
    let before = fs::metadata(tree.path("usr/bin/ls")).unwrap();
    assert_eq!(code(&tree.swap("enable")), 0);
    assert_eq!(fs::read_to_string(tree.path("usr/bin/ls")).unwrap(), "provided");
    assert!(!tree.is_linked("find"));
    assert_eq!(code(&tree.swap("disable")), 0);
    let after = fs::metadata(tree.path("usr/bin/ls")).unwrap();
    assert_eq!(
        (before.ino(), before.mode(), before.mtime(), before.mtime_nsec(), before.nlink()),
        (after.ino(), after.mode(), after.mtime(), after.mtime_nsec(), after.nlink())
    );
    assert_eq!(tree.names(), names);
}

#[test]
fn disable_leaves_what_was_asked_for_by_name_and_all_takes_it_too() {
    let tree = Tree::new("all");
    assert_eq!(code(&tree.swap("enable --experiments coreutils,findutils")), 0);
    assert_eq!(code(&tree.swap("disable")), 0);
    assert!(tree.is_linked("find") && !tree.is_linked("ls"));
    assert_eq!(code(&tree.swap("disable --all")), 0);
    assert!(!tree.is_linked("find"));
}

#[test]
fn an_applet_without_provider_is_warned_about_by_name_on_stderr() {
    let tree = Tree::new("lacking");
    fs::remove_file(tree.path("usr/lib/rust-coreutils/b2sum")).unwrap();
    let output = tree.swap("enable");
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).starts_with("WARN b2sum: "), "{}", stderr(&output));
    assert!(!stdout(&output).contains("WARN"));
    assert!(!tree.is_linked("b2sum") && tree.is_linked("md5sum"));
}

#[test]
fn an_applet_without_target_is_added_and_removed_again() {
    let tree = Tree::new("added");
    fs::remove_file(tree.path("usr/bin/ls")).unwrap();
    assert_eq!(code(&tree.swap("enable")), 0);
    assert!(tree.is_linked("ls"));
    assert_eq!(code(&tree.swap("disable")), 0);
    assert!(!tree.names().contains(&"ls".to_owned()));
}

#[test]
fn enabling_again_links_what_the_provider_has_learned_since() {
    let tree = Tree::new("again");
    fs::remove_file(tree.path("usr/lib/rust-coreutils/wc")).unwrap();
    assert_eq!(code(&tree.swap("enable")), 0);
    program(&tree.path("usr/lib/rust-coreutils/wc"), "provided");
    let output = tree.swap("enable");
    assert!(stdout(&output).ends_with("INFO enable: 1 linked, 14 linked before\n"), "{}", stdout(&output));
    assert!(tree.is_linked("wc"));
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let tree = Tree::new("dry");
    let names = tree.names();
    let output = tree.swap("enable --dry-run");
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("INFO ls: would be linked to ../lib/rust-coreutils/ls\n"));
    assert_eq!(tree.names(), names);
    assert!(!tree.path("var").exists());
}

#[test]
fn disable_without_enable_has_nothing_to_do_and_leaves_no_trace() {
    let tree = Tree::new("nothing");
    let output = tree.swap("disable --all");
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "INFO disable: nothing to do\n"));
    assert!(!tree.path("var").exists());
}

#[test]
fn what_a_crash_left_unfinished_is_undone_by_the_next_order() {
    let tree = Tree::new("crash");
    let names = tree.names();
    assert_eq!(code(&tree.swap("enable")), 0);
    let state = tree.path("var/lib/swap/state");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace("linked ", "unfinished ")).unwrap();
    assert!(stdout(&tree.swap("status")).contains("interrupted: 15 applets"));
    let output = tree.swap("disable");
    assert!(stdout(&output).contains("INFO ls: an interrupted change was undone\n"));
    assert_eq!(tree.names(), names);
}

#[test]
fn what_a_package_upgrade_put_there_is_never_overwritten() {
    let tree = Tree::new("upgrade");
    assert_eq!(code(&tree.swap("enable")), 0);
    fs::remove_file(tree.path("usr/bin/ls")).unwrap();
    program(&tree.path("usr/bin/ls"), "upgraded");
    for words in ["enable", "disable"] {
        let output = tree.swap(words);
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).starts_with("ERROR ls: "), "{}", stderr(&output));
    }
    assert_eq!(fs::read_to_string(tree.path("usr/bin/ls")).unwrap(), "upgraded");
    assert!(tree.is_linked("cat"), "the refused order changed nothing else");
    assert!(stdout(&tree.swap("status")).contains("1 changed by somebody else"));
}

#[test]
fn a_folder_that_cannot_be_written_is_a_failure_without_traces() {
    let tree = Tree::new("read-only");
    let bin = tree.path("usr/bin");
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o555)).unwrap();
    let root_may = fs::write(bin.join("probe"), "").is_ok();
    let output = tree.swap("enable");
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
    // The superuser writes there all the same; the promise is about everybody else.
    if !root_may {
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains("everything done so far was undone"), "{}", stderr(&output));
        assert!(!tree.is_linked("ls"));
    }
}

#[test]
fn usr_bin_that_leads_out_of_the_root_is_refused() {
    let tree = Tree::new("escape");
    let outside = Tree::new("escape-outside");
    fs::remove_dir_all(tree.path("usr/bin")).unwrap();
    symlink(outside.path("usr/bin"), tree.path("usr/bin")).unwrap();
    assert_eq!(code(&tree.swap("enable")), 1);
    assert!(!outside.is_linked("ls"));
}

#[test]
fn a_reader_who_goes_away_stops_no_change() {
    let tree = Tree::new("pipe");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut swap = Command::new(env!("CARGO_BIN_EXE_swap"));
    let status = swap.arg("enable").env("SWAP_ROOT", &tree.0).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(1), "what was not said is not a success");
    assert!(tree.is_linked("ls") && tree.is_linked("wc"));
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_so_on_stderr() {
    let tree = Tree::new("usage");
    for words in ["", "enable --experiments sudo-rs", "enable --root usr", "status --all"] {
        let output = tree.swap(words);
        assert_eq!(code(&output), 2, "{words}");
        assert!(stderr(&output).starts_with("ERROR ") && output.stdout.is_empty(), "{words}");
    }
    assert_eq!(code(&tree.swap("--help")), 0);
    assert_eq!(stdout(&tree.swap("--version")), format!("swap {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn status_as_json_says_what_is_linked_and_what_is_provided() {
    let tree = Tree::new("json");
    fs::remove_file(tree.path("usr/lib/rust-coreutils/b2sum")).unwrap();
    assert_eq!(code(&tree.swap("enable --experiments checksums")), 0);
    let json = stdout(&tree.swap("status --json"));
    for line in [
        "        \"b2sum\": { \"state\": \"original\", \"provided\": false },\n",
        "        \"sha256sum\": { \"state\": \"linked\", \"provided\": true }\n",
        "    \"coreutils\": {\n      \"enabled\": false,\n",
        "    \"checksums\": {\n      \"enabled\": true,\n",
    ] {
        assert!(json.contains(line), "{line}\nin\n{json}");
    }
}

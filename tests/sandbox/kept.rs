//! What becomes of the work folder when it is kept, as a make step's is: all that was made, and nothing else, whatever it is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use proving_ground::internals::sandbox::SandboxLimits;
use proving_ground::internals::script::{Changes, Completion, EndedBy, Exit, Script};

use crate::cell::{Cell, hurried, sandboxed};
use crate::inside::Claim;

pub(crate) fn claims() -> Vec<Claim> {
    let claims = [
        sandboxed(files_modes_links_and_deletions_are_kept),
        sandboxed(what_is_kept_belongs_to_the_next_script),
        sandboxed(what_a_script_that_failed_made_is_kept),
        sandboxed(what_is_dropped_leaves_the_folder_as_it_was),
        sandboxed(links_are_not_followed),
        sandboxed(setuid_is_not_kept),
        sandboxed(what_is_no_file_is_told_as_its_makers_doing),
        sandboxed(folders_that_nobody_may_enter_are_kept),
        sandboxed(deep_folders_do_not_stay_for_ever),
        sandboxed(more_than_the_limit_is_not_kept),
        sandboxed(what_a_full_disk_keeps_from_us_is_its_makers_doing),
        sandboxed(strange_names_are_kept),
        sandboxed(the_folder_cannot_be_replaced),
    ];
    claims.into_iter().flatten().collect()
}

fn keeping(mut script: Script) -> Script {
    script.changes = Changes::Kept;
    script
}

fn make(cell: &Cell, text: &str) -> Completion {
    cell.run(&keeping(cell.sh(text)))
}

/// The script has ended well, and what it has made is such as nobody could keep: its own doing.
#[track_caller]
fn assert_unkept(cell: &Cell, script: &Script, reason: &str) {
    let completion = cell.run_and_keep(&keeping(script.clone())).unwrap();
    assert_eq!((completion.exit, completion.ended_by), (Exit::Code(0), EndedBy::Itself));
    assert!(completion.unkept.as_deref().is_some_and(|text| text.contains(reason)), "{completion:?}");
}

/// Every path below a folder, with what it is.
fn tree(folder: &Path) -> BTreeMap<String, String> {
    let entries = walkdir::WalkDir::new(folder).min_depth(1).into_iter().map(|entry| {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let mode = meta.permissions().mode() & 0o7777;
        let what = if meta.is_symlink() {
            format!("-> {}", fs::read_link(entry.path()).unwrap().display())
        } else if meta.is_dir() {
            format!("{mode:o}/")
        } else {
            format!("{mode:o} {}", String::from_utf8_lossy(&fs::read(entry.path()).unwrap()))
        };
        (entry.path().strip_prefix(folder).unwrap().display().to_string(), what)
    });
    entries.collect()
}

fn assert_tree(cell: &Cell, expected: &[(&str, &str)]) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(path, what)| ((*path).to_owned(), (*what).to_owned())).collect();
    assert_eq!(tree(&cell.work_dir), expected);
    // Nothing of the way there is left beside it.
    let names: Vec<_> = fs::read_dir(&cell.base).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["work"]);
}

fn set_up(cell: &Cell) {
    cell.furnish(&cell.work_dir.join("given"));
    for (name, content) in [("given/file", "content"), ("given/gone", ""), ("changed", "old"), ("gone", "")] {
        cell.put(name, content);
    }
}

fn files_modes_links_and_deletions_are_kept(cell: &Cell) {
    set_up(cell);
    let text = "rm gone given/gone && echo -n new >changed && mkdir -p made/deep && echo -n x >made/deep/x && chmod 755 made/deep/x && \
        chmod 711 made && ln -s ../changed made/link && ln -s nowhere dangling && mv given moved && mkdir given && touch -d @1000000000 made/deep/x";
    assert_eq!(make(cell, text).exit, Exit::Code(0));
    let expected = [
        ("changed", "644 new"),
        ("dangling", "-> nowhere"),
        ("given", "755/"),
        ("made", "711/"),
        ("made/deep", "755/"),
        ("made/deep/x", "755 x"),
        ("made/link", "-> ../changed"),
        ("moved", "755/"),
        ("moved/file", "644 content"),
    ];
    assert_tree(cell, &expected);
    assert_eq!(fs::metadata(cell.work_dir.join("made/deep/x")).unwrap().mtime(), 1_000_000_000);
    // A second one goes on where the first ended.
    assert_eq!(make(cell, "rm -r made moved given dangling && echo -n newer >>changed").exit, Exit::Code(0));
    assert_tree(cell, &[("changed", "644 newnewer")]);
}

fn what_is_kept_belongs_to_the_next_script(cell: &Cell) {
    set_up(cell);
    make(cell, "mkdir made; echo one >made/file; chmod 700 made; chmod 600 made/file");
    assert_eq!(cell.says("echo two >>made/file && rm -r given && cat made/file | tr '\\n' ' '"), "one two");
    assert_eq!(cell.says("cat made/file; ls"), "one\nchanged\ngiven\ngone\nmade");
    if let Some((uid, _)) = cell.runner.owner_of_work() {
        assert_eq!(fs::metadata(cell.work_dir.join("made/file")).unwrap().uid(), uid);
    }
}

fn what_a_script_that_failed_made_is_kept(cell: &Cell) {
    assert_eq!(make(cell, "echo -n x >made; exit 2").exit, Exit::Code(2));
    assert_tree(cell, &[("made", "644 x")]);
    let completion = cell.run(&hurried(keeping(cell.sh("echo -n y >made; sleep 1000"))));
    assert_eq!(completion.ended_by, EndedBy::Timeout);
    assert_tree(cell, &[("made", "644 y")]);
}

fn what_is_dropped_leaves_the_folder_as_it_was(cell: &Cell) {
    set_up(cell);
    let before = tree(&cell.work_dir);
    cell.says("rm -r given gone; echo x >changed; mkdir made; touch made/x");
    assert_eq!(tree(&cell.work_dir), before);
}

fn links_are_not_followed(cell: &Cell) {
    let secret = cell.lab.path("outside");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), cell.token()).unwrap();
    let text = format!(
        "ln -s {0} link; ln -s {0}/file file; ln -s /etc/passwd passwd; ln -s / root; mkdir x; ln -s .. x/up; echo x >x/y",
        secret.display()
    );
    assert_eq!(make(cell, &text).exit, Exit::Code(0));
    let target = secret.display();
    let (to_folder, to_file) = (format!("-> {target}"), format!("-> {target}/file"));
    let mut expected =
        vec![("file", to_file.as_str()), ("link", &to_folder), ("passwd", "-> /etc/passwd"), ("root", "-> /")];
    expected.extend([("x", "755/"), ("x/up", "-> .."), ("x/y", "644 x\n")]);
    assert_tree(cell, &expected);
    let owner = fs::metadata(secret.join("file")).unwrap().uid();
    assert_eq!(owner, nix::unistd::geteuid().as_raw(), "nothing was given away through a link");
    // The next one replaces links by folders, and folders by links.
    assert_eq!(
        make(cell, "rm -r link file passwd root x; mkdir link; echo -n x >link/file; ln -s /etc x").exit,
        Exit::Code(0)
    );
    assert_tree(cell, &[("link", "755/"), ("link/file", "644 x"), ("x", "-> /etc")]);
    assert_eq!(fs::read_to_string(secret.join("file")).unwrap(), cell.token());
}

/// To others on this machine it would be a program of ours, with what a student wrote in it.
fn setuid_is_not_kept(cell: &Cell) {
    let text = "cp /usr/bin/id own; chmod 6755 own; echo x >plain; chmod 2644 plain; mkdir folder; chmod 3755 folder";
    assert_eq!(make(cell, text).exit, Exit::Code(0));
    for (name, mode) in [("own", 0o755), ("plain", 0o644), ("folder", 0o1755)] {
        let found = fs::metadata(cell.work_dir.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{name}: {found:o}");
    }
}

fn what_is_no_file_is_told_as_its_makers_doing(cell: &Cell) {
    set_up(cell);
    let before = tree(&cell.work_dir);
    let socket = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"special\")'";
    for text in ["mkfifo special", socket] {
        assert_unkept(cell, &cell.sh(&format!("rm gone; {text}")), "`special` is neither a file");
        assert_eq!(tree(&cell.work_dir), before, "it is as it was");
        assert_eq!(fs::read_dir(&cell.base).unwrap().count(), 1, "nothing is left beside it");
        cell.assert_goes_on();
    }
}

fn folders_that_nobody_may_enter_are_kept(cell: &Cell) {
    set_up(cell);
    let text = "mkdir -p a/b; echo -n x >a/b/c; echo -n y >secret; chmod 000 secret a/b a given .";
    assert_eq!(make(cell, text).exit, Exit::Code(0));
    // Whoever owns them must be able to go on with them.
    assert_eq!(cell.says("chmod 755 . a a/b; chmod 644 secret; cat secret a/b/c"), "yx");
    assert_eq!(make(cell, "chmod 755 . && chmod -R u+rwX . && rm -r * && echo done").exit, Exit::Code(0));
    assert_tree(cell, &[]);
}

fn deep_folders_do_not_stay_for_ever(cell: &Cell) {
    let deep = |levels: u32| {
        format!("import os\nfor _ in range({levels}):\n os.mkdir('d'); os.chdir('d')\nopen('x', 'w').close()")
    };
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 256, 1 << 10).unwrap();
    // As deep as a path can name it: kept, and gone with the next.
    assert_eq!(cell.run_and_keep(&keeping(cell.python(&deep(1500)))).unwrap().exit, Exit::Code(0));
    assert!(cell.work_dir.join("d/d/d").exists());
    let gone = cell.run_and_keep(&keeping(cell.sh("rm -r d; echo -n x >made"))).unwrap();
    assert_eq!(gone.exit, Exit::Code(0));
    assert_tree(cell, &[("made", "644 x")]);
    // Deeper than any path.
    assert_unkept(cell, &cell.python(&deep(5000)), "so deep");
    assert_tree(cell, &[("made", "644 x")]);
    cell.assert_goes_on();
}

/// Holes and links make much of little: on a real disk it would be all there.
fn more_than_the_limit_is_not_kept(cell: &Cell) {
    let limits = SandboxLimits { disk_bytes_max: 16 << 20, ..SandboxLimits::default() };
    let cell = &cell.limited(limits);
    cell.put("given", &"x".repeat(1 << 20));
    let holes = "for i in 1 2 3 4 5; do truncate -s 10M hole$i; done";
    let links = "head -c 10000000 /dev/zero >file; for i in 1 2 3 4 5; do ln file link$i; done";
    for text in [holes, links] {
        assert_unkept(cell, &cell.sh(text), "more than");
        assert_eq!(tree(&cell.work_dir).keys().collect::<Vec<_>>(), ["given"]);
    }
    assert_eq!(make(cell, "truncate -s 5M hole; head -c 5000000 /dev/zero >file; ln file link").exit, Exit::Code(0));
    assert_eq!(tree(&cell.work_dir).keys().collect::<Vec<_>>(), ["file", "given", "hole", "link"]);
}

/// To let ourselves in takes a copy of a file that was there before, and there is no room for it.
fn what_a_full_disk_keeps_from_us_is_its_makers_doing(cell: &Cell) {
    let limits = SandboxLimits { disk_bytes_max: 1 << 20, ..SandboxLimits::default() };
    let cell = &cell.limited(limits);
    let given = cell.put("given", &"x".repeat(100_000));
    fs::set_permissions(given, fs::Permissions::from_mode(0o000)).unwrap();
    assert_unkept(cell, &cell.sh("cat /dev/zero >full 2>/dev/null; exit 0"), "make less, or raise");
    assert_eq!(fs::read_dir(&cell.work_dir).unwrap().count(), 1);
    cell.assert_goes_on();
}

fn strange_names_are_kept(cell: &Cell) {
    let text = "import os\nfor name in (b'a\\nb', b'\\xff\\xfe', b'-rf', b' ', b'*', b'x' * 255, b'work.made', b'.wh.x', b'\\\\'): open(name, 'w').close()";
    let completion = cell.run(&keeping(cell.python(text)));
    assert_eq!(completion.exit, Exit::Code(0));
    assert_eq!(fs::read_dir(&cell.work_dir).unwrap().count(), 9);
}

fn the_folder_cannot_be_replaced(cell: &Cell) {
    set_up(cell);
    let (before, work) = (tree(&cell.work_dir), cell.work_dir.display());
    let text = format!(
        "cd /; for attempt in 'mv {work} {work}.old' 'rmdir {work}' 'rm -rf {work}.made' 'ln -sfn /etc {work}' 'ln -s /etc {work}.made' 'mv {work}/.. /tmp/x'; do \
         $attempt 2>/dev/null; done; rm -rf {work}/* ; true"
    );
    assert_eq!(make(cell, &text).exit, Exit::Code(0));
    assert_ne!(tree(&cell.work_dir), before);
    let names: Vec<_> = fs::read_dir(&cell.base).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["work"]);
    assert!(fs::symlink_metadata(&cell.work_dir).unwrap().is_dir());
    cell.assert_goes_on();
}

//! What is not graded: the command line, the set-up or the sandbox is wrong. Each is named, with the way out.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::world::{Project, User};
use super::{Lab, PLAIN, RUNNER, Way, can_be_sandboxed, is_ci, is_root, ways};

fn lab() -> Lab {
    let lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    lab.file("empty/readme.txt", "").file("above/week1/test.properties.json", "{}").file("alice/x", "");
    lab.file("broken/test.properties.json", "{\"schemaVersion\": 1,\n \"testSuites\": [{}]}");
    lab.file("none/test.properties.json", "{\"schemaVersion\": 1}").file("none/a.sh", "exit 0");
    lab.file("folder/test.properties.json/x", "").file("cut/test.properties.json", "{\"schemaVersion\": 1");
    nix::unistd::mkfifo(&lab.project.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    lab
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_printed() {
    let lab = lab();
    let table: [(&[&str], &str); 16] = [
        (&[], "SETUP"),
        (&["week1", "alice", "bob"], "'bob'"),
        (&["week1", "--attempt", "0"], "0 is not in 1.."),
        (&["week1", "--attempt", "x"], "--attempt"),
        (&["week1", "--seed"], "--seed"),
        (&["week1", "--sandbocks"], "--sandbox"),
        (&["nowhere"], "could not read `nowhere`; name the folder or file that is meant: No such file"),
        (&["week1", "nobody"], "could not read `nobody`"),
        (&["pipe"], "`pipe` is neither a folder nor a file"),
        (&["week1", "pipe"], "`pipe` is neither a folder nor a file"),
        (&["empty"], "`empty` is no set-up: in it are neither a test.properties.json nor scripts (*.sh)"),
        (&["above"], "its folder `week1` is one: name that"),
        (&["broken"], "broken/test.properties.json:2:"),
        (&["none"], "`none/test.properties.json` lists no script in `testSuites`"),
        (
            &["folder"],
            "could not read `folder/test.properties.json`; see to it that it is a file or folder that you may read: it is not",
        ),
        (
            &["week1/test.properties.json"],
            "`week1/test.properties.json` is the manifest of a set-up; name the folder `week1`",
        ),
    ];
    for (arguments, part) in table {
        for flags in [[].as_slice(), &["--json"], &["--check"]] {
            let ended = lab.grade(&[arguments, flags].concat());
            ended.code(2).stderr_says(part);
            assert_eq!(ended.stdout, "", "{arguments:?}");
        }
    }
    lab.grade(&["cut"]).code(2).stderr_says("cut/test.properties.json:1:");
}

#[test]
fn what_may_not_be_read_is_told_once_with_the_way_out() {
    let user = if is_root() { User::Ordinary } else { User::Caller };
    let denied = "Permission denied (os error 13)\n";
    for (what, closed, arguments) in [
        ("submission", "alice", ["week1", "alice"].as_slice()),
        ("submission", "alice/sub", &["week1", "alice"]),
        ("submission", "alice/answer", &["week1", "alice"]),
        ("submission", "alice/answer", &["week1", "alice/answer"]),
        ("set-up", "week1/test.properties.json", &["week1"]),
        ("set-up", "week1", &["week1"]),
    ] {
        let lab = Lab::with(Way { user, ..PLAIN }, &[("a.sh", "exit 0", json!({}))]);
        lab.file("alice/answer", "").file("alice/sub/x", "");
        let path = lab.project.path(closed);
        // Whoever runs it gets the files when it is started.
        lab.grade(&["week1", "alice"]).code(0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        for flags in [[].as_slice(), &["--json"]] {
            let ended = lab.grade(&[arguments, flags].concat());
            ended.code(2).stderr_says(&format!("the {what} cannot be copied; see to it that you may read all of it"));
            assert!(ended.stderr.contains(closed) && ended.stderr.ends_with(denied), "{ended}");
            assert_eq!((ended.stderr.matches(denied.trim()).count(), ended.stdout.as_str()), (1, ""), "{ended}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn what_cannot_be_copied_is_for_whoever_hands_it_in_to_mend() {
    for way in ways() {
        for (what, pipe) in [("submission", "alice/sub/pipe"), ("set-up", "week1/pipe")] {
            let lab = Lab::with(way, &[("a.sh", "exit 0", json!({}))]);
            lab.file("alice/sub/x", "");
            nix::unistd::mkfifo(&lab.project.path(pipe), nix::sys::stat::Mode::S_IRWXU).unwrap();
            let text = format!(
                "{pipe}` is neither a file, a folder nor a symbolic link; a {what} cannot hold it, remove it\n"
            );
            for flags in [[].as_slice(), &["--json"]] {
                let ended = lab.grade(&[&["week1", "alice"], flags].concat());
                ended.code(2).stderr_says(&text);
                assert_eq!(ended.stdout, "");
            }
        }
    }
}

/// As much as an archive may hold, and no more.
#[test]
fn more_than_an_archive_may_hold_is_refused_before_anything_runs() {
    const MAX: u64 = 512 << 20;
    for (what, folder) in [("submission", "alice"), ("set-up", "week1")] {
        let lab = Lab::with(PLAIN, &[]);
        let ran = lab.project.path("ran").display().to_string();
        lab.file("week1/a.sh", &format!("echo x >{ran}")).file("alice/x", "");
        lab.manifest(&json!({"schemaVersion": 1, "testSuites": [{"script": "a.sh"}]}));
        lab.file(&format!("{folder}/sub/big"), "");
        let big = fs::File::create(lab.project.path(format!("{folder}/sub/big"))).unwrap();
        let rest = if folder == "week1" { size_of(&lab, "week1") } else { 0 };
        big.set_len(MAX - rest + 1).unwrap();
        let told = format!(
            "the {what} `{folder}` has {} bytes, and the limit is {MAX}, as of an archive; take out what is built or downloaded",
            MAX + 1
        );
        for flags in [[].as_slice(), &["--json"]] {
            let ended = lab.grade(&[&["week1", "alice"], flags].concat());
            ended.code(2).stderr_says(&told);
            assert_eq!(ended.stdout, "");
        }
        big.set_len(0).unwrap();
        assert!(!lab.project.path("ran").exists());
        let here = lab.project.tree(folder).len();
        for number in here..20_000 {
            lab.file(&format!("{folder}/many/{number}"), "");
        }
        let told =
            format!("the {what} `{folder}` has 20001 files and folders, and the limit is 20000, as of an archive; ");
        lab.grade(&["week1", "alice"]).code(2).stderr_says(&told);
        assert!(!lab.project.path("ran").exists());
    }
}

#[test]
fn a_file_that_is_larger_than_an_archive_may_be_is_refused() {
    let lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    fs::File::create(lab.project.path("alice.bin")).unwrap().set_len((512 << 20) + 1).unwrap();
    let told = "the submission `alice.bin` has 536870913 bytes, and the limit is 536870912, as of an archive; hand in a smaller";
    lab.grade(&["week1", "alice.bin"]).code(2).stderr_says(told);
}

/// Bytes of all files in a folder of the lab.
fn size_of(lab: &Lab, folder: &str) -> u64 {
    let files = fs::read_dir(lab.project.path(folder)).unwrap().flatten().map(|entry| entry.metadata().unwrap());
    files.filter(fs::Metadata::is_file).map(|meta| meta.len()).sum()
}

#[test]
fn a_sandbox_that_cannot_be_had_is_said_before_anything_runs() {
    if !can_be_sandboxed() {
        assert!(!is_ci(), "CI must be able to make namespaces");
        return;
    }
    // The limit is of namespaces that this one may hold: none.
    let no_namespaces =
        "echo 0 >/proc/sys/user/max_user_namespaces && echo 0 >/proc/sys/user/max_mnt_namespaces && exec \"$@\"";
    let mut lab = lab();
    let ran = lab.project.path("ran").display().to_string();
    lab.file("week1/a.sh", &format!("echo x >{ran}"));
    let words = ["unshare", "--user", "--map-root-user", "bash", "-c", no_namespaces, "-"];
    lab.project = lab.project.wrapped(&words);
    let ended = lab.grade(&["week1", "--sandbox", "--json"]);
    ended.code(2).stderr_says("`--sandbox` was asked for; nothing was run: ");
    assert_eq!(ended.stdout, "");
    assert!(!lab.project.path("ran").exists());
    lab.grade(&["week1"]).code(0);
    assert!(lab.project.path("ran").exists(), "without it, it runs");
}

#[test]
fn what_a_sandbox_holds_back_is_held_back() {
    if !can_be_sandboxed() {
        assert!(!is_ci(), "CI must be able to make namespaces");
        return;
    }
    for (flags, is_held) in [([].as_slice(), false), (&["--sandbox"], true)] {
        let lab = Lab::with(Way { flags, ..PLAIN }, &[]);
        let outside = lab.project.path("outside").display().to_string();
        let manifest = json!({"schemaVersion": 1, "testSuites": [{"script": "a.sh"}], "makefile": {}});
        lab.manifest(&manifest);
        lab.file("week1/a.sh", &format!("echo script >>{outside}; exit 0"));
        lab.file("week1/Makefile", &format!("all:\n\t-echo make >>{outside}\n"));
        assert_eq!(lab.json(0, &["week1"])["passCount"], 1);
        let found = std::fs::read_to_string(&outside).unwrap_or_default();
        assert_eq!(found, if is_held { "" } else { "make\nscript\n" });
    }
}

#[test]
fn a_wrong_environment_is_named() {
    let project = Project::bare().by(RUNNER).variable("SUITE_TIMEOUT_SEC", "soon");
    project.file("week1/a.sh", "exit 0");
    project.run(&["grade", "week1"]).code(2).stderr_says("`SUITE_TIMEOUT_SEC` is `soon`");
}

//! What is not touched, and what is not left.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::{Value, json};

use super::world::is_alive;
use super::{Lab, PLAIN, ways};

/// Whatever may be seen of a folder with all in it, but for when somebody looked.
fn seen(folder: &Path) -> Vec<(String, u64, u32, i64, i64, Vec<u8>)> {
    let walk = walkdir::WalkDir::new(folder).sort_by_file_name();
    let entries = walk.into_iter().map(|entry| {
        let (entry, meta) = entry.and_then(|entry| entry.metadata().map(|meta| (entry, meta))).unwrap();
        let content = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        let path = entry.path().display().to_string();
        (path, meta.ino(), meta.mode(), meta.mtime(), meta.mtime_nsec(), content)
    });
    entries.collect()
}

/// Changes whatever it finds.
const VANDAL: &str = "echo x >>answer; echo x >>Makefile; rm -f a.sh keep; touch new; chmod 777 .; exit 0";

#[test]
fn neither_the_set_up_nor_the_submission_is_written_to() {
    for way in ways() {
        let lab = Lab::new(way);
        let manifest =
            json!({"schemaVersion": 1, "testSuites": [{"script": "a.sh"}, {"script": "b.sh"}], "makefile": {}});
        lab.manifest(&manifest);
        lab.file("week1/a.sh", VANDAL).file("week1/b.sh", VANDAL).file("week1/keep", "kept");
        lab.file("week1/Makefile", "all:\n\ttouch made\n\trm keep\n\techo x >>answer\n");
        lab.file("alice/answer", "42").file("alice/keep", "mine").file("alice/sub/deep", "x");
        // Whose it is changes before it runs.
        lab.grade(&["--help"]).code(0);
        let folders = ["week1", "alice", "alice/sub"].map(|folder| lab.project.path(folder));
        folders.iter().for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap());
        let look = || folders.each_ref().map(|folder| seen(folder));
        let before = look();
        assert_eq!(lab.json(0, &["week1", "alice"])["passCount"], 2, "{way:?}");
        lab.grade(&["week1", "alice"]).code(0);
        assert_eq!(look(), before, "{way:?}");
        folders.iter().for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap());
    }
}

#[test]
fn each_script_has_a_fresh_copy() {
    for way in ways() {
        let text = "[ ! -e new ] && [ \"$(cat b.sh | wc -l)\" = 0 ] && touch new && echo >>b.sh && echo >>a.sh";
        let lab = Lab::with(way, &[("a.sh", text, json!({})), ("b.sh", text, json!({})), ("c.sh", text, json!({}))]);
        assert_eq!(lab.json(0, &["week1"])["passCount"], 3, "{way:?}");
    }
}

#[test]
fn what_a_script_leaves_running_is_ended() {
    for way in ways() {
        let script = "setsid sleep 600 >/dev/null 2>&1 & echo $!; exit 0";
        let lab = Lab::with(way, &[("a.sh", script, json!({}))]);
        let found = lab.json(0, &["week1"]);
        assert_eq!(found["passCount"], 1, "{way:?} {found:#}");
        if way.flags.is_empty() {
            let pid: i32 = found["outcomes"][0]["shortResult"].as_str().unwrap().parse().unwrap();
            assert!(!is_alive(pid), "{way:?}");
        }
    }
}

#[test]
fn copies_in_memory_are_gone_as_well() {
    for way in ways() {
        let mut lab = Lab::with(way, &[("a.sh", "pwd", json!({})), ("b.sh", "pwd", json!({}))]);
        lab.project = lab.project.without_variable("TMPDIR");
        let found: Value = lab.json(0, &["week1"]);
        for outcome in found["outcomes"].as_array().unwrap() {
            let place = Path::new(outcome["shortResult"].as_str().unwrap());
            let scratch = place.ancestors().find(|path| path.to_string_lossy().contains("proving-ground."));
            assert!(place.is_absolute() && !place.exists(), "{way:?} {}", place.display());
            assert!(scratch.is_none_or(|scratch| !scratch.exists()), "{way:?} {}", place.display());
        }
    }
}

#[test]
fn no_mount_is_left() {
    for way in ways() {
        let lab = Lab::with(way, &[("a.sh", "echo x >y", json!({}))]);
        lab.grade(&["week1"]).code(0);
        let scratch = lab.project.path("tmp").display().to_string();
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&scratch), "{way:?}");
    }
}

#[test]
fn temporary_files_do_not_go_into_what_is_graded() {
    let mut lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
    lab.file("week1/tmp/x", "");
    let temp_dir = lab.project.path("week1/tmp");
    lab.project = lab.project.variable("TMPDIR", temp_dir);
    lab.grade(&["week1"]).code(2).stderr_says("which is in `week1`, and that is not written to; set TMPDIR");
    lab.grade(&["week1/tmp/x", "week1"]).code(2).stderr_says("which is in `week1`");
}

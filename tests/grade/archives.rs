//! Set-ups and submissions in zip archives, which take the feature `worker`.

#[cfg(not(feature = "worker"))]
#[test]
fn without_the_feature_an_archive_is_refused_with_the_way_out() {
    let lab = super::Lab::with(super::PLAIN, &[("a.sh", "exit 0", serde_json::json!({}))]);
    lab.file("week1.zip", "PK\u{5}\u{6}").file("alice.ZIP", "");
    for arguments in [["week1.zip"].as_slice(), &["week1", "alice.ZIP"]] {
        for flags in [[].as_slice(), &["--json"]] {
            let ended = lab.grade(&[arguments, flags].concat());
            ended.code(2).stderr_says(
                "was built without the feature `worker`, which reads zip archives; unpack it, and name the folder",
            );
            assert_eq!(ended.stdout, "");
        }
    }
}

#[cfg(feature = "worker")]
mod with_the_feature {
    use std::fs::File;
    use std::io::Write as _;

    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::super::{Lab, PLAIN, can_be_sandboxed, is_ci, lines, ways, with_temp_dir_on};

    /// Packs files into an archive of the lab.
    fn pack(lab: &Lab, name: &str, files: &[(&str, &str)]) {
        let mut archive = ZipWriter::new(File::create(lab.project.path(name)).unwrap());
        for (path, text) in files {
            archive.start_file(*path, SimpleFileOptions::default()).unwrap();
            archive.write_all(text.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
    }

    const MANIFEST: &str = r#"{"schemaVersion": 1, "testSuites": [{"script": "tests/a.sh", "points": 2}]}"#;
    const SCRIPT: &str = "[ \"$(cat sub/answer)\" = 42 ]";

    #[test]
    fn an_archive_is_graded_as_the_folder_that_it_was_made_of() {
        for way in ways() {
            let lab = Lab::new(way);
            pack(&lab, "week1.zip", &[("test.properties.json", MANIFEST), ("tests/a.sh", SCRIPT)]);
            pack(&lab, "alice.ZIP", &[("sub/answer", "42"), ("tests/a.sh", "exit 0")]);
            lab.file("folder/test.properties.json", MANIFEST).file("folder/tests/a.sh", SCRIPT);
            lab.file("bob/sub/answer", "42").file("bob/tests/a.sh", "exit 0");
            let folder = lines(lab.grade(&["folder", "bob"]).code(0));
            for arguments in [["week1.zip", "alice.ZIP"], ["folder", "alice.ZIP"], ["week1.zip", "bob"]] {
                assert_eq!(lines(lab.grade(&arguments).code(0)), folder, "{way:?} {arguments:?}");
            }
            let found = lab.json(0, &["week1.zip", "alice.ZIP"]);
            let keys = ["testSetupID", "submissionID", "earnedPoints"].map(|key| found[key].clone());
            assert_eq!(keys, [json!("week1"), json!("alice"), json!(2)]);
        }
    }

    #[test]
    fn an_archive_of_scripts_alone_is_a_set_up() {
        let lab = Lab::new(PLAIN);
        pack(&lab, "week1.zip", &[("b.sh", "exit 1"), ("a.sh", "exit 0")]);
        let found: Value = lab.json(0, &["week1.zip"]);
        assert_eq!((&found["totalTests"], &found["outcomes"][0]["testName"]), (&json!(2), &json!("a")));
    }

    #[test]
    fn a_file_of_another_name_is_handed_in_as_it_is() {
        let lab = Lab::with(PLAIN, &[("a.sh", "ls", json!({}))]);
        pack(&lab, "alice.jar", &[("x", "")]);
        assert!(lab.json(0, &["week1", "alice.jar"])["outcomes"][0]["shortResult"] == "test.properties.json");
        lab.file("week1/a.sh", "[ -s alice.jar ]");
        assert_eq!(lab.json(0, &["week1", "alice.jar"])["passCount"], 1);
    }

    #[test]
    fn an_archive_for_which_there_is_no_room_is_told_with_the_way_out() {
        if !can_be_sandboxed() {
            assert!(!is_ci(), "CI must be able to make namespaces");
            return;
        }
        let mut lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
        pack(&lab, "alice.zip", &[("blob", &"x".repeat(2 << 20))]);
        lab.project = lab.project.wrapped(&with_temp_dir_on("size=1m"));
        let ended = lab.grade(&["week1", "alice.zip"]);
        ended.code(3).stderr_says(&format!("no space is left in `{}/", lab.project.path("tmp").display()));
        ended.stderr_says("to unpack `alice.zip`: free some there, or set TMPDIR to a folder with more room: No space");
    }

    #[test]
    fn an_archive_without_a_file_is_told() {
        let lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
        pack(&lab, "alice.zip", &[]);
        let told = "note: the submission `alice.zip` is empty: there is no file in it\n";
        assert_eq!(lab.grade(&["week1", "alice.zip"]).code(0).stderr, told);
    }

    #[test]
    fn what_is_wrong_with_an_archive_is_said_of_it() {
        let lab = Lab::with(PLAIN, &[("a.sh", "exit 0", json!({}))]);
        lab.file("garbage.zip", "no archive").file("empty.zip", "");
        pack(&lab, "evil.zip", &[("../evil", "x")]);
        pack(&lab, "above.zip", &[("week1/test.properties.json", MANIFEST)]);
        pack(&lab, "broken.zip", &[("test.properties.json", "{}")]);
        pack(&lab, "none.zip", &[("readme", "")]);
        let table: [(&[&str], &str); 8] = [
            (&["garbage.zip"], "could not unpack `garbage.zip`: "),
            (&["empty.zip"], "could not unpack `empty.zip`: "),
            (&["week1", "garbage.zip"], "could not unpack `garbage.zip`: "),
            (&["evil.zip"], "could not unpack `evil.zip`: "),
            (&["week1", "evil.zip"], "could not unpack `evil.zip`: "),
            (
                &["above.zip"],
                "`above.zip` is no set-up: in it are neither a test.properties.json nor scripts (*.sh); its folder `week1`",
            ),
            (&["broken.zip"], "broken.zip/test.properties.json:1:"),
            (&["none.zip"], "`none.zip` is no set-up"),
        ];
        for (arguments, part) in table {
            let ended = lab.grade(&[arguments, &["--json"]].concat());
            ended.code(2).stderr_says(part);
            assert_eq!(ended.stdout, "", "{arguments:?}");
        }
        assert!(!lab.project.path("tmp/evil").exists() && !lab.project.path("evil").exists());
    }
}

//! The schemas say what the parser does: what one refuses the other refuses, and what one accepts the other accepts, judged by
//! a validator that is not ours. Rules that a schema cannot say are listed below, each with its reason.
#![expect(clippy::disallowed_methods, reason = "starts container-runner to see what it prints")]
#![expect(clippy::unwrap_used, reason = "a test that cannot read its files must fail")]

use std::path::Path;
use std::process::Command;

use proving_ground::internals::{check_runner, check_task};
use serde_json::Value;

/// A file that people write: its name, its schema as the command prints it, and what the parser says of a text.
struct File {
    name: &'static str,
    schema: String,
    parse: fn(&[u8]) -> Result<(), String>,
}

fn printed(word: &str) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_container-runner")).args(["schema", word]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn task() -> File {
    File { name: "task.yaml", schema: printed("task"), parse: check_task }
}

fn runner() -> File {
    File { name: "runner.yaml", schema: printed("runner"), parse: check_runner }
}

impl File {
    fn validator(&self) -> impl Fn(&str) -> Result<(), String> {
        let schema: Value = serde_json::from_str(&self.schema).unwrap();
        let validator = jsonschema::draft7::new(&schema).unwrap();
        move |text| {
            let value: Value = serde_yaml::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
            validator.validate(&value).map_err(|error| format!("{}: {error}", error.instance_path()))
        }
    }

    /// Expects that both refuse, or both accept; returns which.
    fn both(&self, valid: &impl Fn(&str) -> Result<(), String>, text: &str) -> bool {
        let (parsed, valid) = ((self.parse)(text.as_bytes()), valid(text));
        assert_eq!(parsed.is_ok(), valid.is_ok(), "{}:\n{text}\nparser: {parsed:?}\nschema: {valid:?}", self.name);
        parsed.is_ok()
    }

    fn both_accept(&self, texts: &[&str]) {
        let valid = self.validator();
        texts.iter().for_each(|text| assert!(self.both(&valid, text), "refused: {text}"));
    }

    fn both_refuse(&self, texts: &[&str]) {
        let valid = self.validator();
        texts.iter().for_each(|text| assert!(!self.both(&valid, text), "accepted: {text}"));
    }

    /// Expects that the parser alone refuses.
    fn cannot_be_said(&self, texts: &[(&str, &str)]) {
        let valid = self.validator();
        for (text, why) in texts {
            assert!((self.parse)(text.as_bytes()).is_err(), "accepted: {text}");
            assert_eq!(valid(text), Ok(()), "{text}: the schema can say it, so it is no exception because {why}");
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_shipped_schemas_are_what_the_command_prints() {
    for (word, path) in [("task", "schemas/task.schema.json"), ("runner", "schemas/runner.schema.json")] {
        let shipped = std::fs::read_to_string(root().join(path)).unwrap_or_default();
        let way_out = format!("cargo run --bin container-runner -- schema {word} >{path}");
        assert!(shipped == printed(word), "`{path}` is not what the keys of the parser say; write it again: {way_out}");
    }
}

#[test]
fn the_schemas_are_schemas() {
    for file in [task(), runner()] {
        let schema: Value = serde_json::from_str(&file.schema).unwrap();
        assert!(jsonschema::meta::is_valid(&schema), "{}", file.schema);
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        expect_described(&schema);
    }
}

/// Every key, of maps in maps too, says what it means.
fn expect_described(schema: &Value) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        assert!(property["description"].as_str().is_some_and(|text| text.ends_with('.')), "`{name}`: {property}");
        expect_described(property);
    }
}

#[test]
fn every_suite_and_project_of_this_repository_is_accepted() {
    let (tasks, projects) = (task(), runner());
    let (mut tasks_seen, mut projects_seen) = (0, 0);
    let (valid_task, valid_project) = (tasks.validator(), projects.validator());
    for folder in ["suites", "tests/archlike/suites", "tests/fixtures"] {
        for entry in walkdir::WalkDir::new(root().join(folder)) {
            let entry = entry.unwrap();
            let text = || std::fs::read_to_string(entry.path()).unwrap();
            if entry.file_name() == "task.yaml" {
                assert!(tasks.both(&valid_task, &text()), "{}", entry.path().display());
                tasks_seen += 1;
            } else if entry.file_name() == "runner.yaml" {
                assert!(projects.both(&valid_project, &text()), "{}", entry.path().display());
                projects_seen += 1;
            }
        }
    }
    assert!(tasks_seen >= 27 && projects_seen >= 3, "only {tasks_seen} suites, {projects_seen} projects");
}

// ---------------------------------------------------------------------------------------------------------------------------
// Every key with every kind of value
// ---------------------------------------------------------------------------------------------------------------------------

/// Values as YAML: right ones, wrong ones, and some that YAML takes for something else than was meant. Exceptions are below.
const VALUES: &str = r#"
    ¦~¦null¦''¦' '¦"\t\n"¦a¦ä b¦' a '¦-a¦'-'¦.¦..¦.a¦...a¦/a¦a/b¦a.b-c+d_1¦'{applet}'¦'/a/{applet}/{scratch}'¦'{x}'¦'{'¦'a{'¦'a}'
    ¦"a\nb"¦"a\rb"¦"a\n"¦"\na"¦"a\eb"¦"a\u0085b"¦0¦1¦-1¦1.5¦-1.5¦10000000¦10000001¦1099511627776¦1099511627777¦0755¦1_000
    ¦2020-01-01¦true¦false¦yes¦no¦True¦pass¦fail¦xfail¦Pass¦linked¦unlinked¦none¦cargo¦container¦overlay¦stop¦continue¦report
    ¦strict¦90s¦1.5h¦500ms¦15m¦' 2 s '¦2 m¦0s¦0.0h¦00.50s¦'1.'¦.5s¦5d¦+5s¦-5s¦1e3s¦5S¦64MiB¦500kB¦1.5GiB¦7B¦64M¦64mib¦1 MB¦0B
    ¦[]¦[a]¦[a, b]¦['']¦[' ']¦[a b]¦[-a]¦[-1]¦[1, 1.5, true]¦[/a]¦['{x}']¦['{applet}']¦[~]¦[[a]]¦[{a: b}]
    ¦{}¦{a: b}¦{A: 1, _b: no, C1: 1.10}¦{A: ~}¦{A: []}¦{A-B: c}¦{1: c}¦{'': c}¦{true: c}¦{ä: c}¦{applets: a, target: b}¦"#;

fn values() -> Vec<&'static str> {
    let blocks = ["|\n      a\n      b", "|\n      a", ">\n      a\n      b"];
    VALUES.split('¦').map(str::trim).chain(blocks).collect()
}

/// What stands before a key's value, and what after the key's entry.
fn places(schema: &Value, before: &str) -> Vec<String> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut places = Vec::new();
    for (name, property) in properties {
        places.push(format!("{before}{name}: "));
        let required = property["required"].as_array().into_iter().flatten();
        let others: String = required.map(|key| format!("  {}: x\n", key.as_str().unwrap())).collect();
        for inner in property["properties"].as_object().into_iter().flatten().map(|(inner, _)| inner) {
            let others = others.replace(&format!("  {inner}: x\n"), "");
            places.push(format!("{before}{name}:\n{others}  {inner}: "));
        }
    }
    places
}

fn expect_agreement(file: &File, before: &[(&str, &str)], keys: usize) {
    let schema: Value = serde_json::from_str(&file.schema).unwrap();
    let (valid, values) = (file.validator(), values());
    let mut accepted = 0;
    let places = places(&schema, "");
    assert!(places.len() >= keys, "{places:?}");
    for place in &places {
        let rest: String =
            before.iter().filter(|(key, _)| *place != format!("{key}: ")).map(|(_, line)| *line).collect();
        let values = values.iter().filter(|value| file.both(&valid, &format!("{rest}{place}{value}\n")));
        let of_place = values.count();
        assert!(of_place > 0, "nothing is right for {place}");
        accepted += of_place;
    }
    let all = places.len() * values.len();
    assert!(accepted > all / 10 && accepted < all * 9 / 10, "{accepted} of {all} accepted");
}

#[test]
fn parser_and_schema_agree_on_every_key_of_a_suite() {
    expect_agreement(&task(), &[("summary", "summary: a\n"), ("execute", "execute: b\n")], 12);
}

#[test]
fn parser_and_schema_agree_on_every_key_of_a_project() {
    expect_agreement(&runner(), &[], 23);
}

// ---------------------------------------------------------------------------------------------------------------------------
// Whole files
// ---------------------------------------------------------------------------------------------------------------------------

#[test]
fn a_suite_that_is_wrong_is_refused_by_both() {
    task().both_refuse(&[
        "",
        "# nothing\n",
        "- a\n",
        "text\n",
        "{}",
        "summary: a\n",
        "execute: a\n",
        "summary: a\nexecute:\n",
        "summary: a\nexecute: b\nrestroe: c\n",
        "summary: a\nexecute: b\nExecute: c\n",
        "summary: a\nexecute: b\n<<: {expect: fail}\n",
        "summary: |\n  a\n  b\nexecute: c\n",
        "summary: a\nexecute: b\nexpect: maybe\n",
        "summary: a\nexecute: b\nkill-timeout: soon\n",
        "summary: a\nexecute: b\ndistro-check: arch manjaro\n",
        "summary: a\nexecute: b\nsnapshot: ['/b/{aplet}']\n",
    ]);
}

#[test]
fn a_suite_that_is_odd_but_right_is_accepted_by_both() {
    task().both_accept(&[
        "{summary: a, execute: true}",
        "{\"execute\": 1, \"summary\": 2.50}",
        "summary: >\n  folded\n  into one\nexecute: |\n\n  a\n",
        "summary: a\nexecute: &block b\nrestore: *block\ndebug: ''\nprepare: ''\ndetails: ''\n",
        "summary: a\nexecute: b\nenvironment: {A: 0755, B: 1.10, C: no, D: '', E: true, true: x}\n",
        "summary: a\nexecute: b\nenvironment: {}\nsnapshot: []\n",
        "summary: a\nexecute: b\ndistro-check: arch\nkill-timeout: 90\n",
        "summary: a\nexecute: b\ndistro-check: [arch, 1]\nkill-timeout: ' 1.5 h '\n",
    ]);
}

#[test]
fn a_project_that_is_wrong_is_refused_by_both() {
    runner().both_refuse(&[
        "[]",
        "text",
        "timeouts: 3s\n",
        "product: {nam: x}\n",
        "product: {name: /bin/x}\n",
        "product: {build: make}\n",
        "product:\n",
        "scope: {distros: []}\n",
        "deps: {packages: [a, -y]}\n",
        "deps: {packages: a}\n",
        "presence: {}\n",
        "presence: {applets: a}\n",
        "presence: {applets: a, target: '/x/{name}'}\n",
        "presence: {applets: a, target: b, preserve: c}\n",
        "isolation: overlya\n",
        "sandbox: yes\n",
        "sandbox-limits: {memory: 0}\n",
        "sandbox-limits: {files: 1.5}\n",
        "sandbox-limits: {processes: 1000001}\n",
        "sandbox-limits: {processes: 1}\n",
        "sandbox-limits: {open-files: many}\n",
        "sandbox-limits: {open-files: 15}\n",
        "sandbox-limits: {time: 5s}\n",
        "sandbox-limits: 5\n",
        "sandbox-shows: [data]\n",
        "sandbox-shows: /data\n",
        "sandbox-shows: [/]\n",
        "sandbox-shows: [/dev/sda]\n",
        "sandbox-shows: [/tmp]\n",
        "timeout: -5s\n",
        "output-limit: 64M\n",
    ]);
}

#[test]
fn a_project_that_is_odd_but_right_is_accepted_by_both() {
    runner().both_accept(&[
        "",
        "# nothing yet\n",
        "~",
        "{}",
        "product: {}\nscope: {}\ndeps: {}\nsnapshot: {}\n",
        "product: {name: 7, manifest-path: true, bin: 1.5}\n",
        "{\"scope\": {\"distros\": \"arch\"}, \"timeout\": 90, \"output-limit\": 7}",
        "presence: {applets: a, target: b, providers: [], unified: [], preserve: [1]}\n",
        "sandbox-limits: {}\nsandbox-shows: []\n",
        "sandbox-limits: {memory: 1.5 GiB, disk: 100, files: ' 7 ', processes: 2, open-files: 1000000}\nsandbox-shows: [/srv/data, /usr]\n",
    ]);
}

// ---------------------------------------------------------------------------------------------------------------------------
// What a schema cannot say
// ---------------------------------------------------------------------------------------------------------------------------

#[test]
fn what_a_schema_cannot_say_is_known() {
    const SUITE: &str = "summary: a\nexecute: b\n";
    let with = |lines: &str| format!("{SUITE}{lines}");
    let rules = [
        (with("kill-timeout: 10000001s\n"), "a pattern compares no numbers; it can for a number without a unit"),
        (with("kill-timeout: 0.0000000001s\n"), "a pattern does not know what is less than a nanosecond"),
        (with("kill-timeout: 0.1234567890123456789s\n"), "digits are not counted, so that the pattern can be read"),
        (with("kill-timeout: 1.0\n"), "1.0 is an integer to JSON Schema, and its text is not known any more"),
        (with("kill-timeout: 1.\n"), "the same"),
        (with("kill-timeout: 1e3\n"), "the same"),
        (with("kill-timeout: 0x10\n"), "the same"),
    ];
    task().cannot_be_said(&rules.each_ref().map(|(text, why)| (text.as_str(), *why)));
    runner().cannot_be_said(&[
        ("product: {name: -0}\n", "-0 is not less than 0, and its text is not known any more"),
        ("output-limit: 1025GiB\n", "a pattern compares no numbers; it can for a number without a unit"),
    ]);
}

/// Errors of YAML itself, not of a value: an editor tells them without a schema, or not at all.
#[test]
fn what_is_no_document_is_refused_by_the_parser() {
    for text in [
        "summary: a\nexecute: b\nexecute: c\n",
        "summary: a\nexecute: b\n---\nsummary: c\n",
        "summary: a\nexecute: b\n? [c]\n: d\n",
        "summary: a\nexecute: !word b\n",
        "summary: a\nexecute: \"b\\0\"\n",
        "summary: a\n\texecute: b\n",
    ] {
        assert!(check_task(text.as_bytes()).is_err(), "{text}");
    }
    let long = format!("summary: a\nexecute: b\n# {}\n", "x".repeat(1 << 20));
    assert!(check_task(long.as_bytes()).is_err());
}

/// As text a number has no minimum, only a pattern.
#[test]
fn the_least_count_is_the_same_as_a_text() {
    let file = runner();
    let valid = file.validator();
    for (key, least) in [("files", 1), ("processes", 2), ("open-files", 16)] {
        for number in (0..130).chain([999, 1000, 160_000]) {
            for text in [format!("'{number}'"), format!("' 00{number} '"), number.to_string()] {
                let text = format!("sandbox-limits: {{{key}: {text}}}\n");
                assert_eq!(file.both(&valid, &text), number >= least, "{text}");
            }
        }
    }
}

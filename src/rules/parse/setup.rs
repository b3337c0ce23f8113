//! `test.properties.json` -> `TestSetup`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::json;
use super::node::{At, Document, Field, Fields, Key, Node, ParseError, Problem, UnknownKeys, Value, shown};
use super::quantity::DURATION_SECS_MAX;
use crate::model::setup::{MakeStep, ScriptEntry, TestSetup, Tier};
use crate::rules::nearest::nearest;

/// Wall-clock limit of a script whose set-up names none.
const TIME_LIMIT_DEFAULT: Duration = Duration::from_secs(10);

/// Reads a set-up from the text of its `test.properties.json`. Unknown keys are ignored, `null` is as absent.
///
/// # Errors
/// The first thing that is wrong with it, with its file, line and column.
pub(crate) fn parse_setup(name: &str, dir: &Path, file: &Path, text: &[u8]) -> Result<TestSetup, ParseError> {
    let document = json::read(file, text)?;
    let read = || {
        let fields = document.root.fields(&[], UnknownKeys::Ignore)?;
        fields.require("schemaVersion")?.integer()?;
        Ok(TestSetup {
            name: name.to_owned(),
            dir: dir.to_owned(),
            entries: present(&fields, ENTRIES, entries)?.unwrap_or_default(),
            time_limit: present(&fields, "timeLimitSeconds", time_limit)?.unwrap_or(TIME_LIMIT_DEFAULT),
            make: present(&fields, "makefile", make)?,
        })
    };
    read().map_err(|problem| document.error(problem))
}

/// Returns the set-up of a folder without a manifest: its scripts in byte order, each public and worth one point.
#[must_use]
pub(crate) fn default_setup(name: &str, dir: &Path, mut scripts: Vec<String>) -> TestSetup {
    scripts.sort_unstable();
    scripts.dedup();
    let entry =
        |script| ScriptEntry { script, tier: Tier::Public, name: None, depends_on: Vec::new(), points: 1, hint: None };
    TestSetup {
        name: name.to_owned(),
        dir: dir.to_owned(),
        entries: scripts.into_iter().map(entry).collect(),
        time_limit: TIME_LIMIT_DEFAULT,
        make: None,
    }
}

/// Returns the indices of a set-up's entries in the order in which they run: after everything they depend on, else in the
/// order of the manifest.
#[must_use]
pub(crate) fn run_order(setup: &TestSetup) -> Vec<usize> {
    let needs = needs(&setup.entries);
    let (mut order, stuck) = sorted(&needs);
    // A cycle is an error of the manifest; entries made by other means still run once each.
    order.extend(stuck);
    order
}

/// Keys of a manifest that nothing reads: of a newer Chickadee, or misspelt.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Strangers {
    /// Those that were most likely meant to be another key, the first ones.
    pub(crate) misspelt: Vec<Misspelt>,
    /// Where the others are: `testSuites[1].colour`.
    pub(crate) others: Vec<String>,
}

/// A key that was most likely meant to be another one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misspelt {
    pub(crate) meant: &'static str,
    /// The same for people, with its place.
    pub(crate) told: ParseError,
}

/// The key of the list of scripts.
pub(crate) const ENTRIES: &str = "testSuites";
/// All that Chickadee knows, read here or not.
const KEYS: [&str; 10] = [
    "schemaVersion",
    "gradingMode",
    "requiredFiles",
    ENTRIES,
    "timeLimitSeconds",
    "makefile",
    "starterNotebook",
    "sections",
    "globalVariables",
    "testItems",
];
const ENTRY_KEYS: [&str; 6] = ["script", "tier", "name", "dependsOn", "points", "hint"];
const MAKE_KEYS: [&str; 1] = ["target"];
/// Misspelt keys that are told: to find the place of one takes another reading of the file.
const MISSPELT_MAX: usize = 20;

/// Returns the keys of a `test.properties.json` that nothing reads; of one that cannot be read, none.
pub(crate) fn strangers(file: &Path, text: &[u8]) -> Strangers {
    let mut found = Strangers::default();
    let Ok(document) = json::read(file, text) else { return found };
    let Value::Map(root) = &document.root.value else { return found };
    found.look_among(&document, root, "", &KEYS);
    for (key, node) in root {
        match (key.text.as_str(), &node.value) {
            ("makefile", Value::Map(step)) => found.look_among(&document, step, "makefile.", &MAKE_KEYS),
            (ENTRIES, Value::List(entries)) => {
                for (at, entry) in entries.iter().enumerate() {
                    let Value::Map(entry) = &entry.value else { continue };
                    found.look_among(&document, entry, &format!("{ENTRIES}[{at}]."), &ENTRY_KEYS);
                }
            }
            _other => {}
        }
    }
    found
}

impl Strangers {
    fn look_among(
        &mut self,
        document: &Document<'_>,
        entries: &[(Key, Node)],
        above: &str,
        known: &'static [&'static str],
    ) {
        // What is there already was not meant.
        let is_there: BTreeSet<_> = entries.iter().map(|(key, _)| key.text.as_str()).collect();
        let absent: Vec<_> = known.iter().copied().filter(|key| !is_there.contains(key)).collect();
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let meant = nearest(&key.text, absent.iter().copied());
            let help = meant.map(|meant| (meant, format!("did you mean `{meant}`?")));
            match help.or_else(|| misplaced(&key.text, above)).filter(|_| self.misspelt.len() < MISSPELT_MAX) {
                Some((meant, help)) => {
                    let message = format!("unknown key `{}` is ignored, {help}", shown(&key.text));
                    let told = document.error(Problem::new(key.at, message));
                    self.misspelt.push(Misspelt { meant, told });
                }
                None => self.others.push(format!("{above}{}", shown(&key.text))),
            }
        }
    }
}

/// A limit of one script looks right in its entry.
fn misplaced(key: &str, above: &str) -> Option<(&'static str, String)> {
    let meant = *KEYS.iter().find(|known| **known == key)?;
    Some((meant, format!("its place is beside `{ENTRIES}`, not in `{}`", above.trim_end_matches('.'))))
}

fn present<T>(
    fields: &Fields<'_>,
    key: &'static str,
    read: impl FnOnce(Field<'_>) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    fields.get(key).filter(|field| !matches!(field.node.value, Value::Null)).map(read).transpose()
}

fn time_limit(field: Field<'_>) -> Result<Duration, Problem> {
    let seconds = field.integer()?;
    match u64::try_from(seconds) {
        Ok(seconds @ 1..=DURATION_SECS_MAX) => Ok(Duration::from_secs(seconds)),
        Ok(0) | Err(_) => Err(field.wrong(format!("cannot be {seconds}, it must be more than zero"))),
        Ok(_) => Err(field.wrong(format!("cannot be {seconds}, the limit is {DURATION_SECS_MAX} s"))),
    }
}

fn make(field: Field<'_>) -> Result<MakeStep, Problem> {
    let fields = field.fields(&[], UnknownKeys::Ignore)?;
    let target = present(&fields, "target", |field| {
        let target = field.some_text()?;
        if target.starts_with('-') {
            return Err(field.wrong(format!("cannot be `{}`, make would read it as an option", shown(target))));
        }
        Ok(target.to_owned())
    })?;
    Ok(MakeStep { target })
}

fn entries(field: Field<'_>) -> Result<Vec<ScriptEntry>, Problem> {
    let mut entries = Vec::new();
    let mut first = BTreeMap::new();
    let mut uses = Vec::new();
    for (at, element) in field.list()?.enumerate() {
        let name = format!("{ENTRIES}[{at}]");
        let element = Field { name: &name, ..element };
        let fields = element.fields(&[], UnknownKeys::Ignore)?;
        let script = fields.require("script")?;
        let entry = entry(&fields)?;
        if let Some(first) = first.insert(entry.script.clone(), script.node.at) {
            return Err(Problem::again(script.node.at, format!("duplicate script `{}`", shown(&entry.script)), first));
        }
        uses.push(
            present(&fields, "dependsOn", |field| Ok(field.list()?.map(|one| one.node.at).collect()))?
                .unwrap_or_default(),
        );
        entries.push(entry);
    }
    check_prerequisites(&entries, &uses)?;
    Ok(entries)
}

fn entry(fields: &Fields<'_>) -> Result<ScriptEntry, Problem> {
    let texts = |field: Field<'_>| field.list()?.map(script_path).collect::<Result<Vec<_>, _>>();
    Ok(ScriptEntry {
        script: script_path(fields.require("script")?)?,
        tier: present(fields, "tier", |field| field.word(TIERS))?.unwrap_or(Tier::Public),
        name: present(fields, "name", |field| field.text().map(str::to_owned))?,
        depends_on: present(fields, "dependsOn", texts)?.unwrap_or_default(),
        points: present(fields, "points", points)?.unwrap_or(1),
        hint: present(fields, "hint", |field| field.text().map(str::to_owned))?,
    })
}

const TIERS: &[(&str, Tier)] =
    &[("public", Tier::Public), ("release", Tier::Release), ("secret", Tier::Secret), ("student", Tier::Student)];

fn points(field: Field<'_>) -> Result<u32, Problem> {
    let points = field.integer()?;
    u32::try_from(points).map_err(|_| field.wrong(format!("cannot be {points}, it must be 0 to {}", u32::MAX)))
}

/// A path that stays in the set-up, `.` parts and doubled slashes removed so that one script has one spelling.
fn script_path(field: Field<'_>) -> Result<String, Problem> {
    let path = match &field.node.value {
        Value::Text(_) => field.some_text()?,
        Value::Null | Value::Number(_) | Value::Bool(..) | Value::List(_) | Value::Map(_) => {
            return Err(field.wrong("must be the path of a script"));
        }
    };
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(field.wrong(format!("cannot be `{}`, it must stay inside the set-up", shown(path))));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() || path.ends_with('/') {
        return Err(field.wrong(format!("cannot be `{}`, it must be the path of a script", shown(path))));
    }
    Ok(parts.join("/"))
}

/// Scripts of a circle that are named.
const CIRCLE_SHOWN_MAX: usize = 5;

fn check_prerequisites(entries: &[ScriptEntry], uses: &[Vec<At>]) -> Result<(), Problem> {
    let known: BTreeSet<&str> = entries.iter().map(|entry| entry.script.as_str()).collect();
    for (entry, places) in entries.iter().zip(uses) {
        for (script, at) in entry.depends_on.iter().zip(places) {
            if !known.contains(script.as_str()) {
                return Err(Problem::new(*at, unknown_prerequisite(entry, script, entries)));
            }
        }
    }
    let needs = needs(entries);
    let (_, stuck) = sorted(&needs);
    let Some(cycle) = cycle(&needs, &stuck) else {
        return Ok(());
    };
    let mut names: Vec<String> =
        cycle.iter().take(CIRCLE_SHOWN_MAX).map(|index| format!("`{}`", shown(&entries[*index].script))).collect();
    if let Some(more) = cycle.len().checked_sub(CIRCLE_SHOWN_MAX).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    let at = cycle.first().and_then(|first| uses[*first].first().copied()).unwrap_or(At(0));
    Err(Problem::new(at, format!("the scripts depend on one another in a circle: {}", names.join(" → "))))
}

fn unknown_prerequisite(entry: &ScriptEntry, script: &str, entries: &[ScriptEntry]) -> String {
    let others = || entries.iter().filter(|other| other.script != entry.script);
    let (of, unknown) = (shown(&entry.script), shown(script));
    if let Some(meant) = others().find(|other| other.display_name() == script) {
        let meant = shown(&meant.script);
        return format!(
            "`{of}` depends on `{unknown}`, which is no script, it is the name of `{meant}`; name the script"
        );
    }
    let near = nearest(script, others().map(|other| other.script.as_str()));
    let help = near.map_or(String::new(), |near| format!(", did you mean `{}`?", shown(near)));
    format!("`{of}` depends on `{unknown}`, which is no script of this set-up{help}")
}

/// For each entry the indices of the entries it needs, without doubles.
fn needs(entries: &[ScriptEntry]) -> Vec<BTreeSet<usize>> {
    let index: BTreeMap<&str, usize> =
        entries.iter().enumerate().map(|(at, entry)| (entry.script.as_str(), at)).collect();
    let of = |entry: &ScriptEntry| {
        entry.depends_on.iter().filter_map(|script| index.get(script.as_str()).copied()).collect()
    };
    entries.iter().map(of).collect()
}

/// Kahn's algorithm, always taking the first entry that is ready; also returns those that never are, in order.
fn sorted(needs: &[BTreeSet<usize>]) -> (Vec<usize>, Vec<usize>) {
    let mut open: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let mut needed_by = vec![Vec::new(); needs.len()];
    for (entry, needs) in needs.iter().enumerate() {
        for need in needs {
            needed_by[*need].push(entry);
        }
    }
    let mut ready: BTreeSet<usize> = (0..needs.len()).filter(|entry| open[*entry] == 0).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(entry) = ready.pop_first() {
        order.push(entry);
        for next in &needed_by[entry] {
            open[*next] -= 1;
            if open[*next] == 0 {
                ready.insert(*next);
            }
        }
    }
    let stuck = (0..needs.len()).filter(|entry| open[*entry] > 0).collect();
    (order, stuck)
}

/// Walks from one stuck entry to a need that is stuck too, until one comes again; it ends with the entry it began with.
fn cycle(needs: &[BTreeSet<usize>], stuck: &[usize]) -> Option<Vec<usize>> {
    let stuck: BTreeSet<usize> = stuck.iter().copied().collect();
    let mut walk = vec![*stuck.first()?];
    let mut seen: BTreeMap<usize, usize> = BTreeMap::from([(walk[0], 0)]);
    loop {
        let next = *needs[*walk.last()?].iter().find(|need| stuck.contains(need))?;
        walk.push(next);
        if let Some(start) = seen.insert(next, walk.len() - 1) {
            return Some(walk.split_off(start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn parse(text: &str) -> Result<TestSetup, ParseError> {
        parse_setup("warmup", Path::new("suites/warmup"), Path::new("test.properties.json"), text.as_bytes())
    }

    fn scripts(entries: &str) -> Result<TestSetup, ParseError> {
        parse(&format!("{{\"schemaVersion\": 1, \"testSuites\": [\n{entries}\n]}}"))
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"{
  "schemaVersion": 1, "gradingMode": "worker", "requiredFiles": ["warmup.py"],
  "testSuites": [
    {"script": "./a.sh", "tier": "public", "name": "Adds two numbers", "points": 3, "hint": "try 0"},
    {"script": "sub//b.sh", "tier": "secret", "dependsOn": ["a.sh"], "name": null, "unknown": {"x": [1]}}
  ],
  "timeLimitSeconds": 5, "makefile": {"target": "all"}, "sections": [], "globalVariables": {"a": 1}
}"#;
        let setup = parse(&format!("\u{feff}{text}")).unwrap();
        let a = ScriptEntry {
            script: "a.sh".to_owned(),
            tier: Tier::Public,
            name: Some("Adds two numbers".to_owned()),
            depends_on: Vec::new(),
            points: 3,
            hint: Some("try 0".to_owned()),
        };
        let b = ScriptEntry {
            script: "sub/b.sh".to_owned(),
            tier: Tier::Secret,
            name: None,
            depends_on: vec!["a.sh".to_owned()],
            points: 1,
            hint: None,
        };
        assert_eq!(setup.entries, [a, b]);
        assert_eq!(
            (setup.time_limit, setup.make),
            (Duration::from_secs(5), Some(MakeStep { target: Some("all".to_owned()) }))
        );
        assert_eq!((setup.name.as_str(), setup.dir.as_path()), ("warmup", Path::new("suites/warmup")));
    }

    #[test]
    fn absent_and_null_keys_have_defaults() {
        for text in [
            "{\"schemaVersion\": 2}",
            "{\"schemaVersion\":1,\"testSuites\":null,\"makefile\":null,\"timeLimitSeconds\":null}",
        ] {
            let setup = parse(text).unwrap();
            assert_eq!((setup.entries.len(), setup.time_limit, setup.make), (0, Duration::from_secs(10), None));
        }
        assert_eq!(parse("{\"schemaVersion\": 1, \"makefile\": {}}").unwrap().make, Some(MakeStep { target: None }));
        assert_eq!(scripts("{\"script\": \"a\"}").unwrap().entries[0].tier, Tier::Public);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("", "1:1: not valid JSON: the file is empty"),
            ("[]", "1:1: the file must hold a map of keys, found a list"),
            ("{\"a\": 1}", "1:2: the key `schemaVersion` is missing"),
            ("{\"schemaVersion\": \"1\"}", "1:19: `schemaVersion` must be a whole number, found the text `1`"),
            (
                "{\"schemaVersion\": 1,\n \"timeLimitSeconds\": 0}",
                "2:22: `timeLimitSeconds` cannot be 0, it must be more than zero",
            ),
            (
                "{\"schemaVersion\": 1, \"timeLimitSeconds\": -5}",
                "1:42: `timeLimitSeconds` cannot be -5, it must be more than zero",
            ),
            ("{\"schemaVersion\": 1, \"timeLimitSeconds\": 1.5}", "1:42: `timeLimitSeconds` must be a whole number"),
            (
                "{\"schemaVersion\": 1, \"timeLimitSeconds\": 1000000000}",
                "1:42: `timeLimitSeconds` cannot be 1000000000, the limit is 10000000 s",
            ),
            (
                "{\"schemaVersion\": 1, \"timeLimitSeconds\": 99999999999999999999}",
                "1:42: `timeLimitSeconds` must be a whole number",
            ),
            ("{\"schemaVersion\": 1, \"makefile\": \"all\"}", "1:34: `makefile` must be a map, found the text `all`"),
            (
                "{\"schemaVersion\": 1, \"makefile\": {\"target\": \"-k\"}}",
                "1:45: `target` cannot be `-k`, make would read it as an option",
            ),
            (
                "{\"schemaVersion\": 1, \"schemaVersion\": 2}",
                "1:22: duplicate key `schemaVersion`, the first is at line 1, column 2",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("test.properties.json:{expected}")), "{text:?}: {error}");
        }
        for (entries, expected) in [
            ("{}", "2:1: the key `script` is missing"),
            ("7", "2:1: `testSuites[0]` must be a map, found the number `7`"),
            ("{\"script\": \"a\"},\n\"b.sh\"", "3:1: `testSuites[1]` must be a map, found the text `b.sh`"),
            ("{\"script\": \"/etc/x.sh\"}", "2:12: `script` cannot be `/etc/x.sh`, it must stay inside the set-up"),
            (
                "{\"script\": \"a/../../x.sh\"}",
                "2:12: `script` cannot be `a/../../x.sh`, it must stay inside the set-up",
            ),
            ("{\"script\": \"\"}", "2:12: `script` is empty"),
            ("{\"script\": \"./\"}", "2:12: `script` cannot be `./`, it must be the path of a script"),
            ("{\"script\": 5}", "2:12: `script` must be the path of a script"),
            ("{\"script\": \"a\", \"tier\": \"Public\"}", "2:25: `tier` cannot be `Public`, did you mean `public`?"),
            ("{\"script\": \"a\", \"points\": -1}", "2:27: `points` cannot be -1, it must be 0 to"),
            (
                "{\"script\": \"a\"},\n{\"script\": \"./a\"}",
                "3:12: duplicate script `a`, the first is at line 2, column 12",
            ),
            (
                "{\"script\": \"a.sh\"},\n{\"script\": \"b\", \"dependsOn\": [\"a.hs\"]}",
                "3:31: `b` depends on `a.hs`, which is no script of this set-up, did you mean `a.sh`?",
            ),
            (
                "{\"script\": \"a\", \"dependsOn\": [\"a\"]}",
                "2:31: the scripts depend on one another in a circle: `a` → `a`",
            ),
            (
                "{\"script\": \"x\", \"dependsOn\": [\"a\"]}, {\"script\": \"a\", \"dependsOn\": [\"b\"]},\n{\"script\": \"b\", \"dependsOn\": [\"c\"]}, {\"script\": \"c\", \"dependsOn\": [\"a\"]}",
                "2:68: the scripts depend on one another in a circle: `a` → `b` → `c` → `a`",
            ),
        ] {
            let error = scripts(entries).unwrap_err().to_string();
            assert!(error.starts_with(&format!("test.properties.json:{expected}")), "{entries:?}: {error}");
        }
    }

    #[test]
    fn a_prerequisite_that_is_no_script_is_told_with_what_was_meant() {
        for (entries, expected) in [
            (
                "{\"script\": \"a.sh\", \"name\": \"Adds two\"},\n{\"script\": \"b\", \"dependsOn\": [\"Adds two\"]}",
                "3:31: `b` depends on `Adds two`, which is no script, it is the name of `a.sh`; name the script",
            ),
            (
                "{\"script\": \"a.sh\"},\n{\"script\": \"b\", \"dependsOn\": [\"a\"]}",
                "3:31: `b` depends on `a`, which is no script, it is the name of `a.sh`; name the script",
            ),
            (
                "{\"script\": \"b.sh\", \"dependsOn\": [\"a.sh\"]}",
                "2:34: `b.sh` depends on `a.sh`, which is no script of this set-up",
            ),
        ] {
            let error = scripts(entries).unwrap_err().to_string();
            assert_eq!(error, format!("test.properties.json:{expected}"));
        }
        let error = scripts("{\"script\": \"b.sh\", \"dependsOn\": [\"b\"]}").unwrap_err().to_string();
        assert!(
            error.ends_with("which is no script of this set-up"),
            "a script is never told to depend on itself: {error}"
        );
    }

    #[test]
    fn keys_that_nothing_reads_are_told_with_what_was_meant() {
        let text = r#"{"schemaVersion": 1, "timeLimitSecond": 3, "sections": [{"pionts": 1}], "colour": "red",
 "makefile": {"targte": "all", "x": 1},
 "testSuites": [{"script": "a", "pionts": 5, "points": 2},
  {"script": "b", "pionts\u001b": 5, "dependson": [], "timeLimitSeconds": 3, "weight": 1}]}"#;
        let found = strangers(Path::new("m.json"), text.as_bytes());
        let told: Vec<_> = found.misspelt.iter().map(|misspelt| misspelt.told.to_string()).collect();
        let expected = [
            "m.json:1:22: unknown key `timeLimitSecond` is ignored, did you mean `timeLimitSeconds`?",
            "m.json:2:15: unknown key `targte` is ignored, did you mean `target`?",
            "m.json:4:19: unknown key `pionts\\u{1b}` is ignored, did you mean `points`?",
            "m.json:4:38: unknown key `dependson` is ignored, did you mean `dependsOn`?",
            "m.json:4:55: unknown key `timeLimitSeconds` is ignored, its place is beside `testSuites`, not in `testSuites[1]`",
        ];
        assert_eq!(told, expected);
        assert_eq!(found.others, ["colour", "makefile.x", "testSuites[0].pionts", "testSuites[1].weight"]);
        for text in ["", "[]", "{\"schemaVersion\": 1, \"testItems\": []}"] {
            assert_eq!(strangers(Path::new("m.json"), text.as_bytes()), Strangers::default(), "{text}");
        }
    }

    #[test]
    fn of_very_many_misspelt_keys_some_are_told() {
        let keys: Vec<_> = (0..50_000).map(|number| format!("\"points{number}\": 1")).collect();
        let text = format!("{{\"testSuites\": [{{{}}}]}}", keys.join(","));
        let found = strangers(Path::new("m.json"), text.as_bytes());
        assert_eq!((found.misspelt.len(), found.others.len()), (MISSPELT_MAX, 50_000 - MISSPELT_MAX));
    }

    #[test]
    fn names_of_scripts_are_escaped_and_cut_in_errors() {
        let long = "x".repeat(10_000);
        for (entries, expected) in [
            (r#"{"script": "a\u001b[2J", "dependsOn": ["b"]}"#.to_owned(), r"`a\u{1b}[2J` depends on `b`"),
            (
                r#"{"script": "abc\n.sh"}, {"script": "d", "dependsOn": ["abc.sh"]}"#.to_owned(),
                r"did you mean `abc\n.sh`?",
            ),
            (r#"{"script": "a\u0007", "dependsOn": ["a\u0007"]}"#.to_owned(), r"in a circle: `a\u{7}` → `a\u{7}`"),
            (format!(r#"{{"script": "{long}", "dependsOn": ["b"]}}"#), "xxx…` depends on `b`"),
            (format!(r#"{{"script": "{long}", "dependsOn": ["{long}"]}}"#), "xxx…` → `xxx"),
        ] {
            let error = scripts(&entries).unwrap_err().to_string();
            assert!(error.contains(expected) && error.len() < 1000, "{expected}: {error}");
        }
    }

    #[test]
    fn a_long_circle_is_told_in_short() {
        let entry = |n: usize| format!("{{\"script\": \"s{n}\", \"dependsOn\": [\"s{}\"]}}", (n + 1) % 5000);
        let entries: Vec<String> = (0..5000).map(entry).collect();
        let error = scripts(&entries.join(",")).unwrap_err().to_string();
        assert!(error.ends_with("`s3` → `s4` → 4996 more"), "{error}");
    }

    #[test]
    fn scripts_run_after_what_they_depend_on_else_in_order() {
        let setup = scripts(
            "{\"script\": \"a\", \"dependsOn\": [\"d\", \"d\"]}, {\"script\": \"b\"}, {\"script\": \"c\", \"dependsOn\": [\"a\", \"b\"]}, {\"script\": \"d\"}",
        );
        assert_eq!(run_order(&setup.unwrap()), [1, 3, 0, 2]);
        let plain = default_setup("s", Path::new("s"), ["b.sh", "a.sh", "C.sh"].map(str::to_owned).into());
        assert_eq!(
            plain.entries.iter().map(|entry| entry.script.as_str()).collect::<Vec<_>>(),
            ["C.sh", "a.sh", "b.sh"]
        );
        assert_eq!(run_order(&plain), [0, 1, 2]);
    }

    #[test]
    fn a_long_chain_of_prerequisites_is_sorted_without_deep_recursion() {
        let entry = |n: usize| format!("{{\"script\": \"s{n}\", \"dependsOn\": [\"s{}\"]}}", n + 1);
        let entries: Vec<String> = (0..5000).map(entry).collect();
        let setup = scripts(&format!("{}, {{\"script\": \"s5000\"}}", entries.join(","))).unwrap();
        assert_eq!(run_order(&setup), (0..=5000).rev().collect::<Vec<_>>());
    }
}

//! `task.yaml` -> Suite.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::form::{Form, Key, Keys, List, Measure, Required, Scalar, TEXT, Words, names, object};
use super::node::{At, Document, Field, Node, ParseError, Problem, UnknownKeys, Value, shown};
use super::{node, quantity, yaml};
use crate::model::suite::{Block, DistroGate, Expect, Presence, PresenceClaim, PresenceOrigin, Suite, SuiteName};
use crate::rules::presence;

/// Every key of a `task.yaml`.
pub(crate) const KEYS: Keys = &[
    &SUMMARY,
    &DETAILS,
    &EXECUTE,
    &PREPARE,
    &RESTORE,
    &DEBUG,
    &ENVIRONMENT,
    &DISTRO_CHECK,
    &EXPECT,
    &KILL_TIMEOUT,
    &PRESENCE,
    &SNAPSHOT,
];

const SUMMARY: Required<Scalar<String>> = Required(Key {
    name: "summary",
    about: "One line for reports and failures.",
    default: None,
    form: Scalar { read: one_line, pattern: Some(r"^\s*\S([^\n\r]*\S)?\s*$"), minimum: None },
});

const DETAILS: Key<Scalar<String>> =
    Key { name: "details", about: "More text, for people.", default: None, form: TEXT };

const EXECUTE: Required<Scalar<Written>> = Required(Key {
    name: "execute",
    about: "The bash block under test.",
    default: None,
    form: Scalar { read: |field| field.some_text().and(written(field)), pattern: Some(r"\S"), minimum: None },
});

const PREPARE: Key<Scalar<Written>> = Key {
    name: "prepare",
    about: "Bash block that runs before `execute`; if it fails, `execute` does not run and the suite fails.",
    default: None,
    form: BLOCK,
};

const RESTORE: Key<Scalar<Written>> = Key {
    name: "restore",
    about: "Bash block that runs always: after a failure, a timeout, a signal. If it fails, so does the suite.",
    default: None,
    form: BLOCK,
};

const DEBUG: Key<Scalar<Written>> = Key {
    name: "debug",
    about: "Bash block that runs after a failure, before `restore`; how it ends does not matter.",
    default: None,
    form: BLOCK,
};

const ENVIRONMENT: Key<Variables> = Key {
    name: "environment",
    about: "Variables for every block, order kept. Values are text: `0755`, `1.10` and `no` stay as written.",
    default: None,
    form: Variables,
};

const DISTRO_CHECK: Key<Distros> = Key {
    name: "distro-check",
    about: "os-release IDs (a list, or one) on which the suite may run. Elsewhere it fails, and nothing of it is run.",
    default: None,
    form: Distros,
};

const EXPECT: Key<Words<Expect>> = Key {
    name: "expect",
    about: "`fail` or `xfail`: the suite passes only if `execute` itself exits with a code other than 0.",
    default: Some("pass"),
    form: Words(EXPECTS),
};

const KILL_TIMEOUT: Key<Measure<Duration>> = Key {
    name: "kill-timeout",
    about: "Limit of each block of this suite: `90s`, `15m`, `1.5h`, `500ms`.",
    default: None,
    form: DURATION,
};

const PRESENCE: Key<Words<PresenceClaim>> = Key {
    name: "presence",
    about: "What the applets of runner.yaml must look like after `execute`. Absent: inferred from the words `enable` and \
            `disable` in `execute`.",
    default: None,
    form: Words(CLAIMS),
};

const SNAPSHOT: Key<List<Scalar<String>>> = Key {
    name: "snapshot",
    about: "More paths for this suite's snapshots: files, folders, patterns. `{scratch}` is the suite's scratch folder, \
            `{applet}` each applet.",
    default: None,
    form: PATHS,
};

/// Reads a suite from the text of its `task.yaml`.
///
/// # Errors
/// The first thing that is wrong with it, with its file, line and column.
pub(crate) fn parse_suite(name: SuiteName, file: &Path, text: &[u8]) -> Result<Suite, ParseError> {
    let document = yaml::read(file, text)?;
    suite(name, &document).map_err(|problem| document.error(problem))
}

fn suite(name: SuiteName, document: &Document<'_>) -> Result<Suite, Problem> {
    let fields = &document.root.fields(&names(KEYS), UnknownKeys::Refuse)?;
    let block = |Written { text, key }| Block { text, line: document.line(key) };
    let summary = SUMMARY.read(fields)?;
    let execute = block(EXECUTE.read(fields)?);
    let presence = match PRESENCE.read(fields)? {
        Some(claim) => Presence { claim, origin: PresenceOrigin::Declared },
        None => Presence { claim: presence::infer(&execute.text), origin: PresenceOrigin::Inferred },
    };
    Ok(Suite {
        name,
        file: document.file.to_owned(),
        summary,
        details: DETAILS.read(fields)?,
        prepare: PREPARE.read(fields)?.map(block),
        execute,
        restore: RESTORE.read(fields)?.map(block),
        debug: DEBUG.read(fields)?.map(block),
        environment: ENVIRONMENT.read(fields)?.unwrap_or_default(),
        distro_check: DISTRO_CHECK.read(fields)?,
        expect: EXPECT.read(fields)?.unwrap_or(Expect::Pass),
        kill_timeout: KILL_TIMEOUT.read(fields)?,
        presence,
        snapshot: SNAPSHOT.read(fields)?.unwrap_or_default(),
    })
}

const EXPECTS: &[(&str, Expect)] = &[("pass", Expect::Pass), ("fail", Expect::Fail), ("xfail", Expect::Xfail)];

const CLAIMS: &[(&str, PresenceClaim)] =
    &[("linked", PresenceClaim::Linked), ("unlinked", PresenceClaim::Unlinked), ("none", PresenceClaim::None)];

/// The text of a block, and the key that it stands at.
struct Written {
    text: String,
    key: At,
}

fn written(field: Field<'_>) -> Result<Written, Problem> {
    Ok(Written { text: field.text()?.to_owned(), key: field.key })
}

const BLOCK: Scalar<Written> = Scalar { read: written, pattern: None, minimum: None };

fn one_line(field: Field<'_>) -> Result<String, Problem> {
    let text = field.some_text()?.trim();
    if text.contains(['\n', '\r']) {
        return Err(field.wrong("must be one line; put the rest in `details`"));
    }
    Ok(text.to_owned())
}

/// Variables, each a name and its value.
struct Variables;

impl Form for Variables {
    type Value = Vec<(String, String)>;

    fn read(&self, field: Field<'_>) -> Result<Self::Value, Problem> {
        field.map()?.iter().map(variable).collect()
    }

    fn schema(&self) -> Map<String, Json> {
        let names = json!({"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"});
        object(json!({"type": "object", "propertyNames": names, "additionalProperties": TEXT.schema()}))
    }
}

fn variable((key, node): &(node::Key, Node)) -> Result<(String, String), Problem> {
    let name = key.text.as_str();
    if !is_variable(name) {
        let message = format!("`{}` cannot be the name of a variable: letters, digits and `_`", shown(name));
        return Err(Problem::new(key.at, message));
    }
    let value = Field { name, key: key.at, node };
    if matches!(node.value, Value::Null) {
        return Err(value.wrong("in `environment` has no value; write `\"\"` for an empty one"));
    }
    Ok((name.to_owned(), value.text()?.to_owned()))
}

/// A name as POSIX allows it (Base Definitions, 8.1), the only ones that a shell can export.
fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// os-release IDs: a list, or one name.
pub(super) struct Distros;

impl Form for Distros {
    type Value = DistroGate;

    fn read(&self, field: Field<'_>) -> Result<DistroGate, Problem> {
        if !matches!(field.node.value, Value::List(_)) {
            return Ok(DistroGate(vec![DISTRO.read(field)?]));
        }
        let names = List(DISTRO).read(field)?;
        if names.is_empty() {
            return Err(field.wrong("names no distribution; remove the key to allow every one"));
        }
        Ok(DistroGate(names))
    }

    fn schema(&self) -> Map<String, Json> {
        let mut schema = DISTRO.schema();
        // Each keyword is about values of its own type.
        schema.extend(object(json!({"items": DISTRO.schema(), "minItems": 1})));
        schema.insert("type".to_owned(), json!(["string", "number", "boolean", "array"]));
        schema
    }
}

const DISTRO: Scalar<String> = Scalar { read: distro, pattern: Some(r"^[^\s\x85]+$"), minimum: None };

fn distro(field: Field<'_>) -> Result<String, Problem> {
    let name = field.some_text()?;
    if name.chars().any(char::is_whitespace) {
        return Err(field.wrong(format!("holds `{}`, which is not one os-release ID; write a list", shown(name))));
    }
    Ok(name.to_owned())
}

/// A limit of time.
pub(super) const DURATION: Measure<Duration> = Measure { quantity: &quantity::DURATION, read: quantity::duration };

/// What may stand in a path: an applet of the presence rules, the folder of the suite that is ours alone.
const PLACEHOLDERS: [&str; 2] = ["{applet}", "{scratch}"];

/// Paths or patterns in which placeholders may stand.
pub(super) const PATHS: List<Scalar<String>> = List(PATH);

/// One path or pattern in which placeholders may stand.
pub(super) const PATH: Scalar<String> = Scalar {
    read: path,
    pattern: Some(r"^\s*([^\s{]|\{applet\}|\{scratch\})([^{]|\{applet\}|\{scratch\})*$"),
    minimum: None,
};

fn path(field: Field<'_>) -> Result<String, Problem> {
    let path = field.some_text()?;
    let mut rest = path;
    while let Some(open) = rest.find('{') {
        let Some(after) = PLACEHOLDERS.iter().find_map(|known| rest[open..].strip_prefix(known)) else {
            let end = rest[open..].find('}').map_or(rest.len(), |at| open + at + 1);
            let message = format!(
                "holds the unknown placeholder `{}`, known are `{{applet}}` and `{{scratch}}`",
                shown(&rest[open..end])
            );
            return Err(field.wrong(message));
        };
        rest = after;
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn parse(text: impl AsRef<[u8]>) -> Result<Suite, ParseError> {
        parse_suite(SuiteName::new("s").unwrap(), Path::new("s/task.yaml"), text.as_ref())
    }

    #[test]
    fn every_key_is_read() {
        let text = "\
# a comment with execute: in it
summary: Enables everything
details: |
  restore: is not a key here
execute: |
  oxidizr-arch enable # all

  summary: neither
prepare: 'true'
\"restore\": oxidizr-arch disable
debug: ls
environment:
  B: 1
  A: 0755
  C: 1_000
  D: yes
  E: ''
  F: 1.10
distro-check: [arch, \"manjaro\"]
expect: xfail
kill-timeout: 1.5h
presence: unlinked
snapshot: [/etc/*.conf, 'bin/{applet}']
";
        let block = |text: &str, line| Block { text: text.to_owned(), line };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = Suite {
            name: SuiteName::new("s").unwrap(),
            file: "s/task.yaml".into(),
            summary: "Enables everything".to_owned(),
            details: Some("restore: is not a key here\n".to_owned()),
            prepare: Some(block("true", 9)),
            execute: block("oxidizr-arch enable # all\n\nsummary: neither\n", 5),
            restore: Some(block("oxidizr-arch disable", 10)),
            debug: Some(block("ls", 11)),
            environment: vec![
                pair("B", "1"),
                pair("A", "0755"),
                pair("C", "1_000"),
                pair("D", "yes"),
                pair("E", ""),
                pair("F", "1.10"),
            ],
            distro_check: Some(DistroGate(vec!["arch".to_owned(), "manjaro".to_owned()])),
            expect: Expect::Xfail,
            kill_timeout: Some(Duration::from_secs(5400)),
            presence: Presence { claim: PresenceClaim::Unlinked, origin: PresenceOrigin::Declared },
            snapshot: vec!["/etc/*.conf".to_owned(), "bin/{applet}".to_owned()],
        };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn a_suite_needs_a_summary_and_a_block() {
        let suite = parse("summary: a\nexecute: oxidizr-arch enable\n").unwrap();
        assert_eq!(suite.presence, Presence { claim: PresenceClaim::Linked, origin: PresenceOrigin::Inferred });
        assert_eq!((suite.expect, suite.kill_timeout, suite.distro_check), (Expect::Pass, None, None));
        assert_eq!(
            parse("{summary: a, execute: 'true', distro-check: arch}").unwrap().distro_check.unwrap().0,
            ["arch"]
        );
        assert_eq!(parse("summary: a\nexecute: true\n").unwrap().execute.text, "true");
    }

    #[test]
    fn an_alias_stands_for_what_it_names() {
        let suite = parse("summary: a\nexecute: &block |\n  true\nrestore: *block\n").unwrap();
        assert_eq!(suite.restore, Some(Block { text: "true\n".to_owned(), line: 4 }));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        const BASE: &str = "summary: a\nexecute: b\n";
        for (text, expected) in [
            ("", "1:1: the file is empty"),
            ("# nothing\n", "2:1: the file is empty"),
            ("- a\n", "1:1: the file must hold a map of keys, found a list"),
            ("text\n", "1:1: the file must hold a map of keys, found the text `text`"),
            ("# x\nsummary: a\n", "2:1: the key `execute` is missing"),
            ("\n{execute: a}\n", "2:2: the key `summary` is missing"),
            ("{}", "1:1: the key `summary` is missing"),
            ("summary: a\nexecute:\n", "2:9: `execute` has no value; give it text, or remove the key"),
            ("summary: a\nexecute: ''\n", "2:10: `execute` is empty"),
            ("summary: a\nexecute: |\n\n  \n", "2:10: `execute` is empty"),
            ("summary: a\nexecute: [a]\n", "2:10: `execute` must be text, found a list"),
            ("summary: a\nexecute: {a: b}\n", "2:10: `execute` must be text, found a map"),
            ("summary: '  '\nexecute: b\n", "1:10: `summary` is empty"),
            ("execute: b\nsummary: |\n  a\n  b\n", "2:10: `summary` must be one line; put the rest in `details`"),
        ] {
            let expected = format!("s/task.yaml:{expected}");
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
        for (text, expected) in [
            ("restroe: a\n", "3:1: unknown key `restroe`, did you mean `restore`?"),
            ("'Execute': a\n", "3:1: unknown key `Execute`, did you mean `execute`?"),
            ("timeout: 3s\n", "3:1: unknown key `timeout`, did you mean `kill-timeout`?"),
            ("execute: c\n", "3:1: duplicate key `execute`, the first is at line 2, column 1"),
            ("\"summary\": c\n", "3:1: duplicate key `summary`, the first is at line 1, column 1"),
            ("environment: {A: b, 'A': c}\n", "3:21: duplicate key `A`, the first is at line 3, column 15"),
            ("environment: []\n", "3:14: `environment` must be a map, found a list"),
            ("environment: a\n", "3:14: `environment` must be a map, found the text `a`"),
            ("environment:\n  A:\n", "4:5: `A` in `environment` has no value; write `\"\"` for an empty one"),
            ("environment:\n  A: ~\n", "4:6: `A` in `environment` has no value; write `\"\"` for an empty one"),
            ("environment:\n  A: [b]\n", "4:6: `A` must be text, found a list"),
            ("environment: {A-B: c}\n", "3:15: `A-B` cannot be the name of a variable: letters, digits and `_`"),
            ("environment: {1: c}\n", "3:15: `1` cannot be the name of a variable: letters, digits and `_`"),
            ("environment: {'': c}\n", "3:15: `` cannot be the name of a variable: letters, digits and `_`"),
            ("expect: pas\n", "3:9: `expect` cannot be `pas`, did you mean `pass`?"),
            ("expect: maybe\n", "3:9: `expect` cannot be `maybe`, known are `pass`, `fail`, `xfail`"),
            ("expect: no\n", "3:9: `expect` cannot be `no`, known are `pass`, `fail`, `xfail`"),
            ("expect: [pass]\n", "3:9: `expect` must be text, found a list"),
            ("presence: link\n", "3:11: `presence` cannot be `link`, did you mean `linked`?"),
            ("kill-timeout: 0\n", "3:15: `kill-timeout` cannot be `0`, it must be more than zero"),
            ("kill-timeout: 1000000000\n", "3:15: `kill-timeout` cannot be `1000000000`, the limit is 10000000 s"),
            ("kill-timeout: [1s]\n", "3:15: `kill-timeout` must be text, found a list"),
            ("distro-check: []\n", "3:15: `distro-check` names no distribution; remove the key to allow every one"),
            ("distro-check: [arch, '']\n", "3:22: `distro-check` is empty"),
            ("distro-check: {a: b}\n", "3:15: `distro-check` must be text, found a map"),
            (
                "distro-check: arch manjaro\n",
                "3:15: `distro-check` holds `arch manjaro`, which is not one os-release ID; write a list",
            ),
            ("snapshot: /etc\n", "3:11: `snapshot` must be a list, found the text `/etc`"),
            (
                "snapshot:\n- /a\n- /b/{aplet}\n",
                "5:3: `snapshot` holds the unknown placeholder `{aplet}`, known are `{applet}` and `{scratch}`",
            ),
            (
                "snapshot: ['/b/{']\n",
                "3:12: `snapshot` holds the unknown placeholder `{`, known are `{applet}` and `{scratch}`",
            ),
            ("restore:\n", "3:9: `restore` has no value; give it text, or remove the key"),
            ("<<: {expect: fail}\n", "3:1: unknown key `<<`, known are `summary`, `details`"),
        ] {
            let error = parse(format!("{BASE}{text}")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("s/task.yaml:{expected}")), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_shown_of_a_value_is_short_and_harmless() {
        let error = parse(format!("summary: a\nexecute: b\nexpect: \"\\e[31m{}\"\n", "x".repeat(1000))).unwrap_err();
        assert!(error.message.len() < 200 && !error.message.contains('\u{1b}'), "{error}");
    }
}

//! `runner.jsonl`: the envelope of every line.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{Files, Problem, required};

/// The log of a run.
pub(crate) const JOURNAL: &str = "logs/runner.jsonl";

/// The keys that every line begins with, in this order; others may follow.
const KEYS: [&str; 12] = [
    "ts",
    "component",
    "run_id",
    "container_id",
    "distro",
    "level",
    "stage",
    "suite",
    "event",
    "cmd",
    "rc",
    "duration_ms",
];

/// Returns what is wrong with the lines of the log. Each must be of one of the runs `run_ids`, of which the first is the folder's own;
/// none: it is not known.
pub(super) fn problems(files: &Files, run_ids: &[String]) -> Vec<Problem> {
    let text = match required(files, JOURNAL) {
        Ok(text) => text,
        Err(problem) => return vec![problem],
    };
    let problem = |(line, why)| Problem::Text { file: JOURNAL.into(), line, why };
    if text.is_empty() {
        return vec![problem((1, "the log has no line".to_owned()))];
    }
    let lines = text.split_inclusive(|byte| *byte == b'\n').zip(1..);
    lines.filter_map(|(line, number)| wrong(line, run_ids).map(|why| problem((number, why)))).collect()
}

fn wrong(line: &[u8], run_ids: &[String]) -> Option<String> {
    let Some(line) = line.strip_suffix(b"\n") else { return Some("it is cut off: it has no line end".to_owned()) };
    let envelope: Envelope<'_> = match serde_json::from_slice(line) {
        Ok(envelope) => envelope,
        Err(error) => return Some(format!("it is no event: {error}")),
    };
    if let Some(key) = envelope.missing {
        return Some(format!("the key `{key}` is missing, or not where it must be"));
    }
    let Some(found) = envelope.run_id else { return Some("its `run_id` is null".to_owned()) };
    let own = run_ids.first().filter(|_| !run_ids.iter().any(|run_id| *run_id == found))?;
    Some(format!("it is of the run `{found}`, not `{own}`"))
}

struct Envelope<'a> {
    /// The first key that is not where it must be.
    missing: Option<&'static str>,
    run_id: Option<Cow<'a, str>>,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut expected = KEYS.iter();
        let mut envelope = Envelope { missing: None, run_id: None };
        while let Some(Text(key)) = map.next_key()? {
            let wanted = expected.next().copied();
            if wanted.is_some_and(|wanted| key != wanted) || wanted.is_none() && KEYS.contains(&&*key) {
                envelope.missing = envelope.missing.or(wanted).or(KEYS.last().copied());
            }
            if key == "run_id" {
                envelope.run_id = map.next_value::<Option<Text<'de>>>()?.map(|Text(run_id)| run_id);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        envelope.missing = envelope.missing.or(expected.next().copied());
        Ok(envelope)
    }
}

/// Serde copies a `Cow` unless it is told to borrow.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"ts":"t","component":"c","run_id":"r","container_id":null,"distro":"d","level":"info","stage":"s","suite":null,"event":"e","cmd":null,"rc":null,"duration_ms":1,"message":"m"}"#;

    fn of(line: &str) -> Option<String> {
        wrong(format!("{line}\n").as_bytes(), &["r".to_owned(), "shard".to_owned()])
    }

    #[test]
    fn a_line_as_it_must_be_is_fine() {
        assert_eq!(of(LINE), None);
        assert_eq!(of(&LINE.replace(",\"message\":\"m\"", "")), None);
        assert_eq!(of(&LINE.replace("\"r\"", "\"shard\"")), None);
        assert_eq!(wrong(format!("{LINE}\n").as_bytes(), &[]), None);
    }

    #[test]
    fn another_envelope_is_told_by_its_key() {
        let cases = [
            (LINE.replace("\"suite\":null,", ""), "`suite`"),
            (LINE.replace("\"suite\":null,\"event\":\"e\"", "\"event\":\"e\",\"suite\":null"), "`suite`"),
            (LINE.replace("\"ts\":\"t\"", "\"is\":\"t\""), "`ts`"),
            (LINE.replace(",\"duration_ms\":1", ""), "`duration_ms`"),
            (LINE.replace("\"message\":\"m\"", "\"rc\":7"), "`duration_ms`"),
            ("{}".to_owned(), "`ts`"),
        ];
        for (line, key) in cases {
            let why = of(&line).unwrap_or_else(|| panic!("not caught: {line}"));
            assert!(why.contains(key), "{why}: {line}");
        }
    }

    #[test]
    fn a_line_of_another_run_or_of_none_is_told() {
        assert_eq!(of(&LINE.replace("\"r\"", "null")).unwrap(), "its `run_id` is null");
        assert_eq!(of(&LINE.replace("\"r\"", "\"q\"")).unwrap(), "it is of the run `q`, not `r`");
    }

    #[test]
    fn what_is_no_line_of_json_is_told() {
        for line in ["", "[]", "null", "{", "{}{}", "\u{0}"] {
            assert!(of(line).unwrap().starts_with("it is no event"), "{line}");
        }
        assert!(wrong(LINE.as_bytes(), &["r".to_owned()]).unwrap().contains("cut off"));
    }
}

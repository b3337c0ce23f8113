//! JSON text to a tree.

use std::path::Path;

use serde::de::DeserializeSeed;

use super::node::{self, At, Document, Location, Node, ParseError};
use super::tree::{Kind, Pass};

/// Reads one JSON document; a byte order mark is tolerated.
pub(super) fn read<'a>(file: &'a Path, bytes: &'a [u8]) -> Result<Document<'a>, ParseError> {
    let text = node::text(file, bytes)?;
    let pass = Pass::default();
    let root = build(text, &pass).map_err(|error| match pass.problem.take() {
        Some(problem) => problem.at_place(file, |at| locate(text, at)),
        None => {
            let offset = offset(text, &error).saturating_sub(1);
            Location::of_offset(text.as_bytes(), offset)
                .error(file, format!("not valid JSON: {}", in_plain_words(text, &error)))
        }
    })?;
    Ok(Document { file, root, locate: Box::new(move |at| locate(text, at)) })
}

fn build(text: &str, pass: &Pass) -> serde_json::Result<Node> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let root = pass.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(root)
}

fn locate(text: &str, at: At) -> Location {
    let pass = Pass::until(at);
    match build(text, &pass) {
        Ok(_) => Location::START,
        Err(error) => {
            let end = offset(text, &error);
            Location::of_offset(text.as_bytes(), token_start(&text.as_bytes()[..end], pass.last.get()))
        }
    }
}

/// serde_json counts columns in bytes, up to and with the byte at which it stopped.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    (lines.map(str::len).sum::<usize>() + error.column()).min(text.len())
}

/// Returns where the token begins that `before` ends with; serde_json stops behind it and the white space after it.
fn token_start(before: &[u8], kind: Kind) -> usize {
    let last = |wanted: u8, end: usize| before[..end].iter().rposition(|byte| *byte == wanted).unwrap_or(0);
    match kind {
        Kind::List => last(b'[', before.len()),
        Kind::Map => last(b'{', before.len()),
        Kind::Plain => before
            .iter()
            .rposition(|b| !matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'E' | b'+' | b'-' | b'.'))
            .map_or(0, |at| at + 1),
        Kind::Quoted => {
            let mut quote = last(b'"', last(b'"', before.len()));
            while is_escaped(before, quote) {
                quote = last(b'"', quote);
            }
            quote
        }
    }
}

fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The library's texts are for those who know how it reads; and end with a place of their own.
fn in_plain_words(text: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let plain = match message {
        _empty if text.trim().is_empty() => "the file is empty",
        "EOF while parsing a value" => "the file ends where a value is missing",
        "EOF while parsing an object" => "the file ends within a map; a `}` is missing",
        "EOF while parsing a list" => "the file ends within a list; a `]` is missing",
        "EOF while parsing a string" => "the file ends within a text; a `\"` is missing",
        "expected ident" | "expected value" => {
            "no value begins so; text stands in `\"`, the only words outside are true, false and null"
        }
        "key must be a string" => "a key must stand in `\"`",
        "trailing comma" => "there is a comma behind the last value; remove it",
        "trailing characters" => "something follows the end of the document; remove it",
        other => other,
    };
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::node::Value;
    use super::*;

    #[test]
    fn every_value_is_found_where_it_begins() {
        let text = "{ \"ü\" : [ 1 , \"a\\\\\\\"b\" , true ,\n { \"k\\\"\" :-1.5e3 } , [ ] , {}, null ],\n\"z\":\"\" }";
        let document = read(Path::new("t.json"), text.as_bytes()).unwrap();
        let places: Vec<(usize, usize)> =
            (0..14).map(|at| (document.locate)(At(at))).map(|place| (place.line, place.column)).collect();
        let expected = [
            (1, 1),
            (1, 3),
            (1, 9),
            (1, 11),
            (1, 15),
            (1, 26),
            (2, 2),
            (2, 4),
            (2, 11),
            (2, 22),
            (2, 28),
            (2, 32),
            (3, 1),
            (3, 5),
        ];
        assert_eq!(places, expected);
        assert!(matches!(document.root.value, Value::Map(_)));
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for (text, expected) in [
            ("", "t.json:1:1: not valid JSON: the file is empty"),
            (" \n", "t.json:1:2: not valid JSON: the file is empty"),
            ("{\"a\": ", "t.json:1:6: not valid JSON: the file ends where a value is missing"),
            ("{\"a\": 1", "t.json:1:7: not valid JSON: the file ends within a map; a `}` is missing"),
            ("[1", "t.json:1:2: not valid JSON: the file ends within a list; a `]` is missing"),
            ("{\"a", "t.json:1:3: not valid JSON: the file ends within a text; a `\"` is missing"),
            ("{\"a\": nope}", "t.json:1:8: not valid JSON: no value begins so; text stands in"),
            ("{\"a\": yes}", "t.json:1:7: not valid JSON: no value begins so; text stands in"),
            ("{a: 1}", "t.json:1:2: not valid JSON: a key must stand in `\"`"),
            ("{\n  \"a\": 1,\n}", "t.json:3:1: not valid JSON: there is a comma behind the last value; remove it"),
            ("{} x", "t.json:1:4: not valid JSON: something follows the end of the document; remove it"),
            ("{\"a\": \"\tb\"}", "t.json:1:8: not valid JSON: control character"),
        ] {
            let error = read(Path::new("t.json"), text.as_bytes()).map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
        let deep = "[".repeat(100_000);
        let error = read(Path::new("t.json"), deep.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert!(error.ends_with("the document is nested more than 100 deep"), "{error}");
    }
}

//! YAML text to a tree. The only file that names `serde_yaml`.

use std::fmt;
use std::path::Path;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Deserializer, Error};

use super::node::{self, At, Document, Location, Node, ParseError, Value};
use super::tree::Pass;

/// Reads one YAML document. Scalars keep their source text, so that `0755`, `1_000` and `1.10` are not rewritten.
pub(super) fn read<'a>(file: &'a Path, bytes: &'a [u8]) -> Result<Document<'a>, ParseError> {
    let text = node::text(file, bytes)?;
    if let Some((offset, c)) = text.char_indices().find(|(_, c)| !printable(*c)) {
        let message = format!("YAML does not allow the control character U+{:04X}", u32::from(c));
        return Err(Location::of_offset(text.as_bytes(), offset).error(file, message));
    }
    check_depth(file, text)?;
    let pass = Pass::default();
    let tree = first(text).and_then(|document| (&pass).deserialize(document));
    let locate = Box::new(move |at| locate(text, at));
    let mut root = tree.map_err(|error| refused(file, text, &pass, &error))?;
    let fill = Pass::default();
    let filled = first(text).and_then(|document| Fill { pass: &fill, node: &mut root }.deserialize(document));
    filled.map_err(|error| refused(file, text, &fill, &error))?;
    if let Some(second) = Deserializer::from_str(text).nth(1) {
        let place = match (&Pass::until(At(0))).deserialize(second) {
            Ok(_) => Location::START,
            Err(error) => place(&error),
        };
        return Err(place.error(file, "a second YAML document begins here, a file holds one"));
    }
    Ok(Document { file, root, locate })
}

/// With fewer brackets than this no file is slow to scan, however they are nested.
const BRACKETS_FREE: usize = 1000;
/// How much of a file with more brackets is looked at before the next piece is.
const STEP_BYTES: usize = 16 << 10;

/// Refuses deep nesting before the library reads the whole file: it scans all of it first, in a time that grows with the
/// square of the brackets that are open (minutes for 1 MiB of `{"}":`). No count of brackets can tell how many are open,
/// they may be quoted or part of a block text, so a file with many is read piece by piece, each time from its start.
fn check_depth(file: &Path, text: &str) -> Result<(), ParseError> {
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() <= BRACKETS_FREE {
        return Ok(());
    }
    for end in (STEP_BYTES..text.len()).step_by(STEP_BYTES) {
        let end = (end..).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
        let (piece, pass) = (&text[..end], Pass::default());
        let Err(error) = first(piece).and_then(|document| (&pass).deserialize(document)) else { continue };
        // Any other error is where the piece ends, or is met again.
        if pass.is_too_deep() {
            return Err(refused(file, piece, &pass, &error));
        }
    }
    Ok(())
}

/// c-printable of YAML 1.2, section 5.1.
fn printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{7e}' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

fn first(text: &str) -> Result<Deserializer<'_>, Error> {
    Deserializer::from_str(text).next().ok_or_else(|| de::Error::custom("no document"))
}

fn locate(text: &str, at: At) -> Location {
    match first(text).and_then(|document| (&Pass::until(at)).deserialize(document)) {
        Ok(_) => Location::START,
        Err(error) => place(&error),
    }
}

fn place(error: &Error) -> Location {
    error.location().map_or(Location::START, |at| Location { line: at.line(), column: at.column() })
}

fn refused(file: &Path, text: &str, pass: &Pass, error: &Error) -> ParseError {
    match pass.problem.take() {
        Some(problem) => problem.at_place(file, |at| locate(text, at)),
        None => place(error).error(file, format!("not valid YAML: {}", without_places(&error.to_string()))),
    }
}

/// Removes each ` at line 1 column 2` from a message: the error has its place in front.
fn without_places(message: &str) -> String {
    let mut parts = message.split(" at line ");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let rest = rest.strip_prefix(" column ").unwrap_or(rest);
        kept.push_str(rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    kept
}

/// The second pass: replaces what YAML made of each scalar by its source text.
struct Fill<'a> {
    pass: &'a Pass,
    node: &'a mut Node,
}

impl<'de> DeserializeSeed<'de> for Fill<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { pass, node } = self;
        match &mut node.value {
            Value::Null => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            Value::Text(text) | Value::Number(text) | Value::Bool(_, text) => {
                deserializer.deserialize_str(FillText { pass, at: node.at, text })
            }
            Value::List(nodes) => deserializer.deserialize_seq(FillList { pass, nodes }),
            Value::Map(entries) => deserializer.deserialize_map(FillMap { pass, entries }),
        }
    }
}

struct FillText<'a> {
    pass: &'a Pass,
    at: At,
    text: &'a mut String,
}

impl<'de> DeserializeSeed<'de> for FillText<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FillText<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        *self.text = self.pass.keep(self.at, text)?;
        Ok(())
    }
}

struct FillList<'a> {
    pass: &'a Pass,
    nodes: &'a mut [Node],
}

impl<'de> Visitor<'de> for FillList<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        for node in self.nodes {
            elements.next_element_seed(Fill { pass: self.pass, node })?;
        }
        Ok(())
    }
}

struct FillMap<'a> {
    pass: &'a Pass,
    entries: &'a mut [(node::Key, Node)],
}

impl<'de> Visitor<'de> for FillMap<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        for (key, node) in self.entries {
            entries.next_key_seed(FillText { pass: self.pass, at: key.at, text: &mut key.text })?;
            entries.next_value_seed(Fill { pass: self.pass, node })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        match read(Path::new("t.yaml"), text.as_bytes()) {
            Ok(document) => panic!("{text:?} was read as {:?}", document.root),
            Err(error) => error.to_string(),
        }
    }

    fn keys(text: &str) -> Vec<(String, usize, usize)> {
        let document = read(Path::new("t.yaml"), text.as_bytes()).unwrap();
        let Value::Map(entries) = &document.root.value else { panic!("no map") };
        let place = |key: &node::Key| (document.locate)(key.at);
        entries.iter().map(|(key, _)| (key.text.clone(), place(key).line, place(key).column)).collect()
    }

    #[test]
    fn keys_are_found_where_they_stand_whatever_surrounds_them() {
        let row = |key: &str, line, column| (key.to_owned(), line, column);
        assert_eq!(
            keys(
                "# c: 1\na: |\n  b: in a block\n\n  a: too\n\"b\": {c: [d, 'e: f'], g: 1}\n'ü ü' : x # d: 1\nh:\n- i\n"
            ),
            [row("a", 2, 1), row("b", 6, 1), row("ü ü", 7, 1), row("h", 8, 1)]
        );
        assert_eq!(keys("{ü: 1, \"b\": {c: 2},\n  ? d\n  : e}"), [row("ü", 1, 2), row("b", 1, 8), row("d", 2, 5)]);
        assert_eq!(keys("\u{feff}a: 1\r\nb: 2\r\n"), [row("a", 1, 1), row("b", 2, 1)]);
    }

    #[test]
    fn scalars_keep_their_source_text() {
        let document = read(Path::new("t"), b"[0755, 1_000, 1.10, 0x1F, yes, TRUE, 'a', \"b\\n\", .inf, -0]").unwrap();
        let Value::List(nodes) = &document.root.value else { panic!("no list") };
        let texts: Vec<&str> = nodes
            .iter()
            .map(|node| match &node.value {
                Value::Text(text) | Value::Number(text) | Value::Bool(_, text) => text.as_str(),
                other @ (Value::Null | Value::List(_) | Value::Map(_)) => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(texts, ["0755", "1_000", "1.10", "0x1F", "yes", "TRUE", "a", "b\n", ".inf", "-0"]);
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused_with_its_place() {
        for (text, place_and_text) in [
            ("a: 1\n\tb: 2\n", "t.yaml:2:1: not valid YAML: found a tab character that violates indentation"),
            ("a: [1,\nb: 2\n", "t.yaml:3:1: not valid YAML: did not find expected"),
            ("a: 1\n---\nb: 2\n", "t.yaml:3:1: a second YAML document begins here"),
            ("a: 1\n---\n", "t.yaml:3:1: a second YAML document begins here"),
            ("a: \"x\\0y\"\n", "t.yaml:1:4: the text holds a NUL character"),
            ("a: 1\nb: \u{1}\n", "t.yaml:2:4: YAML does not allow the control character U+0001"),
            ("a: *b\n", "t.yaml:1:4: not valid YAML: unknown anchor"),
            ("a: !x y\n", "t.yaml:1:4: tags such as"),
            ("a: 1\n? [b]\n: c\n", "t.yaml:2:3: a key must be text"),
            ("a: 1\n: c\n", "t.yaml:2:1: not valid YAML: did not find expected key"),
            ("a: &x [*x]\n", "t.yaml:1:4: the document is nested more than 100 deep"),
        ] {
            let error = error(text);
            assert!(error.starts_with(place_and_text), "{text:?}: {error}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_with_their_place() {
        for (bytes, expected) in [
            (b"a: \xff\n".as_slice(), "t:1:4: the byte 0xff is not UTF-8"),
            (b"\xc3\xbc: 1\nb: \xc3\xbc\0\n", "t:2:5: the file holds a NUL character"),
        ] {
            assert_eq!(read(Path::new("t"), bytes).map(|_| ()).unwrap_err().to_string(), expected);
        }
        let long = vec![b'#'; node::FILE_BYTES_MAX + 1];
        let error = read(Path::new("t"), &long).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("t:1:1: the file has 1048577 bytes, more than 1048576"), "{error}");
    }

    #[test]
    fn bombs_are_refused_in_bounded_time() {
        let mut laughs = "a0: &a0 [x, x]\n".to_owned();
        for level in 1..40 {
            laughs += &format!("a{level}: &a{level} [*a{}, *a{}]\n", level - 1, level - 1);
        }
        let texts = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a, ".repeat(50_000));
        let numbers = format!("a: &a {}\nb: [{}]\n", "1".repeat(500_000), "*a, ".repeat(50_000));
        for bomb in [laughs, texts, numbers, "- ".repeat(500_000)] {
            let error = error(&bomb);
            assert!(error.starts_with("t.yaml:"), "{error}");
        }
    }

    #[test]
    fn nesting_is_found_whatever_hides_it() {
        let block = format!("a: |\n{}b: ", "  [[ $x ]] { [\n".repeat(20_000));
        let bombs = ["[", "{a: ", "[\"]\",", "{\"}\":", "[ # ]\n"].map(|level| level.repeat(600_000 / level.len()));
        for bomb in bombs.iter().cloned().chain([format!("{block}{}", bombs[3])]) {
            let error = error(&bomb);
            assert!(error.ends_with("the document is nested more than 100 deep"), "{error}");
        }
    }

    #[test]
    fn many_brackets_in_a_block_text_are_no_nesting() {
        let text = format!("a: |\n{}b: [c]\n", "  [[ $x ]] { [ 'ü\n".repeat(5_000));
        let document = read(Path::new("t"), text.as_bytes()).unwrap();
        assert!(matches!(&document.root.value, Value::Map(entries) if entries.len() == 2));
    }
}

//! A document as a tree of values whose places can be told, whatever format it was written in.

use std::path::{Path, PathBuf};

use crate::rules::nearest::nearest;

/// Largest file that is read: a suite, a project, a manifest are written by hand.
pub(crate) const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Most values of one document, each use of an alias counted; with the limit on bytes it stops alias bombs.
pub(super) const NODES_MAX: usize = 200_000;

/// Why a file is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {message}", file.display())]
pub(crate) struct ParseError {
    /// The file.
    pub(crate) file: PathBuf,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
    /// What is wrong.
    pub(crate) message: String,
}

/// A place in a text, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Location {
    /// The place of the first character.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// Returns the place of the byte at `offset`.
    pub(super) fn of_offset(text: &[u8], offset: usize) -> Self {
        let before = &text[..offset.min(text.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Self {
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
        }
    }

    /// Returns an error at this place.
    pub(super) fn error(self, file: &Path, message: impl Into<String>) -> ParseError {
        ParseError { file: file.to_owned(), line: self.line, column: self.column, message: message.into() }
    }
}

/// Number of a node in the order of the document, keys included, from 0. A format turns it into a [`Location`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(pub(super) usize);

/// Something wrong at a node.
#[derive(Debug)]
pub(super) struct Problem {
    at: At,
    message: String,
    first: Option<At>,
}

impl Problem {
    pub(super) fn new(at: At, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), first: None }
    }

    /// A second one of something that was already at `first`.
    pub(super) fn again(at: At, message: impl Into<String>, first: At) -> Self {
        Self { at, message: message.into(), first: Some(first) }
    }

    /// Turns the problem into an error that says where.
    pub(super) fn at_place(self, file: &Path, locate: impl Fn(At) -> Location) -> ParseError {
        let mut message = self.message;
        if let Some(first) = self.first.map(&locate) {
            message = format!("{message}, the first is at line {}, column {}", first.line, first.column);
        }
        locate(self.at).error(file, message)
    }
}

/// One value.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    /// A scalar that the format reads as text.
    Text(String),
    /// A number, as it is written.
    Number(String),
    /// `true` or `false`, and how it is written.
    Bool(bool, String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of a map's entry.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) at: At,
    pub(super) text: String,
}

/// A document: its tree, and where each node of it stands.
pub(super) struct Document<'a> {
    pub(super) file: &'a Path,
    pub(super) root: Node,
    pub(super) locate: Box<dyn Fn(At) -> Location + 'a>,
}

impl Document<'_> {
    /// Returns the line of a node, from 1.
    pub(super) fn line(&self, at: At) -> usize {
        (self.locate)(at).line
    }

    /// Turns a problem into an error that says where.
    pub(super) fn error(&self, problem: Problem) -> ParseError {
        problem.at_place(self.file, &self.locate)
    }
}

/// What is done about a key that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownKeys {
    Refuse,
    Ignore,
}

/// The entries of a map whose keys are unique and, unless they are ignored, known.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Of the map's first key, or of the map if it has none.
    start: At,
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// Returns the entry of `key`, if the map has it.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'a>> {
        let (at, node) = self.entries.iter().find(|(k, _)| k.text == key)?;
        Some(Field { name: key, key: at.at, node })
    }

    /// Returns the entry of `key`.
    pub(super) fn require(&self, key: &'static str) -> Result<Field<'a>, Problem> {
        self.get(key).ok_or_else(|| Problem::new(self.start, format!("the key `{key}` is missing")))
    }
}

/// One entry of a map: its key, and readers of its value that name the key in every problem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) key: At,
    pub(super) node: &'a Node,
}

impl<'a> Field<'a> {
    /// Returns a problem of this entry's value.
    pub(super) fn wrong(self, message: impl std::fmt::Display) -> Problem {
        Problem::new(self.node.at, format!("`{}` {message}", self.name))
    }

    fn expected(self, what: &str) -> Problem {
        match &self.node.value {
            Value::Null => self.wrong(format!("has no value; give it {what}, or remove the key")),
            value @ (Value::Text(_) | Value::Number(_) | Value::Bool(..) | Value::List(_) | Value::Map(_)) => {
                self.wrong(format!("must be {what}, found {}", value.in_words()))
            }
        }
    }

    /// Returns a scalar exactly as it is written: `0755`, `1_000` and `yes` are text.
    pub(super) fn text(self) -> Result<&'a str, Problem> {
        match &self.node.value {
            Value::Text(text) | Value::Number(text) | Value::Bool(_, text) => Ok(text),
            Value::Null | Value::List(_) | Value::Map(_) => Err(self.expected("text")),
        }
    }

    /// Returns text that is more than white space.
    pub(super) fn some_text(self) -> Result<&'a str, Problem> {
        let text = self.text()?;
        if text.trim().is_empty() { Err(self.wrong("is empty")) } else { Ok(text) }
    }

    pub(super) fn boolean(self) -> Result<bool, Problem> {
        match &self.node.value {
            Value::Bool(value, _) => Ok(*value),
            Value::Null | Value::Text(_) | Value::Number(_) | Value::List(_) | Value::Map(_) => {
                Err(self.expected("`true` or `false`"))
            }
        }
    }

    /// Returns a whole number.
    pub(super) fn integer(self) -> Result<i64, Problem> {
        let what = "a whole number";
        match &self.node.value {
            Value::Number(text) => text.parse().map_err(|_| self.expected(what)),
            Value::Null | Value::Text(_) | Value::Bool(..) | Value::List(_) | Value::Map(_) => Err(self.expected(what)),
        }
    }

    /// Returns the value that a word stands for.
    pub(super) fn word<T: Copy>(self, words: &[(&'static str, T)]) -> Result<T, Problem> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let known = || words.iter().map(|(word, _)| *word);
        Err(self.wrong(format!("cannot be `{}`, {}", shown(text), suggestion(text, known()))))
    }

    /// Returns the elements of a list, each as a field of the same name.
    pub(super) fn list(self) -> Result<impl Iterator<Item = Field<'a>>, Problem> {
        match &self.node.value {
            Value::List(nodes) => Ok(nodes.iter().map(move |node| Field { node, ..self })),
            Value::Null | Value::Text(_) | Value::Number(_) | Value::Bool(..) | Value::Map(_) => {
                Err(self.expected("a list"))
            }
        }
    }

    /// Returns the entries of a map with unique keys.
    pub(super) fn map(self) -> Result<&'a [(Key, Node)], Problem> {
        match &self.node.value {
            Value::Map(entries) => unique(entries).map(|()| entries.as_slice()),
            Value::Null | Value::Text(_) | Value::Number(_) | Value::Bool(..) | Value::List(_) => {
                Err(self.expected("a map"))
            }
        }
    }

    /// Returns the entries of a map whose keys are among `known`.
    pub(super) fn fields(self, known: &[&'static str], unknown: UnknownKeys) -> Result<Fields<'a>, Problem> {
        fields(self.map()?, self.node.at, known, unknown)
    }
}

impl Node {
    /// Returns the entries of the document's map, whose keys are among `known`.
    pub(super) fn fields(&self, known: &[&'static str], unknown: UnknownKeys) -> Result<Fields<'_>, Problem> {
        match &self.value {
            Value::Map(entries) => {
                unique(entries)?;
                fields(entries, self.at, known, unknown)
            }
            Value::Null => Err(Problem::new(self.at, "the file is empty")),
            Value::Text(_) | Value::Number(_) | Value::Bool(..) | Value::List(_) => {
                Err(Problem::new(self.at, format!("the file must hold a map of keys, found {}", self.value.in_words())))
            }
        }
    }
}

impl Value {
    fn in_words(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Text(text) => format!("the text `{}`", shown(text)),
            Self::Number(text) => format!("the number `{}`", shown(text)),
            Self::Bool(_, text) => format!("`{text}`"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// Returns a text as it stands in a message: one line, no control characters, at most 60 characters.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

/// Returns the half of a sentence that helps: the word that was meant, else all that are known.
pub(super) fn suggestion(word: &str, known: impl Iterator<Item = &'static str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known are {}", known.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn fields<'a>(
    entries: &'a [(Key, Node)],
    map: At,
    known: &[&'static str],
    unknown: UnknownKeys,
) -> Result<Fields<'a>, Problem> {
    let stranger = entries.iter().map(|(key, _)| key).find(|key| !known.contains(&key.text.as_str()));
    match (stranger, unknown) {
        (Some(key), UnknownKeys::Refuse) => {
            let help = suggestion(&key.text, known.iter().copied());
            Err(Problem::new(key.at, format!("unknown key `{}`, {help}", shown(&key.text))))
        }
        (Some(_), UnknownKeys::Ignore) | (None, UnknownKeys::Refuse | UnknownKeys::Ignore) => {
            Ok(Fields { start: entries.first().map_or(map, |(key, _)| key.at), entries })
        }
    }
}

fn unique(entries: &[(Key, Node)]) -> Result<(), Problem> {
    let mut seen = std::collections::BTreeMap::new();
    for (key, _) in entries {
        if let Some(first) = seen.insert(key.text.as_str(), key.at) {
            return Err(Problem::again(key.at, format!("duplicate key `{}`", shown(&key.text)), first));
        }
    }
    Ok(())
}

/// Accepts the bytes of a file as text: UTF-8, not too long, without NUL. A byte order mark is dropped.
pub(super) fn text<'a>(file: &Path, bytes: &'a [u8]) -> Result<&'a str, ParseError> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, more than {FILE_BYTES_MAX} (1 MiB)", bytes.len());
        return Err(Location::START.error(file, message));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let offset = error.valid_up_to();
            let message = format!("the byte 0x{:02x} is not UTF-8", bytes[offset]);
            return Err(Location::of_offset(bytes, offset).error(file, message));
        }
    };
    match text.find('\0') {
        Some(offset) => Err(Location::of_offset(bytes, offset).error(file, "the file holds a NUL character")),
        None => Ok(text),
    }
}

//! Builds the tree of a document with any serde deserializer, and finds a node of it again.
//!
//! Serde tells a visitor no positions, but both formats put the place of the current value on an error that a visitor
//! returns. So a node is located by building the tree once more and failing on purpose at that node: exact for flow
//! maps, quoted keys, comments and block texts alike, without a second parser that might read the file differently.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{self, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};

use super::node::{At, FILE_BYTES_MAX, Key, NODES_MAX, Node, Problem, Value};

/// Lists and maps within one another; fewer than the 128 of both libraries, so that the error is ours.
const DEPTH_MAX: usize = 100;

/// One pass over a document.
#[derive(Default)]
pub(super) struct Pass {
    nodes: Cell<usize>,
    bytes: Cell<usize>,
    depth: Cell<usize>,
    stop_at: Option<At>,
    /// What was wrong, if the pass failed for a reason of ours.
    pub(super) problem: RefCell<Option<Problem>>,
    /// What the last node is.
    pub(super) last: Cell<Kind>,
}

/// How a node is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Plain,
    Quoted,
    List,
    Map,
}

impl Pass {
    /// A pass that fails at node `at`.
    pub(super) fn until(at: At) -> Self {
        Self { stop_at: Some(at), ..Self::default() }
    }

    fn enter<E: de::Error>(&self, kind: Kind) -> Result<At, E> {
        let at = At(self.nodes.get());
        self.nodes.set(at.0 + 1);
        self.last.set(kind);
        if self.stop_at == Some(at) {
            return Err(E::custom("here"));
        }
        if at.0 >= NODES_MAX {
            return Err(self.fail(Problem::new(at, format!("the document has more than {NODES_MAX} values"))));
        }
        Ok(at)
    }

    fn descend<E: de::Error>(&self, kind: Kind) -> Result<At, E> {
        let at = self.enter(kind)?;
        if self.depth.get() == DEPTH_MAX {
            let message = format!("the document is nested more than {DEPTH_MAX} deep");
            return Err(self.fail(Problem::new(at, message)));
        }
        self.depth.set(self.depth.get() + 1);
        Ok(at)
    }

    /// Tells whether the pass failed because lists and maps are nested too deeply.
    pub(super) fn is_too_deep(&self) -> bool {
        self.depth.get() == DEPTH_MAX && self.problem.borrow().is_some()
    }

    /// Counts `text` towards the limit on all texts, which only aliases can pass.
    pub(super) fn keep<E: de::Error>(&self, at: At, text: &str) -> Result<String, E> {
        self.bytes.set(self.bytes.get() + text.len());
        if self.bytes.get() > 2 * FILE_BYTES_MAX {
            return Err(self.fail(Problem::new(at, "the document's aliases repeat more than 1 MiB of text")));
        }
        if text.contains('\0') {
            return Err(self.fail(Problem::new(at, "the text holds a NUL character")));
        }
        Ok(text.to_owned())
    }

    pub(super) fn fail<E: de::Error>(&self, problem: Problem) -> E {
        let message = E::custom("refused");
        self.problem.replace(Some(problem));
        message
    }
}

impl<'de> de::DeserializeSeed<'de> for &Pass {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Pass {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node { at: self.enter(Kind::Plain)?, value: Value::Null })
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node { at: self.enter(Kind::Plain)?, value: Value::Bool(value, value.to_string()) })
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.number(&value)
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.number(&value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.number(&value)
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.number(&value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.number(&value)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        let at = self.enter(Kind::Quoted)?;
        Ok(Node { at, value: Value::Text(self.keep(at, text)?) })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let at = self.descend(Kind::List)?;
        let mut nodes = Vec::new();
        while let Some(node) = elements.next_element_seed(self)? {
            nodes.push(node);
        }
        self.depth.set(self.depth.get() - 1);
        Ok(Node { at, value: Value::List(nodes) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let at = self.descend(Kind::Map)?;
        let mut nodes = Vec::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let key = match key.value {
                Value::Text(text) | Value::Number(text) | Value::Bool(_, text) => Key { at: key.at, text },
                Value::Null | Value::List(_) | Value::Map(_) => {
                    return Err(self.fail(Problem::new(key.at, "a key must be text")));
                }
            };
            nodes.push((key, entries.next_value_seed(self)?));
        }
        self.depth.set(self.depth.get() - 1);
        Ok(Node { at, value: Value::Map(nodes) })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        let at = self.enter(Kind::Plain)?;
        Err(self.fail(Problem::new(at, "tags such as `!name` are not used here")))
    }
}

impl Pass {
    fn number<E: de::Error>(&self, value: &dyn fmt::Display) -> Result<Node, E> {
        Ok(Node { at: self.enter(Kind::Plain)?, value: Value::Number(value.to_string()) })
    }
}

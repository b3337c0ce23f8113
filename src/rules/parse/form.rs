//! Keys of a file, and the forms of their values. Each is declared once: the strict reading and the schema both follow from
//! that, so that an editor refuses what the parser refuses.

use serde_json::{Map, Value, json};

use super::node::{Field, Fields, Problem, UnknownKeys};
use super::quantity::{Quantity, QuantityError};

/// How a value is written: what reads it, and the same in the words of JSON Schema (draft 7). YAML makes numbers and booleans of
/// some texts, and a keyword says nothing of values of other types than its own.
pub(super) trait Form {
    type Value;

    fn read(&self, field: Field<'_>) -> Result<Self::Value, Problem>;

    fn schema(&self) -> Map<String, Value>;
}

/// A key that may be absent.
pub(super) struct Key<F> {
    pub(super) name: &'static str,
    /// What it means, for whoever writes the file.
    pub(super) about: &'static str,
    /// What its absence means, as it would be written.
    pub(super) default: Option<&'static str>,
    pub(super) form: F,
}

impl<F: Form> Key<F> {
    /// Returns the value of this key, if the map has it.
    pub(super) fn read(&self, fields: &Fields<'_>) -> Result<Option<F::Value>, Problem> {
        fields.get(self.name).map(|field| self.form.read(field)).transpose()
    }
}

/// A key that must be there.
pub(super) struct Required<F>(pub(super) Key<F>);

impl<F: Form> Required<F> {
    /// Returns the value of this key.
    pub(super) fn read(&self, fields: &Fields<'_>) -> Result<F::Value, Problem> {
        self.0.form.read(fields.require(self.0.name)?)
    }
}

/// All keys of a map, in the order in which they are told.
pub(crate) type Keys = &'static [&'static dyn Declared];

/// What can be said of a key without knowing the type of its value.
pub(crate) trait Declared: Sync {
    /// Returns its name.
    fn name(&self) -> &'static str;
    /// Tells whether a map without it is refused.
    fn is_required(&self) -> bool;
    /// Returns the schema of its value.
    fn schema(&self) -> Value;
}

impl<F: Form + Sync> Declared for Key<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_required(&self) -> bool {
        false
    }

    fn schema(&self) -> Value {
        let mut schema = self.form.schema();
        schema.insert("description".to_owned(), self.about.into());
        if let Some(default) = self.default {
            // `false` is one, `900s` is text.
            schema.insert("default".to_owned(), default.parse().unwrap_or_else(|_| default.into()));
        }
        schema.into()
    }
}

impl<F: Form + Sync> Declared for Required<F> {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn is_required(&self) -> bool {
        true
    }

    fn schema(&self) -> Value {
        self.0.schema()
    }
}

/// Returns the names of `keys`.
pub(super) fn names(keys: Keys) -> Vec<&'static str> {
    keys.iter().map(|key| key.name()).collect()
}

/// Returns the schema of a map that has `keys` and no other.
pub(crate) fn schema_of(keys: Keys) -> Map<String, Value> {
    let properties: Map<_, _> = keys.iter().map(|key| (key.name().to_owned(), key.schema())).collect();
    let required: Vec<_> = keys.iter().filter(|key| key.is_required()).map(|key| key.name()).collect();
    let mut schema = object(json!({"type": "object", "additionalProperties": false, "properties": properties}));
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// A map with keys of its own.
pub(super) struct MapOf<T: 'static> {
    pub(super) keys: Keys,
    pub(super) read: fn(&Fields<'_>) -> Result<T, Problem>,
}

impl<T> Form for MapOf<T> {
    type Value = T;

    fn read(&self, field: Field<'_>) -> Result<T, Problem> {
        (self.read)(&field.fields(&names(self.keys), UnknownKeys::Refuse)?)
    }

    fn schema(&self) -> Map<String, Value> {
        schema_of(self.keys)
    }
}

/// A scalar that is taken as it is written.
pub(super) struct Scalar<T: 'static> {
    pub(super) read: fn(Field<'_>) -> Result<T, Problem>,
    /// Matches the texts that are accepted (ECMA 262; it may match anywhere). `None` accepts all.
    pub(super) pattern: Option<&'static str>,
    /// The least number that is accepted, where a text must not begin with `-`.
    pub(super) minimum: Option<u8>,
}

impl<T> Form for Scalar<T> {
    type Value = T;

    fn read(&self, field: Field<'_>) -> Result<T, Problem> {
        (self.read)(field)
    }

    fn schema(&self) -> Map<String, Value> {
        let mut schema = object(json!({"type": ["string", "number", "boolean"]}));
        schema.extend(self.pattern.map(|pattern| ("pattern".to_owned(), pattern.into())));
        schema.extend(self.minimum.map(|minimum| ("minimum".to_owned(), minimum.into())));
        schema
    }
}

/// Any text, an empty one too.
pub(super) const TEXT: Scalar<String> =
    Scalar { read: |field| field.text().map(str::to_owned), pattern: None, minimum: None };

/// Text that is more than white space.
pub(super) const SOME_TEXT: Scalar<String> =
    Scalar { read: |field| field.some_text().map(str::to_owned), pattern: Some(r"\S"), minimum: None };

/// One of a few words, each with what it stands for.
pub(super) struct Words<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy> Form for Words<T> {
    type Value = T;

    fn read(&self, field: Field<'_>) -> Result<T, Problem> {
        field.word(self.0)
    }

    fn schema(&self) -> Map<String, Value> {
        let words: Vec<_> = self.0.iter().map(|(word, _)| *word).collect();
        object(json!({"type": "string", "enum": words}))
    }
}

/// `true` or `false`.
pub(super) struct Boolean;

impl Form for Boolean {
    type Value = bool;

    fn read(&self, field: Field<'_>) -> Result<bool, Problem> {
        field.boolean()
    }

    fn schema(&self) -> Map<String, Value> {
        object(json!({"type": "boolean"}))
    }
}

/// A number with a unit, and what it is read by.
pub(super) struct Measure<T: 'static> {
    pub(super) quantity: &'static Quantity,
    pub(super) read: fn(&str) -> Result<T, QuantityError>,
}

impl<T> Form for Measure<T> {
    type Value = T;

    fn read(&self, field: Field<'_>) -> Result<T, Problem> {
        (self.read)(field.text()?).map_err(|error| field.wrong(error))
    }

    fn schema(&self) -> Map<String, Value> {
        let units: Vec<_> = self.quantity.units.iter().map(|(unit, _)| *unit).filter(|unit| !unit.is_empty()).collect();
        let number = r"(?=[0-9.]*[1-9])([0-9]+(\.[0-9]+)?\s*";
        let pattern = match units.is_empty() {
            true => format!(r"^\s*0*({})\s*$", at_least(self.quantity.whole_min)),
            false => format!(r"^\s*{number}({})|[0-9]+)\s*$", units.join("|")),
        };
        object(
            json!({"type": ["string", "integer"], "pattern": pattern, "minimum": self.quantity.whole_min, "maximum": self.quantity.whole_max}),
        )
    }
}

/// A pattern of the whole numbers, without zeros in front, that are `min` or more: that itself, those that are larger from one of its
/// digits on, those that have more digits.
fn at_least(min: u64) -> String {
    let any = |count: usize| "[0-9]".repeat(count);
    let digits = min.to_string();
    let larger = digits.char_indices().filter_map(|(at, digit)| {
        let next = char::from_digit(digit.to_digit(10)? + 1, 10)?;
        Some(format!("{}[{next}-9]{}", &digits[..at], any(digits.len() - at - 1)))
    });
    let longer = format!("[1-9]{}[0-9]*", any(digits.len()));
    std::iter::once(digits.clone()).chain(larger).chain([longer]).collect::<Vec<_>>().join("|")
}

/// A list.
pub(super) struct List<F>(pub(super) F);

impl<F: Form> Form for List<F> {
    type Value = Vec<F::Value>;

    fn read(&self, field: Field<'_>) -> Result<Vec<F::Value>, Problem> {
        field.list()?.map(|element| self.0.read(element)).collect()
    }

    fn schema(&self) -> Map<String, Value> {
        object(json!({"type": "array", "items": self.0.schema()}))
    }
}

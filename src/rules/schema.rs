//! The JSON Schemas of `task.yaml` and `runner.yaml`, made of the keys by which both are read. Draft 7, because that is what
//! editors' YAML servers know best.

use serde_json::json;

use super::parse::{Keys, PROJECT_KEYS, SUITE_KEYS, schema_of};

/// Returns the schema of `task.yaml` as text.
pub(crate) fn of_task() -> String {
    text("task.yaml", "A suite of proving-ground: bash blocks, and claims about what they change.", SUITE_KEYS)
}

/// Returns the schema of `runner.yaml` as text.
pub(crate) fn of_runner() -> String {
    text("runner.yaml", "A project of proving-ground: what its suites share. Every key has a default.", PROJECT_KEYS)
}

fn text(file: &str, about: &str, keys: Keys) -> String {
    let mut schema = schema_of(keys);
    if !schema.contains_key("required") {
        // An empty file is one.
        schema.insert("type".to_owned(), json!(["object", "null"]));
    }
    schema.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    schema.insert("$id".to_owned(), json!(format!("urn:proving-ground:{file}")));
    schema.insert("title".to_owned(), json!(file));
    schema.insert("description".to_owned(), json!(about));
    format!("{:#}\n", serde_json::Value::from(schema))
}

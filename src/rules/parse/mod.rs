//! Text of a file -> Suite, Project, `TestSetup`. What is wrong in it is told with line and column.

mod form;
mod json;
mod node;
mod project;
mod quantity;
mod setup;
mod task;
mod tree;
mod yaml;

pub(crate) use form::{Keys, schema_of};
pub(crate) use node::ParseError;
pub(crate) use project::{KEYS as PROJECT_KEYS, parse_project};
pub(crate) use setup::{ENTRIES, Strangers, default_setup, parse_setup, run_order, strangers};
pub(crate) use task::{KEYS as SUITE_KEYS, parse_suite};

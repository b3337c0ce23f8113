//! Text of a file -> Suite, Project, `TestSetup`. What is wrong in it is told with line and column.

mod json;
mod node;
mod project;
mod quantity;
mod setup;
mod task;
mod tree;
mod yaml;

pub(crate) use node::ParseError;
pub(crate) use project::parse_project;
pub(crate) use setup::{default_setup, parse_setup, run_order};
pub(crate) use task::parse_suite;

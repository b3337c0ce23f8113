//! System tests for software that changes the machine it runs on, reported by `cargo test`.
//!
//! A *suite* is a folder with a `task.yaml`: bash blocks, and claims about what they change. The harness takes a snapshot,
//! runs the block under test, takes another, runs `restore`, takes a third, and judges everything that it saw. Whatever a
//! block started is ended before the next one runs. Folders of Chickadee grading scripts are understood, too.
//!
//! The whole of a test target with `harness = false`:
//!
//! ```no_run
//! // tests/suites.rs
//! fn main() -> std::process::ExitCode {
//!     proving_ground::harness::main()
//! }
//! ```
//!
//! ```yaml
//! # suites/10-greets/task.yaml
//! summary: greeter says hello
//! execute: |
//!   [[ $(greeter) == "hello" ]]
//! ```
//!
//! [`Harness`] is for folders other than the usual ones. README.md has every key, setting, output and limit, and what the
//! harness does **not** protect against: without `sandbox: true` blocks and scripts run with your rights. ARCHITECTURE.md tells how it is built.
//!
//! Modules stand on floors, and imports point down only: `model` < `rules`, `os` < `flow` < faces (`harness`, `cli`, `worker`).

/// Nouns: no I/O, no clock, no environment; imports nothing of ours.
mod model {
    pub mod script;
    pub(crate) mod setup;
    pub(crate) mod snapshot;
    pub(crate) mod suite;
    pub(crate) mod verdict;
}

/// Decisions: values in, values out; imports `model`.
mod rules {
    pub(crate) mod audit;
    pub(crate) mod chickadee;
    pub(crate) mod collection;
    pub(crate) mod github;
    pub(crate) mod judge;
    pub(crate) mod junit;
    pub(crate) mod manifest;
    pub(crate) mod merge;
    pub(crate) mod nearest;
    pub(crate) mod parse;
    pub(crate) mod plan;
    pub(crate) mod presence;
    pub(crate) mod report;
    pub(crate) mod schema;
    pub(crate) mod summary;
    pub(crate) mod table;
}

/// Effects: the machine behind safe functions; imports `model`.
mod os {
    #[cfg(feature = "worker")]
    pub(crate) mod archive;
    pub(crate) mod bundle;
    pub(crate) mod disk;
    pub mod engine;
    pub(crate) mod host;
    pub(crate) mod interrupt;
    pub(crate) mod journal;
    pub(crate) mod machine;
    pub(crate) mod packages;
    pub(crate) mod probe;
    pub(crate) mod process;
    pub(crate) mod revision;
    pub mod sandbox;
    pub(crate) mod workdir;
}

/// Order: what happens after what; imports `model`, `rules` and `os`.
mod flow {
    pub(crate) mod ahead;
    pub(crate) mod blocks;
    pub(crate) mod collect;
    pub(crate) mod discover;
    pub(crate) mod doctor;
    pub(crate) mod evidence;
    pub(crate) mod evidence_json;
    pub(crate) mod job;
    pub(crate) mod looks;
    pub(crate) mod merge;
    pub(crate) mod plan;
    pub(crate) mod proof;
    pub(crate) mod reports;
    pub(crate) mod scratch;
    pub(crate) mod scripts;
    pub(crate) mod session;
    pub(crate) mod setup;
    pub(crate) mod stages;
    pub(crate) mod trial;
    pub(crate) mod turn;
    pub(crate) mod verify;
    pub(crate) mod workplace;
}

pub mod cli;
pub mod harness;
#[cfg(feature = "worker")]
pub mod worker;

#[doc(hidden)]
pub mod internals;

pub use harness::Harness;

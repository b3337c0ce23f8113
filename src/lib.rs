//! System tests for software that changes the machine it runs on, reported by `cargo test`.

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
    pub(crate) mod chickadee;
    pub(crate) mod judge;
    pub(crate) mod nearest;
    pub(crate) mod parse;
    pub(crate) mod plan;
    pub(crate) mod presence;
    pub(crate) mod report;
    pub(crate) mod summary;
}

/// Effects: the machine behind safe functions; imports `model`.
mod os {
    pub(crate) mod disk;
    pub mod engine;
    pub(crate) mod host;
    pub(crate) mod interrupt;
    pub(crate) mod journal;
    pub(crate) mod workdir;
}

/// Order: what happens after what; imports `model`, `rules` and `os`.
mod flow {
    pub(crate) mod blocks;
    pub(crate) mod discover;
    pub(crate) mod evidence_json;
    pub(crate) mod job;
    pub(crate) mod plan;
    pub(crate) mod proof;
    pub(crate) mod session;
    pub(crate) mod stages;
    pub(crate) mod trial;
}

pub mod harness;

#[doc(hidden)]
pub mod internals;

pub use harness::Harness;

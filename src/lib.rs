//! System tests for software that changes the machine it runs on, reported by `cargo test`.

/// Nouns: no I/O, no clock, no environment; imports nothing of ours.
mod model {
    pub mod script;
    pub(crate) mod setup;
    pub(crate) mod snapshot;
    pub(crate) mod suite;
    pub(crate) mod verdict;
}

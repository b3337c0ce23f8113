//! System tests for software that changes the machine it runs on, reported by `cargo test`.

/// Nouns: no I/O, no clock, no environment; imports nothing of ours.
mod model {
    pub mod script;
    pub(crate) mod setup;
    pub(crate) mod suite;
}

/// Effects. Imports `model`.
mod os {
    pub mod engine;
    pub(crate) mod host;
    pub(crate) mod journal;
    pub(crate) mod workdir;
}

/// For this package's own tests and benchmarks. Not an API: no promise is made about it.
#[doc(hidden)]
pub mod internals {
    pub use crate::model::script;
    pub use crate::os::engine;
}

//! The worker against a real server.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what fails is the claim; it starts the worker"
)]

mod idle;
mod jobs;
mod server;
mod soak;
mod world;

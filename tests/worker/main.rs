//! The worker against a real server.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what fails is the claim; it starts the worker"
)]

mod archives;
mod disks;
mod downloads;
mod ends;
mod idle;
mod image;
mod jobs;
mod manifests;
mod names;
mod polls;
mod restarts;
mod results;
mod secrets;
mod server;
mod slots;
mod soak;
mod starts;
mod status;
mod troubles;
mod users;
mod world;

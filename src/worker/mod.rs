//! `chickadee-runner`: polls an API server for jobs, runs their scripts, reports what came of it.

mod api;
mod args;
mod cache;
mod daemon;
mod heartbeat;
mod http;
mod log;
mod profile;
mod retry;
#[cfg(test)]
#[path = "../../tests/worker/server/mod.rs"]
mod server;
mod sign;
mod spool;
mod state;
mod status;
mod stop;
mod work;

use std::process::ExitCode;

/// Runs `chickadee-runner`: the whole of its `main`.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}

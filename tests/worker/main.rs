//! The worker against a real server.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test: what fails is the claim")]

mod server;

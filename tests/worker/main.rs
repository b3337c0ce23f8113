//! The worker against a real server.

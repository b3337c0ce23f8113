//! The wire: what the API server sends and takes.

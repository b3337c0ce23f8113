//! The API over HTTP; the only file that knows the client.

//! Says to the server that jobs are being worked on.

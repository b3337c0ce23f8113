//! The command line and the environment of the worker, and its secret.

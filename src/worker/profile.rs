//! What this machine can run: languages and modules, found out at start-up.

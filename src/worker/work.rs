//! One job, from its claim to its result in the spool.

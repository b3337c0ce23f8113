//! The worker's log: one event, one line, one write.

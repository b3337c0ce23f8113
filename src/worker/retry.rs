//! When something is tried again, and after how long.

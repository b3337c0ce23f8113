//! What the worker is doing, for those who watch it.

//! Slots, polls and the end: what the worker does all day.

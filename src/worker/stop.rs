//! A flag that ends waits.

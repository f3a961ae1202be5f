//! The `client` program.
